//! `rinha-test`: runs the payment router, puts it under load, and judges it.

use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use ledger::daemon::{EXIT_USAGE, create_files_privately, make_room_for_descriptors};
use rinha_test::chaos::{self, ChaosSettings};
use rinha_test::floor::{self, FloorSettings};
use rinha_test::manual::{self, ManualSettings};
use rinha_test::route_lab::{self, LabSettings};
use rinha_test::rules::{self, RulesSettings};
use rinha_test::simulate::{self, SimulateSettings};
use rinha_test::stress;
use rinha_test::stress::intake::{self, IntakeSettings};
use rinha_test::stress::settings::{CompareSettings, RunSettings};
use rinha_test::up::{self, UpSettings, child};

/// Runs the payment router on this machine, puts it or any other backend of the contest under load,
/// and judges it.
#[derive(Parser, Debug)]
#[command(name = "rinha-test")]
struct Settings {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the whole system on this machine: simulators, store, two APIs, balancer
    Up(UpSettings),
    /// Put a system under a scenario's load, audit it, score it, and write a report
    Run(RunSettings),
    /// Put several backends under a scenario's load in turn, and compare them
    Compare(CompareSettings),
    /// Run a system of its own under load, inject faults drawn from a seed, and compare all books
    Chaos(ChaosSettings),
    /// Measure what taking a payment in costs by itself, beside the floor
    Intake(IntakeSettings),
    /// Serve the floor: answer every payment with 202 and all else with an empty summary, from one thread
    Floor(FloorSettings),
    /// Try the router on seeded outages in simulated time, against the best that anyone could earn
    RouteLab(LabSettings),
    /// Write manual pages and completions for shells, of all programs
    Manual(ManualSettings),
    /// Check a compose file against the contest's rules
    Rules(RulesSettings),
    /// Let seeded faults and ends of processes befall the dispatch path in simulated time, and demand
    /// that each payment is recorded once
    Simulate(SimulateSettings),
    #[command(name = child::SUBCOMMAND, hide = true)]
    Child(child::ChildSettings),
}

/// Descriptors that a load may need: one for each of a thousand users, with room to spare.
const DESCRIPTORS: u64 = 4_096;

fn main() -> ExitCode {
    create_files_privately();
    make_room_for_descriptors(DESCRIPTORS);
    let settings = match Settings::try_parse() {
        Ok(settings) => settings,
        Err(error) => {
            // There is nowhere else to say that this could not be said.
            let _ = error.print();
            let informs =
                matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if informs { 0 } else { EXIT_USAGE });
        }
    };
    match run(settings.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rinha-test: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(settings) => Ok(match up::run(settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("rinha-test: {error}");
                ExitCode::from(error.exit_code())
            }
        }),
        Command::Run(settings) => {
            let right = stress::run(&settings).context("the run was not completed")?;
            Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Compare(settings) => {
            let right = stress::compare(&settings).context("the comparison was not completed")?;
            Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Chaos(settings) => {
            let report = chaos::run(settings).context("the chaos run was not completed")?;
            let right = report.is_none_or(|report| report.is_right());
            Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Intake(settings) => {
            intake::run(&settings).context("intake was not measured")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Floor(settings) => {
            floor::run(&settings).context("the floor server cannot serve")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::RouteLab(settings) => {
            route_lab::main(&settings).context("the laboratory's figures are lost")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Manual(settings) => {
            manual::main(&settings, Settings::command()).context("there is no whole manual")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Rules(settings) => {
            let kept = rules::main(&settings)?;
            Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Simulate(settings) => {
            let all_kept = simulate::main(&settings);
            Ok(if all_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Child(settings) => match child::run(settings)? {},
    }
}
