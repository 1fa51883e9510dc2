//! The archive's work: connect, see how far the archive is, and write what follows, until the store
//! ends. Whatever fails for a while is tried again, with growing pauses; what does not pass ends it.
//!
//! Invariant: a batch that was sent and not confirmed is never judged by the error. The next connection
//! reads the places first, and they say whether it was written.

use std::sync::Arc;
use std::time::Duration;

use ledger::clock::Monotonic;
use ledger::disk::folder::FolderDisk;
use ledger::volume::Volume;
use tokio::sync::watch;
use tokio::time::timeout;

use super::connection::{Connecting, STEP_PATIENCE, within};
use super::error::ArchiveError;
use super::journals::{BATCH_PAYMENTS, Batch, Journals, Outcome};
use super::progress::Progress;
use super::tables::{Standing, Tables};
use super::{identity, schema};
use crate::claims::{Purged, read_purge_number, read_purged};

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

/// The archive of a volume, as its thread does it.
pub struct Follower {
    volume: Volume,
    boot_id: [u8; 16],
    connecting: Connecting,
    stop: watch::Receiver<bool>,
    progress: Arc<Progress>,
    pauses: Pauses,
    journals: Option<Journals>,
    /// What was read, and is not known to be archived.
    pending: Option<Batch>,
    /// Since when the database is away.
    away: Option<Monotonic>,
}

/// Pauses between attempts.
struct Pauses {
    next: Duration,
    random: fastrand::Rng,
}

impl Pauses {
    fn new(random: fastrand::Rng) -> Self {
        Self { next: PAUSE_MIN, random }
    }

    /// The next pause.
    fn take(&mut self) -> Duration {
        let pause = self.next.mul_f64(1.0 - PAUSE_JITTER * self.random.f64());
        self.next = (self.next * 2).min(PAUSE_MAX);
        pause
    }

    fn reset(&mut self) {
        self.next = PAUSE_MIN;
    }
}

impl Follower {
    /// The archive of this volume in that database.
    pub fn new(
        volume: Volume,
        boot_id: [u8; 16],
        connecting: Connecting,
        stop: watch::Receiver<bool>,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            volume,
            boot_id,
            connecting,
            stop,
            progress,
            pauses: Pauses::new(fastrand::Rng::new()),
            journals: None,
            pending: None,
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
        let mut tables = Tables::new(identity::of(&self.volume)?);
        let mut purged = self.purged()?;
        let mut standing = within("tell how far its archive is", STEP_PATIENCE, async {
            schema::migrate(client).await?;
            tables.take_up(client, purged.number).await
        })
        .await?;
        loop {
            if *self.stop.borrow() {
                return Ok(());
            }
            if purged.number != standing.purge {
                if standing.purge > purged.number {
                    return Err(ArchiveError::Ahead(format!(
                        "purge {}, and the volume's last one is {}",
                        standing.purge, purged.number
                    )));
                }
                within("carry out a purge", STEP_PATIENCE, async {
                    tables.purge(client, standing.purge, purged.number, &purged.cuts).await
                })
                .await?;
                tracing::info!("the archive was emptied by purge {}", purged.number);
                standing = Standing { purge: purged.number, places: purged.cuts.clone() };
                (self.journals, self.pending) = (None, None);
            }
            let step = self.read(&standing, &purged);
            // A purge removes what it made void, also while that is read.
            let number = self.purge_number()?;
            if number != purged.number {
                purged = self.purged()?;
                continue;
            }
            step?;
            let Some(batch) = &self.pending else {
                self.progress.set_behind(0);
                self.note_connected();
                if client.is_closed() {
                    return Err(ArchiveError::Database {
                        action: "keep the connection",
                        why: "it was closed".to_owned(),
                    });
                }
                if self.stops_within(BATCH_INTERVAL).await {
                    return Ok(());
                }
                continue;
            };
            let is_full = batch.payments.len() >= BATCH_PAYMENTS;
            within("take a batch of payments", STEP_PATIENCE, async {
                tables.write(client, standing.purge, batch).await
            })
            .await?;
            self.note_written();
            if !is_full && self.stops_within(BATCH_INTERVAL).await {
                return Ok(());
            }
        }
    }

    /// Reads the next batch, if none is under way, or finds out what became of the one that is.
    fn read(&mut self, standing: &Standing, purged: &Purged) -> Result<(), ArchiveError> {
        if let Some(batch) = &self.pending {
            return match batch.outcome(&standing.places) {
                Outcome::NotWritten => Ok(()),
                Outcome::Written => {
                    self.note_written();
                    Ok(())
                }
                Outcome::Neither => Err(ArchiveError::TakenOver(batch.describe_start())),
            };
        }
        let journals = match &mut self.journals {
            Some(journals) => journals,
            none => none.insert(Journals::open(
                &self.volume,
                self.boot_id,
                purged.cuts.clone(),
                &standing.places,
            )?),
        };
        let batch = journals.read()?;
        self.pending = (!batch.payments.is_empty()).then_some(batch);
        Ok(())
    }

    fn purge_number(&self) -> Result<u64, ArchiveError> {
        Ok(read_purge_number(&self.store_disk()?)?)
    }

    fn purged(&self) -> Result<Purged, ArchiveError> {
        Ok(read_purged(&self.store_disk()?)?)
    }

    fn store_disk(&self) -> Result<FolderDisk, ArchiveError> {
        let path = self.volume.store();
        FolderDisk::create(&path).map_err(ArchiveError::io("open", path))
    }

    /// Waits, and tells whether it was told to stop meanwhile.
    async fn stops_within(&mut self, time: Duration) -> bool {
        timeout(time, self.stop.wait_for(|stop| *stop)).await.is_ok()
    }

    /// Takes in that the batch under way is archived.
    fn note_written(&mut self) {
        let Some(batch) = self.pending.take() else { return };
        self.progress.add_archived(batch.payments.len());
        if let Some(journals) = &mut self.journals {
            journals.archived(&batch);
        }
        self.note_behind();
        self.note_connected();
    }

    fn note_connected(&mut self) {
        self.pauses.reset();
        let behind_bytes = self.progress.behind_bytes();
        match self.away.take() {
            Some(away) => tracing::info!(
                behind_bytes,
                "the archive's database is back after {} s",
                away.elapsed().as_secs()
            ),
            None if !self.progress.is_connected() => {
                tracing::info!(behind_bytes, "settled payments are archived");
            }
            None => {}
        }
        self.progress.set_connected(true);
    }

    fn note_away(&mut self, error: &ArchiveError) {
        self.note_behind();
        self.progress.set_connected(false);
        if self.away.is_none() {
            tracing::warn!(
                behind_bytes = self.progress.behind_bytes(),
                "nothing is archived: {error}. It is tried again until that is over"
            );
            self.away = Some(Monotonic::start());
        } else {
            tracing::debug!("still nothing is archived: {error}");
        }
    }

    fn note_behind(&self) {
        // Where a journal cannot be looked at, the next read of it says so.
        if let Some(Ok(bytes)) = self.journals.as_ref().map(Journals::behind_bytes) {
            self.progress.set_behind(bytes);
        }
    }
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
