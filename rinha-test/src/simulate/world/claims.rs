//! What instances and store say to each other.

use super::{Break, Continue, Event, INSTANCES, Note, Position, Process, Step, World};

impl World {
    pub(super) fn connect(&mut self, instance: usize) {
        let process = self.sites[instance].process;
        let store = self.sites[INSTANCES].process;
        let is_there = self.sites[INSTANCES].frozen_until_ms <= self.now_ms;
        match &mut self.shop {
            Some(shop) if is_there => {
                let notice = shop.greet(instance, process);
                if let Some(api) = &mut self.apis[instance] {
                    api.link = Some(store);
                }
                let after_ms = self.random.below(3);
                self.after(after_ms, Event::Welcome(instance, process, store, notice));
            }
            _ => self.after(20, Event::Connect(instance, process)),
        }
    }

    pub(super) fn claim(
        &mut self,
        instance: usize,
        process: u32,
        store: u32,
        through: Position,
    ) -> Step {
        if self.sites[INSTANCES].process != store || self.dies(Process::Store) {
            return Continue(());
        }
        let Some(shop) = &mut self.shop else { return Continue(()) };
        let decided = match shop.claim(instance, process, through) {
            Ok(decided) => decided,
            Err(violation) => return Break(violation),
        };
        if self.dies(Process::Store) {
            return Continue(());
        }
        let decided = if let Some(decided) = decided {
            let (through, losers) = (decided.through, decided.losers);
            self.note(Note::Decided { instance, through, losers: losers.len() });
            self.count.duplicates += losers.len() as u64;
            if let Err(violation) = self.truth.check_decided(instance, through, &losers) {
                return Break(violation);
            }
            Some((through, losers))
        } else {
            self.note(Note::ClaimRefused { instance });
            None
        };
        let after_ms = self.random.below(3);
        self.after(after_ms, Event::Decided(instance, process, store, decided));
        Continue(())
    }
}
