//! The contest's own client as the load: k6 runs `contest.js`, and its figures are read back.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ledger::{Cents, Totals};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::StressError;
use super::subject::{Ready, Surroundings};
use super::timeline::AuditSeen;

/// The script, which lies beside the sources of this program.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contest.js");

/// A k6 at work. It is ended when this is dropped.
pub(super) struct K6 {
    child: Child,
    result: PathBuf,
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

impl K6 {
    /// Starts it.
    pub(super) fn start(
        program: &PathBuf,
        ready: &Ready,
        surroundings: &Surroundings,
        token: &str,
        scale: f64,
    ) -> Result<Self, StressError> {
        let result = surroundings.out.join("k6.json");
        let log =
            std::fs::File::create(surroundings.out.join("k6.log")).map_err(StressError::K6)?;
        let child = Command::new(program)
            .args(["run", "--no-usage-report", "--quiet", "--address", "", SCRIPT])
            .env("ROUTER_URL", &ready.url)
            .env("DEFAULT_URL", &ready.processors[0])
            .env("FALLBACK_URL", &ready.processors[1])
            .env("TOKEN", token)
            .env("TIME_SCALE", scale.to_string())
            .env("RESULT", &result)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(StressError::K6)?)
            .stderr(log)
            .spawn()
            .map_err(StressError::K6)?;
        Ok(Self { child, result })
    }

    /// Whether it still runs.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end, and reads its figures.
    pub(super) fn end(mut self) -> Result<K6Result, StressError> {
        let status = self.child.wait().map_err(StressError::K6)?;
        let wrong = |cause: String| {
            let end = crate::up::process::describe_end(status);
            StressError::K6(io::Error::other(format!(
                "it {end}, and its figures: {cause}; see k6.log"
            )))
        };
        let text =
            std::fs::read_to_string(&self.result).map_err(|error| wrong(error.to_string()))?;
        let result: K6Result =
            sonic_rs::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if !result.finished {
            return Err(wrong("the test did not reach its end".to_owned()));
        }
        Ok(result)
    }
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
