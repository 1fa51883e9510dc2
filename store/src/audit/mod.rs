//! The audit: our journals against the books of the processors, payment by payment. It only reads, so
//! it can be run at any time; what is on its way meanwhile is no difference.

mod ours;
mod settings;
mod theirs;

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use ledger::daemon::{EXIT_DATA, EXIT_SOFTWARE};
use ledger::{CorrelationId, Processor, Totals};
pub use ours::{Fate, Ours, OursError};
pub use settings::AuditSettings;
pub use theirs::{Recorded, Theirs, TheirsError};

/// The exit code where the books differ.
const EXIT_DIFFERENT: u8 = 1;
/// Differences that are printed; the others are counted.
const PRINTED_MAX: usize = 100;
/// After so many payments the progress is told.
const PROGRESS_EVERY: usize = 10_000;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Our own books.
    #[error(transparent)]
    Ours(#[from] OursError),
    /// A processor does not answer, or not as it should.
    #[error(transparent)]
    Theirs(#[from] TheirsError),
    /// The result cannot be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// What an audit found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Payments that were settled in the span, by [`Processor::index`].
    pub settled: [Totals; 2],
    /// Payments that are open: neither side is wrong yet.
    pub open_count: u64,
    /// Payments that both processors refused.
    pub refused_count: u64,
    /// Payments whose id another record holds.
    pub duplicates_count: u64,
    /// What differs, one sentence each, the first ones.
    pub differences: Vec<String>,
    /// How many differences there are.
    pub differences_count: usize,
}

impl Found {
    fn add(&mut self, difference: String) {
        self.differences_count += 1;
        if self.differences.len() < PRINTED_MAX {
            self.differences.push(difference);
        }
    }
}

/// Runs the audit and prints what it found.
#[must_use]
pub fn main(settings: &AuditSettings) -> ExitCode {
    let result = audit(settings).and_then(|found| {
        print(settings, &found)?;
        Ok(found.differences_count)
    });
    match result {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(EXIT_DIFFERENT),
        Err(error) => {
            eprintln!("store audit: {error}");
            let is_damage = matches!(&error, AuditError::Ours(error) if error.is_damage());
            ExitCode::from(if is_damage { EXIT_DATA } else { EXIT_SOFTWARE })
        }
    }
}

/// Compares the books.
///
/// # Errors
/// See [`AuditError`].
pub fn audit(settings: &AuditSettings) -> Result<Found, AuditError> {
    let range = settings.range();
    let ours = Ours::read(&settings.volume(), range)?;
    let theirs = Processor::ALL.map(|processor| Theirs::new(processor, settings));
    let mut found = Found::default();
    count(&ours, &mut found)?;
    compare(settings, &ours.payments, &theirs, &mut found)?;
    if settings.token.is_some() {
        for side in &theirs {
            let totals = side.summary(range)?;
            compare_totals(side.processor(), &ours, totals, &mut found);
        }
    }
    found.differences.sort_unstable();
    Ok(found)
}

fn count(ours: &Ours, found: &mut Found) -> Result<(), OursError> {
    for payment in ours.payments.values() {
        match payment.fate {
            Fate::Settled { processor, .. } => {
                let sum = &mut found.settled[processor.index()];
                *sum = sum.checked_add(Totals::of_payment(payment.amount))?;
            }
            Fate::Open { .. } => found.open_count += 1,
            Fate::Refused => found.refused_count += 1,
            Fate::Duplicate => found.duplicates_count += 1,
        }
    }
    Ok(())
}

/// Asks for every payment at both processors, a number of them at a time.
fn compare(
    settings: &AuditSettings,
    payments: &HashMap<CorrelationId, ours::Payment>,
    theirs: &[Theirs; 2],
    found: &mut Found,
) -> Result<(), AuditError> {
    // Neither is wrong about an open payment, and a duplicate is a matter of the record that won.
    let asked = |fate: &Fate| matches!(fate, Fate::Settled { .. } | Fate::Refused);
    let ids: Vec<_> =
        payments.iter().filter(|(_, payment)| asked(&payment.fate)).map(|(id, _)| *id).collect();
    let workers_count = settings.concurrency.min(ids.len()).max(1);
    let (questions, questions_of_workers) = bounded::<CorrelationId>(workers_count);
    let (answers_of_workers, answers) = bounded(workers_count);
    thread::scope(|scope| {
        for _ in 0..workers_count {
            let (questions, answers) = (questions_of_workers.clone(), answers_of_workers.clone());
            scope.spawn(move || ask(theirs, &questions, &answers));
        }
        drop((questions_of_workers, answers_of_workers));
        let count = ids.len();
        scope.spawn(move || {
            // The workers are gone after an error.
            ids.into_iter().all(|id| questions.send(id).is_ok())
        });
        for (done, answer) in answers.into_iter().enumerate() {
            let (id, recorded) = answer?;
            judge(id, &payments[&id], recorded, found);
            if (done + 1) % PROGRESS_EVERY == 0 && !settings.json {
                let end = if io::stderr().is_terminal() { '\r' } else { '\n' };
                eprint!("{} of {count} payments compared{end}", done + 1);
            }
        }
        Ok(())
    })
}

type Answer = Result<(CorrelationId, [Option<Recorded>; 2]), TheirsError>;

fn ask(theirs: &[Theirs; 2], questions: &Receiver<CorrelationId>, answers: &Sender<Answer>) {
    for id in questions {
        let [default, fallback] = theirs;
        let answer = default
            .look(id)
            .and_then(|first| fallback.look(id).map(|second| (id, [first, second])));
        // Nobody listens any more after an error.
        if answers.send(answer).is_err() {
            return;
        }
    }
}

/// Compares one payment.
fn judge(
    id: CorrelationId,
    payment: &ours::Payment,
    recorded: [Option<Recorded>; 2],
    found: &mut Found,
) {
    let Fate::Settled { processor, requested_at } = payment.fate else {
        for (other, _) in Processor::ALL.into_iter().zip(recorded).filter(|(_, r)| r.is_some()) {
            found.add(format!("{id}: refused, and {other} has it"));
        }
        return;
    };
    match recorded[processor.index()] {
        None => found.add(format!("{id}: settled, and {processor} has not got it")),
        Some(theirs) => {
            if theirs.amount != payment.amount {
                let (ours, theirs) = (payment.amount, theirs.amount);
                found.add(format!("{id}: amount {ours}, and {processor} has {theirs}"));
            }
            if theirs.requested_at != requested_at {
                let theirs = theirs.requested_at;
                found
                    .add(format!("{id}: requestedAt {requested_at}, and {processor} has {theirs}"));
            }
        }
    }
    let other = processor.other();
    if recorded[other.index()].is_some() {
        found.add(format!("{id}: settled at {processor}, and {other} has it too"));
    }
}

/// Compares the totals of a processor. It may have open payments that we do not know it has.
fn compare_totals(processor: Processor, ours: &Ours, theirs: Totals, found: &mut Found) {
    let own = found.settled[processor.index()];
    let in_doubt = ours.in_doubt_count(processor);
    let is_explained = theirs.count >= own.count
        && theirs.count - own.count <= in_doubt
        && (theirs.count > own.count || theirs.amount == own.amount);
    if !is_explained {
        found.add(format!(
            "{processor}: {} payments and {} settled, and it has {} payments and {}",
            own.count, own.amount, theirs.count, theirs.amount
        ));
    }
}

fn print(settings: &AuditSettings, found: &Found) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let [default, fallback] = found.settled;
    if settings.json {
        let differences: Vec<_> = found.differences.iter().map(|d| format!("\"{d}\"")).collect();
        let side = |totals: Totals| {
            format!("{{\"totalRequests\":{},\"totalAmount\":{}}}", totals.count, totals.amount)
        };
        return writeln!(
            out,
            "{{\"default\":{},\"fallback\":{},\"open\":{},\"refused\":{},\"duplicates\":{},\
             \"differencesCount\":{},\"differences\":[{}]}}",
            side(default),
            side(fallback),
            found.open_count,
            found.refused_count,
            found.duplicates_count,
            found.differences_count,
            differences.join(",")
        );
    }
    for difference in &found.differences {
        writeln!(out, "{difference}")?;
    }
    let more = found.differences_count - found.differences.len();
    if more > 0 {
        writeln!(out, "and {more} more")?;
    }
    writeln!(
        out,
        "settled: {} payments and {} at default, {} payments and {} at fallback\n\
         open: {}, refused: {}, duplicates: {}\ndifferences: {}",
        default.count,
        default.amount,
        fallback.count,
        fallback.amount,
        found.open_count,
        found.refused_count,
        found.duplicates_count,
        found.differences_count
    )
}
