//! What is told of payments, from journals as APIs write them.

use ledger::Cents;
use ledger::journal::{Journal, JournalConfig, SEGMENT_BYTES_MIN};
use tempfile::TempDir;

use super::*;

const ID: CorrelationId = CorrelationId::from_bytes([7; 16]);
const DEFAULT: Processor = Processor::Default;

fn at(ms: i64) -> TimestampMs {
    TimestampMs::clamped(1_752_580_800_000 + ms)
}

fn record(id: CorrelationId, ms: i64, event: Event) -> PaymentRecord {
    PaymentRecord { id, amount: Cents::new(1990), written_at: at(ms), event }
}

fn dispatched(ms: i64) -> Event {
    Event::Dispatched { processor: DEFAULT, requested_at: at(ms) }
}

/// What is told where the journal of each instance has these records of the payment.
fn told(records: &[(u16, i64, Event)]) -> Vec<String> {
    let mut found: Vec<_> = (0..)
        .zip(records)
        .map(|(index, (instance, ms, event))| Found {
            instance: *instance,
            position: Position { segment: 1, index },
            record: record(ID, *ms, *event),
        })
        .collect();
    let telling = found.last().unwrap().record;
    let told = |step: Step| {
        let at = step.at_ms.map_or("-".to_owned(), |ms| (ms - at(0).get()).to_string());
        format!("{at} {} {}: {}", step.daemon, step.what, step.words)
    };
    assert!(!leave_out_the_middle(&mut found));
    life(&telling, Search { found, ..Search::default() }).steps.into_iter().map(told).collect()
}

#[test]
fn a_payment_that_settles_at_once_is_accepted_decided_sent_and_settled() {
    let settled = Event::Settled { processor: DEFAULT, requested_at: at(3) };
    let records = [(1, 0, Event::Accepted), (1, 3, dispatched(3)), (1, 5, settled)];
    let moment = "2025-07-15T12:00:00.003Z";
    assert_eq!(
        told(&records),
        [
            "0 api-1 accepted: Taken in. Its client is answered 202 once this is written."
                .to_owned(),
            "- api-1 decided: The store decided that this record has the right to the id. When is \
             not written down."
                .to_owned(),
            format!("3 api-1 sent: Sent to default, under requestedAt {moment}."),
            format!("5 api-1 settled: Settled: default has it, under requestedAt {moment}."),
        ]
    );
}

#[test]
fn doubts_failures_and_duplicates_are_told_as_what_they_are() {
    let fallback = Processor::Fallback;
    let told = told(&[
        (1, 0, Event::Accepted),
        (2, 1, Event::Accepted),
        (2, 2, Event::Duplicate),
        (1, 3, dispatched(3)),
        (1, 4, Event::Failed { processor: DEFAULT, status: 500 }),
        (1, 5, dispatched(5)),
        (1, 6, Event::Failed { processor: DEFAULT, status: 0 }),
        (1, 7, dispatched(7)),
        (1, 8, dispatched(8)),
        (1, 9, Event::Settled { processor: DEFAULT, requested_at: at(7) }),
        (1, 10, Event::Refused { processor: fallback, status: 400 }),
    ]);
    let parts = [
        "0 api-1 accepted",
        "1 api-2 accepted",
        "2 api-2 duplicate: Closed: another record",
        "- api-1 decided",
        "3 api-1 sent: Sent to default",
        "4 api-1 failed: default answered 500",
        "5 api-1 sent: Sent to default",
        "6 api-1 failed: No connection to default",
        "7 api-1 sent: Sent to default",
        "8 api-1 sent: In doubt: whether default had it",
        "9 api-1 settled: Settled: default has it by an earlier call",
        "10 api-1 refused: Refused for good: fallback answered 400",
    ];
    assert_eq!(told.len(), parts.len(), "{told:?}");
    for (told, part) in told.iter().zip(parts) {
        assert!(told.starts_with(part), "{told}");
    }
}

#[test]
fn what_came_from_the_archive_says_so() {
    let settled = Event::Settled { processor: DEFAULT, requested_at: at(3) };
    let told = told(&[(RESTORED_INSTANCE, 5, settled)]);
    assert!(told.len() == 1 && told[0].contains("Restored from the archive"), "{told:?}");
}

#[test]
fn how_it_stands_is_what_an_api_says() {
    let (processor, requested_at, status) = (DEFAULT, at(0), 500);
    for (event, expected) in [
        (Event::Accepted, "accepted"),
        (Event::Failed { processor, status }, "accepted"),
        (Event::Dispatched { processor, requested_at }, "in_flight"),
        (Event::Settled { processor, requested_at }, "settled"),
        (Event::Refused { processor, status }, "refused"),
    ] {
        assert_eq!(standing(&event).0, expected);
    }
}

/// A journal with many payments in several segments.
fn volume() -> (TempDir, Volume, Vec<Position>) {
    let folder = tempfile::tempdir().unwrap();
    let volume = Volume::new(folder.path());
    volume.create().unwrap();
    let disk = FolderDisk::create(volume.journal(1)).unwrap();
    let config =
        JournalConfig { instance: 1, segment_bytes: SEGMENT_BYTES_MIN, boot_id: boot_id() };
    let (mut journal, _) = Journal::open(disk, config, at(0), |_, _| {}).unwrap();
    let mut places = Vec::new();
    let mut append = |id, ms, event| {
        let appended = journal.append(&[record(id, ms, event)], 1, at(ms));
        assert!(appended.error.is_none(), "{:?}", appended.error);
        appended.first
    };
    places.push(append(ID, 0, Event::Accepted));
    let others = i64::try_from(SEGMENT_BYTES_MIN / 48).unwrap();
    for number in 1..=others {
        let id = CorrelationId::from_bytes(u128::to_be_bytes(number.unsigned_abs().into()));
        append(id, number, Event::Accepted);
    }
    places.push(append(ID, others + 1, dispatched(1)));
    (folder, volume, places)
}

#[test]
fn only_the_segments_that_have_the_payment_are_read_and_each_to_its_end() {
    let (_folder, volume, places) = volume();
    let [accepted, sent] = places[..] else { panic!("two records") };
    assert!(sent.segment > accepted.segment);
    let begin = |segment| Trace { instance: 1, from: Position { segment, index: 0 } };
    let found = |traces: &[Trace]| {
        let Search { found, is_whole, unread } = read(&volume, traces, ID);
        assert_eq!(unread, Vec::<String>::new());
        (found.iter().map(|found| found.position).collect::<Vec<_>>(), is_whole)
    };
    let both = [begin(accepted.segment), begin(sent.segment)];
    assert_eq!(found(&both), (vec![accepted, sent], true));
    assert_eq!(found(&both[1..]), (vec![sent], true));
    // What lies before the place was purged.
    let after = Trace { instance: 1, from: accepted.next() };
    assert_eq!(found(&[after]), (vec![], true));
    // A segment and a journal that are gone.
    assert_eq!(found(&[begin(99), Trace { instance: 9, from: accepted }]), (vec![], true));
    assert!(!volume.journal(9).exists());
    let many = vec![begin(accepted.segment); SEGMENTS_MAX + 1];
    assert_eq!(found(&many), (vec![accepted], false));
}

#[test]
fn what_lies_beside_a_damaged_place_is_told_and_so_is_the_damage() {
    let (_folder, volume, places) = volume();
    let [accepted, sent] = places[..] else { panic!("two records") };
    let path = volume.journal(1).join(format!("{:010}.journal", accepted.segment));
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let traces = [accepted, sent].map(|Position { segment, .. }| Trace {
        instance: 1,
        from: Position { segment, index: 0 },
    });
    let search = read(&volume, &traces, ID);
    let found: Vec<_> = search.found.iter().map(|found| found.position).collect();
    assert_eq!(found, [accepted, sent]);
    let [why] = &search.unread[..] else { panic!("{:?}", search.unread) };
    assert!(why.starts_with("api-1: ") && why.contains("is damaged at byte "), "{why}");
    let telling = search.found[1].record;
    let life = life(&telling, search);
    assert_eq!((life.steps.len(), life.unread.len(), life.is_whole), (3, 1, true));
}

#[test]
fn the_order_of_a_journal_is_kept_where_the_clock_goes_back() {
    let settled = Event::Settled { processor: DEFAULT, requested_at: at(100) };
    let told = told(&[
        (1, 100, Event::Accepted),
        (1, 101, dispatched(100)),
        // The clock is set back by a minute.
        (1, -59_000, settled),
        (2, 50, Event::Accepted),
        (2, 102, Event::Duplicate),
    ]);
    let parts = [
        "50 api-2 accepted",
        "100 api-1 accepted",
        "- api-1 decided",
        "101 api-1 sent",
        "-59000 api-1 settled: Settled: default has it, under",
        "102 api-2 duplicate",
    ];
    assert_eq!(told.len(), parts.len(), "{told:?}");
    for (told, part) in told.iter().zip(parts) {
        assert!(told.starts_with(part), "{told:?}");
    }
}

#[test]
fn of_a_long_life_the_beginning_and_the_end_are_told() {
    let last = i64::try_from(RECORDS_MAX).unwrap() + 9;
    let tried = |ms| Found {
        instance: 1,
        position: Position { segment: 1, index: u32::try_from(ms).unwrap() },
        record: record(ID, ms, dispatched(ms)),
    };
    let mut found: Vec<_> = (0..=last).map(tried).rev().collect();
    assert!(leave_out_the_middle(&mut found));
    assert_eq!(found.len(), RECORDS_MAX);
    let ends = [found.first(), found.last()].map(|found| found.unwrap().record.written_at);
    assert_eq!(ends, [at(0), at(last)]);
    assert!(!leave_out_the_middle(&mut found));
}
