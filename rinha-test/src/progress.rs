//! A line that tells how far something is: rewritten on a terminal, a new one now and then elsewhere.

use std::cell::Cell;
use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use ledger::clock::Monotonic;

/// How often the line is rewritten on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);

/// How often there is a new line elsewhere.
const FILE_INTERVAL: Duration = Duration::from_secs(5);

pub(crate) struct Progress {
    clock: Monotonic,
    next: Cell<Duration>,
    is_terminal: bool,
    shown: Cell<bool>,
}

impl Progress {
    pub(crate) fn start() -> Self {
        let is_terminal = stderr().is_terminal();
        let first = if is_terminal { TERMINAL_INTERVAL } else { FILE_INTERVAL };
        Self {
            clock: Monotonic::start(),
            next: Cell::new(first),
            is_terminal,
            shown: Cell::new(false),
        }
    }

    pub(crate) fn show(&self, what: &str, count: u64, goal: u64) {
        self.line(&format!("{what} {count} of {goal}"));
    }

    pub(crate) fn line(&self, text: &str) {
        let now = self.clock.elapsed();
        if now < self.next.get() {
            return;
        }
        // A progress that cannot be shown stops nothing.
        let _ = if self.is_terminal {
            self.next.set(now + TERMINAL_INTERVAL);
            self.shown.set(true);
            write!(stderr(), "\r\x1b[K{text}")
        } else {
            self.next.set(now + FILE_INTERVAL);
            writeln!(stderr(), "{text}")
        };
    }

    pub(crate) fn end(&self) {
        if self.shown.get() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
