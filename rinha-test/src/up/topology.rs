//! The payment router on one machine: which processes, on which ports, with which arguments.

use std::ffi::OsString;
use std::path::PathBuf;

use ledger::Processor;
use ledger::volume::{Volume, instance_name};

use super::ports::NeededPort;
use super::process::ProcessSpec;

/// The API instances, by number, unless others are asked for.
pub const API_INSTANCES: [u16; 2] = [1, 2];

/// The fees of the simulated processors, by [`Processor::index`].
const FEES: [&str; 2] = ["0.05", "0.15"];

/// The order of stopping, from the clients' side to the processors'.
mod stage {
    // First, so that it does not tell of ends that are meant.
    pub(super) const MONITOR: u8 = 4;
    pub(super) const BALANCER: u8 = 3;
    pub(super) const API: u8 = 2;
    pub(super) const STORE: u8 = 1;
    pub(super) const SIMULATOR: u8 = 0;
}

/// Where the payment processors are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processors {
    /// Two simulators are part of the system, on these ports, by [`Processor::index`].
    Simulated([u16; 2]),
    /// They run elsewhere, at these URLs, by [`Processor::index`].
    External([String; 2]),
}

/// What the system looks like.
#[derive(Clone, Debug)]
pub struct Topology {
    /// The folder with the programs.
    pub programs: PathBuf,
    /// The data folder.
    pub data: PathBuf,
    /// The balancer's port.
    pub port: u16,
    /// The payment processors.
    pub processors: Processors,
    /// The numbers of the APIs.
    pub instances: [u16; 2],
    /// Whether `POST /purge-payments` empties everything.
    pub allow_purge: bool,
    /// The port on which the monitor tells all metrics; without one there is no monitor.
    pub metrics_port: Option<u16>,
}

impl Topology {
    /// The router's URL.
    #[must_use]
    pub fn router_url(&self) -> String {
        local_url(self.port)
    }

    /// Where the monitor answers, if there is one.
    #[must_use]
    pub fn monitor_url(&self) -> Option<String> {
        self.metrics_port.map(local_url)
    }

    /// The URL of a processor.
    #[must_use]
    pub fn processor_url(&self, processor: Processor) -> String {
        match &self.processors {
            Processors::Simulated(ports) => local_url(ports[processor.index()]),
            Processors::External(urls) => urls[processor.index()].clone(),
        }
    }

    /// The shared volume.
    #[must_use]
    pub fn volume(&self) -> Volume {
        Volume::new(&self.data)
    }

    /// The ports that must be free.
    #[must_use]
    pub fn needed_ports(&self) -> Vec<NeededPort> {
        let mut needed =
            vec![NeededPort { port: self.port, user: "the balancer", option: "--port" }];
        if let Processors::Simulated([default, fallback]) = self.processors {
            needed.push(NeededPort {
                port: default,
                user: "the default processor",
                option: "--default-port",
            });
            needed.push(NeededPort {
                port: fallback,
                user: "the fallback processor",
                option: "--fallback-port",
            });
        }
        if let Some(port) = self.metrics_port {
            needed.push(NeededPort { port, user: "the monitor", option: "--metrics-port" });
        }
        needed
    }

    /// The processes, in the order in which they are started.
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessSpec> {
        let mut processes = Vec::new();
        if let Processors::Simulated(ports) = self.processors {
            processes.extend(Processor::ALL.map(|processor| self.simulator(processor, ports)));
        }
        processes.push(self.store());
        processes.extend(self.instances.map(|instance| self.api(instance)));
        processes.push(self.balancer());
        processes.extend(self.metrics_port.map(|port| self.monitor(port)));
        processes
    }

    fn simulator(&self, processor: Processor, ports: [u16; 2]) -> ProcessSpec {
        let listen = format!("127.0.0.1:{}", ports[processor.index()]);
        self.process(
            format!("processor-{processor}"),
            "payment-processor",
            stage::SIMULATOR,
            words(["--listen", &listen, "--fee", FEES[processor.index()]]),
        )
    }

    fn store(&self) -> ProcessSpec {
        let arguments = vec!["--data".into(), self.data.clone().into()];
        let socket = Some(self.volume().store_socket());
        ProcessSpec { socket, ..self.process("store".to_owned(), "store", stage::STORE, arguments) }
    }

    fn api(&self, instance: u16) -> ProcessSpec {
        let mut arguments = words(["--instance", &instance.to_string(), "--data"]);
        arguments.push(self.data.clone().into());
        arguments.extend(words([
            "--default-url",
            &self.processor_url(Processor::Default),
            "--fallback-url",
            &self.processor_url(Processor::Fallback),
        ]));
        if self.allow_purge {
            arguments.push("--allow-purge".into());
        }
        let socket = Some(self.volume().api_socket(instance));
        let name = instance_name(instance);
        ProcessSpec { socket, ..self.process(name, "api", stage::API, arguments) }
    }

    fn balancer(&self) -> ProcessSpec {
        let mut arguments = words(["--listen", &format!("127.0.0.1:{}", self.port)]);
        for instance in self.instances {
            arguments.push("--api".into());
            arguments.push(self.volume().api_socket(instance).into());
        }
        self.process("lb".to_owned(), "lb", stage::BALANCER, arguments)
    }

    fn monitor(&self, port: u16) -> ProcessSpec {
        let mut arguments = words(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data"]);
        arguments.push(self.data.clone().into());
        self.process("monitor".to_owned(), "monitor", stage::MONITOR, arguments)
    }

    fn process(
        &self,
        name: String,
        program: &str,
        stage: u8,
        arguments: Vec<OsString>,
    ) -> ProcessSpec {
        ProcessSpec { name, program: self.programs.join(program), arguments, stage, socket: None }
    }
}

fn local_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(processors: Processors) -> Topology {
        Topology {
            programs: "/bin".into(),
            data: "/data".into(),
            port: 9999,
            processors,
            instances: API_INSTANCES,
            allow_purge: false,
            metrics_port: None,
        }
    }

    fn command_lines(topology: &Topology) -> Vec<String> {
        let line = |spec: &ProcessSpec| {
            let words = spec.arguments.iter().map(|word| word.to_str().unwrap());
            let program = spec.program.to_str().unwrap();
            let line: Vec<_> = std::iter::once(program).chain(words).collect();
            format!("{}: {}", spec.name, line.join(" "))
        };
        topology.processes().iter().map(line).collect()
    }

    #[test]
    fn the_system_is_two_simulators_a_store_two_apis_and_a_balancer() {
        let api = |n| {
            format!(
                "api-{n}: /bin/api --instance {n} --data /data --default-url \
                 http://127.0.0.1:8001 --fallback-url http://127.0.0.1:8002"
            )
        };
        let topology = topology(Processors::Simulated([8001, 8002]));
        assert_eq!(
            command_lines(&topology),
            [
                "processor-default: /bin/payment-processor --listen 127.0.0.1:8001 --fee 0.05",
                "processor-fallback: /bin/payment-processor --listen 127.0.0.1:8002 --fee 0.15",
                "store: /bin/store --data /data",
                &api(1),
                &api(2),
                "lb: /bin/lb --listen 127.0.0.1:9999 --api /data/run/api-1.sock --api \
                 /data/run/api-2.sock",
            ]
        );
        assert_eq!(topology.needed_ports().len(), 3);
    }

    #[test]
    fn only_the_apis_are_told_that_a_purge_is_allowed_and_only_if_it_is() {
        let mut topology = topology(Processors::Simulated([8001, 8002]));
        let told = |topology: &Topology| -> Vec<_> {
            let lines = command_lines(topology).into_iter();
            lines.map(|line| line.contains("--allow-purge")).collect()
        };
        assert_eq!(told(&topology), [false; 6]);
        topology.allow_purge = true;
        assert_eq!(told(&topology), [false, false, false, true, true, false]);
    }

    #[test]
    fn with_processors_elsewhere_no_simulators_are_started() {
        let urls = ["http://a:1", "http://b:2"].map(str::to_owned);
        let topology = topology(Processors::External(urls));
        let lines = command_lines(&topology);
        assert_eq!(lines.len(), 4);
        assert!(
            lines[1].contains("--default-url http://a:1 --fallback-url http://b:2"),
            "{lines:?}"
        );
        assert_eq!(topology.needed_ports().len(), 1);
    }

    #[test]
    fn a_monitor_is_there_where_it_has_a_port() {
        let topology =
            Topology { metrics_port: Some(9100), ..topology(Processors::Simulated([8001, 8002])) };
        let monitor = "monitor: /bin/monitor serve --listen 127.0.0.1:9100 --data /data";
        assert_eq!(command_lines(&topology).last().unwrap(), monitor);
        assert_eq!(topology.needed_ports().len(), 4);
        assert_eq!(topology.monitor_url().unwrap(), "http://127.0.0.1:9100");
    }

    #[test]
    fn apis_have_the_numbers_that_are_asked_for() {
        let topology =
            Topology { instances: [3, 2], ..topology(Processors::Simulated([8001, 8002])) };
        let lines = command_lines(&topology);
        assert!(lines[3].starts_with("api-3: /bin/api --instance 3 "), "{lines:?}");
        let sockets = "--api /data/run/api-3.sock --api /data/run/api-2.sock";
        assert!(lines[5].ends_with(sockets), "{lines:?}");
    }

    #[test]
    fn it_is_stopped_from_the_clients_side_to_the_processors() {
        let monitored =
            Topology { metrics_port: Some(3), ..topology(Processors::Simulated([1, 2])) };
        let mut processes = monitored.processes();
        processes.sort_by_key(|process| std::cmp::Reverse(process.stage));
        let names: Vec<_> = processes.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(
            names,
            ["monitor", "lb", "api-1", "api-2", "store", "processor-default", "processor-fallback"]
        );
    }
}
