//! A connection to the database on which nothing is waited for without an end: the database breaks off
//! what takes too long, and where it does not say so, the connection is given up here.
//!
//! After an error nobody knows what became of a transaction that was being committed. So a connection
//! that has failed once is never used again; who makes the next one reads what was committed.

use std::path::Path;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};

use super::error::ArchiveError;
use super::tls::Connector;
use super::url::DatabaseUrl;

/// How long connecting may take, with TLS and log-in.
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);
/// After this long the database itself breaks off a statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// After this long without a statement the database ends a transaction, so that a store that stands
/// still holds no locks.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_mins(1);
/// How long is waited here for a step of a few statements.
pub const STEP_PATIENCE: Duration = Duration::from_secs(45);

/// How to reach the database.
#[derive(Clone)]
pub struct Connecting {
    config: Config,
    tls: Option<Connector>,
}

/// A connection.
pub struct Connection {
    /// To be used for steps [`within`] a time.
    pub client: Client,
    driver: JoinHandle<()>,
}

impl Connecting {
    /// To the database at this address, trusting the authorities in this file or those of the system
    /// where the address demands TLS.
    ///
    /// # Errors
    /// There is nobody to trust.
    pub fn new(url: &DatabaseUrl, ca: Option<&Path>) -> Result<Self, ArchiveError> {
        let wrong = |error| ArchiveError::Tls(format!("the database's URL {error}"));
        let tls = if url.demands_tls().map_err(wrong)? {
            Some(Connector::new(ca).map_err(ArchiveError::Tls)?)
        } else {
            None
        };
        Ok(Self { config: url.config().map_err(wrong)?, tls })
    }

    /// Makes a connection.
    ///
    /// # Errors
    /// The database cannot be reached, or refuses.
    pub async fn connect(&self) -> Result<Connection, ArchiveError> {
        within("let us connect", CONNECT_PATIENCE, async {
            let failed = ArchiveError::sql("let us connect");
            let connection = if let Some(tls) = &self.tls {
                let (client, driver) = self.config.connect(tls.clone()).await.map_err(&failed)?;
                Connection { client, driver: tokio::spawn(async { drop(driver.await) }) }
            } else {
                let (client, driver) = self.config.connect(NoTls).await.map_err(&failed)?;
                Connection { client, driver: tokio::spawn(async { drop(driver.await) }) }
            };
            // A transaction must see what was committed while it waited for the archive's row. Of a machine
            // that lost its power the database must not keep the locks.
            let settings = format!(
                "SET default_transaction_isolation = 'read committed'; SET statement_timeout = {}; \
                 SET idle_in_transaction_session_timeout = {}; SET tcp_keepalives_idle = 10; \
                 SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3",
                STATEMENT_TIMEOUT.as_millis(),
                IDLE_IN_TRANSACTION_TIMEOUT.as_millis()
            );
            connection.client.batch_execute(&settings).await.map_err(failed)?;
            Ok(connection)
        })
        .await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Whatever was under way is undone by the database, unless it was committed.
        self.driver.abort();
    }
}

/// Does a step, and gives it up after a time.
///
/// # Errors
/// The step's own, or it took too long.
pub async fn within<T>(
    action: &'static str,
    patience: Duration,
    step: impl Future<Output = Result<T, ArchiveError>>,
) -> Result<T, ArchiveError> {
    match timeout(patience, step).await {
        Ok(done) => done,
        Err(_) => Err(ArchiveError::TimedOut { action, seconds: patience.as_secs() }),
    }
}
