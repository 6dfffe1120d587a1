//! Instructions per packet, counted by callgrind: a figure that noise cannot move.
//!
//! A run under callgrind counts what [`crate::local`] does in the NVE's turns, and only
//! that. What each scenario may take is written down in `tests/bench/instructions.json`;
//! more than 3 % above is a failure, and more than 3 % below a figure to write down anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::local::Local;
use crate::traffic::{Flows, Scenario, Sizes, Traffic};

/// Bursts that are counted.
const BURSTS: u64 = 200;

/// Flows of each scenario.
const FLOWS: u32 = 1_000;

/// By how much a count may differ from what is written down.
const ALLOWANCE: f64 = 0.03;

/// Function whose instructions are counted, with all that it calls.
const COUNTED: &str = "*sluice_bench::local::counted*";

/// Instructions per packet, by scenario.
pub type Counts = BTreeMap<String, f64>;

/// What callgrind runs: a scenario, warmed up and then for a fixed number of bursts.
/// Prints how many packets there were, with those of the warm-up.
pub fn run_counted(scenario: Scenario, bursts: u64) -> Result<()> {
    let flows = Flows::new(FLOWS).context("no such number of flows")?;
    let mut local = Local::new(Traffic::new(scenario, flows, Sizes::Small))?;
    let outcome = local.run(bursts)?;
    println!("{}", outcome.packets);
    Ok(())
}

/// Counts every scenario. `say` hears of each as it is done.
pub fn count(mut say: impl FnMut(&str, f64)) -> Result<Counts> {
    let mut counts = Counts::new();
    for scenario in Scenario::ALL {
        // The difference of two runs is free of what comes before and after.
        let (none, before) = callgrind(scenario, 0)?;
        let (packets, after) = callgrind(scenario, BURSTS)?;
        ensure!(
            none == 0 && packets > 0 && after > before,
            "{scenario}: nothing was counted"
        );
        let each = (after - before) as f64 / packets as f64;
        say(&scenario.to_string(), each);
        counts.insert(scenario.to_string(), (each * 10.0).round() / 10.0);
    }
    Ok(counts)
}

/// Packets and instructions of a run.
fn callgrind(scenario: Scenario, bursts: u64) -> Result<(u64, u64)> {
    let out = std::env::temp_dir().join(format!("callgrind.{}.{scenario}", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["counted", &scenario.to_string(), &bursts.to_string()])
        .output()
        .context("valgrind")?;
    let text = fs::read_to_string(&out);
    // The directory may not have it, if the run failed.
    let _ = fs::remove_file(&out);
    if !output.status.success() {
        bail!("{scenario}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let packets = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    let text = text.with_context(|| out.display().to_string())?;
    let total = text
        .lines()
        .find_map(|line| {
            line.strip_prefix("summary: ")
                .or(line.strip_prefix("totals: "))
        })
        .context("callgrind wrote no sum")?;
    Ok((packets, total.trim().parse()?))
}

/// Where the counts are written down.
pub fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}

/// Reads what is written down.
pub fn read() -> Result<Counts> {
    let path = file();
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}

/// Writes counts down.
pub fn write(counts: &Counts) -> Result<()> {
    let mut text = serde_json::to_string_pretty(counts)?;
    text.push('\n');
    Ok(fs::write(file(), text)?)
}

/// Scenarios whose counts are further from those written down than they may be, with
/// both figures.
pub fn compare(counts: &Counts, written: &Counts) -> Vec<(String, f64, Option<f64>)> {
    let far = |(scenario, count): (&String, &f64)| {
        let expected = written.get(scenario).copied();
        let near = expected.is_some_and(|expected| (count / expected - 1.0).abs() <= ALLOWANCE);
        (!near).then(|| (scenario.clone(), *count, expected))
    };
    counts.iter().filter_map(far).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_percent_are_allowed() {
        let counts = |a: f64, b: f64| Counts::from([("S1a".into(), a), ("S1b".into(), b)]);
        let written = counts(100.0, 200.0);
        assert_eq!(compare(&counts(102.9, 194.1), &written), []);
        let far = compare(&counts(103.2, 193.8), &written);
        assert_eq!(far.len(), 2);
        let unknown = compare(&Counts::from([("S2a".into(), 1.0)]), &written);
        assert_eq!(unknown, [("S2a".into(), 1.0, None)]);
    }
}
