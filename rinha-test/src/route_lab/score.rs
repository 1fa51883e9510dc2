//! What a run is worth: the contest's scoring, and the figures that tell why.

use ledger::Processor;

use super::run::{Fate, Outcomes, Sent};
use super::trace::{MS, Micros, SECOND, Timeline, Trace};

/// The pause between two audits.
const AUDIT_INTERVAL: Micros = 10 * SECOND;
/// How far back an audit's window begins and ends.
const AUDIT_WINDOW: (Micros, Micros) = (15 * SECOND, 3 * SECOND / 2);
/// The three questions of an audit are answered within this time, in any order.
const AUDIT_SPREAD: Micros = 2 * MS;
/// What an inconsistency costs, as a share of the net.
const FINE: f64 = 0.35;
/// What is spent on a processor in the first moments of an outage could not be known to be wasted.
const NOTICE: Micros = SECOND;

/// What a run is worth, in units of one payment's amount.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Score {
    /// What was settled less fees and fine.
    pub net: f64,
    /// Payments that were settled, by [`Processor::index`].
    pub settled: [usize; 2],
    /// Payments that were not.
    pub missed: usize,
    /// Payments on which audits disagreed.
    pub inconsistencies: usize,
    /// The age of payments when they were settled.
    pub age_ms_median: u64,
    /// The same, of the slowest hundredth.
    pub age_ms_p99: u64,
    /// Calls per second that went to a processor that was down for a second already: the worst second.
    pub wasted_per_second_max: usize,
    /// From each recovery of default to the first payment that reached it and was recorded.
    pub notice_ms_max: Option<u64>,
    /// The median of these.
    pub notice_ms_median: Option<u64>,
}

impl Score {
    /// The share of default among what was settled.
    #[must_use]
    pub fn default_share(&self) -> f64 {
        let total = self.settled[0] + self.settled[1];
        if total == 0 { 0.0 } else { float(self.settled[0]) / float(total) }
    }
}

/// Judges a run.
#[must_use]
pub fn score(trace: &Trace, seed: u64, outcomes: &Outcomes) -> Score {
    let mut score = Score::default();
    let mut ages: Vec<Micros> = Vec::with_capacity(outcomes.fates.len());
    for fate in &outcomes.fates {
        match (fate.settled, fate.recorded) {
            (Some(settled), Some((_, processor))) => {
                score.settled[processor.index()] += 1;
                ages.push(settled - fate.arrived);
            }
            _ => score.missed += 1,
        }
    }
    score.inconsistencies = inconsistencies(trace, seed, outcomes);
    let kept = if score.inconsistencies > 0 { 1.0 - FINE } else { 1.0 };
    score.net = worth(trace, score.settled) * kept;
    ages.sort_unstable();
    score.age_ms_median = percentile(&ages, 50) / MS;
    score.age_ms_p99 = percentile(&ages, 99) / MS;
    score.wasted_per_second_max = Processor::ALL
        .into_iter()
        .map(|processor| wasted_per_second(trace, processor, &outcomes.calls))
        .max()
        .unwrap_or(0);
    let mut notices = notices(trace, outcomes);
    notices.sort_unstable();
    if let Some(last) = notices.last() {
        score.notice_ms_max = Some(last / MS);
        score.notice_ms_median = Some(percentile(&notices, 50) / MS);
    }
    score
}

/// What settled payments earn after fees.
#[must_use]
pub fn worth(trace: &Trace, settled: [usize; 2]) -> f64 {
    settled.iter().zip(trace.fees_bp).map(|(count, fee)| float(*count) * kept(fee)).sum()
}

fn kept(fee_bp: u32) -> f64 {
    1.0 - f64::from(fee_bp) / 10_000.0
}

/// A bound on what anyone can earn who knows the trace.
///
/// A payment can be settled through a processor only by a call that begins when the payment is there
/// and ends, in time, when the processor is up. So each payment earns at most what the cheapest
/// processor keeps for which there is such a moment after its arrival. The bound gives every payment
/// that, as if processors and router had no limits and no audit ever looked.
#[must_use]
pub fn clairvoyant(trace: &Trace) -> f64 {
    let last = last_successes(trace);
    trace.arrivals.iter().map(|arrived| best_value(trace, last, *arrived)).sum()
}

/// What a payment that arrives at this moment adds to the bound.
#[must_use]
pub fn clairvoyant_value(trace: &Trace, arrived: Micros) -> f64 {
    best_value(trace, last_successes(trace), arrived)
}

fn last_successes(trace: &Trace) -> [Option<Micros>; 2] {
    trace.timelines.each_ref().map(|timeline| last_success(timeline, trace.end()))
}

fn best_value(trace: &Trace, last: [Option<Micros>; 2], arrived: Micros) -> f64 {
    (last.iter().zip(trace.fees_bp))
        .filter(|(last, _)| last.is_some_and(|last| last >= arrived))
        .map(|(_, fee)| kept(fee))
        .fold(0.0, f64::max)
}

/// The last moment at which a call can begin that succeeds and ends in time.
fn last_success(timeline: &Timeline, end: Micros) -> Option<Micros> {
    let ups: Vec<_> =
        timeline.spans(end).filter(|(_, _, condition)| !condition.is_down()).collect();
    let mut last = None;
    for (from, to, condition) in timeline.spans(end) {
        if condition.refuses {
            continue;
        }
        // A call that begins at `at` is judged at `at + delay`.
        let delay = condition.delay_ms * MS;
        for (up_from, up_to, _) in &ups {
            let earliest = from.max(up_from.saturating_sub(delay));
            let latest = to.min(up_to.saturating_sub(delay));
            if earliest < latest {
                last = last.max(Some(latest));
            }
        }
    }
    last
}

fn inconsistencies(trace: &Trace, seed: u64, outcomes: &Outcomes) -> usize {
    let mut random = fastrand::Rng::with_seed(seed ^ 0xa0d1);
    let mut total = 0;
    let mut at = AUDIT_INTERVAL;
    while at <= trace.duration {
        let window = at.saturating_sub(AUDIT_WINDOW.0)..=at.saturating_sub(AUDIT_WINDOW.1);
        let mut asked = || at + random.u64(..AUDIT_SPREAD);
        let ours = asked();
        for processor in Processor::ALL {
            let theirs = asked();
            let mut difference = 0_i64;
            for fate in &outcomes.fates {
                let Some((recorded, holder)) = fate.recorded else { continue };
                if holder == processor && window.contains(&fate.requested) {
                    difference += i64::from(recorded <= theirs);
                    difference -= i64::from(fate.settled.is_some_and(|settled| settled <= ours));
                }
            }
            total += usize::try_from(difference.unsigned_abs()).unwrap_or(usize::MAX);
        }
        at += AUDIT_INTERVAL;
    }
    total
}

fn wasted_per_second(trace: &Trace, processor: Processor, calls: &[Sent]) -> usize {
    let mut worst = 0;
    let timeline = &trace.timelines[processor.index()];
    for (from, to) in outages(timeline, trace.end()) {
        // What fails after a delay cannot be known to fail before that.
        let delay = timeline.at(from).delay_ms * MS;
        let mut begin = from + delay + NOTICE;
        while begin + SECOND <= to {
            let second = begin..begin + SECOND;
            let count = calls
                .iter()
                .filter(|call| call.processor == processor && second.contains(&call.at))
                .filter(|call| !call.recorded)
                .count();
            worst = worst.max(count);
            begin += SECOND;
        }
    }
    worst
}

/// From when to when a processor was down, without a break.
fn outages(timeline: &Timeline, end: Micros) -> Vec<(Micros, Micros)> {
    let mut outages: Vec<(Micros, Micros)> = Vec::new();
    for (from, to, condition) in timeline.spans(end) {
        if !condition.is_down() {
            continue;
        }
        match outages.last_mut() {
            Some((_, until)) if *until == from => *until = to,
            _ => outages.push((from, to)),
        }
    }
    outages
}

/// For each recovery of default while payments arrive: how long until one reached it, from the recovery
/// or, where no payment waited then, from the arrival of the next one.
fn notices(trace: &Trace, outcomes: &Outcomes) -> Vec<Micros> {
    let default = Processor::Default;
    let line = &trace.timelines[default.index()];
    let ends = outages(line, trace.end()).into_iter().map(|(_, end)| end);
    ends.filter(|back| *back < trace.duration)
        .filter_map(|back| {
            let mut calls = outcomes.calls.iter();
            let first = calls.find(|call| call.processor == default && call.at >= back)?;
            let waits = |fate: &&Fate| fate.arrived <= back && fate.requested > back;
            let from = match outcomes.fates.iter().find(waits) {
                Some(_) => back,
                None => outcomes.fates.iter().find(|fate| fate.arrived > back)?.arrived,
            };
            Some(first.at.saturating_sub(from))
        })
        .collect()
}

fn percentile(sorted: &[Micros], percent: usize) -> Micros {
    if sorted.is_empty() { 0 } else { sorted[(sorted.len() - 1) * percent / 100] }
}

/// Counts to be reckoned with are far below 2^32.
fn float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
