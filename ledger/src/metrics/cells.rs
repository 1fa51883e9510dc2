//! What is counted while a daemon works. To count costs an addition in memory, and a few comparisons
//! for a duration.

use std::cell::Cell;

/// The number of bounds that a histogram has besides infinity.
pub const BOUNDS_COUNT: usize = 12;

/// The bounds of a histogram, in microseconds, each above the one before.
pub type Bounds = [u64; BOUNDS_COUNT];

/// Counts what happens.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Counts one.
    pub fn add_one(&self) {
        self.add(1);
    }

    /// Counts so many.
    pub fn add(&self, count: u64) {
        self.0.set(self.0.get().wrapping_add(count));
    }

    /// How many were counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Counts durations by how long they are.
#[derive(Debug)]
pub struct Histogram {
    bounds_us: &'static Bounds,
    /// By the first bound that a duration does not exceed; those above all bounds last.
    counts: [Cell<u64>; BOUNDS_COUNT + 1],
    sum_us: Cell<u64>,
}

/// What a histogram has counted up to a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spread {
    /// The bounds, in microseconds.
    pub bounds_us: &'static Bounds,
    /// Durations that do not exceed each bound and exceed the one before; those above all bounds last.
    pub counts: [u64; BOUNDS_COUNT + 1],
    /// All durations together, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// A histogram with these bounds that has counted nothing.
    #[must_use]
    pub fn new(bounds_us: &'static Bounds) -> Self {
        Self { bounds_us, counts: Default::default(), sum_us: Cell::new(0) }
    }

    /// Counts a duration.
    pub fn observe_us(&self, duration_us: u64) {
        let place = self.bounds_us.partition_point(|bound_us| *bound_us < duration_us);
        let count = &self.counts[place];
        count.set(count.get() + 1);
        self.sum_us.set(self.sum_us.get().wrapping_add(duration_us));
    }

    /// What was counted so far.
    #[must_use]
    pub fn spread(&self) -> Spread {
        Spread {
            bounds_us: self.bounds_us,
            counts: self.counts.each_ref().map(Cell::get),
            sum_us: self.sum_us.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_under_the_first_bound_that_it_does_not_exceed() {
        let histogram = Histogram::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100, 1000]);
        for duration_us in [0, 1, 2, 11, 100, 101, 1000, 1001, 5000] {
            histogram.observe_us(duration_us);
        }
        let spread = histogram.spread();
        assert_eq!(spread.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2]);
        assert_eq!(spread.sum_us, 7216);
    }
}
