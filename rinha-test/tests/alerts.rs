//! The alert rules and the dashboard of `deploy/monitoring/`: each alert fires when its fault is caused in a
//! running router with a real Prometheus, none does while all is well, and every metric that they name
//! exists. Skipped where there is no Prometheus.

#![allow(clippy::unwrap_used)]

mod exposition;
mod live;
mod markdown;
#[path = "../../store/tests/postgres/mod.rs"]
mod postgres;
mod prometheus;
mod support;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use exposition::Exposition;
use ledger::Processor;
use ledger::clock::Monotonic;
use live::connection::Connection;
use live::{Live, payment};
use postgres::Postgres;
use prometheus::{Prometheus, alerts, dashboard_queries, is_there, promtool, rules, shipped};
use rinha_test::faults::preload::{Control, Preload};
use rinha_test::up::process::ProcessSpec;
use support::{PATIENCE, wait_for};
use tempfile::TempDir;

/// How often alerts are looked at, and what keeps a fault up is done again.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// How long a healthy router is watched: longer than any rule waits before it fires.
const HEALTHY_FOR: Duration = Duration::from_secs(40);

/// Alerts that look back, and fire for longer than a test waits.
const LOOKING_BACK: [&str; 3] =
    ["RouterDaemonRestarts", "RouterJournalSyncFails", "RouterPaymentsRefused"];

/// Alerts whose fault no test can cause in a router: promtool judges them by recorded series.
const RECORDED: [&str; 1] = ["RouterStoreBehind"];

/// A router with its Prometheus, and what its faults are caused with.
struct Scene {
    live: Live,
    prometheus: Prometheus,
    /// Of the APIs.
    disks: Rc<RefCell<Vec<Control>>>,
    postgres: Option<RefCell<Postgres>>,
    volume: Option<SmallVolume>,
    next_payment: Cell<u32>,
    _folder: TempDir,
}

/// Something that happens to a router, and the alerts that tell of it.
struct Fault {
    alerts: &'static [&'static str],
    cause: fn(&Scene),
    /// Done again and again until the alerts fire.
    keep: fn(&Scene),
    mend: fn(&Scene),
}

/// What can happen to any router.
const FAULTS: [Fault; 7] = [
    Fault {
        alerts: &["RouterMonitorDown"],
        cause: |scene| scene.kill("monitor"),
        keep: |_| (),
        mend: |scene| scene.live.start_again("monitor"),
    },
    Fault {
        alerts: &["RouterDaemonDown", "RouterStoreAway"],
        cause: |scene| scene.kill("store"),
        keep: |_| (),
        mend: |scene| scene.live.start_again("store"),
    },
    Fault {
        alerts: &["RouterApiPassedOver"],
        cause: |scene| scene.kill("api-2"),
        keep: |_| (),
        mend: |scene| scene.live.start_again("api-2"),
    },
    Fault {
        alerts: &["RouterClientsRefused"],
        cause: |scene| ["api-1", "api-2"].into_iter().for_each(|name| scene.kill(name)),
        keep: |scene| scene.post(1),
        mend: |scene| {
            scene.live.system().start_process("api-1").unwrap();
            scene.live.start_again("api-2");
        },
    },
    Fault {
        alerts: &["RouterProcessorFailing"],
        cause: |scene| scene.live.fail(Processor::Default, true),
        keep: |_| (),
        mend: |scene| scene.live.fail(Processor::Default, false),
    },
    Fault {
        alerts: &[
            "RouterBothProcessorsFailing",
            "RouterBacklogOld",
            "RouterBacklogFilling",
            "RouterAnswers503",
        ],
        cause: |scene| scene.fail_both(true),
        keep: |scene| scene.post(10),
        mend: |scene| scene.fail_both(false),
    },
    Fault {
        alerts: &["RouterDaemonRestarts"],
        cause: |_| (),
        keep: |scene| {
            scene.kill("lb");
            scene.live.start_again("lb");
            // Long enough for Prometheus to see each start.
            std::thread::sleep(Duration::from_secs(3));
        },
        mend: |_| (),
    },
];

/// What can happen to its disk and its archive.
const FAULTS_OF_DISKS: [Fault; 4] = [
    Fault {
        alerts: &["RouterTakesNoPayments"],
        cause: |scene| scene.set_disks(|disk| disk.set_bytes_left(Some(0)).unwrap()),
        keep: |scene| scene.post(2),
        mend: |scene| scene.set_disks(|disk| disk.set_bytes_left(None).unwrap()),
    },
    Fault {
        alerts: &["RouterJournalSyncFails"],
        cause: |scene| scene.set_disks(|disk| disk.set_sync_fails(true).unwrap()),
        keep: |scene| scene.post(2),
        mend: |scene| scene.set_disks(|disk| disk.set_sync_fails(false).unwrap()),
    },
    Fault {
        alerts: &["RouterArchiveBehind"],
        cause: |scene| scene.postgres.as_ref().unwrap().borrow_mut().kill(),
        keep: |_| (),
        mend: |scene| scene.postgres.as_ref().unwrap().borrow_mut().start_again(),
    },
    Fault {
        alerts: &["RouterDiskFilling"],
        cause: |scene| scene.volume.as_ref().unwrap().fill(),
        keep: |_| (),
        mend: |scene| scene.volume.as_ref().unwrap().make_room(),
    },
];

/// What can happen to the ledger that it shares.
const FAULTS_OF_LEDGER: [Fault; 1] = [Fault {
    alerts: &["RouterLedgerAway"],
    cause: |scene| scene.postgres.as_ref().unwrap().borrow_mut().kill(),
    keep: |_| (),
    mend: |scene| scene.postgres.as_ref().unwrap().borrow_mut().start_again(),
}];

/// What processors can do to it.
const FAULTS_OF_PAYMENTS: [Fault; 1] = [Fault {
    alerts: &["RouterPaymentsRefused"],
    cause: |_| (),
    keep: |scene| scene.post(2),
    mend: |_| (),
}];

/// A store that shares the ledger at this address.
fn sharing(url: String) -> impl Fn(&mut ProcessSpec) + 'static {
    move |spec| {
        if spec.name == "store" {
            spec.arguments.extend(["--database".into(), url.clone().into()]);
        }
    }
}

impl Scene {
    /// A router that never waits for the cheaper processor, and takes 40 payments for each API.
    fn plain() -> Self {
        Self::changed(|spec| {
            if spec.name.starts_with("api-") {
                let more = ["--patience-ms=1", "--backlog-max=40"];
                spec.arguments.extend(more.map(Into::into));
            }
        })
    }

    /// A router whose disk can fail, with an archive, and its journals on a small volume where one can
    /// be mounted.
    fn with_disks() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let preload = Preload::build(folder.path()).unwrap().expect("there is a C compiler");
        let disks = Rc::new(RefCell::new(Vec::new()));
        let postgres = Postgres::start();
        let volume = SmallVolume::mount();
        let (url, of_apis) = (postgres.url(), Rc::clone(&disks));
        let mounted = volume.as_ref().map(|volume| volume.folder.path().to_owned());
        let scene = Self::changed(move |spec| {
            if spec.name.starts_with("api-") {
                of_apis.borrow_mut().push(preload.load_into(spec).unwrap());
            }
            if spec.name == "store" {
                if let Some(mounted) = &mounted {
                    let journals = Path::new(&spec.arguments[1]).join("journal");
                    std::fs::remove_dir(&journals).unwrap();
                    symlink(mounted, journals).unwrap();
                }
                spec.arguments.extend(["--archive".into(), url.clone().into()]);
            }
        });
        let postgres = Some(RefCell::new(postgres));
        Self { disks, postgres, volume, _folder: folder, ..scene }
    }

    /// A router that shares a ledger.
    fn sharing() -> Self {
        let postgres = Postgres::start();
        let scene = Self::changed(sharing(postgres.url()));
        Self { postgres: Some(RefCell::new(postgres)), ..scene }
    }

    /// A router whose processors refuse every payment.
    fn refused() -> Self {
        let ports = [refuse_all(), refuse_all()];
        Self::changed(move |spec| {
            for (flag, port) in ["--default-url", "--fallback-url"].into_iter().zip(ports) {
                if let Some(place) = spec.arguments.iter().position(|word| word == flag) {
                    spec.arguments[place + 1] = format!("http://127.0.0.1:{port}").into();
                }
            }
        })
    }

    fn changed(change: impl Fn(&mut ProcessSpec) + 'static) -> Self {
        let (live, port) = Live::monitored_and_changed(change);
        wait_for("the monitor", || Connection::try_open(port).ok());
        Self {
            live,
            prometheus: Prometheus::start(port),
            disks: Rc::default(),
            postgres: None,
            volume: None,
            next_payment: Cell::new(0),
            _folder: tempfile::tempdir().unwrap(),
        }
    }

    fn kill(&self, name: &str) {
        self.live.system().kill(name).unwrap();
    }

    fn fail_both(&self, fails: bool) {
        for processor in Processor::ALL {
            self.live.fail(processor, fails);
        }
    }

    /// Posts payments, each over a connection of its own. Whether they are taken does not matter.
    fn post(&self, count: u32) {
        for _ in 0..count {
            let number = self.next_payment.replace(self.next_payment.get() + 1);
            let Ok(mut connection) = Connection::try_open(self.live.port()) else { continue };
            // Nobody may be there to answer.
            let _ = connection.try_post("/payments", &payment(number));
        }
    }

    fn set_disks(&self, set: impl Fn(&Control)) {
        let disks = self.disks.borrow();
        assert_eq!(disks.len(), 2);
        disks.iter().for_each(set);
    }

    /// Causes one fault after the other, each until its alerts fire, and waits until none fires any more.
    fn check_all<'a>(&self, faults: impl IntoIterator<Item = &'a Fault>) {
        for fault in faults {
            self.check(fault);
        }
        self.wait_until_silent();
    }

    /// Causes a fault, and waits until its alerts fire. None of them may have fired before.
    fn check(&self, fault: &Fault) {
        let before = self.prometheus.firing();
        let early: Vec<_> =
            fault.alerts.iter().filter(|name| before.contains_key(**name)).collect();
        assert!(early.is_empty(), "{early:?} before anything was caused: {before:?}");
        (fault.cause)(self);
        let clock = Monotonic::start();
        loop {
            (fault.keep)(self);
            let firing = self.prometheus.firing();
            if fault.alerts.iter().all(|name| firing.contains_key(*name)) {
                let unfilled = firing.values().find(|summary| summary.contains("<no value>"));
                assert_eq!(unfilled, None);
                eprintln!("{:?} after {:?}", fault.alerts, clock.elapsed());
                break;
            }
            assert!(clock.elapsed() < PATIENCE, "{:?}: only {firing:?}", fault.alerts);
            std::thread::sleep(LOOK_PAUSE);
        }
        (fault.mend)(self);
    }

    /// Waits until no alert fires any more but those that look back.
    fn wait_until_silent(&self) {
        let clock = Monotonic::start();
        loop {
            let mut firing = self.prometheus.firing();
            firing.retain(|name, _| !LOOKING_BACK.contains(&name.as_str()));
            if firing.is_empty() {
                return;
            }
            assert!(clock.elapsed() < PATIENCE, "still: {firing:?}");
            std::thread::sleep(LOOK_PAUSE);
        }
    }
}

/// A small file system of its own.
struct SmallVolume {
    folder: TempDir,
}

impl SmallVolume {
    /// Mounts it, if that is allowed here.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs"])
            .arg(folder.path())
            .output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self { folder });
        }
        eprintln!("skipped: a volume that fills, because no file system can be mounted here");
        None
    }

    fn filler(&self) -> std::path::PathBuf {
        self.folder.path().join("filler")
    }

    /// Leaves less than a tenth of it.
    fn fill(&self) {
        std::fs::write(self.filler(), vec![0; 60 << 20]).unwrap();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        // Lazily: a process that was just killed may still have a file open.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Answers as a processor that is well and refuses every payment, for as long as the test runs. Gives
/// its port.
fn refuse_all() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let count = stream.read(&mut head).unwrap_or(0);
            let answer = if head[..count].starts_with(b"GET /payments/service-health") {
                let body = r#"{"failing":false,"minResponseTime":0}"#;
                format!("200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            } else {
                "400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_owned()
            };
            let _ = stream.write_all(format!("HTTP/1.1 {answer}").as_bytes());
        }
    });
    port
}

/// Names of metrics in an expression: all that begin like one.
fn metrics_in(expr: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let begins = |word: &&str| {
        ["router_", "process_", "instance_"].iter().any(|beginning| word.starts_with(beginning))
    };
    expr.split(|letter| !is_part(letter)).filter(begins).map(str::to_owned).collect()
}

/// The metric that a sample is of: a histogram has three kinds of them.
fn family(sample: &str) -> &str {
    let mut of_histogram = ["_bucket", "_sum", "_count"].into_iter();
    of_histogram.find_map(|suffix| sample.strip_suffix(suffix)).unwrap_or(sample)
}

/// The metrics that the tables of docs/operations.md have.
fn documented() -> BTreeSet<String> {
    let text = std::fs::read_to_string(shipped("../../docs/operations.md")).unwrap();
    let (_, section) = text.split_once("\n## Metrics\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| metrics_in(row.split('|').nth(1).unwrap())).collect()
}

#[test]
fn every_alert_says_how_urgent_it_is_and_where_the_run_book_has_it() {
    let run_book = std::fs::read_to_string(shipped("../../docs/operations.md")).unwrap();
    let anchors = markdown::anchors(&markdown::prose(&run_book));
    for rule in rules() {
        let Some(name) = rule.alert else { continue };
        let severity = rule.labels["severity"].as_str();
        assert!(["critical", "warning"].contains(&severity), "{name}: {severity}");
        for annotation in ["summary", "description"] {
            assert!(!rule.annotations[annotation].is_empty(), "{name} has no {annotation}");
        }
        let runbook = &rule.annotations["runbook"];
        let anchor = runbook.strip_prefix("docs/operations.md#");
        assert!(anchor.is_some_and(|anchor| anchors.contains(anchor)), "{name}: {runbook}");
    }
}

#[test]
fn every_alert_has_a_fault_that_causes_it_here() {
    let faults = FAULTS.iter().chain(&FAULTS_OF_DISKS).chain(&FAULTS_OF_LEDGER);
    let faults = faults.chain(&FAULTS_OF_PAYMENTS);
    let caused = faults.flat_map(|fault| fault.alerts).chain(&RECORDED);
    let caused: Vec<_> = caused.map(ToString::to_string).collect();
    let once: BTreeSet<_> = caused.iter().cloned().collect();
    assert_eq!((once.len(), &once), (caused.len(), &alerts()));
}

#[test]
fn promtool_is_content_with_what_is_shipped() {
    if is_there() {
        promtool(&["check", "rules"], &shipped("alerts.yml"));
        promtool(&["check", "config"], &shipped("prometheus.yml"));
    }
}

#[test]
fn a_store_that_stays_behind_fires_its_alert_and_a_crowd_does_not() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prometheus/store_behind.yml");
    let text = std::fs::read_to_string(&recorded).unwrap();
    assert!(RECORDED.iter().all(|name| text.contains(&format!("alertname: {name}\n"))), "{text}");
    if is_there() {
        promtool(&["test", "rules"], &recorded);
    }
}

#[test]
fn the_compose_file_mounts_what_is_there() {
    let root = shipped("../..");
    let compose = std::fs::read_to_string(root.join("compose.yaml")).unwrap();
    let mounted =
        compose.lines().filter_map(|line| line.trim().strip_prefix("- ./")?.split_once(':'));
    let missing: Vec<_> = mounted.clone().filter(|(path, _)| !root.join(path).is_file()).collect();
    assert!(missing.is_empty() && mounted.count() == 5, "{missing:?}");
    // The monitor refuses names that it was not told.
    let scraped = std::fs::read_to_string(shipped("prometheus.yml")).unwrap();
    assert!(scraped.contains("[\"monitor:9100\"]"), "{scraped}");
    assert!(compose.contains("\n      PAYROUTER_MONITOR_ALLOW_HOST: monitor\n"), "{compose}");
}

#[test]
fn none_fires_while_all_is_well_and_every_metric_that_is_named_exists() {
    if !is_there() {
        return;
    }
    let postgres = Postgres::start();
    let url = postgres.url();
    let (live, port) = Live::monitored_and_changed(move |spec| {
        if spec.name == "store" {
            spec.arguments.extend(["--archive".into(), url.clone().into()]);
        }
    });
    wait_for("the monitor", || Connection::try_open(port).ok());
    let prometheus = Prometheus::start(port);
    let clock = Monotonic::start();
    let mut numbers = 0..;
    while clock.elapsed() < HEALTHY_FOR {
        let mut connections = live.connect_to_both();
        for connection in &mut connections {
            for number in numbers.by_ref().take(10) {
                assert_eq!(connection.post("/payments", &payment(number)).status, 202);
            }
        }
        let firing = prometheus.firing();
        assert!(firing.is_empty(), "{firing:?}");
        std::thread::sleep(LOOK_PAUSE);
    }
    assert_eq!(prometheus.broken_rules(), Vec::<String>::new());
    let empty: Vec<_> =
        dashboard_queries().into_iter().filter(|(_, expr)| prometheus.count(expr) == 0).collect();
    assert!(empty.is_empty(), "panels without data: {empty:#?}");

    let recorded: BTreeSet<_> = rules().into_iter().filter_map(|rule| rule.record).collect();
    let text = Connection::open(port).get("/metrics").body;
    let mut told = Exposition::read(&text).names();
    // A store has an archive or a ledger.
    let (_sharing, port) = Live::monitored_and_changed(sharing(postgres.url()));
    wait_for("the metrics of a ledger", || {
        let text = Connection::try_open(port).ok()?.get("/metrics").body;
        let names = Exposition::read(&text).names();
        names.contains("router_ledger_behind_bytes").then(|| told.extend(names))
    });
    let exprs = rules().into_iter().map(|rule| rule.expr);
    let exprs = exprs.chain(dashboard_queries().into_iter().map(|(_, expr)| expr));
    let named: BTreeSet<_> = exprs.flat_map(|expr| metrics_in(&expr)).collect();
    let unknown: Vec<_> =
        named.iter().filter(|name| !told.contains(*name) && !recorded.contains(*name)).collect();
    assert!(named.len() > 30 && unknown.is_empty(), "there are no {unknown:?}");
    let families = told.iter().map(|name| family(name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(families, documented(), "left: what is told, right: what docs/operations.md has");
}

#[test]
fn faults_of_a_router_fire_their_alerts() {
    if is_there() {
        Scene::plain().check_all(&FAULTS);
    }
}

#[test]
fn faults_of_disks_and_archive_fire_their_alerts() {
    if is_there() {
        let scene = Scene::with_disks();
        let can_fill = scene.volume.is_some();
        let possible = |fault: &&Fault| can_fill || fault.alerts != ["RouterDiskFilling"];
        scene.check_all(FAULTS_OF_DISKS.iter().filter(possible));
    }
}

#[test]
fn a_ledger_that_is_away_fires_its_alert() {
    if is_there() {
        Scene::sharing().check_all(&FAULTS_OF_LEDGER);
    }
}

#[test]
fn payments_that_both_processors_refuse_fire_their_alert() {
    if is_there() {
        Scene::refused().check_all(&FAULTS_OF_PAYMENTS);
    }
}
