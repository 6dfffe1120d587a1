//! Routed packets: where they go, what is changed in them, what is refused.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::PacketBuilder;
use nve_datapath::*;
use nve_protocol::*;

use crate::rig::*;

pub const GREEN: u32 = 5003;
pub const ROUTER: RouterId = RouterId([9; 16]);

pub fn gateway_mac(network: u8) -> Mac {
    Mac([0x02, 0xff, 0, 0, 0, network])
}

pub fn at(network: u8, last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, network, last).into()
}

fn gateway(vni_id: u32, network: u8) -> Record {
    Record::Gateway(Gateway {
        vni: vni(vni_id),
        ip: at(network, 254),
        prefix: Prefix::around(at(network, 0), 24).unwrap(),
        mac: gateway_mac(network),
        router: ROUTER,
    })
}

fn neighbor_at(vni_id: u32, network: u8, last: u8) -> Record {
    Record::Neighbor(Neighbor {
        vni: vni(vni_id),
        ip: at(network, last),
        mac: mac(last),
    })
}

fn mtu(vni_id: u32, mtu: u16) -> Record {
    Record::Network(Network {
        vni: vni(vni_id),
        mtu,
    })
}

/// Red is 10.0.0.0/24; green, 10.0.3.0/24, has VAP 301 (.21) here and .22 behind
/// PEER; a router joins them and has 10.9.0.0/16 by way of green's .22.
pub fn rig() -> Rig {
    let mut rig = Rig::new();
    add_router(&mut rig);
    rig
}

/// What [`rig`] has beside [`Rig::new`].
pub fn add_router(rig: &mut Rig) {
    rig.put(&[
        gateway(RED, 0),
        gateway(GREEN, 3),
        vap(301, GREEN, 21),
        fdb(GREEN, 22, PEER),
        neighbor_at(GREEN, 3, 21),
        neighbor_at(GREEN, 3, 22),
        mtu(RED, 1450),
        mtu(GREEN, 1450),
        Record::Route(Route {
            router: ROUTER,
            destination: "10.9.0.0/16".parse().unwrap(),
            next_hop: at(3, 22),
        }),
    ]);
}

/// From red's .1 to the router, untagged.
pub fn packet(destination: IpAddr, ttl: u8, payload: usize) -> Vec<u8> {
    between(mac(1), gateway_mac(0), destination, ttl, payload)
}

fn between(from: Mac, to: Mac, destination: IpAddr, ttl: u8, payload: usize) -> Vec<u8> {
    let IpAddr::V4(destination) = destination else {
        panic!("IPv4 here")
    };
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(from.0, to.0)
        .ipv4([10, 0, 0, 1], destination.octets(), ttl)
        .udp(4000, 5000)
        .write(&mut bytes, &vec![0x5a; payload])
        .unwrap();
    bytes
}

/// Both the first packet of a flow and the next one, which must fare alike.
fn twice(rig: &mut Rig, frame: &[u8]) -> Outcome {
    let first = rig.trunk(frame);
    let second = rig.trunk(frame);
    assert_eq!(first.verdict, second.verdict);
    assert_eq!(first.sent, second.sent);
    first
}

#[test]
fn between_subnets_on_one_nve() {
    let outcome = twice(&mut rig(), &with_tag(&packet(at(3, 21), 64, 100), 101));
    let want = between(gateway_mac(3), mac(21), at(3, 21), 63, 100);
    assert_eq!(outcome.sent.len(), 1);
    assert_eq!(outcome.sent[0].side, Side::Trunk);
    assert_eq!(outcome.sent[0].bytes, with_tag(&want, 301));
}

#[test]
fn between_subnets_across_nves_in_the_receivers_network() {
    let outcome = twice(&mut rig(), &with_tag(&packet(at(3, 22), 64, 100), 101));
    let want = between(gateway_mac(3), mac(22), at(3, 22), 63, 100);
    assert_eq!(detunnel(&outcome.sent[0]), (PEER.into(), GREEN, want));
}

#[test]
fn by_an_extra_route() {
    let there = Ipv4Addr::new(10, 9, 1, 2).into();
    let outcome = twice(&mut rig(), &with_tag(&packet(there, 64, 100), 101));
    let want = between(gateway_mac(3), mac(22), there, 63, 100);
    assert_eq!(detunnel(&outcome.sent[0]), (PEER.into(), GREEN, want));
}

#[test]
fn what_a_router_refuses() {
    let mut rig = rig();
    let refused = [
        (
            packet(at(3, 21), 1, 10),
            DropReason::HopLimit,
            Some((11, 0)),
        ),
        (
            packet(at(3, 77), 64, 10),
            DropReason::NoNeighbor,
            Some((3, 1)),
        ),
        (packet(at(77, 1), 64, 10), DropReason::NoRoute, Some((3, 0))),
        (
            packet([127, 0, 0, 1].into(), 64, 10),
            DropReason::Martian,
            None,
        ),
        (
            packet([224, 0, 0, 9].into(), 64, 10),
            DropReason::Martian,
            None,
        ),
        (
            packet([169, 254, 1, 1].into(), 64, 10),
            DropReason::Martian,
            None,
        ),
        (
            packet(at(3, 254), 64, 10),
            DropReason::Gateway,
            Some((3, 3)),
        ),
        // Of the protocols with ports, routers speak neither SCTP nor DCCP.
        (
            of_protocol(132, &packet(at(3, 254), 64, 10)),
            DropReason::Gateway,
            Some((3, 2)),
        ),
        (
            of_protocol(33, &packet(at(3, 254), 64, 10)),
            DropReason::Gateway,
            Some((3, 2)),
        ),
    ];
    for (frame, reason, error) in refused {
        let outcome = rig.trunk(&with_tag(&frame, 101));
        assert_eq!(outcome.verdict, Verdict::Drop(reason));
        assert_eq!(outcome.sent.first().map(icmp_error), error);
    }
}

/// The packet with another protocol number.
fn of_protocol(number: u8, frame: &[u8]) -> Vec<u8> {
    let (mut header, payload) = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap();
    header.protocol = etherparse::IpNumber(number);
    header.header_checksum = header.calc_header_checksum();
    [&frame[..14], &header.to_bytes(), payload].concat()
}

#[test]
fn a_damaged_header_is_not_routed() {
    let mut rig = rig();
    let damaged = |to: Mac, destination| {
        let mut frame = with_tag(&between(mac(1), to, destination, 64, 1400), 101);
        frame[29] ^= 1;
        frame
    };
    let routed = damaged(gateway_mac(0), at(3, 21));
    let dropped = Verdict::Drop(DropReason::MalformedIp);
    assert_eq!(twice(&mut rig, &routed).verdict, dropped);
    let good = with_tag(&packet(at(3, 21), 64, 1400), 101);
    assert_eq!(twice(&mut rig, &good).verdict, Verdict::Send(Side::Trunk));
    assert_eq!(twice(&mut rig, &routed).verdict, dropped);
    let to_gateway = damaged(gateway_mac(0), at(0, 254));
    rig.assert_dropped(Side::Trunk, &to_gateway, DropReason::MalformedIp);
    // What is only switched is its receiver's to judge.
    let switched = damaged(mac(2), ip(2).into());
    let outcome = twice(&mut rig, &switched);
    assert_eq!(outcome.sent[0].bytes[16..], switched[16..]);
}

#[test]
fn what_is_too_large_is_told_wherever_its_station_is() {
    let mut rig = rig();
    rig.put(&[
        mtu(GREEN, 600),
        neighbor_at(GREEN, 3, 99),
        flood(GREEN, PEER),
    ]);
    let outcome = rig.trunk(&with_tag(&packet(at(3, 99), 64, 1400), 101));
    assert_eq!(outcome.verdict, Verdict::Drop(DropReason::TooBig));
    assert_eq!(icmp_error(&outcome.sent[0]), (3, 4));
}

/// Type and code of an ICMP error from red's gateway to .1.
fn icmp_error(sent: &Sent) -> (u8, u8) {
    assert_eq!(sent.side, Side::Trunk);
    assert_eq!(sent.bytes[..6], mac(1).0);
    assert_eq!(sent.bytes[6..12], gateway_mac(0).0);
    assert_eq!(sent.bytes[30..38], [10, 0, 0, 254, 10, 0, 0, 1]);
    (sent.bytes[38], sent.bytes[39])
}

#[test]
fn gateways_answer_pings_of_every_interface() {
    for network in [0, 3] {
        let mut ping = Vec::new();
        PacketBuilder::ethernet2(mac(1).0, gateway_mac(0).0)
            .ipv4([10, 0, 0, 1], [10, 0, network, 254], 64)
            .icmpv4_echo_request(7, 1)
            .write(&mut ping, &[1; 20])
            .unwrap();
        let mut pong = Vec::new();
        PacketBuilder::ethernet2(gateway_mac(0).0, mac(1).0)
            .ipv4([10, 0, network, 254], [10, 0, 0, 1], 64)
            .icmpv4_echo_reply(7, 1)
            .write(&mut pong, &[1; 20])
            .unwrap();
        let outcome = rig().trunk(&with_tag(&ping, 101));
        assert_eq!(outcome.verdict, Verdict::Send(Side::Trunk));
        assert_eq!(outcome.sent[0].bytes, with_tag(&pong, 101));
    }
}

#[test]
fn a_ping_that_the_trunk_cannot_carry_back_is_dropped() {
    let mut ping = Vec::new();
    PacketBuilder::ethernet2(mac(1).0, gateway_mac(0).0)
        .ipv4([10, 0, 0, 1], [10, 0, 0, 254], 64)
        .icmpv4_echo_request(7, 1)
        .write(&mut ping, &[1; 1473])
        .unwrap();
    let mut rig = rig();
    rig.assert_dropped(Side::Trunk, &with_tag(&ping, 101), DropReason::TooBig);
    assert_eq!(rig.datapath.counters().answers, 0);
}

#[test]
fn a_change_of_the_tables_reaches_flows_that_are_known() {
    let mut rig = rig();
    let frame = with_tag(&packet(at(3, 21), 64, 100), 101);
    assert_eq!(twice(&mut rig, &frame).verdict, Verdict::Send(Side::Trunk));
    rig.datapath.update(Nanos(1), |tables| {
        tables.delete(&vap(301, GREEN, 21).key());
        tables.put(&fdb(GREEN, 21, OTHER)).unwrap();
    });
    assert_eq!(detunnel(&twice(&mut rig, &frame).sent[0]).0, OTHER);
    rig.datapath.update(Nanos(1), |tables| {
        tables.delete(&gateway(GREEN, 3).key());
    });
    let outcome = rig.trunk(&frame);
    assert_eq!(outcome.verdict, Verdict::Drop(DropReason::NoRoute));
}

#[test]
fn a_used_up_hop_limit_ends_a_packet_of_a_known_flow() {
    let mut rig = rig();
    let frame = |ttl| with_tag(&packet(at(3, 21), ttl, 100), 101);
    assert_eq!(
        twice(&mut rig, &frame(64)).verdict,
        Verdict::Send(Side::Trunk)
    );
    for ttl in [1, 0] {
        let outcome = rig.trunk(&frame(ttl));
        assert_eq!(outcome.verdict, Verdict::Drop(DropReason::HopLimit));
    }
}

#[test]
fn arp_for_the_gateway_is_answered_with_its_own_address() {
    let mut rig = rig();
    let IpAddr::V4(target) = at(0, 254) else {
        panic!("IPv4 here")
    };
    let outcome = rig.trunk(&arp_request(101, mac(1), ip(1), target));
    assert_eq!(outcome.verdict, Verdict::Done);
    assert_eq!(outcome.sent[0].bytes[6..12], gateway_mac(0).0);
}

#[test]
fn large_packets_are_fragmented_for_a_network_of_smaller_mtu() {
    for (destination, tunnelled) in [(at(3, 21), false), (at(3, 22), true)] {
        let mut rig = rig();
        rig.put(&[mtu(GREEN, 600)]);
        let mut frame = with_tag(&packet(destination, 64, 1400), 101);
        let outcome = rig.trunk(&frame);
        assert_eq!(outcome.verdict, Verdict::Drop(DropReason::TooBig));
        assert_eq!(icmp_error(&outcome.sent[0]), (3, 4));
        assert_eq!(outcome.sent[0].bytes[44..46], 600u16.to_be_bytes());
        // Clear "don't fragment", and mend the checksum (RFC 1624).
        frame[24] &= !0x40;
        let sum = u32::from(u16::from_be_bytes([frame[28], frame[29]])) + 0x4000;
        let sum = (sum & 0xffff) + (sum >> 16);
        frame[28..30].copy_from_slice(&(sum as u16).to_be_bytes());
        let outcome = twice(&mut rig, &frame);
        assert_eq!(outcome.verdict, Verdict::Done);
        let pieces = outcome.sent.iter().map(|sent| match tunnelled {
            true => detunnel(sent).2,
            false => [&sent.bytes[..12], &sent.bytes[16..]].concat(),
        });
        let mut payload = Vec::new();
        for piece in pieces {
            let packet = etherparse::PacketHeaders::from_ethernet_slice(&piece).unwrap();
            let Some(etherparse::NetHeaders::Ipv4(header, _)) = packet.net else {
                panic!("no IPv4")
            };
            assert!(header.total_len <= 600);
            assert_eq!(header.time_to_live, 63);
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            payload.extend_from_slice(&piece[34..]);
        }
        assert_eq!(payload.len(), 1408);
    }
}

#[test]
fn routing_peers_are_heard_and_get_no_copies() {
    let mut rig = Rig::new();
    let stranger = Ipv4Addr::new(192, 0, 2, 77);
    let frame = untagged(gateway_mac(0), mac(1), 30);
    rig.assert_dropped(
        Side::Uplink,
        &tunnelled(stranger, RED, &frame),
        DropReason::UnknownVtep,
    );
    let peer = Record::Peer(Peer {
        vni: vni(RED),
        vtep: stranger.into(),
    });
    rig.put(&[peer]);
    let outcome = rig.uplink(&tunnelled(stranger, RED, &frame));
    assert_eq!(outcome.sent[0].bytes, with_tag(&frame, 101));
    let broadcast = untagged(mac(1), Mac::BROADCAST, 30);
    let outcome = rig.trunk(&with_tag(&broadcast, 101));
    let tunnels = outcome.sent.iter().filter(|sent| sent.side == Side::Uplink);
    assert!(tunnels.map(detunnel).all(|(vtep, ..)| vtep != stranger));
}
