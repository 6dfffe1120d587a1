//! ARP and neighbor discovery as one: what a station says of its MAC address, and
//! how one is asked for it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::Mac;

use super::Uplink;
use crate::packet::{Headers, protocol};
use crate::wire::arp::{self, Operation};
use crate::wire::{ethernet, ipv6, nd, put};
use crate::{Side, Sink, checksum::Sum};

/// What a station says: that it has the address `ip`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) ip: IpAddr,
    /// At this MAC address; it may be left out where it is known.
    pub(crate) mac: Option<Mac>,
    /// Said to this NVE alone, as an answer is.
    pub(crate) answer: bool,
}

impl Claim {
    pub(crate) fn of_arp(uplink: &Uplink, packet: &arp::Packet) -> Claim {
        let to_us = packet.target_mac == uplink.mac && packet.target_ip == uplink.address;
        Claim {
            ip: packet.sender_ip.into(),
            mac: Some(packet.sender_mac),
            answer: packet.operation == Operation::Reply && to_us,
        }
    }

    /// `None` if the frame is not a valid message of neighbor discovery, or does not
    /// say who has which address.
    pub(crate) fn of_nd(uplink: &Uplink, frame: &[u8]) -> Option<Claim> {
        let ip = Headers::parse(frame).ok()?.ip?;
        match nd::Message::parse(&ip, frame)? {
            nd::Message::NeighborSolicitation { link, .. } => Some(Claim {
                ip: ip.source,
                mac: Some(link?),
                answer: false,
            }),
            nd::Message::NeighborAdvertisement { target, link } => Some(Claim {
                ip: target.into(),
                mac: link,
                answer: ip.destination == uplink.address,
            }),
            nd::Message::RouterSolicitation { .. } => None,
        }
    }
}

/// Asks who has `target`: the station at `to`, or everyone. A lost request is sent
/// again when it is due, so a full queue needs no care here.
pub(super) fn ask(uplink: &Uplink, target: IpAddr, to: Option<Mac>, sink: &mut impl Sink) {
    match (uplink.address, target) {
        (IpAddr::V4(own), IpAddr::V4(target)) => {
            let mac = to.unwrap_or_default();
            send_arp(uplink, own, to.unwrap_or(Mac::BROADCAST), mac, target, sink);
        }
        (IpAddr::V6(own), IpAddr::V6(target)) => {
            let group = nd::solicited_node(target);
            let (to, destination) = match to {
                Some(mac) => (mac, target),
                None => (nd::group_mac(group), group),
            };
            let message = nd::solicitation(target, uplink.mac);
            send_nd(uplink.mac, to, own, destination, message, sink);
        }
        // A next hop is of the uplink's family.
        _ => {}
    }
}

/// Tells everyone that the uplink has its address (RFC 5227, section 3; RFC 4861,
/// section 7.2.6).
pub(super) fn announce(uplink: &Uplink, sink: &mut impl Sink) {
    match uplink.address {
        IpAddr::V4(own) => {
            send_arp(uplink, own, Mac::BROADCAST, Mac::default(), own, sink);
        }
        IpAddr::V6(own) => {
            let advertisement = nd::Advertisement {
                target: own,
                mac: uplink.mac,
                router: false,
                solicited: false,
            };
            let to = nd::group_mac(nd::ALL_NODES);
            send_nd(
                uplink.mac,
                to,
                own,
                nd::ALL_NODES,
                advertisement.emit(),
                sink,
            );
        }
    }
}

fn header(to: Mac, from: Mac, ethertype: u16) -> [u8; ethernet::HEADER] {
    let mut header = [0; ethernet::HEADER];
    put(&mut header, 0, &to.0);
    put(&mut header, 6, &from.0);
    put(&mut header, ethernet::ADDRESSES, &ethertype.to_be_bytes());
    header
}

fn send_arp(
    uplink: &Uplink,
    own: Ipv4Addr,
    to: Mac,
    target_mac: Mac,
    target_ip: Ipv4Addr,
    sink: &mut impl Sink,
) {
    let packet = arp::Packet {
        operation: Operation::Request,
        sender_mac: uplink.mac,
        sender_ip: own,
        target_mac,
        target_ip,
    };
    let header = header(to, uplink.mac, ethernet::ARP);
    let _ = sink.emit(Side::Uplink, &[&header, &packet.emit()], None);
}

/// Sends an ICMPv6 message with a zero checksum, which it completes.
fn send_nd<const N: usize>(
    from: Mac,
    to: Mac,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    mut message: [u8; N],
    sink: &mut impl Sink,
) {
    let sum = Sum::default()
        .with_pseudo_v6(source, destination, protocol::ICMPV6, N)
        .with(&message);
    put(&mut message, 2, &sum.finish().to_be_bytes());
    let mut ip = [0; ipv6::HEADER];
    put(&mut ip, 0, &[0x60]);
    put(&mut ip, 4, &(N as u16).to_be_bytes());
    put(&mut ip, 6, &[protocol::ICMPV6, nd::HOP_LIMIT]);
    put(&mut ip, 8, &source.octets());
    put(&mut ip, 24, &destination.octets());
    let header = header(to, from, ethernet::IPV6);
    let _ = sink.emit(Side::Uplink, &[&header, &ip, &message], None);
}
