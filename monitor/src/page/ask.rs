//! Questions to the store, over its socket as an API asks them. The monitor never says that it is an
//! instance, so it can claim nothing, and a purge does not wait for it.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger::journal::PaymentRecord;
use ledger::protocol::{FrameBuffer, Request, Response, Trace};
use ledger::socket::check_peer;
use ledger::{CorrelationId, RangeMs, Totals};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long the store may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Questions at a time; others wait.
const QUESTIONS_MAX: usize = 2;

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

/// Who asks the store.
pub struct StoreLine {
    path: PathBuf,
    asking: Semaphore,
}

impl StoreLine {
    /// The store with this socket. Nothing is connected before something is asked.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), asking: Semaphore::new(QUESTIONS_MAX) }
    }

    /// What was settled in a span of time, by [`ledger::Processor::index`]: what an API says to
    /// `GET /payments-summary`.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn summarize(&self, range: RangeMs) -> Result<[Totals; 2], AskError> {
        match self.ask(Request::Summarize(range)).await? {
            Response::Summary(totals) => Ok(totals),
            other => Err(unexpected(other)),
        }
    }

    /// The record that tells most of a payment: what an API says to `GET /payments/{id}`.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn look(&self, id: CorrelationId) -> Result<Option<PaymentRecord>, AskError> {
        match self.ask(Request::Look(id)).await? {
            Response::Payment(record) => Ok(record),
            other => Err(unexpected(other)),
        }
    }

    /// Where the records of a payment lie.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn trace(&self, id: CorrelationId) -> Result<Vec<Trace>, AskError> {
        match self.ask(Request::Trace(id)).await? {
            Response::Traced(traces) => Ok(traces),
            other => Err(unexpected(other)),
        }
    }

    async fn ask(&self, request: Request) -> Result<Response, AskError> {
        let _place = self.asking.acquire().await.expect("nobody closes it");
        timeout(ANSWER_TIMEOUT, answer(&self.path, request)).await.map_err(|_| AskError::Silent)?
    }
}

async fn answer(path: &Path, request: Request) -> Result<Response, AskError> {
    const NUMBER: u32 = 1;
    let mut stream = UnixStream::connect(path).await?;
    check_peer(stream.as_fd())?;
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
