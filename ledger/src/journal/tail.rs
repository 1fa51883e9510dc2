//! What the bytes after the last good record of a segment mean.
//!
//! A write that was cut short by a crash or a power cut leaves its first part, and behind it either
//! nothing or, where the file had grown already, zeros from a sector boundary on. That is a torn
//! tail. Whatever else does not read as a record is damage: a byte that changed, a hole with records
//! behind it. The difference decides whether a process may go on, so it is made here alone.

use std::io;

use super::record::{Place, RECORD_BYTES, Record};
use super::segment::record_offset;
use crate::disk::DiskFile;

/// The smallest piece that a storage device writes whole.
const SECTOR_BYTES: u64 = 512;

/// Records that are read at a time.
const CHUNK_RECORDS: usize = 1024;

/// What is found from the first place on that holds no good record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// Nothing.
    Clean,
    /// The last write, incomplete.
    Torn {
        /// Its bytes.
        bytes: u64,
    },
    /// Something that no incomplete write leaves.
    Damaged,
}

/// Judges what a segment's file holds from the record with this index on, which is known not to be
/// a good record.
pub fn judge<F: DiskFile>(file: &F, header_checksum: u32, index: u32) -> io::Result<Tail> {
    let start = record_offset(index);
    let mut chunk = vec![0; CHUNK_RECORDS * RECORD_BYTES];
    let mut offset = start;
    let mut place = Place { header_checksum, index };
    let mut content_end = start;
    loop {
        let count = file.read_at(offset, &mut chunk)?;
        let (records, _) = chunk[..count].as_chunks::<RECORD_BYTES>();
        for bytes in records {
            if place.index != index && Record::decode(bytes, place).is_ok() {
                return Ok(Tail::Damaged);
            }
            place.index += 1;
        }
        if let Some(last) = chunk[..count].iter().rposition(|byte| *byte != 0) {
            content_end = offset + last as u64 + 1;
        }
        offset += count as u64;
        if count < chunk.len() {
            return Ok(judge_extent(start, content_end, offset));
        }
    }
}

/// Judges a tail without a good record in it by where it starts, where its last byte other than
/// zero ends, and where the file ends.
fn judge_extent(start: u64, content_end: u64, file_end: u64) -> Tail {
    let bytes = file_end - start;
    if bytes == 0 {
        return Tail::Clean;
    }
    let record_end = start + RECORD_BYTES as u64;
    let sector_end = (start / SECTOR_BYTES + 1) * SECTOR_BYTES;
    let short = file_end < record_end;
    let zeros = content_end == start;
    let zeros_from_sector = sector_end < record_end && content_end <= sector_end;
    if short || zeros || zeros_from_sector { Tail::Torn { bytes } } else { Tail::Damaged }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::disk::memory::MemoryDisk;
    use crate::id::CorrelationId;
    use crate::journal::record::{Event, PaymentRecord};
    use crate::journal::segment::HEADER_BYTES;
    use crate::money::Cents;
    use crate::time::TimestampMs;

    const CHECKSUM: u32 = 99;

    fn record(index: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let record = PaymentRecord {
            id: CorrelationId::from_bytes([0xff; 16]),
            amount: Cents::new(1990),
            written_at: TimestampMs::clamped(1),
            event: Event::Accepted,
        };
        Record::Payment(record).encode(Place { header_checksum: CHECKSUM, index }, &mut bytes);
        bytes
    }

    /// A segment with good records up to `index`, and then these bytes.
    fn judged(index: u32, rest: &[u8]) -> Tail {
        let mut bytes = vec![1; HEADER_BYTES];
        for before in 0..index {
            bytes.extend(record(before));
        }
        bytes.extend(rest);
        let disk = MemoryDisk::new();
        disk.put("segment", bytes);
        judge(&disk.open("segment").unwrap(), CHECKSUM, index).unwrap()
    }

    #[test]
    fn nothing_is_clean() {
        assert_eq!(judged(0, &[]), Tail::Clean);
        assert_eq!(judged(3, &[]), Tail::Clean);
    }

    #[test]
    fn every_first_part_of_a_record_is_torn() {
        let whole = record(3);
        for cut in 1..RECORD_BYTES {
            assert_eq!(judged(3, &whole[..cut]), Tail::Torn { bytes: cut as u64 }, "cut at {cut}");
        }
    }

    #[test]
    fn zeros_in_place_of_records_are_torn() {
        for count in [1, 47, 48, 49, 4096, 200_000] {
            assert_eq!(judged(3, &vec![0; count]), Tail::Torn { bytes: count as u64 });
        }
    }

    #[test]
    fn a_record_whose_second_sector_was_not_written_is_torn() {
        // The record with index 9 lies at bytes 496 to 543: 16 bytes in the first sector.
        let mut rest = record(9);
        rest[16..].fill(0);
        assert_eq!(judged(9, &rest), Tail::Torn { bytes: 48 });
        rest.extend([0; 500]);
        assert_eq!(judged(9, &rest), Tail::Torn { bytes: 548 });
        rest[17] = 1;
        assert_eq!(judged(9, &rest), Tail::Damaged);
    }

    #[test]
    fn a_changed_byte_in_the_last_record_is_damage() {
        for byte in 0..RECORD_BYTES {
            let mut rest = record(3);
            rest[byte] ^= 0x10;
            assert_eq!(judged(3, &rest), Tail::Damaged, "byte {byte}");
        }
    }

    #[test]
    fn a_hole_with_a_good_record_behind_it_is_damage() {
        for distance in [1, 2, CHUNK_RECORDS, CHUNK_RECORDS + 1] {
            let mut rest = vec![0; distance * RECORD_BYTES];
            rest.extend(record(3 + u32::try_from(distance).unwrap()));
            assert_eq!(judged(3, &rest), Tail::Damaged, "{distance} records away");
        }
    }
}
