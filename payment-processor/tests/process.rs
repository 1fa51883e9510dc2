//! The process itself: its help, its settings, its log, its addresses, its end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use ledger::clock::Monotonic;
use rustix::process::{Pid, Signal, kill_process};
use support::{Connection, PATIENCE, get, pay, put};

const BINARY: &str = env!("CARGO_BIN_EXE_payment-processor");

/// What the binary says, where it is to end by itself.
fn output(arguments: &[&str]) -> Output {
    let mut child = Command::new(BINARY).args(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let clock = Monotonic::start();
    while child.try_wait().unwrap().is_none() {
        if clock.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it does not end: {:?}", child.wait_with_output());
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

/// The binary, killed where a test leaves it running.
struct Process {
    child: Child,
    log: BufReader<ChildStderr>,
    first_line: String,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut first_line = String::new();
        log.read_line(&mut first_line).unwrap();
        Self { child, log, first_line }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let (_, rest) = self.first_line.split_once("listening on ").unwrap();
        rest.split([' ', ',', '\n']).filter_map(|word| word.parse().ok()).collect()
    }

    /// Sends a signal; returns the exit code and the rest of the log.
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_log_tells_no_token_at_any_level() {
    let mut command = Command::new(BINARY);
    command.args(["--listen=127.0.0.1:0", "--token=open-sesame", "--log-level=debug"]);
    let process = Process::start(&mut command);
    let mut log = process.first_line.clone();
    let mut connection = Connection::open(process.addresses()[0]);
    let with_token =
        |request: String, token: &str| request.replace("Token: 123", &format!("Token: {token}"));
    assert_eq!(connection.ask(pay(1)).status, 200);
    let summary = get("/admin/payments-summary");
    assert_eq!(connection.ask(with_token(summary.clone(), "wrong-sesame")).status, 401);
    assert_eq!(connection.ask(with_token(summary.clone(), "open-sesame")).status, 200);
    let change = put("/admin/configurations/token", r#"{"token":"other-sesame"}"#);
    assert_eq!(connection.ask(with_token(change, "open-sesame")).status, 204);
    assert_eq!(connection.ask(with_token(summary, "other-sesame")).status, 200);
    let (code, rest) = process.end(Signal::TERM);
    assert_eq!(code, Some(0));
    log += &rest;
    assert!(log.contains("listening on") && !log.contains("sesame"), "{log}");
}

#[test]
fn the_help_teaches_every_setting_and_hides_the_token_of_the_environment() {
    let help = Command::new(BINARY)
        .arg("--help")
        .env("PAYROUTER_PROCESSOR_TOKEN", "open-sesame")
        .output()
        .unwrap();
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    for text in [
        "--listen",
        "--fee",
        "--token",
        "--health-window-ms",
        "--running-max",
        "--waiting-max",
        "--threads",
        "--log-format",
        "PAYROUTER_PROCESSOR_HEALTH_WINDOW_MS",
        "/admin/configurations/delay",
        "Examples:",
    ] {
        assert!(help.contains(text), "{text}: {help}");
    }
    assert!(!help.contains("sesame"), "{help}");
}

#[test]
fn settings_that_make_no_sense_end_it_with_64_and_a_sentence() {
    for (arguments, sentence) in [
        (&["--fee", "5"][..], "--fee must be a fraction"),
        (&["--fee=-0.05"], "--fee must be a fraction"),
        (&["--fee", "0.1234567"], "at most 6 decimal places"),
        (&["--fee", "five"], "--fee"),
        (&["--token", ""], "--token"),
        (&["--token", "open sesame"], "--token: token must be"),
        (&["--running-max", "0"], "--running-max"),
        (&["--threads", "0"], "--threads"),
        (&["--health-window-ms", "0"], "--health-window-ms"),
        (&["--listen", "localhost"], "--listen"),
        (
            &["--listen", "127.0.0.1:9", "--listen", "127.0.0.1:9"],
            "--listen names 127.0.0.1:9 twice",
        ),
        (&["--delay", "1"], "--delay"),
    ] {
        let output = output(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {error}");
        assert!(error.contains(sentence), "{arguments:?}: {error}");
        assert!(!error.contains("sesame"), "{error}");
    }
}

#[test]
fn an_address_in_use_is_named_and_not_shared() {
    let first = Process::start(Command::new(BINARY).args(["--listen", "127.0.0.1:0"]));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [first.addresses()[0], taken.local_addr().unwrap()] {
        let output = output(&["--listen", &address.to_string()]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(70), "{error}");
        let sentence = format!("{address} is already in use");
        assert!(error.contains(&sentence), "{error}");
    }
    assert_eq!(Connection::open(first.addresses()[0]).ask(pay(1)).status, 200);
}

#[test]
fn a_connection_made_while_it_starts_is_refused_or_answered_and_never_broken_off() {
    for _ in 0..20 {
        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let trying = thread::spawn(move || {
            let clock = Monotonic::start();
            let mut connection = loop {
                match TcpStream::connect(address) {
                    Ok(connection) => break connection,
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) => panic!("{error}"),
                }
                assert!(clock.elapsed() < PATIENCE, "nobody listens on {address}");
            };
            connection.write_all(get("/payments/service-health").as_bytes()).unwrap();
            let mut answer = [0; 12];
            connection.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
        });
        let process = Process::start(Command::new(BINARY).args(["--listen", &address.to_string()]));
        trying.join().unwrap();
        drop(process);
    }
}

#[test]
fn an_address_of_another_machine_is_an_error_too() {
    let output = output(&["--listen", "192.0.2.1:8001"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(70), "{error}");
    assert!(error.contains("cannot listen on 192.0.2.1:8001"), "{error}");
}

#[test]
fn several_addresses_lead_to_the_same_books() {
    let process = Process::start(
        Command::new(BINARY)
            .args(["--fee", "0.15", "--threads", "2"])
            .env("PAYROUTER_PROCESSOR_LISTEN", "127.0.0.1:0,127.0.0.1:0"),
    );
    assert!(process.first_line.contains("0.15"), "{}", process.first_line);
    let addresses = process.addresses();
    assert_eq!(addresses.len(), 2);
    assert_eq!(Connection::open(addresses[0]).ask(pay(1)).status, 200);
    assert_eq!(Connection::open(addresses[1]).ask(pay(1)).status, 422);
}

#[test]
fn a_signal_ends_it_with_0_also_while_payments_run_and_calls_are_held() {
    for signal in [Signal::TERM, Signal::INT] {
        let process = Process::start(Command::new(BINARY).args(["--listen", "127.0.0.1:0"]));
        let address = process.addresses()[0];
        let mut connections: Vec<_> = (0..3).map(|_| Connection::open(address)).collect();
        let delay = put("/admin/configurations/delay", r#"{"delay":3600000}"#);
        assert_eq!(connections[0].ask(delay).status, 200);
        assert_eq!(connections[0].ask(get("/payments/service-health")).status, 200);
        connections[0].send(get("/payments/service-health"));
        connections[1].send(pay(1));
        let (code, log) = process.end(signal);
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("asked to end by a signal"), "{log}");
    }
}

#[test]
fn the_log_has_a_line_at_the_start_and_none_per_request_and_never_a_token() {
    let process = Process::start(
        Command::new(BINARY)
            .args(["--listen", "127.0.0.1:0", "--log-level", "debug"])
            .env("PAYROUTER_PROCESSOR_TOKEN", "open-sesame"),
    );
    assert!(process.first_line.contains("fee=0.05"), "{}", process.first_line);
    let mut connection = Connection::open(process.addresses()[0]);
    let change = put("/admin/configurations/token", r#"{"token":"open-barley"}"#);
    assert_eq!(connection.ask(&change).status, 401);
    let admitted = change.replace("Token: 123", "Token: open-sesame");
    assert_eq!(connection.ask(admitted).status, 204);
    assert_eq!(connection.ask(pay(1)).status, 200);
    let first_line = process.first_line.clone();
    let (_, rest) = process.end(Signal::TERM);
    assert_eq!(rest.lines().count(), 1, "{rest}");
    for secret in ["sesame", "barley"] {
        assert!(!first_line.contains(secret), "{first_line}");
        assert!(!rest.contains(secret), "{rest}");
    }
}
