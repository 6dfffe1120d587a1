//! What an NVE knows of a VAP's traffic, on its way to the NVE that the VM moves to.
//!
//! The shim reads it page by page from the one ([`Handover`]) and passes it on to the
//! other ([`TakeOver`]), whose VAP is on [standby](crate::Presence) meanwhile. Taking
//! the same over twice changes nothing, and what an NVE has seen itself since is worth
//! more than what it is told.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::inspect::{ConnectionState, Place};
use crate::policy::Direction;
use crate::types::RuleId;

/// A question for what is known of a VAP's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The VAP; there is no answer if another port is behind it.
    pub place: Place,
    /// Where the last answer ended; 0 to begin.
    pub cursor: u64,
    /// Only connections with a packet in the last so many milliseconds, about.
    pub within_ms: u32,
}

/// Something that is known of a VAP's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// A connection.
    Connection(Connection),
    /// What is left of a limit.
    Level(Level),
}

/// A connection of a VAP's VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Direction of the packet that opened it.
    pub opener: Direction,
    /// IP protocol number.
    pub protocol: u8,
    /// The VM's address.
    pub local: IpAddr,
    /// The other end's.
    pub remote: IpAddr,
    /// The VM's port; of ICMP the identifier; 0 for protocols without ports.
    pub local_port: u16,
    /// The other end's port; of ICMP the type of the query.
    pub remote_port: u16,
    /// Where it is in its life.
    pub state: ConnectionState,
    /// Milliseconds since the last packet, about.
    pub idle_ms: u32,
    /// The rule that last allowed it.
    pub rule: RuleId,
}

/// How full a meter's buckets are, in the datapath's tokens (a bit costs 10^6, a packet
/// 10^9); negative for what they owe, and [`i64::MAX`] where there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// The meter's direction.
    pub direction: Direction,
    /// Tokens for bits.
    pub bits: i64,
    /// Tokens for packets.
    pub packets: i64,
}

/// Something that another NVE knew of a VAP's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeOver {
    /// The VAP on this NVE; nothing happens if another port is behind it.
    pub place: Place,
    /// What the other knew.
    pub known: Known,
}
