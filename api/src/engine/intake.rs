//! While a crowd comes in, intake goes first.
//!
//! One thread takes payments in and sends them. Sending costs more, and nobody waits for it, so in a
//! flood clients would be served at the pace of sending. More than a few payments in one turn mean that
//! they come faster than turns do; from then on, until that has not been so for a moment, most of what
//! the thread can do is for those who wait outside. The backlog is the limit: from a half of it on more
//! is sent, and from three quarters on as much as can be.

use std::mem;

/// Payments that come in within one turn and are a crowd.
pub(super) const CROWD: usize = 4;

/// For so long after a crowd it is expected to go on, in milliseconds.
const CROWDED_MS: u64 = 10;

/// While a crowd comes in, one payment is sent for so many that come in.
pub(super) const ARRIVALS_PER_SEND: usize = 32;

/// Payments that may be sent at once when a crowd begins.
pub(super) const BURST: usize = 8;

/// When what was held back is looked at again if nothing else happens, in milliseconds.
pub(super) const PAUSE_MS: u64 = 2;

/// How many payments may be sent.
#[derive(Debug)]
pub(super) struct Intake {
    /// Payments that came in since the last turn began.
    arrivals_count: usize,
    crowded_until_ms: u64,
    is_crowded: bool,
    /// What payments that come in have earned for those that are to be sent.
    credit: usize,
    /// What sending one costs of it.
    price: usize,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            arrivals_count: 0,
            crowded_until_ms: 0,
            is_crowded: false,
            credit: BURST * ARRIVALS_PER_SEND,
            price: ARRIVALS_PER_SEND,
        }
    }
}

impl Intake {
    /// Takes in that a payment came in.
    pub fn arrived(&mut self) {
        self.arrivals_count += 1;
    }

    /// Begins a turn, with so many payments open of so many that may be.
    pub fn begin_turn(&mut self, now_ms: u64, open: usize, open_max: usize) {
        let arrivals = mem::take(&mut self.arrivals_count);
        if arrivals >= CROWD {
            self.crowded_until_ms = now_ms + CROWDED_MS;
        }
        self.is_crowded = now_ms < self.crowded_until_ms && open < open_max / 4 * 3;
        let most = BURST * ARRIVALS_PER_SEND;
        self.credit = if self.is_crowded { most.min(self.credit + arrivals) } else { most };
        // All of it up to a half, next to nothing at three quarters.
        let above_half = open.saturating_sub(open_max / 2);
        let discount = (ARRIVALS_PER_SEND - 1) * above_half / (open_max / 4).max(1);
        self.price = ARRIVALS_PER_SEND.saturating_sub(discount).max(1);
    }

    /// Whether a crowd comes in.
    pub fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    /// Whether one more payment may be sent in this turn.
    pub fn may_send(&self) -> bool {
        !self.is_crowded || self.credit >= self.price
    }

    /// Takes in that one was sent.
    pub fn sent(&mut self) {
        self.credit = self.credit.saturating_sub(self.price);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Payments that are sent of those that come in, turn by turn, a millisecond each.
    fn sent(arrivals: &[usize], open: usize) -> Vec<usize> {
        let mut intake = Intake::default();
        let turns = arrivals.iter().zip(100..).map(|(count, now_ms)| {
            (0..*count).for_each(|_| intake.arrived());
            intake.begin_turn(now_ms, open, 1000);
            let mut sent = 0;
            while intake.may_send() && sent < 100 {
                intake.sent();
                sent += 1;
            }
            sent
        });
        turns.collect()
    }

    #[test]
    fn few_at_a_time_hold_nothing_up() {
        assert_eq!(sent(&[1, CROWD - 1, 0, 1], 0), [100; 4]);
    }

    #[test]
    fn a_crowd_is_taken_in_first_and_its_end_lets_everything_go() {
        let crowd = [64; 3];
        assert_eq!(sent(&crowd, 0), [BURST, 2, 2]);
        let mut arrivals = vec![64];
        arrivals.extend((0..CROWDED_MS).map(|_| 0));
        let sent = sent(&arrivals, 0);
        assert_eq!(sent[..2], [BURST, 0]);
        assert_eq!(sent.last(), Some(&100));
    }

    #[test]
    fn the_fuller_the_backlog_the_more_is_sent() {
        let second = |open| sent(&[64, 64], open)[1];
        assert_eq!([500, 625, 700, 750].map(second), [2, 3, 8, 100]);
    }
}
