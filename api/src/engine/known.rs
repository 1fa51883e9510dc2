//! The correlation ids that this instance knows of without asking anyone: those of all open
//! payments, and of the last ones that were closed.

use std::collections::VecDeque;

use ledger::{Cents, CorrelationId, IdMap};

use super::payment::Key;

/// What is known of an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownPayment {
    /// The amount that it was accepted with.
    pub amount: Cents,
    /// Its place among the open payments; `None` once it is closed.
    pub open: Option<Key>,
}

/// The known ids.
#[derive(Debug)]
pub struct Known {
    payments: IdMap<KnownPayment>,
    /// Closed ones, the oldest first.
    closed: VecDeque<CorrelationId>,
    closed_max: usize,
}

impl Known {
    /// None, and room for this many closed ones.
    pub fn new(closed_max: usize) -> Self {
        Self { payments: IdMap::default(), closed: VecDeque::new(), closed_max }
    }

    /// What is known of an id.
    pub fn get(&self, id: CorrelationId) -> Option<KnownPayment> {
        self.payments.get(&id).copied()
    }

    /// A payment was accepted.
    pub fn open(&mut self, id: CorrelationId, amount: Cents, key: Key) {
        self.payments.insert(id, KnownPayment { amount, open: Some(key) });
    }

    /// A payment was closed.
    pub fn close(&mut self, id: CorrelationId) {
        if let Some(payment) = self.payments.get_mut(&id) {
            payment.open = None;
            self.closed.push_back(id);
        }
        while self.closed.len() > self.closed_max {
            if let Some(oldest) = self.closed.pop_front() {
                self.payments.remove(&oldest);
            }
        }
    }

    /// A payment was not accepted after all.
    pub fn forget(&mut self, id: CorrelationId) {
        self.payments.remove(&id);
    }

    /// Forgets all closed ones.
    pub fn forget_closed(&mut self) {
        for id in self.closed.drain(..) {
            self.payments.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_closed_ones_are_kept() {
        let mut known = Known::new(2);
        let key = crate::engine::tests::key();
        let ids: Vec<_> = (0..4).map(|number| CorrelationId::from_bytes([number; 16])).collect();
        for id in &ids {
            known.open(*id, Cents::new(1), key);
        }
        for id in &ids[..3] {
            known.close(*id);
        }
        assert_eq!(known.get(ids[0]), None);
        assert_eq!(known.get(ids[2]).unwrap().open, None);
        assert_eq!(known.get(ids[3]).unwrap().open, Some(key));
        known.forget_closed();
        assert_eq!(known.get(ids[2]), None);
        assert_eq!(known.get(ids[3]).unwrap().amount, Cents::new(1));
    }
}
