//! Bulk TCP with offloads: large frames on the trunk, none in tunnels.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use super::table_v::addresses;
use crate::fabric::{Offloads, UNDERLAY_MTU, Underlay};
use crate::reach;
use crate::site::{Guest, Site};
use crate::throughput::{self, Load};

/// How long each rate is measured, in seconds.
const SECONDS: u32 = 3;

/// Transfers whose bytes are compared.
const TRANSFERS: usize = 8;

/// Bytes of the largest frame on the trunk that is not a large one, with its tag.
const ORDINARY: u64 = 1518;

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let (dir, artifacts) = (&context.dir, &context.artifacts);
    let mut site = Site::start_with(Offloads::On, Underlay::Ipv4, dir, artifacts)?;
    site.add_dual_network("red", 1)?;
    site.add_dual_network("green", 2)?;
    site.add_router("between", &["red", "green"])?;
    for plan in [
        ("a1", "red", 0, 11),
        ("a2", "red", 0, 12),
        ("a3", "green", 0, 21),
        ("b1", "red", 1, 13),
        ("b2", "green", 1, 22),
    ] {
        site.add_vm(plan)?;
    }
    site.await_active()?;
    println!("  where             by     Mbit/s  bytes/frame to and from the NVE, underlay");
    let a1 = site.guest("a1")?;
    for (place, peer, is_local) in [
        ("on one NVE", "a2", true),
        ("on one, routed", "a3", true),
        ("across NVEs", "b1", false),
        ("across, routed", "b2", false),
    ] {
        let peer = site.guest(peer)?;
        for at in addresses(peer)? {
            measure(context, &site, place, (a1, peer), at, is_local)?;
        }
    }
    Ok(())
}

fn measure(
    context: &Context,
    site: &Site,
    place: &str,
    (from, to): (&Guest, &Guest),
    at: IpAddr,
    is_local: bool,
) -> Result<()> {
    let (one, other) = (&from.vm.netns, &to.vm.netns);
    for _ in 0..TRANSFERS {
        let there = reach::transfer(one, other, at)?;
        let back = reach::transfer(other, one, own(from, at)?)?;
        ensure!(there && back, "{place}: no TCP to {at}");
    }
    let before = Sizes::read(site)?;
    let rate = throughput::measure((one, other), at, Load::Tcp, SECONDS, &context.dir)?;
    let sizes = Sizes::read(site)?.since(&before);
    let by = if at.is_ipv6() { "IPv6" } else { "IPv4" };
    let [to_nve, from_nve, underlay] = [sizes.to_nve, sizes.from_nve, sizes.underlay].map(mean);
    println!(
        "  {place:16}  {by}  {:8.0}  {to_nve:8} {from_nve:8} {underlay:8}",
        rate / 1000.0
    );
    ensure!(to_nve > ORDINARY, "no large frames to the NVE");
    match is_local {
        true => ensure!(from_nve > ORDINARY, "no large frames from the NVE"),
        false => ensure!(
            underlay <= u64::from(UNDERLAY_MTU) + 14,
            "large frames on the underlay"
        ),
    }
    Ok(())
}

/// The address of `guest` that is of the same family as `other`.
fn own(guest: &Guest, other: IpAddr) -> Result<IpAddr> {
    let mut own = addresses(guest)?.into_iter();
    let own = own.find(|own| own.is_ipv4() == other.is_ipv4());
    own.context("the VM has no such address")
}

/// Bytes and packets that passed the taps of the first NVE, as the kernel counts them: a
/// large frame is one packet.
struct Sizes {
    to_nve: (u64, u64),
    from_nve: (u64, u64),
    underlay: (u64, u64),
}

impl Sizes {
    fn read(site: &Site) -> Result<Sizes> {
        let hypervisor = site.lab.hypervisors.first().context("no hypervisor")?;
        let (trunk, uplink) = (&hypervisor.ports.trunk, &hypervisor.ports.uplink);
        // The kernel sends on a tap what QEMU reads.
        let read = |device: &str, way: &str| counters(site, device, way);
        Ok(Sizes {
            to_nve: read(trunk, "tx")?,
            from_nve: read(trunk, "rx")?,
            underlay: read(uplink, "rx")?,
        })
    }

    fn since(&self, before: &Sizes) -> Sizes {
        let less = |now: (u64, u64), then: (u64, u64)| (now.0 - then.0, now.1 - then.1);
        Sizes {
            to_nve: less(self.to_nve, before.to_nve),
            from_nve: less(self.from_nve, before.from_nve),
            underlay: less(self.underlay, before.underlay),
        }
    }
}

/// Bytes and packets that `device` of the fabric has sent or received.
fn counters(site: &Site, device: &str, way: &str) -> Result<(u64, u64)> {
    let netns = site.lab.fabric.netns();
    let text = netns.run(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
    let line = text.lines().map(str::trim_start);
    let line = line.filter_map(|line| line.strip_prefix(device)?.strip_prefix(':'));
    let mut numbers = line
        .flat_map(str::split_whitespace)
        .skip(if way == "tx" { 8 } else { 0 });
    let mut next = || Ok::<u64, anyhow::Error>(numbers.next().context("no such tap")?.parse()?);
    Ok((next()?, next()?))
}

/// Bytes of a packet.
fn mean((bytes, packets): (u64, u64)) -> u64 {
    bytes / packets.max(1)
}
