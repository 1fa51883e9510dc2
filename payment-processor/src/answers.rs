//! What the answers look like. Those that never change are constants, so that the common ones cost
//! no allocation.

use std::fmt::Write;

use ledger::{Cents, Totals};
use may_minihttp::Response;
use rust_decimal::Decimal;
use serde::Serialize;

use crate::books::Record;

const JSON: &str = "Content-Type: application/json";

/// Writing to memory does not fail.
const INFALLIBLE: &str = "a buffer grows as it is written to";

/// Decimal places of a total amount.
const AMOUNT_PLACES: u32 = 2;

/// An answer that is always the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    status: usize,
    reason: &'static str,
    body: &'static str,
}

impl Fixed {
    /// The payment is in the books.
    pub const PROCESSED: Self =
        Self { status: 200, reason: "OK", body: r#"{"message":"payment processed successfully"}"# };
    /// Its id was in the books before.
    pub const KNOWN: Self = Self {
        status: 422,
        reason: "Unprocessable Content",
        body: r#"{"message":"a payment with this correlationId is already recorded"}"#,
    };
    /// The processor is set to fail.
    pub const FAILED: Self = Self { status: 500, reason: "Internal Server Error", body: "" };
    /// The concurrency limit.
    pub const TOO_MANY_PAYMENTS: Self = Self {
        status: 429,
        reason: "Too Many Requests",
        body: r#"{"message":"too many payments are running and waiting"}"#,
    };
    /// The health check is asked too often.
    pub const TOO_MANY_HEALTH_CHECKS: Self = Self {
        status: 429,
        reason: "Too Many Requests",
        body: r#"{"message":"one health check per window, and two calls are already held"}"#,
    };
    /// No such payment.
    pub const NO_PAYMENT: Self = Self {
        status: 404,
        reason: "Not Found",
        body: r#"{"message":"no payment with this correlationId is recorded"}"#,
    };
    /// No such path.
    pub const NO_PATH: Self = Self {
        status: 404,
        reason: "Not Found",
        body: r#"{"message":"there is nothing at this path"}"#,
    };
    /// Another method is needed.
    pub const WRONG_METHOD: Self = Self {
        status: 405,
        reason: "Method Not Allowed",
        body: r#"{"message":"this path has another method"}"#,
    };
    /// The token is missing or wrong.
    pub const UNAUTHORIZED: Self = Self {
        status: 401,
        reason: "Unauthorized",
        body: r#"{"message":"the header X-Rinha-Token does not carry the current token"}"#,
    };
    /// The token was changed.
    pub const TOKEN_SET: Self = Self { status: 204, reason: "No Content", body: "" };
    /// The books are empty.
    pub const PURGED: Self =
        Self { status: 200, reason: "OK", body: r#"{"message":"All payments purged."}"# };
    /// A body whose length is not told.
    pub const LENGTH_REQUIRED: Self = Self {
        status: 411,
        reason: "Length Required",
        body: r#"{"message":"a body needs a Content-Length, not a Transfer-Encoding"}"#,
    };
    /// A length that is no number.
    pub const BAD_LENGTH: Self = Self {
        status: 400,
        reason: "Bad Request",
        body: r#"{"message":"Content-Length must be a number of bytes"}"#,
    };

    /// Gives this answer.
    pub fn give(self, response: &mut Response<'_>) {
        response.status_code(self.status, self.reason);
        if !self.body.is_empty() {
            response.header(JSON);
        }
        response.body(self.body);
    }
}

/// A fault in the request, said in a sentence.
pub fn fault(response: &mut Response<'_>, status: usize, reason: &'static str, message: &str) {
    #[derive(Serialize)]
    struct Body<'a> {
        message: &'a str,
    }
    let body = sonic_rs::to_vec(&Body { message }).expect("a text always becomes JSON");
    response.status_code(status, reason);
    response.header(JSON);
    response.body_vec(body);
}

/// The state of health: what the processor is set to.
pub fn health(response: &mut Response<'_>, failing: bool, delay_ms: u64) {
    response.header(JSON);
    write!(response.body_mut(), r#"{{"failing":{failing},"minResponseTime":{delay_ms}}}"#)
        .expect(INFALLIBLE);
}

/// A setting that was changed.
pub fn changed<T: std::fmt::Display>(response: &mut Response<'_>, config: &str, was: T, is: T) {
    response.header(JSON);
    write!(response.body_mut(), r#"{{"config":"{config}","was":{was},"is":{is}}}"#)
        .expect(INFALLIBLE);
}

/// A recorded payment.
pub fn payment(response: &mut Response<'_>, record: &Record) {
    response.header(JSON);
    let body = response.body_mut();
    write_payment(body, record);
    body.write_str("}").expect(INFALLIBLE);
}

/// A page of recorded payments, with how often each was attempted.
pub fn page(response: &mut Response<'_>, records: &[Record]) {
    response.header(JSON);
    let body = response.body_mut();
    for (index, record) in records.iter().enumerate() {
        body.write_str(if index == 0 { "[" } else { "," }).expect(INFALLIBLE);
        write_payment(body, record);
        write!(body, r#","attempts":{}}}"#, record.attempts_count).expect(INFALLIBLE);
    }
    body.write_str(if records.is_empty() { "[]" } else { "]" }).expect(INFALLIBLE);
}

/// A payment as JSON, but for the brace at its end.
fn write_payment(body: &mut impl Write, record: &Record) {
    let payment = &record.payment;
    write!(
        body,
        r#"{{"correlationId":"{}","amount":{},"requestedAt":"{}""#,
        payment.id, payment.amount, payment.requested_at
    )
    .expect(INFALLIBLE);
}

/// Totals, with the exact fee on them.
pub fn summary(response: &mut Response<'_>, totals: Totals, fee: Decimal) {
    response.header(JSON);
    write!(
        response.body_mut(),
        r#"{{"totalRequests":{},"totalAmount":{},"totalFee":{},"feePerTransaction":{fee}}}"#,
        totals.count,
        totals.amount,
        total_fee(totals.amount, fee),
    )
    .expect(INFALLIBLE);
}

/// The fee on an amount, not rounded: with as many places as it needs, and at least two.
fn total_fee(amount: Cents, fee: Decimal) -> Decimal {
    let mut total = (Decimal::new(amount.get(), AMOUNT_PLACES) * fee).normalize();
    total.rescale(total.scale().max(AMOUNT_PLACES));
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fee_is_exact_and_has_at_least_two_places() {
        let fee = |cents, fee: &str| total_fee(Cents::new(cents), fee.parse().unwrap()).to_string();
        assert_eq!(fee(1990, "0.05"), "0.995");
        assert_eq!(fee(1991, "0.15"), "2.9865");
        assert_eq!(fee(2000, "0.5"), "10.00");
        assert_eq!(fee(0, "0.15"), "0.00");
        assert_eq!(fee(i64::MAX, "0.999999"), "92233628134827389.52224193");
    }

    #[test]
    fn fixed_bodies_are_json() {
        for answer in [
            Fixed::PROCESSED,
            Fixed::KNOWN,
            Fixed::TOO_MANY_PAYMENTS,
            Fixed::TOO_MANY_HEALTH_CHECKS,
            Fixed::NO_PAYMENT,
            Fixed::NO_PATH,
            Fixed::WRONG_METHOD,
            Fixed::UNAUTHORIZED,
            Fixed::PURGED,
            Fixed::LENGTH_REQUIRED,
            Fixed::BAD_LENGTH,
        ] {
            let body: sonic_rs::Value = sonic_rs::from_str(answer.body).unwrap();
            assert!(sonic_rs::JsonValueTrait::is_str(&body["message"]));
        }
    }
}
