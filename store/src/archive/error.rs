//! What keeps the archive from going on, and whether it passes.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use ledger::journal::{JournalError, Position};
use ledger::volume::instance_name;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::WrongType;
use uuid::Uuid;

use crate::claims::ClaimsError;

/// What a database says where a table has the name of one of the archive's, and other columns.
const ODD_TABLE_STATES: [SqlState; 4] = [
    SqlState::DUPLICATE_TABLE,
    SqlState::UNDEFINED_COLUMN,
    SqlState::UNDEFINED_FUNCTION,
    SqlState::DATATYPE_MISMATCH,
];

/// Why something is not archived, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The database refuses, or cannot be reached.
    #[error("the database cannot {action}: {why}")]
    Database {
        /// What was asked of it.
        action: &'static str,
        /// What it answered, or why it did not.
        why: String,
    },
    /// The database does not answer.
    #[error("the database did not {action} within {seconds} s")]
    TimedOut {
        /// What was asked of it.
        action: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A payment that is to be archived is in the archive.
    #[error(
        "the archive has a payment already that was not archived from here ({0}). Someone else wrote \
         it: find out who before anything is changed; the journals have everything"
    )]
    Conflict(String),
    /// Someone else archives the same journals.
    #[error(
        "another store has archived beyond {0} in the meantime. One alone may archive a volume: this \
         one has stopped to; if it is the right one, stop the other, and start this one again"
    )]
    TakenOver(String),
    /// The database has the archive of another volume.
    #[error(
        "the database has the archive of volume {theirs}, and this is volume {ours}. Give this store a \
         database of its own; or, if this volume is to take the place of the other one, empty it and \
         use `store restore`"
    )]
    OtherVolume {
        /// Whose archive it is.
        theirs: Uuid,
        /// The id of this volume.
        ours: Uuid,
    },
    /// The archive has more than the volume.
    #[error(
        "the archive has more than this volume: {0}. The volume is older than the archive, such as \
         a copy that was brought back, or a restore that did not come to its end: empty it, and use \
         `store restore`"
    )]
    Ahead(String),
    /// The archive was emptied by a purge that the volume does not know.
    #[error(
        "the archive was emptied by purge {theirs}, and this volume's last one is {ours}. The volume is \
         older than the archive, such as a copy that was brought back, and has payments that were purged \
         there. To keep them, give this store an empty database, which gets them all; otherwise bring \
         back a later copy"
    )]
    PurgedBeyond {
        /// The number of the archive's last purge.
        theirs: u64,
        /// That of the volume's.
        ours: u64,
    },
    /// The volume's id cannot be understood.
    #[error(
        "{path} does not have the id of a volume: {why}. Without it nobody knows whose archive is whose: \
         bring the file back from a copy, or write into it what `SELECT volume FROM archive` says in \
         the volume's database"
    )]
    NoIdentity {
        /// The file.
        path: PathBuf,
        /// What is wrong with its text.
        why: uuid::Error,
    },
    /// A table has the name of one of the archive's, and is another.
    #[error(
        "the database cannot {action}: a table is not as the archive made it ({why}). Find out who made \
         or changed it, or give the store a database of its own; the journals have everything"
    )]
    OddTable {
        /// What was asked of the database.
        action: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Segments that were not archived are gone.
    #[error(
        "segments {first} to {last} of {journal} are gone, and were not archived: bring them back from \
         a copy, or give this store an empty database, which gets what is left"
    )]
    Missing {
        /// The journal.
        journal: String,
        /// The first segment that is gone.
        first: u32,
        /// The last one.
        last: u32,
    },
    /// The tables are of a later version of this program.
    #[error(
        "the database's tables are of version {theirs}, and this program knows versions up to {ours}: \
         use a newer one"
    )]
    NewerTables {
        /// Their version.
        theirs: i32,
        /// The last one that is known here.
        ours: i32,
    },
    /// There is nothing to restore from.
    #[error("the database has no archive: check the URL; nothing was changed")]
    NoArchive,
    /// What the archive says is nothing that was archived.
    #[error(
        "the archive has a payment that was never one: {0}. Someone else wrote it; nothing was changed"
    )]
    Nonsense(String),
    /// The volume is not empty.
    #[error(
        "{path} exists: a restore is made on an empty volume only. Give it another --data, or move \
         this one away"
    )]
    NotEmpty {
        /// What is there.
        path: PathBuf,
    },
    /// A store or another restore runs on the volume.
    #[error("a store runs on {path}, or a restore: stop it first, or give this one another --data")]
    InUse {
        /// The store's folder.
        path: PathBuf,
    },
    /// TLS cannot be used.
    #[error("{0}")]
    Tls(String),
    /// A journal cannot be read, or is damaged.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The claim log, which says what was purged, cannot be read.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    /// The operating system refuses something else.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ArchiveError {
    /// A closure that says what was tried with a file.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// A closure that says what was asked of the database. What a database says of a statement may
    /// have the payment in it, and never the password.
    pub fn sql(action: &'static str) -> impl Fn(tokio_postgres::Error) -> Self {
        move |error| match error.as_db_error() {
            Some(said) if *said.code() == SqlState::UNIQUE_VIOLATION => {
                Self::Conflict(said.detail().unwrap_or(said.message()).to_owned())
            }
            Some(said) if ODD_TABLE_STATES.contains(said.code()) => {
                Self::OddTable { action, why: said.message().to_owned() }
            }
            Some(said) => Self::Database {
                action,
                why: format!("{} (SQLSTATE {})", said.message(), said.code().code()),
            },
            None if error.source().is_some_and(<dyn Error>::is::<WrongType>) => {
                Self::OddTable { action, why: with_causes(&error) }
            }
            None => Self::Database { action, why: with_causes(&error) },
        }
    }

    /// That the archive has more of a journal than there is.
    #[must_use]
    pub fn ahead(instance: u16, place: Position) -> Self {
        Self::Ahead(format!("{} up to {place}, which is not there", instance_name(instance)))
    }

    /// Whether it may be over by itself, so that it should be tried again.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Database { .. }
                | Self::TimedOut { .. }
                | Self::Io { .. }
                | Self::Journal(JournalError::Io { .. })
                | Self::Claims(ClaimsError::Io { .. })
        )
    }

    /// Whether stored data is damaged.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Journal(error) => error.is_damage(),
            Self::Claims(error) => error.is_damage(),
            _ => false,
        }
    }
}

/// An error with what caused it.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
