//! A store that runs.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

use std::process::{Child, Command, Stdio};

use ledger::volume::Volume;
use rustix::process::{Pid, Signal, kill_process};

/// A store's process. It is told to end when this is dropped, and must do so without a fault.
pub struct RunningStore(Child);

impl RunningStore {
    /// Starts a store over a volume.
    pub fn start(volume: &Volume) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_store"));
        command.arg("--data").arg(volume.root()).args(["--log-level", "error"]);
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Makes sure that it has not ended.
    pub fn check(&mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "the store ended");
    }
}

impl Drop for RunningStore {
    fn drop(&mut self) {
        // It may have ended already, which is told below.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let status = self.0.wait().unwrap();
        // A second panic would hide the first.
        assert!(status.success() || std::thread::panicking(), "the store ends with {status}");
    }
}
