//! Which of the accepted payments may be sent: each correlation id by one record alone.
//!
//! Two instances may take in the same id, and neither asks the other. Before an instance sends
//! anything it claims what it has accepted up to a place in its journal. The store decides in the
//! order of claims: the first record with an id has the right to it, every later one loses and is
//! closed as a duplicate. The claim is in the claim log before the instance hears of it, so the
//! order survives a crash of the store, and with it every decision.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use ledger::CorrelationId;
use ledger::disk::Disk;
use ledger::journal::{PaymentRecord, Position};
use ledger::protocol::{CLAIM_RECORDS_MAX, PurgeNotice};

use crate::claims::{Checkpoint, Claim, ClaimLog, ClaimsError, DecidedBefore, JournalMark, Kept};
use crate::index::{Decision, Index, Kind, LookError};

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    /// The claim could not be written down. It can be made again.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    /// The index could not be read. What was decided is only known after a new start.
    #[error(transparent)]
    Look(#[from] LookError),
}

/// What was decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decided {
    /// All accepted payments before this place are decided.
    pub through: Position,
    /// Those that lost, and that the instance was not told of before.
    pub losers: Vec<Position>,
}

/// What an instance asks for, before anybody has decided upon it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undecided {
    /// The payments are all that are undecided before this place.
    pub through: Position,
    /// Accepted payments, in order.
    pub payments: Vec<(Position, CorrelationId)>,
}

/// How one instance stands.
struct Standing {
    /// What lies before was made void by the last purge.
    cut: Position,
    /// The end of what is decided.
    decided: Position,
    /// Which journal that is.
    journal: Option<JournalMark>,
    /// Accepted payments from there on, in order.
    undecided: VecDeque<(Position, CorrelationId)>,
    /// Payments that lost, until the journal closes them.
    losers: BTreeMap<CorrelationId, Position>,
    /// Those of them that the instance was not told of since it connected.
    untold: BTreeSet<Position>,
    /// By id the last record that closes a duplicate, where others decide, while something is undecided:
    /// what lies before it and loses is closed already.
    closed: HashMap<CorrelationId, Position>,
}

impl Standing {
    fn new(cut: Position, decided: Position) -> Self {
        Self {
            cut,
            decided: decided.max(cut),
            journal: None,
            undecided: VecDeque::new(),
            losers: BTreeMap::new(),
            untold: BTreeSet::new(),
            closed: HashMap::new(),
        }
    }
}

/// The decisions about all journals.
pub struct Decisions<D: Disk> {
    log: ClaimLog<D>,
    same_boot: bool,
    remembers_claims: bool,
    purge: u64,
    instances: BTreeMap<u16, Standing>,
    /// Payments that were at a processor, or on their way, when the last purge came: their ids stay
    /// taken. With the last record about each.
    survivors: HashMap<CorrelationId, PaymentRecord>,
}

impl<D: Disk> Decisions<D> {
    /// Takes up the decisions of the store before, from its claim log.
    ///
    /// The claims that are given back are decided again with [`Decisions::decide_again`], in their
    /// order, once all journals were read.
    ///
    /// # Errors
    /// Another store runs, or the log cannot be read, or is damaged.
    pub fn open(disk: D, boot_id: [u8; 16]) -> Result<(Self, Vec<Claim>), ClaimsError> {
        let (log, Kept { checkpoint, claims, same_boot }) = ClaimLog::open(disk, boot_id)?;
        let Checkpoint { purge, cuts, decided, losers } = checkpoint;
        let mut instances = BTreeMap::new();
        for instance in cuts.keys().chain(decided.keys()).copied() {
            let cut = cuts.get(&instance).copied().unwrap_or(Position::START);
            let (through, journal) = match decided.get(&instance) {
                Some(DecidedBefore { through, journal }) => (*through, *journal),
                None => (cut, None),
            };
            instances.insert(instance, Standing { journal, ..Standing::new(cut, through) });
        }
        let survivors = HashMap::new();
        let remembers_claims = same_boot;
        let mut decisions = Self { log, same_boot, remembers_claims, purge, instances, survivors };
        for ((instance, position), id) in losers {
            decisions.standing(instance).losers.insert(id, position);
        }
        for claim in &claims {
            if let Some(mark) = claim.journal {
                decisions.set_journal(claim.instance, mark);
            }
        }
        Ok((decisions, claims))
    }

    /// Forgets what was decided, because someone else remembers it: what the journals do not say is
    /// asked again.
    pub fn forget_claims(&mut self) {
        self.remembers_claims = false;
        for standing in self.instances.values_mut() {
            let journal = standing.journal;
            *standing = Standing { journal, ..Standing::new(standing.cut, standing.cut) };
        }
    }

    /// Takes in which journal an instance has.
    pub fn set_journal(&mut self, instance: u16, mark: JournalMark) {
        self.standing(instance).journal = Some(mark);
    }

    /// Which journal was decided upon, where that is known.
    #[must_use]
    pub fn journal(&self, instance: u16) -> Option<JournalMark> {
        self.instances.get(&instance)?.journal
    }

    /// The instances of which something is known.
    pub fn known(&self) -> impl Iterator<Item = u16> {
        self.instances.keys().copied()
    }

    /// Whether anything is known of an instance.
    #[must_use]
    pub fn knows(&self, instance: u16) -> bool {
        self.instances.contains_key(&instance)
    }

    /// The end of what is decided in an instance's journal.
    #[must_use]
    pub fn decided(&self, instance: u16) -> Position {
        self.instances.get(&instance).map_or(Position::START, |standing| standing.decided)
    }

    /// Whether what the store before decided is known from its claim log.
    #[must_use]
    pub fn remembers_claims(&self) -> bool {
        self.remembers_claims
    }

    /// The last purge as an instance hears of it.
    #[must_use]
    pub fn purge_notice(&self, instance: u16) -> PurgeNotice {
        PurgeNotice { purge: self.purge, cut: self.cut(instance) }
    }

    /// Whether the store before ran since the machine was started. If not, what it made of the
    /// journals may have more than they have.
    #[must_use]
    pub fn same_boot(&self) -> bool {
        self.same_boot
    }

    /// Takes as decided what an instance accepted before a place, unless more is decided already.
    pub fn set_decided(&mut self, instance: u16, through: Position) {
        let standing = self.standing(instance);
        standing.decided = standing.decided.max(through);
    }

    /// The number of the last purge.
    #[must_use]
    pub fn purge(&self) -> u64 {
        self.purge
    }

    /// The end of what the last purge made void in an instance's journal.
    #[must_use]
    pub fn cut(&self, instance: u16) -> Position {
        self.instances.get(&instance).map_or(Position::START, |standing| standing.cut)
    }

    /// Takes in the next record of an instance's journal.
    pub fn record(
        &mut self,
        index: &mut Index<D>,
        instance: u16,
        position: Position,
        record: &PaymentRecord,
    ) {
        let kind = Kind::of(&record.event);
        index.record(instance, position, record.id, kind);
        let remembers_claims = self.remembers_claims;
        let standing = self.standing(instance);
        match kind {
            // It was decided upon before the store was started.
            Kind::Accepted if position < standing.decided => {
                let lost = standing.losers.get(&record.id) == Some(&position);
                index.mark_decided(instance, position, record.id, lost);
            }
            Kind::Accepted => standing.undecided.push_back((position, record.id)),
            // An earlier payment with the id may have lost as well, and be closed by this record.
            Kind::Duplicate => {
                if !remembers_claims && !standing.undecided.is_empty() {
                    standing.closed.insert(record.id, position);
                }
                let loser = standing.losers.get(&record.id).copied();
                if let Some(loser) = loser.filter(|loser| *loser < position) {
                    standing.losers.remove(&record.id);
                    standing.untold.remove(&loser);
                }
            }
            Kind::Failed | Kind::Dispatched | Kind::Refused | Kind::Settled => {}
        }
    }

    /// Takes in that an instance has connected anew, and knows of no decision.
    pub fn greet(&mut self, instance: u16) {
        let standing = self.standing(instance);
        standing.untold = standing.losers.values().copied().collect();
    }

    /// Decides upon what an instance accepted before a place, or upon the first part of it, and
    /// writes that down.
    ///
    /// # Errors
    /// See [`DecisionError`].
    pub fn claim(
        &mut self,
        index: &mut Index<D>,
        instance: u16,
        through: Position,
    ) -> Result<Decided, DecisionError> {
        let standing = self.standing(instance);
        let undecided = standing.undecided.get(CLAIM_RECORDS_MAX).map(|(position, _)| *position);
        let through = undecided.map_or(through, |position| position.min(through));
        let is_new = standing.undecided.front().is_some_and(|(position, _)| *position < through);
        if is_new {
            let journal = standing.journal;
            self.log.append(Claim { instance, through, journal })?;
            self.decide(index, instance, through)?;
        }
        if self.log.is_long() {
            self.keep()?;
        }
        Ok(self.tell(instance, through))
    }

    /// What an instance has accepted before a place and nobody has decided upon, or the first part of
    /// it.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn undecided(
        &mut self,
        index: &Index<D>,
        instance: u16,
        through: Position,
    ) -> Result<Undecided, LookError> {
        let standing = self.standing(instance);
        let undecided = &standing.undecided;
        let next = undecided.get(CLAIM_RECORDS_MAX).map(|(position, _)| *position);
        let through = next.map_or(through, |position| position.min(through));
        let mut payments = Vec::new();
        for (position, id) in undecided.iter().take_while(|(position, _)| *position < through) {
            let is_closed = standing.closed.get(id).is_some_and(|closed| closed > position);
            if !is_closed && !index.is_known_already(instance, *position, *id)? {
                payments.push((*position, *id));
            }
        }
        Ok(Undecided { through, payments })
    }

    /// Takes in what was decided elsewhere upon everything that an instance accepted before a place:
    /// these lost, and all others have the right to their ids, or had it before.
    pub fn decide_as(
        &mut self,
        index: &mut Index<D>,
        instance: u16,
        through: Position,
        losers: &BTreeSet<Position>,
    ) -> Decided {
        while let Some((position, id)) = self.next_undecided(instance, through) {
            let standing = self.standing(instance);
            let is_closed = standing.closed.get(&id).is_some_and(|closed| *closed > position);
            let lost = losers.contains(&position);
            index.mark_decided(instance, position, id, lost || is_closed);
            if lost && !is_closed {
                let standing = self.standing(instance);
                standing.losers.insert(id, position);
                standing.untold.insert(position);
            }
        }
        let standing = self.standing(instance);
        standing.decided = standing.decided.max(through);
        if standing.undecided.is_empty() {
            standing.closed = HashMap::new();
        }
        self.tell(instance, through)
    }

    /// What an instance is told once everything before a place is decided.
    fn tell(&mut self, instance: u16, through: Position) -> Decided {
        let standing = self.standing(instance);
        let mut losers: Vec<_> = standing.untold.range(..through).copied().collect();
        let mut told_through = through;
        if losers.len() > CLAIM_RECORDS_MAX {
            told_through = losers[CLAIM_RECORDS_MAX];
            losers.truncate(CLAIM_RECORDS_MAX);
        }
        for loser in &losers {
            standing.untold.remove(loser);
        }
        Decided { through: told_through, losers }
    }

    /// Decides upon a claim that the store before had written down.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn decide_again(&mut self, index: &mut Index<D>, claim: Claim) -> Result<(), LookError> {
        self.decide(index, claim.instance, claim.through)
    }

    fn decide(
        &mut self,
        index: &mut Index<D>,
        instance: u16,
        through: Position,
    ) -> Result<(), LookError> {
        while let Some((position, id)) = self.next_undecided(instance, through) {
            let lost = match index.decide(instance, position, id)? {
                Decision::HasRight => self.survivors.contains_key(&id),
                Decision::Lost => true,
                Decision::KnownAlready => false,
            };
            if lost {
                let standing = self.standing(instance);
                standing.losers.insert(id, position);
                standing.untold.insert(position);
            }
        }
        let standing = self.standing(instance);
        standing.decided = standing.decided.max(through);
        Ok(())
    }

    fn next_undecided(
        &mut self,
        instance: u16,
        through: Position,
    ) -> Option<(Position, CorrelationId)> {
        let undecided = &mut self.standing(instance).undecided;
        let (position, _) = undecided.front()?;
        if *position < through { undecided.pop_front() } else { None }
    }

    /// Whether all that an instance accepted in this segment and before is decided, and its journal
    /// says which of it lost: only then may the records be forgotten.
    #[must_use]
    pub fn is_decided(&self, instance: u16, segment: u32) -> bool {
        let Some(standing) = self.instances.get(&instance) else { return true };
        let undecided = standing.undecided.front().map(|(position, _)| *position);
        let first = undecided.into_iter().chain(standing.losers.values().copied()).min();
        first.is_none_or(|position| position.segment > segment)
    }

    /// What is known of a payment that a purge left open.
    #[must_use]
    pub fn survivor(&self, id: CorrelationId) -> Option<&PaymentRecord> {
        self.survivors.get(&id)
    }

    /// Sets the payments that the last purge left open, before anything is decided.
    pub fn set_survivors(&mut self, survivors: HashMap<CorrelationId, PaymentRecord>) {
        self.survivors = survivors;
    }

    /// Begins a new claim log with all that still matters.
    ///
    /// # Errors
    /// The disk refuses; the log before stays.
    pub fn keep(&mut self) -> Result<(), ClaimsError> {
        let mut checkpoint = Checkpoint { purge: self.purge, ..Checkpoint::default() };
        for (instance, standing) in &self.instances {
            checkpoint.cuts.insert(*instance, standing.cut);
            let (through, journal) = (standing.decided, standing.journal);
            checkpoint.decided.insert(*instance, DecidedBefore { through, journal });
            for (id, position) in &standing.losers {
                checkpoint.losers.insert((*instance, *position), *id);
            }
        }
        self.log.replace(&checkpoint)
    }

    /// Makes everything before these places void, except the survivors.
    ///
    /// # Errors
    /// The disk refuses; nothing was purged.
    pub fn purge_all(
        &mut self,
        cuts: &BTreeMap<u16, Position>,
        survivors: HashMap<CorrelationId, PaymentRecord>,
    ) -> Result<(), ClaimsError> {
        let decided: BTreeMap<_, _> = cuts
            .iter()
            .map(|(instance, cut)| {
                let journal = self.journal(*instance);
                (*instance, DecidedBefore { through: *cut, journal })
            })
            .collect();
        let checkpoint = Checkpoint {
            purge: self.purge + 1,
            cuts: cuts.clone(),
            decided: decided.clone(),
            losers: BTreeMap::new(),
        };
        self.log.replace(&checkpoint)?;
        self.purge += 1;
        self.instances = decided
            .into_iter()
            .map(|(instance, DecidedBefore { through: cut, journal })| {
                (instance, Standing { journal, ..Standing::new(cut, cut) })
            })
            .collect();
        self.survivors = survivors;
        Ok(())
    }

    fn standing(&mut self, instance: u16) -> &mut Standing {
        self.instances
            .entry(instance)
            .or_insert_with(|| Standing::new(Position::START, Position::START))
    }
}

#[cfg(test)]
mod tests {
    use ledger::disk::memory::MemoryDisk;
    use ledger::journal::Event;
    use ledger::{Cents, Processor, TimestampMs};

    use super::*;

    /// Decisions over journals that exist only as the records that are fed to them.
    struct Fixture {
        disk: MemoryDisk,
        decisions: Decisions<MemoryDisk>,
        index: Index<MemoryDisk>,
        fed: Vec<(u16, Position, PaymentRecord)>,
        ends: BTreeMap<u16, Position>,
    }

    const BOOT: [u8; 16] = [1; 16];
    const SETTLED: Event =
        Event::Settled { processor: Processor::Default, requested_at: TimestampMs::MIN };

    impl Fixture {
        fn new() -> Self {
            let disk = MemoryDisk::new();
            let (mut decisions, _) = Decisions::open(disk.clone(), BOOT).unwrap();
            decisions.keep().unwrap();
            Self {
                disk,
                decisions,
                index: Index::default(),
                fed: Vec::new(),
                ends: BTreeMap::new(),
            }
        }

        fn feed(&mut self, instance: u16, id: u8, event: Event) -> Position {
            let end = self.ends.entry(instance).or_insert(Position::START);
            let position = *end;
            *end = end.next();
            let record = PaymentRecord {
                id: CorrelationId::from_bytes([id; 16]),
                amount: Cents::new(1990),
                written_at: TimestampMs::MIN,
                event,
            };
            self.decisions.record(&mut self.index, instance, position, &record);
            self.fed.push((instance, position, record));
            position
        }

        fn accept(&mut self, instance: u16, id: u8) -> Position {
            self.feed(instance, id, Event::Accepted)
        }

        /// Claims all that an instance has accepted, and gives those that lost.
        fn claim(&mut self, instance: u16) -> Vec<Position> {
            let through = self.ends[&instance];
            let decided = self.decisions.claim(&mut self.index, instance, through).unwrap();
            assert_eq!(decided.through, through);
            decided.losers
        }

        /// The store dies and another one reads the same journals.
        fn restart(&mut self) {
            // Found again in the journals, before anything is decided.
            let survivors = self.decisions.survivors.clone();
            // The lock of the one before ends with it.
            let dead = Decisions::open(MemoryDisk::new(), BOOT).unwrap().0;
            drop(std::mem::replace(&mut self.decisions, dead));
            let (decisions, claims) = Decisions::open(self.disk.clone(), BOOT).unwrap();
            self.decisions = decisions;
            self.decisions.set_survivors(survivors);
            self.index = Index::default();
            for (instance, position, record) in &self.fed {
                if *position >= self.decisions.cut(*instance) {
                    self.decisions.record(&mut self.index, *instance, *position, record);
                }
            }
            for claim in claims {
                self.decisions.decide_again(&mut self.index, claim).unwrap();
            }
            self.decisions.keep().unwrap();
            self.decisions.greet(1);
            self.decisions.greet(2);
        }
    }

    #[test]
    fn the_first_claim_has_the_right_whoever_accepted_first() {
        let mut fixture = Fixture::new();
        fixture.accept(1, 7);
        let second = fixture.accept(2, 7);
        fixture.accept(2, 8);
        assert_eq!(fixture.claim(1), []);
        assert_eq!(fixture.claim(2), [second]);

        let mut fixture = Fixture::new();
        let first = fixture.accept(1, 7);
        fixture.accept(2, 7);
        assert_eq!(fixture.claim(2), []);
        assert_eq!(fixture.claim(1), [first]);
    }

    #[test]
    fn a_payment_accepted_again_by_the_same_instance_loses() {
        let mut fixture = Fixture::new();
        fixture.accept(1, 7);
        assert_eq!(fixture.claim(1), []);
        fixture.feed(1, 7, SETTLED);
        let again = fixture.accept(1, 7);
        assert_eq!(fixture.claim(1), [again]);
        fixture.feed(1, 7, Event::Duplicate);
        let once_more = fixture.accept(1, 7);
        assert_eq!(fixture.claim(1), [once_more]);
    }

    #[test]
    fn a_decision_is_told_once_for_each_connection_until_the_journal_has_it() {
        let mut fixture = Fixture::new();
        fixture.accept(1, 7);
        fixture.claim(1);
        let loser = fixture.accept(2, 7);
        assert_eq!(fixture.claim(2), [loser]);
        assert_eq!(fixture.claim(2), []);
        fixture.decisions.greet(2);
        assert_eq!(fixture.claim(2), [loser]);
        fixture.feed(2, 7, Event::Duplicate);
        fixture.decisions.greet(2);
        assert_eq!(fixture.claim(2), []);
    }

    /// The same decisions come out of the claim log, wherever the store was killed.
    #[test]
    fn a_store_that_is_started_again_decides_as_the_one_before() {
        for restarts in 0..16 {
            let restart_at = |step: u32| restarts >> step & 1 == 1;
            let mut fixture = Fixture::new();
            let loser_of_1 = fixture.accept(1, 7);
            fixture.accept(2, 7);
            fixture.accept(1, 8);
            let loser_of_2 = fixture.accept(2, 8);
            if restart_at(0) {
                fixture.restart();
            }
            // Only the first record of instance 2 is claimed, before anything of instance 1.
            let first = Position::START.next();
            fixture.decisions.claim(&mut fixture.index, 2, first).unwrap();
            if restart_at(1) {
                fixture.restart();
            }
            fixture.decisions.greet(1);
            assert_eq!(fixture.claim(1), [loser_of_1], "{restarts:b}");
            if restart_at(2) {
                fixture.restart();
            }
            assert_eq!(fixture.claim(2), [loser_of_2], "{restarts:b}");
            fixture.feed(1, 7, Event::Duplicate);
            fixture.feed(2, 7, SETTLED);
            if restart_at(3) {
                fixture.restart();
                assert_eq!(fixture.claim(1), [], "{restarts:b}");
                assert_eq!(fixture.claim(2), [loser_of_2], "{restarts:b}");
            }
        }
    }

    /// The claim log may be lost with the power; what the journals say must be enough.
    #[test]
    fn without_a_claim_log_the_journals_records_decide() {
        let mut fixture = Fixture::new();
        fixture.accept(1, 7);
        fixture.claim(1);
        fixture.accept(2, 7);
        fixture.claim(2);
        fixture.feed(
            1,
            7,
            Event::Dispatched { processor: Processor::Default, requested_at: TimestampMs::MIN },
        );
        fixture.feed(2, 7, Event::Duplicate);
        fixture.disk.remove("claims.log").unwrap();
        fixture.restart();
        assert_eq!(fixture.claim(2), [], "it is closed already");
        assert_eq!(fixture.claim(1), [], "it was sent, so it had the right");
    }

    #[test]
    fn a_record_closed_as_a_duplicate_does_not_hold_the_right() {
        let mut fixture = Fixture::new();
        fixture.accept(1, 7);
        fixture.claim(1);
        fixture.accept(2, 7);
        fixture.claim(2);
        fixture.feed(2, 7, Event::Duplicate);
        fixture.disk.remove("claims.log").unwrap();
        fixture.restart();
        assert_eq!(fixture.claim(1), [], "nobody else can settle it");
    }

    #[test]
    fn an_earlier_duplicate_does_not_close_a_later_one() {
        let mut fixture = Fixture::new();
        fixture.accept(1, 7);
        fixture.claim(1);
        fixture.feed(1, 7, SETTLED);
        fixture.accept(2, 7);
        fixture.claim(2);
        fixture.feed(2, 7, Event::Duplicate);
        let again = fixture.accept(2, 7);
        assert_eq!(fixture.claim(2), [again]);
        // The second start reads the duplicate after a log that names the later loser.
        fixture.restart();
        fixture.restart();
        assert_eq!(fixture.claim(2), [again]);
    }

    #[test]
    fn a_payment_accepted_again_after_a_duplicate_can_get_the_right_and_keeps_it() {
        let mut fixture = Fixture::new();
        fixture.accept(1, 7);
        fixture.claim(1);
        fixture.accept(2, 7);
        fixture.claim(2);
        fixture.feed(2, 7, Event::Duplicate);
        fixture.accept(2, 7);
        // With the power went what was decided, and nothing was sent.
        fixture.disk.remove("claims.log").unwrap();
        fixture.restart();
        assert_eq!(fixture.claim(2), []);
        assert_eq!(fixture.claim(1), [Position::START]);
    }

    #[test]
    fn more_losers_than_an_answer_holds_come_in_several() {
        let mut fixture = Fixture::new();
        fixture.accept(1, 7);
        fixture.claim(1);
        let count = CLAIM_RECORDS_MAX + 10;
        let losers: Vec<_> = (0..count).map(|_| fixture.accept(2, 7)).collect();
        let end = fixture.ends[&2];
        let first = fixture.decisions.claim(&mut fixture.index, 2, end).unwrap();
        assert_eq!(first.through, losers[CLAIM_RECORDS_MAX]);
        let second = fixture.decisions.claim(&mut fixture.index, 2, end).unwrap();
        assert_eq!(second.through, end);
        assert_eq!([first.losers, second.losers].concat(), losers);
    }

    #[test]
    fn a_claim_that_cannot_be_written_decides_nothing() {
        let mut fixture = Fixture::new();
        fixture.accept(1, 7);
        fixture.accept(2, 7);
        fixture.disk.set_room_bytes(Some(0));
        let end = fixture.ends[&1];
        assert!(fixture.decisions.claim(&mut fixture.index, 1, end).is_err());
        fixture.disk.set_room_bytes(None);
        assert_eq!(fixture.claim(2), []);
        assert_eq!(fixture.claim(1), [Position::START]);
    }

    #[test]
    fn a_purge_forgets_every_id_but_those_that_a_processor_may_have() {
        let mut fixture = Fixture::new();
        fixture.accept(1, 7);
        fixture.accept(1, 8);
        fixture.claim(1);
        fixture.feed(
            1,
            7,
            Event::Dispatched { processor: Processor::Default, requested_at: TimestampMs::MIN },
        );
        let survivor = fixture.fed.last().unwrap().2;
        let cuts = BTreeMap::from([(1, fixture.ends[&1]), (2, Position::START)]);
        fixture.decisions.purge_all(&cuts, HashMap::from([(survivor.id, survivor)])).unwrap();
        fixture.index = Index::default();

        let loser = fixture.accept(2, 7);
        fixture.accept(2, 8);
        assert_eq!(fixture.claim(2), [loser]);
        assert_eq!(fixture.decisions.purge_notice(1).purge, 1);
        fixture.restart();
        assert_eq!(fixture.decisions.purge_notice(1).cut, cuts[&1]);
        assert_eq!(fixture.claim(2), [loser]);
    }
}
