//! What a run found, for people and for the exit code.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ledger::TimestampMs;

use super::check::Finding;
use super::posted::Posted;
use crate::faults::preload::Effects;
use crate::stress::figures::{Figures, Round};

/// Findings that are printed in full.
const FINDINGS_PRINTED_MAX: usize = 20;

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct ChaosReport {
    /// What the plan follows from.
    pub seed: u64,
    /// Rounds that were run.
    pub rounds: u32,
    /// Requests that posted a payment.
    pub requests_count: u64,
    /// Payments that were accepted.
    pub accepted_count: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Faults that this machine cannot have.
    pub skipped: Vec<String>,
    /// Calls that a processor, or the way to it, mistreated.
    pub calls_mistreated: u64,
    /// What the disk and clock faults did.
    pub effects: Effects,
    /// Ends of processes by themselves under a fault that may end them.
    pub ends_under_faults: Vec<String>,
    /// Purges that the router put off.
    pub purges_refused: u64,
    /// The longest time from the end of the faults until all was settled.
    pub settled_in_max: Duration,
    /// What is wrong in the books.
    pub findings: Vec<Finding>,
    /// What is wrong otherwise, in sentences.
    pub wrongs: Vec<String>,
}

impl ChaosReport {
    /// Takes in what was posted.
    pub fn count(&mut self, posted: &Posted) {
        self.requests_count = posted.requests_count();
        self.accepted_count = posted.accepted_count();
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.findings.is_empty() && self.wrongs.is_empty()
    }

    /// The same as a round of a scenario, as far as it has such figures.
    #[must_use]
    pub fn as_round(&self, scenario: &str, begun: TimestampMs) -> Round {
        let count = |is_such: fn(&Finding) -> bool| self.number_of(is_such) as u64;
        let figures = Figures {
            right: self.is_right(),
            requested: self.requests_count,
            accepted: self.accepted_count,
            settle_s: self.settled_in_max.as_secs_f64(),
            lost: count(|finding| matches!(finding, Finding::Lost(_))),
            duplicated: count(|finding| matches!(finding, Finding::PaidTwice(_))),
            compared_by_id: true,
            books_equal: self.findings.is_empty(),
            audits: u64::from(self.rounds),
            ..Figures::default()
        };
        let findings = self.findings.iter().map(ToString::to_string);
        Round {
            subject: "payment router".to_owned(),
            scenario: scenario.to_owned(),
            begun: begun.to_string(),
            client: "rinha-test".to_owned(),
            limits: "none".to_owned(),
            seed: self.seed,
            figures,
            findings: findings.chain(self.wrongs.iter().cloned()).collect(),
            ..Round::default()
        }
    }

    fn number_of(&self, is_such: impl Fn(&Finding) -> bool) -> usize {
        self.findings.iter().filter(|finding| is_such(finding)).count()
    }
}

impl fmt::Display for ChaosReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line =
            |name: &str, value: &dyn fmt::Display| writeln!(formatter, "{name:22} {value}");
        line("seed", &self.seed)?;
        line("rounds", &self.rounds)?;
        line("requests", &self.requests_count)?;
        line("payments accepted", &self.accepted_count)?;
        line("faults injected", &self.faults.values().sum::<u64>())?;
        for (kind, count) in &self.faults {
            line(&format!("  {kind}"), count)?;
        }
        for skipped in &self.skipped {
            line("  skipped", skipped)?;
        }
        line("calls mistreated", &self.calls_mistreated)?;
        line("writes refused", &self.effects.writes_refused)?;
        line("syncs refused", &self.effects.syncs_refused)?;
        line("clock reads shifted", &self.effects.clock_reads_shifted)?;
        line("purges put off", &self.purges_refused)?;
        for end in &self.ends_under_faults {
            line("ended under a fault", end)?;
        }
        let settled_in = format!("{:.1} s", self.settled_in_max.as_secs_f64());
        line("settled within", &settled_in)?;
        line("lost", &self.number_of(|finding| matches!(finding, Finding::Lost(_))))?;
        line("paid twice", &self.number_of(|finding| matches!(finding, Finding::PaidTwice(_))))?;
        line("books equal", &if self.findings.is_empty() { "yes" } else { "NO" })?;
        for wrong in &self.wrongs {
            line("wrong", wrong)?;
        }
        for finding in self.findings.iter().take(FINDINGS_PRINTED_MAX) {
            line("wrong", finding)?;
        }
        let verdict = if self.is_right() { "all is right" } else { "NOT ALL IS RIGHT" };
        writeln!(formatter, "{verdict}")
    }
}
