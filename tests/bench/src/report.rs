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

    /// A device's figures at a place; what does no work has the same ones for every
    /// number of flows.
    pub fn figures(&self, kind: Kind, place: &Place) -> Option<Figures> {
        let works = kind.scenario(Scenario::ALL[0]) != Scenario::Io;
        let here = |sample: &&Sample| {
            sample.device == kind.to_string()
                && sample.scenario == place.scenario
                && sample.sizes == place.sizes
                && (sample.flows == place.flows || !works)
        };
        let samples: Vec<&Sample> = self.samples.iter().filter(here).collect();
        let rates: Vec<f64> = samples.iter().map(|sample| sample.pps).collect();
        let best: Vec<f64> = samples.iter().map(|sample| sample.pps_best).collect();
        let losses: Vec<f64> = samples.iter().map(|sample| sample.loss).collect();
        let cycles: Vec<f64> = samples
            .iter()
            .flat_map(|sample| sample.cycles.iter().copied())
            .collect();
        Some(Figures {
            pps: stats::median(&rates)?,
            range: [stats::least(&rates)?, stats::greatest(&rates)?],
            best: stats::greatest(&best)?,
            cycles: stats::median(&cycles)
                .zip(stats::least(&cycles))
                .map(<[f64; 2]>::from),
            loss: stats::median(&losses)?,
        })
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
        let [ours, ovs, io] = Kind::ALL.map(|kind| self.figures(kind, place));
        let rate = |figures: &Option<Figures>| figures.as_ref().map(|figures| figures.pps);
        let cycles = |figures: &Option<Figures>| {
            let cycles = figures.as_ref().and_then(|figures| figures.cycles);
            cycles.map(|[_, best]| best)
        };
        let mut row = format!("| {} | {} |", place.scenario, place.flows);
        for figures in [&ours, &ovs] {
            let _ = write!(row, " {} |", spread(figures.as_ref()));
        }
        for ratio in [
            ratio(rate(&ours), rate(&ovs)),
            text(io.as_ref().map(|io| io.pps / 1e6), 2),
            ratio(rate(&ours), rate(&io)),
        ] {
            let _ = write!(row, " {ratio} |");
        }
        for figures in [&ours, &ovs] {
            let both = figures.as_ref().and_then(|figures| figures.cycles);
            let both = both.map(|[median, best]| format!("{best:.0} ({median:.0})"));
            let _ = write!(row, " {} |", both.unwrap_or_else(|| NONE.to_owned()));
        }
        let _ = writeln!(row, " {} |", ratio(cycles(&ovs), cycles(&ours)));
        row
    }
}

const NONE: &str = "";

const HEAD: &str = "\nMillion frames per second, both directions together, that came out and \
were right: median of the rounds (slowest to fastest round; best window of 0.1 s). Busy TSC \
cycles per packet: best (median). testpmd does no work at all: it is the rig's own limit.\n";

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
    format!("{median:.2} ({slowest:.2} to {fastest:.2}; {best:.2}{loss})")
}

fn ratio(over: Option<f64>, under: Option<f64>) -> String {
    text(over.zip(under).map(|(over, under)| over / under), 2)
}

fn text(number: Option<f64>, digits: usize) -> String {
    number.map_or_else(|| NONE.to_owned(), |number| format!("{number:.digits$}"))
}
