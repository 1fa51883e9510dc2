//! The journal: an append-only file of fixed-size checksummed records per API instance, cut into
//! segments. It is the truth about payments; everything else is a view of it.
//!
//! Invariants kept here:
//! - one writer per folder, by an exclusive lock;
//! - a record is read whole and with a right checksum, or not at all;
//! - a torn tail (the last, incomplete write) is cut and reported, and any other damage is an error
//!   that names the file and the offset.
//!
//! `docs/journal.md` has the byte tables, the order of writes and every crash case.

mod open_payments;
mod position;
mod reader;
mod record;
mod segment;
mod tail;
mod writer;

use std::io;

pub use open_payments::{Dispatch, OpenPayment, OpenPayments};
pub use position::Position;
pub use reader::JournalReader;
pub use record::{Event, Mark, PaymentRecord, RECORD_BYTES, Record, RecordError, Seal};
pub use segment::{HEADER_BYTES, HeaderError, SegmentHeader, segment_file_name};
pub use writer::{
    Appended, Journal, JournalConfig, Recovery, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, SyncJob, list_segments, read_seal, read_segment_header, recovery_start,
    sync_segments,
};

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use record::tests as tests_support;

/// What goes wrong with a journal, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused an operation.
    #[error("cannot {action} {file}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file, with its folder.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// The bytes at a place are not what was written there.
    #[error(
        "{file} is damaged at byte {offset}: {what}. Nothing is guessed: restore the file from a \
         copy. Without one the folder can be moved away, and its API be started with a number that none ever \
         had: under the same number payments could be paid twice"
    )]
    Damaged {
        /// The file, with its folder.
        file: String,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A segment between two others does not exist.
    #[error(
        "{file} is missing although a later segment exists. Restore it from a copy; payments in it \
         are unknown without it"
    )]
    Missing {
        /// The file, with its folder.
        file: String,
    },
}

impl JournalError {
    /// A closure that turns an I/O error into one that says what was tried and with which file.
    pub fn io(action: &'static str, file: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| Self::Io { action, file, source }
    }

    /// Whether stored data is damaged, so that trying again would not help.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. })
    }
}
