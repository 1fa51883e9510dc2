//! The chronicle: what this instance has decided and seen lately, as sentences that a person can act
//! upon. It keeps the last [`NOTES_MAX`], and tells them when somebody asks.
//!
//! It is told of changes only, so while nothing changes it does nothing. What alternates, such as a
//! processor at the limit of what it can do, is one note with a count and not many notes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use ledger::notes::{NOTES_MAX, Note, Tone};
use ledger::{Processor, TimestampMs};

use crate::router::{Reason, RouterStanding};

/// What happens again within this time of its last time is noted with that.
const GATHER_MS: i64 = 10_000;

/// What can be noted.
#[derive(Clone, PartialEq, Eq, Debug)]
enum What {
    Started { open_count: usize },
    Routed { reason: Reason, cheap: Processor },
    Breaker { processor: Processor, is_closed: bool },
    Said { processor: Processor, is_failing: bool },
    Refusing(String),
    Accepting,
    Store { is_connected: bool },
    Purged,
}

#[derive(Debug)]
struct Noted {
    first: TimestampMs,
    last: TimestampMs,
    times: u64,
    what: What,
}

/// The chronicle of an instance.
#[derive(Debug, Default)]
pub struct Chronicle {
    notes: RefCell<VecDeque<Noted>>,
    standing: Cell<Option<RouterStanding>>,
    failing: [Cell<bool>; 2],
    is_refusing: Cell<bool>,
    is_connected: Cell<Option<bool>>,
    noted_count: Cell<u64>,
}

impl Chronicle {
    /// The instance begins, with payments that the one before left open.
    pub fn started(&self, open_count: usize, now: impl Fn() -> TimestampMs) {
        self.note(What::Started { open_count }, now());
    }

    /// This is how the router stands.
    pub fn stands(&self, standing: RouterStanding, now: impl Fn() -> TimestampMs) {
        let before = self.standing.replace(Some(standing));
        if before == Some(standing) {
            return;
        }
        // A router begins with both processors taken for well.
        let (reason, is_closed) =
            before.map_or((Reason::CheaperWorks, [true; 2]), |it| (it.reason, it.is_closed));
        for processor in Processor::ALL {
            let now_closed = standing.is_closed[processor.index()];
            if now_closed != is_closed[processor.index()] {
                self.note(What::Breaker { processor, is_closed: now_closed }, now());
            }
        }
        if standing.reason != reason {
            self.note(What::Routed { reason: standing.reason, cheap: standing.cheap }, now());
        }
    }

    /// A processor has said how it is.
    pub fn said(&self, processor: Processor, is_failing: bool, now: impl Fn() -> TimestampMs) {
        if self.failing[processor.index()].replace(is_failing) != is_failing {
            self.note(What::Said { processor, is_failing }, now());
        }
    }

    /// Payments are taken in, or not, for this reason.
    pub fn takes(&self, refusal: Option<&str>, now: impl Fn() -> TimestampMs) {
        if self.is_refusing.replace(refusal.is_some()) == refusal.is_some() {
            return;
        }
        let what = refusal.map_or(What::Accepting, |why| What::Refusing(why.to_owned()));
        self.note(what, now());
    }

    /// The store is there, or is not.
    pub fn store(&self, is_connected: bool, now: impl Fn() -> TimestampMs) {
        let before = self.is_connected.replace(Some(is_connected));
        // That it is there at first is no news.
        if before.is_some_and(|before| before != is_connected) {
            self.note(What::Store { is_connected }, now());
        }
    }

    /// Everything was purged.
    pub fn purged(&self, now: impl Fn() -> TimestampMs) {
        self.note(What::Purged, now());
    }

    /// How often anything was noted, which is more than there are notes: as long as it stays, so do they.
    #[must_use]
    pub fn noted_count(&self) -> u64 {
        self.noted_count.get()
    }

    fn note(&self, what: What, now: TimestampMs) {
        self.noted_count.set(self.noted_count.get() + 1);
        let mut notes = self.notes.borrow_mut();
        let same = notes.iter_mut().rev().find(|noted| noted.what == what);
        // A clock that was set back begins a new note.
        let is_near = |noted: &&mut Noted| (0..GATHER_MS).contains(&now.since(noted.last));
        if let Some(noted) = same.filter(is_near) {
            noted.last = now;
            noted.times += 1;
            return;
        }
        if notes.len() == NOTES_MAX {
            notes.pop_front();
        }
        notes.push_back(Noted { first: now, last: now, times: 1, what });
    }

    /// All notes, the oldest first.
    pub fn notes(&self) -> Vec<Note> {
        let note = |Noted { first, last, times, what }: &Noted| Note {
            first_ms: first.get(),
            last_ms: last.get(),
            times: *times,
            tone: what.tone(),
            words: what.words(),
        };
        self.notes.borrow().iter().map(note).collect()
    }
}

impl What {
    fn tone(&self) -> Tone {
        match self {
            Self::Routed { reason: Reason::CheaperWorks, .. }
            | Self::Breaker { is_closed: true, .. }
            | Self::Said { is_failing: false, .. }
            | Self::Accepting
            | Self::Store { is_connected: true } => Tone::Good,
            Self::Routed { reason: Reason::NeitherWorks, .. }
            | Self::Breaker { is_closed: false, .. }
            | Self::Said { is_failing: true, .. }
            | Self::Refusing(_)
            | Self::Store { is_connected: false } => Tone::Bad,
            Self::Started { .. } | Self::Routed { .. } | Self::Purged => Tone::Plain,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Started { open_count: 0 } => "started, with no open payments".to_owned(),
            Self::Started { open_count } => {
                format!("started, and goes on with {open_count} payments that were open")
            }
            Self::Routed { reason, cheap } => routed(*reason, *cheap),
            Self::Breaker { processor, is_closed: true } => {
                format!("{processor} took a call again: its breaker is closed")
            }
            Self::Breaker { processor, is_closed: false } => {
                format!("{processor} fails: its breaker is open, and it is probed until it is back")
            }
            Self::Said { processor, is_failing: true } => {
                format!("{processor} says of itself that payments fail")
            }
            Self::Said { processor, is_failing: false } => {
                format!("{processor} says of itself that it is well")
            }
            Self::Refusing(why) => format!("no payments are taken in: {why}"),
            Self::Accepting => "payments are taken in again".to_owned(),
            Self::Store { is_connected: true } => {
                "the store is back: payments are decided upon and sent".to_owned()
            }
            Self::Store { is_connected: false } => {
                "the store is away: payments are taken in and wait for it".to_owned()
            }
            Self::Purged => "everything was purged".to_owned(),
        }
    }
}

fn routed(reason: Reason, cheap: Processor) -> String {
    let dear = cheap.other();
    match reason {
        Reason::CheaperWorks => format!("payments go to {cheap}"),
        Reason::WaitingPays => {
            format!("payments wait for {cheap}: that is worth more than what {dear} costs")
        }
        Reason::WaitingDoesNotPay => {
            format!("payments go to {dear}: {cheap} has been out for too long to wait for it")
        }
        Reason::PatienceIsOver => {
            format!("payments go to {dear}: the oldest has waited for {cheap} as long as it may")
        }
        Reason::LoadHasStopped => {
            format!("payments that waited for {cheap} go to {dear}: no new ones come in")
        }
        Reason::CheaperIsFull => {
            format!("payments go to {dear} as well: {cheap} has more to do than it can do in time")
        }
        Reason::OnlyDearerWorks => format!("payments go to {dear}: it is the only one that works"),
        Reason::OnlySlowWorks => "payments go to a slow processor: no other one works".to_owned(),
        Reason::NeitherWorks => "payments wait: neither processor works. None is lost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(reason: Reason, is_closed: [bool; 2]) -> RouterStanding {
        RouterStanding { cheap: Processor::Default, reason, is_closed }
    }

    fn at(ms: i64) -> impl Fn() -> TimestampMs {
        move || TimestampMs::clamped(ms)
    }

    fn told(chronicle: &Chronicle) -> Vec<String> {
        let told = |note: Note| {
            let Note { first_ms, last_ms, times, words, .. } = note;
            format!("{first_ms}-{last_ms} {times} {words}")
        };
        chronicle.notes().into_iter().map(told).collect()
    }

    #[test]
    fn only_changes_are_noted() {
        let chronicle = Chronicle::default();
        let well = standing(Reason::CheaperWorks, [true; 2]);
        let out = standing(Reason::WaitingPays, [false, true]);
        for (now, standing) in [(1, well), (2, out), (3, out), (4, well)] {
            chronicle.stands(standing, at(now));
        }
        chronicle.said(Processor::Fallback, false, at(5));
        chronicle.said(Processor::Fallback, true, at(6));
        chronicle.said(Processor::Fallback, true, at(7));
        chronicle.takes(None, at(8));
        chronicle.takes(Some("the disk is full"), at(9));
        chronicle.takes(Some("the disk is full"), at(10));
        chronicle.takes(None, at(11));
        for (now, is_connected) in [(12, true), (13, false), (14, false), (15, true)] {
            chronicle.store(is_connected, at(now));
        }
        assert_eq!(
            told(&chronicle),
            [
                "2-2 1 default fails: its breaker is open, and it is probed until it is back",
                "2-2 1 payments wait for default: that is worth more than what fallback costs",
                "4-4 1 default took a call again: its breaker is closed",
                "4-4 1 payments go to default",
                "6-6 1 fallback says of itself that payments fail",
                "9-9 1 no payments are taken in: the disk is full",
                "11-11 1 payments are taken in again",
                "13-13 1 the store is away: payments are taken in and wait for it",
                "15-15 1 the store is back: payments are decided upon and sent",
            ]
        );
    }

    #[test]
    fn a_router_that_begins_in_trouble_says_so() {
        let chronicle = Chronicle::default();
        chronicle.stands(standing(Reason::NeitherWorks, [true, false]), at(1));
        assert_eq!(told(&chronicle).len(), 2);
    }

    #[test]
    fn what_alternates_is_gathered_until_it_rests() {
        let chronicle = Chronicle::default();
        let full = standing(Reason::CheaperIsFull, [true; 2]);
        let well = standing(Reason::CheaperWorks, [true; 2]);
        for now in (0..60_000).step_by(1_000).chain([80_000, 0]) {
            chronicle.stands(full, at(now));
            chronicle.stands(well, at(now + 500));
        }
        let full = "payments go to fallback as well: default has more to do than it can do in time";
        assert_eq!(
            told(&chronicle),
            [
                format!("0-59000 60 {full}"),
                "500-59500 60 payments go to default".to_owned(),
                format!("80000-80000 1 {full}"),
                "80500-80500 1 payments go to default".to_owned(),
                format!("0-0 1 {full}"),
                "500-500 1 payments go to default".to_owned(),
            ]
        );
    }

    #[test]
    fn the_last_ones_are_kept() {
        let chronicle = Chronicle::default();
        for number in 0..2 * NOTES_MAX {
            chronicle.started(number, at(0));
        }
        let told = told(&chronicle);
        assert_eq!(told.len(), NOTES_MAX);
        assert!(told[0].contains(&format!(" {NOTES_MAX} payments")), "{}", told[0]);
    }
}
