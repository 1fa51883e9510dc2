//! One gathering for all who ask at about the same time.
//!
//! Every gathering makes every daemon write its page on the thread that takes payments in. So
//! whoever asks while one is under way waits for it, and what it gave is given to others for
//! [`REUSE_FOR`]: however many ask, the daemons are asked a few times a second. A gathering comes to its
//! end also where nobody waits for it any more, so that at a daemon that hangs no more than one is under
//! way. An error costs the daemons nothing, and is not kept.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::spawn_local;

use crate::gather::{GatherError, Reading, gather};

/// For how long readings are given to others, from when the last daemon had answered.
pub const REUSE_FOR: Duration = Duration::from_millis(250);

type Clock = Rc<dyn Fn() -> Duration>;

/// What was gathered, and when the last daemon had answered.
type Gathered = (Duration, Rc<[Reading]>);

/// Gathers from the daemons whose sockets are in one folder.
pub struct SharedGathering {
    run: PathBuf,
    clock: Clock,
    last: Arc<Mutex<Option<Gathered>>>,
}

impl SharedGathering {
    /// Nothing is gathered yet. The clock says what has passed since it began.
    #[must_use]
    pub fn new(run: PathBuf, clock: impl Fn() -> Duration + 'static) -> Self {
        Self { run, clock: Rc::new(clock), last: Arc::default() }
    }

    /// What all daemons told, as of a moment ago at most. Must be called on a
    /// [`tokio::runtime::LocalRuntime`].
    ///
    /// # Errors
    /// See [`gather`].
    pub async fn readings(&self) -> Result<Rc<[Reading]>, GatherError> {
        self.gathered().await.map(|(_, readings)| readings)
    }

    /// As [`SharedGathering::readings`], with the time at which the last daemon had answered.
    ///
    /// # Errors
    /// See [`gather`].
    pub async fn gathered(&self) -> Result<(Duration, Rc<[Reading]>), GatherError> {
        // Held while the daemons are asked: that is what others wait for.
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some((at, readings)) = &*last
            && (self.clock)().saturating_sub(*at) < REUSE_FOR
        {
            return Ok((*at, Rc::clone(readings)));
        }
        let (run, clock) = (self.run.clone(), Rc::clone(&self.clock));
        let gathering = spawn_local(async move {
            let readings: Rc<[Reading]> = gather(&run).await?.into();
            let gathered = (clock(), readings);
            *last = Some(gathered.clone());
            Ok(gathered)
        });
        gathering.await.map_err(|error| GatherError::Given(io::Error::from(error)))?
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ledger::metrics::publish;
    use ledger::volume::metrics_socket;
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn many_who_ask_together_or_soon_after_make_the_daemon_tell_once() {
        let builder = &mut Builder::new_current_thread();
        let runtime = builder.enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let (asked, now) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(Duration::ZERO)));
            let count = Rc::clone(&asked);
            publish(&metrics_socket(folder.path(), "api-1"), move |_| count.set(count.get() + 1));
            let clock = Rc::clone(&now);
            let shared = SharedGathering::new(folder.path().to_owned(), move || clock.get());
            let shared = Rc::new(shared);
            let asking: Vec<_> = (0..20)
                .map(|_| {
                    let shared = Rc::clone(&shared);
                    spawn_local(async move { shared.readings().await.unwrap().len() })
                })
                .collect();
            for answer in asking {
                assert_eq!(answer.await.unwrap(), 1);
            }
            assert_eq!(asked.get(), 1);
            now.set(REUSE_FOR.saturating_sub(Duration::from_millis(1)));
            shared.readings().await.unwrap();
            assert_eq!(asked.get(), 1);
            now.set(REUSE_FOR);
            shared.readings().await.unwrap();
            assert_eq!(asked.get(), 2);
        });
    }

    #[test]
    fn those_who_go_away_leave_no_more_than_one_question_at_a_daemon_that_hangs() {
        let builder = &mut Builder::new_current_thread();
        let runtime = builder.enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = metrics_socket(folder.path(), "api-1");
            let daemon = std::os::unix::net::UnixListener::bind(path).unwrap();
            daemon.set_nonblocking(true).unwrap();
            let shared = SharedGathering::new(folder.path().to_owned(), || Duration::ZERO);
            for _ in 0..20 {
                // They go away before an answer, unless the machine is slow.
                let _ = timeout(Duration::from_millis(5), shared.readings()).await;
            }
            let readings = shared.readings().await.unwrap();
            assert!(readings[0].metrics.is_err());
            assert_eq!(std::iter::from_fn(|| daemon.accept().ok()).count(), 1);
        });
    }
}
