//! Errors against those of another library, and when there are none.

extern crate std;
use std::vec;
use std::vec::Vec;

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder};
use etherparse::{icmpv4, icmpv6};
use nve_protocol::{Mac, RouterId, Vni};

use super::*;
use crate::Nanos;

const VM: Mac = Mac([2, 0, 0, 0, 0, 1]);
const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn gateway(six: bool) -> Gateway {
    let (ip, prefix) = match six {
        true => ("2001:db8::fe", "2001:db8::/64"),
        false => ("10.0.0.254", "10.0.0.0/24"),
    };
    Gateway {
        vni: Vni::new(1).unwrap(),
        ip: ip.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
        mac: ROUTER,
        router: RouterId([1; 16]),
    }
}

fn packet(six: bool, length: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2(VM.0, ROUTER.0);
    let packet = match six {
        true => ethernet.ipv6(address("2001:db8::1"), address("2001:db8:1::1"), 1),
        false => ethernet.ipv4([10, 0, 0, 1], [10, 1, 0, 1], 1),
    };
    let packet = packet.udp(1000, 33434);
    packet.write(&mut frame, &vec![0x5a; length]).unwrap();
    frame
}

fn address(text: &str) -> [u8; 16] {
    text.parse::<core::net::Ipv6Addr>().unwrap().octets()
}

fn told(kind: Error, frame: &[u8]) -> Option<Vec<u8>> {
    let headers = Headers::parse(frame).unwrap();
    let six = headers.ip.unwrap().source.is_ipv6();
    let mut reply = Reply::new();
    error(kind, &headers, frame, &gateway(six), &mut reply).then(|| reply.bytes().to_vec())
}

#[test]
fn ipv4_errors_are_those_of_another_library() {
    use DestUnreachableHeader::*;
    let next_hop_mtu = 1400;
    for (kind, wanted) in [
        (
            Error::HopLimit,
            Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
        ),
        (Error::NoRoute, Icmpv4Type::DestinationUnreachable(Network)),
        (Error::NoNeighbor, Icmpv4Type::DestinationUnreachable(Host)),
        (
            Error::Protocol,
            Icmpv4Type::DestinationUnreachable(Protocol),
        ),
        (Error::Port, Icmpv4Type::DestinationUnreachable(Port)),
        (
            Error::TooBig { mtu: 1400 },
            Icmpv4Type::DestinationUnreachable(FragmentationNeeded { next_hop_mtu }),
        ),
    ] {
        for length in [0, 3, 700, 1400] {
            let frame = packet(false, length);
            let mut expected = Vec::new();
            let quote = &frame[14..frame.len().min(14 + 548)];
            PacketBuilder::ethernet2(ROUTER.0, VM.0)
                .ipv4([10, 0, 0, 254], [10, 0, 0, 1], 64)
                .icmpv4(wanted.clone())
                .write(&mut expected, quote)
                .unwrap();
            // The library sets "don't fragment" and leaves the precedence alone.
            expected[15] = 0xc0;
            expected[20] = 0;
            expected[24..26].fill(0);
            let sum = crate::checksum::of(&expected[14..34]);
            expected[24..26].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(told(kind, &frame).unwrap(), expected, "{kind:?} {length}");
        }
    }
}

#[test]
fn ipv6_errors_are_those_of_another_library() {
    use icmpv6::DestUnreachableCode::*;
    let problem = icmpv6::ParameterProblemHeader {
        code: icmpv6::ParameterProblemCode::UnrecognizedNextHeader,
        pointer: 6,
    };
    for (kind, wanted) in [
        (
            Error::HopLimit,
            Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
        ),
        (Error::NoRoute, Icmpv6Type::DestinationUnreachable(NoRoute)),
        (
            Error::NoNeighbor,
            Icmpv6Type::DestinationUnreachable(Address),
        ),
        (Error::Protocol, Icmpv6Type::ParameterProblem(problem)),
        (Error::Port, Icmpv6Type::DestinationUnreachable(Port)),
        (
            Error::TooBig { mtu: 1400 },
            Icmpv6Type::PacketTooBig { mtu: 1400 },
        ),
    ] {
        for length in [0, 3, 1400] {
            let frame = packet(true, length);
            let mut expected = Vec::new();
            let quote = &frame[14..frame.len().min(14 + 1232)];
            PacketBuilder::ethernet2(ROUTER.0, VM.0)
                .ipv6(address("2001:db8::fe"), address("2001:db8::1"), 64)
                .icmpv6(wanted)
                .write(&mut expected, quote)
                .unwrap();
            assert_eq!(told(kind, &frame).unwrap(), expected, "{kind:?} {length}");
        }
    }
}

#[test]
fn there_are_errors_about_pings_and_none_about_errors() {
    let icmp = |kind: Icmpv4Type| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(VM.0, ROUTER.0)
            .ipv4([10, 0, 0, 1], [10, 1, 0, 1], 1)
            .icmpv4(kind)
            .write(&mut frame, &[0; 40])
            .unwrap();
        frame
    };
    let icmp6 = |kind: Icmpv6Type| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(VM.0, ROUTER.0)
            .ipv6(address("2001:db8::1"), address("2001:db8:1::1"), 1)
            .icmpv6(kind)
            .write(&mut frame, &[0; 40])
            .unwrap();
        frame
    };
    let echo = etherparse::IcmpEchoHeader { id: 1, seq: 2 };
    for frame in [
        icmp(Icmpv4Type::EchoRequest(echo)),
        icmp(Icmpv4Type::EchoReply(echo)),
        icmp6(Icmpv6Type::EchoRequest(echo)),
        icmp6(Icmpv6Type::EchoReply(echo)),
    ] {
        assert!(told(Error::HopLimit, &frame).is_some());
        assert_eq!(told(Error::Protocol, &frame), None);
    }
    let host = DestUnreachableHeader::Host;
    for frame in [
        icmp(Icmpv4Type::DestinationUnreachable(host)),
        icmp(Icmpv4Type::TimeExceeded(
            icmpv4::TimeExceededCode::TtlExceededInTransit,
        )),
        icmp6(Icmpv6Type::PacketTooBig { mtu: 1280 }),
        icmp6(Icmpv6Type::TimeExceeded(
            icmpv6::TimeExceededCode::HopLimitExceeded,
        )),
    ] {
        assert_eq!(told(Error::HopLimit, &frame), None);
    }
}

#[test]
fn what_is_not_between_two_stations_is_not_told() {
    let four: [(usize, &[u8]); 9] = [
        // Group as Ethernet receiver; broadcast and multicast as receiver.
        (0, &[0xff; 6]),
        (30, &[255; 4]),
        (30, &[224, 0, 0, 1]),
        // Sources that are no station.
        (26, &[0; 4]),
        (26, &[127, 0, 0, 1]),
        (26, &[224, 0, 0, 1]),
        (26, &[255; 4]),
        // A later fragment.
        (20, &[0, 1]),
        (6, &[3, 0, 0, 0, 0, 1]),
    ];
    for (at, bytes) in four {
        let mut frame = packet(false, 100);
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(told(Error::NoRoute, &frame), None, "byte {at}");
    }
    let mut fragmentable = packet(false, 1400);
    fragmentable[20] = 0;
    assert_eq!(told(Error::TooBig { mtu: 1300 }, &fragmentable), None);
    let group = [&[0xff, 2][..], &[0; 13], &[5]].concat();
    let mut frame = packet(true, 1400);
    frame[38..54].copy_from_slice(&group);
    assert_eq!(told(Error::HopLimit, &frame), None);
    assert!(told(Error::TooBig { mtu: 1300 }, &frame).is_some());
    frame[22..38].fill(0);
    assert_eq!(told(Error::TooBig { mtu: 1300 }, &frame), None);
}

#[test]
fn link_local_senders_hear_from_the_link_local_address() {
    let mut frame = packet(true, 10);
    frame[22..38].copy_from_slice(&address("fe80::1"));
    let reply = told(Error::NoRoute, &frame).unwrap();
    assert_eq!(reply[22..38], nd::link_local(ROUTER).octets());
}

#[test]
fn errors_are_limited() {
    let mut meter = limiter();
    let mut admitted = |nanos| meter.admit(Nanos(nanos), 0);
    assert_eq!((0..1000).filter(|_| admitted(0)).count(), 50);
    assert_eq!((0..1000).filter(|_| admitted(1_000_000)).count(), 1);
    let second = (1..=100_000).filter(|i| admitted(1_000_000 + i * 10_000));
    assert_eq!(second.count(), 1000);
}

proptest::proptest! {
    #[test]
    fn errors_parse_whatever_they_are_about(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 14..1600),
        six: bool,
    ) {
        let mut frame = bytes;
        frame[12..14].copy_from_slice(if six { &[0x86, 0xdd] } else { &[8, 0] });
        if frame.len() > 40 {
            let length = (frame.len() - 14) as u16;
            frame[14] = if six { 0x60 } else { 0x45 };
            match six {
                true => frame[18..20].copy_from_slice(&(length.saturating_sub(40)).to_be_bytes()),
                false => frame[16..18].copy_from_slice(&length.to_be_bytes()),
            }
        }
        if let Ok(headers) = Headers::parse(&frame) {
            for kind in [Error::HopLimit, Error::TooBig { mtu: 1400 }] {
                let mut reply = Reply::new();
                for gateway in [gateway(false), gateway(true)] {
                    if error(kind, &headers, &frame, &gateway, &mut reply) {
                        let told = Headers::parse(reply.bytes()).unwrap().ip.unwrap();
                        assert_eq!(told.destination, headers.ip.unwrap().source);
                        assert_eq!(told.end, reply.bytes().len());
                    }
                }
            }
        }
    }
}
