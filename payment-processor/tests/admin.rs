//! The paths under `/admin/`: token, settings, sums, pages, purge.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use support::{Processor, get, id, pay, pay_at, post, put};

#[test]
fn a_summary_has_the_number_the_amount_and_the_exact_fee() {
    let processor = Processor::start(&["--fee", "0.15"]);
    assert_eq!(
        processor.summary(""),
        r#"{"totalRequests":0,"totalAmount":0.00,"totalFee":0.00,"feePerTransaction":0.15}"#
    );
    processor.ask(pay_at(1, "19.90", "2025-07-15T12:00:00.000Z"));
    processor.ask(pay_at(2, "0.01", "2025-07-15T12:00:00.000Z"));
    assert_eq!(
        processor.summary(""),
        r#"{"totalRequests":2,"totalAmount":19.91,"totalFee":2.9865,"feePerTransaction":0.15}"#
    );
}

#[test]
fn a_range_includes_both_bounds_and_needs_both() {
    let processor = Processor::start(&[]);
    for (number, second) in (1..).zip(["10.000", "10.001", "11.500", "12.000", "12.001"]) {
        let at = format!("2025-07-15T12:00:{second}Z");
        assert_eq!(processor.ask(pay_at(number, "1.00", &at)).status, 200);
    }
    let count = |query: &str| {
        let summary = processor.summary(query);
        let rest = summary.strip_prefix(r#"{"totalRequests":"#).unwrap();
        rest.split(',').next().unwrap().parse::<u32>().unwrap()
    };
    let at = |second: &str| format!("2025-07-15T12:00:{second}Z");
    let both = |from: &str, to: &str| count(&format!("?from={}&to={}", at(from), at(to)));
    assert_eq!(both("10.000", "12.001"), 5);
    assert_eq!(both("10.001", "12.000"), 3);
    assert_eq!(both("10.001", "10.001"), 1);
    assert_eq!(both("10.0001", "12.0009"), 3);
    assert_eq!(both("12.000", "10.001"), 0);
    assert_eq!(both("13", "14"), 0);
    // With one bound alone there is no range.
    assert_eq!(count(&format!("?from={}", at("13"))), 5);
    assert_eq!(count(&format!("?to={}", at("09"))), 5);
    assert_eq!(count(&format!("?from={}&to=", at("13"))), 5);
    assert_eq!(count("?to=2025-07-15T12%3A00%3A10.000Z&from=2025-07-15T14:00:10%2B02:00"), 1);
}

#[test]
fn a_bad_bound_is_named() {
    let processor = Processor::start(&[]);
    let answer = processor.ask(get("/admin/payments-summary?from=yesterday"));
    assert_eq!(answer.status, 400);
    assert!(answer.message().starts_with(r#"from: \"yesterday\""#));
}

#[test]
fn settings_tell_what_they_were_and_what_they_are() {
    let processor = Processor::start(&[]);
    for (config, body, answer) in [
        ("delay", r#"{"delay":100}"#, r#"{"config":"delay","was":0,"is":100}"#),
        ("delay", r#"{"delay":20}"#, r#"{"config":"delay","was":100,"is":20}"#),
        ("failure", r#"{"failure":true}"#, r#"{"config":"failure","was":false,"is":true}"#),
        ("failure", r#"{"failure":true}"#, r#"{"config":"failure","was":true,"is":true}"#),
    ] {
        let set = processor.set(config, body);
        assert_eq!((set.status, &*set.body), (200, answer));
    }
    let health = processor.ask(get("/payments/service-health"));
    assert_eq!(health.body, r#"{"failing":true,"minResponseTime":20}"#);
}

#[test]
fn a_setting_that_makes_no_sense_changes_nothing() {
    let processor = Processor::start(&[]);
    for (config, body) in [
        ("delay", r#"{"delay":-1}"#),
        ("delay", "{}"),
        ("failure", r#"{"failure":"yes"}"#),
        ("token", r#"{"token":""}"#),
        ("token", "not JSON"),
    ] {
        let answer = processor.set(config, body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(!answer.message().is_empty());
    }
    let health = processor.ask(get("/payments/service-health"));
    assert_eq!(health.body, r#"{"failing":false,"minResponseTime":0}"#);
}

#[test]
fn nothing_under_admin_is_answered_without_the_token() {
    let processor = Processor::start(&[]);
    processor.ask(pay(1));
    let mut connection = processor.connect();
    for request in [
        get("/admin/payments-summary"),
        get("/admin/payments"),
        get("/admin/nothing"),
        put("/admin/configurations/token", r#"{"token":"mine"}"#),
        put("/admin/configurations/delay", r#"{"delay":1}"#),
        put("/admin/configurations/failure", r#"{"failure":true}"#),
        post("/admin/purge-payments", ""),
    ] {
        for header in ["", "X-Rinha-Token: 1234\r\n", "X-Rinha-Token: \r\n"] {
            let answer = connection.ask(request.replace("X-Rinha-Token: 123\r\n", header));
            assert_eq!(answer.status, 401, "{request}");
        }
    }
    let summary = processor.summary("");
    assert!(summary.starts_with(r#"{"totalRequests":1,"#), "{summary}");
}

#[test]
fn the_name_of_the_tokens_header_has_no_case() {
    let processor = Processor::start(&[]);
    for name in ["x-rinha-token", "X-RINHA-TOKEN", "X-Rinha-token"] {
        let request = get("/admin/payments-summary").replace("X-Rinha-Token", name);
        assert_eq!(processor.ask(request).status, 200, "{name}");
    }
}

#[test]
fn a_new_token_replaces_the_old_one() {
    let processor = Processor::start(&["--token", "first"]);
    let with_token = |request: String, token: &str| {
        processor.ask(request.replace("Token: 123\r\n", &format!("Token: {token}\r\n")))
    };
    let change = put("/admin/configurations/token", r#"{"token":"second"}"#);
    assert_eq!(with_token(change.clone(), "123").status, 401);
    let answer = with_token(change.clone(), "first");
    assert_eq!((answer.status, &*answer.body), (204, ""));
    assert_eq!(with_token(change.clone(), "first").status, 401);
    assert_eq!(with_token(change, "second").status, 204);
}

#[test]
fn a_purge_empties_the_books_and_keeps_the_settings() {
    let processor = Processor::start(&[]);
    processor.ask(pay(1));
    processor.set("delay", r#"{"delay":1}"#);
    let answer = processor.ask(post("/admin/purge-payments", ""));
    assert_eq!((answer.status, answer.message()), (200, "All payments purged."));
    let everywhere = "?from=0000-01-01T00:00:00Z&to=9999-01-01T00:00:00Z";
    for query in ["", everywhere] {
        let summary = processor.summary(query);
        assert!(summary.starts_with(r#"{"totalRequests":0,"#), "{summary}");
    }
    assert_eq!(processor.ask(get("/admin/payments")).body, "[]");
    assert_eq!(processor.ask(pay(1)).status, 200);
    let delay = processor.set("delay", r#"{"delay":0}"#).body;
    assert_eq!(delay, r#"{"config":"delay","was":1,"is":0}"#);
}

#[test]
fn payments_are_listed_in_pages_by_id_with_their_attempts() {
    let processor = Processor::start(&[]);
    for number in [3, 1, 2, 3, 3] {
        processor.ask(pay(number));
    }
    let entry = |number, attempts| {
        format!(
            r#"{{"correlationId":"{}","amount":19.90,"requestedAt":"2025-07-15T12:34:56.000Z","attempts":{attempts}}}"#,
            id(number)
        )
    };
    let page = |query: &str| {
        let answer = processor.ask(get(&format!("/admin/payments{query}")));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    let (first, second, third) = (entry(1, 1), entry(2, 1), entry(3, 3));
    assert_eq!(page(""), format!("[{first},{second},{third}]"));
    assert_eq!(page("?limit=2"), format!("[{first},{second}]"));
    let after = id(2);
    assert_eq!(page(&format!("?limit=2&after={after}")), format!("[{third}]"));
    assert_eq!(page(&format!("?after={}", id(3))), "[]");
    for query in ["?limit=0", "?limit=10001", "?after=2"] {
        let answer = processor.ask(get(&format!("/admin/payments{query}")));
        assert_eq!(answer.status, 400, "{query}");
    }
}

#[test]
fn the_largest_page_arrives_whole() {
    let processor = Processor::start(&[]);
    let mut connection = processor.connect();
    connection.send((0..10_001).map(pay).collect::<String>());
    for _ in 0..10_001 {
        assert_eq!(connection.receive().status, 200);
    }
    let page = connection.ask(get("/admin/payments?limit=10000")).body;
    assert_eq!(page.matches("correlationId").count(), 10_000);
    let last = connection.ask(get(&format!("/admin/payments?after={}", id(9_999))));
    assert_eq!(last.body.matches("correlationId").count(), 1);
}
