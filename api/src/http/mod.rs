//! HTTP: connections of clients, requests, answers.

mod answers;
mod body;
mod connection;
mod guard;
mod plain;
mod routes;

pub use body::parse as parse_payment;
pub use connection::{Connections, ServerLimits};
pub use routes::Api;
#[cfg(fuzzing)]
pub use routes::range;
