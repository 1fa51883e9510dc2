//! Which of the systems that the compose files describe is brought up.

use super::SERVICES;

/// The password of the databases, which live as long as a test.
const PASSWORD: &str = "of-a-test";

/// A system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// One router.
    Alone,
    /// One router that archives to PostgreSQL.
    Archiving,
    /// Two routers that share a ledger in PostgreSQL, which has a synchronous standby.
    Cluster,
}

impl System {
    /// Its compose file.
    pub fn file(self) -> &'static str {
        match self {
            Self::Alone | Self::Archiving => "compose.yaml",
            Self::Cluster => "compose.cluster.yaml",
        }
    }

    /// How compose is told which parts of it are wanted.
    pub fn profile(self) -> &'static [&'static str] {
        match self {
            Self::Alone | Self::Cluster => &[],
            Self::Archiving => &["--profile", "archive"],
        }
    }

    /// What else it is told. What is not wanted is empty, whatever the user has in a file `.env`.
    pub fn variables(self) -> [(&'static str, String); 3] {
        let (password, archive) = match self {
            Self::Alone => ("", String::new()),
            Self::Archiving => {
                (PASSWORD, format!("postgres://router:{PASSWORD}@postgres/payments"))
            }
            Self::Cluster => (PASSWORD, String::new()),
        };
        let is_new = self == Self::Cluster;
        [
            ("POSTGRES_PASSWORD", password.to_owned()),
            ("STORE_ARCHIVE", archive),
            ("LEDGER_NEW", is_new.to_string()),
        ]
    }

    /// Whether PostgreSQL is part of it.
    pub fn has_database(self) -> bool {
        !self.databases().is_empty()
    }

    fn databases(self) -> &'static [&'static str] {
        match self {
            Self::Alone => &[],
            Self::Archiving => &["postgres"],
            Self::Cluster => &["db1", "db2"],
        }
    }

    /// How the names of each machine's services begin.
    pub fn machines(self) -> &'static [&'static str] {
        match self {
            Self::Alone | Self::Archiving => &[""],
            Self::Cluster => &["a-", "b-"],
        }
    }

    /// All services.
    pub fn services(self) -> Vec<String> {
        let of_machine = |machine: &&str| SERVICES.map(|service| format!("{machine}{service}"));
        let databases = self.databases().iter().map(|&name| name.to_owned());
        self.machines().iter().flat_map(of_machine).chain(databases).collect()
    }
}
