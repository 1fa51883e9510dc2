//! The id of a volume: a random UUID in `DIR/store/volume-id`, by which the database tells the volume
//! whose archive it has from any other, such as one that was begun anew in the same folder.
//!
//! Only the holder of the store's lock writes it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ledger::disk::Disk;
use ledger::disk::folder::{FolderDisk, create_private};
use ledger::volume::Volume;
use uuid::{Builder, Uuid};

use super::error::ArchiveError;

/// The file's name.
const NAME: &str = "volume-id";
/// Where random numbers come from.
const RANDOM: &str = "/dev/urandom";

/// The file with the volume's id.
#[must_use]
pub fn path(volume: &Volume) -> PathBuf {
    volume.store().join(NAME)
}

/// The volume's id, which it is given if it has none.
///
/// # Errors
/// It cannot be read or written, or is none.
pub fn of(volume: &Volume) -> Result<Uuid, ArchiveError> {
    let path = path(volume);
    match fs::read_to_string(&path) {
        Ok(text) => {
            Uuid::try_parse(text.trim()).map_err(|why| ArchiveError::NoIdentity { path, why })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => begin_anew(volume),
        Err(error) => Err(ArchiveError::io("read", path)(error)),
    }
}

/// Gives the volume a new id, in place of the one that it has.
///
/// # Errors
/// It cannot be written.
pub fn begin_anew(volume: &Volume) -> Result<Uuid, ArchiveError> {
    let failed = |error| ArchiveError::io("write", path(volume))(error);
    let id = random_id()?;
    let disk = FolderDisk::create(volume.store()).map_err(failed)?;
    replace(&disk, &volume.store(), NAME, &format!("{id}\n")).map_err(failed)?;
    Ok(id)
}

/// An id that nobody else has.
///
/// # Errors
/// There are no random numbers.
pub fn random_id() -> Result<Uuid, ArchiveError> {
    let mut bytes = [0; 16];
    fs::File::open(RANDOM)
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(ArchiveError::io("read", RANDOM))?;
    Ok(Builder::from_random_bytes(bytes).into_uuid())
}

/// Puts a text into a file of this name in one step that survives a power cut.
///
/// # Errors
/// The operating system refuses.
pub fn replace(disk: &FolderDisk, folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let new_name = format!("{name}.new");
    let new = folder.join(&new_name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => create_private(&new, text)?,
    }
    fs::File::open(&new)?.sync_all()?;
    disk.rename(&new_name, name)?;
    disk.sync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_keeps_its_id_until_it_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        volume.create().unwrap();
        let id = of(&volume).unwrap();
        assert_eq!(of(&volume).unwrap(), id);
        // What an earlier attempt left is in nobody's way.
        fs::write(volume.store().join("volume-id.new"), "half").unwrap();
        let other = begin_anew(&volume).unwrap();
        assert_ne!(other, id);
        assert_eq!(of(&volume).unwrap(), other);
    }

    #[test]
    fn an_id_that_is_none_is_not_guessed_at() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        volume.create().unwrap();
        fs::write(path(&volume), "").unwrap();
        let error = of(&volume).unwrap_err();
        assert!(!error.is_passing() && error.to_string().contains("volume-id"), "{error}");
    }
}
