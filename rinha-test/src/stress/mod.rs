//! `rinha-test run` and `rinha-test compare`: scenarios against one system, or several in turn.

pub mod figures;
pub mod intake;
pub mod settings;
pub mod subject;
pub mod timeline;

mod floor;
mod judge;
mod k6;
mod medians;
mod round;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ledger::clock;
use serde::Deserialize;

use self::figures::Round;
pub use self::medians::{Folded, Summary};
use self::round::Plan;
use self::settings::{ClientName, CommonSettings, CompareSettings, RunSettings};
use self::subject::{Backend, Subject, SubjectError, Surroundings};
use crate::books::BooksError;
use crate::chaos::ChaosError;
use crate::load::LoadError;
use crate::report::{self, ReportError};
use crate::scenario::{self, Scenario, ScenarioError};
use crate::up::interrupt::on_shutdown_signal;

/// What the system of this project is called in tables.
const OURS: &str = "payment router";

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum StressError {
    /// There is no such scenario.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// There is no system to put under load.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The load could not be put on.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Books could not be read, or a processor not be set.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The report cannot be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The fault harness could not run.
    #[error(transparent)]
    Chaos(#[from] ChaosError),
    /// The router refuses to be emptied.
    #[error(
        "{0} refuses to be emptied, which this scenario needs: start it with \
        scripts/up.sh --allow-purge, or leave --against out, and one is started"
    )]
    NotEmptied(String),
    /// The floor server does not listen.
    #[error("the floor server does not run: {0}")]
    Floor(io::Error),
    /// k6 does not run.
    #[error("k6: {0}")]
    K6(io::Error),
    /// k6 can do nothing but the contest.
    #[error("k6 runs the contest and nothing else; leave --client out for {0}")]
    NotForK6(String),
    /// A chaos run has a system of its own.
    #[error("{0} is a chaos run, which has a system of its own: leave {1} out")]
    NotForChaos(String, &'static str),
    /// The folder of the figures cannot be used.
    #[error("cannot use {path}: {cause}", path = .path.display())]
    Out {
        /// The folder.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The own program cannot be found.
    #[error("cannot find the programs: {0}")]
    Programs(io::Error),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    /// The file of the backends cannot be read.
    #[error("{path}: {cause}", path = .path.display())]
    Backends {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: String,
    },
    /// The API refused payments that it should take in.
    #[error("only {accepted} of {posted} payments were taken in")]
    Intake {
        /// Payments that were taken in.
        accepted: u64,
        /// Payments that were posted.
        posted: u32,
    },
    /// The user wanted an end.
    #[error("told to end; what was started has ended, and the processors are set back")]
    Interrupted,
}

/// A file that names backends.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Backends {
    processors: Option<[u16; 2]>,
    backend: Vec<Backend>,
}

/// Makes a run, and prints what it found. Gives whether all was right.
///
/// # Errors
/// It could not be made.
pub fn run(settings: &RunSettings) -> Result<bool, StressError> {
    let RunSettings { common, client, against, containers, .. } = settings;
    let scenario = scenario::load(&settings.scenario, &common.set)?;
    if scenario.chaos.is_some() {
        let refused = [(against.is_some(), "--against"), (*client == ClientName::K6, "--client")];
        if let Some((_, option)) = refused.into_iter().find(|(is_given, _)| *is_given) {
            return Err(StressError::NotForChaos(scenario.name, option));
        }
        return run_chaos(&scenario, common);
    }
    let k6 = match client {
        ClientName::Own => None,
        ClientName::K6 if scenario.name == "contest" => Some(settings.k6.clone()),
        ClientName::K6 => return Err(StressError::NotForK6(scenario.name)),
    };
    let subject = match against {
        Some(url) => Subject::Running {
            url: url.clone(),
            processors: [settings.default_url.clone(), settings.fallback_url.clone()],
            containers: containers.clone(),
        },
        None => Subject::Started { backend: ours(), processors: None },
    };
    rounds(scenario, common, k6, &[subject])
}

/// Compares backends, and prints a table. Gives whether all of them were right.
///
/// # Errors
/// It could not be done.
pub fn compare(settings: &CompareSettings) -> Result<bool, StressError> {
    let scenario = scenario::load(&settings.scenario, &settings.common.set)?;
    if scenario.chaos.is_some() {
        return Err(StressError::NotForChaos(scenario.name, "compare"));
    }
    let wrong = |cause: String| StressError::Backends { path: settings.file.clone(), cause };
    let text = std::fs::read_to_string(&settings.file).map_err(|error| wrong(error.to_string()))?;
    let backends: Backends = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if backends.backend.is_empty() {
        return Err(wrong("it names no backend".to_owned()));
    }
    let processors = backends.processors;
    let started = |backend| Subject::Started { backend, processors };
    let subjects: Vec<_> = backends.backend.into_iter().map(started).collect();
    rounds(scenario, &settings.common, None, &subjects)
}

fn ours() -> Backend {
    Backend { name: OURS.to_owned(), start: None, stop: None, url: None }
}

fn rounds(
    scenario: Scenario,
    common: &CommonSettings,
    k6: Option<PathBuf>,
    subjects: &[Subject],
) -> Result<bool, StressError> {
    let surroundings = surroundings(&scenario, common)?;
    let seed = common.seed.unwrap_or_else(|| clock::now().get().unsigned_abs());
    let stop = stop_on_signal()?;
    let plan =
        Plan { scenario, scale: common.time_scale, seed, token: common.token.clone(), k6, stop };
    eprintln!("{}: {}", plan.scenario.name, plan.scenario.description);
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); subjects.len()];
    for number in 0..common.rounds {
        // In turn, and the other way round in every second round.
        let mut order: Vec<_> = (0..subjects.len()).collect();
        if number % 2 == 1 {
            order.reverse();
        }
        for place in order {
            let subject = &subjects[place];
            if common.rounds > 1 || subjects.len() > 1 {
                eprintln!("round {} of {}: {}", number + 1, common.rounds, subject.name());
            }
            let round = round::run(&plan, subject, number, &surroundings)?;
            for finding in &round.findings {
                eprintln!("  {finding}");
            }
            rounds[place].push(round);
        }
    }
    let summaries: Vec<_> = rounds.into_iter().map(Summary::new).collect();
    print!("{}", report::table::table(&summaries));
    report::write(&surroundings.out, &plan.scenario, &summaries)?;
    println!("report: {}", surroundings.out.join(report::PAGE).display());
    Ok(summaries.iter().all(|summary| summary.rounds.iter().all(|round| round.figures.right)))
}

fn run_chaos(scenario: &Scenario, common: &CommonSettings) -> Result<bool, StressError> {
    use crate::chaos::{ChaosSettings, Durability, run};
    let chaos = scenario.chaos.expect("asked for only where there is one");
    let surroundings = surroundings(scenario, common)?;
    let mut all_right = true;
    let mut rounds = Vec::new();
    for number in 0..common.rounds {
        let seed = common.seed.or(chaos.seed);
        let begun = clock::now();
        let settings = ChaosSettings {
            seed: seed.map(|seed| seed.wrapping_add(u64::from(number))),
            rounds: chaos.rounds,
            plan: false,
            quick: chaos.quick,
            durability: Durability::Process,
            data: None,
            programs: common.programs.clone(),
        };
        if let Some(report) = run(settings)? {
            all_right &= report.is_right();
            rounds.push(report.as_round(&scenario.name, begun));
        }
    }
    let summaries = [Summary::new(rounds)];
    report::write(&surroundings.out, scenario, &summaries)?;
    println!("report: {}", surroundings.out.join(report::PAGE).display());
    Ok(all_right)
}

fn surroundings(scenario: &Scenario, common: &CommonSettings) -> Result<Surroundings, StressError> {
    let launcher = std::env::current_exe().map_err(StressError::Programs)?;
    let beside = launcher.parent().unwrap_or(&launcher).to_owned();
    let out = match &common.out {
        Some(out) => out.clone(),
        None => Path::new("reports").join(format!("{}-{}", scenario.name, moment_for_a_file())),
    };
    std::fs::create_dir_all(&out)
        .and_then(|()| std::path::absolute(&out))
        .map(|out| Surroundings {
            launcher,
            programs: common.programs.clone().unwrap_or(beside),
            limits: common.limits(),
            out,
        })
        .map_err(|cause| StressError::Out { path: out, cause })
}

/// The time, as part of a file's name: `20261124T101500Z`.
fn moment_for_a_file() -> String {
    let text = clock::now().to_string();
    let (seconds, _) = text.split_once('.').unwrap_or((&text, ""));
    format!("{}Z", seconds.replace(['-', ':'], ""))
}

/// A flag that is set once the process is asked to end.
fn stop_on_signal() -> Result<Arc<AtomicBool>, StressError> {
    let interrupt = on_shutdown_signal().map_err(StressError::Signals)?;
    let stop = Arc::new(AtomicBool::new(false));
    let to_set = Arc::clone(&stop);
    std::thread::spawn(move || {
        if interrupt.recv().is_ok() {
            eprintln!("\nending");
            to_set.store(true, Ordering::Relaxed);
        }
    });
    Ok(stop)
}
