//! What a segment says was settled in each millisecond. The database's pyramid ends above that, so these
//! tell what a span has of the buckets in which it begins and ends.

use std::ops::Range;

use ledger::money::TotalOverflow;
use ledger::{Cents, Processor, Totals};

/// Sums that are kept together: so many are moved at most when a late one comes between others.
const BLOCK_SUMS_MAX: usize = 128;

/// Bytes of a [`Sum`] in a file.
pub(super) const SUM_BYTES: usize = 20;
/// A [`Sum`] in a file.
pub(super) type SumBytes = [u8; SUM_BYTES];

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
    for (total, added) in totals.iter_mut().zip([first, second]) {
        *total = total.checked_add(added)?;
    }
    Ok(())
}

/// A [`Sum`], or its bytes.
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

impl Sum {
    /// Its bytes, in which every number is little endian.
    pub fn encode(&self) -> SumBytes {
        let mut bytes = [0; SUM_BYTES];
        bytes[..8].copy_from_slice(&self.moment.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.amount.get().to_le_bytes());
        bytes
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

impl Ordered for SumBytes {
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
        fn a_sum_is_read_as_it_was_written(tick in 0..u64::MAX / 2, count: u32, cents: i64) {
            for processor in Processor::ALL {
                let moment = Moment::new(tick, processor);
                let sum = Sum { moment, count, amount: Cents::new(cents) };
                let bytes = sum.encode();
                let read = Sum { moment: bytes.moment(), count: bytes.count(), amount: bytes.amount() };
                prop_assert_eq!(read, sum);
                prop_assert_eq!((moment.0 >> 1, moment.processor_index()), (tick, processor.index()));
            }
        }
    }
}
