//! A file of the index, as it was written or with some bytes changed, and with the checksums that it
//! had or right ones.

#![no_main]

use std::collections::BTreeMap;

use fuzz::bytes::Bytes;
use fuzz::memory;
use ledger::disk::memory::MemoryDisk;
use ledger::journal::{Event, Journal, JournalConfig, PaymentRecord, SEGMENT_BYTES_DEFAULT};
use ledger::{Cents, CorrelationId, Processor, TimestampMs, Totals};
use libfuzzer_sys::fuzz_target;
use store::index::{Kind, OpenSegment, SealedSegment, SegmentKey, Sought, index_file_name};

const KEY: SegmentKey = SegmentKey {
    instance: 1,
    number: 1,
    header_checksum: 7,
    first_index: 0,
    seal_index: 9,
    hash_key: [3; 16],
};
/// The filter's table has a size of its own, and the journal is read in chunks.
const BYTES_MAX: usize = 1 << 20;

/// Somewhat more than the ticks of all payments.
const TICKS_COUNT: u16 = 400;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Bytes(bytes);
    memory::within(BYTES_MAX, || {
        let ids: Vec<CorrelationId> = (0..input.u8()).map(|_| id(input.u8())).collect();
        let (disk, journal, segment) = written(&ids);
        check_whole(&disk, &journal, &segment);
        let file_name = index_file_name(KEY.instance, KEY.number);
        let whole = disk.bytes(&file_name).expect("it was just written");
        let changed = changed(whole.clone(), &mut input);
        disk.put(&file_name, changed.clone());
        match SealedSegment::open(&disk, journal, KEY) {
            // Whatever is found is what the journal says, or it is an error.
            Ok(Some(sealed)) => {
                let mut settled = [Totals::default(); 2];
                match sealed.add_to(&mut settled, &(0..u64::MAX >> 1)) {
                    Ok(()) => assert_eq!(settled, sealed.settled()),
                    Err(error) => panic!("the file is as it was when it was opened: {error}"),
                }
                for _ in 0..4 {
                    let [one, other] = [(); 2].map(|()| u64::from(input.u16() % TICKS_COUNT));
                    assert_eq!(
                        in_parts(&sealed, [one.min(other), one.max(other)]),
                        sealed.settled()
                    );
                }
                for id in ids.iter().copied().chain((0..=255).map(id)) {
                    if let Ok(Some(entry)) = sealed.find(&mut Sought::new(id)) {
                        assert_eq!(ids.get(entry.index() as usize), Some(&id));
                    }
                }
            }
            Ok(None) => assert_ne!(changed, whole),
            Err(error) => panic!("the disk is whole: {error}"),
        }
    });
});

fn id(number: u8) -> CorrelationId {
    CorrelationId::from_bytes([number; 16])
}

/// An index, the journal that it is of, and what it was made of.
fn written(ids: &[CorrelationId]) -> (MemoryDisk, MemoryDisk, OpenSegment) {
    let (disk, journal_disk) = (MemoryDisk::new(), MemoryDisk::new());
    let config =
        JournalConfig { instance: 1, segment_bytes: SEGMENT_BYTES_DEFAULT, boot_id: [0; 16] };
    let now = TimestampMs::MIN;
    let (mut journal, _) =
        Journal::open(journal_disk.clone(), config, now, |_, _| ()).expect("an empty folder");
    let mut segment = OpenSegment::default();
    for (id, index) in ids.iter().zip(0..) {
        let event = Event::Accepted;
        let record = PaymentRecord { id: *id, amount: Cents::new(1), written_at: now, event };
        assert!(journal.append(&[record], 1, now).error.is_none());
        segment.record(*id, index, Kind::Accepted);
        // Some at one moment, and some out of order.
        let [number, ..] = id.to_bytes();
        let processor = Processor::ALL[usize::from(number % 3 == 0)];
        let tick = u64::from(index / 2) * 3 + u64::from(number % 7);
        segment.add_settled(tick, processor, Cents::new(i64::from(number) + 1));
    }
    SealedSegment::write(&disk, KEY, &segment, &[]).expect("the disk has room");
    (disk, journal_disk, segment)
}

/// What was written is found, all of it and nothing else.
fn check_whole(disk: &MemoryDisk, journal: &MemoryDisk, segment: &OpenSegment) {
    let sealed = SealedSegment::open(disk, journal.clone(), KEY).expect("the disk is whole");
    let sealed = sealed.expect("it was just written");
    let expected: BTreeMap<_, _> = segment.entries().collect();
    for tick in (0..TICKS_COUNT).step_by(50).map(u64::from) {
        assert_eq!(in_parts(&sealed, [tick, tick + 20]), segment.settled());
    }
    for id in (0..=255).map(id) {
        let found = sealed.find(&mut Sought::new(id)).expect("the journal is whole");
        assert_eq!(found.map(|e| e.index()), expected.get(&id).map(|e| e.index()));
    }
}

/// What was settled before, between and after two ticks.
fn in_parts(sealed: &SealedSegment<MemoryDisk>, [one, other]: [u64; 2]) -> [Totals; 2] {
    let mut settled = [Totals::default(); 2];
    for ticks in [0..one, one..other, other..u64::MAX >> 1] {
        sealed.add_to(&mut settled, &ticks).expect("the file is as it was when it was opened");
    }
    settled
}

/// The file with some bytes changed, and perhaps cut or made longer.
fn changed(mut file: Vec<u8>, input: &mut Bytes<'_>) -> Vec<u8> {
    let (mends_checksum, changes_count) = (input.u8() % 2 == 0, input.u8() % 32);
    let length = usize::from(input.u16());
    if length > 0 && length < 4096 {
        file.resize(length, 0xff);
    }
    for _ in 0..changes_count {
        let (place, byte) = (usize::from(input.u16()), input.u8());
        if let Some(old) = file.get_mut(place) {
            *old = byte;
        }
    }
    if mends_checksum {
        mend(&mut file);
    }
    file
}

/// Gives the file the checksums that its bytes should have, as far as it goes.
fn mend(file: &mut [u8]) {
    let Some((head, mut rest)) = file.split_first_chunk_mut::<128>() else { return };
    let size = |place: usize| {
        head[place..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
    };
    let (entries_count, sums_count, filters_bytes, sum_bytes) =
        (size(44), size(48), size(52), size(56));
    let columns = [
        entries_count.saturating_mul(8),
        entries_count.saturating_mul(4),
        sums_count.saturating_mul(sum_bytes),
        filters_bytes,
    ];
    for (place, size) in (108..).step_by(4).zip(columns) {
        let (column, after) = rest.split_at_mut(size.min(rest.len()));
        head[place..place + 4].copy_from_slice(&crc32c::crc32c(column).to_le_bytes());
        rest = after;
    }
    let checksum = crc32c::crc32c(&head[..124]);
    head[124..].copy_from_slice(&checksum.to_le_bytes());
}
