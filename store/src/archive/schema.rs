//! The database's tables, by versions. Each version is a file of SQL that is carried out once, in a
//! transaction that says so in `archive_schema_version`. Other programs often have a `schema_version`.
//!
//! The list is short and only grows, so a crate for it (refinery and its like bring 30 others) would do
//! no more than these lines.

use tokio_postgres::Client;

use super::error::ArchiveError;
use super::tables::column;

/// The versions, from 1.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_payments.sql")];
/// The number of the lock that one program at a time takes to change tables: `payarchv` in ASCII.
const LOCK_NUMBER: i64 = 0x7061_7961_7263_6876;

/// The version of the tables of this program.
fn known_version() -> i32 {
    i32::try_from(MIGRATIONS.len()).expect("there are few versions")
}

/// Brings the tables to the version that this program knows.
///
/// # Errors
/// The database refuses, or has a later version.
pub async fn migrate(client: &mut Client) -> Result<(), ArchiveError> {
    let failed = ArchiveError::sql("make the archive's tables");
    let transaction = client.transaction().await.map_err(&failed)?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK_NUMBER])
        .await
        .map_err(&failed)?;
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS archive_schema_version \
             (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())",
        )
        .await
        .map_err(&failed)?;
    let row = transaction
        .query_one("SELECT coalesce(max(version), 0) FROM archive_schema_version", &[])
        .await
        .map_err(&failed)?;
    let theirs: i32 = column(&row, 0)?;
    if theirs > known_version() {
        return Err(ArchiveError::NewerTables { theirs, ours: known_version() });
    }
    for (migration, version) in MIGRATIONS.iter().zip(1..).filter(|(_, version)| *version > theirs)
    {
        transaction.batch_execute(migration).await.map_err(&failed)?;
        transaction
            .execute("INSERT INTO archive_schema_version (version) VALUES ($1)", &[&version])
            .await
            .map_err(&failed)?;
        tracing::info!("the archive's tables are now of version {version}");
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
