//! The thread that writes the index of sealed segments to files: sorting a hundred thousand ids or more is
//! too long for a thread that answers questions.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use ledger::disk::Disk;
use ledger::journal::sync_segments;

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
    /// The segment of the journal up to which it was read.
    pub read_through: u32,
    /// Those that its filters may rely on ([`segments_before`](super::segments_before)).
    pub before: Vec<SegmentKey>,
}

/// What became of a job.
pub struct Indexed<D: Disk> {
    /// The instance whose segment it was.
    pub instance: u16,
    /// The number of the segment.
    pub number: u32,
    /// The index that reads the file.
    pub written: Result<SealedSegment<D>, IndexError>,
}

/// The thread, and what it has done.
pub struct Indexer<D: Disk> {
    jobs: Option<Sender<IndexJob<D>>>,
    done: Receiver<Indexed<D>>,
    thread: Option<JoinHandle<()>>,
    /// How many entries each segment has that was handed in and not given back, in order.
    pending: VecDeque<usize>,
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
                let SegmentKey { instance, number, .. } = job.key;
                let written = job.write(&disk);
                // Nobody listens any more once the store ends; the file is there all the same.
                let _ = done_of_thread.send(Indexed { instance, number, written });
            }
        })?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread), pending: VecDeque::new() })
    }

    /// Hands a segment to the thread.
    pub fn submit(&mut self, job: IndexJob<D>) {
        let jobs = self.jobs.as_ref().expect("jobs are taken until the indexer is dropped");
        self.pending.push_back(job.segment.entries_count());
        jobs.send(job).expect("the thread lives as long as its indexer");
    }

    /// Segments that were handed in and not given back yet.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// How many entries those have.
    #[must_use]
    pub fn pending_entries(&self) -> usize {
        self.pending.iter().sum()
    }

    /// The next segment that was written since the last call.
    pub fn try_finish(&mut self) -> Option<Indexed<D>> {
        let finished = self.done.try_recv().ok()?;
        self.pending.pop_front();
        Some(finished)
    }

    /// Waits for the next segment to be written; `None` where there is none to wait for.
    pub fn finish(&mut self) -> Option<Indexed<D>> {
        if self.pending.is_empty() {
            return None;
        }
        let finished = self.done.recv().ok()?;
        self.pending.pop_front();
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

impl<D: Disk> IndexJob<D> {
    /// Writes the file to this folder, and gives the index that reads it.
    ///
    /// A file of the index is believed after a power cut. So what it was made of must survive one as well:
    /// the segment, and the records in later ones that say which of its payments lost their ids.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn write(self, disk: &D) -> Result<SealedSegment<D>, IndexError> {
        let Self { key, segment, journal, read_through, before } = self;
        sync_segments(&journal, key.number, read_through).map_err(|source| IndexError::Io {
            action: "sync what is indexed in",
            file: journal.describe(""),
            source,
        })?;
        SealedSegment::write(disk, key, &segment, &before)?;
        let sealed = SealedSegment::open(disk, journal, key)?;
        sealed.ok_or_else(|| IndexError::Damaged {
            file: disk.describe(&super::index_file_name(key.instance, key.number)),
            what: "it does not read as it was just written",
        })
    }
}

#[cfg(test)]
mod tests {
    use ledger::disk::crashing::CrashingDisk;
    use ledger::disk::{DiskFile, write_whole};
    use ledger::journal::segment_file_name;

    use super::*;

    #[test]
    fn what_is_indexed_survives_the_power_before_its_index_does() {
        let journal = CrashingDisk::default();
        for number in 1..=3 {
            let file = journal.create(&segment_file_name(number)).unwrap();
            write_whole(&file, 0, &[7; 700]).unwrap();
        }
        let key = SegmentKey {
            instance: 1,
            number: 1,
            header_checksum: 0,
            first_index: 0,
            seal_index: 0,
            hash_key: [0; 16],
        };
        let segment = Arc::new(OpenSegment::default());
        let journal_disk = journal.clone();
        let job =
            IndexJob { key, segment, journal: journal_disk, read_through: 2, before: Vec::new() };
        let disk = CrashingDisk::default();
        job.write(&disk).unwrap();
        assert_eq!(disk.names().unwrap().len(), 1);
        let left = journal.after_power_cut(|_| false);
        for number in 1..=2 {
            assert_eq!(left.bytes(&segment_file_name(number)).unwrap(), [7; 700]);
        }
        let unread = left.open(&segment_file_name(3)).unwrap();
        assert_eq!(unread.size().unwrap(), 0, "nobody read it");
    }
}
