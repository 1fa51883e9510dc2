//! Writing a journal: recovery, appending, segments.

use std::io;

use super::JournalError;
use super::position::Position;
use super::reader::{JournalReader, Standing, damaged, read_header};
use super::record::{Mark, PaymentRecord, Place, RECORD_BYTES, Record, Seal};
use super::segment::{
    HEADER_BYTES, SegmentHeader, record_offset, segment_file_name, segment_number,
};
use super::tail::Tail;
use crate::disk::{Disk, DiskFile, write_whole};
use crate::time::TimestampMs;

/// The size at which a segment is sealed and the next one begun, unless set otherwise.
///
/// The store keeps an exact map of the ids of a segment until that is sealed and decided upon. Such a segment has
/// 102,000 payments with three records each. While backlogs are full it has records about twice as many, because
/// payments are accepted in one segment and settled in another: just fewer than hash tables with 2^18 places
/// (5.5 MiB) take before they double, which they do at most once.
pub const SEGMENT_BYTES_DEFAULT: u64 = 14 << 20;
/// The least size of a segment that may be set.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// The greatest size of a segment that may be set.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Which journal, and how it is cut.
#[derive(Clone, Copy, Debug)]
pub struct JournalConfig {
    /// The number of the API instance that writes it.
    pub instance: u16,
    /// A segment is sealed once it has this size.
    pub segment_bytes: u64,
    /// The boot of the machine.
    pub boot_id: [u8; 16],
}

/// What recovery found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// Segments that were read.
    pub segments_count: u32,
    /// Records that were read.
    pub records_count: u64,
    /// Bytes of torn tails that were cut off.
    pub torn_bytes: u64,
    /// Whether the machine was started anew since the journal was written.
    pub rebooted: bool,
}

/// What became of an append.
#[derive(Debug)]
pub struct Appended {
    /// The place of the first record.
    pub first: Position,
    /// How many of the records, from the first on, are in the journal.
    pub count: usize,
    /// Why the others are not.
    pub error: Option<JournalError>,
}

/// The one writer of a journal.
pub struct Journal<D: Disk> {
    disk: D,
    _lock: D::Lock,
    config: JournalConfig,
    /// The segment that is written to. None after a seal whose next segment could not be created.
    open: Option<OpenSegment<D::File>>,
    /// The place of the next record.
    end: Position,
    /// Bytes of a failed write may stand behind the end, and must be cut before the next one.
    cut_before_write: bool,
    buffer: Vec<u8>,
    unsynced: Unsynced<D>,
    /// Everything before this place survives a power cut.
    synced: Position,
    /// The journal says that everything before this place does.
    marked: Position,
}

struct OpenSegment<F> {
    file: F,
    checksum: u32,
}

/// What was written and not yet synced.
struct Unsynced<D: Disk> {
    files: Vec<D::File>,
    folder: bool,
}

impl<D: Disk> Journal<D> {
    /// Takes the folder's lock, reads what recovery needs, shows each record about a payment to
    /// `visit` in order, and stands ready to append.
    ///
    /// # Errors
    /// Another process holds the lock, the folder cannot be read, or a segment is damaged or
    /// missing.
    pub fn open(
        disk: D,
        config: JournalConfig,
        now: TimestampMs,
        mut visit: impl FnMut(Position, &PaymentRecord),
    ) -> Result<(Self, Recovery), JournalError> {
        let lock = disk.lock().map_err(JournalError::io("lock", disk.describe("")))?;
        let first = recovery_start(&disk)?;
        let mut journal = Self {
            disk,
            _lock: lock,
            config,
            open: None,
            end: Position::START,
            cut_before_write: false,
            buffer: Vec::new(),
            unsynced: Unsynced { files: Vec::new(), folder: false },
            synced: Position { segment: first.unwrap_or(1), index: 0 },
            marked: Position { segment: first.unwrap_or(1), index: 0 },
        };
        let Some(first) = first else {
            journal.begin_segment(1, now)?;
            let recovery =
                Recovery { segments_count: 0, records_count: 0, torn_bytes: 0, rebooted: false };
            return Ok((journal, recovery));
        };
        let recovery = journal.recover(first, now, &mut visit)?;
        journal.leave_unsynced(first)?;
        Ok((journal, recovery))
    }

    /// The place of the next record.
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    /// Appends the records in order. If the disk refuses a part of them, the ones before it are in
    /// the journal and count; nothing of the others is.
    ///
    /// `oldest_open_segment` is the oldest segment in which a payment was accepted that is not
    /// closed yet; a seal keeps it for recovery.
    pub fn append(
        &mut self,
        records: &[PaymentRecord],
        oldest_open_segment: u32,
        now: TimestampMs,
    ) -> Appended {
        let mark = (self.synced > self.marked)
            .then_some(Record::Synced(Mark { through: self.synced, written_at: now }));
        let marks_count = usize::from(mark.is_some());
        if let Err(error) = self.make_ready(marks_count + records.len(), oldest_open_segment, now) {
            return Appended { first: self.end, count: 0, error: Some(error) };
        }
        let first = if mark.is_some() { self.end.next() } else { self.end };
        let segment = self.open.as_ref().expect("a segment is open after make_ready");
        self.buffer.clear();
        let payments = records.iter().map(|record| Record::Payment(*record));
        for (record, index) in mark.into_iter().chain(payments).zip(self.end.index..) {
            let place = Place { header_checksum: segment.checksum, index };
            record.encode(place, &mut self.buffer);
        }
        let (count, error) = self.write_buffer();
        if count > 0 && mark.is_some() {
            self.marked = self.synced;
        }
        Appended { first, count: count.saturating_sub(marks_count), error }
    }

    /// What must be synced so that all that was appended so far survives a power cut. The caller
    /// runs it, on whichever thread may wait for the disk, and says [`Journal::synced`] once that
    /// succeeded.
    pub fn take_unsynced(&mut self) -> SyncJob<D> {
        let mut files = std::mem::take(&mut self.unsynced.files);
        files.extend(self.open.as_ref().map(|segment| segment.file.clone()));
        let folder = std::mem::take(&mut self.unsynced.folder).then(|| self.disk.clone());
        SyncJob { files, folder, through: self.end, description: self.disk.describe("") }
    }

    /// Takes in that everything before this place survives a power cut.
    pub fn synced(&mut self, through: Position) {
        self.synced = self.synced.max(through);
    }

    /// Whether anything was appended that was not synced since.
    #[must_use]
    pub fn is_unsynced(&self) -> bool {
        self.synced < self.end
    }

    /// Writes everything again that was not synced, in its place, after a sync that failed: the
    /// operating system may take what it could not write for written, so that the next sync alone
    /// would prove nothing.
    ///
    /// # Errors
    /// The disk refuses, or what it gives back is not what was written.
    pub fn rewrite_unsynced(&mut self) -> Result<(), JournalError> {
        let mut files = Vec::new();
        // The last one may not be begun.
        let end = self.end.segment + u32::from(self.open.is_some());
        for number in self.synced.segment..end {
            let name = segment_file_name(number);
            let failed = |error| JournalError::io("write again", self.disk.describe(&name))(error);
            let file = self.disk.open(&name).map_err(failed)?;
            let header = read_header(&self.disk, &name, &file)?
                .ok_or_else(|| damaged(&self.disk, &name, 0, "its head is missing".to_owned()))?;
            let first = if number == self.synced.segment { self.synced.index } else { 0 };
            rewrite(&self.disk, &name, &file, &header, first)?;
            files.push(file);
        }
        self.unsynced.files.append(&mut files);
        self.unsynced.folder = true;
        Ok(())
    }

    /// Seals the open segment, unless it is empty, and begins the next one.
    ///
    /// # Errors
    /// The disk refuses. Appending goes on where it can.
    pub fn rotate(
        &mut self,
        oldest_open_segment: u32,
        now: TimestampMs,
    ) -> Result<(), JournalError> {
        self.cut_failed_write()?;
        if self.open.is_some() && self.end.index == 0 {
            return Ok(());
        }
        if self.open.is_some() {
            self.seal(oldest_open_segment, now)?;
        }
        self.begin_segment(self.end.segment, now)
    }

    /// Removes all segments before this one, oldest first.
    ///
    /// # Errors
    /// The disk refuses; the segments that remain follow each other without a gap.
    pub fn remove_segments_before(&mut self, segment: u32) -> Result<u32, JournalError> {
        let mut removed = 0;
        for number in list_segments(&self.disk)? {
            if number >= segment || number >= self.end.segment {
                break;
            }
            let name = segment_file_name(number);
            self.disk
                .remove(&name)
                .map_err(JournalError::io("remove", self.disk.describe(&name)))?;
            self.unsynced.folder = true;
            // Nothing of it is left to be synced, or to be written again.
            self.synced = self.synced.max(Position { segment: number + 1, index: 0 });
            removed += 1;
        }
        Ok(removed)
    }

    /// Leaves what was recovered to be synced: whoever wrote it may have ended before it did that.
    fn leave_unsynced(&mut self, first: u32) -> Result<(), JournalError> {
        for number in first..self.end.segment {
            let name = segment_file_name(number);
            let file = self.disk.open(&name);
            let file = file.map_err(JournalError::io("open", self.disk.describe(&name)))?;
            self.unsynced.files.push(file);
        }
        self.unsynced.folder = true;
        Ok(())
    }

    /// Reads all segments from `first` on, cuts torn tails, and opens the last one or the next.
    fn recover(
        &mut self,
        first: u32,
        now: TimestampMs,
        visit: &mut impl FnMut(Position, &PaymentRecord),
    ) -> Result<Recovery, JournalError> {
        let last = list_segments(&self.disk)?.last().copied().unwrap_or(first);
        let mut recovery =
            Recovery { segments_count: 0, records_count: 0, torn_bytes: 0, rebooted: false };
        let mut position = Position { segment: first, index: 0 };
        loop {
            let disk = self.disk.clone();
            let mut reader = JournalReader::new(disk, self.config.instance, position)
                .under_boot(self.config.boot_id);
            let read = reader.read(usize::MAX, |position, record| {
                if let Record::Payment(payment) = record {
                    visit(position, payment);
                }
            })?;
            recovery.records_count += read as u64;
            self.end = reader.position();
            match reader.standing()? {
                // All segments up to the last are sealed.
                Standing::NoSegment => {
                    recovery.segments_count = self.end.segment - first;
                    self.begin_segment(self.end.segment, now)?;
                    return Ok(recovery);
                }
                // It was being created when its writer ended.
                Standing::NoHeader => {
                    recovery.segments_count = self.end.segment - first;
                    recovery.torn_bytes += self.discard_headless(self.end.segment, last)?;
                    self.begin_segment(self.end.segment, now)?;
                    return Ok(recovery);
                }
                Standing::AtEnd { header, tail } => {
                    let is_old = header.boot_id != self.config.boot_id;
                    recovery.rebooted |= is_old;
                    if !is_old && self.end.segment < last {
                        let name = segment_file_name(self.end.segment);
                        let what = "its end is missing, and a later segment exists".to_owned();
                        let offset = record_offset(self.end.index);
                        return Err(damaged(&self.disk, &name, offset, what));
                    }
                    recovery.torn_bytes += self.reopen(&header, tail)?;
                    if self.end.segment == last {
                        recovery.segments_count = last - first + 1;
                        if is_old {
                            // Records behind this place may have been lost, and seen before that:
                            // nothing else may ever stand in their places.
                            self.seal(first, now)?;
                            self.begin_segment(self.end.segment, now)?;
                        }
                        return Ok(recovery);
                    }
                    // Its seal was lost with the power; the next segment goes on from here.
                    self.seal(first, now)?;
                    position = self.end;
                }
            }
        }
    }

    /// Opens the segment at the end for appending and cuts its torn tail, telling its bytes.
    fn reopen(&mut self, header: &SegmentHeader, tail: Tail) -> Result<u64, JournalError> {
        let name = segment_file_name(self.end.segment);
        let end_offset = record_offset(self.end.index);
        let torn_bytes = match tail {
            Tail::Clean => 0,
            Tail::Torn { bytes } => bytes,
            Tail::Damaged => {
                let what = format!("record {} is not what was written there", self.end.index);
                return Err(damaged(&self.disk, &name, end_offset, what));
            }
        };
        let file =
            self.disk.open(&name).map_err(JournalError::io("open", self.disk.describe(&name)))?;
        if torn_bytes > 0 {
            file.truncate(end_offset)
                .map_err(JournalError::io("cut the torn tail of", self.disk.describe(&name)))?;
        }
        self.open = Some(OpenSegment { file, checksum: header.checksum() });
        Ok(torn_bytes)
    }

    /// Removes a segment whose head was never written whole, telling its bytes.
    fn discard_headless(&mut self, number: u32, last: u32) -> Result<u64, JournalError> {
        let name = segment_file_name(number);
        let failed = |error| JournalError::io("read", self.disk.describe(&name))(error);
        let size = self.disk.open_read_only(&name).and_then(|file| file.size()).map_err(failed)?;
        if number != last || size > HEADER_BYTES as u64 {
            return Err(damaged(&self.disk, &name, 0, "its head is missing".to_owned()));
        }
        self.disk.remove(&name).map_err(JournalError::io("remove", self.disk.describe(&name)))?;
        self.unsynced.folder = true;
        Ok(size)
    }

    /// Opens a segment that has room for this many records, or any that is empty.
    fn make_ready(
        &mut self,
        records_count: usize,
        oldest_open_segment: u32,
        now: TimestampMs,
    ) -> Result<(), JournalError> {
        self.cut_failed_write()?;
        let bytes = record_offset(self.end.index) + (records_count * RECORD_BYTES) as u64;
        let full = self.end.index > 0 && bytes > self.config.segment_bytes;
        if self.open.is_none() || full {
            self.rotate(oldest_open_segment, now)?;
        }
        Ok(())
    }

    /// Cuts what a failed write may have left behind the end.
    fn cut_failed_write(&mut self) -> Result<(), JournalError> {
        if !self.cut_before_write {
            return Ok(());
        }
        if let Some(segment) = &self.open {
            let name = segment_file_name(self.end.segment);
            segment
                .file
                .truncate(record_offset(self.end.index))
                .map_err(JournalError::io("cut a failed write from", self.disk.describe(&name)))?;
        }
        self.cut_before_write = false;
        Ok(())
    }

    /// Writes the buffer's records at the end, and tells how many were written whole.
    fn write_buffer(&mut self) -> (usize, Option<JournalError>) {
        let segment = self.open.as_ref().expect("a segment is open while writing");
        let start = record_offset(self.end.index);
        let mut written = 0;
        let mut error = None;
        while written < self.buffer.len() {
            match segment.file.write_at(start + written as u64, &self.buffer[written..]) {
                Ok(0) => error = Some(io::Error::from(io::ErrorKind::WriteZero)),
                Ok(count) => written += count,
                Err(refused) => error = Some(refused),
            }
            if error.is_some() {
                break;
            }
        }
        let count = written / RECORD_BYTES;
        self.end = self.end.plus(u32::try_from(count).expect("a batch is far below 2^32 records"));
        self.cut_before_write = !written.is_multiple_of(RECORD_BYTES);
        let failed = |error| {
            let name = segment_file_name(self.end.segment);
            JournalError::io("write", self.disk.describe(&name))(error)
        };
        (count, error.map(failed))
    }

    /// Writes the seal of the open segment and closes it.
    fn seal(&mut self, oldest_open_segment: u32, now: TimestampMs) -> Result<(), JournalError> {
        let segment = self.open.as_ref().expect("a segment is open to be sealed");
        let seal = Seal { records_count: self.end.index, oldest_open_segment, written_at: now };
        let place = Place { header_checksum: segment.checksum, index: self.end.index };
        self.buffer.clear();
        Record::Sealed(seal).encode(place, &mut self.buffer);
        if let (_, Some(error)) = self.write_buffer() {
            return Err(error);
        }
        self.unsynced.files.extend(self.open.take().map(|segment| segment.file));
        self.end = self.end.next_segment();
        Ok(())
    }

    /// Creates the segment with this number, on the disk, and opens it.
    fn begin_segment(&mut self, number: u32, now: TimestampMs) -> Result<(), JournalError> {
        let name = segment_file_name(number);
        let header = SegmentHeader {
            instance: self.config.instance,
            number,
            created_at: now,
            boot_id: self.config.boot_id,
        };
        let (file, header) = if let Some(begun) = self.begun_before(&header)? {
            begun
        } else {
            let file = self
                .create_or_reuse(&name)
                .map_err(JournalError::io("create", self.disk.describe(&name)))?;
            write_whole(&file, 0, &header.encode())
                .map_err(JournalError::io("write", self.disk.describe(&name)))?;
            (file, header)
        };
        // Before it has any records: without its head, nobody could tell what is left of them.
        file.sync()
            .and_then(|()| self.disk.sync())
            .map_err(JournalError::io("sync", self.disk.describe(&name)))?;
        self.open = Some(OpenSegment { file, checksum: header.checksum() });
        self.end = Position { segment: number, index: 0 };
        self.unsynced.folder = true;
        Ok(())
    }
}

impl<D: Disk> Journal<D> {
    /// The empty segment that an earlier attempt began and could not make survive a power cut. Its head
    /// stays as it is: readers may have seen it, and records belong to the head before them.
    fn begun_before(
        &self,
        wanted: &SegmentHeader,
    ) -> Result<Option<(D::File, SegmentHeader)>, JournalError> {
        let name = segment_file_name(wanted.number);
        let failed = |error| JournalError::io("open", self.disk.describe(&name))(error);
        let file = match self.disk.open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        if file.size().map_err(failed)? != HEADER_BYTES as u64 {
            return Ok(None);
        }
        let header = read_header(&self.disk, &name, &file)?;
        let is_same = |header: &SegmentHeader| {
            (header.instance, header.number, header.boot_id)
                == (wanted.instance, wanted.number, wanted.boot_id)
        };
        Ok(header.filter(is_same).map(|header| (file, header)))
    }

    /// Creates a segment's file, or takes the one that an earlier attempt failed to begin.
    fn create_or_reuse(&self, name: &str) -> io::Result<D::File> {
        match self.disk.create(name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = self.disk.open(name)?;
                if file.size()? > HEADER_BYTES as u64 {
                    return Err(error);
                }
                file.truncate(0)?;
                Ok(file)
            }
            created => created,
        }
    }
}

/// What is to be synced, apart from the journal, so that another thread can do it.
pub struct SyncJob<D: Disk> {
    files: Vec<D::File>,
    folder: Option<D>,
    through: Position,
    description: String,
}

impl<D: Disk> SyncJob<D> {
    /// The end of what the job makes survive a power cut.
    #[must_use]
    pub fn through(&self) -> Position {
        self.through
    }

    /// Syncs, and waits for the disk.
    ///
    /// # Errors
    /// What was appended since the last sync may not survive a power cut.
    pub fn run(&self) -> Result<(), JournalError> {
        let failed = |error| JournalError::io("sync", self.description.clone())(error);
        for file in &self.files {
            file.sync().map_err(failed)?;
        }
        self.folder.as_ref().map_or(Ok(()), Disk::sync).map_err(failed)
    }
}

/// Makes segments from the first to the last survive a power cut, as far as they are written by now. For
/// who reads a journal that another process writes. A segment that is not there is passed over.
///
/// # Errors
/// The disk refuses.
pub fn sync_segments<D: Disk>(disk: &D, first: u32, last: u32) -> io::Result<()> {
    for number in first..=last {
        match disk.open_read_only(&segment_file_name(number)) {
            Ok(file) => file.sync()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    disk.sync()
}

/// The segment at which recovery begins: the oldest that had an open payment when the last seal was
/// written. `None` where there is no segment.
///
/// # Errors
/// The folder cannot be read, or a segment between two others is missing.
pub fn recovery_start<D: Disk>(disk: &D) -> Result<Option<u32>, JournalError> {
    let segments = list_segments(disk)?;
    let (Some(&oldest), Some(&last)) = (segments.first(), segments.last()) else {
        return Ok(None);
    };
    for number in segments.iter().rev().copied() {
        if let Some(seal) = read_seal(disk, number)? {
            return Ok(Some(seal.oldest_open_segment.clamp(oldest, last)));
        }
    }
    Ok(Some(oldest))
}

/// The head of a segment. `None` where the segment does not exist, or its head is not whole.
///
/// # Errors
/// The segment cannot be read, or its head is damaged.
pub fn read_segment_header<D: Disk>(
    disk: &D,
    number: u32,
) -> Result<Option<SegmentHeader>, JournalError> {
    let name = segment_file_name(number);
    match disk.open_read_only(&name) {
        Ok(file) => read_header(disk, &name, &file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(JournalError::io("open", disk.describe(&name))(error)),
    }
}

/// The seal that ends a segment, if it has one.
///
/// # Errors
/// The segment cannot be read.
pub fn read_seal<D: Disk>(disk: &D, number: u32) -> Result<Option<Seal>, JournalError> {
    let name = segment_file_name(number);
    let failed = |error| JournalError::io("read", disk.describe(&name))(error);
    let file = disk.open_read_only(&name).map_err(failed)?;
    let records_bytes = file.size().map_err(failed)?.saturating_sub(HEADER_BYTES as u64);
    let Some(index) = (records_bytes / RECORD_BYTES as u64).checked_sub(1) else {
        return Ok(None);
    };
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    let mut header = [0; HEADER_BYTES];
    let mut bytes = [0; RECORD_BYTES];
    file.read_at(0, &mut header).map_err(failed)?;
    file.read_at(record_offset(index), &mut bytes).map_err(failed)?;
    let Ok(header) = SegmentHeader::decode(&header) else {
        return Ok(None);
    };
    let place = Place { header_checksum: header.checksum(), index };
    match Record::decode(&bytes, place) {
        Ok(Record::Sealed(seal)) => Ok(Some(seal)),
        _ => Ok(None),
    }
}

/// The numbers of all segments in a folder, in order and without a gap.
///
/// # Errors
/// The folder cannot be read, or a segment between two others is missing.
pub fn list_segments<D: Disk>(disk: &D) -> Result<Vec<u32>, JournalError> {
    let names = disk.names().map_err(JournalError::io("read", disk.describe("")))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        if pair[1] != pair[0] + 1 {
            let file = disk.describe(&segment_file_name(pair[0] + 1));
            return Err(JournalError::Missing { file });
        }
    }
    Ok(numbers)
}

/// Writes a segment's head and its records from this index on in their places again.
fn rewrite<D: Disk>(
    disk: &D,
    name: &str,
    file: &D::File,
    header: &SegmentHeader,
    first: u32,
) -> Result<(), JournalError> {
    let failed = |error| JournalError::io("write again", disk.describe(name))(error);
    write_whole(file, 0, &header.encode()).map_err(failed)?;
    let size = file.size().map_err(failed)?;
    let mut index = first;
    while record_offset(index + 1) <= size {
        let offset = record_offset(index);
        let mut bytes = [0; RECORD_BYTES];
        file.read_at(offset, &mut bytes).map_err(failed)?;
        let place = Place { header_checksum: header.checksum(), index };
        if let Err(error) = Record::decode(&bytes, place) {
            return Err(damaged(disk, name, offset, error.to_string()));
        }
        write_whole(file, offset, &bytes).map_err(failed)?;
        index += 1;
    }
    Ok(())
}
