//! Looking up networks, subnets, ports, routers, NVEs and VMs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nve_protocol::{Mac, Vni};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{State, members};
use crate::model::{Network, Nve, PlacedVm, Port, Router, Subnet, Vtep};

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

    /// The router with that id.
    pub fn router(&self, id: Uuid) -> Option<&Router> {
        self.routers.get(&id)
    }

    /// All routers, by id.
    pub fn routers(&self) -> impl Iterator<Item = &Router> {
        self.routers.values()
    }

    /// The interfaces of a router, by id; of a router that is gone as well.
    pub fn interfaces_of(&self, router: Uuid) -> impl Iterator<Item = &Port> {
        members(&self.interfaces_by_router, router).filter_map(|id| self.port(id))
    }

    /// The interfaces of routers on a network, by id.
    pub fn interfaces_on(&self, network: Uuid) -> impl Iterator<Item = &Port> {
        members(&self.interfaces_by_network, network).filter_map(|id| self.port(id))
    }

    /// The routers that have interfaces on a network, by id, each once.
    pub fn routers_on(&self, network: Uuid) -> impl Iterator<Item = &Router> {
        let routers: BTreeSet<Uuid> = self
            .interfaces_on(network)
            .filter_map(Port::router)
            .collect();
        routers.into_iter().filter_map(|id| self.router(id))
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

    /// As of when the VM with that UUID went, as long as that is remembered.
    pub fn tombstone(&self, vm: Uuid) -> Option<OffsetDateTime> {
        self.tombstones.get(&vm).copied()
    }

    /// All VMs that went and are remembered, by UUID, and as of when.
    pub fn tombstones(&self) -> impl ExactSizeIterator<Item = (Uuid, OffsetDateTime)> {
        self.tombstones.iter().map(|(vm, as_of)| (*vm, *as_of))
    }

    /// The last event taken from the manager of that name.
    pub fn cursor(&self, manager: &str) -> Option<Uuid> {
        self.cursors.get(manager).copied()
    }
}
