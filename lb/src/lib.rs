//! The balancer: accepts connections of clients and hands them over to API processes, connections
//! and not bytes.
//!
//! Invariants: a connection is with exactly one process at a time; a client is never left without an
//! answer because an API is gone; nothing here grows without a limit.

pub mod backends;
pub mod metrics;
pub mod settings;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use backends::{Backends, NobodyTakes};
use ledger::metrics::publish;
use ledger::notify;
use ledger::socket::{Acceptor, close_with};
use metrics::LbMetrics;
pub use settings::LbSettings;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

/// The pause after the operating system refused a connection, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Clients that are answered with 503 at a time; more are closed without a word.
const REFUSALS_MAX: u32 = 256;
/// How long clients wait to be accepted until the first API is there, before they are told that none is: a
/// balancer that was started again needs a moment to find those that ran on.
const FIRST_API_PATIENCE: Duration = Duration::from_secs(1);
/// How long clients that are being answered are waited for at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Descriptors beside those of clients that are being refused: sockets of APIs, the listener, and
/// connections that are just being handed over.
const DESCRIPTORS_RESERVE: u64 = 64;

/// Makes sure that this process may have the descriptors that it needs. A connection that was handed
/// over needs none here.
///
/// # Errors
/// It may not, in a sentence.
pub fn reserve_descriptors(settings: &LbSettings) -> Result<(), String> {
    let needed = u64::from(REFUSALS_MAX) + settings.api.len() as u64 + DESCRIPTORS_RESERVE;
    ledger::daemon::reserve_descriptors(needed, "clients that are being answered with 503")
}

/// Why the balancer ended.
#[derive(Debug, thiserror::Error)]
pub enum LbError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The operating system refuses a runtime, or to tell of signals.
    #[error("cannot start: {0}")]
    Start(io::Error),
}

/// Listens on the address of the settings.
///
/// # Errors
/// The address cannot be listened on. Must run on a runtime.
pub fn listen(settings: &LbSettings) -> Result<TcpListener, LbError> {
    let address = settings.listen;
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        // Answers are short, and must not wait for more to be sent. Accepted connections inherit it.
        socket.set_nodelay(true)?;
        socket.bind(address)?;
        socket.listen(settings.backlog)
    };
    bind().map_err(|source| LbError::Listen { address, source })
}

/// Runs the balancer until `shutdown` is done. Must run on a [`tokio::runtime::LocalRuntime`].
///
/// # Errors
/// It cannot be told to end.
pub async fn run(
    settings: &LbSettings,
    listener: TcpListener,
    shutdown: impl Future<Output = io::Result<()>>,
) -> Result<(), LbError> {
    let backends = Rc::new(Backends::new(settings.api.clone(), settings.connections_max));
    for index in 0..backends.count() {
        let backends = Rc::clone(&backends);
        spawn_local(async move { backends.keep_connected(index).await });
    }
    let address = listener.local_addr().map_err(LbError::Start)?;
    let acceptor = Acceptor::new(listener).map_err(LbError::Start)?;
    tracing::info!("listening on {address}");
    let refusals = Rc::new(Refusals::default());
    {
        let (backends, refusals) = (Rc::clone(&backends), Rc::clone(&refusals));
        publish(&settings.metrics_socket(), move |page| refusals.metrics.fill(page, &backends));
    }
    notify::ready(&format!("listening on {address}"));
    let accepting = async {
        // Nobody is there within that time, or somebody is: both are answered by accepting.
        let _ = timeout(FIRST_API_PATIENCE, backends.first_with_room()).await;
        accept(&acceptor, &backends, &refusals).await;
    };
    tokio::select! {
        () = accepting => {}
        told = shutdown => told.map_err(LbError::Start)?,
    }
    notify::stopping();
    accept_rest(&acceptor, &backends, &refusals).await;
    drop(acceptor);
    refusals.wait().await;
    tracing::info!("ended");
    Ok(())
}

/// Hands connections over, for ever.
async fn accept(acceptor: &Acceptor, backends: &Backends, refusals: &Rc<Refusals>) {
    loop {
        match acceptor.accept().await {
            Ok(connection) => hand_over(connection, backends, refusals),
            Err(error) => {
                tracing::warn!("a connection is refused: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Hands over what has been waiting to be accepted, so that closing the listener resets nobody.
async fn accept_rest(acceptor: &Acceptor, backends: &Backends, refusals: &Rc<Refusals>) {
    while let Ok(Ok(connection)) = timeout(Duration::ZERO, acceptor.accept()).await {
        hand_over(connection, backends, refusals);
    }
}

fn hand_over(connection: OwnedFd, backends: &Backends, refusals: &Rc<Refusals>) {
    refusals.metrics.accepted.add_one();
    if let Err(why) = backends.hand_over(connection.as_fd()) {
        refusals.refuse(connection, why);
    }
}

/// Clients that are being told that nobody takes them.
#[derive(Default)]
struct Refusals {
    count: Cell<u32>,
    metrics: LbMetrics,
    ended: Notify,
}

impl Refusals {
    fn refuse(self: &Rc<Self>, connection: OwnedFd, why: NobodyTakes) {
        self.metrics.refused(why);
        if self.count.get() >= REFUSALS_MAX {
            return;
        }
        let Ok(stream) = TcpStream::from_std(connection.into()) else { return };
        self.count.set(self.count.get() + 1);
        let refusals = Rc::clone(self);
        spawn_local(async move {
            close_with(stream, answer(why).as_bytes()).await;
            refusals.count.set(refusals.count.get() - 1);
            refusals.ended.notify_one();
        });
    }

    /// Waits until all are told, at most for a while.
    async fn wait(&self) {
        let all_told = async {
            while self.count.get() > 0 {
                self.ended.notified().await;
            }
        };
        if timeout(DRAIN_TIMEOUT, all_told).await.is_err() {
            tracing::warn!("ending with {} clients unanswered", self.count.get());
        }
    }
}

/// The whole answer to a client whom nobody takes.
fn answer(why: NobodyTakes) -> String {
    let body = format!("{{\"error\":\"{why}\"}}");
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
