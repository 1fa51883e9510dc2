//! The driver: gives the engine a journal, a clock, processors and the store.
//!
//! Everything that happens in one turn of the runtime (requests that were read, answers that came in)
//! is written with one write: whoever has something for the engine wakes the driver, which runs after
//! all that were ready, writes what the engine has gathered, and only then lets responses and calls
//! go out.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ledger::clock::{self, Monotonic};
use ledger::disk::Disk;
use ledger::journal::{Journal, JournalError};
use ledger::protocol::PurgeNotice;
use ledger::{Cents, CorrelationId, Processor, TimestampMs};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{sleep, sleep_until, timeout};

use crate::bell::{Bell, Word};
use crate::chronicle::Chronicle;
use crate::engine::{Accept, Batch, Call, CallOutcome, Engine, Written};
use crate::metrics::ApiMetrics;
use crate::processor::ProcessorClient;
use crate::router::{Health, RouterView};
use crate::store_client::{StoreClient, StoreEvent};
use crate::syncer::Syncer;

/// The pause before a sync that failed is tried again.
const SYNC_RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The pause before records that could not be written are tried again.
const WRITE_RETRY_MS: u64 = 250;

/// How long a payment that may have been purged waits for the store to tell.
const STORE_WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// Calls that are made before those who came in meanwhile have their turn: a client waits, and nobody
/// waits for a call.
const CALLS_IN_A_ROW: usize = 4;
/// Where more wait, this part of them is made in a row, so that they never pile up.
const CALLS_IN_A_ROW_SHARE: usize = 8;

/// What an acknowledged payment survives.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Every crash of any process; the disk is written to in the background
    Process,
    /// A power cut as well: nothing is acknowledged or sent before it is on the disk
    Disk,
}

/// What became of a payment that was posted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// It will be settled.
    Yes,
    /// Its id was accepted before with this other amount.
    Conflict(Cents),
    /// It was accepted before, and whether a purge has undone that is not known at the moment.
    Unsure,
    /// There is no room for another open payment.
    Full,
    /// The journal cannot be written, for this reason.
    Failing(String),
}

/// What becomes of payments that are written together.
type Commit = Word<Written>;

/// The driver of one engine. `D` is the disk of its journal.
pub struct Driver<D: Disk> {
    engine: RefCell<Engine>,
    journal: RefCell<Journal<D>>,
    clock: Monotonic,
    durability: Durability,
    syncer: Syncer<D>,
    /// Something was given to the engine.
    woken: Bell,
    /// The store said something.
    store_spoke: Notify,
    /// Something was written that is to be synced in the background.
    written: Notify,
    /// The commit that the next payment becomes a part of.
    next_commit: RefCell<Rc<Commit>>,
    /// The commit that is being written.
    current_commit: RefCell<Option<Rc<Commit>>>,
    /// Why the disk cannot be synced, while it cannot.
    sync_failure: RefCell<Option<String>>,
    purge_near: Cell<Option<u64>>,
    /// Calls that may be made and are not yet.
    calls: RefCell<VecDeque<Call>>,
    /// Calls that may be made and those that are made, and not back.
    calls_count: Cell<usize>,
    calls_ended: Notify,
    metrics: ApiMetrics,
    chronicle: Chronicle,
    /// When the claim was made that is not answered.
    claimed_us: Cell<Option<u64>>,
    /// The store decides nothing, and that was told.
    claims_refused: Cell<bool>,
}

impl<D> Driver<D>
where
    D: Disk + Send + 'static,
{
    /// A driver of this engine, with the journal that it was recovered from.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn new(
        engine: Engine,
        journal: Journal<D>,
        clock: Monotonic,
        durability: Durability,
    ) -> std::io::Result<Rc<Self>> {
        let chronicle = Chronicle::default();
        chronicle.started(engine.open_count(), clock::now);
        let written = Notify::new();
        if durability == Durability::Process && journal.is_unsynced() {
            // By the process before, which may have ended before it synced that.
            written.notify_one();
        }
        Ok(Rc::new(Self {
            engine: RefCell::new(engine),
            journal: RefCell::new(journal),
            clock,
            durability,
            syncer: Syncer::start()?,
            woken: Bell::default(),
            store_spoke: Notify::new(),
            written,
            next_commit: RefCell::default(),
            current_commit: RefCell::default(),
            sync_failure: RefCell::default(),
            purge_near: Cell::new(None),
            calls: RefCell::default(),
            calls_count: Cell::new(0),
            calls_ended: Notify::new(),
            metrics: ApiMetrics::default(),
            chronicle,
            claimed_us: Cell::new(None),
            claims_refused: Cell::new(false),
        }))
    }

    /// Takes a payment in, and returns once it cannot be lost any more.
    pub async fn accept(&self, id: CorrelationId, amount: Cents) -> Accepted {
        let read_us = self.clock.elapsed_us();
        let accepted = self.take_in(id, amount, read_us / 1000).await;
        if accepted == Accepted::Yes {
            self.metrics.accept.observe_us(self.clock.elapsed_us() - read_us);
        }
        accepted
    }

    async fn take_in(&self, id: CorrelationId, amount: Cents, mut now_ms: u64) -> Accepted {
        loop {
            if let Some(why) = self.sync_failure.borrow().as_ref() {
                return Accepted::Failing(why.clone());
            }
            let accept = self.engine.borrow_mut().accept(id, amount, now_ms);
            match accept {
                Accept::Writing(ticket) => {
                    let commit = Rc::clone(&self.next_commit.borrow());
                    self.woken.ring();
                    let written = commit.heard().await;
                    if ticket.0 >= written.accepts_count {
                        return Accepted::Failing(self.failure().unwrap_or_default());
                    }
                    if ticket.0 >= written.void_count {
                        return Accepted::Yes;
                    }
                }
                Accept::Wait => {
                    let current = self.current_commit.borrow().clone();
                    let commit = current.unwrap_or_else(|| Rc::clone(&self.next_commit.borrow()));
                    commit.heard().await;
                }
                Accept::Unsure => {
                    let word = self.store_spoke.notified();
                    if timeout(STORE_WORD_TIMEOUT, word).await.is_err() {
                        return Accepted::Unsure;
                    }
                }
                Accept::Known => return Accepted::Yes,
                Accept::Conflict(amount) => return Accepted::Conflict(amount),
                Accept::Full => return Accepted::Full,
                Accept::Failing(why) => return Accepted::Failing(why),
            }
            now_ms = self.clock.elapsed_ms();
        }
    }

    /// Whether so many payments wait that no more are taken in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.engine.borrow().is_full()
    }

    /// Why no payment can be written, while none can.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let sync_failure = self.sync_failure.borrow().clone();
        sync_failure.or_else(|| self.engine.borrow().failure().map(str::to_owned))
    }

    /// Payments that are not closed.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.engine.borrow().open_count()
    }

    /// What the router knows and thinks, how many payments wait for it, and for how many milliseconds
    /// the first of them has waited.
    #[must_use]
    pub fn routing(&self) -> (RouterView, usize, u64) {
        self.engine.borrow().routing(self.clock.elapsed_ms())
    }

    /// See [`Engine::oldest_age_ms`].
    #[must_use]
    pub fn oldest_age_ms(&self) -> u64 {
        self.engine.borrow().oldest_age_ms(self.clock.elapsed_ms())
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &ApiMetrics {
        &self.metrics
    }

    /// What was decided lately.
    #[must_use]
    pub fn chronicle(&self) -> &Chronicle {
        &self.chronicle
    }

    /// The fees by [`Processor::index`], in basis points.
    #[must_use]
    pub fn fees_bp(&self) -> [u32; 2] {
        self.engine.borrow().fees_bp()
    }

    /// Takes in what became of a call.
    pub fn finished(&self, call: &Call, outcome: CallOutcome, latency_us: u64) {
        self.metrics.called(call.processor, outcome, latency_us);
        let now_ms = self.clock.elapsed_ms();
        self.engine.borrow_mut().finished(call, outcome, latency_us / 1000, now_ms);
        self.calls_count.set(self.calls_count.get() - 1);
        if self.calls_count.get() == 0 {
            self.calls_ended.notify_one();
        }
        self.woken.ring();
    }

    /// Takes in what a processor says of itself.
    pub fn heard(&self, processor: Processor, health: Health) {
        self.metrics.heard(processor, health);
        self.chronicle.said(processor, health.failing, clock::now);
        self.engine.borrow_mut().heard(processor, health, self.clock.elapsed_ms());
        self.woken.ring();
    }

    /// Takes in what the store says.
    pub fn heard_store(&self, event: StoreEvent) {
        self.time_claim(&event);
        let mut engine = self.engine.borrow_mut();
        match event {
            StoreEvent::Connected(notice) => {
                self.chronicle.store(true, clock::now);
                engine.connected(notice);
            }
            StoreEvent::Disconnected => {
                self.chronicle.store(false, clock::now);
                engine.disconnected();
            }
            StoreEvent::Decided { through, losers } => {
                if self.claims_refused.take() {
                    tracing::info!("the store decides again");
                }
                engine.decided(through, &losers);
            }
            StoreEvent::ClaimRefused(why) => {
                if !self.claims_refused.replace(true) {
                    tracing::warn!("the store cannot decide, and payments wait for that: {why}");
                }
                engine.claim_refused(self.clock.elapsed_ms());
            }
            StoreEvent::PreparePurge { serial } => {
                engine.prepare_purge();
                self.purge_near.set(Some(serial));
            }
            StoreEvent::PurgeAborted => {
                self.purge_near.set(None);
                engine.purge_aborted();
            }
            StoreEvent::Purged(notice) => {
                self.chronicle.purged(clock::now);
                engine.purged(notice);
                let oldest_needed = engine.oldest_open_segment().min(notice.cut.segment);
                self.remove_void_segments(oldest_needed, notice);
            }
        }
        self.store_spoke.notify_waiters();
        self.woken.ring();
    }

    fn time_claim(&self, event: &StoreEvent) {
        match event {
            StoreEvent::Decided { .. } => {
                if let Some(claimed_us) = self.claimed_us.take() {
                    self.metrics.claim.observe_us(self.clock.elapsed_us() - claimed_us);
                }
            }
            StoreEvent::ClaimRefused(_) | StoreEvent::Disconnected => self.claimed_us.set(None),
            _ => {}
        }
    }

    fn remove_void_segments(&self, oldest_needed: u32, notice: PurgeNotice) {
        self.purge_near.set(None);
        match self.journal.borrow_mut().remove_segments_before(oldest_needed) {
            Ok(count) => {
                tracing::info!(purge = notice.purge, "purged; {count} segments are removed");
            }
            Err(error) => tracing::warn!("{error}. The next purge removes it"),
        }
    }

    /// Drives the engine for ever.
    ///
    /// # Errors
    /// The journal is damaged.
    pub async fn run(
        &self,
        clients: &[Rc<ProcessorClient>; 2],
        store: &StoreClient,
    ) -> Result<(), JournalError> {
        // It is set anew only when the time of the next turn changes, which it seldom does.
        let mut alarm = pin!(sleep_until(self.clock.at_ms(0).into()));
        let mut wake_ms = None;
        loop {
            match wake_ms {
                None => self.woken.heard().await,
                Some(at_ms) => {
                    let at = self.clock.at_ms(at_ms).into();
                    if alarm.deadline() != at {
                        alarm.as_mut().reset(at);
                    }
                    tokio::select! {
                        biased;
                        () = self.woken.heard() => {}
                        // Not before everyone who has something was heard.
                        () = &mut alarm => yield_now().await,
                    }
                }
            }
            wake_ms = self.turn(clients, store).await?;
            self.chronicle.stands(self.engine.borrow().standing(), clock::now);
        }
    }

    /// Writes what there is to write, and makes the calls and claims that follow from it. Gives the
    /// time of the next turn if nothing happens until then.
    async fn turn(
        &self,
        clients: &[Rc<ProcessorClient>; 2],
        store: &StoreClient,
    ) -> Result<Option<u64>, JournalError> {
        loop {
            // Each pass reads the clocks once, and what it writes takes so long that it is read again.
            let (now, mut now_ms) = (clock::now(), self.clock.elapsed_ms());
            // A pass that waits for the disk is long, and what comes in meanwhile is no crowd.
            if self.durability == Durability::Process {
                self.engine.borrow_mut().begin_turn(now_ms);
            }
            // What this pass writes is the last that was to be sent before the purge.
            let purge = self.purge_near.get();
            let wake_ms = self.engine.borrow_mut().pump(now_ms, now);
            let batch = self.engine.borrow_mut().take_batch(now);
            let is_last = batch.is_none();
            if let Some(batch) = batch {
                now_ms = self.write(batch, now).await?;
            }
            self.gather_calls();
            // None may be made after it was agreed to the purge. And where clients wait for the disk, they do
            // not wait for calls, but calls would wait for the disk of those who come in meanwhile.
            let all_at_once = purge.is_some() || self.durability == Durability::Disk;
            self.make_calls(clients, if all_at_once { usize::MAX } else { CALLS_IN_A_ROW });
            let fails = self.engine.borrow().failure().is_some();
            // What could not be written is written after the cut, where the store does not expect it.
            if let Some(serial) = purge
                && !fails
                && self.purge_near.get() == purge
            {
                self.purge_near.set(None);
                self.prepare_purge(store, serial);
            }
            // After each pass, because requests that come in while it waits for the disk make another
            // one follow, and another one after that.
            let claim = self.engine.borrow_mut().take_claim(now_ms);
            if let Some(through) = claim {
                store.claim(through);
                self.claimed_us.set(Some(self.clock.elapsed_us()));
            }
            if self.make_calls_unless_interrupted(clients).await {
                continue;
            }
            if is_last {
                return Ok(wake_ms);
            }
            if fails {
                let retry_ms = now_ms + WRITE_RETRY_MS;
                return Ok(Some(wake_ms.map_or(retry_ms, |wake_ms| wake_ms.min(retry_ms))));
            }
        }
    }

    /// Takes in which calls may be made.
    fn gather_calls(&self) {
        let calls = self.engine.borrow_mut().take_calls();
        self.calls_count.set(self.calls_count.get() + calls.len());
        self.calls.borrow_mut().extend(calls);
    }

    /// Makes some of the calls that may be made.
    fn make_calls(&self, clients: &[Rc<ProcessorClient>; 2], in_a_row: usize) {
        let mut calls = self.calls.borrow_mut();
        let in_a_row = in_a_row.max(calls.len() / CALLS_IN_A_ROW_SHARE).min(calls.len());
        for call in calls.drain(..in_a_row) {
            clients[call.processor.index()].start(call);
        }
    }

    /// Makes the calls that are left, and lets requests be read in between. True as soon as a payment came
    /// in: that is written first. Answers of processors wait until all calls are made, so that many are
    /// written at once.
    async fn make_calls_unless_interrupted(&self, clients: &[Rc<ProcessorClient>; 2]) -> bool {
        while !self.calls.borrow().is_empty() {
            // Who waits for this core has waited for a row, and need not for all of them.
            std::thread::yield_now();
            yield_now().await;
            if self.engine.borrow().has_arrivals() || self.purge_near.get().is_some() {
                return true;
            }
            self.make_calls(clients, CALLS_IN_A_ROW);
        }
        false
    }

    /// Everything that was to be sent is written. A new segment lets the old ones be removed.
    fn prepare_purge(&self, store: &StoreClient, serial: u64) {
        let oldest_open = self.engine.borrow().oldest_open_segment();
        if let Err(error) = self.journal.borrow_mut().rotate(oldest_open, clock::now()) {
            tracing::warn!("{error}. The purge leaves a segment behind");
        }
        store.prepared(serial);
    }

    /// Writes a batch, and tells everyone what of it is in the journal. Gives the time after that.
    async fn write(&self, batch: Batch, now: TimestampMs) -> Result<u64, JournalError> {
        let commit = self.next_commit.take();
        *self.current_commit.borrow_mut() = Some(Rc::clone(&commit));
        let oldest_open = self.engine.borrow().oldest_open_segment();
        let started_us = self.clock.elapsed_us();
        let appended = self.journal.borrow_mut().append(&batch.records, oldest_open, now);
        let mut now_us = self.clock.elapsed_us();
        self.metrics.journal_write.observe_us(now_us - started_us);
        self.metrics.written(&batch.records[..appended.count]);
        if appended.count > 0 {
            match self.durability {
                Durability::Process => self.written.notify_one(),
                Durability::Disk => {
                    self.sync(Some(&commit)).await?;
                    now_us = self.clock.elapsed_us();
                }
            }
        }
        let failure = appended.error.map(|error| error.to_string());
        if self.sync_failure.borrow().is_none() {
            self.chronicle.takes(failure.as_deref(), clock::now);
        }
        let now_ms = now_us / 1000;
        for age_ms in self.engine.borrow().settled_ages_ms(&batch, appended.count, now_ms) {
            self.metrics.settle.observe_us(age_ms * 1000);
        }
        let written = self.engine.borrow_mut().written(
            batch,
            appended.first,
            appended.count,
            failure,
            now_ms,
        );
        self.metrics.accepted.add(u64::from(written.accepts_count - written.void_count));
        *self.current_commit.borrow_mut() = None;
        commit.say(written);
        Ok(now_ms)
    }

    /// Syncs the journal, however often it takes. While it fails, nobody is told that anything was
    /// accepted.
    async fn sync(&self, commit: Option<&Commit>) -> Result<(), JournalError> {
        loop {
            let job = self.journal.borrow_mut().take_unsynced();
            self.metrics.journal_syncs.add_one();
            match self.syncer.sync(job).await {
                Ok(through) => {
                    self.journal.borrow_mut().synced(through);
                    if self.sync_failure.take().is_some() {
                        self.chronicle.takes(None, clock::now);
                        tracing::info!("the journal can be synced again");
                    }
                    return Ok(());
                }
                Err(error) => {
                    self.metrics.journal_sync_failures.add_one();
                    let why = error.to_string();
                    self.chronicle.takes(Some(&why), clock::now);
                    if self.sync_failure.replace(Some(why.clone())).is_none() {
                        tracing::error!("{why}. No payment is accepted until that works again");
                    }
                    if let Some(commit) = commit {
                        commit.say(Written::default());
                    }
                }
            }
            self.rewrite_unsynced().await?;
        }
    }

    /// Writes again what was not synced, however often it takes: before that a sync proves nothing,
    /// because the operating system tells of a failure once.
    async fn rewrite_unsynced(&self) -> Result<(), JournalError> {
        loop {
            sleep(SYNC_RETRY_PAUSE).await;
            let rewritten = self.journal.borrow_mut().rewrite_unsynced();
            match rewritten {
                Ok(()) => return Ok(()),
                Err(error) if error.is_damage() => return Err(error),
                Err(error) => tracing::debug!("{error}"),
            }
        }
    }

    /// Syncs the journal in the background, for ever, once in each `interval` in which it grows.
    ///
    /// # Errors
    /// The journal is damaged.
    pub async fn sync_in_background(&self, interval: Duration) -> Result<(), JournalError> {
        loop {
            self.written.notified().await;
            sleep(interval).await;
            self.sync(None).await?;
        }
    }

    /// Sends nothing new, and waits, while [`Driver::run`] goes on, until all calls are back and what
    /// came of them is on the disk; at most as long as the limit. A call that is still in flight then
    /// is in doubt, and resolved after the next start.
    pub async fn stop(&self, limit: Duration) {
        self.engine.borrow_mut().stop();
        let all_done = async {
            while self.calls_count.get() > 0 {
                self.calls_ended.notified().await;
            }
            while self.engine.borrow().has_pending() {
                let commit = Rc::clone(&self.next_commit.borrow());
                self.woken.ring();
                commit.heard().await;
            }
        };
        if timeout(limit, all_done).await.is_err() {
            tracing::warn!(
                calls = self.calls_count.get(),
                "ending with calls in flight; they are resolved after the next start"
            );
        }
        if let Err(error) = self.sync_at_last().await {
            tracing::error!("{error}");
        }
    }

    /// Syncs once more. What a sync has failed on is written again first, because this one alone would
    /// prove nothing.
    async fn sync_at_last(&self) -> Result<(), JournalError> {
        if self.sync_failure.borrow().is_some() {
            self.journal.borrow_mut().rewrite_unsynced()?;
        }
        let job = self.journal.borrow_mut().take_unsynced();
        let through = self.syncer.sync(job).await?;
        self.journal.borrow_mut().synced(through);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use crossbeam_channel::{Receiver, Sender, unbounded};
    use ledger::disk::DiskFile;
    use ledger::disk::memory::{MemoryDisk, MemoryFile, MemoryLock};
    use ledger::journal::{
        Event, HEADER_BYTES, JournalConfig, PaymentRecord, Position, RECORD_BYTES,
        SEGMENT_BYTES_DEFAULT, segment_file_name,
    };
    use ledger::metrics::Histogram;
    use ledger::protocol::PurgeNotice;
    use tokio::task::{spawn_local, yield_now};

    use super::*;
    use crate::engine::EngineConfig;
    use crate::processor::CallLimits;
    use crate::router::RouterConfig;

    const JOURNAL_CONFIG: JournalConfig =
        JournalConfig { instance: 1, segment_bytes: SEGMENT_BYTES_DEFAULT, boot_id: [0; 16] };

    /// Enough for a driver that starves to be told from one that does not.
    const PAYMENTS_MAX: u8 = 200;

    /// A disk in memory on which a sync lasts until it is let through.
    #[derive(Clone)]
    struct GatedDisk {
        memory: MemoryDisk,
        gate: Receiver<()>,
    }

    #[derive(Clone)]
    struct GatedFile {
        memory: MemoryFile,
        gate: Receiver<()>,
    }

    impl GatedDisk {
        fn new() -> (Self, Sender<()>) {
            let (let_through, gate) = unbounded();
            (Self { memory: MemoryDisk::new(), gate }, let_through)
        }

        fn gated(&self, memory: MemoryFile) -> GatedFile {
            GatedFile { memory, gate: self.gate.clone() }
        }
    }

    impl Disk for GatedDisk {
        type File = GatedFile;
        type Lock = MemoryLock;

        fn describe(&self, name: &str) -> String {
            self.memory.describe(name)
        }

        fn names(&self) -> io::Result<Vec<String>> {
            self.memory.names()
        }

        fn lock(&self) -> io::Result<MemoryLock> {
            self.memory.lock()
        }

        fn create(&self, name: &str) -> io::Result<GatedFile> {
            self.memory.create(name).map(|file| self.gated(file))
        }

        fn open(&self, name: &str) -> io::Result<GatedFile> {
            self.memory.open(name).map(|file| self.gated(file))
        }

        fn open_read_only(&self, name: &str) -> io::Result<GatedFile> {
            self.memory.open_read_only(name).map(|file| self.gated(file))
        }

        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.memory.rename(from, to)
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.memory.remove(name)
        }

        fn sync(&self) -> io::Result<()> {
            self.memory.sync()
        }
    }

    impl DiskFile for GatedFile {
        fn size(&self) -> io::Result<u64> {
            self.memory.size()
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            self.memory.read_at(offset, buffer)
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
            self.memory.write_at(offset, bytes)
        }

        fn truncate(&self, size: u64) -> io::Result<()> {
            self.memory.truncate(size)
        }

        fn sync(&self) -> io::Result<()> {
            // A segment's head is synced by who begins it, and nobody else can go on meanwhile.
            if std::thread::current().name() == Some("syncer") {
                // Whoever may let it through is gone at the end of a test.
                let _ = self.gate.recv();
            }
            self.memory.sync()
        }
    }

    struct Fixture<D: Disk> {
        driver: Rc<Driver<D>>,
        clients: [Rc<ProcessorClient>; 2],
        store: Rc<StoreClient>,
        disk: D,
    }

    /// A driver in disk mode whose store was connected and does not answer.
    fn fixture<D: Disk + Send + 'static>(disk: D) -> Fixture<D> {
        fixture_with(disk, Durability::Disk)
    }

    /// As [`fixture`], after a process that ended between a write and its sync.
    fn fixture_after_another(disk: &MemoryDisk, durability: Durability) -> Fixture<MemoryDisk> {
        let (mut journal, _) =
            Journal::open(disk.clone(), JOURNAL_CONFIG, clock::now(), |_, _| {}).unwrap();
        let record = PaymentRecord {
            id: CorrelationId::from_bytes([9; 16]),
            amount: Cents::new(1),
            written_at: clock::now(),
            event: Event::Accepted,
        };
        assert_eq!(journal.append(&[record], 1, clock::now()).count, 1);
        drop(journal);
        let fixture = fixture_with(disk.clone(), durability);
        assert!(fixture.driver.journal.borrow().is_unsynced());
        fixture
    }

    fn fixture_with<D: Disk + Send + 'static>(disk: D, durability: Durability) -> Fixture<D> {
        let config = EngineConfig {
            backlog_max: 1000,
            recent_max: 10,
            claim_delay_ms: 0,
            router: RouterConfig {
                fees_bp: [500, 1500],
                patience_ms: 1000,
                in_flight_max: 64,
                slow_ms: 1300,
            },
        };
        let (journal, _) =
            Journal::open(disk.clone(), JOURNAL_CONFIG, clock::now(), |_, _| {}).unwrap();
        let engine = Engine::new(config, &[], journal.end(), 0, clock::now());
        let clock = Monotonic::start();
        let driver = Driver::new(engine, journal, clock, durability).unwrap();
        driver.heard_store(StoreEvent::Connected(PurgeNotice { purge: 0, cut: Position::START }));
        let second = Duration::from_secs(1);
        let limits = CallLimits { call_timeout: second, connect_timeout: second };
        let clients = [(); 2].map(|()| {
            let target = "http://127.0.0.1:1".parse().unwrap();
            ProcessorClient::new(target, limits, clock, Rc::new(|_, _, _| {}))
        });
        let store = StoreClient::new("/nowhere".into(), 1);
        Fixture { driver, clients, store, disk }
    }

    impl Fixture<GatedDisk> {
        /// Takes a turn while a new payment comes in during each sync, until `is_done` or until there
        /// were many.
        async fn turn_under_load(&self, let_through: &Sender<()>, is_done: impl Fn() -> bool) {
            let load = async {
                for number in 0..PAYMENTS_MAX {
                    while self.driver.engine.borrow().has_pending() {
                        yield_now().await;
                    }
                    if is_done() {
                        return;
                    }
                    let id = CorrelationId::from_bytes([number; 16]);
                    self.driver.engine.borrow_mut().accept(id, Cents::new(1), 0);
                    if number > 0 {
                        let_through.send(()).unwrap();
                    }
                }
            };
            tokio::select! {
                biased;
                () = load => {}
                turned = self.driver.turn(&self.clients, &self.store) => drop(turned.unwrap()),
            }
        }
    }

    fn block_on(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default());
        runtime.unwrap().block_on(test);
    }

    #[test]
    fn claims_are_made_while_payments_come_in_without_a_pause() {
        block_on(async {
            let (disk, let_through) = GatedDisk::new();
            let fixture = fixture(disk);
            let engine = &fixture.driver.engine;
            let is_claimed = || engine.borrow().claim_is_out();
            fixture.turn_under_load(&let_through, is_claimed).await;
            assert!(is_claimed());
        });
    }

    #[test]
    fn only_where_no_turn_waits_for_the_disk_many_that_come_in_are_a_crowd() {
        block_on(async {
            for durability in [Durability::Process, Durability::Disk] {
                let fixture = fixture_with(MemoryDisk::new(), durability);
                for number in 0..100 {
                    let id = CorrelationId::from_bytes([number; 16]);
                    fixture.driver.engine.borrow_mut().accept(id, Cents::new(1), 0);
                }
                fixture.driver.turn(&fixture.clients, &fixture.store).await.unwrap();
                let is_crowded = fixture.driver.engine.borrow().is_crowded();
                assert_eq!(is_crowded, durability == Durability::Process);
            }
        });
    }

    impl Fixture<MemoryDisk> {
        /// As [`fixture_with`], with so many payments that may be sent to a processor that works.
        async fn with_ready(durability: Durability, count: u8) -> Self {
            let fixture = fixture_with(MemoryDisk::new(), durability);
            fixture.make_ready(u8::MAX..=u8::MAX).await;
            let driver = &fixture.driver;
            driver.engine.borrow_mut().pump(driver.clock.elapsed_ms(), clock::now());
            let batch = driver.engine.borrow_mut().take_batch(clock::now()).unwrap();
            driver.write(batch, clock::now()).await.unwrap();
            driver.gather_calls();
            let call = driver.calls.borrow_mut().pop_front().unwrap();
            driver.finished(&call, CallOutcome::Recorded, 1000);
            fixture.make_ready(0..=count - 1).await;
            fixture
        }

        /// Takes payments in, and has them decided upon.
        async fn make_ready(&self, numbers: std::ops::RangeInclusive<u8>) {
            for number in numbers {
                let id = CorrelationId::from_bytes([number; 16]);
                self.driver.engine.borrow_mut().accept(id, Cents::new(1), 0);
            }
            self.driver.turn(&self.clients, &self.store).await.unwrap();
            assert!(self.driver.engine.borrow().claim_is_out());
            // So long after them there is no crowd.
            sleep(Duration::from_millis(20)).await;
            let through = Position { segment: 1, index: u32::MAX };
            self.driver.heard_store(StoreEvent::Decided { through, losers: Vec::new() });
        }

        /// Takes a turn, and does something whenever others have theirs.
        async fn turn_with_others(&self, mut other: impl FnMut()) {
            let others = async {
                loop {
                    other();
                    yield_now().await;
                }
            };
            tokio::select! {
                biased;
                () = others => {}
                turned = self.driver.turn(&self.clients, &self.store) => drop(turned.unwrap()),
            }
        }
    }

    const READY: u8 = 20;

    #[test]
    fn calls_go_out_in_rows_unless_turns_wait_for_the_disk_and_all_are_waited_for() {
        block_on(async {
            for (durability, rows) in
                [(Durability::Process, vec![16, 12, 8, 4]), (Durability::Disk, vec![])]
            {
                let fixture = Fixture::with_ready(durability, READY).await;
                let driver = &fixture.driver;
                let mut left = Vec::new();
                fixture
                    .turn_with_others(|| {
                        if !driver.calls.borrow().is_empty() {
                            left.push(driver.calls.borrow().len());
                            assert_eq!(driver.calls_count.get(), usize::from(READY), "for the end");
                        }
                    })
                    .await;
                assert_eq!(left, rows, "{durability:?}");
                assert_eq!(driver.calls_count.get(), usize::from(READY));
            }
        });
    }

    #[test]
    fn who_comes_in_between_two_rows_is_written_before_the_next_one_and_all_calls_go_out() {
        block_on(async {
            let fixture = Fixture::with_ready(Durability::Process, READY).await;
            let driver = &fixture.driver;
            let (mut number, mut lefts) = (READY, Vec::new());
            fixture
                .turn_with_others(|| {
                    let left = driver.calls.borrow().len();
                    if left > 0 && number < PAYMENTS_MAX {
                        assert!(!driver.engine.borrow().has_arrivals(), "the last one is written");
                        lefts.push(left);
                        let id = CorrelationId::from_bytes([number; 16]);
                        driver.engine.borrow_mut().accept(id, Cents::new(1), 0);
                        number += 1;
                    }
                })
                .await;
            assert_eq!(lefts, [16, 12, 8, 4]);
            assert!(driver.calls.borrow().is_empty());
        });
    }

    #[test]
    fn no_call_is_left_when_a_purge_is_agreed_to() {
        block_on(async {
            let fixture = Fixture::with_ready(Durability::Process, READY).await;
            let driver = &fixture.driver;
            let mut is_asked = false;
            fixture
                .turn_with_others(|| {
                    let left = driver.calls.borrow().len();
                    if is_asked && driver.purge_near.get().is_none() {
                        assert_eq!(left, 0);
                    } else if left > 0 {
                        driver.heard_store(StoreEvent::PreparePurge { serial: 1 });
                        is_asked = true;
                    }
                })
                .await;
            assert!(is_asked && driver.purge_near.get().is_none());
            assert!(driver.calls.borrow().is_empty());
        });
    }

    #[test]
    fn a_purge_is_agreed_to_while_payments_come_in_without_a_pause() {
        block_on(async {
            let (disk, let_through) = GatedDisk::new();
            let fixture = fixture(disk);
            fixture.driver.heard_store(StoreEvent::PreparePurge { serial: 1 });
            let is_agreed = || fixture.driver.purge_near.get().is_none();
            fixture.turn_under_load(&let_through, is_agreed).await;
            assert!(is_agreed());
        });
    }

    #[test]
    fn a_purge_is_not_agreed_to_while_something_cannot_be_written() {
        block_on(async {
            let fixture = fixture(MemoryDisk::new());
            let id = CorrelationId::from_bytes([1; 16]);
            fixture.driver.engine.borrow_mut().accept(id, Cents::new(1), 0);
            fixture.driver.heard_store(StoreEvent::PreparePurge { serial: 1 });
            fixture.disk.set_room_bytes(Some(0));
            fixture.driver.turn(&fixture.clients, &fixture.store).await.unwrap();
            assert!(fixture.driver.purge_near.get().is_some());
        });
    }

    #[test]
    fn what_is_accepted_is_counted_once_and_timed_and_so_are_writes_and_syncs() {
        block_on(async {
            let Fixture { driver, clients, store, disk } = fixture(MemoryDisk::new());
            let id = CorrelationId::from_bytes([1; 16]);
            let post = || {
                let driver = Rc::clone(&driver);
                spawn_local(async move { driver.accept(id, Cents::new(1)).await })
            };
            let first = post();
            yield_now().await;
            driver.turn(&clients, &store).await.unwrap();
            assert_eq!(first.await.unwrap(), Accepted::Yes);
            assert_eq!(post().await.unwrap(), Accepted::Yes);
            let metrics = driver.metrics();
            let count = |histogram: &Histogram| histogram.spread().counts.iter().sum::<u64>();
            assert_eq!((metrics.accepted.get(), count(&metrics.accept)), (1, 2));
            assert_eq!((count(&metrics.journal_write), metrics.journal_syncs.get()), (1, 1));
            assert_eq!(count(&metrics.claim), 0);
            let through = Position { segment: 1, index: 1 };
            driver.heard_store(StoreEvent::Decided { through, losers: Vec::new() });
            assert_eq!(count(&metrics.claim), 1);
            // The record of its dispatch cannot be written.
            disk.set_room_bytes(Some(0));
            driver.turn(&clients, &store).await.unwrap();
            assert_eq!((count(&metrics.journal_write), metrics.journal_syncs.get()), (2, 1));
            assert!(driver.failure().is_some());
        });
    }

    #[test]
    fn after_a_failed_sync_none_counts_before_everything_is_written_again() {
        block_on(async {
            let Fixture { driver, clients, store, disk } = fixture(MemoryDisk::new());
            let driving = Rc::clone(&driver);
            spawn_local(async move { driving.run(&clients, &store).await });
            disk.set_sync_fails(true);
            let id = CorrelationId::from_bytes([1; 16]);
            assert!(matches!(driver.accept(id, Cents::new(1)).await, Accepted::Failing(_)));
            assert_eq!(driver.metrics().journal_sync_failures.get(), 1);
            // From now on syncs succeed, and there is room for a segment's head and no record.
            disk.set_sync_fails(false);
            disk.count_writes();
            for _ in 0..2 {
                disk.set_room_bytes(Some(HEADER_BYTES));
                while disk.count_writes() == 0 {
                    assert!(driver.failure().is_some(), "nothing was written again");
                    sleep(Duration::from_millis(1)).await;
                }
            }
            disk.set_room_bytes(None);
            while driver.failure().is_some() {
                sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(driver.accept(id, Cents::new(1)).await, Accepted::Yes);
        });
    }

    #[test]
    fn what_the_process_before_left_unsynced_is_synced_in_the_background() {
        block_on(async {
            let Fixture { driver, .. } =
                fixture_after_another(&MemoryDisk::new(), Durability::Process);
            let syncing = Rc::clone(&driver);
            spawn_local(async move { syncing.sync_in_background(Duration::ZERO).await });
            while driver.journal.borrow().is_unsynced() {
                sleep(Duration::from_millis(1)).await;
            }
        });
    }

    #[test]
    fn the_last_sync_does_not_pass_over_what_one_has_failed_on() {
        block_on(async {
            let disk = MemoryDisk::new();
            let Fixture { driver, .. } = fixture_after_another(&disk, Durability::Process);
            *driver.sync_failure.borrow_mut() = Some("the disk is gone".to_owned());
            disk.set_room_bytes(Some(0));
            driver.stop(Duration::ZERO).await;
            assert!(driver.journal.borrow().is_unsynced(), "nothing was written again");
            disk.set_room_bytes(None);
            driver.stop(Duration::ZERO).await;
            assert!(!driver.journal.borrow().is_unsynced());
        });
    }

    #[test]
    fn a_payment_that_a_purge_undid_while_it_was_synced_is_accepted_once_it_is_written_again() {
        block_on(async {
            let Fixture { driver, clients, store, disk } = fixture(MemoryDisk::new());
            let id = CorrelationId::from_bytes([1; 16]);
            let accepting = spawn_local({
                let driver = Rc::clone(&driver);
                async move { driver.accept(id, Cents::new(1)).await }
            });
            yield_now().await;
            // The store has cut behind its record before its disk has answered.
            let cut = Position { segment: 1, index: 1 };
            driver.heard_store(StoreEvent::Purged(PurgeNotice { purge: 1, cut }));
            driver.turn(&clients, &store).await.unwrap();
            assert_eq!(accepting.await.unwrap(), Accepted::Yes);
            let bytes = disk.bytes(&segment_file_name(1)).unwrap();
            // The payment, a mark of what was synced by then, and the payment again.
            assert_eq!(bytes.len(), HEADER_BYTES + 3 * RECORD_BYTES);
        });
    }
}
