//! The store's settings.

use std::path::PathBuf;

use clap::Parser;
use ledger::daemon::{LogSettings, Settings};
use ledger::volume::Volume;

use crate::archive::url::DatabaseUrl;

/// The memory that sled may use as a cache unless set otherwise, in MiB. Payments come in the order of
/// time, so that little of the database is in use. With 16 MiB a summary over 10 million payments took
/// 19 µs in place of 26, and the process had 20 MiB more.
pub const CACHE_MIB_DEFAULT: u64 = 4;
/// The least cache that sled works with.
const CACHE_MIB_MIN: u64 = 1;
/// The most that may be set: 1 TiB.
const CACHE_MIB_MAX: u64 = 1 << 20;

/// Reads the journals of all API instances, decides which of them may send a payment, and answers
/// what was settled in any span of time. One store runs per volume.
///
/// Its database (DIR/store/sled-N) and its index (DIR/store/index) are views of the journals: they
/// can be deleted while the store is stopped, and are made again. DIR/store/claims.log is not.
///
/// `store audit` compares the journals with the books of the processors, see `store audit --help`.
/// `store restore` makes a volume anew from an archive, see `store restore --help`.
#[derive(Parser, Clone, Debug)]
#[command(name = "store", version, about, long_about)]
pub struct StoreSettings {
    /// The folder that all processes of the router share
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,

    /// The socket to answer on [default: DIR/run/store.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Memory that the database may use as a cache, in MiB
    #[arg(long, value_name = "MIB", default_value_t = CACHE_MIB_DEFAULT)]
    pub cache_mib: u64,

    /// The PostgreSQL database that gets every settled payment, best given as a variable because of its
    /// password; with sslmode=require in the URL over TLS
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub archive: Option<DatabaseUrl>,

    /// A PEM file with the authority of the database's certificate [default: those of the system]
    #[arg(long, value_name = "FILE", requires = "archive")]
    pub archive_ca: Option<PathBuf>,

    /// The PostgreSQL database in which several machines share one ledger, see docs/scale.md. A volume joins
    /// when it is new, and for good; best given as a variable because of its password
    #[arg(long, value_name = "URL", hide_env_values = true, conflicts_with = "archive")]
    pub database: Option<DatabaseUrl>,

    /// A PEM file with the authority of that database's certificate [default: those of the system]
    #[arg(long, value_name = "FILE", requires = "database")]
    pub database_ca: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogSettings,
}

impl Settings for StoreSettings {
    const ENVIRONMENT_PREFIX: &'static str = "PAYROUTER_STORE_";

    fn check(&self) -> Result<(), String> {
        if !(CACHE_MIB_MIN..=CACHE_MIB_MAX).contains(&self.cache_mib) {
            return Err(format!("--cache-mib must be between {CACHE_MIB_MIN} and {CACHE_MIB_MAX}"));
        }
        let given = [
            (&self.archive, "--archive", self.archive_ca.is_some()),
            (&self.database, "--database", self.database_ca.is_some()),
        ];
        for (url, flag, has_ca) in given {
            url.as_ref().map_or(Ok(()), |url| url.check(flag, has_ca))?;
        }
        Ok(())
    }
}

impl StoreSettings {
    /// The shared volume.
    #[must_use]
    pub fn volume(&self) -> Volume {
        Volume::new(&self.data)
    }

    /// The socket to answer on.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.volume().store_socket())
    }

    /// Memory that the database may use as a cache, in bytes.
    #[must_use]
    pub fn cache_bytes(&self) -> u64 {
        self.cache_mib << 20
    }
}
