//! The restore: an empty volume that gets every payment of an archive, as the journal of an instance of
//! its own ([`RESTORED_INSTANCE`]) that has a `Settled` record for each.
//!
//! Invariant: the volume has all of the archive, or no journal at all. The journal is written aside and
//! takes its place by one rename, after it is synced and the database knows the volume as the one whose
//! archive it has. So wherever a restore ends early, it can be made again.

mod progress;
mod settings;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ledger::daemon::{EXIT_DATA, EXIT_SOFTWARE, boot_id, create_files_privately, start_logging};
use ledger::disk::Disk;
use ledger::disk::folder::FolderDisk;
use ledger::journal::{
    Event, Journal, JournalConfig, PaymentRecord, Position, SEGMENT_BYTES_DEFAULT,
};
use ledger::volume::{RESTORED_INSTANCE, Volume};
use ledger::{Cents, CorrelationId, Processor, TimestampMs, clock};
use progress::RestoreProgress;
pub use settings::RestoreSettings;
use tokio::runtime::Builder;
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use crate::archive::connection::{Connecting, STEP_PATIENCE, within};
use crate::archive::error::ArchiveError;
use crate::archive::tables::{column, set_places};
use crate::archive::{identity, schema};

/// The folder in which the journal is written, beside those of the instances.
const UNFINISHED_NAME: &str = "restoring";
/// What a store leaves behind: without its journals it is of another volume.
const CLAIM_LOG_NAME: &str = "claims.log";
/// The size of a segment: as many payments as in an API's, which has three records for each, because the
/// store keeps the ids of a whole segment in memory until they are indexed.
const SEGMENT_BYTES: u64 = SEGMENT_BYTES_DEFAULT / 3;
/// Payments that are fetched and written at a time.
const FETCH_PAYMENTS: i32 = 8192;
/// How long the database may take to count all payments, and to sort them before it gives the first.
const SORT_PATIENCE: Duration = Duration::from_hours(1);
/// Memory for that; the rest is sorted on its disk.
const SORT_MEMORY: &str = "64MB";

/// All payments in the order in which they were settled: then each part of the store's views is written
/// to once.
const QUERY: &str = "SELECT correlation_id, (amount * 100)::bigint, processor, \
     (extract(epoch FROM requested_at) * 1000)::bigint, \
     (extract(epoch FROM settled_at) * 1000)::bigint \
     FROM payments ORDER BY settled_at, correlation_id";

/// Runs the restore.
#[must_use]
pub fn main(settings: &RestoreSettings) -> ExitCode {
    start_logging(settings.log);
    create_files_privately();
    let volume = settings.volume();
    match Connecting::new(&settings.from, settings.archive_ca.as_deref())
        .and_then(|connecting| restore(&volume, &connecting))
    {
        Ok(Restored { payments_count, seconds }) => {
            tracing::info!(
                "{payments_count} payments are restored in {seconds:.1} s; the router can be started \
                 on {}",
                volume.root().display()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("nothing is restored: {error}");
            ExitCode::from(if error.is_damage() { EXIT_DATA } else { EXIT_SOFTWARE })
        }
    }
}

/// What was restored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Restored {
    /// Payments.
    pub payments_count: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Makes an empty volume that has every payment of the archive in that database.
///
/// # Errors
/// The volume is not empty, or the database has no archive, or either refuses. The volume is empty then.
pub fn restore(volume: &Volume, connecting: &Connecting) -> Result<Restored, ArchiveError> {
    let path = volume.store();
    let store = FolderDisk::create(&path).map_err(ArchiveError::io("create", &path))?;
    let _lock = store.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => ArchiveError::InUse { path: path.clone() },
        _ => ArchiveError::io("lock", &path)(error),
    })?;
    volume.create().map_err(ArchiveError::io("create", volume.root()))?;
    check_empty(volume)?;
    let unfinished = volume.journals().join(UNFINISHED_NAME);
    remove_unfinished(&unfinished)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ArchiveError::io("start a runtime for", volume.root()))?;
    let restored = runtime.block_on(copy(volume, connecting, &unfinished));
    if restored.is_err() {
        remove_unfinished(&unfinished)?;
    }
    let restored = restored?;
    let place = volume.journal(RESTORED_INSTANCE);
    fs::rename(&unfinished, &place)
        .and_then(|()| fs::File::open(volume.journals())?.sync_all())
        .map_err(ArchiveError::io("put in its place", place))?;
    Ok(restored)
}

/// Checks that nothing was ever taken in on the volume.
fn check_empty(volume: &Volume) -> Result<(), ArchiveError> {
    let instances = volume.instances().map_err(ArchiveError::io("read", volume.journals()))?;
    if let Some(instance) = instances.first() {
        return Err(ArchiveError::NotEmpty { path: volume.journal(*instance) });
    }
    let path = volume.store().join(CLAIM_LOG_NAME);
    if path.exists() { Err(ArchiveError::NotEmpty { path }) } else { Ok(()) }
}

fn remove_unfinished(path: &Path) -> Result<(), ArchiveError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ArchiveError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Writes the journal aside, synced, and lets the archive be that of this volume.
async fn copy(
    volume: &Volume,
    connecting: &Connecting,
    unfinished: &Path,
) -> Result<Restored, ArchiveError> {
    let mut connection = connecting.connect().await?;
    let client = &mut connection.client;
    within("tell whether it has an archive", STEP_PATIENCE, async {
        if schema::is_there(client).await? {
            schema::migrate(client, &schema::ARCHIVE).await
        } else {
            Err(ArchiveError::NoArchive)
        }
    })
    .await?;
    let failed = ArchiveError::sql("give what it has archived");
    let transaction = client.transaction().await.map_err(&failed)?;
    let payments_count =
        within("give what it has archived", SORT_PATIENCE, hold(&transaction)).await?;
    let mut progress = RestoreProgress::start(payments_count);
    let mut writing = Writing::begin(unfinished)?;
    let statement = transaction.prepare(QUERY).await.map_err(&failed)?;
    let portal = transaction.bind(&statement, &[]).await.map_err(&failed)?;
    loop {
        let rows = within("give what it has archived", SORT_PATIENCE, async {
            transaction.query_portal(&portal, FETCH_PAYMENTS).await.map_err(&failed)
        })
        .await?;
        if rows.is_empty() {
            break;
        }
        writing.write(&rows)?;
        progress.show(writing.payments_count);
    }
    let (payments_count, end) = writing.finish()?;
    let id = identity::begin_anew(volume)?;
    within("become the archive of this volume", STEP_PATIENCE, async {
        hand_over(&transaction, id, end).await?;
        transaction.commit().await.map_err(ArchiveError::sql("become the archive of this volume"))
    })
    .await?;
    Ok(Restored { payments_count, seconds: progress.end() })
}

/// Keeps every store from archiving until the transaction ends, and counts what there is.
async fn hold(transaction: &Transaction<'_>) -> Result<u64, ArchiveError> {
    let failed = ArchiveError::sql("give what it has archived");
    let limits = format!(
        "SET LOCAL statement_timeout = {}; SET LOCAL work_mem = '{SORT_MEMORY}'; \
         SET LOCAL idle_in_transaction_session_timeout = 0",
        SORT_PATIENCE.as_millis()
    );
    transaction.batch_execute(&limits).await.map_err(&failed)?;
    let held =
        transaction.query_opt("SELECT FROM archive FOR UPDATE", &[]).await.map_err(&failed)?;
    if held.is_none() {
        return Err(ArchiveError::NoArchive);
    }
    let row = transaction.query_one("SELECT count(*) FROM payments", &[]).await.map_err(failed)?;
    Ok(u64::try_from(column::<i64>(&row, 0)?).expect("a count is not negative"))
}

/// Lets the archive be that of this volume, of which it has the restored journal up to here.
async fn hand_over(
    transaction: &Transaction<'_>,
    volume: Uuid,
    end: Position,
) -> Result<(), ArchiveError> {
    transaction
        .execute("UPDATE archive SET volume = $1, purge = 0", &[&volume])
        .await
        .map_err(ArchiveError::sql("become the archive of this volume"))?;
    set_places(transaction, &BTreeMap::from([(RESTORED_INSTANCE, end)])).await
}

/// The journal that is written.
struct Writing {
    journal: Journal<FolderDisk>,
    records: Vec<PaymentRecord>,
    payments_count: u64,
    /// The segment up to which it is synced.
    synced_segment: u32,
}

impl Writing {
    fn begin(path: &Path) -> Result<Self, ArchiveError> {
        let disk = FolderDisk::create(path).map_err(ArchiveError::io("create", path))?;
        let config = JournalConfig {
            instance: RESTORED_INSTANCE,
            segment_bytes: SEGMENT_BYTES,
            boot_id: boot_id(),
        };
        let (journal, _) = Journal::open(disk, config, clock::now(), |_, _| ())?;
        let synced_segment = journal.end().segment;
        Ok(Self { journal, records: Vec::new(), payments_count: 0, synced_segment })
    }

    /// Writes what was fetched. A segment that is full is synced, so that few files are open.
    fn write(&mut self, rows: &[Row]) -> Result<(), ArchiveError> {
        self.records.clear();
        for row in rows {
            self.records.push(record(row)?);
        }
        let mut rest = &self.records[..];
        while !rest.is_empty() {
            // Nothing is ever open in this journal.
            let oldest_open = self.journal.end().segment;
            let appended = self.journal.append(rest, oldest_open, clock::now());
            if let Some(error) = appended.error {
                return Err(error.into());
            }
            rest = &rest[appended.count..];
        }
        if self.journal.end().segment > self.synced_segment {
            self.sync()?;
        }
        self.payments_count += rows.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), ArchiveError> {
        let job = self.journal.take_unsynced();
        job.run()?;
        self.journal.synced(job.through());
        self.synced_segment = job.through().segment;
        Ok(())
    }

    /// Seals and syncs the journal, and gives its payments and its end.
    fn finish(mut self) -> Result<(u64, Position), ArchiveError> {
        self.journal.rotate(self.journal.end().segment, clock::now())?;
        self.sync()?;
        Ok((self.payments_count, self.journal.end()))
    }
}

/// The record of a payment.
fn record(row: &Row) -> Result<PaymentRecord, ArchiveError> {
    let id = CorrelationId::from_bytes(column::<Uuid>(row, 0)?.into_bytes());
    let amount = Cents::new(column(row, 1)?);
    let processor = Processor::from_name(column(row, 2)?);
    let (requested_at, written_at) =
        (TimestampMs::new(column(row, 3)?), TimestampMs::new(column(row, 4)?));
    match (processor, requested_at, written_at) {
        (Some(processor), Some(requested_at), Some(written_at)) if amount.is_payment_amount() => {
            let event = Event::Settled { processor, requested_at };
            Ok(PaymentRecord { id, amount, written_at, event })
        }
        _ => Err(ArchiveError::Nonsense(id.to_string())),
    }
}
