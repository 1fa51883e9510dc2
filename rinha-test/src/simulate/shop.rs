//! The store: the real claim log, decisions, index with its files, and journal readers on simulated disks,
//! put together as `store/src/books.rs` does. What is left out is the database for summaries.

use std::collections::VecDeque;

use api::engine::EngineConfig;
use ledger::disk::crashing::CrashingDisk;
use ledger::journal::{
    JournalError, JournalReader, Position, Record, list_segments, read_seal, read_segment_header,
};
use ledger::protocol::PurgeNotice;
use store::claims::ClaimsError;
use store::decisions::{Decided, DecisionError, Decisions};
use store::index::{Index, IndexError, IndexJob, SealedSegment, SegmentKey, segments_before};

use super::plan::{INSTANCES, Plan};
use super::truth::{Violation, damaged};

/// The key of the index's fingerprints.
const HASH_KEY: [u8; 16] = [7; 16];

/// A store's process.
pub struct Shop {
    disk: CrashingDisk,
    journals: Vec<CrashingDisk>,
    /// Segments that are read to their end and not in a file of the index yet, by instance, in order.
    sealed: Vec<VecDeque<u32>>,
    decisions: Decisions<CrashingDisk>,
    index: Index<CrashingDisk>,
    readers: Vec<JournalReader<CrashingDisk>>,
    /// By instance, the process that greeted last: claims of the one before are refused, as at the
    /// store's desk.
    greeted: [Option<u32>; INSTANCES],
}

/// Why a store does not run.
pub enum ShopError {
    /// The disk refuses. It can be started again.
    Refused,
    /// A promise is broken.
    Violated(Violation),
}

impl From<ClaimsError> for ShopError {
    fn from(error: ClaimsError) -> Self {
        match error {
            ClaimsError::Io { .. } => Self::Refused,
            error => Self::Violated(Violation::Damaged(error.to_string())),
        }
    }
}

impl Shop {
    /// Starts a store on its own disk and those of the journals.
    pub fn start(
        disk: &CrashingDisk,
        journals: &[CrashingDisk],
        boot_id: [u8; 16],
    ) -> Result<Self, ShopError> {
        let (mut decisions, claims) = Decisions::open(disk.clone(), boot_id)?;
        let mut index = Index::default();
        let mut readers = Vec::new();
        for (journal, number) in journals.iter().zip(1..) {
            let cut = decisions.cut(number);
            let segments = list_segments(journal).map_err(ShopError::of_journal)?;
            let segment = segments.first().copied().unwrap_or(cut.segment);
            let begin = cut.max(Position { segment, index: 0 });
            let next = segments.last().map_or(begin.segment, |last| last + 1);
            let mut first_unindexed = begin.max(Position { segment: next, index: 0 });
            for segment in segments.into_iter().filter(|segment| *segment >= begin.segment) {
                let sealed = open_index(disk, journal, number, segment)?;
                if !sealed.is_some_and(|sealed| index.add_sealed(sealed)) {
                    let unindexed = Position { segment, index: 0 }.max(begin);
                    first_unindexed = first_unindexed.min(unindexed);
                }
            }
            // The database is made anew after a reboot, and everything is read for it.
            let mut read_from = begin;
            if decisions.same_boot() {
                read_from = first_unindexed;
            } else {
                decisions.set_decided(number, first_unindexed);
            }
            let reader = JournalReader::new(journal.clone(), number, read_from)
                .under_boot(boot_id)
                .passing_lost_seals();
            readers.push(reader);
        }
        let mut shop = Self {
            disk: disk.clone(),
            journals: journals.to_vec(),
            sealed: vec![VecDeque::new(); INSTANCES],
            decisions,
            index,
            readers,
            greeted: [None; INSTANCES],
        };
        for instance in 0..INSTANCES {
            shop.read(instance).map_err(ShopError::Violated)?;
        }
        for claim in claims {
            shop.decisions
                .decide_again(&mut shop.index, claim)
                .map_err(|error| ShopError::Violated(Violation::Damaged(error.to_string())))?;
        }
        shop.decisions.keep()?;
        shop.close_segments().map_err(ShopError::Violated)?;
        Ok(shop)
    }

    /// Writes the index of segments that are read and decided upon to files.
    fn close_segments(&mut self) -> Result<(), Violation> {
        for instance in 0..INSTANCES {
            let (number, journal) = (number(instance), &self.journals[instance]);
            while let Some(segment) = self.sealed[instance].front().copied()
                && self.decisions.is_decided(number, segment)
            {
                self.sealed[instance].pop_front();
                let Some(open) = self.index.close(number, segment) else { continue };
                let key = segment_key(journal, number, segment).map_err(|error| damaged(&error))?;
                let Some(key) = key else { continue };
                let read_through = self.readers[instance].position().segment;
                let mut before = Vec::new();
                for segment in segments_before(segment, Position::START.segment) {
                    let key = segment_key(journal, number, segment);
                    let Some(key) = key.map_err(|error| damaged(&error))? else { break };
                    before.push(key);
                }
                let journal = journal.clone();
                let job = IndexJob { key, segment: open, journal, read_through, before };
                // Where the disk refuses, it stays in memory until a new start.
                if let Ok(sealed) = job.write(&self.disk) {
                    self.index.finish(sealed);
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, instance: usize) -> Result<(), Violation> {
        let (decisions, index) = (&mut self.decisions, &mut self.index);
        let sealed = &mut self.sealed[instance];
        let number = number(instance);
        self.readers[instance]
            .read(usize::MAX, |position, record| match record {
                Record::Payment(record) => decisions.record(index, number, position, record),
                Record::Sealed(_) => sealed.push_back(position.segment),
                Record::Synced(_) => {}
            })
            .map(drop)
            .map_err(|error| damaged(&error))
    }

    /// An instance is connected.
    pub fn greet(&mut self, instance: usize, process: u32) -> PurgeNotice {
        self.greeted[instance] = Some(process);
        self.decisions.greet(number(instance));
        self.decisions.purge_notice(number(instance))
    }

    /// An instance claims what it has accepted. `None` where that cannot be decided now.
    pub fn claim(
        &mut self,
        instance: usize,
        process: u32,
        through: Position,
    ) -> Result<Option<Decided>, Violation> {
        if self.greeted[instance] != Some(process) {
            return Ok(None);
        }
        self.read(instance)?;
        let decided = self.decisions.claim(&mut self.index, number(instance), through);
        self.close_segments()?;
        match decided {
            Ok(decided) => Ok(Some(decided)),
            Err(DecisionError::Claims(ClaimsError::Io { .. })) => Ok(None),
            Err(error) => Err(Violation::Damaged(error.to_string())),
        }
    }
}

impl ShopError {
    fn of_journal(error: JournalError) -> Self {
        match error {
            JournalError::Io { .. } => Self::Refused,
            error => Self::Violated(damaged(&error)),
        }
    }
}

/// Opens the index of a segment, if its file is there and sound.
fn open_index(
    disk: &CrashingDisk,
    journal: &CrashingDisk,
    instance: u16,
    segment: u32,
) -> Result<Option<SealedSegment<CrashingDisk>>, ShopError> {
    let key = segment_key(journal, instance, segment).map_err(ShopError::of_journal)?;
    let Some(key) = key else { return Ok(None) };
    match SealedSegment::open(disk, journal.clone(), key) {
        // It is made again.
        Err(IndexError::Damaged { .. }) => Ok(None),
        Err(IndexError::Io { .. }) => Err(ShopError::Refused),
        opened => {
            opened.map_err(|error| ShopError::Violated(Violation::Damaged(error.to_string())))
        }
    }
}

/// What the index of a segment must belong to. `None` where the segment is not sealed.
fn segment_key(
    journal: &CrashingDisk,
    instance: u16,
    number: u32,
) -> Result<Option<SegmentKey>, JournalError> {
    let Some(header) = read_segment_header(journal, number)? else { return Ok(None) };
    Ok(read_seal(journal, number)?.map(|seal| SegmentKey {
        instance,
        number,
        header_checksum: header.checksum(),
        first_index: 0,
        seal_index: seal.records_count,
        hash_key: HASH_KEY,
    }))
}

/// The number of an instance.
pub fn number(instance: usize) -> u16 {
    u16::try_from(instance + 1).unwrap_or(u16::MAX)
}

/// The engine's settings in a plan.
pub fn engine_config(plan: &Plan) -> EngineConfig {
    EngineConfig {
        backlog_max: plan.backlog_max,
        recent_max: plan.recent_max,
        claim_delay_ms: plan.claim_delay_ms,
        router: api::router::RouterConfig {
            fees_bp: [500, 1500],
            patience_ms: plan.patience_ms,
            in_flight_max: plan.in_flight_max,
            slow_ms: 1300,
        },
    }
}
