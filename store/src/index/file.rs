//! The file with the index of a sealed segment. It is written and checked piece by piece, because a segment has
//! hundreds of thousands of ids, and several at a time would take much memory.
//!
//! Layout, little endian:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic |
//! | 2, 2, 4 | version, instance, number of the segment |
//! | 4, 4, 4 | CRC-32C of the segment's head; index of the first record that is covered; of the seal |
//! | 16 | key of the fingerprints |
//! | 4, 4, 4 | number of entries; of sums; bytes of the filters |
//! | 4, 8 | bytes of a sum, 10 or 20; the tick from which their moments count, which is 0 for 20 |
//! | 8, 8, twice | number and cents of the payments that the segment says were settled, by processor |
//! | 4, 4 | on how many segments before it its filters rely; CRC-32C of what those are |
//! | 4, 4, 4, 4 | CRC-32C of each of the columns that follow |
//! | 4 | CRC-32C of all before it |
//! | 8 each | fingerprints in ascending order |
//! | 4 each | the entry of each fingerprint |
//! | 10 or 20 each | what was settled in a millisecond through a processor, in this order: twice the tick, and one more for the other processor (4 or 8); how many payments (2 or 4); cents (4 or 8) |
//! | … | the filters of the fingerprints: 20 bytes for each part of their range, then their tables |
//!
//! A payment that is accepted in one segment and settled in a later one is in the index of both. The filters leave
//! out what the index of one of the last segments before has ([`Reliance`]), so they have each payment once: where a
//! fingerprint is found, the segments after it that rely on that one are searched whatever their filters say. A
//! file whose filters rely on what is not there is made again, so none of this can make an id unknown.

use std::hash::Hasher;
use std::io;

use ledger::disk::{DiskFile, write_whole};
use ledger::{Cents, CorrelationId, Totals};
use siphasher::sip::SipHasher13;

use super::filter::{Filters, part_of, parts_count};
use super::moments::Layout;
use super::open::OpenSegment;
use super::sealed::SegmentKey;
use super::sums::{Sums, SumsReader};

const MAGIC: [u8; 8] = *b"PAYIDX1\n";
const VERSION: u16 = 5;
const HEAD_BYTES: usize = 128;
pub(super) const FINGERPRINT_BYTES: usize = 8;
const ENTRY_BYTES: usize = 4;

/// How often the ids of a segment are gone through to write them, at most.
const READS_MAX: usize = 8;

/// Bytes that are written, or read, at a time.
const PIECE_BYTES: usize = 1 << 16;

/// Fingerprints, or entries, that have a checksum in memory together.
pub(super) const BLOCK_COUNT: usize = 512;

/// The keyed hash of an id.
pub(super) fn fingerprint(hash_key: &[u8; 16], id: CorrelationId) -> u64 {
    let mut hasher = SipHasher13::new_with_key(hash_key);
    hasher.write(&id.to_bytes());
    hasher.finish()
}

/// The segments right before one whose fingerprints its filters leave out.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Reliance {
    /// How many.
    pub segments_count: u32,
    /// The checksum of their keys.
    checksum: u32,
}

impl Reliance {
    /// The one on segments with these keys, the nearest first.
    pub fn on<'a>(keys: impl IntoIterator<Item = &'a SegmentKey>) -> Self {
        keys.into_iter().fold(Self::default(), |Self { segments_count, checksum }, key| Self {
            segments_count: segments_count + 1,
            checksum: crc32c::crc32c_append(checksum, &encode_key(key)),
        })
    }
}

/// A segment's key as the head has it.
fn encode_key(key: &SegmentKey) -> Vec<u8> {
    let mut bytes = key.instance.to_le_bytes().to_vec();
    for number in [key.number, key.header_checksum, key.first_index, key.seal_index] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&key.hash_key);
    bytes
}

/// What the head says, but for the segment.
struct Head {
    entries_count: usize,
    sums_count: usize,
    filters_bytes: usize,
    layout: Layout,
    settled: [Totals; 2],
    reliance: Reliance,
    checksums: [u32; 4],
}

impl Head {
    fn encode(&self, key: &SegmentKey) -> io::Result<Vec<u8>> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&encode_key(key));
        let sum_bytes = self.layout.sum_bytes();
        for size in [self.entries_count, self.sums_count, self.filters_bytes, sum_bytes] {
            let size = u32::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
            bytes.extend_from_slice(&size.to_le_bytes());
        }
        bytes.extend_from_slice(&self.layout.base.to_le_bytes());
        for totals in self.settled {
            bytes.extend_from_slice(&totals.count.to_le_bytes());
            bytes.extend_from_slice(&totals.amount.get().to_le_bytes());
        }
        bytes.extend_from_slice(&self.reliance.segments_count.to_le_bytes());
        bytes.extend_from_slice(&self.reliance.checksum.to_le_bytes());
        bytes.extend(self.checksums.iter().flat_map(|checksum| checksum.to_le_bytes()));
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        Ok(bytes)
    }

    /// What these bytes say, if they are the head of this segment's index.
    fn decode(bytes: &[u8; HEAD_BYTES], key: &SegmentKey) -> Option<Self> {
        let (numbers, _) = bytes[44..60].as_chunks();
        let [entries_count, sums_count, filters_bytes, sum_bytes] =
            numbers.as_array()?.map(|bytes| u32::from_le_bytes(bytes) as usize);
        let base = u64::from_le_bytes(*bytes[60..].first_chunk()?);
        let layout = Layout::new(sum_bytes, base)?;
        let (numbers, _) = bytes[68..100].as_chunks();
        let totals = |index: usize| Totals {
            count: u64::from_le_bytes(numbers[index]),
            amount: Cents::new(i64::from_le_bytes(numbers[index + 1])),
        };
        let settled = [totals(0), totals(2)];
        let (numbers, _) = bytes[100..124].as_chunks();
        let [segments_count, checksum, checksums @ ..] =
            numbers.as_array::<6>()?.map(u32::from_le_bytes);
        let reliance = Reliance { segments_count, checksum };
        let head =
            Self { entries_count, sums_count, filters_bytes, layout, settled, reliance, checksums };
        // So magic, version, segment and checksum are compared, all at once.
        head.encode(key).is_ok_and(|expected| expected == bytes).then_some(head)
    }

    /// What a file says, if it is of this segment's index.
    fn read(file: &impl DiskFile, key: &SegmentKey) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEAD_BYTES];
        let is_whole = file.read_at(0, &mut bytes)? == HEAD_BYTES;
        Ok(Self::decode(&bytes, key).filter(|_| is_whole))
    }

    /// Where each column begins, in the order of `checksums`, and where the last one ends.
    fn places(&self) -> [u64; 5] {
        let sizes = [
            self.entries_count as u64 * FINGERPRINT_BYTES as u64,
            self.entries_count as u64 * ENTRY_BYTES as u64,
            self.sums_count as u64 * self.layout.sum_bytes() as u64,
            self.filters_bytes as u64,
        ];
        let mut places = [HEAD_BYTES as u64; 5];
        for (column, size) in sizes.iter().enumerate() {
            places[column + 1] = places[column] + size;
        }
        places
    }
}

/// A column that is being written, from its place in the file on.
struct Writer<'a, F> {
    file: &'a F,
    place: u64,
    checksum: u32,
    unwritten: Vec<u8>,
}

impl<'a, F: DiskFile> Writer<'a, F> {
    fn new(file: &'a F, place: u64) -> Self {
        Self { file, place, checksum: 0, unwritten: Vec::with_capacity(PIECE_BYTES) }
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        for bytes in bytes.chunks(PIECE_BYTES) {
            if self.unwritten.len() + bytes.len() > PIECE_BYTES {
                self.write()?;
            }
            self.unwritten.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        write_whole(self.file, self.place, &self.unwritten)?;
        self.checksum = crc32c::crc32c_append(self.checksum, &self.unwritten);
        self.place += self.unwritten.len() as u64;
        self.unwritten.clear();
        Ok(())
    }

    /// Writes what is left, and gives the column's checksum.
    fn finish(mut self) -> io::Result<u32> {
        self.write()?;
        Ok(self.checksum)
    }
}

/// The fingerprints of a file, gone through once.
pub(super) struct Fingerprints<F> {
    key: SegmentKey,
    file: F,
    place: u64,
    /// Those that are not read yet.
    left_count: usize,
    read_checksum: u32,
    checksum: u32,
    /// Those that are read, and how many of them are below what was asked last.
    read: Vec<u64>,
    passed_count: usize,
}

impl<F: DiskFile> Fingerprints<F> {
    /// Those of the index of this segment. `None` where the file is not of it.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn new(file: F, key: SegmentKey) -> io::Result<Option<Self>> {
        Ok(Head::read(&file, &key)?.map(|head| Self {
            key,
            file,
            place: HEAD_BYTES as u64,
            left_count: head.entries_count,
            read_checksum: 0,
            checksum: head.checksums[0],
            read: Vec::new(),
            passed_count: 0,
        }))
    }

    /// Whether this one is among them. What is asked for must not be below what was asked for before.
    fn has(&mut self, fingerprint: u64) -> io::Result<bool> {
        loop {
            let rest = &self.read[self.passed_count..];
            self.passed_count += rest.iter().take_while(|other| **other < fingerprint).count();
            match self.read.get(self.passed_count) {
                Some(next) => return Ok(*next == fingerprint),
                None if self.left_count == 0 => return Ok(false),
                None => self.read_on()?,
            }
        }
    }

    fn read_on(&mut self) -> io::Result<()> {
        let count = self.left_count.min(PIECE_BYTES / FINGERPRINT_BYTES);
        let mut bytes = vec![0; count * FINGERPRINT_BYTES];
        if self.file.read_at(self.place, &mut bytes)? < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_checksum = crc32c::crc32c_append(self.read_checksum, &bytes);
        self.read.clear();
        self.read.extend(bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)));
        self.place += bytes.len() as u64;
        (self.left_count, self.passed_count) = (self.left_count - count, 0);
        Ok(())
    }

    /// Reads the rest, and sees that all were what was written.
    fn finish(mut self) -> io::Result<()> {
        while self.left_count > 0 {
            self.read_on()?;
        }
        if self.read_checksum == self.checksum {
            return Ok(());
        }
        let what = format!("the index of segment {} before it has changed", self.key.number);
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

/// Writes the index of a segment to an empty file. Its filters leave out what the segments right before it have,
/// the nearest of them first.
///
/// # Errors
/// The operating system refuses, a file of a segment before has changed, or no filter is found.
pub(super) fn write<F: DiskFile>(
    file: &F,
    key: &SegmentKey,
    segment: &OpenSegment,
    mut before: Vec<Fingerprints<F>>,
) -> io::Result<()> {
    let mut head = Head {
        entries_count: segment.entries_count(),
        sums_count: segment.moments().count(),
        filters_bytes: 0,
        layout: Layout::of(segment.moments()),
        settled: segment.settled(),
        reliance: Reliance::on(before.iter().map(|before| &before.key)),
        checksums: [0; 4],
    };
    let [fingerprints, entries, sums, tables, _] = head.places();
    let [mut fingerprints, mut entries, mut sums, mut tables] =
        [fingerprints, entries, sums, tables].map(|place| Writer::new(file, place));
    let mut filters = Filters::default();
    let parts_count = parts_count(head.entries_count);
    let mut read = Vec::new();
    // The ids are gone through several times, each time for some parts: all in order at once would take nearly as
    // much memory as the maps.
    let parts_at_a_time = parts_count.div_ceil(READS_MAX).max(1);
    for first in (0..parts_count).step_by(parts_at_a_time) {
        let parts = first..(first + parts_at_a_time).min(parts_count);
        read.clear();
        read.extend(segment.entries().filter_map(|(id, entry)| {
            let fingerprint = fingerprint(&key.hash_key, id);
            let is_in = parts.contains(&part_of(fingerprint, parts_count));
            is_in.then(|| (fingerprint, entry.decided().to_u32()))
        }));
        read.sort_unstable();
        let mut rest = &read[..];
        for part in parts {
            let is_in = |(fingerprint, _): &(u64, u32)| part_of(*fingerprint, parts_count) == part;
            let (of_part, after) = rest.split_at(rest.partition_point(is_in));
            rest = after;
            let mut filtered = Vec::with_capacity(of_part.len());
            for (fingerprint, entry) in of_part {
                fingerprints.push(&fingerprint.to_le_bytes())?;
                entries.push(&entry.to_le_bytes())?;
                let mut is_before = false;
                for before in &mut before {
                    is_before = is_before || before.has(*fingerprint)?;
                }
                if !is_before {
                    filtered.push(*fingerprint);
                }
            }
            filtered.dedup();
            filters.push(&filtered).map_err(io::Error::other)?;
        }
    }
    before.into_iter().try_for_each(Fingerprints::finish)?;
    for sum in segment.moments() {
        head.layout.encode(&sum, |bytes| sums.push(bytes))?;
    }
    for bytes in filters.encode() {
        tables.push(bytes)?;
        head.filters_bytes += bytes.len();
    }
    head.checksums = [fingerprints.finish()?, entries.finish()?, sums.finish()?, tables.finish()?];
    write_whole(file, 0, &head.encode(key)?)
}

/// Goes through a column of so many bytes, in pieces of whole blocks of so many. `false` where it has not this
/// checksum, or a piece is not as it should be.
fn check(
    file: &impl DiskFile,
    mut place: u64,
    mut left_bytes: usize,
    block_bytes: usize,
    checksum: u32,
    mut is_right: impl FnMut(&[u8]) -> bool,
) -> io::Result<bool> {
    let mut piece = vec![0; left_bytes.min(PIECE_BYTES / block_bytes * block_bytes)];
    let mut read_checksum = 0;
    while left_bytes > 0 {
        piece.truncate(left_bytes);
        if file.read_at(place, &mut piece)? < piece.len() || !is_right(&piece) {
            return Ok(false);
        }
        read_checksum = crc32c::crc32c_append(read_checksum, &piece);
        place += piece.len() as u64;
        left_bytes -= piece.len();
    }
    Ok(read_checksum == checksum)
}

/// A column whose blocks are compared, whenever they are read, with what they were when the file was opened.
pub(super) struct Column {
    pub place: u64,
    pub item_bytes: usize,
    pub items_count: usize,
    pub checksums: Box<[u32]>,
}

impl Column {
    /// A column of so many items. `None` where it has not this checksum.
    fn read(
        file: &impl DiskFile,
        place: u64,
        [items_count, item_bytes]: [usize; 2],
        checksum: u32,
    ) -> io::Result<Option<Self>> {
        let block_bytes = BLOCK_COUNT * item_bytes;
        let mut checksums = Vec::with_capacity(items_count.div_ceil(BLOCK_COUNT));
        let is_right =
            check(file, place, items_count * item_bytes, block_bytes, checksum, |piece| {
                checksums.extend(piece.chunks(block_bytes).map(crc32c::crc32c));
                true
            })?;
        let checksums = checksums.into();
        Ok(is_right.then_some(Self { place, item_bytes, items_count, checksums }))
    }
}

/// What a file says that is the index of a segment.
pub(super) struct Content {
    pub reliance: Reliance,
    pub fingerprints: Column,
    pub entries: Column,
    pub sums: Sums,
    pub filters: Filters,
}

/// Reads the file and checks all of it. `None` where it is not the whole index of this segment.
///
/// # Errors
/// The operating system refuses.
pub(super) fn read<F: DiskFile>(file: &F, key: &SegmentKey) -> io::Result<Option<Content>> {
    let Some(head) = Head::read(file, key)? else { return Ok(None) };
    let [fingerprints, entries, sums, filters, end] = head.places();
    if file.size()? != end {
        return Ok(None);
    }
    let count = head.entries_count;
    let [fingerprints_checksum, entries_checksum, sums_checksum, filters_checksum] = head.checksums;
    let fingerprints =
        Column::read(file, fingerprints, [count, FINGERPRINT_BYTES], fingerprints_checksum)?;
    let entries = Column::read(file, entries, [count, ENTRY_BYTES], entries_checksum)?;
    let mut reader = SumsReader::new(sums, head.layout);
    let sum_bytes = head.layout.sum_bytes();
    let are_sums_right =
        check(file, sums, head.sums_count * sum_bytes, sum_bytes, sums_checksum, |piece| {
            reader.read(piece).is_some()
        })?;
    let sums = reader.finish();
    let mut bytes = vec![0; head.filters_bytes];
    let is_read = file.read_at(filters, &mut bytes)? == bytes.len();
    let is_right = is_read && crc32c::crc32c(&bytes) == filters_checksum;
    let filters = Filters::decode(bytes, parts_count(count)).filter(|_| is_right);
    let (Some(fingerprints), Some(entries), Some(filters)) = (fingerprints, entries, filters)
    else {
        return Ok(None);
    };
    let is_right = are_sums_right && sums.settled() == head.settled;
    let reliance = head.reliance;
    Ok(is_right.then_some(Content { reliance, fingerprints, entries, sums, filters }))
}

/// Gives changed bytes of a file the checksums that they should have.
#[cfg(test)]
pub(super) fn mend(bytes: &mut [u8]) {
    let size = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (entries_count, sums_count) = (size(44), size(48));
    let mut rest = &bytes[HEAD_BYTES..];
    let columns = [
        entries_count * FINGERPRINT_BYTES,
        entries_count * ENTRY_BYTES,
        sums_count * size(56),
        size(52),
    ];
    let checksums = columns.map(|size| {
        let (column, after) = rest.split_at(size);
        rest = after;
        crc32c::crc32c(column).to_le_bytes()
    });
    bytes[108..124].copy_from_slice(checksums.as_flattened());
    let checksum = crc32c::crc32c(&bytes[..124]);
    bytes[124..128].copy_from_slice(&checksum.to_le_bytes());
}
