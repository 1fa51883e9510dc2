//! The running router while its processes die, end and come back.

#![allow(clippy::unwrap_used)]

mod live;
mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ledger::{Processor, RangeMs};
use live::load::Load;
use live::{Live, id, ids, payment};
use rustix::process::Signal;
use support::{PATIENCE, wait_for};

/// What a client posts between two faults, at least.
const BETWEEN_FAULTS: u32 = 200;

#[test]
fn every_process_of_the_router_may_be_killed_under_load() {
    let live = Live::start();
    let load = Load::start(live.port(), 8);
    for name in ["api-1", "api-2", "lb", "store", "api-1"] {
        load.wait_for_more(BETWEEN_FAULTS);
        live.system().kill(name).unwrap();
        // One API takes over for the other, and nobody but the store answers for sums.
        if name != "lb" {
            load.wait_for_more(BETWEEN_FAULTS);
        }
        live.start_again(name);
    }
    load.wait_for_more(BETWEEN_FAULTS);
    let posted = load.stop_and_repeat();
    live.wait_settled(u64::from(posted.count));
    assert_eq!(live.agreed_books(), ids(posted.count));
    // A client has one request in flight, and loses at most that one to each kill; the kill of the
    // balancer costs it none.
    assert!(posted.unanswered.len() <= 8 * 5, "{posted:?}");
}

/// The folder of a file is private as well, but a copy of it elsewhere may not be.
#[test]
fn everything_that_is_kept_is_for_its_owner_only() {
    let live = Live::start();
    let load = Load::start(live.port(), 2);
    load.wait_for_more(BETWEEN_FAULTS);
    load.stop_and_repeat();
    live.wait_until_it_answers();
    let root = live.volume().root().to_owned();
    wait_for("a published report", || live.volume().health().join("state").exists().then_some(()));
    let mut folders = vec![root.clone()];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // A file that was renamed or removed meanwhile tells nothing.
            let Ok(metadata) = path.symlink_metadata() else { continue };
            assert_eq!(metadata.permissions().mode() & 0o077, 0, "{}", path.display());
            count += 1;
            if metadata.is_dir() {
                folders.push(path);
            }
        }
    }
    assert!(count > 20, "{count} files were looked at");
}

/// The database is damaged while the store runs, which is then killed and started again, or finds out
/// by itself.
#[test]
fn the_stores_database_may_be_destroyed_under_load() {
    type Damage = fn(&Path);
    let damages: [Damage; 4] = [
        |database| drop(std::fs::remove_dir_all(database)),
        |database| change_files(database, Vec::clear),
        |database| change_files(database, |bytes| bytes.fill(0xa5)),
        |database| {
            change_files(database, |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle / 2..middle].fill(0xa5);
            });
        },
    ];
    let live = Live::that_restarts();
    let load = Load::start(live.port(), 8);
    for damage in damages {
        for is_killed in [true, false] {
            load.wait_for_more(BETWEEN_FAULTS);
            live.wait_until_it_answers();
            damage(&live.volume().store().join("sled-0"));
            load.wait_for_more(BETWEEN_FAULTS);
            if is_killed {
                // It may have ended by itself, and be about to be started again.
                let _ = live.system().signal("store", Signal::KILL);
            }
            live.wait_until_it_answers();
        }
    }
    let posted = load.stop_and_repeat();
    wait_for("all payments to be settled", || {
        let answer = live.router().summary(RangeMs::ALL).ok()?;
        let count: u64 = answer.iter().map(|totals| totals.count).sum();
        (count >= u64::from(posted.count)).then_some(())
    });
    assert_eq!(live.agreed_books(), ids(posted.count));
}

/// Changes the bytes of each file of a folder, as far as it is there.
fn change_files(folder: &Path, mut change: impl FnMut(&mut Vec<u8>)) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if let Ok(mut bytes) = std::fs::read(&path) {
            change(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn after_the_death_of_everything_the_summary_is_the_same_and_old_payments_are_known() {
    for durability in ["process", "disk"] {
        let mut live = Live::changed(move |spec| {
            if spec.name.starts_with("api-") {
                spec.arguments.push(format!("--durability={durability}").into());
            }
        });
        for mut connection in live.connect_to_both() {
            for number in 0..100 {
                let body = payment(2 * number + u32::from(number % 3 == 0));
                assert_eq!(connection.post("/payments", &body).status, 202);
            }
        }
        live.wait_settled(100);
        let before = live.summary();
        live.kill_all_and_start();
        assert_eq!(live.summary(), before);

        for mut connection in live.connect_to_both() {
            for number in 0..100 {
                let body = payment(2 * number + u32::from(number % 3 == 0));
                assert_eq!(connection.post("/payments", &body).status, 202);
            }
        }
        // What came after the old payments is settled: so are they, if they ever would be.
        for (number, mut connection) in (1000..).zip(live.connect_to_both()) {
            assert_eq!(connection.post("/payments", &payment(number)).status, 202);
        }
        live.wait_settled(102);
        // The processors have forgotten the old ones, so they would have recorded them again.
        let recorded: Vec<_> = live.recorded(Processor::Default).into_keys().collect();
        assert_eq!(recorded, [id(1000), id(1001)]);
    }
}

#[test]
fn what_was_accepted_is_settled_after_the_death_of_everything() {
    let mut live = Live::start();
    for processor in Processor::ALL {
        live.fail(processor, true);
    }
    for mut connection in live.connect_to_both() {
        for number in 0..50 {
            assert_eq!(connection.post("/payments", &payment(number)).status, 202);
        }
    }
    assert_eq!(live.settled_count(), 0);
    // The new simulators do not fail.
    live.kill_all_and_start();
    live.wait_settled(50);
    assert_eq!(live.agreed_books(), ids(50));
}

#[test]
fn without_the_store_payments_are_taken_in_and_settled_once_it_is_back() {
    let live = Live::start();
    live.system().kill("store").unwrap();
    for mut connection in live.connect_to_both() {
        for number in 0..50 {
            assert_eq!(connection.post("/payments", &payment(number)).status, 202);
        }
        wait_for("an API that knows", || {
            (connection.get("/payments-summary").status == 503).then_some(())
        });
        let answer = connection.get("/payments-summary");
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(answer.error().contains("store"), "{answer:?}");
    }
    live.start_again("store");
    live.wait_settled(50);
    assert_eq!(live.agreed_books(), ids(50));
}

#[test]
fn a_processor_that_is_gone_is_waited_for() {
    let live = Live::with_api(&["--patience-ms=600000"]);
    // Else it would get what waits once no payment comes in any more.
    live.fail(Processor::Fallback, true);
    live.system().kill("processor-default").unwrap();
    for mut connection in live.connect_to_both() {
        for number in 0..50 {
            assert_eq!(connection.post("/payments", &payment(number)).status, 202);
        }
    }
    assert_eq!(live.settled_count(), 0);
    live.start_again("processor-default");
    live.wait_settled(50);
    assert_eq!(live.agreed_books(), ids(50));
    assert_eq!(live.summary()[Processor::Default.index()].count, 50);
}

#[test]
fn told_to_end_under_load_every_process_ends_well_and_loses_nothing() {
    let live = Live::start();
    let load = Load::start(live.port(), 8);
    for name in ["api-1", "lb", "store", "api-2"] {
        load.wait_for_more(BETWEEN_FAULTS);
        live.system().stop(name).unwrap();
        let end = live.system().status(name).unwrap().last_end;
        assert_eq!(end.as_deref(), Some("ended with exit code 0"), "{name}");
        live.start_again(name);
    }
    let posted = load.stop_and_repeat();
    live.wait_settled(u64::from(posted.count));
    assert_eq!(live.agreed_books(), ids(posted.count));
}

#[test]
fn with_no_api_left_clients_are_told_so() {
    let live = Live::start();
    for name in ["api-1", "api-2"] {
        live.system().kill(name).unwrap();
    }
    wait_for("a balancer that knows", || {
        (live.get("/payments-summary").status == 503).then_some(())
    });
    let answer = live.connect().post("/payments", &payment(0));
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(!answer.error().is_empty());
    live.start_again("api-2");
}

#[test]
fn an_api_that_stands_still_holds_up_only_its_own_clients() {
    let live = Live::start();
    let connections = live.connect_to_both();
    let pid = live.system().status("api-1").unwrap().pid.unwrap();
    live.system().signal("api-1", Signal::STOP).unwrap();
    wait_for("a stopped api-1", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.contains("State:\tT").then_some(())
    });
    let (sender, answers) = std::sync::mpsc::channel();
    let readers: Vec<_> = (0..)
        .zip(connections)
        .map(|(number, mut connection)| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let answer = connection.post("/payments", &payment(number));
                sender.send(answer.status).unwrap();
            })
        })
        .collect();
    // Whichever of the two is on the API that goes on is answered while the other one stands still.
    assert_eq!(answers.recv_timeout(PATIENCE), Ok(202));
    assert_eq!(answers.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty));
    live.system().signal("api-1", Signal::CONT).unwrap();
    assert_eq!(answers.recv_timeout(PATIENCE), Ok(202));
    for reader in readers {
        reader.join().unwrap();
    }
    live.wait_settled(2);
    assert_eq!(live.agreed_books(), ids(2));
}
