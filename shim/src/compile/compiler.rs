//! Compiles changes: only the networks that a change concerns, only the NVEs
//! that have them.
//!
//! Invariant: after each change the tables are those that a compiler made anew
//! from the same state would have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nve_protocol::{Record, Vni};
use uuid::Uuid;

use super::network::{self, PerNve};
use super::tables::NveTables;
use crate::intent::State;
use crate::model::{Mutation, Vtep};
use crate::placement::Claims;

/// Records of one network on one NVE.
type Slice = (Vni, Arc<[Record]>);

/// Stands for the VNI of a network that was not compiled before.
const NO_VNI: Vni = Vni::new(0).expect("24 bits");

/// Tables of all NVEs, and what is needed to follow changes.
#[derive(Debug, Default)]
pub struct Compiler {
    state: State,
    claims: Claims,
    networks: BTreeMap<Uuid, (Vni, PerNve)>,
    nves: BTreeMap<Uuid, Arc<NveTables>>,
}

impl Compiler {
    /// Compiles a whole state.
    pub fn new(state: &State) -> Compiler {
        let mut compiler = Compiler {
            state: state.clone(),
            ..Compiler::default()
        };
        for vm in state.vms() {
            compiler.claims.add(vm);
        }
        for nve in state.nves() {
            compiler.nves.insert(nve.id, Arc::default());
        }
        let all = state.networks().map(|network| network.common.id).collect();
        compiler.recompile(all);
        compiler
    }

    /// Tables of an NVE; `None` if it is not registered.
    pub fn tables(&self, nve: Uuid) -> Option<&Arc<NveTables>> {
        self.nves.get(&nve)
    }

    /// Where ports are.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Follows `mutations`, which led to `after`, and returns the NVEs whose
    /// tables are other ones now.
    pub fn follow(&mut self, after: &State, mutations: &[Mutation]) -> BTreeSet<Uuid> {
        let before = std::mem::replace(&mut self.state, after.clone());
        let mut ports = BTreeSet::new();
        let mut dirty = BTreeSet::new();
        for mutation in mutations {
            self.touch(&before, mutation, &mut ports, &mut dirty);
        }
        for port in ports {
            let networks = [before.port(port), after.port(port)];
            dirty.extend(networks.into_iter().flatten().map(|port| port.network_id));
        }
        let mut changed = self.follow_nves(mutations);
        changed.extend(self.recompile(dirty));
        changed
    }

    /// Collects the ports and networks that a mutation concerns.
    fn touch(
        &mut self,
        before: &State,
        mutation: &Mutation,
        ports: &mut BTreeSet<Uuid>,
        networks: &mut BTreeSet<Uuid>,
    ) {
        match mutation {
            Mutation::PutNetwork(network) => {
                self.touch_network(before, network.common.id, ports, networks)
            }
            Mutation::DeleteNetwork(id) => self.touch_network(before, *id, ports, networks),
            // Addresses are the ports'; nothing else of a subnet is compiled.
            Mutation::PutSubnet(_) | Mutation::DeleteSubnet(_) | Mutation::PutCursor(..) => {}
            // Nothing of these is compiled.
            Mutation::PutRouter(_)
            | Mutation::DeleteRouter(_)
            | Mutation::PutSecurityGroup(_)
            | Mutation::DeleteSecurityGroup(_)
            | Mutation::PutSecurityGroupRule(_)
            | Mutation::DeleteSecurityGroupRule(_)
            | Mutation::PutAddressGroup(_)
            | Mutation::DeleteAddressGroup(_)
            | Mutation::PutQosPolicy(_)
            | Mutation::DeleteQosPolicy(_) => {}
            Mutation::PutPort(port) => self.touch_port(port.common.id, ports),
            Mutation::DeletePort(id) => self.touch_port(*id, ports),
            Mutation::PutNve(nve) => {
                ports.extend(self.claims.on_host(&nve.host_name));
                self.touch_host_of(before, nve.id, ports);
            }
            Mutation::DeleteNve(id) => self.touch_host_of(before, *id, ports),
            Mutation::PutVtep(vtep) => {
                networks.extend(networks_of(vtep));
                networks.extend(before.vtep(vtep.id).into_iter().flat_map(networks_of));
            }
            Mutation::DeleteVtep(id) => {
                networks.extend(before.vtep(*id).into_iter().flat_map(networks_of));
            }
            Mutation::PutVm(vm) => self.touch_vm(before, vm.vm.vm_uuid, ports),
            Mutation::DeleteVm(id) => self.touch_vm(before, *id, ports),
        }
    }

    /// A network that comes, goes or changes its administrative state passes the
    /// tags of its ports to, or takes them from, ports of other networks.
    fn touch_network(
        &self,
        before: &State,
        network: Uuid,
        ports: &mut BTreeSet<Uuid>,
        networks: &mut BTreeSet<Uuid>,
    ) {
        networks.insert(network);
        for port in before.ports_of(network).chain(self.state.ports_of(network)) {
            self.touch_port(port.common.id, ports);
        }
    }

    /// A port's change can pass its tag to, or take it from, another port.
    fn touch_port(&self, port: Uuid, ports: &mut BTreeSet<Uuid>) {
        ports.insert(port);
        if let Some(place) = self.claims.place(port) {
            ports.extend(self.claims.on_tag(&place.host, place.vlan));
        }
    }

    fn touch_host_of(&self, before: &State, nve: Uuid, ports: &mut BTreeSet<Uuid>) {
        if let Some(nve) = before.nve(nve) {
            ports.extend(self.claims.on_host(&nve.host_name));
        }
    }

    /// Replaces a VM's claims by those of the newest state. Concerned are the ports
    /// of the old and the new ones, and whoever shares a tag with any place that
    /// these ports had or now have.
    fn touch_vm(&mut self, before: &State, vm: Uuid, ports: &mut BTreeSet<Uuid>) {
        let (old, new) = (before.vm(vm), self.state.vm(vm).cloned());
        let told = || old.into_iter().chain(new.as_ref());
        let mut concerned: BTreeSet<Uuid> = told()
            .flat_map(|placed| self.claims.touched_by(placed))
            .collect();
        concerned
            .iter()
            .for_each(|port| self.touch_port(*port, ports));
        if let Some(old) = old {
            self.claims.remove(old);
        }
        if let Some(new) = &new {
            // One transaction may name a VM twice.
            self.claims.remove(new);
            self.claims.add(new);
        }
        concerned.extend(told().flat_map(|placed| self.claims.touched_by(placed)));
        concerned
            .iter()
            .for_each(|port| self.touch_port(*port, ports));
    }

    fn follow_nves(&mut self, mutations: &[Mutation]) -> BTreeSet<Uuid> {
        let mut changed = BTreeSet::new();
        for mutation in mutations {
            let (Mutation::PutNve(crate::model::Nve { id, .. }) | Mutation::DeleteNve(id)) =
                mutation
            else {
                continue;
            };
            let known = self.nves.contains_key(id);
            match self.state.nve(*id) {
                Some(_) if !known => drop(self.nves.insert(*id, Arc::default())),
                None if known => drop(self.nves.remove(id)),
                _ => continue,
            }
            changed.insert(*id);
        }
        changed
    }

    fn recompile(&mut self, dirty: BTreeSet<Uuid>) -> BTreeSet<Uuid> {
        let mut changed: BTreeMap<Uuid, Vec<Slice>> = BTreeMap::new();
        for id in dirty {
            let (old_vni, old) = self.networks.remove(&id).unwrap_or((NO_VNI, PerNve::new()));
            let network = self.state.network(id);
            let new = network.map(|n| network::compile(&self.state, &self.claims, n));
            let vni = network.map_or(old_vni, |n| n.vni);
            let new = keep_equal(new.unwrap_or_default(), &old, vni == old_vni);
            for nve in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
                let (before, after) = (old.get(nve), new.get(nve));
                if let (Some(before), Some(after)) = (before, after)
                    && Arc::ptr_eq(before, after)
                {
                    continue;
                }
                let list = changed.entry(*nve).or_default();
                // Removals go first: a VNI may pass from one network to another.
                if before.is_some() && (after.is_none() || vni != old_vni) {
                    list.insert(0, (old_vni, Arc::from([])));
                }
                list.extend(after.map(|after| (vni, Arc::clone(after))));
            }
            if network.is_some() {
                self.networks.insert(id, (vni, new));
            }
        }
        changed
            .into_iter()
            .filter_map(|(nve, list)| self.publish(nve, list))
            .collect()
    }

    fn publish(&mut self, nve: Uuid, list: Vec<Slice>) -> Option<Uuid> {
        let tables = self.nves.get_mut(&nve)?;
        let mut next = NveTables::clone(tables);
        for (vni, records) in list {
            next.set(vni, records);
        }
        *tables = Arc::new(next);
        Some(nve)
    }
}

/// Shares the slices that came out as they were.
fn keep_equal(mut new: PerNve, old: &PerNve, same_vni: bool) -> PerNve {
    for (nve, records) in &mut new {
        if let Some(before) = old.get(nve).filter(|before| same_vni && *before == records) {
            *records = Arc::clone(before);
        }
    }
    new
}

fn networks_of(vtep: &Vtep) -> impl Iterator<Item = Uuid> {
    let endpoints = vtep.endpoints.iter().map(|endpoint| endpoint.network_id);
    vtep.networks.iter().copied().chain(endpoints)
}
