//! What the NVE answers itself: ARP, neighbor solicitations, pings of gateways;
//! and what it tells of packets that it does not route.

use std::net::{IpAddr, Ipv6Addr};

use nve_protocol::*;

use super::spoofing::{is_valid_discovery, link_local};
use super::{Model, Outcome, Sent};
use crate::packet::{Arp, Body, Frame, Ip, Transport, icmp_error, neighbor_advertisement, tagged};

pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Why a router does not forward a packet, as ICMP tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    HopLimit,
    NoRoute,
    NoNeighbor,
    NoProtocol,
    NoPort,
    TooBig(usize),
}

/// What a server of DHCP does with a message.
pub(super) enum Served {
    /// It is not for it.
    Pass,
    /// It needs no reply, and nobody else gets it.
    Ignored,
    Reply(Vec<u8>),
}

/// One request, and the frames that answer it.
fn answered(vap: &Vap, replies: &[Vec<u8>]) -> Outcome {
    let sent = replies.iter().map(|bytes| Sent::Trunk {
        bytes: tagged(bytes, vap.vlan.get()),
    });
    Outcome {
        sent: sent.collect(),
        answers: 1,
        ..Outcome::default()
    }
}

impl Model {
    /// The answer to a VM's frame; `None` if it goes its way.
    pub(super) fn answer(&self, vap: &Vap, frame: &Frame) -> Result<Option<Outcome>, DropReason> {
        let reply = match &frame.body {
            Body::Arp(arp) => self.answer_arp(vap, frame, arp)?,
            Body::Ip(ip) if !ip.is_later_fragment() => match ip.transport {
                Transport::Neighbor {
                    advertisement: false,
                    target,
                    ..
                } => self.answer_neighbor(vap, frame, ip, target)?,
                Transport::Solicitation { .. } => {
                    let replies = self.answer_solicitation(vap, frame, ip)?;
                    return Ok((!replies.is_empty()).then(|| answered(vap, &replies)));
                }
                Transport::Dhcp4(ref message) => match self.answer_dhcp4(vap, ip, message)? {
                    Served::Pass => None,
                    Served::Ignored => return Ok(Some(Outcome::default())),
                    Served::Reply(bytes) => Some(bytes),
                },
                Transport::Dhcp6(ref message) => {
                    match self.answer_dhcp6(vap, frame, ip, message)? {
                        Served::Pass => None,
                        Served::Ignored => return Ok(Some(Outcome::default())),
                        Served::Reply(bytes) => Some(bytes),
                    }
                }
                _ => None,
            },
            _ => None,
        };
        Ok(reply.map(|bytes| answered(vap, &[bytes])))
    }

    fn answer_arp(
        &self,
        vap: &Vap,
        frame: &Frame,
        arp: &Arp,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        if arp.hardware != 1 || !matches!(arp.operation, 1 | 2) {
            return Err(DropReason::Arp);
        }
        if arp.operation != 1 || arp.sender_ip == arp.target_ip {
            return Ok(None);
        }
        let probe = arp.sender_ip.is_unspecified();
        let owner = self.owner(vap, frame.source, arp.target_ip.into(), probe);
        Ok(owner.map(|(mac, _)| {
            let reply = Arp {
                operation: 2,
                sender_mac: mac,
                sender_ip: arp.target_ip,
                target_ip: arp.sender_ip,
                hardware: 1,
            };
            let body = reply.with_target(arp.sender_mac);
            [&arp.sender_mac.0[..], &mac.0, &[0x08, 0x06], &body].concat()
        }))
    }

    fn answer_neighbor(
        &self,
        vap: &Vap,
        frame: &Frame,
        ip: &Ip,
        target: Ipv6Addr,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        if !is_valid_discovery(ip) {
            return Err(DropReason::NeighborDiscovery);
        }
        let probe = ip.source.is_unspecified();
        let Some((mac, router)) = self.owner(vap, frame.source, target.into(), probe) else {
            let mine = |address: &Address| {
                address.prefix.contains(target.into()) || link_local(address.mac) == target
            };
            let own = link_local(vap.mac) == target || self.addresses(vap.vlan).any(mine);
            // It could only keep another from an address that it is about to take.
            return match probe && vap.port_security && !own {
                true => Err(DropReason::NeighborDiscovery),
                false => Ok(None),
            };
        };
        let (to, to_mac) = match ip.source {
            IpAddr::V6(source) if !probe => (source, frame.source),
            _ => (ALL_NODES, Mac([0x33, 0x33, 0, 0, 0, 1])),
        };
        let flags = 0x20 | if router { 0x80 } else { 0 } | if probe { 0 } else { 0x40 };
        let packet = neighbor_advertisement(target, to, mac, flags);
        Ok(Some(
            [&to_mac.0[..], &mac.0, &[0x86, 0xdd], &packet].concat(),
        ))
    }

    /// Who answers for an address, and whether it is a router. Nobody does for the
    /// VAP's own, so that it can look for others that use them.
    fn owner(&self, vap: &Vap, asker: Mac, ip: IpAddr, probe: bool) -> Option<(Mac, bool)> {
        let is_link_local = matches!(ip, IpAddr::V6(ip) if ip.octets()[..2] == [0xfe, 0x80]);
        let gateway = self.gateways().find(|gateway| {
            let address = match is_link_local {
                true => link_local(gateway.mac),
                false => gateway.ip,
            };
            (gateway.vni, address) == (vap.vni, ip)
        });
        if let Some(gateway) = gateway {
            return Some((gateway.mac, true));
        }
        let mac = self.neighbor(vap.vni, ip)?;
        let own = mac == asker || mac == vap.mac;
        let given = self.addresses(vap.vlan).any(|address| {
            let by_name = probe && address.prefix.is_host();
            address.prefix.contains(ip) && (address.mac == mac || by_name)
        });
        (!own && !given).then_some((mac, false))
    }

    /// The reply to an echo request to a gateway's address.
    pub(super) fn answer_echo(&self, frame: &Frame, ip: &Ip, tci: u16) -> Option<Outcome> {
        let (request, reply) = if ip.is_v4() { (8, 0) } else { (128, 129) };
        let Transport::Icmp { kind, code: 0, id } = ip.transport else {
            return None;
        };
        let broadcast = matches!(ip.source, IpAddr::V4(ip) if ip.is_broadcast());
        let station = !ip.source.is_unspecified() && !ip.source.is_multicast() && !broadcast;
        if kind != request || ip.fragment.is_some() || ip.options > 0 || !station {
            return None;
        }
        let answer = Frame {
            destination: frame.source,
            source: frame.destination,
            body: Body::Ip(Ip {
                source: ip.destination,
                destination: ip.source,
                hop_limit: 64,
                transport: Transport::Icmp {
                    kind: reply,
                    code: 0,
                    id,
                },
                ..ip.clone()
            }),
            padding: frame.padding,
        };
        Some(Outcome {
            sent: vec![Sent::Trunk {
                // Its tag is the request's, with the priority.
                bytes: tagged(&answer.encode(), tci),
            }],
            answers: 1,
            ..Outcome::default()
        })
    }

    /// Drops a packet and tells its sender, if it may be told (RFC 1812, section
    /// 4.3.2.7; RFC 4443, section 2.4).
    pub(super) fn refuse(
        &mut self,
        vap: &Vap,
        gateway: &Gateway,
        frame: &Frame,
        trouble: Trouble,
        reason: DropReason,
    ) -> Outcome {
        let mut outcome = Outcome::dropped(reason);
        let Some(ip) = frame.ip() else {
            return outcome;
        };
        // Link-local to link-local, and where it has no address of the version.
        let without = !ip.is_v4() && gateway.ip.is_ipv4();
        let from = match without || is_link_local(ip.source) {
            true => link_local(gateway.mac),
            false => gateway.ip,
        };
        if from.is_ipv4() != ip.is_v4() || !may_tell(ip, trouble) {
            return outcome;
        }
        let (kind, code, value) = match (trouble, ip.is_v4()) {
            (Trouble::HopLimit, true) => (11, 0, 0),
            (Trouble::NoRoute, true) => (3, 0, 0),
            (Trouble::NoNeighbor, true) => (3, 1, 0),
            (Trouble::NoProtocol, true) => (3, 2, 0),
            (Trouble::NoPort, true) => (3, 3, 0),
            (Trouble::TooBig(mtu), true) => (3, 4, mtu),
            (Trouble::HopLimit, false) => (3, 0, 0),
            (Trouble::NoRoute, false) => (1, 0, 0),
            (Trouble::NoNeighbor, false) => (1, 3, 0),
            (Trouble::NoProtocol, false) => (4, 1, 6),
            (Trouble::NoPort, false) => (1, 4, 0),
            (Trouble::TooBig(mtu), false) => (2, 0, mtu),
        };
        if !self.errors.admit(self.now, 0) {
            return outcome;
        }
        let packet = icmp_error(from, ip, kind, code, value as u16);
        let ethertype = if ip.is_v4() {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        };
        let bytes = [&frame.source.0[..], &gateway.mac.0, &ethertype, &packet].concat();
        outcome.sent.push(Sent::Trunk {
            bytes: tagged(&bytes, vap.vlan.get()),
        });
        outcome
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.octets()[0] == 0xfe && ip.octets()[1] & 0xc0 == 0x80)
}

fn may_tell(ip: &Ip, trouble: Trouble) -> bool {
    let too_big = matches!(trouble, Trouble::TooBig(_));
    let to_group = match ip.destination {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    };
    let from_station = match ip.source {
        IpAddr::V4(ip) => !matches!(ip.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast()),
    };
    let about_error = match ip.icmp() {
        _ if ip.is_later_fragment() => matches!(ip.protocol(), 1 | 58),
        Some((kind, _)) if ip.is_v4() => !matches!(kind, 0 | 8..=10 | 13..=18),
        Some((kind, _)) => kind < 128 || kind == 137,
        None => false,
    };
    // Every node speaks ICMP.
    let known = trouble == Trouble::NoProtocol && matches!(ip.protocol(), 1 | 58);
    let fit = match ip.is_v4() {
        true => !to_group && !ip.is_later_fragment() && (!too_big || ip.dont_fragment),
        false => !to_group || too_big,
    };
    from_station && !about_error && !known && fit
}
