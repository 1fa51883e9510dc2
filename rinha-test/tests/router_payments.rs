//! Payments through the running router: taken in, settled once by the right processor, and summed.

#![allow(clippy::unwrap_used)]

mod live;
mod support;

use std::sync::Barrier;

use ledger::{Cents, Processor, RangeMs, TimestampMs, Totals};
use live::connection::post;
use live::{CENTS, Live, id, ids, payment};

/// Longer than any test waits: whatever is held, is held for the processor that it should have.
const PATIENT: &str = "--patience-ms=600000";

#[test]
fn a_payment_is_taken_in_settled_and_summed_by_the_moment_of_its_dispatch() {
    let live = Live::start();
    for connection in &mut live.connect_to_both() {
        let [default, fallback] = live.summary();
        assert_eq!((default, fallback), (Totals::default(), Totals::default()));
        let answer = connection.get("/payments-summary");
        let none = r#"{"totalRequests":0,"totalAmount":0.00}"#;
        assert_eq!(answer.body, format!(r#"{{"default":{none},"fallback":{none}}}"#));
    }

    let mut connection = live.connect();
    let answer = connection.post("/payments", &payment(0));
    assert_eq!((answer.status, answer.body.as_str()), (202, ""));
    live.wait_settled(1);
    let recorded = live.recorded(Processor::Default)[&id(0)];
    assert_eq!(recorded.amount, Cents::new(CENTS));

    let at = recorded.requested_at;
    let answer = connection.get(&format!("/payments/{}", id(0)));
    let expected = format!(
        r#"{{"correlationId":"{}","amount":19.90,"status":"settled","processor":"default","requestedAt":"{at}"}}"#,
        id(0)
    );
    assert_eq!((answer.status, answer.body), (200, expected));

    let later = |ms| TimestampMs::clamped(at.get() + ms);
    for (query, count) in [
        (String::new(), 1),
        (format!("?from={at}"), 1),
        (format!("?to={at}"), 1),
        (format!("?from={at}&to={at}"), 1),
        (format!("?from={}", later(1)), 0),
        (format!("?to={}", later(-1)), 0),
        (format!("?from={}&to={}", later(1), later(-1)), 0),
        (format!("?from={}&to={}", later(-1), later(1)), 1),
        ("?from=0000-01-01T00:00:00Z&to=9999-01-01T00:00:00%2B02:00".to_owned(), 1),
    ] {
        for mut connection in live.connect_to_both() {
            let answer = connection.get(&format!("/payments-summary{query}"));
            let default = format!(r#"{{"default":{{"totalRequests":{count},"#);
            assert!(answer.body.starts_with(&default), "{query}: {answer:?}");
        }
    }
}

#[test]
fn ranges_sum_what_the_processors_sum() {
    let live = Live::start();
    let [mut first, mut second] = live.connect_to_both();
    for number in 0..300 {
        let connection = if number % 2 == 0 { &mut first } else { &mut second };
        assert_eq!(connection.post("/payments", &payment(number)).status, 202);
    }
    live.wait_settled(300);
    let times: Vec<_> =
        live.recorded(Processor::Default).values().map(|recorded| recorded.requested_at).collect();
    let (router, admin) = (live.router(), live.admin(Processor::Default));
    for from in times.iter().step_by(29) {
        for to in times.iter().step_by(31) {
            let range = RangeMs { from: *from, to: *to };
            assert_eq!(router.summary(range).unwrap()[0], admin.summary(range).unwrap());
        }
    }
    assert_eq!(live.agreed_books(), ids(300));
}

#[test]
fn the_same_payment_through_both_apis_at_the_same_moment_is_paid_once() {
    const COUNT: u32 = 10_000;
    /// One at a time, so that both are on their way at once, and then many in one piece.
    const ONE_BY_ONE_COUNT: u32 = 1_000;
    const PIECE: usize = 60;
    let live = Live::start();
    let connections = live.connect_to_both();
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        for mut connection in connections {
            let start = &start;
            scope.spawn(move || {
                for number in 0..ONE_BY_ONE_COUNT {
                    start.wait();
                    assert_eq!(connection.post("/payments", &payment(number)).status, 202);
                }
                let rest: Vec<_> = (ONE_BY_ONE_COUNT..COUNT).collect();
                for numbers in rest.chunks(PIECE) {
                    let requests: String =
                        numbers.iter().map(|n| post("/payments", &payment(*n))).collect();
                    start.wait();
                    connection.send(requests);
                    for _ in numbers {
                        assert_eq!(connection.answer().status, 202);
                    }
                }
            });
        }
    });
    live.wait_settled(u64::from(COUNT));
    assert_eq!(live.agreed_books(), ids(COUNT));
    let recorded = live.recorded(Processor::Default);
    let again: Vec<_> = recorded.values().filter(|recorded| recorded.attempts > 1).collect();
    assert!(again.is_empty(), "sent more than once: {again:?}");
}

#[test]
fn an_id_keeps_its_first_amount() {
    let live = Live::start();
    let mut connection = live.connect();
    assert_eq!(connection.post("/payments", &payment(0)).status, 202);
    assert_eq!(connection.post("/payments", &payment(0)).status, 202);
    let other = payment(0).replace("19.90", "20.00");
    let answer = connection.post("/payments", &other);
    assert_eq!(answer.status, 409);
    assert!(answer.error().contains("the amount 19.90 was accepted before"), "{answer:?}");
    live.wait_settled(1);
    // Also once it is settled.
    assert_eq!(connection.post("/payments", &other).status, 409);
    assert_eq!(live.recorded(Processor::Default)[&id(0)].amount, Cents::new(CENTS));
    assert_eq!(live.agreed_books(), [id(0)]);
}

#[test]
fn payments_that_no_processor_takes_are_held_for_the_first_that_is_back() {
    let live = Live::with_api(&[PATIENT]);
    for processor in Processor::ALL {
        live.fail(processor, true);
    }
    for mut connection in live.connect_to_both() {
        for number in 0..20 {
            assert_eq!(connection.post("/payments", &payment(number)).status, 202);
        }
    }
    assert_eq!(live.settled_count(), 0);
    live.fail(Processor::Default, false);
    live.wait_settled(20);
    assert_eq!(live.agreed_books(), ids(20));
    assert_eq!(live.summary()[Processor::Fallback.index()], Totals::default());
}

#[test]
fn payments_that_waited_long_enough_go_to_the_dearer_processor() {
    let live = Live::with_api(&["--patience-ms=100"]);
    live.fail(Processor::Default, true);
    for mut connection in live.connect_to_both() {
        for number in 0..20 {
            assert_eq!(connection.post("/payments", &payment(number)).status, 202);
        }
    }
    live.wait_settled(20);
    assert_eq!(live.agreed_books(), ids(20));
    assert_eq!(live.summary()[Processor::Fallback.index()].count, 20);
    let look = live.get(&format!("/payments/{}", id(3)));
    assert!(look.body.contains(r#""status":"settled","processor":"fallback""#), "{look:?}");
}

#[test]
fn more_payments_than_may_wait_are_refused_and_those_that_wait_are_settled() {
    let live = Live::with_api(&["--backlog-max=5", PATIENT]);
    for processor in Processor::ALL {
        live.fail(processor, true);
    }
    let mut accepted = Vec::new();
    let mut number = 0;
    for mut connection in live.connect_to_both() {
        for _ in 0..5 {
            assert_eq!(connection.post("/payments", &payment(number)).status, 202);
            accepted.push(id(number));
            number += 1;
        }
        let answer = connection.post("/payments", &payment(number));
        assert_eq!(answer.status, 503);
        assert_eq!(answer.error(), "too many payments are waiting to be settled");
        assert_eq!(answer.header("retry-after"), Some("1"));
        let health = connection.get("/health");
        assert_eq!(health.status, 503);
        assert!(health.body.contains("too many payments are waiting"), "{health:?}");
        number += 1;
    }
    for processor in Processor::ALL {
        live.fail(processor, false);
    }
    live.wait_settled(10);
    assert_eq!(live.agreed_books(), accepted);
    // There is room again.
    assert_eq!(live.get("/health").status, 200);
    assert_eq!(live.connect().post("/payments", &payment(number)).status, 202);
    live.wait_settled(11);
}

#[test]
fn a_purge_empties_everything_and_life_goes_on() {
    let live = Live::with_api(&["--allow-purge"]);
    for number in 0..10 {
        assert_eq!(live.connect().post("/payments", &payment(number)).status, 202);
    }
    live.wait_settled(10);
    let answer = live.connect().post("/purge-payments", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    for mut connection in live.connect_to_both() {
        let answer = connection.get("/payments-summary");
        assert!(answer.body.starts_with(r#"{"default":{"totalRequests":0,"#), "{answer:?}");
        let answer = connection.get(&format!("/payments/{}", id(0)));
        assert_eq!(answer.status, 404);
    }
    for processor in Processor::ALL {
        live.admin(processor).purge().unwrap();
    }
    // The same ids are new ones now, also with another amount.
    for number in 0..12 {
        let other = payment(number).replace("19.90", "0.01");
        assert_eq!(live.connect().post("/payments", &other).status, 202);
    }
    live.wait_settled(12);
    assert_eq!(live.agreed_books(), ids(12));
    assert_eq!(live.summary()[0].amount, Cents::new(12));
}

#[test]
fn a_purge_needs_to_be_allowed() {
    let live = Live::start();
    assert_eq!(live.connect().post("/payments", &payment(0)).status, 202);
    live.wait_settled(1);
    let answer = live.connect().post("/purge-payments", "");
    assert_eq!(answer.status, 403);
    assert!(answer.error().contains("--allow-purge"), "{answer:?}");
    assert_eq!(live.settled_count(), 1);
}
