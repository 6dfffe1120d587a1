//! What users want, and whether it can be had.
//!
//! [`State`] is all that the shim knows, in memory. The modules beside it plan
//! changes: each takes a state and a request and returns either the mutations that
//! carry the request out, or the reason why it is refused. Planning changes nothing.
//!
//! Semantics are those of Neutron's API v2.0 reference, and of section II.B.3 of
//! the paper for a port's `segmentation_id`.

pub mod address;
pub mod address_group;
pub mod cluster;
pub mod dhcp_option;
mod error;
pub mod fixed_ip;
pub mod group;
pub mod interface;
pub mod network;
pub mod nve;
pub mod port;
pub mod port_security;
pub mod protocol;
pub mod qos;
pub mod router;
pub mod rule;
mod state;
pub mod subnet;
pub mod tag;
#[cfg(test)]
mod testing;
pub mod vtep;

use std::ops::RangeInclusive;

use nve_protocol::{Mac, Vlan};
use serde::{Deserialize, Deserializer};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

pub use error::{IntentError, QosError, RouterError, SecurityError};
pub use state::{Occupant, Occupants, State, Who};

use crate::model::{Common, Mutation};

/// Bytes that VXLAN over IPv4 adds to an IP packet: outer IPv4 20, UDP 8, VXLAN 8,
/// inner Ethernet 14 (RFC 7348, section 5).
pub const OVERHEAD_IPV4: u16 = 50;

/// The same over IPv6, whose header has 40 bytes.
pub const OVERHEAD_IPV6: u16 = 70;

/// What planning depends on besides the state; from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of an IP packet that the underlay carries.
    pub underlay_mtu: u16,
    /// Whether VTEPs may have IPv6 addresses, for which networks leave room; Neutron's
    /// `overlay_ip_version`. Which of both versions a VTEP has is its own affair then.
    pub overlay: IpVersion,
    /// VNIs that are allocated to networks whose creator names none.
    pub vni_range: RangeInclusive<u32>,
    /// First three octets of generated MAC addresses.
    pub base_mac: [u8; 3],
    /// Rules of ports' VLAN tags.
    pub tags: TagRules,
}

/// Which VLAN tags ports can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRules {
    /// Tags that no port gets, such as those of the hosts' own networks.
    pub reserved: Vec<RangeInclusive<u16>>,
    /// How long a tag that was released is nobody else's: longer than a port group, or
    /// the tables of an NVE out of reach, outlive their port.
    pub quarantine: Duration,
}

impl TagRules {
    /// Whether no port can have that tag.
    pub fn is_reserved(&self, tag: Vlan) -> bool {
        self.reserved.iter().any(|range| range.contains(&tag.get()))
    }
}

/// Version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u8")]
pub enum IpVersion {
    /// 4.
    V4,
    /// 6.
    V6,
}

impl TryFrom<u8> for IpVersion {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<IpVersion, &'static str> {
        match number {
            4 => Ok(IpVersion::V4),
            6 => Ok(IpVersion::V6),
            _ => Err("an IP version is 4 or 6"),
        }
    }
}

impl Settings {
    /// The largest MTU that a network can have, and what it has by default. It does
    /// not depend on which VTEPs there are, or it would change under running VMs.
    pub const fn network_mtu(&self) -> u16 {
        let overhead = match self.overlay {
            IpVersion::V4 => OVERHEAD_IPV4,
            IpVersion::V6 => OVERHEAD_IPV6,
        };
        self.underlay_mtu.saturating_sub(overhead)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            underlay_mtu: 1500,
            overlay: IpVersion::V4,
            vni_range: 4096..=nve_protocol::Vni::MAX,
            base_mac: [0xfa, 0x16, 0x3e],
            tags: TagRules {
                reserved: Vec::new(),
                quarantine: Duration::minutes(5),
            },
        }
    }
}

/// The moment and the rules under which a request is planned.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The configured part.
    pub settings: &'a Settings,
    /// The present.
    pub now: OffsetDateTime,
}

/// A validated change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<T> {
    /// What to store and apply, in order; may be empty.
    pub mutations: Vec<Mutation>,
    /// What to tell the requester once that is done.
    pub result: T,
}

impl<T> Plan<T> {
    /// A plan of one mutation.
    pub fn one(mutation: Mutation, result: T) -> Plan<T> {
        Plan {
            mutations: vec![mutation],
            result,
        }
    }
}

/// Plans each request as if the ones before it were carried out: all or nothing.
pub fn plan_each<R, T, E>(
    state: &State,
    requests: impl IntoIterator<Item = R>,
    plan: impl Fn(&State, R) -> Result<Plan<T>, E>,
) -> Result<Plan<Vec<T>>, E> {
    let mut draft = state.clone();
    let mut all = Plan {
        mutations: Vec::new(),
        result: Vec::new(),
    };
    for request in requests {
        let one = plan(&draft, request)?;
        for mutation in &one.mutations {
            draft.apply(mutation);
        }
        all.mutations.extend(one.mutations);
        all.result.push(one.result);
    }
    Ok(all)
}

/// Attributes of [`Common`] that a creator may give.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct NewCommon {
    /// Name.
    #[serde(default)]
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Owner.
    #[serde(default)]
    pub project_id: String,
}

impl NewCommon {
    /// The attributes of a resource that is made now.
    fn create(self, now: OffsetDateTime) -> Common {
        Common {
            id: Uuid::new_v4(),
            name: self.name,
            description: self.description,
            project_id: self.project_id,
            revision_number: 0,
            created_at: now,
            updated_at: now,
            tags: Vec::new(),
        }
    }
}

/// Attributes of [`Common`] that an update may change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct CommonChange {
    /// New name.
    pub name: Option<String>,
    /// New text.
    pub description: Option<String>,
}

impl CommonChange {
    fn apply(self, common: &mut Common, now: OffsetDateTime) {
        set(&mut common.name, self.name);
        set(&mut common.description, self.description);
        revise(common, now);
    }
}

/// Counts a change of the resource.
pub(crate) fn revise(common: &mut Common, now: OffsetDateTime) {
    common.revision_number += 1;
    common.updated_at = now;
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Tells null (`Some(None)`) from absent (`None`).
fn given<'de, D, T>(input: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(input).map(Some)
}

/// A random station address under the configured prefix.
fn generate_mac(base: [u8; 3]) -> Mac {
    let [a, b, c] = base;
    let [d, e, f] = rand::random();
    Mac([a, b, c, d, e, f])
}

#[cfg(test)]
mod tests;
