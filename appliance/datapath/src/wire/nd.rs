//! Neighbor discovery (RFC 4861), the messages that hosts send and what a router
//! answers them with.

use core::net::{IpAddr, Ipv6Addr};

use nve_protocol::Mac;

use super::{array, mac_at, put};
use crate::checksum::Sum;
use crate::packet::{Ip, protocol};

/// ICMPv6 type of a router solicitation.
pub const ROUTER_SOLICITATION: u8 = 133;
/// ICMPv6 type of a router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6 type of a neighbor solicitation.
pub const NEIGHBOR_SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbor advertisement.
pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// ICMPv6 type of a redirect.
pub const REDIRECT: u8 = 137;
/// Hop limit of every message; another shows that it crossed a router.
pub const HOP_LIMIT: u8 = 255;
/// Bytes of a neighbor advertisement with one link-layer address.
pub const ADVERTISEMENT: usize = 32;
/// Bytes of a neighbor solicitation with one link-layer address.
pub const SOLICITATION: usize = 32;
/// The group of all hosts on a link (RFC 4291, section 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// What a host sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Asks for router advertisements.
    RouterSolicitation {
        /// The sender's MAC address, if it tells it.
        link: Option<Mac>,
    },
    /// Asks who has an address.
    NeighborSolicitation {
        /// The address.
        target: Ipv6Addr,
        /// The sender's MAC address, if it tells it.
        link: Option<Mac>,
    },
    /// Says who has an address.
    NeighborAdvertisement {
        /// The address.
        target: Ipv6Addr,
        /// The owner's MAC address, if it tells it.
        link: Option<Mac>,
    },
}

impl Message {
    /// Reads and validates the ICMPv6 message that `ip` carries in `frame`, as
    /// sections 6.1.1, 7.1.1 and 7.1.2 want it, and no fragment (RFC 6980).
    /// `None` if it is not valid or not one that hosts send.
    pub fn parse(ip: &Ip, frame: &[u8]) -> Option<Message> {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (ip.source, ip.destination) else {
            return None;
        };
        let body = frame.get(ip.transport..ip.end)?;
        let [kind, code] = array(body, 0)?;
        let sum = Sum::default().with_pseudo_v6(source, destination, protocol::ICMPV6, body.len());
        let valid = ip.hop_limit == HOP_LIMIT && code == 0 && ip.fragment.is_none();
        if !valid || sum.with(body).finish() != 0 {
            return None;
        }
        if kind == ROUTER_SOLICITATION {
            let link = link_option(body.get(8..)?, SOURCE_LINK)?;
            let told = !(source.is_unspecified() && link.is_some());
            return told.then_some(Message::RouterSolicitation { link });
        }
        let target = Ipv6Addr::from(array::<16>(body, 8)?);
        let options = body.get(24..)?;
        if target.is_multicast() {
            return None;
        }
        match kind {
            NEIGHBOR_SOLICITATION => {
                let link = link_option(options, SOURCE_LINK)?;
                let probe = source.is_unspecified();
                let valid = !probe || (link.is_none() && is_solicited_node(destination));
                valid.then_some(Message::NeighborSolicitation { target, link })
            }
            NEIGHBOR_ADVERTISEMENT => {
                let link = link_option(options, TARGET_LINK)?;
                let solicited = array::<1>(body, 4)?[0] & SOLICITED != 0;
                let valid = !(solicited && destination.is_multicast());
                valid.then_some(Message::NeighborAdvertisement { target, link })
            }
            _ => None,
        }
    }
}

/// The MAC address in the option of this kind, if there is one; `None` outside
/// if the options are malformed.
fn link_option(mut options: &[u8], wanted: u8) -> Option<Option<Mac>> {
    let mut link = None;
    while let [kind, units, ..] = *options {
        let (option, rest) = options.split_at_checked(usize::from(units) * 8)?;
        if option.is_empty() {
            return None;
        }
        if kind == wanted {
            link = Some(mac_at(option, 2).filter(|_| units == 1)?);
        }
        options = rest;
    }
    options.is_empty().then_some(link)
}

/// Whether the group is one of solicited nodes (RFC 4291, section 2.7.1).
fn is_solicited_node(group: Ipv6Addr) -> bool {
    matches!(group.segments(), [0xff02, 0, 0, 0, 0, 1, high, _] if high >> 8 == 0xff)
}

/// A neighbor advertisement that answers, with the MAC address told and meant to
/// override (section 4.4). Its checksum is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertisement {
    /// The address asked for.
    pub target: Ipv6Addr,
    /// Its owner.
    pub mac: Mac,
    /// Whether the owner is a router.
    pub router: bool,
    /// Whether it goes to the one who asked; not to one that has no address yet.
    pub solicited: bool,
}

impl Advertisement {
    /// The message's bytes.
    pub fn emit(&self) -> [u8; ADVERTISEMENT] {
        let mut bytes = [0; ADVERTISEMENT];
        let router = if self.router { ROUTER } else { 0 };
        let solicited = if self.solicited { SOLICITED } else { 0 };
        put(&mut bytes, 0, &[NEIGHBOR_ADVERTISEMENT]);
        put(&mut bytes, 4, &[OVERRIDE | router | solicited]);
        put(&mut bytes, 8, &self.target.octets());
        put(&mut bytes, 24, &[TARGET_LINK, 1]);
        put(&mut bytes, 26, &self.mac.0);
        bytes
    }
}

/// The option that tells a sender's MAC address.
pub fn source_link(mac: Mac) -> [u8; 8] {
    let [a, b, c, d, e, f] = mac.0;
    [SOURCE_LINK, 1, a, b, c, d, e, f]
}

/// The link-local address that is made of a MAC address (RFC 4291, appendix A).
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let mut octets = [0; 16];
    put(&mut octets, 0, &[0xfe, 0x80]);
    put(&mut octets, 8, &[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    octets.into()
}

/// The group MAC address of an IPv6 group (RFC 2464, section 7).
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// The group of the hosts whose addresses end like `address` (RFC 4291, section
/// 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let [high, low] = [0xff00 | u16::from(a), u16::from_be_bytes([b, c])];
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low)
}

/// A neighbor solicitation from the station at `mac` (section 4.3). Its checksum is
/// zero.
pub fn solicitation(target: Ipv6Addr, mac: Mac) -> [u8; SOLICITATION] {
    let mut bytes = [0; SOLICITATION];
    put(&mut bytes, 0, &[NEIGHBOR_SOLICITATION]);
    put(&mut bytes, 8, &target.octets());
    put(&mut bytes, 24, &source_link(mac));
    bytes
}
