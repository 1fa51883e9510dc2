//! What an API instance counts of its work. The driver and the connections count; engine and router
//! are asked for their state when somebody reads the metrics, and know nothing of them.
//!
//! Everything here is on the way of every payment, so it is an addition in memory each time.

mod page;

use std::cell::Cell;

pub use page::Now;

use hyper::StatusCode;
use ledger::Processor;
use ledger::journal::{Event, PaymentRecord, RECORD_BYTES};
use ledger::metrics::{Bounds, Counter, Histogram};

use crate::engine::CallOutcome;
use crate::router::Health;

/// The bounds of what takes microseconds when all is well: 25 µs to 1 s.
pub const SHORT_BOUNDS_US: Bounds =
    [25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// The bounds of calls to processors: half a millisecond to 10 s, when a call is given up.
pub const CALL_BOUNDS_US: Bounds = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 2_500_000,
    10_000_000,
];

/// The bounds of the whole way of a payment: 10 ms to a minute. Claims are gathered for 100 ms.
pub const SETTLE_BOUNDS_US: Bounds = [
    10_000, 50_000, 100_000, 150_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// The statuses of answers that are no success.
const REFUSALS: [StatusCode; 10] = [
    StatusCode::BAD_REQUEST,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::CONFLICT,
    StatusCode::LENGTH_REQUIRED,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// The names of what becomes of calls, by [`outcome_index`].
const OUTCOMES: [&str; 7] =
    ["recorded", "already_recorded", "not_recorded", "refused", "found", "absent", "unknown"];

fn outcome_index(outcome: CallOutcome) -> usize {
    match outcome {
        CallOutcome::Recorded => 0,
        CallOutcome::AlreadyRecorded => 1,
        CallOutcome::NotRecorded { .. } => 2,
        CallOutcome::Refused { .. } => 3,
        CallOutcome::Found { .. } => 4,
        CallOutcome::Absent => 5,
        CallOutcome::Unknown => 6,
    }
}

/// What is counted for each processor.
#[derive(Debug)]
struct OfProcessor {
    settled: Counter,
    settled_cents: Counter,
    refused: Counter,
    /// By [`outcome_index`].
    calls: [Counter; OUTCOMES.len()],
    call: Histogram,
    /// What it said last of itself.
    health: Cell<Option<Health>>,
}

/// What is counted.
#[derive(Debug)]
pub struct ApiMetrics {
    /// Payments that were written to the journal for the first time.
    pub accepted: Counter,
    /// Payments whose id another record has the right to.
    duplicates: Counter,
    /// By [`Processor::index`].
    processors: [OfProcessor; 2],
    /// From the payment read to the moment at which it cannot be lost and its `202` goes out.
    pub accept: Histogram,
    /// Writes to the journal, of many records together or of one.
    pub journal_write: Histogram,
    /// From the question whether payments may be sent to the store's answer.
    pub claim: Histogram,
    /// From accepted to settled.
    pub settle: Histogram,
    journal_bytes: Counter,
    /// Times that the journal was synced, or was tried to be.
    pub journal_syncs: Counter,
    /// How many of these failed.
    pub journal_sync_failures: Counter,
    /// By the place in [`REFUSALS`].
    refusals: [Counter; REFUSALS.len()],
}

impl Default for ApiMetrics {
    fn default() -> Self {
        let of_processor = || OfProcessor {
            settled: Counter::default(),
            settled_cents: Counter::default(),
            refused: Counter::default(),
            calls: Default::default(),
            call: Histogram::new(&CALL_BOUNDS_US),
            health: Cell::new(None),
        };
        Self {
            accepted: Counter::default(),
            duplicates: Counter::default(),
            processors: [of_processor(), of_processor()],
            accept: Histogram::new(&SHORT_BOUNDS_US),
            journal_write: Histogram::new(&SHORT_BOUNDS_US),
            claim: Histogram::new(&SHORT_BOUNDS_US),
            settle: Histogram::new(&SETTLE_BOUNDS_US),
            journal_bytes: Counter::default(),
            journal_syncs: Counter::default(),
            journal_sync_failures: Counter::default(),
            refusals: Default::default(),
        }
    }
}

impl ApiMetrics {
    /// Counts records that are in the journal now.
    pub fn written(&self, records: &[PaymentRecord]) {
        self.journal_bytes.add((records.len() * RECORD_BYTES) as u64);
        for record in records {
            match record.event {
                Event::Settled { processor, .. } => {
                    let of = &self.processors[processor.index()];
                    of.settled.add_one();
                    of.settled_cents.add(record.amount.get().unsigned_abs());
                }
                Event::Refused { processor, .. } => {
                    self.processors[processor.index()].refused.add_one();
                }
                Event::Duplicate => self.duplicates.add_one(),
                Event::Accepted | Event::Dispatched { .. } | Event::Failed { .. } => {}
            }
        }
    }

    /// Counts a call to a processor.
    pub fn called(&self, processor: Processor, outcome: CallOutcome, latency_us: u64) {
        let of = &self.processors[processor.index()];
        of.calls[outcome_index(outcome)].add_one();
        of.call.observe_us(latency_us);
    }

    /// Keeps what a processor said last of itself.
    pub fn heard(&self, processor: Processor, health: Health) {
        self.processors[processor.index()].health.set(Some(health));
    }

    /// Counts an answer with this status, if it is no success.
    pub fn answered(&self, status: StatusCode) {
        if status.is_success() {
            return;
        }
        if let Some(place) = REFUSALS.iter().position(|refusal| *refusal == status) {
            self.refusals[place].add_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ledger::metrics::Page;
    use ledger::{Cents, CorrelationId, TimestampMs};

    use super::*;
    use crate::router::{Router, RouterConfig};

    fn now() -> Now {
        let config =
            RouterConfig { fees_bp: [500, 1500], patience_ms: 0, in_flight_max: 8, slow_ms: 1300 };
        Now {
            open_payments: 3,
            open_payments_max: 500,
            oldest_age: Duration::from_millis(1500),
            router: Router::new(config).view(0),
            fees_bp: [500, 1500],
            is_accepting: false,
            noted_count: 0,
            is_store_connected: true,
            connections: 2,
        }
    }

    fn text(metrics: &ApiMetrics) -> String {
        let mut page = Page::default();
        metrics.fill(&mut page, &now());
        page.text()
    }

    #[track_caller]
    fn check(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|other| other == *line), "{line} is missing: {text}");
        }
    }

    #[test]
    fn what_the_journal_says_is_counted_and_cents_are_added() {
        let metrics = ApiMetrics::default();
        let at = TimestampMs::clamped(1);
        let record = |cents, event| PaymentRecord {
            id: CorrelationId::from_bytes([1; 16]),
            amount: Cents::new(cents),
            written_at: at,
            event,
        };
        let (one, other) = (Processor::Default, Processor::Fallback);
        metrics.written(&[
            record(1990, Event::Accepted),
            record(1990, Event::Dispatched { processor: one, requested_at: at }),
            record(1990, Event::Settled { processor: one, requested_at: at }),
            record(5, Event::Settled { processor: one, requested_at: at }),
            record(7, Event::Settled { processor: other, requested_at: at }),
            record(9, Event::Failed { processor: one, status: 500 }),
            record(9, Event::Refused { processor: other, status: 400 }),
            record(9, Event::Duplicate),
        ]);
        check(
            &text(&metrics),
            &[
                "router_payments_settled_total{processor=\"default\"} 2",
                "router_payments_settled_total{processor=\"fallback\"} 1",
                "router_settled_cents_total{processor=\"default\"} 1995",
                "router_settled_cents_total{processor=\"fallback\"} 7",
                "router_payments_refused_total{processor=\"default\"} 0",
                "router_payments_refused_total{processor=\"fallback\"} 1",
                "router_payments_duplicate_total 1",
                "router_journal_written_bytes_total 384",
            ],
        );
    }

    #[test]
    fn calls_health_refusals_and_the_state_of_the_moment_are_told() {
        let metrics = ApiMetrics::default();
        let outcomes = [
            CallOutcome::Recorded,
            CallOutcome::AlreadyRecorded,
            CallOutcome::NotRecorded { status: 500 },
            CallOutcome::Refused { status: 400 },
            CallOutcome::Found { amount: Cents::new(1), requested_at: TimestampMs::clamped(1) },
            CallOutcome::Absent,
            CallOutcome::Unknown,
        ];
        for (place, outcome) in outcomes.into_iter().enumerate() {
            for _ in 0..=place {
                metrics.called(Processor::Fallback, outcome, 600);
            }
        }
        assert!(!text(&metrics).contains("router_processor_failing"), "nothing was heard yet");
        metrics.heard(Processor::Fallback, Health { failing: true, min_response_ms: 20 });
        for status in REFUSALS {
            metrics.answered(status);
        }
        metrics.answered(StatusCode::ACCEPTED);
        let text = text(&metrics);
        for (place, name) in OUTCOMES.iter().enumerate() {
            let labels = format!("processor=\"fallback\",outcome=\"{name}\"");
            check(&text, &[&format!("router_calls_total{{{labels}}} {}", place + 1)]);
        }
        for status in REFUSALS {
            let labels = format!("status=\"{}\"", status.as_str());
            check(&text, &[&format!("router_requests_refused_total{{{labels}}} 1")]);
        }
        check(
            &text,
            &[
                "router_call_seconds_count{processor=\"fallback\"} 28",
                "router_call_seconds_bucket{le=\"0.0005\",processor=\"fallback\"} 0",
                "router_call_seconds_bucket{le=\"0.001\",processor=\"fallback\"} 28",
                "router_processor_failing{processor=\"fallback\"} 1",
                "router_processor_fee_basis_points{processor=\"fallback\"} 1500",
                "router_processor_min_response_seconds{processor=\"fallback\"} 0.02",
                "router_breaker_state{processor=\"default\",state=\"closed\"} 1",
                "router_breaker_state{processor=\"default\",state=\"open\"} 0",
                "router_in_flight_calls{processor=\"default\"} 0",
                "router_backlog_payments 3",
                "router_backlog_limit_payments 500",
                "router_backlog_oldest_age_seconds 1.5",
                "router_accepting 0",
                "router_store_connected 1",
                "router_connections 2",
            ],
        );
    }
}
