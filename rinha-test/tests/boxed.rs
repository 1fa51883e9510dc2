//! What a backend leaves behind is ended with its box. Skipped where no box can be made.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use rinha_test::machine::cgroup::Limits;
use rinha_test::stress::subject::Boxed;
use rinha_test::up::log::Log;
use rinha_test::up::process::ProcessSpec;
use rinha_test::up::supervisor::Keeping;
use support::{exists, launcher, wait_for};

#[test]
fn a_process_that_has_left_its_parent_is_ended_with_the_box() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("left.pid");
    // In a session of its own no signal to the backend reaches it.
    let left = format!("setsid sh -c 'echo $$ > {}; exec sleep 600' &", path.display());
    let spec = ProcessSpec {
        name: "backend".to_owned(),
        program: "/bin/sh".into(),
        arguments: ["-c".to_owned(), format!("{left} exec sleep 600")].map(Into::into).to_vec(),
        stage: 0,
        socket: None,
    };
    let keeping = Keeping {
        launcher: launcher(),
        run_folder: folder.path().to_owned(),
        restart: false,
        grace: Duration::from_secs(30),
        log: Log::to_stdout(["backend"]),
        join: Vec::new(),
    };
    let limits = Limits { cpus: 1.0, memory_bytes: 64 << 20 };
    let boxed = Boxed::start(keeping, vec![spec], Some(limits), "rinha-test-left").unwrap();
    let pid: u32 = wait_for("the process that leaves", || {
        std::fs::read_to_string(&path).ok()?.trim().parse().ok()
    });
    assert!(exists(pid));
    if !boxed.has_box() {
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        return eprintln!("skipped: no box can be made here");
    }
    drop(boxed);
    assert!(!exists(pid));
}
