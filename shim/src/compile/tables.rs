//! The tables of one NVE, as an immutable snapshot.
//!
//! Records are kept per network, and a network that did not change is shared
//! between snapshots: comparing two of them costs work only where they differ.
//!
//! Invariants: each slice is sorted by key and not empty; no key occurs twice in
//! a snapshot, not even in different networks; the digest is that of all records.

use std::collections::BTreeMap;
use std::sync::Arc;

use nve_protocol::{Key, Record, TableDigest, TableSizes, Vni};

/// One change between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Put the record.
    Put(Record),
    /// Delete the record with the key.
    Delete(Key),
}

/// All records of one NVE.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NveTables {
    networks: BTreeMap<Vni, Arc<[Record]>>,
    digest: TableDigest,
}

impl NveTables {
    /// Digest of all records.
    pub fn digest(&self) -> TableDigest {
        self.digest
    }

    /// All records, network by network.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.networks.values().flat_map(|records| records.iter())
    }

    /// The records of each network, sorted by key.
    pub fn networks(&self) -> impl Iterator<Item = &Arc<[Record]>> {
        self.networks.values()
    }

    /// How many records there are of each kind.
    pub fn sizes(&self) -> TableSizes {
        let mut sizes = TableSizes::default();
        for record in self.records() {
            *sizes.get_mut(record.table()) += 1;
        }
        sizes
    }

    /// Whether exactly this record of the network is among them.
    pub fn contains(&self, vni: Vni, record: &Record) -> bool {
        let Some(records) = self.networks.get(&vni) else {
            return false;
        };
        let found = records.binary_search_by_key(&record.key(), Record::key);
        found.is_ok_and(|at| records.get(at) == Some(record))
    }

    /// Replaces a network's records, which are sorted by key; none removes the
    /// network.
    pub fn set(&mut self, vni: Vni, records: Arc<[Record]>) {
        records.iter().for_each(|record| self.digest.add(record));
        let old = match records.is_empty() {
            true => self.networks.remove(&vni),
            false => self.networks.insert(vni, records),
        };
        old.iter()
            .flat_map(|old| old.iter())
            .for_each(|record| self.digest.remove(record));
    }

    /// What leads from `old` to `self`. Deletions come first: a key may go from
    /// one network to another.
    pub fn changes_from(&self, old: &NveTables) -> Vec<Op> {
        let mut deletions = Vec::new();
        let mut puts = Vec::new();
        for (vni, before) in &old.networks {
            let after = self.networks.get(vni);
            if after.is_some_and(|after| Arc::ptr_eq(before, after)) {
                continue;
            }
            let after = after.map_or(&[][..], |after| after);
            compare(before, after, &mut deletions, &mut puts);
        }
        for (vni, after) in &self.networks {
            if !old.networks.contains_key(vni) {
                puts.extend(after.iter().copied().map(Op::Put));
            }
        }
        deletions.extend(puts);
        deletions
    }
}

/// Merges two sorted slices.
fn compare(before: &[Record], after: &[Record], deletions: &mut Vec<Op>, puts: &mut Vec<Op>) {
    let mut after = after.iter().peekable();
    for old in before {
        while let Some(new) = after.next_if(|new| new.key() < old.key()) {
            puts.push(Op::Put(*new));
        }
        match after.next_if(|new| new.key() == old.key()) {
            Some(new) if new == old => {}
            Some(new) => puts.push(Op::Put(*new)),
            None => deletions.push(Op::Delete(old.key())),
        }
    }
    puts.extend(after.copied().map(Op::Put));
}

#[cfg(test)]
mod tests {
    use nve_protocol::{Fdb, Mac, PortId, Vap, Vlan};
    use proptest::prelude::*;

    use super::*;

    fn vap(vlan: u16, vni: u32, port: u8) -> Record {
        Record::Vap(Vap {
            vlan: Vlan::new(vlan).unwrap(),
            port: PortId([port; 16]),
            vni: Vni::new(vni).unwrap(),
            mac: Mac([2, 0, 0, 0, 0, port]),
            port_security: true,
        })
    }

    fn fdb(vni: u32, mac: u8, vtep: u8) -> Record {
        Record::Fdb(Fdb {
            vni: Vni::new(vni).unwrap(),
            mac: Mac([2, 0, 0, 0, 0, mac]),
            vtep: [192, 0, 2, vtep].into(),
        })
    }

    fn vni_of(record: &Record) -> Vni {
        match record {
            Record::Vap(r) => r.vni,
            Record::Fdb(r) => r.vni,
            Record::Neighbor(r) => r.vni,
            Record::Flood(r) => r.vni,
            other => panic!("{other:?} is not made here"),
        }
    }

    /// Later records replace earlier ones with the same key.
    fn tables(records: impl IntoIterator<Item = Record>) -> NveTables {
        let by_key: BTreeMap<Key, Record> = records
            .into_iter()
            .map(|record| (record.key(), record))
            .collect();
        let mut networks: BTreeMap<Vni, Vec<Record>> = BTreeMap::new();
        for record in by_key.into_values() {
            networks.entry(vni_of(&record)).or_default().push(record);
        }
        let mut tables = NveTables::default();
        for (vni, records) in networks {
            tables.set(vni, records.into());
        }
        tables
    }

    fn record() -> impl Strategy<Value = Record> {
        prop_oneof![
            (1u16..6, 1u32..4, 1u8..4).prop_map(|(vlan, vni, port)| vap(vlan, vni, port)),
            (1u32..4, 1u8..6, 1u8..4).prop_map(|(vni, mac, vtep)| fdb(vni, mac, vtep)),
        ]
    }

    proptest! {
        #[test]
        fn changes_lead_from_one_to_the_other(
            old in prop::collection::vec(record(), 0..20),
            new in prop::collection::vec(record(), 0..20),
        ) {
            let (old, new) = (tables(old), tables(new));
            let mut map: BTreeMap<Key, Record> = old.records().map(|r| (r.key(), *r)).collect();
            for op in new.changes_from(&old) {
                match op {
                    Op::Put(record) => map.insert(record.key(), record),
                    Op::Delete(key) => map.remove(&key),
                };
            }
            let want: BTreeMap<Key, Record> = new.records().map(|r| (r.key(), *r)).collect();
            prop_assert_eq!(&map, &want);
            prop_assert_eq!(new.digest(), want.values().collect());
            prop_assert!(new.changes_from(&new).is_empty());
        }
    }

    #[test]
    fn containing_is_exact() {
        let tables = tables([vap(1, 1, 1), fdb(1, 2, 3)]);
        let vni = Vni::new(1).unwrap();
        assert!(tables.contains(vni, &vap(1, 1, 1)));
        assert!(!tables.contains(vni, &vap(1, 1, 2)));
        assert!(!tables.contains(Vni::new(2).unwrap(), &vap(1, 2, 1)));
    }
}
