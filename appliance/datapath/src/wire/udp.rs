//! UDP (RFC 768), as far as the underlay needs it.

use nve_protocol::DropReason;

use super::u16_at;
use crate::checksum::Sum;

/// Bytes of the header.
pub const HEADER: usize = 8;

/// Destination port of the datagram at the front of `bytes`.
pub fn destination(bytes: &[u8]) -> Option<u16> {
    u16_at(bytes, 2)
}

/// Verifies the datagram at the front of `payload` and returns its length; `pseudo`
/// is the sum over the pseudo-header for that length.
///
/// A zero checksum is accepted: over IPv4 RFC 7348, section 5, asks for that; over
/// IPv6 it is for tunnels to choose (RFC 6935, section 5), and VTEPs of hardware
/// send nothing else. What RFC 6936, section 5, wants in return holds here: the
/// sender's address and VNI must be those of a VTEP of that network, so a packet
/// whose addresses were damaged on the way does not pass.
pub fn verify(payload: &[u8], pseudo: impl FnOnce(u16) -> Sum) -> Result<usize, DropReason> {
    let length = u16_at(payload, 4).ok_or(DropReason::Truncated)?;
    let datagram = payload
        .get(..usize::from(length))
        .ok_or(DropReason::OuterUdp)?;
    if datagram.len() < HEADER {
        return Err(DropReason::OuterUdp);
    }
    if u16_at(datagram, 6) == Some(0) {
        return Ok(datagram.len());
    }
    match pseudo(length).with(datagram).finish() {
        0 => Ok(datagram.len()),
        _ => Err(DropReason::OuterUdp),
    }
}
