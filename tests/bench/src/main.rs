//! `sluice-bench`: measures our NVE beside what a user would pick instead.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use sluice_bench::booted::{self, Guest};
use sluice_bench::dut::Kind;
use sluice_bench::hugepages::HugePages;
use sluice_bench::measure::{Matrix, Rig, Sample};
use sluice_bench::report::Report;
use sluice_bench::rfc2544::{self, Method};
use sluice_bench::traffic::{Flows, Place, Scenario, Sizes};
use sluice_bench::updates;
use sluice_bench::versions;
use sluice_lab::sandbox;

/// Huge pages of 2 MiB that the devices under test may take together.
const HUGE_PAGES: u64 = 700;

/// Most further rounds for what was measured too seldom with the processors near.
const EXTRA_ROUNDS: usize = 2;

/// Measures NVEs as software on one core, with a generator on another. Needs root,
/// two cores, and the packages that tests/bench/deps.sh installs.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Measure packets per second and cycles per packet, and write a report.
    Run(RunArgs),
    /// Measure throughput as the paper does, and latency.
    Rfc2544(Rfc2544Args),
    /// Measure our image in QEMU, and a Linux guest beside it.
    Booted(BootedArgs),
    /// Measure what changes of the tables cost frames that they do not concern.
    Updates(UpdatesArgs),
}

#[derive(Args)]
struct BootedArgs {
    /// Guests.
    #[arg(long, value_delimiter = ',', default_value = "image,linux")]
    guest: Vec<Guest>,
    /// Scenarios; each guest is measured in those that it can do.
    #[arg(long, value_delimiter = ',', default_value = "S2a,S2b")]
    scenario: Vec<Scenario>,
    /// Number of flows.
    #[arg(long, default_value = "1k")]
    flows: Flows,
    /// How often each is booted and measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many seconds each time.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Our image; `target/image/nve.elf` beside this program's directory if left out.
    #[arg(long, env = "SLUICE_IMAGE")]
    image: Option<PathBuf>,
    /// What the Linux guest is made of; `target/guest` if left out.
    #[arg(long)]
    linux: Option<PathBuf>,
    /// MiB of memory of our image.
    #[arg(long, default_value_t = 64)]
    image_memory: u32,
    /// MiB of memory of the Linux guest; with 80 some boots fail.
    #[arg(long, default_value_t = 96)]
    linux_memory: u32,
    /// Directory for the report; none is written if left out.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl BootedArgs {
    fn plan(&self) -> Result<booted::Plan> {
        let beside = |named: &Option<PathBuf>, name: &str| match named {
            Some(path) => Ok(path.clone()),
            None => Ok::<_, anyhow::Error>(own_dir()?.join("..").join(name)),
        };
        Ok(booted::Plan {
            guests: self.guest.clone(),
            scenarios: self.scenario.clone(),
            flows: self.flows,
            rounds: self.rounds.max(1),
            span: Duration::from_secs_f64(self.seconds.max(0.5)),
            image: beside(&self.image, "image/nve.elf")?,
            linux: beside(&self.linux, "guest")?,
            image_memory: self.image_memory,
            linux_memory: self.linux_memory,
        })
    }
}

#[derive(Args)]
struct UpdatesArgs {
    /// Scenario.
    #[arg(long, default_value = "S2b")]
    scenario: Scenario,
    /// Number of flows.
    #[arg(long, default_value = "1k")]
    flows: Flows,
    /// Sizes of frames.
    #[arg(long, default_value = "64")]
    size: Sizes,
    /// Transactions per second, of one record each.
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// How often tables stay, and how often they change.
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// How many seconds each time.
    #[arg(long, default_value_t = 3.2)]
    seconds: f64,
    /// Our NVE's program; `nve-hosted` beside this one if left out.
    #[arg(long)]
    hosted: Option<PathBuf>,
    /// Directory for the report; none is written if left out.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct Rfc2544Args {
    /// Devices under test.
    #[arg(long, value_delimiter = ',', default_value = "ours,ovs")]
    dut: Vec<Kind>,
    /// Scenarios, like S2b; all if left out.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Sizes of frames.
    #[arg(long, value_delimiter = ',', default_value = "64,1518,imix")]
    size: Vec<Sizes>,
    /// Number of flows.
    #[arg(long, default_value = "1k")]
    flows: Flows,
    /// How often; the highest and the lowest result do not count.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many seconds each rate is tried.
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// Our NVE's program; `nve-hosted` beside this one if left out.
    #[arg(long)]
    hosted: Option<PathBuf>,
    /// Directory for the report; none is written if left out.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct RunArgs {
    /// Only what takes three minutes.
    #[arg(long)]
    quick: bool,
    /// Devices under test.
    #[arg(long, value_delimiter = ',', default_value = "ours,ovs,testpmd")]
    dut: Vec<Kind>,
    /// Scenarios, like S2b; all if left out.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Numbers of flows, like 1k; 1, 1k, 100k and 1M if left out.
    #[arg(long, value_delimiter = ',')]
    flows: Vec<Flows>,
    /// Sizes of frames; 64, imix and 1518 if left out.
    #[arg(long, value_delimiter = ',')]
    size: Vec<Sizes>,
    /// How often everything is measured.
    #[arg(long)]
    rounds: Option<usize>,
    /// How many seconds each time.
    #[arg(long)]
    seconds: Option<f64>,
    /// Our NVE's program; `nve-hosted` beside this one if left out.
    #[arg(long)]
    hosted: Option<PathBuf>,
    /// Directory for the report; none is written if left out.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl RunArgs {
    /// What to measure: what was asked for, and the usual where nothing was.
    fn matrix(&self) -> Matrix {
        let nve = |place, stateful| Scenario::Nve { place, stateful };
        let (scenarios, flows, sizes, rounds, seconds) = match self.quick {
            false => (
                Scenario::ALL.to_vec(),
                Flows::ALL.to_vec(),
                Sizes::ALL.to_vec(),
                3,
                1.2,
            ),
            true => (
                vec![
                    nve(Place::Local, false),
                    nve(Place::Across, true),
                    nve(Place::AcrossRouted, true),
                ],
                Flows::ALL.get(1..3).unwrap_or_default().to_vec(),
                vec![Sizes::Small],
                2,
                2.5,
            ),
        };
        let mut flows = or(&self.flows, flows);
        flows.sort();
        Matrix {
            devices: self.dut.clone(),
            scenarios: or(&self.scenario, scenarios),
            flows,
            sizes: or(&self.size, sizes),
            rounds: self.rounds.unwrap_or(rounds),
            extra_rounds: if self.quick { 0 } else { EXTRA_ROUNDS },
            patience: Duration::from_secs(if self.quick { 1 } else { 10 }),
            span: Duration::from_secs_f64(self.seconds.unwrap_or(seconds).max(0.5)),
        }
    }
}

/// Our NVE's program: the one that was named, or the one beside this one.
fn hosted(named: Option<&PathBuf>) -> Result<PathBuf> {
    if let Some(hosted) = named {
        return Ok(hosted.clone());
    }
    Ok(own_dir()?.join("nve-hosted"))
}

/// The directory that this program is in.
fn own_dir() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let dir = own.parent().context("this program has no directory")?;
    Ok(dir.to_owned())
}

fn or<T: Clone>(asked: &[T], usual: Vec<T>) -> Vec<T> {
    match asked {
        [] => usual,
        asked => asked.to_vec(),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = if sandbox::is_inside() {
        work(&cli.command)
    } else {
        supervise(&cli.command)
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// What the outer process does: huge pages are the machine's, not the sandbox's.
fn supervise(verb: &Verb) -> Result<ExitCode> {
    let _pages = match verb {
        Verb::Run(_) | Verb::Rfc2544(_) | Verb::Updates(_) => Some(HugePages::reserve(HUGE_PAGES)?),
        Verb::Booted(_) => None,
    };
    sandbox::supervise()
}

/// What the inner process does.
fn work(verb: &Verb) -> Result<ExitCode> {
    match verb {
        Verb::Run(arguments) => run(arguments)?,
        Verb::Rfc2544(arguments) => measure_throughput(arguments)?,
        Verb::Booted(arguments) => boot(arguments)?,
        Verb::Updates(arguments) => measure_updates(arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run(arguments: &RunArgs) -> Result<()> {
    let matrix = arguments.matrix();
    let hosted = hosted(arguments.hosted.as_ref())?;
    let mut rig = Rig::new(&sandbox::enter()?.run_dir, &hosted)?;
    let samples = rig.run(&matrix, tell)?;
    let report = Report {
        machine: versions::machine()?,
        versions: matrix
            .devices
            .iter()
            .map(|kind| versions::of(*kind))
            .collect(),
        samples,
    };
    println!("\n{}", report.markdown());
    if let Some(dir) = &arguments.out {
        report.write(dir)?;
    }
    Ok(())
}

fn measure_throughput(arguments: &Rfc2544Args) -> Result<()> {
    let hosted = hosted(arguments.hosted.as_ref())?;
    let mut rig = Rig::new(&sandbox::enter()?.run_dir, &hosted)?;
    let method = Method {
        rounds: arguments.rounds,
        trial: Duration::from_secs_f64(arguments.seconds.max(0.2)),
        flows: arguments.flows,
        extra_rounds: EXTRA_ROUNDS,
    };
    let mut found = Vec::new();
    for scenario in or(&arguments.scenario, Scenario::ALL.to_vec()) {
        let (kinds, sizes) = (&arguments.dut, &arguments.size);
        let rows = rfc2544::measure(&mut rig, kinds, scenario, sizes, &method, |line| {
            println!("{line}");
        })?;
        found.extend(rows);
    }
    let table = rfc2544::markdown(&found);
    println!("\n{}\n\n{table}", versions::machine()?);
    if let Some(dir) = &arguments.out {
        std::fs::create_dir_all(dir)?;
        let head = format!("# Throughput and latency\n\n{}\n\n", versions::machine()?);
        std::fs::write(dir.join("rfc2544.md"), head + &table)?;
        let json = serde_json::to_string_pretty(&found)? + "\n";
        std::fs::write(dir.join("rfc2544.json"), json)?;
    }
    Ok(())
}

fn boot(arguments: &BootedArgs) -> Result<()> {
    let plan = arguments.plan()?;
    let samples = booted::run(&plan, &sandbox::enter()?.run_dir, |sample| {
        println!(
            "{:8}{:5}{:9.1} kpps {:6.2} % lost {:8.3} s to the first frame {:7.1} MiB \
             touched {:7.1} MiB resident {:6} cycles round trip",
            sample.guest,
            sample.scenario,
            sample.pps / 1e3,
            sample.loss * 100.0,
            sample.first_frame,
            sample.touched_mib,
            sample.resident_mib,
            sample.round_trip
        );
    })?;
    let report = booted::Report {
        machine: versions::machine()?,
        versions: versions::of_booted(&plan),
        samples,
    };
    println!("\n{}", report.markdown());
    if let Some(dir) = &arguments.out {
        report.write(dir)?;
    }
    Ok(())
}

fn measure_updates(arguments: &UpdatesArgs) -> Result<()> {
    let hosted = hosted(arguments.hosted.as_ref())?;
    let mut rig = Rig::new(&sandbox::enter()?.run_dir, &hosted)?;
    let method = updates::Method {
        scenario: arguments.scenario,
        flows: arguments.flows,
        sizes: arguments.size,
        rate: arguments.rate,
        rounds: arguments.rounds,
        span: Duration::from_secs_f64(arguments.seconds.max(1.0)),
    };
    let phases = updates::measure(&mut rig, &method, |phase| println!("{phase:?}"))?;
    let table = updates::markdown(&phases);
    println!("\n{}\n\n{table}", versions::machine()?);
    if let Some(dir) = &arguments.out {
        std::fs::create_dir_all(dir)?;
        let (scenario, flows, sizes) = (method.scenario, method.flows, method.sizes);
        let head = format!(
            "# Changes of the tables under load\n\n{}\n\n{scenario}, {flows} flows, {sizes} bytes.\n\n",
            versions::machine()?
        );
        std::fs::write(dir.join("updates.md"), head + &table)?;
        let json = serde_json::to_string_pretty(&phases)? + "\n";
        std::fs::write(dir.join("updates.json"), json)?;
    }
    Ok(())
}

/// A line of progress.
fn tell(sample: &Sample) {
    let Sample {
        device,
        scenario,
        flows,
        sizes,
        ..
    } = sample;
    let cycles = sample.cycles.iter().copied().reduce(f64::min);
    let cycles = cycles.map_or(String::new(), |cycles| format!("{cycles:.0} cycles"));
    println!(
        "{device:8}{scenario:5}{flows:>6}{sizes:>6}{:9.2} Mpps {cycles:>12} {:6.2} % lost \
         {:6} cycles round trip",
        sample.pps / 1e6,
        sample.loss * 100.0,
        sample.round_trip
    );
}
