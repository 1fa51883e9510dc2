//! The three shapes of load, on one thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use ledger::clock::Monotonic;
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::pacer::Pacer;
use super::{LoadError, Meter, Outcome, Shape, Traffic, Until, Users};

/// How long a flood tries to make a connection, so that a router that is started again is found.
const FLOOD_CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// The pause between two tries.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// How often the end is looked for.
const END_POLL: Duration = Duration::from_millis(10);

/// Bytes of the largest piece where requests are written in pieces; they have some 200.
const PIECE_BYTES_MAX: usize = 120;

struct Shared {
    traffic: Traffic,
    authority: String,
    meter: Arc<Meter>,
    stop: Arc<AtomicBool>,
    clock: Monotonic,
    /// Payments that were posted, or are about to be.
    next: Cell<u32>,
    random: RefCell<Rng>,
    /// Tasks that have not ended.
    running: Cell<usize>,
    failure: RefCell<Option<LoadError>>,
}

/// What the next request posts.
#[derive(Clone, Copy)]
struct Turn {
    number: u32,
    is_first: bool,
    piece_bytes: Option<usize>,
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.failure.borrow().is_some()
    }

    fn fail(&self, failure: LoadError) {
        self.failure.borrow_mut().get_or_insert(failure);
    }

    /// A new payment, or now and then an old one again.
    fn turn(&self) -> Turn {
        let mut random = self.random.borrow_mut();
        let mut chance = |share: f64| share > 0.0 && random.f64() < share;
        let repeats = chance(self.traffic.duplicates);
        let in_pieces = chance(self.traffic.in_pieces);
        let piece_bytes = in_pieces.then(|| random.usize(1..=PIECE_BYTES_MAX));
        let next = self.next.get();
        if repeats && next > 0 {
            return Turn { number: random.u32(..next), is_first: false, piece_bytes };
        }
        self.next.set(next + 1);
        Turn { number: next, is_first: true, piece_bytes }
    }
}

/// Puts this load on `host:port` until it is over or `stop` is set, and writes down in `meter` what
/// comes of it. It keeps this thread busy, and needs no other.
///
/// # Errors
/// It could not be begun, or a flood found no connection for too long.
pub fn drive(
    shape: Shape,
    traffic: Traffic,
    authority: &str,
    meter: &Arc<Meter>,
    stop: &Arc<AtomicBool>,
) -> Result<(), LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LoadError::Start)?;
    let shared = Rc::new(Shared {
        traffic,
        authority: authority.to_owned(),
        meter: Arc::clone(meter),
        stop: Arc::clone(stop),
        clock: Monotonic::start(),
        next: Cell::new(0),
        random: RefCell::new(Rng::with_seed(traffic.payments.seed())),
        running: Cell::new(0),
        failure: RefCell::new(None),
    });
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        match shape {
            Shape::Users(users) => start_users(&shared, users),
            Shape::Rate { per_second, duration, connections } => {
                start_rate(&shared, per_second, duration, connections)?;
            }
            Shape::Flood { connections, until } => start_flood(&shared, connections, until),
        }
        while shared.running.get() > 0 && !shared.is_stopped() {
            sleep(END_POLL).await;
        }
        Ok(())
    }))?;
    drop(local);
    let failure = shared.failure.borrow_mut().take();
    failure.map_or(Ok(()), Err)
}

fn spawn(shared: &Rc<Shared>, task: impl Future<Output = ()> + 'static) {
    shared.running.set(shared.running.get() + 1);
    let shared = Rc::clone(shared);
    spawn_local(async move {
        task.await;
        shared.running.set(shared.running.get() - 1);
    });
}

fn start_users(shared: &Rc<Shared>, users: Users) {
    let grown = users.to.saturating_sub(users.from);
    let first = users.from.min(users.to);
    // Those of the start come one after the other within their first round, not all at once.
    let round = users.period.max(users.pause);
    let starts = (0..first).map(|place| round * place / first.max(1));
    let later = (1..=grown).map(|place| users.ramp * place / grown);
    for start in starts.chain(later) {
        spawn(shared, use_as_user(Rc::clone(shared), users, start));
    }
}

async fn use_as_user(shared: Rc<Shared>, users: Users, start: Duration) {
    sleep(start).await;
    let mut client = Client::new(Rc::clone(&shared));
    let mut count = 0;
    while shared.clock.elapsed() < users.duration && users.each.is_none_or(|each| count < each) {
        count += 1;
        let begun = shared.clock.elapsed();
        let patience = shared.traffic.timeout;
        client.post(shared.turn(), None, patience).await;
        let left = (begun + users.period).saturating_sub(shared.clock.elapsed());
        sleep(users.pause.max(left)).await;
    }
}

/// The beat of an open rate.
struct Beat {
    /// Moments that have come and not been taken.
    due: Semaphore,
    taken: Cell<u64>,
    total: u64,
    interval_ns: f64,
}

impl Beat {
    #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::cast_possible_truncation)]
    fn new(per_second: f64, duration: Duration) -> Self {
        Self {
            due: Semaphore::new(0),
            taken: Cell::new(0),
            total: (per_second * duration.as_secs_f64()).round() as u64,
            interval_ns: 1e9 / per_second,
        }
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::cast_possible_truncation)]
    fn moment(&self, number: u64) -> Duration {
        Duration::from_nanos((number as f64 * self.interval_ns) as u64)
    }
}

fn start_rate(
    shared: &Rc<Shared>,
    per_second: f64,
    duration: Duration,
    connections: u16,
) -> Result<(), LoadError> {
    let beat = Rc::new(Beat::new(per_second, duration));
    let pacer = Pacer::new().map_err(LoadError::Start)?;
    for _ in 0..connections {
        spawn(shared, post_when_due(Rc::clone(shared), Rc::clone(&beat)));
    }
    spawn(shared, keep_beat(Rc::clone(shared), beat, pacer, connections));
    Ok(())
}

async fn keep_beat(shared: Rc<Shared>, beat: Rc<Beat>, pacer: Pacer, connections: u16) {
    let mut come = 0;
    while come < beat.total {
        let left = beat.moment(come).saturating_sub(shared.clock.elapsed());
        if let Err(error) = pacer.wait(left).await {
            return shared.fail(LoadError::Start(error));
        }
        let now = shared.clock.elapsed();
        while come < beat.total && beat.moment(come) <= now {
            beat.due.add_permits(1);
            come += 1;
        }
    }
    // Each connection learns that there are no more.
    beat.due.add_permits(usize::from(connections));
}

async fn post_when_due(shared: Rc<Shared>, beat: Rc<Beat>) {
    let mut client = Client::new(Rc::clone(&shared));
    // Not at the expense of the first payment. If it fails here, that payment tries again.
    let _ = client.connect(shared.traffic.timeout).await;
    while let Ok(permit) = beat.due.acquire().await {
        permit.forget();
        let number = beat.taken.get();
        if number >= beat.total {
            return;
        }
        beat.taken.set(number + 1);
        let patience = shared.traffic.timeout;
        client.post(shared.turn(), Some(beat.moment(number)), patience).await;
    }
}

fn start_flood(shared: &Rc<Shared>, connections: u16, until: Until) {
    for _ in 0..connections {
        spawn(shared, flood(Rc::clone(shared), until));
    }
}

async fn flood(shared: Rc<Shared>, until: Until) {
    let mut client = Client::new(Rc::clone(&shared));
    let is_over = || match until {
        Until::Count(count) => shared.next.get() >= count,
        Until::Elapsed(end) => shared.clock.elapsed() >= end,
    };
    while !is_over() {
        // Only before a payment is spent on it can a connection be waited for.
        if let Err(cause) = client.connect(FLOOD_CONNECT_PATIENCE).await {
            let authority = shared.authority.clone();
            return shared.fail(LoadError::Connect { authority, cause });
        }
        if is_over() {
            return;
        }
        client.post_here(shared.turn(), shared.clock.elapsed()).await;
    }
}

/// Who posts one payment after the other.
struct Client {
    shared: Rc<Shared>,
    connection: Option<Connection>,
    had_connection: bool,
}

impl Client {
    fn new(shared: Rc<Shared>) -> Self {
        Self { shared, connection: None, had_connection: false }
    }

    /// Sees to a connection, or says why there is none.
    async fn connect(&mut self, patience: Duration) -> Result<(), String> {
        if let Some(connection) = &mut self.connection {
            // One that becomes neither free nor closed is given up.
            if timeout(patience, connection.is_open()).await == Ok(true) {
                return Ok(());
            }
            self.connection = None;
        }
        let clock = Monotonic::start();
        loop {
            let left = patience.saturating_sub(clock.elapsed());
            let cause = match timeout(left, Connection::open(&self.shared.authority)).await {
                Ok(Ok(connection)) => {
                    if self.had_connection {
                        self.shared.meter.record_reconnection();
                    }
                    self.had_connection = true;
                    self.connection = Some(connection);
                    return Ok(());
                }
                Ok(Err(cause)) => cause,
                Err(_) => "it takes too long".to_owned(),
            };
            if clock.elapsed() + CONNECT_PAUSE >= patience || self.shared.is_stopped() {
                return Err(cause);
            }
            sleep(CONNECT_PAUSE).await;
        }
    }

    /// Sees to a connection, posts a payment and writes down what became of it. Its time counts from
    /// the moment at which it was due, if there is one.
    async fn post(&mut self, turn: Turn, due: Option<Duration>, connect_patience: Duration) {
        // Without a connection it is written down as not sent.
        let _ = self.connect(connect_patience).await;
        let begun = due.unwrap_or_else(|| self.shared.clock.elapsed());
        self.post_here(turn, begun).await;
    }

    /// Posts a payment on the connection there is, and writes down what became of it.
    async fn post_here(&mut self, turn: Turn, begun: Duration) {
        let shared = Rc::clone(&self.shared);
        let clock = &shared.clock;
        let Traffic { payments, timeout: patience, .. } = shared.traffic;
        let body = Bytes::from(payments.body(turn.number));
        let Some(connection) = &mut self.connection else {
            return shared.meter.record(turn.number, Outcome::NotSent, None, turn.is_first);
        };
        let answer = timeout(patience, connection.post(body, turn.piece_bytes)).await;
        let took = clock.elapsed().saturating_sub(begun);
        let (outcome, reusable) = match answer {
            Ok(Ok(status @ 200..300)) => (Outcome::Accepted(status), true),
            Ok(Ok(status)) => (Outcome::Refused(status), true),
            Ok(Err(_)) => (Outcome::Broken, false),
            Err(_) => (Outcome::TimedOut, false),
        };
        // The pauses between pieces are ours, not the system's.
        let took = turn.piece_bytes.is_none().then_some(took);
        shared.meter.record(turn.number, outcome, took, turn.is_first);
        if !reusable {
            self.connection = None;
        }
    }
}
