//! What a process has cost so far, by /proc.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The kernel counts CPU time for users of /proc in hundredths of a second (`USER_HZ`), on all
/// architectures that Linux runs a router on.
const TICK: Duration = Duration::from_millis(10);

/// A process at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Its pid.
    pub pid: u32,
    /// Its command's name.
    pub name: String,
    /// CPU time of all its threads, ended ones included.
    pub cpu: Duration,
    /// Bytes of its own memory.
    pub anonymous_bytes: u64,
    /// Bytes of files that it has mapped, its program among them; other processes share them.
    pub file_bytes: u64,
}

/// Reads what a process costs; nothing if there is none with this pid.
#[must_use]
pub fn usage(pid: u32) -> Option<ProcessUsage> {
    let folder = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let (name, cpu) = parse_stat(&stat)?;
    let name = full_name(&folder).unwrap_or(name);
    Some(ProcessUsage {
        pid,
        name,
        cpu,
        anonymous_bytes: kilobytes(&status, "RssAnon:").unwrap_or_default(),
        file_bytes: kilobytes(&status, "RssFile:").unwrap_or_default()
            + kilobytes(&status, "RssShmem:").unwrap_or_default(),
    })
}

/// All processes that descend from these, and these themselves.
#[must_use]
pub fn family(roots: &[u32]) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    for folder in folders {
        let Some(pid) = folder.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(folder.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parse_parent(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut family = roots.to_vec();
    let mut place = 0;
    while let Some(pid) = family.get(place) {
        family.extend(children.remove(pid).unwrap_or_default());
        place += 1;
    }
    family
}

/// The name that tells two processes of one program apart, where there is such a one: an option
/// `--instance N` of their command line.
fn full_name(folder: &Path) -> Option<String> {
    let line = fs::read(folder.join("cmdline")).ok()?;
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let program = Path::new(words.first()?.as_ref()).file_name()?.to_str()?.to_owned();
    let place = words.iter().position(|word| word == "--instance")?;
    Some(format!("{program}-{}", words.get(place + 1)?))
}

/// The fields of /proc/PID/stat after the name, which may hold anything.
fn fields(stat: &str) -> Option<(&str, Vec<&str>)> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    Some((name, tail.split_ascii_whitespace().collect()))
}

fn parse_stat(stat: &str) -> Option<(String, Duration)> {
    let (name, fields) = fields(stat)?;
    let ticks = |place: usize| fields.get(place)?.parse::<u32>().ok();
    // utime and stime are the 14th and 15th field, the first here is the third.
    Some((name.to_owned(), TICK * (ticks(11)? + ticks(12)?)))
}

fn parse_parent(stat: &str) -> Option<u32> {
    let (_, fields) = fields(stat)?;
    fields.get(1)?.parse().ok()
}

fn kilobytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 3 7 7 0 -1 4194304 1 2 3 4 150 50 9 9 20 0 1 0 5";
        assert_eq!(parse_stat(stat), Some(("a) b (c".to_owned(), Duration::from_secs(2))));
        assert_eq!(parse_parent(stat), Some(3));
        assert_eq!(kilobytes("RssAnon:\t    12 kB\nRssFile:\t 8 kB\n", "RssFile:"), Some(8192));
    }

    #[test]
    fn this_process_and_its_children_are_found() {
        let own = std::process::id();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let usage = usage(own).unwrap();
        assert!(usage.anonymous_bytes > 0 && usage.file_bytes > 0, "{usage:?}");
        assert!(family(&[own]).contains(&child.id()));
        assert!(!family(&[child.id()]).contains(&own));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
