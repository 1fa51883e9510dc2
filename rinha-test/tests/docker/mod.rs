//! The compose files in containers of the test's own, and what tests ask of them.
//!
//! Projects, ports, network and volume are the tests' own, so that a system of the user's that runs
//! meanwhile is left alone. A lock lets one test at a time have them, of whichever process: what it
//! finds there was left by a run that was killed, and is removed.

// What cannot go on here should fail its test.
#![allow(clippy::unwrap_used)]

pub mod load;
pub mod service;
pub mod system;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ledger::clock::Monotonic;
use ledger::{Processor, RangeMs};
use rinha_test::audit::settle::Bookkeepers;
use rinha_test::books::processor::{FIRST_TOKEN, ProcessorAdmin};
use rinha_test::books::router::Router;
use rinha_test::up::ports::{self, FreePorts};
use system::System;

/// After this long a test gives up. No test depends on how much sooner a thing happens.
const PATIENCE: Duration = Duration::from_mins(5);

/// A command that has not ended after this long is ended, and has failed: an engine now and then
/// forgets a call, and whoever waits for it would wait for ever.
const COMMAND_PATIENCE: Duration = Duration::from_mins(2);

/// An image may have to be built.
const BUILD_PATIENCE: Duration = Duration::from_mins(12);

/// How often something is looked for.
const POLL: Duration = Duration::from_millis(20);

/// How often it is looked whether a command has ended.
const COMMAND_POLL: Duration = Duration::from_millis(5);

/// The services of a router, in the order in which they are started.
pub const SERVICES: [&str; 4] = ["store", "api-1", "api-2", "lb"];

/// What PostgreSQL is asked with: the compose files' image.
const POSTGRES_IMAGE: &str = "postgres:17";

/// The compose project of the router, and that of the processors, whose network has the same name.
const ROUTER: &str = "payment-router-test";
const PROCESSORS: &str = "payment-router-test-processors";

/// What scripts/image.sh ends with where there can be no image.
const EXIT_UNAVAILABLE: i32 = 69;

/// Looks until there is something to see.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let clock = Monotonic::start();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(clock.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(POLL);
    }
}

/// What there is to run containers with.
struct Engine {
    /// `docker compose`, or `docker-compose` where there is no plugin.
    compose: &'static [&'static str],
    image: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs a command to its end, or to the end of patience. What it prints goes to files, so that
/// nobody waits for what it may have started.
pub fn output(command: &mut Command, patience: Duration) -> io::Result<Output> {
    let mut files = [tempfile::tempfile()?, tempfile::tempfile()?];
    let [stdout, stderr] = files.each_ref().map(File::try_clone);
    let mut child = command.stdin(Stdio::null()).stdout(stdout?).stderr(stderr?).spawn()?;
    let clock = Monotonic::start();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if clock.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            let error = format!("{command:?} has not ended after {patience:?}");
            return Err(io::Error::new(ErrorKind::TimedOut, error));
        }
        std::thread::sleep(COMMAND_POLL);
    };
    let mut texts = [Vec::new(), Vec::new()];
    for (file, text) in files.iter_mut().zip(&mut texts) {
        file.rewind()?;
        file.read_to_end(text)?;
    }
    let [stdout, stderr] = texts;
    Ok(Output { status, stdout, stderr })
}

fn succeeds(words: &[&str]) -> bool {
    match output(Command::new(words[0]).args(&words[1..]), COMMAND_PATIENCE) {
        Ok(output) => output.status.success(),
        // Where a program is missing nothing is to be told.
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => {
            eprintln!("{error}");
            false
        }
    }
}

/// Runs a command, which must succeed, and gives what it prints.
fn run(command: &mut Command, patience: Duration) -> String {
    let output = output(command, patience).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let Output { status, stderr, .. } = output;
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}\n{text}{stderr}");
    text.trim().to_owned()
}

fn docker(arguments: &[&str]) -> String {
    run(Command::new("docker").args(arguments), COMMAND_PATIENCE)
}

/// Finds it, or says why the test is skipped.
fn engine() -> Option<Engine> {
    if !succeeds(&["docker", "version"]) {
        eprintln!("skipped: no Docker engine answers");
        return None;
    }
    let composes: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
    let works = |words: &&&[&str]| succeeds(&[words, &["version"][..]].concat());
    let Some(compose) = composes.iter().find(works) else {
        eprintln!("skipped: there is neither docker compose nor docker-compose");
        return None;
    };
    // scripts/test.sh has built it before; it is only built here if a test is run by itself.
    let image = printed(Command::new(root().join("scripts/image.sh")))?;
    Some(Engine { compose, image })
}

/// What a script prints that sees to an image, or nothing where there can be none: then the test is skipped.
fn printed(mut script: Command) -> Option<String> {
    let output = output(&mut script, BUILD_PATIENCE).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(EXIT_UNAVAILABLE) {
        eprintln!("skipped: {stderr}");
        return None;
    }
    assert!(output.status.success(), "there is no image: {stderr}");
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// A router or two, their processors and their database in containers.
pub struct Containers {
    engine: Engine,
    system: System,
    /// Of the router, the processors, and the second machine's router.
    ports: FreePorts<4>,
    /// What was cleaned up before the lock is given back.
    _lock: File,
}

impl Containers {
    /// Brings up what `docker compose up` does, and waits until all of it answers; nothing where there is
    /// no Docker engine.
    pub fn up() -> Option<Self> {
        Self::up_as(System::Alone)
    }

    /// Brings up one of the systems that the compose files describe, in the same way.
    pub fn up_as(system: System) -> Option<Self> {
        let path = std::env::temp_dir().join("payment-router-test-containers.lock");
        let lock = File::options().create(true).append(true).open(path).unwrap();
        lock.lock().unwrap();
        let engine = engine()?;
        if system.has_database() {
            let mut script = Command::new(root().join("scripts/base-images.sh"));
            script.arg(POSTGRES_IMAGE);
            printed(script)?;
        }
        clean();
        let containers = Self { engine, system, ports: ports::free().unwrap(), _lock: lock };
        containers.compose(PROCESSORS, &["up", "-d", "--no-build"]);
        containers.bring_up();
        Some(containers)
    }

    /// Brings the router up, and waits until all of it answers. Gives the time from the moment at
    /// which the last of its containers was started.
    pub fn bring_up(&self) -> Duration {
        self.compose(ROUTER, &["up", "-d", "--no-build"]);
        let clock = Monotonic::start();
        for machine in self.system.machines() {
            for service in SERVICES {
                service::wait_until_well(&format!("{machine}{service}"));
            }
        }
        wait_for("the processors", || {
            let answers = |p: &ProcessorAdmin| p.summary(RangeMs::ALL).is_ok();
            self.bookkeepers().processors.iter().all(answers).then_some(())
        });
        for machine in self.system.machines() {
            wait_for("the balancer to know both APIs", || {
                ["api-1", "api-2"]
                    .iter()
                    .all(|api| service::connections_of_balancer(&format!("{machine}{api}")) > 0)
                    .then_some(())
            });
        }
        clock.elapsed()
    }

    /// Ends the router's containers, and keeps their volume.
    pub fn take_down(&self) {
        self.compose(ROUTER, &["down"]);
    }

    /// Ends a service and starts it again, as `docker compose restart` does.
    pub fn restart(&self, service: &str) {
        self.compose(ROUTER, &["restart", service]);
        service::wait_until_well(service);
    }

    /// Brings a service up whose container and volume were removed before.
    pub fn make_anew(&self, service: &str, volume: &str) {
        self.compose(ROUTER, &["rm", "--force", "--stop", service]);
        docker(&["volume", "rm", &format!("{ROUTER}_{volume}")]);
        self.compose(ROUTER, &["up", "-d", "--no-build", service]);
    }

    fn compose(&self, project: &str, arguments: &[&str]) -> String {
        let file =
            if project == ROUTER { self.system.file() } else { "payment-processor/compose.yaml" };
        let [router, default, fallback, second] = self.ports.ports.map(|port| port.to_string());
        let [program, words @ ..] = self.engine.compose else { unreachable!("it has a program") };
        let mut command = Command::new(program);
        command
            .args(words)
            .args(["-p", project, "-f", file])
            .args(self.system.profile())
            .args(arguments)
            .current_dir(root())
            .env("ROUTER_IMAGE", &self.engine.image)
            .env("ROUTER_PORT", &router)
            .env("A_PORT", router)
            .env("B_PORT", second)
            .env("DEFAULT_PORT", default)
            .env("FALLBACK_PORT", fallback)
            .env("PROCESSOR_NETWORK", PROCESSORS)
            .env("ALLOW_PURGE", "true")
            .envs(self.system.variables())
            // An engine on a busy disk may take longer than the minute that is usual.
            .env("COMPOSE_HTTP_TIMEOUT", PATIENCE.as_secs().to_string());
        for variable in
            ["COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES", "POSTGRES_IMAGE"]
        {
            command.env_remove(variable);
        }
        run(&mut command, 2 * PATIENCE)
    }

    /// Where the router takes payments: `host:port`.
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.ports.ports[0])
    }

    /// Where the second machine's router takes payments: `host:port`.
    pub fn second_authority(&self) -> String {
        format!("127.0.0.1:{}", self.ports.ports[3])
    }

    /// Where the router and the processors are asked.
    pub fn urls(&self) -> [String; 3] {
        let [router, default, fallback, _] = self.ports.ports;
        [router, default, fallback].map(|port| format!("http://127.0.0.1:{port}"))
    }

    /// The name of the image.
    pub fn image(&self) -> &str {
        &self.engine.image
    }

    /// Everyone who keeps books.
    pub fn bookkeepers(&self) -> Bookkeepers {
        let [router, processors @ ..] = self.urls();
        Self::keeping(router, &processors)
    }

    /// Everyone who keeps books, as the second machine's clients see it.
    pub fn second_bookkeepers(&self) -> Bookkeepers {
        let [_, processors @ ..] = self.urls();
        Self::keeping(format!("http://{}", self.second_authority()), &processors)
    }

    fn keeping(router: String, processors: &[String; 2]) -> Bookkeepers {
        Bookkeepers {
            router: Router::new(router),
            processors: Processor::ALL
                .map(|p| ProcessorAdmin::new(&processors[p.index()], FIRST_TOKEN)),
        }
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for service in self.system.services() {
                for id in service::ids(&service) {
                    eprintln!("the end of the log of {service}:");
                    // Another panic here would keep all that follows from being removed.
                    let mut command = Command::new("docker");
                    command.args(["logs", "--tail", "30", &id]);
                    if let Ok(Output { stdout, stderr, .. }) =
                        output(&mut command, COMMAND_PATIENCE)
                    {
                        eprintln!("{}", String::from_utf8_lossy(&[stdout, stderr].concat()));
                    }
                }
            }
        }
        clean();
    }
}

/// What docker lists of a project.
fn listed(arguments: &[&str], project: &str) -> Vec<String> {
    let project = format!("label=com.docker.compose.project={project}");
    let mut command = Command::new("docker");
    command.args(arguments).args(["-q", "--filter", &project]);
    let output = output(&mut command, COMMAND_PATIENCE);
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Removes all that tests made, and what a killed run left.
fn clean() {
    let kinds: [(&[&str], &[&str]); 3] = [
        (&["ps", "-a"], &["rm", "--force", "--volumes"]),
        (&["network", "ls"], &["network", "rm"]),
        (&["volume", "ls"], &["volume", "rm", "--force"]),
    ];
    let clock = Monotonic::start();
    loop {
        let mut is_clean = true;
        // The router first: its containers are on the processors' network.
        for project in [ROUTER, PROCESSORS] {
            for (listing, removal) in kinds {
                let found = listed(listing, project);
                if !found.is_empty() {
                    is_clean = false;
                    // What is still in use is tried again.
                    let mut command = Command::new("docker");
                    let _ = output(command.args(removal).args(&found), COMMAND_PATIENCE);
                }
            }
        }
        if is_clean {
            return;
        }
        if clock.elapsed() > PATIENCE {
            return eprintln!("containers of {ROUTER} cannot be removed");
        }
        std::thread::sleep(POLL);
    }
}
