//! The life of a payment: every record that the journals have of it, in order, and in words.
//!
//! The store says in which segments they lie, and the monitor reads those itself: nothing waits for it.
//! What no record has the time of, such as the store's decision, is told without one.

use std::sync::Arc;
use std::time::Duration;

use ledger::clock::Monotonic;
use ledger::daemon::boot_id;
use ledger::disk::folder::FolderDisk;
use ledger::journal::{Event, JournalError, JournalReader, PaymentRecord, Position, Record};
use ledger::protocol::Trace;
use ledger::volume::{RESTORED_INSTANCE, Volume, instance_name};
use ledger::{CorrelationId, Processor, TimestampMs};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::ask::{AskError, StoreLine};

/// Segments that are read for one payment.
const SEGMENTS_MAX: usize = 8;

/// Records of one payment that are told: half of them the first ones, and half the last.
const RECORDS_MAX: usize = 100;

/// How long the reading may take; what was not read then is told as missing.
const READ_TIME_MAX: Duration = Duration::from_secs(3);

/// Records that are read at a time.
const READ_RECORDS: usize = 8192;

/// Why a life cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// The store does not say where it is.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// A journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The operating system refuses.
    #[error("cannot read the journals: {0}")]
    Read(#[from] std::io::Error),
}

/// A life.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Life {
    /// Which payment.
    pub correlation_id: String,
    /// Its amount.
    pub amount: String,
    /// As `GET /payments/{id}` tells it.
    pub status: &'static str,
    /// How it stands, in a sentence.
    pub standing: String,
    /// What happened to it, in order.
    pub steps: Vec<Step>,
    /// Whether that is all that there is.
    pub is_whole: bool,
}

/// Something that happened.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// When, in milliseconds since 1970, where that was written down.
    pub at_ms: Option<i64>,
    /// Whose journal tells it.
    pub daemon: String,
    /// In a word.
    pub what: &'static str,
    /// In a sentence.
    pub words: String,
}

/// A record and its place.
#[derive(Clone, Copy, Debug)]
struct Found {
    instance: u16,
    position: Position,
    record: PaymentRecord,
}

/// Who tells lives.
pub struct Lives {
    volume: Volume,
    /// One search at a time reads.
    reading: Arc<Semaphore>,
}

impl Lives {
    /// The lives of payments on this volume.
    #[must_use]
    pub fn new(volume: Volume) -> Self {
        Self { volume, reading: Arc::new(Semaphore::new(1)) }
    }

    /// The life of a payment. None where it was not accepted.
    ///
    /// # Errors
    /// See [`LifeError`].
    pub async fn tell(
        &self,
        store: &StoreLine,
        id: CorrelationId,
    ) -> Result<Option<Life>, LifeError> {
        let Some(telling) = store.look(id).await? else { return Ok(None) };
        let traces = store.trace(id).await?;
        let place = Arc::clone(&self.reading).acquire_owned().await.expect("nobody closes it");
        let volume = self.volume.clone();
        let reading = tokio::task::spawn_blocking(move || {
            // Kept to the end also where nobody waits for it any more.
            let _place = place;
            read(&volume, &traces, id)
        });
        let (found, is_whole) = reading.await.map_err(std::io::Error::from)??;
        Ok(Some(life(&telling, found, is_whole)))
    }
}

/// Reads all records of a payment in these segments, and tells whether these are all.
fn read(
    volume: &Volume,
    traces: &[Trace],
    id: CorrelationId,
) -> Result<(Vec<Found>, bool), LifeError> {
    let clock = Monotonic::start();
    let mut is_whole = traces.len() <= SEGMENTS_MAX;
    let mut found = Vec::new();
    'traces: for Trace { instance, from } in traces.iter().take(SEGMENTS_MAX).copied() {
        let path = volume.journal(instance);
        // A purge removes segments, and nothing makes the folder anew here.
        if !path.is_dir() {
            continue;
        }
        let disk = FolderDisk::create(path)?;
        let mut reader =
            JournalReader::new(disk, instance, from).under_boot(boot_id()).passing_lost_seals();
        while reader.position().segment == from.segment {
            if clock.elapsed() > READ_TIME_MAX {
                is_whole = false;
                break 'traces;
            }
            let count = reader.read(READ_RECORDS, |position, record| {
                if let Record::Payment(record) = record
                    && record.id == id
                    && position.segment == from.segment
                {
                    found.push(Found { instance, position, record: *record });
                }
            })?;
            if count < READ_RECORDS {
                break;
            }
        }
    }
    is_whole &= !leave_out_the_middle(&mut found);
    Ok((found, is_whole))
}

/// Sorts records by time, and leaves the middle out where there are too many: how a payment that was tried
/// for long has ended matters most.
fn leave_out_the_middle(found: &mut Vec<Found>) -> bool {
    sort(found);
    let too_many = found.len() > RECORDS_MAX;
    if too_many {
        found.drain(RECORDS_MAX / 2..found.len() - RECORDS_MAX / 2);
    }
    too_many
}

fn sort(found: &mut [Found]) {
    found.sort_by_key(|found| (found.record.written_at, found.instance, found.position));
}

fn life(telling: &PaymentRecord, mut found: Vec<Found>, is_whole: bool) -> Life {
    sort(&mut found);
    let (status, standing) = standing(&telling.event);
    Life {
        correlation_id: telling.id.to_string(),
        amount: telling.amount.to_string(),
        status,
        standing,
        steps: steps(&found),
        is_whole,
    }
}

fn standing(event: &Event) -> (&'static str, String) {
    match event {
        Event::Accepted | Event::Failed { .. } => {
            ("accepted", "It waits to be sent, and will be settled.".to_owned())
        }
        Event::Dispatched { processor, .. } => (
            "in_flight",
            format!(
                "It is being sent to {processor}, or {processor} is asked whether it has it. It \
                 goes nowhere else before that is known."
            ),
        ),
        Event::Settled { processor, requested_at } => {
            ("settled", format!("{processor} has it, under requestedAt {requested_at}."))
        }
        Event::Refused { .. } => ("refused", "Both processors refuse it for good.".to_owned()),
        // The record that tells most is none of these.
        Event::Duplicate => ("accepted", "Another record has the right to this id.".to_owned()),
    }
}

fn steps(found: &[Found]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (place, Found { instance, record, .. }) in found.iter().enumerate() {
        let before = &found[..place];
        let mut same = before.iter().rev().filter(|other| other.instance == *instance);
        let last = same.next().map(|other| other.record.event);
        let daemon = instance_name(*instance);
        let step = |at: Option<TimestampMs>, what, words| Step {
            at_ms: at.map(TimestampMs::get),
            daemon: daemon.clone(),
            what,
            words,
        };
        if matches!(
            (last, record.event),
            (Some(Event::Accepted), Event::Dispatched { .. } | Event::Refused { .. })
        ) {
            let words = "The store decided that this record has the right to the id. When is not \
                         written down.";
            steps.push(step(None, "decided", words.to_owned()));
        }
        let (what, words) = match record.event {
            Event::Accepted => (
                "accepted",
                "Taken in. Its client is answered 202 once this is written.".to_owned(),
            ),
            Event::Dispatched { processor, requested_at } => {
                ("sent", sent(processor, requested_at, last))
            }
            Event::Failed { processor, status } => ("failed", failed(processor, status)),
            Event::Settled { processor, requested_at } => {
                ("settled", settled(processor, requested_at, *instance, before))
            }
            Event::Refused { processor, status } => (
                "refused",
                format!("Refused for good: {processor} answered {status}, and the other one too."),
            ),
            Event::Duplicate => (
                "duplicate",
                "Closed: another record has the right to this id, so this one is not sent."
                    .to_owned(),
            ),
        };
        steps.push(step(Some(record.written_at), what, words));
    }
    steps
}

fn sent(processor: Processor, requested_at: TimestampMs, last: Option<Event>) -> String {
    match last {
        // Nothing has said meanwhile what became of that call.
        Some(Event::Dispatched { .. }) => format!(
            "In doubt: whether {processor} had it was not known, so it was sent there again, under \
             requestedAt {requested_at}."
        ),
        _ => format!("Sent to {processor}, under requestedAt {requested_at}."),
    }
}

fn failed(processor: Processor, status: u16) -> String {
    match status {
        0 => format!(
            "No connection to {processor} could be made, so it does not have it. Free to be sent \
             again."
        ),
        status => {
            format!("{processor} answered {status}, so it does not have it. Free to be sent again.")
        }
    }
}

fn settled(
    processor: Processor,
    requested_at: TimestampMs,
    instance: u16,
    before: &[Found],
) -> String {
    if instance == RESTORED_INSTANCE {
        return format!(
            "Settled: {processor} has it, under requestedAt {requested_at}. Restored from the \
             archive, which knows nothing of what went before."
        );
    }
    let is_last_call = before.iter().rev().find_map(|other| match other.record.event {
        Event::Dispatched { requested_at: sent, .. } => Some(sent == requested_at),
        _ => None,
    });
    match is_last_call {
        Some(false) => format!(
            "Settled: {processor} has it by an earlier call, under requestedAt {requested_at}."
        ),
        _ => format!("Settled: {processor} has it, under requestedAt {requested_at}."),
    }
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
