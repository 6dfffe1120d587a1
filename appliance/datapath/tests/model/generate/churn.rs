//! Conversations during which the tables change all the time: before nearly every
//! packet something comes, goes or comes back, most of it no concern of the packet.

use proptest::collection::vec;
use proptest::prelude::*;

use super::talk::{change, first, wait};
use super::{Edit, Step, edit, times};
use crate::converse::Turn;
use crate::world::{self, GROUPS, NETWORKS, STATIONS, VLANS};

/// Which groups are stateful, whether they are like Neutron's, and the steps.
pub(super) fn churn() -> BoxedStrategy<(u8, bool, Vec<Step>)> {
    let edits = prop_oneof![2 => vec(edited(), 0..3), 1 => Just(by_members())];
    let begin = (vec(first(), 1..4), edits);
    let packet = prop_oneof![
        1 => first(),
        12 => (0usize..6, turn(), times())
            .prop_map(|(earlier, turn, times)| Step::Turn { earlier, turn, times }),
        1 => wait().prop_map(|nanos| Step::Wait { nanos }),
    ];
    let next = prop_oneof![
        12 => vec(edited(), 1..3).prop_map(Step::Change),
        1 => Just(Step::Refill),
    ];
    let steps = vec((next, vec(packet, 1..4)), 2..16);
    (0u8..16, any::<bool>(), begin, steps)
        .prop_map(|(stateful, default, (begin, edits), steps)| {
            let begin = std::iter::once(Step::Change(edits)).chain(begin);
            let after = steps.into_iter().flat_map(|(next, packets)| {
                let packets = packets.into_iter();
                std::iter::once(next).chain(packets)
            });
            (stateful, default, begin.chain(after).collect())
        })
        .boxed()
}

/// Most of the time the same packet or an answer to it.
fn turn() -> BoxedStrategy<Turn> {
    prop_oneof![
        6 => Just(Turn::Again { flags: 0x10 }),
        4 => Just(Turn::Answer { flags: 0x10 }),
        1 => super::turn(),
    ]
    .boxed()
}

/// What the topology has goes, or comes back.
fn edited() -> BoxedStrategy<Edit> {
    let toggled = (0usize..256, 0u8..16, any::<bool>(), any::<bool>());
    let toggled = toggled.prop_map(|(at, stateful, default, put)| {
        let topology = world::topology(stateful, default);
        let record = topology[at % topology.len()];
        match put {
            true => Edit::Put(record),
            false => Edit::Delete(record.key()),
        }
    });
    let member = (0..GROUPS, 0..NETWORKS, 0..STATIONS, any::<bool>());
    let member = (member, any::<bool>()).prop_map(|((group, network, index, six), put)| {
        let record = world::member(group, network, index, six);
        match put {
            true => Edit::Put(record),
            false => Edit::Delete(record.key()),
        }
    });
    prop_oneof![6 => toggled, 3 => member, 2 => edit(), 1 => change()].boxed()
}

/// What VMs may do depends on who is in a group: all stations are, at first.
fn by_members() -> Vec<Edit> {
    let moved = (0..VLANS).flat_map(|at| {
        let others = [0, GROUPS - 1].map(|group| Edit::Delete(world::binding(at, group).key()));
        others.into_iter().chain([Edit::Put(world::binding(at, 1))])
    });
    let stations = (0..NETWORKS).flat_map(|network| {
        (0..2 * STATIONS).map(move |at| {
            let (index, six) = (at % STATIONS, at / STATIONS == 1);
            Edit::Put(world::member(2, network, index, six))
        })
    });
    moved.chain(stations).collect()
}
