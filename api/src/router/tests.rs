use proptest::prelude::*;

use super::breaker::PROBES_MAX;
use super::state::{HEALTH_MS_MAX, SLOW_FAILURE_PROBE_PAUSE_MS};
use super::*;

const CONFIG: RouterConfig =
    RouterConfig { fees_bp: [500, 1500], patience_ms: 10_000, in_flight_max: 20, slow_ms: 1300 };

const YOUNG: Backlog = Backlog { oldest_age_ms: 0, count: 1 };
const OLD: Backlog = Backlog { oldest_age_ms: 10_000, count: 1 };

const WELL: Health = Health { failing: false, min_response_ms: 0 };
const FAILING: Health = Health { failing: true, min_response_ms: 0 };
const SLOW: Health = Health { failing: false, min_response_ms: 2000 };

use Decision::Send;
use Processor::{Default, Fallback};

/// A router for which both processors have worked just now, and payments come in as they do.
fn warm(config: RouterConfig, now_ms: u64) -> Router {
    let mut router = Router::new(config);
    for at_ms in now_ms.saturating_sub(1000)..=now_ms {
        router.arrived(at_ms);
    }
    for processor in Processor::ALL {
        succeed(&mut router, processor, now_ms, 1);
    }
    router
}

fn succeed(router: &mut Router, processor: Processor, now_ms: u64, latency_ms: u64) {
    router.sent(processor, now_ms - latency_ms);
    router.answered(processor, now_ms, latency_ms, Outcome::Succeeded);
}

fn fail(router: &mut Router, processor: Processor, now_ms: u64) {
    for _ in 0..FAILURES_TO_OPEN {
        router.sent(processor, now_ms);
        router.answered(processor, now_ms, 0, Outcome::Failed);
    }
}

fn until(decision: Decision) -> Option<u64> {
    match decision {
        Decision::Hold { until_ms } => until_ms,
        Send(processor) => panic!("it is sent to {processor}"),
    }
}

/// Payments come in every millisecond while this time passes.
fn pass(router: &mut Router, from_ms: u64, to_ms: u64) {
    for at_ms in from_ms..=to_ms {
        router.arrived(at_ms);
    }
}

#[test]
fn the_cheaper_processor_is_preferred() {
    assert_eq!(warm(CONFIG, 5000).decide(5000, OLD), Send(Default));
    let reversed = RouterConfig { fees_bp: [1500, 500], ..CONFIG };
    assert_eq!(warm(reversed, 5000).decide(5000, YOUNG), Send(Fallback));
}

#[test]
fn while_default_fails_payments_wait_for_it_up_to_the_patience() {
    let mut router = warm(CONFIG, 5000);
    fail(&mut router, Default, 5000);
    assert_eq!(until(router.decide(5000, YOUNG)), Some(5000 + PROBE_INTERVAL_MS));
    assert_eq!(router.reason(), Reason::WaitingPays);
    let backlog = Backlog { oldest_age_ms: 9_990, count: 1 };
    assert_eq!(until(router.decide(5000, backlog)), Some(5010));
    assert_eq!(router.decide(5000, OLD), Send(Fallback));
    assert_eq!(router.reason(), Reason::PatienceIsOver);
}

#[test]
fn an_outage_that_has_lasted_too_long_is_not_waited_for() {
    let config = RouterConfig { patience_ms: u64::MAX, ..CONFIG };
    let mut router = warm(config, 5000);
    fail(&mut router, Default, 5000);
    let worth_ms = router.view(5000).outage_worth_ms;
    assert!((20_000..60_000).contains(&worth_ms), "{worth_ms}");
    pass(&mut router, 5001, 4000 + worth_ms);
    router.sent(Default, 4000 + worth_ms);
    assert!(matches!(router.decide(4000 + worth_ms, YOUNG), Decision::Hold { .. }));
    // Waiting is worth a little more as the router gets older.
    let later_ms = 2 * worth_ms;
    pass(&mut router, 4000 + worth_ms, later_ms);
    router.sent(Default, later_ms);
    assert_eq!(router.decide(later_ms, YOUNG), Send(Fallback));
    assert_eq!(router.reason(), Reason::WaitingDoesNotPay);
}

#[test]
fn when_the_load_stops_what_waits_is_settled() {
    let mut router = warm(CONFIG, 60_000);
    pass(&mut router, 1000, 60_000);
    fail(&mut router, Default, 60_000);
    let quiet_from_ms = router.load.quiet_from_ms();
    router.sent(Default, quiet_from_ms - 1);
    assert_eq!(until(router.decide(quiet_from_ms - 1, YOUNG)), Some(quiet_from_ms));
    assert_eq!(router.decide(quiet_from_ms, YOUNG), Send(Fallback));
    assert_eq!(router.reason(), Reason::LoadHasStopped);
}

#[test]
fn nobody_waits_where_both_cost_the_same() {
    let mut router = warm(RouterConfig { fees_bp: [500, 500], ..CONFIG }, 5000);
    fail(&mut router, Default, 5000);
    assert_eq!(router.decide(5000, YOUNG), Send(Fallback));
}

#[test]
fn an_open_breaker_lets_one_probe_through_in_each_interval() {
    let mut router = warm(CONFIG, 5000);
    fail(&mut router, Default, 5000);
    let now_ms = 5000 + PROBE_INTERVAL_MS;
    assert_eq!(router.decide(now_ms, YOUNG), Send(Default));
    router.sent(Default, now_ms);
    assert_eq!(until(router.decide(now_ms, YOUNG)), Some(now_ms + PROBE_INTERVAL_MS));
    router.answered(Default, now_ms + 5, 5, Outcome::Succeeded);
    assert_eq!(router.decide(now_ms + 5, YOUNG), Send(Default));
    assert_eq!(router.breaker(Default), BreakerState::Closed);
}

#[test]
fn a_probe_that_was_not_sent_after_all_does_not_stand_in_the_way() {
    let mut router = warm(CONFIG, 5000);
    fail(&mut router, Default, 5000);
    router.sent(Default, 5000 + PROBE_INTERVAL_MS);
    router.withdrawn(Default);
    assert_eq!(router.decide(5000 + PROBE_INTERVAL_MS, YOUNG), Send(Default));
}

#[test]
fn no_more_calls_are_in_flight_than_the_limit() {
    let mut router = warm(CONFIG, 5000);
    for _ in 0..CONFIG.in_flight_max {
        assert_eq!(router.decide(5000, YOUNG), Send(Default));
        router.sent(Default, 5000);
    }
    assert!(matches!(router.decide(5000, YOUNG), Decision::Hold { .. }));
    assert_eq!(router.decide(5000, OLD), Send(Fallback));
    let too_many = Backlog { oldest_age_ms: 0, count: 10_000_000 };
    assert_eq!(router.decide(5000, too_many), Send(Fallback));
    assert_eq!(router.reason(), Reason::CheaperIsFull);
    router.answered(Default, 5001, 1, Outcome::Succeeded);
    assert_eq!(router.decide(5001, YOUNG), Send(Default));
}

#[test]
fn a_processor_that_has_not_worked_yet_gets_a_few_calls_at_first() {
    let mut router = Router::new(CONFIG);
    let mut count = 0;
    while router.decide(0, YOUNG) == Send(Default) {
        router.sent(Default, 0);
        count += 1;
    }
    assert!((1..CONFIG.in_flight_max).contains(&count), "{count}");
    router.answered(Default, 1, 1, Outcome::Succeeded);
    for _ in router.in_flight(Default)..CONFIG.in_flight_max {
        assert_eq!(router.decide(1, YOUNG), Send(Default));
        router.sent(Default, 1);
    }
}

#[test]
fn a_processor_that_has_too_much_to_do_gets_fewer_calls_at_a_time() {
    let mut router = warm(CONFIG, 5000);
    for _ in 0..CONFIG.in_flight_max {
        router.sent(Default, 5000);
    }
    for _ in 0..CONFIG.in_flight_max {
        router.answered(Default, 5010, 10, Outcome::Overloaded);
    }
    assert_eq!(router.breaker(Default), BreakerState::Closed);
    assert_eq!(router.view(5010).processors[0].limit, CONFIG.in_flight_max / 2);
}

#[test]
fn one_that_always_has_too_much_to_do_is_failing() {
    let mut router = warm(CONFIG, 5000);
    for step in 1..20 {
        router.sent(Default, 5000 + step);
        router.answered(Default, 5001 + step, 1, Outcome::Overloaded);
    }
    assert_ne!(router.breaker(Default), BreakerState::Closed);
}

#[test]
fn a_processor_that_falls_silent_gets_probes_only_and_then_counts_as_slow() {
    let mut router = warm(CONFIG, 5000);
    router.sent(Default, 5000);
    assert_eq!(router.decide(5090, YOUNG), Send(Default));
    assert_eq!(router.decide(5110, YOUNG), Send(Default), "a probe");
    router.sent(Default, 5110);
    assert_eq!(until(router.decide(5110, YOUNG)), Some(5110 + PROBE_INTERVAL_MS));
    assert!(!router.view(5110).processors[0].is_slow);
    assert!(router.view(5000 + CONFIG.slow_ms).processors[0].is_slow);
    // Failures do not break the silence.
    router.answered(Default, 5200, 200, Outcome::Failed);
    assert!(matches!(router.decide(5200, YOUNG), Decision::Hold { .. }));
    router.answered(Default, 5201, 91, Outcome::Succeeded);
    assert_eq!(router.decide(5201, YOUNG), Send(Default));
}

#[test]
fn a_slow_processor_is_waited_for_like_one_that_is_down() {
    let mut router = warm(CONFIG, 5000);
    router.heard(Default, 5000, SLOW);
    pass(&mut router, 5001, 6000);
    assert!(matches!(router.decide(6000, YOUNG), Decision::Hold { .. }));
    assert_eq!(router.decide(6000, OLD), Send(Fallback));
    router.heard(Default, 6001, WELL);
    assert_eq!(router.decide(6001, YOUNG), Send(Default), "it says that it is fast again");
}

#[test]
fn a_slow_processor_that_does_not_say_so_is_probed_now_and_then() {
    let mut router = warm(CONFIG, 5000);
    for _ in 0..10 {
        router.sent(Default, 5000);
    }
    for _ in 0..10 {
        router.answered(Default, 7000, 2000, Outcome::Succeeded);
    }
    pass(&mut router, 5001, 7000);
    assert_eq!(router.decide(7000, YOUNG), Send(Default), "nothing was sent for a while");
    router.sent(Default, 7000);
    let next_ms = 7000 + SLOW_PROBE_INTERVAL_MS;
    pass(&mut router, 7001, next_ms);
    assert!(matches!(router.decide(next_ms - 1, YOUNG), Decision::Hold { .. }));
    assert_eq!(router.decide(next_ms, YOUNG), Send(Default));
    router.heard(Default, next_ms, SLOW);
    assert!(matches!(router.decide(next_ms, YOUNG), Decision::Hold { .. }), "it says so itself");
    let stale_ms = next_ms + HEALTH_MS_MAX;
    assert_eq!(router.decide(stale_ms, YOUNG), Send(Default), "it said so long ago");
}

#[test]
fn where_only_a_slow_processor_works_it_is_used_in_convoys() {
    for (slow, other) in [(Default, Fallback), (Fallback, Default)] {
        let mut router = warm(CONFIG, 5000);
        router.heard(slow, 5000, SLOW);
        fail(&mut router, other, 5000);
        let mut count = 0;
        while router.decide(5010, OLD) == Send(slow) {
            router.sent(slow, 5010);
            count += 1;
        }
        assert_eq!(count, CONFIG.in_flight_max);
        for _ in 1..count {
            router.answered(slow, 7010, 2000, Outcome::Succeeded);
        }
        fail(&mut router, other, 7010);
        assert!(matches!(router.decide(7011, OLD), Decision::Hold { .. }), "one is still out");
        router.answered(slow, 7012, 2002, Outcome::Succeeded);
        assert_eq!(router.decide(7012, OLD), Send(slow));
    }
}

#[test]
fn a_payment_that_only_a_slow_processor_may_have_goes_there() {
    let mut router = warm(CONFIG, 5000);
    router.heard(Default, 5000, SLOW);
    for _ in 0..CONFIG.in_flight_max {
        assert_eq!(router.decide_for(Default, 5000), Send(Default));
        router.sent(Default, 5000);
    }
    assert!(matches!(router.decide_for(Default, 5000), Decision::Hold { .. }));
}

#[test]
fn a_patience_without_end_is_no_overflow() {
    let mut router = warm(RouterConfig { patience_ms: u64::MAX, ..CONFIG }, 5000);
    fail(&mut router, Default, 5000);
    assert!(until(router.decide(5000, YOUNG)).is_some());
}

#[test]
fn what_a_processor_says_of_itself_opens_its_breaker_and_has_it_probed_at_once() {
    let mut router = warm(CONFIG, 5000);
    assert!(router.heard(Default, 5000, FAILING));
    assert_eq!(until(router.decide(5000, YOUNG)), Some(5000 + PROBE_INTERVAL_MS));
    router.heard(Default, 5001, WELL);
    assert_eq!(router.decide(5001, YOUNG), Send(Default));
}

/// What it records late would be in the window of an audit that looks at that moment.
#[test]
fn a_processor_that_says_that_it_fails_slowly_is_probed_seldom_until_it_says_otherwise() {
    let failing = |min_response_ms| Health { failing: true, min_response_ms };
    for slow_ms in [CONFIG.slow_ms, u64::MAX] {
        let mut router = warm(CONFIG, 5000);
        router.heard(Default, 5000, failing(slow_ms));
        pass(&mut router, 5001, 10_000);
        assert!(matches!(router.decide(10_000, YOUNG), Decision::Hold { .. }));
        assert!(matches!(router.decide_for(Default, 10_000), Decision::Hold { .. }));
        for health in [WELL, FAILING, failing(CONFIG.slow_ms - 1)] {
            router.heard(Default, 10_001, health);
            assert_eq!(router.decide(10_001, YOUNG), Send(Default), "it would answer soon");
        }
        router.heard(Default, 10_002, failing(slow_ms));
        let stale_ms = 10_002 + HEALTH_MS_MAX;
        assert!(until(router.decide_for(Default, 10_002)).is_some_and(|at_ms| at_ms <= stale_ms));
        assert_eq!(router.decide_for(Default, stale_ms), Send(Default), "it said so long ago");
    }
}

#[test]
fn a_processor_that_says_for_ever_that_it_fails_slowly_and_works_is_found_out() {
    let mut router = warm(CONFIG, 5000);
    let mut probes = Vec::new();
    for now_ms in (5000..65_000).step_by(50) {
        if now_ms % 5000 == 0 {
            router.heard(Default, now_ms, Health { failing: true, min_response_ms: 2000 });
        }
        if router.decide_for(Default, now_ms) == Send(Default) {
            router.sent(Default, now_ms);
            router.answered(Default, now_ms, 0, Outcome::Failed);
            probes.push(now_ms);
        }
    }
    assert!((5..=6).contains(&probes.len()), "{probes:?}");
    let now_ms = probes[probes.len() - 1] + PROBE_INTERVAL_MS + SLOW_FAILURE_PROBE_PAUSE_MS;
    router.heard(Default, now_ms - 2, Health { failing: true, min_response_ms: 2000 });
    assert!(matches!(router.decide_for(Default, now_ms - 1), Decision::Hold { .. }));
    assert_eq!(router.decide_for(Default, now_ms), Send(Default));
    succeed(&mut router, Default, now_ms, 1);
    assert_eq!(router.decide(now_ms, YOUNG), Send(Default), "it works");
}

#[test]
fn a_processor_that_is_back_and_says_that_it_is_slow_gets_one_probe_at_a_time() {
    let mut router = warm(CONFIG, 5000);
    fail(&mut router, Default, 5000);
    router.heard(Default, 5000, SLOW);
    for (sent_at_ms, outcome) in [(5000, Outcome::Failed), (7000, Outcome::Overloaded)] {
        assert_eq!(router.decide_for(Default, sent_at_ms), Send(Default));
        router.sent(Default, sent_at_ms);
        let next = until(router.decide_for(Default, sent_at_ms + 1900));
        assert_eq!(next, Some(5000 + HEALTH_MS_MAX));
        router.answered(Default, sent_at_ms + 2000, 2000, outcome);
    }
    assert_eq!(router.decide_for(Default, 9000), Send(Default));
    router.sent(Default, 9000);
    router.answered(Default, 11_000, 2000, Outcome::Succeeded);
    assert_eq!(router.breaker(Default), BreakerState::Closed);
    assert!(router.view(11_000).processors[0].is_slow, "it says so, and it was");
    pass(&mut router, 5001, 11_000);
    assert!(matches!(router.decide(11_000, YOUNG), Decision::Hold { .. }));
}

#[test]
fn one_that_is_back_is_as_fast_as_it_says_or_as_it_was_whichever_is_faster() {
    for (says_ms, took_ms) in [(2000, 1), (20, 2000)] {
        let mut router = warm(CONFIG, 5000);
        fail(&mut router, Default, 5000);
        router.heard(Default, 5000, Health { failing: false, min_response_ms: says_ms });
        router.sent(Default, 5000);
        router.answered(Default, 5000 + took_ms, took_ms, Outcome::Succeeded);
        assert!(!router.view(5000 + took_ms).processors[0].is_slow, "{says_ms} {took_ms}");
    }
}

#[test]
fn with_both_down_a_payment_waits_for_the_first_probe() {
    let mut router = warm(CONFIG, 5000);
    fail(&mut router, Default, 5030);
    fail(&mut router, Fallback, 5000);
    assert_eq!(until(router.decide(5050, OLD)), Some(5000 + PROBE_INTERVAL_MS));
    assert_eq!(router.reason(), Reason::NeitherWorks);
    assert_eq!(router.decide(5000 + PROBE_INTERVAL_MS, OLD), Send(Fallback));
}

/// A probe that waited for the end of an outage took long for that reason alone.
#[test]
fn a_processor_that_is_back_is_not_slow_for_what_an_outage_took() {
    let mut router = warm(CONFIG, 5000);
    router.sent(Default, 5000);
    router.heard(Default, 5010, Health { failing: true, min_response_ms: 2000 });
    router.sent(Default, 6000);
    router.answered(Default, 8000, 2000, Outcome::Succeeded);
    assert_eq!(router.breaker(Default), BreakerState::Closed);
    assert_eq!(router.decide(8000, YOUNG), Send(Default));
    // Other calls from the outage.
    for _ in 0..20 {
        router.answered(Default, 8001, 3001, Outcome::Succeeded);
    }
    router.sent(Default, 8001);
    assert_eq!(router.decide(8001, YOUNG), Send(Default));
    // Calls that are made now tell how slow it is now.
    for _ in 0..20 {
        router.sent(Default, 8001);
        router.answered(Default, 10_001, 2000, Outcome::Succeeded);
    }
    assert!(router.view(10_001).processors[0].is_slow);
}

/// What a driver of the router does in a random run.
#[derive(Clone, Copy, Debug)]
enum Step {
    Arrive,
    Dispatch,
    Answer(Processor, Outcome),
    Hear(Processor, Health),
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let processor = || prop_oneof![Just(Default), Just(Fallback)];
    let outcome = prop_oneof![4 => Just(Outcome::Succeeded), 2 => Just(Outcome::Failed), 1 => Just(Outcome::Overloaded)];
    let health = (any::<bool>(), prop_oneof![Just(0), 0..3000_u64])
        .prop_map(|(failing, min_response_ms)| Health { failing, min_response_ms });
    let step = prop_oneof![
        4 => Just(Step::Arrive),
        8 => Just(Step::Dispatch),
        8 => (processor(), outcome).prop_map(|(processor, outcome)| Step::Answer(processor, outcome)),
        1 => (processor(), health).prop_map(|(processor, health)| Step::Hear(processor, health)),
    ];
    proptest::collection::vec((step, prop_oneof![Just(0), 0..50_u64, 0..3000_u64]), 1..400)
}

proptest! {
    /// Whatever happens: an open breaker sees one probe in each interval, and no more without an answer
    /// than may be; no more calls are in flight than the limit; the same inputs give the same
    /// decisions; a hold tells a time that is still to come; and while a processor can be used, no
    /// payment whose patience is over waits.
    #[test]
    fn whatever_happens_limits_hold_and_decisions_repeat(steps in steps()) {
        let (mut router, mut twin) = (Router::new(CONFIG), Router::new(CONFIG));
        let mut now_ms = 0;
        let mut waiting: Vec<u64> = Vec::new();
        let mut in_flight: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
        let mut probed_at_ms: [Option<u64>; 2] = [None, None];
        for (step, pause_ms) in steps {
            now_ms += pause_ms;
            match step {
                Step::Arrive => {
                    router.arrived(now_ms);
                    twin.arrived(now_ms);
                    waiting.push(now_ms);
                }
                Step::Dispatch => {
                    let Some(oldest_ms) = waiting.first().copied() else { continue };
                    let backlog = Backlog { oldest_age_ms: now_ms - oldest_ms, count: waiting.len() };
                    let decision = router.decide(now_ms, backlog);
                    prop_assert_eq!(decision, twin.decide(now_ms, backlog));
                    match decision {
                        Send(chosen) => {
                            let index = chosen.index();
                            if router.breaker(chosen) != BreakerState::Closed {
                                let after_ms = probed_at_ms[index].map(|at_ms| now_ms - at_ms);
                                let is_due = after_ms.is_none_or(|ms| ms >= PROBE_INTERVAL_MS);
                                prop_assert!(is_due, "probed again after {after_ms:?} ms");
                                probed_at_ms[index] = Some(now_ms);
                            }
                            let limit = router.view(now_ms).processors[index].limit;
                            prop_assert!(limit <= CONFIG.in_flight_max);
                            let probes_max = usize::try_from(limit.max(PROBES_MAX)).unwrap();
                            prop_assert!(in_flight[index].len() < probes_max);
                            in_flight[index].push(now_ms);
                            waiting.remove(0);
                            router.sent(chosen, now_ms);
                            twin.sent(chosen, now_ms);
                        }
                        Decision::Hold { until_ms } => {
                            prop_assert!(until_ms.is_none_or(|until_ms| until_ms > now_ms));
                            let is_late = backlog.oldest_age_ms >= CONFIG.patience_ms;
                            let has_cold_room = |index: usize| in_flight[index].is_empty();
                            for processor in Processor::ALL {
                                let view = router.view(now_ms).processors[processor.index()];
                                let works = view.breaker == BreakerState::Closed && !view.is_slow;
                                let idle = has_cold_room(processor.index());
                                prop_assert!(!(is_late && works && idle), "{processor} is idle");
                            }
                        }
                    }
                }
                Step::Answer(processor, outcome) => {
                    let Some(sent_ms) = in_flight[processor.index()].pop() else { continue };
                    let latency_ms = now_ms - sent_ms;
                    for router in [&mut router, &mut twin] {
                        router.answered(processor, now_ms, latency_ms, outcome);
                    }
                    if router.breaker(processor) == BreakerState::Closed {
                        probed_at_ms[processor.index()] = None;
                    }
                    if outcome != Outcome::Succeeded {
                        waiting.insert(0, sent_ms);
                    }
                }
                Step::Hear(processor, health) => {
                    for router in [&mut router, &mut twin] {
                        router.heard(processor, now_ms, health);
                    }
                    // It asks for a probe at once.
                    probed_at_ms[processor.index()] = None;
                }
            }
            for processor in Processor::ALL {
                let count = u32::try_from(in_flight[processor.index()].len()).unwrap();
                prop_assert_eq!(router.in_flight(processor), count);
            }
        }
    }
}
