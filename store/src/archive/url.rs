//! The address of the archive's database. It has a password in it, so it is never printed: not by
//! `Debug`, and not in an error.

use std::fmt;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

/// How long a connection may take to be made, by address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After so long without a word the operating system asks whether the other end is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// After so long without an acknowledgement a connection is lost.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// What the database shows as the name of the program.
const APPLICATION_NAME: &str = "payment-router-store";

/// The beginnings of an address.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// Where a database is, with user and password, as it was given.
#[derive(Clone)]
pub struct DatabaseUrl(String);

/// An address that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a URL such as postgres://user:password@host:5432/database?sslmode=require; it is not \
     repeated here because of its password, in which : / @ ? # and % are written as %3A %2F %40 %3F \
     %23 and %25"
)]
pub struct DatabaseUrlError;

impl From<String> for DatabaseUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DatabaseUrl(not shown)")
    }
}

impl DatabaseUrl {
    /// What it says, with the limits of time that are kept towards every database.
    ///
    /// # Errors
    /// It is no address of a database.
    pub fn config(&self) -> Result<Config, DatabaseUrlError> {
        if !SCHEMES.iter().any(|scheme| self.0.starts_with(scheme)) {
            return Err(DatabaseUrlError);
        }
        let mut config: Config = self.0.parse().map_err(|_| DatabaseUrlError)?;
        if config.get_hosts().is_empty() || config.get_user().is_none() {
            return Err(DatabaseUrlError);
        }
        config
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(KEEPALIVE_IDLE)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX)
            .application_name(APPLICATION_NAME);
        Ok(config)
    }

    /// Whether the address demands TLS.
    ///
    /// # Errors
    /// It is no address of a database.
    pub fn demands_tls(&self) -> Result<bool, DatabaseUrlError> {
        Ok(self.config()?.get_ssl_mode() == SslMode::Require)
    }

    /// Checks the address, and that a file with certificates is given only where it is used. What is
    /// wrong is said in a sentence that begins with `flag`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, flag: &str, has_ca: bool) -> Result<(), String> {
        match self.demands_tls() {
            Err(error) => Err(format!("{flag} {error}")),
            Ok(false) if has_ca => Err(format!(
                "the file of an authority is used with TLS only: add sslmode=require to the URL of {flag}"
            )),
            Ok(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> DatabaseUrl {
        DatabaseUrl::from(text.to_owned())
    }

    #[test]
    fn a_url_says_where_the_database_is() {
        let config = url("postgres://me:secret@db.example:6432/books").config().unwrap();
        assert_eq!(config.get_user(), Some("me"));
        assert_eq!(config.get_dbname(), Some("books"));
        assert_eq!(config.get_ports(), [6432]);
        assert!(!url("postgres://me@db/books").demands_tls().unwrap());
        assert!(url("postgresql://me@db/books?sslmode=require").demands_tls().unwrap());
    }

    #[test]
    fn the_password_is_never_shown() {
        for wrong in ["mysql://me:secret@db/a", "postgres://me:secret@db:port/a", "postgres://"] {
            let error = url(wrong).check("--archive", false).unwrap_err();
            assert!(error.starts_with("--archive must be a URL"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let shown = format!("{:?}", url("postgres://me:secret@db/books"));
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_certificate_that_is_not_used_is_refused() {
        assert!(url("postgres://me@db/books").check("--archive", true).is_err());
        url("postgres://me@db/books?sslmode=require").check("--archive", true).unwrap();
    }
}
