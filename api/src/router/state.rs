//! What the router knows of one processor: its breaker, its limit, how fast it is, what it says of
//! itself.

use super::breaker::{Breaker, BreakerState, PROBE_INTERVAL_MS};
use super::limit::Limit;
use super::{Health, Outcome, float};

/// The weight of a new latency in the estimate when it is lower: about the last ten answers count.
const LATENCY_WEIGHT: f64 = 0.1;
/// The weight of one that is higher: trouble is to be noticed soon.
const LATENCY_WEIGHT_HIGHER: f64 = 0.3;

/// The pause between calls that tell whether a slow processor is fast again.
pub const SLOW_PROBE_INTERVAL_MS: u64 = 1_000;

/// What a processor says of itself counts for so long.
pub const HEALTH_MS_MAX: u64 = 11_000;

/// The pause that is added to the one between probes where a processor says that it fails slowly.
pub const SLOW_FAILURE_PROBE_PAUSE_MS: u64 = HEALTH_MS_MAX;

/// A call that succeeded shows for so long that the processor works.
const WARM_MS: u64 = 5_000;
/// Calls in flight at a processor of which that is not known.
const COLD_MAX: u32 = 8;

/// How long a convoy takes to set out.
const BOARDING_MS: u64 = 20;

/// A silence this much longer than an answer takes is a stall.
const STALL_MS: u64 = 100;

/// Whether a processor may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Availability {
    /// Yes.
    Available,
    /// It works, and has as many calls as it may have.
    Full,
    /// It works, but too slowly. Whether it has room.
    Slow {
        /// Whether it may have another call.
        has_room: bool,
    },
    /// It cannot be used, and one call may find out whether that is still so.
    ProbeDue,
    /// It cannot be used, until this time at least.
    Down {
        /// When a probe is due.
        until_ms: Option<u64>,
    },
}

/// What the router knows of one processor.
#[derive(Debug)]
pub struct State {
    pub breaker: Breaker,
    pub limit: Limit,
    pub in_flight: u32,
    /// The estimate of how long an answer takes.
    pub latency_ms: f64,
    /// What it said of itself last, and when.
    pub health: Option<(u64, Health)>,
    /// When the last payment was sent.
    sent_at_ms: Option<u64>,
    /// When a call succeeded last, or calls began to be in flight. Failures do not break a silence.
    heard_at_ms: u64,
    /// When a call succeeded last.
    worked_at_ms: Option<u64>,
    /// When calls began to be in flight.
    busy_from_ms: u64,
    /// Calls from before this time tell nothing of how fast it is now.
    fresh_from_ms: u64,
}

impl State {
    pub fn new(in_flight_max: u32) -> Self {
        Self {
            breaker: Breaker::new(),
            limit: Limit::new(in_flight_max),
            in_flight: 0,
            latency_ms: 0.0,
            health: None,
            sent_at_ms: None,
            heard_at_ms: 0,
            worked_at_ms: None,
            busy_from_ms: 0,
            fresh_from_ms: 0,
        }
    }

    /// Whether it may be used, where it is slow if it takes this long.
    pub fn availability(&self, now_ms: u64, slow_ms: u64) -> Availability {
        if !self.breaker.is_closed() {
            return match self.breaker_probes_at_ms(slow_ms) {
                Some(probe_at_ms) if now_ms >= probe_at_ms => Availability::ProbeDue,
                until_ms => Availability::Down { until_ms },
            };
        }
        let has_room = self.in_flight < self.room(now_ms);
        if self.is_slow(now_ms, slow_ms) {
            if self.is_slow_probe_due(now_ms, slow_ms) && has_room {
                return Availability::ProbeDue;
            }
            return Availability::Slow { has_room: has_room && self.is_boarding(now_ms) };
        }
        if has_room && now_ms < self.stalls_at_ms() {
            return Availability::Available;
        }
        // Whether a stall is over is found out as whether an outage is.
        if has_room && now_ms >= self.probes_at_ms(PROBE_INTERVAL_MS) {
            return Availability::ProbeDue;
        }
        Availability::Full
    }

    /// Whether it works, but too slowly: by what it said, by how long answers took, or by how long it
    /// has been silent.
    pub fn is_slow(&self, now_ms: u64, slow_ms: u64) -> bool {
        self.breaker.is_closed()
            && (self.latency_ms >= float(slow_ms) || self.silence_ms(now_ms) >= slow_ms)
    }

    /// When its silence becomes a stall, after which nothing more is sent before it answers.
    pub fn stalls_at_ms(&self) -> u64 {
        if self.in_flight == 0 {
            return u64::MAX;
        }
        self.heard_at_ms + STALL_MS + 2 * self.latency()
    }

    /// Calls that may be in flight now: few until one of them has shown that the processor works.
    fn room(&self, now_ms: u64) -> u32 {
        let is_warm = self.worked_at_ms.is_some_and(|at| now_ms <= at.saturating_add(WARM_MS));
        if is_warm { self.limit.get() } else { self.limit.get().min(COLD_MAX) }
    }

    /// Whether calls to a slow processor may set out. They go in convoys: while calls land, the books of
    /// the processor are ahead of ours, and an audit may see that; so they set out, and land, together.
    fn is_boarding(&self, now_ms: u64) -> bool {
        self.in_flight == 0 || now_ms < self.busy_from_ms + BOARDING_MS
    }

    /// When its availability may change by itself.
    pub fn changes_at_ms(&self, slow_ms: u64) -> Option<u64> {
        if !self.breaker.is_closed() {
            return self.breaker_probes_at_ms(slow_ms);
        }
        let is_slow = self.latency_ms >= float(slow_ms);
        let silent_at_ms = self.heard_at_ms.saturating_add(slow_ms);
        let silent_at_ms = Some(silent_at_ms).filter(|_| self.in_flight > 0);
        let probe_at_ms = self.probes_at_ms(self.slow_probe_interval_ms(slow_ms));
        let probe_at_ms = Some(probe_at_ms).filter(|_| is_slow || self.in_flight > 0);
        [silent_at_ms, probe_at_ms].into_iter().flatten().min()
    }

    /// The estimate of how long an answer takes, in whole milliseconds.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Positive, and far below 2^64.
    pub fn latency(&self) -> u64 {
        self.latency_ms as u64
    }

    /// How long it has not answered while calls were in flight.
    fn silence_ms(&self, now_ms: u64) -> u64 {
        if self.in_flight == 0 { 0 } else { now_ms.saturating_sub(self.heard_at_ms) }
    }

    /// A slow processor that says so needs no calls to find that out: each is a risk for the books. One
    /// that has fallen silent may be down, and back at any moment.
    fn is_slow_probe_due(&self, now_ms: u64, slow_ms: u64) -> bool {
        let says_so = self.says_slow_until_ms(slow_ms).is_some_and(|until_ms| now_ms < until_ms);
        !says_so && now_ms >= self.probes_at_ms(self.slow_probe_interval_ms(slow_ms))
    }

    /// How long an answer takes by what it says of itself, if it says that it works.
    fn says_working_ms(&self, now_ms: u64) -> Option<u64> {
        let (heard_at_ms, health) = self.health?;
        let counts = !health.failing && now_ms.saturating_sub(heard_at_ms) < HEALTH_MS_MAX;
        counts.then_some(health.min_response_ms)
    }

    /// Until when what it said of itself counts, if it said that it is slow.
    fn says_slow_until_ms(&self, slow_ms: u64) -> Option<u64> {
        let slow = self.health.filter(|(_, health)| health.min_response_ms >= slow_ms);
        slow.map(|(heard_at_ms, _)| heard_at_ms.saturating_add(HEALTH_MS_MAX))
    }

    /// When a probe is due while the breaker is open; `None` where enough are under way. A probe that
    /// succeeds is recorded with the time at which it was sent, and one that takes as long as that is
    /// seen by an audit that looks at the moment at which it lands. So a processor that says that it fails
    /// slowly gets one now and then, in case it is wrong, and one that says that it works slowly gets
    /// one at a time.
    fn breaker_probes_at_ms(&self, slow_ms: u64) -> Option<u64> {
        let (probe_at_ms, is_one_under_way) = match self.breaker.state() {
            BreakerState::Closed => return None,
            BreakerState::Open { probe_at_ms } => (probe_at_ms, false),
            BreakerState::HalfOpen { probe_at_ms } => (probe_at_ms?, true),
        };
        let Some(until_ms) = self.says_slow_until_ms(slow_ms) else { return Some(probe_at_ms) };
        let says_failing = self.health.is_some_and(|(_, health)| health.failing);
        let spared_until_ms = match (says_failing, is_one_under_way) {
            (true, _) => probe_at_ms.saturating_add(SLOW_FAILURE_PROBE_PAUSE_MS).min(until_ms),
            (false, true) => until_ms,
            (false, false) => 0,
        };
        Some(probe_at_ms.max(spared_until_ms))
    }

    fn slow_probe_interval_ms(&self, slow_ms: u64) -> u64 {
        let is_slow = self.latency_ms >= float(slow_ms);
        if is_slow { SLOW_PROBE_INTERVAL_MS } else { PROBE_INTERVAL_MS }
    }

    /// When a call may be made to see how it is.
    fn probes_at_ms(&self, interval_ms: u64) -> u64 {
        self.sent_at_ms.map_or(0, |sent_at_ms| sent_at_ms.saturating_add(interval_ms))
    }

    pub fn sent(&mut self, now_ms: u64) {
        if self.in_flight == 0 {
            self.heard_at_ms = now_ms;
            self.busy_from_ms = now_ms;
        }
        self.in_flight += 1;
        self.sent_at_ms = Some(now_ms);
        self.breaker.sent(now_ms);
    }

    pub fn withdrawn(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.breaker.withdrawn();
    }

    /// Takes in what became of a call, and tells whether the breaker changed.
    pub fn answered(&mut self, now_ms: u64, latency_ms: u64, outcome: Outcome) -> bool {
        let sent_at_ms = now_ms.saturating_sub(latency_ms);
        let in_flight = self.in_flight;
        self.in_flight = in_flight.saturating_sub(1);
        match outcome {
            Outcome::Succeeded => {
                self.worked_at_ms = Some(now_ms);
                self.heard_at_ms = now_ms;
                let was_open = self.breaker.succeeded();
                if was_open {
                    // What it took while it failed tells nothing; what it says of itself while it works does.
                    let says_ms = self.says_working_ms(now_ms).unwrap_or(0);
                    self.trust(now_ms, says_ms.min(latency_ms));
                }
                self.limit.succeeded(in_flight);
                self.learn(sent_at_ms, latency_ms);
                was_open
            }
            Outcome::Failed => self.breaker.failed(sent_at_ms, now_ms),
            Outcome::Overloaded => {
                let is_least = self.limit.is_least();
                self.limit.overloaded(sent_at_ms, now_ms);
                // A probe that has come back is under way no more.
                let counts = is_least || !self.breaker.is_closed();
                counts && self.breaker.failed(sent_at_ms, now_ms)
            }
        }
    }

    fn learn(&mut self, sent_at_ms: u64, latency_ms: u64) {
        if sent_at_ms < self.fresh_from_ms {
            return;
        }
        let latency_ms = float(latency_ms);
        let is_higher = latency_ms > self.latency_ms;
        let weight = if is_higher { LATENCY_WEIGHT_HIGHER } else { LATENCY_WEIGHT };
        self.latency_ms += (latency_ms - self.latency_ms) * weight;
    }

    /// Takes the processor for this fast from now on.
    fn trust(&mut self, now_ms: u64, latency_ms: u64) {
        self.fresh_from_ms = now_ms;
        self.heard_at_ms = now_ms;
        self.latency_ms = float(latency_ms);
    }

    /// Takes in what the processor says of itself, and tells whether the breaker changed.
    pub fn said(&mut self, now_ms: u64, health: Health) -> bool {
        self.health = Some((now_ms, health));
        self.trust(now_ms, health.min_response_ms);
        if health.failing {
            return self.breaker.trip(now_ms);
        }
        self.breaker.encourage(now_ms);
        false
    }
}
