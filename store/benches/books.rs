//! What the store's parts cost: a claim decided, settled payments applied, and a summary over few and
//! over very many payments, of which the journals take 1.6 GB for a moment.
//!
//! `cargo bench -p store --bench books`

#![allow(clippy::unwrap_used, missing_docs, reason = "a measurement that cannot go on has failed")]

#[path = "../tests/journals/claimed.rs"]
mod claimed;
#[allow(dead_code, reason = "some of it is for tests alone")]
#[path = "../tests/journals/mod.rs"]
mod journals;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ledger::clock::Monotonic;
use ledger::disk::memory::MemoryDisk;
use ledger::journal::{Event, PaymentRecord, Position, SEGMENT_BYTES_DEFAULT};
use ledger::volume::Volume;
use ledger::{Cents, CorrelationId, Processor, RangeMs, TimestampMs};
use store::books::Books;
use store::database::{Database, Settled};
use store::decisions::Decisions;
use store::index::Index;
use store::settings::CACHE_MIB_DEFAULT;

/// The moment of the first payment.
const START_MS: i64 = 1_752_580_800_000;

/// Payments in a millisecond: 5,000 a second.
const PER_MS: u32 = 5;

fn id(number: u32) -> CorrelationId {
    let spread = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    CorrelationId::from_bytes(spread.to_be_bytes())
}

fn settled(number: u32) -> Settled {
    Settled {
        amount: Cents::new(1990),
        processor: Processor::ALL[usize::from(number.is_multiple_of(8))],
        requested_at: TimestampMs::clamped(START_MS + i64::from(number / PER_MS)),
    }
}

fn claim(criterion: &mut Criterion) {
    const COUNT: u32 = 32;
    let (mut decisions, _) = Decisions::open(MemoryDisk::new(), [0; 16]).unwrap();
    decisions.keep().unwrap();
    let (mut index, mut end, mut number) = (Index::default(), Position::START, 0);
    let mut group = criterion.benchmark_group("claim");
    group.throughput(Throughput::Elements(u64::from(COUNT)));
    group.bench_function(format!("{COUNT} payments"), |bencher| {
        bencher.iter(|| {
            for _ in 0..COUNT {
                number += 1;
                let record = PaymentRecord {
                    id: id(number),
                    amount: Cents::new(1990),
                    written_at: TimestampMs::clamped(START_MS),
                    event: Event::Accepted,
                };
                decisions.record(&mut index, 1, end, &record);
                end = end.next();
            }
            decisions.claim(&mut index, 1, end).unwrap()
        });
    });
    group.finish();
}

fn apply(criterion: &mut Criterion) {
    const COUNT: u32 = 1024;
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("sled"), CACHE_MIB_DEFAULT << 20).unwrap();
    let mut next = 0;
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(u64::from(COUNT)));
    group.bench_function(format!("{COUNT} settled payments"), |bencher| {
        bencher.iter_batched_ref(
            || {
                next += COUNT;
                (next - COUNT..next).map(settled).collect::<Vec<_>>()
            },
            |payments| database.apply(payments, []).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Spans that begin and end anywhere, asked of the books: everything but the socket.
fn sum(criterion: &mut Criterion) {
    let boot_id = ledger::daemon::boot_id();
    let mut group = criterion.benchmark_group("summary");
    for payments_count in [100_000, 1_000_000, 10_000_000] {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        journals::write_at_pace(&volume, boot_id, payments_count, SEGMENT_BYTES_DEFAULT, PER_MS);
        let (mut books, _) = Books::open(&volume, CACHE_MIB_DEFAULT << 20, boot_id).unwrap();
        claimed::claim_all(&mut books);
        drop(books);
        // With the index in its files.
        let (mut books, _) = Books::open(&volume, CACHE_MIB_DEFAULT << 20, boot_id).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut range = move || {
            let [one, two] =
                [(); 2].map(|()| journals::at_pace(random.u32(0..payments_count), PER_MS));
            RangeMs { from: one.min(two), to: one.max(two) }
        };
        group.bench_function(format!("of {payments_count} payments"), |bencher| {
            bencher.iter_batched(
                &mut range,
                |range| books.sum(range).unwrap(),
                BatchSize::SmallInput,
            );
        });
        print_percentiles(payments_count, || books.sum(range()).unwrap());
    }
    group.finish();
}

/// What criterion does not tell: how long the slowest take.
fn print_percentiles<T>(payments_count: u32, mut work: impl FnMut() -> T) {
    const COUNT: usize = 20_000;
    let mut times: Vec<Duration> = (0..COUNT)
        .map(|_| {
            let clock = Monotonic::start();
            black_box(work());
            clock.elapsed()
        })
        .collect();
    times.sort_unstable();
    let [p50, p99] = [COUNT / 2, COUNT * 99 / 100].map(|index| times[index].as_secs_f64() * 1e6);
    println!("summary/of {payments_count} payments: p50 {p50:.1} us, p99 {p99:.1} us");
}

criterion_group!(benches, claim, apply, sum);
criterion_main!(benches);
