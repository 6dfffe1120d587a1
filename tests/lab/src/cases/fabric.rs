//! The lab's switches, without any NVE: a tag is a broadcast domain of its own.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use super::Context;
use crate::fabric::{CONTROL_ADDRESS, Fabric, Underlay, VM_MTU};
use crate::lab::Lab;
use crate::reach;
use crate::vm::{Interface, Setting, Vm};

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let lab = Lab::two_hypervisors(&context.dir, Underlay::Ipv4, 1)?;
    let mut vms = Vec::new();
    // Bridge and tag of each: only the first two share both.
    for (bridge, tag) in [("hv-a", 101), ("hv-a", 101), ("hv-a", 102), ("hv-b", 101)] {
        vms.push(plugged(&lab.fabric, vms.len(), bridge, tag)?);
    }
    let [one, two, other_tag, other_bridge] = vms.as_slice() else {
        unreachable!("four were made");
    };
    ensure!(reach::ping(&one.netns, two.interface.ip, 3)?, "no ping");
    ensure!(
        reach::transfer(&one.netns, &two.netns, two.interface.ip)?,
        "no TCP"
    );
    for foreign in [other_tag, other_bridge] {
        ensure!(
            !reach::ping(&one.netns, foreign.interface.ip, 1)?,
            "{} is reachable",
            foreign.name
        );
    }
    let station = lab.fabric.add_station("station", "192.0.2.99/24")?;
    ensure!(
        reach::ping(&station, CONTROL_ADDRESS.parse::<IpAddr>()?, 3)?,
        "no ping on the underlay"
    );
    Ok(())
}

fn plugged(fabric: &Fabric, number: usize, bridge: &str, tag: u16) -> Result<Vm> {
    let number = u8::try_from(number + 1)?;
    let interface = Interface {
        mac: format!("02:00:00:00:00:{number:02x}"),
        ip: [10, 0, 0, number].into(),
        prefix: 24,
        ip6: None,
        gateways: Vec::new(),
        mtu: VM_MTU,
        setting: Setting::Static,
        tag,
    };
    let mut vm = Vm::create(fabric, &format!("v{number}"), interface)?;
    vm.plug(fabric, bridge)?;
    Ok(vm)
}
