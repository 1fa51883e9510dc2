//! What is checked before anything is started, so that a wrong start says what is wrong with it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use ledger::clock::Monotonic;
use ledger::volume::instance_name;

use super::log::{Level, Log};
use super::pid;
use super::ports::{self, PortError};
use super::topology::Topology;

/// Bytes of the longest path that a Unix socket can have.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How often a process of an earlier run is looked at.
const LEFTOVER_POLL: Duration = Duration::from_millis(20);

/// Why the system cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// A program is missing.
    #[error(
        "{path} is no program; build it with `cargo build --release --workspace`, \
         or name the folder of the programs with --programs"
    )]
    Program {
        /// Where it should be.
        path: PathBuf,
    },
    /// Sockets in the data folder could not be bound.
    #[error(
        "the path of the data folder is too long: {socket} has {length} bytes, and a Unix socket \
         at most {SOCKET_PATH_BYTES_MAX}; choose another folder with --data"
    )]
    SocketPath {
        /// A socket in it.
        socket: PathBuf,
        /// The length of its path.
        length: usize,
    },
    /// A process of an earlier run does not end.
    #[error("{name} of an earlier run still uses {folder} (pid {pid}); end it with `kill {pid}`")]
    Leftover {
        /// The process.
        name: String,
        /// Its pid.
        pid: u32,
        /// The data folder.
        folder: PathBuf,
    },
    /// A port cannot be had.
    #[error(transparent)]
    Port(#[from] PortError),
}

impl PreflightError {
    /// Whether the options are wrong, whatever else runs on this machine.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::SocketPath { .. } | Self::Port(PortError::Same { .. }))
    }
}

/// Checks what needs no lock on the data folder: that all programs are there, and that sockets can
/// be.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_settings(topology: &Topology) -> Result<(), PreflightError> {
    for process in topology.processes() {
        let is_program = std::fs::metadata(&process.program)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        if !is_program {
            return Err(PreflightError::Program { path: process.program });
        }
    }
    for instance in topology.instances {
        // The longest of its sockets.
        let socket = topology.volume().metrics_socket(&instance_name(instance));
        let length = socket.as_os_str().len();
        if length > SOCKET_PATH_BYTES_MAX {
            return Err(PreflightError::SocketPath { socket, length });
        }
    }
    Ok(())
}

/// Waits for processes of a run whose runner was killed: they were told to end when it died, and
/// may still be at it. Then checks that all ports are free.
///
/// # Errors
/// Such a process does not end within `grace`, or a port is in use.
pub fn check_surroundings(
    topology: &Topology,
    log: &Log,
    grace: Duration,
) -> Result<(), PreflightError> {
    let clock = Monotonic::start();
    for process in topology.processes() {
        let path = pid::pid_path(&topology.volume().run(), &process.name);
        let mut said = false;
        while let Some(pid) = pid::alive(&path, &process.program) {
            if clock.elapsed() >= grace {
                return Err(PreflightError::Leftover {
                    name: process.name,
                    pid,
                    folder: topology.data.clone(),
                });
            }
            if !said {
                said = true;
                let name = &process.name;
                log.say(
                    Level::Info,
                    &format!("waiting for {name} of an earlier run to end (pid {pid})"),
                );
            }
            std::thread::sleep(LEFTOVER_POLL);
        }
    }
    Ok(ports::check(&topology.needed_ports())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::topology::{API_INSTANCES, Processors};

    #[test]
    fn a_missing_program_and_a_path_too_long_are_told() {
        let programs = tempfile::tempdir().unwrap();
        let mut topology = Topology {
            programs: programs.path().to_owned(),
            data: "/data".into(),
            port: 1,
            processors: Processors::Simulated([2, 3]),
            instances: API_INSTANCES,
            allow_purge: false,
            metrics_port: Some(4),
        };
        for name in ["payment-processor", "store", "api", "lb", "monitor"] {
            let error = check_settings(&topology).unwrap_err().to_string();
            assert!(error.contains(&format!("/{name} is no program")), "{error}");
            let path = programs.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        check_settings(&topology).unwrap();
        topology.data = format!("/{}", "d".repeat(88)).into();
        check_settings(&topology).unwrap();
        topology.data = format!("/{}", "d".repeat(89)).into();
        let error = check_settings(&topology).unwrap_err().to_string();
        assert!(error.contains("108 bytes"), "{error}");
    }
}
