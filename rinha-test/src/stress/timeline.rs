//! What happens at fixed moments of a run: the processors change, and audits look at all books.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ledger::clock::{self, Monotonic};
use ledger::{Processor, RangeMs, TimestampMs, Totals};
use serde::Serialize;

use crate::books::BooksError;
use crate::books::processor::ProcessorAdmin;
use crate::books::router::Router;
use crate::load::Meter;
use crate::scenario::{AuditSettings, ProcessorState, Scenario, Stage};
use crate::score::inconsistency;

/// How often it is looked whether a moment has come.
const POLL: Duration = Duration::from_millis(2);

/// Everyone who is asked or told something at a moment.
#[derive(Clone)]
pub struct Others {
    /// The router.
    pub router: Router,
    /// The processors, by [`Processor::index`].
    pub processors: [ProcessorAdmin; 2],
    /// Where the time of the audits' calls is written down, as the contest does.
    pub meter: Arc<Meter>,
}

/// An audit and what it found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditSeen {
    /// Seconds after the start.
    pub at_s: f64,
    /// The window.
    pub from: String,
    /// Its end.
    pub to: String,
    /// Payments of our summary, default first.
    pub ours: [u64; 2],
    /// Payments that the processors recorded, default first.
    pub processors: [u64; 2],
    /// Whether the money differs as well, or alone.
    pub cents_equal: bool,
    /// Requests by which they differ.
    pub inconsistencies: u64,
    /// The same as the rehearsal counts.
    pub inconsistencies_rehearsal: u64,
    /// Who did not answer, and why.
    pub failures: Vec<String>,
}

/// A stage that began.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StageSeen {
    /// Seconds after the start.
    pub at_s: f64,
    /// What default does.
    pub default: ProcessorState,
    /// What fallback does.
    pub fallback: ProcessorState,
}

/// What a timeline came to.
#[derive(Clone, Debug, Default)]
pub struct TimelineSeen {
    /// The stages.
    pub stages: Vec<StageSeen>,
    /// The audits.
    pub audits: Vec<AuditSeen>,
    /// What did not work.
    pub failures: Vec<String>,
}

#[derive(Clone, Copy)]
enum Event {
    Stage(Stage),
    Audit,
}

enum Seen {
    Stage(StageSeen),
    Audit(AuditSeen),
    Failure(String),
}

/// A timeline that runs in a thread of its own, each event in another, so that none waits for
/// another's answers.
pub struct Timeline {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    seen: Receiver<Seen>,
    current: Arc<Mutex<Option<Stage>>>,
}

impl Timeline {
    /// Starts it. Its moments are multiplied by the scale, and it ends by itself after `duration`.
    #[must_use]
    pub fn start(scenario: &Scenario, others: Others, scale: f64, duration: Duration) -> Self {
        let events = events(scenario, scale, duration);
        let audit = scenario.audit;
        let stop = Arc::new(AtomicBool::new(false));
        let current = Arc::new(Mutex::new(None));
        let (sender, seen) = channel();
        let watched = (Arc::clone(&stop), Arc::clone(&current));
        let thread = std::thread::spawn(move || {
            run(events, audit, &others, scale, &watched.0, &watched.1, &sender);
        });
        Self { stop, thread, seen, current }
    }

    /// What the processors do now.
    #[must_use]
    pub fn current(&self) -> Option<Stage> {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it, and gives what was seen.
    #[must_use]
    pub fn end(self) -> TimelineSeen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = TimelineSeen::default();
        if self.thread.join().is_err() {
            all.failures.push("the thread of the timeline panicked".to_owned());
        }
        for seen in self.seen {
            match seen {
                Seen::Stage(stage) => all.stages.push(stage),
                Seen::Audit(audit) => all.audits.push(audit),
                Seen::Failure(failure) => all.failures.push(failure),
            }
        }
        all.audits.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
        all.stages.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
        all
    }
}

fn events(scenario: &Scenario, scale: f64, duration: Duration) -> Vec<(Duration, Event)> {
    let at = |seconds: f64| Duration::from_secs_f64(seconds * scale);
    let mut events: Vec<_> =
        scenario.stages.iter().map(|stage| (at(stage.at_s), Event::Stage(*stage))).collect();
    if let Some(audit) = scenario.audit {
        let every = at(audit.every_s);
        events.extend(
            (1..).map(|n| every * n).take_while(|at| *at <= duration).map(|at| (at, Event::Audit)),
        );
    }
    events.sort_by_key(|(at, _)| *at);
    events
}

fn run(
    events: Vec<(Duration, Event)>,
    audit: Option<AuditSettings>,
    others: &Others,
    scale: f64,
    stop: &AtomicBool,
    current: &Mutex<Option<Stage>>,
    sender: &Sender<Seen>,
) {
    let clock = Monotonic::start();
    let mut threads = Vec::new();
    for (at, event) in events {
        while clock.elapsed() < at && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(POLL);
        }
        if stop.load(Ordering::Relaxed) && clock.elapsed() < at {
            break;
        }
        let at_s = clock.elapsed().as_secs_f64();
        if let Event::Stage(stage) = event {
            *current.lock().unwrap_or_else(PoisonError::into_inner) = Some(stage);
        }
        let (others, sender) = (others.clone(), sender.clone());
        threads.push(std::thread::spawn(move || match (event, audit) {
            (Event::Stage(stage), _) => {
                for seen in change(&others, stage, at_s) {
                    let _ = sender.send(seen);
                }
            }
            (Event::Audit, Some(audit)) => {
                let _ = sender.send(Seen::Audit(look(&others, audit, scale, at_s)));
            }
            (Event::Audit, None) => unreachable!("audits come from these settings"),
        }));
    }
    for thread in threads {
        if thread.join().is_err() {
            let _ = sender.send(Seen::Failure("an event of the timeline panicked".to_owned()));
        }
    }
}

fn change(others: &Others, stage: Stage, at_s: f64) -> Vec<Seen> {
    let [default, fallback] = Processor::ALL.map(|processor| {
        let admin = others.processors[processor.index()].clone();
        std::thread::spawn(move || configure(&admin, stage.of(processor)))
    });
    let mut seen: Vec<_> = [default, fallback]
        .into_iter()
        .filter_map(|thread| thread.join().unwrap_or_else(|_| Ok(())).err())
        .map(|error| Seen::Failure(format!("a processor is not set: {error}")))
        .collect();
    seen.push(Seen::Stage(StageSeen { at_s, default: stage.default, fallback: stage.fallback }));
    seen
}

/// Sets what a processor does.
///
/// # Errors
/// It does not let itself be set.
pub fn configure(admin: &ProcessorAdmin, state: ProcessorState) -> Result<(), BooksError> {
    admin.set_delay(Duration::from_millis(u64::from(state.delay_ms)))?;
    admin.set_failure(state.failing)
}

/// Our summary and both processors' of a window, asked for at the same moment.
pub(super) struct AllTotals {
    pub(super) ours: [Totals; 2],
    pub(super) processors: [Totals; 2],
    pub(super) failures: Vec<String>,
}

/// Asks everyone at the same moment. Who does not answer says that nothing was settled.
pub(super) fn ask_all(others: &Others, range: RangeMs) -> AllTotals {
    let meter = &others.meter;
    std::thread::scope(|scope| {
        let timed = |call: &dyn Fn() -> Result<[Totals; 2], BooksError>| {
            let clock = Monotonic::start();
            let answer = call();
            if answer.is_ok() {
                meter.record_other(clock.elapsed());
            }
            answer
        };
        let ours = scope.spawn(move || timed(&|| others.router.summary(range)));
        let processors = others.processors.each_ref().map(|admin| {
            scope.spawn(move || timed(&|| Ok([admin.summary(range)?, Totals::default()])))
        });
        let mut failures = Vec::new();
        let mut take = |answer: std::thread::Result<Result<[Totals; 2], BooksError>>| match answer {
            Ok(Ok(totals)) => totals,
            Ok(Err(error)) => {
                failures.push(error.to_string());
                Default::default()
            }
            Err(_) => {
                failures.push("a question panicked".to_owned());
                Default::default()
            }
        };
        let ours = take(ours.join());
        let processors = processors.map(|thread| take(thread.join())[0]);
        AllTotals { ours, processors, failures }
    })
}

fn look(others: &Others, audit: AuditSettings, scale: f64, at_s: f64) -> AuditSeen {
    let now = clock::now();
    let back = |seconds: f64| now.back(Duration::from_secs_f64(seconds));
    // A run that is stretched needs longer windows; in a shorter one they still have their meaning.
    let range = RangeMs { from: back(audit.from_s * scale.max(1.0)), to: back(audit.until_s) };
    let totals = ask_all(others, range);
    let counts = |totals: [Totals; 2]| totals.map(|totals| totals.count);
    let found = inconsistency(counts(totals.ours), counts(totals.processors));
    let amounts = |totals: [Totals; 2]| totals.map(|totals| totals.amount);
    AuditSeen {
        at_s,
        from: range.from.to_string(),
        to: range.to.to_string(),
        ours: counts(totals.ours),
        processors: counts(totals.processors),
        cents_equal: amounts(totals.ours) == amounts(totals.processors),
        inconsistencies: found.strict,
        inconsistencies_rehearsal: found.rehearsal,
        failures: totals.failures,
    }
}

/// A moment so long before another.
pub(super) trait Back {
    fn back(self, time: Duration) -> Self;
}

impl Back for TimestampMs {
    fn back(self, time: Duration) -> Self {
        let milliseconds = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Self::clamped(self.get().saturating_sub(milliseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_and_audits_to_the_end() {
        let scenario = crate::scenario::load("contest", &[]).unwrap();
        let all = events(&scenario, 1.0, Duration::from_mins(1));
        assert_eq!(all.len(), 12);
        assert!(all.is_sorted_by_key(|(at, _)| *at));
        let audits = all.iter().filter(|(_, event)| matches!(event, Event::Audit)).count();
        assert_eq!(audits, 6);
        let short = events(&scenario, 0.1, Duration::from_secs(6));
        assert_eq!((short.len(), short[0].0), (12, Duration::from_millis(100)));
    }

    #[test]
    fn a_moment_back_is_earlier() {
        let at = TimestampMs::clamped(5000);
        assert_eq!(at.back(Duration::from_millis(1500)).get(), 3500);
    }
}
