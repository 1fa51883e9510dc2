//! What the load sees: the outcome of every payment, and how long answers take.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use ledger::clock::Monotonic;

/// The longest time that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_mins(1);

/// Times are told apart to this many digits.
const DIGITS: u8 = 3;

/// What became of a payment that was to be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was never posted.
    NotSent,
    /// It was accepted, with this status.
    Accepted(u16),
    /// It was refused, with this status.
    Refused(u16),
    /// The connection broke before there was an answer.
    Broken,
    /// There was no answer in time.
    TimedOut,
}

impl Outcome {
    /// What is known of a payment after one more attempt to post it. A success outweighs all, and
    /// a doubt outweighs a refusal: it may have been taken in.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        let weight = |outcome| match outcome {
            Self::NotSent => 0,
            Self::Refused(_) => 1,
            Self::Broken | Self::TimedOut => 2,
            Self::Accepted(_) => 3,
        };
        if weight(later) >= weight(self) { later } else { self }
    }
}

/// Counts of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were to post a payment, those that no connection could be had for included.
    pub requested: u64,
    /// Requests that were answered with a 2xx.
    pub accepted: u64,
    /// Requests that were answered with another status.
    pub refused: u64,
    /// Requests whose connection broke before there was an answer.
    pub broken: u64,
    /// Requests that were not answered in time.
    pub timed_out: u64,
    /// Requests for which no connection could be had.
    pub unsent: u64,
    /// Requests that posted a payment again, also counted above.
    pub duplicates: u64,
    /// Connections that were made again.
    pub reconnections: u64,
}

impl Counts {
    /// Requests that were not accepted.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.refused + self.broken + self.timed_out + self.unsent
    }
}

/// What a meter saw since it was last asked.
pub struct Window {
    /// When it was asked, by the meter's clock.
    pub until: Duration,
    /// Everything since the start.
    pub counts: Counts,
    /// How long accepted requests of this window took, in nanoseconds.
    pub latency_ns: Histogram<u64>,
}

/// Everything that a meter saw.
#[derive(Clone)]
pub struct Measured {
    /// What became of each payment, by its number.
    pub outcomes: Vec<Outcome>,
    /// All requests.
    pub counts: Counts,
    /// How long accepted requests took, in nanoseconds.
    pub latency_ns: Histogram<u64>,
    /// How long it took from the start to the last answer.
    pub elapsed: Duration,
}

impl Measured {
    /// Accepted payments.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        let accepted = |outcome: &&Outcome| matches!(outcome, Outcome::Accepted(_));
        self.outcomes.iter().filter(accepted).count() as u64
    }
}

/// Writes down what the load sees, for those who watch it meanwhile.
pub struct Meter {
    clock: Monotonic,
    seen: Mutex<Seen>,
}

struct Seen {
    measured: Measured,
    /// Accepted payments.
    accepted: u64,
    window_ns: Histogram<u64>,
}

/// An empty histogram of times in nanoseconds.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    let highest = nanoseconds(LATENCY_MAX);
    Histogram::new_with_bounds(1000, highest, DIGITS)
        .expect("the bounds and the precision are within the histogram's own")
}

/// A time in nanoseconds.
#[must_use]
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Default for Meter {
    fn default() -> Self {
        Self::start()
    }
}

impl Meter {
    /// A meter whose clock begins at zero now.
    #[must_use]
    pub fn start() -> Self {
        let measured = Measured {
            outcomes: Vec::new(),
            counts: Counts::default(),
            latency_ns: histogram(),
            elapsed: Duration::ZERO,
        };
        let seen = Mutex::new(Seen { measured, accepted: 0, window_ns: histogram() });
        Self { clock: Monotonic::start(), seen }
    }

    /// What has passed since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Writes down the end of a request that posted this payment, and how long it took, where that
    /// says something about the system.
    pub(super) fn record(
        &self,
        number: u32,
        outcome: Outcome,
        took: Option<Duration>,
        is_first: bool,
    ) {
        let now = self.clock.elapsed();
        let mut guard = self.lock();
        let seen = &mut *guard;
        let measured = &mut seen.measured;
        let counts = &mut measured.counts;
        counts.requested += 1;
        counts.duplicates += u64::from(!is_first);
        match outcome {
            Outcome::Accepted(_) => {
                counts.accepted += 1;
                if let Some(took) = took {
                    measured.latency_ns.saturating_record(nanoseconds(took));
                    seen.window_ns.saturating_record(nanoseconds(took));
                }
            }
            Outcome::Refused(_) => counts.refused += 1,
            Outcome::Broken => counts.broken += 1,
            Outcome::TimedOut => counts.timed_out += 1,
            Outcome::NotSent => counts.unsent += 1,
        }
        measured.elapsed = now;
        let place = number as usize;
        if place >= measured.outcomes.len() {
            measured.outcomes.resize(place + 1, Outcome::NotSent);
        }
        let before = measured.outcomes[place];
        measured.outcomes[place] = before.and(outcome);
        let is_accepted = |outcome| matches!(outcome, Outcome::Accepted(_));
        seen.accepted += u64::from(is_accepted(outcome) && !is_accepted(before));
    }

    /// Writes down that a connection was made in place of another.
    pub(super) fn record_reconnection(&self) {
        self.lock().measured.counts.reconnections += 1;
    }

    /// Counts a request of someone else to the same system, such as an audit's, among those that
    /// latency is about.
    pub fn record_other(&self, took: Duration) {
        self.lock().measured.latency_ns.saturating_record(nanoseconds(took));
    }

    /// All requests so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().measured.counts
    }

    /// Payments that were accepted so far, each counted once.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.lock().accepted
    }

    /// What was seen since this was last asked.
    #[must_use]
    pub fn window(&self) -> Window {
        let empty = histogram();
        let until = self.clock.elapsed();
        let mut seen = self.lock();
        let counts = seen.measured.counts;
        Window { until, counts, latency_ns: mem::replace(&mut seen.window_ns, empty) }
    }

    /// Everything so far.
    #[must_use]
    pub fn measured(&self) -> Measured {
        self.lock().measured.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Outcome = Outcome::Accepted(202);

    #[test]
    fn a_success_outweighs_a_doubt_and_a_doubt_a_refusal() {
        let refused = Outcome::Refused(503);
        assert_eq!(OK.and(refused), OK);
        assert_eq!(OK.and(Outcome::TimedOut), OK);
        assert_eq!(Outcome::Broken.and(refused), Outcome::Broken);
        assert_eq!(refused.and(Outcome::TimedOut), Outcome::TimedOut);
        assert_eq!(Outcome::TimedOut.and(OK), OK);
        assert_eq!(Outcome::NotSent.and(refused), refused);
    }

    #[test]
    fn requests_are_counted_and_windows_follow_each_other() {
        let meter = Meter::start();
        let ms = Duration::from_millis;
        meter.record(1, OK, Some(ms(2)), true);
        meter.record(0, Outcome::Refused(503), Some(ms(900)), true);
        let window = meter.window();
        assert_eq!(window.latency_ns.len(), 1);
        meter.record(1, OK, Some(ms(4)), false);
        meter.record(2, Outcome::NotSent, None, true);
        meter.record(3, Outcome::TimedOut, Some(ms(9)), true);
        let window = meter.window();
        assert_eq!(window.latency_ns.len(), 1);
        assert_eq!(window.latency_ns.max() / 10_000, 400);
        let measured = meter.measured();
        assert_eq!(
            measured.outcomes,
            [Outcome::Refused(503), OK, Outcome::NotSent, Outcome::TimedOut]
        );
        assert_eq!((measured.accepted(), meter.accepted()), (1, 1));
        assert_eq!(measured.latency_ns.len(), 2);
        let counts = measured.counts;
        assert_eq!((counts.requested, counts.accepted, counts.failed()), (5, 2, 3));
        assert_eq!((counts.duplicates, counts.unsent, counts.timed_out), (1, 1, 1));
    }
}
