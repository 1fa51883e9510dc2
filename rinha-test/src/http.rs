//! Blocking HTTP for everything that is not measured: health, summaries, the processors' admin
//! calls.

use std::time::Duration;

use ureq::http::{Request, request};
use ureq::{Agent, AsSendBody};

/// Bytes of the longest answer that is read: a page of a processor's books.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A client.
#[derive(Clone, Debug)]
pub struct Http {
    agent: Agent,
}

/// An answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// No answer.
#[derive(Debug, thiserror::Error)]
#[error("{method} {url}: {cause}")]
pub struct HttpError {
    method: &'static str,
    url: String,
    cause: Box<ureq::Error>,
}

/// A header's name and value.
pub type Header<'a> = (&'a str, &'a str);

impl Http {
    /// A client whose calls end after this long.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            // The machine's proxy is not asked for what runs on the machine itself.
            .proxy(None)
            .build();
        Self { agent: config.into() }
    }

    /// `GET`.
    ///
    /// # Errors
    /// There was no answer.
    pub fn get(&self, url: &str, headers: &[Header<'_>]) -> Result<Answer, HttpError> {
        let request = request("GET", url, headers).body(());
        answer("GET", url, self.run(request))
    }

    /// `POST` or `PUT` of a JSON text.
    ///
    /// # Errors
    /// There was no answer.
    pub fn send(
        &self,
        method: &'static str,
        url: &str,
        headers: &[Header<'_>],
        json: &str,
    ) -> Result<Answer, HttpError> {
        let request =
            request(method, url, headers).header("Content-Type", "application/json").body(json);
        answer(method, url, self.run(request))
    }

    fn run<B: AsSendBody>(
        &self,
        request: Result<Request<B>, ureq::http::Error>,
    ) -> Result<Answer, ureq::Error> {
        let mut response = self.agent.run(request?)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(Answer { status, body })
    }
}

fn request(method: &str, url: &str, headers: &[Header<'_>]) -> request::Builder {
    let builder = Request::builder().method(method).uri(url);
    headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value))
}

fn answer(
    method: &'static str,
    url: &str,
    result: Result<Answer, ureq::Error>,
) -> Result<Answer, HttpError> {
    result.map_err(|cause| HttpError { method, url: url.to_owned(), cause: Box::new(cause) })
}
