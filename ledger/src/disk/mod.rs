//! The narrow way to the disk: one folder, files in it, and what can be done to them.
//!
//! Everything that must survive a crash goes through [`Disk`] and [`DiskFile`], so that it can be
//! tested on a disk that fails ([`memory::MemoryDisk`]), and on one that loses what was not synced
//! ([`crashing::CrashingDisk`]), as well as run on a real one
//! ([`folder::FolderDisk`]).

pub mod crashing;
pub mod folder;
pub mod memory;

use std::io;

/// One folder of files.
pub trait Disk: Clone {
    /// A file in it.
    type File: DiskFile;
    /// Held by the one writer of the folder, and given up when dropped or when its process ends.
    type Lock;

    /// The file's name with its folder, for messages.
    fn describe(&self, name: &str) -> String;

    /// The names of all files.
    ///
    /// # Errors
    /// The folder cannot be read.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Takes the folder's exclusive lock.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where another process holds it.
    fn lock(&self) -> io::Result<Self::Lock>;

    /// Creates an empty file for reading and writing.
    ///
    /// # Errors
    /// It exists already, or cannot be created.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// It does not exist, or cannot be opened.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// It does not exist, or cannot be opened.
    fn open_read_only(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, in one step; a file of that name is replaced.
    ///
    /// # Errors
    /// The operating system refuses.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The operating system refuses.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names that were created, changed or removed survive a power cut.
    ///
    /// # Errors
    /// The operating system refuses.
    fn sync(&self) -> io::Result<()>;
}

/// A file on a [`Disk`]. Clones are the same file.
pub trait DiskFile: Clone + Send + 'static {
    /// Its size in bytes.
    ///
    /// # Errors
    /// The operating system refuses.
    fn size(&self) -> io::Result<u64>;

    /// Reads what is there from `offset` on; fewer bytes than `buffer` holds mean the end of file.
    ///
    /// # Errors
    /// The operating system refuses.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes a first part of the bytes at `offset`, and tells how many they were.
    ///
    /// # Errors
    /// Nothing was written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Cuts the file to this many bytes.
    ///
    /// # Errors
    /// The operating system refuses.
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Makes what was written survive a power cut.
    ///
    /// # Errors
    /// It may not survive one: what was not synced before may be lost, whatever is called next.
    fn sync(&self) -> io::Result<()>;
}

/// Creates an empty file, in place of one of that name if there is one.
///
/// # Errors
/// The operating system refuses.
pub fn create_anew<D: Disk>(disk: &D, name: &str) -> io::Result<D::File> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => disk.create(name),
    }
}

/// Writes all of the bytes at `offset`.
///
/// # Errors
/// The operating system refuses, and a first part of the bytes may be written.
pub fn write_whole<F: DiskFile>(file: &F, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(offset + written as u64, &bytes[written..])? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => written += count,
        }
    }
    Ok(())
}
