//! What a processor answers.

#![no_main]

use api::engine::CallOutcome;
use api::processor::{AnswerError, AnswerReader, lookup_outcome, post_outcome};
use fuzz::bytes::Bytes;
use fuzz::{memory, slow};
use ledger::CorrelationId;
use libfuzzer_sys::fuzz_target;

/// The payment that is looked up.
const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

/// The first byte of an input that is the answer itself, head and all.
const FRAMED: u8 = 255;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Bytes(bytes);
    let kind = bytes.u8();
    if kind == FRAMED {
        return memory::within(16 * bytes.0.len() + 65_536, || framed(bytes));
    }
    let is_post = kind % 2 == 0;
    let status = [200, 201, 400, 404, 408, 422, 429, 500, 502, 504][usize::from(bytes.u8() % 10)];
    let body = bytes.0;
    memory::within(16 * body.len() + 16_384, || {
        if is_post { posted(status, body) } else { looked_up(status, body) }
    });
});

/// An answer is the same in whatever pieces it arrives, and what cannot become one never does.
fn framed(mut bytes: Bytes<'_>) {
    let piece_bytes = usize::from(bytes.u8() % 32) + 1;
    let whole = read(bytes.0, bytes.0.len().max(1));
    let pieces = read(bytes.0, piece_bytes);
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
        // Limits may be noticed in another order.
        (whole, pieces) => assert_eq!(whole.is_err(), pieces.is_err(), "{whole:?} {pieces:?}"),
    }
}

fn read(bytes: &[u8], piece_bytes: usize) -> Result<(u16, Vec<u8>), AnswerError> {
    let mut reader = AnswerReader::default();
    for piece in bytes.chunks(piece_bytes) {
        reader.buffer().extend_from_slice(piece);
        if let Some(answer) = reader.whole(false)? {
            return Ok((answer.status, answer.body.to_vec()));
        }
    }
    let answer = reader.whole(true)?.expect("at the end it is whole or an error");
    Ok((answer.status, answer.body.to_vec()))
}

/// A payment counts as recorded only where a processor says so.
fn posted(status: u16, body: &[u8]) {
    let outcome = post_outcome(status, body);
    match status {
        200 => assert!(matches!(outcome, CallOutcome::Recorded | CallOutcome::Unknown)),
        422 => assert_eq!(outcome, CallOutcome::AlreadyRecorded),
        400 => assert_eq!(outcome, CallOutcome::Refused { status: 400 }),
        status @ (404 | 429 | 500) => assert_eq!(outcome, CallOutcome::NotRecorded { status }),
        _ => assert_eq!(outcome, CallOutcome::Unknown),
    }
    if outcome == CallOutcome::Recorded {
        assert!(slow::json(body).is_none_or(|value| value["message"].is_string()));
    }
}

/// A payment that was found is the one that was looked up, with an amount that it may have.
fn looked_up(status: u16, body: &[u8]) {
    let id: CorrelationId = ID.parse().expect("a UUID");
    let outcome = lookup_outcome(id, status, body);
    match outcome {
        CallOutcome::Found { amount, requested_at } => {
            assert_eq!(status, 200);
            if let Some(value) = slow::json(body) {
                let other_id = value["correlationId"].as_str().expect("an id is a text");
                assert!(other_id.eq_ignore_ascii_case(ID));
                let other_amount = value["amount"].as_number().expect("an amount is a number");
                assert_eq!(slow::amount_cents(other_amount.as_str()), Some(amount.get()));
            }
            let again = format!(
                r#"{{"correlationId":"{id}","amount":{amount},"requestedAt":"{requested_at}"}}"#
            );
            assert_eq!(lookup_outcome(id, status, again.as_bytes()), outcome);
        }
        CallOutcome::Absent => assert_eq!(status, 404),
        other => assert_eq!(other, CallOutcome::Unknown),
    }
}
