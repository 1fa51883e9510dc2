//! What the index knows of an id in one segment, in 32 bits: the place of its most telling record,
//! that record's kind, and whether its right to the id was decided upon.

use ledger::journal::Event;

const INDEX_BITS: u32 = 28;
const DECIDED_BIT: u32 = 1 << 28;
const KIND_SHIFT: u32 = 29;

/// The kind of a record, in the order in which a later one tells more of a payment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Closed as a duplicate: the payment lives elsewhere.
    Duplicate,
    /// Taken in.
    Accepted,
    /// Known to be at no processor.
    Failed,
    /// Sent.
    Dispatched,
    /// Refused for good.
    Refused,
    /// Settled.
    Settled,
}

/// An entry of the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(u32);

impl Kind {
    const ALL: [Self; 6] = [
        Self::Duplicate,
        Self::Accepted,
        Self::Failed,
        Self::Dispatched,
        Self::Refused,
        Self::Settled,
    ];

    /// The kind of a payment's record.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        match event {
            Event::Accepted => Self::Accepted,
            Event::Dispatched { .. } => Self::Dispatched,
            Event::Failed { .. } => Self::Failed,
            Event::Settled { .. } => Self::Settled,
            Event::Refused { .. } => Self::Refused,
            Event::Duplicate => Self::Duplicate,
        }
    }
}

impl Entry {
    /// An entry for the record with this index, which is below 2^28 in any segment.
    #[must_use]
    pub fn new(index: u32, kind: Kind, decided: bool) -> Self {
        debug_assert!(index < 1 << INDEX_BITS, "a segment has fewer records");
        let decided = if decided { DECIDED_BIT } else { 0 };
        Self((kind as u32) << KIND_SHIFT | decided | index)
    }

    /// The index of the record.
    #[must_use]
    pub fn index(self) -> u32 {
        self.0 & (DECIDED_BIT - 1)
    }

    /// The kind of the record.
    #[must_use]
    pub fn kind(self) -> Kind {
        Kind::ALL[(self.0 >> KIND_SHIFT) as usize]
    }

    /// Whether the right to the id was decided upon.
    #[must_use]
    pub fn is_decided(self) -> bool {
        self.0 & DECIDED_BIT != 0
    }

    /// The entry with its right to the id decided upon.
    #[must_use]
    pub fn decided(self) -> Self {
        Self(self.0 | DECIDED_BIT)
    }

    /// Its 32 bits.
    #[must_use]
    pub fn to_u32(self) -> u32 {
        self.0
    }

    /// The entry with these bits, if it is one.
    #[must_use]
    pub fn from_u32(bits: u32) -> Option<Self> {
        Kind::ALL.get((bits >> KIND_SHIFT) as usize).map(|_| Self(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_what_is_unpacked() {
        for kind in Kind::ALL {
            for index in [0, 1, (1 << INDEX_BITS) - 1] {
                for decided in [false, true] {
                    let entry = Entry::new(index, kind, decided);
                    let unpacked = (entry.index(), entry.kind(), entry.is_decided());
                    assert_eq!(unpacked, (index, kind, decided));
                    assert_eq!(Entry::from_u32(entry.to_u32()), Some(entry));
                    assert_eq!(entry.decided(), Entry::new(index, kind, true));
                }
            }
        }
        assert_eq!(Entry::from_u32(u32::MAX), None);
    }
}
