//! The index of a sealed segment: a file of fingerprints in order, with a binary fuse filter in
//! front of them, and of what was settled in each millisecond. In memory stay the filter, about 9 bits an id, and
//! of each block of 64 milliseconds the first, with a checksum: 12 bytes.
//!
//! Layout, little endian:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic |
//! | 2, 2, 4 | version, instance, number of the segment |
//! | 4, 4, 4 | CRC-32C of the segment's head; index of the first record that is covered; of the seal |
//! | 16 | key of the fingerprints |
//! | 4, 4, 4 | number of entries; bytes of the filter's table; number of sums |
//! | 8, 8, twice | number and cents of the payments that the segment says were settled, by processor |
//! | 20 | what describes the filter: its seed and its three lengths |
//! | … | the filter's table |
//! | 8 each | fingerprints in ascending order |
//! | 4 each | the entry of each fingerprint |
//! | 20 each | what was settled in a millisecond through a processor, in this order: twice the tick, and one more for the other processor (8); how many payments (4); cents (8) |
//! | 4 | CRC-32C of all before it |
//!
//! A fingerprint is a keyed hash of the id, so that nobody can choose ids whose fingerprints are
//! alike; what it finds is checked against the journal, so the answer is exact. What it does not find
//! may be sent, so that is as sure: the whole file is checked when it is opened, and whatever is read
//! from it later against checksums that were taken then.

use std::hash::Hasher;
use std::io;
use std::ops::Range;

use ledger::disk::{Disk, DiskFile, create_anew, write_whole};
use ledger::journal::{JournalReader, Position, Record};
use ledger::{Cents, CorrelationId, TimestampMs, Totals};
use rustix::io::Errno;
use siphasher::sip::SipHasher13;
use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter, FilterRef};

use super::LookError;
use super::entry::Entry;
use super::moments::{Moment, Ordered, SUM_BYTES, SumBytes, add_between};
use super::open::OpenSegment;
use crate::pyramid;

const MAGIC: [u8; 8] = *b"PAYIDX1\n";
const VERSION: u16 = 4;
const DESCRIPTOR_BYTES: usize = BinaryFuse8::DESCRIPTOR_LEN;
const SETTLED_OFFSET: usize = 56;
const SETTLED_BYTES: usize = 2 * 16;
const DESCRIPTOR_OFFSET: usize = SETTLED_OFFSET + SETTLED_BYTES;
const HEAD_BYTES: usize = DESCRIPTOR_OFFSET + DESCRIPTOR_BYTES;
const FINGERPRINT_BYTES: usize = 8;
const ENTRY_BYTES: usize = 4;
const CHECKSUM_BYTES: usize = 4;

/// Fingerprints that are read at a time.
const WINDOW_COUNT: usize = 512;

/// Fingerprints, or entries, that have a checksum in memory together.
const BLOCK_COUNT: usize = 512;

/// Sums that have a checksum in memory together, and the moment of the first of them: what a summary reads at
/// least.
const SUMS_BLOCK_COUNT: usize = 64;

/// Which segment an index belongs to, down to the bytes of its head, and how ids are hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentKey {
    /// The instance.
    pub instance: u16,
    /// The number of the segment.
    pub number: u32,
    /// The checksum of the segment's head.
    pub header_checksum: u32,
    /// The index of the first record that is covered; those before it were purged.
    pub first_index: u32,
    /// The index of the segment's seal: a segment that lost its end is another one.
    pub seal_index: u32,
    /// The key of the fingerprints.
    pub hash_key: [u8; 16],
}

/// What goes wrong with a file of the index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The operating system refuses.
    #[error("cannot {action} {file}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file, with its folder.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// Its bytes are not what was written there.
    #[error("{file} is damaged: {what}. Delete it: it is made again from the journal")]
    Damaged {
        /// The file, with its folder.
        file: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl IndexError {
    /// Whether the process has too little of something, which says nothing about the file.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(Errno::from_io_error(source), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
    }
}

/// A filter as its file has it.
struct StoredFilter {
    descriptor: [u8; DESCRIPTOR_BYTES],
    table: Box<[u8]>,
}

impl StoredFilter {
    fn contains(&self, fingerprint: u64) -> bool {
        BinaryFuse8Ref::from_dma(&self.descriptor, &self.table).contains(&fingerprint)
    }
}

/// A part of the file: items of one size, and a checksum of each block of them, taken when the file
/// was opened.
struct Column {
    offset: u64,
    item_bytes: usize,
    items_count: usize,
    block_count: usize,
    checksums: Box<[u32]>,
}

impl Column {
    /// The column of this part of the whole file.
    fn new(file: &[u8], part: Range<usize>, item_bytes: usize, block_count: usize) -> Self {
        let bytes = &file[part.clone()];
        let checksums = bytes.chunks(block_count * item_bytes).map(crc32c::crc32c).collect();
        let items_count = bytes.len() / item_bytes;
        Self { offset: part.start as u64, item_bytes, items_count, block_count, checksums }
    }
}

/// The name of the file with the index of a segment.
#[must_use]
pub fn index_file_name(instance: u16, number: u32) -> String {
    format!("api-{instance}-{number:010}.ids")
}

/// The instance and the number of the segment whose index has this file name.
#[must_use]
pub fn index_file_segment(name: &str) -> Option<(u16, u32)> {
    let (instance, number) = name.strip_prefix("api-")?.strip_suffix(".ids")?.split_once('-')?;
    let (instance, number) = (instance.parse().ok()?, number.parse().ok()?);
    (index_file_name(instance, number) == name).then_some((instance, number))
}

/// The index of a sealed segment.
pub struct SealedSegment<D: Disk> {
    key: SegmentKey,
    file: D::File,
    file_name: String,
    filter: StoredFilter,
    entries_count: usize,
    settled: [Totals; 2],
    fingerprints: Column,
    entries: Column,
    sums: Column,
    /// The moments of the first and the last sum, if there are any.
    span: Option<(Moment, Moment)>,
    /// The moment of the first sum of each block.
    firsts: Box<[Moment]>,
    journal: D,
}

impl<D: Disk> SealedSegment<D> {
    /// The number of the segment.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.key.number
    }

    /// What the segment's records say was settled, by [`ledger::Processor::index`].
    #[must_use]
    pub fn settled(&self) -> [Totals; 2] {
        self.settled
    }

    /// Writes the index of a segment to its file, in one step.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn write(disk: &D, key: SegmentKey, segment: &OpenSegment) -> Result<(), IndexError> {
        let name = index_file_name(key.instance, key.number);
        let new_name = format!("{name}.new");
        let bytes = encode(&key, segment)
            .map_err(|what| IndexError::Damaged { file: disk.describe(&name), what })?;
        let file = create_anew(disk, &new_name).map_err(failed(disk, "create", &new_name))?;
        write_whole(&file, 0, &bytes).map_err(failed(disk, "write", &new_name))?;
        disk.rename(&new_name, &name).map_err(failed(disk, "replace", &name))
    }

    /// Opens the index of a segment. `None` where it is missing, belongs to another segment or
    /// another version, or is damaged: then it is to be made again.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn open(disk: &D, journal: D, key: SegmentKey) -> Result<Option<Self>, IndexError> {
        let file_name = index_file_name(key.instance, key.number);
        let file = match disk.open_read_only(&file_name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed(disk, "open", &file_name))?,
        };
        let size = file.size().map_err(failed(disk, "read", &file_name))?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        let count = file.read_at(0, &mut bytes).map_err(failed(disk, "read", &file_name))?;
        let bytes = &bytes[..count];
        let Some(Decoded { filter, entries_count, sums_count, settled }) = decode(bytes, &key)
        else {
            return Ok(None);
        };
        let fingerprints_offset = HEAD_BYTES + filter.table.len();
        let entries_offset = fingerprints_offset + entries_count * FINGERPRINT_BYTES;
        let sums_offset = entries_offset + entries_count * ENTRY_BYTES;
        let sums_end = sums_offset + sums_count * SUM_BYTES;
        let (sums, _) = bytes[sums_offset..sums_end].as_chunks::<SUM_BYTES>();
        let firsts: Box<[_]> = sums.iter().step_by(SUMS_BLOCK_COUNT).map(Ordered::moment).collect();
        Ok(Some(Self {
            key,
            file,
            file_name: disk.describe(&file_name),
            filter,
            entries_count,
            settled,
            fingerprints: Column::new(
                bytes,
                fingerprints_offset..entries_offset,
                FINGERPRINT_BYTES,
                BLOCK_COUNT,
            ),
            entries: Column::new(bytes, entries_offset..sums_offset, ENTRY_BYTES, BLOCK_COUNT),
            sums: Column::new(bytes, sums_offset..sums_end, SUM_BYTES, SUMS_BLOCK_COUNT),
            span: firsts.first().copied().zip(sums.last().map(Ordered::moment)),
            firsts,
            journal,
        }))
    }

    /// What the segment knows of an id.
    ///
    /// # Errors
    /// The file or the journal cannot be read.
    pub fn find(&self, sought: &mut Sought) -> Result<Option<Entry>, LookError> {
        let (id, fingerprint) = (sought.id, sought.fingerprint(&self.key.hash_key));
        if self.entries_count == 0 || !self.filter.contains(fingerprint) {
            return Ok(None);
        }
        let mut place = self.first_at_least(fingerprint)?;
        while place < self.entries_count && self.fingerprint_at(place)? == fingerprint {
            let entry = self.entry_at(place)?;
            if self.is_about(entry, id)? {
                return Ok(Some(entry));
            }
            place += 1;
        }
        Ok(None)
    }

    /// Adds to totals, by [`ledger::Processor::index`], what the segment's records say was settled between two
    /// ticks of [`pyramid`].
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn add_to(&self, totals: &mut [Totals; 2], ticks: &Range<u64>) -> Result<(), IndexError> {
        let (from, to) = (Moment::first(ticks.start), Moment::first(ticks.end));
        let Some((first, last)) = self.span.filter(|(first, last)| *first < to && *last >= from)
        else {
            return Ok(());
        };
        let begin = block_of(&self.firsts, from.max(first), last);
        let end = begin + self.firsts[begin..].iter().take_while(|first| **first < to).count();
        let place = begin * SUMS_BLOCK_COUNT;
        let count = (end * SUMS_BLOCK_COUNT).min(self.sums.items_count) - place;
        let bytes = self.items(&self.sums, place, count)?;
        let (sums, _) = bytes.as_chunks::<SUM_BYTES>();
        add_between(totals, sums, ticks).map_err(|_| self.damaged("its sums do not fit"))
    }

    /// The place of the first fingerprint that is not below this one: around the place where it
    /// would be if all were evenly spread, then by halves.
    fn first_at_least(&self, fingerprint: u64) -> Result<usize, IndexError> {
        let guess = (u128::from(fingerprint) * self.entries_count as u128) >> 64;
        let guess = usize::try_from(guess).expect("the guess is below the count of entries");
        let (mut low, mut high) = (0, self.entries_count);
        let mut start = guess.saturating_sub(WINDOW_COUNT / 2);
        loop {
            start = start.clamp(low, high.saturating_sub(WINDOW_COUNT).max(low));
            let window = self.window(start, WINDOW_COUNT.min(high - start))?;
            let below = window.partition_point(|other| *other < fingerprint);
            if below == 0 && start > low {
                high = start;
            } else if below == window.len() && start + below < high {
                low = start + below;
            } else {
                return Ok(start + below);
            }
            start = low + (high - low) / 2;
        }
    }

    /// Fingerprints in order, from a place on.
    fn window(&self, place: usize, count: usize) -> Result<Vec<u64>, IndexError> {
        let bytes = self.items(&self.fingerprints, place, count)?;
        let (fingerprints, _) = bytes.as_chunks::<FINGERPRINT_BYTES>();
        Ok(fingerprints.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect())
    }

    fn fingerprint_at(&self, place: usize) -> Result<u64, IndexError> {
        self.window(place, 1).map(|window| window[0])
    }

    fn entry_at(&self, place: usize) -> Result<Entry, IndexError> {
        let bytes = self.items(&self.entries, place, 1)?;
        let number = bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        number.and_then(Entry::from_u32).ok_or_else(|| self.damaged("an entry is none"))
    }

    /// The bytes of items of a column. The blocks that they lie in are read as a whole, and must be
    /// what they were: a file that changes under the store must not make it forget an id.
    fn items(&self, column: &Column, place: usize, count: usize) -> Result<Vec<u8>, IndexError> {
        let block_count = column.block_count;
        let start = place - place % block_count;
        let end = (place + count).next_multiple_of(block_count).min(column.items_count);
        let mut bytes = vec![0; (end - start) * column.item_bytes];
        self.read(column.offset + (start * column.item_bytes) as u64, &mut bytes)?;
        let blocks = bytes.chunks(block_count * column.item_bytes);
        let checksums = &column.checksums[start / block_count..];
        if !blocks.zip(checksums).all(|(block, checksum)| crc32c::crc32c(block) == *checksum) {
            return Err(self.damaged("it has changed since it was opened"));
        }
        bytes.drain(..(place - start) * column.item_bytes);
        bytes.truncate(count * column.item_bytes);
        Ok(bytes)
    }

    /// Whether the record of an entry is about this id.
    fn is_about(&self, entry: Entry, id: CorrelationId) -> Result<bool, LookError> {
        let position = Position { segment: self.key.number, index: entry.index() };
        let mut reader = JournalReader::new(self.journal.clone(), self.key.instance, position);
        let mut about = None;
        let count = reader.read(1, |_, record| about = Some(*record))?;
        match about {
            Some(Record::Payment(payment)) => Ok(payment.id == id),
            _ if count == 0 => Err(self.damaged("a record that it points to is missing").into()),
            _ => Err(self.damaged("it points to a record that is no payment's").into()),
        }
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), IndexError> {
        let count = self.file.read_at(offset, bytes).map_err(|source| IndexError::Io {
            action: "read",
            file: self.file_name.clone(),
            source,
        })?;
        if count == bytes.len() { Ok(()) } else { Err(self.damaged("it ends too early")) }
    }

    fn damaged(&self, what: &'static str) -> IndexError {
        IndexError::Damaged { file: self.file_name.clone(), what }
    }
}

fn failed<D: Disk>(
    disk: &D,
    action: &'static str,
    name: &str,
) -> impl FnOnce(io::Error) -> IndexError {
    let file = disk.describe(name);
    move |source| IndexError::Io { action, file, source }
}

/// An id that is looked for in one segment after the other.
#[derive(Debug)]
pub struct Sought {
    id: CorrelationId,
    /// The last key, and the fingerprint under it. All segments have the same.
    last: Option<([u8; 16], u64)>,
}

impl Sought {
    /// An id to be looked for.
    #[must_use]
    pub fn new(id: CorrelationId) -> Self {
        Self { id, last: None }
    }

    fn fingerprint(&mut self, hash_key: &[u8; 16]) -> u64 {
        match self.last {
            Some((key, fingerprint)) if key == *hash_key => fingerprint,
            _ => self.last.insert((*hash_key, fingerprint(hash_key, self.id))).1,
        }
    }
}

fn fingerprint(hash_key: &[u8; 16], id: CorrelationId) -> u64 {
    let mut hasher = SipHasher13::new_with_key(hash_key);
    hasher.write(&id.to_bytes());
    hasher.finish()
}

/// The block that has a moment, of those that begin with these moments and end with the last one: around the
/// place where it would be if all were evenly spread. The moment is not before the first one.
fn block_of(firsts: &[Moment], moment: Moment, last: Moment) -> usize {
    let [first, moment_number, last] =
        [firsts[0], moment, last].map(|moment| u128::from(moment.get()));
    let guess = (moment_number - first) * firsts.len() as u128 / (last - first + 1);
    let guess =
        usize::try_from(guess).map_or(firsts.len() - 1, |guess| guess.min(firsts.len() - 1));
    let (mut low, mut high, mut step) = (guess, guess + 1, 1);
    while low > 0 && firsts[low] > moment {
        (high, low, step) = (low, low.saturating_sub(step), step * 2);
    }
    while high < firsts.len() && firsts[high] <= moment {
        (low, high, step) = (high, (high + step).min(firsts.len()), step * 2);
    }
    low + firsts[low..high].partition_point(|first| *first <= moment) - 1
}

/// The bytes of the file.
fn encode(key: &SegmentKey, segment: &OpenSegment) -> Result<Vec<u8>, &'static str> {
    let mut entries: Vec<(u64, u32)> = segment
        .entries()
        .map(|(id, entry)| (fingerprint(&key.hash_key, id), entry.decided().to_u32()))
        .collect();
    entries.sort_unstable();
    let mut distinct: Vec<u64> = entries.iter().map(|(fingerprint, _)| *fingerprint).collect();
    distinct.dedup();
    let filter = BinaryFuse8::try_from(&distinct)?;
    let too_many = |_| "it has too many entries";
    let entries_count = u32::try_from(entries.len()).map_err(too_many)?;
    let table = filter.dma_fingerprints();
    let filter_bytes = u32::try_from(table.len()).map_err(too_many)?;
    let mut descriptor = [0; DESCRIPTOR_BYTES];
    filter.dma_copy_descriptor_to(&mut descriptor);

    let sums: Vec<_> = segment.moments().map(|sum| sum.encode()).collect();
    let sums_count = u32::try_from(sums.len()).map_err(too_many)?;
    let mut bytes = encode_head(key, [entries_count, filter_bytes, sums_count]);
    for totals in segment.settled() {
        bytes.extend_from_slice(&totals.count.to_le_bytes());
        bytes.extend_from_slice(&totals.amount.get().to_le_bytes());
    }
    bytes.extend_from_slice(&descriptor);
    bytes.extend_from_slice(table);
    for (fingerprint, _) in &entries {
        bytes.extend_from_slice(&fingerprint.to_le_bytes());
    }
    for (_, entry) in &entries {
        bytes.extend_from_slice(&entry.to_le_bytes());
    }
    bytes.extend_from_slice(sums.as_flattened());
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

/// The head, up to what was settled, with the sizes of what follows it: entries, bytes of the filter's table,
/// and sums.
fn encode_head(key: &SegmentKey, sizes: [u32; 3]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&key.instance.to_le_bytes());
    bytes.extend_from_slice(&key.number.to_le_bytes());
    bytes.extend_from_slice(&key.header_checksum.to_le_bytes());
    bytes.extend_from_slice(&key.first_index.to_le_bytes());
    bytes.extend_from_slice(&key.seal_index.to_le_bytes());
    bytes.extend_from_slice(&key.hash_key);
    bytes.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
    bytes
}

/// What the bytes of an index say of it.
struct Decoded {
    filter: StoredFilter,
    entries_count: usize,
    sums_count: usize,
    settled: [Totals; 2],
}

/// What these bytes say, if they are those of this segment's index.
fn decode(bytes: &[u8], key: &SegmentKey) -> Option<Decoded> {
    let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if content.len() < HEAD_BYTES || crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let number = |offset| {
        let bytes: [u8; 4] = content[offset..offset + 4].try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    let sizes = [number(44)?, number(48)?, number(52)?];
    if content[..SETTLED_OFFSET] != *encode_head(key, sizes) {
        return None;
    }
    let [entries_count, filter_bytes, sums_count] = sizes.map(|size| size as usize);
    let size = HEAD_BYTES
        + filter_bytes
        + entries_count * (FINGERPRINT_BYTES + ENTRY_BYTES)
        + sums_count * SUM_BYTES;
    if content.len() != size {
        return None;
    }
    let descriptor = content[DESCRIPTOR_OFFSET..HEAD_BYTES].try_into().ok()?;
    let table: Box<[u8]> = content[HEAD_BYTES..HEAD_BYTES + filter_bytes].into();
    if !describes(&descriptor, table.len()) {
        return None;
    }
    let (numbers, _) = content[SETTLED_OFFSET..DESCRIPTOR_OFFSET].as_chunks::<8>();
    let totals = |index: usize| Totals {
        count: u64::from_le_bytes(numbers[index]),
        amount: Cents::new(i64::from_le_bytes(numbers[index + 1])),
    };
    let filter = StoredFilter { descriptor, table };
    let settled = [totals(0), totals(2)];
    let (sums, _) = content[size - sums_count * SUM_BYTES..].as_chunks::<SUM_BYTES>();
    if !add_up(sums, settled) {
        return None;
    }
    Some(Decoded { filter, entries_count, sums_count, settled })
}

/// Whether these are sums as they are written, in order, of as much as was settled in all.
fn add_up(sums: &[SumBytes], settled: [Totals; 2]) -> bool {
    let last = Moment::first(pyramid::tick(TimestampMs::MAX) + 1);
    let mut total = [Totals::default(); 2];
    sums.is_sorted_by(|one, other| one.moment() < other.moment())
        && sums
            .iter()
            .all(|sum| sum.moment() < last && sum.count() > 0 && sum.amount() >= Cents::ZERO)
        && add_between(&mut total, sums, &(0..u64::MAX >> 1)).is_ok()
        && total == settled
}

/// Whether every place that a filter so described looks at is in a table of this size: the filter
/// itself does not check. It looks into three segments that follow each other, the first of them
/// below the third length.
fn describes(descriptor: &[u8; DESCRIPTOR_BYTES], table_bytes: usize) -> bool {
    let (words, _) = descriptor.as_chunks::<4>();
    let [_, _, length, mask, count_length] = words else { return false };
    let [length, mask, count_length] =
        [length, mask, count_length].map(|word| u32::from_le_bytes(*word));
    length.is_power_of_two()
        && mask == length - 1
        && count_length > 0
        && count_length.is_multiple_of(length)
        && u64::from(count_length) + 2 * u64::from(length) == table_bytes as u64
}

#[cfg(test)]
mod tests {
    use ledger::Processor;
    use ledger::disk::memory::MemoryDisk;
    use ledger::journal::{Event, Journal, JournalConfig, PaymentRecord, SEGMENT_BYTES_DEFAULT};
    use proptest::prelude::*;

    use super::*;
    use crate::index::Kind;

    fn id(number: u32) -> CorrelationId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        CorrelationId::from_bytes(bytes)
    }

    const KEY: SegmentKey = SegmentKey {
        instance: 1,
        number: 1,
        header_checksum: 7,
        first_index: 0,
        seal_index: 9,
        hash_key: [3; 16],
    };

    /// A journal with this many accepted payments, and the index of its one segment.
    fn written(count: u32) -> (MemoryDisk, MemoryDisk, OpenSegment) {
        let (journal_disk, disk) = (MemoryDisk::new(), MemoryDisk::new());
        let config =
            JournalConfig { instance: 1, segment_bytes: SEGMENT_BYTES_DEFAULT, boot_id: [0; 16] };
        let (mut journal, _) =
            Journal::open(journal_disk.clone(), config, TimestampMs::MIN, |_, _| ()).unwrap();
        let mut segment = OpenSegment::default();
        let records: Vec<_> = (0..count)
            .map(|number| PaymentRecord {
                id: id(number),
                amount: Cents::new(1990),
                written_at: TimestampMs::MIN,
                event: Event::Accepted,
            })
            .collect();
        assert!(journal.append(&records, 1, TimestampMs::MIN).error.is_none());
        for number in 0..count {
            segment.record(id(number), number, Kind::Accepted);
            let processor = Processor::ALL[usize::from(number % 3 == 0)];
            segment.add_settled(u64::from(number / 3), processor, Cents::new(i64::from(number)));
        }
        SealedSegment::write(&disk, KEY, &segment).unwrap();
        (disk, journal_disk, segment)
    }

    #[test]
    fn every_id_is_found_and_no_other() {
        for count in [0, 1, 2, 3, 10, 511, 512, 513, 1024, 20_000] {
            let (disk, journal, segment) = written(count);
            let sealed = SealedSegment::open(&disk, journal, KEY).unwrap().unwrap();
            assert_eq!(sealed.settled(), segment.settled());
            for number in 0..count {
                let entry = sealed.find(&mut Sought::new(id(number))).unwrap().unwrap();
                assert_eq!((entry.index(), entry.kind()), (number, Kind::Accepted));
                assert!(entry.is_decided());
            }
            for number in count..count + 20_000 {
                assert_eq!(sealed.find(&mut Sought::new(id(number))).unwrap(), None);
            }
        }
    }

    #[test]
    fn the_place_of_a_fingerprint_is_found_however_they_are_spread() {
        let (disk, journal, _) = written(5_000);
        let sealed = SealedSegment::open(&disk, journal, KEY).unwrap().unwrap();
        let all = sealed.window(0, 5_000).unwrap();
        let probes = all.iter().flat_map(|f| [f - 1, *f, f + 1]).chain([0, u64::MAX]);
        for fingerprint in probes {
            let expected = all.partition_point(|other| *other < fingerprint);
            assert_eq!(sealed.first_at_least(fingerprint).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn the_block_of_a_moment_is_found_however_they_are_spread(
            gaps in proptest::collection::vec(0..50_u32, 1..200),
            beyond in 0..1_000_u64,
        ) {
            let mut firsts = vec![Moment::first(1_000)];
            for gap in gaps {
                let next = firsts[firsts.len() - 1].get() + (1 << (gap % 40));
                firsts.push(Moment::first(next / 2));
            }
            let last = Moment::first(firsts[firsts.len() - 1].get() / 2 + beyond);
            let around = firsts.iter().flat_map(|first| {
                [first.get() / 2 - 1, first.get() / 2, first.get() / 2 + 1].map(Moment::first)
            });
            for moment in around.chain([last]).filter(|moment| *moment >= firsts[0]) {
                let expected = firsts.partition_point(|first| *first <= moment) - 1;
                prop_assert_eq!(block_of(&firsts, moment, last), expected);
            }
        }
    }

    #[test]
    fn what_was_settled_between_two_ticks_is_read_from_the_file() {
        for count in [1, 2, 64, 65, 1_000, 20_000] {
            let (disk, journal, segment) = written(count);
            let sealed = SealedSegment::open(&disk, journal, KEY).unwrap().unwrap();
            let ticks = u64::from(count) / 3 + 2;
            for (from, to) in
                [(0, ticks), (0, 1), (ticks - 1, ticks), (ticks / 3, ticks / 2), (7, 7)]
            {
                let [mut read, mut expected] = [[Totals::default(); 2]; 2];
                sealed.add_to(&mut read, &(from..to)).unwrap();
                segment.add_to(&mut expected, &(from..to)).unwrap();
                assert_eq!(read, expected, "{from}..{to} of {count}");
            }
        }
    }

    #[test]
    fn an_index_of_another_segment_or_key_is_made_again() {
        let (disk, journal, _) = written(10);
        for other in [
            SegmentKey { header_checksum: 8, ..KEY },
            SegmentKey { first_index: 1, ..KEY },
            SegmentKey { seal_index: 8, ..KEY },
            SegmentKey { hash_key: [4; 16], ..KEY },
        ] {
            assert!(SealedSegment::open(&disk, journal.clone(), other).unwrap().is_none());
        }
        let missing = SegmentKey { number: 2, ..KEY };
        assert!(SealedSegment::open(&disk, journal, missing).unwrap().is_none());
    }

    #[test]
    fn a_changed_or_missing_byte_is_noticed_on_opening() {
        let (disk, journal, _) = written(40);
        let name = index_file_name(1, 1);
        let whole = disk.bytes(&name).unwrap();
        for byte in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[byte] ^= 1;
            disk.put(&name, bytes);
            assert!(SealedSegment::open(&disk, journal.clone(), KEY).unwrap().is_none());
            disk.put(&name, whole[..byte].to_vec());
            assert!(SealedSegment::open(&disk, journal.clone(), KEY).unwrap().is_none());
        }
    }

    #[test]
    fn sums_that_nobody_writes_are_made_again() {
        type Change = fn(&mut [SumBytes]);
        let changes: [(&str, Change); 6] = [
            ("not in order", |sums| sums.swap(3, 4)),
            ("one twice", |sums| sums[4] = sums[3]),
            ("no payment", |sums| sums[3][8..12].fill(0)),
            ("less than nothing", |sums| sums[3][19] = 0xff),
            ("beyond all time", |sums| sums[sums.len() - 1][7] = 0x7f),
            ("more than was settled", |sums| sums[3][12] ^= 1),
        ];
        for (name, change) in changes {
            let (disk, journal, _) = written(40);
            let file_name = index_file_name(1, 1);
            let mut bytes = disk.bytes(&file_name).unwrap();
            let (content, checksum) = bytes.split_last_chunk_mut().unwrap();
            let sums_count = u32::from_le_bytes(content[52..56].try_into().unwrap()) as usize;
            let begin = content.len() - sums_count * SUM_BYTES;
            change(content[begin..].as_chunks_mut().0);
            *checksum = crc32c::crc32c(content).to_le_bytes();
            disk.put(&file_name, bytes);
            assert!(SealedSegment::open(&disk, journal, KEY).unwrap().is_none(), "{name}");
        }
    }

    /// Found by fuzzing: the filter looked beyond its table, and the store ended.
    #[test]
    fn a_filter_that_does_not_fit_its_table_is_made_again() {
        let (disk, journal, _) = written(40);
        let name = index_file_name(1, 1);
        let whole = disk.bytes(&name).unwrap();
        // The seed says how ids are hashed, and any will do; the three lengths must fit.
        for byte in DESCRIPTOR_OFFSET + 8..HEAD_BYTES {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[byte] ^= 1 << bit;
                let (content, checksum) = bytes.split_last_chunk_mut().unwrap();
                *checksum = crc32c::crc32c(content).to_le_bytes();
                disk.put(&name, bytes);
                let opened = SealedSegment::open(&disk, journal.clone(), KEY).unwrap();
                assert!(opened.is_none(), "byte {byte}, bit {bit}");
            }
        }
    }

    /// A store that forgets an id lets it be sent again, and it was once seen to do so where noise
    /// was written over the file that it had open.
    #[test]
    fn a_file_that_changes_under_its_reader_never_makes_an_id_unknown() {
        let count = 1_200;
        let (disk, journal, _) = written(count);
        let sealed = SealedSegment::open(&disk, journal, KEY).unwrap().unwrap();
        let name = index_file_name(1, 1);
        let whole = disk.bytes(&name).unwrap();
        let file = disk.open(&name).unwrap();
        let columns = usize::try_from(sealed.fingerprints.offset).unwrap()..whole.len() - 4;
        let (mut noticed, mut noticed_sums) = (0, 0);
        for byte in columns.step_by(97) {
            file.write_at(byte as u64, &[whole[byte] ^ 0x40]).unwrap();
            let mut totals = [Totals::default(); 2];
            match sealed.add_to(&mut totals, &(0..u64::from(count))) {
                Ok(()) => assert_eq!(totals, sealed.settled()),
                Err(error) => {
                    assert!(error.to_string().contains("has changed"), "{error}");
                    noticed_sums += 1;
                }
            }
            for number in (0..count).step_by(7) {
                match sealed.find(&mut Sought::new(id(number))) {
                    Ok(entry) => assert_eq!(entry.unwrap().index(), number),
                    Err(error) => {
                        assert!(error.to_string().contains("has changed"), "{error}");
                        noticed += 1;
                    }
                }
            }
            file.write_at(byte as u64, &whole[byte..=byte]).unwrap();
        }
        assert!(noticed > 0 && noticed_sums > 0);
        assert_eq!(sealed.find(&mut Sought::new(id(0))).unwrap().unwrap().index(), 0);
    }

    #[test]
    fn an_id_whose_fingerprint_is_anothers_is_not_found() {
        let (disk, journal, mut segment) = written(3);
        // The index says that record 1 is about this id; the journal says that it is not.
        segment.record(id(9), 1, Kind::Accepted);
        SealedSegment::write(&disk, KEY, &segment).unwrap();
        let sealed = SealedSegment::open(&disk, journal, KEY).unwrap().unwrap();
        assert_eq!(sealed.find(&mut Sought::new(id(9))).unwrap(), None);
        assert_eq!(sealed.find(&mut Sought::new(id(1))).unwrap().unwrap().index(), 1);
    }
}
