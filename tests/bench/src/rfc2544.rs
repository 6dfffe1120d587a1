//! Throughput as the paper has it (RFC 2544, section 26.1): by dichotomy, both
//! directions, to 0.1 %, 1 % of loss allowed; several rounds, of which the highest
//! and the lowest are removed and the others averaged. And latency at parts of it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::dut::{DEVICE_CPU, Kind};
use crate::generator::{Generator, Load, Span};
use crate::measure::{self, READY, Rig};
use crate::proximity;
use crate::realtime::Exclusive;
use crate::stats;
use crate::traffic::{Flows, Scenario, Sizes, Traffic};

/// How long each round waits for the processors to come near.
const PATIENCE: Duration = Duration::from_secs(20);
/// Loss that is allowed.
const LOSS: f64 = 0.01;
/// Resolution of the rate, as a part of it.
const RESOLUTION: f64 = 0.001;
/// How often a rate is tried until it passes: neighbours on the machine can make a
/// device lose what it would have forwarded, but not the other way round.
const TRIES: usize = 2;
/// Where the search begins, over what full load gave.
const HEADROOM: f64 = 1.2;
/// Parts of the throughput at which latency is measured.
pub const LATENCY_AT: [f64; 2] = [0.5, 0.9];

/// How the search is done.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// How often.
    pub rounds: usize,
    /// How long each rate is tried.
    pub trial: Duration,
    /// Number of flows.
    pub flows: Flows,
}

/// Throughput of one device in one scenario at one size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Throughput {
    /// Device under test.
    pub device: String,
    /// Scenario.
    pub scenario: String,
    /// Sizes of frames.
    pub sizes: String,
    /// Frames per second, both directions together, of each round.
    pub rounds: Vec<f64>,
    /// Their mean without the highest and the lowest.
    pub pps: f64,
    /// The same in gigabits per second of frames with FCS, as VMs see them.
    pub gbps: f64,
    /// At each part of [`LATENCY_AT`]: microseconds that 50 %, 99 % and 99.9 % of
    /// the frames took at most, generator included.
    pub latency_us: Vec<[f64; 3]>,
}

/// Measures a device in one scenario at all sizes.
pub fn measure(
    rig: &mut Rig,
    kind: Kind,
    scenario: Scenario,
    sizes: &[Sizes],
    method: &Method,
) -> Result<Vec<Throughput>> {
    let scenario = kind.scenario(scenario);
    let mut device = rig.start(kind, scenario)?;
    let mut found = Vec::new();
    for sizes in sizes {
        let traffic = Traffic::new(scenario, method.flows, *sizes);
        let mut generator = rig.generator(&traffic);
        generator.wait_ready(READY)?;
        measure::warm_up(&mut generator)?;
        let rounds: Result<Vec<f64>> = (0..method.rounds)
            .map(|_| {
                proximity::wait_near(DEVICE_CPU, PATIENCE)?;
                let _exclusive = Exclusive::take(device.pid(), DEVICE_CPU)?;
                round(&mut generator, method.trial)
            })
            .collect();
        let rounds = rounds.with_context(|| format!("{kind}, {scenario}, {sizes}"))?;
        let pps = trimmed_mean(&rounds).context("no rounds")?;
        proximity::wait_near(DEVICE_CPU, PATIENCE)?;
        let exclusive = Exclusive::take(device.pid(), DEVICE_CPU)?;
        let latency_us = LATENCY_AT
            .iter()
            .map(|part| latency(&mut generator, rig, pps * part, method.trial))
            .collect::<Result<_>>()?;
        drop(exclusive);
        device.check()?;
        found.push(Throughput {
            device: kind.to_string(),
            scenario: scenario.to_string(),
            sizes: sizes.to_string(),
            rounds,
            pps,
            gbps: pps * sizes.mean() * 8.0 / 1e9,
            latency_us,
        });
    }
    Ok(found)
}

fn round(generator: &mut Generator<'_>, trial: Duration) -> Result<f64> {
    let full = generator.run(Load::Full, Span::Time(trial))?;
    let most = stats::greatest(&full.windows).context("a trial is too short")?;
    search(most * HEADROOM, |rate| {
        for _ in 0..TRIES {
            let run = generator.run(Load::Rate(rate), Span::Time(trial))?;
            if run.counts.loss() <= LOSS {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// The highest rate below `most` that passes, to the resolution.
fn search(most: f64, mut passes: impl FnMut(f64) -> Result<bool>) -> Result<f64> {
    let (mut low, mut high) = (0.0, most);
    // What is below the resolution of the whole range is nothing.
    while high - low > high.max(most * RESOLUTION) * RESOLUTION {
        let rate = (low + high) / 2.0;
        if passes(rate)? {
            low = rate;
        } else {
            high = rate;
        }
    }
    Ok(low)
}

fn trimmed_mean(rounds: &[f64]) -> Option<f64> {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let inner = match sorted.as_slice() {
        [_, inner @ .., _] if !inner.is_empty() => inner,
        all => all,
    };
    let sum: f64 = inner.iter().sum();
    (!inner.is_empty()).then(|| sum / inner.len() as f64)
}

fn latency(
    generator: &mut Generator<'_>,
    rig: &Rig,
    rate: f64,
    trial: Duration,
) -> Result<[f64; 3]> {
    let run = generator.run(Load::Rate(rate), Span::Time(trial))?;
    Ok([0.5, 0.99, 0.999].map(|part| {
        let cycles = run.latency.value_at_quantile(part);
        rig.clock().seconds(cycles) * 1e6
    }))
}

/// The paper's TABLE VI in Gbit/s: scenario, 64 bytes, 1518 bytes, mixed.
const PAPER: [(&str, [f64; 3]); 4] = [
    ("S2", [0.55, 6.5, 1.7]),
    ("S4", [0.46, 6.7, 2.2]),
    ("S1", [0.51, 7.0, 2.1]),
    ("S3", [0.62, 5.8, 2.2]),
];

/// The paper's figure, if it has one.
fn paper(scenario: &str, sizes: &str) -> Option<f64> {
    let row = PAPER.iter().find(|(name, _)| scenario.starts_with(name));
    let (_, [small, large, mixed]) = row?;
    match sizes {
        "64" => Some(*small),
        "1518" => Some(*large),
        "imix" => Some(*mixed),
        _ => None,
    }
}

/// The table, in Markdown.
pub fn markdown(found: &[Throughput]) -> String {
    let mut text = "| scenario | size | device | Mpps | Gbit/s | paper, Gbit/s | \
         p50/p99/p99.9 at 50 %, µs | at 90 %, µs |\n|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for row in found {
        let paper = paper(&row.scenario, &row.sizes);
        let paper = paper.map_or(String::new(), |gbps| gbps.to_string());
        let latency: Vec<String> = row
            .latency_us
            .iter()
            .map(|[a, b, c]| format!("{a:.1} / {b:.1} / {c:.1}"))
            .collect();
        text += &format!(
            "| {} | {} | {} | {:.2} | {:.2} | {paper} | {} |\n",
            row.scenario,
            row.sizes,
            row.device,
            row.pps / 1e6,
            row.gbps,
            latency.join(" | ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_finds_the_limit() {
        for limit in [0.0, 1.0, 3.7e6, 9.99e6] {
            let mut trials = 0;
            let found = search(1e7, |rate| {
                trials += 1;
                Ok(rate <= limit)
            });
            let found = found.unwrap();
            assert!(found <= limit);
            assert!(limit - found <= 1e7 * 2.0 * RESOLUTION, "{limit} {found}");
            assert!(trials < 25);
        }
    }

    #[test]
    fn highest_and_lowest_do_not_count() {
        assert_eq!(trimmed_mean(&[9.0, 1.0, 2.0, 3.0, 4.0]), Some(3.0));
        assert_eq!(trimmed_mean(&[2.0, 4.0]), Some(3.0));
        assert_eq!(trimmed_mean(&[]), None);
    }

    #[test]
    fn the_paper_is_quoted() {
        assert_eq!(paper("S4b", "64"), Some(0.46));
        assert_eq!(paper("S1a", "imix"), Some(2.1));
        assert_eq!(paper("io", "64"), None);
    }
}
