//! The system as `docker compose up` runs it, in containers with the contest's limits. Skipped where
//! no Docker engine answers. .config/nextest.toml lets nothing run beside these tests.
#![allow(clippy::unwrap_used)]

mod docker;

use std::process::Command;
use std::time::Duration;

use docker::system::System;
use docker::{Containers, SERVICES, service};
use ledger::{Processor, RangeMs, clock};
use rinha_test::load::{Shape, Until};
use rinha_test::rules::{MEMORY_BYTES_MAX, NANO_CPUS_MAX};
use sonic_rs::{JsonValueTrait, Value};

/// Bytes of the image at most.
const IMAGE_BYTES_MAX: u64 = 30_000_000;

/// Payments per second while something is done to the containers.
const PER_SECOND: f64 = 300.0;
const CONNECTIONS: u16 = 16;

fn flood(count: u32) -> Shape {
    Shape::Flood { connections: 8, until: Until::Count(count) }
}

#[test]
fn everything_comes_up_well_within_the_limits_and_without_privileges() {
    let Some(containers) = Containers::up() else { return };
    let loads = containers.load(1, flood(100));
    assert_eq!((loads.accepted(), loads.failed()), (100, 0));
    containers.demand_right_books(&loads);
    let (mut nano_cpus, mut memory_bytes) = (0, 0);
    for name in SERVICES {
        // The engine's own opinion, by the health check of the compose file.
        docker::wait_for(&format!("{name} to be called healthy"), || {
            let health = service::inspect(name, "{{.State.Health.Status}}");
            (health == "healthy").then_some(())
        });
        let number = |format: &str| service::inspect(name, format).parse::<u64>().unwrap();
        nano_cpus += number("{{.HostConfig.NanoCpus}}");
        memory_bytes += number("{{.HostConfig.Memory}}");
        assert_eq!(number("{{.RestartCount}}"), 0, "{name}");
        let held = service::inspect(
            name,
            "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Privileged}} {{.HostConfig.CapDrop}} \
            {{.HostConfig.SecurityOpt}} {{.Config.User}} {{.HostConfig.RestartPolicy.Name}}",
        );
        assert_eq!(
            held.to_lowercase(),
            "true false [all] [no-new-privileges:true] 65532:65532 unless-stopped",
            "{name}"
        );
    }
    assert!(nano_cpus > 0 && nano_cpus <= NANO_CPUS_MAX, "{nano_cpus}");
    assert!(memory_bytes > 0 && memory_bytes <= MEMORY_BYTES_MAX, "{memory_bytes}");
    let size = ["image", "inspect", "--format", "{{.Size}}", containers.image()];
    let size = Command::new("docker").args(size).output().unwrap().stdout;
    let size: u64 = String::from_utf8(size).unwrap().trim().parse().unwrap();
    assert!(size < IMAGE_BYTES_MAX, "{size}");
}

#[test]
fn the_contest_in_short_is_right_and_nothing_is_worth_a_warning() {
    let Some(containers) = Containers::up() else { return };
    let out = tempfile::tempdir().unwrap();
    let [router, default, fallback] = containers.urls();
    let names = SERVICES.map(service::id).join(",");
    let begun = clock::now().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_rinha-test"))
        .args(["run", "contest", "--time-scale", "0.25", "--seed", "6", "--against", &router])
        .args(["--default-url", &default, "--fallback-url", &fallback, "--containers", &names])
        .arg("--out")
        .arg(out.path())
        // On a machine that stands still for a moment nothing may differ either: windows that ended
        // 5 s ago, and no answer that is late.
        .args(["--set", "audit.until_s=20", "--set", "audit.from_s=60"])
        .args(["--set", "load.timeout_ms=30000", "--set", "end.late_counts=true"])
        .args(["--set", "end.patience_s=60", "--set", "floor.share=0"])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let result = std::fs::read_to_string(out.path().join("result.json")).unwrap();
    let result: Value = sonic_rs::from_str(&result).unwrap();
    let number = |key: &str| result[key].as_u64().unwrap_or_else(|| panic!("{key}: {text}"));
    assert!(number("accepted") > 1000, "{text}");
    for key in ["failed", "inconsistencies", "lag", "lost", "duplicated"] {
        assert_eq!(number(key), 0, "{key}: {text}");
    }
    assert!(number("memory_with_cache_peak_bytes") < MEMORY_BYTES_MAX, "{text}");
    for name in SERVICES {
        assert!(service::log(name, None).contains(" INFO "), "{name} logs in another form");
        let log = service::log(name, Some(&begun));
        let warnings: Vec<_> = log
            .lines()
            .filter(|line| [" WARN ", " ERROR "].iter().any(|level| line.contains(level)))
            .collect();
        assert!(warnings.is_empty(), "{name}: {warnings:#?}");
        let state = service::inspect(name, "{{.RestartCount}} {{.State.OOMKilled}}");
        assert_eq!(state, "0 false", "{name}");
    }
}

#[test]
fn each_service_can_be_killed_under_load_and_comes_back() {
    let Some(containers) = Containers::up() else { return };
    let loads = containers.load_while(PER_SECOND, CONNECTIONS, |going| {
        for name in SERVICES {
            going.wait_for_more(100);
            service::kill_and_start(name);
            going.wait_for_more(100);
            match service::kill_from_outside(name) {
                Some(took) => eprintln!("{name} was well {took:?} after SIGKILL"),
                None => eprintln!("skipped: the process of {name} cannot be killed from here"),
            }
        }
        going.wait_for_more(100);
    });
    containers.demand_right_books(&loads);
}

#[test]
fn no_request_fails_while_one_api_after_the_other_is_restarted() {
    let Some(containers) = Containers::up() else { return };
    let loads = containers.load_while(2000.0, 64, |going| {
        for api in ["api-1", "api-2"] {
            going.wait_for_more(500);
            let before = service::connections_of_balancer(api);
            containers.restart(api);
            docker::wait_for("the balancer to connect again", || {
                (service::connections_of_balancer(api) > before).then_some(())
            });
        }
        going.wait_for_more(500);
    });
    assert_eq!(loads.failed(), 0, "{:?}", loads.counts());
    assert!(loads.reconnections() > 0, "nobody was told to connect again");
    containers.demand_right_books(&loads);
}

#[test]
fn the_volume_is_kept_over_down_and_up() {
    let Some(containers) = Containers::up() else { return };
    let loads = containers.load(1, flood(500));
    containers.demand_right_books(&loads);
    let before = containers.bookkeepers().read().unwrap();
    containers.take_down();
    containers.bring_up();
    assert_eq!(containers.bookkeepers().read().unwrap(), before);
    // The same payments again are accepted, and change nothing.
    let again = containers.load(1, flood(500));
    assert_eq!((again.accepted(), again.failed()), (500, 0));
    let new = containers.load(2, flood(1));
    containers.demand_right_books(&new);
    containers.demand_right_books(&again);
    assert_eq!(containers.bookkeepers().read().unwrap().settled(), before.settled() + 1);
}

#[test]
fn a_network_to_the_processors_that_is_cut_for_a_while_loses_nothing() {
    let Some(containers) = Containers::up() else { return };
    let loads = containers.load_while(PER_SECOND, CONNECTIONS, |going| {
        going.wait_for_more(100);
        service::set_way_to_processors(false);
        std::thread::sleep(Duration::from_secs(5));
        // Nothing gets through any more, and payments are accepted all the same.
        let settled = || containers.bookkeepers().router.summary(RangeMs::ALL).unwrap();
        let before = settled();
        going.wait_for_more(100);
        assert_eq!(settled(), before);
        service::set_way_to_processors(true);
        going.wait_for_more(100);
    });
    assert_eq!(loads.failed(), 0, "{:?}", loads.counts());
    containers.demand_right_books(&loads);
}

#[test]
fn with_the_profile_archive_every_payment_is_in_the_database() {
    let Some(containers) = Containers::up_as(System::Archiving) else { return };
    let loads = containers.load(1, flood(300));
    assert_eq!((loads.accepted(), loads.failed()), (300, 0));
    containers.demand_right_books(&loads);
    let books = containers.bookkeepers().read().unwrap();
    for processor in Processor::ALL {
        let totals = books.ours[processor.index()];
        let sql = format!(
            "SELECT count(DISTINCT correlation_id), count(*), coalesce(sum(amount * 100), 0)::bigint \
             FROM payments WHERE processor = '{}'",
            processor.name()
        );
        let (count, cents) = (totals.count, totals.amount.get());
        service::wait_for_answer("postgres", &sql, &format!("{count}|{count}|{cents}"));
    }
    let held = "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.Config.User}} \
        {{.HostConfig.PortBindings}}";
    assert_eq!(service::inspect("postgres", held).to_lowercase(), "true [all] postgres map[]");
}

#[test]
fn two_machines_pay_each_payment_once_also_when_the_database_fails_over() {
    const REPLICATION: &str = "SELECT application_name, sync_state FROM pg_stat_replication";
    let Some(containers) = Containers::up_as(System::Cluster) else { return };
    service::wait_for_answer("db1", REPLICATION, "db2|sync");
    let before = containers.load_both(1, flood(300));
    containers.demand_right_books_of_both(&before, 300);

    // Accepted all the same, and nothing of it is sent: it is not decided.
    service::kill("db1");
    let meanwhile = containers.load_both(2, flood(200));
    for loads in &meanwhile {
        assert_eq!((loads.accepted(), loads.failed()), (200, 0));
    }
    let sent = || {
        let [default, fallback] = containers.bookkeepers().processors;
        [default, fallback].map(|processor| processor.summary(RangeMs::ALL).unwrap().count)
    };
    assert_eq!(sent().iter().sum::<u64>(), 300);
    service::promote("db2");
    containers.demand_right_books_of_both(&meanwhile, 500);
    let after = containers.load_both(3, flood(200));
    containers.demand_right_books_of_both(&after, 700);

    // The one that was replaced takes no writes again: it ends, and is a standby once it was copied anew.
    service::start("db1");
    docker::wait_for("the old primary to refuse", || {
        service::log("db1", None).contains("db2 takes writes in place of this one").then_some(())
    });
    // Where it does not reach the other one it cannot know, and the right one starts beside it all the same.
    let ready = "database system is ready to accept connections";
    let starts = service::log("db1", None).matches(ready).count();
    service::kill("db2");
    docker::wait_for("the old primary to start alone", || {
        (service::log("db1", None).matches(ready).count() > starts).then_some(())
    });
    service::start("db2");
    docker::wait_for("the right primary to say so", || {
        service::log("db2", None).contains("db1 was replaced by this one").then_some(())
    });
    containers.make_anew("db1", "db1");
    service::wait_for_answer("db2", REPLICATION, "db1|sync");
    let last = containers.load_both(4, flood(100));
    containers.demand_right_books_of_both(&last, 800);
    for loads in [before, meanwhile, after] {
        containers.demand_right_books_of_both(&loads, 800);
    }
}
