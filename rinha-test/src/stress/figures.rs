//! The figures of a round: what `result.json` holds, what is wrong, and what the plots draw.

use serde::Serialize;

use super::timeline::{AuditSeen, StageSeen};
use crate::machine::gauge::{GroupPeak, ProcessPeak};

/// The figures of a round. Their names are the keys of `result.json`, and stay as they are; what
/// cannot be known is `null`. Money is in whole units with two decimal places.
// Each is a figure of its own; no two of them make a state together.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Whether nothing is wrong.
    pub right: bool,
    /// Net and bonus less the fine, as the contest scores.
    pub score: f64,
    /// What our summary says was processed.
    pub gross: f64,
    /// What the processors keep of it.
    pub fees: f64,
    /// Gross less fees.
    pub net: f64,
    /// The bonus for a low p99, as a share of net.
    pub bonus: f64,
    /// The bonus in money.
    pub bonus_amount: f64,
    /// The fine in money.
    pub fine: f64,
    /// Requests on which our summary and the processors' differed, over all audits.
    pub inconsistencies: u64,
    /// The same as the rehearsal counted.
    pub inconsistencies_rehearsal: u64,
    /// Payments that were accepted and are not in the final summary.
    pub lag: i64,
    /// Payments that were to be posted.
    pub requested: u64,
    /// Payments that were accepted.
    pub accepted: u64,
    /// Requests that were not accepted: the sum of the next four, and of summaries without an
    /// answer.
    pub failed: u64,
    /// Requests that were answered with an error.
    pub refused: u64,
    /// Requests whose connection broke before there was an answer.
    pub broken: u64,
    /// Requests that were not answered in time.
    pub timed_out: u64,
    /// Requests for which no connection could be had.
    pub unsent: u64,
    /// Requests that posted an earlier payment again.
    pub posted_again: u64,
    /// Connections that had to be made again.
    pub reconnections: u64,
    /// Payments through default, in the final summary.
    pub default_requests: u64,
    /// Payments through fallback, in the final summary.
    pub fallback_requests: u64,
    /// The share of default among them.
    pub default_share: f64,
    /// The time that half of the answers took at most.
    pub p50_ms: f64,
    /// The time that 99 of 100 answers took at most.
    pub p99_ms: f64,
    /// The time that 999 of 1000 answers took at most.
    pub p999_ms: Option<f64>,
    /// The longest time.
    pub max_ms: Option<f64>,
    /// Accepted payments per second, from the first to the last answer.
    pub throughput_per_s: f64,
    /// Settled payments per second, from the first request until all was settled.
    pub settled_per_s: f64,
    /// Seconds from the last answer until all was settled, and seen to be.
    pub settle_s: f64,
    /// CPU time of the system per accepted payment, until all was settled.
    pub cpu_us_per_payment: Option<f64>,
    /// The most memory of its own that the system had, page cache apart.
    pub memory_peak_bytes: Option<u64>,
    /// The most page cache that was counted to it.
    pub memory_cache_peak_bytes: Option<u64>,
    /// The most of both at the same moment, which the limits count.
    pub memory_with_cache_peak_bytes: Option<u64>,
    /// Periods of 100 ms in which it used up its CPU quota.
    pub throttled_periods: Option<u64>,
    /// Time that it spent waiting because of that.
    pub throttled_ms: Option<f64>,
    /// Bytes on disk per payment, at the end.
    pub disk_bytes_per_payment: Option<f64>,
    /// The time from its start until it answered.
    pub ready_ms: Option<f64>,
    /// The floor's p50: what the same load sees of a server that answers a constant.
    pub floor_p50_ms: Option<f64>,
    /// The floor's p99.
    pub floor_p99_ms: Option<f64>,
    /// CPU time of the floor's server per request.
    pub floor_cpu_us_per_request: Option<f64>,
    /// p50 as a ratio to the floor's.
    pub p50_over_floor: Option<f64>,
    /// p99 as a ratio to the floor's.
    pub p99_over_floor: Option<f64>,
    /// Accepted payments that no processor recorded.
    pub lost: u64,
    /// Payments that were recorded more than once.
    pub duplicated: u64,
    /// Payments that were recorded with another amount.
    pub altered: u64,
    /// Payments that were refused and recorded all the same.
    pub unwanted: u64,
    /// Whether the processors list their payments, so that these four are known by id.
    pub compared_by_id: bool,
    /// Calls to processors beyond the first for a payment, where they list them.
    pub calls_repeated: u64,
    /// Whether at the end all books agreed, request for request and cent for cent.
    pub books_equal: bool,
    /// Audits that were made.
    pub audits: u64,
    /// Summaries over random windows that were asked for.
    pub bounds_asked: u64,
    /// Those that were wrong.
    pub bounds_wrong: u64,
    /// Whether more was reported than was posted.
    pub disqualified: bool,
}

/// What was seen at a moment of a round.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds after the start.
    pub at_s: f64,
    /// Accepted requests per second since the last sample.
    pub accepted_per_s: f64,
    /// Failed requests per second since the last sample.
    pub failed_per_s: f64,
    /// Times of accepted requests since the last sample.
    pub p50_ms: Option<f64>,
    /// The same at 99 of 100.
    pub p99_ms: Option<f64>,
    /// The longest.
    pub max_ms: Option<f64>,
    /// Accepted payments that are not recorded yet.
    pub backlog: Option<i64>,
    /// Payments that default recorded so far.
    pub default_requests: Option<u64>,
    /// Payments that fallback recorded so far.
    pub fallback_requests: Option<u64>,
    /// What was recorded so far, less the fees.
    pub net: Option<f64>,
    /// CPUs that the system used since the last sample.
    pub cpus: Option<f64>,
    /// Bytes of memory of its own.
    pub anonymous_bytes: Option<u64>,
    /// Bytes of page cache.
    pub cache_bytes: Option<u64>,
    /// Periods in which it used up its quota, so far.
    pub throttled_periods: Option<u64>,
    /// Bytes on disk.
    pub disk_bytes: Option<u64>,
}

/// A point of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentile {
    /// The share of answers, in per cent.
    pub percent: f64,
    /// The time that they took at most.
    pub ms: f64,
}

/// Everything about a round.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Round {
    /// What was put under load.
    pub subject: String,
    /// The scenario.
    pub scenario: String,
    /// When it began.
    pub begun: String,
    /// Who put the load on.
    pub client: String,
    /// The limits that the system ran in, in words.
    pub limits: String,
    /// What the payments follow from.
    pub seed: u64,
    /// The figures.
    pub figures: Figures,
    /// What is wrong, in a sentence each.
    pub findings: Vec<String>,
    /// The stages.
    pub stages: Vec<StageSeen>,
    /// The audits.
    pub audits: Vec<AuditSeen>,
    /// What was seen over time.
    pub samples: Vec<Sample>,
    /// The distribution of latencies.
    pub latency: Vec<Percentile>,
    /// The same of the floor.
    pub floor_latency: Vec<Percentile>,
    /// The containers of the system, or its box.
    pub groups: Vec<GroupPeak>,
    /// The processes of the system.
    pub processes: Vec<ProcessPeak>,
}
