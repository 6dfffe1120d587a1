//! Large frames fare as their segments would that came in one by one.

mod packet;

use std::net::IpAddr;

use nve_datapath::*;
use nve_protocol::inspect::{Capture, Done, Part, Question};
use nve_protocol::*;
use proptest::prelude::*;

use crate::rig::*;
use crate::routing;
use packet::{Packet, cut};

/// A sink that completes checksums as a NIC does, and has room for so many frames.
struct Queue {
    sent: Vec<Sent>,
    room: usize,
    /// Room that there is after waiting.
    later: usize,
    waits: usize,
}

impl Queue {
    fn new(room: usize) -> Queue {
        Queue {
            sent: Vec::new(),
            room,
            later: 0,
            waits: 0,
        }
    }
}

impl Sink for Queue {
    fn emit(
        &mut self,
        side: Side,
        parts: &[&[u8]],
        partial: Option<PartialChecksum>,
    ) -> Result<(), NoBuffer> {
        self.room = self.room.checked_sub(1).ok_or(NoBuffer)?;
        let mut bytes = parts.concat();
        if let Some(partial) = partial {
            assert_eq!(side, Side::Trunk);
            let (start, at) = (usize::from(partial.start), usize::from(partial.offset));
            let sum = checksum::of(&bytes[start..]);
            bytes[start + at..start + at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        self.sent.push(Sent { side, bytes });
        Ok(())
    }

    fn wait(&mut self, _side: Side) {
        self.waits += 1;
        self.room = std::mem::take(&mut self.later);
    }
}

/// How a large frame is put into buffers.
#[derive(Debug, Clone, Copy)]
struct Buffers {
    first: usize,
    others: usize,
}

const BUFFERS: Buffers = Buffers {
    first: 1622,
    others: 1634,
};

/// Processes a large frame; what stays large is returned as bytes.
fn process_large(
    rig: &mut Rig,
    packet: &Packet,
    (frame, size): (&[u8], usize),
    buffers: Buffers,
    queue: &mut Queue,
) -> Option<Vec<u8>> {
    let (first, rest) = frame.split_at(buffers.first.min(frame.len()));
    let mut buffer = vec![0xa5; HEADROOM + first.len()];
    buffer[HEADROOM..].copy_from_slice(first);
    let rest: Vec<&[u8]> = rest.chunks(buffers.others).collect();
    let head = Frame::new(&mut buffer, HEADROOM, first.len()).unwrap();
    let mut large = Large {
        head: head.with_partial(Some(packet.partial())),
        rest: &rest,
        segmentation: Segmentation {
            size: size as u16,
            is_ipv4: packet.source.is_ipv4(),
        },
    };
    let length = rig.datapath.process_large(rig.now, &mut large, queue)?;
    let whole = [&buffer[HEADROOM..], &rest.concat()].concat();
    Some(whole[..length].to_vec())
}

/// What becomes of a large frame, as segments.
fn by_large(rig: &mut Rig, packet: &Packet, payload: &[u8], size: usize, at: Buffers) -> Vec<Sent> {
    let mut queue = Queue::new(usize::MAX);
    let frame = packet.large(payload);
    let whole = process_large(rig, packet, (&frame, size), at, &mut queue);
    if let Some(whole) = whole {
        assert_eq!(queue.sent, []);
        return cut(&whole, size);
    }
    queue.sent
}

/// What becomes of the segments.
fn by_segments(rig: &mut Rig, packet: &Packet, payload: &[u8], size: usize) -> Vec<Sent> {
    let count = payload.len().div_ceil(size);
    let outcomes = (0..count).map(|number| {
        let segment = packet.segment(number, size, payload);
        rig.trunk_uncounted(&segment).sent
    });
    outcomes.collect::<Vec<_>>().concat()
}

fn rig(trunk_checksum: bool, records: &[Record]) -> Rig {
    let mut rig = Rig::with_trunk_checksum(trunk_checksum);
    routing::add_router(&mut rig);
    let six = |vlan, last: u8| {
        Record::Address(Address {
            vlan: Vlan::new(vlan).unwrap(),
            mac: mac(last),
            prefix: Prefix::host(Packet::to(last).six().destination),
            fixed: true,
        })
    };
    rig.put(&[six(101, 1), six(102, 2)]);
    rig.put(records);
    rig
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn limits(vlan: u16, egress: Limit, ingress: Limit) -> Record {
    Record::Qos(Qos {
        vlan: Vlan::new(vlan).unwrap(),
        egress,
        ingress,
        dscp: Some(46),
    })
}

fn packets(count: u32) -> Limit {
    Limit {
        pps: count,
        burst_packets: count,
        ..Limit::default()
    }
}

/// How many of 100 small packets from 101 to 102 pass, after all else.
fn left(rig: &mut Rig) -> usize {
    let frame = with_tag(&untagged(mac(1), mac(2), 30), 101);
    let passes = |_: &usize| !rig.trunk_uncounted(&frame).sent.is_empty();
    (0..100).filter(passes).count()
}

/// Puts a VAP into a stateful group that lets out everything and nothing in.
fn close(rig: &mut Rig, vlan: u16) {
    for record in open_group(vlan) {
        if let Record::Binding(_) = record {
            rig.datapath
                .update(rig.now, |tables| tables.delete(&record.key()));
        }
    }
    let group = GroupId([0xbb; 16]);
    let rule = |family, id| {
        Record::Rule(Rule {
            id: RuleId([id; 16]),
            group,
            direction: Direction::Egress,
            family,
            protocol: None,
            low: 0,
            high: u16::MAX,
            remote: Remote::Any,
        })
    };
    rig.put(&[
        Record::Binding(Binding {
            vlan: Vlan::new(vlan).unwrap(),
            group,
        }),
        Record::Group(Group {
            group,
            stateful: true,
        }),
        rule(Family::Ipv4, 0xb4),
        rule(Family::Ipv6, 0xb6),
    ]);
}

fn packet() -> impl Strategy<Value = Packet> {
    // Local, in a tunnel, nobody's, routed to a VAP, routed into a tunnel, a gateway.
    let places = prop_oneof![
        3 => Just((mac(2), ip(2).into())),
        3 => Just((mac(3), ip(3).into())),
        1 => Just((mac(77), ip(77).into())),
        1 => Just((routing::gateway_mac(0), routing::at(3, 21))),
        1 => Just((routing::gateway_mac(0), routing::at(3, 22))),
        1 => Just((routing::gateway_mac(0), routing::at(0, 254))),
    ];
    let flags: [proptest::bool::Any; 5] = [proptest::bool::ANY; 5];
    let ttl = prop_oneof![Just(64u8), Just(1)];
    (
        places,
        flags,
        proptest::bool::weighted(0.1),
        ttl,
        any::<(u16, u32)>(),
        any::<bool>(),
    )
        .prop_map(
            |((to, destination), [fin, psh, cwr, options, df], rst, ttl, (id, sequence), six)| {
                let packet = Packet {
                    to,
                    source: ip(1).into(),
                    destination,
                    ttl,
                    df,
                    id,
                    sequence,
                    fin,
                    psh,
                    cwr,
                    rst,
                    options,
                    class: 3,
                };
                if six { packet.six() } else { packet }
            },
        )
}

/// Whether frames are the same, but for the form of a sum of zero: once in 65,536 packets
/// a TCP checksum is 0 in one and 0xffff in the other, which is the same number (RFC 1071).
fn is_same(one: &Sent, other: &Sent) -> bool {
    let pairs = one.bytes.iter().zip(&other.bytes).enumerate();
    let differing: Vec<_> = pairs.filter(|(_, (a, b))| a != b).collect();
    let is_zero = match differing[..] {
        [] => true,
        [(at, first), (next, second)] => {
            next == at + 1 && first == second && matches!(first, (0, 0xff) | (0xff, 0))
        }
        _ => false,
    };
    is_zero && one.side == other.side && one.bytes.len() == other.bytes.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_large_frame_fares_as_its_segments(
        packet in packet(),
        trunk_checksum: bool,
        size in prop_oneof![Just(1448usize), Just(1388), Just(1460), Just(1462), 200usize..1500],
        length in 1usize..30_000,
        first in 1600usize..4000,
        others in 200usize..4000,
        limit in prop_oneof![Just(0u32), 1u32..40],
        with_groups: bool,
    ) {
        let records = [
            limits(101, packets(limit), packets(0)),
            limits(102, packets(0), packets(0)),
        ];
        let mut one = rig(trunk_checksum, &records);
        let mut other = rig(trunk_checksum, &records);
        if with_groups {
            close(&mut one, 101);
            close(&mut other, 101);
        }
        let payload = payload(length);
        let buffers = Buffers { first, others };
        // The second one meets what the first left behind: flows, connections, limits.
        for _ in 0..2 {
            let large = by_large(&mut one, &packet, &payload, size, buffers);
            let segments = by_segments(&mut other, &packet, &payload, size);
            prop_assert_eq!(large.len(), segments.len());
            for (large, segment) in large.iter().zip(&segments) {
                prop_assert!(is_same(large, segment), "{large:x?} {segment:x?}");
            }
            prop_assert_eq!(one.datapath.counters(), other.datapath.counters());
        }
        prop_assert_eq!(left(&mut one), left(&mut other));
    }
}

#[test]
fn a_large_frame_to_a_vap_stays_one() {
    for packet in [Packet::to(2), Packet::to(2).six()] {
        let mut rig = rig(true, &[]);
        for length in [1449, 20_000, 65_535 - 40 - 32] {
            let mut queue = Queue::new(0);
            let frame = packet.large(&payload(length));
            let frame = (&frame[..], 1428);
            let whole = process_large(&mut rig, &packet, frame, BUFFERS, &mut queue).unwrap();
            assert_eq!(whole.len(), frame.0.len());
            assert_eq!(whole[14..16], [0, 102]);
            assert_eq!(
                (&whole[..14], &whole[16..]),
                (&frame.0[..14], &frame.0[16..])
            );
        }
    }
}

#[test]
fn a_large_frame_is_cut_where_the_trunk_completes_no_checksums() {
    let (packet, payload) = (Packet::to(2), payload(4000));
    let mut one = rig(false, &[]);
    let mut queue = Queue::new(3);
    let frame = packet.large(&payload);
    let whole = process_large(&mut one, &packet, (&frame, 1448), BUFFERS, &mut queue);
    assert_eq!((whole, queue.sent.len()), (None, 3));
}

#[test]
fn what_is_captured_are_segments() {
    let (packet, payload) = (Packet::to(2), payload(4000));
    let mut one = rig(true, &[]);
    let capture = Capture {
        id: 1,
        vlan: Vlan::new(102).unwrap(),
        port: PortId([2; 16]),
        snap: 60,
    };
    one.datapath.answer(one.now, &Question::Capture(capture));
    let sent = by_large(&mut one, &packet, &payload, 1448, BUFFERS);
    let mut other = rig(true, &[]);
    assert_eq!(sent, by_segments(&mut other, &packet, &payload, 1448));
    let mut parts = one
        .datapath
        .answer(one.now, &Question::Capture(capture))
        .into_list();
    let next = 3;
    assert_eq!(
        parts.pop(),
        Some(Part::Done(Done {
            next,
            ..Done::default()
        }))
    );
    let lengths = parts.iter().map(|part| match part {
        Part::Frame(frame) => frame.length,
        other => panic!("{other:?}"),
    });
    let wanted = [1448 + 66, 1448 + 66, 4000 - 2 * 1448 + 66];
    assert_eq!(lengths.collect::<Vec<u16>>(), wanted);
}

/// Bits and packets, of the sender and of the receiver: the front that is within all
/// limits passes, the rest is dropped and counted.
#[test]
fn limits_count_segments() {
    let bits = |segments: u32| Limit {
        kbps: 1000,
        burst_kbit: (1514 * 8 * segments).div_ceil(1000),
        ..Limit::default()
    };
    let cases = [
        (packets(7), packets(0), 7),
        (packets(0), packets(5), 5),
        (packets(9), packets(4), 4),
        (bits(6), packets(0), 6),
        (packets(0), bits(3), 3),
        (packets(1), packets(0), 1),
    ];
    for (egress, ingress, pass) in cases {
        let records = [
            limits(101, egress, packets(0)),
            limits(102, packets(0), ingress),
        ];
        let mut one = rig(true, &records);
        let sent = by_large(&mut one, &Packet::to(2), &payload(1448 * 20), 1448, BUFFERS);
        assert_eq!(sent.len(), pass);
        let mut other = rig(true, &records);
        let segments = by_segments(&mut other, &Packet::to(2), &payload(1448 * 20), 1448);
        assert_eq!(sent, segments);
        let dropped = one.datapath.counters().dropped(DropReason::RateLimit);
        assert_eq!(dropped, 20 - pass as u64);
        assert_eq!(one.datapath.counters(), other.datapath.counters());
    }
}

#[test]
fn a_queue_without_room_is_waited_for_once_and_the_rest_is_counted() {
    let packet = Packet::to(3);
    let frame = packet.large(&payload(1448 * 10));
    for (room, later, sent, waits) in [(4, 0, 4, 1), (4, 3, 7, 2), (4, 6, 10, 1), (10, 0, 10, 0)] {
        let mut rig = rig(true, &[]);
        let mut queue = Queue::new(room);
        queue.later = later;
        let whole = process_large(&mut rig, &packet, (&frame, 1448), BUFFERS, &mut queue);
        assert_eq!((whole, queue.sent.len(), queue.waits), (None, sent, waits));
        let dropped = rig.datapath.counters().dropped(DropReason::QueueFull);
        assert_eq!(dropped, 10 - sent as u64);
    }
}

#[test]
fn a_large_frame_that_is_not_what_it_says_is_dropped() {
    let packet = Packet::to(3);
    let good = packet.large(&payload(5000));
    let six = packet.clone().six();
    let good_six = six.large(&payload(5000));
    let changes: [(&Packet, usize, u8); 9] = [
        // Version, header length, length, a fragment, protocol, TCP's header length.
        (&packet, 18, 0x65),
        (&packet, 18, 0x46),
        (&packet, 21, 1),
        (&packet, 24, 0x20),
        (&packet, 27, 17),
        (&packet, 38 + 12, 0x40),
        (&packet, 13, 1),
        // Next header, length.
        (&six, 24, 0),
        (&six, 23, 0),
    ];
    let dropped = |packet: &Packet, frame: &[u8], size, buffers| {
        let mut rig = rig(true, &[]);
        let mut queue = Queue::new(usize::MAX);
        let whole = process_large(&mut rig, packet, (frame, size), buffers, &mut queue);
        assert_eq!((whole, &queue.sent), (None, &vec![]));
        assert_eq!(rig.datapath.counters().dropped(DropReason::BadOffload), 1);
    };
    for (packet, at, byte) in changes {
        let mut frame = match packet.source {
            IpAddr::V4(_) => good.clone(),
            IpAddr::V6(_) => good_six.clone(),
        };
        frame[at] = byte;
        dropped(packet, &frame, 1448, BUFFERS);
    }
    // Of the other version; cut short; a byte more than the packet has.
    dropped(&six, &good, 1448, BUFFERS);
    dropped(&packet, &good[..4999], 1448, BUFFERS);
    dropped(&packet, &[&good[..], &[0]].concat(), 1448, BUFFERS);
    // The first segment is in two buffers; no size; more segments than anyone needs.
    let short = Buffers {
        first: 1448 + 18 + 52 - 1,
        others: 1600,
    };
    dropped(&packet, &good, 1448, short);
    dropped(&packet, &good, 0, BUFFERS);
    dropped(&packet, &good, 9, BUFFERS);
}
