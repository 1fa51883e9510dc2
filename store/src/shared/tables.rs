//! The ledger's tables, and what a volume that has joined writes to them of what was settled.
//!
//! Invariant: payments, totals and the places that they were read up to change together, and only from the
//! places that the writer believes in.

use std::collections::BTreeMap;

use ledger::Processor;
use ledger::journal::Position;
use ledger::volume::Volume;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::membership::{self, Membership};
use super::{SharedError, spans};
use crate::archive::connection::{STEP_PATIENCE, within};
use crate::archive::error::ArchiveError;
use crate::archive::follow::store_disk;
use crate::archive::identity::random_id;
use crate::archive::journals::{Batch, check_places};
use crate::archive::schema::{self, Tables as Versions};
use crate::archive::tables::{
    Months, Moved, Standing, column, copy, demand_all_moved, demand_purge, place, place_columns,
    signed, unsigned,
};
use crate::claims::read_purged;

/// The ledger's tables, by versions.
pub const VERSIONS: Versions = Versions {
    // `payledgr` in ASCII.
    lock_number: 0x7061_796c_6564_6772,
    versions_table: "ledger_schema_version",
    migrations: &[
        include_str!("migrations/0001_ledger.sql"),
        include_str!("migrations/0002_purges.sql"),
    ],
    whose: "the ledger's",
    name: "ledger",
};

/// The payments of all machines.
const PAYMENTS: &str = "ledger_payments";

/// Rights that are looked at in one step of a purge, and totals that are removed in one.
const PURGE_ROWS: i64 = 10_000;

/// Takes a volume's payments out, and with them their rights: they were settled, so nobody sends them any
/// more. Rights of what was not settled stay: it may be at a processor. Goes through the rights from an id on, and
/// gives how many it has looked at and the last.
const REMOVE_SETTLED: &str = "WITH part AS (SELECT correlation_id, volume FROM ledger_claims \
        WHERE correlation_id >= $2 ORDER BY correlation_id LIMIT $3), \
    removed AS (DELETE FROM ledger_payments AS settled USING part \
        WHERE part.volume = $1 AND settled.correlation_id = part.correlation_id \
        RETURNING settled.correlation_id), \
    free AS (DELETE FROM ledger_claims AS known USING removed \
        WHERE known.correlation_id = removed.correlation_id AND known.volume = $1) \
    SELECT count(*), (array_agg(correlation_id ORDER BY correlation_id DESC))[1] FROM part";
const REMOVE_TOTALS: &str = "DELETE FROM ledger_totals WHERE ctid = ANY(ARRAY(\
        SELECT ctid FROM ledger_totals WHERE volume = $1 LIMIT $2))";

/// The ledger's tables, as one volume writes them.
pub struct Writer {
    volume: Uuid,
    holder: Uuid,
    months: Months,
}

/// Makes the tables, joins with a volume, and makes the store `holder` the one that may write for it. Gives the
/// number of the volume's last purge there.
///
/// # Errors
/// The volume has joined another ledger, or the database refuses.
pub async fn join(
    client: &mut Client,
    volume: &Volume,
    (id, holder): (Uuid, Uuid),
) -> Result<u64, SharedError> {
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
        .query_opt("SELECT purge FROM ledger_volumes WHERE volume = $1", &[&id])
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
    let mut places: BTreeMap<u16, Position> = rows.iter().map(place).collect::<Result<_, _>>()?;
    let purged = read_purged(&store_disk(volume)?).map_err(ArchiveError::from)?;
    let purge = known.map(|row| unsigned(column(&row, 0)?)).transpose()?.unwrap_or_default();
    if purge < purged.number {
        // What a purge that is still to be carried out there made void may be gone, and a whole journal away.
        let there = volume.instances().map_err(ArchiveError::io("read", volume.journals()))?;
        places.retain(|instance, _| there.contains(instance));
        for (instance, place) in &mut places {
            *place = (*place).max(purged.cuts.get(instance).copied().unwrap_or(*place));
        }
    }
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
    membership::set(volume, theirs)?;
    Ok(purge)
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
    pub async fn take_up(&self, client: &mut Client) -> Result<Standing, ArchiveError> {
        let failed = ArchiveError::sql("tell how far the ledger is");
        let transaction = client.transaction().await.map_err(&failed)?;
        // Held before the places are read: a transaction of a lost connection may be under way, and
        // ends before this one goes on.
        let purge = self.hold(&transaction).await?;
        let rows = transaction
            .query("SELECT instance, place FROM ledger_places WHERE volume = $1", &[&self.volume])
            .await
            .map_err(&failed)?;
        let places = rows.iter().map(place).collect::<Result<_, _>>()?;
        transaction.commit().await.map_err(failed)?;
        Ok(Standing { purge, places })
    }

    /// Takes out what the volume's purge with this number has made void, after which its journals go on from
    /// these places. The number is written last: nothing is decided for the volume before, so what was removed until a
    /// connection was lost does no harm.
    ///
    /// # Errors
    /// Another store writes for the volume, or the database refuses.
    pub async fn purge(
        &self,
        client: &mut Client,
        before: u64,
        purge: u64,
        cuts: &BTreeMap<u16, Position>,
    ) -> Result<(), ArchiveError> {
        let step = "carry out a purge";
        let mut next = Some(Uuid::nil());
        while let Some(first) = next {
            next = within(step, STEP_PATIENCE, self.remove_settled(client, before, first)).await?;
        }
        while within(step, STEP_PATIENCE, self.remove_totals(client, before)).await? {}
        within(step, STEP_PATIENCE, self.end_purge(client, before, purge, cuts)).await
    }

    /// Removes what is settled of some rights from an id on, and gives the id to go on from.
    async fn remove_settled(
        &self,
        client: &mut Client,
        before: u64,
        first: Uuid,
    ) -> Result<Option<Uuid>, ArchiveError> {
        let failed = ArchiveError::sql("take purged payments out");
        let transaction = client.transaction().await.map_err(&failed)?;
        self.hold_after(&transaction, before).await?;
        let row = transaction
            .query_one(REMOVE_SETTLED, &[&self.volume, &first, &PURGE_ROWS])
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(failed)?;
        // Less than a whole step was the last one.
        let (count, last): (i64, Option<Uuid>) = (column(&row, 0)?, column(&row, 1)?);
        Ok(last.filter(|_| count == PURGE_ROWS))
    }

    /// Removes some totals, and gives whether there may be more.
    async fn remove_totals(&self, client: &mut Client, before: u64) -> Result<bool, ArchiveError> {
        let failed = ArchiveError::sql("take purged totals out");
        let transaction = client.transaction().await.map_err(&failed)?;
        self.hold_after(&transaction, before).await?;
        let removed = transaction
            .execute(REMOVE_TOTALS, &[&self.volume, &PURGE_ROWS])
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(removed > 0)
    }

    async fn end_purge(
        &self,
        client: &mut Client,
        before: u64,
        purge: u64,
        cuts: &BTreeMap<u16, Position>,
    ) -> Result<(), ArchiveError> {
        let failed = ArchiveError::sql("carry out a purge");
        let transaction = client.transaction().await.map_err(&failed)?;
        self.hold_after(&transaction, before).await?;
        let (instances, places) = place_columns(cuts);
        transaction
            .execute("DELETE FROM ledger_places WHERE volume = $1", &[&self.volume])
            .await
            .map_err(&failed)?;
        transaction
            .execute(
                "INSERT INTO ledger_places (volume, instance, place) \
                 SELECT $1, * FROM unnest($2::int[], $3::bigint[])",
                &[&self.volume, &instances, &places],
            )
            .await
            .map_err(&failed)?;
        transaction
            .execute(
                "UPDATE ledger_volumes SET purge = $2 WHERE volume = $1",
                &[&self.volume, &signed(purge)],
            )
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(failed)
    }

    /// Writes a batch, its totals and the places that it was read up to.
    ///
    /// # Errors
    /// Another store writes for the volume, or the database refuses. It may be written all the same
    /// where the connection was lost.
    pub async fn write(
        &mut self,
        client: &mut Client,
        purge: u64,
        batch: &Batch,
    ) -> Result<(), ArchiveError> {
        self.months.make(client, &batch.payments).await?;
        let failed = ArchiveError::sql("take a batch of payments");
        let transaction = client.transaction().await.map_err(&failed)?;
        self.hold_after(&transaction, purge).await?;
        self.move_places(&transaction, batch).await?;
        copy(&transaction, PAYMENTS, &batch.payments).await?;
        self.add_totals(&transaction, batch).await?;
        transaction.commit().await.map_err(failed)
    }

    /// Keeps other stores from writing for this volume until the transaction ends, and gives the number of the
    /// volume's last purge there.
    async fn hold(&self, transaction: &Transaction<'_>) -> Result<u64, ArchiveError> {
        let held = transaction
            .query_opt(
                "SELECT holder, purge FROM ledger_volumes WHERE volume = $1 FOR UPDATE",
                &[&self.volume],
            )
            .await
            .map_err(ArchiveError::sql("say whose the volume is"))?;
        let taken_over = || ArchiveError::TakenOver("what this store has written".to_owned());
        let row = held.ok_or_else(taken_over)?;
        if column::<Uuid>(&row, 0)? != self.holder {
            return Err(taken_over());
        }
        unsigned(column(&row, 1)?)
    }

    /// The same, if the ledger is as it was left after this number of purges.
    async fn hold_after(
        &self,
        transaction: &Transaction<'_>,
        purge: u64,
    ) -> Result<(), ArchiveError> {
        demand_purge(self.hold(transaction).await?, purge)
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
