//! What a daemon tells of itself in numbers: counted while it works, put into words when it is asked.
//!
//! A daemon serves everything on one thread, so what it counts is plain cells ([`Counter`],
//! [`Histogram`]): no atomics, no locks, no names. Whoever connects to its socket
//! ([`publish`], `DIR/run/NAME.metrics`) gets a [`Page`] that is made at that moment, from the cells and
//! from the state that the daemon has anyway. Nothing is computed while nobody asks.
//!
//! Invariant: what is counted only grows while the process lives.

mod cells;
mod page;
mod process;
mod server;

pub use cells::{BOUNDS_COUNT, Bounds, Counter, Histogram, Spread};
pub use page::{Labels, Page, Value};
pub use process::{ProcessFacts, add_process};
pub use server::{METRICS_SUFFIX, publish, tell};
