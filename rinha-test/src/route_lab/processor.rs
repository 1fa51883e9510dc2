//! A processor of the laboratory: what the contest's processor does with a payment, in its order: the
//! limit, the delay, the failure flag, the record.

use std::collections::VecDeque;

use super::trace::{Condition, MS, Micros, Timeline};

/// What a processor does with a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrived {
    /// It begins, and ends at this moment.
    Running(Micros),
    /// It waits until another one ends.
    Waiting,
    /// The answer is `429`.
    Rejected,
    /// There is no connection.
    Refused,
}

/// A processor.
pub struct SimProcessor<'a> {
    timeline: &'a Timeline,
    random: fastrand::Rng,
    running: u32,
    /// Calls that wait for others to end, in order.
    waiting: VecDeque<u32>,
}

/// How long a payment without a delay takes.
const SERVICE: Micros = MS / 5;

impl<'a> SimProcessor<'a> {
    /// One that behaves as the timeline says.
    pub fn new(timeline: &'a Timeline, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { timeline, random, running: 0, waiting: VecDeque::new() }
    }

    /// How it behaves at a moment.
    pub fn condition(&self, now: Micros) -> Condition {
        self.timeline.at(now)
    }

    /// A call arrives.
    pub fn arrive(&mut self, now: Micros, call: u32) -> Arrived {
        let condition = self.condition(now);
        if condition.refuses {
            return Arrived::Refused;
        }
        if self.running < condition.running_max {
            self.running += 1;
            return Arrived::Running(now + condition.delay_ms * MS + SERVICE);
        }
        if self.waiting.len() < condition.waiting_max as usize {
            self.waiting.push_back(call);
            return Arrived::Waiting;
        }
        Arrived::Rejected
    }

    /// A running call ends. Tells whether the payment can be recorded, and which call begins now and
    /// when that ends.
    pub fn end(&mut self, now: Micros) -> (bool, Option<(u32, Micros)>) {
        let condition = self.condition(now);
        self.running -= 1;
        let mut next = None;
        if self.running < condition.running_max
            && let Some(call) = self.waiting.pop_front()
        {
            self.running += 1;
            next = Some((call, now + condition.delay_ms * MS + SERVICE));
        }
        let succeeds = self.random.u8(..100) >= condition.errors_percent;
        (succeeds, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route_lab::trace::SECOND;

    #[test]
    fn a_call_runs_waits_or_is_rejected() {
        let narrow = Condition { running_max: 1, waiting_max: 1, ..Condition::UP.after(10) };
        let timeline = Timeline::always(narrow);
        let mut processor = SimProcessor::new(&timeline, 1);
        assert_eq!(processor.arrive(0, 1), Arrived::Running(10 * MS + SERVICE));
        assert_eq!(processor.arrive(0, 2), Arrived::Waiting);
        assert_eq!(processor.arrive(0, 3), Arrived::Rejected);
        let end = 10 * MS + SERVICE;
        assert_eq!(processor.end(end), (true, Some((2, 2 * end))));
        assert_eq!(processor.end(2 * end), (true, None));
    }

    #[test]
    fn the_failure_flag_counts_at_the_end_of_the_delay() {
        let timeline =
            Timeline::always(Condition::UP.after(1000)).then(SECOND / 2, Condition::DOWN);
        let mut processor = SimProcessor::new(&timeline, 1);
        assert_eq!(processor.arrive(0, 1), Arrived::Running(SECOND + SERVICE));
        assert_eq!(processor.end(SECOND + SERVICE), (false, None));
    }
}
