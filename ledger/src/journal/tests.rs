//! The journal as a whole, on a disk in memory: what is appended, what recovery makes of it.

use std::io;

use super::*;
use crate::disk::Disk;
use crate::disk::memory::MemoryDisk;
use crate::id::CorrelationId;
use crate::money::Cents;
use crate::processor::Processor;
use crate::time::TimestampMs;

const CONFIG: JournalConfig =
    JournalConfig { instance: 1, segment_bytes: SEGMENT_BYTES_DEFAULT, boot_id: [1; 16] };

/// Segments of ten records and a seal.
const SMALL: JournalConfig = JournalConfig { segment_bytes: 64 + 10 * 48, ..CONFIG };

const NOW: TimestampMs = TimestampMs::MIN;

fn record(number: u8) -> PaymentRecord {
    let requested_at = TimestampMs::clamped(1_752_580_800_000 + i64::from(number));
    PaymentRecord {
        id: CorrelationId::from_bytes([number; 16]),
        amount: Cents::new(1990),
        written_at: NOW,
        event: match number % 6 {
            0 => Event::Accepted,
            1 => Event::Dispatched { processor: Processor::Default, requested_at },
            2 => Event::Failed { processor: Processor::Default, status: 500 },
            3 => Event::Settled { processor: Processor::Fallback, requested_at },
            4 => Event::Refused { processor: Processor::Fallback, status: 400 },
            _ => Event::Duplicate,
        },
    }
}

fn records(numbers: std::ops::Range<u8>) -> Vec<PaymentRecord> {
    numbers.map(record).collect()
}

fn open(
    disk: &MemoryDisk,
    config: JournalConfig,
) -> Result<(Journal<MemoryDisk>, Recovery, Vec<PaymentRecord>), JournalError> {
    let mut seen = Vec::new();
    Journal::open(disk.clone(), config, NOW, |_, record| seen.push(*record))
        .map(|(journal, recovery)| (journal, recovery, seen))
}

fn append(journal: &mut Journal<MemoryDisk>, records: &[PaymentRecord]) {
    let appended = journal.append(records, 1, NOW);
    assert!(appended.error.is_none(), "{:?}", appended.error);
    assert_eq!(appended.count, records.len());
}

/// A journal with these records, one append each, whose writer is gone.
fn written(config: JournalConfig, numbers: std::ops::Range<u8>) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (mut journal, _, _) = open(&disk, config).unwrap();
    for record in records(numbers) {
        append(&mut journal, &[record]);
    }
    disk
}

#[test]
fn what_was_appended_is_recovered_in_order_and_appending_goes_on() {
    let disk = written(CONFIG, 0..20);
    let (mut journal, recovery, seen) = open(&disk, CONFIG).unwrap();
    assert_eq!(seen, records(0..20));
    assert_eq!((recovery.records_count, recovery.torn_bytes), (20, 0));
    append(&mut journal, &records(20..25));
    drop(journal);
    assert_eq!(open(&disk, CONFIG).unwrap().2, records(0..25));
}

#[test]
fn a_new_journal_begins_with_segment_one() {
    let disk = MemoryDisk::new();
    let (journal, recovery, seen) = open(&disk, CONFIG).unwrap();
    assert_eq!((journal.end(), seen.len()), (Position::START, 0));
    assert_eq!((recovery.segments_count, recovery.rebooted), (0, false));
    assert_eq!(disk.bytes(&segment_file_name(1)).unwrap().len(), HEADER_BYTES);
}

#[test]
fn a_second_writer_is_refused() {
    let disk = MemoryDisk::new();
    let _first = open(&disk, CONFIG).unwrap();
    match open(&disk, CONFIG).map(drop) {
        Err(JournalError::Io { source, .. }) => {
            assert_eq!(source.kind(), io::ErrorKind::WouldBlock);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_segment_is_sealed_and_the_next_one_goes_on() {
    let disk = written(SMALL, 0..35);
    let (journal, recovery, seen) = open(&disk, SMALL).unwrap();
    assert_eq!(seen, records(0..35));
    assert_eq!(recovery.segments_count, 4);
    assert_eq!(journal.end(), Position { segment: 4, index: 5 });
    assert_eq!(disk.bytes(&segment_file_name(1)).unwrap().len(), 64 + 11 * 48);
}

/// Found by fuzzing: a reader showed the seal before it saw that it was none.
#[test]
fn a_seal_that_counts_other_records_is_damage_and_not_shown() {
    let disk = written(CONFIG, 0..3);
    let name = segment_file_name(1);
    let mut bytes = disk.bytes(&name).unwrap();
    let header_checksum = read_segment_header(&disk, 1).unwrap().unwrap().checksum();
    let seal = Seal { records_count: 2, oldest_open_segment: 1, written_at: NOW };
    Record::Sealed(seal).encode(record::Place { header_checksum, index: 3 }, &mut bytes);
    disk.put(&name, bytes);
    let mut seen = 0;
    let mut reader = JournalReader::new(disk.clone(), 1, Position::START);
    let error = reader.read(usize::MAX, |_, _| seen += 1).unwrap_err();
    assert!(error.to_string().contains("its seal counts 2 records"), "{error}");
    assert_eq!(seen, 3);
}

#[test]
fn recovery_reads_only_from_the_oldest_segment_that_was_open_at_the_last_seal() {
    let disk = MemoryDisk::new();
    let (mut journal, _, _) = open(&disk, SMALL).unwrap();
    for record in records(0..35) {
        // All payments of the first two segments are closed once the third is sealed.
        let oldest_open = if journal.end().segment < 3 { 1 } else { 3 };
        journal.append(&[record], oldest_open, NOW);
    }
    drop(journal);
    let (_, recovery, seen) = open(&disk, SMALL).unwrap();
    assert_eq!(seen, records(20..35));
    assert_eq!(recovery.segments_count, 2);
}

#[test]
fn segments_before_one_that_is_needed_can_be_removed() {
    let disk = written(SMALL, 0..35);
    let (mut journal, _, _) = open(&disk, SMALL).unwrap();
    assert_eq!(journal.remove_segments_before(3).unwrap(), 2);
    assert_eq!(journal.remove_segments_before(9).unwrap(), 1, "never the open one");
    drop(journal);
    assert_eq!(open(&disk, SMALL).unwrap().2, records(30..35));
}

#[test]
fn rotating_an_empty_segment_does_nothing() {
    let disk = MemoryDisk::new();
    let (mut journal, _, _) = open(&disk, CONFIG).unwrap();
    journal.rotate(1, NOW).unwrap();
    assert_eq!(journal.end(), Position::START);
    append(&mut journal, &records(0..1));
    journal.rotate(2, NOW).unwrap();
    journal.rotate(2, NOW).unwrap();
    assert_eq!(journal.end(), Position { segment: 2, index: 0 });
}

/// The decision table of recovery over a file that ends too early, at every byte.
#[test]
fn a_segment_cut_at_any_byte_keeps_the_records_before_the_cut() {
    let disk = written(CONFIG, 0..6);
    let name = segment_file_name(1);
    let whole = disk.bytes(&name).unwrap();
    for cut in 0..=whole.len() {
        disk.put(&name, whole[..cut].to_vec());
        let (mut journal, recovery, seen) = open(&disk, CONFIG).unwrap();
        let kept = cut.saturating_sub(HEADER_BYTES) / RECORD_BYTES;
        let torn = if cut < HEADER_BYTES { cut } else { (cut - HEADER_BYTES) % RECORD_BYTES };
        assert_eq!(seen, records(0..u8::try_from(kept).unwrap()), "cut at {cut}");
        assert_eq!(recovery.torn_bytes, torn as u64, "cut at {cut}");
        append(&mut journal, &records(6..7));
        drop(journal);
        let (_, recovery, seen) = open(&disk, CONFIG).unwrap();
        assert_eq!((seen.len(), recovery.torn_bytes), (kept + 1, 0), "cut at {cut}");
    }
}

#[test]
fn a_changed_byte_anywhere_stops_with_file_and_offset() {
    let disk = written(CONFIG, 0..6);
    let name = segment_file_name(1);
    let whole = disk.bytes(&name).unwrap();
    for byte in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[byte] ^= 0x40;
        disk.put(&name, bytes);
        match open(&disk, CONFIG).map(drop) {
            Err(JournalError::Damaged { file, offset, .. }) => {
                let start = match byte.checked_sub(HEADER_BYTES) {
                    None => 0,
                    Some(body) => HEADER_BYTES + body / RECORD_BYTES * RECORD_BYTES,
                };
                assert_eq!((file, offset), (format!("memory/{name}"), start as u64));
            }
            other => panic!("byte {byte}: {other:?}"),
        }
    }
}

#[test]
fn a_missing_segment_is_named() {
    let disk = written(SMALL, 0..35);
    disk.remove(&segment_file_name(2)).unwrap();
    let error = open(&disk, SMALL).map(drop).unwrap_err();
    assert!(error.to_string().contains(&segment_file_name(2)), "{error}");
}

#[test]
fn another_instances_segment_is_not_read() {
    let disk = written(CONFIG, 0..3);
    let other = JournalConfig { instance: 2, ..CONFIG };
    let error = open(&disk, other).map(drop).unwrap_err();
    assert!(error.to_string().contains("instance 1"), "{error}");
}

#[test]
fn a_seal_that_was_lost_is_written_again() {
    let disk = written(SMALL, 0..25);
    let name = segment_file_name(1);
    let mut bytes = disk.bytes(&name).unwrap();
    bytes.truncate(64 + 8 * 48 + 5);
    disk.put(&name, bytes);
    // Nothing but a power cut loses a seal.
    let error = open(&disk, SMALL).map(drop).unwrap_err();
    assert!(error.to_string().contains("its end is missing"), "{error}");
    let after_power_cut = JournalConfig { boot_id: [2; 16], ..SMALL };
    let (_, recovery, seen) = open(&disk, after_power_cut).unwrap();
    let expected: Vec<_> = records(0..8).into_iter().chain(records(10..25)).collect();
    assert_eq!((seen, recovery.torn_bytes), (expected.clone(), 5));
    assert_eq!(open(&disk, after_power_cut).unwrap().2, expected);
}

#[test]
fn after_a_new_boot_no_place_is_used_again() {
    for count in [0, 5, 10] {
        let disk = written(SMALL, 0..count);
        assert!(!open(&disk, SMALL).unwrap().1.rebooted);
        let after_power_cut = JournalConfig { boot_id: [2; 16], ..SMALL };
        let (mut journal, recovery, _) = open(&disk, after_power_cut).unwrap();
        assert!(recovery.rebooted);
        assert_eq!(journal.end(), Position { segment: 2, index: 0 });
        append(&mut journal, &records(count..count + 1));
        drop(journal);
        let (_, recovery, seen) = open(&disk, after_power_cut).unwrap();
        assert_eq!(seen, records(0..count + 1));
        assert!(!recovery.rebooted);
    }
}

#[test]
fn a_full_disk_keeps_whole_records_and_nothing_half() {
    for room in 0..=5 * RECORD_BYTES {
        let disk = written(CONFIG, 0..2);
        let (mut journal, _, _) = open(&disk, CONFIG).unwrap();
        disk.set_room_bytes(Some(room));
        let appended = journal.append(&records(2..7), 1, NOW);
        assert_eq!(appended.count, room / RECORD_BYTES, "room for {room} bytes");
        assert_eq!(appended.error.is_some(), room < 5 * RECORD_BYTES);
        assert_eq!(journal.append(&records(9..10), 1, NOW).count, 0);

        disk.set_room_bytes(None);
        append(&mut journal, &records(7..8));
        drop(journal);
        let kept = u8::try_from(2 + appended.count).unwrap();
        let expected: Vec<_> = records(0..kept).into_iter().chain(records(7..8)).collect();
        assert_eq!(open(&disk, CONFIG).unwrap().2, expected, "room for {room} bytes");
    }
}

#[test]
fn while_a_failed_write_cannot_be_cut_nothing_is_appended_behind_it() {
    let disk = written(CONFIG, 0..2);
    let (mut journal, _, _) = open(&disk, CONFIG).unwrap();
    disk.set_room_bytes(Some(10));
    disk.set_truncate_fails(true);
    assert_eq!(journal.append(&records(2..3), 1, NOW).count, 0);
    disk.set_room_bytes(None);
    let refused = journal.append(&records(2..3), 1, NOW);
    assert!(refused.error.unwrap().to_string().contains("cut a failed write"));
    disk.set_truncate_fails(false);
    append(&mut journal, &records(2..3));
    drop(journal);
    assert_eq!(open(&disk, CONFIG).unwrap().2, records(0..3));
}

/// A disk that runs full at any byte around the change of segments.
#[test]
fn a_full_disk_between_two_segments_heals() {
    for room in 0..=2 * RECORD_BYTES + HEADER_BYTES {
        let disk = written(SMALL, 0..10);
        let (mut journal, _, _) = open(&disk, SMALL).unwrap();
        disk.set_room_bytes(Some(room));
        let first_try = journal.append(&records(10..11), 1, NOW);
        disk.set_room_bytes(None);
        if first_try.count == 0 {
            append(&mut journal, &records(10..11));
        }
        drop(journal);
        assert_eq!(open(&disk, SMALL).unwrap().2, records(0..11), "room for {room} bytes");
    }
}

#[test]
fn a_segment_that_is_begun_again_keeps_its_head() {
    let disk = written(SMALL, 0..10);
    let (mut journal, _, _) = open(&disk, SMALL).unwrap();
    let mut reader = JournalReader::new(disk.clone(), 1, Position::START);
    disk.set_sync_fails(true);
    assert_eq!(journal.append(&records(10..11), 1, NOW).count, 0);
    assert_eq!(read_all(&mut reader), records(0..10));
    // The reader has seen the head of the second segment, which is not begun.
    assert_eq!(reader.position(), Position { segment: 2, index: 0 });
    disk.set_sync_fails(false);
    let later = TimestampMs::clamped(NOW.get() + 1);
    assert_eq!(journal.append(&records(10..11), 1, later).count, 1);
    assert_eq!(read_all(&mut reader), records(10..11));
}

#[test]
fn what_was_not_synced_is_written_again_before_the_next_segment_is_begun() {
    let disk = written(SMALL, 0..10);
    let (mut journal, _, _) = open(&disk, SMALL).unwrap();
    disk.set_sync_fails(true);
    assert_eq!(journal.append(&records(10..11), 1, NOW).count, 0);
    assert!(journal.take_unsynced().run().is_err());
    disk.set_sync_fails(false);
    journal.rewrite_unsynced().unwrap();
    let job = journal.take_unsynced();
    job.run().unwrap();
    journal.synced(job.through());
    assert!(!journal.is_unsynced());
    append(&mut journal, &records(10..12));
    drop(journal);
    assert_eq!(open(&disk, SMALL).unwrap().2, records(0..12));
}

#[test]
fn a_reader_can_go_on_behind_a_seal_that_was_lost_with_the_power() {
    let disk = written(SMALL, 0..15);
    let name = segment_file_name(1);
    let bytes = disk.bytes(&name).unwrap();
    // The seal and the last record are gone.
    disk.put(&name, bytes[..bytes.len() - 2 * RECORD_BYTES].to_vec());
    let reader = || JournalReader::new(disk.clone(), 1, Position::START);
    let mut waiting = reader().under_boot([2; 16]);
    assert_eq!(read_all(&mut waiting), records(0..9));
    let mut passing = reader().under_boot([2; 16]).passing_lost_seals();
    let seen = [records(0..9), records(10..15)].concat();
    assert_eq!(read_all(&mut passing), seen);
    // Under the same boot nothing can be lost, and the next segment waits for the seal.
    let mut same_boot = reader().under_boot(SMALL.boot_id).passing_lost_seals();
    assert_eq!(read_all(&mut same_boot), records(0..9));
    // The writer takes it alike, and the readers come together behind it.
    let config = JournalConfig { boot_id: [2; 16], ..SMALL };
    let (mut journal, _, recovered) = open(&disk, config).unwrap();
    assert_eq!(recovered, seen);
    append(&mut journal, &records(20..21));
    assert_eq!(read_all(&mut waiting), [records(10..15), records(20..21)].concat());
    assert_eq!(read_all(&mut passing), records(20..21));
}

#[test]
fn a_sync_covers_what_was_written_and_tells_when_it_fails() {
    let disk = written(SMALL, 0..25);
    let (mut journal, _, _) = open(&disk, SMALL).unwrap();
    append(&mut journal, &records(25..30));
    journal.take_unsynced().run().unwrap();
    disk.set_sync_fails(true);
    let error = journal.take_unsynced().run().unwrap_err();
    assert!(error.to_string().starts_with("cannot sync"), "{error}");
}

#[test]
fn after_a_failed_sync_everything_unsynced_is_written_again() {
    let disk = written(SMALL, 0..5);
    let (mut journal, _, _) = open(&disk, SMALL).unwrap();
    assert!(journal.is_unsynced());
    let job = journal.take_unsynced();
    job.run().unwrap();
    journal.synced(job.through());
    assert!(!journal.is_unsynced());

    for record in records(5..25) {
        append(&mut journal, &[record]);
    }
    disk.set_sync_fails(true);
    assert!(journal.take_unsynced().run().is_err());
    disk.set_sync_fails(false);
    let before: Vec<_> = (1..=3).map(|number| disk.bytes(&segment_file_name(number))).collect();
    disk.count_writes();
    journal.rewrite_unsynced().unwrap();
    // Three heads, the mark of the sync before, the 20 records that were not synced, and two seals.
    assert_eq!(disk.count_writes(), 3 + 1 + 20 + 2);
    let after: Vec<_> = (1..=3).map(|number| disk.bytes(&segment_file_name(number))).collect();
    assert_eq!(before, after);
    let job = journal.take_unsynced();
    job.run().unwrap();
    journal.synced(job.through());
    assert!(!journal.is_unsynced());
}

#[test]
fn segments_that_were_removed_are_not_written_again() {
    let disk = written(SMALL, 0..35);
    let (mut journal, _, _) = open(&disk, SMALL).unwrap();
    assert_eq!(journal.remove_segments_before(3).unwrap(), 2);
    journal.rewrite_unsynced().unwrap();
    let job = journal.take_unsynced();
    job.run().unwrap();
    journal.synced(job.through());
    assert!(!journal.is_unsynced());
}

#[test]
fn what_changed_under_a_failed_sync_is_damage() {
    let disk = written(CONFIG, 0..5);
    let (mut journal, _, _) = open(&disk, CONFIG).unwrap();
    let name = segment_file_name(1);
    let mut bytes = disk.bytes(&name).unwrap();
    bytes[64 + 2 * 48 + 9] ^= 1;
    disk.put(&name, bytes);
    assert!(matches!(journal.rewrite_unsynced(), Err(JournalError::Damaged { .. })));
}

fn read_all(reader: &mut JournalReader<MemoryDisk>) -> Vec<PaymentRecord> {
    let mut seen = Vec::new();
    reader
        .read(usize::MAX, |_, record| {
            if let Record::Payment(payment) = record {
                seen.push(*payment);
            }
        })
        .unwrap();
    seen
}

#[test]
fn a_reader_follows_the_writer_over_segments() {
    let disk = MemoryDisk::new();
    let mut reader = JournalReader::new(disk.clone(), 1, Position::START);
    assert_eq!(read_all(&mut reader), []);
    let (mut journal, _, _) = open(&disk, SMALL).unwrap();
    assert_eq!(read_all(&mut reader), []);
    for number in 0..35 {
        append(&mut journal, &records(number..number + 1));
        assert_eq!(read_all(&mut reader), records(number..number + 1));
        assert_eq!(reader.position(), journal.end());
    }
}

#[test]
fn a_reader_reads_no_more_than_asked_for_and_goes_on_from_there() {
    let disk = written(SMALL, 0..35);
    let mut reader = JournalReader::new(disk, 1, Position { segment: 2, index: 3 });
    let mut seen = Vec::new();
    loop {
        let mut now = 0;
        let count = reader
            .read(4, |_, record| {
                now += 1;
                if let Record::Payment(payment) = record {
                    seen.push(*payment);
                }
            })
            .unwrap();
        assert_eq!(now, count);
        if count < 4 {
            break;
        }
    }
    assert_eq!(seen, records(13..35));
}

#[test]
fn a_reader_waits_for_the_rest_of_a_write() {
    let disk = written(CONFIG, 0..6);
    let name = segment_file_name(1);
    let whole = disk.bytes(&name).unwrap();
    disk.put(&name, whole[..20].to_vec());
    let mut reader = JournalReader::new(disk.clone(), 1, Position::START);
    assert_eq!(read_all(&mut reader), []);
    disk.put(&name, whole.clone());
    // It opened the segment anew, because its head was not whole before.
    assert_eq!(read_all(&mut reader), records(0..6));

    let disk = written(CONFIG, 0..6);
    let file = disk.open(&name).unwrap();
    crate::disk::DiskFile::truncate(&file, 64 + 3 * 48 + 17).unwrap();
    let mut reader = JournalReader::new(disk, 1, Position::START);
    assert_eq!(read_all(&mut reader), records(0..3));
    crate::disk::DiskFile::write_at(&file, 0, &whole).unwrap();
    assert_eq!(read_all(&mut reader), records(3..6));
}
