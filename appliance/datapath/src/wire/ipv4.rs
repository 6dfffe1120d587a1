//! IPv4 (RFC 791), as far as the underlay needs it.

use core::net::Ipv4Addr;

use nve_protocol::DropReason;

use super::array;
use crate::checksum;

/// Bytes of a header without options.
pub const HEADER: usize = 20;

const MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fff;

/// A header that has been verified against the bytes it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the header with its options.
    pub header_length: usize,
    /// Bytes of header and payload.
    pub total_length: usize,
    /// Time to live.
    pub ttl: u8,
    /// What follows.
    pub protocol: u8,
    /// Sender.
    pub source: Ipv4Addr,
    /// Receiver.
    pub destination: Ipv4Addr,
    /// Whether this is a piece of a packet.
    pub fragment: bool,
}

impl Header {
    /// Reads and verifies the header at the front of `packet`: version, lengths
    /// and checksum.
    pub fn parse(packet: &[u8]) -> Result<Header, DropReason> {
        let fixed: [u8; HEADER] = array(packet, 0).ok_or(DropReason::Truncated)?;
        let header_length = usize::from(fixed[0] & 0x0f) * 4;
        let total_length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if fixed[0] >> 4 != 4 || header_length < HEADER || total_length < header_length {
            return Err(DropReason::OuterIp);
        }
        if packet.len() < total_length {
            return Err(DropReason::Truncated);
        }
        let header = packet.get(..header_length).ok_or(DropReason::Truncated)?;
        if checksum::of(header) != 0 {
            return Err(DropReason::OuterIp);
        }
        Ok(Header {
            header_length,
            total_length,
            ttl: fixed[8],
            protocol: fixed[9],
            source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]),
            destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
            fragment: u16::from_be_bytes([fixed[6], fixed[7]]) & MORE_FRAGMENTS_OR_OFFSET != 0,
        })
    }
}
