//! What is on the cables, as tshark reads it.

use anyhow::{Result, ensure};

use super::Context;
use crate::capture::{Capture, Frames};
use crate::fabric::UNDERLAY;
use crate::reach;
use crate::site::{Guest, Site};

/// tshark's word for a checksum that it has verified.
const GOOD: &str = "1";

/// tshark's word for a checksum that is not there.
const ABSENT: &str = "3";

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let site = Site::with_six_vms(&context.dir, &context.artifacts)?;
    let fabric = &site.lab.fabric;
    let trunk = site
        .lab
        .hypervisors
        .first()
        .map(|hv| hv.ports.trunk.clone());
    let trunk = Capture::start(fabric.netns(), &trunk.unwrap_or_default(), &context.dir)?;
    let underlay = Capture::start(fabric.netns(), UNDERLAY, &context.dir)?;
    let (a1, a2, b1) = (site.guest("a1")?, site.guest("a2")?, site.guest("b1")?);
    exchange(a1, a2)?;
    exchange(a1, b1)?;
    let (trunk, underlay) = (trunk.stop()?, underlay.stop()?);
    check_trunk(&trunk, a1, a2)?;
    check_underlay(&site, &underlay, a1, b1)?;
    check_local_traffic_stays(&underlay, a1, a2)
}

pub(super) fn exchange(source: &Guest, target: &Guest) -> Result<()> {
    let (from, to) = (&source.vm, &target.vm);
    ensure!(
        reach::ping(&from.netns, to.interface.ip, 3)?,
        "no ping to {}",
        to.name
    );
    ensure!(
        reach::transfer(&from.netns, &to.netns, to.interface.ip)?,
        "no TCP to {}",
        to.name
    );
    Ok(())
}

/// Each frame between VMs of one NVE is on the trunk twice: once with the tag of its
/// source's port group, once with that of its destination's.
fn check_trunk(trunk: &Frames, a1: &Guest, a2: &Guest) -> Result<()> {
    let (one, two) = (&a1.vm.interface, &a2.vm.interface);
    let filter = format!(
        "icmp.type == 8 && eth.src == {} && ip.dst == {}",
        one.mac, two.ip
    );
    let mut tags: Vec<String> = trunk.fields(&filter, &["vlan.id"])?.concat();
    tags.sort();
    tags.dedup();
    let mut wanted = vec![one.tag.to_string(), two.tag.to_string()];
    wanted.sort();
    ensure!(
        tags == wanted,
        "tags on the trunk: {tags:?} instead of {wanted:?}"
    );
    ensure!(trunk.count("!vlan")? == 0, "untagged frames on the trunk");
    check_checksums(
        trunk,
        "vlan && tcp",
        &["ip.checksum.status", "tcp.checksum.status"],
    )
}

fn check_underlay(site: &Site, underlay: &Frames, a1: &Guest, b1: &Guest) -> Result<()> {
    let vtep = |host| Ok::<_, anyhow::Error>(site.nve(host)?.identity.vtep.clone());
    let (a, b) = (vtep(0)?, vtep(1)?);
    let vni = site.network("red")?.vni.to_string();
    let filter = format!(
        "vxlan && eth.src == {} && eth.dst == {}",
        a1.vm.interface.mac, b1.vm.interface.mac
    );
    let fields = [
        "ip.src",
        "ip.dst",
        "udp.dstport",
        "vxlan.flags",
        "vxlan.vni",
        "eth.type",
    ];
    let frames = underlay.fields(&filter, &fields)?;
    ensure!(!frames.is_empty(), "nothing of a1 to b1 on the underlay");
    for frame in &frames {
        let [source, target, port, flags, network, types] = frame.as_slice() else {
            anyhow::bail!("a frame of other fields: {frame:?}");
        };
        ensure!(outer(source) == a && outer(target) == b, "VTEPs: {frame:?}");
        ensure!(outer(port) == "4789", "destination port: {frame:?}");
        ensure!(flags == "0x0800", "flags: {frame:?}");
        ensure!(*network == vni, "VNI: {frame:?}, not {vni}");
        ensure!(
            !types.contains("0x8100"),
            "a VLAN tag in the tunnel: {frame:?}"
        );
    }
    ensure!(
        underlay.count("vxlan && vlan")? == 0,
        "a VLAN tag in the tunnel"
    );
    check_checksums(
        underlay,
        "vxlan && tcp",
        &[
            "ip.checksum.status",
            "tcp.checksum.status",
            "udp.checksum.status",
        ],
    )?;
    check_entropy(underlay)
}

/// The source port tells flows apart (RFC 7348, section 5): more than one is in use.
fn check_entropy(underlay: &Frames) -> Result<()> {
    let mut ports = underlay.fields("vxlan", &["udp.srcport"])?.concat();
    ports.sort();
    ports.dedup();
    ensure!(ports.len() > 1, "one source port for all flows: {ports:?}");
    Ok(())
}

/// Every checksum in the named fields is right, or left out where UDP may.
pub(super) fn check_checksums(frames: &Frames, filter: &str, fields: &[&str]) -> Result<()> {
    let found = frames.fields(filter, fields)?;
    ensure!(!found.is_empty(), "nothing matches {filter}");
    for frame in &found {
        for (field, statuses) in fields.iter().zip(frame) {
            let is_fine = |status: &str| {
                status == GOOD || (*field == "udp.checksum.status" && status == ABSENT)
            };
            ensure!(statuses.split(',').all(is_fine), "{field}: {statuses}");
        }
    }
    println!("  {} frames of {filter}: checksums right", found.len());
    Ok(())
}

fn check_local_traffic_stays(underlay: &Frames, a1: &Guest, a2: &Guest) -> Result<()> {
    let (one, two) = (&a1.vm.interface.mac, &a2.vm.interface.mac);
    let filter =
        format!("(eth.src == {one} && eth.dst == {two}) || (eth.src == {two} && eth.dst == {one})");
    let leaked = underlay.count(&filter)?;
    ensure!(
        leaked == 0,
        "{leaked} frames of one NVE's VMs are on the underlay"
    );
    Ok(())
}

/// The first of the values of a field that is in the outer and the inner header.
fn outer(values: &str) -> &str {
    values.split(',').next().unwrap_or_default()
}
