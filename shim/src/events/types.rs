//! Lifecycle events as the paper's TABLE I, II and IV define them.
//!
//! Parsing is lenient where the paper is ambiguous (the spelling of event types)
//! and strict elsewhere; emitting uses TABLE I's spelling.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use nve_protocol::Mac;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

pub use super::inventory::{Inventory, Unread};

/// The eleven types of TABLE I.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    /// VM powers on.
    VmPowerOn,
    /// VM starts live migration.
    LiveMigrateStart,
    /// VM finishes live migration.
    LiveMigrateFinish,
    /// VM starts cold migration.
    ColdMigrateStart,
    /// VM finishes cold migration.
    ColdMigrateFinish,
    /// High availability moved the VM.
    HaFinish,
    /// VM is created.
    VmCreated,
    /// VM is deleted.
    VmDeleted,
    /// VM powers off.
    VmPowerOff,
    /// A virtual interface is attached.
    VifAttach,
    /// A virtual interface is detached.
    VifDetach,
}

/// A text that names no event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown event type {0:?}")]
pub struct UnknownEventType(pub String);

impl EventType {
    /// All types, in TABLE I's order.
    pub const ALL: [EventType; 11] = [
        EventType::VmPowerOn,
        EventType::LiveMigrateStart,
        EventType::LiveMigrateFinish,
        EventType::ColdMigrateStart,
        EventType::ColdMigrateFinish,
        EventType::HaFinish,
        EventType::VmCreated,
        EventType::VmDeleted,
        EventType::VmPowerOff,
        EventType::VifAttach,
        EventType::VifDetach,
    ];

    /// TABLE I's spelling.
    pub const fn name(self) -> &'static str {
        match self {
            EventType::VmPowerOn => "vmpoweron",
            EventType::LiveMigrateStart => "livemigratetestart",
            EventType::LiveMigrateFinish => "livemigratefinish",
            EventType::ColdMigrateStart => "coldmigrateteststart",
            EventType::ColdMigrateFinish => "coldmigratetestfinish",
            EventType::HaFinish => "hafinish",
            EventType::VmCreated => "vmcreated",
            EventType::VmDeleted => "vmdeleted",
            EventType::VmPowerOff => "vmpoweroff",
            EventType::VifAttach => "vifattach",
            EventType::VifDetach => "vifdetach",
        }
    }
}

impl FromStr for EventType {
    type Err = UnknownEventType;

    /// Ignores case, and takes the spellings of the paper's section II.A.1 and
    /// TABLE IV (`livemigratetest/start`) and the ones without its slips
    /// (`livemigratestart`) for the same type.
    fn from_str(text: &str) -> Result<Self, UnknownEventType> {
        let folded: String = text
            .chars()
            .filter(|c| *c != '/')
            .map(|c| c.to_ascii_lowercase())
            .collect();
        Ok(match folded.as_str() {
            "livemigratestart" | "livemigratetestart" | "livemigrateteststart" => {
                EventType::LiveMigrateStart
            }
            "livemigratefinish" | "livemigratetefinish" | "livemigratetestfinish" => {
                EventType::LiveMigrateFinish
            }
            "coldmigratestart" | "coldmigratetestart" | "coldmigrateteststart" => {
                EventType::ColdMigrateStart
            }
            "coldmigratefinish" | "coldmigratetefinish" | "coldmigratetestfinish" => {
                EventType::ColdMigrateFinish
            }
            other => *EventType::ALL
                .iter()
                .find(|kind| kind.name() == other)
                .ok_or_else(|| UnknownEventType(text.to_owned()))?,
        })
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for EventType {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Running status of a VM (TABLE II, `vm_status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmStatus {
    /// The VM is stopped.
    Stop,
    /// The VM runs.
    Running,
    /// The VM is paused.
    Paused,
}

impl VmStatus {
    /// Whether the VM's ports take part in forwarding.
    pub const fn forwards(self) -> bool {
        matches!(self, VmStatus::Running | VmStatus::Paused)
    }
}

/// One element of `ip_list` (TABLE II).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpEntry {
    /// The address.
    pub ip: Ipv4Addr,
}

/// One element of `ipv6_list` (TABLE II).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Entry {
    /// The address.
    pub ipv6: Ipv6Addr,
}

/// One element of `vnic_list` (TABLE II).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vnic {
    /// vNIC name.
    pub vnic_name: String,
    /// vNIC UUID.
    pub vnic_uuid: Uuid,
    /// Port group name, `[port ID]_[segmentation_id]` for a Neutron port.
    pub pg_name: String,
    /// Port group UUID.
    pub pg_uuid: Uuid,
    /// MAC address.
    pub mac: Mac,
    /// Port group VLAN ID.
    pub port_segmentation_id: u16,
    /// IPv4 addresses.
    #[serde(default)]
    pub ip_list: Vec<IpEntry>,
    /// IPv6 addresses.
    #[serde(default)]
    pub ipv6_list: Vec<Ipv6Entry>,
}

impl Vnic {
    /// The Neutron port that the port group's name carries, if it is of the form
    /// `[port ID]_[segmentation_id]` and agrees with `port_segmentation_id`.
    pub fn port_id(&self) -> Option<Uuid> {
        let (port, tag) = self.pg_name.rsplit_once('_')?;
        let tag: u16 = tag.parse().ok()?;
        (tag == self.port_segmentation_id)
            .then(|| Uuid::parse_str(port).ok())
            .flatten()
    }
}

/// A VM as events and inventories describe it (TABLE II without the event's own
/// fields).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmState {
    /// VM name.
    pub vm_name: String,
    /// VM UUID.
    pub vm_uuid: Uuid,
    /// Running status.
    pub vm_status: VmStatus,
    /// Name of the VM's host.
    pub host_name: String,
    /// UUID of the VM's host.
    pub host_uuid: Uuid,
    /// The VM's virtual interfaces.
    pub vnic_list: Vec<Vnic>,
}

/// A notification (TABLE II).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleEvent {
    /// Identifies the event.
    pub event_id: Uuid,
    /// When it was reported (RFC 3339).
    #[serde(with = "time::serde::rfc3339")]
    pub timestamp: time::OffsetDateTime,
    /// What happened.
    pub event_type: EventType,
    /// The VM after it happened.
    #[serde(flatten)]
    pub vm: VmState,
    /// Name of the host that a live migration which starts leads to. It is not in TABLE
    /// II, so a manager need not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_host_name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_the_paper_is_taken_and_table_i_is_emitted() {
        for kind in EventType::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(kind.name().to_uppercase().parse(), Ok(kind));
        }
        for (text, kind) in [
            ("Livemigratetestart", EventType::LiveMigrateStart),
            ("livemigratetest/start", EventType::LiveMigrateStart),
            ("livemigratetest/finish", EventType::LiveMigrateFinish),
            ("Coldmigratetestart", EventType::ColdMigrateStart),
            ("coldmigratetest/start", EventType::ColdMigrateStart),
            ("coldmigratetest/finish", EventType::ColdMigrateFinish),
        ] {
            assert_eq!(text.parse(), Ok(kind), "{text}");
        }
        assert!("vmexploded".parse::<EventType>().is_err());
    }

    #[test]
    fn a_port_group_names_its_port_only_when_the_tag_agrees() {
        let port = Uuid::new_v4();
        let mut vnic = Vnic {
            vnic_name: "eth0".into(),
            vnic_uuid: Uuid::new_v4(),
            pg_name: format!("{port}_101"),
            pg_uuid: Uuid::new_v4(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            port_segmentation_id: 101,
            ip_list: vec![],
            ipv6_list: vec![],
        };
        assert_eq!(vnic.port_id(), Some(port));
        vnic.port_segmentation_id = 102;
        assert_eq!(vnic.port_id(), None);
        vnic.pg_name = "VM Network".into();
        assert_eq!(vnic.port_id(), None);
    }
}
