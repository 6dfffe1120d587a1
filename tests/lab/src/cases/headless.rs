//! The shim dies; the NVEs go on, and the shim takes up where it was.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::Context;
use crate::reach;
use crate::site::Site;
use crate::wait;

/// How long the shim may take until it has seen the inventory and both NVEs.
const RECOVERY: Duration = Duration::from_secs(60);

/// What has to survive, by path.
const STATE: [&str; 4] = [
    "/v2.0/networks",
    "/v2.0/subnets",
    "/v2.0/ports",
    "/v1/vteps",
];

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let mut site = Site::start(&context.dir, &context.artifacts)?;
    site.add_network("red")?;
    for plan in [
        ("a1", "red", 0, 11),
        ("a2", "red", 0, 12),
        ("b1", "red", 1, 13),
    ] {
        site.add_vm(plan)?;
    }
    site.await_active()?;
    restart_without_change(&mut site)?;
    restart_with_change(&mut site)
}

/// Digests agree after the restart, so nothing is sent.
fn restart_without_change(site: &mut Site) -> Result<()> {
    let before = state(site)?;
    site.control.kill_shim()?;
    check_traffic(site, true)?;
    println!("  without the shim: traffic goes on");
    site.control.start_shim()?;
    site.await_connected()?;
    site.await_active()?;
    ensure!(state(site)? == before, "state changed over the restart");
    for nve in site.nves()? {
        let (name, counts) = (&nve["name"], &nve["counts"]);
        let sent = (&counts["syncs_full"], &counts["syncs_incremental"]);
        ensure!(
            sent == (&0.into(), &0.into()),
            "{name} was sent something: {counts}"
        );
        ensure!(counts["syncs_skipped"] == 1, "{name}: {counts}");
    }
    println!("  restarted: state survived, nothing was sent");
    Ok(())
}

/// What happened meanwhile is in the manager's inventory.
fn restart_with_change(site: &mut Site) -> Result<()> {
    site.control.kill_shim()?;
    site.power_off("b1")?;
    check_traffic(site, true)?;
    site.control.start_shim()?;
    let (a1, b1) = (&site.guest("a1")?.vm, &site.guest("b1")?.vm);
    wait::until_true("the power-off to be found out", RECOVERY, || {
        Ok(!reach::ping(&a1.netns, b1.interface.ip, 1)?)
    })?;
    println!("  restarted: the VM powered off meanwhile was found out");
    check_traffic(site, false)
}

/// Whether `a1` reaches its neighbour always, and `b1` as wanted.
fn check_traffic(site: &Site, across: bool) -> Result<()> {
    let source = &site.guest("a1")?.vm;
    for (name, wanted) in [("a2", true), ("b1", across)] {
        let target = &site.guest(name)?.vm;
        let found = reach::transfer(&source.netns, &target.netns, target.interface.ip)?;
        ensure!(found == wanted, "TCP from a1 to {name}: {found}");
    }
    Ok(())
}

fn state(site: &Site) -> Result<Vec<Value>> {
    STATE
        .iter()
        .map(|path| site.control.api.get(path))
        .collect()
}
