//! The index of a sealed segment: a file of fingerprints in order, with filters in front of them, and of what was
//! settled in each millisecond ([`mod@file`]). In memory stay the filters, about 9 bits a payment, and of each block of
//! these sums what lies before it ([`mod@sums`](super::sums)).
//!
//! A fingerprint is a keyed hash of the id, so that nobody can choose ids whose fingerprints are
//! alike; what it finds is checked against the journal, so the answer is exact. What it does not find
//! may be sent, so that is as sure: the whole file is checked when it is opened, and whatever is read
//! from it later against checksums that were taken then.

use std::io;
use std::ops::Range;

use ledger::disk::{Disk, DiskFile, create_anew};
use ledger::journal::{JournalReader, Position, Record};
use ledger::{CorrelationId, Totals};
use rustix::io::Errno;

use super::LookError;
use super::entry::Entry;
use super::file::{
    self, BLOCK_COUNT, Column, Content, FINGERPRINT_BYTES, Fingerprints, Reliance, fingerprint,
};
use super::moments::Moment;
use super::open::OpenSegment;
use super::sums::SUMS_BLOCK_BYTES_MAX;
use crate::database::add;

/// Fingerprints that are read at a time.
const WINDOW_COUNT: usize = 512;

/// A block is not what it was.
const CHANGED: &str = "it has changed since it was opened";

/// More money than a total can hold.
const SUMS_DO_NOT_FIT: &str = "its sums do not fit";

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
    content: Content,
    journal: D,
}

impl<D: Disk> SealedSegment<D> {
    /// What the segment's records say was settled, by [`ledger::Processor::index`].
    #[must_use]
    pub fn settled(&self) -> [Totals; 2] {
        self.content.sums.settled()
    }

    /// Which segment it is the index of.
    pub(super) fn key(&self) -> &SegmentKey {
        &self.key
    }

    /// The moments of the first and the last that was settled, if anything was.
    pub(super) fn span(&self) -> Option<(Moment, Moment)> {
        self.content.sums.span()
    }

    /// The segments before it that must be there with it.
    pub(super) fn reliance(&self) -> Reliance {
        self.content.reliance
    }

    /// Writes the index of a segment to its file, in one step. Its filters leave out what the files of these
    /// segments have, which lie right before it, the nearest first; those from the first one on whose file cannot be
    /// read do not count.
    ///
    /// # Errors
    /// The operating system refuses, or one of those files has changed.
    pub fn write(
        disk: &D,
        key: SegmentKey,
        segment: &OpenSegment,
        before: &[SegmentKey],
    ) -> Result<(), IndexError> {
        let mut fingerprints = Vec::new();
        for before in before {
            let name = index_file_name(before.instance, before.number);
            // Nothing is lost where it cannot be read.
            let Ok(Some(file)) = open_if_there(disk, &name) else { break };
            let Ok(Some(next)) = Fingerprints::new(file, *before) else { break };
            fingerprints.push(next);
        }
        let name = index_file_name(key.instance, key.number);
        let new_name = format!("{name}.new");
        let file = create_anew(disk, &new_name).map_err(failed(disk, "create", &new_name))?;
        file::write(&file, &key, segment, fingerprints)
            .map_err(failed(disk, "write", &new_name))?;
        disk.rename(&new_name, &name).map_err(failed(disk, "replace", &name))
    }

    /// Opens the index of a segment. `None` where it is missing, belongs to another segment or
    /// another version, or is damaged: then it is to be made again.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn open(disk: &D, journal: D, key: SegmentKey) -> Result<Option<Self>, IndexError> {
        let file_name = index_file_name(key.instance, key.number);
        let Some(file) = open_if_there(disk, &file_name)? else { return Ok(None) };
        let content = file::read(&file, &key).map_err(failed(disk, "read", &file_name))?;
        let file_name = disk.describe(&file_name);
        Ok(content.map(|content| Self { key, file, file_name, content, journal }))
    }

    /// What the segment knows of an id. The segments before it must have been asked, in their order.
    ///
    /// # Errors
    /// The file or the journal cannot be read.
    pub fn find(&self, sought: &mut Sought) -> Result<Option<Entry>, LookError> {
        let (id, fingerprint) = (sought.id, sought.fingerprint(&self.key.hash_key));
        let is_left_out = sought.last_place.is_some_and(|(instance, number)| {
            let reaches_back = self.key.number.saturating_sub(self.content.reliance.segments_count);
            instance == self.key.instance && number >= reaches_back
        });
        if !is_left_out && !self.content.filters.contains(fingerprint) {
            return Ok(None);
        }
        let mut place = self.first_at_least(fingerprint)?;
        while place < self.content.entries.items_count && self.fingerprint_at(place)? == fingerprint
        {
            sought.last_place = Some((self.key.instance, self.key.number));
            let entry = self.entry_at(place)?;
            if self.is_about(entry, id)? {
                return Ok(Some(entry));
            }
            place += 1;
        }
        Ok(None)
    }

    /// Whether the filters have an id.
    #[cfg(test)]
    pub(super) fn may_have(&self, id: CorrelationId) -> bool {
        self.content.filters.contains(fingerprint(&self.key.hash_key, id))
    }

    /// Adds to totals, by [`ledger::Processor::index`], what the segment's records say was settled between two
    /// ticks of [`pyramid`](crate::pyramid).
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn add_to(&self, totals: &mut [Totals; 2], ticks: &Range<u64>) -> Result<(), IndexError> {
        let sums = &self.content.sums;
        let (whole, blocks) = sums.between(ticks);
        add(totals, whole).map_err(|_| self.damaged(SUMS_DO_NOT_FIT))?;
        let mut bytes = [0; SUMS_BLOCK_BYTES_MAX];
        for block in blocks.into_iter().flatten() {
            let bytes = &mut bytes[..block.count];
            self.read(block.place, bytes)?;
            if crc32c::crc32c(bytes) != block.checksum {
                return Err(self.damaged(CHANGED));
            }
            sums.layout
                .add_between(totals, bytes, ticks)
                .map_err(|_| self.damaged(SUMS_DO_NOT_FIT))?;
        }
        Ok(())
    }

    /// The place of the first fingerprint that is not below this one: around the place where it
    /// would be if all were evenly spread, then by halves.
    fn first_at_least(&self, fingerprint: u64) -> Result<usize, IndexError> {
        let guess = (u128::from(fingerprint) * self.content.entries.items_count as u128) >> 64;
        let guess = usize::try_from(guess).expect("the guess is below the count of entries");
        let (mut low, mut high) = (0, self.content.entries.items_count);
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
        let bytes = self.items(&self.content.fingerprints, place, count)?;
        let (fingerprints, _) = bytes.as_chunks::<FINGERPRINT_BYTES>();
        Ok(fingerprints.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect())
    }

    fn fingerprint_at(&self, place: usize) -> Result<u64, IndexError> {
        self.window(place, 1).map(|window| window[0])
    }

    fn entry_at(&self, place: usize) -> Result<Entry, IndexError> {
        let bytes = self.items(&self.content.entries, place, 1)?;
        let number = bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        number.and_then(Entry::from_u32).ok_or_else(|| self.damaged("an entry is none"))
    }

    /// The bytes of items of a column. The blocks that they lie in are read as a whole, and must be
    /// what they were: a file that changes under the store must not make it forget an id.
    fn items(&self, column: &Column, place: usize, count: usize) -> Result<Vec<u8>, IndexError> {
        let start = place - place % BLOCK_COUNT;
        let end = (place + count).next_multiple_of(BLOCK_COUNT).min(column.items_count);
        let mut bytes = vec![0; (end - start) * column.item_bytes];
        self.read(column.place + (start * column.item_bytes) as u64, &mut bytes)?;
        let blocks = bytes.chunks(BLOCK_COUNT * column.item_bytes);
        let checksums = &column.checksums[start / BLOCK_COUNT..];
        if !blocks.zip(checksums).all(|(block, checksum)| crc32c::crc32c(block) == *checksum) {
            return Err(self.damaged(CHANGED));
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

/// The file with this name.
fn open_if_there<D: Disk>(disk: &D, name: &str) -> Result<Option<D::File>, IndexError> {
    match disk.open_read_only(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some).map_err(failed(disk, "open", name)),
    }
}

/// An id that is looked for in one segment after the other, in their order.
#[derive(Debug)]
pub struct Sought {
    id: CorrelationId,
    /// The last key, and the fingerprint under it. All segments have the same.
    last: Option<([u8; 16], u64)>,
    /// The last segment whose file has the fingerprint, if only of another id, with its instance.
    last_place: Option<(u16, u32)>,
}

impl Sought {
    /// An id to be looked for.
    #[must_use]
    pub fn new(id: CorrelationId) -> Self {
        Self { id, last: None, last_place: None }
    }

    fn fingerprint(&mut self, hash_key: &[u8; 16]) -> u64 {
        match self.last {
            Some((key, fingerprint)) if key == *hash_key => fingerprint,
            _ => self.last.insert((*hash_key, fingerprint(hash_key, self.id))).1,
        }
    }
}

#[cfg(test)]
mod tests {
    use ledger::disk::memory::MemoryDisk;
    use ledger::journal::{Event, Journal, JournalConfig, PaymentRecord, SEGMENT_BYTES_DEFAULT};
    use ledger::{Cents, Processor, TimestampMs};

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
        SealedSegment::write(&disk, KEY, &segment, &[]).unwrap();
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

    #[test]
    fn what_was_settled_between_two_ticks_is_read_from_the_file() {
        for (count, is_wide) in [1, 2, 48, 49, 1_000, 20_000]
            .into_iter()
            .flat_map(|count| [(count, false), (count, true)])
        {
            let (disk, journal, mut segment) = written(count);
            if is_wide {
                segment.add_settled(u64::from(count) / 6, Processor::Default, Cents::new(1 << 40));
                SealedSegment::write(&disk, KEY, &segment, &[]).unwrap();
            }
            let sealed = SealedSegment::open(&disk, journal, KEY).unwrap().unwrap();
            assert_eq!(sealed.content.sums.layout.sum_bytes(), if is_wide { 20 } else { 10 });
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

    /// What [`sums_that_nobody_writes_are_made_again`] and the fuzzing change is refused for what it says.
    #[test]
    fn a_file_with_mended_checksums_is_read() {
        let (disk, journal, _) = written(40);
        let name = index_file_name(1, 1);
        let whole = disk.bytes(&name).unwrap();
        let mut bytes = whole.clone();
        file::mend(&mut bytes);
        assert_eq!(bytes, whole);
        // The last byte of a filter's table: nobody can tell.
        *bytes.last_mut().unwrap() ^= 1;
        disk.put(&name, bytes.clone());
        assert!(SealedSegment::open(&disk, journal.clone(), KEY).unwrap().is_none());
        file::mend(&mut bytes);
        disk.put(&name, bytes);
        assert!(SealedSegment::open(&disk, journal, KEY).unwrap().is_some());
    }

    #[test]
    fn sums_that_nobody_writes_are_made_again() {
        type Change = fn(&mut [u8]);
        let narrow: [(&str, Change); 4] = [
            ("not in order", |sums| sums[30..50].rotate_left(10)),
            ("one twice", |sums| sums.copy_within(30..40, 40)),
            ("no payment", |sums| sums[34..36].fill(0)),
            ("more than was settled", |sums| sums[36] ^= 1),
        ];
        let wide: [(&str, Change); 4] = [
            ("not in order", |sums| sums[60..100].rotate_left(20)),
            ("no payment", |sums| sums[68..72].fill(0)),
            ("less than nothing", |sums| sums[79] = 0xff),
            ("beyond all time", |sums| {
                *sums.last_chunk_mut::<20>().unwrap().get_mut(7).unwrap() = 0x7f;
            }),
        ];
        let changes =
            narrow.map(|change| (change, 10)).into_iter().chain(wide.map(|change| (change, 20)));
        for ((name, change), sum_bytes) in changes {
            let (disk, journal, mut segment) = written(40);
            if sum_bytes == 20 {
                segment.add_settled(1, Processor::Default, Cents::new(1 << 40));
                SealedSegment::write(&disk, KEY, &segment, &[]).unwrap();
            }
            let file_name = index_file_name(1, 1);
            let mut bytes = disk.bytes(&file_name).unwrap();
            let sealed = SealedSegment::open(&disk, journal.clone(), KEY).unwrap().unwrap();
            assert_eq!(sealed.content.sums.layout.sum_bytes(), sum_bytes);
            change(&mut bytes[sealed.content.sums.bytes()]);
            file::mend(&mut bytes);
            disk.put(&file_name, bytes);
            assert!(SealedSegment::open(&disk, journal, KEY).unwrap().is_none(), "{name}");
        }
    }

    #[test]
    fn sums_that_count_from_beyond_all_time_are_made_again() {
        let (disk, journal, _) = written(40);
        let file_name = index_file_name(1, 1);
        let mut bytes = disk.bytes(&file_name).unwrap();
        // So far away that they would seem to be near, and nothing.
        bytes[67] = 0x80;
        bytes[68..100].fill(0);
        file::mend(&mut bytes);
        disk.put(&file_name, bytes);
        assert!(SealedSegment::open(&disk, journal, KEY).unwrap().is_none());
    }

    /// Found by fuzzing: the filter looked beyond its table, and the store ended.
    #[test]
    fn filters_that_do_not_fit_their_tables_are_made_again() {
        let (disk, journal, _) = written(40);
        let name = index_file_name(1, 1);
        let mut bytes = disk.bytes(&name).unwrap();
        let sealed = SealedSegment::open(&disk, journal.clone(), KEY).unwrap().unwrap();
        bytes[sealed.content.sums.bytes().end + 16] ^= 0x80;
        file::mend(&mut bytes);
        disk.put(&name, bytes);
        assert!(SealedSegment::open(&disk, journal, KEY).unwrap().is_none());
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
        let first = usize::try_from(sealed.content.fingerprints.place).unwrap();
        let columns = first..sealed.content.sums.bytes().end;
        let (mut noticed, mut noticed_sums) = (0, 0);
        for byte in columns.step_by(97) {
            file.write_at(byte as u64, &[whole[byte] ^ 0x40]).unwrap();
            for tick in (0..u64::from(count) / 3).step_by(8) {
                let mut totals = [Totals::default(); 2];
                let mut add = |ticks| sealed.add_to(&mut totals, &ticks);
                match add(0..tick).and_then(|()| add(tick..u64::from(count))) {
                    Ok(()) => assert_eq!(totals, sealed.settled()),
                    Err(error) => {
                        assert!(error.to_string().contains("has changed"), "{error}");
                        noticed_sums += 1;
                    }
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
        SealedSegment::write(&disk, KEY, &segment, &[]).unwrap();
        let sealed = SealedSegment::open(&disk, journal, KEY).unwrap().unwrap();
        assert_eq!(sealed.find(&mut Sought::new(id(9))).unwrap(), None);
        assert_eq!(sealed.find(&mut Sought::new(id(1))).unwrap().unwrap().index(), 1);
    }
}
