//! Several machines, with journals, APIs and a store each, on one ledger in a real PostgreSQL: every payment is
//! paid once, whoever takes it in and whatever dies.

#![allow(clippy::unwrap_used)]

mod live;
#[path = "../../store/tests/postgres/mod.rs"]
mod postgres;
mod support;

use ledger::{Processor, RangeMs};
use live::connection::Connection;
use live::load::Load;
use live::{Live, id, ids, payment};
use postgres::Postgres;
use rinha_test::up::process::ProcessSpec;
use support::wait_for;

/// Payments that are posted to both machines.
const COUNT: u32 = 10_000;
/// Clients of each machine.
const CLIENTS: u32 = 4;

/// A store that shares the ledger at this address.
fn sharing(url: String) -> impl Fn(&mut ProcessSpec) + 'static {
    move |spec| {
        if spec.name == "store" {
            spec.arguments.extend(["--database".into(), url.clone().into()]);
        }
    }
}

/// Posts all of these, by several clients.
fn post(port: u16, numbers: std::ops::Range<u32>) {
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let numbers = numbers.clone().filter(move |number| number % CLIENTS == client);
            scope.spawn(move || {
                let mut connection = Connection::open(port);
                for number in numbers {
                    assert_eq!(connection.post("/payments", &payment(number)).status, 202);
                }
            });
        }
    });
}

/// Waits until each load has so many payments more accepted.
fn wait_for_more(loads: &[Load], count: u32) {
    for load in loads {
        load.wait_for_more(count);
    }
}

/// Waits until so many payments are settled by all machines, as each of them says, and demands that the
/// processors' books say the same of each payment.
fn demand(machines: &[&Live], count: u32) {
    for machine in machines {
        wait_for(&format!("{count} settled payments"), || {
            let settled = machine.router().summary(RangeMs::ALL).ok()?;
            let settled: u64 = settled.iter().map(|totals| totals.count).sum();
            assert!(settled <= u64::from(count), "{settled}");
            (settled == u64::from(count)).then_some(())
        });
        assert_eq!(machine.agreed_books(), ids(count));
    }
}

#[test]
fn what_is_posted_to_two_machines_at_once_is_paid_once_also_when_one_is_lost() {
    let postgres = Postgres::start();
    let one = Live::changed(sharing(postgres.url()));
    let mut two = one.beside(None, sharing(postgres.url()));
    let (first, second) = (one.port(), two.port());
    let half = COUNT / 2;
    std::thread::scope(|scope| {
        scope.spawn(move || post(first, 0..half));
        post(second, 0..half);
    });
    demand(&[&one, &two], half);
    // What one has settled the other can tell of.
    for machine in [&one, &two] {
        let known = machine.get(&format!("/payments/{}", id(7)));
        assert!(known.body.contains("\"settled\""), "{}", known.body);
    }

    // One is killed while payments wait in both, and its volume goes on elsewhere.
    for processor in Processor::ALL {
        one.fail(processor, true);
    }
    std::thread::scope(|scope| {
        scope.spawn(move || post(first, half..COUNT));
        post(second, half..COUNT);
    });
    two.kill_all();
    for processor in Processor::ALL {
        one.fail(processor, false);
    }
    let three = one.beside(Some(&two.volume()), sharing(postgres.url()));
    demand(&[&one, &three], COUNT);
    // Every id is known on both.
    post(three.port(), 0..200);
    post(first, 0..200);
    post(three.port(), COUNT..COUNT + 100);
    demand(&[&one, &three], COUNT + 100);
}

#[test]
fn a_database_that_fails_over_to_its_standby_loses_nothing_and_pays_nothing_twice() {
    let mut primary = Postgres::start();
    let standby = primary.synchronous_standby();
    let url = primary.url_of_either(&standby);
    let one = Live::changed(sharing(url.clone()));
    let two = one.beside(None, sharing(url));
    // The same ids to both.
    let loads = [Load::start(one.port(), 4), Load::start(two.port(), 4)];
    wait_for_more(&loads, 1000);
    primary.kill();
    // Accepted all the same, and nothing is sent that is not decided.
    wait_for_more(&loads, 500);
    standby.promote();
    wait_for_more(&loads, 1000);
    let counts = loads.map(|load| load.stop_and_repeat().count);
    let count = counts[0].max(counts[1]);
    demand(&[&one, &two], count);
}

#[test]
fn what_only_a_primary_has_that_was_started_again_is_not_believed() {
    let mut primary = Postgres::start();
    let mut standby = primary.synchronous_standby();
    let one = Live::changed(sharing(primary.url_of_either(&standby)));
    post(one.port(), 0..10);
    demand(&[&one], 10);
    // A right is committed, and confirmed to nobody, because the standby has not got it.
    standby.kill();
    post(one.port(), 10..11);
    wait_for("the claim to wait for the standby", || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' \
            AND query LIKE '%INSERT INTO ledger_claims%'";
        (primary.number(waiting) > 0).then_some(())
    });
    primary.kill();
    primary.start_again();
    assert_eq!(primary.number("SELECT count(*) FROM ledger_claims"), 11);
    // The store asks again and sees it. If the standby took the primary's place now, nobody would know of it.
    wait_for("the store to wait for the standby", || {
        // Or for its other connection, which waits for the standby.
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
            AND query LIKE 'UPDATE ledger_volumes%'";
        (primary.number(waiting) > 0).then_some(())
    });
    let sent: u64 = Processor::ALL.map(|p| one.recorded(p).len() as u64).iter().sum();
    assert_eq!(sent, 10);
    standby.start_again();
    demand(&[&one], 11);
}
