//! Between networks: the distributed router (RFC 1812, RFC 8200).

use std::net::IpAddr;

use nve_protocol::*;

use super::answers::Trouble;
use super::spoofing::link_local;
use super::{Model, Outcome, Receiver};
use crate::packet::{Body, Frame, Ip, Transport};

impl Model {
    /// A frame that a VM sends to its gateway.
    pub(super) fn route(
        &self,
        vap: &Vap,
        gateway: &Gateway,
        frame: &Frame,
        tci: u16,
    ) -> Result<Outcome, DropReason> {
        let ip = frame.ip().ok_or(DropReason::Gateway)?;
        let refuse = |trouble, reason| Ok(self.refuse(vap, gateway, frame, trouble, reason));
        let (exit, next_hop) = match self.way(gateway, ip) {
            Ok(way) => way,
            Err(DropReason::Gateway) => {
                return match self.answer_echo(frame, ip, tci) {
                    Some(outcome) => Ok(outcome),
                    None => refuse(unserved(ip), DropReason::Gateway),
                };
            }
            Err(reason @ DropReason::HopLimit) => return refuse(Trouble::HopLimit, reason),
            Err(reason @ DropReason::NoRoute) => return refuse(Trouble::NoRoute, reason),
            Err(reason) => return Err(reason),
        };
        let Some(station) = self.neighbor(exit.vni, next_hop) else {
            return refuse(Trouble::NoNeighbor, DropReason::NoNeighbor);
        };
        let routed = Ip {
            hop_limit: ip.hop_limit - 1,
            ..ip.clone()
        };
        let receivers = self.receivers(exit.vni, station, Some(vap.vlan));
        let mtu = self.mtu(exit.vni);
        let large = ip.length() > mtu;
        let located = self.is_located(exit.vni, station, &receivers);
        if located {
            self.admit_to(receivers[0], frame)?;
        }
        // Copies are not fragmented: that a known neighbor's MAC address is in no table
        // is a state of a moment.
        if large && (!located || !ip.is_v4() || ip.dont_fragment) {
            return refuse(Trouble::TooBig(mtu), DropReason::TooBig);
        }
        let routed_frame = |body: Body, padding| Frame {
            destination: station,
            source: exit.mac,
            body,
            padding,
        };
        if !large {
            let bytes = routed_frame(Body::Ip(routed), frame.padding).encode();
            return self.give(exit.vni, frame, &receivers, &[bytes]);
        }
        let pieces = routed.pieces(mtu).ok_or(DropReason::TooBig)?;
        let frames: Vec<Vec<u8>> = pieces
            .iter()
            .map(|piece| [&station.0[..], &exit.mac.0, &[0x08, 0x00], piece].concat())
            .collect();
        self.give(exit.vni, frame, &receivers, &frames)
    }

    /// Whether tables say where the station is.
    fn is_located(&self, vni: Vni, station: Mac, receivers: &[Receiver]) -> bool {
        match receivers {
            [Receiver::Vap(vlan)] => self.vap(vlan.get()).is_some_and(|vap| vap.mac == station),
            [Receiver::Vtep(_)] => self.records.contains_key(&Key::Fdb { vni, mac: station }),
            _ => false,
        }
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
    match ip.transport {
        Transport::Tcp { .. } | Transport::Ports { protocol: 17, .. }
            if !ip.is_later_fragment() =>
        {
            Trouble::NoPort
        }
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
