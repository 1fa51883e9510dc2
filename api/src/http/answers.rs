//! The answers that the API gives.

use std::fmt::Write;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use ledger::journal::{Event, PaymentRecord};
use ledger::{Processor, Totals};
use serde::Serialize;

use crate::router::{BreakerState, RouterView};

/// A processor in [`routing`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessorState {
    breaker: &'static str,
    slow: bool,
    latency_ms: u64,
    in_flight: u32,
    in_flight_max: u32,
}

/// The router in [`routing`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RouterState {
    reason: &'static str,
    waiting_payments: usize,
    oldest_age_ms: u64,
    outage_ms: Option<u64>,
    usual_outage_ms: u64,
    worth_waiting_ms: u64,
    default: ProcessorState,
    fallback: ProcessorState,
}

/// What the router of this instance knows and thinks, how many payments wait for it, and for how many
/// milliseconds the first of them has waited.
pub fn routing(view: &RouterView, waiting_count: usize, oldest_age_ms: u64) -> Answer {
    let [default, fallback] = view.processors.map(|processor| ProcessorState {
        breaker: match processor.breaker {
            BreakerState::Closed => "closed",
            BreakerState::Open { .. } => "open",
            BreakerState::HalfOpen { .. } => "half-open",
        },
        slow: processor.is_slow,
        latency_ms: processor.latency_ms,
        in_flight: processor.in_flight,
        in_flight_max: processor.limit,
    });
    let state = RouterState {
        reason: view.reason.words(),
        waiting_payments: waiting_count,
        oldest_age_ms,
        outage_ms: view.outage_ms,
        usual_outage_ms: view.outage_mean_ms,
        worth_waiting_ms: view.outage_worth_ms,
        default,
        fallback,
    };
    let body = sonic_rs::to_string(&state).expect("numbers and words can be written as JSON");
    json(StatusCode::OK, body)
}

/// An answer, not yet written for a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    status: StatusCode,
    /// JSON, or nothing.
    body: String,
    /// The method that the path knows, where it was another one.
    allowed: Option<&'static str>,
    /// Whether it is to be tried again in a second.
    asks_to_retry: bool,
    /// Whether it is the last of its connection.
    closes: bool,
}

impl Answer {
    fn new(status: StatusCode, body: String) -> Self {
        Self { status, body, allowed: None, asks_to_retry: false, closes: false }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The same, after which the connection closes.
    #[must_use]
    pub fn and_close(self) -> Self {
        Self { closes: true, ..self }
    }

    /// The fields of its head, but for the length and the date.
    fn fields(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        [
            self.closes.then_some(("connection", "close")),
            self.asks_to_retry.then_some(("retry-after", "1")),
            self.allowed.map(|allowed| ("allow", allowed)),
            (!self.body.is_empty()).then_some(("content-type", "application/json")),
        ]
        .into_iter()
        .flatten()
    }

    /// For hyper, which adds the length and the date.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = self.status;
        for (name, value) in self.fields() {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        *response.body_mut() = Full::from(self.body);
        response
    }

    /// As it is written to a connection, with this date if there is one.
    pub fn to_bytes(&self, date: Option<&str>) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {}\r\n", self.status);
        for (name, value) in self.fields() {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        if let Some(date) = date {
            let _ = write!(text, "date: {date}\r\n");
        }
        let _ = write!(text, "content-length: {}\r\n\r\n{}", self.body.len(), self.body);
        text.into_bytes()
    }
}

/// An answer with a body of JSON.
pub fn json(status: StatusCode, body: String) -> Answer {
    Answer::new(status, body)
}

/// `202` without a body.
pub fn accepted() -> Answer {
    Answer::new(StatusCode::ACCEPTED, String::new())
}

/// An error, with one sentence that says what is wrong.
pub fn error(status: StatusCode, sentence: &str) -> Answer {
    json(status, format!("{{\"error\":{}}}", quoted(sentence)))
}

/// `503`, to be tried again in a second.
pub fn unavailable(sentence: &str) -> Answer {
    Answer { asks_to_retry: true, ..error(StatusCode::SERVICE_UNAVAILABLE, sentence) }
}

/// `405` with the method that the path knows.
pub fn method_not_allowed(allowed: &'static str) -> Answer {
    let sentence = format!("this path takes {allowed} only");
    Answer { allowed: Some(allowed), ..error(StatusCode::METHOD_NOT_ALLOWED, &sentence) }
}

/// The totals by [`Processor::index`].
pub fn summary(totals: &[Totals; 2]) -> Answer {
    let [default, fallback] = totals.map(|totals| {
        format!("{{\"totalRequests\":{},\"totalAmount\":{}}}", totals.count, totals.amount)
    });
    json(StatusCode::OK, format!("{{\"default\":{default},\"fallback\":{fallback}}}"))
}

/// How a payment stands, by the record that tells most of it.
pub fn payment(record: &PaymentRecord) -> Answer {
    let status = |status: &str| format!("\"status\":\"{status}\"");
    let at = |name: &str, processor: Processor| {
        format!("{},\"processor\":\"{processor}\"", status(name))
    };
    let standing = match record.event {
        Event::Accepted | Event::Failed { .. } => status("accepted"),
        Event::Dispatched { processor, requested_at } => {
            format!("{},\"requestedAt\":\"{requested_at}\"", at("in_flight", processor))
        }
        Event::Settled { processor, requested_at } => {
            format!("{},\"requestedAt\":\"{requested_at}\"", at("settled", processor))
        }
        Event::Refused { processor, .. } => at("refused", processor),
        Event::Duplicate => status("duplicate"),
    };
    let (id, amount) = (record.id, record.amount);
    json(StatusCode::OK, format!("{{\"correlationId\":\"{id}\",\"amount\":{amount},{standing}}}"))
}

/// A text as JSON writes it.
pub fn quoted(text: &str) -> String {
    sonic_rs::to_string(text).expect("a text has no part that JSON cannot write")
}

#[cfg(test)]
mod tests {
    use ledger::{Cents, CorrelationId, TimestampMs};

    use super::*;

    #[test]
    fn totals_have_two_decimal_places() {
        let totals = [
            Totals { count: 3, amount: Cents::new(5970) },
            Totals { count: 0, amount: Cents::ZERO },
        ];
        let expected = r#"{"default":{"totalRequests":3,"totalAmount":59.70},"fallback":{"totalRequests":0,"totalAmount":0.00}}"#;
        assert_eq!(summary(&totals).body, expected);
    }

    #[test]
    fn a_payment_stands_as_its_record_says() {
        let requested_at = TimestampMs::clamped(0);
        let processor = Processor::Fallback;
        let moment = r#""requestedAt":"1970-01-01T00:00:00.000Z""#;
        for (event, expected) in [
            (Event::Accepted, r#""status":"accepted""#.to_owned()),
            (Event::Failed { processor, status: 500 }, r#""status":"accepted""#.to_owned()),
            (
                Event::Dispatched { processor, requested_at },
                format!(r#""status":"in_flight","processor":"fallback",{moment}"#),
            ),
            (
                Event::Settled { processor, requested_at },
                format!(r#""status":"settled","processor":"fallback",{moment}"#),
            ),
            (
                Event::Refused { processor, status: 400 },
                r#""status":"refused","processor":"fallback""#.to_owned(),
            ),
        ] {
            let record = PaymentRecord {
                id: CorrelationId::from_bytes([0x11; 16]),
                amount: Cents::new(1990),
                written_at: requested_at,
                event,
            };
            let head = r#"{"correlationId":"11111111-1111-1111-1111-111111111111","amount":19.90,"#;
            assert_eq!(payment(&record).body, format!("{head}{expected}}}"));
        }
    }

    #[test]
    fn an_answer_says_the_same_by_hyper_and_by_itself() {
        let conflict = error(StatusCode::CONFLICT, "another");
        for (answer, fields) in [
            (accepted(), ""),
            (conflict.clone(), "content-type: application/json\r\n"),
            (conflict.and_close(), "connection: close\r\ncontent-type: application/json\r\n"),
            (unavailable("later"), "retry-after: 1\r\ncontent-type: application/json\r\n"),
            (method_not_allowed("GET"), "allow: GET\r\ncontent-type: application/json\r\n"),
        ] {
            let (status, body) = (answer.status, answer.body.clone());
            let length = body.len();
            let expected = |date: &str| {
                format!("HTTP/1.1 {status}\r\n{fields}{date}content-length: {length}\r\n\r\n{body}")
            };
            assert_eq!(String::from_utf8(answer.to_bytes(None)).unwrap(), expected(""));
            let dated = String::from_utf8(answer.to_bytes(Some("today"))).unwrap();
            assert_eq!(dated, expected("date: today\r\n"));
            let response = answer.into_response();
            assert_eq!(response.status(), status);
            let mut told = String::new();
            for (name, value) in response.headers() {
                write!(told, "{name}: {}\r\n", value.to_str().unwrap()).unwrap();
            }
            assert_eq!(told, fields);
        }
    }

    #[test]
    fn a_sentence_is_quoted() {
        let answer = error(StatusCode::BAD_REQUEST, "a \"quoted\"\nword");
        assert_eq!(answer.body, r#"{"error":"a \"quoted\"\nword"}"#);
    }
}
