//! All that the shim knows, in memory, with the indexes that planning and
//! compiling need.
//!
//! The maps are persistent trees: a clone shares everything with its original and
//! costs a few pointer copies. So readers work on snapshots without a lock, and a
//! bulk request is planned on a scratch copy.
//!
//! Invariant: every index entry stands for exactly one object in the main maps;
//! only [`State::apply`] changes either.

use std::net::IpAddr;
use std::sync::Arc;

use nve_protocol::{Mac, Vlan, Vni};
use rpds::RedBlackTreeMapSync as Map;
use uuid::Uuid;

use crate::model::{Mutation, Network, Nve, PlacedVm, Port, Subnet, Vtep};

const FIRST_TAG: Vlan = Vlan::new(1).expect("a usable tag");
const LAST_TAG: Vlan = Vlan::new(Vlan::MAX).expect("a usable tag");

/// Intent, placement, NVEs and managers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    networks: Map<Uuid, Network>,
    subnets: Map<Uuid, Subnet>,
    ports: Map<Uuid, Port>,
    nves: Map<Uuid, Nve>,
    vteps: Map<Uuid, Vtep>,
    vms: Map<Uuid, PlacedVm>,
    cursors: Map<String, Uuid>,

    network_by_vni: Map<Vni, Uuid>,
    subnets_by_network: Map<(Uuid, Uuid), ()>,
    ports_by_network: Map<(Uuid, Uuid), ()>,
    port_by_mac: Map<(Uuid, Mac), Uuid>,
    port_by_address: Map<(Uuid, IpAddr), Uuid>,
    port_by_tag: Map<(Arc<str>, Vlan), Uuid>,
    ports_per_tag: Map<Vlan, u32>,
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
            Mutation::PutNve(nve) => self.put_nve(nve),
            Mutation::DeleteNve(id) => self.delete_nve(*id),
            Mutation::PutVtep(vtep) => self.vteps.insert_mut(vtep.id, vtep.clone()),
            Mutation::DeleteVtep(id) => {
                self.vteps.remove_mut(id);
            }
            Mutation::PutVm(vm) => self.vms.insert_mut(vm.vm.vm_uuid, vm.clone()),
            Mutation::DeleteVm(id) => {
                self.vms.remove_mut(id);
            }
            Mutation::PutCursor(manager, event) => {
                self.cursors.insert_mut(manager.clone(), *event);
            }
        }
    }
}

/// Looking things up.
impl State {
    /// The network with that id.
    pub fn network(&self, id: Uuid) -> Option<&Network> {
        self.networks.get(&id)
    }

    /// All networks, by id.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    /// The network that has that VNI.
    pub fn network_by_vni(&self, vni: Vni) -> Option<&Network> {
        self.network(*self.network_by_vni.get(&vni)?)
    }

    /// VNIs in use within the bounds, ascending.
    pub fn vnis(&self, first: Vni, last: Vni) -> impl DoubleEndedIterator<Item = Vni> {
        self.network_by_vni.range(first..=last).map(|(vni, _)| *vni)
    }

    /// The subnet with that id.
    pub fn subnet(&self, id: Uuid) -> Option<&Subnet> {
        self.subnets.get(&id)
    }

    /// All subnets, by id.
    pub fn subnets(&self) -> impl Iterator<Item = &Subnet> {
        self.subnets.values()
    }

    /// The subnets of a network, by id.
    pub fn subnets_of(&self, network: Uuid) -> impl Iterator<Item = &Subnet> {
        members(&self.subnets_by_network, network).filter_map(|id| self.subnet(id))
    }

    /// The port with that id.
    pub fn port(&self, id: Uuid) -> Option<&Port> {
        self.ports.get(&id)
    }

    /// All ports, by id.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.values()
    }

    /// The ports of a network, by id.
    pub fn ports_of(&self, network: Uuid) -> impl Iterator<Item = &Port> {
        members(&self.ports_by_network, network).filter_map(|id| self.port(id))
    }

    /// The port with that MAC address on a network.
    pub fn port_by_mac(&self, network: Uuid, mac: Mac) -> Option<&Port> {
        self.port(*self.port_by_mac.get(&(network, mac))?)
    }

    /// The port with that address of a subnet.
    pub fn port_by_address(&self, subnet: Uuid, address: IpAddr) -> Option<&Port> {
        self.port(*self.port_by_address.get(&(subnet, address))?)
    }

    /// Addresses of a subnet that ports have, within the bounds, ascending.
    pub fn addresses(
        &self,
        subnet: Uuid,
        first: IpAddr,
        last: IpAddr,
    ) -> impl DoubleEndedIterator<Item = IpAddr> {
        self.port_by_address
            .range((subnet, first)..=(subnet, last))
            .map(|((_, address), _)| *address)
    }

    /// The port that Neutron binds to that host (`binding:host_id`) with that tag.
    pub fn port_by_tag(&self, host: &str, tag: Vlan) -> Option<&Port> {
        self.port(*self.port_by_tag.get(&(Arc::from(host), tag))?)
    }

    /// The tags in use on that host, ascending.
    pub fn tags_on(&self, host: &str) -> impl Iterator<Item = Vlan> {
        let host: Arc<str> = Arc::from(host);
        let (first, last) = ((host.clone(), FIRST_TAG), (host, LAST_TAG));
        self.port_by_tag
            .range(first..=last)
            .map(|((_, tag), _)| *tag)
    }

    /// How many ports, on any host or none, have that tag.
    pub fn ports_with_tag(&self, tag: Vlan) -> u32 {
        self.ports_per_tag.get(&tag).copied().unwrap_or(0)
    }

    /// The NVE with that id.
    pub fn nve(&self, id: Uuid) -> Option<&Nve> {
        self.nves.get(&id)
    }

    /// All NVEs, by id.
    pub fn nves(&self) -> impl Iterator<Item = &Nve> {
        self.nves.values()
    }

    /// The NVE that serves the host of that name.
    pub fn nve_by_host(&self, host_name: &str) -> Option<&Nve> {
        self.nve(*self.nve_by_host.get(host_name)?)
    }

    /// The VTEP with that id.
    pub fn vtep(&self, id: Uuid) -> Option<&Vtep> {
        self.vteps.get(&id)
    }

    /// All VTEPs, by id.
    pub fn vteps(&self) -> impl Iterator<Item = &Vtep> {
        self.vteps.values()
    }

    /// The VM with that UUID.
    pub fn vm(&self, id: Uuid) -> Option<&PlacedVm> {
        self.vms.get(&id)
    }

    /// All VMs, by UUID.
    pub fn vms(&self) -> impl Iterator<Item = &PlacedVm> {
        self.vms.values()
    }

    /// The last event taken from the manager of that name.
    pub fn cursor(&self, manager: &str) -> Option<Uuid> {
        self.cursors.get(manager).copied()
    }
}

/// Second halves of the keys whose first half is `owner`.
fn members(index: &Map<(Uuid, Uuid), ()>, owner: Uuid) -> impl Iterator<Item = Uuid> {
    index
        .range((owner, Uuid::nil())..=(owner, Uuid::max()))
        .map(|((_, member), ())| *member)
}

/// Objects together with their index entries.
impl State {
    fn put_network(&mut self, network: &Network) {
        let id = network.common.id;
        self.delete_network(id);
        self.network_by_vni.insert_mut(network.vni, id);
        self.networks.insert_mut(id, network.clone());
    }

    fn delete_network(&mut self, id: Uuid) {
        if let Some(old) = self.networks.get(&id) {
            disown(&mut self.network_by_vni, &old.vni, id);
        }
        self.networks.remove_mut(&id);
    }

    fn put_subnet(&mut self, subnet: &Subnet) {
        let id = subnet.common.id;
        self.delete_subnet(id);
        self.subnets_by_network
            .insert_mut((subnet.network_id, id), ());
        self.subnets.insert_mut(id, subnet.clone());
    }

    fn delete_subnet(&mut self, id: Uuid) {
        if let Some(old) = self.subnets.get(&id) {
            self.subnets_by_network.remove_mut(&(old.network_id, id));
        }
        self.subnets.remove_mut(&id);
    }

    fn put_port(&mut self, port: &Port) {
        let id = port.common.id;
        self.delete_port(id);
        let network = port.network_id;
        self.ports_by_network.insert_mut((network, id), ());
        self.port_by_mac.insert_mut((network, port.mac_address), id);
        for ip in &port.fixed_ips {
            self.port_by_address
                .insert_mut((ip.subnet_id, ip.ip_address), id);
        }
        if let Some(key) = tag_key(port) {
            self.port_by_tag.insert_mut(key, id);
        }
        let tag = port.segmentation_id;
        self.ports_per_tag
            .insert_mut(tag, self.ports_with_tag(tag) + 1);
        self.ports.insert_mut(id, port.clone());
    }

    fn delete_port(&mut self, id: Uuid) {
        let Some(old) = self.ports.get(&id) else {
            return;
        };
        let network = old.network_id;
        self.ports_by_network.remove_mut(&(network, id));
        disown(&mut self.port_by_mac, &(network, old.mac_address), id);
        for ip in &old.fixed_ips {
            disown(
                &mut self.port_by_address,
                &(ip.subnet_id, ip.ip_address),
                id,
            );
        }
        if let Some(key) = tag_key(old) {
            disown(&mut self.port_by_tag, &key, id);
        }
        let tag = old.segmentation_id;
        match self.ports_per_tag.get(&tag).copied() {
            Some(more @ 2..) => self.ports_per_tag.insert_mut(tag, more - 1),
            _ => {
                self.ports_per_tag.remove_mut(&tag);
            }
        }
        self.ports.remove_mut(&id);
    }

    fn put_nve(&mut self, nve: &Nve) {
        self.delete_nve(nve.id);
        self.nve_by_host.insert_mut(nve.host_name.clone(), nve.id);
        self.nves.insert_mut(nve.id, nve.clone());
    }

    fn delete_nve(&mut self, id: Uuid) {
        if let Some(old) = self.nves.get(&id) {
            disown(&mut self.nve_by_host, &old.host_name, id);
        }
        self.nves.remove_mut(&id);
    }
}

/// Removes an entry if it stands for `owner`: within one transaction another object
/// may have taken the key over already.
fn disown<K: Ord>(index: &mut Map<K, Uuid>, key: &K, owner: Uuid) {
    if index.get(key) == Some(&owner) {
        index.remove_mut(key);
    }
}

/// Index key of a port that is bound to a host.
fn tag_key(port: &Port) -> Option<(Arc<str>, Vlan)> {
    let host = port.binding_host_id.as_str();
    (!host.is_empty()).then(|| (Arc::from(host), port.segmentation_id))
}
