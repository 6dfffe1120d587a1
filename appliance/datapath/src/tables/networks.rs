//! Members of each network: who gets a frame without one receiver.

use alloc::vec::Vec;
use hashbrown::HashMap;
use nve_protocol::{Mac, Vlan, Vni};

use super::macs::Fast;
use super::{TableError, VtepIndex};

/// Members of one network, and addresses that were here, each list sorted.
#[derive(Debug, Default)]
pub struct Network {
    vaps: Vec<Vlan>,
    vteps: Vec<VtepIndex>,
    peers: Vec<VtepIndex>,
    departed: Vec<(Mac, Vlan)>,
}

impl Network {
    /// Local VAPs.
    pub fn vaps(&self) -> &[Vlan] {
        &self.vaps
    }

    /// Remote VTEPs.
    pub fn vteps(&self) -> &[VtepIndex] {
        &self.vteps
    }

    /// Whether a VTEP takes part in the network's replication.
    pub fn has_vtep(&self, vtep: VtepIndex) -> bool {
        self.vteps.binary_search(&vtep).is_ok()
    }

    /// Whether a VTEP only routes into the network.
    pub fn has_peer(&self, vtep: VtepIndex) -> bool {
        self.peers.binary_search(&vtep).is_ok()
    }

    /// Whether frames of the network are taken from a VTEP.
    pub fn accepts(&self, vtep: VtepIndex) -> bool {
        self.has_vtep(vtep) || self.has_peer(vtep)
    }

    /// Whether one of the VAPs here whose VM has gone has an address.
    pub fn has_departed(&self, mac: Mac) -> bool {
        let at = self.departed.partition_point(|(other, _)| *other < mac);
        self.departed
            .get(at)
            .is_some_and(|(other, _)| *other == mac)
    }

    /// Whether frames of the network are for anyone here, or for one who was.
    pub fn is_here(&self) -> bool {
        !self.vaps.is_empty() || !self.departed.is_empty()
    }

    fn is_empty(&self) -> bool {
        !self.is_here() && self.vteps.is_empty() && self.peers.is_empty()
    }
}

/// All networks. Invariant: none is empty.
#[derive(Debug, Default)]
pub(super) struct Networks(HashMap<u32, Network, Fast>);

impl Networks {
    pub(super) fn get(&self, vni: Vni) -> Option<&Network> {
        self.0.get(&vni.get())
    }

    pub(super) fn has_vtep(&self, vni: Vni, vtep: VtepIndex) -> bool {
        self.get(vni).is_some_and(|network| network.has_vtep(vtep))
    }

    pub(super) fn has_peer(&self, vni: Vni, vtep: VtepIndex) -> bool {
        self.get(vni).is_some_and(|network| network.has_peer(vtep))
    }

    pub(super) fn add_vap(&mut self, vni: Vni, vlan: Vlan) -> Result<(), TableError> {
        self.edit(vni, |network| insert_sorted(&mut network.vaps, vlan))
    }

    pub(super) fn add_vtep(&mut self, vni: Vni, vtep: VtepIndex) -> Result<(), TableError> {
        self.edit(vni, |network| insert_sorted(&mut network.vteps, vtep))
    }

    pub(super) fn add_peer(&mut self, vni: Vni, vtep: VtepIndex) -> Result<(), TableError> {
        self.edit(vni, |network| insert_sorted(&mut network.peers, vtep))
    }

    pub(super) fn add_departed(
        &mut self,
        vni: Vni,
        mac: Mac,
        vlan: Vlan,
    ) -> Result<(), TableError> {
        self.edit(vni, |network| {
            insert_sorted(&mut network.departed, (mac, vlan))
        })
    }

    pub(super) fn remove_departed(&mut self, vni: Vni, mac: Mac, vlan: Vlan) -> bool {
        self.shrink(vni, |network| {
            remove_sorted(&mut network.departed, (mac, vlan))
        })
    }

    pub(super) fn remove_vap(&mut self, vni: Vni, vlan: Vlan) -> bool {
        self.shrink(vni, |network| remove_sorted(&mut network.vaps, vlan))
    }

    pub(super) fn remove_vtep(&mut self, vni: Vni, vtep: VtepIndex) -> bool {
        self.shrink(vni, |network| remove_sorted(&mut network.vteps, vtep))
    }

    pub(super) fn remove_peer(&mut self, vni: Vni, vtep: VtepIndex) -> bool {
        self.shrink(vni, |network| remove_sorted(&mut network.peers, vtep))
    }

    fn edit(
        &mut self,
        vni: Vni,
        change: impl FnOnce(&mut Network) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        self.0.try_reserve(1).map_err(|_| TableError::OutOfMemory)?;
        let result = change(self.0.entry(vni.get()).or_default());
        if result.is_err() {
            self.drop_empty(vni);
        }
        result
    }

    fn shrink(&mut self, vni: Vni, change: impl FnOnce(&mut Network) -> bool) -> bool {
        let changed = self.0.get_mut(&vni.get()).is_some_and(change);
        self.drop_empty(vni);
        changed
    }

    fn drop_empty(&mut self, vni: Vni) {
        if self.get(vni).is_some_and(Network::is_empty) {
            self.0.remove(&vni.get());
        }
    }
}

fn insert_sorted<T: Ord>(list: &mut Vec<T>, item: T) -> Result<(), TableError> {
    if let Err(at) = list.binary_search(&item) {
        list.try_reserve(1).map_err(|_| TableError::OutOfMemory)?;
        list.insert(at, item);
    }
    Ok(())
}

fn remove_sorted<T: Ord>(list: &mut Vec<T>, item: T) -> bool {
    match list.binary_search(&item) {
        Ok(at) => {
            list.remove(at);
            true
        }
        Err(_) => false,
    }
}
