//! ARP, neighbor discovery and pings of gateways.

use std::vec;

use etherparse::{Icmpv6Slice, SlicedPacket, TransportSlice};

use super::*;
use crate::packet::Ip;

fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    let mut octets = v6("ff02::1:ff00:0").octets();
    octets[13..].copy_from_slice(&[a, b, c]);
    octets.into()
}

fn solicitation(source: &str, target: &str, link: Option<Mac>) -> Vec<u8> {
    let (source, target) = (v6(source), v6(target));
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    if let Some(link) = link {
        message.extend(wire_nd::source_link(link));
    }
    icmp6(mac(1), source, solicited_node(target), &message)
}

fn advertisement(source: &str, target: &str, link: Mac) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(v6(target).octets());
    message.extend([2, 1]);
    message.extend(link.0);
    icmp6(mac(1), v6(source), ALL_NODES, &message)
}

/// The reply as an ARP packet, with its Ethernet addresses held against it.
fn arp_reply(rig: &Rig) -> Packet {
    let bytes = rig.reply.bytes();
    let packet = Packet::parse(&bytes[14..]).unwrap();
    assert_eq!(bytes[..6], packet.target_mac.0);
    assert_eq!(bytes[6..12], packet.sender_mac.0);
    assert_eq!(packet.operation, Operation::Reply);
    packet
}

/// Source MAC, source, destination, flags and target of an advertisement.
fn advertised(rig: &Rig) -> (Mac, IpAddr, IpAddr, u8, Ipv6Addr) {
    let bytes = rig.reply.bytes();
    let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else {
        panic!("{sliced:?}");
    };
    let headers = Headers::parse(bytes).unwrap();
    let ip = headers.ip.unwrap();
    assert!(icmp_is_valid(&icmp, &ip));
    assert_eq!(
        (icmp.type_u8(), icmp.code_u8(), ip.hop_limit),
        (136, 0, 255)
    );
    let body = icmp.payload();
    let target: [u8; 16] = body[..16].try_into().unwrap();
    assert_eq!(body[16..18], [2, 1]);
    assert_eq!(body[18..], headers.source.0);
    (
        headers.source,
        ip.source,
        ip.destination,
        icmp.bytes5to8()[0],
        target.into(),
    )
}

fn icmp_is_valid(icmp: &Icmpv6Slice<'_>, ip: &Ip) -> bool {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (ip.source, ip.destination) else {
        return false;
    };
    icmp.is_checksum_valid(source.octets(), destination.octets())
}

#[test]
fn arp_is_answered_for_others_and_gateways() {
    let mut rig = Rig::new();
    for (target, owner) in [(v4(2), mac(2)), (v4(254), ROUTER), (v4(99), mac(9))] {
        let request = arp(Operation::Request, (mac(1), v4(1)), target);
        assert_eq!(rig.send(&request), Ok(Answer::Reply));
        let reply = arp_reply(&rig);
        assert_eq!((reply.sender_mac, reply.sender_ip), (owner, target));
        assert_eq!((reply.target_mac, reply.target_ip), (mac(1), v4(1)));
    }
    let unknown = arp(Operation::Request, (mac(1), v4(1)), v4(3));
    assert_eq!(rig.send(&unknown), Ok(Answer::Pass));
}

#[test]
fn arp_probes_see_duplicates_and_own_addresses_do_not() {
    let mut rig = Rig::new();
    let probe = |target| arp(Operation::Request, (mac(1), Ipv4Addr::UNSPECIFIED), target);
    for (target, answer) in [
        (v4(1), Answer::Pass),
        (v4(2), Answer::Reply),
        (v4(254), Answer::Reply),
        // Of another port, but ours to take over.
        (v4(99), Answer::Pass),
    ] {
        assert_eq!(rig.send(&probe(target)), Ok(answer), "{target}");
    }
    let announcement = arp(Operation::Request, (mac(1), v4(99)), v4(99));
    assert_eq!(rig.send(&announcement), Ok(Answer::Pass));
    let reply = arp(Operation::Reply, (mac(1), v4(1)), v4(2));
    assert_eq!(rig.send(&reply), Ok(Answer::Pass));
}

#[test]
fn arp_of_foreign_senders_needs_a_port_without_security() {
    let foreign = [
        arp(Operation::Request, (mac(1), v4(2)), v4(254)),
        arp(Operation::Reply, (mac(1), v4(254)), v4(2)),
        arp(Operation::Reply, (mac(1), Ipv4Addr::UNSPECIFIED), v4(2)),
        [&[0xff; 6][..], &mac(1).0, &[8, 6], &[0; 28]].concat(),
    ];
    for frame in &foreign {
        assert_eq!(Rig::new().send(frame), Err(DropReason::Arp));
    }
    let mut rig = Rig::new().trusted();
    assert_eq!(rig.send(&foreign[0]), Ok(Answer::Reply));
    assert_eq!(arp_reply(&rig).target_ip, v4(2));
    assert_eq!(rig.send(&foreign[1]), Ok(Answer::Pass));
}

#[test]
fn solicitations_are_answered_for_others_and_gateways() {
    let mut rig = Rig::new();
    let link_local = wire_nd::link_local(ROUTER);
    for (target, owner, flags) in [
        ("2001:db8::2", mac(2), 0x60),
        ("2001:db8::fe", ROUTER, 0xe0),
        ("fe80::f816:3eff:fe00:1", ROUTER, 0xe0),
    ] {
        let frame = solicitation("2001:db8::1", target, Some(mac(1)));
        assert_eq!(rig.send(&frame), Ok(Answer::Reply), "{target}");
        let (to, from) = (v6("2001:db8::1").into(), v6(target));
        let wanted = (owner, from.into(), to, flags, from);
        assert_eq!(advertised(&rig), wanted);
        assert_eq!(rig.reply.bytes()[..6], mac(1).0);
    }
    assert_eq!(link_local, v6("fe80::f816:3eff:fe00:1"));
    let unknown = solicitation("2001:db8::1", "2001:db8::3", Some(mac(1)));
    assert_eq!(rig.send(&unknown), Ok(Answer::Pass));
}

#[test]
fn duplicate_address_detection_is_answered_as_the_owner_would() {
    let mut rig = Rig::new();
    for (target, flags) in [("2001:db8::2", 0x20), ("2001:db8::fe", 0xa0)] {
        let probe = solicitation("::", target, None);
        assert_eq!(rig.send(&probe), Ok(Answer::Reply));
        let (_, from, to, seen, owned) = advertised(&rig);
        assert_eq!(
            (from, to, seen),
            (v6(target).into(), ALL_NODES.into(), flags)
        );
        assert_eq!(owned, v6(target));
        assert_eq!(rig.reply.bytes()[..6], [0x33, 0x33, 0, 0, 0, 1]);
    }
    for own in ["2001:db8::1", "fe80::ff:fe00:1"] {
        assert_eq!(rig.send(&solicitation("::", own, None)), Ok(Answer::Pass));
    }
    let foreign = solicitation("::", "fe80::1", None);
    let refused = Err(DropReason::NeighborDiscovery);
    assert_eq!(rig.send(&foreign), refused);
    assert_eq!(rig.trusted().send(&foreign), Ok(Answer::Pass));
}

#[test]
fn advertisements_are_of_own_addresses() {
    let mut rig = Rig::new();
    let own = advertisement("2001:db8::1", "2001:db8::1", mac(1));
    assert_eq!(rig.send(&own), Ok(Answer::Pass));
    let link_local = "fe80::ff:fe00:1";
    let own = advertisement(link_local, link_local, mac(1));
    assert_eq!(rig.send(&own), Ok(Answer::Pass));
    for (source, target, link) in [
        ("2001:db8::1", "2001:db8::2", mac(1)),
        ("2001:db8::1", "2001:db8::1", mac(2)),
        (link_local, "2001:db8::fe", mac(1)),
    ] {
        let frame = advertisement(source, target, link);
        assert_eq!(rig.send(&frame), Err(DropReason::NeighborDiscovery));
        assert_eq!(Rig::new().trusted().send(&frame), Ok(Answer::Pass));
    }
}

#[test]
fn malformed_solicitations_are_dropped() {
    let good = solicitation("2001:db8::1", "2001:db8::2", Some(mac(1)));
    let edits: [(usize, u8); 5] = [
        // Hop limit, code, checksum, option's length, somebody else's MAC address.
        (21, 64),
        (55, 1),
        (56, good[56] ^ 1),
        (79, 0),
        (85, 7),
    ];
    for (at, value) in edits {
        let mut bad = good.clone();
        bad[at] = value;
        let refused = Err(DropReason::NeighborDiscovery);
        assert_eq!(Rig::new().send(&bad), refused, "byte {at}");
    }
    let probe_with_link = solicitation("::", "2001:db8::2", Some(mac(1)));
    let refused = Err(DropReason::NeighborDiscovery);
    assert_eq!(Rig::new().send(&probe_with_link), refused);
}

fn ping(six: bool, length: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let payload = vec![0xa5; length];
    let ethernet = PacketBuilder::ethernet2(mac(1).0, ROUTER.0);
    if six {
        let (from, to) = (v6("2001:db8::1"), v6("2001:db8::fe"));
        let packet = ethernet.ipv6(from.octets(), to.octets(), 3);
        let packet = packet.icmpv6_echo_request(7, 8);
        packet.write(&mut frame, &payload).unwrap();
    } else {
        let packet = ethernet.ipv4(v4(1).octets(), v4(254).octets(), 3);
        let packet = packet.icmpv4_echo_request(7, 8);
        packet.write(&mut frame, &payload).unwrap();
    }
    frame
}

/// What another library makes of the reply to [`ping`].
fn pong(six: bool, length: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let payload = vec![0xa5; length];
    let ethernet = PacketBuilder::ethernet2(ROUTER.0, mac(1).0);
    if six {
        let (from, to) = (v6("2001:db8::fe"), v6("2001:db8::1"));
        let packet = ethernet.ipv6(from.octets(), to.octets(), 64);
        let packet = packet.icmpv6_echo_reply(7, 8);
        packet.write(&mut frame, &payload).unwrap();
    } else {
        let packet = ethernet.ipv4(v4(254).octets(), v4(1).octets(), 64);
        let packet = packet.icmpv4_echo_reply(7, 8);
        packet.write(&mut frame, &payload).unwrap();
    }
    frame
}

#[test]
fn pings_of_gateways_are_turned_in_place() {
    for six in [false, true] {
        for length in [0, 1, 56, 1400, 8000] {
            let mut frame = ping(six, length);
            let headers = Headers::parse(&frame).unwrap();
            assert_eq!(echo::turn(&mut frame, &headers), Ok(()));
            assert!(frame == pong(six, length), "{length} bytes, IPv6 {six}");
        }
    }
}

#[test]
fn what_is_no_whole_request_is_not_turned() {
    for (six, edits) in [
        (
            false,
            &[
                (20, 0x20),
                (34, 0),
                (35, 1),
                (14, 0x46),
                (0, 0xff),
                (26, 224),
            ][..],
        ),
        (true, &[(54, 129), (55, 1), (22, 0xff), (0, 0x33)][..]),
    ] {
        for (at, value) in edits {
            let mut frame = ping(six, 60);
            frame[*at] = *value;
            let headers = Headers::parse(&frame).unwrap();
            let before = frame.clone();
            let result = echo::turn(&mut frame, &headers);
            assert_eq!(result, Err(DropReason::Gateway), "byte {at}");
            assert_eq!(frame, before);
        }
    }
}
