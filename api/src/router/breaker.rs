//! A circuit breaker: closed while calls succeed; open after three failures in a row; and while it is
//! open, one probe at a time, with a real payment, to see whether the processor is back.

/// Failures in a row that open the breaker.
pub const FAILURES_TO_OPEN: u32 = 3;

/// The pause between probes.
pub const PROBE_INTERVAL_MS: u64 = 100;

/// The state of a breaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// No call goes through.
    Open {
        /// When a probe may be sent.
        probe_at_ms: u64,
    },
    /// A probe is on its way.
    HalfOpen,
}

/// A breaker.
#[derive(Debug)]
pub struct Breaker {
    state: BreakerState,
    failures_in_row: u32,
}

impl Breaker {
    /// A closed breaker.
    pub fn new() -> Self {
        Self { state: BreakerState::Closed, failures_in_row: 0 }
    }

    /// Its state.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// A call was sent.
    pub fn sent(&mut self, now_ms: u64) {
        if let BreakerState::Open { probe_at_ms } = self.state
            && now_ms >= probe_at_ms
        {
            self.state = BreakerState::HalfOpen;
        }
    }

    /// A call was not sent after all.
    pub fn withdrawn(&mut self) {
        if self.state == BreakerState::HalfOpen {
            self.state = BreakerState::Open { probe_at_ms: 0 };
        }
    }

    /// A call succeeded. True if that closed the breaker.
    pub fn succeeded(&mut self) -> bool {
        self.failures_in_row = 0;
        let was = self.state;
        self.state = BreakerState::Closed;
        was != BreakerState::Closed
    }

    /// A call failed. True if that opened the breaker.
    pub fn failed(&mut self, now_ms: u64) -> bool {
        self.failures_in_row += 1;
        match self.state {
            BreakerState::Closed if self.failures_in_row < FAILURES_TO_OPEN => false,
            BreakerState::Closed => self.open(now_ms),
            BreakerState::HalfOpen => {
                self.open(now_ms);
                false
            }
            // A call from before the breaker opened; the probe that is due tells more.
            BreakerState::Open { .. } => false,
        }
    }

    /// The processor says that it is failing. True if that opened the breaker.
    pub fn trip(&mut self, now_ms: u64) -> bool {
        self.state == BreakerState::Closed && self.open(now_ms)
    }

    /// The processor says that it is well, so a probe need not wait. The breaker closes only once a
    /// call has succeeded.
    pub fn encourage(&mut self, now_ms: u64) {
        if let BreakerState::Open { probe_at_ms } = &mut self.state {
            *probe_at_ms = now_ms.min(*probe_at_ms);
        }
    }

    fn open(&mut self, now_ms: u64) -> bool {
        self.state = BreakerState::Open { probe_at_ms: now_ms + PROBE_INTERVAL_MS };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_open_it_and_a_success_in_between_does_not() {
        let mut breaker = Breaker::new();
        assert!(!breaker.failed(0));
        assert!(!breaker.failed(0));
        assert!(!breaker.succeeded());
        assert!(!breaker.failed(0));
        assert!(!breaker.failed(0));
        assert!(breaker.failed(7));
        assert_eq!(breaker.state(), BreakerState::Open { probe_at_ms: 7 + PROBE_INTERVAL_MS });
    }

    #[test]
    fn a_probe_that_fails_opens_it_again_and_one_that_succeeds_closes_it() {
        let mut breaker = Breaker::new();
        assert!(breaker.trip(0));
        breaker.sent(PROBE_INTERVAL_MS);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(!breaker.failed(500), "it was open before");
        assert_eq!(breaker.state(), BreakerState::Open { probe_at_ms: 500 + PROBE_INTERVAL_MS });
        breaker.sent(1000);
        assert!(breaker.succeeded());
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn failures_from_before_it_opened_do_not_put_the_probe_off() {
        let mut breaker = Breaker::new();
        breaker.trip(0);
        breaker.failed(90);
        assert_eq!(breaker.state(), BreakerState::Open { probe_at_ms: PROBE_INTERVAL_MS });
    }
}
