//! The tables of one NVE, as an immutable snapshot.
//!
//! Records are kept by scope, and what did not change is shared between
//! snapshots, and between NVEs: a copy costs nothing, and comparing two snapshots
//! costs work only where they differ. Since a scope's records are the same for
//! all NVEs, those that would tell an NVE of its own VTEP are left out here.
//!
//! Invariants: no slice is empty; no key occurs twice in a snapshot, not even in
//! different scopes; digest and sizes are those of all records but the ones left
//! out.

use std::net::IpAddr;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use nve_protocol::{Key, Presence, Record, TableDigest, TableSizes, Vap};
use uuid::Uuid;

use super::Scope;
use super::slice::{Slice, Sum};

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
    own: Option<IpAddr>,
    slices: OrdMap<Scope, Slice>,
    sum: Sum,
}

impl NveTables {
    /// Digest of all records.
    pub fn digest(&self) -> TableDigest {
        self.sum.digest
    }

    /// How many records there are of each kind.
    pub fn sizes(&self) -> TableSizes {
        self.sum.sizes
    }

    /// All records, scope by scope.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        let slices = self.slices.values();
        slices.flat_map(|slice| slice.records_for(self.own))
    }

    /// All records, without the snapshot.
    pub fn into_records(self) -> impl Iterator<Item = Record> {
        let own = self.own;
        let slices = self.slices.into_iter();
        slices.flat_map(move |(_, slice)| slice.into_records_for(own))
    }

    /// Whether exactly the same records of a scope, some, are in both.
    pub fn agrees(&self, other: &NveTables, scope: Scope) -> bool {
        match (self.slices.get(&scope), other.slices.get(&scope)) {
            (Some(here), Some(there)) => here.is_shared_with(there) || here == there,
            _ => false,
        }
    }

    /// Whether there are records of a scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.slices.contains_key(&scope)
    }

    /// The port whose VAP a scope is; `None` if it is no VAP's, or there is none.
    pub fn port_at(&self, scope: Scope) -> Option<Uuid> {
        self.vap(scope).map(|vap| Uuid::from_bytes(vap.port.0))
    }

    /// As [`Self::port_at`], if the port's VM is there.
    pub fn active_port_at(&self, scope: Scope) -> Option<Uuid> {
        let is_active = self.vap(scope)?.presence == Presence::Active;
        self.port_at(scope).filter(|_| is_active)
    }

    fn vap(&self, scope: Scope) -> Option<&Vap> {
        let Scope::Vap(_, vlan) = scope else {
            return None;
        };
        match self.slices.get(&scope)?.get(&Key::Vap { vlan })? {
            Record::Vap(vap) => Some(vap),
            _ => None,
        }
    }

    /// The scopes of VAPs whose records are not the same in both.
    pub fn vaps_unlike(&self, other: &NveTables) -> Vec<Scope> {
        let differences = self.slices.diff(&other.slices);
        let scopes = differences.map(|change| match change {
            DiffItem::Add(scope, _) | DiffItem::Remove(scope, _) => *scope,
            DiffItem::Update { old, .. } => *old.0,
        });
        scopes
            .filter(|scope| matches!(scope, Scope::Vap(..)))
            .collect()
    }

    /// Replaces a scope's records; none removes the scope.
    pub(super) fn set(&mut self, scope: Scope, slice: &Slice) {
        self.sum.plus(&slice.sum_for(self.own));
        let old = match slice.is_empty() {
            true => self.slices.remove(&scope),
            false => self.slices.insert(scope, slice.clone()),
        };
        if let Some(old) = old {
            self.sum.minus(&old.sum_for(self.own));
        }
    }

    /// Makes them the tables of an NVE with that VTEP.
    pub(super) fn set_own(&mut self, own: IpAddr) {
        if self.own == Some(own) {
            return;
        }
        self.own = Some(own);
        self.sum = Sum::default();
        for slice in self.slices.values() {
            self.sum.plus(&slice.sum_for(self.own));
        }
    }

    /// What leads from `old` to `self`. Deletions come first: a key may go from
    /// one scope to another.
    pub fn changes_from(&self, old: &NveTables) -> Vec<Op> {
        let mut deletions = Vec::new();
        let mut puts = Vec::new();
        if self.own != old.own {
            deletions.extend(old.records().map(|record| Op::Delete(record.key())));
            deletions.extend(self.records().copied().map(Op::Put));
            return deletions;
        }
        let none = Slice::default();
        for change in old.slices.diff(&self.slices) {
            let (before, after) = match change {
                DiffItem::Add(_, new) => (&none, new),
                DiffItem::Update { old, new } => (old.1, new.1),
                DiffItem::Remove(_, old) => (old, &none),
            };
            after.changes_from(before, self.own, &mut deletions, &mut puts);
        }
        deletions.extend(puts);
        deletions
    }
}

/// Records without scopes of their own; of several with one key, the last.
impl FromIterator<Record> for NveTables {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> NveTables {
        let mut tables = NveTables::default();
        let slice = records.into_iter().collect();
        tables.set(Scope::Network(Uuid::nil()), &slice);
        tables
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nve_protocol::{Fdb, Mac, PortId, Vlan, Vni};
    use proptest::prelude::*;

    use super::*;

    fn vap(vlan: u16, vni: u32, port: u8) -> Record {
        Record::Vap(Vap {
            vlan: Vlan::new(vlan).unwrap(),
            port: PortId([port; 16]),
            vni: Vni::new(vni).unwrap(),
            mac: Mac([2, 0, 0, 0, 0, port]),
            port_security: true,
            presence: Presence::Active,
        })
    }

    fn fdb(vni: u32, mac: u8, vtep: u8) -> Record {
        Record::Fdb(Fdb {
            vni: Vni::new(vni).unwrap(),
            mac: Mac([2, 0, 0, 0, 0, mac]),
            vtep: [192, 0, 2, vtep].into(),
        })
    }

    fn scope(vni: Vni) -> Scope {
        Scope::Network(Uuid::from_u128(u128::from(vni.get())))
    }

    fn scope_of(record: &Record) -> Scope {
        match record {
            Record::Vap(record) => scope(record.vni),
            Record::Fdb(record) => scope(record.vni),
            other => panic!("{other:?} is not made here"),
        }
    }

    /// Later records replace earlier ones with the same key.
    fn by_key(records: impl IntoIterator<Item = Record>) -> BTreeMap<Key, Record> {
        let records = records.into_iter().map(|record| (record.key(), record));
        records.collect()
    }

    /// Makes `tables` those of the NVE with that VTEP with these records.
    fn fill(tables: &mut NveTables, records: &BTreeMap<Key, Record>, own: u8) {
        tables.set_own([192, 0, 2, own].into());
        for number in 1..4 {
            let scope = scope(Vni::new(number).unwrap());
            let records = records.values().filter(|record| scope_of(record) == scope);
            tables.set(scope, &records.copied().collect());
        }
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
            old in (prop::collection::vec(record(), 0..20), 1u8..3),
            new in (prop::collection::vec(record(), 0..20), 1u8..3),
        ) {
            let mut tables = NveTables::default();
            fill(&mut tables, &by_key(old.0), old.1);
            let before = tables.clone();
            let wanted = by_key(new.0);
            fill(&mut tables, &wanted, new.1);
            let mut map = by_key(before.records().copied());
            for op in tables.changes_from(&before) {
                match op {
                    Op::Put(record) => map.insert(record.key(), record),
                    Op::Delete(key) => map.remove(&key),
                };
            }
            prop_assert_eq!(&map, &by_key(tables.records().copied()));
            prop_assert_eq!(&map, &by_key(tables.clone().into_records()));
            prop_assert_eq!(tables.digest(), map.values().collect());
            prop_assert!(tables.changes_from(&tables).is_empty());
            let own = std::net::IpAddr::from([192, 0, 2, new.1]);
            let shown = |record: &Record| !matches!(record, Record::Fdb(fdb) if fdb.vtep == own);
            let shown: BTreeMap<Key, Record> =
                wanted.into_iter().filter(|(_, record)| shown(record)).collect();
            prop_assert_eq!(map, shown);
        }
    }

    #[test]
    fn tables_agree_about_a_scope_or_do_not() {
        let mut here = NveTables::default();
        let mut there = NveTables::default();
        fill(&mut here, &by_key([vap(1, 1, 1), fdb(2, 2, 3)]), 9);
        fill(&mut there, &by_key([vap(1, 1, 1), fdb(2, 2, 4)]), 9);
        let agrees = |number| here.agrees(&there, scope(Vni::new(number).unwrap()));
        assert!(agrees(1));
        assert!(!agrees(2), "another record");
        assert!(!agrees(3), "no record");
    }
}
