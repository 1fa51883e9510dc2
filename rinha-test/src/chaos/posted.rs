//! What the clients of a run posted and what they were told: the one side of every comparison.

use std::collections::{HashMap, HashSet};

use ledger::{Cents, CorrelationId};

/// What a client was told about a payment that it posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// `202`: it cannot be lost.
    Accepted,
    /// A refusal, with this status: it was not taken in.
    Refused(u16),
    /// Nothing: it may have been taken in or not.
    Nothing,
}

/// One attempt of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The amount.
    pub amount: Cents,
    /// What came of it.
    pub told: Told,
}

/// All payments that were posted since the last purge, and the ids of all ever.
#[derive(Clone, Debug, Default)]
pub struct Posted {
    attempts: HashMap<CorrelationId, Vec<Attempt>>,
    /// In the order in which they were first posted, to choose from.
    ids: Vec<(CorrelationId, Cents)>,
    /// Ids that were first posted before the last purge was done.
    before_purge: HashSet<CorrelationId>,
    accepted_count: u64,
    requests_count: u64,
}

impl Posted {
    /// Writes an attempt down.
    pub fn add(&mut self, id: CorrelationId, attempt: Attempt) {
        self.requests_count += 1;
        if self.before_purge.contains(&id) {
            return;
        }
        let attempts = self.attempts.entry(id).or_default();
        let is_first = !attempts.iter().any(|earlier| earlier.told == Told::Accepted);
        if attempt.told == Told::Accepted && is_first {
            self.accepted_count += 1;
        }
        attempts.push(attempt);
    }

    /// Says that an id is about to be posted for the first time, so that a purge meanwhile takes it
    /// for one from before it.
    pub fn announce(&mut self, id: CorrelationId, amount: Cents) {
        self.attempts.entry(id).or_default();
        self.ids.push((id, amount));
    }

    /// Says that everything was emptied: whatever was posted before may be gone or not.
    pub fn purged(&mut self) {
        self.before_purge.extend(self.attempts.drain().map(|(id, _)| id));
        self.ids.clear();
    }

    /// A payment that was posted before, by its place among them.
    #[must_use]
    pub fn earlier(&self, choice: u64) -> Option<(CorrelationId, Cents)> {
        let count = u64::try_from(self.ids.len()).ok().filter(|count| *count > 0)?;
        usize::try_from(choice % count).ok().map(|place| self.ids[place])
    }

    /// Every payment since the last purge, with its attempts.
    pub fn payments(&self) -> impl Iterator<Item = (CorrelationId, &[Attempt])> {
        self.attempts.iter().map(|(id, attempts)| (*id, attempts.as_slice()))
    }

    /// The attempts to post a payment, since the last purge.
    #[must_use]
    pub fn attempts(&self, id: CorrelationId) -> Option<&[Attempt]> {
        self.attempts.get(&id).map(Vec::as_slice)
    }

    /// Whether the payment was posted before the last purge was done.
    #[must_use]
    pub fn is_from_before_purge(&self, id: CorrelationId) -> bool {
        self.before_purge.contains(&id)
    }

    /// Payments that were accepted, over the whole run.
    #[must_use]
    pub fn accepted_count(&self) -> u64 {
        self.accepted_count
    }

    /// Requests that posted a payment, over the whole run.
    #[must_use]
    pub fn requests_count(&self) -> u64 {
        self.requests_count
    }
}
