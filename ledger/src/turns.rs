//! Short turns on a core, for daemons that somebody waits for.
//!
//! Linux gives each thread a slice of time, 1.4 ms on two cores, in which none that wakes takes the core from it.
//! A thread may ask for a shorter one, without any privilege (`sched_setattr(2)`, `sched_runtime` of
//! `SCHED_OTHER`, Linux 6.12 and newer). It then takes the core from one with a longer slice as soon as it
//! wakes, and gives it up sooner itself. Its share of the cores stays the same.

use std::time::Duration;

use rustix::process::getpriority_process;
use thread_priority::unix::set_thread_priority_and_policy;
use thread_priority::{
    DeadlineFlags, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
};

/// The slice: a few times what a request takes.
const SLICE: Duration = Duration::from_micros(300);

/// `SCHED_FLAG_KEEP_POLICY` of the kernel: of what is asked for, the slice is taken alone.
const KEEP_POLICY: DeadlineFlags = DeadlineFlags::from_bits_retain(0x08);

/// The calling thread, for the kernel.
const THIS_THREAD: usize = 0;

/// Asks the kernel for short slices for the calling thread, and for those that it starts from now on. A kernel
/// that knows nothing of them changes nothing, and so does this where the operator has given the process a
/// priority of its own.
pub fn take_short_turns() {
    // A slice is set together with the niceness, of which this would make nothing.
    if getpriority_process(None).ok() != Some(0) {
        return;
    }
    let priority = ThreadPriority::Deadline {
        runtime: SLICE,
        deadline: Duration::ZERO,
        period: Duration::ZERO,
        flags: KEEP_POLICY,
    };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Deadline);
    if let Err(error) = set_thread_priority_and_policy(THIS_THREAD as _, priority, policy) {
        tracing::debug!("the kernel gives no short slices of time: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The slice in nanoseconds, where the kernel tells it.
    fn slice() -> Option<String> {
        let facts = fs::read_to_string("/proc/thread-self/sched").ok()?;
        let line = facts.lines().find(|line| line.starts_with("se.slice "))?;
        line.rsplit(' ').next().map(str::to_owned)
    }

    fn policy() -> String {
        let facts = fs::read_to_string("/proc/thread-self/stat").unwrap();
        facts.rsplit(") ").next().unwrap().split(' ').nth(38).unwrap().to_owned()
    }

    fn kernel() -> (u32, u32) {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(['.', '-']).map(|number| number.trim().parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    #[test]
    fn turns_are_short_for_this_thread_and_those_it_starts_and_nothing_else_changes() {
        let told = std::thread::spawn(|| {
            let before = (policy(), getpriority_process(None).unwrap());
            take_short_turns();
            assert_eq!((policy(), getpriority_process(None).unwrap()), before);
            let started = std::thread::spawn(slice).join().unwrap();
            (slice(), started)
        });
        let told = told.join().unwrap();
        if let (Some(own), Some(started)) = &told
            && kernel() >= (6, 12)
        {
            let asked_for = SLICE.as_nanos().to_string();
            assert_eq!((own, started), (&asked_for, &asked_for));
        }
    }
}
