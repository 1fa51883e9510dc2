//! `rinha-test intake`: what taking a payment in costs by itself, beside the floor.
//!
//! One API runs alone. Without a store it may send nothing, so all that it does is the way from a
//! readable socket to `202`: parse, validate, journal, answer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ledger::check;
use ledger::clock::Monotonic;
use rustix::process::{Pid, Signal, kill_process};

use super::StressError;
use super::floor::Floor;
use super::judge::{per, quantile_ms};
use super::subject::{SubjectError, Surroundings};
use crate::load::payments::Payments;
use crate::load::{Meter, Shape, Traffic, Until, drive};
use crate::machine::process;
use crate::up::ports;

/// How long the API may take until it answers; under a tool that watches each instruction it is slow.
const READY_DEADLINE: Duration = Duration::from_mins(1);

/// How often it is asked.
const READY_POLL: Duration = Duration::from_millis(20);

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Ports where nobody listens: what cannot be sent needs no processor.
const NOBODY: [&str; 2] = ["http://127.0.0.1:1", "http://127.0.0.1:2"];

/// The settings of `rinha-test intake`.
#[derive(clap::Args, Clone, Debug)]
pub struct IntakeSettings {
    /// Payments of a round
    #[arg(long, value_name = "COUNT", default_value_t = 200_000,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub payments: u32,
    /// Connections over which they come as fast as they are answered
    #[arg(long, value_name = "COUNT", default_value_t = 64,
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: u16,
    /// How often it is done; the figures are medians
    #[arg(long, value_name = "COUNT", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// A command to run the API under, such as 'valgrind --tool=callgrind'; there is no floor then
    #[arg(long, value_name = "COMMAND")]
    pub under: Option<String>,
    /// Where the programs are, if not beside rinha-test
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
}

/// What a round showed.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    cpu_us: f64,
    p50_ms: f64,
    p99_ms: f64,
    per_second: f64,
    floor_cpu_us: f64,
    floor_per_second: f64,
}

/// Measures, and prints a table.
///
/// # Errors
/// The API does not answer, or refuses a payment.
pub fn run(settings: &IntakeSettings) -> Result<(), StressError> {
    let launcher = std::env::current_exe().map_err(StressError::Programs)?;
    let beside = launcher.parent().unwrap_or(&launcher).to_owned();
    let programs = settings.programs.clone().unwrap_or(beside);
    let mut rounds = Vec::new();
    for number in 0..settings.rounds {
        eprintln!("round {} of {}", number + 1, settings.rounds);
        rounds.push(round(settings, &programs, &launcher, number)?);
    }
    let median = |figure: fn(&Figures) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let row = |name: &str, value: String| println!("{name:<40} {value}");
    row("CPU per payment taken in", format!("{:.2} us", median(|f| f.cpu_us)));
    row("taken in per second", format!("{:.0}", median(|f| f.per_second)));
    row("p50", format!("{:.3} ms", median(|f| f.p50_ms)));
    row("p99", format!("{:.3} ms", median(|f| f.p99_ms)));
    if settings.under.is_none() {
        row("floor: CPU per request", format!("{:.2} us", median(|f| f.floor_cpu_us)));
        row("floor: answered per second", format!("{:.0}", median(|f| f.floor_per_second)));
        row(
            "CPU, as a ratio to the floor's",
            format!("{:.2}", median(|f| f.cpu_us / f.floor_cpu_us)),
        );
        let ratio = median(|f| f.per_second / f.floor_per_second);
        row("per second, as a ratio to the floor's", format!("{ratio:.2}"));
    }
    Ok(())
}

fn round(
    settings: &IntakeSettings,
    programs: &Path,
    launcher: &Path,
    number: u32,
) -> Result<Figures, StressError> {
    let folder = tempfile::tempdir().map_err(SubjectError::Folder)?;
    let shape =
        Shape::Flood { connections: settings.connections, until: Until::Count(settings.payments) };
    let traffic = Traffic {
        payments: Payments::new(u64::from(number), None),
        timeout: ANSWER_TIMEOUT,
        duplicates: 0.0,
        in_pieces: 0.0,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let mut figures = Figures::default();
    let api = Api::start(settings, programs, folder.path())?;
    let meter = Arc::new(Meter::start());
    let before = api.cpu();
    drive(shape, traffic, &api.address.to_string(), &meter, &stop)?;
    let cpu = api.cpu().saturating_sub(before);
    drop(api);
    let measured = meter.measured();
    let accepted = measured.accepted();
    if accepted != u64::from(settings.payments) {
        return Err(StressError::Intake { accepted, posted: settings.payments });
    }
    figures.cpu_us = per(cpu.as_secs_f64() * 1e6, accepted).unwrap_or_default();
    figures.p50_ms = quantile_ms(&measured.latency_ns, 0.5).unwrap_or_default();
    figures.p99_ms = quantile_ms(&measured.latency_ns, 0.99).unwrap_or_default();
    figures.per_second = f64::from(settings.payments) / measured.elapsed.as_secs_f64();
    if settings.under.is_none() {
        let surroundings = Surroundings {
            launcher: launcher.to_owned(),
            programs: programs.to_owned(),
            limits: None,
            out: folder.path().to_owned(),
        };
        let mut floor = Floor::start(&surroundings)?;
        let clock = Monotonic::start();
        floor.load(shape, traffic, &stop)?;
        figures.floor_per_second = f64::from(settings.payments) / clock.elapsed().as_secs_f64();
        figures.floor_cpu_us = floor.cpu_us_per_request().unwrap_or_default();
    }
    Ok(figures)
}

/// An API that runs alone. Dropping it ends it.
struct Api {
    child: Child,
    address: SocketAddr,
}

impl Api {
    fn start(
        settings: &IntakeSettings,
        programs: &Path,
        folder: &Path,
    ) -> Result<Self, StressError> {
        let free = ports::free::<1>().map_err(SubjectError::Ports)?;
        let address = SocketAddr::from(([127, 0, 0, 1], free.ports[0]));
        let mut words = settings.under.as_deref().unwrap_or_default().split_whitespace();
        let program = programs.join("api");
        let mut command = match words.next() {
            Some(tool) => {
                let mut command = Command::new(tool);
                command.args(words).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .args(["--instance", "1", "--log-level", "error", "--data"])
            .arg(folder.join("data"))
            .args(["--listen", &address.to_string()])
            .args(["--default-url", NOBODY[0], "--fallback-url", NOBODY[1]])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command.spawn().map_err(StressError::Programs)?;
        let mut api = Self { child, address };
        let clock = Monotonic::start();
        while let Err(error) = check::http(address) {
            let ended = api.child.try_wait().ok().flatten();
            if ended.is_some() || clock.elapsed() >= READY_DEADLINE {
                let (name, log) = ("the API".to_owned(), folder.to_owned());
                let missing = error.to_string();
                return Err(SubjectError::NotReady { name, missing, log }.into());
            }
            std::thread::sleep(READY_POLL);
        }
        Ok(api)
    }

    fn cpu(&self) -> Duration {
        process::usage(self.child.id()).map(|usage| usage.cpu).unwrap_or_default()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to end.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}
