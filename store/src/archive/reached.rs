//! How far this store knows the archive to be. It outlives the connections, so that a new one can tell what
//! this store wrote, or a database that was brought back from earlier, from what another store wrote.
//!
//! Invariant: a place that is taken in was written by this store, or was there when it first looked.

use std::collections::BTreeMap;

use ledger::journal::Position;
use ledger::volume::instance_name;

use super::error::ArchiveError;
use super::journals::Batch;

/// The places that the archive has reached, by instance.
#[derive(Debug, Default)]
pub struct Reached {
    /// The end of what the database has, as far as is known.
    places: BTreeMap<u16, Position>,
    /// The furthest of those that there ever were.
    furthest: BTreeMap<u16, Position>,
    /// What the last transaction ends with, of which nobody knows whether it was committed.
    sent: BTreeMap<u16, Position>,
}

impl Reached {
    /// What a database has that this store sees for the first time.
    #[must_use]
    pub fn at(places: BTreeMap<u16, Position>) -> Self {
        Self { furthest: places.clone(), places, sent: BTreeMap::new() }
    }

    /// Takes in what a database has once no transaction of this store is under way there. It may have
    /// what was sent or not, and less than it ever had where it was made anew or brought back.
    ///
    /// # Errors
    /// It has what this store did not send.
    pub fn take_up(&mut self, places: BTreeMap<u16, Position>) -> Result<(), ArchiveError> {
        for (instance, place) in &places {
            let furthest = self.furthest.get(instance).copied();
            let is_known = furthest.is_some_and(|furthest| *place <= furthest)
                || self.sent.get(instance) == Some(place);
            if !is_known {
                let furthest = furthest.unwrap_or(Position::START);
                return Err(ArchiveError::taken_over([(*instance, furthest)]));
            }
        }
        self.sent = BTreeMap::new();
        self.set(places);
        Ok(())
    }

    /// Takes in that a batch is about to be sent.
    pub fn send(&mut self, batch: &Batch) {
        self.sent = batch.moves.iter().map(|moved| (moved.instance, moved.after)).collect();
    }

    /// Takes in that a purge is about to be sent, after which the archive has these places alone.
    pub fn send_purge(&mut self, cuts: &BTreeMap<u16, Position>) {
        self.sent.clone_from(cuts);
    }

    /// Takes in that what was sent last is written.
    pub fn written(&mut self) {
        let mut places = self.places.clone();
        places.append(&mut self.sent);
        self.set(places);
    }

    /// Takes in that a purge was carried out: the archive has these places alone.
    pub fn purged(&mut self, cuts: &BTreeMap<u16, Position>) {
        self.sent.clear();
        self.set(cuts.clone());
    }

    /// The end of what the database has, as far as is known.
    #[must_use]
    pub fn places(&self) -> &BTreeMap<u16, Position> {
        &self.places
    }

    fn set(&mut self, places: BTreeMap<u16, Position>) {
        for (instance, place) in &places {
            let furthest = self.furthest.entry(*instance).or_insert(*place);
            *furthest = (*furthest).max(*place);
        }
        self.places = places;
    }
}

impl ArchiveError {
    /// That someone else has archived beyond these places.
    pub fn taken_over(places: impl IntoIterator<Item = (u16, Position)>) -> Self {
        let places: Vec<_> = places
            .into_iter()
            .map(|(instance, place)| format!("{} at {place}", instance_name(instance)))
            .collect();
        Self::TakenOver(places.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::journals::Move;
    use super::*;

    const START: Position = Position::START;

    fn place(index: u32) -> Position {
        Position { segment: 3, index }
    }

    fn places(indexes: &[(u16, u32)]) -> BTreeMap<u16, Position> {
        indexes.iter().map(|(instance, index)| (*instance, place(*index))).collect()
    }

    /// A store that saw 4, has written up to 9 and has sent a batch that ends at 15, and at 7 in a journal
    /// of which nothing was archived.
    fn reached() -> Reached {
        let moved = |instance, before, after| Move { instance, start: START, before, after };
        let mut reached = Reached::at(places(&[(1, 4)]));
        for moves in [
            vec![moved(1, place(4), place(9))],
            vec![moved(1, place(9), place(15)), moved(2, START, place(7))],
        ] {
            reached.written();
            reached.send(&Batch { payments: Vec::new(), moves });
        }
        reached
    }

    #[test]
    fn what_this_store_sent_is_its_own_whether_it_was_written_or_not_and_so_is_an_older_database() {
        for found in [&[(1, 9)][..], &[(1, 15), (2, 7)], &[(1, 4)], &[(1, 2)], &[]] {
            let mut reached = reached();
            reached.take_up(places(found)).unwrap();
            assert_eq!(reached.places(), &places(found));
            // The one that is back after all is no other store's either.
            reached.take_up(places(&[(1, 9)])).unwrap();
        }
    }

    #[test]
    fn what_this_store_did_not_send_is_someone_elses() {
        for found in [&[(1, 16), (2, 7)][..], &[(1, 12)], &[(1, 9), (2, 6)], &[(1, 9), (3, 1)]] {
            let error = reached().take_up(places(found)).unwrap_err();
            assert!(matches!(error, ArchiveError::TakenOver(_)), "{error}");
        }
        // What was sent before is decided: only the last transaction is doubtful.
        let mut reached = reached();
        reached.take_up(places(&[(1, 9)])).unwrap();
        reached.take_up(places(&[(1, 15)])).unwrap_err();
    }

    #[test]
    fn a_purge_whose_answer_was_lost_is_known_by_its_cuts() {
        let mut reached = reached();
        reached.take_up(places(&[(1, 9)])).unwrap();
        reached.send_purge(&places(&[(1, 20), (2, 10)]));
        reached.take_up(places(&[(1, 20), (2, 10)])).unwrap();
        // A journal that is away has no place any more.
        reached.purged(&places(&[(1, 30)]));
        assert_eq!(reached.places(), &places(&[(1, 30)]));
    }
}
