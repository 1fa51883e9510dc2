//! Manual pages and completions for shells, of all programs, from what their `--help` is made of.
//!
//! They are written here, and not by the daemons themselves, so that those stay as small as they are.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::Command;
use clap_complete::Shell;
use ledger::daemon::command;

/// The shells.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

/// The settings of `rinha-test manual`.
#[derive(clap::Args, Clone, Debug)]
pub struct ManualSettings {
    /// The folder to write to: DIR/man1/ and DIR/completions/
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// Why there is no manual.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {cause}", path = .path.display())]
pub struct ManualError {
    /// The folder.
    path: PathBuf,
    /// What the operating system says.
    cause: io::Error,
}

/// Writes all of it. `own` is this program.
///
/// # Errors
/// A file cannot be written.
pub fn main(settings: &ManualSettings, own: Command) -> Result<(), ManualError> {
    let pages = settings.folder.join("man1");
    let completions = settings.folder.join("completions");
    for folder in [&pages, &completions] {
        fs::create_dir_all(folder).map_err(|cause| ManualError { path: folder.clone(), cause })?;
    }
    for program in programs().into_iter().chain([own]) {
        let name = program.get_name().to_owned();
        for shell in SHELLS {
            clap_complete::generate_to(shell, &mut program.clone(), &name, &completions)
                .map_err(|cause| ManualError { path: completions.clone(), cause })?;
        }
        clap_mangen::generate_to(program, &pages)
            .map_err(|cause| ManualError { path: pages.clone(), cause })?;
    }
    Ok(())
}

/// The daemons, each with what its first argument can be: they look at that before they read flags.
fn programs() -> [Command; 5] {
    let lb = || command::<lb::LbSettings>();
    let api = || command::<api::ApiSettings>();
    let store = || command::<store::StoreSettings>();
    let audit = command::<store::audit::AuditSettings>().name("audit");
    let restore = command::<store::restore::RestoreSettings>().name("restore");
    let serve = command::<monitor::settings::ServeSettings>().name("serve");
    let status = command::<monitor::settings::StatusSettings>().name("status");
    [
        lb().subcommand(check(lb())),
        api().subcommand(check(api())),
        store().subcommands([check(store()), audit, restore]),
        Command::new("monitor")
            .version(env!("CARGO_PKG_VERSION"))
            .about("Gathers the metrics of the router's daemons from their sockets in DIR/run.")
            .subcommand_required(true)
            .subcommands([serve, status]),
        command::<payment_processor::Settings>(),
    ]
}

/// The question to a daemon that runs with these flags.
fn check(daemon: Command) -> Command {
    daemon
        .name("check")
        .about(
            "Asks the daemon that runs with these settings whether it is well; ends with 0 if so",
        )
        .long_about(None)
}
