//! What the engine and the store say to each other: claims, and purges.

use std::collections::HashSet;

use ledger::journal::{Event, Position};
use ledger::protocol::PurgeNotice;

use super::payment::{Key, Payment, Stage};
use super::{Engine, intake};

/// The pause before a claim that the store refused is made again.
const CLAIM_PAUSE_MS: u64 = 200;

/// Payments that are ready to be sent, with which a crowd outside need not be disturbed by claims.
const READY_ENOUGH: usize = 256;

/// Payments that are enough for a claim, however long they were gathered.
pub(super) const CLAIM_ENOUGH: usize = 32;

/// What the engine knows of the store.
#[derive(Debug, Default)]
pub(super) struct StoreLink {
    pub connected: bool,
    pub claim_is_out: bool,
    /// No claim is made before this time.
    pub claim_at_ms: u64,
    /// Since when payments are gathered for the next claim. `None` where there is one to be made at once,
    /// or nothing to be claimed.
    pub gathering_since_ms: Option<u64>,
    /// The last purge that the store told of.
    pub purge: Option<PurgeNotice>,
}

impl StoreLink {
    /// What was accepted before this place is void, unless a processor may have it.
    pub fn cut(&self) -> Position {
        self.purge.map_or(Position::START, |notice| notice.cut)
    }
}

impl Engine {
    /// The claim to be made now, if any: the end of what may be decided upon.
    pub fn take_claim(&mut self, now_ms: u64) -> Option<Position> {
        let store = &self.store;
        let at_ms = store.claim_at_ms.max(self.claim_times_ms().0);
        let is_due = store.connected && !store.claim_is_out && now_ms >= at_ms;
        if !is_due || self.undecided.is_empty() || self.claim_can_wait() {
            return None;
        }
        self.store.claim_is_out = true;
        self.store.gathering_since_ms = None;
        Some(self.committed)
    }

    /// When the next claim is to be made, if anything happens then, and when it is to be made at the
    /// latest. Each claim wakes the store and, by its answer, this process: what comes little by little
    /// is gathered for a moment.
    fn claim_times_ms(&self) -> (u64, u64) {
        let delay_ms = self.config.claim_delay_ms;
        match self.store.gathering_since_ms {
            Some(since_ms) if self.undecided.len() < CLAIM_ENOUGH => {
                (since_ms + delay_ms, since_ms + 2 * delay_ms)
            }
            _ => (0, 0),
        }
    }

    /// When a turn is needed for a claim, if nothing happens until then.
    pub(super) fn claim_wake_ms(&self, now_ms: u64) -> Option<u64> {
        let store = &self.store;
        if !store.connected || store.claim_is_out || self.undecided.is_empty() {
            return None;
        }
        if self.claim_can_wait() {
            return Some(now_ms + intake::PAUSE_MS);
        }
        let (_, latest_ms) = self.claim_times_ms();
        Some(store.claim_at_ms.max(latest_ms)).filter(|at_ms| *at_ms > now_ms)
    }

    /// Whether nothing is gained by a claim at the moment: a crowd comes in, and there is more to be sent
    /// than may be.
    pub(super) fn claim_can_wait(&self) -> bool {
        self.intake.is_crowded() && self.ready.len() >= READY_ENOUGH
    }

    /// Whether a claim was made that is not answered.
    #[cfg(test)]
    pub(crate) fn claim_is_out(&self) -> bool {
        self.store.claim_is_out
    }

    /// Takes in what the store decided: all accepted payments before `through` may be sent, except
    /// these.
    pub fn decided(&mut self, through: Position, losers: &[Position]) {
        self.store.claim_is_out = false;
        let losers: HashSet<Position> = losers.iter().copied().collect();
        while let Some(key) = self.undecided.front().copied() {
            let Some(payment) = self.payments.get_mut(key) else {
                self.undecided.pop_front();
                continue;
            };
            if payment.accepted >= through {
                break;
            }
            self.undecided.pop_front();
            if losers.contains(&payment.accepted) {
                let amount = payment.amount;
                tracing::debug!(id = %payment.id, "the payment was accepted before");
                self.finish(key, amount, Event::Duplicate);
            } else {
                payment.stage = Stage::Ready;
                self.ready.push_back(key);
            }
        }
    }

    /// Takes in that the store could not decide.
    pub fn claim_refused(&mut self, now_ms: u64) {
        self.store.claim_is_out = false;
        self.store.claim_at_ms = now_ms + CLAIM_PAUSE_MS;
    }

    /// Takes in that the store is connected, and what it says of purges.
    pub fn connected(&mut self, notice: PurgeNotice) {
        self.store = StoreLink { connected: true, purge: self.store.purge, ..StoreLink::default() };
        self.purged(notice);
    }

    /// Takes in that the store is gone. What was decided stays decided. A purge that was near stays so
    /// until the store is back, because nobody else knows whether it was carried out.
    pub fn disconnected(&mut self) {
        self.store = StoreLink { purge: self.store.purge, ..StoreLink::default() };
    }

    /// Sends nothing new until [`Engine::purge_aborted`] or [`Engine::purged`]. What was prepared to
    /// be sent is sent.
    pub fn prepare_purge(&mut self) {
        self.purge_is_near = true;
    }

    /// Goes on after a purge that was not carried out.
    pub fn purge_aborted(&mut self) {
        self.purge_is_near = false;
    }

    /// Goes on after a purge that was carried out.
    pub fn purged(&mut self, notice: PurgeNotice) {
        self.keep_survivors(notice.cut);
        self.drop_void(notice.cut);
        if self.undecided.is_empty() {
            self.store.gathering_since_ms = None;
        }
        if self.store.purge.is_some_and(|before| before.purge != notice.purge) {
            self.known.forget_closed();
        }
        self.store.purge = Some(notice);
        self.purge_is_near = false;
    }

    /// Whether a known payment may be void without the engine having heard of it: a purge is near, or
    /// the payment is from before the engine's time and the store has not greeted it yet.
    pub(super) fn may_be_void(&self, open: Option<&Payment>) -> bool {
        let stays = open
            .is_some_and(|payment| payment.stage == Stage::Writing || payment.may_be_recorded());
        let is_unchecked = self.store.purge.is_none()
            && open.is_some_and(|payment| payment.accepted < self.taken_up);
        !stays && (self.purge_is_near || is_unchecked)
    }

    /// Binds every payment that was at a processor at the cut to that processor. The store takes its
    /// id for taken from then on, so it must never become free again, here or after a new start.
    fn keep_survivors(&mut self, cut: Position) {
        for key in self.payments.keys() {
            if let Some(payment) = self.payments.get_mut(key)
                && let Stage::Sent(processor) = payment.stage
                && payment.accepted < cut
            {
                payment.doubt = Some(processor);
            }
        }
    }

    /// Drops every payment that was accepted before the cut and that no processor may have.
    fn drop_void(&mut self, cut: Position) {
        let is_void = |engine: &Self, key: &Key| {
            engine.payments.get(*key).is_some_and(|payment| {
                let waits = matches!(payment.stage, Stage::Undecided | Stage::Ready);
                waits && payment.doubt.is_none() && payment.accepted < cut
            })
        };
        for key in self.payments.keys() {
            if is_void(self, &key)
                && let Some(payment) = self.close(key)
            {
                self.known.forget(payment.id);
            }
        }
        let payments = &self.payments;
        let queues = [&mut self.undecided, &mut self.ready].into_iter().chain(&mut self.pinned);
        for queue in queues {
            queue.retain(|key| payments.get(*key).is_some());
        }
    }
}
