//! The store: the one daemon that reads the journals of all API instances, decides which record has
//! the right to a correlation id, and answers for what was settled.
//!
//! What it owns: the claim log, which is a part of the truth, and a sled database and an index, which
//! are views of the journals and can be deleted.

pub mod books;
pub mod claims;
pub mod database;
pub mod decisions;
pub mod desk;
pub mod index;
pub mod pyramid;
pub mod server;
pub mod settings;

use std::io;

use books::Books;
use ledger::clock::Monotonic;
use ledger::socket;
pub use server::StoreError;
pub use settings::StoreSettings;

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
    let clock = Monotonic::start();
    let (books, opened) = Books::open(&volume, settings.cache_bytes(), ledger::daemon::boot_id())?;
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
    let shutdown = async {
        if let Err(error) = shutdown.await {
            tracing::error!("cannot tell of signals: {error}");
        }
    };
    server::serve(books, listener, shutdown).await?;
    tracing::info!("ended");
    Ok(())
}
