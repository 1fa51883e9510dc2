//! What is said to a processor, and what its answers mean.

use std::borrow::Cow;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use ledger::json::object;
use ledger::{Cents, CorrelationId, TimestampMs};
use serde::Deserialize;
use sonic_rs::{JsonValueTrait, LazyValue};

use super::target::Target;
use crate::engine::{Call, CallKind, CallOutcome};

/// The body that a processor answers with when it has recorded a payment.
const RECORDED_BODY: &[u8] = b"{\"message\":\"payment processed successfully\"}";

/// The body of a request.
pub type RequestBody = Full<Bytes>;

/// The request of a call.
pub fn request(call: &Call, target: &Target) -> Request<RequestBody> {
    let (method, uri, body) = match call.kind {
        CallKind::Post { requested_at } => {
            let (id, amount) = (call.id, call.amount);
            let body = format!(
                "{{\"correlationId\":\"{id}\",\"amount\":{amount},\"requestedAt\":\"{requested_at}\"}}"
            );
            (Method::POST, Uri::from_static("/payments"), Bytes::from(body))
        }
        CallKind::Lookup => {
            let uri = format!("/payments/{}", call.id);
            let uri = uri.parse().expect("a UUID is made of characters that a path may have");
            (Method::GET, uri, Bytes::new())
        }
    };
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(HOST, target.authority.clone());
    if matches!(call.kind, CallKind::Post { .. }) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    request
}

/// What an answer says of a call.
pub fn outcome(call: &Call, status: StatusCode, body: &[u8]) -> CallOutcome {
    match call.kind {
        CallKind::Post { .. } => post_outcome(status, body),
        CallKind::Lookup => lookup_outcome(call.id, status, body),
    }
}

/// | status | meaning |
/// |---|---|
/// | 200 with a message, a text | recorded |
/// | 422 | recorded before |
/// | 400 | this payment is not acceptable |
/// | 500, 501, any other 4xx but 408 | this call was not carried out |
/// | anything else, 502 to 504 of a proxy among it | nobody knows |
pub fn post_outcome(status: StatusCode, body: &[u8]) -> CallOutcome {
    match status.as_u16() {
        200 if says_recorded(body) => CallOutcome::Recorded,
        422 => CallOutcome::AlreadyRecorded,
        400 => CallOutcome::Refused { status: 400 },
        408 => CallOutcome::Unknown,
        status @ 401..=501 => CallOutcome::NotRecorded { status },
        _ => CallOutcome::Unknown,
    }
}

/// Whether the body is that of a processor: something in between may answer `200` as well.
fn says_recorded(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow, rename = "message")]
        _message: Cow<'a, str>,
    }

    body == RECORDED_BODY || object::<Message<'_>>(body).is_ok()
}

/// | status | meaning |
/// |---|---|
/// | 200 with a payment of this id | recorded so |
/// | 404 | not there at the moment |
/// | anything else | nobody knows |
pub fn lookup_outcome(id: CorrelationId, status: StatusCode, body: &[u8]) -> CallOutcome {
    match status {
        StatusCode::OK => found(id, body).unwrap_or(CallOutcome::Unknown),
        StatusCode::NOT_FOUND => CallOutcome::Absent,
        _ => CallOutcome::Unknown,
    }
}

/// What a processor has recorded, if it is about this payment.
fn found(id: CorrelationId, body: &[u8]) -> Option<CallOutcome> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Recorded<'a> {
        #[serde(borrow)]
        correlation_id: LazyValue<'a>,
        #[serde(borrow)]
        amount: LazyValue<'a>,
        #[serde(borrow)]
        requested_at: LazyValue<'a>,
    }

    let recorded: Recorded<'_> = object(body).ok()?;
    if recorded.correlation_id.as_str()?.parse() != Ok(id) {
        return None;
    }
    let amount = Cents::parse_amount(recorded.amount.as_raw_str()).ok()?;
    let requested_at: TimestampMs = recorded.requested_at.as_str()?.parse().ok()?;
    Some(CallOutcome::Found { amount, requested_at })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use ledger::Processor;

    use super::*;

    const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

    fn call(kind: CallKind) -> Call {
        Call {
            key: crate::engine::tests::key(),
            id: ID.parse().unwrap(),
            amount: Cents::new(1990),
            processor: Processor::Default,
            kind,
        }
    }

    fn post() -> Call {
        let requested_at = "2025-07-15T12:34:56.789Z".parse().unwrap();
        call(CallKind::Post { requested_at })
    }

    #[test]
    fn a_payment_is_posted_as_the_contract_says() {
        let target = "http://processor:8080".parse().unwrap();
        let request = request(&post(), &target);
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/payments"));
        assert_eq!(request.headers()[HOST], "processor:8080");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(request.into_body().collect()).unwrap().to_bytes();
        let expected = format!(
            r#"{{"correlationId":"{ID}","amount":19.90,"requestedAt":"2025-07-15T12:34:56.789Z"}}"#
        );
        assert_eq!(body, expected.as_bytes());
    }

    #[test]
    fn every_answer_to_a_post_has_one_meaning() {
        use CallOutcome::{AlreadyRecorded, NotRecorded, Recorded, Refused, Unknown};

        for (status, body, expected) in [
            (200, r#"{"message":"payment processed successfully"}"#, Recorded),
            (200, r#"{ "message": "done" }"#, Recorded),
            (200, "", Unknown),
            (200, "<html>welcome</html>", Unknown),
            (200, r#"{"status":"ok"}"#, Unknown),
            (200, r#"["payment processed successfully"]"#, Unknown),
            (200, r#"{"message":null}"#, Unknown),
            (200, r#"{"message":"\u0g"}"#, Unknown),
            (201, r#"{"message":"created"}"#, Unknown),
            (204, "", Unknown),
            (302, "", Unknown),
            (400, "", Refused { status: 400 }),
            (401, "", NotRecorded { status: 401 }),
            (404, "", NotRecorded { status: 404 }),
            (408, "", Unknown),
            (422, "", AlreadyRecorded),
            (429, "", NotRecorded { status: 429 }),
            (500, "", NotRecorded { status: 500 }),
            (502, "", Unknown),
            (503, "", Unknown),
            (504, "", Unknown),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(outcome(&post(), status, body.as_bytes()), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_look_up_believes_only_what_is_about_this_payment() {
        let lookup = call(CallKind::Lookup);
        let found = CallOutcome::Found {
            amount: Cents::new(1990),
            requested_at: "2025-07-15T12:34:56.789Z".parse().unwrap(),
        };
        let body = |id: &str, amount: &str, at: &str| {
            format!(r#"{{"correlationId":"{id}","amount":{amount},"requestedAt":"{at}"}}"#)
        };
        let at = "2025-07-15T12:34:56.789Z";
        for (status, body, expected) in [
            (200, body(ID, "19.90", at), found),
            (200, body(ID, "19.9", "2025-07-15T12:34:56.789123+00:00"), found),
            (200, body(&ID.replace('4', "5"), "19.90", at), CallOutcome::Unknown),
            (200, body(ID, "\"19.90\"", at), CallOutcome::Unknown),
            (200, body(ID, "19.90", "yesterday"), CallOutcome::Unknown),
            (200, String::new(), CallOutcome::Unknown),
            (404, String::new(), CallOutcome::Absent),
            (500, String::new(), CallOutcome::Unknown),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(outcome(&lookup, status, body.as_bytes()), expected, "{status} {body}");
        }
    }
}
