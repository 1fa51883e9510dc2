//! The archive's work: connect, see how far the archive is, and write what follows, until the store
//! ends. Whatever fails for a while is tried again, with growing pauses; what does not pass ends it.
//!
//! Invariant: a batch that was sent and not confirmed is never judged by the error. Each connection reads
//! the places first and begins there, with readers of its own, as after a start. So whatever broke off
//! the one before, nothing that it had read is skipped or repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ledger::clock::Monotonic;
use ledger::disk::Disk;
use ledger::disk::folder::FolderDisk;
use ledger::journal::Position;
use ledger::volume::Volume;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::Client;
use uuid::Uuid;

use super::connection::{Connecting, STEP_PATIENCE, within};
use super::error::ArchiveError;
use super::journals::{BATCH_PAYMENTS, Batch, Journals, behind_bytes};
use super::progress::Progress;
use super::reached::Reached;
use super::tables::{Standing, Tables};
use super::{identity, schema};
use crate::claims::{Purged, read_purge_number, read_purged};
use crate::shared::tables::Writer;
use crate::shared::{self, SharedError};

/// How often the journals are looked at once they are archived. What was settled in this time is
/// written together.
const BATCH_INTERVAL: Duration = Duration::from_millis(200);
/// The pause after the first attempt that failed; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The part of a pause that is drawn at random, so that not all clients of a database that is back come
/// at once.
const PAUSE_JITTER: f64 = 0.5;
/// So many different reasons are warned of while the database is away; of more there is no end.
const REASONS_MAX: usize = 16;

/// Where payments are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The archive of one volume.
    Archive,
    /// The ledger that several machines share, as this store, see [`crate::shared`].
    Ledger {
        /// The store that holds the volume.
        holder: Uuid,
    },
}

impl Target {
    /// What happens to payments.
    #[must_use]
    pub fn done(self) -> &'static str {
        match self {
            Self::Archive => "archived",
            Self::Ledger { .. } => "written to the ledger",
        }
    }

    /// What a purge did there.
    #[must_use]
    fn purged(self) -> &'static str {
        match self {
            Self::Archive => "has emptied the archive",
            Self::Ledger { .. } => "has taken what it had settled out of the ledger",
        }
    }

    /// Its tables.
    #[must_use]
    pub fn versions(self) -> &'static schema::Tables {
        match self {
            Self::Archive => &schema::ARCHIVE,
            Self::Ledger { .. } => &shared::tables::VERSIONS,
        }
    }

    /// What an error means for it, with what to do.
    #[must_use]
    pub fn reason(self, error: ArchiveError) -> String {
        match self {
            Self::Archive => error.to_string(),
            Self::Ledger { .. } => SharedError::from(error).to_string(),
        }
    }

    /// What it means that nothing is.
    #[must_use]
    pub fn consequence(self) -> &'static str {
        match self {
            Self::Archive => "Payments and summaries go on",
            Self::Ledger { .. } => "Summaries on other machines lack what is settled here",
        }
    }
}

/// The tables of a target.
enum Writing {
    Archive(Tables),
    Ledger(Writer),
}

impl Writing {
    async fn take_up(&self, client: &mut Client, purge: u64) -> Result<Standing, ArchiveError> {
        match self {
            Self::Archive(tables) => tables.take_up(client, purge).await,
            Self::Ledger(writer) => writer.take_up(client).await,
        }
    }

    async fn write(
        &mut self,
        client: &mut Client,
        purge: u64,
        batch: &Batch,
    ) -> Result<(), ArchiveError> {
        match self {
            Self::Archive(tables) => tables.write(client, purge, batch).await,
            Self::Ledger(writer) => writer.write(client, purge, batch).await,
        }
    }

    async fn purge(
        &self,
        client: &mut Client,
        before: u64,
        purge: u64,
        cuts: &BTreeMap<u16, Position>,
    ) -> Result<(), ArchiveError> {
        match self {
            Self::Archive(tables) => {
                let purging = tables.purge(client, before, purge, cuts);
                within("carry out a purge", STEP_PATIENCE, purging).await
            }
            Self::Ledger(writer) => writer.purge(client, before, purge, cuts).await,
        }
    }
}

/// The archive of a volume, as its thread does it.
pub struct Follower {
    volume: Volume,
    boot_id: [u8; 16],
    connecting: Connecting,
    target: Target,
    stop: watch::Receiver<bool>,
    progress: Arc<Progress>,
    pauses: Pauses,
    /// How far the archive is. Nobody knows before the first connection.
    reached: Option<Reached>,
    /// That nothing is archived.
    away: Option<Away>,
}

/// Since when nothing is archived, and why.
struct Away {
    since: Monotonic,
    /// What was warned of.
    reasons: BTreeSet<String>,
}

/// Why the journals are not followed any further over a connection that is good.
enum Followed {
    /// There was another purge.
    UntilPurge,
    /// It was told to stop.
    UntilStop,
}

/// Pauses between attempts.
pub struct Pauses {
    next: Duration,
    random: fastrand::Rng,
}

impl Pauses {
    /// From the shortest on.
    #[must_use]
    pub fn new(random: fastrand::Rng) -> Self {
        Self { next: PAUSE_MIN, random }
    }

    /// The next pause.
    pub fn take(&mut self) -> Duration {
        let pause = self.next.mul_f64(1.0 - PAUSE_JITTER * self.random.f64());
        self.next = (self.next * 2).min(PAUSE_MAX);
        pause
    }

    /// Begins with the shortest again.
    pub fn reset(&mut self) {
        self.next = PAUSE_MIN;
    }
}

impl Follower {
    /// The archive of this volume in that database.
    pub fn new(
        volume: Volume,
        boot_id: [u8; 16],
        connecting: Connecting,
        target: Target,
        stop: watch::Receiver<bool>,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            volume,
            boot_id,
            connecting,
            target,
            stop,
            progress,
            pauses: Pauses::new(fastrand::Rng::new()),
            reached: None,
            away: None,
        }
    }

    /// Archives until it is told to stop.
    ///
    /// # Errors
    /// What does not pass.
    pub async fn run(mut self) -> Result<(), ArchiveError> {
        let result = loop {
            match self.session().await {
                Ok(()) => break Ok(()),
                Err(error) if error.is_passing() => self.note_away(&error),
                Err(error) => break Err(error),
            }
            let pause = self.pauses.take();
            if self.stops_within(pause).await {
                break Ok(());
            }
        };
        self.progress.set_connected(false);
        result
    }

    /// Archives over one connection. It ends well when it is told to stop.
    async fn session(&mut self) -> Result<(), ArchiveError> {
        let mut stop = self.stop.clone();
        let connected = tokio::select! {
            connected = self.connecting.connect() => connected,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        let mut connection = connected?;
        let client = &mut connection.client;
        let volume = identity::of(&self.volume)?;
        let mut tables = match self.target {
            Target::Archive => Writing::Archive(Tables::new(volume)),
            Target::Ledger { holder } => Writing::Ledger(Writer::new(volume, holder)),
        };
        let versions = self.target.versions();
        within("make the tables", STEP_PATIENCE, schema::migrate(client, versions)).await?;
        while !*stop.borrow() {
            let purged = self.purged()?;
            let places = self.take_up(client, &tables, &purged).await?;
            match self.follow(client, &mut tables, &purged, &places).await? {
                Followed::UntilPurge => {}
                Followed::UntilStop => break,
            }
        }
        Ok(())
    }

    /// Finds out how far the archive is, and carries out the volume's last purge there.
    async fn take_up(
        &mut self,
        client: &mut Client,
        tables: &Writing,
        purged: &Purged,
    ) -> Result<BTreeMap<u16, Position>, ArchiveError> {
        let standing =
            within("tell how far it is", STEP_PATIENCE, tables.take_up(client, purged.number))
                .await?;
        let (theirs, ours) = (standing.purge, purged.number);
        if theirs > ours {
            return Err(ArchiveError::PurgedBeyond { theirs, ours });
        }
        let reached = match &mut self.reached {
            Some(reached) => {
                reached.take_up(standing.places)?;
                reached
            }
            none => none.insert(Reached::at(standing.places)),
        };
        if theirs < ours {
            // What is carried out there must not be undone here by a power cut.
            let path = self.volume.store();
            store_disk(&self.volume)?.sync().map_err(ArchiveError::io("sync", path))?;
            reached.send_purge(&purged.cuts);
            tables.purge(client, theirs, ours, &purged.cuts).await?;
            reached.purged(&purged.cuts);
            tracing::info!("purge {ours} of this volume {}", self.target.purged());
        }
        self.progress.set_purged(ours);
        Ok(reached.places().clone())
    }

    /// Writes what follows these places as it comes.
    async fn follow(
        &mut self,
        client: &mut Client,
        tables: &mut Writing,
        purged: &Purged,
        places: &BTreeMap<u16, Position>,
    ) -> Result<Followed, ArchiveError> {
        let mut journals = None;
        loop {
            if *self.stop.borrow() {
                return Ok(Followed::UntilStop);
            }
            let read_at_ms = self.progress.now_ms();
            let batch = self.read(&mut journals, purged, places);
            // A purge removes what it made void, also while that is read.
            if self.purge_number()? != purged.number {
                return Ok(Followed::UntilPurge);
            }
            let batch = batch?;
            if batch.payments.is_empty() {
                self.progress.set_behind(0);
                self.note_connected();
                if client.is_closed() {
                    return Err(ArchiveError::Database {
                        action: "keep the connection",
                        why: "it was closed".to_owned(),
                    });
                }
            } else {
                if let Some(reached) = &mut self.reached {
                    reached.send(&batch);
                }
                within("take a batch of payments", STEP_PATIENCE, async {
                    tables.write(client, purged.number, &batch).await
                })
                .await?;
                self.note_written(&batch);
                if let Some(journals) = &mut journals {
                    journals.archived(&batch);
                }
            }
            if batch.payments.len() < BATCH_PAYMENTS {
                self.progress.set_whole(read_at_ms);
                if self.stops_within(BATCH_INTERVAL).await {
                    return Ok(Followed::UntilStop);
                }
            }
        }
    }

    /// Reads the next batch.
    fn read(
        &self,
        journals: &mut Option<Journals>,
        purged: &Purged,
        places: &BTreeMap<u16, Position>,
    ) -> Result<Batch, ArchiveError> {
        let journals = match journals {
            Some(journals) => journals,
            none => {
                let cuts = purged.cuts.clone();
                none.insert(Journals::open(&self.volume, self.boot_id, cuts, places)?)
            }
        };
        journals.read()
    }

    fn purge_number(&self) -> Result<u64, ArchiveError> {
        Ok(read_purge_number(&store_disk(&self.volume)?)?)
    }

    fn purged(&self) -> Result<Purged, ArchiveError> {
        let mut purged = read_purged(&store_disk(&self.volume)?)?;
        // A journal that is away has no place.
        let there =
            self.volume.instances().map_err(ArchiveError::io("read", self.volume.journals()))?;
        purged.cuts.retain(|instance, _| there.contains(instance));
        Ok(purged)
    }

    /// Waits, and tells whether it was told to stop meanwhile.
    async fn stops_within(&mut self, time: Duration) -> bool {
        timeout(time, self.stop.wait_for(|stop| *stop)).await.is_ok()
    }

    /// Takes in that a batch is archived.
    fn note_written(&mut self, batch: &Batch) {
        self.progress.add_archived(batch.payments.len());
        if let Some(reached) = &mut self.reached {
            reached.written();
        }
        self.note_behind();
        self.note_connected();
    }

    fn note_connected(&mut self) {
        self.pauses.reset();
        let behind_bytes = self.progress.behind_bytes();
        let schema::Tables { whose, name: database, .. } = self.target.versions();
        match self.away.take() {
            Some(away) => tracing::info!(
                behind_bytes,
                %database,
                "{whose} database is back after {} s",
                away.since.elapsed().as_secs()
            ),
            None if !self.progress.is_connected() => {
                tracing::info!(behind_bytes, %database, "settled payments are {}", self.target.done());
            }
            None => {}
        }
        self.progress.set_connected(true);
    }

    fn note_away(&mut self, error: &ArchiveError) {
        self.note_behind();
        self.progress.set_connected(false);
        let Away { reasons, .. } = self
            .away
            .get_or_insert_with(|| Away { since: Monotonic::start(), reasons: BTreeSet::new() });
        if reasons.len() < REASONS_MAX && reasons.insert(error.to_string()) {
            tracing::warn!(
                behind_bytes = self.progress.behind_bytes(),
                database = %self.target.versions().name,
                "nothing is {}: {error}. It is tried again until that is over",
                self.target.done()
            );
        } else {
            tracing::debug!("still nothing is {}: {error}", self.target.done());
        }
    }

    fn note_behind(&self) {
        let Some(reached) = &self.reached else { return };
        // Where a journal cannot be looked at, the next read of it says so.
        if let Ok(bytes) = behind_bytes(&self.volume, reached.places()) {
            self.progress.set_behind(bytes);
        }
    }
}

/// The folder of a volume's store.
///
/// # Errors
/// It cannot be opened.
pub fn store_disk(volume: &Volume) -> Result<FolderDisk, ArchiveError> {
    let path = volume.store();
    FolderDisk::create(&path).map_err(ArchiveError::io("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_begin_anew() {
        let mut pauses = Pauses::new(fastrand::Rng::with_seed(7));
        let taken: Vec<_> = (0..20).map(|_| pauses.take()).collect();
        for (pause, doublings) in taken.iter().zip(0..) {
            let longest = PAUSE_MAX.min(PAUSE_MIN * 2_u32.pow(doublings.min(10)));
            assert!(
                *pause <= longest && *pause >= longest.mul_f64(1.0 - PAUSE_JITTER),
                "{pause:?}"
            );
        }
        pauses.reset();
        assert!(pauses.take() <= PAUSE_MIN);
    }
}
