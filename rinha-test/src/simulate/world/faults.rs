//! What goes wrong, and what is started again.

use ledger::disk::{Disk, DiskFile};
use ledger::journal::{HEADER_BYTES, segment_file_name};

use super::{
    Api, Break, Continue, ControlFlow, CrashingDisk, DiskIs, Event, Fault, INSTANCES,
    JournalConfig, JournalError, Note, Process, Sabotage, Shop, ShopError, Step, Violation, World,
    damaged, engine_config, number, place,
};

impl World {
    pub(super) fn go_wrong(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(process) => self.kill(process),
            Fault::KillInSteps(process, steps) => self.sites[place(process)].dies_in = Some(steps),
            Fault::Tear(process, changes) => {
                let site = &mut self.sites[place(process)];
                if site.runs && site.disk_is == DiskIs::Well {
                    site.disk_is = DiskIs::Tearing;
                    site.disk.end_after(changes);
                }
            }
            Fault::Freeze(process, length_ms) => {
                let until_ms = (self.now_ms + length_ms).min(self.plan.heals_at_ms);
                self.sites[place(process)].frozen_until_ms = until_ms;
                self.note(Note::Frozen { process, until_ms });
            }
            Fault::PowerCut => self.cut_power(),
            Fault::DiskFails(process, changes, length_ms) => {
                let site = &mut self.sites[place(process)];
                if site.disk_is == DiskIs::Well {
                    site.disk_is = DiskIs::Failing;
                    site.disk.end_after(changes);
                    self.count.disk_failures += 1;
                    self.note(Note::DiskFails { process });
                    let until_ms = (self.now_ms + length_ms).min(self.plan.heals_at_ms);
                    self.at(until_ms, Event::DiskWorks(process));
                }
            }
            Fault::ClockStep(instance, skew_ms) => {
                self.sites[instance].skew_ms = skew_ms;
                if let Some(api) = &mut self.apis[instance] {
                    api.set_skew(skew_ms);
                }
                self.note(Note::ClockStepped { instance, skew_ms });
            }
            Fault::Mood(processor, mood, length_ms) => {
                let until_ms = (self.now_ms + length_ms).min(self.plan.heals_at_ms);
                self.processors[processor].set_mood(mood, until_ms);
            }
        }
    }

    pub(super) fn let_disk_work(&mut self, process: Process) {
        let site = &mut self.sites[place(process)];
        if site.disk_is == DiskIs::Failing {
            site.disk_is = DiskIs::Well;
            site.disk.go_on();
            self.note(Note::DiskWorks { process });
        }
    }

    pub(super) fn kill(&mut self, process: Process) {
        let site = &mut self.sites[place(process)];
        site.dies_in = None;
        if site.disk_is == DiskIs::Tearing {
            site.disk_is = DiskIs::Well;
            site.disk.go_on();
        }
        if !site.runs {
            return;
        }
        site.runs = false;
        site.frozen_until_ms = 0;
        self.count.kills += 1;
        self.note(Note::Killed { process });
        match process {
            Process::Api(instance) => {
                let Some(api) = self.apis[instance].take() else { return };
                if self.sabotage == Some(Sabotage::ChangeByte) {
                    self.change_byte(instance);
                }
                let writing = api.writing.map(|writing| writing.waiters).unwrap_or_default();
                let waiters = writing.into_iter().chain(api.next_commit);
                let posts: Vec<_> = waiters.map(|waiter| waiter.post).chain(api.unsure).collect();
                for post in posts {
                    self.leave_unanswered(post);
                }
            }
            Process::Store => {
                self.shop = None;
                for instance in 0..INSTANCES {
                    self.hang_up(instance);
                }
            }
        }
        let after_ms = self.random.between(1, 400);
        self.start_after(process, after_ms);
    }

    /// Changes the first record of an instance's journal, if it has one.
    fn change_byte(&self, instance: usize) {
        let Ok(file) = self.sites[instance].disk.open(&segment_file_name(1)) else { return };
        let offset = HEADER_BYTES as u64 + 9;
        let mut byte = [0];
        if matches!(file.read_at(offset, &mut byte), Ok(1)) {
            // A disk that refuses this stays as it is.
            let _ = file.write_at(offset, &[byte[0] ^ 1]);
        }
    }

    /// An instance finds out that its store is gone.
    pub(super) fn hang_up(&mut self, instance: usize) {
        let process = self.sites[instance].process;
        if let Some(store) = self.apis[instance].as_ref().and_then(|api| api.link) {
            let after_ms = self.random.below(5);
            self.after(after_ms, Event::Disconnect(instance, process, store));
        }
    }

    pub(super) fn cut_power(&mut self) {
        self.count.power_cuts += 1;
        self.boot = self.boot.wrapping_add(1);
        for process in [Process::Api(0), Process::Api(1), Process::Store] {
            self.kill(process);
        }
        let mut lost = 0;
        for site in &mut self.sites {
            let odds = self.random.below(5);
            let kept: Vec<bool> =
                (0..site.disk.unsynced_count()).map(|_| self.random.below(4) < odds).collect();
            lost += kept.iter().filter(|is_kept| !**is_kept).count();
            site.disk = CrashingDisk::with_files(&site.disk.after_power_cut(|number| kept[number]));
            site.disk_is = DiskIs::Well;
        }
        self.note(Note::PowerCut { lost });
        self.truth.power_failed(&self.journal_disks(), [self.boot; 16]);
    }

    pub(super) fn heal(&mut self) {
        self.note(Note::Healed);
        self.healed = true;
        for site in &mut self.sites {
            site.dies_in = None;
        }
        for process in [Process::Api(0), Process::Api(1), Process::Store] {
            self.let_disk_work(process);
            // One that was to end within a write ends now.
            if self.sites[place(process)].disk_is == DiskIs::Tearing {
                self.kill(process);
            }
        }
    }

    pub(super) fn start_after(&mut self, process: Process, after_ms: u64) {
        let site = &mut self.sites[place(process)];
        if !site.is_starting {
            site.is_starting = true;
            self.after(after_ms, Event::Start(process));
        }
    }

    pub(super) fn start(&mut self, process: Process) -> Step {
        let site = &mut self.sites[place(process)];
        site.is_starting = false;
        site.process += 1;
        let number = site.process;
        let started = match process {
            Process::Api(instance) => self.start_api(instance)?,
            Process::Store => self.start_store()?,
        };
        if let Some(open) = started {
            self.sites[place(process)].runs = true;
            self.count.recovered += open as u64;
            self.note(Note::Started { process, open });
            if let Process::Api(instance) = process {
                self.after(0, Event::Connect(instance, number));
                self.wake(instance);
            }
        } else {
            // Its disk refuses. Whoever runs it starts it again.
            let after_ms = self.random.between(50, 400);
            self.start_after(process, after_ms);
        }
        Continue(())
    }

    pub(super) fn start_api(&mut self, instance: usize) -> ControlFlow<Violation, Option<usize>> {
        let site = &self.sites[instance];
        let config = JournalConfig {
            instance: number(instance),
            segment_bytes: self.plan.segment_bytes,
            boot_id: [self.boot; 16],
        };
        let engine = engine_config(&self.plan);
        let started =
            Api::start(&site.disk, config, engine, self.now_ms, site.skew_ms, self.sabotage);
        let mut api = match started {
            Ok(api) => api,
            Err(JournalError::Io { .. }) => return Continue(None),
            Err(error) => return Break(damaged(&error)),
        };
        if self.plan.syncs_first {
            match api.sync(self.sabotage) {
                Ok(()) => {}
                Err(JournalError::Io { .. }) => return Continue(None),
                Err(error) => return Break(damaged(&error)),
            }
        }
        let open = api.engine.open_count();
        self.apis[instance] = Some(api);
        Continue(Some(open))
    }

    pub(super) fn start_store(&mut self) -> ControlFlow<Violation, Option<usize>> {
        if self.sabotage == Some(Sabotage::ForgetClaims) {
            self.sites[INSTANCES].disk = CrashingDisk::default();
        }
        let disk = self.sites[INSTANCES].disk.clone();
        match Shop::start(&disk, &self.journal_disks(), [self.boot; 16]) {
            Ok(shop) => self.shop = Some(shop),
            Err(ShopError::Refused) => return Continue(None),
            Err(ShopError::Violated(violation)) => return Break(violation),
        }
        Continue(Some(0))
    }
}
