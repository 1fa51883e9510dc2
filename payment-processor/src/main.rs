//! The payment processor's process: settings, a start, and an end by signal.

use std::io;
use std::process::ExitCode;

use ledger::daemon::{self, EXIT_SOFTWARE};
use payment_processor::Settings;

/// Descriptors that a run of the contest may need: more than all calls of two routers.
const DESCRIPTORS: u64 = 4_096;

fn main() -> ExitCode {
    let settings: Settings = daemon::settings();
    daemon::start_logging(settings.log);
    daemon::make_room_for_descriptors(DESCRIPTORS);
    daemon::exit_code(run(&settings))
}

fn run(settings: &Settings) -> Result<(), (u8, String)> {
    let signals =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(software)?;
    signals.block_on(async {
        // Polled once before anyone can know that the process runs, so that no signal is missed.
        let asked_to_end = tokio::spawn(daemon::shutdown_signal());
        tokio::task::yield_now().await;
        let running =
            payment_processor::run(settings).map_err(|error| (EXIT_SOFTWARE, error.to_string()))?;
        let addresses: Vec<_> = running.addresses().iter().map(ToString::to_string).collect();
        let fee = settings.fee;
        tracing::info!(%fee, "listening on {}", addresses.join(", "));
        let heard = asked_to_end.await.map_err(io::Error::other).flatten();
        heard.map_err(software)?;
        tracing::info!("asked to end by a signal");
        Ok(())
    })
}

#[allow(clippy::needless_pass_by_value)]
fn software(error: io::Error) -> (u8, String) {
    (EXIT_SOFTWARE, error.to_string())
}
