//! Which correlation ids are known, and where their records lie: an exact map for a segment that is
//! still written to, and for each sealed one a sorted file of fingerprints behind a small filter.
//!
//! The index is a view of the journals. Its files can be deleted at any time.

mod entry;
mod file;
mod filter;
mod indexer;
mod moments;
mod open;
mod sealed;
mod sums;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

pub use entry::{Entry, Kind};
use file::Reliance;
pub use indexer::{IndexJob, Indexed, Indexer};
use ledger::disk::Disk;
use ledger::journal::{JournalError, Position};
use ledger::money::TotalOverflow;
use ledger::{Cents, CorrelationId, Processor, Totals};
use moments::Moment;
pub use open::OpenSegment;
pub use sealed::{
    IndexError, SealedSegment, SegmentKey, Sought, index_file_name, index_file_segment,
};

/// How many segments before one its filters rely on, at most: as many as a payment that is accepted in one and
/// settled in a later one lies apart, where the backlogs are as large as they can be. What is looked up and
/// known is searched for in so many files more.
const SEGMENTS_BEFORE_MAX: u32 = 6;

/// The segments that the filters of this one may rely on, the nearest first; `first` is the first that is covered.
pub fn segments_before(number: u32, first: u32) -> impl Iterator<Item = u32> {
    (number.saturating_sub(SEGMENTS_BEFORE_MAX).max(first)..number).rev()
}

/// A place where an id was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// The instance whose journal it is.
    pub instance: u16,
    /// The record.
    pub position: Position,
    /// What kind of record it is.
    pub kind: Kind,
}

/// What is decided about an accepted payment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It has the right to its id.
    HasRight,
    /// Another record has it.
    Lost,
    /// Its own journal says what was decided.
    KnownAlready,
}

/// The index of one segment.
enum Segment<D: Disk> {
    /// Still written to, or not yet decided upon.
    Open(OpenSegment),
    /// Being written to its file.
    Closing(Arc<OpenSegment>),
    /// In its file.
    Sealed(Box<SealedSegment<D>>),
}

/// The index of all journals.
pub struct Index<D: Disk> {
    segments: BTreeMap<(u16, u32), Segment<D>>,
    /// What all of them say was settled.
    settled: Result<[Totals; 2], TotalOverflow>,
    /// Those that are not [`Segment::Sealed`].
    unsealed: BTreeSet<(u16, u32)>,
    /// The first and the last moment of what was settled in each sealed one, if anything was: side by side, because
    /// a summary looks at all of them.
    spans: Vec<(Moment, Moment, (u16, u32))>,
}

impl<D: Disk> Default for Index<D> {
    fn default() -> Self {
        Self {
            segments: BTreeMap::new(),
            settled: Ok(Default::default()),
            unsealed: BTreeSet::new(),
            spans: Vec::new(),
        }
    }
}

impl<D: Disk> Index<D> {
    /// Adds a sealed segment whose file was there already. `false` where its filters rely on segments that are not
    /// in the index: then it is to be made again. So they are added in their order.
    pub fn add_sealed(&mut self, segment: SealedSegment<D>) -> bool {
        let is_grounded = self.is_grounded(&segment);
        if is_grounded {
            for (processor, totals) in segment.settled().into_iter().enumerate() {
                self.add_to_settled(processor, totals);
            }
            self.seal(segment);
        }
        is_grounded
    }

    fn seal(&mut self, segment: SealedSegment<D>) {
        let SegmentKey { instance, number, .. } = *segment.key();
        let key = (instance, number);
        self.unsealed.remove(&key);
        self.spans.extend(segment.span().map(|(first, last)| (first, last, key)));
        self.segments.insert(key, Segment::Sealed(Box::new(segment)));
    }

    /// Whether the segments that the filters of this one rely on are in the index, from their files.
    fn is_grounded(&self, sealed: &SealedSegment<D>) -> bool {
        let (key, reliance) = (sealed.key(), sealed.reliance());
        let before = (1..=reliance.segments_count).map_while(|back| {
            match self.segments.get(&(key.instance, key.number.checked_sub(back)?))? {
                Segment::Sealed(before) => Some(before.key()),
                Segment::Open(_) | Segment::Closing(_) => None,
            }
        });
        Reliance::on(before) == reliance
    }

    /// Whether a segment is in its file, so that its records need not be read.
    #[must_use]
    pub fn is_sealed(&self, instance: u16, segment: u32) -> bool {
        matches!(self.segments.get(&(instance, segment)), Some(Segment::Sealed(_)))
    }

    /// How many segments there are.
    #[must_use]
    pub fn segments_count(&self) -> u64 {
        self.segments.len() as u64
    }

    /// Takes in that a record of this kind about this id lies at a place.
    pub fn record(&mut self, instance: u16, position: Position, id: CorrelationId, kind: Kind) {
        if let Some(open) = self.open_segment(instance, position.segment) {
            open.record(id, position.index, kind);
        }
        if kind == Kind::Duplicate {
            // The record that it closes may lie in a segment before, and has no right to the id.
            let before = (instance, 0)..(instance, position.segment);
            for (_, segment) in self.segments.range_mut(before) {
                if let Segment::Open(open) = segment {
                    open.mark_lost(id, None);
                }
            }
        }
    }

    /// Takes in that the record at a place says that a payment was settled, under a `requestedAt` in this
    /// tick of [`pyramid`](crate::pyramid).
    pub fn add_settled(
        &mut self,
        instance: u16,
        position: Position,
        tick: u64,
        processor: Processor,
        amount: Cents,
    ) {
        if let Some(open) = self.open_segment(instance, position.segment) {
            open.add_settled(tick, processor, amount);
            self.add_to_settled(processor.index(), Totals::of_payment(amount));
        }
    }

    fn add_to_settled(&mut self, processor: usize, totals: Totals) {
        self.settled = self.settled.and_then(|mut settled| {
            settled[processor] = settled[processor].checked_add(totals)?;
            Ok(settled)
        });
    }

    /// What all records say was settled between two ticks of [`pyramid`](crate::pyramid), by
    /// [`Processor::index`].
    ///
    /// # Errors
    /// A file of the index cannot be read, or a total does not fit.
    pub fn settled_between(&self, ticks: &Range<u64>) -> Result<[Totals; 2], SumError> {
        let mut totals = [Totals::default(); 2];
        let (from, to) = (Moment::first(ticks.start), Moment::first(ticks.end));
        let overlapping = self.spans.iter().filter(|(first, last, _)| *first < to && *last >= from);
        for key in self.unsealed.iter().chain(overlapping.map(|(.., key)| key)) {
            match &self.segments[key] {
                Segment::Open(open) => open.add_to(&mut totals, ticks)?,
                Segment::Closing(open) => open.add_to(&mut totals, ticks)?,
                Segment::Sealed(sealed) => sealed.add_to(&mut totals, ticks)?,
            }
        }
        Ok(totals)
    }

    /// What all records say was settled, by [`Processor::index`].
    ///
    /// # Errors
    /// A total does not fit.
    pub fn settled(&self) -> Result<[Totals; 2], TotalOverflow> {
        self.settled
    }

    /// Marks the accepted payment at a place as decided upon, for it or against it.
    pub fn mark_decided(
        &mut self,
        instance: u16,
        position: Position,
        id: CorrelationId,
        lost: bool,
    ) {
        let Some(open) = self.open_segment(instance, position.segment) else { return };
        if lost {
            open.mark_lost(id, Some(position.index));
        } else {
            open.mark_decided(id);
        }
    }

    /// Marks the accepted payment at a place as decided upon, and tells how.
    ///
    /// A record that was decided before has the right to the id: one in another journal, or an
    /// earlier one in its own. A later record in its own journal about the id is about this very
    /// payment, so that was decided already. A record that lost, or is closed as a duplicate, says
    /// only that the right lies elsewhere.
    ///
    /// # Errors
    /// A file of the index or a journal cannot be read.
    pub fn decide(
        &mut self,
        instance: u16,
        position: Position,
        id: CorrelationId,
    ) -> Result<Decision, LookError> {
        let mut decision = Decision::HasRight;
        for (found, is_decided) in self.entries(id) {
            let found = found?;
            if found.instance == instance && found.position >= position {
                if found.position > position {
                    decision = Decision::KnownAlready;
                    break;
                }
                if found.kind == Kind::Duplicate {
                    decision = Decision::Lost;
                }
            } else if is_decided && found.kind != Kind::Duplicate {
                decision = Decision::Lost;
            }
        }
        self.mark_decided(instance, position, id, decision == Decision::Lost);
        Ok(decision)
    }

    /// Whether the journal itself says what was decided upon the accepted payment at a place: a later
    /// record in it is about that very payment, or closes it.
    ///
    /// Within a segment a second acceptance takes the place of nothing but a closed one. In a later
    /// segment it says nothing.
    ///
    /// # Errors
    /// A file of the index or a journal cannot be read.
    pub fn is_known_already(
        &self,
        instance: u16,
        position: Position,
        id: CorrelationId,
    ) -> Result<bool, LookError> {
        for found in self.find(id)?.into_iter().filter(|found| found.instance == instance) {
            let is_later = found.position > position
                && (found.position.segment == position.segment || found.kind != Kind::Accepted);
            if is_later || found.position == position && found.kind == Kind::Duplicate {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All places where an id is known, in no order.
    ///
    /// # Errors
    /// A file of the index or a journal cannot be read.
    pub fn find(&self, id: CorrelationId) -> Result<Vec<Found>, LookError> {
        self.entries(id).map(|(found, _)| found).collect()
    }

    /// All places where an id is known, and whether they are decided upon.
    fn entries(&self, id: CorrelationId) -> impl Iterator<Item = (Result<Found, LookError>, bool)> {
        let mut sought = Sought::new(id);
        self.segments.iter().filter_map(move |((instance, number), segment)| {
            let entry = match segment {
                Segment::Open(open) => open.get(id).map(Ok),
                Segment::Closing(open) => open.get(id).map(Ok),
                Segment::Sealed(sealed) => sealed.find(&mut sought).transpose(),
            };
            entry.map(|entry| {
                let is_decided = entry.as_ref().is_ok_and(|entry| entry.is_decided());
                let found = entry.map(|entry| Found {
                    instance: *instance,
                    position: Position { segment: *number, index: entry.index() },
                    kind: entry.kind(),
                });
                (found, is_decided)
            })
        })
    }

    /// Begins to move a segment that is sealed and decided upon to its file, and gives what is to
    /// be written. `None` where the segment is not open.
    pub fn close(&mut self, instance: u16, number: u32) -> Option<Arc<OpenSegment>> {
        let segment = self.segments.get_mut(&(instance, number))?;
        let Segment::Open(open) = segment else {
            return None;
        };
        let open = Arc::new(std::mem::take(open));
        *segment = Segment::Closing(Arc::clone(&open));
        Some(open)
    }

    /// Takes the file of a segment that was closed in its place. `false` where its filters rely on segments that
    /// are not in the index: then it stays in memory.
    pub fn finish(&mut self, sealed: SealedSegment<D>) -> bool {
        let SegmentKey { instance, number, .. } = *sealed.key();
        let is_grounded = self.is_grounded(&sealed);
        match self.segments.get(&(instance, number)) {
            Some(Segment::Closing(_)) if is_grounded => {
                self.seal(sealed);
                true
            }
            Some(Segment::Closing(_)) => false,
            // A purge in the meantime has taken the segment away.
            _ => true,
        }
    }

    fn open_segment(&mut self, instance: u16, number: u32) -> Option<&mut OpenSegment> {
        let segment = self.segments.entry((instance, number)).or_insert_with(|| {
            self.unsealed.insert((instance, number));
            Segment::Open(OpenSegment::default())
        });
        match segment {
            Segment::Open(open) => Some(open),
            Segment::Closing(_) | Segment::Sealed(_) => None,
        }
    }
}

/// Why it is not known what was settled.
#[derive(Debug, thiserror::Error)]
pub enum SumError {
    /// A file of the index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// More money than a total can hold.
    #[error(transparent)]
    Overflow(#[from] TotalOverflow),
}

/// Why an id cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// A file of the index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}
