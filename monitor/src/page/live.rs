//! What goes to everybody who watches the page: the same facts as `monitor status --json`, once a second.
//!
//! One look is for all of them, and without any nothing is looked at: the task that looks begins with the
//! first watcher and ends with the last.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ledger::clock;
use serde::Serialize;
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::notes::{Notes, Told, ToldNote};
use super::recent::{Recent, RecentTimes};
use crate::shared::SharedGathering;
use crate::status::model::Status;

/// How long after a look the next one is. A daemon that hangs makes a look long, and one right after it would
/// find what was just gathered.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watchers at a time.
pub const WATCHERS_MAX: usize = 16;

/// Events that wait for a watcher to read them; with more it is given up.
const UNREAD_MAX: usize = 8;

/// What a watcher is told first: how soon to come back when the line breaks, in milliseconds.
const GREETING: &str = "retry: 1000\n\n";

/// Somebody who watches.
struct Watcher {
    events: mpsc::Sender<Bytes>,
    /// Told when it reads too slowly: nothing comes any more, and its connection is to be closed.
    given_up: Rc<Notify>,
}

/// All who watch.
pub struct Live {
    shared: Rc<SharedGathering>,
    run: PathBuf,
    watchers: RefCell<Vec<Watcher>>,
    /// What the last look gave, while anybody watches.
    last: RefCell<Option<Bytes>>,
    is_looking: Cell<bool>,
    looks_count: Cell<u64>,
}

/// An event.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    at_ms: i64,
    status: Status,
    recent: Option<RecentTimes>,
    notes: Vec<ToldNote>,
    /// APIs whose notes are not among these.
    notes_missing: Vec<String>,
}

/// An event where nothing can be told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Unknown {
    at_ms: i64,
    error: String,
}

impl Live {
    /// Nobody watches yet.
    #[must_use]
    pub fn new(shared: Rc<SharedGathering>, run: PathBuf) -> Self {
        Self {
            shared,
            run,
            watchers: RefCell::default(),
            last: RefCell::default(),
            is_looking: Cell::new(false),
            looks_count: Cell::new(0),
        }
    }

    /// Lets somebody watch, who is to be cut off once `given_up` is told. None where there are as many
    /// as there may be. Must be called on a [`tokio::runtime::LocalRuntime`].
    pub fn watch(self: &Rc<Self>, given_up: Rc<Notify>) -> Option<mpsc::Receiver<Bytes>> {
        let mut watchers = self.watchers.borrow_mut();
        watchers.retain(|watcher| !watcher.events.is_closed());
        if watchers.len() == WATCHERS_MAX {
            return None;
        }
        let (events, receiver) = mpsc::channel(UNREAD_MAX);
        let last = self.last.borrow().clone();
        for event in [Some(Bytes::from_static(GREETING.as_bytes())), last].into_iter().flatten() {
            events.try_send(event).expect("a new channel has room for two");
        }
        watchers.push(Watcher { events, given_up });
        if !self.is_looking.replace(true) {
            spawn_local(Rc::clone(self).look());
        }
        Some(receiver)
    }

    /// How often it was looked so far.
    #[must_use]
    pub fn looks_count(&self) -> u64 {
        self.looks_count.get()
    }

    /// Looks for as long as anybody watches.
    async fn look(self: Rc<Self>) {
        let mut eyes = Eyes::default();
        loop {
            self.watchers.borrow_mut().retain(|watcher| !watcher.events.is_closed());
            if self.watchers.borrow().is_empty() {
                break;
            }
            self.looks_count.set(self.looks_count.get() + 1);
            let event = eyes.look(&self.shared, &self.run).await;
            *self.last.borrow_mut() = Some(event.clone());
            self.watchers.borrow_mut().retain(|watcher| {
                let is_there = watcher.events.try_send(event.clone()).is_ok();
                if !is_there {
                    watcher.given_up.notify_one();
                }
                is_there
            });
            sleep(LOOK_EVERY).await;
        }
        *self.last.borrow_mut() = None;
        self.is_looking.set(false);
    }
}

/// What is remembered from look to look.
#[derive(Default)]
struct Eyes {
    before: Option<(Duration, Status)>,
    recent: Recent,
    notes: Notes,
}

impl Eyes {
    async fn look(&mut self, shared: &SharedGathering, run: &std::path::Path) -> Bytes {
        let gathered = shared.gathered().await;
        let now = clock::now();
        let at_ms = now.get();
        let (at, readings) = match gathered {
            Ok(gathered) => gathered,
            Err(error) => {
                self.before = None;
                return event("unknown", &Unknown { at_ms, error: error.to_string() });
            }
        };
        let mut status = Status::of(&readings);
        if let Some((before_at, before)) = &self.before {
            status.compare(before, at.saturating_sub(*before_at).as_secs_f64());
            self.notes.compare(before, &status, now);
        }
        let recent = self.recent.add(at, &readings);
        let Told { notes, missing: notes_missing } = self.notes.gather(run, &readings).await;
        self.before = Some((at, status.clone()));
        event("facts", &Facts { at_ms, status, recent, notes, notes_missing })
    }
}

/// An event as a watcher's browser reads it. JSON has no line ends outside its texts, and none within.
fn event(name: &str, data: &impl Serialize) -> Bytes {
    let data = sonic_rs::to_string(data).expect("numbers and texts can be written as JSON");
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use ledger::clock::Monotonic;
    use ledger::metrics::publish;
    use ledger::volume::metrics_socket;
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::time::sleep;

    use super::*;

    fn block_on(test: impl Future<Output = ()>) {
        let builder = &mut Builder::new_current_thread();
        builder.enable_all().build_local(LocalOptions::default()).unwrap().block_on(test);
    }

    fn live(run: &Path) -> Rc<Live> {
        let clock = Monotonic::start();
        let shared = Rc::new(SharedGathering::new(run.to_owned(), move || clock.elapsed()));
        Rc::new(Live::new(shared, run.to_owned()))
    }

    async fn next(events: &mut mpsc::Receiver<Bytes>) -> String {
        String::from_utf8(events.recv().await.unwrap().to_vec()).unwrap()
    }

    #[test]
    fn all_who_watch_share_a_look_and_with_nobody_there_is_none() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let asked = Rc::new(Cell::new(0_u64));
            let count = Rc::clone(&asked);
            publish(&metrics_socket(folder.path(), "lb"), move |_| count.set(count.get() + 1));
            let live = live(folder.path());
            sleep(2 * LOOK_EVERY).await;
            assert_eq!((asked.get(), live.looks_count()), (0, 0));

            let mut watchers: Vec<_> =
                (0..WATCHERS_MAX).map(|_| live.watch(Rc::default()).unwrap()).collect();
            assert!(live.watch(Rc::default()).is_none(), "there are as many as there may be");
            let mut told = BTreeSet::new();
            for events in &mut watchers {
                assert_eq!(next(events).await, GREETING);
                let facts = next(events).await;
                told.insert(facts.clone());
                assert!(facts.starts_with("event: facts\ndata: {\"atMs\":"), "{facts}");
                assert!(facts.ends_with("}\n\n") && facts.lines().count() == 3, "{facts}");
                assert!(facts.contains("\"name\":\"lb\",\"up\":true"), "{facts}");
            }
            assert_eq!(told.len(), 1, "one look is for all");
            let mut told = vec![next(&mut watchers[0]).await];
            assert!(!told[0].contains("\"cpus\":null"), "{told:?}");
            // Who comes now gets what the others got last.
            drop(watchers.pop());
            let mut late = live.watch(Rc::default()).unwrap();
            assert_eq!(next(&mut late).await, GREETING);
            let (first, second) = (next(&mut late).await, next(&mut late).await);
            while told.last() != Some(&second) {
                told.push(next(&mut watchers[0]).await);
                assert!(told.len() < WATCHERS_MAX, "{first} is in none of {told:?}");
            }
            assert!(told.contains(&first), "{first} is not among {told:?}");
            assert!(asked.get() <= live.looks_count(), "each look asks once");

            drop((watchers, late));
            while live.is_looking.get() {
                sleep(LOOK_EVERY / 10).await;
            }
            let looks_count = live.looks_count();
            sleep(2 * LOOK_EVERY).await;
            assert_eq!(live.looks_count(), looks_count);
            assert!(live.watch(Rc::default()).is_some(), "it begins again");
        });
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_told_and_looked_at_again() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let run = folder.path().join("run");
            let mut events = live(&run).watch(Rc::default()).unwrap();
            assert_eq!(next(&mut events).await, GREETING);
            let unknown = next(&mut events).await;
            assert!(unknown.starts_with("event: unknown\ndata: {\"atMs\":"), "{unknown}");
            assert!(unknown.contains("--data"), "{unknown}");
            std::fs::create_dir(&run).unwrap();
            while !next(&mut events).await.starts_with("event: facts\n") {}
        });
    }

    #[test]
    fn a_watcher_that_does_not_read_is_given_up() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let live = live(folder.path());
            let given_up = Rc::new(Notify::new());
            let _events = live.watch(Rc::clone(&given_up)).unwrap();
            given_up.notified().await;
            assert!(live.looks_count() >= UNREAD_MAX as u64, "it was given up too soon");
        });
    }
}
