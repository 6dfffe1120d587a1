//! The end-to-end tests, one for each promise of the product.

mod capacity;
mod connectivity;
mod events;
mod fabric;
mod headless;
pub(crate) mod linux_vtep;
mod openstack;
mod operate;
mod reboot;
mod refusals;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::artifacts::Artifacts;
use crate::process::tail;

/// What a test gets.
#[derive(Debug)]
struct Context {
    /// A directory of its own, for logs and captures.
    dir: PathBuf,
    /// The programs under test.
    artifacts: Artifacts,
}

/// A test: what it shows, and how.
struct Case {
    name: &'static str,
    shows: &'static str,
    run: fn(&Context) -> Result<()>,
}

const CASES: &[Case] = &[
    Case {
        name: "fabric",
        shows: "the lab's own switches forward and isolate as a data centre's do",
        run: fabric::run,
    },
    Case {
        name: "connectivity",
        shows: "VMs of a network reach each other on one NVE and across; networks stay apart",
        run: connectivity::run,
    },
    Case {
        name: "wire",
        shows: "a third-party decoder agrees with every header on trunk and underlay",
        run: wire::run,
    },
    Case {
        name: "third-party-vtep",
        shows: "a Linux vxlan device exchanges ping and TCP with a VM behind an NVE",
        run: linux_vtep::run,
    },
    Case {
        name: "openstack",
        shows: "openstacksdk manages networks, subnets and ports, unmodified",
        run: openstack::run,
    },
    Case {
        name: "operate",
        shows: "nvectl, metrics and the API's description say what is there",
        run: operate::run,
    },
    Case {
        name: "events",
        shows: "lifecycle events change forwarding; wrong requests are refused and change nothing",
        run: events::run,
    },
    Case {
        name: "reboot",
        shows: "an NVE that is killed forwards again without an operator",
        run: reboot::run,
    },
    Case {
        name: "headless",
        shows: "traffic goes on without the shim, which takes up where it was",
        run: headless::run,
    },
    Case {
        name: "refusals",
        shows: "unknown keys and garbage are refused, logged, and cost only their connection",
        run: refusals::run,
    },
    Case {
        name: "capacity",
        shows: "4,094 VAPs and 100,000 remote MACs fit 64 MiB and are synchronized in time",
        run: capacity::run,
    },
];

/// Runs the tests whose names contain `filter`, with logs under `dir`; whether
/// all passed. The last line counts them.
pub fn run(filter: &str, dir: &Path) -> Result<bool> {
    let artifacts = Artifacts::find()?;
    let (mut passed, mut failed) = (0, 0);
    for case in CASES.iter().filter(|case| case.name.contains(filter)) {
        println!("test {}: {}", case.name, case.shows);
        let context = Context {
            dir: dir.join(case.name),
            artifacts: artifacts.clone(),
        };
        let start = Instant::now();
        let outcome = (case.run)(&context);
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("test {}: ok ({seconds:.1} s)", case.name);
            }
            Err(error) => {
                failed += 1;
                println!("test {}: FAILED ({seconds:.1} s): {error:#}", case.name);
                print_logs(&context.dir)?;
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Prints the end of every log and console in `dir`.
fn print_logs(dir: &Path) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("no {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|e| e == "log" || e == "console")
        })
        .collect();
    files.sort();
    for file in files {
        println!("  the end of {}:\n{}", file.display(), tail(&file, 30));
    }
    Ok(())
}
