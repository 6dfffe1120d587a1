//! What operators are told of a running datapath.

use etherparse::PacketBuilder;
use nve_datapath::*;
use nve_protocol::inspect::*;
use nve_protocol::*;
use proptest::prelude::*;

use crate::rig::*;
use crate::routing;

fn vlan(id: u16) -> Vlan {
    Vlan::new(id).unwrap()
}

fn place(id: u16, last: u8) -> Place {
    Place {
        vlan: vlan(id),
        port: PortId([last; 16]),
    }
}

fn probe(origin: Origin, frame: &[u8]) -> Question {
    Question::Trace(Probe {
        origin,
        length: frame.len() as u16,
        head: ProbeHead::front(frame),
    })
}

/// The parts of an answer, and its end.
fn ask(rig: &mut Rig, question: &Question) -> (Vec<Part>, Part) {
    let mut parts = rig.datapath.answer(rig.now, question).into_list();
    let end = parts.pop().unwrap();
    (parts, end)
}

/// The steps of a trace, which changes nothing.
fn trace(rig: &mut Rig, origin: Origin, frame: &[u8]) -> Vec<Step> {
    let before = format!("{:?}", rig.datapath);
    let (parts, end) = ask(rig, &probe(origin, frame));
    assert_eq!(format!("{:?}", rig.datapath), before);
    assert_eq!(end, Part::Done(Done::default()));
    let step = |part| match part {
        Part::Step(step) => step,
        other => panic!("{other:?}"),
    };
    parts.into_iter().map(step).collect()
}

fn from_vap(rig: &mut Rig, id: u16, frame: &[u8]) -> Vec<Step> {
    trace(rig, Origin::Vap { vlan: vlan(id) }, frame)
}

/// What a trace says that leaves, and why frames are dropped.
fn outcome(steps: &[Step]) -> (Vec<(u16, Vec<u8>)>, Vec<DropReason>) {
    let mut sent = Vec::new();
    let mut dropped = Vec::new();
    for step in steps {
        match step {
            Step::Send(leaving) => sent.push((leaving.length, leaving.head.bytes().to_vec())),
            Step::Drop { reason, .. } => dropped.push(*reason),
            _ => {}
        }
    }
    (sent, dropped)
}

#[test]
fn a_packet_is_followed_stage_by_stage_into_a_tunnel() {
    let mut rig = routing::rig();
    rig.put(&[Record::Qos(Qos {
        vlan: vlan(101),
        egress: Limit {
            kbps: 1000,
            ..Limit::default()
        },
        ingress: Limit::default(),
        dscp: Some(46),
    })]);
    let frame = routing::packet(routing::at(3, 22), 64, 100);
    let steps = from_vap(&mut rig, 101, &frame);
    let green = vni(routing::GREEN);
    let tunnel = Tunnel {
        vni: green,
        vtep: PEER.into(),
    };
    let address = Source::Address {
        mac: mac(1),
        prefix: Prefix::host(ip(1).into()),
        fixed: true,
    };
    let wanted = [
        Step::From(Via::Vap(place(101, 1))),
        Step::Source(address),
        Step::Admitted(Admitted {
            vlan: vlan(101),
            direction: Direction::Egress,
            checked: true,
            rule: Some(RuleId([0xa4; 16])),
            connection: None,
            opens: false,
        }),
        Step::Router {
            router: routing::ROUTER,
            gateway: routing::at(0, 254),
        },
        Step::Route {
            prefix: "10.0.3.0/24".parse().unwrap(),
            vni: green,
            next_hop: routing::at(3, 22),
            mac: mac(22),
            mtu: 1450,
        },
        Step::Receiver(Receiver::Fdb {
            vni: green,
            mac: mac(22),
            vtep: PEER.into(),
        }),
        Step::Meter {
            vlan: vlan(101),
            direction: Direction::Egress,
            limit: Limit {
                kbps: 1000,
                ..Limit::default()
            },
        },
        Step::Mark { dscp: 46 },
        Step::Rewrite {
            source: routing::gateway_mac(3),
            destination: mac(22),
        },
    ];
    assert_eq!(steps[..wanted.len()], wanted);
    let [Step::Send(leaving)] = steps[wanted.len()..] else {
        panic!("{steps:?}");
    };
    assert_eq!(leaving.to, Via::Tunnel(tunnel));
    let sent = &rig.trunk(&with_tag(&frame, 101)).sent[0].bytes;
    assert_eq!(usize::from(leaving.length), sent.len());
    assert_eq!(leaving.head.bytes(), &sent[..leaving.head.bytes().len()]);
}

#[test]
fn drops_are_traced_with_their_reason_and_who_is_to_blame() {
    let mut rig = routing::rig();
    let nowhere = routing::packet(routing::at(77, 1), 64, 10);
    let steps = from_vap(&mut rig, 101, &nowhere);
    assert_eq!(outcome(&steps).1, [DropReason::NoRoute]);
    assert!(steps.contains(&Step::Responder(Responder::Icmp)));
    let spoofed = untagged(mac(9), mac(2), 10);
    let steps = from_vap(&mut rig, 101, &spoofed);
    assert_eq!(outcome(&steps).1, [DropReason::SourceMac]);
    // Nothing gets into VAP 102 any more.
    for record in open_group(102) {
        if let Record::Rule(rule) = record
            && rule.direction == Direction::Ingress
        {
            rig.datapath
                .update(rig.now, |tables| tables.delete(&record.key()));
        }
    }
    let steps = from_vap(&mut rig, 101, &untagged(mac(1), mac(2), 10));
    let blame = Blame {
        vlan: vlan(102),
        port: PortId([2; 16]),
        direction: Direction::Ingress,
        rule: None,
    };
    let dropped = Step::Drop {
        reason: DropReason::SecurityGroup,
        blame: Some(blame),
    };
    assert_eq!(steps.last(), Some(&dropped));

    // Traffic fares the same, and is remembered.
    let asked = rig.now;
    rig.now.0 += 5_000_000;
    rig.trunk(&with_tag(&nowhere, 101));
    rig.trunk(&with_tag(&spoofed, 101));
    rig.trunk(&with_tag(&untagged(mac(1), mac(2), 10), 101));
    rig.trunk(&[0; 20]);
    rig.uplink(&tunnelled(PEER, RED, &untagged(mac(3), mac(2), 10)));
    assert!(asked < rig.now);
    let (parts, end) = ask(&mut rig, &Question::Drops { after: 0 });
    let done = Done {
        next: 5,
        ..Done::default()
    };
    assert_eq!(end, Part::Done(done));
    let told: Vec<_> = parts
        .into_iter()
        .map(|part| match part {
            Part::Drop(dropped) => dropped,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(told.iter().all(|dropped| dropped.at_ms == 5));
    let [no_route, spoofed, refused, untagged, from_peer] = told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(no_route.reason, DropReason::NoRoute);
    assert_eq!(no_route.from, Some(Via::Vap(place(101, 1))));
    let tuple = Tuple {
        source: ip(1).into(),
        destination: routing::at(77, 1),
        protocol: 17,
        source_port: 4000,
        destination_port: 5000,
    };
    assert_eq!(no_route.packet.unwrap().ip, Some(tuple));
    assert_eq!(spoofed.packet.unwrap().source_mac, mac(9));
    assert_eq!((refused.number, refused.blame), (3, Some(blame)));
    assert_eq!((untagged.from, untagged.packet), (None, None));
    let tunnel = Tunnel {
        vni: vni(RED),
        vtep: PEER.into(),
    };
    assert_eq!(from_peer.from, Some(Via::Tunnel(tunnel)));
    assert_eq!(from_peer.blame, Some(blame));
}

#[test]
fn a_connection_that_was_cut_names_the_rule_that_allowed_it() {
    let mut rig = Rig::new();
    let rule = RuleId([0xbc; 16]);
    let records = group_that_lets_out(101, rule);
    let allow = records[2];
    rig.leave_open_group(101);
    rig.put(&records);
    let frame = untagged(mac(1), mac(3), 10);
    // The second packet is the first that is remembered.
    rig.trunk(&with_tag(&frame, 101));
    rig.trunk(&with_tag(&frame, 101));
    let steps = from_vap(&mut rig, 101, &frame);
    let known = Admitted {
        vlan: vlan(101),
        direction: Direction::Egress,
        checked: true,
        rule: Some(rule),
        connection: Some(ConnectionState::Unanswered),
        opens: false,
    };
    assert!(steps.contains(&Step::Admitted(known)), "{steps:?}");
    let (parts, _) = ask(
        &mut rig,
        &Question::Flows {
            cursor: 0,
            vlan: None,
        },
    );
    let [Part::Flow(flow)] = parts[..] else {
        panic!("{parts:?}");
    };
    assert_eq!(flow.from, Via::Vap(place(101, 1)));
    assert_eq!(flow.tuple.destination_port, 5000);
    let tracked = Tracked {
        state: ConnectionState::Unanswered,
        rule,
    };
    assert_eq!((flow.sender, flow.receiver), (Some(tracked), None));
    for (id, count) in [(101, 1), (102, 0)] {
        let vlan = Some(vlan(id));
        let (parts, _) = ask(&mut rig, &Question::Flows { cursor: 0, vlan });
        assert_eq!(parts.len(), count);
    }

    rig.datapath
        .update(rig.now, |tables| tables.delete(&allow.key()));
    let steps = from_vap(&mut rig, 101, &frame);
    let Some(Step::Drop { reason, blame }) = steps.last() else {
        panic!("{steps:?}");
    };
    assert_eq!(*reason, DropReason::SecurityGroup);
    assert_eq!(blame.unwrap().rule, Some(rule));
    rig.assert_dropped(Side::Trunk, &with_tag(&frame, 101), *reason);
    let (parts, _) = ask(&mut rig, &Question::Drops { after: 0 });
    let [Part::Drop(dropped)] = parts[..] else {
        panic!("{parts:?}");
    };
    assert_eq!(dropped.blame, *blame);
}

#[test]
fn a_frame_out_of_a_tunnel_is_followed_to_its_vap() {
    let mut rig = Rig::new();
    let frame = untagged(mac(3), mac(1), 30);
    let tunnel = |vtep| {
        Origin::Tunnel(Tunnel {
            vni: vni(RED),
            vtep,
        })
    };
    let steps = trace(&mut rig, tunnel(PEER.into()), &frame);
    let (sent, dropped) = outcome(&steps);
    assert_eq!((sent.len(), dropped.len()), (1, 0));
    assert_eq!(sent[0].1, with_tag(&frame, 101)[..sent[0].1.len()]);
    let stranger = [192, 0, 2, 99].into();
    let steps = trace(&mut rig, tunnel(stranger), &frame);
    assert_eq!(outcome(&steps).1, [DropReason::UnknownVtep]);
}

#[test]
fn questions_that_make_no_sense_are_refused() {
    let mut rig = Rig::new();
    let origin = Origin::Vap { vlan: vlan(101) };
    for (frame, length) in [
        (&[0; 10][..], 10),
        (&[0; 60], 59),
        (&[0; 60], MAX_PROBE + 1),
    ] {
        let question = Question::Trace(Probe {
            origin,
            length,
            head: ProbeHead::front(frame),
        });
        assert_eq!(ask(&mut rig, &question).1, Part::Failed(Failure::BadProbe));
    }
    let nobody = Origin::Vap { vlan: vlan(999) };
    let (_, end) = ask(&mut rig, &probe(nobody, &[0; 60]));
    assert_eq!(end, Part::Failed(Failure::NoVap));
    let beyond = Question::Flows {
        cursor: u32::MAX,
        vlan: None,
    };
    let (parts, end) = ask(&mut rig, &beyond);
    assert_eq!((parts.len(), end), (0, Part::Done(Done::default())));
}

fn captured(rig: &mut Rig, capture: Capture) -> (Vec<(Direction, u16, Vec<u8>)>, Done) {
    let (parts, end) = ask(rig, &Question::Capture(capture));
    let mut frames: Vec<(Direction, u16, Vec<u8>)> = Vec::new();
    for part in parts {
        let Part::Frame(frame) = part else {
            panic!("{part:?}");
        };
        if frame.offset == 0 {
            frames.push((frame.direction, frame.length, Vec::new()));
        }
        let (_, _, bytes) = frames.last_mut().unwrap();
        assert_eq!(usize::from(frame.offset), bytes.len());
        bytes.extend(frame.piece.bytes());
    }
    match end {
        Part::Done(done) => (frames, done),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_capture_has_what_passes_the_vap_both_ways() {
    let mut rig = Rig::new();
    let capture = Capture {
        id: 1,
        vlan: vlan(101),
        port: PortId([1; 16]),
        snap: 1000,
    };
    assert_eq!(captured(&mut rig, capture).0, []);
    let out = untagged(mac(1), mac(3), 1400);
    let back = untagged(mac(3), mac(1), 20);
    rig.trunk(&with_tag(&out, 101));
    rig.trunk(&with_tag(&untagged(mac(2), mac(3), 20), 102));
    rig.uplink(&tunnelled(PEER, RED, &back));
    // A copy of the flood, and an answer of the NVE.
    let everyone = untagged(mac(2), Mac::BROADCAST, 20);
    rig.trunk(&with_tag(&everyone, 102));
    let request = arp_request(0, mac(1), ip(1), ip(3));
    rig.trunk(&with_tag(&request, 101));
    let (frames, done) = captured(&mut rig, capture);
    let lengths: Vec<_> = frames.iter().map(|(d, l, b)| (*d, *l, b.len())).collect();
    let (egress, ingress) = (Direction::Egress, Direction::Ingress);
    let size = |frame: &[u8]| (frame.len() as u16, frame.len());
    assert_eq!(lengths[0], (egress, out.len() as u16, 1000));
    assert_eq!(frames[0].2, out[..1000]);
    assert_eq!(frames[1].2, back);
    assert_eq!((lengths[1].1, lengths[1].2), size(&back));
    assert_eq!(frames[2], (ingress, everyone.len() as u16, everyone));
    assert_eq!(frames[3], (egress, request.len() as u16, request));
    assert_eq!(frames[4].0, ingress);
    assert_eq!((frames.len(), done.lost), (5, 0));

    // Nobody else's, until nobody asks for it.
    let other = Capture { id: 2, ..capture };
    let question = Question::Capture(other);
    assert_eq!(ask(&mut rig, &question).1, Part::Failed(Failure::Busy));
    rig.now.0 += CAPTURE_TIMEOUT_MS * 1_000_000;
    rig.trunk(&with_tag(&out, 101));
    assert_eq!(captured(&mut rig, other).0, []);
    rig.now.0 += CAPTURE_TIMEOUT_MS * 1_000_000;
    rig.datapath.tick(rig.now, &mut rig.sink);
    assert!(!format!("{:?}", rig.datapath).contains("Waiting"));
}

#[test]
fn a_capture_ends_with_its_port() {
    let mut rig = Rig::new();
    let capture = Capture {
        id: 1,
        vlan: vlan(101),
        port: PortId([1; 16]),
        snap: 100,
    };
    captured(&mut rig, capture);
    let frame = with_tag(&untagged(mac(1), mac(3), 20), 101);
    rig.trunk(&frame);
    // The tag has another port now, whose frames are none of this one's business.
    let Record::Vap(mut vap) = vap(101, RED, 1) else {
        unreachable!()
    };
    vap.port = PortId([77; 16]);
    rig.put(&[Record::Vap(vap)]);
    rig.trunk(&frame);
    let question = Question::Capture(capture);
    assert_eq!(ask(&mut rig, &question).1, Part::Failed(Failure::NoVap));
    let other = Capture {
        port: vap.port,
        ..capture
    };
    assert_eq!(captured(&mut rig, other).0, []);
}

#[test]
fn a_capture_counts_what_it_has_no_room_for() {
    let mut rig = Rig::new();
    let capture = Capture {
        id: 1,
        vlan: vlan(101),
        port: PortId([1; 16]),
        snap: u16::MAX,
    };
    captured(&mut rig, capture);
    let frame = with_tag(&untagged(mac(1), mac(3), 1400), 101);
    for _ in 0..400 {
        rig.trunk(&frame);
    }
    let (mut frames, mut lost) = (0, 0);
    loop {
        let (some, done) = captured_count(&mut rig, capture);
        frames += some;
        lost += done.lost;
        if !done.more {
            break;
        }
    }
    assert!(frames > 100, "{frames}");
    assert_eq!(frames + lost, 400);
}

/// Frames that were told to their end.
fn captured_count(rig: &mut Rig, capture: Capture) -> (u64, Done) {
    let (parts, end) = ask(rig, &Question::Capture(capture));
    let ends = |part: &&Part| match part {
        Part::Frame(frame) => {
            usize::from(frame.offset) + frame.piece.bytes().len() == usize::from(frame.kept)
        }
        _ => false,
    };
    let count = parts.iter().filter(ends).count() as u64;
    match end {
        Part::Done(done) => (count, done),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A trace foretells what becomes of the frame, and changes nothing.
    #[test]
    fn a_trace_foretells_what_happens(
        from in 1u8..5,
        to in prop_oneof![Just(None), (1u8..5).prop_map(Some), Just(Some(0xfe))],
        network in prop_oneof![Just(0u8), Just(3), Just(9), Just(77)],
        last in prop_oneof![Just(1u8), Just(2), Just(3), Just(21), Just(22), Just(254)],
        ttl in prop_oneof![Just(1u8), Just(64)],
        port in 79u16..81,
        payload in prop_oneof![Just(0usize), Just(1400), Just(1440)],
        tcp: bool,
        tunnel: bool,
    ) {
        let mut rig = routing::rig();
        let destination = match to {
            None => Mac::BROADCAST,
            Some(0xfe) => routing::gateway_mac(0),
            Some(last) => mac(last),
        };
        let std::net::IpAddr::V4(ip_to) = routing::at(network, last) else { unreachable!() };
        let builder = PacketBuilder::ethernet2(mac(from).0, destination.0)
            .ipv4(ip(from).octets(), ip_to.octets(), ttl);
        let mut frame = Vec::new();
        let body = vec![0; payload];
        match tcp {
            true => builder.tcp(4000, port, 1, 1000).syn().write(&mut frame, &body).unwrap(),
            false => builder.udp(4000, port).write(&mut frame, &body).unwrap(),
        }
        for _ in 0..2 {
            let (steps, real) = if tunnel {
                let tunnel = Tunnel { vni: vni(RED), vtep: PEER.into() };
                let steps = trace(&mut rig, Origin::Tunnel(tunnel), &frame);
                (steps, rig.process(Side::Uplink, &tunnelled(PEER, RED, &frame), None))
            } else {
                let steps = from_vap(&mut rig, 101, &frame);
                (steps, rig.trunk_uncounted(&with_tag(&frame, 101)))
            };
            let (sent, dropped) = outcome(&steps);
            let real_sent: Vec<(u16, Vec<u8>)> = real.sent.iter().map(|sent| {
                let head = &sent.bytes[..sent.bytes.len().min(Head::MAX)];
                (sent.bytes.len() as u16, head.to_vec())
            }).collect();
            prop_assert_eq!(&sent, &real_sent, "{:?}", steps);
            match real.verdict {
                Verdict::Drop(reason) => prop_assert_eq!(dropped.last(), Some(&reason)),
                _ => prop_assert!(!sent.is_empty() || !dropped.is_empty()),
            }
        }
    }
}
