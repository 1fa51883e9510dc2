//! What clients may send to the running router, and what it answers.

#![allow(clippy::unwrap_used)]

mod live;
mod support;

use std::collections::BTreeSet;
use std::fmt::Write;

use ledger::Processor;
use live::connection::{Answer, post};
use live::{Live, id, ids, payment};
use support::wait_for;

/// A request that is answered with an error, after which the connection goes on.
const BAD_REQUESTS: &[(&str, &str, u16, &str)] = &[
    ("GET", "/", 404, "there is nothing at this path"),
    ("GET", "/admin/payments-summary", 404, "there is nothing at this path"),
    ("PUT", "/admin/configurations/delay", 404, "there is nothing at this path"),
    ("GET", "/payments", 405, "this path takes POST only"),
    ("DELETE", "/payments-summary", 405, "this path takes GET only"),
    ("GET", "/payments/nobody", 400, "correlationId must be a UUID"),
    (
        "GET",
        "/payments/ffffffff-ffff-ffff-ffff-ffffffffffff",
        404,
        "no payment with this correlationId was accepted",
    ),
    ("GET", "/payments-summary?from=yesterday", 400, "from: \"yesterday\" is not"),
    (
        "GET",
        "/payments-summary?to=2025-13-01T00:00:00Z",
        400,
        "to: \"2025-13-01T00:00:00Z\" is not",
    ),
];

/// A body that is refused with 400.
const BAD_BODIES: &[(&str, &str)] = &[
    ("", "the body is empty"),
    ("{", "the body is not a payment in JSON"),
    ("[]", "the body is not a payment in JSON"),
    (r#"{"amount":19.90}"#, "correlationId is missing"),
    (r#"{"correlationId":"7","amount":19.90}"#, "correlationId must be a UUID"),
    (r#"{"correlationId":"40404040-4040-4040-4040-404000000000"}"#, "amount is missing"),
    (
        r#"{"correlationId":"40404040-4040-4040-4040-404000000000","amount":"19.90"}"#,
        "amount must be a decimal number",
    ),
    (
        r#"{"correlationId":"40404040-4040-4040-4040-404000000000","amount":0}"#,
        "amount must be greater than 0",
    ),
    (
        r#"{"correlationId":"40404040-4040-4040-4040-404000000000","amount":-19.90}"#,
        "amount must be greater than 0",
    ),
    (
        r#"{"correlationId":"40404040-4040-4040-4040-404000000000","amount":0.001}"#,
        "amount must have at most two decimal places",
    ),
    (
        r#"{"correlationId":"40404040-4040-4040-4040-404000000000","amount":1e9}"#,
        "amount must be at most",
    ),
];

/// A request after which the connection cannot go on.
const BROKEN_REQUESTS: &[(&str, u16)] = &[
    ("NONSENSE\r\n\r\n", 400),
    ("POST /payments HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n", 400),
    ("POST /payments HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n12", 400),
    ("POST /payments HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 400),
    ("POST /payments HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
];

#[test]
fn bad_input_is_told_what_is_wrong_and_nothing_is_recorded() {
    let live = Live::start();
    let mut connection = live.connect();
    for (method, path, status, sentence) in BAD_REQUESTS {
        let answer = connection.ask(format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
        assert_eq!(answer.status, *status, "{method} {path}");
        assert!(answer.error().starts_with(sentence), "{method} {path}: {answer:?}");
        assert_eq!(answer.header("allow").is_some(), *status == 405);
    }
    for (body, sentence) in BAD_BODIES {
        let answer = connection.post("/payments", body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.error().starts_with(sentence), "{body}: {answer:?}");
    }
    let unframed = connection.ask("POST /payments HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(unframed.status, 411);
    let text = post("/payments", &payment(0)).replace("application/json", "text/plain");
    assert_eq!(connection.ask(text).status, 415);

    for (request, status) in BROKEN_REQUESTS {
        let mut connection = live.connect();
        let answer = connection.ask(request);
        assert_eq!(answer.status, *status, "{request}");
        // All but the last are refused by the HTTP parser, which has no words for it.
        let has_sentence = request.ends_with("zz\r\n");
        assert_eq!(!answer.body.is_empty(), has_sentence, "{request}: {answer:?}");
        assert!(connection.is_at_end(), "{request}");
    }

    assert_eq!(connection.post("/payments", &payment(1)).status, 202);
    live.wait_settled(1);
    assert_eq!(live.agreed_books(), [id(1)]);
}

#[test]
fn a_connection_is_kept_until_its_client_wants_it_closed() {
    let live = Live::start();
    let mut connection = live.connect();
    for number in 0..50 {
        let answer = connection.post("/payments", &payment(number));
        assert_eq!((answer.status, answer.body.as_str()), (202, ""));
    }
    let close = post("/payments", &payment(50)).replacen("\r\n", "\r\nConnection: close\r\n", 1);
    assert_eq!(connection.ask(close).status, 202);
    assert!(connection.is_at_end());

    let mut old = live.connect();
    let request = post("/payments", &payment(51)).replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(old.ask(request).status, 202);
    assert!(old.is_at_end());

    live.wait_settled(52);
    assert_eq!(live.agreed_books(), ids(52));
}

#[test]
fn requests_in_one_piece_are_answered_in_their_order() {
    let live = Live::start();
    let mut all = String::new();
    for number in 0..100 {
        all += &post("/payments", &payment(number));
        all += &post("/payments", "{}");
        write!(all, "GET /payments/{number} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    }
    let mut connection = live.connect();
    connection.send(all);
    for number in 0..100 {
        assert_eq!(connection.answer().status, 202, "{number}");
        assert_eq!(connection.answer().error(), "correlationId is missing", "{number}");
        let answer = connection.answer();
        assert!(answer.error().starts_with("correlationId must be a UUID"), "{answer:?}");
    }
    live.wait_settled(100);
    assert_eq!(live.agreed_books(), ids(100));
}

#[test]
fn payments_in_one_piece_are_answered_in_their_order() {
    let live = Live::start();
    // More than is read at a time, with lines between them that mean nothing.
    let requests = (0..200).map(|number| {
        let body = if number % 10 == 9 { "{}".to_owned() } else { payment(number) };
        post("/payments", &body) + "\r\n"
    });
    let mut connection = live.connect();
    connection.send(requests.collect::<String>());
    let expected = |number| if number % 10 == 9 { 400 } else { 202 };
    for number in 0..200 {
        assert_eq!(connection.answer().status, expected(number), "{number}");
    }
    live.wait_settled(180);
    let accepted: Vec<_> = (0..200).filter(|number| expected(*number) == 202).map(id).collect();
    assert_eq!(live.agreed_books(), accepted);
}

/// The head of an answer, in which the order of fields means nothing and the date goes on.
fn fields(answer: &Answer) -> BTreeSet<&str> {
    answer.head.lines().map(|line| if line.starts_with("date: ") { "date" } else { line }).collect()
}

#[test]
fn payments_are_answered_alike_on_either_way_through_the_code() {
    let live = Live::start();
    // Anything but a payment puts a connection on the way that serves all of HTTP.
    let mut general = live.connect();
    assert_eq!(general.get("/health").status, 200);
    let mut plain = live.connect();
    let other_amount = payment(0).replace("19.90", "20.90");
    let bodies = [payment(0), payment(0), other_amount, payment(1)];
    let bad_bodies = BAD_BODIES.iter().map(|(body, _)| (*body).to_owned());
    for body in bodies.into_iter().chain(bad_bodies) {
        let (plain, general) = (plain.post("/payments", &body), general.post("/payments", &body));
        assert_eq!((plain.status, &plain.body), (general.status, &general.body), "{body}");
        assert_eq!(fields(&plain), fields(&general), "{body}");
    }
    live.wait_settled(2);
    assert_eq!(live.agreed_books(), ids(2));
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let live = Live::start();
    let mut connection = live.connect();
    for number in 0..3 {
        for byte in post("/payments", &payment(number)).bytes() {
            connection.send([byte]);
        }
        assert_eq!(connection.answer().status, 202);
    }
    live.wait_settled(3);
    assert_eq!(live.agreed_books(), ids(3));
}

/// A payment in chunks of this many bytes.
fn chunked(body: &str, chunk: usize) -> String {
    let mut request = "POST /payments HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
        transfer-encoding: chunked\r\n\r\n"
        .to_owned();
    for piece in body.as_bytes().chunks(chunk) {
        let text = std::str::from_utf8(piece).unwrap();
        write!(request, "{:x}\r\n{text}\r\n", text.len()).unwrap();
    }
    request + "0\r\n\r\n"
}

#[test]
fn a_body_may_come_in_chunks() {
    let live = Live::start();
    let mut connection = live.connect();
    for (number, chunk) in [(0, 1), (1, 7), (2, 1000)] {
        assert_eq!(connection.ask(chunked(&payment(number), chunk)).status, 202);
    }
    live.wait_settled(3);
    assert_eq!(live.agreed_books(), ids(3));
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let live = Live::start();

    // Only the head is sent: the answer does not wait for the body.
    let mut connection = live.connect();
    let told = connection.ask("POST /payments HTTP/1.1\r\nhost: x\r\ncontent-length: 4097\r\n\r\n");
    assert_eq!(told.status, 413);
    assert_eq!(told.error(), "the body is longer than 4096 bytes");
    assert_eq!(told.header("connection"), Some("close"));

    let spaces = " ".repeat(128 << 10);
    for request in [post("/payments", &spaces), chunked(&spaces, 1000)] {
        let mut connection = live.connect();
        // All of it is sent before the answer is read; that it comes through all the same is what
        // closing gently is for.
        connection.send(request);
        assert_eq!(connection.answer().status, 413);
    }

    let header =
        |bytes| format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(bytes));
    let mut connection = live.connect();
    assert_eq!(connection.ask(header(12 << 10)).status, 200);
    let answer = connection.ask(header(64 << 10));
    assert_eq!((answer.status, answer.body.as_str()), (431, ""));

    // A body of just the limit is fine, however it comes, and a byte more is not.
    let padded =
        |number, bytes| format!("{}{}", payment(number), " ".repeat(bytes - payment(number).len()));
    let mut connection = live.connect();
    assert_eq!(connection.post("/payments", &padded(0, 4096)).status, 202);
    assert_eq!(connection.ask(chunked(&padded(1, 4096), 1000)).status, 202);
    for request in [post("/payments", &padded(2, 4097)), chunked(&padded(3, 4097), 1000)] {
        assert_eq!(live.connect().ask(request).status, 413);
    }
    live.wait_settled(2);
    assert_eq!(live.agreed_books(), ids(2));
}

#[test]
fn a_client_may_ask_whether_to_go_on() {
    let live = Live::start();
    let mut connection = live.connect();
    let request =
        post("/payments", &payment(0)).replacen("\r\n", "\r\nexpect: 100-continue\r\n", 1);
    let (head, body) = request.split_at(request.find("\r\n\r\n").unwrap() + 4);
    assert_eq!(connection.ask(head).status, 100);
    assert_eq!(connection.ask(body).status, 202);

    let large = "POST /payments HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
        content-length: 1000000\r\n\r\n";
    assert_eq!(connection.ask(large).status, 413);
    live.wait_settled(1);
}

#[test]
fn slow_clients_are_ended_and_others_are_not() {
    let live = Live::with_api(&["--request-timeout-ms=1000", "--idle-timeout-ms=3000"]);
    let half = &post("/payments", &payment(0))[..150];
    let mut head_only = live.connect();
    head_only.send(&half[..20]);
    let mut half_a_body = live.connect();
    half_a_body.send(half);
    let mut idle = live.connect();
    let (mut served_idle, mut served_head_only) = (live.connect(), live.connect());
    for served in [&mut served_idle, &mut served_head_only] {
        assert_eq!(served.post("/payments", &payment(0)).status, 202);
    }
    served_head_only.send(&half[..20]);
    for slow in [&mut head_only, &mut half_a_body, &mut served_head_only] {
        let answer = slow.answer();
        assert_eq!(answer.status, 408);
        assert_eq!(answer.error(), "the request took too long to arrive");
        assert!(slow.is_at_end());
    }
    // A connection that asks for nothing is closed without a word.
    assert!(idle.is_at_end());
    assert!(served_idle.is_at_end());
    assert_eq!(live.connect().post("/payments", &payment(1)).status, 202);
    live.wait_settled(2);
    assert_eq!(live.agreed_books(), ids(2));
}

#[test]
fn a_client_that_leaves_early_harms_nobody() {
    let live = Live::start();
    for number in 0..20 {
        let mut connection = live.connect();
        connection.send(&post("/payments", &payment(number))[..150]);
        drop(connection);
        let mut connection = live.connect();
        connection.send(post("/payments", &payment(number)));
        // Its answer finds nobody, and the payment is made all the same.
        drop(connection);
    }
    live.wait_settled(20);
    assert_eq!(live.agreed_books(), ids(20));
}

#[test]
fn a_client_that_sends_no_more_still_gets_its_answer() {
    let live = Live::start();
    let mut connection = live.connect();
    connection.send(post("/payments", &payment(0)));
    connection.finish_sending();
    assert_eq!(connection.answer().status, 202);
    assert!(connection.is_at_end());
    live.wait_settled(1);
}

#[test]
fn the_router_tells_what_it_knows_and_why_payments_wait() {
    let live = Live::with_api(&["--patience-ms=600000"]);
    live.fail(Processor::Default, true);
    live.fail(Processor::Fallback, true);
    let mut connection = live.connect();
    for number in 0..10 {
        assert_eq!(connection.post("/payments", &payment(number)).status, 202);
    }
    let told = |texts: &[&str]| {
        let told = connection.get("/router");
        assert_eq!(told.status, 200);
        texts.iter().all(|text| told.body.contains(text)).then_some(told.body)
    };
    let mut told = told;
    // No payment comes in any more, so it would use the dearer one, and that fails as well.
    let body = wait_for("both breakers to open", || {
        told(&["\"reason\":\"neither processor works\"", "\"waitingPayments\":"])
    });
    assert!(!body.contains("\"waitingPayments\":0"), "{body}");
    assert!(!body.contains("\"breaker\":\"closed\""), "{body}");
    assert!(body.contains("\"outageMs\":") && !body.contains("\"outageMs\":null"), "{body}");
    live.fail(Processor::Default, false);
    live.wait_settled(10);
    wait_for("the default processor to be in use", || {
        told(&["\"waitingPayments\":0", "\"default\":{\"breaker\":\"closed\""])
    });
    assert_eq!(live.agreed_books(), ids(10));
}
