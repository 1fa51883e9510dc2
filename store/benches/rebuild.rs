//! How long a store takes from its start until it answers right, and how much memory, with all views
//! in place, without its database, and without index and database.
//!
//! `cargo bench -p store --bench rebuild -- --payments 1000000`

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

#[path = "../tests/journals/claimed.rs"]
mod claimed;
#[path = "../tests/journals/mod.rs"]
mod journals;
mod memory;
mod running;

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use ledger::clock::Monotonic;
use ledger::journal::SEGMENT_BYTES_DEFAULT;
use ledger::protocol::{FrameBuffer, Request, Response};
use ledger::volume::Volume;
use ledger::{RangeMs, Totals};
use running::RunningStore;
use store::books::Books;
use store::settings::CACHE_MIB_DEFAULT;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

/// After this long there is something wrong with the store.
const PATIENCE: Duration = Duration::from_mins(5);

/// Measures how fast the store makes its views again.
#[derive(Parser)]
struct Settings {
    /// Payments in the journals
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    payments: u32,

    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let settings = Settings::parse();
    let folder = tempfile::tempdir().unwrap();
    let volume = Volume::new(folder.path());
    let clock = Monotonic::start();
    let boot_id = ledger::daemon::boot_id();
    journals::write(&volume, boot_id, settings.payments, SEGMENT_BYTES_DEFAULT);
    println!("{} payments in journals, written in {} ms", settings.payments, clock.elapsed_ms());
    claim_all(&volume, boot_id);
    let expected = journals::totals(0..settings.payments);
    let index = volume.store().join("index");
    let database = volume.store().join("sled-0");
    measure("index and database in place", &volume, expected);
    std::fs::remove_dir_all(&database).unwrap();
    measure("database deleted", &volume, expected);
    std::fs::remove_dir_all(&index).unwrap();
    measure("index deleted", &volume, expected);
    std::fs::remove_dir_all(&index).unwrap();
    std::fs::remove_dir_all(&database).unwrap();
    measure("index and database deleted", &volume, expected);
    for entry in std::fs::read_dir(&database).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let size = path.metadata().unwrap().len();
            std::fs::write(&path, vec![0xa5; usize::try_from(size).unwrap()]).unwrap();
        }
    }
    measure("database overwritten", &volume, expected);
}

/// Claims everything, as the instances have done before they sent it.
fn claim_all(volume: &Volume, boot_id: [u8; 16]) {
    let (mut books, _) = Books::open(volume, CACHE_MIB_DEFAULT << 20, boot_id).unwrap();
    claimed::claim_all(&mut books);
}

/// Starts a store, waits for its first answer, and ends it.
fn measure(name: &str, volume: &Volume, expected: [Totals; 2]) {
    let clock = Monotonic::start();
    let mut store = RunningStore::start(volume);
    let answer = loop {
        assert!(clock.elapsed() < PATIENCE, "{name}: no answer");
        store.check();
        match ask(&volume.store_socket()) {
            Some(answer) => break answer,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let took_ms = clock.elapsed_ms();
    assert_eq!(answer, Response::Summary(expected), "{name}");
    println!("{name}: {took_ms} ms, at most {} MiB", memory::peak_mib(store.id()));
}

/// The answer to the question for all payments; `None` while nobody listens.
fn ask(socket: &Path) -> Option<Response> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let mut stream = UnixStream::connect(socket).await.ok()?;
        let mut frame = Vec::new();
        Request::Summarize(RangeMs::ALL).encode(1, &mut frame);
        stream.write_all(&frame).await.unwrap();
        let mut frames = FrameBuffer::default();
        while frames.fill(&mut stream).await.unwrap() {
            if let Some((_, response)) = frames.next_response().unwrap() {
                return Some(response);
            }
        }
        panic!("the store closes the line without an answer");
    })
}
