//! Load: payments posted by closed users, at a constant open rate, or flat out over some
//! connections. What becomes of each payment is written down in a [`Meter`].

pub mod connection;
pub mod meter;
pub mod payments;

mod drivers;
mod pacer;
mod pieces;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use self::payments::Payments;

pub use self::drivers::drive;
pub use self::meter::{Measured, Meter, Outcome};

/// How payments come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Closed users: each posts a payment, waits for the answer, pauses and starts over.
    Users(Users),
    /// An open rate: a payment is due at each moment of a fixed beat, whatever becomes of those
    /// before. Its time counts from that moment, so that a system that stands still cannot hide it.
    Rate {
        /// Payments per second.
        per_second: f64,
        /// For how long.
        duration: Duration,
        /// Over how many connections at most.
        connections: u16,
    },
    /// Flat out: each connection posts its next payment when the last one was answered.
    Flood {
        /// Over how many connections.
        connections: u16,
        /// How many payments, or for how long.
        until: Until,
    },
}

/// Closed users.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Users {
    /// Users at the start. They come within a pause or a period, one after the other.
    pub from: u32,
    /// Users at the end of the ramp.
    pub to: u32,
    /// How long it takes from the first number to the last.
    pub ramp: Duration,
    /// When no user begins another payment.
    pub duration: Duration,
    /// The pause after an answer.
    pub pause: Duration,
    /// The time from the start of a user's payment to that of its next one at least; it makes the
    /// number of payments independent of how fast the answers are.
    pub period: Duration,
    /// Payments of one user, if they are counted.
    pub each: Option<u32>,
}

/// When a flood ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After this many payments.
    Count(u32),
    /// After this long.
    Elapsed(Duration),
}

/// What is posted, and how.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// The payments.
    pub payments: Payments,
    /// How long an answer may take.
    pub timeout: Duration,
    /// The share of requests that post a payment again which was posted before, from 0 to 1.
    pub duplicates: f64,
    /// The share of requests that are written in pieces with pauses between them, from 0 to 1.
    pub in_pieces: f64,
}

/// Why no load could be put on.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No connection for too long.
    #[error("cannot connect to {authority}: {cause}")]
    Connect {
        /// `host:port`.
        authority: String,
        /// Why not.
        cause: String,
    },
    /// No runtime, no timer.
    #[error("cannot start the load: {0}")]
    Start(io::Error),
}
