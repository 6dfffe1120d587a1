//! MAC address tables: local VAPs and remote VTEPs, keyed by VNI and address.

use core::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashTable;
use nve_protocol::{Mac, Vlan, Vni};

use super::{TableError, VtepIndex};

/// Multiplicative hash for keys that an authenticated shim chooses; not for keys
/// that a VM could choose.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FastHasher(u64);

impl Hasher for FastHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x243f_6a88_85a3_08d3) * 0x9e37_79b9_7f4a_7c15;
        // Both halves: the low one mixes upwards, the high one back down.
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Builds [`FastHasher`]s.
pub(crate) type Fast = BuildHasherDefault<FastHasher>;

fn hash(vni: Vni, mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    let mut hasher = FastHasher::default();
    hasher.write_u64(u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
    hasher.write_u64(u64::from(vni.get()));
    hasher.finish()
}

/// Twelve bytes, so that 100,000 entries stay small.
#[derive(Debug, Clone, Copy)]
struct Entry<V> {
    vni: Vni,
    mac: Mac,
    value: V,
}

impl<V> Entry<V> {
    fn is(&self, vni: Vni, mac: Mac) -> bool {
        self.vni == vni && self.mac == mac
    }

    fn hash(&self) -> u64 {
        hash(self.vni, self.mac)
    }
}

/// Addresses of the FDB.
#[derive(Debug, Default)]
pub(super) struct RemoteMacs(HashTable<Entry<VtepIndex>>);

impl RemoteMacs {
    pub(super) fn get(&self, vni: Vni, mac: Mac) -> Option<VtepIndex> {
        self.0
            .find(hash(vni, mac), |entry| entry.is(vni, mac))
            .map(|entry| entry.value)
    }

    /// Returns what was there before.
    pub(super) fn insert(
        &mut self,
        vni: Vni,
        mac: Mac,
        value: VtepIndex,
    ) -> Result<Option<VtepIndex>, TableError> {
        let hash = hash(vni, mac);
        if let Some(entry) = self.0.find_mut(hash, |entry| entry.is(vni, mac)) {
            return Ok(Some(core::mem::replace(&mut entry.value, value)));
        }
        self.0
            .try_reserve(1, Entry::hash)
            .map_err(|_| TableError::OutOfMemory)?;
        self.0
            .insert_unique(hash, Entry { vni, mac, value }, Entry::hash);
        Ok(None)
    }

    pub(super) fn remove(&mut self, vni: Vni, mac: Mac) -> Option<VtepIndex> {
        let found = self
            .0
            .find_entry(hash(vni, mac), |entry| entry.is(vni, mac))
            .ok()?;
        Some(found.remove().0.value)
    }
}

/// Addresses of VAPs. Two VAPs may claim one address for a moment, so the tag is
/// part of the identity; which of them is found is unspecified.
#[derive(Debug, Default)]
pub(super) struct LocalMacs(HashTable<Entry<Vlan>>);

impl LocalMacs {
    pub(super) fn get(&self, vni: Vni, mac: Mac) -> Option<Vlan> {
        self.0
            .find(hash(vni, mac), |entry| entry.is(vni, mac))
            .map(|entry| entry.value)
    }

    pub(super) fn insert(&mut self, vni: Vni, mac: Mac, vlan: Vlan) -> Result<(), TableError> {
        let hash = hash(vni, mac);
        if self
            .0
            .find(hash, |entry| entry.is(vni, mac) && entry.value == vlan)
            .is_some()
        {
            return Ok(());
        }
        self.0
            .try_reserve(1, Entry::hash)
            .map_err(|_| TableError::OutOfMemory)?;
        self.0.insert_unique(
            hash,
            Entry {
                vni,
                mac,
                value: vlan,
            },
            Entry::hash,
        );
        Ok(())
    }

    pub(super) fn remove(&mut self, vni: Vni, mac: Mac, vlan: Vlan) {
        let same = |entry: &Entry<Vlan>| entry.is(vni, mac) && entry.value == vlan;
        if let Ok(found) = self.0.find_entry(hash(vni, mac), same) {
            found.remove();
        }
    }
}
