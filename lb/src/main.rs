//! The balancer's process.

use std::process::ExitCode;

use lb::{LbError, LbSettings};
use ledger::check;
use ledger::daemon::{
    EXIT_SOFTWARE, EXIT_USAGE, abort_on_panic, create_files_privately, exit_code, settings,
    settings_of_check, shutdown_signal, start_logging,
};
use ledger::turns::take_short_turns;
use tokio::runtime::{Builder, LocalOptions};

fn main() -> ExitCode {
    if let Some(settings) = settings_of_check::<LbSettings>() {
        return check::exit(check::http(settings.listen));
    }
    let settings: LbSettings = settings();
    start_logging(settings.log);
    create_files_privately();
    abort_on_panic();
    take_short_turns();
    if let Err(what) = lb::reserve_descriptors(&settings) {
        return exit_code(Err((EXIT_USAGE, what)));
    }
    let result = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(LbError::Start)
        .and_then(|runtime| {
            runtime.block_on(async {
                // Listening for signals begins before anything else.
                let asked_to_end = shutdown_signal();
                let listener = lb::listen(&settings)?;
                lb::run(&settings, listener, asked_to_end).await
            })
        });
    exit_code(result.map_err(|error| (EXIT_SOFTWARE, error.to_string())))
}
