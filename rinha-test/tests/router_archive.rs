//! The whole router with an archive, a real PostgreSQL: what clients were told is settled is there, and
//! a router on a volume that was restored from it answers as the one that was lost.

#![allow(clippy::unwrap_used)]

mod live;
#[path = "../../store/tests/postgres/mod.rs"]
mod postgres;
mod support;

use std::process::Command;

use ledger::Processor;
use live::{Live, id, ids, payment};
use postgres::Postgres;

/// Payments that are posted before something happens.
const STEP: u32 = 200;

/// A router whose store archives.
fn archiving(postgres: &Postgres) -> Live {
    let url = postgres.url();
    Live::changed(move |spec| {
        if spec.name == "store" {
            spec.arguments.extend(["--archive".into(), url.clone().into()]);
        }
    })
}

/// One on a volume that is restored before anything is started on it.
fn archiving_restored(postgres: &Postgres) -> Live {
    let url = postgres.url();
    Live::changed(move |spec| {
        if spec.name == "store" {
            let mut restore = Command::new(&spec.program);
            restore.args(["restore", "--from", &url]).args(&spec.arguments);
            assert!(restore.status().unwrap().success());
            spec.arguments.extend(["--archive".into(), url.clone().into()]);
        }
    })
}

fn post(live: &Live, numbers: std::ops::Range<u32>) {
    let mut connections = live.connect_to_both();
    for number in numbers {
        let connection = &mut connections[number as usize % 2];
        assert_eq!(connection.post("/payments", &payment(number)).status, 202);
    }
}

/// Demands that the archive has what the processors have recorded, to the millisecond.
fn check(postgres: &Postgres, live: &Live, count: u32) {
    postgres.wait_for_payments(u64::from(count));
    let mut expected: Vec<_> = Processor::ALL
        .into_iter()
        .flat_map(|processor| {
            live.recorded(processor).into_values().map(move |recorded| {
                let requested_at = recorded.requested_at.get().to_string();
                vec![
                    recorded.id.to_string(),
                    "19.90".to_owned(),
                    processor.to_string(),
                    requested_at,
                ]
            })
        })
        .collect();
    expected.sort_unstable();
    assert_eq!(expected.len(), count as usize);
    let archived = postgres.query(
        "SELECT correlation_id, amount, processor, (extract(epoch FROM requested_at) * 1000)::bigint \
         FROM payments WHERE accepted_at <= requested_at AND requested_at <= settled_at ORDER BY 1",
    );
    assert_eq!(archived, expected);
}

#[test]
fn what_a_router_settles_is_archived_whatever_dies_and_a_restored_one_goes_on() {
    let mut postgres = Postgres::start();
    let live = archiving(&postgres);
    post(&live, 0..STEP);
    live.system().kill("store").unwrap();
    post(&live, STEP..2 * STEP);
    live.start_again("store");
    postgres.kill();
    post(&live, 2 * STEP..3 * STEP);
    live.fail(Processor::Default, true);
    post(&live, 3 * STEP..4 * STEP);
    live.fail(Processor::Default, false);
    live.wait_settled(u64::from(4 * STEP));
    postgres.start_again();
    check(&postgres, &live, 4 * STEP);
    assert_eq!(live.agreed_books(), ids(4 * STEP));

    let before = live.summary();
    let lost = live.volume();
    live.system().kill("store").unwrap();
    // The machine is gone; another one takes its place.
    let new = archiving_restored(&postgres);
    assert_ne!(new.volume().root(), lost.root());
    assert_eq!(new.summary(), before);
    let known = new.get(&format!("/payments/{}", id(7)));
    assert!(known.body.contains("\"settled\""), "{}", known.body);
    // Posted again, nothing is sent; what is new is.
    post(&new, 0..STEP);
    post(&new, 4 * STEP..5 * STEP);
    new.wait_settled(u64::from(5 * STEP));
    let sent: usize = Processor::ALL.map(|processor| new.recorded(processor).len()).iter().sum();
    assert_eq!(sent, STEP as usize);
    postgres.wait_for_payments(u64::from(5 * STEP));
}
