//! What the bodies and the queries of requests say. Whatever is wrong with one is said in a
//! sentence, and a body is borrowed from, not copied.

use std::borrow::Cow;
use std::io::{self, BufRead};

use ledger::json::object;
use ledger::money::{AmountError, PAYMENT_CENTS};
use ledger::query::parameter;
use ledger::{Cents, CorrelationId, RangeMs, TimestampMs};
use rust_decimal::{Decimal, RoundingStrategy};
use serde::Deserialize;
use sonic_rs::LazyValue;

use crate::books::Payment;
use crate::controls::{DELAY_MS_MAX, Token, TokenError};

/// The largest body that is read.
pub const BODY_BYTES_MAX: usize = 16 * 1024;

/// Payments on a page, where the query does not say.
const PAGE_PAYMENTS_DEFAULT: usize = 1000;

/// The most payments on a page.
const PAGE_PAYMENTS_MAX: usize = 10_000;

/// Decimal places of a recorded amount.
const AMOUNT_PLACES: u32 = 2;

/// What is wrong with a body or a query.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// More than [`BODY_BYTES_MAX`].
    #[error("the body must have at most {BODY_BYTES_MAX} bytes")]
    BodyTooLarge,
    /// The connection ended within the body.
    #[error("the body ended before its Content-Length")]
    BodyCutShort,
    /// Not the JSON object that is asked for.
    #[error("the body is not what is expected here: {0}")]
    Json(#[from] ledger::json::ObjectError),
    /// No UUID.
    #[error(transparent)]
    Id(#[from] ledger::id::CorrelationIdError),
    /// No number, or one that no payment can have.
    #[error(transparent)]
    Amount(#[from] AmountError),
    /// A number with more digits than a decimal holds.
    #[error("amount must be a number of at most 28 digits")]
    AmountDigits,
    /// No moment.
    #[error("requestedAt: {0}")]
    RequestedAt(ledger::time::MomentError),
    /// No bound of a range.
    #[error(transparent)]
    Bound(#[from] ledger::time::BoundError),
    /// No token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No delay.
    #[error("delay must be a whole number of milliseconds from 0 to {DELAY_MS_MAX}")]
    Delay,
    /// No page size.
    #[error("limit must be a whole number from 1 to {PAGE_PAYMENTS_MAX}")]
    PageLimit,
    /// A parameter of the query that cannot be read.
    #[error(transparent)]
    Query(#[from] ledger::query::QueryError),
}

/// Hands a whole body to a reader: in place where it came in one piece with the head.
pub fn read_body<T>(
    mut body: impl BufRead,
    body_bytes: usize,
    read: impl FnOnce(&[u8]) -> Result<T, RequestError>,
) -> Result<T, RequestError> {
    if body_bytes > BODY_BYTES_MAX {
        return Err(RequestError::BodyTooLarge);
    }
    let cut_short = |_: io::Error| RequestError::BodyCutShort;
    let arrived = body.fill_buf().map_err(cut_short)?;
    if arrived.len() == body_bytes {
        return read(arrived);
    }
    let mut whole = vec![0; body_bytes];
    body.read_exact(&mut whole).map_err(cut_short)?;
    read(&whole)
}

#[derive(Deserialize)]
struct PaymentBody<'a> {
    // `Cow` borrows unless the text has an escape in it.
    #[serde(borrow, rename = "correlationId")]
    correlation_id: Cow<'a, str>,
    #[serde(borrow)]
    amount: LazyValue<'a>,
    #[serde(borrow, rename = "requestedAt")]
    requested_at: Cow<'a, str>,
}

/// Reads the body of `POST /payments`.
pub fn payment(body: &[u8]) -> Result<Payment, RequestError> {
    let body: PaymentBody<'_> = object(body)?;
    Ok(Payment {
        id: body.correlation_id.parse()?,
        amount: rounded_amount(body.amount.as_raw_str())?,
        requested_at: body
            .requested_at
            .parse::<TimestampMs>()
            .map_err(RequestError::RequestedAt)?,
    })
}

/// Reads a JSON value as an amount, rounded to whole cents, halves to the even one.
fn rounded_amount(raw: &str) -> Result<Cents, RequestError> {
    if !raw.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return Err(AmountError::NotANumber.into());
    }
    let decimal = if raw.contains(['e', 'E']) {
        Decimal::from_scientific(raw)
    } else {
        Decimal::from_str_exact(raw)
    };
    let mut rounded = decimal
        .map_err(|_| RequestError::AmountDigits)?
        .round_dp_with_strategy(AMOUNT_PLACES, RoundingStrategy::MidpointNearestEven);
    if rounded > Decimal::new(*PAYMENT_CENTS.end(), AMOUNT_PLACES) {
        return Err(AmountError::TooLarge.into());
    }
    rounded.rescale(AMOUNT_PLACES);
    match i64::try_from(rounded.mantissa()) {
        Ok(cents) if cents >= *PAYMENT_CENTS.start() => Ok(Cents::new(cents)),
        _ => Err(AmountError::NotPositive.into()),
    }
}

/// A setting that can be changed while the processor runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The token.
    Token,
    /// How long a payment takes.
    Delay,
    /// Whether payments fail.
    Failure,
}

/// What a setting is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The token.
    Token(Token),
    /// How long a payment takes, in milliseconds.
    DelayMs(u64),
    /// Whether payments fail.
    Failure(bool),
}

#[derive(Deserialize)]
struct TokenBody<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
}

#[derive(Deserialize)]
struct DelayBody<'a> {
    #[serde(borrow)]
    delay: LazyValue<'a>,
}

#[derive(Deserialize)]
struct FailureBody {
    failure: bool,
}

/// Reads the body of `PUT /admin/configurations/` and a setting.
pub fn change(setting: Setting, body: &[u8]) -> Result<Change, RequestError> {
    Ok(match setting {
        Setting::Token => Change::Token(object::<TokenBody<'_>>(body)?.token.parse()?),
        Setting::Delay => {
            let delay_ms = object::<DelayBody<'_>>(body)?.delay.as_raw_str().parse();
            match delay_ms {
                Ok(delay_ms @ 0..=DELAY_MS_MAX) => Change::DelayMs(delay_ms),
                _ => return Err(RequestError::Delay),
            }
        }
        Setting::Failure => Change::Failure(object::<FailureBody>(body)?.failure),
    })
}

/// Reads the bounds of a summary. A range needs both: with one alone it sums all, as `None` does.
pub fn summary_range(query: &str) -> Result<Option<RangeMs>, RequestError> {
    let from = parameter(query, "from")?;
    let to = parameter(query, "to")?;
    let range = RangeMs::from_bounds(from.as_deref(), to.as_deref())?;
    Ok((from.is_some() && to.is_some()).then_some(range))
}

/// A page of recorded payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The last id of the page before.
    pub after: Option<CorrelationId>,
    /// The most payments on it.
    pub limit: usize,
}

/// Reads which page of the recorded payments is asked for.
pub fn page(query: &str) -> Result<Page, RequestError> {
    let after = parameter(query, "after")?.map(|text| text.parse());
    let limit = match parameter(query, "limit")? {
        Some(text) => text.parse().map_err(|_| RequestError::PageLimit)?,
        None => PAGE_PAYMENTS_DEFAULT,
    };
    if !(1..=PAGE_PAYMENTS_MAX).contains(&limit) {
        return Err(RequestError::PageLimit);
    }
    Ok(Page { after: after.transpose()?, limit })
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
