//! The monitor's process.

use std::io::Write;
use std::process::ExitCode;

use ledger::daemon::{EXIT_SOFTWARE, EXIT_USAGE, settings_from};

const HELP: &str = "\
Gathers the metrics of the router's daemons from their sockets in DIR/run.

Usage: monitor serve [OPTIONS]    answer GET /metrics for Prometheus
       monitor status [OPTIONS]   say how the router is, on one screen, and end with 0 if it is well

Each has a --help of its own.";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let of_command = || arguments.iter().skip(1).cloned();
    match arguments.get(1).and_then(|argument| argument.to_str()) {
        Some("serve") => monitor::serve::main(&settings_from(of_command())),
        Some("status") => monitor::status::main(&settings_from(of_command())),
        Some("--help" | "-h") => told(HELP),
        Some("--version" | "-V") => told(concat!("monitor ", env!("CARGO_PKG_VERSION"))),
        _ => {
            eprintln!("{HELP}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Prints a text. Where nobody reads it, that is told by the exit code.
fn told(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_SOFTWARE),
    }
}
