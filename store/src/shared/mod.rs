//! The ledger that several machines share: a PostgreSQL database that decides, for all of them, which
//! accepted payment has the right to its id, and has the totals of all.
//!
//! Each machine has its balancer, APIs, journals and store. The store is on its machine what it is without a
//! ledger, but for two things: a right to an id is an insert that the database's unique key decides, and a
//! summary adds what the other machines have settled. What is settled here is written there by a thread
//! that follows the journals, as for an archive.
//!
//! Invariants:
//! - No API hears of a right before it is committed in the database. What was committed and not heard of is
//!   asked again, and answered alike: a claim is the place of a record in a journal.
//! - The answer to a summary has what was settled here by every record that was written before the
//!   question, and what the others had written to the database.

pub mod claiming;
pub mod membership;
pub mod spans;
pub mod tables;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ledger::journal::{PaymentRecord, Position};
use ledger::money::TotalOverflow;
use ledger::protocol::Request;
use ledger::volume::Volume;
use ledger::{CorrelationId, RangeMs, Totals};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::archive::connection::{Connecting, STEP_PATIENCE, within};
use crate::archive::error::ArchiveError;
use crate::archive::follow::{Pauses, Target};
use crate::archive::identity;
use crate::archive::url::DatabaseUrl;
use crate::archive::{Archive, Progress};
use claiming::{Claimant, Claimed, Gone, Session};

/// How long the database may take to decide. It has a limit of its own that is longer.
const CLAIM_PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to answer a question: less than an API waits.
const QUESTION_PATIENCE: Duration = Duration::from_millis(900);
/// How long the start of the store waits for the first connection.
const START_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether the connection is still there.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The volume has decided by itself.
    #[error(
        "{path} has payments that no ledger knows, and only a new volume can join one: give this store \
         another --data, or start it without --database"
    )]
    NotNew {
        /// What says so: the claim log, the volume's id, or a journal.
        path: PathBuf,
    },
    /// The volume has joined a ledger.
    #[error(
        "this volume has joined a shared ledger ({path} says which), and nobody may decide without it: \
         start the store with --database"
    )]
    IsShared {
        /// The file.
        path: PathBuf,
    },
    /// The volume has joined another ledger.
    #[error(
        "the database has ledger {theirs}, and this volume has joined ledger {ours}: check the URL of \
         --database"
    )]
    OtherLedger {
        /// The ledger of this database.
        theirs: Uuid,
        /// The ledger that the volume has joined.
        ours: Uuid,
    },
    /// The ledger does not know a volume that has joined.
    #[error(
        "the ledger does not know volume {volume}, which has joined it: it is older than that, such as a \
         copy that was brought back, and does not know what was decided since. Bring back a later one"
    )]
    Forgotten {
        /// The id of this volume.
        volume: Uuid,
    },
    /// A newer store holds the volume.
    #[error(
        "another store has taken this volume over, as after a move to another machine: this one decides \
         nothing any more. Stop it, or if it is the right one, stop the other and start this one again"
    )]
    TakenOver,
    /// What the volume says of its ledger was not written by a store.
    #[error(
        "{path} does not have the id of a ledger: {why}. Bring the file back from a copy, or write into \
         it what `SELECT id FROM ledger` says in the ledger's database"
    )]
    NoMembership {
        /// The file.
        path: PathBuf,
        /// What is wrong with its text.
        why: uuid::Error,
    },
    /// The volume is an older copy.
    #[error(
        "the ledger has more than this volume ({0}): it is an older copy, which does not know what was \
         sent since. Bring back a later one; if there is none, begin a new volume, and have what was open on \
         this one looked up at the processors"
    )]
    Older(String),
    /// Segments that were not written to the ledger are gone.
    #[error(
        "segments {first} to {last} of {journal} are gone, and what was settled in them is not in the ledger: \
         bring them back from a copy. No other database can be used in its place, because this one knows \
         what was decided"
    )]
    Missing {
        /// The journal.
        journal: String,
        /// The first segment that is gone.
        first: u32,
        /// The last one.
        last: u32,
    },
    /// A table of the ledger is another, or was changed.
    #[error(
        "the ledger's database cannot {action}: a table is not as the store made it ({why}). Find out who \
         made or changed it, and put it right; no other database can be used in its place, because this one \
         knows what was decided"
    )]
    OddTable {
        /// What was asked of the database.
        action: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A payment that is to be written to the ledger is there.
    #[error(
        "the ledger has a payment as settled that this volume has settled, and has not written ({0}). Find \
         out who wrote it before anything is changed; the journals have everything"
    )]
    Conflict(String),
    /// What follows the journals has ended.
    #[error("nothing is written to the ledger any more, for the reason that was logged")]
    NotFollowed,
    /// The volume was purged, and the ledger not yet.
    #[error("a purge of this volume is being carried out in the ledger")]
    Purging,
    /// A right was given by someone else meanwhile.
    #[error("the ledger has changed meanwhile")]
    Changed,
    /// The database is not reached.
    #[error("the ledger's database is away: {0}")]
    Away(String),
    /// The database's answers contradict each other.
    #[error("the ledger's database says {0}")]
    Odd(String),
    /// The database, or a file.
    #[error(transparent)]
    Database(ArchiveError),
    /// Totals of all machines do not fit.
    #[error(transparent)]
    Total(#[from] TotalOverflow),
}

impl From<ArchiveError> for SharedError {
    /// What is right for an archive, to give the store another database, is wrong for a ledger.
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Ahead(what) => Self::Older(what),
            ArchiveError::Missing { journal, first, last } => {
                Self::Missing { journal, first, last }
            }
            ArchiveError::OddTable { action, why } => Self::OddTable { action, why },
            ArchiveError::Conflict(what) => Self::Conflict(what),
            ArchiveError::PurgedBeyond { theirs, ours } => {
                Self::Older(format!("purge {theirs}, and this volume's last one is {ours}"))
            }
            ArchiveError::TakenOver(_) => Self::TakenOver,
            error => Self::Database(error),
        }
    }
}

impl SharedError {
    /// Whether another connection could be better. A question that took too long may have waited for a
    /// claim, and is no reason.
    fn speaks_against_the_connection(&self, patience: Duration) -> bool {
        match self {
            Self::Database(ArchiveError::TimedOut { .. }) => patience > QUESTION_PATIENCE,
            Self::Odd(_) | Self::Changed | Self::Purging => false,
            _ => true,
        }
    }

    /// Whether it may be over by itself.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Away(_) | Self::Changed | Self::Purging => true,
            Self::Database(error) => error.is_passing(),
            _ => false,
        }
    }
}

/// The ledger as the store of one volume uses it.
pub struct SharedLedger {
    volume: Volume,
    id: Uuid,
    /// This store, as the database knows it: whoever comes later takes the volume over.
    holder: Uuid,
    boot_id: [u8; 16],
    connecting: Connecting,
    /// The connection, or why there is none.
    session: RefCell<Result<Rc<Session>, String>>,
    /// Why it never will be there again.
    over: RefCell<Option<SharedError>>,
    lost: Notify,
    /// The first attempt to connect has succeeded or failed.
    tried: Notify,
    /// What writes to the ledger, once it was reached.
    follower: RefCell<Option<Archive>>,
    /// How far that is.
    progress: Arc<Progress>,
}

impl SharedLedger {
    /// Lets the volume, whose store's lock this process holds, use the ledger at this address.
    ///
    /// # Errors
    /// There is nobody to trust for TLS, or a file cannot be read or written.
    pub fn new(
        volume: Volume,
        boot_id: [u8; 16],
        url: &DatabaseUrl,
        ca: Option<&Path>,
    ) -> Result<Self, SharedError> {
        Ok(Self {
            id: identity::of(&volume)?,
            holder: identity::random_id()?,
            volume,
            boot_id,
            connecting: Connecting::new(url, ca)?,
            session: RefCell::new(Err("it was not reached yet".to_owned())),
            over: RefCell::new(None),
            lost: Notify::new(),
            tried: Notify::new(),
            follower: RefCell::new(None),
            progress: Arc::default(),
        })
    }

    /// Keeps a connection from now on, and waits a short time for the first. The task is to be ended by
    /// its handle.
    pub async fn keep_connected(self: &Rc<Self>) -> JoinHandle<()> {
        let ledger = Rc::clone(self);
        let connecting = spawn_local(async move { ledger.connect_again_and_again().await });
        // If it takes longer, claims and questions are refused until it is there.
        let _ = timeout(START_PATIENCE, self.tried.notified()).await;
        connecting
    }

    /// Lets the writing to the ledger end with the batch under way.
    pub async fn end(&self) {
        let follower = self.follower.borrow_mut().take();
        if let Some(follower) = follower {
            follower.end().await;
        }
    }

    async fn connect_again_and_again(&self) {
        let mut pauses = Pauses::new(fastrand::Rng::new());
        let mut was_away = false;
        while self.over.borrow().is_none() {
            let connected = self.connect().await;
            self.tried.notify_one();
            match connected {
                Ok(()) => {
                    pauses.reset();
                    let how = if was_away { "reached again" } else { "reached" };
                    tracing::info!("the ledger is {how}");
                    was_away = false;
                    self.wait_until_lost().await;
                    if let Err(why) = &*self.session.borrow() {
                        tracing::warn!("the connection to the ledger is given up: {why}");
                    }
                }
                Err(error) => {
                    if error.is_passing() && !was_away {
                        tracing::warn!("no payment is sent: {error}. It is tried again");
                    }
                    was_away = true;
                    *self.session.borrow_mut() = Err(error.to_string());
                    if error.is_passing() {
                        sleep(pauses.take()).await;
                    } else {
                        *self.over.borrow_mut() = Some(error);
                    }
                }
            }
        }
        if let Some(error) = &*self.over.borrow() {
            tracing::error!("no payment is sent any more: {error}");
        }
    }

    /// Connects. The first time the volume joins, and what is settled is written from then on.
    async fn connect(&self) -> Result<(), SharedError> {
        let mut connection = self.connecting.connect().await?;
        let is_first = self.follower.borrow().is_none();
        if is_first {
            let client = &mut connection.client;
            let joining = tables::join(client, &self.volume, (self.id, self.holder));
            let purge = timeout(STEP_PATIENCE, joining)
                .await
                .map_err(|_| SharedError::Away("it does not take the volume in".to_owned()))??;
            self.progress.set_purged(purge);
            let target = Target::Ledger { holder: self.holder };
            let connecting = self.connecting.clone();
            let follower = Archive::follow(
                self.volume.clone(),
                self.boot_id,
                connecting,
                target,
                Arc::clone(&self.progress),
            )?;
            *self.follower.borrow_mut() = Some(follower);
        }
        let session = within("prepare statements", STEP_PATIENCE, Session::new(connection)).await?;
        if !is_first {
            // Another database may be reached under the same name by now.
            let theirs = timeout(STEP_PATIENCE, session.ledger_id())
                .await
                .map_err(|_| SharedError::Away("it does not tell which it is".to_owned()))??;
            membership::demand(&self.volume, theirs)?;
            // A primary that was started again shows what it committed before its standby had it. If the standby
            // then takes its place, that is gone; so nothing is believed before all of it is there. Joining has
            // seen to that.
            within(
                "say that all is at its standby",
                STEP_PATIENCE,
                session.confirm(self.id, self.holder),
            )
            .await?;
        }
        *self.session.borrow_mut() = Ok(Rc::new(session));
        Ok(())
    }

    async fn wait_until_lost(&self) {
        let session = self.session.borrow().clone();
        while session.as_ref().is_ok_and(|session| !session.is_closed()) {
            if self.progress.is_over() {
                *self.session.borrow_mut() = Err(SharedError::NotFollowed.to_string());
                *self.over.borrow_mut() = Some(SharedError::NotFollowed);
                return;
            }
            if timeout(LOOK_INTERVAL, self.lost.notified()).await.is_ok() {
                break;
            }
        }
        let mut session = self.session.borrow_mut();
        if session.is_ok() {
            *session = Err("the connection was lost".to_owned());
        }
    }

    /// Whether the database can be asked.
    ///
    /// # Errors
    /// It is away.
    pub fn is_there(&self) -> Result<(), SharedError> {
        self.session().map(drop)
    }

    /// Whether the ledger has carried out the volume's purge with this number. Before, it may have ids as
    /// settled that were purged.
    ///
    /// # Errors
    /// It has not, or that is not known yet.
    pub fn demand_purged(&self, purge: u64) -> Result<(), SharedError> {
        if self.progress.purged() == Some(purge) { Ok(()) } else { Err(SharedError::Purging) }
    }

    /// How far what was settled here is written to it.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    fn session(&self) -> Result<Rc<Session>, SharedError> {
        self.session.borrow().clone().map_err(SharedError::Away)
    }

    /// Does something over the connection, which is given up if that fails.
    async fn ask<T>(
        &self,
        action: &'static str,
        patience: Duration,
        question: impl AsyncFnOnce(&Session) -> Result<T, SharedError>,
    ) -> Result<T, SharedError> {
        let session = self.session()?;
        let answer = timeout(patience, question(&session)).await.unwrap_or_else(|_| {
            let seconds = patience.as_secs().max(1);
            Err(ArchiveError::TimedOut { action, seconds }.into())
        });
        if let Err(error) = &answer
            && error.speaks_against_the_connection(patience)
        {
            let is_current =
                matches!(&*self.session.borrow(), Ok(now) if Rc::ptr_eq(now, &session));
            if is_current {
                *self.session.borrow_mut() = Err(error.to_string());
                if let SharedError::TakenOver = error {
                    *self.over.borrow_mut() = Some(SharedError::TakenOver);
                }
                self.lost.notify_one();
            }
        }
        answer
    }

    /// Claims the ids of accepted payments of an instance, after this number of purges.
    ///
    /// # Errors
    /// The database is away, or another store has taken the volume over. Rights may have been given all
    /// the same; to ask again is right.
    pub async fn claim(
        &self,
        (instance, purge): (u16, u64),
        payments: &[(Position, CorrelationId)],
    ) -> Result<Claimed, SharedError> {
        if payments.is_empty() {
            return Ok(Claimed::default());
        }
        let by = Claimant { volume: self.id, holder: self.holder, purge, instance };
        self.ask("decide", CLAIM_PATIENCE, async |session| session.claim(by, payments).await).await
    }

    /// Gives the rights of records that are gone, which a power cut took, to those that are there, and
    /// gives those that have lost all the same.
    ///
    /// # Errors
    /// As for [`SharedLedger::claim`].
    pub async fn take_over(
        &self,
        (instance, purge): (u16, u64),
        gone: &[Gone],
    ) -> Result<Losers, SharedError> {
        if gone.is_empty() {
            return Ok(Losers::new());
        }
        let by = Claimant { volume: self.id, holder: self.holder, purge, instance };
        self.ask("decide", CLAIM_PATIENCE, async |session| session.take_over(by, gone).await).await
    }

    /// What all other volumes have settled in a span of time, by [`ledger::Processor::index`].
    ///
    /// # Errors
    /// The database is away.
    pub async fn sum_of_others(&self, range: RangeMs) -> Result<[Totals; 2], SharedError> {
        let id = self.id;
        self.ask("add up", QUESTION_PATIENCE, async |session| {
            session.sum_of_others(id, range).await
        })
        .await
    }

    /// What is known of a payment that another volume has settled.
    ///
    /// # Errors
    /// The database is away.
    pub async fn look(&self, id: CorrelationId) -> Result<Option<PaymentRecord>, SharedError> {
        self.ask("look up a payment", QUESTION_PATIENCE, async |session| session.look(id).await)
            .await
    }
}

/// Whether a question cannot be answered without the ledger.
#[must_use]
pub fn concerns(request: &Request) -> bool {
    match request {
        Request::Claim { .. } | Request::Summarize(_) | Request::Look(_) => true,
        Request::Hello { .. }
        | Request::Purge
        | Request::PurgePrepared { .. }
        | Request::Trace(_) => false,
    }
}

/// The sum of both sides' totals.
///
/// # Errors
/// A total does not fit.
pub fn add(here: [Totals; 2], others: [Totals; 2]) -> Result<[Totals; 2], SharedError> {
    let [default, fallback] = [0, 1].map(|side| here[side].checked_add(others[side]));
    Ok([default?, fallback?])
}

/// The places of payments that have no right.
pub type Losers = BTreeSet<Position>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_advice_that_is_right_for_an_archive_is_given_for_a_ledger() {
        let what = || "api-1 up to 3:7".to_owned();
        let odd = || ArchiveError::OddTable { action: "decide", why: what() };
        let missing = || ArchiveError::Missing { journal: what(), first: 1, last: 2 };
        let errors = [
            ArchiveError::Ahead(what()),
            ArchiveError::TakenOver(what()),
            ArchiveError::Conflict(what()),
            ArchiveError::PurgedBeyond { theirs: 2, ours: 1 },
            odd(),
            missing(),
        ];
        for error in errors {
            let of_ledger = Target::Ledger { holder: Uuid::nil() }.reason(error);
            for wrong in ["archive", "store restore", "empty database", "database of its own"] {
                assert!(!of_ledger.contains(wrong), "{of_ledger}");
            }
        }
        for error in [odd(), missing()] {
            let of_archive = Target::Archive.reason(error);
            assert!(of_archive.contains("give"), "{of_archive}");
        }
        let away = ArchiveError::TimedOut { action: "decide", seconds: 10 };
        assert!(SharedError::from(away).is_passing());
    }
}
