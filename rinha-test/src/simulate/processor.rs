//! A processor: what the contest's does with a payment, in its order (the delay, the failure flag, the
//! record), and what the way to it does with calls and answers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ledger::{Cents, CorrelationId, TimestampMs};

use crate::faults::random::Random;

/// How it behaves for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// It answers within some milliseconds.
    Well,
    /// It takes this long.
    Slow(u64),
    /// It answers `500` to everything, and records nothing.
    Fails,
    /// It has too many calls: `429`.
    Overloaded,
    /// There is no connection.
    Refuses,
    /// Calls end in the middle: before, after or long before the record.
    Breaks,
    /// It says nothing for long, and records then.
    Swallows,
    /// It says nothing, and records nothing.
    Silent,
    /// It will not take some payments, ever: `400`.
    Picky,
    /// Any of these, call by call.
    Mad,
}

impl Mood {
    /// All but the good one.
    pub const BAD: [Self; 11] = [
        Self::Slow(150),
        Self::Slow(1_600),
        Self::Fails,
        Self::Overloaded,
        Self::Refuses,
        Self::Breaks,
        Self::Swallows,
        Self::Silent,
        Self::Picky,
        Self::Mad,
        Self::Mad,
    ];
}

/// What becomes of a call that arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is carried out after this time, and answered.
    Carried { after_ms: u64 },
    /// It is carried out after this time. The caller hears, after that other time, that nobody knows;
    /// `None` is silence.
    Unheard { after_ms: u64, breaks_after_ms: Option<u64> },
    /// It is not carried out, and the caller hears that nobody knows; `None` is silence.
    Lost { breaks_after_ms: Option<u64> },
    /// It is not carried out, and this status says so; 0 where there was no connection.
    Status { status: u16, after_ms: u64 },
}

/// What a processor has recorded about a payment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recorded {
    pub amount: Cents,
    pub requested_at: TimestampMs,
}

/// A processor.
pub struct Processor {
    mood: Mood,
    until_ms: u64,
    pub recorded: HashMap<CorrelationId, Recorded>,
}

impl Processor {
    pub fn new() -> Self {
        Self { mood: Mood::Well, until_ms: 0, recorded: HashMap::new() }
    }

    /// It behaves like this until then.
    pub fn set_mood(&mut self, mood: Mood, until_ms: u64) {
        (self.mood, self.until_ms) = (mood, until_ms);
    }

    /// Records a payment, unless it has that already.
    pub fn record(&mut self, id: CorrelationId, payment: Recorded) -> bool {
        match self.recorded.entry(id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(payment);
                true
            }
        }
    }

    /// How it behaves.
    pub fn mood(&self, now_ms: u64) -> Mood {
        if now_ms < self.until_ms { self.mood } else { Mood::Well }
    }

    /// What becomes of a call that arrives now.
    pub fn receive(&self, now_ms: u64, id: CorrelationId, random: &mut Random) -> Fate {
        let mood = match self.mood(now_ms) {
            Mood::Mad => random.pick(&Mood::BAD[..9]),
            mood => mood,
        };
        let soon_ms = random.below(4);
        let later_ms = random.pick(&[0, 3, 40, 400, 3_000, 12_000]);
        match mood {
            Mood::Slow(delay_ms) => Fate::Carried { after_ms: delay_ms },
            Mood::Fails => Fate::Status { status: 500, after_ms: soon_ms },
            Mood::Overloaded => Fate::Status { status: 429, after_ms: 0 },
            Mood::Refuses => Fate::Status { status: 0, after_ms: 0 },
            Mood::Breaks => match random.below(3) {
                0 => Fate::Lost { breaks_after_ms: Some(soon_ms) },
                1 => Fate::Unheard { after_ms: 0, breaks_after_ms: Some(soon_ms) },
                _ => Fate::Unheard { after_ms: later_ms, breaks_after_ms: Some(soon_ms) },
            },
            Mood::Swallows => {
                Fate::Unheard { after_ms: random.between(1, 30_000), breaks_after_ms: None }
            }
            Mood::Silent => Fate::Lost { breaks_after_ms: None },
            Mood::Picky if id.to_bytes()[15].is_multiple_of(3) => {
                Fate::Status { status: 400, after_ms: soon_ms }
            }
            Mood::Well | Mood::Picky | Mood::Mad => Fate::Carried { after_ms: soon_ms },
        }
    }
}
