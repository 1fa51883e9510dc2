//! The router: to which processor the next payment goes, or whether it waits.
//!
//! A pure state machine. Time, arrivals, health, outcomes and the backlog come in, a [`Decision`] comes
//! out; there is no clock, socket or thread inside, so the laboratory drives it as the real dispatcher
//! does. Times are milliseconds of a clock that begins with the router and never goes back.
//!
//! The rule: the cheaper processor takes a payment whenever it can. While it cannot be used (its breaker
//! is open, or it is so slow that the books would not agree) a payment waits for it as long as waiting
//! earns more than it risks (`outage.rs`), and then goes to the dearer one. `docs/routing.md` has the
//! model and the numbers.

mod breaker;
mod limit;
mod load;
mod outage;
mod state;
mod view;

pub use breaker::{BreakerState, FAILURES_TO_OPEN, PROBE_INTERVAL_MS, PROBES_MAX};
use ledger::Processor;
use load::Load;
use outage::{Outages, worth_ms};
use state::{Availability, State};
pub use state::{HEALTH_MS_MAX, SLOW_PROBE_INTERVAL_MS};
pub use view::{ProcessorView, Reason, RouterStanding, RouterView};

/// How the router judges.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RouterConfig {
    /// The fees by [`Processor::index`], in basis points (hundredths of a percent) of an amount.
    pub fees_bp: [u32; 2],
    /// How long a payment may wait for the cheaper processor.
    pub patience_ms: u64,
    /// Calls that may be in flight at one processor.
    pub in_flight_max: u32,
    /// A processor that takes this long to answer is used only while the other one cannot be.
    pub slow_ms: u64,
}

/// What is waiting to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backlog {
    /// How long the oldest payment has been waiting.
    pub oldest_age_ms: u64,
    /// How many payments wait.
    pub count: usize,
}

/// Where the next payment goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// To this processor, now.
    Send(Processor),
    /// Nowhere yet. Ask again after the next outcome or health, and at this time if there is one.
    Hold {
        /// When the decision may change by itself.
        until_ms: Option<u64>,
    },
}

/// What became of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The processor did as it was asked.
    Succeeded,
    /// It did not, or nobody knows.
    Failed,
    /// It has too much to do.
    Overloaded,
}

/// What a processor says of its own health.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Health {
    /// Whether it says that payments fail.
    pub failing: bool,
    /// The least time that it says an answer takes.
    pub min_response_ms: u64,
}

/// The router.
#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    states: [State; 2],
    cheap: Processor,
    /// By [`Processor::index`].
    outages: [Outages; 2],
    load: Load,
    reason: Reason,
}

impl Router {
    /// A router that knows nothing yet, and takes both processors for healthy.
    #[must_use]
    pub fn new(config: RouterConfig) -> Self {
        let state = || State::new(config.in_flight_max);
        let [default, fallback] = config.fees_bp;
        let cheap = if fallback < default { Processor::Fallback } else { Processor::Default };
        Self {
            config,
            states: [state(), state()],
            cheap,
            outages: [Outages::new(), Outages::new()],
            load: Load::new(),
            reason: Reason::CheaperWorks,
        }
    }

    /// Where the next payment goes. The caller sends it, if it is to be sent, and says so with
    /// [`Router::sent`].
    pub fn decide(&mut self, now_ms: u64, backlog: Backlog) -> Decision {
        self.note_outage(now_ms);
        let (decision, reason) = self.judge(now_ms, backlog);
        self.reason = reason;
        decision
    }

    fn judge(&self, now_ms: u64, backlog: Backlog) -> (Decision, Reason) {
        let (cheap, dear) = (self.cheap, self.cheap.other());
        let cheap_is = self.availability(cheap, now_ms);
        let dear_is = self.availability(dear, now_ms);
        let wait = match cheap_is {
            Availability::Available => return (Decision::Send(cheap), Reason::CheaperWorks),
            Availability::ProbeDue => return (Decision::Send(cheap), self.reason),
            Availability::Full => self.wait_for_room(now_ms, backlog),
            Availability::Slow { has_room: true }
                if matches!(dear_is, Availability::Down { .. } | Availability::Slow { .. }) =>
            {
                return (Decision::Send(cheap), Reason::OnlySlowWorks);
            }
            Availability::Slow { has_room: false }
                if !matches!(dear_is, Availability::Available | Availability::ProbeDue) =>
            {
                self.wait_for_room(now_ms, backlog)
            }
            Availability::Slow { .. } | Availability::Down { .. } => {
                self.wait_for_return(now_ms, backlog)
            }
        };
        let reason = match wait {
            Wait::Until(until_ms, reason) => return (self.hold(now_ms, Some(until_ms)), reason),
            Wait::No(reason) => reason,
        };
        match dear_is {
            Availability::Available | Availability::ProbeDue => (Decision::Send(dear), reason),
            Availability::Slow { has_room: true } => (Decision::Send(dear), Reason::OnlySlowWorks),
            Availability::Full | Availability::Slow { has_room: false } => {
                (self.hold(now_ms, None), reason)
            }
            Availability::Down { .. } => (self.hold(now_ms, None), Reason::NeitherWorks),
        }
    }

    /// The cheaper processor works, and has as many calls as it may have: payments wait for room unless
    /// that takes too long.
    fn wait_for_room(&self, now_ms: u64, backlog: Backlog) -> Wait {
        let state = &self.states[self.cheap.index()];
        let limit = u64::from(state.limit.get());
        let drain_ms = (backlog.count as u64).saturating_mul(state.latency().max(1)) / limit;
        let patience_left_ms = self.patience_ms().saturating_sub(backlog.oldest_age_ms);
        let worth_ms = self.worth_ms(now_ms).min(patience_left_ms);
        if patience_left_ms > 0 && drain_ms <= worth_ms {
            return Wait::Until(now_ms.saturating_add(patience_left_ms), Reason::CheaperWorks);
        }
        Wait::No(Reason::CheaperIsFull)
    }

    /// The cheaper processor cannot be used: payments wait for it as long as that pays.
    fn wait_for_return(&self, now_ms: u64, backlog: Backlog) -> Wait {
        let patience_left_ms = self.patience_ms().saturating_sub(backlog.oldest_age_ms);
        let outage_ms = self.outages[self.cheap.index()].outage_ms(now_ms).unwrap_or(0);
        let outage_began_ms = now_ms - outage_ms;
        let ends = [
            (now_ms.saturating_add(patience_left_ms), Reason::PatienceIsOver),
            (outage_began_ms.saturating_add(self.worth_ms(now_ms)), Reason::WaitingDoesNotPay),
            (self.load.quiet_from_ms(), Reason::LoadHasStopped),
        ];
        let first = ends.into_iter().min_by_key(|(end_ms, _)| *end_ms);
        match first {
            Some((end_ms, reason)) if end_ms <= now_ms => Wait::No(reason),
            Some((end_ms, _)) => Wait::Until(end_ms, Reason::WaitingPays),
            None => Wait::No(Reason::WaitingDoesNotPay),
        }
    }

    /// Nothing is sent before this time, the next change of a processor, or the next answer.
    fn hold(&self, now_ms: u64, until_ms: Option<u64>) -> Decision {
        let changes = self.states.iter().map(|state| state.changes_at_ms(self.config.slow_ms));
        let next = changes.flatten().chain(until_ms).filter(|at_ms| *at_ms > now_ms).min();
        Decision::Hold { until_ms: next }
    }

    /// Whether a payment that only this processor may have can be sent to it now.
    #[must_use]
    pub fn decide_for(&self, processor: Processor, now_ms: u64) -> Decision {
        match self.availability(processor, now_ms) {
            Availability::Available
            | Availability::ProbeDue
            | Availability::Slow { has_room: true } => Decision::Send(processor),
            Availability::Full
            | Availability::Slow { has_room: false }
            | Availability::Down { .. } => self.hold(now_ms, None),
        }
    }

    /// Takes in that a payment came in.
    pub fn arrived(&mut self, now_ms: u64) {
        self.load.arrived(now_ms);
    }

    /// Takes in that a payment was sent.
    pub fn sent(&mut self, processor: Processor, now_ms: u64) {
        self.states[processor.index()].sent(now_ms);
    }

    /// Takes in that what was to be sent was not sent after all.
    pub fn withdrawn(&mut self, processor: Processor) {
        self.states[processor.index()].withdrawn();
    }

    /// Takes in what became of a call, and tells whether the breaker changed.
    pub fn answered(
        &mut self,
        processor: Processor,
        now_ms: u64,
        latency_ms: u64,
        outcome: Outcome,
    ) -> bool {
        let changed = self.states[processor.index()].answered(now_ms, latency_ms, outcome);
        self.note_outage(now_ms);
        changed
    }

    /// Takes in what a processor says of itself, and tells whether the breaker changed.
    pub fn heard(&mut self, processor: Processor, now_ms: u64, health: Health) -> bool {
        let changed = self.states[processor.index()].said(now_ms, health);
        self.note_outage(now_ms);
        changed
    }

    /// The state of a processor's breaker.
    #[must_use]
    pub fn breaker(&self, processor: Processor) -> BreakerState {
        self.states[processor.index()].breaker.state()
    }

    /// Calls in flight at a processor.
    #[must_use]
    pub fn in_flight(&self, processor: Processor) -> u32 {
        self.states[processor.index()].in_flight
    }

    /// Why payments go where they go, as of the last decision.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Where payments go, in short. It costs next to nothing, so it can be asked after every turn.
    #[must_use]
    pub fn standing(&self) -> RouterStanding {
        RouterStanding {
            cheap: self.cheap,
            reason: self.reason,
            is_closed: [0, 1].map(|index: usize| self.states[index].breaker.is_closed()),
        }
    }

    /// What the router knows and thinks.
    #[must_use]
    pub fn view(&self, now_ms: u64) -> RouterView {
        let processors = Processor::ALL.map(|processor| {
            let state = &self.states[processor.index()];
            ProcessorView {
                processor,
                breaker: state.breaker.state(),
                in_flight: state.in_flight,
                limit: state.limit.get(),
                latency_ms: state.latency(),
                is_slow: state.is_slow(now_ms, self.config.slow_ms),
            }
        });
        RouterView {
            reason: self.reason,
            processors,
            outage_ms: self.outages[self.cheap.index()].outage_ms(now_ms),
            outage_mean_ms: self.outages[self.cheap.index()].mean_ms(),
            outage_worth_ms: self.worth_ms(now_ms).min(self.patience_ms()),
        }
    }

    fn note_outage(&mut self, now_ms: u64) {
        for (state, outages) in self.states.iter().zip(&mut self.outages) {
            let is_out = !state.breaker.is_closed() || state.is_slow(now_ms, self.config.slow_ms);
            outages.note(is_out, now_ms);
        }
    }

    /// How long an outage of the cheaper processor is worth waiting for.
    fn worth_ms(&self, now_ms: u64) -> u64 {
        let order = [self.cheap, self.cheap.other()].map(Processor::index);
        let kept = order.map(|index| 1.0 - f64::from(self.config.fees_bp[index]) / 10_000.0);
        let [cheap, dear] = order.map(|index| &self.outages[index]);
        worth_ms(kept, cheap, dear, now_ms)
    }

    /// Waiting is worth nothing where both cost the same.
    fn patience_ms(&self) -> u64 {
        let [default, fallback] = self.config.fees_bp;
        if default == fallback { 0 } else { self.config.patience_ms }
    }

    fn availability(&self, processor: Processor, now_ms: u64) -> Availability {
        self.states[processor.index()].availability(now_ms, self.config.slow_ms)
    }
}

/// Whether a payment waits for the cheaper processor.
enum Wait {
    /// Yes, until this time, for this reason.
    Until(u64, Reason),
    /// No, for this reason.
    No(Reason),
}

/// Milliseconds to be reckoned with; what is beyond 49 days is all the same.
fn float(ms: u64) -> f64 {
    u32::try_from(ms).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests;
