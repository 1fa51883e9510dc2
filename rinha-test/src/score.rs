//! The contest's score. `scoring.js` has the same formulas for k6; both are checked against
//! `fixtures/scoring.json`, so that the fixture is no mere copy of what one of them computes.
//!
//! All arithmetic is on whole numbers: money in cents, fees in hundredths of a per cent, the
//! bonus in per cent, times in hundredths of a millisecond.

use ledger::Cents;

/// Hundredths of a per cent in the whole.
const FEE_WHOLE: i128 = 10_000;

/// Per cent in the whole.
const PERCENT_WHOLE: i128 = 100;

/// The p99 at which the bonus ends, in hundredths of a millisecond: 11 ms.
const BONUS_END_CENTIMS: i64 = 1100;

/// Hundredths of a millisecond that a per cent of bonus costs: 2 % for each millisecond.
const CENTIMS_PER_BONUS_PERCENT: i64 = 50;

/// What any inconsistency costs, in per cent of the net.
const FINE_PERCENT: i64 = 35;

/// What is scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// What our summary says went through default.
    pub default_amount: Cents,
    /// What our summary says went through fallback.
    pub fallback_amount: Cents,
    /// The fee of default, in hundredths of a per cent.
    pub default_fee: u16,
    /// The fee of fallback, in hundredths of a per cent.
    pub fallback_fee: u16,
    /// The p99 over every successful HTTP request of the test, in milliseconds.
    pub p99_ms: f64,
    /// Requests that were inconsistent, over all audits.
    pub inconsistencies: u64,
}

/// A score and its parts. Money is rounded to the cent, half away from zero; each part from the
/// exact figures, so that no rounding adds to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    /// What was processed.
    pub gross: Cents,
    /// What the processors keep.
    pub fees: Cents,
    /// What is left.
    pub net: Cents,
    /// The p99, in hundredths of a millisecond.
    pub p99_centims: i64,
    /// The bonus for a low p99, in per cent of the net.
    pub bonus_percent: i64,
    /// The bonus in money.
    pub bonus: Cents,
    /// The fine for inconsistencies.
    pub fine: Cents,
    /// The sum of it all.
    pub total: Cents,
}

/// Scores a run.
#[must_use]
pub fn score(run: &Run) -> Score {
    let [default, fallback] = [run.default_amount, run.fallback_amount].map(whole);
    // In units of a ten-thousandth of a cent.
    let gross = (default + fallback) * FEE_WHOLE;
    let fees = default * i128::from(run.default_fee) + fallback * i128::from(run.fallback_fee);
    let net = gross - fees;
    let p99_centims = round_p99(run.p99_ms);
    let bonus_percent = bonus_percent(p99_centims);
    let fine_percent = if run.inconsistencies > 0 { FINE_PERCENT } else { 0 };
    let of_net = |percent: i64| net * i128::from(percent);
    let percent_unit = FEE_WHOLE * PERCENT_WHOLE;
    Score {
        gross: rounded(gross, FEE_WHOLE),
        fees: rounded(fees, FEE_WHOLE),
        net: rounded(net, FEE_WHOLE),
        p99_centims,
        bonus_percent,
        bonus: rounded(of_net(bonus_percent), percent_unit),
        fine: rounded(of_net(fine_percent), percent_unit),
        total: rounded(of_net(100 + bonus_percent - fine_percent), percent_unit),
    }
}

/// The p99 in hundredths of a millisecond, half up.
#[must_use]
pub fn round_p99(p99_ms: f64) -> i64 {
    // Times are measured in nanoseconds, so this much less than one only mends what the binary
    // fraction lacks to a half.
    const MEND: f64 = 1e-9;
    let rounded = (p99_ms * 100.0 + 0.5 + MEND).floor();
    // The conversion stops at the ends of the range, which no time reaches.
    #[allow(clippy::cast_possible_truncation)]
    let centims = rounded as i64;
    centims
}

/// The bonus in per cent, half up: `max(0, (11 − p99) × 0.02)`.
fn bonus_percent(p99_centims: i64) -> i64 {
    let left = BONUS_END_CENTIMS.saturating_sub(p99_centims).max(0);
    (left + CENTIMS_PER_BONUS_PERCENT / 2) / CENTIMS_PER_BONUS_PERCENT
}

/// What two summaries of one window differ by, in requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inconsistency {
    /// As the rehearsal counts, where a payment booked at the wrong processor is none.
    pub rehearsal: u64,
    /// As the final counts, which decides.
    pub strict: u64,
}

/// Compares our summary of a window with the processors', default first.
#[must_use]
pub fn inconsistency(ours: [u64; 2], processors: [u64; 2]) -> Inconsistency {
    let [default, fallback] =
        [0, 1].map(|side: usize| i128::from(ours[side]) - i128::from(processors[side]));
    let count = |difference: i128| u64::try_from(difference.abs()).unwrap_or(u64::MAX);
    Inconsistency {
        rehearsal: count(default + fallback),
        strict: count(default.abs() + fallback.abs()),
    }
}

fn whole(amount: Cents) -> i128 {
    i128::from(amount.get())
}

/// A number of parts in wholes, half away from zero.
fn rounded(parts: i128, parts_per_whole: i128) -> Cents {
    let half = if parts < 0 { -parts_per_whole / 2 } else { parts_per_whole / 2 };
    let wholes = (parts + half) / parts_per_whole;
    Cents::new(i64::try_from(wholes).expect("a share of a 64-bit total fits"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// The figures that `scoring.js` is checked against as well.
    const FIXTURE: &str = include_str!("../fixtures/scoring.json");

    #[derive(Deserialize)]
    struct Fixture {
        scores: Vec<ScoreCase>,
        inconsistencies: Vec<InconsistencyCase>,
    }

    #[derive(Deserialize)]
    struct ScoreCase {
        what: String,
        default_cents: i64,
        fallback_cents: i64,
        default_fee: u16,
        fallback_fee: u16,
        p99_ms: f64,
        inconsistencies: u64,
        gross_cents: i64,
        fees_cents: i64,
        net_cents: i64,
        p99_centims: i64,
        bonus_percent: i64,
        bonus_cents: i64,
        fine_cents: i64,
        score_cents: i64,
    }

    #[derive(Deserialize)]
    struct InconsistencyCase {
        ours: [u64; 2],
        processors: [u64; 2],
        rehearsal: u64,
        strict: u64,
    }

    fn fixture() -> Fixture {
        sonic_rs::from_str(FIXTURE).unwrap()
    }

    #[test]
    fn recorded_runs_have_their_recorded_scores() {
        let cases = fixture().scores;
        assert!(cases.len() >= 10);
        for case in cases {
            let result = score(&Run {
                default_amount: Cents::new(case.default_cents),
                fallback_amount: Cents::new(case.fallback_cents),
                default_fee: case.default_fee,
                fallback_fee: case.fallback_fee,
                p99_ms: case.p99_ms,
                inconsistencies: case.inconsistencies,
            });
            let expected = Score {
                gross: Cents::new(case.gross_cents),
                fees: Cents::new(case.fees_cents),
                net: Cents::new(case.net_cents),
                p99_centims: case.p99_centims,
                bonus_percent: case.bonus_percent,
                bonus: Cents::new(case.bonus_cents),
                fine: Cents::new(case.fine_cents),
                total: Cents::new(case.score_cents),
            };
            assert_eq!(result, expected, "{}", case.what);
        }
    }

    #[test]
    fn inconsistencies_are_counted_in_both_readings() {
        let cases = fixture().inconsistencies;
        assert!(cases.len() >= 4);
        for case in cases {
            let InconsistencyCase { ours, processors, rehearsal, strict } = case;
            let expected = Inconsistency { rehearsal, strict };
            assert_eq!(inconsistency(ours, processors), expected, "{ours:?} {processors:?}");
        }
    }
}
