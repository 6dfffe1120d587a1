//! VXLAN over IPv6, as tshark reads it.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::Context;
use super::table_v::communicate;
use super::wire::{check_checksums, exchange};
use crate::capture::{Capture, Frames};
use crate::fabric::{UNDERLAY, Underlay};
use crate::site::{Guest, Site};

/// Bytes of an IP packet on the underlay at most, as the shim takes it to be.
const UNDERLAY_MTU: usize = 1500;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let mut site = Site::start_over(Underlay::Ipv6, &context.dir, &context.artifacts)?;
    site.add_dual_network("red", 1)?;
    site.add_dual_network("green", 2)?;
    site.add_router("between", &["red", "green"])?;
    for plan in [
        ("a1", "red", 0, 11),
        ("a2", "red", 0, 12),
        ("b1", "red", 1, 13),
        ("b2", "green", 1, 22),
    ] {
        site.add_vm(plan)?;
    }
    site.await_active()?;
    for (one, other) in [("a1", "a2"), ("a1", "b1"), ("a1", "b2")] {
        communicate(&site, one, other)?;
        communicate(&site, other, one)?;
    }
    let (a1, b1) = (site.guest("a1")?, site.guest("b1")?);
    let underlay = Capture::start(site.lab.fabric.netns(), UNDERLAY, &context.dir)?;
    exchange(a1, b1)?;
    let underlay = underlay.stop()?;
    check_headers(&site, &underlay, a1, b1)?;
    check_checksums(
        &underlay,
        "vxlan && tcp && ipv6",
        &[
            "ip.checksum.status",
            "tcp.checksum.status",
            "udp.checksum.status",
        ],
    )?;
    check_sizes(&underlay, a1, b1)
}

/// Both VTEPs are IPv6 addresses, and port and VNI are what they should be.
fn check_headers(site: &Site, underlay: &Frames, a1: &Guest, b1: &Guest) -> Result<()> {
    let vtep = |host| Ok::<_, anyhow::Error>(site.nve(host)?.identity.vtep.clone());
    let vni = site.network("red")?.vni.to_string();
    let wanted = [vtep(0)?, vtep(1)?, "4789".to_owned(), vni];
    let fields = ["ipv6.src", "ipv6.dst", "udp.dstport", "vxlan.vni"];
    let frames = underlay.fields(&filter(a1, b1), &fields)?;
    ensure!(!frames.is_empty(), "nothing of a1 to b1 on the underlay");
    for frame in &frames {
        ensure!(*frame == wanted, "{frame:?} instead of {wanted:?}");
    }
    println!(
        "  {} frames from {} to {}",
        frames.len(),
        wanted[0],
        wanted[1]
    );
    Ok(())
}

/// The largest packet of a VM makes the largest of the underlay, and none is larger
/// or in fragments.
fn check_sizes(underlay: &Frames, a1: &Guest, b1: &Guest) -> Result<()> {
    let mut sizes = BTreeSet::new();
    for size in underlay.fields(&filter(a1, b1), &["frame.len"])?.concat() {
        sizes.insert(size.parse::<usize>()?);
    }
    let largest = sizes.last().copied().unwrap_or_default();
    ensure!(
        largest == UNDERLAY_MTU + ETHERNET,
        "the largest frame has {largest} bytes"
    );
    let fragments = underlay.count("ipv6.fraghdr")?;
    ensure!(fragments == 0, "{fragments} fragments on the underlay");
    println!("  full segments are packets of {UNDERLAY_MTU} bytes on the underlay");
    Ok(())
}

fn filter(a1: &Guest, b1: &Guest) -> String {
    format!(
        "vxlan && ip && eth.src == {} && eth.dst == {}",
        a1.vm.interface.mac, b1.vm.interface.mac
    )
}
