//! The universe of the generated cases: small, so that everything collides.
//!
//! Network `n` has the stations `2n+1` and `2n+2` here, `n+11` behind PEER and
//! `n+21` behind OTHER. Router 1 joins networks 0 and 1, router 2 joins 1 and 2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::*;

pub const UPLINK_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
pub const VTEP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
/// Way to VTEPs outside of the prefix.
pub const WAY_OUT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const VTEPS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(192, 0, 2, 12),
    Ipv4Addr::new(192, 0, 2, 13),
    // Behind the way out.
    Ipv4Addr::new(198, 51, 100, 7),
];
pub const NETWORKS: usize = 3;
/// Stations of a network, in the order of [`station`].
pub const STATIONS: usize = 4;
pub const VLANS: usize = 2 * NETWORKS + 1;
const MTUS: [u16; 6] = [1450, 1400, 1280, 600, 68, 20];

pub fn vni(network: usize) -> Vni {
    const IDS: [u32; NETWORKS] = [5001, 0, Vni::MAX];
    Vni::new(IDS[network % NETWORKS]).unwrap()
}

/// Tag of a VAP; the last one is no network's at first.
pub fn vlan(index: usize) -> Vlan {
    Vlan::new(101 + (index % VLANS) as u16).unwrap()
}

pub fn mtu(index: usize) -> u16 {
    MTUS[index % MTUS.len()]
}

pub fn mac(station: u8) -> Mac {
    Mac([0x02, 0, 0, 0, 0, station])
}

/// Number of a network's station: two are here, two elsewhere.
pub fn station(network: usize, index: usize) -> u8 {
    let network = (network % NETWORKS) as u8;
    match index % STATIONS {
        0 => 2 * network + 1,
        1 => 2 * network + 2,
        2 => network + 11,
        _ => network + 21,
    }
}

pub fn address(network: usize, host: u8, six: bool) -> IpAddr {
    let network = (network % NETWORKS) as u8;
    match six {
        false => Ipv4Addr::new(10, 0, network, host).into(),
        true => Ipv6Addr::new(0xfd00, 0, 0, u16::from(network), 0, 0, 0, u16::from(host)).into(),
    }
}

pub fn router(index: usize) -> RouterId {
    RouterId([1 + (index % 2) as u8; 16])
}

/// As in Neutron, the subnets of each version have an interface of their own.
pub fn gateway_mac(router: usize, network: usize, six: bool) -> Mac {
    let (router, network) = ((router % 2) as u8, (network % NETWORKS) as u8);
    Mac([0x02, 0xff, 0, u8::from(six), router, network])
}

/// Address of a router's interface on a network.
pub fn gateway_address(router: usize, network: usize, six: bool) -> IpAddr {
    address(network, 254 - (router % 2) as u8, six)
}

/// A router's interface. The first network's may have a wider prefix, which
/// holds the next network's too.
pub fn gateway(at: usize, network: usize, six: bool, shape: usize) -> Record {
    let ip = gateway_address(at, network, six);
    let length = match (six, shape % 3, network % NETWORKS) {
        (false, 1, 0) => 23,
        (false, 2, _) => 25,
        (false, ..) => 24,
        (true, 1, 0) => 48,
        (true, 2, _) => 127,
        (true, ..) => 64,
    };
    Record::Gateway(Gateway {
        vni: vni(network),
        ip,
        prefix: Prefix::around(ip, length).unwrap(),
        mac: gateway_mac(at, network, six),
        router: router(at),
    })
}

/// A route whose destination is around an address of the universe.
pub fn route(at: usize, to: usize, next: (usize, usize), six: bool) -> Record {
    let (ip, length) = match (to % 6, six) {
        (0, false) => (Ipv4Addr::UNSPECIFIED.into(), 0),
        (0, true) => (Ipv6Addr::UNSPECIFIED.into(), 0),
        (1, false) => (outside(0, six), 16),
        (1, true) => (outside(0, six), 48),
        (2, false) => (outside(0, six), 32),
        (2, true) => (outside(0, six), 128),
        (3, false) => (address(2, 1, six), 24),
        (3, true) => (address(2, 1, six), 64),
        (4, false) => (address(1, 3, six), 32),
        (4, true) => (address(1, 3, six), 128),
        (_, false) => (address(0, 1, six), 8),
        (_, true) => (address(0, 1, six), 16),
    };
    let (network, host) = next;
    Record::Route(Route {
        router: router(at),
        destination: Prefix::around(ip, length).unwrap(),
        next_hop: address(network, station(network, host), six),
    })
}

/// RFC 4291, appendix A.
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let octets = [
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ];
    octets.into()
}

/// The network and the index of the station with an address.
pub fn owner(ip: IpAddr) -> Option<(usize, usize)> {
    let all = (0..NETWORKS).flat_map(|network| (0..STATIONS).map(move |index| (network, index)));
    let mut own = all.filter(|(network, index)| {
        address(*network, station(*network, *index), ip.is_ipv6()) == ip
    });
    own.next()
}

/// An address of no network here.
pub fn outside(host: u8, six: bool) -> IpAddr {
    match six {
        false => Ipv4Addr::new(172, 16, 5, host).into(),
        true => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)).into(),
    }
}

/// Addresses with a meaning of their own.
pub fn special(index: usize, six: bool) -> IpAddr {
    let text = match (index % 7, six) {
        (0, false) => "0.0.0.0",
        (1, false) => "255.255.255.255",
        (2, false) => "224.0.0.251",
        (3, false) => "127.0.0.1",
        (4, false) => "169.254.169.254",
        (5, false) => "0.1.2.3",
        (_, false) => "240.0.0.1",
        (0, true) => "::",
        (1, true) => "::1",
        (2, true) => "ff02::1",
        (3, true) => "fe80::1",
        (4, true) => "ff0e::5",
        (5, true) => "::ffff:10.0.0.1",
        (_, true) => "fec0::1",
    };
    text.parse().unwrap()
}

/// MAC addresses: stations, gateways, groups and such that nobody may have.
pub fn any_mac(index: usize) -> Mac {
    match index % 32 {
        at @ 0..12 => mac(station(at / 4, at)),
        at @ 12..18 => gateway_mac(at / 3, at, at == 17),
        18 | 19 => Mac::BROADCAST,
        20 => Mac([0x33, 0x33, 0, 0, 0, 1]),
        21 => Mac([0x01, 0, 0x5e, 0, 0, 0xfb]),
        22 => Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]),
        23 => Mac([0x01, 0x80, 0xc2, 0, 0, 0x10]),
        24 => Mac([0; 6]),
        at => mac(at as u8 + 30),
    }
}

pub fn vap(at: usize, network: usize, other_mac: bool, port_security: bool) -> Record {
    let at = at % VLANS;
    let station = station(at / 2, at % 2) + if other_mac { 100 } else { 0 };
    Record::Vap(Vap {
        vlan: vlan(at),
        port: PortId([at as u8; 16]),
        vni: vni(network),
        // Each VAP has addresses of its own: which of two VAPs with one address is
        // found is unspecified.
        mac: mac(if at == VLANS - 1 { 99 } else { station }),
        port_security,
        presence: Presence::Active,
    })
}

/// A VAP of the topology whose VM moves to here, or away.
pub fn moving(at: usize, presence: usize) -> Record {
    let at = at % VLANS;
    with_presence(vap(at, at / 2, false, at % 3 != 1), presence)
}

/// A VAP's record with one of three presences.
pub fn with_presence(record: Record, presence: usize) -> Record {
    let all = [Presence::Active, Presence::Standby, Presence::Departed];
    match record {
        Record::Vap(vap) => Record::Vap(Vap {
            presence: all[presence % all.len()],
            ..vap
        }),
        other => other,
    }
}

pub fn own_mac(at: usize) -> Mac {
    match at % VLANS {
        at if at == VLANS - 1 => mac(99),
        at => mac(station(at / 2, at % 2)),
    }
}

/// An address that a VAP may use: its own, or a pair.
pub fn pair(at: usize, whose: Mac, shape: usize, six: bool) -> Record {
    let host = address(at / 2, station(at / 2, shape % STATIONS), six);
    let length = match (shape / STATIONS, six) {
        (0, false) => 32,
        (0, true) => 128,
        (1, false) => 24,
        (1, true) => 64,
        _ => 0,
    };
    Record::Address(Address {
        vlan: vlan(at),
        mac: whose,
        prefix: Prefix::around(host, length).unwrap(),
        fixed: shape.is_multiple_of(2),
    })
}

pub const GROUPS: usize = 4;

pub fn group(at: usize) -> GroupId {
    GroupId([1 + (at % GROUPS) as u8; 16])
}

pub fn binding(at: usize, group_at: usize) -> Record {
    Record::Binding(Binding {
        vlan: vlan(at),
        group: group(group_at),
    })
}

/// Rules 0 to 3 of each group allow all, in each direction and version; the others
/// are narrower.
pub fn rule(group_at: usize, index: usize) -> Record {
    let index = index % 12;
    let six = index % 2 == 1;
    let egress = (index / 2).is_multiple_of(2);
    let (protocol, low, high) = match index / 4 {
        0 => (None, 0, u16::MAX),
        1 => (Some(6), 80, 4000),
        _ if six => (Some(58), 128 << 8, 128 << 8),
        _ => (Some(1), 8 << 8, (8 << 8) + 255),
    };
    let near = address(group_at, 0, six);
    Record::Rule(Rule {
        id: RuleId([(16 * (group_at % GROUPS) + index) as u8; 16]),
        group: group(group_at),
        direction: if egress {
            Direction::Egress
        } else {
            Direction::Ingress
        },
        family: if six { Family::Ipv6 } else { Family::Ipv4 },
        protocol,
        low,
        high,
        remote: match (index / 4, egress) {
            (0, _) => Remote::Any,
            (1, true) if group_at.is_multiple_of(2) => Remote::Any,
            (1, _) => Remote::Group(group(group_at + 1)),
            _ => Remote::Prefix(Prefix::around(near, if six { 64 } else { 23 }).unwrap()),
        },
    })
}

pub fn member(group_at: usize, network: usize, index: usize, six: bool) -> Record {
    let host = address(network, station(network, index), six);
    let length = match (index / STATIONS, six) {
        (0, false) => 32,
        (0, true) => 128,
        (_, false) => 24,
        (_, true) => 64,
    };
    Record::Member(Member {
        group: group(group_at),
        prefix: Prefix::around(host, length).unwrap(),
    })
}

/// Limits that are met by few frames, and marks; some that no table takes.
pub fn qos(at: usize, egress: usize, ingress: usize, dscp: usize) -> Record {
    Record::Qos(Qos {
        vlan: vlan(at),
        egress: limit(egress),
        ingress: limit(ingress),
        dscp: [None, None, Some(0), Some(46), Some(63), Some(10), Some(64)][dscp % 7],
    })
}

fn limit(shape: usize) -> Limit {
    let (kbps, burst_kbit, pps, burst_packets) = [
        (0, 0, 0, 0),
        (0, 0, 5, 1),
        (0, 0, 1000, 3),
        (8, 1, 0, 0),
        (100, 2, 0, 0),
        (1_000_000, 20, 2, 4),
        (1, 0, 1, 0),
        (u32::MAX, u32::MAX, u32::MAX, u32::MAX),
    ][shape % 8];
    Limit {
        kbps,
        burst_kbit,
        pps,
        burst_packets,
    }
}

/// The subnet of a network, or with another shape a part of it.
pub fn subnet(network: usize, six: bool, shape: usize) -> Record {
    let length = match (six, shape / 6) {
        (false, 1) => 25,
        (false, _) => 24,
        (true, 1) => 127,
        (true, _) => 64,
    };
    let modes = [
        Some(Ipv6Mode::Slaac),
        Some(Ipv6Mode::Dhcpv6Stateful),
        Some(Ipv6Mode::Dhcpv6Stateless),
        None,
    ];
    let mode = modes[(network + shape) % 4].filter(|_| six);
    let router = if network.is_multiple_of(NETWORKS) {
        0
    } else {
        1
    };
    Record::Subnet(Subnet {
        vni: vni(network),
        prefix: Prefix::around(address(network, 1, six), length).unwrap(),
        dhcp: shape % 6 != 5,
        gateway: (shape % 6 != 4).then(|| gateway_address(router, network, six)),
        ra_mode: mode.filter(|_| shape % 6 != 3),
        address_mode: mode,
    })
}

fn prefix_of(subnet: &Record) -> Prefix {
    match subnet {
        Record::Subnet(subnet) => subnet.prefix,
        _ => unreachable!("a subnet"),
    }
}

pub fn dns(network: usize, six: bool, index: usize) -> Record {
    Record::Dns(Dns {
        vni: vni(network),
        subnet: prefix_of(&subnet(network, six, 0)),
        index: (index % 20) as u8,
        // Some are of the other version, and some the same.
        server: outside(index as u8 % 10, six != (index % 5 == 4)),
    })
}

pub fn host_route(network: usize, to: usize) -> Record {
    let destination = match to % 5 {
        0 => Prefix::around(Ipv4Addr::UNSPECIFIED.into(), 0),
        1 => Prefix::around(outside(0, false), 17),
        2 => Prefix::around(outside(0, true), 32),
        3 => Prefix::around(outside(9, false), 32),
        _ => Prefix::around(address(network + 1, 0, false), 8),
    };
    Record::HostRoute(HostRoute {
        vni: vni(network),
        subnet: prefix_of(&subnet(network, false, 0)),
        destination: destination.unwrap(),
        next_hop: address(network, 77, to == 7),
    })
}

/// A piece of a port's own option of DHCP.
pub fn dhcp_option(at: usize, code: usize, part: usize, six: bool) -> Record {
    let long = [b'x'; OptionValue::MAX];
    let (code, value): (u16, &[u8]) = match (six, code % 12) {
        (false, 0) => (51, &[0, 0, 0x0e, 0x10]),
        (false, 1) => (26, &[5, 0]),
        (false, 2) => (12, b"vm"),
        (false, 3) => (66, b"192.0.2.9"),
        (false, 4) => (67, &long),
        (false, 5) => (3, b""),
        (false, 6) => (53, &[9]),
        (false, 7) => (300, &[1]),
        (false, 8) => (58, &[0]),
        (false, 9) => (66, b"boot.example"),
        (false, _) => (15, &long),
        (true, 0) => (23, &[0xfd; 16]),
        (true, 1) => (24, b"\x01a\x00"),
        (true, 2) => (59, &long),
        (true, 3) => (1, &[1, 2, 3]),
        (true, 4) => (23, b""),
        (true, _) => (1000, &long),
    };
    Record::DhcpOption(DhcpOption {
        vlan: vlan(at),
        family: if six { Family::Ipv6 } else { Family::Ipv4 },
        code,
        part: part as u8,
        value: OptionValue::new(value).unwrap(),
    })
}

pub fn neighbor(network: usize, index: usize, six: bool) -> Record {
    let host = station(network, index);
    Record::Neighbor(Neighbor {
        vni: vni(network),
        ip: address(network, host, six),
        mac: mac(host),
    })
}

pub fn fdb(network: usize, station: Mac, vtep: usize) -> Record {
    Record::Fdb(Fdb {
        vni: vni(network),
        mac: station,
        vtep: VTEPS[vtep % VTEPS.len()].into(),
    })
}

pub fn flood(network: usize, vtep: usize) -> Record {
    Record::Flood(Flood {
        vni: vni(network),
        vtep: VTEPS[vtep % VTEPS.len()].into(),
    })
}

pub fn peer(network: usize, vtep: usize) -> Record {
    Record::Peer(Peer {
        vni: vni(network),
        vtep: VTEPS[vtep % VTEPS.len()].into(),
    })
}

/// A topology in which everything works. `stateful` says which groups are, by bit;
/// `default` has all VAPs in a group as Neutron makes one: out to anyone, in from
/// few.
pub fn topology(stateful: u8, default: bool) -> Vec<Record> {
    let mut records = Vec::new();
    for network in 0..NETWORKS {
        for index in 0..2 {
            let at = 2 * network + index;
            records.push(vap(at, network, false, at % 3 != 1));
            records.push(pair(at, own_mac(at), index, false));
            records.push(pair(at, own_mac(at), index, true));
            records.push(flood(network, index));
            records.push(fdb(network, mac(station(network, 2 + index)), index));
        }
        for six in [false, true] {
            for index in 0..STATIONS {
                records.push(neighbor(network, index, six));
            }
            for at in 0..2 {
                if (at..at + 2).contains(&network) {
                    records.push(gateway(at, network, six, 0));
                }
            }
        }
        for six in [false, true] {
            records.push(subnet(network, six, 0));
            records.push(dns(network, six, 0));
        }
        records.push(dns(network, true, 1));
        records.push(peer(network, 2));
        records.push(Record::Network(Network {
            vni: vni(network),
            mtu: mtu(network),
        }));
    }
    for at in 0..GROUPS {
        records.push(Record::Group(Group {
            group: group(at),
            stateful: stateful >> at & 1 == 1,
        }));
        // The first allows all, others nothing but what is narrow, and the last what
        // VMs send.
        let rules = if at == 0 { 0..4 } else { 4..12 };
        records.extend(rules.map(|index| rule(at, index)));
        if at == GROUPS - 1 {
            records.extend((0..2).map(|index| rule(at, index)));
        }
        records.push(member(at, at, 0, false));
        records.push(member(at, at + 1, 5, true));
    }
    for at in 0..VLANS {
        records.push(binding(
            at,
            match (default, at) {
                (true, _) => GROUPS - 1,
                (_, 3) => 1,
                _ => 0,
            },
        ));
    }
    records.push(host_route(0, 1));
    records.push(dhcp_option(0, 2, 0, false));
    for six in [false, true] {
        records.push(route(0, 1, (1, 2), six));
        records.push(route(0, 3, (1, 3), six));
    }
    records
}
