//! `store audit` finds every way in which the books of a processor can differ from ours.

#![allow(clippy::unwrap_used)]

mod live;
mod support;

use std::process::{Command, Output};

use ledger::{Processor, TimestampMs};
use live::connection::Connection;
use live::{Live, id, payment};
use support::{launcher, wait_for};

const COUNT: u32 = 20;

/// A system that settled some payments, and what its processors recorded.
struct Settled {
    live: Live,
    moments: Vec<TimestampMs>,
}

impl Settled {
    fn new() -> Self {
        let live = Live::start();
        let mut connection = live.connect();
        for number in 0..COUNT {
            assert_eq!(connection.post("/payments", &payment(number)).status, 202);
        }
        live.wait_settled(u64::from(COUNT));
        let recorded = live.recorded(Processor::Default);
        let moments = (0..COUNT).map(|number| recorded[&id(number)].requested_at).collect();
        Self { live, moments }
    }

    /// Gives the default processor other books: it forgets all, and records what it is given.
    fn record_anew(&self, change: impl Fn(u32) -> Option<(&'static str, i64)>) {
        self.live.system().kill("processor-default").unwrap();
        self.live.start_again("processor-default");
        for number in 0..COUNT {
            if let Some((amount, later_ms)) = change(number) {
                self.record(Processor::Default, number, amount, later_ms);
            }
        }
    }

    fn record(&self, processor: Processor, number: u32, amount: &str, later_ms: i64) {
        let moment = self.moments[number as usize % self.moments.len()].get() + later_ms;
        let body = format!(
            r#"{{"correlationId":"{}","amount":{amount},"requestedAt":"{}"}}"#,
            id(number),
            TimestampMs::clamped(moment)
        );
        let mut connection = Connection::open(self.live.processor_port(processor));
        assert_eq!(connection.post("/payments", &body).status, 200);
    }

    fn audit(&self, more: &[&str]) -> Output {
        let [default, fallback] = Processor::ALL
            .map(|processor| format!("http://127.0.0.1:{}", self.live.processor_port(processor)));
        Command::new(launcher().with_file_name("store"))
            .arg("audit")
            .arg("--data")
            .arg(self.live.volume().root())
            .args(["--default-url", &default, "--fallback-url", &fallback])
            .args(more)
            .output()
            .unwrap()
    }

    fn finds(&self, more: &[&str], expected: &[String]) {
        let output = self.audit(more);
        let text = String::from_utf8(output.stdout).unwrap();
        let differences: Vec<_> =
            text.lines().take_while(|line| !line.starts_with("settled: ")).collect();
        assert_eq!(differences, expected, "{text}");
        let code = i32::from(!expected.is_empty());
        assert_eq!(output.status.code(), Some(code), "{text}");
    }
}

#[test]
fn books_that_agree_are_found_to_agree_while_the_system_runs_and_once_it_is_stopped() {
    let settled = Settled::new();
    settled.finds(&[], &[]);
    settled.finds(&["--token", "123"], &[]);
    let first = settled.moments[3].to_string();
    settled
        .finds(&["--token", "123", "--from", &first, "--to", &settled.moments[9].to_string()], &[]);
    for name in ["lb", "api-1", "api-2", "store"] {
        settled.live.system().stop(name).unwrap();
    }
    settled.finds(&["--token", "123"], &[]);
    let output = settled.audit(&["--json", "--token", "123"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let begin = r#"{"default":{"totalRequests":20,"totalAmount":398.00},"#;
    assert!(text.starts_with(begin) && text.contains(r#""differences":[]"#), "{text}");
}

#[test]
fn every_kind_of_difference_is_found() {
    let settled = Settled::new();
    settled.record_anew(|number| match number {
        3 => None,
        5 => Some(("19.91", 0)),
        7 => Some(("19.90", 1)),
        _ => Some(("19.90", 0)),
    });
    settled.record(Processor::Fallback, 9, "19.90", 0);
    let moved = TimestampMs::clamped(settled.moments[7].get() + 1);
    let mut expected = vec![
        format!("{}: settled, and default has not got it", id(3)),
        format!("{}: amount 19.90, and default has 19.91", id(5)),
        format!("{}: requestedAt {}, and default has {moved}", id(7), settled.moments[7]),
        format!("{}: settled at default, and fallback has it too", id(9)),
    ];
    settled.finds(&[], &expected);
    expected.extend([
        "default: 20 payments and 398.00 settled, and it has 19 payments and 378.11".to_owned(),
        "fallback: 0 payments and 0.00 settled, and it has 1 payments and 19.90".to_owned(),
    ]);
    settled.finds(&["--token", "123"], &expected);
}

#[test]
fn a_payment_that_we_do_not_know_is_missed_in_the_totals() {
    let settled = Settled::new();
    settled.record(Processor::Default, COUNT, "1.00", 0);
    settled.finds(&[], &[]);
    let what = "default: 20 payments and 398.00 settled, and it has 21 payments and 399.00";
    settled.finds(&["--token", "123"], &[what.to_owned()]);
}

#[test]
fn an_open_payment_is_no_difference() {
    let settled = Settled::new();
    for processor in Processor::ALL {
        settled.live.fail(processor, true);
    }
    assert_eq!(settled.live.connect().post("/payments", &payment(COUNT)).status, 202);
    wait_for("an open payment", || {
        let text = String::from_utf8(settled.audit(&[]).stdout).unwrap();
        text.contains("open: 1, refused: 0, duplicates: 0").then_some(())
    });
    settled.finds(&[], &[]);
}

#[test]
fn what_cannot_be_told_is_no_agreement() {
    let settled = Settled::new();
    let wrong_token = settled.audit(&["--token", "secret"]);
    let text = String::from_utf8(wrong_token.stderr).unwrap();
    assert_eq!(wrong_token.status.code(), Some(70), "{text}");
    assert!(text.contains("refuses the token") && !text.contains("secret"), "{text}");

    assert_eq!(settled.audit(&["--from", "yesterday"]).status.code(), Some(64));
    assert_eq!(settled.audit(&["--concurrency", "0"]).status.code(), Some(64));

    settled.live.system().kill("processor-fallback").unwrap();
    let away = settled.audit(&[]);
    assert_eq!(away.status.code(), Some(70));
    let text = String::from_utf8(away.stderr).unwrap();
    assert!(text.contains("fallback does not tell"), "{text}");

    settled.live.system().kill("api-1").unwrap();
    let segment = settled.live.volume().journal(1).join("0000000001.journal");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    assert_eq!(settled.audit(&[]).status.code(), Some(65));
}
