//! Appliances with several processors.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use crate::artifacts::Artifacts;
use crate::site::Site;
use crate::throughput::{self, Load};
use crate::wait;

const PROCESSORS: u8 = 4;

/// How long counters may take to be reported.
const REPORT: Duration = Duration::from_secs(30);

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let artifacts = Artifacts {
        processors: PROCESSORS,
        ..context.artifacts.clone()
    };
    let site = Site::with_six_vms(&context.dir, &artifacts)?;
    let matrix = site.matrix()?;
    println!("{matrix}");
    let faults = matrix.faults();
    ensure!(faults.is_empty(), "{}", faults.join(", "));
    for (from, to) in [("a1", "a2"), ("a1", "b1"), ("b2", "a3")] {
        let (source, target) = (site.guest(from)?, site.guest(to)?);
        let at = target.vm.interface.ip.into();
        let ends = (&source.vm.netns, &target.vm.netns);
        let rate = throughput::measure(ends, at, Load::Tcp, 2, &context.dir)?;
        println!("TCP from {from} to {to}: {:.1} Mbit/s", rate / 1000.0);
        ensure!(rate > 1000.0, "{from} to {to}: {rate} kbit/s");
    }
    wait::until_true("processors to share the work", REPORT, || {
        let nves = site.nves()?;
        Ok(nves.iter().all(|nve| have_worked(nve).is_some()))
    })?;
    for nve in site.nves()? {
        let name = nve["name"].as_str().context("no name")?;
        let mut show = Command::new(&context.artifacts.nvectl);
        show.args(["--url", site.control.api.base(), "nve", "show", name]);
        let printed = site.lab.fabric.netns().output(&mut show)?;
        let from = printed.find("PROCESSOR").context("no processors shown")?;
        print!("{name}\n{}", &printed[from..]);
    }
    Ok(())
}

/// Whether several processors of an NVE have sent frames, and some were handed over:
/// queues are not chosen by whose frames they are. Few pairs of VMs need not have all.
fn have_worked(nve: &Value) -> Option<()> {
    let list = nve["last_stats"]["stats"]["processors"].as_array()?;
    let sum = |key: &str| -> Option<u64> { list.iter().map(|one| one[key].as_u64()).sum() };
    let sent = list
        .iter()
        .filter(|one| one["tx_packets"].as_u64() > Some(0));
    let is_shared = list.len() == usize::from(PROCESSORS) && sent.count() >= 3;
    (is_shared && sum("handed")? > 0).then_some(())
}
