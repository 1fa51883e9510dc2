//! What is promised, and what is really so: the journals as they stand on the disks, the processors'
//! books, and who was told what.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use api::engine::Call;
use ledger::disk::crashing::CrashingDisk;
use ledger::journal::{Event, JournalError, JournalReader, Position, Record};
use ledger::{Cents, CorrelationId, TimestampMs};

use super::plan::INSTANCES;
use super::processor::Processor;

/// Something that was promised and not kept.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// Nobody will ever be paid.
    #[error("{0} was accepted, and no processor has it")]
    Lost(CorrelationId),
    /// Somebody is paid twice.
    #[error("{0} was paid twice")]
    PaidTwice(CorrelationId),
    /// The ledger is not what the processors have.
    #[error("the ledger is wrong about {0}: {1}")]
    LedgerWrong(CorrelationId, String),
    /// A payment is recorded that nobody wanted.
    #[error("{0} is recorded, and {1}")]
    NotWanted(CorrelationId, &'static str),
    /// A client was told too early.
    #[error("{0} was answered with 202, and the journal does not have it")]
    AnsweredUnwritten(CorrelationId),
    /// A client was told nonsense.
    #[error("{0} was answered with 409 about {1}, and nobody posted that")]
    WrongConflict(CorrelationId, Cents),
    /// A call was made that no record tells of.
    #[error("{0} was sent, and the journal does not say so")]
    SentUnwritten(CorrelationId),
    /// A call was made that the store had not allowed.
    #[error("{0} was sent by instance {1}, which has no right to it")]
    SentUnclaimed(CorrelationId, usize),
    /// Two records were given the right to one id.
    #[error("two records have the right to {0}")]
    GrantedTwice(CorrelationId),
    /// Something is not done, although nothing is wrong any more.
    #[error("all is well, and still not everything is done: {0}")]
    Stuck(String),
    /// A journal or the claim log is taken for damaged.
    #[error("what the disk has is not understood: {0}")]
    Damaged(String),
    /// The program fell over.
    #[error("panicked: {0}")]
    Panicked(String),
}

/// An event in a journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    pub instance: usize,
    pub position: Position,
    pub amount: Cents,
    pub event: Event,
}

/// The journals by payment, in the order of each.
pub type ById = HashMap<CorrelationId, Vec<Written>>;

/// What is known to be so.
pub struct Truth {
    readers: Vec<JournalReader<CrashingDisk>>,
    pub written: ById,
    /// By instance: accepted payments, in order, that no answer of the store has covered.
    ungranted: Vec<BTreeMap<Position, CorrelationId>>,
    losers: BTreeSet<(usize, Position)>,
    granted: HashMap<CorrelationId, (usize, Position)>,
    /// After a power cut the store may decide anew about what was not sent.
    follows_grants: bool,
}

impl Truth {
    /// Nothing is known of these journals.
    pub fn new(disks: &[CrashingDisk], boot_id: [u8; 16]) -> Self {
        let mut truth = Self {
            readers: Vec::new(),
            written: HashMap::new(),
            ungranted: vec![BTreeMap::new(); INSTANCES],
            losers: BTreeSet::new(),
            granted: HashMap::new(),
            follows_grants: true,
        };
        truth.read_anew(disks, boot_id);
        truth
    }

    fn read_anew(&mut self, disks: &[CrashingDisk], boot_id: [u8; 16]) {
        self.written.clear();
        let readers = disks.iter().zip(1..).map(|(disk, number)| {
            JournalReader::new(disk.clone(), number, Position::START)
                .under_boot(boot_id)
                .passing_lost_seals()
        });
        self.readers = readers.collect();
    }

    /// The power failed, and these are the disks now.
    pub fn power_failed(&mut self, disks: &[CrashingDisk], boot_id: [u8; 16]) {
        self.read_anew(disks, boot_id);
        self.follows_grants = false;
    }

    /// Reads what an instance has written.
    pub fn read(&mut self, instance: usize) -> Result<(), Violation> {
        let (written, ungranted) = (&mut self.written, &mut self.ungranted[instance]);
        self.readers[instance]
            .read(usize::MAX, |position, record| {
                if let Record::Payment(record) = record {
                    let (amount, event) = (record.amount, record.event);
                    let entry = Written { instance, position, amount, event };
                    written.entry(record.id).or_default().push(entry);
                    if event == Event::Accepted {
                        ungranted.insert(position, record.id);
                    }
                }
            })
            .map(drop)
            .map_err(|error| damaged(&error))
    }

    fn of(&self, id: CorrelationId) -> &[Written] {
        self.written.get(&id).map_or(&[], Vec::as_slice)
    }

    /// A client is about to be told that its payment is accepted.
    pub fn check_accepted(&mut self, instance: usize, id: CorrelationId) -> Result<(), Violation> {
        self.read(instance)?;
        let is_written =
            |entry: &Written| entry.instance == instance && entry.event == Event::Accepted;
        let is_there = self.of(id).iter().any(is_written);
        is_there.then_some(()).ok_or(Violation::AnsweredUnwritten(id))
    }

    /// A payment is about to be sent.
    pub fn check_sent(
        &mut self,
        instance: usize,
        call: &Call,
        requested_at: TimestampMs,
    ) -> Result<(), Violation> {
        self.read(instance)?;
        let last = self.of(call.id).iter().rfind(|entry| entry.instance == instance);
        let expected = Event::Dispatched { processor: call.processor, requested_at };
        if last.is_none_or(|last| last.event != expected || last.amount != call.amount) {
            return Err(Violation::SentUnwritten(call.id));
        }
        let right = self.granted.get(&call.id);
        if self.follows_grants && right.is_none_or(|(granted, _)| *granted != instance) {
            return Err(Violation::SentUnclaimed(call.id, instance));
        }
        Ok(())
    }

    /// An instance is about to be told what it may send.
    pub fn check_decided(
        &mut self,
        instance: usize,
        through: Position,
        losers: &[Position],
    ) -> Result<(), Violation> {
        self.read(instance)?;
        self.losers.extend(losers.iter().map(|loser| (instance, *loser)));
        let later = self.ungranted[instance].split_off(&through);
        let decided = std::mem::replace(&mut self.ungranted[instance], later);
        for (position, id) in decided {
            if self.losers.contains(&(instance, position)) {
                continue;
            }
            let granted = *self.granted.entry(id).or_insert((instance, position));
            if self.follows_grants && granted != (instance, position) {
                return Err(Violation::GrantedTwice(id));
            }
        }
        Ok(())
    }
}

/// What a payment's clients want and were told.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Some client was told that it is accepted.
    pub accepted: bool,
    /// Some client was told nothing, or may have been told too little.
    pub in_doubt: bool,
    /// The amounts that clients named and were not refused for.
    pub amounts: BTreeSet<i64>,
}

/// Once everything is done: journals and processors say the same, and it is what was wanted.
pub fn check_books(
    written: &ById,
    processors: &[Processor; 2],
    refused: &[BTreeSet<CorrelationId>; 2],
    wanted: &HashMap<CorrelationId, Wanted>,
) -> Result<(), Violation> {
    for (id, wanted) in wanted {
        if wanted.accepted && processors.iter().all(|p| !p.recorded.contains_key(id)) {
            let entries = written.get(id).map_or(&[][..], Vec::as_slice);
            let says_refused =
                entries.iter().any(|entry| matches!(entry.event, Event::Refused { .. }));
            if !(says_refused && refused.iter().all(|of| of.contains(id))) {
                return Err(Violation::Lost(*id));
            }
        }
    }
    for (processor, which) in processors.iter().zip(ledger::Processor::ALL) {
        for (id, recorded) in &processor.recorded {
            let Some(wanted) = wanted.get(id) else {
                return Err(Violation::NotWanted(*id, "nobody posted it"));
            };
            if !wanted.accepted && !wanted.in_doubt {
                return Err(Violation::NotWanted(*id, "every client was refused"));
            }
            if !wanted.amounts.contains(&recorded.amount.get()) {
                return Err(Violation::NotWanted(*id, "nobody posted that amount"));
            }
            let entries = written.get(id).map_or(&[][..], Vec::as_slice);
            let settled: Vec<_> = entries
                .iter()
                .filter_map(|entry| match entry.event {
                    Event::Settled { processor, requested_at } => {
                        Some((processor, requested_at, entry.amount))
                    }
                    _ => None,
                })
                .collect();
            if settled != [(which, recorded.requested_at, recorded.amount)] {
                let says = format!("it says {settled:?}, and {which} has {recorded:?}");
                return Err(Violation::LedgerWrong(*id, says));
            }
        }
    }
    for (id, entries) in written {
        let settled = entries.iter().filter(|e| matches!(e.event, Event::Settled { .. })).count();
        let recorded = processors.iter().filter(|p| p.recorded.contains_key(id)).count();
        if settled != recorded {
            let says = format!("{settled} settlements, and {recorded} processors have it");
            return Err(Violation::LedgerWrong(*id, says));
        }
    }
    Ok(())
}

/// What it means that a journal cannot be read on a disk that works.
pub fn damaged(error: &JournalError) -> Violation {
    Violation::Damaged(error.to_string())
}
