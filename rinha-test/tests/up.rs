//! `rinha-test up` with stand-ins for the router's processes.

#![allow(clippy::unwrap_used)]

mod support;

use rinha_test::up::pid;
use rustix::process::{Pid, Signal, getpgid, kill_process};
use support::{Bench, NAMES, exists, serve_ok, wait_for};

fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn it_says_ready_once_everything_answers_and_not_before() {
    let bench = Bench::new();
    let runner = bench.up(&[]);
    for name in NAMES {
        bench.pid(name);
    }
    let [port, default, fallback] = bench.ports;
    serve_ok(default);
    serve_ok(fallback);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(runner.count("ready"), 0, "{:?}", runner.lines());
    serve_ok(port);
    let ready = runner.line("ready");
    runner.line(&format!("router              http://127.0.0.1:{port}"));
    let curl = runner.line("curl -i http://127.0.0.1");
    assert!(curl > ready);
    runner.line(&format!("curl http://127.0.0.1:{port}/payments-summary"));
    let (status, lines) = runner.end(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{lines:?}");
}

#[test]
fn every_process_has_a_pid_file_with_its_own_pid_and_a_group_of_its_own() {
    let bench = Bench::new();
    let runner = bench.up(&[]);
    assert_eq!(bench.pid("up"), runner.pid());
    for name in NAMES {
        let pid = bench.pid(name);
        runner.line(&format!("{name:18} | my pid is {pid} and"));
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        assert_eq!(getpgid(pid).unwrap(), pid.unwrap(), "{name}");
    }
    let (_, lines) = runner.end(Signal::TERM);
    for name in NAMES.iter().chain(&["up"]) {
        assert_eq!(pid::read(&bench.pid_path(name)), None, "{name}: {lines:?}");
    }
}

#[test]
fn sigterm_and_sigint_end_all_in_order_and_the_exit_code_is_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let bench = Bench::new();
        let runner = bench.up(&[]);
        for name in NAMES {
            runner.line(&format!("{name:18} | my pid is"));
        }
        let (status, lines) = runner.end(signal);
        assert_eq!(status.code(), Some(0), "{lines:?}");
        let at = |text: &str| {
            lines
                .iter()
                .position(|line| line.contains(text))
                .unwrap_or_else(|| panic!("no {text:?} in {lines:?}"))
        };
        let told = |name: &str| at(&format!("{name:18} | told to end"));
        let ended = |name: &str| at(&format!("{name} ended with exit code 0"));
        let stages: [&[&str]; 4] = [
            &["lb"],
            &["api-1", "api-2"],
            &["store"],
            &["processor-default", "processor-fallback"],
        ];
        for pair in stages.windows(2) {
            for earlier in pair[0] {
                for later in pair[1] {
                    assert!(ended(earlier) < told(later), "{earlier}, {later}: {lines:?}");
                }
            }
        }
    }
}

#[test]
fn what_dies_is_started_again_after_pauses_that_grow() {
    let bench = Bench::new();
    bench.stand_in("store", "#!/bin/sh\necho born\nexit 3\n");
    let runner = bench.up(&[]);
    let mut last = 0;
    for pause_ms in [100, 200, 400, 800] {
        let line = runner.line(&format!("it is started again in {pause_ms} ms"));
        assert!(line > last || last == 0);
        last = line;
        let text = runner.lines()[line].clone();
        assert!(text.contains("WARN store ended with exit code 3 after "), "{text}");
    }
    // A death is told after the last words of the life that it ends.
    assert!(runner.count("store              | born") >= 4);
    let (status, lines) = runner.end(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{lines:?}");
}

#[test]
fn a_process_killed_by_a_signal_comes_back_with_another_pid() {
    let bench = Bench::new();
    let runner = bench.up(&[]);
    runner.line("api-2              | my pid is");
    let before = bench.pid("api-2");
    kill(before, Signal::KILL);
    runner.line("api-2 was ended by signal 9 (SIGKILL) after ");
    let after = wait_for("another pid", || {
        pid::read(&bench.pid_path("api-2")).filter(|pid| *pid != before)
    });
    runner.line(&format!("api-2              | my pid is {after} and"));
}

#[test]
fn without_restart_the_dead_stay_dead() {
    let bench = Bench::new();
    let runner = bench.up(&["--no-restart"]);
    runner.line("store              | my pid is");
    kill(bench.pid("store"), Signal::KILL);
    runner.line("store was ended by signal 9 (SIGKILL) after ");
    runner.line("it stays down");
    assert_eq!(pid::read(&bench.pid_path("store")), None);
    let (status, lines) = runner.end(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{lines:?}");
    let births = lines.iter().filter(|line| line.contains("store              | my pid is"));
    assert_eq!(births.count(), 1, "{lines:?}");
}

#[test]
fn a_killed_runner_takes_its_processes_along_and_the_next_one_waits_for_them() {
    let bench = Bench::new();
    let mut killed = bench.up(&[]);
    for name in NAMES {
        killed.line(&format!("{name:18} | my pid is"));
    }
    let pids = NAMES.map(|name| bench.pid(name));
    killed.signal(Signal::KILL);
    // The next one is started at once, while they are still at it.
    let next = bench.up(&[]);
    next.line("waiting for ");
    for name in NAMES {
        next.line(&format!("{name:18} | my pid is"));
    }
    for (name, pid) in NAMES.iter().zip(pids) {
        wait_for(&format!("the end of {name}"), || (!exists(pid)).then_some(()));
    }
    killed = next;
    let (status, lines) = killed.end(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{lines:?}");
}

#[test]
fn a_port_in_use_is_reported_before_anything_is_started() {
    let bench = Bench::new();
    for (port, option) in
        bench.ports.into_iter().zip(["--port", "--default-port", "--fallback-port"])
    {
        let holder = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let error = bench.refused(&[]);
        assert!(error.contains(&format!("port {port} is in use")), "{error}");
        assert!(error.contains(option), "{error}");
        drop(holder);
    }
    // The simulators' ports do not matter where none are started.
    let _holder = std::net::TcpListener::bind(("127.0.0.1", bench.ports[1])).unwrap();
    let runner = bench.up(&["--processors", "http://127.0.0.1:1,http://127.0.0.1:2"]);
    runner.line("lb    | my pid is");
    runner.line("--default-url http://127.0.0.1:1 --fallback-url http://127.0.0.1:2");
    let (_, lines) = runner.end(Signal::TERM);
    assert!(!lines.concat().contains("processor-default"), "{lines:?}");
}

#[test]
fn what_no_new_start_would_help_ends_everything_with_its_exit_code() {
    for (code, why) in [(64, "a setting of it is wrong"), (65, "data is damaged")] {
        for more in [&[][..], &["--no-restart"]] {
            let bench = Bench::new();
            bench.stand_in("api", &format!("#!/bin/sh\necho born >&2\nexit {code}\n"));
            let (ended, text) = bench.ended(more);
            assert_eq!(ended, Some(code), "{text}");
            let sentence = format!("rinha-test: api-1 ended with exit code {code} because {why}");
            assert!(text.contains(&sentence), "{text}");
            assert_eq!(text.matches("api-1              | born").count(), 1, "{text}");
            assert!(text.contains("everything has ended"), "{text}");
            for name in NAMES {
                assert_eq!(pid::read(&bench.pid_path(name)), None, "{name}: {text}");
            }
        }
    }
}

#[test]
fn a_purge_is_allowed_only_where_the_user_says_so() {
    for (more, expected) in [(&[][..], 0), (&["--allow-purge"], 2)] {
        let bench = Bench::new();
        let runner = bench.up(more);
        for name in NAMES {
            runner.line(&format!("{name:18} | my pid is"));
        }
        assert_eq!(runner.count("--allow-purge"), expected, "{:?}", runner.lines());
    }
}

#[test]
fn ports_that_contradict_each_other_are_wrong_usage() {
    let mut bench = Bench::new();
    let processors = ["--processors", "http://127.0.0.1:1,http://127.0.0.1:2"];
    for option in ["--default-port", "--fallback-port"] {
        let (code, text) = bench.ended(&[&processors[..], &[option, "7"]].concat());
        assert_eq!(code, Some(64), "{text}");
        assert!(text.contains(&format!("{option} <PORT>")), "{text}");
    }
    bench.ports[1] = bench.ports[0];
    let (code, text) = bench.ended(&[]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("--port and --default-port are both set to port"), "{text}");
}

#[test]
fn a_second_runner_in_the_same_folder_is_refused() {
    let bench = Bench::new();
    let runner = bench.up(&[]);
    let pid = bench.pid("up");
    let mut other = Bench::new();
    other.data.clone_from(&bench.data);
    let error = other.refused(&[]);
    assert!(error.contains(&format!("another `rinha-test up` (pid {pid})")), "{error}");
    drop(runner);
}

#[test]
fn a_missing_program_is_named() {
    let bench = Bench::new();
    std::fs::remove_file(bench.programs().join("api")).unwrap();
    let error = bench.refused(&[]);
    assert!(error.contains("programs/api is no program"), "{error}");
    assert!(error.contains("cargo build"), "{error}");
}

#[test]
fn wrong_usage_is_refused_with_64_and_help_teaches() {
    let bench = Bench::new();
    let run = |more: &[&str]| bench.command(more).output().unwrap();
    assert_eq!(run(&["--prot"]).status.code(), Some(64));
    for urls in ["http://a", "http://a/y,http://b/y", "http://a,http://a"] {
        assert_eq!(run(&["--processors", urls]).status.code(), Some(64), "{urls}");
    }
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let help = String::from_utf8(help.stdout).unwrap();
    for text in ["--no-restart", "--processors", "kill -9", "Ctrl-C", "9999"] {
        assert!(help.contains(text), "{help}");
    }
    assert!(!help.contains("child"), "{help}");
}
