//! Questions to the store, over its socket as an API asks them. The monitor never says that it is an
//! instance, so it can claim nothing, and a purge does not wait for it.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ledger::journal::PaymentRecord;
use ledger::protocol::{FrameBuffer, Request, Response, Trace};
use ledger::socket::check_server;
use ledger::{CorrelationId, RangeMs, Totals};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// How long the store may take to answer, with the time for which another question is under way.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// For how long totals are given to others who ask for the same span.
pub const REUSE_FOR: Duration = Duration::from_secs(1);

/// Spans whose totals are kept.
const SPANS_MAX: usize = 16;

/// Why the store does not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It cannot be connected to, or the line breaks.
    #[error("the store cannot be asked: {0}")]
    Away(#[from] io::Error),
    /// It takes too long.
    #[error("the store does not answer within {ANSWER_TIMEOUT:?}")]
    Silent,
    /// It says that it cannot.
    #[error("the store cannot tell: {0}")]
    Refused(String),
    /// It answers something else than was asked, or hangs up.
    #[error("the store does not answer what was asked; are both of one version?")]
    Strange,
}

/// Totals that were told, and when.
type Told = (Duration, RangeMs, [Totals; 2]);

/// Who asks the store. What it is asked comes to its answer or to the end of the line also where nobody
/// waits for it any more, and before that no other question of its kind is asked: however many ask a store
/// that hangs, and go away, one of each kind is what it finds when it goes on.
pub struct StoreLine {
    path: PathBuf,
    clock: Rc<dyn Fn() -> Duration>,
    /// Held while totals are asked for.
    told: Arc<Mutex<VecDeque<Told>>>,
    /// Held while a payment is asked for.
    looking: Arc<Mutex<()>>,
}

impl StoreLine {
    /// The store with this socket. Nothing is connected before something is asked. The clock says what has
    /// passed since it began.
    #[must_use]
    pub fn new(path: &Path, clock: Rc<dyn Fn() -> Duration>) -> Self {
        Self { path: path.to_owned(), clock, told: Arc::default(), looking: Arc::default() }
    }

    /// What was settled in a span of time, by [`ledger::Processor::index`]: what an API says to
    /// `GET /payments-summary`, or said to somebody else within [`REUSE_FOR`]. Must be called on a
    /// [`tokio::runtime::LocalRuntime`], as all questions.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn summarize(&self, range: RangeMs) -> Result<[Totals; 2], AskError> {
        let asking = async {
            let mut told = Arc::clone(&self.told).lock_owned().await;
            let now = (self.clock)();
            told.retain(|(at, ..)| now.saturating_sub(*at) < REUSE_FOR);
            if let Some((_, _, totals)) = told.iter().find(|(_, other, _)| *other == range) {
                return Ok(*totals);
            }
            let (path, clock) = (self.path.clone(), Rc::clone(&self.clock));
            let asking = spawn_local(async move {
                match answer(&path, Request::Summarize(range)).await? {
                    Response::Summary(totals) => {
                        told.truncate(SPANS_MAX - 1);
                        told.push_front((clock(), range, totals));
                        Ok(totals)
                    }
                    other => Err(unexpected(other)),
                }
            });
            asking.await.map_err(io::Error::from)?
        };
        timeout(ANSWER_TIMEOUT, asking).await.map_err(|_| AskError::Silent)?
    }

    /// The record that tells most of a payment: what an API says to `GET /payments/{id}`.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn look(&self, id: CorrelationId) -> Result<Option<PaymentRecord>, AskError> {
        match self.ask_of_payment(Request::Look(id)).await? {
            Response::Payment(record) => Ok(record),
            other => Err(unexpected(other)),
        }
    }

    /// Where the records of a payment lie.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn trace(&self, id: CorrelationId) -> Result<Vec<Trace>, AskError> {
        match self.ask_of_payment(Request::Trace(id)).await? {
            Response::Traced(traces) => Ok(traces),
            other => Err(unexpected(other)),
        }
    }

    async fn ask_of_payment(&self, request: Request) -> Result<Response, AskError> {
        let asking = async {
            let place = Arc::clone(&self.looking).lock_owned().await;
            let path = self.path.clone();
            let asking = spawn_local(async move {
                let answered = answer(&path, request).await;
                drop(place);
                answered
            });
            asking.await.map_err(io::Error::from)?
        };
        timeout(ANSWER_TIMEOUT, asking).await.map_err(|_| AskError::Silent)?
    }
}

async fn answer(path: &Path, request: Request) -> Result<Response, AskError> {
    const NUMBER: u32 = 1;
    let mut stream = UnixStream::connect(path).await?;
    check_server(&stream, path)?;
    let mut bytes = Vec::new();
    request.encode(NUMBER, &mut bytes);
    stream.write_all(&bytes).await?;
    let mut frames = FrameBuffer::default();
    while frames.fill(&mut stream).await? {
        if let Some((number, response)) = frames.next_response().map_err(io::Error::from)? {
            return if number == NUMBER { Ok(response) } else { Err(AskError::Strange) };
        }
    }
    Err(AskError::Strange)
}

fn unexpected(response: Response) -> AskError {
    match response {
        Response::Refused(why) => AskError::Refused(why),
        _ => AskError::Strange,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ledger::{Cents, TimestampMs};
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::time::sleep;

    use super::*;

    fn block_on(test: impl Future<Output = ()>) {
        let builder = &mut Builder::new_current_thread();
        builder.enable_all().build_local(LocalOptions::default()).unwrap().block_on(test);
    }

    /// A store that answers every connection's question with as many payments as it was asked before.
    async fn answer_all(listener: UnixListener, asked: Rc<Cell<u64>>) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            let totals = Totals { count: asked.get(), amount: Cents::new(0) };
            asked.set(asked.get() + 1);
            let mut bytes = Vec::new();
            Response::Summary([totals; 2]).encode(1, &mut bytes);
            // Who asked may be gone.
            let _ = stream.write_all(&bytes).await;
        }
    }

    #[test]
    fn who_asks_for_the_same_span_within_a_second_gets_the_same_totals() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store.sock");
            let (asked, now) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(Duration::ZERO)));
            let listener = UnixListener::bind(&path).unwrap();
            spawn_local(answer_all(listener, Rc::clone(&asked)));
            let clock = Rc::clone(&now);
            let line = Rc::new(StoreLine::new(&path, Rc::new(move || clock.get())));
            let asking: Vec<_> = (0..20)
                .map(|_| {
                    let line = Rc::clone(&line);
                    spawn_local(async move { line.summarize(RangeMs::ALL).await.unwrap() })
                })
                .collect();
            for answer in asking {
                assert_eq!(answer.await.unwrap()[0].count, 0);
            }
            let other = RangeMs { from: TimestampMs::clamped(1), ..RangeMs::ALL };
            assert_eq!(line.summarize(other).await.unwrap()[0].count, 1);
            now.set(REUSE_FOR.saturating_sub(Duration::from_millis(1)));
            assert_eq!(line.summarize(RangeMs::ALL).await.unwrap()[0].count, 0);
            now.set(REUSE_FOR);
            assert_eq!(line.summarize(RangeMs::ALL).await.unwrap()[0].count, 2);
            for from in 0..100 {
                let range = RangeMs { from: TimestampMs::clamped(from), ..RangeMs::ALL };
                line.summarize(range).await.unwrap();
            }
            assert_eq!(line.told.lock().await.len(), SPANS_MAX);
        });
    }

    #[test]
    fn a_store_that_hangs_has_one_question_of_each_kind_and_is_asked_again_when_it_goes_on() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store.sock");
            let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
            listener.set_nonblocking(true).unwrap();
            let line = StoreLine::new(&path, Rc::new(|| Duration::ZERO));
            let id = CorrelationId::from_bytes([7; 16]);
            let moment = Duration::from_millis(5);
            for _ in 0..20 {
                // They go away before an answer.
                assert!(timeout(moment, line.summarize(RangeMs::ALL)).await.is_err());
                assert!(timeout(moment, line.look(id)).await.is_err());
                assert!(timeout(moment, line.trace(id)).await.is_err());
            }
            let error = line.summarize(RangeMs::ALL).await.unwrap_err();
            assert!(matches!(error, AskError::Silent), "{error}");
            let waiting: Vec<_> = std::iter::from_fn(|| listener.accept().ok()).collect();
            assert_eq!(waiting.len(), 2);
            // The line to it breaks: it was ended.
            drop(waiting);
            let asked = Rc::new(Cell::new(7));
            spawn_local(answer_all(UnixListener::from_std(listener).unwrap(), asked));
            while line.summarize(RangeMs::ALL).await.is_err() {
                sleep(moment).await;
            }
        });
    }
}
