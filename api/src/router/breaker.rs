//! A circuit breaker: closed while calls succeed; open after three failures in a row; and while it is
//! open, a probe in each interval, with a real payment, to see whether the processor is back.
//!
//! The next probe does not wait for the answer to the one before: a processor that takes a second to say
//! that it fails would else be found to be back a second late. One that says of itself that it is slower than
//! the books allow gets fewer (`state.rs`).

/// Failures in a row that open the breaker.
pub const FAILURES_TO_OPEN: u32 = 3;

/// The pause between probes. Two instances together spend at most 20 calls in a second.
pub const PROBE_INTERVAL_MS: u64 = 100;

/// Probes without an answer at most.
pub const PROBES_MAX: u32 = 32;

/// The state of a breaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// No call goes through, but for a probe from this time on.
    Open {
        /// When a probe may be sent.
        probe_at_ms: u64,
    },
    /// As open, with probes under way.
    HalfOpen {
        /// When the next probe may be sent; `None` where enough are under way.
        probe_at_ms: Option<u64>,
    },
}

/// A breaker.
#[derive(Debug)]
pub struct Breaker {
    failures_in_row: u32,
    /// When a probe may be sent; `None` while the breaker is closed.
    probe_at_ms: Option<u64>,
    probes_count: u32,
    opened_at_ms: u64,
}

impl Breaker {
    /// A closed breaker.
    pub fn new() -> Self {
        Self { failures_in_row: 0, probe_at_ms: None, probes_count: 0, opened_at_ms: 0 }
    }

    /// Its state.
    pub fn state(&self) -> BreakerState {
        match (self.probe_at_ms, self.probes_count) {
            (None, _) => BreakerState::Closed,
            (Some(probe_at_ms), 0) => BreakerState::Open { probe_at_ms },
            (Some(probe_at_ms), count) => BreakerState::HalfOpen {
                probe_at_ms: Some(probe_at_ms).filter(|_| count < PROBES_MAX),
            },
        }
    }

    /// Whether calls go through.
    pub fn is_closed(&self) -> bool {
        self.probe_at_ms.is_none()
    }

    /// A call was sent.
    pub fn sent(&mut self, now_ms: u64) {
        if let Some(probe_at_ms) = &mut self.probe_at_ms {
            *probe_at_ms = now_ms + PROBE_INTERVAL_MS;
            self.probes_count += 1;
        }
    }

    /// A call was not sent after all.
    pub fn withdrawn(&mut self) {
        if let Some(probe_at_ms) = &mut self.probe_at_ms {
            *probe_at_ms = 0;
            self.probes_count = self.probes_count.saturating_sub(1);
        }
    }

    /// A call succeeded. True if that closed the breaker.
    pub fn succeeded(&mut self) -> bool {
        let was_open = !self.is_closed();
        *self = Self::new();
        was_open
    }

    /// A call that was sent at this time failed. True if that opened the breaker.
    pub fn failed(&mut self, sent_at_ms: u64, now_ms: u64) -> bool {
        self.failures_in_row += 1;
        if self.is_closed() {
            return self.failures_in_row >= FAILURES_TO_OPEN && self.open(now_ms);
        }
        // A call from before the breaker opened was no probe.
        if sent_at_ms >= self.opened_at_ms {
            self.probes_count = self.probes_count.saturating_sub(1);
        }
        false
    }

    /// The processor says that it is failing. True if that opened the breaker.
    pub fn trip(&mut self, now_ms: u64) -> bool {
        self.is_closed() && self.open(now_ms)
    }

    /// The processor says that it is well, so a probe need not wait. The breaker closes only once a
    /// call has succeeded.
    pub fn encourage(&mut self, now_ms: u64) {
        if let Some(probe_at_ms) = &mut self.probe_at_ms {
            *probe_at_ms = now_ms.min(*probe_at_ms);
        }
    }

    fn open(&mut self, now_ms: u64) -> bool {
        self.probe_at_ms = Some(now_ms + PROBE_INTERVAL_MS);
        self.probes_count = 0;
        self.opened_at_ms = now_ms;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: u64 = PROBE_INTERVAL_MS;

    #[test]
    fn three_failures_in_a_row_open_it_and_a_success_in_between_does_not() {
        let mut breaker = Breaker::new();
        assert!(!breaker.failed(0, 0));
        assert!(!breaker.failed(0, 0));
        assert!(!breaker.succeeded());
        assert!(!breaker.failed(0, 0));
        assert!(!breaker.failed(0, 0));
        assert!(breaker.failed(0, 7));
        assert_eq!(breaker.state(), BreakerState::Open { probe_at_ms: 7 + INTERVAL });
    }

    #[test]
    fn a_probe_that_fails_leaves_it_open_and_one_that_succeeds_closes_it() {
        let mut breaker = Breaker::new();
        assert!(breaker.trip(0));
        breaker.sent(INTERVAL);
        let next = Some(2 * INTERVAL);
        assert_eq!(breaker.state(), BreakerState::HalfOpen { probe_at_ms: next });
        assert!(!breaker.failed(INTERVAL, 500), "it was open before");
        assert_eq!(breaker.state(), BreakerState::Open { probe_at_ms: 2 * INTERVAL });
        breaker.sent(1000);
        assert!(breaker.succeeded());
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_probe_does_not_wait_for_the_one_before_as_long_as_there_are_not_too_many() {
        let mut breaker = Breaker::new();
        breaker.trip(0);
        for number in 1..=u64::from(PROBES_MAX) {
            assert_ne!(breaker.state(), BreakerState::HalfOpen { probe_at_ms: None });
            breaker.sent(number * INTERVAL);
        }
        assert_eq!(breaker.state(), BreakerState::HalfOpen { probe_at_ms: None });
        breaker.failed(INTERVAL, 10_000);
        assert!(matches!(breaker.state(), BreakerState::HalfOpen { probe_at_ms: Some(_) }));
    }

    #[test]
    fn failures_from_before_it_opened_are_no_probes() {
        let mut breaker = Breaker::new();
        breaker.trip(50);
        breaker.sent(50 + INTERVAL);
        breaker.failed(20, 180);
        assert!(matches!(breaker.state(), BreakerState::HalfOpen { .. }));
        breaker.failed(50 + INTERVAL, 190);
        assert_eq!(breaker.state(), BreakerState::Open { probe_at_ms: 50 + 2 * INTERVAL });
    }
}
