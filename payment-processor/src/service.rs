//! One request in, one answer out. The order of the steps of a payment is kept here.

use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ledger::clock::Monotonic;
use may::coroutine;
use may_minihttp::{HttpService, Request, Response};
use rust_decimal::Decimal;

use crate::answers::{self, Fixed};
use crate::books::{Books, Payment, Recording};
use crate::controls::{Controls, Token};
use crate::health::{HealthWindows, Verdict};
use crate::limit::Limit;
use crate::requests::{self, Change, RequestError};
use crate::routes::{self, Refusal, Route, TOKEN_HEADER};

/// A processor: what all of its connections share.
///
/// Its locks are held for moments only, never across a sleep: they block the thread that serves
/// all connections.
#[derive(Debug)]
pub struct Processor {
    books: Mutex<Books>,
    controls: Controls,
    health: Mutex<HealthWindows>,
    limit: Limit,
    fee: Decimal,
    clock: Monotonic,
    /// `Retry-After` headers of 1 second, 2 seconds and so on. The HTTP server takes only texts
    /// that live for ever, so there is one for every wait that a window can ask for.
    retry_after: Vec<&'static str>,
}

impl Processor {
    /// A processor with empty books.
    #[must_use]
    pub fn new(token: Token, fee: Decimal, health_window_ms: u64, limit: Limit) -> Self {
        let retry_after = (1..=health_window_ms.div_ceil(1000).max(1))
            .map(|seconds| &*format!("Retry-After: {seconds}").leak())
            .collect();
        Self {
            books: Mutex::default(),
            controls: Controls::new(token),
            health: Mutex::new(HealthWindows::new(health_window_ms)),
            limit,
            fee,
            clock: Monotonic::start(),
            retry_after,
        }
    }

    /// A payment: the limit, the payload, the delay, the failure flag, the books, in this order.
    fn pay(&self, payment: Result<Payment, RequestError>, response: &mut Response<'_>) {
        let Some(_turn) = self.limit.enter() else {
            return Fixed::TOO_MANY_PAYMENTS.give(response);
        };
        let payment = match payment {
            Ok(payment) => payment,
            Err(error) => return give_error(&error, response),
        };
        let delay = self.controls.delay();
        if !delay.is_zero() {
            coroutine::sleep(delay);
        }
        if self.controls.failing() {
            return Fixed::FAILED.give(response);
        }
        let recording = lock(&self.books).record(payment);
        match recording {
            Recording::Recorded => Fixed::PROCESSED.give(response),
            Recording::Known => Fixed::KNOWN.give(response),
        }
    }

    fn health(&self, response: &mut Response<'_>) {
        let verdict = lock(&self.health).call(self.clock.elapsed_ms());
        match verdict {
            Verdict::Now => {}
            Verdict::Held { until_ms } => self.sleep_until(until_ms),
            Verdict::Refused { retry_after_s } => {
                let index = usize::try_from(retry_after_s - 1).unwrap_or(usize::MAX);
                let longest = self.retry_after.len() - 1;
                response.header(self.retry_after[index.min(longest)]);
                return Fixed::TOO_MANY_HEALTH_CHECKS.give(response);
            }
        }
        answers::health(response, self.controls.failing(), self.controls.delay_ms());
    }

    fn sleep_until(&self, until_ms: u64) {
        let until = Duration::from_millis(until_ms);
        while let Some(rest) = until.checked_sub(self.clock.elapsed()) {
            if rest.is_zero() {
                break;
            }
            // Whole milliseconds, as the timer keeps a list for every length that it has seen.
            let rest_ms = u64::try_from(rest.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
            coroutine::sleep(Duration::from_millis(rest_ms.max(1)));
        }
    }

    fn configure(&self, change: Change, response: &mut Response<'_>) {
        match change {
            Change::Token(token) => {
                self.controls.set_token(token);
                Fixed::TOKEN_SET.give(response);
            }
            Change::DelayMs(is) => {
                let was = self.controls.set_delay_ms(is);
                answers::changed(response, "delay", was, is);
            }
            Change::Failure(is) => {
                let was = self.controls.set_failing(is);
                answers::changed(response, "failure", was, is);
            }
        }
    }

    /// Answers what is asked without a body.
    fn answer(&self, route: Route, response: &mut Response<'_>) {
        match route {
            Route::Health => self.health(response),
            Route::Payment(id) => match id.and_then(|id| lock(&self.books).find(id)) {
                Some(record) => answers::payment(response, &record),
                None => Fixed::NO_PAYMENT.give(response),
            },
            Route::Summary(range) => {
                let books = lock(&self.books);
                let totals = range.map_or_else(|| books.totals(), |range| books.sum(range));
                drop(books);
                answers::summary(response, totals, self.fee);
            }
            Route::List(page) => {
                let records = lock(&self.books).page(page.after, page.limit);
                answers::page(response, &records);
            }
            Route::Purge => {
                // To free a million payments takes a while, so it is done outside the lock.
                let purged = mem::take(&mut *lock(&self.books));
                drop(purged);
                Fixed::PURGED.give(response);
            }
            Route::Pay | Route::Configure(_) => unreachable!("these are asked with a body"),
        }
    }
}

/// The service of one connection.
#[derive(Clone, Debug)]
pub struct Service(Arc<Processor>);

impl Service {
    /// The service of a connection to this processor.
    #[must_use]
    pub const fn new(processor: Arc<Processor>) -> Self {
        Self(processor)
    }
}

impl HttpService for Service {
    /// Answers a request. It never fails, as the HTTP server would answer that in its own way.
    fn call(
        &mut self,
        request: Request<'_, '_, '_>,
        response: &mut Response<'_>,
    ) -> io::Result<()> {
        let processor = &*self.0;
        let body_bytes = match body_bytes(&request) {
            Ok(bytes) => bytes,
            // The body is left unread, as nobody can tell where it ends.
            Err(answer) => {
                answer.give(response);
                return Ok(());
            }
        };
        let is_head = request.method() == "HEAD";
        // What is asked is settled before the body is read, as that frees the path's memory.
        let route = routes::route(request.method(), request.path(), || {
            header(&request, TOKEN_HEADER).is_some_and(|token| processor.controls.admits(token))
        });
        // Whoever drops a body without reading it skips it, or it would be taken for a request.
        let body = request.body();
        match route {
            Ok(Route::Pay) => {
                let payment = requests::read_body(body, body_bytes, requests::payment);
                processor.pay(payment, response);
            }
            Ok(Route::Configure(setting)) => {
                let change = |bytes: &[u8]| requests::change(setting, bytes);
                match requests::read_body(body, body_bytes, change) {
                    Ok(change) => processor.configure(change, response),
                    Err(error) => give_error(&error, response),
                }
            }
            Ok(route) => {
                drop(body);
                processor.answer(route, response);
            }
            Err(refusal) => {
                drop(body);
                give_refusal(&refusal, response);
                if is_head {
                    // Its answer has no body, or the caller would take that for the next answer.
                    response.body("");
                }
            }
        }
        Ok(())
    }
}

fn give_refusal(refusal: &Refusal, response: &mut Response<'_>) {
    match refusal {
        Refusal::Unauthorized => Fixed::UNAUTHORIZED.give(response),
        Refusal::UnknownPath => Fixed::NO_PATH.give(response),
        Refusal::WrongMethod { allow } => {
            response.header(allow);
            Fixed::WRONG_METHOD.give(response);
        }
        Refusal::Query(error) => give_error(error, response),
    }
}

fn give_error(error: &RequestError, response: &mut Response<'_>) {
    let (status, reason) = match error {
        RequestError::BodyTooLarge => (413, "Content Too Large"),
        _ => (400, "Bad Request"),
    };
    answers::fault(response, status, reason, &error.to_string());
}

/// The length of the body, as the HTTP server will take it.
///
/// The HTTP server panics on a length that is no number, and takes a chunked body for none.
fn body_bytes(request: &Request<'_, '_, '_>) -> Result<usize, Fixed> {
    if header(request, "Transfer-Encoding").is_some() {
        return Err(Fixed::LENGTH_REQUIRED);
    }
    let Some(value) = header(request, "Content-Length") else {
        return Ok(0);
    };
    str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(Fixed::BAD_LENGTH)
}

fn header<'a>(request: &'a Request<'_, '_, '_>, name: &str) -> Option<&'a [u8]> {
    request
        .headers()
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

/// Nothing panics while it holds one of the locks, and what they guard is never half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
