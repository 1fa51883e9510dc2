//! What is seen of a round while it goes on: samples for the plots, and a line of progress.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ledger::Totals;
use ledger::clock::Monotonic;

use super::figures::Sample;
use super::judge::{milliseconds, net, quantile_ms, rate};
use super::subject::folder_bytes;
use crate::audit::compare::{Books, increase};
use crate::books::processor::ProcessorAdmin;
use crate::load::Meter;
use crate::load::meter::Counts;
use crate::machine::cgroup::GroupUsage;
use crate::machine::gauge::{Gauge, Peaks};
use crate::progress::Progress;
use crate::scenario::{FeeSettings, ProcessorState, Stage};

/// Time between two samples at least.
const INTERVAL_MIN: Duration = Duration::from_millis(250);

/// Samples of a round at most, about: a plot has no more points across.
const SAMPLES_MAX: u32 = 1200;

/// How often the folder of the data is added up: it is walked through each time.
const DISK_SAMPLES: usize = 8;

/// Bytes of a mebibyte.
const MEBIBYTE: u64 = 1 << 20;

/// Who watches.
pub(super) struct Watch {
    meter: Arc<Meter>,
    processors: [ProcessorAdmin; 2],
    gauge: Gauge,
    data: Option<PathBuf>,
    fees: FeeSettings,
    before: Books,
    clock: Monotonic,
    interval: Duration,
    next: Duration,
    last_at: Duration,
    last_counts: Counts,
    last_usage: Option<GroupUsage>,
    pub(super) samples: Vec<Sample>,
    pub(super) peaks: Peaks,
    progress: Progress,
}

impl Watch {
    /// Watches from now on, for about so long.
    pub(super) fn start(
        meter: Arc<Meter>,
        processors: [ProcessorAdmin; 2],
        gauge: Gauge,
        data: Option<PathBuf>,
        fees: FeeSettings,
        before: Books,
        duration: Duration,
    ) -> Self {
        let mut watch = Self {
            meter,
            processors,
            gauge,
            data,
            fees,
            before,
            clock: Monotonic::start(),
            interval: (duration / SAMPLES_MAX).max(INTERVAL_MIN),
            next: INTERVAL_MIN,
            last_at: Duration::ZERO,
            last_counts: Counts::default(),
            last_usage: None,
            samples: Vec::new(),
            peaks: Peaks::default(),
            progress: Progress::start(),
        };
        watch.last_usage = watch.read_gauge();
        watch
    }

    /// What the system costs, which the peaks take in.
    pub(super) fn read_gauge(&mut self) -> Option<GroupUsage> {
        let reading = self.gauge.read()?;
        self.peaks.see(&reading);
        Some(reading.total)
    }

    /// Takes a sample if it is time, and shows how far it is.
    pub(super) fn look(&mut self, phase: &str, stage: Option<Stage>) {
        if self.clock.elapsed() < self.next {
            return;
        }
        self.next = self.clock.elapsed() + self.interval;
        let sample = self.sample();
        self.progress.line(&self.describe(phase, stage, &sample));
        self.samples.push(sample);
    }

    /// The line of progress is over.
    pub(super) fn end(&self) {
        self.progress.end();
    }

    fn sample(&mut self) -> Sample {
        let window = self.meter.window();
        // A processor that does not answer leaves a gap in the plot.
        let recorded = self.recorded();
        let now = self.clock.elapsed();
        let passed = now.saturating_sub(self.last_at);
        let counts = window.counts;
        let before = self.last_counts;
        let usage = self.read_gauge();
        let cpus = usage.zip(self.last_usage).map(|(usage, last)| {
            usage.cpu.saturating_sub(last.cpu).as_secs_f64() / passed.as_secs_f64()
        });
        let is_exact = self.gauge.is_exact();
        let accepted = self.meter.accepted();
        let backlog = recorded.map(|totals| {
            let recorded: u64 = totals.iter().map(|totals| totals.count).sum();
            accepted.cast_signed() - recorded.cast_signed()
        });
        let disk_bytes = match &self.data {
            Some(data) if self.samples.len().is_multiple_of(DISK_SAMPLES) => {
                Some(folder_bytes(data))
            }
            _ => None,
        };
        let sample = Sample {
            at_s: now.as_secs_f64(),
            accepted_per_s: rate(counts.accepted - before.accepted, passed),
            failed_per_s: rate(counts.failed() - before.failed(), passed),
            p50_ms: quantile_ms(&window.latency_ns, 0.5),
            p99_ms: quantile_ms(&window.latency_ns, 0.99),
            max_ms: (!window.latency_ns.is_empty()).then(|| milliseconds(window.latency_ns.max())),
            backlog: backlog.filter(|_| counts.requested > 0),
            default_requests: recorded.map(|totals| totals[0].count),
            fallback_requests: recorded.map(|totals| totals[1].count),
            net: recorded.map(|totals| net(totals, self.fees)),
            cpus,
            anonymous_bytes: usage.map(|usage| usage.anonymous_bytes),
            cache_bytes: usage.filter(|_| is_exact).map(|usage| usage.cache_bytes),
            throttled_periods: usage.filter(|_| is_exact).map(|usage| usage.throttled_periods),
            disk_bytes,
        };
        self.last_at = now;
        self.last_counts = counts;
        self.last_usage = usage;
        sample
    }

    /// What the processors recorded since the start.
    fn recorded(&self) -> Option<[Totals; 2]> {
        let mut now = [Totals::default(); 2];
        for (side, admin) in self.processors.iter().enumerate() {
            now[side] = admin.summary(ledger::RangeMs::ALL).ok()?;
        }
        Some(increase(now, self.before.processors))
    }

    fn describe(&self, phase: &str, stage: Option<Stage>, sample: &Sample) -> String {
        let mut line = format!("{phase} {:.0} s", sample.at_s);
        // Of another client's load nothing is known here.
        if self.last_counts.requested > 0 {
            push(&mut line, format_args!(" | {:.0}/s", sample.accepted_per_s));
        }
        let failed = self.last_counts.failed();
        if failed > 0 {
            push(&mut line, format_args!(", {failed} failed"));
        }
        if let Some(p99_ms) = sample.p99_ms {
            push(&mut line, format_args!(" | p99 {p99_ms:.2} ms"));
        }
        if let Some(backlog) = sample.backlog {
            push(&mut line, format_args!(" | backlog {backlog}"));
        }
        if let (Some(default), Some(fallback), Some(net)) =
            (sample.default_requests, sample.fallback_requests, sample.net)
        {
            push(
                &mut line,
                format_args!(" | default {default}, fallback {fallback}, net {net:.2}"),
            );
        }
        if let Some(Stage { default, fallback, .. }) = stage {
            push(
                &mut line,
                format_args!(" | default {}, fallback {}", state(default), state(fallback)),
            );
        }
        if let (Some(cpus), Some(bytes)) = (sample.cpus, sample.anonymous_bytes) {
            push(&mut line, format_args!(" | {cpus:.2} CPU, {} MiB", bytes / MEBIBYTE));
        }
        line
    }
}

fn push(line: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = line.write_fmt(what);
}

fn state(state: ProcessorState) -> String {
    let ProcessorState { delay_ms, failing } = state;
    match (delay_ms, failing) {
        (0, false) => "up".to_owned(),
        (delay, false) => format!("{delay} ms"),
        (0, true) => "failing".to_owned(),
        (delay, true) => format!("failing after {delay} ms"),
    }
}
