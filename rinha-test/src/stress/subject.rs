//! The system under test: started here, or there already.

use std::fs::{self, File};
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use ledger::Processor;
use ledger::clock::Monotonic;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::books::router::Router;
use crate::machine::cgroup::{BoxError, Group, LimitBox, Limits};
use crate::machine::containers::{self, ContainersError};
use crate::machine::gauge::Gauge;
use crate::up::log::Log;
use crate::up::ports::{self, FreePorts};
use crate::up::process::ProcessSpec;
use crate::up::ready::Readiness;
use crate::up::supervisor::Keeping;
use crate::up::system::{System, SystemError};
use crate::up::topology::{API_INSTANCES, Processors, Topology};
use crate::up::{GRACE, preflight};

/// How long a system may take until it answers.
const READY_DEADLINE: Duration = Duration::from_mins(1);

/// How often it is asked.
const READY_POLL: Duration = Duration::from_millis(50);

/// How often the end of what a backend left behind is looked for.
const END_POLL: Duration = Duration::from_millis(10);

/// A system that can be put under load.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// What it is called in tables.
    pub name: String,
    /// A command that runs it; the payment router of this project if there is none.
    #[serde(default)]
    pub start: Option<String>,
    /// A command to run after its end.
    #[serde(default)]
    pub stop: Option<String>,
    /// Where it takes payments, if it is started by a command.
    #[serde(default)]
    pub url: Option<String>,
}

/// What is put under load.
#[derive(Clone, Debug)]
pub enum Subject {
    /// It is started here.
    Started {
        /// Which one.
        backend: Backend,
        /// The ports of the simulated processors; free ones if none are given.
        processors: Option<[u16; 2]>,
    },
    /// It runs already.
    Running {
        /// Where it takes payments.
        url: String,
        /// Its processors, by [`Processor::index`].
        processors: [String; 2],
        /// The containers that it runs in.
        containers: Vec<String>,
    },
}

/// Where things come from and go to.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The `rinha-test` program.
    pub launcher: PathBuf,
    /// The folder of the programs.
    pub programs: PathBuf,
    /// The limits of the box, if there is to be one.
    pub limits: Option<Limits>,
    /// The folder for logs.
    pub out: PathBuf,
}

/// Why there is no system.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    /// A folder or a log cannot be used.
    #[error("cannot use a folder for the system: {0}")]
    Folder(io::Error),
    /// There are no ports.
    #[error("cannot find free ports: {0}")]
    Ports(io::Error),
    /// It could not be started as it was.
    #[error(transparent)]
    Preflight(#[from] preflight::PreflightError),
    /// The processes cannot be kept.
    #[error(transparent)]
    System(#[from] SystemError),
    /// A container cannot be measured.
    #[error(transparent)]
    Containers(#[from] ContainersError),
    /// It does not answer.
    #[error("{name} does not answer: {missing}; its log is {log}", log = .log.display())]
    NotReady {
        /// What it is called.
        name: String,
        /// What is missing.
        missing: String,
        /// Where its log is.
        log: PathBuf,
    },
    /// It has ended.
    #[error("{name} {end}; its log is {log}", log = .log.display())]
    Ended {
        /// What it is called.
        name: String,
        /// How.
        end: String,
        /// Where its log is.
        log: PathBuf,
    },
    /// A backend has a command but no URL.
    #[error("the backend {0} has a start command, and needs a url")]
    NoUrl(String),
    /// The command after its end failed.
    #[error("the stop command of {name} {end}")]
    Stop {
        /// What it is called.
        name: String,
        /// How it ended.
        end: String,
    },
}

/// A box, or why there is none.
fn make_box(limits: Option<Limits>, name: &str) -> Option<LimitBox> {
    let limits = limits?;
    match LimitBox::make(&format!("{name}-{}", std::process::id()), limits) {
        Ok(made) => Some(made),
        Err(error) => {
            warn_without_box(&error);
            None
        }
    }
}

fn warn_without_box(error: &BoxError) {
    eprintln!("it runs without a box: {error}");
}

/// A process or more of ours, in a box if there can be one.
///
/// Dropping it ends all processes, those that left their parents included if there is a box.
pub struct Boxed {
    /// Taken only when this is dropped, before the box is removed.
    system: Option<System>,
    group: Option<LimitBox>,
}

impl Drop for Boxed {
    fn drop(&mut self) {
        drop(self.system.take());
        if let Some(group) = &self.group {
            end_all(group.group());
        }
    }
}

impl Boxed {
    /// Starts processes, in a box of this name.
    ///
    /// # Errors
    /// They cannot be kept.
    pub fn start(
        mut keeping: Keeping,
        specs: Vec<ProcessSpec>,
        limits: Option<Limits>,
        name: &str,
    ) -> Result<Self, SystemError> {
        let group = make_box(limits, name);
        keeping.join = group.as_ref().map(|b| b.group().join_files()).unwrap_or_default();
        Ok(Self { system: Some(System::start(keeping, specs)?), group })
    }

    /// What it costs.
    #[must_use]
    pub fn gauge(&self) -> Gauge {
        if let Some(group) = &self.group {
            return Gauge::Groups(vec![("box".to_owned(), group.group().clone())]);
        }
        let status = |name: &str| self.system().status(name).ok()?.pid;
        Gauge::Processes(self.system().names().filter_map(status).collect())
    }

    /// Whether it has a box.
    #[must_use]
    pub fn has_box(&self) -> bool {
        self.group.is_some()
    }

    /// The processes.
    ///
    /// # Panics
    /// Never: they are there until this is dropped.
    #[must_use]
    pub fn system(&self) -> &System {
        self.system.as_ref().expect("it is there until this is dropped")
    }
}

/// Ends what is left in a group of ours.
fn end_all(group: &Group) {
    let clock = Monotonic::start();
    let mut signal = Signal::TERM;
    loop {
        let pids = group.pids();
        if pids.is_empty() || clock.elapsed() > 2 * GRACE {
            return;
        }
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
        if clock.elapsed() > GRACE {
            signal = Signal::KILL;
        }
        std::thread::sleep(END_POLL);
    }
}

/// A system that answers.
pub struct Ready {
    /// What it is called.
    pub name: String,
    /// Where it takes payments.
    pub url: String,
    /// Its processors, by [`Processor::index`].
    pub processors: [String; 2],
    /// What it costs.
    pub gauge: Gauge,
    /// Whether it runs in a box.
    pub has_box: bool,
    /// Where it keeps its data, if that is known.
    pub data: Option<PathBuf>,
    /// How long it took from its start until it answered.
    pub ready_after: Option<Duration>,
    started: Option<Started>,
}

/// What was started for it.
struct Started {
    backend: Backend,
    boxed: Boxed,
    simulators: System,
    _ports: FreePorts<3>,
    _folder: TempDir,
}

impl Ready {
    /// Whether it was started here, so that nobody else's payments are in it.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.started.is_some()
    }

    /// Ends what was started for it.
    ///
    /// # Errors
    /// Its stop command failed.
    pub fn end(self) -> Result<(), SubjectError> {
        let Some(started) = self.started else {
            return Ok(());
        };
        let Started { backend, boxed, simulators, .. } = started;
        drop(boxed);
        simulators.shut_down();
        let Some(stop) = &backend.stop else {
            return Ok(());
        };
        let failed = |end: String| SubjectError::Stop { name: backend.name.clone(), end };
        match Command::new("/bin/sh").args(["-c", stop]).status() {
            Ok(status) if ExitStatus::success(&status) => Ok(()),
            Ok(status) => Err(failed(crate::up::process::describe_end(status))),
            Err(error) => Err(failed(format!("cannot be run: {error}"))),
        }
    }
}

impl Subject {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Started { backend, .. } => &backend.name,
            Self::Running { url, .. } => url,
        }
    }

    /// Starts it, if it is not there already, and waits until it answers.
    ///
    /// # Errors
    /// It cannot be started, or does not answer.
    pub fn start(&self, surroundings: &Surroundings) -> Result<Ready, SubjectError> {
        match self {
            Self::Started { backend, processors } => start(backend, *processors, surroundings),
            Self::Running { url, processors, containers } => {
                let groups = containers.iter().map(|name| containers::group(name));
                let groups = groups.collect::<Result<Vec<_>, _>>()?;
                let has_box = !groups.is_empty();
                Ok(Ready {
                    name: url.clone(),
                    url: url.clone(),
                    processors: processors.clone(),
                    gauge: if has_box { Gauge::Groups(groups) } else { Gauge::Nothing },
                    has_box,
                    data: None,
                    ready_after: None,
                    started: None,
                })
            }
        }
    }
}

/// How processes of a run are kept.
pub(super) fn keeping(surroundings: &Surroundings, run_folder: PathBuf, log: Log) -> Keeping {
    let launcher = surroundings.launcher.clone();
    Keeping { launcher, run_folder, restart: false, grace: GRACE, log, join: Vec::new() }
}

/// A log in the folder of the run, for the processes of these names.
pub(super) fn open_log(out: &Path, file: &str, names: &[&str]) -> Result<Log, SubjectError> {
    let file = File::options().create(true).append(true).open(out.join(file));
    let file = file.map_err(SubjectError::Folder)?;
    Ok(Log::to_sink(Box::new(file), false, names.iter().copied()))
}

fn start(
    backend: &Backend,
    processors: Option<[u16; 2]>,
    surroundings: &Surroundings,
) -> Result<Ready, SubjectError> {
    let folder = tempfile::Builder::new().prefix("rinha-test-").tempdir();
    let folder = folder.map_err(SubjectError::Folder)?;
    let free_ports = ports::free::<3>().map_err(SubjectError::Ports)?;
    let [port, one, two] = free_ports.ports;
    let topology = Topology {
        programs: surroundings.programs.clone(),
        data: folder.path().join("data"),
        port,
        processors: Processors::Simulated(processors.unwrap_or([one, two])),
        instances: API_INSTANCES,
        allow_purge: true,
        metrics_port: None,
    };
    preflight::check_settings(&topology)?;
    topology.volume().create().map_err(SubjectError::Folder)?;
    let processes = topology.processes();
    let mut names: Vec<_> = processes.iter().map(|spec| spec.name.as_str()).collect();
    names.push(&backend.name);
    let log_path = surroundings.out.join("processes.log");
    let log = open_log(&surroundings.out, "processes.log", &names)?;
    let run_folder = topology.volume().run();
    let is_simulator = |spec: &ProcessSpec| spec.name.starts_with("processor-");
    let (simulators, router) = processes.iter().cloned().partition(is_simulator);
    let keeping = keeping(surroundings, run_folder.clone(), log);
    let simulators = System::start(keeping.clone(), simulators)?;
    let processors = Processor::ALL.map(|processor| topology.processor_url(processor));
    let (specs, url) = match (&backend.start, &backend.url) {
        (None, _) => (router, topology.router_url()),
        (Some(command), Some(url)) => {
            (vec![command_spec(backend, command, &processors)], url.clone())
        }
        (Some(_), None) => return Err(SubjectError::NoUrl(backend.name.clone())),
    };
    let clock = Monotonic::start();
    let boxed = Boxed::start(keeping, specs, surroundings.limits, "rinha-test")?;
    let started = Started {
        backend: backend.clone(),
        boxed,
        simulators,
        _ports: free_ports,
        _folder: folder,
    };
    let missing = || match &started.backend.start {
        None => Readiness::of(&topology).look(),
        Some(_) => answers(&url, &processors),
    };
    let system = started.boxed.system();
    let ended = || system.names().find_map(|name| system.status(name).ok()?.last_end);
    while let Err(missing) = missing() {
        let (name, log) = (backend.name.clone(), log_path.clone());
        if let Some(end) = ended() {
            return Err(SubjectError::Ended { name, end, log });
        }
        if clock.elapsed() >= READY_DEADLINE {
            return Err(SubjectError::NotReady { name, missing, log });
        }
        std::thread::sleep(READY_POLL);
    }
    Ok(Ready {
        name: backend.name.clone(),
        url,
        processors,
        gauge: started.boxed.gauge(),
        has_box: started.boxed.has_box(),
        data: started.backend.start.is_none().then(|| topology.data.clone()),
        ready_after: Some(clock.elapsed()),
        started: Some(started),
    })
}

fn command_spec(backend: &Backend, command: &str, processors: &[String; 2]) -> ProcessSpec {
    let [default, fallback] = processors;
    // The signal to end reaches the shell alone; what it leaves behind is ended with the box.
    let words = [
        format!("DEFAULT_URL={default}"),
        format!("FALLBACK_URL={fallback}"),
        "/bin/sh".to_owned(),
        "-c".to_owned(),
        command.to_owned(),
    ];
    ProcessSpec {
        name: backend.name.clone(),
        program: "/usr/bin/env".into(),
        arguments: words.map(Into::into).to_vec(),
        stage: 0,
        socket: None,
    }
}

/// Whether a backend that is not ours answers, and the simulators do.
fn answers(url: &str, processors: &[String; 2]) -> Result<(), String> {
    for processor in processors {
        let authority = super::settings::authority(processor);
        TcpStream::connect(authority).map_err(|error| format!("{processor}: {error}"))?;
    }
    Router::new(url).summary(ledger::RangeMs::ALL).map_err(|error| error.to_string())?;
    Ok(())
}

/// Bytes of all files in a folder and below.
#[must_use]
pub fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            Ok(metadata) if metadata.is_file() => allocated(&metadata),
            _ => 0,
        })
        .sum()
}

/// What a file takes on its disk: files of the journal are made larger before they are filled.
fn allocated(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    metadata.blocks() * 512
}
