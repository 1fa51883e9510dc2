//! Moments in UTC milliseconds, and spans of them.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::fmt::rfc2822::DateTimePrinter as HttpDatePrinter;
use jiff::fmt::temporal::{DateTimePrinter, Pieces};
use jiff::tz::TimeZone;

/// Digits of a fraction of a second that the time library reads: nanoseconds.
const FRACTION_DIGITS_MAX: usize = 9;

/// Nanoseconds in a millisecond.
const NANOS_PER_MS: i128 = 1_000_000;

/// A moment: milliseconds since 1970-01-01T00:00:00Z, between the years 0 and 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimestampMs(i64);

/// Why a text does not name a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an ISO-8601 moment such as 2025-07-15T12:34:56.000Z")]
pub struct MomentError {
    text: String,
}

/// Why a pair of bounds does not name a span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {cause}")]
pub struct BoundError {
    name: &'static str,
    cause: MomentError,
}

/// A span of milliseconds, both ends inside it. It is empty where `from` is after `to`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeMs {
    /// The first millisecond inside.
    pub from: TimestampMs,
    /// The last millisecond inside.
    pub to: TimestampMs,
}

impl TimestampMs {
    /// 0000-01-01T00:00:00.000Z.
    pub const MIN: Self = Self(-62_167_219_200_000);
    /// 9999-12-30T22:00:00.000Z, the last moment that has a date in every time zone.
    pub const MAX: Self = Self(253_402_207_200_000);

    /// The moment this many milliseconds after the start of 1970, if it is within range.
    #[must_use]
    pub const fn new(milliseconds: i64) -> Option<Self> {
        if milliseconds < Self::MIN.0 || milliseconds > Self::MAX.0 {
            None
        } else {
            Some(Self(milliseconds))
        }
    }

    /// As [`TimestampMs::new`], with what is out of range moved to the nearest end.
    #[must_use]
    pub fn clamped(milliseconds: i64) -> Self {
        Self(milliseconds.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Milliseconds since the start of 1970.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Milliseconds from `earlier` to this moment; negative where it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    /// As HTTP writes a date, to the second (RFC 9110, section 5.6.7): `Tue, 15 Jul 2025 12:34:56 GMT`.
    #[must_use]
    pub fn to_http_date(self) -> String {
        Timestamp::from_millisecond(self.0)
            .and_then(|timestamp| HttpDatePrinter::new().timestamp_to_rfc9110_string(&timestamp))
            .expect("every moment from the year 0 to 9999 has a date")
    }
}

impl fmt::Display for TimestampMs {
    /// ISO-8601 in UTC with three decimal places: `2025-07-15T12:34:56.000Z`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
        let timestamp = Timestamp::from_millisecond(self.0).map_err(|_| fmt::Error)?;
        formatter.write_str(&PRINTER.timestamp_to_string(&timestamp))
    }
}

impl fmt::Debug for TimestampMs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for TimestampMs {
    type Err = MomentError;

    /// Reads a moment; what is finer than a millisecond is cut off.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Moment::parse(text)?.floor(text)
    }
}

impl RangeMs {
    /// All time.
    pub const ALL: Self = Self { from: TimestampMs::MIN, to: TimestampMs::MAX };

    /// The span between two inclusive bounds; a missing one leaves that side open.
    ///
    /// A bound finer than a millisecond keeps its exact meaning: a payment at `.123` is not at or
    /// after `.1234`, and it is at or before it.
    ///
    /// # Errors
    /// The bound that is no moment, by its name.
    pub fn from_bounds(from: Option<&str>, to: Option<&str>) -> Result<Self, BoundError> {
        let parse = |name, text: Option<&str>, round: fn(Moment, &str) -> _| {
            text.map(|text| Moment::parse(text).and_then(|moment| round(moment, text)))
                .transpose()
                .map_err(|cause| BoundError { name, cause })
        };
        Ok(Self {
            from: parse("from", from, Moment::ceil)?.unwrap_or(TimestampMs::MIN),
            to: parse("to", to, Moment::floor)?.unwrap_or(TimestampMs::MAX),
        })
    }

    /// Whether the moment lies inside.
    #[must_use]
    pub fn contains(self, moment: TimestampMs) -> bool {
        self.from <= moment && moment <= self.to
    }
}

/// A moment with nothing of its text lost.
#[derive(Clone, Copy)]
struct Moment {
    nanoseconds: i128,
    /// Whether digits beyond the nanosecond were not all zero.
    beyond: bool,
}

impl Moment {
    fn parse(text: &str) -> Result<Self, MomentError> {
        let error = || MomentError { text: text.chars().take(64).collect() };
        let (kept, beyond) = cut_fraction(text);
        let timestamp =
            kept.parse::<Timestamp>().ok().or_else(|| in_utc(&kept)).ok_or_else(error)?;
        Ok(Self { nanoseconds: timestamp.as_nanosecond(), beyond })
    }

    fn floor(self, text: &str) -> Result<TimestampMs, MomentError> {
        Self::whole(self.nanoseconds.div_euclid(NANOS_PER_MS), text)
    }

    fn ceil(self, text: &str) -> Result<TimestampMs, MomentError> {
        let floor = self.nanoseconds.div_euclid(NANOS_PER_MS);
        let finer = self.beyond || self.nanoseconds.rem_euclid(NANOS_PER_MS) != 0;
        Self::whole(floor + i128::from(finer), text)
    }

    fn whole(milliseconds: i128, text: &str) -> Result<TimestampMs, MomentError> {
        i64::try_from(milliseconds)
            .ok()
            .and_then(TimestampMs::new)
            .ok_or_else(|| MomentError { text: text.to_owned() })
    }
}

/// The moment of a text that says nothing of a place: the contract's bounds are in UTC, so it is read
/// as UTC. One that does say and was not read as such means something else.
fn in_utc(text: &str) -> Option<Timestamp> {
    let pieces = Pieces::parse(text).ok()?;
    if pieces.offset().is_some() || pieces.time_zone_annotation().is_some() {
        return None;
    }
    let civil = DateTime::from_parts(pieces.date(), pieces.time().unwrap_or(Time::midnight()));
    TimeZone::UTC.to_timestamp(civil).ok()
}

/// Cuts a fraction of a second to the digits that the time library reads, and tells whether any
/// digit cut off was other than zero.
fn cut_fraction(text: &str) -> (String, bool) {
    let Some(point) = text.find(['.', ',']) else {
        return (text.to_owned(), false);
    };
    let digits_start = point + 1;
    let digits_count = text[digits_start..].bytes().take_while(u8::is_ascii_digit).count();
    let digits_end = digits_start + digits_count;
    let kept_end = digits_start + digits_count.min(FRACTION_DIGITS_MAX);
    let beyond = text[kept_end..digits_end].bytes().any(|digit| digit != b'0');
    (format!("{}{}", &text[..kept_end], &text[digits_end..]), beyond)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> TimestampMs {
        text.parse().unwrap()
    }

    #[test]
    fn a_date_is_written_as_http_wants_it() {
        let moment: TimestampMs = "2025-07-15T12:34:56.999Z".parse().unwrap();
        assert_eq!(moment.to_http_date(), "Tue, 15 Jul 2025 12:34:56 GMT");
        assert_eq!(TimestampMs::MIN.to_http_date(), "Sat, 01 Jan 0000 00:00:00 GMT");
        assert_eq!(TimestampMs::MAX.to_http_date(), "Thu, 30 Dec 9999 22:00:00 GMT");
    }

    #[test]
    fn moments_are_read_with_any_offset_and_printed_in_utc() {
        let noon = at("2025-07-15T12:00:00.000Z");
        assert_eq!(noon.to_string(), "2025-07-15T12:00:00.000Z");
        for text in [
            "2025-07-15T12:00:00Z",
            "2025-07-15t12:00:00z",
            "2025-07-15T12:00:00",
            "2025-07-15 12:00:00+00:00",
            "2025-07-15T09:00:00-03:00",
            "2025-07-15T09:00:00.000000000000-03:00",
            "20250715T120000Z",
            "2025-07-15T17:30:00,0+05:30",
        ] {
            assert_eq!(at(text), noon, "{text}");
        }
        assert_eq!(at("1969-12-31T23:59:59.9999Z").get(), -1);
    }

    #[test]
    fn what_is_no_moment_is_refused_with_its_text() {
        for text in
            ["", "now", "2025-13-01T00:00:00Z", "2025-02-30T00:00:00Z", "12:00", "1752580800"]
        {
            let error = text.parse::<TimestampMs>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    /// Found by fuzzing: where the moment was out of range, or a zone had no offset beside it, the
    /// text was read as if it were in UTC.
    #[test]
    fn an_offset_or_a_zone_is_never_passed_over() {
        assert_eq!(at("9999-12-30T22:00:00"), TimestampMs::MAX);
        for text in [
            "9999-12-30T21:00:00-02:00",
            "9999-12-30T15:32:35-23",
            "0000-01-01T00:00:00+01:00",
            "2025-07-15T12:00:00[Europe/Rome]",
            "2025-07-15T12:00:00[+02:00]",
        ] {
            assert!(text.parse::<TimestampMs>().is_err(), "{text}");
        }
    }

    #[test]
    fn both_bounds_are_inclusive_and_a_finer_one_keeps_its_meaning() {
        let payment = at("2025-07-15T12:00:00.123Z");
        let inside = |from: Option<&str>, to: Option<&str>| {
            RangeMs::from_bounds(from, to).unwrap().contains(payment)
        };
        assert!(inside(Some("2025-07-15T12:00:00.123Z"), Some("2025-07-15T12:00:00.123Z")));
        assert!(inside(Some("2025-07-15T12:00:00.1229Z"), None));
        assert!(!inside(Some("2025-07-15T12:00:00.1231Z"), None));
        assert!(!inside(Some("2025-07-15T12:00:00.1230000000001Z"), None));
        assert!(inside(Some("2025-07-15T12:00:00.1230000000000Z"), None));
        assert!(inside(None, Some("2025-07-15T12:00:00.1230001Z")));
        assert!(!inside(None, Some("2025-07-15T12:00:00.1229999Z")));
        assert!(inside(None, None));
        assert!(!inside(Some("2025-07-15T12:00:01Z"), Some("2025-07-15T12:00:00Z")));
    }

    #[test]
    fn a_bad_bound_is_named() {
        let error = RangeMs::from_bounds(Some("yesterday"), None).unwrap_err();
        assert!(error.to_string().starts_with("from: \"yesterday\" is not"), "{error}");
        let error = RangeMs::from_bounds(None, Some("x")).unwrap_err();
        assert!(error.to_string().starts_with("to: "), "{error}");
    }

    #[test]
    fn the_ends_of_time_have_a_date() {
        assert_eq!(TimestampMs::MIN.to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(TimestampMs::MAX.to_string(), "9999-12-30T22:00:00.000Z");
        assert_eq!(TimestampMs::new(TimestampMs::MAX.get() + 1), None);
        assert_eq!(TimestampMs::new(i64::MIN), None);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_what_is_read(ms in TimestampMs::MIN.get()..=TimestampMs::MAX.get()) {
            let moment = TimestampMs::new(ms).unwrap();
            prop_assert_eq!(at(&moment.to_string()), moment);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<TimestampMs>();
            let _ = RangeMs::from_bounds(Some(&text), Some(&text));
        }
    }
}
