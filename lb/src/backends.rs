//! The API processes that take connections, and whose turn it is.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ledger::handover::{HandoverError, HandoverSender, Standing};
use ledger::metrics::Counter;
use tokio::sync::Notify;
use tokio::time::sleep;

/// The first pause before connecting again, doubled each time.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause before connecting again.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(250);
/// An API that is away for less is not worth a word: it may be starting.
const AWAY_NOTICE: Duration = Duration::from_secs(1);

/// One API process.
struct Backend {
    path: PathBuf,
    link: RefCell<Option<Rc<HandoverSender>>>,
    /// What the API said last of itself, and the connections handed over since.
    standing: Cell<Standing>,
    handed_over: Counter,
}

/// What is told of an API process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendView {
    /// Its name, after that of its socket.
    pub name: String,
    /// Whether it is connected and does not say that it is ending.
    pub is_alive: bool,
    /// Connections handed over to it since the balancer was started.
    pub handed_over_count: u64,
}

/// All API processes.
pub struct Backends {
    all: Vec<Backend>,
    next: Cell<usize>,
    connections_max: u32,
    /// An API has said how it stands.
    stood: Notify,
}

/// Why nobody took a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NobodyTakes {
    /// All APIs are gone or ending.
    #[error("no server takes connections at the moment")]
    NoneAlive,
    /// Those that are alive have as many connections as each allows.
    #[error("all servers have as many connections as they may")]
    AllFull,
    /// There are as many connections as the balancer allows.
    #[error("too many connections are open")]
    TooMany,
}

impl Backends {
    /// The APIs behind these sockets, none of them connected yet.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, connections_max: u32) -> Self {
        let backend = |path| Backend {
            path,
            link: RefCell::new(None),
            standing: Cell::new(Standing::default()),
            handed_over: Counter::default(),
        };
        let all = paths.into_iter().map(backend).collect();
        Self { all, next: Cell::new(0), connections_max, stood: Notify::new() }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Waits until an API is there that takes connections.
    pub async fn first_with_room(&self) {
        while !self
            .all
            .iter()
            .any(|backend| backend.is_alive() && backend.standing.get().has_room())
        {
            self.stood.notified().await;
        }
    }

    /// What there is to tell of each API.
    pub fn views(&self) -> impl Iterator<Item = BackendView> {
        self.all.iter().map(|backend| BackendView {
            name: backend.name(),
            is_alive: backend.is_alive(),
            handed_over_count: backend.handed_over.get(),
        })
    }

    /// Hands a connection to the API whose turn it is, or to the next one that takes it.
    ///
    /// # Errors
    /// Nobody takes it; the caller still has it.
    pub fn hand_over(&self, connection: BorrowedFd<'_>) -> Result<(), NobodyTakes> {
        let open_count: u32 =
            self.all.iter().map(|backend| backend.standing.get().connections_count).sum();
        if open_count >= self.connections_max {
            return Err(NobodyTakes::TooMany);
        }
        for _ in 0..self.all.len() {
            let index = self.next.get();
            self.next.set((index + 1) % self.all.len());
            if self.all[index].take(connection) {
                return Ok(());
            }
        }
        // One that has not said yet how many it takes is not full.
        let any_takes_some = self
            .all
            .iter()
            .any(|backend| backend.is_alive() && backend.standing.get().connections_max > 0);
        Err(if any_takes_some { NobodyTakes::AllFull } else { NobodyTakes::NoneAlive })
    }

    /// Keeps the line to one API open, for ever.
    pub async fn keep_connected(&self, index: usize) {
        let backend = &self.all[index];
        let name = backend.path.display();
        let api = backend.name();
        let mut pause = RECONNECT_PAUSE;
        let mut away = Duration::ZERO;
        loop {
            let why = match HandoverSender::connect(&backend.path) {
                Ok(link) => {
                    tracing::info!(%api, "connected to {name}");
                    let ended = backend.listen(Rc::new(link), &self.stood).await;
                    (pause, away) = (RECONNECT_PAUSE, Duration::ZERO);
                    match ended {
                        Ok(Standing { draining: true, .. }) => {
                            tracing::info!(%api, "{name} has ended");
                        }
                        Ok(_) => tracing::warn!(%api, "{name} is gone"),
                        Err(error) => tracing::warn!(%api, "{name} is dropped: {error}"),
                    }
                    String::new()
                }
                Err(error) => error.to_string(),
            };
            sleep(pause).await;
            let was_short = away < AWAY_NOTICE;
            away += pause;
            if was_short && away >= AWAY_NOTICE {
                tracing::warn!(%api, "{name} is away: {why}");
            }
            pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
        }
    }
}

impl Backend {
    /// Its name, after that of its socket.
    fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether it is connected and not ending.
    fn is_alive(&self) -> bool {
        self.link.borrow().is_some() && !self.standing.get().draining
    }

    /// Hands a connection over, if this API takes it.
    fn take(&self, connection: BorrowedFd<'_>) -> bool {
        let mut standing = self.standing.get();
        let Some(link) = self.link.borrow().clone() else { return false };
        if !standing.has_room() {
            return false;
        }
        match link.send(connection) {
            Ok(()) => {
                standing.connections_count += 1;
                self.standing.set(standing);
                self.handed_over.add_one();
                true
            }
            Err(HandoverError::Full) => false,
            Err(HandoverError::Gone) => {
                *self.link.borrow_mut() = None;
                false
            }
        }
    }

    /// Hears how the API stands, until it is gone, and gives what it said last.
    async fn listen(&self, link: Rc<HandoverSender>, stood: &Notify) -> io::Result<Standing> {
        *self.link.borrow_mut() = Some(Rc::clone(&link));
        let heard = loop {
            match link.standing().await {
                Ok(Some(standing)) => {
                    self.standing.set(standing);
                    stood.notify_one();
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        *self.link.borrow_mut() = None;
        let last = self.standing.replace(Standing::default());
        heard.map(|()| last)
    }
}
