//! What a segment says was settled in each millisecond. The database's pyramid ends above that, so these
//! tell what a span has of the buckets in which it begins and ends.

use std::ops::Range;

use ledger::money::TotalOverflow;
use ledger::{Cents, Processor, TimestampMs, Totals};

use crate::database::add;
use crate::pyramid;

/// Sums that are kept together: so many are moved at most when a late one comes between others.
const BLOCK_SUMS_MAX: usize = 128;

/// A [`Sum`] in a file, where all of its numbers are small.
type Narrow = [u8; 10];
/// A [`Sum`] in a file, whatever its numbers are.
type Wide = [u8; 20];

/// Bytes of a [`Sum`] in a file, at most.
pub(super) const SUM_BYTES_MAX: usize = size_of::<Wide>();

/// Adds to totals, by [`Processor::index`], what of these sums, which are in order, lies between two ticks.
pub(super) fn add_between<S: Ordered>(
    totals: &mut [Totals; 2],
    sums: &[S],
    ticks: &Range<u64>,
) -> Result<(), TotalOverflow> {
    let place = |tick| sums.partition_point(|sum| sum.moment() < Moment::first(tick));
    add_all(totals, &sums[place(ticks.start)..place(ticks.end)])
}

/// Adds sums, by processor.
fn add_all<S: Ordered>(totals: &mut [Totals; 2], sums: &[S]) -> Result<(), TotalOverflow> {
    // Of both together and of the second, because two numbers that are chosen from for each sum cost twice as
    // much. Payments of a segment fit into one total.
    let (mut both, mut second) = (Totals::default(), Totals::default());
    for sum in sums {
        let is_second = sum.moment().processor_index() == 1;
        let (count, amount) = (u64::from(sum.count()), sum.amount());
        both.count += count;
        both.amount = both.amount.checked_add(amount)?;
        second.count += if is_second { count } else { 0 };
        second.amount = second.amount.checked_add(if is_second { amount } else { Cents::ZERO })?;
    }
    let first = Totals {
        count: both.count - second.count,
        amount: Cents::new(both.amount.get() - second.amount.get()),
    };
    add(totals, [first, second])
}

/// A [`Sum`], or its bytes. The moments of bytes count from [`Layout::base`].
pub(super) trait Ordered {
    fn moment(&self) -> Moment;
    fn count(&self) -> u32;
    fn amount(&self) -> Cents;
}

/// A millisecond and a processor, as a number that sorts by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Moment(u64);

impl Moment {
    /// A tick, which is below 2^63, and a processor.
    pub fn new(tick: u64, processor: Processor) -> Self {
        Self(tick << 1 | processor.index() as u64)
    }

    /// The first moment of a tick.
    pub fn first(tick: u64) -> Self {
        Self(tick << 1)
    }

    /// Twice the tick, and one more for the second processor.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The millisecond.
    pub fn tick(self) -> u64 {
        self.0 >> 1
    }

    /// See [`Processor::index`].
    fn processor_index(self) -> usize {
        usize::from(self.0 & 1 == 1)
    }
}

/// What was settled at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sum {
    pub moment: Moment,
    /// A segment has fewer records than fit.
    count: u32,
    amount: Cents,
}

/// How the sums of a segment lie in its file: each is a moment, a number of payments and cents, of 4, 2 and 4
/// bytes if all fit, as they do but for rare payments or immense ones, and of 8, 4 and 8 otherwise. Moments count from a
/// tick. A summary takes as long as the bytes take that it reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// The tick from which moments count.
    pub base: u64,
    is_narrow: bool,
}

impl Layout {
    /// The one for these sums, which are in order.
    pub fn of(sums: impl Iterator<Item = Sum>) -> Self {
        let mut sums = sums.peekable();
        let base = sums.peek().map_or(0, |first| first.moment.0 >> 1);
        let narrow = Self { base, is_narrow: true };
        if sums.all(|sum| narrow.encode_narrow(&sum).is_some()) { narrow } else { Self::wide() }
    }

    fn wide() -> Self {
        Self { base: 0, is_narrow: false }
    }

    /// The one with sums of so many bytes that count from this tick, if there is one.
    pub fn new(sum_bytes: usize, base: u64) -> Option<Self> {
        [Self { base, is_narrow: true }, Self::wide()]
            .into_iter()
            .find(|layout| (layout.sum_bytes(), layout.base) == (sum_bytes, base))
            .filter(|_| base <= pyramid::tick(TimestampMs::MAX))
    }

    /// Bytes of a sum.
    pub fn sum_bytes(self) -> usize {
        if self.is_narrow { size_of::<Narrow>() } else { size_of::<Wide>() }
    }

    /// Hands a sum's bytes on.
    pub fn encode<T>(self, sum: &Sum, then: impl FnOnce(&[u8]) -> T) -> T {
        if let Some(bytes) = self.encode_narrow(sum).filter(|_| self.is_narrow) {
            return then(&bytes);
        }
        let mut bytes: Wide = [0; _];
        bytes[..8].copy_from_slice(&sum.moment.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&sum.count.to_le_bytes());
        bytes[12..].copy_from_slice(&sum.amount.get().to_le_bytes());
        then(&bytes)
    }

    fn encode_narrow(self, sum: &Sum) -> Option<Narrow> {
        let moment = sum.moment.0.checked_sub(Moment::first(self.base).0)?;
        let mut bytes: Narrow = [0; _];
        bytes[..4].copy_from_slice(&u32::try_from(moment).ok()?.to_le_bytes());
        bytes[4..6].copy_from_slice(&u16::try_from(sum.count).ok()?.to_le_bytes());
        bytes[6..].copy_from_slice(&u32::try_from(sum.amount.get()).ok()?.to_le_bytes());
        Some(bytes)
    }

    /// Adds to totals, by [`Processor::index`], what of the sums with these bytes lies between two ticks.
    pub fn add_between(
        self,
        totals: &mut [Totals; 2],
        bytes: &[u8],
        ticks: &Range<u64>,
    ) -> Result<(), TotalOverflow> {
        let ticks = ticks.start.saturating_sub(self.base)..ticks.end.saturating_sub(self.base);
        if self.is_narrow {
            add_between(totals, bytes.as_chunks::<{ size_of::<Narrow>() }>().0, &ticks)
        } else {
            add_between(totals, bytes.as_chunks::<{ size_of::<Wide>() }>().0, &ticks)
        }
    }

    /// Adds to totals, by [`Processor::index`], all of the sums with these bytes.
    pub fn add(self, totals: &mut [Totals; 2], bytes: &[u8]) -> Result<(), TotalOverflow> {
        if self.is_narrow {
            add_all(totals, bytes.as_chunks::<{ size_of::<Narrow>() }>().0)
        } else {
            add_all(totals, bytes.as_chunks::<{ size_of::<Wide>() }>().0)
        }
    }

    /// The moment of the first sum in these bytes.
    pub fn first(self, bytes: &[u8]) -> Option<Moment> {
        let moment = if self.is_narrow {
            bytes.first_chunk::<{ size_of::<Narrow>() }>()?.moment()
        } else {
            bytes.first_chunk::<{ size_of::<Wide>() }>()?.moment()
        };
        Some(Moment(Moment::first(self.base).0.saturating_add(moment.0)))
    }

    /// Whether the sums with these bytes are in order, each of payments and of no less than nothing.
    pub fn is_in_order(self, bytes: &[u8]) -> bool {
        fn is_in_order<S: Ordered>(sums: &[S]) -> bool {
            sums.is_sorted_by(|one, other| one.moment() < other.moment())
                && sums.iter().all(|sum| sum.count() > 0 && sum.amount() >= Cents::ZERO)
        }
        if self.is_narrow {
            is_in_order(bytes.as_chunks::<{ size_of::<Narrow>() }>().0)
        } else {
            is_in_order(bytes.as_chunks::<{ size_of::<Wide>() }>().0)
        }
    }
}

impl Ordered for Sum {
    fn moment(&self) -> Moment {
        self.moment
    }

    fn count(&self) -> u32 {
        self.count
    }

    fn amount(&self) -> Cents {
        self.amount
    }
}

impl Ordered for Narrow {
    fn moment(&self) -> Moment {
        let [first, second, third, fourth, ..] = *self;
        Moment(u32::from_le_bytes([first, second, third, fourth]).into())
    }

    fn count(&self) -> u32 {
        let [.., first, second, _, _, _, _] = *self;
        u16::from_le_bytes([first, second]).into()
    }

    fn amount(&self) -> Cents {
        let [.., first, second, third, fourth] = *self;
        Cents::new(u32::from_le_bytes([first, second, third, fourth]).into())
    }
}

impl Ordered for Wide {
    fn moment(&self) -> Moment {
        let (bytes, _) = self.split_first_chunk().expect("the number lies in the bytes");
        Moment(u64::from_le_bytes(*bytes))
    }

    fn count(&self) -> u32 {
        let (bytes, _) = self[8..].split_first_chunk().expect("the number lies in the bytes");
        u32::from_le_bytes(*bytes)
    }

    fn amount(&self) -> Cents {
        let (_, bytes) = self.split_last_chunk().expect("the number lies in the bytes");
        Cents::new(i64::from_le_bytes(*bytes))
    }
}

/// The moments of a segment that is read: sums in order, in blocks of which none is empty.
#[derive(Debug, Default)]
pub(super) struct Moments {
    blocks: Vec<Vec<Sum>>,
}

impl Moments {
    /// Adds a payment. Payments come nearly in the order of their moments.
    pub fn add(&mut self, moment: Moment, amount: Cents) -> Result<(), TotalOverflow> {
        let at = self.blocks.partition_point(|block| block[0].moment <= moment).saturating_sub(1);
        let is_last = at + 1 >= self.blocks.len();
        let new = Sum { moment, count: 1, amount };
        let Some(block) = self.blocks.get_mut(at) else {
            self.push_block(new);
            return Ok(());
        };
        match block.binary_search_by_key(&moment, |sum| sum.moment) {
            Ok(place) => {
                let sum = &mut block[place];
                (sum.count, sum.amount) = (sum.count + 1, sum.amount.checked_add(amount)?);
            }
            Err(BLOCK_SUMS_MAX) if is_last => self.push_block(new),
            Err(place) if block.len() < BLOCK_SUMS_MAX => block.insert(place, new),
            Err(place) => {
                let half = BLOCK_SUMS_MAX / 2;
                let mut second = block.split_off(half);
                if place > half {
                    second.insert(place - half, new);
                } else {
                    block.insert(place, new);
                }
                self.blocks.insert(at + 1, second);
            }
        }
        Ok(())
    }

    fn push_block(&mut self, first: Sum) {
        let mut block = Vec::with_capacity(BLOCK_SUMS_MAX);
        block.push(first);
        self.blocks.push(block);
    }

    /// Adds what was settled between two ticks.
    pub fn add_to(
        &self,
        totals: &mut [Totals; 2],
        ticks: &Range<u64>,
    ) -> Result<(), TotalOverflow> {
        let (from, to) = (Moment::first(ticks.start), Moment::first(ticks.end));
        let is_before =
            self.blocks.last().and_then(|block| block.last()).is_none_or(|last| last.moment < from);
        if is_before || self.blocks[0][0].moment >= to {
            return Ok(());
        }
        let begin = self.blocks.partition_point(|block| block[0].moment <= from).saturating_sub(1);
        for block in &self.blocks[begin..] {
            if block[0].moment >= to {
                break;
            }
            add_between(totals, block, ticks)?;
        }
        Ok(())
    }

    /// All sums in order.
    pub fn iter(&self) -> impl Iterator<Item = Sum> {
        self.blocks.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_are_in_order_and_those_between_any_ticks_are_right(
            payments in proptest::collection::vec(
                (0..2_000_u64, 0..40_u64, 0..2_usize, 1..i64::from(u32::MAX)),
                0..2_000,
            ),
            bounds in [0..2_100_u64, 0..2_100_u64],
        ) {
            // Some come in order but for a little, and some anywhere.
            let payments: Vec<_> = (0..).zip(payments).map(|(order, (any, late, processor, cents))| {
                let tick = if late == 0 { any } else { order + 40 - late };
                (tick, Processor::ALL[processor], cents)
            }).collect();
            let mut moments = Moments::default();
            let mut expected = BTreeMap::new();
            for (tick, processor, cents) in &payments {
                moments.add(Moment::new(*tick, *processor), Cents::new(*cents)).unwrap();
                let sum: &mut (u64, i64) = expected.entry((*tick, processor.index())).or_default();
                *sum = (sum.0 + 1, sum.1 + cents);
            }
            prop_assert!(moments.blocks.iter().all(|block| (1..=BLOCK_SUMS_MAX).contains(&block.len())));
            let kept: Vec<_> = moments.iter().map(|sum| {
                let moment = (sum.moment.0 >> 1, sum.moment.processor_index());
                (moment, (u64::from(sum.count), sum.amount.get()))
            }).collect();
            prop_assert_eq!(kept, expected.into_iter().collect::<Vec<_>>());
            let ticks = bounds[0].min(bounds[1])..bounds[0].max(bounds[1]);
            let (mut sums, mut naive) = ([Totals::default(); 2], [Totals::default(); 2]);
            moments.add_to(&mut sums, &ticks).unwrap();
            for (_, processor, cents) in payments.iter().filter(|(tick, ..)| ticks.contains(tick)) {
                let sum = &mut naive[processor.index()];
                *sum = sum.checked_add(Totals::of_payment(Cents::new(*cents))).unwrap();
            }
            prop_assert_eq!(sums, naive);
        }

        #[test]
        fn sums_are_read_as_they_were_written(
            base in 0..pyramid::tick(TimestampMs::MAX) - (1 << 32),
            gaps in proptest::collection::vec((1..9_u64, any::<bool>(), 1..=3_u32, 0..9_i64), 1..40),
            large in 0..5,
            at in 0..1_000_usize,
        ) {
            let mut sums = Vec::new();
            let mut tick = base;
            for (gap, is_second, count, cents) in gaps {
                let moment = Moment::new(tick, Processor::ALL[usize::from(is_second)]);
                sums.push(Sum { moment, count, amount: Cents::new(cents) });
                tick += gap;
            }
            let at = at % sums.len();
            let mut is_narrow = false;
            match large {
                0 => sums[at].count = 1 << 16,
                1 => sums[at].amount = Cents::new(1 << 32),
                2 => {
                    let moment = Moment::first(base + (1 << 31));
                    sums.push(Sum { moment, ..sums[at] });
                }
                // The largest that fit.
                3 => {
                    (sums[at].count, sums[at].amount) = (u16::MAX.into(), Cents::new(u32::MAX.into()));
                    let moment = Moment::new(base + (1 << 31) - 1, Processor::ALL[1]);
                    sums.push(Sum { moment, ..sums[at] });
                    is_narrow = true;
                }
                _ => is_narrow = true,
            }
            let layout = Layout::of(sums.iter().copied());
            prop_assert_eq!(layout.is_narrow, is_narrow);
            prop_assert_eq!(Layout::new(layout.sum_bytes(), layout.base), Some(layout));
            let mut bytes = Vec::new();
            for sum in &sums {
                layout.encode(sum, |sum| bytes.extend_from_slice(sum));
            }
            prop_assert!(layout.is_in_order(&bytes));
            for (bytes, sum) in bytes.chunks(layout.sum_bytes()).zip(&sums) {
                prop_assert_eq!(layout.first(bytes), Some(sum.moment));
                let mut totals = [Totals::default(); 2];
                let tick = sum.moment.0 >> 1;
                layout.add_between(&mut totals, bytes, &(tick..tick + 1)).unwrap();
                let expected = Totals { count: sum.count.into(), amount: sum.amount };
                prop_assert_eq!(totals[sum.moment.processor_index()], expected);
                for other in [0..tick, tick + 1..u64::MAX >> 1] {
                    let mut none = [Totals::default(); 2];
                    layout.add_between(&mut none, bytes, &other).unwrap();
                    prop_assert_eq!(none, [Totals::default(); 2]);
                }
            }
        }
    }

    #[test]
    fn there_are_two_layouts() {
        for (sum_bytes, base, is_one) in [
            (10, 0, true),
            (10, 7, true),
            (20, 0, true),
            (20, 7, false),
            (0, 0, false),
            (11, 0, false),
        ] {
            assert_eq!(Layout::new(sum_bytes, base).is_some(), is_one, "{sum_bytes} from {base}");
        }
    }
}
