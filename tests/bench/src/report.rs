//! What a run found, as a table, JSON and a plot.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::dut::Kind;
use crate::measure::Sample;
use crate::plot;
use crate::stats;
use crate::traffic::Scenario;

/// Everything that one run found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// When and where it was run.
    pub machine: String,
    /// Versions of what was measured.
    pub versions: Vec<String>,
    /// Every cell in every round.
    pub samples: Vec<Sample>,
}

/// A place in the matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Scenario.
    pub scenario: String,
    /// Number of flows.
    pub flows: String,
    /// Sizes of frames.
    pub sizes: String,
}

/// A device's figures at one place, over all rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Frames per second, sum of both directions: median of the rounds.
    pub pps: f64,
    /// The slowest and the fastest round's.
    pub range: [f64; 2],
    /// The best window's.
    pub best: f64,
    /// Busy cycles per packet, median and best, if the device counts them.
    pub cycles: Option<[f64; 2]>,
    /// Median part of frames that the device took and lost.
    pub loss: f64,
    /// Whether the processors were far apart in the rounds that count.
    pub far: bool,
}

impl Report {
    /// The places, in the order in which they were measured.
    pub fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for sample in &self.samples {
            let place = Place {
                scenario: sample.scenario.clone(),
                flows: sample.flows.clone(),
                sizes: sample.sizes.clone(),
            };
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    /// A device's figures at a place, of rounds in which the processors were near, or
    /// of those in which they were far apart.
    fn figures_of(&self, kind: Kind, place: &Place, far: bool) -> Option<Figures> {
        // What does no work has the same ones for every number of flows.
        let works = kind.scenario(Scenario::ALL[0]) != Scenario::Io;
        let here = |sample: &&Sample| {
            sample.device == kind.to_string()
                && sample.scenario == place.scenario
                && sample.sizes == place.sizes
                && (sample.flows == place.flows || !works)
                && sample.is_far() == far
        };
        let samples: Vec<&Sample> = self.samples.iter().filter(here).collect();
        let rates: Vec<f64> = samples.iter().map(|sample| sample.pps).collect();
        let best: Vec<f64> = samples.iter().map(|sample| sample.pps_best).collect();
        let losses: Vec<f64> = samples.iter().map(|sample| sample.loss).collect();
        let cycles: Vec<f64> = samples
            .iter()
            .flat_map(|sample| sample.cycles.iter().copied())
            .collect();
        let cycles = stats::median(&cycles).zip(stats::least(&cycles));
        Some(Figures {
            pps: stats::median(&rates)?,
            range: [stats::least(&rates)?, stats::greatest(&rates)?],
            best: stats::greatest(&best)?,
            cycles: cycles.map(<[f64; 2]>::from),
            loss: stats::median(&losses)?,
            far,
        })
    }

    /// All devices' figures at a place, in the order of [`Kind::ALL`]. Those who were
    /// measured with the processors near and those who were not cannot be compared:
    /// near where all were, else far where all were, else what there is.
    pub fn figures(&self, place: &Place) -> [Option<Figures>; 3] {
        let all = |far| Kind::ALL.map(|kind| self.figures_of(kind, place, far));
        let (near, far) = (all(false), all(true));
        let complete = |some: &[Option<Figures>; 3], others: &[Option<Figures>; 3]| {
            let mut both = some.iter().zip(others);
            both.all(|(some, other)| some.is_some() || other.is_none())
        };
        if complete(&near, &far) {
            near
        } else if complete(&far, &near) {
            far
        } else {
            let mut far = far.into_iter();
            near.map(|figures| figures.or(far.next().flatten()))
        }
    }

    /// Writes `bench.md`, `bench.json` and `bench.svg` into `dir`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        let put = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        put("bench.md", self.markdown())?;
        put("bench.json", serde_json::to_string_pretty(self)? + "\n")?;
        put("bench.svg", plot::draw(self))
    }

    /// The tables, in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# Bench\n\n{}\n\n", self.machine);
        for version in &self.versions {
            text += &format!("- {version}\n");
        }
        text += HEAD;
        let mut sizes: Vec<String> = Vec::new();
        for place in self.places() {
            if !sizes.contains(&place.sizes) {
                sizes.push(place.sizes);
            }
        }
        for sizes in sizes {
            text += &format!("\n## {}\n\n{TITLES}", title(&sizes));
            for place in self.places() {
                if place.sizes == sizes {
                    text += &self.row(&place);
                }
            }
        }
        text
    }

    fn row(&self, place: &Place) -> String {
        let [ours, ovs, io] = self.figures(place);
        let mut row = format!("| {} | {} |", place.scenario, place.flows);
        for figures in [&ours, &ovs] {
            let _ = write!(row, " {} |", spread(figures.as_ref()));
        }
        for ratio in [
            ratio(ours.as_ref(), ovs.as_ref(), |figures| Some(figures.pps)),
            text(io.as_ref().map(|io| io.pps / 1e6), 2),
            ratio(ours.as_ref(), io.as_ref(), |figures| Some(figures.pps)),
        ] {
            let _ = write!(row, " {ratio} |");
        }
        for figures in [&ours, &ovs] {
            let both = figures.as_ref().and_then(|figures| figures.cycles);
            let both = both.map(|[median, best]| format!("{best:.0} ({median:.0})"));
            let _ = write!(row, " {} |", both.unwrap_or_else(|| NONE.to_owned()));
        }
        let best = |figures: &Figures| figures.cycles.map(|[_, best]| best);
        let _ = writeln!(row, " {} |", ratio(ovs.as_ref(), ours.as_ref(), best));
        row
    }
}

const NONE: &str = "";

const HEAD: &str = "\nMillion frames per second, both directions together, that came out and \
were right: median of the rounds (slowest to fastest round; best window of 0.1 s). Busy TSC \
cycles per packet: best (median). testpmd does no work at all: it is the rig's own limit. \
\"far\": the two processors were on different core complexes.\n";

const TITLES: &str = "\
| scenario | flows | ours, Mpps | OVS-DPDK, Mpps | ours / OVS | testpmd io, Mpps | ours / testpmd | ours, cycles | OVS-DPDK, cycles | OVS / ours |
|---|---|---|---|---|---|---|---|---|---|
";

fn title(sizes: &str) -> String {
    match sizes {
        "imix" => "IMIX (64, 570 and 1518 bytes, 7 to 4 to 1)".to_owned(),
        bytes => format!("{bytes} bytes"),
    }
}

fn spread(figures: Option<&Figures>) -> String {
    let Some(figures) = figures else {
        return NONE.to_owned();
    };
    let [slowest, fastest] = figures.range.map(|rate| rate / 1e6);
    let (median, best) = (figures.pps / 1e6, figures.best / 1e6);
    let loss = match figures.loss {
        loss if loss < 0.0005 => String::new(),
        loss => format!("; {:.1} % lost", 100.0 * loss),
    };
    let far = if figures.far { "; far" } else { "" };
    format!("{median:.2} ({slowest:.2} to {fastest:.2}; {best:.2}{loss}{far})")
}

/// Of two devices that can be compared.
fn ratio(
    over: Option<&Figures>,
    under: Option<&Figures>,
    of: impl Fn(&Figures) -> Option<f64>,
) -> String {
    let pair = over.zip(under);
    let pair = pair.filter(|(over, under)| over.far == under.far);
    let ratio = pair.and_then(|(over, under)| Some(of(over)? / of(under)?));
    text(ratio, 2)
}

fn text(number: Option<f64>, digits: usize) -> String {
    number.map_or_else(|| NONE.to_owned(), |number| format!("{number:.digits$}"))
}
