//! A limit on the time that a client takes, without a timer for each request: a connection notes
//! what it is doing, and a sweep once a second ends those that do it for too long.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The pause between sweeps, and the precision of the limits.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What a connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Waiting for the first byte of a request, or for the client to read an answer.
    Idle,
    /// Reading a request.
    Reading,
    /// Answering a request.
    Answering,
}

/// How a connection ended its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expired {
    /// Nothing was asked for too long.
    Idle,
    /// A request took too long to arrive.
    Reading,
}

/// What a connection is doing, and since when.
pub struct Activity {
    phase: Cell<Phase>,
    since_sweep: Cell<u64>,
    sweeps: Rc<Cell<u64>>,
    expired: Cell<Option<Expired>>,
    closes_gently: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Activity {
    /// Notes that the client may still be sending when its answer is there, so that the end of the
    /// connection must not overtake the answer.
    pub fn close_gently(&self) {
        self.closes_gently.set(true);
    }

    /// Whether the end of the connection must not overtake the answer.
    pub fn closes_gently(&self) -> bool {
        self.closes_gently.get()
    }

    /// Notes what the connection does from now on.
    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since_sweep.set(self.sweeps.get());
    }

    /// What the connection is doing.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Whether the connection's time is over; the task that asks is woken once it is.
    pub fn poll_expired(&self, context: &mut Context<'_>) -> Option<Expired> {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        self.expired.get()
    }

    /// Wakes the task of the connection.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// The activities of all connections.
pub struct Watch {
    activities: RefCell<Vec<Weak<Activity>>>,
    sweeps: Rc<Cell<u64>>,
    request_sweeps: u64,
    idle_sweeps: u64,
}

impl Watch {
    /// A watch that gives requests and idle connections this long.
    pub fn new(request_timeout: Duration, idle_timeout: Duration) -> Self {
        // A connection begins somewhere between two sweeps, so one more is needed.
        let sweeps = |limit: Duration| limit.as_secs() + u64::from(limit.subsec_nanos() > 0) + 1;
        Self {
            activities: RefCell::new(Vec::new()),
            sweeps: Rc::new(Cell::new(0)),
            request_sweeps: sweeps(request_timeout),
            idle_sweeps: sweeps(idle_timeout),
        }
    }

    /// Begins to watch a connection.
    pub fn add(&self) -> Rc<Activity> {
        let activity = Rc::new(Activity {
            phase: Cell::new(Phase::Idle),
            since_sweep: Cell::new(self.sweeps.get()),
            sweeps: Rc::clone(&self.sweeps),
            expired: Cell::new(None),
            closes_gently: Cell::new(false),
            waker: RefCell::new(None),
        });
        self.activities.borrow_mut().push(Rc::downgrade(&activity));
        activity
    }

    /// Ends the time of connections that took too long. False if there are no connections left.
    pub fn sweep(&self) -> bool {
        self.sweeps.set(self.sweeps.get() + 1);
        self.activities.borrow_mut().retain(|activity| {
            let Some(activity) = activity.upgrade() else { return false };
            let age = self.sweeps.get() - activity.since_sweep.get();
            let expired = match activity.phase.get() {
                Phase::Idle if age >= self.idle_sweeps => Some(Expired::Idle),
                Phase::Reading if age >= self.request_sweeps => Some(Expired::Reading),
                _ => None,
            };
            if expired.is_some() {
                activity.expired.set(expired);
                activity.wake();
            }
            true
        });
        !self.activities.borrow().is_empty()
    }

    /// Wakes the tasks of all connections.
    pub fn wake_all(&self) {
        for activity in self.activities.borrow().iter().filter_map(Weak::upgrade) {
            activity.wake();
        }
    }
}

/// A connection that notes when a request begins to arrive.
pub struct Guarded {
    /// What was read from it before.
    first_bytes: Bytes,
    stream: TcpStream,
    activity: Rc<Activity>,
}

impl Guarded {
    /// Watches the reads of a connection, from which these bytes were read already.
    pub fn new(first_bytes: Bytes, stream: TcpStream, activity: Rc<Activity>) -> Self {
        Self { first_bytes, stream, activity }
    }

    /// The connection.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = if self.first_bytes.is_empty() {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        } else {
            let length = self.first_bytes.len().min(buffer.remaining());
            buffer.put_slice(&self.first_bytes.split_to(length));
            Poll::Ready(Ok(()))
        };
        if buffer.filled().len() > before && self.activity.phase() == Phase::Idle {
            self.activity.enter(Phase::Reading);
        }
        polled
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(activity: &Activity) -> Option<Expired> {
        activity.poll_expired(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn only_what_takes_too_long_is_ended() {
        let watch = Watch::new(Duration::from_secs(2), Duration::from_secs(5));
        let (idle, reading, answering) = (watch.add(), watch.add(), watch.add());
        reading.enter(Phase::Reading);
        answering.enter(Phase::Answering);
        for sweep in 1..10 {
            assert!(watch.sweep());
            assert_eq!(expired(&reading), (sweep >= 3).then_some(Expired::Reading), "{sweep}");
            assert_eq!(expired(&idle), (sweep >= 6).then_some(Expired::Idle), "{sweep}");
            assert_eq!(expired(&answering), None);
        }
    }

    #[test]
    fn a_new_phase_has_its_whole_time() {
        let watch = Watch::new(Duration::from_secs(2), Duration::from_secs(5));
        let activity = watch.add();
        for _ in 0..10 {
            watch.sweep();
            watch.sweep();
            activity.enter(Phase::Reading);
            watch.sweep();
            activity.enter(Phase::Idle);
        }
        assert_eq!(expired(&activity), None);
    }

    #[test]
    fn connections_that_ended_are_forgotten() {
        let watch = Watch::new(Duration::from_secs(2), Duration::from_secs(5));
        let activity = watch.add();
        assert!(watch.sweep());
        drop(activity);
        assert!(!watch.sweep());
    }
}
