//! The page: everything that a daemon tells at one moment, in the text format `OpenMetrics`, which the
//! library `prometheus-client` writes.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::cells::{Counter, Histogram, Spread};

/// The labels of a series: names and values.
pub type Labels = Vec<(&'static str, String)>;

/// What a series says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value {
    /// How many.
    Count(u64),
    /// How long, told in seconds.
    Time(Duration),
    /// How many of each length.
    Spread(Spread),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<bool> for Value {
    fn from(is_so: bool) -> Self {
        Self::Count(u64::from(is_so))
    }
}

impl From<&Counter> for Value {
    fn from(counter: &Counter) -> Self {
        Self::Count(counter.get())
    }
}

impl From<Duration> for Value {
    fn from(duration: Duration) -> Self {
        Self::Time(duration)
    }
}

impl From<&Histogram> for Value {
    fn from(histogram: &Histogram) -> Self {
        Self::Spread(histogram.spread())
    }
}

/// All metrics of a daemon at one moment.
#[derive(Debug, Default)]
pub struct Page {
    registry: Registry,
}

impl Page {
    /// What only grows. The format adds `_total` to the name.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: impl Into<Value>) {
        self.counters(name, help, [(Labels::new(), value)]);
    }

    /// As [`Page::counter`], a value for each set of labels.
    pub fn counters<V: Into<Value>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, V)>,
    ) {
        self.add(MetricType::Counter, name, help, series);
    }

    /// What may be more or less at the next moment.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: impl Into<Value>) {
        self.gauges(name, help, [(Labels::new(), value)]);
    }

    /// As [`Page::gauge`], a value for each set of labels.
    pub fn gauges<V: Into<Value>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, V)>,
    ) {
        self.add(MetricType::Gauge, name, help, series);
    }

    /// How many durations there were of each length.
    pub fn histogram(&mut self, name: &'static str, help: &'static str, histogram: &Histogram) {
        self.histograms(name, help, [(Labels::new(), histogram)]);
    }

    /// As [`Page::histogram`], one for each set of labels.
    pub fn histograms<'a>(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, &'a Histogram)>,
    ) {
        self.add(MetricType::Histogram, name, help, series);
    }

    fn add<V: Into<Value>>(
        &mut self,
        kind: MetricType,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, V)>,
    ) {
        let series: Vec<_> = series
            .into_iter()
            .map(|(mut labels, value)| {
                // The library writes values of labels as they are.
                for (_, value) in &mut labels {
                    *value = escaped(value);
                }
                (labels, value.into())
            })
            .collect();
        // The library ends the sentence.
        let help = help.trim_end_matches('.');
        self.registry.register(name, help, Family { kind, series });
    }

    /// The page as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes any text, and gauges fit");
        text
    }
}

/// The value of a label as the format writes it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// All series of one name.
#[derive(Debug)]
struct Family {
    kind: MetricType,
    series: Vec<(Labels, Value)>,
}

impl EncodeMetric for Family {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        for (labels, value) in &self.series {
            if labels.is_empty() {
                write_value(&mut encoder, self.kind, value)?;
            } else {
                write_value(&mut encoder.encode_family(labels)?, self.kind, value)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        self.kind
    }

    fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

fn write_value(encoder: &mut MetricEncoder, kind: MetricType, value: &Value) -> fmt::Result {
    let is_counter = matches!(kind, MetricType::Counter);
    match value {
        Value::Count(count) if is_counter => {
            encoder.encode_counter::<NoLabelSet, _, u64>(count, None)
        }
        Value::Time(time) if is_counter => {
            encoder.encode_counter::<NoLabelSet, _, u64>(&time.as_secs_f64(), None)
        }
        // What a gauge counts is far below 2^63, the most that the format's library takes.
        Value::Count(count) => encoder.encode_gauge(&i64::try_from(*count).unwrap_or(i64::MAX)),
        Value::Time(time) => encoder.encode_gauge(&time.as_secs_f64()),
        Value::Spread(spread) => write_spread(encoder, spread),
    }
}

fn write_spread(encoder: &mut MetricEncoder, spread: &Spread) -> fmt::Result {
    let seconds = |us| Duration::from_micros(us).as_secs_f64();
    // The library writes this bound as infinity.
    let bounds = spread.bounds_us.iter().map(|us| seconds(*us)).chain([f64::MAX]);
    let buckets: Vec<(f64, u64)> = bounds.zip(spread.counts).collect();
    let count = spread.counts.iter().sum();
    encoder.encode_histogram::<NoLabelSet>(seconds(spread.sum_us), count, &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_written_as_the_format_wants_it() {
        let histogram = Histogram::new(&[
            500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10_000, 20_000,
        ]);
        histogram.observe_us(700);
        histogram.observe_us(30_000);
        let mut page = Page::default();
        let processor = |name: &str| vec![("processor", name.to_owned())];
        page.counter("router_payments_accepted", "Payments taken in.", 7_u64);
        page.counter("process_cpu_seconds", "CPU time", Duration::from_millis(1500));
        page.gauges(
            "router_in_flight",
            "Calls",
            [(processor("default"), 3_u64), (processor("fallback"), 0)],
        );
        page.gauges("router_nothing", "Of which there is none", Vec::<(Labels, u64)>::new());
        page.gauges("router_named", "Named", [(vec![("name", "a\"b\\c\nd".to_owned())], true)]);
        page.histogram("router_write_seconds", "Writes", &histogram);
        let text = page.text();
        let (values, buckets) = text.split_once("# HELP router_write_seconds").unwrap();
        assert_eq!(
            values,
            "# HELP router_payments_accepted Payments taken in.\n\
             # TYPE router_payments_accepted counter\n\
             router_payments_accepted_total 7\n\
             # HELP process_cpu_seconds CPU time.\n\
             # TYPE process_cpu_seconds counter\n\
             process_cpu_seconds_total 1.5\n\
             # HELP router_in_flight Calls.\n\
             # TYPE router_in_flight gauge\n\
             router_in_flight{processor=\"default\"} 3\n\
             router_in_flight{processor=\"fallback\"} 0\n\
             # HELP router_named Named.\n\
             # TYPE router_named gauge\n\
             router_named{name=\"a\\\"b\\\\c\\nd\"} 1\n"
        );
        for line in [
            "router_write_seconds_sum 0.0307",
            "router_write_seconds_count 2",
            "router_write_seconds_bucket{le=\"0.0005\"} 0",
            "router_write_seconds_bucket{le=\"0.001\"} 1",
            "router_write_seconds_bucket{le=\"0.02\"} 1",
            "router_write_seconds_bucket{le=\"+Inf\"} 2",
            "# EOF",
        ] {
            assert!(buckets.lines().any(|other| other == line), "{line}: {buckets}");
        }
    }
}
