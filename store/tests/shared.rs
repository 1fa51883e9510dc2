//! Stores that share a ledger in a real PostgreSQL: what every store does, and what they do together.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod postgres;
mod suite;

use std::cell::RefCell;
use std::process::{Command, Output};
use std::rc::Rc;

use ledger::journal::{Event, PaymentRecord, Position};
use ledger::protocol::{Request, Response};
use ledger::{Cents, CorrelationId, Processor, RangeMs, TimestampMs, Totals};
use postgres::{Postgres, wait_for};
use suite::{Line, Site, append, record, settled};

/// The database of a ledger.
struct Backing(Rc<RefCell<Postgres>>);

impl Backing {
    fn start() -> Self {
        Self(Rc::new(RefCell::new(Postgres::start())))
    }

    fn arguments(&self) -> Vec<String> {
        vec!["--database".to_owned(), self.0.borrow().url()]
    }
}

/// Two machines with one ledger.
fn machines() -> [Site; 2] {
    let backing = Backing::start();
    let other = Backing(Rc::clone(&backing.0));
    [Site::with(backing), Site::with(other)]
}

fn claim(line: &mut Line, through: Position) -> Vec<Position> {
    wait_for("a decision", || match line.ask(Request::Claim { through }) {
        Response::Claimed { through: decided, losers } => {
            assert_eq!(decided, through);
            Some(losers)
        }
        Response::Refused(_) => None,
        other => panic!("{other:?}"),
    })
}

fn summary(line: &mut Line, range: RangeMs) -> [Totals; 2] {
    wait_for("a summary", || match line.ask(Request::Summarize(range)) {
        Response::Summary(sums) => Some(sums),
        Response::Refused(_) => None,
        other => panic!("{other:?}"),
    })
}

fn paid(count: u64) -> [Totals; 2] {
    let cents = i64::try_from(count).unwrap() * 1990;
    [Totals { count, amount: Cents::new(cents) }, Totals::default()]
}

fn wide(number: u32) -> CorrelationId {
    let mut id = [7; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    CorrelationId::from_bytes(id)
}

/// What a store says that is started with these arguments and ends by itself.
fn ended(site: &Site, arguments: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_store"))
        .arg("--data")
        .arg(site.folder.path())
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn an_id_belongs_to_one_machine_alone() {
    let sites = machines();
    let mut journals = sites.each_ref().map(|site| site.journal(1));
    let mut lines = sites.each_ref().map(|site| site.instance(1));
    // The same ids on both, in another order on either.
    let records = |numbers: Vec<u32>| -> Vec<_> {
        let with = |id| PaymentRecord { id, ..record(0, Event::Accepted) };
        numbers.into_iter().map(|number| with(wide(number))).collect()
    };
    append(&mut journals[0], &records((0..1000).collect()));
    append(&mut journals[1], &records((500..1500).rev().collect()));
    let ends = journals.each_ref().map(ledger::journal::Journal::end);
    let losers = std::thread::scope(|scope| {
        let claims: Vec<_> = lines
            .iter_mut()
            .zip(ends)
            .map(|(line, end)| scope.spawn(move || claim(line, end)))
            .collect();
        claims.into_iter().map(|claim| claim.join().unwrap().len()).collect::<Vec<_>>()
    });
    assert_eq!(losers.iter().sum::<usize>(), 500, "{losers:?}");
    // Asked again, by stores that were killed meanwhile, it is as it was.
    let [mut one, mut two] = sites;
    one.start_again();
    two.start_again();
    let again = [&one, &two].map(|site| claim(&mut site.instance(1), ends[0]).len());
    assert_eq!(again[..], losers[..]);
}

#[test]
fn a_summary_has_what_all_machines_have_settled() {
    let sites = machines();
    let mut lines = sites.each_ref().map(|site| site.instance(1));
    // Not as many here as there.
    for (site, number) in [(&sites[0], 6), (&sites[0], 7), (&sites[1], 8)] {
        let mut journal = site.journal(1);
        let event = |event| record(number, event);
        append(&mut journal, &[event(Event::Accepted), event(settled())]);
    }
    for line in &mut lines {
        wait_for("all", || (summary(line, RangeMs::ALL) == paid(3)).then_some(()));
        let at = |ms| RangeMs { from: TimestampMs::clamped(ms), to: TimestampMs::clamped(ms) };
        assert_eq!(summary(line, at(0)), paid(3));
        assert_eq!(summary(line, at(1)), paid(0));
        // What another machine has settled is known here as well.
        for number in [6, 7, 8] {
            let id = CorrelationId::from_bytes([number; 16]);
            assert_eq!(
                line.ask(Request::Look(id)),
                Response::Payment(Some(record(number, settled())))
            );
        }
    }
}

/// Has the only instance of a volume agree to a purge.
fn purge(line: &mut Line) {
    let asked = line.say(Request::Purge);
    let Some((0, Response::PreparePurge { serial })) = line.hear() else { panic!("no purge") };
    line.say(Request::PurgePrepared { serial });
    assert!(matches!(line.hear(), Some((0, Response::PurgeNotice(_)))));
    assert_eq!(line.hear(), Some((asked, Response::Purged)));
}

#[test]
fn a_purge_takes_what_one_machine_has_settled_and_leaves_what_is_on_its_way() {
    const SETTLED: u8 = 6;
    const IN_FLIGHT: u8 = 7;
    const UNSENT: u8 = 8;
    const OTHERS: u8 = 9;
    let [mut here, there] = machines();
    let (mut ours, mut theirs) = (here.journal(1), there.journal(1));
    let (mut our_line, mut their_line) = (here.instance(1), there.instance(1));
    let accepted = |numbers: &[u8]| -> Vec<_> {
        numbers.iter().map(|number| record(*number, Event::Accepted)).collect()
    };
    append(&mut ours, &accepted(&[SETTLED, IN_FLIGHT, UNSENT]));
    append(&mut theirs, &accepted(&[OTHERS]));
    assert_eq!(claim(&mut our_line, ours.end()), []);
    assert_eq!(claim(&mut their_line, theirs.end()), []);
    let (processor, requested_at) = (Processor::Default, TimestampMs::clamped(0));
    let sent = Event::Dispatched { processor, requested_at };
    append(&mut ours, &[record(SETTLED, settled()), record(IN_FLIGHT, sent)]);
    append(&mut theirs, &[record(OTHERS, settled())]);
    for line in [&mut our_line, &mut their_line] {
        wait_for("both", || (summary(line, RangeMs::ALL) == paid(2)).then_some(()));
    }

    purge(&mut our_line);
    assert_eq!(summary(&mut our_line, RangeMs::ALL), paid(1));
    wait_for("what is left", || (summary(&mut their_line, RangeMs::ALL) == paid(1)).then_some(()));
    // What was settled may be paid again, by anyone. What may be at a processor is nobody's, and what was not
    // sent is still this machine's.
    let first = append(&mut theirs, &accepted(&[IN_FLIGHT, UNSENT, SETTLED]));
    assert_eq!(claim(&mut their_line, theirs.end()), [first, first.next()]);
    let first = append(&mut ours, &accepted(&[IN_FLIGHT, UNSENT, SETTLED, OTHERS]));
    let lost = [first, first.plus(2), first.plus(3)];
    assert_eq!(claim(&mut our_line, ours.end()), lost);
    // What was on its way counts once it has arrived.
    append(&mut ours, &[record(IN_FLIGHT, settled())]);
    for line in [&mut our_line, &mut their_line] {
        wait_for("both again", || (summary(line, RangeMs::ALL) == paid(2)).then_some(()));
    }
    // And its id stays taken, also for a store that begins anew.
    for _ in 0..2 {
        let again = append(&mut ours, &accepted(&[IN_FLIGHT]));
        let mut line = here.instance(1);
        let losers = claim(&mut line, ours.end());
        assert!(losers.contains(&again), "{losers:?}");
        here.start_again();
    }
}

#[test]
fn a_purge_while_the_database_is_away_is_carried_out_before_anything_is_decided() {
    let [mut here, there] = machines();
    let mut journal = here.journal(1);
    let mut line = here.instance(1);
    append(&mut journal, &[record(7, Event::Accepted)]);
    assert_eq!(claim(&mut line, journal.end()), []);
    append(&mut journal, &[record(7, settled())]);
    let mut their_line = there.instance(1);
    wait_for("it", || (summary(&mut their_line, RangeMs::ALL) == paid(1)).then_some(()));
    here.backing.0.borrow_mut().kill();
    purge(&mut line);
    // The same id, which the ledger still has as settled.
    append(&mut journal, &[record(7, Event::Accepted)]);
    let refused = line.ask(Request::Claim { through: journal.end() });
    assert!(matches!(refused, Response::Refused(_)), "{refused:?}");
    // Also by a store that begins anew.
    here.start_again();
    here.backing.0.borrow_mut().start_again();
    let mut line = here.instance(1);
    assert_eq!(claim(&mut line, journal.end()), []);
    append(&mut journal, &[record(7, settled())]);
    for line in [&mut line, &mut their_line] {
        wait_for("it alone", || (summary(line, RangeMs::ALL) == paid(1)).then_some(()));
    }
}

#[test]
fn while_the_database_is_away_nothing_is_decided_and_afterwards_all_is() {
    let sites = machines();
    let site = &sites[0];
    let mut line = site.instance(1);
    let mut journal = site.journal(1);
    append(&mut journal, &[record(7, Event::Accepted)]);
    assert_eq!(claim(&mut line, journal.end()), []);
    append(&mut journal, &[record(7, settled()), record(8, Event::Accepted)]);
    site.backing.0.borrow_mut().kill();
    for request in [
        Request::Claim { through: journal.end() },
        Request::Summarize(RangeMs::ALL),
        Request::Look(CorrelationId::from_bytes([9; 16])),
    ] {
        let refused = line.ask(request);
        assert!(matches!(refused, Response::Refused(_)), "{refused:?}");
    }
    // What is known here is told without it.
    let here = CorrelationId::from_bytes([7; 16]);
    assert_eq!(line.ask(Request::Look(here)), Response::Payment(Some(record(7, settled()))));
    site.backing.0.borrow_mut().start_again();
    assert_eq!(claim(&mut line, journal.end()), []);
    // It had what was decided before, and has what was settled meanwhile.
    let mut theirs = sites[1].journal(1);
    let losers = [7, 8].map(|number| append(&mut theirs, &[record(number, Event::Accepted)]));
    let mut their_line = sites[1].instance(1);
    assert_eq!(claim(&mut their_line, theirs.end()), losers);
    wait_for("it", || (summary(&mut their_line, RangeMs::ALL) == paid(1)).then_some(()));
}

/// Lets the ledger have that what was once at the beginning of this volume's first journal has the right to
/// an id.
fn claim_for_nobody(site: &Site, number: u8) {
    let volume = std::fs::read_to_string(site.volume().store().join("volume-id")).unwrap();
    let id = CorrelationId::from_bytes([number; 16]);
    let place = Position::START.to_u64();
    site.backing.0.borrow().query(&format!(
        "INSERT INTO ledger_claims VALUES ('{id}', '{}', 1, {place})",
        volume.trim()
    ));
}

#[test]
fn a_right_of_a_record_that_a_power_cut_took_passes_to_one_that_is_there() {
    let [site, other] = machines();
    let mut journals = [site.journal(1), site.journal(2)];
    let mut lines = [site.instance(1), site.instance(2)];
    // An earlier one of the second journal is closed; it has no right that it could keep from others.
    append(&mut journals[1], &[record(7, Event::Accepted), record(7, Event::Duplicate)]);
    claim_for_nobody(&site, 7);
    // Another one is in its place by now.
    append(&mut journals[0], &[record(8, Event::Accepted)]);
    // Posted again, through both APIs, before either is decided upon.
    append(&mut journals[0], &[record(7, Event::Accepted)]);
    let loser = append(&mut journals[1], &[record(7, Event::Accepted)]);
    assert_eq!(claim(&mut lines[0], journals[0].end()), []);
    assert_eq!(claim(&mut lines[1], journals[1].end()), [loser]);
    let mut theirs = other.journal(1);
    let loser = append(&mut theirs, &[record(7, Event::Accepted)]);
    assert_eq!(claim(&mut other.instance(1), theirs.end()), [loser]);
}

#[test]
fn a_right_of_a_payment_that_was_settled_passes_to_nobody() {
    let site = Site::start();
    let mut journal = site.journal(1);
    let mut line = site.instance(1);
    claim_for_nobody(&site, 7);
    let id = CorrelationId::from_bytes([7; 16]);
    let postgres = site.backing.0.borrow();
    for sql in [
        "CREATE TABLE ledger_payments_other PARTITION OF ledger_payments DEFAULT".to_owned(),
        format!(
            "INSERT INTO ledger_payments VALUES ('{id}', 19.90, 'default', now(), now(), now())"
        ),
    ] {
        postgres.query(&sql);
    }
    let first = append(&mut journal, &[record(8, Event::Accepted), record(7, Event::Accepted)]);
    assert_eq!(claim(&mut line, journal.end()), [first.next()]);
}

/// What lost and is closed is not held any more by a store that is started again.
#[test]
fn a_segment_with_closed_duplicates_is_let_go() {
    let mut site = Site::start();
    // The volume has joined.
    drop(site.instance(1));
    let mut journal = site.journal(1);
    append(&mut journal, &[record(7, Event::Accepted)]);
    assert_eq!(claim(&mut site.instance(1), journal.end()), []);
    let later = [settled(), Event::Accepted, Event::Duplicate];
    append(&mut journal, &later.map(|event| record(7, event)));
    site.start_again();
    let through = journal.end();
    for _ in 0..2 {
        assert_eq!(claim(&mut site.instance(1), through), []);
        site.start_again();
    }
}

#[test]
fn an_older_copy_of_a_volume_decides_nothing() {
    let mut site = Site::start();
    drop(site.instance(1));
    let mut journal = site.journal(1);
    append(&mut journal, &[record(7, Event::Accepted), record(7, settled())]);
    assert_eq!(claim(&mut site.instance(1), journal.end()), []);
    wait_for("it to be written", || {
        let count = site.backing.0.borrow().number("SELECT count(*) FROM ledger_payments");
        (count == 1).then_some(())
    });
    drop(journal);
    site.store.kill().unwrap();
    site.store.wait().unwrap();
    // As it was before anything was written.
    for view in ["sled-0", "index"] {
        std::fs::remove_dir_all(site.volume().store().join(view)).unwrap();
    }
    std::fs::remove_file(site.volume().journal(1).join("0000000001.journal")).unwrap();
    let mut journal = site.journal(1);
    site.start_again();
    append(&mut journal, &[record(7, Event::Accepted)]);
    let refused = site.instance(1).ask(Request::Claim { through: journal.end() });
    assert!(format!("{refused:?}").contains("older copy"), "{refused:?}");
}

#[test]
fn a_store_whose_volume_another_one_has_taken_over_decides_nothing_any_more() {
    let site = Site::start();
    let mut journal = site.journal(1);
    let mut line = site.instance(1);
    append(&mut journal, &[record(7, Event::Accepted)]);
    assert_eq!(claim(&mut line, journal.end()), []);
    // The volume on another machine, while the store here still runs.
    site.backing.0.borrow().query("UPDATE ledger_volumes SET holder = gen_random_uuid()");
    append(&mut journal, &[record(8, Event::Accepted)]);
    for _ in 0..2 {
        let refused = line.ask(Request::Claim { through: journal.end() });
        let why = format!("{refused:?}");
        assert!(
            matches!(refused, Response::Refused(_)) && why.contains("taken this volume"),
            "{why}"
        );
    }
}

#[test]
fn a_volume_joins_when_it_is_new_and_for_good() {
    let backing = Backing::start();
    let with_ledger = backing.arguments();
    let mut site = Site::with(backing);
    drop(site.instance(1));
    site.store.kill().unwrap();
    site.store.wait().unwrap();
    let output = ended(&site, &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("--database"), "{text}");

    // One that has decided by itself.
    let alone = tempfile::tempdir().unwrap();
    ledger::volume::Volume::new(alone.path()).create().unwrap();
    std::fs::write(alone.path().join("store/claims.log"), "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_store"))
        .arg("--data")
        .arg(alone.path())
        .args(&with_ledger)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("only a new volume"), "{text}");

    // Another database is another ledger, and the store says so and decides nothing.
    site.backing = Backing::start();
    site.start_again();
    let mut journal = site.journal(1);
    append(&mut journal, &[record(7, Event::Accepted)]);
    let refused = site.instance(1).ask(Request::Claim { through: journal.end() });
    assert!(format!("{refused:?}").contains("has joined ledger"), "{refused:?}");
}

#[test]
fn a_table_that_was_changed_is_no_reason_for_another_database() {
    let backing = Backing::start();
    let postgres = Rc::clone(&backing.0);
    let mut site = Site::with(backing);
    let mut journal = site.journal(1);
    append(&mut journal, &[record(1, Event::Accepted)]);
    assert!(claim(&mut site.instance(1), journal.end()).is_empty());
    postgres.borrow().query("ALTER TABLE ledger_claims RENAME COLUMN place TO position");
    site.start_again();
    append(&mut journal, &[record(2, Event::Accepted)]);
    let mut line = site.instance(1);
    wait_for("the reason", || {
        let answer = format!("{:?}", line.ask(Request::Claim { through: journal.end() }));
        assert!(answer.contains("Refused"), "{answer}");
        answer.contains("no other database can be used").then_some(())
    });
}
