//! A folder of the operating system, readable by its owner only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use super::{Disk, DiskFile};

/// The file whose lock makes its holder the folder's one writer.
const LOCK_FILE: &str = "lock";

/// Files and folders are for their owner only.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A real folder.
#[derive(Clone, Debug)]
pub struct FolderDisk {
    path: Arc<Path>,
}

/// A real file.
#[derive(Clone, Debug)]
pub struct FolderFile(Arc<File>);

/// The exclusive lock of a folder. The operating system ends it with the process.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderDisk {
    /// The folder at this path, created with its parents where it is missing.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        create_folder(&path)?;
        Ok(Self { path: path.into() })
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Creates a folder and its parents, for their owner only, such that a power cut does not undo it.
/// One that exists stays as it is.
///
/// # Errors
/// It cannot be created.
pub fn create_folder(path: &Path) -> io::Result<()> {
    create_folder_with(path, &mut |folder| File::open(folder)?.sync_all())
}

/// Creates a folder and its parents. Each that was missing is entered in its parent, and that is
/// synced, from the top down.
fn create_folder_with(
    path: &Path,
    sync: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    create_folder_with(parent, sync)?;
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        // Another process was quicker; it may not have come to the sync yet.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        created => created?,
    }
    sync(parent)
}

/// Creates a file with this text, readable by its owner only.
///
/// # Errors
/// It exists already, or cannot be written.
pub fn create_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(text.as_bytes())
}

/// Takes an exclusive lock on the file at this path, without waiting.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] where another process holds it.
pub fn lock_file(path: &Path) -> io::Result<FolderLock> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    // For people only: who holds the lock is decided by the lock, also on a full disk.
    let named = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = named {
        tracing::warn!("cannot write into {} who holds it: {error}", path.display());
    }
    Ok(FolderLock { _file: file })
}

impl Disk for FolderDisk {
    type File = FolderFile;
    type Lock = FolderLock;

    fn describe(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn lock(&self) -> io::Result<FolderLock> {
        lock_file(&self.path.join(LOCK_FILE))
    }

    fn create(&self, name: &str) -> io::Result<FolderFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(FILE_MODE);
        options.open(self.path.join(name)).map(|file| FolderFile(Arc::new(file)))
    }

    fn open(&self, name: &str) -> io::Result<FolderFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.open(self.path.join(name)).map(|file| FolderFile(Arc::new(file)))
    }

    fn open_read_only(&self, name: &str) -> io::Result<FolderFile> {
        File::open(self.path.join(name)).map(|file| FolderFile(Arc::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl DiskFile for FolderFile {
    fn size(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => {
                    let asked = buffer.len() - filled;
                    filled += count;
                    if count < asked {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write_at(bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_writer_is_refused_and_the_next_one_after_the_first_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::create(folder.path().join("api-1")).unwrap();
        let lock = disk.lock().unwrap();
        assert_eq!(disk.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        disk.lock().unwrap();
    }

    #[test]
    fn a_lock_can_be_taken_where_nothing_can_be_written() {
        lock_file(Path::new("/dev/full")).unwrap();
    }

    #[test]
    fn each_folder_that_is_created_is_synced_into_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let create = |path: &Path| {
            let mut synced = Vec::new();
            create_folder_with(path, &mut |folder| {
                synced.push(folder.to_owned());
                Ok(())
            })
            .unwrap();
            synced
        };
        assert_eq!(
            create(&root.join("a/b/c")),
            [root.to_owned(), root.join("a"), root.join("a/b")]
        );
        assert!(root.join("a/b/c").is_dir());
        assert!(create(&root.join("a/b/c")).is_empty());
        assert_eq!(create(&root.join("a/d")), [root.join("a")]);
    }

    #[test]
    fn files_and_folders_are_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::create(folder.path().join("a/b")).unwrap();
        disk.create("x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&disk.path().join("x")), FILE_MODE);
        assert_eq!(mode(disk.path()), FOLDER_MODE);
        assert_eq!(mode(&folder.path().join("a")), FOLDER_MODE);
    }

    #[test]
    fn a_file_is_never_created_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::create(folder.path()).unwrap();
        disk.create("x").unwrap().write_at(0, b"kept").unwrap();
        assert_eq!(disk.create("x").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let mut read = [0; 8];
        assert_eq!(disk.open("x").unwrap().read_at(0, &mut read).unwrap(), 4);
    }
}
