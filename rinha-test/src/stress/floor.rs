//! The same load against the floor server.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hdrhistogram::Histogram;
use ledger::clock::Monotonic;

use super::StressError;
use super::subject::{Boxed, Surroundings, keeping, open_log};
use crate::load::meter::histogram;
use crate::load::{LoadError, Meter, Shape, Traffic, drive};
use crate::machine::gauge::Gauge;
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
    /// Times in nanoseconds.
    pub latency_ns: Histogram<u64>,
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
            latency_ns: histogram(),
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
        let gauge = self.server.gauge();
        let cpu = |gauge: &Gauge| gauge.read().map(|reading| reading.total.cpu).unwrap_or_default();
        let before = cpu(&gauge);
        let meter = Arc::new(Meter::start());
        // What is posted again or in pieces takes time that is not the server's.
        let traffic = Traffic { duplicates: 0.0, in_pieces: 0.0, ..traffic };
        drive(shape, traffic, &self.authority, &meter, stop)?;
        let measured = meter.measured();
        self.cpu += cpu(&gauge).saturating_sub(before);
        self.requests += measured.counts.accepted;
        self.latency_ns.add(&measured.latency_ns).expect("both have the bounds of `histogram`");
        Ok(())
    }

    /// CPU time of the server per request.
    #[must_use]
    pub fn cpu_us_per_request(&self) -> Option<f64> {
        super::judge::per(self.cpu.as_secs_f64() * 1e6, self.requests)
    }

    /// Ends the server.
    pub fn end(self) -> Histogram<u64> {
        self.latency_ns
    }
}
