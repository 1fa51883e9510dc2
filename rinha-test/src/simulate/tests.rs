use clap::ValueEnum;

use super::*;

const SEEDS: u64 = 3_000;

fn settings(sabotage: Option<Sabotage>) -> SimulateSettings {
    SimulateSettings { seeds: SEEDS, from_seed: 1, seed: None, sabotage }
}

#[test]
fn every_promise_is_kept() {
    let report = simulate_all(&settings(None), |_| {});
    assert!(report.violations.is_empty(), "{report}");
    assert_eq!(report.seeds, SEEDS);
    // Nothing is proven by what does not happen.
    for (name, number) in report.count.named() {
        assert!(number > SEEDS / 100, "{name}: {number}");
    }
}

#[test]
fn every_sabotage_is_noticed() {
    for sabotage in Sabotage::value_variants() {
        let report = simulate_all(&settings(Some(*sabotage)), |_| {});
        assert!(!report.violations.is_empty(), "{sabotage:?}");
    }
}

#[test]
fn a_seed_is_the_same_story_every_time() {
    for seed in 1..50 {
        let [first, second] = [(); 2].map(|()| simulate(seed, None, true));
        assert_eq!(first.story, second.story, "seed {seed}");
        assert_eq!(first.digest, second.digest, "seed {seed}");
    }
    assert_ne!(simulate(1, None, false).digest, simulate(2, None, false).digest);
}
