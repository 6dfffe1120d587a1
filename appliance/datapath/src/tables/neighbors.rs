//! IP to MAC address, per network.

use core::hash::Hasher;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashTable;
use nve_protocol::{Mac, Vni};

use super::TableError;
use super::macs::FastHasher;

/// One entry; `A` keeps IPv4 entries at 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Entry<A> {
    vni: Vni,
    ip: A,
    mac: Mac,
}

trait Address: Copy + Eq {
    fn feed(self, hasher: &mut FastHasher);
}

impl Address for Ipv4Addr {
    fn feed(self, hasher: &mut FastHasher) {
        hasher.write_u64(u64::from(self.to_bits()));
    }
}

impl Address for Ipv6Addr {
    fn feed(self, hasher: &mut FastHasher) {
        hasher.write_u64((self.to_bits() >> 64) as u64);
        hasher.write_u64(self.to_bits() as u64);
    }
}

fn hash<A: Address>(vni: Vni, ip: A) -> u64 {
    let mut hasher = FastHasher::default();
    ip.feed(&mut hasher);
    hasher.write_u64(u64::from(vni.get()));
    hasher.finish()
}

#[derive(Debug)]
struct Family<A>(HashTable<Entry<A>>);

impl<A> Default for Family<A> {
    fn default() -> Self {
        Family(HashTable::new())
    }
}

impl<A: Address> Family<A> {
    fn get(&self, vni: Vni, ip: A) -> Option<Mac> {
        self.0
            .find(hash(vni, ip), |e| e.vni == vni && e.ip == ip)
            .map(|e| e.mac)
    }

    fn insert(&mut self, vni: Vni, ip: A, mac: Mac) -> Result<(), TableError> {
        let key = hash(vni, ip);
        if let Some(entry) = self.0.find_mut(key, |e| e.vni == vni && e.ip == ip) {
            entry.mac = mac;
            return Ok(());
        }
        let rehash = |e: &Entry<A>| hash(e.vni, e.ip);
        self.0
            .try_reserve(1, rehash)
            .map_err(|_| TableError::OutOfMemory)?;
        self.0.insert_unique(key, Entry { vni, ip, mac }, rehash);
        Ok(())
    }

    fn remove(&mut self, vni: Vni, ip: A) -> Option<Mac> {
        let found = self
            .0
            .find_entry(hash(vni, ip), |e| e.vni == vni && e.ip == ip)
            .ok()?;
        Some(found.remove().0.mac)
    }
}

/// Entries of both address families.
#[derive(Debug, Default)]
pub(super) struct Neighbors {
    v4: Family<Ipv4Addr>,
    v6: Family<Ipv6Addr>,
}

impl Neighbors {
    pub(super) fn get(&self, vni: Vni, ip: IpAddr) -> Option<Mac> {
        match ip {
            IpAddr::V4(ip) => self.v4.get(vni, ip),
            IpAddr::V6(ip) => self.v6.get(vni, ip),
        }
    }

    pub(super) fn insert(&mut self, vni: Vni, ip: IpAddr, mac: Mac) -> Result<(), TableError> {
        match ip {
            IpAddr::V4(ip) => self.v4.insert(vni, ip, mac),
            IpAddr::V6(ip) => self.v6.insert(vni, ip, mac),
        }
    }

    pub(super) fn remove(&mut self, vni: Vni, ip: IpAddr) -> Option<Mac> {
        match ip {
            IpAddr::V4(ip) => self.v4.remove(vni, ip),
            IpAddr::V6(ip) => self.v6.remove(vni, ip),
        }
    }
}
