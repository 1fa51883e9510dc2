//! The store's process.

use std::process::ExitCode;

use ledger::check;
use ledger::daemon::{
    EXIT_DATA, EXIT_SOFTWARE, EXIT_USAGE, abort_on_panic_after, create_files_privately, exit_code,
    reserve_descriptors, settings, settings_from, settings_of_check, shutdown_signal,
    start_logging,
};
use store::suspicion::Suspicion;
use store::{StoreError, StoreSettings};
use tokio::runtime::{Builder, LocalOptions};

/// Descriptors that a young store needs. One more is open for each sealed segment, so that as many as may
/// be had are taken.
const DESCRIPTORS: u64 = 256;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|argument| argument == "audit") {
        return store::audit::main(&settings_from(arguments.into_iter().skip(1)));
    }
    if arguments.get(1).is_some_and(|argument| argument == "restore") {
        return store::restore::main(&settings_from(arguments.into_iter().skip(1)));
    }
    if let Some(settings) = settings_of_check::<StoreSettings>() {
        return check::exit(check::store(&settings.socket_path()));
    }
    let settings: StoreSettings = settings();
    start_logging(settings.log);
    create_files_privately();
    if let Err(what) = reserve_descriptors(DESCRIPTORS, "the files of journals and index") {
        return exit_code(Err((EXIT_USAGE, what)));
    }
    // sled's own threads panic over what they cannot read or write.
    let suspicion = Suspicion::of(&settings.volume());
    abort_on_panic_after(move |panic| suspicion.raise(panic));
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
