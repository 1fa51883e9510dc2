//! The last decisions, of all APIs together: what they tell themselves ([`ledger::notes`]), and which
//! daemons went and came while somebody watched.

use std::collections::VecDeque;
use std::path::Path;

use ledger::TimestampMs;
use ledger::notes::{NOTES_SUFFIX, Note, Tone, read};
use ledger::volume::instance_number;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::gather::read_text;
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
}

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

    /// Asks all APIs that answer for their notes.
    pub async fn gather(&self, run: &Path, status: &Status) -> Told {
        let mut asking = JoinSet::new();
        for daemon in status.daemons.iter().filter(|daemon| daemon.up) {
            if instance_number(&daemon.name).is_some() {
                let path = run.join(format!("{}{NOTES_SUFFIX}", daemon.name));
                let daemon = daemon.name.clone();
                asking.spawn(async move {
                    let notes = match read_text(&path).await {
                        Ok(text) => read(&text).map_err(|error| error.to_string()),
                        Err(down) => Err(down.to_string()),
                    };
                    (daemon, notes)
                });
            }
        }
        // Of what was at the same moment, too, the latest comes first.
        let mut notes: Vec<_> = self.seen.iter().rev().cloned().collect();
        let mut missing = Vec::new();
        for (daemon, told) in asking.join_all().await {
            match told {
                Ok(told) => {
                    let latest = told.into_iter().rev();
                    notes.extend(latest.map(|note| ToldNote { daemon: daemon.clone(), note }));
                }
                Err(why) => {
                    tracing::debug!("the notes of {daemon} cannot be read: {why}");
                    missing.push(daemon);
                }
            }
        }
        missing.sort_unstable();
        notes.sort_by(|one, other| {
            let key = |told: &ToldNote| (told.note.last_ms, told.note.first_ms);
            key(other).cmp(&key(one)).then_with(|| one.daemon.cmp(&other.daemon))
        });
        notes.truncate(TOLD_MAX);
        Told { notes, missing }
    }
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
    use ledger::metrics::tell;
    use ledger::notes::write;
    use tokio::runtime::{Builder, LocalOptions};

    use super::*;
    use crate::status::model::tests::{ALL_CLOSED, api, silent};

    #[test]
    fn what_all_apis_tell_is_merged_with_what_was_seen_and_the_latest_comes_first() {
        let builder = &mut Builder::new_current_thread();
        let runtime = builder.enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let note = |last_ms, words: &str| Note {
                first_ms: 1,
                last_ms,
                times: 2,
                tone: Tone::Plain,
                words: words.to_owned(),
            };
            let run = folder.path();
            tell(&run.join("api-1.notes"), "notes", move || write([note(10, "a"), note(40, "b"), note(40, "later")]));
            tell(&run.join("api-2.notes"), "notes", move || write([note(30, "c")]));
            tell(&run.join("api-3.notes"), "notes", || "no note".to_owned());
            let up = |name: &str| api(name, "6", ALL_CLOSED, "0", "1");
            let before = Status::of(&[up("api-1"), up("api-2"), up("api-3"), up("lb")]);
            let now = Status::of(&[up("api-1"), up("api-2"), up("api-3"), silent("lb")]);
            let mut notes = Notes::default();
            notes.compare(&before, &before, TimestampMs::clamped(19));
            notes.compare(&before, &now, TimestampMs::clamped(20));
            let Told { notes, missing } = notes.gather(run, &now).await;
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
}
