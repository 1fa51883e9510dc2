//! How long most payments took to be accepted lately: the difference of two looks at the histograms,
//! where the status tells of all time since each API was started.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

use crate::gather::Reading;
use crate::status::facts::{Facts, quantile};

/// Of how long a time is told.
pub const RECENT: Duration = Duration::from_secs(10);

const ACCEPT: &str = "router_accept_seconds";

/// The bounds of a histogram in seconds, and how many durations do not exceed each.
type Buckets = Vec<(f64, f64)>;

/// What one API had counted, and since when.
#[derive(Clone, Debug)]
struct Counted {
    started: Option<String>,
    buckets: Buckets,
}

type Look = BTreeMap<String, Counted>;

/// What was counted at the looks of the last seconds.
#[derive(Debug, Default)]
pub struct Recent {
    looks: VecDeque<(Duration, Look)>,
}

/// How long most took.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct RecentTimes {
    /// Of how many seconds this is.
    pub seconds: f64,
    /// Half of them took at most this long.
    pub accept_p50_ms: Option<f64>,
    /// 99 of 100 did.
    pub accept_p99_ms: Option<f64>,
}

impl Recent {
    /// Takes in what all daemons told at this time, and says what was new. Nothing is known at the
    /// first look.
    pub fn add(&mut self, now: Duration, readings: &[Reading]) -> Option<RecentTimes> {
        let look = look(readings);
        // The one before all others is the first within the time.
        while self.looks.len() > 1 && self.looks[1].0 + RECENT <= now {
            self.looks.pop_front();
        }
        let times = self.looks.front().map(|(at, before)| {
            let gained = gained(before, &look);
            let part = |part| quantile(&gained, part).map(|seconds| seconds * 1e3);
            RecentTimes {
                seconds: now.saturating_sub(*at).as_secs_f64(),
                accept_p50_ms: part(0.5),
                accept_p99_ms: part(0.99),
            }
        });
        self.looks.push_back((now, look));
        times
    }
}

fn look(readings: &[Reading]) -> Look {
    let counted = |reading: &Reading| {
        let of_daemon = Facts::of(std::slice::from_ref(reading));
        let mut started = of_daemon.samples("process_start_time_seconds", &[]);
        Counted {
            started: started.next().map(|(_, sample)| sample.value.to_owned()),
            buckets: of_daemon.buckets(ACCEPT, &[]),
        }
    };
    readings.iter().map(|reading| (reading.daemon.clone(), counted(reading))).collect()
}

/// What was added at the daemons that were there both times. One that was started in between has
/// counted since then only.
fn gained(before: &Look, now: &Look) -> Buckets {
    let mut sums = Buckets::new();
    for (daemon, counted) in now {
        let Some(before) = before.get(daemon).filter(|before| !before.buckets.is_empty()) else {
            continue;
        };
        let is_anew = before.started != counted.started;
        for (place, (bound_s, count)) in counted.buckets.iter().enumerate() {
            let counted_before = before.buckets.get(place).map_or(0.0, |(_, count)| *count);
            let count = if is_anew { *count } else { (count - counted_before).max(0.0) };
            match sums.iter_mut().find(|(other_s, _)| other_s.total_cmp(bound_s).is_eq()) {
                Some((_, sum)) => *sum += count,
                None => sums.push((*bound_s, count)),
            }
        }
    }
    sums.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Exposition;

    /// An API that was started at this time and has accepted so many payments in up to 1 ms, and so
    /// many in up to 10 ms.
    fn api(name: &str, started: u32, fast: u32, slow: u32) -> Reading {
        let all = fast + slow;
        let text = format!(
            "# HELP process_start_time_seconds S\n# TYPE process_start_time_seconds gauge\n\
             process_start_time_seconds {started}\n\
             # HELP {ACCEPT} A\n# TYPE {ACCEPT} histogram\n{ACCEPT}_sum 1\n{ACCEPT}_count {all}\n\
             {ACCEPT}_bucket{{le=\"0.001\"}} {fast}\n{ACCEPT}_bucket{{le=\"0.01\"}} {all}\n\
             {ACCEPT}_bucket{{le=\"+Inf\"}} {all}\n# EOF\n"
        );
        Reading { daemon: name.to_owned(), metrics: Ok(Exposition::parse(text).unwrap()) }
    }

    fn p50_ms(recent: &mut Recent, second: u64, readings: &[Reading]) -> Option<f64> {
        recent.add(Duration::from_secs(second), readings).and_then(|times| times.accept_p50_ms)
    }

    #[test]
    fn only_what_was_counted_in_the_last_seconds_is_told() {
        let mut recent = Recent::default();
        assert_eq!(p50_ms(&mut recent, 0, &[api("api-1", 1, 1_000_000, 0)]), None);
        // All that is new is slow.
        let slow_ms = p50_ms(&mut recent, 1, &[api("api-1", 1, 1_000_000, 10)]).unwrap();
        assert!(slow_ms > 1.0, "{slow_ms}");
        // Nothing was new for longer than that.
        assert_eq!(p50_ms(&mut recent, 11, &[api("api-1", 1, 1_000_000, 10)]), None);
        let fast_ms = p50_ms(&mut recent, 12, &[api("api-1", 1, 1_000_010, 10)]).unwrap();
        assert!(fast_ms <= 1.0, "{fast_ms}");
    }

    #[test]
    fn an_api_that_began_anew_counts_what_it_has_and_one_that_comes_back_counts_nothing() {
        let mut recent = Recent::default();
        let both = [api("api-1", 1, 100, 100), api("api-2", 1, 100, 100)];
        assert_eq!(p50_ms(&mut recent, 0, &both), None);
        let anew = [api("api-1", 2, 9, 0), api("api-2", 1, 100, 100)];
        let times = recent.add(Duration::from_secs(1), &anew).unwrap();
        assert!(times.accept_p99_ms.unwrap() <= 1.0, "{times:?}");
        let mut recent = Recent::default();
        let gone =
            Reading { daemon: "api-1".to_owned(), metrics: Err(crate::gather::DaemonDown::Silent) };
        assert_eq!(p50_ms(&mut recent, 0, &[gone]), None);
        assert_eq!(p50_ms(&mut recent, 1, &[api("api-1", 1, 100, 100)]), None);
    }
}
