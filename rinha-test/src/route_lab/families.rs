//! The families of traces: the public rehearsal, and seeded ones for every kind of trouble.

use std::time::Duration;

use super::trace::{Condition, Micros, SECOND, Timeline, Trace, constant, ramp};

/// The fees of the rehearsal, in basis points.
pub const FEES: [u32; 2] = [500, 1500];

/// A kind of trouble.
#[derive(Clone, Copy)]
pub struct Family {
    /// Its name in tables.
    pub name: &'static str,
    /// What happens, in a sentence.
    pub about: &'static str,
    /// Makes a trace of it.
    pub make: fn(&mut fastrand::Rng) -> Trace,
}

const UP: Condition = Condition::UP;
const DOWN: Condition = Condition::DOWN;
const MINUTE: Micros = 60 * SECOND;

/// All families, the rehearsal first.
pub const FAMILIES: &[Family] = &[
    Family { name: "rehearsal", about: "the contest's public test", make: |_| rehearsal() },
    Family {
        name: "default-short",
        about: "default goes down for about 1 s at a time",
        make: |random| outages(random, [Some((4.0, 1.0)), None]),
    },
    Family {
        name: "default-medium",
        about: "default goes down for about 5 s at a time",
        make: |random| outages(random, [Some((12.0, 5.0)), None]),
    },
    Family {
        name: "default-long",
        about: "default goes down for about 20 s at a time",
        make: |random| outages(random, [Some((20.0, 20.0)), None]),
    },
    Family {
        name: "both-short",
        about: "both go down for about 1 s at a time, each on its own",
        make: |random| outages(random, [Some((4.0, 1.0)), Some((4.0, 1.0))]),
    },
    Family {
        name: "both-medium",
        about: "both go down for about 5 s at a time, each on its own",
        make: |random| outages(random, [Some((12.0, 5.0)), Some((12.0, 5.0))]),
    },
    Family {
        name: "both-long",
        about: "both go down for about 20 s at a time, each on its own",
        make: |random| outages(random, [Some((20.0, 20.0)), Some((20.0, 20.0))]),
    },
    Family {
        name: "flapping",
        about: "default is up for a second and down for a second",
        make: |random| {
            let offset = random.u64(..SECOND);
            let default = (0..30).fold(Timeline::always(UP), |line, number| {
                let down = offset + 2 * number * SECOND;
                line.then(down, DOWN).then(down + SECOND, UP)
            });
            minute([default, Timeline::always(UP)])
        },
    },
    Family {
        name: "down-to-the-end",
        about: "default goes down for good, at some moment",
        make: |random| {
            let at = random.u64(5 * SECOND..55 * SECOND);
            minute([Timeline::always(UP).then(at, DOWN), Timeline::always(UP)])
        },
    },
    Family {
        name: "fallback-down-default-slow",
        about: "fallback is down while default takes 1 to 3 s",
        make: |random| {
            let (from, to) = span(random, 10, 30);
            let slow = UP.after(random.u64(1000..3000));
            minute([
                Timeline::always(UP).between(from, to, slow),
                Timeline::always(UP).between(from, to, DOWN),
            ])
        },
    },
    Family { name: "slow-100-ms", about: "default takes 100 ms", make: |r| slow(r, 100) },
    Family { name: "slow-500-ms", about: "default takes 500 ms", make: |r| slow(r, 500) },
    Family { name: "slow-1-s", about: "default takes 1 s", make: |r| slow(r, 1000) },
    Family { name: "slow-2-s", about: "default takes 2 s for a while", make: |r| slow(r, 2000) },
    Family { name: "slow-5-s", about: "default takes 5 s for a while", make: |r| slow(r, 5000) },
    Family {
        name: "slow-long",
        about: "default takes 0.1 to 3 s for minutes; the contest's final was like this",
        make: |random| {
            let (from, to) = (random.u64(..60 * SECOND), random.u64(150 * SECOND..280 * SECOND));
            let delay_ms = random.u64(100..3000);
            Trace {
                arrivals: ramp(5 * MINUTE, 600),
                duration: 5 * MINUTE,
                timelines: [
                    Timeline::always(UP).between(from, to, UP.after(delay_ms)),
                    Timeline::always(UP),
                ],
                fees_bp: FEES,
            }
        },
    },
    Family {
        name: "slower-and-slower",
        about: "default's delay grows from 0 to 4 s",
        make: |random| {
            let (from, to) = span(random, 20, 40);
            let default = (0..40).fold(Timeline::always(UP), |line, step| {
                line.then(from + (to - from) * step / 40, UP.after(step * 100))
            });
            minute([default.then(to, UP), Timeline::always(UP)])
        },
    },
    Family { name: "errors-1", about: "1 % of default's answers are 500", make: |r| errors(r, 1) },
    Family {
        name: "errors-10",
        about: "10 % of default's answers are 500",
        make: |r| errors(r, 10),
    },
    Family {
        name: "errors-50",
        about: "half of default's answers are 500",
        make: |r| errors(r, 50),
    },
    Family {
        name: "too-many",
        about: "default answers 429 beyond 10 payments at a time",
        make: |random| {
            let (from, to) = span(random, 10, 40);
            let narrow = Condition { running_max: 10, waiting_max: 0, ..UP.after(20) };
            minute([Timeline::always(UP).between(from, to, narrow), Timeline::always(UP)])
        },
    },
    Family {
        name: "back-for-2-s",
        about: "in a long outage default comes back for 2 s",
        make: |random| {
            let (from, to) = span(random, 25, 40);
            let back = random.u64(from + 5 * SECOND..to - 5 * SECOND);
            let default = Timeline::always(UP).then(from, DOWN).then(back, UP);
            minute([default.then(back + 2 * SECOND, DOWN).then(to, UP), Timeline::always(UP)])
        },
    },
    Family {
        name: "both-down-then-up",
        about: "both are down for 5 to 25 s and come back together",
        make: |random| {
            let (from, to) = span(random, 5, 25);
            let down = DOWN.after(random.u64(..500));
            let line = || Timeline::always(UP).between(from, to, down).then(to, UP.after(20));
            minute([line(), line()])
        },
    },
    Family {
        name: "refuses",
        about: "nobody listens at default for about 5 s at a time",
        make: |random| {
            let refuses = Condition { refuses: true, ..UP };
            let mut trace = outages(random, [None, None]);
            trace.timelines[0] = alternate(random, (12.0, 5.0), refuses, trace.duration);
            trace
        },
    },
    Family {
        name: "burst",
        about: "bursts of 3,000 payments, and default goes down for about 5 s at a time",
        make: |random| {
            let mut trace = outages(random, [Some((12.0, 5.0)), None]);
            let mut arrivals = constant(MINUTE, 50);
            for _ in 0..4 {
                let at = random.u64(..55 * SECOND);
                arrivals.extend(constant(SECOND, 3000).into_iter().map(|offset| at + offset));
            }
            arrivals.sort_unstable();
            trace.arrivals = arrivals;
            trace
        },
    },
    Family {
        name: "ramp-300",
        about: "five minutes of growing load, and both go down for about 8 s at a time",
        make: |random| {
            let mut trace = outages(random, [Some((30.0, 8.0)), Some((30.0, 8.0))]);
            trace.arrivals = ramp(5 * MINUTE, 600);
            trace.duration = 5 * MINUTE;
            for line in &mut trace.timelines {
                *line = alternate(random, (30.0, 8.0), DOWN, 5 * MINUTE);
            }
            trace
        },
    },
    Family {
        name: "fees-7-10",
        about: "as default-medium, with fees of 7 and 10 %",
        make: |random| {
            let trace = outages(random, [Some((12.0, 5.0)), None]);
            Trace { fees_bp: [700, 1000], ..trace }
        },
    },
    Family {
        name: "fees-1-30",
        about: "as default-medium, with fees of 1 and 30 %",
        make: |random| {
            let trace = outages(random, [Some((12.0, 5.0)), None]);
            Trace { fees_bp: [100, 3000], ..trace }
        },
    },
    Family {
        name: "quiet",
        about: "nothing goes wrong",
        make: |_| minute([Timeline::always(UP), Timeline::always(UP)]),
    },
];

/// A minute of the contest's load.
fn minute(timelines: [Timeline; 2]) -> Trace {
    Trace { arrivals: ramp(MINUTE, 550), duration: MINUTE, timelines, fees_bp: FEES }
}

/// The public rehearsal of the contest, stage by stage.
#[must_use]
pub fn rehearsal() -> Trace {
    let at = |second: u64| second * SECOND;
    minute([
        Timeline::always(UP)
            .then(at(10), UP.after(100))
            .then(at(20), DOWN.after(100))
            .then(at(30), DOWN.after(2000))
            .then(at(40), UP.after(20))
            .then(at(50), UP),
        Timeline::always(UP)
            .then(at(30), DOWN.after(1000))
            .then(at(40), UP.after(20))
            .then(at(50), UP.after(5000)),
    ])
}

/// Outages of random length at random moments: by processor, the mean seconds of being up and down.
fn outages(random: &mut fastrand::Rng, means: [Option<(f64, f64)>; 2]) -> Trace {
    let timelines = means.map(|means| match means {
        Some(means) => {
            let down = DOWN.after(*[0, 0, 20, 100, 1000].get(random.usize(..5)).unwrap_or(&0));
            alternate(random, means, down, MINUTE)
        }
        None => Timeline::always(UP),
    });
    if random.bool() {
        return minute(timelines);
    }
    let arrivals = constant(MINUTE, 300);
    Trace { arrivals, duration: MINUTE, timelines, fees_bp: FEES }
}

/// Up and in trouble in turn, each for a random time with these means in seconds.
fn alternate(
    random: &mut fastrand::Rng,
    (up, down): (f64, f64),
    trouble: Condition,
    duration: Micros,
) -> Timeline {
    let mut line = Timeline::always(UP);
    let mut at = 0;
    while at < duration {
        at += exponential(random, up);
        line = line.then(at, trouble);
        at += exponential(random, down);
        line = line.then(at, UP);
    }
    line
}

fn exponential(random: &mut fastrand::Rng, mean_seconds: f64) -> Micros {
    let seconds = -mean_seconds * (1.0 - random.f64()).ln();
    // At least 50 ms, so that no change comes at the moment of another.
    let micros = Duration::from_secs_f64(seconds.clamp(0.05, 600.0)).as_micros();
    Micros::try_from(micros).unwrap_or(Micros::MAX)
}

/// A span of so many seconds somewhere in a minute.
fn span(random: &mut fastrand::Rng, least: u64, most: u64) -> (Micros, Micros) {
    let length = random.u64(least * SECOND..most * SECOND);
    let from = random.u64(2 * SECOND..MINUTE - length);
    (from, from + length)
}

fn slow(random: &mut fastrand::Rng, delay_ms: u64) -> Trace {
    let (from, to) = span(random, 5, 40);
    minute([Timeline::always(UP).between(from, to, UP.after(delay_ms)), Timeline::always(UP)])
}

fn errors(random: &mut fastrand::Rng, errors_percent: u8) -> Trace {
    let (from, to) = span(random, 20, 50);
    let delay_ms = random.u64(..100);
    let errors = Condition { errors_percent, ..UP.after(delay_ms) };
    minute([Timeline::always(UP).between(from, to, errors), Timeline::always(UP)])
}
