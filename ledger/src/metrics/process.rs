//! What the operating system knows of this process, under the names that every process has in
//! Prometheus.

use std::fs;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};

use super::page::Page;

/// What is known of a process, as far as the operating system tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessFacts {
    /// CPU time, of all threads.
    pub cpu: Duration,
    /// When it was started, since the machine was.
    pub started: Duration,
    /// Memory of it that is resident, in bytes.
    pub resident_bytes: u64,
}

impl ProcessFacts {
    /// Reads what `/proc/PID/stat` says.
    fn of_stat(stat: &str) -> Option<Self> {
        // The name of the program comes first, in brackets, and may have anything in it.
        let (_, after_name) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = after_name.split(' ').collect();
        // The third field of the line is the first one here.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = |count: u64| {
            Duration::from_millis(count.saturating_mul(1000) / clock_ticks_per_second().max(1))
        };
        Some(Self {
            cpu: ticks(field(14)? + field(15)?),
            started: ticks(field(22)?),
            resident_bytes: field(24)?.saturating_mul(page_size() as u64),
        })
    }
}

/// Tells of this process. `booted` is when the machine was started, since 1970. What the operating system
/// does not tell is left out.
pub fn add_process(page: &mut Page, booted: Option<Duration>) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(facts) = ProcessFacts::of_stat(&stat) {
        let help = "Total user and system CPU time spent in seconds.";
        page.counter("process_cpu_seconds", help, facts.cpu);
        let help = "Resident memory size in bytes.";
        page.gauge("process_resident_memory_bytes", help, facts.resident_bytes);
        if let Some(booted) = booted {
            let help = "Start time of the process since unix epoch in seconds.";
            page.gauge("process_start_time_seconds", help, booted + facts.started);
        }
    }
    if let Some(count) = open_descriptors() {
        page.gauge("process_open_fds", "Number of open file descriptors.", count);
    }
}

/// When the machine was started, since 1970.
pub(super) fn booted() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(Duration::from_secs(seconds.trim().parse().ok()?))
}

/// Linux 6.2 and later tell the number as the size of the folder, before that they are counted.
fn open_descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match fs::metadata(FOLDER).ok()?.len() {
        // The descriptor of the folder itself is one of those that are listed.
        0 => Some((fs::read_dir(FOLDER).ok()?.count() as u64).saturating_sub(1)),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_shifts_nothing() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 12345 9999 7 0";
        let facts = ProcessFacts::of_stat(stat).unwrap();
        let tick_ms = 1000 / clock_ticks_per_second();
        assert_eq!(facts.cpu, Duration::from_millis(300 * tick_ms));
        assert_eq!(facts.started, Duration::from_millis(12345 * tick_ms));
        assert_eq!(facts.resident_bytes, 7 * page_size() as u64);
        assert_eq!(ProcessFacts::of_stat("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_descriptors_and_a_start_that_has_passed() {
        let mut page = Page::default();
        add_process(&mut page, booted());
        let text = page.text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 1e6, "{text}");
        assert!(value("process_open_fds ") >= 3.0, "{text}");
        let now_s = crate::clock::now().get() / 1000;
        let start_s = value("process_start_time_seconds ");
        // The boot time is told in whole seconds, so it may be off by one.
        let age_s = Duration::from_secs(now_s.try_into().unwrap()).as_secs_f64() - start_s;
        assert!((-2.0..86_400.0).contains(&age_s), "{age_s}");
    }
}
