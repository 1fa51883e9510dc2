//! What the engine writes: batches of records, and what follows once they are in the journal.

use ledger::journal::{Event, PaymentRecord, Position};
use ledger::{Cents, CorrelationId, TimestampMs};

use super::payment::{Key, Payment, Stage};
use super::sending::waited_ms;
use super::{Call, CallKind, Engine};

/// While the journal fails, one payment in this time is let through to see whether it works again.
const FAILING_PROBE_MS: u64 = 250;

/// Records to be written together.
#[derive(Debug)]
pub struct Batch {
    /// The records, in order.
    pub records: Vec<PaymentRecord>,
    keys: Vec<Key>,
}

/// What became of the acceptances in a batch. Their tickets count them from the first on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Written {
    /// How many are in the journal.
    pub accepts_count: u32,
    /// How many of these a purge has made void while they were written. They are a part of the next
    /// batch, and not accepted before that is written.
    pub void_count: u32,
}

/// The journal cannot be written.
#[derive(Debug)]
pub(super) struct Failure {
    pub why: String,
    pub probe_at_ms: u64,
}

impl Failure {
    pub fn probe_later(&mut self, now_ms: u64) {
        self.probe_at_ms = now_ms + FAILING_PROBE_MS;
    }
}

impl Engine {
    /// The records to be written next, if there are any. Nothing of them counts before
    /// [`Engine::written`].
    pub fn take_batch(&mut self, now: TimestampMs) -> Option<Batch> {
        if self.pending.is_empty() {
            return None;
        }
        self.pending_accepts_count = 0;
        let mut batch = Batch {
            records: Vec::with_capacity(self.pending.len()),
            keys: Vec::with_capacity(self.pending.len()),
        };
        for (key, id, amount, event) in self.pending.drain(..) {
            batch.records.push(PaymentRecord { id, amount, written_at: now, event });
            batch.keys.push(key);
        }
        Some(batch)
    }

    /// Takes in that the first `count` records of a batch are in the journal from `first` on, and
    /// why the others are not.
    pub fn written(
        &mut self,
        batch: Batch,
        first: Position,
        count: usize,
        failure: Option<String>,
        now_ms: u64,
    ) -> Written {
        let mut written = Written::default();
        let mut unwritten = Vec::new();
        let items = batch.records.into_iter().zip(batch.keys).zip(0..);
        for ((record, key), index) in items {
            if (index as usize) < count {
                if record.event == Event::Accepted {
                    written.accepts_count += 1;
                    written.void_count += u32::from(first.plus(index) < self.store.cut());
                }
                self.record_written(key, &record, first.plus(index), now_ms);
            } else if let Some(kept) = self.record_unwritten(key, &record) {
                unwritten.push(kept);
            }
        }
        if count > 0 {
            let count = u32::try_from(count).expect("a batch is far below 2^32 records");
            self.committed = first.plus(count);
        }
        unwritten.append(&mut self.pending);
        self.pending = unwritten;
        self.note_failure(failure, now_ms);
        written
    }

    /// For how many milliseconds the payments have been accepted that the first `count` records of
    /// a batch settle.
    pub fn settled_ages_ms<'a>(
        &'a self,
        batch: &'a Batch,
        count: usize,
        now_ms: u64,
    ) -> impl Iterator<Item = u64> + 'a {
        let written = batch.records.iter().zip(&batch.keys).take(count);
        let settled = written.filter(|(record, _)| matches!(record.event, Event::Settled { .. }));
        settled.filter_map(move |(_, key)| Some(waited_ms(self.payments.get(*key)?, now_ms)))
    }

    fn note_failure(&mut self, failure: Option<String>, now_ms: u64) {
        match (failure, self.failure.take()) {
            (Some(why), before) => {
                if before.is_none() {
                    tracing::error!("{why}. No payment is accepted until that works again");
                }
                self.failure = Some(Failure { why, probe_at_ms: now_ms + FAILING_PROBE_MS });
            }
            (None, Some(_)) => tracing::info!("the journal can be written again"),
            (None, None) => {}
        }
    }

    fn record_written(
        &mut self,
        key: Key,
        record: &PaymentRecord,
        position: Position,
        now_ms: u64,
    ) {
        match record.event {
            Event::Accepted if position < self.store.cut() => {
                self.pending.push((key, record.id, record.amount, Event::Accepted));
                self.pending_accepts_count += 1;
            }
            Event::Accepted => {
                if let Some(payment) = self.payments.get_mut(key) {
                    payment.accepted = position;
                    payment.stage = Stage::Undecided;
                    self.undecided.push_back(key);
                    self.store.gathering_since_ms.get_or_insert(now_ms);
                    *self.open_by_segment.entry(position.segment).or_default() += 1;
                }
            }
            Event::Dispatched { processor, requested_at } => {
                let (id, amount) = (record.id, record.amount);
                let kind = CallKind::Post { requested_at };
                let place = self.under_way.insert(key);
                self.calls.push(Call { key, id, amount, processor, kind, place });
            }
            Event::Failed { .. } => {}
            Event::Settled { .. } | Event::Refused { .. } | Event::Duplicate => {
                let cut = self.store.cut();
                match self.close(key) {
                    // The payment that it was a duplicate of is void as well.
                    Some(payment) if record.event == Event::Duplicate && payment.accepted < cut => {
                        self.known.forget(payment.id);
                    }
                    Some(payment) => self.known.close(payment.id),
                    None => {}
                }
            }
        }
    }

    /// Undoes what was prepared with a record that could not be written, or keeps the record to be
    /// written later.
    fn record_unwritten(
        &mut self,
        key: Key,
        record: &PaymentRecord,
    ) -> Option<(Key, CorrelationId, Cents, Event)> {
        match record.event {
            Event::Accepted => {
                self.payments.remove(key);
                self.known.forget(record.id);
                None
            }
            Event::Dispatched { processor, .. } => {
                self.router.withdrawn(processor);
                self.make_ready(key);
                None
            }
            event => Some((key, record.id, record.amount, event)),
        }
    }

    /// Removes a payment from the open ones.
    pub(super) fn close(&mut self, key: Key) -> Option<Payment> {
        let payment = self.payments.remove(key)?;
        let segment = payment.accepted.segment;
        if let Some(count) = self.open_by_segment.get_mut(&segment) {
            *count -= 1;
            if *count == 0 {
                self.open_by_segment.remove(&segment);
            }
        }
        Some(payment)
    }

    /// Whether payments have come in that are to be written.
    #[must_use]
    pub fn has_arrivals(&self) -> bool {
        self.pending_accepts_count > 0
    }

    /// Whether there are records to be written.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Why the journal cannot be written, while it cannot.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_ref().map(|failure| failure.why.as_str())
    }

    /// The oldest segment in which a payment was accepted that is still open; the one that is
    /// written to where there is none.
    #[must_use]
    pub fn oldest_open_segment(&self) -> u32 {
        self.open_by_segment.keys().next().copied().unwrap_or(self.committed.segment)
    }
}
