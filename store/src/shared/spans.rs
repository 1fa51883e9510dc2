//! The levels of the roll-up, and the parts of a span of time that are read on each.
//!
//! Invariant: the parts of a span are disjoint and are the span.

use std::collections::BTreeMap;

use ledger::money::TotalOverflow;
use ledger::{RangeMs, TimestampMs, Totals};

use crate::archive::journals::Payment;

/// Milliseconds of a row, by level: a millisecond, a second, an hour. At most 2 × 1,000 and 2 × 3,600
/// rows of the first two are read for a summary, and an hour's for each hour.
const LEVEL_MS: [i64; 3] = [1, 1_000, 3_600_000];

/// Rows of a level, by the first milliseconds of the first and the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The level.
    pub level: i16,
    /// Where the first row begins.
    pub first: i64,
    /// Where the last row begins.
    pub last: i64,
}

/// A row of the roll-up: level, where it begins, and [`ledger::Processor::index`].
type Key = (i16, i64, usize);

/// The parts of a span.
#[must_use]
pub fn parts(range: RangeMs) -> Vec<Part> {
    let mut parts = Vec::new();
    split(range.from.get(), range.to.get(), LEVEL_MS.len() - 1, &mut parts);
    parts
}

/// Adds the parts of the milliseconds from one to another one, of this level and those below.
fn split(from: i64, to: i64, level: usize, parts: &mut Vec<Part>) {
    if from > to {
        return;
    }
    let size = LEVEL_MS[level];
    // The first and the last row that lie in it as a whole.
    let first = (from + size - 1).div_euclid(size) * size;
    let last = (to + 1).div_euclid(size) * size - size;
    if level > 0 && first > last {
        return split(from, to, level - 1, parts);
    }
    parts.push(Part { level: i16::try_from(level).unwrap_or(i16::MAX), first, last });
    if level > 0 {
        split(from, first - 1, level - 1, parts);
        split(last + size, to, level - 1, parts);
    }
}

/// What payments add to the rows of all levels, in the order of the table's key.
///
/// # Errors
/// A total does not fit.
pub fn rows(payments: &[Payment]) -> Result<BTreeMap<Key, Totals>, TotalOverflow> {
    let mut rows = BTreeMap::<Key, Totals>::new();
    for Payment { amount, processor, requested_at, .. } in payments {
        for (level, size) in (0..).zip(LEVEL_MS) {
            let start = start(*requested_at, size);
            let sum = rows.entry((level, start, processor.index())).or_default();
            *sum = sum.checked_add(Totals::of_payment(*amount))?;
        }
    }
    Ok(rows)
}

fn start(moment: TimestampMs, size: i64) -> i64 {
    moment.get().div_euclid(size) * size
}

#[cfg(test)]
mod tests {
    use ledger::{Cents, CorrelationId, Processor};
    use proptest::prelude::*;

    use super::*;

    fn range(from: i64, to: i64) -> RangeMs {
        RangeMs { from: TimestampMs::clamped(from), to: TimestampMs::clamped(to) }
    }

    fn payment(ms: i64, processor: Processor) -> Payment {
        Payment {
            id: CorrelationId::from_bytes([1; 16]),
            amount: Cents::new(7),
            processor,
            requested_at: TimestampMs::clamped(ms),
            accepted_at: None,
            settled_at: TimestampMs::MIN,
        }
    }

    proptest! {
        #[test]
        fn the_rows_of_a_span_have_what_was_settled_in_it(
            moments in prop::collection::vec((-9_000_000_i64..9_000_000, any::<bool>()), 0..40),
            from in -9_000_000_i64..9_000_000,
            length in 0_i64..9_000_000,
        ) {
            let side = |is_default| if is_default { Processor::Default } else { Processor::Fallback };
            let payments: Vec<_> =
                moments.iter().map(|(ms, is_default)| payment(*ms, side(*is_default))).collect();
            let rows = rows(&payments).unwrap();
            let parts = parts(range(from, from + length));
            let mut counts = [0; 2];
            for ((level, start, processor), totals) in &rows {
                let is_in = |part: &&Part| {
                    part.level == *level && (part.first..=part.last).contains(start)
                };
                // No row is read twice.
                prop_assert!(parts.iter().filter(is_in).count() <= 1);
                if parts.iter().any(|part| is_in(&part)) {
                    counts[*processor] += totals.count;
                }
            }
            for processor in Processor::ALL {
                let is_in = |payment: &&Payment| {
                    payment.processor == processor
                        && (from..=from + length).contains(&payment.requested_at.get())
                };
                let expected = payments.iter().filter(is_in).count() as u64;
                prop_assert_eq!(counts[processor.index()], expected);
            }
        }
    }

    #[test]
    fn all_time_is_hours_and_what_lies_beside_them() {
        let parts = parts(RangeMs::ALL);
        assert_eq!(parts[0].level, 2);
        assert!(parts.len() <= 5, "{parts:?}");
        assert!(parts[0].first >= TimestampMs::MIN.get());
    }

    #[test]
    fn a_millisecond_is_one_row() {
        let one = vec![Part { level: 0, first: 1234, last: 1234 }];
        assert_eq!(parts(range(1234, 1234)), one);
        assert_eq!(parts(range(5, 4)), []);
    }
}
