//! How payments come in, and whether they have stopped.

/// The longest gap between two payments is forgotten in about this time.
const MEMORY_MS: f64 = 10_000.0;
/// So many times the longest gap without a payment is quiet.
const QUIET_GAPS: f64 = 2.0;
/// The shortest quiet.
const QUIET_MS_MIN: u64 = 150;
/// What the longest gap is taken for before there was any, in milliseconds.
const GAP_MS_PRIOR: f64 = 15_000.0;

/// The load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    last_ms: u64,
    /// The longest of the last gaps. The mean would not do: users who wait for each other post at the
    /// same moments, with long gaps in between.
    gap_ms_max: f64,
}

impl Load {
    /// Nothing came in yet.
    pub fn new() -> Self {
        Self { last_ms: 0, gap_ms_max: GAP_MS_PRIOR }
    }

    /// A payment came in.
    pub fn arrived(&mut self, now_ms: u64) {
        let gap_ms = super::float(now_ms.saturating_sub(self.last_ms));
        // As good as an exponential while gaps are far shorter than that, whose code and tables would have to be fetched for each payment.
        self.gap_ms_max = (self.gap_ms_max * (MEMORY_MS / (MEMORY_MS + gap_ms))).max(gap_ms);
        self.last_ms = now_ms;
    }

    /// From when on it is quiet if no payment comes in before.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A small positive number.
    pub fn quiet_from_ms(&self) -> u64 {
        let pause_ms = ((self.gap_ms_max * QUIET_GAPS) as u64).max(QUIET_MS_MIN);
        self.last_ms.saturating_add(pause_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_quiet_after_twice_the_longest_of_the_last_gaps() {
        let mut load = Load::new();
        for number in 0..100 {
            load.arrived(number * 1000);
            load.arrived(number * 1000 + 100);
        }
        let quiet_from_ms = load.quiet_from_ms();
        assert!((99_100 + 1_750..99_100 + 1_800).contains(&quiet_from_ms), "{quiet_from_ms}");
    }

    #[test]
    fn a_dense_load_is_quiet_no_sooner_than_after_the_shortest_quiet() {
        let mut load = Load::new();
        for number in 0..100_000 {
            load.arrived(number);
        }
        assert_eq!(load.quiet_from_ms(), 99_999 + QUIET_MS_MIN);
    }

    #[test]
    fn before_there_is_a_load_nothing_is_quiet_soon() {
        let mut load = Load::new();
        load.arrived(5);
        assert!(load.quiet_from_ms() > 20_000);
    }
}
