//! The plan of a run: which faults, on what, when and for how long. All of it follows from the
//! seed, and is drawn before anything is started.

use std::collections::VecDeque;
use std::fmt;

use ledger::Processor;

use super::fault::{Fault, KINDS, Kind, Member};
use crate::faults::random::Random;

/// Faults in a round, at least and at most.
const FAULTS_PER_ROUND: (u64, u64) = (2, 4);

/// How many times another target is drawn for a fault that would meddle with another one.
const REDRAWS: usize = 8;

/// Where a fault of a processor strikes: mostly at the one that has most of the payments.
const PROCESSORS: [Processor; 4] =
    [Processor::Default, Processor::Default, Processor::Default, Processor::Fallback];

/// How long the load goes on after the last fault has ended, in milliseconds.
const TAIL_MS: u64 = 1_000;

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Rounds of some ten seconds.
    Full,
    /// Rounds of a few seconds, for tests.
    Quick,
}

/// The plan of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it follows from.
    pub seed: u64,
    /// The rounds.
    pub rounds: Vec<Round>,
}

/// The plan of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// The faults, in the order in which they begin.
    pub faults: Vec<Planned>,
    /// How long the load goes on, in milliseconds.
    pub load_ms: u64,
}

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When it begins, in milliseconds after the start of the load.
    pub at_ms: u64,
    /// How long it lasts. 0 where it is over as soon as it is done.
    pub for_ms: u64,
    /// What happens.
    pub fault: Fault,
    /// What else the fault needs to be chosen.
    pub noise: u64,
}

impl Plan {
    /// Draws a plan. Every kind of fault has its turn before any has its next.
    #[must_use]
    pub fn draw(seed: u64, rounds: u32, pace: Pace) -> Self {
        let mut random = Random::new(seed);
        let mut deck = VecDeque::new();
        let rounds = (0..rounds).map(|_| draw_round(&mut random, &mut deck, pace)).collect();
        Self { seed, rounds }
    }
}

fn draw_round(random: &mut Random, deck: &mut VecDeque<Kind>, pace: Pace) -> Round {
    let wanted = random.between(FAULTS_PER_ROUND.0, FAULTS_PER_ROUND.1);
    let mut faults: Vec<Planned> = Vec::new();
    let mut put_back = Vec::new();
    while (faults.len() as u64) < wanted && put_back.len() < KINDS.len() {
        if deck.is_empty() {
            let mut kinds: Vec<_> = KINDS
                .iter()
                .copied()
                .filter(|kind| pace == Pace::Full || !kind.is_long())
                .collect();
            random.shuffle(&mut kinds);
            deck.extend(kinds);
        }
        let Some(kind) = deck.pop_front() else { break };
        // A purge has a round of its own: what it leaves cannot be told where other faults meddle.
        let alone = kind == Kind::Purge;
        let fits = (!alone || faults.is_empty())
            .then(|| (0..REDRAWS).find_map(|_| draw_fault(random, kind, pace, &faults)))
            .flatten();
        match fits {
            Some(planned) => faults.push(planned),
            None => put_back.push(kind),
        }
        if alone && fits.is_some() {
            break;
        }
    }
    for kind in put_back.into_iter().rev() {
        deck.push_front(kind);
    }
    faults.sort_by_key(|planned| planned.at_ms);
    let end_ms = faults.iter().map(|planned| planned.at_ms + planned.for_ms).max();
    Round { faults, load_ms: end_ms.unwrap_or_default() + TAIL_MS }
}

fn draw_fault(random: &mut Random, kind: Kind, pace: Pace, others: &[Planned]) -> Option<Planned> {
    let (start_ms_max, last_ms) = match pace {
        Pace::Full => (3_000, (800, 4_000)),
        Pace::Quick => (800, (500, 1_800)),
    };
    let fault = Fault::draw(kind, random);
    let for_ms = match fault {
        Fault::SecondApi { .. } | Fault::TornRecord { .. } | Fault::Purge => 0,
        Fault::StoreAway => {
            if pace == Pace::Full {
                5_000
            } else {
                1_500
            }
        }
        Fault::StoreAwayLong => 60_000,
        _ => random.between(last_ms.0, last_ms.1),
    };
    let at_ms = random.between(200, start_ms_max);
    let noise = random.draw();
    let meddles = others.iter().any(|other| other.fault.meddles_with(&fault));
    (!meddles).then_some(Planned { at_ms, for_ms, fault, noise })
}

impl Fault {
    /// Draws a fault of this kind.
    fn draw(kind: Kind, random: &mut Random) -> Self {
        let processor = random.pick(&PROCESSORS);
        let every = random.between(1, 3);
        let member = random.pick(&Member::ALL);
        let api = random.pick(&Member::APIS);
        match kind {
            Kind::Kill => Self::Kill { member },
            Kind::KillAll => Self::KillAll,
            Kind::Stop => Self::Stop { member },
            Kind::StopAll => Self::StopAll,
            Kind::StoreAway => Self::StoreAway,
            Kind::StoreAwayLong => Self::StoreAwayLong,
            Kind::Misbehaves(which) => {
                let misbehaviour = which.draw(random.between(1_600, 4_000));
                let every = if which.is_of_connections() { 1 } else { every };
                Self::Misbehaves { processor, misbehaviour, every }
            }
            Kind::BothRefuse => Self::BothRefuse,
            Kind::Fails => Self::Fails { processor },
            Kind::Slow => Self::Slow { processor, delay_ms: random.between(200, 3_000) },
            Kind::DiskFull => Self::DiskFull { bytes_left: random.below(40_000) },
            Kind::SyncFails => Self::SyncFails,
            Kind::TornRecord => Self::TornRecord { member: api },
            Kind::Damage(view, damage) => {
                Self::Damage { view, damage, running: random.below(2) == 0 }
            }
            Kind::ClockSteps => {
                let size = i64::try_from(random.between(500, 7_200_000)).unwrap_or(0);
                let offset_ms = if random.below(3) == 0 { size } else { -size };
                Self::ClockSteps { offset_ms }
            }
            Kind::SecondApi => Self::SecondApi { member: api },
            Kind::Purge => Self::Purge,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, round) in (1..).zip(&self.rounds) {
            writeln!(formatter, "round {number}: {round}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Round {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "load for {} ms", self.load_ms)?;
        for planned in &self.faults {
            write!(formatter, "\n  at {:>5} ms: {}", planned.at_ms, planned.fault)?;
            if planned.for_ms > 0 {
                write!(formatter, ", for {} ms", planned.for_ms)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_makes_the_same_plan_and_another_one_another() {
        assert_eq!(Plan::draw(1, 20, Pace::Full), Plan::draw(1, 20, Pace::Full));
        assert_ne!(Plan::draw(1, 20, Pace::Full).rounds, Plan::draw(2, 20, Pace::Full).rounds);
        // A longer run begins as a shorter one.
        let long = Plan::draw(1, 20, Pace::Full).rounds;
        assert_eq!(long[..5], Plan::draw(1, 5, Pace::Full).rounds);
    }

    #[test]
    fn twenty_rounds_have_every_kind_of_fault_and_quick_ones_no_long_ones() {
        for seed in 0..50 {
            let kinds = |pace| -> BTreeSet<String> {
                let plan = Plan::draw(seed, 20, pace);
                let faults = plan.rounds.iter().flat_map(|round| &round.faults);
                faults.map(|planned| planned.fault.kind().to_string()).collect()
            };
            assert_eq!(kinds(Pace::Full).len(), KINDS.len(), "{seed}");
            assert_eq!(kinds(Pace::Quick).len(), KINDS.len() - 1, "{seed}");
        }
    }

    #[test]
    fn no_two_faults_of_a_round_meddle_with_each_other() {
        for seed in 0..200 {
            for round in Plan::draw(seed, 20, Pace::Full).rounds {
                assert!(!round.faults.is_empty());
                for (i, one) in round.faults.iter().enumerate() {
                    let others = &round.faults[i + 1..];
                    assert!(!others.iter().any(|other| other.fault.meddles_with(&one.fault)));
                    let alone = one.fault == Fault::Purge;
                    assert!(!alone || round.faults.len() == 1, "{round}");
                }
            }
        }
    }
}
