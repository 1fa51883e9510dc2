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

#[cfg(test)]
mod tests {
    use ledger::{Cents, Processor, TimestampMs, Totals};

    use super::*;

    fn step(number: u8, cents: i64) -> Step {
        let payment = Settled {
            amount: Cents::new(cents),
            processor: Processor::Default,
            requested_at: TimestampMs::clamped(i64::from(number)),
        };
        let place = Position { segment: 1, index: u32::from(number) };
        Step { payments: vec![payment], offsets: BTreeMap::from([(1, place)]) }
    }

    /// The total of so many payments of a cent.
    fn total(count: u64) -> Totals {
        Totals { count, amount: Cents::new(i64::try_from(count).unwrap()) }
    }

    fn database(folder: &std::path::Path) -> Arc<Database> {
        Arc::new(Database::open(&folder.join("sled"), 1 << 20).unwrap())
    }

    #[test]
    fn steps_are_applied_in_their_order_to_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(folder.path());
        let applier = Applier::start(Arc::clone(&database)).unwrap();
        assert!((1..=50).all(|number| applier.submit(step(number, 1))));
        applier.finish().unwrap();
        database.check_total([total(50), Totals::default()]).unwrap();
        assert_eq!(database.offset(1).unwrap(), Some(Position { segment: 1, index: 50 }));
    }

    #[test]
    fn nothing_is_applied_after_a_step_that_fails() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(folder.path());
        let applier = Applier::start(Arc::clone(&database)).unwrap();
        for (number, cents) in [(1, 1), (2, i64::MAX), (3, 1), (4, 1), (5, 1)] {
            // Those after the one that fails may find the thread gone.
            let _ = applier.submit(step(number, cents));
        }
        assert!(matches!(applier.finish(), Err(DatabaseError::Overflow(_))));
        database.check_total([total(1), Totals::default()]).unwrap();
        assert_eq!(database.offset(1).unwrap(), Some(Position { segment: 1, index: 1 }));
    }
}
