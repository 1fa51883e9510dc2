//! How far the archive is, for whoever wants to show it. Written by its thread alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the archive's thread tells of itself.
#[derive(Debug, Default)]
pub struct Progress {
    archived_payments: AtomicU64,
    behind_bytes: AtomicU64,
    connected: AtomicBool,
}

impl Progress {
    /// Payments that were archived since the store was started.
    #[must_use]
    pub fn archived_payments(&self) -> u64 {
        self.archived_payments.load(Ordering::Relaxed)
    }

    /// Bytes of journals that are not archived, as of the last look.
    #[must_use]
    pub fn behind_bytes(&self) -> u64 {
        self.behind_bytes.load(Ordering::Relaxed)
    }

    /// Whether the database took what was given to it last. False once the archive has ended.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    pub(super) fn add_archived(&self, payments_count: usize) {
        self.archived_payments.fetch_add(payments_count as u64, Ordering::Relaxed);
    }

    pub(super) fn set_behind(&self, bytes: u64) {
        self.behind_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }
}
