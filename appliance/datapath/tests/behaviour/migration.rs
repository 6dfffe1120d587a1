//! VMs that come from another NVE, and such that went to one.

use nve_datapath::*;
use nve_protocol::handover::{Handover, Known, Level, TakeOver};
use nve_protocol::inspect::{
    ConnectionState, Done, Failure, Origin, Part, Place, Probe, ProbeHead, Question, Step, Tunnel,
    Via,
};
use nve_protocol::*;

use crate::rig::*;

fn present(record: Record, presence: Presence) -> Record {
    match record {
        Record::Vap(vap) => Record::Vap(Vap { presence, ..vap }),
        other => other,
    }
}

fn place(vlan: u16, last: u8) -> Place {
    Place {
        vlan: Vlan::new(vlan).unwrap(),
        port: PortId([last; 16]),
    }
}

/// The rig, with VAP 103 on standby for red's .5, which is behind PEER still.
fn awaiting() -> Rig {
    let mut rig = Rig::new();
    rig.put(&[
        present(vap(103, RED, 5), Presence::Standby),
        fdb(RED, 5, PEER),
    ]);
    rig
}

fn to_five() -> Vec<u8> {
    with_tag(&untagged(mac(1), mac(5), 30), 101)
}

/// Whether what is for .5 is delivered here.
fn is_awake(rig: &mut Rig) -> bool {
    let sent = rig.trunk(&to_five()).sent;
    assert_eq!(sent.len(), 1);
    if sent[0].side == Side::Uplink {
        assert_eq!(detunnel(&sent[0]).0, PEER);
        return false;
    }
    assert_eq!(sent[0].bytes[14..16], [0, 103]);
    true
}

#[test]
fn a_vap_on_standby_gets_nothing() {
    let mut rig = awaiting();
    for _ in 0..2 {
        assert!(!is_awake(&mut rig));
    }
    let broadcast = untagged(mac(1), Mac::BROADCAST, 30);
    let copies = rig.trunk(&with_tag(&broadcast, 101)).sent;
    assert_eq!(copies.len(), 3, "VAP 102, PEER and OTHER");
    let broadcast = untagged(mac(3), Mac::BROADCAST, 30);
    let copies = rig.uplink(&tunnelled(PEER, RED, &broadcast)).sent;
    assert_eq!(copies.len(), 2, "VAPs 101 and 102");
    let inner = untagged(mac(4), mac(5), 30);
    let frame = tunnelled(OTHER, RED, &inner);
    rig.assert_dropped(Side::Uplink, &frame, DropReason::SplitHorizon);
}

fn rarp() -> Vec<u8> {
    let body = [
        &[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3][..],
        &mac(5).0,
        &[0; 4],
        &mac(5).0,
        &[0; 4],
    ];
    let frame = [&Mac::BROADCAST.0[..], &mac(5).0, &body.concat()[..]].concat();
    with_tag(&frame, 103)
}

#[test]
fn the_first_frame_of_its_vm_wakes_it() {
    let frames = [
        rarp(),
        arp_request(103, mac(5), ip(5), ip(5)),
        arp_request(103, mac(5), ip(5), ip(1)),
        with_tag(&untagged(mac(5), mac(1), 30), 103),
        with_tag(&untagged(mac(5), mac(4), 30), 103),
    ];
    for frame in frames {
        let mut rig = awaiting();
        assert!(!is_awake(&mut rig));
        assert_eq!(rig.datapath.tables().next_awake(0), None);
        assert!(!rig.trunk(&frame).sent.is_empty(), "it goes its way");
        let woken = rig.datapath.tables().next_awake(0);
        assert_eq!(woken, Some((1, place(103, 5))));
        assert!(is_awake(&mut rig), "a known flow follows");
        let inner = untagged(mac(4), mac(5), 30);
        let outcome = rig.uplink(&tunnelled(OTHER, RED, &inner));
        assert_eq!(outcome.sent[0].bytes, with_tag(&inner, 103));
        let broadcast = untagged(mac(1), Mac::BROADCAST, 30);
        assert_eq!(rig.trunk(&with_tag(&broadcast, 101)).sent.len(), 4);
        rig.trunk(&frame);
        assert_eq!(rig.datapath.tables().awakenings(), 1, "once");
    }
}

#[test]
fn a_known_flow_follows_within_the_burst_that_wakes_it() {
    let across = with_tag(&untagged(mac(1), mac(2), 30), 101);
    for frames in [
        vec![rarp(), to_five()],
        vec![to_five(), rarp(), to_five(), across.clone(), to_five()],
        vec![across.clone(), rarp(), across, to_five()],
    ] {
        let mut rig = awaiting();
        let woken = frames.iter().position(|frame| *frame == rarp()).unwrap();
        // All flows are known.
        for frame in frames.iter().filter(|frame| **frame != rarp()) {
            rig.trunk(frame);
        }
        assert!(!is_awake(&mut rig));
        let ends = rig.burst(Side::Trunk, &frames);
        for (at, (frame, (verdict, _))) in frames.iter().zip(ends).enumerate() {
            let side = match *frame == to_five() && at < woken {
                true => Side::Uplink,
                false => Side::Trunk,
            };
            if at != woken {
                assert_eq!(verdict, Verdict::Send(side), "{at}");
            }
        }
        rig.sink.sent.clear();
        assert!(is_awake(&mut rig));
    }
}

#[test]
fn what_it_may_not_send_wakes_nobody() {
    let frames = [
        (
            with_tag(&untagged(mac(9), mac(1), 30), 103),
            DropReason::SourceMac,
        ),
        (
            with_tag(
                &[
                    &mac(1).0[..],
                    &mac(5).0,
                    &untagged(mac(9), mac(1), 30)[12..],
                ]
                .concat(),
                103,
            ),
            DropReason::SourceIp,
        ),
        (arp_request(103, mac(5), ip(6), ip(1)), DropReason::Arp),
        (
            with_tag(&untagged(mac(5), mac(5), 30), 103),
            DropReason::Hairpin,
        ),
    ];
    let mut rig = awaiting();
    for (frame, reason) in frames {
        rig.assert_dropped(Side::Trunk, &frame, reason);
        assert!(!is_awake(&mut rig));
    }
}

#[test]
fn a_trace_wakes_nobody() {
    let mut rig = awaiting();
    let frame = untagged(mac(5), mac(1), 30);
    let probe = Probe {
        origin: Origin::Vap {
            vlan: Vlan::new(103).unwrap(),
        },
        length: frame.len() as u16,
        head: ProbeHead::front(&frame),
    };
    rig.datapath.answer(rig.now, &Question::Trace(probe));
    assert!(!is_awake(&mut rig));
}

/// The rig after .1 has gone to OTHER.
fn left() -> Rig {
    let mut rig = Rig::new();
    // A flow that is known before it goes.
    let frame = tunnelled(PEER, RED, &untagged(mac(3), mac(1), 30));
    assert_eq!(rig.uplink(&frame).verdict, Verdict::Send(Side::Trunk));
    rig.put(&[
        present(vap(101, RED, 1), Presence::Departed),
        fdb(RED, 1, OTHER),
    ]);
    rig
}

/// Sets the TTL of outer headers over IPv4.
fn with_ttl(mut frame: Vec<u8>, ttl: u8) -> Vec<u8> {
    frame[22] = ttl;
    let mut header = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0;
    header.header_checksum = header.calc_header_checksum();
    frame[14..34].copy_from_slice(&header.to_bytes());
    frame
}

#[test]
fn what_comes_for_a_vm_that_has_gone_is_sent_on() {
    let mut rig = left();
    let inner = untagged(mac(3), mac(1), 30);
    for ttl in [64, 64, 255, 2] {
        let frame = with_ttl(tunnelled(PEER, RED, &inner), ttl);
        let outcome = rig.uplink(&frame);
        assert_eq!(outcome.sent.len(), 1);
        assert_eq!(
            detunnel(&outcome.sent[0]),
            (OTHER.into(), RED, inner.clone())
        );
        assert_eq!(outcome.sent[0].bytes[22], ttl - 1);
    }
    let question = Question::Flows {
        cursor: 0,
        vlan: None,
    };
    let flows = rig.datapath.answer(rig.now, &question).into_list();
    assert_eq!(flows, [Part::Done(Done::default())], "each is decided anew");
    let broadcast = untagged(mac(3), Mac::BROADCAST, 30);
    let copies = rig.uplink(&tunnelled(PEER, RED, &broadcast)).sent;
    assert_eq!(copies.len(), 1, "VAP 102");
}

#[test]
fn nothing_is_sent_round() {
    let mut rig = left();
    let inner = untagged(mac(4), mac(1), 30);
    let back = tunnelled(OTHER, RED, &inner);
    rig.assert_dropped(Side::Uplink, &back, DropReason::SplitHorizon);
    let tired = with_ttl(tunnelled(PEER, RED, &inner), 1);
    rig.assert_dropped(Side::Uplink, &tired, DropReason::HopLimit);
    let Record::Fdb(Fdb { vni, mac, .. }) = fdb(RED, 1, OTHER) else {
        panic!("an FDB record")
    };
    rig.datapath
        .update(rig.now, |tables| tables.delete(&Key::Fdb { vni, mac }));
    let frame = tunnelled(PEER, RED, &inner);
    rig.assert_dropped(Side::Uplink, &frame, DropReason::SplitHorizon);
}

#[test]
fn the_last_vap_of_a_network_sends_on_too() {
    let mut rig = Rig::new();
    rig.put(&[
        present(vap(201, BLUE, 1), Presence::Departed),
        fdb(BLUE, 1, OTHER),
        flood(BLUE, PEER),
    ]);
    let inner = untagged(mac(3), mac(1), 30);
    let outcome = rig.uplink(&tunnelled(PEER, BLUE, &inner));
    assert_eq!(detunnel(&outcome.sent[0]), (OTHER.into(), BLUE, inner));
}

#[test]
fn others_here_reach_a_vm_that_has_gone_and_it_may_still_send() {
    let mut rig = left();
    let inner = untagged(mac(2), mac(1), 30);
    let outcome = rig.trunk(&with_tag(&inner, 102));
    assert_eq!(detunnel(&outcome.sent[0]), (OTHER.into(), RED, inner));
    let inner = untagged(mac(1), mac(3), 30);
    let outcome = rig.trunk(&with_tag(&inner, 101));
    assert_eq!(detunnel(&outcome.sent[0]), (PEER.into(), RED, inner));
    assert_eq!(rig.datapath.tables().awakenings(), 0);
}

#[test]
fn a_vm_that_comes_back_gets_its_frames_itself() {
    let mut rig = left();
    let inner = untagged(mac(3), mac(1), 30);
    let frame = tunnelled(PEER, RED, &inner);
    rig.put(&[present(vap(101, RED, 1), Presence::Standby)]);
    rig.assert_dropped(Side::Uplink, &frame, DropReason::SplitHorizon);
    rig.trunk(&with_tag(&untagged(mac(1), mac(2), 30), 101));
    assert_eq!(rig.uplink(&frame).sent[0].bytes, with_tag(&inner, 101));
}

#[test]
fn a_trace_says_where_it_is_sent_on() {
    let mut rig = left();
    let inner = untagged(mac(3), mac(1), 30);
    let (vni, vtep) = (vni(RED), PEER.into());
    let probe = Probe {
        origin: Origin::Tunnel(Tunnel { vni, vtep }),
        length: inner.len() as u16,
        head: ProbeHead::front(&inner),
    };
    let parts = rig.datapath.answer(rig.now, &Question::Trace(probe));
    let parts = parts.into_list();
    let to = parts.iter().find_map(|part| match part {
        Part::Step(Step::Send(leaving)) => Some(leaving.to),
        _ => None,
    });
    let vtep = OTHER.into();
    assert_eq!(to, Some(Via::Tunnel(Tunnel { vni, vtep })));
}

/// The rig with VAP 101 in a stateful group that lets out everything and nothing in.
fn stateful(presence: Presence) -> Rig {
    let mut rig = Rig::new();
    rig.put(&[present(vap(101, RED, 1), presence)]);
    rig.put(&group_that_lets_out(101, RuleId([0xbb; 16])));
    rig.leave_open_group(101);
    rig
}

/// All that an NVE knows of a VAP's traffic.
fn handed_over(rig: &mut Rig, place: Place, within_ms: u32) -> Vec<Known> {
    let (mut cursor, mut all) = (0, Vec::new());
    loop {
        let question = Question::Handover(Handover {
            place,
            cursor,
            within_ms,
        });
        let mut parts = rig.datapath.answer(rig.now, &question).into_list();
        let Some(Part::Done(done)) = parts.pop() else {
            panic!("{parts:?}");
        };
        all.extend(parts.into_iter().map(|part| match part {
            Part::Known(known) => known,
            other => panic!("{other:?}"),
        }));
        if !done.more {
            return all;
        }
        cursor = done.next;
    }
}

fn take_over(rig: &mut Rig, place: Place, all: &[Known]) {
    for known in all {
        let known = *known;
        rig.datapath.take_over(rig.now, &TakeOver { place, known });
    }
}

/// The VM of VAP 101 has a connection to .3, which is behind PEER.
fn connect(rig: &mut Rig) {
    for (own, flags) in [(true, 2), (false, 18), (true, 16), (false, 16)] {
        let outcome = match own {
            true => rig.trunk(&with_tag(&tcp(1, 3, (4000, 80), flags), 101)),
            false => rig.uplink(&tunnelled(PEER, RED, &tcp(3, 1, (80, 4000), flags))),
        };
        assert!(matches!(outcome.verdict, Verdict::Send(_)), "{outcome:?}");
    }
}

#[test]
fn a_connection_survives_though_its_vm_only_receives() {
    let mut source = stateful(Presence::Active);
    connect(&mut source);
    let known = handed_over(&mut source, place(101, 1), u32::MAX);
    assert_eq!(known.len(), 1);
    for told in [false, true] {
        let mut new = stateful(Presence::Standby);
        // Time there is another.
        new.now = Nanos(5_000_000_000_000);
        if told {
            take_over(&mut new, place(101, 1), &known);
            take_over(&mut new, place(101, 1), &known);
            let again = handed_over(&mut new, place(101, 1), u32::MAX);
            assert_eq!(again, known, "it can go on from there");
        }
        // It asks who has the address, and that is all that it ever says.
        new.trunk(&arp_request(101, mac(1), ip(1), ip(3)));
        let data = tunnelled(PEER, RED, &tcp(3, 1, (80, 4000), 16));
        for _ in 0..3 {
            match told {
                true => assert_eq!(new.uplink(&data).verdict, Verdict::Send(Side::Trunk)),
                false => new.assert_dropped(Side::Uplink, &data, DropReason::SecurityGroup),
            }
        }
    }
}

#[test]
fn a_delta_has_what_had_packets_of_late() {
    let mut rig = stateful(Presence::Active);
    connect(&mut rig);
    rig.now.0 += 10_000_000_000;
    let later = with_tag(&tcp(1, 3, (4001, 80), 2), 101);
    assert_eq!(rig.trunk(&later).verdict, Verdict::Send(Side::Uplink));
    assert_eq!(handed_over(&mut rig, place(101, 1), 60_000).len(), 2);
    assert_eq!(handed_over(&mut rig, place(101, 1), 1_000).len(), 1);
    rig.now.0 += 10_000_000_000;
    assert_eq!(handed_over(&mut rig, place(101, 1), 1_000).len(), 0);
}

#[test]
fn nothing_is_told_of_or_taken_for_another_port() {
    let mut rig = stateful(Presence::Active);
    connect(&mut rig);
    let known = handed_over(&mut rig, place(101, 1), u32::MAX);
    for wrong in [place(101, 2), place(77, 1)] {
        let question = Question::Handover(Handover {
            place: wrong,
            cursor: 0,
            within_ms: u32::MAX,
        });
        let parts = rig.datapath.answer(rig.now, &question).into_list();
        assert_eq!(parts, [Part::Failed(Failure::NoVap)]);
        let mut new = stateful(Presence::Standby);
        take_over(&mut new, wrong, &known);
        assert_eq!(handed_over(&mut new, place(101, 1), u32::MAX), []);
    }
}

#[test]
fn what_cannot_be_is_not_taken() {
    let mut rig = stateful(Presence::Active);
    connect(&mut rig);
    let known = handed_over(&mut rig, place(101, 1), u32::MAX);
    let [Known::Connection(connection)] = known[..] else {
        panic!("{known:?}")
    };
    let bad = [
        handover::Connection {
            remote: "2001:db8::1".parse().unwrap(),
            ..connection
        },
        handover::Connection {
            protocol: 17,
            ..connection
        },
        handover::Connection {
            state: ConnectionState::Answered,
            ..connection
        },
        // Longer than any may be idle.
        handover::Connection {
            idle_ms: u32::MAX,
            ..connection
        },
    ];
    let mut new = stateful(Presence::Standby);
    take_over(&mut new, place(101, 1), &bad.map(Known::Connection));
    assert_eq!(handed_over(&mut new, place(101, 1), u32::MAX), []);
}

#[test]
fn no_more_is_taken_than_a_vap_may_have() {
    let mut rig = stateful(Presence::Active);
    connect(&mut rig);
    let known = handed_over(&mut rig, place(101, 1), u32::MAX);
    let [Known::Connection(connection)] = known[..] else {
        panic!("{known:?}")
    };
    let mut new = stateful(Presence::Standby);
    let many: Vec<Known> = (1..1000)
        .map(|local_port| {
            Known::Connection(handover::Connection {
                local_port,
                ..connection
            })
        })
        .collect();
    take_over(&mut new, place(101, 1), &many);
    let taken = handed_over(&mut new, place(101, 1), u32::MAX);
    assert_eq!(taken.len() as u32, connections().connections_per_vap);
}

#[test]
fn a_limit_gives_nothing_away() {
    let limit = Limit {
        pps: 1,
        burst_packets: 50,
        ..Limit::default()
    };
    let qos = Record::Qos(Qos {
        vlan: Vlan::new(101).unwrap(),
        egress: limit,
        ingress: Limit::default(),
        dscp: None,
    });
    let frame = with_tag(&untagged(mac(1), mac(3), 30), 101);
    let passing =
        |rig: &mut Rig| (0..).find(|_| rig.trunk(&frame).verdict != Verdict::Send(Side::Uplink));
    let mut source = Rig::new();
    source.put(&[qos]);
    for _ in 0..40 {
        source.trunk(&frame);
    }
    let known = handed_over(&mut source, place(101, 1), 0);
    let level = Level {
        direction: Direction::Egress,
        bits: i64::MAX,
        packets: 10_000_000_000,
    };
    assert_eq!(known, [Known::Level(level)]);
    let mut new = Rig::new();
    new.put(&[present(vap(101, RED, 1), Presence::Standby), qos]);
    take_over(&mut new, place(101, 1), &known);
    assert_eq!(passing(&mut new), Some(10));
    take_over(&mut new, place(101, 1), &known);
    assert_eq!(passing(&mut new), Some(0), "it does not become more");
    // Nobody is believed that it owes for years.
    let lie = Known::Level(Level {
        bits: i64::MIN,
        packets: i64::MIN,
        ..level
    });
    take_over(&mut new, place(101, 1), &[lie]);
    new.now.0 += 3_000_000_000;
    assert_eq!(passing(&mut new), Some(2));
}
