//! How often the health check may be asked: one answer per fixed window.
//!
//! The windows lie end to end from the first call on. The first call in a window is answered at
//! once. A further call is held until a window opens whose answer nobody has yet: the first held
//! call gets the next window's, the second that of the window after. A window whose answer went to
//! a held call has none left, so a call in it is held for a later one. With two calls held, any
//! other is refused and told when the next window opens: then one held call is answered, and there
//! is room for another.
//!
//! A held call keeps its window even if its caller hangs up.
//!
//! This is a pure state machine: the time comes in, a verdict comes out, the caller does the
//! waiting. All that it has to know is the first window whose answer is still free.

/// Calls that may be held at the same time.
const HELD_CALLS_MAX: u64 = 2;

/// What is to be done with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer it.
    Now,
    /// Answer it at this time, when its window opens.
    Held {
        /// Milliseconds on the clock by which the call was judged.
        until_ms: u64,
    },
    /// Refuse it.
    Refused {
        /// Whole seconds, at least 1, after which there is room for another call.
        retry_after_s: u64,
    },
}

/// The windows.
#[derive(Debug)]
pub struct HealthWindows {
    length_ms: u64,
    /// When the first window opened: at the first call.
    start_ms: Option<u64>,
    /// The first window whose answer nobody has; all before it are given away or gone by.
    free_window: u64,
}

impl HealthWindows {
    /// Windows of this length, at least a millisecond.
    #[must_use]
    pub fn new(length_ms: u64) -> Self {
        Self { length_ms: length_ms.max(1), start_ms: None, free_window: 0 }
    }

    /// Judges a call that arrives at this time, on a clock that never goes back.
    pub fn call(&mut self, now_ms: u64) -> Verdict {
        let start_ms = *self.start_ms.get_or_insert(now_ms);
        let opens_ms = |window: u64| start_ms + window * self.length_ms;
        let current_window = now_ms.saturating_sub(start_ms) / self.length_ms;
        let window = self.free_window.max(current_window);
        // The windows between now and that one are those of the calls that are held.
        let windows_ahead = window - current_window;
        if windows_ahead > HELD_CALLS_MAX {
            let wait_ms = opens_ms(current_window + 1).saturating_sub(now_ms);
            return Verdict::Refused { retry_after_s: wait_ms.div_ceil(1000).max(1) };
        }
        self.free_window = window + 1;
        if windows_ahead == 0 { Verdict::Now } else { Verdict::Held { until_ms: opens_ms(window) } }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START_MS: u64 = 100;

    fn windows() -> HealthWindows {
        let mut windows = HealthWindows::new(5000);
        assert_eq!(windows.call(START_MS), Verdict::Now);
        windows
    }

    fn held(until_ms: u64) -> Verdict {
        Verdict::Held { until_ms: START_MS + until_ms }
    }

    fn refused(retry_after_s: u64) -> Verdict {
        Verdict::Refused { retry_after_s }
    }

    #[test]
    fn one_call_per_window_is_answered_at_once() {
        let mut windows = windows();
        assert_eq!(windows.call(START_MS + 5000), Verdict::Now);
        assert_eq!(windows.call(START_MS + 14_999), Verdict::Now);
        assert_eq!(windows.call(START_MS + 15_000), Verdict::Now);
    }

    #[test]
    fn the_windows_are_fixed_and_do_not_move_with_a_late_call() {
        let mut windows = windows();
        assert_eq!(windows.call(START_MS + 9_000), Verdict::Now);
        assert_eq!(windows.call(START_MS + 9_001), held(10_000));
    }

    #[test]
    fn two_calls_are_held_for_a_window_each_and_further_ones_refused() {
        let mut windows = windows();
        assert_eq!(windows.call(START_MS + 1), held(5000));
        assert_eq!(windows.call(START_MS + 2), held(10_000));
        assert_eq!(windows.call(START_MS + 3), refused(5));
        assert_eq!(windows.call(START_MS + 4), refused(5));
    }

    #[test]
    fn a_window_that_went_to_a_held_call_has_no_answer_left() {
        let mut windows = windows();
        assert_eq!(windows.call(START_MS + 1), held(5000));
        assert_eq!(windows.call(START_MS + 5001), held(10_000));
        assert_eq!(windows.call(START_MS + 5002), held(15_000));
        assert_eq!(windows.call(START_MS + 5003), refused(5));
    }

    #[test]
    fn a_call_that_waits_as_long_as_it_was_told_is_not_refused_again() {
        let mut windows = windows();
        let _ = windows.call(START_MS + 1);
        let _ = windows.call(START_MS + 2);
        assert_eq!(windows.call(START_MS + 1500), refused(4));
        assert_eq!(windows.call(START_MS + 1500 + 4000), held(15_000));
    }

    #[test]
    fn the_time_to_come_back_is_rounded_up_and_never_zero() {
        let mut windows = windows();
        let _ = windows.call(START_MS + 1);
        let _ = windows.call(START_MS + 2);
        assert_eq!(windows.call(START_MS + 1000), refused(4));
        assert_eq!(windows.call(START_MS + 1001), refused(4));
        assert_eq!(windows.call(START_MS + 999), refused(5));
        assert_eq!(windows.call(START_MS + 4999), refused(1));
    }

    #[test]
    fn windows_that_nobody_asked_in_are_not_saved_up() {
        let mut windows = windows();
        assert_eq!(windows.call(START_MS + 60_000), Verdict::Now);
        assert_eq!(windows.call(START_MS + 60_001), held(65_000));
        assert_eq!(windows.call(START_MS + 60_002), held(70_000));
        assert_eq!(windows.call(START_MS + 60_003), refused(5));
    }

    proptest! {
        #[test]
        fn no_window_has_two_answers_and_no_more_than_two_calls_are_ever_held(
            length_ms in 1u64..1000,
            pauses_ms in prop::collection::vec(0u64..1500, 1..100),
        ) {
            let mut windows = HealthWindows::new(length_ms);
            let mut now_ms = 0;
            let mut start_ms = None;
            let mut answered_windows = Vec::new();
            let mut held_until_ms: Vec<u64> = Vec::new();
            for pause_ms in pauses_ms {
                now_ms += pause_ms;
                let start_ms = *start_ms.get_or_insert(now_ms);
                held_until_ms.retain(|until_ms| *until_ms > now_ms);
                match windows.call(now_ms) {
                    Verdict::Now => answered_windows.push((now_ms - start_ms) / length_ms),
                    Verdict::Held { until_ms } => {
                        prop_assert!(until_ms > now_ms);
                        prop_assert_eq!((until_ms - start_ms) % length_ms, 0);
                        answered_windows.push((until_ms - start_ms) / length_ms);
                        held_until_ms.push(until_ms);
                        prop_assert!(held_until_ms.len() <= 2);
                    }
                    Verdict::Refused { retry_after_s } => {
                        prop_assert!(retry_after_s >= 1);
                        prop_assert_eq!(held_until_ms.len(), 2);
                    }
                }
            }
            let count = answered_windows.len();
            answered_windows.dedup();
            prop_assert_eq!(answered_windows.len(), count);
            prop_assert!(answered_windows.is_sorted());
        }
    }
}
