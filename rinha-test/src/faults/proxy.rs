//! A proxy between the APIs and a processor that understands just enough HTTP to misbehave at a
//! chosen moment of a call: before the processor hears of it, after, or in the middle of the
//! answer.
//!
//! What was forwarded stays forwarded, whatever becomes of the caller: as with a real processor, a
//! caller that hangs up changes nothing.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

use super::message;

/// The pause after a listener could not be had again.
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// Bytes that are read at a time.
const READ_BYTES: usize = 4 << 10;

/// What a processor that has lost its mind answers.
const GARBAGE: &[u8] = b"\x16\x03\x01\x02\x00garbage\r\n\r\n{\"message\": \"payment pro";

/// How a processor, or the way to it, misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// The call is recorded at once, and its answer held for this long.
    AnswersLate {
        /// Milliseconds.
        ms: u64,
    },
    /// The call is recorded, and the connection reset in the middle of its answer.
    ResetsMidAnswer,
    /// Bytes that are no HTTP come back; every other call is recorded all the same.
    AnswersGarbage,
    /// The connection is closed without an answer, and nothing is recorded.
    ClosesUnanswered,
    /// The call is recorded, and the connection closed without an answer.
    RecordsAndDrops,
    /// Nothing happens for this long, and then the call is recorded though nobody waits any more.
    Swallows {
        /// Milliseconds.
        ms: u64,
    },
    /// Connections are refused, and those that were open are closed.
    RefusesConnections,
    /// Connections are made and calls sent, and nothing ever comes back or is recorded.
    GoesSilent,
}

/// What the proxy does at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// How it misbehaves; it forwards everything if it does not.
    pub misbehaviour: Option<Misbehaviour>,
    /// Every call of so many is treated so; the others are forwarded. 0 and 1 mean all.
    pub every: u64,
}

/// What a proxy has done.
#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    mistreated: AtomicU64,
    held: AtomicU64,
}

/// A proxy that runs on a thread of its own, until it is dropped.
pub struct Proxy {
    port: u16,
    behaviour: Option<watch::Sender<Behaviour>>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a port of this machine for calls to the processor at `target`.
    ///
    /// # Errors
    /// The port cannot be had, or no thread.
    pub fn start(port: u16, target: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (behaviour, seen) = watch::channel(Behaviour::default());
        let counters = Arc::new(Counters::default());
        let shared = Shared { target, seen, counters: Arc::clone(&counters) };
        let thread =
            std::thread::Builder::new().name(format!("proxy {port}")).spawn(move || {
                let local = LocalSet::new();
                runtime.block_on(local.run_until(serve(listener, port, shared)));
            })?;
        Ok(Self { port, behaviour: Some(behaviour), counters, thread: Some(thread) })
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Behaves like this from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        if let Some(sender) = &self.behaviour {
            // The receivers are gone only if the thread has panicked, and then nobody is served.
            let _ = sender.send(behaviour);
        }
    }

    /// Calls that came.
    #[must_use]
    pub fn calls_count(&self) -> u64 {
        self.counters.calls.load(Ordering::Relaxed)
    }

    /// Calls that were not just forwarded.
    #[must_use]
    pub fn mistreated_count(&self) -> u64 {
        self.counters.mistreated.load(Ordering::Relaxed)
    }

    /// Swallowed calls that are still to be forwarded.
    #[must_use]
    pub fn held_count(&self) -> u64 {
        self.counters.held.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.behaviour = None;
        if let Some(thread) = self.thread.take() {
            // A panic was printed where it happened.
            let _ = thread.join();
        }
    }
}

#[derive(Clone)]
struct Shared {
    target: SocketAddr,
    seen: watch::Receiver<Behaviour>,
    counters: Arc<Counters>,
}

impl Shared {
    fn misbehaviour(&self) -> Option<Misbehaviour> {
        self.seen.borrow().misbehaviour
    }

    /// What is to be done with the next call.
    fn treatment(&self) -> Option<Misbehaviour> {
        let number = self.counters.calls.fetch_add(1, Ordering::Relaxed);
        let Behaviour { misbehaviour, every } = *self.seen.borrow();
        let treatment = misbehaviour.filter(|_| number.is_multiple_of(every.max(1)));
        if treatment.is_some() {
            self.counters.mistreated.fetch_add(1, Ordering::Relaxed);
        }
        treatment
    }
}

/// Accepts connections until the proxy is dropped.
async fn serve(listener: std::net::TcpListener, port: u16, shared: Shared) {
    let mut seen = shared.seen.clone();
    let mut connections = JoinSet::new();
    let mut listener = TcpListener::from_std(listener).ok();
    loop {
        match shared.misbehaviour() {
            Some(Misbehaviour::RefusesConnections) => {
                listener = None;
                connections.abort_all();
                if seen.changed().await.is_err() {
                    return;
                }
                continue;
            }
            // Connections are made by the kernel, and nobody looks at them.
            Some(Misbehaviour::GoesSilent) => {
                if seen.changed().await.is_err() {
                    return;
                }
                continue;
            }
            _ => {}
        }
        let Some(open) = &listener else {
            match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                Ok(bound) => listener = Some(bound),
                Err(_) => sleep(BIND_PAUSE).await,
            }
            continue;
        };
        tokio::select! {
            changed = seen.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
            accepted = open.accept() => if let Ok((client, _)) = accepted {
                let shared = shared.clone();
                // A connection ends with its client, or as it is told to.
                connections.spawn_local(async move {
                    let _ = serve_one(client, shared).await;
                });
            },
        }
    }
}

/// Serves a connection until one side closes it.
async fn serve_one(mut client: TcpStream, shared: Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut arrived = Vec::new();
    let mut processor = None;
    loop {
        let Some(call) = read_request(&mut client, &mut arrived).await? else {
            return Ok(());
        };
        match shared.treatment() {
            None => {
                let answer = forward(&shared, &mut processor, &call).await?;
                client.write_all(&answer).await?;
            }
            Some(treatment) => {
                if !mistreat(treatment, &shared, &mut client, &mut processor, call).await? {
                    return Ok(());
                }
            }
        }
    }
}

/// Does to a call what it is to suffer. Gives whether the connection goes on.
async fn mistreat(
    treatment: Misbehaviour,
    shared: &Shared,
    client: &mut TcpStream,
    processor: &mut Option<TcpStream>,
    call: Vec<u8>,
) -> io::Result<bool> {
    match treatment {
        Misbehaviour::AnswersLate { ms } => {
            let answer = forward(shared, processor, &call).await?;
            sleep(Duration::from_millis(ms)).await;
            client.write_all(&answer).await?;
            return Ok(true);
        }
        Misbehaviour::ResetsMidAnswer => {
            let answer = forward(shared, processor, &call).await?;
            client.write_all(&answer[..answer.len() / 2]).await?;
            client.set_zero_linger()?;
        }
        Misbehaviour::AnswersGarbage => {
            if shared.counters.mistreated.load(Ordering::Relaxed).is_multiple_of(2) {
                forward(shared, processor, &call).await?;
            }
            client.write_all(GARBAGE).await?;
        }
        Misbehaviour::RecordsAndDrops => {
            forward(shared, processor, &call).await?;
        }
        Misbehaviour::Swallows { ms } => {
            hold(shared.clone(), call, Duration::from_millis(ms));
            // The caller waits for as long as it likes.
            let _ = client.read_u8().await;
        }
        Misbehaviour::GoesSilent => {
            let mut seen = shared.seen.clone();
            let _ = seen.wait_for(|now| now.misbehaviour != Some(treatment)).await;
        }
        Misbehaviour::ClosesUnanswered | Misbehaviour::RefusesConnections => {}
    }
    Ok(false)
}

/// Forwards a call later, over a connection of its own.
fn hold(shared: Shared, call: Vec<u8>, pause: Duration) {
    shared.counters.held.fetch_add(1, Ordering::AcqRel);
    tokio::task::spawn_local(async move {
        sleep(pause).await;
        // A processor that is gone by then never hears of it.
        let _ = forward(&shared, &mut None, &call).await;
        shared.counters.held.fetch_sub(1, Ordering::AcqRel);
    });
}

/// Sends a call to the processor and gives its answer, over the connection given or a new one.
async fn forward(
    shared: &Shared,
    processor: &mut Option<TcpStream>,
    call: &[u8],
) -> io::Result<Vec<u8>> {
    let mut stream = match processor.take() {
        Some(stream) => stream,
        None => TcpStream::connect(shared.target).await?,
    };
    stream.set_nodelay(true)?;
    stream.write_all(call).await?;
    let mut answer = Vec::new();
    loop {
        let whole = message::response(&answer).map_err(io::Error::other)?;
        if let Some(whole) = whole {
            answer.truncate(whole.bytes);
            *processor = Some(stream);
            return Ok(answer);
        }
        read_some(&mut stream, &mut answer).await?;
    }
}

/// The next request, or none where the connection ended before one began.
async fn read_request(
    client: &mut TcpStream,
    arrived: &mut Vec<u8>,
) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(whole) = message::request(arrived).map_err(io::Error::other)? {
            let rest = arrived.split_off(whole.bytes);
            return Ok(Some(std::mem::replace(arrived, rest)));
        }
        match read_some(client, arrived).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && arrived.is_empty() => {
                return Ok(None);
            }
            read => read?,
        }
    }
}

async fn read_some(stream: &mut TcpStream, arrived: &mut Vec<u8>) -> io::Result<()> {
    arrived.reserve(READ_BYTES);
    if stream.read_buf(arrived).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
