//! What becomes of each kind of frame: the verdict, every byte that is sent and
//! every counter.

use std::net::Ipv4Addr;

use crate::rig::*;
use nve_datapath::*;
use nve_protocol::*;

fn trunk(bytes: Vec<u8>) -> Sent {
    Sent {
        side: Side::Trunk,
        bytes,
    }
}

#[test]
fn same_nve_is_switched_by_changing_the_tag_only() {
    let mut rig = Rig::new();
    let frame = untagged(mac(1), mac(2), 100);
    let outcome = rig.trunk(&with_tag(&frame, 101));
    assert_eq!(outcome.sent, [trunk(with_tag(&frame, 102))]);
}

#[test]
fn a_remote_station_is_reached_through_its_vtep() {
    let mut rig = Rig::new();
    let frame = untagged(mac(1), mac(3), 100);
    let outcome = rig.trunk(&with_tag(&frame, 101));
    assert_eq!(outcome.sent.len(), 1);
    assert_eq!(outcome.sent[0].bytes[..6], PEER_MAC.0);
    assert_eq!(outcome.sent[0].bytes[6..12], UPLINK_MAC.0);
    assert_eq!(detunnel(&outcome.sent[0]), (PEER.into(), RED, frame));
}

#[test]
fn out_of_the_tunnel_to_the_vap() {
    let mut rig = Rig::new();
    let frame = untagged(mac(3), mac(1), 100);
    let outcome = rig.uplink(&tunnelled(PEER, RED, &frame));
    assert_eq!(outcome.sent, [trunk(with_tag(&frame, 101))]);
}

#[test]
fn the_underlay_udp_checksum_is_optional_but_verified() {
    let mut rig = Rig::new();
    let frame = untagged(mac(3), mac(1), 100);
    let mut packet = tunnelled(PEER, RED, &frame);
    packet[41] ^= 1;
    rig.assert_dropped(Side::Uplink, &packet, DropReason::OuterUdp);
    packet[40..42].fill(0);
    assert_eq!(rig.uplink(&packet).sent, [trunk(with_tag(&frame, 101))]);
}

#[test]
fn ethernet_padding_is_cut_before_decapsulation() {
    let mut rig = Rig::new();
    let frame = untagged(mac(3), mac(1), 4);
    let mut packet = tunnelled(PEER, RED, &frame);
    packet.extend([0; 7]);
    assert_eq!(rig.uplink(&packet).sent, [trunk(with_tag(&frame, 101))]);
}

#[test]
fn broadcast_goes_once_to_each_member_of_its_network() {
    let mut rig = Rig::new();
    let frame = untagged(mac(1), Mac::BROADCAST, 60);
    let outcome = rig.trunk(&with_tag(&frame, 101));
    assert_eq!(outcome.sent[0], trunk(with_tag(&frame, 102)));
    let mut remote: Vec<_> = outcome.sent[1..].iter().map(detunnel).collect();
    remote.sort();
    assert_eq!(
        remote,
        [
            (PEER.into(), RED, frame.clone()),
            (OTHER.into(), RED, frame)
        ]
    );
}

#[test]
fn broadcast_out_of_a_tunnel_never_goes_back_into_one() {
    let mut rig = Rig::new();
    let frame = untagged(mac(3), Mac::BROADCAST, 60);
    let outcome = rig.uplink(&tunnelled(PEER, RED, &frame));
    assert_eq!(
        outcome.sent,
        [trunk(with_tag(&frame, 101)), trunk(with_tag(&frame, 102))]
    );
}

#[test]
fn unknown_unicast_goes_to_the_vteps_and_not_out_of_a_tunnel() {
    let mut rig = Rig::new();
    let frame = untagged(mac(1), mac(99), 60);
    let outcome = rig.trunk(&with_tag(&frame, 101));
    assert_eq!(outcome.sent.len(), 2);
    assert!(outcome.sent.iter().all(|sent| detunnel(sent).2 == frame));
    let back = tunnelled(PEER, RED, &untagged(mac(3), mac(99), 60));
    rig.assert_dropped(Side::Uplink, &back, DropReason::SplitHorizon);
    let alone = with_tag(&untagged(mac(1), mac(99), 60), 201);
    rig.assert_dropped(Side::Trunk, &alone, DropReason::NoReceiver);
}

#[test]
fn networks_with_the_same_addresses_stay_apart() {
    let mut rig = Rig::new();
    for destination in [mac(2), mac(3), Mac::BROADCAST] {
        let frame = with_tag(&untagged(mac(1), destination, 60), 201);
        rig.assert_dropped(Side::Trunk, &frame, DropReason::NoReceiver);
    }
    let frame = tunnelled(PEER, BLUE, &untagged(mac(3), mac(1), 60));
    rig.assert_dropped(Side::Uplink, &frame, DropReason::UnknownVtep);
}

#[test]
fn frames_that_a_vm_may_not_send() {
    let mut rig = Rig::new();
    let frame = untagged(mac(1), mac(2), 60);
    rig.assert_dropped(Side::Trunk, &frame, DropReason::Untagged);
    rig.assert_dropped(Side::Trunk, &with_tag(&frame, 999), DropReason::UnknownVlan);
    rig.assert_dropped(Side::Trunk, &with_tag(&frame, 102), DropReason::SourceMac);
    let spoofed = with_tag(&untagged(mac(9), mac(2), 60), 101);
    rig.assert_dropped(Side::Trunk, &spoofed, DropReason::SourceMac);
    let own = with_tag(&untagged(mac(1), mac(1), 60), 101);
    rig.assert_dropped(Side::Trunk, &own, DropReason::Hairpin);
    let bpdu = with_tag(&untagged(mac(1), Mac([1, 0x80, 0xc2, 0, 0, 0]), 60), 101);
    rig.assert_dropped(Side::Trunk, &bpdu, DropReason::LinkLocalGroup);
    let stacked = with_tag(&with_tag(&frame, 7), 101);
    rig.assert_dropped(Side::Trunk, &stacked, DropReason::InnerVlan);
}

#[test]
fn tunnels_that_are_not_ours() {
    let mut rig = Rig::new();
    let inner = untagged(mac(3), mac(1), 60);
    let stranger = Ipv4Addr::new(192, 0, 2, 99);
    rig.assert_dropped(
        Side::Uplink,
        &tunnelled(stranger, RED, &inner),
        DropReason::UnknownVtep,
    );
    rig.assert_dropped(
        Side::Uplink,
        &tunnelled(PEER, 7, &inner),
        DropReason::UnknownVni,
    );
    let good = tunnelled(PEER, RED, &inner);
    let change = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet[40..42].fill(0);
        packet
    };
    rig.assert_dropped(Side::Uplink, &change(42, 0), DropReason::VxlanFlags);
    rig.assert_dropped(Side::Uplink, &change(5, 0x77), DropReason::NotForUs);
    rig.assert_dropped(Side::Uplink, &change(14, 0x65), DropReason::OuterIp);
    rig.assert_dropped(Side::Uplink, &change(24, 0), DropReason::OuterIp);
    rig.assert_dropped(Side::Uplink, &good[..60], DropReason::Truncated);
    let tagged = tunnelled(PEER, RED, &with_tag(&inner, 5));
    rig.assert_dropped(Side::Uplink, &tagged, DropReason::InnerVlan);
}

#[test]
fn arp_is_answered_from_the_table() {
    let mut rig = Rig::new();
    let outcome = rig.trunk(&arp_request(101, mac(1), ip(1), ip(3)));
    let body: [&[u8]; 4] = [&mac(3).0, &ip(3).octets(), &mac(1).0, &ip(1).octets()];
    assert_eq!(outcome.sent, [trunk(arp(101, mac(3), mac(1), 2, body))]);
    assert_eq!(rig.datapath.counters().answers, 1);
    let unknown = rig.trunk(&arp_request(101, mac(1), ip(1), ip(50)));
    assert_eq!(
        unknown.sent.len(),
        3,
        "an unknown target is asked for everywhere"
    );
}

#[test]
fn duplicate_address_detection_hears_the_other_owner_only() {
    let mut rig = Rig::new();
    let own = rig.trunk(&arp_request(101, mac(1), Ipv4Addr::UNSPECIFIED, ip(1)));
    assert_eq!(rig.datapath.counters().answers, 0);
    assert_eq!(own.sent.len(), 3);
    let taken = rig.trunk(&arp_request(101, mac(1), Ipv4Addr::UNSPECIFIED, ip(2)));
    assert_eq!(taken.sent.len(), 1);
    let body: [&[u8]; 4] = [&mac(9).0, &ip(1).octets(), &[0; 6], &ip(2).octets()];
    let lie = arp(101, mac(1), Mac::BROADCAST, 1, body);
    rig.assert_dropped(Side::Trunk, &lie, DropReason::Arp);
}

#[test]
fn size_limits_are_exact() {
    let mut rig = Rig::new();
    // 1600 bytes of underlay less 36 of encapsulation are 1564 with Ethernet.
    let fits = with_tag(&untagged(mac(1), mac(3), 1564 - 42), 101);
    assert_eq!(rig.trunk(&fits).verdict, Verdict::Send(Side::Uplink));
    let large = with_tag(&untagged(mac(1), mac(3), 1565 - 42), 101);
    rig.assert_dropped(Side::Trunk, &large, DropReason::TooBig);
    let fits = with_tag(&untagged(mac(1), mac(2), 1514 - 42), 101);
    assert_eq!(rig.trunk(&fits).verdict, Verdict::Send(Side::Trunk));
    let large = with_tag(&untagged(mac(1), mac(2), 1515 - 42), 101);
    rig.assert_dropped(Side::Trunk, &large, DropReason::TooBig);
}

#[test]
fn partial_checksums_are_completed() {
    let mut rig = Rig::new();
    let whole = untagged(mac(1), mac(3), 101);
    let mut partial = whole.clone();
    // What a sender leaves to its NIC: the folded sum of the pseudo-header.
    let length = (whole.len() - 34) as u16;
    let pseudo = checksum::Sum::default().with_pseudo_v4(ip(1), ip(3), 17, length);
    partial[40..42].copy_from_slice(&(!pseudo.finish()).to_be_bytes());
    let offload = Some(PartialChecksum {
        start: 38,
        offset: 6,
    });
    let outcome = rig.process(Side::Trunk, &with_tag(&partial, 101), offload);
    assert_eq!(outcome.partial, None);
    assert_eq!(detunnel(&outcome.sent[0]).2, whole);
    // Outside of the frame, and over its addresses and tag.
    for (start, offset) in [(300, 6), (40, 200), (9, 2), (17, 6)] {
        let bad = Some(PartialChecksum { start, offset });
        let outcome = rig.process(Side::Trunk, &with_tag(&partial, 101), bad);
        assert_eq!(outcome.verdict, Verdict::Drop(DropReason::BadOffload));
    }
}

#[test]
fn a_partial_checksum_stays_one_where_the_nic_completes_it() {
    let uplink = Uplink {
        mac: UPLINK_MAC,
        address: VTEP.into(),
        prefix: 24,
        gateway: None,
        mtu: 1600,
    };
    let config = Config {
        uplink,
        trunk_mtu: 1500,
        trunk_checksum: true,
        flows: 1024,
        seed: 7,
        connections: connections(),
    };
    let mut rig = Rig::new();
    let tables = Tables::new(rig.datapath.tables().capacity());
    rig.datapath = Datapath::new(config, tables);
    rig.put(&[vap(101, RED, 1), vap(102, RED, 2)]);
    let offload = Some(PartialChecksum {
        start: 38,
        offset: 6,
    });
    let frame = with_tag(&untagged(mac(1), mac(2), 60), 101);
    assert_eq!(rig.process(Side::Trunk, &frame, offload).partial, offload);
}

#[test]
fn no_buffer_for_a_copy_is_a_counted_drop_and_the_rest_goes_on() {
    let mut rig = Rig::new();
    rig.sink.refuse = true;
    let outcome = rig.trunk(&with_tag(&untagged(mac(1), Mac::BROADCAST, 60), 101));
    assert_eq!(outcome.sent.len(), 1);
    assert_eq!(rig.datapath.counters().dropped(DropReason::NoBuffer), 2);
}

#[test]
fn flows_spread_over_source_ports_and_each_keeps_its_own() {
    let mut rig = Rig::new();
    let mut ports = std::collections::BTreeSet::new();
    for flow in 0..64u8 {
        let mut frame = with_tag(&untagged(mac(1), mac(3), 60), 101);
        frame[39] = flow;
        let first = rig.trunk(&frame).sent.remove(0);
        let second = rig.trunk(&frame).sent.remove(0);
        assert_eq!(first, second);
        ports.insert([first.bytes[34], first.bytes[35]]);
    }
    assert!(ports.len() > 56, "{} ports for 64 flows", ports.len());
}

#[test]
fn no_copy_is_larger_than_the_trunk_takes() {
    let mut rig = Rig::new();
    rig.put(&[vap(103, RED, 3)]);
    // The uplink takes more than the trunk's 1,500 bytes.
    let large = untagged(mac(4), Mac::BROADCAST, 1480);
    // A copy that were tried would be counted for another reason.
    rig.sink.refuse = true;
    let outcome = rig.uplink(&tunnelled(PEER, RED, &large));
    assert_eq!((outcome.verdict, outcome.sent.len()), (Verdict::Done, 0));
    assert_eq!(rig.datapath.counters().dropped(DropReason::TooBig), 3);
}
