//! A payment that is not closed yet, and where such payments are kept.

use ledger::journal::Position;
use ledger::{Cents, CorrelationId, Processor};

/// Where a payment stands on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Its `Accepted` record is about to be written.
    Writing,
    /// It is in the journal; the store has not said yet whether it may be sent.
    Undecided,
    /// It waits to be sent.
    Ready,
    /// It is being sent, or was sent, to the processor.
    Sent(Processor),
    /// It may be at the processor; a look-up is to find out.
    InDoubt(Processor),
    /// The look-up is under way.
    LookingUp(Processor),
    /// Its last record is about to be written.
    Closing,
}

/// A payment that is not closed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payment {
    /// Which payment.
    pub id: CorrelationId,
    /// Its amount.
    pub amount: Cents,
    /// The place of its `Accepted` record; [`Position::START`] before that is written.
    pub accepted: Position,
    /// When it was taken in, in milliseconds of the engine's clock; negative before that began.
    pub waiting_since_ms: i64,
    /// Where it stands.
    pub stage: Stage,
    /// A call was made of which nobody knows what it left behind, or that was under way at a purge, so
    /// it may only ever go to this processor.
    pub doubt: Option<Processor>,
    /// A processor that will never take it.
    pub refused_by: Option<Processor>,
    /// Attempts to resolve a doubt so far.
    pub attempts_count: u8,
}

impl Payment {
    /// Whether a processor may have it, or get it by a call that is under way.
    pub fn may_be_recorded(&self) -> bool {
        let is_out = matches!(self.stage, Stage::Sent(_) | Stage::InDoubt(_) | Stage::LookingUp(_));
        is_out || self.doubt.is_some()
    }
}

/// The place of a payment among the open ones. It may name another payment after that is closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(u32);

/// The open payments.
#[derive(Debug, Default)]
pub struct Payments {
    slots: Vec<Option<Payment>>,
    free: Vec<Key>,
}

impl Payments {
    /// Adds a payment.
    pub fn insert(&mut self, payment: Payment) -> Key {
        if let Some(key) = self.free.pop() {
            self.slots[key.0 as usize] = Some(payment);
            return key;
        }
        let key = Key(u32::try_from(self.slots.len()).expect("the backlog's limit is below 2^32"));
        self.slots.push(Some(payment));
        key
    }

    /// Removes a payment.
    pub fn remove(&mut self, key: Key) -> Option<Payment> {
        let payment = self.slots[key.0 as usize].take()?;
        self.free.push(key);
        Some(payment)
    }

    /// A payment.
    pub fn get(&self, key: Key) -> Option<&Payment> {
        self.slots[key.0 as usize].as_ref()
    }

    /// A payment, to be changed.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Payment> {
        self.slots[key.0 as usize].as_mut()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// All keys in use.
    pub fn keys(&self) -> Vec<Key> {
        let used = self.slots.iter().zip(0..).filter(|(slot, _)| slot.is_some());
        used.map(|(_, number)| Key(number)).collect()
    }
}
