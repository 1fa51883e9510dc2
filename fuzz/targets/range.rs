//! The query of `GET /payments-summary`, and the moments in it.

#![no_main]

use fuzz::bytes::Bytes;
use fuzz::{memory, slow};
use ledger::{RangeMs, TimestampMs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Bytes(bytes);
    if bytes.u8() % 2 == 0 {
        composed(bytes);
    } else if let Ok(query) = std::str::from_utf8(bytes.0) {
        any(query);
    }
});

/// Whatever a query says: a span that is read has a text that says the same.
fn any(query: &str) {
    match memory::within(16 * query.len() + 16_384, || api::http::range(query)) {
        Ok(range) => {
            let again = format!("from={}&to={}", range.from, range.to);
            assert_eq!(api::http::range(&again), Ok(range));
        }
        Err(sentence) => assert!(!sentence.is_empty() && !sentence.contains('\n'), "{sentence:?}"),
    }
}

/// A bound whose exact meaning is known: it must be read, and mean that.
fn composed(mut bytes: Bytes<'_>) {
    let (year, month) = (i64::from(bytes.u16() % 10_000), usize::from(bytes.u8() % 14));
    let day = i64::from(bytes.u8() % 33);
    let (hour, minute) = (i64::from(bytes.u8() % 25), i64::from(bytes.u8() % 61));
    let second = i64::from(bytes.u8() % 60);
    let separator = ["T", "t", " "][usize::from(bytes.u8() % 3)];
    let (offset, offset_seconds) = offset(&mut bytes);
    let point = [".", ","][usize::from(bytes.u8() % 2)];
    let fraction: String = bytes.take(24).iter().map(|b| char::from(b'0' + b % 10)).collect();
    let fraction_text =
        if fraction.is_empty() { String::new() } else { format!("{point}{fraction}") };
    let text = format!(
        "{year:04}-{month:02}-{day:02}{separator}{hour:02}:{minute:02}:{second:02}{fraction_text}{offset}"
    );

    let exact = slow::days(year, month, day).filter(|_| hour < 24 && minute < 60).map(|days| {
        let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second - offset_seconds;
        let (whole, finer) = fraction.split_at(fraction.len().min(3));
        let milliseconds: i64 = format!("{whole:0<3}").parse().expect("three digits");
        (seconds * 1000 + milliseconds, finer.bytes().any(|digit| digit != b'0'))
    });
    let floor = exact.and_then(|(floor, _)| TimestampMs::new(floor));
    let ceil = exact.and_then(|(floor, is_finer)| TimestampMs::new(floor + i64::from(is_finer)));
    let from = RangeMs::from_bounds(Some(&text), None);
    assert_eq!(from.ok(), ceil.map(|from| RangeMs { from, ..RangeMs::ALL }), "from {text}");
    let to = RangeMs::from_bounds(None, Some(&text));
    assert_eq!(to.ok(), floor.map(|to| RangeMs { to, ..RangeMs::ALL }), "to {text}");
    assert_eq!(text.parse().ok(), floor, "{text}");
}

/// An offset, and its seconds.
fn offset(bytes: &mut Bytes<'_>) -> (String, i64) {
    let (form, hours, minutes) = (bytes.u8() % 6, bytes.u8() % 24, bytes.u8() % 60);
    let seconds = (i64::from(hours) * 60 + i64::from(minutes)) * 60;
    match form {
        0 => ("Z".to_owned(), 0),
        1 => (String::new(), 0),
        2 => (format!("+{hours:02}:{minutes:02}"), seconds),
        3 => (format!("-{hours:02}:{minutes:02}"), -seconds),
        4 => (format!("+{hours:02}{minutes:02}"), seconds),
        _ => (format!("-{hours:02}"), -i64::from(hours) * 3600),
    }
}
