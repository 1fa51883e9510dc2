//! The payments of a load. Each follows from the load's seed and its number, so that a load can be
//! told apart from any other and repeated.

use ledger::{Cents, CorrelationId};

/// The largest amount that a payment has where none was asked for: 1,000.00.
const AMOUNT_CENTS_MAX: u64 = 100_000;

/// The payments of a load.
#[derive(Clone, Copy, Debug)]
pub struct Payments {
    seed: u64,
    amount: Option<Cents>,
}

impl Payments {
    /// The payments that follow from this seed, all of one amount or each of another.
    #[must_use]
    pub fn new(seed: u64, amount: Option<Cents>) -> Self {
        Self { seed, amount }
    }

    /// What they follow from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The identity of a payment: a version 4 UUID.
    #[must_use]
    pub fn id(&self, number: u32) -> CorrelationId {
        let [high, low] = [0, 1].map(|half| self.random(number, half));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        CorrelationId::from_bytes(bytes)
    }

    /// The amount of a payment.
    #[must_use]
    pub fn amount(&self, number: u32) -> Cents {
        self.amount.unwrap_or_else(|| {
            let cents = 1 + self.random(number, 2) % AMOUNT_CENTS_MAX;
            Cents::new(i64::try_from(cents).expect("it is at most AMOUNT_CENTS_MAX"))
        })
    }

    /// The body of the request that posts a payment.
    #[must_use]
    pub fn body(&self, number: u32) -> String {
        let cents = self.amount(number).get();
        let id = self.id(number);
        format!(r#"{{"correlationId":"{id}","amount":{}.{:02}}}"#, cents / 100, cents % 100)
    }

    /// `SplitMix64` of the seed, at a place of its own for each use.
    fn random(&self, number: u32, purpose: u64) -> u64 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let place = u64::from(number) * 4 + purpose + 1;
        mixed(mixed(self.seed).wrapping_add(place.wrapping_mul(GOLDEN)))
    }
}

/// The output of `SplitMix64` for a state.
pub(crate) fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_payments_share_an_id_and_no_two_seeds_do() {
        let ids: HashSet<_> = (0..50_000)
            .flat_map(|number| [1, 2].map(|seed| Payments::new(seed, None).id(number)))
            .collect();
        assert_eq!(ids.len(), 100_000);
    }

    #[test]
    fn a_flood_can_be_repeated_from_its_seed() {
        let payments = Payments::new(7, None);
        assert_eq!(payments.body(3), Payments::new(7, None).body(3));
        assert_ne!(payments.body(3), payments.body(4));
        let id = payments.id(3).to_string();
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
    }

    #[test]
    fn amounts_are_all_the_same_or_all_possible() {
        let fixed = Payments::new(7, Some(Cents::new(1905)));
        assert!(fixed.body(3).ends_with(r#","amount":19.05}"#), "{}", fixed.body(3));
        let cents: HashSet<_> =
            (0..1000).map(|number| Payments::new(7, None).amount(number)).collect();
        assert!(cents.len() > 900);
        assert!(cents.iter().all(|amount| amount.is_payment_amount()));
    }
}
