//! The answers that the API gives.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
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

/// An answer, with its body in memory.
pub type Answer = Response<Full<Bytes>>;

/// An answer with a body of JSON.
pub fn json(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    set(&mut answer, CONTENT_TYPE, "application/json");
    answer
}

/// `202` without a body.
pub fn accepted() -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::ACCEPTED;
    answer
}

/// An error, with one sentence that says what is wrong.
pub fn error(status: StatusCode, sentence: &str) -> Answer {
    json(status, error_body(sentence))
}

fn error_body(sentence: &str) -> String {
    format!("{{\"error\":{}}}", quoted(sentence))
}

/// An error after which the connection closes, because the rest of the request is not read.
pub fn error_and_close(status: StatusCode, sentence: &str) -> Answer {
    let mut answer = error(status, sentence);
    set(&mut answer, CONNECTION, "close");
    answer
}

/// The bytes of an error after which the connection closes, where there is no request to answer.
pub fn raw_error(status: StatusCode, sentence: &str) -> Vec<u8> {
    let body = error_body(sentence);
    let retry = if status == StatusCode::SERVICE_UNAVAILABLE { "retry-after: 1\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\n{retry}content-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// `503`, to be tried again in a second.
pub fn unavailable(sentence: &str) -> Answer {
    let mut answer = error(StatusCode::SERVICE_UNAVAILABLE, sentence);
    set(&mut answer, RETRY_AFTER, "1");
    answer
}

/// `405` with the method that the path knows.
pub fn method_not_allowed(allowed: &'static str) -> Answer {
    let sentence = format!("this path takes {allowed} only");
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, &sentence);
    set(&mut answer, ALLOW, allowed);
    answer
}

fn set(answer: &mut Answer, name: HeaderName, value: &'static str) {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
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
    use http_body_util::BodyExt;
    use ledger::{Cents, CorrelationId, TimestampMs};

    use super::*;

    fn body(answer: Answer) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(answer.into_body().collect()).unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn totals_have_two_decimal_places() {
        let totals = [
            Totals { count: 3, amount: Cents::new(5970) },
            Totals { count: 0, amount: Cents::ZERO },
        ];
        let expected = r#"{"default":{"totalRequests":3,"totalAmount":59.70},"fallback":{"totalRequests":0,"totalAmount":0.00}}"#;
        assert_eq!(body(summary(&totals)), expected);
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
            assert_eq!(body(payment(&record)), format!("{head}{expected}}}"));
        }
    }

    #[test]
    fn an_error_without_a_request_is_whole() {
        let bytes = raw_error(StatusCode::REQUEST_TIMEOUT, "too late");
        let expected = "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
            content-type: application/json\r\ncontent-length: 20\r\n\r\n{\"error\":\"too late\"}";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn a_sentence_is_quoted() {
        let answer = error(StatusCode::BAD_REQUEST, "a \"quoted\"\nword");
        assert_eq!(body(answer), r#"{"error":"a \"quoted\"\nword"}"#);
    }
}
