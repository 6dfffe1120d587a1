//! Cases: a topology with parts missing, then traffic and changes of the tables.
//!
//! Numbers are drawn small and mean something by the universe, so a failing case
//! shrinks towards its first stations and to a whole topology. Strategies are boxed,
//! since the trees of nested ones are kilobytes that would be moved about.

mod churn;
mod clients;
mod draft;
mod talk;

use nve_protocol::*;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::converse::Turn;
use crate::packet::Frame;
use crate::rules::{Arrival, Outer, Tag};
use crate::world::{self, NETWORKS, STATIONS, VLANS, VTEPS};
use churn::churn;
use draft::{Draft, asking, body};
use talk::{talk, turn, wait};

/// One generated case.
#[derive(Debug, Clone)]
pub struct Case {
    /// Which records of the topology are missing, by bit.
    pub missing: u64,
    /// Records that are put in addition.
    pub more: Vec<Record>,
    /// Which groups are stateful, by bit.
    pub stateful: u8,
    /// Whether groups are like those that Neutron makes by default.
    pub default: bool,
    /// Most connections of a VAP; `None` for more than there will be.
    pub limit: Option<u32>,
    pub trunk_checksum: bool,
    /// Entries of the flow cache: few, so that they replace each other.
    pub flows: u32,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub enum Step {
    /// Changes that come as one.
    Change(Vec<Edit>),
    /// All records again, in tables of their own.
    Refill,
    Trunk {
        tag: Tag,
        frame: Frame,
        /// Whether the transport checksum is left to the NIC.
        partial: bool,
        /// How often: the flow cache knows all but the first.
        times: usize,
    },
    Uplink(Arrival),
    /// What follows from an earlier frame, counted from the newest.
    Turn {
        earlier: usize,
        turn: Turn,
        times: usize,
    },
    Wait {
        nanos: u64,
    },
}

#[derive(Debug, Clone)]
pub enum Edit {
    Put(Record),
    Delete(Key),
}

pub fn case() -> impl Strategy<Value = Case> {
    let missing = prop_oneof![
        3 => Just(0),
        2 => (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(a, b, c)| a & b & c),
    ];
    let limit = prop_oneof![1 => Just(None), 1 => (1u32..4).prop_map(Some)];
    let memory = (any::<bool>(), 0u32..3, limit);
    let more = (prop_oneof![Just(vec![]), vec(record(), 0..8)], moved());
    let more = more.prop_map(|(more, moved)| [moved, more].concat());
    let records = (missing, more);
    let any = (0u8..16, any::<bool>(), vec(step(), 1..16));
    let kinds = prop_oneof![4 => any, 4 => talk(), 3 => churn(), 1 => ask()];
    (records, memory, kinds).prop_map(
        |((missing, more), (trunk_checksum, flows, limit), (stateful, default, steps))| Case {
            missing,
            more,
            stateful,
            default,
            limit,
            trunk_checksum,
            flows: 4 << (2 * flows),
            steps,
        },
    )
}

/// VMs on their way here, or away: their VAPs, and where others find them.
fn moved() -> BoxedStrategy<Vec<Record>> {
    let one = (0..VLANS, 0usize..3, 0usize..5).prop_map(|(at, presence, vtep)| {
        let vap = world::moving(at, presence);
        let fdb = world::fdb(at / 2, world::own_mac(at), vtep);
        // Some are nowhere.
        if vtep < VTEPS.len() {
            vec![vap, fdb]
        } else {
            vec![vap]
        }
    });
    prop_oneof![
        2 => Just(vec![]),
        1 => vec(one, 1..6).prop_map(|all| all.concat()),
    ]
    .boxed()
}

/// VMs that ask the NVE, which is told more and more to tell them.
fn ask() -> BoxedStrategy<(u8, bool, Vec<Step>)> {
    let told = (0usize..6, 0usize..4, 0usize..12, 0usize..24, any::<bool>());
    let told = told.prop_map(|(kind, a, b, c, flag)| match kind {
        0 => world::subnet(a, flag, b),
        1 => world::dns(a, flag, c),
        2 => world::host_route(a, b),
        3 => world::pair(a, world::own_mac(a), c % 12, flag),
        _ => world::dhcp_option(a, b, c % 3, flag),
    });
    let change = vec(told, 1..8).prop_map(|told| told.into_iter().map(Edit::Put).collect());
    let ask = trunk_frame(asking()).prop_map(|(at, frame)| Step::Trunk {
        tag: Tag::Vlan(world::vlan(at).get()),
        frame,
        partial: false,
        times: 1,
    });
    let step = prop_oneof![
        1 => change.prop_map(Step::Change),
        3 => ask,
        1 => vec(edit(), 1..3).prop_map(Step::Change),
    ];
    (0u8..16, any::<bool>(), vec(step, 4..24)).boxed()
}

fn times() -> BoxedStrategy<usize> {
    prop_oneof![60 => Just(2usize), 20 => Just(1), 20 => Just(3), 1 => Just(60)].boxed()
}

fn step() -> BoxedStrategy<Step> {
    prop_oneof![
        20 => (tag(), trunk_frame(body()), prop::bool::weighted(0.2), times()).prop_map(
            |(tag, (at, frame), partial, times)| Step::Trunk {
                tag: tag.unwrap_or(Tag::Vlan(world::vlan(at).get())),
                frame,
                partial,
                times,
            }
        ),
        8 => arrival().prop_map(Step::Uplink),
        20 => (prop_oneof![3 => Just(0usize), 1 => 0usize..4], turn(), times()).prop_map(
            |(earlier, turn, times)| Step::Turn { earlier, turn, times }
        ),
        5 => vec(edit(), 1..4).prop_map(Step::Change),
        1 => Just(Step::Refill),
        4 => wait().prop_map(|nanos| Step::Wait { nanos }),
    ]
    .boxed()
}

/// `None` is the sender's own.
fn tag() -> BoxedStrategy<Option<Tag>> {
    prop_oneof![
        20 => Just(None),
        1 => (0u16..8, 0u16..4).prop_map(|(priority, at)| {
            let vlan = [101, 104, 0, 4095][usize::from(at)];
            Some(Tag::Vlan(priority << 13 | vlan))
        }),
        1 => Just(Some(Tag::None)),
    ]
    .boxed()
}

fn edit() -> BoxedStrategy<Edit> {
    prop_oneof![
        3 => record().prop_map(Edit::Put),
        2 => record().prop_map(|record| Edit::Delete(record.key())),
        2 => (0usize..256).prop_map(|at| {
            let topology = world::topology(0, at % 2 == 0);
            Edit::Delete(topology[at % topology.len()].key())
        }),
        2 => (0usize..256).prop_map(|at| {
            let topology = world::topology(at as u8, at % 2 == 0);
            Edit::Put(topology[at % topology.len()])
        }),
        1 => (0..VLANS, 0usize..3).prop_map(|(at, presence)| Edit::Put(world::moving(at, presence))),
        1 => (0..VLANS, 0..VTEPS.len()).prop_map(|(at, vtep)| {
            Edit::Put(world::fdb(at / 2, world::own_mac(at), vtep))
        }),
    ]
    .boxed()
}

fn record() -> BoxedStrategy<Record> {
    let small = || (0usize..12, 0usize..12, 0usize..12, any::<bool>());
    (0usize..20, small())
        .prop_map(|(kind, (a, b, c, flag))| match kind {
            0 => world::with_presence(world::vap(a, b, c % 4 == 1, flag), c / 4),
            1 => world::fdb(a, world::any_mac(b * 2), c),
            2 => world::neighbor(a, b, flag),
            3 => world::flood(a, b),
            4 => world::peer(a, b),
            5 => Record::Network(Network {
                vni: world::vni(a),
                mtu: world::mtu(b),
            }),
            6 => world::gateway(a, b, flag, c),
            9 => Record::Group(Group {
                group: world::group(a),
                stateful: flag,
            }),
            10 => world::rule(a, b),
            11 => world::member(a, b, c, flag),
            12 => world::binding(a, b),
            7 | 8 => world::pair(
                a,
                if c % 3 == 0 {
                    world::any_mac(b)
                } else {
                    world::own_mac(a)
                },
                c,
                flag,
            ),
            13 | 14 => world::qos(a, b, c, a + b + c),
            15 => world::subnet(a, flag, b),
            16 => world::dns(a, flag, 12 * b + c),
            17 => world::host_route(a, b),
            18 => world::dhcp_option(a, b, c, flag),
            _ => world::route(a, b, (c, a), flag),
        })
        .boxed()
}

/// Which MAC address a frame goes to.
fn destination() -> BoxedStrategy<Option<Mac>> {
    prop_oneof![
        4 => Just(None),
        3 => (0usize..STATIONS).prop_map(|at| Some(world::any_mac(at))),
        2 => (0usize..32).prop_map(|at| Some(world::any_mac(at))),
    ]
    .boxed()
}

/// The index of the VAP that sends it, and the frame.
fn trunk_frame(body: BoxedStrategy<Draft>) -> BoxedStrategy<(usize, Frame)> {
    // The last tag has no VAP at first.
    let at = prop_oneof![30 => 0..VLANS - 1, 1 => Just(VLANS - 1)];
    let sender = (at, prop::bool::weighted(0.04));
    let padding = prop_oneof![3 => Just(0usize), 1 => 0usize..40];
    (sender, destination(), 0usize..6, body, padding)
        .prop_map(|((at, forged), to, network_or_station, body, padding)| {
            let (network, index) = (at / 2, at % 2);
            let source = match forged {
                true => world::any_mac(at * 5),
                false => world::own_mac(at),
            };
            // Towards the gateway, or to a station of the own network.
            let default = match network_or_station {
                choice @ 0..2 => {
                    let router = (network + choice).saturating_sub(1);
                    world::gateway_mac(router, network, body.is_six())
                }
                choice => world::mac(world::station(network, index + 1 + choice % 3)),
            };
            let frame = Frame {
                destination: to.unwrap_or(default),
                source,
                body: body.from(network, index, source),
                padding,
            };
            (at, frame)
        })
        .boxed()
}

fn arrival() -> BoxedStrategy<Arrival> {
    let outer = prop_oneof![
        12 => (any::<bool>(), 0usize..3).prop_map(|(checksum, padding)| Outer::Right {
            checksum,
            padding: padding * 5,
        }),
        1 => (0usize..8).prop_map(|at| match at {
            0 => Outer::OtherStation,
            1 => Outer::OtherAddress,
            2 => Outer::OtherPort,
            3 => Outer::BadChecksum,
            4 => Outer::BadUdpChecksum,
            5 => Outer::BadUdpLength,
            6 => Outer::Fragment,
            _ => Outer::NoVni,
        }),
    ];
    let inner = (destination(), 0usize..2, 0usize..STATIONS, body());
    let tunnelled = (0..VTEPS.len() + 1, 0..NETWORKS + 1, inner, outer).prop_map(
        |(vtep, network, (to, index, from, body), outer)| {
            let source = world::mac(world::station(network, from));
            Arrival::Tunnelled {
                source: *VTEPS.get(vtep).unwrap_or(&world::WAY_OUT),
                vni: match network {
                    NETWORKS => 77,
                    network => world::vni(network).get(),
                },
                inner: Frame {
                    destination: to.unwrap_or(world::mac(world::station(network, index))),
                    source,
                    body: body.from(network, from, source),
                    padding: 0,
                },
                outer,
            }
        },
    );
    let arp = (0usize..5, 0u8..3).prop_map(|(at, mac)| Arrival::Arp {
        ip: match at {
            0 => world::WAY_OUT,
            at => *VTEPS.get(at - 1).unwrap_or(&world::VTEP),
        },
        mac: match mac {
            2 => Mac::BROADCAST,
            mac => Mac([0x52, 0x54, 0, 0, 1, mac]),
        },
    });
    prop_oneof![5 => tunnelled, 1 => arp].boxed()
}
