//! A file that keeps the rules, broken in one place at a time.

use super::*;

const KEPT: &str = r#"
x-api: &api
  image: someone/router:1
  networks: [inner, payment-processor]
  deploy: { resources: { limits: { cpus: "0.55", memory: 110MB } } }

services:
  lb:
    image: someone/router:1
    ports: ["9999:9999"]
    networks: { inner: }
    deploy: { resources: { limits: { cpus: 0.1, memory: "20M" } } }
  api-1: { <<: *api }
  api-2:
    <<: *api
    command: [api, "2"]
  store:
    image: someone/router:1
    networks: [inner]
    platform: linux/amd64
    deploy: { resources: { limits: { cpus: "0.30", memory: 110MB } } }

networks:
  inner: { driver: bridge }
  payment-processor: { external: true }
"#;

/// What is broken where these words of the file are replaced.
fn broken(from: &str, to: &str) -> Vec<Broken> {
    assert!(KEPT.contains(from), "{from}");
    check(&Compose::parse(&KEPT.replacen(from, to, 1)).unwrap(), true)
}

fn name(name: &str) -> String {
    name.to_owned()
}

#[test]
fn a_file_that_keeps_the_rules_is_found_to() {
    assert_eq!(broken("lb:", "lb:"), []);
    let compose = Compose::parse(KEPT).unwrap();
    assert_eq!(sums(&compose), Sums { nano_cpus: 1_500_000_000, memory_bytes: 350 << 20 });
}

#[test]
fn what_only_a_profile_starts_does_not_count() {
    let more = "services:\n  watcher: { image: someone/watcher:1, profiles: [watching] }\n";
    assert_eq!(broken("services:\n", more), []);
    let always = more.replace("profiles: [watching]", "");
    assert_eq!(broken("services:\n", &always).len(), 2);
}

#[test]
fn the_file_of_this_project_keeps_the_rules() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose.yaml");
    let compose = Compose::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(check(&compose, false), []);
    // Its image has to be published first.
    assert!(check(&compose, true).contains(&Broken::Built(name("lb"))));
}

#[test]
fn limits_add_up_to_no_more_than_there_is() {
    assert_eq!(broken(r#""0.30""#, r#""0.301""#), [Broken::TooManyCpus(1_501_000_000)]);
    assert_eq!(broken(r#""20M""#, r#""21M""#), [Broken::TooMuchMemory(351 << 20)]);
    assert_eq!(
        broken(r#""20M""#, "20971521").first().unwrap().to_string(),
        "the limits add up to 351 MB, and 350 is the most"
    );
}

#[test]
fn every_service_has_limits() {
    assert_eq!(broken("cpus: 0.1, ", ""), [Broken::NoCpus(name("lb"))]);
    assert_eq!(broken("cpus: 0.1", "cpus: 0"), [Broken::NoCpus(name("lb"))]);
    assert_eq!(broken("cpus: 0.1", "cpus: many"), [Broken::NoCpus(name("lb"))]);
    assert_eq!(broken(r#", memory: "20M""#, ""), [Broken::NoMemory(name("lb"))]);
    let whole = "    platform: linux/amd64\n    deploy: { resources: { limits: { cpus: \"0.30\", memory: 110MB } } }\n";
    let store = || name("store");
    assert_eq!(broken(whole, ""), [Broken::NoCpus(store()), Broken::NoMemory(store())]);
}

#[test]
fn only_bridge_networks_are_allowed() {
    let mode = "    image: someone/router:1\n    network_mode: host\n    ports:";
    assert_eq!(
        broken("    image: someone/router:1\n    ports:", mode),
        [Broken::NetworkMode(name("lb"), name("host"))]
    );
    assert_eq!(
        broken("driver: bridge", "driver: host"),
        [Broken::Driver(name("inner"), name("host"))]
    );
    assert_eq!(
        broken("networks: { inner: }", "networks: { outer: }"),
        [Broken::UnknownNetwork(name("lb"), name("outer"))]
    );
}

#[test]
fn nothing_is_privileged_or_replicated() {
    let lb = |more: &str| broken("    ports:", &format!("    {more}\n    ports:"));
    assert_eq!(lb("privileged: true"), [Broken::Privileged(name("lb"))]);
    assert_eq!(lb("privileged: false"), []);
    assert_eq!(lb("scale: 2"), [Broken::Replicas(name("lb"))]);
    assert_eq!(
        broken(
            "{ resources: { limits: { cpus: 0.1",
            "{ replicas: 2, resources: { limits: { cpus: 0.1"
        ),
        [Broken::Replicas(name("lb"))]
    );
}

#[test]
fn images_are_published_ones_for_the_contests_machine() {
    let image = |text: &str| broken("lb:\n    image: someone/router:1\n", &format!("lb:\n{text}"));
    assert_eq!(image(""), [Broken::NoImage(name("lb"))]);
    for wrong in ["router:1", "someone/router", "someone/router:", "/router:1"] {
        let found = image(&format!("    image: \"{wrong}\"\n"));
        assert_eq!(found, [Broken::NotPublished(name("lb"), name(wrong))]);
    }
    assert_eq!(image("    image: \"registry.example:5000/someone/router:1\"\n"), []);
    assert_eq!(image("    image: someone/router:1\n    build: .\n"), [Broken::Built(name("lb"))]);
    assert_eq!(
        broken("linux/amd64", "linux/arm64"),
        [Broken::Platform(name("store"), name("linux/arm64"))]
    );
}

#[test]
fn two_instances_stand_behind_one_balancer() {
    assert_eq!(broken("9999:9999", "9998:9999"), [Broken::Port(0)]);
    let both = "store:\n    ports: [\"127.0.0.1:9999:1\"]\n";
    assert_eq!(broken("store:\n", both), [Broken::Port(2)]);
    assert_eq!(broken("  api-1: { <<: *api }\n", ""), [Broken::Instances(1)]);
    assert_eq!(broken("{ external: true }", "{ driver: bridge }"), [Broken::NoProcessorNetwork]);
    let renamed = "{ external: true, name: \"${NETWORK:-payment-processor}\" }";
    assert_eq!(broken("{ external: true }", renamed), []);
    let other = "{ external: true, name: other }";
    assert_eq!(broken("{ external: true }", other), [Broken::NoProcessorNetwork]);
    assert_eq!(check(&Compose::default(), true), [Broken::NoServices]);
}
