//! Our NVE as a process: `nve-hosted`.
//!
//! It prints one JSON object per line at each interval, cumulative since its start;
//! what was busy per packet is the difference of two lines.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nve_protocol::Record;
use serde::Deserialize;
use sluice_lab::netns::Netns;
use sluice_lab::process::Daemon;

use super::{DEVICE_CPU, Device, Setup, file};
use crate::traffic::{boot_configuration, other_records, records};

/// Seconds between two lines.
const INTERVAL: f64 = 0.25;

/// MiB that it sizes its tables, flow cache and connections for: a million flows.
const MEMORY: &str = "3072";

/// The line's members that are of interest here.
#[derive(Debug, Clone, Deserialize)]
struct Statistics {
    uptime_ms: u64,
    packets: u64,
    busy_cycles: u64,
    generation: u64,
    drops: BTreeMap<String, u64>,
}

/// A running NVE.
#[derive(Debug)]
pub struct Hosted {
    daemon: Daemon,
    log: PathBuf,
    /// How many lines there were at the mark.
    seen: usize,
}

impl Hosted {
    pub(super) fn start(setup: &Setup<'_>) -> Result<Hosted> {
        Hosted::start_with(setup, &[])
    }

    /// Starts one whose tables can change, by so many transactions per second.
    pub(crate) fn start_changing(setup: &Setup<'_>, rate: u32) -> Result<Hosted> {
        let changes = file(setup, "changes.jsonl");
        fs::create_dir_all(setup.dir)?;
        fs::write(&changes, lines(&other_records())?)?;
        let (changes, rate) = (changes.display().to_string(), rate.to_string());
        Hosted::start_with(setup, &["--churn", &changes, "--churn-rate", &rate])
    }

    fn start_with(setup: &Setup<'_>, arguments: &[&str]) -> Result<Hosted> {
        let (config, tables) = (file(setup, "config.json"), file(setup, "tables.jsonl"));
        fs::write(&config, boot_configuration(None))?;
        fs::write(&tables, lines(&records(setup.scenario))?)?;
        let log = file(setup, "hosted.log");
        let mut command = Command::new(setup.hosted);
        // The image maps its memory by large pages; a process has to ask for some.
        command.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");
        command
            .args(["--cpu", &DEVICE_CPU.to_string()])
            .args(["--stats", &INTERVAL.to_string()])
            .args(arguments)
            .args(["--huge", "--memory", MEMORY])
            .arg("--trunk")
            .arg(setup.trunk)
            .arg("--uplink")
            .arg(setup.uplink)
            .arg("--config")
            .arg(&config)
            .arg("--tables")
            .arg(&tables);
        let daemon = Daemon::spawn("nve-hosted", &Netns::current()?, &mut command, &log)?;
        Ok(Hosted {
            daemon,
            log,
            seen: 0,
        })
    }

    /// Has its tables change from now on, or stay as they are.
    pub(crate) fn change(&self, on: bool) -> Result<()> {
        let signal = if on { Signal::SIGUSR1 } else { Signal::SIGUSR2 };
        let pid = i32::try_from(self.daemon.pid())?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Transactions per second since [`Device::mark`], of each interval.
    pub(crate) fn changes(&self) -> Result<Vec<f64>> {
        let per_second = |lines: &[Statistics]| {
            let [before, after] = lines else { return None };
            let millis = after.uptime_ms.saturating_sub(before.uptime_ms).max(1);
            let changes = after.generation.saturating_sub(before.generation);
            Some(changes as f64 * 1e3 / millis as f64)
        };
        let lines = self.lines()?;
        let lines = lines.get(self.seen..).unwrap_or_default();
        Ok(lines.windows(2).filter_map(per_second).collect())
    }

    /// Frames that it has dropped since its start, but for those that found no room in
    /// the generator's queue.
    pub(crate) fn drops(&self) -> Result<u64> {
        let lines = self.lines()?;
        let Some(line) = lines.last() else {
            return Ok(0);
        };
        let own = line
            .drops
            .iter()
            .filter(|(reason, _)| *reason != "queue_full");
        Ok(own.map(|(_, count)| count).sum())
    }

    /// What it has printed so far.
    fn lines(&self) -> Result<Vec<Statistics>> {
        let text = fs::read_to_string(&self.log)
            .with_context(|| format!("cannot read {}", self.log.display()))?;
        // Others are messages; the last one may not be complete yet.
        let whole = text.rfind('\n').and_then(|end| text.get(..end));
        let lines = whole.unwrap_or_default().lines();
        let lines = lines.filter(|line| line.starts_with('{'));
        lines
            .map(|line| serde_json::from_str(line).with_context(|| format!("nve-hosted: {line}")))
            .collect()
    }
}

impl Device for Hosted {
    fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    fn check(&mut self) -> Result<()> {
        self.daemon.check()
    }

    fn forget(&mut self) -> Result<()> {
        // A larger number of flows has all flows of a smaller one in it.
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        self.seen = self.lines()?.len();
        Ok(())
    }

    fn cycles(&mut self) -> Result<Vec<f64>> {
        // The first line after the mark begins an interval that is all after it.
        let lines = self.lines()?;
        let lines = lines.get(self.seen..).unwrap_or_default();
        Ok(lines.windows(2).filter_map(per_packet).collect())
    }
}

/// Records as in files.
fn lines(records: &[Record]) -> Result<String> {
    let mut lines = String::new();
    for record in records {
        lines += &serde_json::to_string(record)?;
        lines.push('\n');
    }
    Ok(lines)
}

fn per_packet(lines: &[Statistics]) -> Option<f64> {
    let [before, after] = lines else { return None };
    let packets = after.packets.saturating_sub(before.packets);
    let cycles = after.busy_cycles.saturating_sub(before.busy_cycles);
    (packets > 0).then(|| cycles as f64 / packets as f64)
}
