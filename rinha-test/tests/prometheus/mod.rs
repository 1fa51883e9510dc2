//! A real Prometheus with the shipped configuration and rules, as long as a test runs, and the shipped
//! files as they are.
//!
//! Tests cannot wait as long as people sleep: all times of the rules are a tenth of what they are.

// What cannot go on here should fail its test.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::support::{free_ports, wait_for};

/// Times of the rules are divided by this.
const HASTE: u64 = 10;

/// How often Prometheus asks and judges in a test, and how long it waits for an answer: longer than the
/// monitor waits for a daemon.
const INTERVAL: &str = "1500ms";

/// A file of `deploy/monitoring/`.
pub fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/monitoring").join(name)
}

fn shipped_text(name: &str) -> String {
    std::fs::read_to_string(shipped(name)).unwrap()
}

/// The rules.
#[derive(Deserialize)]
pub struct RulesFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// An alert, or an expression that has a name.
#[derive(Deserialize)]
pub struct Rule {
    pub alert: Option<String>,
    pub record: Option<String>,
    pub expr: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The shipped rules.
pub fn rules() -> Vec<Rule> {
    let file: RulesFile = serde_saphyr::from_str(&shipped_text("alerts.yml")).unwrap();
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// The names of all alerts.
pub fn alerts() -> BTreeSet<String> {
    rules().into_iter().filter_map(|rule| rule.alert).collect()
}

#[derive(Deserialize)]
struct Dashboard {
    panels: Vec<Panel>,
}

#[derive(Deserialize)]
struct Panel {
    title: String,
    #[serde(default)]
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    expr: String,
}

/// What the dashboard asks for, with the title of the panel, and with its variables as they are where
/// nothing is chosen.
pub fn dashboard_queries() -> Vec<(String, String)> {
    let dashboard: Dashboard = sonic_rs::from_str(&shipped_text("dashboard.json")).unwrap();
    let of_panel = |panel: Panel| {
        let title = panel.title;
        panel.targets.into_iter().map(move |target| {
            let expr = target.expr.replace("$instance", ".*").replace("$__rate_interval", "10s");
            assert!(!expr.contains('$'), "{title}: {expr}");
            (title.clone(), expr)
        })
    };
    dashboard.panels.into_iter().flat_map(of_panel).collect()
}

/// A number of seconds or minutes in the place of a longer one.
fn hastened(number: &str, unit: &str) -> String {
    let seconds_each = match unit {
        "s" => 1,
        "m" => 60,
        _ => panic!("a time in {unit}"),
    };
    format!("{}ms", number.parse::<u64>().unwrap() * seconds_each * 1000 / HASTE)
}

/// The rules with shorter times: of `for`, of ranges, and where seconds are compared.
fn hastened_rules(text: &str) -> String {
    let line = |line: &str| {
        if let Some((before, time)) = line.split_once("for: ") {
            return format!(
                "{before}for: {}",
                hastened(&time[..time.len() - 1], &time[time.len() - 1..])
            );
        }
        let mut line = line.to_owned();
        if let Some((before, rest)) = line.clone().split_once('[')
            && let Some((time, after)) = rest.split_once(']')
            && line.contains("expr: ")
        {
            let time = hastened(&time[..time.len() - 1], &time[time.len() - 1..]);
            line = format!("{before}[{time}]{after}");
        }
        if line.contains("_seconds")
            && let Some((before, seconds)) = line.clone().rsplit_once(" > ")
            && !line.contains('[')
        {
            line = format!("{before} > {}", seconds.parse::<u64>().unwrap() / HASTE);
        }
        line
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

fn replaced(text: &str, before: &str, after: &str) -> String {
    assert!(text.contains(before), "there is no {before} in {text}");
    text.replace(before, after)
}

/// Whether Prometheus can be run here; where it cannot, says so.
pub fn is_there() -> bool {
    let is_there = Command::new("prometheus").arg("--version").output().is_ok();
    if !is_there {
        eprintln!("skipped: there is no prometheus (Debian: apt-get install prometheus)");
    }
    is_there
}

/// Runs promtool, which must be content.
pub fn promtool(arguments: &[&str], path: &Path) {
    let output = Command::new("promtool").args(arguments).arg(path).output().unwrap();
    assert!(output.status.success(), "{}: {output:?}", path.display());
}

#[derive(Deserialize)]
struct Envelope<T> {
    data: T,
}

#[derive(Deserialize)]
struct Alerts {
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    state: String,
}

#[derive(Deserialize)]
struct Found {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {}

#[derive(Deserialize)]
struct Judged {
    groups: Vec<JudgedGroup>,
}

#[derive(Deserialize)]
struct JudgedGroup {
    rules: Vec<JudgedRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JudgedRule {
    name: String,
    health: String,
}

/// A Prometheus that runs.
pub struct Prometheus {
    process: Child,
    url: String,
    _folder: TempDir,
}

impl Prometheus {
    /// One that asks the monitor on this port.
    pub fn start(monitor_port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = replaced(&shipped_text("prometheus.yml"), "15s", INTERVAL);
        let config = replaced(&config, "monitor:9100", &format!("127.0.0.1:{monitor_port}"));
        let config_path = folder.path().join("prometheus.yml");
        std::fs::write(&config_path, config).unwrap();
        let rules = hastened_rules(&shipped_text("alerts.yml"));
        std::fs::write(folder.path().join("alerts.yml"), rules).unwrap();
        let [port] = free_ports();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config_path.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self { process, url: format!("http://127.0.0.1:{port}"), _folder: folder };
        wait_for("all rules to be judged", || {
            let judged: Judged = prometheus.try_get("/api/v1/rules")?;
            let mut rules = judged.groups.iter().flat_map(|group| &group.rules).peekable();
            rules.peek()?;
            rules.all(|rule| rule.health == "ok").then_some(())
        });
        // Prometheus looks up what it is to scrape some seconds after its start. Until then nothing is told
        // of the monitor, and that lasts about as long as the rule waits here.
        wait_for("the first scrape to be known to the rules", || {
            let is_known = prometheus.count("up == 1") > 0
                && !prometheus.firing().contains_key("RouterMonitorDown");
            is_known.then_some(())
        });
        prometheus
    }

    fn try_get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let mut answer = ureq::get(format!("{}{path}", self.url)).call().ok()?;
        let body = answer.body_mut().read_to_vec().unwrap();
        let text = String::from_utf8(body).unwrap();
        let envelope: Envelope<T> =
            sonic_rs::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        Some(envelope.data)
    }

    /// The alerts that fire, by name, with what they tell.
    pub fn firing(&self) -> BTreeMap<String, String> {
        let told: Alerts = self.try_get("/api/v1/alerts").expect("Prometheus answers");
        let firing = told.alerts.into_iter().filter(|alert| alert.state == "firing");
        firing
            .map(|alert| (alert.labels["alertname"].clone(), alert.annotations["summary"].clone()))
            .collect()
    }

    /// How many series an expression has.
    pub fn count(&self, expr: &str) -> usize {
        let encoded = percent_encoding(expr);
        let found: Option<Found> = self.try_get(&format!("/api/v1/query?query={encoded}"));
        found.unwrap_or_else(|| panic!("{expr} is no expression")).result.len()
    }

    /// The rules that could not be judged.
    pub fn broken_rules(&self) -> Vec<String> {
        let judged: Judged = self.try_get("/api/v1/rules").expect("Prometheus answers");
        let rules = judged.groups.into_iter().flat_map(|group| group.rules);
        rules.filter(|rule| rule.health != "ok").map(|rule| rule.name).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself, and nothing of it is kept.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn percent_encoding(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        write!(encoded, "%{byte:02X}").unwrap();
    }
    encoded
}
