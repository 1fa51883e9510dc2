//! The process of an API instance: how it starts, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ledger::disk::Disk;
use ledger::disk::folder::FolderDisk;
use ledger::handover::{HandoverSender, Standing};
use ledger::volume::Volume;
use tokio::time::timeout;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// Tests with a balancer that is connected to an instance with these settings.
fn with_balancer(arguments: &[&str], test: impl AsyncFnOnce(HandoverSender)) {
    let folder = tempfile::tempdir().unwrap();
    let mut api = Api::start(folder.path(), &[&["--instance=1"], arguments].concat());
    api.until("taking payments");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        test(HandoverSender::connect(&Volume::new(folder.path()).api_socket(1)).unwrap()).await;
    });
}

/// A client that has sent this before its connection is handed over.
fn hand_over(balancer: &HandoverSender, bytes: &[u8]) -> UnixStream {
    let (mut client, server) = UnixStream::pair().unwrap();
    client.write_all(bytes).unwrap();
    balancer.send(server.as_fd()).unwrap();
    client
}

#[test]
fn what_comes_with_a_connection_is_answered_and_a_balancer_hears_what_it_cannot_know() {
    with_balancer(&["--connections-max=2"], async |balancer| {
        let heard = async || {
            let standing = timeout(PATIENCE, balancer.standing()).await;
            standing.expect("it is told").unwrap().unwrap()
        };
        let with =
            |connections_count| Standing { draining: false, connections_count, connections_max: 2 };
        assert_eq!(heard().await, with(0));
        let broken = b"GET /broken\r\nline HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        hand_over(&balancer, broken).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer:?}");
        assert_eq!(heard().await, with(0), "one has ended");
        let _first = hand_over(&balancer, b"");
        let second = hand_over(&balancer, b"");
        assert_eq!(heard().await, with(2), "there is no room for more");
        drop(second);
        assert_eq!(heard().await, with(1));
    });
}

fn payment(number: u32) -> String {
    let body =
        format!("{{\"correlationId\":\"00000000-0000-4000-8000-{number:012}\",\"amount\":19.90}}");
    let length = body.len();
    format!(
        "POST /payments HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Reads this many answers to payments, and nothing behind them.
fn read_accepted(client: &mut UnixStream, count: usize) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    while bytes.windows(4).filter(|end| end == b"\r\n\r\n").count() < count {
        let mut piece = [0; 512];
        let read = client.read(&mut piece).unwrap();
        assert!(read > 0, "it ended with {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&piece[..read]);
    }
    let text = String::from_utf8(bytes).unwrap();
    let answers: Vec<_> = text.split_terminator("\r\n\r\n").collect();
    assert_eq!(answers.len(), count, "{text}");
    assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 202")), "{text}");
}

/// The first payment of a connection is answered before the connection is watched, and what follows after.
#[test]
fn payments_that_come_with_a_connection_are_answered_in_order_and_once() {
    with_balancer(&[], async |balancer| {
        // The rest of the third comes later.
        let third = payment(3);
        let (begin, end) = third.split_at(third.len() / 2);
        let with_it = [payment(1), payment(2), begin.to_owned()].concat();
        let mut client = hand_over(&balancer, with_it.as_bytes());
        read_accepted(&mut client, 2);
        client.write_all(end.as_bytes()).unwrap();
        read_accepted(&mut client, 1);

        // One that waits keeps nobody else waiting, although the balancer's end of it blocks.
        let mut other = hand_over(&balancer, payment(4).as_bytes());
        read_accepted(&mut other, 1);
        client.write_all(payment(5).as_bytes()).unwrap();
        read_accepted(&mut client, 1);
        other.write_all(payment(6).as_bytes()).unwrap();
        read_accepted(&mut other, 1);

        // A client that sends no more still has its answer.
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(payment(7).as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        balancer.send(server.as_fd()).unwrap();
        drop(server);
        read_accepted(&mut client, 1);
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "it ends");
    });
}

#[test]
fn an_answer_for_which_there_is_no_room_comes_once_there_is() {
    with_balancer(&[], async |balancer| {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let mut filled = 0;
        while let Ok(count) = server.write(&[b'x'; 64]) {
            filled += count;
        }
        client.write_all(payment(1).as_bytes()).unwrap();
        balancer.send(server.as_fd()).unwrap();
        drop(server);
        // The next one is answered after it.
        read_accepted(&mut hand_over(&balancer, payment(2).as_bytes()), 1);
        client.read_exact(&mut vec![0; filled]).unwrap();
        read_accepted(&mut client, 1);
    });
}
