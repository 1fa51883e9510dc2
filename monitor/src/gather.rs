//! Asks every daemon for its metrics, all at the same time.
//!
//! A daemon is known by its socket `DIR/run/NAME.metrics`, or by the lock beside it, which stays
//! when the daemon has ended in order. So a daemon that was ever started is told as down until that
//! file is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger::metrics::METRICS_SUFFIX;
use ledger::socket::{LOCK_SUFFIX, check_server};
use ledger::volume::metrics_socket;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::text::{Exposition, Kind, Name, TextError};

/// How long a daemon may take to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that a daemon may answer.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Bytes that a daemon answers usually.
const ANSWER_BYTES: usize = 16 << 10;

/// Daemons of one router.
pub const DAEMONS_MAX: usize = 64;

/// Why nothing is known of a daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonDown {
    /// Nobody listens at its socket.
    #[error("it has ended, or is still starting: {0}")]
    Gone(io::Error),
    /// It cannot be connected to, the connection breaks, or is not with a process of the same user.
    #[error("it cannot be read: {0}")]
    Broken(io::Error),
    /// It does not answer in time.
    #[error("it does not answer within {ANSWER_TIMEOUT:?}; it hangs, or is stopped")]
    Silent,
    /// It answers too much.
    #[error("it answers more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    /// It answers something else.
    #[error("its answer is not understood: {0}")]
    Text(#[from] TextError),
    /// It means something else by a name than another daemon.
    #[error("it calls {name} a {kind}, as another daemon does not; are both of one version?")]
    Conflict {
        /// The family.
        name: String,
        /// What this daemon says that it is.
        kind: Kind,
    },
}

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The folder of sockets cannot be read.
    #[error("cannot look for daemons in {path}: {source}; is --data the folder of a router?")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// There are more daemons than any router has.
    #[error(
        "there are more than {DAEMONS_MAX} daemons in {path}; remove the files of those that are gone"
    )]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
    /// This process ends.
    #[error("the daemons are not asked any more: {0}")]
    Given(io::Error),
}

/// What a daemon told, or why it did not.
#[derive(Debug)]
pub struct Reading {
    /// Its name.
    pub daemon: String,
    /// All its metrics.
    pub metrics: Result<Exposition, DaemonDown>,
}

/// Asks all daemons whose sockets are, or were, in this folder. In the order of their names.
///
/// # Errors
/// The folder cannot be read.
pub async fn gather(run: &Path) -> Result<Vec<Reading>, GatherError> {
    let mut asking = JoinSet::new();
    for daemon in known_daemons(run)? {
        let path = metrics_socket(run, &daemon);
        asking.spawn(async move { Reading { metrics: read(&path).await, daemon } });
    }
    let mut readings = asking.join_all().await;
    readings.sort_unstable_by(|one, other| one.daemon.cmp(&other.daemon));
    refuse_conflicts(&mut readings);
    Ok(readings)
}

fn known_daemons(run: &Path) -> Result<BTreeSet<String>, GatherError> {
    let failed = |source| GatherError::Folder { path: run.to_owned(), source };
    let mut daemons = BTreeSet::new();
    for entry in run.read_dir().map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        let name = name.strip_suffix(LOCK_SUFFIX).unwrap_or(name);
        if let Some(daemon) = name.strip_suffix(METRICS_SUFFIX).filter(|daemon| is_name(daemon)) {
            daemons.insert(daemon.to_owned());
        }
        if daemons.len() > DAEMONS_MAX {
            return Err(GatherError::TooMany { path: run.to_owned() });
        }
    }
    Ok(daemons)
}

/// Other names are of files that are no daemon's, and would be in the way in a table.
fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !text.is_empty() && text.bytes().all(is_part)
}

async fn read(path: &Path) -> Result<Exposition, DaemonDown> {
    Ok(Exposition::parse(read_text(path).await?)?)
}

/// What a daemon tells on a socket, all of it.
///
/// # Errors
/// It does not, or nothing that is a text.
pub async fn read_text(path: &Path) -> Result<String, DaemonDown> {
    let answer = timeout(ANSWER_TIMEOUT, answer(path)).await;
    let bytes = answer.map_err(|_| DaemonDown::Silent).flatten()?;
    String::from_utf8(bytes).map_err(|error| {
        DaemonDown::Broken(io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
    })
}

async fn answer(path: &Path) -> Result<Vec<u8>, DaemonDown> {
    let stream = UnixStream::connect(path).await.map_err(unconnected)?;
    check_server(&stream, path).map_err(DaemonDown::Broken)?;
    let mut bytes = Vec::with_capacity(ANSWER_BYTES);
    let limit = ANSWER_BYTES_MAX as u64 + 1;
    stream.take(limit).read_to_end(&mut bytes).await.map_err(DaemonDown::Broken)?;
    if bytes.len() > ANSWER_BYTES_MAX {
        return Err(DaemonDown::TooLong);
    }
    Ok(bytes)
}

/// Why a daemon cannot be connected to.
fn unconnected(error: io::Error) -> DaemonDown {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => DaemonDown::Gone(error),
        // More wait to be accepted than the socket takes.
        io::ErrorKind::WouldBlock => DaemonDown::Silent,
        _ => DaemonDown::Broken(error),
    }
}

/// A name means one thing in a text of all daemons: who means another by it than those before is
/// not understood.
fn refuse_conflicts(readings: &mut [Reading]) {
    let mut owners: BTreeMap<Name<'_>, (&str, Kind)> = BTreeMap::new();
    let mut refused = Vec::new();
    for (at, reading) in readings.iter().enumerate() {
        let Ok(metrics) = &reading.metrics else { continue };
        let conflict = metrics.families().find(|family| {
            let is_anothers =
                |name| owners.get(&name).is_some_and(|other| *other != (family.name, family.kind));
            family.names().any(is_anothers)
        });
        if let Some(family) = conflict {
            refused.push((at, family.name.to_owned(), family.kind));
            continue;
        }
        for family in metrics.families() {
            owners.extend(family.names().map(|name| (name, (family.name, family.kind))));
        }
    }
    for (at, name, kind) in refused {
        readings[at].metrics = Err(DaemonDown::Conflict { name, kind });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ledger::metrics::publish;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixListener;
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::spawn_local;

    use super::*;
    use crate::text::Family;

    fn block_on(test: impl Future<Output = ()>) {
        let builder = &mut Builder::new_current_thread();
        builder.enable_all().build_local(LocalOptions::default()).unwrap().block_on(test);
    }

    /// A daemon that answers this, and then closes if it is to.
    fn answering(path: &Path, text: String, closes: bool) {
        let listener = UnixListener::bind(path).unwrap();
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The reader may have had enough.
            let _ = stream.write_all(text.as_bytes()).await;
            if !closes {
                std::future::pending::<()>().await;
            }
        });
    }

    #[test]
    fn a_daemon_that_does_not_answer_as_it_should_keeps_nobody_else_from_being_told() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let run = folder.path();
            let asked = Cell::new(0);
            publish(&metrics_socket(run, "api-1"), move |page| {
                asked.set(asked.get() + 1);
                page.counter("router_asked", "Asked", asked.get());
            });
            let text = "# HELP router_asked Asked.\n# TYPE router_asked gauge\nrouter_asked 1\n";
            let whole = format!("{text}# EOF\n");
            answering(&metrics_socket(run, "breaks-off"), text.to_owned(), true);
            answering(&metrics_socket(run, "conflict"), whole.clone(), true);
            answering(&metrics_socket(run, "hangs"), whole, false);
            answering(&metrics_socket(run, "long"), "a".repeat(ANSWER_BYTES_MAX + 1), true);
            drop(UnixListener::bind(metrics_socket(run, "killed")).unwrap());
            let others = ["store.sock", "store.sock.lock", "lb.pid", ".metrics", "a b.metrics"];
            for other in others.into_iter().chain(["ended.metrics.lock"]) {
                std::fs::write(run.join(other), "").unwrap();
            }
            for round in 1..=2_u64 {
                let readings = gather(run).await.unwrap();
                let told: Vec<_> = readings
                    .iter()
                    .map(|Reading { daemon, metrics }| match metrics {
                        Ok(metrics) => {
                            let mut samples = metrics.families().flat_map(Family::samples);
                            format!("{daemon}: {}", samples.next().unwrap().value)
                        }
                        Err(down) => format!("{daemon} is down: {down}"),
                    })
                    .collect();
                let expected = [
                    format!("api-1: {round}"),
                    "breaks-off is down: its answer is not understood: it breaks off".to_owned(),
                    "conflict is down: it calls router_asked a gauge".to_owned(),
                    "ended is down: it has ended, or is still starting: No such file".to_owned(),
                    "hangs is down: it does not answer within 1s".to_owned(),
                    "killed is down: it has ended, or is still starting: Connection ref".to_owned(),
                    "long is down: it answers more than 1048576 bytes".to_owned(),
                ];
                // The stand-ins answer once.
                let count = if round == 1 { expected.len() } else { 1 };
                assert_eq!(told.len(), expected.len(), "{told:?}");
                for (told, expected) in told.iter().zip(&expected).take(count) {
                    assert!(told.starts_with(expected), "{told}");
                }
            }
        });
    }

    #[test]
    fn why_a_daemon_cannot_be_connected_to_is_told_as_it_is() {
        for (kind, sentence) in [
            (io::ErrorKind::NotFound, "it has ended, or is still starting: "),
            (io::ErrorKind::ConnectionRefused, "it has ended, or is still starting: "),
            (io::ErrorKind::WouldBlock, "it does not answer within 1s"),
            (io::ErrorKind::PermissionDenied, "it cannot be read: permission denied"),
        ] {
            let told = unconnected(kind.into()).to_string();
            assert!(told.starts_with(sentence), "{told}");
        }
    }

    #[test]
    fn a_name_that_would_be_written_as_anothers_is_a_conflict() {
        let reading = |daemon: &str, name: &str, kind: Kind| Reading {
            daemon: daemon.to_owned(),
            metrics: Ok(Exposition::parse(format!(
                "# HELP {name} Help.\n# TYPE {name} {kind}\n# EOF\n"
            ))
            .unwrap()),
        };
        let counter = ("a", Kind::Counter);
        for (other, is_refused) in [
            (counter, false),
            (("a", Kind::Gauge), true),
            (("a_total", Kind::Gauge), true),
            (("b", Kind::Gauge), false),
        ] {
            for [first, second] in [[counter, other], [other, counter]] {
                let mut readings =
                    [reading("one", first.0, first.1), reading("two", second.0, second.1)];
                refuse_conflicts(&mut readings);
                assert!(readings[0].metrics.is_ok());
                assert_eq!(readings[1].metrics.is_err(), is_refused, "{first:?}, {second:?}");
            }
        }
    }

    #[test]
    fn a_folder_that_is_none_or_is_full_is_an_error_that_names_it() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let missing = folder.path().join("run");
            let error = gather(&missing).await.unwrap_err().to_string();
            assert!(error.contains("/run: No such file") && error.contains("--data"), "{error}");
            for number in 0..=DAEMONS_MAX {
                std::fs::write(metrics_socket(folder.path(), &number.to_string()), "").unwrap();
            }
            let error = gather(folder.path()).await.unwrap_err().to_string();
            assert!(error.contains("more than 64 daemons"), "{error}");
        });
    }
}
