//! The monitor's page in a browser: its figures are those of the metrics and of the summary, it breaks no
//! rule of its own or of accessibility, and it goes on after what it watches was started again.
//!
//! `PAGE_PICTURES=DIR` leaves pictures of it in that folder.

#![allow(clippy::unwrap_used)]

mod exposition;
mod live;
mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use exposition::Exposition;
use ledger::clock::now;
use ledger::{Cents, Processor, RangeMs, TimestampMs};
use live::connection::Connection;
use live::load::Load;
use live::{Live, id, payment};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use support::{launcher, python_tool, wait_for};

/// So that what the default processor refuses goes to the other one at once.
const IMPATIENT: &[&str] = &["--patience-ms=1"];

/// The number of the first payment that is posted by itself. Those of the load begin at 0.
const FIRST: u32 = 1_000_000;

/// What the browser's clock is behind UTC, in milliseconds.
const BROWSER_BEHIND_MS: i64 = 3 * 3_600_000;

const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// What a browser says where nobody listens: the page cannot keep it from saying so.
const REFUSED: &str = "net::ERR_";

/// A browser with the page.
struct Browser {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What is wrong with the page at some width and in some colours.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Look {
    too_wide: Vec<String>,
    findings: Vec<String>,
    grave: u32,
}

#[derive(Deserialize, Debug)]
struct Keyboard {
    missed: Vec<String>,
    unseen: Vec<String>,
}

#[derive(Deserialize, Debug)]
struct Found {
    text: String,
    steps: Vec<String>,
}

#[derive(Deserialize, Debug)]
struct Heard {
    complaints: Vec<String>,
    requests: Vec<String>,
}

impl Browser {
    /// Starts one, if all that it takes is installed.
    fn start() -> Option<Self> {
        let playwright = python_tool("playwright")?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<_> = std::env::split_paths(&path).collect();
        let mut browsers = BROWSERS
            .iter()
            .flat_map(|browser| folders.iter().map(move |folder| folder.join(browser)));
        let chromium = browsers.find(|browser| browser.is_file())?;
        let beside = playwright.with_file_name("python3");
        let python = if beside.is_file() { beside } else { "python3".into() };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(chromium)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, commands, answers })
    }

    fn tell<T: DeserializeOwned>(&mut self, command: &str) -> T {
        writeln!(self.commands, "{command}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        sonic_rs::from_str(&answer).unwrap_or_else(|error| panic!("{command}: {error}: {answer}"))
    }

    fn open(&mut self, port: u16) {
        let () = self.tell(&format!(r#"{{"do":"open","url":"http://127.0.0.1:{port}/"}}"#));
    }

    /// Waits until something is so on the page.
    fn until(&mut self, expression: &str) {
        let expression = sonic_rs::to_string(expression).unwrap();
        let is_so: bool = self.tell(&format!(r#"{{"do":"until","expression":{expression}}}"#));
        assert!(is_so);
    }

    /// Waits until an element has this text in it.
    fn until_says(&mut self, selector: &str, text: &str) {
        self.until(&format!("document.querySelector('{selector}').textContent.includes('{text}')"));
    }

    /// Waits until a figure has this value.
    fn until_figure(&mut self, name: &str, value: impl std::fmt::Display) {
        self.until(&format!(
            "document.querySelector('[data-fact=\"{name}\"]')?.dataset.value === '{value}'"
        ));
    }

    fn figures(&mut self) -> BTreeMap<String, String> {
        self.tell(r#"{"do":"figures"}"#)
    }

    fn find(&mut self, id: &str) -> Found {
        self.tell(&format!(r#"{{"do":"find","id":"{id}"}}"#))
    }

    /// Sums up a range, or between two moments, and waits until the page says that it has answered this
    /// question.
    fn choose(&mut self, range: &str, bounds: Option<RangeMs>, question: &str) {
        let moment = |of: TimestampMs| TimestampMs::clamped(of.get() - BROWSER_BEHIND_MS);
        let text = |of| moment(of).to_string().trim_end_matches(".000Z").to_owned();
        let bounds = bounds.map(|RangeMs { from, to }| [text(from), text(to)]);
        let [start, end] = bounds.unwrap_or_default();
        let () = self.tell(&format!(
            r#"{{"do":"choose","range":"{range}","start":"{start}","end":"{end}"}}"#
        ));
        self.until(&format!("document.getElementById('question').textContent === '{question}'"));
    }

    fn heard(&mut self) -> Heard {
        self.tell(r#"{"do":"heard"}"#)
    }

    fn end(mut self) {
        drop(self.commands);
        assert!(self.child.wait().unwrap().success());
    }
}

fn metrics(port: u16) -> Exposition {
    Exposition::read(&Connection::open(port).get("/metrics").body)
}

/// Compares all figures, once nothing happens any more.
fn compare(browser: &mut Browser, live: &Live, port: u16) {
    let (metrics, summary) = (metrics(port), live.summary());
    for (name, family) in [
        ("accepted", "router_payments_accepted_total"),
        ("settled", "router_payments_settled_total"),
        ("refused", "router_payments_refused_total"),
        ("duplicate", "router_payments_duplicate_total"),
        ("backlog", "router_backlog_payments"),
    ] {
        browser.until_figure(name, metrics.sum(family, &[]));
    }
    for processor in Processor::ALL {
        let of = [("processor", &*processor.to_string())];
        for (name, family) in [
            ("settled", "router_payments_settled_total"),
            ("settledCents", "router_settled_cents_total"),
            ("inFlight", "router_in_flight_calls"),
        ] {
            browser.until_figure(&format!("{processor}.{name}"), metrics.sum(family, &of));
        }
    }
    browser.until_figure("range.requests", summary[0].count + summary[1].count);
    let figures = browser.figures();
    let figure = |name: &str| figures.get(name).map_or("none", String::as_str);
    for processor in Processor::ALL {
        let totals = summary[processor.index()];
        let basis_points = if processor == Processor::Default { 500 } else { 1500 };
        let fee = Cents::new((totals.amount.get() * basis_points + 5_000) / 10_000);
        for (name, value) in [
            ("requests", totals.count.to_string()),
            ("amount", totals.amount.to_string()),
            ("fees", fee.to_string()),
        ] {
            assert_eq!(figure(&format!("range.{processor}.{name}")), value, "{figures:?}");
        }
    }
    // Times of all since each API was started, as a person at a terminal gets them.
    let mut status = Command::new(launcher().with_file_name("monitor"));
    let output = status.args(["status", "--json", "--data"]).arg(live.volume().root()).output();
    let told = String::from_utf8(output.unwrap().stdout).unwrap();
    for name in ["acceptP50Ms", "acceptP99Ms", "settleP50Ms", "settleP99Ms"] {
        let part = format!("\"{name}\":{}", figure(name));
        assert!(told.contains(&part), "{part}: {told}");
    }
}

/// Metrics that others have just asked for are told again, for a quarter of a second.
const METRICS_AGE_MAX_MS: i64 = 1_000;

/// The moment before which all payments were accepted that are closed by now. A span that ended before it
/// does not change any more: nothing is sent before it is accepted.
fn closed_before(port: u16) -> TimestampMs {
    let asked_at = now();
    let age_ms = 1000.0 * metrics(port).most("router_backlog_oldest_age_seconds");
    #[allow(clippy::cast_possible_truncation)] // Of some seconds.
    TimestampMs::clamped(asked_at.get() - age_ms.ceil() as i64 - METRICS_AGE_MAX_MS)
}

/// Compares a span of time that has ended while payments come in, with what an API answers to the very
/// question that the page names. Gives how many payments there were at the end.
fn compare_under_load(browser: &mut Browser, live: &Live, port: u16) -> u64 {
    // A field for a moment leaves its seconds out where they are zero.
    let second = |ms: i64| {
        let seconds = ms / 1000;
        TimestampMs::clamped((seconds - i64::from(seconds % 60 == 0)) * 1000)
    };
    let from = second(now().get());
    let load = Load::start(live.port(), 4);
    for rate in ["acceptedPerS", "default.settledPerS"] {
        let figure = format!("document.querySelector('[data-fact=\"{rate}\"]')");
        browser.until(&format!("{figure}?.dataset.value > 0"));
    }
    let range = wait_for("a span with payments that has ended", || {
        let range = RangeMs { from, to: second(closed_before(port).get()) };
        let [default, fallback] = live.router().summary(range).unwrap();
        (default.count + fallback.count > 0).then_some(range)
    });
    let question = format!("GET /payments-summary?from={from}&to={}", range.to);
    browser.choose("chosen", Some(range), &question);
    let [default, fallback] = live.router().summary(range).unwrap();
    let figures = browser.figures();
    assert_eq!(figures["range.requests"], (default.count + fallback.count).to_string());
    assert_eq!(figures["range.default.amount"], default.amount.to_string());
    assert_eq!(figures["range.fallback.amount"], fallback.amount.to_string());
    browser.choose("all", None, "GET /payments-summary");
    let posted = load.stop_and_repeat();
    live.wait_settled(u64::from(posted.count));
    u64::from(posted.count)
}

/// Looks at the page at both widths and in both colours.
fn check_looks(browser: &mut Browser) {
    let pictures = std::env::var_os("PAGE_PICTURES").map(PathBuf::from);
    if let Some(folder) = &pictures {
        std::fs::create_dir_all(folder).unwrap();
    }
    for width in [390, 1440] {
        for scheme in ["light", "dark"] {
            let picture =
                pictures.as_ref().map(|folder| folder.join(format!("{width}-{scheme}.png")));
            let picture = sonic_rs::to_string(&picture).unwrap();
            let command = format!(
                r#"{{"do":"look","width":{width},"scheme":"{scheme}","picture":{picture}}}"#
            );
            let look: Look = browser.tell(&command);
            let of = format!("{width} {scheme}: {look:?}");
            assert!(look.too_wide.is_empty() && look.grave == 0, "{of}");
            assert!(look.findings.is_empty(), "{of}");
        }
    }
}

#[test]
fn the_page_shows_what_is_so_to_everybody_and_goes_on_after_restarts() {
    let Some(mut browser) = Browser::start() else {
        eprintln!(
            "skipped: the page in a browser, because there is no Chromium or no playwright; \
             scripts/python-tool.sh playwright installs the latter"
        );
        return;
    };
    let (live, port) = Live::monitored(IMPATIENT);
    browser.open(port);
    let count = compare_under_load(&mut browser, &live, port);
    let [mut one, mut other] = live.connect_to_both();
    for number in FIRST..FIRST + 30 {
        let connection = if number % 2 == 0 { &mut one } else { &mut other };
        assert_eq!(connection.post("/payments", &payment(number)).status, 202);
    }
    live.wait_settled(count + 30);
    live.fail(Processor::Default, true);
    for number in FIRST + 30..FIRST + 40 {
        assert_eq!(one.post("/payments", &payment(number)).status, 202);
    }
    assert_eq!(other.post("/payments", &payment(FIRST + 30)).status, 202);
    live.wait_settled(count + 40);
    wait_for("the duplicate's record", || {
        (metrics(port).sum("router_payments_duplicate_total", &[]) > 0).then_some(())
    });
    compare(&mut browser, &live, port);
    browser.until_says("#notes", "default fails: its breaker is open");
    let found = browser.find(&id(FIRST).to_string());
    assert!(found.text.contains("default has it") && found.text.contains("19.90"), "{found:?}");
    assert_eq!(found.steps, ["accepted", "decided", "sent", "settled"], "{found:?}");
    let found = browser.find(&id(FIRST + 30).to_string());
    assert!(found.steps.contains(&"duplicate".to_owned()), "{found:?}");
    assert!(found.text.contains("fallback has it") && found.text.contains("api-2"), "{found:?}");
    check_looks(&mut browser);
    let Keyboard { missed, unseen } = browser.tell(r#"{"do":"keyboard"}"#);
    assert!(missed.is_empty() && unseen.is_empty(), "{missed:?} {unseen:?}");
    let complaints = browser.heard().complaints;
    assert!(complaints.is_empty(), "{complaints:?}");
    let found = browser.find(&id(FIRST + 99).to_string());
    assert!(found.text.contains("no payment with this correlationId was accepted"), "{found:?}");
    let found = browser.find("<b>1</b>");
    assert!(found.steps.is_empty() && found.text.contains("Not found: "), "{found:?}");
    let Heard { complaints, requests } = browser.heard();
    assert!(
        complaints.iter().all(|what| what.contains("status of 404") || what.contains("of 400")),
        "{complaints:?}"
    );
    let ours = format!("http://127.0.0.1:{port}/");
    assert!(requests.iter().all(|url| url.starts_with(&ours)), "{requests:?}");

    live.fail(Processor::Default, false);
    with_six_tabs_says_why_nothing_comes(&mut browser);
    goes_on(&mut browser, &live, port, count + 40);
    browser.end();
}

/// The figures that only grow: of the page, and the family and labels of the metric.
const GROWING: [(&str, &str, Option<Processor>); 8] = [
    ("accepted", "router_payments_accepted_total", None),
    ("settled", "router_payments_settled_total", None),
    ("refused", "router_payments_refused_total", None),
    ("duplicate", "router_payments_duplicate_total", None),
    ("default.settled", "router_payments_settled_total", Some(Processor::Default)),
    ("default.settledCents", "router_settled_cents_total", Some(Processor::Default)),
    ("fallback.settled", "router_payments_settled_total", Some(Processor::Fallback)),
    ("fallback.settledCents", "router_settled_cents_total", Some(Processor::Fallback)),
];

/// Those of the metrics, as of some moment.
fn growing(port: u16) -> [u64; GROWING.len()] {
    let metrics = metrics(port);
    GROWING.map(|(_, family, processor)| {
        let name = processor.map(|processor| processor.to_string());
        let of: Vec<_> = name.iter().map(|name| ("processor", name.as_str())).collect();
        metrics.sum(family, &of)
    })
}

/// The client of a contest, which does not outlive a test that failed.
struct Contest(Child);

impl Drop for Contest {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Compares the page with the metrics until a contest is over, and gives how often.
fn compare_during(browser: &mut Browser, live: &Live, port: u16, contest: &mut Contest) -> u32 {
    let of = |figures: &BTreeMap<String, String>, name: &str| -> Option<u64> {
        figures.get(name).map(|value| value.parse().unwrap())
    };
    let mut compared = 0;
    // The page is never more than two looks behind: what is later than a second look is not earlier
    // than the first.
    let (mut before, mut between) = (growing(port), growing(port));
    while contest.0.try_wait().unwrap().is_none() {
        let figures = browser.figures();
        if of(&figures, GROWING[0].0).is_none_or(|accepted| accepted <= between[0]) {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        let (after, summary) = (growing(port), live.summary());
        for (index, (name, ..)) in GROWING.iter().enumerate() {
            let value = of(&figures, name).unwrap();
            let range = before[index]..=after[index];
            assert!(range.contains(&value), "{name}: {value}, and the metrics {range:?}");
        }
        if let Some(count) = of(&figures, "range.requests") {
            assert!(count <= summary[0].count + summary[1].count, "{count}, and {summary:?}");
        }
        compared += 1;
        (before, between) = (between, after);
    }
    compared
}

#[test]
fn the_page_shows_a_contest_as_metrics_and_summary_tell_it() {
    let Some(mut browser) = Browser::start() else {
        eprintln!("skipped: the page in a browser, because there is no Chromium or no playwright");
        return;
    };
    let (live, port) = Live::monitored(&["--allow-purge"]);
    browser.open(port);
    let reports = tempfile::tempdir().unwrap();
    let router = format!("http://127.0.0.1:{}", live.port());
    let [default, fallback] = Processor::ALL.map(|processor| live.processor_url(processor));
    let contest = Command::new(launcher())
        .args(["run", "contest", "--time-scale", "0.2", "--against", &router])
        .args(["--default-url", &default, "--fallback-url", &fallback, "--out"])
        .arg(reports.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut contest = Contest(contest);
    let compared = compare_during(&mut browser, &live, port, &mut contest);
    assert!(contest.0.wait().unwrap().success());
    assert!(compared > 1, "the page was compared {compared} times");
    wait_for("the end of the backlog", || {
        (metrics(port).sum("router_backlog_payments", &[]) == 0).then_some(())
    });
    compare(&mut browser, &live, port);
    let Heard { complaints, .. } = browser.heard();
    assert!(complaints.is_empty(), "{complaints:?}");
    browser.end();
}

/// A browser gives a server no more connections than six, and each tab has one of them.
fn with_six_tabs_says_why_nothing_comes(browser: &mut Browser) {
    let () = browser.tell(r#"{"do":"crowd","count":5}"#);
    let sum_up = "document.querySelector('#range-form button').click()";
    let _: Option<u32> = browser.tell(&format!(r#"{{"do":"value","expression":"{sum_up}"}}"#));
    browser.until_says("#range-error", "each tab of this page takes one");
    let () = browser.tell(r#"{"do":"disperse"}"#);
    browser.until("document.getElementById('range-error').textContent === ''");
}

/// The page goes on by itself after an API and the monitor were killed and started again.
fn goes_on(browser: &mut Browser, live: &Live, port: u16, count: u64) {
    live.system().kill("api-2").unwrap();
    browser.until_says("#problems", "api-2 is down");
    browser.until_says("#health", "degraded");
    live.start_again("api-2");
    browser.until_says("#health", "well");
    browser.until_says("#notes", "is back");

    // What the monitor cannot tell anything of makes what was told old news.
    let (run, aside) = (live.volume().run(), live.volume().root().join("aside"));
    std::fs::rename(&run, &aside).unwrap();
    browser.until_says("#health", "not known");
    browser.until("document.body.classList.contains('is-stale')");
    std::fs::rename(&aside, &run).unwrap();
    browser.until_says("#health", "well");
    browser.until("!document.body.classList.contains('is-stale')");

    live.system().kill("monitor").unwrap();
    browser.until_says("#health", "no connection to the monitor");
    browser.until_says("#why", "the monitor does not answer: it has ended");
    assert_eq!(live.connect().post("/payments", &payment(FIRST + 50)).status, 202);
    live.wait_settled(count + 1);
    live.start_again("monitor");
    browser.until_says("#health", "well");
    browser.until("document.getElementById('why').textContent === ''");
    compare(browser, live, port);
    let mark: u32 = browser.tell(r#"{"do":"value","expression":"window.mark"}"#);
    assert_eq!(mark, 1, "the page was loaded again");
    let complaints = browser.heard().complaints;
    let is_told = |what: &String| what.contains(REFUSED) || what.contains("status of 503");
    assert!(complaints.iter().all(is_told), "{complaints:?}");
}
