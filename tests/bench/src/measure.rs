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
use crate::dut::{DEVICE_CPU, Device, GENERATOR_CPU, Hosted, Kind, Setup};
use crate::generator::{Counts, Generator, Load, Run, Span};
use crate::proximity;
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
/// Rounds with the processors near that a cell should have, if there are so many: one
/// alone may be of a bad moment.
pub const NEAR_ROUNDS: usize = 2;

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
    /// Most further rounds for cells that were measured too seldom with the processors
    /// near.
    pub extra_rounds: usize,
    /// How long each time.
    pub span: Duration,
    /// How long to wait each time for the processors to come near.
    pub patience: Duration,
}

/// The devices in the order in which they are measured in a round: the other way round in
/// every second one.
pub fn in_turn(devices: &[Kind], round: usize) -> Vec<Kind> {
    let mut devices = devices.to_vec();
    if round % 2 == 1 {
        devices.reverse();
    }
    devices
}

impl Matrix {
    /// Who is measured in what order in a round.
    fn turns(&self, round: usize) -> Vec<Turn> {
        let devices = in_turn(&self.devices, round);
        let turns = self.scenarios.iter().flat_map(|scenario| {
            devices.iter().map(|kind| Turn {
                kind: *kind,
                scenario: *scenario,
                round,
            })
        });
        turns.collect()
    }
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
    /// Cycles from the generator's processor to the device's and back; the most of
    /// several probes.
    pub round_trip: u64,
    /// Part of the frames that the device took and did not forward.
    pub loss: f64,
    /// Frames that were checked.
    pub checked: u64,
}

impl Sample {
    /// Whether the processors were far apart when it was measured.
    pub fn is_far(&self) -> bool {
        proximity::is_far(self.round_trip)
    }
}

/// The generator's processor and NICs.
#[derive(Debug)]
pub struct Wires {
    clock: Clock,
    trunk: (PathBuf, Nic),
    uplink: (PathBuf, Nic),
}

impl Wires {
    /// Takes the generator's processor for this thread and those it starts, and
    /// opens the sockets in `dir`.
    pub fn open(dir: &Path) -> Result<Wires> {
        let mut cpus = CpuSet::new();
        cpus.set(GENERATOR_CPU)?;
        sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot take processor 0")?;
        let listen = |name| -> Result<(PathBuf, Nic)> {
            let socket = dir.join(name);
            let nic = Nic::listen(&socket)?;
            Ok((socket, nic))
        };
        Ok(Wires {
            clock: Clock::calibrate(),
            trunk: listen("trunk.sock")?,
            uplink: listen("uplink.sock")?,
        })
    }

    /// A generator by these NICs.
    pub fn generator<'a>(&'a self, traffic: &'a Traffic) -> Generator<'a> {
        Generator::new(traffic, self.clock, &self.trunk.1, &self.uplink.1)
    }

    /// The sockets of trunk and uplink.
    pub fn sockets(&self) -> [&Path; 2] {
        [&self.trunk.0, &self.uplink.0]
    }
}

/// The generator's side of the machine.
#[derive(Debug)]
pub struct Rig {
    wires: Wires,
    dir: PathBuf,
    /// Our NVE's program.
    hosted: PathBuf,
    devices_started: usize,
}

impl Rig {
    /// Takes the generator's processor for this thread and those it starts, and
    /// opens the sockets in `dir`.
    pub fn new(dir: &Path, hosted: &Path) -> Result<Rig> {
        Ok(Rig {
            wires: Wires::open(dir)?,
            dir: dir.to_owned(),
            hosted: hosted.to_owned(),
            devices_started: 0,
        })
    }

    /// Measures the whole matrix; `each` gets every sample as it is there.
    pub fn run(&mut self, matrix: &Matrix, mut each: impl FnMut(&Sample)) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for round in 0..matrix.rounds + matrix.extra_rounds {
            for turn in matrix.turns(round) {
                let mut cells = turn.cells(matrix);
                if round >= matrix.rounds {
                    cells.retain(|cell| turn.is_wanting(cell, matrix.rounds, &samples));
                }
                if cells.is_empty() {
                    continue;
                }
                let found = self.take_turn(&turn, &cells, matrix);
                let found = found.with_context(|| {
                    format!("{}, {}, round {}", turn.kind, turn.scenario, round + 1)
                })?;
                found.iter().for_each(&mut each);
                samples.extend(found);
            }
        }
        Ok(samples)
    }

    fn take_turn(&mut self, turn: &Turn, cells: &[Cell], matrix: &Matrix) -> Result<Vec<Sample>> {
        let scenario = turn.kind.scenario(turn.scenario);
        let mut device = self.start(turn.kind, scenario)?;
        let mut samples = Vec::new();
        let mut known = None;
        for cell in cells {
            let is_new = known.replace(cell.flows) != Some(cell.flows);
            if is_new {
                device.forget()?;
            }
            let traffic = Traffic::new(scenario, cell.flows, cell.sizes);
            let mut generator = self.generator(&traffic);
            generator.wait_ready(READY)?;
            if is_new {
                warm_up(&mut generator)?;
            }
            let finding = measure(&mut generator, device.as_mut(), matrix)?;
            samples.push(turn.sample(cell, finding)?);
        }
        Ok(samples)
    }

    /// Starts a device under test.
    pub fn start(&mut self, kind: Kind, scenario: Scenario) -> Result<Box<dyn Device>> {
        let dir = self.next_dir(kind);
        kind.start(&self.setup(scenario, &dir))
    }

    /// Starts our NVE, with tables that can change by so many transactions per second.
    pub fn start_changing(&mut self, scenario: Scenario, rate: u32) -> Result<Hosted> {
        let dir = self.next_dir(Kind::Ours);
        Hosted::start_changing(&self.setup(scenario, &dir), rate)
    }

    fn next_dir(&mut self, kind: Kind) -> PathBuf {
        self.devices_started += 1;
        self.dir.join(format!("{:04}-{kind}", self.devices_started))
    }

    fn setup<'a>(&'a self, scenario: Scenario, dir: &'a Path) -> Setup<'a> {
        let [trunk, uplink] = self.wires.sockets();
        Setup {
            scenario,
            dir,
            trunk,
            uplink,
            hosted: &self.hosted,
        }
    }

    /// A generator by the rig's NICs.
    pub fn generator<'a>(&'a self, traffic: &'a Traffic) -> Generator<'a> {
        self.wires.generator(traffic)
    }

    /// The rig's clock.
    pub fn clock(&self) -> Clock {
        self.wires.clock
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

/// What was measured of a cell.
#[derive(Debug)]
struct Finding {
    runs: Vec<Run>,
    cycles: Vec<f64>,
    round_trip: u64,
}

/// Measures in slices, so that one bad moment is not in all of them.
fn measure(
    generator: &mut Generator<'_>,
    device: &mut dyn Device,
    matrix: &Matrix,
) -> Result<Finding> {
    let span = matrix.span;
    let mut round_trip = proximity::wait_near(DEVICE_CPU, matrix.patience)?;
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
        round_trip = round_trip.max(proximity::round_trip(DEVICE_CPU)?);
    }
    Ok(Finding {
        runs,
        cycles: device.cycles()?,
        round_trip,
    })
}

/// What is measured at once of a device in a scenario.
#[derive(Debug, Clone, Copy)]
struct Cell {
    flows: Flows,
    sizes: Sizes,
}

/// A device's turn at a scenario.
#[derive(Debug)]
struct Turn {
    kind: Kind,
    scenario: Scenario,
    round: usize,
}

impl Turn {
    /// What it measures in a whole round, by flows.
    fn cells(&self, matrix: &Matrix) -> Vec<Cell> {
        // What does no work does not know flows either.
        let flows = match self.kind.scenario(self.scenario) {
            Scenario::Io => matrix.flows.get(..1),
            Scenario::Nve { .. } => matrix.flows.get(..),
        };
        let flows = flows.unwrap_or_default().iter();
        let cells = flows.flat_map(|flows| {
            matrix.sizes.iter().map(|sizes| Cell {
                flows: *flows,
                sizes: *sizes,
            })
        });
        cells.collect()
    }

    /// Whether the device's samples of a cell are too few with the processors near, after
    /// so many rounds.
    fn is_wanting(&self, cell: &Cell, rounds: usize, samples: &[Sample]) -> bool {
        let (device, scenario) = (self.kind.to_string(), self.scenario.to_string());
        let (flows, sizes) = (cell.flows.to_string(), cell.sizes.to_string());
        let near = samples.iter().filter(|sample| {
            (&sample.device, &sample.scenario) == (&device, &scenario)
                && (&sample.flows, &sample.sizes) == (&flows, &sizes)
                && !sample.is_far()
        });
        near.count() < NEAR_ROUNDS.min(rounds)
    }

    fn sample(&self, cell: &Cell, finding: Finding) -> Result<Sample> {
        let Finding {
            runs,
            cycles,
            round_trip,
        } = finding;
        let windows: Vec<f64> = runs.iter().flat_map(|run| run.windows.clone()).collect();
        let counts: Counts = runs.iter().map(|run| run.counts.clone()).sum();
        Ok(Sample {
            device: self.kind.to_string(),
            scenario: self.scenario.to_string(),
            flows: cell.flows.to_string(),
            sizes: cell.sizes.to_string(),
            round: self.round,
            pps: stats::median(&windows).context("no window: measure for longer")?,
            pps_best: stats::greatest(&windows).context("no window")?,
            cycles,
            round_trip,
            loss: counts.loss(),
            checked: counts.received,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_were_near_in_too_few_rounds_are_wanting() {
        let scenario: Scenario = "S2b".parse().unwrap();
        let matrix = Matrix {
            devices: vec![Kind::Ours],
            scenarios: vec![scenario],
            flows: ["1k", "1M"].map(|flows| flows.parse().unwrap()).to_vec(),
            sizes: ["64", "1518"].map(|sizes| sizes.parse().unwrap()).to_vec(),
            rounds: 3,
            extra_rounds: 2,
            span: Duration::ZERO,
            patience: Duration::ZERO,
        };
        let turns = matrix.turns(0);
        let turn = turns.first().unwrap();
        let cells = turn.cells(&matrix);
        assert_eq!(cells.len(), 4);
        let sample = |cell: &Cell, round_trip| Sample {
            device: turn.kind.to_string(),
            scenario: turn.scenario.to_string(),
            flows: cell.flows.to_string(),
            sizes: cell.sizes.to_string(),
            round: 0,
            pps: 1.0,
            pps_best: 1.0,
            cycles: Vec::new(),
            round_trip,
            loss: 0.0,
            checked: 1,
        };
        let wanting = |rounds, samples: &[Sample]| -> Vec<bool> {
            let cells = cells.iter();
            let wanting = cells.map(|cell| turn.is_wanting(cell, rounds, samples));
            wanting.collect()
        };
        let mut samples: Vec<Sample> = cells.iter().map(|cell| sample(cell, 300)).collect();
        assert_eq!(wanting(3, &samples), [true; 4]);
        assert_eq!(wanting(1, &samples), [false; 4]);
        samples.push(sample(&cells[1], 300));
        samples.push(sample(&cells[2], 1250));
        assert_eq!(wanting(3, &samples), [true, false, true, true]);
    }
}
