//! Carrying faults out: what begins, what ends, and what must be seen of it at once.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ledger::clock::{self, Monotonic};
use ledger::{Processor, TimestampMs};
use rustix::process::Signal;

use super::ChaosError;
use super::fault::{Fault, Member};
use super::load::{SharedPosted, lock};
use super::plan::Planned;
use super::rig::Rig;
use crate::faults::files;
use crate::faults::proxy::{Behaviour, Misbehaviour};

/// How long an API may take to find that its journal has a writer.
const SECOND_API_DEADLINE: Duration = Duration::from_secs(20);

/// How often it is looked at.
const SECOND_API_POLL: Duration = Duration::from_millis(20);

/// What faults leave behind for the checks.
#[derive(Default)]
pub struct Injected {
    /// How often each kind was carried out.
    pub counts: BTreeMap<String, u64>,
    /// Faults that this machine cannot have.
    pub skipped: Vec<String>,
    /// What was wrong at once.
    pub wrongs: Vec<String>,
    /// When a purge was done, if one was.
    pub purged_at: Option<TimestampMs>,
    /// Purges that the router put off.
    pub purges_refused: u64,
    second_apis: Vec<(Member, Child)>,
}

impl Injected {
    /// Begins a fault.
    ///
    /// # Errors
    /// It cannot be carried out.
    pub fn begin(
        &mut self,
        rig: &mut Rig,
        planned: &Planned,
        posted: &SharedPosted,
    ) -> Result<(), ChaosError> {
        let kind = planned.fault.kind();
        if kind.needs_preload() && !rig.has_preload() {
            self.skipped.push(format!("{kind} skipped: no C compiler"));
            return Ok(());
        }
        *self.counts.entry(kind.to_string()).or_default() += 1;
        match planned.fault {
            Fault::Kill { member } => rig.kill(member)?,
            Fault::KillAll => rig.kill_all(),
            Fault::StoreAway | Fault::StoreAwayLong => rig.kill(Member::Store)?,
            Fault::Stop { member } => rig.signal(member, Signal::STOP)?,
            Fault::StopAll => signal_all(rig, Signal::STOP)?,
            Fault::Misbehaves { processor, misbehaviour, every } => {
                let misbehaviour = Some(misbehaviour);
                rig.proxy(processor).behave(Behaviour { misbehaviour, every });
            }
            Fault::BothRefuse => {
                let misbehaviour = Some(Misbehaviour::RefusesConnections);
                for processor in Processor::ALL {
                    rig.proxy(processor).behave(Behaviour { misbehaviour, every: 1 });
                }
            }
            Fault::Fails { processor } => rig.admin(processor).set_failure(true)?,
            Fault::Slow { processor, delay_ms } => {
                rig.admin(processor).set_delay(Duration::from_millis(delay_ms))?;
            }
            Fault::DiskFull { bytes_left } => {
                for control in rig.controls() {
                    control.set_bytes_left(Some(bytes_left))?;
                }
            }
            Fault::SyncFails => set_sync_fails(rig, true)?,
            Fault::ClockSteps { offset_ms } => set_clock_offset_ms(rig, offset_ms)?,
            Fault::TornRecord { member } => tear_record(rig, member, planned.noise)?,
            Fault::Damage { view, damage, running } => {
                if !running {
                    rig.kill(Member::Store)?;
                }
                files::damage(&rig.volume().store(), view.prefix(), damage, planned.noise)
                    .map_err(ChaosError::Folder)?;
            }
            Fault::SecondApi { member } => self.start_second_api(rig, member)?,
            Fault::Purge => self.purge(rig, posted)?,
        }
        Ok(())
    }

    /// Ends a fault.
    ///
    /// # Errors
    /// It cannot be ended.
    pub fn end(&mut self, rig: &mut Rig, planned: &Planned) -> Result<(), ChaosError> {
        if planned.fault.kind().needs_preload() && !rig.has_preload() {
            return Ok(());
        }
        match planned.fault {
            Fault::Kill { member } => rig.start_again(member)?,
            Fault::KillAll => {
                for member in Member::ALL {
                    rig.start_again(member)?;
                }
            }
            Fault::StoreAway | Fault::StoreAwayLong => rig.start_again(Member::Store)?,
            Fault::Stop { member } => rig.signal(member, Signal::CONT)?,
            Fault::StopAll => signal_all(rig, Signal::CONT)?,
            Fault::Misbehaves { processor, .. } => {
                rig.proxy(processor).behave(Behaviour::default());
            }
            Fault::BothRefuse => {
                for processor in Processor::ALL {
                    rig.proxy(processor).behave(Behaviour::default());
                }
            }
            Fault::Fails { processor } => rig.admin(processor).set_failure(false)?,
            Fault::Slow { processor, .. } => rig.admin(processor).set_delay(Duration::ZERO)?,
            Fault::DiskFull { .. } => {
                for control in rig.controls() {
                    control.set_bytes_left(None)?;
                }
            }
            Fault::SyncFails => set_sync_fails(rig, false)?,
            Fault::ClockSteps { .. } => set_clock_offset_ms(rig, 0)?,
            Fault::Damage { .. } => {
                // One that was damaged under the running store is found by the next start.
                rig.kill(Member::Store)?;
                rig.start_again(Member::Store)?;
            }
            Fault::TornRecord { .. } | Fault::SecondApi { .. } | Fault::Purge => {}
        }
        Ok(())
    }

    /// Waits for what was begun and ends by itself.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn finish(&mut self) -> Result<(), ChaosError> {
        for (member, child) in std::mem::take(&mut self.second_apis) {
            if let Some(wrong) = judge_second_api(member, child)? {
                self.wrongs.push(wrong);
            }
        }
        Ok(())
    }

    fn start_second_api(&mut self, rig: &Rig, member: Member) -> Result<(), ChaosError> {
        let Some(spec) = rig.plain_spec(member) else { return Ok(()) };
        let child = Command::new(&spec.program)
            .args(&spec.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(ChaosError::SecondApi)?;
        self.second_apis.push((member, child));
        Ok(())
    }

    fn purge(&mut self, rig: &Rig, posted: &SharedPosted) -> Result<(), ChaosError> {
        if rig.router().purge()? {
            // In this order: what is posted from here on is dispatched later than this.
            self.purged_at = Some(clock::now());
            lock(posted).purged();
        } else {
            self.purges_refused += 1;
        }
        Ok(())
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        for (_, child) in &mut self.second_apis {
            // It may have ended, as it should.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn signal_all(rig: &Rig, signal: Signal) -> Result<(), ChaosError> {
    Member::ALL.into_iter().try_for_each(|member| rig.signal(member, signal))
}

fn set_sync_fails(rig: &Rig, fails: bool) -> Result<(), ChaosError> {
    rig.controls().try_for_each(|control| Ok(control.set_sync_fails(fails)?))
}

fn set_clock_offset_ms(rig: &Rig, offset_ms: i64) -> Result<(), ChaosError> {
    rig.controls().try_for_each(|control| Ok(control.set_clock_offset_ms(offset_ms)?))
}

fn tear_record(rig: &mut Rig, member: Member, noise: u64) -> Result<(), ChaosError> {
    rig.kill(member)?;
    let journal = rig.volume().journals().join(member.name());
    files::tear_record(&journal, noise).map_err(ChaosError::Folder)?;
    rig.start_again(member)
}

/// An API on a journal that has its writer must refuse, say so, and name what it cannot have.
fn judge_second_api(member: Member, mut child: Child) -> Result<Option<String>, ChaosError> {
    let clock = Monotonic::start();
    while child.try_wait().map_err(ChaosError::SecondApi)?.is_none() {
        if clock.elapsed() >= SECOND_API_DEADLINE {
            child.kill().map_err(ChaosError::SecondApi)?;
            child.wait().map_err(ChaosError::SecondApi)?;
            return Ok(Some(format!("a second {member} did not give up")));
        }
        std::thread::sleep(SECOND_API_POLL);
    }
    let output = child.wait_with_output().map_err(ChaosError::SecondApi)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let refused = !output.status.success() && said.contains(member.name());
    Ok((!refused).then(|| format!("a second {member} ended with {}: {said}", output.status)))
}
