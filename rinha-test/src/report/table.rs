//! The figures for people, on a terminal.

use std::fmt::Write;

use sonic_rs::{JsonValueTrait, Value};

use crate::stress::Summary;

/// How a figure is shown.
#[derive(Clone, Copy)]
enum Unit {
    Count,
    Money,
    Milliseconds,
    Seconds,
    Rate,
    Microseconds,
    Mebibytes,
    Share,
    Ratio,
    Truth,
}

/// The rows: key, name, unit, and whether it is shown only where it says something.
const ROWS: [(&str, &str, Unit, bool); 30] = [
    ("score", "score", Unit::Money, false),
    ("net", "net", Unit::Money, false),
    ("bonus", "bonus", Unit::Share, false),
    ("fine", "fine", Unit::Money, true),
    ("requested", "requested", Unit::Count, false),
    ("accepted", "accepted", Unit::Count, false),
    ("failed", "failed", Unit::Count, false),
    ("posted_again", "posted again", Unit::Count, true),
    ("throughput_per_s", "accepted per second", Unit::Rate, false),
    ("p50_ms", "p50", Unit::Milliseconds, false),
    ("p99_ms", "p99", Unit::Milliseconds, false),
    ("p999_ms", "p99.9", Unit::Milliseconds, false),
    ("floor_p50_ms", "the floor's p50", Unit::Milliseconds, false),
    ("floor_p99_ms", "the floor's p99", Unit::Milliseconds, false),
    ("p99_over_floor", "p99 to the floor's", Unit::Ratio, false),
    ("settled_per_s", "settled per second", Unit::Rate, false),
    ("settle_s", "settled after", Unit::Seconds, false),
    ("default_share", "through default", Unit::Share, false),
    ("lag", "lag", Unit::Count, false),
    ("inconsistencies", "inconsistencies", Unit::Count, false),
    ("bounds_wrong", "wrong summaries", Unit::Count, true),
    ("lost", "lost", Unit::Count, false),
    ("duplicated", "paid twice", Unit::Count, false),
    ("altered", "altered", Unit::Count, true),
    ("books_equal", "books equal", Unit::Truth, false),
    ("cpu_us_per_payment", "CPU per payment", Unit::Microseconds, false),
    ("memory_peak_bytes", "own memory, peak", Unit::Mebibytes, false),
    ("memory_with_cache_peak_bytes", "with page cache, peak", Unit::Mebibytes, false),
    ("throttled_periods", "throttled periods", Unit::Count, false),
    ("right", "all is right", Unit::Truth, false),
];

/// Figures of which a lower one is better, and those of which a higher one is; a difference in
/// others is none for better or worse.
const LOWER: [&str; 8] = [
    "p50_ms",
    "p99_ms",
    "p999_ms",
    "p99_over_floor",
    "settle_s",
    "cpu_us_per_payment",
    "memory_peak_bytes",
    "throttled_periods",
];
const HIGHER: [&str; 4] = ["score", "net", "throughput_per_s", "settled_per_s"];

/// Columns of the names.
const NAME_WIDTH: usize = 22;

/// Columns of a figure, at least.
const FIGURE_WIDTH: usize = 16;

/// Columns of a figure of a container.
const GROUP_FIGURE_WIDTH: usize = 11;

/// A table of systems side by side, or of one.
#[must_use]
pub fn table(summaries: &[Summary]) -> String {
    let mut out = String::from("\n");
    let widths: Vec<_> =
        summaries.iter().map(|s| s.subject.chars().count().max(FIGURE_WIDTH)).collect();
    if summaries.len() > 1 {
        push(&mut out, format_args!("{:NAME_WIDTH$}", "medians"));
        for (summary, width) in summaries.iter().zip(&widths) {
            push(&mut out, format_args!(" {:>width$}", summary.subject));
        }
        out.push('\n');
    }
    for (key, name, unit, only_if) in ROWS {
        let says = |summary: &Summary| {
            let value = summary.figure(key).map(|figure| &figure.value);
            let number = value.and_then(JsonValueTrait::as_f64);
            if only_if {
                number.is_some_and(|n| n != 0.0)
            } else {
                value.is_some_and(|v| !v.is_null())
            }
        };
        if !summaries.iter().any(says) {
            continue;
        }
        push(&mut out, format_args!("{name:NAME_WIDTH$}"));
        for (place, (summary, width)) in summaries.iter().zip(&widths).enumerate() {
            let Some(figure) = summary.figure(key) else { continue };
            push(&mut out, format_args!(" {:>width$}", shown(&figure.value, unit)));
            if summaries.len() == 1
                && let Some([least, most]) = figure.spread
                && least < most
            {
                let [least, most] = [least, most].map(|bound| number(bound, unit));
                push(&mut out, format_args!("   {least} to {most}"));
            }
            if place > 0 {
                out.push_str(verdict(key, &summaries[0], summary));
            }
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    for summary in summaries {
        push_groups(&mut out, summary);
    }
    for summary in summaries {
        for finding in summary.rounds.iter().flat_map(|round| &round.findings) {
            push(&mut out, format_args!("{}: {finding}\n", summary.subject));
        }
    }
    if summaries.len() > 1 {
        out.push_str("better and worse: in every round than the first in any of its own\n");
    }
    out
}

/// What each container of the last round cost, where there are several. A box alone is what the
/// figures above tell of.
// Bytes of memory are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn push_groups(out: &mut String, summary: &Summary) {
    let groups = summary.rounds.last().map_or(&[][..], |round| &round.groups);
    if groups.len() < 2 {
        return;
    }
    let header = ["CPU", "own memory", "with cache", "throttled"];
    push(out, format_args!("{:NAME_WIDTH$}", "container"));
    for name in header {
        push(out, format_args!(" {name:>GROUP_FIGURE_WIDTH$}"));
    }
    out.push('\n');
    for group in groups {
        let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let shown = [
            format!("{:.2} s", group.cpu_s),
            mebibytes(group.anonymous_bytes),
            mebibytes(group.memory_bytes),
            group.throttled_periods.to_string(),
        ];
        push(out, format_args!("{:NAME_WIDTH$}", group.name));
        for figure in shown {
            push(out, format_args!(" {figure:>GROUP_FIGURE_WIDTH$}"));
        }
        out.push('\n');
    }
}

/// Whether a system is better or worse than the first beyond all that the rounds of either spread.
#[must_use]
pub fn verdict(key: &str, first: &Summary, other: &Summary) -> &'static str {
    const BETTER: &str = " better";
    const WORSE: &str = " worse";
    let spread = |summary: &Summary| summary.figure(key)?.spread;
    let enough = first.rounds.len() > 1 && other.rounds.len() > 1;
    let (Some([least, most]), Some([other_least, other_most]), true) =
        (spread(first), spread(other), enough)
    else {
        return "";
    };
    let (lower, higher) = (other_most < least, other_least > most);
    if LOWER.contains(&key) && lower || HIGHER.contains(&key) && higher {
        BETTER
    } else if LOWER.contains(&key) && higher || HIGHER.contains(&key) && lower {
        WORSE
    } else {
        ""
    }
}

fn shown(value: &Value, unit: Unit) -> String {
    if let Some(truth) = value.as_bool() {
        return if truth { "yes" } else { "NO" }.to_owned();
    }
    value.as_f64().map_or_else(|| "unknown".to_owned(), |value| number(value, unit))
}

fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Count | Unit::Truth => format!("{value:.0}"),
        Unit::Money | Unit::Ratio => format!("{value:.2}"),
        Unit::Milliseconds => format!("{value:.3} ms"),
        Unit::Seconds => format!("{value:.1} s"),
        Unit::Rate => format!("{value:.0} /s"),
        Unit::Microseconds => format!("{value:.1} us"),
        Unit::Mebibytes => format!("{:.1} MiB", value / f64::from(1 << 20)),
        Unit::Share => format!("{:.2} %", value * 100.0),
    }
}

fn push(out: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::gauge::GroupPeak;
    use crate::stress::figures::{Figures, Round};

    fn summary(name: &str, p99s_ms: &[f64], finding: Option<&str>) -> Summary {
        let round = |p99_ms: &f64| Round {
            subject: name.to_owned(),
            figures: Figures { p99_ms: *p99_ms, score: 100.5, right: true, ..Figures::default() },
            findings: finding.map(str::to_owned).into_iter().collect(),
            ..Round::default()
        };
        Summary::new(p99s_ms.iter().map(round).collect())
    }

    #[test]
    fn one_system_is_shown_with_its_spread() {
        let text = table(&[summary("a", &[1.0, 3.0, 2.0], None)]);
        assert!(
            text.contains("p99                            2.000 ms   1.000 ms to 3.000 ms\n"),
            "{text}"
        );
        assert!(text.contains("score                            100.50\n"), "{text}");
        assert!(!text.contains("fine") && !text.contains("CPU"), "{text}");
    }

    #[test]
    fn each_container_is_shown_with_what_it_cost() {
        let mut one = summary("a", &[1.0], None);
        let group = |name: &str| GroupPeak {
            name: name.to_owned(),
            anonymous_bytes: 2 << 20,
            memory_bytes: 5 << 20,
            cpu_s: 1.5,
            throttled_periods: 7,
        };
        one.rounds[0].groups = vec![group("box")];
        assert!(!table(&[one.clone()]).contains("container"));
        one.rounds[0].groups = vec![group("lb"), group("store")];
        let text = table(&[one]);
        let line = "store                       1.50 s     2.0 MiB     5.0 MiB           7\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_difference_is_one_only_where_no_round_reaches_into_the_others() {
        let first = summary("a", &[1.0, 3.0, 2.0], None);
        let slower = summary("b", &[8.0, 7.0], Some("it is odd"));
        let alike = summary("c", &[2.5, 9.0], None);
        assert_eq!(verdict("p99_ms", &first, &slower), " worse");
        assert_eq!(verdict("p99_ms", &slower, &first), " better");
        assert_eq!(verdict("p99_ms", &first, &alike), "");
        assert_eq!(verdict("p99_ms", &first, &summary("d", &[9.0], None)), "");
        let text = table(&[first, slower, alike]);
        assert!(text.contains("7.000 ms worse") && text.contains("b: it is odd\n"), "{text}");
    }
}
