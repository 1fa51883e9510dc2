//! The status on one screen, for people: aligned, and without colour.

use std::fmt::Write;
use std::path::Path;

use super::model::{Apis, Health, Payments, Status};

/// The status as text.
#[must_use]
pub fn screen(status: &Status, data: &Path) -> String {
    let mut text = String::new();
    write(&mut text, status, data).expect("a string takes any text");
    text
}

fn write(text: &mut String, status: &Status, data: &Path) -> std::fmt::Result {
    let health = match status.health {
        Health::Well => "well",
        Health::Degraded => "degraded",
        Health::Unknown => "unknown: no daemon was ever started here",
    };
    writeln!(text, "router in {}: {health}", data.display())?;
    for problem in &status.problems {
        writeln!(text, "  ! {problem}")?;
    }
    match &status.payments {
        Some(payments) => {
            write_payments(text, status, payments)?;
            table(text, &processors(status))?;
        }
        None => writeln!(text, "\npayments   not known")?,
    }
    match &status.store {
        Some(store) => writeln!(
            text,
            "\nstore      {} records to read, {} payments to add to the database",
            store.behind_records.map_or("an unknown number of".to_owned(), grouped),
            grouped(store.unapplied_payments)
        )?,
        None => writeln!(text, "\nstore      not known")?,
    }
    if let Some(archive) = &status.archive {
        writeln!(
            text,
            "archive    {} payments archived, {:.1} s behind the journals",
            grouped(archive.payments),
            archive.lag_s
        )?;
    }
    if let Some(ledger) = &status.ledger {
        writeln!(
            text,
            "ledger     {} payments written to it, {:.1} s behind the journals",
            grouped(ledger.payments),
            ledger.lag_s
        )?;
    }
    writeln!(text)?;
    table(text, &daemons(status))
}

fn write_payments(text: &mut String, status: &Status, payments: &Payments) -> std::fmt::Result {
    write!(
        text,
        "\npayments   {} accepted, {} settled, {} refused, {} duplicate",
        grouped(payments.accepted),
        grouped(payments.settled),
        grouped(payments.refused),
        grouped(payments.duplicate),
    )?;
    let Apis { known, answering } = status.apis;
    if answering < known {
        write!(text, ", of {answering} of {known} APIs")?;
    }
    writeln!(text)?;
    if let Some(rates) = &status.rates {
        writeln!(
            text,
            "  /s       {:.1} accepted, {:.1} settled, {:.1} refused",
            rates.accepted_per_s, rates.settled_per_s, rates.refused_per_s
        )?;
    }
    let (backlog, age_s) = (grouped(payments.backlog), payments.oldest_age_s);
    writeln!(text, "backlog    {backlog}, the oldest accepted {age_s:.1} s ago")?;
    let (p50, p99) = (time(payments.accept_p50_ms), time(payments.accept_p99_ms));
    writeln!(text, "accept     p50 {p50}, p99 {p99}")?;
    let (p50, p99) = (time(payments.settle_p50_ms), time(payments.settle_p99_ms));
    writeln!(text, "settle     p50 {p50}, p99 {p99}\n")
}

fn processors(status: &Status) -> Vec<Vec<String>> {
    let head = ["processor", "breaker", "says", "in flight", "settled", "amount", "p50", "p99"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(status.processors.iter().map(|processor| {
        let says = match processor.failing {
            None => "-",
            Some(true) => "failing",
            Some(false) => "well",
        };
        vec![
            processor.name.clone(),
            processor.breaker.to_owned(),
            says.to_owned(),
            grouped(processor.in_flight),
            grouped(processor.settled),
            processor.settled_amount().to_string(),
            time(processor.call_p50_ms),
            time(processor.call_p99_ms),
        ]
    }));
    rows
}

fn daemons(status: &Status) -> Vec<Vec<String>> {
    let mut rows = vec![["daemon", "state", "memory", "CPU"].map(str::to_owned).to_vec()];
    rows.extend(status.daemons.iter().map(|daemon| {
        let cpu = match (daemon.cpus, daemon.cpu_s) {
            (Some(cpus), _) => format!("{:.1} %", cpus * 100.0),
            (None, Some(cpu_s)) => format!("{cpu_s:.2} s"),
            (None, None) => "-".to_owned(),
        };
        vec![
            daemon.name.clone(),
            if daemon.up { "up" } else { "down" }.to_owned(),
            daemon.resident_bytes.map_or("-".to_owned(), mebibytes),
            cpu,
        ]
    }));
    rows
}

/// Writes rows in columns, the first one to the left and the others to the right.
fn table(text: &mut String, rows: &[Vec<String>]) -> std::fmt::Result {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        for (place, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match place {
                0 => write!(text, "{cell:<width$}")?,
                _ => write!(text, "  {cell:>width$}")?,
            }
        }
        writeln!(text)?;
    }
    Ok(())
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn time(ms: Option<f64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.2} ms"),
        Some(ms) if ms < 1000.0 => format!("{ms:.0} ms"),
        Some(ms) => format!("{:.1} s", ms / 1000.0),
    }
}

fn mebibytes(bytes: u64) -> String {
    let tenths = (bytes * 10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{ALL_CLOSED, api, archiving_store, sharing_store, silent};
    use super::*;

    #[test]
    fn everything_is_on_one_screen_and_in_columns() {
        let one = api("api-1", "1234567", ALL_CLOSED, "0.25", "1");
        let mut status = Status::of(&[one, silent("store")]);
        let text = screen(&status, Path::new("data"));
        assert_eq!(
            text,
            "router in data: degraded
  ! store is down: it does not answer within 1s; it hangs, or is stopped

payments   1,234,567 accepted, 6 settled, 0 refused, 0 duplicate
backlog    3, the oldest accepted 0.2 s ago
accept     p50 -, p99 -
settle     p50 -, p99 -

processor  breaker  says  in flight  settled    amount  p50  p99
default     closed  well          0        5  12345.67    -    -
fallback    closed     -          0        1      0.00    -    -

store      not known

daemon  state    memory     CPU
api-1      up  12.0 MiB  1.50 s
store    down         -       -
"
        );
        let before = status.clone();
        status.compare(&before, 1.0);
        let text = screen(&status, Path::new("data"));
        assert!(text.contains("\n  /s       0.0 accepted, 0.0 settled, 0.0 refused\n"), "{text}");
        assert!(text.contains("\napi-1      up  12.0 MiB  0.0 %\n"), "{text}");
    }

    #[test]
    fn what_is_not_known_or_not_of_all_is_told_so() {
        let text = screen(&Status::of(&[silent("api-1"), silent("store")]), Path::new("data"));
        assert!(text.contains("\n\npayments   not known\n\nstore      not known\n\n"), "{text}");
        let one = api("api-1", "7", ALL_CLOSED, "0", "1");
        let text = screen(&Status::of(&[one, silent("api-2")]), Path::new("data"));
        assert!(text.contains(" 0 refused, 0 duplicate, of 1 of 2 APIs\n"), "{text}");
    }

    #[test]
    fn an_archive_has_a_line_below_the_store() {
        let text = screen(&Status::of(&[archiving_store("1", "0.25")]), Path::new("data"));
        let line =
            "to the database\narchive    1,204 payments archived, 0.2 s behind the journals\n\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_shared_ledger_has_a_line_below_the_store() {
        let text = screen(&Status::of(&[sharing_store("1", "0.25")]), Path::new("data"));
        let line = "to the database\nledger     1,204 payments written to it, 0.2 s behind the journals\n\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn times_and_numbers_are_short() {
        let times = [0.123, 9.99, 10.0, 250.4, 1500.0].map(|ms| time(Some(ms)));
        assert_eq!(times, ["0.12 ms", "9.99 ms", "10 ms", "250 ms", "1.5 s"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
