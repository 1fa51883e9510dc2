//! The sending side of a flood: as many connections as asked for, each posting one payment after
//! the other. A payment is posted once, whatever becomes of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use ledger::clock::Monotonic;
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::payments::Payments;
use super::{FloodError, Outcome};

/// How long a connection is tried to be made, so that a router that is started again is found.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// The pause between two tries.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of the longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The longest time that is told apart from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What is sent, and where.
#[derive(Clone, Debug)]
pub struct Sending {
    /// `host:port` of the router.
    pub authority: String,
    /// The payments.
    pub payments: Payments,
    /// How many.
    pub count: u32,
    /// Over how many connections.
    pub connections: u16,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// What came of it.
pub struct Sent {
    /// What became of each payment, by its number.
    pub outcomes: Vec<Outcome>,
    /// How long the answers took, in microseconds, where the payment was accepted.
    pub latency_us: Histogram<u64>,
    /// How long it took from the start to the last answer.
    pub elapsed: Duration,
    /// Connections made after the first ones, because one was closed or failed.
    pub reconnections: u64,
}

struct Shared {
    sending: Sending,
    next: Cell<u32>,
    outcomes: RefCell<Vec<Outcome>>,
    latency_us: RefCell<Histogram<u64>>,
    connections: Cell<u64>,
    failure: RefCell<Option<FloodError>>,
    last_answer_us: Cell<u64>,
    clock: Monotonic,
}

impl Shared {
    /// Whether nothing is left to send, or nothing can be sent.
    fn is_over(&self) -> bool {
        self.next.get() >= self.sending.count || self.failure.borrow().is_some()
    }
}

/// Sends all payments. `progress` is called now and then with the number that were sent.
///
/// # Errors
/// No connection can be made.
pub fn send(sending: Sending, progress: impl Fn(u32)) -> Result<Sent, FloodError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(FloodError::Runtime)?;
    let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
        .expect("the bounds and the precision are within the histogram's own");
    let connections = sending.connections;
    let shared = Rc::new(Shared {
        outcomes: RefCell::new(vec![Outcome::NotSent; sending.count as usize]),
        sending,
        next: Cell::new(0),
        latency_us: RefCell::new(histogram),
        connections: Cell::new(0),
        failure: RefCell::new(None),
        last_answer_us: Cell::new(0),
        clock: Monotonic::start(),
    });
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let senders: Vec<_> = (0..connections)
            .map(|_| tokio::task::spawn_local(send_over_one(Rc::clone(&shared))))
            .collect();
        while senders.iter().any(|sender| !sender.is_finished()) {
            sleep(super::PROGRESS_POLL).await;
            progress(shared.next.get());
        }
    }));
    drop(local);
    drop(runtime);
    let Ok(shared) = Rc::try_unwrap(shared) else {
        unreachable!("all senders have finished and the runtime is gone");
    };
    match shared.failure.into_inner() {
        Some(failure) => Err(failure),
        None => Ok(Sent {
            outcomes: shared.outcomes.into_inner(),
            latency_us: shared.latency_us.into_inner(),
            elapsed: Duration::from_micros(shared.last_answer_us.get()),
            reconnections: shared.connections.get().saturating_sub(u64::from(connections)),
        }),
    }
}

/// Posts payments over one connection until none is left, and makes a new one where it must.
async fn send_over_one(shared: Rc<Shared>) {
    let mut connection: Option<SendRequest<Full<Bytes>>> = None;
    loop {
        if shared.is_over() {
            return;
        }
        // Only before a payment is spent on it can a closed connection be replaced.
        if let Some(open) = &mut connection
            && open.ready().await.is_err()
        {
            connection = None;
        }
        let open = match connection.take() {
            Some(open) => open,
            None => match connect(&shared).await {
                Some(open) => open,
                None => return,
            },
        };
        if shared.is_over() {
            return;
        }
        let number = shared.next.get();
        shared.next.set(number + 1);
        connection = post(&shared, number, open).await;
    }
}

/// Posts a payment and writes down what became of it. Gives the connection back if it can be used
/// again.
async fn post(
    shared: &Shared,
    number: u32,
    mut open: SendRequest<Full<Bytes>>,
) -> Option<SendRequest<Full<Bytes>>> {
    let Sending { authority, payments, timeout: patience, .. } = &shared.sending;
    let request = Request::post(Uri::from_static("/payments"))
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(payments.body(number))))
        .expect("a host that was connected to is a valid header");
    let begun_us = shared.clock.elapsed_us();
    let answer = timeout(*patience, async {
        let response = open.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        body.collect().await.ok()?;
        Some(status)
    })
    .await;
    let ended_us = shared.clock.elapsed_us();
    let took_us = ended_us - begun_us;
    shared.last_answer_us.set(ended_us);
    let (outcome, reusable) = match answer {
        Ok(Some(status @ 200..300)) => (Outcome::Accepted(status), true),
        Ok(Some(status)) => (Outcome::Refused(status), true),
        Ok(None) => (Outcome::Broken, false),
        Err(_) => (Outcome::TimedOut, false),
    };
    if matches!(outcome, Outcome::Accepted(_)) {
        shared.latency_us.borrow_mut().saturating_record(took_us);
    }
    shared.outcomes.borrow_mut()[number as usize] = outcome;
    reusable.then_some(open)
}

/// Makes a connection. Gives none if that took too long, which ends the flood.
async fn connect(shared: &Shared) -> Option<SendRequest<Full<Bytes>>> {
    let authority = &shared.sending.authority;
    let clock = Monotonic::start();
    loop {
        let cause = match try_to_connect(authority).await {
            Ok(open) => {
                shared.connections.set(shared.connections.get() + 1);
                return Some(open);
            }
            Err(cause) => cause,
        };
        if shared.is_over() {
            return None;
        }
        if clock.elapsed() >= CONNECT_PATIENCE {
            let failure = FloodError::Connect { authority: authority.clone(), cause };
            shared.failure.borrow_mut().get_or_insert(failure);
            return None;
        }
        sleep(CONNECT_PAUSE).await;
    }
}

async fn try_to_connect(authority: &str) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(authority).await.map_err(|e| e.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let (open, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // An error of the connection is seen by the request that it breaks.
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    Ok(open)
}
