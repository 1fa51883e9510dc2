//! The instances, as the driver of the real process drives them.

use super::{
    Answer, Batch, Break, Continue, DiskIs, Event, JournalError, Note, PaymentRecord, Process,
    RETRY_MS, Recording, SYNC_INTERVAL_MS, Sabotage, Step, World, Writing, Written, damaged, place,
};

impl World {
    /// Whether the process ends right here.
    pub(super) fn dies(&mut self, process: Process) -> bool {
        let site = &mut self.sites[place(process)];
        let is_torn = site.disk_is == DiskIs::Tearing && site.disk.has_ended();
        let is_due = match &mut site.dies_in {
            Some(0) => true,
            Some(steps) => {
                *steps -= 1;
                false
            }
            None => false,
        };
        if is_torn {
            self.count.tears += 1;
            self.note(Note::Torn { process });
        }
        if is_torn || is_due {
            self.kill(process);
        }
        is_torn || is_due
    }

    pub(super) fn turn(&mut self, instance: usize) -> Step {
        loop {
            let now_ms = self.now_ms;
            if self.dies(Process::Api(instance)) {
                return Continue(());
            }
            let Some(api) = &mut self.apis[instance] else { return Continue(()) };
            if api.writing.is_some() || (self.plan.syncs_first && api.sync_fails) {
                return Continue(());
            }
            let now = api.now(now_ms);
            if !self.plan.syncs_first {
                api.engine.begin_turn(api.elapsed_ms(now_ms));
            }
            let wake_ms = api.engine.pump(api.elapsed_ms(now_ms), now);
            let wake_ms = wake_ms.map(|at_ms| api.simulated_ms(at_ms));
            let batch = api.engine.take_batch(now);
            let is_last = batch.is_none();
            if let Some(batch) = batch {
                self.write(instance, batch)?;
                if self.apis[instance].as_ref().is_none_or(|api| api.writing.is_some()) {
                    return Continue(());
                }
            }
            self.follow_up(instance)?;
            let Some(api) = &self.apis[instance] else { return Continue(()) };
            if is_last {
                self.wake_at(instance, wake_ms);
                return Continue(());
            }
            if api.engine.failure().is_some() {
                let retry_ms = now_ms + RETRY_MS;
                self.wake_at(instance, Some(wake_ms.map_or(retry_ms, |at_ms| at_ms.min(retry_ms))));
                return Continue(());
            }
        }
    }

    pub(super) fn wake_at(&mut self, instance: usize, at_ms: Option<u64>) {
        let process = self.sites[instance].process;
        if let Some(api) = &mut self.apis[instance] {
            api.wake_at_ms = at_ms.map(|at_ms| at_ms.max(self.now_ms));
            if let Some(at_ms) = api.wake_at_ms {
                self.at(at_ms, Event::Wake(instance, process, at_ms));
            }
        }
    }

    pub(super) fn write(&mut self, instance: usize, batch: Batch) -> Step {
        let records: Vec<_> = batch.records.iter().map(|record| self.sabotaged(*record)).collect();
        let (now_ms, process) = (self.now_ms, self.sites[instance].process);
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        let waiters = std::mem::take(&mut api.next_commit);
        let oldest_open = api.engine.oldest_open_segment();
        let appended = api.journal.append(&records, oldest_open, api.now(now_ms));
        let (first, count) = (appended.first, appended.count);
        if let Some(error) = &appended.error
            && error.is_damage()
        {
            return Break(damaged(error));
        }
        api.writing = Some(Writing { batch, appended, waiters });
        self.note(Note::Written { instance, first, count });
        if self.dies(Process::Api(instance)) {
            return Continue(());
        }
        if self.plan.syncs_first && count > 0 {
            let after_ms = self.random.below(6);
            self.after(after_ms, Event::SyncEnds(instance, process));
            return Continue(());
        }
        if count > 0
            && let Some(api) = &mut self.apis[instance]
            && !api.background_sync_due
        {
            api.background_sync_due = true;
            self.after(SYNC_INTERVAL_MS, Event::SyncInBackground(instance, process));
        }
        self.finish_write(instance)
    }

    pub(super) fn sabotaged(&self, record: PaymentRecord) -> PaymentRecord {
        let event = match (self.sabotage, record.event) {
            (Some(Sabotage::SendUnwritten), Recording::Dispatched { processor, .. })
            | (Some(Sabotage::LoseSettled), Recording::Settled { processor, .. }) => {
                Recording::Failed { processor, status: 500 }
            }
            (Some(Sabotage::ChangeRequestedAt), Recording::Settled { processor, requested_at }) => {
                let requested_at = ledger::TimestampMs::clamped(requested_at.get() + 1);
                Recording::Settled { processor, requested_at }
            }
            (_, event) => event,
        };
        PaymentRecord { event, ..record }
    }

    /// The disk has said what it made of a sync before an answer.
    pub(super) fn sync_ends(&mut self, instance: usize) -> Step {
        let (sabotage, process) = (self.sabotage, self.sites[instance].process);
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        let synced = api.sync(sabotage);
        if self.dies(Process::Api(instance)) {
            return Continue(());
        }
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        match synced {
            Ok(()) => {
                self.finish_write(instance)?;
                self.follow_up(instance)?;
                self.wake(instance);
            }
            Err(JournalError::Io { .. }) => {
                api.sync_fails = true;
                let waiters = match &mut api.writing {
                    Some(writing) => std::mem::take(&mut writing.waiters),
                    None => Vec::new(),
                };
                self.after(RETRY_MS, Event::SyncEnds(instance, process));
                for waiter in waiters {
                    match waiter.ticket {
                        Some(_) => self.answer(instance, waiter.post, Answer::Failing)?,
                        None => self.accept(instance, waiter.post)?,
                    }
                }
            }
            Err(error) => return Break(damaged(&error)),
        }
        Continue(())
    }

    pub(super) fn sync_in_background(&mut self, instance: usize) -> Step {
        let (sabotage, process) = (self.sabotage, self.sites[instance].process);
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        let synced = api.sync(sabotage);
        if self.dies(Process::Api(instance)) {
            return Continue(());
        }
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        match synced {
            Ok(()) => api.background_sync_due = false,
            Err(JournalError::Io { .. }) => {
                api.sync_fails = true;
                self.after(RETRY_MS, Event::SyncInBackground(instance, process));
            }
            Err(error) => return Break(damaged(&error)),
        }
        Continue(())
    }

    /// What was written counts.
    pub(super) fn finish_write(&mut self, instance: usize) -> Step {
        let now_ms = self.now_ms;
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        let Some(Writing { batch, appended, waiters }) = api.writing.take() else {
            return Continue(());
        };
        let elapsed_ms = api.elapsed_ms(now_ms);
        let failure = appended.error.map(|error| error.to_string());
        let Written { accepts_count, void_count } =
            api.engine.written(batch, appended.first, appended.count, failure, elapsed_ms);
        if self.dies(Process::Api(instance)) {
            for waiter in waiters {
                self.leave_unanswered(waiter.post);
            }
            return Continue(());
        }
        for waiter in waiters {
            match waiter.ticket {
                Some(ticket) if ticket.0 >= void_count && ticket.0 < accepts_count => {
                    let refuses = self.sabotage == Some(Sabotage::RefuseWritten);
                    let answer = if refuses { Answer::Full } else { Answer::Accepted };
                    self.answer(instance, waiter.post, answer)?;
                }
                Some(ticket) if ticket.0 >= accepts_count => {
                    self.answer(instance, waiter.post, Answer::Failing)?;
                }
                _ => self.accept(instance, waiter.post)?,
            }
        }
        Continue(())
    }

    /// Makes the calls and the claim that follow from what was written.
    pub(super) fn follow_up(&mut self, instance: usize) -> Step {
        if self.dies(Process::Api(instance)) {
            return Continue(());
        }
        let now_ms = self.now_ms;
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        let calls = api.engine.take_calls();
        for call in calls {
            self.send(instance, call)?;
            if self.dies(Process::Api(instance)) {
                return Continue(());
            }
        }
        let process = self.sites[instance].process;
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        let elapsed_ms = api.elapsed_ms(now_ms);
        if let Some(through) = api.engine.take_claim(elapsed_ms) {
            if self.sabotage == Some(Sabotage::SendUnclaimed) {
                api.engine.decided(through, &[]);
                self.wake(instance);
            } else if let Some(store) = api.link {
                self.note(Note::Claimed { instance, through });
                let after_ms = self.random.below(3);
                self.after(after_ms, Event::Claim(instance, process, store, through));
            }
        }
        Continue(())
    }
}
