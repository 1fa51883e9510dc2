//! The units of `deploy/systemd/`: systemd takes them as they are, and what they start says when it is ready
//! and that it ends.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};
use support::{PATIENCE, free_ports, launcher, wait_for};

/// The units, with what each says when it is ready.
const UNITS: [(&str, &str); 4] = [
    ("payment-router-store.service", "answering"),
    ("payment-router-api@.service", "taking payments"),
    ("payment-router-lb.service", "listening on 127.0.0.1:"),
    ("payment-router-monitor.service", "listening on 127.0.0.1:"),
];

/// Where the units expect the programs and the data.
const PROGRAMS: &str = "/usr/local/lib/payment-router";
const DATA: &str = "/var/lib/payment-router";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd")
}

/// A setting of a unit.
fn setting<'a>(unit: &'a str, name: &str) -> &'a str {
    let value = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("there is no {name} in {unit}"))
}

/// What a unit starts, from the built programs and on this data folder. What it is set to is what the unit
/// and `router.env` say, and no port is taken that others may want.
fn command(unit: &str, data: &Path, manager: &Path) -> Command {
    let text = std::fs::read_to_string(folder().join(unit)).unwrap();
    let text = text.replace(DATA, data.to_str().unwrap()).replace("%i", "1");
    let mut words = setting(&text, "ExecStart").split(' ');
    let program = Path::new(words.next().unwrap()).strip_prefix(PROGRAMS).unwrap();
    let mut command = Command::new(launcher().with_file_name(program));
    command.args(words).env_clear().env("NOTIFY_SOCKET", manager);
    let shared = std::fs::read_to_string(folder().join("router.env")).unwrap();
    let shared = shared.lines().filter(|line| !line.starts_with('#'));
    for assignment in setting(&text, "Environment").split(' ').chain(shared) {
        let (name, value) = assignment.split_once('=').unwrap();
        command.env(name, value);
    }
    let [port] = free_ports();
    let listen = format!("127.0.0.1:{port}");
    command.env("PAYROUTER_LB_LISTEN", &listen).env("PAYROUTER_MONITOR_LISTEN", &listen);
    command
}

/// The next thing that a daemon says.
fn heard(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let count = manager.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..count].to_vec()).unwrap()
}

/// Ended with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended as it should.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_a_unit_starts_says_when_it_is_ready_and_that_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for (unit, ready) in UNITS {
        let path = folder.path().join("manager");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut daemon = Daemon(command(unit, &data, &path).spawn().unwrap());
        let mut said = heard(&manager);
        if said.starts_with("STATUS=reading the journal") {
            said = heard(&manager);
        }
        let expected = format!("READY=1\nSTATUS={ready}");
        assert!(said.starts_with(&expected), "{unit}: {said}");
        let pid = Pid::from_child(&daemon.0);
        kill_process(pid, Signal::TERM).unwrap();
        assert_eq!(heard(&manager), "STOPPING=1\nSTATUS=ending", "{unit}");
        let ended = wait_for("the end", || daemon.0.try_wait().unwrap());
        assert_eq!(ended.code(), Some(0), "{unit}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn systemd_takes_the_units_as_they_are_and_finds_them_closed() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return eprintln!("skipped: there is no systemd-analyze (Debian: apt-get install systemd)");
    }
    // Beside each other as in /etc/systemd/system, with programs that are there.
    let copy = tempfile::tempdir().unwrap();
    let units = copy.path();
    std::fs::create_dir(units.join("payment-router-.service.d")).unwrap();
    let names = UNITS.map(|(name, _)| name.to_owned());
    let others = ["payment-router.target", "payment-router-.service.d/common.conf"];
    for name in names.iter().map(String::as_str).chain(others) {
        let text = std::fs::read_to_string(folder().join(name)).unwrap();
        let programs = launcher().parent().unwrap().to_str().unwrap().to_owned();
        std::fs::write(units.join(name), text.replace(PROGRAMS, &programs)).unwrap();
    }
    let target = "payment-router.target".to_owned();
    let paths = names.iter().chain([&target]).map(|name| units.join(name));
    let output = Command::new("systemd-analyze").arg("verify").args(paths).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let of_ours: Vec<_> = said.lines().filter(|line| line.contains("payment-router")).collect();
    assert!(output.status.success() && of_ours.is_empty(), "{of_ours:#?}");

    for name in &names {
        // 10 is wide open; what is left is that they use sockets and the machine's /proc.
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--threshold=20"])
            .arg(units.join(name))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{name}: {said}");
    }
}
