//! What a connection to the ledger is asked.
//!
//! Invariant: a row of `ledger_claims` never changes its volume. So once one is seen, whoever is of another
//! volume has lost for good; a purge removes rows of what was settled alone. Within a volume a row may pass from a record that a power cut took to one that
//! is there, unless the payment was settled.
//!
//! That the store holds the volume is looked at and not locked. One that is being taken over may have a claim
//! committed a moment later, as if it had come a moment sooner: both are the same volume's.

use std::collections::{BTreeMap, BTreeSet};

use ledger::journal::{Event, PaymentRecord, Position};
use ledger::{Cents, CorrelationId, Processor, RangeMs, TimestampMs, Totals};
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::{Losers, SharedError, spans};
use crate::archive::connection::Connection;
use crate::archive::error::ArchiveError;
use crate::archive::tables::{column, signed};

/// Adds what is not there, in the order of ids, so that two machines never wait for each other in a circle.
const CLAIM: &str = "WITH held AS (SELECT 1 FROM ledger_volumes WHERE volume = $1 AND holder = $2 AND purge = $6), \
    won AS (INSERT INTO ledger_claims (correlation_id, volume, instance, place) \
        SELECT wanted.id, $1, $3, wanted.place FROM unnest($4::uuid[], $5::bigint[]) \
            AS wanted (id, place) WHERE EXISTS (SELECT 1 FROM held) \
        ORDER BY wanted.id, wanted.place ON CONFLICT DO NOTHING RETURNING place) \
    SELECT EXISTS (SELECT 1 FROM held), coalesce((SELECT array_agg(place) FROM won), '{}')";
const OWNERS: &str = "SELECT correlation_id, volume, instance, place FROM ledger_claims \
    WHERE correlation_id = ANY($1::uuid[])";
const TAKE_OVER: &str = "UPDATE ledger_claims AS known SET instance = $3, place = gone.place \
    FROM unnest($4::uuid[], $5::int[], $6::bigint[], $7::bigint[]) \
        AS gone (id, instance, old_place, place) \
    WHERE known.correlation_id = gone.id AND known.volume = $1 AND known.instance = gone.instance \
        AND known.place = gone.old_place \
        AND EXISTS (SELECT 1 FROM ledger_volumes \
            WHERE volume = $1 AND holder = $2 AND purge = $8) \
        AND NOT EXISTS (SELECT 1 FROM ledger_payments AS settled WHERE settled.correlation_id = gone.id) \
    RETURNING known.correlation_id";
const SUM_OF_OTHERS: &str = "SELECT totals.processor, sum(totals.payments)::bigint, \
        sum(totals.cents)::bigint \
    FROM unnest($2::smallint[], $3::bigint[], $4::bigint[]) AS part (level, first, last) \
    JOIN ledger_totals AS totals ON totals.level = part.level \
        AND totals.start BETWEEN part.first AND part.last \
    WHERE totals.volume <> $1 GROUP BY totals.processor";
const LOOK: &str = "SELECT (amount * 100)::bigint, processor, \
        (extract(epoch FROM requested_at) * 1000)::bigint, \
        (extract(epoch FROM settled_at) * 1000)::bigint \
    FROM ledger_payments WHERE correlation_id = $1 LIMIT 1";

const HELD: &str = "SELECT 1 FROM ledger_volumes WHERE volume = $1 AND holder = $2";

/// Changes nothing, and is committed all the same, which is not confirmed before a synchronous standby has
/// it and all that was committed sooner.
const CONFIRM: &str = "UPDATE ledger_volumes SET holder = holder WHERE volume = $1 AND holder = $2";

/// Who claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimant {
    /// The volume.
    pub volume: Uuid,
    /// Its store.
    pub holder: Uuid,
    /// The number of the volume's last purge.
    pub purge: u64,
    /// The instance.
    pub instance: u16,
}

/// What has come of a claim. All that are not named have the right to their ids.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Those whose ids belong to another volume.
    pub losers: Losers,
    /// Those whose ids belong to another record of this volume, if that is still there.
    pub own: Vec<Gone>,
}

/// A record of this volume that has the right to an id, and another one that wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// The id.
    pub id: CorrelationId,
    /// The instance of the one that has it.
    pub instance: u16,
    /// The place of the one that has it.
    pub place: Position,
    /// The one that wants it.
    pub position: Position,
}

/// A connection with what is asked over it.
pub struct Session {
    connection: Connection,
    claim: Statement,
    owners: Statement,
    take_over: Statement,
    sum_of_others: Statement,
    look: Statement,
}

fn uuid(id: CorrelationId) -> Uuid {
    Uuid::from_bytes(id.to_bytes())
}

impl Session {
    /// Prepares everything that is asked.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn new(connection: Connection) -> Result<Self, ArchiveError> {
        let client = &connection.client;
        let prepare = async |sql| client.prepare(sql).await.map_err(ArchiveError::sql("prepare"));
        let claim = prepare(CLAIM).await?;
        let owners = prepare(OWNERS).await?;
        let take_over = prepare(TAKE_OVER).await?;
        let sum_of_others = prepare(SUM_OF_OTHERS).await?;
        let look = prepare(LOOK).await?;
        Ok(Self { connection, claim, owners, take_over, sum_of_others, look })
    }

    /// Whether the database has ended the connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client().is_closed()
    }

    fn client(&self) -> &Client {
        &self.connection.client
    }

    /// Claims the ids of payments, and finds out who has those that are taken.
    ///
    /// # Errors
    /// The database refuses, or another store has taken the volume over.
    pub async fn claim(
        &self,
        Claimant { volume, holder, purge, instance }: Claimant,
        payments: &[(Position, CorrelationId)],
    ) -> Result<Claimed, SharedError> {
        let failed = ArchiveError::sql("decide");
        let ids: Vec<Uuid> = payments.iter().map(|(_, id)| uuid(*id)).collect();
        let places: Vec<i64> = payments.iter().map(|(place, _)| signed(place.to_u64())).collect();
        let number = i32::from(instance);
        let row = self
            .client()
            .query_one(&self.claim, &[&volume, &holder, &number, &ids, &places, &signed(purge)])
            .await
            .map_err(&failed)?;
        if !column::<bool>(&row, 0)? {
            return Err(self.why_not_held(volume, holder).await?);
        }
        let won: BTreeSet<i64> = column::<Vec<i64>>(&row, 1)?.into_iter().collect();
        let taken: Vec<(Position, CorrelationId)> = payments
            .iter()
            .filter(|(place, _)| !won.contains(&signed(place.to_u64())))
            .copied()
            .collect();
        if taken.is_empty() {
            return Ok(Claimed::default());
        }
        // Whoever was first has committed, because the insert has waited for that.
        let ids: Vec<Uuid> = taken.iter().map(|(_, id)| uuid(*id)).collect();
        let rows = self.client().query(&self.owners, &[&ids]).await.map_err(failed)?;
        let mut owners = BTreeMap::new();
        for row in rows {
            let owner: (Uuid, i32, i64) = (column(&row, 1)?, column(&row, 2)?, column(&row, 3)?);
            owners.insert(column::<Uuid>(&row, 0)?, owner);
        }
        let mut claimed = Claimed::default();
        for (position, id) in taken {
            let Some((owner, by, old_place)) = owners.get(&uuid(id)).copied() else {
                // A purge of its volume took it out meanwhile.
                return Err(SharedError::Changed);
            };
            if owner != volume {
                claimed.losers.insert(position);
            } else if (by, old_place) != (number, signed(position.to_u64())) {
                let odd = || SharedError::Odd(format!("that {id} belongs to no journal"));
                let instance = u16::try_from(by).map_err(|_| odd())?;
                let place = u64::try_from(old_place).map_err(|_| odd())?;
                let place = Position::from_u64(place);
                claimed.own.push(Gone { id, instance, place, position });
            }
        }
        Ok(claimed)
    }

    /// Why the database does not take this store for the one that holds the volume after its last purge.
    async fn why_not_held(&self, volume: Uuid, holder: Uuid) -> Result<SharedError, SharedError> {
        let held = self.client().query_opt(HELD, &[&volume, &holder]).await;
        let held = held.map_err(ArchiveError::sql("say whose the volume is"))?;
        Ok(if held.is_some() { SharedError::Purging } else { SharedError::TakenOver })
    }

    /// Gives the rights of records that are gone to others of the volume, and gives the places of those
    /// that have lost all the same, because the payment was settled.
    ///
    /// # Errors
    /// The database refuses, or it was changed meanwhile.
    pub async fn take_over(
        &self,
        Claimant { volume, holder, purge, instance }: Claimant,
        gone: &[Gone],
    ) -> Result<Losers, SharedError> {
        let ids: Vec<Uuid> = gone.iter().map(|gone| uuid(gone.id)).collect();
        let instances: Vec<i32> = gone.iter().map(|gone| i32::from(gone.instance)).collect();
        let old_places: Vec<i64> = gone.iter().map(|gone| signed(gone.place.to_u64())).collect();
        let places: Vec<i64> = gone.iter().map(|gone| signed(gone.position.to_u64())).collect();
        let instance = i32::from(instance);
        let rows = self
            .client()
            .query(
                &self.take_over,
                &[
                    &volume,
                    &holder,
                    &instance,
                    &ids,
                    &instances,
                    &old_places,
                    &places,
                    &signed(purge),
                ],
            )
            .await
            .map_err(ArchiveError::sql("decide"))?;
        let mut taken = BTreeSet::new();
        for row in rows {
            taken.insert(column::<Uuid>(&row, 0)?);
        }
        let mut losers = Losers::new();
        for gone in gone.iter().filter(|gone| !taken.contains(&uuid(gone.id))) {
            if self.look(gone.id).await?.is_none() {
                return Err(SharedError::Changed);
            }
            losers.insert(gone.position);
        }
        Ok(losers)
    }

    /// Waits until a synchronous standby, if there is one, has all that the database shows.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn confirm(&self, volume: Uuid, holder: Uuid) -> Result<(), ArchiveError> {
        let confirmed = self.client().execute(CONFIRM, &[&volume, &holder]).await;
        confirmed.map(drop).map_err(ArchiveError::sql("say that all is at its standby"))
    }

    /// The id of the ledger.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn ledger_id(&self) -> Result<Uuid, SharedError> {
        let row = self.client().query_one("SELECT id FROM ledger", &[]).await;
        Ok(column(&row.map_err(ArchiveError::sql("tell which ledger it has"))?, 0)?)
    }

    /// What all volumes but this one have settled in a span.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn sum_of_others(
        &self,
        volume: Uuid,
        range: RangeMs,
    ) -> Result<[Totals; 2], SharedError> {
        let parts = spans::parts(range);
        let levels: Vec<i16> = parts.iter().map(|part| part.level).collect();
        let first: Vec<i64> = parts.iter().map(|part| part.first).collect();
        let last: Vec<i64> = parts.iter().map(|part| part.last).collect();
        let rows = self
            .client()
            .query(&self.sum_of_others, &[&volume, &levels, &first, &last])
            .await
            .map_err(ArchiveError::sql("add up"))?;
        let mut sums = [Totals::default(); 2];
        for row in rows {
            let name: &str = column(&row, 0)?;
            let (count, amount): (i64, i64) = (column(&row, 1)?, column(&row, 2)?);
            let odd = || SharedError::Odd(format!("{count} payments of processor {name}"));
            let processor = Processor::from_name(name).ok_or_else(odd)?;
            let count = u64::try_from(count).map_err(|_| odd())?;
            sums[processor.index()] = Totals { count, amount: Cents::new(amount) };
        }
        Ok(sums)
    }

    /// What is known of a payment that was settled.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn look(&self, id: CorrelationId) -> Result<Option<PaymentRecord>, SharedError> {
        let row = self
            .client()
            .query_opt(&self.look, &[&uuid(id)])
            .await
            .map_err(ArchiveError::sql("look up a payment"))?;
        let Some(row) = row else { return Ok(None) };
        let (amount, name): (i64, &str) = (column(&row, 0)?, column(&row, 1)?);
        let (requested_at, settled_at): (i64, i64) = (column(&row, 2)?, column(&row, 3)?);
        let odd = || SharedError::Odd(format!("that {id} has {amount} cents, by processor {name}"));
        let event = Event::Settled {
            processor: Processor::from_name(name).ok_or_else(odd)?,
            requested_at: TimestampMs::clamped(requested_at),
        };
        let amount = Some(Cents::new(amount)).filter(|it| it.is_payment_amount());
        let amount = amount.ok_or_else(odd)?;
        Ok(Some(PaymentRecord { id, amount, written_at: TimestampMs::clamped(settled_at), event }))
    }
}
