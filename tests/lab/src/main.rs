//! `sluice-lab`: shows the product in a lab, and tests it there.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use sluice_lab::{cases, figures, run, sandbox};

/// Runs the product in a lab of two hypervisors on this machine. Needs root.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a lab, show who reaches whom, and stay until Ctrl-C.
    Run {
        /// End after the table, with a status that says whether it is right.
        #[arg(long)]
        once: bool,
    },
    /// Run the end-to-end tests.
    Test {
        /// Run only tests whose names contain this.
        #[arg(default_value = "")]
        filter: String,
    },
    /// Run one end-to-end test, inside the sandbox of those who run several.
    #[command(hide = true)]
    Case {
        /// Its name.
        name: String,
    },
    /// Measure size, memory, idle load and synchronization.
    Figures,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = if sandbox::is_inside() {
        work(&cli.command)
    } else {
        sandbox::supervise()
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// What the inner process does, or one that it started.
fn work(verb: &Verb) -> Result<ExitCode> {
    let fine = match verb {
        Verb::Run { once } => run::run(&sandbox::enter()?, *once)?,
        Verb::Figures => figures::run(&sandbox::enter()?.run_dir)?,
        Verb::Test { filter } => cases::run(filter, &sandbox::enter()?.run_dir)?,
        Verb::Case { name } => cases::run_one(name, &sandbox::run_dir()?)?,
    };
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
