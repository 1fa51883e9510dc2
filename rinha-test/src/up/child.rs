//! The hidden subcommand `child`: becomes the program of a process, after making sure that the
//! process ends with its runner, even if the runner is killed with `kill -9`.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// The name of the subcommand.
pub const SUBCOMMAND: &str = "child";

/// The settings of the subcommand.
#[derive(clap::Args, Debug)]
pub struct ChildSettings {
    /// The pid of the runner that started this process
    #[arg(long, value_name = "PID")]
    pub runner: u32,
    /// A file to write to so as to join a control group
    #[arg(long, value_name = "FILE")]
    pub join: Vec<PathBuf>,
    /// The program to become, and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub command: Vec<OsString>,
}

/// Why the process did not become its program.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The kernel refuses the death signal.
    #[error("cannot tie this process to its runner: {0}")]
    DeathSignal(io::Error),
    /// The runner ended before the death signal was set, so it will never come.
    #[error("the runner (pid {0}) is gone")]
    Orphaned(u32),
    /// It may not join the control group.
    #[error("cannot join the control group by {file}: {cause}", file = .file.display())]
    Join {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        cause: io::Error,
    },
    /// The program cannot be run.
    #[error("cannot run {program}: {cause}", program = .program.display())]
    Exec {
        /// The program.
        program: OsString,
        /// What the operating system says.
        cause: io::Error,
    },
}

/// Becomes the program. The pid and the death signal stay through the `exec`.
///
/// # Errors
/// The process could not be tied to its runner, or not become the program.
pub fn run(settings: ChildSettings) -> Result<Infallible, ChildError> {
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| ChildError::DeathSignal(error.into()))?;
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent != Some(settings.runner) {
        return Err(ChildError::Orphaned(settings.runner));
    }
    for file in settings.join {
        std::fs::write(&file, "0").map_err(|cause| ChildError::Join { file, cause })?;
    }
    let mut words = settings.command.into_iter();
    let program = words.next().unwrap_or_default();
    let cause = Command::new(&program).args(words).exec();
    Err(ChildError::Exec { program, cause })
}
