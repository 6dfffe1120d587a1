//! What the headers of a VM's frame say, read once and bounds checked.
//!
//! Offsets count from the frame's front. Invariant of [`Ip`]: `header <=
//! transport <= end`, and `end` is within the frame that was parsed.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::{DropReason, Family, Mac};

use crate::checksum;
use crate::glance::Span;
use crate::wire::ethernet;
use crate::wire::{array, mac_at, u16_at};

/// IP protocol numbers (IANA, Assigned Internet Protocol Numbers).
pub mod protocol {
    /// IPv6 hop-by-hop options (RFC 8200, section 4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// IPv6 routing header (RFC 8200, section 4.4).
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header (RFC 8200, section 4.5).
    pub const FRAGMENT: u8 = 44;
    /// Authentication header (RFC 4302).
    pub const AH: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options (RFC 8200, section 4.6).
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

/// Most IPv6 extension headers in front of a transport header.
const MAX_EXTENSIONS: usize = 8;
/// Bytes in front of the packet that an ICMP error quotes.
const ICMP_ERROR_HEADER: usize = 8;
const IPV6_HEADER: usize = 40;
const IPV4_HEADER: usize = 20;

/// The headers of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// Receiver's MAC address.
    pub destination: Mac,
    /// Sender's MAC address.
    pub source: Mac,
    /// What follows the Ethernet header, behind a tag if there is one.
    pub ethertype: u16,
    /// Where that begins.
    pub network: usize,
    /// The IP packet, if it is one.
    pub ip: Option<Ip>,
}

/// The headers of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// What the packet carries, behind extension headers.
    pub protocol: u8,
    /// Hop limit, or TTL.
    pub hop_limit: u8,
    /// Traffic class, or TOS: DSCP in the upper six bits.
    pub traffic_class: u8,
    /// Where the IP header begins.
    pub header: usize,
    /// Where the transport header begins; in a later fragment, the payload.
    pub transport: usize,
    /// Where the packet ends; what follows is padding.
    pub end: usize,
    /// Which piece of a packet it is, if it is one.
    pub fragment: Option<Fragment>,
    /// What the transport header says.
    pub l4: L4,
}

/// A piece of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Same in all pieces of the packet.
    pub id: u32,
    /// Bytes of payload in the pieces before.
    pub offset: u16,
    /// Whether more pieces follow.
    pub more: bool,
}

/// Transport header, as far as flows and rules need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L4 {
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Flags (RFC 9293, section 3.1), the byte with FIN in bit 0.
        flags: u8,
    },
    /// UDP, UDP-Lite, SCTP or DCCP.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier of an echo message; 0 in all others.
        id: u16,
    },
    /// Any other protocol, or a fragment that is not the first.
    None,
}

impl Ip {
    /// Version of the packet.
    pub const fn family(&self) -> Family {
        match self.source {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }

    /// Its TCP flags; 0 of other protocols.
    pub const fn tcp_flags(&self) -> u8 {
        match self.l4 {
            L4::Tcp { flags, .. } => flags,
            _ => 0,
        }
    }

    /// Where it is in its frame.
    pub(crate) fn span(&self) -> Span {
        Span {
            header: self.header,
            end: self.end,
            is_ipv4: self.source.is_ipv4(),
        }
    }

    /// Whether the header, in the frame that it was read from, has the checksum that
    /// it should (RFC 791, section 3.1); IPv6 has none.
    pub fn is_intact(&self, frame: &[u8]) -> bool {
        let header = frame.get(self.header..self.transport);
        self.source.is_ipv6() || header.is_some_and(|bytes| checksum::of(bytes) == 0)
    }

    /// The packet that it quotes, if it is an ICMP error about one that its receiver
    /// has sent; it was read from `frame`.
    pub fn quoted(&self, frame: &[u8]) -> Option<Ip> {
        let L4::Icmp { kind, .. } = self.l4 else {
            return None;
        };
        let is_error = match (self.protocol, self.family()) {
            (protocol::ICMP, Family::Ipv4) => matches!(kind, 3 | 4 | 11 | 12),
            (protocol::ICMPV6, Family::Ipv6) => matches!(kind, 1..=4),
            _ => false,
        };
        if !is_error {
            return None;
        }
        let bytes = frame.get(..self.end)?;
        let quoted = quoted(bytes, self.transport + ICMP_ERROR_HEADER).ok()?;
        // The header alone names both ends; a later fragment has no ports.
        let fits = quoted.source == self.destination && !quoted.is_later_fragment();
        fits.then_some(quoted)
    }

    /// Whether it is a fragment that holds no transport header.
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset != 0)
    }
}

impl Headers {
    /// Reads the headers of a frame, tagged or not.
    pub fn parse(frame: &[u8]) -> Result<Headers, DropReason> {
        let destination = mac_at(frame, 0).ok_or(DropReason::Truncated)?;
        let source = mac_at(frame, 6).ok_or(DropReason::Truncated)?;
        let (ethertype, network) = match ethernet::parse_tag(frame).ok_or(DropReason::Truncated)? {
            Ok((_, ethertype)) => (ethertype, ethernet::HEADER + ethernet::TAG),
            Err(ethertype) => (ethertype, ethernet::HEADER),
        };
        Ok(Headers {
            destination,
            source,
            ethertype,
            network,
            ip: match ethertype {
                ethernet::IPV4 => Some(ipv4(frame, network)?),
                ethernet::IPV6 => Some(ipv6(frame, network)?),
                _ => None,
            },
        })
    }
}

/// Reads the IP packet at `at`, of the version that its first bits say. For the
/// packets that ICMP errors quote, too, which end early: there `end` is no more
/// than the frame's, whatever the header says.
pub fn quoted(bytes: &[u8], at: usize) -> Result<Ip, DropReason> {
    match bytes.get(at).ok_or(DropReason::MalformedTransport)? >> 4 {
        4 => ipv4_within(bytes, at, true),
        6 => ipv6_within(bytes, at, true),
        _ => Err(DropReason::MalformedIp),
    }
}

fn ipv4(frame: &[u8], at: usize) -> Result<Ip, DropReason> {
    ipv4_within(frame, at, false)
}

fn ipv6(frame: &[u8], at: usize) -> Result<Ip, DropReason> {
    ipv6_within(frame, at, false)
}

fn ipv4_within(frame: &[u8], at: usize, cut: bool) -> Result<Ip, DropReason> {
    let fixed: [u8; IPV4_HEADER] = array(frame, at).ok_or(DropReason::Truncated)?;
    let header = usize::from(fixed[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if fixed[0] >> 4 != 4 || header < IPV4_HEADER || total < header {
        return Err(DropReason::MalformedIp);
    }
    let end = end_within(frame, at + total, cut)?;
    let word = u16::from_be_bytes([fixed[6], fixed[7]]);
    let (offset, more) = ((word & 0x1fff) * 8, word & 0x2000 != 0);
    let fragment = (offset != 0 || more).then_some(Fragment {
        id: u32::from(u16::from_be_bytes([fixed[4], fixed[5]])),
        offset,
        more,
    });
    let transport = (at + header).min(end);
    Ok(Ip {
        source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]).into(),
        destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]).into(),
        protocol: fixed[9],
        hop_limit: fixed[8],
        traffic_class: fixed[1],
        header: at,
        transport,
        end,
        fragment,
        l4: l4(frame, fixed[9], transport, end, offset != 0, cut)?,
    })
}

fn ipv6_within(frame: &[u8], at: usize, cut: bool) -> Result<Ip, DropReason> {
    let fixed: [u8; IPV6_HEADER] = array(frame, at).ok_or(DropReason::Truncated)?;
    if fixed[0] >> 4 != 6 {
        return Err(DropReason::MalformedIp);
    }
    let payload = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let end = end_within(frame, at + IPV6_HEADER + payload, cut)?;
    let chain = extensions(frame, fixed[6], at + IPV6_HEADER, end)?;
    let offset = chain.fragment.map_or(0, |fragment| fragment.offset);
    Ok(Ip {
        source: address(frame, at + 8)?,
        destination: address(frame, at + 24)?,
        protocol: chain.protocol,
        hop_limit: fixed[7],
        traffic_class: fixed[0] << 4 | fixed[1] >> 4,
        header: at,
        transport: chain.transport,
        end,
        fragment: chain.fragment,
        l4: l4(
            frame,
            chain.protocol,
            chain.transport,
            end,
            offset != 0,
            cut,
        )?,
    })
}

fn end_within(frame: &[u8], end: usize, cut: bool) -> Result<usize, DropReason> {
    match end <= frame.len() {
        true => Ok(end),
        false if cut => Ok(frame.len()),
        false => Err(DropReason::Truncated),
    }
}

fn address(frame: &[u8], at: usize) -> Result<IpAddr, DropReason> {
    let octets: [u8; 16] = array(frame, at).ok_or(DropReason::Truncated)?;
    Ok(Ipv6Addr::from(octets).into())
}

struct Chain {
    protocol: u8,
    transport: usize,
    fragment: Option<Fragment>,
}

/// Follows the extension headers (RFC 8200, section 4).
fn extensions(frame: &[u8], first: u8, at: usize, end: usize) -> Result<Chain, DropReason> {
    let mut chain = Chain {
        protocol: first,
        transport: at,
        fragment: None,
    };
    for _ in 0..=MAX_EXTENSIONS {
        let at = chain.transport;
        let length = match chain.protocol {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                let words = frame.get(at + 1).ok_or(DropReason::MalformedIp)?;
                (usize::from(*words) + 1) * 8
            }
            protocol::AH => {
                let words = frame.get(at + 1).ok_or(DropReason::MalformedIp)?;
                (usize::from(*words) + 2) * 4
            }
            protocol::FRAGMENT => {
                chain.fragment = fragment(frame, at)?;
                8
            }
            _ => return Ok(chain),
        };
        if at + length > end {
            return Err(DropReason::MalformedIp);
        }
        chain.protocol = *frame.get(at).ok_or(DropReason::MalformedIp)?;
        chain.transport = at + length;
        if chain.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(chain);
        }
    }
    Err(DropReason::MalformedIp)
}

/// Reads a fragment header; `None` in an atomic fragment (RFC 6946), which is a
/// whole packet.
fn fragment(frame: &[u8], at: usize) -> Result<Option<Fragment>, DropReason> {
    let word = u16_at(frame, at + 2).ok_or(DropReason::MalformedIp)?;
    let id: [u8; 4] = array(frame, at + 4).ok_or(DropReason::MalformedIp)?;
    let (offset, more) = (word & 0xfff8, word & 1 != 0);
    Ok((offset != 0 || more).then_some(Fragment {
        id: u32::from_be_bytes(id),
        offset,
        more,
    }))
}

/// Reads the transport header in `at..end`. One that is cut short is an error,
/// in a quoted packet (`cut`) as well: there the first eight bytes are enough.
fn l4(
    frame: &[u8],
    number: u8,
    at: usize,
    end: usize,
    later: bool,
    cut: bool,
) -> Result<L4, DropReason> {
    if later {
        return Ok(L4::None);
    }
    let header = frame.get(at..end).unwrap_or_default();
    let needed = match number {
        protocol::TCP if !cut => 20,
        protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::DCCP => 8,
        protocol::SCTP if !cut => 12,
        protocol::SCTP => 8,
        protocol::ICMP | protocol::ICMPV6 if !cut => 4,
        protocol::ICMP | protocol::ICMPV6 => 8,
        _ => return Ok(L4::None),
    };
    if header.len() < needed {
        return Err(DropReason::MalformedTransport);
    }
    let word = |at| u16_at(header, at).unwrap_or_default();
    let byte = |at: usize| header.get(at).copied().unwrap_or_default();
    Ok(match number {
        protocol::TCP => L4::Tcp {
            source: word(0),
            destination: word(2),
            flags: byte(13),
        },
        protocol::ICMP | protocol::ICMPV6 => {
            let kind = byte(0);
            L4::Icmp {
                kind,
                code: byte(1),
                id: if is_echo(number, kind) { word(4) } else { 0 },
            }
        }
        _ => L4::Ports {
            source: word(0),
            destination: word(2),
        },
    })
}

/// Whether an ICMP (or ICMPv6) type is an echo request or reply.
pub fn is_echo(number: u8, kind: u8) -> bool {
    matches!(
        (number, kind),
        (protocol::ICMP, 0 | 8) | (protocol::ICMPV6, 128 | 129)
    )
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use etherparse::{PacketBuilder, SingleVlanHeader};

    use super::*;

    fn build(payload: usize) -> [Vec<u8>; 4] {
        let ethernet = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let payload = std::vec![7; payload];
        let mut frames = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        let v4 = || ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let v6 = || ethernet().ipv6([1; 16], [2; 16], 64);
        v4().tcp(1, 2, 3, 4)
            .syn()
            .write(&mut frames[0], &payload)
            .unwrap();
        v4().icmpv4_echo_request(9, 1)
            .write(&mut frames[1], &payload)
            .unwrap();
        v6().udp(5, 6).write(&mut frames[2], &payload).unwrap();
        v6().icmpv6_echo_reply(8, 1)
            .write(&mut frames[3], &payload)
            .unwrap();
        frames
    }

    #[test]
    fn headers_of_the_common_protocols() {
        let wanted = [
            L4::Tcp {
                source: 1,
                destination: 2,
                flags: 2,
            },
            L4::Icmp {
                kind: 8,
                code: 0,
                id: 9,
            },
            L4::Ports {
                source: 5,
                destination: 6,
            },
            L4::Icmp {
                kind: 129,
                code: 0,
                id: 8,
            },
        ];
        for (frame, want) in build(30).iter().zip(wanted) {
            let headers = Headers::parse(frame).unwrap();
            let ip = headers.ip.unwrap();
            assert_eq!((ip.l4, ip.end, ip.hop_limit), (want, frame.len(), 64));
            assert_eq!(ip.fragment, None);
            let quoted = quoted(&frame[..frame.len() - 20], headers.network).unwrap();
            assert_eq!(quoted.end, frame.len() - 20);
            let tagged = [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
            let shifted = Headers::parse(&tagged).unwrap();
            assert_eq!(shifted.network, headers.network + SingleVlanHeader::LEN);
            assert_eq!(shifted.ip.unwrap().l4, want);
            // Whatever is cut off, it is an error and no panic.
            for length in 0..frame.len() {
                assert!(Headers::parse(&frame[..length]).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn extension_headers_are_followed_to_the_end() {
        let [_, _, udp, _] = build(10);
        let extended = |next: u8, extension: &[u8]| {
            let mut frame = [&udp[..54], extension, &udp[54..]].concat();
            frame[20] = next;
            let payload = u16::from_be_bytes([udp[18], udp[19]]) + extension.len() as u16;
            frame[18..20].copy_from_slice(&payload.to_be_bytes());
            Headers::parse(&frame).map(|headers| headers.ip.unwrap())
        };
        let options = extended(0, &[17, 0, 1, 4, 0, 0, 0, 0]).unwrap();
        assert_eq!((options.protocol, options.transport), (17, 62));
        let first = extended(44, &[17, 0, 0, 1, 0, 0, 0, 9]).unwrap();
        assert_eq!(
            first.fragment,
            Some(Fragment {
                id: 9,
                offset: 0,
                more: true
            })
        );
        assert_eq!(
            first.l4,
            L4::Ports {
                source: 5,
                destination: 6
            }
        );
        let later = extended(44, &[17, 0, 0, 8, 0, 0, 0, 9]).unwrap();
        assert!(later.is_later_fragment());
        assert_eq!((later.protocol, later.l4), (17, L4::None));
        let atomic = extended(44, &[17, 0, 0, 0, 0, 0, 0, 9]).unwrap();
        assert_eq!(atomic.fragment, None);
        let beyond = extended(0, &[17, 9, 1, 4, 0, 0, 0, 0]);
        assert_eq!(beyond, Err(DropReason::MalformedIp));
        let endless = extended(0, &[0u8, 0, 1, 4, 0, 0, 0, 0].repeat(12));
        assert_eq!(endless, Err(DropReason::MalformedIp));
    }

    #[test]
    fn first_fragments_hold_the_whole_transport_header() {
        let [tcp, ..] = build(0);
        let mut tiny = tcp[..14 + 20 + 8].to_vec();
        tiny[17] = 28;
        tiny[20] = 0x20;
        assert_eq!(Headers::parse(&tiny), Err(DropReason::MalformedTransport));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_the_order_of_offsets(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120),
            six: bool,
            at in 0usize..40,
        ) {
            let mut frame = bytes;
            if frame.len() > 14 {
                let kind = if six { ethernet::IPV6 } else { ethernet::IPV4 };
                frame[12..14].copy_from_slice(&kind.to_be_bytes());
                frame[14] = if six { 0x60 } else { 0x45 };
            }
            let parsed = Headers::parse(&frame).ok().and_then(|headers| headers.ip);
            for ip in parsed.into_iter().chain(quoted(&frame, at)) {
                assert!(ip.header <= ip.transport && ip.transport <= ip.end);
                assert!(ip.end <= frame.len());
            }
        }
    }
}
