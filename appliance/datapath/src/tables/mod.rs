//! The tables that the shim fills: VAPs, FDB, neighbors and replication lists.
//!
//! One record goes in or out at a time and the [`TableDigest`] follows; whether
//! many go together is the agent's transaction, which works on a `Tables` of its
//! own or undoes what it did.
//!
//! Invariants: the digest is that of exactly the records put and not deleted;
//! every VTEP that a record names has a slot, and a slot is freed with its last
//! record; memory grows only in [`Tables::put`] and [`Tables::wake`], which report its lack.

use core::net::IpAddr;

use alloc::sync::Arc;
use nve_protocol::handover::Level;
use nve_protocol::{
    Address, Binding, DhcpOption, Direction, Family, Fdb, Flood, Gateway, Key, Limit, Mac, Member,
    Neighbor, Peer, Qos, Record, RouterId, TableDigest, TableSizes, Vlan, Vni,
};

use crate::groups::Groups;
use crate::meter::SharedMeters;
use crate::{Nanos, Role};

mod addresses;
mod changes;
mod lists;
mod macs;
mod neighbors;
mod networks;
mod qos;
mod routers;
mod services;
mod vaps;
mod vteps;

#[cfg(test)]
mod tests;

use addresses::Addresses;
pub use changes::Changes;
pub(crate) use changes::{NEVER, Scope};
pub(crate) use macs::{Fast, FastHasher};
use macs::{LocalMacs, RemoteMacs};
use neighbors::Neighbors;
pub use networks::Network;
use networks::Networks;
pub use qos::MeterIndex;
use qos::QosTable;
pub use routers::Hop;
use routers::Routers;
pub use services::Services;
use services::{AllServices, DhcpOptions};
use vaps::Vaps;
pub use vteps::VtepIndex;
use vteps::Vteps;

/// Why a record was not taken; the tables are as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableError {
    /// The table holds as many records as it may.
    Full,
    /// No memory for one more.
    OutOfMemory,
    /// A value that the datapath has no use for: a group or zero MAC address, an
    /// unspecified or multicast VTEP, or a DSCP of more than six bits.
    BadRecord,
}

/// What security asks of the tables.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'t> {
    /// What is allowed.
    pub groups: &'t Groups,
    /// And since when.
    pub changes: &'t Changes,
}

/// All tables of one NVE.
#[derive(Debug)]
pub struct Tables {
    capacity: TableSizes,
    sizes: TableSizes,
    digest: TableDigest,
    vaps: Vaps,
    local: LocalMacs,
    remote: RemoteMacs,
    neighbors: Neighbors,
    networks: Networks,
    vteps: Vteps,
    routers: Routers,
    qos: QosTable,
    groups: Groups,
    addresses: Addresses,
    services: AllServices,
    dhcp_options: DhcpOptions,
    changes: Changes,
}

impl Tables {
    /// Empty tables that take at most `capacity` records.
    pub fn new(capacity: TableSizes) -> Self {
        Tables {
            capacity,
            sizes: TableSizes::default(),
            digest: TableDigest::default(),
            vaps: Vaps::new(),
            local: LocalMacs::default(),
            remote: RemoteMacs::default(),
            neighbors: Neighbors::default(),
            networks: Networks::default(),
            vteps: Vteps::default(),
            routers: Routers::default(),
            qos: QosTable::default(),
            groups: Groups::default(),
            addresses: Addresses::default(),
            services: AllServices::default(),
            dhcp_options: DhcpOptions::default(),
            changes: Changes::new(),
        }
    }

    /// From now on it is told which changes concern what; until then, and if memory is
    /// short, each concerns everything.
    pub fn tell_changes_apart(&mut self) {
        self.changes.tell_apart();
    }

    /// From now on, frames pass `meters`, which other processors' tables have too.
    pub fn share_meters(&mut self, meters: Arc<SharedMeters>, role: Role) {
        self.qos.share(meters, role);
    }

    /// How many records fit.
    pub fn capacity(&self) -> TableSizes {
        self.capacity
    }

    /// Puts other tables in the place of these. Rate limits go on: meters of VAPs that
    /// have one in both are no fuller than before. VAPs that are on standby in both stay
    /// awake.
    pub fn replace(&mut self, other: Tables) {
        let old = core::mem::replace(self, other);
        self.qos.succeed(&old.qos);
        self.stay_awake(&old);
        self.vteps.renew();
        self.changes = old.changes;
        self.changes.mark_all();
    }

    /// Digest of all records.
    pub fn digest(&self) -> TableDigest {
        self.digest
    }

    /// How many records there are.
    pub fn sizes(&self) -> TableSizes {
        self.sizes
    }

    /// Puts a record and returns the one that it replaces.
    pub fn put(&mut self, record: &Record) -> Result<Option<Record>, TableError> {
        let table = record.table();
        if self.sizes.get(table) >= self.capacity.get(table) && !self.contains(&record.key()) {
            return Err(TableError::Full);
        }
        let replaced = match record {
            Record::Vap(vap) => self.put_vap(vap)?.map(Record::Vap),
            Record::Fdb(fdb) => self.put_fdb(fdb)?.map(Record::Fdb),
            Record::Neighbor(neighbor) => self.put_neighbor(neighbor)?.map(Record::Neighbor),
            Record::Flood(flood) => self.put_flood(flood)?.map(Record::Flood),
            Record::Peer(peer) => self.put_peer(peer)?.map(Record::Peer),
            Record::Gateway(gateway) => self.put_gateway(gateway)?.map(Record::Gateway),
            Record::Route(route) => self.routers.put_route(route)?.map(Record::Route),
            Record::Qos(qos) => self.qos.put(qos)?.map(Record::Qos),
            Record::Group(group) => self.groups.put_group(group)?.map(Record::Group),
            Record::Rule(rule) => self.groups.put_rule(rule)?.map(Record::Rule),
            Record::Member(member) => self.groups.put_member(member)?.map(Record::Member),
            Record::Binding(binding) => self.groups.put_binding(binding)?.map(Record::Binding),
            Record::Address(address) => self.put_address(address)?.map(Record::Address),
            Record::DhcpOption(option) => self.dhcp_options.put(option)?.map(Record::DhcpOption),
            Record::Network(nve_protocol::Network { vni, .. })
            | Record::Subnet(nve_protocol::Subnet { vni, .. })
            | Record::Dns(nve_protocol::Dns { vni, .. })
            | Record::HostRoute(nve_protocol::HostRoute { vni, .. }) => {
                self.services.put(*vni, record)?
            }
        };
        match &replaced {
            Some(old) => self.digest.remove(old),
            None => *self.sizes.get_mut(table) += 1,
        }
        self.digest.add(record);
        if replaced.as_ref() != Some(record) {
            self.note_change(replaced.iter().chain([record]));
        }
        Ok(replaced)
    }

    /// Deletes a record and returns it; `None` if there is none with this key.
    pub fn delete(&mut self, key: &Key) -> Option<Record> {
        let removed = match *key {
            Key::Vap { vlan } => self.delete_vap(vlan).map(Record::Vap),
            Key::Fdb { vni, mac } => self.delete_fdb(vni, mac).map(Record::Fdb),
            Key::Neighbor { vni, ip } => self
                .neighbors
                .remove(vni, ip)
                .map(|mac| Record::Neighbor(Neighbor { vni, ip, mac })),
            Key::Flood { vni, vtep } => self.delete_flood(vni, vtep).map(Record::Flood),
            Key::Peer { vni, vtep } => self.delete_peer(vni, vtep).map(Record::Peer),
            Key::Gateway { vni, ip } => self.routers.delete_gateway(vni, ip).map(Record::Gateway),
            Key::Route {
                router,
                destination,
            } => self
                .routers
                .delete_route(router, destination)
                .map(Record::Route),
            Key::Qos { vlan } => self.qos.delete(vlan).map(Record::Qos),
            Key::Group { group } => self.groups.delete_group(group).map(Record::Group),
            Key::Rule { id } => self.groups.delete_rule(id).map(Record::Rule),
            Key::Member { group, prefix } => {
                self.groups.delete_member(group, prefix).map(Record::Member)
            }
            Key::Binding { vlan, group } => {
                self.groups.delete_binding(vlan, group).map(Record::Binding)
            }
            Key::Address { vlan, mac, prefix } => self
                .addresses
                .delete(vlan, mac, prefix)
                .map(Record::Address),
            Key::DhcpOption {
                vlan,
                family,
                code,
                part,
            } => self
                .dhcp_options
                .delete(vlan, family, code, part)
                .map(Record::DhcpOption),
            Key::Network { vni }
            | Key::Subnet { vni, .. }
            | Key::Dns { vni, .. }
            | Key::HostRoute { vni, .. } => self.services.delete(vni, key),
        }?;
        self.digest.remove(&removed);
        *self.sizes.get_mut(key.table()) -= 1;
        self.note_change([&removed]);
        Some(removed)
    }

    /// Notes what verdicts these records, which came or went, may have been part of: each
    /// scope that [`Datapath::is_good`](crate::Datapath) asks about is marked by all
    /// records that decide what is read of it.
    fn note_change<'r>(&mut self, records: impl IntoIterator<Item = &'r Record>) {
        for record in records {
            match record {
                Record::Vap(vap) => {
                    self.changes.mark(Scope::Vap(vap.vlan));
                    self.changes.mark(Scope::Station(vap.vni, vap.mac));
                }
                Record::Address(Address { vlan, .. })
                | Record::Qos(Qos { vlan, .. })
                | Record::Binding(Binding { vlan, .. }) => self.changes.mark(Scope::Vap(*vlan)),
                Record::Fdb(Fdb { vni, mac, .. }) | Record::Neighbor(Neighbor { vni, mac, .. }) => {
                    self.changes.mark(Scope::Station(*vni, *mac));
                }
                Record::Flood(Flood { vni, .. }) | Record::Peer(Peer { vni, .. }) => {
                    self.changes.mark(Scope::Tunnels(*vni));
                }
                Record::Network(network) => self.changes.mark(Scope::Network(network.vni)),
                Record::Gateway(gateway) => {
                    self.changes.mark(Scope::Network(gateway.vni));
                    self.note_router_change(gateway.router);
                }
                Record::Route(route) => self.note_router_change(route.router),
                Record::Member(Member { prefix, .. }) => match prefix.is_host() {
                    true => self.changes.mark(Scope::Address(prefix.address())),
                    false => self.changes.mark_all(),
                },
                // Groups note what they need; see `settle`.
                Record::Group(_) | Record::Rule(_) => {}
                // Only answers of the NVE itself are made of them, which are not kept.
                Record::Subnet(_)
                | Record::Dns(_)
                | Record::HostRoute(_)
                | Record::DhcpOption(_) => {}
            }
        }
    }

    /// A router works for all networks that it has an interface on.
    fn note_router_change(&mut self, router: RouterId) {
        for interface in self.routers.interfaces(router) {
            self.changes.mark(Scope::Network(interface.vni));
        }
    }

    /// Which part changed when.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Whether there is a record with this key.
    fn contains(&self, key: &Key) -> bool {
        match *key {
            Key::Vap { vlan } => self.vap(vlan.get()).is_some(),
            Key::Fdb { vni, mac } => self.remote(vni, mac).is_some(),
            Key::Neighbor { vni, ip } => self.neighbor(vni, ip).is_some(),
            Key::Flood { vni, vtep } => self.has_flood(vni, vtep),
            Key::Peer { vni, vtep } => self.has_peer(vni, vtep),
            Key::Gateway { vni, ip } => self.gateway(vni, ip).is_some(),
            Key::Route {
                router,
                destination,
            } => self.routers.has_route(router, destination),
            Key::Qos { vlan } => self.qos.get(vlan).is_some(),
            Key::Group { group } => self.groups.has_group(group),
            Key::Rule { id } => self.groups.has_rule(id),
            Key::Member { group, prefix } => self.groups.has_member(group, &prefix),
            Key::Binding { vlan, group } => self.groups.has_binding(vlan, group),
            Key::Address { vlan, mac, prefix } => self.addresses.contains(vlan, mac, prefix),
            Key::DhcpOption {
                vlan,
                family,
                code,
                part,
            } => self.dhcp_options.contains(vlan, family, code, part),
            Key::Network { vni }
            | Key::Subnet { vni, .. }
            | Key::Dns { vni, .. }
            | Key::HostRoute { vni, .. } => self.services.contains(vni, key),
        }
    }

    fn has_flood(&self, vni: Vni, vtep: IpAddr) -> bool {
        let index = self.vteps.index(vtep);
        index.is_some_and(|index| self.networks.has_vtep(vni, index))
    }

    fn has_peer(&self, vni: Vni, vtep: IpAddr) -> bool {
        let index = self.vteps.index(vtep);
        index.is_some_and(|index| self.networks.has_peer(vni, index))
    }

    /// Security groups.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Security groups, and when they changed.
    pub fn rules(&self) -> Rules<'_> {
        Rules {
            groups: &self.groups,
            changes: &self.changes,
        }
    }

    /// Compiles what changed and begins the next epoch; to be called once after each
    /// change, before frames are judged.
    pub fn settle(&mut self) {
        self.groups.settle();
        let changes = &mut self.changes;
        self.groups
            .take_touched(|vlan| changes.mark(Scope::Vap(vlan)));
        changes.begin_epoch();
    }

    /// Whether a VAP may have `station` beside its own address.
    pub fn takes(&self, vlan: Vlan, station: Mac) -> bool {
        let open = self.vap(vlan.get()).is_some_and(|vap| !vap.port_security);
        open || self
            .addresses(vlan)
            .iter()
            .any(|address| address.mac == station)
    }

    /// The local VAP with an address.
    pub fn local(&self, vni: Vni, mac: Mac) -> Option<Vlan> {
        self.local.get(vni, mac)
    }

    /// The VTEP that an address is behind.
    pub fn remote(&self, vni: Vni, mac: Mac) -> Option<VtepIndex> {
        self.remote.get(vni, mac)
    }

    /// The MAC address of an IP address.
    pub fn neighbor(&self, vni: Vni, ip: IpAddr) -> Option<Mac> {
        self.neighbors.get(vni, ip)
    }

    /// Members of a network: `None` if neither a VAP nor a VTEP is in it.
    pub fn network(&self, vni: Vni) -> Option<&Network> {
        self.networks.get(vni)
    }

    /// The routers' interfaces on a network, by address.
    pub fn gateways(&self, vni: Vni) -> &[Gateway] {
        self.routers.gateways(vni)
    }

    /// The router's interface with this address.
    pub fn gateway(&self, vni: Vni, ip: IpAddr) -> Option<&Gateway> {
        self.routers.gateway(vni, ip)
    }

    /// Whether one of a router's interfaces, on any network, has this address.
    pub fn is_router_address(&self, router: RouterId, ip: IpAddr) -> bool {
        self.routers.owner(router, ip).is_some()
    }

    /// How a router reaches an address: by the longest prefix, and an interface's
    /// own before a route of the same length.
    pub fn hop(&self, router: RouterId, ip: IpAddr) -> Option<Hop> {
        self.routers.hop(router, ip)
    }

    /// QoS of a VAP.
    pub fn qos(&self, vlan: Vlan) -> Option<&Qos> {
        self.qos.get(vlan)
    }

    /// What meters the frames of a VAP, as the VM sees their direction; `None` if
    /// they are not limited.
    pub fn meter(&self, vlan: Vlan, direction: Direction) -> Option<MeterIndex> {
        self.qos.meter(vlan, direction)
    }

    /// Whether a frame of `bytes`, without FCS and tag, may pass at `now`; if so, it
    /// has passed. A meter that is gone lets all pass.
    #[inline(never)]
    pub fn admit(&mut self, meter: MeterIndex, now: Nanos, bytes: u32) -> bool {
        self.qos.admit(meter, now, bytes)
    }

    /// Whether it would pass; nothing changes.
    pub fn would_admit(&self, meter: MeterIndex, now: Nanos, bytes: u32) -> bool {
        self.qos.would_admit(meter, now, bytes)
    }

    /// What is left of a VAP's limit in a direction; `None` if it has none.
    pub fn level(&self, vlan: Vlan, direction: Direction, now: Nanos) -> Option<Level> {
        self.qos.level(vlan, direction, now)
    }

    /// Leaves no more of a VAP's limit than that.
    pub fn lower(&mut self, vlan: Vlan, level: &Level, now: Nanos) {
        self.qos.lower(vlan, level, now);
    }

    /// Whom a meter meters, as the VM sees the direction, and its limit.
    pub fn metered(&self, meter: MeterIndex) -> Option<(Vlan, Direction, Limit)> {
        self.qos.metered(meter)
    }

    /// What a VAP may send from, by MAC address and prefix.
    pub fn addresses(&self, vlan: Vlan) -> &[Address] {
        self.addresses.get(vlan)
    }

    /// What the VMs of a network are told by DHCP and router advertisements.
    pub fn services(&self, vni: Vni) -> Option<&Services> {
        self.services.get(vni)
    }

    /// Bytes of the largest IP packet in a network; the most there can be if
    /// none is known.
    pub fn mtu(&self, vni: Vni) -> u16 {
        self.services(vni)
            .and_then(Services::mtu)
            .unwrap_or(u16::MAX)
    }

    /// Pieces of a VAP's DHCP options, by code and part.
    pub fn dhcp_options(&self, vlan: Vlan, family: Family) -> &[DhcpOption] {
        self.dhcp_options.get(vlan, family)
    }

    /// The slot of a VTEP that some record names.
    pub fn vtep_index(&self, vtep: IpAddr) -> Option<VtepIndex> {
        self.vteps.index(vtep)
    }

    /// The VTEP in a slot.
    pub fn vtep(&self, index: VtepIndex) -> Option<IpAddr> {
        self.vteps.get(index)
    }

    /// Addresses by slot, `None` for free ones.
    pub fn vteps(&self) -> impl Iterator<Item = Option<IpAddr>> + '_ {
        self.vteps.iter()
    }

    /// Whether slots changed hands since the last call.
    pub(crate) fn take_vteps_changed(&mut self) -> bool {
        self.vteps.take_changed()
    }

    fn put_fdb(&mut self, fdb: &Fdb) -> Result<Option<Fdb>, TableError> {
        check_station(fdb.mac)?;
        check_vtep(fdb.vtep)?;
        let vtep = self.vteps.acquire(fdb.vtep)?;
        match self.remote.insert(fdb.vni, fdb.mac, vtep) {
            Ok(None) => Ok(None),
            Ok(Some(old)) => {
                let old_vtep = self.vteps.release(old);
                Ok(old_vtep.map(|vtep| Fdb { vtep, ..*fdb }))
            }
            Err(error) => {
                self.vteps.release(vtep);
                Err(error)
            }
        }
    }

    fn delete_fdb(&mut self, vni: Vni, mac: Mac) -> Option<Fdb> {
        let index = self.remote.remove(vni, mac)?;
        self.vteps.release(index).map(|vtep| Fdb { vni, mac, vtep })
    }

    fn put_neighbor(&mut self, neighbor: &Neighbor) -> Result<Option<Neighbor>, TableError> {
        check_station(neighbor.mac)?;
        let known = self.neighbors.get(neighbor.vni, neighbor.ip);
        self.neighbors
            .insert(neighbor.vni, neighbor.ip, neighbor.mac)?;
        Ok(known.map(|mac| Neighbor { mac, ..*neighbor }))
    }

    fn put_flood(&mut self, flood: &Flood) -> Result<Option<Flood>, TableError> {
        check_vtep(flood.vtep)?;
        if self.has_flood(flood.vni, flood.vtep) {
            return Ok(Some(*flood));
        }
        let index = self.vteps.acquire(flood.vtep)?;
        if let Err(error) = self.networks.add_vtep(flood.vni, index) {
            self.vteps.release(index);
            return Err(error);
        }
        Ok(None)
    }

    fn put_peer(&mut self, peer: &Peer) -> Result<Option<Peer>, TableError> {
        check_vtep(peer.vtep)?;
        if self.has_peer(peer.vni, peer.vtep) {
            return Ok(Some(*peer));
        }
        let index = self.vteps.acquire(peer.vtep)?;
        if let Err(error) = self.networks.add_peer(peer.vni, index) {
            self.vteps.release(index);
            return Err(error);
        }
        Ok(None)
    }

    fn delete_peer(&mut self, vni: Vni, vtep: IpAddr) -> Option<Peer> {
        let index = self.vteps.index(vtep)?;
        if !self.networks.remove_peer(vni, index) {
            return None;
        }
        self.vteps.release(index);
        Some(Peer { vni, vtep })
    }

    fn put_gateway(&mut self, gateway: &Gateway) -> Result<Option<Gateway>, TableError> {
        check_station(gateway.mac)?;
        self.routers.put_gateway(gateway)
    }

    fn put_address(&mut self, address: &Address) -> Result<Option<Address>, TableError> {
        check_station(address.mac)?;
        self.addresses.put(address)
    }

    fn delete_flood(&mut self, vni: Vni, vtep: IpAddr) -> Option<Flood> {
        let index = self.vteps.index(vtep)?;
        if !self.networks.remove_vtep(vni, index) {
            return None;
        }
        self.vteps.release(index);
        Some(Flood { vni, vtep })
    }
}

fn check_station(mac: Mac) -> Result<(), TableError> {
    mac.is_unicast().then_some(()).ok_or(TableError::BadRecord)
}

fn check_vtep(vtep: IpAddr) -> Result<(), TableError> {
    let usable = !vtep.is_unspecified() && !vtep.is_multicast() && !vtep.is_loopback();
    usable.then_some(()).ok_or(TableError::BadRecord)
}
