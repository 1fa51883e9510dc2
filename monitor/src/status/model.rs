//! How the router is, as a pure function of what its daemons told: the figures, and a sentence for each
//! thing that is not well.

use ledger::{Cents, Processor};
use serde::Serialize;

use super::facts::{Facts, Quantiles};
use crate::gather::Reading;

/// Payments that wait for longer make the router degraded, in seconds. It is what a payment may wait for
/// the cheaper processor unless set otherwise.
pub const BACKLOG_AGE_MAX_S: f64 = 30.0;

/// A store that is further behind the journals makes the router degraded, in records.
pub const BEHIND_RECORDS_MAX: u64 = 100_000;

/// How the router is as a whole.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All is well.
    Well,
    /// It has problems.
    Degraded,
    /// No daemon is known.
    Unknown,
}

/// Everything that is told.
#[derive(Serialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// As a whole.
    pub health: Health,
    /// What is not well, a sentence each.
    pub problems: Vec<String>,
    /// Payments, over all APIs since each was started.
    pub payments: Payments,
    /// By [`Processor::index`].
    pub processors: Vec<ProcessorStatus>,
    /// The store, if it answers.
    pub store: Option<StoreStatus>,
    /// All daemons that are known.
    pub daemons: Vec<DaemonStatus>,
    /// What went on since the last look, where there was one.
    pub rates: Option<Rates>,
}

/// Payments.
#[derive(Serialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Payments {
    pub accepted: u64,
    pub settled: u64,
    pub refused: u64,
    pub duplicate: u64,
    /// Accepted and not closed.
    pub backlog: u64,
    /// For how long the oldest of them that waits has been accepted.
    pub oldest_age_s: f64,
    /// From a payment read to its 202.
    pub accept_p50_ms: Option<f64>,
    pub accept_p99_ms: Option<f64>,
    /// From accepted to settled.
    pub settle_p50_ms: Option<f64>,
    pub settle_p99_ms: Option<f64>,
}

/// A processor, as all APIs see it together.
#[derive(Serialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ProcessorStatus {
    pub name: String,
    /// The least closed that any API has.
    pub breaker: &'static str,
    /// What the processor said last of itself; absent before it was asked.
    pub failing: Option<bool>,
    pub min_response_ms: Option<f64>,
    pub in_flight: u64,
    pub settled: u64,
    /// In cents.
    pub settled_cents: u64,
    pub call_p50_ms: Option<f64>,
    pub call_p99_ms: Option<f64>,
}

impl ProcessorStatus {
    /// What was settled, as an amount.
    #[must_use]
    pub fn settled_amount(&self) -> Cents {
        Cents::new(i64::try_from(self.settled_cents).unwrap_or(i64::MAX))
    }
}

/// The store.
#[derive(Serialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    /// Records in the journals that it has not read.
    pub behind_records: u64,
    /// Settled payments that it has read and that are not in its database.
    pub unapplied_payments: u64,
}

/// A daemon.
#[derive(Serialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct DaemonStatus {
    pub name: String,
    pub up: bool,
    /// Why nothing is known of it.
    pub why: Option<String>,
    pub resident_bytes: Option<u64>,
    /// Since it was started.
    pub cpu_s: Option<f64>,
    /// When it was started, in seconds since 1970.
    pub started_at_s: Option<f64>,
    /// The CPUs that it used since the last look, where there was one.
    pub cpus: Option<f64>,
}

/// What went on since the last look.
#[derive(Serialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Rates {
    pub accepted_per_s: f64,
    pub settled_per_s: f64,
    pub refused_per_s: f64,
}

/// Breakers, the worst last.
const BREAKERS: [(&str, &str); 3] =
    [("closed", "closed"), ("half_open", "half-open"), ("open", "open")];

impl Status {
    /// What these readings say.
    #[must_use]
    pub fn of(readings: &[Reading]) -> Self {
        let facts = Facts::of(readings);
        let mut status = Self {
            health: Health::Unknown,
            problems: Vec::new(),
            payments: Payments::of(facts),
            processors: Processor::ALL
                .map(|processor| ProcessorStatus::of(facts, &processor.to_string()))
                .to_vec(),
            store: StoreStatus::of(facts),
            daemons: readings.iter().map(|reading| DaemonStatus::of(facts, reading)).collect(),
            rates: None,
        };
        status.problems = status.problems(facts);
        status.health = match (readings.is_empty(), status.problems.is_empty()) {
            (true, _) => Health::Unknown,
            (false, true) => Health::Well,
            (false, false) => Health::Degraded,
        };
        status
    }

    /// Adds what went on since an earlier look, `seconds` ago. A daemon that was started in between has
    /// counted since then only.
    pub fn compare(&mut self, before: &Self, seconds: f64) {
        let per_s = |now: u64, before: u64| count(now.saturating_sub(before)) / seconds;
        self.rates = Some(Rates {
            accepted_per_s: per_s(self.payments.accepted, before.payments.accepted),
            settled_per_s: per_s(self.payments.settled, before.payments.settled),
            refused_per_s: per_s(self.payments.refused, before.payments.refused),
        });
        for daemon in &mut self.daemons {
            let before = before.daemons.iter().find(|other| other.name == daemon.name);
            let cpu_before_s = before.and_then(|before| before.cpu_s);
            let spent_s = daemon.cpu_s.zip(cpu_before_s).map(|(now, before)| now - before);
            daemon.cpus = spent_s.map(|spent_s| spent_s.max(0.0) / seconds);
        }
    }

    /// Whether the store has much to read. One that was asked nothing for a while may have, and reads on
    /// once its metrics are read.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.behind_records > BEHIND_RECORDS_MAX)
    }

    fn problems(&self, facts: Facts<'_>) -> Vec<String> {
        let mut problems: Vec<String> = Vec::new();
        for daemon in &self.daemons {
            if let Some(why) = &daemon.why {
                problems.push(format!("{} is down: {why}", daemon.name));
            }
        }
        for api in facts.zero_at("router_accepting", &[]) {
            problems
                .push(format!("{api} takes no payments: its journal cannot be written or synced"));
        }
        for api in facts.zero_at("router_store_connected", &[]) {
            problems.push(format!("{api} is not connected to the store"));
        }
        for (_, sample) in facts.samples("router_lb_api_alive", &[]) {
            if sample.value == "0" {
                let api = sample.label("api").unwrap_or_default();
                problems.push(format!("the balancer passes {api} over: it is away or ending"));
            }
        }
        for processor in &self.processors {
            if processor.breaker != "closed" {
                let ProcessorStatus { name, breaker, .. } = processor;
                problems.push(format!("the breaker of the {name} processor is {breaker}"));
            }
        }
        let oldest_age_s = self.payments.oldest_age_s;
        if oldest_age_s > BACKLOG_AGE_MAX_S {
            problems.push(format!("a payment has waited for {oldest_age_s:.0} s"));
        }
        if let Some(store) = self.store.as_ref().filter(|_| self.is_behind()) {
            let records = store.behind_records;
            problems.push(format!("the store is {records} records behind the journals"));
        }
        problems
    }
}

impl Payments {
    fn of(facts: Facts<'_>) -> Self {
        let (accept_p50_ms, accept_p99_ms) =
            milliseconds(facts.quantiles("router_accept_seconds", &[]));
        let (settle_p50_ms, settle_p99_ms) =
            milliseconds(facts.quantiles("router_settle_seconds", &[]));
        Self {
            accepted: facts.sum("router_payments_accepted", &[]),
            settled: facts.sum("router_payments_settled", &[]),
            refused: facts.sum("router_payments_refused", &[]),
            duplicate: facts.sum("router_payments_duplicate", &[]),
            backlog: facts.sum("router_backlog_payments", &[]),
            oldest_age_s: facts.max("router_backlog_oldest_age_seconds", &[]).unwrap_or(0.0),
            accept_p50_ms,
            accept_p99_ms,
            settle_p50_ms,
            settle_p99_ms,
        }
    }
}

impl ProcessorStatus {
    fn of(facts: Facts<'_>, name: &str) -> Self {
        let labels = [("processor", name)];
        let (call_p50_ms, call_p99_ms) =
            milliseconds(facts.quantiles("router_call_seconds", &labels));
        let is_in = |state| facts.sum("router_breaker_state", &[labels[0], ("state", state)]) > 0;
        let worst = BREAKERS.into_iter().rev().find(|(state, _)| is_in(state));
        let min_response_s = facts.max("router_processor_min_response_seconds", &labels);
        let failing = facts.max("router_processor_failing", &labels);
        Self {
            name: name.to_owned(),
            breaker: worst.map_or("unknown", |(_, words)| words),
            failing: failing.map(|failing| failing > 0.0),
            min_response_ms: min_response_s.map(|seconds| seconds * 1e3),
            in_flight: facts.sum("router_in_flight_calls", &labels),
            settled: facts.sum("router_payments_settled", &labels),
            settled_cents: facts.sum("router_settled_cents", &labels),
            call_p50_ms,
            call_p99_ms,
        }
    }
}

impl StoreStatus {
    fn of(facts: Facts<'_>) -> Option<Self> {
        facts.samples("router_store_apis", &[]).next()?;
        Some(Self {
            behind_records: facts.sum("router_store_behind_records", &[]),
            unapplied_payments: facts.sum("router_store_unapplied_payments", &[]),
        })
    }
}

impl DaemonStatus {
    fn of(facts: Facts<'_>, reading: &Reading) -> Self {
        let value = |family: &str| {
            let mut samples = facts.samples(family, &[]);
            samples.find(|(daemon, _)| *daemon == reading.daemon).map(|(_, sample)| &sample.value)
        };
        Self {
            name: reading.daemon.clone(),
            up: reading.families.is_ok(),
            why: reading.families.as_ref().err().map(ToString::to_string),
            resident_bytes: value("process_resident_memory_bytes")
                .and_then(|text| text.parse().ok()),
            cpu_s: value("process_cpu_seconds").and_then(|text| text.parse().ok()),
            started_at_s: value("process_start_time_seconds").and_then(|text| text.parse().ok()),
            cpus: None,
        }
    }
}

fn milliseconds(quantiles: Option<Quantiles>) -> (Option<f64>, Option<f64>) {
    (quantiles.map(|of| of.p50_s * 1e3), quantiles.map(|of| of.p99_s * 1e3))
}

/// A count to be reckoned with; nothing counts more than four thousand million things between two looks.
fn count(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::gather::DaemonDown;
    use crate::text::parse;

    /// A name, a kind, and samples: their labels as they are written, and their values.
    type Told<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

    fn reading(daemon: &str, families: &[Told<'_>]) -> Reading {
        let mut text = String::new();
        for (name, kind, samples) in families {
            writeln!(text, "# HELP {name} Help.\n# TYPE {name} {kind}").unwrap();
            for (labels, value) in *samples {
                let suffix = if *kind == "counter" { "_total" } else { "" };
                writeln!(text, "{name}{suffix}{labels} {value}").unwrap();
            }
        }
        let families = Ok(parse(&format!("{text}# EOF\n")).unwrap());
        Reading { daemon: daemon.to_owned(), families }
    }

    pub fn api(
        name: &str,
        accepted: &str,
        breaker: [&str; 3],
        age: &str,
        accepting: &str,
    ) -> Reading {
        let [closed, half_open, open] = breaker;
        reading(
            name,
            &[
                ("router_payments_accepted", "counter", &[("", accepted)]),
                (
                    "router_payments_settled",
                    "counter",
                    &[("{processor=\"default\"}", "5"), ("{processor=\"fallback\"}", "1")],
                ),
                ("router_settled_cents", "counter", &[("{processor=\"default\"}", "1234567")]),
                ("router_backlog_payments", "gauge", &[("", "3")]),
                ("router_backlog_oldest_age_seconds", "gauge", &[("", age)]),
                ("router_accepting", "gauge", &[("", accepting)]),
                ("router_store_connected", "gauge", &[("", "1")]),
                (
                    "router_breaker_state",
                    "gauge",
                    &[
                        ("{processor=\"default\",state=\"closed\"}", "1"),
                        ("{processor=\"fallback\",state=\"closed\"}", closed),
                        ("{processor=\"fallback\",state=\"open\"}", open),
                        ("{processor=\"fallback\",state=\"half_open\"}", half_open),
                    ],
                ),
                ("router_processor_failing", "gauge", &[("{processor=\"default\"}", "0")]),
                ("process_resident_memory_bytes", "gauge", &[("", "12582912")]),
                ("process_cpu_seconds", "counter", &[("", "1.5")]),
            ],
        )
    }

    pub const CLOSED: [&str; 3] = ["1", "0", "0"];
    const OPEN: [&str; 3] = ["0", "0", "1"];

    fn store(behind: &str) -> Reading {
        reading(
            "store",
            &[
                ("router_store_apis", "gauge", &[("", "2")]),
                ("router_store_behind_records", "gauge", &[("{api=\"api-1\"}", behind)]),
            ],
        )
    }

    #[test]
    fn payments_are_summed_and_a_router_without_problems_is_well() {
        let well = [
            api("api-1", "6", CLOSED, "1.5", "1"),
            api("api-2", "7", CLOSED, "0.0", "1"),
            store("9"),
        ];
        let status = Status::of(&well);
        assert_eq!((status.health, status.problems), (Health::Well, vec![]));
        let Payments { accepted, settled, backlog, oldest_age_s, .. } = status.payments;
        assert_eq!((accepted, settled, backlog), (13, 12, 6));
        assert!((oldest_age_s - 1.5).abs() < 1e-9);
        let [default, fallback] = &status.processors[..] else { panic!("two processors") };
        assert_eq!(
            (default.settled, default.settled_cents, default.breaker),
            (10, 2_469_134, "closed")
        );
        assert_eq!((default.failing, fallback.failing), (Some(false), None));
        assert_eq!(default.settled_amount().to_string(), "24691.34");
        assert_eq!(status.store.unwrap().behind_records, 9);
        assert_eq!(status.daemons[0].resident_bytes, Some(12 << 20));
    }

    #[test]
    fn each_problem_makes_it_degraded_and_is_told() {
        let well = || api("api-1", "6", CLOSED, "30.0", "1");
        let down = Reading { daemon: "lb".to_owned(), families: Err(DaemonDown::Silent) };
        let away = reading("api-2", &[("router_store_connected", "gauge", &[("", "0")])]);
        let lb = reading("lb", &[("router_lb_api_alive", "gauge", &[("{api=\"api-2\"}", "0")])]);
        for (other, problem) in [
            (down, "lb is down: it does not answer within 1s"),
            (api("api-2", "6", OPEN, "0", "1"), "the breaker of the fallback processor is open"),
            (api("api-2", "6", ["0", "1", "0"], "0", "1"), "fallback processor is half-open"),
            (api("api-2", "6", CLOSED, "30.6", "1"), "a payment has waited for 31 s"),
            (api("api-2", "6", CLOSED, "0", "0"), "api-2 takes no payments"),
            (away, "api-2 is not connected to the store"),
            (lb, "the balancer passes api-2 over"),
            (store("100001"), "the store is 100001 records behind"),
        ] {
            let status = Status::of(&[well(), other]);
            assert_eq!(status.health, Health::Degraded, "{problem}");
            assert_eq!(status.problems.len(), 1, "{:?}", status.problems);
            assert!(status.problems[0].contains(problem), "{:?}", status.problems);
        }
        assert_eq!(Status::of(&[well(), store("100000")]).health, Health::Well);
        assert_eq!(Status::of(&[]).health, Health::Unknown);
    }

    #[test]
    fn rates_are_by_second_and_a_daemon_that_began_anew_gives_none_below_zero() {
        let before = Status::of(&[api("api-1", "6", CLOSED, "0", "1")]);
        let mut after = Status::of(&[api("api-1", "10", CLOSED, "0", "1")]);
        after.compare(&before, 2.0);
        assert!((after.rates.as_ref().unwrap().accepted_per_s - 2.0).abs() < 1e-9);
        assert_eq!(after.daemons[0].cpus, Some(0.0));
        let mut anew = before.clone();
        anew.compare(&after, 1.0);
        assert_eq!(anew.rates.map(|rates| rates.accepted_per_s), Some(0.0));
    }
}
