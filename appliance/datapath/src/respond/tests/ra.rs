//! Router solicitations and advertisements.

use std::string::String;
use std::vec;

use nve_protocol::{Dns, Ipv6Mode, Network, Subnet};

use super::*;
use crate::Nanos;
use crate::respond::ra::Rounds;

fn subnet(rig: &mut Rig, prefix: &str, ra_mode: Option<Ipv6Mode>) {
    rig.put(Record::Subnet(Subnet {
        vni: vni(),
        prefix: prefix.parse().unwrap(),
        dhcp: true,
        gateway: None,
        ra_mode,
        address_mode: ra_mode,
    }));
}

fn gateway(rig: &mut Rig, ip: &str, mac: Mac) {
    let ip: IpAddr = ip.parse().unwrap();
    rig.put(Record::Gateway(Gateway {
        vni: vni(),
        ip,
        prefix: Prefix::around(ip, 64).unwrap(),
        mac,
        router: RouterId([7; 16]),
    }));
}

fn solicit(from: &str) -> Vec<u8> {
    let mut message = vec![133, 0, 0, 0, 0, 0, 0, 0];
    if from != "::" {
        message.extend(wire_nd::source_link(mac(1)));
    }
    icmp6(mac(1), v6(from), v6("ff02::2"), &message)
}

/// The ICMPv6 message of the reply, its checksum held against another library's.
fn advertisement(rig: &Rig) -> Vec<u8> {
    let bytes = rig.reply.bytes();
    let headers = Headers::parse(bytes).unwrap();
    let ip = headers.ip.unwrap();
    assert_eq!(ip.source, IpAddr::V6(wire_nd::link_local(headers.source)));
    assert_eq!((ip.hop_limit, ip.end), (255, bytes.len()));
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (ip.source, ip.destination) else {
        panic!("{ip:?}");
    };
    let message = bytes[ip.transport..].to_vec();
    let wanted = icmp6(headers.source, source, destination, &message);
    assert_eq!(wanted[54..], message);
    message
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| std::format!("{byte:02x}"))
        .collect()
}

#[test]
fn an_advertisement_tells_all_of_the_network() {
    let mut rig = Rig::new();
    assert_eq!(rig.send(&solicit("::")), Ok(Answer::Pass));
    subnet(&mut rig, "2001:db8::/64", Some(Ipv6Mode::Slaac));
    rig.put(Record::Network(Network {
        vni: vni(),
        mtu: 1450,
    }));
    rig.put(Record::Dns(Dns {
        vni: vni(),
        subnet: "2001:db8::/64".parse().unwrap(),
        index: 0,
        server: v6("2001:db8::53").into(),
    }));
    assert_eq!(rig.send(&solicit("fe80::ff:fe00:1")), Ok(Answer::Reply));
    assert_eq!(rig.reply.bytes()[..12], [mac(1).0, ROUTER.0].concat());
    let message = advertisement(&rig);
    assert_eq!(hex(&message[..2]), "8600");
    assert_eq!(
        hex(&message[4..]),
        [
            // Hop limit 64, no flags, lifetime 300, timers of the hosts.
            "4000012c0000000000000000",
            // Source link-layer address, MTU 1450.
            "0101fa163e000001",
            "05010000000005aa",
            // DNS server for 300 seconds.
            "190300000000012c20010db8000000000000000000000053",
            // Prefix, on-link and autonomous, 86400 and 14400 seconds.
            "030440c0000151800000384000000000",
            "20010db8000000000000000000000000",
        ]
        .concat()
    );
}

#[test]
fn modes_decide_the_flags() {
    for (mode, flags, prefix) in [
        (Ipv6Mode::Slaac, 0, 0xc0),
        (Ipv6Mode::Dhcpv6Stateless, 0x40, 0xc0),
        (Ipv6Mode::Dhcpv6Stateful, 0x80, 0x80),
    ] {
        let mut rig = Rig::new();
        subnet(&mut rig, "2001:db8::/64", Some(mode));
        assert_eq!(rig.send(&solicit("::")), Ok(Answer::Reply));
        assert_eq!(rig.reply.bytes()[..6], [0x33, 0x33, 0, 0, 0, 1]);
        let message = advertisement(&rig);
        assert_eq!((message[5], message.len()), (flags, 16 + 8 + 32));
        assert_eq!(message[24 + 3], prefix, "{mode:?}");
    }
    let mut rig = Rig::new();
    subnet(&mut rig, "2001:db8::/64", None);
    assert_eq!(rig.send(&solicit("::")), Ok(Answer::Pass));
}

#[test]
fn each_router_advertises_its_own_subnets() {
    let mut rig = Rig::new();
    for prefix in ["2001:db8::/64", "2001:db8:1::/64", "2001:db8:2::/64"] {
        subnet(&mut rig, prefix, Some(Ipv6Mode::Slaac));
    }
    gateway(&mut rig, "2001:db8:1::fe", ROUTER);
    gateway(&mut rig, "2001:db8:2::fe", mac(8));
    gateway(&mut rig, "2001:db8:3::fe", mac(9));
    let second = Vap {
        vlan: Vlan::new(7).unwrap(),
        mac: mac(3),
        ..rig.vap
    };
    rig.put(Record::Vap(second));
    let elsewhere = Vap {
        vlan: Vlan::new(4094).unwrap(),
        vni: Vni::new(9).unwrap(),
        ..rig.vap
    };
    rig.put(Record::Vap(elsewhere));
    let mut rounds = Rounds::default();
    let mut told = Vec::new();
    let mut now = Nanos(5);
    let end = Nanos(now.0 + 199_000_000_000);
    while now < end {
        while let Some(vlan) = rounds.next(&rig.tables, now, &mut rig.reply) {
            assert_eq!(rig.reply.bytes()[..6], [0x33, 0x33, 0, 0, 0, 1]);
            let router = Headers::parse(rig.reply.bytes()).unwrap().source;
            told.push((vlan.get(), router, (advertisement(&rig).len() - 24) / 32));
        }
        assert!(rounds.due() > now);
        now = rounds.due();
    }
    let both = |vlan| [(vlan, ROUTER, 2), (vlan, mac(8), 1)];
    assert_eq!(told, [both(7), both(101), both(7), both(101)].concat());
}

#[test]
fn all_routers_answer_a_solicitation() {
    let mut rig = Rig::new();
    for prefix in ["2001:db8::/64", "2001:db8:2::/64"] {
        subnet(&mut rig, prefix, Some(Ipv6Mode::Slaac));
    }
    gateway(&mut rig, "2001:db8:2::fe", mac(8));
    // Of no subnet that is advertised.
    gateway(&mut rig, "2001:db8:3::fe", mac(9));
    let mut told = Vec::new();
    assert_eq!(rig.send(&solicit("::")), Ok(Answer::Reply));
    loop {
        let router = Headers::parse(rig.reply.bytes()).unwrap().source;
        told.push((router, advertisement(&rig)[40..].to_vec()));
        if !rig.send_more(&solicit("::"), told.len()) {
            break;
        }
    }
    let prefix = |last| [0x20, 1, 0xd, 0xb8, 0, last, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    assert_eq!(told, [(ROUTER, prefix(0)), (mac(8), prefix(2))]);
    // Others have one answer.
    let ask = arp(Operation::Request, (mac(1), v4(1)), v4(2));
    assert_eq!(rig.send(&ask), Ok(Answer::Reply));
    assert!(!rig.send_more(&ask, 1));
}

#[test]
fn without_vaps_nobody_is_told() {
    let tables = Tables::new(TableSizes::uniform(1));
    let mut rounds = Rounds::default();
    assert_eq!(rounds.next(&tables, Nanos(0), &mut Reply::new()), None);
    assert_eq!(rounds.due(), Nanos(100_000_000_000));
}
