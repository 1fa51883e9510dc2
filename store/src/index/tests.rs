//! Several segments of an index together.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::disk::memory::MemoryDisk;
use ledger::journal::{
    Event, Journal, JournalConfig, JournalReader, PaymentRecord, Record, read_seal,
    read_segment_header,
};
use ledger::{Cents, CorrelationId, Processor, TimestampMs};
use proptest::prelude::*;

use super::*;

const INSTANCES: [u16; 2] = [1, 2];

fn id(number: u16) -> CorrelationId {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    CorrelationId::from_bytes(bytes)
}

fn key(journal: &MemoryDisk, instance: u16, number: u32) -> Option<SegmentKey> {
    let header_checksum = read_segment_header(journal, number).unwrap()?.checksum();
    let seal_index = read_seal(journal, number).unwrap()?.records_count;
    let hash_key = [3; 16];
    Some(SegmentKey { instance, number, header_checksum, first_index: 0, seal_index, hash_key })
}

/// Journals, and an index of them.
struct Fixture {
    journals: BTreeMap<u16, MemoryDisk>,
    disk: MemoryDisk,
    index: Index<MemoryDisk>,
    /// What each segment has about each id: the record that tells most, by its index and kind.
    expected: BTreeMap<(CorrelationId, u16, u32), (u32, Kind)>,
    /// When payments were settled, all of the same amount, and through which processor.
    settled: Vec<(u64, Processor)>,
}

impl Fixture {
    /// With ten records in each segment.
    fn of(records: &[(u16, CorrelationId, Event)]) -> Self {
        Self::with_segments_of(10, records)
    }

    fn with_segments_of(records_max: u64, records: &[(u16, CorrelationId, Event)]) -> Self {
        let mut fixture = Self {
            journals: INSTANCES.map(|instance| (instance, MemoryDisk::new())).into(),
            disk: MemoryDisk::new(),
            index: Index::default(),
            expected: BTreeMap::new(),
            settled: Vec::new(),
        };
        for (instance, journal) in fixture.journals.clone() {
            let config =
                JournalConfig { instance, segment_bytes: 64 + records_max * 48, boot_id: [0; 16] };
            let now = TimestampMs::MIN;
            let (mut writer, _) = Journal::open(journal.clone(), config, now, |_, _| ()).unwrap();
            for (_, id, event) in records.iter().filter(|(of, ..)| *of == instance) {
                let (id, event) = (*id, *event);
                let record = PaymentRecord { id, amount: Cents::new(1), written_at: now, event };
                assert!(writer.append(&[record], 1, now).error.is_none());
            }
            let mut reader = JournalReader::new(journal, instance, Position::START);
            reader
                .read(usize::MAX, |position, record| {
                    let Record::Payment(record) = record else { return };
                    let kind = Kind::of(&record.event);
                    fixture.index.record(instance, position, record.id, kind);
                    if let Event::Settled { processor, .. } = record.event {
                        let tick = u64::from(position.segment) * 7 + u64::from(position.index) % 5;
                        let amount = record.amount;
                        fixture.index.add_settled(instance, position, tick, processor, amount);
                        fixture.settled.push((tick, processor));
                    }
                    let place = (record.id, instance, position.segment);
                    let is_first = !fixture.expected.contains_key(&place);
                    if is_first || kind != Kind::Accepted {
                        fixture.expected.insert(place, (position.index, kind));
                    }
                })
                .unwrap();
        }
        fixture
    }

    fn before(&self, instance: u16, number: u32) -> Vec<SegmentKey> {
        segments_before(number, 1)
            .map_while(|number| key(&self.journals[&instance], instance, number))
            .collect()
    }

    /// Writes the index of a segment to its file, whatever is in the index.
    fn write(&self, instance: u16, number: u32) -> Option<SealedSegment<MemoryDisk>> {
        let journal = &self.journals[&instance];
        let key = key(journal, instance, number)?;
        let segment = match self.index.segments.get(&(instance, number))? {
            Segment::Closing(segment) => Arc::clone(segment),
            Segment::Open(_) | Segment::Sealed(_) => return None,
        };
        SealedSegment::write(&self.disk, key, &segment, &self.before(instance, number)).unwrap();
        Some(self.open(instance, number).unwrap())
    }

    fn open(&self, instance: u16, number: u32) -> Option<SealedSegment<MemoryDisk>> {
        let journal = self.journals[&instance].clone();
        let key = key(&journal, instance, number)?;
        SealedSegment::open(&self.disk, journal, key).unwrap()
    }

    /// Moves the segments that are sealed to their files.
    fn close(&mut self, instance: u16) {
        for number in 1.. {
            if key(&self.journals[&instance], instance, number).is_none() {
                break;
            }
            self.index.close(instance, number);
            let sealed = self.write(instance, number).unwrap();
            assert!(self.index.finish(sealed));
        }
    }

    fn check_sums(&self) {
        for ticks in [0..1_000, 0..7, 8..10, 12..40, 30..31, 35..1_000] {
            assert_eq!(
                self.index.settled_between(&ticks).unwrap(),
                self.naive(&ticks),
                "{ticks:?}"
            );
        }
        assert_eq!(self.index.settled().unwrap(), self.naive(&(0..u64::MAX)));
    }

    fn naive(&self, ticks: &Range<u64>) -> [Totals; 2] {
        Processor::ALL.map(|processor| {
            let is_in = |(tick, of): &&(u64, Processor)| *of == processor && ticks.contains(tick);
            let count = self.settled.iter().filter(is_in).count();
            Totals { count: count as u64, amount: Cents::new(i64::try_from(count).unwrap()) }
        })
    }

    fn check(&self) {
        for number in 0..300 {
            let id = id(number);
            let found = self.index.find(id).unwrap();
            let found: Vec<_> = found
                .into_iter()
                .map(|Found { instance, position, kind }| {
                    (instance, position.segment, position.index, kind)
                })
                .collect();
            let expected: Vec<_> = self
                .expected
                .range((id, 0, 0)..=(id, u16::MAX, u32::MAX))
                .filter(|((_, instance, segment), _)| {
                    self.index.segments.contains_key(&(*instance, *segment))
                })
                .map(|((_, instance, segment), (index, kind))| (*instance, *segment, *index, *kind))
                .collect();
            assert_eq!(found, expected, "{id}");
        }
    }

    fn sealed(&self, instance: u16, number: u32) -> &SealedSegment<MemoryDisk> {
        match &self.index.segments[&(instance, number)] {
            Segment::Sealed(sealed) => sealed,
            Segment::Open(_) | Segment::Closing(_) => panic!("segment {number} is not sealed"),
        }
    }
}

fn settled() -> Event {
    Event::Settled { processor: Processor::Default, requested_at: TimestampMs::MIN }
}

/// Payments that are accepted in the first two segments of a journal and settled in the next two.
fn settled_later() -> Fixture {
    let accepted = (0..20).map(|number| (1, id(number), Event::Accepted));
    let settled = (0..25).map(|number| (1, id(number % 20), settled()));
    let mut fixture = Fixture::of(&accepted.chain(settled).collect::<Vec<_>>());
    fixture.close(1);
    fixture
}

#[test]
fn filters_leave_out_what_a_segment_before_has() {
    let fixture = settled_later();
    fixture.check();
    let mut left_out = 0;
    for (id, instance, segment) in fixture.expected.keys().filter(|(.., segment)| *segment <= 4) {
        let sealed = fixture.sealed(*instance, *segment);
        let may_have = sealed.may_have(*id);
        assert!(may_have || *segment > 2, "{id} in segment {segment}");
        left_out += usize::from(!may_have);
    }
    // One in 256 is found in a filter that does not have it.
    assert!(left_out > 12, "{left_out} of 20");
}

#[test]
fn a_file_whose_filters_rely_on_another_one_is_nothing_without_it() {
    for (lost, changed) in [(2, false), (1, false), (2, true)] {
        let fixture = settled_later();
        let name = index_file_name(1, lost);
        if changed {
            // Of the same segment, without the records that a purge made void.
            let journal = &fixture.journals[&1];
            let other = SegmentKey { first_index: 5, ..key(journal, 1, lost).unwrap() };
            let empty = OpenSegment::default();
            SealedSegment::write(&fixture.disk, other, &empty, &[]).unwrap();
        } else {
            fixture.disk.remove(&name).unwrap();
        }
        let mut index = Index::default();
        for number in 1..=4 {
            let is_added = fixture.open(1, number).is_some_and(|sealed| index.add_sealed(sealed));
            assert_eq!(is_added, number < lost, "segment {number} without {lost}");
        }
    }
}

#[test]
fn all_files_together_are_taken() {
    let mut fixture = settled_later();
    fixture.index = Index::default();
    for number in 1..=4 {
        let sealed = fixture.open(1, number).unwrap();
        assert!(fixture.index.add_sealed(sealed), "segment {number}");
    }
    fixture.check();
}

#[test]
fn a_segment_stays_in_memory_where_the_one_before_it_does() {
    let accepted = (0..10).map(|number| (1, id(number), Event::Accepted));
    let settled = (0..11).map(|number| (1, id(number % 10), settled()));
    let mut fixture = Fixture::of(&accepted.chain(settled).collect::<Vec<_>>());
    for number in [1, 2] {
        fixture.index.close(1, number);
    }
    let [first, second] = [1, 2].map(|number| fixture.write(1, number).unwrap());
    // The file of the first is there, but the index could not take it.
    assert!(!fixture.index.finish(second));
    fixture.check();
    assert!(fixture.index.finish(first));
    fixture.check();
}

#[test]
fn a_purge_takes_away_what_is_being_written() {
    let mut fixture = settled_later();
    let sealed = fixture.open(1, 2).unwrap();
    fixture.index = Index::default();
    assert!(fixture.index.finish(sealed));
    assert_eq!(fixture.index.segments_count(), 0);
}

/// The first segment's file has the id's fingerprint, but for a record that is about another id. So the filter of
/// the second leaves it out, and it must be found all the same.
#[test]
fn an_id_is_found_behind_one_with_the_same_fingerprint() {
    let accepted = (0..20).map(|number| (1, id(number), Event::Accepted));
    let mut fixture =
        Fixture::of(&accepted.chain([(1, id(50), Event::Accepted)]).collect::<Vec<_>>());
    fixture.index.record(1, Position { segment: 1, index: 3 }, id(15), Kind::Accepted);
    fixture.close(1);
    assert!(!fixture.sealed(1, 2).may_have(id(15)));
    fixture.check();
}

#[test]
fn a_file_that_changes_while_it_is_gone_through_is_not_relied_on() {
    let fixture = settled_later();
    let name = index_file_name(1, 2);
    let mut bytes = fixture.disk.bytes(&name).unwrap();
    bytes[130] ^= 1;
    fixture.disk.put(&name, bytes);
    let key = key(&fixture.journals[&1], 1, 3).unwrap();
    let segment = OpenSegment::default();
    let written = SealedSegment::write(&fixture.disk, key, &segment, &fixture.before(1, 3));
    assert!(written.unwrap_err().to_string().contains("has changed"));
}

proptest! {
    #[test]
    fn an_id_is_found_in_all_segments_that_have_it(
        records in proptest::collection::vec((0..2_usize, 0..250_u16, 0..4_u8), 0..1_200),
        // Of so many the filters have several parts.
        records_max in prop::sample::select(vec![10, 200]),
    ) {
        let records: Vec<_> = records
            .into_iter()
            .map(|(instance, number, kind)| {
                let event = match kind {
                    0 => Event::Accepted,
                    1 => Event::Dispatched { processor: Processor::Default, requested_at: TimestampMs::MIN },
                    2 => settled(),
                    _ => Event::Settled { processor: Processor::Fallback, requested_at: TimestampMs::MIN },
                };
                (INSTANCES[instance], id(number), event)
            })
            .collect();
        let mut fixture = Fixture::with_segments_of(records_max, &records);
        fixture.check();
        fixture.check_sums();
        for instance in INSTANCES {
            fixture.index.close(instance, 1);
            fixture.check();
            fixture.check_sums();
            fixture.close(instance);
        }
        fixture.check();
        fixture.check_sums();
        let files = std::mem::take(&mut fixture.index.segments);
        let sealed = files.into_iter().filter(|(_, segment)| matches!(segment, Segment::Sealed(_)));
        let mut again = Index::default();
        let settled: u64 = sealed
            .map(|((instance, number), segment)| {
                let Segment::Sealed(sealed) = segment else { return 0 };
                assert!(again.add_sealed(fixture.open(instance, number).unwrap()));
                sealed.settled()[0].count
            })
            .sum();
        prop_assert_eq!(again.settled().unwrap()[0].count, settled);
        prop_assert_eq!(again.settled_between(&(0..1_000)).unwrap(), again.settled().unwrap());
    }
}
