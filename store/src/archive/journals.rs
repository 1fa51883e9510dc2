//! The journals as the archive reads them, with readers of its own: what was settled, in batches, and
//! the places that each batch was read from and up to.
//!
//! Invariant: what a batch has is on the disk, so that a power cut takes nothing from the journals that
//! the archive has.

use std::collections::BTreeMap;

use ledger::disk::folder::FolderDisk;
use ledger::disk::{Disk, DiskFile};
use ledger::id::IdMap;
use ledger::journal::{
    Event, HEADER_BYTES, JournalError, JournalReader, PaymentRecord, Position, RECORD_BYTES,
    Record, list_segments, read_seal, segment_file_name, sync_segments,
};
use ledger::volume::{Volume, instance_name};
use ledger::{Cents, CorrelationId, Processor, TimestampMs};

use super::error::ArchiveError;

/// A batch is full with so many payments; the reads that fill it may bring some more.
pub const BATCH_PAYMENTS: usize = 4096;
/// Records that are read from a journal at a time.
const READ_RECORDS_MAX: usize = 1024;
/// Open payments of a journal whose moment of acceptance is remembered, 24 bytes each and what a hash
/// table takes besides. An API holds fewer than its `--backlog-max`, by default an eighth of this. The
/// moments of any more are not remembered, and archived as unknown.
const OPEN_PAYMENTS_MAX: usize = 4_000_000;

/// A settled payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payment {
    /// Which one.
    pub id: CorrelationId,
    /// Its amount.
    pub amount: Cents,
    /// Who has it.
    pub processor: Processor,
    /// The `requestedAt` that its processor recorded.
    pub requested_at: TimestampMs,
    /// When it was taken in, if that is known.
    pub accepted_at: Option<TimestampMs>,
    /// When its settlement was written.
    pub settled_at: TimestampMs,
}

/// How far a batch goes in one journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Whose journal.
    pub instance: u16,
    /// Where it began, or was cut by the last purge.
    pub start: Position,
    /// The end of what was archived before.
    pub before: Position,
    /// The end of what is, once the batch is.
    pub after: Position,
}

/// Settled payments that are archived together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The payments, in the order of each journal.
    pub payments: Vec<Payment>,
    /// The journals that were read on.
    pub moves: Vec<Move>,
}

/// All journals of a volume.
pub struct Journals {
    volume: Volume,
    boot_id: [u8; 16],
    cuts: BTreeMap<u16, Position>,
    by_instance: BTreeMap<u16, Journal>,
}

/// One journal.
struct Journal {
    disk: FolderDisk,
    reader: JournalReader<FolderDisk>,
    /// The end of what is archived.
    archived: Position,
    /// When each open payment was accepted.
    open: IdMap<TimestampMs>,
}

impl Journals {
    /// Stands before what is not archived, by the places that the archive has reached and those where
    /// the last purge has cut the journals.
    ///
    /// # Errors
    /// A journal cannot be read, or the archive has more than there is.
    pub fn open(
        volume: &Volume,
        boot_id: [u8; 16],
        cuts: BTreeMap<u16, Position>,
        places: &BTreeMap<u16, Position>,
    ) -> Result<Self, ArchiveError> {
        let mut journals =
            Self { volume: volume.clone(), boot_id, cuts, by_instance: BTreeMap::new() };
        let instances = journals.instances()?;
        for (instance, place) in places {
            if instances.contains(instance) {
                journals.add(*instance, *place)?;
            } else if journals.start(*instance) != *place {
                return Err(ArchiveError::ahead(*instance, *place));
            }
        }
        Ok(journals)
    }

    fn instances(&self) -> Result<Vec<u16>, ArchiveError> {
        self.volume.instances().map_err(ArchiveError::io("read", self.volume.journals()))
    }

    /// Where a journal begins of which nothing is archived.
    fn start(&self, instance: u16) -> Position {
        self.cuts.get(&instance).copied().unwrap_or(Position::START)
    }

    /// Opens a journal at a place.
    fn add(&mut self, instance: u16, place: Position) -> Result<(), ArchiveError> {
        let path = self.volume.journal(instance);
        let disk = FolderDisk::create(&path).map_err(ArchiveError::io("open", path))?;
        check_place(&disk, instance, place)?;
        let reader = |position| {
            JournalReader::new(disk.clone(), instance, position)
                .under_boot(self.boot_id)
                .passing_lost_seals()
        };
        let mut open = IdMap::default();
        let mut earlier = reader(Position { segment: oldest_open(&disk, place)?, index: 0 });
        while earlier.position() < place {
            let count = earlier.read(READ_RECORDS_MAX, |position, record| {
                if let Record::Payment(record) = record
                    && position < place
                {
                    take_in(&mut open, record);
                }
            })?;
            if count == 0 {
                break;
            }
        }
        let reader = reader(place);
        self.by_instance.insert(instance, Journal { disk, reader, archived: place, open });
        Ok(())
    }

    /// Reads on, until a batch is full or all journals are at their ends, as of now. Each is read in
    /// its turn.
    ///
    /// # Errors
    /// A journal cannot be read, or is damaged. What was read in others is lost then, so these readers
    /// must not be used any more.
    pub fn read(&mut self) -> Result<Batch, ArchiveError> {
        for instance in self.instances()? {
            if !self.by_instance.contains_key(&instance) {
                self.add(instance, self.start(instance))?;
            }
        }
        let mut batch = Batch::default();
        let mut is_more = true;
        while is_more && batch.payments.len() < BATCH_PAYMENTS {
            is_more = false;
            for journal in self.by_instance.values_mut() {
                is_more |= journal.read(&mut batch.payments)? == READ_RECORDS_MAX;
            }
        }
        if batch.payments.is_empty() {
            return Ok(batch);
        }
        for (instance, journal) in &self.by_instance {
            let (before, after) = (journal.archived, journal.reader.position());
            if before != after {
                sync_segments(&journal.disk, before.segment, after.segment)
                    .map_err(ArchiveError::io("sync", self.volume.journal(*instance)))?;
                let start = self.start(*instance);
                batch.moves.push(Move { instance: *instance, start, before, after });
            }
        }
        Ok(batch)
    }

    /// Takes in that a batch is archived.
    pub fn archived(&mut self, batch: &Batch) {
        for moved in &batch.moves {
            if let Some(journal) = self.by_instance.get_mut(&moved.instance) {
                journal.archived = moved.after;
            }
        }
    }
}

impl Journal {
    /// Reads some records, and adds what they say was settled.
    fn read(&mut self, payments: &mut Vec<Payment>) -> Result<usize, JournalError> {
        let open = &mut self.open;
        self.reader.read(READ_RECORDS_MAX, |_, record| {
            if let Record::Payment(record) = record {
                let accepted_at = take_in(open, record);
                if let Event::Settled { processor, requested_at } = record.event {
                    payments.push(Payment {
                        id: record.id,
                        amount: record.amount,
                        processor,
                        requested_at,
                        accepted_at,
                        settled_at: record.written_at,
                    });
                }
            }
        })
    }
}

/// Takes in a record, and gives when the payment that it closes was accepted.
fn take_in(open: &mut IdMap<TimestampMs>, record: &PaymentRecord) -> Option<TimestampMs> {
    match record.event {
        Event::Accepted => {
            if open.len() < OPEN_PAYMENTS_MAX {
                open.insert(record.id, record.written_at);
            }
            None
        }
        Event::Dispatched { .. } | Event::Failed { .. } => None,
        Event::Settled { .. } | Event::Refused { .. } | Event::Duplicate => open.remove(&record.id),
    }
}

/// The oldest segment that may have a payment which is open at a place: the last seal before it names
/// that segment.
fn oldest_open(disk: &FolderDisk, place: Position) -> Result<u32, JournalError> {
    let segments = list_segments(disk)?;
    let oldest = segments.first().copied().unwrap_or(place.segment);
    for number in segments.into_iter().rev().filter(|number| *number < place.segment) {
        if let Some(seal) = read_seal(disk, number)? {
            return Ok(seal.oldest_open_segment.clamp(oldest, place.segment));
        }
    }
    Ok(oldest.min(place.segment))
}

/// Checks that a volume's journals have everything before these places.
///
/// # Errors
/// They have not, or cannot be read.
pub fn check_places(volume: &Volume, places: &BTreeMap<u16, Position>) -> Result<(), ArchiveError> {
    let instances = volume.instances().map_err(ArchiveError::io("read", volume.journals()))?;
    for (instance, place) in places {
        if instances.contains(instance) {
            let path = volume.journal(*instance);
            let disk = FolderDisk::create(&path).map_err(ArchiveError::io("open", path))?;
            check_place(&disk, *instance, *place)?;
        } else if *place != Position::START {
            return Err(ArchiveError::ahead(*instance, *place));
        }
    }
    Ok(())
}

/// Checks that a journal has everything before a place, and what follows.
fn check_place(disk: &FolderDisk, instance: u16, place: Position) -> Result<(), ArchiveError> {
    let segments = list_segments(disk)?;
    let (first, last) = (segments.first().copied(), segments.last().copied());
    if let Some(first) = first
        && place.segment < first
    {
        let journal = instance_name(instance);
        return Err(ArchiveError::Missing { journal, first: place.segment, last: first - 1 });
    }
    let is_there = match last {
        Some(last) if place.segment <= last => {
            segment_bytes(disk, place.segment)? >= record_end(place.index)
        }
        // The segment that follows the last one is not begun.
        _ => place.index == 0 && place.segment == last.unwrap_or(0) + 1,
    };
    if is_there { Ok(()) } else { Err(ArchiveError::ahead(instance, place)) }
}

/// Bytes of a segment that has so many records.
fn record_end(records_count: u32) -> u64 {
    if records_count == 0 {
        return 0;
    }
    HEADER_BYTES as u64 + u64::from(records_count) * RECORD_BYTES as u64
}

fn segment_bytes(disk: &FolderDisk, number: u32) -> Result<u64, JournalError> {
    let name = segment_file_name(number);
    disk.open_read_only(&name)
        .and_then(|file| file.size())
        .map_err(JournalError::io("read", disk.describe(&name)))
}

/// Bytes of a volume's journals from these places on, or from their beginnings, as of now.
///
/// # Errors
/// A folder cannot be read.
pub fn behind_bytes(
    volume: &Volume,
    places: &BTreeMap<u16, Position>,
) -> Result<u64, ArchiveError> {
    let mut bytes = 0;
    for instance in volume.instances().map_err(ArchiveError::io("read", volume.journals()))? {
        let path = volume.journal(instance);
        let disk = FolderDisk::create(&path).map_err(ArchiveError::io("open", path))?;
        let place = places.get(&instance).copied().unwrap_or(Position::START);
        for number in list_segments(&disk)?.into_iter().filter(|number| *number >= place.segment) {
            let before = if number == place.segment { place.index } else { 0 };
            let head = HEADER_BYTES as u64 + u64::from(before) * RECORD_BYTES as u64;
            bytes += segment_bytes(&disk, number)?.saturating_sub(head);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moment_of_acceptance_is_remembered_until_the_payment_is_closed() {
        let mut open = IdMap::default();
        let record = |id, ms, event| PaymentRecord {
            id: CorrelationId::from_bytes([id; 16]),
            amount: Cents::new(1),
            written_at: TimestampMs::clamped(ms),
            event,
        };
        let settled =
            Event::Settled { processor: Processor::Default, requested_at: TimestampMs::MIN };
        for (id, ms) in [(1, 10), (2, 20), (3, 30)] {
            assert_eq!(take_in(&mut open, &record(id, ms, Event::Accepted)), None);
        }
        let failed = Event::Failed { processor: Processor::Default, status: 500 };
        assert_eq!(take_in(&mut open, &record(1, 11, failed)), None);
        take_in(&mut open, &record(2, 21, Event::Duplicate));
        let accepted = Some(TimestampMs::clamped(10));
        assert_eq!(take_in(&mut open, &record(1, 12, settled)), accepted);
        assert_eq!(take_in(&mut open, &record(2, 22, settled)), None);
        assert_eq!(open.len(), 1);
    }
}
