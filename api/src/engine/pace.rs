//! The pace at which what has waited is sent.
//!
//! When both processors come back after an outage, thousands of payments may be sent at once. To send
//! them all in the same moment would take the CPU from those that come in, use up the quota of a
//! container, and meet a processor that has just recovered with all that it has missed. So after the
//! first [`BURST`] they go at [`ALLOWANCE`] in a window of [`WINDOW_MS`], 1,000 a second, and each
//! window that does not suffice makes the next ones wider by one part in [`GROWTH`]: twice as wide each
//! 0.45 s, 40,000 a second after 2.4 s.

use super::deciding::CLAIM_ENOUGH;

/// How long a window is, in milliseconds.
pub(super) const WINDOW_MS: u64 = 10;

/// Payments that may be sent at once after a window that sufficed: as many as are gathered for a claim.
pub(super) const BURST: usize = CLAIM_ENOUGH;

/// Payments that may be sent in a window after the first that did not suffice.
const ALLOWANCE: usize = 10;

/// By which part of it an allowance grows when it did not suffice.
const GROWTH: usize = 64;

/// Allowances are kept in thousandths of a payment, so that small ones grow as well.
const THOUSAND: usize = 1_000;

/// Once windows have sufficed for so long they are as wide as was needed in that time, in milliseconds.
const MEMORY_MS: u64 = 1_000;

/// Windows that may be made up for at once after a turn that took longer than one.
const WINDOWS_MAX: u64 = 4;

/// How many payments may be sent now.
#[derive(Debug)]
pub(super) struct Pace {
    /// Thousandths of a payment in a window.
    allowance: usize,
    began_ms: u64,
    /// Windows that the present one stands for.
    windows: usize,
    /// Payments that may be sent in the present one.
    budget: usize,
    sent: usize,
    /// Whether the present one does not suffice.
    is_short: bool,
    /// The most that was sent in a window since one did not suffice, or since that was last looked at.
    most: usize,
    looked_at_ms: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            allowance: ALLOWANCE * THOUSAND,
            began_ms: 0,
            windows: 1,
            budget: BURST,
            sent: 0,
            is_short: false,
            most: 0,
            looked_at_ms: 0,
        }
    }
}

impl Pace {
    /// Asks whether a payment may be sent now. If not, the error is the time at which one may be.
    pub fn admit(&mut self, now_ms: u64) -> Result<(), u64> {
        if now_ms >= self.began_ms + WINDOW_MS {
            self.begin_window(now_ms);
        }
        if self.sent < self.budget {
            return Ok(());
        }
        self.is_short = true;
        Err(self.began_ms + WINDOW_MS)
    }

    fn begin_window(&mut self, now_ms: u64) {
        // What was needed before nobody asked for so long says nothing of now.
        if now_ms >= self.began_ms + MEMORY_MS {
            *self = Self { began_ms: now_ms, looked_at_ms: now_ms, ..Self::default() };
            return;
        }
        self.most = self.most.max(self.sent.div_ceil(self.windows));
        let mut began_ms = now_ms;
        if self.is_short {
            // Nobody was there to ask in the windows that a long turn has passed over.
            let passed = (now_ms - self.began_ms) / WINDOW_MS;
            began_ms = self.began_ms + passed * WINDOW_MS;
            self.windows = usize::try_from(passed.min(WINDOWS_MAX)).expect("it is small");
            self.allowance += self.allowance * self.windows / GROWTH;
            self.budget = self.allowance * self.windows / THOUSAND;
            (self.most, self.looked_at_ms) = (0, now_ms);
        } else {
            if now_ms >= self.looked_at_ms + MEMORY_MS {
                self.allowance = self.most.max(ALLOWANCE) * THOUSAND;
                (self.most, self.looked_at_ms) = (0, now_ms);
            }
            self.windows = 1;
            self.budget = BURST.max(self.allowance / THOUSAND);
        }
        (self.began_ms, self.sent, self.is_short) = (began_ms, 0, false);
    }

    /// Takes in that a payment was sent.
    pub fn sent(&mut self) {
        self.sent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as many of these as may be, from one time to another, asked every so many milliseconds.
    fn send(pace: &mut Pace, waiting: usize, [from_ms, until_ms]: [u64; 2], every: usize) -> usize {
        let mut sent = 0;
        for now_ms in (from_ms..until_ms).step_by(every) {
            while sent < waiting && pace.admit(now_ms).is_ok() {
                pace.sent();
                sent += 1;
            }
        }
        sent
    }

    #[test]
    fn few_wait_for_nothing() {
        let mut pace = Pace::default();
        for now_ms in (1_000..60_000).step_by(10) {
            assert_eq!(send(&mut pace, BURST, [now_ms, now_ms + 1], 1), BURST);
        }
        assert_eq!(pace.allowance, BURST * THOUSAND);
    }

    #[test]
    fn what_has_waited_goes_in_widening_windows() {
        let mut pace = Pace::default();
        assert_eq!(send(&mut pace, usize::MAX, [1_000, 1_010], 1), BURST);
        let periods = [1_010, 1_460, 1_910, 2_360]
            .map(|from_ms| send(&mut pace, usize::MAX, [from_ms, from_ms + 450], 1));
        assert!((550..700).contains(&periods[0]), "{periods:?}");
        for pair in periods.windows(2) {
            assert!((190..220).contains(&(pair[1] * 100 / pair[0])), "{periods:?}");
        }
        // A second later next to nothing holds them up.
        let second = send(&mut pace, usize::MAX, [2_810, 3_810], 1);
        assert!((35_000..45_000).contains(&second), "{second}");
    }

    #[test]
    fn turns_that_take_longer_than_a_window_send_as_many_in_a_second() {
        let seconds = [1, 11, 19, 30].map(|every| {
            let mut pace = Pace::default();
            send(&mut pace, usize::MAX, [1_000, 2_000], every)
        });
        for second in seconds {
            assert!(second > seconds[0] * 8 / 10, "{seconds:?}");
        }
    }

    #[test]
    fn what_is_gathered_for_a_claim_goes_at_once() {
        let mut pace = Pace::default();
        for (from_ms, gathered) in
            (1_000..20_000).step_by(50).zip([28, CLAIM_ENOUGH].into_iter().cycle())
        {
            assert_eq!(send(&mut pace, gathered, [from_ms, from_ms + 1], 1), gathered);
        }
    }

    #[test]
    fn a_steady_load_is_held_up_once_and_seldom_again() {
        // As many in each window, and as many on average.
        for (mean, spread, held_up_max) in [(100, 0, 0), (32, 32, 100), (100, 100, 100)] {
            let mut random = fastrand::Rng::with_seed(7);
            let mut pace = Pace::default();
            let (mut waiting, mut held_up) = (0, 0);
            for now_ms in (1_000..20_000).step_by(10) {
                waiting += mean - spread + random.usize(0..=2 * spread);
                waiting -= send(&mut pace, waiting, [now_ms, now_ms + 1], 1);
                held_up += usize::from(waiting > 0 && now_ms > 5_000);
            }
            assert!(held_up <= held_up_max, "{mean} a window: {held_up} of 1,500");
        }
    }

    #[test]
    fn it_begins_anew_after_a_second_in_which_little_was_needed() {
        let mut pace = Pace::default();
        send(&mut pace, usize::MAX, [1_000, 2_100], 1);
        let wide = pace.allowance;
        assert!(wide > ALLOWANCE * THOUSAND);
        send(&mut pace, 1, [3_000, 3_001], 1);
        assert!(pace.allowance >= wide);
        for from_ms in [4_200, 5_300] {
            send(&mut pace, 1, [from_ms, from_ms + 1], 1);
        }
        assert_eq!(pace.allowance, ALLOWANCE * THOUSAND);
    }

    #[test]
    fn it_tells_when_the_next_may_be_sent() {
        let mut pace = Pace::default();
        send(&mut pace, BURST, [1_000, 1_001], 1);
        assert_eq!(pace.admit(1_003), Err(1_000 + WINDOW_MS));
        assert_eq!(pace.admit(1_000 + WINDOW_MS), Ok(()));
    }
}
