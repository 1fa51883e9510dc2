//! Where everything lies on the shared volume.
//!
//! ```text
//! DIR/journal/api-1/0000000001.journal   the journal of an API instance: the truth
//! DIR/store/claims.log                   which records were decided upon, in order: the truth
//! DIR/store/sled-N/, DIR/store/index/    views of the above, which can be deleted at any time
//! DIR/store/suspect                      that the database is not to be trusted
//! DIR/store/volume-id                    by which an archive knows whose it is
//! DIR/health/lease, DIR/health/state     who asks the processors for their health, and the answer
//! DIR/run/                               sockets, those of metrics and notes among them, and pid files
//! ```

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use crate::disk::folder::create_folder;
use crate::metrics::METRICS_SUFFIX;
use crate::notes::NOTES_SUFFIX;

/// The folder of a journal is named after its API instance.
const INSTANCE_PREFIX: &str = "api-";

/// The instance whose journal is what was restored from an archive. No API has this number, the last
/// one that there is: its journal has no writer.
pub const RESTORED_INSTANCE: u16 = u16::MAX;

/// The shared volume.
#[derive(Clone, Debug)]
pub struct Volume {
    root: PathBuf,
}

impl Volume {
    /// The volume in this folder.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The volume's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of all journals.
    #[must_use]
    pub fn journals(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// The journal of an API instance.
    #[must_use]
    pub fn journal(&self, instance: u16) -> PathBuf {
        self.journals().join(instance_name(instance))
    }

    /// The API instances that have a journal, in order.
    ///
    /// # Errors
    /// The folder of the journals cannot be read.
    pub fn instances(&self) -> io::Result<Vec<u16>> {
        let entries = match self.journals().read_dir() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut instances = Vec::new();
        for entry in entries {
            if let Some(instance) = entry?.file_name().to_str().and_then(instance_number) {
                instances.push(instance);
            }
        }
        instances.sort_unstable();
        Ok(instances)
    }

    /// The store's folder.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The folder of what is known of the processors' health.
    #[must_use]
    pub fn health(&self) -> PathBuf {
        self.root.join("health")
    }

    /// The folder of sockets and pid files.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The socket on which the store answers.
    #[must_use]
    pub fn store_socket(&self) -> PathBuf {
        self.run().join("store.sock")
    }

    /// The socket on which an API instance takes connections from the balancer.
    #[must_use]
    pub fn api_socket(&self, instance: u16) -> PathBuf {
        self.run().join(format!("{}.sock", instance_name(instance)))
    }

    /// The socket on which the daemon of this name tells its metrics.
    #[must_use]
    pub fn metrics_socket(&self, daemon: &str) -> PathBuf {
        metrics_socket(&self.run(), daemon)
    }

    /// The socket on which an API instance of this name tells its notes.
    #[must_use]
    pub fn notes_socket(&self, api: &str) -> PathBuf {
        self.run().join(format!("{api}{NOTES_SUFFIX}"))
    }

    /// The room that there is for the journals.
    ///
    /// # Errors
    /// The file system does not tell.
    pub fn space(&self) -> io::Result<Space> {
        let told = statvfs(self.journals())?;
        let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
        Ok(Space { size_bytes: bytes(told.f_blocks), available_bytes: bytes(told.f_bavail) })
    }

    /// Creates the folders that several processes use.
    ///
    /// # Errors
    /// One of them cannot be created.
    pub fn create(&self) -> io::Result<()> {
        for folder in [self.journals(), self.store(), self.health(), self.run()] {
            create_folder(&folder).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot create {}: {error}", folder.display()))
            })?;
        }
        Ok(())
    }
}

/// The room of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it, used or not.
    pub size_bytes: u64,
    /// What this user may still use.
    pub available_bytes: u64,
}

/// The socket in this folder of sockets on which the daemon of this name tells its metrics.
#[must_use]
pub fn metrics_socket(run: &Path, daemon: &str) -> PathBuf {
    run.join(format!("{daemon}{METRICS_SUFFIX}"))
}

/// The name of an API instance: `api-1`.
#[must_use]
pub fn instance_name(instance: u16) -> String {
    format!("{INSTANCE_PREFIX}{instance}")
}

/// The number of an API instance of this name; none where it is no API's.
#[must_use]
pub fn instance_number(name: &str) -> Option<u16> {
    let instance = name.strip_prefix(INSTANCE_PREFIX)?.parse().ok()?;
    (instance > 0 && instance_name(instance) == name).then_some(instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_that_of_the_file_system_of_the_journals() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        assert_eq!(volume.space().unwrap_err().kind(), io::ErrorKind::NotFound);
        volume.create().unwrap();
        let space = volume.space().unwrap();
        let told = std::process::Command::new("df")
            .args(["--block-size=1", "--output=size"])
            .arg(volume.journals())
            .output()
            .unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        assert_eq!(told.lines().last().unwrap().trim(), space.size_bytes.to_string());
        assert!((1..space.size_bytes).contains(&space.available_bytes), "{space:?}");
    }

    #[test]
    fn instances_are_found_by_their_journals_folders() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        assert!(volume.instances().unwrap().is_empty());
        volume.create().unwrap();
        for name in ["api-2", "api-10", "api-1", "api-0", "api-01", "api-x", "other"] {
            create_folder(&volume.journals().join(name)).unwrap();
        }
        assert_eq!(volume.instances().unwrap(), [1, 2, 10]);
        assert_eq!(volume.journal(2), folder.path().join("journal/api-2"));
    }
}
