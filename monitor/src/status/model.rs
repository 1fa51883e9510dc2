//! How the router is, as a pure function of what its daemons told: the figures, and a sentence for
//! each thing that is not well.

use ledger::volume::instance_number;
use ledger::{Cents, Processor};
use serde::Serialize;

use super::facts::{Facts, Quantiles};
pub use super::problems::{ARCHIVE_LAG_MAX_S, BACKLOG_AGE_MAX_S, BEHIND_RECORDS_MAX};
pub use super::rates::{Counts, Rates};
use crate::gather::Reading;

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
    /// The archive, if the store answers and has one.
    pub archive: Option<DatabaseStatus>,
    /// The ledger that several machines share, if the store answers and uses one.
    pub ledger: Option<DatabaseStatus>,
    /// All daemons that are known.
    pub daemons: Vec<DaemonStatus>,
    /// Connections of clients, over all APIs that answer.
    pub connections: Option<u64>,
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
    /// Since the last look, where there was one.
    pub settled_per_s: Option<f64>,
    /// What it keeps of an amount, if all APIs were told the same.
    pub fee_basis_points: Option<u64>,
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

/// A database that gets what was settled: the archive, or the ledger that several machines share.
#[derive(Serialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// Whether it can be written to: an archive took what was given to it last, a ledger can be asked.
    pub connected: bool,
    /// Payments that were written to it since the store was started.
    pub payments: u64,
    /// Everything that was settled so long ago is there.
    pub lag_s: f64,
    /// Bytes of journals that are not written to it; not known before the first connection.
    pub behind_bytes: Option<u64>,
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
    /// Payments that it took in since the last look, where there was one and it is an API.
    pub accepted_per_s: Option<f64>,
    /// What it counts, if it is an API that answers.
    #[serde(skip)]
    pub counts: Option<Counts>,
}

/// The name of the store's daemon.
pub(super) const STORE: &str = "store";

/// A breaker that lets everything through.
pub(super) const CLOSED: &str = "closed";
/// A breaker of which no API tells.
pub(super) const UNKNOWN: &str = "unknown";

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
            archive: DatabaseStatus::of(facts, "archive"),
            ledger: DatabaseStatus::of(facts, "ledger"),
            daemons,
            connections: is_known.then(|| facts.sum("router_connections", &[])),
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

    /// Whether the store has much to read. One that was asked nothing for a while may have, and
    /// reads on once its metrics are read.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.records_behind().is_some_and(|records| records > BEHIND_RECORDS_MAX)
    }

    pub(super) fn records_behind(&self) -> Option<u64> {
        self.store.as_ref()?.behind_records
    }

    pub(super) fn backlog(&self) -> u64 {
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
            settled_per_s: None,
            fee_basis_points: facts.agreed("router_processor_fee_basis_points", &labels),
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

impl DatabaseStatus {
    fn of(facts: Facts<'_>, which: &str) -> Option<Self> {
        let name = |what: &str| format!("router_{which}_{what}");
        let behind = name("behind_bytes");
        let lag_s = facts.max(&name("lag_seconds"), &[])?;
        let is_told = facts.max(&behind, &[]).is_some();
        Some(Self {
            connected: facts.sum(&name("connected"), &[]) > 0,
            payments: facts.sum(&name("payments"), &[]),
            lag_s,
            behind_bytes: is_told.then(|| facts.sum(&behind, &[])),
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
            samples.find(|(daemon, _)| *daemon == reading.daemon).map(|(_, sample)| sample.value)
        };
        let of_daemon = Facts::of(std::slice::from_ref(reading));
        let counts = || Counts {
            accepted: of_daemon.sum("router_payments_accepted", &[]),
            settled: Processor::ALL.map(|processor| {
                let labels = [("processor", &*processor.to_string())];
                of_daemon.sum("router_payments_settled", &labels)
            }),
            refused: of_daemon.sum("router_payments_refused", &[]),
        };
        let has_counts = of_daemon.samples("router_payments_accepted", &[]).next().is_some();
        Self {
            name: reading.daemon.clone(),
            up: reading.metrics.is_ok(),
            why: reading.metrics.as_ref().err().map(ToString::to_string),
            resident_bytes: value("process_resident_memory_bytes")
                .and_then(|text| text.parse().ok()),
            cpu_s: value("process_cpu_seconds").and_then(|text| text.parse().ok()),
            started_at_s: value("process_start_time_seconds").and_then(|text| text.parse().ok()),
            cpus: None,
            accepted_per_s: None,
            counts: has_counts.then(counts),
        }
    }
}

fn milliseconds(quantiles: Option<Quantiles>) -> (Option<f64>, Option<f64>) {
    (quantiles.map(|of| of.p50_s * 1e3), quantiles.map(|of| of.p99_s * 1e3))
}

#[cfg(test)]
#[path = "model_tests.rs"]
pub(crate) mod tests;
