//! What the status says of routers of all kinds.

use std::fmt::Write;

use super::*;
use crate::gather::DaemonDown;
use crate::text::Exposition;

/// A name, a kind, and samples: their labels as they are written, and their values.
type Told<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

fn reading(daemon: &str, families: &[Told<'_>]) -> Reading {
    let mut text = String::new();
    for (name, kind, samples) in families {
        writeln!(text, "# HELP {name} Help.\n# TYPE {name} {kind}").unwrap();
        for (labels, value) in *samples {
            let suffix = if *kind == "counter" { "_total" } else { "" };
            writeln!(text, "{name}{suffix}{labels} {value}").unwrap();
        }
    }
    let metrics = Ok(Exposition::parse(format!("{text}# EOF\n")).unwrap());
    Reading { daemon: daemon.to_owned(), metrics }
}

pub fn api(name: &str, accepted: &str, breaker: [&str; 3], age: &str, accepting: &str) -> Reading {
    let [closed, half_open, open] = breaker;
    reading(
        name,
        &[
            ("router_payments_accepted", "counter", &[("", accepted)]),
            (
                "router_payments_settled",
                "counter",
                &[("{processor=\"default\"}", "5"), ("{processor=\"fallback\"}", "1")],
            ),
            ("router_settled_cents", "counter", &[("{processor=\"default\"}", "1234567")]),
            ("router_backlog_payments", "gauge", &[("", "3")]),
            ("router_backlog_limit_payments", "gauge", &[("", "500000")]),
            ("router_backlog_oldest_age_seconds", "gauge", &[("", age)]),
            ("router_accepting", "gauge", &[("", accepting)]),
            ("router_store_connected", "gauge", &[("", "1")]),
            (
                "router_breaker_state",
                "gauge",
                &[
                    ("{processor=\"default\",state=\"closed\"}", "1"),
                    ("{processor=\"fallback\",state=\"closed\"}", closed),
                    ("{processor=\"fallback\",state=\"open\"}", open),
                    ("{processor=\"fallback\",state=\"half_open\"}", half_open),
                ],
            ),
            ("router_processor_failing", "gauge", &[("{processor=\"default\"}", "0")]),
            ("router_notes", "counter", &[("", "1")]),
            ("process_start_time_seconds", "gauge", &[("", "1000.25")]),
            ("process_resident_memory_bytes", "gauge", &[("", "12582912")]),
            ("process_cpu_seconds", "counter", &[("", "1.5")]),
        ],
    )
}

pub const ALL_CLOSED: [&str; 3] = ["1", "0", "0"];
const OPEN: [&str; 3] = ["0", "0", "1"];

/// The reading with this value in all samples of a family.
pub fn with(reading: Reading, name: &str, value: &str) -> Reading {
    let metrics = reading.metrics.unwrap();
    assert!(metrics.family(name).is_some_and(|family| family.samples().next().is_some()));
    let is_meant = |line: &str| {
        let rest = line.strip_prefix(name).map(|rest| rest.strip_prefix("_total").unwrap_or(rest));
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
    };
    let text = metrics.text().lines().map(|line| match line.rsplit_once(' ') {
        Some((before, _)) if is_meant(line) => format!("{before} {value}\n"),
        _ => format!("{line}\n"),
    });
    Reading { metrics: Ok(Exposition::parse(text.collect()).unwrap()), ..reading }
}

pub fn silent(daemon: &str) -> Reading {
    Reading { daemon: daemon.to_owned(), metrics: Err(DaemonDown::Silent) }
}

fn store(behind: &str) -> Reading {
    reading(
        "store",
        &[
            ("router_store_apis", "gauge", &[("", "2")]),
            (
                "router_store_behind_records",
                "gauge",
                &[("{api=\"api-1\"}", behind), ("{api=\"api-2\"}", "0")],
            ),
        ],
    )
}

pub fn archiving_store(connected: &str, lag: &str) -> Reading {
    store_with("archive", connected, lag)
}

pub fn sharing_store(connected: &str, lag: &str) -> Reading {
    store_with("ledger", connected, lag)
}

fn store_with(database: &str, connected: &str, lag: &str) -> Reading {
    let name = |what: &str| format!("router_{database}_{what}");
    let told = reading(
        "store",
        &[
            (name("connected").as_str(), "gauge", &[("", connected)]),
            (name("payments").as_str(), "counter", &[("", "1204")]),
            (name("lag_seconds").as_str(), "gauge", &[("", lag)]),
            (name("behind_bytes").as_str(), "gauge", &[("", "96")]),
        ],
    );
    let [store, told] = [store("0"), told].map(|reading| reading.metrics.unwrap());
    let text = store.text().trim_end_matches("# EOF\n").to_owned() + told.text();
    Reading { daemon: "store".to_owned(), metrics: Ok(Exposition::parse(text).unwrap()) }
}

#[test]
fn an_archive_is_told_where_there_is_one() {
    let api = || api("api-1", "6", ALL_CLOSED, "0", "1");
    assert_eq!(Status::of(&[api(), store("0")]).archive, None);
    let status = Status::of(&[api(), archiving_store("1", "0.25")]);
    assert_eq!((status.health, status.problems), (Health::Well, vec![]));
    let archive =
        DatabaseStatus { connected: true, payments: 1204, lag_s: 0.25, behind_bytes: Some(96) };
    assert_eq!(status.archive, Some(archive));
}

#[test]
fn payments_are_summed_and_a_router_without_problems_is_well() {
    let well = [
        api("api-1", "6", ALL_CLOSED, "1.5", "1"),
        api("api-2", "7", ALL_CLOSED, "0.0", "1"),
        store("9"),
    ];
    let status = Status::of(&well);
    assert_eq!((status.health, status.problems), (Health::Well, vec![]));
    let Payments { accepted, settled, backlog, oldest_age_s, .. } = status.payments.unwrap();
    assert_eq!((accepted, settled, backlog), (13, 12, 6));
    assert!((oldest_age_s - 1.5).abs() < 1e-9);
    let [default, fallback] = &status.processors[..] else { panic!("two processors") };
    assert_eq!(
        (default.settled, default.settled_cents, default.breaker),
        (10, 2_469_134, "closed")
    );
    assert_eq!((default.failing, fallback.failing), (Some(false), None));
    assert_eq!(default.settled_amount().to_string(), "24691.34");
    assert_eq!(status.store.unwrap().behind_records, Some(9));
    assert_eq!(status.daemons[0].resident_bytes, Some(12 << 20));
}

#[test]
fn each_problem_makes_it_degraded_and_is_told() {
    let well = || api("api-1", "6", ALL_CLOSED, "30.0", "1");
    let other = || api("api-2", "6", ALL_CLOSED, "0", "1");
    let half_open = ["0", "1", "0"];
    let lb = reading("lb", &[("router_lb_api_alive", "gauge", &[("{api=\"api-2\"}", "0")])]);
    for (more, problem) in [
        (silent("lb"), "lb is down: it does not answer within 1s"),
        (api("api-2", "6", OPEN, "0", "1"), "the breaker of the fallback processor is open"),
        (api("api-2", "6", half_open, "0", "1"), "fallback processor is half-open"),
        (with(other(), "router_backlog_oldest_age_seconds", "30.6"), "has waited for 31 s"),
        (with(other(), "router_accepting", "0"), "api-2 takes no payments"),
        (
            with(other(), "router_backlog_limit_payments", "3"),
            "api-2 takes no payments: its backlog",
        ),
        (with(other(), "router_store_connected", "0"), "api-2 is not connected to the store"),
        (lb, "the balancer passes api-2 over"),
        (store("100001"), "the store is 100001 records behind"),
        (archiving_store("0", "2.5"), "nothing is archived"),
        (archiving_store("1", "300.7"), "the archive is 301 s behind"),
        (sharing_store("0", "2.5"), "no payment is sent: the shared ledger cannot be asked"),
        (sharing_store("1", "300.7"), "the shared ledger is 301 s behind"),
    ] {
        let mut readings = vec![well(), more];
        if readings[1].daemon != STORE {
            readings.push(store("0"));
        }
        let status = Status::of(&readings);
        assert_eq!(status.health, Health::Degraded, "{problem}");
        assert_eq!(status.problems.len(), 1, "{:?}", status.problems);
        assert!(status.problems[0].contains(problem), "{:?}", status.problems);
    }
    assert_eq!(Status::of(&[well(), store("100000")]).health, Health::Well);
    assert_eq!(Status::of(&[]).health, Health::Unknown);
}

/// A breaker closes with the next call that succeeds. A router without payments was degraded
/// for ever after an outage.
#[test]
fn a_breaker_that_is_not_closed_is_no_problem_while_nothing_waits_and_the_processor_is_well() {
    let idle = with(api("api-1", "6", OPEN, "0", "1"), "router_backlog_payments", "0");
    assert!(idle.metrics.as_ref().unwrap().family("router_processor_failing").is_some());
    let status = Status::of(&[idle, store("0")]);
    assert_eq!((status.health, status.problems), (Health::Well, vec![]));
    assert_eq!(status.processors[1].breaker, "open");

    let open = [("{processor=\"default\",state=\"open\"}", "1")];
    let breaker = ("router_breaker_state", "gauge", &open[..]);
    for (failing, problems) in [("0", 0), ("1", 1)] {
        let failing = [("{processor=\"default\"}", failing)];
        let told = [breaker, ("router_processor_failing", "gauge", &failing[..])];
        let status = Status::of(&[reading("api-1", &told), store("0")]);
        assert_eq!(status.problems.len(), problems, "{:?}", status.problems);
    }
}

#[test]
fn where_nothing_is_known_nothing_is_told_and_no_zero() {
    let status = Status::of(&[silent("api-1"), silent("api-2"), store("9")]);
    assert_eq!(status.problems.len(), 2, "{:?}", status.problems);
    assert_eq!((status.payments.as_ref(), status.processors.len()), (None, 0));
    let json = sonic_rs::to_string(&status).unwrap();
    assert!(json.contains("\"apis\":{\"known\":2,\"answering\":0},\"payments\":null"), "{json}");

    let one = || api("api-1", "6", ALL_CLOSED, "0", "1");
    let status = Status::of(&[one(), store("9")]);
    assert_eq!(status.store.unwrap().behind_records, Some(9));
    // The journal of this one cannot be looked at.
    let third = with(one(), "router_backlog_payments", "0");
    let third = Reading { daemon: "api-3".to_owned(), ..third };
    let status = Status::of(&[one(), third, store("9")]);
    assert_eq!(status.store.unwrap().behind_records, None);
}

#[test]
fn what_no_router_is_without_is_missed() {
    let missing = |readings: &[Reading]| Status::of(readings).problems;
    assert_eq!(missing(&[store("0")]), ["no API is known"]);
    let api = with(api("api-1", "6", ALL_CLOSED, "0", "1"), "router_backlog_payments", "0");
    assert_eq!(missing(&[api]), ["no store is known"]);
}

#[test]
fn rates_are_by_second_and_of_a_daemon_that_began_anew_what_it_has_counted_since() {
    let api = |accepted| api("api-1", accepted, ALL_CLOSED, "0", "1");
    let rate = |before: &Reading, after: &Reading| {
        let mut status = Status::of(std::slice::from_ref(after));
        status.compare(&Status::of(std::slice::from_ref(before)), 2.0);
        (status.rates.map(|rates| rates.accepted_per_s), status.daemons[0].cpus)
    };
    assert_eq!(rate(&api("6"), &api("10")), (Some(2.0), Some(0.0)));
    assert_eq!(rate(&api("10"), &api("6")), (Some(3.0), Some(0.0)));
    let anew = with(api("12"), "process_start_time_seconds", "1001.5");
    let anew = with(anew, "process_cpu_seconds", "0.5");
    assert_eq!(rate(&api("10"), &anew), (Some(6.0), Some(0.25)));
}

#[test]
fn rates_are_told_of_each_processor_and_of_each_api_too() {
    let api = |name: &str, accepted| api(name, accepted, ALL_CLOSED, "0", "1");
    let before = Status::of(&[api("api-1", "6"), api("api-2", "6")]);
    let more = with(api("api-1", "10"), "router_payments_settled", "7");
    let mut status = Status::of(&[more, api("api-2", "9")]);
    assert_eq!(status.processors[0].settled_per_s, None);
    status.compare(&before, 2.0);
    let settled: Vec<_> = status.processors.iter().map(|of| of.settled_per_s).collect();
    assert_eq!(settled, [Some(1.0), Some(3.0)]);
    let accepted: Vec<_> = status.daemons.iter().map(|of| of.accepted_per_s).collect();
    assert_eq!(accepted, [Some(2.0), Some(1.5)]);
    let rates = status.rates.unwrap();
    assert_eq!((rates.accepted_per_s, rates.settled_per_s), (3.5, 4.0));
}

/// All that the daemon had ever counted was taken for what it had counted since.
#[test]
fn a_daemon_that_misses_a_look_gives_no_rate_at_the_next() {
    let two = |count| api("api-2", count, ALL_CLOSED, "0", "1");
    let one = |count| api("api-1", count, ALL_CLOSED, "0", "1");
    let looks = [
        Status::of(&[one("10"), two("1000000000")]),
        Status::of(&[one("13"), silent("api-2")]),
        Status::of(&[one("17"), two("1000000020")]),
        Status::of(&[silent("api-1"), two("1000000025")]),
        Status::of(&[one("99"), silent("api-2")]),
    ];
    let rates = looks.windows(2).map(|looks| {
        let mut after = looks[1].clone();
        after.compare(&looks[0], 1.0);
        after.rates.map(|rates| rates.accepted_per_s)
    });
    assert_eq!(rates.collect::<Vec<_>>(), [Some(3.0), Some(4.0), Some(5.0), None]);
}
