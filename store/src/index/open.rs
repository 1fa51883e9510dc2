//! The index of a segment that is still written to: an exact map in memory.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::ops::Range;

use ledger::money::TotalOverflow;
use ledger::{Cents, CorrelationId, IdMap, Processor, Totals};

use super::entry::{Entry, Kind};
use super::moments::{Moment, Moments, Sum};

/// Maps that share the ids of a segment. One that is full moves to a place twice as large, and holds both until it
/// has moved: a sixteenth of the memory at a time, and of the time in which nobody is answered.
const MAPS_COUNT: usize = 16;

/// The ids of one segment, and what it says was settled.
#[derive(Debug, Default)]
pub struct OpenSegment {
    entries: Box<[IdMap<Entry>; MAPS_COUNT]>,
    settled: [Totals; 2],
    moments: Moments,
}

impl OpenSegment {
    /// Takes in a record.
    ///
    /// | record | effect on the entry |
    /// |---|---|
    /// | `Accepted` | made where there is none, or in place of a `Duplicate`, which closed an earlier one |
    /// | `Duplicate` | in place of an `Accepted`, which it closes, or of nothing |
    /// | any other | in place of whatever was there; its right to the id is decided upon |
    pub fn record(&mut self, id: CorrelationId, index: u32, kind: Kind) {
        let is_decided = kind != Kind::Accepted;
        match self.entries[map_of(id)].entry(id) {
            Vacant(place) => {
                place.insert(Entry::new(index, kind, is_decided));
            }
            Occupied(mut place) => {
                let stays = match kind {
                    Kind::Accepted => place.get().kind() != Kind::Duplicate,
                    Kind::Duplicate => place.get().kind() != Kind::Accepted,
                    _ => false,
                };
                if !stays {
                    place.insert(Entry::new(index, kind, is_decided));
                }
            }
        }
    }

    /// Takes in that a record says that a payment was settled, under a `requestedAt` in this tick of
    /// [`pyramid`](crate::pyramid).
    pub fn add_settled(&mut self, tick: u64, processor: Processor, amount: Cents) {
        let sum = &mut self.settled[processor.index()];
        let moment = Moment::new(tick, processor);
        *sum = sum
            .checked_add(Totals::of_payment(amount))
            .and_then(|sum| self.moments.add(moment, amount).map(|()| sum))
            .expect("2^28 records of the greatest amount are less than the greatest total");
    }

    /// Adds what the segment's records say was settled between two ticks.
    pub(super) fn add_to(
        &self,
        totals: &mut [Totals; 2],
        ticks: &Range<u64>,
    ) -> Result<(), TotalOverflow> {
        self.moments.add_to(totals, ticks)
    }

    /// What was settled at each moment, in order.
    pub(super) fn moments(&self) -> impl Iterator<Item = Sum> {
        self.moments.iter()
    }

    /// What the segment's records say was settled, by [`Processor::index`].
    #[must_use]
    pub fn settled(&self) -> [Totals; 2] {
        self.settled
    }

    /// What is known of an id.
    #[must_use]
    pub fn get(&self, id: CorrelationId) -> Option<Entry> {
        self.entries[map_of(id)].get(&id).copied()
    }

    /// Marks an id as decided upon.
    pub fn mark_decided(&mut self, id: CorrelationId) {
        if let Some(entry) = self.entries[map_of(id)].get_mut(&id) {
            *entry = entry.decided();
        }
    }

    /// Marks the accepted payment with an id as decided against, if it is the record with this
    /// index where one is given. Nothing happens where more than its acceptance is known.
    pub fn mark_lost(&mut self, id: CorrelationId, index: Option<u32>) {
        if let Some(entry) = self.entries[map_of(id)].get_mut(&id)
            && entry.kind() == Kind::Accepted
            && index.is_none_or(|index| index == entry.index())
        {
            *entry = Entry::new(entry.index(), Kind::Duplicate, true);
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn entries_count(&self) -> usize {
        self.entries.iter().map(IdMap::len).sum()
    }

    /// All entries, in no order.
    pub fn entries(&self) -> impl Iterator<Item = (CorrelationId, Entry)> {
        self.entries.iter().flatten().map(|(id, entry)| (*id, *entry))
    }
}

/// Which map an id is in. Its last byte is random in every kind of UUID that is in use; whoever chooses it
/// otherwise fills one map, which then is as one for all would be.
fn map_of(id: CorrelationId) -> usize {
    let [.., last] = id.to_bytes();
    usize::from(last) % MAPS_COUNT
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: CorrelationId = CorrelationId::from_bytes([1; 16]);

    fn after(kinds: &[Kind]) -> (u32, Kind, bool) {
        let mut segment = OpenSegment::default();
        for (kind, index) in kinds.iter().zip(0..) {
            segment.record(ID, index, *kind);
        }
        let entry = segment.get(ID).unwrap();
        (entry.index(), entry.kind(), entry.is_decided())
    }

    #[test]
    fn the_most_telling_record_is_kept() {
        use Kind::{Accepted, Dispatched, Duplicate, Failed, Refused, Settled};

        for (kinds, expected) in [
            (&[Accepted][..], (0, Accepted, false)),
            (&[Accepted, Accepted], (0, Accepted, false)),
            (&[Accepted, Dispatched], (1, Dispatched, true)),
            (&[Accepted, Dispatched, Failed], (2, Failed, true)),
            (&[Accepted, Dispatched, Settled], (2, Settled, true)),
            (&[Accepted, Dispatched, Failed, Refused], (3, Refused, true)),
            (&[Accepted, Duplicate], (1, Duplicate, true)),
            (&[Accepted, Duplicate, Accepted], (2, Accepted, false)),
            (&[Accepted, Duplicate, Accepted, Duplicate], (3, Duplicate, true)),
            (&[Accepted, Dispatched, Settled, Accepted, Duplicate], (2, Settled, true)),
            (&[Settled], (0, Settled, true)),
            (&[Duplicate], (0, Duplicate, true)),
        ] {
            assert_eq!(after(kinds), expected, "{kinds:?}");
        }
    }

    #[test]
    fn all_maps_together_are_the_segment() {
        let mut segment = OpenSegment::default();
        let id = |number: u32| CorrelationId::from_bytes(u128::from(number).to_be_bytes());
        for number in 0..1_000 {
            segment.record(id(number), number, Kind::Accepted);
        }
        assert!(segment.entries.iter().all(|map| (1..200).contains(&map.len())));
        assert_eq!(segment.entries_count(), 1_000);
        let mut all: Vec<_> = segment.entries().collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        let expected =
            (0..1_000).map(|number| (id(number), Entry::new(number, Kind::Accepted, false)));
        assert!(all.into_iter().eq(expected));
        assert_eq!(segment.get(id(1_000)), None);
    }

    #[test]
    fn only_an_acceptance_can_lose() {
        let mut segment = OpenSegment::default();
        segment.record(ID, 5, Kind::Accepted);
        segment.mark_lost(ID, Some(6));
        assert_eq!(segment.get(ID), Some(Entry::new(5, Kind::Accepted, false)));
        segment.mark_lost(ID, Some(5));
        assert_eq!(segment.get(ID), Some(Entry::new(5, Kind::Duplicate, true)));
        segment.record(ID, 7, Kind::Settled);
        segment.mark_lost(ID, None);
        assert_eq!(segment.get(ID), Some(Entry::new(7, Kind::Settled, true)));
    }

    #[test]
    fn an_accepted_payment_is_decided_once_it_is_marked() {
        let mut segment = OpenSegment::default();
        segment.record(ID, 5, Kind::Accepted);
        assert!(!segment.get(ID).unwrap().is_decided());
        segment.mark_decided(ID);
        assert!(segment.get(ID).unwrap().is_decided());
    }
}
