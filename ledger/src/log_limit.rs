//! A limit on log lines, so that no fault can flood the log: in [`WINDOW`] at most [`LINES_MAX`] lines
//! from each place in the code about each of those that it can be about, and the count of those that
//! were left out.
//!
//! What happens once a day and what happens ten thousand times a second are the same line of code, so
//! the limit is on all of them, and none has to be thought of. Three things are told by the lines
//! themselves:
//!
//! - whom they are about, by a field of [`SUBJECTS`]: what one processor does leaves no line of the
//!   other one out;
//! - that each of them has the id of a payment that somebody must act on, by the target
//!   [`OF_PAYMENTS`]: of these there may be [`PAYMENT_LINES_MAX`];
//! - that they are for whoever looks for a fault (`debug`): these have no limit.
//!
//! The last line before others are left out says so. How many there were is a line of its own, before
//! the first line of any place that comes after the window, or at the end of the process
//! ([`tell_all`]): no timer wakes a process that has nothing to say.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock::Monotonic;

/// Lines from one place in the code about one subject in a window.
pub const LINES_MAX: u32 = 10;

/// As [`LINES_MAX`], of lines with the target [`OF_PAYMENTS`]: some 10 MiB an hour at most, so that no
/// disk is filled before somebody comes.
pub const PAYMENT_LINES_MAX: u32 = 1000;

/// A window begins with the first line that is written after the one before it.
pub const WINDOW: Duration = Duration::from_mins(1);

/// The target of lines each of which has the id of a payment that somebody must act on.
pub const OF_PAYMENTS: &str = "payments";

/// The fields that say whom a line is about.
pub const SUBJECTS: [&str; 3] = ["api", "database", "processor"];

/// Pairs of a place and a subject that are counted apart; with more, the lines of a place about any new
/// subject are counted together.
pub const SUBJECTS_MAX: usize = 256;

/// The target of the one event that is no line, see [`tell_all`].
const END: &str = "end_of_log";

/// Characters of a line that are repeated where those like it are counted.
const LIKE_CHARS_MAX: usize = 120;

/// Says how many lines were left out that this has not been said of. For a process that ends.
pub fn tell_all() {
    // At the level that no setting leaves out.
    tracing::error!(target: END, "");
}

/// What becomes of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Write,
    /// The last one before others are left out.
    WriteLast,
    LeaveOut,
}

/// Lines that were left out.
#[derive(PartialEq, Eq, Debug)]
struct LeftOut {
    count: u64,
    level: Level,
    /// What the last one said that was written.
    like: String,
}

/// The lines of one place in the code about one subject.
struct Lines {
    window_began: Duration,
    written_count: u32,
    left_out: LeftOut,
}

/// Those of all places that ever had one, about each subject by its hash, which is 0 for none. There
/// are as many places as the code has, and [`SUBJECTS_MAX`] bounds the rest.
struct Limiter<P> {
    lines: HashMap<(P, u64), Lines>,
    /// When the first window is over in which lines are left out.
    told_at: Option<Duration>,
}

impl<P: Hash + Eq> Limiter<P> {
    fn new() -> Self {
        Self { lines: HashMap::new(), told_at: None }
    }

    /// Judges a line of this place, `now`. What was left out before must have been taken.
    fn judge(
        &mut self,
        place: P,
        subject: u64,
        lines_max: u32,
        now: Duration,
        line: impl FnOnce() -> (Level, String),
    ) -> Verdict {
        let mut key = (place, subject);
        if self.lines.len() >= SUBJECTS_MAX && !self.lines.contains_key(&key) {
            key.1 = 0;
        }
        let nothing = || LeftOut { count: 0, level: Level::INFO, like: String::new() };
        let lines = self.lines.entry(key).or_insert_with(|| Lines {
            window_began: now,
            written_count: 0,
            left_out: nothing(),
        });
        if now.saturating_sub(lines.window_began) >= WINDOW {
            *lines = Lines { window_began: now, written_count: 0, left_out: nothing() };
        }
        if lines.written_count >= lines_max {
            lines.left_out.count += 1;
            let end = lines.window_began + WINDOW;
            self.told_at = Some(self.told_at.map_or(end, |told_at| told_at.min(end)));
            return Verdict::LeaveOut;
        }
        lines.written_count += 1;
        if lines.written_count < lines_max {
            return Verdict::Write;
        }
        (lines.left_out.level, lines.left_out.like) = line();
        Verdict::WriteLast
    }

    /// Takes what was left out in windows that are over, or in all of them.
    fn take(&mut self, now: Duration, all: bool) -> Vec<LeftOut> {
        let mut taken = Vec::new();
        if self.told_at.is_none_or(|told_at| now < told_at && !all) {
            return taken;
        }
        self.told_at = None;
        for lines in self.lines.values_mut().filter(|lines| lines.left_out.count > 0) {
            let end = lines.window_began + WINDOW;
            if all || now >= end {
                let LeftOut { count, level, like } = &mut lines.left_out;
                let count = std::mem::take(count);
                taken.push(LeftOut { count, level: *level, like: like.clone() });
            } else {
                self.told_at = Some(self.told_at.map_or(end, |told_at| told_at.min(end)));
            }
        }
        taken.sort_unstable_by(|one, other| one.like.cmp(&other.like));
        taken
    }
}

/// The hash of a line's subject, 0 where it has none.
#[derive(Default)]
struct Subject(u64);

impl Visit for Subject {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        struct Hashed(DefaultHasher);
        impl fmt::Write for Hashed {
            fn write_str(&mut self, part: &str) -> fmt::Result {
                self.0.write(part.as_bytes());
                Ok(())
            }
        }
        if SUBJECTS.contains(&field.name()) {
            let mut hashed = Hashed(DefaultHasher::new());
            self.0.hash(&mut hashed.0);
            // Nothing fails here but the value's own way to be written; then it is a part of it.
            let _ = write!(hashed, "{}={value:?}", field.name());
            self.0 = hashed.0.finish().max(1);
        }
    }
}

/// The beginning of what a line says.
#[derive(Default)]
struct Beginning(String);

impl Visit for Beginning {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let text = format!("{value:?}");
            self.0 = text.chars().take(LIKE_CHARS_MAX).collect();
            if self.0.len() < text.len() {
                self.0.push('…');
            }
        }
    }
}

/// How lines look, and how many of them there are.
pub(crate) struct Limited<F> {
    format: F,
    look: Look,
    limiter: Mutex<Limiter<Identifier>>,
    clock: Monotonic,
}

#[derive(Clone, Copy)]
enum Look {
    Text,
    Json,
}

impl<F> Limited<F> {
    /// Lines of text.
    pub(crate) fn text(format: F) -> Self {
        Self::new(format, Look::Text)
    }

    /// Lines that are JSON objects.
    pub(crate) fn json(format: F) -> Self {
        Self::new(format, Look::Json)
    }

    fn new(format: F, look: Look) -> Self {
        Self { format, look, limiter: Mutex::new(Limiter::new()), clock: Monotonic::start() }
    }

    /// The counts; none where this thread panics while it has them, as over the text of a line.
    fn limiter(&self) -> Option<MutexGuard<'_, Limiter<Identifier>>> {
        // A panic while they were held leaves at worst a count that is off by one.
        if !std::thread::panicking() {
            return Some(self.limiter.lock().unwrap_or_else(PoisonError::into_inner));
        }
        match self.limiter.try_lock() {
            Ok(limiter) => Some(limiter),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// What becomes of a line, and what is to be told before it.
    fn judge(&self, event: &Event<'_>) -> (Verdict, Vec<LeftOut>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return (Verdict::Write, Vec::new());
        }
        let now = self.clock.elapsed();
        let Some(mut limiter) = self.limiter() else { return (Verdict::Write, Vec::new()) };
        if metadata.target() == END {
            return (Verdict::LeaveOut, limiter.take(now, true));
        }
        let left_out = limiter.take(now, false);
        let mut subject = Subject::default();
        event.record(&mut subject);
        let lines_max =
            if metadata.target() == OF_PAYMENTS { PAYMENT_LINES_MAX } else { LINES_MAX };
        let verdict = limiter.judge(metadata.callsite(), subject.0, lines_max, now, || {
            let mut beginning = Beginning::default();
            event.record(&mut beginning);
            (*metadata.level(), beginning.0)
        });
        (verdict, left_out)
    }
}

impl Look {
    /// How a line ends.
    fn end(self) -> &'static str {
        match self {
            Self::Text => "\n",
            Self::Json => "}\n",
        }
    }

    /// How the last line ends before others are left out.
    fn last_end(self) -> String {
        let seconds = WINDOW.as_secs();
        match self {
            Self::Text => format!(" (more lines like this are left out for {seconds} s)\n"),
            Self::Json => format!(",\"left_out_for_s\":{seconds}}}\n"),
        }
    }

    /// Writes a line that says how many were left out.
    fn tell(self, left_out: &LeftOut, writer: &mut Writer<'_>) -> fmt::Result {
        let LeftOut { count, level, like } = left_out;
        let were = if *count == 1 { "line like this was" } else { "lines like this were" };
        let words = format!("{count} {were} left out: {like}");
        let mut at = String::new();
        SystemTime.format_time(&mut Writer::new(&mut at))?;
        match self {
            Self::Text => writeln!(writer, "{at} {level:>5} {words}"),
            Self::Json => {
                let message = sonic_rs::to_string(&words).map_err(|_| fmt::Error)?;
                writeln!(
                    writer,
                    "{{\"timestamp\":\"{at}\",\"level\":\"{level}\",\"message\":{message},\"left_out\":{count}}}"
                )
            }
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (verdict, left_out) = self.judge(event);
        for left_out in &left_out {
            self.look.tell(left_out, &mut writer)?;
        }
        match verdict {
            Verdict::Write => self.format.format_event(context, writer, event),
            Verdict::LeaveOut => Ok(()),
            Verdict::WriteLast => {
                let mut line = String::new();
                self.format.format_event(context, Writer::new(&mut line), event)?;
                let line = line.strip_suffix(self.look.end()).unwrap_or(&line);
                write!(writer, "{line}{}", self.look.last_end())
            }
        }
    }
}

#[cfg(test)]
#[path = "log_limit_tests.rs"]
mod tests;
