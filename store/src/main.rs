//! The store's process.

use std::process::ExitCode;

use ledger::daemon::{
    EXIT_DATA, EXIT_SOFTWARE, abort_on_panic, exit_code, settings, shutdown_signal, start_logging,
};
use store::{StoreError, StoreSettings};
use tokio::runtime::{Builder, LocalOptions};

fn main() -> ExitCode {
    let settings: StoreSettings = settings();
    start_logging(settings.log);
    abort_on_panic();
    let result = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(StoreError::Start)
        .and_then(|runtime| {
            // Listening for signals begins before anything else.
            runtime.block_on(async { store::run(&settings, shutdown_signal()).await })
        });
    exit_code(result.map_err(|error| {
        let is_damage = matches!(&error, StoreError::Books(error) if error.is_damage());
        (if is_damage { EXIT_DATA } else { EXIT_SOFTWARE }, error.to_string())
    }))
}
