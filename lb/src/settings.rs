//! The balancer's settings.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Parser;
use ledger::daemon::{LogSettings, Settings};
use ledger::volume::metrics_socket;

/// Accepts connections of clients and hands each one over to an API process, which serves it from
/// then on: the balancer sees no byte of it.
///
/// The APIs take turns. One that is gone, ending or full is passed over; while there is none left,
/// clients are answered with 503.
#[derive(Parser, Clone, Debug)]
#[command(name = "lb", version, about, long_about)]
pub struct LbSettings {
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9999")]
    pub listen: SocketAddr,

    /// The socket of an API process; once for each of them
    #[arg(
        long,
        value_name = "PATH",
        value_delimiter = ',',
        default_values = ["data/run/api-1.sock", "data/run/api-2.sock"]
    )]
    pub api: Vec<PathBuf>,

    /// Connections over all API processes; more are answered with 503
    #[arg(long, value_name = "N", default_value_t = 8_192)]
    pub connections_max: u32,

    /// Connections that may wait to be accepted
    #[arg(long, value_name = "N", default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(1..))]
    pub backlog: u32,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogSettings,
}

impl LbSettings {
    /// The socket on which metrics are told: beside that of the first API.
    #[must_use]
    pub fn metrics_socket(&self) -> PathBuf {
        let run = self.api.first().and_then(|path| path.parent());
        metrics_socket(run.unwrap_or(Path::new("")), "lb")
    }
}

impl Settings for LbSettings {
    const ENVIRONMENT_PREFIX: &'static str = "PAYROUTER_LB_";

    fn check(&self) -> Result<(), String> {
        let mut paths = self.api.clone();
        paths.sort();
        if let Some(twice) = paths.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("--api {} is given twice", twice[0].display()));
        }
        if self.connections_max == 0 {
            return Err("--connections-max must be at least 1".to_owned());
        }
        Ok(())
    }
}
