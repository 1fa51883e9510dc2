//! The settings of an API instance.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ledger::daemon::{LogSettings, Settings};
use ledger::journal::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use ledger::volume::{RESTORED_INSTANCE, Volume};

use crate::driver::Durability;
use crate::engine::EngineConfig;
use crate::processor::Target;
use crate::router::RouterConfig;

/// Fees are read in percent with at most two decimal places.
const BASIS_POINTS_IN_PERCENT: f64 = 100.0;

/// Takes payments in over HTTP, writes each to its journal before it answers, and settles each
/// exactly once through one of two payment processors.
///
/// Connections come from the balancer over a Unix socket, and with --listen over TCP as well. Every
/// instance on a volume needs a number of its own.
#[derive(Parser, Clone, Debug)]
#[command(name = "api", version, about, long_about)]
pub struct ApiSettings {
    /// The number of this instance, from 1; the last one, 65535, is that of restored payments
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..i64::from(RESTORED_INSTANCE)))]
    pub instance: u16,

    /// The folder that all processes of the router share
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,

    /// The socket on which the balancer hands connections over [default: DIR/run/api-N.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// A TCP address to listen on besides
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// The socket of the store [default: DIR/run/store.sock]
    #[arg(long, value_name = "PATH")]
    pub store: Option<PathBuf>,

    /// The address of the default processor
    #[arg(long, value_name = "URL", default_value = "http://payment-processor-default:8080")]
    pub default_url: Target,

    /// The address of the fallback processor
    #[arg(long, value_name = "URL", default_value = "http://payment-processor-fallback:8080")]
    pub fallback_url: Target,

    /// The fee of the default processor, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    pub default_fee: f64,

    /// The fee of the fallback processor, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 15.0)]
    pub fallback_fee: f64,

    /// How long a payment may wait for the cheaper processor before the dearer one is used
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    pub patience_ms: u64,

    /// A processor that takes this long is used only when the other one cannot be
    #[arg(long, value_name = "MS", default_value_t = 1_300)]
    pub slow_ms: u64,

    /// Calls in flight at one processor, at most
    #[arg(long, value_name = "N", default_value_t = 384)]
    pub in_flight_max: u32,

    /// When a call to a processor is given up; it is resolved with the same processor then
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub call_timeout_ms: u64,

    /// When opening a connection to a processor is given up
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    pub connect_timeout_ms: u64,

    /// The pause between health checks of a processor; a little more than the window of five seconds
    /// in which a processor answers one
    #[arg(long, value_name = "MS", default_value_t = 5_050)]
    pub health_interval_ms: u64,

    /// What an acknowledged payment survives
    #[arg(long, value_name = "WHAT", default_value = "process", value_enum)]
    pub durability: Durability,

    /// How often the journal is written to the disk in the background
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    pub sync_interval_ms: u64,

    /// The size at which a segment of the journal is sealed
    #[arg(long, value_name = "BYTES", default_value_t = ledger::journal::SEGMENT_BYTES_DEFAULT)]
    pub segment_bytes: u64,

    /// Payments that may wait or be in flight; more are answered with 503
    #[arg(long, value_name = "N", default_value_t = 500_000)]
    pub backlog_max: usize,

    /// Settled payments whose ids are kept at hand, to answer another amount with 409
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    pub recent_max: usize,

    /// How long payments are gathered before the store is asked, for all of them at once, whether they may
    /// be sent; twice as long at most where nothing else happens. 0 asks for each at once
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=1000))]
    pub claim_delay_ms: u64,

    /// Connections of clients at a time; more are answered with 503
    #[arg(long, value_name = "N", default_value_t = 4_096)]
    pub connections_max: u32,

    /// Bytes of a request's head; once so many are there and its end is not, it is answered with 431
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 10)]
    pub head_bytes_max: usize,

    /// Bytes of a request's body, at most; more are answered with 413
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 10)]
    pub body_bytes_max: usize,

    /// How long a request may take to arrive; a slower one is answered with 408
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub request_timeout_ms: u64,

    /// How long a connection may stay open without a request
    #[arg(long, value_name = "MS", default_value_t = 120_000)]
    pub idle_timeout_ms: u64,

    /// How long idle connections are kept when the process is told to end, so that the next answer on
    /// each can say that it is the last
    #[arg(long, value_name = "MS", default_value_t = 1_500)]
    pub idle_linger_ms: u64,

    /// How long connections and calls in flight are waited for when the process is told to end
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    pub drain_timeout_ms: u64,

    /// Let `POST /purge-payments` empty everything
    #[arg(long)]
    pub allow_purge: bool,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogSettings,
}

impl Settings for ApiSettings {
    const ENVIRONMENT_PREFIX: &'static str = "PAYROUTER_API_";

    fn check(&self) -> Result<(), String> {
        for (name, fee) in [("default", self.default_fee), ("fallback", self.fallback_fee)] {
            if basis_points(fee).is_none() {
                return Err(format!(
                    "--{name}-fee must be between 0 and 100 percent, with two decimal places at most"
                ));
            }
        }
        if self.connect_timeout_ms > self.call_timeout_ms {
            return Err("--connect-timeout-ms must not be above --call-timeout-ms".to_owned());
        }
        if self.default_url == self.fallback_url {
            return Err("--default-url and --fallback-url must be two processors".to_owned());
        }
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Err(format!(
                "--segment-bytes must be between {SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX}"
            ));
        }
        if self.head_bytes_max < HEAD_BYTES_MIN {
            return Err(format!("--head-bytes-max must be at least {HEAD_BYTES_MIN}"));
        }
        for (name, count) in [
            ("in-flight-max", u64::from(self.in_flight_max)),
            ("backlog-max", self.backlog_max as u64),
            ("connections-max", u64::from(self.connections_max)),
            ("body-bytes-max", self.body_bytes_max as u64),
            ("call-timeout-ms", self.call_timeout_ms),
            ("connect-timeout-ms", self.connect_timeout_ms),
            ("slow-ms", self.slow_ms),
            ("health-interval-ms", self.health_interval_ms),
            ("sync-interval-ms", self.sync_interval_ms),
            ("request-timeout-ms", self.request_timeout_ms),
            ("idle-timeout-ms", self.idle_timeout_ms),
        ] {
            if count == 0 {
                return Err(format!("--{name} must be at least 1"));
            }
        }
        if self.connections_max >= 1 << 31 || self.backlog_max >= 1 << 31 {
            return Err("--connections-max and --backlog-max must be below 2^31".to_owned());
        }
        Ok(())
    }
}

/// The least head that the HTTP library reads in one piece.
const HEAD_BYTES_MIN: usize = 8 << 10;

/// A fee in percent as whole basis points, if it is one.
fn basis_points(percent: f64) -> Option<u32> {
    let exact = percent * BASIS_POINTS_IN_PERCENT;
    let rounded = exact.round();
    let is_fee = (0.0..=10_000.0).contains(&rounded) && (exact - rounded).abs() < 1e-6;
    // A whole number from 0 to 10,000, so that nothing is lost.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    is_fee.then_some(rounded as u32)
}

impl ApiSettings {
    /// The shared volume.
    #[must_use]
    pub fn volume(&self) -> Volume {
        Volume::new(&self.data)
    }

    /// The socket on which the balancer hands connections over.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.volume().api_socket(self.instance))
    }

    /// The socket of the store.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        self.store.clone().unwrap_or_else(|| self.volume().store_socket())
    }

    /// The engine's limits.
    #[must_use]
    pub fn engine(&self) -> EngineConfig {
        let fee = |percent| basis_points(percent).expect("fees are checked with the settings");
        EngineConfig {
            backlog_max: self.backlog_max,
            recent_max: self.recent_max,
            claim_delay_ms: self.claim_delay_ms,
            router: RouterConfig {
                fees_bp: [fee(self.default_fee), fee(self.fallback_fee)],
                patience_ms: self.patience_ms,
                in_flight_max: self.in_flight_max,
                slow_ms: self.slow_ms,
            },
        }
    }

    /// How long a request may take to arrive.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// How long a connection may stay open without a request.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(arguments: &[&str]) -> ApiSettings {
        let arguments = ["api", "--instance", "1"].iter().chain(arguments);
        ApiSettings::parse_from(arguments)
    }

    #[test]
    fn the_defaults_are_sound() {
        assert_eq!(settings(&[]).check(), Ok(()));
        assert_eq!(settings(&[]).engine().router.fees_bp, [500, 1500]);
    }

    #[test]
    fn the_number_of_restored_payments_is_no_apis() {
        for (number, is_valid) in [("0", false), ("1", true), ("65534", true), ("65535", false)] {
            let settings = ApiSettings::try_parse_from(["api", "--instance", number]);
            assert_eq!(settings.is_ok(), is_valid, "{number}");
        }
    }

    #[test]
    fn fees_are_exact() {
        for (percent, expected) in [
            (5.0, Some(500)),
            (0.07, Some(7)),
            (99.99, Some(9999)),
            (100.0, Some(10_000)),
            (0.005, None),
            (-1.0, None),
            (100.01, None),
            (f64::NAN, None),
        ] {
            assert_eq!(basis_points(percent), expected, "{percent}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (arguments, sentence) in [
            (&["--default-url=http://a", "--fallback-url=http://a"][..], "two processors"),
            (&["--default-fee=101"], "--default-fee must be"),
            (&["--segment-bytes=10"], "--segment-bytes must be"),
            (&["--call-timeout-ms=999"], "--connect-timeout-ms must not be above"),
            (&["--backlog-max=0"], "--backlog-max must be at least 1"),
            (&["--backlog-max=2147483648"], "must be below 2^31"),
            (&["--slow-ms=0"], "--slow-ms must be at least 1"),
            (&["--head-bytes-max=100"], "--head-bytes-max must be"),
        ] {
            let error = settings(arguments).check().unwrap_err();
            assert!(error.contains(sentence), "{error}");
        }
    }
}
