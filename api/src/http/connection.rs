//! Connections of clients: how many there are, and each one's life.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use ledger::handover::Standing;
use ledger::socket::close_with;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::answers::{Answer, raw_error};
use super::guard::{Expired, Guarded, Phase, SWEEP_INTERVAL, Watch};
use super::routes::Api;

/// Connections over the limit that are told so at a time; more are closed without a word.
const REFUSALS_MAX: u32 = 256;

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
        Rc::new(Self {
            api,
            limits,
            builder,
            watch: Watch::new(limits.request_timeout, limits.idle_timeout),
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

    /// Waits until the standing has changed since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Serves a connection to its end. Must run on a [`tokio::runtime::LocalRuntime`].
    pub fn serve(self: &Rc<Self>, stream: TcpStream) {
        if self.count.get() >= self.limits.connections_max {
            return self.refuse(stream);
        }
        self.count.set(self.count.get() + 1);
        self.changed.notify_one();
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

    fn refuse(self: &Rc<Self>, stream: TcpStream) {
        if self.refusals_count.get() >= REFUSALS_MAX {
            return;
        }
        self.refusals_count.set(self.refusals_count.get() + 1);
        let connections = Rc::clone(self);
        spawn_local(async move {
            let sentence = "too many connections are open";
            close_with(stream, &raw_error(StatusCode::SERVICE_UNAVAILABLE, sentence)).await;
            connections.refusals_count.set(connections.refusals_count.get() - 1);
        });
    }

    async fn serve_to_end(&self, stream: TcpStream) {
        let activity = self.watch.add();
        let service = service_fn(|request: Request<Incoming>| {
            let (api, activity) = (Rc::clone(&self.api), Rc::clone(&activity));
            let answering = async move {
                activity.enter(Phase::Reading);
                let mut answer = api.answer(request, &activity).await;
                if self.draining.get() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                activity.enter(Phase::Idle);
                Ok::<Answer, Infallible>(answer)
            };
            Box::pin(answering)
        });
        let guarded = TokioIo::new(Guarded::new(stream, Rc::clone(&activity)));
        let mut connection = self.builder.serve_connection(guarded, service);
        let mut is_told = false;
        let end = poll_fn(|context| {
            if let Some(expired) = activity.poll_expired(context) {
                return Poll::Ready(End::Expired(expired));
            }
            if self.closing.get() && !is_told {
                is_told = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            connection.poll_without_shutdown(context).map(End::Served)
        })
        .await;
        let stream = connection.into_parts().io.into_inner().into_stream();
        match end {
            End::Served(Ok(())) if activity.closes_gently() => close_with(stream, &[]).await,
            End::Served(Ok(())) | End::Expired(Expired::Idle) => {}
            End::Served(Err(error)) => {
                tracing::debug!("a connection ends: {error}");
                close_with(stream, &[]).await;
            }
            End::Expired(Expired::Reading) => {
                let sentence = "the request took too long to arrive";
                close_with(stream, &raw_error(StatusCode::REQUEST_TIMEOUT, sentence)).await;
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
