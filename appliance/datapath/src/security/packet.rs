//! What security must know of a packet: which connection it is of, what rules are
//! asked, what passes without them.

use nve_protocol::{Direction, Family};

use super::Packet;
use crate::connections::{ConnectionKey, Piece, State};
use crate::groups::Question;
use crate::packet::{L4, protocol};

/// Types of ICMP (RFC 792) and ICMPv6 (IANA, ICMPv6 Parameters).
mod icmp {
    pub(super) const ECHO: u8 = 8;
    pub(super) const TIMESTAMP: u8 = 13;
    pub(super) const INFORMATION: u8 = 15;
    pub(super) const ADDRESS_MASK: u8 = 17;
    pub(super) const V6_ECHO: u8 = 128;
    pub(super) const V6_NODE_INFORMATION: u8 = 139;
    pub(super) const V6_ROUTER_SOLICITATION: u8 = 133;
}

impl Packet<'_> {
    /// Whether it is neighbor discovery (RFC 4861) or multicast listener discovery
    /// (RFC 2710, RFC 3810). Neither is ever routed: the hop limit says so.
    pub(super) fn is_discovery(&self) -> bool {
        let L4::Icmp { kind, code: 0, .. } = self.ip.l4 else {
            return false;
        };
        if self.ip.protocol != protocol::ICMPV6 || self.ip.family() != Family::Ipv6 {
            return false;
        }
        match kind {
            130..=132 | 143 => self.ip.hop_limit == 1,
            135 | 136 => self.ip.hop_limit == 255,
            icmp::V6_ROUTER_SOLICITATION => {
                self.ip.hop_limit == 255 && self.direction == Direction::Egress
            }
            _ => false,
        }
    }

    /// Whether it is from a VM as a client of DHCP or DHCPv6, or to it as such.
    pub(super) fn is_dhcp(&self) -> bool {
        let L4::Ports {
            source,
            destination,
        } = self.ip.l4
        else {
            return false;
        };
        let (client, server) = match self.direction {
            Direction::Ingress => (destination, source),
            Direction::Egress => (source, destination),
        };
        self.ip.protocol == protocol::UDP
            && self.ip.fragment.is_none()
            && match self.ip.family() {
                Family::Ipv4 => (client, server) == (68, 67),
                Family::Ipv6 => (client, server) == (546, 547),
            }
    }

    /// Flags of TCP, 0 for all else.
    pub(super) fn flags(&self) -> u8 {
        match self.ip.l4 {
            L4::Tcp { flags, .. } => flags,
            _ => 0,
        }
    }

    /// What rules know as ports.
    pub(super) fn service(&self) -> u16 {
        match self.ip.l4 {
            L4::Tcp { destination, .. } | L4::Ports { destination, .. } => destination,
            L4::Icmp { kind, code, .. } => u16::from(kind) << 8 | u16::from(code),
            L4::None => 0,
        }
    }

    pub(super) fn question(&self) -> Question {
        Question {
            direction: self.direction,
            remote: match self.direction {
                Direction::Ingress => self.ip.source,
                Direction::Egress => self.ip.destination,
            },
            protocol: self.ip.protocol,
            service: self.service(),
        }
    }

    pub(super) fn piece(&self, id: u32) -> Piece {
        Piece {
            vlan: self.vlan,
            direction: self.direction,
            protocol: self.ip.protocol,
            id,
            source: self.ip.source,
            destination: self.ip.destination,
        }
    }

    /// What its connection goes by; `None` if it can be of none.
    pub(super) fn key(&self) -> Option<ConnectionKey> {
        let ports = match self.ip.l4 {
            L4::Tcp {
                source,
                destination,
                ..
            }
            | L4::Ports {
                source,
                destination,
            } => match self.direction {
                Direction::Ingress => (destination, source),
                Direction::Egress => (source, destination),
            },
            L4::Icmp { kind, code: 0, id } => (id, u16::from(query(self.ip.protocol, kind)?)),
            L4::Icmp { .. } => return None,
            L4::None => (0, 0),
        };
        let addresses = match self.direction {
            Direction::Ingress => (self.ip.destination, self.ip.source),
            Direction::Egress => (self.ip.source, self.ip.destination),
        };
        let protocol = self.ip.protocol;
        Some(ConnectionKey::new(self.vlan, protocol, addresses, ports))
    }

    /// The state of a connection that it opens.
    pub(super) fn opening(&self) -> Option<State> {
        match self.ip.l4 {
            // An answer opens nothing.
            L4::Icmp { kind, .. } if query(self.ip.protocol, kind) != Some(kind) => None,
            _ => State::opening(self.ip.protocol, self.flags()),
        }
    }
}

/// The type of the query that an ICMP message is, or that it answers.
fn query(number: u8, kind: u8) -> Option<u8> {
    match (number, kind) {
        (protocol::ICMP, icmp::ECHO | 0) => Some(icmp::ECHO),
        (protocol::ICMP, icmp::TIMESTAMP | icmp::INFORMATION | icmp::ADDRESS_MASK) => Some(kind),
        (protocol::ICMP, 14 | 16 | 18) => Some(kind - 1),
        (protocol::ICMPV6, icmp::V6_ECHO | 129) => Some(icmp::V6_ECHO),
        (protocol::ICMPV6, icmp::V6_NODE_INFORMATION | 140) => Some(icmp::V6_NODE_INFORMATION),
        _ => None,
    }
}
