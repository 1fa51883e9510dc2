//! What the engine sends: payments that may be sent, and look-ups of those in doubt.

use std::cmp::Reverse;

use ledger::journal::Event;
use ledger::{Processor, TimestampMs};

use super::payment::{Key, Payment, Stage};
use super::{Call, CallKind, Engine, intake, signed};
use crate::router::{Backlog, BreakerState, Decision, RouterView};

/// Look-ups under way at a time at one processor.
pub const LOOKUPS_MAX: usize = 64;
/// The same while its breaker is open: most of them would only wait for their time-out.
pub const LOOKUPS_MAX_WHILE_FAILING: usize = 4;

/// How many payments at the front of a queue are looked at for the oldest. What came first is sent
/// first, and what comes back without success goes to the front, in the order in which it comes
/// back: so the oldest has as many before it as calls can be under way, which this exceeds with the
/// usual limits.
const OLDEST_AMONG: usize = 1_024;

/// The pause between two lines about why payments go where they go.
const EXPLAIN_PAUSE_MS: u64 = 1_000;

impl Engine {
    /// Begins a turn: what came in since the last one decides how many payments it may send.
    pub fn begin_turn(&mut self, now_ms: u64) {
        self.intake.begin_turn(now_ms, self.payments.len(), self.config.backlog_max);
    }

    /// Whether a crowd comes in.
    #[cfg(test)]
    pub(crate) fn is_crowded(&self) -> bool {
        self.intake.is_crowded()
    }

    /// Decides what can be sent now, and prepares the records that must be written first. Gives the
    /// time at which to ask again even if nothing happens until then.
    pub fn pump(&mut self, now_ms: u64, now: TimestampMs) -> Option<u64> {
        if self.purge_is_near {
            return None;
        }
        self.set_free_those_of_meanwhile(now_ms);
        if self.stopped {
            return None;
        }
        let mut wake_ms = None;
        for processor in Processor::ALL {
            wake_ms = earlier(wake_ms, self.look_up(processor, now_ms));
            let hold_ms = self.send_pinned(processor, now_ms, now);
            wake_ms = earlier(wake_ms, hold_ms);
        }
        let hold_ms = self.send_ready(now_ms, now);
        wake_ms = earlier(wake_ms, hold_ms);
        self.explain(now_ms);
        wake_ms = earlier(wake_ms, self.claim_wake_ms(now_ms));
        wake_ms
    }

    /// Begins the look-ups that are due at a processor.
    fn look_up(&mut self, processor: Processor, now_ms: u64) -> Option<u64> {
        let lookups_max = match self.router.breaker(processor) {
            BreakerState::Closed => LOOKUPS_MAX,
            BreakerState::Open { .. } | BreakerState::HalfOpen { .. } => LOOKUPS_MAX_WHILE_FAILING,
        };
        let index = processor.index();
        while let Some(Reverse((due_ms, key))) = self.doubts[index].peek().copied() {
            if due_ms > now_ms {
                return Some(due_ms);
            }
            if self.lookups_count[index] >= lookups_max {
                return None;
            }
            self.doubts[index].pop();
            let Some(payment) = self.payments.get_mut(key) else { continue };
            if payment.stage != Stage::InDoubt(processor) {
                continue;
            }
            payment.stage = Stage::LookingUp(processor);
            let (id, amount) = (payment.id, payment.amount);
            self.lookups_count[index] += 1;
            let place = self.under_way.insert(key);
            let kind = CallKind::Lookup;
            self.calls.push(Call { key, id, amount, processor, kind, place });
        }
        None
    }

    /// Sends payments that only this processor may have.
    fn send_pinned(&mut self, processor: Processor, now_ms: u64, now: TimestampMs) -> Option<u64> {
        while let Some(key) = self.pinned[processor.index()].front().copied() {
            match self.router.decide_for(processor, now_ms) {
                Decision::Send(_) => self.pinned[processor.index()].pop_front(),
                Decision::Hold { until_ms } => return until_ms,
            };
            self.send(key, processor, now_ms, now);
        }
        None
    }

    /// Sends payments that either processor may have, in the order in which they came.
    fn send_ready(&mut self, now_ms: u64, now: TimestampMs) -> Option<u64> {
        while let Some(key) = self.ready.front().copied() {
            let Some(payment) = self.payments.get(key) else {
                self.ready.pop_front();
                continue;
            };
            let backlog =
                Backlog { oldest_age_ms: waited_ms(payment, now_ms), count: self.ready.len() };
            if !self.intake.may_send() {
                return Some(now_ms + intake::PAUSE_MS);
            }
            let admitted = self.pace.admit(now_ms);
            match self.router.decide(now_ms, backlog) {
                Decision::Send(processor) => {
                    if let Err(at_ms) = admitted
                        && self.router.reason().leaves_time()
                    {
                        return Some(at_ms);
                    }
                    self.intake.sent();
                    self.pace.sent();
                    self.ready.pop_front();
                    self.send(key, processor, now_ms, now);
                }
                Decision::Hold { until_ms } => return until_ms,
            }
        }
        None
    }

    /// Says in one line that payments go elsewhere than before, and why.
    fn explain(&mut self, now_ms: u64) {
        let reason = self.router.reason();
        if reason == self.explained || now_ms < self.explain_at_ms {
            return;
        }
        self.explained = reason;
        self.explain_at_ms = now_ms + EXPLAIN_PAUSE_MS;
        let view = self.router.view(now_ms);
        let [default, fallback] = view.processors;
        tracing::info!(
            waiting = self.ready.len(),
            outage_ms = view.outage_ms,
            worth_ms = view.outage_worth_ms,
            default_ms = default.latency_ms,
            default_in_flight = default.in_flight,
            fallback_ms = fallback.latency_ms,
            fallback_in_flight = fallback.in_flight,
            "{reason}"
        );
    }

    /// What the router knows and thinks, how many payments wait for it, and for how many
    /// milliseconds the first of them has waited.
    #[must_use]
    pub fn routing(&self, now_ms: u64) -> (RouterView, usize, u64) {
        let first = self.ready.front().and_then(|key| self.payments.get(*key));
        let age_ms = first.map_or(0, |payment| waited_ms(payment, now_ms));
        (self.router.view(now_ms), self.ready.len(), age_ms)
    }

    /// For how many milliseconds the oldest payment has been accepted, of those that wait, are
    /// being sent or are in doubt.
    #[must_use]
    pub fn oldest_age_ms(&self, now_ms: u64) -> u64 {
        let queues = [&self.undecided, &self.ready].into_iter().chain(&self.pinned);
        let waiting = queues.flat_map(|queue| queue.iter().take(OLDEST_AMONG));
        let under_way = self.under_way.iter().map(|(_, key)| key);
        let meanwhile = self.freed_meanwhile.iter().map(|(call, _)| &call.key);
        let in_doubt = self.doubts.iter().flatten().map(|Reverse((_, key))| key);
        let keys = waiting.chain(under_way).chain(meanwhile).chain(in_doubt);
        let payments = keys.filter_map(|key| self.payments.get(*key));
        payments.map(|payment| waited_ms(payment, now_ms)).max().unwrap_or(0)
    }

    /// Prepares the record without which a payment must not be sent.
    fn send(&mut self, key: Key, processor: Processor, now_ms: u64, now: TimestampMs) {
        let Some(payment) = self.payments.get_mut(key) else { return };
        payment.stage = Stage::Sent(processor);
        self.router.sent(processor, now_ms);
        let event = Event::Dispatched { processor, requested_at: now };
        self.pending.push((key, payment.id, payment.amount, event));
    }

    /// Puts a payment where it waits to be sent.
    pub(super) fn make_ready(&mut self, key: Key) {
        let Some(payment) = self.payments.get_mut(key) else { return };
        payment.stage = Stage::Ready;
        let only = payment.doubt.or(payment.refused_by.map(Processor::other));
        match only {
            Some(processor) => self.pinned[processor.index()].push_front(key),
            None => self.ready.push_front(key),
        }
    }

    /// The calls to be made now.
    pub fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }
}

/// How long a payment has waited since it was accepted.
pub(super) fn waited_ms(payment: &Payment, now_ms: u64) -> u64 {
    u64::try_from(signed(now_ms).saturating_sub(payment.waiting_since_ms)).unwrap_or(0)
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}
