//! The books of a processor, over HTTP.

use std::time::Duration;

use ledger::json::object;
use ledger::{Cents, CorrelationId, Processor, RangeMs, TimestampMs, Totals};
use serde::Deserialize;
use sonic_rs::{JsonValueTrait, LazyValue};
use ureq::Agent;

use super::AuditSettings;

/// How long a processor may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
const TOKEN_HEADER: &str = "X-Rinha-Token";
/// What stands for a bound that is missing while the other one is given: a processor that misses
/// either sums everything.
const EARLIEST: &str = "0001-01-01T00:00:00.000Z";
const LATEST: &str = "9999-12-31T23:59:59.999Z";

/// A processor does not answer, or not as it should.
#[derive(Debug, thiserror::Error)]
#[error("{processor} does not tell: GET {url}: {what}")]
pub struct TheirsError {
    processor: Processor,
    url: String,
    what: String,
}

/// A payment in a processor's books.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// Its amount.
    pub amount: Cents,
    /// Its `requestedAt`.
    pub requested_at: TimestampMs,
}

/// A processor.
pub struct Theirs {
    processor: Processor,
    url: String,
    token: Option<String>,
    agent: Agent,
}

impl Theirs {
    /// The processor of these settings.
    #[must_use]
    pub fn new(processor: Processor, settings: &AuditSettings) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_idle_connections_per_host(settings.concurrency)
            .proxy(None)
            .build();
        Self {
            processor,
            url: settings.url(processor).trim_end_matches('/').to_owned(),
            token: settings.token.clone(),
            agent: config.into(),
        }
    }

    /// Which one it is.
    #[must_use]
    pub fn processor(&self) -> Processor {
        self.processor
    }

    /// What it has of a payment.
    ///
    /// # Errors
    /// It does not tell.
    pub fn look(&self, id: CorrelationId) -> Result<Option<Recorded>, TheirsError> {
        let url = format!("{}/payments/{id}", self.url);
        match self.get(&url, None)? {
            (404, _) => Ok(None),
            (200, body) => match recorded(id, &body) {
                Some(recorded) => Ok(Some(recorded)),
                None => Err(self.failed(&url, "the answer is not a payment".to_owned())),
            },
            (status, _) => Err(self.failed(&url, format!("the answer is {status}"))),
        }
    }

    /// What it has in a span of time. Needs the token.
    ///
    /// # Errors
    /// It does not tell.
    pub fn summary(&self, range: RangeMs) -> Result<Totals, TheirsError> {
        let mut url = format!("{}/admin/payments-summary", self.url);
        if range != RangeMs::ALL {
            let bound = |moment: TimestampMs, none: TimestampMs, text: &str| {
                if moment == none { text.to_owned() } else { moment.to_string() }
            };
            let from = bound(range.from, RangeMs::ALL.from, EARLIEST);
            let to = bound(range.to, RangeMs::ALL.to, LATEST);
            url = format!("{url}?from={from}&to={to}");
        }
        match self.get(&url, self.token.as_deref())? {
            (200, body) => totals(&body)
                .ok_or_else(|| self.failed(&url, "the answer is not a summary".to_owned())),
            (401, _) => Err(self.failed(&url, "it refuses the token".to_owned())),
            (status, _) => Err(self.failed(&url, format!("the answer is {status}"))),
        }
    }

    fn get(&self, url: &str, token: Option<&str>) -> Result<(u16, Vec<u8>), TheirsError> {
        let mut request = self.agent.get(url);
        if let Some(token) = token {
            request = request.header(TOKEN_HEADER, token);
        }
        let failed = |error: ureq::Error| self.failed(url, error.to_string());
        let mut response = request.call().map_err(failed)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        Ok((status, body.map_err(failed)?))
    }

    fn failed(&self, url: &str, what: String) -> TheirsError {
        TheirsError { processor: self.processor, url: url.to_owned(), what }
    }
}

fn recorded(id: CorrelationId, body: &[u8]) -> Option<Recorded> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        #[serde(borrow)]
        correlation_id: LazyValue<'a>,
        #[serde(borrow)]
        amount: LazyValue<'a>,
        #[serde(borrow)]
        requested_at: LazyValue<'a>,
    }

    let answer: Answer<'_> = object(body).ok()?;
    if answer.correlation_id.as_str()?.parse() != Ok(id) {
        return None;
    }
    Some(Recorded {
        amount: Cents::parse_amount(answer.amount.as_raw_str()).ok()?,
        requested_at: answer.requested_at.as_str()?.parse().ok()?,
    })
}

fn totals(body: &[u8]) -> Option<Totals> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        total_requests: u64,
        #[serde(borrow)]
        total_amount: LazyValue<'a>,
    }

    let answer: Answer<'_> = object(body).ok()?;
    let amount = parse_total(answer.total_amount.as_raw_str())?;
    Some(Totals { count: answer.total_requests, amount })
}

/// A sum in cents, from plain digits with at most two places that are not zero.
fn parse_total(text: &str) -> Option<Cents> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let (places, rest) = places.split_at(places.len().min(2));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !are_digits(whole) || !are_digits(places) {
        return None;
    }
    if rest.bytes().any(|byte| byte != b'0') {
        return None;
    }
    let cents: i64 = format!("{places:0<2}").parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(100)?.checked_add(cents).map(Cents::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_read_to_the_cent_or_not_at_all() {
        for (text, cents) in
            [("0", 0), ("19.9", 1990), ("19.90", 1990), ("0.05", 5), ("7.100", 710), ("12", 1200)]
        {
            assert_eq!(parse_total(text), Some(Cents::new(cents)), "{text}");
        }
        for text in ["", "-1", "1.005", "1e2", ".5", "1.x", "99999999999999999999"] {
            assert_eq!(parse_total(text), None, "{text}");
        }
    }
}
