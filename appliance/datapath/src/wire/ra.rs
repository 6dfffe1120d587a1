//! Router advertisements (RFC 4861, section 4.2; RFC 8106 for DNS servers), as a
//! router writes them.

use core::net::Ipv6Addr;

use super::{nd, put};

/// Bytes in front of the options.
pub const HEADER: usize = 16;
/// Bytes of a prefix option.
pub const PREFIX: usize = 32;
/// Bytes of an MTU option.
pub const MTU: usize = 8;
/// Bytes of an option of DNS servers in front of them.
pub const SERVERS: usize = 8;

const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

/// What is in front of the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Hop limit that hosts start with.
    pub hop_limit: u8,
    /// M: addresses are had by DHCPv6.
    pub managed: bool,
    /// O: other configuration is had by DHCPv6.
    pub other: bool,
    /// Seconds for which the router is a default router.
    pub lifetime: u16,
}

impl Header {
    /// The message's first bytes. Its checksum is zero; reachable time and
    /// retransmission timer are left to the hosts.
    pub fn emit(&self) -> [u8; HEADER] {
        let managed = if self.managed { MANAGED } else { 0 };
        let other = if self.other { OTHER } else { 0 };
        let mut bytes = [0; HEADER];
        put(&mut bytes, 0, &[nd::ROUTER_ADVERTISEMENT]);
        put(&mut bytes, 4, &[self.hop_limit, managed | other]);
        put(&mut bytes, 6, &self.lifetime.to_be_bytes());
        bytes
    }
}

/// A prefix that is on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// First address.
    pub address: Ipv6Addr,
    /// How many leading bits its addresses share.
    pub length: u8,
    /// A: hosts make addresses in it.
    pub autonomous: bool,
    /// Seconds for which it is on the link and addresses in it are valid.
    pub valid: u32,
    /// Seconds for which addresses in it are preferred.
    pub preferred: u32,
}

impl Prefix {
    /// The option's bytes.
    pub fn emit(&self) -> [u8; PREFIX] {
        let autonomous = if self.autonomous { AUTONOMOUS } else { 0 };
        let mut bytes = [0; PREFIX];
        put(&mut bytes, 0, &[3, 4, self.length, ON_LINK | autonomous]);
        put(&mut bytes, 4, &self.valid.to_be_bytes());
        put(&mut bytes, 8, &self.preferred.to_be_bytes());
        put(&mut bytes, 16, &self.address.octets());
        bytes
    }
}

/// The option of the link's MTU.
pub fn mtu(bytes: u16) -> [u8; MTU] {
    let [high, low] = bytes.to_be_bytes();
    [5, 1, 0, 0, 0, 0, high, low]
}

/// What is in front of `count` DNS servers, which are good for `lifetime` seconds.
pub fn servers(count: u8, lifetime: u32) -> [u8; SERVERS] {
    let [a, b, c, d] = lifetime.to_be_bytes();
    [25, 1 + 2 * count, 0, 0, a, b, c, d]
}
