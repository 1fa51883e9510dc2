//! The settings of a restore.

use std::path::PathBuf;

use clap::Parser;
use ledger::daemon::{LogSettings, Settings};
use ledger::volume::Volume;

use crate::archive::url::DatabaseUrl;

/// Makes an empty volume that has every payment of an archive. Afterwards start the router on it: every
/// summary and look-up is what it was, and every id is known.
///
/// The archive is that of this volume from then on. A store that still archives from another volume
/// into this database stops doing so.
///
/// Ends with 0 where it is done, 64 for a wrong setting, and 70 where it is not, for example because
/// the volume is not empty. It can be repeated until it is done: before that the volume stays empty.
#[derive(Parser, Clone, Debug)]
#[command(name = "store restore", version, about, long_about)]
pub struct RestoreSettings {
    /// The database with the archive, postgres with user, password, host and name as in `store
    /// --archive`, best given as a variable because of its password
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub from: DatabaseUrl,

    /// The folder that all processes of the router will share
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,

    /// A PEM file with the authority of the database's certificate [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub archive_ca: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogSettings,
}

impl Settings for RestoreSettings {
    const ENVIRONMENT_PREFIX: &'static str = "PAYROUTER_RESTORE_";

    fn check(&self) -> Result<(), String> {
        self.from.check("--from", self.archive_ca.is_some())
    }
}

impl RestoreSettings {
    /// The volume.
    #[must_use]
    pub fn volume(&self) -> Volume {
        Volume::new(&self.data)
    }
}
