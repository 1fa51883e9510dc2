//! Summaries over random windows, kept while payments flow and compared at the end with what the
//! processors' own lists say about each window.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use ledger::clock::{self, Monotonic};
use ledger::{Cents, Processor, RangeMs, TimestampMs, Totals};

use crate::books::processor::Recorded;
use crate::books::router::Router;

/// Windows that are asked about at the end, at the very moments of payments.
const EDGES: usize = 500;

/// Examples that are kept of answers that are wrong.
const EXAMPLES_MAX: usize = 5;

/// A window and what the router said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The window.
    pub range: RangeMs,
    /// The totals by [`Processor::index`], or why there was no answer.
    pub answer: Result<[Totals; 2], String>,
}

/// What came of all questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoundsFound {
    /// Questions.
    pub asked: u64,
    /// Those that were answered otherwise than the processors' lists say, or not at all.
    pub wrong: u64,
    /// Some of these.
    pub examples: Vec<String>,
}

/// Asks about random windows from `start` until `stop`, so many a second.
#[must_use]
pub fn ask(
    router: &Router,
    start: TimestampMs,
    per_second: f64,
    age: Duration,
    seed: u64,
    stop: &AtomicBool,
) -> Vec<Answered> {
    let mut random = Rng::with_seed(seed);
    let mut answered = Vec::new();
    let clock = Monotonic::start();
    let interval = Duration::from_secs_f64(1.0 / per_second);
    let mut next = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(next.saturating_sub(clock.elapsed()).min(Duration::from_millis(100)));
        if clock.elapsed() < next {
            continue;
        }
        next += interval;
        let last = clock::now().get() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        // A little before the start, so that windows begin outside as well.
        if let Some(range) = draw(&mut random, start.get() - 500, last) {
            answered.push(question(router, range));
        }
    }
    answered
}

/// Asks about windows whose bounds are the moments of payments, or a millisecond beside them.
#[must_use]
pub fn ask_at_edges(router: &Router, lists: [&[Recorded]; 2], seed: u64) -> Vec<Answered> {
    let all: Vec<_> =
        lists.iter().copied().flatten().map(|recorded| recorded.requested_at).collect();
    let mut random = Rng::with_seed(seed);
    let mut moment = || {
        let at = all[random.usize(..all.len())].get();
        TimestampMs::clamped(at + random.i64(-1..=1))
    };
    let mut answered = Vec::new();
    while !all.is_empty() && answered.len() < EDGES {
        let (one, other) = (moment(), moment());
        let range = RangeMs { from: one.min(other), to: one.max(other) };
        answered.push(question(router, range));
        // And a single millisecond.
        answered.push(question(router, RangeMs { from: one, to: one }));
    }
    answered
}

fn question(router: &Router, range: RangeMs) -> Answered {
    Answered { range, answer: router.summary(range).map_err(|error| error.to_string()) }
}

/// A window between two moments: of any length, and often a short one.
fn draw(random: &mut Rng, first: i64, last: i64) -> Option<RangeMs> {
    if first >= last {
        return None;
    }
    let one = random.i64(first..=last);
    let length = match random.u8(0..4) {
        0 => random.i64(0..=3),
        1 => random.i64(0..=300),
        _ => random.i64(0..=last - first),
    };
    let at = TimestampMs::clamped;
    Some(RangeMs { from: at(one), to: at((one + length).min(last)) })
}

/// Compares answers with the lists, by [`Processor::index`].
#[must_use]
pub fn compare(answered: &[Answered], lists: [&[Recorded]; 2]) -> BoundsFound {
    let models = lists.map(Model::new);
    let mut found = BoundsFound::default();
    for Answered { range, answer } in answered {
        found.asked += 1;
        let expected = Processor::ALL.map(|processor| models[processor.index()].totals(*range));
        let told = match answer {
            Ok(totals) if *totals == expected => continue,
            Ok(totals) => format!("{totals:?}"),
            Err(error) => error.clone(),
        };
        found.wrong += 1;
        if found.examples.len() < EXAMPLES_MAX {
            found.examples.push(format!(
                "from {} to {}: the processors' lists say {expected:?}, the router {told}",
                range.from, range.to
            ));
        }
    }
    found
}

/// What a processor's list says about any window: its payments in the order of time, each with the
/// sum of all before.
struct Model {
    moments: Vec<TimestampMs>,
    /// One more than moments.
    cents_before: Vec<i64>,
}

impl Model {
    fn new(list: &[Recorded]) -> Self {
        let mut sorted: Vec<_> = list.iter().map(|r| (r.requested_at, r.amount.get())).collect();
        sorted.sort_unstable();
        let mut sum = 0;
        let sums = sorted.iter().map(|(_, cents)| {
            sum += cents;
            sum
        });
        let cents_before = std::iter::once(0).chain(sums).collect();
        Self { moments: sorted.into_iter().map(|(at, _)| at).collect(), cents_before }
    }

    fn totals(&self, range: RangeMs) -> Totals {
        let first = self.moments.partition_point(|at| *at < range.from);
        let end = self.moments.partition_point(|at| *at <= range.to).max(first);
        let amount = Cents::new(self.cents_before[end] - self.cents_before[first]);
        Totals { count: (end - first) as u64, amount }
    }
}

#[cfg(test)]
mod tests {
    use ledger::CorrelationId;

    use super::*;

    fn recorded(at: i64, cents: i64) -> Recorded {
        Recorded {
            id: CorrelationId::from_bytes([1; 16]),
            amount: Cents::new(cents),
            requested_at: TimestampMs::clamped(at),
            attempts: 1,
        }
    }

    fn range(from: i64, to: i64) -> RangeMs {
        RangeMs { from: TimestampMs::clamped(from), to: TimestampMs::clamped(to) }
    }

    #[test]
    fn the_model_sums_a_window_with_both_its_ends() {
        let list = [recorded(30, 5), recorded(10, 1), recorded(20, 2), recorded(20, 3)];
        let model = Model::new(&list);
        let totals = |from, to| {
            let totals = model.totals(range(from, to));
            (totals.count, totals.amount.get())
        };
        assert_eq!(totals(0, 100), (4, 11));
        assert_eq!(totals(10, 20), (3, 6));
        assert_eq!(totals(20, 20), (2, 5));
        assert_eq!(totals(21, 29), (0, 0));
        assert_eq!(totals(30, 20), (0, 0));
    }

    #[test]
    fn an_answer_that_is_a_cent_off_or_missing_is_found() {
        let list = [recorded(10, 1), recorded(20, 2)];
        let right = [Totals { count: 2, amount: Cents::new(3) }, Totals::default()];
        let mut off = right;
        off[0].amount = Cents::new(4);
        let answered = [Ok(right), Ok(off), Err("no answer".to_owned())]
            .map(|answer| Answered { range: range(0, 20), answer });
        let found = compare(&answered, [&list, &[]]);
        assert_eq!((found.asked, found.wrong), (3, 2));
        assert_eq!(found.examples.len(), 2);
    }

    #[test]
    fn windows_are_drawn_within_their_bounds_and_differ() {
        let mut random = Rng::with_seed(1);
        assert_eq!(draw(&mut random, 5, 5), None);
        let drawn: Vec<_> = (0..200).map(|_| draw(&mut random, 100, 9000).unwrap()).collect();
        assert!(drawn.iter().all(|range| range.from <= range.to));
        assert!(drawn.iter().all(|r| r.from.get() >= 100 && r.to.get() <= 9000));
        assert!(drawn.iter().any(|range| range.from == range.to));
        assert!(drawn.iter().any(|r| r.to.get() - r.from.get() > 3000));
    }
}
