//! How far the archive is, for whoever wants to show it. Written by its thread alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ledger::clock::Monotonic;

/// Stands for a number that nobody knows.
const UNKNOWN: u64 = u64::MAX;

/// What the archive's thread tells of itself.
#[derive(Debug)]
pub struct Progress {
    clock: Monotonic,
    archived_payments: AtomicU64,
    behind_bytes: AtomicU64,
    connected: AtomicBool,
    over: AtomicBool,
    /// The number of the last purge that was carried out there.
    purged: AtomicU64,
    /// The moment by the clock up to which everything is archived.
    whole_at_ms: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            clock: Monotonic::start(),
            archived_payments: AtomicU64::new(0),
            behind_bytes: AtomicU64::new(UNKNOWN),
            connected: AtomicBool::new(false),
            over: AtomicBool::new(false),
            purged: AtomicU64::new(UNKNOWN),
            whole_at_ms: AtomicU64::new(0),
        }
    }
}

impl Progress {
    /// Payments that were archived since the store was started.
    #[must_use]
    pub fn archived_payments(&self) -> u64 {
        self.archived_payments.load(Ordering::Relaxed)
    }

    /// Bytes of journals that are not archived, as of the last look. Nobody knows before the first
    /// connection.
    #[must_use]
    pub fn behind_bytes(&self) -> Option<u64> {
        let bytes = self.behind_bytes.load(Ordering::Relaxed);
        (bytes != UNKNOWN).then_some(bytes)
    }

    /// Whether the database took what was given to it last. False once the archive has ended.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Everything that was settled so long ago is archived. Before that was so for the first time it
    /// is the time since the archive was begun.
    #[must_use]
    pub fn lag(&self) -> Duration {
        let whole_at = Duration::from_millis(self.whole_at_ms.load(Ordering::Relaxed));
        self.clock.elapsed().saturating_sub(whole_at)
    }

    /// The number of the last purge that was carried out there. Nobody knows before the first connection.
    #[must_use]
    pub fn purged(&self) -> Option<u64> {
        let number = self.purged.load(Ordering::Acquire);
        (number != UNKNOWN).then_some(number)
    }

    pub(crate) fn set_purged(&self, number: u64) {
        self.purged.store(number, Ordering::Release);
    }

    /// The moment by the clock of [`Progress::lag`].
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.elapsed_ms()
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn set_over(&self) {
        self.over.store(true, Ordering::Relaxed);
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

    /// Everything that was in the journals at this moment is archived.
    pub(super) fn set_whole(&self, at_ms: u64) {
        self.whole_at_ms.store(at_ms, Ordering::Relaxed);
    }
}
