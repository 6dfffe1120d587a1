//! The data centre of the scenarios: pairs of VMs, their networks, the router
//! between those, and the NVE at the other end of the tunnel.

use std::net::Ipv4Addr;

use nve_protocol::Mac;

/// Most pairs of VMs that talk to each other; a power of two.
pub const MAX_PAIRS: u32 = 32;

/// Address of the measured NVE's VTEP, in a /24.
pub const VTEP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
/// Address of the other NVE's VTEP, in the same /24.
pub const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);
/// Address of the shim of the measured NVE, in the same /24.
pub const SHIM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// MAC address of the measured NVE's trunk.
pub const TRUNK_MAC: Mac = Mac([0x52, 0x54, 0, 0, 1, 1]);
/// MAC address of the measured NVE's uplink.
pub const UPLINK_MAC: Mac = Mac([0x52, 0x54, 0, 0, 1, 2]);
/// MAC address of the other NVE's uplink.
pub const PEER_MAC: Mac = Mac([0x52, 0x54, 0, 0, 2, 2]);
/// MAC address of the shim.
pub const SHIM_MAC: Mac = Mac([0x52, 0x54, 0, 0, 2, 1]);

/// Tag of the first VM's port group.
const FIRST_VLAN: u16 = 101;

/// A network of the VMs, with one subnet of 24 bits and the router's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// VXLAN network identifier.
    pub vni: u32,
    /// First three octets of the subnet.
    subnet: [u8; 3],
    /// MAC address of the router's interface.
    pub gateway_mac: Mac,
}

/// The network of every first VM of a pair.
pub const RED: Network = Network {
    vni: 5001,
    subnet: [10, 0, 1],
    gateway_mac: Mac([0xfa, 0x16, 0x3e, 0, 0, 1]),
};

/// The network of every second VM of a pair, when they are in different subnets.
pub const BLUE: Network = Network {
    vni: 5002,
    subnet: [10, 0, 2],
    gateway_mac: Mac([0xfa, 0x16, 0x3e, 0, 0, 2]),
};

impl Network {
    /// An address of the subnet.
    pub const fn host(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, last)
    }

    /// The router's address.
    pub const fn gateway(&self) -> Ipv4Addr {
        self.host(254)
    }
}

/// Whether VMs of a pair share an NVE and a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// S1: same NVE, same subnet.
    Local,
    /// S2: different NVEs, same subnet.
    Across,
    /// S3: same NVE, different subnets.
    LocalRouted,
    /// S4: different NVEs, different subnets.
    AcrossRouted,
}

impl Place {
    /// Whether the second VM of a pair is behind the other NVE.
    pub const fn is_across(self) -> bool {
        matches!(self, Place::Across | Place::AcrossRouted)
    }

    /// Whether the second VM of a pair is in the blue network.
    pub const fn is_routed(self) -> bool {
        matches!(self, Place::LocalRouted | Place::AcrossRouted)
    }
}

/// A VM with one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vm {
    /// Its MAC address.
    pub mac: Mac,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its network.
    pub network: Network,
    /// Tag of its port group on the trunk; `None` behind the other NVE.
    pub vlan: Option<u16>,
}

/// Two VMs that talk to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The one on the measured NVE, in the red network; it speaks first.
    pub first: Vm,
    /// The other one.
    pub second: Vm,
}

/// The pair of this number, below [`MAX_PAIRS`].
pub fn pair(place: Place, number: u32) -> Pair {
    debug_assert!(number < MAX_PAIRS);
    let number = (number % MAX_PAIRS) as u8;
    let network = if place.is_routed() { BLUE } else { RED };
    let second = Vm {
        vlan: vm(RED, 2 * number + 1).vlan.filter(|_| !place.is_across()),
        ..vm(network, 2 * number + 1)
    };
    Pair {
        first: vm(RED, 2 * number),
        second,
    }
}

fn vm(network: Network, number: u8) -> Vm {
    Vm {
        mac: Mac([0x02, 0, 0, 0, 0x10, number]),
        ip: network.host(10 + number),
        network,
        vlan: Some(FIRST_VLAN + u16::from(number)),
    }
}
