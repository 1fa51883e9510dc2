//! Control groups, versions 1 and 2: the box that a system runs in, and exact figures of what runs
//! in a group, be it a box or a container.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger::clock::Monotonic;

/// The length of a period in which the CPU quota is counted, as Docker has it.
const PERIOD_US: u64 = 100_000;

/// Controllers that a box needs.
const CONTROLLERS: [&str; 3] = ["cpu", "cpuacct", "memory"];

/// How long a group that is still in use is waited for at its end.
const REMOVE_PATIENCE: Duration = Duration::from_secs(2);

/// How often its removal is tried.
const REMOVE_POLL: Duration = Duration::from_millis(10);

/// The limits of a box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// CPUs.
    pub cpus: f64,
    /// Bytes of memory, page cache included.
    pub memory_bytes: u64,
}

/// Why there is no box.
#[derive(Debug, thiserror::Error)]
pub enum BoxError {
    /// The kernel has no control groups with these controllers here.
    #[error("this machine has no control groups for CPU and memory")]
    NoController,
    /// A group cannot be made or set.
    #[error("cannot use the control group {path}: {cause}", path = .path.display())]
    Denied {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        cause: io::Error,
    },
}

/// What ran in a group has cost so far, or holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupUsage {
    /// CPU time.
    pub cpu: Duration,
    /// Bytes of the processes' own memory.
    pub anonymous_bytes: u64,
    /// Bytes of the page cache that is counted to the group.
    pub cache_bytes: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Time that was spent waiting because of that.
    pub throttled: Duration,
    /// Processes that were killed because memory was out.
    pub killed_out_of_memory: u64,
}

impl GroupUsage {
    /// The sum of two groups.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            anonymous_bytes: self.anonymous_bytes + other.anonymous_bytes,
            cache_bytes: self.cache_bytes + other.cache_bytes,
            throttled_periods: self.throttled_periods + other.throttled_periods,
            throttled: self.throttled + other.throttled,
            killed_out_of_memory: self.killed_out_of_memory + other.killed_out_of_memory,
        }
    }
}

/// A group, wherever it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// Version 1: a folder for each controller.
    V1 {
        /// Quota and throttling.
        cpu: PathBuf,
        /// CPU time.
        cpuacct: PathBuf,
        /// Memory.
        memory: PathBuf,
    },
    /// Version 2: one folder.
    V2(PathBuf),
}

impl Group {
    /// The group that a process is in.
    #[must_use]
    pub fn of_process(pid: u32) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        find(&mounts, &groups)
    }

    /// What ran in it has cost so far.
    ///
    /// # Errors
    /// It cannot be read, perhaps because it is gone.
    pub fn usage(&self) -> io::Result<GroupUsage> {
        match self {
            Self::V1 { cpu, cpuacct, memory } => {
                let stat = read(&cpu.join("cpu.stat"))?;
                let held = read(&memory.join("memory.stat"))?;
                let out = read(&memory.join("memory.oom_control"))?;
                let time: u64 = read(&cpuacct.join("cpuacct.usage"))?.trim().parse().unwrap_or(0);
                Ok(GroupUsage {
                    cpu: Duration::from_nanos(time),
                    anonymous_bytes: value(&held, "total_rss"),
                    cache_bytes: value(&held, "total_cache"),
                    throttled_periods: value(&stat, "nr_throttled"),
                    throttled: Duration::from_nanos(value(&stat, "throttled_time")),
                    killed_out_of_memory: value(&out, "oom_kill"),
                })
            }
            Self::V2(folder) => {
                let stat = read(&folder.join("cpu.stat"))?;
                let held = read(&folder.join("memory.stat"))?;
                let events = read(&folder.join("memory.events"))?;
                Ok(GroupUsage {
                    cpu: Duration::from_micros(value(&stat, "usage_usec")),
                    anonymous_bytes: value(&held, "anon"),
                    cache_bytes: value(&held, "file"),
                    throttled_periods: value(&stat, "nr_throttled"),
                    throttled: Duration::from_micros(value(&stat, "throttled_usec")),
                    killed_out_of_memory: value(&events, "oom_kill"),
                })
            }
        }
    }

    /// The processes in it.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let folder = match self {
            Self::V1 { cpuacct, .. } => cpuacct,
            Self::V2(folder) => folder,
        };
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// The files that a process writes `0` to so as to join it.
    #[must_use]
    pub fn join_files(&self) -> Vec<PathBuf> {
        self.folders().into_iter().map(|folder| folder.join("cgroup.procs")).collect()
    }

    fn folders(&self) -> Vec<PathBuf> {
        match self {
            Self::V1 { cpu, cpuacct, memory } => {
                let mut folders = vec![cpu.clone(), cpuacct.clone(), memory.clone()];
                // On many systems cpu and cpuacct are one hierarchy.
                folders.dedup();
                folders
            }
            Self::V2(folder) => vec![folder.clone()],
        }
    }

    fn below(&self, name: &str) -> Self {
        match self {
            Self::V1 { cpu, cpuacct, memory } => Self::V1 {
                cpu: cpu.join(name),
                cpuacct: cpuacct.join(name),
                memory: memory.join(name),
            },
            Self::V2(folder) => Self::V2(folder.join(name)),
        }
    }
}

/// A group of our own with limits. Dropping it removes it, once nothing runs in it any more.
#[derive(Debug)]
pub struct LimitBox {
    group: Group,
}

impl LimitBox {
    /// Makes a box below the group of this process, or of version 2 beside it, where a group that has
    /// processes can have none below.
    ///
    /// # Errors
    /// It may not be made.
    pub fn make(name: &str, limits: Limits) -> Result<Self, BoxError> {
        let own = Group::of_process(std::process::id()).ok_or(BoxError::NoController)?;
        let parent = match own {
            Group::V2(folder) if folder.join("cgroup.type").exists() => {
                Group::V2(folder.parent().unwrap_or(&folder).to_owned())
            }
            own => own,
        };
        if let Group::V2(folder) = &parent {
            // Where it is not allowed they may be there already; the limits below tell.
            let _ = fs::write(folder.join("cgroup.subtree_control"), "+cpu +memory");
        }
        let this = Self { group: parent.below(name) };
        for folder in this.group.folders() {
            fs::create_dir(&folder).map_err(|cause| BoxError::Denied { path: folder, cause })?;
        }
        this.limit(limits)?;
        Ok(this)
    }

    fn limit(&self, limits: Limits) -> Result<(), BoxError> {
        // A quota of a few periods' microseconds is far from the end of either type.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let quota_us = (limits.cpus * PERIOD_US as f64).round() as u64;
        match &self.group {
            Group::V1 { cpu, memory, .. } => {
                write(&cpu.join("cpu.cfs_period_us"), &PERIOD_US)?;
                write(&cpu.join("cpu.cfs_quota_us"), &quota_us)?;
                write(&memory.join("memory.limit_in_bytes"), &limits.memory_bytes)
            }
            Group::V2(folder) => {
                write(&folder.join("cpu.max"), &format!("{quota_us} {PERIOD_US}"))?;
                write(&folder.join("memory.max"), &limits.memory_bytes)
            }
        }
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }
}

impl Drop for LimitBox {
    fn drop(&mut self) {
        let clock = Monotonic::start();
        for folder in self.group.folders() {
            while fs::remove_dir(&folder).is_err_and(|error| {
                error.kind() != io::ErrorKind::NotFound && clock.elapsed() < REMOVE_PATIENCE
            }) {
                std::thread::sleep(REMOVE_POLL);
            }
        }
    }
}

/// Finds the folders of the groups that /proc/PID/cgroup names among the mounted hierarchies.
fn find(mounts: &str, groups: &str) -> Option<Group> {
    let lines: Vec<_> = groups.lines().filter_map(parts).collect();
    let v1 = CONTROLLERS.map(|controller| {
        let [_, _, path] = lines
            .iter()
            .find(|[_, controllers, _]| controllers.split(',').any(|name| name == controller))?;
        let mounted =
            mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| {
                words.get(2) == Some(&"cgroup")
                    && words.get(3).is_some_and(|has| has.split(',').any(|name| name == controller))
            })?;
        Some(Path::new(mounted[1]).join(path.trim_start_matches('/')))
    });
    if let [Some(cpu), Some(cpuacct), Some(memory)] = v1 {
        return Some(Group::V1 { cpu, cpuacct, memory });
    }
    let [_, _, path] =
        lines.iter().find(|[number, controllers, _]| *number == "0" && controllers.is_empty())?;
    let mounted = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|words| words.get(2) == Some(&"cgroup2"))?;
    Some(Group::V2(Path::new(mounted[1]).join(path.trim_start_matches('/'))))
}

/// The parts of a line of /proc/PID/cgroup: number, controllers, path.
fn parts(line: &str) -> Option<[&str; 3]> {
    let (number, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    Some([number, controllers, path])
}

fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
}

fn write(path: &Path, value: &impl ToString) -> Result<(), BoxError> {
    fs::write(path, value.to_string())
        .map_err(|cause| BoxError::Denied { path: path.to_owned(), cause })
}

/// The value of a key in a file of lines `key value`; 0 if it is not there.
fn value(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "\
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
";

    #[test]
    fn a_group_of_version_1_is_found_even_beside_an_empty_version_2() {
        let groups = "4:memory:/a/b\n2:cpu,cpuacct:/\n0::/\n";
        let together = PathBuf::from("/sys/fs/cgroup/cpu,cpuacct");
        let group = find(V1_MOUNTS, groups).unwrap();
        assert_eq!(
            group,
            Group::V1 {
                cpu: together.clone(),
                cpuacct: together,
                memory: "/sys/fs/cgroup/memory/a/b".into()
            }
        );
        assert_eq!(group.join_files().len(), 2);
    }

    #[test]
    fn a_group_of_version_2_is_found() {
        let mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        let group = find(mounts, "0::/system.slice/docker-1.scope\n").unwrap();
        assert_eq!(group, Group::V2("/sys/fs/cgroup/system.slice/docker-1.scope".into()));
        assert_eq!(find("", "0::/\n"), None);
    }

    #[test]
    fn figures_of_both_versions_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        put("cpu.stat", "usage_usec 1500\nnr_periods 9\nnr_throttled 2\nthrottled_usec 30\n");
        put("memory.stat", "anon 4096\nfile 8192\n");
        put("memory.events", "low 0\noom_kill 1\n");
        let expected = GroupUsage {
            cpu: Duration::from_micros(1500),
            anonymous_bytes: 4096,
            cache_bytes: 8192,
            throttled_periods: 2,
            throttled: Duration::from_micros(30),
            killed_out_of_memory: 1,
        };
        let path = folder.path().to_owned();
        assert_eq!(Group::V2(path.clone()).usage().unwrap(), expected);
        put("cpu.stat", "nr_periods 9\nnr_throttled 2\nthrottled_time 30000\n");
        put("memory.stat", "cache 1\nrss 1\ntotal_cache 8192\ntotal_rss 4096\n");
        put("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
        put("cpuacct.usage", "1500000\n");
        let group = Group::V1 { cpu: path.clone(), cpuacct: path.clone(), memory: path };
        assert_eq!(group.usage().unwrap(), expected);
        assert_eq!(expected.and(expected).cpu, Duration::from_millis(3));
    }

    #[test]
    fn a_box_limits_and_counts_what_runs_in_it() {
        let limits = Limits { cpus: 0.2, memory_bytes: 64 << 20 };
        let name = format!("rinha-test-unit-{}", std::process::id());
        let made = match LimitBox::make(&name, limits) {
            Ok(made) => made,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let joins: Vec<_> = made
            .group()
            .join_files()
            .iter()
            .map(|file| format!("echo 0 > {}", file.display()))
            .collect();
        // Some 100 ms of work, of which 20 ms fit into a period.
        let work = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done";
        let script = format!("{}; {work}; cat", joins.join("; "));
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", &script])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let clock = Monotonic::start();
        while made.group().usage().unwrap().throttled_periods == 0 {
            assert!(clock.elapsed() < Duration::from_secs(30), "{:?}", made.group().usage());
            std::thread::sleep(REMOVE_POLL);
        }
        assert!(made.group().pids().contains(&child.id()));
        assert!(made.group().usage().unwrap().cpu > Duration::from_millis(10));
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        let folders = made.group().folders();
        drop(made);
        assert!(folders.iter().all(|folder| !folder.exists()));
    }

    #[test]
    fn a_group_that_is_gone_is_an_error() {
        assert!(Group::V2("/nowhere".into()).usage().is_err());
        assert!(Group::V2("/nowhere".into()).pids().is_empty());
    }
}
