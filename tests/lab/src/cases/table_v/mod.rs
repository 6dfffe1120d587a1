//! TABLE V of the paper, one case for each row.

pub(super) mod bandwidth;
pub(super) mod communication;
pub(super) mod groups;
pub(super) mod lifecycle;
pub(super) mod migration;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use crate::probe::Probe;
use crate::reach;
use crate::site::{Guest, Site};
use crate::wait;

/// How long the first packet of all may take to get through.
const SETTLE: Duration = Duration::from_secs(10);

/// VMs in two networks with a router between them: each network has a pair on one
/// NVE, and pairs across.
pub(super) fn routed_site(context: &Context) -> Result<Site> {
    let mut site = Site::start(&context.dir, &context.artifacts)?;
    site.add_dual_network("red", 1)?;
    site.add_dual_network("green", 2)?;
    site.add_router("between", &["red", "green"])?;
    for plan in [
        ("a1", "red", 0, 11),
        ("a2", "red", 0, 12),
        ("b1", "red", 1, 13),
        ("a3", "green", 0, 21),
        ("b2", "green", 1, 22),
    ] {
        site.add_vm(plan)?;
    }
    site.await_active()?;
    Ok(site)
}

/// The two addresses of a VM.
pub(super) fn addresses(guest: &Guest) -> Result<[IpAddr; 2]> {
    let interface = &guest.vm.interface;
    let ip6 = interface.ip6.context("the VM has no IPv6 address")?;
    Ok([interface.ip.into(), ip6.into()])
}

/// Whether the VM `from` gets that through to `to` at its address.
pub(super) fn passes(site: &Site, from: &str, to: &str, at: IpAddr, probe: Probe) -> Result<bool> {
    let (source, target) = (&site.guest(from)?.vm, &site.guest(to)?.vm);
    probe.passes(&source.netns, &target.netns, at)
}

/// Holds that `from` reaches `to` by ping, TCP and UDP, with IPv4 and with IPv6.
pub(super) fn communicate(site: &Site, from: &str, to: &str) -> Result<()> {
    let (source, target) = (site.guest(from)?, site.guest(to)?);
    for at in addresses(target)? {
        for probe in [Probe::Ping, Probe::Udp(7)] {
            let what = format!("{probe} from {from} to {to} at {at}");
            wait::until_true(&what, SETTLE, || passes(site, from, to, at, probe))?;
        }
        ensure!(
            reach::transfer(&source.vm.netns, &target.vm.netns, at)?,
            "no TCP from {from} to {to} at {at}"
        );
    }
    let way = match source.host == target.host {
        true => "on one NVE",
        false => "across NVEs",
    };
    println!("  {from} to {to}, {way}: ping, TCP and UDP by IPv4 and IPv6");
    Ok(())
}
