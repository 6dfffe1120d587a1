//! A run: every cell of the matrix in every round, the devices in turn.
//!
//! Neighbours on the machine make it faster and slower by the minute. So the devices
//! take turns for each scenario (A B, B A, A B), and what is compared was measured
//! close together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::backend::Nic;
use crate::clock::Clock;
use crate::dut::{DEVICE_CPU, Device, GENERATOR_CPU, Kind, Setup};
use crate::generator::{Counts, Generator, Load, Run, Span};
use crate::realtime::Exclusive;
use crate::stats;
use crate::traffic::{Flows, Scenario, Sizes, Traffic};

/// How long a device may take until it forwards.
pub const READY: Duration = Duration::from_secs(30);
/// Frames per second of the warm-up's first round.
const WARM_UP: f64 = 400_000.0;
/// Loss with which it is good enough: not all of it is the device's, since it has
/// no processor to itself yet.
const WARM_UP_LOSS: f64 = 0.01;
/// Most rounds of it.
const WARM_UPS: usize = 5;
/// Slices of a measurement.
const SLICES: u32 = 4;
/// How long a device settles under full load before it is measured.
const SETTLE: Duration = Duration::from_millis(300);

/// What is measured.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Devices under test.
    pub devices: Vec<Kind>,
    /// Scenarios.
    pub scenarios: Vec<Scenario>,
    /// Numbers of flows, ascending.
    pub flows: Vec<Flows>,
    /// Sizes of frames.
    pub sizes: Vec<Sizes>,
    /// How often.
    pub rounds: usize,
    /// How long each time.
    pub span: Duration,
}

/// One cell in one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// Device under test.
    pub device: String,
    /// Scenario that was asked for.
    pub scenario: String,
    /// Number of flows.
    pub flows: String,
    /// Sizes of frames.
    pub sizes: String,
    /// Which round, from 0.
    pub round: usize,
    /// Frames per second that came out right, both directions together: median of
    /// the windows.
    pub pps: f64,
    /// The best window's.
    pub pps_best: f64,
    /// Busy cycles per packet, of each interval in which the device counts.
    pub cycles: Vec<f64>,
    /// Part of the frames that the device took and did not forward.
    pub loss: f64,
    /// Frames that were checked.
    pub checked: u64,
}

/// The generator's side of the machine.
#[derive(Debug)]
pub struct Rig {
    clock: Clock,
    dir: PathBuf,
    trunk: (PathBuf, Nic),
    uplink: (PathBuf, Nic),
    /// Our NVE's program.
    hosted: PathBuf,
    devices_started: usize,
}

impl Rig {
    /// Takes the generator's processor for this thread and those it starts, and
    /// opens the sockets in `dir`.
    pub fn new(dir: &Path, hosted: &Path) -> Result<Rig> {
        let mut cpus = CpuSet::new();
        cpus.set(GENERATOR_CPU)?;
        sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot take processor 0")?;
        let listen = |name| -> Result<(PathBuf, Nic)> {
            let socket = dir.join(name);
            let nic = Nic::listen(&socket)?;
            Ok((socket, nic))
        };
        Ok(Rig {
            clock: Clock::calibrate(),
            dir: dir.to_owned(),
            trunk: listen("trunk.sock")?,
            uplink: listen("uplink.sock")?,
            hosted: hosted.to_owned(),
            devices_started: 0,
        })
    }

    /// Measures the whole matrix; `each` gets every sample as it is there.
    pub fn run(&mut self, matrix: &Matrix, mut each: impl FnMut(&Sample)) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for round in 0..matrix.rounds {
            for scenario in &matrix.scenarios {
                let mut devices = matrix.devices.clone();
                if round % 2 == 1 {
                    devices.reverse();
                }
                for kind in devices {
                    let mut turn = Turn {
                        kind,
                        scenario: *scenario,
                        round,
                    };
                    let found = self
                        .take_turn(&mut turn, matrix)
                        .with_context(|| format!("{kind}, {scenario}, round {}", round + 1))?;
                    found.iter().for_each(&mut each);
                    samples.extend(found);
                }
            }
        }
        Ok(samples)
    }

    fn take_turn(&mut self, turn: &mut Turn, matrix: &Matrix) -> Result<Vec<Sample>> {
        let scenario = turn.kind.scenario(turn.scenario);
        let mut device = self.start(turn.kind, scenario)?;
        // What does no work does not know flows either.
        let flows = match scenario {
            Scenario::Io => matrix.flows.get(..1),
            Scenario::Nve { .. } => matrix.flows.get(..),
        };
        let mut samples = Vec::new();
        for flows in flows.unwrap_or_default() {
            device.forget()?;
            for (number, sizes) in matrix.sizes.iter().enumerate() {
                let traffic = Traffic::new(scenario, *flows, *sizes);
                let mut generator = self.generator(&traffic);
                generator.wait_ready(READY)?;
                if number == 0 {
                    warm_up(&mut generator)?;
                }
                let (runs, cycles) = measure(&mut generator, device.as_mut(), matrix.span)?;
                samples.push(turn.sample(*flows, *sizes, &runs, cycles)?);
            }
        }
        Ok(samples)
    }

    /// Starts a device under test.
    pub fn start(&mut self, kind: Kind, scenario: Scenario) -> Result<Box<dyn Device>> {
        let dir = self.dir.join(format!("{:04}-{kind}", self.devices_started));
        self.devices_started += 1;
        kind.start(&Setup {
            scenario,
            dir: &dir,
            trunk: &self.trunk.0,
            uplink: &self.uplink.0,
            hosted: &self.hosted,
        })
    }

    /// A generator by the rig's NICs.
    pub fn generator<'a>(&'a self, traffic: &'a Traffic) -> Generator<'a> {
        Generator::new(traffic, self.clock, &self.trunk.1, &self.uplink.1)
    }

    /// The rig's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }
}

/// Sends each flow once in both directions, and again until nearly all come
/// through: then connections are there, and caches are filled.
pub fn warm_up(generator: &mut Generator<'_>) -> Result<()> {
    let mut rate = WARM_UP;
    for _ in 0..WARM_UPS {
        let run = generator.run(Load::Rate(rate), Span::EachFlow)?;
        if run.counts.loss() <= WARM_UP_LOSS {
            return Ok(());
        }
        rate /= 2.0;
    }
    bail!("in {WARM_UPS} rounds of the warm-up, slower and slower, frames were lost");
}

/// Measures in slices, so that one bad moment is not in all of them.
fn measure(
    generator: &mut Generator<'_>,
    device: &mut dyn Device,
    span: Duration,
) -> Result<(Vec<Run>, Vec<f64>)> {
    generator.run(Load::Full, Span::Time(SETTLE))?;
    device.mark()?;
    let mut runs = Vec::new();
    for _ in 0..SLICES {
        let exclusive = Exclusive::take(device.pid(), DEVICE_CPU)?;
        let run = generator.run(Load::Full, Span::Time(span / SLICES));
        drop(exclusive);
        device.check()?;
        device.sample()?;
        runs.push(run?);
    }
    Ok((runs, device.cycles()?))
}

/// A device's turn at a scenario.
#[derive(Debug)]
struct Turn {
    kind: Kind,
    scenario: Scenario,
    round: usize,
}

impl Turn {
    fn sample(&self, flows: Flows, sizes: Sizes, runs: &[Run], cycles: Vec<f64>) -> Result<Sample> {
        let windows: Vec<f64> = runs.iter().flat_map(|run| run.windows.clone()).collect();
        let counts: Counts = runs.iter().map(|run| run.counts.clone()).sum();
        Ok(Sample {
            device: self.kind.to_string(),
            scenario: self.scenario.to_string(),
            flows: flows.to_string(),
            sizes: sizes.to_string(),
            round: self.round,
            pps: stats::median(&windows).context("no window: measure for longer")?,
            pps_best: stats::greatest(&windows).context("no window")?,
            cycles,
            loss: counts.loss(),
            checked: counts.received,
        })
    }
}
