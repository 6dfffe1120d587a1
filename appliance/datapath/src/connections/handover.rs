//! Connections in lists, on their way to another NVE and from one.

use nve_protocol::{DropReason, RuleId, Vlan};

use super::{Connection, ConnectionKey, Connections, Entry, NEVER, TICK, tick};
use crate::Nanos;

/// Most connections of a page, and most that are looked at for it.
const TOLD: usize = 128;
const LOOKED_AT: usize = 4096;

/// Bits of a generation in a cursor, above those of the slot.
const GENERATION: u32 = (1 << 24) - 1;

/// Ticks that what another NVE tells may have been under way, about a second: what was
/// seen here so short before it is not older.
const UNDER_WAY: u32 = 2;

impl Connections {
    /// Connections of a VAP that are not expired, oldest first.
    pub(crate) fn of_vap(&self, vlan: Vlan, now: Nanos) -> impl Iterator<Item = Connection> + '_ {
        let mut slot = self.share(vlan).oldest;
        core::iter::from_fn(move || {
            let (entry, cold) = (self.entry(slot)?, self.cold.get(slot as usize)?);
            slot = cold.newer;
            Some((entry, cold))
        })
        .filter(move |(entry, _)| !self.is_expired(entry, now))
        .map(move |(entry, cold)| entry.export(vlan, cold.rule, now))
    }

    /// One connection, as in lists.
    pub(crate) fn export(&self, slot: u32, now: Nanos) -> Option<Connection> {
        let entry = self.entry(slot)?;
        let vlan = Vlan::new(entry.key.vlan())?;
        Some(entry.export(vlan, self.rule(slot)?, now))
    }

    /// Tells those of a VAP that had a packet within that time, about, oldest first from
    /// where `cursor` says, and returns where to go on: 0 at the end, as for the beginning.
    /// A cursor of 56 bits; one whose connection is no more begins anew.
    pub(crate) fn page(
        &self,
        vlan: Vlan,
        cursor: u64,
        now: Nanos,
        within: Nanos,
        mut tell: impl FnMut(Connection),
    ) -> u64 {
        let mut slot = self.resume(vlan, cursor);
        let mut told = 0;
        for _ in 0..LOOKED_AT {
            let (Some(entry), Some(cold)) = (self.entry(slot), self.cold.get(slot as usize)) else {
                return 0;
            };
            if told == TOLD {
                break;
            }
            let idle = tick(now).wrapping_sub(entry.seen);
            if !self.is_expired(entry, now) && idle <= tick(within).saturating_add(1) {
                tell(entry.export(vlan, cold.rule, now));
                told += 1;
            }
            slot = cold.newer;
        }
        self.entry(slot)
            .map_or(0, |entry| cursor_of(slot, entry.generation))
    }

    /// The slot that a cursor means, or that of the oldest connection.
    fn resume(&self, vlan: Vlan, cursor: u64) -> u32 {
        let slot = (cursor as u32).wrapping_sub(1);
        let is_meant = |entry: &Entry| {
            entry.key.vlan() == vlan.get() && cursor_of(slot, entry.generation) == cursor
        };
        match self.entry(slot).is_some_and(is_meant) {
            true => slot,
            false => self.share(vlan).oldest,
        }
    }

    /// Takes a connection from another NVE, unless it was seen here later. Rules are asked
    /// at its first packet.
    pub(crate) fn import(&mut self, connection: &Connection, now: Nanos) -> Result<(), DropReason> {
        let key = ConnectionKey::new(
            connection.vlan,
            connection.protocol,
            (connection.local, connection.remote),
            (connection.local_port, connection.remote_port),
        );
        let (opener, state, rule) = (connection.opener, connection.state, connection.rule);
        let limit = self.limits.get(state as usize).copied();
        if tick(connection.idle) > limit.unwrap_or(0) {
            return Ok(());
        }
        let seen = tick(now).wrapping_sub(tick(connection.idle));
        let known = self.find(&key);
        if let Some(entry) = known.and_then(|slot| self.entry(slot))
            && entry.is_newer_than(seen)
        {
            return Ok(());
        }
        if let Some(slot) = known {
            self.evict(slot);
        }
        let handle = self.insert(key, opener, state, rule, now, NEVER)?;
        if let Some(entry) = self.entries.get_mut(handle.slot() as usize) {
            entry.seen = seen;
        }
        Ok(())
    }
}

impl Entry {
    /// Whether it says more than another NVE does whose last packet was in that tick, by
    /// what has passed since it told. What the other told before is not newer.
    fn is_newer_than(&self, seen: u32) -> bool {
        let margin = if self.epoch == NEVER { 0 } else { UNDER_WAY };
        let ahead = self.seen.wrapping_add(margin).wrapping_sub(seen);
        ahead <= u32::MAX / 2
    }

    fn export(&self, vlan: Vlan, rule: RuleId, now: Nanos) -> Connection {
        Connection {
            vlan,
            opener: self.opener,
            protocol: self.key.protocol(),
            local: self.key.local(),
            remote: self.key.remote(),
            local_port: self.key.local_port(),
            remote_port: self.key.remote_port(),
            state: self.state,
            idle: Nanos(u64::from(tick(now).wrapping_sub(self.seen)) << TICK),
            rule,
        }
    }
}

/// Where a walk goes on: at this slot, as long as it has this connection. Never 0: the
/// largest number is no slot's.
fn cursor_of(slot: u32, generation: u32) -> u64 {
    u64::from(generation & GENERATION) << 32 | u64::from(slot.wrapping_add(1))
}

#[cfg(test)]
mod tests;
