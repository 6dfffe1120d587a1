//! IPv6 (RFC 8200), as far as the underlay needs it.

use core::net::Ipv6Addr;

use nve_protocol::DropReason;

use super::array;

/// Bytes of the header.
pub const HEADER: usize = 40;

/// A header that has been verified against the bytes it came with. It has no
/// checksum of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of header and payload.
    pub total_length: usize,
    /// What follows: a protocol or an extension header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Sender.
    pub source: Ipv6Addr,
    /// Receiver.
    pub destination: Ipv6Addr,
}

impl Header {
    /// Reads and verifies the header at the front of `packet`: version and length.
    pub fn parse(packet: &[u8]) -> Result<Header, DropReason> {
        let [first, _, _, _, a, b, next_header, hop_limit] =
            array::<8>(packet, 0).ok_or(DropReason::Truncated)?;
        if first >> 4 != 6 {
            return Err(DropReason::OuterIp);
        }
        let total_length = HEADER + usize::from(u16::from_be_bytes([a, b]));
        if packet.len() < total_length {
            return Err(DropReason::Truncated);
        }
        let address = |at| array::<16>(packet, at).ok_or(DropReason::Truncated);
        Ok(Header {
            total_length,
            next_header,
            hop_limit,
            source: address(8)?.into(),
            destination: address(24)?.into(),
        })
    }
}
