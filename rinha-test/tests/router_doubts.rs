//! Calls that get no answer in time: what the processor makes of them shows later, and until then no
//! other processor may have the payment, whatever dies meanwhile.

#![allow(clippy::unwrap_used)]

mod live;
mod support;

use std::time::Duration;

use ledger::clock::Monotonic;
use ledger::{CorrelationId, Processor};
use live::connection::post;
use live::{Live, id, ids, payment};
use support::wait_for;

/// Payments whose calls get no answer.
const COUNT: u32 = 20;

/// A router that gives calls up long before the default processor is done with them, and then has
/// no reason to wait for that processor: it neither counts as slow nor is it worth any patience.
fn hasty() -> Live {
    Live::with_api(&[
        "--call-timeout-ms=300",
        "--connect-timeout-ms=300",
        "--slow-ms=60000",
        "--patience-ms=1",
    ])
}

/// How long the default processor takes for a payment.
const DELAY: Duration = Duration::from_secs(2);

/// Posts payments to both APIs while the default processor is slow, and gives the ids of those that
/// it was sent and that nobody knows the outcome of.
fn leave_in_doubt(live: &Live) -> Vec<CorrelationId> {
    live.delay(Processor::Default, DELAY);
    let mut connections = live.connect_to_both();
    for (numbers, connection) in [0..COUNT / 2, COUNT / 2..COUNT].into_iter().zip(&mut connections)
    {
        let requests: String =
            numbers.clone().map(|number| post("/payments", &payment(number))).collect();
        connection.send(requests);
        for _ in numbers {
            assert_eq!(connection.answer().status, 202);
        }
    }
    let [connection, _] = &mut connections;
    let mut is_sent = |id: &CorrelationId| {
        wait_for("a payment to be sent", || {
            let answer = connection.get(&format!("/payments/{id}"));
            if answer.body.contains(r#""status":"in_flight","processor":"default""#) {
                return Some(true);
            }
            // After a few calls without an answer the others may go elsewhere at once.
            answer.body.contains(r#""processor":"fallback""#).then_some(false)
        })
    };
    let mut sent = ids(COUNT);
    sent.retain(|id| is_sent(id));
    assert!(!sent.is_empty());
    sent
}

/// Kills both APIs, and starts them again after something else happened.
fn kill_both_apis(live: &Live, meanwhile: impl FnOnce()) {
    for name in ["api-1", "api-2"] {
        live.system().kill(name).unwrap();
    }
    meanwhile();
    for name in ["api-1", "api-2"] {
        live.system().start_process(name).unwrap();
    }
    live.wait_until_it_answers();
}

/// All payments are settled, each in one of the two books, and those in doubt where they were sent.
fn assert_settled(live: &Live, count: u32, in_doubt: &[CorrelationId]) {
    live.wait_settled(u64::from(count));
    assert_eq!(live.agreed_books(), ids(count));
    let default = live.recorded(Processor::Default);
    assert!(in_doubt.iter().all(|id| default.contains_key(id)), "{in_doubt:?} {default:?}");
}

/// Posts payments while the default processor fails, for this long and one at least: they are settled
/// by the other one. Gives the number of the next.
fn settle_by_fallback(live: &Live, mut number: u32, at_least: Duration) -> u32 {
    let clock = Monotonic::start();
    loop {
        assert_eq!(live.connect().post("/payments", &payment(number)).status, 202);
        wait_for("a payment of the fallback's", || {
            live.recorded(Processor::Fallback).contains_key(&id(number)).then_some(())
        });
        number += 1;
        if clock.elapsed() >= at_least {
            return number;
        }
    }
}

/// The default processor records what nobody waits for any more.
fn recorded_late(kills: bool) {
    let live = hasty();
    let in_doubt = leave_in_doubt(&live);
    let mut count = COUNT;
    if kills {
        // New calls fail at once, so that the other processor is used for what nobody has, while
        // the old ones are still on their way.
        kill_both_apis(&live, || {
            live.fail(Processor::Default, true);
            live.delay(Processor::Default, Duration::ZERO);
        });
        count = settle_by_fallback(&live, count, DELAY / 4);
        live.delay(Processor::Default, DELAY);
        live.fail(Processor::Default, false);
    }
    wait_for("late records", || {
        let default = live.recorded(Processor::Default);
        in_doubt.iter().all(|id| default.contains_key(id)).then_some(())
    });
    live.delay(Processor::Default, Duration::ZERO);
    assert_settled(&live, count, &in_doubt);
}

/// The default processor fails before it records, and goes on to fail: what was sent to it waits for
/// it, and what was not is settled by the other one.
fn failed_late(kills: bool) {
    let live = hasty();
    let in_doubt = leave_in_doubt(&live);
    live.fail(Processor::Default, true);
    if kills {
        kill_both_apis(&live, || ());
    }
    // Failures that take no time are answered: each of these calls is known to have left nothing
    // behind, and the one before it still is not.
    live.delay(Processor::Default, Duration::ZERO);
    // Until the slow calls have failed as well.
    let mut count = settle_by_fallback(&live, COUNT, DELAY + DELAY / 4);
    if kills {
        // What an API has written about calls that failed must not free those in doubt.
        kill_both_apis(&live, || ());
        count = settle_by_fallback(&live, count, DELAY / 4);
    }
    let fallback = live.recorded(Processor::Fallback);
    assert!(in_doubt.iter().all(|id| !fallback.contains_key(id)), "{in_doubt:?} {fallback:?}");
    live.fail(Processor::Default, false);
    assert_settled(&live, count, &in_doubt);
}

#[test]
fn a_late_record_never_leads_to_the_other_processor() {
    recorded_late(false);
}

#[test]
fn a_late_record_never_leads_to_the_other_processor_though_the_apis_die() {
    recorded_late(true);
}

#[test]
fn a_late_failure_never_leads_to_the_other_processor() {
    failed_late(false);
}

#[test]
fn a_late_failure_never_leads_to_the_other_processor_though_the_apis_die() {
    failed_late(true);
}
