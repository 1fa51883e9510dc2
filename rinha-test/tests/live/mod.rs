//! The real system, on free ports and a folder of its own, and what tests ask of it.

// Each test uses a part of this, and what cannot go on here should fail its test.
#![allow(dead_code, clippy::unwrap_used)]

pub mod connection;
pub mod load;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use connection::{Answer, Connection};
use ledger::volume::Volume;
use ledger::{CorrelationId, Processor, RangeMs, Totals};
use rinha_test::books::processor::{FIRST_TOKEN, ProcessorAdmin, Recorded};
use rinha_test::books::router::Router;
use rinha_test::up::log::Log;
use rinha_test::up::process::ProcessSpec;
use rinha_test::up::supervisor::Keeping;
use rinha_test::up::system::System;
use rinha_test::up::topology::{API_INSTANCES, Processors, Topology};
use tempfile::TempDir;

use crate::support::{free_ports, launcher, wait_for};

/// The amount of [`payment`], in cents.
pub const CENTS: i64 = 1990;

/// How a test changes the arguments of processes.
type Change = Box<dyn Fn(&mut ProcessSpec)>;

/// A system that runs.
pub struct Live {
    // Ended before its folder is removed.
    system: Option<System>,
    topology: Topology,
    change: Change,
    restart: bool,
    _folder: TempDir,
}

impl Live {
    /// The system as `rinha-test up` runs it.
    pub fn start() -> Self {
        Self::changed(|_| {})
    }

    /// The system with more arguments for the APIs.
    pub fn with_api(more: &'static [&'static str]) -> Self {
        Self::changed(more_for_apis(more))
    }

    /// The system with changed processes.
    pub fn changed(change: impl Fn(&mut ProcessSpec) + 'static) -> Self {
        Self::kept(false, None, change)
    }

    /// The system as `rinha-test up` runs it, which starts again what dies.
    pub fn that_restarts() -> Self {
        Self::kept(true, None, |_| {})
    }

    /// The system with more arguments for the APIs, and with a monitor, which tells all metrics on the port that is given.
    pub fn monitored(more: &'static [&'static str]) -> (Self, u16) {
        let [port] = free_ports();
        (Self::kept(false, Some(port), more_for_apis(more)), port)
    }

    /// The system with changed processes, and with a monitor on the port that is given.
    pub fn monitored_and_changed(change: impl Fn(&mut ProcessSpec) + 'static) -> (Self, u16) {
        let [port] = free_ports();
        (Self::kept(false, Some(port), change), port)
    }

    /// Another machine's system, with the processors of this one: on an empty volume, or on a copy of the one
    /// at `data`.
    pub fn beside(
        &self,
        data: Option<&Volume>,
        change: impl Fn(&mut ProcessSpec) + 'static,
    ) -> Self {
        let urls = Processor::ALL.map(|processor| self.topology.processor_url(processor));
        let folder = tempfile::tempdir().unwrap();
        if let Some(volume) = data {
            let to = folder.path().join("data");
            let copied = Command::new("cp").arg("-a").arg(volume.root()).arg(to).status().unwrap();
            assert!(copied.success());
        }
        Self::in_folder(folder, false, None, Some(Processors::External(urls)), change)
    }

    /// Kills all processes at the same moment, for good.
    pub fn kill_all(&mut self) {
        let system = self.system.take().unwrap();
        system.kill_all();
        system.shut_down();
    }

    fn kept(
        restart: bool,
        metrics_port: Option<u16>,
        change: impl Fn(&mut ProcessSpec) + 'static,
    ) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), restart, metrics_port, None, change)
    }

    fn in_folder(
        folder: TempDir,
        restart: bool,
        metrics_port: Option<u16>,
        processors: Option<Processors>,
        change: impl Fn(&mut ProcessSpec) + 'static,
    ) -> Self {
        let programs = launcher().parent().unwrap().to_owned();
        for program in ["api", "lb", "monitor", "store", "payment-processor"] {
            let path = programs.join(program);
            assert!(path.exists(), "{} is missing: cargo build --workspace", path.display());
        }
        let [port, default, fallback] = free_ports();
        let processors = processors.unwrap_or(Processors::Simulated([default, fallback]));
        let data = folder.path().join("data");
        let topology = Topology {
            programs,
            data,
            port,
            processors,
            instances: API_INSTANCES,
            allow_purge: false,
            metrics_port,
        };
        topology.volume().create().unwrap();
        let change = Box::new(change);
        let mut live = Self { system: None, topology, change, restart, _folder: folder };
        live.start_all();
        live
    }

    /// Starts everything, and waits until it answers.
    pub fn start_all(&mut self) {
        let mut specs = self.topology.processes();
        specs.iter_mut().for_each(&self.change);
        let keeping = Keeping {
            join: Vec::new(),
            launcher: launcher(),
            run_folder: self.topology.volume().run(),
            restart: self.restart,
            grace: Duration::from_secs(30),
            log: Log::to_stdout(specs.iter().map(|spec| spec.name.as_str())),
        };
        self.system = Some(System::start(keeping, specs).unwrap());
        self.wait_until_it_answers();
    }

    /// Waits until every API answers for what was settled.
    pub fn wait_until_it_answers(&self) {
        wait_for("the processors", || {
            let answers = |processor| self.admin(processor).summary(RangeMs::ALL).is_ok();
            Processor::ALL.into_iter().all(answers).then_some(())
        });
        // The APIs take turns, so two connections in a row reach both.
        wait_for("both APIs", || {
            let answers = |()| {
                Connection::try_open(self.topology.port)
                    .and_then(|mut connection| connection.try_get("/payments-summary"))
                    .is_ok_and(|answer| answer.status == 200)
            };
            [(); 2].into_iter().all(answers).then_some(())
        });
    }

    pub fn system(&self) -> &System {
        self.system.as_ref().unwrap()
    }

    /// Kills all processes at the same moment, and starts them again. The simulators have forgotten
    /// everything then.
    pub fn kill_all_and_start(&mut self) {
        let system = self.system.take().unwrap();
        system.kill_all();
        system.shut_down();
        self.start_all();
    }

    /// Starts a process that was killed, and waits until all of them answer.
    pub fn start_again(&self, name: &str) {
        self.system().start_process(name).unwrap();
        self.wait_until_it_answers();
    }

    /// Where everything is kept.
    pub fn volume(&self) -> Volume {
        self.topology.volume()
    }

    /// A command that runs the program of a process once more, as it was started.
    pub fn command(&self, name: &str) -> Command {
        let mut specs = self.topology.processes();
        specs.iter_mut().for_each(&self.change);
        let spec = specs.into_iter().find(|spec| spec.name == name).unwrap();
        let mut command = Command::new(spec.program);
        command.args(spec.arguments);
        command
    }

    pub fn processor_url(&self, processor: Processor) -> String {
        self.topology.processor_url(processor)
    }

    pub fn port(&self) -> u16 {
        self.topology.port
    }

    /// The port of a processor.
    pub fn processor_port(&self, processor: Processor) -> u16 {
        match &self.topology.processors {
            Processors::Simulated(ports) => ports[processor.index()],
            Processors::External(_) => unreachable!("tests run simulators"),
        }
    }

    /// A client's connection to the balancer.
    pub fn connect(&self) -> Connection {
        Connection::open(self.topology.port)
    }

    /// A connection to each API, as long as both run and nobody else connects: they take turns.
    pub fn connect_to_both(&self) -> [Connection; 2] {
        [self.connect(), self.connect()]
    }

    pub fn get(&self, path: &str) -> Answer {
        self.connect().get(path)
    }

    pub fn router(&self) -> Router {
        Router::new(self.topology.router_url())
    }

    pub fn admin(&self, processor: Processor) -> ProcessorAdmin {
        ProcessorAdmin::new(self.topology.processor_url(processor), FIRST_TOKEN)
    }

    pub fn fail(&self, processor: Processor, fails: bool) {
        self.admin(processor).set_failure(fails).unwrap();
    }

    pub fn delay(&self, processor: Processor, delay: Duration) {
        self.admin(processor).set_delay(delay).unwrap();
    }

    /// What the router says was settled, by [`Processor::index`].
    pub fn summary(&self) -> [Totals; 2] {
        self.router().summary(RangeMs::ALL).unwrap()
    }

    /// How many payments the router says were settled.
    pub fn settled_count(&self) -> u64 {
        self.summary().iter().map(|totals| totals.count).sum()
    }

    /// Waits until this many payments are settled, and no more.
    pub fn wait_settled(&self, count: u64) {
        let is_settled = || (self.settled_count() >= count).then_some(());
        wait_for(&format!("{count} settled payments"), is_settled);
        assert_eq!(self.settled_count(), count);
    }

    /// Every payment that a processor has recorded.
    pub fn recorded(&self, processor: Processor) -> BTreeMap<CorrelationId, Recorded> {
        let books = self.admin(processor).books().unwrap().unwrap();
        books.into_iter().map(|recorded| (recorded.id, recorded)).collect()
    }

    /// The ids that some processor has recorded. Our totals must be theirs, request for request and
    /// cent for cent, and no payment may be in both books.
    pub fn agreed_books(&self) -> Vec<CorrelationId> {
        let ours = self.summary();
        for processor in Processor::ALL {
            let theirs = self.admin(processor).summary(RangeMs::ALL).unwrap();
            assert_eq!(ours[processor.index()], theirs, "{processor}");
        }
        let [default, fallback] = Processor::ALL.map(|processor| self.recorded(processor));
        let twice: Vec<_> = default.keys().filter(|id| fallback.contains_key(id)).collect();
        assert!(twice.is_empty(), "paid twice: {twice:?}");
        let mut ids: Vec<_> = default.into_keys().chain(fallback.into_keys()).collect();
        ids.sort_unstable();
        ids
    }
}

fn more_for_apis(more: &'static [&'static str]) -> impl Fn(&mut ProcessSpec) {
    move |spec| {
        if spec.name.starts_with("api-") {
            spec.arguments.extend(more.iter().map(Into::into));
        }
    }
}

/// The id with this number; they rise with their numbers.
pub fn id(number: u32) -> CorrelationId {
    let mut bytes = [0x40; 16];
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    CorrelationId::from_bytes(bytes)
}

/// The ids with numbers from 0.
pub fn ids(count: u32) -> Vec<CorrelationId> {
    (0..count).map(id).collect()
}

/// The body of a payment of 19.90.
pub fn payment(number: u32) -> String {
    format!(r#"{{"correlationId":"{}","amount":19.90}}"#, id(number))
}
