//! The dispatch path in simulated time: the real engine, router, journal, claims and recovery of two
//! instances and a store, between clients that repeat themselves and two processors that lie, with a
//! clock, a disk and a network that follow from a seed. Every process may end at any step.
//!
//! `docs/testing.md` tells what is demanded. Whatever is demanded can be broken on purpose
//! ([`Sabotage`]), so that it is known that a breach would be seen.

mod instance;
mod note;
mod plan;
mod processor;
mod shop;
mod truth;
mod world;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ledger::clock::Monotonic;
pub use truth::Violation;
use world::World;
pub use world::{Count, Ended};

use crate::progress::Progress;

/// Violations that are printed.
const PRINTED_MAX: usize = 10;

/// What is to be simulated.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct SimulateSettings {
    /// How many seeds are tried
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,

    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub from_seed: u64,

    /// Only this seed, and all that happens in it
    #[arg(long, conflicts_with_all = ["seeds", "from_seed"])]
    pub seed: Option<u64>,

    /// Break one promise on purpose, to see that it is noticed
    #[arg(long, value_enum)]
    pub sabotage: Option<Sabotage>,
}

/// A promise that is broken on purpose.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// A client hears of its acceptance before it is written
    AnswerBeforeWriting,
    /// A payment is sent although no record says so
    SendUnwritten,
    /// Instances send what they like, and nobody decides whose payment it is
    SendUnclaimed,
    /// A store that is started again knows of no claim
    ForgetClaims,
    /// A call of which nobody knows what it did counts as one that did nothing
    ForgetDoubt,
    /// An instance that is started again does not know what it had sent
    ForgetSent,
    /// That a payment is settled is not written down
    LoseSettled,
    /// Another `requestedAt` is written down than was sent
    ChangeRequestedAt,
    /// Syncs do nothing, and the power fails
    SkipSync,
    /// What became of one call in ten is never told
    LoseAnswers,
    /// Another amount is sent than was posted
    ChangeAmount,
    /// A client is refused although its payment is written
    RefuseWritten,
    /// A byte of a journal changes when its instance ends
    ChangeByte,
}

/// What one seed came to.
#[derive(Debug)]
pub struct Outcome {
    /// What was promised and not kept.
    pub violation: Option<Violation>,
    /// The same for everything that happens in the same way.
    pub digest: u64,
    /// What happened, in numbers.
    pub count: Count,
    /// What happened, in words, if that was asked for.
    pub story: Vec<String>,
}

/// Simulates one seed.
#[must_use]
pub fn simulate(seed: u64, sabotage: Option<Sabotage>, tells: bool) -> Outcome {
    let mut world = World::new(seed, sabotage, tells);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match ended {
        Ok(Ended::Well) => None,
        Ok(Ended::Violated(violation)) => Some(violation),
        Err(panic) => Some(Violation::Panicked(said(panic.as_ref()))),
    };
    let (digest, count, story) = world.into_told();
    Outcome { violation, digest, count, story }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// What many seeds came to.
#[derive(Debug, Default)]
pub struct SimulateReport {
    /// Seeds that were tried.
    pub seeds: u64,
    /// What happened in them.
    pub count: Count,
    /// What was promised and not kept, by seed.
    pub violations: Vec<(u64, Violation)>,
}

impl fmt::Display for SimulateReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line =
            |name: &str, value: &dyn fmt::Display| writeln!(formatter, "{name:28} {value}");
        line("seeds", &self.seeds)?;
        for (name, number) in self.count.named() {
            line(name, &number)?;
        }
        line("violations", &self.violations.len())?;
        for (seed, violation) in self.violations.iter().take(PRINTED_MAX) {
            writeln!(formatter, "seed {seed}: {violation}")?;
        }
        if let Some((seed, _)) = self.violations.first() {
            writeln!(formatter, "rinha-test simulate --seed {seed} tells all that happens in it")?;
        }
        Ok(())
    }
}

/// Simulates many seeds, over all cores.
#[must_use]
pub fn simulate_all(settings: &SimulateSettings, tell: impl Fn(u64) + Sync) -> SimulateReport {
    let next = AtomicU64::new(0);
    let report = Mutex::new(SimulateReport::default());
    let work = || {
        let mut own = SimulateReport::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= settings.seeds {
                break;
            }
            let seed = settings.from_seed.wrapping_add(number);
            let outcome = simulate(seed, settings.sabotage, false);
            own.seeds += 1;
            own.count.add(&outcome.count);
            own.violations.extend(outcome.violation.map(|violation| (seed, violation)));
            if number.is_multiple_of(64) {
                tell(number);
            }
        }
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        report.seeds += own.seeds;
        report.count.add(&own.count);
        report.violations.append(&mut own.violations);
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.violations.sort_by_key(|(seed, _)| *seed);
    report
}

/// Does what the settings say, and tells whether all promises were kept.
#[must_use]
pub fn main(settings: &SimulateSettings) -> bool {
    if let Some(seed) = settings.seed {
        let outcome = simulate(seed, settings.sabotage, true);
        for line in &outcome.story {
            println!("{line}");
        }
        match &outcome.violation {
            None => println!("every promise was kept; digest {:016x}", outcome.digest),
            Some(violation) => println!("{violation}; digest {:016x}", outcome.digest),
        }
        return outcome.violation.is_none();
    }
    let clock = Monotonic::start();
    let progress = Mutex::new(Progress::start());
    let report = simulate_all(settings, |number| {
        progress.lock().unwrap_or_else(PoisonError::into_inner).show(
            "simulated",
            number,
            settings.seeds,
        );
    });
    progress.into_inner().unwrap_or_else(PoisonError::into_inner).end();
    print!("{report}");
    let took_ms = clock.elapsed_ms().max(1);
    println!("{} seeds per second", report.seeds * 1000 / took_ms);
    report.violations.is_empty()
}

#[cfg(test)]
mod tests;
