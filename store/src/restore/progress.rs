//! How far a restore is, for people: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ledger::clock::Monotonic;

/// How often there is a line where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// What the bar shows.
const TEMPLATE: &str = "{bar:40} {human_pos} of {human_len} payments, {per_sec}, {eta} left";

/// The bar, or the lines.
pub struct RestoreProgress {
    bar: Option<ProgressBar>,
    total_count: u64,
    clock: Monotonic,
    next_line: Duration,
}

impl RestoreProgress {
    /// Nothing yet, of so many payments.
    #[must_use]
    pub fn start(total_count: u64) -> Self {
        let style = || {
            ProgressStyle::with_template(TEMPLATE)
                .expect("the template is one that indicatif knows")
        };
        let bar = stderr().is_terminal().then(|| ProgressBar::new(total_count).with_style(style()));
        Self { bar, total_count, clock: Monotonic::start(), next_line: LINE_INTERVAL }
    }

    /// Shows that so many are restored.
    pub fn show(&mut self, count: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(count);
        } else if self.clock.elapsed() >= self.next_line {
            self.next_line = self.clock.elapsed() + LINE_INTERVAL;
            tracing::info!("{count} of {} payments are restored", self.total_count);
        }
    }

    /// Ends the bar, and gives the seconds that it all took.
    #[must_use]
    pub fn end(self) -> f64 {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.clock.elapsed().as_secs_f64()
    }
}
