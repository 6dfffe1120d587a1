//! `sluice-gate`: our NVE alone, in one process: instructions per packet, held against
//! those that are written down, and cycles.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use nve_hosted::heap::LargePages;
use sluice_bench::clock::Clock;
use sluice_bench::gate;
use sluice_bench::local::Local;
use sluice_bench::traffic::{Flows, Scenario, Sizes, Traffic};

#[global_allocator]
static HEAP: LargePages = LargePages;

/// Measures what a packet costs the NVE, without root and on any machine.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Time the NVE alone, without a second processor: for work on the datapath.
    ///
    /// Example: sluice-gate time S2b --flows 100k
    Time {
        /// S1a, S1b, S2a, ... S4b; all if left out.
        scenario: Option<Scenario>,
        /// Number of flows.
        #[arg(long, default_value = "1k")]
        flows: Flows,
        /// Bytes of frames: 64, imix or 1518.
        #[arg(long, default_value = "64")]
        size: Sizes,
        /// How many times 2,000 bursts are timed; the quickest counts.
        #[arg(long, default_value_t = 10)]
        rounds: u32,
    },
    /// Time new connections: each has its first packet, and its first answer.
    ///
    /// Example: sluice-gate new S2b --flows 1M
    New {
        /// S1a, S1b, S2a, ... S4b.
        #[arg(default_value = "S2b")]
        scenario: Scenario,
        /// Number of flows, two for each connection.
        #[arg(long, default_value = "1M")]
        flows: Flows,
        /// How often.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
    /// Count instructions per packet with callgrind, and compare with those that are
    /// written down.
    Check {
        /// Write the counts down instead.
        #[arg(long)]
        write: bool,
    },
    /// What `check` runs under callgrind.
    #[command(hide = true)]
    Counted { scenario: Scenario, bursts: u64 },
}

fn main() -> ExitCode {
    match work(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does it; false if what was held against something is not as it should be.
fn work(verb: Verb) -> Result<bool> {
    match verb {
        Verb::Time {
            scenario,
            flows,
            size,
            rounds,
        } => {
            let scenarios = scenario.map_or(Scenario::ALL.to_vec(), |one| vec![one]);
            for scenario in scenarios {
                time(scenario, flows, size, rounds)?;
            }
            Ok(true)
        }
        Verb::New {
            scenario,
            flows,
            rounds,
        } => open(scenario, flows, rounds).map(|()| true),
        Verb::Check { write } => hold(write),
        Verb::Counted { scenario, bursts } => gate::run_counted(scenario, bursts).map(|()| true),
    }
}

fn time(scenario: Scenario, flows: Flows, size: Sizes, rounds: u32) -> Result<()> {
    const BURSTS: u64 = 2_000;

    let mut local = Local::new(Traffic::new(scenario, flows, size))?;
    let mut each = Vec::new();
    for _ in 0..rounds.max(1) {
        let outcome = local.run(BURSTS)?;
        each.push(outcome.cycles as f64 / outcome.packets as f64);
    }
    each.sort_by(f64::total_cmp);
    let (best, median) = (each.first(), each.get(each.len() / 2));
    if let (Some(best), Some(median)) = (best, median) {
        println!(
            "{scenario}  {flows:>5} flows  {size:>4} B  best {best:6.1}  median {median:6.1} cycles per packet"
        );
    }
    Ok(())
}

/// How many connections can begin in a second.
fn open(scenario: Scenario, flows: Flows, rounds: u32) -> Result<()> {
    let hertz = Clock::calibrate().hertz();
    for _ in 0..rounds.max(1) {
        let mut local = Local::fresh(Traffic::new(scenario, flows, Sizes::Small))?;
        let bursts = local.bursts();
        let outcome = local.run(bursts)?;
        let each = outcome.cycles as f64 / outcome.packets as f64 * 2.0;
        println!(
            "{scenario}  {} new connections  {each:6.0} cycles each  {:.2} million per second",
            flows.conversations(),
            hertz / each / 1e6
        );
    }
    Ok(())
}

fn hold(write: bool) -> Result<bool> {
    let counts =
        gate::count(|scenario, each| println!("{scenario}  {each:6.1} instructions per packet"))?;
    if write {
        gate::write(&counts)?;
        println!("written down in {}", gate::file().display());
        return Ok(true);
    }
    let far = gate::compare(&counts, &gate::read()?);
    for (scenario, count, expected) in &far {
        let expected = expected.map_or("nothing".to_string(), |expected| format!("{expected:.1}"));
        println!(
            "{scenario}: {count:.1}, written down is {expected}; `sluice-gate check --write` if that is meant"
        );
    }
    println!("{} passed, {} failed", counts.len() - far.len(), far.len());
    Ok(far.is_empty())
}
