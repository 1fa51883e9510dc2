//! `rinha-test flood` against a router and processors that this test plays, and that do wrong on
//! demand: a flood must find out.
#![allow(clippy::unwrap_used)]

mod servers;

use std::process::{Command, Output};

use servers::{Fault, Rinha};

/// The payments of one flood here.
const PAYMENTS: usize = 500;

fn flood(rinha: &Rinha, more: &[&str]) -> Output {
    let count = PAYMENTS.to_string();
    Command::new(env!("CARGO_BIN_EXE_rinha-test"))
        .args(["flood", "--payments", &count, "--connections", "8", "--settle-timeout", "1"])
        .args(["--url", &rinha.router_url, "--default-url", &rinha.processor_urls[0]])
        .args(["--fallback-url", &rinha.processor_urls[1]])
        .args(more)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a flood with a fault in it, and checks its exit code and a line of its table.
fn check(fault: Fault, code: i32, row: &str) {
    let rinha = Rinha::start(fault);
    let output = flood(&rinha, &[]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "{fault:?}: {text}");
    let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(squeezed.contains(row), "{fault:?}: no {row:?} in {text}");
}

#[test]
fn a_faultless_router_passes_and_every_payment_is_posted_once() {
    let rinha = Rinha::start(Fault::None);
    let json = tempfile::NamedTempFile::new().unwrap();
    let output = flood(&rinha, &["--json", json.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("all is right"));
    assert_eq!(rinha.posts(), PAYMENTS);
    let json = std::fs::read_to_string(json.path()).unwrap();
    for figure in [r#""accepted": 500"#, r#""lost": 0"#, r#""compared_by_id": true"#] {
        assert!(json.contains(figure), "{json}");
    }
    // A second flood follows another seed, and adds to the books of the first.
    assert_eq!(flood(&rinha, &["--seed", "1"]).status.code(), Some(0));
    assert_eq!(rinha.posts(), 2 * PAYMENTS);
}

#[test]
fn a_payment_that_is_recorded_nowhere_is_found() {
    check(Fault::Lose, 1, "lost 1 twice 0");
}

#[test]
fn a_payment_that_both_processors_recorded_is_found() {
    check(Fault::Double, 1, "lost 0 twice 1");
}

#[test]
fn a_payment_with_another_amount_is_found() {
    check(Fault::Alter, 1, "altered 1");
}

#[test]
fn a_summary_that_is_a_cent_off_is_found() {
    check(Fault::MisstateCents, 1, "requests equal yes cents equal NO");
}

#[test]
fn a_refused_payment_is_a_failure_but_nothing_is_wrong() {
    check(Fault::Refuse, 0, "failed 1 (1 refused, 0 broken off, 0 timed out)");
}

#[test]
fn a_refused_payment_that_is_recorded_all_the_same_is_found() {
    check(Fault::RefuseAndRecord, 1, "unwanted 1");
}

#[test]
fn a_broken_connection_is_replaced_and_its_payment_not_posted_again() {
    let rinha = Rinha::start(Fault::HangUp);
    let output = flood(&rinha, &[]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("1 broken off"), "{text}");
    assert_eq!(rinha.posts(), PAYMENTS);
}

#[test]
fn processors_that_list_no_payments_are_compared_by_their_totals() {
    check(Fault::ListNothing, 0, "twice unknown");
}

#[test]
fn a_flood_without_a_router_says_so() {
    let mut rinha = Rinha::start(Fault::None);
    rinha.router_url = "http://127.0.0.1:1".to_owned();
    let output = flood(&rinha, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("http://127.0.0.1:1/payments-summary"), "{}", text(&output));
}
