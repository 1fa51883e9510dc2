//! The metrics of a running system: they agree with the summary and with the processors' books, and they
//! tell which daemons are there.

#![allow(clippy::unwrap_used)]

mod exposition;
mod live;
mod support;

use std::process::Command;

use exposition::Exposition;
use ledger::Processor;
use live::connection::Connection;
use live::{Live, payment};
use serde::Deserialize;
use support::{launcher, wait_for};

/// So that what the default processor refuses goes to the other one at once.
const IMPATIENT: &[&str] = &["--patience-ms=1"];

fn read(port: u16) -> Exposition {
    let answer = Connection::open(port).get("/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(answer.header("content-type"), Some(content_type));
    Exposition::read(&answer.body)
}

/// Reads until all daemons are up.
fn read_all_up(port: u16) -> Exposition {
    wait_for("all daemons", || {
        Connection::try_open(port).ok()?;
        let metrics = read(port);
        let up = |daemon| metrics.sum("router_up", &[("daemon", daemon)]) > 0;
        ["api-1", "api-2", "lb", "store"].into_iter().all(up).then_some(metrics)
    })
}

/// Reads until this daemon is down: what was read before is told again for a moment.
fn read_down(port: u16, daemon: &str) -> Exposition {
    wait_for("a daemon that is down", || {
        let metrics = read(port);
        (metrics.sum("router_up", &[("daemon", daemon)]) == 0).then_some(metrics)
    })
}

/// What `monitor status --json` says, as far as tests look at it.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Status {
    health: String,
    problems: Vec<String>,
    payments: Payments,
}

#[derive(Deserialize, Debug)]
struct Payments {
    settled: u64,
    backlog: u64,
}

/// The exit code of `monitor status`, and what it prints.
fn status(live: &Live, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(launcher().with_file_name("monitor"));
    command.args(["status", "--data"]).arg(live.volume().root()).args(more);
    let output = command.output().unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn json_status(live: &Live) -> (i32, Status) {
    let (code, text) = status(live, &["--json"]);
    (code, sonic_rs::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

#[test]
fn metrics_agree_with_the_summary_and_the_books_to_the_payment_and_cent() {
    let (live, port) = Live::monitored(IMPATIENT);
    let [mut one, mut other] = live.connect_to_both();
    for number in 0..30 {
        let connection = if number % 2 == 0 { &mut one } else { &mut other };
        assert_eq!(connection.post("/payments", &payment(number)).status, 202);
    }
    live.wait_settled(30);
    live.fail(Processor::Default, true);
    for number in 30..40 {
        assert_eq!(one.post("/payments", &payment(number)).status, 202);
    }
    // One that the other instance has, one that this one has, and one that is none.
    assert_eq!(other.post("/payments", &payment(30)).status, 202);
    assert_eq!(one.post("/payments", &payment(30)).status, 202);
    assert_eq!(one.post("/payments", "{}").status, 400);
    live.wait_settled(40);
    let metrics = wait_for("the duplicate's record", || {
        let metrics = read_all_up(port);
        (metrics.sum("router_payments_duplicate_total", &[]) > 0).then_some(metrics)
    });
    assert_eq!(live.agreed_books().len(), 40);
    let summary = live.summary();
    assert!(summary[1].count > 0, "nothing went to the fallback processor");
    for processor in Processor::ALL {
        let of = [("processor", &*processor.to_string())];
        let totals = summary[processor.index()];
        let (count, cents) = (totals.count, totals.amount.get().unsigned_abs());
        assert_eq!(metrics.sum("router_payments_settled_total", &of), count, "{processor}");
        assert_eq!(metrics.sum("router_settled_cents_total", &of), cents, "{processor}");
        let recorded = [of[0], ("outcome", "recorded")];
        assert_eq!(metrics.sum("router_calls_total", &recorded), count, "{processor}");
        let calls = metrics.sum("router_calls_total", &of);
        assert_eq!(metrics.sum("router_call_seconds_count", &of), calls, "{processor}");
        assert_eq!(metrics.sum("router_in_flight_calls", &of), 0, "{processor}");
    }
    for (name, value) in [
        ("router_payments_accepted_total", 41),
        ("router_accept_seconds_count", 42),
        ("router_settle_seconds_count", 40),
        ("router_payments_duplicate_total", 1),
        ("router_store_claim_losers_total", 1),
        ("router_backlog_payments", 0),
        ("router_accepting", 2),
        ("router_store_apis", 2),
        ("router_lb_api_alive", 2),
    ] {
        assert_eq!(metrics.sum(name, &[]), value, "{name}");
    }
    assert_eq!(metrics.sum("router_requests_refused_total", &[("status", "400")]), 1);
    // Each record that the APIs say they have written is one that the store reads.
    let metrics = wait_for("the store", || {
        let metrics = read(port);
        (metrics.sum("router_store_behind_records", &[]) == 0).then_some(metrics)
    });
    let records = metrics.sum("router_journal_written_bytes_total", &[]) / 48;
    let read = metrics.sum("router_store_records_read_total", &[]);
    // It reads marks of what was synced as well.
    assert!(read >= records, "{read} of {records}");
}

#[test]
fn a_daemon_that_is_gone_is_told_as_down_and_comes_back() {
    let (live, port) = Live::monitored(&[]);
    assert_eq!(live.connect().post("/payments", &payment(0)).status, 202);
    live.wait_settled(1);
    let metrics = read_all_up(port);
    for daemon in ["api-1", "api-2", "lb", "store"] {
        let memory = metrics.sum("process_resident_memory_bytes", &[("daemon", daemon)]);
        assert!(memory > 1_000_000, "{daemon}: {memory}");
    }

    live.system().kill("api-2").unwrap();
    let metrics = read_down(port, "api-2");
    assert_eq!(metrics.sum("router_up", &[]), 3);
    assert!(!metrics.tells_of("api-2") && metrics.tells_of("api-1"));
    live.start_again("api-2");
    assert!(read_all_up(port).tells_of("api-2"));

    // One that ended in order has taken its socket along, and is missed nevertheless.
    live.system().stop("api-1").unwrap();
    assert!(!live.volume().metrics_socket("api-1").exists());
    read_down(port, "api-1");
}

#[test]
fn the_status_tells_how_the_router_is_in_its_exit_code_and_as_json() {
    let (live, port) = Live::monitored(&[]);
    for number in 0..10 {
        assert_eq!(live.connect().post("/payments", &payment(number)).status, 202);
    }
    live.wait_settled(10);
    read_all_up(port);
    let well = || wait_for("a status that is well", || (status(&live, &[]).0 == 0).then_some(()));
    well();
    let (code, text) = status(&live, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(": well\n") && text.contains(" 10 settled, "), "{text}");
    let (code, json) = json_status(&live);
    let Payments { settled, backlog } = json.payments;
    assert_eq!((code, json.health.as_str(), settled, backlog), (0, "well", 10, 0));
    assert!(json.problems.is_empty());

    live.system().kill("store").unwrap();
    let (code, json) = json_status(&live);
    assert_eq!((code, json.health.as_str()), (1, "degraded"));
    assert!(json.problems.iter().any(|what| what.starts_with("store is down")), "{json:?}");
    let (code, text) = status(&live, &[]);
    assert!(code == 1 && text.contains("\n  ! store is down"), "{text}");
    live.start_again("store");
    well();

    let empty = tempfile::tempdir().unwrap();
    std::fs::create_dir(empty.path().join("run")).unwrap();
    let mut command = Command::new(launcher().with_file_name("monitor"));
    let output = command.args(["status", "--data"]).arg(empty.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
