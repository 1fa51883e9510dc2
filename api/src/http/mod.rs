//! HTTP: connections of clients, requests, answers.

mod answers;
mod body;
mod connection;
mod guard;
mod routes;

pub use connection::{Connections, ServerLimits};
pub use routes::Api;
