//! Flags and environment variables.

use std::net::SocketAddr;

use clap::Parser;
use ledger::daemon::{self, LogSettings};
use rust_decimal::Decimal;

use crate::controls::Token;

/// Decimal places that a fee may have, so that the fee on any total is exact.
const FEE_PLACES_MAX: u32 = 6;

/// A processor that payments can be settled with, for tests and rehearsals.
///
/// It records each payment once, charges a fee, and can be made slow or failing while it runs. A
/// contest has two of them: start it twice, with another address and another fee each.
//
// There is no `Debug`, so that no log line can show the token by way of the settings.
#[derive(Parser, Clone)]
#[command(name = "payment-processor", version, max_term_width = 100, after_long_help = EXAMPLES)]
pub struct Settings {
    /// The address to listen on; repeat it, or separate by commas, for several
    ///
    /// Port 0 takes any free port; the log tells which.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8001", value_delimiter = ',')]
    pub listen: Vec<SocketAddr>,

    /// What a payment costs, as a fraction of its amount: 0.05 is five per cent
    #[arg(long, value_name = "FRACTION", default_value = "0.05")]
    pub fee: Decimal,

    /// The secret that /admin/ asks for in the header X-Rinha-Token
    ///
    /// It is never logged, and can be changed at /admin/configurations/token.
    #[arg(long, value_name = "TOKEN", default_value = "123", hide_env_values = true)]
    pub token: String,

    /// The length of a window in which the health check is answered once, in milliseconds
    ///
    /// Two further calls are held until a next window opens, any beyond that get 429.
    #[arg(
        long,
        value_name = "MILLISECONDS",
        default_value_t = 5000,
        value_parser = clap::value_parser!(u64).range(1..=600_000)
    )]
    pub health_window_ms: u64,

    /// How many payments run at the same time
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 800,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub running_max: u32,

    /// How many payments wait while so many run; any beyond that get 429
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 500,
        value_parser = clap::value_parser!(u32).range(0..=100_000)
    )]
    pub waiting_max: u32,

    /// How many threads serve requests; one is enough for 60,000 payments a second
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=64)
    )]
    pub threads: u16,

    /// How to log
    #[command(flatten)]
    pub log: LogSettings,
}

const EXAMPLES: &str = "\
Examples:
  The two processors of a rehearsal:
    payment-processor --listen 127.0.0.1:8001 --fee 0.05
    payment-processor --listen 127.0.0.1:8002 --fee 0.15

  A payment, and what came of it:
    curl localhost:8001/payments --json '{\"correlationId\":\"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3\",
      \"amount\":19.90,\"requestedAt\":\"2025-07-15T12:34:56.000Z\"}'
    curl localhost:8001/payments/4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3
    H='X-Rinha-Token: 123'
    curl localhost:8001/admin/payments-summary -H \"$H\"

  Make it slow, make it fail, empty its books:
    curl -X PUT localhost:8001/admin/configurations/delay --json '{\"delay\":100}' -H \"$H\"
    curl -X PUT localhost:8001/admin/configurations/failure --json '{\"failure\":true}' -H \"$H\"
    curl -X POST localhost:8001/admin/purge-payments -H \"$H\"

  Every payment with the number of attempts at it, in pages (not a part of the contest's API):
    curl 'localhost:8001/admin/payments?limit=1000' -H \"$H\"
    curl 'localhost:8001/admin/payments?limit=1000&after=LAST-ID' -H \"$H\"";

impl daemon::Settings for Settings {
    const ENVIRONMENT_PREFIX: &'static str = "PAYROUTER_PROCESSOR_";

    fn check(&self) -> Result<(), String> {
        if self.fee.is_sign_negative() || self.fee >= Decimal::ONE {
            return Err("--fee must be a fraction from 0 to below 1, such as 0.05".to_owned());
        }
        if self.fee.scale() > FEE_PLACES_MAX {
            return Err(format!("--fee must have at most {FEE_PLACES_MAX} decimal places"));
        }
        // The text itself is not quoted: it is a secret.
        self.token.parse::<Token>().map_err(|error| format!("--token: {error}"))?;
        for (index, address) in self.listen.iter().enumerate() {
            if address.port() != 0 && self.listen[..index].contains(address) {
                return Err(format!("--listen names {address} twice"));
            }
        }
        Ok(())
    }
}
