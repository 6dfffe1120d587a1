//! Next hops: probed before traffic, kept while ARP is lost, shared by gateway.

use std::net::Ipv4Addr;

use crate::rig::*;
use nve_datapath::*;
use nve_protocol::*;

const SECOND: u64 = 1_000_000_000;

fn targets(rig: &mut Rig, now: u64) -> Vec<Ipv4Addr> {
    rig.datapath.tick(Nanos(now), &mut rig.sink);
    let mut targets: Vec<_> = std::mem::take(&mut rig.sink.sent)
        .iter()
        .map(|sent| {
            assert_eq!(sent.side, Side::Uplink);
            assert_eq!(sent.bytes[6..12], UPLINK_MAC.0);
            Ipv4Addr::from(*sent.bytes.last_chunk::<4>().unwrap())
        })
        .collect();
    targets.sort();
    targets
}

fn unresolved(gateway: Option<Ipv4Addr>) -> Rig {
    let uplink = Uplink {
        mac: UPLINK_MAC,
        address: VTEP.into(),
        prefix: 24,
        gateway: gateway.map(Into::into),
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
    for second in 0..3 {
        assert_eq!(
            targets(&mut rig, second * SECOND),
            [VTEP],
            "announces itself"
        );
    }
    rig
}

#[test]
fn a_next_hop_is_probed_from_the_commit_on_and_used_once_it_answers() {
    let mut rig = unresolved(None);
    rig.put(&[vap(101, RED, 1), fdb(RED, 3, PEER), flood(RED, PEER)]);
    assert_eq!(targets(&mut rig, 3 * SECOND), [PEER]);
    assert_eq!(
        targets(&mut rig, 3 * SECOND + 1),
        [Ipv4Addr::UNSPECIFIED; 0]
    );
    assert_eq!(targets(&mut rig, 4 * SECOND), [PEER]);
    let frame = with_tag(&untagged(mac(1), mac(3), 60), 101);
    rig.assert_dropped(Side::Trunk, &frame, DropReason::UnderlayUnresolved);
    rig.resolve(PEER, PEER_MAC);
    assert_eq!(rig.trunk(&frame).verdict, Verdict::Send(Side::Uplink));
    assert_eq!(targets(&mut rig, 10 * SECOND), [Ipv4Addr::UNSPECIFIED; 0]);
}

#[test]
fn a_silent_next_hop_is_probed_and_kept_and_follows_a_new_address() {
    let mut rig = unresolved(None);
    rig.put(&[vap(101, RED, 1), fdb(RED, 3, PEER)]);
    rig.resolve(PEER, PEER_MAC);
    let frame = with_tag(&untagged(mac(1), mac(3), 60), 101);
    for minute in 1..5 {
        assert_eq!(targets(&mut rig, minute * 60 * SECOND), [PEER]);
        assert_eq!(rig.trunk(&frame).sent[0].bytes[..6], PEER_MAC.0);
    }
    rig.resolve(PEER, OTHER_MAC);
    assert_eq!(rig.trunk(&frame).sent[0].bytes[..6], OTHER_MAC.0);
}

#[test]
fn vteps_outside_the_prefix_share_the_gateway() {
    let gateway = Ipv4Addr::new(192, 0, 2, 1);
    let mut rig = unresolved(Some(gateway));
    let far = [
        Ipv4Addr::new(198, 51, 100, 1),
        Ipv4Addr::new(198, 51, 100, 2),
    ];
    rig.put(&[vap(101, RED, 1), fdb(RED, 3, far[0]), fdb(RED, 4, far[1])]);
    assert_eq!(targets(&mut rig, 4 * SECOND), [gateway]);
    rig.resolve(gateway, OTHER_MAC);
    for (last, vtep) in [(3, far[0]), (4, far[1])] {
        let frame = untagged(mac(1), mac(last), 60);
        let sent = rig.trunk(&with_tag(&frame, 101)).sent.remove(0);
        assert_eq!(sent.bytes[..6], OTHER_MAC.0);
        assert_eq!(detunnel(&sent).0, vtep);
    }
}

#[test]
fn many_new_vteps_are_probed_in_portions() {
    let mut rig = unresolved(None);
    let records: Vec<_> = (20..120)
        .map(|last| flood(RED, Ipv4Addr::new(192, 0, 2, last)))
        .collect();
    rig.put(&records);
    assert_eq!(targets(&mut rig, 4 * SECOND).len(), 64);
    assert_eq!(targets(&mut rig, 4 * SECOND + 1).len(), 36);
}

#[test]
fn a_resolved_next_hop_survives_a_full_state() {
    let mut rig = Rig::new();
    let records = [vap(101, RED, 1), address(101, 1), fdb(RED, 3, PEER)];
    rig.datapath.update(Nanos(1), |tables| {
        let mut fresh = Tables::new(tables.capacity());
        for record in records.iter().chain(&open_group(101)) {
            fresh.put(record).unwrap();
        }
        tables.replace(fresh);
    });
    let frame = with_tag(&untagged(mac(1), mac(3), 60), 101);
    assert_eq!(rig.trunk(&frame).verdict, Verdict::Send(Side::Uplink));
}

#[test]
fn next_hops_are_not_probed_for_a_full_state_that_names_none() {
    let mut rig = Rig::new();
    rig.datapath.update(Nanos(1), |tables| {
        tables.replace(Tables::new(tables.capacity()));
    });
    let asked = targets(&mut rig, 3600 * SECOND);
    assert!(!asked.contains(&PEER) && !asked.contains(&OTHER));
}

#[test]
fn strangers_teach_nothing() {
    let mut rig = Rig::new();
    rig.resolve(Ipv4Addr::new(192, 0, 2, 77), OTHER_MAC);
    let group = underlay_arp_reply(PEER, Mac::BROADCAST);
    rig.uplink(&group);
    let frame = with_tag(&untagged(mac(1), mac(3), 60), 101);
    assert_eq!(rig.trunk(&frame).sent[0].bytes[..6], PEER_MAC.0);
}

/// An ARP request of `mac` for the rig, as if it had the address of PEER.
fn claim(mac: Mac) -> Vec<u8> {
    let body: [&[u8]; 4] = [&mac.0, &PEER.octets(), &[0; 6], &VTEP.octets()];
    arp(0, mac, Mac::BROADCAST, 1, body)
}

/// Whom the probes go to that are sent at `now`.
fn probed(rig: &mut Rig, now: u64) -> Vec<Mac> {
    rig.datapath.tick(Nanos(now), &mut rig.sink);
    std::mem::take(&mut rig.sink.sent)
        .iter()
        .map(|sent| Mac(*sent.bytes.first_chunk().unwrap()))
        .collect()
}

fn resolved() -> (Rig, impl Fn(&mut Rig) -> Mac) {
    let mut rig = unresolved(None);
    rig.put(&[vap(101, RED, 1), fdb(RED, 3, PEER)]);
    rig.resolve(PEER, PEER_MAC);
    let frame = with_tag(&untagged(mac(1), mac(3), 60), 101);
    let receiver = move |rig: &mut Rig| {
        let sent = rig.trunk(&frame).sent.remove(0);
        Mac(*sent.bytes.first_chunk().unwrap())
    };
    (rig, receiver)
}

#[test]
fn a_claim_is_verified_with_the_known_station_and_does_not_move_its_tunnels() {
    let (mut rig, receiver) = resolved();
    assert_eq!(probed(&mut rig, 5 * SECOND), []);
    rig.uplink(&claim(OTHER_MAC));
    rig.uplink(&underlay_arp_reply(PEER, OTHER_MAC));
    assert_eq!(receiver(&mut rig), PEER_MAC);
    assert_eq!(probed(&mut rig, 5 * SECOND), [PEER_MAC]);
    rig.uplink(&underlay_arp_reply(PEER, OTHER_MAC));
    assert_eq!(
        receiver(&mut rig),
        PEER_MAC,
        "only the known station is asked"
    );
    rig.uplink(&underlay_arp_reply(PEER, PEER_MAC));
    rig.uplink(&underlay_arp_reply(PEER, OTHER_MAC));
    assert_eq!(receiver(&mut rig), PEER_MAC);
    rig.uplink(&claim(OTHER_MAC));
    assert_eq!(probed(&mut rig, 6 * SECOND), [], "not at once again");
}

#[test]
fn a_gateway_that_failed_over_is_followed_at_once() {
    let (mut rig, receiver) = resolved();
    rig.uplink(&claim(OTHER_MAC));
    assert_eq!(probed(&mut rig, 5 * SECOND), [PEER_MAC]);
    assert_eq!(probed(&mut rig, 5 * SECOND + SECOND / 10), [Mac::BROADCAST]);
    rig.uplink(&underlay_arp_reply(PEER, OTHER_MAC));
    assert_eq!(receiver(&mut rig), OTHER_MAC);
    rig.uplink(&underlay_arp_reply(PEER, PEER_MAC));
    assert_eq!(receiver(&mut rig), OTHER_MAC, "nothing was asked");
}

#[test]
fn only_answers_to_the_uplink_itself_count() {
    let (mut rig, receiver) = resolved();
    for second in 1..3 {
        probed(&mut rig, second * 60 * SECOND);
    }
    for target in [
        [&PEER_MAC.0[..], &VTEP.octets()],
        [&UPLINK_MAC.0, &OTHER.octets()],
    ] {
        let body: [&[u8]; 4] = [&OTHER_MAC.0, &PEER.octets(), target[0], target[1]];
        rig.uplink(&arp(0, OTHER_MAC, UPLINK_MAC, 2, body));
        assert_eq!(receiver(&mut rig), PEER_MAC);
    }
    rig.resolve(PEER, OTHER_MAC);
    assert_eq!(receiver(&mut rig), OTHER_MAC);
}
