//! The process of an API instance.

use std::process::ExitCode;

use api::{ApiError, ApiSettings};
use ledger::check;
use ledger::daemon::{
    EXIT_DATA, EXIT_SOFTWARE, EXIT_USAGE, abort_on_panic, create_files_privately, exit_code,
    settings, settings_of_check, shutdown_signal, start_logging,
};
use ledger::turns::take_short_turns;
use tokio::runtime::{Builder, LocalOptions};

fn main() -> ExitCode {
    if let Some(settings) = settings_of_check::<ApiSettings>() {
        let Some(address) = settings.listen else {
            let what = "it can be asked for its health only at an address of its own: --listen";
            return exit_code(Err((EXIT_USAGE, what.to_owned())));
        };
        return check::exit(check::http(address));
    }
    let settings: ApiSettings = settings();
    start_logging(settings.log);
    create_files_privately();
    abort_on_panic();
    take_short_turns();
    if let Err(what) = api::reserve_descriptors(&settings) {
        return exit_code(Err((EXIT_USAGE, what)));
    }
    let result = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(ApiError::Start)
        .and_then(|runtime| {
            // Listening for signals begins before anything else.
            runtime.block_on(async { api::run(&settings, shutdown_signal()).await })
        });
    exit_code(result.map_err(|error| {
        let code = if error.is_damage() { EXIT_DATA } else { EXIT_SOFTWARE };
        (code, error.to_string())
    }))
}
