//! The database damaged in every way that a file can be, while the store is down and while it runs:
//! no answer is ever wrong, and the next start has all of them again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "journals/claimed.rs"]
mod claimed;
mod journals;

use std::fs;
use std::path::{Path, PathBuf};

use ledger::daemon::expecting_panics;
use ledger::volume::Volume;
use ledger::{RangeMs, Totals};
use store::books::{Books, BooksError};
use store::suspicion::Suspicion;

const PAYMENTS_COUNT: u32 = 100_000;
const SEGMENT_BYTES: u64 = 4 << 20;
const CACHE_BYTES: u64 = 1 << 20;
const BOOT_ID: [u8; 16] = [1; 16];
const PAGE_BYTES: usize = 4096;

/// Spans of payments that are asked for; a small cache makes sled read most of the file for them.
const SPANS: [(u32, u32); 6] = [
    (0, PAYMENTS_COUNT),
    (1, 2),
    (777, 52_345),
    (33_333, 33_349),
    (49_999, 99_998),
    (99_000, PAYMENTS_COUNT),
];

/// Numbers as at random, from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 32)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap()
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.next().to_le_bytes()[0]);
    }
}

type Damage = fn(&Path, &mut Random);

const DAMAGES: [(&str, Damage); 7] = [
    ("deleted", |folder, _| fs::remove_dir_all(folder).unwrap()),
    ("every file empty", |folder, _| change_each(folder, Vec::clear)),
    ("every file cut", |folder, random| {
        change_each(folder, |bytes| bytes.truncate(random.below(bytes.len())));
    }),
    ("noise over everything", |folder, random| change_each(folder, |bytes| random.fill(bytes))),
    ("noise over the head", |folder, random| {
        change_each(folder, |bytes| {
            let head = bytes.len().min(PAGE_BYTES);
            random.fill(&mut bytes[..head]);
        });
    }),
    ("noise over some pages", |folder, random| {
        change_each(folder, |bytes| {
            for _ in 0..3 {
                let page = random.below(bytes.len() / PAGE_BYTES) * PAGE_BYTES;
                let end = bytes.len().min(page + PAGE_BYTES);
                random.fill(&mut bytes[page..end]);
            }
        });
    }),
    ("a file in place of the folder", |folder, _| {
        fs::remove_dir_all(folder).unwrap();
        fs::write(folder, "no database").unwrap();
    }),
];

/// Changes the bytes of each file of a folder, in the same file as a running store has open.
fn change_each(folder: &Path, mut change: impl FnMut(&mut Vec<u8>)) {
    for path in files(folder) {
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.is_file()).collect()
}

/// A volume with journals, and a copy of the database that belongs to them.
struct Site {
    folder: tempfile::TempDir,
    expected: Vec<[Totals; 2]>,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Self {
            expected: SPANS.iter().map(|(from, to)| journals::totals(*from..*to)).collect(),
            folder,
        };
        journals::write(&site.volume(), BOOT_ID, PAYMENTS_COUNT, SEGMENT_BYTES);
        assert_eq!(ask(&mut site.books().unwrap()).unwrap(), site.expected);
        copy(&site.database(), &site.pristine());
        site
    }

    fn volume(&self) -> Volume {
        Volume::new(self.folder.path())
    }

    fn database(&self) -> PathBuf {
        self.volume().store().join("sled-0")
    }

    fn pristine(&self) -> PathBuf {
        self.folder.path().join("pristine")
    }

    fn books(&self) -> Result<Books, BooksError> {
        Books::open(&self.volume(), CACHE_BYTES, BOOT_ID).map(|(books, _)| books)
    }

    /// What the store's process does with an error or a panic of its database: it leaves the
    /// suspicion behind, and ends.
    fn ask_as_a_process(&self, books: &mut Books) -> Option<Vec<[Totals; 2]>> {
        let why = match expecting_panics(|| ask(books)) {
            Ok(Ok(answers)) => return Some(answers),
            Ok(Err(BooksError::Database(error))) => {
                assert!(error.speaks_against_the_view(), "{error}");
                error.to_string()
            }
            Ok(Err(error)) => panic!("{error}"),
            Err(panic) => panic,
        };
        Suspicion::of(&self.volume()).raise(&why);
        None
    }

    fn restore(&self) {
        for path in [self.database(), self.volume().store().join("sled-0.set-aside")] {
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else if path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
        copy(&self.pristine(), &self.database());
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for path in files(from) {
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    fs::create_dir_all(to.join("blobs")).unwrap();
}

/// What was settled in each of the spans.
fn ask(books: &mut Books) -> Result<Vec<[Totals; 2]>, BooksError> {
    let span =
        |(from, to): &(u32, u32)| RangeMs { from: journals::at(*from), to: journals::at(*to - 1) };
    SPANS.iter().map(|numbers| books.sum(span(numbers))).collect()
}

#[test]
fn a_database_damaged_while_the_store_is_down_gives_no_wrong_answer() {
    let site = Site::new();
    for seed in 0..6 {
        for (name, damage) in DAMAGES {
            site.restore();
            damage(&site.database(), &mut Random(seed));
            let mut answers = None;
            for _start in 0..2 {
                // A panic while it starts is one of sled's over what it reads for the first time.
                let books = expecting_panics(|| site.books());
                if let Ok(books) = books {
                    let mut books = books.unwrap();
                    answers = site.ask_as_a_process(&mut books);
                    let _ = expecting_panics(|| drop(books));
                } else {
                    Suspicion::of(&site.volume()).raise("a panic");
                }
                if answers.is_some() {
                    break;
                }
            }
            assert_eq!(answers.as_ref(), Some(&site.expected), "{name}, seed {seed}");
        }
    }
}

#[test]
fn a_database_damaged_while_the_store_runs_gives_no_wrong_answer() {
    let site = Site::new();
    for seed in 0..3 {
        for (name, damage) in DAMAGES {
            site.restore();
            let mut books = site.books().unwrap();
            damage(&site.database(), &mut Random(seed));
            if let Some(answers) = site.ask_as_a_process(&mut books) {
                assert_eq!(answers, site.expected, "{name}, seed {seed}");
            }
            let _ = expecting_panics(|| drop(books));
            let mut answers = None;
            for _start in 0..2 {
                answers = match expecting_panics(|| site.books()) {
                    Ok(books) => site.ask_as_a_process(&mut books.unwrap()),
                    Err(panic) => {
                        Suspicion::of(&site.volume()).raise(&panic);
                        None
                    }
                };
                if answers.is_some() {
                    break;
                }
            }
            assert_eq!(answers.as_ref(), Some(&site.expected), "{name}, seed {seed}");
        }
    }
}

#[test]
fn files_of_the_index_that_cannot_be_read_are_made_again() {
    let site = Site::new();
    let mut books = site.books().unwrap();
    claimed::claim_all(&mut books);
    drop(books);
    let index = site.volume().store().join("index");
    let indexed = files(&index);
    assert!(indexed.len() >= 3, "{indexed:?}");
    for path in &indexed {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }
    let mut books = site.books().unwrap();
    assert_eq!(ask(&mut books).unwrap(), site.expected);
    assert!(books.look(journals::payment(5).0).unwrap().is_some());
    drop(books);
    fs::remove_dir_all(&index).unwrap();
    fs::write(&index, "no folder").unwrap();
    let mut books = site.books().unwrap();
    assert_eq!(ask(&mut books).unwrap(), site.expected);
    assert!(books.look(journals::payment(5).0).unwrap().is_some());
}
