//! Throughput as the paper has it (RFC 2544, section 26.1): by dichotomy, both
//! directions, to 0.1 %, 1 % of loss allowed; several rounds, of which the highest
//! and the lowest are removed and the others averaged. And latency at parts of what the
//! round found: the median of the rounds.
//!
//! As in [a run](crate::measure), the devices take turns, the other way round in every
//! second round: what slows the machine down for minutes slows them all. And rounds in which
//! the processors were near and those in which they were [far apart](proximity) are not
//! mixed: latencies of the latter are several times as long whatever the device.

use std::array::from_fn;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::dut::{DEVICE_CPU, Device, Kind};
use crate::generator::{Generator, Load, Span};
use crate::measure::{self, NEAR_ROUNDS, READY, Rig};
use crate::proximity;
use crate::realtime::Exclusive;
use crate::stats;
use crate::traffic::{Flows, Scenario, Sizes, Traffic};

/// How long each round waits for the processors to come near.
const PATIENCE: Duration = Duration::from_secs(10);
/// Loss that is allowed.
const LOSS: f64 = 0.01;
/// Resolution of the rate, as a part of it.
const RESOLUTION: f64 = 0.001;
/// How often a rate is tried until it passes: neighbours on the machine can make a
/// device lose what it would have forwarded, but not the other way round.
const TRIES: usize = 2;
/// How often a near round is done again if, at a part of the throughput that it found, more than
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
    /// Most further rounds for what was measured too seldom with the processors near.
    pub extra_rounds: usize,
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
    /// Cycles from the generator's processor to the device's and back; the most of
    /// several probes.
    pub round_trip: u64,
}

impl Round {
    /// Whether the device forwarded the parts of its throughput at which latency is taken.
    fn is_steady(&self) -> bool {
        self.lost.iter().all(|lost| *lost <= LOSS)
    }

    /// Whether the processors were far apart.
    fn is_far(&self) -> bool {
        proximity::is_far(self.round_trip)
    }
}

impl Display for Round {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [_, [_, p99, _]] = self.latency_us;
        let (mpps, far) = (self.pps / 1e6, mark(Some(self.is_far())));
        write!(f, "{mpps:.2} Mpps{far}, p99 at 90 % {p99:.1} µs")
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
    /// Whether those count in which the processors were far apart, or those in which they
    /// were near; all do if a device was only near and another one only far.
    pub far: Option<bool>,
    /// Mean of these rounds' frames per second without the highest and the lowest.
    pub pps: f64,
    /// The same in gigabits per second of frames with FCS, as VMs see them.
    pub gbps: f64,
    /// Medians of these rounds' latencies.
    pub latency_us: [[f64; 3]; 2],
}

impl Throughput {
    fn new(scenario: Scenario, cell: &Cell, far: Option<bool>) -> Result<Self> {
        let Cell {
            kind,
            sizes,
            rounds,
        } = cell;
        let counts = |round: &&Round| far.is_none_or(|far| round.is_far() == far);
        let counted: Vec<&Round> = rounds.iter().filter(counts).collect();
        let rates: Vec<f64> = counted.iter().map(|round| round.pps).collect();
        let pps = trimmed_mean(&rates).context("no rounds")?;
        let median = |part: usize, share: usize| {
            let of_rounds = counted
                .iter()
                .filter_map(|r| r.latency_us.get(part)?.get(share));
            let of_rounds: Vec<f64> = of_rounds.copied().collect();
            stats::median(&of_rounds).unwrap_or(f64::NAN)
        };
        let latency_us = from_fn(|part| from_fn(|share| median(part, share)));
        Ok(Throughput {
            device: kind.to_string(),
            scenario: kind.scenario(scenario).to_string(),
            sizes: sizes.to_string(),
            rounds: rounds.clone(),
            far,
            pps,
            gbps: pps * sizes.mean() * 8.0 / 1e9,
            latency_us,
        })
    }
}

/// A device at a size.
#[derive(Debug)]
struct Cell {
    kind: Kind,
    sizes: Sizes,
    rounds: Vec<Round>,
}

impl Cell {
    fn has(&self, far: bool) -> usize {
        let rounds = self.rounds.iter();
        rounds.filter(|round| round.is_far() == far).count()
    }

    /// Whether too few of so many rounds were with the processors near.
    fn is_wanting(&self, rounds: usize) -> bool {
        self.has(false) < NEAR_ROUNDS.min(rounds)
    }
}

/// Which rounds of cells that are compared count: those with the processors near where all
/// have some, else those with them far apart where all have some, else all.
fn far_of<'c>(cells: impl Iterator<Item = &'c Cell> + Clone) -> Option<bool> {
    let mut kinds = [false, true].into_iter();
    kinds.find(|far| cells.clone().all(|cell| cell.has(*far) > 0))
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
        cells.extend(sizes.iter().map(|sizes| Cell {
            kind: *kind,
            sizes: *sizes,
            rounds: Vec::new(),
        }));
    }
    for number in 0..method.rounds + method.extra_rounds {
        let is_extra = number >= method.rounds;
        for kind in measure::in_turn(kinds, number) {
            let wanted = cells
                .iter_mut()
                .filter(|cell| cell.kind == kind)
                .filter(|cell| !is_extra || cell.is_wanting(method.rounds));
            let wanted: Vec<&mut Cell> = wanted.collect();
            if wanted.is_empty() {
                continue;
            }
            let scenario = kind.scenario(scenario);
            let mut device = rig.start(kind, scenario)?;
            for cell in wanted {
                let name = format!("{kind}, {scenario}, {}, round {}", cell.sizes, number + 1);
                let traffic = Traffic::new(scenario, method.flows, cell.sizes);
                let found = round(rig, device.as_mut(), &traffic, method.trial);
                let found = found.with_context(|| name.clone())?;
                progress(&format!("{name}: {found}"));
                cell.rounds.push(found);
            }
        }
    }
    let found = cells.iter().map(|cell| {
        let compared = cells.iter().filter(|other| other.sizes == cell.sizes);
        Throughput::new(scenario, cell, far_of(compared))
    });
    found.collect()
}

/// Searches the throughput of a device, and takes latencies at parts of it.
fn round(rig: &Rig, device: &mut dyn Device, traffic: &Traffic, trial: Duration) -> Result<Round> {
    let mut generator = rig.generator(traffic);
    generator.wait_ready(READY)?;
    measure::warm_up(&mut generator)?;
    let mut round_trip = proximity::wait_near(DEVICE_CPU, PATIENCE)?;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let mut found = attempt(rig, device, &mut generator, trial)?;
        let after = proximity::round_trip(DEVICE_CPU)?;
        found.round_trip = found.round_trip.max(round_trip).max(after);
        // Those with the processors far apart hardly ever count.
        if found.is_steady() || found.is_far() || attempts > AGAIN {
            device.check()?;
            return Ok(found);
        }
        round_trip = after;
    }
}

/// One search, and latencies at parts of what it found; the round trip is of in between.
fn attempt(
    rig: &Rig,
    device: &dyn Device,
    generator: &mut Generator<'_>,
    trial: Duration,
) -> Result<Round> {
    let exclusive = Exclusive::take(device.pid(), DEVICE_CPU)?;
    let pps = throughput(generator, trial)?;
    drop(exclusive);
    let round_trip = proximity::round_trip(DEVICE_CPU)?;
    let _exclusive = Exclusive::take(device.pid(), DEVICE_CPU)?;
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
        round_trip,
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
            "| {} | {} | {} | {:.2}{} | {:.2} | {paper} | {} |\n",
            row.scenario,
            row.sizes,
            row.device,
            row.pps / 1e6,
            mark(row.far),
            row.gbps,
            latency.join(" | ")
        );
    }
    text + &compared(found)
}

/// Says which rounds count, if that is not those with the processors near.
fn mark(far: Option<bool>) -> &'static str {
    match far {
        Some(false) => "",
        Some(true) => "; far",
        None => "; near and far",
    }
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
                lost,
                ..round(1.0, 300)
            };
            assert_eq!(round.is_steady(), is_steady, "{lost:?}");
        }
    }

    fn round(p99: f64, round_trip: u64) -> Round {
        Round {
            pps: 1e6,
            latency_us: [[1.0, p99, 1.0]; 2],
            lost: [0.0; 2],
            round_trip,
        }
    }

    fn cell(kind: Kind, rounds: &[(f64, u64)]) -> Cell {
        Cell {
            kind,
            sizes: "64".parse().unwrap(),
            rounds: rounds
                .iter()
                .map(|(p99, trip)| round(*p99, *trip))
                .collect(),
        }
    }

    #[test]
    fn rounds_of_one_kind_are_compared() {
        const NEAR: u64 = 300;
        const FAR: u64 = 1250;
        let mixed: &[(f64, u64)] = &[(5.0, NEAR), (50.0, FAR), (60.0, FAR)];
        for (ours, ovs, far, p99) in [
            (mixed, mixed, Some(false), 5.0),
            (mixed, &mixed[1..], Some(true), 55.0),
            (&mixed[..1], &mixed[1..], None, 5.0),
        ] {
            let cells = [cell(Kind::Ours, ours), cell(Kind::Ovs, ovs)];
            assert_eq!(far_of(cells.iter()), far);
            let scenario = "S2b".parse().unwrap();
            let found = Throughput::new(scenario, &cells[0], far).unwrap();
            assert_eq!(found.latency_us[1][1], p99);
        }
        let ours = cell(Kind::Ours, mixed);
        assert_eq!([1, 3].map(|rounds| ours.is_wanting(rounds)), [false, true]);
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
