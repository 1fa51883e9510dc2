//! The pyramid of time buckets: totals by millisecond at the bottom, and by sixteen buckets of the
//! level below on each level above. Any span of time is covered by few runs of buckets, so the cost
//! of a summary grows neither with the length of the span nor with the number of payments.
//!
//! Time is counted in ticks: milliseconds since [`TimestampMs::MIN`], never negative.

use std::ops::Range;

use ledger::{RangeMs, TimestampMs};

/// Buckets of a level that make one bucket of the level above.
///
/// Sixteen keeps both sides cheap: a payment is added to one bucket on each of 9 levels, which a
/// batch of payments shares, and a summary reads at most 15 buckets at each end of each level.
const FANOUT: u64 = 16;

/// Levels, the bottom included. One bucket of the top level spans 49.7 days, so that ten years of
/// payments are 74 of them; empty buckets do not exist and cost nothing.
pub const LEVELS_COUNT: u8 = 9;

/// A run of buckets on one level.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// The level, 0 at the bottom.
    pub level: u8,
    /// The numbers of the buckets.
    pub buckets: Range<u64>,
}

/// The tick of a moment.
#[must_use]
pub fn tick(moment: TimestampMs) -> u64 {
    u64::try_from(moment.since(TimestampMs::MIN)).expect("no moment is before the first")
}

/// The moment of a tick.
#[must_use]
pub fn moment(tick: u64) -> Option<TimestampMs> {
    let milliseconds = i64::try_from(tick).ok()?.checked_add(TimestampMs::MIN.get())?;
    TimestampMs::new(milliseconds)
}

/// The number of the bucket on this level that a tick belongs to.
#[must_use]
pub fn bucket(tick: u64, level: u8) -> u64 {
    tick / FANOUT.pow(u32::from(level))
}

/// The runs of buckets that together are exactly the span, none of them overlapping.
#[must_use]
pub fn cover(range: RangeMs) -> Vec<Run> {
    let mut runs = Vec::new();
    if range.from > range.to {
        return runs;
    }
    let mut low = tick(range.from);
    let mut high = tick(range.to) + 1;
    for level in 0..LEVELS_COUNT {
        let whole = low.div_ceil(FANOUT)..high / FANOUT;
        if whole.is_empty() || level + 1 == LEVELS_COUNT {
            runs.push(Run { level, buckets: low..high });
            break;
        }
        runs.push(Run { level, buckets: low..whole.start * FANOUT });
        runs.push(Run { level, buckets: whole.end * FANOUT..high });
        (low, high) = (whole.start, whole.end);
    }
    runs.retain(|run| !run.buckets.is_empty());
    runs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn range(from: i64, to: i64) -> RangeMs {
        RangeMs { from: TimestampMs::clamped(from), to: TimestampMs::clamped(to) }
    }

    #[test]
    fn one_millisecond_is_one_bucket_at_the_bottom() {
        let runs = cover(range(1_752_580_800_123, 1_752_580_800_123));
        let tick = tick(TimestampMs::clamped(1_752_580_800_123));
        assert_eq!(runs, [Run { level: 0, buckets: tick..tick + 1 }]);
    }

    #[test]
    fn an_empty_span_has_no_runs() {
        assert!(cover(range(5, 4)).is_empty());
    }

    /// Buckets below the top level, which are all that a run can have many of.
    fn buckets_below_top(runs: &[Run]) -> u64 {
        let below_top = runs.iter().filter(|run| run.level + 1 < LEVELS_COUNT);
        below_top.map(|run| run.buckets.end - run.buckets.start).sum()
    }

    #[test]
    fn all_time_is_few_buckets() {
        assert!(buckets_below_top(&cover(RangeMs::ALL)) <= 2 * 15 * u64::from(LEVELS_COUNT));
    }

    proptest! {
        /// The runs are the span: every moment inside is in exactly one, none outside is in any.
        #[test]
        fn the_runs_are_exactly_the_span(
            from in TimestampMs::MIN.get()..=TimestampMs::MAX.get(),
            length in prop_oneof![0..2_000_i64, 0..4_000_000_000_i64, 0..300_000_000_000_000_i64],
            probe in 0..1000_u64,
        ) {
            let span = range(from, from.saturating_add(length));
            let runs = cover(span);
            let buckets = buckets_below_top(&runs);
            prop_assert!(buckets <= 2 * 15 * u64::from(LEVELS_COUNT), "{} buckets", buckets);

            let (first, last) = (tick(span.from), tick(span.to));
            let inside = first + (last - first) / 1000 * probe;
            let count = |tick: u64| {
                runs.iter().filter(|run| run.buckets.contains(&bucket(tick, run.level))).count()
            };
            for tick in [first, inside, last] {
                prop_assert_eq!(count(tick), 1);
            }
            prop_assert!(first == 0 || count(first - 1) == 0);
            prop_assert_eq!(count(last + 1), 0);
        }

        /// Totals kept in the pyramid and summed over the runs are the naive sum.
        #[test]
        fn sums_over_the_runs_are_the_naive_sums(
            moments in proptest::collection::vec(0..100_000_i64, 0..200),
            from in 0..100_000_i64,
            length in -10..100_000_i64,
        ) {
            let mut pyramid: BTreeMap<(u8, u64), u64> = BTreeMap::new();
            for ms in &moments {
                let tick = tick(TimestampMs::clamped(*ms));
                for level in 0..LEVELS_COUNT {
                    *pyramid.entry((level, bucket(tick, level))).or_default() += 1;
                }
            }
            let span = range(from, from + length);
            let summed: u64 = cover(span)
                .iter()
                .flat_map(|run| {
                    let (level, buckets) = (run.level, run.buckets.clone());
                    pyramid.range((level, buckets.start)..(level, buckets.end))
                })
                .map(|(_, count)| count)
                .sum();
            let naive = moments.iter().filter(|ms| span.contains(TimestampMs::clamped(**ms)));
            prop_assert_eq!(summed, naive.count() as u64);
        }
    }

    #[test]
    fn a_tick_leads_back_to_its_moment() {
        for moment_in in [TimestampMs::MIN, TimestampMs::clamped(0), TimestampMs::MAX] {
            assert_eq!(moment(tick(moment_in)), Some(moment_in));
        }
        assert_eq!(moment(u64::MAX), None);
    }
}
