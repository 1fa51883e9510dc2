//! A volume whose journals a test writes as two API instances would, and a store that runs on it.

// Each test uses a part of this, and what cannot go on here should fail its test.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;

use ledger::disk::folder::FolderDisk;
use ledger::journal::{Event, Journal, JournalConfig, PaymentRecord};
use ledger::protocol::{FrameBuffer, Request, Response};
use ledger::volume::Volume;
use ledger::{Cents, CorrelationId, Processor, TimestampMs, Totals};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::postgres::{Postgres, wait_for};

/// Segments of 1,364 records, so that payments are open across their ends.
const SEGMENT_BYTES: u64 = 64 << 10;
/// Payments that are accepted before the first of them is settled.
const BATCH: u32 = 50;
/// The first payment is requested half a second before a month ends, in UTC.
const START_MS: i64 = 1_764_547_200_000 - 500;

/// The payment with this number: its id, whose numbers are spread as at random, and its amount.
pub fn payment(number: u32) -> (CorrelationId, Cents) {
    let spread = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let cents = if number % 1000 == 7 { 9_999_999_999 } else { i64::from(number % 9999) + 1 };
    (CorrelationId::from_bytes(spread.to_be_bytes()), Cents::new(cents))
}

/// What becomes of it.
pub fn is_settled(number: u32) -> bool {
    number % 20 != 13
}

/// The processor that has it.
pub fn processor(number: u32) -> Processor {
    if number % 8 == 3 { Processor::Fallback } else { Processor::Default }
}

/// When it is accepted, requested and settled, in milliseconds that differ.
pub fn moments(number: u32) -> [TimestampMs; 3] {
    [-3, 0, 11].map(|ms| TimestampMs::clamped(START_MS + i64::from(number) + ms))
}

/// Payments that are settled of those with these numbers.
pub fn settled_count(numbers: std::ops::Range<u32>) -> u64 {
    numbers.filter(|number| is_settled(*number)).count() as u64
}

/// What those with these numbers add up to, by [`Processor::index`].
pub fn totals(numbers: impl Iterator<Item = u32>) -> [Totals; 2] {
    let mut totals = [Totals::default(); 2];
    for number in numbers.filter(|number| is_settled(*number)) {
        let sum = &mut totals[processor(number).index()];
        *sum = sum.checked_add(Totals::of_payment(payment(number).1)).unwrap();
    }
    totals
}

/// A volume.
pub struct Site {
    _folder: TempDir,
    pub data: PathBuf,
}

impl Site {
    pub fn new() -> Self {
        let site = Self::without_folder();
        site.volume().create().unwrap();
        site
    }

    /// One whose folder does not exist.
    pub fn without_folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { data: folder.path().join("data"), _folder: folder }
    }

    pub fn volume(&self) -> Volume {
        Volume::new(&self.data)
    }

    /// Two writers of journals, which hold their locks.
    pub fn writer(&self) -> Writer {
        Writer { journals: [1, 2].map(|instance| Mutex::new(open(&self.volume(), instance))) }
    }

    /// Writes the whole lives of payments.
    pub fn write(&self, numbers: std::ops::Range<u32>) {
        self.writer().write(numbers);
    }

    /// A copy of it as it is now.
    pub fn copy(&self) -> Self {
        let copy = Self::without_folder();
        let copied = Command::new("cp").arg("-a").arg(&self.data).arg(&copy.data).status().unwrap();
        assert!(copied.success());
        copy
    }
}

/// Opens the journal of an instance.
pub fn open(volume: &Volume, instance: u16) -> Journal<FolderDisk> {
    let disk = FolderDisk::create(volume.journal(instance)).unwrap();
    let boot_id = ledger::daemon::boot_id();
    let config = JournalConfig { instance, segment_bytes: SEGMENT_BYTES, boot_id };
    Journal::open(disk, config, TimestampMs::clamped(START_MS), |_, _| ()).unwrap().0
}

/// The writers of both journals.
pub struct Writer {
    journals: [Mutex<Journal<FolderDisk>>; 2],
}

impl Writer {
    /// Writes the whole lives of payments, some at a time, by turns to either journal: the next ones
    /// are accepted before the ones before them are settled.
    pub fn write(&self, numbers: std::ops::Range<u32>) {
        let batches: Vec<_> = numbers
            .clone()
            .step_by(BATCH as usize)
            .map(|first| first..numbers.end.min(first + BATCH))
            .collect();
        for (turn, batches) in batches.chunks(4).enumerate() {
            let instance = 1 + u16::try_from(turn % 2).unwrap();
            let mut accepted = None;
            for batch in batches {
                self.accept(instance, batch.clone());
                if let Some(before) = accepted.replace(batch.clone()) {
                    self.close(instance, before);
                }
            }
            if let Some(last) = accepted {
                self.close(instance, last);
            }
        }
    }

    /// Accepts payments.
    pub fn accept(&self, instance: u16, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.append(instance, number, Event::Accepted, moments(number)[0]);
        }
    }

    /// Sends payments.
    pub fn dispatch(&self, instance: u16, number: u32) {
        let [_, requested_at, _] = moments(number);
        let event = Event::Dispatched { processor: processor(number), requested_at };
        self.append(instance, number, event, requested_at);
    }

    /// Sends payments, and writes what became of them.
    pub fn close(&self, instance: u16, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let [_, requested_at, settled_at] = moments(number);
            let processor = processor(number);
            self.dispatch(instance, number);
            let event = if is_settled(number) {
                Event::Settled { processor, requested_at }
            } else {
                Event::Refused { processor, status: 400 }
            };
            self.append(instance, number, event, settled_at);
        }
    }

    fn append(&self, instance: u16, number: u32, event: Event, written_at: TimestampMs) {
        let mut journal = self.journals[usize::from(instance) - 1].lock().unwrap();
        let (id, amount) = payment(number);
        let record = PaymentRecord { id, amount, written_at, event };
        // What is open now was accepted in this segment, or in the one before.
        let oldest_open = journal.end().segment.saturating_sub(1).max(1);
        let appended = journal.append(&[record], oldest_open, written_at);
        assert!(appended.error.is_none(), "{:?}", appended.error);
    }
}

/// A store that runs.
pub struct Store {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
}

impl Store {
    /// Starts one on a volume.
    pub fn start(site: &Site, arguments: &[&str]) -> Self {
        let log = site.data.join("store.log");
        let file = fs::File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_store"))
            .arg("--data")
            .arg(&site.data)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log, socket: site.volume().store_socket() }
    }

    /// Starts one that archives.
    pub fn archiving(site: &Site, postgres: &Postgres) -> Self {
        Self::start(site, &["--archive", &postgres.url()])
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that stores of this volume said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has said something.
    pub fn wait_for_line(&self, text: &str) {
        wait_for(text, || self.log().contains(text).then_some(()));
    }

    /// Kills it, as a crash would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it end.
    pub fn end(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }

    /// Its answer to one question, as soon as it listens.
    pub fn ask(&self, request: &Request) -> Response {
        wait_for("the store's answer", || ask(&self.socket, request))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // It was ended by the test, or the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a restore to its end, and gives whether it succeeded and what it said.
pub fn restore(data: &Path, postgres: &Postgres) -> (bool, String) {
    let output = restore_command(data, postgres).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

/// The command of a restore.
pub fn restore_command(data: &Path, postgres: &Postgres) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_store"));
    command.args(["restore", "--from", &postgres.url(), "--data"]).arg(data).stdin(Stdio::null());
    command
}

fn ask(socket: &Path, request: &Request) -> Option<Response> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let mut stream = UnixStream::connect(socket).await.ok()?;
        let mut frame = Vec::new();
        request.encode(1, &mut frame);
        stream.write_all(&frame).await.ok()?;
        let mut frames = FrameBuffer::default();
        while frames.fill(&mut stream).await.ok()? {
            if let Some((_, response)) = frames.next_response().unwrap() {
                return Some(response);
            }
        }
        None
    })
}

/// A row of the archive, as text: id, amount, processor, and the milliseconds of request, acceptance
/// and settlement.
fn row(number: u32, accepted_is_known: bool) -> Vec<String> {
    let (id, amount) = payment(number);
    let [accepted, requested, settled] = moments(number).map(|moment| moment.get().to_string());
    vec![
        id.to_string(),
        format!("{}.{:02}", amount.get() / 100, amount.get() % 100),
        processor(number).to_string(),
        requested,
        if accepted_is_known { accepted } else { String::new() },
        settled,
    ]
}

/// Demands that the archive is exactly these payments, each once.
pub fn check_archive(postgres: &Postgres, numbers: impl Iterator<Item = u32>) {
    check_archive_of(postgres, numbers.map(|number| (number, true)));
}

/// As [`check_archive`], of payments some of which were accepted at a moment that is not known.
pub fn check_archive_of(postgres: &Postgres, payments: impl Iterator<Item = (u32, bool)>) {
    let ms = |column: &str| format!("(extract(epoch FROM {column}) * 1000)::numeric(20, 0)");
    let [requested, accepted, settled] = ["requested_at", "accepted_at", "settled_at"].map(ms);
    let mut archived = postgres.query(&format!(
        "SELECT correlation_id, amount, processor, {requested}, {accepted}, {settled} FROM payments"
    ));
    let mut expected: Vec<_> = payments
        .filter(|(number, _)| is_settled(*number))
        .map(|(number, accepted_is_known)| row(number, accepted_is_known))
        .collect();
    archived.sort_unstable();
    expected.sort_unstable();
    let differs = archived.iter().zip(&expected).find(|(archived, expected)| archived != expected);
    assert_eq!(differs, None);
    assert_eq!(archived.len(), expected.len());
}
