//! What an NVE needs for the VAPs that it has.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Scope;
use super::pool::Pool;
use super::source::Fact;

/// Least and greatest of the facts about one object.
const ANY: (Uuid, Uuid) = (Uuid::nil(), Uuid::max());

/// What an NVE needs beside its VAPs' own records.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Networks that it can send to, and whether it has VAPs there.
    pub(super) networks: BTreeMap<Uuid, bool>,
    pub(super) scopes: BTreeSet<Scope>,
}

impl Reach {
    /// What follows from the facts: the networks of the NVE's VAPs, all that
    /// routers connect to them, the VAPs' security groups, and the groups that
    /// the rules of these name.
    pub(super) fn of(pool: &Pool, nve: Uuid) -> Reach {
        let mut reach = Reach::default();
        let locals = pool.facts(Fact::Local(nve, ANY.0), Fact::Local(nve, ANY.1));
        let mut open: Vec<Uuid> = locals.map(other).collect();
        for network in &open {
            reach.networks.insert(*network, true);
            reach.scopes.insert(Scope::Segment(*network));
        }
        while let Some(network) = open.pop() {
            reach.scopes.insert(Scope::Network(network));
            let routed = pool.facts(Fact::Routed(network, ANY.0), Fact::Routed(network, ANY.1));
            for router in routed.map(other) {
                if reach.scopes.insert(Scope::Router(router)) {
                    open.extend(reach.over(pool, router));
                }
            }
        }
        let bound = pool.facts(Fact::Bound(nve, ANY.0), Fact::Bound(nve, ANY.1));
        for group in bound.map(other) {
            reach.scopes.insert(Scope::Group(group));
            let named = pool.facts(Fact::Names(group, ANY.0), Fact::Names(group, ANY.1));
            let members = named.map(other).map(Scope::Members);
            reach.scopes.extend(members);
        }
        reach
    }

    /// The networks that a router brings into reach.
    fn over(&mut self, pool: &Pool, router: Uuid) -> Vec<Uuid> {
        let served = pool.facts(Fact::Serves(router, ANY.0), Fact::Serves(router, ANY.1));
        let mut new = Vec::new();
        for network in served.map(other) {
            self.networks.entry(network).or_insert_with(|| {
                new.push(network);
                false
            });
        }
        new
    }
}

/// The second object of a fact.
const fn other(fact: Fact) -> Uuid {
    match fact {
        Fact::Local(_, other)
        | Fact::Bound(_, other)
        | Fact::Routed(_, other)
        | Fact::Serves(_, other)
        | Fact::Names(_, other) => other,
    }
}
