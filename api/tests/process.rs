//! The process of an API instance: how it starts, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ledger::disk::Disk;
use ledger::disk::folder::FolderDisk;
use ledger::volume::Volume;

/// An API instance, and what it logs.
struct Api {
    process: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Api {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_api"))
            .arg("--data")
            .arg(folder)
            .args(["--default-url=http://127.0.0.1:1", "--fallback-url=http://127.0.0.1:2"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        Self { process, log }
    }

    /// Reads the log up to a line with these words.
    fn until(&mut self, words: &str) {
        let mut all = String::new();
        while !all.contains(words) {
            assert!(self.log.read_line(&mut all).unwrap() > 0, "it ended with: {all}");
        }
    }

    fn terminate(&self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn told_to_end_while_it_waits_for_its_journal_it_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let journal = FolderDisk::create(Volume::new(folder.path()).journal(1)).unwrap();
    let _lock = journal.lock().unwrap();
    let mut api = Api::start(folder.path(), &["--instance=1"]);
    api.until("another process writes to");
    api.terminate();
    assert_eq!(api.process.wait().unwrap().code(), Some(0));
}

#[test]
fn the_socket_of_a_running_instance_is_not_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Api::start(folder.path(), &["--instance=2"]);
    running.until("taking payments");
    let socket = Volume::new(folder.path()).api_socket(2);
    let at_socket = format!("--socket={}", socket.display());
    let mut other = Api::start(folder.path(), &["--instance=9", &at_socket]);
    other.until("another process that is still running listens there");
    assert_eq!(other.process.wait().unwrap().code(), Some(70));
    assert!(socket.exists());
    running.terminate();
    assert_eq!(running.process.wait().unwrap().code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn more_connections_than_there_are_descriptors_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let many = ["--instance=1", "--connections-max=2000000000"];
    let mut api = Api::start(folder.path(), &many);
    api.until("--connections-max, --in-flight-max and what else is open need");
    assert_eq!(api.process.wait().unwrap().code(), Some(64));
}
