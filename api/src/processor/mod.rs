//! Calls to a payment processor: HTTP/1.1 over connections that are kept, one call at a time on each,
//! and the judgement of what a call left behind.
//!
//! A call that may have been sent is never made again by itself: whether and when is the engine's to
//! decide. The one exception is a call that is known not to have been sent, because the processor
//! closed a kept connection first: it goes out on a fresh connection.

mod addresses;
mod answer;
mod connection;
mod messages;
mod target;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use ledger::clock::Monotonic;
use tokio::task::spawn_local;

use addresses::Addresses;
pub use answer::ANSWER_BYTES_MAX;
pub(crate) use answer::parse_length;
#[cfg(fuzzing)]
pub use answer::{AnswerError, AnswerReader};
use messages::Requests;
#[cfg(fuzzing)]
pub use messages::{lookup_outcome, post_outcome};
pub use target::{Target, TargetError};

use crate::engine::{Call, CallOutcome};

/// What is told of each call: the call, what became of it, and how many microseconds it took.
pub type Finished = Rc<dyn Fn(Call, CallOutcome, u64)>;

/// How calls are made.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// A call that takes longer is given up; nobody knows then what it leaves behind.
    pub call_timeout: Duration,
    /// A connection that takes longer is given up; nothing was sent then.
    pub connect_timeout: Duration,
}

/// The client of one processor.
pub struct ProcessorClient {
    target: Target,
    addresses: Rc<Addresses>,
    requests: Requests,
    limits: CallLimits,
    clock: Monotonic,
    finished: Finished,
    /// Connections without a call, the last used on top.
    idle: RefCell<Vec<Rc<Mailbox>>>,
}

/// Where a connection without a call finds its next one.
#[derive(Default)]
struct Mailbox {
    call: Cell<Option<Call>>,
    waker: Cell<Option<Waker>>,
}

impl Mailbox {
    fn put(&self, call: Call) {
        self.call.set(Some(call));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl ProcessorClient {
    /// A client that has no connection yet. It tells `finished` of each call exactly once.
    #[must_use]
    pub fn new(
        target: Target,
        limits: CallLimits,
        clock: Monotonic,
        finished: Finished,
    ) -> Rc<Self> {
        let addresses = Addresses::of(&target, clock);
        let requests = Requests::to(&target);
        let idle = RefCell::new(Vec::new());
        Rc::new(Self { target, addresses, requests, limits, clock, finished, idle })
    }

    /// Makes a call. Must run on a [`tokio::runtime::LocalRuntime`].
    pub fn start(self: &Rc<Self>, call: Call) {
        let idle = self.idle.borrow_mut().pop();
        match idle {
            Some(mailbox) => mailbox.put(call),
            None => drop(spawn_local(connection::serve(Rc::clone(self), call))),
        }
    }

    fn finish(&self, call: Call, outcome: CallOutcome, started_us: u64) {
        let latency_us = self.clock.elapsed_us().saturating_sub(started_us);
        (self.finished)(call, outcome, latency_us);
    }
}
