//! IPv4 (RFC 791) and UDP (RFC 768), as far as the underlay needs them.

use core::net::Ipv4Addr;

use nve_protocol::DropReason;

use super::{array, u16_at};
use crate::checksum::{self, Sum};

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Bytes of a UDP header.
pub const UDP_HEADER: usize = 8;

const MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fff;

/// A header that has been verified against the bytes it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the header with its options.
    pub header_length: usize,
    /// Bytes of header and payload.
    pub total_length: usize,
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
            protocol: fixed[9],
            source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]),
            destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
            fragment: u16::from_be_bytes([fixed[6], fixed[7]]) & MORE_FRAGMENTS_OR_OFFSET != 0,
        })
    }
}

/// Destination port of the UDP datagram at the front of `bytes`.
pub fn udp_destination(bytes: &[u8]) -> Option<u16> {
    u16_at(bytes, 2)
}

/// Verifies the UDP datagram that is the payload of `ip` and returns its length.
/// A zero checksum is accepted (RFC 7348, section 5); another must be right.
pub fn verify_udp(ip: &Header, payload: &[u8]) -> Result<usize, DropReason> {
    let length = u16_at(payload, 4).ok_or(DropReason::Truncated)?;
    let datagram = payload
        .get(..usize::from(length))
        .ok_or(DropReason::OuterUdp)?;
    if datagram.len() < UDP_HEADER {
        return Err(DropReason::OuterUdp);
    }
    if u16_at(datagram, 6) == Some(0) {
        return Ok(datagram.len());
    }
    let sum = Sum::default()
        .with_pseudo_v4(ip.source, ip.destination, UDP, length)
        .with(datagram);
    match sum.finish() {
        0 => Ok(datagram.len()),
        _ => Err(DropReason::OuterUdp),
    }
}
