//! Compiles changes: only what the objects that a change concerns give, only for
//! the NVEs that need it.
//!
//! Invariant: after each change the tables are those that a compiler made anew
//! from the same state would have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use nve_protocol::{Presence, Record, Vlan};
use uuid::Uuid;

use super::dirty::Dirty;
use super::pool::{Changes, Pool};
use super::reach::Reach;
use super::slice::Slice;
use super::source::{Fact, Gift, Source, View};
use super::tables::NveTables;
use super::{Scope, network, router, security, vap};
use crate::intent::State;
use crate::model::{Mutation, Nve};
use crate::placement::Claims;

/// Tables of all NVEs, and what is needed to follow changes.
#[derive(Debug, Default)]
pub struct Compiler {
    state: State,
    claims: Claims,
    pool: Pool,
    reach: BTreeMap<Uuid, Reach>,
    /// NVEs that have a scope, for scopes that are not one NVE's alone.
    subscribers: BTreeMap<Scope, BTreeSet<Uuid>>,
    now: Compiled,
}

/// A VAP of a port whose VM is not there: its NVE, its tag and why there is one.
pub type OtherVap = (Uuid, Vlan, Presence);

/// What came out: the tables of all NVEs and where ports are, may come to or have been. A copy shares
/// everything with its original and does not change any more.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    nves: OrdMap<Uuid, Arc<NveTables>>,
    places: OrdMap<Uuid, (Uuid, Vlan)>,
    asides: OrdMap<Uuid, Arc<[OtherVap]>>,
}

impl Compiled {
    /// Tables of an NVE; `None` if it is not registered.
    pub fn tables(&self, nve: Uuid) -> Option<&Arc<NveTables>> {
        self.nves.get(&nve)
    }

    /// All NVEs' tables.
    pub fn all(&self) -> impl Iterator<Item = (Uuid, &Arc<NveTables>)> {
        self.nves.iter().map(|(nve, tables)| (*nve, tables))
    }

    /// The NVE that a port is attached to, and the port's tag there.
    pub fn place(&self, port: Uuid) -> Option<(Uuid, Vlan)> {
        self.places.get(&port).copied()
    }

    /// The VAPs that a port has where its VM is not.
    pub fn asides(&self, port: Uuid) -> &[OtherVap] {
        self.asides.get(&port).map_or(&[], |asides| asides)
    }
}

impl Compiler {
    /// Compiles a whole state.
    pub fn new(state: &State) -> Compiler {
        let mut compiler = Compiler {
            state: state.clone(),
            claims: Claims::of(state),
            ..Compiler::default()
        };
        for nve in state.nves() {
            compiler.register(nve);
        }
        compiler.compile(&Dirty::all(state).sources);
        compiler
    }

    /// Tables of an NVE; `None` if it is not registered.
    pub fn tables(&self, nve: Uuid) -> Option<&Arc<NveTables>> {
        self.now.tables(nve)
    }

    /// What came out, as it is now.
    pub fn compiled(&self) -> &Compiled {
        &self.now
    }

    /// Follows `mutations`, which led to `after`, and returns the NVEs whose
    /// tables are other ones now.
    pub fn follow(&mut self, after: &State, mutations: &[Mutation]) -> BTreeSet<Uuid> {
        let before = std::mem::replace(&mut self.state, after.clone());
        let mut dirty = Dirty::default();
        for mutation in mutations {
            dirty.touch(&before, &self.state, &mut self.claims, mutation);
        }
        for network in &dirty.networks {
            let subscribers = self.subscribers.get(&Scope::Network(*network));
            let presences = subscribers.into_iter().flatten();
            dirty
                .sources
                .extend(presences.map(|nve| Source::Presence(*network, *nve)));
        }
        let mut changed = self.follow_nves(mutations, &mut dirty.sources);
        changed.extend(self.compile(&dirty.sources));
        changed
    }

    fn follow_nves(
        &mut self,
        mutations: &[Mutation],
        dirty: &mut BTreeSet<Source>,
    ) -> BTreeSet<Uuid> {
        let mut changed = BTreeSet::new();
        for mutation in mutations {
            let (Mutation::PutNve(Nve { id, .. }) | Mutation::DeleteNve(id)) = mutation else {
                continue;
            };
            let before = self.now.nves.get(id).cloned();
            match self.state.nve(*id).cloned() {
                Some(nve) => self.register(&nve),
                None => drop(self.now.nves.remove(id)),
            }
            if before.as_ref() != self.now.nves.get(id) {
                changed.insert(*id);
            }
            let reached = self.reach.get(id).into_iter();
            let networks = reached.flat_map(|reach| reach.networks.keys());
            dirty.extend(networks.map(|network| Source::Presence(*network, *id)));
        }
        changed
    }

    /// Makes room for an NVE's tables, or moves them to its VTEP.
    fn register(&mut self, nve: &Nve) {
        let tables = self.now.nves.entry(nve.id).or_default();
        Arc::make_mut(tables).set_own(nve.vtep);
    }

    /// Compiles what these sources give, and returns the NVEs with other tables.
    fn compile(&mut self, dirty: &BTreeSet<Source>) -> BTreeSet<Uuid> {
        let mut changes = Changes::default();
        let mut presences = BTreeSet::new();
        for source in dirty {
            match source {
                Source::Presence(..) => drop(presences.insert(*source)),
                _ => self.give(*source, &mut changes),
            }
        }
        let mut stale = BTreeMap::new();
        for nve in self.rewired(&changes.facts) {
            self.rewire(nve, &mut presences, &mut stale);
        }
        for source in presences {
            self.give(source, &mut changes);
        }
        for scope in changes.scopes {
            for nve in self.holders(scope) {
                stale.entry(nve).or_default().insert(scope);
            }
        }
        let changed = stale.into_iter();
        changed
            .filter_map(|(nve, scopes)| self.publish(nve, &scopes))
            .collect()
    }

    /// Takes what a source gives now.
    fn give(&mut self, source: Source, changes: &mut Changes) {
        let view = View {
            state: &self.state,
            claims: &self.claims,
        };
        let gift = match source {
            Source::Port(id) => vap::port(view, id),
            Source::Network(id) => network::network(view, id),
            Source::Subnet(id) => network::subnet(view, id),
            Source::Router(id) => router::router(view, id),
            Source::SecurityGroup(id) => security::group(view, id),
            Source::Rule(id) => security::rule(view, id),
            Source::AddressGroup(id) => security::address_group(view, id),
            Source::Vtep(id) => network::vtep(view, id),
            Source::Presence(id, nve) => {
                let local = self
                    .reach
                    .get(&nve)
                    .and_then(|reach| reach.networks.get(&id));
                local.map_or_else(Gift::default, |local| {
                    network::presence(view, id, nve, *local)
                })
            }
        };
        if let Source::Port(id) = source {
            self.place(id, &gift);
        }
        self.pool.give(source, gift, changes);
    }

    fn place(&mut self, port: Uuid, gift: &Gift) {
        let vaps = gift.records.iter().filter_map(|entry| match entry {
            ((Scope::Vap(nve, vlan), _), Record::Vap(vap)) => Some((*nve, *vlan, vap.presence)),
            _ => None,
        });
        let is_own = |(_, _, presence): &OtherVap| *presence == Presence::Active;
        let (own, asides): (Vec<_>, Vec<_>) = vaps.partition(is_own);
        match own.first().map(|(nve, vlan, _)| (*nve, *vlan)) {
            Some(place) if self.now.places.get(&port) == Some(&place) => {}
            Some(place) => drop(self.now.places.insert(port, place)),
            None => drop(self.now.places.remove(&port)),
        }
        if asides.is_empty() {
            self.now.asides.remove(&port);
        } else if self.now.asides(port) != asides {
            self.now.asides.insert(port, asides.into());
        }
    }

    /// NVEs that these facts may give another reach. One that a network comes
    /// into reach of, over however many new links, reached one end of such a link
    /// before, or else has another VAP.
    fn rewired(&self, facts: &BTreeSet<Fact>) -> BTreeSet<Uuid> {
        let concerned = |fact: &Fact| match *fact {
            Fact::Local(nve, _) | Fact::Bound(nve, _) => BTreeSet::from([nve]),
            Fact::Routed(network, _) => self.holders(Scope::Network(network)),
            Fact::Serves(router, _) => self.holders(Scope::Router(router)),
            Fact::Names(group, _) => self.holders(Scope::Group(group)),
        };
        facts.iter().flat_map(concerned).collect()
    }

    /// The NVEs that have a scope.
    fn holders(&self, scope: Scope) -> BTreeSet<Uuid> {
        match scope {
            Scope::Vap(nve, _) => BTreeSet::from([nve]),
            _ => self.subscribers.get(&scope).cloned().unwrap_or_default(),
        }
    }

    /// Finds out anew what an NVE needs, and which parts in networks and which
    /// scopes it has to get or to lose.
    fn rewire(
        &mut self,
        nve: Uuid,
        presences: &mut BTreeSet<Source>,
        stale: &mut BTreeMap<Uuid, BTreeSet<Scope>>,
    ) {
        let old = self.reach.remove(&nve).unwrap_or_default();
        let new = Reach::of(&self.pool, nve);
        for network in old.networks.keys().chain(new.networks.keys()) {
            if old.networks.get(network) != new.networks.get(network) {
                presences.insert(Source::Presence(*network, nve));
            }
        }
        for scope in old.scopes.symmetric_difference(&new.scopes) {
            stale.entry(nve).or_default().insert(*scope);
            let holders = self.subscribers.entry(*scope).or_default();
            match new.scopes.contains(scope) {
                true => holders.insert(nve),
                false => holders.remove(&nve),
            };
            if holders.is_empty() {
                self.subscribers.remove(scope);
            }
        }
        if !new.scopes.is_empty() {
            self.reach.insert(nve, new);
        }
    }

    /// Gives an NVE its scopes' newest records; the NVE, if that made a difference.
    fn publish(&mut self, nve: Uuid, scopes: &BTreeSet<Scope>) -> Option<Uuid> {
        let none = Slice::default();
        let tables = self.now.nves.get(&nve)?;
        let reach = self.reach.get(&nve);
        let mut next = NveTables::clone(tables);
        for scope in scopes {
            let has = matches!(scope, Scope::Vap(..))
                || reach.is_some_and(|reach| reach.scopes.contains(scope));
            next.set(*scope, if has { self.pool.slice(*scope) } else { &none });
        }
        if next == **tables {
            return None;
        }
        self.now.nves.insert(nve, Arc::new(next));
        Some(nve)
    }
}
