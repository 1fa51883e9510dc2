//! What the file of a sealed segment says was settled in each millisecond, as far as that is in memory: the sums lie in
//! the file in blocks, and of each block it is known what lies before it. So a span of any length is read in two
//! blocks at most, those in which it begins and ends.
//!
//! A part of the database's bottom buckets that has at least [`SUMS_COUNT_MIN`] sums ends with a block: what a summary
//! asks for begins or ends with such a part, and where payments are dense this end then need not be read. Where they are
//! rare a block goes on over several parts, so that a sum takes no more than 2 bytes of memory. The file knows nothing
//! of blocks; they are cut as it is checked, and the last one of each piece that is checked at a time may be smaller.

use std::ops::Range;

use ledger::{Cents, TimestampMs, Totals};

use super::moments::{Layout, Moment, SUM_BYTES_MAX};
use crate::pyramid::{self, BOTTOM_LEVEL};

/// Sums of a block at most.
const SUMS_COUNT_MAX: usize = 48;

/// Sums after which a block may end.
const SUMS_COUNT_MIN: usize = 24;

/// Bytes of a block at most.
pub(super) const SUMS_BLOCK_BYTES_MAX: usize = SUMS_COUNT_MAX * SUM_BYTES_MAX;

/// Sums that are read together.
#[derive(Clone, Copy, Debug)]
struct SumsBlock {
    /// The moments of its first and its last sum.
    first: Moment,
    last: Moment,
    /// What the blocks before it have, by [`ledger::Processor::index`]. A segment has fewer records than fit.
    cents_before: [i64; 2],
    counts_before: [u32; 2],
    /// Which sum its first one is.
    place: u32,
    /// CRC-32C of its bytes.
    checksum: u32,
}

impl SumsBlock {
    fn is_within(&self, from: Moment, to: Moment) -> bool {
        self.first >= from && self.last < to
    }
}

/// The sums of a file that was checked.
pub(super) struct Sums {
    /// Where they begin in the file.
    place: u64,
    /// How they lie there.
    pub layout: Layout,
    /// None is empty.
    blocks: Box<[SumsBlock]>,
    count: u32,
    settled: [Totals; 2],
}

/// The bytes of a block, as they were when the file was checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct SumsBytes {
    /// Where they begin in the file.
    pub place: u64,
    /// How many they are.
    pub count: usize,
    /// Their CRC-32C.
    pub checksum: u32,
}

impl Sums {
    /// All together, by [`ledger::Processor::index`].
    pub fn settled(&self) -> [Totals; 2] {
        self.settled
    }

    /// The moments of the first and the last one, if there are any.
    pub fn span(&self) -> Option<(Moment, Moment)> {
        let (first, last) = (self.blocks.first()?, self.blocks.last()?);
        Some((first.first, last.last))
    }

    /// Where they lie in the file.
    #[cfg(test)]
    pub fn bytes(&self) -> Range<usize> {
        let begin = usize::try_from(self.place).unwrap();
        begin..begin + self.count as usize * self.layout.sum_bytes()
    }

    fn bytes_of(&self, block: usize) -> SumsBytes {
        let SumsBlock { place, checksum, .. } = self.blocks[block];
        let end = self.blocks.get(block + 1).map_or(self.count, |next| next.place);
        let sum_bytes = self.layout.sum_bytes();
        SumsBytes {
            place: self.place + u64::from(place) * sum_bytes as u64,
            count: (end - place) as usize * sum_bytes,
            checksum,
        }
    }

    /// What lies between two ticks: of the blocks that do so as a whole, and the blocks that do so in part.
    pub fn between(&self, ticks: &Range<u64>) -> ([Totals; 2], [Option<SumsBytes>; 2]) {
        let (from, to) = (Moment::first(ticks.start), Moment::first(ticks.end));
        let Some((first, last)) = self.span().filter(|(first, last)| *first < to && *last >= from)
        else {
            return Default::default();
        };
        let mut begin = block_of(&self.blocks, from.max(first), last);
        // Never the last block.
        if self.blocks[begin].last < from {
            begin += 1;
        }
        let mut end =
            begin + self.blocks[begin..].iter().take_while(|block| block.first < to).count();
        let mut in_part = [None; 2];
        if begin < end && !self.blocks[begin].is_within(from, to) {
            in_part[0] = Some(self.bytes_of(begin));
            begin += 1;
        }
        if begin < end && !self.blocks[end - 1].is_within(from, to) {
            in_part[1] = Some(self.bytes_of(end - 1));
            end -= 1;
        }
        let (until, before) = (self.before(end), self.before(begin));
        let whole = [0, 1].map(|processor| Totals {
            count: until[processor].count - before[processor].count,
            amount: Cents::new(until[processor].amount.get() - before[processor].amount.get()),
        });
        (whole, in_part)
    }

    /// What the blocks before this one have, or all of them.
    fn before(&self, block: usize) -> [Totals; 2] {
        self.blocks.get(block).map_or(self.settled, |block| {
            [0, 1].map(|processor| Totals {
                count: block.counts_before[processor].into(),
                amount: Cents::new(block.cents_before[processor]),
            })
        })
    }
}

/// Makes blocks of sums that are read one piece after the other.
pub(super) struct SumsReader {
    place: u64,
    layout: Layout,
    blocks: Vec<SumsBlock>,
    count: u32,
    settled: [Totals; 2],
}

impl SumsReader {
    /// For sums that begin at this place.
    pub fn new(place: u64, layout: Layout) -> Self {
        Self { place, layout, blocks: Vec::new(), count: 0, settled: Default::default() }
    }

    /// Takes in the next of them. `None` if they are none that were ever written, in order.
    pub fn read(&mut self, mut bytes: &[u8]) -> Option<()> {
        let end = Moment::first(pyramid::tick(TimestampMs::MAX) + 1);
        let last_before = self.blocks.last().map(|block| block.last);
        if self.layout.first(bytes) <= last_before || !self.layout.is_in_order(bytes) {
            return None;
        }
        while !bytes.is_empty() {
            let count = self.block_count(bytes);
            let (block, rest) = bytes.split_at(count * self.layout.sum_bytes());
            let last = block.rchunks(self.layout.sum_bytes()).next()?;
            bytes = rest;
            self.blocks.push(SumsBlock {
                first: self.layout.first(block)?,
                last: self.layout.first(last).filter(|last| *last < end)?,
                cents_before: self.settled.map(|totals| totals.amount.get()),
                counts_before: [narrow(self.settled[0].count)?, narrow(self.settled[1].count)?],
                place: self.count,
                checksum: crc32c::crc32c(block),
            });
            self.count = self.count.checked_add(u32::try_from(count).ok()?)?;
            self.layout.add(&mut self.settled, block).ok()?;
        }
        Some(())
    }

    /// How many of these sums make a block.
    fn block_count(&self, bytes: &[u8]) -> usize {
        let sum_bytes = self.layout.sum_bytes();
        let part = |place: usize| {
            let moment = self.layout.first(&bytes[place * sum_bytes..]);
            moment.map(|moment| pyramid::bucket(moment.tick(), BOTTOM_LEVEL - 1))
        };
        let end = (bytes.len() / sum_bytes).min(SUMS_COUNT_MAX + SUMS_COUNT_MIN);
        if end <= SUMS_COUNT_MIN {
            return end;
        }
        // Up to the end of the part that the least block ends in.
        let own = part(SUMS_COUNT_MIN - 1);
        let (mut count, mut beyond) = (SUMS_COUNT_MIN, end);
        while count < beyond {
            let middle = count + (beyond - count) / 2;
            if part(middle) == own { count = middle + 1 } else { beyond = middle }
        }
        if count <= SUMS_COUNT_MAX {
            count
        } else if count < SUMS_COUNT_MAX + SUMS_COUNT_MIN {
            // Two blocks, or what is left would be too small to end with the part.
            count / 2
        } else {
            SUMS_COUNT_MAX
        }
    }

    /// All that was read.
    pub fn finish(self) -> Sums {
        let Self { place, layout, blocks, count, settled } = self;
        Sums { place, layout, blocks: blocks.into(), count, settled }
    }
}

fn narrow(count: u64) -> Option<u32> {
    u32::try_from(count).ok()
}

/// The block that has a moment, or after which it lies before the next one: around the place where it would be if all
/// were evenly spread. The moment is not before the first block; the last one ends with `last`.
fn block_of(blocks: &[SumsBlock], moment: Moment, last: Moment) -> usize {
    let [first, moment_number, last] =
        [blocks[0].first, moment, last].map(|moment| u128::from(moment.get()));
    let guess = (moment_number - first) * blocks.len() as u128 / (last - first + 1);
    let guess =
        usize::try_from(guess).map_or(blocks.len() - 1, |guess| guess.min(blocks.len() - 1));
    let (mut low, mut high, mut step) = (guess, guess + 1, 1);
    while low > 0 && blocks[low].first > moment {
        (high, low, step) = (low, low.saturating_sub(step), step * 2);
    }
    while high < blocks.len() && blocks[high].first <= moment {
        (low, high, step) = (high, (high + step).min(blocks.len()), step * 2);
    }
    low + blocks[low..high].partition_point(|block| block.first <= moment) - 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ledger::Processor;
    use proptest::prelude::*;

    use super::*;
    use crate::index::moments::Moments;

    /// Sums of these payments, read so many at a time, and their bytes.
    fn read(payments: &[(u64, usize, i64)], sums_at_a_time: usize) -> (Sums, Vec<u8>) {
        let mut moments = Moments::default();
        for (tick, processor, cents) in payments {
            let moment = Moment::new(*tick, Processor::ALL[*processor]);
            moments.add(moment, Cents::new(*cents)).unwrap();
        }
        let layout = Layout::of(moments.iter());
        let mut bytes = Vec::new();
        for sum in moments.iter() {
            layout.encode(&sum, |sum| bytes.extend_from_slice(sum));
        }
        let mut reader = SumsReader::new(7, layout);
        for piece in bytes.chunks(sums_at_a_time * layout.sum_bytes()) {
            reader.read(piece).unwrap();
        }
        (reader.finish(), bytes)
    }

    proptest! {
        #[test]
        fn what_lies_between_two_ticks_is_told_by_blocks_and_two_of_them_read(
            gaps in proptest::collection::vec((0..12_u32, 0..2_usize, 1..1_i64 << 33), 0..1_500),
            // So many cents fit into few bytes, or need many.
            cents_end in prop::sample::select(vec![1_i64 << 16, 1 << 33]),
            bounds in [0..1_u64 << 13, 0..1_u64 << 13],
        ) {
            let mut tick = 100;
            let payments: Vec<_> = gaps.into_iter().map(|(gap, processor, cents)| {
                // Most in the millisecond of the one before, or near it.
                tick += u64::from(gap.saturating_sub(7)).pow(2);
                (tick, processor, cents % cents_end)
            }).collect();
            let (sums, bytes) = read(&payments, 100);
            let ticks = bounds[0].min(bounds[1])..bounds[0].max(bounds[1]);
            for ticks in [ticks.clone(), 0..ticks.end, ticks.start..u64::MAX >> 1] {
                let (mut totals, blocks) = sums.between(&ticks);
                for block in blocks.into_iter().flatten() {
                    let place = usize::try_from(block.place - 7).unwrap();
                    let bytes = &bytes[place..place + block.count];
                    prop_assert!(bytes.len() <= SUMS_BLOCK_BYTES_MAX);
                    prop_assert_eq!(crc32c::crc32c(bytes), block.checksum);
                    sums.layout.add_between(&mut totals, bytes, &ticks).unwrap();
                }
                let mut expected = [Totals::default(); 2];
                for (_, processor, cents) in payments.iter().filter(|(tick, ..)| ticks.contains(tick)) {
                    let payment = Totals::of_payment(Cents::new(*cents));
                    expected[*processor] = expected[*processor].checked_add(payment).unwrap();
                }
                prop_assert_eq!(totals, expected);
            }
        }

        #[test]
        fn the_block_of_a_moment_is_found_however_they_are_spread(
            gaps in proptest::collection::vec(0..50_u32, 1..200),
            beyond in 0..1_000_u64,
        ) {
            let (template, _) = read(&[(1_000, 0, 1)], 1);
            let mut firsts = vec![Moment::first(1_000)];
            for gap in gaps {
                let next = firsts[firsts.len() - 1].get() + (1 << (gap % 40));
                firsts.push(Moment::first(next / 2));
            }
            let blocks: Vec<_> =
                firsts.iter().map(|first| SumsBlock { first: *first, ..template.blocks[0] }).collect();
            let last = Moment::first(firsts[firsts.len() - 1].get() / 2 + beyond);
            let around = firsts.iter().flat_map(|first| {
                [first.get() / 2 - 1, first.get() / 2, first.get() / 2 + 1].map(Moment::first)
            });
            for moment in around.chain([last]).filter(|moment| *moment >= firsts[0]) {
                let expected = firsts.partition_point(|first| *first <= moment) - 1;
                prop_assert_eq!(block_of(&blocks, moment, last), expected);
            }
        }
    }

    #[test]
    fn blocks_end_with_a_part_of_the_bottom_buckets_unless_they_are_small() {
        // Two in each millisecond, then some, and then one in many.
        let dense = (100..1_024).flat_map(|tick| [(tick, 0, 5), (tick, 1, 5)]);
        let some =
            (4..30).flat_map(|part| (0..20 + 3 * part).map(move |tick| (256 * part + tick, 0, 5)));
        let rare = (0..1_000).map(|number| (10_000 + 300 * number, 0, 5));
        let (sums, _) =
            read(&dense.chain(some).chain(rare).collect::<Vec<_>>(), usize::MAX / SUM_BYTES_MAX);
        let counts_of = |block: usize| sums.bytes_of(block).count / sums.layout.sum_bytes();
        let mut counts = BTreeMap::<u64, usize>::new();
        for (number, block) in sums.blocks.iter().enumerate() {
            let parts = [block.first, block.last]
                .map(|moment| pyramid::bucket(moment.tick(), BOTTOM_LEVEL - 1));
            if block.last < Moment::first(30 * 256) {
                assert_eq!(parts[0], parts[1]);
                *counts.entry(parts[0]).or_default() += counts_of(number);
            }
        }
        let some = (4..30).map(|part| 20 + 3 * part);
        assert!(counts.into_values().eq([312, 512, 512, 512].into_iter().chain(some)));
        // But for the end of all.
        for number in 0..sums.blocks.len() - 1 {
            assert!((SUMS_COUNT_MIN..=SUMS_COUNT_MAX).contains(&counts_of(number)));
        }
        // Whole parts need not be read.
        let (totals, blocks) = sums.between(&(256..768));
        assert_eq!(totals, [Totals { count: 512, amount: Cents::new(5 * 512) }; 2]);
        assert!(blocks.into_iter().flatten().next().is_none());
        // Of one that is asked for in part, one block.
        let (_, blocks) = sums.between(&(256..300));
        assert_eq!(blocks.into_iter().flatten().count(), 1);
    }

    #[test]
    fn nothing_is_read_for_a_span_between_two_blocks() {
        let both = (0..30).chain(1_024..1_060).map(|tick| (tick, 0, 5)).collect::<Vec<_>>();
        let (sums, _) = read(&both, 100);
        assert_eq!(sums.blocks.len(), 2);
        for ticks in [30..1_024, 30..31, 1_023..1_024, 40..40, 1_060..2_000] {
            let (totals, blocks) = sums.between(&ticks);
            assert_eq!(totals, [Totals::default(); 2]);
            assert!(blocks.into_iter().flatten().next().is_none(), "{ticks:?}");
        }
    }

    #[test]
    fn pieces_that_are_not_in_order_are_not_read() {
        let payments: Vec<_> = (0..40).map(|tick| (1_000 + tick, 0, 5)).collect();
        let (sums, bytes) = read(&payments, 100);
        let sum_bytes = sums.layout.sum_bytes();
        let (first, second) = bytes.split_at(20 * sum_bytes);
        let mut reader = SumsReader::new(7, sums.layout);
        assert!(reader.read(second).is_some());
        assert!(reader.read(first).is_none(), "earlier");
        let mut reader = SumsReader::new(7, sums.layout);
        assert!(reader.read(first).is_some());
        assert!(reader.read(&bytes[19 * sum_bytes..]).is_none(), "one twice");
        assert!(reader.read(second).is_some());
        assert_eq!(reader.finish().settled(), sums.settled());
    }
}
