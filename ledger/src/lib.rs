//! What every process of the payment router shares: the vocabulary of payments, the journal that
//! is the truth about them, and the words that the processes say to each other.

pub mod check;
pub mod clock;
pub mod daemon;
pub mod disk;
pub mod handover;
pub mod id;
pub mod journal;
pub mod json;
pub mod line;
pub mod log_limit;
pub mod metrics;
pub mod money;
pub mod notes;
pub mod notify;
pub mod processor;
pub mod protocol;
pub mod query;
pub mod socket;
pub mod time;
pub mod totals;
pub mod turns;
pub mod volume;

pub use id::{CorrelationId, IdMap};
pub use money::Cents;
pub use processor::Processor;
pub use time::{RangeMs, TimestampMs};
pub use totals::Totals;
