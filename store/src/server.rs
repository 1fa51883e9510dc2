//! The store's socket: frames in, frames out. One thread does it all, because everything that is
//! asked goes to the one set of books.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ledger::clock::Monotonic;
use ledger::journal::Position;
use ledger::line::{self, LineReader, LineWriter};
use ledger::metrics::publish;
use ledger::protocol::{FrameBuffer, Request, Response};
use ledger::socket::{PrivateListener, check_peer};
use ledger::volume::Volume;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::archive::Progress;
use crate::archive::error::ArchiveError;
use crate::books::{Books, BooksError};
use crate::desk::{ConnectionNumber, Desk, Reply};
use crate::metrics::{StoreMetrics, fill_archive, fill_ledger, fill_space};
use crate::shared::{self, SharedError, SharedLedger};

/// How long after a question the journals are read again, so that the next one finds little to do. The
/// longer it is, the fewer steps the database takes for the same payments at low load.
const APPLY_EVERY: Duration = Duration::from_millis(250);

/// How long instances may take to agree to a purge.
const PURGE_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after the operating system refused a connection, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of replies that may wait for a peer to read them; with more, nothing more is read from it.
const OUTBOX_BYTES_MAX: usize = 1 << 20;

/// Why the store ended.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The books cannot be kept.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The socket cannot be opened.
    #[error("cannot listen on {path}: {source}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The shared ledger cannot be used.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// The archive cannot be begun.
    #[error("cannot archive: {0}")]
    Archive(ArchiveError),
    /// The shared volume cannot be prepared.
    #[error(transparent)]
    Volume(io::Error),
    /// The operating system does not tell of signals, or refuses a runtime.
    #[error("cannot start: {0}")]
    Start(io::Error),
}

/// What the store's tasks share.
struct Shared {
    desk: RefCell<Desk>,
    /// Who decides, and knows what others have settled, where machines share a ledger.
    ledger: Option<Rc<SharedLedger>>,
    outboxes: RefCell<BTreeMap<ConnectionNumber, Rc<Outbox>>>,
    next_connection: Cell<ConnectionNumber>,
    /// Something was asked, so journals are growing.
    asked: Notify,
    failure: RefCell<Option<BooksError>>,
    failed: Notify,
    clock: Monotonic,
    metrics: StoreMetrics,
}

/// Frames that wait to be written to a connection.
#[derive(Default)]
struct Outbox {
    bytes: RefCell<Vec<u8>>,
    filled: Notify,
    /// Bytes that were taken out last and are being written.
    writing_count: Cell<usize>,
    written: Notify,
}

/// Answers on the listener, and tells metrics on the volume's socket, until `shutdown` is done or the
/// books cannot be kept any more. Must run on a [`tokio::runtime::LocalRuntime`].
///
/// # Errors
/// The books cannot be kept any more.
pub async fn serve(
    books: Books,
    ledger: Option<Rc<SharedLedger>>,
    listener: PrivateListener,
    volume: &Volume,
    archive: Option<Arc<Progress>>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StoreError> {
    let shared = Rc::new(Shared {
        desk: RefCell::new(Desk::new(books)),
        ledger,
        outboxes: RefCell::new(BTreeMap::new()),
        next_connection: Cell::new(1),
        asked: Notify::new(),
        failure: RefCell::new(None),
        failed: Notify::new(),
        clock: Monotonic::start(),
        metrics: StoreMetrics::default(),
    });
    publish(&volume.metrics_socket("store"), {
        let (shared, volume) = (Rc::clone(&shared), volume.clone());
        move |page| {
            let desk = shared.desk.borrow();
            shared.metrics.fill(page, &desk.standing(), desk.instances_count());
            match volume.space() {
                Ok(space) => fill_space(page, space),
                Err(error) => tracing::debug!("cannot tell the room on the volume: {error}"),
            }
            if let Some(archive) = &archive {
                fill_archive(page, archive);
            }
            if let Some(ledger) = &shared.ledger {
                fill_ledger(page, ledger.is_there().is_ok(), ledger.progress());
            }
            // Who asks for nothing else sees how far behind a store is that keeps up.
            shared.asked.notify_one();
        }
    });
    let keeping_up = spawn_local(keep_up(Rc::clone(&shared)));
    tokio::select! {
        () = accept(Rc::clone(&shared), listener) => {}
        () = shared.failed.notified() => {}
        () = shutdown => {}
    }
    keeping_up.abort();
    if let Some(failure) = shared.failure.borrow_mut().take() {
        return Err(failure.into());
    }
    let result = shared.desk.borrow_mut().books().apply();
    Ok(result?)
}

async fn accept(shared: Rc<Shared>, listener: PrivateListener) {
    loop {
        let accepted = match listener.accept().await {
            Ok(stream) => check_peer(&stream).and_then(|()| line::split(stream)),
            Err(error) => Err(error),
        };
        match accepted {
            Ok((reader, writer)) => {
                drop(spawn_local(converse(Rc::clone(&shared), reader, writer)));
            }
            Err(error) => {
                tracing::warn!("a connection is refused: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end.
async fn converse(shared: Rc<Shared>, reader: LineReader, writer: LineWriter) {
    let connection = shared.next_connection.get();
    shared.next_connection.set(connection + 1);
    let outbox = Rc::new(Outbox::default());
    shared.outboxes.borrow_mut().insert(connection, Rc::clone(&outbox));
    if let Err(error) = exchange(&shared, connection, reader, writer, &outbox).await {
        tracing::warn!("a connection ends: {error}");
    }
    shared.outboxes.borrow_mut().remove(&connection);
    let left = shared.desk.borrow_mut().leave(connection);
    shared.deliver(left);
}

/// Reads requests and writes replies at the same time, until the other end closes. A peer that
/// writes before it reads is read from meanwhile, and one that reads late is written to.
async fn exchange(
    shared: &Rc<Shared>,
    connection: ConnectionNumber,
    reader: LineReader,
    writer: LineWriter,
    outbox: &Outbox,
) -> io::Result<()> {
    tokio::select! {
        ended = read_requests(shared, connection, reader, outbox) => ended,
        ended = write_replies(writer, outbox) => ended,
    }
}

async fn read_requests(
    shared: &Rc<Shared>,
    connection: ConnectionNumber,
    mut reader: LineReader,
    outbox: &Outbox,
) -> io::Result<()> {
    let mut frames = FrameBuffer::default();
    while frames.fill(&mut reader).await? {
        while let Some((number, request)) = frames.next_request()? {
            match &shared.ledger {
                // One after the other, so that answers keep their order and nothing piles up.
                Some(ledger) if shared::concerns(&request) => {
                    shared.handle_with(ledger, connection, number, request).await;
                }
                _ => shared.handle(connection, number, request),
            }
            outbox.room().await;
        }
    }
    Ok(())
}

async fn write_replies(mut writer: LineWriter, outbox: &Outbox) -> io::Result<()> {
    loop {
        let replies = std::mem::take(&mut *outbox.bytes.borrow_mut());
        if replies.is_empty() {
            outbox.filled.notified().await;
            continue;
        }
        outbox.writing_count.set(replies.len());
        writer.write_all(&replies).await?;
        outbox.writing_count.set(0);
        outbox.written.notify_one();
    }
}

impl Outbox {
    /// Waits while too much waits to be written.
    async fn room(&self) {
        while self.writing_count.get() + self.bytes.borrow().len() > OUTBOX_BYTES_MAX {
            self.written.notified().await;
        }
    }
}

impl Shared {
    fn handle(self: &Rc<Self>, connection: ConnectionNumber, number: u32, request: Request) {
        let pending_before = self.desk.borrow().pending_purge();
        let asked_us = self.clock.elapsed_us();
        let replies = self.desk.borrow_mut().handle(connection, number, request);
        self.metrics.handled(&request, self.clock.elapsed_us() - asked_us);
        self.deliver(replies);
        self.asked.notify_one();
        let pending = self.desk.borrow().pending_purge();
        if let Some(serial) = pending
            && pending != pending_before
        {
            spawn_local(limit_purge(Rc::clone(self), serial));
        }
    }

    /// Answers what cannot be answered without the ledger. Other connections are served meanwhile.
    async fn handle_with(
        &self,
        ledger: &SharedLedger,
        connection: ConnectionNumber,
        number: u32,
        request: Request,
    ) {
        let asked_us = self.clock.elapsed_us();
        let answered = match request {
            Request::Claim { through } => self.claim_with(ledger, connection, through).await,
            Request::Summarize(range) => match ledger.sum_of_others(range).await {
                // Ours last, so that all that was written before the question is in it.
                Ok(others) => self.with_books(|books| books.sum(range)).map(|here| {
                    let sums = shared::add(here, others);
                    Some(sums.map_or_else(|error| refused(&error), Response::Summary))
                }),
                Err(error) => Ok(Some(refused(&error))),
            },
            Request::Look(id) => match self.with_books(|books| books.look(id)) {
                Ok(None) => Ok(Some(
                    ledger.look(id).await.map_or_else(|error| refused(&error), Response::Payment),
                )),
                here => here.map(|payment| Some(Response::Payment(payment))),
            },
            _ => unreachable!("the ledger is asked for nothing else"),
        };
        self.metrics.handled(&request, self.clock.elapsed_us() - asked_us);
        self.asked.notify_one();
        let reply = |response| Reply { connection, number, response };
        self.deliver(answered.map(|response| response.into_iter().map(reply).collect()));
    }

    /// Has the ledger decide upon what an instance claims.
    async fn claim_with(
        &self,
        ledger: &SharedLedger,
        connection: ConnectionNumber,
        through: Position,
    ) -> Result<Option<Response>, BooksError> {
        // Before anything is looked up for it, which an API would ask for again and again.
        let purge = self.with_books(|books| Ok(books.purges_count()))?;
        if let Err(error) = ledger.is_there().and_then(|()| ledger.demand_purged(purge)) {
            return Ok(Some(refused(&error)));
        }
        let begun = self.desk.borrow_mut().begin_claim(connection, through)?;
        let (instance, undecided) = match begun {
            Ok(begun) => begun,
            Err(response) => return Ok(Some(response)),
        };
        let claimed = match ledger.claim((instance, purge), &undecided.payments).await {
            Ok(claimed) => claimed,
            Err(error) => return Ok(Some(refused(&error))),
        };
        let mut losers = claimed.losers;
        let mut gone = BTreeMap::new();
        for own in claimed.own {
            let is_there =
                self.with_books(|books| books.has_right_by(own.instance, own.place, own.id))?;
            // Of several that want the right of one that is gone, the first gets it.
            if is_there || gone.contains_key(&own.id) {
                losers.insert(own.position);
            } else {
                gone.insert(own.id, own);
            }
        }
        let gone: Vec<_> = gone.into_values().collect();
        match ledger.take_over((instance, purge), &gone).await {
            Ok(settled) => losers.extend(settled),
            Err(error) => return Ok(Some(refused(&error))),
        }
        // What was claimed is void by now.
        if self.with_books(|books| Ok(books.purges_count()))? != purge {
            return Ok(Some(refused(&SharedError::Purging)));
        }
        self.desk.borrow_mut().end_claim(connection, instance, undecided.through, &losers)
    }

    fn with_books<T>(
        &self,
        ask: impl FnOnce(&mut Books) -> Result<T, BooksError>,
    ) -> Result<T, BooksError> {
        ask(self.desk.borrow_mut().books())
    }

    /// Puts replies into the outboxes of those who get them.
    fn deliver(&self, replies: Result<Vec<Reply>, BooksError>) {
        let replies = match replies {
            Ok(replies) => replies,
            Err(error) => return self.fail(error),
        };
        let outboxes = self.outboxes.borrow();
        for reply in replies {
            self.metrics.answered(&reply.response);
            if let Some(outbox) = outboxes.get(&reply.connection) {
                reply.response.encode(reply.number, &mut outbox.bytes.borrow_mut());
                outbox.filled.notify_one();
            }
        }
    }

    /// Ends the store.
    fn fail(&self, error: BooksError) {
        self.failure.borrow_mut().get_or_insert(error);
        self.failed.notify_one();
    }
}

fn refused(error: &SharedError) -> Response {
    Response::Refused(error.to_string())
}

/// Gives a purge up if it waits too long.
async fn limit_purge(shared: Rc<Shared>, serial: u64) {
    tokio::time::sleep(PURGE_TIMEOUT).await;
    let replies = shared.desk.borrow_mut().purge_timed_out(serial);
    shared.deliver(Ok(replies));
}

/// Follows the journals while they grow, a part at a time so that nobody waits long for an answer.
/// While nothing is asked and nothing grows it sleeps.
async fn keep_up(shared: Rc<Shared>) {
    loop {
        shared.asked.notified().await;
        loop {
            tokio::time::sleep(APPLY_EVERY).await;
            let read = shared.desk.borrow_mut().books().read_all();
            let any = match read {
                Ok(any) => any || shared.desk.borrow_mut().books().is_indexing(),
                Err(error) => return shared.fail(error),
            };
            loop {
                let applied = shared.desk.borrow_mut().books().apply_some();
                match applied {
                    Ok(false) => break,
                    Ok(true) => tokio::task::yield_now().await,
                    Err(error) => return shared.fail(error),
                }
            }
            if !any {
                break;
            }
        }
    }
}
