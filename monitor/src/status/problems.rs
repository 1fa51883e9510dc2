//! What is not well with a router, in a sentence each.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::model::{CLOSED, DatabaseStatus, ProcessorStatus, STORE, Status, UNKNOWN};

/// Payments that wait for longer make the router degraded, in seconds. It is what a payment may
/// wait for the cheaper processor unless set otherwise.
pub const BACKLOG_AGE_MAX_S: f64 = 30.0;

/// A store that is further behind the journals makes the router degraded, in records.
pub const BEHIND_RECORDS_MAX: u64 = 100_000;

/// An archive or a shared ledger that is further behind the journals makes the router degraded, in seconds.
pub const ARCHIVE_LAG_MAX_S: f64 = 300.0;

impl Status {
    /// All of it.
    pub(super) fn problems(&self, facts: Facts<'_>) -> Vec<String> {
        let mut problems: Vec<String> = Vec::new();
        for daemon in &self.daemons {
            if let Some(why) = &daemon.why {
                problems.push(format!("{} is down: {why}", daemon.name));
            }
        }
        if !self.daemons.is_empty() {
            if self.apis.known == 0 {
                problems.push("no API is known".to_owned());
            }
            if !self.daemons.iter().any(|daemon| daemon.name == STORE) {
                problems.push("no store is known".to_owned());
            }
        }
        for api in facts.zero_at("router_accepting", &[]) {
            problems
                .push(format!("{api} takes no payments: its journal cannot be written or synced"));
        }
        let by_api = |family| {
            let samples = facts.samples(family, &[]);
            samples.filter_map(|(api, sample)| Some((api, sample.value.parse::<u64>().ok()?)))
        };
        let backlogs: BTreeMap<_, _> = by_api("router_backlog_payments").collect();
        for (api, limit) in by_api("router_backlog_limit_payments") {
            if backlogs.get(api).is_some_and(|backlog| *backlog >= limit) {
                problems.push(format!("{api} takes no payments: its backlog is at --backlog-max"));
            }
        }
        for api in facts.zero_at("router_store_connected", &[]) {
            problems.push(format!("{api} is not connected to the store"));
        }
        for (_, sample) in facts.samples("router_lb_api_alive", &[]) {
            if sample.value == "0" {
                let api = sample.label("api").unwrap_or_default();
                problems.push(format!("the balancer passes {api} over: it is away or ending"));
            }
        }
        for processor in &self.processors {
            // A breaker closes with the next call that succeeds, which there is not while nothing
            // is to be sent: then it is no problem.
            let matters = processor.failing == Some(true) || self.backlog() > 0;
            if matters && !matches!(processor.breaker, CLOSED | UNKNOWN) {
                let ProcessorStatus { name, breaker, .. } = processor;
                problems.push(format!("the breaker of the {name} processor is {breaker}"));
            }
        }
        let oldest_age_s = self.payments.as_ref().map_or(0.0, |payments| payments.oldest_age_s);
        if oldest_age_s > BACKLOG_AGE_MAX_S {
            problems.push(format!("a payment has waited for {oldest_age_s:.0} s"));
        }
        if let Some(records) = self.records_behind().filter(|_| self.is_behind()) {
            problems.push(format!("the store is {records} records behind the journals"));
        }
        match &self.archive {
            Some(DatabaseStatus { connected: false, .. }) => problems.push(
                "nothing is archived: the database is away, or the archive has ended".to_owned(),
            ),
            Some(DatabaseStatus { lag_s, .. }) if *lag_s > ARCHIVE_LAG_MAX_S => {
                problems.push(format!("the archive is {lag_s:.0} s behind the journals"));
            }
            _ => {}
        }
        match &self.ledger {
            Some(DatabaseStatus { connected: false, .. }) => {
                problems.push("no payment is sent: the shared ledger cannot be asked".to_owned());
            }
            Some(DatabaseStatus { lag_s, .. }) if *lag_s > ARCHIVE_LAG_MAX_S => {
                problems.push(format!("the shared ledger is {lag_s:.0} s behind the journals"));
            }
            _ => {}
        }
        problems
    }
}
