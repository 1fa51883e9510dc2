//! The pyramid of time buckets: on level 0 each is a millisecond, and on each level above sixteen buckets of
//! the level below. The database keeps the upper levels, and the index tells the rest. What lies before a
//! moment is, on each level that is kept, at most fifteen parts of one bucket, so that what is read there
//! grows neither with the length of a span nor with the number of payments. As a bucket must be the sum of its
//! parts, each answer can be checked on its way down.
//!
//! Time is counted in ticks: milliseconds since [`TimestampMs::MIN`], never negative.

use std::ops::Range;

use ledger::TimestampMs;

/// Buckets of a level that make one bucket of the level above: its parts.
///
/// Sixteen keeps both sides cheap: a payment is added to one bucket on each level that is kept, which a
/// batch of payments shares, and a summary reads one bucket with its parts at each end of each level.
pub const PARTS_COUNT: usize = 16;

const FANOUT: u64 = PARTS_COUNT as u64;

/// Levels, the bottom included. One bucket of the top level spans 49.7 days, so that ten years of
/// payments are 74 of them; empty buckets do not exist and cost nothing.
pub const LEVELS_COUNT: u8 = 9;

/// The lowest level whose buckets the database keeps. Their parts are 256 ms.
pub const BOTTOM_LEVEL: u8 = 3;

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

/// The ticks of a bucket on this level.
#[must_use]
pub fn ticks(bucket: u64, level: u8) -> Range<u64> {
    let length = FANOUT.pow(u32::from(level));
    bucket * length..(bucket + 1) * length
}

/// Which of the parts of its bucket on this level a tick belongs to, from 0 on.
///
/// # Panics
/// The level is 0, whose buckets have no parts.
#[must_use]
pub fn part(tick: u64, level: u8) -> usize {
    usize::try_from(bucket(tick, level - 1) % FANOUT).expect("a bucket has few parts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_one_of_the_parts_of_the_one_above_it() {
        for tick in [0, 15, 16, 1_752_580_800_123, tick(TimestampMs::MAX)] {
            for level in 1..LEVELS_COUNT {
                let below = bucket(tick, level) * FANOUT + part(tick, level) as u64;
                assert_eq!(below, bucket(tick, level - 1));
            }
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
