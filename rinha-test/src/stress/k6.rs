//! The contest's own client as the load: k6 runs `contest.js`, and its figures are read back.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ledger::{Cents, Totals};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::StressError;
use super::subject::{Ready, Surroundings};
use super::timeline::AuditSeen;

/// The scripts, which lie beside the sources of this program.
const CONTEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contest.js");
const CONTEST_FLOOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contest-floor.js");

/// A k6 at work. It is ended when this is dropped.
pub(super) struct K6 {
    child: Child,
    result: PathBuf,
    log: PathBuf,
}

/// What `contest.js` writes.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct K6Result {
    pub(super) finished: bool,
    pub(super) requested: u64,
    pub(super) accepted: u64,
    pub(super) failed: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) default_requests: u64,
    pub(super) fallback_requests: u64,
    pub(super) total_default_amount: f64,
    pub(super) total_fallback_amount: f64,
    pub(super) test_faults: u64,
    audits: Vec<K6Audit>,
}

#[derive(Clone, Debug, Deserialize)]
struct K6Audit {
    audit: u32,
    from: String,
    to: String,
    inconsistencies: u64,
    ours_default_requests: u64,
    ours_default_cents: i64,
    ours_fallback_requests: u64,
    ours_fallback_cents: i64,
    processors_default_requests: u64,
    processors_default_cents: i64,
    processors_fallback_requests: u64,
    processors_fallback_cents: i64,
}

/// What `contest-floor.js` writes: what k6 saw of the floor.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct K6Floor {
    pub(super) accepted: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

impl K6 {
    /// Starts the contest's test.
    pub(super) fn start(
        program: &Path,
        ready: &Ready,
        surroundings: &Surroundings,
        token: &str,
        scale: f64,
    ) -> Result<Self, StressError> {
        let mut command = command(program, CONTEST, &ready.url, scale);
        command
            .env("DEFAULT_URL", &ready.processors[0])
            .env("FALLBACK_URL", &ready.processors[1])
            .env("TOKEN", token);
        Self::spawn(command, &surroundings.out, "k6")
    }

    /// Starts the contest's test against the floor server at a URL, which stands for the processors as well, in a
    /// share of the time of a contest that is so much shorter or longer than the usual one. Figures and log are in
    /// `out`.
    pub(super) fn start_floor(
        program: &Path,
        url: &str,
        out: &Path,
        [scale, share]: [f64; 2],
    ) -> Result<Self, StressError> {
        let mut command = command(program, CONTEST_FLOOR, url, scale * share);
        command.env("DEFAULT_URL", url).env("FALLBACK_URL", url).env("SHARE", share.to_string());
        Self::spawn(command, out, "k6-floor")
    }

    fn spawn(mut command: Command, out: &Path, name: &str) -> Result<Self, StressError> {
        let result = out.join(format!("{name}.json"));
        let log = out.join(format!("{name}.log"));
        // What an earlier one wrote is not what this one found.
        if let Err(error) = std::fs::remove_file(&result)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(StressError::K6(error));
        }
        let file = std::fs::File::create(&log).map_err(StressError::K6)?;
        let child = command
            .env("RESULT", &result)
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(StressError::K6)?)
            .stderr(file)
            .spawn()
            .map_err(StressError::K6)?;
        Ok(Self { child, result, log })
    }

    /// Waits until it has ended, and does something every now and then meanwhile.
    ///
    /// # Errors
    /// `stop` was set.
    pub(super) fn wait(
        &mut self,
        stop: &AtomicBool,
        mut meanwhile: impl FnMut(),
    ) -> Result<(), StressError> {
        while self.is_running() {
            if stop.load(Ordering::Relaxed) {
                return Err(StressError::Interrupted);
            }
            meanwhile();
            std::thread::sleep(super::round::POLL);
        }
        Ok(())
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end, and reads its figures.
    pub(super) fn end(self) -> Result<K6Result, StressError> {
        self.figures(|_, result: &K6Result| {
            (!result.finished).then(|| "the test did not reach its end".to_owned())
        })
    }

    /// The same of a floor.
    pub(super) fn end_floor(self) -> Result<K6Floor, StressError> {
        self.figures(|status, floor: &K6Floor| match floor.accepted {
            0 => Some("the floor answered no request".to_owned()),
            // It was ended half-way.
            _ if !status.success() => Some("the floor's load did not reach its end".to_owned()),
            _ => None,
        })
    }

    /// Its figures, if `fault` finds none in them.
    fn figures<T: DeserializeOwned>(
        mut self,
        fault: impl Fn(ExitStatus, &T) -> Option<String>,
    ) -> Result<T, StressError> {
        let status = self.child.wait().map_err(StressError::K6)?;
        let wrong = |cause: String| {
            let end = crate::up::process::describe_end(status);
            let log = self.log.display();
            StressError::K6(io::Error::other(format!(
                "it {end}, and its figures: {cause}; see {log}"
            )))
        };
        let text =
            std::fs::read_to_string(&self.result).map_err(|error| wrong(error.to_string()))?;
        let result = sonic_rs::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        match fault(status, &result) {
            Some(fault) => Err(wrong(fault)),
            None => Ok(result),
        }
    }
}

fn command(program: &Path, script: &str, url: &str, scale: f64) -> Command {
    let mut command = Command::new(program);
    command
        .args(["run", "--no-usage-report", "--quiet", "--address", "", script])
        .env("ROUTER_URL", url)
        .env("TIME_SCALE", scale.to_string());
    command
}

impl Drop for K6 {
    fn drop(&mut self) {
        // It restores nothing when it is killed, so it is asked; it may have ended already.
        if self.is_running() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

impl K6Result {
    /// What our summary said at the end.
    pub(super) fn last(&self) -> [Totals; 2] {
        #[allow(clippy::cast_possible_truncation)]
        let totals = |count, amount: f64| Totals {
            count,
            amount: Cents::new((amount * 100.0).round() as i64),
        };
        [
            totals(self.default_requests, self.total_default_amount),
            totals(self.fallback_requests, self.total_fallback_amount),
        ]
    }

    /// Its audits. `every` is the time between two.
    pub(super) fn audits(&self, every: Duration) -> Vec<AuditSeen> {
        let seen = |audit: &K6Audit| {
            let ours = [audit.ours_default_requests, audit.ours_fallback_requests];
            let processors =
                [audit.processors_default_requests, audit.processors_fallback_requests];
            let ours_cents = [audit.ours_default_cents, audit.ours_fallback_cents];
            let cents = [audit.processors_default_cents, audit.processors_fallback_cents];
            AuditSeen {
                at_s: every.as_secs_f64() * f64::from(audit.audit),
                from: audit.from.clone(),
                to: audit.to.clone(),
                ours,
                processors,
                cents_equal: ours_cents == cents,
                inconsistencies: audit.inconsistencies,
                inconsistencies_rehearsal: crate::score::inconsistency(ours, processors).rehearsal,
                failures: Vec::new(),
            }
        };
        self.audits.iter().map(seen).collect()
    }
}
