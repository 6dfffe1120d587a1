//! Messages between the shim and the NVE appliance.
//!
//! One crate that both ends compile, so that neither can drift. The transport is
//! a TCP connection that the appliance dials, secured with Noise IK
//! ([`NOISE_PATTERN`]); each Noise message travels behind a two-byte big-endian
//! length ([`frame`]). The plaintext of a transport message is one or more JSON
//! messages ([`ToNve`] or [`ToShim`]), each ended by a line feed; a message never
//! spans two frames ([`codec`]).
//!
//! Tables change in transactions. `begin` opens one, `put` and `delete` stage
//! records, `commit` carries the [`TableDigest`] that the tables must have
//! afterwards: the appliance applies all of it and answers `applied`, or nothing
//! of it and answers `refused`.
//!
//! Invariants: every message encodes to at most [`codec::MAX_MESSAGE`] bytes;
//! encodings are pinned by golden tests, so a change of a byte is a change of
//! [`API_VERSION`].
#![no_std]
#![forbid(unsafe_code)]

pub mod bytes;
pub mod codec;
pub mod digest;
pub mod frame;
pub mod handover;
pub mod inspect;
pub mod message;
pub mod policy;
pub mod processors;
pub mod record;
pub mod stats;
pub mod types;

pub use bytes::Bytes;
pub use digest::TableDigest;
pub use message::{Applied, Begin, Commit, Hello, Refusal, Refused, ToNve, ToShim, Welcome};
pub use policy::{Direction, Family, Ipv6Mode, Limit, OptionValue, Presence, Remote};
pub use processors::{MAX_PROCESSORS, ProcessorStats, Processors};
pub use record::{
    Address, Binding, DhcpOption, Dns, Fdb, Flood, Gateway, Group, HostRoute, Key, Member,
    Neighbor, Network, Peer, Qos, Record, Route, Rule, Subnet, Table, TableSizes, Vap,
};
pub use stats::{DropReason, NicStats, Stats};
pub use types::{GroupId, Mac, NveId, PortId, Prefix, RouterId, RuleId, Vlan, Vni};

/// Version of the messages. Both ends name theirs and the shim refuses another
/// major one; see [`Hello::api_version`].
pub const API_VERSION: u16 = 4;

/// Most `put` and `delete` of one transaction that is not full; an appliance
/// refuses more with [`Refusal::OutOfMemory`], and the shim sends a full state
/// instead.
pub const MAX_CHANGES: usize = 16_384;

/// The Noise handshake: the appliance initiates, and each end knows the other's
/// static key before (Noise specification, section 7.5, pattern IK).
pub const NOISE_PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";

/// Prologue that both ends mix into the handshake, so that a peer which speaks
/// another protocol over the same pattern fails at once.
pub const NOISE_PROLOGUE: &[u8] = b"sluice-nve/1";

/// TCP port on which the shim listens for appliances.
pub const DEFAULT_PORT: u16 = 6653;
