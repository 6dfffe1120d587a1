//! What DHCP and router advertisements tell: of networks, and of VAPs.
//!
//! DNS servers and routes of a subnet that is not there are kept and found by
//! its prefix, so the order of records does not matter.

use core::net::IpAddr;

use alloc::vec::Vec;
use hashbrown::HashMap;
use nve_protocol::{
    DhcpOption, Dns, Family, HostRoute, Key, Network, Prefix, Record, Subnet, Vlan, Vni,
};

use super::TableError;
use super::lists::{self, Listed};
use super::macs::Fast;

impl Listed for Subnet {
    type Key = Prefix;

    fn key(&self) -> Prefix {
        self.prefix
    }
}

impl Listed for Dns {
    type Key = (Prefix, u8);

    fn key(&self) -> Self::Key {
        (self.subnet, self.index)
    }
}

impl Listed for HostRoute {
    type Key = (Prefix, Prefix);

    fn key(&self) -> Self::Key {
        (self.subnet, self.destination)
    }
}

impl Listed for DhcpOption {
    type Key = (Family, u16, u8);

    fn key(&self) -> Self::Key {
        (self.family, self.code, self.part)
    }
}

/// What one network's VMs are told.
#[derive(Debug, Default)]
pub struct Services {
    mtu: Option<u16>,
    subnets: Vec<Subnet>,
    dns: Vec<Dns>,
    routes: Vec<HostRoute>,
}

impl Services {
    /// Bytes of the largest IP packet, if that is known.
    pub fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    /// Its subnets, by prefix.
    pub fn subnets(&self) -> &[Subnet] {
        &self.subnets
    }

    /// The subnet that an address is in.
    pub fn subnet_of(&self, ip: IpAddr) -> Option<&Subnet> {
        let found = |subnet: &&Subnet| subnet.prefix.contains(ip);
        self.subnets.iter().find(found)
    }

    /// DNS servers of a subnet, in their order.
    pub fn dns(&self, subnet: Prefix) -> &[Dns] {
        run(&self.dns, |dns| dns.subnet.cmp(&subnet))
    }

    /// Routes that a subnet announces, by destination.
    pub fn routes(&self, subnet: Prefix) -> &[HostRoute] {
        run(&self.routes, |route| route.subnet.cmp(&subnet))
    }

    fn is_empty(&self) -> bool {
        let lists = self.subnets.is_empty() && self.dns.is_empty() && self.routes.is_empty();
        self.mtu.is_none() && lists
    }

    fn put(&mut self, record: &Record) -> Result<Option<Record>, TableError> {
        Ok(match record {
            Record::Network(Network { vni, mtu }) => {
                let old = self.mtu.replace(*mtu);
                old.map(|mtu| Record::Network(Network { vni: *vni, mtu }))
            }
            Record::Subnet(subnet) => lists::put(&mut self.subnets, *subnet)?.map(Record::Subnet),
            Record::Dns(dns) => lists::put(&mut self.dns, *dns)?.map(Record::Dns),
            Record::HostRoute(route) => {
                lists::put(&mut self.routes, *route)?.map(Record::HostRoute)
            }
            _ => None,
        })
    }

    fn delete(&mut self, key: &Key) -> Option<Record> {
        match key {
            Key::Network { vni } => self
                .mtu
                .take()
                .map(|mtu| Record::Network(Network { vni: *vni, mtu })),
            Key::Subnet { prefix, .. } => {
                lists::take(&mut self.subnets, prefix).map(Record::Subnet)
            }
            Key::Dns { subnet, index, .. } => {
                lists::take(&mut self.dns, &(*subnet, *index)).map(Record::Dns)
            }
            Key::HostRoute {
                subnet,
                destination,
                ..
            } => lists::take(&mut self.routes, &(*subnet, *destination)).map(Record::HostRoute),
            _ => None,
        }
    }

    fn contains(&self, key: &Key) -> bool {
        match key {
            Key::Network { .. } => self.mtu.is_some(),
            Key::Subnet { prefix, .. } => lists::contains(&self.subnets, prefix),
            Key::Dns { subnet, index, .. } => lists::contains(&self.dns, &(*subnet, *index)),
            Key::HostRoute {
                subnet,
                destination,
                ..
            } => lists::contains(&self.routes, &(*subnet, *destination)),
            _ => false,
        }
    }
}

/// The records, of a sorted list, that `order` calls equal.
fn run<T>(list: &[T], order: impl Fn(&T) -> core::cmp::Ordering) -> &[T] {
    let start = list.partition_point(|record| order(record).is_lt());
    let end = list.partition_point(|record| order(record).is_le());
    list.get(start..end).unwrap_or_default()
}

/// [`Services`] by network. Invariant: none is empty.
#[derive(Debug, Default)]
pub(super) struct AllServices(HashMap<Vni, Services, Fast>);

impl AllServices {
    pub(super) fn get(&self, vni: Vni) -> Option<&Services> {
        self.0.get(&vni)
    }

    pub(super) fn contains(&self, vni: Vni, key: &Key) -> bool {
        self.get(vni).is_some_and(|services| services.contains(key))
    }

    /// Takes the records that [`Services`] are made of, and no others.
    pub(super) fn put(&mut self, vni: Vni, record: &Record) -> Result<Option<Record>, TableError> {
        self.0.try_reserve(1).map_err(|_| TableError::OutOfMemory)?;
        let result = self.0.entry(vni).or_default().put(record);
        self.drop_empty(vni);
        result
    }

    pub(super) fn delete(&mut self, vni: Vni, key: &Key) -> Option<Record> {
        let removed = self.0.get_mut(&vni)?.delete(key);
        self.drop_empty(vni);
        removed
    }

    fn drop_empty(&mut self, vni: Vni) {
        if self.get(vni).is_some_and(Services::is_empty) {
            self.0.remove(&vni);
        }
    }
}

/// Options of DHCP by VAP. Invariant: no list is empty.
#[derive(Debug, Default)]
pub(super) struct DhcpOptions(HashMap<Vlan, Vec<DhcpOption>, Fast>);

impl DhcpOptions {
    fn all(&self, vlan: Vlan) -> &[DhcpOption] {
        self.0.get(&vlan).map(Vec::as_slice).unwrap_or_default()
    }

    /// Pieces by code, those of one option in their order.
    pub(super) fn get(&self, vlan: Vlan, family: Family) -> &[DhcpOption] {
        run(self.all(vlan), |option| option.family.cmp(&family))
    }

    pub(super) fn contains(&self, vlan: Vlan, family: Family, code: u16, part: u8) -> bool {
        lists::contains(self.all(vlan), &(family, code, part))
    }

    pub(super) fn put(&mut self, option: &DhcpOption) -> Result<Option<DhcpOption>, TableError> {
        self.0.try_reserve(1).map_err(|_| TableError::OutOfMemory)?;
        let result = lists::put(self.0.entry(option.vlan).or_default(), *option);
        self.drop_empty(option.vlan);
        result
    }

    pub(super) fn delete(
        &mut self,
        vlan: Vlan,
        family: Family,
        code: u16,
        part: u8,
    ) -> Option<DhcpOption> {
        let removed = lists::take(self.0.get_mut(&vlan)?, &(family, code, part));
        self.drop_empty(vlan);
        removed
    }

    fn drop_empty(&mut self, vlan: Vlan) {
        if self.all(vlan).is_empty() {
            self.0.remove(&vlan);
        }
    }
}
