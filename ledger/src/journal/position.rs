//! A place in a journal.

use std::fmt;

/// The place of a record in a journal: its segment's number and its index within that segment.
///
/// Positions are ordered as records were written. As an end, a position is the place of the first
/// record that is not included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// The number of the segment, from 1.
    pub segment: u32,
    /// The index of the record within its segment, from 0.
    pub index: u32,
}

impl Position {
    /// The place of a journal's very first record.
    pub const START: Self = Self { segment: 1, index: 0 };

    /// The position as one number that orders alike.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        (self.segment as u64) << 32 | self.index as u64
    }

    /// The position that [`Position::to_u64`] made this number from.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        let [s0, s1, s2, s3, i0, i1, i2, i3] = number.to_be_bytes();
        Self {
            segment: u32::from_be_bytes([s0, s1, s2, s3]),
            index: u32::from_be_bytes([i0, i1, i2, i3]),
        }
    }

    /// The place of the next record in the same segment.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// The place this many records further in the same segment.
    #[must_use]
    pub const fn plus(self, records: u32) -> Self {
        Self { segment: self.segment, index: self.index + records }
    }

    /// The first place of the segment after this one.
    #[must_use]
    pub const fn next_segment(self) -> Self {
        Self { segment: self.segment + 1, index: 0 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.segment, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_ordered_as_their_numbers() {
        let early = Position { segment: 1, index: u32::MAX };
        let late = Position { segment: 2, index: 0 };
        assert!(early < late);
        assert!(early.to_u64() < late.to_u64());
        assert_eq!(Position::from_u64(early.to_u64()), early);
        assert_eq!(Position::from_u64(late.to_u64()), late);
        assert_eq!(late.next().to_string(), "2:1");
        assert_eq!(early.next_segment(), late);
    }
}
