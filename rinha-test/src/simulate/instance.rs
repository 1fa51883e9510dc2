//! A process of the API: the real engine and journal, and what drives them in the real process
//! (`api/src/driver.rs`), with events in place of the runtime.

use api::engine::{Batch, Engine, EngineConfig, Ticket};
use ledger::disk::crashing::CrashingDisk;
use ledger::journal::{Appended, Journal, JournalConfig, JournalError, OpenPayment, OpenPayments};
use ledger::{Cents, TimestampMs};

use super::Sabotage;

/// The moment at which all simulations begin.
const EPOCH_MS: i64 = 1_752_580_800_000;

/// What a client is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// `202`.
    Accepted,
    /// `409`, because of this amount.
    Conflict(Cents),
    /// `503`: nothing was written.
    Full,
    /// `503`: the disk fails.
    Failing,
    /// `503`: whether it is accepted is not known.
    Unsure,
}

/// A client that waits for a commit.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    pub post: usize,
    /// Its place in the commit; `None` for one that only asks again afterwards.
    pub ticket: Option<Ticket>,
}

/// A batch that is on its way to the disk.
pub struct Writing {
    pub batch: Batch,
    pub appended: Appended,
    pub waiters: Vec<Waiter>,
}

/// A process.
pub struct Api {
    pub engine: Engine,
    pub journal: Journal<CrashingDisk>,
    started_ms: u64,
    skew_ms: i64,
    /// Who waits for the next batch.
    pub next_commit: Vec<Waiter>,
    pub writing: Option<Writing>,
    pub sync_fails: bool,
    pub background_sync_due: bool,
    /// Who waits for the store's word.
    pub unsure: Vec<usize>,
    pub turn_due: bool,
    pub wake_at_ms: Option<u64>,
    /// The store's process that it is connected to.
    pub link: Option<u32>,
}

impl Api {
    /// Starts a process on its disk.
    pub fn start(
        disk: &CrashingDisk,
        journal: JournalConfig,
        config: EngineConfig,
        now_ms: u64,
        skew_ms: i64,
        sabotage: Option<Sabotage>,
    ) -> Result<Self, JournalError> {
        let mut open = OpenPayments::new();
        let now = moment(now_ms, skew_ms);
        let (journal, _) = Journal::open(disk.clone(), journal, now, |position, record| {
            open.apply(position, record);
        })?;
        let mut open = open.into_ordered();
        if sabotage == Some(Sabotage::ForgetSent) {
            open = open.iter().map(|of| OpenPayment { in_doubt: None, ..*of }).collect();
        }
        let engine = Engine::new(config, &open, journal.end(), 0, now);
        Ok(Self {
            engine,
            journal,
            started_ms: now_ms,
            skew_ms,
            next_commit: Vec::new(),
            writing: None,
            sync_fails: false,
            background_sync_due: false,
            unsure: Vec::new(),
            turn_due: false,
            wake_at_ms: None,
            link: None,
        })
    }

    /// The time of its own clock.
    pub fn elapsed_ms(&self, now_ms: u64) -> u64 {
        now_ms - self.started_ms
    }

    /// A time of its own clock as one of the simulation.
    pub fn simulated_ms(&self, elapsed_ms: u64) -> u64 {
        self.started_ms + elapsed_ms
    }

    /// The time of day as it sees it.
    pub fn now(&self, now_ms: u64) -> TimestampMs {
        moment(now_ms, self.skew_ms)
    }

    /// Its time of day is off by so much.
    pub fn set_skew(&mut self, skew_ms: i64) {
        self.skew_ms = skew_ms;
    }

    /// Syncs all that was written. What a sync failed on is written again first.
    pub fn sync(&mut self, sabotage: Option<Sabotage>) -> Result<(), JournalError> {
        if self.sync_fails {
            self.journal.rewrite_unsynced()?;
        }
        let job = self.journal.take_unsynced();
        if sabotage != Some(Sabotage::SkipSync) {
            job.run()?;
        }
        self.journal.synced(job.through());
        self.sync_fails = false;
        Ok(())
    }
}

fn moment(now_ms: u64, skew_ms: i64) -> TimestampMs {
    TimestampMs::clamped(EPOCH_MS + i64::try_from(now_ms).unwrap_or(0) + skew_ms)
}
