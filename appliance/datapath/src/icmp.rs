//! ICMP errors that a gateway sends about packets of VMs (RFC 792, RFC 1812,
//! section 4.3; RFC 4443).

use core::net::{IpAddr, Ipv4Addr};

use nve_protocol::{DropReason, Gateway, Limit};

use crate::meter::Meter;
use crate::packet::{Headers, Ip, L4, protocol};
use crate::reply::{Envelope, Reply};
use crate::wire::{ethernet, nd, u16_at};

/// Bytes of the largest IPv4 error (RFC 1812, section 4.3.2.3).
const IPV4_MOST: usize = 576;
/// Bytes of the largest IPv6 error: the least MTU (RFC 4443, section 2.4 (c)).
const IPV6_MOST: usize = 1280;
/// Precedence of internetwork control (RFC 1812, section 4.3.2.5).
const IPV4_PRECEDENCE: u8 = 0xc0;
const HOP_LIMIT: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;

/// Errors of one NVE in a second, and at once; as Linux has them.
const RATE: Limit = Limit {
    kbps: 0,
    burst_kbit: 0,
    pps: 1000,
    burst_packets: 50,
};

/// What went wrong with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Its hop limit was used up.
    HopLimit,
    /// The router has no route for it.
    NoRoute,
    /// The router does not reach the station that should get it.
    NoNeighbor,
    /// Its protocol is not one that the gateway speaks.
    Protocol,
    /// The gateway does not listen on its port.
    Port,
    /// It is larger than the next network takes.
    TooBig {
        /// Bytes of the largest IP packet that would pass.
        mtu: u16,
    },
}

/// How much the errors of one NVE are limited (RFC 4443, section 2.4 (f)): each
/// takes one from this meter first, whose bytes are not counted.
pub fn limiter() -> Meter {
    Meter::new(&RATE)
}

/// Writes an error from the gateway `from`, about the packet in `frame`, into
/// `reply`; `false` if there must be none, or none fits the packet's family.
///
/// That a protocol is not spoken is not told about ICMP, which every node speaks.
/// None is sent about ICMP errors, about fragments that may hold one, about what
/// was sent to several stations, and to what is not one station (RFC 1812, section
/// 4.3.2.7; RFC 4443, section 2.4 (e)); nor is an IPv4 packet too big that may be
/// fragmented.
pub fn error(
    error: Error,
    headers: &Headers,
    frame: &[u8],
    from: &Gateway,
    reply: &mut Reply,
) -> bool {
    let Some(ip) = &headers.ip else { return false };
    if !may_tell(error, headers, ip, frame) {
        return false;
    }
    write(error, headers, ip, frame, from, reply).is_ok()
}

fn write(
    error: Error,
    headers: &Headers,
    ip: &Ip,
    frame: &[u8],
    from: &Gateway,
    reply: &mut Reply,
) -> Result<(), DropReason> {
    let (number, traffic_class, most, message) = match ip.source {
        IpAddr::V4(_) => (protocol::ICMP, IPV4_PRECEDENCE, IPV4_MOST, ipv4(error)),
        IpAddr::V6(_) => (protocol::ICMPV6, 0, IPV6_MOST, ipv6(error)),
    };
    reply.ip(&Envelope {
        source_mac: from.mac,
        destination_mac: headers.source,
        source: source(ip, from),
        destination: ip.source,
        protocol: number,
        hop_limit: HOP_LIMIT,
        traffic_class,
    })?;
    reply.push(&message)?;
    let room = (most + ethernet::HEADER).saturating_sub(reply.len());
    let packet = frame.get(ip.header..ip.end).unwrap_or_default();
    reply.push(packet.get(..room).unwrap_or(packet))?;
    reply.finish()
}

/// The gateway's address of the packet's family: to a link-local sender, or if
/// the interface has another family's, the link-local one.
fn source(ip: &Ip, from: &Gateway) -> IpAddr {
    let link_local = matches!(ip.source, IpAddr::V6(ip) if ip.is_unicast_link_local());
    match (ip.source, from.ip) {
        (IpAddr::V6(_), IpAddr::V4(_)) => nd::link_local(from.mac).into(),
        _ if link_local => nd::link_local(from.mac).into(),
        (_, own) => own,
    }
}

fn may_tell(error: Error, headers: &Headers, ip: &Ip, frame: &[u8]) -> bool {
    if !headers.source.is_unicast() || !is_station(ip.source) || is_error(ip) {
        return false;
    }
    let icmp = matches!(ip.protocol, protocol::ICMP | protocol::ICMPV6);
    if icmp && error == Error::Protocol {
        return false;
    }
    let to_one = !headers.destination.is_multicast() && !is_group(ip.destination);
    let too_big = matches!(error, Error::TooBig { .. });
    match ip.source {
        IpAddr::V4(_) => {
            let whole = u16_at(frame, ip.header + 6).is_some_and(|word| word & DONT_FRAGMENT != 0);
            to_one && !ip.is_later_fragment() && (whole || !too_big)
        }
        // What is too big may have been sent to a group (RFC 4443, section 2.4 (e.3)).
        IpAddr::V6(_) => to_one || too_big,
    }
}

/// Whether the packet is, or may be a piece of, an ICMP error or a redirect.
fn is_error(ip: &Ip) -> bool {
    match (ip.protocol, ip.l4) {
        (protocol::ICMP, L4::Icmp { kind, .. }) => !matches!(kind, 0 | 8..=10 | 13..=18),
        (protocol::ICMPV6, L4::Icmp { kind, .. }) => kind < 128 || kind == nd::REDIRECT,
        (protocol::ICMP | protocol::ICMPV6, _) => true,
        _ => false,
    }
}

/// Whether an address can be that of one station.
fn is_station(ip: IpAddr) -> bool {
    let reserved = |ip: Ipv4Addr| ip.octets()[0] == 0 || ip.octets()[0] >= 224;
    let none = matches!(ip, IpAddr::V4(ip) if reserved(ip));
    !(none || ip.is_unspecified() || ip.is_multicast() || ip.is_loopback())
}

fn is_group(ip: IpAddr) -> bool {
    ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

/// The first eight bytes of an IPv4 error (RFC 792; RFC 1191, section 4).
fn ipv4(error: Error) -> [u8; 8] {
    let (kind, code, mtu) = match error {
        Error::HopLimit => (11, 0, 0),
        Error::NoRoute => (3, 0, 0),
        Error::NoNeighbor => (3, 1, 0),
        Error::Protocol => (3, 2, 0),
        Error::Port => (3, 3, 0),
        Error::TooBig { mtu } => (3, 4, mtu),
    };
    let [high, low] = mtu.to_be_bytes();
    [kind, code, 0, 0, 0, 0, high, low]
}

/// The first eight bytes of an IPv6 error (RFC 4443, section 3). An unknown
/// protocol is told by a parameter problem, at the fixed header's field for it.
fn ipv6(error: Error) -> [u8; 8] {
    const NEXT_HEADER: u16 = 6;
    let (kind, code, value) = match error {
        Error::HopLimit => (3, 0, 0),
        Error::NoRoute => (1, 0, 0),
        Error::NoNeighbor => (1, 3, 0),
        Error::Protocol => (4, 1, NEXT_HEADER),
        Error::Port => (1, 4, 0),
        Error::TooBig { mtu } => (2, 0, mtu),
    };
    let [high, low] = value.to_be_bytes();
    [kind, code, 0, 0, 0, 0, high, low]
}

#[cfg(test)]
mod tests;
