//! What VMs may send from.

use std::vec;

use super::*;
use crate::spoof::Source;

/// What the check makes of an untagged frame.
fn source<'t>(rig: &'t Rig, frame: &[u8]) -> Result<Source<'t>, DropReason> {
    let headers = Headers::parse(frame).unwrap();
    spoof::source(&rig.tables, &rig.vap, &headers, frame)
}

fn udp(from: Mac, addresses: (&str, &str), ports: (u16, u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2(from.0, mac(2).0);
    let packet = match (addresses.0.parse().unwrap(), addresses.1.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("{addresses:?}"),
    };
    let packet = packet.udp(ports.0, ports.1);
    packet.write(&mut frame, &[0; 8]).unwrap();
    frame
}

/// With a pair of another MAC address and a block each of IPv4 and IPv6.
fn rig() -> Rig {
    let mut rig = Rig::new();
    for prefix in ["192.0.2.0/24", "2001:db8:2::/48"] {
        rig.put(Record::Address(Address {
            vlan: rig.vap.vlan,
            mac: mac(7),
            prefix: prefix.parse().unwrap(),
            fixed: false,
        }));
    }
    rig
}

#[test]
fn sources_are_pairs() {
    let rig = rig();
    let to4 = |from, ip| source(&rig, &udp(from, (ip, "10.0.0.2"), (1000, 53)));
    let to6 = |from, ip| source(&rig, &udp(from, (ip, "2001:db8::2"), (1000, 53)));
    for (from, ip) in [
        (1, "10.0.0.1"),
        (1, VIP),
        (7, "192.0.2.0"),
        (7, "192.0.2.255"),
    ] {
        let Ok(Source::Address(address)) = to4(mac(from), ip) else {
            panic!("{from} {ip}");
        };
        assert!(address.prefix.contains(ip.parse().unwrap()) && address.mac == mac(from));
    }
    for (from, ip) in [
        (1, "10.0.0.2"),
        (7, "10.0.0.1"),
        (1, "192.0.2.1"),
        (7, "192.0.3.0"),
        (1, "0.0.0.0"),
    ] {
        assert_eq!(to4(mac(from), ip), Err(DropReason::SourceIp), "{from} {ip}");
    }
    for (from, ip) in [(1, "2001:db8::1"), (7, "2001:db8:2:ffff::9")] {
        assert!(matches!(to6(mac(from), ip), Ok(Source::Address(_))));
    }
    for (from, ip) in [(1, "2001:db8:2::1"), (7, "2001:db8::1"), (1, "::")] {
        assert_eq!(to6(mac(from), ip), Err(DropReason::SourceIp), "{from} {ip}");
    }
    assert_eq!(to4(mac(3), "10.0.0.1"), Err(DropReason::SourceMac));
    assert_eq!(to6(mac(3), "2001:db8::1"), Err(DropReason::SourceMac));
}

#[test]
fn link_local_addresses_go_with_their_mac() {
    let rig = rig();
    for last in [1, 7] {
        let own = std::format!("fe80::ff:fe00:{last}");
        let frame = |from| udp(from, (&own, "ff02::fb"), (5353, 5353));
        assert_eq!(
            source(&rig, &frame(mac(last))),
            Ok(Source::LinkLocal(mac(last)))
        );
        assert_eq!(
            source(&rig, &frame(mac(8 - last))),
            Err(DropReason::SourceIp)
        );
    }
}

#[test]
fn only_dhcp_clients_have_no_ipv4_address() {
    let mut rig = rig();
    let discover = udp(mac(1), ("0.0.0.0", "255.255.255.255"), (68, 67));
    assert_eq!(source(&rig, &discover), Ok(Source::Unspecified));
    let offer = udp(mac(1), ("10.0.0.1", "255.255.255.255"), (67, 68));
    assert_eq!(source(&rig, &offer), Err(DropReason::DhcpServer));
    let advertise = udp(mac(1), ("fe80::ff:fe00:1", "fe80::1"), (547, 546));
    assert_eq!(source(&rig, &advertise), Err(DropReason::DhcpServer));
    // A pair of everything does not make `0.0.0.0` an address.
    rig.put(Record::Address(Address {
        vlan: rig.vap.vlan,
        mac: mac(1),
        prefix: "0.0.0.0/0".parse().unwrap(),
        fixed: false,
    }));
    let other = udp(mac(1), ("0.0.0.0", "10.0.0.2"), (68, 53));
    assert_eq!(source(&rig, &other), Err(DropReason::SourceIp));
    let any = udp(mac(1), ("203.0.113.1", "10.0.0.2"), (68, 53));
    assert!(matches!(source(&rig, &any), Ok(Source::Address(_))));
}

#[test]
fn icmpv6_without_an_address_is_of_hosts_alone() {
    let rig = Rig::new();
    let frame = |kind: u8, from: &str| {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.extend([0; 16]);
        let length = if kind == 133 { 8 } else { 24 };
        icmp6(mac(1), v6(from), v6("ff02::2"), &message[..length])
    };
    for kind in [131, 132, 133, 143] {
        assert_eq!(source(&rig, &frame(kind, "::")), Ok(Source::Unspecified));
    }
    for kind in [128, 130, 200] {
        let refused = Err(DropReason::SourceIp);
        assert_eq!(source(&rig, &frame(kind, "::")), refused, "{kind}");
    }
    for kind in [134, 137] {
        let refused = Err(DropReason::RouterAdvertisement);
        assert_eq!(source(&rig, &frame(kind, "fe80::ff:fe00:1")), refused);
    }
}

#[test]
fn other_protocols_need_the_mac_and_trusted_ports_nothing() {
    let frame = |from: Mac| [&mac(2).0[..], &from.0, &[0x88, 0xcc], &[0; 46]].concat();
    let rig = rig();
    assert_eq!(source(&rig, &frame(mac(7))), Ok(Source::Mac(mac(7))));
    assert_eq!(source(&rig, &frame(mac(3))), Err(DropReason::SourceMac));
    let rig = rig.trusted();
    for frame in [
        frame(mac(3)),
        udp(mac(3), ("10.0.0.2", "10.0.0.1"), (67, 68)),
        udp(mac(3), ("::", "::1"), (547, 546)),
    ] {
        assert_eq!(source(&rig, &frame), Ok(Source::Unchecked));
    }
}
