//! Recovery of a journal from every state in which a crash may leave it: every cut point of every kind
//! of record, every changed byte, every combination of writes that a power cut may lose, and a crash at
//! every step of recovery itself.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use ledger::disk::crashing::CrashingDisk;
use ledger::disk::memory::MemoryDisk;
use ledger::disk::{Disk, DiskFile};
use ledger::journal::{
    Event, HEADER_BYTES, Journal, JournalConfig, JournalError, PaymentRecord, Position,
    RECORD_BYTES, Recovery, SEGMENT_BYTES_MAX, segment_file_name,
};
use ledger::{Cents, CorrelationId, Processor, TimestampMs};

const BOOT: [u8; 16] = [1; 16];
const NEXT_BOOT: [u8; 16] = [2; 16];
const THIRD_BOOT: [u8; 16] = [3; 16];

/// Unsynced changes beyond which only some of their combinations are tried.
const UNSYNCED_MAX: usize = 11;
/// How many of them.
const SAMPLES: u64 = 400;

fn config(boot_id: [u8; 16]) -> JournalConfig {
    JournalConfig { instance: 1, segment_bytes: SEGMENT_BYTES_MAX, boot_id }
}

fn record(number: u32) -> PaymentRecord {
    let requested_at = TimestampMs::clamped(1_752_580_800_000 + i64::from(number));
    let mut id = [0x11; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let processor = if number.is_multiple_of(4) { Processor::Default } else { Processor::Fallback };
    PaymentRecord {
        id: CorrelationId::from_bytes(id),
        amount: Cents::new(1990 + i64::from(number)),
        written_at: requested_at,
        event: match number % 6 {
            0 => Event::Accepted,
            1 => Event::Dispatched { processor, requested_at },
            2 => Event::Failed { processor, status: 500 },
            3 => Event::Settled { processor, requested_at },
            4 => Event::Refused { processor, status: 400 },
            _ => Event::Duplicate,
        },
    }
}

fn now() -> TimestampMs {
    TimestampMs::clamped(1)
}

type Opened<D> = (Journal<D>, Recovery, Vec<PaymentRecord>);

fn open<D: Disk>(disk: &D, boot_id: [u8; 16]) -> Result<Opened<D>, JournalError> {
    let mut seen = Vec::new();
    Journal::open(disk.clone(), config(boot_id), now(), |_, record| seen.push(*record))
        .map(|(journal, recovery)| (journal, recovery, seen))
}

fn append<D: Disk>(journal: &mut Journal<D>, records: &[PaymentRecord]) {
    let appended = journal.append(records, 1, now());
    assert!(appended.error.is_none(), "{:?}", appended.error);
}

/// What a process does to its journal.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Appends so many records with one write.
    Append(u32),
    Sync,
    /// Seals the segment, and begins the next one.
    Rotate,
}

/// A journal on a disk that loses what was not synced, after some steps.
struct Written {
    disk: CrashingDisk,
    records: Vec<PaymentRecord>,
    synced_count: usize,
}

fn written(steps: &[Step]) -> Written {
    let disk = CrashingDisk::default();
    let (mut journal, _, _) = open(&disk, BOOT).unwrap();
    let mut records = Vec::new();
    let mut synced_count = 0;
    for step in steps {
        match step {
            Step::Append(count) => {
                let first = u32::try_from(records.len()).unwrap();
                let batch: Vec<_> = (first..first + count).map(record).collect();
                append(&mut journal, &batch);
                records.extend(batch);
            }
            Step::Sync => {
                let job = journal.take_unsynced();
                job.run().unwrap();
                journal.synced(job.through());
                synced_count = records.len();
            }
            Step::Rotate => journal.rotate(1, now()).unwrap(),
        }
    }
    Written { disk, records, synced_count }
}

/// What is left of a journal is some of what was written, in order, and all of what was synced.
fn check(written: &Written, seen: &[PaymentRecord], what: &str) {
    let mut rest = written.records.iter();
    for record in seen {
        assert!(rest.any(|before| before == record), "{what}: {record:?} was not written there");
    }
    let synced = &written.records[..written.synced_count];
    assert!(seen.starts_with(synced), "{what}: {} of {} are left", seen.len(), synced.len());
}

/// Recovers a copy of what is left, appends, and recovers again.
fn recover(written: &Written, left: &MemoryDisk, boot_id: [u8; 16], what: &str) {
    let copy = copy(left);
    let (mut journal, _, seen) = match open(&copy, boot_id) {
        Ok(opened) => opened,
        Err(error) => panic!("{what}: {error}"),
    };
    check(written, &seen, what);
    let later = record(1_000_000);
    append(&mut journal, &[later]);
    drop(journal);
    let (_, recovery, mut again) = open(&copy, boot_id).unwrap();
    assert_eq!(again.pop(), Some(later), "{what}");
    assert_eq!((again, recovery.torn_bytes), (seen, 0), "{what}: recovery changes what it leaves");
}

fn files(disk: &MemoryDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.names().unwrap().into_iter();
    names.map(|name| (name.clone(), disk.bytes(&name).unwrap())).collect()
}

fn copy(disk: &MemoryDisk) -> MemoryDisk {
    let copy = MemoryDisk::new();
    for (name, bytes) in files(disk) {
        copy.put(&name, bytes);
    }
    copy
}

/// Every state in which a power cut may leave the disk, or some of them where they are too many.
fn power_cuts(disk: &CrashingDisk, seed: u64) -> Vec<(String, MemoryDisk)> {
    let count = disk.unsynced_count();
    let masks: Vec<u64> = if count <= UNSYNCED_MAX {
        (0..1 << count).collect()
    } else {
        let mut random = seed;
        let mut next = || {
            // SplitMix64.
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        (0..SAMPLES).map(|_| next()).collect()
    };
    let left = |mask: u64| {
        let image = disk.after_power_cut(|number| mask >> (number % 64) & 1 == 1);
        (format!("{count} changes, {mask:b} kept"), image)
    };
    masks.into_iter().map(left).collect()
}

/// With every write synced before the next, as `--durability disk` does it, and with a sync now and
/// then.
const SCHEDULES: &[&[Step]] = &[
    &[Step::Append(1)],
    &[Step::Append(3), Step::Sync, Step::Append(1)],
    &[Step::Append(9), Step::Append(9), Step::Append(9)],
    &[Step::Append(5), Step::Sync, Step::Append(30), Step::Sync, Step::Append(30)],
    &[Step::Append(5), Step::Sync, Step::Append(60)],
    &[Step::Append(5), Step::Sync, Step::Append(100)],
    &[Step::Append(5), Step::Sync, Step::Append(40), Step::Append(40)],
    &[Step::Append(20), Step::Append(20), Step::Rotate, Step::Append(20), Step::Append(20)],
    &[Step::Append(5), Step::Sync, Step::Rotate],
    &[Step::Append(5), Step::Rotate, Step::Append(2)],
    &[Step::Append(5), Step::Sync, Step::Append(12), Step::Rotate, Step::Append(2)],
    &[Step::Append(5), Step::Rotate, Step::Sync, Step::Append(25), Step::Append(1)],
    &[Step::Sync, Step::Append(1), Step::Sync, Step::Append(1), Step::Sync, Step::Append(15)],
];

#[test]
fn after_every_power_cut_all_that_was_synced_is_there() {
    let mut cases = 0;
    for steps in SCHEDULES {
        for end in 1..=steps.len() {
            let written = written(&steps[..end]);
            for (what, left) in power_cuts(&written.disk, cases) {
                recover(&written, &left, NEXT_BOOT, &format!("{:?}: {what}", &steps[..end]));
                cases += 1;
            }
            let what = format!("{:?}: kill", &steps[..end]);
            recover(&written, &written.disk.after_kill(), BOOT, &what);
            cases += 1;
        }
    }
    println!("{cases} states after power cuts and kills");
    assert!(cases > 2_000, "{cases}");
}

#[test]
fn a_crash_during_recovery_changes_nothing() {
    let mut cases = 0;
    for steps in SCHEDULES {
        let written = written(steps);
        let mut tried = BTreeSet::new();
        for (what, left) in power_cuts(&written.disk, 7) {
            if tried.len() >= 24 || !tried.insert(files(&left)) {
                continue;
            }
            for end in 0.. {
                let disk = CrashingDisk::with_files(&left);
                disk.end_after(end);
                let opened = open(&disk, NEXT_BOOT);
                let has_ended = disk.has_ended();
                assert!(has_ended || opened.is_ok(), "{what}, {end} steps");
                drop(opened);
                let what = format!("{steps:?}: {what}, recovery ends after {end} steps");
                recover(&written, &disk.after_kill(), NEXT_BOOT, &what);
                for (kept, left) in power_cuts(&disk, 11) {
                    recover(&written, &left, THIRD_BOOT, &format!("{what}: {kept}"));
                    cases += 1;
                }
                cases += 1;
                if !has_ended {
                    break;
                }
            }
        }
    }
    println!("{cases} states after crashes during recovery");
    assert!(cases > 2_000, "{cases}");
}

/// The last write of a process that was killed may be cut at any byte: of every kind of record, of a
/// mark, of a seal, of a head.
#[test]
fn every_cut_point_of_every_record_is_a_torn_tail() {
    let mut cases = 0;
    for boot_id in [BOOT, NEXT_BOOT] {
        // Each of the six kinds about a payment, at places with all alignments to sectors.
        for before in 0..32 {
            let whole = written(&[Step::Append(before), Step::Append(1)]);
            cases += cut(&whole, 1, RECORD_BYTES, before as usize, boot_id);
        }
        let marked = written(&[Step::Append(4), Step::Sync, Step::Append(1)]);
        cases += cut(&marked, 1, 2 * RECORD_BYTES, 4, boot_id);
        let sealed = written(&[Step::Append(4), Step::Rotate]);
        sealed.disk.remove(&segment_file_name(2)).unwrap();
        cases += cut(&sealed, 1, RECORD_BYTES, 4, boot_id);
        let begun = written(&[Step::Append(4), Step::Rotate]);
        cases += cut(&begun, 2, HEADER_BYTES, 4, boot_id);
    }
    println!("{cases} cut points");
    assert_eq!(cases, 2 * (32 * 48 + 96 + 48 + 64));
}

/// Cuts the last bytes of a segment at each of them; so many records must be left.
fn cut(written: &Written, segment: u32, bytes_count: usize, left: usize, boot: [u8; 16]) -> usize {
    let name = segment_file_name(segment);
    let whole = written.disk.after_kill().bytes(&name).unwrap();
    for kept in 0..bytes_count {
        let disk = written.disk.after_kill();
        disk.put(&name, whole[..whole.len() - bytes_count + kept].to_vec());
        let (_, recovery, seen) = open(&copy(&disk), boot).unwrap();
        assert_eq!(seen, written.records[..left], "{kept} of {bytes_count} bytes are there");
        let torn = u64::try_from(kept % RECORD_BYTES).unwrap();
        assert!(recovery.torn_bytes == torn || segment > 1, "{kept}: {recovery:?}");
        recover(written, &disk, boot, &format!("{kept} of {bytes_count} bytes"));
    }
    bytes_count
}

/// A byte that changed is never passed over: recovery names the file and the place, and changes nothing.
#[test]
fn every_changed_byte_is_reported() {
    let steps = [Step::Append(12), Step::Sync, Step::Append(3), Step::Rotate, Step::Append(4)];
    let whole = written(&steps).disk.after_kill();
    let mut cases = 0;
    for segment in [1, 2] {
        let name = segment_file_name(segment);
        let size = whole.bytes(&name).unwrap().len();
        for byte in 0..size {
            for bit in [0x01, 0x80] {
                let disk = copy(&whole);
                let mut bytes = whole.bytes(&name).unwrap();
                bytes[byte] ^= bit;
                disk.put(&name, bytes);
                let before = files(&disk);
                let error = open(&disk, BOOT).map(drop).unwrap_err();
                assert_damage(&error, &name, byte);
                assert_eq!(files(&disk), before, "what is damaged is changed");
                cases += 1;
            }
        }
    }
    println!("{cases} changed bytes");
    // A mark stands before the three records that follow the sync, and a seal behind them.
    let bytes = 2 * HEADER_BYTES + (12 + 1 + 3 + 1 + 4) * RECORD_BYTES;
    assert_eq!(cases, 2 * bytes);
}

fn assert_damage(error: &JournalError, name: &str, byte: usize) {
    let JournalError::Damaged { file, offset, .. } = error else { panic!("{error}") };
    let index = byte.checked_sub(HEADER_BYTES).map(|byte| byte / RECORD_BYTES);
    let expected = index.map_or(0, |index| HEADER_BYTES + index * RECORD_BYTES);
    assert!(file.ends_with(name), "{error}");
    assert_eq!(*offset, u64::try_from(expected).unwrap(), "{error}");
}

/// A process may end before it has synced what it wrote, and the next one may find it there.
#[test]
fn what_was_recovered_is_synced_with_what_follows() {
    let written = written(&[Step::Append(5), Step::Rotate, Step::Append(5)]);
    let (mut journal, _, seen) = open(&written.disk, BOOT).unwrap();
    assert_eq!(seen.len(), 10);
    assert!(journal.is_unsynced());
    let job = journal.take_unsynced();
    job.run().unwrap();
    journal.synced(job.through());
    let left = written.disk.after_power_cut(|_| false);
    assert_eq!(open(&left, NEXT_BOOT).unwrap().2, seen);
}

/// After a power cut, a place that does not read is damage where a mark says that it was on the disk.
#[test]
fn after_a_power_cut_what_was_synced_and_does_not_read_is_damage() {
    let steps = [Step::Append(12), Step::Sync, Step::Append(5)];
    let whole = written(&steps).disk.after_kill();
    let name = segment_file_name(1);
    for index in 0..18_u32 {
        let disk = copy(&whole);
        let file = disk.open(&name).unwrap();
        let offset = HEADER_BYTES + index as usize * RECORD_BYTES;
        file.write_at(offset as u64, &[0; RECORD_BYTES]).unwrap();
        let opened = open(&disk, NEXT_BOOT);
        if index < 12 {
            assert_damage(&opened.map(drop).unwrap_err(), &name, offset);
            continue;
        }
        // The mark has the index 12, and nothing says that the five records behind it were synced.
        let (journal, recovery, seen) = opened.unwrap();
        assert_eq!(seen.len(), 12.max(index.saturating_sub(1) as usize));
        assert_eq!(recovery.torn_bytes, u64::from(18 - index) * RECORD_BYTES as u64);
        assert_eq!(journal.end(), Position { segment: 2, index: 0 });
    }
}
