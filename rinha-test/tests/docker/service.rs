//! The containers of the router's services, one at a time.

use std::process::Command;
use std::time::Duration;

use ledger::clock::Monotonic;
use rustix::process::{Pid, Signal, kill_process};

use super::{COMMAND_PATIENCE, PROCESSORS, ROUTER, docker, listed, output, succeeds, wait_for};

/// The ids of a service's containers, running or not.
pub fn ids(service: &str) -> Vec<String> {
    let service = format!("label=com.docker.compose.service={service}");
    listed(&["ps", "-a", "--no-trunc", "--filter", &service], ROUTER)
}

/// The id of a service's container.
pub fn id(service: &str) -> String {
    let ids = ids(service);
    let [id] = &ids[..] else { panic!("containers of {service}: {ids:?}") };
    id.clone()
}

/// What docker knows of a service's container, in this form.
pub fn inspect(service: &str, format: &str) -> String {
    docker(&["inspect", "--type", "container", "--format", format, &id(service)])
}

/// The pid of a service's process, as the machine counts; 0 while it does not run.
fn pid(service: &str) -> i32 {
    inspect(service, "{{.State.Pid}}").parse().unwrap()
}

/// Waits until a service's own check says that it is well.
pub fn wait_until_well(service: &str) {
    let is_program = |word: &&str| ["lb", "api", "store"].contains(word);
    let program = service.split('-').find(is_program).unwrap();
    let program = format!("/bin/{program}");
    wait_for(&format!("{service} to be well"), || {
        // Its container may be gone between two of these.
        let id = id(service);
        succeeds(&["docker", "exec", &id, &program, "check"]).then_some(())
    });
}

/// How often the balancer of an API's machine has connected to it so far.
pub fn connections_of_balancer(api: &str) -> usize {
    let (machine, instance) = api.split_at(api.find("api").unwrap());
    let line = format!("connected to /data/run/{instance}.sock");
    log(&format!("{machine}lb"), None).lines().filter(|text| text.contains(&line)).count()
}

/// What a service has logged, or has since a moment.
pub fn log(service: &str, since: Option<&str>) -> String {
    let id = id(service);
    let mut command = Command::new("docker");
    command.arg("logs");
    if let Some(since) = since {
        command.args(["--since", since]);
    }
    let output = output(command.arg(id), COMMAND_PATIENCE).unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Kills a service with SIGKILL by the engine, which takes it for a wish and leaves it down.
pub fn kill(service: &str) {
    docker(&["kill", &id(service)]);
    wait_for("the end of its process", || (pid(service) == 0).then_some(()));
}

/// Starts a service that is down.
pub fn start(service: &str) {
    docker(&["start", &id(service)]);
}

/// Kills a service as [`kill`] does, and starts it again.
pub fn kill_and_start(service: &str) {
    kill(service);
    start(service);
    wait_until_well(service);
}

/// What a database answers, nothing while it does not: a line for each row, with `|` between columns.
pub fn answer(database: &str, sql: &str) -> Option<String> {
    let mut command = Command::new("docker");
    command.args(["exec", &id(database), "psql", "--no-psqlrc", "--tuples-only", "--no-align"]);
    command.args(["--username", "router", "--dbname", "payments", "--command", sql]);
    let output = output(&mut command, COMMAND_PATIENCE).ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| text.trim().to_owned())
}

/// Waits until a database answers this.
pub fn wait_for_answer(database: &str, sql: &str, wanted: &str) {
    let mut last = None;
    wait_for(&format!("{database} to answer {sql} with {wanted}"), || {
        let seen = answer(database, sql);
        if seen != last {
            eprintln!("{database}: {sql}: {seen:?}");
            last.clone_from(&seen);
        }
        (seen.as_deref() == Some(wanted)).then_some(())
    });
}

/// Makes a standby the database that takes writes, as the head of compose.cluster.yaml says.
pub fn promote(database: &str) {
    docker(&["exec", &id(database), "pg_ctl", "promote"]);
}

/// Kills a service's process with SIGKILL from outside, so that its restart policy brings it
/// back. Gives how long it took until it was well, or nothing where its process cannot be reached.
pub fn kill_from_outside(service: &str) -> Option<Duration> {
    let killed = pid(service);
    let groups = std::fs::read_to_string(format!("/proc/{killed}/cgroup")).unwrap_or_default();
    if !groups.contains(&id(service)) {
        return None;
    }
    let clock = Monotonic::start();
    kill_process(Pid::from_raw(killed)?, Signal::KILL).ok()?;
    let is_another = || (![0, killed].contains(&pid(service))).then_some(());
    wait_for("its restart policy", is_another);
    wait_until_well(service);
    Some(clock.elapsed())
}

/// Takes the APIs off the network that reaches the processors, or puts them on it again.
pub fn set_way_to_processors(is_there: bool) {
    let verb = if is_there { "connect" } else { "disconnect" };
    for api in ["api-1", "api-2"] {
        docker(&["network", verb, PROCESSORS, &id(api)]);
    }
}
