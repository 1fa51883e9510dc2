//! What is read from the archive's tables and written to them, each in one transaction.
//!
//! Invariant: payments and the places that they were read up to change together, and only from the
//! places that the writer believes in. So a batch that is sent twice is written once, and of two
//! writers the one that comes second sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use ledger::TimestampMs;
use ledger::journal::Position;
use rust_decimal::Decimal;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Row, Transaction};
use uuid::Uuid;

use super::error::{ArchiveError, with_causes};
use super::journals::{Batch, Move, Payment};

/// Amounts have two decimal places.
const AMOUNT_SCALE: u32 = 2;

/// The first second of the year 10,000, beyond every moment.
const TIME_END_SECONDS: i64 = 253_402_300_800;

/// The columns of a payment, in the order in which they are copied.
const COLUMN_TYPES: [Type; 6] = [
    Type::UUID,
    Type::NUMERIC,
    Type::TEXT,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
];

/// How far the archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The number of the last purge that it has carried out.
    pub purge: u64,
    /// By instance, the end of what it has.
    pub places: BTreeMap<u16, Position>,
}

/// The tables, as the archive of one volume.
pub struct Tables {
    volume: Uuid,
    months: Months,
}

/// The partitions of a table of payments, by months.
pub struct Months {
    table: &'static str,
    /// Those that are there.
    made: BTreeSet<Month>,
}

/// The number of the lock that one program at a time takes to make a partition: `paymonth` in ASCII.
const MONTHS_LOCK_NUMBER: i64 = 0x7061_796d_6f6e_7468;

/// The payments of an archive.
const PAYMENTS: &str = "payments";

/// A month in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Month {
    year: i16,
    number: i8,
    /// Its first second, and that of the next one, since 1970.
    seconds: (i64, i64),
}

impl Tables {
    /// The tables of this volume.
    #[must_use]
    pub fn new(volume: Uuid) -> Self {
        Self { volume, months: Months::of(PAYMENTS) }
    }

    /// Takes the archive up where it is, or begins it, after this number of purges.
    ///
    /// # Errors
    /// It is the archive of another volume, or the database refuses.
    pub async fn take_up(&self, client: &mut Client, purge: u64) -> Result<Standing, ArchiveError> {
        let failed = ArchiveError::sql("tell how far its archive is");
        let transaction = client.transaction().await.map_err(&failed)?;
        transaction
            .execute(
                "INSERT INTO archive (volume, purge) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                &[&self.volume, &signed(purge)],
            )
            .await
            .map_err(&failed)?;
        // Held before the places are read: a transaction of a lost connection may be under way, and
        // ends before this one goes on.
        let purge = self.hold(&transaction).await?;
        let rows = transaction
            .query("SELECT instance, place FROM archive_places", &[])
            .await
            .map_err(&failed)?;
        let places = rows.iter().map(place).collect::<Result<_, _>>()?;
        transaction.commit().await.map_err(failed)?;
        Ok(Standing { purge, places })
    }

    /// Writes a batch and the places that it was read up to.
    ///
    /// # Errors
    /// Someone else has changed the archive meanwhile, or the database refuses. It may be written all
    /// the same where the connection was lost.
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
        let Moved { instances, start, before, after } = Moved::of(batch);
        // Only a journal of which nothing is archived may be missing. So its start is put there, never
        // what this store takes for archived.
        transaction
            .execute(
                "INSERT INTO archive_places (instance, place) \
                 SELECT * FROM unnest($1::int[], $2::bigint[]) ON CONFLICT DO NOTHING",
                &[&instances, &start],
            )
            .await
            .map_err(&failed)?;
        let moved = transaction
            .execute(
                "UPDATE archive_places AS known SET place = moved.after \
                 FROM unnest($1::int[], $2::bigint[], $3::bigint[]) AS moved (instance, before, after) \
                 WHERE known.instance = moved.instance AND known.place = moved.before",
                &[&instances, &before, &after],
            )
            .await
            .map_err(&failed)?;
        demand_all_moved(batch, moved)?;
        copy(&transaction, PAYMENTS, &batch.payments).await?;
        transaction.commit().await.map_err(failed)
    }

    /// Empties the archive as the volume's purge with this number has emptied the journals, which go on
    /// from these places.
    ///
    /// # Errors
    /// Someone else has changed the archive meanwhile, or the database refuses.
    pub async fn purge(
        &self,
        client: &mut Client,
        before: u64,
        purge: u64,
        cuts: &BTreeMap<u16, Position>,
    ) -> Result<(), ArchiveError> {
        let failed = ArchiveError::sql("carry out a purge");
        let transaction = client.transaction().await.map_err(&failed)?;
        self.hold_after(&transaction, before).await?;
        transaction.batch_execute("TRUNCATE payments").await.map_err(&failed)?;
        transaction
            .execute("UPDATE archive SET purge = $1", &[&signed(purge)])
            .await
            .map_err(&failed)?;
        set_places(&transaction, cuts).await?;
        transaction.commit().await.map_err(failed)
    }

    /// Keeps others from changing the archive until the transaction ends, if it is that of this volume,
    /// and gives the number of its last purge.
    async fn hold(&self, transaction: &Transaction<'_>) -> Result<u64, ArchiveError> {
        let action = "say whose archive it has";
        let held = transaction
            .query_opt("SELECT volume, purge FROM archive FOR UPDATE", &[])
            .await
            .map_err(ArchiveError::sql(action))?;
        let Some(row) = held else {
            // The next connection begins the archive anew.
            let why = "the row in its table `archive` is gone".to_owned();
            return Err(ArchiveError::Database { action, why });
        };
        let theirs: Uuid = column(&row, 0)?;
        if theirs != self.volume {
            return Err(ArchiveError::OtherVolume { theirs, ours: self.volume });
        }
        unsigned(column(&row, 1)?)
    }

    /// The same, if the archive is as it was left after this number of purges.
    async fn hold_after(
        &self,
        transaction: &Transaction<'_>,
        purge: u64,
    ) -> Result<(), ArchiveError> {
        demand_purge(self.hold(transaction).await?, purge)
    }
}

impl Months {
    /// Those of this table, of which none is known to be there.
    #[must_use]
    pub fn of(table: &'static str) -> Self {
        Self { table, made: BTreeSet::new() }
    }

    /// Makes the partitions that these payments belong to.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn make(
        &mut self,
        client: &Client,
        payments: &[Payment],
    ) -> Result<(), ArchiveError> {
        // Those of a batch are nearly always of one month.
        let mut last: Option<Month> = None;
        for payment in payments {
            let seconds = payment.requested_at.get().div_euclid(1000);
            if last.is_some_and(|month| (month.seconds.0..month.seconds.1).contains(&seconds)) {
                continue;
            }
            let month = Month::of(payment.requested_at);
            if !self.made.contains(&month) {
                client
                    .batch_execute(&month.statement(self.table))
                    .await
                    .map_err(ArchiveError::sql("make a partition for a month"))?;
                self.made.insert(month);
            }
            last = Some(month);
        }
        Ok(())
    }
}

impl Month {
    /// The month of a moment.
    fn of(moment: TimestampMs) -> Self {
        let moment = Timestamp::from_millisecond(moment.get())
            .expect("what a TimestampMs may be, a Timestamp may be");
        let first = TimeZone::UTC.to_datetime(moment).date().first_of_month();
        let start = |first: Date| {
            TimeZone::UTC
                .to_timestamp(first.to_datetime(Time::midnight()))
                .map(Timestamp::as_second)
        };
        let seconds = start(first).expect("the first day of a month that is there");
        // The last month that there is has no next one.
        let next = first.last_of_month().tomorrow().and_then(start).unwrap_or(TIME_END_SECONDS);
        Self { year: first.year(), number: first.month(), seconds: (seconds, next) }
    }

    /// What makes its partition of a table.
    fn statement(self, table: &str) -> String {
        let Self { year, number, seconds: (first, next) } = self;
        // One at a time: two machines may need the month at the same moment, and the database looks whether
        // it exists before it locks anything.
        format!(
            "SELECT pg_advisory_xact_lock({MONTHS_LOCK_NUMBER}); \
             CREATE TABLE IF NOT EXISTS {table}_{year:04}_{number:02} PARTITION OF {table} \
             FOR VALUES FROM (to_timestamp({first})) TO (to_timestamp({next}))"
        )
    }
}

/// The journals' moves of a batch, as columns for `unnest`.
pub struct Moved {
    /// Whose journals.
    pub instances: Vec<i32>,
    /// Where they begin.
    pub start: Vec<i64>,
    /// The ends of what was there before.
    pub before: Vec<i64>,
    /// The ends of what is there now.
    pub after: Vec<i64>,
}

impl Moved {
    /// Those of this batch.
    #[must_use]
    pub fn of(batch: &Batch) -> Self {
        let places = |place: fn(&Move) -> Position| {
            batch.moves.iter().map(|moved| signed(place(moved).to_u64())).collect()
        };
        Self {
            instances: batch.moves.iter().map(|moved| i32::from(moved.instance)).collect(),
            start: places(|moved| moved.start),
            before: places(|moved| moved.before),
            after: places(|moved| moved.after),
        }
    }
}

/// Demands that so many changed places are all of a batch: each is changed only from where this store
/// believes it is.
///
/// # Errors
/// Someone else has changed one.
pub fn demand_all_moved(batch: &Batch, changed_count: u64) -> Result<(), ArchiveError> {
    if changed_count == batch.moves.len() as u64 {
        return Ok(());
    }
    let places = batch.moves.iter().map(|moved| (moved.instance, moved.before));
    Err(ArchiveError::taken_over(places))
}

/// Demands that the tables are as they were left after this number of purges.
///
/// # Errors
/// There was another purge, which another store has carried out.
pub fn demand_purge(theirs: u64, purge: u64) -> Result<(), ArchiveError> {
    if theirs == purge {
        Ok(())
    } else {
        Err(ArchiveError::TakenOver(format!("purge {purge} of this volume")))
    }
}

/// Instances and their places, as columns for `unnest`.
#[must_use]
pub fn place_columns(places: &BTreeMap<u16, Position>) -> (Vec<i32>, Vec<i64>) {
    places.iter().map(|(instance, place)| (i32::from(*instance), signed(place.to_u64()))).unzip()
}

/// Makes these the places of the archive, and no others.
///
/// # Errors
/// The database refuses.
pub async fn set_places(
    transaction: &Transaction<'_>,
    places: &BTreeMap<u16, Position>,
) -> Result<(), ArchiveError> {
    let failed = ArchiveError::sql("take the places of the journals");
    let (instances, places) = place_columns(places);
    transaction.execute("DELETE FROM archive_places", &[]).await.map_err(&failed)?;
    transaction
        .execute(
            "INSERT INTO archive_places (instance, place) \
             SELECT * FROM unnest($1::int[], $2::bigint[])",
            &[&instances, &places],
        )
        .await
        .map_err(failed)?;
    Ok(())
}

/// Copies payments into their table: half the time of INSERT, and nothing is compared, because what
/// was written before is known by the places. One that is there already is a fault, and an error.
///
/// # Errors
/// One is there already, or the database refuses.
pub async fn copy(
    transaction: &Transaction<'_>,
    table: &str,
    payments: &[Payment],
) -> Result<(), ArchiveError> {
    let failed = ArchiveError::sql("take a batch of payments");
    let sink = transaction
        .copy_in(&format!(
            "COPY {table} (correlation_id, amount, processor, requested_at, accepted_at, settled_at) \
             FROM STDIN (FORMAT binary)"
        ))
        .await
        .map_err(&failed)?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &COLUMN_TYPES));
    for payment in payments {
        let row: [&(dyn ToSql + Sync); 6] = [
            &Uuid::from_bytes(payment.id.to_bytes()),
            &Decimal::new(payment.amount.get(), AMOUNT_SCALE),
            &payment.processor.name(),
            &to_system_time(payment.requested_at),
            &payment.accepted_at.map(to_system_time),
            &to_system_time(payment.settled_at),
        ];
        writer.as_mut().write(&row).await.map_err(&failed)?;
    }
    writer.finish().await.map_err(failed)?;
    Ok(())
}

/// The moment as the database's library takes it, to the millisecond.
fn to_system_time(moment: TimestampMs) -> SystemTime {
    let milliseconds = Duration::from_millis(moment.get().unsigned_abs());
    if moment.get() < 0 { UNIX_EPOCH - milliseconds } else { UNIX_EPOCH + milliseconds }
}

/// A number as the database has it.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("there are fewer than 2^31 segments, and than 2^63 purges")
}

/// A number that is never negative.
///
/// # Errors
/// It is.
pub fn unsigned(number: i64) -> Result<u64, ArchiveError> {
    u64::try_from(number).map_err(|_| odd(format!("{number} is less than nothing")))
}

/// A journal and a place in it, from the first two columns of a row.
///
/// # Errors
/// It has none.
pub fn place(row: &Row) -> Result<(u16, Position), ArchiveError> {
    let (instance, place): (i32, i64) = (column(row, 0)?, column(row, 1)?);
    let instance = u16::try_from(instance)
        .map_err(|_| odd(format!("{instance} is no number of an instance")))?;
    Ok((instance, Position::from_u64(unsigned(place)?)))
}

/// What a column of a row has, unless a table is not the one that the archive made.
///
/// # Errors
/// It is empty, or of another type.
pub fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, ArchiveError> {
    row.try_get(index).map_err(|error| odd(with_causes(&error)))
}

fn odd(why: String) -> ArchiveError {
    ArchiveError::OddTable { action: "give what is in its tables", why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_month_has_a_partition_from_its_first_moment_to_that_of_the_next() {
        let november = Month::of(TimestampMs::clamped(1_764_547_199_999));
        assert_eq!((november.year, november.number), (2025, 11));
        assert_eq!(november.seconds, (1_761_955_200, 1_764_547_200));
        let december = Month::of(TimestampMs::clamped(1_764_547_200_000));
        assert_eq!((december.year, december.number), (2025, 12));
        assert_eq!(december.seconds.0, november.seconds.1);
        assert!(december.statement(PAYMENTS).contains("payments_2025_12 "));
    }

    #[test]
    fn every_moment_has_a_month() {
        for moment in [TimestampMs::MIN, TimestampMs::clamped(-1), TimestampMs::MAX] {
            let month = Month::of(moment);
            let seconds = moment.get().div_euclid(1000);
            assert!((month.seconds.0..month.seconds.1).contains(&seconds), "{month:?}");
        }
    }

    #[test]
    fn a_moment_keeps_its_millisecond() {
        for ms in [0, 1, -1, 1_764_547_199_999] {
            let moment = to_system_time(TimestampMs::clamped(ms));
            let back = match moment.duration_since(UNIX_EPOCH) {
                Ok(since) => i64::try_from(since.as_millis()).unwrap(),
                Err(before) => -i64::try_from(before.duration().as_millis()).unwrap(),
            };
            assert_eq!(back, ms);
        }
    }
}
