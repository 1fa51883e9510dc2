//! Totals as JSON writes them, in whole cents.

use ledger::Cents;
use rust_decimal::Decimal;
use sonic_rs::RawNumber;

/// Decimal places of money.
const PLACES: u32 = 2;

/// A number that is no total.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no total in whole cents")]
pub struct TotalError(String);

/// Reads a total from a JSON number, exactly. Unlike the amount of a payment it may be 0.
///
/// # Errors
/// Fractions of a cent, and more than fits.
pub fn parse_total(number: &RawNumber) -> Result<Cents, TotalError> {
    let text = number.as_str();
    let error = || TotalError(text.to_owned());
    let parsed = if text.contains(['e', 'E']) {
        Decimal::from_scientific(text)
    } else {
        Decimal::from_str_exact(text)
    };
    let mut total = parsed.map_err(|_| error())?.normalize();
    if total.scale() > PLACES {
        return Err(error());
    }
    total.rescale(PLACES);
    // Rescaling a number that is too large leaves fewer places than asked for.
    if total.scale() != PLACES {
        return Err(error());
    }
    i64::try_from(total.mantissa()).map(Cents::new).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<i64> {
        let number: RawNumber = sonic_rs::from_str(text).unwrap();
        parse_total(&number).ok().map(Cents::get)
    }

    #[test]
    fn totals_are_read_to_the_cent() {
        assert_eq!(parse("0"), Some(0));
        assert_eq!(parse("0.00"), Some(0));
        assert_eq!(parse("19.9"), Some(1990));
        assert_eq!(parse("333364.80"), Some(33_336_480));
        assert_eq!(parse("1.990E+3"), Some(199_000));
        assert_eq!(parse("90071992547409.93"), Some(9_007_199_254_740_993));
    }

    #[test]
    fn fractions_of_a_cent_and_too_large_totals_are_refused() {
        assert_eq!(parse("0.001"), None);
        assert_eq!(parse("92233720368547758.08"), None);
        assert_eq!(parse("79228162514264337593543950335"), None);
    }
}
