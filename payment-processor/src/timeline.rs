//! Totals by time, so that a sum over a range never looks at every payment.
//!
//! A pyramid of buckets: one per millisecond that has payments, above them one per 1,024
//! milliseconds, above those one per 1,024 seconds or so. A range is the sum of whole buckets as
//! high up as possible and of a rest at either end, so it visits at most some 2,000 buckets a level
//! however long it is and however many payments it holds.

use std::collections::BTreeMap;

use ledger::{Cents, RangeMs, TimestampMs, Totals};

/// Buckets in a bucket of the next level.
const BUCKETS_PER_BUCKET: i64 = 1024;

/// Levels of buckets. The highest covers 17 minutes, of which a year has 30,000.
const LEVELS_COUNT: usize = 3;

/// Totals of payments by their moment.
#[derive(Debug, Default)]
pub struct Timeline {
    /// The lowest level first. A bucket's number is that of its first bucket below, divided by
    /// [`BUCKETS_PER_BUCKET`] and rounded down; on the lowest level it is the millisecond.
    levels: [BTreeMap<i64, Totals>; LEVELS_COUNT],
}

impl Timeline {
    /// Counts a payment in.
    pub fn add(&mut self, at: TimestampMs, amount: Cents) {
        let mut bucket = at.get();
        for level in &mut self.levels {
            let totals = level.entry(bucket).or_default();
            *totals = together(*totals, Totals::of_payment(amount));
            bucket = bucket.div_euclid(BUCKETS_PER_BUCKET);
        }
    }

    /// The totals of the payments in a range, both of its ends included.
    #[must_use]
    pub fn sum(&self, range: RangeMs) -> Totals {
        let mut sum = Totals::default();
        add_buckets(&self.levels, range.from.get(), range.to.get(), &mut sum);
        sum
    }
}

/// Adds the buckets `first` to `last` of the lowest of these levels.
fn add_buckets(levels: &[BTreeMap<i64, Totals>], first: i64, last: i64, sum: &mut Totals) {
    let Some((lowest, higher)) = levels.split_first() else {
        return;
    };
    // `BTreeMap::range` panics where the start is after the end.
    let mut add_range = |first: i64, last: i64| {
        if first <= last {
            lowest.range(first..=last).for_each(|(_, totals)| *sum = together(*sum, *totals));
        }
    };
    let first_whole =
        first.div_euclid(BUCKETS_PER_BUCKET) + i64::from(first.rem_euclid(BUCKETS_PER_BUCKET) != 0);
    let last_whole = (last + 1).div_euclid(BUCKETS_PER_BUCKET) - 1;
    if higher.is_empty() || first_whole > last_whole {
        add_range(first, last);
        return;
    }
    add_range(first, first_whole * BUCKETS_PER_BUCKET - 1);
    add_range((last_whole + 1) * BUCKETS_PER_BUCKET, last);
    add_buckets(higher, first_whole, last_whole, sum);
}

/// Both together.
///
/// It takes 900 million payments of the largest amount to overflow; their ids alone would need more
/// memory than the process can have.
pub fn together(one: Totals, other: Totals) -> Totals {
    one.checked_add(other).expect("memory ends before totals do")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(from: i64, to: i64) -> RangeMs {
        RangeMs { from: TimestampMs::clamped(from), to: TimestampMs::clamped(to) }
    }

    fn timeline(payments: &[(i64, i64)]) -> Timeline {
        let mut timeline = Timeline::default();
        for &(at, cents) in payments {
            timeline.add(TimestampMs::clamped(at), Cents::new(cents));
        }
        timeline
    }

    #[test]
    fn both_ends_of_a_range_are_inside() {
        let timeline = timeline(&[(999, 1), (1000, 10), (2000, 100), (2001, 1000)]);
        let sum = timeline.sum(range(1000, 2000));
        assert_eq!((sum.count, sum.amount), (2, Cents::new(110)));
        assert_eq!(timeline.sum(range(1000, 1000)).count, 1);
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_empty() {
        let timeline = timeline(&[(1000, 10), (5_000_000, 10)]);
        assert_eq!(timeline.sum(range(1001, 1000)), Totals::default());
        assert_eq!(timeline.sum(range(9_000_000, 0)), Totals::default());
    }

    #[test]
    fn all_time_holds_all_payments_also_those_before_1970() {
        let ends = [(TimestampMs::MIN.get(), 1), (TimestampMs::MAX.get(), 2)];
        let timeline = timeline(&[ends[0], (-1, 4), (0, 8), ends[1]]);
        let sum = timeline.sum(RangeMs::ALL);
        assert_eq!((sum.count, sum.amount), (4, Cents::new(15)));
        assert_eq!(timeline.sum(range(i64::MIN, -1)).count, 2);
    }

    proptest! {
        #[test]
        fn a_sum_over_a_range_is_the_naive_one(
            payments in prop::collection::vec((-3_000_000i64..6_000_000, 1i64..10_000), 0..300),
            from in -4_000_000i64..7_000_000,
            length in prop_oneof![-10i64..3000, 0i64..8_000_000],
        ) {
            let to = from + length;
            let mut naive = Totals::default();
            for &(at, cents) in &payments {
                if from <= at && at <= to {
                    naive = together(naive, Totals::of_payment(Cents::new(cents)));
                }
            }
            prop_assert_eq!(timeline(&payments).sum(range(from, to)), naive);
        }

        #[test]
        fn a_bound_on_a_payment_or_on_the_edge_of_a_bucket_counts_it_once(
            bucket in -3i64..3,
            offset in -2i64..3,
            level in 0u32..3,
        ) {
            let at = bucket * BUCKETS_PER_BUCKET.pow(level) + offset;
            let timeline = timeline(&[(at, 7)]);
            prop_assert_eq!(timeline.sum(range(at, at)).count, 1);
            prop_assert_eq!(timeline.sum(range(at - 5_000_000, at)).count, 1);
            prop_assert_eq!(timeline.sum(range(at, at + 5_000_000)).count, 1);
            prop_assert_eq!(timeline.sum(range(at - 5_000_000, at - 1)).count, 0);
            prop_assert_eq!(timeline.sum(range(at + 1, at + 5_000_000)).count, 0);
        }
    }
}
