//! What a summary over a random span costs a store, asked over its socket: the CPU time of the process for each
//! question, reading it and answering included, and how long who asks waits. Over 100,000, a million and ten
//! million payments.
//!
//! `cargo bench -p store --bench summaries`

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

#[path = "../tests/journals/claimed.rs"]
mod claimed;
#[allow(dead_code, reason = "some of it is for tests alone")]
#[path = "../tests/journals/mod.rs"]
mod journals;
mod running;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
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

/// After this long there is something wrong with the store.
const PATIENCE: Duration = Duration::from_mins(5);

/// Payments that are settled in a millisecond.
const PER_MS: u32 = 5;

/// Measures what summaries cost.
#[derive(Parser)]
struct Settings {
    /// Payments in the journals, from few to many
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "100000,1000000,10000000"
    )]
    payments: Vec<u32>,

    /// Questions of a round
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    questions: u32,

    /// Rounds over each, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let settings = Settings::parse();
    // All stores at once, so that whatever else the machine does falls on all of them alike.
    let mut stores: Vec<_> = settings.payments.iter().map(|count| Store::start(*count)).collect();
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); stores.len()];
    for _ in 0..settings.rounds {
        for (store, rounds) in stores.iter_mut().zip(&mut rounds) {
            rounds.push(store.round(settings.questions));
        }
    }
    let mut first_cpu_us = None;
    for (store, rounds) in stores.iter().zip(&rounds) {
        let median_us = |figure: fn(&Figures) -> Duration| {
            let mut all: Vec<Duration> = rounds.iter().map(figure).collect();
            all.sort_unstable();
            all[all.len() / 2].as_secs_f64() * 1e6
        };
        let cpu_us = median_us(|figures| figures.cpu);
        let ratio = cpu_us / *first_cpu_us.get_or_insert(cpu_us);
        println!(
            "{} payments: CPU {cpu_us:.1} us ({ratio:.2} times the first), p50 {:.1} us, p99 {:.1} us",
            store.payments_count,
            median_us(|figures| figures.p50),
            median_us(|figures| figures.p99),
        );
    }
}

/// What a round showed.
#[derive(Clone)]
struct Figures {
    /// For each question.
    cpu: Duration,
    p50: Duration,
    p99: Duration,
}

/// A store with so many payments, and a line to it.
struct Store {
    payments_count: u32,
    process: RunningStore,
    line: UnixStream,
    frames: FrameBuffer,
    random: fastrand::Rng,
    _folder: tempfile::TempDir,
}

impl Store {
    fn start(payments_count: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        let boot_id = ledger::daemon::boot_id();
        journals::write_at_pace(&volume, boot_id, payments_count, SEGMENT_BYTES_DEFAULT, PER_MS);
        let (mut books, _) = Books::open(&volume, CACHE_MIB_DEFAULT << 20, boot_id).unwrap();
        claimed::claim_all(&mut books);
        drop(books);
        let mut process = RunningStore::start(&volume);
        let clock = Monotonic::start();
        let line = loop {
            assert!(clock.elapsed() < PATIENCE, "nobody listens");
            process.check();
            match UnixStream::connect(volume.store_socket()) {
                Ok(line) => break line,
                Err(error) => {
                    let kind = error.kind();
                    assert!(
                        matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused),
                        "{error}"
                    );
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        };
        let mut store = Self {
            payments_count,
            process,
            line,
            frames: FrameBuffer::default(),
            random: fastrand::Rng::with_seed(7),
            _folder: folder,
        };
        let count = store.ask(RangeMs::ALL).iter().map(|totals| totals.count).sum::<u64>();
        assert_eq!(count, u64::from(payments_count));
        store
    }

    fn round(&mut self, questions_count: u32) -> Figures {
        let before = self.cpu();
        let mut times: Vec<Duration> = (0..questions_count)
            .map(|_| {
                let [one, two] = [(); 2]
                    .map(|()| journals::at_pace(self.random.u32(0..self.payments_count), PER_MS));
                let clock = Monotonic::start();
                self.ask(RangeMs { from: one.min(two), to: one.max(two) });
                clock.elapsed()
            })
            .collect();
        let cpu = self.cpu().saturating_sub(before) / questions_count;
        times.sort_unstable();
        let at_percent = |percent| times[times.len() * percent / 100];
        Figures { cpu, p50: at_percent(50), p99: at_percent(99) }
    }

    fn ask(&mut self, range: RangeMs) -> [Totals; 2] {
        let mut frame = Vec::new();
        Request::Summarize(range).encode(1, &mut frame);
        self.line.write_all(&frame).unwrap();
        loop {
            match self.frames.next_response().unwrap() {
                Some((_, Response::Summary(totals))) => return totals,
                Some((_, other)) => panic!("{other:?}"),
                None => {}
            }
            let mut bytes = [0; 256];
            let count = self.line.read(&mut bytes).unwrap();
            assert!(count > 0, "the store closes the line without an answer");
            self.frames.extend(&bytes[..count]);
        }
    }

    /// CPU time of the process so far, threads that have ended included.
    fn cpu(&self) -> Duration {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let (_, facts) = text.rsplit_once(") ").unwrap();
        let ticks = |place| facts.split(' ').nth(place).unwrap().parse::<u64>().unwrap();
        let per_second = rustix::param::clock_ticks_per_second();
        Duration::from_millis((ticks(11) + ticks(12)) * 1_000 / per_second)
    }
}
