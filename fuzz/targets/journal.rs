//! A journal that was written, and then changed: cut, made longer, some bytes changed, with the
//! checksums that it had or with right ones.

#![no_main]

use fuzz::bytes::Bytes;
use fuzz::memory;
use ledger::disk::Disk;
use ledger::disk::memory::MemoryDisk;
use ledger::journal::{
    Event, HEADER_BYTES, Journal, JournalConfig, JournalError, JournalReader, PaymentRecord,
    Position, RECORD_BYTES, Record, SEGMENT_BYTES_MAX, SegmentHeader, recovery_start,
    segment_file_name,
};
use ledger::money::PAYMENT_CENTS;
use ledger::{Cents, CorrelationId, Processor, TimestampMs};
use libfuzzer_sys::fuzz_target;

const INSTANCE: u16 = 1;
const CONFIG: JournalConfig =
    JournalConfig { instance: INSTANCE, segment_bytes: SEGMENT_BYTES_MAX, boot_id: [7; 16] };
/// The smallest piece that a storage device writes whole.
const SECTOR_BYTES: usize = 512;
/// A reader reads in chunks, whatever there is; so does the judgement of a tail.
const BYTES_MAX: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Bytes(bytes);
    memory::within(BYTES_MAX, || {
        let disk = MemoryDisk::new();
        let segments_count = write(&disk, &mut input);
        let mut is_intact = true;
        for number in 1..=segments_count {
            is_intact &= !change(&disk, number, &mut input);
        }
        check_reading(&disk);
        check_recovery(&disk, is_intact);
    });
});

/// Writes up to three segments, and tells how many.
fn write(disk: &MemoryDisk, input: &mut Bytes<'_>) -> u32 {
    let moment = moment(input);
    let boot_id = [7 - input.u8() % 2; 16];
    let (mut journal, _) =
        Journal::open(disk.clone(), JournalConfig { boot_id, ..CONFIG }, moment, |_, _| ())
            .expect("an empty folder");
    for _ in 0..input.u8() % 32 {
        let now = self::moment(input);
        let end = journal.end();
        if input.u8().is_multiple_of(8) && end.segment < 3 {
            let oldest_open = 1 + u32::from(input.u8()) % end.segment;
            journal.rotate(oldest_open, now).expect("the disk has room");
        } else {
            let record = payment(input);
            assert!(journal.append(&[record], 1, now).error.is_none());
        }
    }
    journal.end().segment
}

fn moment(input: &mut Bytes<'_>) -> TimestampMs {
    TimestampMs::clamped(i64::from(input.u32()) << (input.u8() % 16))
}

fn payment(input: &mut Bytes<'_>) -> PaymentRecord {
    let processor = Processor::ALL[usize::from(input.u8() % 2)];
    let (status, requested_at) = (input.u16(), moment(input));
    let event = match input.u8() % 6 {
        0 => Event::Accepted,
        1 => Event::Dispatched { processor, requested_at },
        2 => Event::Failed { processor, status },
        3 => Event::Settled { processor, requested_at },
        4 => Event::Refused { processor, status },
        _ => Event::Duplicate,
    };
    let cents = (i64::from(input.u32()) << 2).clamp(*PAYMENT_CENTS.start(), *PAYMENT_CENTS.end());
    PaymentRecord {
        id: CorrelationId::from_bytes([input.u8(); 16]),
        amount: Cents::new(cents),
        written_at: moment(input),
        event,
    }
}

/// Changes a segment's file, and tells whether it did.
fn change(disk: &MemoryDisk, number: u32, input: &mut Bytes<'_>) -> bool {
    let name = segment_file_name(number);
    let Some(whole) = disk.bytes(&name) else { return false };
    let mut file = whole.clone();
    let (resizes, fill) = (input.u8() % 4, input.u8());
    let length = usize::from(input.u16() % 4096);
    match resizes {
        1 => file.truncate(length),
        2 => file.resize(file.len() + length, 0),
        3 => file.resize(file.len() + length % 128, fill),
        _ => {}
    }
    for _ in 0..input.u8() % 8 {
        let (place, byte, mends) = (usize::from(input.u16()), input.u8(), input.u8() % 2 == 0);
        if let Some(old) = file.get_mut(place) {
            *old = byte;
            if mends {
                mend(&mut file, place);
            }
        }
    }
    let changed = file != whole;
    disk.put(&name, file);
    changed
}

/// Puts a right checksum where the byte at this place belongs to a head or a record.
fn mend(file: &mut [u8], place: usize) {
    let Some((head, records)) = file.split_first_chunk_mut::<HEADER_BYTES>() else { return };
    if place < HEADER_BYTES {
        let checksum = crc32c::crc32c(&head[..60]);
        head[60..].copy_from_slice(&checksum.to_le_bytes());
    }
    let (records, _) = records.as_chunks_mut::<RECORD_BYTES>();
    let index = place.saturating_sub(HEADER_BYTES) / RECORD_BYTES;
    if place >= HEADER_BYTES
        && let Some(record) = records.get_mut(index)
    {
        let index = u32::try_from(index).expect("a short file");
        let tie = [&head[60..], &index.to_le_bytes()].concat();
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&tie), &record[4..]);
        record[..4].copy_from_slice(&checksum.to_le_bytes());
    }
}

type Read = Vec<(Position, Record)>;

fn read(disk: &MemoryDisk, from: Position) -> (Read, Result<usize, JournalError>) {
    let mut records = Vec::new();
    let mut reader = JournalReader::new(disk.clone(), INSTANCE, from);
    let result = reader.read(usize::MAX, |position, record| records.push((position, *record)));
    (records, result)
}

/// What the first segment says is written again as the very same bytes.
fn check_reading(disk: &MemoryDisk) {
    let (records, _) = read(disk, Position::START);
    let file = disk.bytes(&segment_file_name(1)).expect("it was written");
    let Some(Ok(header)) = file.first_chunk().map(SegmentHeader::decode) else {
        return assert!(records.is_empty());
    };
    // What a writer had synced is not known from its journal alone.
    if records.iter().any(|(_, record)| matches!(record, Record::Synced(_))) {
        return;
    }
    let again = MemoryDisk::new();
    let config = JournalConfig { boot_id: header.boot_id, ..CONFIG };
    let (mut journal, _) = Journal::open(again.clone(), config, header.created_at, |_, _| ())
        .expect("an empty folder");
    for (_, record) in records.iter().filter(|(position, _)| position.segment == 1) {
        match record {
            Record::Payment(payment) => {
                assert!(journal.append(&[*payment], 1, payment.written_at).error.is_none());
            }
            Record::Sealed(seal) => journal
                .rotate(seal.oldest_open_segment, seal.written_at)
                .expect("the disk has room"),
            Record::Synced(_) => unreachable!("a journal with marks is not written again"),
        }
    }
    let again = again.bytes(&segment_file_name(1)).expect("it was written");
    assert!(records.is_empty() || file.starts_with(&again), "a record says more than was read");
}

/// Whether nothing, or only an incomplete last write, stands behind the good records of a file.
fn is_whole_or_torn(file: &[u8], records_count: usize) -> bool {
    let start = HEADER_BYTES + records_count * RECORD_BYTES;
    let are_zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let sector_end = (start / SECTOR_BYTES + 1) * SECTOR_BYTES;
    file.len() < start + RECORD_BYTES
        || are_zeros(&file[start..])
        || (sector_end < start + RECORD_BYTES && are_zeros(&file[sector_end..]))
}

/// Recovery refuses what no incomplete write leaves, and changes nothing then; what it accepts it
/// makes whole, once and for all.
fn check_recovery(disk: &MemoryDisk, is_intact: bool) {
    let before = files(disk);
    let (records, _) = read(disk, Position::START);
    let now = TimestampMs::clamped(0);
    let mut seen = Vec::new();
    let opened = Journal::open(disk.clone(), CONFIG, now, |position, record| {
        seen.push((position, *record));
    });
    let is_alone = before.len() == 1 && !matches!(records.last(), Some((_, Record::Sealed(_))));
    let header = before[0].1.first_chunk().map(SegmentHeader::decode);
    // Under another boot of the machine, what does not read may have been lost with the power.
    if is_alone
        && let Some(Ok(SegmentHeader { instance: INSTANCE, number: 1, boot_id, .. })) = header
        && boot_id == CONFIG.boot_id
    {
        assert_eq!(opened.is_ok(), is_whole_or_torn(&before[0].1, records.len()));
    }
    let mut journal = match opened {
        Ok((journal, _)) => journal,
        Err(error) => {
            assert!(!is_intact, "an intact journal is refused: {error}");
            assert!(before.len() > 1 || files(disk) == before, "what is refused was changed");
            return;
        }
    };
    let record = PaymentRecord {
        id: CorrelationId::from_bytes([9; 16]),
        amount: Cents::new(1),
        written_at: now,
        event: Event::Accepted,
    };
    let appended = journal.append(&[record], 1, now);
    assert!(appended.error.is_none());
    seen.push((appended.first, record));
    drop(journal);

    let recovered = files(disk);
    let first = recovery_start(disk).expect("it was just read").expect("there is a segment");
    let mut seen_again = Vec::new();
    let (journal, recovery) = Journal::open(disk.clone(), CONFIG, now, |position, record| {
        seen_again.push((position, *record));
    })
    .expect("it was just recovered");
    assert_eq!((recovery.torn_bytes, journal.end()), (0, appended.first.next()));
    assert_eq!(files(disk), recovered, "a whole journal is changed");
    // A seal that was found to be lost names the first segment as the oldest with an open payment.
    seen.retain(|(position, _)| position.segment >= first);
    assert_eq!(seen_again, seen);
    let (records, result) = read(disk, Position { segment: first, index: 0 });
    assert!(result.is_ok());
    let payments = records.iter().filter_map(|(position, record)| match record {
        Record::Payment(payment) => Some((*position, *payment)),
        Record::Sealed(_) | Record::Synced(_) => None,
    });
    assert!(payments.eq(seen_again));
}

fn files(disk: &MemoryDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.names().expect("a folder in memory");
    names.into_iter().map(|name| (name.clone(), disk.bytes(&name).expect("a file"))).collect()
}
