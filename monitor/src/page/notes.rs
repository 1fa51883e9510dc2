//! The last decisions, of all APIs together: what they tell themselves ([`ledger::notes`]), and which
//! daemons went and came while somebody watched.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use ledger::TimestampMs;
use ledger::notes::{NOTES_SUFFIX, Note, Tone, read};
use ledger::volume::instance_number;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::gather::{Reading, read_text};
use crate::status::facts::Facts;
use crate::status::model::{DaemonStatus, Status};

/// Notes that are told, the last ones.
const TOLD_MAX: usize = 50;

/// Notes of daemons that went and came.
const SEEN_MAX: usize = 32;

/// A note, and of which daemon it is.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ToldNote {
    pub daemon: String,
    #[serde(flatten)]
    pub note: Note,
}

/// What is known of the last decisions.
#[derive(Debug, Default)]
pub struct Notes {
    /// Daemons that went and came, the oldest first.
    seen: VecDeque<ToldNote>,
    /// By API what it told last, and as of when.
    known: BTreeMap<String, (AsOf, Vec<Note>)>,
}

/// What tells whether an API has noted anything since: its start, and how often it had noted anything.
type AsOf = [Option<String>; 2];

/// The last decisions, and of which APIs they are not known.
#[derive(PartialEq, Eq, Debug)]
pub struct Told {
    /// The latest first.
    pub notes: Vec<ToldNote>,
    /// The names of the APIs that do not tell theirs.
    pub missing: Vec<String>,
}

impl Notes {
    /// Takes in which daemons went and came between two looks.
    pub fn compare(&mut self, before: &Status, status: &Status, now: TimestampMs) {
        for daemon in &status.daemons {
            let before = before.daemons.iter().find(|other| other.name == daemon.name);
            let Some((tone, words)) = change(before, daemon) else { continue };
            if self.seen.len() == SEEN_MAX {
                self.seen.pop_front();
            }
            let (first_ms, last_ms) = (now.get(), now.get());
            let note = Note { first_ms, last_ms, times: 1, tone, words };
            self.seen.push_back(ToldNote { daemon: daemon.name.clone(), note });
        }
    }

    /// Asks all APIs that answer, and have noted anything since they were asked, for their notes.
    pub async fn gather(&mut self, run: &Path, readings: &[Reading]) -> Told {
        let is_told = |reading: &&Reading| {
            reading.metrics.is_ok() && instance_number(&reading.daemon).is_some()
        };
        let apis: BTreeMap<_, _> = readings
            .iter()
            .filter(is_told)
            .map(|reading| (reading.daemon.clone(), as_of(reading)))
            .collect();
        self.known.retain(|daemon, (known, _)| {
            known.iter().all(Option::is_some) && apis.get(daemon) == Some(&*known)
        });
        let mut asking = JoinSet::new();
        for (daemon, as_of) in apis {
            if self.known.contains_key(&daemon) {
                continue;
            }
            let path = run.join(format!("{daemon}{NOTES_SUFFIX}"));
            asking.spawn(async move {
                let notes = match read_text(&path).await {
                    Ok(text) => read(&text).map_err(|error| error.to_string()),
                    Err(down) => Err(down.to_string()),
                };
                (daemon, as_of, notes)
            });
        }
        let mut missing = Vec::new();
        for (daemon, as_of, told) in asking.join_all().await {
            match told {
                Ok(told) => {
                    self.known.insert(daemon, (as_of, told));
                }
                Err(why) => {
                    tracing::debug!("the notes of {daemon} cannot be read: {why}");
                    missing.push(daemon);
                }
            }
        }
        missing.sort_unstable();
        // Of what was at the same moment, too, the latest comes first.
        let mut notes: Vec<_> = self.seen.iter().rev().cloned().collect();
        for (daemon, (_, known)) in &self.known {
            let latest = known.iter().rev().cloned();
            notes.extend(latest.map(|note| ToldNote { daemon: daemon.clone(), note }));
        }
        notes.sort_by(|one, other| {
            let key = |told: &ToldNote| (told.note.last_ms, told.note.first_ms);
            key(other).cmp(&key(one)).then_with(|| one.daemon.cmp(&other.daemon))
        });
        notes.truncate(TOLD_MAX);
        Told { notes, missing }
    }
}

fn as_of(reading: &Reading) -> AsOf {
    let facts = Facts::of(std::slice::from_ref(reading));
    ["process_start_time_seconds", "router_notes"].map(|family| {
        let first = facts.samples(family, &[]).next();
        first.map(|(_, sample)| sample.value.to_owned())
    })
}

/// What happened to a daemon since it was looked at before. That an API was started it tells itself.
fn change(before: Option<&DaemonStatus>, daemon: &DaemonStatus) -> Option<(Tone, String)> {
    let before = before?;
    match (before.up, daemon.up) {
        (true, false) => {
            let why = daemon.why.as_deref().unwrap_or_default();
            Some((Tone::Bad, format!("is down: {why}")))
        }
        (false, true) => Some((Tone::Good, "is back".to_owned())),
        (true, true)
            if before.started_at_s != daemon.started_at_s
                && instance_number(&daemon.name).is_none() =>
        {
            Some((Tone::Plain, "was started again".to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use ledger::metrics::tell;
    use ledger::notes::write;
    use tokio::runtime::{Builder, LocalOptions};

    use super::*;
    use crate::status::model::tests::{ALL_CLOSED, api, silent, with};

    fn block_on(test: impl Future<Output = ()>) {
        let builder = &mut Builder::new_current_thread();
        builder.enable_all().build_local(LocalOptions::default()).unwrap().block_on(test);
    }

    fn note(last_ms: i64, words: &str) -> Note {
        Note { first_ms: 1, last_ms, times: 2, tone: Tone::Plain, words: words.to_owned() }
    }

    fn up(name: &str) -> Reading {
        api(name, "6", ALL_CLOSED, "0", "1")
    }

    #[test]
    fn what_all_apis_tell_is_merged_with_what_was_seen_and_the_latest_comes_first() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let run = folder.path();
            tell(&run.join("api-1.notes"), "notes", move || {
                write([note(10, "a"), note(40, "b"), note(40, "later")])
            });
            tell(&run.join("api-2.notes"), "notes", move || write([note(30, "c")]));
            tell(&run.join("api-3.notes"), "notes", || "no note".to_owned());
            let before = Status::of(&[up("api-1"), up("api-2"), up("api-3"), up("lb")]);
            let readings = [up("api-1"), up("api-2"), up("api-3"), silent("lb")];
            let now = Status::of(&readings);
            let mut notes = Notes::default();
            notes.compare(&before, &before, TimestampMs::clamped(19));
            notes.compare(&before, &now, TimestampMs::clamped(20));
            let Told { notes, missing } = notes.gather(run, &readings).await;
            let told: Vec<_> =
                notes.iter().map(|told| (told.daemon.as_str(), told.note.words.as_str())).collect();
            let down = "is down: it does not answer within 1s; it hangs, or is stopped";
            let (later, one) = (("api-1", "later"), ("api-1", "b"));
            assert_eq!(told, [later, one, ("api-2", "c"), ("lb", down), ("api-1", "a")]);
            assert_eq!(missing, ["api-3"]);
            let json = sonic_rs::to_string(&notes[0]).unwrap();
            let expected = r#"{"daemon":"api-1","firstMs":1,"lastMs":40,"times":2,"tone":"plain","words":"later"}"#;
            assert_eq!(json, expected);
        });
    }

    #[test]
    fn an_api_is_asked_again_once_it_noted_more_or_began_anew() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let run = folder.path();
            let asked = Rc::new(Cell::new(0));
            let count = Rc::clone(&asked);
            tell(&run.join("api-1.notes"), "notes", move || {
                count.set(count.get() + 1);
                write([note(count.get(), "a")])
            });
            let later = || with(up("api-1"), "router_notes", "2");
            let mut notes = Notes::default();
            for (reading, count) in [
                (up("api-1"), 1),
                (up("api-1"), 1),
                (later(), 2),
                (later(), 2),
                (with(later(), "process_start_time_seconds", "1001"), 3),
                (up("api-1"), 4),
                (silent("api-1"), 4),
                (up("api-1"), 5),
            ] {
                let is_up = reading.metrics.is_ok();
                let told = notes.gather(run, &[reading]).await;
                assert_eq!(asked.get(), count);
                assert_eq!(told.notes.len(), usize::from(is_up));
                assert!(told.notes.iter().all(|told| told.note.last_ms == count));
                assert!(told.missing.is_empty());
            }
        });
    }
}
