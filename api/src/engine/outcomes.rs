//! What the engine makes of a call that came back.
//!
//! | call | outcome | the payment |
//! |---|---|---|
//! | post | recorded | is settled under the `requestedAt` of the call |
//! | post | recorded already | is looked up, for the `requestedAt` that was recorded |
//! | post | not recorded | is free again, unless an earlier call is in doubt |
//! | post | refused | goes to the other processor only; refused there too, it is closed |
//! | post | unknown | is in doubt: it is looked up |
//! | look-up | found | is settled under the `requestedAt` that was recorded |
//! | look-up | absent | is sent to the same processor again: an earlier call may still be under way |
//! | look-up | unknown | is looked up again |

use std::cmp::Reverse;

use ledger::journal::Event;
use ledger::log_limit::OF_PAYMENTS;
use ledger::{Cents, Processor, TimestampMs};

use super::payment::{Key, Stage};
use super::{Call, CallKind, CallOutcome, Engine};
use crate::router::{BreakerState, Health, Outcome};

/// The pause before a doubt is looked into again, at first.
const DOUBT_PAUSE_MS: u64 = 200;
/// The longest pause before a doubt is looked into again.
const DOUBT_PAUSE_MS_MAX: u64 = 5_000;

impl Engine {
    /// Takes in what became of a call, `latency_ms` after it was made.
    pub fn finished(&mut self, call: &Call, outcome: CallOutcome, latency_ms: u64, now_ms: u64) {
        self.under_way.try_remove(call.place);
        match call.kind {
            CallKind::Post { requested_at } => {
                self.judge(call.processor, outcome, latency_ms, now_ms);
                self.post_finished(call, requested_at, outcome, now_ms);
            }
            CallKind::Lookup => {
                self.lookups_count[call.processor.index()] -= 1;
                self.lookup_finished(call, outcome, now_ms);
            }
        }
    }

    /// Tells the router how a processor did.
    fn judge(&mut self, processor: Processor, outcome: CallOutcome, latency_ms: u64, now_ms: u64) {
        let outcome = match outcome {
            CallOutcome::Recorded | CallOutcome::AlreadyRecorded | CallOutcome::Refused { .. } => {
                Outcome::Succeeded
            }
            CallOutcome::NotRecorded { status: 429 } => Outcome::Overloaded,
            _ => Outcome::Failed,
        };
        if self.router.answered(processor, now_ms, latency_ms, outcome) {
            self.breaker_changed(processor, now_ms);
        }
    }

    /// Takes in what a processor says of itself.
    pub fn heard(&mut self, processor: Processor, health: Health, now_ms: u64) {
        if self.router.heard(processor, now_ms, health) {
            self.breaker_changed(processor, now_ms);
        }
    }

    fn breaker_changed(&mut self, processor: Processor, now_ms: u64) {
        let backlog = self.payments.len();
        if self.router.breaker(processor) == BreakerState::Closed {
            tracing::info!(backlog, %processor, "{processor} is back");
            self.hasten_doubts(processor, now_ms);
        } else {
            tracing::info!(
                backlog,
                %processor,
                "{processor} is failing; it is probed until it is back"
            );
        }
    }

    fn post_finished(
        &mut self,
        call: &Call,
        requested_at: TimestampMs,
        outcome: CallOutcome,
        now_ms: u64,
    ) {
        match outcome {
            CallOutcome::Recorded => self.settle(call, call.amount, requested_at),
            CallOutcome::NotRecorded { .. } | CallOutcome::Refused { .. }
                if self.is_in_doubt(call.key) =>
            {
                self.doubt(call, now_ms);
            }
            // Whether the payment was at the processor at the cut decides what becomes of it.
            CallOutcome::NotRecorded { .. } | CallOutcome::Refused { .. } if self.purge_is_near => {
                self.freed_meanwhile.push((*call, outcome));
            }
            CallOutcome::NotRecorded { status } => self.set_free(call, status),
            CallOutcome::Refused { status } => self.refuse(call, status),
            CallOutcome::AlreadyRecorded
            | CallOutcome::Found { .. }
            | CallOutcome::Absent
            | CallOutcome::Unknown => self.doubt(call, now_ms),
        }
    }

    /// Makes up for what had to wait for the end of a purge.
    pub(super) fn set_free_those_of_meanwhile(&mut self, now_ms: u64) {
        for (call, outcome) in std::mem::take(&mut self.freed_meanwhile) {
            if let CallKind::Post { requested_at } = call.kind {
                self.post_finished(&call, requested_at, outcome, now_ms);
            }
        }
    }

    fn lookup_finished(&mut self, call: &Call, outcome: CallOutcome, now_ms: u64) {
        match outcome {
            CallOutcome::Found { amount, requested_at } => {
                if amount != call.amount {
                    tracing::error!(
                        target: OF_PAYMENTS,
                        id = %call.id,
                        "{} has recorded {amount} for a payment of {}; what it recorded counts",
                        call.processor,
                        call.amount
                    );
                }
                self.settle(call, amount, requested_at);
            }
            CallOutcome::Absent => self.make_ready(call.key),
            _ => self.doubt(call, now_ms),
        }
    }

    fn is_in_doubt(&self, key: Key) -> bool {
        self.payments.get(key).is_some_and(|payment| payment.doubt.is_some())
    }

    /// The processor has the payment.
    fn settle(&mut self, call: &Call, amount: Cents, requested_at: TimestampMs) {
        let event = Event::Settled { processor: call.processor, requested_at };
        self.finish(call.key, amount, event);
    }

    /// No processor has the payment or will have it by a call made so far.
    fn set_free(&mut self, call: &Call, status: u16) {
        let event = Event::Failed { processor: call.processor, status };
        self.pending.push((call.key, call.id, call.amount, event));
        self.make_ready(call.key);
    }

    /// The processor will never take the payment.
    fn refuse(&mut self, call: &Call, status: u16) {
        let Some(payment) = self.payments.get_mut(call.key) else { return };
        let processor = call.processor;
        if payment.refused_by == Some(processor.other()) {
            tracing::error!(
                target: OF_PAYMENTS,
                id = %call.id,
                status,
                "both processors refuse the payment"
            );
            self.finish(call.key, call.amount, Event::Refused { processor, status });
        } else {
            tracing::warn!(id = %call.id, status, %processor, "{processor} refuses the payment");
            payment.refused_by = Some(processor);
            self.set_free(call, status);
        }
    }

    /// Prepares the record that closes a payment.
    pub(super) fn finish(&mut self, key: Key, amount: Cents, event: Event) {
        let Some(payment) = self.payments.get_mut(key) else { return };
        payment.stage = Stage::Closing;
        self.pending.push((key, payment.id, amount, event));
    }

    /// The processor may have the payment: it is to be looked up.
    fn doubt(&mut self, call: &Call, now_ms: u64) {
        let Some(payment) = self.payments.get_mut(call.key) else { return };
        let is_new = payment.doubt.is_none();
        payment.doubt = Some(call.processor);
        payment.stage = Stage::InDoubt(call.processor);
        // The first look is taken at once: most often the payment is there.
        let pause_ms = if is_new {
            0
        } else {
            let doublings = u32::from(payment.attempts_count).min(16);
            payment.attempts_count = payment.attempts_count.saturating_add(1);
            (DOUBT_PAUSE_MS << doublings).min(DOUBT_PAUSE_MS_MAX)
        };
        self.doubts[call.processor.index()].push(Reverse((now_ms + pause_ms, call.key)));
    }

    /// A processor is back: what is in doubt there is looked into now.
    fn hasten_doubts(&mut self, processor: Processor, now_ms: u64) {
        let doubts = &mut self.doubts[processor.index()];
        *doubts = doubts.drain().map(|Reverse((_, key))| Reverse((now_ms, key))).collect();
    }
}
