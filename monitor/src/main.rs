//! The monitor's process.

use std::process::ExitCode;

use ledger::daemon::{EXIT_USAGE, settings_from};

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
        Some("--help" | "-h") => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Some("--version" | "-V") => {
            println!("monitor {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{HELP}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}
