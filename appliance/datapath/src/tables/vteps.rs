//! VTEP addresses, interned: records hold a small index instead of an address.

use core::net::IpAddr;

use alloc::vec::Vec;
use hashbrown::HashMap;

use super::TableError;

/// Slot of a VTEP, stable while any record names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VtepIndex(u16);

impl VtepIndex {
    /// Place in lists that are indexed by slot.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    address: IpAddr,
    records: u32,
}

/// The slots. Invariant: `by_address` holds exactly the slots with records.
#[derive(Debug, Default)]
pub(super) struct Vteps {
    slots: Vec<Slot>,
    free: Vec<VtepIndex>,
    by_address: HashMap<IpAddr, VtepIndex, super::macs::Fast>,
    changed: bool,
}

impl Vteps {
    pub(super) fn index(&self, address: IpAddr) -> Option<VtepIndex> {
        self.by_address.get(&address).copied()
    }

    pub(super) fn get(&self, index: VtepIndex) -> Option<IpAddr> {
        self.slots
            .get(index.get())
            .filter(|slot| slot.records > 0)
            .map(|slot| slot.address)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Option<IpAddr>> + '_ {
        self.slots
            .iter()
            .map(|slot| (slot.records > 0).then_some(slot.address))
    }

    /// All slots are others', even those of no VTEP.
    pub(super) fn renew(&mut self) {
        self.changed = true;
    }

    pub(super) fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    /// Counts one more record for `address`.
    pub(super) fn acquire(&mut self, address: IpAddr) -> Result<VtepIndex, TableError> {
        if let Some(index) = self.index(address) {
            if let Some(slot) = self.slots.get_mut(index.get()) {
                slot.records += 1;
            }
            return Ok(index);
        }
        self.by_address
            .try_reserve(1)
            .map_err(|_| TableError::OutOfMemory)?;
        let index = self.take_slot(address)?;
        self.by_address.insert(address, index);
        self.changed = true;
        Ok(index)
    }

    fn take_slot(&mut self, address: IpAddr) -> Result<VtepIndex, TableError> {
        let fresh = Slot {
            address,
            records: 1,
        };
        if let Some(index) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(index.get()) {
                *slot = fresh;
            }
            return Ok(index);
        }
        let index = u16::try_from(self.slots.len()).map_err(|_| TableError::Full)?;
        self.slots
            .try_reserve(1)
            .map_err(|_| TableError::OutOfMemory)?;
        // So that a release never has to find memory.
        self.free
            .try_reserve(self.slots.len() + 1)
            .map_err(|_| TableError::OutOfMemory)?;
        self.slots.push(fresh);
        Ok(VtepIndex(index))
    }

    /// Counts one record less and returns the slot's address.
    pub(super) fn release(&mut self, index: VtepIndex) -> Option<IpAddr> {
        let slot = self
            .slots
            .get_mut(index.get())
            .filter(|slot| slot.records > 0)?;
        slot.records -= 1;
        let address = slot.address;
        if slot.records == 0 {
            self.by_address.remove(&address);
            self.free.push(index);
            self.changed = true;
        }
        Some(address)
    }
}
