//! Stand-ins for the router's processes, and a hold on a `rinha-test up` that runs them.
//!
//! The stand-ins are shell scripts that do nothing but live and end. What clients would reach is
//! served by the test itself, on the ports that the stand-ins leave free.

// Each test uses a part of this, and a stand-in that fails should fail its test.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledger::clock::Monotonic;
use rinha_test::up::{pid, ports};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// After this long a test gives up. No test depends on how much sooner a thing happens.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// All processes of the system.
pub const NAMES: [&str; 6] =
    ["processor-default", "processor-fallback", "store", "api-1", "api-2", "lb"];

/// Lives until it is told to end, and then takes its time.
pub const LIVES: &str = r#"#!/bin/sh
trap 'echo told to end; sleep 0.2; exit 0' TERM
case $0 in
  */store) : > "$2/run/store.sock" ;;
  */api) : > "$4/run/api-$2.sock" ;;
esac
echo "my pid is $$ and I was told: $*"
while :; do sleep 0.02; done
"#;

/// The `rinha-test` program.
pub fn launcher() -> PathBuf {
    env!("CARGO_BIN_EXE_rinha-test").into()
}

/// Looks until there is something to see.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let clock = Monotonic::start();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(clock.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Free ports that no other test gets while this one runs.
pub fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let free = ports::free().unwrap();
    let ports = free.ports;
    // Its locks are held until the process ends.
    std::mem::forget(free);
    ports
}

/// A tool that comes with pip: the one that its variable names, the one that `scripts/python-tool.sh` has
/// installed, or any on the path.
pub fn python_tool(name: &str) -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin").join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    std::env::var_os(name.to_uppercase())
        .map(PathBuf::from)
        .into_iter()
        .chain([installed])
        .chain(on_path)
        .find(|tool| tool.is_file())
}

/// The same, where something is not checked without it: then that is told.
pub fn python_tool_for(name: &str, unchecked: &str) -> Option<PathBuf> {
    let tool = python_tool(name);
    if tool.is_none() {
        eprintln!(
            "{name} is not installed, so {unchecked}; scripts/python-tool.sh {name} installs it"
        );
    }
    tool
}

/// Serves `200` to any request on this port, for as long as the test runs.
pub fn serve_ok(port: u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(
                    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                );
            });
        }
    });
}

/// A folder with stand-ins and data.
pub struct Bench {
    folder: TempDir,
    pub data: PathBuf,
    pub ports: [u16; 3],
}

impl Bench {
    /// Stand-ins that live until they are told to end.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bench = Self { data: folder.path().join("data"), folder, ports: free_ports() };
        std::fs::create_dir(bench.programs()).unwrap();
        for name in ["payment-processor", "store", "api", "lb"] {
            bench.stand_in(name, LIVES);
        }
        bench
    }

    /// Replaces a stand-in.
    pub fn stand_in(&self, name: &str, script: &str) {
        let path = self.programs().join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn programs(&self) -> PathBuf {
        self.folder.path().join("programs")
    }

    pub fn run_folder(&self) -> PathBuf {
        self.data.join("run")
    }

    pub fn pid_path(&self, name: &str) -> PathBuf {
        pid::pid_path(&self.run_folder(), name)
    }

    /// The pid in a pid file, as soon as there is one.
    pub fn pid(&self, name: &str) -> u32 {
        wait_for(&format!("the pid file of {name}"), || pid::read(&self.pid_path(name)))
    }

    /// `rinha-test up` on this bench.
    pub fn command(&self, more: &[&str]) -> Command {
        let [port, default, fallback] = self.ports.map(|port| port.to_string());
        let mut command = Command::new(launcher());
        command.args(["up", "--port", &port, "--metrics-port", "0"]);
        if !more.contains(&"--processors") {
            command.args(["--default-port", &default, "--fallback-port", &fallback]);
        }
        command
            .arg("--data")
            .arg(&self.data)
            .arg("--programs")
            .arg(self.programs())
            .args(more)
            .stdin(Stdio::null());
        command
    }

    /// Starts it.
    pub fn up(&self, more: &[&str]) -> Runner {
        let mut child = self.command(more).stdout(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let output = BufReader::new(child.stdout.take().unwrap());
        let sink = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        Runner { child, lines, reader: Some(reader) }
    }

    /// Runs it to its end, which comes by itself, and gives its exit code and all it said.
    pub fn ended(&self, more: &[&str]) -> (Option<i32>, String) {
        let output = self.command(more).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    /// Runs it where it is expected to refuse, and gives what it said.
    pub fn refused(&self, more: &[&str]) -> String {
        let output = self.command(more).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// A `rinha-test up` that runs.
pub struct Runner {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Runner {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The number of the first line with this text, as soon as there is one.
    pub fn line(&self, text: &str) -> usize {
        wait_for(&format!("the line {text:?}"), || {
            self.lines().iter().position(|line| line.contains(text))
        })
    }

    /// The number of lines with this text.
    pub fn count(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends a signal, waits for the end, and gives all lines.
    pub fn end(mut self, signal: Signal) -> (ExitStatus, Vec<String>) {
        self.signal(signal);
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        (status, self.lines())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // It was ended by the test, or the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process with this pid exists and is not a zombie.
pub fn exists(pid: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.pid");
    pid::write(&path, pid).unwrap();
    pid::alive(&path, Path::new(name.trim_end())).is_some()
}
