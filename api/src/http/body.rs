//! From the body of `POST /payments` to a payment.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use ledger::id::HYPHENATED_CHARACTERS;
use ledger::json::{ObjectError, object};
use ledger::{Cents, CorrelationId};
use serde::Deserialize;
use sonic_rs::{JsonValueTrait, LazyValue};

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than the limit.
    TooLong,
    /// It ended too early, or is not framed as HTTP says.
    Broken,
}

/// Reads a body of limited length.
pub async fn read(mut body: Incoming, bytes_max: usize) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(BodyError::TooLong);
    }
    let mut whole = Bytes::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if whole.len() + data.len() > bytes_max {
            return Err(BodyError::TooLong);
        }
        // Nearly always a body is one piece, which need not be copied.
        whole = if whole.is_empty() { data } else { [whole, data].concat().into() };
    }
    Ok(whole)
}

/// The fields of a payment, as they stand in the text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(borrow, default)]
    correlation_id: Option<LazyValue<'a>>,
    #[serde(borrow, default)]
    amount: Option<LazyValue<'a>>,
}

/// Reads a payment from a body of JSON.
///
/// # Errors
/// One sentence that says what is wrong.
pub fn parse(body: &[u8]) -> Result<(CorrelationId, Cents), String> {
    plain(body).map_or_else(|| parse_any(body), Ok)
}

/// Reads the body that nearly every client writes: both fields and nothing else, the id first and
/// without escapes. Nothing for any other, right or wrong, so that those have one judge.
fn plain(body: &[u8]) -> Option<(CorrelationId, Cents)> {
    let rest = behind(behind(body, b"{")?, b"\"correlationId\"")?;
    let rest = behind(behind(rest, b":")?, b"\"")?;
    let (id, rest) = rest.split_at_checked(HYPHENATED_CHARACTERS)?;
    let rest = behind(behind(rest.strip_prefix(b"\"")?, b",")?, b"\"amount\"")?;
    let rest =
        without_spaces_behind(without_spaces_behind(behind(rest, b":")?).strip_suffix(b"}")?);
    let amount = str::from_utf8(without_spaces_before(rest)).ok()?;
    Some((CorrelationId::parse_ascii(id).ok()?, Cents::parse_amount(amount).ok()?))
}

/// What comes behind a token and the spaces before it.
fn behind<'a>(text: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    // Nearly always there are none.
    text.strip_prefix(token).or_else(|| without_spaces_before(text).strip_prefix(token))
}

/// What JSON takes for a space.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn without_spaces_before(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_space(*first)
    {
        text = rest;
    }
    text
}

fn without_spaces_behind(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., last] = text
        && is_space(*last)
    {
        text = rest;
    }
    text
}

/// Reads a payment from any JSON.
fn parse_any(body: &[u8]) -> Result<(CorrelationId, Cents), String> {
    let fields: Fields<'_> = object(body).map_err(|error| match error {
        ObjectError::Empty => {
            "the body is empty; it must be a JSON object with correlationId and amount".to_owned()
        }
        other => format!("the body is not a payment in JSON: {other}"),
    })?;
    let id = fields.correlation_id.ok_or("correlationId is missing")?;
    let id = id.as_str().ok_or("correlationId must be a string")?;
    let id = id.parse().map_err(|error: ledger::id::CorrelationIdError| error.to_string())?;
    let amount = fields.amount.ok_or("amount is missing")?;
    let amount = Cents::parse_amount(amount.as_raw_str()).map_err(|error| error.to_string())?;
    Ok((id, amount))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

    #[test]
    fn a_payment_is_read_whatever_the_order_and_the_spaces() {
        let expected = (ID.parse().unwrap(), Cents::new(1990));
        for body in [
            format!(r#"{{"correlationId":"{ID}","amount":19.90}}"#),
            format!(r#" {{ "amount" : 19.9 , "correlationId" : "{ID}" }} "#),
            format!(
                r#"{{"correlationId":"{}","amount":1990e-2,"note":[1,{{}}]}}"#,
                ID.to_uppercase()
            ),
            format!(r#"{{"correlationId":"\u0034{}","amount":19.90}}"#, &ID[1..]),
        ] {
            assert_eq!(parse(body.as_bytes()).as_ref(), Ok(&expected), "{body}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence() {
        let id = format!(r#""correlationId":"{ID}""#);
        for (body, sentence) in [
            (String::new(), "the body is empty"),
            (" \n".to_owned(), "the body is empty"),
            ("{".to_owned(), "the body is not a payment in JSON"),
            ("[]".to_owned(), "the body is not a payment in JSON"),
            (format!(r#"["{ID}",19.90]"#), "the body is not a payment in JSON"),
            ("null".to_owned(), "the body is not a payment in JSON"),
            (format!(r#"{{{id},"amount":19.90}}x"#), "the body is not a payment in JSON"),
            (format!(r#"{{{id},"amount":19.90"#), "the body is not a payment in JSON"),
            (format!(r#"{{{id},"amount":1,"amount":2}}"#), "the body is not a payment in JSON"),
            (r#"{"amount":19.90}"#.to_owned(), "correlationId is missing"),
            (r#"{"correlationId":null,"amount":1}"#.to_owned(), "correlationId is missing"),
            (r#"{"correlationId":7,"amount":1}"#.to_owned(), "correlationId must be a string"),
            (r#"{"correlationId":"x","amount":1}"#.to_owned(), "correlationId must be a UUID"),
            (format!("{{{id}}}"), "amount is missing"),
            (format!(r#"{{{id},"amount":null}}"#), "amount is missing"),
            (format!(r#"{{{id},"amount":"19.90"}}"#), "amount must be a decimal number"),
            (format!(r#"{{{id},"amount":[1]}}"#), "amount must be a decimal number"),
            (format!(r#"{{{id},"amount":0}}"#), "amount must be greater than 0"),
            (format!(r#"{{{id},"amount":-1}}"#), "amount must be greater than 0"),
            (format!(r#"{{{id},"amount":19.905}}"#), "amount must have at most two"),
            (format!(r#"{{{id},"amount":100000000}}"#), "amount must be at most 99999999.99"),
        ] {
            let error = parse(body.as_bytes()).unwrap_err();
            assert!(error.starts_with(sentence), "{body}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_usual_body_is_plain_whatever_the_spaces_and_no_other_is() {
        let expected = (ID.parse().unwrap(), Cents::new(1990));
        for body in [
            format!(r#"{{"correlationId":"{ID}","amount":19.90}}"#),
            format!("\r\n{{ \"correlationId\" :\t\"{ID}\" , \"amount\" : 19.9 }}\n"),
        ] {
            assert_eq!(plain(body.as_bytes()), Some(expected), "{body}");
        }
        for body in [
            format!(r#"{{"amount":19.90,"correlationId":"{ID}"}}"#),
            format!(r#"{{"correlationId":"{ID}","amount":19.90,"x":1}}"#),
            format!(r#"{{"correlationId":"{ID}","amount":"19.90"}}"#),
            format!(r#"{{"correlationId":"{ID}","amount":019.90}}"#),
            format!(r#"{{"correlationId":"\u0034{}","amount":19.90}}"#, &ID[1..]),
            format!("{{\"correlationId\":\"{ID}\",\"amount\":19.90}}\u{c}"),
            format!("{{\"correlationId\":\"{ID}\",\"amount\":\u{b}19.90}}"),
            format!(r#"{{"correlationId":"{ID}","amount":}}"#),
            format!(r#"{{"correlationId":"{ID}","amount":19.90"#),
            "{".to_owned(),
        ] {
            assert_eq!(plain(body.as_bytes()), None, "{body}");
        }
    }

    proptest! {
        /// A body that is right but for some bytes is read as it would be without the short way.
        #[test]
        fn a_plain_body_is_read_as_any_other(
            spaces in proptest::collection::vec(
                prop_oneof![50 => "[ \t\n\r]{0,2}", 1 => Just("\u{c}".to_owned())],
                10,
            ),
            amount in "[0-9]{1,3}(\\.[0-9]{1,3})?([eE][+-]?[0-9])?",
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..=3),
        ) {
            let [a, b, c, d, e, f, g, h, i, j] = &spaces[..] else { unreachable!() };
            let mut body = format!(
                "{a}{{{b}\"correlationId\"{c}:{d}\"{ID}\"{e},{f}\"amount\"{g}:{h}{amount}{i}}}{j}"
            )
            .into_bytes();
            for (place, byte) in changes {
                let place = place.index(body.len());
                body[place] = byte;
            }
            if let Some(payment) = plain(&body) {
                prop_assert_eq!(parse_any(&body), Ok(payment));
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_text_like_a_payment_makes_the_parser_panic(
            text in r#"\{?"?(correlationId|amount|x)?"?:?"?[-0-9a-f.eE\\u]{0,40}"?,?\}?"#,
        ) {
            let _ = parse(text.as_bytes());
        }
    }
}
