//! Short turns on a core, for daemons that somebody waits for.
//!
//! Linux (since 6.6) gives each thread a slice of time, some 1.4 ms on two cores, in which none that wakes takes the core
//! from it.
//! A thread may ask for a shorter one, without any privilege (`sched_setattr(2)`, `sched_runtime` of
//! `SCHED_OTHER`, Linux 6.12 and newer). It then takes the core from one with a longer slice as soon as it
//! wakes, and gives it up sooner itself. Its share of the cores stays the same.

use std::io;
use std::time::Duration;

use rustix::process::getpriority_process;
use thread_priority::unix::set_thread_priority_and_policy;
use thread_priority::{
    DeadlineFlags, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
};

/// The slice: a few times what a request takes.
const SLICE: Duration = Duration::from_micros(300);

/// `SCHED_FLAG_KEEP_POLICY` of the kernel: the policy stays what it is.
const KEEP_POLICY: DeadlineFlags = DeadlineFlags::from_bits_retain(0x08);

/// The calling thread, for the kernel.
const THIS_THREAD: usize = 0;

/// Asks the kernel for short slices for the calling thread, and for those that it starts from now on. A kernel
/// that knows nothing of them changes nothing, and so does this where the operator has given the process a
/// niceness of its own.
pub fn take_short_turns() {
    match ask() {
        Ok(true) => {}
        Ok(false) => tracing::debug!("with a niceness of its own, this keeps its slices of time"),
        Err(error) => tracing::debug!("the kernel gives no short slices of time: {error}"),
    }
}

/// False where the niceness is not to be touched.
fn ask() -> io::Result<bool> {
    // A slice is set together with a niceness, which is 0 here.
    if getpriority_process(None)? != 0 {
        return Ok(false);
    }
    let priority = ThreadPriority::Deadline {
        runtime: SLICE,
        deadline: Duration::ZERO,
        period: Duration::ZERO,
        flags: KEEP_POLICY,
    };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Deadline);
    let asked = set_thread_priority_and_policy(THIS_THREAD as _, priority, policy);
    // What it gives is not the kernel's number.
    asked.map(|()| true).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::process::setpriority_process;

    use super::*;

    /// What there is to tell of the calling thread: its slice in nanoseconds, where the kernel tells it, its policy,
    /// and its niceness.
    fn standing() -> (Option<String>, String, i32) {
        let facts = fs::read_to_string("/proc/thread-self/sched").unwrap_or_default();
        let slice = facts.lines().find(|line| line.starts_with("se.slice "));
        let slice = slice.and_then(|line| line.rsplit(' ').next()).map(str::to_owned);
        let facts = fs::read_to_string("/proc/thread-self/stat").unwrap();
        let policy = facts.rsplit(") ").next().unwrap().split(' ').nth(38).unwrap().to_owned();
        (slice, policy, getpriority_process(None).unwrap())
    }

    fn kernel_knows_slices() -> bool {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release
            .split(|other: char| !other.is_ascii_digit())
            .map(|number| number.parse().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(6), Some(12))
    }

    #[test]
    fn turns_are_short_for_this_thread_and_those_it_starts_and_nothing_else_changes() {
        let thread = std::thread::spawn(|| {
            let (_, policy, niceness) = standing();
            match ask() {
                Ok(asked) => assert_eq!(asked, niceness == 0),
                Err(error) => return eprintln!("not checked: {error}"),
            }
            let (slice, policy_now, niceness_now) = standing();
            assert_eq!((policy_now, niceness_now), (policy, niceness));
            if niceness != 0 || slice.is_none() || !kernel_knows_slices() {
                return eprintln!("not checked: the slice, which is {slice:?}");
            }
            let started = std::thread::spawn(standing).join().unwrap();
            let asked_for = Some(SLICE.as_nanos().to_string());
            assert_eq!((slice, started.0), (asked_for.clone(), asked_for));
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_niceness_that_the_operator_has_given_stays() {
        let thread = std::thread::spawn(|| {
            // Of the calling thread alone.
            setpriority_process(None, 5).unwrap();
            let before = standing();
            assert!(!ask().unwrap());
            assert_eq!((standing(), before.2), (before.clone(), 5));
        });
        thread.join().unwrap();
    }
}
