//! Who waits for whom within the one thread of an API: lighter than what tokio has for many threads.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// A bell that one task listens to. Rung before anybody listens, it is heard later; rung many times,
/// it is heard once.
#[derive(Debug, Default)]
pub struct Bell {
    is_rung: Cell<bool>,
    listener: RefCell<Option<Waker>>,
}

impl Bell {
    /// Rings it.
    pub fn ring(&self) {
        self.is_rung.set(true);
        if let Some(listener) = self.listener.borrow_mut().take() {
            listener.wake();
        }
    }

    /// Waits until it was rung since it was last heard.
    pub async fn heard(&self) {
        poll_fn(|context| self.poll_heard(context)).await;
    }

    fn poll_heard(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_rung.take() {
            return Poll::Ready(());
        }
        self.listener.replace(Some(context.waker().clone()));
        Poll::Pending
    }
}

/// A word that is said once, to all who wait for it.
#[derive(Debug)]
pub struct Word<T: Copy> {
    said: Cell<Option<T>>,
    listeners: RefCell<Vec<Waker>>,
}

impl<T: Copy> Default for Word<T> {
    fn default() -> Self {
        Self { said: Cell::new(None), listeners: RefCell::default() }
    }
}

impl<T: Copy> Word<T> {
    /// Says it. The first word counts: what was said stays so.
    pub fn say(&self, word: T) {
        if self.said.get().is_none() {
            self.said.set(Some(word));
            self.listeners.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Waits for it.
    pub async fn heard(&self) -> T {
        poll_fn(|context| self.poll_heard(context)).await
    }

    fn poll_heard(&self, context: &Context<'_>) -> Poll<T> {
        if let Some(word) = self.said.get() {
            return Poll::Ready(word);
        }
        let mut listeners = self.listeners.borrow_mut();
        // A task that is woken by something else comes again, most often before anybody else does.
        if !listeners.last().is_some_and(|last| last.will_wake(context.waker())) {
            listeners.push(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Sleeper(AtomicU32);

    impl Wake for Sleeper {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn woken(sleeper: &Sleeper) -> u32 {
        sleeper.0.load(Ordering::Relaxed)
    }

    #[test]
    fn a_bell_is_heard_once_whenever_it_was_rung() {
        let (bell, sleeper) = (Bell::default(), Arc::new(Sleeper::default()));
        let waker = sleeper.clone().into();
        let mut context = Context::from_waker(&waker);
        bell.ring();
        bell.ring();
        assert_eq!(pin!(bell.heard()).poll(&mut context), Poll::Ready(()));
        let mut hearing = pin!(bell.heard());
        assert_eq!(hearing.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(woken(&sleeper), 0);
        bell.ring();
        bell.ring();
        assert_eq!(woken(&sleeper), 1);
        assert_eq!(hearing.poll(&mut context), Poll::Ready(()));
    }

    #[test]
    fn a_ring_that_woke_a_listener_who_went_away_is_heard_by_the_next_one() {
        let bell = Bell::default();
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(pin!(bell.heard()).poll(&mut context), Poll::Pending);
        bell.ring();
        assert_eq!(pin!(bell.heard()).poll(&mut context), Poll::Ready(()));
    }

    #[test]
    fn a_word_wakes_all_who_wait_once_and_is_heard_by_those_who_come_later() {
        let word = Word::default();
        let sleepers: Vec<_> = (0..3).map(|_| Arc::new(Sleeper::default())).collect();
        for sleeper in &sleepers {
            let waker = sleeper.clone().into();
            let mut context = Context::from_waker(&waker);
            let mut hearing = pin!(word.heard());
            for _ in 0..2 {
                assert_eq!(hearing.as_mut().poll(&mut context), Poll::Pending);
            }
        }
        word.say(1);
        word.say(2);
        assert!(sleepers.iter().all(|sleeper| woken(sleeper) == 1));
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(pin!(word.heard()).poll(&mut context), Poll::Ready(1));
    }
}
