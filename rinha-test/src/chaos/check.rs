//! Whether everybody's books tell the same story: what the clients were told, what the processors
//! recorded, what the journals say, and what the router answers.
//!
//! It only compares. Whoever gathers the evidence does so when nothing moves any more, so that
//! every difference is a fault.

use std::collections::{HashMap, HashSet};
use std::fmt;

use ledger::{Cents, CorrelationId, Processor, RangeMs, TimestampMs, Totals};

use super::journals::{Journaled, Journals, Settlement};
use super::posted::{Attempt, Posted, Told};
use crate::books::processor::Recorded;

/// What is compared.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What was posted since the last purge.
    pub posted: Posted,
    /// What the processors recorded, by [`Processor::index`].
    pub recorded: [Vec<Recorded>; 2],
    /// What the journals say.
    pub journals: Journals,
    /// Totals of spans of time.
    pub summaries: Vec<Summaries>,
    /// What the router says of some payments.
    pub lookups: Vec<(CorrelationId, Option<Settlement>)>,
    /// Whether a refused payment may have been taken in all the same: with `--durability disk`,
    /// after a sync that failed.
    pub refusals_are_open: bool,
}

/// The totals of a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summaries {
    /// The span.
    pub range: RangeMs,
    /// What the router says.
    pub ours: [Totals; 2],
    /// What the processors say.
    pub theirs: [Totals; 2],
}

/// Something that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An accepted payment is recorded nowhere.
    Lost(CorrelationId),
    /// A payment is recorded by both processors.
    PaidTwice(CorrelationId),
    /// A payment is recorded that nobody posted.
    NeverPosted(CorrelationId),
    /// A payment is recorded that its clients were told was not taken in.
    RefusedAndPaid(CorrelationId),
    /// A payment is recorded with an amount that nobody posted, or was told not to be taken.
    WrongAmount(CorrelationId, Cents),
    /// A payment is recorded, and no journal says that it is settled.
    NotInJournals(CorrelationId),
    /// The journals say more than once that a payment is settled.
    SettledTwice(CorrelationId),
    /// The journals say that a payment is settled which its processor has not recorded so.
    JournalsDiffer(CorrelationId, Settlement),
    /// A payment is not closed.
    Open(CorrelationId),
    /// A client got an answer that it should not have got.
    WrongAnswer(CorrelationId, u16),
    /// The router says something else of a payment than its journals.
    LookupDiffers(CorrelationId, Option<Settlement>),
    /// The router's totals are not the processors'.
    SummaryDiffers(Processor, Summaries),
    /// A processor's totals are not those of its own payments.
    ProcessorDiffers(Processor, Summaries),
}

/// Compares everything.
#[must_use]
pub fn check(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    check_recorded(evidence, &mut findings);
    check_accepted(evidence, &mut findings);
    check_answers(evidence, &mut findings);
    check_journals(evidence, &mut findings);
    check_lookups(evidence, &mut findings);
    check_summaries(evidence, &mut findings);
    findings
}

/// What is recorded was posted, and not refused.
fn check_recorded(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for recorded in evidence.recorded.iter().flatten() {
        let Some(attempts) = evidence.posted.attempts(recorded.id) else {
            if !evidence.posted.is_from_before_purge(recorded.id) {
                findings.push(Finding::NeverPosted(recorded.id));
            }
            continue;
        };
        let may_be_in = |attempt: &&Attempt| {
            evidence.refusals_are_open || !matches!(attempt.told, Told::Refused(_))
        };
        let mut possible = attempts.iter().filter(may_be_in).peekable();
        if possible.peek().is_none() {
            findings.push(Finding::RefusedAndPaid(recorded.id));
        } else if !possible.any(|attempt| attempt.amount == recorded.amount) {
            findings.push(Finding::WrongAmount(recorded.id, recorded.amount));
        }
    }
}

/// What was accepted is recorded once.
fn check_accepted(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let [default, fallback] = [0, 1]
        .map(|side: usize| evidence.recorded[side].iter().map(|r| r.id).collect::<HashSet<_>>());
    for (id, attempts) in evidence.posted.payments() {
        let accepted = attempts.iter().any(|attempt| attempt.told == Told::Accepted);
        match (default.contains(&id), fallback.contains(&id)) {
            (true, true) => findings.push(Finding::PaidTwice(id)),
            (false, false) if accepted => findings.push(Finding::Lost(id)),
            _ => {}
        }
    }
}

/// What was refused was refused for want of a process, or because the id has another amount.
fn check_answers(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for (id, attempts) in evidence.posted.payments() {
        let one_amount = attempts.windows(2).all(|pair| pair[0].amount == pair[1].amount);
        for attempt in attempts {
            match attempt.told {
                Told::Accepted | Told::Nothing | Told::Refused(503) => {}
                Told::Refused(409) if !one_amount => {}
                Told::Refused(status) => findings.push(Finding::WrongAnswer(id, status)),
            }
        }
    }
}

/// The journals say of every payment what its processor says, and of no other.
fn check_journals(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let recorded = settlements(&evidence.recorded);
    for (id, _) in evidence.posted.payments() {
        let journaled = evidence.journals.payments.get(&id);
        let settled = journaled.map_or(&[][..], |journaled| &journaled.settled);
        let theirs = recorded.get(&id).map_or(&[][..], Vec::as_slice);
        if journaled.is_some_and(Journaled::is_open) {
            findings.push(Finding::Open(id));
        }
        if settled.len() > 1 {
            findings.push(Finding::SettledTwice(id));
        }
        if settled.is_empty() && !theirs.is_empty() {
            findings.push(Finding::NotInJournals(id));
        }
        for settlement in settled.iter().filter(|settlement| !theirs.contains(settlement)) {
            findings.push(Finding::JournalsDiffer(id, *settlement));
        }
    }
    for id in evidence.journals.payments.keys() {
        let posted = &evidence.posted;
        if posted.attempts(*id).is_none() && !posted.is_from_before_purge(*id) {
            findings.push(Finding::NeverPosted(*id));
        }
    }
}

fn check_lookups(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for (id, told) in &evidence.lookups {
        let journaled = evidence.journals.payments.get(id);
        if journaled.and_then(|journaled| journaled.settled.first()) != told.as_ref() {
            findings.push(Finding::LookupDiffers(*id, *told));
        }
    }
}

/// The router's totals are the processors', and those are the sums of what they list.
fn check_summaries(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for summaries in &evidence.summaries {
        for processor in Processor::ALL {
            let side = processor.index();
            if summaries.ours[side] != summaries.theirs[side] {
                findings.push(Finding::SummaryDiffers(processor, *summaries));
            }
            if summaries.theirs[side] != sum(&evidence.recorded[side], summaries.range) {
                findings.push(Finding::ProcessorDiffers(processor, *summaries));
            }
        }
    }
}

fn sum(recorded: &[Recorded], range: RangeMs) -> Totals {
    recorded.iter().filter(|payment| range.contains(payment.requested_at)).fold(
        Totals::default(),
        |totals, payment| Totals {
            count: totals.count + 1,
            amount: Cents::new(totals.amount.get() + payment.amount.get()),
        },
    )
}

fn settlements(recorded: &[Vec<Recorded>; 2]) -> HashMap<CorrelationId, Vec<Settlement>> {
    let mut settlements: HashMap<_, Vec<_>> = HashMap::new();
    for processor in Processor::ALL {
        for payment in &recorded[processor.index()] {
            let Recorded { requested_at, amount, .. } = *payment;
            let settlement = Settlement { processor, requested_at, amount };
            settlements.entry(payment.id).or_default().push(settlement);
        }
    }
    settlements
}

/// Spans of time to compare totals over: all time, and some that begin and end at or between the
/// moments of payments.
pub fn ranges(
    recorded: &[Vec<Recorded>; 2],
    count: usize,
    mut draw: impl FnMut(u64) -> u64,
) -> Vec<RangeMs> {
    let mut moments: Vec<_> = recorded.iter().flatten().map(|r| r.requested_at.get()).collect();
    moments.sort_unstable();
    let mut ranges = vec![RangeMs::ALL];
    while !moments.is_empty() && ranges.len() <= count {
        let mut moment = || {
            let place = usize::try_from(draw(moments.len() as u64)).unwrap_or(0);
            let off = i64::try_from(draw(3)).unwrap_or(0) - 1;
            TimestampMs::clamped(moments[place] + off)
        };
        let (one, other) = (moment(), moment());
        ranges.push(RangeMs { from: one.min(other), to: one.max(other) });
    }
    ranges
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(id) => write!(formatter, "{id} was accepted and is recorded nowhere"),
            Self::PaidTwice(id) => write!(formatter, "{id} is recorded by both processors"),
            Self::NeverPosted(id) => write!(formatter, "{id} was never posted"),
            Self::RefusedAndPaid(id) => write!(formatter, "{id} was refused and is recorded"),
            Self::WrongAmount(id, amount) => {
                write!(formatter, "{id} is recorded with {amount}, which was not taken in")
            }
            Self::NotInJournals(id) => {
                write!(formatter, "{id} is recorded, and no journal says that it is settled")
            }
            Self::SettledTwice(id) => {
                write!(formatter, "{id} is settled more than once by the journals")
            }
            Self::JournalsDiffer(id, ours) => {
                write!(
                    formatter,
                    "{id} is settled by the journals as {ours:?}, which no processor says"
                )
            }
            Self::Open(id) => write!(formatter, "{id} is not closed"),
            Self::WrongAnswer(id, status) => {
                write!(formatter, "{id} was answered {status}, which nothing explains")
            }
            Self::LookupDiffers(id, told) => {
                write!(formatter, "{id} is told as {told:?}, which the journals do not say")
            }
            Self::SummaryDiffers(processor, summaries) => {
                write!(formatter, "the router's sum of {processor} is off: {summaries:?}")
            }
            Self::ProcessorDiffers(processor, summaries) => {
                write!(formatter, "{processor} does not list what it sums: {summaries:?}")
            }
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
