//! From what was seen in a round to its figures and findings.

use std::time::Duration;

use hdrhistogram::Histogram;
use ledger::{Cents, Totals};

use super::figures::{Figures, Percentile, Sample};
use super::timeline::AuditSeen;
use crate::audit::ById;
use crate::audit::bounds::BoundsFound;
use crate::load::meter::Counts;
use crate::scenario::{Expectations, FeeSettings};
use crate::score::{self, Run};

/// Hundredths of a per cent in the whole.
const FEE_WHOLE: f64 = 10_000.0;

/// Bytes of a mebibyte.
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// All that a judgement is made from.
pub(super) struct Evidence<'a> {
    pub(super) fees: FeeSettings,
    pub(super) expect: Expectations,
    pub(super) counts: Counts,
    /// Payments that were accepted.
    pub(super) accepted: u64,
    /// From the first request to the last answer.
    pub(super) elapsed: Duration,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: Option<f64>,
    pub(super) max_ms: Option<f64>,
    /// What our summary said at the end, default first.
    pub(super) last: [Totals; 2],
    /// What did not answer at the end.
    pub(super) failures: &'a [String],
    pub(super) audits: &'a [AuditSeen],
    pub(super) bounds: &'a BoundsFound,
    pub(super) by_id: &'a ById,
    pub(super) compared_by_id: bool,
    pub(super) books_equal: bool,
    pub(super) settled_in_time: bool,
    pub(super) settle: Duration,
    pub(super) samples: &'a [Sample],
}

/// A quotient, where there is one.
// Counts to be reckoned with are far below 2^52.
#[allow(clippy::cast_precision_loss)]
pub(super) fn per(amount: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| amount / count as f64)
}

/// A rate; 0 in no time.
#[allow(clippy::cast_precision_loss)]
pub(super) fn rate(count: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// Money as a number of whole units, as JSON has it.
#[allow(clippy::cast_precision_loss)]
pub(super) fn money(cents: Cents) -> f64 {
    cents.get() as f64 / 100.0
}

/// A time of a histogram in milliseconds, to three places.
#[allow(clippy::cast_precision_loss)]
pub(super) fn milliseconds(ns: u64) -> f64 {
    (ns as f64 / 1e3).round() / 1e3
}

/// A quantile of a histogram in milliseconds.
pub(super) fn quantile_ms(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| milliseconds(histogram.value_at_quantile(quantile)))
}

/// The distribution of a histogram at the points that a plot needs.
pub(super) fn percentiles(histogram: &Histogram<u64>) -> Vec<Percentile> {
    const PERCENTS: [f64; 22] = [
        0.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 92.5, 95.0,
        97.5, 98.0, 99.0, 99.5, 99.9, 99.99, 100.0,
    ];
    let point =
        |percent: f64| Some(Percentile { percent, ms: quantile_ms(histogram, percent / 100.0)? });
    PERCENTS.into_iter().filter_map(point).collect()
}

/// A fee in hundredths of a per cent.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn basis_points(fee: f64) -> u16 {
    (fee * FEE_WHOLE).round() as u16
}

/// What is left of totals after the fees.
#[allow(clippy::cast_precision_loss)]
pub(super) fn net(totals: [Totals; 2], fees: FeeSettings) -> f64 {
    let kept = [1.0 - fees.default, 1.0 - fees.fallback];
    totals.iter().zip(kept).map(|(total, kept)| money(total.amount) * kept).sum()
}

/// The figures that follow from the evidence. What the machine tells is added by the caller.
pub(super) fn figures(evidence: &Evidence<'_>) -> Figures {
    let Evidence { counts, accepted, last, by_id, .. } = evidence;
    let inconsistencies = evidence.audits.iter().map(|audit| audit.inconsistencies).sum();
    let [default, fallback] = last.map(|totals| totals.count);
    let settled = default + fallback;
    let scored = score::score(&Run {
        default_amount: last[0].amount,
        fallback_amount: last[1].amount,
        default_fee: basis_points(evidence.fees.default),
        fallback_fee: basis_points(evidence.fees.fallback),
        p99_ms: evidence.p99_ms,
        inconsistencies,
    });
    let requested = counts.requested - counts.duplicates;
    let unanswered = evidence.audits.iter().flat_map(|audit| &audit.failures);
    #[allow(clippy::cast_precision_loss)]
    let bonus = scored.bonus_percent as f64 / 100.0;
    Figures {
        right: false,
        score: money(scored.total),
        gross: money(scored.gross),
        fees: money(scored.fees),
        net: money(scored.net),
        bonus,
        bonus_amount: money(scored.bonus),
        fine: money(scored.fine),
        inconsistencies,
        inconsistencies_rehearsal: evidence
            .audits
            .iter()
            .map(|a| a.inconsistencies_rehearsal)
            .sum(),
        lag: signed(*accepted) - signed(settled),
        requested,
        accepted: *accepted,
        failed: counts.failed() + unanswered.chain(evidence.failures).count() as u64,
        refused: counts.refused,
        broken: counts.broken,
        timed_out: counts.timed_out,
        unsent: counts.unsent,
        posted_again: counts.duplicates,
        reconnections: counts.reconnections,
        default_requests: default,
        fallback_requests: fallback,
        default_share: share(default, settled),
        p50_ms: evidence.p50_ms,
        p99_ms: evidence.p99_ms,
        p999_ms: evidence.p999_ms,
        max_ms: evidence.max_ms,
        throughput_per_s: rate(*accepted, evidence.elapsed),
        settled_per_s: rate(settled, evidence.elapsed + evidence.settle),
        settle_s: evidence.settle.as_secs_f64(),
        lost: by_id.lost,
        duplicated: by_id.twice,
        altered: by_id.altered,
        unwanted: by_id.unwanted,
        compared_by_id: evidence.compared_by_id,
        calls_repeated: by_id.attempts_more,
        books_equal: evidence.books_equal,
        audits: evidence.audits.len() as u64,
        bounds_asked: evidence.bounds.asked,
        bounds_wrong: evidence.bounds.wrong,
        disqualified: settled > requested,
        ..Figures::default()
    }
}

/// What is wrong, in a sentence each.
pub(super) fn findings(figures: &Figures, evidence: &Evidence<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut demand = |holds: bool, sentence: String| {
        if !holds {
            found.push(sentence);
        }
    };
    let Figures { lost, duplicated, altered, unwanted, inconsistencies, .. } = figures;
    demand(*lost == 0, format!("{lost} accepted payments are recorded nowhere"));
    demand(*duplicated == 0, format!("{duplicated} payments are recorded more than once"));
    demand(*altered == 0, format!("{altered} payments are recorded with another amount"));
    demand(
        *unwanted == 0,
        format!("{unwanted} payments were refused and are recorded all the same"),
    );
    demand(evidence.settled_in_time, "not all was settled before the patience ended".to_owned());
    demand(figures.books_equal, "the books differ at the end".to_owned());
    demand(*inconsistencies == 0, format!("audits found {inconsistencies} inconsistent requests"));
    let cents = evidence.audits.iter().filter(|audit| !audit.cents_equal).count();
    demand(cents == 0, format!("in {cents} audits the amounts differ"));
    let wrong = figures.bounds_wrong;
    demand(wrong == 0, format!("{wrong} summaries over random windows are wrong"));
    demand(!figures.disqualified, "more was reported than posted".to_owned());
    for failure in evidence.audits.iter().flat_map(|audit| &audit.failures).chain(evidence.failures)
    {
        demand(false, format!("no answer to a question about the books: {failure}"));
    }
    let expect = &evidence.expect;
    let requests = evidence.counts.requested;
    demand(requests > 0, "nothing was posted".to_owned());
    let success = share(evidence.counts.accepted, requests);
    demand(
        success >= expect.success_share,
        format!(
            "{:.3} % of the requests succeeded, not {}",
            success * 100.0,
            expect.success_share * 100.0
        ),
    );
    demand(
        figures.default_share >= expect.default_share,
        format!(
            "{:.1} % went through default, not {}",
            figures.default_share * 100.0,
            expect.default_share * 100.0
        ),
    );
    if let Some(lag) = expect.lag {
        let real = figures.lag;
        demand(
            real <= signed(lag),
            format!("{real} accepted payments are not in the final summary"),
        );
    }
    if let Some(most) = expect.memory_growth_mib
        && let Some(growth) = memory_growth_mib(evidence.samples)
    {
        demand(growth <= most, format!("memory grew by {growth:.1} MiB, not at most {most}"));
    }
    if let (Some(most), Some(bytes)) =
        (expect.disk_bytes_per_payment, figures.disk_bytes_per_payment)
    {
        demand(bytes <= most, format!("{bytes:.0} bytes on disk per payment, not at most {most}"));
    }
    found.extend(evidence.by_id.examples.iter().map(|example| format!("for example: {example}")));
    found.extend(evidence.bounds.examples.iter().map(|example| format!("for example: {example}")));
    found
}

/// By how much the system's own memory grew from the first tenth of the samples to the last.
#[allow(clippy::cast_precision_loss)]
fn memory_growth_mib(samples: &[Sample]) -> Option<f64> {
    let tenth = (samples.len() / 10).max(1);
    let most = |samples: &[Sample]| samples.iter().filter_map(|s| s.anonymous_bytes).max();
    let first = most(samples.get(..tenth)?)?;
    let last = most(&samples[samples.len() - tenth..])?;
    Some((last as f64 - first as f64) / MEBIBYTE)
}

#[allow(clippy::cast_precision_loss)]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
