//! The pace at which what has waited is sent.
//!
//! When both processors come back after an outage, thousands of payments may be sent at once. To send
//! them all in the same moment would take the CPU from those that come in, use up the quota of a
//! container, and meet a processor that has just recovered with all that it has missed. So the first
//! go at [`ALLOWANCE`] in a window of [`WINDOW_MS`], 4,000 a second, and each window that does not
//! suffice makes the next ones wider by [`STEP`]: after a second, they let 80,000 a second through.

/// How long a window is, in milliseconds.
pub(super) const WINDOW_MS: u64 = 5;

/// Payments that may be sent in the first window.
pub(super) const ALLOWANCE: usize = 20;

/// How many more may be sent in the window after one that did not suffice.
const STEP: usize = 2;

/// Once windows have sufficed for so long they are as wide as was needed in that time, in milliseconds.
const MEMORY_MS: u64 = 1_000;

/// Windows that may be made up for at once after a turn that took longer than one.
const WINDOWS_MAX: u64 = 8;

/// How many payments may be sent now.
#[derive(Debug)]
pub(super) struct Pace {
    allowance: usize,
    began_ms: u64,
    /// Windows that the present one stands for.
    windows: usize,
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
            allowance: ALLOWANCE,
            began_ms: 0,
            windows: 1,
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
        if self.sent < self.allowance * self.windows {
            return Ok(());
        }
        self.is_short = true;
        Err(self.began_ms + WINDOW_MS)
    }

    fn begin_window(&mut self, now_ms: u64) {
        self.most = self.most.max(self.sent.div_ceil(self.windows));
        let passed = (now_ms - self.began_ms) / WINDOW_MS;
        if self.is_short {
            self.allowance += STEP * self.windows;
            (self.most, self.looked_at_ms) = (0, now_ms);
        } else if now_ms >= self.looked_at_ms + MEMORY_MS {
            self.allowance = self.most.max(ALLOWANCE);
            (self.most, self.looked_at_ms) = (0, now_ms);
        }
        // Nobody was there to ask in the windows that a long turn has passed over.
        let windows = if self.is_short { passed.clamp(1, WINDOWS_MAX) } else { 1 };
        self.windows = usize::try_from(windows).expect("it is small");
        (self.began_ms, self.sent, self.is_short) = (now_ms, 0, false);
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
        for now_ms in (1_000..60_000).step_by(5) {
            assert_eq!(send(&mut pace, ALLOWANCE, [now_ms, now_ms + 1], 1), ALLOWANCE);
        }
        assert_eq!(pace.allowance, ALLOWANCE);
    }

    #[test]
    fn what_has_waited_goes_in_widening_windows() {
        let mut pace = Pace::default();
        let windows: Vec<usize> = (0..4)
            .map(|window| 1_000 + window * WINDOW_MS)
            .map(|from_ms| send(&mut pace, 1_000, [from_ms, from_ms + WINDOW_MS], 1))
            .collect();
        assert_eq!(windows, [0, 1, 2, 3].map(|number| ALLOWANCE + number * STEP));
        // A second later next to nothing holds them up.
        let second = send(&mut pace, usize::MAX, [1_020, 2_020], 1);
        assert!((40_000..50_000).contains(&second), "{second}");
    }

    #[test]
    fn turns_that_take_longer_than_a_window_send_as_many_in_a_second() {
        let seconds = [1, 30].map(|every| {
            let mut pace = Pace::default();
            send(&mut pace, usize::MAX, [1_000, 2_000], every)
        });
        assert!(seconds[1] > seconds[0] * 8 / 10, "{seconds:?}");
    }

    #[test]
    fn a_steady_load_is_held_up_once_and_not_again() {
        let mut pace = Pace::default();
        let mut held_up = 0;
        let mut waiting = 0;
        for now_ms in (1_000..20_000).step_by(5) {
            waiting += 50;
            waiting -= send(&mut pace, waiting, [now_ms, now_ms + 1], 1);
            held_up += usize::from(waiting > 0 && now_ms > 3_000);
        }
        assert_eq!(held_up, 0);
    }

    #[test]
    fn it_begins_anew_after_a_second_in_which_little_was_needed() {
        let mut pace = Pace::default();
        send(&mut pace, usize::MAX, [1_000, 1_100], 1);
        let wide = pace.allowance;
        assert!(wide > ALLOWANCE);
        send(&mut pace, 1, [2_000, 2_001], 1);
        assert!(pace.allowance >= wide);
        for from_ms in [3_200, 4_300] {
            send(&mut pace, 1, [from_ms, from_ms + 1], 1);
        }
        assert_eq!(pace.allowance, ALLOWANCE);
    }

    #[test]
    fn it_tells_when_the_next_may_be_sent() {
        let mut pace = Pace::default();
        send(&mut pace, ALLOWANCE, [1_000, 1_001], 1);
        assert_eq!(pace.admit(1_003), Err(1_000 + WINDOW_MS));
        assert_eq!(pace.admit(1_000 + WINDOW_MS), Ok(()));
    }
}
