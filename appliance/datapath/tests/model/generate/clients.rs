//! What clients of DHCP ask: right for the most part.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::Mac;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::client::{Damage, Dhcp4, Dhcp6};
use crate::packet::{Ip, Transport};
use crate::world;

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

pub(super) fn as_client4(
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

pub(super) fn as_client6(
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

fn damage() -> BoxedStrategy<Option<Damage>> {
    prop_oneof![
        20 => Just(None),
        1 => Just(Some(Damage::Foreign)),
        1 => Just(Some(Damage::Cut)),
    ]
    .boxed()
}

/// Addresses are replaced by those that mean something where it is sent.
pub(super) fn client4() -> BoxedStrategy<Transport> {
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

pub(super) fn client6() -> BoxedStrategy<Transport> {
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
