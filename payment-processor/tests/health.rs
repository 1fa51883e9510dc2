//! `GET /payments/service-health`: one answer per window, two calls held, the rest refused.
//!
//! Nothing here needs the machine to be fast: a call that comes late meets a later window, and all
//! that is asserted holds for that one as well.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ledger::clock::Monotonic;
use support::{PATIENCE, Processor, get};

/// Longer than any test runs.
const ENDLESS_WINDOW_MS: &str = "600000";

#[test]
fn the_first_call_is_answered_at_once_with_what_is_set() {
    let processor = Processor::start(&["--health-window-ms", ENDLESS_WINDOW_MS]);
    processor.set("delay", r#"{"delay":1234}"#);
    processor.set("failure", r#"{"failure":true}"#);
    let answer = processor.ask(get("/payments/service-health"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, r#"{"failing":true,"minResponseTime":1234}"#);
}

#[test]
fn two_further_calls_are_held_and_all_beyond_them_refused() {
    let processor = Processor::start(&["--health-window-ms", ENDLESS_WINDOW_MS]);
    assert_eq!(processor.ask(get("/payments/service-health")).status, 200);
    let (sender, receiver) = mpsc::channel();
    for _ in 0..6 {
        let sender = sender.clone();
        let mut connection = processor.connect();
        thread::spawn(move || {
            // Which of them are held is for the processor to say; those threads wait for ever.
            connection.send(get("/payments/service-health"));
            while connection.is_silent() {
                thread::sleep(Duration::from_millis(2));
            }
            sender.send(connection.receive()).unwrap();
        });
    }
    for _ in 0..4 {
        let answer = receiver.recv_timeout(PATIENCE).unwrap();
        assert_eq!(answer.status, 429);
        let seconds: u64 = answer.header("Retry-After").unwrap().parse().unwrap();
        assert!((1..=600).contains(&seconds), "{seconds}");
        assert!(answer.message().contains("already held"));
    }
    // Nothing else is refused, and nothing held is answered within this window.
    assert!(receiver.recv_timeout(Duration::from_millis(200)).is_err());
    // What is held holds up nothing else.
    assert!(processor.summary("").starts_with(r#"{"totalRequests":0,"#));
}

#[test]
fn held_calls_are_answered_one_per_window_with_what_is_set_then() {
    const WINDOW: Duration = Duration::from_millis(300);
    let processor = Processor::start(&["--health-window-ms", "300"]);
    let clock = Monotonic::start();
    assert_eq!(processor.ask(get("/payments/service-health")).status, 200);
    let (sender, receiver) = mpsc::channel();
    for _ in 0..2 {
        let sender = sender.clone();
        let mut connection = processor.connect();
        thread::spawn(move || {
            let answer = connection.ask(get("/payments/service-health"));
            sender.send((clock.elapsed(), answer)).unwrap();
        });
    }
    processor.set("delay", r#"{"delay":7}"#);
    let (first, answer) = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!(answer.status, 200);
    // The processor counts from a whole millisecond of its own clock.
    let tolerance = Duration::from_millis(1);
    assert!(first + tolerance >= WINDOW, "{first:?}");
    let (second, answer) = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!(answer.body, r#"{"failing":false,"minResponseTime":7}"#);
    assert!(second + tolerance >= 2 * WINDOW, "{second:?}");
}

#[test]
fn the_time_to_come_back_is_at_least_a_second() {
    let processor = Processor::start(&["--health-window-ms", "100"]);
    let mut connections: Vec<_> = (0..20).map(|_| processor.connect()).collect();
    for connection in &mut connections {
        connection.send(get("/payments/service-health"));
    }
    for connection in &mut connections {
        let answer = connection.receive();
        match answer.status {
            200 => assert_eq!(answer.header("Retry-After"), None),
            429 => assert_eq!(answer.header("Retry-After"), Some("1")),
            _ => panic!("{answer:?}"),
        }
    }
}
