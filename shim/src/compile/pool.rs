//! What all objects give, put together.
//!
//! Invariants: a slice has, for each key that is given to its scope, the record
//! of the least source; a fact counts as often as it is given.

use std::collections::{BTreeMap, BTreeSet};

use nve_protocol::{Key, Record};

use super::Scope;
use super::slice::Slice;
use super::source::{Fact, Gift, Source};

/// Records and facts of all sources.
#[derive(Debug, Default)]
pub(super) struct Pool {
    shelves: BTreeMap<Scope, Shelf>,
    facts: BTreeMap<Fact, u32>,
    given: BTreeMap<Source, Given>,
    none: Slice,
}

#[derive(Debug, Default)]
struct Shelf {
    offers: BTreeMap<(Key, Source), Record>,
    slice: Slice,
}

/// What a source gave, to take it back.
#[derive(Debug, Default)]
struct Given {
    records: Vec<(Scope, Key)>,
    facts: Vec<Fact>,
}

/// What came out differently.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Scopes with other records.
    pub(super) scopes: BTreeSet<Scope>,
    /// Facts that came or went.
    pub(super) facts: BTreeSet<Fact>,
}

impl Pool {
    /// The records of a scope.
    pub(super) fn slice(&self, scope: Scope) -> &Slice {
        self.shelves
            .get(&scope)
            .map_or(&self.none, |shelf| &shelf.slice)
    }

    /// The facts within the bounds, ascending.
    pub(super) fn facts(&self, first: Fact, last: Fact) -> impl Iterator<Item = Fact> {
        self.facts.range(first..=last).map(|(fact, _)| *fact)
    }

    /// Replaces what a source gives.
    pub(super) fn give(&mut self, source: Source, gift: Gift, changes: &mut Changes) {
        let mut old = self.given.remove(&source).unwrap_or_default();
        let new = Given {
            records: gift.records.keys().copied().collect(),
            facts: gift.facts,
        };
        old.records
            .retain(|entry| !gift.records.contains_key(entry));
        for ((scope, _), record) in gift.records {
            self.offer(scope, source, record, changes);
        }
        for (scope, key) in old.records {
            self.withdraw(scope, source, key, changes);
        }
        new.facts.iter().for_each(|fact| self.claim(*fact, changes));
        old.facts.iter().for_each(|fact| self.drop(*fact, changes));
        if !(new.records.is_empty() && new.facts.is_empty()) {
            self.given.insert(source, new);
        }
    }

    fn offer(&mut self, scope: Scope, source: Source, record: Record, changes: &mut Changes) {
        let shelf = self.shelves.entry(scope).or_default();
        let old = shelf.offers.insert((record.key(), source), record);
        if old != Some(record) && shelf.settle(record.key()) {
            changes.scopes.insert(scope);
        }
    }

    fn withdraw(&mut self, scope: Scope, source: Source, key: Key, changes: &mut Changes) {
        let Some(shelf) = self.shelves.get_mut(&scope) else {
            return;
        };
        shelf.offers.remove(&(key, source));
        if shelf.settle(key) {
            changes.scopes.insert(scope);
        }
        if shelf.offers.is_empty() {
            self.shelves.remove(&scope);
        }
    }

    fn claim(&mut self, fact: Fact, changes: &mut Changes) {
        let count = self.facts.entry(fact).or_insert(0);
        *count += 1;
        if *count == 1 {
            changes.facts.insert(fact);
        }
    }

    fn drop(&mut self, fact: Fact, changes: &mut Changes) {
        let Some(count) = self.facts.get_mut(&fact) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.facts.remove(&fact);
            changes.facts.insert(fact);
        }
    }
}

impl Shelf {
    /// Takes the best offer for a key; whether that is another record now.
    fn settle(&mut self, key: Key) -> bool {
        let mut offers = self.offers.range((key, Source::FIRST)..);
        let best = offers.next().filter(|((of, _), _)| *of == key);
        match (best, self.slice.get(&key)) {
            (None, None) => false,
            (Some((_, best)), Some(now)) if best == now => false,
            (Some((_, best)), _) => {
                self.slice.put(*best);
                true
            }
            (None, Some(_)) => {
                self.slice.delete(&key);
                true
            }
        }
    }
}
