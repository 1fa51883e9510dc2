//! The ledger's tables, and what a volume that has joined writes to them of what was settled.
//!
//! Invariant: payments, totals and the places that they were read up to change together, and only from the
//! places that the writer believes in.

use ledger::Processor;
use ledger::volume::Volume;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::membership::{self, Membership};
use super::{SharedError, spans};
use crate::archive::error::ArchiveError;
use crate::archive::identity::random_id;
use crate::archive::journals::{Batch, check_places};
use crate::archive::schema::{self, Tables as Versions};
use crate::archive::tables::{
    Months, Moved, Standing, column, copy, demand_all_moved, place, signed,
};

/// The ledger's tables, by versions.
pub const VERSIONS: Versions = Versions {
    // `payledgr` in ASCII.
    lock_number: 0x7061_796c_6564_6772,
    versions_table: "ledger_schema_version",
    migrations: &[include_str!("migrations/0001_ledger.sql")],
    whose: "the ledger's",
    name: "ledger",
};

/// The payments of all machines.
const PAYMENTS: &str = "ledger_payments";

/// The ledger's tables, as one volume writes them.
pub struct Writer {
    volume: Uuid,
    holder: Uuid,
    months: Months,
}

/// Makes the tables, joins with a volume, and makes the store `holder` the one that may write for it.
///
/// # Errors
/// The volume has joined another ledger, or the database refuses.
pub async fn join(
    client: &mut Client,
    volume: &Volume,
    (id, holder): (Uuid, Uuid),
) -> Result<(), SharedError> {
    schema::migrate(client, &VERSIONS).await?;
    let failed = ArchiveError::sql("take a volume into the ledger");
    let transaction = client.transaction().await.map_err(&failed)?;
    let new_id = random_id()?;
    transaction
        .execute("INSERT INTO ledger (id) VALUES ($1) ON CONFLICT DO NOTHING", &[&new_id])
        .await
        .map_err(&failed)?;
    let row = transaction.query_one("SELECT id FROM ledger", &[]).await.map_err(&failed)?;
    let theirs: Uuid = column(&row, 0)?;
    let known = transaction
        .query_opt("SELECT 1 FROM ledger_volumes WHERE volume = $1", &[&id])
        .await
        .map_err(&failed)?;
    let membership = membership::demand(volume, theirs)?;
    // A ledger that was brought back from an earlier day does not know what it has decided since.
    if matches!(membership, Membership::Of(_)) && known.is_none() {
        return Err(SharedError::Forgotten { volume: id });
    }
    let rows = transaction
        .query("SELECT instance, place FROM ledger_places WHERE volume = $1", &[&id])
        .await
        .map_err(&failed)?;
    let places = rows.iter().map(place).collect::<Result<_, _>>()?;
    check_places(volume, &places)?;
    transaction
        .execute(
            "INSERT INTO ledger_volumes AS known (volume, holder) VALUES ($1, $2) \
             ON CONFLICT (volume) DO UPDATE SET holder = excluded.holder",
            &[&id, &holder],
        )
        .await
        .map_err(&failed)?;
    transaction.commit().await.map_err(failed)?;
    membership::set(volume, theirs)
}

impl Writer {
    /// As this volume, and this store.
    #[must_use]
    pub fn new(volume: Uuid, holder: Uuid) -> Self {
        Self { volume, holder, months: Months::of(PAYMENTS) }
    }

    /// How far the ledger is with this volume's journals.
    ///
    /// # Errors
    /// Another store writes for the volume, or the database refuses.
    pub async fn take_up(&self, client: &mut Client, purge: u64) -> Result<Standing, ArchiveError> {
        let failed = ArchiveError::sql("tell how far the ledger is");
        let transaction = client.transaction().await.map_err(&failed)?;
        // Held before the places are read: a transaction of a lost connection may be under way, and
        // ends before this one goes on.
        self.hold(&transaction).await?;
        let rows = transaction
            .query("SELECT instance, place FROM ledger_places WHERE volume = $1", &[&self.volume])
            .await
            .map_err(&failed)?;
        let places = rows.iter().map(place).collect::<Result<_, _>>()?;
        transaction.commit().await.map_err(failed)?;
        // Nothing is purged from a ledger.
        Ok(Standing { purge, places })
    }

    /// Writes a batch, its totals and the places that it was read up to.
    ///
    /// # Errors
    /// Another store writes for the volume, or the database refuses. It may be written all the same
    /// where the connection was lost.
    pub async fn write(&mut self, client: &mut Client, batch: &Batch) -> Result<(), ArchiveError> {
        self.months.make(client, &batch.payments).await?;
        let failed = ArchiveError::sql("take a batch of payments");
        let transaction = client.transaction().await.map_err(&failed)?;
        self.hold(&transaction).await?;
        self.move_places(&transaction, batch).await?;
        copy(&transaction, PAYMENTS, &batch.payments).await?;
        self.add_totals(&transaction, batch).await?;
        transaction.commit().await.map_err(failed)
    }

    /// Keeps other stores from writing for this volume until the transaction ends.
    async fn hold(&self, transaction: &Transaction<'_>) -> Result<(), ArchiveError> {
        let held = transaction
            .query_opt(
                "SELECT holder FROM ledger_volumes WHERE volume = $1 FOR UPDATE",
                &[&self.volume],
            )
            .await
            .map_err(ArchiveError::sql("say whose the volume is"))?;
        let holder: Option<Uuid> = held.map(|row| column(&row, 0)).transpose()?;
        if holder == Some(self.holder) {
            Ok(())
        } else {
            Err(ArchiveError::TakenOver("what this store has written".to_owned()))
        }
    }

    async fn move_places(
        &self,
        transaction: &Transaction<'_>,
        batch: &Batch,
    ) -> Result<(), ArchiveError> {
        let failed = ArchiveError::sql("take the places of a batch");
        let Moved { instances, start, before, after } = Moved::of(batch);
        transaction
            .execute(
                "INSERT INTO ledger_places (volume, instance, place) \
                 SELECT $1, * FROM unnest($2::int[], $3::bigint[]) ON CONFLICT DO NOTHING",
                &[&self.volume, &instances, &start],
            )
            .await
            .map_err(&failed)?;
        let moved = transaction
            .execute(
                "UPDATE ledger_places AS known SET place = moved.after \
                 FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS moved (instance, before, after) \
                 WHERE known.volume = $1 AND known.instance = moved.instance \
                 AND known.place = moved.before",
                &[&self.volume, &instances, &before, &after],
            )
            .await
            .map_err(failed)?;
        demand_all_moved(batch, moved)
    }

    async fn add_totals(
        &self,
        transaction: &Transaction<'_>,
        batch: &Batch,
    ) -> Result<(), ArchiveError> {
        let rows = spans::rows(&batch.payments)
            .map_err(|error| ArchiveError::Nonsense(error.to_string()))?;
        let (mut levels, mut starts, mut processors) = (Vec::new(), Vec::new(), Vec::new());
        let (mut counts, mut cents) = (Vec::new(), Vec::new());
        for ((level, start, processor), totals) in rows {
            levels.push(level);
            starts.push(start);
            processors.push(Processor::ALL[processor].name());
            counts.push(signed(totals.count));
            cents.push(totals.amount.get());
        }
        transaction
            .execute(
                "INSERT INTO ledger_totals AS known \
                 (level, start, volume, processor, payments, cents) \
                 SELECT level, start, $1, processor, payments, cents \
                 FROM unnest($2::smallint[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[]) \
                 AS added (level, start, processor, payments, cents) \
                 ON CONFLICT (level, start, volume, processor) DO UPDATE \
                 SET payments = known.payments + excluded.payments, \
                 cents = known.cents + excluded.cents",
                &[&self.volume, &levels, &starts, &processors, &counts, &cents],
            )
            .await
            .map_err(ArchiveError::sql("take the totals of a batch"))?;
        Ok(())
    }
}
