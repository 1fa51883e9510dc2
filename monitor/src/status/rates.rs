//! What went on between two looks.

use serde::Serialize;

use super::model::Status;

/// What an API counts, since it was started or between two looks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[allow(missing_docs)]
pub struct Counts {
    pub accepted: u64,
    /// By [`ledger::Processor::index`].
    pub settled: [u64; 2],
    pub refused: u64,
}

impl Counts {
    /// What was added since an earlier look. One that has begun anew since then counts all that it
    /// has.
    fn since(self, before: Self, is_anew: bool) -> Self {
        let fell = self.accepted < before.accepted
            || self.settled[0] < before.settled[0]
            || self.settled[1] < before.settled[1]
            || self.refused < before.refused;
        if is_anew || fell {
            return self;
        }
        Self {
            accepted: self.accepted - before.accepted,
            settled: [0, 1].map(|index: usize| self.settled[index] - before.settled[index]),
            refused: self.refused - before.refused,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            accepted: self.accepted.saturating_add(other.accepted),
            settled: [0, 1]
                .map(|index: usize| self.settled[index].saturating_add(other.settled[index])),
            refused: self.refused.saturating_add(other.refused),
        }
    }
}

/// What went on since the last look.
#[derive(Serialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Rates {
    pub accepted_per_s: f64,
    pub settled_per_s: f64,
    pub refused_per_s: f64,
}

impl Status {
    /// Adds what went on since an earlier look, `seconds` ago, at the daemons that answered both
    /// times: what another one has counted is of an unknown time. A daemon that was started in
    /// between has counted since then only.
    pub fn compare(&mut self, before: &Self, seconds: f64) {
        let mut gained: Option<Counts> = None;
        for daemon in &mut self.daemons {
            let before = before.daemons.iter().find(|other| other.name == daemon.name);
            let Some(before) = before else { continue };
            let is_anew = daemon.started_at_s != before.started_at_s;
            if let (Some(now), Some(before)) = (daemon.counts, before.counts) {
                let of_daemon = now.since(before, is_anew);
                daemon.accepted_per_s = Some(count(of_daemon.accepted) / seconds);
                gained = Some(gained.unwrap_or_default().plus(of_daemon));
            }
            daemon.cpus = daemon.cpu_s.zip(before.cpu_s).map(|(now_s, before_s)| {
                let spent_s = if is_anew || now_s < before_s { now_s } else { now_s - before_s };
                spent_s / seconds
            });
        }
        let Some(gained) = gained else { return };
        for (processor, settled) in self.processors.iter_mut().zip(gained.settled) {
            processor.settled_per_s = Some(count(settled) / seconds);
        }
        let [default, fallback] = gained.settled;
        self.rates = Some(Rates {
            accepted_per_s: count(gained.accepted) / seconds,
            settled_per_s: count(default.saturating_add(fallback)) / seconds,
            refused_per_s: count(gained.refused) / seconds,
        });
    }
}

/// A count to be reckoned with; nothing counts more than four thousand million things between two
/// looks.
fn count(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}
