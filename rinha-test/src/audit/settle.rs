//! Waiting until all that was accepted is settled and all books agree, or nothing moves any more.

use std::time::Duration;

use ledger::clock::Monotonic;
use ledger::{Processor, RangeMs};

use super::compare::Books;
use crate::books::BooksError;
use crate::books::processor::ProcessorAdmin;
use crate::books::router::Router;

/// How often the books are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Everyone who keeps books.
pub struct Bookkeepers {
    /// Our router.
    pub router: Router,
    /// The processors, by [`Processor::index`].
    pub processors: [ProcessorAdmin; 2],
}

impl Bookkeepers {
    /// Reads all totals, one after the other: they only belong together when nothing moves.
    ///
    /// # Errors
    /// One of them does not say.
    pub fn read(&self) -> Result<Books, BooksError> {
        let ours = self.router.summary(RangeMs::ALL)?;
        let [default, fallback] =
            Processor::ALL.map(|p| self.processors[p.index()].summary(RangeMs::ALL));
        Ok(Books { ours, processors: [default?, fallback?] })
    }
}

/// What the waiting came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The books when it ended.
    pub books: Books,
    /// How long it took.
    pub elapsed: Duration,
    /// Whether all was settled and agreed; otherwise nothing moved for too long.
    pub in_time: bool,
}

/// Decides when the waiting is over.
struct Waiting {
    /// How many payments our summary should tell of.
    goal: u64,
    /// The books at the beginning.
    before: Books,
    /// How long nothing may move.
    patience: Duration,
    last: Option<Books>,
    moved: Duration,
}

impl Waiting {
    /// Takes in what was seen at a time. Gives whether all is settled once that is known, or that
    /// it was waited for too long.
    fn see(&mut self, books: Books, now: Duration) -> Option<bool> {
        let is_still = self.last == Some(books);
        if !is_still {
            self.last = Some(books);
            self.moved = now;
        }
        // Seen twice alike, or it could be a moment between a record and its summary.
        if is_still && books.settled() >= self.goal && books.to_compare(&self.before).are_equal() {
            return Some(true);
        }
        (now.saturating_sub(self.moved) >= self.patience).then_some(false)
    }
}

/// Waits until our summary tells of this many more payments than `before` and agrees with the
/// processors, or nothing has moved for `patience`, or `go_on` says no. Bookkeepers that do not
/// answer do not move.
///
/// # Errors
/// The books could not be read even once.
pub fn wait(
    bookkeepers: &Bookkeepers,
    before: Books,
    more: u64,
    patience: Duration,
    go_on: &mut dyn FnMut(&Books) -> bool,
) -> Result<Settled, BooksError> {
    let clock = Monotonic::start();
    let goal = before.settled() + more;
    let mut waiting = Waiting { goal, before, patience, last: None, moved: Duration::ZERO };
    loop {
        let now = clock.elapsed();
        match bookkeepers.read() {
            Ok(books) => {
                if let Some(in_time) = waiting.see(books, now) {
                    return Ok(Settled { books, elapsed: now, in_time });
                }
                if !go_on(&books) {
                    return Ok(Settled { books, elapsed: now, in_time: false });
                }
            }
            Err(error) => {
                if now.saturating_sub(waiting.moved) >= patience {
                    let books = waiting.last.ok_or(error)?;
                    return Ok(Settled { books, elapsed: now, in_time: false });
                }
            }
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use ledger::{Cents, Totals};

    use super::*;

    fn books(ours: u64, processors: u64) -> Books {
        let totals = |count: u64| {
            let amount = Cents::new(i64::try_from(count).unwrap());
            [Totals { count, amount }, Totals::default()]
        };
        Books { ours: totals(ours), processors: totals(processors) }
    }

    fn see_all(seen: &[(u64, Books)]) -> Vec<Option<bool>> {
        let patience = Duration::from_mins(1);
        let mut waiting = Waiting {
            goal: 10,
            before: Books::default(),
            patience,
            last: None,
            moved: Duration::ZERO,
        };
        seen.iter().map(|(at, books)| waiting.see(*books, Duration::from_secs(*at))).collect()
    }

    #[test]
    fn it_is_over_when_all_is_settled_and_equal_and_stays_so() {
        assert_eq!(
            see_all(&[(1, books(9, 10)), (2, books(10, 10)), (3, books(10, 10))]),
            [None, None, Some(true)]
        );
        assert_eq!(see_all(&[(1, books(11, 11)), (2, books(11, 11))]), [None, Some(true)]);
    }

    #[test]
    fn it_is_over_when_nothing_moves_for_too_long_and_not_while_it_does() {
        let seen = [(1, books(5, 5)), (60, books(5, 5)), (61, books(5, 5))];
        assert_eq!(see_all(&seen), [None, None, Some(false)]);
        let seen = [(1, books(5, 5)), (60, books(6, 5)), (119, books(6, 6)), (178, books(6, 6))];
        assert_eq!(see_all(&seen), [None; 4]);
    }

    #[test]
    fn unequal_books_are_waited_for() {
        let seen = [(1, books(10, 11)), (2, books(10, 11)), (61, books(10, 11))];
        assert_eq!(see_all(&seen), [None, None, Some(false)]);
    }
}
