//! The audit's settings.

use std::path::PathBuf;

use clap::Parser;
use ledger::daemon::Settings;
use ledger::volume::Volume;
use ledger::{Processor, RangeMs};

/// Compares the journals with the books of both processors, payment by payment, and says what
/// differs. It only reads, while the system runs or is stopped. Of a running system give a --to that
/// has passed: what is settled meanwhile is no difference of one payment, but may be one of totals.
///
/// Ends with 0 where nothing differs, 1 where something does, 64 for a wrong setting, 65 for a
/// damaged journal, and 70 where it cannot tell, for example because a processor does not answer.
#[derive(Parser, Clone)]
#[command(name = "store audit", version, about, long_about)]
pub struct AuditSettings {
    /// The folder that all processes of the router share
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,

    /// The default processor
    #[arg(long, value_name = "URL")]
    pub default_url: String,

    /// The fallback processor
    #[arg(long, value_name = "URL")]
    pub fallback_url: String,

    /// The first moment, ISO-8601, by requestedAt
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,

    /// The last moment
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,

    /// What the processors' /admin/ asks for; with it their totals are compared as well
    #[arg(long, value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Payments that are asked for at a time
    #[arg(long, value_name = "N", default_value = "8", value_parser = concurrency)]
    pub concurrency: usize,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

fn concurrency(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=256) => Ok(count),
        _ => Err("not a number from 1 to 256".to_owned()),
    }
}

impl Settings for AuditSettings {
    const ENVIRONMENT_PREFIX: &'static str = "PAYROUTER_AUDIT_";

    fn check(&self) -> Result<(), String> {
        for processor in Processor::ALL {
            if !self.url(processor).starts_with("http://") {
                return Err(format!("--{processor}-url must begin with http://"));
            }
        }
        if !self.data.is_dir() {
            return Err(format!("--data {} is no folder", self.data.display()));
        }
        RangeMs::from_bounds(self.from.as_deref(), self.to.as_deref())
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

impl AuditSettings {
    /// The shared volume.
    #[must_use]
    pub fn volume(&self) -> Volume {
        Volume::new(&self.data)
    }

    /// The span of time.
    #[must_use]
    pub fn range(&self) -> RangeMs {
        RangeMs::from_bounds(self.from.as_deref(), self.to.as_deref())
            .expect("the bounds were checked with the settings")
    }

    /// A processor's URL.
    #[must_use]
    pub fn url(&self, processor: Processor) -> &str {
        match processor {
            Processor::Default => &self.default_url,
            Processor::Fallback => &self.fallback_url,
        }
    }
}
