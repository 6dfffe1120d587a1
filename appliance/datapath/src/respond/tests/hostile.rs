//! Any bytes: no panic, and what is answered parses and goes back to the sender.

use std::vec;

use nve_protocol::{Ipv6Mode, Network, Subnet};
use proptest::prelude::*;

use super::*;
use crate::icmp;
use crate::packet::quoted;

/// A network with all services, and a VAP of either kind.
fn rig(trusted: bool) -> Rig {
    let mut rig = Rig::new();
    for (prefix, mode) in [
        ("10.0.0.0/24", None),
        ("2001:db8::/64", Some(Ipv6Mode::Dhcpv6Stateful)),
    ] {
        rig.put(Record::Subnet(Subnet {
            vni: vni(),
            prefix: prefix.parse().unwrap(),
            dhcp: true,
            gateway: None,
            ra_mode: mode,
            address_mode: mode,
        }));
    }
    rig.put(Record::Network(Network {
        vni: vni(),
        mtu: 1400,
    }));
    if trusted { rig.trusted() } else { rig }
}

fn udp(six: bool, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2(mac(1).0, [0xff; 6]);
    let packet = match six {
        true => {
            let source = wire_nd::link_local(mac(1)).octets();
            ethernet.ipv6(source, v6("ff02::1:2").octets(), 1)
        }
        false => ethernet.ipv4([0; 4], [255; 4], 64),
    };
    let packet = packet.udp(ports.0, ports.1);
    packet.write(&mut frame, payload).unwrap();
    frame
}

fn seeds() -> Vec<Vec<u8>> {
    let mut discover = vec![1, 1, 6, 0, 1, 2, 3, 4];
    discover.resize(28, 0);
    discover.extend(mac(1).0);
    discover.resize(236, 0);
    discover.extend([
        99, 130, 83, 99, 53, 1, 1, 55, 3, 1, 3, 121, 61, 2, 1, 2, 255,
    ]);
    let solicit = [1, 9, 9, 9, 0, 1, 0, 4, 0, 3, 0, 1, 0, 3, 0, 12];
    let solicit = [&solicit[..], &[0; 12]].concat();
    let target = v6("2001:db8::2").octets();
    let neighbor = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target].concat();
    let mut ping = Vec::new();
    PacketBuilder::ethernet2(mac(1).0, ROUTER.0)
        .ipv4(v4(1).octets(), v4(254).octets(), 3)
        .icmpv4_echo_request(7, 8)
        .write(&mut ping, &[1; 30])
        .unwrap();
    vec![
        arp(Operation::Request, (mac(1), v4(1)), v4(2)),
        icmp6(mac(1), v6("2001:db8::1"), v6("2001:db8::2"), &neighbor),
        icmp6(mac(1), v6("::"), v6("ff02::2"), &[133, 0, 0, 0, 0, 0, 0, 0]),
        udp(false, (68, 67), &discover),
        udp(true, (546, 547), &solicit),
        ping,
    ]
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let seed = prop::sample::select(seeds());
    let mutated = (seed, edits, any::<u8>()).prop_map(|(mut frame, edits, cut)| {
        for (at, value) in edits {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        // Mostly whole frames.
        if cut < 32 {
            frame.truncate(usize::from(cut) * 4);
        }
        frame
    });
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 12..300), 6 => mutated]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_bytes(frame in frame(), trusted: bool) {
        prop_assume!(frame.len() >= 12);
        let mut rig = rig(trusted);
        if rig.send(&frame) == Ok(Answer::Reply) {
            let reply = Headers::parse(rig.reply.bytes()).unwrap();
            let sent = Headers::parse(&frame).unwrap();
            let group = reply.destination.is_multicast();
            // ARP goes to the sender in the packet, which may lie if it is trusted.
            prop_assert!(group || trusted || reply.destination == sent.source);
            prop_assert!(reply.source.is_unicast());
            if let Some(ip) = reply.ip {
                prop_assert_eq!(ip.end, rig.reply.bytes().len());
            }
        }
        let Ok(headers) = Headers::parse(&frame) else {
            return Ok(());
        };
        let mut turned = frame.clone();
        if echo::turn(&mut turned, &headers).is_ok() {
            prop_assert_eq!(turned.len(), frame.len());
        } else {
            prop_assert_eq!(&turned, &frame);
        }
        for gateway in rig.tables.gateways(vni()) {
            let mut reply = Reply::new();
            if icmp::error(icmp::Error::NoRoute, &headers, &frame, gateway, &mut reply) {
                let ip = Headers::parse(reply.bytes()).unwrap().ip.unwrap();
                let quote = quoted(reply.bytes(), ip.transport + 8);
                prop_assert!(quote.is_ok() || quote == Err(DropReason::MalformedTransport));
            }
        }
    }
}
