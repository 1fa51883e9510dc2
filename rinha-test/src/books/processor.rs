//! What a payment processor recorded, and how it is told to behave.

use std::time::Duration;

use ledger::{Cents, CorrelationId, RangeMs, TimestampMs, Totals};
use serde::Deserialize;
use sonic_rs::RawNumber;

use super::router::query;
use super::{BooksError, parse_total, wrong_body, wrong_status};
use crate::http::{Answer, Http};

/// The token that a processor has at first.
pub const FIRST_TOKEN: &str = "123";

/// The header that carries it.
const TOKEN_HEADER: &str = "X-Rinha-Token";

/// How long a processor may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Payments that are asked for at once.
const PAGE_PAYMENTS: usize = 1000;

/// The admin side of a payment processor.
#[derive(Clone)]
pub struct ProcessorAdmin {
    http: Http,
    url: String,
    token: String,
}

/// A payment in a processor's books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Which payment.
    pub id: CorrelationId,
    /// Its amount.
    pub amount: Cents,
    /// When it was dispatched, as its sender said.
    pub requested_at: TimestampMs,
    /// How often it was sent; all but the first were answered 422.
    pub attempts: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SummaryAnswer {
    total_requests: u64,
    total_amount: RawNumber,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordedAnswer {
    correlation_id: String,
    amount: RawNumber,
    requested_at: String,
    attempts: u64,
}

impl ProcessorAdmin {
    /// The processor at this URL.
    #[must_use]
    pub fn new(url: impl Into<String>, token: impl Into<String>) -> Self {
        Self { http: Http::new(TIMEOUT), url: url.into(), token: token.into() }
    }

    /// What it recorded.
    ///
    /// # Errors
    /// No answer, or not a summary.
    pub fn summary(&self, range: RangeMs) -> Result<Totals, BooksError> {
        let path = format!("/admin/payments-summary{}", query(range));
        let (what, answer) = self.get(&path)?;
        if answer.status != 200 {
            return Err(wrong_status(&what, &answer));
        }
        let summary: SummaryAnswer =
            sonic_rs::from_slice(&answer.body).map_err(|cause| wrong_body(&what, &cause))?;
        let amount =
            parse_total(&summary.total_amount).map_err(|cause| wrong_body(&what, &cause))?;
        Ok(Totals { count: summary.total_requests, amount })
    }

    /// All payments that it recorded, by id; nothing if it does not list them, as only our
    /// simulator does.
    ///
    /// # Errors
    /// No answer, or not a list.
    pub fn books(&self) -> Result<Option<Vec<Recorded>>, BooksError> {
        let mut books: Vec<Recorded> = Vec::new();
        loop {
            let after = books.last().map(|last| last.id);
            let Some(page) = self.page(after)? else {
                return Ok(None);
            };
            // A short page need not be the last: a processor may give fewer than asked for.
            if page.is_empty() {
                return Ok(Some(books));
            }
            // Without this, a processor that ignores `after` would be asked for ever.
            if after.is_some_and(|after| page[0].id <= after) {
                let what = format!("the list of payments of {}", self.url);
                let cause = format!("{} was listed before", page[0].id);
                return Err(wrong_body(&what, &cause));
            }
            books.extend(page);
        }
    }

    fn page(&self, after: Option<CorrelationId>) -> Result<Option<Vec<Recorded>>, BooksError> {
        let after = after.map_or_else(String::new, |id| format!("after={id}&"));
        let path = format!("/admin/payments?{after}limit={PAGE_PAYMENTS}");
        let (what, answer) = self.get(&path)?;
        match answer.status {
            200 => {}
            404 | 405 => return Ok(None),
            _ => return Err(wrong_status(&what, &answer)),
        }
        parse_page(&answer.body).map(Some).map_err(|cause| wrong_body(&what, &cause))
    }

    /// Sets how long it waits before it looks at a payment.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn set_delay(&self, delay: Duration) -> Result<(), BooksError> {
        let json = format!(r#"{{"delay":{}}}"#, delay.as_millis());
        self.command("PUT", "/admin/configurations/delay", &json)
    }

    /// Sets whether it fails.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn set_failure(&self, failure: bool) -> Result<(), BooksError> {
        let json = format!(r#"{{"failure":{failure}}}"#);
        self.command("PUT", "/admin/configurations/failure", &json)
    }

    /// Empties its books.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn purge(&self) -> Result<(), BooksError> {
        self.command("POST", "/admin/purge-payments", "")
    }

    fn get(&self, path: &str) -> Result<(String, Answer), BooksError> {
        let url = format!("{}{path}", self.url);
        let answer = self.http.get(&url, &[(TOKEN_HEADER, &self.token)])?;
        Ok((format!("GET {url}"), answer))
    }

    fn command(&self, method: &'static str, path: &str, json: &str) -> Result<(), BooksError> {
        let url = format!("{}{path}", self.url);
        let answer = self.http.send(method, &url, &[(TOKEN_HEADER, &self.token)], json)?;
        if (200..300).contains(&answer.status) {
            Ok(())
        } else {
            Err(wrong_status(&format!("{method} {url}"), &answer))
        }
    }
}

/// Reads a page, and makes sure that its ids rise: what comes after the last one is asked for
/// next, so another order would lose payments or go round in circles.
fn parse_page(body: &[u8]) -> Result<Vec<Recorded>, String> {
    let page: Vec<RecordedAnswer> = sonic_rs::from_slice(body).map_err(|e| e.to_string())?;
    let recorded: Vec<_> = page.iter().map(read_recorded).collect::<Result<_, _>>()?;
    match recorded.windows(2).find(|pair| pair[0].id >= pair[1].id) {
        Some(pair) => Err(format!("{} is listed before {}", pair[0].id, pair[1].id)),
        None => Ok(recorded),
    }
}

fn read_recorded(answer: &RecordedAnswer) -> Result<Recorded, String> {
    Ok(Recorded {
        id: answer.correlation_id.parse().map_err(|e| format!("{e}"))?,
        amount: parse_total(&answer.amount).map_err(|e| e.to_string())?,
        requested_at: answer.requested_at.parse().map_err(|e| format!("{e}"))?,
        attempts: answer.attempts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(last: char, amount: &str) -> String {
        format!(
            r#"{{"correlationId":"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b{last}","amount":{amount},
               "requestedAt":"2025-07-15T12:00:00.123Z","attempts":2}}"#
        )
    }

    #[test]
    fn a_page_is_read_in_full() {
        let body = format!("[{},{}]", line('1', "19.90"), line('3', "0.01"));
        let page = parse_page(body.as_bytes()).unwrap();
        assert_eq!(page.len(), 2);
        assert_eq!(page[1].amount, Cents::new(1));
        assert_eq!(page[1].id.to_string(), "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3");
        assert_eq!(page[1].requested_at.to_string(), "2025-07-15T12:00:00.123Z");
        assert_eq!(page[1].attempts, 2);
        assert!(parse_page(b"[]").unwrap().is_empty());
    }

    #[test]
    fn a_page_out_of_order_or_with_bad_money_is_refused() {
        for lines in [
            [line('3', "1.00"), line('1', "1.00")],
            [line('1', "1.00"), line('1', "1.00")],
            [line('1', "1.00"), line('3', "0.001")],
        ] {
            let body = format!("[{}]", lines.join(","));
            assert!(parse_page(body.as_bytes()).is_err(), "{body}");
        }
    }
}
