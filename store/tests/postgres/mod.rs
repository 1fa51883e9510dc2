//! A real PostgreSQL in a folder of its own, on a free port of this machine, for as long as a test runs.
//!
//! It does not sync: what a killed process wrote is kept by the operating system, and no test cuts the
//! power. PostgreSQL refuses to run as root, so a test that does starts it as `postgres`.

// Each test uses a part of this, and what cannot go on here should fail its test.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ledger::clock::Monotonic;
use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;

/// After this long a test gives up. No test depends on how much sooner a thing happens.
const PATIENCE: Duration = Duration::from_mins(2);
/// Where Debian puts the programs, in a folder for each version.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// Who runs the database where the test is run by root.
const ACCOUNT: &str = "postgres";
/// The first of the settings; what comes later counts.
const NO_SYNC: &str = "fsync = off\n";
/// The database's superuser, whom it trusts.
const USER: &str = "router";

/// Looks until there is something to see.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let clock = Monotonic::start();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(clock.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A database server.
pub struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    account: Option<(u32, u32)>,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    /// Makes one, and starts it.
    pub fn start() -> Self {
        Self::with_settings(|_| String::new())
    }

    /// One with more settings, which may name files that are put into its folder.
    pub fn with_settings(settings: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut postgres = Self {
            programs: programs(),
            account: account(),
            port: free_port(),
            server: None,
            folder,
        };
        postgres.give(postgres.folder.path());
        let made = postgres
            .command("initdb")
            .args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"])
            .args(["--username", USER, "--pgdata"])
            .arg(postgres.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let settings = settings(postgres.folder.path());
        for entry in fs::read_dir(postgres.folder.path()).unwrap() {
            postgres.give(&entry.unwrap().path());
        }
        let path = postgres.data().join("postgresql.conf");
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, before + NO_SYNC + &settings).unwrap();
        postgres.start_again();
        postgres
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Lets the one who runs the database have a file.
    fn give(&self, path: &Path) {
        if let Some((user, group)) = self.account {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
        command
    }

    /// Where it is.
    pub fn url(&self) -> String {
        Self::url_at(self.port)
    }

    /// Where either of two is that takes writes.
    pub fn url_of_either(&self, other: &Self) -> String {
        let [one, two] = [self.port, other.port];
        format!(
            "postgres://{USER}@127.0.0.1:{one},127.0.0.1:{two}/postgres?target_session_attrs=read-write"
        )
    }

    /// A standby of it, without which it confirms no commit from now on.
    pub fn synchronous_standby(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (programs, account) = (self.programs.clone(), self.account);
        let mut standby = Self { programs, account, port: free_port(), server: None, folder };
        standby.give(standby.folder.path());
        let made = standby
            .command("pg_basebackup")
            .args(["--write-recovery-conf", "--checkpoint=fast", "--pgdata"])
            .arg(standby.data())
            .args(["--dbname", &self.url()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        standby.start_again();
        self.query("ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.query("SELECT pg_reload_conf()");
        wait_for("the standby to be synchronous", || {
            let states = self.query("SELECT sync_state FROM pg_stat_replication");
            (states == [["sync"]]).then_some(())
        });
        standby
    }

    /// Makes a standby the one that takes writes, without a standby of its own.
    pub fn promote(&self) {
        self.query("ALTER SYSTEM SET synchronous_standby_names = ''");
        self.query("SELECT pg_reload_conf(), pg_promote()");
    }

    /// Where one is that is reached on this port.
    pub fn url_at(port: u16) -> String {
        format!("postgres://{USER}@127.0.0.1:{port}/postgres")
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it is, by its host's name and over TLS.
    pub fn url_over_tls(&self) -> String {
        format!("postgres://{USER}@localhost:{}/postgres?sslmode=require", self.port)
    }

    /// A copy of all that it has, made while it is stopped.
    pub fn copy_data(&mut self) {
        self.stop();
        self.copy(&self.data(), &self.folder.path().join("copy"));
        self.start_again();
    }

    /// Brings that copy back in place of all that it has.
    pub fn bring_back(&mut self) {
        self.stop();
        fs::remove_dir_all(self.data()).unwrap();
        self.copy(&self.folder.path().join("copy"), &self.data());
        self.start_again();
    }

    fn copy(&self, from: &Path, to: &Path) {
        let copied = self.command("/bin/cp").arg("-a").arg(from).arg(to).status().unwrap();
        assert!(copied.success());
    }

    /// Puts an empty database in place of the one that it has, whoever uses it.
    pub fn recreate_database(&self) {
        let template = format!("postgres://{USER}@127.0.0.1:{}/template1", self.port);
        for sql in ["DROP DATABASE postgres WITH (FORCE)", "CREATE DATABASE postgres"] {
            let mut command = self.psql_at(&template, sql);
            // Whoever connects to a template in this moment is in the way.
            wait_for("a new database", || command.output().unwrap().status.success().then_some(()));
        }
    }

    /// Starts it after it was stopped or killed, and waits until it answers.
    pub fn start_again(&mut self) {
        wait_for("the database", || {
            if self.server.as_mut().is_none_or(|server| server.try_wait().unwrap().is_some()) {
                // Processes of the one that was killed may hold its memory for a moment.
                self.server = Some(self.spawn());
            }
            // Not another one that has got the port meanwhile.
            let rows = self.try_query("SHOW data_directory")?;
            (Path::new(&rows[0][0]) == self.data()).then_some(())
        });
    }

    fn spawn(&self) -> Child {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        self.command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-c", "unix_socket_directories="])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Stops it.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut server) = self.server.take() {
            kill_process(Pid::from_child(&server), signal).unwrap();
            server.wait().unwrap();
        }
    }

    /// What it answers: rows of fields, as text.
    pub fn query(&self, sql: &str) -> Vec<Vec<String>> {
        self.try_query(sql).unwrap_or_else(|| panic!("the database does not answer {sql}"))
    }

    /// As [`Postgres::query`], if it answers.
    pub fn try_query(&self, sql: &str) -> Option<Vec<Vec<String>>> {
        let asked = self.psql(sql).output().unwrap();
        let text = String::from_utf8(asked.stdout).unwrap();
        let rows = text.lines().map(|line| line.split('|').map(str::to_owned).collect());
        asked.status.success().then(|| rows.collect())
    }

    /// What asks it something, from a process of its own.
    pub fn psql(&self, sql: &str) -> Command {
        self.psql_at(&self.url(), sql)
    }

    fn psql_at(&self, url: &str, sql: &str) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        command
            .args(["-X", "-q", "-A", "-t", "-F", "|", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .arg(url)
            .env("PGCONNECT_TIMEOUT", "5");
        command
    }

    /// The one number that it answers.
    pub fn number(&self, sql: &str) -> u64 {
        self.query(sql)[0][0].parse().unwrap()
    }

    /// Payments in the archive; none before its tables are made.
    pub fn payments_count(&self) -> u64 {
        let rows = self.try_query("SELECT count(*) FROM payments");
        rows.map_or(0, |rows| rows[0][0].parse().unwrap())
    }

    /// Waits until so many payments are archived.
    pub fn wait_for_payments(&self, count: u64) {
        wait_for(&format!("{count} archived payments"), || {
            (self.payments_count() >= count).then_some(())
        });
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end(Signal::QUIT);
    }
}

fn programs() -> PathBuf {
    let installed = fs::read_dir(PROGRAMS).into_iter().flatten();
    let mut found: Vec<_> = installed.map(|entry| entry.unwrap().path().join("bin")).collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path));
    found.sort_by_key(|folder| folder.starts_with(PROGRAMS));
    found
        .into_iter()
        .rfind(|folder| {
            ["initdb", "postgres", "psql"].iter().all(|name| folder.join(name).is_file())
        })
        .expect("PostgreSQL is not installed (Debian: apt-get install postgresql)")
}

/// Who runs the database, unless that is who runs the test.
fn account() -> Option<(u32, u32)> {
    if !getuid().is_root() {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let line = accounts
        .lines()
        .find(|line| line.split(':').next() == Some(ACCOUNT))
        .expect("the package of PostgreSQL makes this account");
    let mut ids = line.split(':').skip(2).map(|id| id.parse().unwrap());
    Some((ids.next().unwrap(), ids.next().unwrap()))
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
