//! How a mutation is written: table, key and JSON value.
//!
//! Keys are text, so that the store can be read with any tool for its format.

use nve_protocol::Vlan;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use crate::model::Mutation;

/// One table per kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// QoS policies.
    QosPolicy,
    /// Address groups.
    AddressGroup,
    /// Security groups.
    SecurityGroup,
    /// Security group rules.
    SecurityGroupRule,
    /// Routers.
    Router,
    /// Clusters of hosts.
    Cluster,
    /// Networks.
    Network,
    /// Subnets.
    Subnet,
    /// Ports.
    Port,
    /// NVEs.
    Nve,
    /// VTEPs.
    Vtep,
    /// Quarantined VLAN tags.
    Quarantine,
    /// VMs.
    Vm,
    /// What remains of VMs that are gone.
    Tombstone,
    /// Last event of each hypervisor manager.
    Cursor,
}

impl Kind {
    /// All kinds, in an order in which what is referred to comes first.
    pub const ALL: [Kind; 15] = [
        Kind::QosPolicy,
        Kind::AddressGroup,
        Kind::SecurityGroup,
        Kind::SecurityGroupRule,
        Kind::Router,
        Kind::Cluster,
        Kind::Network,
        Kind::Subnet,
        Kind::Port,
        Kind::Nve,
        Kind::Vtep,
        Kind::Quarantine,
        Kind::Vm,
        Kind::Tombstone,
        Kind::Cursor,
    ];

    /// Name of the table.
    pub const fn table(self) -> &'static str {
        match self {
            Kind::QosPolicy => "qos_policies",
            Kind::AddressGroup => "address_groups",
            Kind::SecurityGroup => "security_groups",
            Kind::SecurityGroupRule => "security_group_rules",
            Kind::Router => "routers",
            Kind::Cluster => "clusters",
            Kind::Network => "networks",
            Kind::Subnet => "subnets",
            Kind::Port => "ports",
            Kind::Nve => "nves",
            Kind::Vtep => "vteps",
            Kind::Quarantine => "quarantine",
            Kind::Vm => "vms",
            Kind::Tombstone => "tombstones",
            Kind::Cursor => "cursors",
        }
    }

    /// The mutation that puts the object stored under `key`.
    pub fn decode(self, key: &str, value: &[u8]) -> Result<Mutation, StoreError> {
        let mutation = match self {
            Kind::QosPolicy => Mutation::PutQosPolicy(self.parse(key, value)?),
            Kind::AddressGroup => Mutation::PutAddressGroup(self.parse(key, value)?),
            Kind::SecurityGroup => Mutation::PutSecurityGroup(self.parse(key, value)?),
            Kind::SecurityGroupRule => Mutation::PutSecurityGroupRule(self.parse(key, value)?),
            Kind::Router => Mutation::PutRouter(self.parse(key, value)?),
            Kind::Cluster => Mutation::PutCluster(self.parse(key, value)?),
            Kind::Network => Mutation::PutNetwork(self.parse(key, value)?),
            Kind::Subnet => Mutation::PutSubnet(self.parse(key, value)?),
            Kind::Port => Mutation::PutPort(self.parse(key, value)?),
            Kind::Nve => Mutation::PutNve(self.parse(key, value)?),
            Kind::Vtep => Mutation::PutVtep(self.parse(key, value)?),
            Kind::Quarantine => Mutation::PutQuarantine(self.parse(key, value)?),
            Kind::Vm => Mutation::PutVm(self.parse(key, value)?),
            Kind::Tombstone => Mutation::PutTombstone(self.parse(key, value)?),
            Kind::Cursor => Mutation::PutCursor(key.to_owned(), self.parse(key, value)?),
        };
        Ok(mutation)
    }

    fn parse<T: DeserializeOwned>(self, key: &str, value: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(value)
            .map_err(|e| StoreError::Damaged(format!("{} {key}: {e}", self.table())))
    }
}

/// One row to write, or to remove if it has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where.
    pub kind: Kind,
    /// Under which key.
    pub key: String,
    /// JSON, or nothing for a removal.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// What to write for `mutation`.
    pub fn of(mutation: &Mutation) -> Result<Record, StoreError> {
        match mutation {
            Mutation::PutQosPolicy(p) => put(Kind::QosPolicy, p.common.id, p),
            Mutation::DeleteQosPolicy(id) => Ok(delete(Kind::QosPolicy, *id)),
            Mutation::PutAddressGroup(g) => put(Kind::AddressGroup, g.common.id, g),
            Mutation::DeleteAddressGroup(id) => Ok(delete(Kind::AddressGroup, *id)),
            Mutation::PutSecurityGroup(g) => put(Kind::SecurityGroup, g.common.id, g),
            Mutation::DeleteSecurityGroup(id) => Ok(delete(Kind::SecurityGroup, *id)),
            Mutation::PutSecurityGroupRule(r) => put(Kind::SecurityGroupRule, r.common.id, r),
            Mutation::DeleteSecurityGroupRule(id) => Ok(delete(Kind::SecurityGroupRule, *id)),
            Mutation::PutRouter(r) => put(Kind::Router, r.common.id, r),
            Mutation::DeleteRouter(id) => Ok(delete(Kind::Router, *id)),
            Mutation::PutNetwork(n) => put(Kind::Network, n.common.id, n),
            Mutation::DeleteNetwork(id) => Ok(delete(Kind::Network, *id)),
            Mutation::PutSubnet(s) => put(Kind::Subnet, s.common.id, s),
            Mutation::DeleteSubnet(id) => Ok(delete(Kind::Subnet, *id)),
            Mutation::PutPort(p) => put(Kind::Port, p.common.id, p),
            Mutation::DeletePort(id) => Ok(delete(Kind::Port, *id)),
            Mutation::PutNve(n) => put(Kind::Nve, n.id, n),
            Mutation::DeleteNve(id) => Ok(delete(Kind::Nve, *id)),
            Mutation::PutVtep(v) => put(Kind::Vtep, v.id, v),
            Mutation::DeleteVtep(id) => Ok(delete(Kind::Vtep, *id)),
            Mutation::PutVm(v) => put(Kind::Vm, v.vm.vm_uuid, v),
            Mutation::DeleteVm(id) => Ok(delete(Kind::Vm, *id)),
            Mutation::PutTombstone(t) => put(Kind::Tombstone, t.vm_uuid, t),
            Mutation::DeleteTombstone(id) => Ok(delete(Kind::Tombstone, *id)),
            Mutation::PutCursor(manager, event) => put(Kind::Cursor, manager, event),
            Mutation::PutCluster(c) => put(Kind::Cluster, c.id, c),
            Mutation::DeleteCluster(id) => Ok(delete(Kind::Cluster, *id)),
            Mutation::PutQuarantine(q) => put(Kind::Quarantine, tag_key(&q.host, q.tag), q),
            Mutation::DeleteQuarantine(host, tag) => {
                Ok(delete(Kind::Quarantine, tag_key(host, *tag)))
            }
        }
    }
}

fn put(kind: Kind, key: impl ToString, object: &impl Serialize) -> Result<Record, StoreError> {
    let value = serde_json::to_vec(object).map_err(|e| StoreError::Failed(e.to_string()))?;
    Ok(Record {
        kind,
        key: key.to_string(),
        value: Some(value),
    })
}

/// A host's name may have any character, so the tag comes first.
fn tag_key(host: &str, tag: Vlan) -> String {
    format!("{tag}/{host}")
}

fn delete(kind: Kind, id: impl ToString) -> Record {
    Record {
        kind,
        key: id.to_string(),
        value: None,
    }
}
