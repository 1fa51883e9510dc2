//! The thread that adds settled payments to the database while journals are read at the start: reading
//! and sled each take one core.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};
use ledger::journal::Position;

use crate::database::{Database, DatabaseError, Settled};

/// Steps that may wait, so that not all payments are in memory.
const STEPS_MAX: usize = 1;

/// Settled payments, and the places up to which the database is applied once it has them.
#[derive(Debug, Default)]
pub struct Step {
    /// The payments, in no order.
    pub payments: Vec<Settled>,
    /// The places, by instance.
    pub offsets: BTreeMap<u16, Position>,
}

impl Step {
    /// Adds it to the database.
    ///
    /// # Errors
    /// The database fails; it is unchanged.
    pub fn apply(mut self, database: &Database) -> Result<(), DatabaseError> {
        database.apply(&mut self.payments, self.offsets)
    }
}

/// The thread.
pub struct Applier {
    steps: Sender<Step>,
    thread: JoinHandle<Result<(), DatabaseError>>,
}

impl Applier {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn start(database: Arc<Database>) -> io::Result<Self> {
        let (steps, steps_of_thread) = bounded::<Step>(STEPS_MAX);
        let thread = std::thread::Builder::new().name("applier".to_owned()).spawn(move || {
            steps_of_thread.into_iter().try_for_each(|step| step.apply(&database))
        })?;
        Ok(Self { steps, thread })
    }

    /// Hands in the next step, which is applied after all before it. False if the database has failed;
    /// [`Applier::finish`] tells how.
    #[must_use]
    pub fn submit(&self, step: Step) -> bool {
        self.steps.send(step).is_ok()
    }

    /// Waits until everything is applied.
    ///
    /// # Errors
    /// The database has failed; what was handed in after that is not applied.
    pub fn finish(self) -> Result<(), DatabaseError> {
        drop(self.steps);
        match self.thread.join() {
            Ok(applied) => applied,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
