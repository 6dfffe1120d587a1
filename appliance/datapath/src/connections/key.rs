//! What connections are told apart by.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::Vlan;

/// What makes packets one connection: VAP, protocol, addresses and ports, as the
/// VM sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionKey {
    local: [u64; 2],
    remote: [u64; 2],
    /// Local and remote port.
    ports: u32,
    /// VLAN tag, family and protocol; 0 in a free slot.
    pub(super) owner: u32,
}

const OWNER_IPV6: u32 = 1 << 8;
const OWNER_VLAN: u32 = 16;

pub(super) fn halves(ip: IpAddr) -> [u64; 2] {
    match ip {
        IpAddr::V4(ip) => [0, u64::from(ip.to_bits())],
        IpAddr::V6(ip) => [(ip.to_bits() >> 64) as u64, ip.to_bits() as u64],
    }
}

impl ConnectionKey {
    /// Of no connection.
    pub(super) const FREE: ConnectionKey = ConnectionKey {
        local: [0; 2],
        remote: [0; 2],
        ports: 0,
        owner: 0,
    };

    /// The addresses and ports are local, then remote.
    pub(crate) fn new(
        vlan: Vlan,
        protocol: u8,
        addresses: (IpAddr, IpAddr),
        ports: (u16, u16),
    ) -> ConnectionKey {
        let family = match addresses.0 {
            IpAddr::V4(_) => 0,
            IpAddr::V6(_) => OWNER_IPV6,
        };
        ConnectionKey {
            local: halves(addresses.0),
            remote: halves(addresses.1),
            ports: u32::from(ports.0) << 16 | u32::from(ports.1),
            owner: u32::from(vlan.get()) << OWNER_VLAN | family | u32::from(protocol),
        }
    }

    /// What is hashed.
    pub(super) fn words(&self) -> [u64; 5] {
        let [a, b] = self.local;
        let [c, d] = self.remote;
        [
            a,
            b,
            c,
            d,
            u64::from(self.owner) << 32 | u64::from(self.ports),
        ]
    }

    pub(crate) fn vlan(&self) -> u16 {
        (self.owner >> OWNER_VLAN) as u16
    }

    pub(crate) fn protocol(&self) -> u8 {
        self.owner as u8
    }

    fn address(&self, [high, low]: [u64; 2]) -> IpAddr {
        match self.owner & OWNER_IPV6 {
            0 => Ipv4Addr::from_bits(low as u32).into(),
            _ => Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into(),
        }
    }

    pub(crate) fn local(&self) -> IpAddr {
        self.address(self.local)
    }

    pub(crate) fn remote(&self) -> IpAddr {
        self.address(self.remote)
    }

    pub(crate) fn local_port(&self) -> u16 {
        (self.ports >> 16) as u16
    }

    pub(crate) fn remote_port(&self) -> u16 {
        self.ports as u16
    }
}
