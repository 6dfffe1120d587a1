//! VAPs, and whether their VM is there.
//!
//! A VAP whose VM is there is found by its address and is a member of its network. One on
//! standby is neither, until its VM is heard: then it is awake, which is as if its record
//! said that the VM is there. Of one whose VM has gone it is only known that the address
//! was here. All have their tag, port, addresses, meters and groups.
//!
//! Who is awake is not in the digest: the shim is told of it, and does not tell it.
//! Invariants: only VAPs on standby are awake; a VAP is in the indexes by exactly its
//! [`Entries`].

use alloc::vec::Vec;

use nve_protocol::inspect::Place;
use nve_protocol::{Mac, Presence, Vap, Vlan, Vni};

use super::changes::Scope;
use super::{TableError, Tables, check_station};

/// VAPs by tag.
#[derive(Debug, Default)]
pub(super) struct Vaps {
    records: Vec<Option<Vap>>,
    /// The number of the awakening; 0 of those that are not awake.
    woken: Vec<u64>,
    /// How many awakenings there were.
    awakenings: u64,
    changed: bool,
}

impl Vaps {
    /// None, which is a change.
    pub(super) fn new() -> Vaps {
        Vaps {
            changed: true,
            ..Vaps::default()
        }
    }

    fn make_room(&mut self) -> Result<(), TableError> {
        if self.records.is_empty() {
            let slots = usize::from(Vlan::MAX) + 1;
            self.records
                .try_reserve_exact(slots)
                .and_then(|()| self.woken.try_reserve_exact(slots))
                .map_err(|_| TableError::OutOfMemory)?;
            self.records.resize(slots, None);
            self.woken.resize(slots, 0);
        }
        Ok(())
    }

    fn woken(&self, vlan: Vlan) -> u64 {
        let number = self.woken.get(usize::from(vlan.get()));
        number.copied().unwrap_or(0)
    }

    fn set_woken(&mut self, vlan: Vlan, number: u64) {
        if let Some(place) = self.woken.get_mut(usize::from(vlan.get())) {
            *place = number;
        }
    }
}

/// What the indexes have of a VAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Entries {
    /// A member of the network.
    member: Option<Vni>,
    /// The address is here.
    local: Option<(Vni, Mac)>,
    /// The address was here.
    departed: Option<(Vni, Mac)>,
}

impl Entries {
    fn of(vap: &Vap, is_awake: bool) -> Entries {
        let station = (vap.vni, vap.mac);
        match vap.presence {
            Presence::Departed => Entries {
                departed: Some(station),
                ..Entries::default()
            },
            Presence::Standby if !is_awake => Entries::default(),
            Presence::Standby | Presence::Active => Entries {
                member: Some(vap.vni),
                local: Some(station),
                departed: None,
            },
        }
    }

    /// Those that `others` do not have.
    fn without(self, others: &Entries) -> Entries {
        Entries {
            member: self.member.filter(|vni| others.member != Some(*vni)),
            local: self.local.filter(|station| others.local != Some(*station)),
            departed: self
                .departed
                .filter(|station| others.departed != Some(*station)),
        }
    }
}

impl Tables {
    /// The VAP behind a tag.
    pub fn vap(&self, vlan: u16) -> Option<&Vap> {
        self.vaps.records.get(usize::from(vlan))?.as_ref()
    }

    /// The VAP of a port behind a tag.
    pub fn vap_at(&self, place: &Place) -> Option<&Vap> {
        self.vap(place.vlan.get())
            .filter(|vap| vap.port == place.port)
    }

    /// Whether the VM of a VAP is there, by its record or because it was heard.
    pub fn is_here(&self, vap: &Vap) -> bool {
        vap.presence == Presence::Active || self.vaps.woken(vap.vlan) != 0
    }

    /// Whether a VAP is on standby and its VM was not heard yet.
    pub fn is_asleep(&self, place: &Place) -> bool {
        self.vap_at(place)
            .is_some_and(|vap| vap.presence == Presence::Standby && !self.is_here(vap))
    }

    /// Whether an address is that of a VM that has gone.
    pub fn is_departed(&self, vni: Vni, mac: Mac) -> bool {
        self.network(vni)
            .is_some_and(|network| network.has_departed(mac))
    }

    /// The VM of a VAP was heard: if that is on standby, it is awake from now on. Without
    /// memory it is not, and what it sends is decided anew, so that it can be heard again.
    pub fn wake(&mut self, place: &Place) -> Result<(), TableError> {
        if !self.is_asleep(place) {
            return Ok(());
        }
        let Some(vap) = self.vap_at(place).copied() else {
            return Ok(());
        };
        self.changes.mark(Scope::Vap(vap.vlan));
        self.changes.mark(Scope::Station(vap.vni, vap.mac));
        let (asleep, awake) = (Entries::of(&vap, false), Entries::of(&vap, true));
        self.index(vap.vlan, asleep, awake)?;
        self.vaps.awakenings += 1;
        self.vaps.set_woken(vap.vlan, self.vaps.awakenings);
        Ok(())
    }

    /// How many VAPs woke so far.
    pub fn awakenings(&self) -> u64 {
        self.vaps.awakenings
    }

    /// The first one that woke after so many, and is awake still, with its number.
    pub fn next_awake(&self, after: u64) -> Option<(u64, Place)> {
        let numbers = (0..).zip(&self.vaps.woken);
        let (number, tag) = numbers
            .map(|(tag, number)| (*number, tag))
            .filter(|(number, _)| *number > after)
            .min()?;
        let vap = self.vap(tag)?;
        let (vlan, port) = (vap.vlan, vap.port);
        Some((number, Place { vlan, port }))
    }

    /// Whether VAPs came, changed or went since the last call, or ever.
    pub(crate) fn take_vaps_changed(&mut self) -> bool {
        core::mem::take(&mut self.vaps.changed)
    }

    /// One on standby that is awake stays so, as long as the port is the same.
    pub(super) fn put_vap(&mut self, vap: &Vap) -> Result<Option<Vap>, TableError> {
        check_station(vap.mac)?;
        self.vaps.make_room()?;
        let old = self.vap(vap.vlan.get()).copied();
        let woken = self.vaps.woken(vap.vlan);
        let stays = old.is_some_and(|old| is_still_expected(&old, vap));
        let number = if stays { woken } else { 0 };
        let before = old.map(|old| Entries::of(&old, woken != 0));
        let now = Entries::of(vap, number != 0);
        self.index(vap.vlan, before.unwrap_or_default(), now)?;
        if let Some(slot) = self.vaps.records.get_mut(usize::from(vap.vlan.get())) {
            *slot = Some(*vap);
        }
        self.vaps.set_woken(vap.vlan, number);
        self.vaps.changed = true;
        Ok(old)
    }

    pub(super) fn delete_vap(&mut self, vlan: Vlan) -> Option<Vap> {
        let slot = self.vaps.records.get_mut(usize::from(vlan.get()))?;
        let old = slot.take()?;
        let entries = Entries::of(&old, self.vaps.woken(vlan) != 0);
        self.leave(vlan, entries);
        self.vaps.set_woken(vlan, 0);
        self.vaps.changed = true;
        Some(old)
    }

    /// Has those awake that were so in `old`, which these tables replace.
    pub(super) fn stay_awake(&mut self, old: &Tables) {
        self.vaps.awakenings = old.vaps.awakenings;
        for (was, number) in old.vaps.records.iter().zip(&old.vaps.woken) {
            let Some(was) = was.as_ref().filter(|_| *number != 0) else {
                continue;
            };
            let Some(vap) = self.vap(was.vlan.get()).copied() else {
                continue;
            };
            let (asleep, awake) = (Entries::of(&vap, false), Entries::of(&vap, true));
            // Without memory it is heard again: all is decided anew.
            if is_still_expected(was, &vap) && self.index(vap.vlan, asleep, awake).is_ok() {
                self.vaps.set_woken(vap.vlan, *number);
            }
        }
    }

    /// Has the indexes have `new` of a VAP, in place of `old`. After an error they are
    /// as before.
    fn index(&mut self, vlan: Vlan, old: Entries, new: Entries) -> Result<(), TableError> {
        let added = new.without(&old);
        let entered = self.enter(vlan, added);
        match entered {
            Ok(()) => self.leave(vlan, old.without(&new)),
            Err(_) => self.leave(vlan, added),
        }
        entered
    }

    fn enter(&mut self, vlan: Vlan, entries: Entries) -> Result<(), TableError> {
        if let Some(vni) = entries.member {
            self.networks.add_vap(vni, vlan)?;
        }
        if let Some((vni, mac)) = entries.departed {
            self.networks.add_departed(vni, mac, vlan)?;
        }
        if let Some((vni, mac)) = entries.local {
            self.local.insert(vni, mac, vlan)?;
        }
        Ok(())
    }

    /// Takes entries out, as far as they are there.
    fn leave(&mut self, vlan: Vlan, entries: Entries) {
        if let Some(vni) = entries.member {
            self.networks.remove_vap(vni, vlan);
        }
        if let Some((vni, mac)) = entries.departed {
            self.networks.remove_departed(vni, mac, vlan);
        }
        if let Some((vni, mac)) = entries.local {
            self.local.remove(vni, mac, vlan);
        }
    }
}

/// Whether the VM that was heard on a VAP is the one that it is on standby for.
fn is_still_expected(was: &Vap, vap: &Vap) -> bool {
    vap.presence == Presence::Standby && vap.port == was.port
}

#[cfg(test)]
mod tests;
