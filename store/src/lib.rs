//! The store: the one daemon that reads the journals of all API instances, decides which record has
//! the right to a correlation id, and answers for what was settled.
//!
//! What it owns: the claim log, which is a part of the truth, and a sled database and an index, which
//! are views of the journals and can be deleted.

pub mod applier;
pub mod archive;
pub mod audit;
pub mod books;
pub mod claims;
pub mod database;
pub mod decisions;
pub mod desk;
pub mod index;
pub mod metrics;
pub mod pyramid;
pub mod restore;
pub mod server;
pub mod settings;
pub mod shared;
pub mod suspicion;

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use archive::Archive;
use books::{Books, BooksError, Opened, Rights};
use ledger::clock::Monotonic;
use ledger::notify;
use ledger::socket;
pub use server::StoreError;
pub use settings::StoreSettings;
use shared::{SharedLedger, membership};
use suspicion::Suspicion;

/// Runs the store until `shutdown` is done. Must run on a [`tokio::runtime::LocalRuntime`].
///
/// # Errors
/// It cannot start, or the books cannot be kept any more.
pub async fn run(
    settings: &StoreSettings,
    shutdown: impl Future<Output = io::Result<()>>,
) -> Result<(), StoreError> {
    let volume = settings.volume();
    volume.create().map_err(StoreError::Volume)?;
    // Before the books are opened, because they begin a claim log.
    match &settings.database {
        Some(_) => membership::begin(&volume)?,
        None => membership::demand_none(&volume)?,
    }
    let clock = Monotonic::start();
    let mut shutdown = pin!(shutdown);
    notify::starting("reading the journals");
    let Some((books, opened)) = open_books(settings, shutdown.as_mut()).await? else {
        tracing::info!("ended before the journals were read");
        return Ok(());
    };
    // Only now, because the books hold the lock that makes this the only store of the volume.
    let archive = settings.archive.as_ref().map(|url| {
        Archive::start(
            volume.clone(),
            ledger::daemon::boot_id(),
            url,
            settings.archive_ca.as_deref(),
        )
    });
    let archive = archive.transpose().map_err(StoreError::Archive)?;
    let shared = settings.database.as_ref().map(|url| {
        let boot_id = ledger::daemon::boot_id();
        SharedLedger::new(volume.clone(), boot_id, url, settings.database_ca.as_deref())
    });
    let shared = shared.transpose()?.map(Rc::new);
    let connecting = match &shared {
        Some(shared) => Some(shared.keep_connected().await),
        None => None,
    };
    let path = settings.socket_path();
    let listener = socket::listen(&path)
        .map_err(|source| StoreError::Listen { path: path.clone(), source })?;
    tracing::info!(
        instances = opened.instances_count,
        records_read = opened.records_count,
        took_ms = clock.elapsed_ms(),
        "answering on {}",
        path.display()
    );
    notify::ready("answering");
    let shutdown = async {
        if let Err(error) = shutdown.await {
            tracing::error!("cannot tell of signals: {error}");
        }
        notify::stopping();
    };
    let progress = archive.as_ref().map(Archive::progress);
    let served = server::serve(books, shared.clone(), listener, &volume, progress, shutdown).await;
    if let Some((shared, connecting)) = shared.zip(connecting) {
        connecting.abort();
        shared.end().await;
    }
    if let Some(archive) = archive {
        archive.end().await;
    }
    if let Err(StoreError::Books(BooksError::Database(error))) = &served
        && error.speaks_against_the_view()
    {
        Suspicion::of(&volume).raise(&error.to_string());
    }
    served?;
    tracing::info!("ended");
    Ok(())
}

/// Reads the journals on a thread that may take long, so that the store can be told to end meanwhile.
/// `None` if it was.
async fn open_books(
    settings: &StoreSettings,
    shutdown: impl Future<Output = io::Result<()>>,
) -> Result<Option<(Books, Opened)>, StoreError> {
    let stop = Arc::new(AtomicBool::new(false));
    let (volume, cache_bytes) = (settings.volume(), settings.cache_bytes());
    let rights = if settings.database.is_some() { Rights::Shared } else { Rights::Here };
    let stopped = Arc::clone(&stop);
    let mut opening = tokio::task::spawn_blocking(move || {
        Books::open_unless(&stopped, &volume, cache_bytes, ledger::daemon::boot_id(), rights)
    });
    let opened = tokio::select! {
        opened = &mut opening => opened,
        _ = shutdown => {
            stop.store(true, Ordering::Relaxed);
            opening.await
        }
    };
    let opened = opened.map_err(|error| StoreError::Start(io::Error::other(error)))?;
    match opened {
        Err(BooksError::Stopped) => Ok(None),
        _ if stop.load(Ordering::Relaxed) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}
