//! `POST /payments` and `GET /payments/{id}`: every answer, and the order of the steps behind it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use ledger::clock::Monotonic;
use support::{Processor, get, id, look_up, pay, pay_at, post, with_body};

const PROCESSED: &str = "payment processed successfully";

#[test]
fn a_payment_is_processed_and_found_as_it_was_sent() {
    let processor = Processor::start(&[]);
    assert_eq!(processor.ask(look_up(1)).status, 404);
    let answer = processor.ask(pay_at(1, "19.9", "2025-07-15T09:34:56.789-03:00"));
    assert_eq!((answer.status, answer.message()), (200, PROCESSED));
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let found = processor.ask(look_up(1));
    assert_eq!(found.status, 200);
    assert_eq!(
        found.body,
        format!(
            r#"{{"correlationId":"{}","amount":19.90,"requestedAt":"2025-07-15T12:34:56.789Z"}}"#,
            id(1)
        )
    );
}

#[test]
fn a_known_id_is_refused_and_nothing_of_it_changes() {
    let processor = Processor::start(&[]);
    processor.ask(pay_at(1, "19.90", "2025-07-15T12:00:00.000Z"));
    let first = processor.ask(look_up(1)).body;
    let answer = processor.ask(pay_at(1, "5.00", "2025-07-15T13:00:00.000Z"));
    assert_eq!(answer.status, 422);
    assert!(answer.message().contains("already recorded"));
    assert_eq!(processor.ask(look_up(1)).body, first);
    assert!(processor.summary("").contains(r#""totalAmount":19.90,"#));
}

#[test]
fn an_amount_is_recorded_with_two_places_half_to_even() {
    let processor = Processor::start(&[]);
    for (number, sent, recorded) in [
        (1, "0.125", "0.12"),
        (2, "0.135", "0.14"),
        (3, "0.1250001", "0.13"),
        (4, "10", "10.00"),
        (5, "1.99e1", "19.90"),
    ] {
        let sent = pay_at(number, sent, "2025-07-15T12:00:00.000Z");
        assert_eq!(processor.ask(sent).status, 200);
        let found = processor.ask(look_up(number)).body;
        assert!(found.contains(&format!(r#""amount":{recorded},"#)), "{found}");
    }
    let summary = processor.summary("");
    assert!(summary.contains(r#""totalAmount":30.29,"#), "{summary}");
}

#[test]
fn a_bad_payload_is_refused_with_what_is_wrong_and_not_recorded() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    for (body, reason) in [
        (String::new(), "it is empty"),
        ("{\"correlationId\":".to_owned(), "not what is expected here"),
        (
            format!(r#"{{"correlationId":"{}","requestedAt":"2025-07-15T12:00:00Z"}}"#, id(1)),
            "missing field `amount`",
        ),
        (
            format!(r#"{{"correlationId":"{}","amount":1,"requestedAt":"noon"}}"#, id(1)),
            r#"requestedAt: \"noon\" is not an ISO-8601 moment"#,
        ),
        (
            format!(
                r#"{{"correlationId":"{}","amount":"1","requestedAt":"2025-07-15T12:00:00Z"}}"#,
                id(1)
            ),
            "amount must be a decimal number",
        ),
        (
            r#"{"correlationId":"1","amount":1,"requestedAt":"2025-07-15T12:00:00Z"}"#.to_owned(),
            "correlationId must be a UUID",
        ),
    ] {
        let answer = connection.ask(post("/payments", &body));
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.message().contains(reason), "{body}: {answer:?}");
    }
    assert!(processor.summary("").contains(r#""totalRequests":0,"#));
    assert_eq!(connection.ask(pay(1)).status, 200);
}

#[test]
fn nested_json_is_skipped_up_to_a_limit_and_never_exhausts_the_stack() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    for (first_number, open, close) in [(0, "[", "]"), (10, "{\"a\":", "}")] {
        // The payload itself opens one brace.
        for (number, depth, status) in [(1, 63, 200), (2, 64, 400), (3, 1_000, 400)] {
            let number = first_number + number;
            let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let body = format!(
                r#"{{"more":{nested},"correlationId":"{}","amount":1,"requestedAt":"2025-07-15T12:00:00Z"}}"#,
                id(number)
            );
            let answer = connection.ask(post("/payments", &body));
            assert_eq!(answer.status, status, "{depth}: {answer:?}");
            let as_amount = body.replace(r#""amount":1,"#, &format!(r#""amount":{nested},"#));
            assert_eq!(connection.ask(post("/payments", &as_amount)).status, 400);
            assert_eq!(connection.ask(post("/payments", &nested)).status, 400);
        }
    }
}

#[test]
fn a_failing_processor_answers_500_without_a_body_and_records_nothing() {
    let processor = Processor::start(&[]);
    processor.set("failure", r#"{"failure":true}"#);
    let answer = processor.ask(pay(1));
    assert_eq!((answer.status, &*answer.body), (500, ""));
    assert_eq!(processor.ask(look_up(1)).status, 404);
    processor.set("failure", r#"{"failure":false}"#);
    assert_eq!(processor.ask(pay(1)).status, 200);
}

#[test]
fn a_failing_processor_does_not_tell_that_an_id_is_known() {
    let processor = Processor::start(&[]);
    processor.ask(pay(1));
    processor.set("failure", r#"{"failure":true}"#);
    assert_eq!(processor.ask(pay(1)).status, 500);
    let page = processor.ask(get("/admin/payments")).body;
    assert!(page.contains(r#""attempts":1}"#), "{page}");
}

#[test]
fn the_delay_is_slept_before_an_answer() {
    let processor = Processor::start(&[]);
    processor.set("delay", r#"{"delay":150}"#);
    let mut connection = processor.connect();
    for (number, status) in [(1, 200), (1, 422)] {
        let clock = Monotonic::start();
        assert_eq!(connection.ask(pay(number)).status, status);
        assert!(clock.elapsed() >= Duration::from_millis(150));
    }
    processor.set("failure", r#"{"failure":true}"#);
    let clock = Monotonic::start();
    assert_eq!(connection.ask(pay(2)).status, 500);
    assert!(clock.elapsed() >= Duration::from_millis(150));
}

/// Runs a payment through a change of the failure flag while its delay is slept.
fn status_after_flag_changed_during_delay(number: u32, before: bool, after: bool) -> u16 {
    let processor = Processor::start(&["--running-max", "1", "--waiting-max", "0"]);
    processor.set("delay", r#"{"delay":400}"#);
    processor.set("failure", &format!(r#"{{"failure":{before}}}"#));
    let mut connection = processor.connect();
    connection.send(pay(number));
    processor.wait_until_full();
    processor.set("failure", &format!(r#"{{"failure":{after}}}"#));
    let status = connection.receive().status;
    let is_recorded = processor.ask(look_up(number)).status == 200;
    assert_eq!(is_recorded, status == 200);
    status
}

#[test]
fn the_failure_flag_is_looked_at_after_the_delay() {
    assert_eq!(status_after_flag_changed_during_delay(1, false, true), 500);
    assert_eq!(status_after_flag_changed_during_delay(2, true, false), 200);
}

#[test]
fn the_books_are_looked_at_after_the_delay() {
    let processor = Processor::start(&["--running-max", "1", "--waiting-max", "0"]);
    processor.set("delay", r#"{"delay":400}"#);
    let mut connection = processor.connect();
    connection.send(pay(1));
    processor.wait_until_full();
    processor.set("delay", r#"{"delay":0}"#);
    // It sleeps, so it is neither recorded nor known yet.
    assert_eq!(processor.ask(look_up(1)).status, 404);
    assert_eq!(connection.receive().status, 200);
    assert_eq!(processor.ask(look_up(1)).status, 200);
}

#[test]
fn a_payment_whose_caller_hung_up_is_recorded_all_the_same() {
    let processor = Processor::start(&["--running-max", "1", "--waiting-max", "0"]);
    processor.set("delay", r#"{"delay":400}"#);
    let mut connection = processor.connect();
    connection.send(pay(1));
    processor.wait_until_full();
    assert!(connection.is_silent());
    drop(connection);
    processor.ask_until(&look_up(1), 200);
    let page = processor.ask(get("/admin/payments")).body;
    assert!(page.contains(r#""attempts":1}"#), "{page}");
}

#[test]
fn a_payment_whose_caller_hung_up_while_it_waited_for_its_turn_is_recorded_too() {
    let processor = Processor::start(&["--running-max", "1", "--waiting-max", "1"]);
    processor.set("delay", r#"{"delay":300}"#);
    let mut callers = [processor.connect(), processor.connect()];
    callers[0].send(pay(1));
    callers[1].send(pay(2));
    processor.wait_until_full();
    drop(callers);
    processor.ask_until(&look_up(1), 200);
    processor.ask_until(&look_up(2), 200);
}

#[test]
fn an_id_that_is_none_is_not_found() {
    let processor = Processor::start(&[]);
    assert_eq!(processor.ask(get("/payments/1")).status, 404);
    assert_eq!(processor.ask(get("/payments/")).status, 404);
}

#[test]
fn an_unknown_path_is_404_and_a_wrong_method_405_with_the_right_one() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    for target in ["/", "/payment", "/payments/a/b", "/admin/nothing"] {
        assert_eq!(connection.ask(get(target)).status, 404, "{target}");
        // A body that nobody wants is not taken for the next request.
        let answer = connection.ask(post(target, "GET / HTTP/1.1\r\n\r\n"));
        assert_eq!(answer.status, 404, "{target}");
    }
    let by_id = format!("/payments/{}", id(1));
    for (target, allow) in [
        ("/payments", "POST"),
        ("/payments/service-health", "GET"),
        (&by_id, "GET"),
        ("/admin/payments-summary", "GET"),
        ("/admin/payments", "GET"),
        ("/admin/configurations/token", "PUT"),
        ("/admin/configurations/delay", "PUT"),
        ("/admin/configurations/failure", "PUT"),
        ("/admin/purge-payments", "POST"),
    ] {
        let answer = connection.ask(with_body("DELETE", target, "{}"));
        assert_eq!(answer.status, 405, "{target}");
        assert_eq!(answer.header("Allow"), Some(allow), "{target}");
    }
}
