//! One gathering for all who ask at about the same time.
//!
//! Every gathering makes every daemon write its page on the thread that takes payments in. So
//! whoever asks while one is under way waits for it, and what it gave is given to others for
//! [`REUSE_FOR`]: however many ask, the daemons are asked a few times a second. An error costs them
//! nothing, and is not kept.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::gather::{GatherError, Reading, gather};

/// For how long readings are given to others, from when the last daemon had answered.
pub const REUSE_FOR: Duration = Duration::from_millis(250);

type Clock = Box<dyn Fn() -> Duration>;

/// Gathers from the daemons whose sockets are in one folder.
pub struct SharedGathering {
    run: PathBuf,
    clock: Clock,
    last: Mutex<Option<(Duration, Rc<[Reading]>)>>,
}

impl SharedGathering {
    /// Nothing is gathered yet. The clock says what has passed since it began.
    #[must_use]
    pub fn new(run: PathBuf, clock: impl Fn() -> Duration + 'static) -> Self {
        Self { run, clock: Box::new(clock), last: Mutex::new(None) }
    }

    /// What all daemons told, as of a moment ago at most.
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
        // Held while the daemons are asked: that is what others wait for. Who goes away gives it
        // up.
        let mut last = self.last.lock().await;
        if let Some((at, readings)) = &*last
            && (self.clock)().saturating_sub(*at) < REUSE_FOR
        {
            return Ok((*at, Rc::clone(readings)));
        }
        let readings: Rc<[Reading]> = gather(&self.run).await?.into();
        let at = (self.clock)();
        *last = Some((at, Rc::clone(&readings)));
        Ok((at, readings))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ledger::metrics::publish;
    use ledger::volume::metrics_socket;
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::spawn_local;

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
}
