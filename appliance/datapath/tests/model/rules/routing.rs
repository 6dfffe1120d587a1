//! Between networks: the distributed router (RFC 1812, RFC 8200).

use std::net::IpAddr;

use nve_protocol::*;

use super::answers::Trouble;
use super::spoofing::link_local;
use super::switching::marked;
use super::{Model, Outcome, Receivers, TRUNK_MTU};
use crate::packet::{Body, Defect, ETHERNET, Frame, Ip};

impl Model {
    /// A frame that a VM sends to its gateway.
    pub(super) fn route(
        &mut self,
        vap: &Vap,
        gateway: &Gateway,
        frame: &Frame,
        tci: u16,
    ) -> Result<Outcome, DropReason> {
        let ip = frame.ip().ok_or(DropReason::Gateway)?;
        // RFC 1812, section 5.2.2.
        if ip.is_v4() && ip.defect == Some(Defect::Checksum) {
            return Err(DropReason::MalformedIp);
        }
        let refuse = |model: &mut Model, trouble, reason| {
            Ok(model.refuse(vap, gateway, frame, trouble, reason))
        };
        let (exit, next_hop) = match self.way(gateway, ip) {
            Ok((exit, next_hop)) => (*exit, next_hop),
            Err(DropReason::Gateway) => {
                return match self.answer_echo(frame, ip, tci) {
                    Some(_) if frame.encode().len() > TRUNK_MTU + ETHERNET => {
                        Err(DropReason::TooBig)
                    }
                    Some(outcome) => Ok(outcome),
                    None => refuse(self, unserved(ip), DropReason::Gateway),
                };
            }
            Err(reason @ DropReason::HopLimit) => return refuse(self, Trouble::HopLimit, reason),
            Err(reason @ DropReason::NoRoute) => return refuse(self, Trouble::NoRoute, reason),
            Err(reason) => return Err(reason),
        };
        let Some(station) = self.neighbor(exit.vni, next_hop) else {
            return refuse(self, Trouble::NoNeighbor, DropReason::NoNeighbor);
        };
        let receivers = self.receivers(exit.vni, station, Some(vap.vlan));
        self.admit_to_owner(&receivers, frame)?;
        let mtu = self.mtu(exit.vni);
        let large = ip.length() > mtu;
        // Copies are not fragmented: that a known neighbor's MAC address is in no table
        // is a state of a moment.
        let copies = matches!(receivers, Receivers::Several(_));
        if large && (copies || !ip.is_v4() || ip.dont_fragment) {
            return refuse(self, Trouble::TooBig(mtu), DropReason::TooBig);
        }
        self.meter_way(vap, frame, &receivers)?;
        let mark = self.mark(vap.vlan);
        let mut routed = marked(frame, mark);
        (routed.destination, routed.source) = (station, exit.mac);
        if let Body::Ip(ip) = &mut routed.body {
            ip.hop_limit -= 1;
        }
        let frames = match &routed.body {
            Body::Ip(ip) if large => {
                let front = [&station.0[..], &exit.mac.0, &[0x08, 0x00]].concat();
                let pieces = ip.pieces(mtu)?.into_iter();
                pieces.map(|piece| [&front[..], &piece].concat()).collect()
            }
            _ => vec![routed.encode()],
        };
        self.give(exit.vni, frame, &receivers, &frames, mark)
    }

    /// The interface by which a router forwards a packet, and the next hop.
    fn way(&self, at: &Gateway, ip: &Ip) -> Result<(&Gateway, IpAddr), DropReason> {
        let interfaces: Vec<&Gateway> = self
            .gateways()
            .filter(|gateway| gateway.router == at.router)
            .collect();
        if interfaces
            .iter()
            .any(|gateway| gateway.ip == ip.destination)
            || link_local(at.mac) == ip.destination
        {
            return Err(DropReason::Gateway);
        }
        if is_martian_source(ip.source) || is_martian_destination(ip.destination) {
            return Err(DropReason::Martian);
        }
        if ip.hop_limit <= 1 {
            return Err(DropReason::HopLimit);
        }
        let connected = |ip: IpAddr| {
            interfaces
                .iter()
                .copied()
                .filter(|gateway| gateway.prefix.contains(ip))
                .max_by_key(|gateway| gateway.prefix.length())
        };
        let route = self
            .records()
            .filter_map(|record| match record {
                Record::Route(route) => Some(route),
                _ => None,
            })
            .filter(|route| route.router == at.router && route.destination.contains(ip.destination))
            .max_by_key(|route| route.destination.length());
        // The longest prefix; an interface's own before a route of the same length.
        match (connected(ip.destination), route) {
            (Some(interface), Some(route))
                if interface.prefix.length() >= route.destination.length() =>
            {
                Ok((interface, ip.destination))
            }
            (_, Some(route)) => {
                let interface = connected(route.next_hop).ok_or(DropReason::NoRoute)?;
                Ok((interface, route.next_hop))
            }
            (Some(interface), None) => Ok((interface, ip.destination)),
            (None, None) => Err(DropReason::NoRoute),
        }
    }
}

/// What a gateway tells of a packet to itself that it does not answer.
fn unserved(ip: &Ip) -> Trouble {
    match (ip.protocol(), ip.ports()) {
        (6 | 17, Some(_)) => Trouble::NoPort,
        _ => Trouble::NoProtocol,
    }
}

/// RFC 1812, section 5.3.7, and RFC 4291, sections 2.5.2, 2.5.3, 2.5.6 and 2.7.
fn is_martian_source(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, ..] = ip.octets();
            matches!(first, 0 | 127 | 224..240) || ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            ip.is_unspecified()
                || ip.is_loopback()
                || ip.octets()[0] == 0xff
                || is_link_local_v6(&ip)
        }
    }
}

fn is_martian_destination(ip: IpAddr) -> bool {
    // RFC 3927, section 7: no router forwards to a link-local address.
    is_martian_source(ip) || matches!(ip, IpAddr::V4(ip) if ip.octets()[..2] == [169, 254])
}

fn is_link_local_v6(ip: &std::net::Ipv6Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 0xfe && second & 0xc0 == 0x80
}
