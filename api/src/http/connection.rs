//! Connections of clients: how many there are, and each one's life.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use ledger::handover::Standing;
use ledger::socket::close_with;
use ledger::{Cents, CorrelationId};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{sleep, timeout};

use super::answers::{error, unavailable};
use super::body;
use super::guard::{Activity, Expired, Guarded, Phase, SWEEP_INTERVAL, Watch};
use super::plain::{PLAIN_BYTES_MAX, PlainLimits, Reader, Writer};
use super::routes::Api;

/// Connections over the limit that are told so at a time; more are closed without a word.
const REFUSALS_MAX: u32 = 256;

/// Requests that came together are answered so many at a time before others have their turn.
const ANSWERS_IN_A_ROW_MAX: u32 = 16;

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections at a time.
    pub connections_max: u32,
    /// Bytes of a head.
    pub head_bytes_max: usize,
    /// How long a request may take to arrive.
    pub request_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
}

/// All connections of clients.
pub struct Connections {
    api: Rc<Api>,
    limits: ServerLimits,
    builder: Builder,
    watch: Watch,
    reader: Reader,
    writer: Writer,
    /// What is read goes here first, whichever connection it comes from.
    scratch: RefCell<Box<[u8; PLAIN_BYTES_MAX]>>,
    count: Cell<u32>,
    refusals_count: Cell<u32>,
    /// No more connections are taken, and each answer is the last one of its connection.
    draining: Cell<bool>,
    /// Idle connections are closed.
    closing: Cell<bool>,
    sweeping: Cell<bool>,
    changed: Notify,
    ended: Notify,
}

/// How a connection ended.
enum End {
    Served(hyper::Result<()>),
    Expired(Expired),
}

/// A payment, or why it is none.
type ReadPayment = Result<(CorrelationId, Cents), String>;

/// What was read from a connection.
enum Heard {
    /// A plain request.
    Plain(ReadPayment),
    /// Something else, or a part of it.
    Other(Bytes),
    /// Nothing more comes, or is wanted.
    End,
}

impl Connections {
    /// No connections yet.
    #[must_use]
    pub fn new(api: Rc<Api>, limits: ServerLimits) -> Rc<Self> {
        let mut builder = Builder::new();
        builder
            .max_buf_size(limits.head_bytes_max)
            .header_read_timeout(None)
            // Not `pipeline_flush`: it keeps back an answer as long as a part of the request's body
            // is unread, for ever where the connection ends with that answer.
            // A client that sends no more may still wait for its answer.
            .half_close(true);
        let plain_limits = PlainLimits {
            head_bytes_max: limits.head_bytes_max,
            body_bytes_max: api.body_bytes_max,
        };
        Rc::new(Self {
            api,
            limits,
            builder,
            watch: Watch::new(limits.request_timeout, limits.idle_timeout),
            reader: Reader::new(plain_limits),
            writer: Writer::default(),
            scratch: RefCell::new(Box::new([0; PLAIN_BYTES_MAX])),
            count: Cell::new(0),
            refusals_count: Cell::new(0),
            draining: Cell::new(false),
            closing: Cell::new(false),
            sweeping: Cell::new(false),
            changed: Notify::new(),
            ended: Notify::new(),
        })
    }

    /// Whether connections are taken, and how many there are.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            draining: self.draining.get(),
            connections_count: self.count.get(),
            connections_max: self.limits.connections_max,
        }
    }

    /// Waits until the standing has changed since the last call, other than by a connection more.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Serves a connection that nobody watches to its end. Must run on a [`tokio::runtime::LocalRuntime`].
    pub fn serve(self: &Rc<Self>, stream: StdTcpStream) {
        if self.count.get() >= self.limits.connections_max {
            return self.refuse(stream);
        }
        self.count.set(self.count.get() + 1);
        // Before that, whoever handed the connection over counts it itself, and need not be woken.
        if !self.standing().has_room() {
            self.changed.notify_one();
        }
        let connections = Rc::clone(self);
        spawn_local(async move {
            connections.serve_to_end(stream).await;
            connections.count.set(connections.count.get() - 1);
            connections.changed.notify_one();
            if connections.count.get() == 0 {
                connections.ended.notify_one();
            }
        });
        if !self.sweeping.replace(true) {
            spawn_local(Rc::clone(self).sweep());
        }
    }

    fn refuse(self: &Rc<Self>, stream: StdTcpStream) {
        // One that is closed without an answer is refused for the same reason.
        self.api.driver.metrics().answered(StatusCode::SERVICE_UNAVAILABLE);
        if self.refusals_count.get() >= REFUSALS_MAX {
            return;
        }
        let Ok(stream) = watched(stream) else { return };
        self.refusals_count.set(self.refusals_count.get() + 1);
        let connections = Rc::clone(self);
        spawn_local(async move {
            let sentence = "too many connections are open";
            close_with(stream, &unavailable(sentence).and_close().to_bytes(None)).await;
            connections.refusals_count.set(connections.refusals_count.get() - 1);
        });
    }

    async fn serve_to_end(&self, stream: StdTcpStream) {
        let activity = self.watch.add();
        match self.serve_plain(stream, &activity).await {
            Ok(Some((first_bytes, stream))) => self.serve_all(first_bytes, stream, activity).await,
            Ok(None) => {}
            Err(error) => tracing::debug!("a connection ends: {error}"),
        }
    }

    /// Answers plain requests, until something else comes: then that is what was read. Nothing if the
    /// connection has ended.
    async fn serve_plain(
        &self,
        stream: StdTcpStream,
        activity: &Activity,
    ) -> io::Result<Option<(Bytes, TcpStream)>> {
        let mut serving = pin!(async {
            // What came behind the last request, and how many were answered that came with it.
            let (mut rest, mut answered_count) = (self.first_bytes(&stream), 0);
            let mut stream = if let Some((payment, length)) = self.understand(&rest) {
                rest.advance(length);
                answered_count = 1;
                let (answer, closes) = self.take_in(payment, activity).await;
                // The client has its answer before its connection is watched. What goes wrong with that shows again
                // with what is unsent.
                let sent_count = send(&stream, &answer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                let mut stream = watched(stream)?;
                stream.write_all(&answer[sent_count.unwrap_or(0)..]).await?;
                if closes {
                    return Ok(None);
                }
                stream
            } else {
                watched(stream)?
            };
            loop {
                let heard = if rest.is_empty() {
                    answered_count = 0;
                    poll_fn(|context| self.poll_hear(&mut stream, context, &mut rest)).await?
                } else if let Some((payment, length)) = self.understand(&rest) {
                    answered_count += 1;
                    if answered_count % ANSWERS_IN_A_ROW_MAX == 0 {
                        yield_now().await;
                    }
                    rest.advance(length);
                    Heard::Plain(payment)
                } else {
                    // What hyper refuses at once it answers only where that can be sent at once, which is not known of
                    // a connection that nobody has waited for.
                    stream.writable().await?;
                    return Ok(Some((rest, stream)));
                };
                let payment = match heard {
                    Heard::Plain(payment) => payment,
                    Heard::Other(bytes) => return Ok(Some((bytes, stream))),
                    Heard::End => return Ok(None),
                };
                let (answer, closes) = self.take_in(payment, activity).await;
                stream.write_all(&answer).await?;
                if closes {
                    return Ok(None);
                }
            }
        });
        poll_fn(|context| match activity.poll_expired(context) {
            // There is no part of a request: a plain one has come whole.
            Some(_) => Poll::Ready(Ok(None)),
            None => serving.as_mut().poll(context),
        })
        .await
    }

    /// Takes a payment in, and gives the bytes of the answer and whether it is the last one of its connection.
    async fn take_in(&self, payment: ReadPayment, activity: &Activity) -> (Vec<u8>, bool) {
        activity.enter(Phase::Answering);
        let mut answer = self.api.take_in(payment).await;
        self.api.driver.metrics().answered(answer.status());
        // A client that does not read its answer has the time of an idle one.
        activity.enter(Phase::Idle);
        let closes = self.draining.get();
        if closes {
            answer = answer.and_close();
        }
        (self.writer.bytes(&answer), closes)
    }

    /// What a connection has brought along. Most clients send as soon as they are connected, and while one
    /// is accepted and handed over its first request arrives: it need not be waited for.
    fn first_bytes(&self, stream: &StdTcpStream) -> Bytes {
        let mut scratch = self.scratch.borrow_mut();
        match recv(stream, scratch.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((count, _)) => Bytes::copy_from_slice(&scratch[..count]),
            // There is nothing yet. An end, or whatever else is wrong, shows again when it is read.
            Err(_) => Bytes::new(),
        }
    }

    /// Reads once. What comes behind a plain request is the rest.
    fn poll_hear(
        &self,
        stream: &mut TcpStream,
        context: &mut Context<'_>,
        rest: &mut Bytes,
    ) -> Poll<io::Result<Heard>> {
        if self.closing.get() {
            return Poll::Ready(Ok(Heard::End));
        }
        let mut scratch = self.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(scratch.as_mut_slice());
        ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
        let bytes = buffer.filled();
        Poll::Ready(Ok(match self.understand(bytes) {
            Some((payment, length)) => {
                *rest = Bytes::copy_from_slice(&bytes[length..]);
                Heard::Plain(payment)
            }
            None if bytes.is_empty() => Heard::End,
            None => Heard::Other(Bytes::copy_from_slice(bytes)),
        }))
    }

    /// The payment of the plain request that these bytes begin with, and where it ends.
    fn understand(&self, bytes: &[u8]) -> Option<(ReadPayment, usize)> {
        let plain = self.reader.read(bytes)?;
        Some((body::parse(plain.body), bytes.len() - plain.rest.len()))
    }

    /// Serves the rest of a connection, from these bytes on, whatever is asked.
    async fn serve_all(&self, first_bytes: Bytes, stream: TcpStream, activity: Rc<Activity>) {
        let service = service_fn(|request: Request<Incoming>| {
            let (api, activity) = (Rc::clone(&self.api), Rc::clone(&activity));
            let answering = async move {
                activity.enter(Phase::Reading);
                let answer = api.answer(request, &activity).await;
                api.driver.metrics().answered(answer.status());
                activity.enter(Phase::Idle);
                let answer = if self.draining.get() { answer.and_close() } else { answer };
                Ok::<_, Infallible>(answer.into_response())
            };
            Box::pin(answering)
        });
        let guarded = Guarded::new(first_bytes, stream, Rc::clone(&activity));
        let mut connection =
            Box::new(self.builder.serve_connection(TokioIo::new(guarded), service));
        let mut is_told = false;
        let end = poll_fn(|context| {
            if let Some(expired) = activity.poll_expired(context) {
                return Poll::Ready(End::Expired(expired));
            }
            if self.closing.get() && !is_told {
                is_told = true;
                Pin::new(&mut *connection).graceful_shutdown();
            }
            connection.poll_without_shutdown(context).map(End::Served)
        })
        .await;
        let stream = connection.into_parts().io.into_inner().into_stream();
        match end {
            End::Served(Ok(())) if activity.closes_gently() => close_with(stream, &[]).await,
            End::Served(Ok(())) | End::Expired(Expired::Idle) => {}
            End::Served(Err(why)) => {
                tracing::debug!("a connection ends: {why}");
                close_with(stream, &[]).await;
            }
            End::Expired(Expired::Reading) => {
                self.api.driver.metrics().answered(StatusCode::REQUEST_TIMEOUT);
                let sentence = "the request took too long to arrive";
                let answer = error(StatusCode::REQUEST_TIMEOUT, sentence).and_close();
                close_with(stream, &answer.to_bytes(None)).await;
            }
        }
    }

    /// Ends connections that take too long, while there are any.
    async fn sweep(self: Rc<Self>) {
        loop {
            sleep(SWEEP_INTERVAL).await;
            if !self.watch.sweep() {
                break;
            }
        }
        self.sweeping.set(false);
    }

    /// Takes no more connections, and waits until all are closed, at most as long as the limit.
    ///
    /// A client that finds a kept connection closed while it sends a request cannot know whether it was
    /// taken in. So connections stay open for `linger` first, and each answer on them says that it is
    /// the last; only those on which nothing was asked in that time are closed while they are idle.
    pub async fn drain(&self, linger: Duration, limit: Duration) {
        self.draining.set(true);
        self.changed.notify_one();
        let linger = linger.min(limit);
        if timeout(linger, self.all_ended()).await.is_ok() {
            return;
        }
        self.closing.set(true);
        self.watch.wake_all();
        if timeout(limit.saturating_sub(linger), self.all_ended()).await.is_err() {
            tracing::warn!(count = self.count.get(), "ending with connections open");
        }
    }

    async fn all_ended(&self) {
        while self.count.get() > 0 {
            self.ended.notified().await;
        }
    }
}

/// The connection, watched from now on. It must not block whoever reads from it: who sent it may not have seen to
/// that.
fn watched(stream: StdTcpStream) -> io::Result<TcpStream> {
    let watched = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
    watched.inspect_err(|error| tracing::warn!("a connection is lost: {error}"))
}
