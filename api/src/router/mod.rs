//! The router: to which processor the next payment goes, or whether it waits.
//!
//! A pure state machine. Time, health, outcomes and the backlog come in, a [`Decision`] comes out;
//! there is no clock, socket or thread inside, so a simulation drives it as the real dispatcher does.
//! Times are milliseconds of a clock that never goes back.
//!
//! The rule: the cheaper processor is preferred. While it is unavailable a payment waits for it, up
//! to the patience, and only then goes to the dearer one. A processor is unavailable while its
//! breaker is open, or while it is so slow that what it records could come too late for an audit.

mod breaker;

use breaker::Breaker;
pub use breaker::{BreakerState, FAILURES_TO_OPEN, PROBE_INTERVAL_MS};
use ledger::Processor;

/// The weight of a new latency in the estimate: about the last ten answers count.
const LATENCY_WEIGHT: f64 = 0.1;

/// How the router judges.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RouterConfig {
    /// The fees by [`Processor::index`], in basis points (hundredths of a percent) of an amount.
    pub fees_bp: [u32; 2],
    /// How long a payment may wait for the cheaper processor.
    pub patience_ms: u64,
    /// Calls that may be in flight at one processor.
    pub in_flight_max: u32,
    /// A processor that takes this long to answer is as good as unavailable.
    pub slow_ms: u64,
}

/// What is waiting to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backlog {
    /// How long the oldest payment has been waiting.
    pub oldest_age_ms: u64,
}

/// Where the next payment goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// To this processor, now.
    Send(Processor),
    /// Nowhere yet. Ask again after the next outcome or health, and at this time if there is one.
    Hold {
        /// When the decision may change by itself.
        until_ms: Option<u64>,
    },
}

/// What became of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The processor did as it was asked.
    Succeeded,
    /// It did not, or nobody knows.
    Failed,
}

/// What a processor says of its own health.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Health {
    /// Whether it says that payments fail.
    pub failing: bool,
    /// The least time that it says an answer takes.
    pub min_response_ms: u64,
}

/// What the router knows of one processor.
#[derive(Debug)]
struct State {
    breaker: Breaker,
    in_flight: u32,
    /// The estimate of how long an answer takes.
    latency_ms: f64,
}

/// Whether a processor may be used.
enum Availability {
    /// Yes.
    Available,
    /// Yes, and it is full.
    Full,
    /// One call may find out.
    ProbeDue,
    /// No, until this time at least.
    Until(Option<u64>),
}

/// The router.
#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    states: [State; 2],
}

impl Router {
    /// A router that knows nothing yet, and takes both processors for healthy.
    #[must_use]
    pub fn new(config: RouterConfig) -> Self {
        let state = || State { breaker: Breaker::new(), in_flight: 0, latency_ms: 0.0 };
        Self { config, states: [state(), state()] }
    }

    /// Where the next payment goes. The caller sends it, if it is to be sent, and says so with
    /// [`Router::sent`].
    #[must_use]
    pub fn decide(&self, now_ms: u64, backlog: Backlog) -> Decision {
        let (cheap, dear) = self.by_fee();
        let until = match self.availability(cheap, now_ms) {
            Availability::Available | Availability::ProbeDue => return Decision::Send(cheap),
            Availability::Full => None,
            Availability::Until(until) => until,
        };
        let patience_left_ms = self.patience_ms().saturating_sub(backlog.oldest_age_ms);
        if patience_left_ms > 0 {
            let patience_ends = now_ms + patience_left_ms;
            let until_ms = until.map_or(patience_ends, |until| until.min(patience_ends));
            return Decision::Hold { until_ms: Some(until_ms) };
        }
        match self.availability(dear, now_ms) {
            Availability::Available | Availability::ProbeDue => Decision::Send(dear),
            Availability::Full => Decision::Hold { until_ms: until },
            Availability::Until(other) => {
                Decision::Hold { until_ms: [until, other].into_iter().flatten().min() }
            }
        }
    }

    /// Whether a payment that only this processor may have can be sent to it now.
    #[must_use]
    pub fn decide_for(&self, processor: Processor, now_ms: u64) -> Decision {
        match self.availability(processor, now_ms) {
            Availability::Available | Availability::ProbeDue => Decision::Send(processor),
            Availability::Full => Decision::Hold { until_ms: None },
            Availability::Until(until_ms) => Decision::Hold { until_ms },
        }
    }

    /// Takes in that a payment was sent.
    pub fn sent(&mut self, processor: Processor, now_ms: u64) {
        let state = self.state(processor);
        state.in_flight += 1;
        state.breaker.sent(now_ms);
    }

    /// Takes in that what was to be sent was not sent after all.
    pub fn withdrawn(&mut self, processor: Processor) {
        let state = self.state(processor);
        state.in_flight = state.in_flight.saturating_sub(1);
        state.breaker.withdrawn();
    }

    /// Takes in what became of a call, and tells whether the breaker changed.
    pub fn answered(
        &mut self,
        processor: Processor,
        now_ms: u64,
        latency_ms: u64,
        outcome: Outcome,
    ) -> bool {
        let state = self.state(processor);
        state.in_flight = state.in_flight.saturating_sub(1);
        match outcome {
            Outcome::Succeeded => {
                let latency_ms = u32::try_from(latency_ms).map_or(f64::from(u32::MAX), f64::from);
                state.latency_ms += (latency_ms - state.latency_ms) * LATENCY_WEIGHT;
                state.breaker.succeeded()
            }
            Outcome::Failed => state.breaker.failed(now_ms),
        }
    }

    /// Takes in what a processor says of itself, and tells whether the breaker changed.
    pub fn heard(&mut self, processor: Processor, now_ms: u64, health: Health) -> bool {
        let state = self.state(processor);
        state.latency_ms =
            u32::try_from(health.min_response_ms).map_or(f64::from(u32::MAX), f64::from);
        if health.failing { state.breaker.trip(now_ms) } else { state.breaker.encourage(now_ms) }
    }

    /// The state of a processor's breaker.
    #[must_use]
    pub fn breaker(&self, processor: Processor) -> BreakerState {
        self.states[processor.index()].breaker.state()
    }

    /// Calls in flight at a processor.
    #[must_use]
    pub fn in_flight(&self, processor: Processor) -> u32 {
        self.states[processor.index()].in_flight
    }

    /// The estimate of how long a processor takes to answer.
    #[must_use]
    pub fn latency_ms(&self, processor: Processor) -> f64 {
        self.states[processor.index()].latency_ms
    }

    fn state(&mut self, processor: Processor) -> &mut State {
        &mut self.states[processor.index()]
    }

    /// The processors, the cheaper first.
    fn by_fee(&self) -> (Processor, Processor) {
        let [default, fallback] = self.config.fees_bp;
        let cheap = if fallback < default { Processor::Fallback } else { Processor::Default };
        (cheap, cheap.other())
    }

    /// Waiting is worth nothing where both cost the same.
    fn patience_ms(&self) -> u64 {
        let [default, fallback] = self.config.fees_bp;
        if default == fallback { 0 } else { self.config.patience_ms }
    }

    fn availability(&self, processor: Processor, now_ms: u64) -> Availability {
        let state = &self.states[processor.index()];
        if state.in_flight >= self.config.in_flight_max {
            return Availability::Full;
        }
        match state.breaker.state() {
            BreakerState::Closed => {}
            BreakerState::Open { probe_at_ms } if now_ms >= probe_at_ms => {
                return Availability::ProbeDue;
            }
            BreakerState::Open { probe_at_ms } => return Availability::Until(Some(probe_at_ms)),
            BreakerState::HalfOpen => return Availability::Until(None),
        }
        if state.latency_ms >= self.slow_ms() {
            // One call at a time tells when it is fast again.
            return if state.in_flight == 0 {
                Availability::ProbeDue
            } else {
                Availability::Until(None)
            };
        }
        Availability::Available
    }

    fn slow_ms(&self) -> f64 {
        u32::try_from(self.config.slow_ms).map_or(f64::from(u32::MAX), f64::from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: RouterConfig =
        RouterConfig { fees_bp: [500, 1500], patience_ms: 1000, in_flight_max: 4, slow_ms: 1300 };

    const YOUNG: Backlog = Backlog { oldest_age_ms: 0 };
    const OLD: Backlog = Backlog { oldest_age_ms: 1000 };

    use Decision::Send;
    use Processor::{Default, Fallback};

    fn hold(until_ms: u64) -> Decision {
        Decision::Hold { until_ms: Some(until_ms) }
    }

    fn fail(router: &mut Router, processor: Processor, now_ms: u64) {
        for _ in 0..FAILURES_TO_OPEN {
            router.sent(processor, now_ms);
            router.answered(processor, now_ms, 0, Outcome::Failed);
        }
    }

    #[test]
    fn the_cheaper_processor_is_preferred() {
        assert_eq!(Router::new(CONFIG).decide(0, OLD), Send(Default));
        let reversed = RouterConfig { fees_bp: [1500, 500], ..CONFIG };
        assert_eq!(Router::new(reversed).decide(0, YOUNG), Send(Fallback));
    }

    #[test]
    fn while_default_fails_payments_wait_for_it_and_then_use_fallback() {
        let mut router = Router::new(CONFIG);
        fail(&mut router, Default, 50);
        assert_eq!(router.decide(50, YOUNG), hold(50 + PROBE_INTERVAL_MS));
        assert_eq!(router.decide(50, Backlog { oldest_age_ms: 990 }), hold(60));
        assert_eq!(router.decide(50, OLD), Send(Fallback));
    }

    #[test]
    fn nobody_waits_where_both_cost_the_same() {
        let mut router = Router::new(RouterConfig { fees_bp: [500, 500], ..CONFIG });
        fail(&mut router, Default, 0);
        assert_eq!(router.decide(0, YOUNG), Send(Fallback));
    }

    #[test]
    fn an_open_breaker_lets_one_probe_through_at_a_time() {
        let mut router = Router::new(CONFIG);
        fail(&mut router, Default, 0);
        let now = PROBE_INTERVAL_MS;
        assert_eq!(router.decide(now, YOUNG), Send(Default));
        router.sent(Default, now);
        assert_eq!(router.decide(now + 5_000, YOUNG), hold(now + 5_000 + 1000));
        router.answered(Default, now + 5_000, 5, Outcome::Succeeded);
        assert_eq!(router.decide(now + 5_000, YOUNG), Send(Default));
        assert_eq!(router.breaker(Default), BreakerState::Closed);
    }

    #[test]
    fn a_probe_that_was_not_sent_after_all_does_not_stand_in_the_way() {
        let mut router = Router::new(CONFIG);
        fail(&mut router, Default, 0);
        router.sent(Default, PROBE_INTERVAL_MS);
        router.withdrawn(Default);
        assert_eq!(router.decide(PROBE_INTERVAL_MS, YOUNG), Send(Default));
    }

    #[test]
    fn no_more_calls_are_in_flight_than_the_limit() {
        let mut router = Router::new(CONFIG);
        for _ in 0..CONFIG.in_flight_max {
            assert_eq!(router.decide(0, YOUNG), Send(Default));
            router.sent(Default, 0);
        }
        assert_eq!(router.decide(0, YOUNG), hold(1000));
        assert_eq!(router.decide(0, OLD), Send(Fallback));
        router.answered(Default, 1, 1, Outcome::Succeeded);
        assert_eq!(router.decide(1, YOUNG), Send(Default));
    }

    #[test]
    fn a_processor_too_slow_for_an_audit_gets_one_call_at_a_time() {
        let mut router = Router::new(CONFIG);
        router.heard(Default, 0, Health { failing: false, min_response_ms: 2000 });
        assert_eq!(router.decide(0, OLD), Send(Default));
        router.sent(Default, 0);
        assert_eq!(router.decide(0, OLD), Send(Fallback));
        assert_eq!(router.decide(0, YOUNG), hold(1000));
        router.heard(Default, 1, Health { failing: false, min_response_ms: 0 });
        assert_eq!(router.decide(1, YOUNG), Send(Default));
    }

    #[test]
    fn what_a_processor_says_of_itself_opens_its_breaker_and_has_it_probed_at_once() {
        let mut router = Router::new(CONFIG);
        assert!(router.heard(Default, 0, Health { failing: true, min_response_ms: 0 }));
        assert_eq!(router.decide(0, YOUNG), hold(PROBE_INTERVAL_MS));
        router.heard(Default, 1, Health { failing: false, min_response_ms: 0 });
        assert_eq!(router.decide(1, YOUNG), Send(Default));
    }

    #[test]
    fn with_both_down_a_payment_waits_for_the_first_probe() {
        let mut router = Router::new(CONFIG);
        fail(&mut router, Default, 30);
        fail(&mut router, Fallback, 0);
        assert_eq!(router.decide(50, OLD), hold(PROBE_INTERVAL_MS));
        assert_eq!(router.decide(PROBE_INTERVAL_MS, OLD), Send(Fallback));
    }

    proptest! {
        /// Whatever happens, an open breaker sees one probe at a time, the limit holds, and the same
        /// inputs give the same decisions.
        #[test]
        fn whatever_happens_limits_hold_and_decisions_repeat(
            events in proptest::collection::vec((0..5_u8, any::<bool>(), 0..300_u64), 1..300),
        ) {
            let (mut router, mut twin) = (Router::new(CONFIG), Router::new(CONFIG));
            let mut now = 0;
            for (kind, is_default, step) in events {
                now += step;
                let processor = if is_default { Default } else { Fallback };
                let backlog = if step % 2 == 0 { YOUNG } else { OLD };
                let decision = router.decide(now, backlog);
                prop_assert_eq!(decision, twin.decide(now, backlog));
                for router in [&mut router, &mut twin] {
                    match (kind, decision) {
                        (0 | 1, Send(chosen)) => {
                            if router.breaker(chosen) == BreakerState::HalfOpen {
                                return Err(TestCaseError::fail("a second probe"));
                            }
                            prop_assert!(router.in_flight(chosen) < CONFIG.in_flight_max);
                            router.sent(chosen, now);
                        }
                        (2 | 3, _) if router.in_flight(processor) > 0 => {
                            let outcome =
                                if kind == 2 { Outcome::Succeeded } else { Outcome::Failed };
                            router.answered(processor, now, step, outcome);
                        }
                        (4, _) => {
                            let health = Health { failing: step % 3 == 0, min_response_ms: step };
                            router.heard(processor, now, health);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}
