//! Our books: what the journals say became of each payment of a span of time.

use std::collections::{BTreeMap, HashMap};
use std::io;

use ledger::disk::folder::FolderDisk;
use ledger::journal::{
    Event, JournalError, JournalReader, PaymentRecord, Position, Record, list_segments,
};
use ledger::money::TotalOverflow;
use ledger::volume::Volume;
use ledger::{Cents, CorrelationId, Processor, RangeMs, TimestampMs};

use crate::claims::{ClaimsError, read_cuts};

/// Payments that are held in memory, about 100 bytes each.
const PAYMENTS_MAX: usize = 5_000_000;
/// Records that are read at a time.
const READ_RECORDS_MAX: usize = 8192;

/// Why our books cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OursError {
    /// A journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The claim log, which says what was purged.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    /// A folder.
    #[error("cannot read the journals: {0}")]
    Io(#[from] io::Error),
    /// Too many payments.
    #[error("more than {PAYMENTS_MAX} payments: ask for a shorter span with --from and --to")]
    TooMany,
    /// Too much money.
    #[error(transparent)]
    Overflow(#[from] TotalOverflow),
}

impl OursError {
    /// Whether stored data is damaged.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Journal(error) => error.is_damage(),
            Self::Claims(error) => error.is_damage(),
            _ => false,
        }
    }
}

/// What became of a payment, in the order in which one record counts for more than another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fate {
    /// Its id belongs to another record.
    Duplicate,
    /// It is not closed.
    Open {
        /// The processor that may have it.
        in_doubt: Option<Processor>,
    },
    /// Both processors refuse it.
    Refused,
    /// A processor has it.
    Settled {
        /// Which one.
        processor: Processor,
        /// The `requestedAt` that it recorded.
        requested_at: TimestampMs,
    },
}

/// A payment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payment {
    /// Its amount.
    pub amount: Cents,
    /// What became of it.
    pub fate: Fate,
    /// By what it belongs to a span: `requestedAt` of one that is settled, else its last record.
    moment: TimestampMs,
}

/// Our books.
pub struct Ours {
    /// The payments of the span.
    pub payments: HashMap<CorrelationId, Payment>,
}

impl Ours {
    /// Reads all journals from where they were last purged.
    ///
    /// # Errors
    /// See [`OursError`].
    pub fn read(volume: &Volume, range: RangeMs) -> Result<Self, OursError> {
        let cuts = if volume.store().is_dir() {
            read_cuts(&FolderDisk::create(volume.store())?)?
        } else {
            BTreeMap::new()
        };
        let mut payments = HashMap::new();
        for instance in volume.instances()? {
            let disk = FolderDisk::create(volume.journal(instance))?;
            let cut = cuts.get(&instance).copied().unwrap_or(Position::START);
            for (id, payment) in read_journal(&disk, instance, cut, range)? {
                let known = payments.entry(id).or_insert(payment);
                if known.fate < payment.fate {
                    *known = payment;
                }
            }
        }
        payments.retain(|_, payment| range.contains(payment.moment));
        Ok(Self { payments })
    }

    /// Open payments that a processor may have.
    #[must_use]
    pub fn in_doubt_count(&self, processor: Processor) -> u64 {
        let in_doubt = Fate::Open { in_doubt: Some(processor) };
        self.payments.values().filter(|payment| payment.fate == in_doubt).count() as u64
    }
}

/// What one journal says of each payment that is open, or belongs to the span.
fn read_journal(
    disk: &FolderDisk,
    instance: u16,
    cut: Position,
    range: RangeMs,
) -> Result<HashMap<CorrelationId, Payment>, OursError> {
    let oldest = list_segments(disk)?.first().copied().unwrap_or(cut.segment);
    let begin = cut.max(Position { segment: oldest, index: 0 });
    let mut payments = HashMap::new();
    let mut reader = JournalReader::new(disk.clone(), instance, begin);
    loop {
        let count = reader.read(READ_RECORDS_MAX, |_, record| {
            if let Record::Payment(record) = record {
                take_in(&mut payments, record, range);
            }
        })?;
        if payments.len() > PAYMENTS_MAX {
            return Err(OursError::TooMany);
        }
        if count < READ_RECORDS_MAX {
            return Ok(payments);
        }
    }
}

fn take_in(payments: &mut HashMap<CorrelationId, Payment>, record: &PaymentRecord, range: RangeMs) {
    let known = payments.get(&record.id).map(|payment| payment.fate);
    let mut moment = record.written_at;
    let fate = match record.event {
        // Posted again, and not to be sent: the first record counts.
        Event::Accepted if known.is_some() => return,
        Event::Duplicate if known.is_some_and(|fate| fate != Fate::Open { in_doubt: None }) => {
            return;
        }
        Event::Duplicate => Fate::Duplicate,
        Event::Accepted | Event::Failed { .. } => Fate::Open { in_doubt: None },
        Event::Dispatched { processor, .. } => Fate::Open { in_doubt: Some(processor) },
        Event::Refused { .. } => Fate::Refused,
        Event::Settled { processor, requested_at } => {
            moment = requested_at;
            Fate::Settled { processor, requested_at }
        }
    };
    if matches!(fate, Fate::Settled { .. }) && !range.contains(moment) {
        payments.remove(&record.id);
    } else {
        payments.insert(record.id, Payment { amount: record.amount, fate, moment });
    }
}
