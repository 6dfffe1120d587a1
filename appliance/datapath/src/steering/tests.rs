extern crate std;

use std::vec::Vec;

use etherparse::{IpFragOffset, Ipv4Header, Ipv6FragmentHeader, PacketBuilder, VlanId};
use nve_protocol::inspect::{Origin, ProbeHead};
use proptest::prelude::*;

use super::*;

const PROCESSORS: usize = 5;

fn steering() -> Steering {
    Steering::new(PROCESSORS, 0x1234_5678_9abc)
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Tcp,
    Udp,
    Echo,
    LaterFragment,
}

/// A packet between the stations `from` and `to`, behind an Ethernet header.
fn frame(tagged: bool, six: bool, kind: Kind, from: u8, to: u8) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, from], [2, 0, 0, 0, 0, to]);
    let mut frame = Vec::new();
    let payload = [7; 30];
    let number = |kind| match kind {
        Kind::Udp => etherparse::IpNumber::UDP,
        _ => etherparse::IpNumber::TCP,
    };
    let v4 = [from, to].map(|last| [10, 0, 0, last]);
    let v6 = [from, to].map(|last| {
        let mut address = [0x20; 16];
        address[15] = last;
        address
    });
    macro_rules! transport {
        ($ip:expr) => {
            match kind {
                Kind::Tcp => $ip.tcp(1, 2, 3, 4).write(&mut frame, &payload),
                Kind::Udp => $ip.udp(1, 2).write(&mut frame, &payload),
                Kind::Echo if six => $ip.icmpv6_echo_request(1, 2).write(&mut frame, &payload),
                Kind::Echo => $ip.icmpv4_echo_reply(1, 2).write(&mut frame, &payload),
                Kind::LaterFragment => $ip.write(&mut frame, number(kind), &payload),
            }
        };
    }
    macro_rules! network {
        ($link:expr) => {
            match (six, kind) {
                (true, Kind::LaterFragment) => {
                    let mut ip = etherparse::Ipv6Header::default();
                    (ip.source, ip.destination) = (v6[0], v6[1]);
                    let extensions = etherparse::Ipv6Extensions {
                        fragment: Some(Ipv6FragmentHeader::new(
                            etherparse::IpNumber::UDP,
                            IpFragOffset::try_new(8).unwrap(),
                            false,
                            9,
                        )),
                        ..Default::default()
                    };
                    transport!($link.ip(etherparse::IpHeaders::Ipv6(ip, extensions)))
                }
                (true, _) => transport!($link.ipv6(v6[0], v6[1], 64)),
                (false, _) => {
                    let mut ip = Ipv4Header::new(0, 64, number(kind), v4[0], v4[1]).unwrap();
                    if matches!(kind, Kind::LaterFragment) {
                        ip.fragment_offset = IpFragOffset::try_new(8).unwrap();
                    }
                    transport!($link.ip(etherparse::IpHeaders::Ipv4(ip, Default::default())))
                }
            }
        };
    }
    match tagged {
        true => network!(link.single_vlan(VlanId::try_new(101).unwrap())),
        false => network!(link),
    }
    .unwrap();
    frame
}

/// The same in a tunnel.
fn tunnelled(six: bool, inner: &[u8]) -> Vec<u8> {
    let vxlan = [&[8, 0, 0, 0, 0, 0x13, 0x89, 0][..], inner].concat();
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 3], [2, 0, 0, 0, 0, 4]);
    let mut frame = Vec::new();
    match six {
        true => link
            .ipv6([0xfd; 16], [0xfe; 16], 64)
            .udp(50_000, vxlan::PORT)
            .write(&mut frame, &vxlan),
        false => link
            .ipv4([192, 0, 2, 2], [192, 0, 2, 1], 64)
            .udp(50_000, vxlan::PORT)
            .write(&mut frame, &vxlan),
    }
    .unwrap();
    frame
}

/// An error about the packet of `quoted`, from somebody else to its sender.
fn error(six: bool, quoted: &[u8]) -> Vec<u8> {
    let packet = &quoted[ethernet::HEADER..];
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]);
    let mut frame = Vec::new();
    match six {
        true => {
            let sender = packet[8..24].try_into().unwrap();
            link.ipv6([0x77; 16], sender, 64)
                .icmpv6_raw(3, 0, [0; 4])
                .write(&mut frame, packet)
        }
        false => {
            let sender = packet[12..16].try_into().unwrap();
            link.ipv4([172, 16, 0, 1], sender, 64)
                .icmpv4_raw(11, 0, [0; 4])
                .write(&mut frame, packet)
        }
    }
    .unwrap();
    frame
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Tcp),
        Just(Kind::Udp),
        Just(Kind::Echo),
        Just(Kind::LaterFragment),
    ]
}

proptest! {
    #[test]
    fn all_packets_between_two_addresses_have_one_owner(
        six: bool,
        outer: bool,
        kinds in (kinds(), kinds()),
        (a, b) in (1u8.., 1u8..),
    ) {
        let steering = steering();
        let there = steering.place(Side::Trunk, &frame(true, six, kinds.0, a, b));
        prop_assert!(matches!(there, Place::Owner(0..PROCESSORS)), "{there:?}");
        let answer = frame(false, six, kinds.1, b, a);
        let back = steering.place(Side::Uplink, &tunnelled(outer, &answer));
        prop_assert_eq!(there, back);
        let probe = Probe {
            origin: Origin::Vap { vlan: nve_protocol::Vlan::new(1).unwrap() },
            length: answer.len() as u16,
            head: ProbeHead::front(&answer),
        };
        prop_assert_eq!(there, steering.place_of(&probe));
        let told = error(six, &frame(false, six, Kind::Udp, a, b));
        prop_assert_eq!(there, steering.place(Side::Uplink, &tunnelled(outer, &told)));
    }

    #[test]
    fn nothing_that_comes_in_does_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        damage in proptest::collection::vec((0usize..100, any::<u8>()), 1..6),
        cut in 0usize..100,
    ) {
        let steering = steering();
        let mut frame = tunnelled(false, &frame(false, true, Kind::Echo, 1, 2));
        for (at, byte) in damage {
            frame[at] = byte;
        }
        frame.truncate(frame.len() - cut);
        for frame in [&bytes, &frame] {
            for side in [Side::Trunk, Side::Uplink] {
                if let Place::Owner(owner) = steering.place(side, frame) {
                    prop_assert!(owner < PROCESSORS);
                }
            }
        }
    }
}

#[test]
fn what_is_for_the_nve_is_for_the_first() {
    let steering = steering();
    let arp = [&[0xff; 6][..], &[2; 6], &[8, 6], &[0; 28]].concat();
    let ping = frame(false, false, Kind::Echo, 1, 2);
    let other_port = frame(false, false, Kind::Udp, 1, 2);
    for frame in [arp.clone(), ping, other_port] {
        assert_eq!(steering.place(Side::Uplink, &frame), Place::First);
    }
    assert_eq!(steering.place(Side::Trunk, &arp), Place::Anywhere);
}

#[test]
fn pairs_are_spread_evenly() {
    let steering = steering();
    let mut owners = [0; PROCESSORS];
    for from in 1..=50 {
        for to in 100..=140 {
            let frame = frame(true, false, Kind::Tcp, from, to);
            if let Place::Owner(owner) = steering.place(Side::Trunk, &frame) {
                owners[owner] += 1;
            }
        }
    }
    let all: usize = owners.iter().sum();
    assert_eq!(all, 50 * 41);
    for count in owners {
        let share = count * PROCESSORS * 100 / all;
        assert!((70..130).contains(&share), "{owners:?}");
    }
}
