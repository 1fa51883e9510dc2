//! A limit on log lines, so that no fault can flood the log: from each place in the code at most
//! [`LINES_MAX`] lines in [`WINDOW`], and the count of those that were left out.
//!
//! What happens once a day and what happens ten thousand times a second are the same line of code, so
//! the limit is on all of them, and none has to be thought of. Lines for whoever looks for a fault
//! (`debug`) have none. The last line before others are left out says so, and the first one after
//! them says how many there were; metrics count what is counted in any case.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock::Monotonic;

/// Lines from one place in the code in a window.
pub const LINES_MAX: u32 = 10;

/// A window begins with the first line that is written after the one before it.
pub const WINDOW: Duration = Duration::from_mins(1);

/// What becomes of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Write,
    /// The last one before others are left out.
    WriteLast,
    /// The first one after so many were left out.
    WriteAfter(u64),
    LeaveOut,
}

/// The lines of one place in the code.
struct Lines {
    window_began: Duration,
    written_count: u32,
    left_out_count: u64,
}

/// The lines of all places that ever had one. There are as many as the code has.
struct Limiter<K> {
    places: HashMap<K, Lines>,
}

impl<K: Hash + Eq> Limiter<K> {
    fn new() -> Self {
        Self { places: HashMap::new() }
    }

    /// Judges a line of this place, `now`.
    fn judge(&mut self, place: K, now: Duration) -> Verdict {
        let new = || Lines { window_began: now, written_count: 0, left_out_count: 0 };
        let lines = self.places.entry(place).or_insert_with(new);
        if now.saturating_sub(lines.window_began) >= WINDOW {
            let left_out_count = lines.left_out_count;
            *lines = Lines { written_count: 1, ..new() };
            return match left_out_count {
                0 => Verdict::Write,
                count => Verdict::WriteAfter(count),
            };
        }
        if lines.written_count == LINES_MAX {
            lines.left_out_count += 1;
            return Verdict::LeaveOut;
        }
        lines.written_count += 1;
        if lines.written_count == LINES_MAX { Verdict::WriteLast } else { Verdict::Write }
    }
}

/// How lines look, and how many of them there are.
pub(crate) struct Limited<F> {
    format: F,
    note: fn(Verdict) -> String,
    limiter: Mutex<Limiter<Identifier>>,
    clock: Monotonic,
}

impl<F> Limited<F> {
    /// Lines of text.
    pub(crate) fn text(format: F) -> Self {
        Self::new(format, text_note)
    }

    /// Lines that are JSON objects.
    pub(crate) fn json(format: F) -> Self {
        Self::new(format, json_note)
    }

    fn new(format: F, note: fn(Verdict) -> String) -> Self {
        Self { format, note, limiter: Mutex::new(Limiter::new()), clock: Monotonic::start() }
    }

    fn judge(&self, event: &Event<'_>) -> Verdict {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return Verdict::Write;
        }
        // A panic while it was held leaves at worst a count that is off by one.
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.judge(metadata.callsite(), self.clock.elapsed())
    }
}

/// What is put in the place of the end of a line.
fn text_note(verdict: Verdict) -> String {
    match verdict {
        Verdict::WriteLast => {
            format!(" (more lines like this are left out for {} s)\n", WINDOW.as_secs())
        }
        Verdict::WriteAfter(1) => " (1 line like this was left out before it)\n".to_owned(),
        Verdict::WriteAfter(count) => {
            format!(" ({count} lines like this were left out before it)\n")
        }
        Verdict::Write | Verdict::LeaveOut => "\n".to_owned(),
    }
}

/// What is put in the place of the end of an object.
fn json_note(verdict: Verdict) -> String {
    match verdict {
        Verdict::WriteLast => format!(",\"left_out_for_s\":{}}}\n", WINDOW.as_secs()),
        Verdict::WriteAfter(count) => format!(",\"left_out_before\":{count}}}\n"),
        Verdict::Write | Verdict::LeaveOut => "}\n".to_owned(),
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
        let verdict = self.judge(event);
        match verdict {
            Verdict::Write => self.format.format_event(context, writer, event),
            Verdict::LeaveOut => Ok(()),
            Verdict::WriteLast | Verdict::WriteAfter(_) => {
                let mut line = String::new();
                self.format.format_event(context, Writer::new(&mut line), event)?;
                let end = (self.note)(Verdict::Write);
                let line = line.strip_suffix(&end).unwrap_or(&line);
                write!(writer, "{line}{}", (self.note)(verdict))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing_subscriber::fmt::format;
    use tracing_subscriber::fmt::format::JsonFields;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn of_a_flood_the_first_lines_are_written_and_the_next_window_says_how_many_are_missing() {
        let mut limiter = Limiter::new();
        for _ in 1..LINES_MAX {
            assert_eq!(limiter.judge("flood", SECOND), Verdict::Write);
        }
        assert_eq!(limiter.judge("flood", SECOND), Verdict::WriteLast);
        let within = SECOND + WINDOW.saturating_sub(Duration::from_nanos(1));
        let end = SECOND + WINDOW;
        for _ in 0..1000 {
            assert_eq!(limiter.judge("flood", within), Verdict::LeaveOut);
        }
        assert_eq!(limiter.judge("other", end), Verdict::Write);
        assert_eq!(limiter.judge("flood", end), Verdict::WriteAfter(1000));
        assert_eq!(limiter.judge("flood", end), Verdict::Write);
        assert_eq!(limiter.judge("flood", end + WINDOW), Verdict::Write);
    }

    #[test]
    fn lines_that_come_slowly_are_all_written() {
        let mut limiter = Limiter::new();
        let pause = WINDOW / LINES_MAX + Duration::from_millis(1);
        for number in 0..1000 {
            assert_ne!(limiter.judge((), number * pause), Verdict::LeaveOut, "line {number}");
        }
    }

    /// What was logged.
    #[derive(Clone, Default)]
    struct Logged(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Logged {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Logged {
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    /// More lines of one place than are written, one of another, and as many for whoever looks for a
    /// fault.
    fn log() {
        for number in 0..25 {
            tracing::warn!(number, "again");
            tracing::debug!(number, "in detail");
        }
        tracing::info!("another");
    }

    #[test]
    fn text_says_at_its_end_that_more_is_left_out() {
        let logged = Logged::default();
        let writer = logged.clone();
        let format = Limited::text(format().with_target(false).without_time().with_ansi(false));
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .with_writer(move || writer.clone())
            .event_format(format)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let lines = logged.lines();
        assert_eq!(lines.len(), 10 + 25 + 1, "{lines:#?}");
        assert_eq!(lines[0], " WARN again number=0");
        let last = " WARN again number=9 (more lines like this are left out for 60 s)";
        assert!(lines.iter().any(|line| line == last), "{lines:#?}");
        assert_eq!(lines[35], " INFO another");
        let after = [1, 2].map(|count| text_note(Verdict::WriteAfter(count)));
        let told = ["1 line like this was", "2 lines like this were"];
        assert_eq!(after, told.map(|told| format!(" ({told} left out before it)\n")));
    }

    #[test]
    fn json_says_it_in_a_field_and_stays_json() {
        #[derive(serde::Deserialize)]
        struct Line {
            message: String,
            number: Option<u64>,
            left_out_for_s: Option<u64>,
        }
        let logged = Logged::default();
        let writer = logged.clone();
        let format = Limited::json(format().json().flatten_event(true).with_target(false));
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .fmt_fields(JsonFields::new())
            .event_format(format)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let lines = logged.lines();
        let lines: Vec<Line> = lines.iter().map(|line| sonic_rs::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 11);
        let of_flood = |line: &&Line| line.message == "again";
        assert_eq!(lines.iter().filter(of_flood).count(), 10);
        let told: Vec<_> = lines.iter().filter_map(|line| line.left_out_for_s).collect();
        assert_eq!((told, lines[9].number), (vec![60], Some(9)));
        let after = format!("{{\"message\":\"x\"{}", json_note(Verdict::WriteAfter(7)));
        assert_eq!(after, "{\"message\":\"x\",\"left_out_before\":7}\n");
    }
}
