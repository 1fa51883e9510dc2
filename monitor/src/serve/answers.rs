//! How answers look.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

use super::guard::Refusal;

/// An answer.
pub type Answer = Response<AnswerBody>;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// What every answer says: it is what it says it is, of now, and for this server's own pages.
const EVERYWHERE: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("referrer-policy"), "no-referrer"),
];

/// The body of an answer: known as a whole, or events as they come.
pub enum AnswerBody {
    /// All of it.
    Whole(Full<Bytes>),
    /// For as long as it is read.
    Events(mpsc::Receiver<Bytes>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(context),
            Self::Events(events) => {
                events.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// A text of this type.
pub fn text(content_type: &'static str, text: impl Into<Bytes>) -> Answer {
    answer(content_type, AnswerBody::Whole(Full::new(text.into())))
}

/// Something as JSON.
pub fn json(value: &impl Serialize) -> Answer {
    text(JSON, sonic_rs::to_string(value).expect("numbers and texts can be written as JSON"))
}

/// Events, for as long as they are read.
pub fn events(events: mpsc::Receiver<Bytes>) -> Answer {
    answer(EVENTS, AnswerBody::Events(events))
}

/// What is wrong, in one sentence.
pub fn error(status: StatusCode, sentence: &str) -> Answer {
    #[derive(Serialize)]
    struct Error<'a> {
        error: &'a str,
    }
    let mut answer = json(&Error { error: sentence });
    *answer.status_mut() = status;
    answer
}

/// A request that is refused.
pub fn refused(refusal: &Refusal) -> Answer {
    error(refusal.status, &refusal.sentence)
}

/// Any method but GET.
pub fn get_only() -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "this path takes GET only");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    answer
}

fn answer(content_type: &'static str, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in EVERYWHERE {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
