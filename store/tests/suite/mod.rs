//! The store's process, spoken to over its socket as an API does. `Backing`, of the test that uses this, says
//! who decides: the store by itself, or a shared ledger.

// Each test uses a part of this.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ledger::daemon::boot_id;
use ledger::disk::folder::FolderDisk;
use ledger::journal::{Event, Journal, JournalConfig, PaymentRecord, Position};
use ledger::protocol::{
    CLAIM_RECORDS_MAX, FrameBuffer, PROTOCOL_VERSION, PurgeNotice, Request, Response,
};
use ledger::volume::Volume;
use ledger::{Cents, CorrelationId, Processor, RangeMs, TimestampMs, Totals};
use tempfile::TempDir;

use crate::Backing;

/// Far more than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Site {
    pub folder: TempDir,
    pub store: Child,
    pub backing: Backing,
}

impl Site {
    pub fn start() -> Self {
        Self::with(Backing::start())
    }

    pub fn with(backing: Backing) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = start_store(folder.path(), &backing);
        Self { folder, store, backing }
    }

    /// Kills the store, or takes in that it has ended, and starts it again.
    pub fn start_again(&mut self) {
        // It may have ended by itself.
        let _ = self.store.kill();
        self.store.wait().unwrap();
        self.store = start_store(self.folder.path(), &self.backing);
    }

    pub fn volume(&self) -> Volume {
        Volume::new(self.folder.path())
    }

    pub fn journal(&self, instance: u16) -> Journal<FolderDisk> {
        let disk = FolderDisk::create(self.volume().journal(instance)).unwrap();
        let config = JournalConfig { instance, segment_bytes: 64 << 20, boot_id: boot_id() };
        Journal::open(disk, config, TimestampMs::MIN, |_, _| ()).unwrap().0
    }

    pub fn connect(&self) -> Line {
        let path = self.volume().store_socket();
        for _ in 0..2000 {
            if let Ok(stream) = UnixStream::connect(&path) {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return Line { stream, frames: FrameBuffer::default(), next_number: 1 };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the store does not answer at {}", path.display());
    }

    /// A line of an instance that has said who it is.
    pub fn instance(&self, instance: u16) -> Line {
        let mut line = self.connect();
        let hello = Request::Hello { version: PROTOCOL_VERSION, instance };
        assert!(matches!(line.ask(hello), Response::Welcome(_)));
        line
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.store.kill();
        let _ = self.store.wait();
    }
}

fn start_store(folder: &Path, backing: &Backing) -> Child {
    Command::new(env!("CARGO_BIN_EXE_store"))
        .arg("--data")
        .arg(folder)
        .args(backing.arguments())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

pub struct Line {
    stream: UnixStream,
    frames: FrameBuffer,
    next_number: u32,
}

impl Line {
    pub fn say(&mut self, request: Request) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        let mut bytes = Vec::new();
        request.encode(number, &mut bytes);
        self.stream.write_all(&bytes).unwrap();
        number
    }

    /// The next thing that the store says; `None` when it ends the line.
    pub fn hear(&mut self) -> Option<(u32, Response)> {
        loop {
            if let Some(heard) = self.frames.next_response().unwrap() {
                return Some(heard);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes).unwrap() {
                0 => return None,
                count => self.frames.extend(&bytes[..count]),
            }
        }
    }

    pub fn ask(&mut self, request: Request) -> Response {
        let number = self.say(request);
        let (answered, response) = self.hear().unwrap();
        assert_eq!(answered, number);
        response
    }
}

pub fn record(number: u8, event: Event) -> PaymentRecord {
    PaymentRecord {
        id: CorrelationId::from_bytes([number; 16]),
        amount: Cents::new(1990),
        written_at: TimestampMs::clamped(0),
        event,
    }
}

pub fn settled() -> Event {
    Event::Settled { processor: Processor::Default, requested_at: TimestampMs::clamped(0) }
}

pub fn append(journal: &mut Journal<FolderDisk>, records: &[PaymentRecord]) -> Position {
    let appended = journal.append(records, 1, TimestampMs::MIN);
    assert!(appended.error.is_none());
    appended.first
}

#[test]
fn claims_are_decided_and_summaries_answered() {
    let site = Site::start();
    let (mut one, mut two) = (site.journal(1), site.journal(2));
    let (mut line_one, mut line_two) = (site.instance(1), site.instance(2));
    append(&mut one, &[record(7, Event::Accepted), record(8, Event::Accepted)]);
    let loser = append(&mut two, &[record(7, Event::Accepted)]);

    let through = one.end();
    let claimed = Response::Claimed { through, losers: vec![] };
    assert_eq!(line_one.ask(Request::Claim { through }), claimed);
    let through = two.end();
    let claimed = Response::Claimed { through, losers: vec![loser] };
    assert_eq!(line_two.ask(Request::Claim { through }), claimed);

    append(&mut one, &[record(7, settled())]);
    let totals = Totals::of_payment(Cents::new(1990));
    let summary = Response::Summary([totals, Totals::default()]);
    assert_eq!(line_two.ask(Request::Summarize(RangeMs::ALL)), summary);
    let id = CorrelationId::from_bytes([7; 16]);
    let payment = Response::Payment(Some(record(7, settled())));
    assert_eq!(line_two.ask(Request::Look(id)), payment);
}

#[test]
fn a_claim_decides_so_many_records_and_the_next_one_goes_on() {
    let site = Site::start();
    let mut journal = site.journal(1);
    let mut line = site.instance(1);
    let records: Vec<_> = (0..=CLAIM_RECORDS_MAX)
        .map(|number| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            PaymentRecord { id: CorrelationId::from_bytes(id), ..record(0, Event::Accepted) }
        })
        .collect();
    let first = append(&mut journal, &records);
    let all = Request::Claim { through: journal.end() };
    let count = u32::try_from(CLAIM_RECORDS_MAX).unwrap();
    for through in [first.plus(count), first.plus(count + 1)] {
        assert_eq!(line.ask(all), Response::Claimed { through, losers: vec![] });
    }
}

/// Killed without warning after any answer, the store that follows stands by it.
#[test]
fn a_decision_outlives_the_store_that_made_it() {
    let mut site = Site::start();
    let (mut one, mut two) = (site.journal(1), site.journal(2));
    append(&mut one, &[record(7, Event::Accepted)]);
    append(&mut two, &[record(7, Event::Accepted)]);
    let through = two.end();
    let claimed = Response::Claimed { through, losers: vec![] };
    assert_eq!(site.instance(2).ask(Request::Claim { through }), claimed);

    site.start_again();
    let through = one.end();
    let claimed = Response::Claimed { through, losers: vec![Position::START] };
    assert_eq!(site.instance(1).ask(Request::Claim { through }), claimed);
}

#[test]
fn who_does_not_say_who_it_is_may_ask_and_not_claim() {
    let site = Site::start();
    let mut line = site.connect();
    let refused = line.ask(Request::Claim { through: Position::START });
    assert!(matches!(refused, Response::Refused(_)), "{refused:?}");
    let summary = Response::Summary([Totals::default(); 2]);
    assert_eq!(line.ask(Request::Summarize(RangeMs::ALL)), summary);
}

#[test]
fn a_claim_over_the_line_before_counts_no_more() {
    let site = Site::start();
    let mut journals = [site.journal(1), site.journal(2)];
    for journal in &mut journals {
        append(journal, &[record(7, Event::Accepted)]);
    }
    let through = Position::START.next();
    let claim = Request::Claim { through };
    assert!(matches!(site.instance(1).ask(claim), Response::Claimed { .. }));
    // The process behind this line has ended, and what it had said is read after its successor's word.
    let mut before = site.instance(2);
    let mut now = site.instance(2);
    assert!(matches!(before.ask(claim), Response::Refused(_)));
    assert_eq!(now.ask(claim), Response::Claimed { through, losers: vec![Position::START] });
}

#[test]
fn another_version_is_refused_with_both_numbers() {
    let site = Site::start();
    let hello = Request::Hello { version: PROTOCOL_VERSION + 1, instance: 1 };
    match site.connect().ask(hello) {
        Response::Refused(why) => {
            assert!(why.contains(&PROTOCOL_VERSION.to_string()), "{why}");
            assert!(why.contains(&(PROTOCOL_VERSION + 1).to_string()), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nonsense_ends_its_own_line_and_no_other() {
    let site = Site::start();
    let mut good = site.instance(1);
    for nonsense in [&[0xff; 64][..], &[1, 0, 0, 0, 9], &[5, 0, 0, 0, 1, 0, 0, 0, 99]] {
        let mut bad = site.connect();
        bad.stream.write_all(nonsense).unwrap();
        assert_eq!(bad.hear(), None);
    }
    let summary = Response::Summary([Totals::default(); 2]);
    assert_eq!(good.ask(Request::Summarize(RangeMs::ALL)), summary);
}

/// A peer that asks a lot before it reads the first answer gets them all.
#[test]
fn a_peer_that_writes_before_it_reads_does_not_stop_the_line() {
    const COUNT: u32 = 20_000;
    let site = Site::start();
    let mut line = site.instance(1);
    line.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut questions = Vec::new();
    for number in 1..=COUNT {
        Request::Summarize(RangeMs::ALL).encode(number, &mut questions);
    }
    line.stream.write_all(&questions).unwrap();
    for number in 1..=COUNT {
        let summary = Response::Summary([Totals::default(); 2]);
        assert_eq!(line.hear(), Some((number, summary)));
    }
}

/// What a peer does not read is not kept for it without limit, and nothing of it is lost.
#[test]
fn a_peer_that_never_reads_is_not_read_from_for_ever() {
    const QUESTIONS_BYTES: usize = 8 << 20;
    let site = Site::start();
    let mut line = site.instance(1);
    line.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut questions = Vec::new();
    let mut ends = Vec::new();
    while questions.len() < QUESTIONS_BYTES {
        let number = u32::try_from(ends.len()).unwrap() + 1;
        Request::Summarize(RangeMs::ALL).encode(number, &mut questions);
        ends.push(questions.len());
    }
    let mut written = 0;
    while let Ok(count) = line.stream.write(&questions[written..]) {
        written += count;
        assert!(written < QUESTIONS_BYTES, "all was read");
    }
    for (number, _) in (1..).zip(ends.iter().filter(|end| **end <= written)) {
        let summary = Response::Summary([Totals::default(); 2]);
        assert_eq!(line.hear(), Some((number, summary)));
    }
    // Others are served as ever.
    let summary = Response::Summary([Totals::default(); 2]);
    assert_eq!(site.instance(2).ask(Request::Summarize(RangeMs::ALL)), summary);
}

#[test]
fn a_damaged_journal_ends_the_store_with_its_own_exit_code() {
    let mut site = Site::start();
    let mut line = site.instance(1);
    let mut journal = site.journal(1);
    append(&mut journal, &[record(7, Event::Accepted), record(8, Event::Accepted)]);
    let path = site.volume().journal(1).join("0000000001.journal");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    line.say(Request::Summarize(RangeMs::ALL));
    assert_eq!(site.store.wait().unwrap().code(), Some(65));
    site.start_again();
    assert_eq!(site.store.wait().unwrap().code(), Some(65));
}

#[test]
fn a_purge_waits_until_every_instance_has_agreed() {
    let site = Site::start();
    let (mut one, two) = (site.journal(1), site.journal(2));
    let (mut line_one, mut line_two) = (site.instance(1), site.instance(2));
    append(&mut one, &[record(7, Event::Accepted), record(7, settled())]);
    let asked = line_one.say(Request::Purge);
    assert_eq!(line_one.hear(), Some((0, Response::PreparePurge { serial: 1 })));
    assert_eq!(line_two.hear(), Some((0, Response::PreparePurge { serial: 1 })));
    line_two.say(Request::PurgePrepared { serial: 1 });
    line_one.say(Request::PurgePrepared { serial: 1 });
    let notice = |cut| (0, Response::PurgeNotice(PurgeNotice { purge: 1, cut }));
    assert_eq!(line_one.hear(), Some(notice(one.end())));
    assert_eq!(line_one.hear(), Some((asked, Response::Purged)));
    assert_eq!(line_two.hear(), Some(notice(two.end())));
    let summary = Response::Summary([Totals::default(); 2]);
    assert_eq!(line_two.ask(Request::Summarize(RangeMs::ALL)), summary);
}

#[test]
fn a_purge_that_an_instance_does_not_agree_to_is_given_up() {
    let site = Site::start();
    let (mut one, _two) = (site.journal(1), site.journal(2));
    let (mut line_one, mut line_two) = (site.instance(1), site.instance(2));
    append(&mut one, &[record(7, Event::Accepted), record(7, settled())]);
    let asked = line_one.say(Request::Purge);
    assert_eq!(line_one.hear(), Some((0, Response::PreparePurge { serial: 1 })));
    line_one.say(Request::PurgePrepared { serial: 1 });
    // The other one says nothing.
    assert_eq!(line_one.hear(), Some((0, Response::PurgeAborted)));
    match line_one.hear() {
        Some((number, Response::Refused(why))) => {
            assert_eq!(number, asked);
            assert!(why.contains("nothing was purged") && why.contains("api-2"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(line_two.hear(), Some((0, Response::PreparePurge { serial: 1 })));
    assert_eq!(line_two.hear(), Some((0, Response::PurgeAborted)));
    let totals = Totals::of_payment(Cents::new(1990));
    let summary = Response::Summary([totals, Totals::default()]);
    assert_eq!(line_two.ask(Request::Summarize(RangeMs::ALL)), summary);

    // Its answer comes while the next purge waits, and agrees to nothing.
    let asked = line_one.say(Request::Purge);
    assert_eq!(line_one.hear(), Some((0, Response::PreparePurge { serial: 2 })));
    line_one.say(Request::PurgePrepared { serial: 2 });
    line_two.say(Request::PurgePrepared { serial: 1 });
    assert_eq!(line_one.hear(), Some((0, Response::PurgeAborted)));
    assert!(matches!(line_one.hear(), Some((number, Response::Refused(_))) if number == asked));
}

#[test]
fn an_instance_that_runs_and_is_not_connected_stops_a_purge() {
    let site = Site::start();
    let _two = site.journal(2);
    drop(site.instance(2));
    let _one = site.journal(1);
    let mut line = site.instance(1);
    let asked = line.say(Request::Purge);
    assert_eq!(line.hear(), Some((0, Response::PreparePurge { serial: 1 })));
    line.say(Request::PurgePrepared { serial: 1 });
    assert_eq!(line.hear(), Some((0, Response::PurgeAborted)));
    match line.hear() {
        Some((number, Response::Refused(why))) => {
            assert_eq!(number, asked);
            assert!(why.contains("api-2 runs and is not connected"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}
