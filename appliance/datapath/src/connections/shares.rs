//! Who has how much of the table, and who makes room.
//!
//! Connections of a VAP are in a list, oldest first. What is looked at to make
//! room and is kept goes to the end of it, so that looking at few at a time goes
//! through all.

use super::{Connections, LOOK, NONE, Nanos, Share};

impl Connections {
    /// Makes room for one more connection of a VAP; `None` if there is none for it.
    pub(super) fn room_for(&mut self, vlan: u16, now: Nanos) -> Option<()> {
        let count = self.shares.get(usize::from(vlan))?.count;
        if count >= self.per_vap {
            return self.reclaim(vlan, now, 0);
        }
        if self.count < self.capacity {
            return Some(());
        }
        let greediest = self.greediest();
        let most = self.shares.get(usize::from(greediest))?.count;
        match count < most {
            true => self.reclaim(greediest, now, u8::MAX),
            // Its own that are over make room for its new ones, but no others.
            false => self.reclaim(vlan, now, 0),
        }
    }

    /// Whether [`Self::room_for`] would make room for one more connection of a VAP
    /// once one of `pending`, if there is one, is there too; nothing changes.
    pub(crate) fn has_room(&self, vlan: u16, pending: Option<u16>, now: Nanos) -> bool {
        let Some(share) = self.shares.get(usize::from(vlan)) else {
            return false;
        };
        let own = u32::from(pending == Some(vlan));
        let count = share.count + own;
        let most = || self.shares.iter().map(|share| share.count).max();
        let fits = || {
            self.count + usize::from(pending.is_some()) < self.capacity
                || most().is_some_and(|most| count < most)
        };
        (count < self.per_vap && fits()) || self.worthless(share.oldest, now) > own as usize
    }

    /// How many of the connections from `slot` on, as far as they are looked at, may go
    /// for one of the same VAP.
    fn worthless(&self, slot: u32, now: Nanos) -> usize {
        let mut slot = slot;
        let oldest = core::iter::from_fn(|| {
            let entry = self.entry(slot)?;
            slot = self.cold.get(slot as usize)?.newer;
            Some(entry)
        });
        let looked_at = oldest.take(LOOK);
        looked_at
            .filter(|entry| self.is_expired(entry, now) || entry.state.worth() == 0)
            .count()
    }

    /// Removes one of the VAP's oldest connections: one that has expired, or else
    /// that of least worth, if that is at most `worth`.
    fn reclaim(&mut self, vlan: u16, now: Nanos, worth: u8) -> Option<()> {
        let mut least: Option<(u8, u32)> = None;
        for _ in 0..LOOK {
            let slot = self.shares.get(usize::from(vlan))?.oldest;
            let Some(entry) = self.entry(slot) else { break };
            if self.is_expired(entry, now) {
                self.remove(slot);
                return Some(());
            }
            let found = (entry.state.worth(), slot);
            match least {
                Some((lowest, _)) if lowest <= found.0 => {}
                _ => least = Some(found),
            }
            self.unlink(slot, vlan);
            self.link(slot, vlan);
        }
        let (found, slot) = least?;
        if found > worth {
            return None;
        }
        self.evict(slot);
        Some(())
    }

    /// The VAP that has most connections.
    fn greediest(&mut self) -> u16 {
        let most = self.shares.get(usize::from(self.greediest));
        if most.is_none_or(|share| share.count < self.rival) {
            self.rank();
        }
        self.greediest
    }

    fn rank(&mut self) {
        let (mut greediest, mut most, mut rival) = (0, 0, 0);
        for (vlan, share) in (0u16..).zip(&self.shares) {
            if share.count > most {
                rival = most;
                (greediest, most) = (vlan, share.count);
            } else {
                rival = rival.max(share.count);
            }
        }
        (self.greediest, self.rival) = (greediest, rival);
    }

    /// Counts one more connection of a VAP.
    pub(super) fn grow(&mut self, vlan: u16) {
        let most = self.shares.get(usize::from(self.greediest));
        let most = most.map_or(0, |share| share.count);
        let Some(share) = self.shares.get_mut(usize::from(vlan)) else {
            return;
        };
        share.count += 1;
        if vlan == self.greediest {
            return;
        }
        if share.count > most {
            self.greediest = vlan;
            self.rival = self.rival.max(most);
        } else {
            self.rival = self.rival.max(share.count);
        }
    }

    /// Puts a slot at the end of its VAP's list.
    pub(super) fn link(&mut self, slot: u32, vlan: u16) {
        let Some(share) = self.shares.get_mut(usize::from(vlan)) else {
            return;
        };
        let before = core::mem::replace(&mut share.newest, slot);
        if before == NONE {
            share.oldest = slot;
        }
        if let Some(cold) = self.cold.get_mut(before as usize) {
            cold.newer = slot;
        }
        if let Some(cold) = self.cold.get_mut(slot as usize) {
            (cold.older, cold.newer) = (before, NONE);
        }
    }

    /// Takes a slot out of its VAP's list.
    pub(super) fn unlink(&mut self, slot: u32, vlan: u16) {
        let Some(cold) = self.cold.get(slot as usize) else {
            return;
        };
        let (older, newer) = (cold.older, cold.newer);
        let share = self.shares.get_mut(usize::from(vlan));
        let mut none = Share::EMPTY;
        let share = share.unwrap_or(&mut none);
        match self.cold.get_mut(older as usize) {
            Some(cold) => cold.newer = newer,
            None => share.oldest = newer,
        }
        match self.cold.get_mut(newer as usize) {
            Some(cold) => cold.older = older,
            None => share.newest = older,
        }
    }
}
