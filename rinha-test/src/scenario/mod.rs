//! Scenarios: what a run does, from a small TOML file. Those that come with the program lie in
//! `rinha-test/scenarios/` and teach how to write one.

mod parse;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use ledger::{Cents, Processor};
use serde::Deserialize;

use crate::load::{Shape, Until, Users};

pub use self::parse::{NAMES, load};

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// There is no such one.
    #[error("there is no scenario {0}: give one of {names}, or the path of a TOML file",
        names = NAMES.join(", "))]
    Unknown(String),
    /// The file cannot be read.
    #[error("cannot read {path}: {cause}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// It is not what a scenario is written like.
    #[error("{name}: {cause}")]
    Syntax {
        /// The scenario.
        name: String,
        /// What is wrong, and where.
        cause: String,
    },
    /// A setting has a value that makes no sense.
    #[error("{name}: {cause}")]
    Value {
        /// The scenario.
        name: String,
        /// What is wrong.
        cause: String,
    },
    /// A setting on the command line cannot be read.
    #[error("--set {given}: {cause}")]
    Set {
        /// What was given.
        given: String,
        /// What is wrong.
        cause: String,
    },
}

/// What a run does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name: that of the file.
    #[serde(skip)]
    pub name: String,
    /// What it is about, in a sentence.
    pub description: String,
    /// The load, unless it is a chaos run.
    pub load: Option<LoadSettings>,
    /// How it begins.
    #[serde(default)]
    pub start: StartSettings,
    /// What the processors do, and when.
    #[serde(default, rename = "stage")]
    pub stages: Vec<Stage>,
    /// Comparisons of all books meanwhile.
    pub audit: Option<AuditSettings>,
    /// Summaries over random windows meanwhile, all compared with the processors' own lists.
    pub bounds: Option<BoundsSettings>,
    /// How it ends.
    #[serde(default)]
    pub end: EndSettings,
    /// What the processors keep.
    #[serde(default)]
    pub fees: FeeSettings,
    /// The same load against a server that answers a constant.
    #[serde(default)]
    pub floor: FloorSettings,
    /// What must be so for the run to count as right, beyond nothing lost and nothing twice.
    #[serde(default)]
    pub expect: Expectations,
    /// The fault harness, in place of a load.
    pub chaos: Option<ChaosScenario>,
}

/// The load of a scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadSettings {
    /// `users`, `rate` or `flood`.
    pub shape: ShapeName,
    /// Users at the start.
    #[serde(default = "one")]
    pub from: u32,
    /// Users at the end of the ramp.
    pub to: Option<u32>,
    /// Seconds from the first number of users to the last.
    #[serde(default)]
    pub ramp_s: f64,
    /// Milliseconds that a user pauses after an answer.
    #[serde(default)]
    pub pause_ms: f64,
    /// Milliseconds from the start of a user's payment to that of its next one at least.
    #[serde(default)]
    pub period_ms: f64,
    /// Payments of each user.
    pub each: Option<u32>,
    /// Payments per second.
    pub per_second: Option<f64>,
    /// Connections.
    #[serde(default = "connections")]
    pub connections: u16,
    /// Payments in all.
    pub payments: Option<u32>,
    /// Seconds after which no more payments are posted.
    pub seconds: Option<f64>,
    /// The amount of every payment, such as `"19.90"`, or `"mixed"`.
    #[serde(default = "mixed")]
    pub amount: String,
    /// Milliseconds that an answer may take.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u32,
    /// The share of requests that post an earlier payment again.
    #[serde(default)]
    pub duplicates: f64,
    /// The share of requests that are written in pieces.
    #[serde(default)]
    pub in_pieces: f64,
}

/// The shape of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShapeName {
    /// Closed users.
    Users,
    /// A constant open rate.
    Rate,
    /// Flat out.
    Flood,
}

/// How a run begins.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StartSettings {
    /// Empty the router and the processors first.
    pub purge: bool,
}

/// What the processors do from a moment on.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Seconds after the start.
    pub at_s: f64,
    /// What default does.
    pub default: ProcessorState,
    /// What fallback does.
    pub fallback: ProcessorState,
}

impl Stage {
    /// What a processor does.
    #[must_use]
    pub fn of(&self, processor: Processor) -> ProcessorState {
        match processor {
            Processor::Default => self.default,
            Processor::Fallback => self.fallback,
        }
    }
}

/// What a processor does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessorState {
    /// Milliseconds that it waits before it looks at a payment.
    pub delay_ms: u32,
    /// Whether it fails.
    pub failing: bool,
}

/// Comparisons of all books while payments flow.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSettings {
    /// Seconds between two of them.
    pub every_s: f64,
    /// Seconds that the window's start lies back.
    pub from_s: f64,
    /// Seconds that the window's end lies back.
    pub until_s: f64,
}

/// Summaries over random windows.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundsSettings {
    /// Summaries per second.
    pub per_second: f64,
    /// Seconds that a window's end lies back at least.
    pub until_s: f64,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndSettings {
    /// Seconds that the final summary covers; all since the start if it is not given.
    pub window_s: Option<f64>,
    /// Whether what is settled after the last payment still earns.
    pub late_counts: bool,
    /// Seconds for which nothing may move while payments are still to be settled.
    pub patience_s: f64,
}

impl Default for EndSettings {
    fn default() -> Self {
        Self { window_s: None, late_counts: true, patience_s: 60.0 }
    }
}

/// What the processors keep, as shares.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeeSettings {
    /// Of what default settles.
    pub default: f64,
    /// Of what fallback settles.
    pub fallback: f64,
}

impl Default for FeeSettings {
    fn default() -> Self {
        Self { default: 0.05, fallback: 0.15 }
    }
}

/// The floor.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FloorSettings {
    /// How long or large the load on the floor is, as a share of the scenario's: half of it before
    /// the run, half after it. 0 for none.
    pub share: f64,
}

impl Default for FloorSettings {
    fn default() -> Self {
        Self { share: 0.25 }
    }
}

/// What must be so.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expectations {
    /// The share of payments that are accepted, at least.
    pub success_share: f64,
    /// The share of settled payments that went through default, at least.
    pub default_share: f64,
    /// Payments that were accepted and are not in the final summary, at most.
    pub lag: Option<u64>,
    /// Mebibytes by which the processes' own memory may grow from the first tenth of the run to the
    /// last.
    pub memory_growth_mib: Option<f64>,
    /// Bytes on disk per payment, at most.
    pub disk_bytes_per_payment: Option<f64>,
}

impl Default for Expectations {
    fn default() -> Self {
        Self {
            success_share: 0.999,
            default_share: 0.0,
            lag: Some(0),
            memory_growth_mib: None,
            disk_bytes_per_payment: None,
        }
    }
}

/// The fault harness.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChaosScenario {
    /// Rounds of load and faults.
    pub rounds: u32,
    /// Shorter faults.
    #[serde(default)]
    pub quick: bool,
    /// What the plan follows from; the time if it is not given.
    pub seed: Option<u64>,
}

fn one() -> u32 {
    1
}

fn connections() -> u16 {
    64
}

fn mixed() -> String {
    MIXED.to_owned()
}

fn timeout_ms() -> u32 {
    10_000
}

/// The amount of payments that have another one each.
const MIXED: &str = "mixed";

impl LoadSettings {
    /// The amount of every payment, if it is one.
    ///
    /// # Errors
    /// It is no amount.
    pub fn amount(&self) -> Result<Option<Cents>, String> {
        if self.amount == MIXED {
            return Ok(None);
        }
        match Cents::parse_amount(&self.amount) {
            Ok(amount) => Ok(Some(amount)),
            Err(error) => Err(format!("load.amount: {error}; or \"mixed\"")),
        }
    }

    /// The shape, with all times and counts that make it long multiplied by a scale.
    ///
    /// # Errors
    /// What is missing or makes no sense.
    pub fn shape(&self, scale: f64) -> Result<Shape, String> {
        let seconds = self.seconds.map(|seconds| time(seconds * scale)).transpose()?;
        let needed = || seconds.ok_or("load.seconds is needed for this shape");
        match self.shape {
            ShapeName::Users => Ok(Shape::Users(Users {
                from: self.from,
                to: self.to.ok_or("load.to is needed: the number of users")?,
                ramp: time(self.ramp_s * scale)?,
                duration: needed()?,
                pause: time(self.pause_ms / 1000.0)?,
                period: time(self.period_ms / 1000.0)?,
                each: self.each.map(|each| scaled(each, scale)),
            })),
            ShapeName::Rate => {
                let per_second = self.per_second.ok_or("load.per_second is needed for a rate")?;
                if !(per_second > 0.0 && per_second <= RATE_MAX) {
                    return Err(format!("load.per_second is above 0 and at most {RATE_MAX}"));
                }
                let connections = self.connections;
                Ok(Shape::Rate { per_second, duration: needed()?, connections })
            }
            ShapeName::Flood => {
                let until = match (self.payments, seconds) {
                    (Some(count), None) => Until::Count(scaled(count, scale)),
                    (None, Some(seconds)) => Until::Elapsed(seconds),
                    _ => return Err("a flood has either load.payments or load.seconds".to_owned()),
                };
                Ok(Shape::Flood { connections: self.connections, until })
            }
        }
    }
}

/// The highest open rate that makes sense from one core.
const RATE_MAX: f64 = 1_000_000.0;

/// The longest time in a scenario: a month.
const SECONDS_MAX: f64 = 31.0 * 86_400.0;

/// Seconds as a duration.
pub(crate) fn time(seconds: f64) -> Result<Duration, String> {
    if (0.0..=SECONDS_MAX).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("{seconds} seconds is no time from 0 to a month"))
    }
}

/// A count, scaled, but never to nothing.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn scaled(count: u32, scale: f64) -> u32 {
    (f64::from(count) * scale).round().max(1.0) as u32
}
