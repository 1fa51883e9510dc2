//! The names under which an API instance tells what it counts, and its state as it is when asked.
//! docs/operations.md has a table of them.

use std::time::Duration;

use ledger::Processor;
use ledger::metrics::{Labels, Page};

use super::{ApiMetrics, OUTCOMES, REFUSALS};
use crate::router::{BreakerState, RouterView};

/// The state of an API instance at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Payments that are not closed.
    pub open_payments: usize,
    /// How many there may be.
    pub open_payments_max: usize,
    /// For how long the oldest of them has been accepted.
    pub oldest_age: Duration,
    /// What the router knows.
    pub router: RouterView,
    /// The fees by [`Processor::index`], in basis points.
    pub fees_bp: [u32; 2],
    /// Whether payments are taken in: the journal can be written and synced.
    pub is_accepting: bool,
    /// How often anything was noted ([`crate::chronicle::Chronicle::noted_count`]).
    pub noted_count: u64,
    /// Whether the store is there.
    pub is_store_connected: bool,
    /// Connections of clients.
    pub connections: u32,
}

fn by_processor<'a, V: 'a>(
    value: impl Fn(Processor) -> V + 'a,
) -> impl Iterator<Item = (Labels, V)> + 'a {
    Processor::ALL.into_iter().map(move |processor| (labels(processor), value(processor)))
}

fn labels(processor: Processor) -> Labels {
    vec![("processor", processor.to_string())]
}

impl ApiMetrics {
    /// Tells all of it.
    pub fn fill(&self, page: &mut Page, now: &Now) {
        self.fill_payments(page, now);
        self.fill_processors(page, &now.router);
        page.gauges(
            "router_processor_fee_basis_points",
            "What the processor keeps of an amount, as the router was told, in hundredths of a percent.",
            by_processor(|processor| u64::from(now.fees_bp[processor.index()])),
        );
        self.fill_journal(page, now);
        page.counter(
            "router_notes",
            "Decisions and events that were noted, to be told in words.",
            now.noted_count,
        );
        page.gauge(
            "router_connections",
            "Connections of clients that are open.",
            u64::from(now.connections),
        );
        page.counters(
            "router_requests_refused",
            "Answers that are no success, by status; look-ups and health are among them.",
            REFUSALS
                .iter()
                .zip(&self.refusals)
                .map(|(status, count)| (vec![("status", status.as_str().to_owned())], count)),
        );
    }

    fn fill_payments(&self, page: &mut Page, now: &Now) {
        page.counter(
            "router_payments_accepted",
            "Payments that were written to the journal for the first time.",
            &self.accepted,
        );
        page.counters(
            "router_payments_settled",
            "Payments that a processor has, by processor.",
            by_processor(|processor| &self.processors[processor.index()].settled),
        );
        page.counters(
            "router_settled_cents",
            "Amounts of these payments, in cents.",
            by_processor(|processor| &self.processors[processor.index()].settled_cents),
        );
        page.counters(
            "router_payments_refused",
            "Payments that both processors refuse, by the one that did so last.",
            by_processor(|processor| &self.processors[processor.index()].refused),
        );
        page.counter(
            "router_payments_duplicate",
            "Payments that were closed because another record has the right to the id.",
            &self.duplicates,
        );
        page.gauge(
            "router_backlog_payments",
            "Payments that are accepted and not closed.",
            now.open_payments as u64,
        );
        page.gauge(
            "router_backlog_limit_payments",
            "How many there may be; no more are accepted then.",
            now.open_payments_max as u64,
        );
        page.gauge(
            "router_backlog_oldest_age_seconds",
            "For how long the oldest payment that is not closed has been accepted.",
            now.oldest_age,
        );
        page.histogram(
            "router_accept_seconds",
            "From a payment read to its 202, for those that are accepted.",
            &self.accept,
        );
        page.histogram(
            "router_claim_seconds",
            "From the question whether payments may be sent to the answer of the store.",
            &self.claim,
        );
        page.histogram("router_settle_seconds", "From accepted to settled.", &self.settle);
    }

    fn fill_processors(&self, page: &mut Page, router: &RouterView) {
        let view = |processor: Processor| router.processors[processor.index()];
        page.counters(
            "router_calls",
            "Calls to the processors, by what became of them.",
            Processor::ALL.into_iter().flat_map(|processor| {
                let counts = &self.processors[processor.index()].calls;
                OUTCOMES.iter().zip(counts).map(move |(outcome, count)| {
                    let mut labels = labels(processor);
                    labels.push(("outcome", (*outcome).to_owned()));
                    (labels, count)
                })
            }),
        );
        page.histograms(
            "router_call_seconds",
            "How long calls to the processors took.",
            by_processor(|processor| &self.processors[processor.index()].call),
        );
        page.gauges(
            "router_in_flight_calls",
            "Payments that are being sent.",
            by_processor(|processor| u64::from(view(processor).in_flight)),
        );
        page.gauges(
            "router_in_flight_limit_calls",
            "Payments that may be sent at a time.",
            by_processor(|processor| u64::from(view(processor).limit)),
        );
        let states = ["closed", "open", "half_open"];
        page.gauges(
            "router_breaker_state",
            "1 for the state that the breaker is in, 0 for the others.",
            Processor::ALL.into_iter().flat_map(|processor| {
                let state = match view(processor).breaker {
                    BreakerState::Closed => "closed",
                    BreakerState::Open { .. } => "open",
                    BreakerState::HalfOpen { .. } => "half_open",
                };
                states.map(|name| {
                    let mut labels = labels(processor);
                    labels.push(("state", name.to_owned()));
                    (labels, name == state)
                })
            }),
        );
        let healths = || {
            Processor::ALL.into_iter().filter_map(|processor| {
                let health = self.processors[processor.index()].health.get()?;
                Some((labels(processor), health))
            })
        };
        page.gauges(
            "router_processor_failing",
            "Whether the processor said of itself, when last asked, that payments fail.",
            healths().map(|(labels, health)| (labels, health.failing)),
        );
        page.gauges(
            "router_processor_min_response_seconds",
            "The least time that the processor said, when last asked, an answer takes.",
            healths()
                .map(|(labels, health)| (labels, Duration::from_millis(health.min_response_ms))),
        );
    }

    fn fill_journal(&self, page: &mut Page, now: &Now) {
        page.gauge(
            "router_accepting",
            "Whether the last write and sync of the journal worked, so that payments are taken in.",
            now.is_accepting,
        );
        page.gauge("router_store_connected", "Whether the store is there.", now.is_store_connected);
        page.counter(
            "router_journal_written_bytes",
            "Bytes of records of payments that were written to the journal.",
            &self.journal_bytes,
        );
        page.histogram(
            "router_journal_write_seconds",
            "How long writes to the journal took, each of one or many records.",
            &self.journal_write,
        );
        page.counter(
            "router_journal_syncs",
            "Times that the journal was to be synced to the disk.",
            &self.journal_syncs,
        );
        page.counter(
            "router_journal_sync_failures",
            "How many of these failed.",
            &self.journal_sync_failures,
        );
    }
}
