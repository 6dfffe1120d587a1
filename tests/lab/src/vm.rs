//! A business VM: a network namespace behind an access port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

use crate::fabric::Fabric;
use crate::netns::Netns;

/// Length of every IPv6 subnet's prefix.
pub const IPV6_PREFIX: u8 = 64;

/// Who gives a VM its addresses and routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The lab, at once.
    Static,
    /// DHCP clients and the kernel, which believes router advertisements.
    Automatic,
}

/// What a VM's port is like, as Neutron gave it.
#[derive(Debug, Clone)]
pub struct Interface {
    /// MAC address.
    pub mac: String,
    /// IPv4 address.
    pub ip: Ipv4Addr,
    /// Length of the IPv4 subnet's prefix.
    pub prefix: u8,
    /// IPv6 address, in a subnet with a prefix of [`IPV6_PREFIX`].
    pub ip6: Option<Ipv6Addr>,
    /// Default routers, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Bytes of the largest IP packet.
    pub mtu: u16,
    /// How the VM comes by all that.
    pub setting: Setting,
    /// VLAN tag of the port group.
    pub tag: u16,
}

impl Interface {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let ip6 = self.ip6.map(IpAddr::from);
        std::iter::once(self.ip.into()).chain(ip6).collect()
    }

    /// Makes `eth0` of `netns` like that.
    fn set_up(&self, netns: &Netns) -> Result<()> {
        let Interface { mac, mtu, .. } = self;
        let automatic = self.setting == Setting::Automatic;
        // Nobody else has the address: it is usable at once.
        sysctl(netns, "accept_dad", "0")?;
        sysctl(netns, "accept_ra", if automatic { "1" } else { "0" })?;
        netns.ip(&format!("link set eth0 address {mac} mtu {mtu}"))?;
        netns.ip("link set eth0 up")?;
        if automatic {
            return Ok(());
        }
        netns.ip(&format!("addr add {}/{} dev eth0", self.ip, self.prefix))?;
        if let Some(ip6) = self.ip6 {
            netns.ip(&format!("addr add {ip6}/{IPV6_PREFIX} dev eth0 nodad"))?;
        }
        for gateway in &self.gateways {
            netns.ip(&format!("route add default via {gateway}"))?;
        }
        Ok(())
    }
}

/// Sets a switch of the kernel for IPv6 on `eth0`.
fn sysctl(netns: &Netns, name: &str, value: &str) -> Result<()> {
    netns.run(|| {
        let path = format!("/proc/sys/net/ipv6/conf/eth0/{name}");
        std::fs::write(&path, value).with_context(|| format!("cannot write {path}"))
    })
}

/// A VM whose `eth0` may be plugged into a hypervisor's vSwitch.
#[derive(Debug)]
pub struct Vm {
    /// Its name, such as `a1`; also what makes its device name.
    pub name: String,
    /// Its interface.
    pub interface: Interface,
    /// What it sees of the world.
    pub netns: Netns,
    /// Bridge that it is plugged into.
    bridge: Option<String>,
}

impl Vm {
    /// Makes a VM that is not plugged in.
    pub fn create(fabric: &Fabric, name: &str, interface: Interface) -> Result<Vm> {
        let netns = fabric.cable(&device(name))?;
        interface.set_up(&netns)?;
        Ok(Vm {
            name: name.to_owned(),
            interface,
            netns,
            bridge: None,
        })
    }

    /// Connects it to its port group on the hypervisor with `bridge`.
    pub fn plug(&mut self, fabric: &Fabric, bridge: &str) -> Result<()> {
        fabric.plug(bridge, &device(&self.name), self.interface.tag)?;
        self.bridge = Some(bridge.to_owned());
        Ok(())
    }

    /// Disconnects it.
    pub fn unplug(&mut self, fabric: &Fabric) -> Result<()> {
        self.bridge.take().context("the VM is not plugged in")?;
        fabric.unplug(&device(&self.name))
    }

    /// Bridge that it is plugged into.
    pub fn bridge(&self) -> Option<&str> {
        self.bridge.as_deref()
    }
}

/// The switch's end of a VM's cable.
fn device(name: &str) -> String {
    format!("vm-{name}")
}
