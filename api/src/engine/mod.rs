//! The engine: the way of every payment from its acceptance to its end, as a state machine without
//! clock, disk, socket or thread. What must happen outside (records to write, claims and calls to
//! make) comes out of it; what came of that goes in again. So the real process and a simulation
//! drive the same code.
//!
//! Invariants kept here:
//! - a payment is sent only after its `Dispatched` record is in the journal, and only if the store
//!   has decided that it may be;
//! - once nobody knows what a call left behind, the payment goes to that processor alone, until the
//!   processor says that it has it;
//! - a payment leaves only through a record that closes it, or through a purge.

mod deciding;
mod intake;
mod known;
mod outcomes;
mod pace;
mod payment;
mod sending;
#[cfg(test)]
pub(crate) mod tests;
mod writing;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use deciding::StoreLink;
use intake::Intake;
use known::Known;
use ledger::journal::{Event, OpenPayment, Position};
use ledger::{Cents, CorrelationId, Processor, TimestampMs};
use pace::Pace;
pub use payment::{Key, Stage};
use payment::{Payment, Payments};
pub use sending::{LOOKUPS_MAX, LOOKUPS_MAX_WHILE_FAILING};
use slab::Slab;
use writing::Failure;
pub use writing::{Batch, Written};

use crate::router::{Reason, Router, RouterConfig, RouterStanding};

/// The engine's limits.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EngineConfig {
    /// Open payments at most.
    pub backlog_max: usize,
    /// Closed payments whose ids are kept at hand.
    pub recent_max: usize,
    /// How long payments are gathered for one claim, in milliseconds.
    pub claim_delay_ms: u64,
    /// How the router judges.
    pub router: RouterConfig,
}

/// What becomes of a payment that is posted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Accept {
    /// It is accepted once the next batch is written.
    Writing(Ticket),
    /// It was accepted before.
    Known,
    /// It is being written for someone else. Ask again after the next batch is written.
    Wait,
    /// It was accepted before, and that may be void by a purge. Ask again after the store's next
    /// word.
    Unsure,
    /// The id was accepted before with this other amount.
    Conflict(Cents),
    /// There is no room for another open payment.
    Full,
    /// The journal cannot be written, for this reason.
    Failing(String),
}

/// The place of an acceptance among those of the next batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u32);

/// A call to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// For which payment; to be given back with what became of it.
    pub key: Key,
    /// Which payment.
    pub id: CorrelationId,
    /// Its amount.
    pub amount: Cents,
    /// To which processor.
    pub processor: Processor,
    /// What is asked.
    pub kind: CallKind,
    /// Its place among the calls that are under way.
    pub place: usize,
}

/// What is asked of a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallKind {
    /// Record the payment under this `requestedAt`.
    Post {
        /// The moment that is sent along.
        requested_at: TimestampMs,
    },
    /// Tell whether the payment is recorded.
    Lookup,
}

/// What became of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallOutcome {
    /// The processor has recorded the payment by this call.
    Recorded,
    /// It has recorded it before.
    AlreadyRecorded,
    /// This call has left nothing behind and will not: the status that says so, or 0 where nothing
    /// was sent.
    NotRecorded {
        /// The HTTP status, or 0.
        status: u16,
    },
    /// As [`CallOutcome::NotRecorded`], and it would be so every time.
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// The look-up found it.
    Found {
        /// The amount that is recorded.
        amount: Cents,
        /// The moment that is recorded.
        requested_at: TimestampMs,
    },
    /// The look-up did not find it, which says nothing about a call that is still under way.
    Absent,
    /// Nobody knows.
    Unknown,
}

/// The engine.
pub struct Engine {
    config: EngineConfig,
    router: Router,
    /// Why payments go where they go, as of the last line about it, and when another may follow.
    explained: Reason,
    explain_at_ms: u64,
    payments: Payments,
    known: Known,
    /// In the journal and not decided upon, in the order of the journal.
    undecided: VecDeque<Key>,
    /// Free to be sent to either processor.
    ready: VecDeque<Key>,
    /// Free to be sent to one processor only, by [`Processor::index`].
    pinned: [VecDeque<Key>; 2],
    /// In doubt at a processor, by when it is to be looked into; by [`Processor::index`].
    doubts: [BinaryHeap<Reverse<(u64, Key)>>; 2],
    /// The payments of all calls that are under way, by [`Call::place`].
    under_way: Slab<Key>,
    /// How many of these calls are look-ups, by [`Processor::index`].
    lookups_count: [usize; 2],
    /// Records to be written next.
    pending: Vec<(Key, CorrelationId, Cents, Event)>,
    /// Acceptances among them.
    pending_accepts_count: u32,
    calls: Vec<Call>,
    intake: Intake,
    pace: Pace,
    /// Open payments by the segment in which they were accepted.
    open_by_segment: BTreeMap<u32, usize>,
    /// All records before this place survive what they are meant to survive.
    committed: Position,
    /// The end of the journal when the engine took it up.
    taken_up: Position,
    store: StoreLink,
    /// A purge was asked for, and the store has not said yet what came of it.
    purge_is_near: bool,
    /// Calls that left nothing behind, and came back while a purge was near.
    freed_meanwhile: Vec<(Call, CallOutcome)>,
    stopped: bool,
    failure: Option<Failure>,
}

impl Engine {
    /// An engine with the payments that the journal says are open, at a time of its clock and of
    /// the day. All records before `committed` are in the journal.
    #[must_use]
    pub fn new(
        config: EngineConfig,
        open: &[OpenPayment],
        committed: Position,
        now_ms: u64,
        now: TimestampMs,
    ) -> Self {
        let mut engine = Self {
            config,
            router: Router::new(config.router),
            explained: Reason::CheaperWorks,
            explain_at_ms: 0,
            payments: Payments::default(),
            known: Known::new(config.recent_max),
            undecided: VecDeque::new(),
            ready: VecDeque::new(),
            pinned: [VecDeque::new(), VecDeque::new()],
            doubts: [BinaryHeap::new(), BinaryHeap::new()],
            under_way: Slab::new(),
            lookups_count: [0; 2],
            pending: Vec::new(),
            pending_accepts_count: 0,
            calls: Vec::new(),
            intake: Intake::default(),
            pace: Pace::default(),
            open_by_segment: BTreeMap::new(),
            committed,
            taken_up: committed,
            store: StoreLink::default(),
            purge_is_near: false,
            freed_meanwhile: Vec::new(),
            stopped: false,
            failure: None,
        };
        for payment in open {
            engine.recover(payment, now_ms, now);
        }
        engine
    }

    fn recover(&mut self, open: &OpenPayment, now_ms: u64, now: TimestampMs) {
        let doubt = open.in_doubt.map(|call| call.processor);
        let key = self.payments.insert(Payment {
            id: open.id,
            amount: open.amount,
            accepted: open.accepted,
            waiting_since_ms: signed(now_ms) - now.since(open.accepted_at).max(0),
            stage: doubt.map_or(Stage::Undecided, Stage::InDoubt),
            doubt,
            refused_by: None,
            attempts_count: 0,
        });
        self.known.open(open.id, open.amount, key);
        *self.open_by_segment.entry(open.accepted.segment).or_default() += 1;
        match doubt {
            Some(processor) => self.doubts[processor.index()].push(Reverse((now_ms, key))),
            None => self.undecided.push_back(key),
        }
    }

    /// Whether so many payments are open that no more are taken in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.payments.len() >= self.config.backlog_max
    }

    /// Payments that are not closed.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.payments.len()
    }

    /// Where payments go, in short.
    #[must_use]
    pub fn standing(&self) -> RouterStanding {
        self.router.standing()
    }

    /// The fees by [`Processor::index`], in basis points.
    #[must_use]
    pub fn fees_bp(&self) -> [u32; 2] {
        self.config.router.fees_bp
    }

    /// Takes a payment in, to be written with the next batch.
    pub fn accept(&mut self, id: CorrelationId, amount: Cents, now_ms: u64) -> Accept {
        if let Some(known) = self.known.get(id) {
            let open = known.open.and_then(|key| self.payments.get(key));
            if self.may_be_void(open) {
                return Accept::Unsure;
            }
            if known.amount != amount {
                return Accept::Conflict(known.amount);
            }
            if open.is_some_and(|payment| payment.stage == Stage::Writing) {
                return Accept::Wait;
            }
            return Accept::Known;
        }
        if self.is_full() {
            return Accept::Full;
        }
        if let Some(failure) = &mut self.failure {
            if now_ms < failure.probe_at_ms {
                return Accept::Failing(failure.why.clone());
            }
            failure.probe_later(now_ms);
        }
        let key = self.payments.insert(Payment {
            id,
            amount,
            accepted: Position::START,
            waiting_since_ms: signed(now_ms),
            stage: Stage::Writing,
            doubt: None,
            refused_by: None,
            attempts_count: 0,
        });
        self.known.open(id, amount, key);
        self.router.arrived(now_ms);
        self.intake.arrived();
        self.pending.push((key, id, amount, Event::Accepted));
        self.pending_accepts_count += 1;
        Accept::Writing(Ticket(self.pending_accepts_count - 1))
    }

    /// Sends nothing new any more. What was prepared to be sent is sent.
    pub fn stop(&mut self) {
        self.stopped = true;
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
