//! One text of what all daemons tell: each family once, each sample with the label of its daemon,
//! and `router_up` for every daemon that is known.

use std::fmt::{self, Write};

use crate::gather::Reading;
use crate::text::{DAEMON_LABEL, Exposition, Family, Kind, Sample, UP};

/// Merges what was read, as Prometheus reads it.
#[must_use]
pub fn merge(readings: &[Reading]) -> String {
    let mut text = String::new();
    write(&mut text, readings).expect("a string takes any text");
    text
}

fn write(text: &mut String, readings: &[Reading]) -> fmt::Result {
    const UP_HELP: &str = "Whether the daemon answered when it was asked for its metrics.";
    write_head(text, UP, "", UP_HELP, Kind::Gauge)?;
    for Reading { daemon, metrics } in readings {
        writeln!(text, "{UP}{{{DAEMON_LABEL}=\"{daemon}\"}} {}", u8::from(metrics.is_ok()))?;
    }
    let told: Vec<(&str, &Exposition)> = readings
        .iter()
        .filter_map(|reading| Some((reading.daemon.as_str(), reading.metrics.as_ref().ok()?)))
        .collect();
    for (at, (_, metrics)) in told.iter().enumerate() {
        for family in metrics.families() {
            let is_written =
                told[..at].iter().any(|(_, before)| before.family(family.name).is_some());
            if !is_written {
                write_family(text, family, &told[at..])?;
            }
        }
    }
    Ok(())
}

/// Writes a family with the samples of all who tell it.
fn write_family(
    text: &mut String,
    family: Family<'_>,
    told: &[(&str, &Exposition)],
) -> fmt::Result {
    let Family { name, kind, help, .. } = family;
    write_head(text, name, if kind == Kind::Counter { "_total" } else { "" }, help, kind)?;
    for (daemon, metrics) in told {
        for sample in metrics.family(name).into_iter().flat_map(Family::samples) {
            write_sample(text, name, daemon, sample)?;
        }
    }
    Ok(())
}

fn write_head(text: &mut String, name: &str, suffix: &str, help: &str, kind: Kind) -> fmt::Result {
    writeln!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {}", kind.word())
}

fn write_sample(text: &mut String, name: &str, daemon: &str, sample: Sample<'_>) -> fmt::Result {
    write!(text, "{name}{}{{{DAEMON_LABEL}=\"{daemon}\"", sample.suffix)?;
    for (label, value) in sample.labels() {
        write!(text, ",{label}=\"{value}\"")?;
    }
    writeln!(text, "}} {}", sample.value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ledger::metrics::{BOUNDS_COUNT, Bounds, Histogram, Labels, Page};
    use proptest::prelude::*;

    use super::*;
    use crate::gather::DaemonDown;

    const BOUNDS_US: Bounds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100, 1000];
    const NAMES: [&str; 4] = ["router_a", "router_b_seconds", "router_c", "process_d_bytes"];

    /// The series of one family, as a daemon tells them.
    #[derive(Clone, Debug)]
    enum Series {
        Counts(Vec<(String, u64)>),
        Times(Vec<(String, u32)>),
        Spread(Vec<u64>),
    }

    fn series() -> impl Strategy<Value = Series> {
        let label = "[a-z\"\\\\\n{}=, é]{0,6}";
        prop_oneof![
            prop::collection::vec((label, any::<u64>()), 1..4).prop_map(Series::Counts),
            prop::collection::vec((label, any::<u32>()), 1..4).prop_map(Series::Times),
            prop::collection::vec(0_u64..2000, 0..20).prop_map(Series::Spread),
        ]
    }

    fn labels(value: &str, place: usize) -> Labels {
        vec![("name", value.to_owned()), ("place", place.to_string())]
    }

    fn add(page: &mut Page, name: &'static str, series: &Series) {
        match series {
            Series::Counts(counts) => {
                let series = counts.iter().enumerate();
                let series = series.map(|(at, (label, count))| (labels(label, at), *count));
                page.counters(name, "Counts", series);
            }
            Series::Times(times) => {
                let series = times.iter().enumerate().map(|(at, (label, ms))| {
                    (labels(label, at), Duration::from_millis(u64::from(*ms)))
                });
                page.gauges(name, "Times", series);
            }
            Series::Spread(durations_us) => {
                let histogram = Histogram::new(&BOUNDS_US);
                for us in durations_us {
                    histogram.observe_us(*us);
                }
                page.histogram(name, "Spread", &histogram);
            }
        }
    }

    /// The lines that must be there for a daemon.
    fn lines(daemon: &str, name: &str, series: &Series) -> Vec<String> {
        let quoted =
            |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let line = |suffix: &str, at: usize, label: &str, value: &str| {
            let label = quoted(label);
            format!("{name}{suffix}{{daemon=\"{daemon}\",name=\"{label}\",place=\"{at}\"}} {value}")
        };
        match series {
            Series::Counts(counts) => counts
                .iter()
                .enumerate()
                .map(|(at, (label, count))| line("_total", at, label, &count.to_string()))
                .collect(),
            Series::Times(times) => times
                .iter()
                .enumerate()
                .map(|(at, (label, ms))| {
                    line("", at, label, &format!("{:?}", f64::from(*ms) / 1000.0))
                })
                .collect(),
            Series::Spread(durations_us) => {
                let bounds = BOUNDS_US.map(Some).into_iter().chain([None]);
                let mut lines: Vec<_> = bounds
                    .map(|bound| {
                        let is_in = |us: &&u64| bound.is_none_or(|bound| **us <= bound);
                        let count = durations_us.iter().filter(is_in).count();
                        let le = bound.map_or("+Inf".to_owned(), |us| {
                            let seconds = Duration::from_micros(us).as_secs_f64();
                            // As the library writes small numbers.
                            format!("{seconds}")
                        });
                        format!("{name}_bucket{{daemon=\"{daemon}\",le=\"{le}\"}} {count}")
                    })
                    .collect();
                assert_eq!(lines.len(), BOUNDS_COUNT + 1);
                lines.push(format!("{name}_count{{daemon=\"{daemon}\"}} {}", durations_us.len()));
                lines
            }
        }
    }

    #[test]
    fn a_counters_family_is_named_after_its_samples_and_stands_once() {
        let reading = |daemon: &str, text: &str| Reading {
            daemon: daemon.to_owned(),
            metrics: Ok(Exposition::parse(format!("{text}# EOF\n")).unwrap()),
        };
        let counter = "# HELP a About.\n# TYPE a counter\na_total{x=\"1\",b=\"\\\"\"} 5\n";
        let gauge = "# HELP b \n# TYPE b gauge\nb -1\n";
        let one = reading("one", &format!("{counter}{gauge}"));
        let two = reading("two", &format!("{gauge}{counter}"));
        assert_eq!(
            merge(&[one, two]),
            "# HELP router_up Whether the daemon answered when it was asked for its metrics.\n\
             # TYPE router_up gauge\n\
             router_up{daemon=\"one\"} 1\nrouter_up{daemon=\"two\"} 1\n\
             # HELP a_total About.\n# TYPE a_total counter\n\
             a_total{daemon=\"one\",x=\"1\",b=\"\\\"\"} 5\na_total{daemon=\"two\",x=\"1\",b=\"\\\"\"} 5\n\
             # HELP b \n# TYPE b gauge\nb{daemon=\"one\"} -1\nb{daemon=\"two\"} -1\n"
        );
    }

    proptest! {
        /// What is expected is made from what was given to the library, not from what it wrote.
        #[test]
        fn every_sample_that_the_library_writes_is_kept_with_its_daemon(
            families in prop::collection::vec(series(), NAMES.len()),
            subsets in prop::array::uniform2(prop::array::uniform4(any::<bool>())),
        ) {
            let mut expected = vec![
                "router_up{daemon=\"api-1\"} 1".to_owned(),
                "router_up{daemon=\"lb\"} 0".to_owned(),
                "router_up{daemon=\"store\"} 1".to_owned(),
            ];
            let mut sums = 0;
            let mut readings = Vec::new();
            for (daemon, subset) in ["api-1", "store"].into_iter().zip(subsets) {
                let mut page = Page::default();
                let told = NAMES.into_iter().zip(&families).zip(subset).filter(|(_, told)| *told);
                for ((name, series), _) in told {
                    add(&mut page, name, series);
                    expected.extend(lines(daemon, name, series));
                    sums += usize::from(matches!(series, Series::Spread(_)));
                }
                let metrics = Ok(Exposition::parse(page.text()).unwrap());
                readings.push(Reading { daemon: daemon.to_owned(), metrics });
            }
            let down = Reading { daemon: "lb".to_owned(), metrics: Err(DaemonDown::Silent) };
            readings.insert(1, down);
            let text = merge(&readings);
            let is_sum = |line: &str| line.split(['{', ' ']).next().unwrap().ends_with("_sum");
            let samples = text.lines().filter(|line| !line.starts_with('#'));
            let (of_sums, mut samples): (Vec<_>, Vec<_>) = samples.partition(|line| is_sum(line));
            // Sums are of floats; that they are all there is enough here.
            prop_assert_eq!(of_sums.len(), sums);
            samples.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(samples, expected);
            let mut heads: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
            let count = heads.len();
            heads.sort_unstable();
            heads.dedup();
            prop_assert_eq!(heads.len(), count);
        }
    }
}
