//! Which addresses are in which groups.
//!
//! Entries of one prefix share a hash whatever their group, so one probe for each
//! length in use finds all groups that an address is in. What it costs goes by
//! the number of those groups and of those lengths, not by the number of members.

use alloc::vec::Vec;
use hashbrown::HashTable;

use super::GroupIndex;
use super::address::Address;
use crate::tables::TableError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member<A> {
    first: A,
    length: u8,
    group: GroupIndex,
}

impl<A: Address> Member<A> {
    fn hash(&self) -> u64 {
        self.first.hash(self.length)
    }
}

/// Members of one family. Invariant: bit n of `lengths` is set exactly if
/// `counts[n]`, the number of entries of that length, is not 0; entries of single
/// addresses are in neither.
#[derive(Debug)]
pub(super) struct Members<A> {
    entries: HashTable<Member<A>>,
    counts: Vec<u32>,
    lengths: u128,
}

impl<A> Default for Members<A> {
    fn default() -> Self {
        Members {
            entries: HashTable::new(),
            counts: Vec::new(),
            lengths: 0,
        }
    }
}

impl<A: Address> Members<A> {
    pub(super) fn contains(&self, first: A, length: u8, group: GroupIndex) -> bool {
        let wanted = Member {
            first,
            length,
            group,
        };
        self.entries
            .find(wanted.hash(), |entry| *entry == wanted)
            .is_some()
    }

    /// Inserts what is not there yet.
    pub(super) fn insert(
        &mut self,
        first: A,
        length: u8,
        group: GroupIndex,
    ) -> Result<(), TableError> {
        let entry = Member {
            first,
            length,
            group,
        };
        self.entries
            .try_reserve(1, Member::hash)
            .map_err(|_| TableError::OutOfMemory)?;
        if length < A::WIDTH {
            self.count(length)?;
        }
        self.entries
            .insert_unique(entry.hash(), entry, Member::hash);
        Ok(())
    }

    fn count(&mut self, length: u8) -> Result<(), TableError> {
        if self.counts.is_empty() {
            let lengths = usize::from(A::WIDTH);
            self.counts
                .try_reserve_exact(lengths)
                .map_err(|_| TableError::OutOfMemory)?;
            self.counts.resize(lengths, 0);
        }
        if let Some(count) = self.counts.get_mut(usize::from(length)) {
            *count += 1;
            self.lengths |= 1 << length;
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, first: A, length: u8, group: GroupIndex) -> bool {
        let wanted = Member {
            first,
            length,
            group,
        };
        let found = self
            .entries
            .find_entry(wanted.hash(), |entry| *entry == wanted);
        let Ok(found) = found else { return false };
        found.remove();
        if let Some(count) = self.counts.get_mut(usize::from(length)) {
            *count -= 1;
            if *count == 0 {
                self.lengths &= !(1 << length);
            }
        }
        true
    }

    /// Calls `found` for each group that the address is in, more than once if it
    /// is there by several prefixes.
    pub(super) fn each_group(&self, ip: A, mut found: impl FnMut(GroupIndex)) {
        self.each_with_length(ip, A::WIDTH, &mut found);
        let mut lengths = self.lengths;
        while lengths != 0 {
            let length = lengths.trailing_zeros() as u8;
            lengths &= lengths - 1;
            self.each_with_length(ip.first(length), length, &mut found);
        }
    }

    fn each_with_length(&self, first: A, length: u8, found: &mut impl FnMut(GroupIndex)) {
        self.entries
            .iter_hash(first.hash(length))
            .filter(|entry| entry.first == first && entry.length == length)
            .for_each(|entry| found(entry.group));
    }

    /// Whether the address is in the group.
    pub(super) fn is_member(&self, ip: A, group: GroupIndex) -> bool {
        let mut is = false;
        self.each_group(ip, |found| is |= found == group);
        is
    }
}
