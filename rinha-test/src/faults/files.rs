//! Damage to files: torn records, flipped bytes, and views that are gone, cut short or overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ledger::journal::{HEADER_BYTES, RECORD_BYTES};

/// What is done to a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Its folder is gone.
    Deleted,
    /// Each of its files is cut to half.
    Truncated,
    /// The middle of each of its files is overwritten.
    Overwritten,
}

/// Appends the first half of a record to the newest segment of a journal whose writer is dead, as a
/// write that was not finished. Gives the segment, or none where it already ends in such a write.
///
/// # Errors
/// The folder cannot be read, or the segment not be written.
pub fn tear_record(journal: &Path, noise: u64) -> io::Result<Option<PathBuf>> {
    let mut segments = files(journal)?;
    segments.retain(|path| path.extension().is_some_and(|ending| ending == "journal"));
    let Some(newest) = segments.pop() else {
        return Ok(None);
    };
    let length = fs::metadata(&newest)?.len();
    let records_bytes = length.checked_sub(HEADER_BYTES as u64);
    if records_bytes.is_none_or(|bytes| !bytes.is_multiple_of(RECORD_BYTES as u64)) {
        return Ok(None);
    }
    let half = noise_bytes(noise, RECORD_BYTES / 2);
    OpenOptions::new().append(true).open(&newest)?.write_all(&half)?;
    Ok(Some(newest))
}

/// Changes one bit of a file; doing it again changes it back.
///
/// # Errors
/// There is no such byte, or it cannot be changed.
pub fn flip_bit(path: &Path, offset: u64) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[byte[0] ^ 0x10], offset)
}

/// Damages all views in a folder whose names begin like this. Gives how many files or folders were
/// changed. It may be done under a process that uses them.
///
/// # Errors
/// A view cannot be read or changed.
pub fn damage(folder: &Path, prefix: &str, damage: Damage, noise: u64) -> io::Result<usize> {
    let mut changed = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with(prefix) || name.ends_with(".set-aside") {
            continue;
        }
        if damage == Damage::Deleted {
            // Moved first: it is gone at once, though its user may create files in it.
            let gone = folder.join(format!("gone-{noise:016x}-{name}"));
            fs::rename(&path, &gone)?;
            fs::remove_dir_all(&gone)?;
            changed += 1;
            continue;
        }
        for file in files(&path)? {
            match damage_file(&file, damage, noise) {
                Ok(()) => changed += 1,
                // Its user has removed it since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(changed)
}

fn damage_file(path: &Path, damage: Damage, noise: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let length = file.metadata()?.len();
    if damage == Damage::Truncated {
        return file.set_len(length / 2);
    }
    overwrite_middle(&file, length, noise)
}

fn overwrite_middle(file: &File, length: u64, noise: u64) -> io::Result<()> {
    let count = usize::try_from(length / 2).map_err(io::Error::other)?;
    file.write_all_at(&noise_bytes(noise, count), length / 4)
}

/// All files in a folder and those below, by name.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.append(&mut files(&entry.path())?),
            Ok(_) => found.push(entry.path()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Bytes that follow from a number, none of them zero: zeros are what a file system leaves behind.
fn noise_bytes(noise: u64, count: usize) -> Vec<u8> {
    let mut random = super::random::Random::new(noise);
    (0..count).map(|_| u8::try_from(1 + random.below(255)).unwrap_or(u8::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_record_is_appended_to_the_newest_segment_and_only_to_a_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(tear_record(folder.path(), 1).unwrap(), None);
        let [old, new] =
            ["0000000001.journal", "0000000002.journal"].map(|n| folder.path().join(n));
        fs::write(&old, vec![0; HEADER_BYTES]).unwrap();
        fs::write(&new, vec![0; HEADER_BYTES + 2 * RECORD_BYTES]).unwrap();
        fs::write(folder.path().join("lock"), "1").unwrap();
        assert_eq!(tear_record(folder.path(), 1).unwrap().as_ref(), Some(&new));
        let length = fs::metadata(&new).unwrap().len();
        assert_eq!(length, (HEADER_BYTES + 2 * RECORD_BYTES + RECORD_BYTES / 2) as u64);
        assert_eq!(tear_record(folder.path(), 1).unwrap(), None);
    }

    #[test]
    fn a_bit_that_is_flipped_twice_is_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "abc").unwrap();
        flip_bit(&path, 1).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"arc");
        flip_bit(&path, 1).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert!(flip_bit(&path, 3).is_err());
    }

    #[test]
    fn only_the_views_of_that_name_are_damaged() {
        for kind in [Damage::Deleted, Damage::Truncated, Damage::Overwritten] {
            let folder = tempfile::tempdir().unwrap();
            for name in ["sled-1", "sled-1.set-aside", "index"] {
                fs::create_dir_all(folder.path().join(name).join("blobs")).unwrap();
                fs::write(folder.path().join(name).join("db"), [0; 100]).unwrap();
            }
            assert_eq!(damage(folder.path(), "sled-", kind, 3).unwrap(), 1);
            for name in ["sled-1.set-aside", "index"] {
                assert_eq!(fs::read(folder.path().join(name).join("db")).unwrap(), [0; 100]);
            }
            let left = fs::read(folder.path().join("sled-1/db"));
            match kind {
                Damage::Deleted => assert!(!folder.path().join("sled-1").exists()),
                Damage::Truncated => assert_eq!(left.unwrap(), [0; 50]),
                Damage::Overwritten => {
                    let left = left.unwrap();
                    assert_eq!((&left[..25], &left[75..]), (&[0; 25][..], &[0; 25][..]));
                    assert!(left[25..75].iter().all(|byte| *byte != 0));
                }
            }
        }
    }
}
