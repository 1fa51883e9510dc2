//! What the store counts, and the names under which it tells it. docs/operations.md has a table of them.

use ledger::metrics::{Bounds, Counter, Histogram, Labels, Page};
use ledger::protocol::{Request, Response};
use ledger::volume::{Space, instance_name};

use crate::archive::Progress;
use crate::books::BooksStanding;

/// The bounds of what the store takes for an answer: 25 µs to 1 s.
pub const ANSWER_BOUNDS_US: Bounds =
    [25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// What is counted.
#[derive(Debug)]
pub struct StoreMetrics {
    claims: Counter,
    losers: Counter,
    claim: Histogram,
    summary: Histogram,
    look_up: Histogram,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        let histogram = || Histogram::new(&ANSWER_BOUNDS_US);
        Self {
            claims: Counter::default(),
            losers: Counter::default(),
            claim: histogram(),
            summary: histogram(),
            look_up: histogram(),
        }
    }
}

impl StoreMetrics {
    /// Counts a request and how long it took until its answer was there.
    pub fn handled(&self, request: &Request, took_us: u64) {
        match request {
            Request::Claim { .. } => self.claim.observe_us(took_us),
            Request::Summarize(_) => self.summary.observe_us(took_us),
            Request::Look(_) | Request::Trace(_) => self.look_up.observe_us(took_us),
            Request::Hello { .. } | Request::Purge | Request::PurgePrepared { .. } => {}
        }
    }

    /// Counts what was decided, if this answer decides.
    pub fn answered(&self, response: &Response) {
        if let Response::Claimed { losers, .. } = response {
            self.claims.add_one();
            self.losers.add(losers.len() as u64);
        }
    }

    /// Tells all of it.
    pub fn fill(&self, page: &mut Page, books: &BooksStanding, apis_count: usize) {
        page.counter(
            "router_store_records_read",
            "Records that were read from the journals.",
            books.read_count,
        );
        page.gauges(
            "router_store_behind_records",
            "Records in an API's journal that are not read; absent where that cannot be told.",
            books.behind_counts.iter().filter_map(|(instance, count)| {
                Some((vec![("api", instance_name(*instance))], (*count)?))
            }),
        );
        page.gauge(
            "router_store_unapplied_payments",
            "Settled payments that are read and not in the database yet.",
            books.unapplied_count,
        );
        page.counter(
            "router_store_claims",
            "Claims that were decided, each of any number of payments.",
            &self.claims,
        );
        page.counter(
            "router_store_claim_losers",
            "Records that another one has the right to the id of.",
            &self.losers,
        );
        let question = |name: &str| -> Labels { vec![("question", name.to_owned())] };
        page.histograms(
            "router_store_answer_seconds",
            "How long answers took, by what was asked.",
            [
                (question("claim"), &self.claim),
                (question("summary"), &self.summary),
                (question("look_up"), &self.look_up),
            ],
        );
        page.gauge(
            "router_store_index_segments",
            "Segments of journals in the index.",
            books.segments_count,
        );
        page.gauge(
            "router_store_waiting_index_entries",
            "Entries of the index that are in memory until they are written to a file.",
            books.waiting_count,
        );
        page.gauge("router_store_apis", "APIs that are connected.", apis_count as u64);
    }
}

/// Tells of the room on the shared volume.
pub fn fill_space(page: &mut Page, space: Space) {
    page.gauge(
        "router_volume_size_bytes",
        "The size of the file system that the journals are on.",
        space.size_bytes,
    );
    page.gauge(
        "router_volume_available_bytes",
        "How much of it the router may still use.",
        space.available_bytes,
    );
}

/// Tells of the ledger that several machines share.
pub fn fill_ledger(page: &mut Page, is_there: bool, written: &Progress) {
    page.gauge(
        "router_ledger_connected",
        "Whether the shared ledger can be asked; no payment is sent while it cannot.",
        is_there,
    );
    page.counter(
        "router_ledger_payments",
        "Settled payments that were written to the shared ledger.",
        written.archived_payments(),
    );
    page.gauge(
        "router_ledger_lag_seconds",
        "Everything that was settled here so long ago is written to the shared ledger.",
        written.lag(),
    );
    page.gauges(
        "router_ledger_behind_bytes",
        "Bytes of journals that are not written to it, as of the last look; absent before the first one.",
        written.behind_bytes().map(|bytes| (Labels::new(), bytes)),
    );
}

/// Tells of the archive.
pub fn fill_archive(page: &mut Page, archive: &Progress) {
    page.counter(
        "router_archive_payments",
        "Payments that were archived.",
        archive.archived_payments(),
    );
    page.gauge(
        "router_archive_connected",
        "Whether the archive's database took what was given to it last.",
        archive.is_connected(),
    );
    page.gauge(
        "router_archive_lag_seconds",
        "Everything that was settled so long ago is archived.",
        archive.lag(),
    );
    page.gauges(
        "router_archive_behind_bytes",
        "Bytes of journals that are not archived, as of the last look; absent before the first one.",
        archive.behind_bytes().map(|bytes| (Labels::new(), bytes)),
    );
}
