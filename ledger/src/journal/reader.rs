//! Reading a journal, from any position to its end and on as it grows.

use std::cell::Cell;
use std::io;

use super::JournalError;
use super::position::Position;
use super::record::{Place, RECORD_BYTES, Record};
use super::segment::{HEADER_BYTES, SegmentHeader, record_offset, segment_file_name};
use super::tail::{Tail, judge};
use crate::disk::{Disk, DiskFile};

/// Records that are read from the disk at a time.
const CHUNK_RECORDS: usize = 1024;

/// Reads one journal in order. It may be used while the journal's one writer appends: what is
/// written only in part is left for the next call.
pub struct JournalReader<D: Disk> {
    disk: D,
    instance: u16,
    position: Position,
    open: Option<OpenSegment<D::File>>,
    chunk: Vec<u8>,
    /// The machine's boot, if what was lost with the power is to be told from damage.
    boot_id: Option<[u8; 16]>,
    /// Whether it goes on behind a segment whose seal was lost with the power.
    passes_lost_seals: bool,
    /// Where that was found last, and the size of the file then: it need not be looked into again.
    lost_at: Cell<Option<(Position, u64)>>,
}

struct OpenSegment<F> {
    file: F,
    header: SegmentHeader,
    checksum: u32,
}

/// Where a reader stands with the segment at its position.
pub(super) enum Standing {
    /// The segment does not exist.
    NoSegment,
    /// Its head is not there yet, or not whole.
    NoHeader,
    /// It is open, and all its good records were read.
    AtEnd { header: SegmentHeader, tail: Tail },
}

impl<D: Disk> JournalReader<D> {
    /// A reader of the journal of this instance that begins at `position`.
    pub fn new(disk: D, instance: u16, position: Position) -> Self {
        let chunk = vec![0; CHUNK_RECORDS * RECORD_BYTES];
        let lost_at = Cell::new(None);
        Self {
            disk,
            instance,
            position,
            open: None,
            chunk,
            boot_id: None,
            passes_lost_seals: false,
            lost_at,
        }
    }

    /// Tells what was lost with the power from damage. Under this boot of the machine, a place in a
    /// segment of an earlier one that does not read, and of which no later [`Mark`] says that it was on
    /// the disk, is the end of what is left; the journal's writer cuts it off.
    ///
    /// [`Mark`]: super::Mark
    #[must_use]
    pub fn under_boot(mut self, boot_id: [u8; 16]) -> Self {
        self.boot_id = Some(boot_id);
        self
    }

    /// Goes on with the next segment where one of an earlier boot has lost its end, as the journal's writer
    /// does once it is started. A reader that waited for that would not see, until then, what the later
    /// segments say was sent.
    #[must_use]
    pub fn passing_lost_seals(mut self) -> Self {
        self.passes_lost_seals = true;
        self
    }

    /// The place of the record that is read next.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The head of the segment at the position, once a record of it was read: from then on it is on the
    /// disk. `None` before that, and behind a seal.
    #[must_use]
    pub fn header(&self) -> Option<&SegmentHeader> {
        let open = self.open.as_ref().filter(|_| self.position.index > 0);
        open.map(|segment| &segment.header)
    }

    /// Reads up to `records_max` records that are there by now, in order, and tells how many it
    /// read. Fewer than asked for means that there are no more.
    ///
    /// # Errors
    /// The journal cannot be read, or is damaged.
    pub fn read(
        &mut self,
        records_max: usize,
        mut visit: impl FnMut(Position, &Record),
    ) -> Result<usize, JournalError> {
        let mut count = 0;
        while count < records_max && self.open_segment()? {
            let wanted = CHUNK_RECORDS.min(records_max - count);
            let read = self.read_chunk(wanted, &mut visit)?;
            count += read;
            // A seal moves on to the next segment, where there may be more.
            if read < wanted && self.open.is_some() && !self.pass_lost_seal()? {
                break;
            }
        }
        Ok(count)
    }

    /// Goes on with the next segment, if that is there and the seal of this one was lost with the power.
    fn pass_lost_seal(&mut self) -> Result<bool, JournalError> {
        let Some(segment) = &self.open else { return Ok(false) };
        let is_old = self.boot_id.is_some_and(|boot_id| boot_id != segment.header.boot_id);
        if !self.passes_lost_seals || !is_old {
            return Ok(false);
        }
        let next = self.position.next_segment();
        if self.disk.open_read_only(&segment_file_name(next.segment)).is_err() {
            return Ok(false);
        }
        // The writer may have sealed it before it began the next one.
        let place = Place { header_checksum: segment.checksum, index: self.position.index };
        let mut bytes = [0; RECORD_BYTES];
        let count = segment
            .file
            .read_at(record_offset(place.index), &mut bytes)
            .map_err(|error| read_failed(&self.disk, self.position, error))?;
        if count == RECORD_BYTES && Record::decode(&bytes, place).is_ok() {
            return Ok(true);
        }
        if self.judge_end(segment)? == Tail::Damaged {
            let what = format!("record {} is not what was written there", self.position.index);
            return Err(self.damaged_here(what));
        }
        self.position = next;
        self.open = None;
        Ok(true)
    }

    /// Opens the segment at the position if it is not open. False if it is not there yet.
    fn open_segment(&mut self) -> Result<bool, JournalError> {
        if self.open.is_some() {
            return Ok(true);
        }
        let name = segment_file_name(self.position.segment);
        let file = match self.disk.open_read_only(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(JournalError::io("open", self.disk.describe(&name))(error)),
        };
        let Some(header) = read_header(&self.disk, &name, &file)? else {
            return Ok(false);
        };
        if (header.instance, header.number) != (self.instance, self.position.segment) {
            let what = format!(
                "it is segment {} of instance {}, and its place is that of segment {} of instance {}",
                header.number, header.instance, self.position.segment, self.instance
            );
            return Err(damaged(&self.disk, &name, 0, what));
        }
        self.open = Some(OpenSegment { file, header, checksum: header.checksum() });
        Ok(true)
    }

    /// Reads up to `records_max` records with one read of the disk.
    fn read_chunk(
        &mut self,
        records_max: usize,
        visit: &mut impl FnMut(Position, &Record),
    ) -> Result<usize, JournalError> {
        let Some(segment) = &self.open else {
            return Ok(0);
        };
        let header_checksum = segment.checksum;
        let chunk = &mut self.chunk[..records_max * RECORD_BYTES];
        let bytes_count = segment
            .file
            .read_at(record_offset(self.position.index), chunk)
            .map_err(|error| read_failed(&self.disk, self.position, error))?;
        let whole_count = bytes_count / RECORD_BYTES;
        for slot in 0..whole_count {
            let place = Place { header_checksum, index: self.position.index };
            let (records, _) = self.chunk.as_chunks::<RECORD_BYTES>();
            let Ok(record) = Record::decode(&records[slot], place) else {
                self.check_unreadable(place)?;
                return Ok(slot);
            };
            if let Record::Sealed(seal) = record
                && seal.records_count != self.position.index
            {
                return Err(self.damaged_here(format!(
                    "its seal counts {} records and stands after {}",
                    seal.records_count, self.position.index
                )));
            }
            visit(self.position, &record);
            if let Record::Sealed(_) = record {
                self.position = self.position.next_segment();
                self.open = None;
                return Ok(slot + 1);
            }
            self.position = self.position.next();
        }
        Ok(whole_count)
    }

    /// Checks that what does not read as a record at this place is a write that is not finished, or
    /// was lost.
    fn check_unreadable(&self, place: Place) -> Result<(), JournalError> {
        let Some(segment) = &self.open else {
            return Ok(());
        };
        if self.judge_end(segment)? != Tail::Damaged {
            return Ok(());
        }
        // The writer may have finished in the meantime.
        let mut bytes = [0; RECORD_BYTES];
        let count = segment
            .file
            .read_at(record_offset(place.index), &mut bytes)
            .map_err(|error| read_failed(&self.disk, self.position, error))?;
        if count == RECORD_BYTES && Record::decode(&bytes, place).is_ok() {
            return Ok(());
        }
        Err(self.damaged_here(format!("record {} is not what was written there", place.index)))
    }

    /// Judges what is found at the position, where no good record is.
    fn judge_end(&self, segment: &OpenSegment<D::File>) -> Result<Tail, JournalError> {
        let failed = |error| read_failed(&self.disk, self.position, error);
        let tail = judge(&segment.file, segment.checksum, self.position.index).map_err(failed)?;
        if self.boot_id.is_none_or(|boot_id| boot_id == segment.header.boot_id) {
            return Ok(tail);
        }
        let size = segment.file.size().map_err(failed)?;
        if self.lost_at.get() != Some((self.position, size)) {
            if is_marked_beyond(&self.disk, self.position)? {
                return Ok(Tail::Damaged);
            }
            self.lost_at.set(Some((self.position, size)));
        }
        let bytes = size.saturating_sub(record_offset(self.position.index));
        Ok(if bytes == 0 { Tail::Clean } else { Tail::Torn { bytes } })
    }

    fn damaged_here(&self, what: String) -> JournalError {
        let name = segment_file_name(self.position.segment);
        damaged(&self.disk, &name, record_offset(self.position.index), what)
    }

    /// Where the reader stands once it has read all there is. For the journal's one writer.
    pub(super) fn standing(&mut self) -> Result<Standing, JournalError> {
        if !self.open_segment()? {
            let name = segment_file_name(self.position.segment);
            let exists = self.disk.open_read_only(&name).is_ok();
            return Ok(if exists { Standing::NoHeader } else { Standing::NoSegment });
        }
        let segment = self.open.as_ref().expect("the segment was opened above");
        let tail = self.judge_end(segment)?;
        Ok(Standing::AtEnd { header: segment.header, tail })
    }
}

/// Whether a mark that can still be read says that the record at this place was on the disk.
fn is_marked_beyond<D: Disk>(disk: &D, position: Position) -> Result<bool, JournalError> {
    let mut chunk = vec![0; CHUNK_RECORDS * RECORD_BYTES];
    let mut at = position;
    loop {
        let name = segment_file_name(at.segment);
        let file = match disk.open_read_only(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(read_failed(disk, at, error)),
        };
        // Without a head its records cannot be told from others.
        if let Some(header) = read_header(disk, &name, &file)? {
            let header_checksum = header.checksum();
            loop {
                let offset = record_offset(at.index);
                let count = file
                    .read_at(offset, &mut chunk)
                    .map_err(|error| read_failed(disk, at, error))?;
                let (records, _) = chunk[..count].as_chunks::<RECORD_BYTES>();
                for bytes in records {
                    let place = Place { header_checksum, index: at.index };
                    if let Ok(Record::Synced(mark)) = Record::decode(bytes, place)
                        && mark.through > position
                    {
                        return Ok(true);
                    }
                    at = at.next();
                }
                if count < chunk.len() {
                    break;
                }
            }
        }
        at = at.next_segment();
    }
}

/// Reads the head of a segment; `None` where it was not written whole.
pub(super) fn read_header<D: Disk>(
    disk: &D,
    name: &str,
    file: &D::File,
) -> Result<Option<SegmentHeader>, JournalError> {
    let mut bytes = [0; HEADER_BYTES];
    let count =
        file.read_at(0, &mut bytes).map_err(JournalError::io("read", disk.describe(name)))?;
    if count < HEADER_BYTES || bytes == [0; HEADER_BYTES] {
        return Ok(None);
    }
    SegmentHeader::decode(&bytes)
        .map(Some)
        .map_err(|error| damaged(disk, name, 0, error.to_string()))
}

fn read_failed<D: Disk>(disk: &D, position: Position, error: io::Error) -> JournalError {
    JournalError::io("read", disk.describe(&segment_file_name(position.segment)))(error)
}

pub(super) fn damaged<D: Disk>(disk: &D, name: &str, offset: u64, what: String) -> JournalError {
    JournalError::Damaged { file: disk.describe(name), offset, what }
}
