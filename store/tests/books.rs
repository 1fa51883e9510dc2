//! The books over real folders: what journals say is what the books say, however the store was
//! stopped in between and whatever happened to its views.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use ledger::disk::folder::FolderDisk;
use ledger::journal::{Event, Journal, JournalConfig, PaymentRecord, Position};
use ledger::volume::Volume;
use ledger::{Cents, CorrelationId, Processor, RangeMs, TimestampMs, Totals};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use store::books::{Books, BooksError, Rights};
use store::claims::ClaimsError;
use tempfile::TempDir;

const CACHE_BYTES: u64 = 1 << 20;
/// Segments of 20 records and a seal.
const SEGMENT_BYTES: u64 = 64 + 20 * 48;

/// A volume with the journals of two instances.
struct Site {
    folder: TempDir,
    journals: BTreeMap<u16, Journal<FolderDisk>>,
    boot_id: [u8; 16],
    /// When segments are begun.
    moment: TimestampMs,
}

fn id(number: u32) -> CorrelationId {
    let mut bytes = [0; 16];
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    CorrelationId::from_bytes(bytes)
}

fn at(ms: u32) -> TimestampMs {
    TimestampMs::clamped(1_752_580_800_000 + i64::from(ms))
}

impl Site {
    fn new() -> Self {
        let mut site = Self {
            folder: tempfile::tempdir().unwrap(),
            journals: BTreeMap::new(),
            boot_id: [1; 16],
            moment: at(0),
        };
        site.volume().create().unwrap();
        site.start(1);
        site.start(2);
        site
    }

    fn volume(&self) -> Volume {
        Volume::new(self.folder.path())
    }

    /// Starts an instance's journal writer.
    fn start(&mut self, instance: u16) {
        let disk = FolderDisk::create(self.volume().journal(instance)).unwrap();
        let config =
            JournalConfig { instance, segment_bytes: SEGMENT_BYTES, boot_id: self.boot_id };
        let (journal, _) = Journal::open(disk, config, self.moment, |_, _| ()).unwrap();
        self.journals.insert(instance, journal);
    }

    fn books(&self) -> Books {
        Books::open(&self.volume(), CACHE_BYTES, self.boot_id).unwrap().0
    }

    fn write(&mut self, instance: u16, number: u32, event: Event) -> Position {
        let journal = self.journals.get_mut(&instance).unwrap();
        let record =
            PaymentRecord { id: id(number), amount: Cents::new(1990), written_at: at(0), event };
        let appended = journal.append(&[record], 1, self.moment);
        assert!(appended.error.is_none(), "{:?}", appended.error);
        appended.first
    }

    /// A payment's whole life, settled at this millisecond.
    fn settle(&mut self, instance: u16, number: u32, processor: Processor) {
        let requested_at = at(number);
        self.write(instance, number, Event::Accepted);
        self.write(instance, number, Event::Dispatched { processor, requested_at });
        self.write(instance, number, Event::Settled { processor, requested_at });
    }

    fn settle_many(&mut self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let instance = if number % 3 == 0 { 2 } else { 1 };
            let processor = if number % 5 == 0 { Processor::Fallback } else { Processor::Default };
            self.settle(instance, number, processor);
        }
    }

    fn end(&self, instance: u16) -> Position {
        self.journals[&instance].end()
    }

    fn claim(&self, books: &mut Books, instance: u16) -> Vec<Position> {
        let through = self.end(instance);
        let decided = books.claim(instance, through).unwrap().unwrap();
        assert_eq!(decided.through, through);
        decided.losers
    }

    fn path(&self, name: &str) -> PathBuf {
        self.volume().store().join(name)
    }
}

fn expected(numbers: std::ops::Range<u32>) -> [Totals; 2] {
    let mut totals = [Totals::default(); 2];
    for number in numbers {
        let processor = if number % 5 == 0 { Processor::Fallback } else { Processor::Default };
        let total = &mut totals[processor.index()];
        *total = total.checked_add(Totals::of_payment(Cents::new(1990))).unwrap();
    }
    totals
}

fn span(from: u32, to: u32) -> RangeMs {
    RangeMs { from: at(from), to: at(to) }
}

#[test]
fn a_summary_has_every_record_that_was_written_before_the_question() {
    let mut site = Site::new();
    let mut books = site.books();
    for number in 1..40 {
        site.settle_many(number..number + 1);
        assert_eq!(books.sum(RangeMs::ALL).unwrap(), expected(1..number + 1));
    }
    assert_eq!(books.sum(span(10, 20)).unwrap(), expected(10..21));
    assert_eq!(books.sum(span(20, 10)).unwrap(), expected(0..0));
}

#[test]
fn a_store_started_again_has_the_same_books_and_goes_on() {
    let mut site = Site::new();
    let mut books = site.books();
    site.settle_many(1..100);
    assert_eq!(books.sum(RangeMs::ALL).unwrap(), expected(1..100));
    drop(books);
    site.settle_many(100..200);
    let mut books = site.books();
    site.settle_many(200..300);
    assert_eq!(books.sum(RangeMs::ALL).unwrap(), expected(1..300));
    assert_eq!(books.sum(span(50, 250)).unwrap(), expected(50..251));
}

/// Every view can be lost in any way without a change in any answer.
#[test]
fn views_that_are_deleted_or_damaged_are_made_again() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("sled deleted", |store| fs::remove_dir_all(store.join("sled-0")).unwrap()),
        ("sled overwritten", |store| overwrite(&store.join("sled-0"), |bytes| bytes.fill(0xa5))),
        ("sled cut", |store| {
            overwrite(&store.join("sled-0"), |bytes| bytes.truncate(bytes.len() / 3));
        }),
        ("index deleted", |store| fs::remove_dir_all(store.join("index")).unwrap()),
        ("index overwritten", |store| overwrite(&store.join("index"), |bytes| bytes.fill(0xa5))),
    ];
    for (name, damage) in damages {
        let mut site = Site::new();
        site.settle_many(1..100);
        let mut books = site.books();
        site.claim(&mut books, 1);
        site.claim(&mut books, 2);
        drop(books);
        damage(&site.volume().store());
        let mut books = site.books();
        assert_eq!(books.sum(RangeMs::ALL).unwrap(), expected(1..100), "{name}");
        let again = site.write(1, 3, Event::Accepted);
        assert_eq!(site.claim(&mut books, 1), [again], "{name}");
        assert!(books.look(id(50)).unwrap().is_some(), "{name}");
    }
}

fn overwrite(folder: &Path, change: fn(&mut Vec<u8>)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let mut bytes = fs::read(&path).unwrap();
            change(&mut bytes);
            fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn a_payment_is_settled_in_its_own_words() {
    let mut site = Site::new();
    let mut books = site.books();
    assert_eq!(books.look(id(1)).unwrap(), None);
    let requested_at = at(7);
    let (processor, status) = (Processor::Default, 500);
    for event in [
        Event::Accepted,
        Event::Dispatched { processor, requested_at },
        Event::Failed { processor, status },
        Event::Dispatched { processor, requested_at },
        Event::Settled { processor, requested_at },
    ] {
        site.write(1, 1, event);
        assert_eq!(books.look(id(1)).unwrap().unwrap().event, event);
        // The other instance took it in as well, and lost.
        site.claim(&mut books, 1);
        site.write(2, 1, Event::Accepted);
        site.claim(&mut books, 2);
        site.write(2, 1, Event::Duplicate);
        assert_eq!(books.look(id(1)).unwrap().unwrap().event, event);
    }
}

/// Ids of payments long settled are known in the sealed segments of either journal, also after a
/// new start.
#[test]
fn an_old_payment_posted_again_loses() {
    let mut site = Site::new();
    site.settle_many(1..200);
    let mut books = site.books();
    for round in 0..2 {
        let mut losers = Vec::new();
        for number in (1..200).step_by(7) {
            losers.push(site.write(1, number, Event::Accepted));
        }
        let new = site.write(1, 1000 + round, Event::Accepted);
        assert_eq!(site.claim(&mut books, 1), losers);
        for number in (1..200).step_by(7) {
            site.write(1, number, Event::Duplicate);
        }
        assert!(!losers.contains(&new));
        drop(books);
        books = site.books();
    }
    assert!(site.path("index/api-1-0000000001.ids").exists());
}

/// All payments are claimed, and what they fill segments with then is that they are sent and settled.
#[test]
fn segments_that_are_filled_without_a_claim_are_indexed() {
    let mut site = Site::new();
    for number in 1..150 {
        site.write(1, number, Event::Accepted);
    }
    let mut books = site.books();
    site.claim(&mut books, 1);
    let claimed = site.end(1).segment;
    for number in 1..150 {
        let (processor, requested_at) = (Processor::Default, at(number));
        site.write(1, number, Event::Dispatched { processor, requested_at });
        site.write(1, number, Event::Settled { processor, requested_at });
    }
    let last = site.end(1).segment;
    assert!(last > claimed + 1, "segments {claimed} to {last}");
    finish_indexing(&mut books);
    for number in 1..last {
        assert!(site.path(&index_file(number)).exists(), "segment {number}");
    }
    assert_eq!(books.sum(RangeMs::ALL).unwrap()[0].count, 149);
}

/// The index of a segment is in memory until it is in its file. A disk that does not answer is a pipe here, in the
/// place of a file that the indexer reads, which blocks it until somebody opens the other end.
#[test]
fn nothing_is_decided_upon_while_too_much_waits_for_the_disk() {
    let mut site = Site::new();
    let mut books = site.books();
    site.settle_many(1..50);
    site.claim(&mut books, 1);
    site.claim(&mut books, 2);
    finish_indexing(&mut books);
    let last = (1..100).take_while(|number| site.path(&index_file(*number)).exists()).last();
    let file = site.path(&index_file(last.unwrap()));
    let [aside, pipe] = ["aside", "pipe"].map(|name| site.path(name));
    let blocked = Blocked::new(&file, [&aside, &pipe]);
    books.limit_waiting(50);

    let mut settled = 50;
    let behind = loop {
        site.write(1, settled, Event::Accepted);
        let through = site.end(1);
        match books.claim(1, through).unwrap() {
            Ok(decided) => assert!(decided.losers.is_empty()),
            Err(behind) => break behind,
        }
        let (processor, requested_at) = (Processor::Default, at(settled));
        site.write(1, settled, Event::Dispatched { processor, requested_at });
        site.write(1, settled, Event::Settled { processor, requested_at });
        settled += 1;
        assert!(settled < 150, "segments {} wait", site.end(1).segment - last.unwrap());
    };
    let ClaimsError::Behind { count: waiting } = behind else { panic!("{behind}") };
    assert!(waiting > 50);
    assert_eq!(books.standing().waiting_count, waiting as u64);
    // What was settled is told all the same, and the other instance's payments wait as well.
    let count = |totals: [Totals; 2]| totals[0].count + totals[1].count;
    assert_eq!(count(books.sum(RangeMs::ALL).unwrap()), u64::from(settled) - 1);
    site.write(2, 200, Event::Accepted);
    let through = site.end(2);
    // It is over when half of what may wait does.
    for (entries_max, is_decided) in [(50, false), (2 * waiting - 1, false), (2 * waiting, true)] {
        books.limit_waiting(entries_max);
        assert_eq!(books.claim(2, through).unwrap().is_ok(), is_decided, "{entries_max}");
    }

    drop(blocked);
    finish_indexing(&mut books);
    site.claim(&mut books, 1);
    site.claim(&mut books, 2);
    finish_indexing(&mut books);
    let end = site.end(1).segment;
    assert!((1..end).all(|number| site.path(&index_file(number)).exists()), "up to {end}");
    assert_eq!(count(books.sum(RangeMs::ALL).unwrap()), u64::from(settled) - 1);
}

/// A pipe in the place of a file: nobody who opens it to read comes any further while this is there.
struct Blocked<'a> {
    file: &'a Path,
    aside: &'a Path,
    pipe: &'a Path,
}

impl<'a> Blocked<'a> {
    fn new(file: &'a Path, [aside, pipe]: [&'a Path; 2]) -> Self {
        fs::rename(file, aside).unwrap();
        mknodat(CWD, file, FileType::Fifo, Mode::RWXU, 0).unwrap();
        Self { file, aside, pipe }
    }
}

impl Drop for Blocked<'_> {
    /// Puts the file back. The pipe stays open for both, because somebody may have found it and not opened it yet.
    fn drop(&mut self) {
        fs::rename(self.file, self.pipe).unwrap();
        fs::rename(self.aside, self.file).unwrap();
        let both = fs::OpenOptions::new().read(true).write(true).open(self.pipe).unwrap();
        std::mem::forget(both);
    }
}

fn index_file(number: u32) -> String {
    format!("index/api-1-{number:010}.ids")
}

fn finish_indexing(books: &mut Books) {
    books.read_all().unwrap();
    while books.is_indexing() {
        books.read_all().unwrap();
    }
}

/// The record of the loser lies in a segment that is sealed before its journal says that it lost.
/// Until then neither a file of the index nor a new start may take it for the holder of the id.
#[test]
fn a_loser_never_takes_the_right_from_the_holder() {
    for closes in [true, false] {
        let mut site = Site::new();
        let mut books = site.books();
        let holder = site.write(2, 7, Event::Accepted);
        let loser = site.write(1, 7, Event::Accepted);
        assert_eq!(site.claim(&mut books, 2), []);
        // The segment of the loser ends.
        for number in 100..150 {
            site.settle(1, number, Processor::Default);
        }
        assert_eq!(site.claim(&mut books, 1), [loser]);
        books.sum(RangeMs::ALL).unwrap();
        if closes {
            site.write(1, 7, Event::Duplicate);
            site.claim(&mut books, 1);
        }
        for _ in 0..3 {
            books.read_all().unwrap();
            drop(books);
            books = site.books();
            books.greet(1).unwrap();
            books.greet(2).unwrap();
            assert_eq!(site.claim(&mut books, 2), [], "the holder is {holder:?}");
            let told = if closes { vec![] } else { vec![loser] };
            assert_eq!(site.claim(&mut books, 1), told);
        }
    }
}

/// The index is made again while the journals are read in parts, and one part ends between the segment of the loser
/// and the record that closes it. After a power cut the index is all that remembers what was decided.
#[test]
fn a_loser_takes_no_right_from_an_index_that_was_made_again() {
    const PART_RECORDS: u32 = 8192;
    const SEGMENT_RECORDS: u32 = 21;
    // The last segment that the first part has as a whole.
    let last = PART_RECORDS / SEGMENT_RECORDS;
    let mut site = Site::new();
    let mut books = site.books();
    let holder = site.write(2, 7, Event::Accepted);
    let mut numbers = 100..;
    let mut fill = |site: &mut Site, end: Position| {
        while site.end(1) < end {
            site.settle(1, numbers.next().unwrap(), Processor::Default);
        }
    };
    fill(&mut site, Position { segment: last, index: 0 });
    let loser = site.write(1, 7, Event::Accepted);
    fill(&mut site, Position { segment: last + 1, index: PART_RECORDS % SEGMENT_RECORDS });
    assert_eq!(loser.segment, last);
    assert_eq!(site.claim(&mut books, 2), []);
    assert_eq!(site.claim(&mut books, 1), [loser]);
    assert_eq!(site.write(1, 7, Event::Duplicate).segment, last + 1);
    fill(&mut site, Position { segment: last + 4, index: 0 });
    site.claim(&mut books, 1);
    drop(books);
    // The claim log forgets the loser, whose record was read.
    drop(site.books());
    fs::remove_dir_all(site.path("index")).unwrap();
    drop(site.books());
    site.boot_id = [9; 16];
    site.journals.clear();
    site.start(1);
    site.start(2);
    let mut books = site.books();
    books.greet(1).unwrap();
    books.greet(2).unwrap();
    assert_eq!(site.claim(&mut books, 2), [], "{holder:?} has the right");
}

/// After a power cut new records lie in the places of lost ones, whichever of the processes was
/// started first.
#[test]
fn after_a_reboot_the_books_are_those_of_the_journals_that_are_left() {
    for store_first in [true, false] {
        for left in 0..60 {
            let mut site = Site::new();
            let mut books = site.books();
            site.settle(2, 7, Processor::Default);
            for number in 100..120 {
                site.settle(1, number, Processor::Default);
                site.claim(&mut books, 1);
                site.claim(&mut books, 2);
            }
            books.sum(RangeMs::ALL).unwrap();
            drop(books);

            site.boot_id = [2; 16];
            cut(&site.volume().journal(1), left);
            if store_first {
                drop(site.books());
            }
            site.journals.remove(&1);
            site.start(1);
            // Lies before the end of what was decided and applied.
            let again = site.write(1, 7, Event::Accepted);
            for number in 200..200 + u32::try_from(left).unwrap() / 4 {
                site.settle(1, number, Processor::Default);
            }
            let settled = 1 + settled_in(&site.volume().journal(1));
            for _ in 0..2 {
                let mut books = site.books();
                assert_eq!(books.sum(RangeMs::ALL).unwrap()[0].count, settled, "{left} left");
                books.greet(1).unwrap();
                assert_eq!(site.claim(&mut books, 1), [again], "{left} left");
            }
        }
    }
}

/// Leaves this many records of a journal, seals among them, as a power cut may.
fn cut(journal: &Path, mut left: u64) {
    let mut paths: Vec<_> = segments(journal);
    paths.sort();
    for path in paths {
        let records = (fs::metadata(&path).unwrap().len() - 64) / 48;
        if left == 0 {
            fs::remove_file(&path).unwrap();
        } else if left < records {
            fs::File::options().write(true).open(&path).unwrap().set_len(64 + left * 48).unwrap();
        }
        left = left.saturating_sub(records);
    }
}

fn segments(journal: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|ending| ending == "journal")).collect()
}

/// How many records of a journal say that a payment was settled.
fn settled_in(journal: &Path) -> u64 {
    let is_settled = |record: &&[u8]| record[4] == 4;
    let count = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        bytes[64..].chunks(48).filter(is_settled).count() as u64
    };
    segments(journal).iter().map(count).sum()
}

#[test]
fn sealed_segments_are_not_read_again() {
    let mut site = Site::new();
    site.settle_many(1..200);
    let mut books = site.books();
    site.claim(&mut books, 1);
    site.claim(&mut books, 2);
    books.apply().unwrap();
    drop(books);
    let (_, opened) = Books::open(&site.volume(), CACHE_BYTES, site.boot_id).unwrap();
    assert!(opened.records_count <= 2 * 21, "{} records were read", opened.records_count);
}

#[test]
fn a_damaged_journal_stops_the_store_with_file_and_offset() {
    let mut site = Site::new();
    site.settle_many(1..100);
    let path = site.volume().journal(1).join("0000000002.journal");
    let mut bytes = fs::read(&path).unwrap();
    bytes[64 + 5 * 48 + 10] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = Books::open(&site.volume(), CACHE_BYTES, site.boot_id).map(drop).unwrap_err();
    assert!(error.is_damage());
    let text = error.to_string();
    let offset = format!("byte {}", 64 + 5 * 48);
    assert!(text.contains("0000000002.journal") && text.contains(&offset), "{text}");
}

#[test]
fn a_first_segment_that_is_gone_without_a_purge_is_missed() {
    for first in 1..3 {
        let mut site = Site::new();
        site.settle_many(1..100);
        drop(site.books());
        for number in 1..=first {
            fs::remove_file(site.volume().journal(1).join(format!("{number:010}.journal")))
                .unwrap();
        }
        let error = Books::open(&site.volume(), CACHE_BYTES, site.boot_id).map(drop).unwrap_err();
        assert!(error.is_damage() && error.to_string().contains("0000000001.journal"), "{error}");
    }
}

#[test]
fn a_second_store_is_refused() {
    let site = Site::new();
    let _books = site.books();
    let error = Books::open(&site.volume(), CACHE_BYTES, site.boot_id).map(drop).unwrap_err();
    assert!(matches!(error, BooksError::Claims(ClaimsError::InUse { .. })), "{error}");
}

#[test]
fn a_store_that_is_told_to_end_while_it_starts_does_so() {
    let mut site = Site::new();
    site.settle_many(1..100);
    let stop = AtomicBool::new(true);
    let opened = Books::open_unless(&stop, &site.volume(), CACHE_BYTES, site.boot_id, Rights::Here);
    assert!(matches!(opened.map(drop), Err(BooksError::Stopped)));
    assert_eq!(site.books().sum(RangeMs::ALL).unwrap(), expected(1..100));
}

#[test]
fn a_journal_that_lost_its_end_is_believed_rather_than_the_database() {
    let mut site = Site::new();
    site.settle_many(1..6);
    let mut books = site.books();
    assert_eq!(books.sum(RangeMs::ALL).unwrap(), expected(1..6));
    drop(books);
    // Payment 5 lies at the end of the journal of instance 1.
    let path = site.volume().journal(1).join("0000000001.journal");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 48]).unwrap();
    assert_eq!(site.books().sum(RangeMs::ALL).unwrap(), expected(1..5));
}

#[test]
fn what_a_journal_does_not_have_is_not_decided_upon() {
    let mut site = Site::new();
    let mut books = site.books();
    site.write(2, 7, Event::Accepted);
    site.claim(&mut books, 2);
    let end = site.end(1);
    let beyond = Position { index: end.index + 9, ..end };
    assert_eq!(books.claim(1, beyond).unwrap().unwrap().through, end);
    let loser = site.write(1, 7, Event::Accepted);
    assert_eq!(site.claim(&mut books, 1), [loser]);
}

/// What was decided of a journal's places is not true of another one under its number: its payments
/// would be sent although the other instance has the right to their ids.
#[test]
fn another_journal_in_the_place_of_one_that_was_decided_upon_is_refused() {
    for purged in [false, true] {
        for accepted in [0, 1, 29, 30, 31, 500] {
            let mut site = Site::new();
            let mut books = site.books();
            site.settle_many(1..20);
            site.claim(&mut books, 1);
            site.claim(&mut books, 2);
            if purged {
                books.purge().unwrap().unwrap();
            }
            drop(site.journals.remove(&1));
            let (journal, aside) = (site.volume().journal(1), site.folder.path().join("aside"));
            fs::rename(&journal, &aside).unwrap();
            site.moment = at(1);
            site.start(1);
            for number in 0..accepted {
                site.write(1, number, Event::Accepted);
            }
            let greeted = books.greet(1).map(drop).unwrap_err();
            drop(books);
            let opened = Books::open(&site.volume(), CACHE_BYTES, site.boot_id);
            // One without payments is no fault before its API comes.
            let opened = opened.and_then(|(mut books, _)| {
                assert_eq!(accepted, 0);
                books.greet(1)
            });
            for error in [greeted, opened.map(drop).unwrap_err()] {
                assert!(error.is_damage(), "{accepted} accepted: {error}");
                let text = error.to_string();
                assert!(text.contains("is not the journal that api-1 had"), "{text}");
            }

            // Without a journal of that number, and with the one that was there, all is well.
            drop(site.journals.remove(&1));
            fs::remove_dir_all(&journal).unwrap();
            let mut books = site.books();
            site.start(3);
            books.greet(3).unwrap();
            site.write(3, 1000, Event::Accepted);
            assert_eq!(site.claim(&mut books, 3), []);
            drop(books);
            fs::rename(&aside, &journal).unwrap();
            site.start(1);
            let mut books = site.books();
            books.greet(1).unwrap();
            site.write(1, 1001, Event::Accepted);
            assert_eq!(site.claim(&mut books, 1), []);
        }
    }
}

/// Whoever reads it first, and however long it has become by then.
#[test]
fn a_journal_that_was_empty_when_the_store_began_is_not_taken_for_the_one_before() {
    for (accepted, asks) in [(1, true), (1, false), (500, true), (500, false)] {
        let mut site = Site::new();
        let mut books = site.books();
        site.settle(1, 1, Processor::Default);
        site.settle(2, 7, Processor::Default);
        site.claim(&mut books, 1);
        site.claim(&mut books, 2);
        drop(books);
        drop(site.journals.remove(&1));
        fs::rename(site.volume().journal(1), site.folder.path().join("aside")).unwrap();
        site.moment = at(1);
        site.start(1);
        let mut books = site.books();
        for number in 0..accepted {
            site.write(1, number, Event::Accepted);
        }
        if asks {
            assert!(books.sum(RangeMs::ALL).map(drop).unwrap_err().is_damage(), "{accepted}");
        }
        assert!(books.greet(1).map(drop).unwrap_err().is_damage(), "{accepted} {asks}");
    }
}

/// What was purged does not count again when it is put back.
#[test]
fn a_purge_empties_a_journal_that_is_away_too() {
    let mut site = Site::new();
    let mut books = site.books();
    site.settle_many(1..20);
    site.write(1, 500, Event::Accepted);
    site.claim(&mut books, 1);
    site.claim(&mut books, 2);
    drop(books);
    drop(site.journals.remove(&1));
    let (journal, aside) = (site.volume().journal(1), site.folder.path().join("aside"));
    fs::rename(&journal, &aside).unwrap();
    let mut books = site.books();
    books.purge().unwrap().unwrap();
    drop(books);
    fs::rename(&aside, &journal).unwrap();
    let opened = Books::open(&site.volume(), CACHE_BYTES, site.boot_id);
    assert!(opened.map(drop).unwrap_err().is_damage());
    site.boot_id = [2; 16];
    let mut books = site.books();
    assert_eq!(books.sum(RangeMs::ALL).unwrap(), [Totals::default(); 2]);
    assert!(books.greet(1).map(drop).unwrap_err().is_damage());
}

/// An older copy of a journal has the same heads, and lacks what was decided since.
#[test]
fn a_journal_that_was_set_back_is_refused() {
    // Within a segment, at its end, and with a segment less.
    for (before, after) in [(3, 1), (6, 1), (6, 30)] {
        let mut site = Site::new();
        let mut books = site.books();
        for number in 0..before {
            site.settle(1, number, Processor::Default);
        }
        let copied: Vec<_> = segments(&site.volume().journal(1))
            .into_iter()
            .map(|path| (fs::read(&path).unwrap(), path))
            .collect();
        for number in before..before + after {
            site.settle(1, number, Processor::Default);
        }
        site.claim(&mut books, 1);
        drop(site.journals.remove(&1));
        for path in segments(&site.volume().journal(1)) {
            fs::remove_file(path).unwrap();
        }
        for (bytes, path) in copied {
            fs::write(path, bytes).unwrap();
        }
        site.start(1);
        assert!(books.greet(1).map(drop).unwrap_err().is_damage());
        drop(books);
        let opened = Books::open(&site.volume(), CACHE_BYTES, site.boot_id);
        assert!(opened.map(drop).unwrap_err().is_damage());
    }
}

#[test]
fn a_journal_whose_purged_segments_were_removed_is_the_same_one() {
    let mut site = Site::new();
    let mut books = site.books();
    site.settle_many(1..100);
    site.claim(&mut books, 1);
    books.purge().unwrap().unwrap();
    let cut = site.end(1);
    assert!(site.journals.get_mut(&1).unwrap().remove_segments_before(cut.segment).unwrap() > 0);
    for boot in [1, 1, 2] {
        books.greet(1).unwrap();
        site.write(1, 100 + u32::from(boot), Event::Accepted);
        site.claim(&mut books, 1);
        drop(books);
        site.boot_id = [boot; 16];
        drop(site.journals.remove(&1));
        site.start(1);
        books = site.books();
    }
}

#[test]
fn a_purge_empties_everything_but_what_a_processor_may_have() {
    let mut site = Site::new();
    let mut books = site.books();
    site.settle_many(1..100);
    let requested_at = at(500);
    let processor = Processor::Default;
    // In flight, sent and known to have failed, and not sent at all.
    site.write(1, 500, Event::Accepted);
    site.write(1, 500, Event::Dispatched { processor, requested_at });
    site.write(1, 501, Event::Accepted);
    site.write(1, 501, Event::Dispatched { processor, requested_at });
    site.write(1, 501, Event::Failed { processor, status: 500 });
    site.write(1, 502, Event::Accepted);
    site.claim(&mut books, 1);
    site.claim(&mut books, 2);
    books.purge().unwrap().unwrap();

    for restart in [false, true] {
        if restart {
            drop(books);
            books = site.books();
        }
        assert_eq!(books.sum(RangeMs::ALL).unwrap(), [Totals::default(); 2]);
        assert_eq!(books.look(id(50)).unwrap(), None);
        assert_eq!(books.purge_notice(1).purge, 1);
        assert_eq!(books.purge_notice(1).cut, site.end(1));
        let in_flight = books.look(id(500)).unwrap().unwrap();
        assert_eq!(in_flight.event, Event::Dispatched { processor, requested_at });
    }
    // Old payments are new ones now, but for the one in flight.
    site.write(2, 50, Event::Accepted);
    site.write(2, 501, Event::Accepted);
    site.write(2, 502, Event::Accepted);
    let loser = site.write(2, 500, Event::Accepted);
    assert_eq!(site.claim(&mut books, 2), [loser]);
    // What is settled after all, counts.
    site.write(1, 500, Event::Settled { processor, requested_at });
    drop(books);
    let mut books = site.books();
    assert_eq!(books.sum(RangeMs::ALL).unwrap()[0].count, 1);
    assert!(!site.path("sled-0").exists());
}

#[test]
fn every_segment_that_has_records_of_a_payment_is_told_from_where_it_counts() {
    let mut site = Site::new();
    let mut books = site.books();
    let traces = |books: &mut Books, number| {
        let mut traces: Vec<_> = books.trace(id(number)).unwrap();
        traces.sort_unstable_by_key(|trace| (trace.instance, trace.from));
        traces.into_iter().map(|trace| (trace.instance, trace.from)).collect::<Vec<_>>()
    };
    let begin = |segment| Position { segment, index: 0 };
    assert_eq!(traces(&mut books, 7), []);
    // It is settled in another segment than it was accepted in, and the other instance has it too.
    site.write(1, 7, Event::Accepted);
    for number in 10..17 {
        site.settle(1, number, Processor::Default);
    }
    let (processor, requested_at) = (Processor::Default, at(7));
    site.write(1, 7, Event::Dispatched { processor, requested_at });
    site.write(1, 7, Event::Settled { processor, requested_at });
    site.write(2, 7, Event::Accepted);
    site.write(2, 7, Event::Duplicate);
    let all = [(1, begin(1)), (1, begin(2)), (2, begin(1))];
    assert_eq!(traces(&mut books, 7), all);
    site.claim(&mut books, 1);
    site.claim(&mut books, 2);
    drop(books);
    let mut books = site.books();
    assert_eq!(traces(&mut books, 7), all);

    // What was purged counts no more.
    books.purge().unwrap().unwrap();
    assert_eq!(traces(&mut books, 7), []);
    let cut = site.end(2);
    site.write(2, 7, Event::Accepted);
    assert_eq!(traces(&mut books, 7), [(2, cut)]);
}

#[test]
fn an_instance_that_runs_and_is_not_connected_is_noticed() {
    let mut site = Site::new();
    let mut books = site.books();
    books.greet(1).unwrap();
    assert_eq!(books.running_besides(&[1]).unwrap(), [2]);
    assert_eq!(books.running_besides(&[1, 2]).unwrap(), [0; 0]);
    site.journals.remove(&2);
    assert_eq!(books.running_besides(&[1]).unwrap(), [0; 0]);
}

#[test]
fn what_is_not_read_yet_is_counted_over_the_ends_of_segments() {
    let mut site = Site::new();
    site.settle_many(0..3);
    let mut books = site.books();
    let opened = books.standing();
    assert_eq!(opened.behind_counts, BTreeMap::from([(1, Some(0)), (2, Some(0))]));
    assert_eq!((opened.read_count, opened.unapplied_count), (9, 0));
    // 24 records and a seal of a segment of 20 are written by the first instance.
    for number in 10..18 {
        site.settle(1, number, Processor::Default);
    }
    let behind = books.standing();
    assert_eq!(behind.behind_counts, BTreeMap::from([(1, Some(25)), (2, Some(0))]));
    assert!(books.read_all().unwrap());
    let read = books.standing();
    assert_eq!(read.behind_counts, opened.behind_counts);
    assert_eq!((read.read_count, read.unapplied_count), (9 + 25, 8));
    assert_eq!(read.segments_count, opened.segments_count + 1);
    books.apply().unwrap();
    assert_eq!(books.standing().unapplied_count, 0);
}
