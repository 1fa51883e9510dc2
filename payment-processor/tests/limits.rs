//! How many payments run and wait, and what the limit comes before.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use ledger::clock::Monotonic;
use support::{Processor, get, look_up, pay, post};

#[test]
fn payments_beyond_those_that_run_and_wait_are_refused_and_not_recorded() {
    let processor = Processor::start(&["--running-max", "2", "--waiting-max", "3"]);
    processor.set("delay", r#"{"delay":500}"#);
    let mut callers: Vec<_> = (0..5).map(|_| processor.connect()).collect();
    for (number, caller) in (0..).zip(&mut callers) {
        caller.send(pay(number));
    }
    processor.wait_until_full();
    let mut refused_caller = processor.connect();
    let refused = refused_caller.ask(pay(5));
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("Content-Type"), Some("application/json"));
    for caller in &mut callers {
        assert_eq!(caller.receive().status, 200);
    }
    assert_eq!(processor.ask(look_up(5)).status, 404);
    assert!(processor.summary("").starts_with(r#"{"totalRequests":5,"#));
    // The places are free again.
    assert_eq!(refused_caller.ask(pay(5)).status, 200);
}

#[test]
fn what_waits_begins_its_delay_when_its_turn_comes() {
    let processor = Processor::start(&["--running-max", "1", "--waiting-max", "2"]);
    processor.set("delay", r#"{"delay":150}"#);
    let clock = Monotonic::start();
    let mut callers: Vec<_> = (0..3).map(|_| processor.connect()).collect();
    for (number, caller) in (0..).zip(&mut callers) {
        caller.send(pay(number));
    }
    for caller in &mut callers {
        assert_eq!(caller.receive().status, 200);
    }
    assert!(clock.elapsed() >= Duration::from_millis(450));
}

#[test]
fn the_limit_comes_before_the_payload_and_before_the_failure_flag() {
    let processor = Processor::start(&["--running-max", "1", "--waiting-max", "0"]);
    processor.set("delay", r#"{"delay":500}"#);
    let mut caller = processor.connect();
    caller.send(pay(1));
    processor.wait_until_full();
    processor.set("failure", r#"{"failure":true}"#);
    assert_eq!(processor.ask(post("/payments", "nonsense")).status, 429);
    assert_eq!(processor.ask(pay(2)).status, 429);
    assert_eq!(caller.receive().status, 500);
    processor.set("delay", r#"{"delay":0}"#);
    assert_eq!(processor.ask(post("/payments", "nonsense")).status, 400);
    assert_eq!(processor.ask(pay(2)).status, 500);
}

#[test]
fn only_payments_are_limited() {
    let processor = Processor::start(&["--running-max", "1", "--waiting-max", "0"]);
    processor.set("delay", r#"{"delay":500}"#);
    let mut caller = processor.connect();
    caller.send(pay(1));
    processor.wait_until_full();
    for target in ["/payments/service-health", "/admin/payments-summary", "/admin/payments"] {
        assert_eq!(processor.ask(get(target)).status, 200, "{target}");
    }
    assert_eq!(caller.receive().status, 200);
}

#[test]
fn hundreds_sleep_at_the_same_time() {
    let processor = Processor::start(&[]);
    processor.set("delay", r#"{"delay":300}"#);
    let mut callers: Vec<_> = (0..400).map(|_| processor.connect()).collect();
    for (number, caller) in (0..).zip(&mut callers) {
        caller.send(pay(number));
    }
    for caller in &mut callers {
        assert_eq!(caller.receive().status, 200);
    }
    assert!(processor.summary("").starts_with(r#"{"totalRequests":400,"#));
}
