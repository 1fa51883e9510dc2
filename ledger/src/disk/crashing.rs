//! A folder in memory that remembers what was not synced, so that tests can look at every state in
//! which a power cut may leave it.
//!
//! What was synced stays. Of everything else any part may be there or not: each sector of a write, each
//! truncation, each name that was given, changed or taken away, in the order in which they were made. A
//! file whose later sectors are there and whose earlier ones are not has zeros in their place.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::MemoryDisk;
use super::{Disk, DiskFile};

/// What a storage device writes whole.
const SECTOR_BYTES: usize = 512;

/// A folder. Clones are the same folder.
#[derive(Clone, Default)]
pub struct CrashingDisk {
    state: Arc<Mutex<State>>,
}

/// A file in it.
#[derive(Clone)]
pub struct CrashingFile {
    number: usize,
    state: Arc<Mutex<State>>,
}

/// What was done and not synced.
#[derive(Clone, Debug)]
enum Change {
    /// A part of one sector.
    Write {
        file: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: usize,
        size: usize,
    },
    Create {
        name: String,
        file: usize,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
}

/// Files and their names.
#[derive(Clone, Default, Debug)]
struct Image {
    names: BTreeMap<String, usize>,
    contents: BTreeMap<usize, Vec<u8>>,
}

#[derive(Default)]
struct State {
    /// As processes see it.
    seen: Image,
    /// What survives a power cut in any case.
    synced: Image,
    changes: Vec<Change>,
    files_count: usize,
    /// Changes that may still be made; then the process ends. `None` is no limit.
    changes_left: Option<usize>,
}

impl Image {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { file, offset, bytes } => {
                let content = self.contents.entry(*file).or_default();
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Change::Truncate { file, size } => {
                self.contents.entry(*file).or_default().resize(*size, 0);
            }
            Change::Create { name, file } => drop(self.names.insert(name.clone(), *file)),
            // The new name without the old one: a file that was never named otherwise is there.
            Change::Rename { from, to } => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                }
            }
            Change::Remove { name } => drop(self.names.remove(name)),
        }
    }

    fn to_memory(&self) -> MemoryDisk {
        let disk = MemoryDisk::new();
        for (name, file) in &self.names {
            disk.put(name, self.contents.get(file).cloned().unwrap_or_default());
        }
        disk
    }
}

impl CrashingDisk {
    /// A folder with these files, all of them synced.
    #[must_use]
    pub fn with_files(files: &MemoryDisk) -> Self {
        let disk = Self::default();
        {
            let mut state = locked(&disk.state);
            for name in files.names().unwrap_or_default() {
                let file = state.files_count;
                state.files_count += 1;
                let content = files.bytes(&name).unwrap_or_default();
                state.seen.names.insert(name.clone(), file);
                state.seen.contents.insert(file, content);
            }
            state.synced = state.seen.clone();
        }
        disk
    }

    /// Lets so many changes happen, and refuses all others, as if the process had ended by then.
    pub fn end_after(&self, changes: usize) {
        locked(&self.state).changes_left = Some(changes);
    }

    /// Lets all changes happen again: the process after that one, or a disk that works again.
    pub fn go_on(&self) {
        locked(&self.state).changes_left = None;
    }

    /// Whether a change was refused.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        locked(&self.state).changes_left == Some(0)
    }

    /// What is there when the process ends and the machine goes on.
    #[must_use]
    pub fn after_kill(&self) -> MemoryDisk {
        locked(&self.state).seen.to_memory()
    }

    /// How many changes were not synced.
    #[must_use]
    pub fn unsynced_count(&self) -> usize {
        locked(&self.state).changes.len()
    }

    /// What may be there after a power cut, if of the unsynced changes those happened that `kept` says.
    #[must_use]
    pub fn after_power_cut(&self, kept: impl Fn(usize) -> bool) -> MemoryDisk {
        let state = locked(&self.state);
        let mut image = state.synced.clone();
        for (number, change) in state.changes.iter().enumerate() {
            if kept(number) {
                image.apply(change);
            }
        }
        image.to_memory()
    }
}

impl State {
    fn change(&mut self, change: Change) -> io::Result<()> {
        match &mut self.changes_left {
            Some(0) => return Err(io::Error::other("the process has ended")),
            Some(left) => *left -= 1,
            None => {}
        }
        self.seen.apply(&change);
        self.changes.push(change);
        Ok(())
    }

    /// Makes the changes survive that are meant.
    fn sync(&mut self, is_meant: impl Fn(&Change) -> bool) -> io::Result<()> {
        if self.changes_left == Some(0) {
            return Err(io::Error::other("the process has ended"));
        }
        let (synced, changes): (Vec<_>, Vec<_>) = self.changes.drain(..).partition(&is_meant);
        self.changes = changes;
        for change in &synced {
            self.synced.apply(change);
        }
        Ok(())
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        let file = self.seen.names.get(name).copied();
        file.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no {name}")))
    }
}

/// A test that panicked while it held the lock has failed already.
fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for CrashingDisk {
    type File = CrashingFile;
    type Lock = ();

    fn describe(&self, name: &str) -> String {
        format!("memory/{name}")
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(locked(&self.state).seen.names.keys().cloned().collect())
    }

    fn lock(&self) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<CrashingFile> {
        let mut state = locked(&self.state);
        if state.seen.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = state.files_count;
        state.files_count += 1;
        state.change(Change::Create { name: name.to_owned(), file: number })?;
        Ok(CrashingFile { number, state: Arc::clone(&self.state) })
    }

    fn open(&self, name: &str) -> io::Result<CrashingFile> {
        let number = locked(&self.state).file(name)?;
        Ok(CrashingFile { number, state: Arc::clone(&self.state) })
    }

    fn open_read_only(&self, name: &str) -> io::Result<CrashingFile> {
        self.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.file(from)?;
        state.change(Change::Rename { from: from.to_owned(), to: to.to_owned() })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.file(name)?;
        state.change(Change::Remove { name: name.to_owned() })
    }

    fn sync(&self) -> io::Result<()> {
        locked(&self.state).sync(|change| {
            matches!(change, Change::Create { .. } | Change::Rename { .. } | Change::Remove { .. })
        })
    }
}

impl DiskFile for CrashingFile {
    fn size(&self) -> io::Result<u64> {
        let state = locked(&self.state);
        Ok(state.seen.contents.get(&self.number).map_or(0, |content| content.len() as u64))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = locked(&self.state);
        let content = state.seen.contents.get(&self.number).map_or(&[][..], Vec::as_slice);
        let from = usize::try_from(offset).map_err(io::Error::other)?.min(content.len());
        let count = buffer.len().min(content.len() - from);
        buffer[..count].copy_from_slice(&content[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = locked(&self.state);
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        // Up to the end of a sector: the caller writes the rest in the next step.
        let count = bytes.len().min(SECTOR_BYTES - offset % SECTOR_BYTES);
        let bytes = bytes[..count].to_vec();
        state.change(Change::Write { file: self.number, offset, bytes })?;
        Ok(count)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let size = usize::try_from(size).map_err(io::Error::other)?;
        locked(&self.state).change(Change::Truncate { file: self.number, size })
    }

    fn sync(&self) -> io::Result<()> {
        locked(&self.state).sync(|change| match change {
            Change::Write { file, .. } | Change::Truncate { file, .. } => *file == self.number,
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::write_whole;

    #[test]
    fn what_was_synced_stays_and_anything_else_may_be_there() {
        let disk = CrashingDisk::default();
        let file = disk.create("file").unwrap();
        write_whole(&file, 0, &[1; 600]).unwrap();
        file.sync().unwrap();
        disk.sync().unwrap();
        write_whole(&file, 500, &[2; 700]).unwrap();
        // The end of the first sector, the second one, and a part of the third.
        assert_eq!(disk.unsynced_count(), 3);
        assert_eq!(disk.after_power_cut(|_| false).bytes("file").unwrap(), [1; 600]);
        let last_alone = disk.after_power_cut(|number| number == 2).bytes("file").unwrap();
        assert_eq!(last_alone.len(), 1200);
        assert_eq!((last_alone[599], last_alone[600], last_alone[1024]), (1, 0, 2));
        let whole = disk.after_power_cut(|_| true).bytes("file");
        assert_eq!(whole, disk.after_kill().bytes("file"));
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_gone_with_its_file() {
        let disk = CrashingDisk::default();
        let file = disk.create("new").unwrap();
        file.write_at(0, b"x").unwrap();
        file.sync().unwrap();
        assert_eq!(disk.after_power_cut(|_| false).names().unwrap(), [""; 0]);
        disk.rename("new", "name").unwrap();
        disk.sync().unwrap();
        disk.remove("name").unwrap();
        assert_eq!(disk.after_power_cut(|_| false).bytes("name").unwrap(), b"x");
        assert_eq!(disk.after_power_cut(|_| true).bytes("name"), None);
    }

    #[test]
    fn after_its_end_a_process_changes_nothing() {
        let disk = CrashingDisk::default();
        disk.end_after(2);
        let file = disk.create("file").unwrap();
        file.write_at(0, b"x").unwrap();
        assert!(disk.has_ended());
        assert!(file.write_at(1, b"y").is_err() && file.sync().is_err() && disk.sync().is_err());
        assert_eq!(disk.after_kill().bytes("file").unwrap(), b"x");
    }
}
