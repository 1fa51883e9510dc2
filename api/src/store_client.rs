//! The line to the store: one connection, opened again whenever it ends. Questions wait a moment for
//! the store to come back, and are then answered with [`StoreAway`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ledger::journal::{PaymentRecord, Position};
use ledger::protocol::{FrameBuffer, NOTICE, PROTOCOL_VERSION, PurgeNotice, Request, Response};
use ledger::{CorrelationId, RangeMs, Totals};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

/// The first pause before connecting again, doubled each time.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause before connecting again.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a question waits for a store that is away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// A store that is away for less is not worth a word: it may be starting.
const AWAY_NOTICE: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 16 << 10;

/// Why the store has not answered a question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreAway {
    /// It did not answer in time.
    #[error("the store does not answer at the moment")]
    Silent,
    /// It answered that it cannot.
    #[error("{0}")]
    Refused(String),
}

/// What the store says of itself, without having been asked or as the answer to a claim.
#[derive(Debug)]
pub enum StoreEvent {
    /// It is there.
    Connected(PurgeNotice),
    /// It is gone.
    Disconnected,
    /// It has decided.
    Decided {
        /// All accepted payments before this place are decided.
        through: Position,
        /// Those among them that may not be sent.
        losers: Vec<Position>,
    },
    /// It could not decide.
    ClaimRefused(String),
    /// It is about to purge: send nothing new, then say [`StoreClient::prepared`].
    PreparePurge,
    /// It has not purged.
    PurgeAborted,
    /// It has purged.
    Purged(PurgeNotice),
}

/// Who waits for an answer.
enum Waiting {
    Claim,
    Answer(oneshot::Sender<Response>),
}

/// The line to the store.
pub struct StoreClient {
    path: PathBuf,
    instance: u16,
    /// Frames to be written.
    outbox: RefCell<Vec<u8>>,
    filled: Notify,
    waiting: RefCell<HashMap<u32, Waiting>>,
    next_number: Cell<u32>,
    connected: Cell<bool>,
    came_back: Notify,
}

impl StoreClient {
    /// A line to the store at this socket, not connected yet.
    #[must_use]
    pub fn new(path: PathBuf, instance: u16) -> Rc<Self> {
        Rc::new(Self {
            path,
            instance,
            outbox: RefCell::new(Vec::new()),
            filled: Notify::new(),
            waiting: RefCell::new(HashMap::new()),
            next_number: Cell::new(NOTICE + 1),
            connected: Cell::new(false),
            came_back: Notify::new(),
        })
    }

    /// Keeps the line open for ever, and tells what comes over it.
    pub async fn run(&self, tell: impl Fn(StoreEvent)) {
        let mut pause = RECONNECT_PAUSE;
        let mut away = Duration::ZERO;
        loop {
            let connected = UnixStream::connect(&self.path).await;
            let ended = match connected {
                Ok(stream) => self.converse(stream, &tell).await,
                Err(error) => Err(error),
            };
            if self.connected.replace(false) {
                (pause, away) = (RECONNECT_PAUSE, Duration::ZERO);
                tell(StoreEvent::Disconnected);
            }
            self.outbox.borrow_mut().clear();
            // Whoever waits sees that no answer will come.
            self.waiting.borrow_mut().clear();
            sleep(pause).await;
            let was_short = away < AWAY_NOTICE;
            away += pause;
            if was_short && away >= AWAY_NOTICE {
                let why =
                    ended.err().map_or_else(|| "it closes the line".to_owned(), |e| e.to_string());
                tracing::warn!(
                    "the store at {} is away ({why}); payments are accepted and wait",
                    self.path.display()
                );
            }
            pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
        }
    }

    /// Whether the store is there.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.get()
    }

    /// Claims all accepted payments before this place.
    pub fn claim(&self, through: Position) {
        self.ask(Request::Claim { through }, Waiting::Claim);
    }

    /// Says that nothing new is sent until the purge is over.
    pub fn prepared(&self) {
        let (ignored, _) = oneshot::channel();
        self.ask(Request::PurgePrepared, Waiting::Answer(ignored));
    }

    /// What was settled in this span, by [`ledger::Processor::index`].
    ///
    /// # Errors
    /// The store is away.
    pub async fn summarize(&self, range: RangeMs) -> Result<[Totals; 2], StoreAway> {
        match self.answer(Request::Summarize(range)).await? {
            Response::Summary(totals) => Ok(totals),
            other => Err(unexpected(other)),
        }
    }

    /// The record that tells most of a payment.
    ///
    /// # Errors
    /// The store is away.
    pub async fn look(&self, id: CorrelationId) -> Result<Option<PaymentRecord>, StoreAway> {
        match self.answer(Request::Look(id)).await? {
            Response::Payment(record) => Ok(record),
            other => Err(unexpected(other)),
        }
    }

    /// Empties everything.
    ///
    /// # Errors
    /// The store is away, or has not purged.
    pub async fn purge(&self) -> Result<(), StoreAway> {
        match self.answer(Request::Purge).await? {
            Response::Purged => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Asks a question, also of a store that is away for a moment only.
    async fn answer(&self, request: Request) -> Result<Response, StoreAway> {
        let asking = async {
            loop {
                let back = self.came_back.notified();
                if !self.connected.get() {
                    back.await;
                }
                let (sender, receiver) = oneshot::channel();
                self.ask(request, Waiting::Answer(sender));
                match receiver.await {
                    Ok(response) => return response,
                    // A purge may have been carried out before the line broke.
                    Err(_) if request == Request::Purge => {
                        return Response::Refused(
                            "the store went away during the purge".to_owned(),
                        );
                    }
                    Err(_) => {}
                }
            }
        };
        timeout(ANSWER_TIMEOUT, asking).await.map_err(|_| StoreAway::Silent)
    }

    fn ask(&self, request: Request, waiting: Waiting) {
        let number = self.next_number.get();
        self.next_number.set(number.checked_add(1).unwrap_or(NOTICE + 1));
        self.waiting.borrow_mut().insert(number, waiting);
        request.encode(number, &mut self.outbox.borrow_mut());
        self.filled.notify_one();
    }

    /// Speaks with the store until the line ends.
    async fn converse(&self, mut stream: UnixStream, tell: &impl Fn(StoreEvent)) -> io::Result<()> {
        let mut frames = FrameBuffer::default();
        let mut bytes = vec![0; READ_BYTES];
        self.outbox.borrow_mut().clear();
        let hello = Request::Hello { version: PROTOCOL_VERSION, instance: self.instance };
        let (greeted, mut greeting) = oneshot::channel();
        self.ask(hello, Waiting::Answer(greeted));
        loop {
            let requests = std::mem::take(&mut *self.outbox.borrow_mut());
            if !requests.is_empty() {
                stream.write_all(&requests).await?;
                continue;
            }
            tokio::select! {
                count = stream.read(&mut bytes) => match count? {
                    0 => return Ok(()),
                    count => frames.extend(&bytes[..count]),
                },
                () = self.filled.notified() => continue,
            }
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            while let Some((number, response)) = frames.next_response().map_err(invalid)? {
                self.hear(number, response, tell);
            }
            if !self.connected.get()
                && let Ok(response) = greeting.try_recv()
            {
                match response {
                    Response::Welcome(notice) => {
                        self.connected.set(true);
                        tell(StoreEvent::Connected(notice));
                        self.came_back.notify_waiters();
                    }
                    other => return Err(io::Error::other(unexpected(other))),
                }
            }
        }
    }

    fn hear(&self, number: u32, response: Response, tell: &impl Fn(StoreEvent)) {
        if number == NOTICE {
            return match response {
                Response::PreparePurge => tell(StoreEvent::PreparePurge),
                Response::PurgeAborted => tell(StoreEvent::PurgeAborted),
                Response::PurgeNotice(notice) => tell(StoreEvent::Purged(notice)),
                other => tracing::warn!("the store says {other:?} unasked"),
            };
        }
        match self.waiting.borrow_mut().remove(&number) {
            Some(Waiting::Claim) => tell(match response {
                Response::Claimed { through, losers } => StoreEvent::Decided { through, losers },
                Response::Refused(why) => StoreEvent::ClaimRefused(why),
                other => StoreEvent::ClaimRefused(unexpected(other).to_string()),
            }),
            // Nobody waits any more for an answer that took too long.
            Some(Waiting::Answer(sender)) => drop(sender.send(response)),
            None => {}
        }
    }
}

fn unexpected(response: Response) -> StoreAway {
    match response {
        Response::Refused(why) => StoreAway::Refused(why),
        other => StoreAway::Refused(format!("the store answers {other:?}")),
    }
}
