//! The books: all journals read into one view that answers what was settled, what is known of a
//! payment, and who may send one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ledger::disk::folder::FolderDisk;
use ledger::disk::{Disk, DiskFile};
use ledger::journal::{
    Event, HEADER_BYTES, JournalError, JournalReader, OpenPayments, PaymentRecord, Position,
    RECORD_BYTES, Record, list_segments, read_seal, read_segment_header, recovery_start,
    segment_file_name, sync_segments,
};
use ledger::protocol::{PurgeNotice, Trace};
use ledger::volume::{Volume, instance_name};
use ledger::{CorrelationId, RangeMs, TimestampMs, Totals};

use crate::applier::{Applier, Step};
use crate::claims::{ClaimsError, JournalMark};
use crate::database::{Database, DatabaseError, Settled, remove_if_there};
use crate::decisions::{Decided, DecisionError, Decisions, Undecided};
use crate::index::{
    Found, Index, IndexError, IndexJob, Indexed, Indexer, Kind, LookError, SealedSegment,
    SegmentKey, SumError, index_file_name, index_file_segment, segments_before,
};
use crate::pyramid;
use crate::suspicion::Suspicion;

/// Records that are read from a journal at a time.
const READ_RECORDS_MAX: usize = 8192;
/// Settled payments that are added to the database at a time while others wait for answers.
const APPLY_PAYMENTS_MAX: usize = 1024;
/// Settled payments that are added to the database at a time while it is made anew.
const REBUILD_PAYMENTS_MAX: usize = 4096;
/// Segments that may wait to be indexed while journals are read at the start, so that not all of
/// them are in memory.
const INDEXING_MAX: usize = 1;
/// With more entries of the index waiting to be written nothing new is decided upon, so that not all that waits for
/// a slow disk is in memory. One takes up to 48 bytes, and a healthy disk leaves those of one or two segments, 200,000
/// each.
const WAITING_ENTRIES_MAX: usize = 1_500_000;

/// Segments of one payment that are told at most. It has records in one or two, and in more only where it
/// was posted again long after.
const TRACES_MAX: usize = 64;

/// The cut of a journal that is away: more than it ever has.
const AWAY: Position = Position { segment: i32::MAX.cast_unsigned(), index: 0 };

/// The file with the key of the index's fingerprints.
const HASH_KEY_FILE: &str = "key";
const INDEX_FOLDER: &str = "index";
const DATABASE_PREFIX: &str = "sled-";

/// Why the books cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// A journal cannot be read, or is damaged.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The claim log cannot be read or written, or is damaged.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    /// The index cannot be read or written.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The database fails.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A journal is another one than that with its number was, so what was decided of its places is not
    /// true of it.
    #[error(
        "{} is not the journal that api-{instance} had: {what}. Going on with it could pay a payment twice. Put \
         back the journal that was there. If that is lost, docs/operations.md says what to do (a journal is \
         damaged, step 4)",
        path.display()
    )]
    OtherJournal {
        /// Whose journal it is.
        instance: u16,
        /// Its folder.
        path: PathBuf,
        /// What shows that.
        what: String,
    },
    /// The store was told to end before it had read the journals.
    #[error("told to end before the journals were read")]
    Stopped,
    /// The operating system refuses something else.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl BooksError {
    /// Whether stored data is damaged, so that a new start would not help.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Journal(error) => error.is_damage(),
            Self::Claims(error) => error.is_damage(),
            Self::OtherJournal { .. } => true,
            _ => false,
        }
    }
}

impl From<SumError> for BooksError {
    fn from(error: SumError) -> Self {
        match error {
            SumError::Index(error) => Self::Index(error),
            SumError::Overflow(error) => Self::Database(error.into()),
        }
    }
}

impl From<LookError> for BooksError {
    fn from(error: LookError) -> Self {
        match error {
            LookError::Index(error) => Self::Index(error),
            LookError::Journal(error) => Self::Journal(error),
        }
    }
}

/// One instance's journal, as far as it was read.
struct Instance {
    disk: FolderDisk,
    reader: JournalReader<FolderDisk>,
    /// Settled payments before this place are in the database already.
    apply_from: Position,
    /// Segments that are read to their end and not in a file of the index yet, in order.
    sealed: VecDeque<u32>,
}

/// The books.
pub struct Books {
    volume: Volume,
    cache_bytes: u64,
    hash_key: [u8; 16],
    boot_id: [u8; 16],
    index_disk: FolderDisk,
    instances: BTreeMap<u16, Instance>,
    decisions: Decisions<FolderDisk>,
    index: Index<FolderDisk>,
    indexer: Indexer<FolderDisk>,
    /// How many entries may wait for the indexer before nothing new is decided upon.
    waiting_max: usize,
    /// Too many wait. It is over when half of that do.
    is_index_behind: bool,
    /// Segments whose index could not be written to a file.
    kept_in_memory: BTreeSet<(u16, u32)>,
    database: Arc<Database>,
    /// Settled payments that are read and not in the database yet, in the order of reading.
    unapplied: VecDeque<Unapplied>,
    /// Records that were read since the store was started.
    read_count: u64,
}

/// A settled payment and the place of its record.
struct Unapplied {
    instance: u16,
    position: Position,
    payment: Settled,
}

/// Records that were read from a journal.
struct Progress {
    count: usize,
    /// When the last of them was written.
    written_at: TimestampMs,
}

/// Who decides which record has the right to an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rights {
    /// These books, in the order of the claim log.
    Here,
    /// A ledger that several machines share. Nothing is remembered of it here but what the journals
    /// say.
    Shared,
}

/// What opening the books found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Instances that have a journal.
    pub instances_count: usize,
    /// Records that were read.
    pub records_count: u64,
}

/// How the books stand, see [`Books::standing`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BooksStanding {
    /// Records that were read since the store was started.
    pub read_count: u64,
    /// Settled payments that are read and not in the database.
    pub unapplied_count: u64,
    /// Records in the journal of each instance that are not read; `None` where it cannot be looked at.
    pub behind_counts: BTreeMap<u16, Option<u64>>,
    /// Segments in the index.
    pub segments_count: u64,
    /// Entries of the index that wait to be written to a file.
    pub waiting_count: u64,
}

impl Books {
    /// Opens the books on a volume and reads all journals to their ends, under this boot of the
    /// machine.
    ///
    /// # Errors
    /// Another store runs, or something cannot be read, or is damaged.
    pub fn open(
        volume: &Volume,
        cache_bytes: u64,
        boot_id: [u8; 16],
    ) -> Result<(Self, Opened), BooksError> {
        Self::open_unless(&AtomicBool::new(false), volume, cache_bytes, boot_id, Rights::Here)
    }

    /// As [`Books::open`], until another thread says to stop.
    ///
    /// # Errors
    /// As [`Books::open`], or it was stopped.
    pub fn open_unless(
        stop: &AtomicBool,
        volume: &Volume,
        cache_bytes: u64,
        boot_id: [u8; 16],
        rights: Rights,
    ) -> Result<(Self, Opened), BooksError> {
        match Self::try_open(stop, volume, cache_bytes, boot_id, rights) {
            // What is wrong with a view that was just begun anew is not wrong with the view.
            Err(BooksError::Database(error)) if error.speaks_against_the_view() => {
                Suspicion::of(volume).raise(&error.to_string());
            }
            opened => return opened,
        }
        Self::try_open(stop, volume, cache_bytes, boot_id, rights)
    }

    fn try_open(
        stop: &AtomicBool,
        volume: &Volume,
        cache_bytes: u64,
        boot_id: [u8; 16],
        rights: Rights,
    ) -> Result<(Self, Opened), BooksError> {
        let store_disk = folder(&volume.store())?;
        let (mut decisions, mut claims) = Decisions::open(store_disk, boot_id)?;
        if rights == Rights::Shared {
            decisions.forget_claims();
            claims.clear();
        }
        let index_disk = index_folder(&volume.store().join(INDEX_FOLDER))?;
        let database_path = database_path(volume, decisions.purge());
        remove_other_databases(volume, &database_path)?;
        if !decisions.same_boot() && database_path.exists() {
            tracing::info!("the machine was started anew; the database is rebuilt");
            remove_if_there(&database_path).map_err(failed("remove", &database_path))?;
        }
        let mut books = Self {
            volume: volume.clone(),
            cache_bytes,
            hash_key: hash_key(&index_disk)?,
            boot_id,
            indexer: Indexer::start(index_disk.clone())
                .map_err(failed("start a thread for", &volume.store()))?,
            waiting_max: WAITING_ENTRIES_MAX,
            is_index_behind: false,
            kept_in_memory: BTreeSet::new(),
            index_disk,
            instances: BTreeMap::new(),
            decisions,
            index: Index::default(),
            database: Arc::new(open_database(volume, &database_path, cache_bytes)?),
            unapplied: VecDeque::new(),
            read_count: 0,
        };
        books.find_survivors()?;
        let records_count = books.read_from_scratch(stop)?;
        if books.database_is_ahead() {
            return Err(books.database.incomplete().into());
        }
        books.database.check_total(books.index.settled().map_err(DatabaseError::from)?)?;
        books.remove_stale_indexes()?;
        for claim in claims {
            books.decisions.decide_again(&mut books.index, claim)?;
        }
        books.check_journals()?;
        books.decisions.keep()?;
        books.close_segments()?;
        let opened = Opened { instances_count: books.instances.len(), records_count };
        Ok((books, opened))
    }

    /// Reads all journals of the volume, from where each is not in index and database yet.
    fn read_from_scratch(&mut self, stop: &AtomicBool) -> Result<u64, BooksError> {
        let applier = Applier::start(Arc::clone(&self.database))
            .map_err(failed("start a thread for", &self.volume.store()))?;
        let read = self.read_into(&applier, stop);
        // Whatever went wrong, nobody touches the database any more after this.
        let applied = applier.finish();
        let records_count = read?;
        applied?;
        Ok(records_count)
    }

    /// Reads all journals and hands what was settled to another thread. Ends early where that one has
    /// failed.
    ///
    /// Journals are read side by side, as they were written: then each part of the database is written
    /// to once, while it is in memory.
    fn read_into(&mut self, applier: &Applier, stop: &AtomicBool) -> Result<u64, BooksError> {
        let instances = self.volume.instances().map_err(failed("read", &self.volume.journals()))?;
        let mut unread = BinaryHeap::new();
        for instance in instances {
            self.add_instance(instance)?;
            unread.push(Reverse((TimestampMs::MIN, instance)));
        }
        let mut records_count = 0;
        while let Some(Reverse((_, instance))) = unread.pop() {
            if stop.load(Ordering::Relaxed) {
                return Err(BooksError::Stopped);
            }
            let Progress { count, written_at } = self.read_some(instance)?;
            records_count += count as u64;
            if count == READ_RECORDS_MAX {
                unread.push(Reverse((written_at, instance)));
            }
            while self.unapplied.len() >= REBUILD_PAYMENTS_MAX {
                if !self.hand_over(applier) {
                    return Ok(records_count);
                }
            }
            // The record that closes a loser of the last segment may not be read yet, and the claim log remembers
            // only losers without one. It is written as soon as its journal is told, so it is not a segment away.
            self.close_segments_behind(1)?;
            while self.indexer.pending_count() > INDEXING_MAX
                && let Some(finished) = self.indexer.finish()
            {
                self.take_indexed(finished);
            }
        }
        while self.hand_over(applier) {}
        Ok(records_count)
    }

    /// Makes an instance's journal known, if it is not yet.
    fn add_instance(&mut self, instance: u16) -> Result<(), BooksError> {
        if self.instances.contains_key(&instance) {
            return Ok(());
        }
        let disk = folder(&self.volume.journal(instance))?;
        let cut = self.decisions.cut(instance);
        let segments = list_segments(&disk)?;
        if has_records(&disk)? {
            check_mark(self.decisions.journal(instance), &self.volume, instance, &disk)?;
        }
        let oldest = segments.first().copied().unwrap_or(cut.segment);
        // Only what a purge made void may be gone.
        if oldest > cut.segment && !self.decisions.knows(instance) {
            tracing::warn!(
                "the journal of {} begins at segment {oldest}, and the claim log does not say why: what was \
                 before it is not known",
                instance_name(instance)
            );
        } else if oldest > cut.segment {
            let file = disk.describe(&segment_file_name(cut.segment));
            return Err(JournalError::Missing { file }.into());
        }
        let begin = cut.max(Position { segment: oldest, index: 0 });
        let apply_from = self.database.offset(instance)?.unwrap_or(begin).max(begin);
        let next = segments.last().map_or(begin.segment, |last| last + 1);
        let mut first_unindexed = begin.max(Position { segment: next, index: 0 });
        for number in segments.into_iter().filter(|number| *number >= begin.segment) {
            if self.open_index(instance, &disk, number, cut)? {
                continue;
            }
            let unindexed = Position { segment: number, index: 0 }.max(begin);
            first_unindexed = first_unindexed.min(unindexed);
        }
        if !self.decisions.remembers_claims() {
            // What a file of the index has was decided before, and is what the journal has.
            self.decisions.set_decided(instance, first_unindexed);
        }
        let read_from = apply_from.min(first_unindexed);
        let reader = JournalReader::new(disk.clone(), instance, read_from)
            .under_boot(self.boot_id)
            .passing_lost_seals();
        let state = Instance { disk, reader, apply_from, sealed: VecDeque::new() };
        self.instances.insert(instance, state);
        Ok(())
    }

    /// Opens the index of a segment, if its file is there and sound.
    fn open_index(
        &mut self,
        instance: u16,
        disk: &FolderDisk,
        number: u32,
        cut: Position,
    ) -> Result<bool, BooksError> {
        if self.index.is_sealed(instance, number) {
            return Ok(true);
        }
        let Some(key) = self.segment_key(instance, disk, number, cut)? else { return Ok(false) };
        match SealedSegment::open(&self.index_disk, disk.clone(), key) {
            Ok(Some(sealed)) => Ok(self.index.add_sealed(sealed)),
            Ok(None) => Ok(false),
            Err(error) if error.is_shortage() => Err(error.into()),
            Err(error) => {
                tracing::warn!("{error}; that file of the index is made again");
                let path = self.index_disk.path().join(index_file_name(instance, number));
                remove_if_there(&path).map_err(failed("remove", &path))?;
                Ok(false)
            }
        }
    }

    /// What the index of a segment must belong to. `None` where the segment is not sealed.
    fn segment_key(
        &self,
        instance: u16,
        disk: &FolderDisk,
        number: u32,
        cut: Position,
    ) -> Result<Option<SegmentKey>, BooksError> {
        let Some(header) = read_segment_header(disk, number)? else { return Ok(None) };
        let seal = read_seal(disk, number)?;
        Ok(seal.map(|seal| SegmentKey {
            instance,
            number,
            header_checksum: header.checksum(),
            first_index: if cut.segment == number { cut.index } else { 0 },
            seal_index: seal.records_count,
            hash_key: self.hash_key,
        }))
    }

    /// Removes files of the index whose segments are gone or were made void by a purge.
    fn remove_stale_indexes(&self) -> Result<(), BooksError> {
        let names = self.index_disk.names().map_err(failed("read", self.index_disk.path()))?;
        for name in names {
            let Some((instance, number)) = index_file_segment(&name) else { continue };
            let exists = self.instances.get(&instance).is_some_and(|state| {
                number >= self.decisions.cut(instance).segment
                    && state.reader.position().segment >= number
            });
            if !exists {
                let path = self.index_disk.path().join(&name);
                self.index_disk.remove(&name).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Reads an instance's journal to its end, and tells how many records that were.
    fn read_instance(&mut self, instance: u16) -> Result<u64, BooksError> {
        let mut records_count = 0;
        loop {
            let Progress { count, .. } = self.read_some(instance)?;
            records_count += count as u64;
            if count < READ_RECORDS_MAX {
                return Ok(records_count);
            }
            if self.unapplied.len() >= APPLY_PAYMENTS_MAX {
                self.apply()?;
            }
        }
    }

    /// Reads an instance's journal to its end, and gives the part of a claim that it has: nothing that was
    /// not read is decided upon.
    fn read_before(&mut self, instance: u16, through: Position) -> Result<Position, BooksError> {
        self.read_instance(instance)?;
        let read = self.instances.get(&instance).map(|state| state.reader.position());
        Ok(read.map_or(through, |read| through.min(read)))
    }

    /// Reads up to [`READ_RECORDS_MAX`] records of an instance's journal.
    fn read_some(&mut self, instance: u16) -> Result<Progress, BooksError> {
        let mut written_at = TimestampMs::MIN;
        let Some(state) = self.instances.get_mut(&instance) else {
            return Ok(Progress { count: 0, written_at });
        };
        let (decisions, index, unapplied) =
            (&mut self.decisions, &mut self.index, &mut self.unapplied);
        let (apply_from, sealed) = (state.apply_from, &mut state.sealed);
        let count = state.reader.read(READ_RECORDS_MAX, |position, record| match record {
            Record::Payment(record) => {
                written_at = record.written_at;
                decisions.record(index, instance, position, record);
                if let Event::Settled { processor, requested_at } = record.event {
                    let amount = record.amount;
                    let tick = pyramid::tick(requested_at);
                    index.add_settled(instance, position, tick, processor, amount);
                    if position >= apply_from {
                        let payment = Settled { amount, processor, requested_at };
                        unapplied.push_back(Unapplied { instance, position, payment });
                    }
                }
            }
            Record::Sealed(_) => sealed.push_back(position.segment),
            Record::Synced(_) => {}
        })?;
        if let Some(header) = state.reader.header() {
            let mark = JournalMark { segment: header.number, header_checksum: header.checksum() };
            // Only where the one before is there can this be the same journal.
            if decisions.journal(instance) != Some(mark) {
                check_mark(decisions.journal(instance), &self.volume, instance, &state.disk)?;
                decisions.set_journal(instance, mark);
            }
        }
        self.read_count += count as u64;
        Ok(Progress { count, written_at })
    }

    /// Reads all journals to their ends, as of now, and gives whether there was anything new.
    ///
    /// # Errors
    /// A journal cannot be read, or is damaged.
    pub fn read_all(&mut self) -> Result<bool, BooksError> {
        let instances: Vec<u16> = self.instances.keys().copied().collect();
        let mut any = false;
        for instance in instances {
            any |= self.read_instance(instance)? > 0;
        }
        // Nobody claims while what was decided upon is sent, and that fills segments too.
        self.close_segments()?;
        Ok(any)
    }

    /// Whether segments are being written to their files, so that they are still in memory.
    #[must_use]
    pub fn is_indexing(&self) -> bool {
        self.indexer.pending_count() > 0
    }

    /// Adds everything that was read to the database.
    ///
    /// # Errors
    /// The database fails.
    pub fn apply(&mut self) -> Result<(), BooksError> {
        while self.apply_some()? {}
        Ok(())
    }

    /// Adds a part of what was read to the database. True if there is more.
    ///
    /// # Errors
    /// The database fails.
    pub fn apply_some(&mut self) -> Result<bool, BooksError> {
        let Some(step) = self.next_step(APPLY_PAYMENTS_MAX) else { return Ok(false) };
        let count = step.payments.len();
        // What cannot be added stays, so that nothing later is added without it.
        step.apply(&self.database)?;
        self.unapplied.drain(..count);
        Ok(!self.unapplied.is_empty())
    }

    /// The first payments that are not in the database.
    fn next_step(&self, payments_max: usize) -> Option<Step> {
        if self.unapplied.is_empty() {
            return None;
        }
        let count = self.unapplied.len().min(payments_max);
        let mut step = Step { payments: Vec::with_capacity(count), ..Step::default() };
        for unapplied in self.unapplied.range(..count) {
            step.offsets.insert(unapplied.instance, unapplied.position.next());
            step.payments.push(unapplied.payment);
        }
        if self.unapplied.len() == count {
            for (instance, state) in &self.instances {
                step.offsets.insert(*instance, state.reader.position().max(state.apply_from));
            }
        }
        Some(step)
    }

    /// Hands the first payments that are not in the database to the thread that adds them. False if that
    /// has failed, or there are none.
    fn hand_over(&mut self, applier: &Applier) -> bool {
        let Some(step) = self.next_step(REBUILD_PAYMENTS_MAX) else { return false };
        self.unapplied.drain(..step.payments.len());
        applier.submit(step)
    }

    /// How far the books are behind the journals, and what they consist of. The journals are looked at for
    /// that, and not read.
    #[must_use]
    pub fn standing(&self) -> BooksStanding {
        let behind = |number: u16, state: &Instance| {
            records_behind(&state.disk, state.reader.position())
                .inspect_err(|error| {
                    let name = instance_name(number);
                    tracing::debug!("cannot look how far the journal of {name} has come: {error}");
                })
                .ok()
        };
        let instances = self.instances.iter();
        BooksStanding {
            read_count: self.read_count,
            unapplied_count: self.unapplied.len() as u64,
            behind_counts: instances
                .map(|(number, state)| (*number, behind(*number, state)))
                .collect(),
            segments_count: self.index.segments_count(),
            waiting_count: self.indexer.pending_entries() as u64,
        }
    }

    /// What was settled in a span of time, by every record that was written before the call.
    ///
    /// # Errors
    /// A journal cannot be read, or the database fails.
    pub fn sum(&mut self, range: RangeMs) -> Result<[Totals; 2], BooksError> {
        self.read_all()?;
        self.apply()?;
        let settled = self.index.settled().map_err(DatabaseError::from)?;
        self.database.sum(range, settled, |ticks| Ok(self.index.settled_between(ticks)?))
    }

    /// Takes in that an instance has connected, and gives what it must know of purges.
    ///
    /// # Errors
    /// Its journal cannot be read.
    pub fn greet(&mut self, instance: u16) -> Result<PurgeNotice, BooksError> {
        self.add_instance(instance)?;
        // Before anything is read of it, and after: it grows.
        self.check_journal(instance)?;
        self.read_instance(instance)?;
        self.check_journal(instance)?;
        self.decisions.greet(instance);
        Ok(self.decisions.purge_notice(instance))
    }

    /// The last purge as an instance hears of it.
    #[must_use]
    pub fn purge_notice(&self, instance: u16) -> PurgeNotice {
        self.decisions.purge_notice(instance)
    }

    /// Decides upon what an instance accepted before a place in its journal. The inner error is one
    /// after which the claim can be made again.
    ///
    /// # Errors
    /// The instance's journal or the index cannot be read.
    pub fn claim(
        &mut self,
        instance: u16,
        through: Position,
    ) -> Result<Result<Decided, ClaimsError>, BooksError> {
        if let Err(behind) = self.demand_room() {
            return Ok(Err(behind));
        }
        let through = self.read_before(instance, through)?;
        let decided = match self.decisions.claim(&mut self.index, instance, through) {
            Ok(decided) => Ok(decided),
            Err(DecisionError::Claims(error)) => Err(error),
            Err(DecisionError::Look(error)) => return Err(error.into()),
        };
        self.close_segments()?;
        Ok(decided)
    }

    /// What an instance has accepted before a place in its journal and nobody has decided upon, where
    /// rights are [`Rights::Shared`]. The inner error says that nothing is decided upon for now.
    ///
    /// # Errors
    /// The instance's journal or the index cannot be read.
    pub fn undecided(
        &mut self,
        instance: u16,
        through: Position,
    ) -> Result<Result<Undecided, ClaimsError>, BooksError> {
        if let Err(behind) = self.demand_room() {
            return Ok(Err(behind));
        }
        let through = self.read_before(instance, through)?;
        Ok(Ok(self.decisions.undecided(&self.index, instance, through)?))
    }

    /// Lets another number of entries of the index wait for the disk before nothing new is decided upon.
    pub fn limit_waiting(&mut self, entries_max: usize) {
        self.waiting_max = entries_max;
    }

    /// Demands that not too much waits for the indexer. What is decided upon fills more segments: it is sent and
    /// settled.
    fn demand_room(&mut self) -> Result<(), ClaimsError> {
        self.take_finished();
        let count = self.indexer.pending_entries();
        let may_wait = if self.is_index_behind { self.waiting_max / 2 } else { self.waiting_max };
        self.is_index_behind = count > may_wait;
        if self.is_index_behind { Err(ClaimsError::Behind { count }) } else { Ok(()) }
    }

    /// Takes in what was decided elsewhere upon everything that an instance accepted before a place:
    /// these lost.
    ///
    /// # Errors
    /// A segment's head cannot be read.
    pub fn decide_as(
        &mut self,
        instance: u16,
        through: Position,
        losers: &BTreeSet<Position>,
    ) -> Result<Decided, BooksError> {
        let decided = self.decisions.decide_as(&mut self.index, instance, through, losers);
        self.close_segments()?;
        Ok(decided)
    }

    /// Whether a journal has, at this very place, that a payment with this id was accepted. It has not
    /// where a power cut took that record.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn is_accepted_at(
        &self,
        instance: u16,
        place: Position,
        id: CorrelationId,
    ) -> Result<bool, BooksError> {
        let Some(state) = self.instances.get(&instance) else { return Ok(false) };
        let mut reader = JournalReader::new(state.disk.clone(), instance, place)
            .under_boot(self.boot_id)
            .passing_lost_seals();
        let mut is_there = false;
        reader.read(1, |position, record| {
            if let Record::Payment(record) = record {
                is_there = position == place && record.id == id && record.event == Event::Accepted;
            }
        })?;
        Ok(is_there)
    }

    /// Whether an id belongs, in a shared ledger, to the record at a place by rights, which no other record of
    /// this volume can take over: it is there, and no purge made it void unless a processor may have it.
    ///
    /// # Errors
    /// A journal or the index cannot be read.
    pub fn has_right_by(
        &mut self,
        instance: u16,
        place: Position,
        id: CorrelationId,
    ) -> Result<bool, BooksError> {
        if place >= self.decisions.cut(instance) {
            return self.is_accepted_at(instance, place, id);
        }
        // One that was in flight and is closed by now has records behind the cut.
        let is_open = self.decisions.survivor(id).is_some();
        Ok(is_open || self.look(id)?.is_some_and(|record| record.event != Event::Accepted))
    }

    /// How often this volume was purged.
    #[must_use]
    pub fn purges_count(&self) -> u64 {
        self.decisions.purge()
    }

    /// The record that tells most of a payment, by every record that was written before the call.
    ///
    /// # Errors
    /// A journal or the index cannot be read.
    pub fn look(&mut self, id: CorrelationId) -> Result<Option<PaymentRecord>, BooksError> {
        self.read_all()?;
        let found = self.index.find(id)?;
        // At most one journal has more than `Accepted` and `Duplicate` about an id, and there the
        // last record counts.
        let telling = found
            .iter()
            .filter(|found| found.kind != Kind::Duplicate)
            .max_by_key(|found| (found.kind != Kind::Accepted, found.position));
        match telling {
            Some(found) => self.read_record(found),
            None => Ok(self.decisions.survivor(id).copied()),
        }
    }

    /// The segments that have records of a payment, by every record that was written before the call: the
    /// first ones, where there are more than are told.
    ///
    /// # Errors
    /// A journal or the index cannot be read.
    pub fn trace(&mut self, id: CorrelationId) -> Result<Vec<Trace>, BooksError> {
        self.read_all()?;
        let found = self.index.find(id)?;
        let traces = found.iter().take(TRACES_MAX).map(|Found { instance, position, .. }| {
            let begin = Position { segment: position.segment, index: 0 };
            let cut = self.decisions.cut(*instance);
            Trace {
                instance: *instance,
                from: if cut.segment == begin.segment { cut } else { begin },
            }
        });
        Ok(traces.collect())
    }

    fn read_record(&self, found: &Found) -> Result<Option<PaymentRecord>, BooksError> {
        let Some(state) = self.instances.get(&found.instance) else { return Ok(None) };
        let mut reader = JournalReader::new(state.disk.clone(), found.instance, found.position);
        let mut payment = None;
        reader.read(1, |_, record| {
            if let Record::Payment(record) = record {
                payment = Some(*record);
            }
        })?;
        Ok(payment)
    }

    /// Instances whose process runs although it is not among these.
    ///
    /// # Errors
    /// A lock cannot be tried.
    pub fn running_besides(&self, connected: &[u16]) -> Result<Vec<u16>, BooksError> {
        let mut running = Vec::new();
        for (instance, state) in &self.instances {
            if connected.contains(instance) {
                continue;
            }
            match state.disk.lock() {
                Ok(free) => drop(free),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => running.push(*instance),
                Err(source) => {
                    let path = self.volume.journal(*instance);
                    return Err(BooksError::Io { action: "lock", path, source });
                }
            }
        }
        Ok(running)
    }

    /// Makes everything that was written so far void, except payments that a processor may have.
    /// No instance may send a payment between this call and hearing of it. The inner error is one
    /// after which nothing was purged.
    ///
    /// # Errors
    /// The purge is written down, and what follows from it could not be done. A new start does it.
    pub fn purge(&mut self) -> Result<Result<(), ClaimsError>, BooksError> {
        for instance in self.volume.instances().map_err(failed("read", &self.volume.journals()))? {
            self.add_instance(instance)?;
        }
        self.read_all()?;
        // All of a journal that is away is void as well, and stays so if it is put back.
        let is_away = |instance: &u16| !self.instances.contains_key(instance);
        let cuts: BTreeMap<u16, Position> = self
            .instances
            .iter()
            .map(|(instance, state)| (*instance, state.reader.position()))
            .chain(self.decisions.known().filter(is_away).map(|instance| (instance, AWAY)))
            .collect();
        let mut survivors = HashMap::new();
        for (instance, state) in &self.instances {
            survivors.extend(in_flight(&state.disk, *instance, cuts[instance])?);
            sync_before(&state.disk, cuts[instance])
                .map_err(failed("sync", &self.volume.journal(*instance)))?;
        }
        if let Err(error) = self.decisions.purge_all(&cuts, survivors) {
            return Ok(Err(error));
        }
        self.index = Index::default();
        self.kept_in_memory.clear();
        self.unapplied.clear();
        for (instance, state) in &mut self.instances {
            state.apply_from = cuts[instance];
            state.sealed.clear();
        }
        let path = database_path(&self.volume, self.decisions.purge());
        self.database = Arc::new(Database::open(&path, self.cache_bytes)?);
        remove_other_databases(&self.volume, &path)?;
        Ok(Ok(()))
    }

    /// Finds the payments that the last purge left open.
    fn find_survivors(&mut self) -> Result<(), BooksError> {
        let mut survivors = HashMap::new();
        if self.decisions.purge() > 0 {
            let instances =
                self.volume.instances().map_err(failed("read", &self.volume.journals()))?;
            for instance in instances {
                let disk = folder(&self.volume.journal(instance))?;
                survivors.extend(in_flight(&disk, instance, self.decisions.cut(instance))?);
            }
        }
        self.decisions.set_survivors(survivors);
        Ok(())
    }

    /// Whether journals lost their ends, and the database has more.
    fn database_is_ahead(&self) -> bool {
        self.instances.values().any(|state| state.apply_from > state.reader.position())
    }

    /// Checks that no journal was put in the place of the one that was there. One without records is left
    /// alone until its instance connects.
    fn check_journals(&self) -> Result<(), BooksError> {
        // After a reboot journals may have lost their ends, and nothing but cuts is known of their places.
        if !self.decisions.same_boot() {
            return Ok(());
        }
        for (instance, state) in &self.instances {
            if has_records(&state.disk)? {
                self.check_journal(*instance)?;
            }
        }
        Ok(())
    }

    /// Checks that an instance's journal, under its name, has everything that was read and decided of it.
    fn check_journal(&self, instance: u16) -> Result<(), BooksError> {
        let Some(state) = self.instances.get(&instance) else { return Ok(()) };
        check_mark(self.decisions.journal(instance), &self.volume, instance, &state.disk)?;
        let known = state.reader.position().max(self.decisions.decided(instance));
        let end = journal_end(&state.disk)?;
        if known <= end {
            return Ok(());
        }
        let [known, end] = [known, end]
            .map(|place| format!("record {} of segment {}", place.index, place.segment));
        let what = format!("it ends before {end}, and that one had all before {known}");
        Err(BooksError::OtherJournal { instance, path: self.volume.journal(instance), what })
    }

    /// Hands segments that are read and decided upon to the indexer, and takes those that it has
    /// written.
    ///
    /// # Errors
    /// A segment's head cannot be read.
    fn close_segments(&mut self) -> Result<(), BooksError> {
        self.close_segments_behind(0)
    }

    /// As [`Self::close_segments`], but for so many segments that were read last.
    fn close_segments_behind(&mut self, spared_count: u32) -> Result<(), BooksError> {
        self.take_finished();
        let mut jobs = Vec::new();
        for (instance, state) in &mut self.instances {
            let reached = state.reader.position().segment;
            while let Some(number) = state.sealed.front().copied()
                && number + spared_count < reached
                && self.decisions.is_decided(*instance, number)
            {
                state.sealed.pop_front();
                if let Some(segment) = self.index.close(*instance, number) {
                    jobs.push((*instance, number, segment, state.disk.clone(), reached));
                }
            }
        }
        for (instance, number, segment, journal, read_through) in jobs {
            let cut = self.decisions.cut(instance);
            let key_of = |number| self.segment_key(instance, &journal, number, cut);
            if let Some(key) = key_of(number)? {
                // One that is not in its file, or whose head cannot be read now, is not relied on.
                let before = segments_before(number, cut.segment)
                    .take_while(|number| !self.kept_in_memory.contains(&(instance, *number)))
                    .map_while(|number| key_of(number).ok().flatten())
                    .collect();
                self.indexer.submit(IndexJob { key, segment, journal, read_through, before });
            }
        }
        Ok(())
    }

    /// Takes what the indexer has written.
    fn take_finished(&mut self) {
        while let Some(finished) = self.indexer.try_finish() {
            self.take_indexed(finished);
        }
    }

    fn take_indexed(&mut self, indexed: Indexed<FolderDisk>) {
        let Indexed { instance, number, written } = indexed;
        let why = match written {
            Ok(segment) => {
                if self.index.finish(segment) {
                    return;
                }
                format!("the index of a segment before segment {number} is not in its file")
            }
            Err(error) => error.to_string(),
        };
        self.kept_in_memory.insert((instance, number));
        tracing::error!(
            "{why}. The index of segment {number} of {} stays in memory until a new start",
            instance_name(instance)
        );
    }
}

/// Opens the database, or begins it anew where the store before left a suspicion. Opening a damaged
/// one may end the process, so it is suspect meanwhile.
fn open_database(volume: &Volume, path: &Path, cache_bytes: u64) -> Result<Database, BooksError> {
    let suspicion = Suspicion::of(volume);
    let reason = suspicion.reason().map_err(failed("look for", &volume.store()))?;
    suspicion.raise("the store before this one ended while it opened it");
    let database = match reason {
        Some(why) => Database::begin_anew(path, cache_bytes, &why)?,
        None => Database::open(path, cache_bytes)?,
    };
    suspicion.clear().map_err(failed("remove a mark from", &volume.store()))?;
    Ok(database)
}

/// Payments of a journal that were on their way to a processor, or may have been there, at a place.
fn in_flight(
    disk: &FolderDisk,
    instance: u16,
    at: Position,
) -> Result<HashMap<CorrelationId, PaymentRecord>, BooksError> {
    let Some(segment) = recovery_start(disk)? else { return Ok(HashMap::new()) };
    let mut open = OpenPayments::new();
    let mut reader = JournalReader::new(disk.clone(), instance, Position { segment, index: 0 });
    while reader.position() < at {
        let count = reader.read(READ_RECORDS_MAX, |position, record| {
            if let Record::Payment(record) = record
                && position < at
            {
                open.apply(position, record);
            }
        })?;
        if count == 0 {
            break;
        }
    }
    let in_flight = open.into_ordered().into_iter().filter_map(|payment| {
        let call = payment.in_doubt?;
        let record = PaymentRecord {
            id: payment.id,
            amount: payment.amount,
            written_at: payment.accepted_at,
            event: Event::Dispatched { processor: call.processor, requested_at: call.requested_at },
        };
        Some((payment.id, record))
    });
    Ok(in_flight.collect())
}

/// Makes the segment of a place and the one before it survive a power cut, so that the place never
/// names a later record than it does now.
fn sync_before(disk: &FolderDisk, place: Position) -> io::Result<()> {
    sync_segments(disk, place.segment.saturating_sub(1), place.segment)
}

/// Checks that the segment that was noted of an instance's journal is the one that it has now.
fn check_mark(
    mark: Option<JournalMark>,
    volume: &Volume,
    instance: u16,
    disk: &FolderDisk,
) -> Result<(), BooksError> {
    let Some(mark) = mark else { return Ok(()) };
    let is_another = match read_segment_header(disk, mark.segment)? {
        Some(header) => header.checksum() != mark.header_checksum,
        // Purges remove the oldest ones.
        None => list_segments(disk)?.last().is_none_or(|last| *last <= mark.segment),
    };
    if !is_another {
        return Ok(());
    }
    let what = format!("segment {} is not the one that it had", mark.segment);
    Err(BooksError::OtherJournal { instance, path: volume.journal(instance), what })
}

/// The place behind a journal's last whole record, by the size of its newest file.
fn journal_end(disk: &FolderDisk) -> Result<Position, BooksError> {
    let Some(segment) = list_segments(disk)?.last().copied() else { return Ok(Position::START) };
    if read_seal(disk, segment)?.is_some() {
        return Ok(Position { segment, index: 0 }.next_segment());
    }
    let name = segment_file_name(segment);
    let size = disk.open_read_only(&name).and_then(|file| file.size());
    let size = size.map_err(failed("look at", &disk.path().join(&name)))?;
    let count = size.saturating_sub(HEADER_BYTES as u64) / RECORD_BYTES as u64;
    Ok(Position { segment, index: u32::try_from(count).unwrap_or(u32::MAX) })
}

/// Whether a journal has anything but the head of its first segment.
fn has_records(disk: &FolderDisk) -> Result<bool, BooksError> {
    Ok(journal_end(disk)? > Position::START)
}

/// Records of a journal from this place on, by the sizes of its files.
fn records_behind(disk: &FolderDisk, place: Position) -> io::Result<u64> {
    let (mut number, mut read, mut count) = (place.segment, u64::from(place.index), 0);
    loop {
        let file = match disk.open_read_only(&segment_file_name(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(count),
            file => file?,
        };
        let records = file.size()?.saturating_sub(HEADER_BYTES as u64) / RECORD_BYTES as u64;
        count += records.saturating_sub(read);
        (number, read) = (number + 1, 0);
    }
}

fn database_path(volume: &Volume, purge: u64) -> PathBuf {
    volume.store().join(format!("{DATABASE_PREFIX}{purge}"))
}

/// Removes the databases from before the last purge, and what was set aside of them.
fn remove_other_databases(volume: &Volume, path: &Path) -> Result<(), BooksError> {
    let own = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries = volume.store().read_dir().map_err(failed("read", &volume.store()))?;
    for entry in entries {
        let entry = entry.map_err(failed("read", &volume.store()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_own = name
            .strip_prefix(&own)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
        if name.starts_with(DATABASE_PREFIX) && !is_own {
            remove_if_there(&entry.path()).map_err(failed("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// The key of the index's fingerprints, made at random once.
fn hash_key(disk: &FolderDisk) -> Result<[u8; 16], BooksError> {
    let path = disk.path().join(HASH_KEY_FILE);
    if let Ok(bytes) = std::fs::read(&path)
        && let Ok(key) = bytes.try_into()
    {
        return Ok(key);
    }
    remove_if_there(&path).map_err(failed("remove", &path))?;
    let mut key = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut key))
        .map_err(failed("read", Path::new("/dev/urandom")))?;
    std::fs::write(&path, key).map_err(failed("write", &path))?;
    Ok(key)
}

/// The folder of the index, made anew where it cannot be read.
fn index_folder(path: &Path) -> Result<FolderDisk, BooksError> {
    if let Ok(disk) = FolderDisk::create(path)
        && disk.names().is_ok()
    {
        return Ok(disk);
    }
    tracing::warn!("{} cannot be read; the index is made again", path.display());
    remove_if_there(path).map_err(failed("remove", path))?;
    folder(path)
}

fn folder(path: &Path) -> Result<FolderDisk, BooksError> {
    FolderDisk::create(path).map_err(failed("create", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BooksError {
    let path = path.to_owned();
    move |source| BooksError::Io { action, path, source }
}
