//! What the journal costs: records appended in batches, and read again.
//!
//! `cargo bench -p ledger --bench journal`

#![allow(clippy::unwrap_used, missing_docs, reason = "a measurement that cannot go on has failed")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ledger::disk::folder::FolderDisk;
use ledger::journal::{
    Event, Journal, JournalConfig, JournalReader, PaymentRecord, Position, SEGMENT_BYTES_DEFAULT,
};
use ledger::{Cents, CorrelationId, TimestampMs};

const CONFIG: JournalConfig =
    JournalConfig { instance: 1, segment_bytes: SEGMENT_BYTES_DEFAULT, boot_id: [0; 16] };

fn records(count: usize) -> Vec<PaymentRecord> {
    let record = |number: usize| PaymentRecord {
        id: CorrelationId::from_bytes((number as u128).to_be_bytes()),
        amount: Cents::new(1990),
        written_at: TimestampMs::clamped(0),
        event: Event::Accepted,
    };
    (0..count).map(record).collect()
}

fn open(folder: &tempfile::TempDir) -> Journal<FolderDisk> {
    let disk = FolderDisk::create(folder.path()).unwrap();
    Journal::open(disk, CONFIG, TimestampMs::clamped(0), |_, _| ()).unwrap().0
}

/// Batches as they come at low load, in a flood, and while a backlog drains.
fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    for count in [1, 32, 512] {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(&folder);
        let records = records(count);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{count} records"), |bencher| {
            bencher.iter(|| {
                let segment = journal.end().segment;
                let appended = journal.append(&records, segment, TimestampMs::clamped(0));
                assert_eq!(appended.count, count);
            });
            journal.remove_segments_before(journal.end().segment).unwrap();
        });
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    const COUNT: usize = 1024;
    let folder = tempfile::tempdir().unwrap();
    open(&folder).append(&records(COUNT), 1, TimestampMs::clamped(0));
    let disk = FolderDisk::create(folder.path()).unwrap();
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(COUNT as u64));
    group.bench_function(format!("{COUNT} records"), |bencher| {
        bencher.iter_batched_ref(
            || JournalReader::new(disk.clone(), 1, Position::START),
            |reader| assert_eq!(reader.read(COUNT, |_, _| ()).unwrap(), COUNT),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, append, read);
criterion_main!(benches);
