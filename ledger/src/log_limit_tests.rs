//! How many lines are written, and what is told of the others.

use std::io;
use std::sync::Arc;

use tracing_subscriber::fmt::format;
use tracing_subscriber::fmt::format::JsonFields;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Judges a line of a place about nobody.
fn judge(limiter: &mut Limiter<&'static str>, place: &'static str, now: Duration) -> Verdict {
    limiter.judge(place, 0, LINES_MAX, now, || (Level::WARN, place.to_owned()))
}

fn of(place: &str, count: u64) -> LeftOut {
    LeftOut { count, level: Level::WARN, like: place.to_owned() }
}

#[test]
fn of_a_flood_the_first_lines_are_written_and_after_the_window_any_line_tells_the_count() {
    let mut limiter = Limiter::new();
    for _ in 1..LINES_MAX {
        assert_eq!(judge(&mut limiter, "flood", SECOND), Verdict::Write);
    }
    assert_eq!(judge(&mut limiter, "flood", SECOND), Verdict::WriteLast);
    let end = SECOND + WINDOW;
    let within = end.saturating_sub(Duration::from_nanos(1));
    for _ in 0..1000 {
        assert_eq!(judge(&mut limiter, "flood", within), Verdict::LeaveOut);
    }
    assert_eq!(limiter.take(within, false), []);
    assert_eq!(limiter.take(end, false), [of("flood", 1000)]);
    assert_eq!(limiter.take(end, false), []);
    assert_eq!(judge(&mut limiter, "other", end), Verdict::Write);
    assert_eq!(judge(&mut limiter, "flood", end), Verdict::Write);
    assert_eq!(limiter.take(end + 2 * WINDOW, true), []);
}

#[test]
fn each_window_is_told_when_it_is_over_and_all_of_them_at_the_end() {
    let mut limiter = Limiter::new();
    let flood = |limiter: &mut Limiter<_>, place, now| {
        for _ in 0..=LINES_MAX {
            judge(limiter, place, now);
        }
    };
    flood(&mut limiter, "later", 30 * SECOND);
    flood(&mut limiter, "first", SECOND);
    flood(&mut limiter, "last", 59 * SECOND);
    assert_eq!(limiter.take(WINDOW, false), []);
    assert_eq!(limiter.take(WINDOW + SECOND, false), [of("first", 1)]);
    assert_eq!(limiter.take(WINDOW + 29 * SECOND, false), []);
    assert_eq!(limiter.take(WINDOW + 30 * SECOND, false), [of("later", 1)]);
    assert_eq!(limiter.take(WINDOW + 30 * SECOND, true), [of("last", 1)]);
    assert_eq!(limiter.take(Duration::MAX, true), []);
}

#[test]
fn subjects_hide_no_line_of_each_other_and_many_of_them_are_counted_together() {
    let mut limiter = Limiter::new();
    let mut judge = |place, subject| {
        limiter.judge(place, subject, LINES_MAX, SECOND, || (Level::WARN, String::new()))
    };
    for _ in 0..2 * LINES_MAX {
        judge("state", 1);
    }
    assert_eq!(judge("state", 1), Verdict::LeaveOut);
    assert_eq!(judge("state", 2), Verdict::Write);
    for subject in 3..=SUBJECTS_MAX as u64 {
        assert_eq!(judge("state", subject), Verdict::Write);
    }
    let unknown = (1_000_000..).take(LINES_MAX as usize + 1);
    let verdicts: Vec<_> = unknown.map(|subject| judge("state", subject)).collect();
    assert_eq!(verdicts[LINES_MAX as usize], Verdict::LeaveOut, "{verdicts:?}");
    assert_eq!(judge("state", 2), Verdict::Write, "one that is known");
    assert_eq!(limiter.lines.len(), SUBJECTS_MAX + 1);
}

#[test]
fn lines_that_come_slowly_are_all_written() {
    let mut limiter = Limiter::new();
    let pause = WINDOW / LINES_MAX + Duration::from_millis(1);
    for number in 0..1000 {
        let verdict = judge(&mut limiter, "slow", number * pause);
        assert_ne!(verdict, Verdict::LeaveOut, "line {number}");
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

/// More lines of one place than are written, two of another, as many for whoever looks for a fault,
/// and the end of a process.
fn log() {
    for number in 0..25 {
        tracing::warn!(number, "again");
        tracing::debug!(number, "in detail");
    }
    tracing::info!("another");
    tell_all();
    tracing::info!("after the end");
}

/// What is logged as text.
fn text_of(log: impl FnOnce()) -> Vec<String> {
    let logged = Logged::default();
    let writer = logged.clone();
    let format = Limited::text(format().with_target(false).without_time().with_ansi(false));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::DEBUG)
        .with_writer(move || writer.clone())
        .event_format(format)
        .finish();
    tracing::subscriber::with_default(subscriber, log);
    logged.lines()
}

#[test]
fn text_says_at_its_end_that_more_is_left_out() {
    let lines = text_of(log);
    assert_eq!(lines.len(), 10 + 25 + 3, "{lines:#?}");
    assert_eq!(lines[0], " WARN again number=0");
    let last = " WARN again number=9 (more lines like this are left out for 60 s)";
    assert!(lines.iter().any(|line| line == last), "{lines:#?}");
    assert_eq!(lines[35], " INFO another");
    assert!(lines[36].ends_with("Z  WARN 15 lines like this were left out: again"), "{lines:?}");
    assert_eq!(lines[37], " INFO after the end");
}

#[test]
fn the_ids_of_payments_are_told_far_beyond_what_other_lines_are_and_have_a_limit_too() {
    let lines = text_of(|| {
        for id in 0..PAYMENT_LINES_MAX + 7 {
            tracing::error!(target: OF_PAYMENTS, id, "refused");
        }
        tell_all();
    });
    assert_eq!(lines.len(), 1001, "{:#?}", lines.last());
    assert_eq!(lines[998], "ERROR refused id=998");
    assert!(lines[1000].ends_with("ERROR 7 lines like this were left out: refused"));
}

#[test]
fn what_one_processor_does_leaves_no_line_of_the_other_one_out() {
    let lines = text_of(|| {
        let states = std::iter::repeat_n("default", 25).chain(["fallback"]);
        for processor in states {
            tracing::info!(processor = %processor, "{processor} is back");
        }
    });
    assert_eq!(lines.len(), 11, "{lines:#?}");
    assert_eq!(lines[10], " INFO fallback is back processor=fallback");
}

#[test]
fn json_says_it_in_a_field_and_stays_json() {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
        message: String,
        timestamp: String,
        number: Option<u64>,
        left_out_for_s: Option<u64>,
        left_out: Option<u64>,
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
    assert_eq!(lines.len(), 13);
    let of_flood = |line: &&Line| line.message == "again";
    assert_eq!(lines.iter().filter(of_flood).count(), 10);
    let told: Vec<_> = lines.iter().filter_map(|line| line.left_out_for_s).collect();
    assert_eq!((told, lines[9].number), (vec![60], Some(9)));
    let counted = &lines[11];
    assert_eq!((counted.left_out, &*counted.level), (Some(15), "WARN"));
    assert_eq!(counted.message, "15 lines like this were left out: again");
    assert_eq!(counted.timestamp.len(), lines[0].timestamp.len());
}

#[test]
fn of_a_long_line_the_beginning_is_repeated() {
    let long = "é".repeat(LIKE_CHARS_MAX + 1);
    let lines = text_of(|| {
        (0..=LINES_MAX).for_each(|_| tracing::warn!("{long}"));
        tell_all();
    });
    let told = format!(" 1 line like this was left out: {}…", "é".repeat(LIKE_CHARS_MAX));
    assert!(lines.last().unwrap().ends_with(&told), "{lines:?}");
}
