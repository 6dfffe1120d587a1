//! Frames as descriptions, and their bytes by another library.
//!
//! The model reasons about descriptions; the datapath gets the bytes. What a
//! router changes is changed in the description and encoded again, so nothing
//! here follows a checksum or moves a header in place.

mod messages;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FragmentHeader, Ipv6Header, TcpHeader,
};
use nve_datapath::PartialChecksum;
use nve_protocol::{DropReason, Mac};

pub use crate::client::{Dhcp4, Dhcp6};
pub use messages::{icmp_error, neighbor_advertisement, router_advertisement, served};
use messages::{icmp_header, link_option, udp_header};

pub const ETHERNET: usize = 14;
pub const TAG: usize = 4;
const OPTION_LISTS: [&[u8]; 4] = [
    &[],
    // Router alert, which every fragment has.
    &[0x94, 4, 0, 0],
    // No operation, a record route, which only the first fragment has, and the end.
    &[1, 7, 3, 4, 0x94, 4, 0, 0],
    &[7, 7, 4, 0, 0, 0, 0, 0x94, 4, 0, 0, 0],
];
/// The same lists with only those options that every fragment has.
const COPIED_OPTIONS: [&[u8]; 4] = [&[], &[0x94, 4, 0, 0], &[0x94, 4, 0, 0], &[0x94, 4, 0, 0]];
/// How far a wrong header checksum is from the right one.
const DAMAGE: u16 = 0x0101;
/// An IPv6 extension header of eight bytes: a padding option.
const EXTENSION: [u8; 6] = [1, 4, 0, 0, 0, 0];

/// A frame without a tag of the trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub destination: Mac,
    pub source: Mac,
    pub body: Body,
    /// Bytes behind what the body needs.
    pub padding: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Ip(Ip),
    Arp(Arp),
    /// A tag of its own, of this type.
    Tagged(u16),
    /// Of a type that nobody here knows.
    Other(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    pub operation: u16,
    pub sender_mac: Mac,
    pub sender_ip: Ipv4Addr,
    pub target_ip: Ipv4Addr,
    /// Hardware type; 1 is Ethernet.
    pub hardware: u16,
}

/// An IP packet; both addresses are of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub hop_limit: u8,
    pub traffic_class: u8,
    pub dont_fragment: bool,
    /// Offset in units of eight bytes, and whether more follow.
    pub fragment: Option<(u16, bool)>,
    pub id: u16,
    /// IPv4: which of the option lists. IPv6: how many extension headers.
    pub options: usize,
    pub transport: Transport,
    /// Bytes that follow the transport header.
    pub payload: usize,
    pub defect: Option<Defect>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    Tcp {
        source: u16,
        destination: u16,
        flags: u8,
    },
    /// UDP, or another protocol that begins with two ports.
    Ports {
        protocol: u8,
        source: u16,
        destination: u16,
    },
    /// ICMP or ICMPv6, as the addresses say.
    Icmp {
        kind: u8,
        code: u8,
        id: u16,
    },
    /// A neighbor solicitation or advertisement, which may tell a MAC address.
    Neighbor {
        advertisement: bool,
        target: Ipv6Addr,
        link: Option<Mac>,
    },
    /// A router solicitation, which may tell a MAC address.
    Solicitation {
        link: Option<Mac>,
    },
    /// An ICMP error about a packet, of which it quotes the header and the first
    /// bytes behind it, `shown` of them.
    Error {
        kind: u8,
        code: u8,
        quoted: Box<Ip>,
        shown: usize,
    },
    /// What a client of DHCPv4 sends.
    Dhcp4(Box<Dhcp4>),
    /// What a client of DHCPv6 sends.
    Dhcp6(Box<Dhcp6>),
    Other(u8),
}

/// What is wrong with an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    Version,
    /// IPv4: a header length below five words.
    HeaderLength,
    /// The header says more than there is.
    TooLong,
    /// Ends within the transport header.
    Cut,
    /// IPv4: a wrong header checksum.
    Checksum,
}

impl Frame {
    pub fn ip(&self) -> Option<&Ip> {
        match &self.body {
            Body::Ip(ip) => Some(ip),
            _ => None,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let (ethertype, body) = match &self.body {
            Body::Ip(ip) if ip.source.is_ipv4() => (0x0800, ip.encode()),
            Body::Ip(ip) => (0x86dd, ip.encode()),
            Body::Arp(arp) => (0x0806, arp.encode()),
            Body::Tagged(kind) => (*kind, [&[0, 7, 0x90, 0][..], &[0x33; 46]].concat()),
            Body::Other(kind) => (*kind, vec![0x33; 46]),
        };
        let padding = vec![0; self.padding];
        let ethertype = ethertype.to_be_bytes();
        [
            &self.destination.0[..],
            &self.source.0,
            &ethertype,
            &body,
            &padding,
        ]
        .concat()
    }

    /// The bytes with the transport checksum left to the NIC, and where it is;
    /// `None` of a packet that has none that could be.
    pub fn encode_partial(&self) -> Option<(Vec<u8>, PartialChecksum)> {
        let ip = self.ip()?;
        if ip.fragment.is_some() || ip.defect.is_some() || self.padding > 0 {
            return None;
        }
        let (protocol, offset) = match ip.transport {
            Transport::Tcp { .. } => (6, 16),
            _ if ip.protocol() == 17 => (17, 6),
            _ => return None,
        };
        let mut bytes = self.encode();
        let length = ip.ip_payload().len();
        let start = bytes.len() - length;
        let words = [
            octets(ip.source),
            octets(ip.destination),
            vec![0, protocol],
            (length as u16).to_be_bytes().to_vec(),
        ]
        .concat();
        let sum = words
            .chunks(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .fold(0, |sum, word| {
                let sum = sum + word;
                (sum & 0xffff) + (sum >> 16)
            });
        bytes[start + offset..start + offset + 2].copy_from_slice(&(sum as u16).to_be_bytes());
        let partial = PartialChecksum {
            start: start as u16,
            offset: offset as u16,
        };
        Some((bytes, partial))
    }
}

/// A sum of ones' complement. What follows a change of the header keeps the
/// distance to the right one.
fn off_by(checksum: u16, distance: u16) -> u16 {
    // Of the two zeros, the one that whoever follows a change writes.
    ((u32::from(checksum) + u32::from(distance)) % 0xffff) as u16
}

pub fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// An untagged frame with a tag.
pub fn tagged(frame: &[u8], tci: u16) -> Vec<u8> {
    [
        &frame[..12],
        &[0x81, 0x00],
        &tci.to_be_bytes()[..],
        &frame[12..],
    ]
    .concat()
}

impl Arp {
    pub fn encode(&self) -> Vec<u8> {
        self.with_target(Mac([0; 6]))
    }

    pub fn with_target(&self, target_mac: Mac) -> Vec<u8> {
        [
            &self.hardware.to_be_bytes()[..],
            &[0x08, 0, 6, 4],
            &self.operation.to_be_bytes(),
            &self.sender_mac.0,
            &self.sender_ip.octets(),
            &target_mac.0,
            &self.target_ip.octets(),
        ]
        .concat()
    }
}

impl Ip {
    pub fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|(offset, _)| offset > 0)
    }

    pub fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => 6,
            Transport::Ports { protocol, .. } | Transport::Other(protocol) => protocol,
            Transport::Dhcp4(_) | Transport::Dhcp6(_) => 17,
            Transport::Icmp { .. } | Transport::Error { .. } if self.is_v4() => 1,
            Transport::Icmp { .. }
            | Transport::Error { .. }
            | Transport::Neighbor { .. }
            | Transport::Solicitation { .. } => 58,
        }
    }

    /// Source and destination port of a packet that shows them.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.transport {
            _ if self.is_later_fragment() => None,
            Transport::Tcp {
                source,
                destination,
                ..
            }
            | Transport::Ports {
                source,
                destination,
                ..
            } => Some((source, destination)),
            Transport::Dhcp4(_) => Some((68, 67)),
            Transport::Dhcp6(_) => Some((546, 547)),
            _ => None,
        }
    }

    /// The same, if they are of UDP.
    pub fn udp_ports(&self) -> Option<(u16, u16)> {
        self.ports().filter(|_| self.protocol() == 17)
    }

    /// ICMP type and code of a packet that shows them.
    pub fn icmp(&self) -> Option<(u8, u8)> {
        match self.transport {
            _ if self.is_later_fragment() => None,
            Transport::Icmp { kind, code, .. } | Transport::Error { kind, code, .. } => {
                Some((kind, code))
            }
            Transport::Neighbor { advertisement, .. } => {
                Some((if advertisement { 136 } else { 135 }, 0))
            }
            Transport::Solicitation { .. } => Some((133, 0)),
            _ => None,
        }
    }

    /// Flags of TCP; none of anything else.
    pub fn tcp_flags(&self) -> u8 {
        match self.transport {
            Transport::Tcp { flags, .. } if !self.is_later_fragment() => flags,
            _ => 0,
        }
    }

    /// The packet as an ICMP error quotes it: its headers, and at most so many bytes
    /// of what they carry.
    fn quote(&self, shown: usize) -> Vec<u8> {
        let mut bytes = self.encode();
        let headers = bytes.len() - self.ip_payload().len();
        bytes.truncate(headers + shown);
        bytes
    }

    /// What the packet carries behind its own headers.
    pub fn ip_payload(&self) -> Vec<u8> {
        let data: Vec<u8> = (0..self.payload).map(|at| (at * 7) as u8).collect();
        if self.is_later_fragment() {
            return data;
        }
        let mut bytes = self.transport_header(&data);
        bytes.extend(data);
        if self.defect == Some(Defect::Cut) {
            bytes.truncate(3);
        }
        bytes
    }

    fn transport_header(&self, data: &[u8]) -> Vec<u8> {
        match &self.transport {
            &Transport::Tcp {
                source,
                destination,
                flags,
            } => {
                let mut header = TcpHeader::new(source, destination, 0x0102_0304, 1000);
                header.fin = flags & 1 != 0;
                header.syn = flags & 2 != 0;
                header.rst = flags & 4 != 0;
                header.psh = flags & 8 != 0;
                header.ack = flags & 16 != 0;
                header.checksum = match (self.source, self.destination) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => {
                        header.calc_checksum_ipv4_raw(from.octets(), to.octets(), data)
                    }
                    (IpAddr::V6(from), IpAddr::V6(to)) => {
                        header.calc_checksum_ipv6_raw(from.octets(), to.octets(), data)
                    }
                    _ => unreachable!("one version"),
                }
                .unwrap();
                // Both are zero in ones' complement, and this is what is written by
                // who completes a checksum.
                if header.checksum == 0 {
                    header.checksum = 0xffff;
                }
                header.to_bytes().to_vec()
            }
            &Transport::Ports {
                protocol: 17,
                source,
                destination,
            } => udp_header(self, (source, destination), &[], data),
            Transport::Dhcp4(message) => udp_header(self, (68, 67), &message.encode(), data),
            Transport::Dhcp6(message) => udp_header(self, (546, 547), &message.encode(), data),
            &Transport::Ports {
                source,
                destination,
                ..
            } => [
                &source.to_be_bytes()[..],
                &destination.to_be_bytes(),
                &[0x44; 8],
            ]
            .concat(),
            &Transport::Icmp { kind, code, id } => {
                let [a, b] = id.to_be_bytes();
                let rest = [a, b, 0, 1];
                icmp_header(self, (kind, code), rest, &[], data)
            }
            Transport::Error {
                kind,
                code,
                quoted,
                shown,
            } => icmp_header(self, (*kind, *code), [0; 4], &quoted.quote(*shown), data),
            Transport::Neighbor {
                advertisement,
                target,
                link,
            } => {
                let (kind, option) = if *advertisement { (136, 2) } else { (135, 1) };
                let rest = [&target.octets()[..], &link_option(option, *link)].concat();
                icmp_header(self, (kind, 0), [0; 4], &rest, data)
            }
            Transport::Solicitation { link } => {
                icmp_header(self, (133, 0), [0; 4], &link_option(1, *link), data)
            }
            Transport::Other(_) => Vec::new(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = match self.is_v4() {
            true => self.encode_v4(&self.ip_payload(), OPTION_LISTS[self.options % 4]),
            false => self.encode_v6(self.ip_payload()),
        };
        match self.defect {
            Some(Defect::Version) => bytes[0] ^= 0x30,
            Some(Defect::HeaderLength) if self.is_v4() => bytes[0] = 0x44,
            Some(Defect::HeaderLength) => bytes[0] ^= 0x10,
            Some(Defect::TooLong) => {
                let at = if self.is_v4() { 2 } else { 4 };
                let length = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
                bytes[at..at + 2].copy_from_slice(&(length + 60).to_be_bytes());
            }
            Some(Defect::Cut | Defect::Checksum) | None => {}
        }
        bytes
    }

    fn encode_v4(&self, payload: &[u8], options: &[u8]) -> Vec<u8> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (self.source, self.destination) else {
            unreachable!("one version")
        };
        let mut header = Ipv4Header::new(
            0,
            self.hop_limit,
            IpNumber(self.protocol()),
            source.octets(),
            destination.octets(),
        )
        .unwrap();
        header.identification = self.id;
        header.dont_fragment = self.dont_fragment;
        if let Some((offset, more)) = self.fragment {
            header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
            header.more_fragments = more;
        }
        header.options = Ipv4Options::try_from(options).unwrap();
        header.set_payload_len(payload.len()).unwrap();
        // The field as a whole: DSCP and ECN.
        let mut bytes = header.to_bytes().to_vec();
        bytes[1] = self.traffic_class;
        let (mut header, _) = Ipv4Header::from_slice(&bytes).unwrap();
        header.header_checksum = header.calc_header_checksum();
        if self.defect == Some(Defect::Checksum) {
            header.header_checksum = off_by(header.header_checksum, DAMAGE);
        }
        [header.to_bytes().as_slice(), payload].concat()
    }

    fn encode_v6(&self, mut payload: Vec<u8>) -> Vec<u8> {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (self.source, self.destination) else {
            unreachable!("one version")
        };
        // From the last header to the first.
        let mut next = self.protocol();
        if let Some((offset, more)) = self.fragment {
            let header = Ipv6FragmentHeader::new(
                IpNumber(next),
                IpFragOffset::try_new(offset).unwrap(),
                more,
                u32::from(self.id),
            );
            payload = [&header.to_bytes()[..], &payload].concat();
            next = 44;
        }
        for _ in 0..self.options {
            payload = [&[next, 0][..], &EXTENSION, &payload].concat();
            next = 60;
        }
        let header = Ipv6Header {
            traffic_class: self.traffic_class,
            payload_length: payload.len() as u16,
            next_header: IpNumber(next),
            hop_limit: self.hop_limit,
            source: source.octets(),
            destination: destination.octets(),
            ..Ipv6Header::default()
        };
        [&header.to_bytes()[..], &payload].concat()
    }

    /// Bytes of the whole packet.
    pub fn length(&self) -> usize {
        self.encode().len()
    }

    /// The pieces of an IPv4 packet for a network with a smaller MTU (RFC 791,
    /// section 3.2): as long as they may be, all of whose offsets are multiples of
    /// eight. The error says why there are none: a piece would hold nothing, or the
    /// whole packet would be larger than packets can be.
    pub fn pieces(&self, mtu: usize) -> Result<Vec<Vec<u8>>, DropReason> {
        let payload = self.ip_payload();
        let (first_offset, last_has_more) = self.fragment.unwrap_or_default();
        if 8 * usize::from(first_offset) + payload.len() > 65_535 {
            return Err(DropReason::MalformedIp);
        }
        let mut pieces = Vec::new();
        let mut at = 0;
        loop {
            let options = match pieces.len() {
                0 => OPTION_LISTS[self.options % 4],
                _ => COPIED_OPTIONS[self.options % 4],
            };
            let room = mtu.checked_sub(20 + options.len());
            let room = room.ok_or(DropReason::TooBig)?;
            let rest = &payload[at..];
            let length = match rest.len() <= room {
                true => rest.len(),
                false => room / 8 * 8,
            };
            if length == 0 && !rest.is_empty() {
                return Err(DropReason::TooBig);
            }
            let ends = length == rest.len();
            let offset = first_offset + (at / 8) as u16;
            let piece = Ip {
                fragment: Some((offset, !ends || last_has_more)),
                ..self.clone()
            };
            pieces.push(piece.encode_v4(&rest[..length], options));
            at += length;
            if ends {
                return Ok(pieces);
            }
        }
    }
}
