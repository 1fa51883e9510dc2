//! The settings of `monitor serve` and `monitor status`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use ledger::daemon::{LogSettings, Settings};

/// Answers GET /metrics with the metrics of all daemons of a router, in Prometheus' text format, and
/// GET / with a page that shows them live.
///
/// Each time it is asked it asks every daemon over its socket in DIR/run, and gives each sample the
/// label `daemon`. `router_up` tells which daemons answered within a second. While nobody asks,
/// nothing is done, and who asks within 250 ms after another gets what that one got. Whoever watches
/// the page makes it ask once a second, however many watch.
#[derive(Parser, Clone, Debug)]
#[command(name = "monitor serve", version, about, long_about)]
pub struct ServeSettings {
    /// The folder that all processes of the router share
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,

    /// The address to listen on. Whoever reaches it may read the metrics
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9100")]
    pub listen: SocketAddr,

    /// Another name than an address or localhost under which it may be asked, such as that of a
    /// container, without a port. May be given several times, or several with commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub allow_host: Vec<String>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogSettings,
}

impl Settings for ServeSettings {
    const ENVIRONMENT_PREFIX: &'static str = "PAYROUTER_MONITOR_";

    fn check(&self) -> Result<(), String> {
        let is_name = |name: &str| {
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !name.is_empty() && name.bytes().all(is_part) && !name.ends_with('.')
        };
        match self.allow_host.iter().find(|name| !is_name(name)) {
            None => Ok(()),
            Some(name) => Err(format!(
                "--allow-host takes a name without a port, such as router.example, and not \
                 {name:?}; the port does not matter"
            )),
        }
    }
}

const STATUS_HELP: &str = "\
Exit code:
  0  all is well
  1  degraded: a daemon is down or missing, a breaker is not closed while its processor says that it
     fails or payments wait, the store is away or far behind, a payment waits for more than 30 s, or an
     API takes none. Each reason is told
  2  it cannot be told: no daemon was ever started in DIR, or Ctrl-C came first

Examples:
  monitor status                     # once
  monitor status --watch             # again every second, with rates
  monitor status --json | jq .payments.backlog
  monitor status >/dev/null || echo 'look at the router'";

/// Says how the router is, from the metrics of its daemons in DIR/run.
///
/// It asks the daemons itself and needs no `monitor serve`. Counts are since each daemon was
/// started.
#[derive(Parser, Clone, Debug)]
#[command(name = "monitor status", version, about, long_about, after_help = STATUS_HELP)]
pub struct StatusSettings {
    /// The folder that all processes of the router share
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,

    /// Look again every so many seconds, until Ctrl-C
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "1",
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    pub watch: Option<u64>,

    /// Print JSON, one object on a line for each look
    #[arg(long)]
    pub json: bool,
}

impl Settings for StatusSettings {
    const ENVIRONMENT_PREFIX: &'static str = "PAYROUTER_STATUS_";

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_never_be_asked_for_is_refused() {
        let check = |names: &str| {
            ServeSettings::parse_from(["monitor serve", "--allow-host", names]).check()
        };
        assert_eq!(check("monitor,router.example,a_b-c"), Ok(()));
        for names in ["router.example:9100", "monitor,http://monitor/", "monitor,", "a.", "[::1]"] {
            let error = check(names).unwrap_err();
            assert!(error.contains("without a port, such as router.example"), "{error}");
        }
    }
}
