//! Throughput as the paper has it (RFC 2544, section 26.1): by dichotomy, both
//! directions, to 0.1 %, 1 % of loss allowed; several rounds, of which the highest
//! and the lowest are removed and the others averaged. And latency at parts of what the
//! round found: the median of the rounds.
//!
//! As in [a run](crate::measure), the devices take turns, the other way round in every
//! second round: what slows the machine down for minutes slows them all.

use std::array::from_fn;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::dut::{DEVICE_CPU, Device, Kind};
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
/// How often a round is done again if, at a part of the throughput that it found, more than
/// [`LOSS`] was lost: the machine has become slower meanwhile, and latencies are those of
/// full queues.
const AGAIN: usize = 2;
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

/// What one round found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Round {
    /// Frames per second, both directions together.
    pub pps: f64,
    /// At each part of [`LATENCY_AT`]: microseconds that 50 %, 99 % and 99.9 % of
    /// the frames took at most, generator included.
    pub latency_us: [[f64; 3]; 2],
    /// Frames that were lost meanwhile, as a part of those that were offered.
    pub lost: [f64; 2],
}

impl Round {
    /// Whether the device forwarded the parts of its throughput at which latency is taken.
    fn is_steady(&self) -> bool {
        self.lost.iter().all(|lost| *lost <= LOSS)
    }
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
    /// All rounds.
    pub rounds: Vec<Round>,
    /// Mean of the rounds' frames per second without the highest and the lowest.
    pub pps: f64,
    /// The same in gigabits per second of frames with FCS, as VMs see them.
    pub gbps: f64,
    /// Medians of the rounds' latencies.
    pub latency_us: [[f64; 3]; 2],
}

impl Throughput {
    fn new(kind: Kind, scenario: Scenario, sizes: Sizes, rounds: Vec<Round>) -> Result<Self> {
        let rates: Vec<f64> = rounds.iter().map(|round| round.pps).collect();
        let pps = trimmed_mean(&rates).context("no rounds")?;
        let median = |part: usize, share: usize| {
            let of_rounds = rounds
                .iter()
                .filter_map(|r| r.latency_us.get(part)?.get(share));
            let of_rounds: Vec<f64> = of_rounds.copied().collect();
            stats::median(&of_rounds).unwrap_or(f64::NAN)
        };
        let latency_us = from_fn(|part| from_fn(|share| median(part, share)));
        Ok(Throughput {
            device: kind.to_string(),
            scenario: scenario.to_string(),
            sizes: sizes.to_string(),
            rounds,
            pps,
            gbps: pps * sizes.mean() * 8.0 / 1e9,
            latency_us,
        })
    }
}

/// Measures the devices in one scenario at all sizes; `progress` is told of each round.
pub fn measure(
    rig: &mut Rig,
    kinds: &[Kind],
    scenario: Scenario,
    sizes: &[Sizes],
    method: &Method,
    progress: impl Fn(&str),
) -> Result<Vec<Throughput>> {
    let mut cells = Vec::new();
    for kind in kinds {
        cells.extend(sizes.iter().map(|sizes| (*kind, *sizes, Vec::new())));
    }
    for number in 0..method.rounds {
        for kind in measure::in_turn(kinds, number) {
            let scenario = kind.scenario(scenario);
            let mut device = rig.start(kind, scenario)?;
            for (_, sizes, rounds) in cells.iter_mut().filter(|(of, ..)| *of == kind) {
                let cell = format!("{kind}, {scenario}, {sizes}, round {}", number + 1);
                let traffic = Traffic::new(scenario, method.flows, *sizes);
                let found = round(rig, device.as_mut(), &traffic, method.trial)
                    .with_context(|| cell.clone())?;
                let [_, [_, p99, _]] = found.latency_us;
                let mpps = found.pps / 1e6;
                progress(&format!("{cell}: {mpps:.2} Mpps, p99 at 90 % {p99:.1} µs"));
                rounds.push(found);
            }
        }
    }
    let found = cells
        .into_iter()
        .map(|(kind, sizes, rounds)| Throughput::new(kind, kind.scenario(scenario), sizes, rounds));
    found.collect()
}

/// Searches the throughput of a device, and takes latencies at parts of it.
fn round(rig: &Rig, device: &mut dyn Device, traffic: &Traffic, trial: Duration) -> Result<Round> {
    let mut generator = rig.generator(traffic);
    generator.wait_ready(READY)?;
    measure::warm_up(&mut generator)?;
    proximity::wait_near(DEVICE_CPU, PATIENCE)?;
    let exclusive = Exclusive::take(device.pid(), DEVICE_CPU)?;
    let mut found = attempt(rig, &mut generator, trial)?;
    for _ in 0..AGAIN {
        if found.is_steady() {
            break;
        }
        found = attempt(rig, &mut generator, trial)?;
    }
    drop(exclusive);
    device.check()?;
    Ok(found)
}

/// One search, and latencies at parts of what it found.
fn attempt(rig: &Rig, generator: &mut Generator<'_>, trial: Duration) -> Result<Round> {
    let pps = throughput(generator, trial)?;
    let (mut latency_us, mut lost) = ([[f64::NAN; 3]; 2], [f64::NAN; 2]);
    for ((latency, lost), part) in latency_us.iter_mut().zip(&mut lost).zip(LATENCY_AT) {
        let run = generator.run(Load::Rate(pps * part), Span::Time(trial))?;
        *lost = run.counts.loss();
        *latency = [0.5, 0.99, 0.999].map(|share| {
            let cycles = run.latency.value_at_quantile(share);
            rig.clock().seconds(cycles) * 1e6
        });
    }
    Ok(Round {
        pps,
        latency_us,
        lost,
    })
}

fn throughput(generator: &mut Generator<'_>, trial: Duration) -> Result<f64> {
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
    text + &compared(found)
}

/// Says in how many cells our p99 at the higher load is no worse than OVS's, and where
/// it is.
fn compared(found: &[Throughput]) -> String {
    let of = |kind: Kind| {
        let name = kind.to_string();
        found.iter().filter(move |row| row.device == name)
    };
    let p99 = |row: &Throughput| row.latency_us[1][1];
    let (mut cells, mut worse) = (0, Vec::new());
    for ours in of(Kind::Ours) {
        let cell = (&ours.scenario, &ours.sizes);
        let Some(ovs) = of(Kind::Ovs).find(|ovs| (&ovs.scenario, &ovs.sizes) == cell) else {
            continue;
        };
        cells += 1;
        if p99(ours) > p99(ovs) {
            worse.push(format!("{} {}", ours.scenario, ours.sizes));
        }
    }
    let better = cells - worse.len();
    let worse = match worse.is_empty() {
        true => String::new(),
        false => format!(", worse in {}", worse.join(", ")),
    };
    match cells {
        0 => String::new(),
        _ => format!(
            "\np99 at 90 %: ours is no worse than OVS-DPDK's in {better} of {cells} cells{worse}.\n"
        ),
    }
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
    fn a_round_is_steady_if_parts_of_its_throughput_were_forwarded() {
        for (lost, is_steady) in [
            ([0.0, 0.01], true),
            ([0.0, 0.02], false),
            ([0.5, 0.0], false),
        ] {
            let round = Round {
                pps: 1e6,
                latency_us: [[1.0; 3]; 2],
                lost,
            };
            assert_eq!(round.is_steady(), is_steady, "{lost:?}");
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
