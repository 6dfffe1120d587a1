//! An underlay of IPv6: neighbor discovery, outer headers, checksums.

use std::net::{IpAddr, Ipv6Addr};

use crate::rig::*;
use etherparse::{Icmpv6Type, NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
use nve_datapath::*;
use nve_protocol::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const HERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, 0x11);
const THERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 2, 0x3456);
const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1);
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Red: VAP 101 (.1) here, .3 behind THERE, .4 behind FAR. Nothing is resolved.
fn unresolved() -> Rig {
    let uplink = Uplink {
        mac: UPLINK_MAC,
        address: HERE.into(),
        prefix: 64,
        gateway: Some(GATEWAY.into()),
        mtu: 1600,
    };
    let config = Config {
        uplink,
        trunk_mtu: 1500,
        trunk_checksum: false,
        flows: 1024,
        seed: 7,
        connections: connections(),
    };
    let mut rig = Rig::new();
    let tables = Tables::new(rig.datapath.tables().capacity());
    rig.datapath = Datapath::new(config, tables);
    let remote = |last: u8, vtep: Ipv6Addr| {
        let vtep = vtep.into();
        let vni = vni(RED);
        [
            Record::Fdb(Fdb {
                vni,
                mac: mac(last),
                vtep,
            }),
            Record::Flood(Flood { vni, vtep }),
        ]
    };
    rig.put(&[&[vap(101, RED, 1)][..], &remote(3, THERE), &remote(4, FAR)].concat());
    rig
}

fn rig() -> Rig {
    let mut rig = unresolved();
    probes(&mut rig, 0);
    for (ip, mac) in [(THERE, PEER_MAC), (GATEWAY, OTHER_MAC)] {
        let outcome = rig.uplink(&advertisement(ip, mac, HERE, UPLINK_MAC));
        assert_eq!(outcome.verdict, Verdict::Host);
    }
    rig
}

fn advertisement(target: Ipv6Addr, mac: Mac, to: Ipv6Addr, to_mac: Mac) -> Vec<u8> {
    let header = etherparse::icmpv6::NeighborAdvertisementHeader {
        router: false,
        solicited: to == HERE,
        r#override: true,
    };
    let option = [&target.octets()[..], &[2, 1], &mac.0].concat();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac.0, to_mac.0)
        .ipv6(target.octets(), to.octets(), 255)
        .icmpv6(Icmpv6Type::NeighborAdvertisement(header))
        .write(&mut frame, &option)
        .unwrap();
    frame
}

/// Receiver and target of each solicitation that is sent at `now`, verified with
/// the other library.
fn probes(rig: &mut Rig, now: u64) -> Vec<(Mac, Ipv6Addr)> {
    rig.datapath.tick(Nanos(now), &mut rig.sink);
    let mut probes = Vec::new();
    for sent in std::mem::take(&mut rig.sink.sent) {
        assert_eq!(
            (sent.side, &sent.bytes[6..12]),
            (Side::Uplink, &UPLINK_MAC.0[..])
        );
        let packet = PacketHeaders::from_ethernet_slice(&sent.bytes).unwrap();
        let Some(NetHeaders::Ipv6(ip, _)) = packet.net else {
            panic!("no IPv6")
        };
        let Some(TransportHeader::Icmpv6(icmp)) = packet.transport else {
            panic!("no ICMPv6")
        };
        let payload = packet.payload.slice();
        let sum = icmp
            .icmp_type
            .calc_checksum(ip.source, ip.destination, payload);
        assert_eq!(icmp.checksum, sum.unwrap());
        assert_eq!((ip.hop_limit, ip.source), (255, HERE.octets()));
        let target = Ipv6Addr::from(*payload.first_chunk::<16>().unwrap());
        match icmp.icmp_type {
            Icmpv6Type::NeighborSolicitation => {
                assert_eq!(payload[16..], [&[1, 1], &UPLINK_MAC.0[..]].concat());
                probes.push((Mac(*sent.bytes.first_chunk().unwrap()), target));
            }
            Icmpv6Type::NeighborAdvertisement(_) => {
                assert_eq!(target, HERE, "announces itself");
                assert_eq!(sent.bytes[..6], [0x33, 0x33, 0, 0, 0, 1]);
            }
            other => panic!("{other:?}"),
        }
    }
    probes.sort();
    probes
}

fn frame(last: u8, payload: usize) -> Vec<u8> {
    with_tag(&untagged(mac(1), mac(last), payload), 101)
}

/// A VXLAN packet from `source`, with a valid UDP checksum.
fn tunnelled6(source: Ipv6Addr, inner: &[u8]) -> Vec<u8> {
    let vxlan = [&[8, 0, 0, 0], &(RED << 8).to_be_bytes()[..], inner].concat();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(PEER_MAC.0, UPLINK_MAC.0)
        .ipv6(source.octets(), HERE.octets(), 64)
        .udp(50_000, 4789)
        .write(&mut frame, &vxlan)
        .unwrap();
    frame
}

/// Destination and inner frame of a VXLAN packet, whose checksum is verified with
/// the other library.
fn detunnel6(sent: &Sent) -> (IpAddr, Vec<u8>) {
    assert_eq!(sent.side, Side::Uplink);
    let packet = PacketHeaders::from_ethernet_slice(&sent.bytes).unwrap();
    let Some(NetHeaders::Ipv6(ip, _)) = packet.net else {
        panic!("no IPv6")
    };
    let Some(TransportHeader::Udp(udp)) = packet.transport else {
        panic!("no UDP")
    };
    let payload = packet.payload.slice();
    assert_eq!(udp.checksum, udp.calc_checksum_ipv6(&ip, payload).unwrap());
    assert_eq!((ip.source, udp.destination_port), (HERE.octets(), 4789));
    assert_eq!(
        payload[..8],
        [&[8, 0, 0, 0], &(RED << 8).to_be_bytes()[..]].concat()
    );
    (Ipv6Addr::from(ip.destination).into(), payload[8..].to_vec())
}

#[test]
fn next_hops_are_solicited_and_tunnels_come_up_with_their_answers() {
    let mut rig = unresolved();
    let groups = [
        (Mac([0x33, 0x33, 0xff, 0, 0, 1]), GATEWAY),
        (Mac([0x33, 0x33, 0xff, 2, 0x34, 0x56]), THERE),
    ];
    assert_eq!(probes(&mut rig, 0), groups);
    rig.assert_dropped(Side::Trunk, &frame(3, 60), DropReason::UnderlayUnresolved);
    rig.uplink(&advertisement(THERE, PEER_MAC, HERE, UPLINK_MAC));
    rig.uplink(&advertisement(GATEWAY, OTHER_MAC, HERE, UPLINK_MAC));
    for (last, vtep, hop) in [(3, THERE, PEER_MAC), (4, FAR, OTHER_MAC)] {
        let sent = rig.trunk(&frame(last, 61)).sent.remove(0);
        assert_eq!(sent.bytes[..6], hop.0);
        let inner = untagged(mac(1), mac(last), 61);
        assert_eq!(detunnel6(&sent), (vtep.into(), inner));
    }
    // Later only the known stations are asked, and then everyone.
    let known = [(PEER_MAC, THERE), (OTHER_MAC, GATEWAY)];
    assert_eq!(probes(&mut rig, 40 * SECOND), known);
    assert_eq!(probes(&mut rig, 41 * SECOND), groups);
}

#[test]
fn unsolicited_advertisements_teach_nothing() {
    let mut rig = rig();
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let group = Mac([0x33, 0x33, 0, 0, 0, 1]);
    rig.uplink(&advertisement(THERE, OTHER_MAC, all, group));
    assert_eq!(rig.trunk(&frame(3, 60)).sent[0].bytes[..6], PEER_MAC.0);
    assert_eq!(
        probes(&mut rig, SECOND),
        [(PEER_MAC, THERE)],
        "but are verified"
    );
    rig.uplink(&advertisement(THERE, OTHER_MAC, HERE, UPLINK_MAC));
    assert_eq!(rig.trunk(&frame(3, 60)).sent[0].bytes[..6], PEER_MAC.0);
    assert_eq!(probes(&mut rig, 2 * SECOND).len(), 1);
    rig.uplink(&advertisement(THERE, OTHER_MAC, HERE, UPLINK_MAC));
    assert_eq!(rig.trunk(&frame(3, 60)).sent[0].bytes[..6], OTHER_MAC.0);
    let mut damaged = advertisement(THERE, PEER_MAC, HERE, UPLINK_MAC);
    damaged[14 + 7] = 254;
    probes(&mut rig, 60 * SECOND);
    probes(&mut rig, 61 * SECOND);
    rig.uplink(&damaged);
    assert_eq!(rig.trunk(&frame(3, 60)).sent[0].bytes[..6], OTHER_MAC.0);
}

#[test]
fn tunnelled_frames_are_verified_and_delivered() {
    let mut rig = rig();
    let inner = untagged(mac(3), mac(1), 77);
    let good = tunnelled6(THERE, &inner);
    let delivered = with_tag(&inner, 101);
    assert_eq!(rig.uplink(&good).sent[0].bytes, delivered);
    let edited = |at: usize, value: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + value.len()].copy_from_slice(value);
        frame
    };
    let zero = edited(60, &[0, 0]);
    assert_eq!(rig.uplink(&zero).sent[0].bytes, delivered, "no checksum");
    for (frame, reason) in [
        (edited(61, &[good[61] ^ 1]), DropReason::OuterUdp),
        (edited(90, &[good[90] ^ 1]), DropReason::OuterUdp),
        (edited(58, &[0, 7]), DropReason::OuterUdp),
        (edited(14, &[0x40]), DropReason::OuterIp),
        (edited(18, &[0x7f]), DropReason::Truncated),
        (edited(20, &[44]), DropReason::OuterFragment),
        (edited(53, &[0x12]), DropReason::NotForUs),
        (tunnelled6(FAR, &inner), DropReason::UnknownVtep),
    ] {
        if reason == DropReason::UnknownVtep {
            rig.datapath.update(Nanos(0), |tables| {
                let (vni, vtep) = (vni(RED), FAR.into());
                tables.delete(&Key::Flood { vni, vtep });
            });
        }
        rig.assert_dropped(Side::Uplink, &frame, reason);
    }
    rig.assert_dropped(
        Side::Uplink,
        &tunnelled(PEER, RED, &inner),
        DropReason::NotForUs,
    );
}

#[test]
fn what_comes_for_a_vm_that_has_gone_is_sent_on() {
    let mut rig = rig();
    let Record::Vap(vap) = vap(101, RED, 1) else {
        panic!("a VAP")
    };
    rig.put(&[
        Record::Vap(Vap {
            presence: Presence::Departed,
            ..vap
        }),
        Record::Fdb(Fdb {
            vni: vap.vni,
            mac: vap.mac,
            vtep: FAR.into(),
        }),
    ]);
    let inner = untagged(mac(3), mac(1), 61);
    let mut sent = rig.uplink(&tunnelled6(THERE, &inner)).sent;
    assert_eq!(sent.len(), 1);
    let sent = sent.remove(0);
    assert_eq!(detunnel6(&sent), (FAR.into(), inner.clone()));
    assert_eq!((&sent.bytes[..6], sent.bytes[21]), (&OTHER_MAC.0[..], 63));
    let back = tunnelled6(FAR, &inner);
    rig.assert_dropped(Side::Uplink, &back, DropReason::SplitHorizon);
    let mut tired = tunnelled6(THERE, &inner);
    tired[21] = 1;
    rig.assert_dropped(Side::Uplink, &tired, DropReason::HopLimit);
}

#[test]
fn the_host_gets_what_is_for_its_addresses() {
    let mut rig = rig();
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe00, 1);
    let node = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff01, 0x11);
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let to = |destination: Ipv6Addr| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(PEER_MAC.0, UPLINK_MAC.0)
            .ipv6(THERE.octets(), destination.octets(), 64)
            .tcp(6653, 50_000, 1, 1000)
            .write(&mut frame, &[])
            .unwrap();
        frame
    };
    for destination in [HERE, link_local, node, all] {
        assert_eq!(rig.uplink(&to(destination)).verdict, Verdict::Host);
    }
    rig.assert_dropped(Side::Uplink, &to(THERE), DropReason::NotForUs);
}

#[test]
fn the_larger_headers_count_against_the_mtu() {
    let mut rig = rig();
    let room = 1600 - 56 - 14 - 28;
    let outcome = rig.trunk(&frame(3, room));
    assert_eq!(outcome.sent[0].bytes.len(), 14 + 1600);
    rig.assert_dropped(Side::Trunk, &frame(3, room + 1), DropReason::TooBig);
}

fn mutated(frame: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((0..frame.len(), any::<u8>()), 0..6);
    (edits, 0..=frame.len()).prop_map(move |(edits, cut)| {
        let mut frame = frame.clone();
        for (at, value) in edits {
            frame[at] = value;
        }
        if cut % 3 == 0 {
            frame.truncate(cut);
        }
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_break_it(
        bytes in prop_oneof![
            mutated(tunnelled6(THERE, &untagged(mac(3), mac(1), 30))),
            mutated(advertisement(THERE, OTHER_MAC, HERE, UPLINK_MAC)),
        ],
    ) {
        let mut rig = rig();
        let outcome = rig.uplink(&bytes);
        prop_assert!(outcome.sent.iter().all(|sent| sent.side == Side::Trunk));
        let sent = rig.trunk(&frame(3, 60)).sent.remove(0);
        prop_assert_eq!(&sent.bytes[..6], PEER_MAC.0);
    }
}
