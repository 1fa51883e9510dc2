//! A mark beside the database that says: do not trust it. Whatever goes wrong with the database while
//! the store runs, by an error or by a panic, may be so again at every start. So the mark is left
//! behind, and the next store sets the database aside and makes it again from the journals.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use ledger::disk::folder::create_private;
use ledger::volume::Volume;

use crate::database::remove_if_there;

const FILE: &str = "suspect";

/// The place of the mark.
#[derive(Clone, Debug)]
pub struct Suspicion {
    path: PathBuf,
}

impl Suspicion {
    /// Of the database on this volume.
    #[must_use]
    pub fn of(volume: &Volume) -> Self {
        Self { path: volume.store().join(FILE) }
    }

    /// Leaves the mark, with a reason for people.
    pub fn raise(&self, why: &str) {
        let written = remove_if_there(&self.path).and_then(|()| create_private(&self.path, why));
        if let Err(error) = written {
            tracing::error!(
                "cannot write {}: {error}. If the store fails again, delete its database",
                self.path.display()
            );
        }
    }

    /// The reason, if the mark is there.
    ///
    /// # Errors
    /// It cannot be told whether it is.
    pub fn reason(&self) -> io::Result<Option<String>> {
        match std::fs::read(&self.path) {
            Ok(why) => Ok(Some(String::from_utf8_lossy(&why).into_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(_) if self.path.symlink_metadata().is_ok() => Ok(Some("unknown".to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Removes the mark.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn clear(&self) -> io::Result<()> {
        remove_if_there(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspicion_stays_until_it_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        volume.create().unwrap();
        let suspicion = Suspicion::of(&volume);
        assert_eq!(suspicion.reason().unwrap(), None);
        suspicion.raise("first");
        suspicion.raise("a panic");
        assert_eq!(Suspicion::of(&volume).reason().unwrap().as_deref(), Some("a panic"));
        suspicion.clear().unwrap();
        suspicion.clear().unwrap();
        assert_eq!(suspicion.reason().unwrap(), None);
    }
}
