//! What callers of HTTP may do: keep a connection, send in pieces, send ahead; and what they get
//! where they go beyond what the server can do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use support::{Processor, get, id, look_up, pay, post, put};

#[test]
fn a_connection_serves_every_kind_of_answer_one_after_the_other() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    for _ in 0..3 {
        for (request, status) in [
            (put("/admin/configurations/token", r#"{"token":"123"}"#), 204),
            (put("/admin/configurations/failure", r#"{"failure":true}"#), 200),
            (pay(1), 500),
            (put("/admin/configurations/failure", r#"{"failure":false}"#), 200),
            (pay(1), 200),
            (pay(1), 422),
            (look_up(1), 200),
            (look_up(2), 404),
            (post("/payments", "{"), 400),
            (get("/nowhere"), 404),
            (post("/admin/payments-summary", "{}"), 405),
            (get("/admin/payments-summary"), 200),
            (post("/admin/purge-payments", "{}"), 200),
        ] {
            assert_eq!(connection.ask(&request).status, status, "{request}");
        }
    }
}

#[test]
fn an_answer_without_content_says_so() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    let answer = connection.ask(put("/admin/configurations/token", r#"{"token":"123"}"#));
    assert_eq!(answer.header("Content-Length"), Some("0"));
    assert_eq!(answer.header("Content-Type"), None);
    assert!(connection.is_silent());
}

#[test]
fn a_refused_head_has_no_body() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    for (target, status) in [("/payments", 405), ("/nowhere", 404)] {
        let answer = connection.ask(get(target).replace("GET", "HEAD"));
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("Content-Length"), Some("0"));
    }
    assert_eq!(connection.ask(pay(1)).status, 200);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    let mut requests = String::new();
    for number in 0..100 {
        requests += &pay(number);
        requests += &look_up(number);
        requests += &pay(number);
    }
    connection.send(requests);
    for number in 0..100 {
        assert_eq!(connection.receive().status, 200);
        assert!(connection.receive().body.contains(&id(number)));
        assert_eq!(connection.receive().status, 422);
    }
    assert!(connection.is_silent());
}

#[test]
fn pipelined_requests_sleep_one_after_the_other() {
    let processor = Processor::start(&[]);
    processor.set("delay", r#"{"delay":50}"#);
    let clock = ledger::clock::Monotonic::start();
    let mut connection = processor.connect();
    connection.send((0..4).map(pay).collect::<String>());
    for _ in 0..4 {
        assert_eq!(connection.receive().status, 200);
    }
    assert!(clock.elapsed_ms() >= 200);
}

#[test]
fn a_request_may_come_in_any_pieces() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    for (number, piece_bytes) in (0..).zip([1, 7, 64, 200]) {
        for piece in pay(number).as_bytes().chunks(piece_bytes) {
            connection.send(piece);
        }
        assert_eq!(connection.receive().status, 200, "{piece_bytes}");
    }
    let (head, body) = {
        let request = pay(9);
        let head_bytes = request.find("\r\n\r\n").unwrap() + 4;
        (request[..head_bytes].to_owned(), request[head_bytes..].to_owned())
    };
    connection.send(head);
    // The head alone is read by now, or soon: the body is a piece of its own in either case.
    assert_eq!(processor.ask(look_up(9)).status, 404);
    connection.send(body);
    assert_eq!(connection.receive().status, 200);
}

#[test]
fn a_body_over_the_limit_is_refused_and_the_connection_stays_usable() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    let padded = |bytes: usize| {
        let body = format!(
            r#"{{"correlationId":"{}","amount":1,"requestedAt":"2025-07-15T12:00:00Z"}}"#,
            id(1)
        );
        post("/payments", &(" ".repeat(bytes - body.len()) + &body))
    };
    let answer = connection.ask(padded(16 * 1024 + 1));
    assert_eq!(answer.status, 413);
    assert!(answer.message().contains("16384 bytes"));
    assert_eq!(connection.ask(padded(16 * 1024)).status, 200);
    assert_eq!(connection.ask(padded(1_000_000)).status, 413);
    assert_eq!(connection.ask(look_up(1)).status, 200);
}

#[test]
fn a_length_that_is_no_number_is_refused() {
    let processor = Processor::start(&[]);
    for length in ["-1", "x", "1.5", "99999999999999999999999"] {
        let request = format!("POST /payments HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(processor.ask(request).status, 400, "{length}");
    }
}

#[test]
fn a_chunked_body_is_refused() {
    let processor = Processor::start(&[]);
    let request = "POST /payments HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut connection = processor.connect();
    assert_eq!(connection.ask(request).status, 411);
    // The body cannot be skipped, so it ends the connection.
    connection.send("0\r\n\r\n");
    assert!(connection.is_closed());
}

#[test]
fn what_is_no_http_or_has_too_many_headers_closes_its_connection_alone() {
    let processor = Processor::start(&[]);
    let mut good = processor.connect();
    assert_eq!(good.ask(pay(1)).status, 200);
    let headers = |count| "A: b\r\n".repeat(count);
    let with_headers = |count| format!("GET / HTTP/1.1\r\n{}\r\n", headers(count));
    for bad in ["nonsense\r\n\r\n", &with_headers(17)] {
        let mut connection = processor.connect();
        connection.send(bad);
        assert!(connection.is_closed());
    }
    assert_eq!(good.ask(with_headers(16)).status, 404);
    assert_eq!(good.ask(look_up(1)).status, 200);
}

#[test]
fn a_caller_that_leaves_within_a_body_leaves_no_trace() {
    let processor = Processor::start(&["--running-max", "1", "--waiting-max", "0"]);
    let request = pay(1);
    for bytes in [1, 20, request.len() - 1] {
        let mut connection = processor.connect();
        connection.send(&request[..bytes]);
        drop(connection);
    }
    // What was cut short takes no turn for longer than an instant, and nobody's place.
    processor.ask_until(&pay(2), 200);
    assert!(processor.summary("").starts_with(r#"{"totalRequests":1,"#));
    assert_eq!(processor.ask(look_up(1)).status, 404);
}
