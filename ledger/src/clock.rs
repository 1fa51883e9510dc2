//! The only module that reads the clock. All that decides is given the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::TimestampMs;

/// The time of day, by the machine's clock, which may step in either direction.
#[allow(clippy::disallowed_methods)]
#[must_use]
pub fn now() -> TimestampMs {
    let milliseconds = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    };
    TimestampMs::clamped(milliseconds)
}

/// Later than anything that is waited for.
const FAR: Duration = Duration::from_hours(24 * 365 * 100);

/// A clock that never goes back, for durations and deadlines.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic {
    start: Instant,
}

impl Monotonic {
    /// A clock that begins at zero now.
    #[allow(clippy::disallowed_methods)]
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// What has passed since the clock began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whole milliseconds since the clock began.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment so many milliseconds after the clock began.
    #[must_use]
    pub fn at_ms(&self, ms: u64) -> Instant {
        // Longer than any process lives is all the same.
        self.start + Duration::from_millis(ms).min(FAR)
    }

    /// Whole microseconds since the clock began.
    #[must_use]
    pub fn elapsed_us(&self) -> u64 {
        u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
