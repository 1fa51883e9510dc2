//! What happens to the router in one run: when payments arrive, and how each processor behaves when.

/// A moment of a run in microseconds since its begin.
pub type Micros = u64;

/// Microseconds of a millisecond.
pub const MS: Micros = 1_000;
/// Microseconds of a second.
pub const SECOND: Micros = 1_000_000;

/// How a processor behaves for a while.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Condition {
    /// How long a payment takes, in milliseconds.
    pub delay_ms: u64,
    /// Of how many payments in a hundred the processor says `500` after the delay.
    pub errors_percent: u8,
    /// Whether it accepts no connections.
    pub refuses: bool,
    /// Payments at a time.
    pub running_max: u32,
    /// Payments that wait to be among them; beyond that the answer is `429`.
    pub waiting_max: u32,
}

impl Condition {
    /// Up, without a delay, with the limits of the contest's processors.
    pub const UP: Self =
        Self { delay_ms: 0, errors_percent: 0, refuses: false, running_max: 800, waiting_max: 500 };

    /// Every payment fails.
    pub const DOWN: Self = Self { errors_percent: 100, ..Self::UP };

    /// This, with another delay.
    #[must_use]
    pub const fn after(self, delay_ms: u64) -> Self {
        Self { delay_ms, ..self }
    }

    /// Whether no payment succeeds.
    #[must_use]
    pub const fn is_down(&self) -> bool {
        self.refuses
            || self.errors_percent >= 100
            || (self.running_max == 0 && self.waiting_max == 0)
    }
}

/// How a processor behaves over a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Timeline {
    /// From which moment on it behaves how; the first one is 0.
    changes: Vec<(Micros, Condition)>,
}

impl Timeline {
    /// The same all the time.
    #[must_use]
    pub fn always(condition: Condition) -> Self {
        Self { changes: vec![(0, condition)] }
    }

    /// From this moment on another condition; what was to come later is dropped.
    #[must_use]
    pub fn then(mut self, at: Micros, condition: Condition) -> Self {
        self.changes.retain(|(before, _)| *before < at);
        self.changes.push((at, condition));
        self
    }

    /// Another condition between two moments, and after them what it was before.
    #[must_use]
    pub fn between(self, from: Micros, to: Micros, condition: Condition) -> Self {
        let before = self.at(from);
        self.then(from, condition).then(to, before)
    }

    /// The condition at a moment.
    #[must_use]
    pub fn at(&self, at: Micros) -> Condition {
        let next = self.changes.partition_point(|(from, _)| *from <= at);
        self.changes[next.saturating_sub(1)].1
    }

    /// The moments of change, and what follows each.
    #[must_use]
    pub fn changes(&self) -> &[(Micros, Condition)] {
        &self.changes
    }

    /// From when to when each condition holds, up to the end of the run.
    pub fn spans(&self, end: Micros) -> impl Iterator<Item = (Micros, Micros, Condition)> + '_ {
        let ends = self.changes.iter().skip(1).map(|(at, _)| *at).chain([end]);
        self.changes.iter().zip(ends).map(|((from, condition), to)| (*from, to, *condition))
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Trace {
    /// When each payment arrives, in order.
    pub arrivals: Vec<Micros>,
    /// When the last payment can arrive.
    pub duration: Micros,
    /// By [`ledger::Processor::index`].
    pub timelines: [Timeline; 2],
    /// By [`ledger::Processor::index`], in basis points.
    pub fees_bp: [u32; 2],
}

impl Trace {
    /// When the books are closed: the last users of the contest's test sleep a second after their last
    /// payment, and only then everything is summed.
    #[must_use]
    pub fn end(&self) -> Micros {
        self.duration + SECOND
    }
}

/// Users of whom one more begins in equal steps until there are `users_max`; each posts, and again a
/// second after its answer.
#[must_use]
pub fn ramp(duration: Micros, users_max: u64) -> Vec<Micros> {
    const PERIOD: Micros = SECOND + MS;
    let of_user = |user| {
        let first = user * duration / users_max;
        (0..).map(move |number| first + number * PERIOD).take_while(move |at| *at < duration)
    };
    let mut arrivals: Vec<Micros> = (0..users_max).flat_map(of_user).collect();
    arrivals.sort_unstable();
    arrivals
}

/// The same number in every second.
#[must_use]
pub fn constant(duration: Micros, per_second: u64) -> Vec<Micros> {
    (0..duration * per_second / SECOND).map(|number| number * SECOND / per_second).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_lasts_until_the_next_change() {
        let line = Timeline::always(Condition::UP)
            .between(2 * SECOND, 3 * SECOND, Condition::DOWN)
            .then(5 * SECOND, Condition::UP.after(7));
        assert_eq!(line.at(0), Condition::UP);
        assert_eq!(line.at(2 * SECOND), Condition::DOWN);
        assert_eq!(line.at(3 * SECOND), Condition::UP);
        assert_eq!(line.at(9 * SECOND).delay_ms, 7);
        let spans: Vec<_> = line.spans(6 * SECOND).map(|(from, to, _)| (from, to)).collect();
        let seconds = |second: u64| second * SECOND;
        assert_eq!(
            spans,
            [(0, 2), (2, 3), (3, 5), (5, 6)].map(|(from, to)| (seconds(from), seconds(to)))
        );
    }

    #[test]
    fn the_contests_ramp_posts_as_many_payments_as_the_contest() {
        let arrivals = ramp(60 * SECOND, 550);
        assert!((16_600..16_900).contains(&arrivals.len()), "{}", arrivals.len());
        assert!(arrivals.is_sorted());
        assert!(arrivals.last().is_some_and(|last| *last < 60 * SECOND));
    }

    #[test]
    fn a_constant_load_is_constant() {
        let arrivals = constant(2 * SECOND, 300);
        assert_eq!(arrivals.len(), 600);
        assert_eq!(arrivals.iter().filter(|at| **at < SECOND).count(), 300);
    }
}
