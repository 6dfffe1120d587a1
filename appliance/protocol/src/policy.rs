//! Values of the records that say what is allowed and how fast.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::types::{GroupId, Prefix};

/// Which way, as the VM sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the VM.
    Ingress,
    /// From the VM.
    Egress,
}

/// Whether the VM is behind a VAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It is: it gets what is for it.
    Active,
    /// It may come: the VAP becomes active, with no change of its record, by the first
    /// frame from an address that it may use. Until then it gets nothing.
    Standby,
    /// It has gone: what still comes out of tunnels for it is sent on to the VTEP that the
    /// FDB has for its address. This is the one exception to the rule that a frame out
    /// of a tunnel never goes into another.
    Departed,
}

/// Version of the Internet Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// How IPv6 addresses are had (Neutron's `ipv6_ra_mode` and `ipv6_address_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipv6Mode {
    /// From the advertised prefix (RFC 4862).
    Slaac,
    /// By DHCPv6 (RFC 8415).
    Dhcpv6Stateful,
    /// From the advertised prefix; other configuration by DHCPv6.
    Dhcpv6Stateless,
}

/// Who is at the other end of what a rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remote {
    /// Anyone.
    Any,
    /// Addresses of a prefix.
    Prefix(Prefix),
    /// Members of a security group or of an address group.
    Group(GroupId),
}

/// How much may pass; each number is 0 for no limit.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Limit {
    /// Kilobits (1000 bits) per second, Ethernet frames without FCS and tag.
    pub kbps: u32,
    /// Kilobits that may pass at once; 0 for a sensible number.
    pub burst_kbit: u32,
    /// Packets per second.
    pub pps: u32,
    /// Packets that may pass at once; 0 for a sensible number.
    pub burst_packets: u32,
}

/// Bytes of a DHCP option, or of a piece of one.
pub type OptionValue = Bytes<64>;
