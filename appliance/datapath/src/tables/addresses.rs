//! What VMs may send from, by VAP.

use alloc::vec::Vec;
use hashbrown::HashMap;
use nve_protocol::{Address, Mac, Prefix, Vlan};

use super::TableError;
use super::lists::{self, Listed};
use super::macs::Fast;

impl Listed for Address {
    type Key = (Mac, Prefix);

    fn key(&self) -> Self::Key {
        (self.mac, self.prefix)
    }
}

/// Addresses by VAP, those of one VAP side by side. Invariant: no list is empty.
#[derive(Debug, Default)]
pub(super) struct Addresses(HashMap<Vlan, Vec<Address>, Fast>);

impl Addresses {
    pub(super) fn get(&self, vlan: Vlan) -> &[Address] {
        self.0.get(&vlan).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn contains(&self, vlan: Vlan, mac: Mac, prefix: Prefix) -> bool {
        lists::contains(self.get(vlan), &(mac, prefix))
    }

    pub(super) fn put(&mut self, address: &Address) -> Result<Option<Address>, TableError> {
        self.0.try_reserve(1).map_err(|_| TableError::OutOfMemory)?;
        let result = lists::put(self.0.entry(address.vlan).or_default(), *address);
        self.drop_empty(address.vlan);
        result
    }

    pub(super) fn delete(&mut self, vlan: Vlan, mac: Mac, prefix: Prefix) -> Option<Address> {
        let removed = lists::take(self.0.get_mut(&vlan)?, &(mac, prefix));
        self.drop_empty(vlan);
        removed
    }

    fn drop_empty(&mut self, vlan: Vlan) {
        if self.get(vlan).is_empty() {
            self.0.remove(&vlan);
        }
    }
}
