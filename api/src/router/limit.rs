//! A limit of calls in flight that finds out how many a processor takes: additive increase,
//! multiplicative decrease, as TCP does it (Chiu and Jain, "Analysis of the increase and decrease
//! algorithms for congestion avoidance", 1989).
//!
//! It begins at its greatest value, because the processors' own limit is known and seldom changes.
//! Latency does not lower it: a processor's delay does not grow with its load.

/// By what the limit is multiplied when the processor has too much to do.
const DECREASE: f64 = 0.5;

/// The limit.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    calls: f64,
    calls_max: f64,
    /// What was sent before this tells nothing of the limit as it is now.
    decreased_at_ms: u64,
}

impl Limit {
    /// A limit of at most this many calls.
    pub fn new(calls_max: u32) -> Self {
        let calls_max = f64::from(calls_max.max(1));
        Self { calls: calls_max, calls_max, decreased_at_ms: 0 }
    }

    /// Calls that may be in flight.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Between 1 and a u32.
    pub fn get(&self) -> u32 {
        self.calls as u32
    }

    /// Whether it is as low as it can be.
    pub fn is_least(&self) -> bool {
        self.calls < 2.0
    }

    /// A call succeeded while so many were in flight.
    pub fn succeeded(&mut self, in_flight: u32) {
        // A limit that is not reached is not known to be too low.
        if f64::from(in_flight) + 1.0 >= self.calls.floor() {
            self.calls = (self.calls + 1.0 / self.calls).min(self.calls_max);
        }
    }

    /// The processor had too much to do for a call that was sent at this time.
    pub fn overloaded(&mut self, sent_at_ms: u64, now_ms: u64) {
        // All calls of one round trip tell of the same overload.
        if sent_at_ms >= self.decreased_at_ms {
            self.calls = (self.calls * DECREASE).max(1.0);
            self.decreased_at_ms = now_ms.max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overload_halves_it_once_for_all_calls_of_a_round_trip() {
        let mut limit = Limit::new(100);
        limit.overloaded(0, 10);
        limit.overloaded(5, 11);
        assert_eq!(limit.get(), 50);
        limit.overloaded(12, 20);
        assert_eq!(limit.get(), 25);
        for round in 3..20 {
            limit.overloaded(round * 10, round * 10);
        }
        assert_eq!(limit.get(), 1);
        assert!(limit.is_least());
    }

    #[test]
    fn it_grows_by_about_one_in_a_round_trip_and_only_where_it_is_reached() {
        let mut limit = Limit::new(100);
        limit.overloaded(0, 1);
        for _ in 0..1000 {
            limit.succeeded(10);
        }
        assert_eq!(limit.get(), 50, "it was not reached");
        for _ in 0..51 {
            limit.succeeded(50);
        }
        assert_eq!(limit.get(), 51);
        for _ in 0..100_000 {
            limit.succeeded(100);
        }
        assert_eq!(limit.get(), 100);
    }
}
