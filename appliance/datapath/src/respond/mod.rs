//! What the NVE answers VMs itself, from the tables: ARP, neighbor and router
//! solicitations, DHCPv4 and DHCPv6; and, in [`echo`], pings of gateways.
//!
//! Frames that get here have passed [`crate::spoof`]. Nothing is remembered
//! between frames: an answer follows from the request and the tables.

use core::net::{IpAddr, Ipv6Addr};

use nve_protocol::{DropReason, Gateway, Mac, Vap, Vni};

use crate::icmp;
use crate::packet::{Headers, Ip, L4, protocol};
pub use crate::reply::Reply;
use crate::tables::Tables;
use crate::wire::{dhcpv4, dhcpv6, ethernet, nd as wire_nd};

mod arp;
mod dhcp4;
mod dhcp6;
pub mod echo;
mod nd;
pub mod ra;

#[cfg(test)]
mod tests;

/// MAC address of the NVE where no router's fits: as DHCP server of a subnet
/// without a router, and of DHCPv6. Locally administered, and the same on every
/// NVE, so that a VM sees one server wherever it is.
pub const SERVER_MAC: Mac = Mac([0x0e, b's', b'l', b'u', b'i', b'c']);

/// All nodes of a link (RFC 4291, section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const UDP_HEADER: usize = 8;

/// A VM's frame that may want an answer.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The tables in force.
    pub tables: &'a Tables,
    /// Who sent it.
    pub vap: &'a Vap,
    /// The frame's headers.
    pub headers: &'a Headers,
    /// The frame, tagged or not.
    pub frame: &'a [u8],
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The reply goes to the VAP; the frame is done with.
    Reply,
    /// Not for a responder: the frame goes its way.
    Pass,
    /// It needs no answer, and nobody else gets it.
    Consumed,
}

/// Writes a further answer to a frame that [`answer`] had a reply to, after `told`
/// replies so far; false if there are no more. All routers of a network answer a
/// router solicitation, each for itself.
pub fn answer_more(
    request: &Request<'_>,
    told: usize,
    reply: &mut Reply,
) -> Result<bool, DropReason> {
    match &request.headers.ip {
        Some(ip) if is_router_solicitation(ip) => {
            let answer = ra::answer(request, ip, told, reply)?;
            Ok(answer == Answer::Reply)
        }
        _ => Ok(false),
    }
}

fn is_router_solicitation(ip: &Ip) -> bool {
    let kind = wire_nd::ROUTER_SOLICITATION;
    ip.protocol == protocol::ICMPV6 && matches!(ip.l4, L4::Icmp { kind: own, .. } if own == kind)
}

/// Answers a frame. `reply` holds a frame only after [`Answer::Reply`]; before and
/// after anything else its content is of no meaning.
pub fn answer(request: &Request<'_>, reply: &mut Reply) -> Result<Answer, DropReason> {
    let Some(ip) = &request.headers.ip else {
        return match request.headers.ethertype {
            ethernet::ARP => arp::answer(request, reply),
            _ => Ok(Answer::Pass),
        };
    };
    match (ip.protocol, ip.l4) {
        (protocol::ICMPV6, L4::Icmp { kind, .. }) => match kind {
            wire_nd::NEIGHBOR_SOLICITATION => nd::answer(request, ip, reply),
            wire_nd::ROUTER_SOLICITATION => ra::answer(request, ip, 0, reply),
            _ => Ok(Answer::Pass),
        },
        (
            protocol::UDP,
            L4::Ports {
                source,
                destination,
            },
        ) => match (source, destination) {
            (dhcpv4::CLIENT_PORT, dhcpv4::SERVER_PORT) => dhcp4::answer(request, ip, reply),
            (dhcpv6::CLIENT_PORT, dhcpv6::SERVER_PORT) => dhcp6::answer(request, ip, reply),
            _ => Ok(Answer::Pass),
        },
        _ => Ok(Answer::Pass),
    }
}

/// Whether a frame is of a client of DHCP. Whether it is answered goes by what it
/// says, so that one is no measure for the next one.
pub fn is_dhcp(headers: &Headers) -> bool {
    let ports = headers.ip.as_ref().map(|ip| (ip.protocol, ip.l4));
    let Some((
        protocol::UDP,
        L4::Ports {
            source,
            destination,
        },
    )) = ports
    else {
        return false;
    };
    matches!(
        (source, destination),
        (dhcpv4::CLIENT_PORT, dhcpv4::SERVER_PORT) | (dhcpv6::CLIENT_PORT, dhcpv6::SERVER_PORT)
    )
}

/// The router's interface on a network with an address: one of its own, or the
/// link-local address that is made of its MAC address.
pub fn gateway_at(tables: &Tables, vni: Vni, ip: IpAddr) -> Option<&Gateway> {
    let link_local = |ip: Ipv6Addr| {
        let gateways = tables.gateways(vni).iter();
        let mut made = gateways.filter(|gateway| wire_nd::link_local(gateway.mac) == ip);
        made.next()
    };
    match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => link_local(ip),
        _ => tables.gateway(vni, ip),
    }
}

/// What a gateway tells of a packet to itself that it does not answer: of the
/// protocols with ports it speaks TCP and UDP alone (RFC 1122, section 3.2.2.1).
pub fn unserved(headers: &Headers) -> icmp::Error {
    match headers.ip.as_ref().map(|ip| (ip.protocol, ip.l4)) {
        Some((protocol::TCP | protocol::UDP, L4::Tcp { .. } | L4::Ports { .. })) => {
            icmp::Error::Port
        }
        _ => icmp::Error::Protocol,
    }
}

impl Request<'_> {
    /// What follows the UDP header of `ip`, the frame's packet.
    fn datagram(&self, ip: &Ip) -> &[u8] {
        let at = ip.transport + UDP_HEADER;
        self.frame.get(at..ip.end).unwrap_or_default()
    }

    /// Who answers for an address: its MAC address, and whether it is a router.
    /// `None` for addresses that no table knows and for the VAP's own, so that it
    /// can look for others that use them. A `probe` comes from one that wants the
    /// address for itself.
    fn owner(&self, ip: IpAddr, probe: bool) -> Option<(Mac, bool)> {
        let vni = self.vap.vni;
        if let Some(gateway) = gateway_at(self.tables, vni, ip) {
            return Some((gateway.mac, true));
        }
        let mac = self.tables.neighbor(vni, ip)?;
        let own = mac == self.headers.source
            || mac == self.vap.mac
            || self.has(mac, ip)
            || (probe && self.shares(ip));
        (!own).then_some((mac, false))
    }

    /// Whether `mac` with `ip` is one of the VAP's addresses.
    fn has(&self, mac: Mac, ip: IpAddr) -> bool {
        let addresses = self.tables.addresses(self.vap.vlan).iter();
        let mut same = addresses.filter(|address| address.mac == mac);
        same.any(|address| address.prefix.contains(ip))
    }

    /// Whether `ip` was given to the VAP by name, not in a wider prefix, so that
    /// it may take the address over from another port, as pairs of VMs do.
    fn shares(&self, ip: IpAddr) -> bool {
        let mut addresses = self.tables.addresses(self.vap.vlan).iter();
        addresses.any(|address| address.prefix.is_host() && address.prefix.contains(ip))
    }
}
