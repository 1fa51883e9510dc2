//! The desk: what each connected API instance asks, and what it is answered; and the one thing that
//! takes all of them, a purge.
//!
//! A purge needs that nobody sends a payment while the books are cut. So every connected instance is
//! first asked to send nothing new; once all have agreed, the books are cut, and all hear where. An
//! instance that runs but cannot be asked stops the purge: then nothing is purged.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::Discriminant;

use ledger::journal::Position;
use ledger::protocol::{NOTICE, PROTOCOL_VERSION, Request, Response};
use ledger::volume::instance_name;

use crate::books::{Books, BooksError, BooksStanding};
use crate::claims::ClaimsError;
use crate::decisions::Undecided;

/// The number of a connection, unique while the store runs.
pub type ConnectionNumber = u64;

/// A frame for a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// Who gets it.
    pub connection: ConnectionNumber,
    /// The request that it answers, or [`NOTICE`].
    pub number: u32,
    /// What it says.
    pub response: Response,
}

/// A purge that waits for instances to agree.
struct PendingPurge {
    /// Which one it is, of all since the store was started.
    serial: u64,
    /// Who asked, and under which number.
    requester: (ConnectionNumber, u32),
    /// Connections that have not agreed yet.
    waiting: BTreeSet<ConnectionNumber>,
    /// Connections that have.
    agreed: BTreeSet<ConnectionNumber>,
}

/// Everything that connections share.
pub struct Desk {
    books: Books,
    /// Connections that said who they are.
    instances: BTreeMap<ConnectionNumber, u16>,
    purge: Option<PendingPurge>,
    purges_count: u64,
    /// Why claims cannot be decided upon, as it was told last.
    told: Option<Discriminant<ClaimsError>>,
}

impl Desk {
    /// A desk over these books, with nobody connected.
    #[must_use]
    pub fn new(books: Books) -> Self {
        Self { books, instances: BTreeMap::new(), purge: None, purges_count: 0, told: None }
    }

    /// The books.
    pub fn books(&mut self) -> &mut Books {
        &mut self.books
    }

    /// The purge that waits for instances to agree, if there is one.
    #[must_use]
    pub fn pending_purge(&self) -> Option<u64> {
        self.purge.as_ref().map(|purge| purge.serial)
    }

    /// How many instances are connected.
    #[must_use]
    pub fn instances_count(&self) -> usize {
        self.instances.len()
    }

    /// How the books stand.
    #[must_use]
    pub fn standing(&self) -> BooksStanding {
        self.books.standing()
    }

    /// Answers a request.
    ///
    /// # Errors
    /// The books cannot be kept any more.
    pub fn handle(
        &mut self,
        connection: ConnectionNumber,
        number: u32,
        request: Request,
    ) -> Result<Vec<Reply>, BooksError> {
        let response = match request {
            Request::Hello { version, instance } => self.hello(connection, version, instance)?,
            Request::Claim { through } => self.claim(connection, through)?,
            Request::Summarize(range) => Response::Summary(self.books.sum(range)?),
            Request::Look(id) => Response::Payment(self.books.look(id)?),
            Request::Trace(id) => Response::Traced(self.books.trace(id)?),
            Request::Purge => return self.begin_purge(connection, number),
            Request::PurgePrepared { serial } => return self.prepared(connection, serial),
        };
        Ok(vec![Reply { connection, number, response }])
    }

    fn hello(
        &mut self,
        connection: ConnectionNumber,
        version: u16,
        instance: u16,
    ) -> Result<Response, BooksError> {
        if version != PROTOCOL_VERSION {
            return Ok(Response::Refused(format!(
                "this store speaks version {PROTOCOL_VERSION} of the protocol, not {version}"
            )));
        }
        if instance == 0 {
            return Ok(Response::Refused("instances are numbered from 1".to_owned()));
        }
        let notice = self.books.greet(instance)?;
        // What still comes from the process before, or over its connection before, counts no more: an
        // answer would be lost, and with it who lost.
        self.instances.retain(|_, other| *other != instance);
        self.instances.insert(connection, instance);
        let api = instance_name(instance);
        tracing::info!(%api, "{api} is connected");
        Ok(Response::Welcome(notice))
    }

    /// What a connection's instance asks for, where it is decided elsewhere; or what it is answered at
    /// once.
    ///
    /// # Errors
    /// The books cannot be kept any more.
    pub fn begin_claim(
        &mut self,
        connection: ConnectionNumber,
        through: Position,
    ) -> Result<Result<(u16, Undecided), Response>, BooksError> {
        match self.instances.get(&connection) {
            None => Ok(Err(refused_stranger())),
            Some(instance) => {
                let instance = *instance;
                let undecided = self.books.undecided(instance, through)?;
                Ok(self.refuse_or(undecided).map(|undecided| (instance, undecided)))
            }
        }
    }

    /// The response to a claim that cannot be decided upon now. The log has why, and when it is over.
    fn refuse_or<T>(&mut self, decided: Result<T, ClaimsError>) -> Result<T, Response> {
        let why = decided.as_ref().err().map(std::mem::discriminant);
        if why != std::mem::replace(&mut self.told, why) {
            match &decided {
                Ok(_) => tracing::info!("claims can be decided again"),
                Err(error) => {
                    tracing::error!(
                        "{error}. What is not decided upon yet waits until that is over"
                    );
                }
            }
        }
        decided.map_err(|error| Response::Refused(error.to_string()))
    }

    /// Takes in what was decided elsewhere upon what [`Desk::begin_claim`] gave, and gives the answer.
    /// `None` where the instance has another connection by now, which claims anew.
    ///
    /// # Errors
    /// The books cannot be kept any more.
    pub fn end_claim(
        &mut self,
        connection: ConnectionNumber,
        instance: u16,
        through: Position,
        losers: &BTreeSet<Position>,
    ) -> Result<Option<Response>, BooksError> {
        if self.instances.get(&connection) != Some(&instance) {
            return Ok(None);
        }
        let decided = self.books.decide_as(instance, through, losers)?;
        Ok(Some(Response::Claimed { through: decided.through, losers: decided.losers }))
    }

    fn claim(
        &mut self,
        connection: ConnectionNumber,
        through: Position,
    ) -> Result<Response, BooksError> {
        let Some(instance) = self.instances.get(&connection) else {
            return Ok(refused_stranger());
        };
        let decided = self.books.claim(*instance, through)?;
        Ok(self.refuse_or(decided).map_or_else(
            |refused| refused,
            |decided| Response::Claimed { through: decided.through, losers: decided.losers },
        ))
    }

    fn begin_purge(
        &mut self,
        connection: ConnectionNumber,
        number: u32,
    ) -> Result<Vec<Reply>, BooksError> {
        if self.purge.is_some() {
            let response = Response::Refused("another purge is under way".to_owned());
            return Ok(vec![Reply { connection, number, response }]);
        }
        let waiting: BTreeSet<_> = self.instances.keys().copied().collect();
        self.purges_count += 1;
        let prepare = Response::PreparePurge { serial: self.purges_count };
        let notices = waiting.iter().map(|connection| notice(*connection, prepare.clone()));
        let mut replies: Vec<_> = notices.collect();
        self.purge = Some(PendingPurge {
            serial: self.purges_count,
            requester: (connection, number),
            waiting,
            agreed: BTreeSet::new(),
        });
        replies.extend(self.purge_if_all_agreed()?);
        Ok(replies)
    }

    fn prepared(
        &mut self,
        connection: ConnectionNumber,
        serial: u64,
    ) -> Result<Vec<Reply>, BooksError> {
        // One that comes late agrees to a purge that was given up, and not to the next.
        if let Some(purge) = &mut self.purge
            && purge.serial == serial
            && purge.waiting.remove(&connection)
        {
            purge.agreed.insert(connection);
        }
        self.purge_if_all_agreed()
    }

    /// Carries a purge out once every instance that runs has agreed.
    fn purge_if_all_agreed(&mut self) -> Result<Vec<Reply>, BooksError> {
        let Some(purge) = &self.purge else { return Ok(Vec::new()) };
        if !purge.waiting.is_empty() {
            return Ok(Vec::new());
        }
        let agreed: Vec<u16> =
            purge.agreed.iter().filter_map(|number| self.instances.get(number)).copied().collect();
        if let Some(running) = self.books.running_besides(&agreed)?.first() {
            let why = format!("{} runs and is not connected", instance_name(*running));
            return Ok(self.abort_purge(&why));
        }
        if let Err(error) = self.books.purge()? {
            return Ok(self.abort_purge(&error.to_string()));
        }
        let (requester, number) = match self.purge.take() {
            Some(purge) => purge.requester,
            None => return Ok(Vec::new()),
        };
        tracing::info!("everything was purged");
        let mut replies: Vec<_> = self
            .instances
            .iter()
            .map(|(connection, instance)| {
                let response = Response::PurgeNotice(self.books.purge_notice(*instance));
                notice(*connection, response)
            })
            .collect();
        replies.push(Reply { connection: requester, number, response: Response::Purged });
        Ok(replies)
    }

    /// Gives a pending purge up, for this reason.
    pub fn abort_purge(&mut self, why: &str) -> Vec<Reply> {
        let Some(purge) = self.purge.take() else { return Vec::new() };
        let why = format!("nothing was purged: {why}");
        tracing::warn!("{why}");
        let (requester, number) = purge.requester;
        let mut replies: Vec<_> = self
            .instances
            .keys()
            .map(|connection| notice(*connection, Response::PurgeAborted))
            .collect();
        let response = Response::Refused(why);
        replies.push(Reply { connection: requester, number, response });
        replies
    }

    /// Gives this purge up, if it is still pending, because it waited too long.
    pub fn purge_timed_out(&mut self, serial: u64) -> Vec<Reply> {
        let names: Vec<_> = match &self.purge {
            Some(purge) if purge.serial == serial => purge
                .waiting
                .iter()
                .filter_map(|connection| self.instances.get(connection))
                .map(|instance| instance_name(*instance))
                .collect(),
            _ => return Vec::new(),
        };
        self.abort_purge(&format!("{} did not answer", names.join(" and ")))
    }

    /// Takes in that a connection ended.
    ///
    /// # Errors
    /// The books cannot be kept any more.
    pub fn leave(&mut self, connection: ConnectionNumber) -> Result<Vec<Reply>, BooksError> {
        if let Some(instance) = self.instances.remove(&connection) {
            let api = instance_name(instance);
            tracing::info!(%api, "{api} is disconnected");
        }
        if let Some(purge) = &mut self.purge {
            purge.waiting.remove(&connection);
            purge.agreed.remove(&connection);
        }
        self.purge_if_all_agreed()
    }
}

fn refused_stranger() -> Response {
    Response::Refused("say which instance you are before you claim".to_owned())
}

fn notice(connection: ConnectionNumber, response: Response) -> Reply {
    Reply { connection, number: NOTICE, response }
}
