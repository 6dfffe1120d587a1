//! Which part of the tables changed when, so that a change makes only those verdicts
//! stale that it may have changed.
//!
//! Time is counted in epochs; each commit begins one. A [`Scope`] is a part of the
//! tables. What was decided in an earlier epoch, from some scopes alone, is what would
//! be decided now if none of them has changed since. So nobody is told of a change: who
//! kept a verdict asks when it is needed again.
//!
//! Scopes of which there can be many share marks, by hash. Two that share one seem to
//! change together, which costs a decision and is never wrong. What cannot be told apart
//! cheaply changes everything, and so does all if there is no memory for marks.
//!
//! Numbers of epochs wrap. A mark older than a whole round seems newer than it is, which
//! makes verdicts stale; verdicts that are kept must not be, so those who keep them
//! replace the numbers of [old](Changes::is_old) ones by [`NEVER`].

use core::hash::Hasher;
use core::net::IpAddr;

use alloc::vec::Vec;
use nve_protocol::{Mac, Vlan, Vni};

use super::macs::FastHasher;

/// The number of no epoch.
pub(crate) const NEVER: u32 = 0;

/// Marks that scopes of all kinds but VAPs share; a power of two. With 10,000 changes
/// per second, a packet each 10 ms finds one of its four marks taken in 0.6 % of cases.
const PLACES: usize = 1 << 16;

/// A part of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// A VAP: its record, addresses, QoS, and what its groups' rules say.
    Vap(Vlan),
    /// What holds for all that VMs of a network send: its MTU, its gateways, and all of
    /// the routers that they belong to.
    Network(Vni),
    /// The VTEPs from which frames of a network are taken.
    Tunnels(Vni),
    /// Where a MAC address is, and which IP addresses have it.
    Station(Vni, Mac),
    /// Which groups an IP address is a member of.
    Address(IpAddr),
}

/// When which scope last changed.
#[derive(Debug, Clone)]
pub struct Changes {
    epoch: u32,
    /// When all changed.
    all: u32,
    /// Of VAPs, by tag.
    vaps: Vec<u32>,
    /// Of other scopes, by hash.
    places: Vec<u32>,
}

/// Asks what changed after some epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Since<'c> {
    changes: &'c Changes,
    age: u32,
}

impl Changes {
    /// The first epoch, and no memory for marks.
    pub(crate) fn new() -> Changes {
        Changes {
            epoch: NEVER + 1,
            all: NEVER,
            vaps: Vec::new(),
            places: Vec::new(),
        }
    }

    /// From now on scopes are told apart, if there is memory for it.
    pub(crate) fn tell_apart(&mut self) {
        let tags = usize::from(Vlan::MAX) + 1;
        let (mut vaps, mut places) = (Vec::new(), Vec::new());
        if vaps.try_reserve_exact(tags).is_err() || places.try_reserve_exact(PLACES).is_err() {
            return;
        }
        self.mark_all();
        vaps.resize(tags, NEVER);
        places.resize(PLACES, NEVER);
        (self.vaps, self.places) = (vaps, places);
    }

    /// Number of the epoch: never [`NEVER`].
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The changes up to now are those of a commit.
    pub(crate) fn begin_epoch(&mut self) {
        self.epoch = self.next();
    }

    /// The epoch in which changes that come now take effect.
    fn next(&self) -> u32 {
        match self.epoch.wrapping_add(1) {
            NEVER => NEVER + 1,
            next => next,
        }
    }

    /// A scope changes.
    pub(crate) fn mark(&mut self, scope: Scope) {
        let next = self.next();
        let mark = match scope {
            Scope::Vap(vlan) => self.vaps.get_mut(usize::from(vlan.get())),
            shared => self.places.get_mut(place(shared)),
        };
        *mark.unwrap_or(&mut self.all) = next;
    }

    /// Everything changes.
    pub(crate) fn mark_all(&mut self) {
        self.all = self.next();
    }

    /// What changed after an epoch; `None` if everything did.
    #[inline]
    pub(crate) fn since(&self, epoch: u32) -> Option<Since<'_>> {
        let since = Since {
            changes: self,
            age: self.epoch.wrapping_sub(epoch),
        };
        (epoch != NEVER && !since.is_younger(self.all)).then_some(since)
    }

    /// Whether the number of an epoch is to be replaced by [`NEVER`] before it means
    /// another one.
    pub(crate) fn is_old(&self, epoch: u32) -> bool {
        self.epoch.wrapping_sub(epoch) > 1 << 30
    }
}

impl Since<'_> {
    /// Whether a scope is what it was.
    #[inline]
    pub(crate) fn same(&self, scope: Scope) -> bool {
        let mark = match scope {
            Scope::Vap(vlan) => self.changes.vaps.get(usize::from(vlan.get())),
            shared => self.changes.places.get(place(shared)),
        };
        // Without marks everything changes at once.
        mark.is_none_or(|mark| !self.is_younger(*mark))
    }

    fn is_younger(&self, mark: u32) -> bool {
        self.changes.epoch.wrapping_sub(mark) < self.age
    }
}

/// The place of a scope's mark.
#[inline]
fn place(scope: Scope) -> usize {
    let (kind, front, back) = match scope {
        Scope::Vap(vlan) => (0, u64::from(vlan.get()), 0),
        Scope::Network(vni) => (1, u64::from(vni.get()), 0),
        Scope::Tunnels(vni) => (2, u64::from(vni.get()), 0),
        Scope::Station(vni, mac) => {
            let [a, b, c, d, e, f] = mac.0;
            let mac = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
            (3, mac, u64::from(vni.get()))
        }
        Scope::Address(IpAddr::V4(ip)) => (4, u64::from(ip.to_bits()), 0),
        Scope::Address(IpAddr::V6(ip)) => (5, (ip.to_bits() >> 64) as u64, ip.to_bits() as u64),
    };
    let mut hasher = FastHasher::default();
    hasher.write_u64(front ^ kind << 56);
    hasher.write_u64(back);
    hasher.finish() as usize & (PLACES - 1)
}

#[cfg(test)]
impl Changes {
    /// In an epoch with this number.
    pub(crate) fn at(epoch: u32) -> Changes {
        let mut changes = Changes::new();
        changes.tell_apart();
        changes.epoch = epoch;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VNI: Vni = Vni::new(5001).unwrap();
    const VLAN: Vlan = Vlan::new(101).unwrap();

    fn scopes() -> [Scope; 6] {
        [
            Scope::Vap(VLAN),
            Scope::Network(VNI),
            Scope::Tunnels(VNI),
            Scope::Station(VNI, Mac([2, 0, 0, 0, 0, 1])),
            Scope::Address([10, 0, 0, 1].into()),
            Scope::Address("2001:db8::1".parse().unwrap()),
        ]
    }

    fn same(changes: &Changes, epoch: u32, scope: Scope) -> bool {
        changes.since(epoch).is_some_and(|since| since.same(scope))
    }

    #[test]
    fn what_changed_is_told_from_what_did_not() {
        let mut changes = Changes::new();
        changes.tell_apart();
        changes.begin_epoch();
        let before = changes.epoch();
        for changed in scopes() {
            let epoch = changes.epoch();
            changes.mark(changed);
            changes.begin_epoch();
            for scope in scopes() {
                assert_eq!(same(&changes, epoch, scope), scope != changed);
                assert!(same(&changes, changes.epoch(), scope));
            }
        }
        assert!(scopes().iter().all(|scope| !same(&changes, before, *scope)));
        assert!(!same(&changes, NEVER, scopes()[0]));
    }

    #[test]
    fn all_of_it_can_change() {
        let mut changes = Changes::new();
        changes.tell_apart();
        changes.begin_epoch();
        let epoch = changes.epoch();
        changes.mark_all();
        changes.begin_epoch();
        assert!(changes.since(epoch).is_none());
        assert!(changes.since(changes.epoch()).is_some());
    }

    #[test]
    fn without_marks_any_change_is_one_of_all() {
        let mut changes = Changes::new();
        let epoch = changes.epoch();
        changes.begin_epoch();
        assert!(same(&changes, epoch, Scope::Vap(VLAN)));
        changes.mark(Scope::Network(VNI));
        changes.begin_epoch();
        assert!(!same(&changes, epoch, Scope::Vap(VLAN)));
    }

    #[test]
    fn numbers_wrap() {
        let mut changes = Changes::new();
        changes.tell_apart();
        changes.epoch = u32::MAX - 1;
        changes.mark(Scope::Vap(VLAN));
        changes.begin_epoch();
        let epoch = changes.epoch();
        changes.begin_epoch();
        assert_eq!(changes.epoch(), NEVER + 1);
        assert!(same(&changes, epoch, Scope::Vap(VLAN)));
        changes.mark(Scope::Vap(VLAN));
        changes.begin_epoch();
        assert!(!same(&changes, epoch, Scope::Vap(VLAN)));
        assert!(!changes.is_old(epoch));
        assert!(changes.is_old(epoch.wrapping_sub(1 << 30)));
    }
}
