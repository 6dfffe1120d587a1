//! The largest and the smallest that passes, and what is just beyond: packets of known
//! flows fare there as first ones do.

use etherparse::{Ipv4Header, PacketBuilder};
use nve_datapath::*;
use nve_protocol::inspect::{Part, Question};
use nve_protocol::*;

use crate::rig::*;
use crate::routing;

/// Bytes of Ethernet's, IPv4's and UDP's header.
const HEADERS: usize = 42;
const TRUNK_MTU: usize = 1500;
const UPLINK_MTU: usize = 1600;
/// Of the network that is routed to.
const ROUTE_MTU: usize = 1450;
/// Bytes of IP packets around inner frames.
const OUTER: usize = 36;
/// Bytes in front of a tagged frame that outer headers take.
const GROWTH: usize = 46;

/// The flows of the tests, all of them red's VAP 101's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// To VAP 102.
    Across,
    /// To .3 behind PEER.
    Away,
    /// From .3 behind PEER.
    From,
    /// By the router to green's VAP 301.
    Routed,
    /// By the router to green's .22 behind PEER.
    Onward,
}

use Flow::*;

const ALL: [Flow; 5] = [Across, Away, From, Routed, Onward];

impl Flow {
    fn side(self) -> Side {
        match self {
            From => Side::Uplink,
            _ => Side::Trunk,
        }
    }

    fn exit(self) -> Side {
        match self {
            Away | Onward => Side::Uplink,
            _ => Side::Trunk,
        }
    }

    /// A frame of it, as it comes in.
    fn frame(self, ttl: u8, payload: usize) -> Vec<u8> {
        match self {
            From => tunnelled(PEER, RED, &self.inner(ttl, payload)),
            _ => with_tag(&self.inner(ttl, payload), 101),
        }
    }

    /// The same without tag or outer headers.
    fn inner(self, ttl: u8, payload: usize) -> Vec<u8> {
        let (from, to, addresses, ports) = match self {
            Across => (mac(1), mac(2), (ip(1), ip(2)), (4000, 5000)),
            Away => (mac(1), mac(3), (ip(1), ip(3)), (4000, 5000)),
            From => (mac(3), mac(1), (ip(3), ip(1)), (5000, 4000)),
            Routed => return routing::packet(routing::at(3, 21), ttl, payload),
            Onward => return routing::packet(routing::at(3, 22), ttl, payload),
        };
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2(from.0, to.0)
            .ipv4(addresses.0.octets(), addresses.1.octets(), ttl)
            .udp(ports.0, ports.1)
            .write(&mut bytes, &vec![0x5a; payload])
            .unwrap();
        bytes
    }

    fn usual(self) -> Vec<u8> {
        self.frame(64, 100)
    }
}

/// The rig with a router; where VAP 101 is protected, it is in a stateful group that lets
/// out everything, and nothing in but answers, of which .3's are some.
fn rig(protected: bool) -> Rig {
    let mut rig = routing::rig();
    if protected {
        rig.leave_open_group(101);
        rig.put(&group_that_lets_out(101, RuleId([0xbb; 16])));
    }
    let asked = rig.trunk(&Away.usual());
    assert_eq!(asked.verdict, Verdict::Send(Side::Uplink));
    rig
}

/// The same, after two packets of a flow.
fn rig_that_knows(flow: Flow, protected: bool) -> Rig {
    let mut rig = rig(protected);
    let others = match flow {
        Away => 0,
        _ => known(&mut rig),
    };
    for _ in 0..2 {
        assert_passes(&mut rig, flow);
    }
    assert_eq!(known(&mut rig), others + 1, "{flow:?}, {protected}");
    rig
}

/// How many flows are known.
fn known(rig: &mut Rig) -> usize {
    let every = Question::Flows {
        cursor: 0,
        vlan: None,
    };
    let parts = rig.datapath.answer(rig.now, &every).into_list();
    let known = parts.iter().filter(|part| matches!(part, Part::Flow(_)));
    known.count()
}

fn assert_passes(rig: &mut Rig, flow: Flow) {
    let outcome = rig.process(flow.side(), &flow.usual(), None);
    assert_eq!(outcome.verdict, Verdict::Send(flow.exit()), "{flow:?}");
}

/// What becomes of a frame that is a flow's third, which is what becomes of it as its
/// first, whether its VAP is protected or not.
fn third(flow: Flow, frame: &[u8]) -> Outcome {
    let [open, protected] = [false, true].map(|protected| {
        let mut known = rig_that_knows(flow, protected);
        let third = known.process(flow.side(), frame, None);
        let first = rig(protected).process(flow.side(), frame, None);
        assert_eq!(third.verdict, first.verdict, "{flow:?}, {protected}");
        assert_eq!(third.sent, first.sent, "{flow:?}, {protected}");
        assert_passes(&mut known, flow);
        third
    });
    assert_eq!(open.verdict, protected.verdict, "{flow:?}");
    assert_eq!(open.sent, protected.sent, "{flow:?}");
    open
}

fn assert_third_passes(flow: Flow, frame: &[u8]) {
    let outcome = third(flow, frame);
    assert_eq!(outcome.verdict, Verdict::Send(flow.exit()), "{flow:?}");
    assert_eq!(outcome.sent.len(), 1, "{flow:?}");
}

fn assert_third_is_lost(flow: Flow, frame: &[u8], reason: DropReason) {
    assert_eq!(
        third(flow, frame).verdict,
        Verdict::Drop(reason),
        "{flow:?}"
    );
}

#[test]
fn what_fills_the_trunks_mtu_passes_and_no_byte_more() {
    for flow in [Across, From] {
        let payload = TRUNK_MTU + 14 - HEADERS;
        assert_third_passes(flow, &flow.frame(64, payload));
        let larger = flow.frame(64, payload + 1);
        assert_third_is_lost(flow, &larger, DropReason::TooBig);
    }
}

#[test]
fn what_fills_the_uplinks_mtu_with_outer_headers_passes_and_no_byte_more() {
    let payload = UPLINK_MTU - OUTER - HEADERS;
    assert_third_passes(Away, &Away.frame(64, payload));
    let sent = third(Away, &Away.frame(64, payload)).sent;
    assert_eq!(sent[0].bytes.len(), UPLINK_MTU + 14);
    let larger = Away.frame(64, payload + 1);
    assert_third_is_lost(Away, &larger, DropReason::TooBig);
}

#[test]
fn what_fills_the_mtu_of_its_route_passes_and_no_byte_more() {
    for flow in [Routed, Onward] {
        let payload = ROUTE_MTU + 14 - HEADERS;
        assert_third_passes(flow, &flow.frame(64, payload));
        let larger = third(flow, &flow.frame(64, payload + 1));
        assert_eq!(larger.verdict, Verdict::Drop(DropReason::TooBig));
        // The sender is told.
        assert_eq!(larger.sent[0].bytes[38..40], [3, 4]);
    }
}

#[test]
fn the_last_hop_but_one_is_routed_and_the_last_is_not() {
    for flow in [Routed, Onward] {
        let outcome = third(flow, &flow.frame(2, 100));
        let inner = match flow {
            Onward => detunnel(&outcome.sent[0]).2,
            _ => [&outcome.sent[0].bytes[..12], &outcome.sent[0].bytes[16..]].concat(),
        };
        let header = Ipv4Header::from_slice(&inner[14..]).unwrap().0;
        assert_eq!(header.time_to_live, 1);
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        for ttl in [1, 0] {
            assert_third_is_lost(flow, &flow.frame(ttl, 100), DropReason::HopLimit);
        }
    }
    for flow in [Across, Away, From] {
        assert_third_passes(flow, &flow.frame(1, 100));
    }
}

#[test]
fn a_damaged_header_is_not_routed_but_switched() {
    for flow in ALL {
        let mut frame = flow.usual();
        // In the identification of the packet.
        let identification = frame.len() - 100 - 28 + 4;
        frame[identification] ^= 1;
        if flow == From {
            // No checksum of the tunnel's.
            frame[40..42].fill(0);
        }
        match flow {
            Across | Away | From => assert_third_passes(flow, &frame),
            Routed | Onward => {
                assert_third_is_lost(flow, &frame, DropReason::MalformedIp);
            }
        }
    }
}

/// Processes a frame from the trunk that has `room` bytes in front of it.
fn with_room(rig: &mut Rig, frame: &[u8], room: usize) -> (Verdict, Vec<u8>) {
    let mut buffer = [&vec![0xa5; room], frame].concat();
    let frame = Frame::new(&mut buffer, room, frame.len()).unwrap();
    let (mut frames, mut verdicts) = ([frame], [Verdict::Done]);
    let mut burst = (&mut frames[..], &mut verdicts[..]);
    rig.datapath
        .process(rig.now, Side::Trunk, &mut burst, &mut rig.sink);
    let ([frame], [verdict]) = (frames, verdicts);
    (verdict, frame.bytes().to_vec())
}

#[test]
fn a_tunnel_takes_just_the_room_that_outer_headers_need() {
    for (flow, protected) in [(Away, false), (Away, true), (Onward, false), (Onward, true)] {
        let want = rig(protected).trunk(&flow.usual()).sent;
        for mut rig in [rig(protected), rig_that_knows(flow, protected)] {
            let (verdict, bytes) = with_room(&mut rig, &flow.usual(), GROWTH);
            assert_eq!(verdict, Verdict::Send(Side::Uplink), "{flow:?}");
            assert_eq!(bytes, want[0].bytes, "{flow:?}");
        }
        for mut rig in [rig(protected), rig_that_knows(flow, protected)] {
            let lost = |rig: &Rig| rig.datapath.counters().dropped(DropReason::NoBuffer);
            let before = lost(&rig);
            let (verdict, _) = with_room(&mut rig, &flow.usual(), GROWTH - 1);
            assert_eq!(verdict, Verdict::Drop(DropReason::NoBuffer), "{flow:?}");
            assert_eq!(lost(&rig), before + 1, "{flow:?}");
            assert_passes(&mut rig, flow);
        }
    }
    // Nothing is in front of what goes to a VAP.
    for flow in [Across, Routed] {
        let mut rig = rig_that_knows(flow, false);
        let (verdict, _) = with_room(&mut rig, &flow.usual(), 0);
        assert_eq!(verdict, Verdict::Send(Side::Trunk), "{flow:?}");
    }
}

/// A tunnelled frame with its outer IPv4 header changed, and the checksum right.
fn with_outer(frame: &[u8], change: impl Fn(&mut Ipv4Header)) -> Vec<u8> {
    let (mut header, datagram) = Ipv4Header::from_slice(&frame[14..]).unwrap();
    change(&mut header);
    header.set_payload_len(datagram.len()).unwrap();
    header.header_checksum = header.calc_header_checksum();
    [&frame[..14], &header.to_bytes(), datagram].concat()
}

#[test]
fn outer_headers_of_a_known_flow_may_differ() {
    let usual = From.usual();
    let want = third(From, &usual).sent;
    let mut frames = vec![
        with_outer(&usual, |header| header.options = [1; 4].into()),
        with_outer(&usual, |header| header.options = [1; 40].into()),
        with_outer(&usual, |header| header.identification = 0xbeef),
        with_outer(&usual, |header| header.dont_fragment = false),
        with_outer(&usual, |header| {
            header.dscp = 46.try_into().unwrap();
            header.ecn = 1.try_into().unwrap();
        }),
    ];
    frames.extend(
        [0, 1, 2, 63, 128, 255].map(|ttl| with_outer(&usual, |header| header.time_to_live = ttl)),
    );
    // Padding of Ethernet's.
    frames.push([&usual[..], &[0; 6]].concat());
    for frame in frames {
        assert_third_passes(From, &frame);
        assert_eq!(third(From, &frame).sent, want, "{frame:x?}");
    }
}

#[test]
fn a_damaged_outer_header_of_a_known_flow_is_dropped() {
    let options = with_outer(&From.usual(), |header| header.options = [1; 4].into());
    for usual in [From.usual(), options] {
        for at in [22, 24] {
            let mut frame = usual.clone();
            frame[at] ^= 1;
            assert_third_is_lost(From, &frame, DropReason::OuterIp);
        }
    }
    let fragment = with_outer(&From.usual(), |header| header.more_fragments = true);
    assert_third_is_lost(From, &fragment, DropReason::OuterFragment);
}
