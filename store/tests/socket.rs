//! A store that decides by itself: what every store does, and what only this one does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod suite;

use std::process::Command;

use ledger::journal::Event;
use ledger::protocol::{PurgeNotice, Request, Response};
use ledger::{Cents, RangeMs, Totals};
use suite::{Site, append, record, settled};

/// Nothing but the store itself.
struct Backing {
    arguments: Vec<String>,
}

impl Backing {
    fn start() -> Self {
        Self { arguments: Vec::new() }
    }

    fn arguments(&self) -> Vec<String> {
        self.arguments.clone()
    }
}

#[test]
fn a_purge_waits_until_every_instance_has_agreed() {
    let site = Site::start();
    let (mut one, two) = (site.journal(1), site.journal(2));
    append(&mut one, &[record(7, Event::Accepted), record(7, settled())]);
    let (mut line_one, mut line_two) = (site.instance(1), site.instance(2));
    let asked = line_one.say(Request::Purge);
    assert_eq!(line_one.hear(), Some((0, Response::PreparePurge { serial: 1 })));
    assert_eq!(line_two.hear(), Some((0, Response::PreparePurge { serial: 1 })));
    line_two.say(Request::PurgePrepared { serial: 1 });
    line_one.say(Request::PurgePrepared { serial: 1 });
    let notice = |cut| (0, Response::PurgeNotice(PurgeNotice { purge: 1, cut }));
    assert_eq!(line_one.hear(), Some(notice(one.end())));
    assert_eq!(line_one.hear(), Some((asked, Response::Purged)));
    assert_eq!(line_two.hear(), Some(notice(two.end())));
    let summary = Response::Summary([Totals::default(); 2]);
    assert_eq!(line_two.ask(Request::Summarize(RangeMs::ALL)), summary);
}

#[test]
fn a_purge_that_an_instance_does_not_agree_to_is_given_up() {
    let site = Site::start();
    let (mut one, _two) = (site.journal(1), site.journal(2));
    append(&mut one, &[record(7, Event::Accepted), record(7, settled())]);
    let (mut line_one, mut line_two) = (site.instance(1), site.instance(2));
    let asked = line_one.say(Request::Purge);
    assert_eq!(line_one.hear(), Some((0, Response::PreparePurge { serial: 1 })));
    line_one.say(Request::PurgePrepared { serial: 1 });
    // The other one says nothing.
    assert_eq!(line_one.hear(), Some((0, Response::PurgeAborted)));
    match line_one.hear() {
        Some((number, Response::Refused(why))) => {
            assert_eq!(number, asked);
            assert!(why.contains("nothing was purged") && why.contains("api-2"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(line_two.hear(), Some((0, Response::PreparePurge { serial: 1 })));
    assert_eq!(line_two.hear(), Some((0, Response::PurgeAborted)));
    let totals = Totals::of_payment(Cents::new(1990));
    let summary = Response::Summary([totals, Totals::default()]);
    assert_eq!(line_two.ask(Request::Summarize(RangeMs::ALL)), summary);

    // Its answer comes while the next purge waits, and agrees to nothing.
    let asked = line_one.say(Request::Purge);
    assert_eq!(line_one.hear(), Some((0, Response::PreparePurge { serial: 2 })));
    line_one.say(Request::PurgePrepared { serial: 2 });
    line_two.say(Request::PurgePrepared { serial: 1 });
    assert_eq!(line_one.hear(), Some((0, Response::PurgeAborted)));
    assert!(matches!(line_one.hear(), Some((number, Response::Refused(_))) if number == asked));
}

#[test]
fn an_instance_that_runs_and_is_not_connected_stops_a_purge() {
    let site = Site::start();
    let _two = site.journal(2);
    drop(site.instance(2));
    let _one = site.journal(1);
    let mut line = site.instance(1);
    let asked = line.say(Request::Purge);
    assert_eq!(line.hear(), Some((0, Response::PreparePurge { serial: 1 })));
    line.say(Request::PurgePrepared { serial: 1 });
    assert_eq!(line.hear(), Some((0, Response::PurgeAborted)));
    match line.hear() {
        Some((number, Response::Refused(why))) => {
            assert_eq!(number, asked);
            assert!(why.contains("api-2 runs and is not connected"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_that_cannot_be_used_end_it_with_64() {
    for arguments in [&["--cache-mib=0"][..], &["--dta=x"], &["--log-format=xml"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_store")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_store")).arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("PAYROUTER_STORE_CACHE_MIB"), "{text}");
}
