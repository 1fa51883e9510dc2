//! One seed: clients, two instances, a store, two processors, and the order in which things happen.

mod calls;
mod claims;
mod clients;
mod faults;
mod instances;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow::{self, Break, Continue};

use api::engine::{Accept, Batch, Call, CallKind, CallOutcome, Written};
use api::router::Health;
use ledger::Processor as Which;
use ledger::disk::crashing::CrashingDisk;
use ledger::journal::{
    Event as Recording, JournalConfig, JournalError, OpenPayments, PaymentRecord, Position,
};
use ledger::protocol::PurgeNotice;

use crate::faults::random::Random;
use crate::simulate::Sabotage;
use crate::simulate::instance::{Answer, Api, Waiter, Writing};
use crate::simulate::note::{Note, Notes, Process};
use crate::simulate::plan::{Fault, INSTANCES, Plan, Post};
use crate::simulate::processor::{Fate, Mood, Processor, Recorded};
use crate::simulate::shop::{Shop, ShopError, engine_config, number};
use crate::simulate::truth::{Truth, Violation, Wanted, check_books, damaged};

/// What is not done so long after everything is well is stuck.
const STUCK_AFTER_MS: u64 = 150_000;
/// More events than any seed needs.
const EVENTS_MAX: u32 = 500_000;
/// The pause between two words of a processor about its health.
const HEALTH_INTERVAL_MS: u64 = 5_050;
/// As in the real driver.
const RETRY_MS: u64 = 250;
const STORE_WORD_MS: u64 = 1_000;
const SYNC_INTERVAL_MS: u64 = 1_000;

/// How a seed ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Everything was done, and every promise kept.
    Well,
    /// A promise was broken.
    Violated(Violation),
}

/// What happened, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    /// Posts of clients.
    pub posts: u64,
    /// Posts that were answered with `202`.
    pub accepted: u64,
    /// Ends of processes.
    pub kills: u64,
    /// Those of them within a write.
    pub tears: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Times that a disk refused for a while.
    pub disk_failures: u64,
    /// Payments that were open when an instance was started.
    pub recovered: u64,
    /// Calls that posted a payment.
    pub calls: u64,
    /// Calls of which nobody knew what they did.
    pub unknown: u64,
    /// Payments that a processor recorded after its caller had given the call up.
    pub recorded_late: u64,
    /// Accepted records that lost their id to another one.
    pub duplicates: u64,
}

impl Count {
    /// The numbers with their names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 11] {
        [
            ("payments posted", self.posts),
            ("  accepted", self.accepted),
            ("processes ended", self.kills),
            ("  within a write", self.tears),
            ("power cuts", self.power_cuts),
            ("disks failing", self.disk_failures),
            ("open payments recovered", self.recovered),
            ("calls to processors", self.calls),
            ("  nobody knew what they did", self.unknown),
            ("  recorded after that", self.recorded_late),
            ("duplicates", self.duplicates),
        ]
    }

    /// Adds those of another seed.
    pub fn add(&mut self, other: &Self) {
        self.posts += other.posts;
        self.accepted += other.accepted;
        self.kills += other.kills;
        self.tears += other.tears;
        self.power_cuts += other.power_cuts;
        self.disk_failures += other.disk_failures;
        self.recovered += other.recovered;
        self.calls += other.calls;
        self.unknown += other.unknown;
        self.recorded_late += other.recorded_late;
        self.duplicates += other.duplicates;
    }
}

/// What happens at a moment. Numbers of processes tell those of the living from those of the dead.
#[derive(Clone, Debug)]
enum Event {
    Post(usize),
    Turn(usize, u32),
    Wake(usize, u32, u64),
    SyncEnds(usize, u32),
    SyncInBackground(usize, u32),
    StoreWordIsDue(usize, u32, usize),
    Start(Process),
    Connect(usize, u32),
    Welcome(usize, u32, u32, PurgeNotice),
    Disconnect(usize, u32, u32),
    Claim(usize, u32, u32, Position),
    Decided(usize, u32, u32, Option<(Position, Vec<Position>)>),
    Reach(usize),
    Record(usize, bool),
    Tell(usize, CallOutcome),
    GiveUp(usize),
    Health(usize),
    Fault(Fault),
    DiskWorks(Process),
    Heal,
}

/// A call on its way.
struct OnTheWay {
    instance: usize,
    process: u32,
    call: Call,
    sent_ms: u64,
    /// The caller knows, or has given up.
    is_over: bool,
}

/// What is wrong with a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DiskIs {
    Well,
    /// Its process ends at the first change that it refuses.
    Tearing,
    /// It refuses changes for a while.
    Failing,
}

/// The place of a process: what outlives it.
struct Site {
    disk: CrashingDisk,
    /// The number of its process.
    process: u32,
    runs: bool,
    is_starting: bool,
    /// It ends after so many steps.
    dies_in: Option<u32>,
    frozen_until_ms: u64,
    disk_is: DiskIs,
    skew_ms: i64,
}

impl Site {
    fn new() -> Self {
        Self {
            disk: CrashingDisk::default(),
            process: 0,
            runs: false,
            is_starting: false,
            dies_in: None,
            frozen_until_ms: 0,
            disk_is: DiskIs::Well,
            skew_ms: 0,
        }
    }
}

/// What a client knows of its post.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Waiting,
    Over,
}

type Step = ControlFlow<Violation>;

/// A seed's world.
pub struct World {
    random: Random,
    sabotage: Option<Sabotage>,
    plan: Plan,
    now_ms: u64,
    events: BTreeMap<(u64, u64), Event>,
    events_count: u32,
    notes: Notes,
    count: Count,
    boot: u8,
    /// The instances, and then the store.
    sites: Vec<Site>,
    apis: Vec<Option<Api>>,
    shop: Option<Shop>,
    processors: [Processor; 2],
    refused: [BTreeSet<ledger::CorrelationId>; 2],
    calls: Vec<OnTheWay>,
    /// Calls that a processor will still carry out.
    uncarried: u32,
    standings: Vec<Standing>,
    posts_left: usize,
    wanted: HashMap<ledger::CorrelationId, Wanted>,
    truth: Truth,
    healed: bool,
}

fn place(process: Process) -> usize {
    match process {
        Process::Api(instance) => instance,
        Process::Store => INSTANCES,
    }
}

impl World {
    /// The world that follows from a seed, before anything has happened.
    pub fn new(seed: u64, sabotage: Option<Sabotage>, tells: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random);
        let sites: Vec<_> = (0..=INSTANCES).map(|_| Site::new()).collect();
        let disks: Vec<_> = sites[..INSTANCES].iter().map(|site| site.disk.clone()).collect();
        Self {
            random,
            sabotage,
            now_ms: 0,
            events: BTreeMap::new(),
            events_count: 0,
            notes: Notes::new(tells),
            count: Count::default(),
            boot: 1,
            sites,
            apis: (0..INSTANCES).map(|_| None).collect(),
            shop: None,
            processors: [Processor::new(), Processor::new()],
            refused: [BTreeSet::new(), BTreeSet::new()],
            calls: Vec::new(),
            uncarried: 0,
            standings: Vec::new(),
            posts_left: 0,
            wanted: HashMap::new(),
            truth: Truth::new(&disks, [1; 16]),
            healed: false,
            plan,
        }
    }

    /// The digest of what happened, its numbers, and the story.
    pub fn into_told(self) -> (u64, Count, Vec<String>) {
        let (digest, story) = self.notes.into_parts();
        (digest, self.count, story)
    }

    /// Lets everything happen.
    pub fn run(&mut self) -> Ended {
        self.begin();
        while let Some(((at_ms, _), event)) = self.events.pop_first() {
            self.now_ms = at_ms;
            self.events_count += 1;
            if self.events_count > EVENTS_MAX {
                return Ended::Violated(Violation::Stuck("it goes round in circles".to_owned()));
            }
            if let Break(violation) = self.happen(event) {
                return Ended::Violated(violation);
            }
            if self.is_done() {
                return match self.check_end() {
                    Ok(()) => Ended::Well,
                    Err(violation) => Ended::Violated(violation),
                };
            }
            if at_ms > self.plan.heals_at_ms + STUCK_AFTER_MS {
                return Ended::Violated(Violation::Stuck(self.what_is_stuck()));
            }
        }
        Ended::Violated(Violation::Stuck("nothing happens any more".to_owned()))
    }

    fn begin(&mut self) {
        for process in [Process::Store, Process::Api(0), Process::Api(1)] {
            let after_ms = self.random.below(30);
            self.start_after(process, after_ms);
        }
        for post in 0..self.plan.posts.len() {
            let Post { at_ms, id, .. } = self.plan.posts[post];
            self.at(at_ms, Event::Post(post));
            self.wanted.entry(id).or_default();
        }
        self.posts_left = self.plan.posts.len();
        self.standings = vec![Standing::Waiting; self.plan.posts.len()];
        for (at_ms, fault) in self.plan.faults.clone() {
            self.at(at_ms, Event::Fault(fault));
        }
        for processor in 0..2 {
            let after_ms = self.random.below(HEALTH_INTERVAL_MS);
            self.after(after_ms, Event::Health(processor));
        }
        self.at(self.plan.heals_at_ms, Event::Heal);
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        // What happens at the same moment happens in any order.
        let tie = self.random.draw() << 20 | u64::from(self.events_count);
        let mut key = (at_ms.max(self.now_ms), tie);
        while self.events.contains_key(&key) {
            key.1 = key.1.wrapping_add(1);
        }
        self.events.insert(key, event);
    }

    fn after(&mut self, ms: u64, event: Event) {
        self.at(self.now_ms + ms, event);
    }

    fn note(&mut self, note: Note) {
        self.notes.take(self.now_ms, note);
    }

    fn is_done(&self) -> bool {
        self.healed
            && self.posts_left == 0
            && self.uncarried == 0
            && self.shop.is_some()
            && self.apis.iter().all(|api| {
                api.as_ref().is_some_and(|api| {
                    api.engine.open_count() == 0
                        && !api.engine.has_pending()
                        && api.writing.is_none()
                })
            })
    }

    fn what_is_stuck(&self) -> String {
        let open: Vec<_> =
            self.apis.iter().map(|api| api.as_ref().map(|a| a.engine.open_count())).collect();
        format!(
            "open payments {open:?}, posts without an answer {}, calls not carried out {}, store {}",
            self.posts_left,
            self.uncarried,
            if self.shop.is_some() { "runs" } else { "does not run" }
        )
    }

    /// Everything is done: all books must be right, in what a new start would read.
    fn check_end(&mut self) -> Result<(), Violation> {
        let disks = self.journal_disks();
        let mut truth = Truth::new(&disks, [self.boot; 16]);
        let mut open_count = 0;
        for (instance, disk) in disks.iter().enumerate() {
            truth.read(instance)?;
            let mut open = OpenPayments::new();
            let mut reader = ledger::journal::JournalReader::new(
                disk.clone(),
                number(instance),
                Position::START,
            )
            .under_boot([self.boot; 16])
            .passing_lost_seals();
            reader
                .read(usize::MAX, |position, record| {
                    if let ledger::journal::Record::Payment(record) = record {
                        open.apply(position, record);
                    }
                })
                .map_err(|error| damaged(&error))?;
            open_count += open.into_ordered().len();
        }
        if open_count > 0 {
            return Err(Violation::Stuck(format!(
                "{open_count} payments are open in the journals"
            )));
        }
        check_books(&truth.written, &self.processors, &self.refused, &self.wanted)
    }

    fn journal_disks(&self) -> Vec<CrashingDisk> {
        self.sites[..INSTANCES].iter().map(|site| site.disk.clone()).collect()
    }

    /// Which process an event is for: a frozen one finds it later.
    fn meant(event: &Event) -> Option<Process> {
        match event {
            Event::Post(_)
            | Event::Start(_)
            | Event::Reach(_)
            | Event::Record(..)
            | Event::Health(_)
            | Event::Fault(_)
            | Event::DiskWorks(_)
            | Event::Heal
            | Event::Tell(..)
            | Event::GiveUp(_) => None,
            Event::Turn(instance, _)
            | Event::Wake(instance, ..)
            | Event::SyncEnds(instance, _)
            | Event::SyncInBackground(instance, _)
            | Event::StoreWordIsDue(instance, ..)
            | Event::Connect(instance, _)
            | Event::Welcome(instance, ..)
            | Event::Disconnect(instance, ..)
            | Event::Decided(instance, ..) => Some(Process::Api(*instance)),
            Event::Claim(..) => Some(Process::Store),
        }
    }

    fn happen(&mut self, event: Event) -> Step {
        let meant = match &event {
            Event::Tell(call, _) | Event::GiveUp(call) => {
                Some(Process::Api(self.calls[*call].instance))
            }
            event => Self::meant(event),
        };
        if let Some(process) = meant {
            let until_ms = self.sites[place(process)].frozen_until_ms;
            if until_ms > self.now_ms {
                self.at(until_ms, event);
                return Continue(());
            }
        }
        match event {
            Event::Post(post) => self.post(post)?,
            Event::Turn(instance, process) if self.lives(instance, process) => {
                if let Some(api) = &mut self.apis[instance] {
                    api.turn_due = false;
                }
                self.turn(instance)?;
            }
            Event::Wake(instance, process, at_ms)
                if self.lives(instance, process) && self.is_to_wake_at(instance, at_ms) =>
            {
                self.turn(instance)?;
            }
            Event::SyncEnds(instance, process) if self.lives(instance, process) => {
                self.sync_ends(instance)?;
            }
            Event::SyncInBackground(instance, process) if self.lives(instance, process) => {
                self.sync_in_background(instance)?;
            }
            Event::StoreWordIsDue(instance, process, post) if self.lives(instance, process) => {
                if let Some(api) = &mut self.apis[instance]
                    && api.unsure.contains(&post)
                {
                    api.unsure.retain(|unsure| *unsure != post);
                    self.answer(instance, post, Answer::Unsure)?;
                }
            }
            Event::Start(process) => self.start(process)?,
            Event::Connect(instance, process) if self.lives(instance, process) => {
                self.connect(instance);
            }
            Event::Welcome(instance, process, store, notice)
                if self.is_linked(instance, process, store) =>
            {
                self.note(Note::Connected { instance });
                self.with_engine(instance, |engine, _| engine.connected(notice));
                self.store_spoke(instance)?;
            }
            Event::Disconnect(instance, process, store)
                if self.is_linked(instance, process, store) =>
            {
                self.with_engine(instance, |engine, _| engine.disconnected());
                if let Some(api) = &mut self.apis[instance] {
                    api.link = None;
                }
                self.store_spoke(instance)?;
                self.after(20, Event::Connect(instance, process));
            }
            Event::Claim(instance, process, store, through) => {
                self.claim(instance, process, store, through)?;
            }
            Event::Decided(instance, process, store, decided)
                if self.is_linked(instance, process, store) =>
            {
                match decided {
                    Some((through, losers)) => self.with_engine(instance, |engine, _| {
                        engine.decided(through, &losers);
                    }),
                    None => self.with_engine(instance, api::engine::Engine::claim_refused),
                }
                self.store_spoke(instance)?;
            }
            Event::Reach(call) => self.reach(call),
            Event::Record(call, tells) => self.record(call, tells)?,
            Event::Tell(call, outcome) => self.tell(call, outcome),
            Event::GiveUp(call) if !self.calls[call].is_over => {
                self.note(Note::GivenUp { call });
                self.tell(call, CallOutcome::Unknown);
            }
            Event::Health(processor) => self.tell_health(processor),
            Event::Fault(fault) => self.go_wrong(fault),
            Event::DiskWorks(process) => self.let_disk_work(process),
            Event::Heal => self.heal(),
            // Of a process that is gone.
            _ => {}
        }
        Continue(())
    }

    fn is_to_wake_at(&self, instance: usize, at_ms: u64) -> bool {
        self.apis[instance].as_ref().is_some_and(|api| api.wake_at_ms == Some(at_ms))
    }

    fn lives(&self, instance: usize, process: u32) -> bool {
        self.apis[instance].is_some() && self.sites[instance].process == process
    }

    fn is_linked(&self, instance: usize, process: u32, store: u32) -> bool {
        self.lives(instance, process)
            && self.apis[instance].as_ref().is_some_and(|api| api.link == Some(store))
    }

    fn with_engine(&mut self, instance: usize, act: impl FnOnce(&mut api::engine::Engine, u64)) {
        let now_ms = self.now_ms;
        if let Some(api) = &mut self.apis[instance] {
            let elapsed_ms = api.elapsed_ms(now_ms);
            act(&mut api.engine, elapsed_ms);
        }
        self.wake(instance);
    }

    /// Something was given to the engine.
    fn wake(&mut self, instance: usize) {
        let process = self.sites[instance].process;
        if let Some(api) = &mut self.apis[instance]
            && !api.turn_due
        {
            api.turn_due = true;
            self.after(0, Event::Turn(instance, process));
        }
    }
}
