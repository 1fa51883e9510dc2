//! What is said to a processor, and what its answers mean.

use std::borrow::Cow;
use std::cell::RefCell;

use ledger::json::object;
use ledger::{Cents, CorrelationId, TimestampMs};
use serde::Deserialize;
use sonic_rs::{JsonValueTrait, LazyValue};

use super::target::Target;
use crate::engine::{Call, CallKind, CallOutcome};

/// The body that a processor answers with when it has recorded a payment.
const RECORDED_BODY: &[u8] = b"{\"message\":\"payment processed successfully\"}";

/// The requests of calls to one processor. All but the payment itself is prepared once.
pub struct Requests {
    post_head: Vec<u8>,
    lookup_tail: Vec<u8>,
    /// The last moment that was written, and its text: payments that are sent together share it.
    moment: RefCell<Option<(TimestampMs, String)>>,
}

impl Requests {
    /// Requests to this processor.
    pub fn to(target: &Target) -> Self {
        let authority = &target.authority;
        let post_head = format!(
            "POST /payments HTTP/1.1\r\nhost: {authority}\r\n\
             content-type: application/json\r\ncontent-length: "
        );
        let lookup_tail = format!(" HTTP/1.1\r\nhost: {authority}\r\n\r\n");
        Self {
            post_head: post_head.into_bytes(),
            lookup_tail: lookup_tail.into_bytes(),
            moment: RefCell::new(None),
        }
    }

    /// Writes the request of a call, in place of what is in `bytes`.
    pub fn write(&self, call: &Call, bytes: &mut Vec<u8>) {
        bytes.clear();
        match call.kind {
            CallKind::Post { requested_at } => self.write_post(call, requested_at, bytes),
            CallKind::Lookup => {
                bytes.extend_from_slice(b"GET /payments/");
                bytes.extend_from_slice(&call.id.to_hyphenated());
                bytes.extend_from_slice(&self.lookup_tail);
            }
        }
    }

    fn write_post(&self, call: &Call, requested_at: TimestampMs, bytes: &mut Vec<u8>) {
        let mut moment = self.moment.borrow_mut();
        let moment = match &mut *moment {
            Some((at, text)) if *at == requested_at => text,
            other => &mut other.insert((requested_at, requested_at.to_string())).1,
        };
        let amount = call.amount.to_string();
        let parts: [&[u8]; 7] = [
            b"{\"correlationId\":\"",
            &call.id.to_hyphenated(),
            b"\",\"amount\":",
            amount.as_bytes(),
            b",\"requestedAt\":\"",
            moment.as_bytes(),
            b"\"}",
        ];
        let length: usize = parts.iter().map(|part| part.len()).sum();
        bytes.extend_from_slice(&self.post_head);
        bytes.extend_from_slice(length.to_string().as_bytes());
        bytes.extend_from_slice(b"\r\n\r\n");
        for part in parts {
            bytes.extend_from_slice(part);
        }
    }
}

/// What an answer says of a call.
pub fn outcome(call: &Call, status: u16, body: &[u8]) -> CallOutcome {
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
pub fn post_outcome(status: u16, body: &[u8]) -> CallOutcome {
    match status {
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
pub fn lookup_outcome(id: CorrelationId, status: u16, body: &[u8]) -> CallOutcome {
    match status {
        200 => found(id, body).unwrap_or(CallOutcome::Unknown),
        404 => CallOutcome::Absent,
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
            place: 0,
        }
    }

    fn post() -> Call {
        let requested_at = "2025-07-15T12:34:56.789Z".parse().unwrap();
        call(CallKind::Post { requested_at })
    }

    fn text(requests: &Requests, call: &Call) -> String {
        let mut bytes = b"what was there before".to_vec();
        requests.write(call, &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_payment_is_posted_as_the_contract_says() {
        let requests = Requests::to(&"http://processor:8080".parse().unwrap());
        let head = "POST /payments HTTP/1.1\r\nhost: processor:8080\r\n\
            content-type: application/json\r\n";
        let post_at = |moment: &str, cents| {
            let kind = CallKind::Post { requested_at: moment.parse().unwrap() };
            text(&requests, &Call { amount: Cents::new(cents), ..call(kind) })
        };
        for (moment, cents, amount, length) in [
            ("2025-07-15T12:34:56.789Z", 1990, "19.90", 112),
            ("2025-07-15T12:34:56.789Z", 1, "0.01", 111),
            ("2025-07-15T12:34:56.790Z", 9_999_999_999, "99999999.99", 118),
        ] {
            let body =
                format!(r#"{{"correlationId":"{ID}","amount":{amount},"requestedAt":"{moment}"}}"#);
            let expected = format!("{head}content-length: {length}\r\n\r\n{body}");
            assert_eq!((post_at(moment, cents), body.len()), (expected, length));
        }
    }

    #[test]
    fn a_look_up_names_the_payment() {
        let requests = Requests::to(&"http://processor".parse().unwrap());
        let expected = format!("GET /payments/{ID} HTTP/1.1\r\nhost: processor\r\n\r\n");
        assert_eq!(text(&requests, &call(CallKind::Lookup)), expected);
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
            assert_eq!(outcome(&lookup, status, body.as_bytes()), expected, "{status} {body}");
        }
    }
}
