//! All that the shim knows, in memory, with the indexes that planning and
//! compiling need.
//!
//! The maps are persistent trees: a clone shares everything with its original and
//! costs a few pointer copies. So readers work on snapshots without a lock, and a
//! bulk request is planned on a scratch copy.
//!
//! Invariant: every index entry stands for exactly one object in the main maps;
//! only [`State::apply`] changes either.

mod look;
mod put;
mod security;
mod tags;

use std::net::IpAddr;
use std::sync::Arc;

use nve_protocol::{Mac, Vlan, Vni};
use rpds::RedBlackTreeMapSync as Map;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::model::{
    AddressGroup, Cluster, Mutation, Network, Nve, PlacedVm, Port, QosPolicy, Quarantine, Router,
    SecurityGroup, SecurityGroupRule, Subnet, Vtep,
};

pub use tags::{Occupant, Occupants, Who, on_host};

pub(super) const FIRST_TAG: Vlan = Vlan::new(1).expect("a usable tag");
const LAST_TAG: Vlan = Vlan::new(Vlan::MAX).expect("a usable tag");

/// Members by owner: keys are pairs of owner and member.
type Members = Map<(Uuid, Uuid), ()>;

/// Intent, placement, NVEs and managers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    networks: Map<Uuid, Network>,
    subnets: Map<Uuid, Subnet>,
    ports: Map<Uuid, Port>,
    routers: Map<Uuid, Router>,
    security_groups: Map<Uuid, SecurityGroup>,
    rules: Map<Uuid, SecurityGroupRule>,
    address_groups: Map<Uuid, AddressGroup>,
    qos_policies: Map<Uuid, QosPolicy>,
    nves: Map<Uuid, Nve>,
    vteps: Map<Uuid, Vtep>,
    vms: Map<Uuid, PlacedVm>,
    tombstones: Map<Uuid, OffsetDateTime>,
    cursors: Map<String, Uuid>,
    clusters: Map<Uuid, Cluster>,
    quarantines: Map<(Arc<str>, Vlan), Quarantine>,

    network_by_vni: Map<Vni, Uuid>,
    subnets_by_network: Members,
    ports_by_network: Members,
    port_by_mac: Map<(Uuid, Mac), Uuid>,
    port_by_address: Map<(Uuid, IpAddr), Uuid>,
    ports_per_tag: Map<Vlan, u32>,
    cluster_by_host: Map<String, Uuid>,
    occupants: Map<(Uuid, Vlan), Occupants>,
    quarantines_by_end: Map<(OffsetDateTime, Arc<str>, Vlan), ()>,
    interfaces_by_router: Members,
    interfaces_by_network: Members,
    ports_by_group: Members,
    default_groups: Map<String, Uuid>,
    rules_by_group: Members,
    rules_by_remote: Members,
    ports_by_policy: Members,
    networks_by_policy: Members,
    nve_by_host: Map<String, Uuid>,
}

impl State {
    /// The state that `mutations` lead to, from nothing.
    pub fn replay<'a>(mutations: impl IntoIterator<Item = &'a Mutation>) -> State {
        let mut state = State::default();
        for mutation in mutations {
            state.apply(mutation);
        }
        state
    }

    /// Carries out one change that was validated before.
    pub fn apply(&mut self, mutation: &Mutation) {
        match mutation {
            Mutation::PutNetwork(network) => self.put_network(network),
            Mutation::DeleteNetwork(id) => self.delete_network(*id),
            Mutation::PutSubnet(subnet) => self.put_subnet(subnet),
            Mutation::DeleteSubnet(id) => self.delete_subnet(*id),
            Mutation::PutPort(port) => self.put_port(port),
            Mutation::DeletePort(id) => self.delete_port(*id),
            Mutation::PutRouter(router) => {
                self.routers.insert_mut(router.common.id, router.clone());
            }
            Mutation::DeleteRouter(id) => {
                self.routers.remove_mut(id);
            }
            Mutation::PutSecurityGroup(group) => self.put_security_group(group),
            Mutation::DeleteSecurityGroup(id) => self.delete_security_group(*id),
            Mutation::PutSecurityGroupRule(rule) => self.put_rule(rule),
            Mutation::DeleteSecurityGroupRule(id) => self.delete_rule(*id),
            Mutation::PutAddressGroup(group) => {
                self.address_groups
                    .insert_mut(group.common.id, group.clone());
            }
            Mutation::DeleteAddressGroup(id) => {
                self.address_groups.remove_mut(id);
            }
            Mutation::PutQosPolicy(policy) => {
                self.qos_policies
                    .insert_mut(policy.common.id, policy.clone());
            }
            Mutation::DeleteQosPolicy(id) => {
                self.qos_policies.remove_mut(id);
            }
            Mutation::PutNve(nve) => self.put_nve(nve),
            Mutation::DeleteNve(id) => self.delete_nve(*id),
            Mutation::PutVtep(vtep) => self.vteps.insert_mut(vtep.id, vtep.clone()),
            Mutation::DeleteVtep(id) => {
                self.vteps.remove_mut(id);
            }
            Mutation::PutVm(vm) => self.put_vm(vm),
            Mutation::DeleteVm(id) => self.delete_vm(*id),
            Mutation::PutTombstone(gone) => self.tombstones.insert_mut(gone.vm_uuid, gone.as_of),
            Mutation::DeleteTombstone(id) => {
                self.tombstones.remove_mut(id);
            }
            Mutation::PutCursor(manager, event) => {
                self.cursors.insert_mut(manager.clone(), *event);
            }
            Mutation::PutCluster(cluster) => self.put_cluster(cluster),
            Mutation::DeleteCluster(id) => self.delete_cluster(*id),
            Mutation::PutQuarantine(quarantine) => self.put_quarantine(quarantine),
            Mutation::DeleteQuarantine(host, tag) => self.delete_quarantine(host, *tag),
        }
    }
}

/// The members of an owner, ascending.
fn members(index: &Members, owner: Uuid) -> impl Iterator<Item = Uuid> {
    index
        .range((owner, Uuid::nil())..=(owner, Uuid::max()))
        .map(|((_, member), ())| *member)
}

/// Removes an entry if it stands for `owner`: within one transaction another object
/// may have taken the key over already.
fn disown<K: Ord>(index: &mut Map<K, Uuid>, key: &K, owner: Uuid) {
    if index.get(key) == Some(&owner) {
        index.remove_mut(key);
    }
}
