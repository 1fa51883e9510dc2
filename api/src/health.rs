//! The processors' own word about their health: asked once per interval in the whole system, and
//! known to every instance.
//!
//! The instance that holds the lock of `DIR/health/lease` asks, and writes what it heard to
//! `DIR/health/state`; the others read that. When the holder ends, the operating system gives the
//! lock to the next one, which goes on with the interval where the last one left off.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger::clock;
use ledger::disk::folder::{FolderLock, lock_file};
use ledger::json::object;
use ledger::{Processor, TimestampMs};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use crate::processor::Target;
use crate::router::{HEALTH_MS_MAX, Health};

/// How often an instance that does not ask looks for news.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The least pause between two rounds of questions.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// An answer that takes longer is worth nothing.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// When one processor was asked, and what it said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Milliseconds since 1970.
    asked_at: i64,
    /// Nothing where it did not answer.
    answer: Option<Answer>,
}

impl Report {
    /// A clock that stepped back a little makes nothing old.
    fn is_fresh(&self, now: TimestampMs) -> bool {
        now.get().saturating_sub(self.asked_at).unsigned_abs() < HEALTH_MS_MAX
    }
}

/// What is published, by [`Processor::index`].
type Reports = [Option<Report>; 2];

/// What a processor answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    failing: bool,
    min_response_time: u64,
}

/// News for the engine.
pub type News = (Processor, Health);

/// Who asks the processors for their health, or reads what the other instance heard.
pub struct HealthWatch {
    /// The folder that all instances share.
    pub folder: PathBuf,
    /// The processors by [`Processor::index`].
    pub targets: [Target; 2],
    /// The pause between two questions to a processor.
    pub interval: Duration,
    /// Where news go. The watch ends when nobody takes them any more.
    pub news: UnboundedSender<News>,
}

impl HealthWatch {
    /// Starts the watch on a thread of its own.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn start(self) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("health".to_owned());
        thread.spawn(move || self.watch()).map(drop)
    }

    fn watch(&self) {
        let mut known: Reports = [None, None];
        let (mut lease, mut publishes) = (None, true);
        while !self.news.is_closed() {
            self.round(&mut lease, &mut known, &mut publishes);
            std::thread::sleep(self.pause(lease.is_some(), &known));
        }
    }

    /// Asks, or reads what the holder of the lease has published. A holder knows better itself: its
    /// last reports may be the ones that it could not publish.
    fn round(&self, lease: &mut Option<FolderLock>, known: &mut Reports, publishes: &mut bool) {
        if lease.is_none() {
            *lease = lock_file(&self.folder.join("lease")).ok();
            if lease.is_some() {
                tracing::debug!("this instance asks the processors for their health");
            }
            let published = read(&self.folder.join("state"));
            self.tell_news(known, published);
        }
        if lease.is_some() {
            self.ask_all(known, publishes);
        }
    }

    /// Tells what is new in the reports.
    fn tell_news(&self, known: &mut Reports, reports: Reports) {
        for processor in Processor::ALL {
            let (report, known) = (reports[processor.index()], &mut known[processor.index()]);
            if report.is_none() || report == *known {
                continue;
            }
            *known = report;
            // What a process before this one heard may be of yesterday.
            let fresh = report.filter(|report| report.is_fresh(clock::now()));
            if let Some(answer) = fresh.and_then(|report| report.answer) {
                let health =
                    Health { failing: answer.failing, min_response_ms: answer.min_response_time };
                // A closed channel ends the watch.
                let _ = self.news.send((processor, health));
            }
        }
    }

    /// Asks every processor whose interval is over, and publishes what they say. `publishes`: the last
    /// time that worked.
    fn ask_all(&self, known: &mut Reports, publishes: &mut bool) {
        let mut reports = *known;
        for processor in Processor::ALL {
            // The question before may have taken a while.
            let now = clock::now();
            if !self.is_due(reports[processor.index()], now) {
                continue;
            }
            let answer = ask(&self.targets[processor.index()])
                .inspect_err(|why| tracing::debug!("{processor} does not tell its health: {why}"))
                .ok();
            // A question without an answer counts: it may have used a window of the processor up.
            reports[processor.index()] = Some(Report { asked_at: now.get(), answer });
        }
        if reports != *known {
            let published = publish(&self.folder, &reports);
            match published {
                Err(error) if *publishes => {
                    tracing::warn!("cannot publish the processors' health: {error}");
                    *publishes = false;
                }
                Ok(()) if !*publishes => {
                    tracing::info!("the processors' health can be published again");
                    *publishes = true;
                }
                _ => {}
            }
            self.tell_news(known, reports);
        }
    }

    fn is_due(&self, report: Option<Report>, now: TimestampMs) -> bool {
        let Some(report) = report else { return true };
        let age_ms = now.get().saturating_sub(report.asked_at);
        // A clock that stepped back must not stop the questions.
        age_ms < 0 || u128::try_from(age_ms).is_ok_and(|age| age >= self.interval.as_millis())
    }

    /// The time until there is something to do.
    fn pause(&self, asks: bool, known: &Reports) -> Duration {
        if !asks {
            return LOOK_INTERVAL;
        }
        let now = clock::now().get();
        let due_in = |report: &Option<Report>| match report {
            None => self.interval,
            Some(report) => {
                let age = u64::try_from(now.saturating_sub(report.asked_at)).unwrap_or(0);
                self.interval.saturating_sub(Duration::from_millis(age))
            }
        };
        let next = known.iter().map(due_in).min().unwrap_or(self.interval);
        next.min(self.interval).max(PAUSE_MIN)
    }
}

/// Asks a processor for its health.
fn ask(target: &Target) -> Result<Answer, String> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(CHECK_TIMEOUT)).build().into();
    let url = format!("{target}/payments/service-health");
    let mut response = agent.get(&url).call().map_err(|error| error.to_string())?;
    let body = response.body_mut().read_to_vec().map_err(|error| error.to_string())?;
    object(&body).map_err(|error| error.to_string())
}

/// What was published last; nothing where that cannot be read.
fn read(path: &Path) -> Reports {
    fs::read(path).ok().and_then(|bytes| sonic_rs::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Publishes reports in one step.
fn publish(folder: &Path, reports: &Reports) -> io::Result<()> {
    let bytes = sonic_rs::to_vec(reports).map_err(io::Error::other)?;
    let new = folder.join("state.new");
    fs::write(&new, bytes)?;
    fs::rename(new, folder.join("state"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    /// A processor that says it takes 7 ms, and how often it was asked.
    fn processor() -> (Target, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&count);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut bytes = [0; 1024];
                let length = stream.read(&mut bytes).unwrap();
                assert!(bytes[..length].starts_with(b"GET /payments/service-health "));
                asked.fetch_add(1, Ordering::SeqCst);
                let body = r#"{"failing":false,"minResponseTime":7}"#;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", body.len());
                write!(stream, "{head}connection: close\r\n\r\n{body}").unwrap();
            }
        });
        (target, count)
    }

    /// A watch of processors at which nobody listens, its folder, and who hears it.
    fn watch_of_nobody(
        interval: Duration,
    ) -> (tempfile::TempDir, HealthWatch, UnboundedReceiver<News>) {
        let folder = tempfile::tempdir().unwrap();
        let nobody: Target = "http://127.0.0.1:1".parse().unwrap();
        let (news, listener) = unbounded_channel();
        let targets = [nobody.clone(), nobody];
        let watch = HealthWatch { folder: folder.path().to_owned(), targets, interval, news };
        (folder, watch, listener)
    }

    #[test]
    fn one_instance_asks_and_all_hear() {
        let folder = tempfile::tempdir().unwrap();
        let ((default, default_count), (fallback, fallback_count)) = (processor(), processor());
        let interval = Duration::from_hours(1);
        let mut listeners: Vec<_> = (0..3)
            .map(|_| {
                let (news, listener) = unbounded_channel();
                let targets = [default.clone(), fallback.clone()];
                let folder = folder.path().to_owned();
                HealthWatch { folder, targets, interval, news }.start().unwrap();
                listener
            })
            .collect();
        let expected = Health { failing: false, min_response_ms: 7 };
        for listener in &mut listeners {
            let mut heard = [listener.blocking_recv().unwrap(), listener.blocking_recv().unwrap()];
            heard.sort_by_key(|(processor, _)| *processor);
            let both = [(Processor::Default, expected), (Processor::Fallback, expected)];
            assert_eq!(heard, both);
        }
        assert_eq!(default_count.load(Ordering::SeqCst), 1);
        assert_eq!(fallback_count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_next_holder_of_the_lease_goes_on_with_the_interval() {
        let folder = tempfile::tempdir().unwrap();
        let ((default, count), (fallback, _)) = (processor(), processor());
        let interval = Duration::from_hours(1);
        for _ in 0..3 {
            let (news, mut listener) = unbounded_channel();
            let targets = [default.clone(), fallback.clone()];
            let folder = folder.path().to_owned();
            let watch = HealthWatch { folder, targets, interval, news };
            let mut known = [None, None];
            let published = read(&watch.folder.join("state"));
            watch.tell_news(&mut known, published);
            watch.ask_all(&mut known, &mut true);
            assert!(listener.try_recv().is_ok());
            assert!(watch.pause(true, &known) > Duration::from_mins(50));
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_cannot_be_published_is_told_once_and_not_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let ((default, count), (fallback, _)) = (processor(), processor());
        let (news, mut listener) = unbounded_channel();
        let interval = Duration::from_secs(8);
        let targets = [default, fallback];
        let watch = HealthWatch { folder: folder.path().to_owned(), targets, interval, news };
        let answer = Some(Answer { failing: true, min_response_time: 1 });
        // Due, and not yet too old to be told.
        let old = Some(Report { asked_at: clock::now().get() - 8_000, answer });
        publish(folder.path(), &[old, old]).unwrap();
        // A folder stands where the next state would be written.
        fs::create_dir(folder.path().join("state.new")).unwrap();
        let (mut lease, mut known) = (None, [None, None]);
        for _ in 0..3 {
            watch.round(&mut lease, &mut known, &mut true);
        }
        let mut told_count = 0;
        while listener.try_recv().is_ok() {
            told_count += 1;
        }
        assert_eq!(told_count, 4, "the old news and the new, of both processors");
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_time_that_one_processor_takes_is_not_taken_from_the_other_ones_window() {
        let folder = tempfile::tempdir().unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let default = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
        let (fallback, _) = processor();
        let (news, _listener) = unbounded_channel();
        let interval = Duration::from_hours(1);
        let targets = [default, fallback];
        let watch = HealthWatch { folder: folder.path().to_owned(), targets, interval, news };
        let mut known = [None, None];
        watch.ask_all(&mut known, &mut true);
        let [default, fallback] = known.map(|report: Option<Report>| report.unwrap().asked_at);
        let timeout_ms = i64::try_from(CHECK_TIMEOUT.as_millis()).unwrap();
        assert!(fallback - default >= timeout_ms - 1, "{default} and {fallback}");
    }

    #[test]
    fn the_shortest_interval_is_a_pause_too() {
        let (_folder, watch, _listener) = watch_of_nobody(Duration::from_millis(1));
        assert_eq!(watch.pause(true, &[None, None]), PAUSE_MIN);
    }

    #[test]
    fn a_question_without_an_answer_is_no_news_and_is_not_asked_again_at_once() {
        let (_folder, watch, mut listener) = watch_of_nobody(Duration::from_hours(1));
        let mut known = [None, None];
        watch.ask_all(&mut known, &mut true);
        assert!(known.iter().all(|report| report.is_some_and(|report| report.answer.is_none())));
        assert!(listener.try_recv().is_err());
        assert!(watch.pause(true, &known) > Duration::from_mins(50));
    }

    #[test]
    fn what_was_heard_long_ago_is_no_news_but_counts_as_asked() {
        let (folder, watch, mut listener) = watch_of_nobody(Duration::from_hours(1));
        let now_ms = clock::now().get();
        let answer = Some(Answer { failing: true, min_response_time: 2000 });
        let published = |age_ms| Some(Report { asked_at: now_ms - age_ms, answer });
        let mut tell = |ages_ms: [i64; 2]| {
            publish(folder.path(), &ages_ms.map(published)).unwrap();
            let mut known = [None, None];
            watch.tell_news(&mut known, read(&folder.path().join("state")));
            assert_eq!(known, ages_ms.map(published));
            std::iter::from_fn(|| listener.try_recv().ok())
                .map(|(processor, _)| processor)
                .collect::<Vec<_>>()
        };
        let too_old_ms = i64::try_from(HEALTH_MS_MAX).unwrap();
        assert_eq!(tell([too_old_ms, 1_000]), [Processor::Fallback]);
        assert_eq!(tell([-5_000, 1_000]), Processor::ALL, "the clock has stepped back a little");
        assert!(!watch.is_due(published(too_old_ms), clock::now()));
    }
}
