//! The archive: a PostgreSQL database that has every settled payment, written behind the journals.
//!
//! It is a thread of the store's process with readers of its own. It shares nothing with the store but
//! the files, so whatever happens to the database, payments and summaries go on. Nothing here runs
//! unless `--archive` is given.
//!
//! Invariant: the archive is what the journals say was settled up to the places that it names, each
//! payment once, to the cent and the millisecond. `docs/scale.md` says what follows from that.

pub mod connection;
pub mod error;
pub mod follow;
pub mod identity;
pub mod journals;
mod progress;
mod reached;
pub mod schema;
pub mod tables;
mod tls;
pub mod url;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ledger::volume::Volume;
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use connection::Connecting;
use error::ArchiveError;
use follow::{Follower, Target};
pub use progress::Progress;
use url::DatabaseUrl;

/// How long the end of the store waits for the batch under way. It is written or not; the next start
/// sees which.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// The archive's thread.
pub struct Archive {
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
    progress: Arc<Progress>,
}

impl Archive {
    /// Begins to archive a volume whose store's lock this process holds, in the database at this address.
    ///
    /// # Errors
    /// There is nobody to trust for TLS, or the operating system refuses a thread.
    pub fn start(
        volume: Volume,
        boot_id: [u8; 16],
        url: &DatabaseUrl,
        ca: Option<&Path>,
    ) -> Result<Self, ArchiveError> {
        let connecting = Connecting::new(url, ca)?;
        Self::follow(volume, boot_id, connecting, Target::Archive, Arc::default())
    }

    /// Begins to write what is settled on a volume whose store's lock this process holds to these tables, and
    /// to tell how far it is.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn follow(
        volume: Volume,
        boot_id: [u8; 16],
        connecting: Connecting,
        target: Target,
        progress: Arc<Progress>,
    ) -> Result<Self, ArchiveError> {
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let ending = Arc::clone(&progress);
        let (place, runtime_place) = (volume.store(), volume.store());
        let follower =
            Follower::new(volume, boot_id, connecting, target, stopped, Arc::clone(&progress));
        thread::Builder::new()
            .name("archive".to_owned())
            .spawn(move || {
                // Made here, because a runtime must not be dropped inside of another one.
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(ArchiveError::io("start a runtime for", runtime_place));
                match runtime.and_then(|runtime| runtime.block_on(follower.run())) {
                    Ok(()) => tracing::debug!("the archive ended"),
                    Err(error) => tracing::error!(
                        "nothing is {} any more: {}. {}",
                        target.done(),
                        target.reason(error),
                        target.consequence()
                    ),
                }
                ending.set_over();
                // Nobody may be waiting for it.
                let _ = end.send(());
            })
            .map_err(ArchiveError::io("start a thread for", place))?;
        Ok(Self { stop, ended, progress })
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Lets it end with the batch under way, and waits for that a short time.
    pub async fn end(self) {
        self.stop.send_replace(true);
        if timeout(END_PATIENCE, self.ended).await.is_err() {
            tracing::warn!(
                "the archive's database takes its time; what is not written is archived after the next \
                 start"
            );
        }
    }
}
