//! `monitor status`: how the router is, for people on one screen and for scripts as JSON, and in
//! the exit code for both.

pub mod facts;
pub mod model;
pub mod problems;
pub mod rates;
pub mod screen;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use ledger::clock::Monotonic;
use ledger::daemon::shutdown_signal;
use ledger::volume::Volume;
use tokio::time::sleep;

use crate::gather::{GatherError, gather};
use crate::settings::StatusSettings;
use model::{Health, Status};
use screen::screen;

/// The exit code of a router that is degraded.
const EXIT_DEGRADED: u8 = 1;
/// The exit code where nothing can be told.
const EXIT_UNKNOWN: u8 = 2;

/// How long a store that has much to read is given until it is looked at again.
const BEHIND_PAUSE: Duration = Duration::from_secs(1);

/// Clears a terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The daemons cannot be found.
    #[error(transparent)]
    Gather(#[from] GatherError),
    /// Nobody reads what is printed, or there is no room for it.
    #[error("cannot print the status: {0}")]
    Print(io::Error),
    /// The operating system refuses a runtime, or to tell of signals.
    #[error("cannot start: {0}")]
    Start(io::Error),
}

/// Runs `monitor status` as a process.
pub fn main(settings: &StatusSettings) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let looked = runtime
        .map_err(StatusError::Start)
        .and_then(|runtime| runtime.block_on(async { watch(settings, shutdown_signal()).await }));
    match looked {
        Ok(Health::Well) => ExitCode::SUCCESS,
        Ok(Health::Degraded) => ExitCode::from(EXIT_DEGRADED),
        Ok(Health::Unknown) => ExitCode::from(EXIT_UNKNOWN),
        Err(error) => {
            eprintln!("monitor status: {error}");
            ExitCode::from(EXIT_UNKNOWN)
        }
    }
}

/// Looks and prints, again and again if that is wanted. Gives the health as of the last look that
/// was done.
async fn watch(
    settings: &StatusSettings,
    shutdown: impl Future<Output = io::Result<()>>,
) -> Result<Health, StatusError> {
    let mut shutdown = std::pin::pin!(shutdown);
    let clock = Monotonic::start();
    let (mut before, mut looked_at) = (None, Duration::ZERO);
    loop {
        let mut status = tokio::select! {
            status = look(settings) => status?,
            told = &mut shutdown => {
                let health = before.map_or(Health::Unknown, |before: Status| before.health);
                return told.map(|()| health).map_err(StatusError::Start);
            }
        };
        let now = clock.elapsed();
        if let Some(before) = &before {
            status.compare(before, now.saturating_sub(looked_at).as_secs_f64());
        }
        print(settings, &status).map_err(StatusError::Print)?;
        let Some(seconds) = settings.watch else { return Ok(status.health) };
        tokio::select! {
            () = sleep(Duration::from_secs(seconds)) => {}
            told = &mut shutdown => {
                return told.map(|()| status.health).map_err(StatusError::Start);
            }
        }
        (before, looked_at) = (Some(status), now);
    }
}

async fn look(settings: &StatusSettings) -> Result<Status, StatusError> {
    let run = Volume::new(&settings.data).run();
    let status = Status::of(&gather(&run).await?);
    if !status.is_behind() {
        return Ok(status);
    }
    sleep(BEHIND_PAUSE).await;
    Ok(Status::of(&gather(&run).await?))
}

fn print(settings: &StatusSettings, status: &Status) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if settings.json {
        let json = sonic_rs::to_string(status).expect("numbers and texts can be written as JSON");
        writeln!(out, "{json}")?;
    } else {
        if settings.watch.is_some() && out.is_terminal() {
            out.write_all(CLEAR.as_bytes())?;
        }
        out.write_all(screen(status, &settings.data).as_bytes())?;
    }
    out.flush()
}
