//! The thread that waits for the disk, so that the one that serves requests does not.

use std::io;

use crossbeam_channel::{Sender, bounded};
use ledger::disk::Disk;
use ledger::journal::{JournalError, Position, SyncJob};
use tokio::sync::oneshot;

/// A job, and who waits for it.
type Work<D> = (SyncJob<D>, oneshot::Sender<Result<(), JournalError>>);

/// The thread. It ends once its handle is dropped and its last job is done.
pub struct Syncer<D: Disk> {
    jobs: Sender<Work<D>>,
}

impl<D> Syncer<D>
where
    D: Disk + Send + 'static,
{
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn start() -> io::Result<Self> {
        let (jobs, jobs_of_thread) = bounded::<Work<D>>(1);
        std::thread::Builder::new().name("syncer".to_owned()).spawn(move || {
            for (job, done) in jobs_of_thread {
                // Whoever asked may have ended in the meantime.
                let _ = done.send(job.run());
            }
        })?;
        Ok(Self { jobs })
    }

    /// Makes what was appended survive a power cut, and gives the end of it.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn sync(&self, job: SyncJob<D>) -> Result<Position, JournalError> {
        let through = job.through();
        let (done, result) = oneshot::channel();
        self.jobs.send((job, done)).expect("the thread lives as long as its handle");
        result.await.expect("the thread answers every job").map(|()| through)
    }
}
