//! Tests of what the bodies and queries of requests say.

use std::io::{BufReader, Read};

use proptest::prelude::*;

use super::*;

const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

fn body(id: &str, amount: &str, requested_at: &str) -> String {
    format!(r#"{{"correlationId":"{id}","amount":{amount},"requestedAt":"{requested_at}"}}"#)
}

fn amount(text: &str) -> Result<i64, String> {
    payment(body(ID, text, "2025-07-15T12:34:56.000Z").as_bytes())
        .map(|payment| payment.amount.get())
        .map_err(|error| error.to_string())
}

#[test]
fn a_payment_is_read_in_any_order_and_with_more_fields_than_it_needs() {
    let expected = Payment {
        id: ID.parse().unwrap(),
        amount: Cents::new(1990),
        requested_at: "2025-07-15T12:34:56.789Z".parse().unwrap(),
    };
    let plain = body(ID, "19.90", "2025-07-15T12:34:56.789Z");
    assert_eq!(payment(plain.as_bytes()).unwrap(), expected);
    let other = format!(
        r#" {{ "requestedAt" : "2025-07-15T09:34:56.789-03:00", "more": [{{}}, null],
            "amount":1.99e1, "correlationId":"{}" }} "#,
        ID.replace('-', "\\u002D"),
    );
    assert_eq!(payment(other.as_bytes()).unwrap(), expected);
}

#[test]
fn an_amount_is_rounded_to_two_places_half_to_even() {
    for (text, cents) in [
        ("19.90", 1990),
        ("19.905", 1990),
        ("19.915", 1992),
        ("19.9050000000000000000000001", 1991),
        ("19.9149999", 1991),
        ("0.005000001", 1),
        ("0.015", 2),
        ("0.025", 2),
        ("0.035", 4),
        ("1990.5e-2", 1990),
        ("2E1", 2000),
        ("99999999.994", 9_999_999_999),
    ] {
        assert_eq!(amount(text), Ok(cents), "{text}");
    }
}

#[test]
fn what_is_no_amount_is_refused_with_the_reason() {
    for (text, reason) in [
        ("0", "greater than 0"),
        ("-0.0", "greater than 0"),
        ("0.005", "greater than 0"),
        ("-19.90", "greater than 0"),
        ("99999999.995", "at most 99999999.99"),
        ("1e20", "at most 99999999.99"),
        ("1e40", "28 digits"),
        ("0.12345678901234567890123456789012345", "28 digits"),
        ("\"19.90\"", "decimal number"),
        ("null", "decimal number"),
        ("[19.90]", "decimal number"),
        ("019.90", "not what is expected"),
        ("19.", "not what is expected"),
        ("+1", "not what is expected"),
        ("NaN", "not what is expected"),
    ] {
        let error = amount(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn whatever_else_is_wrong_with_a_payment_is_named() {
    let at = "2025-07-15T12:34:56.000Z";
    for (body, reason) in [
        (String::new(), "it is empty"),
        ("{".to_owned(), "not what is expected"),
        (format!(r#"["{ID}",1,"{at}"]"#), "it is not a JSON object"),
        (format!("{} x", body(ID, "1", at)), "not what is expected here"),
        (body("123", "1", at), "correlationId must be a UUID"),
        (body(ID, "1", "yesterday"), "requestedAt: \"yesterday\""),
        (format!(r#"{{"amount":1,"requestedAt":"{at}"}}"#), "missing field `correlationId`"),
        (format!(r#"{{"correlationId":"{ID}","requestedAt":"{at}"}}"#), "missing field `amount`"),
        (format!(r#"{{"correlationId":"{ID}","amount":1}}"#), "missing field `requestedAt`"),
        (format!(r#"{{"correlationId":7,"amount":1,"requestedAt":"{at}"}}"#), "invalid type"),
    ] {
        let error = payment(body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(reason), "{body}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert!(payment(b"{\"correlationId\":\"\xff\"}").is_err());
}

#[test]
fn a_body_is_read_in_one_piece_or_in_many_and_never_beyond_its_length() {
    for buffer_bytes in [1, 3, 100] {
        let sent = BufReader::with_capacity(buffer_bytes, &b"0123456789"[..]);
        let read = read_body(sent.take(10), 10, |bytes| Ok(bytes.to_vec()));
        assert_eq!(read.unwrap(), b"0123456789", "{buffer_bytes}");
    }
    let cut_short = read_body(&b"0123"[..], 10, |_| Ok(())).unwrap_err();
    assert!(matches!(cut_short, RequestError::BodyCutShort));
    let too_large = read_body(io::empty(), BODY_BYTES_MAX + 1, |_| Ok(())).unwrap_err();
    assert!(matches!(too_large, RequestError::BodyTooLarge));
}

#[test]
fn changes_of_settings_are_read() {
    let delay = |delay: &str| change(Setting::Delay, format!(r#"{{"delay":{delay}}}"#).as_bytes());
    assert_eq!(delay("100"), Ok(Change::DelayMs(100)));
    assert_eq!(delay("3600000"), Ok(Change::DelayMs(DELAY_MS_MAX)));
    for wrong in ["-1", "3600001", "1.5", "\"1\"", "null", "1e2"] {
        assert_eq!(delay(wrong), Err(RequestError::Delay), "{wrong}");
    }
    let failure = |body: &str| change(Setting::Failure, body.as_bytes());
    assert_eq!(failure(r#"{"failure":true}"#), Ok(Change::Failure(true)));
    assert_eq!(failure(r#"{"failure":false}"#), Ok(Change::Failure(false)));
    assert!(failure(r#"{"failure":1}"#).is_err());
    let token = |body: &str| change(Setting::Token, body.as_bytes());
    let expected = Change::Token("x".parse().unwrap());
    assert_eq!(token(r#"{"token":"x"}"#), Ok(expected));
    assert_eq!(token(r#"{"token":""}"#), Err(TokenError.into()));
    assert!(token(r#"{"token":5}"#).is_err());
}

#[test]
fn a_range_needs_both_bounds() {
    let both = "from=2025-07-15T12:00:00.000Z&to=2025-07-15T12:00:01.000Z";
    let range = summary_range(both).unwrap().unwrap();
    assert_eq!(range.to.since(range.from), 1000);
    for query in [
        "",
        "from=2025-07-15T12:00:00Z",
        "to=2025-07-15T12:00:00Z",
        "from=&to=2025-07-15T12:00:00Z",
        "from=2025-07-15T12:00:00Z&to=",
        "until=2025-07-15T12:00:00Z&from",
    ] {
        assert_eq!(summary_range(query).unwrap(), None, "{query}");
    }
}

#[test]
fn a_bound_is_percent_decoded_and_keeps_its_plus() {
    let plain = summary_range("from=2025-07-15T12:00:00+02:00&to=2025-07-15T12:00:00Z");
    let encoded = summary_range("to=2025-07-15T12%3a00%3A00Z&from=2025-07-15T12:00:00%2B02:00");
    assert_eq!(plain.unwrap(), encoded.unwrap());
    for (query, reason) in [
        ("from=yesterday", "from: \"yesterday\""),
        ("from=2025-07-15T12:00:00Z&to=x", "to: \"x\""),
        ("to=%zz", "to: \"%zz\""),
        ("to=%ff", "to is not UTF-8"),
        ("to=x&to=y", "to is given twice"),
    ] {
        let error = summary_range(query).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{query}: {error}");
    }
}

#[test]
fn a_page_has_a_size_within_limits() {
    let default = Page { after: None, limit: PAGE_PAYMENTS_DEFAULT };
    assert_eq!(page("").unwrap(), default);
    let second = Page { after: Some(ID.parse().unwrap()), limit: 7 };
    assert_eq!(page(&format!("after={ID}&limit=7")).unwrap(), second);
    for query in ["limit=0", "limit=10001", "limit=-1", "limit=x", "after=1"] {
        assert!(page(query).is_err(), "{query}");
    }
}

proptest! {
    #[test]
    fn rounding_agrees_with_arithmetic_on_whole_numbers(thousandths in 6i64..10_000_000_000) {
        let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
        let (cents, rest) = (thousandths / 10, thousandths % 10);
        let up = rest > 5 || (rest == 5 && cents % 2 == 1);
        prop_assert_eq!(amount(&text), Ok(cents + i64::from(up)));
    }

    #[test]
    fn no_body_and_no_query_makes_a_reader_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in r#"[\[\]{}",:.%&=0-9a-zE+\\-]{0,80}"#,
    ) {
        for body in [&bytes[..], text.as_bytes()] {
            let _ = payment(body);
            for setting in [Setting::Token, Setting::Delay, Setting::Failure] {
                let _ = change(setting, body);
            }
        }
        let _ = amount(&text);
        let _ = (summary_range(&text), page(&text));
        let _ = page(&format!("after={text}&limit={text}"));
    }
}
