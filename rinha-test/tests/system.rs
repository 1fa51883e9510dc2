//! The hold on a running system that tests and fault runs use.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use ledger::clock::Monotonic;
use rinha_test::up::log::Log;
use rinha_test::up::process::ProcessSpec;
use rinha_test::up::supervisor::Keeping;
use rinha_test::up::system::{System, SystemError};
use rustix::process::Signal;
use support::{exists, launcher, wait_for};
use tempfile::TempDir;

/// Lives until it is told to end.
const LIVES: &str = "trap 'exit 0' TERM; while :; do sleep 0.02; done";

/// Will not be told.
const STUBBORN: &str = "trap '' TERM; echo ready > \"$0\"; while :; do sleep 0.02; done";

fn spec(name: &str, script: &str, argument: &str) -> ProcessSpec {
    ProcessSpec {
        name: name.to_owned(),
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into(), argument.into()],
        stage: 0,
        socket: None,
    }
}

fn start(folder: &TempDir, restart: bool, specs: Vec<ProcessSpec>) -> System {
    let keeping = Keeping {
        join: Vec::new(),
        launcher: launcher(),
        run_folder: folder.path().to_owned(),
        restart,
        grace: Duration::from_millis(300),
        log: Log::to_stdout(specs.iter().map(|spec| spec.name.as_str())),
    };
    System::start(keeping, specs).unwrap()
}

fn pid(system: &System, name: &str) -> u32 {
    wait_for("a running process", || system.status(name).unwrap().pid)
}

#[test]
fn a_process_can_be_stopped_killed_started_and_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let system = start(&folder, true, vec![spec("one", LIVES, "")]);
    let first = pid(&system, "one");

    system.kill("one").unwrap();
    let status = system.status("one").unwrap();
    assert_eq!(status.pid, None);
    assert_eq!(status.last_end.unwrap(), "was ended by signal 9 (SIGKILL)");
    assert!(!exists(first));
    // What was ended on purpose stays down for longer than the first pause.
    std::thread::sleep(Duration::from_millis(250));
    assert_eq!(system.status("one").unwrap().starts, 1);

    system.start_process("one").unwrap();
    system.start_process("one").unwrap();
    let second = pid(&system, "one");
    assert_ne!(first, second);
    assert_eq!(system.status("one").unwrap().starts, 2);

    system.restart("one").unwrap();
    assert_ne!(pid(&system, "one"), second);
    assert_eq!(system.status("one").unwrap().starts, 3);

    system.stop("one").unwrap();
    system.stop("one").unwrap();
    assert_eq!(system.status("one").unwrap().pid, None);
    system.shut_down();
}

#[test]
fn what_dies_is_started_again_and_never_sooner_than_its_pauses() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Monotonic::start();
    let system = start(&folder, true, vec![spec("one", "exit 9", "")]);
    wait_for("a fourth start", || (system.status("one").unwrap().starts >= 4).then_some(()));
    assert!(clock.elapsed() >= Duration::from_millis(100 + 200 + 400));
    let status = system.status("one").unwrap();
    assert_eq!(status.last_end.unwrap(), "ended with exit code 9");
}

#[test]
fn a_program_that_cannot_be_run_is_a_death_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut missing = spec("one", "", "");
    missing.program = folder.path().join("missing");
    let system = start(&folder, false, vec![missing]);
    let end = wait_for("its end", || system.status("one").unwrap().last_end);
    assert_eq!(end, "ended with exit code 1");
}

#[test]
fn a_process_that_will_not_end_is_killed_after_its_grace() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let system = start(&folder, true, vec![spec("one", STUBBORN, mark.to_str().unwrap())]);
    wait_for("its trap", || mark.exists().then_some(()));
    let clock = Monotonic::start();
    system.stop("one").unwrap();
    assert!(clock.elapsed() >= Duration::from_millis(300));
    let status = system.status("one").unwrap();
    assert_eq!(status.last_end.unwrap(), "was ended by signal 9 (SIGKILL)");
}

#[test]
fn a_signal_is_not_a_stop_so_the_process_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let system = start(&folder, true, vec![spec("one", LIVES, "")]);
    let first = pid(&system, "one");
    system.signal("one", Signal::KILL).unwrap();
    wait_for("another pid", || system.status("one").unwrap().pid.filter(|pid| *pid != first));
}

#[test]
fn all_can_be_killed_at_once_and_a_dropped_system_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let specs = ["one", "two", "three"].map(|name| spec(name, LIVES, ""));
    let system = start(&folder, true, specs.to_vec());
    let pids = ["one", "two", "three"].map(|name| pid(&system, name));
    system.kill_all();
    assert!(!pids.into_iter().any(exists));
    system.start_process("two").unwrap();
    let second = pid(&system, "two");
    drop(system);
    assert!(!exists(second));
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "pid files are left");
}

#[test]
fn a_name_that_is_none_is_refused_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let system = start(&folder, true, vec![spec("one", LIVES, "")]);
    let error = system.stop("two").unwrap_err();
    assert!(matches!(error, SystemError::Unknown { .. }));
    assert!(error.to_string().contains("it has one"), "{error}");
}
