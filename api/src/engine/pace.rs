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

/// Windows that have sufficed for so long begin anew, in milliseconds.
const MEMORY_MS: u64 = 1_000;

/// How many payments may be sent now.
#[derive(Debug)]
pub(super) struct Pace {
    allowance: usize,
    window_ends_ms: u64,
    left: usize,
    /// When a window did not suffice last.
    short_at_ms: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { allowance: ALLOWANCE, window_ends_ms: 0, left: 0, short_at_ms: 0 }
    }
}

impl Pace {
    /// None if a payment may be sent now, else the time at which one may be.
    pub fn wait_until_ms(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms >= self.window_ends_ms {
            if now_ms > self.short_at_ms.saturating_add(MEMORY_MS) {
                self.allowance = ALLOWANCE;
            }
            self.left = self.allowance;
            self.window_ends_ms = now_ms + WINDOW_MS;
        }
        if self.left > 0 {
            return None;
        }
        if self.short_at_ms < self.window_ends_ms {
            self.short_at_ms = self.window_ends_ms;
            self.allowance += STEP;
        }
        Some(self.window_ends_ms)
    }

    /// Takes in that a payment was sent.
    pub fn sent(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as many of these as may be, from one time to another, asked each millisecond.
    fn send(pace: &mut Pace, mut waiting: usize, from_ms: u64, until_ms: u64) -> usize {
        let before = waiting;
        for now_ms in from_ms..until_ms {
            while waiting > 0 && pace.wait_until_ms(now_ms).is_none() {
                pace.sent();
                waiting -= 1;
            }
        }
        before - waiting
    }

    #[test]
    fn few_wait_for_nothing() {
        let mut pace = Pace::default();
        for now_ms in (1_000..60_000).step_by(5) {
            assert_eq!(send(&mut pace, ALLOWANCE, now_ms, now_ms + 1), ALLOWANCE);
        }
        assert_eq!(pace.allowance, ALLOWANCE);
    }

    #[test]
    fn what_has_waited_goes_in_widening_windows() {
        let mut pace = Pace::default();
        let windows: Vec<usize> = (0..4)
            .map(|window| 1_000 + window * WINDOW_MS)
            .map(|from_ms| send(&mut pace, 1_000, from_ms, from_ms + WINDOW_MS))
            .collect();
        assert_eq!(windows, [0, 1, 2, 3].map(|number| ALLOWANCE + number * STEP));
        // A second later next to nothing holds them up.
        let second = send(&mut pace, usize::MAX, 1_020, 2_020);
        assert!((40_000..50_000).contains(&second), "{second}");
    }

    #[test]
    fn it_begins_anew_after_a_second_in_which_it_sufficed() {
        let mut pace = Pace::default();
        send(&mut pace, usize::MAX, 1_000, 1_100);
        let wide = pace.allowance;
        assert!(wide > ALLOWANCE);
        send(&mut pace, 1, 2_000, 2_001);
        assert_eq!(pace.allowance, wide);
        send(&mut pace, 1, 2_200, 2_201);
        assert_eq!(pace.allowance, ALLOWANCE);
    }

    #[test]
    fn it_tells_when_the_next_may_be_sent() {
        let mut pace = Pace::default();
        send(&mut pace, ALLOWANCE, 1_000, 1_001);
        assert_eq!(pace.wait_until_ms(1_003), Some(1_000 + WINDOW_MS));
        assert_eq!(pace.wait_until_ms(1_000 + WINDOW_MS), None);
    }
}
