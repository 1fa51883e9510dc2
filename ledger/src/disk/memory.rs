//! A folder in memory that can be told to run full or to fail, for tests.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile};

/// A folder in memory. Clones are the same folder.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, MemoryFile>,
    faults: Arc<Mutex<Faults>>,
    locked: bool,
}

#[derive(Default)]
struct Faults {
    /// Bytes that still fit; `None` is no limit.
    room_bytes: Option<usize>,
    sync_fails: bool,
    truncate_fails: bool,
    writes_count: usize,
}

/// A file in memory.
#[derive(Clone)]
pub struct MemoryFile {
    bytes: Arc<Mutex<Vec<u8>>>,
    faults: Arc<Mutex<Faults>>,
}

/// The lock of a folder in memory.
pub struct MemoryLock {
    state: Arc<Mutex<State>>,
}

impl MemoryDisk {
    /// An empty folder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets only this many more bytes be written; `None` lifts the limit.
    pub fn set_room_bytes(&self, room_bytes: Option<usize>) {
        locked(&locked(&self.state).faults).room_bytes = room_bytes;
    }

    /// Makes every sync fail, or work again.
    pub fn set_sync_fails(&self, fails: bool) {
        locked(&locked(&self.state).faults).sync_fails = fails;
    }

    /// Makes every truncation fail, or work again.
    pub fn set_truncate_fails(&self, fails: bool) {
        locked(&locked(&self.state).faults).truncate_fails = fails;
    }

    /// How many writes succeeded since the last call.
    pub fn count_writes(&self) -> usize {
        std::mem::take(&mut locked(&locked(&self.state).faults).writes_count)
    }

    /// A copy of a file's bytes.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        locked(&self.state).files.get(name).map(|file| locked(&file.bytes).clone())
    }

    /// Puts a file with these bytes in place of whatever has that name.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = locked(&self.state);
        let file =
            MemoryFile { bytes: Arc::new(Mutex::new(bytes)), faults: Arc::clone(&state.faults) };
        state.files.insert(name.to_owned(), file);
    }
}

/// A test that panicked while it held the lock has failed already.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{name} does not exist"))
}

impl Disk for MemoryDisk {
    type File = MemoryFile;
    type Lock = MemoryLock;

    fn describe(&self, name: &str) -> String {
        format!("memory/{name}")
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(locked(&self.state).files.keys().cloned().collect())
    }

    fn lock(&self) -> io::Result<MemoryLock> {
        let mut state = locked(&self.state);
        if state.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked = true;
        Ok(MemoryLock { state: Arc::clone(&self.state) })
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        if locked(&self.state).files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.put(name, Vec::new());
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        locked(&self.state).files.get(name).cloned().ok_or_else(|| not_found(name))
    }

    fn open_read_only(&self, name: &str) -> io::Result<MemoryFile> {
        self.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = locked(&self.state);
        let file = state.files.remove(from).ok_or_else(|| not_found(from))?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        locked(&self.state).files.remove(name).map(drop).ok_or_else(|| not_found(name))
    }

    fn sync(&self) -> io::Result<()> {
        sync(&locked(&self.state).faults)
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        locked(&self.state).locked = false;
    }
}

fn sync(faults: &Mutex<Faults>) -> io::Result<()> {
    if locked(faults).sync_fails {
        return Err(io::Error::other("the sync was told to fail"));
    }
    Ok(())
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(locked(&self.bytes).len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = locked(&self.bytes);
        let from = usize::try_from(offset).map_err(io::Error::other)?.min(bytes.len());
        let count = buffer.len().min(bytes.len() - from);
        buffer[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, new: &[u8]) -> io::Result<usize> {
        let mut bytes = locked(&self.bytes);
        let mut faults = locked(&self.faults);
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let room = faults.room_bytes.unwrap_or(usize::MAX);
        let count = new.len().min(room);
        if count == 0 && !new.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if bytes.len() < from + count {
            bytes.resize(from + count, 0);
        }
        bytes[from..from + count].copy_from_slice(&new[..count]);
        faults.writes_count += 1;
        if let Some(room) = &mut faults.room_bytes {
            *room -= count;
        }
        Ok(count)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        if locked(&self.faults).truncate_fails {
            return Err(io::Error::other("the truncation was told to fail"));
        }
        let size = usize::try_from(size).map_err(io::Error::other)?;
        locked(&self.bytes).resize(size, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        sync(&self.faults)
    }
}
