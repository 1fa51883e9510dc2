//! How the router is, as a pure function of what its daemons told: the figures, and a sentence for
//! each thing that is not well.

use ledger::volume::instance_number;
use ledger::{Cents, Processor};
use serde::Serialize;

use super::facts::{Facts, Quantiles};
use crate::gather::Reading;

/// Payments that wait for longer make the router degraded, in seconds. It is what a payment may
/// wait for the cheaper processor unless set otherwise.
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
    /// Of how many APIs something is known.
    pub apis: Apis,
    /// Payments, over all APIs that answer, since each was started. Nothing is known where none
    /// does.
    pub payments: Option<Payments>,
    /// By [`Processor::index`], as far as the APIs that answer know. None where none does.
    pub processors: Vec<ProcessorStatus>,
    /// The store, if it answers.
    pub store: Option<StoreStatus>,
    /// All daemons that are known.
    pub daemons: Vec<DaemonStatus>,
    /// What went on since the last look, where there was one.
    pub rates: Option<Rates>,
}

/// The APIs.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Apis {
    pub known: usize,
    pub answering: usize,
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
    /// For how long the oldest of them has been accepted.
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
    /// Records in the journals that it has not read. Not known while that cannot be told of each
    /// API's.
    pub behind_records: Option<u64>,
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
    /// What it counts, if it is an API that answers.
    #[serde(skip)]
    pub counts: Option<Counts>,
}

/// What an API counts, since it was started or between two looks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[allow(missing_docs)]
pub struct Counts {
    pub accepted: u64,
    pub settled: u64,
    pub refused: u64,
}

impl Counts {
    /// What was added since an earlier look. One that has begun anew since then counts all that it
    /// has.
    fn since(self, before: Self, is_anew: bool) -> Self {
        let fell = self.accepted < before.accepted
            || self.settled < before.settled
            || self.refused < before.refused;
        if is_anew || fell {
            return self;
        }
        Self {
            accepted: self.accepted - before.accepted,
            settled: self.settled - before.settled,
            refused: self.refused - before.refused,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            accepted: self.accepted.saturating_add(other.accepted),
            settled: self.settled.saturating_add(other.settled),
            refused: self.refused.saturating_add(other.refused),
        }
    }
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

/// The name of the store's daemon.
const STORE: &str = "store";

/// A breaker that lets everything through.
const CLOSED: &str = "closed";
/// A breaker of which no API tells.
const UNKNOWN: &str = "unknown";

/// Breakers, the worst last.
const BREAKERS: [(&str, &str); 3] =
    [("closed", CLOSED), ("half_open", "half-open"), ("open", "open")];

impl Status {
    /// What these readings say.
    #[must_use]
    pub fn of(readings: &[Reading]) -> Self {
        let facts = Facts::of(readings);
        let daemons: Vec<_> =
            readings.iter().map(|reading| DaemonStatus::of(facts, reading)).collect();
        let apis: Vec<_> = daemons.iter().filter(|daemon| daemon.is_api()).collect();
        let names: Vec<_> = apis.iter().map(|daemon| daemon.name.as_str()).collect();
        let is_known = apis.iter().any(|daemon| daemon.up);
        let processors = Processor::ALL.into_iter().filter(|_| is_known);
        let mut status = Self {
            health: Health::Unknown,
            problems: Vec::new(),
            apis: Apis {
                known: apis.len(),
                answering: apis.iter().filter(|daemon| daemon.up).count(),
            },
            payments: is_known.then(|| Payments::of(facts)),
            processors: processors
                .map(|processor| ProcessorStatus::of(facts, &processor.to_string()))
                .collect(),
            store: StoreStatus::of(facts, &names),
            daemons,
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

    /// Adds what went on since an earlier look, `seconds` ago, at the daemons that answered both
    /// times: what another one has counted is of an unknown time. A daemon that was started in
    /// between has counted since then only.
    pub fn compare(&mut self, before: &Self, seconds: f64) {
        let mut gained: Option<Counts> = None;
        for daemon in &mut self.daemons {
            let before = before.daemons.iter().find(|other| other.name == daemon.name);
            let Some(before) = before else { continue };
            let is_anew = daemon.started_at_s != before.started_at_s;
            if let (Some(now), Some(before)) = (daemon.counts, before.counts) {
                let of_daemon = now.since(before, is_anew);
                gained = Some(gained.unwrap_or_default().plus(of_daemon));
            }
            daemon.cpus = daemon.cpu_s.zip(before.cpu_s).map(|(now_s, before_s)| {
                let spent_s = if is_anew || now_s < before_s { now_s } else { now_s - before_s };
                spent_s / seconds
            });
        }
        self.rates = gained.map(|gained| Rates {
            accepted_per_s: count(gained.accepted) / seconds,
            settled_per_s: count(gained.settled) / seconds,
            refused_per_s: count(gained.refused) / seconds,
        });
    }

    /// Whether the store has much to read. One that was asked nothing for a while may have, and
    /// reads on once its metrics are read.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.records_behind().is_some_and(|records| records > BEHIND_RECORDS_MAX)
    }

    fn records_behind(&self) -> Option<u64> {
        self.store.as_ref()?.behind_records
    }

    fn problems(&self, facts: Facts<'_>) -> Vec<String> {
        let mut problems: Vec<String> = Vec::new();
        for daemon in &self.daemons {
            if let Some(why) = &daemon.why {
                problems.push(format!("{} is down: {why}", daemon.name));
            }
        }
        if !self.daemons.is_empty() {
            if self.apis.known == 0 {
                problems.push("no API is known".to_owned());
            }
            if !self.daemons.iter().any(|daemon| daemon.name == STORE) {
                problems.push("no store is known".to_owned());
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
            // A breaker closes with the next call that succeeds, which there is not while nothing
            // is to be sent: then it is no problem.
            let matters = processor.failing == Some(true) || self.backlog() > 0;
            if matters && !matches!(processor.breaker, CLOSED | UNKNOWN) {
                let ProcessorStatus { name, breaker, .. } = processor;
                problems.push(format!("the breaker of the {name} processor is {breaker}"));
            }
        }
        let oldest_age_s = self.payments.as_ref().map_or(0.0, |payments| payments.oldest_age_s);
        if oldest_age_s > BACKLOG_AGE_MAX_S {
            problems.push(format!("a payment has waited for {oldest_age_s:.0} s"));
        }
        if let Some(records) = self.records_behind().filter(|_| self.is_behind()) {
            problems.push(format!("the store is {records} records behind the journals"));
        }
        problems
    }

    fn backlog(&self) -> u64 {
        self.payments.as_ref().map_or(0, |payments| payments.backlog)
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
            breaker: worst.map_or(UNKNOWN, |(_, words)| words),
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
    fn of(facts: Facts<'_>, apis: &[&str]) -> Option<Self> {
        const BEHIND: &str = "router_store_behind_records";
        facts.samples("router_store_apis", &[]).next()?;
        let is_told = |api: &&str| facts.samples(BEHIND, &[("api", api)]).next().is_some();
        Some(Self {
            behind_records: apis.iter().all(is_told).then(|| facts.sum(BEHIND, &[])),
            unapplied_payments: facts.sum("router_store_unapplied_payments", &[]),
        })
    }
}

impl DaemonStatus {
    fn is_api(&self) -> bool {
        instance_number(&self.name).is_some()
    }

    fn of(facts: Facts<'_>, reading: &Reading) -> Self {
        let value = |family: &str| {
            let mut samples = facts.samples(family, &[]);
            samples.find(|(daemon, _)| *daemon == reading.daemon).map(|(_, sample)| &sample.value)
        };
        let of_daemon = Facts::of(std::slice::from_ref(reading));
        let counts = || Counts {
            accepted: of_daemon.sum("router_payments_accepted", &[]),
            settled: of_daemon.sum("router_payments_settled", &[]),
            refused: of_daemon.sum("router_payments_refused", &[]),
        };
        let has_counts = of_daemon.samples("router_payments_accepted", &[]).next().is_some();
        Self {
            name: reading.daemon.clone(),
            up: reading.families.is_ok(),
            why: reading.families.as_ref().err().map(ToString::to_string),
            resident_bytes: value("process_resident_memory_bytes")
                .and_then(|text| text.parse().ok()),
            cpu_s: value("process_cpu_seconds").and_then(|text| text.parse().ok()),
            started_at_s: value("process_start_time_seconds").and_then(|text| text.parse().ok()),
            cpus: None,
            counts: has_counts.then(counts),
        }
    }
}

fn milliseconds(quantiles: Option<Quantiles>) -> (Option<f64>, Option<f64>) {
    (quantiles.map(|of| of.p50_s * 1e3), quantiles.map(|of| of.p99_s * 1e3))
}

/// A count to be reckoned with; nothing counts more than four thousand million things between two
/// looks.
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
                ("process_start_time_seconds", "gauge", &[("", "1000.25")]),
                ("process_resident_memory_bytes", "gauge", &[("", "12582912")]),
                ("process_cpu_seconds", "counter", &[("", "1.5")]),
            ],
        )
    }

    pub const ALL_CLOSED: [&str; 3] = ["1", "0", "0"];
    const OPEN: [&str; 3] = ["0", "0", "1"];

    /// The reading with this value in all samples of a family.
    fn with(mut reading: Reading, name: &str, value: &str) -> Reading {
        let families = reading.families.as_mut().unwrap().iter_mut();
        let family = families.into_iter().find(|family| family.name == name).unwrap();
        for sample in &mut family.samples {
            value.clone_into(&mut sample.value);
        }
        reading
    }

    pub fn silent(daemon: &str) -> Reading {
        Reading { daemon: daemon.to_owned(), families: Err(DaemonDown::Silent) }
    }

    fn store(behind: &str) -> Reading {
        reading(
            "store",
            &[
                ("router_store_apis", "gauge", &[("", "2")]),
                (
                    "router_store_behind_records",
                    "gauge",
                    &[("{api=\"api-1\"}", behind), ("{api=\"api-2\"}", "0")],
                ),
            ],
        )
    }

    #[test]
    fn payments_are_summed_and_a_router_without_problems_is_well() {
        let well = [
            api("api-1", "6", ALL_CLOSED, "1.5", "1"),
            api("api-2", "7", ALL_CLOSED, "0.0", "1"),
            store("9"),
        ];
        let status = Status::of(&well);
        assert_eq!((status.health, status.problems), (Health::Well, vec![]));
        let Payments { accepted, settled, backlog, oldest_age_s, .. } = status.payments.unwrap();
        assert_eq!((accepted, settled, backlog), (13, 12, 6));
        assert!((oldest_age_s - 1.5).abs() < 1e-9);
        let [default, fallback] = &status.processors[..] else { panic!("two processors") };
        assert_eq!(
            (default.settled, default.settled_cents, default.breaker),
            (10, 2_469_134, "closed")
        );
        assert_eq!((default.failing, fallback.failing), (Some(false), None));
        assert_eq!(default.settled_amount().to_string(), "24691.34");
        assert_eq!(status.store.unwrap().behind_records, Some(9));
        assert_eq!(status.daemons[0].resident_bytes, Some(12 << 20));
    }

    #[test]
    fn each_problem_makes_it_degraded_and_is_told() {
        let well = || api("api-1", "6", ALL_CLOSED, "30.0", "1");
        let other = || api("api-2", "6", ALL_CLOSED, "0", "1");
        let half_open = ["0", "1", "0"];
        let lb = reading("lb", &[("router_lb_api_alive", "gauge", &[("{api=\"api-2\"}", "0")])]);
        for (more, problem) in [
            (silent("lb"), "lb is down: it does not answer within 1s"),
            (api("api-2", "6", OPEN, "0", "1"), "the breaker of the fallback processor is open"),
            (api("api-2", "6", half_open, "0", "1"), "fallback processor is half-open"),
            (with(other(), "router_backlog_oldest_age_seconds", "30.6"), "has waited for 31 s"),
            (with(other(), "router_accepting", "0"), "api-2 takes no payments"),
            (with(other(), "router_store_connected", "0"), "api-2 is not connected to the store"),
            (lb, "the balancer passes api-2 over"),
            (store("100001"), "the store is 100001 records behind"),
        ] {
            let mut readings = vec![well(), more];
            if readings[1].daemon != STORE {
                readings.push(store("0"));
            }
            let status = Status::of(&readings);
            assert_eq!(status.health, Health::Degraded, "{problem}");
            assert_eq!(status.problems.len(), 1, "{:?}", status.problems);
            assert!(status.problems[0].contains(problem), "{:?}", status.problems);
        }
        assert_eq!(Status::of(&[well(), store("100000")]).health, Health::Well);
        assert_eq!(Status::of(&[]).health, Health::Unknown);
    }

    /// A breaker closes with the next call that succeeds. A router without payments was degraded
    /// for ever after an outage.
    #[test]
    fn a_breaker_that_is_not_closed_is_no_problem_while_nothing_waits_and_the_processor_is_well() {
        let idle = with(api("api-1", "6", OPEN, "0", "1"), "router_backlog_payments", "0");
        let families = idle.families.as_ref().unwrap();
        assert!(families.iter().any(|family| family.name == "router_processor_failing"));
        let status = Status::of(&[idle, store("0")]);
        assert_eq!((status.health, status.problems), (Health::Well, vec![]));
        assert_eq!(status.processors[1].breaker, "open");

        let open = [("{processor=\"default\",state=\"open\"}", "1")];
        let breaker = ("router_breaker_state", "gauge", &open[..]);
        for (failing, problems) in [("0", 0), ("1", 1)] {
            let failing = [("{processor=\"default\"}", failing)];
            let told = [breaker, ("router_processor_failing", "gauge", &failing[..])];
            let status = Status::of(&[reading("api-1", &told), store("0")]);
            assert_eq!(status.problems.len(), problems, "{:?}", status.problems);
        }
    }

    #[test]
    fn where_nothing_is_known_nothing_is_told_and_no_zero() {
        let status = Status::of(&[silent("api-1"), silent("api-2"), store("9")]);
        assert_eq!(status.problems.len(), 2, "{:?}", status.problems);
        assert_eq!((status.payments.as_ref(), status.processors.len()), (None, 0));
        let json = sonic_rs::to_string(&status).unwrap();
        assert!(
            json.contains("\"apis\":{\"known\":2,\"answering\":0},\"payments\":null"),
            "{json}"
        );

        let one = || api("api-1", "6", ALL_CLOSED, "0", "1");
        let status = Status::of(&[one(), store("9")]);
        assert_eq!(status.store.unwrap().behind_records, Some(9));
        // The journal of this one cannot be looked at.
        let third = with(one(), "router_backlog_payments", "0");
        let third = Reading { daemon: "api-3".to_owned(), ..third };
        let status = Status::of(&[one(), third, store("9")]);
        assert_eq!(status.store.unwrap().behind_records, None);
    }

    #[test]
    fn what_no_router_is_without_is_missed() {
        let missing = |readings: &[Reading]| Status::of(readings).problems;
        assert_eq!(missing(&[store("0")]), ["no API is known"]);
        let api = with(api("api-1", "6", ALL_CLOSED, "0", "1"), "router_backlog_payments", "0");
        assert_eq!(missing(&[api]), ["no store is known"]);
    }

    #[test]
    fn rates_are_by_second_and_of_a_daemon_that_began_anew_what_it_has_counted_since() {
        let api = |accepted| api("api-1", accepted, ALL_CLOSED, "0", "1");
        let rate = |before: &Reading, after: &Reading| {
            let mut status = Status::of(std::slice::from_ref(after));
            status.compare(&Status::of(std::slice::from_ref(before)), 2.0);
            (status.rates.map(|rates| rates.accepted_per_s), status.daemons[0].cpus)
        };
        assert_eq!(rate(&api("6"), &api("10")), (Some(2.0), Some(0.0)));
        assert_eq!(rate(&api("10"), &api("6")), (Some(3.0), Some(0.0)));
        let anew = with(api("12"), "process_start_time_seconds", "1001.5");
        let anew = with(anew, "process_cpu_seconds", "0.5");
        assert_eq!(rate(&api("10"), &anew), (Some(6.0), Some(0.25)));
    }

    /// All that the daemon had ever counted was taken for what it had counted since.
    #[test]
    fn a_daemon_that_misses_a_look_gives_no_rate_at_the_next() {
        let two = |count| api("api-2", count, ALL_CLOSED, "0", "1");
        let one = |count| api("api-1", count, ALL_CLOSED, "0", "1");
        let looks = [
            Status::of(&[one("10"), two("1000000000")]),
            Status::of(&[one("13"), silent("api-2")]),
            Status::of(&[one("17"), two("1000000020")]),
            Status::of(&[silent("api-1"), two("1000000025")]),
            Status::of(&[one("99"), silent("api-2")]),
        ];
        let rates = looks.windows(2).map(|looks| {
            let mut after = looks[1].clone();
            after.compare(&looks[0], 1.0);
            after.rates.map(|rates| rates.accepted_per_s)
        });
        assert_eq!(rates.collect::<Vec<_>>(), [Some(3.0), Some(4.0), Some(5.0), None]);
    }
}
