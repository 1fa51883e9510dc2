//! The books: every payment that was recorded, by its id, and their totals.
//!
//! An id is recorded once and never changes; every further attempt at it is counted and refused.
//! The totals by time and over all time are those of exactly the payments that are recorded by id.

use std::collections::BTreeMap;
use std::ops::Bound;

use ledger::{Cents, CorrelationId, RangeMs, TimestampMs, Totals};

use crate::timeline::{Timeline, together};

/// A payment as it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Whose payment it is.
    pub id: CorrelationId,
    /// How much, already rounded to whole cents.
    pub amount: Cents,
    /// The caller's own time of the payment, by which it is summed.
    pub requested_at: TimestampMs,
}

/// What the books hold of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The payment as it first arrived.
    pub payment: Payment,
    /// How often it was to be recorded: 1, and 1 for each time that it was refused as known.
    pub attempts_count: u32,
}

/// What came of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Recording {
    /// It is in the books now.
    Recorded,
    /// Its id was there before; the books keep what they had.
    Known,
}

#[derive(Debug)]
struct Entry {
    amount: Cents,
    requested_at: TimestampMs,
    attempts_count: u32,
}

/// All recorded payments.
#[derive(Debug, Default)]
pub struct Books {
    /// By the id's bytes as a number, which orders as the text does and compares faster. A sorted
    /// map pages in order, and never stops to grow as a hash map does.
    by_id: BTreeMap<u128, Entry>,
    by_time: Timeline,
    totals: Totals,
}

impl Books {
    /// Records a payment, unless its id is known.
    pub fn record(&mut self, payment: Payment) -> Recording {
        use std::collections::btree_map::Entry::{Occupied, Vacant};

        match self.by_id.entry(key(payment.id)) {
            Occupied(mut known) => {
                let attempts_count = &mut known.get_mut().attempts_count;
                *attempts_count = attempts_count.saturating_add(1);
                Recording::Known
            }
            Vacant(place) => {
                place.insert(Entry {
                    amount: payment.amount,
                    requested_at: payment.requested_at,
                    attempts_count: 1,
                });
                self.by_time.add(payment.requested_at, payment.amount);
                self.totals = together(self.totals, Totals::of_payment(payment.amount));
                Recording::Recorded
            }
        }
    }

    /// What is recorded under this id.
    #[must_use]
    pub fn find(&self, id: CorrelationId) -> Option<Record> {
        self.by_id.get_key_value(&key(id)).map(|(key, entry)| record(*key, entry))
    }

    /// The first records after this id, in the order of ids.
    #[must_use]
    pub fn page(&self, after: Option<CorrelationId>, limit: usize) -> Vec<Record> {
        let start = after.map_or(Bound::Unbounded, |id| Bound::Excluded(key(id)));
        self.by_id
            .range((start, Bound::Unbounded))
            .take(limit)
            .map(|(key, entry)| record(*key, entry))
            .collect()
    }

    /// The totals of the payments in a range of their own times.
    #[must_use]
    pub fn sum(&self, range: RangeMs) -> Totals {
        self.by_time.sum(range)
    }

    /// The totals of all payments.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.totals
    }
}

fn key(id: CorrelationId) -> u128 {
    u128::from_be_bytes(id.to_bytes())
}

fn record(key: u128, entry: &Entry) -> Record {
    Record {
        payment: Payment {
            id: CorrelationId::from_bytes(key.to_be_bytes()),
            amount: entry.amount,
            requested_at: entry.requested_at,
        },
        attempts_count: entry.attempts_count,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payment(id: u128, cents: i64, at: i64) -> Payment {
        Payment {
            id: CorrelationId::from_bytes(id.to_be_bytes()),
            amount: Cents::new(cents),
            requested_at: TimestampMs::clamped(at),
        }
    }

    #[test]
    fn a_known_id_is_refused_and_counted_and_keeps_its_first_values() {
        let mut books = Books::default();
        assert_eq!(books.record(payment(7, 1990, 5)), Recording::Recorded);
        assert_eq!(books.record(payment(7, 1, 6)), Recording::Known);
        assert_eq!(books.record(payment(7, 1990, 5)), Recording::Known);
        let record = books.find(payment(7, 0, 0).id).unwrap();
        assert_eq!(record.payment, payment(7, 1990, 5));
        assert_eq!(record.attempts_count, 3);
        assert_eq!(books.totals().count, 1);
        assert_eq!(books.totals().amount, Cents::new(1990));
    }

    #[test]
    fn an_id_that_was_never_recorded_is_not_found() {
        let mut books = Books::default();
        let _ = books.record(payment(7, 1990, 5));
        assert_eq!(books.find(payment(8, 0, 0).id), None);
    }

    #[test]
    fn a_page_begins_after_an_id_also_where_that_id_is_not_recorded() {
        let mut books = Books::default();
        for id in [u128::MAX, 5, 1, 3] {
            let _ = books.record(payment(id, 1, 1));
        }
        let page = |after: Option<u128>, limit| {
            let records = books.page(after.map(|id| payment(id, 0, 0).id), limit);
            records.iter().map(|record| key(record.payment.id)).collect::<Vec<_>>()
        };
        assert_eq!(page(None, 2), [1, 3]);
        assert_eq!(page(Some(3), 2), [5, u128::MAX]);
        assert_eq!(page(Some(2), 2), [3, 5]);
        assert_eq!(page(Some(u128::MAX), 2), []);
        assert_eq!(page(None, 0), []);
    }

    proptest! {
        #[test]
        fn totals_and_pages_agree_with_a_naive_list(
            attempts in prop::collection::vec((0u128..200, 1i64..10_000, 0i64..5_000), 0..400),
            from in 0i64..5_000,
            to in 0i64..5_000,
            page_size in 1usize..50,
        ) {
            let mut books = Books::default();
            let mut naive: Vec<Record> = Vec::new();
            for (id, cents, at) in attempts {
                let payment = payment(id, cents, at);
                let known = naive.iter_mut().find(|record| record.payment.id == payment.id);
                if let Some(known) = known {
                    known.attempts_count += 1;
                    prop_assert_eq!(books.record(payment), Recording::Known);
                } else {
                    naive.push(Record { payment, attempts_count: 1 });
                    prop_assert_eq!(books.record(payment), Recording::Recorded);
                }
            }

            let mut inside = Totals::default();
            let mut all = Totals::default();
            for Record { payment, .. } in &naive {
                all = together(all, Totals::of_payment(payment.amount));
                if (from..=to).contains(&payment.requested_at.get()) {
                    inside = together(inside, Totals::of_payment(payment.amount));
                }
            }
            let range = RangeMs {
                from: TimestampMs::clamped(from),
                to: TimestampMs::clamped(to),
            };
            prop_assert_eq!(books.sum(range), inside);
            prop_assert_eq!(books.totals(), all);
            prop_assert_eq!(books.sum(RangeMs::ALL), all);

            let mut paged: Vec<Record> = Vec::new();
            for _ in 0..=naive.len().div_ceil(page_size) {
                paged.extend(books.page(paged.last().map(|record| record.payment.id), page_size));
            }
            naive.sort_by_key(|record| record.payment.id);
            prop_assert_eq!(paged, naive);
        }
    }
}
