//! `rinha-test up`: the whole payment router on this machine, without containers.

pub mod backoff;
pub mod child;
pub mod log;
pub mod pid;
pub mod ports;
pub mod preflight;
pub mod process;
pub mod ready;
pub mod supervisor;
pub mod system;
pub mod topology;

pub(crate) mod interrupt;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use api::processor::Target;
use crossbeam_channel::{Receiver, select};
use ledger::clock::Monotonic;
use ledger::daemon::{EXIT_DATA, EXIT_USAGE};
use ledger::volume::RESTORED_INSTANCE;

use self::interrupt::on_shutdown_signal;
use self::log::{Level, Log};
use self::pid::{PidError, RunnerLock};
use self::preflight::PreflightError;
use self::ready::Readiness;
use self::supervisor::{HopelessEnd, Keeping};
use self::system::{System, SystemError};
use self::topology::{Processors, Topology};

/// How long a process may take to end after SIGTERM before it is killed.
pub const GRACE: Duration = Duration::from_secs(10);

/// How often the system is asked whether it is ready.
const READY_POLL: Duration = Duration::from_millis(50);

/// How often it is said what the system is still waiting for.
const READY_REPORT: Duration = Duration::from_secs(5);

/// What `--help` adds to the options.
const HELP: &str = "\
It starts, each from the folder that rinha-test lies in:
  processor-default, processor-fallback   two simulated payment processors
  store                                   answers summaries, from the journals in DIR
  api-1, api-2                            take payments in and dispatch them
  lb                                      the balancer: clients talk to this one
  monitor                                 tells the metrics of all of them, and has a live page

Their output is merged into one log, the name of the process in front. What dies is started
again, after 100 ms at first and up to 5 s if it keeps dying. Once the router answers, `ready`
is printed with its URLs and commands to try. Ctrl-C ends everything in order.

The environment variables that are settings of the daemons (PAYROUTER_API_PATIENCE_MS and so on)
apply to those that it starts, but for what it sets itself: folder, addresses, numbers. A daemon that ends with exit code 64 (a wrong setting) or 65
(damaged data) would do so again: then everything is ended, with that exit code.

Payments are kept in DIR: start again with the same DIR and they are still there; remove DIR to
begin anew. The simulators keep their books in memory: one that was started again has forgotten
them, and then they differ from the router's.

DIR/run/ holds a pid file per process, so that one can be killed to see what happens:
  kill -9 $(cat data/run/api-1.pid)

Examples:
  rinha-test up
  rinha-test up --port 8080 --data /tmp/payments
  rinha-test up --processors http://127.0.0.1:8001,http://127.0.0.1:8002";

/// The settings of `rinha-test up`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct UpSettings {
    /// The port on which clients reach the router
    #[arg(long, default_value_t = 9999)]
    pub port: u16,
    /// Where payments, sockets and pid files are kept
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub data: PathBuf,
    /// Use processors that run elsewhere, and start no simulators
    #[arg(long, value_name = "DEFAULT_URL,FALLBACK_URL", value_parser = parse_processors)]
    pub processors: Option<[String; 2]>,
    /// The port of the simulated default processor
    #[arg(long, value_name = "PORT", default_value_t = 8001, conflicts_with = "processors")]
    pub default_port: u16,
    /// The port of the simulated fallback processor
    #[arg(long, value_name = "PORT", default_value_t = 8002, conflicts_with = "processors")]
    pub fallback_port: u16,
    /// The port on which the monitor tells all metrics and has its page; 0 for no monitor
    #[arg(long, value_name = "PORT", default_value_t = 9100)]
    pub metrics_port: u16,
    /// The numbers of the two APIs. One whose journal was lost must have a number that none ever had here
    #[arg(long, value_name = "NUMBER,NUMBER", default_value = "1,2", value_parser = parse_instances)]
    pub instances: [u16; 2],
    /// Let `POST /purge-payments` empty everything; without it the router answers 403
    #[arg(long)]
    pub allow_purge: bool,
    /// Leave down what dies
    #[arg(long)]
    pub no_restart: bool,
    /// Where the programs are, if not beside rinha-test
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
}

/// Why the system did not run.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// It could not be started as it was.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The data folder is in use, or not usable.
    #[error(transparent)]
    Pid(#[from] PidError),
    /// The data folder cannot be created.
    #[error("cannot use the data folder: {0}")]
    Data(io::Error),
    /// The processes cannot be kept.
    #[error(transparent)]
    System(#[from] SystemError),
    /// The own program or its folder cannot be found.
    #[error("cannot find the programs: {0}")]
    Programs(io::Error),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    /// A process ended as it would again.
    #[error("{name} ended with exit code {code}{hint}; its last lines above say more",
        name = .0.name, code = .0.code, hint = hint(.0.code))]
    Hopeless(HopelessEnd),
}

impl UpError {
    /// The exit code for it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Hopeless(end) => end.code,
            Self::Preflight(error) if error.is_usage() => EXIT_USAGE,
            _ => 1,
        }
    }
}

fn hint(code: u8) -> &'static str {
    match code {
        EXIT_USAGE => " because a setting of it is wrong",
        EXIT_DATA => " because data is damaged",
        _ => "",
    }
}

/// Runs the system until SIGINT or SIGTERM, or until a process ends as it would again.
///
/// # Errors
/// It could not be started, or such a process ended it.
pub fn run(settings: UpSettings) -> Result<(), UpError> {
    let launcher = std::env::current_exe().map_err(UpError::Programs)?;
    let restart = !settings.no_restart;
    let topology = topology(settings, &launcher)?;
    preflight::check_settings(&topology)?;
    topology.volume().create().map_err(UpError::Data)?;
    let _lock = RunnerLock::take(&topology.volume().run())?;
    let processes = topology.processes();
    let log = Log::to_stdout(processes.iter().map(|process| process.name.as_str()));
    preflight::check_surroundings(&topology, &log, GRACE)?;
    let interrupt = on_shutdown_signal().map_err(UpError::Signals)?;
    let keeping = Keeping {
        launcher,
        run_folder: topology.volume().run(),
        restart,
        grace: GRACE,
        log: log.clone(),
        join: Vec::new(),
    };
    let system = System::start(keeping, processes)?;
    let end = wait_for_end(&topology, &log, &interrupt, system.hopeless_ends());
    log.say(Level::Info, "ending everything");
    system.shut_down();
    log.say(Level::Info, "everything has ended");
    match end {
        WhyEnd::Interrupted => Ok(()),
        WhyEnd::Hopeless(end) => Err(UpError::Hopeless(end)),
    }
}

fn topology(settings: UpSettings, launcher: &std::path::Path) -> Result<Topology, UpError> {
    let beside = launcher.parent().unwrap_or(launcher);
    let ports = [settings.default_port, settings.fallback_port];
    Ok(Topology {
        programs: settings.programs.unwrap_or_else(|| beside.to_owned()),
        // The pid files and the log are read from other folders as well.
        data: std::path::absolute(settings.data).map_err(UpError::Data)?,
        port: settings.port,
        instances: settings.instances,
        allow_purge: settings.allow_purge,
        metrics_port: Some(settings.metrics_port).filter(|port| *port > 0),
        processors: settings.processors.map_or(Processors::Simulated(ports), Processors::External),
    })
}

/// Why the system is ended.
enum WhyEnd {
    Interrupted,
    Hopeless(HopelessEnd),
}

/// Waits until the system is to be ended, and says once it is ready.
fn wait_for_end(
    topology: &Topology,
    log: &Log,
    interrupt: &Receiver<()>,
    hopeless: &Receiver<HopelessEnd>,
) -> WhyEnd {
    let readiness = Readiness::of(topology);
    let clock = Monotonic::start();
    let mut reports = 0;
    let mut next_look = crossbeam_channel::after(Duration::ZERO);
    loop {
        select! {
            // Nothing is ever sent but the interrupt, and a lost sender is one as well.
            recv(interrupt) -> _ => return WhyEnd::Interrupted,
            recv(hopeless) -> end => {
                return end.map_or(WhyEnd::Interrupted, WhyEnd::Hopeless);
            }
            recv(next_look) -> _ => {}
        }
        match readiness.look() {
            Ok(()) => {
                log.print(&ready::announcement(topology));
                next_look = crossbeam_channel::never();
            }
            Err(missing) => {
                if clock.elapsed() >= READY_REPORT * (reports + 1) {
                    reports += 1;
                    log.say(Level::Warn, &format!("not ready yet: {missing}"));
                }
                next_look = crossbeam_channel::after(READY_POLL);
            }
        }
    }
}

/// Reads two URLs by the rules of the API that will be given them.
fn parse_processors(text: &str) -> Result<[String; 2], String> {
    let urls: Vec<_> = text.split(',').collect();
    let [default, fallback] = urls[..] else {
        let what = "two URLs are needed, such as http://127.0.0.1:8001,http://127.0.0.1:8002";
        return Err(what.to_owned());
    };
    let target = |url: &str| url.parse::<Target>().map_err(|error| error.to_string());
    if target(default)? == target(fallback)? {
        return Err("the two URLs must be those of two processors".to_owned());
    }
    Ok([default, fallback].map(|url| url.trim_end_matches('/').to_owned()))
}

fn parse_instances(text: &str) -> Result<[u16; 2], String> {
    let number = |part: &str| {
        let number: u16 = part.trim().parse().ok()?;
        (1..RESTORED_INSTANCE).contains(&number).then_some(number)
    };
    let numbers: Option<Vec<u16>> = text.split(',').map(number).collect();
    match numbers.as_deref() {
        Some([one, other]) if one == other => Err("the two numbers must differ".to_owned()),
        Some([one, other]) => Ok([*one, *other]),
        _ => {
            Err(format!("two numbers from 1 to {} are needed, such as 3,2", RESTORED_INSTANCE - 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_that_differ_are_instances_and_nothing_else_is() {
        assert_eq!(parse_instances("1,2").unwrap(), [1, 2]);
        assert_eq!(parse_instances("65534, 3").unwrap(), [65534, 3]);
        for text in ["", "1", "1,1", "1,0", "1,65535", "1,65536", "1,2,3", "1,b"] {
            assert!(parse_instances(text).is_err(), "{text}");
        }
    }

    #[test]
    fn two_urls_with_a_comma_are_processors_and_nothing_else_is() {
        assert_eq!(
            parse_processors("http://a:1/,http://b:2").unwrap(),
            ["http://a:1", "http://b:2"]
        );
        for text in [
            "",
            "http://a:1",
            "http://a,http://b,http://c",
            "http://a,b:2",
            "http://,http://b",
            "http://a/y,http://b",
            "http://a,http://b/y",
            "https://a,http://b",
            "http://a,http://u@b",
            "http://a,http://a",
            "http://a,http://a/",
        ] {
            assert!(parse_processors(text).is_err(), "{text}");
        }
    }
}
