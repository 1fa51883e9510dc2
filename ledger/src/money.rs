//! Money as whole cents. No float touches it.

use std::fmt;
use std::ops::RangeInclusive;

use rust_decimal::Decimal;

/// The amounts that a payment may have: greater than 0 and at most 99,999,999.99.
pub const PAYMENT_CENTS: RangeInclusive<i64> = 1..=9_999_999_999;

/// Decimal places of an amount.
const PLACES: u32 = 2;

/// Digits before the decimal point of the largest amount.
const LARGEST_INTEGER_DIGITS: i64 = 8;

/// An amount of money or a total, in whole cents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cents(i64);

/// Why a number cannot be the amount of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not a decimal number at all.
    #[error("amount must be a decimal number such as 19.90")]
    NotANumber,
    /// Zero or less.
    #[error("amount must be greater than 0")]
    NotPositive,
    /// Above the largest amount of [`PAYMENT_CENTS`].
    #[error("amount must be at most 99999999.99")]
    TooLarge,
    /// A fraction of a cent.
    #[error("amount must have at most two decimal places")]
    TooManyPlaces,
}

/// A total that no longer fits: more than 92 thousand million million in money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a total of {0} and {1} does not fit into 64 bits of cents")]
pub struct TotalOverflow(Cents, Cents);

impl Cents {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// This many cents.
    #[must_use]
    pub const fn new(cents: i64) -> Self {
        Self(cents)
    }

    /// The number of cents.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Reads the amount of a payment from a JSON number's text, exactly.
    ///
    /// # Errors
    /// What the amount breaks of the rules for a payment's amount.
    pub fn parse_amount(text: &str) -> Result<Self, AmountError> {
        if let Some(cents) = plain_cents(text) {
            return Ok(cents);
        }
        let decimal = parse_decimal(text)?;
        if decimal.is_zero() || decimal.is_sign_negative() {
            return Err(AmountError::NotPositive);
        }
        let largest = Decimal::new(*PAYMENT_CENTS.end(), PLACES);
        if decimal > largest {
            return Err(AmountError::TooLarge);
        }
        let mut cents = decimal.normalize();
        if cents.scale() > PLACES {
            return Err(AmountError::TooManyPlaces);
        }
        cents.rescale(PLACES);
        i64::try_from(cents.mantissa()).map(Self).map_err(|_| AmountError::TooLarge)
    }

    /// Whether a payment may have this amount.
    #[must_use]
    pub fn is_payment_amount(self) -> bool {
        PAYMENT_CENTS.contains(&self.0)
    }

    /// The sum.
    ///
    /// # Errors
    /// A sum that does not fit.
    pub fn checked_add(self, other: Self) -> Result<Self, TotalOverflow> {
        self.0.checked_add(other.0).map(Self).ok_or(TotalOverflow(self, other))
    }
}

/// Digits before the point that any amount may have.
const PLAIN_DIGITS_MAX: usize = 8;

/// The amount of a payment in the form that nearly every client writes: `19.90`, `19.9` or `19`. Any
/// other form, and every number that is no amount, is left to the exact way.
fn plain_cents(text: &str) -> Option<Cents> {
    let (integer, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_plain = matches!(integer.len(), 1..=PLAIN_DIGITS_MAX)
        && matches!(fraction.len(), 1..=2)
        && (integer.len() == 1 || !integer.starts_with('0'));
    if !is_plain {
        return None;
    }
    let mut cents = 0;
    for digit in integer.bytes().chain(fraction.bytes()) {
        if !digit.is_ascii_digit() {
            return None;
        }
        cents = cents * 10 + i64::from(digit - b'0');
    }
    if fraction.len() == 1 {
        cents *= 10;
    }
    Some(Cents(cents)).filter(|cents| cents.is_payment_amount())
}

/// Reads a JSON number's text as a decimal that loses nothing.
fn parse_decimal(text: &str) -> Result<Decimal, AmountError> {
    let number = JsonNumber::split(text).ok_or(AmountError::NotANumber)?;
    number.exactly().ok_or_else(|| number.why_not_a_decimal())
}

/// The parts of a number as JSON writes it (RFC 8259, section 6).
struct JsonNumber<'a> {
    negative: bool,
    integer: &'a str,
    fraction: &'a str,
    exponent: Option<&'a str>,
}

impl<'a> JsonNumber<'a> {
    fn split(text: &'a str) -> Option<Self> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (unsigned, None),
        };
        if exponent.is_some_and(|e| !digits(e.strip_prefix(['+', '-']).unwrap_or(e))) {
            return None;
        }
        let (integer, fraction) = match mantissa.split_once('.') {
            Some((integer, fraction)) if digits(fraction) => (integer, fraction),
            Some(_) => return None,
            None => (mantissa, ""),
        };
        let well_formed = digits(integer) && (integer.len() == 1 || !integer.starts_with('0'));
        well_formed.then_some(Self { negative, integer, fraction, exponent })
    }

    /// The digits that count, without zeros at either end, and the power of ten of the last one.
    /// `1.990e3` is `199` and 1.
    fn significant(&self) -> (String, i64) {
        let digits = format!("{}{}", self.integer, self.fraction);
        let trimmed = digits.trim_end_matches('0');
        // A number of bytes in memory fits, and so does the sum of the three.
        let count = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX / 4);
        let power = count(&digits) - count(trimmed) - count(self.fraction) + self.power_of_ten();
        (trimmed.trim_start_matches('0').to_owned(), power)
    }

    /// The exponent. One with more digits than the largest is as large as that.
    fn power_of_ten(&self) -> i64 {
        let Some(exponent) = self.exponent else { return 0 };
        let (negative, digits) = match exponent.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, exponent.strip_prefix('+').unwrap_or(exponent)),
        };
        let power = digits.parse().unwrap_or(i64::MAX).min(i64::MAX / 4);
        if negative { -power } else { power }
    }

    /// The number itself, if 28 digits can hold it.
    fn exactly(&self) -> Option<Decimal> {
        let (digits, power) = self.significant();
        if digits.is_empty() {
            return Some(Decimal::ZERO);
        }
        let mantissa: i128 = digits.parse().ok()?;
        let mantissa = if self.negative { -mantissa } else { mantissa };
        let (mantissa, scale) = if power > 0 {
            let factor = 10_i128.checked_pow(u32::try_from(power).ok()?)?;
            (mantissa.checked_mul(factor)?, 0)
        } else {
            (mantissa, u32::try_from(-power).ok()?)
        };
        Decimal::try_from_i128_with_scale(mantissa, scale).ok()
    }

    /// Why a number that 28 digits cannot hold is no amount.
    fn why_not_a_decimal(&self) -> AmountError {
        let (digits, power) = self.significant();
        let integer_digits = i64::try_from(digits.len()).unwrap_or(i64::MAX / 4) + power;
        if self.negative {
            AmountError::NotPositive
        } else if integer_digits > LARGEST_INTEGER_DIGITS {
            AmountError::TooLarge
        } else {
            AmountError::TooManyPlaces
        }
    }
}

impl fmt::Display for Cents {
    /// Two decimal places, always: `19.90`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Ok(cents) = u64::try_from(self.0) {
            return write!(formatter, "{}.{:02}", cents / 100, cents % 100);
        }
        fmt::Display::fmt(&Decimal::new(self.0, PLACES), formatter)
    }
}

impl fmt::Debug for Cents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_exactly() {
        for (text, cents) in [
            ("19.90", 1990),
            ("19.9", 1990),
            ("19", 1900),
            ("0.01", 1),
            ("0.10000000000000000000", 10),
            ("99999999.99", 9_999_999_999),
            ("5.0000000000000000000000000000000000000000", 500),
            ("1.99e1", 1990),
            ("1E2", 10_000),
            ("1990e-2", 1990),
            ("0.0000000000000000000000000000000000000000199e41", 199),
            ("1000000000000000000000000000000000000000000e-42", 100),
            ("1.9900000000000000000000000000000000000000e1", 1990),
        ] {
            assert_eq!(Cents::parse_amount(text), Ok(Cents::new(cents)), "{text}");
        }
    }

    #[test]
    fn every_rule_that_an_amount_breaks_has_its_own_sentence() {
        for (text, error) in [
            ("0", AmountError::NotPositive),
            ("-0.01", AmountError::NotPositive),
            ("0.001", AmountError::TooManyPlaces),
            ("19.905", AmountError::TooManyPlaces),
            ("1e-3", AmountError::TooManyPlaces),
            ("1e-40", AmountError::TooManyPlaces),
            ("1e-99999999999999999999", AmountError::TooManyPlaces),
            ("1e99999999999999999999", AmountError::TooLarge),
            ("1.9949999999999999999999999999999999e1", AmountError::TooManyPlaces),
            ("19.949999999999999999999999999999999", AmountError::TooManyPlaces),
            ("1.00000000000000000000000000000000001e8", AmountError::TooLarge),
            ("0.00000000000000000000000000000000000001", AmountError::TooManyPlaces),
            ("100000000.00", AmountError::TooLarge),
            ("99999999.991", AmountError::TooLarge),
            ("79228162514264337593543950336", AmountError::TooLarge),
            ("1e29", AmountError::TooLarge),
            ("1e400", AmountError::TooLarge),
            ("", AmountError::NotANumber),
            ("ten", AmountError::NotANumber),
            ("1.2.3", AmountError::NotANumber),
            ("1_000", AmountError::NotANumber),
            ("019.90", AmountError::NotANumber),
            (".5", AmountError::NotANumber),
            ("5.", AmountError::NotANumber),
            ("+5", AmountError::NotANumber),
            ("1e", AmountError::NotANumber),
            ("1e5.0", AmountError::NotANumber),
            ("-1e400", AmountError::NotPositive),
            ("0e400", AmountError::NotPositive),
            ("0x10", AmountError::NotANumber),
        ] {
            assert_eq!(Cents::parse_amount(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_total_that_does_not_fit_is_an_error() {
        let most = Cents::new(i64::MAX);
        assert!(most.checked_add(Cents::new(1)).is_err());
        assert_eq!(most.checked_add(Cents::ZERO), Ok(most));
    }

    /// Two decimal places at most, and eight digits before them, by shifting digits alone.
    fn by_hand(digits: &str, point: usize, exponent: i64) -> Option<i64> {
        let mut digits = digits.to_owned();
        let mut places = i64::try_from(point).unwrap() - exponent;
        while places < 2 {
            digits.push('0');
            places += 1;
        }
        while places > 2 {
            if digits.pop().is_some_and(|last| last != '0') {
                return None;
            }
            places -= 1;
        }
        let cents = digits.trim_start_matches('0').parse().ok()?;
        PAYMENT_CENTS.contains(&cents).then_some(cents)
    }

    proptest! {
        #[test]
        fn an_exponent_moves_the_point_and_rounds_nothing(
            first in "[1-9]",
            rest in "[0-9]{0,4}[09]{0,36}[0-9]{0,2}",
            exponent in -45_i64..45,
        ) {
            let expected = by_hand(&format!("{first}{rest}"), rest.len(), exponent);
            let point = if rest.is_empty() { "" } else { "." };
            let text = format!("{first}{point}{rest}e{exponent}");
            prop_assert_eq!(Cents::parse_amount(&text).ok().map(Cents::get), expected, "{}", text);
        }

        #[test]
        fn the_usual_form_is_read_as_the_exact_way_reads_it(text in "[0-9]{1,9}(\\.[0-9]{0,3})?") {
            if let Some(cents) = plain_cents(&text) {
                let exact = parse_decimal(&text).unwrap();
                prop_assert_eq!(Decimal::new(cents.get(), PLACES), exact);
                prop_assert_eq!(cents.to_string().parse::<Decimal>().unwrap(), exact);
            }
        }

        #[test]
        fn what_is_printed_is_what_is_read(cents in PAYMENT_CENTS) {
            let amount = Cents::new(cents);
            prop_assert_eq!(Cents::parse_amount(&amount.to_string()), Ok(amount));
        }

        #[test]
        fn no_text_makes_the_parser_panic_or_yields_an_amount_out_of_range(text in "[-+0-9.eE]{0,45}") {
            if let Ok(amount) = Cents::parse_amount(&text) {
                prop_assert!(amount.is_payment_amount());
            }
        }
    }
}
