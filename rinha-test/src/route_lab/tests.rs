use std::time::Duration;

use super::trace::MS;
use super::*;

/// Few seeds, so that the tests of a debug build end soon; the command runs more.
const SETTINGS: LabSettings = LabSettings {
    seeds: 3,
    from_seed: 1,
    families: Vec::new(),
    pictures: None,
    json: None,
    patience_ms: 30_000,
    in_flight_max: 384,
};

fn report(families: &[&str], seeds: u64) -> Report {
    let families = families.iter().map(|name| (*name).to_owned()).collect();
    Report::of(&run_all(&LabSettings { seeds, families, ..SETTINGS }))
}

#[test]
fn the_rehearsal_earns_almost_all_that_can_be_earned() {
    let report = report(&["rehearsal"], 10);
    assert!(report.families[0].worst >= 0.995, "{report}");
    assert!(report.families[0].inconsistent < f64::EPSILON, "{report}");
}

#[test]
fn over_all_families_the_router_earns_more_than_every_fixed_rule() {
    let report = report(&[], 3);
    assert!(report.means[0] >= 0.97, "{report}");
    for rule in &report.means[1..] {
        assert!(report.means[0] > *rule, "{report}");
    }
}

#[test]
fn a_recovery_is_noticed_soon_and_a_failing_processor_is_spared() {
    let report =
        report(&["rehearsal", "default-medium", "both-down-then-up", "down-to-the-end"], 6);
    for family in &report.families {
        assert!(family.wasted_per_second_max <= 20, "{report}");
        // One that says that it takes 2 s to fail is hardly probed: its next health check tells.
        let [median, max] = if family.family == "rehearsal" { [5_100; 2] } else { [100, 300] };
        assert!(family.notice_ms_median.is_none_or(|ms| ms <= median), "{report}");
        assert!(family.notice_ms_max.is_none_or(|ms| ms <= max), "{report}");
    }
}

/// A probe that takes 2 s and succeeds is seen by an audit that looks at the moment at which it lands.
#[test]
fn hardly_a_probe_is_recorded_late_when_a_slow_outage_ends() {
    let latest = Duration::from_millis(1500).as_micros();
    for seed in 0..10 {
        let down = |delay_ms| {
            let line = trace::Timeline::always(trace::Condition::UP);
            let began = 20_000 + 10 * seed;
            line.between(began * MS, 40_000 * MS, trace::Condition::DOWN.after(delay_ms))
        };
        let trace = Trace { timelines: [down(2000), down(1000)], ..rehearsal() };
        let config = router_config(&SETTINGS, &trace);
        let outcomes = run::run(&trace, seed, &|| Contender::Router.policy(&config));
        let recorded = outcomes.fates.iter().filter_map(|fate| Some((fate.recorded?.0, fate)));
        let late = recorded.filter(|(at, fate)| u128::from(at - fate.requested) >= latest).count();
        // One at most of each instance.
        assert!(late <= 2, "{late}");
        let score = score::score(&trace, seed, &outcomes);
        assert_eq!((score.inconsistencies, score.missed), (0, 0));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let once = || report(&["both-short", "errors-50", "too-many"], 2);
    assert_eq!(once(), once());
}

/// Nothing can beat the bound, whatever the rule and the trace.
#[test]
fn nobody_earns_more_than_the_bound() {
    for result in run_all(&LabSettings { seeds: 2, ..SETTINGS }) {
        for judged in result.judged.iter().flatten() {
            assert!(judged.score.net <= judged.clairvoyant + 1e-6, "{}", result.family.name);
        }
    }
}

#[test]
fn every_payment_is_settled_or_missed() {
    let trace = rehearsal();
    for contender in Contender::ALL {
        let score = judge(&SETTINGS, &trace, 7, contender).score;
        let total = score.settled.iter().sum::<usize>() + score.missed;
        assert_eq!(total, trace.arrivals.len(), "{}", contender.name());
    }
}

/// A processor that answers two seconds late, with payments landing one by one, cannot agree with our
/// books at every moment.
#[test]
fn an_audit_sees_payments_that_land_while_it_looks() {
    let slow = trace::Condition::UP.after(2000);
    let line = || trace::Timeline::always(slow);
    let trace = Trace { timelines: [line(), line()], ..rehearsal() };
    let judged = judge(&SETTINGS, &trace, 1, Contender::Fixed(Rule::DefaultOnly));
    assert!(judged.score.inconsistencies > 0);
}
