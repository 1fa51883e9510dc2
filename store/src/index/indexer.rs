//! The thread that writes the index of sealed segments to files: sorting half a million ids is too
//! long for a thread that answers questions.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use ledger::disk::Disk;

use super::open::OpenSegment;
use super::sealed::{IndexError, SealedSegment, SegmentKey};

/// One segment to be written.
pub struct IndexJob<D: Disk> {
    /// Which segment.
    pub key: SegmentKey,
    /// Its ids.
    pub segment: Arc<OpenSegment>,
    /// The folder of its journal.
    pub journal: D,
}

/// The thread, and what it has done.
pub struct Indexer<D: Disk> {
    jobs: Option<Sender<IndexJob<D>>>,
    done: Receiver<Result<(u16, SealedSegment<D>), IndexError>>,
    thread: Option<JoinHandle<()>>,
    pending_count: usize,
}

impl<D: Disk + Send + 'static> Indexer<D>
where
    D::File: Send,
{
    /// Starts the thread, which writes to this folder.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn start(disk: D) -> io::Result<Self> {
        let (jobs, jobs_of_thread) = unbounded::<IndexJob<D>>();
        let (done_of_thread, done) = unbounded();
        let thread = std::thread::Builder::new().name("indexer".to_owned()).spawn(move || {
            for job in jobs_of_thread {
                // Nobody listens any more once the store ends; the file is there all the same.
                let _ = done_of_thread.send(write(&disk, job));
            }
        })?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread), pending_count: 0 })
    }

    /// Hands a segment to the thread.
    pub fn submit(&mut self, job: IndexJob<D>) {
        let jobs = self.jobs.as_ref().expect("jobs are taken until the indexer is dropped");
        jobs.send(job).expect("the thread lives as long as its indexer");
        self.pending_count += 1;
    }

    /// Segments that were handed in and not given back yet.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.pending_count
    }

    /// The next segment that was written since the last call, by its instance.
    pub fn try_finish(&mut self) -> Option<Result<(u16, SealedSegment<D>), IndexError>> {
        let finished = self.done.try_recv().ok()?;
        self.pending_count -= 1;
        Some(finished)
    }

    /// Waits for the next segment to be written; `None` where there is none to wait for.
    pub fn finish(&mut self) -> Option<Result<(u16, SealedSegment<D>), IndexError>> {
        if self.pending_count == 0 {
            return None;
        }
        let finished = self.done.recv().ok()?;
        self.pending_count -= 1;
        Some(finished)
    }
}

impl<D: Disk> Drop for Indexer<D> {
    /// Waits for the segments that were handed in.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the indexer ended with a panic");
        }
    }
}

fn write<D: Disk>(disk: &D, job: IndexJob<D>) -> Result<(u16, SealedSegment<D>), IndexError> {
    SealedSegment::write(disk, job.key, &job.segment)?;
    let sealed = SealedSegment::open(disk, job.journal, job.key)?;
    sealed.map(|sealed| (job.key.instance, sealed)).ok_or_else(|| IndexError::Damaged {
        file: disk.describe(&super::index_file_name(job.key.instance, job.key.number)),
        what: "it does not read as it was just written",
    })
}
