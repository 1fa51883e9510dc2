//! The api.
pub mod engine;
pub mod router;
