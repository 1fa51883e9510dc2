//! What our router says was settled.

use std::time::Duration;

use ledger::{Processor, RangeMs, Totals};
use serde::Deserialize;
use sonic_rs::RawNumber;

use super::{BooksError, parse_total, wrong_body, wrong_status};
use crate::http::Http;

/// How long the router may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The router, as its clients see it.
#[derive(Clone, Debug)]
pub struct Router {
    http: Http,
    url: String,
}

#[derive(Deserialize)]
struct Summary {
    default: Side,
    fallback: Side,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Side {
    total_requests: u64,
    total_amount: RawNumber,
}

impl Router {
    /// The router at this URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { http: Http::new(TIMEOUT), url: url.into() }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What was settled by each processor, by [`Processor::index`].
    ///
    /// # Errors
    /// No answer, or not a summary.
    pub fn summary(&self, range: RangeMs) -> Result<[Totals; 2], BooksError> {
        let url = format!("{}/payments-summary{}", self.url, query(range));
        let answer = self.http.get(&url, &[])?;
        let what = format!("GET {url}");
        if answer.status != 200 {
            return Err(wrong_status(&what, &answer));
        }
        parse_summary(&answer.body).map_err(|cause| wrong_body(&what, &cause))
    }

    /// Empties everything. Gives whether the router did it; it may refuse.
    ///
    /// # Errors
    /// No answer.
    pub fn purge(&self) -> Result<bool, BooksError> {
        let url = format!("{}/purge-payments", self.url);
        let answer = self.http.send("POST", &url, &[], "")?;
        Ok((200..300).contains(&answer.status))
    }
}

fn parse_summary(body: &[u8]) -> Result<[Totals; 2], String> {
    let summary: Summary = sonic_rs::from_slice(body).map_err(|error| error.to_string())?;
    let mut totals = [Totals::default(); 2];
    for (processor, side) in
        [(Processor::Default, summary.default), (Processor::Fallback, summary.fallback)]
    {
        let amount = parse_total(&side.total_amount).map_err(|error| error.to_string())?;
        totals[processor.index()] = Totals { count: side.total_requests, amount };
    }
    Ok(totals)
}

/// The query of a range; none for all time, whose bounds no processor needs to understand.
pub(super) fn query(range: RangeMs) -> String {
    if range == RangeMs::ALL {
        String::new()
    } else {
        format!("?from={}&to={}", range.from, range.to)
    }
}

#[cfg(test)]
mod tests {
    use ledger::{Cents, TimestampMs};

    use super::*;

    #[test]
    fn a_summary_is_read_to_the_cent() {
        let body = br#"{"default":{"totalRequests":2,"totalAmount":39.80},
            "fallback":{"totalRequests":0,"totalAmount":0}}"#;
        let [default, fallback] = parse_summary(body).unwrap();
        assert_eq!(default, Totals { count: 2, amount: Cents::new(3980) });
        assert_eq!(fallback, Totals::default());
        for body in [&b"{}"[..], b"", br#"{"default":{"totalRequests":-1,"totalAmount":0}}"#] {
            assert!(parse_summary(body).is_err());
        }
    }

    #[test]
    fn a_range_is_asked_for_in_utc_and_all_time_without_bounds() {
        assert_eq!(query(RangeMs::ALL), "");
        let at = |ms| TimestampMs::new(ms).unwrap();
        assert_eq!(
            query(RangeMs { from: at(0), to: at(1500) }),
            "?from=1970-01-01T00:00:00.000Z&to=1970-01-01T00:00:01.500Z"
        );
    }
}
