//! Anti-spoofing: a VM sends from its own addresses alone, and neither routes nor
//! leases for others unasked.
//!
//! The rules are those of Neutron's OVS firewall. The addresses are pairs of a MAC
//! address and a prefix, the port's [`Address`] records; with each MAC address
//! goes the link-local address that is made of it. Frames of other protocols
//! than ARP and IP need the MAC address only. Without port security all passes.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::{Address, DropReason, Mac, Vap};

use crate::packet::{Headers, Ip, L4, protocol};
use crate::tables::Tables;
use crate::wire::nd::{self, Message};
use crate::wire::{arp, dhcpv4, dhcpv6, ethernet};

/// Multicast listener messages that may come from no address (RFC 3590): report
/// and done of version 1, report of version 2.
const LISTENER: [u8; 3] = [131, 132, 143];

/// Why a frame's source is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'t> {
    /// The port has no port security.
    Unchecked,
    /// It is one of the VAP's addresses.
    Address(&'t Address),
    /// It is the link-local address made of one of the VAP's MAC addresses.
    LinkLocal(Mac),
    /// The protocol has no IP address in it, and the MAC address is the VAP's.
    Mac(Mac),
    /// It has no address yet and asks for one, or tests it.
    Unspecified,
}

/// Whether `vap` may send the frame, and why. `headers` are the frame's.
pub fn source<'t>(
    tables: &'t Tables,
    vap: &Vap,
    headers: &Headers,
    frame: &[u8],
) -> Result<Source<'t>, DropReason> {
    if !vap.port_security {
        return Ok(Source::Unchecked);
    }
    let owned = Owned {
        mac: headers.source,
        addresses: tables.addresses(vap.vlan),
    };
    if owned.mac != vap.mac && !owned.is_paired() {
        return Err(DropReason::SourceMac);
    }
    match (headers.ethertype, &headers.ip) {
        (ethernet::ARP, _) => owned.arp(frame.get(headers.network..).unwrap_or_default()),
        (_, Some(ip)) => match (ip.source, ip.destination) {
            (IpAddr::V4(source), _) => owned.ipv4(source, ip),
            (IpAddr::V6(source), _) => owned.ipv6(source, ip, frame),
        },
        _ => Ok(Source::Mac(owned.mac)),
    }
}

/// Whether the VAP may use an address with some MAC address of its own.
pub fn owns(tables: &Tables, vap: &Vap, ip: IpAddr) -> bool {
    let addresses = tables.addresses(vap.vlan);
    let link_local = |mac| ip == IpAddr::V6(nd::link_local(mac));
    link_local(vap.mac)
        || addresses
            .iter()
            .any(|address| address.prefix.contains(ip) || link_local(address.mac))
}

/// What goes with the source MAC address of a frame.
struct Owned<'t> {
    mac: Mac,
    /// All of the VAP, those of other MAC addresses too.
    addresses: &'t [Address],
}

impl<'t> Owned<'t> {
    fn is_paired(&self) -> bool {
        self.addresses.iter().any(|address| address.mac == self.mac)
    }

    fn find(&self, ip: IpAddr) -> Option<Source<'t>> {
        let own = |address: &&Address| address.mac == self.mac && address.prefix.contains(ip);
        let listed = self.addresses.iter().find(own).map(Source::Address);
        let made = || {
            let link_local = ip == IpAddr::V6(nd::link_local(self.mac));
            link_local.then_some(Source::LinkLocal(self.mac))
        };
        listed.or_else(made)
    }

    fn arp(&self, packet: &[u8]) -> Result<Source<'t>, DropReason> {
        let packet = arp::Packet::parse(packet).ok_or(DropReason::Arp)?;
        if packet.sender_mac != self.mac {
            return Err(DropReason::Arp);
        }
        let probe = packet.sender_ip.is_unspecified();
        if probe && packet.operation == arp::Operation::Request {
            return Ok(Source::Unspecified);
        }
        self.find(packet.sender_ip.into()).ok_or(DropReason::Arp)
    }

    fn ipv4(&self, source: Ipv4Addr, ip: &Ip) -> Result<Source<'t>, DropReason> {
        let ports = udp_ports(ip);
        if ports == Some((dhcpv4::SERVER_PORT, dhcpv4::CLIENT_PORT)) {
            return Err(DropReason::DhcpServer);
        }
        let asks = ports == Some((dhcpv4::CLIENT_PORT, dhcpv4::SERVER_PORT));
        match self.find(source.into()) {
            // A pair of all addresses has this one too, and it is no address.
            _ if source.is_unspecified() && asks => Ok(Source::Unspecified),
            Some(found) if !source.is_unspecified() => Ok(found),
            _ => Err(DropReason::SourceIp),
        }
    }

    fn ipv6(&self, source: Ipv6Addr, ip: &Ip, frame: &[u8]) -> Result<Source<'t>, DropReason> {
        if udp_ports(ip) == Some((dhcpv6::SERVER_PORT, dhcpv6::CLIENT_PORT)) {
            return Err(DropReason::DhcpServer);
        }
        let kind = match ip.l4 {
            L4::Icmp { kind, .. } if ip.protocol == protocol::ICMPV6 => Some(kind),
            _ => None,
        };
        let mut without_address = false;
        match kind {
            Some(nd::ROUTER_ADVERTISEMENT | nd::REDIRECT) => {
                return Err(DropReason::RouterAdvertisement);
            }
            Some(nd::ROUTER_SOLICITATION..=nd::NEIGHBOR_ADVERTISEMENT) => {
                let message = Message::parse(ip, frame).ok_or(DropReason::NeighborDiscovery)?;
                self.neighbor_discovery(&message)?;
                without_address = !matches!(message, Message::NeighborAdvertisement { .. });
            }
            Some(kind) => without_address = LISTENER.contains(&kind) && ip.fragment.is_none(),
            None => {}
        }
        match self.find(source.into()) {
            _ if source.is_unspecified() && without_address => Ok(Source::Unspecified),
            Some(found) if !source.is_unspecified() => Ok(found),
            _ => Err(DropReason::SourceIp),
        }
    }

    /// Link-layer addresses are the frame's own, and only own addresses are
    /// advertised. Solicitations may ask for any: one that tests an address of
    /// another gets its answer from the tables.
    fn neighbor_discovery(&self, message: &Message) -> Result<(), DropReason> {
        let (link, advertised) = match *message {
            Message::RouterSolicitation { link } => (link, None),
            Message::NeighborSolicitation { link, .. } => (link, None),
            Message::NeighborAdvertisement { target, link } => (link, Some(target)),
        };
        let honest = link.is_none_or(|link| link == self.mac)
            && advertised.is_none_or(|target| self.find(target.into()).is_some());
        honest.then_some(()).ok_or(DropReason::NeighborDiscovery)
    }
}

fn udp_ports(ip: &Ip) -> Option<(u16, u16)> {
    match ip.l4 {
        L4::Ports {
            source,
            destination,
        } if ip.protocol == protocol::UDP => Some((source, destination)),
        _ => None,
    }
}
