//! A running system of processes: start it, break it, mend it, stop it.
//!
//! This is what `rinha-test up` runs, and what tests that kill processes hold in their hands.

use std::thread::JoinHandle;
use std::{io, mem};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::process::Signal;

use super::log::Level;
use super::process::ProcessSpec;
use super::supervisor::{Event, HopelessEnd, Keeping, ProcessStatus, StopHow, Supervisor};

/// Why something cannot be done to the system.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// There is no process of that name.
    #[error("the system has no process named {name}; it has {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// A process cannot be started while it is being stopped.
    #[error("{0} is being stopped and cannot be started before it has ended")]
    Stopping(String),
    /// No thread for it.
    #[error("cannot start the supervisor's thread: {0}")]
    Thread(io::Error),
}

/// The processes, kept by a thread of their own. Dropping it stops them all.
pub struct System {
    names: Vec<String>,
    stages: Vec<u8>,
    events: Sender<Event>,
    hopeless: Receiver<HopelessEnd>,
    thread: Option<JoinHandle<()>>,
    log: super::log::Log,
}

impl System {
    /// Starts the processes in the order given.
    ///
    /// # Errors
    /// There is no thread for the supervisor. A process that cannot be started is treated as one
    /// that died.
    pub fn start(keeping: Keeping, specs: Vec<ProcessSpec>) -> Result<Self, SystemError> {
        let names = specs.iter().map(|spec| spec.name.clone()).collect();
        let stages = specs.iter().map(|spec| spec.stage).collect();
        let log = keeping.log.clone();
        let (sender, receiver) = unbounded();
        let (hopeless_sender, hopeless) = unbounded();
        let supervisor =
            Supervisor::new(keeping, specs, (sender.clone(), receiver), hopeless_sender);
        let thread = std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(|| supervisor.run())
            .map_err(SystemError::Thread)?;
        Ok(Self { names, stages, events: sender, hopeless, thread: Some(thread), log })
    }

    /// The names of the processes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Where the ends of processes arrive that are not started again because that would not help.
    #[must_use]
    pub fn hopeless_ends(&self) -> &Receiver<HopelessEnd> {
        &self.hopeless
    }

    /// What is known of a process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn status(&self, name: &str) -> Result<ProcessStatus, SystemError> {
        let place = self.place(name)?;
        let (answer, answers) = bounded(1);
        self.send(Event::Tell { place, answer });
        Ok(answers.recv().unwrap_or_default())
    }

    /// Starts a process that is down, without waiting for the rest of its pause. It does nothing
    /// to one that runs.
    ///
    /// # Errors
    /// There is no such process, or it is being stopped.
    pub fn start_process(&self, name: &str) -> Result<(), SystemError> {
        let place = self.place(name)?;
        let (done, answers) = bounded(1);
        self.send(Event::Start { place, done });
        match answers.recv() {
            Ok(false) => Err(SystemError::Stopping(name.to_owned())),
            _ => Ok(()),
        }
    }

    /// Ends a process with SIGTERM, and with SIGKILL once its grace is over. It stays down.
    ///
    /// # Errors
    /// There is no such process.
    pub fn stop(&self, name: &str) -> Result<(), SystemError> {
        let place = self.place(name)?;
        wait(&self.ask_to_end(place, StopHow::Gently));
        Ok(())
    }

    /// Ends a process with SIGKILL. It stays down.
    ///
    /// # Errors
    /// There is no such process.
    pub fn kill(&self, name: &str) -> Result<(), SystemError> {
        let place = self.place(name)?;
        wait(&self.ask_to_end(place, StopHow::AtOnce));
        Ok(())
    }

    /// Ends all processes with SIGKILL, as near to the same moment as can be. They stay down.
    pub fn kill_all(&self) {
        let ends: Vec<_> =
            (0..self.names.len()).map(|place| self.ask_to_end(place, StopHow::AtOnce)).collect();
        ends.iter().for_each(wait);
    }

    /// Ends a process as [`System::stop`] does, and starts it again.
    ///
    /// # Errors
    /// There is no such process.
    pub fn restart(&self, name: &str) -> Result<(), SystemError> {
        self.stop(name)?;
        self.start_process(name)
    }

    /// Sends a signal to a process that runs. If it dies of it, that is a death like any other.
    ///
    /// # Errors
    /// There is no such process.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<(), SystemError> {
        let place = self.place(name)?;
        self.send(Event::Signal { place, signal });
        Ok(())
    }

    /// Stops all processes, stage after stage, and returns when all have ended.
    pub fn shut_down(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.send(Event::NoMoreStarts);
        let mut stages = mem::take(&mut self.stages);
        let places: Vec<_> = stages.iter().copied().enumerate().collect();
        stages.sort_unstable();
        stages.dedup();
        for stage in stages.into_iter().rev() {
            let ends: Vec<_> = places
                .iter()
                .filter(|(_, of)| *of == stage)
                .map(|(place, _)| self.ask_to_end(*place, StopHow::Gently))
                .collect();
            ends.iter().for_each(wait);
        }
        self.send(Event::Finish);
        if thread.join().is_err() {
            self.log.say(Level::Warn, "the supervisor panicked");
        }
    }

    fn ask_to_end(&self, place: usize, how: StopHow) -> Receiver<()> {
        let (done, ended) = bounded(1);
        self.send(Event::Stop { place, how, done });
        ended
    }

    fn send(&self, event: Event) {
        // A supervisor that is gone has dropped its end, and whoever waits for an answer is told
        // by the answer's channel.
        let _ = self.events.send(event);
    }

    fn place(&self, name: &str) -> Result<usize, SystemError> {
        self.names.iter().position(|known| known == name).ok_or_else(|| SystemError::Unknown {
            name: name.to_owned(),
            known: self.names.join(", "),
        })
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.end();
    }
}

fn wait(ended: &Receiver<()>) {
    // An error means that the supervisor is gone, and with it its children.
    let _ = ended.recv();
}
