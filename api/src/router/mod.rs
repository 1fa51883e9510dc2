//! The router: to which processor the next payment goes, or whether it waits.
//!
//! A pure state machine. Time, health, outcomes and the backlog come in, a [`Decision`] comes out;
//! there is no clock, socket or thread inside, so a simulation drives it as the real dispatcher does.
//! Times are milliseconds of a clock that never goes back.
//!
//! The rule: the cheaper processor is preferred. While it is unavailable (its breaker is open, or it is
//! full) a payment waits for it, up to the patience, and only then goes to the dearer one.
//!
//! A slow processor, one that records payments so late that an audit may miss them, gives way at once
//! to one that is not. It gets as many calls as any other while there is no such choice; else one now
//! and then, which tells whether it is fast again.

mod breaker;

use breaker::Breaker;
pub use breaker::{BreakerState, FAILURES_TO_OPEN, PROBE_INTERVAL_MS};
use ledger::Processor;

/// The weight of a new latency in the estimate: about the last ten answers count.
const LATENCY_WEIGHT: f64 = 0.1;

/// The pause between calls that tell whether a slow processor is fast again.
pub const SLOW_PROBE_INTERVAL_MS: u64 = 1_000;

/// How the router judges.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RouterConfig {
    /// The fees by [`Processor::index`], in basis points (hundredths of a percent) of an amount.
    pub fees_bp: [u32; 2],
    /// How long a payment may wait for the cheaper processor.
    pub patience_ms: u64,
    /// Calls that may be in flight at one processor.
    pub in_flight_max: u32,
    /// A processor that takes this long to answer is used only while the other one cannot be.
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
    /// When the last payment was sent.
    sent_at_ms: Option<u64>,
    /// The estimate of how long an answer takes.
    latency_ms: f64,
    /// When the breaker closed last.
    back_at_ms: u64,
}

/// Whether a processor may be used.
enum Availability {
    /// Yes, however slow it is.
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
        let state = || State {
            breaker: Breaker::new(),
            in_flight: 0,
            sent_at_ms: None,
            latency_ms: 0.0,
            back_at_ms: 0,
        };
        Self { config, states: [state(), state()] }
    }

    /// Where the next payment goes. The caller sends it, if it is to be sent, and says so with
    /// [`Router::sent`].
    #[must_use]
    pub fn decide(&self, now_ms: u64, backlog: Backlog) -> Decision {
        let (cheap, dear) = self.by_fee();
        if self.is_slow(cheap) && !self.is_slow_probe_due(cheap, now_ms) {
            match self.availability(dear, now_ms) {
                Availability::Available if !self.is_slow(dear) => return Decision::Send(dear),
                Availability::ProbeDue => return Decision::Send(dear),
                Availability::Full if self.is_worth_waiting_for(dear, backlog) => {
                    return self.hold_for_patience(now_ms, backlog);
                }
                _ => {}
            }
        }
        let until = match self.availability(cheap, now_ms) {
            Availability::Available | Availability::ProbeDue => return Decision::Send(cheap),
            Availability::Full => None,
            Availability::Until(until) => until,
        };
        let patience_left_ms = self.patience_ms().saturating_sub(backlog.oldest_age_ms);
        if patience_left_ms > 0 {
            let patience_ends = now_ms.saturating_add(patience_left_ms);
            let until_ms = until.map_or(patience_ends, |until| until.min(patience_ends));
            return Decision::Hold { until_ms: Some(until_ms) };
        }
        match self.availability(dear, now_ms) {
            Availability::Available
                if self.is_slow(dear) && self.is_worth_waiting_for(cheap, backlog) =>
            {
                self.hold_for_patience(now_ms, backlog)
            }
            Availability::Available | Availability::ProbeDue => Decision::Send(dear),
            Availability::Full => Decision::Hold { until_ms: until },
            Availability::Until(other) => {
                Decision::Hold { until_ms: [until, other].into_iter().flatten().min() }
            }
        }
    }

    /// Whether a processor that is full will have room soon enough, so that a slow one is not used
    /// instead.
    fn is_worth_waiting_for(&self, full: Processor, backlog: Backlog) -> bool {
        let is_closed = self.breaker(full) == BreakerState::Closed;
        is_closed && !self.is_slow(full) && backlog.oldest_age_ms < self.config.patience_ms
    }

    fn hold_for_patience(&self, now_ms: u64, backlog: Backlog) -> Decision {
        let left_ms = self.config.patience_ms.saturating_sub(backlog.oldest_age_ms);
        Decision::Hold { until_ms: Some(now_ms.saturating_add(left_ms)) }
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
        state.sent_at_ms = Some(now_ms);
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
        let sent_at_ms = now_ms.saturating_sub(latency_ms);
        let (slow_ms, latency_ms) = (float(self.config.slow_ms), float(latency_ms));
        let state = self.state(processor);
        state.in_flight = state.in_flight.saturating_sub(1);
        match outcome {
            Outcome::Succeeded => {
                // One fast answer of a slow processor counts in full: there are few to tell by.
                let is_fast_again = state.latency_ms >= slow_ms && latency_ms < slow_ms;
                let weight = if is_fast_again { 1.0 } else { LATENCY_WEIGHT };
                // How long a call took that was made during an outage tells of the outage.
                if sent_at_ms >= state.back_at_ms {
                    state.latency_ms += (latency_ms - state.latency_ms) * weight;
                }
                let is_back = state.breaker.succeeded();
                if is_back {
                    state.back_at_ms = now_ms;
                    state.latency_ms = if latency_ms < slow_ms { latency_ms } else { 0.0 };
                }
                is_back
            }
            Outcome::Failed => state.breaker.failed(now_ms),
        }
    }

    /// Takes in what a processor says of itself, and tells whether the breaker changed.
    pub fn heard(&mut self, processor: Processor, now_ms: u64, health: Health) -> bool {
        let state = self.state(processor);
        state.latency_ms = float(health.min_response_ms);
        if health.failing {
            return state.breaker.trip(now_ms);
        }
        state.breaker.encourage(now_ms);
        false
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
        Availability::Available
    }

    /// Whether a processor works, but too slowly.
    fn is_slow(&self, processor: Processor) -> bool {
        let state = &self.states[processor.index()];
        let is_closed = state.breaker.state() == BreakerState::Closed;
        is_closed && state.latency_ms >= float(self.config.slow_ms)
    }

    fn is_slow_probe_due(&self, processor: Processor, now_ms: u64) -> bool {
        let state = &self.states[processor.index()];
        let due_ms = state.sent_at_ms.map_or(0, |at| at.saturating_add(SLOW_PROBE_INTERVAL_MS));
        state.in_flight == 0 && now_ms >= due_ms
    }
}

/// Milliseconds to be reckoned with; what is beyond 49 days is all the same.
fn float(ms: u64) -> f64 {
    u32::try_from(ms).map_or(f64::from(u32::MAX), f64::from)
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

    /// A probe that waited for the end of an outage took long for that reason alone.
    #[test]
    fn a_processor_that_is_back_is_not_slow_for_what_an_outage_took() {
        let mut router = Router::new(CONFIG);
        router.sent(Default, 0);
        router.heard(Default, 10, Health { failing: true, min_response_ms: 2000 });
        router.sent(Default, 1000);
        router.answered(Default, 3000, 2000, Outcome::Succeeded);
        assert_eq!(router.breaker(Default), BreakerState::Closed);
        assert_eq!(router.decide(3000, YOUNG), Send(Default));
        // Other calls from the outage.
        for _ in 0..20 {
            router.answered(Default, 3001, 3001, Outcome::Succeeded);
        }
        // What follows is not the one call that a slow processor gets now and then.
        router.sent(Default, 3001);
        assert_eq!(router.decide(3001, YOUNG), Send(Default));
        // Calls that are made now tell how slow it is now.
        for _ in 0..20 {
            router.sent(Default, 3001);
            router.answered(Default, 5001, 2000, Outcome::Succeeded);
        }
        router.sent(Default, 5001);
        assert_eq!(router.decide(5001, YOUNG), Send(Fallback));
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

    fn slow_down(router: &mut Router, processor: Processor) {
        router.heard(processor, 0, Health { failing: false, min_response_ms: 1500 });
    }

    /// Sends to a processor until it has as many calls as it may have.
    fn fill(router: &mut Router, processor: Processor) {
        while router.in_flight(processor) < CONFIG.in_flight_max {
            router.sent(processor, 0);
        }
    }

    #[test]
    fn a_slow_processor_gives_way_at_once_and_is_probed_now_and_then() {
        let mut router = Router::new(CONFIG);
        slow_down(&mut router, Default);
        assert_eq!(router.decide(0, YOUNG), Send(Default), "nothing was sent there for long");
        router.sent(Default, 0);
        assert_eq!(router.decide(0, YOUNG), Send(Fallback));
        assert_eq!(router.decide(9000, YOUNG), Send(Fallback), "one probe at a time");
        router.answered(Default, 1500, 1500, Outcome::Succeeded);
        assert_eq!(router.decide(1500, YOUNG), Send(Default));
        router.sent(Default, 1500);
        router.answered(Default, 1510, 10, Outcome::Succeeded);
        assert_eq!(router.decide(1510, YOUNG), Send(Default), "it is fast again");
        slow_down(&mut router, Default);
        assert_eq!(router.decide(1500 + SLOW_PROBE_INTERVAL_MS - 1, YOUNG), Send(Fallback));
        assert_eq!(router.decide(1500 + SLOW_PROBE_INTERVAL_MS, YOUNG), Send(Default));
        router.heard(Default, 1511, Health { failing: false, min_response_ms: 0 });
        assert_eq!(router.decide(1511, YOUNG), Send(Default), "it says that it is fast again");
    }

    #[test]
    fn a_slow_processor_is_used_in_full_while_the_other_one_is_slow_too() {
        let mut router = Router::new(CONFIG);
        slow_down(&mut router, Default);
        slow_down(&mut router, Fallback);
        for _ in 0..CONFIG.in_flight_max {
            assert_eq!(router.decide(0, YOUNG), Send(Default));
            router.sent(Default, 0);
        }
        assert_eq!(router.decide(0, YOUNG), hold(1000));
        for _ in 0..CONFIG.in_flight_max {
            assert_eq!(router.decide(0, OLD), Send(Fallback));
            router.sent(Fallback, 0);
        }
        assert_eq!(router.decide(0, OLD), Decision::Hold { until_ms: None });
    }

    #[test]
    fn a_slow_processor_is_used_in_full_while_the_other_one_fails() {
        for (slow, failing, backlog) in [(Default, Fallback, YOUNG), (Fallback, Default, OLD)] {
            let mut router = Router::new(CONFIG);
            slow_down(&mut router, slow);
            fail(&mut router, failing, 0);
            for _ in 0..CONFIG.in_flight_max {
                assert_eq!(router.decide(0, backlog), Send(slow));
                router.sent(slow, 0);
            }
            assert_eq!(router.decide(PROBE_INTERVAL_MS, backlog), Send(failing), "a probe");
        }
    }

    #[test]
    fn a_payment_that_only_a_slow_processor_may_have_goes_there() {
        let mut router = Router::new(CONFIG);
        slow_down(&mut router, Default);
        for _ in 0..CONFIG.in_flight_max {
            assert_eq!(router.decide_for(Default, 0), Send(Default));
            router.sent(Default, 0);
        }
        assert_eq!(router.decide_for(Default, 0), Decision::Hold { until_ms: None });
    }

    #[test]
    fn a_fast_processor_that_is_full_is_waited_for_before_a_slow_one_is_used() {
        for fees_bp in [[500, 1500], [500, 500]] {
            for (full, slow) in [(Default, Fallback), (Fallback, Default)] {
                let mut router = Router::new(RouterConfig { fees_bp, ..CONFIG });
                router.sent(slow, 0);
                slow_down(&mut router, slow);
                fill(&mut router, full);
                assert_eq!(router.decide(0, YOUNG), hold(1000), "{full} is full");
                assert_eq!(router.decide(0, OLD), Send(slow), "{full} is full");
            }
        }
    }

    #[test]
    fn a_patience_without_end_is_no_overflow() {
        let mut router = Router::new(RouterConfig { patience_ms: u64::MAX, ..CONFIG });
        fill(&mut router, Default);
        assert_eq!(router.decide(7, YOUNG), hold(u64::MAX));
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
        /// Whatever happens, an open breaker sees one probe at a time, the limit holds, a slow
        /// processor is used only while the other one cannot be, and the same inputs give the same
        /// decisions.
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
                let is_closed = |processor| router.breaker(processor) == BreakerState::Closed;
                let has_room = |processor| router.in_flight(processor) < CONFIG.in_flight_max;
                let is_usable = |processor| is_closed(processor) && has_room(processor);
                match decision {
                    Send(chosen) if router.is_slow(chosen) => {
                        let is_probe = router.in_flight(chosen) == 0;
                        let other = chosen.other();
                        let other_is_choice = is_usable(other) && !router.is_slow(other);
                        prop_assert!(is_probe || !other_is_choice, "a slow one is preferred");
                    }
                    Decision::Hold { .. } if is_usable(Default) => {
                        prop_assert!(router.is_slow(Default), "the cheaper one is not used");
                        prop_assert!(!router.is_slow(Fallback) && is_closed(Fallback));
                    }
                    _ => {}
                }
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
                            let min_response_ms = if step % 5 < 2 { 1500 } else { step };
                            let health = Health { failing: step % 3 == 0, min_response_ms };
                            router.heard(processor, now, health);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}
