//! Ethernet II (IEEE 802.3) and the VLAN tag (IEEE 802.1Q, clause 9).

use nve_protocol::Mac;

use super::{mac_at, u16_at};

/// Bytes of destination, source and type.
pub const HEADER: usize = 14;
/// Bytes of a VLAN tag.
pub const TAG: usize = 4;
/// Bytes of both addresses, in front of a tag.
pub const ADDRESSES: usize = 12;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Tag protocol identifier of a C-VLAN tag.
pub const VLAN: u16 = 0x8100;
/// Tag protocol identifier of an S-VLAN tag.
pub const S_VLAN: u16 = 0x88a8;

/// An untagged header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Receiver.
    pub destination: Mac,
    /// Sender.
    pub source: Mac,
    /// What follows.
    pub ethertype: u16,
}

impl Header {
    /// Reads the header at the front of `frame`.
    pub fn parse(frame: &[u8]) -> Option<Header> {
        Some(Header {
            destination: mac_at(frame, 0)?,
            source: mac_at(frame, 6)?,
            ethertype: u16_at(frame, 12)?,
        })
    }
}

/// VLAN identifier of the tag that follows the addresses, and the type after it.
/// `Err` if there is no tag.
pub fn parse_tag(frame: &[u8]) -> Option<Result<(u16, u16), u16>> {
    let ethertype = u16_at(frame, ADDRESSES)?;
    if ethertype != VLAN {
        return Some(Err(ethertype));
    }
    Some(Ok((u16_at(frame, 14)? & 0x0fff, u16_at(frame, 16)?)))
}

/// Whether bridges keep frames for `mac` on their link (IEEE 802.1Q, table 8-1).
pub fn is_link_local_group(mac: Mac) -> bool {
    matches!(mac.0, [0x01, 0x80, 0xc2, 0, 0, 0..=0x0f])
}
