//! Conntrack: the connections of every VAP.
//!
//! Each VAP has connections of its own; one between two VAPs of this NVE is in the
//! table twice. The table is as large as it was made: nothing is allocated later.
//! When it is full, the VAP that has most makes room for the others.
//!
//! What a packet of a known connection needs is in one cache line ([`Entry`]); who
//! allowed it and who comes before and after it, is apart ([`Cold`]).
//!
//! Invariants: an entry is in use exactly if its key has an owner, and then in the
//! chain of its bucket and in the list of its VAP; `entries` and `cold` are of one
//! length, at most `capacity`; a slot's generation changes whenever handles to it
//! must fail. Ticks are wrapping: entries are looked at by [`Connections::age`]
//! at least once in 36 years.

use core::net::IpAddr;

use alloc::vec::Vec;
use nve_protocol::{Direction, DropReason, RuleId, Vlan};

use crate::Nanos;
use crate::tables::{Changes, NEVER, Scope};

mod fragments;
mod handle;
mod handover;
mod hash;
mod key;
mod shares;
mod state;

#[cfg(test)]
mod tests;

pub(crate) use fragments::{FirstFragment, Fragments, Piece};
pub(crate) use handle::Fresh;
pub use handle::Handle;
use hash::Secrets;
pub(crate) use key::ConnectionKey;
pub use state::{ACK, CHANGES, FIN, RST, SYN, State, Timeouts};

/// Bytes of memory that one connection takes.
pub const BYTES_PER_CONNECTION: usize =
    size_of::<Entry>() + size_of::<Cold>() + 2 * size_of::<u32>();

/// In place of a slot: none.
const NONE: u32 = u32::MAX;

/// Entries whose epoch is looked at in each: enough for 2^32 of them in 2^30.
const SWEPT: usize = 4;

/// Most entries that are looked at to make room for one.
const LOOK: usize = 8;

/// One tick is 2^29 ns, about half a second: longer than the time between the packets of a
/// million busy connections, since each tick in which one is used costs a line of memory,
/// and short beside the shortest time that one is kept.
const TICK: u32 = 29;

/// Entries that are fetched to be looked at for expiry.
const AHEAD: usize = 2;

/// Expired ones are looked for by time each 2^27 ns, about 134 ms.
const PATROL: u32 = 27;

fn tick(now: Nanos) -> u32 {
    (now.0 >> TICK) as u32
}

/// A connection's hot half.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Entry {
    pub(crate) key: ConnectionKey,
    /// The last epoch of which it is known that rules allow the connection, or that they
    /// do not if it is cut.
    epoch: u32,
    /// Tick of the last packet.
    seen: u32,
    generation: u32,
    /// Next slot of the bucket, or of the free ones.
    next: u32,
    pub(crate) state: State,
    /// Direction of the packet that opened it.
    pub(crate) opener: Direction,
}

// The hot half fits a cache line.
const _: () = assert!(size_of::<Entry>() == 64);

/// A connection's other half.
#[derive(Debug, Clone, Copy)]
struct Cold {
    /// The rule that last allowed it.
    rule: RuleId,
    older: u32,
    newer: u32,
}

/// The handle's connection is no more, or rules must be asked again: the packet
/// must be admitted anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale;

/// A connection, for lists and for other NVEs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The VAP.
    pub vlan: Vlan,
    /// Direction of the packet that opened it.
    pub opener: Direction,
    /// IP protocol number.
    pub protocol: u8,
    /// The VM's address.
    pub local: IpAddr,
    /// The other end's.
    pub remote: IpAddr,
    /// The VM's port; of ICMP the identifier; 0 for protocols without ports.
    pub local_port: u16,
    /// The other end's port; of ICMP the type of the query.
    pub remote_port: u16,
    /// Where it is in its life.
    pub state: State,
    /// Nanoseconds since the last packet, in steps of about half a second.
    pub idle: Nanos,
    /// The rule that last allowed it.
    pub rule: RuleId,
}

/// How much of the table a VAP has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    oldest: u32,
    newest: u32,
    /// Connections of the VAP.
    pub count: u32,
    /// Connections that were refused for want of room, since boot.
    pub refused: u64,
}

impl Share {
    const EMPTY: Share = Share {
        oldest: NONE,
        newest: NONE,
        count: 0,
        refused: 0,
    };
}

/// Sizes of the table, and what it goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Most connections, [`BYTES_PER_CONNECTION`] each.
    pub connections: u32,
    /// Most connections of one VAP.
    pub connections_per_vap: u32,
    /// Most packets in fragments that are remembered at once, 80 bytes each.
    pub fragments: u32,
    /// Secret for hashes over what VMs send.
    pub seed: u64,
    /// How long connections may be idle.
    pub timeouts: Timeouts,
}

/// The table.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Connections {
    entries: Vec<Entry>,
    cold: Vec<Cold>,
    buckets: Vec<u32>,
    shares: Vec<Share>,
    capacity: usize,
    per_vap: u32,
    count: usize,
    free: u32,
    /// The VAP that has most, if it has at least `rival`.
    greediest: u16,
    /// No other VAP has more.
    rival: u32,
    /// Where ageing goes on.
    cursor: usize,
    /// When [`age_by_time`](Self::age_by_time) last did something, in steps of its own.
    aged: u64,
    /// The entry whose epoch is looked at next.
    swept: usize,
    /// How many were removed that had not expired, wrapping; never the largest number.
    evictions: u32,
    /// Ticks that a connection may be idle, by state.
    limits: [u32; State::COUNT],
    secrets: Secrets,
}

impl Connections {
    /// A table of the configured size; a smaller one if memory is short.
    pub(crate) fn new(config: &Config) -> Connections {
        let mut shares = Vec::new();
        let slots = usize::from(Vlan::MAX) + 1;
        let mut capacity = match shares.try_reserve_exact(slots) {
            Ok(()) => (config.connections as usize).min(NONE as usize - 1),
            Err(_) => 0,
        };
        let (mut entries, mut cold, mut buckets) = (Vec::new(), Vec::new(), Vec::new());
        while capacity > 0
            && (entries.try_reserve_exact(capacity).is_err()
                || cold.try_reserve_exact(capacity).is_err()
                || buckets
                    .try_reserve_exact(capacity.next_power_of_two())
                    .is_err())
        {
            (entries, cold, buckets) = (Vec::new(), Vec::new(), Vec::new());
            capacity /= 2;
        }
        if capacity > 0 {
            shares.resize(slots, Share::EMPTY);
            buckets.resize(capacity.next_power_of_two(), NONE);
        }
        let mut limits = [0; State::COUNT];
        for state in State::ALL {
            if let Some(limit) = limits.get_mut(*state as usize) {
                let nanos = u64::from(config.timeouts.get(*state)) * 1_000_000_000;
                // None is forgotten early.
                *limit = nanos.div_ceil(1 << TICK) as u32;
            }
        }
        Connections {
            entries,
            cold,
            buckets,
            shares,
            capacity,
            per_vap: config.connections_per_vap,
            count: 0,
            free: NONE,
            greediest: 0,
            rival: 0,
            cursor: 0,
            aged: 0,
            swept: 0,
            evictions: 0,
            limits,
            secrets: Secrets::new(config.seed),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn share(&self, vlan: Vlan) -> Share {
        let share = self.shares.get(usize::from(vlan.get()));
        share.copied().unwrap_or(Share::EMPTY)
    }

    /// The entry in a slot in use.
    pub(crate) fn entry(&self, slot: u32) -> Option<&Entry> {
        self.entries
            .get(slot as usize)
            .filter(|entry| entry.key.owner != 0)
    }

    /// The rule that last allowed the connection.
    pub(crate) fn rule(&self, slot: u32) -> Option<RuleId> {
        self.cold.get(slot as usize).map(|cold| cold.rule)
    }

    /// The slot of a connection, alive or expired.
    pub(crate) fn find(&self, key: &ConnectionKey) -> Option<u32> {
        let mut slot = *self.buckets.get(self.bucket(key))?;
        while let Some(entry) = self.entries.get(slot as usize) {
            if entry.key == *key {
                return Some(slot);
            }
            slot = entry.next;
        }
        None
    }

    /// The slot of a handle that is still good.
    pub(crate) fn slot(&self, handle: Handle) -> Option<u32> {
        let entry = self.entry(handle.slot())?;
        (entry.generation == handle.generation).then_some(handle.slot())
    }

    pub(crate) fn handle(&self, slot: u32) -> Option<Handle> {
        Handle::new(slot, self.entry(slot)?.generation)
    }

    pub(crate) fn is_expired(&self, entry: &Entry, now: Nanos) -> bool {
        let limit = self.limits.get(entry.state as usize).copied();
        tick(now).wrapping_sub(entry.seen) > limit.unwrap_or(0)
    }

    fn bucket(&self, key: &ConnectionKey) -> usize {
        // There are a power of two of them, or none.
        let mask = self.buckets.len().wrapping_sub(1);
        self.secrets.hash(key.words()) as usize & mask
    }

    /// What packets that are followed now are [fresh](Fresh) by.
    #[inline]
    pub(crate) fn freshness(&self, now: Nanos) -> Fresh {
        Fresh {
            tick: tick(now),
            evictions: self.evictions,
        }
    }

    /// Has the memory fetched that [`Connections::touch`] reads.
    #[inline]
    pub(crate) fn prefetch(&self, handle: Handle) {
        if let Some(entry) = self.entries.get(handle.slot() as usize) {
            nve_hint::prefetch(entry);
        }
    }

    /// Has the memory fetched in which [`Connections::find`] begins.
    pub(crate) fn prefetch_bucket(&self, key: &ConnectionKey) {
        if let Some(first) = self.buckets.get(self.bucket(key)) {
            nve_hint::prefetch(first);
        }
    }

    /// Follows a packet of a connection that rules still allow as they did. `flags`
    /// are those of TCP, 0 for all else. Returns whether it is settled: until
    /// [`freshness`](Self::freshness) is another, packets without one of the flags in
    /// [`CHANGES`] need not be followed, since they would change nothing.
    ///
    /// Why: such a packet changes no state but one that is not settled, and its tick is
    /// the one that was noted. What another packet may do meanwhile ends in a settled
    /// state, or takes the connection out (a SYN that begins another on the same ports),
    /// which makes freshness another.
    #[inline]
    pub(crate) fn touch(
        &mut self,
        handle: Handle,
        direction: Direction,
        flags: u8,
        now: Nanos,
        changes: &Changes,
    ) -> Result<bool, Stale> {
        let entry = self.entries.get_mut(handle.slot() as usize).ok_or(Stale)?;
        let limit = self.limits.get(entry.state as usize).ok_or(Stale)?;
        let now = tick(now);
        if entry.generation != handle.generation
            || !entry.is_asked(changes)
            || now.wrapping_sub(entry.seen) > *limit
            || entry.state.is_reopened_by(flags)
        {
            return Err(Stale);
        }
        entry.epoch = changes.epoch();
        entry.follow(direction, flags, now);
        Ok(entry.state.is_settled())
    }

    /// Follows a packet of a connection.
    pub(crate) fn follow(&mut self, slot: u32, direction: Direction, flags: u8, now: Nanos) {
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.follow(direction, flags, tick(now));
        }
    }

    /// Notes that a rule allows the connection in this epoch.
    pub(crate) fn allow(&mut self, slot: u32, rule: RuleId, epoch: u32) {
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            if entry.epoch == epoch {
                return;
            }
            entry.epoch = epoch;
            if entry.state == State::Cut {
                entry.state = State::resuming(entry.key.protocol());
            }
        }
        if let Some(cold) = self.cold.get_mut(slot as usize) {
            cold.rule = rule;
        }
    }

    /// Notes that no rule allows the connection in this epoch. Handles to it fail.
    pub(crate) fn cut(&mut self, slot: u32, now: Nanos, epoch: u32) {
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.epoch = epoch;
            entry.seen = tick(now);
            if entry.state != State::Cut {
                entry.state = State::Cut;
                entry.generation = entry.generation.wrapping_add(1);
            }
        }
    }

    /// Puts a connection that is not there, and makes room for it if it must.
    pub(crate) fn insert(
        &mut self,
        key: ConnectionKey,
        opener: Direction,
        state: State,
        rule: RuleId,
        now: Nanos,
        epoch: u32,
    ) -> Result<Handle, DropReason> {
        let slot = self.room_for(key.vlan(), now).and_then(|()| self.take());
        let Some(slot) = slot else {
            if let Some(share) = self.shares.get_mut(usize::from(key.vlan())) {
                share.refused += 1;
            }
            return Err(DropReason::ConnectionLimit);
        };
        let bucket = self.bucket(&key);
        let mut generation = 0;
        if let (Some(entry), Some(first)) = (
            self.entries.get_mut(slot as usize),
            self.buckets.get_mut(bucket),
        ) {
            generation = entry.generation;
            *entry = Entry {
                key,
                epoch,
                seen: tick(now),
                generation,
                next: core::mem::replace(first, slot),
                state,
                opener,
            };
        }
        if let Some(cold) = self.cold.get_mut(slot as usize) {
            cold.rule = rule;
        }
        self.link(slot, key.vlan());
        self.count += 1;
        self.grow(key.vlan());
        Handle::new(slot, generation).ok_or(DropReason::ConnectionLimit)
    }

    /// A free slot.
    fn take(&mut self) -> Option<u32> {
        if let Some(entry) = self.entries.get(self.free as usize) {
            return Some(core::mem::replace(&mut self.free, entry.next));
        }
        if self.entries.len() >= self.capacity {
            return None;
        }
        let slot = u32::try_from(self.entries.len()).ok()?;
        self.entries.push(Entry {
            key: ConnectionKey::FREE,
            epoch: NEVER,
            seen: 0,
            generation: 0,
            next: NONE,
            state: State::Closed,
            opener: Direction::Egress,
        });
        self.cold.push(Cold {
            rule: RuleId([0; 16]),
            older: NONE,
            newer: NONE,
        });
        Some(slot)
    }

    /// Removes a connection that need not have expired: flows that lately followed it are
    /// to do so again.
    pub(crate) fn evict(&mut self, slot: u32) {
        self.remove(slot);
        self.evictions = match self.evictions.wrapping_add(1) {
            u32::MAX => 0,
            count => count,
        };
    }

    /// Removes a connection. Handles to it fail.
    pub(crate) fn remove(&mut self, slot: u32) {
        let Some(entry) = self.entry(slot) else {
            return;
        };
        let (key, next) = (entry.key, entry.next);
        self.unchain(&key, slot, next);
        self.unlink(slot, key.vlan());
        if let Some(share) = self.shares.get_mut(usize::from(key.vlan())) {
            share.count = share.count.saturating_sub(1);
        }
        self.count -= 1;
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.key = ConnectionKey::FREE;
            entry.generation = entry.generation.wrapping_add(1);
            entry.next = core::mem::replace(&mut self.free, slot);
        }
    }

    /// Takes a slot out of the chain of its bucket.
    fn unchain(&mut self, key: &ConnectionKey, slot: u32, next: u32) {
        let bucket = self.bucket(key);
        let Some(first) = self.buckets.get_mut(bucket) else {
            return;
        };
        if *first == slot {
            *first = next;
            return;
        }
        let mut at = *first;
        while let Some(entry) = self.entries.get_mut(at as usize) {
            if entry.next == slot {
                entry.next = next;
                return;
            }
            at = entry.next;
        }
    }

    /// Removes what has expired among the next `budget` slots, and returns how many
    /// that were.
    pub(crate) fn age(&mut self, now: Nanos, budget: usize) -> usize {
        let mut removed = 0;
        for _ in 0..budget.min(self.entries.len()) {
            if self.cursor >= self.entries.len() {
                self.cursor = 0;
            }
            let slot = self.cursor as u32;
            self.cursor += 1;
            let expired = |entry: &Entry| self.is_expired(entry, now);
            if self.entry(slot).is_some_and(expired) {
                self.remove(slot);
                removed += 1;
            }
        }
        // Those that are looked at next time, if it is some.
        for entry in self
            .entries
            .iter()
            .skip(self.cursor)
            .take(budget.min(AHEAD))
        {
            nve_hint::prefetch(entry);
        }
        removed
    }

    /// The same, now and then, however often it is called.
    pub(crate) fn age_by_time(&mut self, now: Nanos, budget: usize) {
        let step = now.0 >> PATROL;
        if core::mem::replace(&mut self.aged, step) != step {
            self.age(now, budget);
        }
    }

    /// Has the rules asked anew about the next connections in turn of which it was long
    /// ago. Called in each epoch, it has looked at each before the number of its epoch
    /// comes again.
    pub(crate) fn sweep(&mut self, changes: &Changes) {
        for _ in 0..SWEPT {
            if self.swept >= self.entries.len() {
                self.swept = 0;
            }
            if let Some(entry) = self.entries.get_mut(self.swept)
                && changes.is_old(entry.epoch)
            {
                entry.epoch = NEVER;
            }
            self.swept += 1;
        }
    }

    /// Removes all connections of a VAP.
    pub(crate) fn forget(&mut self, vlan: Vlan) {
        while self.entry(self.share(vlan).oldest).is_some() {
            self.remove(self.share(vlan).oldest);
        }
    }
}

impl Entry {
    /// Whether rules would say now what they said when they were last asked.
    pub(crate) fn is_asked(&self, changes: &Changes) -> bool {
        self.epoch == changes.epoch()
            || changes.since(self.epoch).is_some_and(|since| {
                let vlan = Vlan::new(self.key.vlan());
                vlan.is_some_and(|vlan| since.same(Scope::Vap(vlan)))
                    && since.same(Scope::Address(self.key.remote()))
            })
    }

    fn follow(&mut self, direction: Direction, flags: u8, now: u32) {
        self.state = self.state.after(direction == self.opener, flags);
        self.seen = now;
    }
}
