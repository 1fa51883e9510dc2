//! The head of a segment: 64 bytes, little endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic, `PAYJRNL` and a line feed |
//! | 8 | 2 | version of the format |
//! | 10 | 2 | bytes of a record |
//! | 12 | 2 | number of the API instance |
//! | 14 | 2 | zero |
//! | 16 | 4 | number of the segment, from 1 |
//! | 20 | 4 | zero |
//! | 24 | 8 | moment of creation in milliseconds |
//! | 32 | 16 | boot id of the machine |
//! | 48 | 12 | zero |
//! | 60 | 4 | CRC-32C of bytes 0 to 59 |

use crate::journal::record::RECORD_BYTES;
use crate::time::TimestampMs;

/// Bytes of the head of a segment.
pub const HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"PAYJRNL\n";
const VERSION: u16 = 1;
const RECORD_BYTES_U16: u16 = 48;
const _: () = assert!(RECORD_BYTES_U16 as usize == RECORD_BYTES);

/// The end of a segment's file name.
const SUFFIX: &str = ".journal";

/// The head of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The API instance that writes it.
    pub instance: u16,
    /// Its number, from 1.
    pub number: u32,
    /// When it was created.
    pub created_at: TimestampMs,
    /// The boot of the machine that created it: after a power cut there is another one.
    pub boot_id: [u8; 16],
}

/// Why bytes are not the head of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// Not a segment at all.
    #[error("it does not begin as a journal's segment does")]
    Magic,
    /// Of another version.
    #[error("its format is version {0}, and this program reads version {VERSION}")]
    Version(u16),
    /// Changed after it was written.
    #[error("the checksum of its head is wrong")]
    Checksum,
    /// A head that this version does not write.
    #[error("the {0} in its head is not as expected")]
    Field(&'static str),
}

impl SegmentHeader {
    /// The bytes of the head.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10..12].copy_from_slice(&RECORD_BYTES_U16.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.instance.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.created_at.get().to_le_bytes());
        bytes[32..48].copy_from_slice(&self.boot_id);
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the head.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        if bytes[..8] != MAGIC {
            return Err(HeaderError::Magic);
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        if crc32c::crc32c(&bytes[..60]) != u32::from_le_bytes(field(bytes, 60)) {
            return Err(HeaderError::Checksum);
        }
        let header = Self {
            instance: u16::from_le_bytes(field(bytes, 12)),
            number: u32::from_le_bytes(field(bytes, 16)),
            created_at: TimestampMs::new(i64::from_le_bytes(field(bytes, 24)))
                .ok_or(HeaderError::Field("moment"))?,
            boot_id: field(bytes, 32),
        };
        if header.encode() == *bytes { Ok(header) } else { Err(HeaderError::Field("unused part")) }
    }

    /// What ties the segment's records to it.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        u32::from_le_bytes(field(&self.encode(), 60))
    }
}

/// The name of a segment's file, such that names are ordered as their numbers.
#[must_use]
pub fn segment_file_name(number: u32) -> String {
    format!("{number:010}{SUFFIX}")
}

/// The number of the segment with this file name.
pub(crate) fn segment_number(file_name: &str) -> Option<u32> {
    let number = file_name.strip_suffix(SUFFIX)?.parse().ok()?;
    (number > 0 && segment_file_name(number) == file_name).then_some(number)
}

/// Where in its file the record with this index begins.
pub(crate) fn record_offset(index: u32) -> u64 {
    HEADER_BYTES as u64 + u64::from(index) * RECORD_BYTES as u64
}

/// The bytes of a field.
fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], offset: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[offset..offset + N]);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader =
        SegmentHeader { instance: 2, number: 17, created_at: TimestampMs::MIN, boot_id: [9; 16] };

    #[test]
    fn what_is_written_is_what_is_read() {
        assert_eq!(SegmentHeader::decode(&HEADER.encode()), Ok(HEADER));
    }

    #[test]
    fn a_changed_bit_anywhere_is_noticed() {
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn only_names_that_this_program_writes_are_segments() {
        assert_eq!(segment_number(&segment_file_name(17)), Some(17));
        assert_eq!(segment_number(&segment_file_name(u32::MAX)), Some(u32::MAX));
        for name in ["17.journal", "0000000000.journal", "0000000017.journal.bak", "lock"] {
            assert_eq!(segment_number(name), None, "{name}");
        }
    }
}
