//! Which payments of a journal are not closed, by its records.

use std::collections::HashMap;

use super::position::Position;
use super::record::{Event, PaymentRecord};
use crate::id::CorrelationId;
use crate::money::Cents;
use crate::processor::Processor;
use crate::time::TimestampMs;

/// A payment that was accepted and is neither settled, refused nor a duplicate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenPayment {
    /// Which payment.
    pub id: CorrelationId,
    /// Its amount.
    pub amount: Cents,
    /// The place of its `Accepted` record.
    pub accepted: Position,
    /// When it was taken in.
    pub accepted_at: TimestampMs,
    /// The last call that may have left it at its processor: no record since says that it is known
    /// not to be there.
    pub in_doubt: Option<Dispatch>,
}

/// A call to a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dispatch {
    /// The processor.
    pub processor: Processor,
    /// The `requestedAt` that was sent along.
    pub requested_at: TimestampMs,
}

/// The open payments of one journal, built from its records in order.
///
/// | record | effect |
/// |---|---|
/// | `Accepted` | the payment is open, in doubt nowhere |
/// | `Dispatched` | it is in doubt at that processor |
/// | `Failed` | it is in doubt nowhere |
/// | `Settled`, `Refused`, `Duplicate` | it is closed |
#[derive(Debug, Default)]
pub struct OpenPayments {
    payments: HashMap<CorrelationId, OpenPayment>,
}

impl OpenPayments {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record in.
    pub fn apply(&mut self, position: Position, record: &PaymentRecord) {
        match record.event {
            Event::Accepted => {
                let payment = OpenPayment {
                    id: record.id,
                    amount: record.amount,
                    accepted: position,
                    accepted_at: record.written_at,
                    in_doubt: None,
                };
                self.payments.insert(record.id, payment);
            }
            Event::Dispatched { processor, requested_at } => {
                if let Some(payment) = self.payments.get_mut(&record.id) {
                    payment.in_doubt = Some(Dispatch { processor, requested_at });
                }
            }
            Event::Failed { .. } => {
                if let Some(payment) = self.payments.get_mut(&record.id) {
                    payment.in_doubt = None;
                }
            }
            Event::Settled { .. } | Event::Refused { .. } | Event::Duplicate => {
                self.payments.remove(&record.id);
            }
        }
    }

    /// The open payments, in the order in which they were accepted.
    #[must_use]
    pub fn into_ordered(self) -> Vec<OpenPayment> {
        let mut payments: Vec<_> = self.payments.into_values().collect();
        payments.sort_unstable_by_key(|payment| payment.accepted);
        payments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISPATCHED: Event =
        Event::Dispatched { processor: Processor::Default, requested_at: TimestampMs::MIN };
    const FAILED: Event = Event::Failed { processor: Processor::Default, status: 500 };
    const SETTLED: Event =
        Event::Settled { processor: Processor::Default, requested_at: TimestampMs::MIN };
    const REFUSED: Event = Event::Refused { processor: Processor::Fallback, status: 400 };

    #[derive(PartialEq, Eq, Debug)]
    enum Outcome {
        Closed,
        InDoubtNowhere,
        InDoubtAt(Processor),
    }

    /// What a payment's records make of it.
    fn outcome(events: &[Event]) -> Outcome {
        let mut open = OpenPayments::new();
        for (event, index) in events.iter().zip(0..) {
            let record = PaymentRecord {
                id: CorrelationId::from_bytes([1; 16]),
                amount: Cents::new(1990),
                written_at: TimestampMs::MIN,
                event: *event,
            };
            open.apply(Position { segment: 1, index }, &record);
        }
        match open.into_ordered().first() {
            None => Outcome::Closed,
            Some(OpenPayment { in_doubt: None, .. }) => Outcome::InDoubtNowhere,
            Some(OpenPayment { in_doubt: Some(call), .. }) => Outcome::InDoubtAt(call.processor),
        }
    }

    #[test]
    fn a_payments_last_record_decides_how_it_stands() {
        use Outcome::{Closed, InDoubtAt, InDoubtNowhere};

        const ACCEPTED: Event = Event::Accepted;
        const IN_DOUBT: Outcome = InDoubtAt(Processor::Default);
        for (events, expected) in [
            (&[ACCEPTED][..], InDoubtNowhere),
            (&[ACCEPTED, DISPATCHED], IN_DOUBT),
            (&[ACCEPTED, DISPATCHED, FAILED], InDoubtNowhere),
            (&[ACCEPTED, DISPATCHED, FAILED, DISPATCHED], IN_DOUBT),
            (&[ACCEPTED, DISPATCHED, DISPATCHED], IN_DOUBT),
            (&[ACCEPTED, DISPATCHED, SETTLED], Closed),
            (&[ACCEPTED, DISPATCHED, FAILED, REFUSED], Closed),
            (&[ACCEPTED, Event::Duplicate], Closed),
            // Accepted again after it was closed, and not yet known to be a duplicate.
            (&[ACCEPTED, DISPATCHED, SETTLED, ACCEPTED], InDoubtNowhere),
            (&[ACCEPTED, DISPATCHED, SETTLED, ACCEPTED, Event::Duplicate], Closed),
            // Its first records lie in a segment that was not read.
            (&[SETTLED], Closed),
            (&[DISPATCHED], Closed),
        ] {
            assert_eq!(outcome(events), expected, "{events:?}");
        }
    }

    #[test]
    fn open_payments_come_in_the_order_in_which_they_were_accepted() {
        let mut open = OpenPayments::new();
        for (number, segment) in [(3, 1), (1, 2), (2, 3)] {
            let record = PaymentRecord {
                id: CorrelationId::from_bytes([number; 16]),
                amount: Cents::new(1),
                written_at: TimestampMs::MIN,
                event: Event::Accepted,
            };
            open.apply(Position { segment, index: 0 }, &record);
        }
        let order: Vec<u32> = open.into_ordered().iter().map(|p| p.accepted.segment).collect();
        assert_eq!(order, [1, 2, 3]);
    }
}
