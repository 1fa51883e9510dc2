//! The faults that a run can have, and which of them would meddle with each other.

use std::fmt;

use ledger::Processor;

use crate::faults::files::Damage;
use crate::faults::proxy::Misbehaviour;

/// How long a swallowed call is held.
pub const SWALLOW_MS: u64 = 30_000;

/// A process of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// The balancer.
    Lb,
    /// The first API.
    Api1,
    /// The second API.
    Api2,
    /// The store.
    Store,
}

impl Member {
    /// All of them, the store first, as they are started.
    pub const ALL: [Self; 4] = [Self::Store, Self::Api1, Self::Api2, Self::Lb];

    /// The APIs.
    pub const APIS: [Self; 2] = [Self::Api1, Self::Api2];

    /// The name of its process.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lb => "lb",
            Self::Api1 => "api-1",
            Self::Api2 => "api-2",
            Self::Store => "store",
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A view that can be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// sled.
    Database,
    /// The files of fingerprints.
    Index,
}

impl View {
    /// How the names of its folders begin.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Database => "sled-",
            Self::Index => "index",
        }
    }
}

/// The kinds of a processor's misbehaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaving {
    /// See [`Misbehaviour::AnswersLate`].
    AnswersLate,
    /// See [`Misbehaviour::ResetsMidAnswer`].
    ResetsMidAnswer,
    /// See [`Misbehaviour::AnswersGarbage`].
    AnswersGarbage,
    /// See [`Misbehaviour::ClosesUnanswered`].
    ClosesUnanswered,
    /// See [`Misbehaviour::RecordsAndDrops`].
    RecordsAndDrops,
    /// See [`Misbehaviour::Swallows`].
    Swallows,
    /// See [`Misbehaviour::RefusesConnections`].
    RefusesConnections,
    /// See [`Misbehaviour::GoesSilent`].
    GoesSilent,
}

impl Misbehaving {
    /// The misbehaviour, with answers that come this late.
    pub(super) const fn draw(self, late_ms: u64) -> Misbehaviour {
        match self {
            Self::AnswersLate => Misbehaviour::AnswersLate { ms: late_ms },
            Self::ResetsMidAnswer => Misbehaviour::ResetsMidAnswer,
            Self::AnswersGarbage => Misbehaviour::AnswersGarbage,
            Self::ClosesUnanswered => Misbehaviour::ClosesUnanswered,
            Self::RecordsAndDrops => Misbehaviour::RecordsAndDrops,
            Self::Swallows => Misbehaviour::Swallows { ms: SWALLOW_MS },
            Self::RefusesConnections => Misbehaviour::RefusesConnections,
            Self::GoesSilent => Misbehaviour::GoesSilent,
        }
    }

    /// Whether whole connections suffer it, and not single calls.
    pub(super) const fn is_of_connections(self) -> bool {
        matches!(self, Self::RefusesConnections | Self::GoesSilent)
    }

    const fn of(misbehaviour: Misbehaviour) -> Self {
        match misbehaviour {
            Misbehaviour::AnswersLate { .. } => Self::AnswersLate,
            Misbehaviour::ResetsMidAnswer => Self::ResetsMidAnswer,
            Misbehaviour::AnswersGarbage => Self::AnswersGarbage,
            Misbehaviour::ClosesUnanswered => Self::ClosesUnanswered,
            Misbehaviour::RecordsAndDrops => Self::RecordsAndDrops,
            Misbehaviour::Swallows { .. } => Self::Swallows,
            Misbehaviour::RefusesConnections => Self::RefusesConnections,
            Misbehaviour::GoesSilent => Self::GoesSilent,
        }
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process is killed, and started again when the fault ends.
    Kill {
        /// Which one.
        member: Member,
    },
    /// All processes of the router are killed at once, and started again.
    KillAll,
    /// A process stands still.
    Stop {
        /// Which one.
        member: Member,
    },
    /// All processes of the router stand still.
    StopAll,
    /// The store is killed and stays away.
    StoreAway,
    /// The store is killed and stays away for a minute.
    StoreAwayLong,
    /// A processor, or the way to it, misbehaves.
    Misbehaves {
        /// Which one.
        processor: Processor,
        /// How.
        misbehaviour: Misbehaviour,
        /// At every call of so many.
        every: u64,
    },
    /// No processor can be reached.
    BothRefuse,
    /// A processor answers 500.
    Fails {
        /// Which one.
        processor: Processor,
    },
    /// A processor takes its time.
    Slow {
        /// Which one.
        processor: Processor,
        /// How long a payment takes.
        delay_ms: u64,
    },
    /// The shared volume fills up.
    DiskFull {
        /// What still fits, for each process.
        bytes_left: u64,
    },
    /// No sync of the shared volume succeeds.
    SyncFails,
    /// An API is killed in the middle of a write, and started again.
    TornRecord {
        /// Which one.
        member: Member,
    },
    /// A view of the store is damaged, under the running store or while it is down, and the store
    /// started again when the fault ends.
    Damage {
        /// Which view.
        view: View,
        /// How.
        damage: Damage,
        /// Whether the store runs meanwhile.
        running: bool,
    },
    /// The clock of the APIs and the store steps, and back when the fault ends.
    ClockSteps {
        /// How far.
        offset_ms: i64,
    },
    /// An API is started on a journal that has its writer.
    SecondApi {
        /// Whose journal.
        member: Member,
    },
    /// Everything is emptied while payments come in.
    Purge,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the kind of the fault of the same name")]
pub enum Kind {
    Kill,
    KillAll,
    Stop,
    StopAll,
    StoreAway,
    StoreAwayLong,
    Misbehaves(Misbehaving),
    BothRefuse,
    Fails,
    Slow,
    DiskFull,
    SyncFails,
    TornRecord,
    Damage(View, Damage),
    ClockSteps,
    SecondApi,
    Purge,
}

/// All kinds.
pub const KINDS: [Kind; 28] = [
    Kind::Kill,
    Kind::KillAll,
    Kind::Stop,
    Kind::StopAll,
    Kind::StoreAway,
    Kind::StoreAwayLong,
    Kind::Misbehaves(Misbehaving::AnswersLate),
    Kind::Misbehaves(Misbehaving::ResetsMidAnswer),
    Kind::Misbehaves(Misbehaving::AnswersGarbage),
    Kind::Misbehaves(Misbehaving::ClosesUnanswered),
    Kind::Misbehaves(Misbehaving::RecordsAndDrops),
    Kind::Misbehaves(Misbehaving::Swallows),
    Kind::Misbehaves(Misbehaving::RefusesConnections),
    Kind::Misbehaves(Misbehaving::GoesSilent),
    Kind::BothRefuse,
    Kind::Fails,
    Kind::Slow,
    Kind::DiskFull,
    Kind::SyncFails,
    Kind::TornRecord,
    Kind::Damage(View::Database, Damage::Deleted),
    Kind::Damage(View::Database, Damage::Truncated),
    Kind::Damage(View::Database, Damage::Overwritten),
    Kind::Damage(View::Index, Damage::Deleted),
    Kind::Damage(View::Index, Damage::Overwritten),
    Kind::ClockSteps,
    Kind::SecondApi,
    Kind::Purge,
];

impl Kind {
    /// Whether it takes a minute.
    #[must_use]
    pub fn is_long(self) -> bool {
        self == Self::StoreAwayLong
    }

    /// Whether it needs the library of [`crate::faults::preload`].
    #[must_use]
    pub fn needs_preload(self) -> bool {
        matches!(self, Self::DiskFull | Self::SyncFails | Self::ClockSteps)
    }

    /// Whether a process may end by itself of it: it can neither go on nor be started while the
    /// disk refuses it, or finds its database gone bad under it.
    #[must_use]
    pub fn may_end_processes(self) -> bool {
        matches!(self, Self::DiskFull | Self::SyncFails | Self::Damage(..))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Kill => "kill",
            Self::KillAll => "kill-all",
            Self::Stop => "stop",
            Self::StopAll => "stop-all",
            Self::StoreAway => "store-away",
            Self::StoreAwayLong => "store-away-long",
            Self::Misbehaves(Misbehaving::AnswersLate) => "answers-late",
            Self::Misbehaves(Misbehaving::ResetsMidAnswer) => "resets-mid-answer",
            Self::Misbehaves(Misbehaving::AnswersGarbage) => "answers-garbage",
            Self::Misbehaves(Misbehaving::ClosesUnanswered) => "closes-unanswered",
            Self::Misbehaves(Misbehaving::RecordsAndDrops) => "records-and-drops",
            Self::Misbehaves(Misbehaving::Swallows) => "swallows",
            Self::Misbehaves(Misbehaving::RefusesConnections) => "refuses-connections",
            Self::Misbehaves(Misbehaving::GoesSilent) => "goes-silent",
            Self::BothRefuse => "both-refuse",
            Self::Fails => "fails",
            Self::Slow => "slow",
            Self::DiskFull => "disk-full",
            Self::SyncFails => "sync-fails",
            Self::TornRecord => "torn-record",
            Self::Damage(View::Database, Damage::Deleted) => "database-deleted",
            Self::Damage(View::Database, Damage::Truncated) => "database-truncated",
            Self::Damage(View::Database, Damage::Overwritten) => "database-overwritten",
            Self::Damage(View::Index, Damage::Deleted) => "index-deleted",
            Self::Damage(View::Index, Damage::Truncated) => "index-truncated",
            Self::Damage(View::Index, Damage::Overwritten) => "index-overwritten",
            Self::ClockSteps => "clock-steps",
            Self::SecondApi => "second-api",
            Self::Purge => "purge",
        };
        formatter.write_str(name)
    }
}

/// What a fault takes hold of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    Process(Member),
    Processor(Processor),
    Disk,
    Clock,
}

impl Fault {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match *self {
            Self::Kill { .. } => Kind::Kill,
            Self::KillAll => Kind::KillAll,
            Self::Stop { .. } => Kind::Stop,
            Self::StopAll => Kind::StopAll,
            Self::StoreAway => Kind::StoreAway,
            Self::StoreAwayLong => Kind::StoreAwayLong,
            Self::Misbehaves { misbehaviour, .. } => {
                Kind::Misbehaves(Misbehaving::of(misbehaviour))
            }
            Self::BothRefuse => Kind::BothRefuse,
            Self::Fails { .. } => Kind::Fails,
            Self::Slow { .. } => Kind::Slow,
            Self::DiskFull { .. } => Kind::DiskFull,
            Self::SyncFails => Kind::SyncFails,
            Self::TornRecord { .. } => Kind::TornRecord,
            Self::Damage { view, damage, .. } => Kind::Damage(view, damage),
            Self::ClockSteps { .. } => Kind::ClockSteps,
            Self::SecondApi { .. } => Kind::SecondApi,
            Self::Purge => Kind::Purge,
        }
    }

    /// Whether both take hold of the same thing, so that the end of one would undo the other.
    #[must_use]
    pub fn meddles_with(&self, other: &Self) -> bool {
        let holds = other.holds();
        self.kind() == other.kind() || self.holds().iter().any(|hold| holds.contains(hold))
    }

    fn holds(&self) -> Vec<Hold> {
        match *self {
            Self::Kill { member }
            | Self::Stop { member }
            | Self::TornRecord { member }
            | Self::SecondApi { member } => vec![Hold::Process(member)],
            Self::KillAll | Self::StopAll | Self::Purge => Member::ALL.map(Hold::Process).to_vec(),
            Self::StoreAway | Self::StoreAwayLong | Self::Damage { .. } => {
                vec![Hold::Process(Member::Store)]
            }
            Self::Misbehaves { processor, .. }
            | Self::Fails { processor }
            | Self::Slow { processor, .. } => vec![Hold::Processor(processor)],
            Self::BothRefuse => Processor::ALL.map(Hold::Processor).to_vec(),
            Self::DiskFull { .. } | Self::SyncFails => vec![Hold::Disk],
            Self::ClockSteps { .. } => vec![Hold::Clock],
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.kind())?;
        match self {
            Self::Kill { member }
            | Self::Stop { member }
            | Self::TornRecord { member }
            | Self::SecondApi { member } => write!(formatter, " {member}"),
            Self::Misbehaves { processor, misbehaviour, every } => {
                write!(formatter, " {processor}, every {every} of its calls")?;
                match misbehaviour {
                    Misbehaviour::AnswersLate { ms } => write!(formatter, ", by {ms} ms"),
                    _ => Ok(()),
                }
            }
            Self::Fails { processor } => write!(formatter, " {processor}"),
            Self::Slow { processor, delay_ms } => {
                write!(formatter, " {processor}, by {delay_ms} ms")
            }
            Self::DiskFull { bytes_left } => write!(formatter, " after {bytes_left} bytes"),
            Self::Damage { running, .. } => {
                formatter.write_str(if *running { " under the store" } else { " with it down" })
            }
            Self::ClockSteps { offset_ms } => write!(formatter, " by {offset_ms} ms"),
            Self::KillAll
            | Self::StopAll
            | Self::StoreAway
            | Self::StoreAwayLong
            | Self::BothRefuse
            | Self::SyncFails
            | Self::Purge => Ok(()),
        }
    }
}
