//! TCP packets, whole and in segments, made by another library.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, TcpHeader};
use nve_datapath::*;
use nve_protocol::Mac;

use crate::rig::*;

/// Where the TCP header of a tagged frame without options begins.
const TRANSPORT_V4: u16 = 38;
const TRANSPORT_V6: u16 = 58;

/// The headers of a TCP packet.
#[derive(Debug, Clone)]
pub struct Packet {
    pub to: Mac,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    pub df: bool,
    pub id: u16,
    pub sequence: u32,
    pub fin: bool,
    pub psh: bool,
    pub cwr: bool,
    pub rst: bool,
    pub options: bool,
    /// Traffic class, or TOS.
    pub class: u8,
}

impl Packet {
    /// From 101's VM to a station of its network.
    pub fn to(last: u8) -> Packet {
        Packet {
            to: mac(last),
            source: ip(1).into(),
            destination: ip(last).into(),
            ttl: 64,
            df: true,
            id: 0xfffe,
            sequence: 0xffff_f000,
            fin: false,
            psh: true,
            cwr: true,
            rst: false,
            options: true,
            class: 0,
        }
    }

    pub fn six(mut self) -> Packet {
        let six = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => IpAddr::V6(Ipv6Addr::from_bits(
                (0x2001_0db8 << 96) | u128::from(ip.octets()[3]),
            )),
            IpAddr::V6(_) => ip,
        };
        self.source = six(self.source);
        self.destination = six(self.destination);
        self
    }

    fn tcp(&self) -> TcpHeader {
        let mut tcp = TcpHeader::new(4000, 5000, self.sequence, 9000);
        tcp.acknowledgment_number = 77;
        (tcp.ack, tcp.fin, tcp.psh, tcp.cwr) = (true, self.fin, self.psh, self.cwr);
        tcp.rst = self.rst;
        if self.options {
            let options = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
            tcp.set_options_raw(&options).unwrap();
        }
        tcp
    }

    /// Segment `number` as a sender without offloads makes it, in VAP 101's tag.
    pub fn segment(&self, number: usize, size: usize, payload: &[u8]) -> Vec<u8> {
        let part = payload.chunks(size).nth(number).unwrap_or_default();
        let mut tcp = self.tcp();
        let last = (number + 1) * size >= payload.len();
        tcp.sequence_number = tcp.sequence_number.wrapping_add((number * size) as u32);
        (tcp.fin, tcp.psh) = (tcp.fin && last, tcp.psh && last);
        tcp.cwr &= number == 0;
        self.frame(self.id.wrapping_add(number as u16), tcp, part)
    }

    fn frame(&self, id: u16, mut tcp: TcpHeader, payload: &[u8]) -> Vec<u8> {
        let length = tcp.header_len() + payload.len();
        let (kind, ip) = match (self.source, self.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let (from, to) = (from.octets(), to.octets());
                let mut ip = Ipv4Header::new(0, self.ttl, IpNumber::TCP, from, to).unwrap();
                ip.identification = id;
                ip.dont_fragment = self.df;
                (ip.dscp, ip.ecn) = class(self.class);
                ip.set_payload_len(length).unwrap();
                ip.header_checksum = ip.calc_header_checksum();
                tcp.checksum = tcp.calc_checksum_ipv4(&ip, payload).unwrap();
                ([8, 0], ip.to_bytes().to_vec())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut ip = Ipv6Header {
                    traffic_class: self.class,
                    hop_limit: self.ttl,
                    next_header: IpNumber::TCP,
                    source: from.octets(),
                    destination: to.octets(),
                    ..Ipv6Header::default()
                };
                ip.set_payload_length(length).unwrap();
                tcp.checksum = tcp.calc_checksum_ipv6(&ip, payload).unwrap();
                ([0x86, 0xdd], ip.to_bytes().to_vec())
            }
            _ => panic!("one family"),
        };
        let addresses = [self.to.0, mac(1).0].concat();
        let untagged = [&addresses, &kind[..], &ip, &tcp.to_bytes(), payload].concat();
        with_tag(&untagged, 101)
    }

    /// All of it in one frame, with the checksum left to the NIC.
    pub fn large(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = self.frame(self.id, self.tcp(), payload);
        let length = frame.len() - usize::from(self.transport());
        let sum = checksum::Sum::default();
        let sum = match (self.source, self.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => sum.with_pseudo_v4(from, to, 6, length as u16),
            (IpAddr::V6(from), IpAddr::V6(to)) => sum.with_pseudo_v6(from, to, 6, length),
            _ => panic!("one family"),
        };
        let at = usize::from(self.transport()) + 16;
        frame[at..at + 2].copy_from_slice(&(!sum.finish()).to_be_bytes());
        frame
    }

    fn transport(&self) -> u16 {
        match self.source {
            IpAddr::V4(_) => TRANSPORT_V4,
            IpAddr::V6(_) => TRANSPORT_V6,
        }
    }

    pub fn partial(&self) -> PartialChecksum {
        PartialChecksum {
            start: self.transport(),
            offset: 16,
        }
    }
}

fn class(byte: u8) -> (etherparse::IpDscp, etherparse::IpEcn) {
    (
        (byte >> 2).try_into().unwrap(),
        (byte & 3).try_into().unwrap(),
    )
}

/// Cuts a large frame that leaves by the trunk, slowly and with another library.
pub fn cut(frame: &[u8], size: usize) -> Vec<Sent> {
    let untagged = [&frame[..12], &frame[16..]].concat();
    let ip = &untagged[14..];
    let (v4, v6, rest) = match ip[0] >> 4 {
        4 => {
            let (header, rest) = Ipv4Header::from_slice(ip).unwrap();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.payload_len().unwrap()), rest.len());
            (Some(header), None, rest)
        }
        _ => {
            let (header, rest) = Ipv6Header::from_slice(ip).unwrap();
            assert_eq!(usize::from(header.payload_length), rest.len());
            (None, Some(header), rest)
        }
    };
    let (tcp, payload) = TcpHeader::from_slice(rest).unwrap();
    // What is left to the NIC is the pseudo-header's sum over the whole packet.
    let sum = checksum::Sum::default();
    let sum = match (&v4, &v6) {
        (Some(ip), _) => sum.with(&ip.source).with(&ip.destination),
        (_, Some(ip)) => sum.with(&ip.source).with(&ip.destination),
        _ => panic!("one family"),
    };
    let sum = sum.with(&[0, 6]).with(&(rest.len() as u16).to_be_bytes());
    assert_eq!(tcp.checksum, !sum.finish());
    let packet = Packet {
        to: Mac(untagged[..6].try_into().unwrap()),
        source: ip_of(&v4, &v6, false),
        destination: ip_of(&v4, &v6, true),
        ttl: v4
            .as_ref()
            .map_or_else(|| v6.as_ref().unwrap().hop_limit, |ip| ip.time_to_live),
        df: v4.as_ref().is_none_or(|ip| ip.dont_fragment),
        id: v4.as_ref().map_or(0, |ip| ip.identification),
        sequence: tcp.sequence_number,
        fin: tcp.fin,
        psh: tcp.psh,
        cwr: tcp.cwr,
        rst: tcp.rst,
        options: !tcp.options.is_empty(),
        class: match (&v4, &v6) {
            (Some(ip), _) => ip.dscp.value() << 2 | ip.ecn.value(),
            (_, ip) => ip.as_ref().unwrap().traffic_class,
        },
    };
    let count = payload.len().div_ceil(size);
    (0..count)
        .map(|number| {
            let mut bytes = packet.segment(number, size, payload);
            bytes[6..12].copy_from_slice(&frame[6..12]);
            bytes[14..16].copy_from_slice(&frame[14..16]);
            Sent {
                side: Side::Trunk,
                bytes,
            }
        })
        .collect()
}

fn ip_of(v4: &Option<Ipv4Header>, v6: &Option<Ipv6Header>, destination: bool) -> IpAddr {
    match (v4, v6) {
        (Some(ip), _) if destination => Ipv4Addr::from(ip.destination).into(),
        (Some(ip), _) => Ipv4Addr::from(ip.source).into(),
        (_, Some(ip)) if destination => Ipv6Addr::from(ip.destination).into(),
        (_, Some(ip)) => Ipv6Addr::from(ip.source).into(),
        _ => panic!("one family"),
    }
}
