//! What a hypervisor manager lists.
//!
//! One VM that cannot be read does not hide the others: it is set aside, with its UUID
//! if that can be read, so that nobody takes it for gone.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::VmState;

/// Characters of a reason that are kept; it may quote what was sent.
const LONGEST_REASON: usize = 200;

/// All VMs of a hypervisor manager at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Listing")]
pub struct Inventory {
    /// Moment of the listing (RFC 3339): events before it are contained.
    #[serde(with = "time::serde::rfc3339")]
    pub timestamp: OffsetDateTime,
    /// Last event that the listing contains; where to resume.
    pub last_event_id: Option<Uuid>,
    /// The VMs.
    pub vms: Vec<VmState>,
    /// VMs that are listed in a form that cannot be read.
    #[serde(skip)]
    pub unread: Vec<Unread>,
}

/// A VM that is listed in a form that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Its UUID, if at least that is as it should be.
    pub vm_uuid: Option<Uuid>,
    /// Why not, in up to 200 characters.
    pub reason: String,
}

impl Inventory {
    /// UUIDs of the VMs that are listed, in whatever form.
    pub fn listed(&self) -> impl Iterator<Item = Uuid> {
        let unread = self.unread.iter().filter_map(|unread| unread.vm_uuid);
        self.vms.iter().map(|vm| vm.vm_uuid).chain(unread)
    }

    /// Whether a VM that is not among those [`listed`](Self::listed) is gone. It may not
    /// be if it is not known which VM an entry is.
    pub fn is_whole(&self) -> bool {
        self.unread.iter().all(|unread| unread.vm_uuid.is_some())
    }
}

/// An inventory as it comes.
#[derive(Deserialize)]
struct Listing {
    #[serde(with = "time::serde::rfc3339")]
    timestamp: OffsetDateTime,
    last_event_id: Option<Uuid>,
    vms: Vec<Entry>,
}

/// An element of its list.
enum Entry {
    Vm(VmState),
    Unread(Unread),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(input)?;
        Ok(match VmState::deserialize(&value) {
            Ok(vm) => Entry::Vm(vm),
            Err(error) => Entry::Unread(Unread {
                vm_uuid: value["vm_uuid"].as_str().and_then(|id| id.parse().ok()),
                reason: error.to_string().chars().take(LONGEST_REASON).collect(),
            }),
        })
    }
}

impl From<Listing> for Inventory {
    fn from(listing: Listing) -> Self {
        let mut inventory = Inventory {
            timestamp: listing.timestamp,
            last_event_id: listing.last_event_id,
            vms: Vec::new(),
            unread: Vec::new(),
        };
        for entry in listing.vms {
            match entry {
                Entry::Vm(vm) => inventory.vms.push(vm),
                Entry::Unread(unread) => inventory.unread.push(unread),
            }
        }
        inventory
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vm(id: u128) -> Value {
        json!({
            "vm_name": "a", "vm_uuid": Uuid::from_u128(id), "vm_status": "running",
            "host_name": "h", "host_uuid": Uuid::nil(), "vnic_list": [{
                "vnic_name": "eth0", "vnic_uuid": Uuid::nil(), "pg_name": "VM Network",
                "pg_uuid": Uuid::nil(), "mac": "02:00:00:00:00:01",
                "port_segmentation_id": 7,
            }],
        })
    }

    fn read(vms: Vec<Value>) -> Inventory {
        let listing = json!({"timestamp": "2026-01-01T00:00:00Z", "vms": vms});
        serde_json::from_str(&listing.to_string()).unwrap()
    }

    #[test]
    fn a_vm_that_cannot_be_read_is_set_aside() {
        let mut status = vm(2);
        status["vm_status"] = json!("dancing".repeat(100));
        let mut mac = vm(3);
        mac["vnic_list"][0]["mac"] = json!("02-00-00-00-00-01");
        let mut missing = vm(4);
        missing.as_object_mut().unwrap().remove("host_name");
        let inventory = read(vec![vm(1), status, mac, missing, vm(5)]);
        let read_ids: Vec<u128> = inventory
            .vms
            .iter()
            .map(|vm| vm.vm_uuid.as_u128())
            .collect();
        assert_eq!(read_ids, [1, 5]);
        let ids: Vec<_> = inventory.unread.iter().map(|vm| vm.vm_uuid).collect();
        assert_eq!(ids, [2, 3, 4].map(|id| Some(Uuid::from_u128(id))));
        let reasons = inventory.unread.iter().map(|unread| &unread.reason);
        for (reason, words) in reasons.zip(["dancing", "MAC address", "host_name"]) {
            assert!(reason.contains(words) && reason.len() <= 200, "{reason}");
        }
        assert!(inventory.is_whole());
        let listed = inventory.listed().map(|id| id.as_u128());
        assert_eq!(Vec::from_iter(listed), [1, 5, 2, 3, 4]);
    }

    #[test]
    fn an_entry_without_a_uuid_leaves_open_who_is_not_listed() {
        let mut other = vm(2);
        other["vm_uuid"] = json!("vm-2");
        for entry in [other, json!(7), json!(null), json!({}), json!([])] {
            let inventory = read(vec![vm(1), entry]);
            assert_eq!((inventory.vms.len(), inventory.unread.len()), (1, 1));
            assert!(!inventory.is_whole());
        }
    }

    #[test]
    fn what_is_told_is_read_again() {
        let inventory = read(vec![vm(1)]);
        let told = serde_json::to_string(&inventory).unwrap();
        assert_eq!(serde_json::from_str::<Inventory>(&told).unwrap(), inventory);
        assert!(!told.contains("unread"));
    }
}
