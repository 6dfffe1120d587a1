//! What a data centre has without Sluice: one vSwitch bridge per hypervisor, an
//! underlay network between them, VMs and foreign VTEPs that are plugged in.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::netns::Netns;
use crate::ovs::Ovs;

/// MTU of the underlay: a VM's frame of [`VM_MTU`] and its VXLAN headers, with
/// room to spare.
pub const UNDERLAY_MTU: u16 = 1600;

/// MTU of a VM: what VXLAN leaves of 1,500.
pub const VM_MTU: u16 = 1450;

/// Address of the control plane on the underlay.
pub const CONTROL_ADDRESS: &str = "192.0.2.1";

/// Its IPv6 address there.
pub const CONTROL_ADDRESS6: &str = "2001:db8::1";

/// Name of the underlay's bridge, for captures.
pub const UNDERLAY: &str = "underlay";

/// Version of IP that VTEPs have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underlay {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// What the vSwitch leaves to NICs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offloads {
    /// Nothing: it copies frames as they are.
    Off,
    /// It passes large TCP frames on, and checksums that are yet to be completed.
    On,
}

/// Devices of one hypervisor in the fabric's namespace.
#[derive(Debug, Clone)]
pub struct Ports {
    /// Bridge of the hypervisor's vSwitch.
    pub bridge: String,
    /// Tap of the NVE's trunk, on the bridge.
    pub trunk: String,
    /// Tap of the NVE's uplink, on the underlay.
    pub uplink: String,
}

/// Switches and cables of a lab.
#[derive(Debug)]
pub struct Fabric {
    ovs: Ovs,
    offloads: Offloads,
    netns: Netns,
}

impl Fabric {
    /// Starts the vSwitch and makes the underlay.
    pub fn start(dir: &Path, offloads: Offloads) -> Result<Fabric> {
        let netns = Netns::create()?;
        let ovs = Ovs::start(&netns, &dir.join("ovs"), offloads)?;
        netns.ip(&format!(
            "link add {UNDERLAY} address 02:00:c0:00:02:01 mtu {UNDERLAY_MTU} \
             type bridge mcast_snooping 0"
        ))?;
        netns.ip(&format!("addr add {CONTROL_ADDRESS}/24 dev {UNDERLAY}"))?;
        netns.ip(&format!("link set {UNDERLAY} up"))?;
        netns.ip(&format!(
            "addr add {CONTROL_ADDRESS6}/64 dev {UNDERLAY} nodad"
        ))?;
        Ok(Fabric {
            ovs,
            offloads,
            netns,
        })
    }

    /// The namespace with the switches, in which the control plane runs too.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Makes the bridge and the taps of hypervisor `letter`, with a queue for each of its
    /// NVE's processors.
    pub fn add_hypervisor(&self, letter: char, processors: u8) -> Result<Ports> {
        let ports = Ports {
            bridge: format!("hv-{letter}"),
            trunk: format!("tr-{letter}"),
            uplink: format!("up-{letter}"),
        };
        self.ovs.add_bridge(&ports.bridge)?;
        let queues = if processors > 1 { "multi_queue" } else { "" };
        for tap in [&ports.trunk, &ports.uplink] {
            self.netns
                .ip(&format!("tuntap add dev {tap} mode tap vnet_hdr {queues}"))?;
            // The host itself must not speak on the NVE's cables.
            self.disable_ipv6(tap)?;
        }
        if self.offloads == Offloads::On {
            // The switch has large frames cut to what fits the device that it sends them
            // to, whatever their sender said.
            self.netns
                .ip(&format!("link set {} mtu {VM_MTU}", ports.trunk))?;
        }
        self.ovs.add_trunk(&ports.bridge, &ports.trunk)?;
        self.join_underlay(&ports.uplink)?;
        self.netns.ip(&format!("link set {} up", ports.trunk))?;
        Ok(ports)
    }

    /// Makes a namespace whose `eth0` is on the underlay with `address`.
    pub fn add_station(&self, name: &str, address: &str) -> Result<Netns> {
        let station = self.cable(name)?;
        self.join_underlay(name)?;
        station.ip(&format!("link set eth0 mtu {UNDERLAY_MTU}"))?;
        station.ip(&format!("addr add {address} dev eth0"))?;
        station.ip("link set eth0 up")?;
        Ok(station)
    }

    /// Makes a namespace whose `eth0` is the other end of `device`.
    pub fn cable(&self, device: &str) -> Result<Netns> {
        let end = Netns::create()?;
        self.netns.ip(&format!(
            "link add {device} type veth peer name eth0 netns {}",
            end.path().display()
        ))?;
        self.disable_ipv6(device)?;
        if self.offloads == Offloads::Off {
            // The switch copies frames as they are, so checksums must be complete.
            end.output(Command::new("ethtool").args(["-K", "eth0", "tx", "off"]))?;
        }
        Ok(end)
    }

    /// Connects `device` to an access port of VLAN `tag`.
    pub fn plug(&self, bridge: &str, device: &str, tag: u16) -> Result<()> {
        self.netns.ip(&format!("link set {device} up"))?;
        self.ovs.add_access(bridge, device, tag)
    }

    /// Disconnects `device`.
    pub fn unplug(&self, device: &str) -> Result<()> {
        self.ovs.remove(device)?;
        self.netns.ip(&format!("link set {device} down"))?;
        Ok(())
    }

    fn join_underlay(&self, device: &str) -> Result<()> {
        self.netns.ip(&format!(
            "link set {device} mtu {UNDERLAY_MTU} master {UNDERLAY} up"
        ))?;
        Ok(())
    }

    fn disable_ipv6(&self, device: &str) -> Result<()> {
        self.netns.run(|| {
            let knob = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
            Ok(std::fs::write(knob, "1")?)
        })
    }
}
