//! Calls, the processors, and the way to them.

use ledger::Cents;

use super::{
    Break, Call, CallKind, CallOutcome, Continue, Event, Fate, HEALTH_INTERVAL_MS, Health,
    INSTANCES, Mood, Note, OnTheWay, Recorded, Sabotage, Step, Violation, Which, World,
};

impl World {
    fn sent_amount(&self, amount: Cents) -> Cents {
        let more = i64::from(self.sabotage == Some(Sabotage::ChangeAmount));
        Cents::new(amount.get() + 2 * more)
    }

    pub(super) fn send(&mut self, instance: usize, call: Call) -> Step {
        let number = self.calls.len();
        let (processor, id, kind) = (call.processor, call.id, call.kind);
        self.note(Note::Sent { call: number, instance, processor, id, kind });
        if let CallKind::Post { requested_at } = kind {
            self.count.calls += 1;
            if let Err(violation) = self.truth.check_sent(instance, &call, requested_at) {
                return Break(violation);
            }
        }
        let process = self.sites[instance].process;
        let sent_ms = self.now_ms;
        self.calls.push(OnTheWay { instance, process, call, sent_ms, is_over: false });
        self.uncarried += 1;
        let after_ms = self.random.below(3);
        self.after(after_ms, Event::Reach(number));
        if self.sabotage != Some(Sabotage::LoseAnswers) || number % 10 != 9 {
            self.after(self.plan.call_timeout_ms, Event::GiveUp(number));
        }
        Continue(())
    }

    pub(super) fn reach(&mut self, number: usize) {
        self.uncarried -= 1;
        let call = self.calls[number].call;
        let processor = &self.processors[call.processor.index()];
        let fate = processor.receive(self.now_ms, call.id, &mut self.random);
        let way_ms = self.random.below(3);
        if call.kind == CallKind::Lookup {
            let found = match processor.recorded.get(&call.id) {
                Some(Recorded { amount, requested_at }) => {
                    CallOutcome::Found { amount: *amount, requested_at: *requested_at }
                }
                None => CallOutcome::Absent,
            };
            match fate {
                Fate::Carried { after_ms } | Fate::Status { status: 400, after_ms } => {
                    self.after(after_ms + way_ms, Event::Tell(number, found));
                }
                Fate::Status { .. } => {
                    self.after(way_ms, Event::Tell(number, CallOutcome::Unknown));
                }
                Fate::Unheard { breaks_after_ms, .. } | Fate::Lost { breaks_after_ms } => {
                    if let Some(after_ms) = breaks_after_ms {
                        self.after(after_ms, Event::Tell(number, CallOutcome::Unknown));
                    }
                }
            }
            return;
        }
        match fate {
            Fate::Carried { after_ms } => {
                self.uncarried += 1;
                self.after(after_ms, Event::Record(number, true));
            }
            Fate::Unheard { after_ms, breaks_after_ms } => {
                self.uncarried += 1;
                self.after(after_ms, Event::Record(number, false));
                if let Some(after_ms) = breaks_after_ms {
                    self.after(after_ms, Event::Tell(number, CallOutcome::Unknown));
                }
            }
            Fate::Lost { breaks_after_ms } => {
                if let Some(after_ms) = breaks_after_ms {
                    self.after(after_ms, Event::Tell(number, CallOutcome::Unknown));
                }
            }
            Fate::Status { status, after_ms } => {
                let outcome = match status {
                    400 => {
                        self.refused[call.processor.index()].insert(call.id);
                        CallOutcome::Refused { status }
                    }
                    status => CallOutcome::NotRecorded { status },
                };
                self.after(after_ms + way_ms, Event::Tell(number, outcome));
            }
        }
    }

    /// A processor carries a call out.
    pub(super) fn record(&mut self, number: usize, tells: bool) -> Step {
        self.uncarried -= 1;
        let OnTheWay { call, is_over, .. } = self.calls[number];
        let (processor, id) = (call.processor, call.id);
        let CallKind::Post { requested_at } = call.kind else { return Continue(()) };
        let which = processor.index();
        // The failure flag is looked at after the delay.
        let outcome = if tells && self.processors[which].mood(self.now_ms) == Mood::Fails {
            CallOutcome::NotRecorded { status: 500 }
        } else if self.processors[which]
            .record(id, Recorded { amount: self.sent_amount(call.amount), requested_at })
        {
            self.note(Note::Recorded { call: number, processor, id, requested_at });
            self.count.recorded_late += u64::from(is_over);
            if self.processors[processor.other().index()].recorded.contains_key(&id) {
                return Break(Violation::PaidTwice(id));
            }
            CallOutcome::Recorded
        } else {
            CallOutcome::AlreadyRecorded
        };
        if tells {
            let after_ms = self.random.below(3);
            self.after(after_ms, Event::Tell(number, outcome));
        }
        Continue(())
    }

    pub(super) fn tell(&mut self, number: usize, outcome: CallOutcome) {
        let OnTheWay { instance, process, call, sent_ms, is_over } = self.calls[number];
        if is_over || (self.sabotage == Some(Sabotage::LoseAnswers) && number % 10 == 9) {
            return;
        }
        self.calls[number].is_over = true;
        if !self.lives(instance, process) {
            return;
        }
        self.note(Note::Told { call: number, outcome });
        if outcome == CallOutcome::Unknown && call.kind != CallKind::Lookup {
            self.count.unknown += 1;
        }
        let outcome = match outcome {
            CallOutcome::Unknown if self.sabotage == Some(Sabotage::ForgetDoubt) => {
                CallOutcome::NotRecorded { status: 0 }
            }
            outcome => outcome,
        };
        let latency_ms = self.now_ms - sent_ms;
        self.with_engine(instance, |engine, now| engine.finished(&call, outcome, latency_ms, now));
    }

    pub(super) fn tell_health(&mut self, processor: usize) {
        let mood = self.processors[processor].mood(self.now_ms);
        let failing =
            matches!(mood, Mood::Fails) || (mood == Mood::Mad && self.random.below(2) == 0);
        let min_response_ms = if let Mood::Slow(delay_ms) = mood { delay_ms } else { 0 };
        for instance in 0..INSTANCES {
            if self.sites[instance].frozen_until_ms <= self.now_ms {
                let health = Health { failing, min_response_ms };
                let which = Which::ALL[processor];
                self.with_engine(instance, |engine, now| engine.heard(which, health, now));
            }
        }
        self.after(HEALTH_INTERVAL_MS, Event::Health(processor));
    }
}
