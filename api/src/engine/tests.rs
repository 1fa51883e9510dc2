//! The engine by itself: its tests play journal, store and processors.

use proptest::prelude::*;

use ledger::journal::{Dispatch, PaymentRecord};
use ledger::protocol::PurgeNotice;

use super::*;
use crate::router::{Health, Outcome, Reason};

const CONFIG: EngineConfig = EngineConfig {
    backlog_max: 100,
    recent_max: 10,
    claim_delay_ms: 0,
    router: RouterConfig {
        fees_bp: [500, 1500],
        patience_ms: 1000,
        in_flight_max: 8,
        slow_ms: 1300,
    },
};

const NO_PURGE: PurgeNotice = PurgeNotice { purge: 0, cut: Position::START };

use Processor::{Default, Fallback};

fn payment(number: u8) -> Payment {
    Payment {
        id: id(number),
        amount: Cents::new(1990),
        accepted: Position::START,
        waiting_since_ms: 0,
        stage: Stage::Writing,
        doubt: None,
        refused_by: None,
        attempts_count: 0,
    }
}

/// Some key, for calls that no engine knows of.
pub(crate) fn key() -> Key {
    Payments::default().insert(payment(0))
}

fn id(number: u8) -> CorrelationId {
    CorrelationId::from_bytes([number; 16])
}

/// An engine with a journal, a store and a clock that the test moves.
struct Fixture {
    engine: Engine,
    journal: Vec<PaymentRecord>,
    now_ms: u64,
    /// Calls that were made and not answered.
    calls: Vec<Call>,
    wake_ms: Option<u64>,
}

impl Fixture {
    fn new() -> Self {
        Self::recovered(&[])
    }

    fn recovered(open: &[OpenPayment]) -> Self {
        let engine = Engine::new(CONFIG, open, Position::START, 0, at(0));
        let mut fixture =
            Self { engine, journal: Vec::new(), now_ms: 0, calls: Vec::new(), wake_ms: None };
        fixture.engine.connected(NO_PURGE);
        fixture
    }

    fn end(&self) -> Position {
        Position::START.plus(u32::try_from(self.journal.len()).unwrap())
    }

    /// Writes what there is to write, has everything decided, and makes all calls.
    fn turn(&mut self) {
        self.turn_with(usize::MAX, &[]);
    }

    fn turn_with(&mut self, room: usize, losers: &[u8]) {
        for _ in 0..3 {
            self.wake_ms = self.engine.pump(self.now_ms, at(self.now_ms));
            self.write(room);
            self.decide(losers);
        }
        self.calls.extend(self.engine.take_calls());
    }

    fn write(&mut self, room: usize) -> u32 {
        let Some(batch) = self.engine.take_batch(at(self.now_ms)) else { return 0 };
        let count = batch.records.len().min(room);
        let failure = (count < batch.records.len()).then(|| "the disk is full".to_owned());
        let first = self.end();
        self.journal.extend(&batch.records[..count]);
        self.engine.written(batch, first, count, failure, self.now_ms).accepts_count
    }

    fn decide(&mut self, losers: &[u8]) {
        if let Some(through) = self.engine.take_claim(self.now_ms) {
            let places: Vec<_> = self
                .journal
                .iter()
                .zip(0..)
                .filter(|(record, _)| losers.iter().any(|number| record.id == id(*number)))
                .map(|(_, index)| Position::START.plus(index))
                .collect();
            self.engine.decided(through, &places);
        }
    }

    fn accept(&mut self, number: u8) -> Accept {
        self.engine.accept(id(number), Cents::new(1990), self.now_ms)
    }

    /// The one call that is out.
    fn call(&mut self) -> Call {
        assert_eq!(self.calls.len(), 1, "{:?}", self.calls);
        self.calls.remove(0)
    }

    fn answer(&mut self, call: &Call, outcome: CallOutcome) {
        self.engine.finished(call, outcome, 1, self.now_ms);
        self.turn();
    }

    /// The events that the journal has about a payment.
    fn events(&self, number: u8) -> Vec<Event> {
        let of_payment = self.journal.iter().filter(|record| record.id == id(number));
        of_payment.map(|record| record.event).collect()
    }

    fn last_event(&self, number: u8) -> Event {
        *self.events(number).last().unwrap()
    }

    /// The processor has shown that it can take as many at a time as any test has.
    fn has_taken_many(&mut self, processor: Processor) {
        for _ in 0..200 {
            self.engine.router.sent(processor, self.now_ms);
        }
        for _ in 0..200 {
            self.engine.router.answered(processor, self.now_ms, 1, Outcome::Succeeded);
        }
    }

    fn open_breaker(&mut self, processor: Processor) {
        let health = Health { failing: true, min_response_ms: 0 };
        self.engine.heard(processor, health, self.now_ms);
    }
}

/// An engine with room for many, into which so many come at once.
fn crowded(count: usize) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.engine.config.backlog_max = 10_000;
    fixture.engine.config.router.in_flight_max = 300;
    fixture.engine.config.router.patience_ms = 60_000;
    fixture.engine.router = Router::new(fixture.engine.config.router);
    for number in 0..count {
        fixture.accept(u8::try_from(number).unwrap());
    }
    fixture.engine.begin_turn(fixture.now_ms);
    fixture
}

#[test]
fn of_a_crowd_few_are_sent_at_once_and_the_rest_when_it_is_over() {
    let mut fixture = crowded(200);
    fixture.turn();
    assert_eq!(fixture.calls.len(), intake::BURST);
    // The processor could take more now.
    for call in std::mem::take(&mut fixture.calls) {
        fixture.engine.finished(&call, CallOutcome::Recorded, 1, fixture.now_ms);
    }
    fixture.engine.begin_turn(fixture.now_ms);
    fixture.turn();
    assert_eq!(fixture.calls.len(), 0);
    // Nobody comes any more, and nothing happens but that the engine is woken when it asks to be.
    while fixture.calls.is_empty() {
        fixture.now_ms = fixture.wake_ms.expect("the rest is not forgotten");
        assert!(fixture.now_ms <= 10, "the crowd is over");
        fixture.engine.begin_turn(fixture.now_ms);
        fixture.turn();
    }
    assert!(fixture.calls.len() > intake::BURST);
}

#[test]
fn what_has_waited_goes_in_windows_that_widen() {
    let mut fixture = crowded(200);
    // The crowd is over, and all of it may be sent.
    fixture.now_ms = 100;
    let mut counts = Vec::new();
    while counts.iter().sum::<usize>() < 200 {
        fixture.engine.begin_turn(fixture.now_ms);
        fixture.turn();
        counts.push(fixture.calls.len());
        for call in std::mem::take(&mut fixture.calls) {
            fixture.engine.finished(&call, CallOutcome::Recorded, 1, fixture.now_ms);
        }
        fixture.now_ms = fixture.wake_ms.unwrap_or(fixture.now_ms);
    }
    // The first few show that the processor works.
    assert_eq!(counts, [8, 32, 10, 10, 10, 10, 10, 10, 11, 11, 11, 11, 11, 12, 12, 12, 9]);
}

#[test]
fn a_convoy_to_a_slow_processor_leaves_with_all_that_wait() {
    let mut fixture = crowded(200);
    fixture.now_ms = 100;
    fixture.has_taken_many(Default);
    let slow = Health { failing: false, min_response_ms: 2_000 };
    fixture.engine.heard(Default, slow, fixture.now_ms);
    fixture.open_breaker(Fallback);
    fixture.engine.begin_turn(fixture.now_ms);
    fixture.turn();
    assert_eq!(fixture.calls.len(), 200);
}

#[test]
fn when_the_load_has_stopped_all_that_wait_go_at_once() {
    let mut fixture = crowded(200);
    // Long after the last came in.
    fixture.now_ms = 40_000;
    fixture.has_taken_many(Fallback);
    fixture.open_breaker(Default);
    fixture.engine.begin_turn(fixture.now_ms);
    fixture.turn();
    assert_eq!(fixture.engine.router.reason(), Reason::LoadHasStopped);
    assert_eq!(fixture.calls.len(), 200);
}

/// An engine that gathers payments for 20 ms.
fn gathering() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.engine.config.claim_delay_ms = 20;
    fixture
}

#[test]
fn payments_are_gathered_for_one_claim_and_not_for_long() {
    let mut fixture = gathering();
    fixture.accept(1);
    fixture.turn();
    assert!(!fixture.engine.claim_is_out() && fixture.calls.is_empty());
    assert_eq!(fixture.wake_ms, Some(40), "nothing else need happen");
    fixture.now_ms = 19;
    fixture.accept(2);
    fixture.turn();
    assert!(fixture.calls.is_empty());
    // Whatever makes a turn after the time is enough.
    fixture.now_ms = 21;
    fixture.accept(3);
    fixture.turn();
    assert_eq!(fixture.calls.len(), 3);
    // The next ones are gathered anew.
    fixture.now_ms = 30;
    fixture.accept(4);
    fixture.turn();
    assert_eq!((fixture.calls.len(), fixture.wake_ms), (3, Some(70)));
    fixture.now_ms = 70;
    fixture.turn();
    assert_eq!(fixture.calls.len(), 4);
}

#[test]
fn many_are_claimed_at_once() {
    let mut fixture = gathering();
    for number in 0..32 {
        fixture.accept(number);
    }
    fixture.turn();
    assert_eq!(fixture.calls.len(), CONFIG.router.in_flight_max as usize);
}

#[test]
fn what_was_gathered_for_a_store_that_is_back_is_claimed_at_once() {
    let mut fixture = gathering();
    fixture.engine.disconnected();
    fixture.accept(1);
    fixture.turn();
    fixture.now_ms = 10;
    fixture.engine.connected(NO_PURGE);
    fixture.turn();
    assert_eq!(fixture.calls.len(), 1);
}

#[test]
fn few_who_come_in_hold_nothing_up() {
    let mut fixture = crowded(intake::CROWD - 1);
    fixture.turn();
    assert_eq!(fixture.calls.len(), intake::CROWD - 1);
}

#[test]
fn no_claim_disturbs_a_crowd_while_enough_is_ready() {
    let mut fixture = crowded(200);
    fixture.turn();
    for number in 200..255 {
        fixture.accept(number);
        let again =
            CorrelationId::from_bytes([0xff, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        fixture.engine.accept(again, Cents::new(1990), fixture.now_ms);
    }
    fixture.engine.begin_turn(fixture.now_ms);
    fixture.turn();
    fixture.accept(255);
    fixture.engine.begin_turn(fixture.now_ms);
    fixture.wake_ms = fixture.engine.pump(fixture.now_ms, at(fixture.now_ms));
    fixture.write(usize::MAX);
    assert_eq!(fixture.engine.take_claim(fixture.now_ms), None);
    assert!(fixture.engine.pump(fixture.now_ms, at(fixture.now_ms)).is_some(), "it asks again");
    // The crowd has gone.
    fixture.engine.begin_turn(fixture.now_ms + 100);
    assert!(fixture.engine.take_claim(fixture.now_ms + 100).is_some());
}

fn at(ms: u64) -> TimestampMs {
    TimestampMs::clamped(signed(ms))
}

fn dispatched(processor: Processor, ms: u64) -> Event {
    Event::Dispatched { processor, requested_at: at(ms) }
}

fn settled(processor: Processor, ms: u64) -> Event {
    Event::Settled { processor, requested_at: at(ms) }
}

#[test]
fn a_payment_is_written_decided_written_again_sent_and_settled() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.accept(1), Accept::Writing(Ticket(0)));
    assert_eq!(fixture.engine.pump(0, at(0)), None);
    assert_eq!(fixture.write(usize::MAX), 1);
    assert_eq!(fixture.events(1), [Event::Accepted]);
    fixture.engine.pump(0, at(0));
    assert!(fixture.engine.take_batch(at(0)).is_none(), "nothing is sent before it is decided");
    fixture.decide(&[]);
    fixture.now_ms = 5;
    fixture.engine.pump(5, at(5));
    assert!(fixture.engine.take_calls().is_empty(), "nothing is sent before it is written");
    fixture.turn();
    assert_eq!(fixture.events(1), [Event::Accepted, dispatched(Default, 5)]);
    let call = fixture.call();
    assert_eq!(call.kind, CallKind::Post { requested_at: at(5) });
    fixture.answer(&call, CallOutcome::Recorded);
    assert_eq!(fixture.last_event(1), settled(Default, 5));
    assert_eq!(fixture.engine.open_count(), 0);
}

#[test]
fn the_same_payment_again_changes_nothing_and_another_amount_is_a_conflict() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    assert_eq!(fixture.accept(1), Accept::Wait);
    fixture.turn();
    assert_eq!(fixture.accept(1), Accept::Known);
    let other = fixture.engine.accept(id(1), Cents::new(1), 0);
    assert_eq!(other, Accept::Conflict(Cents::new(1990)));
    let call = fixture.call();
    fixture.answer(&call, CallOutcome::Recorded);
    assert_eq!(fixture.accept(1), Accept::Known);
    assert_eq!(fixture.journal.len(), 3);
}

#[test]
fn a_full_backlog_takes_nothing_more_until_something_is_closed() {
    let mut fixture = Fixture::new();
    for number in 0..100 {
        assert!(matches!(fixture.accept(number), Accept::Writing(_)));
    }
    assert_eq!(fixture.accept(200), Accept::Full);
    assert_eq!(fixture.accept(0), Accept::Wait, "what is known is no new payment");
    fixture.turn();
    assert_eq!(fixture.calls.len(), 8);
    let call = fixture.calls.remove(0);
    fixture.answer(&call, CallOutcome::Recorded);
    assert!(matches!(fixture.accept(200), Accept::Writing(_)));
}

#[test]
fn a_payment_that_another_record_has_the_right_to_is_closed_as_a_duplicate() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.accept(2);
    fixture.turn_with(usize::MAX, &[2]);
    assert_eq!(fixture.events(2), [Event::Accepted, Event::Duplicate]);
    assert_eq!(fixture.call().id, id(1));
    assert_eq!(fixture.accept(2), Accept::Known);
}

#[test]
fn a_call_known_to_have_failed_sets_the_payment_free_for_the_other_processor() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.turn();
    fixture.open_breaker(Default);
    let call = fixture.call();
    fixture.answer(&call, CallOutcome::NotRecorded { status: 500 });
    assert_eq!(fixture.last_event(1), Event::Failed { processor: Default, status: 500 });
    assert!(fixture.calls.is_empty());
    fixture.now_ms = 1000;
    // Default's probe is due and preferred; once that is out, the next payment goes to fallback.
    fixture.accept(2);
    fixture.accept(3);
    fixture.turn();
    assert_eq!(fixture.call().processor, Default);
    fixture.now_ms = 2000;
    fixture.turn();
    let sent: Vec<_> = fixture.calls.drain(..).map(|call| call.processor).collect();
    assert_eq!(sent, [Default, Fallback]);
}

#[test]
fn a_payment_in_doubt_never_goes_to_the_other_processor() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.turn();
    let call = fixture.call();
    fixture.answer(&call, CallOutcome::Unknown);
    let lookup = fixture.call();
    assert_eq!((lookup.kind, lookup.processor), (CallKind::Lookup, Default));
    fixture.answer(&lookup, CallOutcome::Absent);
    for _ in 0..20 {
        // Absent, sent again, known not to be recorded by that: the first call is in doubt still.
        let call = fixture.call();
        assert_eq!(call.processor, Default);
        fixture.open_breaker(Default);
        let outcome = match call.kind {
            CallKind::Post { .. } => CallOutcome::NotRecorded { status: 500 },
            CallKind::Lookup => CallOutcome::Absent,
        };
        fixture.answer(&call, outcome);
        while fixture.calls.is_empty() {
            fixture.now_ms = fixture.wake_ms.unwrap();
            fixture.turn();
        }
    }
    assert!(!fixture.events(1).iter().any(|event| matches!(event, Event::Failed { .. })));
    let mut call = fixture.call();
    while call.kind == CallKind::Lookup {
        fixture.answer(&call, CallOutcome::Absent);
        while fixture.calls.is_empty() {
            fixture.now_ms = fixture.wake_ms.unwrap();
            fixture.turn();
        }
        call = fixture.call();
    }
    // The first call was recorded in the end, under its own `requestedAt`.
    fixture.answer(&call, CallOutcome::AlreadyRecorded);
    while fixture.calls.is_empty() {
        fixture.now_ms = fixture.wake_ms.unwrap();
        fixture.turn();
    }
    let lookup = fixture.call();
    let found = CallOutcome::Found { amount: Cents::new(1990), requested_at: at(0) };
    fixture.answer(&lookup, found);
    assert_eq!(fixture.last_event(1), settled(Default, 0));
}

#[test]
fn what_a_processor_recorded_counts() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.turn();
    let call = fixture.call();
    fixture.answer(&call, CallOutcome::AlreadyRecorded);
    let lookup = fixture.call();
    let found = CallOutcome::Found { amount: Cents::new(1), requested_at: at(77) };
    fixture.answer(&lookup, found);
    assert_eq!(fixture.last_event(1), settled(Default, 77));
    assert_eq!(fixture.journal.last().unwrap().amount, Cents::new(1));
}

#[test]
fn the_oldest_that_is_not_closed_is_known_and_how_old_the_settled_are() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.engine.oldest_age_ms(10), 0);
    fixture.accept(1);
    fixture.now_ms = 100;
    fixture.accept(2);
    fixture.write(usize::MAX);
    // Nothing is decided yet.
    assert_eq!(fixture.engine.oldest_age_ms(150), 150);
    fixture.turn();
    // Both are being sent.
    assert_eq!(fixture.engine.oldest_age_ms(200), 200);
    let [first, second] = fixture.calls[..] else { panic!("{:?}", fixture.calls) };
    fixture.calls.clear();
    fixture.now_ms = 300;
    fixture.answer(&first, CallOutcome::Unknown);
    // It is being looked up.
    assert_eq!(fixture.engine.oldest_age_ms(400), 400);
    let look_up = fixture.call();
    fixture.now_ms = 500;
    fixture.answer(&look_up, CallOutcome::Unknown);
    // It waits for the next look.
    assert_eq!(fixture.engine.oldest_age_ms(600), 600);
    fixture.engine.finished(&second, CallOutcome::Recorded, 1, 500);
    let batch = fixture.engine.take_batch(at(500)).unwrap();
    let ages = |count| fixture.engine.settled_ages_ms(&batch, count, 650).collect::<Vec<_>>();
    assert_eq!((ages(0), ages(1)), (vec![], vec![550]));
}

/// In an outage the oldest payments are those that are posted as probes: told as age 0 while they
/// are out, the router looked young exactly then.
#[test]
fn a_payment_that_is_posted_again_and_again_is_the_oldest_all_the_time() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.turn();
    for _ in 0..3 {
        let call = fixture.call();
        assert_eq!(fixture.engine.oldest_age_ms(fixture.now_ms + 5), fixture.now_ms + 5);
        fixture.now_ms += 100;
        fixture.answer(&call, CallOutcome::NotRecorded { status: 500 });
        while fixture.calls.is_empty() {
            assert_eq!(fixture.engine.oldest_age_ms(fixture.now_ms), fixture.now_ms);
            fixture.now_ms = fixture.wake_ms.unwrap();
            fixture.turn();
        }
    }
    let call = fixture.call();
    fixture.answer(&call, CallOutcome::Recorded);
    assert_eq!(fixture.engine.oldest_age_ms(fixture.now_ms), 0);
    assert!(fixture.engine.under_way.is_empty());
}

/// What comes back goes to the front, so that the oldest is behind the younger ones that came after
/// it.
#[test]
fn the_oldest_of_those_that_came_back_is_known_though_it_is_not_the_first() {
    let mut fixture = Fixture::new();
    fixture.has_taken_many(Default);
    fixture.accept(1);
    fixture.now_ms = 100;
    fixture.accept(2);
    fixture.turn();
    let [older, younger] = fixture.calls[..] else { panic!("{:?}", fixture.calls) };
    assert_eq!(older.id, id(1));
    for call in [older, younger] {
        fixture.engine.finished(&call, CallOutcome::NotRecorded { status: 500 }, 1, 200);
    }
    assert_eq!(fixture.engine.oldest_age_ms(300), 300);
}

#[test]
fn a_payment_refused_by_both_is_closed() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.turn();
    let call = fixture.call();
    fixture.answer(&call, CallOutcome::Refused { status: 400 });
    let call = fixture.call();
    assert_eq!(call.processor, Fallback);
    fixture.answer(&call, CallOutcome::Refused { status: 400 });
    assert_eq!(fixture.last_event(1), Event::Refused { processor: Fallback, status: 400 });
    assert_eq!(fixture.engine.open_count(), 0);
}

#[test]
fn payments_that_the_journal_left_open_are_taken_up_again() {
    let open = |number: u8, index, in_doubt| OpenPayment {
        id: id(number),
        amount: Cents::new(1990),
        accepted: Position { segment: 1, index },
        accepted_at: at(0),
        in_doubt,
    };
    let call = Dispatch { processor: Fallback, requested_at: at(0) };
    let mut fixture = Fixture::recovered(&[open(1, 0, None), open(2, 1, Some(call))]);
    // The journal of the fixture is as long as the one that was recovered.
    fixture.journal = vec![
        PaymentRecord {
            id: id(9),
            amount: Cents::new(1),
            written_at: at(0),
            event: Event::Accepted
        };
        4
    ];
    fixture.engine.committed = Position { segment: 1, index: 4 };
    assert_eq!(fixture.accept(1), Accept::Known);
    fixture.turn();
    let mut calls = std::mem::take(&mut fixture.calls);
    calls.sort_by_key(|call| call.id);
    assert_eq!((calls[0].id, calls[0].processor), (id(1), Default));
    assert_eq!(
        (calls[1].id, calls[1].kind, calls[1].processor),
        (id(2), CallKind::Lookup, Fallback)
    );
}

#[test]
fn a_processor_that_hangs_keeps_no_look_up_at_the_other_one_waiting() {
    let open = |number: u8, processor| OpenPayment {
        id: id(number),
        amount: Cents::new(1990),
        accepted: Position { segment: 1, index: u32::from(number) },
        accepted_at: at(0),
        in_doubt: Some(Dispatch { processor, requested_at: at(0) }),
    };
    let mut doubts: Vec<_> = (0..90).map(|number| open(number, Default)).collect();
    doubts.extend((90..95).map(|number| open(number, Fallback)));
    let count = |fixture: &Fixture, processor| {
        fixture.calls.iter().filter(|call| call.processor == processor).count()
    };

    let mut fixture = Fixture::recovered(&doubts);
    fixture.turn();
    assert_eq!(count(&fixture, Default), LOOKUPS_MAX);
    assert_eq!(count(&fixture, Fallback), 5);

    let mut fixture = Fixture::recovered(&doubts);
    fixture.open_breaker(Default);
    fixture.turn();
    assert_eq!(count(&fixture, Default), LOOKUPS_MAX_WHILE_FAILING);
    assert_eq!(count(&fixture, Fallback), 5);
    let lookup = fixture.calls.remove(0);
    fixture.answer(&lookup, CallOutcome::Unknown);
    assert_eq!(count(&fixture, Default), LOOKUPS_MAX_WHILE_FAILING, "the next one follows");
}

#[test]
fn after_a_failed_write_nothing_is_sent_or_acknowledged_that_was_not_written() {
    for room in 0..4 {
        let mut fixture = Fixture::new();
        fixture.accept(1);
        fixture.turn();
        let call = fixture.call();
        fixture.accept(2);
        fixture.engine.pump(0, at(0));
        fixture.write(usize::MAX);
        fixture.decide(&[]);
        // A batch with payment 1 settled, payment 3 accepted and payment 2 to be sent.
        fixture.engine.finished(&call, CallOutcome::Recorded, 1, 0);
        fixture.accept(3);
        fixture.engine.pump(0, at(0));
        let accepts_count = fixture.write(room);
        assert_eq!(accepts_count, u32::from(room >= 2), "room for {room}");
        let sent = fixture.engine.take_calls();
        assert_eq!(sent.len(), usize::from(room >= 3), "room for {room}");
        if room < 3 {
            assert!(matches!(fixture.accept(4), Accept::Failing(_)));
            fixture.now_ms += 1000;
        }
        fixture.turn();
        assert_eq!(fixture.last_event(1), settled(Default, 0), "room for {room}");
        assert!(fixture.events(2).len() >= 2, "room for {room}");
        assert_eq!(fixture.accept(3) == Accept::Known, room >= 2, "room for {room}");
    }
}

#[test]
fn a_journal_that_works_again_is_noticed_with_the_next_payment() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    assert_eq!(fixture.write(0), 0);
    let why = Accept::Failing("the disk is full".to_owned());
    assert_eq!(fixture.accept(1), why);
    fixture.now_ms = 250;
    assert_eq!(fixture.accept(1), Accept::Writing(Ticket(0)));
    assert_eq!(fixture.accept(2), why);
    assert_eq!(fixture.write(usize::MAX), 1);
    assert_eq!(fixture.engine.failure(), None);
    assert!(matches!(fixture.accept(2), Accept::Writing(_)));
}

#[test]
fn the_oldest_segment_with_an_open_payment_is_known() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.turn();
    assert_eq!(fixture.engine.oldest_open_segment(), 1);
    fixture.accept(2);
    let batch = fixture.engine.take_batch(at(0)).unwrap();
    fixture.engine.written(batch, Position { segment: 2, index: 0 }, 1, None, 0);
    let call = fixture.call();
    fixture.engine.finished(&call, CallOutcome::Recorded, 1, 0);
    let batch = fixture.engine.take_batch(at(0)).unwrap();
    fixture.engine.written(batch, Position { segment: 2, index: 1 }, 1, None, 0);
    assert_eq!(fixture.engine.oldest_open_segment(), 2);
}

#[test]
fn a_purge_drops_what_waits_and_keeps_what_a_processor_may_have() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.turn();
    let call = fixture.call();
    fixture.open_breaker(Default);
    fixture.accept(2);
    fixture.turn();
    assert!(fixture.calls.is_empty());
    fixture.engine.prepare_purge();
    fixture.now_ms = 500;
    fixture.turn();
    assert!(fixture.calls.is_empty(), "the probe is due, and nothing is sent during a purge");
    let cut = fixture.end();
    fixture.accept(3);
    fixture.turn();
    fixture.engine.purged(PurgeNotice { purge: 1, cut });
    assert_eq!(fixture.accept(1), Accept::Known, "in flight");
    assert!(matches!(fixture.accept(2), Accept::Writing(_)), "forgotten");
    assert_eq!(fixture.accept(3), Accept::Known, "accepted after the cut");
    fixture.answer(&call, CallOutcome::Recorded);
    assert_eq!(fixture.last_event(1), settled(Default, 0));
}

#[test]
fn a_purge_forgets_payments_that_were_closed() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.turn();
    let call = fixture.call();
    fixture.answer(&call, CallOutcome::Recorded);
    // The notice itself was lost with the connection; the next greeting tells.
    fixture.engine.prepare_purge();
    fixture.engine.disconnected();
    let cut = fixture.end();
    fixture.engine.connected(PurgeNotice { purge: 1, cut });
    assert!(matches!(fixture.accept(1), Accept::Writing(_)));
    fixture.turn();
    assert_eq!(fixture.calls.len(), 1, "it goes on");
}

#[test]
fn a_payment_in_flight_at_a_purge_stays_with_its_processor_for_good() {
    let refused = CallOutcome::Refused { status: 400 };
    for outcome in [CallOutcome::NotRecorded { status: 500 }, refused] {
        let mut fixture = Fixture::new();
        fixture.accept(1);
        fixture.turn();
        let call = fixture.call();
        fixture.engine.prepare_purge();
        let notice = PurgeNotice { purge: 1, cut: fixture.end() };
        fixture.answer(&call, outcome);
        fixture.engine.purged(notice);
        fixture.turn();
        // A record that sets it free would have it dropped after a new start.
        assert_eq!(fixture.events(1), [Event::Accepted, dispatched(Default, 0)]);
        fixture.engine.disconnected();
        fixture.engine.connected(notice);
        assert_eq!(fixture.accept(1), Accept::Known);
        fixture.now_ms = 200;
        fixture.turn();
        let lookup = fixture.call();
        fixture.answer(&lookup, CallOutcome::Absent);
        let again = fixture.call();
        assert_eq!(again.processor, Default);
        fixture.answer(&again, CallOutcome::Recorded);
        assert_eq!(fixture.last_event(1), settled(Default, 200));
    }
}

#[test]
fn a_payment_that_failed_before_a_purge_that_was_not_carried_out_is_free() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.turn();
    let call = fixture.call();
    fixture.engine.prepare_purge();
    fixture.answer(&call, CallOutcome::NotRecorded { status: 500 });
    fixture.engine.purge_aborted();
    fixture.turn();
    let failed = Event::Failed { processor: Default, status: 500 };
    assert!(fixture.events(1).contains(&failed));
}

#[test]
fn an_acceptance_that_was_being_written_at_a_purge_is_written_again() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    let batch = fixture.engine.take_batch(at(0)).unwrap();
    let first = fixture.end();
    fixture.journal.extend(&batch.records);
    // It waits for the disk, another payment comes, and the store cuts.
    fixture.accept(2);
    fixture.engine.prepare_purge();
    fixture.engine.purged(PurgeNotice { purge: 1, cut: fixture.end() });
    let written = fixture.engine.written(batch, first, 1, None, 0);
    assert_eq!(written, Written { accepts_count: 1, void_count: 1 });
    assert_eq!(fixture.accept(1), Accept::Wait);
    assert_eq!(fixture.write(usize::MAX), 2);
    assert_eq!(fixture.accept(1), Accept::Known);
    let ids: Vec<_> = fixture.journal.iter().map(|record| record.id).collect();
    assert_eq!(ids, [id(1), id(2), id(1)]);
    assert_eq!(fixture.accept(3), Accept::Writing(Ticket(0)));
}

#[test]
fn what_may_be_void_is_not_called_known() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.turn();
    let call = fixture.call();
    fixture.answer(&call, CallOutcome::Recorded);
    fixture.accept(2);
    fixture.turn();
    fixture.open_breaker(Default);
    fixture.accept(3);
    fixture.turn();
    fixture.engine.prepare_purge();
    assert_eq!(fixture.accept(1), Accept::Unsure, "settled");
    assert_eq!(fixture.accept(2), Accept::Known, "in flight");
    assert_eq!(fixture.accept(3), Accept::Unsure, "waiting");
    assert_eq!(fixture.engine.accept(id(3), Cents::new(1), 0), Accept::Unsure);
    fixture.engine.purge_aborted();
    assert_eq!(fixture.accept(1), Accept::Known);
    assert_eq!(fixture.accept(3), Accept::Known);
}

#[test]
fn what_was_recovered_is_not_called_known_before_the_store_has_told_of_purges() {
    let open = OpenPayment {
        id: id(1),
        amount: Cents::new(1990),
        accepted: Position::START,
        accepted_at: at(0),
        in_doubt: None,
    };
    let dispatch = Dispatch { processor: Default, requested_at: at(0) };
    let in_doubt = OpenPayment { id: id(2), in_doubt: Some(dispatch), ..open };
    let end = Position { segment: 1, index: 3 };
    let recovered = || Engine::new(CONFIG, &[open, in_doubt], end, 0, at(0));
    let accept = |engine: &mut Engine, number| engine.accept(id(number), Cents::new(1990), 0);

    let mut engine = recovered();
    assert_eq!(accept(&mut engine, 1), Accept::Unsure);
    assert_eq!(accept(&mut engine, 2), Accept::Known, "a processor may have it");
    engine.connected(NO_PURGE);
    assert_eq!(accept(&mut engine, 1), Accept::Known);

    let mut engine = recovered();
    engine.connected(PurgeNotice { purge: 1, cut: end });
    assert!(matches!(accept(&mut engine, 1), Accept::Writing(_)), "it is void");
}

#[test]
fn a_duplicate_that_is_closed_after_a_purge_is_not_known() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.engine.pump(0, at(0));
    fixture.write(usize::MAX);
    fixture.decide(&[1]);
    fixture.engine.prepare_purge();
    fixture.engine.purged(PurgeNotice { purge: 1, cut: fixture.end() });
    fixture.turn();
    assert_eq!(fixture.last_event(1), Event::Duplicate);
    assert!(matches!(fixture.accept(1), Accept::Writing(_)));
}

#[test]
fn a_pause_lasts_until_the_store_is_back() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.engine.pump(0, at(0));
    fixture.write(usize::MAX);
    fixture.decide(&[]);
    fixture.engine.prepare_purge();
    fixture.engine.disconnected();
    fixture.turn();
    assert!(fixture.calls.is_empty());
    fixture.engine.connected(NO_PURGE);
    fixture.turn();
    assert_eq!(fixture.calls.len(), 1);
}

#[test]
fn without_the_store_payments_are_taken_in_and_wait() {
    let mut fixture = Fixture::new();
    fixture.engine.disconnected();
    fixture.accept(1);
    fixture.turn();
    assert_eq!(fixture.events(1), [Event::Accepted]);
    assert!(fixture.calls.is_empty());
    fixture.engine.connected(NO_PURGE);
    fixture.turn();
    assert_eq!(fixture.calls.len(), 1);
}

#[test]
fn a_claim_that_was_refused_is_made_again_after_a_pause() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.write(usize::MAX);
    assert!(fixture.engine.take_claim(0).is_some());
    assert!(fixture.engine.take_claim(0).is_none(), "one at a time");
    fixture.engine.claim_refused(0);
    assert!(fixture.engine.take_claim(0).is_none());
    let wake_ms = fixture.engine.pump(0, at(0)).unwrap();
    assert!(fixture.engine.take_claim(wake_ms).is_some());
}

proptest! {
    /// Processors that do anything at all: each payment ends settled once, by the processor that
    /// recorded it, under the moment that this processor holds.
    #[test]
    fn whatever_processors_do_each_payment_is_settled_once_where_it_was_recorded(
        steps in proptest::collection::vec((0..8_u8, any::<u8>(), 0..500_u64), 50..400),
    ) {
        let mut fixture = Fixture::new();
        let mut world = World::default();
        let mut accepted = 0;
        for (kind, choice, step_ms) in steps {
            fixture.now_ms += step_ms;
            match kind {
                0 if accepted < 60 => {
                    fixture.accept(accepted);
                    accepted += 1;
                }
                1 => world.default_is_down = choice % 2 == 0,
                _ if !fixture.calls.is_empty() => {
                    let call = fixture.calls.remove(usize::from(choice) % fixture.calls.len());
                    let outcome = world.serve(&call, kind);
                    fixture.answer(&call, outcome);
                }
                _ => {}
            }
            if choice % 16 == 0 {
                world.record_one_late(choice);
            }
            fixture.turn();
        }
        // Everything heals, and everything is settled.
        world.default_is_down = false;
        while world.record_one_late(0) {}
        for _ in 0..3000 {
            fixture.now_ms += 100;
            fixture.turn();
            while !fixture.calls.is_empty() {
                let call = fixture.calls.remove(0);
                let outcome = world.serve(&call, 7);
                fixture.answer(&call, outcome);
            }
            if fixture.engine.open_count() == 0 {
                break;
            }
        }
        for number in 0..accepted {
            let settlements: Vec<_> = fixture
                .events(number)
                .into_iter()
                .filter(|event| matches!(event, Event::Settled { .. }))
                .collect();
            let recorded: Vec<_> = Processor::ALL
                .into_iter()
                .filter_map(|processor| {
                    let requested_at = *world.books[processor.index()].get(&id(number))?;
                    Some(Event::Settled { processor, requested_at })
                })
                .collect();
            prop_assert_eq!(recorded.len(), 1, "payment {} is recorded once", number);
            prop_assert_eq!(&settlements, &recorded, "payment {}", number);
        }
    }
}

/// Two processors with books, and calls that are recorded late.
#[derive(std::default::Default)]
struct World {
    books: [BTreeMap<CorrelationId, TimestampMs>; 2],
    late: Vec<Call>,
    default_is_down: bool,
}

impl World {
    fn record(&mut self, call: &Call) -> bool {
        let CallKind::Post { requested_at } = call.kind else { return false };
        let book = &mut self.books[call.processor.index()];
        if book.contains_key(&call.id) {
            return false;
        }
        book.insert(call.id, requested_at);
        true
    }

    /// Serves a call: in time and well where `kind` is 7, else in one of many ways.
    fn serve(&mut self, call: &Call, kind: u8) -> CallOutcome {
        if call.kind == CallKind::Lookup {
            let found = self.books[call.processor.index()].get(&call.id);
            return match found {
                _ if kind == 2 => CallOutcome::Unknown,
                Some(requested_at) => {
                    CallOutcome::Found { amount: call.amount, requested_at: *requested_at }
                }
                None => CallOutcome::Absent,
            };
        }
        let is_down = self.default_is_down && call.processor == Default;
        match kind {
            2 => CallOutcome::NotRecorded { status: 500 },
            6 | 7 if is_down => CallOutcome::NotRecorded { status: 500 },
            3 => {
                self.record(call);
                CallOutcome::Unknown
            }
            4 => {
                self.late.push(*call);
                CallOutcome::Unknown
            }
            5 => CallOutcome::Unknown,
            _ if self.record(call) => CallOutcome::Recorded,
            _ => CallOutcome::AlreadyRecorded,
        }
    }

    /// A call whose caller has given up is recorded after all.
    fn record_one_late(&mut self, choice: u8) -> bool {
        if self.late.is_empty() {
            return false;
        }
        let call = self.late.remove(usize::from(choice) % self.late.len());
        self.record(&call);
        true
    }
}
