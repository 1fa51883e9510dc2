//! The laboratory's figures: one line for each family, and the means over all.

use std::fmt;

use serde::Serialize;

use super::{Contender, FamilyResult, Judged};

/// A family's figures.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyFigures {
    /// Its name.
    pub family: &'static str,
    /// Means of the net as a share of the clairvoyant's, by [`Contender::ALL`].
    pub shares: Vec<f64>,
    /// The router's worst.
    pub worst: f64,
    /// What the router earned in the mean, in payments without a fee.
    pub net: f64,
    /// Default's share of what the router settled.
    pub default_share: f64,
    /// Payments that the router missed, in the mean.
    pub missed: f64,
    /// The age of payments when they were settled: the mean of the runs' medians.
    pub age_ms_median: f64,
    /// The same of the slowest hundredth.
    pub age_ms_p99: f64,
    /// Runs of the router in which an audit found an inconsistency, as a share.
    pub inconsistent: f64,
    /// Calls in a second to a processor that had failed for a second already: the most.
    pub wasted_per_second_max: usize,
    /// From a recovery of default to the first payment that reached it: the median of the medians.
    pub notice_ms_median: Option<u64>,
    /// The longest.
    pub notice_ms_max: Option<u64>,
}

impl FamilyFigures {
    fn of(result: &FamilyResult) -> Self {
        let ours = &result.judged[0];
        let scores = || ours.iter().map(|judged| judged.score);
        let mut notices: Vec<_> = scores().filter_map(|score| score.notice_ms_median).collect();
        notices.sort_unstable();
        Self {
            family: result.family.name,
            shares: result.judged.iter().map(|runs| mean_of(runs, Judged::share)).collect(),
            worst: ours.iter().map(Judged::share).fold(f64::INFINITY, f64::min),
            net: mean_of(ours, |judged| judged.score.net),
            default_share: mean_of(ours, |judged| judged.score.default_share()),
            missed: mean_of(ours, |judged| float(judged.score.missed as u64)),
            age_ms_median: mean_of(ours, |judged| float(judged.score.age_ms_median)),
            age_ms_p99: mean_of(ours, |judged| float(judged.score.age_ms_p99)),
            inconsistent: mean_of(ours, |judged| {
                f64::from(u8::from(judged.score.inconsistencies > 0))
            }),
            wasted_per_second_max: scores().map(|s| s.wasted_per_second_max).max().unwrap_or(0),
            notice_ms_median: notices.get(notices.len() / 2).copied(),
            notice_ms_max: scores().filter_map(|score| score.notice_ms_max).max(),
        }
    }

    /// By how much the best fixed rule earns more than the router; negative where it earns less.
    #[must_use]
    pub fn behind_best_rule(&self) -> f64 {
        self.shares[1..].iter().copied().fold(0.0, f64::max) - self.shares[0]
    }
}

/// The figures of all families.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// By family.
    pub families: Vec<FamilyFigures>,
    /// Means over all families, by [`Contender::ALL`].
    pub means: Vec<f64>,
}

impl Report {
    /// The figures of these results.
    #[must_use]
    pub fn of(results: &[FamilyResult]) -> Self {
        let families: Vec<_> = results.iter().map(FamilyFigures::of).collect();
        let count = float(families.len().max(1) as u64);
        let mean = |contender: usize| {
            families.iter().map(|family| family.shares[contender]).sum::<f64>() / count
        };
        let means = (0..Contender::ALL.len()).map(mean).collect();
        Self { families, means }
    }

    /// The figures of one family.
    #[must_use]
    pub fn family(&self, name: &str) -> Option<&FamilyFigures> {
        self.families.iter().find(|family| family.family == name)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "net as a share of the clairvoyant's            | of the router:\n\
             {:<26} {:>7} {:>7} {:>7} {:>7} {:>7} | {:>7} {:>6} {:>7} {:>7} {:>6} {:>6} {:>11} {:>9}",
            "family",
            "router",
            "worst",
            "default",
            "failure",
            "health",
            "default",
            "missed",
            "age p50",
            "age p99",
            "incons",
            "wasted",
            "noticed ms",
            "net"
        )?;
        for family in &self.families {
            let notice = match (family.notice_ms_median, family.notice_ms_max) {
                (Some(median), Some(most)) => format!("{median} / {most}"),
                _ => String::new(),
            };
            let [router, default, failure, health] = family.shares[..] else {
                return Err(fmt::Error);
            };
            writeln!(
                formatter,
                "{:<26} {router:>7.4} {:>7.4} {default:>7.4} {failure:>7.4} {health:>7.4} | \
                 {:>6.1}% {:>6.0} {:>7.0} {:>7.0} {:>5.1}% {:>6} {notice:>11} {:>9.2}",
                family.family,
                family.worst,
                family.default_share * 100.0,
                family.missed,
                family.age_ms_median,
                family.age_ms_p99,
                family.inconsistent * 100.0,
                family.wasted_per_second_max,
                family.net,
            )?;
        }
        if let [router, default, failure, health] = self.means[..] {
            writeln!(
                formatter,
                "{:<26} {router:>7.4} {:>7} {default:>7.4} {failure:>7.4} {health:>7.4}",
                "mean", ""
            )?;
        }
        Ok(())
    }
}

fn mean_of(runs: &[Judged], value: impl Fn(&Judged) -> f64) -> f64 {
    runs.iter().map(value).sum::<f64>() / float(runs.len() as u64)
}

/// Counts and milliseconds are far below 2^32.
fn float(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}
