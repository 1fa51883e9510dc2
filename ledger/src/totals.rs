//! A number of payments and their sum.

use crate::money::{Cents, TotalOverflow};

/// A number of payments and their sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Payments.
    pub count: u64,
    /// The sum of their amounts.
    pub amount: Cents,
}

impl Totals {
    /// One payment of this amount.
    #[must_use]
    pub const fn of_payment(amount: Cents) -> Self {
        Self { count: 1, amount }
    }

    /// Both together.
    ///
    /// # Errors
    /// A sum that does not fit.
    pub fn checked_add(self, other: Self) -> Result<Self, TotalOverflow> {
        Ok(Self { count: self.count + other.count, amount: self.amount.checked_add(other.amount)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_or_say_that_they_do_not_fit() {
        let one = Totals::of_payment(Cents::new(1990));
        let two = one.checked_add(one).unwrap();
        assert_eq!(two, Totals { count: 2, amount: Cents::new(3980) });
        assert!(two.checked_add(Totals::of_payment(Cents::new(i64::MAX))).is_err());
    }
}
