//! What a VM with port security may send from: its addresses, and no more.

use std::net::{IpAddr, Ipv6Addr};

use nve_protocol::*;

use super::Model;
use crate::packet::{Arp, Body, Frame, Ip, Transport};

impl Model {
    pub(super) fn check_source(&self, vap: &Vap, frame: &Frame) -> Result<(), DropReason> {
        if !vap.port_security {
            return Ok(());
        }
        let paired = |address: &&Address| address.mac == frame.source;
        if frame.source != vap.mac && !self.addresses(vap.vlan).any(|address| paired(&address)) {
            return Err(DropReason::SourceMac);
        }
        let has = |ip: IpAddr| {
            let own = self.addresses(vap.vlan).filter(paired);
            ip == link_local(frame.source) || own.into_iter().any(|own| own.prefix.contains(ip))
        };
        match &frame.body {
            Body::Arp(arp) => check_arp(arp, frame.source, has),
            Body::Ip(ip) if ip.is_v4() => check_v4(ip, has),
            Body::Ip(ip) => check_v6(ip, frame.source, has),
            Body::Tagged(_) | Body::Other(_) => Ok(()),
        }
    }

    pub(super) fn addresses(&self, vlan: Vlan) -> impl Iterator<Item = &Address> {
        self.records().filter_map(move |record| match record {
            Record::Address(address) => (address.vlan == vlan).then_some(address),
            _ => None,
        })
    }
}

/// RFC 4291, appendix A.
pub(super) fn link_local(mac: Mac) -> IpAddr {
    let [a, b, c, d, e, f] = mac.0.map(u16::from);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        (a ^ 2) << 8 | b,
        c << 8 | 0xff,
        0xfe00 | d,
        e << 8 | f,
    )
    .into()
}

fn check_arp(arp: &Arp, source: Mac, has: impl Fn(IpAddr) -> bool) -> Result<(), DropReason> {
    let shape = arp.hardware == 1 && matches!(arp.operation, 1 | 2);
    let probe = arp.operation == 1 && arp.sender_ip.is_unspecified();
    match shape && arp.sender_mac == source && (probe || has(arp.sender_ip.into())) {
        true => Ok(()),
        false => Err(DropReason::Arp),
    }
}

fn check_v4(ip: &Ip, has: impl Fn(IpAddr) -> bool) -> Result<(), DropReason> {
    if ip.udp_ports() == Some((67, 68)) {
        return Err(DropReason::DhcpServer);
    }
    let ok = match ip.source.is_unspecified() {
        // Asks for an address.
        true => ip.udp_ports() == Some((68, 67)),
        false => has(ip.source),
    };
    ok.then_some(()).ok_or(DropReason::SourceIp)
}

fn check_v6(ip: &Ip, source: Mac, has: impl Fn(IpAddr) -> bool) -> Result<(), DropReason> {
    if ip.udp_ports() == Some((547, 546)) {
        return Err(DropReason::DhcpServer);
    }
    let mut without_address = false;
    if !ip.is_later_fragment() {
        match ip.transport {
            Transport::Icmp {
                kind: 134 | 137, ..
            } => {
                return Err(DropReason::RouterAdvertisement);
            }
            Transport::Icmp { kind, .. } => {
                // RFC 3590: what listeners report before they have an address.
                without_address = matches!(kind, 131 | 132 | 143) && ip.fragment.is_none();
            }
            Transport::Neighbor {
                advertisement,
                target,
                link,
            } => {
                let honest = link.is_none_or(|link| link == source)
                    && (!advertisement || has(target.into()));
                if !is_valid_discovery(ip) || !honest {
                    return Err(DropReason::NeighborDiscovery);
                }
                without_address = !advertisement;
            }
            Transport::Solicitation { link } => {
                let honest = link.is_none_or(|link| link == source);
                if !is_valid_discovery(ip) || !honest {
                    return Err(DropReason::NeighborDiscovery);
                }
                without_address = true;
            }
            _ => {}
        }
    }
    let ok = match ip.source.is_unspecified() {
        true => without_address,
        false => has(ip.source),
    };
    ok.then_some(()).ok_or(DropReason::SourceIp)
}

/// RFC 4861, sections 6.1.1, 7.1.1 and 7.1.2; RFC 6980.
pub(super) fn is_valid_discovery(ip: &Ip) -> bool {
    let IpAddr::V6(destination) = ip.destination else {
        return false;
    };
    let asks_nodes = destination.octets()[..13] == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];
    let from_nowhere = ip.source.is_unspecified();
    let valid = match ip.transport {
        Transport::Solicitation { link } => !from_nowhere || link.is_none(),
        Transport::Neighbor {
            advertisement,
            target,
            link,
        } => {
            let probe = !advertisement && from_nowhere;
            !target.is_multicast() && (!probe || (link.is_none() && asks_nodes))
        }
        _ => false,
    };
    valid && ip.hop_limit == 255 && ip.fragment.is_none() && ip.payload == 0
}
