//! What the booted guests did, as a table and JSON.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Guest, Sample};
use crate::stats;

/// Everything that one run found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// When and where it was run.
    pub machine: String,
    /// Versions of QEMU and of the guests.
    pub versions: Vec<String>,
    /// Every boot.
    pub samples: Vec<Sample>,
}

/// A figure of a table.
struct Figure {
    name: &'static str,
    of: fn(&Sample) -> f64,
    digits: usize,
    /// What there is to compare.
    better: Better,
}

/// Which of two figures is better.
enum Better {
    More,
    Less,
    /// They are conditions, not results.
    Neither,
}

const FIGURES: [Figure; 6] = [
    Figure {
        name: "frames per second, thousands",
        of: |sample| sample.pps / 1e3,
        digits: 1,
        better: Better::More,
    },
    Figure {
        name: "frames taken and lost, %",
        of: |sample| sample.loss * 100.0,
        digits: 2,
        better: Better::Neither,
    },
    Figure {
        name: "start of QEMU to first frame, s",
        of: |sample| sample.first_frame,
        digits: 3,
        better: Better::Less,
    },
    Figure {
        name: "memory given, MiB",
        of: |sample| sample.given_mib.into(),
        digits: 0,
        better: Better::Less,
    },
    Figure {
        name: "memory touched, MiB",
        of: |sample| sample.touched_mib,
        digits: 1,
        better: Better::Less,
    },
    Figure {
        name: "QEMU's resident set, MiB",
        of: |sample| sample.resident_mib,
        digits: 1,
        better: Better::Less,
    },
];

const HEAD: &str = "\nMedian of the boots (least to greatest). Frames of 64 bytes, both directions \
together, that came out and were right, under full load. The ratio says how many times better \
the image is.\n\n";

impl Report {
    /// Writes `booted.md` and `booted.json` into `dir`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("booted.md"), self.markdown())?;
        let json = serde_json::to_string_pretty(self)? + "\n";
        fs::write(dir.join("booted.json"), json)?;
        Ok(())
    }

    /// The table, in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# Booted\n\n{}\n\n", self.machine);
        for version in &self.versions {
            let _ = writeln!(text, "- {version}");
        }
        text += HEAD;
        text += "| scenario | | image | Linux | ratio |\n|---|---|---|---|---|\n";
        for scenario in self.scenarios() {
            for figure in &FIGURES {
                text += &self.row(scenario, figure);
            }
        }
        text
    }

    fn scenarios(&self) -> Vec<&str> {
        let mut scenarios: Vec<&str> = Vec::new();
        for sample in &self.samples {
            if !scenarios.contains(&sample.scenario.as_str()) {
                scenarios.push(&sample.scenario);
            }
        }
        scenarios
    }

    fn row(&self, scenario: &str, figure: &Figure) -> String {
        let [image, linux] = Guest::ALL.map(|guest| {
            let guest = guest.to_string();
            let here = |s: &&Sample| s.guest == guest && s.scenario == scenario;
            let samples = self.samples.iter().filter(here);
            samples.map(figure.of).collect::<Vec<f64>>()
        });
        let ratio = stats::median(&image).zip(stats::median(&linux));
        let ratio = ratio.and_then(|(image, linux)| match figure.better {
            Better::More => Some(image / linux),
            Better::Less => Some(linux / image),
            Better::Neither => None,
        });
        let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.1}"));
        let (image, linux) = (spread(&image, figure.digits), spread(&linux, figure.digits));
        let name = figure.name;
        format!("| {scenario} | {name} | {image} | {linux} | {ratio} |\n")
    }
}

fn spread(numbers: &[f64], digits: usize) -> String {
    let [Some(median), Some(least), Some(greatest)] = [
        stats::median(numbers),
        stats::least(numbers),
        stats::greatest(numbers),
    ] else {
        return String::new();
    };
    if least == greatest {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ({least:.digits$} to {greatest:.digits$})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(guest: Guest, scenario: &str, pps: f64, first_frame: f64) -> Sample {
        Sample {
            guest: guest.to_string(),
            scenario: scenario.to_owned(),
            round: 0,
            first_frame,
            pps,
            pps_best: pps,
            loss: 0.0,
            checked: 1,
            round_trip: 300,
            given_mib: 64,
            touched_mib: 20.0,
            resident_mib: 80.0,
        }
    }

    #[test]
    fn rows_compare_medians() {
        let report = Report {
            machine: "a machine".to_owned(),
            versions: vec!["QEMU".to_owned()],
            samples: vec![
                sample(Guest::Image, "S2a", 800_000.0, 0.5),
                sample(Guest::Linux, "S2a", 200_000.0, 5.0),
                sample(Guest::Image, "S2a", 900_000.0, 0.4),
                sample(Guest::Image, "S2a", 700_000.0, 0.6),
                sample(Guest::Image, "S2b", 600_000.0, 0.5),
            ],
        };
        let text = report.markdown();
        for row in [
            "| S2a | frames per second, thousands | 800.0 (700.0 to 900.0) | 200.0 | 4.0 |",
            "| S2a | start of QEMU to first frame, s | 0.500 (0.400 to 0.600) | 5.000 | 10.0 |",
            "| S2a | frames taken and lost, % | 0.00 | 0.00 |  |",
            "| S2b | frames per second, thousands | 600.0 |  |  |",
        ] {
            assert!(text.contains(row), "{row}\n{text}");
        }
    }
}
