//! A business VM: a network namespace behind an access port.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use crate::fabric::{Fabric, VM_MTU};
use crate::netns::Netns;

/// What a VM's port is like, as Neutron gave it.
#[derive(Debug, Clone)]
pub struct Interface {
    /// MAC address.
    pub mac: String,
    /// IPv4 address.
    pub ip: Ipv4Addr,
    /// Length of the subnet's prefix.
    pub prefix: u8,
    /// VLAN tag of the port group.
    pub tag: u16,
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
        let Interface {
            mac, ip, prefix, ..
        } = &interface;
        netns.ip(&format!("link set eth0 address {mac} mtu {VM_MTU}"))?;
        netns.ip(&format!("addr add {ip}/{prefix} dev eth0"))?;
        netns.ip("link set eth0 up")?;
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
