//! `rinha-test run` and `compare` against a router and processors that this test plays, and that do
//! wrong on demand: they must find out.
#![allow(clippy::unwrap_used)]

mod servers;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use servers::{Fault, Rinha};
use sonic_rs::{JsonContainerTrait, JsonValueTrait, Value};

/// The payments of one flood here.
const PAYMENTS: usize = 500;

/// How long something that must come is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

fn rinha_test() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rinha-test"))
}

/// A flood that is not held up by the floor, as a command.
fn flood(rinha: &Rinha, out: &Path, payments: usize, more: &[&str]) -> Command {
    let mut command = rinha_test();
    command
        .args(["run", "flood", "--no-box", "--against", &rinha.router_url, "--out"])
        .arg(out)
        .args(["--default-url", &rinha.processor_urls[0]])
        .args(["--fallback-url", &rinha.processor_urls[1]])
        .args(["--set", &format!("load.payments={payments}"), "--set", "load.connections=8"])
        .args(["--set", "end.patience_s=1", "--set", "floor.share=0"])
        .args(more);
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn result(out: &Path) -> Value {
    sonic_rs::from_str(&std::fs::read_to_string(out.join("result.json")).unwrap()).unwrap()
}

/// Runs a flood with a fault in it, and gives its result after checking its exit code.
fn run(fault: Fault, payments: usize, code: i32, more: &[&str]) -> (Value, String) {
    let rinha = Rinha::start(fault);
    let out = tempfile::tempdir().unwrap();
    let output = flood(&rinha, out.path(), payments, more).output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "{fault:?}: {text}");
    (result(out.path()), text)
}

fn number(result: &Value, key: &str) -> u64 {
    result[key].as_u64().unwrap_or_else(|| panic!("{key} in {result:?}"))
}

#[test]
fn a_faultless_router_passes_and_every_payment_is_posted_once() {
    let rinha = Rinha::start(Fault::None);
    let out = tempfile::tempdir().unwrap();
    let output = flood(&rinha, out.path(), PAYMENTS, &["--rounds", "2"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    // The second round follows another seed, and adds to the books of the first.
    assert_eq!(rinha.posts(), 2 * PAYMENTS);
    let result = result(out.path());
    assert_eq!(number(&result, "rounds"), 2);
    assert_eq!(number(&result, "accepted"), PAYMENTS as u64);
    assert_eq!(result["each"].as_array().unwrap().len(), 2);
    assert_eq!(result["right"].as_bool(), Some(true));
    assert_eq!(result["compared_by_id"].as_bool(), Some(true));
}

#[test]
fn the_result_has_all_keys_that_are_promised() {
    let (result, _) = run(Fault::None, PAYMENTS, 0, &["--set", "floor.share=0.2"]);
    for key in [
        "score",
        "net",
        "bonus",
        "fine",
        "inconsistencies",
        "lag",
        "requested",
        "failed",
        "default_requests",
        "fallback_requests",
        "p50_ms",
        "p99_ms",
        "p999_ms",
        "throughput_per_s",
        "settled_per_s",
        "cpu_us_per_payment",
        "memory_peak_bytes",
        "floor_p99_ms",
        "lost",
        "duplicated",
    ] {
        assert!(result.get(key).is_some(), "{key}");
    }
    assert!(result["floor_p99_ms"].as_f64().unwrap() > 0.0);
    // Nobody knows what the threads of this test cost.
    assert!(result["cpu_us_per_payment"].is_null());
}

#[test]
fn one_payment_of_ten_thousand_that_is_recorded_nowhere_is_found() {
    let (result, text) = run(Fault::Lose, 10_000, 1, &[]);
    assert_eq!((number(&result, "lost"), number(&result, "duplicated")), (1, 0));
    assert!(text.contains("1 accepted payments are recorded nowhere"), "{text}");
    assert!(text.contains("was accepted and is recorded nowhere"), "{text}");
}

#[test]
fn a_payment_that_both_processors_recorded_is_found() {
    let (result, _) = run(Fault::Double, PAYMENTS, 1, &[]);
    assert_eq!((number(&result, "lost"), number(&result, "duplicated")), (0, 1));
}

#[test]
fn a_payment_with_another_amount_is_found() {
    let (result, _) = run(Fault::Alter, PAYMENTS, 1, &[]);
    assert_eq!(number(&result, "altered"), 1);
}

#[test]
fn a_summary_that_is_a_cent_off_is_found_at_the_end_and_by_audits() {
    let (result, text) = run(Fault::MisstateCents, PAYMENTS, 1, &[]);
    assert_eq!(result["books_equal"].as_bool(), Some(false));
    assert!(text.contains("the books differ at the end"), "{text}");
    let audits = ["audit.every_s=0.2", "audit.from_s=3", "audit.until_s=0"];
    let mut more = vec!["--set", "load.shape=rate", "--set", "load.per_second=100"];
    more.extend(["--set", "load.seconds=1"]);
    more.extend(audits.iter().flat_map(|set| ["--set", set]));
    let (result, text) = run(Fault::MisstateCents, PAYMENTS, 1, &more);
    assert!(number(&result, "audits") >= 4, "{result:?}");
    assert!(text.contains("audits the amounts differ"), "{text}");
}

#[test]
fn a_refused_payment_is_a_failure_and_fails_a_run_that_expects_all_to_succeed() {
    let (result, text) = run(Fault::Refuse, PAYMENTS, 1, &[]);
    assert_eq!((number(&result, "failed"), number(&result, "refused")), (1, 1));
    assert!(text.contains("99.800 % of the requests succeeded"), "{text}");
    let (result, _) = run(Fault::Refuse, PAYMENTS, 0, &["--set", "expect.success_share=0.99"]);
    assert_eq!((number(&result, "failed"), number(&result, "lost")), (1, 0));
}

#[test]
fn a_refused_payment_that_is_recorded_all_the_same_is_found() {
    let (result, _) =
        run(Fault::RefuseAndRecord, PAYMENTS, 1, &["--set", "expect.success_share=0"]);
    assert_eq!(number(&result, "unwanted"), 1);
}

#[test]
fn processors_that_list_no_payments_are_compared_by_their_totals() {
    let (result, _) = run(Fault::ListNothing, PAYMENTS, 0, &[]);
    assert_eq!(result["compared_by_id"].as_bool(), Some(false));
    assert_eq!(number(&result, "lost"), 0);
}

#[test]
fn a_backend_that_is_five_milliseconds_slower_at_p99_is_found_by_a_comparison() {
    let [fast, slow] = [Fault::None, Fault::Slow].map(Rinha::start);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backends.toml");
    // They run already, so there is nothing to start but the wait for an end; and their processors
    // are not those that are compared with, so that only their speed is judged.
    let backend = |name: &str, rinha: &Rinha| {
        let url = &rinha.router_url;
        format!("[[backend]]\nname = \"{name}\"\nstart = \"sleep 600\"\nurl = \"{url}\"\n")
    };
    std::fs::write(&file, backend("fast", &fast) + &backend("slow", &slow)).unwrap();
    let output = rinha_test()
        .args(["compare", "--rounds", "4", "--no-box", "--out"])
        .arg(folder.path())
        .arg(&file)
        .arg("flood")
        .args(["--set", "load.payments=400", "--set", "load.connections=1"])
        .args(["--set", "end.patience_s=0.1", "--set", "floor.share=0"])
        .output()
        .unwrap();
    let text = text(&output);
    assert!(folder.path().join("result.json").exists(), "{text}");
    let result = result(folder.path());
    let p99 = |place: usize| -> f64 {
        let backend = &result["backends"].as_array().unwrap_or_else(|| panic!("{text}"))[place];
        backend["spread"]["p99_ms"].as_array().unwrap()[0].as_f64().unwrap()
    };
    // The best round of each: a late answer is never early, and in one of four rounds the other was
    // not held up by the machine.
    assert!(p99(1) >= 5.0, "{text}");
    assert!(p99(0) < p99(1), "{text}");
    assert_eq!(result["backends"][1]["subject"].as_str(), Some("slow"));
}

#[test]
fn the_router_itself_is_right_at_any_bounds_and_its_cost_is_known() {
    let out = tempfile::tempdir().unwrap();
    let output = rinha_test()
        .args(["run", "bounds", "--seed", "7", "--out"])
        .arg(out.path())
        .args(["--set", "load.seconds=4", "--set", "load.per_second=200", "--set", "stage=[]"])
        .args(["--set", "floor.share=0"])
        .output()
        .unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let result = result(out.path());
    assert_eq!(number(&result, "requested") + number(&result, "posted_again"), 800);
    // 500 windows at the edges of payments, and those while payments flowed.
    assert!(number(&result, "bounds_asked") > 600, "{text}");
    assert_eq!((number(&result, "bounds_wrong"), number(&result, "lost")), (0, 0));
    assert!(result["cpu_us_per_payment"].as_f64().unwrap() > 0.0);
    assert!(number(&result, "memory_peak_bytes") > 1 << 20);
    assert!(result["disk_bytes_per_payment"].as_f64().unwrap() > 0.0);
}

#[test]
fn an_interrupted_run_sets_the_processors_back_and_says_so() {
    let rinha = Rinha::start(Fault::None);
    let out = tempfile::tempdir().unwrap();
    let more = ["--set", "load.payments=100000000"];
    let mut command = flood(&rinha, out.path(), PAYMENTS, &more);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(&child, || rinha.posts() > 10);
    let before = rinha.configured().len();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("told to end"), "{text}");
    let since = &rinha.configured()[before..];
    let expected: Vec<_> = [0, 1]
        .iter()
        .flat_map(|side| {
            ["{\"delay\":0}", "{\"failure\":false}"].map(|json| format!("{side} {json}"))
        })
        .collect();
    assert_eq!(since, expected);
}

fn wait_until(child: &Child, come: impl Fn() -> bool) {
    let clock = ledger::clock::Monotonic::start();
    while !come() {
        assert!(clock.elapsed() < PATIENCE, "process {} does nothing", child.id());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_run_without_a_router_says_so() {
    let mut rinha = Rinha::start(Fault::None);
    rinha.router_url = "http://127.0.0.1:1".to_owned();
    let out = tempfile::tempdir().unwrap();
    let output = flood(&rinha, out.path(), PAYMENTS, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("http://127.0.0.1:1/payments-summary"), "{}", text(&output));
}

#[test]
fn mistakes_on_the_command_line_are_told() {
    let told = |arguments: &[&str]| {
        let output = rinha_test().args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        text(&output)
    };
    assert!(told(&["run", "contst"]).contains("there is no scenario contst"));
    assert!(told(&["run", "flood", "--set", "load.x=1"]).contains("unknown field `x`"));
    assert!(told(&["run", "flood", "--client", "k6"]).contains("k6 runs the contest"));
    let chaos = told(&["run", "chaos", "--against", "http://127.0.0.1:1"]);
    assert!(chaos.contains("leave --against out"), "{chaos}");
    assert!(told(&["compare", "/nowhere.toml", "flood"]).contains("/nowhere.toml"));
}
