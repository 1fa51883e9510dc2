//! `rinha-test flood`: posts payments as fast as they go, waits until they are settled, and
//! compares all books.

pub mod compare;
pub mod payments;
pub mod report;
pub mod sender;
pub mod settle;

pub(crate) mod progress;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ledger::{Cents, Processor, clock};

use self::payments::Payments;
use self::progress::Progress;
use self::report::{Findings, FloodReport};
use self::sender::{Sending, Sent};
use self::settle::Bookkeepers;
use crate::books::BooksError;
use crate::books::processor::{FIRST_TOKEN, ProcessorAdmin};
use crate::books::router::Router;

/// How often the progress is looked at.
const PROGRESS_POLL: Duration = Duration::from_millis(20);

/// The most payments of one flood.
const COUNT_MAX: i64 = 10_000_000;

/// The most connections of one flood.
const CONNECTIONS_MAX: i64 = 10_000;

/// What `--help` adds to the options.
const HELP: &str = "\
A payment counts as accepted when it was answered with a 2xx. It is posted once: one without an
answer counts as failed, and may have been taken in or not. Exit code 0 says that every accepted
payment was recorded by one processor, once, with its amount, and that the router's summary equals
the processors' books; 1 says that it was not so, or that the flood could not be run.

The router's books must agree with the processors' before: start with a router and processors of
the same age, such as those of `rinha-test up` on a new data folder.

Examples:
  rinha-test flood
  rinha-test flood --payments 100000 --connections 256 --json flood.json";

/// The settings of `rinha-test flood`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct FloodSettings {
    /// How many payments are posted
    #[arg(long, value_name = "COUNT", default_value_t = 20_000,
        value_parser = clap::value_parser!(u32).range(1..=COUNT_MAX))]
    pub payments: u32,
    /// Over how many connections
    #[arg(long, value_name = "COUNT", default_value_t = 64,
        value_parser = clap::value_parser!(u16).range(1..=CONNECTIONS_MAX))]
    pub connections: u16,
    /// The router
    #[arg(long, default_value = "http://127.0.0.1:9999", value_parser = parse_url)]
    pub url: String,
    /// The default processor
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001", value_parser = parse_url)]
    pub default_url: String,
    /// The fallback processor
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8002", value_parser = parse_url)]
    pub fallback_url: String,
    /// The processors' admin token
    #[arg(long, default_value = FIRST_TOKEN)]
    pub token: String,
    /// The amount of every payment [default: another one for each]
    #[arg(long, value_parser = parse_amount)]
    pub amount: Option<Cents>,
    /// What the payments follow from; the same seed makes the same payments [default: the time]
    #[arg(long)]
    pub seed: Option<u64>,
    /// How long an answer may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    pub timeout: Duration,
    /// How long nothing may move while payments are still to be settled
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub settle_timeout: Duration,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What became of a payment that was to be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was never posted.
    NotSent,
    /// It was accepted, with this status.
    Accepted(u16),
    /// It was refused, with this status.
    Refused(u16),
    /// The connection broke before there was an answer.
    Broken,
    /// There was no answer in time.
    TimedOut,
}

/// Why a flood could not be run.
#[derive(Debug, thiserror::Error)]
pub enum FloodError {
    /// Books could not be read.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// No connection to the router.
    #[error("cannot connect to {authority}: {cause}")]
    Connect {
        /// `host:port`.
        authority: String,
        /// Why not.
        cause: String,
    },
    /// No runtime for the connections.
    #[error("cannot start sending: {0}")]
    Runtime(io::Error),
    /// The figures cannot be written.
    #[error("cannot write {path}: {cause}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: String,
    },
}

/// Runs a flood, and prints and gives what it found.
///
/// # Errors
/// It could not be run to its end.
pub fn run(settings: &FloodSettings) -> Result<FloodReport, FloodError> {
    let seed = settings.seed.unwrap_or_else(|| clock::now().get().unsigned_abs());
    let payments = Payments::new(seed, settings.amount);
    let bookkeepers = Bookkeepers {
        router: Router::new(&settings.url),
        processors: [&settings.default_url, &settings.fallback_url]
            .map(|url| ProcessorAdmin::new(url, &settings.token)),
    };
    let before = bookkeepers.read()?;
    if before.processor_forgot() {
        eprintln!(
            "a processor has fewer payments than the router says, as a simulator that was started \
             again; what comes from now on is compared"
        );
    }
    let sent = post_all(settings, payments)?;
    let accepted = sent.outcomes.iter().filter(|o| matches!(o, Outcome::Accepted(_))).count();
    let progress = Progress::start();
    let settled =
        settle::wait(&bookkeepers, before, accepted as u64, settings.settle_timeout, |books| {
            progress.show(
                "settled",
                books.settled().saturating_sub(before.settled()),
                accepted as u64,
            );
        })?;
    progress.end();
    let by_id = compare_by_id(&bookkeepers, &payments, &sent)?;
    let report = FloodReport::new(&Findings { seed, sent: &sent, before, settled, by_id });
    print!("{report}");
    if let Some(path) = &settings.json {
        write_json(&report, path)?;
    }
    Ok(report)
}

fn post_all(settings: &FloodSettings, payments: Payments) -> Result<Sent, FloodError> {
    let sending = Sending {
        authority: settings.url.trim_start_matches(SCHEME).to_owned(),
        payments,
        count: settings.payments,
        connections: settings.connections,
        timeout: settings.timeout,
    };
    let progress = Progress::start();
    let goal = u64::from(settings.payments);
    let sent = sender::send(sending, |count| progress.show("posted", u64::from(count), goal));
    progress.end();
    sent
}

fn compare_by_id(
    bookkeepers: &Bookkeepers,
    payments: &Payments,
    sent: &Sent,
) -> Result<Option<compare::ById>, FloodError> {
    let [default, fallback] =
        Processor::ALL.map(|processor| bookkeepers.processors[processor.index()].books());
    let (Some(default), Some(fallback)) = (default?, fallback?) else {
        return Ok(None);
    };
    Ok(Some(compare::by_id(payments, &sent.outcomes, [&default, &fallback])))
}

fn write_json(report: &FloodReport, path: &PathBuf) -> Result<(), FloodError> {
    let failed = |cause: String| FloodError::Json { path: path.clone(), cause };
    let mut json = sonic_rs::to_string_pretty(report).map_err(|e| failed(e.to_string()))?;
    json.push('\n');
    std::fs::write(path, json).map_err(|e| failed(e.to_string()))
}

const SCHEME: &str = "http://";

fn parse_url(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    match url.strip_prefix(SCHEME).and_then(|authority| authority.split_once(':')) {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(url.to_owned()),
        _ => Err("a URL with host and port is needed, such as http://127.0.0.1:9999".to_owned()),
    }
}

fn parse_amount(text: &str) -> Result<Cents, String> {
    Cents::parse_amount(text).map_err(|error| error.to_string())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>().map(Duration::try_from_secs_f64) {
        Ok(Ok(duration)) if !duration.is_zero() => Ok(duration),
        _ => Err("a number of seconds above 0 is needed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_a_host_and_a_port() {
        assert_eq!(parse_url("http://127.0.0.1:9999/").unwrap(), "http://127.0.0.1:9999");
        for text in ["", "127.0.0.1:9999", "https://a:1", "http://a", "http://:1", "http://a:1/b"] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_are_above_0() {
        assert_eq!(parse_seconds("1.5").unwrap(), Duration::from_millis(1500));
        for text in ["", "0", "-1", "NaN", "inf", "1s"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}
