//! Who decides in the laboratory: the real router, and the fixed rules that it is measured against.

use api::router::{Backlog, Decision, Health, Outcome, Reason, Router, RouterConfig};
use ledger::Processor;

/// How long the fixed rules let a payment rest after a failure.
const REST_MS: u64 = 500;

/// Decides where payments go. The methods are those of [`Router`].
pub trait Policy {
    /// A payment has come in.
    fn arrived(&mut self, now_ms: u64);
    /// Where the next payment goes.
    fn decide(&mut self, now_ms: u64, next: Next, backlog: Backlog) -> Decision;
    /// Whether a payment that only this processor may have can be sent.
    fn decide_for(&mut self, processor: Processor, now_ms: u64) -> Decision;
    /// A payment was sent.
    fn sent(&mut self, processor: Processor, now_ms: u64);
    /// A call is back.
    fn answered(&mut self, processor: Processor, now_ms: u64, latency_ms: u64, outcome: Outcome);
    /// A processor says how it is.
    fn heard(&mut self, processor: Processor, now_ms: u64, health: Health);
    /// How long a payment rests that has failed this many times.
    fn rest_ms(&self, failures_count: u32) -> u64;
    /// Why payments go where they go, if it can say.
    fn reason(&self) -> Option<Reason> {
        None
    }
}

/// What a fixed rule knows of a payment.
#[derive(Clone, Copy, Debug)]
pub struct Next {
    /// The processor that failed it last.
    pub failed_by: Option<Processor>,
}

impl Policy for Router {
    fn arrived(&mut self, now_ms: u64) {
        Router::arrived(self, now_ms);
    }

    fn decide(&mut self, now_ms: u64, _: Next, backlog: Backlog) -> Decision {
        Router::decide(self, now_ms, backlog)
    }

    fn decide_for(&mut self, processor: Processor, now_ms: u64) -> Decision {
        Router::decide_for(self, processor, now_ms)
    }

    fn sent(&mut self, processor: Processor, now_ms: u64) {
        Router::sent(self, processor, now_ms);
    }

    fn answered(&mut self, processor: Processor, now_ms: u64, latency_ms: u64, outcome: Outcome) {
        Router::answered(self, processor, now_ms, latency_ms, outcome);
    }

    fn heard(&mut self, processor: Processor, now_ms: u64, health: Health) {
        Router::heard(self, processor, now_ms, health);
    }

    /// The engine puts it first in its queue.
    fn rest_ms(&self, _: u32) -> u64 {
        0
    }

    fn reason(&self) -> Option<Reason> {
        Some(Router::reason(self))
    }
}

/// The rules that public entries of the contest have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Default, again and again.
    DefaultOnly,
    /// Default; after a failure fallback; after that default again.
    FallbackAtFailure,
    /// Default unless its last health check said that it fails; then fallback, by the same test.
    LastHealth,
}

/// A fixed rule with the same limit of calls in flight as the router's. A call that failed is made
/// again after a pause, as these entries do it.
pub struct Fixed {
    rule: Rule,
    in_flight: [u32; 2],
    in_flight_max: u32,
    failing: [bool; 2],
}

impl Fixed {
    /// This rule, under the router's limit.
    pub fn new(rule: Rule, config: &RouterConfig) -> Self {
        Self { rule, in_flight: [0; 2], in_flight_max: config.in_flight_max, failing: [false; 2] }
    }

    fn choice(&self, next: Next) -> Option<Processor> {
        match self.rule {
            Rule::DefaultOnly => Some(Processor::Default),
            Rule::FallbackAtFailure => {
                Some(next.failed_by.map_or(Processor::Default, Processor::other))
            }
            Rule::LastHealth => {
                Processor::ALL.into_iter().find(|processor| !self.failing[processor.index()])
            }
        }
    }
}

impl Policy for Fixed {
    fn arrived(&mut self, _: u64) {}

    fn decide(&mut self, now_ms: u64, next: Next, _: Backlog) -> Decision {
        match self.choice(next) {
            Some(processor) => self.decide_for(processor, now_ms),
            None => Decision::Hold { until_ms: None },
        }
    }

    fn decide_for(&mut self, processor: Processor, _: u64) -> Decision {
        if self.in_flight[processor.index()] < self.in_flight_max {
            Decision::Send(processor)
        } else {
            Decision::Hold { until_ms: None }
        }
    }

    fn sent(&mut self, processor: Processor, _: u64) {
        self.in_flight[processor.index()] += 1;
    }

    fn answered(&mut self, processor: Processor, _: u64, _: u64, _: Outcome) {
        self.in_flight[processor.index()] -= 1;
    }

    fn heard(&mut self, processor: Processor, _: u64, health: Health) {
        self.failing[processor.index()] = health.failing;
    }

    fn rest_ms(&self, failures_count: u32) -> u64 {
        // The other processor is tried at once.
        let tries_other = self.rule == Rule::FallbackAtFailure && failures_count % 2 == 1;
        if tries_other { 0 } else { REST_MS }
    }
}
