//! DHCPv4 dialogues. Clients' messages are written and servers' read by hand here,
//! so that neither shares code with what is tested.

use std::collections::BTreeMap;
use std::vec;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nve_protocol::{DhcpOption, Dns, Family, HostRoute, Network, OptionValue, Subnet};

use super::*;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const ZERO: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// The common rig with DHCP in its subnet and in a second one, where the VAP has
/// 10.9.0.1 and there is no gateway.
fn rig() -> Rig {
    let mut rig = Rig::new();
    for (prefix, gateway) in [("10.0.0.0/24", Some(v4(254).into())), ("10.9.0.0/16", None)] {
        rig.put(Record::Subnet(Subnet {
            vni: vni(),
            prefix: prefix.parse().unwrap(),
            dhcp: true,
            gateway,
            ra_mode: None,
            address_mode: None,
        }));
    }
    let own = Address {
        vlan: rig.vap.vlan,
        mac: mac(1),
        prefix: "10.9.0.1/32".parse().unwrap(),
        fixed: true,
    };
    rig.put(Record::Address(own));
    rig.put(Record::Network(Network {
        vni: vni(),
        mtu: 1450,
    }));
    for (index, server) in [(1, "10.0.0.53"), (0, "9.9.9.9")] {
        rig.put(Record::Dns(Dns {
            vni: vni(),
            subnet: "10.0.0.0/24".parse().unwrap(),
            index,
            server: server.parse().unwrap(),
        }));
    }
    rig
}

fn option(rig: &mut Rig, code: u16, part: u8, value: &[u8]) {
    rig.put(Record::DhcpOption(DhcpOption {
        vlan: rig.vap.vlan,
        family: Family::Ipv4,
        code,
        part,
        value: OptionValue::new(value).unwrap(),
    }));
}

/// What a client sends.
struct Client {
    flags: u16,
    address: Ipv4Addr,
    relay: Ipv4Addr,
    mac: Mac,
    options: Vec<u8>,
}

impl Client {
    fn new(kind: u8) -> Client {
        Client {
            flags: 0,
            address: ZERO,
            relay: ZERO,
            mac: mac(1),
            options: vec![53, 1, kind],
        }
    }

    fn with(mut self, code: u8, value: &[u8]) -> Client {
        self.options.extend([code, value.len() as u8]);
        self.options.extend(value);
        self
    }

    fn at(self, address: Ipv4Addr) -> Client {
        Client { address, ..self }
    }

    fn message(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 3];
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(self.address.octets());
        bytes.extend([0; 8]);
        bytes.extend(self.relay.octets());
        bytes.extend(self.mac.0);
        bytes.resize(236, 0);
        bytes.extend([99, 130, 83, 99]);
        bytes.extend(&self.options);
        bytes.push(255);
        bytes
    }

    fn frame(&self, to: Ipv4Addr) -> Vec<u8> {
        let mut frame = Vec::new();
        let to_mac = if to.is_broadcast() {
            Mac::BROADCAST
        } else {
            ROUTER
        };
        PacketBuilder::ethernet2(mac(1).0, to_mac.0)
            .ipv4(self.address.octets(), to.octets(), 64)
            .udp(68, 67)
            .write(&mut frame, &self.message())
            .unwrap();
        frame
    }

    fn ask(&self, rig: &mut Rig) -> Result<Answer, DropReason> {
        rig.send(&self.frame(Ipv4Addr::BROADCAST))
    }

    fn reply(&self, rig: &mut Rig) -> Told {
        assert_eq!(self.ask(rig), Ok(Answer::Reply));
        told(rig)
    }
}

/// A server's message and its envelope.
#[derive(Debug)]
struct Told {
    frame: Vec<u8>,
    from: (Mac, Ipv4Addr),
    to: (Mac, Ipv4Addr),
    client: Ipv4Addr,
    yours: Ipv4Addr,
    options: BTreeMap<u8, Vec<u8>>,
}

impl Told {
    fn kind(&self) -> u8 {
        self.options[&53][0]
    }

    fn get(&self, code: u8) -> Option<&[u8]> {
        self.options.get(&code).map(Vec::as_slice)
    }
}

fn told(rig: &Rig) -> Told {
    let frame = rig.reply.bytes();
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (sliced.net, sliced.transport)
    else {
        panic!("no DHCP");
    };
    let header = ip.header().to_header();
    assert_eq!(header.calc_header_checksum(), header.header_checksum);
    let (source, destination) = (header.source.into(), header.destination.into());
    let sum = udp
        .to_header()
        .calc_checksum_ipv4(&header, udp.payload())
        .unwrap();
    assert_eq!(sum, udp.checksum());
    assert_eq!((udp.source_port(), udp.destination_port()), (67, 68));
    let bytes = udp.payload();
    assert!(bytes.len() >= 300);
    assert_eq!(bytes[..8], [2, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
    assert_eq!(bytes[28..34], mac(1).0);
    assert_eq!(bytes[236..240], [99, 130, 83, 99]);
    let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap());
    let mut options = BTreeMap::<u8, Vec<u8>>::new();
    let mut rest = &bytes[240..];
    while rest[0] != 255 {
        let (value, after) = rest[2..].split_at(usize::from(rest[1]));
        options.entry(rest[0]).or_default().extend(value);
        rest = after;
    }
    assert!(rest[1..].iter().all(|byte| *byte == 0));
    Told {
        from: (Mac(frame[6..12].try_into().unwrap()), source),
        to: (Mac(frame[..6].try_into().unwrap()), destination),
        client: address(12),
        yours: address(16),
        options,
        frame: frame.to_vec(),
    }
}

#[test]
fn a_lease_from_discover_to_release() {
    let mut rig = rig();
    let offer = Client::new(DISCOVER).reply(&mut rig);
    assert_eq!(
        (offer.kind(), offer.yours, offer.client),
        (OFFER, v4(1), ZERO)
    );
    assert_eq!(offer.from, (ROUTER, v4(254)));
    assert_eq!(offer.to, (mac(1), v4(1)));
    let server = offer.get(54).unwrap();
    let request = Client::new(REQUEST)
        .with(50, &v4(1).octets())
        .with(54, server);
    let ack = request.reply(&mut rig);
    assert_eq!((ack.kind(), ack.yours), (ACK, v4(1)));
    let seconds = |code| u32::from_be_bytes(ack.get(code).unwrap().try_into().unwrap());
    assert_eq!([51, 58, 59].map(seconds), [86_400, 43_200, 75_600]);
    for (code, value) in [
        (1, &[255, 255, 255, 0][..]),
        (3, &[10, 0, 0, 254]),
        (6, &[9, 9, 9, 9, 10, 0, 0, 53]),
        (12, b"host-10-0-0-1"),
        (26, &1450u16.to_be_bytes()),
        (28, &[10, 0, 0, 255]),
        // Neutron tells the network's other subnets, and then the default route.
        (121, &[16, 10, 9, 0, 0, 0, 0, 0, 10, 0, 0, 254]),
    ] {
        assert_eq!(ack.get(code), Some(value), "option {code}");
    }
    assert_eq!(ack.get(249), None);
    // Renewing goes to the server, rebinding to everyone.
    let renew = Client::new(REQUEST).at(v4(1));
    for to in [v4(254), Ipv4Addr::BROADCAST] {
        assert_eq!(rig.send(&renew.frame(to)), Ok(Answer::Reply));
        let ack = told(&rig);
        assert_eq!((ack.kind(), ack.yours, ack.client), (ACK, v4(1), v4(1)));
        assert_eq!(ack.to, (mac(1), v4(1)));
    }
    assert_eq!(rig.send(&renew.frame(v4(2))), Ok(Answer::Pass));
    for kind in [4, 7] {
        let end = Client::new(kind).at(v4(1)).with(54, server);
        assert_eq!(end.ask(&mut rig), Ok(Answer::Consumed));
    }
}

#[test]
fn the_wanted_one_of_several_addresses_is_leased() {
    let mut rig = rig();
    let other = Ipv4Addr::new(10, 9, 0, 1);
    let offer = Client::new(DISCOVER)
        .with(50, &other.octets())
        .reply(&mut rig);
    assert_eq!((offer.kind(), offer.yours), (OFFER, other));
    assert_eq!(offer.from, (SERVER_MAC, Ipv4Addr::new(169, 254, 0, 67)));
    assert_eq!(offer.get(54), Some(&[169, 254, 0, 67][..]));
    assert_eq!(offer.get(1), Some(&[255, 255, 0, 0][..]));
    assert_eq!((offer.get(3), offer.get(6)), (None, None));
    assert_eq!(offer.get(121), Some(&[24, 10, 0, 0, 0, 0, 0, 0][..]));
    // An allowed address pair is no fixed IP, and another's address even less.
    for ip in [v4(99), v4(2)] {
        let offer = Client::new(DISCOVER).with(50, &ip.octets()).reply(&mut rig);
        assert_eq!((offer.kind(), offer.yours), (OFFER, v4(1)));
        let nak = Client::new(REQUEST).with(50, &ip.octets()).reply(&mut rig);
        assert_eq!((nak.kind(), nak.yours), (NAK, ZERO));
        assert_eq!(nak.to, (Mac::BROADCAST, Ipv4Addr::BROADCAST));
        assert_eq!(nak.get(51), None);
        assert_eq!(nak.get(54), Some(&v4(254).octets()[..]));
    }
    // After a reboot the client asks for what it had.
    let reboot = Client::new(REQUEST).with(50, &v4(1).octets());
    assert_eq!(reboot.reply(&mut rig).kind(), ACK);
}

#[test]
fn other_servers_are_left_to_the_client() {
    let mut rig = rig();
    let chosen = Client::new(REQUEST)
        .with(50, &v4(1).octets())
        .with(54, &[10, 0, 0, 7]);
    assert_eq!(chosen.ask(&mut rig), Ok(Answer::Consumed));
    let mut without = Rig::new();
    assert_eq!(Client::new(DISCOVER).ask(&mut without), Ok(Answer::Pass));
}

#[test]
fn flags_identifier_and_inform_are_heeded() {
    let mut rig = rig();
    let mut client = Client::new(DISCOVER).with(61, &[1, 2, 0, 0, 0, 0, 1]);
    client.flags = 0x8000;
    let offer = client.reply(&mut rig);
    assert_eq!(offer.to, (Mac::BROADCAST, Ipv4Addr::BROADCAST));
    assert_eq!(offer.get(61), Some(&[1, 2, 0, 0, 0, 0, 1][..]));
    assert_eq!(offer.frame[42 + 10..42 + 12], [0x80, 0]);
    let inform = Client::new(8).at(v4(1)).reply(&mut rig);
    assert_eq!(
        (inform.kind(), inform.yours, inform.client),
        (ACK, ZERO, v4(1))
    );
    assert_eq!(
        (inform.get(51), inform.get(3)),
        (None, Some(&v4(254).octets()[..]))
    );
}

#[test]
fn parameters_are_chosen_by_the_client() {
    let mut rig = rig();
    let client = Client::new(DISCOVER).with(55, &[1, 3, 249]);
    let offer = client.reply(&mut rig);
    let codes: Vec<u8> = offer.options.keys().copied().collect();
    assert_eq!(codes, [1, 3, 26, 51, 53, 54, 58, 59, 249]);
}

#[test]
fn a_ports_own_options_go_before_the_subnets() {
    let mut rig = rig();
    option(&mut rig, 6, 0, &[1, 1, 1, 1]);
    option(&mut rig, 12, 0, b"web");
    option(&mut rig, 3, 0, &[]);
    option(&mut rig, 15, 0, b"example.org");
    option(&mut rig, 51, 0, &600u32.to_be_bytes());
    option(&mut rig, 53, 0, &[9]);
    option(&mut rig, 66, 0, b"10.0.0.66");
    option(&mut rig, 67, 0, b"pxelinux.0");
    for part in 0..5 {
        option(&mut rig, 125, part, &[part; 64]);
    }
    let offer = Client::new(DISCOVER)
        .with(55, &[1, 3, 6])
        .with(57, &1500u16.to_be_bytes());
    let offer = offer.reply(&mut rig);
    for (code, value) in [
        (6, &[1, 1, 1, 1][..]),
        (12, b"web"),
        (15, b"example.org"),
        (51, &600u32.to_be_bytes()),
        (58, &300u32.to_be_bytes()),
        (59, &525u32.to_be_bytes()),
        (53, &[OFFER]),
        (67, b"pxelinux.0"),
    ] {
        assert_eq!(offer.get(code), Some(value), "option {code}");
    }
    assert_eq!(offer.get(3), None);
    let long: Vec<u8> = (0..5).flat_map(|part| [part; 64]).collect();
    assert_eq!(offer.get(125), Some(&long[..]));
    assert_eq!(offer.frame[42 + 20..42 + 24], [10, 0, 0, 66]);
    assert_eq!(&offer.frame[42 + 108..42 + 119], b"pxelinux.0\0");
}

#[test]
fn a_boot_file_with_too_long_a_name_is_told_as_an_option_alone() {
    for (length, told) in [(63, true), (64, false)] {
        let mut rig = rig();
        option(&mut rig, 67, 0, &[b'x'; 64]);
        option(&mut rig, 67, 1, &[b'y'; 64][..length]);
        let client = Client::new(DISCOVER).with(57, &1500u16.to_be_bytes());
        let offer = client.reply(&mut rig);
        assert_eq!(offer.get(67).map(<[u8]>::len), Some(64 + length));
        let first = if told { b'x' } else { 0 };
        assert_eq!(offer.frame[42 + 108], first);
    }
}

#[test]
fn replies_are_no_larger_than_the_client_takes() {
    let mut rig = rig();
    for code in 150..160 {
        option(&mut rig, code, 0, &[7; 64]);
    }
    let lengths = [0u16, 576, 700, 9000].map(|most| {
        let client = Client::new(DISCOVER).with(57, &most.to_be_bytes());
        let offer = client.reply(&mut rig);
        assert!(offer.get(51).is_some() && offer.get(3).is_some());
        offer.frame.len() - 14
    });
    assert!(lengths[..2].iter().all(|length| *length <= 576));
    assert!(lengths[2] <= 700 && lengths[2] > 576 && lengths[3] > 900);
}

#[test]
fn a_default_route_of_the_subnets_own_is_kept() {
    let mut rig = rig();
    for (destination, next_hop) in [("0.0.0.0/0", 7), ("192.0.2.128/25", 8)] {
        rig.put(Record::HostRoute(HostRoute {
            vni: vni(),
            subnet: "10.0.0.0/24".parse().unwrap(),
            destination: destination.parse().unwrap(),
            next_hop: v4(next_hop).into(),
        }));
    }
    let offer = Client::new(DISCOVER).reply(&mut rig);
    let wanted: &[u8] = &[
        0, 10, 0, 0, 7, 25, 192, 0, 2, 128, 10, 0, 0, 8, 16, 10, 9, 0, 0, 0, 0,
    ];
    assert_eq!(offer.get(121), Some(wanted));
}

#[test]
fn malformed_and_relayed_messages_are_dropped() {
    let mut rig = rig();
    let mut relayed = Client::new(DISCOVER);
    relayed.relay = v4(3);
    let mut stranger = Client::new(DISCOVER);
    stranger.mac = mac(5);
    let empty = Client {
        options: Vec::new(),
        ..Client::new(DISCOVER)
    };
    for client in [
        relayed,
        stranger,
        empty,
        Client::new(OFFER),
        Client::new(REQUEST),
        Client::new(8),
        Client::new(DISCOVER).with(50, &[1]),
    ] {
        assert_eq!(client.ask(&mut rig), Err(DropReason::Dhcp));
    }
    let mut cut = Client::new(DISCOVER);
    cut.options.extend([12, 200]);
    assert_eq!(cut.ask(&mut rig), Err(DropReason::Dhcp));
    // Behind a VM that may speak for others, somebody else may serve.
    let mut nested = Client::new(DISCOVER);
    nested.mac = mac(5);
    assert_eq!(nested.ask(&mut rig.trusted()), Ok(Answer::Pass));
}

proptest::proptest! {
    #[test]
    fn whatever_is_asked_replies_parse(
        edits in proptest::collection::vec((0usize..320, proptest::prelude::any::<u8>()), 0..8),
        tail in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60),
        kind in 1u8..9,
    ) {
        let mut rig = rig();
        let mut client = Client::new(kind);
        client.options.extend(tail);
        let mut message = client.message();
        for (at, value) in edits {
            if let Some(byte) = message.get_mut(at).filter(|_| !(4..8).contains(&at)) {
                *byte = value;
            }
        }
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(mac(1).0, [0xff; 6])
            .ipv4([0; 4], [255; 4], 64)
            .udp(68, 67)
            .write(&mut frame, &message)
            .unwrap();
        if rig.send(&frame) == Ok(Answer::Reply) {
            told(&rig);
        }
    }
}
