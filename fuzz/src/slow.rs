//! Readers that are slow, plain, and written a second time, to compare with.

use ledger::money::PAYMENT_CENTS;
use rust_decimal::Decimal;
use serde_json::Value;

/// The amount of a payment that a JSON number's text says: its point is moved as text, and what then
/// stands there is read with all its digits.
#[must_use]
pub fn amount_cents(text: &str) -> Option<i64> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let is_canonical = integer == "0" || !integer.starts_with('0');
    if !are_digits(integer) || !are_digits(fraction) || !is_canonical {
        return None;
    }
    let shift = shift(exponent)?;
    let mut digits: Vec<u8> = integer.bytes().chain(fraction.bytes()).collect();
    let mut point = integer.len() as i64;
    if digits.iter().all(|digit| *digit == b'0') {
        return None;
    }
    // With more than that nothing is left on one side of the point, or too much.
    if shift.abs() > digits.len() as i64 + 20 {
        return None;
    }
    point += shift;
    while point < 1 {
        digits.insert(0, b'0');
        point += 1;
    }
    while point > digits.len() as i64 {
        digits.push(b'0');
    }
    let (integer, fraction) = digits.split_at(usize::try_from(point).expect("the point is inside"));
    let integer = std::str::from_utf8(integer).expect("digits").trim_start_matches('0');
    let fraction = std::str::from_utf8(fraction).expect("digits").trim_end_matches('0');
    if integer.len() > 20 || fraction.len() > 2 {
        return None;
    }
    let plain: Decimal = format!("0{integer}.{fraction}0").parse().expect("a plain decimal");
    let cents = i64::try_from((plain * Decimal::ONE_HUNDRED).mantissa() / scale(plain)).ok()?;
    PAYMENT_CENTS.contains(&cents).then_some(cents)
}

/// Ten to the number of places that a hundred times the number has.
fn scale(number: Decimal) -> i128 {
    10_i128.pow((number * Decimal::ONE_HUNDRED).scale())
}

/// By how many places an exponent moves the point; a very long one by very many.
fn shift(exponent: Option<&str>) -> Option<i64> {
    let Some(text) = exponent else { return Some(0) };
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    Some(sign * if digits.len() > 9 { 1_000_000_000 } else { format!("0{digits}").parse().ok()? })
}

/// What another reader of JSON reads. `None` where nothing but the escapes in texts is wrong: those of
/// fields that nobody asks for are not looked at.
///
/// # Panics
/// It is not JSON, or not UTF-8.
#[must_use]
pub fn json(bytes: &[u8]) -> Option<Value> {
    let value = serde_json::from_slice(bytes).ok();
    if value.is_none() {
        let mut without_escapes = bytes.to_vec();
        let mut rest = &mut without_escapes[..];
        while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
            // The four that should be digits are passed over whatever they are, a quote even.
            let length = if rest.get(at + 1) == Some(&b'u') { 6 } else { 2 };
            let escape_end = (at + length).min(rest.len());
            rest[at..escape_end].fill(b'x');
            rest = &mut rest[escape_end..];
        }
        // They may be the first bytes of a character as well, whose last ones then stand alone.
        std::str::from_utf8(bytes).expect("what is accepted is UTF-8");
        let without_escapes = String::from_utf8_lossy(&without_escapes);
        let read = serde_json::from_str::<Value>(&without_escapes);
        read.expect("what is accepted is JSON but for the escapes in its texts");
    }
    value
}

/// Days from 1970-01-01 to a date, counted year by year; `None` where there is no such day.
#[must_use]
pub fn days(year: i64, month: usize, day: i64) -> Option<i64> {
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *months.get(month.checked_sub(1)?)?;
    if !(1..=length).contains(&day) {
        return None;
    }
    let year_days = |year| if is_leap(year) { 366 } else { 365 };
    let years: i64 = if year >= 1970 {
        (1970..year).map(year_days).sum()
    } else {
        -(year..1970).map(year_days).sum::<i64>()
    };
    Some(years + months[..month - 1].iter().sum::<i64>() + day - 1)
}
