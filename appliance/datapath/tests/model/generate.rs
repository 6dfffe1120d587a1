//! Cases: a topology with parts missing, then traffic and changes of the tables.
//!
//! Numbers are drawn small and mean something by the universe, so a failing case
//! shrinks towards its first stations and to a whole topology. Strategies are boxed,
//! since the trees of nested ones are kilobytes that would be moved about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::*;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::client::Damage;
use crate::converse::Turn;
use crate::packet::{Arp, Body, Defect, Dhcp4, Dhcp6, Frame, Ip, Transport};
use crate::rules::{Arrival, Outer, Tag};
use crate::world::{self, NETWORKS, STATIONS, VLANS, VTEPS};

/// One generated case.
#[derive(Debug, Clone)]
pub struct Case {
    /// Which records of the topology are missing, by bit.
    pub missing: u64,
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
    let groups = (0u8..16, any::<bool>());
    let limit = prop_oneof![2 => Just(None), 1 => (1u32..4).prop_map(Some)];
    let memory = (any::<bool>(), 0u32..3, limit);
    (missing, groups, memory, vec(step(), 1..16)).prop_map(
        |(missing, (stateful, default), (trunk_checksum, flows, limit), steps)| Case {
            missing,
            stateful,
            default,
            limit,
            trunk_checksum,
            flows: 4 << (2 * flows),
            steps,
        },
    )
}

fn times() -> BoxedStrategy<usize> {
    prop_oneof![60 => Just(2usize), 20 => Just(1), 20 => Just(3), 1 => Just(60)].boxed()
}

fn step() -> BoxedStrategy<Step> {
    prop_oneof![
        20 => (tag(), trunk_frame(), prop::bool::weighted(0.2), times()).prop_map(
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
        3 => prop_oneof![6 => 0u64..20, 1 => 0u64..31]
            .prop_map(|exponent| Step::Wait { nanos: 1_000_000 << exponent }),
    ]
    .boxed()
}

fn turn() -> BoxedStrategy<Turn> {
    const FLAGS: [u8; 7] = [0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14];
    prop_oneof![
        4 => (0usize..7).prop_map(|flags| Turn::Again { flags: FLAGS[flags] }),
        8 => (0usize..7).prop_map(|flags| Turn::Answer { flags: FLAGS[flags] }),
        2 => Just(Turn::First),
        4 => (prop_oneof![Just(1u16), Just(2), 3u16..200], any::<bool>())
            .prop_map(|(offset, more)| Turn::Later { offset, more }),
        3 => (0usize..7, 0u8..3, prop_oneof![Just(8usize), Just(7), Just(100), 0usize..2000])
            .prop_map(|(kind, code, shown)| Turn::Error {
                kind: [3u8, 11, 1, 2, 4, 12, 5][kind],
                code,
                shown,
            }),
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
    ]
    .boxed()
}

fn record() -> BoxedStrategy<Record> {
    let small = || (0usize..12, 0usize..12, 0usize..12, any::<bool>());
    (0usize..20, small())
        .prop_map(|(kind, (a, b, c, flag))| match kind {
            0 => world::vap(a, b, c % 4 == 1, flag),
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
fn trunk_frame() -> BoxedStrategy<(usize, Frame)> {
    let sender = (0..VLANS, prop::bool::weighted(0.04));
    let padding = prop_oneof![3 => Just(0usize), 1 => 0usize..40];
    (sender, destination(), 0usize..6, body(), padding)
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
                choice => world::mac(world::station(network, choice)),
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

/// A body but for what depends on who sends it.
#[derive(Debug, Clone)]
enum Draft {
    Ip {
        six: bool,
        source: Option<(usize, usize)>,
        destination: (usize, usize),
        ip: Ip,
    },
    Arp {
        arp: Arp,
        network: Option<usize>,
        target: usize,
        forged: bool,
    },
    Plain(Body),
}

impl Draft {
    fn is_six(&self) -> bool {
        matches!(self, Draft::Ip { six: true, .. })
    }

    fn from(self, network: usize, index: usize, source_mac: Mac) -> Body {
        match self {
            Draft::Ip {
                six,
                source,
                destination,
                ip,
            } => {
                let own = world::address(network, world::station(network, index), six);
                let ip = Ip {
                    source: source.map_or(own, |at| any_address(at, six)),
                    destination: any_address(destination, six),
                    ..ip
                };
                Body::Ip(match ip.transport {
                    Transport::Neighbor { .. } if six => as_neighbor(ip, destination, source_mac),
                    Transport::Solicitation { .. } if six => {
                        as_solicitation(ip, destination, source_mac)
                    }
                    Transport::Dhcp4(message) if !six => as_client4(
                        Ip {
                            transport: Transport::Other(17),
                            ..ip
                        },
                        *message,
                        destination,
                        network,
                        source_mac,
                    ),
                    Transport::Dhcp6(message) if six => as_client6(
                        Ip {
                            transport: Transport::Other(17),
                            ..ip
                        },
                        *message,
                        destination,
                        network,
                        source_mac,
                    ),
                    Transport::Neighbor { .. }
                    | Transport::Solicitation { .. }
                    | Transport::Dhcp4(_)
                    | Transport::Dhcp6(_) => Ip {
                        transport: Transport::Other(47),
                        ..ip
                    },
                    _ => ip,
                })
            }
            Draft::Arp {
                arp,
                network: other,
                target,
                forged,
            } => {
                let own = world::address(network, world::station(network, index), false);
                let near = other.unwrap_or(network);
                let target = match target {
                    at @ 0..STATIONS => world::address(near, world::station(near, at), false),
                    at @ 4..6 => world::gateway_address(at, near, false),
                    at => any_address((at, at), false),
                };
                let v4 = |ip| match ip {
                    IpAddr::V4(ip) => ip,
                    IpAddr::V6(_) => unreachable!("version 4 was asked for"),
                };
                Body::Arp(Arp {
                    sender_mac: if forged { world::mac(77) } else { source_mac },
                    sender_ip: match arp.sender_ip {
                        probe if probe.is_broadcast() => Ipv4Addr::UNSPECIFIED,
                        _ => v4(own),
                    },
                    target_ip: v4(target),
                    ..arp
                })
            }
            Draft::Plain(body) => body,
        }
    }
}

/// A neighbor message about the address that the packet was to go to.
fn as_neighbor(ip: Ip, (_, odd): (usize, usize), own: Mac) -> Ip {
    let IpAddr::V6(target) = ip.destination else {
        unreachable!("of version 6")
    };
    let advertisement = matches!(
        ip.transport,
        Transport::Neighbor {
            advertisement: true,
            ..
        }
    );
    let [.., a, b, c] = target.octets();
    let [a, b, c] = [a, b, c].map(u16::from);
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a, b << 8 | c);
    let target = if advertisement && odd % 3 > 0 {
        match ip.source {
            IpAddr::V6(own) => own,
            IpAddr::V4(_) => target,
        }
    } else {
        target
    };
    Ip {
        source: match odd {
            1..4 if !advertisement => Ipv6Addr::UNSPECIFIED.into(),
            _ => ip.source,
        },
        destination: if odd == 11 {
            ip.destination
        } else {
            group.into()
        },
        hop_limit: if odd == 10 { 254 } else { 255 },
        payload: if odd == 9 { 3 } else { 0 },
        transport: Transport::Neighbor {
            advertisement,
            target,
            link: match odd {
                1..3 => None,
                8 => Some(world::mac(77)),
                _ => Some(own),
            },
        },
        ..ip
    }
}

/// A router solicitation, right but for few.
fn as_solicitation(ip: Ip, (_, odd): (usize, usize), own: Mac) -> Ip {
    let nowhere = matches!(odd, 1 | 2);
    Ip {
        source: match nowhere {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => ip.source,
        },
        destination: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2).into(),
        hop_limit: if odd == 10 { 254 } else { 255 },
        payload: if odd == 9 { 3 } else { 0 },
        transport: Transport::Solicitation {
            link: match odd {
                1 | 5 => None,
                8 => Some(world::mac(77)),
                _ => Some(own),
            },
        },
        ..ip
    }
}

/// Addresses that the draft of a client's message has for those that depend on who
/// sends it: the first of the network, or a bit of what is next to it.
fn near4(drawn: Ipv4Addr, network: usize) -> Ipv4Addr {
    let [_, _, kind, host] = drawn.octets();
    let host = usize::from(host);
    let ip = match kind {
        0 => return Ipv4Addr::UNSPECIFIED,
        1 => world::address(network, world::station(network, host % 2), false),
        2 => world::gateway_address(host, network, false),
        3 => return Ipv4Addr::new(169, 254, 0, 67),
        _ => world::outside(host as u8, false),
    };
    match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => unreachable!("version 4 was asked for"),
    }
}

fn near6(drawn: Ipv6Addr, network: usize) -> Ipv6Addr {
    let [.., kind, host] = drawn.octets();
    let ip = match kind {
        0..2 => world::address(
            network,
            world::station(network, usize::from(host % 2)),
            true,
        ),
        _ => world::outside(host, true),
    };
    match ip {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(_) => unreachable!("version 6 was asked for"),
    }
}

fn as_client4(
    ip: Ip,
    message: Dhcp4,
    (a, odd): (usize, usize),
    network: usize,
    source_mac: Mac,
) -> Ip {
    let near = |ip| near4(ip, network);
    let client = near(message.client);
    Ip {
        source: match client.is_unspecified() && odd > 0 {
            true => Ipv4Addr::UNSPECIFIED.into(),
            false => ip.source,
        },
        destination: match a {
            0..3 => world::gateway_address(a % 2, network, false),
            3 => ip.destination,
            _ => Ipv4Addr::BROADCAST.into(),
        },
        payload: 0,
        transport: Transport::Dhcp4(Box::new(Dhcp4 {
            client,
            mac: if odd == 11 {
                world::mac(77)
            } else {
                source_mac
            },
            requested: message.requested.map(near),
            server: message.server.map(near),
            ..message
        })),
        ..ip
    }
}

fn as_client6(
    ip: Ip,
    message: Dhcp6,
    (a, odd): (usize, usize),
    network: usize,
    source_mac: Mac,
) -> Ip {
    let near = |ip: &mut Ipv6Addr| *ip = near6(*ip, network);
    let mut message = message;
    for (_, addresses) in &mut message.associations {
        addresses.iter_mut().for_each(near);
    }
    Ip {
        source: match odd {
            0 => Ipv6Addr::UNSPECIFIED.into(),
            1..4 => ip.source,
            _ => world::link_local(source_mac).into(),
        },
        destination: match a {
            0 => ip.destination,
            _ => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2).into(),
        },
        payload: 0,
        transport: Transport::Dhcp6(Box::new(message)),
        ..ip
    }
}

fn any_address((a, b): (usize, usize), six: bool) -> IpAddr {
    match a {
        0..12 => world::address(a, world::station(a, b), six),
        12..14 => world::gateway_address(a, b, six),
        14..17 => world::outside((b % 2) as u8, six),
        _ => world::special(b, six),
    }
}

fn body() -> BoxedStrategy<Draft> {
    prop_oneof![
        12 => ip(),
        3 => arp(),
        1 => (0usize..4).prop_map(|kind| Draft::Plain(match kind {
            0 => Body::Other(0x88b5),
            1 => Body::Tagged(0x8100),
            2 => Body::Tagged(0x88a8),
            _ => Body::Other(0x0026),
        })),
    ]
    .boxed()
}

fn arp() -> BoxedStrategy<Draft> {
    (0usize..12, 0usize..20, 0usize..10)
        .prop_map(|(target, odd, network)| Draft::Arp {
            arp: Arp {
                operation: match odd {
                    1 | 2 => 2,
                    3 => 3,
                    _ => 1,
                },
                sender_mac: Mac::default(),
                // Stands for none: a probe.
                sender_ip: match odd {
                    6..9 => Ipv4Addr::BROADCAST,
                    _ => Ipv4Addr::UNSPECIFIED,
                },
                target_ip: Ipv4Addr::UNSPECIFIED,
                hardware: if odd == 4 { 6 } else { 1 },
            },
            network: (network < NETWORKS).then_some(network),
            target,
            forged: odd == 5,
        })
        .boxed()
}

fn ip() -> BoxedStrategy<Draft> {
    let addresses = (
        any::<bool>(),
        prop_oneof![9 => Just(None), 1 => (0usize..18, 0usize..12).prop_map(Some)],
        (0usize..19, 0usize..12),
    );
    let fields = (
        prop_oneof![6 => Just(64u8), 1 => 0u8..3, 1 => Just(255)],
        prop_oneof![2 => Just(0u8), 1 => any::<u8>()],
        any::<bool>(),
        any::<u16>(),
    );
    let fragment = prop_oneof![
        8 => Just(None),
        1 => Just(Some((0u16, true))),
        1 => (prop_oneof![8 => 1u16..200, 1 => 8000u16..8192], any::<bool>()).prop_map(Some),
    ];
    let options = prop_oneof![6 => Just(0usize), 1 => 0usize..4, 1 => Just(9)];
    let payload = prop_oneof![
        4 => Just(32usize),
        2 => 0usize..100,
        1 => 500usize..700,
        1 => 1200usize..1600,
    ];
    let defect = prop_oneof![
        40 => Just(None),
        1 => Just(Some(Defect::Version)),
        1 => Just(Some(Defect::HeaderLength)),
        1 => Just(Some(Defect::TooLong)),
        1 => Just(Some(Defect::Cut)),
        2 => Just(Some(Defect::Checksum)),
    ];
    let rest = (fragment, options, transport(), payload, defect);
    (addresses, fields, rest)
        .prop_map(
            |((six, source, destination), (hop_limit, traffic_class, dont_fragment, id), rest)| {
                let (fragment, options, transport, payload, defect) = rest;
                let nobody = world::address(0, 1, six);
                Draft::Ip {
                    six,
                    source,
                    destination,
                    ip: Ip {
                        source: nobody,
                        destination: nobody,
                        hop_limit,
                        traffic_class,
                        dont_fragment,
                        fragment,
                        id,
                        // Of IPv6, that is how many there are: some, or too many.
                        options,
                        transport,
                        payload,
                        defect,
                    },
                }
            },
        )
        .boxed()
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(80u16), Just(4000), Just(53), Just(65535)]
}

fn transport() -> BoxedStrategy<Transport> {
    prop_oneof![
        3 => (port(), port()).prop_map(|(source, destination)| Transport::Ports {
            protocol: 17,
            source,
            destination,
        }),
        3 => (port(), port(), 0usize..6).prop_map(|(source, destination, flags)| Transport::Tcp {
            source,
            destination,
            flags: [0x02, 0x12, 0x10, 0x11, 0x04, 0x00][flags],
        }),
        1 => any::<bool>().prop_map(|advertisement| Transport::Neighbor {
            advertisement,
            target: Ipv6Addr::UNSPECIFIED,
            link: None,
        }),
        1 => any::<bool>().prop_map(|six| {
            // A DHCP server's.
            let (source, destination) = if six { (547, 546) } else { (67, 68) };
            Transport::Ports { protocol: 17, source, destination }
        }),
        3 => (0usize..15, 0u16..2, prop_oneof![6 => Just(0u8), 1 => 1u8..3]).prop_map(|(kind, id, code)| {
            // Echo of both versions, errors, and what has no meaning in one of them.
            let kind = [8u8, 128, 0, 129, 3, 11, 1, 2, 13, 130, 131, 134, 137, 14, 139][kind];
            Transport::Icmp { kind, code, id }
        }),
        1 => (0usize..3, port(), port()).prop_map(|(protocol, source, destination)| {
            let protocol = [132, 136, 33][protocol];
            Transport::Ports { protocol, source, destination }
        }),
        1 => (0usize..3).prop_map(|at| Transport::Other([47, 50, 59][at])),
        1 => Just(Transport::Solicitation { link: None }),
        2 => client4(),
        2 => client6(),
    ]
    .boxed()
}

fn damage() -> BoxedStrategy<Option<Damage>> {
    prop_oneof![
        20 => Just(None),
        1 => Just(Some(Damage::Foreign)),
        1 => Just(Some(Damage::Cut)),
    ]
    .boxed()
}

/// Addresses are replaced by those that mean something where it is sent.
fn client4() -> BoxedStrategy<Transport> {
    let kind = prop_oneof![12 => Just(1u8), 12 => Just(3), 1 => Just(4), 1 => Just(7), 3 => Just(8), 1 => 0u8..10];
    let ip = || (1u8..5, 0u8..2).prop_map(|(kind, host)| Ipv4Addr::new(0, 0, kind, host));
    let client = prop_oneof![2 => Just(Ipv4Addr::UNSPECIFIED), 1 => ip()];
    let addresses = (
        client,
        proptest::option::of(ip()),
        proptest::option::of(ip()),
    );
    let parameters = prop_oneof![
        1 => Just(None),
        1 => Just(Some(vec![1, 3, 6, 12, 15, 28, 121])),
        1 => Just(Some(vec![26, 67, 249])),
        1 => vec(any::<u8>(), 0..20).prop_map(Some),
    ];
    let most = prop_oneof![
        Just(None),
        Just(Some(1500)),
        Just(Some(700)),
        any::<u16>().prop_map(Some)
    ];
    let identifier = proptest::option::of(vec(any::<u8>(), 0..9));
    let odd = (
        prop::bool::weighted(0.03),
        any::<u32>(),
        any::<bool>(),
        damage(),
    );
    (kind, addresses, parameters, most, identifier, odd)
        .prop_map(
            |(kind, (client, requested, server), parameters, most, identifier, odd)| {
                let (relayed, id, broadcast, damage) = odd;
                Transport::Dhcp4(Box::new(Dhcp4 {
                    kind,
                    id,
                    broadcast,
                    client,
                    relay: if relayed {
                        Ipv4Addr::LOCALHOST
                    } else {
                        Ipv4Addr::UNSPECIFIED
                    },
                    mac: Mac::default(),
                    requested,
                    server,
                    parameters,
                    most,
                    identifier,
                    damage,
                }))
            },
        )
        .boxed()
}

fn client6() -> BoxedStrategy<Transport> {
    let kind = prop_oneof![8 => Just(1u8), 8 => Just(3), 2 => 4u8..7, 1 => 8u8..10, 2 => Just(11), 1 => 0u8..13];
    let client = prop_oneof![12 => Just(Some(vec![0, 1, 2, 3])), 1 => Just(None)];
    // Right, none, and another's; the right one goes with some types alone.
    let server = prop_oneof![8 => Just(2u8), 1 => Just(0), 1 => Just(1)];
    let ip = (0u8..4, 0u8..2).prop_map(|(kind, host)| {
        Ipv6Addr::from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, kind, host])
    });
    let association = (any::<[u8; 4]>(), vec(ip, 0..3));
    let associations = prop_oneof![
        8 => vec(association.clone(), 0..3),
        1 => vec(association, 3..40),
    ];
    let parameters = prop_oneof![Just(None), Just(Some(vec![23, 24])), Just(Some(vec![]))];
    let odd = (any::<bool>(), any::<[u8; 3]>(), damage());
    (kind, client, server, associations, parameters, odd)
        .prop_map(
            |(kind, client, server, associations, parameters, (rapid, id, damage))| {
                let wanted = matches!(kind, 3 | 5 | 8 | 9);
                Transport::Dhcp6(Box::new(Dhcp6 {
                    kind,
                    id,
                    client,
                    server: match server {
                        2 if wanted => Some(vec![0, 3, 0, 1, 0x0e, b's', b'l', b'u', b'i', b'c']),
                        2 | 0 => None,
                        _ => Some(vec![9; 8]),
                    },
                    associations,
                    parameters,
                    rapid,
                    damage,
                }))
            },
        )
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
