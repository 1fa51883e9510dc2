//! What is asked, and who answers it.

use std::rc::Rc;

use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use hyper::{Method, Request, StatusCode};
use ledger::disk::folder::FolderDisk;
use ledger::query::parameter;
use ledger::{Cents, CorrelationId, RangeMs};

use super::answers::{
    Answer, accepted, error, json, method_not_allowed, payment, quoted, routing, summary,
    unavailable,
};
use super::body::{self, BodyError};
use super::guard::{Activity, Phase};
use crate::driver::{Accepted, Driver};
use crate::store_client::{StoreAway, StoreClient};

/// What answers requests.
pub struct Api {
    /// Takes payments in.
    pub driver: Rc<Driver<FolderDisk>>,
    /// Answers for what was settled.
    pub store: Rc<StoreClient>,
    /// Bytes of a body, at most.
    pub body_bytes_max: usize,
    /// Whether everything may be emptied.
    pub allow_purge: bool,
}

impl Api {
    /// Answers a request.
    pub async fn answer(&self, request: Request<Incoming>, activity: &Activity) -> Answer {
        let path = request.uri().path();
        let is_get = request.method() == Method::GET;
        let is_post = request.method() == Method::POST;
        match path {
            "/payments" if is_post => self.post(request, activity).await,
            "/payments-summary" if is_get => self.summarize(&request).await,
            "/purge-payments" if is_post => self.purge().await,
            "/health" if is_get => self.health(),
            "/router" if is_get => self.routing(),
            "/payments" | "/purge-payments" => method_not_allowed("POST"),
            "/payments-summary" | "/health" | "/router" => method_not_allowed("GET"),
            _ => match path.strip_prefix("/payments/") {
                Some(id) if is_get => self.look(id).await,
                Some(_) => method_not_allowed("GET"),
                None => error(StatusCode::NOT_FOUND, "there is nothing at this path"),
            },
        }
    }

    async fn post(&self, request: Request<Incoming>, activity: &Activity) -> Answer {
        if let Some(refusal) = refuse_by_head(&request) {
            return refusal;
        }
        let whole = match body::read(request.into_body(), self.body_bytes_max).await {
            Ok(whole) => whole,
            Err(BodyError::TooLong) => {
                activity.close_gently();
                let sentence = format!("the body is longer than {} bytes", self.body_bytes_max);
                return error(StatusCode::PAYLOAD_TOO_LARGE, &sentence).and_close();
            }
            Err(BodyError::Broken) => {
                let sentence = "the body does not arrive as its head says";
                return error(StatusCode::BAD_REQUEST, sentence).and_close();
            }
        };
        activity.enter(Phase::Answering);
        self.take_in(body::parse(&whole)).await
    }

    /// Takes a payment in, if it could be read.
    pub async fn take_in(&self, payment: Result<(CorrelationId, Cents), String>) -> Answer {
        let (id, amount) = match payment {
            Ok(payment) => payment,
            Err(sentence) => return error(StatusCode::BAD_REQUEST, &sentence),
        };
        match self.driver.accept(id, amount).await {
            Accepted::Yes => accepted(),
            Accepted::Conflict(other) => {
                let sentence = format!(
                    "a payment with this correlationId and the amount {other} was accepted before"
                );
                error(StatusCode::CONFLICT, &sentence)
            }
            Accepted::Unsure => {
                unavailable("whether this payment was purged is not known at the moment")
            }
            Accepted::Full => unavailable(FULL),
            Accepted::Failing(why) => unavailable(&format!("no payment can be accepted: {why}")),
        }
    }

    async fn summarize(&self, request: &Request<Incoming>) -> Answer {
        match range(request.uri().query().unwrap_or_default()) {
            Err(sentence) => error(StatusCode::BAD_REQUEST, &sentence),
            Ok(range) => match self.store.summarize(range).await {
                Ok(totals) => summary(&totals),
                Err(away) => store_away(&away),
            },
        }
    }

    async fn look(&self, id: &str) -> Answer {
        let id: CorrelationId = match id.parse() {
            Ok(id) => id,
            Err(why) => return error(StatusCode::BAD_REQUEST, &format!("{why}")),
        };
        match self.store.look(id).await {
            Ok(Some(record)) => payment(&record),
            Ok(None) => {
                error(StatusCode::NOT_FOUND, "no payment with this correlationId was accepted")
            }
            Err(away) => store_away(&away),
        }
    }

    async fn purge(&self) -> Answer {
        if !self.allow_purge {
            let sentence = "purging is switched off; --allow-purge switches it on";
            return error(StatusCode::FORBIDDEN, sentence);
        }
        match self.store.purge().await {
            Ok(()) => json(StatusCode::OK, r#"{"message":"All payments purged."}"#.to_owned()),
            Err(away) => store_away(&away),
        }
    }

    /// What the router knows and thinks.
    fn routing(&self) -> Answer {
        let (view, waiting_count, oldest_age_ms) = self.driver.routing();
        routing(&view, waiting_count, oldest_age_ms)
    }

    /// `200` while payments are taken in.
    fn health(&self) -> Answer {
        let store = if self.store.is_connected() { "connected" } else { "away" };
        let open = self.driver.open_count();
        let full = || self.driver.is_full().then(|| FULL.to_owned());
        match self.driver.failure().or_else(full) {
            None => json(
                StatusCode::OK,
                format!("{{\"status\":\"ok\",\"store\":\"{store}\",\"openPayments\":{open}}}"),
            ),
            Some(why) => json(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "{{\"status\":\"failing\",\"reason\":{},\"store\":\"{store}\",\"openPayments\":{open}}}",
                    quoted(&why)
                ),
            ),
        }
    }
}

/// Why no payment is taken in where the backlog is at its limit.
const FULL: &str = "too many payments are waiting to be settled";

fn store_away(away: &StoreAway) -> Answer {
    unavailable(&away.to_string())
}

/// Refuses a payment whose head says already that it cannot be read.
fn refuse_by_head(request: &Request<Incoming>) -> Option<Answer> {
    let headers = request.headers();
    if headers.get(CONTENT_TYPE).is_some_and(|value| !is_json(value.as_bytes())) {
        let sentence = "the body must be sent as content-type application/json";
        return Some(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
    }
    let is_framed = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    if !is_framed && request.body().is_end_stream() {
        let sentence = "the body must be sent with a content-length or chunked";
        return Some(error(StatusCode::LENGTH_REQUIRED, sentence));
    }
    None
}

/// Whether a content type is that of JSON, with whatever parameters.
pub fn is_json(content_type: &[u8]) -> bool {
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// The span of time that a query asks for.
pub fn range(query: &str) -> Result<RangeMs, String> {
    let from = parameter(query, "from").map_err(|why| why.to_string())?;
    let to = parameter(query, "to").map_err(|why| why.to_string())?;
    RangeMs::from_bounds(from.as_deref(), to.as_deref()).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use ledger::TimestampMs;

    use super::*;

    #[test]
    fn each_bound_is_optional_and_may_be_encoded() {
        let noon: TimestampMs = "2025-07-15T12:00:00Z".parse().unwrap();
        let all = RangeMs::ALL;
        for (query, expected) in [
            ("", all),
            ("x=1", all),
            ("from=&to", all),
            ("from=2025-07-15T12:00:00Z", RangeMs { from: noon, ..all }),
            ("to=2025-07-15T12%3A00%3A00.000Z", RangeMs { to: noon, ..all }),
            ("to=2025-07-15T14:00:00%2B02:00", RangeMs { to: noon, ..all }),
            ("to=2025-07-15T14:00:00+02:00&x", RangeMs { to: noon, ..all }),
            ("from=2025-07-15T12:00:00Z&to=2025-07-15T12:00:00Z", RangeMs { from: noon, to: noon }),
        ] {
            assert_eq!(range(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn a_bad_bound_is_refused_with_its_name() {
        for (query, sentence) in [
            ("to=now", "to: \"now\" is not"),
            ("to=%ff", "to is not UTF-8"),
            ("from=2025-07-15T12:00:00Z&from=2025-07-15T12:00:00Z", "from is given twice"),
        ] {
            let error = range(query).unwrap_err();
            assert!(error.starts_with(sentence), "{query}: {error}");
        }
    }
}
