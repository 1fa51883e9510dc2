//! What a flood found, as a table for people and as JSON for tools.

use std::fmt::{self, Write};

use serde::Serialize;

use super::Outcome;
use super::compare::{Books, ById};
use super::sender::Sent;
use super::settle::Settled;

/// Columns of the names in the table.
const NAME_WIDTH: usize = 22;

/// The figures of a flood. Money is in cents, times in the unit that their names end in.
// Each is a figure of its own; no two of them make a state together.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FloodReport {
    /// Whether nothing was lost, recorded twice, altered or unwanted, all was settled in time, and
    /// all books agree.
    pub right: bool,
    /// What the payments follow from.
    pub seed: u64,
    /// Payments that were posted.
    pub posted: u64,
    /// Payments that were accepted.
    pub accepted: u64,
    /// Payments that were not: the sum of the next three.
    pub failed: u64,
    /// Payments that were answered with an error.
    pub refused: u64,
    /// Payments whose connection broke before there was an answer.
    pub broken: u64,
    /// Payments that were not answered in time.
    pub timed_out: u64,
    /// Connections that had to be made again.
    pub reconnections: u64,
    /// Accepted payments per second.
    pub rate_per_second: f64,
    /// The time that half of the answers took at most, in microseconds.
    pub p50_us: u64,
    /// The time that 99 of 100 answers took at most, in microseconds.
    pub p99_us: u64,
    /// How long the posting took.
    pub post_seconds: f64,
    /// How long it took after that until all was settled and seen to be.
    pub settle_seconds: f64,
    /// Whether all was settled before the patience ended.
    pub settled_in_time: bool,
    /// Payments that default settled.
    pub settled_default: u64,
    /// Payments that fallback settled.
    pub settled_fallback: u64,
    /// Accepted payments that nobody recorded.
    pub lost: u64,
    /// Payments that were recorded more than once.
    pub twice: u64,
    /// Payments that were recorded with another amount.
    pub altered: u64,
    /// Payments that were refused and recorded all the same.
    pub unwanted: u64,
    /// Whether the processors list their payments, so that they could be compared one by one.
    pub compared_by_id: bool,
    /// Calls to processors beyond the first for a payment, where they list them.
    pub attempts_more: u64,
    /// Whether the books differed before, so that only what has come since is compared.
    pub differed_before: bool,
    /// Whether the requests of all books are equal.
    pub requests_equal: bool,
    /// Whether the cents of all books are equal.
    pub cents_equal: bool,
    /// Totals in all books at the end.
    pub books: [BookLine; 4],
    /// Some of the payments that are wrong.
    pub examples: Vec<String>,
}

/// One side of a book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BookLine {
    /// Whose book, and about which processor.
    pub book: String,
    /// Payments.
    pub requests: u64,
    /// Their sum.
    pub cents: i64,
}

/// All that a report is made from.
pub struct Findings<'a> {
    /// What the payments follow from.
    pub seed: u64,
    /// What was sent.
    pub sent: &'a Sent,
    /// The books before.
    pub before: Books,
    /// The waiting.
    pub settled: Settled,
    /// The comparison by id, where the processors list their payments.
    pub by_id: Option<ById>,
}

impl FloodReport {
    /// Counts it all together.
    #[must_use]
    pub fn new(findings: &Findings<'_>) -> Self {
        let Findings { seed, sent, before, settled, by_id } = findings;
        let count =
            |is: fn(&Outcome) -> bool| sent.outcomes.iter().filter(|o| is(o)).count() as u64;
        let accepted = count(|outcome| matches!(outcome, Outcome::Accepted(_)));
        let posted = count(|outcome| *outcome != Outcome::NotSent);
        let books = settled.books;
        // Without a list, all that is known is how many came to the books since before.
        let compared = by_id.clone().unwrap_or_else(|| from_totals(*before, books, accepted));
        let to_compare = books.to_compare(before);
        let requests_equal = [0, 1]
            .into_iter()
            .all(|s: usize| to_compare.ours[s].count == to_compare.processors[s].count);
        let post_seconds = sent.elapsed.as_secs_f64();
        Self {
            right: settled.in_time && compared.is_right() && to_compare.are_equal(),
            seed: *seed,
            posted,
            accepted,
            failed: posted - accepted,
            refused: count(|outcome| matches!(outcome, Outcome::Refused(_))),
            broken: count(|outcome| *outcome == Outcome::Broken),
            timed_out: count(|outcome| *outcome == Outcome::TimedOut),
            reconnections: sent.reconnections,
            rate_per_second: rate(accepted, post_seconds),
            p50_us: sent.latency_us.value_at_quantile(0.5),
            p99_us: sent.latency_us.value_at_quantile(0.99),
            post_seconds,
            settle_seconds: settled.elapsed.as_secs_f64(),
            settled_in_time: settled.in_time,
            settled_default: compared.settled[0],
            settled_fallback: compared.settled[1],
            lost: compared.lost,
            twice: compared.twice,
            altered: compared.altered,
            unwanted: compared.unwanted,
            compared_by_id: by_id.is_some(),
            attempts_more: compared.attempts_more,
            differed_before: to_compare != books,
            requests_equal,
            cents_equal: to_compare.cents_are_equal(),
            books: book_lines(&books),
            examples: compared.examples,
        }
    }
}

fn from_totals(before: Books, after: Books, accepted: u64) -> ById {
    let settled = [0, 1].map(|side: usize| {
        after.processors[side].count.saturating_sub(before.processors[side].count)
    });
    ById { settled, lost: accepted.saturating_sub(settled.iter().sum()), ..ById::default() }
}

fn book_lines(books: &Books) -> [BookLine; 4] {
    let line = |book: &str, totals: ledger::Totals| BookLine {
        book: book.to_owned(),
        requests: totals.count,
        cents: totals.amount.get(),
    };
    [
        line("ours, default", books.ours[0]),
        line("processor default", books.processors[0]),
        line("ours, fallback", books.ours[1]),
        line("processor fallback", books.processors[1]),
    ]
}

/// A rate for people: what it loses in a float does not show.
#[allow(clippy::cast_precision_loss)]
fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

impl fmt::Display for FloodReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(out, "{name:NAME_WIDTH$} {value}");
        let p50_us = self.p50_us;
        let p99_us = self.p99_us;
        row("accepted", format!("{} of {} posted", self.accepted, self.posted))?;
        let mut failed = self.failed.to_string();
        if self.failed > 0 {
            let Self { refused, broken, timed_out, .. } = self;
            write!(failed, " ({refused} refused, {broken} broken off, {timed_out} timed out)")?;
        }
        row("failed", failed)?;
        row("rate", format!("{:.0} per second", self.rate_per_second))?;
        row("p50 / p99", format!("{} / {} ms", milliseconds(p50_us), milliseconds(p99_us)))?;
        if self.reconnections > 0 {
            row("reconnections", self.reconnections.to_string())?;
        }
        let late = if self.settled_in_time { "" } else { ", and gave up waiting" };
        row("settled after", format!("{:.1} s{late}", self.settle_seconds))?;
        row("settled by default", self.settled_default.to_string())?;
        row("settled by fallback", self.settled_fallback.to_string())?;
        row("lost", self.lost.to_string())?;
        if self.compared_by_id {
            row("twice", self.twice.to_string())?;
            row("altered", self.altered.to_string())?;
            row("unwanted", self.unwanted.to_string())?;
            row("sent more than once", self.attempts_more.to_string())?;
        } else {
            row("twice", "unknown: the processors do not list their payments".to_owned())?;
        }
        for BookLine { book, requests, cents } in &self.books {
            row(book, format!("{requests} requests, {cents} cents"))?;
        }
        let since = if self.differed_before { ", in what has come since the start" } else { "" };
        row("requests equal", format!("{}{since}", yes_or_no(self.requests_equal)))?;
        row("cents equal", format!("{}{since}", yes_or_no(self.cents_equal)))?;
        for example in &self.examples {
            writeln!(out, "  {example}")?;
        }
        writeln!(out, "{}", if self.right { "all is right" } else { "NOT ALL IS RIGHT" })
    }
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "NO" }.to_owned()
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hdrhistogram::Histogram;
    use ledger::{Cents, Totals};

    use super::*;

    fn sent() -> Sent {
        let mut latency_us = Histogram::new(3).unwrap();
        for us in [1000, 1000, 2000] {
            latency_us.record(us).unwrap();
        }
        let mut outcomes = vec![Outcome::Accepted(202); 3];
        outcomes.extend([Outcome::Refused(503), Outcome::Broken, Outcome::TimedOut]);
        Sent { outcomes, latency_us, elapsed: Duration::from_millis(500), reconnections: 2 }
    }

    fn books(default: u64, fallback: u64) -> Books {
        let totals = [default, fallback].map(|count| Totals {
            count,
            amount: Cents::new(i64::try_from(count).unwrap() * 1990),
        });
        Books { ours: totals, processors: totals }
    }

    fn report(after: Books, in_time: bool, by_id: Option<ById>) -> FloodReport {
        FloodReport::new(&Findings {
            seed: 7,
            sent: &sent(),
            before: books(10, 10),
            settled: Settled { books: after, elapsed: Duration::from_secs(1), in_time },
            by_id,
        })
    }

    #[test]
    fn figures_are_counted_and_shown() {
        let by_id = ById { settled: [2, 1], ..ById::default() };
        let report = report(books(12, 11), true, Some(by_id));
        assert!(report.right);
        assert_eq!((report.posted, report.accepted, report.failed), (6, 3, 3));
        let text = report.to_string();
        for line in [
            "accepted               3 of 6 posted\n",
            "failed                 3 (1 refused, 1 broken off, 1 timed out)\n",
            "rate                   6 per second\n",
            "p50 / p99              1.000 / 2.000 ms\n",
            "settled by default     2\n",
            "processor fallback     11 requests, 21890 cents\n",
            "cents equal            yes\n",
            "all is right\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        let json = sonic_rs::to_string(&report).unwrap();
        assert!(json.contains(r#""accepted":3,"#) && json.contains(r#""right":true"#), "{json}");
    }

    #[test]
    fn anything_wrong_makes_it_wrong() {
        let fine = ById { settled: [2, 1], ..ById::default() };
        let mut unequal = books(12, 11);
        unequal.ours[0].amount = Cents::new(1);
        assert!(!report(unequal, true, Some(fine.clone())).right);
        assert!(!report(books(12, 11), false, Some(fine.clone())).right);
        for wrong in [
            ById { lost: 1, ..fine.clone() },
            ById { twice: 1, ..fine.clone() },
            ById { altered: 1, ..fine.clone() },
            ById { unwanted: 1, ..fine },
        ] {
            let report = report(books(12, 11), true, Some(wrong));
            assert!(!report.right);
            assert!(report.to_string().contains("NOT ALL IS RIGHT"));
        }
    }

    #[test]
    fn without_a_list_losses_are_told_from_the_totals() {
        let report = report(books(11, 11), true, None);
        assert_eq!((report.settled_default, report.settled_fallback, report.lost), (1, 1, 1));
        assert!(!report.right);
        assert!(report.to_string().contains("twice                  unknown"));
    }
}
