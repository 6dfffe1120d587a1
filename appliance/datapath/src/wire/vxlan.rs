//! VXLAN (RFC 7348, section 5) and the outer headers in front of it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::{DropReason, Mac, Vni};

use super::{array, ethernet, ipv4, ipv6, put, u16_at, udp};
use crate::checksum::{self, Sum};
use crate::packet::protocol;

/// Bytes of the VXLAN header.
pub const HEADER: usize = 8;
/// UDP destination port (RFC 7348, section 9).
pub const PORT: u16 = 4789;
/// Bytes of outer Ethernet, IPv4, UDP and VXLAN headers.
pub const OUTER_V4: usize = ethernet::HEADER + OVERHEAD_V4;
/// Bytes of outer Ethernet, IPv6, UDP and VXLAN headers.
pub const OUTER_V6: usize = ethernet::HEADER + OVERHEAD_V6;
/// Bytes that encapsulation adds to the inner frame within the outer IPv4 packet.
pub const OVERHEAD_V4: usize = ipv4::HEADER + udp::HEADER + HEADER;
/// Bytes that encapsulation adds to the inner frame within the outer IPv6 packet.
pub const OVERHEAD_V6: usize = ipv6::HEADER + udp::HEADER + HEADER;

const VNI_VALID: u8 = 0x08;
/// TTL or hop limit.
pub const HOPS: u8 = 64;
const DONT_FRAGMENT: u8 = 0x40;
/// First of the ports for flow entropy, and their count (RFC 6335, dynamic ports).
const ENTROPY_FIRST: u16 = 49_152;
const ENTROPY_MASK: u16 = 16_383;
const FLOW_LABEL: u32 = 0xf_ffff;

const IP_AT: usize = ethernet::HEADER;

/// Reads the VNI of the header at the front of `bytes`. Reserved bits are ignored
/// (RFC 7348, section 5).
pub fn parse(bytes: &[u8]) -> Result<Vni, DropReason> {
    let [flags, _, _, _, a, b, c, _] = array::<HEADER>(bytes, 0).ok_or(DropReason::Truncated)?;
    if flags & VNI_VALID == 0 {
        return Err(DropReason::VxlanFlags);
    }
    Vni::new(u32::from_be_bytes([0, a, b, c])).ok_or(DropReason::VxlanFlags)
}

/// The VTEP and the network that complete outer headers at the front of `frame` lead
/// to; `None` if there are none.
pub fn destination(frame: &[u8]) -> Option<(IpAddr, Vni)> {
    let (vtep, header): (IpAddr, usize) = match ethernet::Header::parse(frame)?.ethertype {
        ethernet::IPV4 => {
            let ip: [u8; 4] = array(frame, IP_AT + 16)?;
            (ip.into(), OUTER_V4 - HEADER)
        }
        ethernet::IPV6 => {
            let ip: [u8; 16] = array(frame, IP_AT + 24)?;
            (ip.into(), OUTER_V6 - HEADER)
        }
        _ => return None,
    };
    let vni = parse(frame.get(header..)?).ok()?;
    Some((vtep, vni))
}

/// What outer headers say of the frame within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The network.
    pub vni: Vni,
    /// A hash that is the same for all frames of a flow: selects the source port
    /// (RFC 7348, section 5), and the flow label (RFC 6438).
    pub entropy: u32,
    /// Differentiated services code point, 0 to 63. The bits for congestion
    /// notification are zero, which keeps marks from being lost at the other end
    /// (RFC 6040, section 4.1, compatibility mode).
    pub dscp: u8,
}

impl Label {
    fn source_port(&self) -> [u8; 2] {
        let port = ENTROPY_FIRST + (self.entropy as u16 & ENTROPY_MASK);
        port.to_be_bytes()
    }

    fn vni_word(&self) -> [u8; 4] {
        (self.vni.get() << 8).to_be_bytes()
    }
}

/// Complete outer headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headers {
    /// Over IPv4.
    V4([u8; OUTER_V4]),
    /// Over IPv6.
    V6([u8; OUTER_V6]),
}

impl Headers {
    /// The headers' bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Headers::V4(bytes) => bytes,
            Headers::V6(bytes) => bytes,
        }
    }

    /// The same with another TTL or hop limit.
    pub fn with_hops(mut self, hops: u8) -> Headers {
        match &mut self {
            Headers::V4(bytes) => {
                let [old, checksum] = [IP_AT + 8, IP_AT + 10].map(|at| u16_at(bytes, at));
                let (old, checksum) = (old.unwrap_or(0), checksum.unwrap_or(0));
                let new = u16::from_be_bytes([hops, protocol::UDP]);
                put(bytes, IP_AT + 8, &new.to_be_bytes());
                let checksum = checksum::adjust(checksum, old, new);
                put(bytes, IP_AT + 10, &checksum.to_be_bytes());
            }
            // No checksum is over it.
            Headers::V6(bytes) => put(bytes, IP_AT + 7, &[hops]),
        }
        self
    }
}

/// Outer headers towards one VTEP, complete but for what depends on the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outer {
    /// Over IPv4.
    V4(OuterV4),
    /// Over IPv6.
    V6(OuterV6),
}

impl Outer {
    /// Outer headers from the VTEP `source` at `source_mac` to `destination` by
    /// way of the underlay station `next_hop`. `None` if the addresses are not of
    /// one family.
    pub fn new(
        source_mac: Mac,
        next_hop: Mac,
        source: IpAddr,
        destination: IpAddr,
    ) -> Option<Outer> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Outer::V4(OuterV4::new(
                source_mac,
                next_hop,
                source,
                destination,
            ))),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Outer::V6(OuterV6::new(
                source_mac,
                next_hop,
                source,
                destination,
            ))),
            _ => None,
        }
    }

    /// Bytes of the headers.
    #[inline]
    pub fn length(&self) -> usize {
        match self {
            Outer::V4(_) => OUTER_V4,
            Outer::V6(_) => OUTER_V6,
        }
    }

    /// Whether the outer packet around an inner frame of `inner` bytes is no larger
    /// than `mtu`.
    #[inline]
    pub fn fits(&self, inner: usize, mtu: u16) -> bool {
        inner + self.length() - ethernet::HEADER <= usize::from(mtu)
    }

    /// The headers for the inner frame that `parts` join to, none of which but the
    /// last may have an odd length. `None` if the outer packet would be larger than
    /// `mtu`.
    pub fn emit(&self, parts: &[&[u8]], label: &Label, mtu: u16) -> Option<Headers> {
        let inner: usize = parts.iter().map(|part| part.len()).sum();
        if !self.fits(inner, mtu) {
            return None;
        }
        let total = u16::try_from(inner + self.length() - ethernet::HEADER).ok()?;
        Some(match self {
            Outer::V4(outer) => {
                let mut headers = [0; OUTER_V4];
                outer.put(&mut headers, total, label);
                Headers::V4(headers)
            }
            Outer::V6(outer) => {
                let mut headers = [0; OUTER_V6];
                outer.put(&mut headers, total, parts, label);
                Headers::V6(headers)
            }
        })
    }

    /// Writes the headers into the front of `frame`, whose inner frame follows in it.
    /// `None`, and no change, if it is shorter than the headers, or too long.
    #[inline]
    pub fn put(&self, frame: &mut [u8], label: &Label) -> Option<()> {
        let total = u16::try_from(frame.len().checked_sub(ethernet::HEADER)?).ok()?;
        match self {
            Outer::V4(outer) => {
                outer.put(frame.first_chunk_mut()?, total, label);
            }
            Outer::V6(outer) => {
                let (headers, inner) = frame.split_first_chunk_mut()?;
                outer.put(headers, total, &[inner], label);
            }
        }
        Some(())
    }
}

/// [`Outer`] over IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OuterV4 {
    headers: [u8; OUTER_V4],
    /// Sum over the IPv4 header with a zero length, folded.
    sum: u16,
}

impl OuterV4 {
    const UDP_AT: usize = IP_AT + ipv4::HEADER;
    const VXLAN_AT: usize = Self::UDP_AT + udp::HEADER;

    fn new(source_mac: Mac, next_hop: Mac, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        let mut headers = [0; OUTER_V4];
        put_ethernet(&mut headers, next_hop, source_mac, ethernet::IPV4);
        put(&mut headers, IP_AT, &[0x45]);
        put(&mut headers, IP_AT + 6, &[DONT_FRAGMENT]);
        put(&mut headers, IP_AT + 8, &[HOPS, protocol::UDP]);
        put(&mut headers, IP_AT + 12, &source.octets());
        put(&mut headers, IP_AT + 16, &destination.octets());
        put(&mut headers, Self::UDP_AT + 2, &PORT.to_be_bytes());
        put(&mut headers, Self::VXLAN_AT, &[VNI_VALID]);
        let sum = Sum::default().with(headers.get(IP_AT..Self::UDP_AT).unwrap_or_default());
        OuterV4 {
            headers,
            sum: !sum.finish(),
        }
    }

    /// The headers of an IP packet of `total` bytes. The UDP checksum is zero (RFC
    /// 7348, section 4.1).
    #[inline]
    fn put(&self, headers: &mut [u8; OUTER_V4], total: u16, label: &Label) {
        *headers = self.headers;
        let class = label.dscp << 2;
        put(headers, IP_AT + 1, &[class]);
        put(headers, IP_AT + 2, &total.to_be_bytes());
        let sum = u32::from(self.sum) + u32::from(class) + u32::from(total);
        // Three numbers of 16 bits carry at most twice.
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        put(headers, IP_AT + 10, &(!sum as u16).to_be_bytes());
        put(headers, Self::UDP_AT, &label.source_port());
        let udp = total.saturating_sub(ipv4::HEADER as u16);
        put(headers, Self::UDP_AT + 4, &udp.to_be_bytes());
        put(headers, Self::VXLAN_AT + 4, &label.vni_word());
    }
}

impl OuterV4 {
    /// Writes the headers into the front of `frame`, whose inner frame follows behind the
    /// bytes of a tag less: its addresses are moved over its tag. The frame fits a packet.
    #[inline(always)]
    pub(crate) fn put_over_tag(&self, frame: &mut [u8], label: &Label) {
        const MOVED: usize = OUTER_V4 - ethernet::TAG;
        const FRONT: usize = OUTER_V4 + ethernet::ADDRESSES;

        let total = frame.len().saturating_sub(ethernet::HEADER) as u16;
        let Some(front) = frame.first_chunk_mut::<FRONT>() else {
            return;
        };
        front.copy_within(MOVED..MOVED + ethernet::ADDRESSES, OUTER_V4);
        if let Some(headers) = front.first_chunk_mut() {
            self.put(headers, total, label);
        }
    }
}

/// [`Outer`] over IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OuterV6 {
    headers: [u8; OUTER_V6],
    /// Sum over the pseudo-header, the UDP header and the VXLAN header, without
    /// lengths, source port and VNI.
    sum: Sum,
}

impl OuterV6 {
    const UDP_AT: usize = IP_AT + ipv6::HEADER;
    const VXLAN_AT: usize = Self::UDP_AT + udp::HEADER;

    fn new(source_mac: Mac, next_hop: Mac, source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        let mut headers = [0; OUTER_V6];
        put_ethernet(&mut headers, next_hop, source_mac, ethernet::IPV6);
        put(&mut headers, IP_AT + 6, &[protocol::UDP, HOPS]);
        put(&mut headers, IP_AT + 8, &source.octets());
        put(&mut headers, IP_AT + 24, &destination.octets());
        put(&mut headers, Self::UDP_AT + 2, &PORT.to_be_bytes());
        put(&mut headers, Self::VXLAN_AT, &[VNI_VALID]);
        let sum = Sum::default()
            .with_pseudo_v6(source, destination, protocol::UDP, 0)
            .with(headers.get(Self::UDP_AT..).unwrap_or_default());
        OuterV6 { headers, sum }
    }

    /// The headers of an IP packet of `total` bytes around `parts`. The UDP
    /// checksum is there: receivers drop zero ones unless told otherwise (RFC 8200,
    /// section 8.1), and Linux has to be told.
    fn put(&self, headers: &mut [u8; OUTER_V6], total: u16, parts: &[&[u8]], label: &Label) {
        *headers = self.headers;
        let word = 6 << 28 | u32::from(label.dscp) << 22 | label.entropy & FLOW_LABEL;
        put(headers, IP_AT, &word.to_be_bytes());
        let length = total.saturating_sub(ipv6::HEADER as u16).to_be_bytes();
        put(headers, IP_AT + 4, &length);
        put(headers, Self::UDP_AT, &label.source_port());
        put(headers, Self::UDP_AT + 4, &length);
        put(headers, Self::VXLAN_AT + 4, &label.vni_word());
        // The length counts twice: in the pseudo-header and in the UDP header.
        let mut sum = self
            .sum
            .with(&length)
            .with(&length)
            .with(&label.source_port())
            .with(&label.vni_word());
        for part in parts {
            sum = sum.with(part);
        }
        let sum = match sum.finish() {
            // Zero would say that there is none.
            0 => 0xffff,
            sum => sum,
        };
        put(headers, Self::UDP_AT + 6, &sum.to_be_bytes());
    }
}

fn put_ethernet(headers: &mut [u8], destination: Mac, source: Mac, ethertype: u16) {
    put(headers, 0, &destination.0);
    put(headers, 6, &source.0);
    put(headers, ethernet::ADDRESSES, &ethertype.to_be_bytes());
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn another_library_reads_what_is_emitted(
            inner in proptest::collection::vec(any::<u8>(), 14..200),
            cut in 0usize..7,
            six: bool,
            vni in 0..=Vni::MAX,
            entropy: u32,
            dscp in 0u8..64,
            hops: u8,
        ) {
            let (source, destination): (IpAddr, IpAddr) = if six {
                ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into())
            } else {
                ([192, 0, 2, 1].into(), [192, 0, 2, 2].into())
            };
            let (here, there) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
            let outer = Outer::new(here, there, source, destination).unwrap();
            let label = Label { vni: Vni::new(vni).unwrap(), entropy, dscp };
            let (front, rest) = inner.split_at(cut * 2);
            let headers = outer.emit(&[front, rest], &label, 9000).unwrap();
            let frame: Vec<u8> = [headers.bytes(), &inner].concat();
            let packet = PacketHeaders::from_ethernet_slice(&frame).unwrap();
            let Some(TransportHeader::Udp(udp)) = packet.transport else { panic!("no UDP") };
            let payload = packet.payload.slice();
            match packet.net.unwrap() {
                NetHeaders::Ipv4(ip, _) => {
                    prop_assert_eq!((ip.dscp.value(), ip.ecn.value()), (dscp, 0));
                    prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                    prop_assert_eq!(udp.checksum, 0);
                }
                NetHeaders::Ipv6(ip, _) => {
                    prop_assert_eq!(ip.traffic_class, dscp << 2);
                    prop_assert_eq!(ip.flow_label.value(), entropy & FLOW_LABEL);
                    prop_assert_eq!(ip.hop_limit, 64);
                    let sum = udp.calc_checksum_ipv6(&ip, payload).unwrap();
                    prop_assert_eq!(udp.checksum, sum);
                }
                NetHeaders::Arp(_) => panic!("no IP"),
            }
            prop_assert_eq!(parse(payload), Ok(label.vni));
            prop_assert_eq!(&payload[HEADER..], &inner);
            let whole = (headers.bytes().len() - ethernet::HEADER + inner.len()) as u16;
            prop_assert!(outer.emit(&[&inner], &label, whole).is_some());
            prop_assert!(outer.emit(&[&inner], &label, whole - 1).is_none());
            let (mut wanted, at) = (headers.bytes().to_vec(), if six { 21 } else { 22 });
            prop_assert_eq!(wanted[at], HOPS);
            wanted[at] = hops;
            if !six {
                wanted[24..26].fill(0);
                let sum = checksum::of(&wanted[14..34]);
                wanted[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            let headers = headers.with_hops(hops);
            prop_assert_eq!(headers.bytes(), wanted);
        }
    }

    #[test]
    fn families_do_not_mix() {
        let (four, six) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([1u16; 8]));
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        assert_eq!(Outer::new(mac, mac, four, six), None);
        assert_eq!(Outer::new(mac, mac, six, four), None);
    }
}
