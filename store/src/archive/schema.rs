//! The database's tables, by versions. Each version is a file of SQL that is carried out once, in a
//! transaction that says so in a table of versions. Other programs often have a `schema_version`.
//!
//! The list is short and only grows, so a crate for it (refinery and its like bring 30 others) would do
//! no more than these lines.

use tokio_postgres::Client;

use super::error::ArchiveError;
use super::tables::column;

/// A set of tables, and how it came about.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    /// The number of the lock that one program at a time takes to change them.
    pub lock_number: i64,
    /// Where their version stands.
    pub versions_table: &'static str,
    /// The versions, from 1.
    pub migrations: &'static [&'static str],
    /// Whose they are.
    pub whose: &'static str,
    /// What they are, in a word.
    pub name: &'static str,
}

/// The tables of an archive.
pub const ARCHIVE: Tables = Tables {
    // `payarchv` in ASCII.
    lock_number: 0x7061_7961_7263_6876,
    versions_table: "archive_schema_version",
    migrations: &[include_str!("migrations/0001_payments.sql")],
    whose: "the archive's",
    name: "archive",
};

impl Tables {
    /// The version of the tables of this program.
    fn known_version(&self) -> i32 {
        i32::try_from(self.migrations.len()).expect("there are few versions")
    }
}

/// Brings the tables to the version that this program knows.
///
/// # Errors
/// The database refuses, or has a later version.
pub async fn migrate(client: &mut Client, tables: &Tables) -> Result<(), ArchiveError> {
    let failed = ArchiveError::sql("make the tables");
    let table = tables.versions_table;
    let transaction = client.transaction().await.map_err(&failed)?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&tables.lock_number])
        .await
        .map_err(&failed)?;
    transaction
        .batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS {table} \
                 (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        ))
        .await
        .map_err(&failed)?;
    let row = transaction
        .query_one(&format!("SELECT coalesce(max(version), 0) FROM {table}"), &[])
        .await
        .map_err(&failed)?;
    let theirs: i32 = column(&row, 0)?;
    let ours = tables.known_version();
    if theirs > ours {
        return Err(ArchiveError::NewerTables { theirs, ours });
    }
    let migrations = tables.migrations.iter().zip(1..);
    for (migration, version) in migrations.filter(|(_, version)| *version > theirs) {
        transaction.batch_execute(migration).await.map_err(&failed)?;
        transaction
            .execute(&format!("INSERT INTO {table} (version) VALUES ($1)"), &[&version])
            .await
            .map_err(&failed)?;
        tracing::info!("{} tables are now of version {version}", tables.whose);
    }
    transaction.commit().await.map_err(failed)
}

/// Whether the database has an archive's tables at all.
///
/// # Errors
/// The database refuses.
pub async fn is_there(client: &Client) -> Result<bool, ArchiveError> {
    let row = client
        .query_one("SELECT to_regclass('archive_schema_version') IS NOT NULL", &[])
        .await
        .map_err(ArchiveError::sql("tell of its tables"))?;
    column(&row, 0)
}
