//! Frames of VMs, but for what depends on who sends them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::Mac;
use proptest::prelude::*;

use super::clients::{as_client4, as_client6, client4, client6};
use crate::packet::{Arp, Body, Defect, Ip, Transport};
use crate::world::{self, NETWORKS, STATIONS};

/// A body but for what depends on who sends it.
#[derive(Debug, Clone)]
pub(super) enum Draft {
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
    pub(super) fn is_six(&self) -> bool {
        matches!(self, Draft::Ip { six: true, .. })
    }

    pub(super) fn from(self, network: usize, index: usize, source_mac: Mac) -> Body {
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

pub(super) fn any_address((a, b): (usize, usize), six: bool) -> IpAddr {
    match a {
        0..12 => world::address(a, world::station(a, b), six),
        12..14 => world::gateway_address(a, b, six),
        14..17 => world::outside((b % 2) as u8, six),
        _ => world::special(b, six),
    }
}

pub(super) fn body() -> BoxedStrategy<Draft> {
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

/// What asks the NVE for something: router advertisements, or leases.
pub(super) fn asking() -> BoxedStrategy<Draft> {
    let transport = prop_oneof![
        1 => Just((true, Transport::Solicitation { link: None })),
        3 => client4().prop_map(|transport| (false, transport)),
        3 => client6().prop_map(|transport| (true, transport)),
    ];
    (transport, (0usize..12, 0usize..12))
        .prop_map(|((six, transport), destination)| {
            let nobody = world::address(0, 1, six);
            Draft::Ip {
                six,
                source: None,
                destination,
                ip: Ip {
                    source: nobody,
                    destination: nobody,
                    hop_limit: 64,
                    traffic_class: 0,
                    dont_fragment: false,
                    fragment: None,
                    id: 0,
                    options: 0,
                    transport,
                    payload: 0,
                    defect: None,
                },
            }
        })
        .boxed()
}

pub(super) fn port() -> impl Strategy<Value = u16> {
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
