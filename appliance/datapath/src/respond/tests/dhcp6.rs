//! DHCPv6 dialogues, written and read by hand here.

use std::vec;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nve_protocol::{DhcpOption, Dns, Family, Ipv6Mode, OptionValue, Subnet};

use super::*;

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const REPLY: u8 = 7;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORMATION: u8 = 11;
const CLIENT: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
const SERVER: [u8; 10] = [0, 3, 0, 1, 0x0e, b's', b'l', b'u', b'i', b'c'];
const OWN: &str = "2001:db8::1";

fn rig(mode: Option<Ipv6Mode>) -> Rig {
    let mut rig = Rig::new();
    rig.put(Record::Subnet(Subnet {
        vni: vni(),
        prefix: "2001:db8::/64".parse().unwrap(),
        dhcp: true,
        gateway: None,
        ra_mode: mode,
        address_mode: mode,
    }));
    rig.put(Record::Dns(Dns {
        vni: vni(),
        subnet: "2001:db8::/64".parse().unwrap(),
        index: 0,
        server: v6("2001:db8::53").into(),
    }));
    rig
}

fn stateful() -> Rig {
    rig(Some(Ipv6Mode::Dhcpv6Stateful))
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let length = value.len() as u16;
    [&code.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
}

fn address(ip: &str, lifetime: u32) -> Vec<u8> {
    let lifetime = lifetime.to_be_bytes();
    option(5, &[&v6(ip).octets()[..], &lifetime, &lifetime].concat())
}

fn association(id: u8, times: [u32; 2], options: &[u8]) -> Vec<u8> {
    let [renew, rebind] = times.map(u32::to_be_bytes);
    option(3, &[&[0, 0, 0, id][..], &renew, &rebind, options].concat())
}

/// The association that the VAP gets.
fn leased(id: u8) -> Vec<u8> {
    association(id, [43_200, 69_120], &address(OWN, 86_400))
}

fn message(kind: u8, options: &[Vec<u8>]) -> Vec<u8> {
    [&[kind, 0xab, 0xcd, 0xef][..], &options.concat()].concat()
}

fn frame(to: &str, message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let to = v6(to);
    let source = wire_nd::link_local(mac(1)).octets();
    PacketBuilder::ethernet2(mac(1).0, wire_nd::group_mac(to).0)
        .ipv6(source, to.octets(), 1)
        .udp(546, 547)
        .write(&mut frame, message)
        .unwrap();
    frame
}

fn ask(rig: &mut Rig, kind: u8, options: &[Vec<u8>]) -> Result<Answer, DropReason> {
    rig.send(&frame("ff02::1:2", &message(kind, options)))
}

/// The kind and the options of the reply, which starts with both identifiers.
fn told(rig: &Rig) -> (u8, Vec<u8>) {
    let bytes = rig.reply.bytes();
    let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Udp(udp))) =
        (&sliced.net, &sliced.transport)
    else {
        panic!("no DHCP");
    };
    let header = ip.header().to_header();
    let sum = udp
        .to_header()
        .calc_checksum_ipv6(&header, udp.payload())
        .unwrap();
    assert_eq!(sum, udp.checksum());
    assert_eq!((udp.source_port(), udp.destination_port()), (547, 546));
    assert_eq!(header.source, wire_nd::link_local(SERVER_MAC).octets());
    assert_eq!(header.destination, wire_nd::link_local(mac(1)).octets());
    assert_eq!(bytes[..12], [mac(1).0, SERVER_MAC.0].concat());
    let [kind, 0xab, 0xcd, 0xef, options @ ..] = udp.payload() else {
        panic!("another transaction");
    };
    (*kind, options.to_vec())
}

fn reply(rig: &mut Rig, kind: u8, options: &[Vec<u8>]) -> (u8, Vec<u8>) {
    assert_eq!(ask(rig, kind, options), Ok(Answer::Reply));
    told(rig)
}

/// Both identifiers, then `rest`.
fn identified(rest: &[Vec<u8>]) -> Vec<u8> {
    [option(1, &CLIENT), option(2, &SERVER), rest.concat()].concat()
}

fn dns() -> Vec<u8> {
    option(23, &v6("2001:db8::53").octets())
}

#[test]
fn a_lease_from_solicit_to_release() {
    let mut rig = stateful();
    let (client, server) = (option(1, &CLIENT), option(2, &SERVER));
    let asked = association(7, [0, 0], &[]);
    let advertised = reply(&mut rig, SOLICIT, &[client.clone(), asked.clone()]);
    let wanted = [option(7, &[255]), leased(7), dns()];
    assert_eq!(advertised, (ADVERTISE, identified(&wanted)));
    let rapid = reply(
        &mut rig,
        SOLICIT,
        &[client.clone(), option(14, &[]), asked.clone()],
    );
    let wanted = [option(14, &[]), leased(7), dns()];
    assert_eq!(rapid, (REPLY, identified(&wanted)));
    let both = |rest: Vec<u8>| [client.clone(), server.clone(), rest];
    for kind in [REQUEST, RENEW] {
        let granted = reply(&mut rig, kind, &both(asked.clone()));
        assert_eq!(granted, (REPLY, identified(&[leased(7), dns()])));
    }
    let rebound = reply(&mut rig, REBIND, &[client.clone(), asked.clone()]);
    assert_eq!(rebound, (REPLY, identified(&[leased(7), dns()])));
    for kind in [RELEASE, DECLINE] {
        let ended = reply(&mut rig, kind, &both(leased(7)));
        assert_eq!(ended, (REPLY, identified(&[option(13, &[0, 0])])));
    }
}

#[test]
fn addresses_that_are_not_the_vms_end() {
    let mut rig = stateful();
    let held = [address("2001:db8::2", 100), address(OWN, 100)].concat();
    let renew = [
        option(1, &CLIENT),
        option(2, &SERVER),
        association(7, [0, 0], &held),
    ];
    let both = [address(OWN, 86_400), address("2001:db8::2", 0)].concat();
    let wanted = [association(7, [43_200, 69_120], &both), dns()];
    assert_eq!(reply(&mut rig, RENEW, &renew), (REPLY, identified(&wanted)));
}

#[test]
fn other_associations_get_nothing() {
    let asked = [association(7, [0, 0], &[]), association(8, [0, 0], &[])];
    let solicit = [&[option(1, &CLIENT)][..], &asked].concat();
    let none = |id, status| association(id, [0, 0], &option(13, &[0, status]));
    let (_, told) = reply(&mut stateful(), SOLICIT, &solicit);
    assert_eq!(
        told,
        identified(&[option(7, &[255]), leased(7), none(8, 2), dns()])
    );
    let (_, told) = reply(&mut rig(Some(Ipv6Mode::Dhcpv6Stateless)), SOLICIT, &solicit);
    assert_eq!(
        told,
        identified(&[option(7, &[255]), none(7, 2), none(8, 2), dns()])
    );
    let renew = [&[option(1, &CLIENT), option(2, &SERVER)][..], &asked].concat();
    let (_, told) = reply(&mut rig(Some(Ipv6Mode::Dhcpv6Stateless)), RENEW, &renew);
    assert_eq!(told, identified(&[none(7, 3), none(8, 3), dns()]));
}

#[test]
fn addresses_are_confirmed_by_their_prefix() {
    for (ip, status) in [(OWN, 0), ("2001:db8::77", 0), ("2001:db8:1::1", 4)] {
        let confirm = [option(1, &CLIENT), association(7, [0, 0], &address(ip, 0))];
        let told = reply(&mut stateful(), CONFIRM, &confirm);
        assert_eq!(told, (REPLY, identified(&[option(13, &[0, status])])));
    }
    let empty = [option(1, &CLIENT), association(7, [0, 0], &[])];
    assert_eq!(ask(&mut stateful(), CONFIRM, &empty), Ok(Answer::Consumed));
}

#[test]
fn configuration_is_had_without_addresses() {
    let mut rig = rig(Some(Ipv6Mode::Dhcpv6Stateless));
    let told = reply(&mut rig, INFORMATION, &[]);
    assert_eq!(told, (REPLY, [option(2, &SERVER), dns()].concat()));
    let unwanted = reply(&mut rig, INFORMATION, &[option(6, &[0, 24])]);
    assert_eq!(unwanted, (REPLY, option(2, &SERVER)));
    for (code, part, value) in [
        (24, 0, &b"\x02vm"[..]),
        (24, 1, b"\0"),
        (1, 0, b"no"),
        (23, 0, b""),
    ] {
        rig.put(Record::DhcpOption(DhcpOption {
            vlan: rig.vap.vlan,
            family: Family::Ipv6,
            code,
            part,
            value: OptionValue::new(value).unwrap(),
        }));
    }
    let told = reply(&mut rig, INFORMATION, &[option(1, &CLIENT)]);
    assert_eq!(told, (REPLY, identified(&[option(24, b"\x02vm\0")])));
}

#[test]
fn what_is_not_for_the_server_goes_its_way() {
    let solicit = [option(1, &CLIENT), association(7, [0, 0], &[])];
    for mode in [None, Some(Ipv6Mode::Slaac)] {
        assert_eq!(ask(&mut rig(mode), SOLICIT, &solicit), Ok(Answer::Pass));
    }
    let unicast = frame("2001:db8::2", &message(SOLICIT, &solicit));
    assert_eq!(stateful().send(&unicast), Ok(Answer::Pass));
    let other = [
        option(1, &CLIENT),
        option(2, &CLIENT),
        association(7, [0, 0], &[]),
    ];
    assert_eq!(ask(&mut stateful(), REQUEST, &other), Ok(Answer::Consumed));
    let nothing = [option(1, &CLIENT)];
    assert_eq!(
        ask(&mut stateful(), SOLICIT, &nothing),
        Ok(Answer::Consumed)
    );
}

#[test]
fn malformed_messages_are_dropped() {
    let (client, server) = (option(1, &CLIENT), option(2, &SERVER));
    let asked = association(7, [0, 0], &[]);
    let cases: [(u8, Vec<Vec<u8>>); 10] = [
        // Identifiers that are missing, or too many, or too short.
        (SOLICIT, vec![asked.clone()]),
        (SOLICIT, vec![client.clone(), server.clone(), asked.clone()]),
        (REQUEST, vec![client.clone(), asked.clone()]),
        (SOLICIT, vec![option(1, &[0, 3]), asked.clone()]),
        // Addresses wanted where there are none; relays; servers; options cut short.
        (INFORMATION, vec![asked.clone()]),
        (12, vec![client.clone()]),
        (REPLY, vec![client.clone(), server]),
        (SOLICIT, vec![client.clone(), option(3, &[0; 11])]),
        (
            SOLICIT,
            vec![client.clone(), association(7, [0, 0], &option(5, &[0; 23]))],
        ),
        (SOLICIT, vec![client, asked, vec![0, 6, 0, 9, 0]]),
    ];
    for (place, (kind, options)) in cases.iter().enumerate() {
        let refused = Err(DropReason::Dhcp);
        assert_eq!(
            ask(&mut stateful(), *kind, options),
            refused,
            "case {place}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn whatever_is_asked_replies_are_small_and_parse(
        edits in proptest::collection::vec((1usize..200, proptest::prelude::any::<u8>()), 0..6),
        kind in 1u8..14,
        associations in 0u8..60,
    ) {
        let mut options = vec![option(1, &CLIENT)];
        if matches!(kind, REQUEST | RENEW | RELEASE | DECLINE) {
            options.push(option(2, &SERVER));
        }
        options.extend((0..associations).map(|id| association(id, [0, 0], &address(OWN, 1))));
        let mut message = message(kind, &options);
        for (at, value) in edits {
            if let Some(byte) = message.get_mut(at).filter(|_| at > 3) {
                *byte = value;
            }
        }
        let mut rig = stateful();
        if rig.send(&frame("ff02::1:2", &message)) == Ok(Answer::Reply) {
            let (_, options) = told(&rig);
            proptest::prop_assert!(rig.reply.bytes().len() <= 1294);
            let mut rest = &options[..];
            while !rest.is_empty() {
                rest = &rest[4 + usize::from(u16::from_be_bytes([rest[2], rest[3]]))..];
            }
        }
    }
}
