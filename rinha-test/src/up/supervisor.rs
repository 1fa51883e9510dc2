//! The thread that owns the processes: it starts them, notices their ends, starts them again, and
//! stops them. Nothing else does, so there is one order of events.
//!
//! It lives as long as the system, because the kernel sends a child its death signal when the
//! thread that started it ends.

use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use ledger::clock::Monotonic;
use ledger::daemon::{EXIT_DATA, EXIT_USAGE};
use rustix::process::Signal;

use super::backoff::Backoff;
use super::log::{Level, Log};
use super::pid;
use super::process::{End, ProcessSpec, Running};

/// How long the first start of a process holds up the next one.
const SOCKET_PATIENCE: Duration = Duration::from_secs(2);

/// How often a process is looked at in that time.
const SOCKET_POLL: Duration = Duration::from_millis(5);

/// How processes are kept.
#[derive(Clone)]
pub struct Keeping {
    /// The `rinha-test` program, which starts every process through its subcommand `child`.
    pub launcher: PathBuf,
    /// The folder for pid files.
    pub run_folder: PathBuf,
    /// Whether what dies is started again.
    pub restart: bool,
    /// How long a process may take to end after SIGTERM before it is killed.
    pub grace: Duration,
    /// Where the processes' output goes.
    pub log: Log,
    /// The files that each process writes to so as to join a control group; none for no group.
    pub join: Vec<PathBuf>,
}

/// What is known of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessStatus {
    /// Its pid while it runs.
    pub pid: Option<u32>,
    /// How often it was started.
    pub starts: u64,
    /// How it last ended.
    pub last_end: Option<String>,
}

/// The end of a process that no new start would help: it says that its settings are wrong, or its
/// data damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopelessEnd {
    /// The name of the process.
    pub name: String,
    /// Its exit code: [`EXIT_USAGE`] or [`EXIT_DATA`].
    pub code: u8,
}

/// What happens to the supervisor.
pub(super) enum Event {
    /// A process ended, in its life with this number.
    Ended { place: usize, life: u64 },
    /// Start a process that is down.
    Start { place: usize, done: Sender<bool> },
    /// End a process and leave it down.
    Stop { place: usize, how: StopHow, done: Sender<()> },
    /// Send a process a signal. What it does to the process is the process's affair.
    Signal { place: usize, signal: Signal },
    /// Tell what is known of a process.
    Tell { place: usize, answer: Sender<ProcessStatus> },
    /// Start nothing again from now on.
    NoMoreStarts,
    /// The system is no longer needed.
    Finish,
}

/// How a process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopHow {
    /// SIGTERM, and SIGKILL once the grace is over.
    Gently,
    /// SIGKILL.
    AtOnce,
}

enum Phase {
    Down,
    /// It died and is started again at this time.
    Pausing {
        until: Duration,
    },
    Up(Running),
    /// It was told to end, and is killed at this time.
    Stopping {
        running: Running,
        kill_at: Option<Duration>,
    },
}

struct Slot {
    spec: ProcessSpec,
    phase: Phase,
    backoff: Backoff,
    status: ProcessStatus,
    /// Who waits for the process to be down.
    waiting: Vec<Sender<()>>,
}

pub(super) struct Supervisor {
    keeping: Keeping,
    slots: Vec<Slot>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    hopeless: Sender<HopelessEnd>,
    clock: Monotonic,
}

impl Supervisor {
    pub(super) fn new(
        keeping: Keeping,
        specs: Vec<ProcessSpec>,
        (sender, events): (Sender<Event>, Receiver<Event>),
        hopeless: Sender<HopelessEnd>,
    ) -> Self {
        let slots = specs
            .into_iter()
            .map(|spec| Slot {
                spec,
                phase: Phase::Down,
                backoff: Backoff::default(),
                status: ProcessStatus::default(),
                waiting: Vec::new(),
            })
            .collect();
        Self { keeping, slots, events, sender, hopeless, clock: Monotonic::start() }
    }

    /// Starts all processes in their order, and keeps them until told to finish.
    pub(super) fn run(mut self) {
        for place in 0..self.slots.len() {
            self.start(place);
            self.wait_for_socket(place);
        }
        loop {
            self.meet_deadlines();
            let event = match self.next_deadline() {
                Some(at) => self.events.recv_timeout(at.saturating_sub(self.clock.elapsed())),
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Finish) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits a little for a process to be there for the next one. That only keeps the log free of
    /// complaints: each of them can wait for the others by itself.
    fn wait_for_socket(&self, place: usize) {
        let Some(socket) = &self.slots[place].spec.socket else {
            return;
        };
        let since = self.clock.elapsed();
        while !socket.exists() && self.clock.elapsed() < since + SOCKET_PATIENCE {
            std::thread::sleep(SOCKET_POLL);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Ended { place, life } => self.ended(place, life),
            Event::Start { place, done } => {
                let startable = !matches!(self.slots[place].phase, Phase::Stopping { .. });
                if matches!(self.slots[place].phase, Phase::Down | Phase::Pausing { .. }) {
                    self.slots[place].backoff = Backoff::default();
                    self.start(place);
                }
                // Whoever asked may have gone; so it is with every answer here.
                let _ = done.send(startable);
            }
            Event::Stop { place, how, done } => self.stop(place, how, done),
            Event::Signal { place, signal } => {
                if let Phase::Up(running) | Phase::Stopping { running, .. } =
                    &self.slots[place].phase
                {
                    running.signal(signal);
                }
            }
            Event::Tell { place, answer } => {
                let _ = answer.send(self.slots[place].status.clone());
            }
            Event::NoMoreStarts => {
                self.keeping.restart = false;
                for slot in &mut self.slots {
                    if matches!(slot.phase, Phase::Pausing { .. }) {
                        slot.phase = Phase::Down;
                    }
                }
            }
            Event::Finish => {}
        }
    }

    fn start(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        slot.status.starts += 1;
        let life = slot.status.starts;
        let sender = self.sender.clone();
        let ended = move || {
            let _ = sender.send(Event::Ended { place, life });
        };
        let log = &self.keeping.log;
        match Running::start(&slot.spec, place, &self.keeping, self.clock.elapsed(), ended) {
            Ok(running) => {
                let pid = running.pid();
                slot.status.pid = Some(pid);
                slot.phase = Phase::Up(running);
                let path = pid::pid_path(&self.keeping.run_folder, &slot.spec.name);
                if let Err(error) = pid::write(&path, pid) {
                    log.say(Level::Warn, &error.to_string());
                }
            }
            Err(error) => {
                let end = End { text: format!("cannot be started: {error}"), code: None };
                self.down_unasked(place, end, Duration::ZERO);
            }
        }
    }

    fn stop(&mut self, place: usize, how: StopHow, done: Sender<()>) {
        let now = self.clock.elapsed();
        let slot = &mut self.slots[place];
        let (running, kill_at) = match std::mem::replace(&mut slot.phase, Phase::Down) {
            Phase::Down | Phase::Pausing { .. } => {
                let _ = done.send(());
                return;
            }
            Phase::Up(running) if how == StopHow::Gently => {
                running.signal(Signal::TERM);
                (running, Some(now + self.keeping.grace))
            }
            Phase::Stopping { running, kill_at } if how == StopHow::Gently => (running, kill_at),
            Phase::Up(running) | Phase::Stopping { running, .. } => {
                running.kill_group();
                (running, None)
            }
        };
        slot.phase = Phase::Stopping { running, kill_at };
        slot.waiting.push(done);
    }

    fn ended(&mut self, place: usize, life: u64) {
        let slot = &mut self.slots[place];
        if slot.status.starts != life {
            return;
        }
        let (running, asked) = match std::mem::replace(&mut slot.phase, Phase::Down) {
            Phase::Up(running) => (running, false),
            Phase::Stopping { running, .. } => (running, true),
            other => {
                slot.phase = other;
                return;
            }
        };
        let lived = self.clock.elapsed().saturating_sub(running.started);
        let end = running.reap();
        slot.status.pid = None;
        let log = &self.keeping.log;
        let path = pid::pid_path(&self.keeping.run_folder, &slot.spec.name);
        if let Err(error) = pid::remove(&path) {
            log.say(Level::Warn, &error.to_string());
        }
        if asked {
            log.say(Level::Info, &format!("{} {}", slot.spec.name, end.text));
            slot.status.last_end = Some(end.text);
            for done in slot.waiting.drain(..) {
                let _ = done.send(());
            }
        } else {
            self.down_unasked(place, end, lived);
        }
    }

    /// Says that a process is down though nobody asked for it, and when it is started again.
    fn down_unasked(&mut self, place: usize, end: End, lived: Duration) {
        let slot = &mut self.slots[place];
        let name = &slot.spec.name;
        let said = format!("{name} {} after {:.1} s", end.text, lived.as_secs_f64());
        slot.status.last_end = Some(end.text);
        let hopeless_code = [EXIT_USAGE, EXIT_DATA]
            .into_iter()
            .find(|code| end.code.is_some_and(|ended| ended == i32::from(*code)));
        let outlook = if let Some(code) = hopeless_code {
            slot.phase = Phase::Down;
            // Whoever holds the system need not care.
            let _ = self.hopeless.send(HopelessEnd { name: name.clone(), code });
            "a new start would not help, so it stays down".to_owned()
        } else if self.keeping.restart {
            let pause = slot.backoff.died_after(lived);
            slot.phase = Phase::Pausing { until: self.clock.elapsed() + pause };
            format!("it is started again in {} ms", pause.as_millis())
        } else {
            slot.phase = Phase::Down;
            "it stays down".to_owned()
        };
        self.keeping.log.say(Level::Warn, &format!("{said}; {outlook}"));
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.slots
            .iter()
            .filter_map(|slot| match slot.phase {
                Phase::Pausing { until } => Some(until),
                Phase::Stopping { kill_at, .. } => kill_at,
                Phase::Down | Phase::Up(_) => None,
            })
            .min()
    }

    fn meet_deadlines(&mut self) {
        let now = self.clock.elapsed();
        for place in 0..self.slots.len() {
            let slot = &mut self.slots[place];
            match &mut slot.phase {
                Phase::Pausing { until } if *until <= now => self.start(place),
                Phase::Stopping { running, kill_at } if kill_at.is_some_and(|at| at <= now) => {
                    running.kill_group();
                    *kill_at = None;
                    let grace = self.keeping.grace.as_secs_f64();
                    self.keeping.log.say(
                        Level::Warn,
                        &format!(
                            "{} did not end within {grace} s of SIGTERM and is killed",
                            slot.spec.name
                        ),
                    );
                }
                _ => {}
            }
        }
    }
}
