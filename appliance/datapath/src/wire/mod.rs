//! Header layouts: checked views of received bytes, and what is needed to write.
//!
//! Every reader returns `None` instead of reading past the end, so no input can
//! make one panic.

use nve_protocol::Mac;

pub mod arp;
pub mod dhcpv4;
pub mod dhcpv6;
pub mod ethernet;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod ra;
pub mod udp;
pub mod vxlan;

/// `N` bytes at `at`.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

pub(crate) fn mac_at(bytes: &[u8], at: usize) -> Option<Mac> {
    array(bytes, at).map(Mac)
}

/// Writes `value` at `at`; nothing if it does not fit.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(room) = bytes.get_mut(at..at + value.len()) {
        room.copy_from_slice(value);
    }
}
