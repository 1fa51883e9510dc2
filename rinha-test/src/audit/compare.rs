//! Whether what was sent is what was recorded: every accepted payment once, by one processor, with
//! its amount.

use std::collections::{HashMap, HashSet};

use ledger::{Cents, CorrelationId, Processor, Totals};

use crate::books::processor::Recorded;
use crate::load::Outcome;
use crate::load::payments::Payments;

/// What a comparison by id found. Only what its name says is wrong is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ById {
    /// Payments of this run that each processor recorded, by [`Processor::index`].
    pub settled: [u64; 2],
    /// Accepted payments that nobody recorded.
    pub lost: u64,
    /// Payments that were recorded more than once.
    pub twice: u64,
    /// Payments that were recorded with another amount.
    pub altered: u64,
    /// Payments that were refused and recorded all the same.
    pub unwanted: u64,
    /// Payments that got no answer and were recorded. That is right: nobody was told otherwise.
    pub unanswered_settled: u64,
    /// Calls to processors beyond the first for a payment.
    pub attempts_more: u64,
    /// Some of the payments that are lost, recorded twice, altered or unwanted.
    pub examples: Vec<String>,
}

/// Examples that are given at most.
const EXAMPLES_MAX: usize = 5;

impl ById {
    /// Whether all is as it should be.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.lost == 0 && self.twice == 0 && self.altered == 0 && self.unwanted == 0
    }

    fn example(&mut self, what: &str, id: CorrelationId) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{id} {what}"));
        }
    }
}

/// Compares what was sent with what the processors' books list, by [`Processor::index`]. Payments
/// of others do not matter.
#[must_use]
pub fn by_id(payments: &Payments, outcomes: &[Outcome], books: [&[Recorded]; 2]) -> ById {
    let numbers: HashMap<_, _> =
        (0u32..).zip(outcomes).map(|(number, _)| (payments.id(number), number as usize)).collect();
    let mut found = ById::default();
    let mut times = vec![0u32; outcomes.len()];
    for processor in Processor::ALL {
        for recorded in books[processor.index()] {
            let Some(&number) = numbers.get(&recorded.id) else {
                continue;
            };
            times[number] += 1;
            found.settled[processor.index()] += 1;
            found.attempts_more += recorded.attempts.saturating_sub(1);
            let number = u32::try_from(number).expect("numbers are counted in 32 bits");
            if recorded.amount != payments.amount(number) {
                found.altered += 1;
                found.example("was recorded with another amount", recorded.id);
            }
        }
    }
    for (number, (outcome, times)) in (0u32..).zip(outcomes.iter().zip(times)) {
        if times > 1 {
            found.twice += 1;
            found.example("was recorded more than once", payments.id(number));
        }
        match outcome {
            Outcome::Accepted(_) if times == 0 => {
                found.lost += 1;
                found.example("was accepted and is recorded nowhere", payments.id(number));
            }
            Outcome::Refused(_) | Outcome::NotSent if times > 0 => {
                found.unwanted += 1;
                found.example("was refused and is recorded all the same", payments.id(number));
            }
            Outcome::Broken | Outcome::TimedOut if times > 0 => found.unanswered_settled += 1,
            _ => {}
        }
    }
    found
}

/// Compares what was accepted with what the processors' books list, by [`Processor::index`], where
/// the ids that were posted are not known, and the books were empty before.
#[must_use]
pub fn by_list(accepted: u64, books: [&[Recorded]; 2]) -> ById {
    let mut found = ById::default();
    let mut seen = HashSet::new();
    for processor in Processor::ALL {
        for recorded in books[processor.index()] {
            found.settled[processor.index()] += 1;
            found.attempts_more += recorded.attempts.saturating_sub(1);
            if !seen.insert(recorded.id) {
                found.twice += 1;
                found.example("was recorded more than once", recorded.id);
            }
        }
    }
    found.lost = accepted.saturating_sub(seen.len() as u64);
    found
}

/// Compares by totals alone, where the processors list nothing: all that is known is how many came to
/// their books, which is at least what was accepted and at most what was posted.
#[must_use]
pub fn by_totals(accepted: u64, posted: u64, before: Books, after: Books) -> ById {
    let settled = increase(after.processors, before.processors).map(|totals| totals.count);
    let sum: u64 = settled.iter().sum();
    let (lost, twice) = (accepted.saturating_sub(sum), sum.saturating_sub(posted));
    ById { settled, lost, twice, ..ById::default() }
}

/// What has come to totals since, by [`Processor::index`]. Books that were emptied meanwhile have no
/// more requests than before, and fewer cents.
#[must_use]
pub fn increase(after: [Totals; 2], before: [Totals; 2]) -> [Totals; 2] {
    [0, 1].map(|side: usize| Totals {
        count: after[side].count.saturating_sub(before[side].count),
        amount: Cents::new(after[side].amount.get() - before[side].amount.get()),
    })
}

/// All totals at one moment, by [`Processor::index`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// What our router says.
    pub ours: [Totals; 2],
    /// What the processors say.
    pub processors: [Totals; 2],
}

impl Books {
    /// Whether our summary says what the processors say, request for request and cent for cent.
    #[must_use]
    pub fn are_equal(&self) -> bool {
        self.ours == self.processors
    }

    /// Whether the cents are equal, whatever the requests are.
    #[must_use]
    pub fn cents_are_equal(&self) -> bool {
        [0, 1].into_iter().all(|side: usize| self.ours[side].amount == self.processors[side].amount)
    }

    /// Whether a processor has fewer payments than we say that it settled.
    #[must_use]
    pub fn processor_forgot(&self) -> bool {
        [0, 1].into_iter().any(|side: usize| self.processors[side].count < self.ours[side].count)
    }

    /// What is to be compared: the whole books, or what has come since `before` where a processor
    /// had forgotten payments even then, and the books still differ.
    #[must_use]
    pub fn to_compare(&self, before: &Self) -> Self {
        if !before.processor_forgot() || self.are_equal() {
            return *self;
        }
        Self {
            ours: increase(self.ours, before.ours),
            processors: increase(self.processors, before.processors),
        }
    }

    /// All payments that our router says were settled.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.ours.iter().map(|totals| totals.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use ledger::TimestampMs;

    use super::*;

    const ACCEPTED: Outcome = Outcome::Accepted(202);

    fn payments() -> Payments {
        Payments::new(1, None)
    }

    fn recorded(number: u32) -> Recorded {
        Recorded {
            id: payments().id(number),
            amount: payments().amount(number),
            requested_at: TimestampMs::clamped(0),
            attempts: 1,
        }
    }

    fn compare(outcomes: &[Outcome], default: &[Recorded], fallback: &[Recorded]) -> ById {
        by_id(&payments(), outcomes, [default, fallback])
    }

    #[test]
    fn each_accepted_payment_at_one_processor_is_right() {
        let foreign = Recorded { id: CorrelationId::from_bytes([1; 16]), ..recorded(0) };
        let found =
            compare(&[ACCEPTED; 3], &[recorded(0), recorded(2), foreign], &[recorded(1), foreign]);
        assert!(found.is_right(), "{found:?}");
        assert_eq!(found.settled, [2, 1]);
    }

    #[test]
    fn a_payment_that_nobody_recorded_is_lost() {
        let found = compare(&[ACCEPTED; 2], &[recorded(1)], &[]);
        assert_eq!((found.lost, found.twice), (1, 0));
        assert!(!found.is_right());
        assert!(found.examples[0].starts_with(&payments().id(0).to_string()));
    }

    #[test]
    fn a_payment_at_both_processors_or_listed_twice_is_twice() {
        for (default, fallback) in
            [(vec![recorded(0)], vec![recorded(0)]), (vec![recorded(0); 2], vec![])]
        {
            for outcome in [ACCEPTED, Outcome::TimedOut] {
                let found = compare(&[outcome], &default, &fallback);
                assert_eq!((found.lost, found.twice), (0, 1));
                assert!(!found.is_right());
            }
        }
    }

    #[test]
    fn another_amount_is_wrong() {
        let altered = Recorded { amount: Cents::new(123_456), ..recorded(0) };
        let found = compare(&[ACCEPTED], &[altered], &[]);
        assert_eq!(found.altered, 1);
        assert!(!found.is_right());
    }

    #[test]
    fn a_refused_payment_must_not_be_recorded_and_an_unanswered_one_may() {
        for outcome in [Outcome::Refused(503), Outcome::NotSent] {
            assert!(compare(&[outcome], &[], &[]).is_right());
            let found = compare(&[outcome], &[], &[recorded(0)]);
            assert_eq!(found.unwanted, 1);
            assert!(!found.is_right());
        }
        for outcome in [Outcome::Broken, Outcome::TimedOut] {
            assert!(compare(&[outcome], &[], &[]).is_right());
            let found = compare(&[outcome], &[], &[recorded(0)]);
            assert_eq!(found.unanswered_settled, 1);
            assert!(found.is_right());
        }
    }

    #[test]
    fn calls_beyond_the_first_are_counted_but_not_wrong() {
        let again = Recorded { attempts: 3, ..recorded(0) };
        let found = compare(&[ACCEPTED], &[again], &[]);
        assert_eq!(found.attempts_more, 2);
        assert!(found.is_right());
    }

    #[test]
    fn books_are_equal_only_request_for_request_and_cent_for_cent() {
        let one = Totals { count: 1, amount: Cents::new(10) };
        let equal = Books { ours: [one; 2], processors: [one; 2] };
        assert!(equal.are_equal() && equal.cents_are_equal());
        let mut more = equal;
        more.ours[1].count = 2;
        assert!(!more.are_equal() && more.cents_are_equal());
        let swapped =
            Books { ours: [one, Totals::default()], processors: [Totals::default(), one] };
        assert!(!swapped.are_equal() && !swapped.cents_are_equal());
        assert_eq!(more.settled(), 3);
    }

    #[test]
    fn books_that_differed_before_are_compared_by_what_has_come_since() {
        let totals = |count: i64| {
            let count_unsigned = u64::try_from(count).unwrap();
            [Totals { count: count_unsigned, amount: Cents::new(count * 10) }, Totals::default()]
        };
        let books = |ours, processors| Books { ours: totals(ours), processors: totals(processors) };
        // The processors have forgotten five.
        let before = books(7, 2);
        assert!(books(9, 4).to_compare(&before).are_equal());
        assert!(!books(9, 5).to_compare(&before).are_equal());
        // Ours were only late.
        assert!(books(12, 12).to_compare(&before).are_equal());
        // Neither books that were equal have an excuse, nor those that have too much.
        assert!(!books(4, 9).to_compare(&books(2, 7)).are_equal());
        assert!(!books(9, 4).to_compare(&books(5, 5)).are_equal());
    }

    #[test]
    fn without_ids_or_lists_losses_and_repetitions_are_told_from_what_there_is() {
        let found = by_list(3, [&[recorded(0), recorded(1)], &[recorded(1)]]);
        assert_eq!((found.lost, found.twice, found.settled), (1, 1, [2, 1]));
        assert!(by_list(2, [&[recorded(0)], &[recorded(1)]]).is_right());
        let books = |count| Books {
            processors: [Totals { count, amount: Cents::new(1) }, Totals::default()],
            ..Books::default()
        };
        assert_eq!(by_totals(3, 3, books(10), books(12)).lost, 1);
        assert_eq!(by_totals(1, 1, books(10), books(12)).twice, 1);
        assert!(by_totals(1, 2, books(10), books(12)).is_right());
    }
}
