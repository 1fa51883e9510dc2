//! An API instance: takes payments in over HTTP, writes each to its journal before it answers, and
//! settles each exactly once through one of two processors.
//!
//! | part | what it is for |
//! |---|---|
//! | [`intake`], [`http`] | connections, requests, answers |
//! | [`engine`] | the way of a payment, as a state machine without I/O |
//! | [`router`] | which processor, when; a state machine without I/O |
//! | [`driver`] | gives the engine its journal, clock, processors and store |
//! | [`processor`] | calls to a processor |
//! | [`store_client`] | the line to the store |
//! | [`health`] | the processors' own word about their health |
//! | [`metrics`] | what is counted, and told to whoever asks |
//! | [`chronicle`] | what was decided lately, in words |
//! | [`bell`] | who waits for whom within the thread |
//!
//! One thread serves requests and makes calls; one waits for the disk, one asks for health.

pub mod bell;
pub mod chronicle;
pub mod driver;
pub mod engine;
pub mod health;
pub mod http;
pub mod intake;
pub mod metrics;
pub mod processor;
pub mod router;
pub mod settings;
pub mod store_client;
pub mod syncer;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use driver::{Driver, Durability};
use engine::Engine;
use health::HealthWatch;
use http::{Api, Connections, ServerLimits};
use intake::{Balancers, accept_tcp};
use ledger::clock::{self, Monotonic};
use ledger::daemon;
use ledger::disk::folder::FolderDisk;
use ledger::handover::HandoverListener;
use ledger::journal::{Journal, JournalConfig, JournalError, OpenPayments};
use ledger::metrics::{publish, tell};
use ledger::notes;
use ledger::notify;
use ledger::socket::Acceptor;
use ledger::volume::instance_name;
use metrics::Now;
use processor::{CallLimits, ProcessorClient};
pub use settings::ApiSettings;
use store_client::StoreClient;
use tokio::net::TcpListener;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::spawn_local;
use tokio::time::sleep;

/// How long a process waits for the one before it to give its journal up.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long calls in flight are waited for at least, however long the connections took.
const STOP_MIN: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Descriptors beside those of clients and of calls: segments of the journal, the store, balancers,
/// health checks, look-ups, and connections of calls that are just being closed.
const DESCRIPTORS_RESERVE: u64 = 512;

/// Makes sure that this process may have a descriptor for each connection that the settings allow.
///
/// # Errors
/// It may not, in a sentence.
pub fn reserve_descriptors(settings: &ApiSettings) -> Result<(), String> {
    let clients = u64::from(settings.connections_max);
    let calls = 2 * u64::from(settings.in_flight_max);
    let needed = clients + calls + DESCRIPTORS_RESERVE;
    daemon::reserve_descriptors(needed, "--connections-max, --in-flight-max")
}

/// Why an API instance ended.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Another process writes to the journal.
    #[error("another process writes to {path}; every instance needs a number of its own")]
    Locked {
        /// The journal's folder.
        path: PathBuf,
    },
    /// A socket cannot be opened.
    #[error("cannot listen on {at}: {source}")]
    Listen {
        /// Where.
        at: String,
        /// Why not.
        source: io::Error,
    },
    /// The shared volume cannot be prepared.
    #[error(transparent)]
    Volume(io::Error),
    /// The operating system refuses a thread, a runtime, or to tell of signals.
    #[error("cannot start: {0}")]
    Start(io::Error),
}

impl ApiError {
    /// Whether stored data is damaged, so that a new start would not help.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Journal(error) if error.is_damage())
    }
}

/// Runs the instance until `shutdown` is done. Must run on a [`tokio::runtime::LocalRuntime`].
///
/// # Errors
/// It cannot start, or its journal is damaged.
pub async fn run(
    settings: &ApiSettings,
    shutdown: impl Future<Output = io::Result<()>>,
) -> Result<(), ApiError> {
    let volume = settings.volume();
    volume.create().map_err(ApiError::Volume)?;
    let clock = Monotonic::start();
    let mut shutdown = pin!(shutdown);
    notify::starting("reading the journal");
    let (journal, open) = tokio::select! {
        opened = open_journal(settings) => opened?,
        told = &mut shutdown => {
            told.map_err(ApiError::Start)?;
            tracing::info!("ended before it began");
            return Ok(());
        }
    };
    let engine = Engine::new(
        settings.engine(),
        &open.into_ordered(),
        journal.end(),
        clock.elapsed_ms(),
        clock::now(),
    );
    let driver =
        Driver::new(engine, journal, clock, settings.durability).map_err(ApiError::Start)?;
    let store = StoreClient::new(settings.store_path(), settings.instance);
    let api = Rc::new(Api {
        driver: Rc::clone(&driver),
        store: Rc::clone(&store),
        body_bytes_max: settings.body_bytes_max,
        allow_purge: settings.allow_purge,
    });
    let connections = Connections::new(api, server_limits(settings));

    // The journal's lock keeps others from this journal, and the socket's lock from this socket.
    let balancers = Rc::new(Balancers::default());
    let socket_path = settings.socket_path();
    let listener = HandoverListener::bind(&socket_path)
        .map_err(|source| ApiError::Listen { at: socket_path.display().to_string(), source })?;
    let tcp_listener = match settings.listen {
        Some(address) => Some(listen_tcp(address).await?),
        None => None,
    };
    publish_metrics(settings, &driver, &store, &connections);
    start_health_watch(settings, &driver)?;
    let clients = clients(settings, clock, &driver);
    let hearing = Rc::clone(&driver);
    let line = Rc::clone(&store);
    spawn_local(async move { line.run(|event| hearing.heard_store(event)).await });
    let driving = {
        let (driver, store) = (Rc::clone(&driver), Rc::clone(&store));
        spawn_local(async move { driver.run(&clients, &store).await })
    };
    let syncing = {
        let (driver, interval) =
            (Rc::clone(&driver), Duration::from_millis(settings.sync_interval_ms));
        spawn_local(async move { driver.sync_in_background(interval).await })
    };
    let accepting = spawn_local(Rc::clone(&balancers).accept(listener, Rc::clone(&connections)));
    spawn_local(Rc::clone(&balancers).tell(Rc::clone(&connections)));
    let accepting_tcp =
        tcp_listener.map(|listener| spawn_local(accept_tcp(listener, Rc::clone(&connections))));
    tracing::info!(
        default = %settings.default_url,
        fallback = %settings.fallback_url,
        "taking payments on {}",
        socket_path.display()
    );
    notify::ready("taking payments");

    tokio::select! {
        ended = driving => return ended.map_err(|error| ApiError::Start(error.into()))?.map_err(Into::into),
        ended = syncing => return ended.map_err(|error| ApiError::Start(error.into()))?.map_err(Into::into),
        told = &mut shutdown => told.map_err(ApiError::Start)?,
    }
    tracing::info!("ending");
    notify::stopping();
    accepting.abort();
    if let Some(accepting) = accepting_tcp {
        accepting.abort();
    }
    balancers.take_rest(&connections);
    let limit = Duration::from_millis(settings.drain_timeout_ms);
    let linger = Duration::from_millis(settings.idle_linger_ms);
    // Payments are taken in until the last connection is closed, so dispatch goes on until then.
    let clock = Monotonic::start();
    connections.drain(linger, limit).await;
    driver.stop(limit.saturating_sub(clock.elapsed()).max(STOP_MIN)).await;
    tracing::info!(open_payments = driver.open_count(), "ended");
    Ok(())
}

/// Opens the journal and finds what is open in it. A process that is just ending may still hold its
/// lock for a moment.
async fn open_journal(
    settings: &ApiSettings,
) -> Result<(Journal<FolderDisk>, OpenPayments), ApiError> {
    let path = settings.volume().journal(settings.instance);
    let config = JournalConfig {
        instance: settings.instance,
        segment_bytes: settings.segment_bytes,
        boot_id: daemon::boot_id(),
    };
    let waiting = Monotonic::start();
    let mut has_waited = false;
    let disk = FolderDisk::create(&path).map_err(ApiError::Volume)?;
    loop {
        let mut open = OpenPayments::new();
        let opened = Journal::open(disk.clone(), config, clock::now(), |position, record| {
            open.apply(position, record);
        });
        match opened {
            Ok((mut journal, recovery)) => {
                if recovery.torn_bytes > 0 {
                    tracing::warn!(
                        "the journal's last write was incomplete; {} bytes were cut off",
                        recovery.torn_bytes
                    );
                }
                tracing::info!(
                    segments = recovery.segments_count,
                    records = recovery.records_count,
                    took_ms = waiting.elapsed_ms(),
                    "the journal is read"
                );
                if settings.durability == Durability::Disk {
                    sync_recovered(&mut journal).await?;
                }
                return Ok((journal, open));
            }
            Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                if waiting.elapsed() >= LOCK_TIMEOUT {
                    return Err(ApiError::Locked { path });
                }
                if !has_waited {
                    has_waited = true;
                    tracing::info!(
                        "another process writes to {}; it is given {LOCK_TIMEOUT:?} to end",
                        path.display()
                    );
                }
                sleep(LOCK_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes what was recovered survive a power cut: the process before may have ended between a write and
/// its sync, and what it wrote is acknowledged and sent from here on.
async fn sync_recovered(journal: &mut Journal<FolderDisk>) -> Result<(), ApiError> {
    let job = journal.take_unsynced();
    let through = job.through();
    tokio::task::spawn_blocking(move || job.run())
        .await
        .map_err(|error| ApiError::Start(error.into()))??;
    journal.synced(through);
    Ok(())
}

/// Tells metrics and notes to whoever asks. The journal's lock keeps others from these sockets as well.
fn publish_metrics(
    settings: &ApiSettings,
    driver: &Rc<Driver<FolderDisk>>,
    store: &Rc<StoreClient>,
    connections: &Rc<Connections>,
) {
    let (volume, name) = (settings.volume(), instance_name(settings.instance));
    tell(&volume.notes_socket(&name), "notes", {
        let driver = Rc::clone(driver);
        move || notes::write(driver.chronicle().notes())
    });
    let path = volume.metrics_socket(&name);
    let (driver, store, connections) =
        (Rc::clone(driver), Rc::clone(store), Rc::clone(connections));
    let backlog_max = settings.backlog_max;
    publish(&path, move |page| {
        let now = Now {
            open_payments: driver.open_count(),
            open_payments_max: backlog_max,
            oldest_age: Duration::from_millis(driver.oldest_age_ms()),
            router: driver.routing().0,
            fees_bp: driver.fees_bp(),
            is_accepting: driver.failure().is_none(),
            noted_count: driver.chronicle().noted_count(),
            is_store_connected: store.is_connected(),
            connections: connections.standing().connections_count,
        };
        driver.metrics().fill(page, &now);
    });
}

fn server_limits(settings: &ApiSettings) -> ServerLimits {
    ServerLimits {
        connections_max: settings.connections_max,
        head_bytes_max: settings.head_bytes_max,
        request_timeout: settings.request_timeout(),
        idle_timeout: settings.idle_timeout(),
    }
}

async fn listen_tcp(address: SocketAddr) -> Result<Acceptor, ApiError> {
    let listen = |source| ApiError::Listen { at: address.to_string(), source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    tracing::info!("listening on {}", listener.local_addr().map_err(listen)?);
    Acceptor::new(listener).map_err(listen)
}

fn clients(
    settings: &ApiSettings,
    clock: Monotonic,
    driver: &Rc<Driver<FolderDisk>>,
) -> [Rc<ProcessorClient>; 2] {
    let limits = CallLimits {
        call_timeout: Duration::from_millis(settings.call_timeout_ms),
        connect_timeout: Duration::from_millis(settings.connect_timeout_ms),
    };
    [&settings.default_url, &settings.fallback_url].map(|target| {
        let driver = Rc::clone(driver);
        let finished =
            Rc::new(move |call, outcome, latency_us| driver.finished(&call, outcome, latency_us));
        ProcessorClient::new(target.clone(), limits, clock, finished)
    })
}

fn start_health_watch(
    settings: &ApiSettings,
    driver: &Rc<Driver<FolderDisk>>,
) -> Result<(), ApiError> {
    let (news, mut listener) = unbounded_channel();
    let watch = HealthWatch {
        folder: settings.volume().health(),
        targets: [settings.default_url.clone(), settings.fallback_url.clone()],
        interval: Duration::from_millis(settings.health_interval_ms),
        news,
    };
    watch.start().map_err(ApiError::Start)?;
    let driver = Rc::clone(driver);
    spawn_local(async move {
        while let Some((processor, health)) = listener.recv().await {
            driver.heard(processor, health);
        }
    });
    Ok(())
}
