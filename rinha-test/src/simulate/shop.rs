//! The store: the real claim log, decisions, index and journal readers on simulated disks. What is left
//! out are its views of the journals for summaries.

use api::engine::EngineConfig;
use ledger::disk::crashing::CrashingDisk;
use ledger::journal::{JournalReader, Position, Record, list_segments};
use ledger::protocol::PurgeNotice;
use store::claims::ClaimsError;
use store::decisions::{Decided, DecisionError, Decisions};
use store::index::Index;

use super::plan::{INSTANCES, Plan};
use super::truth::{Violation, damaged};

/// A store's process.
pub struct Shop {
    decisions: Decisions<CrashingDisk>,
    index: Index<CrashingDisk>,
    readers: Vec<JournalReader<CrashingDisk>>,
    /// By instance, the process that greeted last: claims of the one before are refused, as at the
    /// store's desk.
    greeted: [Option<u32>; INSTANCES],
}

/// Why a store does not run.
pub enum ShopError {
    /// The disk refuses. It can be started again.
    Refused,
    /// A promise is broken.
    Violated(Violation),
}

impl From<ClaimsError> for ShopError {
    fn from(error: ClaimsError) -> Self {
        match error {
            ClaimsError::Io { .. } => Self::Refused,
            error => Self::Violated(Violation::Damaged(error.to_string())),
        }
    }
}

impl Shop {
    /// Starts a store on its own disk and those of the journals.
    pub fn start(
        disk: &CrashingDisk,
        journals: &[CrashingDisk],
        boot_id: [u8; 16],
    ) -> Result<Self, ShopError> {
        let (decisions, claims) = Decisions::open(disk.clone(), boot_id)?;
        let mut readers = Vec::new();
        for (journal, number) in journals.iter().zip(1..) {
            let cut = decisions.cut(number);
            let segments = list_segments(journal).map_err(|_| ShopError::Refused)?;
            let segment = segments.first().copied().unwrap_or(cut.segment);
            let begin = cut.max(Position { segment, index: 0 });
            readers.push(
                JournalReader::new(journal.clone(), number, begin)
                    .under_boot(boot_id)
                    .passing_lost_seals(),
            );
        }
        let mut shop =
            Self { decisions, index: Index::default(), readers, greeted: [None; INSTANCES] };
        for instance in 0..INSTANCES {
            shop.read(instance).map_err(ShopError::Violated)?;
        }
        for claim in claims {
            shop.decisions
                .decide_again(&mut shop.index, claim)
                .map_err(|error| ShopError::Violated(Violation::Damaged(error.to_string())))?;
        }
        shop.decisions.keep()?;
        Ok(shop)
    }

    fn read(&mut self, instance: usize) -> Result<(), Violation> {
        let (decisions, index) = (&mut self.decisions, &mut self.index);
        let number = number(instance);
        self.readers[instance]
            .read(usize::MAX, |position, record| {
                if let Record::Payment(record) = record {
                    decisions.record(index, number, position, record);
                }
            })
            .map(drop)
            .map_err(|error| damaged(&error))
    }

    /// An instance is connected.
    pub fn greet(&mut self, instance: usize, process: u32) -> PurgeNotice {
        self.greeted[instance] = Some(process);
        self.decisions.greet(number(instance));
        self.decisions.purge_notice(number(instance))
    }

    /// An instance claims what it has accepted. `None` where that cannot be decided now.
    pub fn claim(
        &mut self,
        instance: usize,
        process: u32,
        through: Position,
    ) -> Result<Option<Decided>, Violation> {
        if self.greeted[instance] != Some(process) {
            return Ok(None);
        }
        self.read(instance)?;
        match self.decisions.claim(&mut self.index, number(instance), through) {
            Ok(decided) => Ok(Some(decided)),
            Err(DecisionError::Claims(ClaimsError::Io { .. })) => Ok(None),
            Err(error) => Err(Violation::Damaged(error.to_string())),
        }
    }
}

/// The number of an instance.
pub fn number(instance: usize) -> u16 {
    u16::try_from(instance + 1).unwrap_or(u16::MAX)
}

/// The engine's settings in a plan.
pub fn engine_config(plan: &Plan) -> EngineConfig {
    EngineConfig {
        backlog_max: plan.backlog_max,
        recent_max: plan.recent_max,
        router: api::router::RouterConfig {
            fees_bp: [500, 1500],
            patience_ms: plan.patience_ms,
            in_flight_max: plan.in_flight_max,
            slow_ms: 1300,
        },
    }
}
