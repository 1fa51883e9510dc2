//! Several rounds as one: medians where a figure is a measurement, and the worst where it is a fault.

use sonic_rs::{JsonContainerTrait, JsonValueTrait, Value};

use super::figures::Round;

/// Figures of which the largest of all rounds counts, not the median: one fault is a fault.
const WORST: [&str; 15] = [
    "inconsistencies",
    "inconsistencies_rehearsal",
    "lag",
    "failed",
    "refused",
    "broken",
    "timed_out",
    "unsent",
    "lost",
    "duplicated",
    "altered",
    "unwanted",
    "bounds_wrong",
    "memory_peak_bytes",
    "memory_with_cache_peak_bytes",
];

/// Figures that are bad if a single round says so, and those that are good only if all do.
const ANY: [&str; 1] = ["disqualified"];

/// A figure over all rounds.
#[derive(Clone, Debug)]
pub struct Folded {
    /// Its name.
    pub key: String,
    /// The median, the worst, or whether it held.
    pub value: Value,
    /// The least and the most of it, where it is a number.
    pub spread: Option<[f64; 2]>,
}

/// All rounds of one system.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What it is called.
    pub subject: String,
    /// The rounds.
    pub rounds: Vec<Round>,
    /// The figures over all of them, in their order.
    pub figures: Vec<Folded>,
}

impl Summary {
    /// Sums up rounds of one system.
    #[must_use]
    pub fn new(rounds: Vec<Round>) -> Self {
        let all: Vec<_> = rounds
            .iter()
            .map(|round| sonic_rs::to_value(&round.figures).expect("figures are plain JSON"))
            .collect();
        let keys =
            all.first().and_then(Value::as_object).into_iter().flat_map(|first| first.iter());
        let figures = keys.map(|(key, _)| fold(key, &all)).collect();
        let subject = rounds.first().map(|round| round.subject.clone()).unwrap_or_default();
        Self { subject, rounds, figures }
    }

    /// A figure.
    #[must_use]
    pub fn figure(&self, key: &str) -> Option<&Folded> {
        self.figures.iter().find(|figure| figure.key == key)
    }
}

fn fold(key: &str, all: &[Value]) -> Folded {
    let values = || all.iter().filter_map(|figures| figures.get(key));
    let mut numbers: Vec<_> = values().filter_map(|value| Some((value.as_f64()?, value))).collect();
    numbers.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    if let (Some((least, _)), Some((most, worst))) = (numbers.first(), numbers.last()) {
        let middle = numbers[(numbers.len() - 1) / 2].1;
        let value = if WORST.contains(&key) { worst } else { &middle };
        let value = Value::clone(value);
        return Folded { key: key.to_owned(), value, spread: Some([*least, *most]) };
    }
    let truths: Vec<_> = values().filter_map(JsonValueTrait::as_bool).collect();
    let value = match truths[..] {
        [] => Value::new(),
        _ if ANY.contains(&key) => Value::from(truths.contains(&true)),
        _ => Value::from(!truths.contains(&false)),
    };
    Folded { key: key.to_owned(), value, spread: None }
}

#[cfg(test)]
mod tests {
    use super::super::figures::Figures;
    use super::*;

    fn round(p99_ms: f64, lost: u64, right: bool, cpu: Option<f64>) -> Round {
        let figures =
            Figures { p99_ms, lost, right, cpu_us_per_payment: cpu, ..Figures::default() };
        Round { subject: "s".to_owned(), figures, ..Round::default() }
    }

    #[test]
    fn measurements_have_medians_and_faults_their_worst() {
        let summary = Summary::new(vec![
            round(9.0, 0, true, Some(3.0)),
            round(1.0, 2, false, None),
            round(2.0, 0, true, Some(1.0)),
        ]);
        let value = |key: &str| summary.figure(key).unwrap().value.clone();
        assert_eq!(value("p99_ms").as_f64(), Some(2.0));
        assert_eq!(summary.figure("p99_ms").unwrap().spread, Some([1.0, 9.0]));
        assert_eq!(value("lost").as_u64(), Some(2));
        assert_eq!(value("right").as_bool(), Some(false));
        assert_eq!(value("cpu_us_per_payment").as_f64(), Some(1.0));
        assert!(value("memory_peak_bytes").is_null());
        assert_eq!(value("disqualified").as_bool(), Some(false));
    }
}
