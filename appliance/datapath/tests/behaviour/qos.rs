//! Rate limits and marks, as frames meet them.

use nve_datapath::*;
use nve_protocol::*;

use crate::rig::*;

fn qos(vlan: u16, egress: u32, ingress: u32, dscp: Option<u8>) -> Record {
    let limit = |packets| Limit {
        pps: packets,
        burst_packets: packets,
        ..Limit::default()
    };
    Record::Qos(Qos {
        vlan: Vlan::new(vlan).unwrap(),
        egress: limit(egress),
        ingress: limit(ingress),
        dscp,
    })
}

/// How many of 100 equal frames pass, all at one moment.
fn passed(rig: &mut Rig, side: Side, frame: &[u8]) -> usize {
    let outcomes = (0..100).map(|_| rig.process(side, frame, None).verdict);
    let verdicts: Vec<Verdict> = outcomes.collect();
    let dropped = Verdict::Drop(DropReason::RateLimit);
    verdicts
        .iter()
        .filter(|verdict| **verdict != dropped)
        .count()
}

#[test]
fn each_direction_has_its_own_limit() {
    let local = with_tag(&untagged(mac(1), mac(2), 30), 101);
    let remote = with_tag(&untagged(mac(1), mac(3), 30), 101);
    let broadcast = with_tag(&untagged(mac(1), Mac::BROADCAST, 30), 101);
    for frame in [&local, &remote, &broadcast] {
        let mut rig = Rig::new();
        rig.put(&[qos(101, 7, 50, None)]);
        assert_eq!(passed(&mut rig, Side::Trunk, frame), 7);
    }
    let mut rig = Rig::new();
    rig.put(&[qos(102, 50, 9, None)]);
    assert_eq!(passed(&mut rig, Side::Trunk, &local), 9);
    let mut rig = Rig::new();
    rig.put(&[qos(101, 50, 11, None)]);
    let arriving = tunnelled(PEER, RED, &untagged(mac(3), mac(1), 30));
    assert_eq!(passed(&mut rig, Side::Uplink, &arriving), 11);
}

#[test]
fn a_copy_that_exceeds_its_receivers_limit_is_one_drop() {
    let mut rig = Rig::new();
    rig.put(&[qos(102, 0, 1, None)]);
    let broadcast = with_tag(&untagged(mac(1), Mac::BROADCAST, 30), 101);
    assert_eq!(rig.trunk(&broadcast).sent.len(), 3);
    let before = rig.datapath.counters().dropped(DropReason::RateLimit);
    let outcome = rig.trunk_uncounted(&broadcast);
    assert_eq!(outcome.sent.len(), 2);
    let after = rig.datapath.counters().dropped(DropReason::RateLimit);
    assert_eq!(after, before + 1);
}

#[test]
fn marks_are_on_the_packet_and_on_what_carries_it() {
    let mut rig = Rig::new();
    rig.put(&[qos(101, 0, 0, Some(46))]);
    let want = |to| {
        let mut frame = untagged(mac(1), to, 30);
        frame[15] = 46 << 2;
        let mut header = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0;
        header.header_checksum = header.calc_header_checksum();
        frame[14..34].copy_from_slice(&header.to_bytes());
        frame
    };
    let outcome = rig.trunk(&with_tag(&untagged(mac(1), mac(3), 30), 101));
    assert_eq!(outcome.sent[0].bytes[15], 46 << 2);
    assert_eq!(detunnel(&outcome.sent[0]).2, want(mac(3)));
    let outcome = rig.trunk(&with_tag(&untagged(mac(1), mac(2), 30), 101));
    assert_eq!(outcome.sent[0].bytes, with_tag(&want(mac(2)), 102));
    let broadcast = untagged(mac(1), Mac::BROADCAST, 30);
    for sent in rig.trunk(&with_tag(&broadcast, 101)).sent {
        match sent.side {
            Side::Uplink => assert_eq!(detunnel(&sent).2, want(Mac::BROADCAST)),
            Side::Trunk => assert_eq!(sent.bytes, with_tag(&want(Mac::BROADCAST), 102)),
        }
    }
}
