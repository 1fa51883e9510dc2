//! What was settled in a span of time, with the fees: what the processors kept of it, and what was saved
//! by not sending everything to the fallback processor.

use ledger::{Cents, Processor, RangeMs, Totals};
use serde::Serialize;

/// Basis points in a whole.
const WHOLE_BP: i128 = 10_000;

/// The answer. Amounts are texts, so that nobody reckons with them as floats.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct RangeTotals {
    /// The first and the last moment, where the span has them.
    pub from: Option<String>,
    pub to: Option<String>,
    /// By [`Processor::index`].
    pub processors: Vec<ProcessorTotals>,
    pub total_requests: u64,
    pub total_amount: String,
    /// What both keep of it. Not known where a fee is not.
    pub fees: Option<String>,
    /// How much less that is than if the fallback processor had settled everything.
    pub saved: Option<String>,
}

/// Of one processor.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ProcessorTotals {
    pub name: String,
    pub total_requests: u64,
    pub total_amount: String,
    pub fee_basis_points: Option<u64>,
    pub fees: Option<String>,
}

impl RangeTotals {
    /// Puts totals into words, with the fees in basis points as far as they are known.
    #[must_use]
    pub fn of(range: RangeMs, totals: &[Totals; 2], fees_bp: [Option<u64>; 2]) -> Self {
        let cents = |processor: Processor| i128::from(totals[processor.index()].amount.get());
        let fee = |cents: i128, processor: Processor| {
            let basis_points = fees_bp[processor.index()]?;
            Some(rounded(cents * i128::from(basis_points)))
        };
        let of_processor = |processor: Processor| ProcessorTotals {
            name: processor.to_string(),
            total_requests: totals[processor.index()].count,
            total_amount: totals[processor.index()].amount.to_string(),
            fee_basis_points: fees_bp[processor.index()],
            fees: fee(cents(processor), processor).map(amount),
        };
        let total_cents: i128 = Processor::ALL.into_iter().map(cents).sum();
        let fees: Option<i128> =
            Processor::ALL.into_iter().map(|processor| fee(cents(processor), processor)).sum();
        let saved = fee(total_cents, Processor::Fallback).zip(fees).map(|(all, fees)| all - fees);
        Self {
            from: (range.from != RangeMs::ALL.from).then(|| range.from.to_string()),
            to: (range.to != RangeMs::ALL.to).then(|| range.to.to_string()),
            processors: Processor::ALL.into_iter().map(of_processor).collect(),
            total_requests: totals.iter().map(|totals| totals.count).sum(),
            total_amount: amount(total_cents),
            fees: fees.map(amount),
            saved: saved.map(amount),
        }
    }
}

/// Cents from parts of cents, the half upwards.
fn rounded(parts: i128) -> i128 {
    (parts + WHOLE_BP / 2).div_euclid(WHOLE_BP)
}

fn amount(cents: i128) -> String {
    let fits = i64::try_from(cents).unwrap_or(if cents < 0 { i64::MIN } else { i64::MAX });
    Cents::new(fits).to_string()
}

#[cfg(test)]
mod tests {
    use ledger::TimestampMs;

    use super::*;

    fn totals(default: (u64, i64), fallback: (u64, i64)) -> [Totals; 2] {
        [default, fallback].map(|(count, cents)| Totals { count, amount: Cents::new(cents) })
    }

    #[test]
    fn fees_are_exact_to_the_cent_and_what_is_saved_is_against_fallback() {
        let totals = totals((3, 5970), (1, 1990));
        let told = RangeTotals::of(RangeMs::ALL, &totals, [Some(500), Some(1500)]);
        // 5 % of 59.70 is 2.985, and 15 % of 19.90 is 2.985.
        let fees: Vec<_> = told.processors.iter().map(|of| of.fees.as_deref().unwrap()).collect();
        assert_eq!(fees, ["2.99", "2.99"]);
        assert_eq!((told.total_requests, told.total_amount.as_str()), (4, "79.60"));
        assert_eq!((told.fees.as_deref(), told.saved.as_deref()), (Some("5.98"), Some("5.96")));
        let json = sonic_rs::to_string(&told).unwrap();
        let begin = r#"{"from":null,"to":null,"processors":[{"name":"default","totalRequests":3,"totalAmount":"59.70","feeBasisPoints":500,"fees":"2.99"},"#;
        assert!(json.starts_with(begin), "{json}");
    }

    #[test]
    fn nothing_is_reckoned_with_a_fee_that_is_not_known() {
        let range = RangeMs { from: TimestampMs::clamped(0), to: RangeMs::ALL.to };
        let told = RangeTotals::of(range, &totals((1, 100), (0, 0)), [Some(500), None]);
        assert_eq!((told.fees, told.saved), (None, None));
        assert_eq!(told.processors[0].fees.as_deref(), Some("0.05"));
        assert_eq!(told.from.as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(told.to, None);
    }

    #[test]
    fn a_dearer_default_saves_less_than_nothing() {
        let told =
            RangeTotals::of(RangeMs::ALL, &totals((1, 10_000), (0, 0)), [Some(900), Some(100)]);
        assert_eq!(told.saved.as_deref(), Some("-8.00"));
    }

    #[test]
    fn the_greatest_totals_fit() {
        let told = RangeTotals::of(
            RangeMs::ALL,
            &totals((1, i64::MAX), (1, i64::MAX)),
            [Some(10_000), Some(10_000)],
        );
        assert_eq!(told.saved.as_deref(), Some("0.00"));
    }
}
