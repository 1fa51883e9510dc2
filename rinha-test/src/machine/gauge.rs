//! What the system under test costs, wherever it runs.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::cgroup::{Group, GroupUsage};
use super::process::{self, ProcessUsage};

/// Where the figures come from.
#[derive(Clone, Debug)]
pub enum Gauge {
    /// Control groups by name: a box, or one for each container. Exact.
    Groups(Vec<(String, Group)>),
    /// Processes and all that they started. Those that ended are not counted.
    Processes(Vec<u32>),
    /// Nothing can be known.
    Nothing,
}

/// Figures at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// CPU time and memory of it all.
    pub total: GroupUsage,
    /// Those of each group, in their order.
    pub groups: Vec<(String, GroupUsage)>,
    /// The processes.
    pub processes: Vec<ProcessUsage>,
}

impl Gauge {
    /// Reads the figures; nothing where nothing can be known.
    #[must_use]
    pub fn read(&self) -> Option<Reading> {
        match self {
            Self::Groups(groups) => {
                let usage = |(name, group): &(String, Group)| Ok((name.clone(), group.usage()?));
                let groups_now: io::Result<Vec<_>> = groups.iter().map(usage).collect();
                let groups_now = groups_now.ok()?;
                let pids = groups.iter().flat_map(|(_, group)| group.pids());
                Some(Reading {
                    total: groups_now
                        .iter()
                        .fold(GroupUsage::default(), |sum, (_, usage)| sum.and(*usage)),
                    processes: pids.filter_map(process::usage).collect(),
                    groups: groups_now,
                })
            }
            Self::Processes(roots) => {
                let family = process::family(roots);
                let processes: Vec<_> = family.into_iter().filter_map(process::usage).collect();
                let total = GroupUsage {
                    cpu: processes.iter().map(|process| process.cpu).sum(),
                    anonymous_bytes: processes.iter().map(|p| p.anonymous_bytes).sum(),
                    ..GroupUsage::default()
                };
                Some(Reading { total, processes, ..Reading::default() })
            }
            Self::Nothing => None,
        }
    }

    /// Whether throttling and page cache are known.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(self, Self::Groups(_))
    }
}

/// The most that a process had at any reading.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct ProcessPeak {
    /// Its name.
    pub name: String,
    /// Bytes of its own memory.
    pub anonymous_bytes: u64,
    /// Bytes of mapped files.
    pub file_bytes: u64,
    /// Seconds of CPU, from the first reading on.
    pub cpu_s: f64,
}

/// What a group cost since the first reading, and the most that it had at any.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct GroupPeak {
    /// Its name.
    pub name: String,
    /// Bytes of memory of its processes' own.
    pub anonymous_bytes: u64,
    /// Bytes of memory with the page cache, which its limit counts.
    pub memory_bytes: u64,
    /// Seconds of CPU.
    pub cpu_s: f64,
    /// Periods in which its quota was used up.
    pub throttled_periods: u64,
}

/// Keeps the peaks.
#[derive(Clone, Debug, Default)]
pub struct Peaks {
    /// Of the whole.
    pub total: GroupUsage,
    /// Of the whole, with the page cache: the most at any moment, not the sum of two peaks.
    pub memory_bytes: u64,
    groups: Vec<(GroupPeak, GroupUsage)>,
    processes: BTreeMap<u32, (ProcessPeak, Duration)>,
}

impl Peaks {
    /// Takes in a reading.
    pub fn see(&mut self, reading: &Reading) {
        let GroupUsage { anonymous_bytes, cache_bytes, .. } = reading.total;
        self.memory_bytes = self.memory_bytes.max(anonymous_bytes + cache_bytes);
        for (place, (name, usage)) in reading.groups.iter().enumerate() {
            if self.groups.len() == place {
                let peak = GroupPeak { name: name.clone(), ..GroupPeak::default() };
                self.groups.push((peak, *usage));
            }
            let (peak, begun) = &mut self.groups[place];
            peak.anonymous_bytes = peak.anonymous_bytes.max(usage.anonymous_bytes);
            peak.memory_bytes = peak.memory_bytes.max(usage.anonymous_bytes + usage.cache_bytes);
            peak.cpu_s = usage.cpu.saturating_sub(begun.cpu).as_secs_f64();
            peak.throttled_periods =
                usage.throttled_periods.saturating_sub(begun.throttled_periods);
        }
        self.total.anonymous_bytes = self.total.anonymous_bytes.max(anonymous_bytes);
        self.total.cache_bytes = self.total.cache_bytes.max(cache_bytes);
        for process in &reading.processes {
            let first = || (ProcessPeak::default(), process.cpu);
            let (peak, begun) = self.processes.entry(process.pid).or_insert_with(first);
            peak.name.clone_from(&process.name);
            peak.anonymous_bytes = peak.anonymous_bytes.max(process.anonymous_bytes);
            peak.file_bytes = peak.file_bytes.max(process.file_bytes);
            peak.cpu_s = process.cpu.saturating_sub(*begun).as_secs_f64();
        }
    }

    /// The groups, in their order.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupPeak> {
        self.groups.iter().map(|(peak, _)| peak.clone()).collect()
    }

    /// The processes that were seen, by name.
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessPeak> {
        let mut peaks: Vec<_> = self.processes.values().map(|(peak, _)| peak.clone()).collect();
        peaks.sort_by(|one, other| one.name.cmp(&other.name));
        peaks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(anonymous: u64, cpu_ms: u64) -> Reading {
        let cpu = Duration::from_millis(cpu_ms);
        let throttled_periods = cpu_ms / 100;
        let total = GroupUsage {
            cpu,
            anonymous_bytes: anonymous,
            cache_bytes: 10 - anonymous,
            throttled_periods,
            ..GroupUsage::default()
        };
        let process = ProcessUsage {
            pid: 7,
            name: "api".to_owned(),
            cpu,
            anonymous_bytes: anonymous,
            file_bytes: 1,
        };
        Reading { total, groups: vec![("api".to_owned(), total)], processes: vec![process] }
    }

    #[test]
    fn the_most_of_all_readings_is_kept() {
        let mut peaks = Peaks::default();
        for (anonymous, cpu) in [(5, 100), (9, 300), (3, 600)] {
            peaks.see(&reading(anonymous, cpu));
        }
        assert_eq!(peaks.total.anonymous_bytes, 9);
        let [process] = &peaks.processes()[..] else { panic!() };
        assert_eq!((process.anonymous_bytes, process.name.as_str()), (9, "api"));
        assert!((process.cpu_s - 0.5).abs() < 1e-9);
        let [group] = &peaks.groups()[..] else { panic!() };
        assert_eq!((group.anonymous_bytes, group.memory_bytes), (9, 10));
        assert_eq!((group.name.as_str(), group.throttled_periods), ("api", 5));
        assert!((group.cpu_s - 0.5).abs() < 1e-9);
        // Own memory and page cache have their peaks at different moments.
        assert_eq!((peaks.memory_bytes, peaks.total.cache_bytes), (10, 7));
    }

    #[test]
    fn this_process_can_be_gauged() {
        let reading = Gauge::Processes(vec![std::process::id()]).read().unwrap();
        assert!(reading.total.anonymous_bytes > 0);
        assert_eq!(Gauge::Nothing.read(), None);
    }
}
