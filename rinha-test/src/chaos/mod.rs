//! `rinha-test chaos`: a whole system under load, faults drawn from a seed, and after each round
//! of them the demand that all books are right.
//!
//! A round: load and faults; everything is mended; by a deadline all that was accepted is settled
//! and nothing moves any more; then all books are compared once.

pub mod check;
pub mod client;
pub mod fault;
pub mod inject;
pub mod journals;
pub mod load;
pub mod plan;
pub mod posted;
pub mod report;
pub mod rig;

mod rounds;

use std::io;
use std::path::PathBuf;

use clap::ValueEnum;
use ledger::clock;

use self::journals::JournalsError;
use self::plan::{Pace, Plan};
use self::report::ChaosReport;
use self::rig::RigSettings;
use self::rounds::Run;
use crate::books::BooksError;
use crate::faults::preload::PreloadError;
use crate::up::interrupt::on_shutdown_signal;
use crate::up::preflight::PreflightError;
use crate::up::system::SystemError;

/// The most rounds of one run.
const ROUNDS_MAX: i64 = 10_000;

/// What `--help` adds to the options.
const HELP: &str = "\
It starts a system of its own on free ports: simulated processors, a proxy in front of each, store,
two APIs and balancer. The plan follows from the seed alone: the same seed injects the same faults
into the same processes at the same moments of a round. How the processes meet them depends on the
machine.

Exit code 0 says that no accepted payment was lost, none paid twice, and that clients, processors,
journals, summaries and look-ups agreed after every round; 1 says that it was not so, or that the
run could not be made. Then the folder with data, logs and findings is kept.

Examples:
  rinha-test chaos --seed 7 --rounds 20
  rinha-test chaos --seed 7 --rounds 20 --plan
  rinha-test chaos --rounds 2 --quick";

/// The settings of `rinha-test chaos`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct ChaosSettings {
    /// What the plan follows from [default: the time]
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many rounds of faults
    #[arg(long, value_name = "COUNT", default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=ROUNDS_MAX))]
    pub rounds: u32,
    /// Print the plan, and run nothing
    #[arg(long)]
    pub plan: bool,
    /// Shorter faults, and none that takes a minute
    #[arg(long)]
    pub quick: bool,
    /// What the journals are to survive
    #[arg(long, value_enum, default_value = "process")]
    pub durability: Durability,
    /// An empty folder for everything, kept afterwards [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the programs are, if not beside rinha-test
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
}

/// What the journals are to survive, as `api --durability` says it.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Any crash of processes
    Process,
    /// And a power cut
    Disk,
}

impl Durability {
    /// Its name on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Disk => "disk",
        }
    }
}

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// The run's folder cannot be used.
    #[error("cannot use the folder of the run: {0}")]
    Folder(io::Error),
    /// The folder given is in use.
    #[error("{0} is not empty; a run needs a folder of its own")]
    NotEmpty(PathBuf),
    /// The own program cannot be found.
    #[error("cannot find the programs: {0}")]
    Programs(io::Error),
    /// There are no ports.
    #[error("cannot find free ports: {0}")]
    Ports(io::Error),
    /// A proxy cannot be started.
    #[error("cannot start a proxy: {0}")]
    Proxy(io::Error),
    /// Clients cannot be started.
    #[error("cannot start a client: {0}")]
    Load(io::Error),
    /// A second API cannot be started or waited for.
    #[error("cannot start a second API: {0}")]
    SecondApi(io::Error),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    /// The run was told to end.
    #[error("the run was told to end")]
    Interrupted,
    /// The system did not answer after its start.
    #[error("the system does not answer: {0}")]
    NotReady(String),
    /// It could not be started as it was.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The processes cannot be kept.
    #[error(transparent)]
    System(#[from] SystemError),
    /// Disk and clock faults cannot be had.
    #[error(transparent)]
    Preload(#[from] PreloadError),
    /// Books cannot be read.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// Journals cannot be read.
    #[error(transparent)]
    Journals(#[from] JournalsError),
}

/// The folder of a run.
enum Folder {
    /// It is removed unless something is wrong.
    Temporary(tempfile::TempDir),
    /// It is the caller's.
    Given(PathBuf),
}

impl Folder {
    fn new(given: Option<PathBuf>) -> Result<Self, ChaosError> {
        let Some(path) = given else {
            let folder = tempfile::Builder::new().prefix("chaos-").tempdir();
            return folder.map(Self::Temporary).map_err(ChaosError::Folder);
        };
        std::fs::create_dir_all(&path).map_err(ChaosError::Folder)?;
        let path = std::path::absolute(path).map_err(ChaosError::Folder)?;
        match path.read_dir().map_err(ChaosError::Folder)?.next() {
            None => Ok(Self::Given(path)),
            Some(_) => Err(ChaosError::NotEmpty(path)),
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Temporary(folder) => folder.path().to_owned(),
            Self::Given(path) => path.clone(),
        }
    }

    fn keep(self) {
        if let Self::Temporary(folder) = self {
            let _: PathBuf = folder.keep();
        }
    }
}

/// Makes a run, and prints and gives what it found; nothing where only the plan was asked for.
///
/// # Errors
/// It could not be made.
pub fn run(settings: ChaosSettings) -> Result<Option<ChaosReport>, ChaosError> {
    let seed = settings.seed.unwrap_or_else(|| clock::now().get().unsigned_abs());
    let pace = if settings.quick { Pace::Quick } else { Pace::Full };
    let plan = Plan::draw(seed, settings.rounds, pace);
    println!("seed {seed}: the same faults again with --seed {seed} --rounds {}", settings.rounds);
    print!("{plan}");
    if settings.plan {
        return Ok(None);
    }
    let launcher = std::env::current_exe().map_err(ChaosError::Programs)?;
    let beside = launcher.parent().unwrap_or(&launcher).to_owned();
    let interrupt = on_shutdown_signal().map_err(ChaosError::Signals)?;
    let folder = Folder::new(settings.data)?;
    let rig = RigSettings {
        folder: folder.path(),
        programs: settings.programs.unwrap_or(beside),
        launcher,
        durability: settings.durability,
    };
    let result = Run::start(&rig, interrupt, seed).and_then(|run| run.rounds(&plan));
    let path = folder.path();
    match result {
        Ok(report) if report.is_right() => {
            print!("{report}");
            Ok(Some(report))
        }
        Ok(report) => {
            std::fs::write(path.join("findings.txt"), findings(&report, &plan))
                .map_err(ChaosError::Folder)?;
            print!("{report}");
            println!("kept for a look: {}", path.display());
            folder.keep();
            Ok(Some(report))
        }
        Err(ChaosError::Interrupted) => Err(ChaosError::Interrupted),
        Err(error) => {
            println!("kept for a look: {}", path.display());
            folder.keep();
            Err(error)
        }
    }
}

/// Everything that was found, with the plan that led there.
fn findings(report: &ChaosReport, plan: &Plan) -> String {
    let all: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    format!("{report}\n{}\n\nthe plan:\n{plan}", all.join("\n"))
}
