//! One run: a discrete-event simulation of two API instances, their routers and two processors.
//!
//! It mirrors the engine: payments wait in the order in which they came, one that a processor is known
//! not to have comes first again, and one whose call got no answer in time stays with its processor.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use api::router::{Backlog, Decision, Health, Outcome, Reason};
use ledger::Processor;

use super::policy::{Next, Policy};
use super::processor::{Arrived, SimProcessor};
use super::trace::{MS, Micros, SECOND, Trace};

/// Instances of the API.
pub const INSTANCES: usize = 2;
/// One way between an instance and a processor.
const NETWORK: Micros = 3 * MS / 10;
/// From an answer to the record in our books.
const WRITE: Micros = MS / 2;
/// When a call is given up.
const CALL_TIMEOUT: Micros = 10 * SECOND;
/// The pause between two looks for a payment in doubt.
const LOOK_PAUSE: Micros = SECOND;
/// The pause between two health checks of a processor.
const HEALTH_INTERVAL: Micros = 5_050 * MS;

/// What became of a payment.
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    /// When it arrived.
    pub arrived: Micros,
    /// The `requestedAt` of the call by which it was recorded.
    pub requested: Micros,
    /// When and where its processor recorded it.
    pub recorded: Option<(Micros, Processor)>,
    /// When our books had it.
    pub settled: Option<Micros>,
}

/// A call.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// When it was sent.
    pub at: Micros,
    /// Where.
    pub processor: Processor,
    /// Whether it recorded its payment.
    pub recorded: bool,
}

/// What a run leaves behind.
pub struct Outcomes {
    /// The payments, in the order of arrival.
    pub fates: Vec<Fate>,
    /// The calls, in the order of sending.
    pub calls: Vec<Sent>,
    /// When the first instance changed its mind, and why.
    pub reasons: Vec<(Micros, Reason)>,
}

/// What happens at a moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    /// The payment with this number comes in.
    Arrival(u32),
    /// A call reaches its processor.
    Reach(u32),
    /// A running call ends at its processor.
    End(u32),
    /// The answer to a call is back.
    Answer(u32, Reply),
    /// Nobody waits for a call any longer.
    GiveUp(u32),
    /// It is looked up whether a payment is recorded.
    Look(u32),
    /// A payment has rested.
    Rested(u32),
    /// An instance decides anew.
    Wake(u8),
    /// A processor says how it is.
    Health(u8),
}

/// What a processor answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Reply {
    Recorded,
    AlreadyRecorded,
    Failed,
    Rejected,
}

struct Call {
    payment: u32,
    instance: u8,
    processor: Processor,
    sent: Micros,
    answered: bool,
    given_up: bool,
}

struct Payment {
    fate: Fate,
    instance: u8,
    failed_by: Option<Processor>,
    failures_count: u32,
    /// A call for it was given up, so it stays with that processor.
    is_in_doubt: bool,
}

struct Instance {
    policy: Box<dyn Policy>,
    ready: VecDeque<u32>,
    pinned: [VecDeque<u32>; 2],
    /// The next moment at which it decides anew.
    wake: Option<Micros>,
}

struct Run<'a> {
    now: Micros,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    /// Events of the same moment happen in the order in which they were made.
    events_count: u64,
    payments: Vec<Payment>,
    calls: Vec<Call>,
    sent: Vec<Sent>,
    reasons: Vec<(Micros, Reason)>,
    instances: Vec<Instance>,
    processors: [SimProcessor<'a>; 2],
    end: Micros,
}

/// Runs a trace with a policy in each instance, and tells what became of every payment.
pub fn run(trace: &Trace, seed: u64, policy: &dyn Fn() -> Box<dyn Policy>) -> Outcomes {
    let instance = |_| Instance {
        policy: policy(),
        ready: VecDeque::new(),
        pinned: [VecDeque::new(), VecDeque::new()],
        wake: None,
    };
    let [default, fallback] = &trace.timelines;
    let mut run = Run {
        now: 0,
        events: BinaryHeap::new(),
        events_count: 0,
        payments: Vec::with_capacity(trace.arrivals.len()),
        calls: Vec::new(),
        sent: Vec::new(),
        reasons: Vec::new(),
        instances: (0..INSTANCES).map(instance).collect(),
        processors: [SimProcessor::new(default, seed), SimProcessor::new(fallback, !seed)],
        end: trace.end(),
    };
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
    for (at, number) in trace.arrivals.iter().zip(0..) {
        run.payments.push(Payment {
            fate: Fate { arrived: *at, requested: 0, recorded: None, settled: None },
            instance: random.u8(..2),
            failed_by: None,
            failures_count: 0,
            is_in_doubt: false,
        });
        run.schedule(*at, Event::Arrival(number));
    }
    // The first check comes at some moment of its interval.
    let first = random.u64(..HEALTH_INTERVAL);
    for processor in Processor::ALL {
        run.schedule(first, Event::Health(processor.code()));
    }
    while let Some(Reverse((at, _, event))) = run.events.pop() {
        if at > run.end {
            break;
        }
        run.now = at;
        run.happen(event);
    }
    let fates = run.payments.into_iter().map(|payment| payment.fate).collect();
    Outcomes { fates, calls: run.sent, reasons: run.reasons }
}

impl Run<'_> {
    fn schedule(&mut self, at: Micros, event: Event) {
        self.events.push(Reverse((at, self.events_count, event)));
        self.events_count += 1;
    }

    fn now_ms(&self) -> u64 {
        self.now / MS
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival(number) => {
                let instance = self.payments[number as usize].instance;
                let now_ms = self.now_ms();
                let state = &mut self.instances[usize::from(instance)];
                state.policy.arrived(now_ms);
                state.ready.push_back(number);
                self.decide(instance);
            }
            Event::Reach(number) => self.reach(number),
            Event::End(number) => self.end(number),
            Event::Answer(number, reply) => self.answer(number, reply),
            Event::GiveUp(number) => self.give_up(number),
            Event::Look(number) => self.look(number),
            Event::Rested(number) => self.make_ready(number),
            Event::Wake(instance) => {
                let state = &mut self.instances[usize::from(instance)];
                if state.wake == Some(self.now) {
                    state.wake = None;
                    self.decide(instance);
                }
            }
            Event::Health(code) => self.tell_health(code),
        }
    }

    /// Sends what an instance's policy sends.
    fn decide(&mut self, instance: u8) {
        let now_ms = self.now_ms();
        let mut wake_ms: Option<u64> = None;
        for processor in Processor::ALL {
            loop {
                let state = &mut self.instances[usize::from(instance)];
                let Some(number) = state.pinned[processor.index()].front().copied() else { break };
                match state.policy.decide_for(processor, now_ms) {
                    Decision::Send(_) => {
                        state.pinned[processor.index()].pop_front();
                        self.send(instance, number, processor);
                    }
                    Decision::Hold { until_ms } => {
                        wake_ms = [wake_ms, until_ms].into_iter().flatten().min();
                        break;
                    }
                }
            }
        }
        loop {
            let state = &mut self.instances[usize::from(instance)];
            let Some(number) = state.ready.front().copied() else { break };
            let payment = &self.payments[number as usize];
            let backlog = Backlog {
                oldest_age_ms: (self.now - payment.fate.arrived) / MS,
                count: state.ready.len(),
            };
            let next = Next { failed_by: payment.failed_by };
            match state.policy.decide(now_ms, next, backlog) {
                Decision::Send(processor) => {
                    state.ready.pop_front();
                    self.send(instance, number, processor);
                }
                Decision::Hold { until_ms } => {
                    wake_ms = [wake_ms, until_ms].into_iter().flatten().min();
                    break;
                }
            }
        }
        if instance == 0
            && let Some(reason) = self.instances[0].policy.reason()
            && self.reasons.last().is_none_or(|(_, before)| *before != reason)
        {
            self.reasons.push((self.now, reason));
        }
        if let Some(wake_ms) = wake_ms {
            let at = (wake_ms * MS).max(self.now + MS);
            let state = &mut self.instances[usize::from(instance)];
            if state.wake.is_none_or(|before| before <= self.now || before > at) {
                state.wake = Some(at);
                self.schedule(at, Event::Wake(instance));
            }
        }
    }

    fn send(&mut self, instance: u8, payment: u32, processor: Processor) {
        let now_ms = self.now_ms();
        self.instances[usize::from(instance)].policy.sent(processor, now_ms);
        let number = u32::try_from(self.calls.len()).expect("a run has fewer calls than 2^32");
        let sent = self.now;
        let (answered, given_up) = (false, false);
        self.calls.push(Call { payment, instance, processor, sent, answered, given_up });
        self.sent.push(Sent { at: sent, processor, recorded: false });
        self.schedule(self.now + NETWORK, Event::Reach(number));
        self.schedule(self.now + CALL_TIMEOUT, Event::GiveUp(number));
    }

    fn reach(&mut self, number: u32) {
        let processor = self.calls[number as usize].processor;
        match self.processors[processor.index()].arrive(self.now, number) {
            Arrived::Running(end) => self.schedule(end, Event::End(number)),
            Arrived::Waiting => {}
            Arrived::Rejected => {
                self.schedule(self.now + NETWORK, Event::Answer(number, Reply::Rejected));
            }
            Arrived::Refused => {
                self.schedule(self.now + NETWORK, Event::Answer(number, Reply::Failed));
            }
        }
    }

    fn end(&mut self, number: u32) {
        let (processor, payment, sent) = {
            let call = &self.calls[number as usize];
            (call.processor, call.payment, call.sent)
        };
        let (succeeds, next) = self.processors[processor.index()].end(self.now);
        if let Some((next, end)) = next {
            self.schedule(end, Event::End(next));
        }
        let fate = &mut self.payments[payment as usize].fate;
        let reply = match (succeeds, fate.recorded) {
            (false, _) => Reply::Failed,
            (true, None) => {
                fate.recorded = Some((self.now, processor));
                fate.requested = sent;
                self.sent[number as usize].recorded = true;
                Reply::Recorded
            }
            (true, Some((_, holder))) => {
                assert_eq!(holder, processor, "a payment in doubt went to the other processor");
                Reply::AlreadyRecorded
            }
        };
        self.schedule(self.now + NETWORK, Event::Answer(number, reply));
    }

    fn answer(&mut self, number: u32, reply: Reply) {
        let now_ms = self.now_ms();
        let (given_up, now) = (self.calls[number as usize].given_up, self.now);
        let call = &mut self.calls[number as usize];
        call.answered = true;
        let (instance, payment) = (call.instance, call.payment);
        let latency_ms = (now - call.sent) / MS;
        let processor = call.processor;
        // Whoever hung up hears nothing.
        if given_up {
            return;
        }
        let outcome = match reply {
            Reply::Recorded | Reply::AlreadyRecorded => Outcome::Succeeded,
            Reply::Failed => Outcome::Failed,
            Reply::Rejected => Outcome::Overloaded,
        };
        let state = &mut self.instances[usize::from(instance)];
        state.policy.answered(processor, now_ms, latency_ms, outcome);
        match reply {
            Reply::Recorded => self.settle(payment, self.now + WRITE),
            Reply::AlreadyRecorded => self.settle(payment, self.now + 2 * NETWORK + WRITE),
            Reply::Failed | Reply::Rejected => {
                let state = &mut self.payments[payment as usize];
                if state.is_in_doubt {
                    self.schedule(self.now + LOOK_PAUSE, Event::Look(number));
                    self.decide(instance);
                    return;
                }
                state.failed_by = Some(processor);
                state.failures_count += 1;
                let failures_count = state.failures_count;
                let policy = &self.instances[usize::from(instance)].policy;
                match policy.rest_ms(failures_count) {
                    0 => self.make_ready(payment),
                    rest_ms => self.schedule(self.now + rest_ms * MS, Event::Rested(payment)),
                }
            }
        }
        self.decide(instance);
    }

    fn make_ready(&mut self, payment: u32) {
        let instance = self.payments[payment as usize].instance;
        self.instances[usize::from(instance)].ready.push_front(payment);
        self.decide(instance);
    }

    fn settle(&mut self, payment: u32, at: Micros) {
        self.payments[payment as usize].fate.settled = Some(at).filter(|at| *at <= self.end);
    }

    fn give_up(&mut self, number: u32) {
        let now_ms = self.now_ms();
        let call = &mut self.calls[number as usize];
        if call.answered {
            return;
        }
        call.given_up = true;
        let (instance, processor) = (call.instance, call.processor);
        let latency_ms = CALL_TIMEOUT / MS;
        let state = &mut self.instances[usize::from(instance)];
        state.policy.answered(processor, now_ms, latency_ms, Outcome::Failed);
        let payment = self.calls[number as usize].payment;
        self.payments[payment as usize].is_in_doubt = true;
        self.look(number);
        self.decide(instance);
    }

    /// A payment in doubt stays with its processor: it is looked up, and sent again if it is not there.
    fn look(&mut self, number: u32) {
        let call = &self.calls[number as usize];
        let (payment, instance, processor) = (call.payment, call.instance, call.processor);
        if self.payments[payment as usize].fate.recorded.is_some() {
            self.settle(payment, self.now + 2 * NETWORK + WRITE);
        } else if self.processors[processor.index()].condition(self.now).refuses {
            self.schedule(self.now + LOOK_PAUSE, Event::Look(number));
        } else {
            self.instances[usize::from(instance)].pinned[processor.index()].push_back(payment);
            self.decide(instance);
        }
    }

    fn tell_health(&mut self, code: u8) {
        let processor = Processor::from_code(code).expect("the code was made from a processor");
        let condition = self.processors[processor.index()].condition(self.now);
        if !condition.refuses {
            let health = Health {
                failing: condition.errors_percent >= 100,
                min_response_ms: condition.delay_ms,
            };
            let now_ms = self.now_ms();
            for instance in &mut self.instances {
                instance.policy.heard(processor, now_ms, health);
            }
            for instance in 0..INSTANCES {
                self.decide(u8::try_from(instance).expect("there are two"));
            }
        }
        self.schedule(self.now + HEALTH_INTERVAL, Event::Health(code));
    }
}
