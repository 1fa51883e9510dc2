//! The line to the store: one connection, opened again whenever it ends. Questions wait a moment for
//! the store to come back, and are then answered with [`StoreAway`].
//!
//! The line is read while it is written, so that neither end waits for the other to read. Claims go
//! out at once; questions take turns, a few at a time, and one that nobody waits for any more is not
//! asked at all.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ledger::journal::{PaymentRecord, Position};
use ledger::line::{self, LineReader, LineWriter};
use ledger::protocol::{FrameBuffer, NOTICE, PROTOCOL_VERSION, PurgeNotice, Request, Response};
use ledger::socket::check_peer;
use ledger::{CorrelationId, RangeMs, Totals};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

/// The first pause before connecting again, doubled each time.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause before connecting again.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a question waits for a store that is away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a purge waits for the store: longer than the store waits for the instances to agree, so
/// that its own word of what went wrong is heard.
const PURGE_ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Questions that wait for an answer at a time; more are refused at once.
pub const QUESTIONS_MAX: usize = 1024;
/// Questions among them that the store is asked at a time. A claim waits for these at most.
const QUESTIONS_ASKED_MAX: usize = 64;
/// A store that is away for less is not worth a word: it may be starting.
const AWAY_NOTICE: Duration = Duration::from_secs(1);

/// Why the store has not answered a question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreAway {
    /// It did not answer in time.
    #[error("the store does not answer at the moment")]
    Silent,
    /// As many questions wait as are allowed to.
    #[error("too many questions wait for the store")]
    Busy,
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
    PreparePurge {
        /// Which purge.
        serial: u64,
    },
    /// It has not purged.
    PurgeAborted,
    /// It has purged.
    Purged(PurgeNotice),
}

/// Who waits for an answer.
enum Waiting {
    Greeting,
    Claim,
    Question(oneshot::Sender<Response>),
}

/// A question that is not asked yet.
struct Question {
    request: Request,
    asker: oneshot::Sender<Response>,
}

/// The line to the store.
pub struct StoreClient {
    path: PathBuf,
    instance: u16,
    /// Frames that are written before any question.
    outbox: RefCell<Vec<u8>>,
    /// Questions in the order in which they came.
    questions: RefCell<BTreeMap<u64, Question>>,
    next_question: Cell<u64>,
    /// Askers, whether their question is asked already or not.
    askers_count: Cell<usize>,
    /// Questions that the store has not answered.
    asked_count: Cell<usize>,
    filled: Notify,
    waiting: RefCell<HashMap<u32, Waiting>>,
    next_number: Cell<u32>,
    connected: Cell<bool>,
}

/// The place of one asker among [`QUESTIONS_MAX`]. When it is given up, nothing of it stays behind.
struct Place<'a> {
    client: &'a StoreClient,
    question: Cell<u64>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.client.askers_count.update(|count| count - 1);
        self.client.questions.borrow_mut().remove(&self.question.get());
    }
}

impl StoreClient {
    /// A line to the store at this socket, not connected yet.
    #[must_use]
    pub fn new(path: PathBuf, instance: u16) -> Rc<Self> {
        Rc::new(Self {
            path,
            instance,
            outbox: RefCell::new(Vec::new()),
            questions: RefCell::new(BTreeMap::new()),
            next_question: Cell::new(1),
            askers_count: Cell::new(0),
            asked_count: Cell::new(0),
            filled: Notify::new(),
            waiting: RefCell::new(HashMap::new()),
            next_number: Cell::new(NOTICE + 1),
            connected: Cell::new(false),
        })
    }

    /// Keeps the line open for ever, and tells what comes over it.
    pub async fn run(&self, tell: impl Fn(StoreEvent)) {
        let mut pause = RECONNECT_PAUSE;
        let mut away = Duration::ZERO;
        loop {
            // Whoever runs as another user is not the store, and must not decide.
            let connected = UnixStream::connect(&self.path)
                .await
                .and_then(|stream| check_peer(&stream).map(|()| stream))
                .and_then(line::split);
            let ended = match connected {
                Ok((reader, writer)) => self.converse(reader, writer, &tell).await,
                Err(error) => Err(error),
            };
            if self.connected.replace(false) {
                (pause, away) = (RECONNECT_PAUSE, Duration::ZERO);
                tell(StoreEvent::Disconnected);
            }
            self.outbox.borrow_mut().clear();
            // Whoever waits sees that no answer will come.
            self.waiting.borrow_mut().clear();
            self.asked_count.set(0);
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
        self.say(Request::Claim { through }, Some(Waiting::Claim));
    }

    /// Says that nothing new is sent until this purge is over.
    pub fn prepared(&self, serial: u64) {
        self.say(Request::PurgePrepared { serial }, None);
    }

    /// What was settled in this span, by [`ledger::Processor::index`].
    ///
    /// # Errors
    /// The store is away, or asked too much.
    pub async fn summarize(&self, range: RangeMs) -> Result<[Totals; 2], StoreAway> {
        match self.answer(Request::Summarize(range)).await? {
            Response::Summary(totals) => Ok(totals),
            other => Err(unexpected(other)),
        }
    }

    /// The record that tells most of a payment.
    ///
    /// # Errors
    /// The store is away, or asked too much.
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
        let place = self.place()?;
        let asking = async {
            loop {
                let (asker, answer) = oneshot::channel();
                let question = self.next_question.get();
                self.next_question.set(question + 1);
                place.question.set(question);
                self.questions.borrow_mut().insert(question, Question { request, asker });
                self.filled.notify_one();
                match answer.await {
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
        let limit = if request == Request::Purge { PURGE_ANSWER_TIMEOUT } else { ANSWER_TIMEOUT };
        timeout(limit, asking).await.map_err(|_| StoreAway::Silent)
    }

    fn place(&self) -> Result<Place<'_>, StoreAway> {
        if self.askers_count.get() >= QUESTIONS_MAX {
            return Err(StoreAway::Busy);
        }
        self.askers_count.update(|count| count + 1);
        Ok(Place { client: self, question: Cell::new(0) })
    }

    /// Says something that does not wait for its turn.
    fn say(&self, request: Request, waiting: Option<Waiting>) {
        let number = self.number();
        if let Some(waiting) = waiting {
            self.waiting.borrow_mut().insert(number, waiting);
        }
        request.encode(number, &mut self.outbox.borrow_mut());
        self.filled.notify_one();
    }

    fn number(&self) -> u32 {
        let number = self.next_number.get();
        self.next_number.set(number.checked_add(1).unwrap_or(NOTICE + 1));
        number
    }

    /// Speaks with the store until the line ends.
    async fn converse(
        &self,
        reader: LineReader,
        writer: LineWriter,
        tell: &impl Fn(StoreEvent),
    ) -> io::Result<()> {
        self.outbox.borrow_mut().clear();
        let hello = Request::Hello { version: PROTOCOL_VERSION, instance: self.instance };
        self.say(hello, Some(Waiting::Greeting));
        tokio::select! {
            ended = self.read(reader, tell) => ended,
            ended = self.write(writer) => ended,
        }
    }

    async fn read(&self, mut reader: LineReader, tell: &impl Fn(StoreEvent)) -> io::Result<()> {
        let mut frames = FrameBuffer::default();
        while frames.fill(&mut reader).await? {
            while let Some((number, response)) = frames.next_response()? {
                self.hear(number, response, tell)?;
            }
        }
        Ok(())
    }

    async fn write(&self, mut writer: LineWriter) -> io::Result<()> {
        loop {
            let mut bytes = std::mem::take(&mut *self.outbox.borrow_mut());
            self.ask_next(&mut bytes);
            if bytes.is_empty() {
                self.filled.notified().await;
            } else {
                writer.write_all(&bytes).await?;
            }
        }
    }

    /// Appends as many questions as may be asked now.
    fn ask_next(&self, bytes: &mut Vec<u8>) {
        while self.connected.get() && self.asked_count.get() < QUESTIONS_ASKED_MAX {
            let next = self.questions.borrow_mut().pop_first();
            let Some((_, Question { request, asker })) = next else { break };
            let number = self.number();
            self.waiting.borrow_mut().insert(number, Waiting::Question(asker));
            self.asked_count.update(|count| count + 1);
            request.encode(number, bytes);
        }
    }

    fn hear(&self, number: u32, response: Response, tell: &impl Fn(StoreEvent)) -> io::Result<()> {
        if number == NOTICE {
            match response {
                Response::PreparePurge { serial } => tell(StoreEvent::PreparePurge { serial }),
                Response::PurgeAborted => tell(StoreEvent::PurgeAborted),
                Response::PurgeNotice(notice) => tell(StoreEvent::Purged(notice)),
                other => tracing::warn!("the store says {other:?} unasked"),
            }
            return Ok(());
        }
        let waiting = self.waiting.borrow_mut().remove(&number);
        match waiting {
            Some(Waiting::Greeting) => match response {
                Response::Welcome(notice) => {
                    self.connected.set(true);
                    tell(StoreEvent::Connected(notice));
                    self.filled.notify_one();
                }
                other => return Err(io::Error::other(unexpected(other))),
            },
            Some(Waiting::Claim) => tell(match response {
                Response::Claimed { through, losers } => StoreEvent::Decided { through, losers },
                Response::Refused(why) => StoreEvent::ClaimRefused(why),
                other => StoreEvent::ClaimRefused(unexpected(other).to_string()),
            }),
            Some(Waiting::Question(asker)) => {
                self.asked_count.update(|count| count - 1);
                self.filled.notify_one();
                // Nobody waits any more for an answer that took too long.
                drop(asker.send(response));
            }
            None => {}
        }
        Ok(())
    }
}

fn unexpected(response: Response) -> StoreAway {
    match response {
        Response::Refused(why) => StoreAway::Refused(why),
        other => StoreAway::Refused(format!("the store answers {other:?}")),
    }
}
