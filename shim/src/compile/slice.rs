//! The records of one scope.
//!
//! Slices are persistent trees: a copy shares everything with its original, so
//! the NVEs that have a scope share its slice, and the difference between two
//! versions of it is found without looking at what they share.
//!
//! Invariants: no key occurs twice; the sums are those of the records.

use std::net::IpAddr;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use nve_protocol::{Key, Record, TableDigest, TableSizes};

use super::tables::Op;

/// Digest and number of records, kept while they come and go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) digest: TableDigest,
    pub(super) sizes: TableSizes,
}

impl Sum {
    fn add(&mut self, record: &Record) {
        self.digest.add(record);
        let size = self.sizes.get_mut(record.table());
        *size = size.wrapping_add(1);
    }

    fn remove(&mut self, record: &Record) {
        self.digest.remove(record);
        let size = self.sizes.get_mut(record.table());
        *size = size.wrapping_sub(1);
    }

    /// Adds records that were not counted.
    pub(super) fn plus(&mut self, other: &Sum) {
        self.digest.0 = self.digest.0.wrapping_add(other.digest.0);
        self.each_size(other, u32::wrapping_add);
    }

    /// Takes out records that were counted.
    pub(super) fn minus(&mut self, other: &Sum) {
        self.digest.0 = self.digest.0.wrapping_sub(other.digest.0);
        self.each_size(other, u32::wrapping_sub);
    }

    fn each_size(&mut self, other: &Sum, change: fn(u32, u32) -> u32) {
        for table in nve_protocol::Table::ALL {
            let size = self.sizes.get_mut(*table);
            *size = change(*size, other.sizes.get(*table));
        }
    }
}

/// Records of one scope, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slice {
    sum: Sum,
    records: OrdMap<Key, Record>,
    /// Of the records that name a VTEP, by VTEP.
    by_vtep: OrdMap<IpAddr, Sum>,
}

impl Slice {
    pub(super) fn put(&mut self, record: Record) {
        let old = self.records.insert(record.key(), record);
        if let Some(old) = old {
            self.forget(&old);
        }
        self.sum.add(&record);
        if let Some(vtep) = vtep_of(&record) {
            self.by_vtep.entry(vtep).or_default().add(&record);
        }
    }

    pub(super) fn delete(&mut self, key: &Key) {
        if let Some(old) = self.records.remove(key) {
            self.forget(&old);
        }
    }

    fn forget(&mut self, record: &Record) {
        self.sum.remove(record);
        let Some(vtep) = vtep_of(record) else {
            return;
        };
        if let Some(sum) = self.by_vtep.get_mut(&vtep) {
            sum.remove(record);
            if *sum == Sum::default() {
                self.by_vtep.remove(&vtep);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    /// Whether it is the same without a look at the records.
    pub(super) fn is_shared_with(&self, other: &Slice) -> bool {
        self.records.ptr_eq(&other.records)
    }

    /// Digest and number of the records that the NVE with VTEP `own` gets.
    pub(super) fn sum_for(&self, own: Option<IpAddr>) -> Sum {
        let mut sum = self.sum;
        if let Some(hidden) = own.and_then(|own| self.by_vtep.get(&own)) {
            sum.minus(hidden);
        }
        sum
    }

    /// The records that the NVE with VTEP `own` gets, ascending by key.
    pub(super) fn records_for(&self, own: Option<IpAddr>) -> impl Iterator<Item = &Record> {
        self.records
            .values()
            .filter(move |record| !is_hidden(record, own))
    }

    /// As [`Self::records_for`], without the slice.
    pub(super) fn into_records_for(self, own: Option<IpAddr>) -> impl Iterator<Item = Record> {
        let records = self.records.into_iter().map(|(_, record)| record);
        records.filter(move |record| !is_hidden(record, own))
    }

    /// What leads from `old` to `self` on the NVE with VTEP `own`.
    pub(super) fn changes_from(
        &self,
        old: &Slice,
        own: Option<IpAddr>,
        deletions: &mut Vec<Op>,
        puts: &mut Vec<Op>,
    ) {
        let shown = |record: &Record| !is_hidden(record, own);
        for change in old.records.diff(&self.records) {
            let (before, after) = match change {
                DiffItem::Add(_, new) => (None, Some(new)),
                DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
                DiffItem::Remove(_, old) => (Some(old), None),
            };
            let before = before.filter(|record| shown(record));
            match (before, after.filter(|record| shown(record))) {
                (_, Some(new)) => puts.push(Op::Put(*new)),
                (Some(old), None) => deletions.push(Op::Delete(old.key())),
                (None, None) => {}
            }
        }
    }
}

impl FromIterator<Record> for Slice {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Slice {
        let mut slice = Slice::default();
        records.into_iter().for_each(|record| slice.put(record));
        slice
    }
}

/// Whether the record would tell the NVE with VTEP `own` of itself.
fn is_hidden(record: &Record, own: Option<IpAddr>) -> bool {
    own.is_some() && vtep_of(record) == own
}

/// The VTEP that a record is about.
fn vtep_of(record: &Record) -> Option<IpAddr> {
    match record {
        Record::Fdb(fdb) => Some(fdb.vtep),
        Record::Flood(flood) => Some(flood.vtep),
        Record::Peer(peer) => Some(peer.vtep),
        _ => None,
    }
}
