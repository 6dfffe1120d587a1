//! What the fast path reads of a frame: the key of its flow, and where its parts are.
//!
//! An ordinary packet has everything at fixed places: no IP options or extension
//! headers, no fragment, a protocol with ports or an ICMP echo. Only those have a
//! [`Glance`], and only flows of those are cached; all others are decided each by
//! itself. Invariant: a packet with a glance is one that [`Headers::parse`] accepts,
//! and both say the same of it.
//!
//! [`Headers::parse`]: crate::packet::Headers::parse

use nve_protocol::Vni;

use crate::flow::{Addresses, FlowKey, Peer, Service};
use crate::packet::{is_echo, protocol};
use crate::wire::ethernet;

/// Where an IP packet is in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Where its header begins.
    pub(crate) header: usize,
    /// Where it ends; what follows is padding.
    pub(crate) end: usize,
    pub(crate) is_ipv4: bool,
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Glance {
    pub(crate) key: FlowKey,
    pub(crate) span: Span,
    pub(crate) hop_limit: u8,
    /// Flags of TCP, 0 of all else.
    pub(crate) flags: u8,
}

/// Of an IP packet.
struct Packet {
    service: Service,
    length: usize,
    is_ipv4: bool,
    hop_limit: u8,
    flags: u8,
}

/// Bytes of an IPv4 header without options, of an IPv6 header, and of what is needed
/// of a transport header.
const IPV4: usize = 20;
const IPV6: usize = 40;
const PORTS: usize = 8;

/// Bytes of the shortest TCP and SCTP header, and the place of TCP's flags.
const TCP: usize = 20;
const SCTP: usize = 12;
const TCP_FLAGS: usize = 13;

impl Glance {
    /// Of a tagged frame that came from a VAP.
    #[inline(always)]
    pub(crate) fn of_vap(frame: &[u8]) -> Option<Glance> {
        const LINK: usize = ethernet::ADDRESSES + ethernet::TAG;

        let (link, network) = frame.split_first_chunk::<LINK>()?;
        if half(link, ethernet::ADDRESSES) != ethernet::VLAN {
            return None;
        }
        let packet = read(network)?;
        let key = FlowKey::of_vap(link, packet.service);
        Some(Glance::new(key, ethernet::HEADER + ethernet::TAG, &packet))
    }

    /// Of an untagged frame that came out of a network's tunnel from a VTEP.
    #[inline(always)]
    pub(crate) fn of_tunnel(vni: Vni, peer: Peer, frame: &[u8]) -> Option<Glance> {
        let (addresses, network) = frame.split_first_chunk::<{ ethernet::ADDRESSES }>()?;
        let packet = read(network)?;
        let key = FlowKey::of_tunnel(vni, peer, addresses, packet.service);
        Some(Glance::new(key, ethernet::HEADER, &packet))
    }

    #[inline(always)]
    fn new(key: FlowKey, header: usize, packet: &Packet) -> Glance {
        Glance {
            key,
            span: Span {
                header,
                end: header + packet.length,
                is_ipv4: packet.is_ipv4,
            },
            hop_limit: packet.hop_limit,
            flags: packet.flags,
        }
    }
}

/// Bytes of an untagged frame that [`plain_of_tunnel`] needs.
pub(crate) const FRONT: usize = ethernet::HEADER + IPV4 + PORTS;

/// The same as [`Glance::of_vap`] for what most packets are: TCP or UDP over IPv4. `None`
/// says nothing.
#[inline(always)]
pub(crate) fn plain_of_vap(frame: &[u8]) -> Option<Glance> {
    const HEADER: usize = ethernet::HEADER + ethernet::TAG;
    const TAG: [u8; 2] = ethernet::VLAN.to_be_bytes();
    const LINK: Pattern<8> = Pattern::new(
        [TAG[0], TAG[1], 0, 0, 0x08, 0x00, 0x45, 0],
        [0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0],
    );

    let front = frame.first_chunk::<{ FRONT + ethernet::TAG }>()?;
    if !LINK.fits(part(front, ethernet::ADDRESSES)) {
        return None;
    }
    let packet = plain(front, HEADER, frame)?;
    let key = FlowKey::of_vap(&part(front, 0), packet.service);
    Some(Glance::new(key, HEADER, &packet))
}

/// The same as [`Glance::of_tunnel`] for what most packets are: TCP or UDP over IPv4.
/// `None` says nothing.
#[inline(always)]
pub(crate) fn plain_of_tunnel(vni: Vni, peer: Peer, frame: &[u8]) -> Option<Glance> {
    const LINK: Pattern<4> = Pattern::new([0x08, 0x00, 0x45, 0], [0xff, 0xff, 0xff, 0]);

    let front = frame.first_chunk::<FRONT>()?;
    if !LINK.fits(part(front, ethernet::ADDRESSES)) {
        return None;
    }
    let packet = plain(front, ethernet::HEADER, frame)?;
    let key = FlowKey::of_tunnel(vni, peer, &part(front, 0), packet.service);
    Some(Glance::new(key, ethernet::HEADER, &packet))
}

/// The IPv4 packet at a place of a frame whose first bytes are `front`; that it has no
/// options is known.
#[inline(always)]
fn plain<const N: usize>(front: &[u8; N], at: usize, frame: &[u8]) -> Option<Packet> {
    /// No fragment, whatever the TTL, and the protocol.
    const UDP: Pattern<4> = Pattern::new([0, 0, 0, protocol::UDP], [0x3f, 0xff, 0, 0xff]);
    const TCP: Pattern<4> = Pattern::new([0, 0, 0, protocol::TCP], [0x3f, 0xff, 0, 0xff]);

    let middle: [u8; 4] = part(front, at + 6);
    let length = usize::from(half(front, at + 2));
    let (least, protocol, flags) = if UDP.fits(middle) {
        (IPV4 + PORTS, protocol::UDP, 0)
    } else if TCP.fits(middle) {
        let flags = *frame.get(at + IPV4 + TCP_FLAGS)?;
        (IPV4 + self::TCP, protocol::TCP, flags)
    } else {
        return None;
    };
    if length < least || at + length > frame.len() {
        return None;
    }
    let [_, _, hop_limit, _] = middle;
    Some(Packet {
        service: Service {
            protocol,
            ports: u32::from_ne_bytes(part(front, at + IPV4)),
            addresses: Addresses::V4(double(front, at + 12)),
        },
        length,
        is_ipv4: true,
        hop_limit,
        flags,
    })
}

/// Bytes of which some bits do not matter.
pub(crate) struct Pattern<const N: usize> {
    bytes: [u8; N],
    mask: [u8; N],
}

impl<const N: usize> Pattern<N> {
    /// Those, as far as the bits in `mask` are set.
    pub(crate) const fn new(bytes: [u8; N], mask: [u8; N]) -> Pattern<N> {
        Pattern { bytes, mask }
    }

    /// Whether some bytes are like that.
    #[inline(always)]
    pub(crate) fn fits(&self, bytes: [u8; N]) -> bool {
        let word = |bytes: &[u8; N]| {
            let mut word = [0; 8];
            for (place, byte) in word.iter_mut().zip(bytes) {
                *place = *byte;
            }
            u64::from_ne_bytes(word)
        };
        word(&bytes) & word(&self.mask) == word(&self.bytes)
    }
}

/// Reads the packet behind an EtherType.
#[inline(always)]
fn read(bytes: &[u8]) -> Option<Packet> {
    let (ethertype, packet) = bytes.split_first_chunk::<2>()?;
    match u16::from_be_bytes(*ethertype) {
        ethernet::IPV4 => ipv4(packet),
        ethernet::IPV6 => ipv6(packet),
        _ => None,
    }
}

#[inline(always)]
fn ipv4(bytes: &[u8]) -> Option<Packet> {
    const FRAGMENT: u16 = 0x3fff;

    let (header, payload) = bytes.split_first_chunk::<IPV4>()?;
    let length = usize::from(half(header, 2));
    if header[0] != 0x45 || length > bytes.len() || half(header, 6) & FRAGMENT != 0 {
        return None;
    }
    let protocol = header[9];
    let (ports, flags) = transport(protocol, payload, length.checked_sub(IPV4)?)?;
    Some(Packet {
        service: Service {
            protocol,
            ports,
            addresses: Addresses::V4(double(header, 12)),
        },
        length,
        is_ipv4: true,
        hop_limit: header[8],
        flags,
    })
}

#[inline(never)]
fn ipv6(bytes: &[u8]) -> Option<Packet> {
    let (header, payload) = bytes.split_first_chunk::<IPV6>()?;
    let length = usize::from(half(header, 4));
    if header[0] >> 4 != 6 || length > payload.len() {
        return None;
    }
    let protocol = header[6];
    let (ports, flags) = transport(protocol, payload, length)?;
    Some(Packet {
        service: Service {
            protocol,
            ports,
            addresses: Addresses::V6([8, 16, 24, 32].map(|at| double(header, at))),
        },
        length: IPV6 + length,
        is_ipv4: false,
        hop_limit: header[7],
        flags,
    })
}

/// Ports, or what stands for them, and TCP's flags; the transport packet is the first
/// `length` of `bytes`, which are at least as many.
#[inline(always)]
fn transport(number: u8, bytes: &[u8], length: usize) -> Option<(u32, u8)> {
    let header = bytes.first_chunk::<PORTS>()?;
    let ports = u32::from_ne_bytes(part(header, 0));
    let (least, ports, flags) = match number {
        protocol::UDP | protocol::UDP_LITE | protocol::DCCP => (PORTS, ports, 0),
        protocol::TCP => (TCP, ports, *bytes.get(TCP_FLAGS)?),
        protocol::SCTP => (SCTP, ports, 0),
        protocol::ICMP | protocol::ICMPV6 => (PORTS, echo(number, header)?, 0),
        _ => return None,
    };
    (length >= least).then_some((ports, flags))
}

/// Type, code and identifier of an echo message.
fn echo(number: u8, header: &[u8; PORTS]) -> Option<u32> {
    let [kind, code, _, _, a, b, ..] = *header;
    is_echo(number, kind).then_some(u32::from_ne_bytes([kind, code, a, b]))
}

/// `M` bytes at a place that is inside.
#[inline(always)]
pub(crate) fn part<const N: usize, const M: usize>(bytes: &[u8; N], at: usize) -> [u8; M] {
    let rest = bytes.get(at..).and_then(|rest| rest.first_chunk());
    rest.copied().unwrap_or([0; M])
}

#[inline(always)]
fn half<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes(part(bytes, at))
}

#[inline(always)]
fn double<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from_ne_bytes(part(bytes, at))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use etherparse::{PacketBuilder, VlanId};
    use nve_protocol::Mac;
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{Headers, L4};

    /// What a frame is made of.
    fn build(
        tagged: bool,
        six: bool,
        transport: u8,
        (payload, options): (usize, bool),
        (source, destination): (u16, u16),
    ) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let payload = std::vec![7; payload];
        let mut frame = Vec::new();
        macro_rules! network {
            ($link:expr) => {
                if six {
                    $link.ipv6([0x20; 16], [0x30; 16], 7)
                } else {
                    let mut ip = etherparse::Ipv4Header::new(
                        0,
                        9,
                        etherparse::IpNumber::UDP,
                        [10, 0, 0, 1],
                        [10, 0, 0, 2],
                    )
                    .unwrap();
                    if options {
                        ip.options = [1, 1, 1, 0].into();
                    }
                    $link.ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
                }
            };
        }
        macro_rules! finish {
            ($ip:expr) => {
                match transport {
                    0 => $ip.udp(source, destination).write(&mut frame, &payload),
                    1 => $ip
                        .tcp(source, destination, 1, 2)
                        .ack(3)
                        .fin()
                        .write(&mut frame, &payload),
                    2 if six => $ip
                        .icmpv6_echo_request(source, 1)
                        .write(&mut frame, &payload),
                    _ => $ip.icmpv4_echo_reply(source, 1).write(&mut frame, &payload),
                }
            };
        }
        if tagged {
            let link = ethernet.single_vlan(VlanId::try_new(101).unwrap());
            finish!(network!(link)).unwrap();
        } else {
            finish!(network!(ethernet)).unwrap();
        }
        frame
    }

    /// Holds a glance against what the headers say.
    fn compare(glance: &Glance, frame: &[u8]) {
        let headers = Headers::parse(frame).unwrap();
        let ip = headers.ip.unwrap();
        assert_eq!(glance.span.header, ip.header);
        assert_eq!(glance.span.end, ip.end);
        assert_eq!(glance.span.is_ipv4, ip.source.is_ipv4());
        assert_eq!(glance.hop_limit, ip.hop_limit);
        assert_eq!(glance.flags, ip.tcp_flags());
        assert_eq!(ip.fragment, None);
        let tuple = glance.key.tuple();
        assert_eq!(
            (tuple.source, tuple.destination),
            (ip.source, ip.destination)
        );
        assert_eq!(tuple.protocol, ip.protocol);
        match ip.l4 {
            L4::Tcp {
                source,
                destination,
                ..
            }
            | L4::Ports {
                source,
                destination,
            } => {
                assert_eq!(
                    (tuple.source_port, tuple.destination_port),
                    (source, destination)
                );
            }
            L4::Icmp { kind, code, id } => {
                assert_eq!(tuple.source_port, kind.into());
                assert_eq!(tuple.destination_port, code.into());
                assert_eq!(glance.key.echo(), Some(id));
            }
            L4::None => panic!("no transport header"),
        }
    }

    /// What is seen of a frame that is from a VAP, or out of a tunnel. If it is seen at the
    /// first sight, then the same.
    fn glances(frame: &[u8]) -> [Option<Glance>; 2] {
        let peer = Peer::Address([192, 0, 2, 1].into());
        let vni = Vni::new(5001).unwrap();
        let seen = [Glance::of_vap(frame), Glance::of_tunnel(vni, peer, frame)];
        let plain = [plain_of_vap(frame), plain_of_tunnel(vni, peer, frame)];
        for (plain, seen) in plain.iter().zip(&seen) {
            assert!(plain.is_none() || plain == seen);
        }
        seen
    }

    proptest! {
        #[test]
        fn a_glance_says_what_the_headers_say(
            tagged: bool,
            six: bool,
            transport in 0u8..4,
            payload in 0usize..40,
            options: bool,
            ports: (u16, u16),
            damage in proptest::collection::vec((0usize..90, any::<u8>()), 0..4),
            cut in 0usize..20,
        ) {
            let mut frame = build(tagged, six, transport, (payload, options), ports);
            let whole = damage.is_empty() && cut == 0;
            for (at, byte) in damage {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            frame.truncate(frame.len() - cut.min(frame.len()));
            for glance in glances(&frame).iter().flatten() {
                compare(glance, &frame);
            }
            // The reply to an IPv6 packet is of ICMP for IPv4, which is no echo there.
            let ordinary = !(options && !six || six && transport == 3);
            if whole && ordinary {
                prop_assert!(glances(&frame)[usize::from(!tagged)].is_some());
            }
            if whole && !six && !options && transport < 2 {
                let peer = Peer::Address([192, 0, 2, 1].into());
                let plain = match tagged {
                    true => plain_of_vap(&frame),
                    false => plain_of_tunnel(Vni::new(5001).unwrap(), peer, &frame),
                };
                prop_assert!(plain.is_some());
            }
        }

        #[test]
        fn no_bytes_break_it(
            mut frame in proptest::collection::vec(any::<u8>(), 0..120),
            tagged: bool,
            six: bool,
        ) {
            let at = if tagged { 16 } else { 12 };
            if frame.len() > 20 {
                frame[12..14].copy_from_slice(&ethernet::VLAN.to_be_bytes());
                let kind = if six { ethernet::IPV6 } else { ethernet::IPV4 };
                frame[at..at + 2].copy_from_slice(&kind.to_be_bytes());
                frame[at + 2] = if six { 0x60 } else { 0x45 };
            }
            for glance in glances(&frame).iter().flatten() {
                compare(glance, &frame);
            }
        }
    }

    #[test]
    fn keys_tell_apart_what_flows_go_by() {
        let frame = build(true, false, 0, (4, false), (1000, 2000));
        let key = Glance::of_vap(&frame).unwrap().key;
        // Tag, addresses, protocol, ports.
        for at in [0, 6, 15, 27, 30, 34, 38, 40] {
            let mut other = frame.clone();
            other[at] ^= if at == 27 { 17 ^ 136 } else { 2 };
            assert_ne!(Glance::of_vap(&other).unwrap().key, key, "{at}");
        }
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        assert_eq!(Headers::parse(&frame).unwrap().source, mac);
    }
}
