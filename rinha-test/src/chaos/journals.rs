//! What the journals say, read from the files themselves while the router runs.

use std::collections::HashMap;
use std::io;

use ledger::disk::folder::FolderDisk;
use ledger::journal::list_segments;
use ledger::journal::{Event, JournalError, JournalReader, PaymentRecord, Position, Record};
use ledger::volume::Volume;
use ledger::{Cents, CorrelationId, Processor, TimestampMs};

/// Why journals cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalsError {
    /// A journal is damaged or cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The volume cannot be read.
    #[error("cannot read the folder of the journals: {0}")]
    Volume(#[from] io::Error),
}

/// A `Settled` record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Who has it.
    pub processor: Processor,
    /// Since when.
    pub requested_at: TimestampMs,
    /// Its amount.
    pub amount: Cents,
}

/// What the journals say of a payment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journaled {
    /// `Accepted` records.
    pub accepted_count: u32,
    /// Records that close one of them.
    pub closed_count: u32,
    /// `Refused` records among those.
    pub refused_count: u32,
    /// `Settled` records among those.
    pub settled: Vec<Settlement>,
}

/// What all journals say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journals {
    /// By payment.
    pub payments: HashMap<CorrelationId, Journaled>,
    /// Where they end, by instance.
    pub ends: Vec<(u16, Position)>,
}

impl Journals {
    /// Reads all journals from their beginnings, without their writers' knowledge.
    ///
    /// # Errors
    /// One of them is damaged or cannot be read.
    pub fn read(volume: &Volume) -> Result<Self, JournalsError> {
        let mut journals = Self::default();
        for instance in volume.instances()? {
            let disk = FolderDisk::create(volume.journal(instance))?;
            let Some(first) = list_segments(&disk)?.first().copied() else { continue };
            let start = Position { segment: first, index: 0 };
            let mut reader = JournalReader::new(disk, instance, start);
            reader.read(usize::MAX, |_, record| {
                if let Record::Payment(record) = record {
                    journals.add(record);
                }
            })?;
            journals.ends.push((instance, reader.position()));
        }
        Ok(journals)
    }

    fn add(&mut self, record: &PaymentRecord) {
        let payment = self.payments.entry(record.id).or_default();
        match record.event {
            Event::Accepted => payment.accepted_count += 1,
            Event::Dispatched { .. } | Event::Failed { .. } => {}
            Event::Settled { processor, requested_at } => {
                payment.closed_count += 1;
                payment.settled.push(Settlement { processor, requested_at, amount: record.amount });
            }
            Event::Refused { .. } => {
                payment.closed_count += 1;
                payment.refused_count += 1;
            }
            Event::Duplicate => payment.closed_count += 1,
        }
    }
}

impl Journaled {
    /// Whether something of it is still to be done.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.accepted_count > self.closed_count
    }
}
