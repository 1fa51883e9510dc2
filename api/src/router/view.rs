//! Why the router does what it does, in words and numbers.

use std::fmt;

use ledger::Processor;

use super::BreakerState;

/// Why payments go where they go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The cheaper processor takes them.
    CheaperWorks,
    /// The cheaper one cannot be used, and waiting for it is worth more than what the other costs.
    WaitingPays,
    /// The cheaper one has been out for so long that waiting for it does not pay any more.
    WaitingDoesNotPay,
    /// The oldest payment has waited for as long as it may.
    PatienceIsOver,
    /// No payment has come in for a while: what waits is settled before somebody closes the books.
    LoadHasStopped,
    /// The cheaper one has more to do than it can do in time.
    CheaperIsFull,
    /// The dearer one is the only one that works.
    OnlyDearerWorks,
    /// A slow processor is the only one that works.
    OnlySlowWorks,
    /// Neither can be used.
    NeitherWorks,
}

impl Reason {
    /// Whether payments that have waited may go little by little: no convoy is about to leave without
    /// them, and nobody is about to close the books.
    #[must_use]
    pub fn leaves_time(self) -> bool {
        !matches!(self, Self::OnlySlowWorks | Self::LoadHasStopped)
    }

    /// In a few words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::CheaperWorks => "the cheaper processor works",
            Self::WaitingPays => "waiting for the cheaper processor pays",
            Self::WaitingDoesNotPay => "waiting for the cheaper processor does not pay any more",
            Self::PatienceIsOver => "the oldest payment has waited for as long as it may",
            Self::LoadHasStopped => "the load has stopped, so what waits is settled",
            Self::CheaperIsFull => "the cheaper processor has more to do than it can do in time",
            Self::OnlyDearerWorks => "only the dearer processor works",
            Self::OnlySlowWorks => "only a slow processor works",
            Self::NeitherWorks => "neither processor works",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.words())
    }
}

/// What the router knows of a processor at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessorView {
    /// Which one.
    pub processor: Processor,
    /// Its breaker.
    pub breaker: BreakerState,
    /// Calls in flight.
    pub in_flight: u32,
    /// Calls that may be in flight.
    pub limit: u32,
    /// The estimate of how long an answer takes, in milliseconds.
    pub latency_ms: u64,
    /// Whether it works, but too slowly.
    pub is_slow: bool,
}

/// Where payments go, in short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouterStanding {
    /// The processor that is preferred.
    pub cheap: Processor,
    /// Why payments go where they go.
    pub reason: Reason,
    /// Whether the breakers let everything through, by [`Processor::index`].
    pub is_closed: [bool; 2],
}

/// What the router knows and thinks at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouterView {
    /// Why payments go where they go.
    pub reason: Reason,
    /// By [`Processor::index`].
    pub processors: [ProcessorView; 2],
    /// How long the cheaper processor has been out.
    pub outage_ms: Option<u64>,
    /// How long such an outage lasts, as far as is known.
    pub outage_mean_ms: u64,
    /// How long one is worth waiting for.
    pub outage_worth_ms: u64,
}
