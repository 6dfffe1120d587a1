//! Booted: our image as a user boots it, and beside it a Linux guest that does the
//! same work, both in the same QEMU by the same generator.
//!
//! QEMU is the front end of vhost-user here: its guest's memory is shared with the
//! generator, and what the generator sees is the guest's own queues. The image gets
//! its tables from a shim, as always; see [`crate::door`].

mod linux;
mod machine;
mod report;
mod southbound;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::booted::machine::{Boot, Machine};
use crate::booted::southbound::Southbound;
use crate::door::Door;
use crate::dut::DEVICE_CPU;
use crate::generator::{Counts, Generator, Load, Run, Span};
use crate::measure::Wires;
use crate::proximity;
use crate::stats;
use crate::traffic::{
    Flows, SHIM, SHIM_MAC, Scenario, Sizes, Traffic, Unknown, boot_configuration, records,
};

pub use report::Report;

/// How long a guest may take until it forwards.
const FIRST: Duration = Duration::from_secs(120);
/// And then until it forwards nearly everything at a low rate.
const READY: Duration = Duration::from_secs(30);
/// Frames per second with which every flow passes before it is measured.
const WARM_UP: f64 = 20_000.0;
/// How long a guest settles under full load before it is measured.
const SETTLE: Duration = Duration::from_millis(500);
/// Slices of a measurement.
const SLICES: u32 = 4;
/// Bits of the uplink's prefix.
const PREFIX: u8 = 24;

/// The guests that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// Our image.
    Image,
    /// Debian's cloud kernel with VLAN devices, a bridge and a VXLAN device.
    Linux,
}

impl Guest {
    /// Both.
    pub const ALL: [Guest; 2] = [Guest::Image, Guest::Linux];

    /// Whether it can do this work: the Linux guest is only set up as a switch.
    fn can(self, scenario: Scenario) -> bool {
        match self {
            Guest::Image => scenario != Scenario::Io,
            Guest::Linux => linux::can(scenario),
        }
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Guest::Image => "image",
            Guest::Linux => "linux",
        })
    }
}

impl FromStr for Guest {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Guest, Unknown> {
        let mut all = Guest::ALL.into_iter();
        all.find(|guest| guest.to_string() == text)
            .ok_or(Unknown::expected("image or linux"))
    }
}

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The guests, in turn.
    pub guests: Vec<Guest>,
    /// Scenarios, for those guests that can do them.
    pub scenarios: Vec<Scenario>,
    /// Number of flows.
    pub flows: Flows,
    /// How often each is booted and measured.
    pub rounds: usize,
    /// How long each time.
    pub span: Duration,
    /// Our image.
    pub image: PathBuf,
    /// Directory with what the Linux guest is made of; see tests/bench/deps.sh.
    pub linux: PathBuf,
    /// MiB of memory of our image.
    pub image_memory: u32,
    /// MiB of memory of the Linux guest.
    pub linux_memory: u32,
}

/// One boot of one guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// The guest.
    pub guest: String,
    /// Scenario.
    pub scenario: String,
    /// Which round, from 0.
    pub round: usize,
    /// Seconds from the start of QEMU to the first frame that was forwarded and right.
    pub first_frame: f64,
    /// Frames per second that came out right, both directions together: median of
    /// the windows.
    pub pps: f64,
    /// The best window's.
    pub pps_best: f64,
    /// Part of the frames that the guest took and did not forward.
    pub loss: f64,
    /// Frames that were checked.
    pub checked: u64,
    /// Cycles from the generator's processor to the guest's and back.
    pub round_trip: u64,
    /// MiB of memory that the guest was given.
    pub given_mib: u32,
    /// MiB of it that it ever touched.
    pub touched_mib: f64,
    /// MiB of QEMU's resident set, the guest's memory among it.
    pub resident_mib: f64,
}

/// Measures all guests in all scenarios, in turn; `each` gets every sample as it is
/// there. Files are kept in `dir`.
pub fn run(plan: &Plan, dir: &Path, mut each: impl FnMut(&Sample)) -> Result<Vec<Sample>> {
    let wires = Wires::open(dir)?;
    let door = Door::open(SHIM_MAC, SHIM, PREFIX)?;
    let southbound = Southbound::start()?;
    let linux = dir.join("linux.cpio");
    if plan.guests.contains(&Guest::Linux) {
        linux::make_root(&plan.linux, &dir.join("root"), &linux)?;
    }
    let bench = Bench {
        plan,
        dir,
        wires,
        door,
        southbound,
        root: linux,
    };
    let mut samples = Vec::new();
    for round in 0..plan.rounds {
        for scenario in &plan.scenarios {
            for guest in plan.guests.iter().filter(|guest| guest.can(*scenario)) {
                let sample = bench.take_turn(*guest, *scenario, round);
                let sample =
                    sample.with_context(|| format!("{guest}, {scenario}, round {}", round + 1))?;
                each(&sample);
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

/// What all turns share.
struct Bench<'a> {
    plan: &'a Plan,
    dir: &'a Path,
    wires: Wires,
    door: Door,
    southbound: Southbound,
    /// The Linux guest's initial root file system.
    root: PathBuf,
}

impl Bench<'_> {
    fn take_turn(&self, guest: Guest, scenario: Scenario, round: usize) -> Result<Sample> {
        let dir = self.dir.join(format!("{round:02}-{scenario}-{guest}"));
        std::fs::create_dir_all(&dir)?;
        let boot = self.boot(guest, scenario, &dir)?;
        let traffic = Traffic::new(scenario, self.plan.flows, Sizes::Small);
        let mut generator = self.wires.generator(&traffic).with_door(&self.door);
        let mut machine = Machine::start(&boot, &dir)?;
        let first = generator.wait_first(FIRST, || machine.check());
        first.with_context(|| machine.tail())?;
        let first_frame = machine.age();
        generator.wait_ready(READY)?;
        machine.pin()?;
        let (runs, round_trip) = measure(&mut generator, &mut machine, self.plan.span)?;
        let usage = machine.usage()?;
        let windows: Vec<f64> = runs.iter().flat_map(|run| run.windows.clone()).collect();
        let counts: Counts = runs.iter().map(|run| run.counts.clone()).sum();
        Ok(Sample {
            guest: guest.to_string(),
            scenario: scenario.to_string(),
            round,
            first_frame: first_frame.as_secs_f64(),
            pps: stats::median(&windows).context("no window: measure for longer")?,
            pps_best: stats::greatest(&windows).context("no window")?,
            loss: counts.loss(),
            checked: counts.received,
            round_trip,
            given_mib: boot.memory,
            touched_mib: usage.touched,
            resident_mib: usage.resident,
        })
    }

    /// What QEMU is to boot.
    fn boot(&self, guest: Guest, scenario: Scenario, dir: &Path) -> Result<Boot> {
        let [trunk, uplink] = self.wires.sockets().map(Path::to_owned);
        Ok(match guest {
            Guest::Image => {
                let config = dir.join("config.json");
                std::fs::write(&config, boot_configuration(Some(self.southbound.key())))?;
                self.southbound.set(records(scenario));
                Boot {
                    kernel: self.plan.image.clone(),
                    initrd: config,
                    command_line: None,
                    memory: self.plan.image_memory,
                    trunk,
                    uplink,
                }
            }
            Guest::Linux => Boot {
                kernel: linux::kernel(&self.plan.linux),
                initrd: self.root.clone(),
                command_line: Some(linux::COMMAND_LINE),
                memory: self.plan.linux_memory,
                trunk,
                uplink,
            },
        })
    }
}

/// Measures under full load, in slices, so that one bad moment is not in all of them.
/// Also returns how far apart the processors were.
fn measure(
    generator: &mut Generator<'_>,
    machine: &mut Machine,
    span: Duration,
) -> Result<(Vec<Run>, u64)> {
    generator.run(Load::Rate(WARM_UP), Span::EachFlow)?;
    generator.run(Load::Full, Span::Time(SETTLE))?;
    let mut round_trip = 0;
    let mut runs = Vec::new();
    for _ in 0..SLICES {
        round_trip = round_trip.max(proximity::round_trip(DEVICE_CPU)?);
        let exclusive = machine.take_processors()?;
        let run = generator.run(Load::Full, Span::Time(span / SLICES));
        drop(exclusive);
        machine.check()?;
        runs.push(run?);
    }
    Ok((runs, round_trip))
}
