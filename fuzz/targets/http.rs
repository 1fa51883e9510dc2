//! Everything that a client may send, through the connection code of an API with a journal on a disk
//! and neither store nor processors. The socket is one of a pair, and the clock stands still but when
//! everyone waits.

#![no_main]

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use api::driver::{Driver, Durability};
use api::engine::{Engine, EngineConfig};
use api::http::{Api, Connections, ServerLimits};
use api::processor::{CallLimits, ProcessorClient};
use api::router::RouterConfig;
use api::store_client::StoreClient;
use ledger::TimestampMs;
use ledger::clock::Monotonic;
use ledger::disk::folder::FolderDisk;
use ledger::journal::{Journal, JournalConfig, SEGMENT_BYTES_DEFAULT};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::spawn_local;
use tokio::time::sleep;

/// Runs after which everything is begun anew.
const RUNS_MAX: usize = 5_000;
/// Payments that may be open: few, so that it happens that there is no room.
const BACKLOG_MAX: usize = 1_000;
/// Bytes of one connection, at most: they are in the socket before anyone reads.
const SENT_BYTES_MAX: usize = 64 << 10;
/// Bytes of a head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// All that is ever answered.
const STATUSES: [u16; 14] = [100, 200, 202, 400, 403, 404, 405, 408, 409, 411, 413, 415, 431, 503];

/// An API and what it runs on.
struct World {
    runtime: LocalRuntime,
    connections: Rc<Connections>,
    driver: Rc<Driver<FolderDisk>>,
    runs_count: usize,
    _folder: TempDir,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    WORLD.with_borrow_mut(|world| {
        if world.as_ref().is_none_or(|world| world.runs_count >= RUNS_MAX) {
            *world = None;
            *world = Some(World::begin().expect("an API begins"));
        }
        let world = world.as_mut().expect("it was just begun");
        world.runs_count += 1;
        world.check(&bytes[..bytes.len().min(SENT_BYTES_MAX)]);
    });
});

impl World {
    fn begin() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build_local(LocalOptions::default())?;
        let clock = Monotonic::start();
        let disk = FolderDisk::create(&folder.path().join("api-1"))?;
        let config =
            JournalConfig { instance: 1, segment_bytes: SEGMENT_BYTES_DEFAULT, boot_id: [0; 16] };
        let now = TimestampMs::clamped(0);
        let (journal, _) = Journal::open(disk, config, now, |_, _| ()).map_err(io::Error::other)?;
        let router = RouterConfig {
            fees_bp: [500, 1500],
            patience_ms: 1000,
            in_flight_max: 8,
            slow_ms: 1300,
        };
        let config =
            EngineConfig { backlog_max: BACKLOG_MAX, recent_max: 10, claim_delay_ms: 0, router };
        let engine = Engine::new(config, &[], journal.end(), 0, now);
        let driver = Driver::new(engine, journal, clock, Durability::Process)?;
        let store = StoreClient::new(folder.path().join("store.sock"), 1);
        let api = Api {
            driver: Rc::clone(&driver),
            store: Rc::clone(&store),
            body_bytes_max: 4 << 10,
            allow_purge: false,
        };
        let limits = ServerLimits {
            connections_max: 8,
            head_bytes_max: HEAD_BYTES_MAX,
            request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
        };
        let connections = Connections::new(Rc::new(api), limits);
        let driving = Rc::clone(&driver);
        runtime.block_on(async move {
            let clients = ["http://127.0.0.1:1", "http://127.0.0.1:2"].map(|url| {
                let second = Duration::from_secs(1);
                let limits = CallLimits { call_timeout: second, connect_timeout: second };
                let target = url.parse().expect("an address");
                ProcessorClient::new(target, limits, clock, Rc::new(|_, _, _| ()))
            });
            spawn_local(async move { driving.run(&clients, &store).await });
        });
        Ok(Self { runtime, connections, driver, runs_count: 0, _folder: folder })
    }

    /// Sends the bytes, in one piece, which is where plain payments are read, and then in two, which is
    /// where hyper reads everything. Both times all must be answered alike.
    fn check(&self, bytes: &[u8]) {
        let whole = self.statuses(bytes, 0);
        let in_pieces = self.statuses(bytes, 1);
        // A broken head that has no end either is told so, without a body, only where it came in one
        // piece: of another one hyper waits for the end.
        let is_told_less = whole.strip_suffix(&[(400, false)]) == Some(&in_pieces);
        // How much longer than its limit a head may be depends on the pieces.
        if bytes.len() <= HEAD_BYTES_MAX && !is_told_less {
            assert_eq!(whole, in_pieces);
        }
    }

    /// Sends so many bytes first, and demands that every answer is whole and one that is promised, and
    /// that nothing was taken in that was not acknowledged.
    fn statuses(&self, bytes: &[u8], first_count: usize) -> Vec<(u16, bool)> {
        let open_before = self.driver.open_count();
        let answered =
            self.runtime.block_on(self.converse(bytes, first_count)).expect("sockets work");
        let taken_in = self.driver.open_count() - open_before;
        let statuses: Vec<_> = Answers { rest: &answered }.collect();
        for (status, _) in &statuses {
            assert!(STATUSES.contains(status), "{status}");
        }
        let acknowledged = statuses.iter().filter(|(status, _)| *status == 202).count();
        assert!(taken_in <= acknowledged, "{taken_in} taken in, {acknowledged} acknowledged");
        assert_eq!(self.connections.standing().connections_count, 0);
        statuses
    }

    async fn converse(&self, bytes: &[u8], first_count: usize) -> io::Result<Vec<u8>> {
        let (mut client, server) = std::os::unix::net::UnixStream::pair()?;
        let (first, rest) = bytes.split_at(first_count.min(bytes.len()));
        client.write_all(first)?;
        self.connections.serve(OwnedFd::from(server).into());
        if !first.is_empty() {
            // The clock stands still but when everyone waits, for the rest of the bytes.
            sleep(Duration::from_millis(1)).await;
        }
        client.write_all(rest)?;
        client.shutdown(Shutdown::Write)?;
        let mut answered = Vec::new();
        match tokio_stream(client.into())?.read_to_end(&mut answered).await {
            // The API may close without having read the rest.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            result => drop(result?),
        }
        while self.connections.standing().connections_count > 0 {
            tokio::task::yield_now().await;
        }
        Ok(answered)
    }
}

/// The API knows its connections as TCP.
fn tokio_stream(socket: OwnedFd) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// The statuses of answers that follow each other, and whether they have a body.
struct Answers<'a> {
    rest: &'a [u8],
}

impl Iterator for Answers<'_> {
    type Item = (u16, bool);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let head_end = self.rest.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let (head, rest) = self.rest.split_at(head_end.expect("an answer's head is whole") + 4);
        let head = std::str::from_utf8(head).expect("a head is a text");
        let (version, line) = head.split_once(' ').expect("a status line");
        assert!(["HTTP/1.1", "HTTP/1.0"].contains(&version), "{head}");
        let status: u16 = line[..3].parse().expect("a status");
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().expect("a length"));
        // An answer to HEAD tells the length of a body that it does not have.
        let has_body = length > 0 && rest.first() == Some(&b'{');
        let (body, rest) = rest.split_at(if has_body { length } else { 0 });
        if has_body {
            let body: serde_json::Value = serde_json::from_slice(body).expect("a body is JSON");
            assert!(status < 400 || status == 503 || body["error"].is_string(), "{body}");
        }
        self.rest = rest;
        Some((status, has_body))
    }
}
