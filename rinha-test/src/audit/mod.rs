//! Whether all books agree: at a moment, over a window, at the end by id, and over random windows.

pub mod bounds;
pub mod compare;
pub mod settle;

pub use self::compare::{Books, ById, by_id};
