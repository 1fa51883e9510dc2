//! The same load against the floor server.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hdrhistogram::Histogram;
use ledger::clock::Monotonic;

use super::StressError;
use super::judge::quantile_ms;
use super::k6::{K6, K6Floor};
use super::subject::{Boxed, Surroundings, keeping, open_log};
use crate::load::meter::histogram;
use crate::load::{LoadError, Meter, Shape, Traffic, drive};
use crate::up::ports::{self, FreePorts};
use crate::up::process::ProcessSpec;

/// How long the server may take until it listens.
const READY_DEADLINE: Duration = Duration::from_secs(10);

/// How often that is looked at.
const READY_POLL: Duration = Duration::from_millis(10);

/// What the floor showed so far.
pub struct Floor {
    server: Boxed,
    authority: String,
    /// Where k6 writes.
    out: PathBuf,
    /// Times in nanoseconds, but for those that k6 saw.
    latency_ns: Histogram<u64>,
    /// What k6 saw, each time.
    k6: Vec<K6Floor>,
    requests: u64,
    cpu: Duration,
    _folder: tempfile::TempDir,
    _ports: FreePorts<1>,
}

impl Floor {
    /// Starts the server, in a box like the system's.
    ///
    /// # Errors
    /// It does not listen.
    pub fn start(surroundings: &Surroundings) -> Result<Self, StressError> {
        let ports = ports::free::<1>().map_err(StressError::Floor)?;
        let authority = format!("127.0.0.1:{}", ports.ports[0]);
        let folder = tempfile::tempdir().map_err(StressError::Floor)?;
        let log = open_log(&surroundings.out, "floor.log", &["floor"])?;
        let spec = ProcessSpec {
            name: "floor".to_owned(),
            program: surroundings.launcher.clone(),
            arguments: ["floor", "--listen", &authority].map(Into::into).to_vec(),
            stage: 0,
            socket: None,
        };
        let keeping = keeping(surroundings, folder.path().to_owned(), log);
        let server = Boxed::start(keeping, vec![spec], surroundings.limits, "rinha-test-floor")
            .map_err(super::subject::SubjectError::System)?;
        let clock = Monotonic::start();
        while let Err(error) = TcpStream::connect(&authority) {
            if clock.elapsed() >= READY_DEADLINE {
                return Err(StressError::Floor(error));
            }
            std::thread::sleep(READY_POLL);
        }
        Ok(Self {
            server,
            authority,
            out: surroundings.out.clone(),
            latency_ns: histogram(),
            k6: Vec::new(),
            requests: 0,
            cpu: Duration::ZERO,
            _folder: folder,
            _ports: ports,
        })
    }

    /// Puts a load on it.
    ///
    /// # Errors
    /// It could not be put on.
    pub fn load(
        &mut self,
        shape: Shape,
        traffic: Traffic,
        stop: &Arc<AtomicBool>,
    ) -> Result<(), LoadError> {
        // What is posted again or in pieces takes time that is not the server's.
        let traffic = Traffic { duplicates: 0.0, in_pieces: 0.0, ..traffic };
        let meter = Arc::new(Meter::start());
        let before = self.cpu_so_far();
        drive(shape, traffic, &self.authority, &meter, stop)?;
        self.cpu += self.cpu_so_far().saturating_sub(before);
        let measured = meter.measured();
        self.requests += measured.counts.accepted;
        self.latency_ns.add(&measured.latency_ns).expect("both have the bounds of `histogram`");
        Ok(())
    }

    /// Lets k6 put the contest's test on it: in which share of the time of a contest that is so much shorter or
    /// longer than the usual one.
    ///
    /// # Errors
    /// k6 does not run, or found a fault; or `stop` was set.
    pub(super) fn load_with_k6(
        &mut self,
        program: &Path,
        scale_and_share: [f64; 2],
        stop: &AtomicBool,
    ) -> Result<(), StressError> {
        let url = format!("http://{}", self.authority);
        let before = self.cpu_so_far();
        let mut k6 = K6::start_floor(program, &url, &self.out, scale_and_share)?;
        k6.wait(stop, || {})?;
        let seen = k6.end_floor()?;
        self.cpu += self.cpu_so_far().saturating_sub(before);
        self.requests += seen.accepted;
        self.k6.push(seen);
        Ok(())
    }

    fn cpu_so_far(&self) -> Duration {
        self.server.gauge().read().map(|reading| reading.total.cpu).unwrap_or_default()
    }

    /// CPU time of the server per request.
    #[must_use]
    pub fn cpu_us_per_request(&self) -> Option<f64> {
        super::judge::per(self.cpu.as_secs_f64() * 1e6, self.requests)
    }

    /// The time that half of the answers took at most. Of several loads that k6 put on, which
    /// tells no more than that, the mean.
    pub(super) fn p50_ms(&self) -> Option<f64> {
        self.quantile_ms(0.5, |seen| seen.p50_ms)
    }

    /// The time that 99 of 100 answers took at most, in the same way.
    pub(super) fn p99_ms(&self) -> Option<f64> {
        self.quantile_ms(0.99, |seen| seen.p99_ms)
    }

    fn quantile_ms(&self, quantile: f64, of_k6: fn(&K6Floor) -> f64) -> Option<f64> {
        if self.k6.is_empty() {
            return quantile_ms(&self.latency_ns, quantile);
        }
        let loads = u32::try_from(self.k6.len()).map(f64::from).ok()?;
        Some(self.k6.iter().map(of_k6).sum::<f64>() / loads)
    }

    /// Ends the server. Gives the times, in nanoseconds, of all that was not k6's.
    pub fn end(self) -> Histogram<u64> {
        self.latency_ns
    }
}
