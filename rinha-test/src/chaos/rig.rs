//! The whole system of a run: simulators, a proxy in front of each, and the router's own processes,
//! any of which can be killed, held up and mended.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger::Processor;
use ledger::clock::Monotonic;
use ledger::volume::Volume;
use rustix::process::Signal;

use super::client::Client;
use super::fault::Member;
use super::load::Ports;
use super::{ChaosError, Durability};
use crate::books::processor::{FIRST_TOKEN, ProcessorAdmin};
use crate::books::router::Router;
use crate::faults::preload::{Control, Effects, Preload};
use crate::faults::proxy::{Behaviour, Proxy};
use crate::up::log::Log;
use crate::up::ports::{self, FreePorts};
use crate::up::process::ProcessSpec;
use crate::up::supervisor::Keeping;
use crate::up::system::System;
use crate::up::topology::{API_INSTANCES, Processors, Topology};
use crate::up::{GRACE, preflight};

/// What the APIs are told besides: calls that time out soon, so little patience
/// that the other processor is used whenever a doubt would let it be, and segments that are full soon.
const API_ARGUMENTS: [&str; 5] = [
    "--call-timeout-ms=1500",
    "--connect-timeout-ms=500",
    "--patience-ms=400",
    "--segment-bytes=262144",
    "--sync-interval-ms=200",
];

/// How long the system may take until it answers.
const READY_DEADLINE: Duration = Duration::from_mins(1);

/// How often it is asked.
const READY_POLL: Duration = Duration::from_millis(50);

/// How a run is started.
#[derive(Clone, Debug)]
pub struct RigSettings {
    /// The folder of everything that the run leaves.
    pub folder: PathBuf,
    /// The folder of the programs.
    pub programs: PathBuf,
    /// The `rinha-test` program.
    pub launcher: PathBuf,
    /// What the journals are to survive.
    pub durability: Durability,
}

/// The system.
pub struct Rig {
    // Ended in this order: who calls before who is called.
    router: System,
    proxies: [Proxy; 2],
    _simulators: System,
    controls: BTreeMap<&'static str, Control>,
    topology: Topology,
    admins: [ProcessorAdmin; 2],
    ports: Ports,
    /// Processes that were killed and not started again since.
    down: Vec<Member>,
    /// How often each process should have been started by now.
    starts: BTreeMap<&'static str, u64>,
    _free_ports: FreePorts<7>,
}

impl Rig {
    /// Starts everything, and waits until it answers.
    ///
    /// # Errors
    /// It cannot be started, or does not answer.
    pub fn start(settings: &RigSettings) -> Result<Self, ChaosError> {
        let free_ports = ports::free::<7>().map_err(ChaosError::Ports)?;
        let [balancer, simulators @ .., api_1, api_2, front_1, front_2] = free_ports.ports;
        let simulators: [u16; 2] = simulators;
        let data = settings.folder.join("data");
        let fronts = [front_1, front_2];
        let simulated = Topology {
            programs: settings.programs.clone(),
            data: data.clone(),
            port: balancer,
            processors: Processors::Simulated(simulators),
            instances: API_INSTANCES,
            allow_purge: true,
            metrics_port: None,
        };
        let topology = Topology {
            processors: Processors::External(fronts.map(|port| format!("http://127.0.0.1:{port}"))),
            ..simulated.clone()
        };
        preflight::check_settings(&simulated)?;
        topology.volume().create().map_err(ChaosError::Folder)?;
        let log = open_log(&settings.folder, &simulated)?;
        let mut keeping = Keeping {
            launcher: settings.launcher.clone(),
            run_folder: topology.volume().run(),
            restart: false,
            grace: GRACE,
            log,
            join: Vec::new(),
        };
        let is_simulator = |spec: &ProcessSpec| spec.name.starts_with("processor-");
        let specs = simulated.processes().into_iter().filter(is_simulator).collect();
        let simulators_system = System::start(keeping.clone(), specs)?;
        let [one, two] = [0, 1].map(|side: usize| {
            let target = SocketAddr::from((Ipv4Addr::LOCALHOST, simulators[side]));
            Proxy::start(fronts[side], target).map_err(ChaosError::Proxy)
        });
        let proxies = [one?, two?];
        let ports = Ports { balancer, apis: [api_1, api_2] };
        let mut specs = topology.processes();
        change_apis(&mut specs, ports, settings.durability);
        let controls = load_faults(&settings.folder, &mut specs)?;
        keeping.restart = true;
        let router = System::start(keeping, specs)?;
        let admins = Processor::ALL
            .map(|processor| ProcessorAdmin::new(simulated.processor_url(processor), FIRST_TOKEN));
        let starts = Member::ALL.map(|member| (member.name(), 1)).into();
        let rig = Self {
            router,
            proxies,
            _simulators: simulators_system,
            controls,
            topology,
            admins,
            ports,
            down: Vec::new(),
            starts,
            _free_ports: free_ports,
        };
        rig.wait_until_it_answers()?;
        Ok(rig)
    }

    /// Where it takes payments.
    #[must_use]
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// The shared volume.
    #[must_use]
    pub fn volume(&self) -> Volume {
        self.topology.volume()
    }

    /// The router, as its clients see it.
    #[must_use]
    pub fn router(&self) -> Router {
        Router::new(self.topology.router_url())
    }

    /// The admin side of a processor, past its proxy.
    #[must_use]
    pub fn admin(&self, processor: Processor) -> &ProcessorAdmin {
        &self.admins[processor.index()]
    }

    /// The proxy in front of a processor.
    #[must_use]
    pub fn proxy(&self, processor: Processor) -> &Proxy {
        &self.proxies[processor.index()]
    }

    /// Whether disk and clock faults can be had.
    #[must_use]
    pub fn has_preload(&self) -> bool {
        !self.controls.is_empty()
    }

    /// The disks and clocks of the processes that write.
    pub fn controls(&self) -> impl Iterator<Item = &Control> {
        self.controls.values()
    }

    /// What the disk and clock faults have done so far.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn effects(&self) -> Result<Effects, ChaosError> {
        let mut sum = Effects::default();
        for control in self.controls() {
            let effects = control.effects()?;
            sum.writes_refused += effects.writes_refused;
            sum.syncs_refused += effects.syncs_refused;
            sum.clock_reads_shifted += effects.clock_reads_shifted;
        }
        Ok(sum)
    }

    /// The process as it would be started by itself, without what this run adds.
    #[must_use]
    pub fn plain_spec(&self, member: Member) -> Option<ProcessSpec> {
        self.topology.processes().into_iter().find(|spec| spec.name == member.name())
    }

    /// Kills a process, which stays down.
    ///
    /// # Errors
    /// There is no such process.
    pub fn kill(&mut self, member: Member) -> Result<(), ChaosError> {
        self.router.kill(member.name())?;
        self.note_down(member);
        Ok(())
    }

    /// Kills all processes of the router at once.
    pub fn kill_all(&mut self) {
        self.router.kill_all();
        for member in Member::ALL {
            self.note_down(member);
        }
    }

    fn note_down(&mut self, member: Member) {
        if !self.down.contains(&member) {
            self.down.push(member);
        }
    }

    /// Starts a process that was killed.
    ///
    /// # Errors
    /// There is no such process.
    pub fn start_again(&mut self, member: Member) -> Result<(), ChaosError> {
        if let Some(place) = self.down.iter().position(|down| *down == member) {
            self.down.remove(place);
            *self.starts.entry(member.name()).or_default() += 1;
            self.router.start_process(member.name())?;
        }
        Ok(())
    }

    /// Sends a process a signal.
    ///
    /// # Errors
    /// There is no such process.
    pub fn signal(&self, member: Member, signal: Signal) -> Result<(), ChaosError> {
        Ok(self.router.signal(member.name(), signal)?)
    }

    /// Ends all faults that may still last.
    ///
    /// # Errors
    /// Something cannot be mended.
    pub fn heal(&mut self) -> Result<(), ChaosError> {
        for processor in Processor::ALL {
            self.proxy(processor).behave(Behaviour::default());
            self.admin(processor).set_failure(false)?;
            self.admin(processor).set_delay(Duration::ZERO)?;
        }
        for control in self.controls() {
            control.set_bytes_left(None)?;
            control.set_sync_fails(false)?;
            control.set_clock_offset_ms(0)?;
        }
        for member in Member::ALL {
            self.signal(member, Signal::CONT)?;
            self.start_again(member)?;
        }
        Ok(())
    }

    /// How processes ended by themselves since this was last asked, in a sentence each.
    ///
    /// # Errors
    /// There is no such process.
    pub fn unasked_ends(&mut self) -> Result<Vec<String>, ChaosError> {
        let mut ends = Vec::new();
        for member in Member::ALL {
            let status = self.router.status(member.name())?;
            let expected = self.starts.entry(member.name()).or_default();
            if status.starts != *expected {
                let times = status.starts.abs_diff(*expected);
                let last = status.last_end.unwrap_or_default();
                ends.push(format!("{member} ended by itself ({times} times, the last one {last})"));
                *expected = status.starts;
            }
        }
        Ok(ends)
    }

    /// Ends that no new start would help, since this was last asked.
    #[must_use]
    pub fn hopeless_ends(&self) -> Vec<String> {
        let ends = self.router.hopeless_ends().try_iter();
        ends.map(|end| format!("{} ended with exit code {}", end.name, end.code)).collect()
    }

    /// Whether everything answers: both APIs, and the store through the balancer.
    ///
    /// # Errors
    /// Who does not, and how.
    pub fn look(&self) -> Result<(), String> {
        let wanted = [
            (self.ports.apis[0], "/health"),
            (self.ports.apis[1], "/health"),
            (self.ports.balancer, "/health"),
            (self.ports.apis[0], "/payments-summary"),
            (self.ports.apis[1], "/payments-summary"),
        ];
        for (port, path) in wanted {
            match Client::new(port).get(path) {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => {
                    let body = String::from_utf8_lossy(&answer.body).into_owned();
                    return Err(format!("{path} on port {port} answers {}: {body}", answer.status));
                }
                Err(error) => return Err(format!("{path} on port {port}: {error}")),
            }
        }
        Ok(())
    }

    fn wait_until_it_answers(&self) -> Result<(), ChaosError> {
        let clock = Monotonic::start();
        loop {
            match self.look() {
                Ok(()) => return Ok(()),
                Err(missing) if clock.elapsed() >= READY_DEADLINE => {
                    return Err(ChaosError::NotReady(missing));
                }
                Err(_) => std::thread::sleep(READY_POLL),
            }
        }
    }

    /// Ends every process of the router, and gives those that did not end well.
    ///
    /// # Errors
    /// There is no such process.
    pub fn end(self) -> Result<Vec<String>, ChaosError> {
        let mut badly = Vec::new();
        for member in Member::ALL.into_iter().rev() {
            self.router.stop(member.name())?;
            let end = self.router.status(member.name())?.last_end.unwrap_or_default();
            if end != "ended with exit code 0" {
                badly.push(format!("told to end, {member} {end}"));
            }
        }
        Ok(badly)
    }
}

fn open_log(folder: &Path, topology: &Topology) -> Result<Log, ChaosError> {
    let file = File::create(folder.join("processes.log")).map_err(ChaosError::Folder)?;
    let specs = topology.processes();
    Ok(Log::to_sink(Box::new(file), false, specs.iter().map(|spec| spec.name.as_str())))
}

fn change_apis(specs: &mut [ProcessSpec], ports: Ports, durability: Durability) {
    for (member, port) in Member::APIS.into_iter().zip(ports.apis) {
        for spec in specs.iter_mut().filter(|spec| spec.name == member.name()) {
            spec.arguments.extend(API_ARGUMENTS.map(Into::into));
            spec.arguments.push(format!("--listen=127.0.0.1:{port}").into());
            spec.arguments.push(format!("--durability={}", durability.name()).into());
        }
    }
}

/// Has the processes that write load the library for disk and clock faults, if it can be built.
fn load_faults(
    folder: &Path,
    specs: &mut [ProcessSpec],
) -> Result<BTreeMap<&'static str, Control>, ChaosError> {
    let folder = folder.join("faults");
    std::fs::create_dir_all(&folder).map_err(ChaosError::Folder)?;
    let mut controls = BTreeMap::new();
    let Some(preload) = Preload::build(&folder)? else {
        return Ok(controls);
    };
    for member in [Member::Api1, Member::Api2, Member::Store] {
        for spec in specs.iter_mut().filter(|spec| spec.name == member.name()) {
            controls.insert(member.name(), preload.load_into(spec)?);
        }
    }
    Ok(controls)
}
