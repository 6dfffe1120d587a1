//! `sluice-lab figures`: what the product is measured by.

pub(crate) mod full_house;

use std::fmt;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifacts::Artifacts;
use crate::process;
use crate::qemu::Machine;
use crate::site::Site;

/// Most bytes of the image.
const IMAGE_GOAL: u64 = 2 << 20;

/// Most per cent of a core that an idle NVE takes.
const IDLE_GOAL: f64 = 5.0;

/// How long an idle NVE is watched.
const IDLE: Duration = Duration::from_secs(20);

/// How long it gets to become idle.
const SETTLE: Duration = Duration::from_secs(5);

/// A figure, and whether it is as it should be.
pub(crate) struct Figure {
    what: String,
    value: String,
    goal: String,
    met: bool,
}

impl Figure {
    fn new(what: &str, value: String, goal: &str, met: bool) -> Figure {
        Figure {
            what: what.to_owned(),
            value,
            goal: goal.to_owned(),
            met,
        }
    }

    /// Whether it is as it should be.
    pub(crate) fn is_met(&self) -> bool {
        self.met
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figure {
            what, value, goal, ..
        } = self;
        let verdict = if self.met { "" } else { "MISSED" };
        write!(f, "{what:52}{value:>16}   {goal:16}{verdict}")
    }
}

/// Measures and prints all figures; whether each is as it should be.
pub fn run(dir: &Path) -> Result<bool> {
    let artifacts = Artifacts::find()?;
    let mut figures = vec![image(&artifacts)?];
    figures.extend(six_vms(&dir.join("six"), &artifacts)?);
    figures.extend(full_house::measure(&dir.join("full"), &artifacts)?);
    println!("\n{}\n", machine()?);
    for figure in &figures {
        println!("{figure}");
    }
    Ok(figures.iter().all(Figure::is_met))
}

/// Date and machine, which figures mean nothing without.
fn machine() -> Result<String> {
    let date = process::run("date", ["+%F"])?;
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model
        .unwrap_or("unknown")
        .trim_start_matches(['\t', ':', ' ']);
    let cores = thread::available_parallelism()?;
    Ok(format!("{}, {model}, {cores} cores", date.trim()))
}

fn image(artifacts: &Artifacts) -> Result<Figure> {
    let size = fs::metadata(&artifacts.image)?.len();
    let text = format!("{} KiB", size / 1024);
    Ok(Figure::new("image", text, "under 2 MiB", size < IMAGE_GOAL))
}

/// An NVE at work with six VMs: boot, and load when nothing happens.
fn six_vms(dir: &Path, artifacts: &Artifacts) -> Result<Vec<Figure>> {
    let site = Site::with_six_vms(dir, artifacts)?;
    let accelerator = site.nve(0)?.machine.profile().accelerator.name();
    let state = site.nve_state("nve-a")?;
    let boot = state["image"]["boot_us"].as_u64().context("no boot time")?;
    println!("watching an idle NVE for {} s", IDLE.as_secs());
    thread::sleep(SETTLE);
    let load = load(&site.nve(0)?.machine)?;
    Ok(vec![
        Figure::new(
            &format!("boot, entry to poll loop, {accelerator}"),
            format!("{} ms", boot / 1000),
            "",
            true,
        ),
        Figure::new(
            &format!("idle NVE, QEMU included, {accelerator}"),
            format!("{load:.1} % of a core"),
            "under 5 %",
            load < IDLE_GOAL,
        ),
    ])
}

/// Per cent of a core that a machine takes.
fn load(machine: &Machine) -> Result<f64> {
    let pid = machine.pid().context("QEMU is not running")?;
    let before = cpu_ticks(pid)?;
    thread::sleep(IDLE);
    let ticks = cpu_ticks(pid)? - before;
    let per_second: f64 = process::run("getconf", ["CLK_TCK"])?.trim().parse()?;
    Ok(100.0 * f64::from(ticks) / per_second / IDLE.as_secs_f64())
}

/// User and system time of a process in clock ticks (proc(5), `stat` fields 14, 15).
fn cpu_ticks(pid: u32) -> Result<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no command name")?;
    let times = fields.split_whitespace().skip(11).take(2);
    times.map(|ticks| Ok(ticks.parse::<u32>()?)).sum()
}
