//! How long to wait for the cheaper processor while it cannot be used.
//!
//! Waiting earns the difference of the fees once it is back. It risks that the payment is not settled
//! when somebody closes the books, and then all of it is lost; the more so if the dearer processor goes
//! down in the meantime. All these chances are taken for what one knows of a thing of which one knows
//! only its age and how long such things have lasted before: it ends with a hazard of about
//! `1 / (mean + age)` (Gott, "Implications of the Copernican principle for our future prospects",
//! 1993). So waiting pays as long as
//!
//! ```text
//!         saving                     loss                          loss × share
//! ----------------------  >  ---------------------  +  -----------------------------------
//! mean outage + its age      calm + age of router      mean uptime of the dearer + its age
//! ```
//!
//! where `saving` is what the cheaper processor keeps more, and `loss` is what the dearer one keeps.

/// What outages are taken to last before the first one, in milliseconds.
const OUTAGE_MS_PRIOR: f64 = 5_000.0;
/// How long a processor is taken to stay up before its first outage.
const UPTIME_MS_PRIOR: f64 = 120_000.0;
/// The weight of a new outage, or time without one, in the estimate of how long they last.
const WEIGHT: f64 = 0.25;
/// How long the load has gone on when the router begins to see it.
const CALM_MS: f64 = 300_000.0;
/// How much of what waits is lost if the dearer processor goes down as well: most often one of the two
/// is back before the end.
const LOSS_SHARE: f64 = 0.05;

/// The times at which a processor could be used and could not.
#[derive(Clone, Copy, Debug)]
pub struct Outages {
    is_out: bool,
    since_ms: u64,
    mean_ms: f64,
    mean_uptime_ms: f64,
}

impl Outages {
    /// None yet.
    pub fn new() -> Self {
        Self {
            is_out: false,
            since_ms: 0,
            mean_ms: OUTAGE_MS_PRIOR,
            mean_uptime_ms: UPTIME_MS_PRIOR,
        }
    }

    /// Takes in whether the processor can be used now.
    pub fn note(&mut self, is_out: bool, now_ms: u64) {
        if is_out == self.is_out {
            return;
        }
        let lasted_ms = super::float(self.age_ms(now_ms));
        let mean_ms = if self.is_out { &mut self.mean_ms } else { &mut self.mean_uptime_ms };
        *mean_ms += (lasted_ms - *mean_ms) * WEIGHT;
        self.is_out = is_out;
        self.since_ms = now_ms;
    }

    /// How long it has been out, if it is.
    pub fn outage_ms(&self, now_ms: u64) -> Option<u64> {
        self.is_out.then(|| self.age_ms(now_ms))
    }

    /// How long outages last, as far as is known.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Positive, below 49 days.
    pub fn mean_ms(&self) -> u64 {
        self.mean_ms as u64
    }

    fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.since_ms)
    }
}

/// How long an outage of the cheaper processor is worth waiting for, from its begin: by what the
/// cheaper and the dearer one keep of an amount, and by their outages.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // It saturates, at 0 and far off.
pub fn worth_ms(kept: [f64; 2], cheap: &Outages, dear: &Outages, now_ms: u64) -> u64 {
    let [kept_cheap, kept_dear] = kept;
    let uptime_ms = if dear.is_out { 0.0 } else { super::float(dear.age_ms(now_ms)) };
    let hazard = 1.0 / (CALM_MS + super::float(now_ms))
        + LOSS_SHARE / (dear.mean_uptime_ms + uptime_ms).max(1.0);
    let ratio = (kept_cheap - kept_dear) / kept_dear.max(f64::EPSILON);
    (ratio / hazard - cheap.mean_ms) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worth_at_ms(fees: [f64; 2], now_ms: u64) -> u64 {
        worth_ms(fees.map(|fee| 1.0 - fee), &Outages::new(), &Outages::new(), now_ms)
    }

    #[test]
    fn the_more_there_is_to_save_the_longer_an_outage_is_waited_for() {
        let fees = [[0.05, 0.05], [0.07, 0.10], [0.05, 0.15], [0.01, 0.30]];
        let [none, small, usual, great] = fees.map(|fees| worth_at_ms(fees, 30_000));
        assert_eq!(none, 0);
        assert!(small < usual / 4 && usual < great / 3, "{small} {usual} {great}");
    }

    #[test]
    fn after_long_outages_the_next_one_is_given_up_sooner() {
        let (mut cheap, dear) = (Outages::new(), Outages::new());
        let worth = |cheap: &Outages| worth_ms([0.95, 0.85], cheap, &dear, 100_000);
        let before_ms = worth(&cheap);
        cheap.note(true, 50_000);
        cheap.note(true, 60_000);
        assert_eq!(cheap.outage_ms(60_000), Some(10_000));
        cheap.note(false, 90_000);
        assert_eq!((cheap.outage_ms(90_000), cheap.mean_ms()), (None, 13_750));
        assert_eq!(worth(&cheap), before_ms - 8_750);
    }

    #[test]
    fn a_dearer_processor_that_goes_down_often_is_not_relied_upon() {
        let (cheap, mut dear) = (Outages::new(), Outages::new());
        let before_ms = worth_ms([0.95, 0.85], &cheap, &dear, 100_000);
        dear.note(true, 10_000);
        dear.note(false, 12_000);
        dear.note(true, 20_000);
        let after_ms = worth_ms([0.95, 0.85], &cheap, &dear, 100_000);
        assert!(after_ms < before_ms * 9 / 10, "{after_ms} {before_ms}");
    }
}
