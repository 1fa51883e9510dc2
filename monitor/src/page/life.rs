//! The life of a payment: every record that the journals have of it, in order, and in words.
//!
//! The store says in which segments they lie, and the monitor reads those itself: nothing waits for it.
//! What no record has the time of, such as the store's decision, is told without one.

use std::collections::BTreeMap;
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
use tokio::time::timeout;

use super::ask::{AskError, StoreLine};

/// Segments that are read for one payment.
const SEGMENTS_MAX: usize = 8;

/// Records of one payment that are told: half of them the first ones, and half the last.
const RECORDS_MAX: usize = 100;

/// How long the reading may take; what was not read then is told as missing.
const READ_TIME_MAX: Duration = Duration::from_secs(3);

/// How long a search may wait for another one.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Records that are read at a time.
const READ_RECORDS: usize = 8192;

/// Why a life cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// The store does not say where it is.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Others are looked for.
    #[error("another payment is being looked for; ask again in a moment")]
    Busy,
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
    /// Whether that is all that there is, as far as the journals can be read.
    pub is_whole: bool,
    /// Why not, a sentence for each place where they cannot.
    pub unread: Vec<String>,
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

/// What was read.
#[derive(Default)]
struct Search {
    found: Vec<Found>,
    /// Whether there was room and time for all of it.
    is_whole: bool,
    /// Why places cannot be read.
    unread: Vec<String>,
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

    /// The life of a payment. None where it was not accepted. Must be called on a
    /// [`tokio::runtime::LocalRuntime`].
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
        let place = timeout(WAIT_MAX, Arc::clone(&self.reading).acquire_owned()).await;
        let place = place.map_err(|_| LifeError::Busy)?.expect("nobody closes it");
        let volume = self.volume.clone();
        let reading = tokio::task::spawn_blocking(move || {
            // Kept to the end also where nobody waits for it any more.
            let _place = place;
            read(&volume, &traces, id)
        });
        let search = reading.await.map_err(std::io::Error::from)?;
        for why in &search.unread {
            tracing::warn!("a part of the life of {id} cannot be told: {why}");
        }
        Ok(Some(life(&telling, search)))
    }
}

/// Reads all records of a payment in these segments, and tells whether these are all. What cannot be read
/// keeps nothing else from being told.
fn read(volume: &Volume, traces: &[Trace], id: CorrelationId) -> Search {
    let clock = Monotonic::start();
    let mut search = Search { is_whole: traces.len() <= SEGMENTS_MAX, ..Search::default() };
    for trace in traces.iter().take(SEGMENTS_MAX) {
        match read_segment(volume, *trace, id, &clock, &mut search.found) {
            Ok(is_whole) => search.is_whole &= is_whole,
            Err(why) => {
                let name = instance_name(trace.instance);
                search.unread.push(format!("{name}: {why}"));
            }
        }
    }
    search.is_whole &= !leave_out_the_middle(&mut search.found);
    search
}

/// Reads the records of a payment in a segment, and tells whether there was time for all of them.
fn read_segment(
    volume: &Volume,
    Trace { instance, from }: Trace,
    id: CorrelationId,
    clock: &Monotonic,
    found: &mut Vec<Found>,
) -> Result<bool, JournalError> {
    let path = volume.journal(instance);
    // A purge removes segments, and nothing makes the folder anew here.
    if !path.is_dir() {
        return Ok(true);
    }
    let shown = path.display().to_string();
    let disk = FolderDisk::create(path).map_err(JournalError::io("open", shown))?;
    let mut reader =
        JournalReader::new(disk, instance, from).under_boot(boot_id()).passing_lost_seals();
    while reader.position().segment == from.segment {
        if clock.elapsed() > READ_TIME_MAX {
            return Ok(false);
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
    Ok(true)
}

/// Puts records in order, and leaves the middle out where there are too many: how a payment that was tried
/// for long has ended matters most.
fn leave_out_the_middle(found: &mut Vec<Found>) -> bool {
    *found = in_order(found);
    let too_many = found.len() > RECORDS_MAX;
    if too_many {
        found.drain(RECORDS_MAX / 2..found.len() - RECORDS_MAX / 2);
    }
    too_many
}

/// The records as they were written: those of one journal by their places, because a clock may go back; and
/// of several journals next the one whose time is the earliest, because nothing else is known.
fn in_order(found: &[Found]) -> Vec<Found> {
    let mut journals = BTreeMap::<u16, BTreeMap<Position, Found>>::new();
    for record in found {
        journals.entry(record.instance).or_default().insert(record.position, *record);
    }
    let mut journals: Vec<_> =
        journals.into_values().map(|records| records.into_values().peekable()).collect();
    std::iter::from_fn(|| {
        let fronts = journals.iter_mut().enumerate().filter_map(|(number, records)| {
            records.peek().map(|front| (front.record.written_at, number))
        });
        let (_, number) = fronts.min()?;
        journals[number].next()
    })
    .collect()
}

/// The life of a payment, from what the store says of it and what was read, in order.
fn life(telling: &PaymentRecord, search: Search) -> Life {
    let (status, standing) = standing(&telling.event);
    Life {
        correlation_id: telling.id.to_string(),
        amount: telling.amount.to_string(),
        status,
        standing,
        steps: steps(&search.found),
        is_whole: search.is_whole,
        unread: search.unread,
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
