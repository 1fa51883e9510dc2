//! One seed: clients, two instances, a store, two processors, and the order in which things happen.

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

use super::Sabotage;
use super::instance::{Answer, Api, Waiter, Writing};
use super::note::{Note, Notes, Process};
use super::plan::{Fault, INSTANCES, Plan, Post};
use super::processor::{Fate, Mood, Processor, Recorded};
use super::shop::{Shop, ShopError, engine_config, number};
use super::truth::{Truth, Violation, Wanted, check_books, damaged};
use crate::faults::random::Random;

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

/// The place of a process: what outlives it.
struct Site {
    disk: CrashingDisk,
    /// The number of its process.
    process: u32,
    runs: bool,
    is_starting: bool,
    /// It ends after so many steps.
    dies_in: Option<u32>,
    /// It ends at the first change that its disk refuses.
    tears: bool,
    frozen_until_ms: u64,
    disk_fails: bool,
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
            tears: false,
            frozen_until_ms: 0,
            disk_fails: false,
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
            let Post { at_ms, id, amount, .. } = self.plan.posts[post];
            self.at(at_ms, Event::Post(post));
            self.wanted.entry(id).or_default();
            let _ = amount;
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
            Event::Wake(instance, process, at_ms) if self.lives(instance, process) => {
                if self.apis[instance].as_ref().is_some_and(|api| api.wake_at_ms == Some(at_ms)) {
                    self.turn(instance)?;
                }
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
                    None => self.with_engine(instance, |engine, now| engine.claim_refused(now)),
                }
                self.store_spoke(instance)?;
            }
            Event::Reach(call) => self.reach(call),
            Event::Record(call, tells) => self.record(call, tells)?,
            Event::Tell(call, outcome) => self.tell(call, outcome),
            Event::GiveUp(call) => {
                if !self.calls[call].is_over {
                    self.note(Note::GivenUp { call });
                    self.tell(call, CallOutcome::Unknown);
                }
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

    // Clients.

    fn post(&mut self, post: usize) -> Step {
        let Post { id, amount, instance, .. } = self.plan.posts[post];
        self.count.posts += 1;
        self.note(Note::Posted { post, instance, id, amount });
        if self.sites[instance].frozen_until_ms > self.now_ms {
            self.at(self.sites[instance].frozen_until_ms, Event::Post(post));
            return Continue(());
        }
        if self.apis[instance].is_none() {
            self.leave_unanswered(post);
            return Continue(());
        }
        self.accept(instance, post)
    }

    fn accept(&mut self, instance: usize, post: usize) -> Step {
        let now_ms = self.now_ms;
        let process = self.sites[instance].process;
        let Post { id, amount, .. } = self.plan.posts[post];
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        if api.sync_fails {
            return self.answer(instance, post, Answer::Failing);
        }
        let accept = api.engine.accept(id, amount, api.elapsed_ms(now_ms));
        match accept {
            Accept::Writing(ticket) => {
                let ticket = Some(ticket);
                api.next_commit.push(Waiter { post, ticket });
                self.wake(instance);
                if self.sabotage == Some(Sabotage::AnswerBeforeWriting) {
                    self.answer(instance, post, Answer::Accepted)?;
                }
            }
            Accept::Wait => {
                let waiter = Waiter { post, ticket: None };
                match &mut api.writing {
                    Some(writing) => writing.waiters.push(waiter),
                    None => api.next_commit.push(waiter),
                }
            }
            Accept::Unsure => {
                api.unsure.push(post);
                self.after(STORE_WORD_MS, Event::StoreWordIsDue(instance, process, post));
            }
            Accept::Known => self.answer(instance, post, Answer::Accepted)?,
            Accept::Conflict(amount) => self.answer(instance, post, Answer::Conflict(amount))?,
            Accept::Full => self.answer(instance, post, Answer::Full)?,
            Accept::Failing(_) => self.answer(instance, post, Answer::Failing)?,
        }
        Continue(())
    }

    fn store_spoke(&mut self, instance: usize) -> Step {
        let unsure = match &mut self.apis[instance] {
            Some(api) => std::mem::take(&mut api.unsure),
            None => Vec::new(),
        };
        for post in unsure {
            self.accept(instance, post)?;
        }
        Continue(())
    }

    fn answer(&mut self, instance: usize, post: usize, answer: Answer) -> Step {
        if self.standings[post] == Standing::Over {
            return Continue(());
        }
        let Post { id, amount, .. } = self.plan.posts[post];
        self.note(Note::Answered { post, answer });
        let wanted = self.wanted.entry(id).or_default();
        match answer {
            Answer::Accepted => {
                wanted.accepted = true;
                wanted.amounts.insert(amount.get());
                self.count.accepted += 1;
                if let Err(violation) = self.truth.check_accepted(instance, id) {
                    return Break(violation);
                }
                self.be_over(post);
            }
            Answer::Conflict(other) => {
                let is_posted = |post: &Post| post.id == id && post.amount == other;
                if other == amount || !self.plan.posts.iter().any(is_posted) {
                    return Break(Violation::WrongConflict(id, other));
                }
                self.be_over(post);
            }
            Answer::Full => self.post_again(post),
            Answer::Failing | Answer::Unsure => {
                // The sync failed, and the write before it did not.
                if self.plan.syncs_first || answer == Answer::Unsure {
                    wanted.in_doubt = true;
                    wanted.amounts.insert(amount.get());
                }
                self.post_again(post);
            }
        }
        Continue(())
    }

    fn leave_unanswered(&mut self, post: usize) {
        if self.standings[post] == Standing::Over {
            return;
        }
        let Post { id, amount, .. } = self.plan.posts[post];
        self.note(Note::Unanswered { post });
        let wanted = self.wanted.entry(id).or_default();
        wanted.in_doubt = true;
        wanted.amounts.insert(amount.get());
        self.post_again(post);
    }

    fn post_again(&mut self, post: usize) {
        if self.plan.posts[post].tries == 0 {
            self.be_over(post);
            return;
        }
        let instance = usize::from(self.random.below(2) == 1);
        let again = &mut self.plan.posts[post];
        again.tries -= 1;
        again.instance = instance;
        let after_ms = self.random.between(1, 800);
        self.after(after_ms, Event::Post(post));
    }

    fn be_over(&mut self, post: usize) {
        self.standings[post] = Standing::Over;
        self.posts_left -= 1;
    }

    // Instances, as their driver drives them.

    /// Whether the process ends right here.
    fn dies(&mut self, process: Process) -> bool {
        let site = &mut self.sites[place(process)];
        let is_torn = site.tears && site.disk.has_ended();
        let is_due = match &mut site.dies_in {
            Some(0) => true,
            Some(steps) => {
                *steps -= 1;
                false
            }
            None => false,
        };
        if is_torn {
            self.count.tears += 1;
            self.note(Note::Torn { process });
        }
        if is_torn || is_due {
            self.kill(process);
        }
        is_torn || is_due
    }

    fn turn(&mut self, instance: usize) -> Step {
        loop {
            let now_ms = self.now_ms;
            if self.dies(Process::Api(instance)) {
                return Continue(());
            }
            let Some(api) = &mut self.apis[instance] else { return Continue(()) };
            if api.writing.is_some() || (self.plan.syncs_first && api.sync_fails) {
                return Continue(());
            }
            let now = api.now(now_ms);
            let wake_ms = api.engine.pump(api.elapsed_ms(now_ms), now);
            let wake_ms = wake_ms.map(|at_ms| api.simulated_ms(at_ms));
            let batch = api.engine.take_batch(now);
            let is_last = batch.is_none();
            if let Some(batch) = batch {
                self.write(instance, batch)?;
                if self.apis[instance].as_ref().is_none_or(|api| api.writing.is_some()) {
                    return Continue(());
                }
            }
            self.follow_up(instance)?;
            let Some(api) = &self.apis[instance] else { return Continue(()) };
            if is_last {
                self.wake_at(instance, wake_ms);
                return Continue(());
            }
            if api.engine.failure().is_some() {
                let retry_ms = now_ms + RETRY_MS;
                self.wake_at(instance, Some(wake_ms.map_or(retry_ms, |at_ms| at_ms.min(retry_ms))));
                return Continue(());
            }
        }
    }

    fn wake_at(&mut self, instance: usize, at_ms: Option<u64>) {
        let process = self.sites[instance].process;
        if let Some(api) = &mut self.apis[instance] {
            api.wake_at_ms = at_ms.map(|at_ms| at_ms.max(self.now_ms));
            if let Some(at_ms) = api.wake_at_ms {
                self.at(at_ms, Event::Wake(instance, process, at_ms));
            }
        }
    }

    fn write(&mut self, instance: usize, batch: Batch) -> Step {
        let records: Vec<_> = batch.records.iter().map(|record| self.sabotaged(*record)).collect();
        let (now_ms, process) = (self.now_ms, self.sites[instance].process);
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        let waiters = std::mem::take(&mut api.next_commit);
        let oldest_open = api.engine.oldest_open_segment();
        let appended = api.journal.append(&records, oldest_open, api.now(now_ms));
        let (first, count) = (appended.first, appended.count);
        if let Some(error @ (JournalError::Damaged { .. } | JournalError::Missing { .. })) =
            &appended.error
        {
            return Break(damaged(error));
        }
        api.writing = Some(Writing { batch, appended, waiters });
        self.note(Note::Written { instance, first, count });
        if self.dies(Process::Api(instance)) {
            return Continue(());
        }
        if self.plan.syncs_first && count > 0 {
            let after_ms = self.random.below(6);
            self.after(after_ms, Event::SyncEnds(instance, process));
            return Continue(());
        }
        if count > 0
            && let Some(api) = &mut self.apis[instance]
            && !api.background_sync_due
        {
            api.background_sync_due = true;
            self.after(SYNC_INTERVAL_MS, Event::SyncInBackground(instance, process));
        }
        self.finish_write(instance)
    }

    fn sabotaged(&self, record: PaymentRecord) -> PaymentRecord {
        let event = match (self.sabotage, record.event) {
            (Some(Sabotage::SendUnwritten), Recording::Dispatched { processor, .. })
            | (Some(Sabotage::LoseSettled), Recording::Settled { processor, .. }) => {
                Recording::Failed { processor, status: 500 }
            }
            (Some(Sabotage::ChangeRequestedAt), Recording::Settled { processor, requested_at }) => {
                let requested_at = ledger::TimestampMs::clamped(requested_at.get() + 1);
                Recording::Settled { processor, requested_at }
            }
            (_, event) => event,
        };
        PaymentRecord { event, ..record }
    }

    /// The disk has said what it made of a sync before an answer.
    fn sync_ends(&mut self, instance: usize) -> Step {
        let (sabotage, process) = (self.sabotage, self.sites[instance].process);
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        let synced = api.sync(sabotage);
        if self.dies(Process::Api(instance)) {
            return Continue(());
        }
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        match synced {
            Ok(()) => {
                self.finish_write(instance)?;
                self.follow_up(instance)?;
                self.wake(instance);
            }
            Err(JournalError::Io { .. }) => {
                api.sync_fails = true;
                let waiters = match &mut api.writing {
                    Some(writing) => std::mem::take(&mut writing.waiters),
                    None => Vec::new(),
                };
                self.after(RETRY_MS, Event::SyncEnds(instance, process));
                for waiter in waiters {
                    match waiter.ticket {
                        Some(_) => self.answer(instance, waiter.post, Answer::Failing)?,
                        None => self.accept(instance, waiter.post)?,
                    }
                }
            }
            Err(error) => return Break(damaged(&error)),
        }
        Continue(())
    }

    fn sync_in_background(&mut self, instance: usize) -> Step {
        let (sabotage, process) = (self.sabotage, self.sites[instance].process);
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        let synced = api.sync(sabotage);
        if self.dies(Process::Api(instance)) {
            return Continue(());
        }
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        match synced {
            Ok(()) => api.background_sync_due = false,
            Err(JournalError::Io { .. }) => {
                api.sync_fails = true;
                self.after(RETRY_MS, Event::SyncInBackground(instance, process));
            }
            Err(error) => return Break(damaged(&error)),
        }
        Continue(())
    }

    /// What was written counts.
    fn finish_write(&mut self, instance: usize) -> Step {
        let now_ms = self.now_ms;
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        let Some(Writing { batch, appended, waiters }) = api.writing.take() else {
            return Continue(());
        };
        let elapsed_ms = api.elapsed_ms(now_ms);
        let failure = appended.error.map(|error| error.to_string());
        let Written { accepts_count, void_count } =
            api.engine.written(batch, appended.first, appended.count, failure, elapsed_ms);
        if self.dies(Process::Api(instance)) {
            for waiter in waiters {
                self.leave_unanswered(waiter.post);
            }
            return Continue(());
        }
        for waiter in waiters {
            match waiter.ticket {
                Some(ticket) if ticket.0 >= void_count && ticket.0 < accepts_count => {
                    self.answer(instance, waiter.post, Answer::Accepted)?;
                }
                Some(ticket) if ticket.0 >= accepts_count => {
                    self.answer(instance, waiter.post, Answer::Failing)?;
                }
                _ => self.accept(instance, waiter.post)?,
            }
        }
        Continue(())
    }

    /// Makes the calls and the claim that follow from what was written.
    fn follow_up(&mut self, instance: usize) -> Step {
        if self.dies(Process::Api(instance)) {
            return Continue(());
        }
        let now_ms = self.now_ms;
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        let calls = api.engine.take_calls();
        for call in calls {
            self.send(instance, call)?;
            if self.dies(Process::Api(instance)) {
                return Continue(());
            }
        }
        let process = self.sites[instance].process;
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        let elapsed_ms = api.elapsed_ms(now_ms);
        if let Some(through) = api.engine.take_claim(elapsed_ms) {
            if self.sabotage == Some(Sabotage::SendUnclaimed) {
                api.engine.decided(through, &[]);
                self.wake(instance);
            } else if let Some(store) = api.link {
                self.note(Note::Claimed { instance, through });
                let after_ms = self.random.below(3);
                self.after(after_ms, Event::Claim(instance, process, store, through));
            }
        }
        Continue(())
    }

    // The store.

    fn connect(&mut self, instance: usize) {
        let process = self.sites[instance].process;
        let store = self.sites[INSTANCES].process;
        let is_there = self.sites[INSTANCES].frozen_until_ms <= self.now_ms;
        match &mut self.shop {
            Some(shop) if is_there => {
                let notice = shop.greet(instance, process);
                if let Some(api) = &mut self.apis[instance] {
                    api.link = Some(store);
                }
                let after_ms = self.random.below(3);
                self.after(after_ms, Event::Welcome(instance, process, store, notice));
            }
            _ => self.after(20, Event::Connect(instance, process)),
        }
    }

    fn claim(&mut self, instance: usize, process: u32, store: u32, through: Position) -> Step {
        if self.sites[INSTANCES].process != store || self.dies(Process::Store) {
            return Continue(());
        }
        let Some(shop) = &mut self.shop else { return Continue(()) };
        let decided = match shop.claim(instance, process, through) {
            Ok(decided) => decided,
            Err(violation) => return Break(violation),
        };
        if self.dies(Process::Store) {
            return Continue(());
        }
        let decided = match decided {
            Some(decided) => {
                let (through, losers) = (decided.through, decided.losers);
                self.note(Note::Decided { instance, through, losers: losers.len() });
                self.count.duplicates += losers.len() as u64;
                if let Err(violation) = self.truth.check_decided(instance, through, &losers) {
                    return Break(violation);
                }
                Some((through, losers))
            }
            None => {
                self.note(Note::ClaimRefused { instance });
                None
            }
        };
        let after_ms = self.random.below(3);
        self.after(after_ms, Event::Decided(instance, process, store, decided));
        Continue(())
    }

    // Processors, and the way to them.

    fn send(&mut self, instance: usize, call: Call) -> Step {
        let number = self.calls.len();
        let (processor, id, kind) = (call.processor, call.id, call.kind);
        self.note(Note::Sent { call: number, instance, processor, id, kind });
        if let CallKind::Post { requested_at } = kind {
            self.count.calls += 1;
            if let Err(violation) = self.truth.check_sent(instance, &call, requested_at) {
                return Break(violation);
            }
        }
        let process = self.sites[instance].process;
        let sent_ms = self.now_ms;
        self.calls.push(OnTheWay { instance, process, call, sent_ms, is_over: false });
        self.uncarried += 1;
        let after_ms = self.random.below(3);
        self.after(after_ms, Event::Reach(number));
        if self.sabotage != Some(Sabotage::LoseAnswers) || number % 10 != 9 {
            self.after(self.plan.call_timeout_ms, Event::GiveUp(number));
        }
        Continue(())
    }

    fn reach(&mut self, number: usize) {
        self.uncarried -= 1;
        let call = self.calls[number].call;
        let processor = &self.processors[call.processor.index()];
        let fate = processor.receive(self.now_ms, call.id, &mut self.random);
        let way_ms = self.random.below(3);
        if call.kind == CallKind::Lookup {
            let found = match processor.recorded.get(&call.id) {
                Some(Recorded { amount, requested_at }) => {
                    CallOutcome::Found { amount: *amount, requested_at: *requested_at }
                }
                None => CallOutcome::Absent,
            };
            match fate {
                Fate::Carried { after_ms } => {
                    self.after(after_ms + way_ms, Event::Tell(number, found));
                }
                Fate::Status { status: 400, after_ms } => {
                    self.after(after_ms + way_ms, Event::Tell(number, found));
                }
                Fate::Status { .. } => {
                    self.after(way_ms, Event::Tell(number, CallOutcome::Unknown))
                }
                Fate::Unheard { breaks_after_ms, .. } | Fate::Lost { breaks_after_ms } => {
                    if let Some(after_ms) = breaks_after_ms {
                        self.after(after_ms, Event::Tell(number, CallOutcome::Unknown));
                    }
                }
            }
            return;
        }
        match fate {
            Fate::Carried { after_ms } => {
                self.uncarried += 1;
                self.after(after_ms, Event::Record(number, true));
            }
            Fate::Unheard { after_ms, breaks_after_ms } => {
                self.uncarried += 1;
                self.after(after_ms, Event::Record(number, false));
                if let Some(after_ms) = breaks_after_ms {
                    self.after(after_ms, Event::Tell(number, CallOutcome::Unknown));
                }
            }
            Fate::Lost { breaks_after_ms } => {
                if let Some(after_ms) = breaks_after_ms {
                    self.after(after_ms, Event::Tell(number, CallOutcome::Unknown));
                }
            }
            Fate::Status { status, after_ms } => {
                let outcome = match status {
                    400 => {
                        self.refused[call.processor.index()].insert(call.id);
                        CallOutcome::Refused { status }
                    }
                    status => CallOutcome::NotRecorded { status },
                };
                self.after(after_ms + way_ms, Event::Tell(number, outcome));
            }
        }
    }

    /// A processor carries a call out.
    fn record(&mut self, number: usize, tells: bool) -> Step {
        self.uncarried -= 1;
        let OnTheWay { call, is_over, .. } = self.calls[number];
        let (processor, id) = (call.processor, call.id);
        let CallKind::Post { requested_at } = call.kind else { return Continue(()) };
        // The failure flag is looked at after the delay.
        let fails = self.processors[processor.index()].mood(self.now_ms) == Mood::Fails;
        let outcome = if tells && fails {
            CallOutcome::NotRecorded { status: 500 }
        } else if self.processors[processor.index()].recorded.contains_key(&id) {
            CallOutcome::AlreadyRecorded
        } else {
            let recorded = Recorded { amount: call.amount, requested_at };
            self.processors[processor.index()].recorded.insert(id, recorded);
            self.note(Note::Recorded { call: number, processor, id, requested_at });
            self.count.recorded_late += u64::from(is_over);
            if self.processors[processor.other().index()].recorded.contains_key(&id) {
                return Break(Violation::PaidTwice(id));
            }
            CallOutcome::Recorded
        };
        if tells {
            let after_ms = self.random.below(3);
            self.after(after_ms, Event::Tell(number, outcome));
        }
        Continue(())
    }

    fn tell(&mut self, number: usize, outcome: CallOutcome) {
        let OnTheWay { instance, process, call, sent_ms, is_over } = self.calls[number];
        if is_over || (self.sabotage == Some(Sabotage::LoseAnswers) && number % 10 == 9) {
            return;
        }
        self.calls[number].is_over = true;
        if !self.lives(instance, process) {
            return;
        }
        self.note(Note::Told { call: number, outcome });
        if outcome == CallOutcome::Unknown && call.kind != CallKind::Lookup {
            self.count.unknown += 1;
        }
        let outcome = match outcome {
            CallOutcome::Unknown if self.sabotage == Some(Sabotage::ForgetDoubt) => {
                CallOutcome::NotRecorded { status: 0 }
            }
            outcome => outcome,
        };
        let latency_ms = self.now_ms - sent_ms;
        self.with_engine(instance, |engine, now| engine.finished(&call, outcome, latency_ms, now));
    }

    fn tell_health(&mut self, processor: usize) {
        let mood = self.processors[processor].mood(self.now_ms);
        let failing =
            matches!(mood, Mood::Fails) || (mood == Mood::Mad && self.random.below(2) == 0);
        let min_response_ms = if let Mood::Slow(delay_ms) = mood { delay_ms } else { 0 };
        for instance in 0..INSTANCES {
            if self.sites[instance].frozen_until_ms <= self.now_ms {
                let health = Health { failing, min_response_ms };
                let which = Which::ALL[processor];
                self.with_engine(instance, |engine, now| engine.heard(which, health, now));
            }
        }
        self.after(HEALTH_INTERVAL_MS, Event::Health(processor));
    }

    // Faults.

    fn go_wrong(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(process) => self.kill(process),
            Fault::KillInSteps(process, steps) => self.sites[place(process)].dies_in = Some(steps),
            Fault::Tear(process, changes) => {
                let site = &mut self.sites[place(process)];
                if site.runs && !site.disk_fails {
                    site.tears = true;
                    site.disk.end_after(changes);
                }
            }
            Fault::Freeze(process, length_ms) => {
                let until_ms = (self.now_ms + length_ms).min(self.plan.heals_at_ms);
                self.sites[place(process)].frozen_until_ms = until_ms;
                self.note(Note::Frozen { process, until_ms });
            }
            Fault::PowerCut => self.cut_power(),
            Fault::DiskFails(process, changes, length_ms) => {
                let site = &mut self.sites[place(process)];
                if !site.tears {
                    site.disk_fails = true;
                    site.disk.end_after(changes);
                    self.count.disk_failures += 1;
                    self.note(Note::DiskFails { process });
                    let until_ms = (self.now_ms + length_ms).min(self.plan.heals_at_ms);
                    self.at(until_ms, Event::DiskWorks(process));
                }
            }
            Fault::ClockStep(instance, skew_ms) => {
                self.sites[instance].skew_ms = skew_ms;
                if let Some(api) = &mut self.apis[instance] {
                    api.set_skew(skew_ms);
                }
                self.note(Note::ClockStepped { instance, skew_ms });
            }
            Fault::Mood(processor, mood, length_ms) => {
                let until_ms = (self.now_ms + length_ms).min(self.plan.heals_at_ms);
                self.processors[processor].set_mood(mood, until_ms);
            }
        }
    }

    fn let_disk_work(&mut self, process: Process) {
        let site = &mut self.sites[place(process)];
        if site.disk_fails {
            site.disk_fails = false;
            site.disk.go_on();
            self.note(Note::DiskWorks { process });
        }
    }

    fn kill(&mut self, process: Process) {
        let site = &mut self.sites[place(process)];
        site.dies_in = None;
        if site.tears {
            site.tears = false;
            site.disk.go_on();
        }
        if !site.runs {
            return;
        }
        site.runs = false;
        site.frozen_until_ms = 0;
        self.count.kills += 1;
        self.note(Note::Killed { process });
        match process {
            Process::Api(instance) => {
                let Some(api) = self.apis[instance].take() else { return };
                let writing = api.writing.map(|writing| writing.waiters).unwrap_or_default();
                let waiters = writing.into_iter().chain(api.next_commit);
                let posts: Vec<_> = waiters.map(|waiter| waiter.post).chain(api.unsure).collect();
                for post in posts {
                    self.leave_unanswered(post);
                }
            }
            Process::Store => {
                self.shop = None;
                for instance in 0..INSTANCES {
                    self.hang_up(instance);
                }
            }
        }
        let after_ms = self.random.between(1, 400);
        self.start_after(process, after_ms);
    }

    /// An instance finds out that its store is gone.
    fn hang_up(&mut self, instance: usize) {
        let process = self.sites[instance].process;
        if let Some(store) = self.apis[instance].as_ref().and_then(|api| api.link) {
            let after_ms = self.random.below(5);
            self.after(after_ms, Event::Disconnect(instance, process, store));
        }
    }

    fn cut_power(&mut self) {
        self.count.power_cuts += 1;
        self.boot = self.boot.wrapping_add(1);
        for process in [Process::Api(0), Process::Api(1), Process::Store] {
            self.kill(process);
        }
        let mut lost = 0;
        for site in &mut self.sites {
            let odds = self.random.below(5);
            let kept: Vec<bool> =
                (0..site.disk.unsynced_count()).map(|_| self.random.below(4) < odds).collect();
            lost += kept.iter().filter(|is_kept| !**is_kept).count();
            site.disk = CrashingDisk::with_files(&site.disk.after_power_cut(|number| kept[number]));
            site.disk_fails = false;
            site.tears = false;
        }
        self.note(Note::PowerCut { lost });
        self.truth.power_failed(&self.journal_disks(), [self.boot; 16]);
    }

    fn heal(&mut self) {
        self.note(Note::Healed);
        self.healed = true;
        for site in &mut self.sites {
            site.dies_in = None;
        }
        for process in [Process::Api(0), Process::Api(1), Process::Store] {
            self.let_disk_work(process);
            // One that was to end within a write ends now.
            if self.sites[place(process)].tears {
                self.kill(process);
            }
        }
    }

    fn start_after(&mut self, process: Process, after_ms: u64) {
        let site = &mut self.sites[place(process)];
        if !site.is_starting {
            site.is_starting = true;
            self.after(after_ms, Event::Start(process));
        }
    }

    fn start(&mut self, process: Process) -> Step {
        let site = &mut self.sites[place(process)];
        site.is_starting = false;
        site.process += 1;
        let number = site.process;
        let started = match process {
            Process::Api(instance) => self.start_api(instance)?,
            Process::Store => self.start_store()?,
        };
        if let Some(open) = started {
            self.sites[place(process)].runs = true;
            self.count.recovered += open as u64;
            self.note(Note::Started { process, open });
            if let Process::Api(instance) = process {
                self.after(0, Event::Connect(instance, number));
                self.wake(instance);
            }
        } else {
            // Its disk refuses. Whoever runs it starts it again.
            let after_ms = self.random.between(50, 400);
            self.start_after(process, after_ms);
        }
        Continue(())
    }

    fn start_api(&mut self, instance: usize) -> ControlFlow<Violation, Option<usize>> {
        let site = &self.sites[instance];
        let config = JournalConfig {
            instance: number(instance),
            segment_bytes: self.plan.segment_bytes,
            boot_id: [self.boot; 16],
        };
        let engine = engine_config(&self.plan);
        let started =
            Api::start(&site.disk, config, engine, self.now_ms, site.skew_ms, self.sabotage);
        let mut api = match started {
            Ok(api) => api,
            Err(JournalError::Io { .. }) => return Continue(None),
            Err(error) => return Break(damaged(&error)),
        };
        if self.plan.syncs_first {
            match api.sync(self.sabotage) {
                Ok(()) => {}
                Err(JournalError::Io { .. }) => return Continue(None),
                Err(error) => return Break(damaged(&error)),
            }
        }
        let open = api.engine.open_count();
        self.apis[instance] = Some(api);
        Continue(Some(open))
    }

    fn start_store(&mut self) -> ControlFlow<Violation, Option<usize>> {
        if self.sabotage == Some(Sabotage::ForgetClaims) {
            self.sites[INSTANCES].disk = CrashingDisk::default();
        }
        let disk = self.sites[INSTANCES].disk.clone();
        match Shop::start(&disk, &self.journal_disks(), [self.boot; 16]) {
            Ok(shop) => self.shop = Some(shop),
            Err(ShopError::Refused) => return Continue(None),
            Err(ShopError::Violated(violation)) => return Break(violation),
        }
        Continue(Some(0))
    }
}
