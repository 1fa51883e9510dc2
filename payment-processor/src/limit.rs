//! How many payments may run at the same time, and how many may wait for their turn.
//!
//! Those that wait run in the order in which they came. What runs is never more than the limit;
//! between a payment that ends and the next one that comes the count may be one too high for an
//! instant, never too low.

use std::sync::atomic::{AtomicUsize, Ordering};

use may::sync::Semphore;

/// The limit.
#[derive(Debug)]
pub struct Limit {
    /// Running and waiting.
    admitted_count: AtomicUsize,
    admitted_count_max: usize,
    /// One for each that may run.
    turns: Semphore,
}

/// The right to run, given back when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Turn<'a> {
    limit: &'a Limit,
}

impl Limit {
    /// A limit of so many that run and so many that wait.
    #[must_use]
    pub fn new(running_max: usize, waiting_max: usize) -> Self {
        Self {
            admitted_count: AtomicUsize::new(0),
            admitted_count_max: running_max.saturating_add(waiting_max),
            turns: Semphore::new(running_max),
        }
    }

    /// Takes a turn, after a wait where all that may run do. `None` where no more may wait.
    pub fn enter(&self) -> Option<Turn<'_>> {
        self.admitted_count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < self.admitted_count_max).then_some(count + 1)
            })
            .ok()?;
        self.turns.wait();
        Some(Turn { limit: self })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // In this order, or one more than allowed might wait for an instant.
        self.limit.turns.post();
        self.limit.admitted_count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Only a test that fails waits for so long.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn limit(running_max: usize, waiting_max: usize) -> &'static Limit {
        Box::leak(Box::new(Limit::new(running_max, waiting_max)))
    }

    /// Enters where there is nothing to wait for.
    fn enter_now(limit: &'static Limit) -> Option<Turn<'static>> {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(limit.enter()));
        receiver.recv_timeout(PATIENCE).expect("it waits")
    }

    /// Enters in a thread that has to wait: this returns once it does, behind those before it.
    fn enter_later(
        limit: &'static Limit,
        waiting_count: isize,
        then: impl FnOnce() + Send + 'static,
    ) {
        thread::spawn(move || {
            let _turn = limit.enter().unwrap();
            then();
        });
        // A negative count of the semaphore's is the number of those that wait in its queue.
        let waiting = format!("cnt: -{waiting_count} ");
        for _ in 0..PATIENCE.as_millis() {
            if format!("{:?}", limit.turns).contains(&waiting) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("it does not wait: {limit:?}");
    }

    #[test]
    fn with_no_room_to_wait_one_beyond_the_limit_is_refused_until_one_ends() {
        let limit = limit(2, 0);
        let first = enter_now(limit).unwrap();
        let _second = enter_now(limit).unwrap();
        assert!(enter_now(limit).is_none());
        drop(first);
        assert!(enter_now(limit).is_some());
    }

    #[test]
    fn those_that_wait_run_in_the_order_in_which_they_came_and_no_more_wait_than_may() {
        let limit = limit(1, 3);
        let running = enter_now(limit).unwrap();
        let (sender, receiver) = mpsc::channel();
        for number in 1..=3 {
            let sender = sender.clone();
            enter_later(limit, number, move || sender.send(number).unwrap());
        }
        assert!(enter_now(limit).is_none());
        assert!(receiver.try_recv().is_err());
        drop(running);
        for number in 1..=3 {
            assert_eq!(receiver.recv_timeout(PATIENCE), Ok(number));
        }
    }
}
