//! How long to wait before a process that died is started again.

use std::time::Duration;

/// The pause after the first death.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// The longest pause.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A process that lived this long is healthy: its next death counts as the first.
pub const BACKOFF_RESET: Duration = Duration::from_secs(10);

/// The pauses of one process: each twice the one before, up to a limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    deaths: u32,
}

impl Backoff {
    /// Counts a death after this long a life, and gives the pause before the next start.
    pub fn died_after(&mut self, life: Duration) -> Duration {
        if life >= BACKOFF_RESET {
            self.deaths = 0;
        }
        let pause = 2_u32
            .checked_pow(self.deaths)
            .and_then(|factor| BACKOFF_MIN.checked_mul(factor))
            .map_or(BACKOFF_MAX, |pause| pause.min(BACKOFF_MAX));
        self.deaths = self.deaths.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(3);

    fn pauses_ms(backoff: &mut Backoff, lives: &[Duration]) -> Vec<u128> {
        lives.iter().map(|life| backoff.died_after(*life).as_millis()).collect()
    }

    #[test]
    fn the_pause_doubles_up_to_the_limit() {
        assert_eq!(
            pauses_ms(&mut Backoff::default(), &[SHORT; 8]),
            [100, 200, 400, 800, 1600, 3200, 5000, 5000]
        );
    }

    #[test]
    fn a_long_life_starts_over_and_a_shorter_one_does_not() {
        let almost = BACKOFF_RESET.saturating_sub(Duration::from_millis(1));
        let mut backoff = Backoff::default();
        assert_eq!(
            pauses_ms(&mut backoff, &[SHORT, SHORT, almost, BACKOFF_RESET, SHORT]),
            [100, 200, 400, 100, 200]
        );
    }

    #[test]
    fn any_number_of_deaths_keeps_to_the_limit() {
        let mut backoff = Backoff { deaths: u32::MAX };
        assert_eq!(pauses_ms(&mut backoff, &[SHORT; 2]), [5000, 5000]);
    }
}
