//! The rounds of a run: load and faults, mending, settling, comparing.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use ledger::clock::Monotonic;
use ledger::journal::Position;
use ledger::{CorrelationId, Processor, RangeMs, TimestampMs, Totals};
use serde::Deserialize;
use sonic_rs::RawNumber;

use super::ChaosError;
use super::check::{self, Evidence, Summaries};
use super::client::Client;
use super::inject::Injected;
use super::journals::{Journaled, Journals, Settlement};
use super::load::{Load, SharedPosted, lock};
use super::plan::{Plan, Planned, Round};
use super::report::ChaosReport;
use super::rig::{Rig, RigSettings};
use super::{Durability, fault::Fault};
use crate::books::parse_total;
use crate::books::processor::Recorded;
use crate::faults::random::Random;
use crate::load::payments::Payments;

/// By then, after the faults have ended, everything that was accepted must be settled. The longest
/// waits in it: a call in doubt that is looked up every 5 s, and a health check every 5 s.
pub const SETTLE_DEADLINE: Duration = Duration::from_secs(30);

/// How often the journals are looked at meanwhile.
const SETTLE_POLL: Duration = Duration::from_millis(250);

/// For this long the journals must not have grown before books are compared: a process that stood
/// still may find requests in its sockets whose clients have left.
const QUIET: Duration = Duration::from_secs(1);

/// Spans of time over which totals are compared, besides all time.
const SPANS_COUNT: usize = 12;

/// Payments that the router is asked about by id.
const LOOKUPS_COUNT: u64 = 40;

/// A run.
pub struct Run {
    rig: Rig,
    interrupt: Receiver<()>,
    durability: Durability,
    payments: Payments,
    next: Arc<AtomicU32>,
    posted: SharedPosted,
    random: Random,
    report: ChaosReport,
}

/// What the router says of a payment.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LookupAnswer {
    status: String,
    amount: RawNumber,
    processor: Option<String>,
    requested_at: Option<String>,
}

/// Where the journals end, and since when.
#[derive(Default)]
struct Standing {
    ends: Vec<(u16, Position)>,
    since: Duration,
}

/// What happens at a moment of a round.
enum Event<'a> {
    Begin(&'a Planned),
    End(&'a Planned),
}

impl Run {
    /// Starts the system.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        settings: &RigSettings,
        interrupt: Receiver<()>,
        seed: u64,
    ) -> Result<Self, ChaosError> {
        Ok(Self {
            rig: Rig::start(settings)?,
            interrupt,
            durability: settings.durability,
            payments: Payments::new(seed, None),
            next: Arc::default(),
            posted: SharedPosted::default(),
            random: Random::new(seed.rotate_left(1)),
            report: ChaosReport { seed, ..ChaosReport::default() },
        })
    }

    /// Makes all rounds of a plan, up to the first one after which something is wrong.
    ///
    /// # Errors
    /// A fault cannot be injected, or books not be read.
    pub fn rounds(mut self, plan: &Plan) -> Result<ChaosReport, ChaosError> {
        for (number, round) in (1..).zip(&plan.rounds) {
            self.round(number, round)?;
            self.report.rounds = number;
            if !self.report.is_right() {
                break;
            }
        }
        if self.report.is_right() {
            self.after_the_last_swallowed_call()?;
        }
        self.report.count(&lock(&self.posted));
        self.report.effects = self.rig.effects()?;
        self.report.calls_mistreated = Processor::ALL
            .map(|processor| self.rig.proxy(processor).mistreated_count())
            .iter()
            .sum();
        let Self { rig, mut report, .. } = self;
        report.wrongs.extend(rig.end()?);
        Ok(report)
    }

    fn round(&mut self, number: u32, round: &Round) -> Result<(), ChaosError> {
        let purges = round.faults.iter().any(|planned| planned.fault == Fault::Purge);
        if purges {
            // What is held would come to a processor that was emptied meanwhile, and what was stamped
            // while a clock was ahead would seem to come after the purge.
            self.wait_for_swallowed_calls()?;
            self.begin_anew()?;
        }
        let before = lock(&self.posted).requests_count();
        let mut injected = Injected::default();
        let load = Load::start(
            self.rig.ports(),
            self.random.draw(),
            self.payments,
            &self.next,
            &self.posted,
        )
        .map_err(ChaosError::Load)?;
        let outcome = self.faults(round, &mut injected);
        load.stop();
        outcome?;
        self.rig.heal()?;
        injected.finish()?;
        self.take_in(&mut injected);
        let clock = Monotonic::start();
        let settled = self.settle(&clock)?;
        self.take_in_ends(round)?;
        if let Some(journals) = settled {
            let settled_in = clock.elapsed().saturating_sub(QUIET);
            self.report.settled_in_max = self.report.settled_in_max.max(settled_in);
            self.compare(journals, injected.purged_at)?;
            if self.report.is_right() && injected.purged_at.is_some() {
                self.begin_anew()?;
            }
            let posted = lock(&self.posted).requests_count() - before;
            let verdict = if self.report.is_right() { "right" } else { "WRONG" };
            println!(
                "round {number}: {posted} requests, {} faults, settled within {:.1} s, {verdict}",
                round.faults.len(),
                settled_in.as_secs_f64()
            );
        }
        Ok(())
    }

    /// Injects the faults of a round, each at its time, while the load goes on.
    fn faults(&mut self, round: &Round, injected: &mut Injected) -> Result<(), ChaosError> {
        let mut events = Vec::new();
        for planned in &round.faults {
            events.push((planned.at_ms, Event::Begin(planned)));
            events.push((planned.at_ms + planned.for_ms, Event::End(planned)));
        }
        events.sort_by_key(|(at_ms, _)| *at_ms);
        let clock = Monotonic::start();
        for (at_ms, event) in events {
            self.sleep_until(&clock, at_ms)?;
            match event {
                Event::Begin(planned) => injected.begin(&mut self.rig, planned, &self.posted)?,
                Event::End(planned) => injected.end(&mut self.rig, planned)?,
            }
        }
        self.sleep_until(&clock, round.load_ms)
    }

    fn sleep_until(&self, clock: &Monotonic, at_ms: u64) -> Result<(), ChaosError> {
        self.sleep(Duration::from_millis(at_ms).saturating_sub(clock.elapsed()))
    }

    /// Sleeps, unless the run is told to end.
    fn sleep(&self, pause: Duration) -> Result<(), ChaosError> {
        match self.interrupt.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(ChaosError::Interrupted),
        }
    }

    fn take_in(&mut self, injected: &mut Injected) {
        let report = &mut self.report;
        for (kind, count) in &injected.counts {
            *report.faults.entry(kind.clone()).or_default() += count;
        }
        report.skipped.append(&mut injected.skipped);
        report.wrongs.append(&mut injected.wrongs);
        report.purges_refused += injected.purges_refused;
    }

    /// Takes in which processes ended by themselves. Once all is settled, each has been started
    /// again, after a pause that may outlast its fault.
    fn take_in_ends(&mut self, round: &Round) -> Result<(), ChaosError> {
        let ends = self.rig.unasked_ends()?;
        let report = &mut self.report;
        report.wrongs.extend(self.rig.hopeless_ends());
        if round.faults.iter().any(|planned| planned.fault.kind().may_end_processes()) {
            report.ends_under_faults.extend(ends);
        } else {
            report.wrongs.extend(ends);
        }
        Ok(())
    }

    /// Waits until everything answers, all that was accepted is settled, and the journals have
    /// stopped growing. Gives nothing, and says what is missing, where that takes too long.
    fn settle(&mut self, clock: &Monotonic) -> Result<Option<Journals>, ChaosError> {
        let mut standing = Standing::default();
        loop {
            let missing = match self.look(&mut standing, clock.elapsed())? {
                Ok(journals) => return Ok(Some(journals)),
                Err(missing) => missing,
            };
            if clock.elapsed() >= SETTLE_DEADLINE {
                let deadline = SETTLE_DEADLINE.as_secs();
                self.report.wrongs.push(format!("{deadline} s after the faults: {missing}"));
                return Ok(None);
            }
            self.sleep(SETTLE_POLL)?;
        }
    }

    /// Looks once. Gives the journals if all is settled, or what is missing.
    fn look(
        &self,
        standing: &mut Standing,
        now: Duration,
    ) -> Result<Result<Journals, String>, ChaosError> {
        if let Err(missing) = self.rig.look() {
            *standing = Standing::default();
            return Ok(Err(missing));
        }
        let journals = Journals::read(&self.rig.volume())?;
        if standing.ends != journals.ends {
            *standing = Standing { ends: journals.ends.clone(), since: now };
        }
        let open = self.open_count(&journals);
        Ok(if open > 0 {
            Err(format!("{open} payments are not settled"))
        } else if now.saturating_sub(standing.since) < QUIET {
            Err("the journals still grow".to_owned())
        } else {
            Ok(journals)
        })
    }

    fn open_count(&self, journals: &Journals) -> usize {
        let posted = lock(&self.posted);
        let is_open =
            |id: &CorrelationId| journals.payments.get(id).is_some_and(Journaled::is_open);
        posted.payments().filter(|(id, _)| is_open(id)).count()
    }

    /// Compares all books, at one look.
    fn compare(
        &mut self,
        journals: Journals,
        purged_at: Option<TimestampMs>,
    ) -> Result<(), ChaosError> {
        let [default, fallback] = Processor::ALL.map(|processor| self.recorded(processor));
        let recorded = [default?, fallback?];
        let mut summaries = Vec::new();
        for range in self.ranges(&recorded, purged_at) {
            let ours = self.rig.router().summary(range)?;
            let [default, fallback] =
                Processor::ALL.map(|processor| self.rig.admin(processor).summary(range));
            summaries.push(Summaries { range, ours, theirs: [default?, fallback?] });
        }
        let lookups = self.lookups()?;
        let evidence = Evidence {
            posted: lock(&self.posted).clone(),
            recorded,
            journals,
            summaries,
            lookups,
            refusals_are_open: self.durability == Durability::Disk,
        };
        self.report.findings.extend(check::check(&evidence));
        Ok(())
    }

    fn recorded(&self, processor: Processor) -> Result<Vec<Recorded>, ChaosError> {
        let books = self.rig.admin(processor).books()?;
        Ok(books.expect("the simulator lists its payments"))
    }

    /// After a purge the processors still have what the router has forgotten, so only what was
    /// dispatched since can be compared.
    fn ranges(
        &mut self,
        recorded: &[Vec<Recorded>; 2],
        purged_at: Option<TimestampMs>,
    ) -> Vec<RangeMs> {
        let mut ranges = check::ranges(recorded, SPANS_COUNT, |end| self.random.below(end));
        if let Some(purged_at) = purged_at {
            for range in &mut ranges {
                range.from = range.from.max(purged_at);
                range.to = range.to.max(purged_at);
            }
        }
        ranges
    }

    /// Asks the router about some payments by id.
    fn lookups(&mut self) -> Result<Vec<(CorrelationId, Option<Settlement>)>, ChaosError> {
        let mut client = Client::new(self.rig.ports().balancer);
        let mut lookups = Vec::new();
        for _ in 0..LOOKUPS_COUNT {
            let choice = self.random.draw();
            let Some((id, _)) = lock(&self.posted).earlier(choice) else { break };
            let told = client.get(&format!("/payments/{id}")).map_err(ChaosError::Load)?;
            let settlement = match told.status {
                200 => read_lookup(&told.body),
                404 => Ok(None),
                status => Err(format!("status {status}")),
            };
            match settlement {
                Ok(settlement) => lookups.push((id, settlement)),
                Err(why) => self.report.wrongs.push(format!("a look-up of {id} fails: {why}")),
            }
        }
        Ok(lookups)
    }

    /// Empties everything while nothing moves, so that all books can be compared in full again.
    fn begin_anew(&mut self) -> Result<(), ChaosError> {
        if !self.rig.router().purge()? {
            self.report.wrongs.push("a purge was refused while nothing moved".to_owned());
            return Ok(());
        }
        for processor in Processor::ALL {
            self.rig.admin(processor).purge()?;
        }
        lock(&self.posted).purged();
        let left = self.rig.router().summary(RangeMs::ALL)?;
        if left != [Totals::default(); 2] {
            self.report.wrongs.push(format!("after a purge the router still tells of {left:?}"));
        }
        Ok(())
    }

    fn wait_for_swallowed_calls(&self) -> Result<(), ChaosError> {
        // Each is held for a time that has an end.
        while Processor::ALL.into_iter().any(|p| self.rig.proxy(p).held_count() > 0) {
            self.sleep(SETTLE_POLL)?;
        }
        Ok(())
    }

    /// Calls that were swallowed come to the processors long after everyone has forgotten them, and
    /// must change nothing.
    fn after_the_last_swallowed_call(&mut self) -> Result<(), ChaosError> {
        self.wait_for_swallowed_calls()?;
        let clock = Monotonic::start();
        match self.settle(&clock)? {
            Some(journals) => self.compare(journals, None),
            None => Ok(()),
        }
    }
}

fn read_lookup(body: &[u8]) -> Result<Option<Settlement>, String> {
    let answer: LookupAnswer = sonic_rs::from_slice(body).map_err(|error| error.to_string())?;
    if answer.status != "settled" {
        return Ok(None);
    }
    let name = answer.processor.unwrap_or_default();
    let processor = Processor::from_name(&name);
    let requested_at = answer.requested_at.unwrap_or_default();
    Ok(Some(Settlement {
        processor: processor.ok_or_else(|| format!("no processor is named {name:?}"))?,
        requested_at: requested_at.parse().map_err(|error| format!("{error}"))?,
        amount: parse_total(&answer.amount).map_err(|error| error.to_string())?,
    }))
}
