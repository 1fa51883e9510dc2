//! What the metrics of all daemons say together: sums, extremes, and how long most things took.

use crate::gather::Reading;
use crate::text::{Family, Sample};

/// The readings of all daemons, to be asked.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    readings: &'a [Reading],
}

/// How long most of what a histogram counted took.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Quantiles {
    /// Half of them took at most this many seconds.
    pub p50_s: f64,
    /// 99 of 100 did.
    pub p99_s: f64,
}

impl<'a> Facts<'a> {
    /// Facts of these readings.
    #[must_use]
    pub fn of(readings: &'a [Reading]) -> Self {
        Self { readings }
    }

    /// Samples of a family that have these labels, over all daemons, with the daemon of each.
    pub fn samples(
        self,
        family: &str,
        labels: &[(&str, &str)],
    ) -> impl Iterator<Item = (&'a str, Sample<'a>)> {
        let samples = self.readings.iter().flat_map(move |Reading { daemon, metrics }| {
            let family = metrics.as_ref().ok().and_then(|metrics| metrics.family(family));
            let samples = family.into_iter().flat_map(Family::samples);
            samples.map(move |sample| (daemon.as_str(), sample))
        });
        samples.filter(move |(_, sample)| {
            labels.iter().all(|(name, value)| sample.label(name) == Some(value))
        })
    }

    /// The sum of whole numbers, of counters or gauges, or the most that there is of it.
    #[must_use]
    pub fn sum(self, family: &str, labels: &[(&str, &str)]) -> u64 {
        let samples = self.samples(family, labels);
        let counts = samples.filter_map(|(_, sample)| sample.value.parse::<u64>().ok());
        counts.fold(0, u64::saturating_add)
    }

    /// The greatest value, if there is one.
    #[must_use]
    pub fn max(self, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let samples = self.samples(family, labels);
        samples.filter_map(|(_, sample)| sample.value.parse().ok()).max_by(f64::total_cmp)
    }

    /// The whole number that all of them tell, if they tell the same.
    #[must_use]
    pub fn agreed(self, family: &str, labels: &[(&str, &str)]) -> Option<u64> {
        let mut values = self.samples(family, labels).map(|(_, sample)| sample.value);
        let first = values.next()?;
        values.all(|value| value == first).then(|| first.parse().ok()).flatten()
    }

    /// Daemons of which this value is 0.
    pub fn zero_at(self, family: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &'a str> {
        let zeros = self.samples(family, labels).filter(|(_, sample)| sample.value == "0");
        zeros.map(|(daemon, _)| daemon)
    }

    /// How long most took, if there was anything: within the bucket that is meant it is taken that
    /// durations are spread evenly, and what is above all bounds is told as the last of them.
    #[must_use]
    pub fn quantiles(self, histogram: &str, labels: &[(&str, &str)]) -> Option<Quantiles> {
        let buckets = self.buckets(histogram, labels);
        Some(Quantiles { p50_s: quantile(&buckets, 0.5)?, p99_s: quantile(&buckets, 0.99)? })
    }

    /// The bounds of a histogram in seconds, and how many durations do not exceed each.
    #[must_use]
    pub fn buckets(self, histogram: &str, labels: &[(&str, &str)]) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        let samples = self.samples(histogram, labels).map(|(_, sample)| sample);
        for sample in samples.filter(|sample| sample.suffix == "_bucket") {
            let bound = sample.label("le").and_then(|bound| bound.parse::<f64>().ok());
            let (Some(bound), Ok(count)) = (bound, sample.value.parse::<f64>()) else { continue };
            match buckets.iter_mut().find(|(other, _)| other.total_cmp(&bound).is_eq()) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
        buckets
    }
}

/// How long this part of what is in the buckets took at most, if there is anything in them.
#[must_use]
pub fn quantile(buckets: &[(f64, f64)], part: f64) -> Option<f64> {
    let total = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let rank = total * part;
    let (mut below_s, mut below_count) = (0.0, 0.0);
    for (bound_s, count) in buckets {
        if *count >= rank && bound_s.is_finite() {
            return Some(
                below_s + (bound_s - below_s) * (rank - below_count) / (count - below_count),
            );
        }
        if bound_s.is_finite() {
            (below_s, below_count) = (*bound_s, *count);
        }
    }
    Some(below_s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gather::DaemonDown;
    use crate::text::Exposition;

    fn reading(daemon: &str, text: &str) -> Reading {
        let metrics = Ok(Exposition::parse(format!("{text}# EOF\n")).unwrap());
        Reading { daemon: daemon.to_owned(), metrics }
    }

    #[test]
    fn sums_and_extremes_are_over_all_daemons_that_answer() {
        let text = |one, other, age| {
            format!(
                "# HELP a A\n# TYPE a counter\na_total{{p=\"x\"}} {one}\na_total{{p=\"y\"}} {other}\n\
                 # HELP b B\n# TYPE b gauge\nb {age}\n"
            )
        };
        let down = Reading { daemon: "c".to_owned(), metrics: Err(DaemonDown::Silent) };
        let readings = [reading("a", &text(1, 2, "0.5")), down, reading("b", &text(10, 20, "0"))];
        let facts = Facts::of(&readings);
        assert_eq!((facts.sum("a", &[]), facts.sum("a", &[("p", "y")])), (33, 22));
        assert_eq!((facts.max("b", &[]), facts.max("c", &[])), (Some(0.5), None));
        assert_eq!((facts.agreed("a", &[]), facts.agreed("c", &[])), (None, None));
        let same = [reading("a", &text(7, 2, "0")), reading("b", &text(7, 3, "0"))];
        assert_eq!(Facts::of(&same).agreed("a", &[("p", "x")]), Some(7));
        assert_eq!(facts.zero_at("b", &[]).collect::<Vec<_>>(), ["b"]);
        let most = [reading("a", &text(u64::MAX, 0, "0")), reading("b", &text(1, 0, "0"))];
        assert_eq!(Facts::of(&most).sum("a", &[]), u64::MAX);
    }

    #[test]
    fn quantiles_lie_within_the_bucket_in_which_they_fall() {
        let text = |one, two, all| {
            format!(
                "# HELP h H\n# TYPE h histogram\nh_sum 1\nh_count {all}\nh_bucket{{le=\"0.1\"}} {one}\n\
                 h_bucket{{le=\"0.2\"}} {two}\nh_bucket{{le=\"+Inf\"}} {all}\n"
            )
        };
        let quantiles = |readings: &[Reading]| Facts::of(readings).quantiles("h", &[]);
        assert_eq!(quantiles(&[]), None);
        assert_eq!(quantiles(&[reading("a", &text(0, 0, 0))]), None);
        // 60 below 0.1 s and 40 up to 0.2 s.
        let two = [reading("a", &text(40, 50, 50)), reading("b", &text(20, 50, 50))];
        let Quantiles { p50_s, p99_s } = quantiles(&two).unwrap();
        assert!((p50_s - 0.1 * 50.0 / 60.0).abs() < 1e-9, "{p50_s}");
        assert!((p99_s - (0.1 + 0.1 * 39.0 / 40.0)).abs() < 1e-9, "{p99_s}");
        // All above the last bound.
        let above = [reading("a", &text(0, 0, 5))];
        assert_eq!(quantiles(&above), Some(Quantiles { p50_s: 0.2, p99_s: 0.2 }));
    }
}
