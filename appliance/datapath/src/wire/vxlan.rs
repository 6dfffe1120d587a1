//! VXLAN (RFC 7348, section 5) and the outer headers in front of it.

use core::net::Ipv4Addr;

use nve_protocol::{DropReason, Mac, Vni};

use super::{array, ethernet, ipv4, put};
use crate::checksum::Sum;

/// Bytes of the VXLAN header.
pub const HEADER: usize = 8;
/// UDP destination port (RFC 7348, section 9).
pub const PORT: u16 = 4789;
/// Bytes of outer Ethernet, IPv4, UDP and VXLAN headers.
pub const OUTER_V4: usize = ethernet::HEADER + OVERHEAD_V4;
/// Bytes that encapsulation adds to the inner frame within the outer IPv4 packet.
pub const OVERHEAD_V4: usize = ipv4::HEADER + ipv4::UDP_HEADER + HEADER;

const VNI_VALID: u8 = 0x08;
const TTL: u8 = 64;
const DONT_FRAGMENT: u8 = 0x40;
/// First of the ports for flow entropy, and their count (RFC 6335, dynamic ports).
const ENTROPY_FIRST: u16 = 49_152;
const ENTROPY_MASK: u16 = 16_383;

const IP_AT: usize = ethernet::HEADER;
const UDP_AT: usize = IP_AT + ipv4::HEADER;
const VXLAN_AT: usize = UDP_AT + ipv4::UDP_HEADER;

/// Reads the VNI of the header at the front of `bytes`. Reserved bits are ignored
/// (RFC 7348, section 5).
pub fn parse(bytes: &[u8]) -> Result<Vni, DropReason> {
    let [flags, _, _, _, a, b, c, _] = array::<HEADER>(bytes, 0).ok_or(DropReason::Truncated)?;
    if flags & VNI_VALID == 0 {
        return Err(DropReason::VxlanFlags);
    }
    Vni::new(u32::from_be_bytes([0, a, b, c])).ok_or(DropReason::VxlanFlags)
}

/// Outer headers towards one VTEP, complete but for lengths, entropy and VNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OuterV4 {
    headers: [u8; OUTER_V4],
    /// Sum over the IPv4 header with a zero length.
    sum: Sum,
}

impl OuterV4 {
    /// Outer headers from the VTEP `source` at `source_mac` to `destination` by
    /// way of the underlay station `next_hop`.
    pub fn new(source_mac: Mac, next_hop: Mac, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        let mut headers = [0; OUTER_V4];
        put(&mut headers, 0, &next_hop.0);
        put(&mut headers, 6, &source_mac.0);
        put(&mut headers, 12, &ethernet::IPV4.to_be_bytes());
        put(&mut headers, IP_AT, &[0x45]);
        put(&mut headers, IP_AT + 6, &[DONT_FRAGMENT]);
        put(&mut headers, IP_AT + 8, &[TTL, ipv4::UDP]);
        put(&mut headers, IP_AT + 12, &source.octets());
        put(&mut headers, IP_AT + 16, &destination.octets());
        put(&mut headers, UDP_AT + 2, &PORT.to_be_bytes());
        put(&mut headers, VXLAN_AT, &[VNI_VALID]);
        let sum = Sum::default().with(headers.get(IP_AT..UDP_AT).unwrap_or_default());
        OuterV4 { headers, sum }
    }

    /// The headers for an inner frame of `inner` bytes in `vni`. The UDP checksum
    /// is zero (RFC 7348, section 4.1). `entropy` selects the source port.
    pub fn emit(&self, vni: Vni, inner: u16, entropy: u32) -> [u8; OUTER_V4] {
        let mut headers = self.headers;
        let total = inner.saturating_add(OVERHEAD_V4 as u16);
        put(&mut headers, IP_AT + 2, &total.to_be_bytes());
        let sum = self.sum.with(&total.to_be_bytes()).finish();
        put(&mut headers, IP_AT + 10, &sum.to_be_bytes());
        let port = ENTROPY_FIRST + (entropy as u16 & ENTROPY_MASK);
        put(&mut headers, UDP_AT, &port.to_be_bytes());
        let udp = total.saturating_sub(ipv4::HEADER as u16);
        put(&mut headers, UDP_AT + 4, &udp.to_be_bytes());
        put(&mut headers, VXLAN_AT + 4, &(vni.get() << 8).to_be_bytes());
        headers
    }
}
