//! Frames as a VM would send them, checksums included. Payloads are zeros, so that the
//! front of a frame and its length say all of it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, Ethernet2Header, IpHeaders, IpNumber, Ipv4Header, Ipv6Header,
    PacketBuilder, PacketBuilderStep, TcpHeader,
};
use nve_protocol::Mac;
use nve_protocol::inspect::MAX_PROBE;

use super::names::protocol_name;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Identifier of the echo requests.
const ECHO: u16 = 0x51ce;
const WINDOW: u16 = 64_240;
/// Payload of an echo request as `ping` has it.
const ECHO_PAYLOAD: usize = 56;
/// Payload of protocols whose headers are not known here.
const OTHER_PAYLOAD: usize = 8;
/// Neighbor solicitation (RFC 4861, section 4.3), its hop limit, and its option with
/// the sender's link-layer address.
const NEIGHBOR_SOLICITATION: u8 = 135;
const ND_HOP_LIMIT: u8 = 255;
const SOURCE_LINK_LAYER: [u8; 2] = [1, 1];

/// Flags of a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    const LETTERS: [char; 8] = ['F', 'S', 'R', 'P', 'A', 'U', 'E', 'C'];
    /// Of the first segment of a connection.
    pub const SYN: Flags = Flags(2);

    /// The flags of these letters: F, S, R, P, A, U, E, C.
    pub fn parse(text: &str) -> Option<Flags> {
        text.chars().try_fold(Flags(0), |Flags(bits), letter| {
            let letter = letter.to_ascii_uppercase();
            let place = Self::LETTERS.iter().position(|known| *known == letter)?;
            Some(Flags(bits | 1 << place))
        })
    }

    const fn has(self, place: u8) -> bool {
        self.0 >> place & 1 == 1
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let set = (0..).zip(names).filter(|(place, _)| self.has(*place));
        let set: Vec<&str> = set.map(|(_, name)| name).collect();
        match set.is_empty() {
            true => f.write_str("without flags"),
            false => f.write_str(&set.join("+")),
        }
    }
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A TCP segment.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Flags.
        flags: Flags,
    },
    /// A UDP datagram.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// An echo request of ICMP or ICMPv6.
    Echo,
    /// Who has the destination: ARP, or a neighbor solicitation.
    Solicitation,
    /// Another protocol, by its number.
    Other(u8),
}

/// A packet in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Sender's MAC address.
    pub source_mac: Mac,
    /// Receiver's MAC address.
    pub destination_mac: Mac,
    /// Sender.
    pub source: IpAddr,
    /// Receiver, of the same IP version.
    pub destination: IpAddr,
    /// Hop limit; IPv4: TTL.
    pub hop_limit: u8,
    /// Whether IPv4 routers may fragment it.
    pub may_fragment: bool,
    /// What it carries.
    pub content: Content,
    /// Bytes of the IP packet; the least that makes sense if absent.
    pub size: Option<u16>,
}

/// Why there is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The size cannot hold the headers.
    #[error("an IP packet of {size} bytes cannot hold its headers, which have {headers}")]
    TooSmall {
        /// Bytes asked for.
        size: u16,
        /// Bytes of the headers.
        headers: usize,
    },
    /// The frame is longer than NVEs take in a question.
    #[error("the frame would be longer than {MAX_PROBE} bytes")]
    TooLong,
    /// Source and destination are of different IP versions.
    #[error("source and destination are of different IP versions")]
    Versions,
}

impl Packet {
    /// The frame's bytes, without tag and FCS.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn frame(&self) -> Result<Vec<u8>, FrameError> {
        let ethernet = PacketBuilder::ethernet2(self.source_mac.0, self.destination_mac.0);
        match (self.content, self.source, self.destination) {
            (Content::Solicitation, IpAddr::V4(source), IpAddr::V4(target)) => {
                let arp = ArpEthIpv4Packet {
                    operation: ArpOperation::REQUEST,
                    sender_mac: self.source_mac.0,
                    sender_ipv4: source.octets(),
                    target_mac: [0; 6],
                    target_ipv4: target.octets(),
                };
                let mut frame = Vec::new();
                // Writing to a vector fails only where lengths do not fit.
                let written = ethernet.arp(arp.into()).write(&mut frame);
                written.map_err(|_| FrameError::TooLong)?;
                Ok(frame)
            }
            (Content::Solicitation, IpAddr::V6(_), IpAddr::V6(target)) => {
                self.solicitation(ethernet, target)
            }
            _ => self.packet(ethernet),
        }
    }

    fn solicitation(
        &self,
        ethernet: PacketBuilderStep<Ethernet2Header>,
        target: Ipv6Addr,
    ) -> Result<Vec<u8>, FrameError> {
        let to = IpAddr::V6(solicited_node(target));
        let ip = ethernet.ip(self.header(to, ND_HOP_LIMIT)?);
        let mut payload = target.octets().to_vec();
        payload.extend(SOURCE_LINK_LAYER);
        payload.extend(self.source_mac.0);
        let mut frame = Vec::new();
        let written = ip
            .icmpv6_raw(NEIGHBOR_SOLICITATION, 0, [0; 4])
            .write(&mut frame, &payload);
        written.map_err(|_| FrameError::TooLong)?;
        Ok(frame)
    }

    fn packet(&self, ethernet: PacketBuilderStep<Ethernet2Header>) -> Result<Vec<u8>, FrameError> {
        let ip = ethernet.ip(self.header(self.destination, self.hop_limit)?);
        let mut frame = Vec::new();
        let written = match self.content {
            Content::Tcp {
                source,
                destination,
                flags,
            } => {
                let step = ip.tcp_header(tcp(source, destination, flags));
                let payload = self.payload(step.size(0), 0)?;
                step.write(&mut frame, &payload)
            }
            Content::Udp {
                source,
                destination,
            } => {
                let step = ip.udp(source, destination);
                let payload = self.payload(step.size(0), 0)?;
                step.write(&mut frame, &payload)
            }
            Content::Echo if self.source.is_ipv4() => {
                let step = ip.icmpv4_echo_request(ECHO, 1);
                let payload = self.payload(step.size(0), ECHO_PAYLOAD)?;
                step.write(&mut frame, &payload)
            }
            Content::Echo | Content::Solicitation => {
                let step = ip.icmpv6_echo_request(ECHO, 1);
                let payload = self.payload(step.size(0), ECHO_PAYLOAD)?;
                step.write(&mut frame, &payload)
            }
            Content::Other(number) => {
                let payload = self.payload(ip.size(0), OTHER_PAYLOAD)?;
                ip.write(&mut frame, IpNumber(number), &payload)
            }
        };
        written.map_err(|_| FrameError::TooLong)?;
        Ok(frame)
    }

    /// Zeros that fill the packet up to its size behind `headers` bytes of headers,
    /// Ethernet's included.
    fn payload(&self, headers: usize, least: usize) -> Result<Vec<u8>, FrameError> {
        let headers = headers.saturating_sub(ETHERNET);
        let count = match self.size {
            None => least,
            Some(size) => usize::from(size)
                .checked_sub(headers)
                .ok_or(FrameError::TooSmall { size, headers })?,
        };
        match ETHERNET + headers + count <= usize::from(MAX_PROBE) {
            true => Ok(vec![0; count]),
            false => Err(FrameError::TooLong),
        }
    }

    fn header(&self, to: IpAddr, hop_limit: u8) -> Result<IpHeaders, FrameError> {
        match (self.source, to) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = Ipv4Header {
                    source: source.octets(),
                    destination: destination.octets(),
                    time_to_live: hop_limit,
                    dont_fragment: !self.may_fragment,
                    ..Ipv4Header::default()
                };
                Ok(IpHeaders::Ipv4(header, Default::default()))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    source: source.octets(),
                    destination: destination.octets(),
                    hop_limit,
                    ..Ipv6Header::default()
                };
                Ok(IpHeaders::Ipv6(header, Default::default()))
            }
            _ => Err(FrameError::Versions),
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packet {
            source,
            destination,
            ..
        } = *self;
        match self.content {
            Content::Tcp {
                source: from,
                destination: to,
                flags,
            } => {
                let (from, to) = (
                    SocketAddr::new(source, from),
                    SocketAddr::new(destination, to),
                );
                write!(f, "tcp {from} > {to}, {flags}")
            }
            Content::Udp {
                source: from,
                destination: to,
            } => {
                let (from, to) = (
                    SocketAddr::new(source, from),
                    SocketAddr::new(destination, to),
                );
                write!(f, "udp {from} > {to}")
            }
            Content::Echo => write!(f, "echo request {source} > {destination}"),
            Content::Solicitation if source.is_ipv4() => {
                write!(f, "ARP request: who has {destination}, tell {source}")
            }
            Content::Solicitation => {
                write!(f, "neighbor solicitation for {destination} from {source}")
            }
            Content::Other(number) => {
                write!(f, "{} {source} > {destination}", protocol_name(number))
            }
        }
    }
}

fn tcp(source: u16, destination: u16, flags: Flags) -> TcpHeader {
    let mut header = TcpHeader::new(source, destination, 1, WINDOW);
    header.fin = flags.has(0);
    header.syn = flags.has(1);
    header.rst = flags.has(2);
    header.psh = flags.has(3);
    header.ack = flags.has(4);
    header.urg = flags.has(5);
    header.ece = flags.has(6);
    header.cwr = flags.has(7);
    header.acknowledgment_number = u32::from(header.ack);
    header
}

/// The group that listens for solicitations of an address (RFC 4291, section 2.7.1).
fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    let (high, low) = (0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low)
}

/// The MAC address for what is sent to a group or to everyone; `None` for what is for
/// one station.
pub fn group_mac(destination: IpAddr) -> Option<Mac> {
    match destination {
        IpAddr::V4(ip) if ip.is_broadcast() => Some(Mac::BROADCAST),
        IpAddr::V4(ip) if ip.is_multicast() => {
            let [_, b, c, d] = ip.octets();
            Some(Mac([1, 0, 0x5e, b & 0x7f, c, d]))
        }
        IpAddr::V6(ip) if ip.is_multicast() => {
            let [.., a, b, c, d] = ip.octets();
            Some(Mac([0x33, 0x33, a, b, c, d]))
        }
        _ => None,
    }
}

/// Where a solicitation for an address is sent.
pub fn solicitation_mac(target: IpAddr) -> Mac {
    match target {
        IpAddr::V4(_) => Mac::BROADCAST,
        IpAddr::V6(target) => {
            group_mac(IpAddr::V6(solicited_node(target))).unwrap_or(Mac::BROADCAST)
        }
    }
}

/// The link-local address of a MAC address (RFC 4291, appendix A).
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let station = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(station))
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    fn packet(source: &str, destination: &str, content: Content) -> Packet {
        Packet {
            source_mac: Mac([2, 0, 0, 0, 0, 1]),
            destination_mac: Mac([2, 0, 0, 0, 0, 2]),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            hop_limit: 64,
            may_fragment: false,
            content,
            size: None,
        }
    }

    #[test]
    fn a_segment_has_its_size_its_flags_and_its_checksums() {
        let content = Content::Tcp {
            source: 40_000,
            destination: 443,
            flags: Flags::parse("sA").unwrap(),
        };
        let mut packet = packet("10.0.0.1", "10.0.0.2", content);
        assert_eq!(
            packet.to_string(),
            "tcp 10.0.0.1:40000 > 10.0.0.2:443, SYN+ACK"
        );
        assert_eq!(packet.frame().unwrap().len(), 14 + 40);
        packet.size = Some(1500);
        let frame = packet.frame().unwrap();
        assert_eq!(frame.len(), 1514);
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv4(ip)) = &sliced.net else {
            panic!("{sliced:?}");
        };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert!(header.dont_fragment);
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else {
            panic!("{sliced:?}");
        };
        assert!(tcp.syn() && tcp.ack() && !tcp.fin());
        let sum = tcp.calc_checksum_ipv4([10, 0, 0, 1], [10, 0, 0, 2]);
        assert_eq!(sum.unwrap(), tcp.checksum());
        packet.size = Some(39);
        let (size, headers) = (39, 40);
        assert_eq!(packet.frame(), Err(FrameError::TooSmall { size, headers }));
        packet.size = Some(9203);
        assert_eq!(packet.frame(), Err(FrameError::TooLong));
        packet.size = Some(9202);
        assert_eq!(packet.frame().unwrap().len(), usize::from(MAX_PROBE));
    }

    #[test]
    fn other_contents_have_their_forms() {
        let frame = packet("fd00::1", "fd00::2", Content::Echo).frame().unwrap();
        assert_eq!(frame.len(), 14 + 40 + 8 + 56);
        assert_eq!(frame[54], 128);
        let frame = packet("10.0.0.1", "10.0.0.2", Content::Other(47)).frame();
        assert_eq!(frame.unwrap()[23], 47);
        let arp = packet("10.0.0.1", "10.0.0.2", Content::Solicitation);
        assert_eq!(arp.frame().unwrap().len(), 42);
        let frame = packet("fd00::1", "fd00::12:3456", Content::Solicitation);
        let bytes = frame.frame().unwrap();
        assert_eq!(bytes[54], NEIGHBOR_SOLICITATION);
        assert_eq!(
            bytes[38..54],
            solicited_node("fd00::12:3456".parse().unwrap()).octets()
        );
        let mac = solicitation_mac(frame.destination);
        assert_eq!(mac.to_string(), "33:33:ff:12:34:56");
        let mixed = packet("10.0.0.1", "fd00::2", Content::Echo).frame();
        assert_eq!(mixed, Err(FrameError::Versions));
        assert_eq!(Flags::parse("SX"), None);
    }
}
