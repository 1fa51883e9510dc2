//! What happened, for the digest and for the story.

use std::hash::{DefaultHasher, Hash, Hasher};

use api::engine::{CallKind, CallOutcome};
use ledger::journal::Position;
use ledger::{Cents, CorrelationId, Processor, TimestampMs};

use super::instance::Answer;

/// A process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Process {
    /// An instance of the API, from 0.
    Api(usize),
    /// The store.
    Store,
}

/// Something that happened.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Note {
    Posted { post: usize, instance: usize, id: CorrelationId, amount: Cents },
    Answered { post: usize, answer: Answer },
    Unanswered { post: usize },
    Started { process: Process, open: usize },
    Killed { process: Process },
    Torn { process: Process },
    Frozen { process: Process, until_ms: u64 },
    PowerCut { lost: usize },
    DiskFails { process: Process },
    DiskWorks { process: Process },
    ClockStepped { instance: usize, skew_ms: i64 },
    Connected { instance: usize },
    Claimed { instance: usize, through: Position },
    Decided { instance: usize, through: Position, losers: usize },
    ClaimRefused { instance: usize },
    Written { instance: usize, first: Position, count: usize },
    Sent { call: usize, instance: usize, processor: Processor, id: CorrelationId, kind: CallKind },
    Recorded { call: usize, processor: Processor, id: CorrelationId, requested_at: TimestampMs },
    Told { call: usize, outcome: CallOutcome },
    GivenUp { call: usize },
    Healed,
}

/// Takes notes.
pub struct Notes {
    digest: DefaultHasher,
    story: Option<Vec<String>>,
}

impl Notes {
    /// None so far; in words too, if someone wants to read them.
    pub fn new(tells: bool) -> Self {
        Self { digest: DefaultHasher::new(), story: tells.then(Vec::new) }
    }

    /// Takes a note.
    pub fn take(&mut self, now_ms: u64, note: Note) {
        now_ms.hash(&mut self.digest);
        std::mem::discriminant(&note).hash(&mut self.digest);
        match note {
            Note::Answered { post, answer } => (post, answer).hash(&mut self.digest),
            Note::Started { process, open } => (process, open).hash(&mut self.digest),
            Note::Decided { instance, through, losers } => {
                (instance, through, losers).hash(&mut self.digest);
            }
            Note::Written { instance, first, count } => {
                (instance, first, count).hash(&mut self.digest);
            }
            Note::Sent { call, instance, processor, id, .. } => {
                (call, instance, processor, id).hash(&mut self.digest);
            }
            Note::Recorded { call, processor, id, requested_at } => {
                (call, processor, id, requested_at.get()).hash(&mut self.digest);
            }
            _ => {}
        }
        if let Some(story) = &mut self.story {
            story.push(format!("{now_ms:>7} ms  {note:?}"));
        }
    }

    /// The digest, and the story.
    pub fn into_parts(self) -> (u64, Vec<String>) {
        (self.digest.finish(), self.story.unwrap_or_default())
    }
}
