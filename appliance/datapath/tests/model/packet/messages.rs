//! Messages, and whole packets of the NVE's own.

use std::net::{IpAddr, Ipv6Addr};

use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, UdpHeader};
use nve_protocol::Mac;

use super::{Ip, Transport};

/// An ICMPv6 message whose checksum covers `body`, up to `length` bytes of it.
fn icmp_v6(
    from: Ipv6Addr,
    to: Ipv6Addr,
    kind: u8,
    code: u8,
    rest: [u8; 4],
    body: &[u8],
    length: usize,
) -> Vec<u8> {
    let message = Icmpv6Type::Unknown {
        type_u8: kind,
        code_u8: code,
        bytes5to8: rest,
    };
    let header = Icmpv6Header::with_checksum(message, from.octets(), to.octets(), body).unwrap();
    [header.to_bytes().as_slice(), &body[..length]].concat()
}

/// An ICMP header of the packet's version, and `body`; both are covered by the
/// checksum, as is the data that follows.
pub(super) fn icmp_header(
    ip: &Ip,
    kind: (u8, u8),
    rest: [u8; 4],
    body: &[u8],
    data: &[u8],
) -> Vec<u8> {
    let covered = [body, data].concat();
    match (ip.source, ip.destination) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            icmp_v6(from, to, kind.0, kind.1, rest, &covered, body.len())
        }
        _ => {
            let message = Icmpv4Type::Unknown {
                type_u8: kind.0,
                code_u8: kind.1,
                bytes5to8: rest,
            };
            let header = Icmpv4Header::with_checksum(message, &covered);
            [header.to_bytes().as_slice(), body].concat()
        }
    }
}

/// A UDP header for the packet, and `body`; the data that follows belongs to it.
pub(super) fn udp_header(ip: &Ip, ports: (u16, u16), body: &[u8], data: &[u8]) -> Vec<u8> {
    let payload = [body, data].concat();
    let mut header = UdpHeader {
        source_port: ports.0,
        destination_port: ports.1,
        length: (8 + payload.len()) as u16,
        checksum: 0,
    };
    header.checksum = match (ip.source, ip.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.calc_checksum_ipv4_raw(from.octets(), to.octets(), &payload)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.calc_checksum_ipv6_raw(from.octets(), to.octets(), &payload)
        }
        _ => unreachable!("one version"),
    }
    .unwrap();
    [header.to_bytes().as_slice(), body].concat()
}

/// The option of neighbor discovery that tells a MAC address.
pub(super) fn link_option(kind: u8, link: Option<Mac>) -> Vec<u8> {
    let option = |mac: Mac| [&[kind, 1][..], &mac.0].concat();
    link.map(option).unwrap_or_default()
}

/// What a server of DHCP sends: the IP packet.
pub fn served(source: IpAddr, destination: IpAddr, ports: (u16, u16), message: &[u8]) -> Vec<u8> {
    let bare = bare(source, destination, 17, 64, 0);
    let datagram = udp_header(&bare, ports, message, &[]);
    ip_packet(source, destination, 17, 64, 0, &datagram)
}

/// A router advertisement to `to`: the IPv6 packet.
pub fn router_advertisement(from: Ipv6Addr, to: Ipv6Addr, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let message = icmp_v6(from, to, 134, 0, rest, body, body.len());
    ip_packet(from.into(), to.into(), 58, 255, 0, &message)
}

/// The answer to a neighbor solicitation: the IPv6 packet.
pub fn neighbor_advertisement(target: Ipv6Addr, to: Ipv6Addr, mac: Mac, flags: u8) -> Vec<u8> {
    let body = [&target.octets()[..], &[2, 1], &mac.0].concat();
    let message = icmp_v6(target, to, 136, 0, [flags, 0, 0, 0], &body, body.len());
    ip_packet(target.into(), to.into(), 58, 255, 0, &message)
}

/// An ICMP error about a packet, which it quotes: 576 bytes in all (RFC 1812,
/// section 4.3.2.3), or the least MTU of IPv6 (RFC 4443, section 2.4 (c)).
pub fn icmp_error(from: IpAddr, about: &Ip, kind: u8, code: u8, value: u16) -> Vec<u8> {
    let mut quote = about.encode();
    let [high, low] = value.to_be_bytes();
    let rest = [0, 0, high, low];
    match (from, about.source) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            quote.truncate(1280 - 48);
            let message = icmp_v6(from, to, kind, code, rest, &quote, quote.len());
            ip_packet(from.into(), to.into(), 58, 64, 0, &message)
        }
        _ => {
            quote.truncate(576 - 28);
            let message = Icmpv4Type::Unknown {
                type_u8: kind,
                code_u8: code,
                bytes5to8: rest,
            };
            let header = Icmpv4Header::with_checksum(message, &quote);
            let message = [header.to_bytes().as_slice(), &quote].concat();
            // Precedence of internetwork control (RFC 1812, section 4.3.2.5).
            ip_packet(from, about.source, 1, 64, 0xc0, &message)
        }
    }
}

fn ip_packet(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    hop_limit: u8,
    traffic_class: u8,
    payload: &[u8],
) -> Vec<u8> {
    let packet = bare(source, destination, protocol, hop_limit, traffic_class);
    match packet.is_v4() {
        true => packet.encode_v4(payload, &[]),
        false => packet.encode_v6(payload.to_vec()),
    }
}

/// A packet that carries nothing yet.
fn bare(source: IpAddr, destination: IpAddr, protocol: u8, hop_limit: u8, traffic_class: u8) -> Ip {
    Ip {
        source,
        destination,
        hop_limit,
        traffic_class,
        dont_fragment: false,
        fragment: None,
        id: 0,
        options: 0,
        transport: Transport::Other(protocol),
        payload: 0,
        defect: None,
    }
}
