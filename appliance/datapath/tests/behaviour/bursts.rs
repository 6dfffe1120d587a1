//! Frames in bursts fare as they do one by one.

use etherparse::PacketBuilder;
use nve_datapath::*;
use nve_protocol::inspect::{Part, Question};
use nve_protocol::*;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::rig::*;
use crate::routing;

/// Entries of the flow cache: one set.
const FLOWS: u32 = 4;
/// Frames that are taken at once.
const BURST: usize = 32;

fn udp(from: u8, to: u8, ports: (u16, u16), payload: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac(from).0, mac(to).0)
        .ipv4(ip(from).octets(), ip(to).octets(), 64)
        .udp(ports.0, ports.1)
        .write(&mut frame, &vec![0x5a; payload])
        .unwrap();
    frame
}

/// Lets VAP 102 get no more than 40 packets at once.
fn meter() -> Record {
    let limit = Limit {
        pps: 40,
        burst_packets: 40,
        ..Limit::default()
    };
    Record::Qos(Qos {
        vlan: Vlan::new(102).unwrap(),
        egress: Limit::default(),
        ingress: limit,
        dscp: None,
    })
}

/// The rig with a router, in which VAP 101 is in a stateful group that lets out
/// everything and nothing in, and what VAP 102 gets is metered.
fn rig(flows: u32) -> Rig {
    let mut rig = Rig::with_flows(flows);
    routing::add_router(&mut rig);
    rig.leave_open_group(101);
    rig.put(&group_that_lets_out(101, RuleId([0xbb; 16])));
    rig.put(&[meter()]);
    rig
}

/// What becomes of frames one by one.
fn one_by_one(rig: &mut Rig, side: Side, frames: &[Vec<u8>]) -> Vec<(Verdict, Vec<u8>)> {
    let bursts = frames.iter().map(std::slice::from_ref);
    bursts.flat_map(|burst| rig.burst(side, burst)).collect()
}

/// A frame that comes in.
#[derive(Debug, Clone)]
struct Arrival {
    kind: usize,
    port: u16,
    flags: u8,
    payload: usize,
}

impl Arrival {
    fn on_trunk(&self) -> Vec<u8> {
        let ports = (4000 + self.port, 80);
        let answer = (80, 4000 + self.port);
        match self.kind {
            0 => with_tag(&udp(1, 2, ports, self.payload), 101),
            1 => with_tag(&udp(2, 1, answer, self.payload), 102),
            2 => with_tag(&tcp(1, 2, ports, self.flags), 101),
            3 => with_tag(&tcp(2, 1, answer, self.flags), 102),
            4 => with_tag(&udp(1, 3, ports, self.payload), 101),
            5 => with_tag(&tcp(1, 3, ports, self.flags), 101),
            6 => with_tag(&udp(2, 4, ports, self.payload), 102),
            7 => {
                let to = routing::at(3, 21 + self.port as u8 % 2);
                with_tag(&routing::packet(to, self.flags, self.payload), 101)
            }
            8 => arp_request(101, mac(1), ip(1), ip(2)),
            9 => with_tag(&untagged(mac(1), Mac::BROADCAST, self.payload), 101),
            10 => with_tag(&udp(9, 2, ports, self.payload), 101),
            _ => with_tag(&udp(1, 77, ports, self.payload), 101),
        }
    }

    fn on_uplink(&self) -> Vec<u8> {
        let answer = (80, 4000 + self.port);
        match self.kind {
            0..3 => tunnelled(PEER, RED, &udp(3, 1, answer, self.payload)),
            3..6 => tunnelled(PEER, RED, &tcp(3, 1, answer, self.flags)),
            6 => tunnelled(OTHER, RED, &udp(4, 2, answer, self.payload)),
            7 => tunnelled(OTHER, RED, &tcp(4, 2, answer, self.flags)),
            8 => tunnelled(PEER, RED, &untagged(mac(3), Mac::BROADCAST, self.payload)),
            9 => tunnelled(OTHER, RED, &udp(4, 3, answer, self.payload)),
            10 => underlay_arp_reply(PEER, PEER_MAC),
            _ => tunnelled(PEER, BLUE, &udp(3, 1, answer, self.payload)),
        }
    }
}

fn arrival() -> impl Strategy<Value = Arrival> {
    const FLAGS: [u8; 8] = [SYN, SYN | ACK, ACK, ACK, ACK, FIN | ACK, RST, RST | ACK];
    let payload = prop_oneof![20 => Just(30usize), 2 => 0usize..100, 1 => 1400usize..1560];
    (0usize..12, 0u16..4, 0..FLAGS.len(), payload).prop_map(|(kind, port, flags, payload)| {
        Arrival {
            kind,
            port,
            flags: FLAGS[flags],
            payload,
        }
    })
}

/// Nanoseconds until they come, on which side, and they.
fn together() -> impl Strategy<Value = (u64, Side, Vec<Arrival>)> {
    let later = prop_oneof![2 => Just(0u64), 1 => 1u64..600_000_000];
    let side = prop_oneof![3 => Just(Side::Trunk), 2 => Just(Side::Uplink)];
    (later, side, vec(arrival(), 1..BURST + 1))
}

/// All that is listed for a question: one part of the list is enough for so small a rig.
fn listed(rig: &mut Rig, question: Question) -> Vec<Part> {
    rig.datapath.answer(rig.now, &question).into_list()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn frames_fare_in_bursts_as_they_do_one_by_one(all in vec(together(), 1..12)) {
        let [mut single, mut burst] = [rig(FLOWS), rig(FLOWS)];
        for (later, side, arrivals) in all {
            let frames: Vec<Vec<u8>> = arrivals
                .iter()
                .map(|arrival| match side {
                    Side::Trunk => arrival.on_trunk(),
                    Side::Uplink => arrival.on_uplink(),
                })
                .collect();
            single.now.0 += later;
            burst.now.0 += later;
            let want = one_by_one(&mut single, side, &frames);
            let got = burst.burst(side, &frames);
            for (at, (got, want)) in got.iter().zip(&want).enumerate() {
                prop_assert_eq!(got, want, "{:?} {} of {:?}", side, at, &arrivals);
            }
            let (got, want) = (&mut burst.sink.sent, &mut single.sink.sent);
            prop_assert_eq!(std::mem::take(got), std::mem::take(want));
            prop_assert_eq!(burst.datapath.counters(), single.datapath.counters());
            let drops = Question::Drops { after: 0 };
            prop_assert_eq!(listed(&mut burst, drops), listed(&mut single, drops));
        }
    }
}

/// Flows of which each is known, and more than the cache holds in all.
#[test]
fn entries_that_go_within_a_burst_are_not_followed() {
    let mut rig = rig(FLOWS);
    let known = |port| with_tag(&udp(1, 2, (port, 80), 10), 101);
    let away = |port| with_tag(&udp(1, 3, (port, 80), 10), 101);
    for port in 1..5 {
        for _ in 0..2 {
            rig.burst(Side::Trunk, &[known(port)]);
        }
    }
    // A flow is kept from its second packet on.
    let others = (11..19).flat_map(|port| [away(port), away(port)]);
    let frames: Vec<Vec<u8>> = others.chain((1..5).map(known)).collect();
    let verdicts = rig.burst(Side::Trunk, &frames);
    let verdicts: Vec<Verdict> = verdicts.into_iter().map(|(verdict, _)| verdict).collect();
    let (others, known) = verdicts.split_at(16);
    assert_eq!(others, [Verdict::Send(Side::Uplink); 16]);
    assert_eq!(known, [Verdict::Send(Side::Trunk); 4]);
}

/// A connection goes early when its VAP opens more than it may have.
#[test]
fn a_connection_that_goes_within_a_burst_is_not_followed() {
    let mut rig = rig(1024);
    let own = |flags| with_tag(&tcp(1, 2, (4000, 80), flags), 101);
    let answer = |flags| with_tag(&tcp(2, 1, (80, 4000), flags), 102);
    let trunk = Verdict::Send(Side::Trunk);
    let opening = [
        own(SYN),
        answer(SYN | ACK),
        own(ACK),
        answer(ACK),
        own(RST),
        answer(ACK),
        answer(ACK),
    ];
    for frame in opening {
        assert_eq!(rig.burst(Side::Trunk, &[frame])[0].0, trunk);
    }
    let others = (0..connections().connections_per_vap as u16).map(|port| {
        let frame = udp(1, 3, (5000 + port, 80), 10);
        with_tag(&frame, 101)
    });
    let others: Vec<Vec<u8>> = others.collect();
    let (before, last) = others.split_at(others.len() - 1);
    for frame in before {
        let verdict = rig.burst(Side::Trunk, std::slice::from_ref(frame))[0].0;
        assert_eq!(verdict, Verdict::Send(Side::Uplink));
    }
    // The connection is there still, and what is answered on it.
    let frames = [answer(ACK), last[0].clone(), answer(ACK)];
    let verdicts: Vec<Verdict> = rig
        .burst(Side::Trunk, &frames)
        .iter()
        .map(|(verdict, _)| *verdict)
        .collect();
    let denied = Verdict::Drop(DropReason::SecurityGroup);
    assert_eq!(verdicts, [trunk, Verdict::Send(Side::Uplink), denied]);
}
