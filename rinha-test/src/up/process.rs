//! One process of the system: what it is, how it is started, and how it ended.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use ledger::clock::Monotonic;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};

use super::child::SUBCOMMAND;
use super::supervisor::Keeping;

/// How long the last words of an ended process are waited for. They are read at once, unless
/// something that the process started still holds its output open.
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);

/// How often the last words are looked for.
const LAST_WORDS_POLL: Duration = Duration::from_millis(2);

/// A process that the system consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSpec {
    /// Its name, in the log and in the name of its pid file.
    pub name: String,
    /// Its program.
    pub program: PathBuf,
    /// The arguments.
    pub arguments: Vec<OsString>,
    /// Processes of a higher stage are stopped before those of a lower one.
    pub stage: u8,
    /// The socket that it creates once it can be talked to, for the sake of those started next.
    pub socket: Option<PathBuf>,
}

/// A process that was started and whose end was not yet taken notice of, so that its pid is its
/// own for as long as this value lives.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pid: Pid,
    /// When it was started, by the supervisor's clock.
    pub(super) started: Duration,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The rest of a sentence, see [`describe_end`].
    pub(super) text: String,
    /// Its exit code, if it had one.
    pub(super) code: Option<i32>,
}

impl Running {
    /// Starts a process through the `child` subcommand. When it has ended and its
    /// last words are in the log, `ended` is called from another thread.
    ///
    /// The death signal of a child is sent when the *thread* that started it ends, so this must
    /// be called on one that lives as long as the runner.
    pub(super) fn start(
        spec: &ProcessSpec,
        place: usize,
        keeping: &Keeping,
        started: Duration,
        ended: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (output, input) = io::pipe()?;
        // A group of its own, so that Ctrl-C on the terminal reaches the runner alone.
        let joins = keeping.join.iter().flat_map(|file| [OsStr::new("--join"), file.as_os_str()]);
        let child = Command::new(&keeping.launcher)
            .arg(SUBCOMMAND)
            .arg("--runner")
            .arg(std::process::id().to_string())
            .args(joins)
            .arg("--")
            .arg(&spec.program)
            .args(&spec.arguments)
            .stdin(Stdio::null())
            .stdout(input.try_clone()?)
            .stderr(input)
            .process_group(0)
            .spawn()?;
        let running = Self { pid: Pid::from_child(&child), child, started };
        let pid = running.pid;
        let watch = || -> io::Result<()> {
            let words = keeping.log.follow(&spec.name, place, output)?;
            std::thread::Builder::new().name(format!("wait {}", spec.name)).spawn(move || {
                wait_for_end(pid);
                wait_for_last_words(&words);
                ended();
            })?;
            Ok(())
        };
        match watch() {
            Ok(()) => Ok(running),
            Err(error) => {
                running.kill_group();
                running.reap();
                Err(error)
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process.
    pub(super) fn signal(&self, signal: Signal) {
        // It can only fail for a process that has ended, and that is noticed elsewhere.
        let _ = kill_process(self.pid, signal);
    }

    /// Kills the process and all that it started.
    pub(super) fn kill_group(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
        // It may have left its group; whoever waits for its end must not wait for ever.
        self.signal(Signal::KILL);
    }

    /// Takes notice of the end, and tells how it came. Blocks until there is one.
    pub(super) fn reap(mut self) -> End {
        match self.child.wait() {
            Ok(status) => End { text: describe_end(status), code: status.code() },
            Err(error) => End { text: format!("ended, nobody knows how: {error}"), code: None },
        }
    }
}

/// Waits until a process has ended, and leaves its pid taken until it is reaped.
fn wait_for_end(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while matches!(waitid(WaitId::Pid(pid), options), Err(Errno::INTR)) {}
}

fn wait_for_last_words(words: &JoinHandle<()>) {
    let clock = Monotonic::start();
    while !words.is_finished() && clock.elapsed() < LAST_WORDS_MAX {
        std::thread::sleep(LAST_WORDS_POLL);
    }
}

/// How a process ended, as the rest of a sentence: `ended with exit code 1`.
#[must_use]
pub fn describe_end(status: ExitStatus) -> String {
    let Some(number) = status.signal() else {
        let code = status.code().unwrap_or_default();
        return format!("ended with exit code {code}");
    };
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return format!("was ended by signal {number}"),
    };
    format!("was ended by signal {number} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_by_its_code_or_its_signal() {
        let end = |raw| describe_end(ExitStatus::from_raw(raw));
        assert_eq!(end(0), "ended with exit code 0");
        assert_eq!(end(70 << 8), "ended with exit code 70");
        assert_eq!(end(9), "was ended by signal 9 (SIGKILL)");
        assert_eq!(end(40), "was ended by signal 40");
    }
}
