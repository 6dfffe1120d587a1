//! Conversations: a frame without fault, and what goes on from it.

use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::draft::port;
use super::{Edit, Step, edit, times};
use crate::converse::Turn;
use crate::packet::{Body, Frame, Ip, Transport};
use crate::rules::Tag;
use crate::world::{self, GROUPS, NETWORKS, STATIONS, VLANS};

/// Which groups are stateful, whether they are like Neutron's, and a conversation
/// that those of most cases let begin and may end.
pub(super) fn talk() -> BoxedStrategy<(u8, bool, Vec<Step>)> {
    let stateful = prop_oneof![1 => 0u8..16, 3 => Just(15u8)];
    let earlier = prop_oneof![10 => Just(0usize), 1 => 0usize..4];
    let next = prop_oneof![
        1 => first(),
        1 => Just(Step::Refill),
        10 => (earlier, turn(), times())
            .prop_map(|(earlier, turn, times)| Step::Turn { earlier, turn, times }),
        4 => wait().prop_map(|nanos| Step::Wait { nanos }),
        1 => vec(prop_oneof![1 => edit(), 3 => change()], 1..3).prop_map(Step::Change),
    ];
    (
        stateful,
        prop::bool::weighted(0.8),
        first(),
        vec(next, 4..40),
    )
        .prop_map(|(stateful, default, first, next)| {
            let steps = std::iter::once(first).chain(next).collect();
            (stateful, default, steps)
        })
        .boxed()
}

pub(super) fn first() -> BoxedStrategy<Step> {
    (plain_frame(), times())
        .prop_map(|((at, frame), times)| Step::Trunk {
            tag: Tag::Vlan(world::vlan(at).get()),
            frame,
            partial: false,
            times,
        })
        .boxed()
}

/// A change of a rule, most of what Neutron's groups let out; or of a VAP.
pub(super) fn change() -> BoxedStrategy<Edit> {
    let rule = prop_oneof![
        2 => (Just(GROUPS - 1), 0usize..2),
        1 => (0..GROUPS, 0usize..12),
    ];
    let record = prop_oneof![
        4 => rule.prop_map(|(group, index)| world::rule(group, index)),
        1 => (0..VLANS - 1).prop_map(|at| world::vap(at, at / 2, false, true)),
        1 => (0..VLANS - 1, 0usize..8, 0usize..8, 0usize..7)
            .prop_map(|(at, egress, ingress, dscp)| world::qos(at, egress, ingress, dscp)),
    ];
    (record, any::<bool>())
        .prop_map(|(record, put)| match put {
            true => Edit::Put(record),
            false => Edit::Delete(record.key()),
        })
        .boxed()
}

/// Any time, and some about as long as a connection may be idle.
pub(super) fn wait() -> BoxedStrategy<u64> {
    const SECONDS: [u64; 8] = [10, 30, 60, 120, 180, 300, 600, 432_000];
    prop_oneof![
        3 => (0u32..20).prop_map(|exponent| 1_000_000 << exponent),
        4 => (0usize..8, 0u64..3).prop_map(|(at, more)| {
            SECONDS[at] * 1_000_000_000 - 200_000_000 + more * 200_000_000
        }),
    ]
    .boxed()
}

/// Bytes that an error shows of what a packet carries.
fn shown() -> impl Strategy<Value = usize> {
    prop_oneof![2 => Just(8usize), 1 => Just(7), 2 => Just(100), 1 => 0usize..2000]
}

pub(super) fn turn() -> BoxedStrategy<Turn> {
    const FLAGS: [u8; 7] = [0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14];
    prop_oneof![
        4 => (0usize..7).prop_map(|flags| Turn::Again { flags: FLAGS[flags] }),
        8 => (0usize..7).prop_map(|flags| Turn::Answer { flags: FLAGS[flags] }),
        2 => Just(Turn::First),
        1 => Just(Turn::Damaged),
        4 => (prop_oneof![2 => Just(1u16), 2 => Just(2), 2 => 3u16..200, 1 => 8000u16..8192], any::<bool>())
            .prop_map(|(offset, more)| Turn::Later { offset, more }),
        4 => (0usize..7, 0u8..3, shown(), prop::bool::weighted(0.1))
            .prop_map(|(kind, code, shown, astray)| Turn::Error {
                kind: [3u8, 11, 1, 2, 4, 12, 5][kind],
                code,
                shown,
                astray,
            }),
    ]
    .boxed()
}

/// The index of the VAP that sends it, and a frame without fault to a station of any
/// network.
fn plain_frame() -> BoxedStrategy<(usize, Frame)> {
    let ends = (0..VLANS - 1, 0..NETWORKS, 0..STATIONS, any::<bool>());
    (ends, plain_packet())
        .prop_map(|((at, network, index, six), ip)| {
            let (own, source) = (at / 2, world::own_mac(at));
            let itself = network == own && index == at % 2;
            let index = if itself { index + 1 } else { index };
            let address =
                |network, index| world::address(network, world::station(network, index), six);
            let body = Body::Ip(Ip {
                source: address(own, at % 2),
                destination: address(network, index),
                ..ip
            });
            let destination = match network == own {
                true => world::mac(world::station(network, index)),
                false => world::gateway_mac(own.min(network), own, six),
            };
            let frame = Frame {
                destination,
                source,
                body,
                padding: 0,
            };
            (at, frame)
        })
        .boxed()
}

/// A packet without fault, and as yet without addresses.
fn plain_packet() -> BoxedStrategy<Ip> {
    let fragment = prop_oneof![6 => Just(None), 1 => Just(Some((0u16, true)))];
    let transport = prop_oneof![
        4 => (port(), port(), any::<bool>()).prop_map(|(source, destination, opens)| {
            let flags = if opens { 0x02 } else { 0x10 };
            Transport::Tcp { source, destination, flags }
        }),
        2 => (port(), port()).prop_map(|(source, destination)| Transport::Ports {
            protocol: 17,
            source,
            destination,
        }),
        1 => any::<bool>().prop_map(|six| {
            let kind = if six { 128 } else { 8 };
            Transport::Icmp { kind, code: 0, id: 1 }
        }),
        1 => Just(Transport::Other(47)),
    ];
    let payload = prop_oneof![8 => Just(32usize), 1 => 1200usize..1480];
    (fragment, transport, any::<u16>(), payload, any::<bool>())
        .prop_map(|(fragment, transport, id, payload, dont_fragment)| Ip {
            source: Ipv4Addr::UNSPECIFIED.into(),
            destination: Ipv4Addr::UNSPECIFIED.into(),
            hop_limit: 64,
            traffic_class: 0,
            dont_fragment,
            fragment,
            id,
            options: 0,
            transport,
            payload,
            defect: None,
        })
        .boxed()
}
