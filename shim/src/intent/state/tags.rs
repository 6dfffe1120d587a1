//! Clusters of hosts, and who is on which VLAN tag there.
//!
//! A tag is occupied by the ports that are bound to a host of the cluster, by vNICs
//! that managers tell of, whoever's they are, and by its quarantine.
//!
//! Invariant: an occupant stands for one port, VM or quarantine of the main maps,
//! under the cluster that its host is in now.

use std::sync::Arc;

use imbl::OrdSet;
use nve_protocol::Vlan;
use time::OffsetDateTime;
use uuid::Uuid;

use super::State;
use crate::model::{Cluster, PlacedVm, Port, Quarantine};

/// Who is on one tag in one cluster, by host. A copy shares everything with its
/// original, and a change costs the same however many there are: a VLAN of a data
/// centre may have all its VMs.
pub type Occupants = OrdSet<Occupant>;

/// Who is on a tag, and on which host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Occupant {
    /// Name of the host.
    pub host: Arc<str>,
    /// Who.
    pub who: Who,
}

/// What keeps a tag from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A port that is bound to the host.
    Port(Uuid),
    /// A VM's vNIC, in a port group whose name carries that port if any.
    Vnic(Uuid, Option<Uuid>),
    /// Nobody until then; a port had it.
    Quarantine(Uuid, OffsetDateTime),
}

impl Occupant {
    /// Whether it keeps the tag from a port at that moment.
    pub fn bars(&self, port: Uuid, now: OffsetDateTime) -> bool {
        match self.who {
            Who::Port(other) => other != port,
            Who::Vnic(_, other) => other != Some(port),
            Who::Quarantine(other, until) => other != port && until > now,
        }
    }
}

impl State {
    /// The cluster with that id.
    pub fn cluster(&self, id: Uuid) -> Option<&Cluster> {
        self.clusters.get(&id)
    }

    /// All clusters but the default one, by id.
    pub fn clusters(&self) -> impl Iterator<Item = &Cluster> {
        self.clusters.values()
    }

    /// The id of the cluster that a host is in; nil for the default one.
    pub fn cluster_of(&self, host: &str) -> Uuid {
        self.cluster_by_host.get(host).copied().unwrap_or_default()
    }

    /// Name of a cluster.
    pub fn cluster_name(&self, id: Uuid) -> &str {
        self.cluster(id)
            .map_or(crate::intent::cluster::DEFAULT, |c| c.name.as_str())
    }

    /// Who is on a tag in a cluster.
    pub fn occupants(&self, cluster: Uuid, tag: Vlan) -> Occupants {
        let all = self.occupants.get(&(cluster, tag));
        all.cloned().unwrap_or_default()
    }

    /// The tags of a cluster that anybody is on, ascending, and who.
    pub fn occupied(&self, cluster: Uuid) -> impl Iterator<Item = (Vlan, &Occupants)> {
        self.occupants
            .range((cluster, super::FIRST_TAG)..=(cluster, super::LAST_TAG))
            .map(|((_, tag), all)| (*tag, all))
    }

    /// The port that Neutron binds to that host (`binding:host_id`) with that tag; of
    /// several, that with the lowest UUID.
    pub fn port_by_tag(&self, host: &str, tag: Vlan) -> Option<&Port> {
        let all = self.occupants.get(&(self.cluster_of(host), tag))?;
        on_host(all, host).find_map(|occupant| match occupant.who {
            Who::Port(id) => self.port(id),
            _ => None,
        })
    }

    /// How many ports, on any host or none, have that tag.
    pub fn ports_with_tag(&self, tag: Vlan) -> u32 {
        self.ports_per_tag.get(&tag).copied().unwrap_or(0)
    }

    /// Quarantined tags, by host.
    pub fn quarantines(&self) -> impl Iterator<Item = &Quarantine> {
        self.quarantines.values()
    }

    /// Quarantines that have ended by `now`, oldest first.
    pub fn ended_quarantines(&self, now: OffsetDateTime) -> impl Iterator<Item = (&str, Vlan)> {
        let ends = self.quarantines_by_end.keys();
        ends.take_while(move |(until, ..)| *until <= now)
            .map(|(_, host, tag)| (&**host, *tag))
    }

    pub(super) fn put_cluster(&mut self, cluster: &Cluster) {
        self.disband(cluster.id);
        for host in &cluster.hosts {
            self.cluster_by_host.insert_mut(host.clone(), cluster.id);
        }
        self.clusters.insert_mut(cluster.id, cluster.clone());
        self.index_tags();
    }

    pub(super) fn delete_cluster(&mut self, id: Uuid) {
        self.disband(id);
        self.clusters.remove_mut(&id);
        self.index_tags();
    }

    fn disband(&mut self, id: Uuid) {
        let hosts = self.clusters.get(&id).map(|old| old.hosts.clone());
        for host in hosts.into_iter().flatten() {
            super::disown(&mut self.cluster_by_host, &host, id);
        }
    }

    pub(super) fn put_quarantine(&mut self, quarantine: &Quarantine) {
        self.delete_quarantine(&quarantine.host, quarantine.tag);
        let host: Arc<str> = Arc::from(quarantine.host.as_str());
        let key = (host.clone(), quarantine.tag);
        self.quarantines.insert_mut(key, quarantine.clone());
        let end = (quarantine.until, host, quarantine.tag);
        self.quarantines_by_end.insert_mut(end, ());
        let (tag, occupant) = of_quarantine(quarantine);
        self.occupy(tag, occupant);
    }

    pub(super) fn delete_quarantine(&mut self, host: &str, tag: Vlan) {
        let key = (Arc::from(host), tag);
        let Some(old) = self.quarantines.get(&key).cloned() else {
            return;
        };
        self.quarantines.remove_mut(&key);
        self.quarantines_by_end
            .remove_mut(&(old.until, key.0, old.tag));
        let (tag, occupant) = of_quarantine(&old);
        self.vacate(tag, &occupant);
    }

    pub(super) fn put_vm(&mut self, placed: &PlacedVm) {
        let id = placed.vm.vm_uuid;
        let sightings = |placed: &PlacedVm| of_vm(placed).collect::<Vec<_>>();
        let old = self.vms.get(&id).map(sightings).unwrap_or_default();
        let new = sightings(placed);
        if old != new {
            for (tag, occupant) in &old {
                self.vacate(*tag, occupant);
            }
            for (tag, occupant) in new {
                self.occupy(tag, occupant);
            }
        }
        self.vms.insert_mut(id, placed.clone());
    }

    pub(super) fn delete_vm(&mut self, id: Uuid) {
        let Some(old) = self.vms.get(&id).cloned() else {
            return;
        };
        for (tag, occupant) in of_vm(&old) {
            self.vacate(tag, &occupant);
        }
        self.vms.remove_mut(&id);
    }

    pub(super) fn take_tag(&mut self, port: &Port) {
        let Some(tag) = port.segmentation_id else {
            return;
        };
        self.ports_per_tag
            .insert_mut(tag, self.ports_with_tag(tag) + 1);
        if let Some(occupant) = of_port(port) {
            self.occupy(tag, occupant);
        }
    }

    pub(super) fn leave_tag(&mut self, port: &Port) {
        let Some(tag) = port.segmentation_id else {
            return;
        };
        match self.ports_with_tag(tag) {
            more @ 2.. => self.ports_per_tag.insert_mut(tag, more - 1),
            _ => {
                self.ports_per_tag.remove_mut(&tag);
            }
        }
        if let Some(occupant) = of_port(port) {
            self.vacate(tag, &occupant);
        }
    }

    fn occupy(&mut self, tag: Vlan, occupant: Occupant) {
        let key = (self.cluster_of(&occupant.host), tag);
        let mut all = self.occupants(key.0, tag);
        if all.insert(occupant).is_none() {
            self.occupants.insert_mut(key, all);
        }
    }

    fn vacate(&mut self, tag: Vlan, occupant: &Occupant) {
        let key = (self.cluster_of(&occupant.host), tag);
        let mut all = self.occupants(key.0, tag);
        if all.remove(occupant).is_none() {
            return;
        }
        match all.is_empty() {
            true => drop(self.occupants.remove_mut(&key)),
            false => self.occupants.insert_mut(key, all),
        }
    }

    /// Makes the index anew, since hosts are in other clusters now.
    fn index_tags(&mut self) {
        let ports = self
            .ports
            .values()
            .filter_map(|port| Some((port.segmentation_id?, of_port(port)?)));
        let vms = self.vms.values().flat_map(of_vm);
        let quarantines = self.quarantines.values().map(of_quarantine);
        let all: Vec<_> = ports.chain(vms).chain(quarantines).collect();
        self.occupants = Default::default();
        for (tag, occupant) in all {
            self.occupy(tag, occupant);
        }
    }
}

/// Those who are on a host.
pub fn on_host<'o>(
    occupants: &'o Occupants,
    host: &'o str,
) -> impl Iterator<Item = &'o Occupant> + use<'o> {
    let first = Occupant {
        host: Arc::from(host),
        who: Who::Port(Uuid::nil()),
    };
    let from = occupants.range(first..);
    from.take_while(move |occupant| &*occupant.host == host)
}

/// A bound port as an occupant.
fn of_port(port: &Port) -> Option<Occupant> {
    let host = port.binding_host_id.as_str();
    (!host.is_empty()).then(|| Occupant {
        host: Arc::from(host),
        who: Who::Port(port.common.id),
    })
}

/// A VM's vNICs as occupants, whether it runs or not.
fn of_vm(placed: &PlacedVm) -> impl Iterator<Item = (Vlan, Occupant)> {
    let vm = &placed.vm;
    let host: Arc<str> = Arc::from(placed.host_name());
    vm.vnic_list.iter().filter_map(move |vnic| {
        let occupant = Occupant {
            host: host.clone(),
            who: Who::Vnic(vm.vm_uuid, vnic.port_id()),
        };
        Some((Vlan::new(vnic.port_segmentation_id)?, occupant))
    })
}

fn of_quarantine(quarantine: &Quarantine) -> (Vlan, Occupant) {
    let occupant = Occupant {
        host: Arc::from(quarantine.host.as_str()),
        who: Who::Quarantine(quarantine.port, quarantine.until),
    };
    (quarantine.tag, occupant)
}
