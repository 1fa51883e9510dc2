//! A run as a picture: a page of SVG with the processors' states, the backlog, where payments went, and
//! the money over time, ours against the bound.

use std::fmt::Write as _;

use super::run::Outcomes;
use super::score::{clairvoyant_value, worth};
use super::trace::{Condition, MS, Micros, SECOND, Trace};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 110.0;
const BAND: f64 = 26.0;
const CHART: f64 = 150.0;
const STEPS: u64 = 600;

const PAGE_STYLE: &str = "
body{font:14px system-ui,sans-serif;max-width:1120px;margin:2em auto;padding:0 1em;
 color:#222;background:#fff}
svg{width:100%;height:auto}td{padding:0 1em 0 0;vertical-align:top}
@media (prefers-color-scheme:dark){body{color:#ddd;background:#181818}}";

const STYLE: &str = "
text{font:12px system-ui,sans-serif;fill:#555}
.up{fill:#bfe0bf}.slow{fill:#f0d488}.down{fill:#e59a97}rect+text,.words{fill:#222}
.axis{stroke:#999;stroke-width:1;fill:none}
.default{stroke:#2f7fc2;fill:none;stroke-width:2}.fallback{stroke:#d2672a;fill:none;stroke-width:2}
.backlog{stroke:#8a5fb3;fill:none;stroke-width:2}
.best{stroke:#999;fill:none;stroke-width:2;stroke-dasharray:5 4}
@media (prefers-color-scheme:dark){text{fill:#aaa}}";

/// The page of a run.
#[must_use]
pub fn page(name: &str, about: &str, seed: u64, trace: &Trace, outcomes: &Outcomes) -> String {
    let mut rows = String::new();
    for (at, reason) in &outcomes.reasons {
        let _ = write!(rows, "<tr><td>{} ms</td><td>{reason}</td></tr>", at / MS);
    }
    let svg = svg(trace, outcomes);
    format!(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{name}</title>\
         <meta name='viewport' content='width=device-width'><style>{PAGE_STYLE}</style></head>\
         <body><h1>{name}, seed {seed}</h1><p>{about}. Blue: default, and what the router earned; \
         orange: fallback; dashed: what someone would earn who knew the trace.</p>{svg}\
         <h2>Changes of mind of the first instance</h2><table>{rows}</table></body></html>\n"
    )
}

/// The picture of a run.
#[must_use]
pub fn svg(trace: &Trace, outcomes: &Outcomes) -> String {
    let mut body = String::new();
    let mut top = 0.0;
    for (name, timeline) in ["default", "fallback"].into_iter().zip(&trace.timelines) {
        label(&mut body, top + BAND * 0.7, name);
        for (from, to, condition) in timeline.spans(trace.end()) {
            band(&mut body, top, [x(trace, from), x(trace, to)], &condition);
        }
        top += BAND + 4.0;
    }
    let series = Series::of(trace, outcomes);
    let [to_default, to_fallback] = &series.calls;
    let mut draw = |title, lines: &[Line]| {
        top += 24.0;
        chart(&mut body, top, title, lines);
        top += CHART;
    };
    draw("calls per second", &[("default", to_default), ("fallback", to_fallback)]);
    draw("unsettled", &[("backlog", &series.backlog)]);
    draw("earned", &[("best", &series.best), ("default", &series.earned)]);
    let step = if trace.duration > 100 * SECOND { 30 } else { 5 };
    for second in (0..=trace.end() / SECOND).step_by(step) {
        let at = x(trace, second * SECOND);
        let _ = write!(body, "<text x='{at:.1}' y='{:.1}'>{second} s</text>", top + 18.0);
    }
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {} {}' role='img' \
         aria-label='the run over time'><style>{STYLE}</style>{body}</svg>\n",
        LEFT + WIDTH + 10.0,
        top + 26.0
    )
}

/// How a processor behaves from one place to another.
fn band(body: &mut String, top: f64, [from, to]: [f64; 2], condition: &Condition) {
    let (class, words) = describe(condition);
    let width = to - from;
    let _ = write!(
        body,
        "<rect class='{class}' x='{from:.1}' y='{top}' width='{width:.1}' height='{BAND}'>\
         <title>{words}</title></rect>"
    );
    if width > 7.0 * f64::from(u32::try_from(words.len()).unwrap_or(u32::MAX)) {
        let (x, y) = (from + 4.0, top + BAND * 0.7);
        let _ = write!(body, "<text class='words' x='{x:.1}' y='{y:.1}'>{words}</text>");
    }
}

/// What is drawn, at equal steps over the run.
struct Series {
    calls: [Vec<f64>; 2],
    backlog: Vec<f64>,
    earned: Vec<f64>,
    best: Vec<f64>,
}

impl Series {
    fn of(trace: &Trace, outcomes: &Outcomes) -> Self {
        let steps = usize::try_from(STEPS).unwrap_or(0) + 1;
        let zeros = || vec![0.0; steps];
        let mut series =
            Self { calls: [zeros(), zeros()], backlog: zeros(), earned: zeros(), best: zeros() };
        let step =
            |at: Micros| usize::try_from(at * STEPS / trace.end()).unwrap_or(0).min(steps - 1);
        for call in &outcomes.calls {
            series.calls[call.processor.index()][step(call.at)] +=
                ratio(STEPS) / ratio(trace.end() / MS) * 1000.0;
        }
        for fate in &outcomes.fates {
            series.backlog[step(fate.arrived)] += 1.0;
            series.best[step(fate.arrived)] += clairvoyant_value(trace, fate.arrived);
            if let (Some(settled), Some((_, processor))) = (fate.settled, fate.recorded) {
                series.backlog[step(settled)] -= 1.0;
                let mut one = [0; 2];
                one[processor.index()] = 1;
                series.earned[step(settled)] += worth(trace, one);
            }
        }
        for line in [&mut series.backlog, &mut series.earned, &mut series.best] {
            let mut sum = 0.0;
            for value in line.iter_mut() {
                sum += *value;
                *value = sum;
            }
        }
        series
    }
}

/// A line's class and values.
type Line<'a> = (&'a str, &'a [f64]);

fn chart(body: &mut String, top: f64, title: &str, lines: &[Line]) {
    let most = lines.iter().flat_map(|(_, values)| values.iter().copied()).fold(1.0, f64::max);
    label(body, top + 14.0, title);
    label(body, top + 30.0, &format!("0 to {most:.0}"));
    let _ = write!(
        body,
        "<path class='axis' d='M{LEFT} {top}V{:.1}H{:.1}'/>",
        top + CHART,
        LEFT + WIDTH
    );
    for (class, values) in lines {
        let mut path = String::new();
        for (value, number) in values.iter().zip(0_u32..) {
            let x = LEFT + WIDTH * f64::from(number) / ratio(STEPS);
            let y = top + CHART * (1.0 - value / most);
            let _ = write!(path, "{}{x:.1} {y:.1}", if number == 0 { "M" } else { "L" });
        }
        let _ = write!(body, "<path class='{class}' d='{path}'/>");
    }
}

fn label(body: &mut String, y: f64, text: &str) {
    let _ = write!(body, "<text x='0' y='{y:.1}'>{text}</text>");
}

fn describe(condition: &Condition) -> (&'static str, String) {
    let delay = condition.delay_ms;
    if condition.refuses {
        ("down", "refuses".to_owned())
    } else if condition.is_down() {
        ("down", format!("fails after {delay} ms"))
    } else if condition.errors_percent > 0 {
        ("slow", format!("{delay} ms, {} % errors", condition.errors_percent))
    } else if condition.running_max < Condition::UP.running_max {
        ("slow", format!("{delay} ms, {} at a time", condition.running_max))
    } else {
        (if delay >= 1300 { "slow" } else { "up" }, format!("{delay} ms"))
    }
}

fn x(trace: &Trace, at: Micros) -> f64 {
    LEFT + WIDTH * ratio(at / MS) / ratio(trace.end() / MS)
}

/// A number of milliseconds or steps, far below 2^32.
fn ratio(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}
