//! The flow cache: exact-match entries that hold the whole verdict for one
//! direction of one flow.
//!
//! An entry is good for the epoch that it has: every change of the tables begins
//! another, and the first packet of a flow after it asks whether the entry is good for
//! that too, or decides anew. The cache never grows; a new entry takes the place of one of
//! its set that has been unused for half a minute, or else for longest, to the second. The
//! hash is seeded, so that VMs cannot aim at a set.
//!
//! An entry is two cache lines, key and verdict, and most are at their home in the
//! set, where they are looked for first: those two are all that a packet needs of it, and
//! of a verdict that only says to which VAP, the first. Those whose home was taken are
//! strays: the entry that is there says where in the set they are, so that their lines
//! are fetched as soon as they are missed at home.

mod key;
mod verdict;

pub(crate) use key::{Addresses, FlowKey, Origin, Peer, Service};
pub(crate) use verdict::{Exit, Has, Path};

use alloc::vec::Vec;
use core::iter;
use core::num::NonZeroU32;

use nve_protocol::{Vlan, Vni};

use crate::Nanos;
use crate::connections::Fresh;
use crate::tables::{Changes, NEVER};
use key::{Secrets, secrets};

/// Entries of a set; a power of two. With fewer, some sets have more flows than places long
/// before the cache is full, and all of those flows are decided anew each time: of a
/// million in four million entries, 2 % with sets of 4, and 0.1 % with sets of 8.
const WAYS: usize = 8;

/// One tick is 2^30 ns, about a second.
const TICK: u32 = 30;

/// Ticks without a packet after which an entry may go, wherever it is in its set.
const LONG: u16 = 30;

/// Bytes of memory that one flow takes.
pub const BYTES_PER_FLOW: usize = size_of::<Entry>();

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Entry {
    key: FlowKey,
    /// The last one in which it was found to be good.
    epoch: u32,
    brief: Brief,
    known: Known,
}

// Two cache lines.
const _: () = assert!(size_of::<Entry>() == 128);

impl Entry {
    /// What no packet has as its key.
    const FREE: Entry = Entry {
        key: FlowKey::NONE,
        epoch: NEVER,
        brief: Brief(0),
        known: Known {
            path: Path::new(
                Vni::new(0).expect("0 has 24 bits"),
                Exit::Vap(Vlan::new(1).expect("1 is a tag")),
            ),
            fresh: Fresh::NEVER,
        },
    };

    /// Notes that it is used. What is only read need not be written back to memory, so
    /// this is not done for each packet.
    #[inline(always)]
    fn use_now(&mut self, now: Nanos) {
        let now = tick(now);
        if self.brief.used() != now {
            self.brief.use_at(now);
        }
    }

    /// Ticks since it was used.
    fn idle(&self, now: Nanos) -> u16 {
        tick(now).wrapping_sub(self.brief.used()) & Brief::USED
    }

    fn is_free(&self) -> bool {
        self.key.is_none()
    }
}

/// What the line of the key has room for. From below, in 12 bits, the tag of the VAP that
/// packets of a VAP go to if there is nothing more to the verdict, which then need not be
/// read, or 0; a bit for each other place of the set, by what makes it of this one, in
/// which there is a stray whose home is here; and when the entry was last used, in ticks,
/// wrapping.
#[derive(Debug, Clone, Copy)]
struct Brief(u32);

const _: () = assert!(LONG < Brief::USED, "so long can be told");

impl Brief {
    const TAG: u32 = 0xfff;
    const FIRST_STRAY: u32 = Brief::TAG.count_ones();
    const STRAYS: u32 = (1 << (WAYS - 1)) - 1;
    const FIRST_USED: u32 = Brief::FIRST_STRAY + WAYS as u32 - 1;
    /// The bits that a tick is known by.
    const USED: u16 = (u32::MAX >> Brief::FIRST_USED) as u16;

    #[inline(always)]
    fn across(self) -> Option<Vlan> {
        Vlan::new((self.0 & Brief::TAG) as u16)
    }

    /// The same strays, and another entry.
    fn of(self, across: Option<Vlan>, used: u16) -> Brief {
        let strays = self.0 & Brief::STRAYS << Brief::FIRST_STRAY;
        let tag = across.map_or(0, Vlan::get);
        let mut brief = Brief(strays | u32::from(tag));
        brief.use_at(used);
        brief
    }

    #[inline(always)]
    fn used(self) -> u16 {
        (self.0 >> Brief::FIRST_USED) as u16
    }

    fn use_at(&mut self, tick: u16) {
        let rest = self.0 & !(u32::MAX << Brief::FIRST_USED);
        self.0 = u32::from(tick) << Brief::FIRST_USED | rest;
    }

    /// Notes whether there is a stray that many steps away, if that is not here.
    fn note_stray(&mut self, step: usize, is_there: bool) {
        let stray = (1 << step >> 1) << Brief::FIRST_STRAY;
        match is_there {
            true => self.0 |= stray,
            false => self.0 &= !stray,
        }
    }

    /// By how many steps strays are away: most often there is one, if any.
    fn strays(self) -> impl Iterator<Item = usize> {
        let mut left = self.0 >> Brief::FIRST_STRAY & Brief::STRAYS;
        iter::from_fn(move || {
            let next = NonZeroU32::new(left)?.trailing_zeros();
            left &= left - 1;
            Some(next as usize + 1)
        })
    }
}

/// An entry, to be looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cached<'c> {
    pub(crate) key: &'c FlowKey,
    pub(crate) path: &'c Path,
    /// The last one in which it was found to be good.
    pub(crate) epoch: u32,
    /// Milliseconds since the last packet, in steps of a second; of two hours and more,
    /// what is left of them.
    pub(crate) idle_ms: u32,
}

impl Cached<'_> {
    /// Whether packets come from that VAP, or go to it.
    pub(crate) fn concerns(&self, vlan: Vlan) -> bool {
        self.key.origin() == Some(Origin::Vap(vlan.get())) || self.path.exit == Exit::Vap(vlan)
    }
}

/// What the cache knows of a packet's flow.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Known {
    pub(crate) path: Path,
    /// Up to when the flow's connections have been followed.
    pub(crate) fresh: Fresh,
}

/// A place of the cache. An entry that was found there is there until the next one is
/// inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Slot {
    pub(crate) const FIRST: Slot = Slot(0);
}

/// What there is of a flow at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// Its entry, of another epoch.
    Old,
    /// Its entry, of this epoch.
    Good,
    /// The same, and there is nothing more to its verdict than that VAP.
    Across(Vlan),
}

/// The cache.
#[derive(Debug)]
pub(crate) struct FlowCache {
    /// Whole sets; those of a set follow each other.
    entries: Vec<Entry>,
    secrets: Secrets,
    /// How often a verdict was remembered, wrapping.
    insertions: u32,
    /// The entry whose epoch is looked at next.
    swept: usize,
}

impl FlowCache {
    /// A cache of at most `entries`, in whole sets; fewer if memory is short, and of none
    /// at all it is simply without use.
    pub(crate) fn new(entries: u32, seed: u64) -> FlowCache {
        let wanted = entries as usize / WAYS;
        // Slots have 32 bits.
        let mut count = wanted.min(1 << 28);
        let mut entries = Vec::new();
        while count > 0 && entries.try_reserve_exact(count * WAYS).is_err() {
            count /= 2;
        }
        entries.resize(count * WAYS, Entry::FREE);
        FlowCache {
            entries,
            secrets: secrets(seed),
            insertions: 0,
            swept: 0,
        }
    }

    /// How many sets of entries there are.
    pub(crate) fn sets(&self) -> u32 {
        u32::try_from(self.entries.len() / WAYS).unwrap_or(u32::MAX)
    }

    /// The entries of one set, good or not.
    pub(crate) fn in_set(&self, set: u32, now: Nanos) -> impl Iterator<Item = Cached<'_>> {
        let first = (set as usize).saturating_mul(WAYS);
        let entries = self.entries.get(first..first.saturating_add(WAYS));
        let used = entries.unwrap_or_default().iter();
        let used = used.filter(move |entry| !entry.is_free());
        used.map(move |entry| Cached {
            key: &entry.key,
            path: &entry.known.path,
            epoch: entry.epoch,
            // Less than three hours.
            idle_ms: ((u64::from(entry.idle(now)) << TICK) / 1_000_000) as u32,
        })
    }

    /// Where a key's entry is if it could choose.
    #[inline(always)]
    pub(crate) fn home(&self, key: &FlowKey) -> Slot {
        // The hash as a fraction of 1, times the number of entries: no more than 32 bits
        // can tell apart.
        let fraction = key.hash(&self.secrets) >> 32;
        Slot((fraction.wrapping_mul(self.entries.len() as u64) >> 32) as u32)
    }

    /// Has the memory fetched of the key at a place.
    #[inline(always)]
    pub(crate) fn prefetch(&self, at: Slot) {
        nve_hint::prefetch_at(self.first_line(at));
    }

    /// Has the memory fetched of the verdict at a place.
    #[inline(always)]
    pub(crate) fn prefetch_verdict(&self, at: Slot) {
        nve_hint::prefetch_at(self.first_line(at).wrapping_add(nve_hint::LINE));
    }

    #[inline(always)]
    fn first_line(&self, at: Slot) -> *const u8 {
        let entries = self.entries.as_ptr();
        entries.wrapping_add(at.0 as usize).cast()
    }

    /// Has the memory fetched of those whose home it is and who are not there. Returns
    /// whether there are any.
    pub(crate) fn prefetch_strays(&self, home: Slot) -> bool {
        let entry = self.entries.get(home.0 as usize);
        let Some(Entry { brief, .. }) = entry else {
            return false;
        };
        let mut any = false;
        for step in brief.strays() {
            let stray = Slot(home.0 ^ step as u32);
            self.prefetch(stray);
            self.prefetch_verdict(stray);
            any = true;
        }
        any
    }

    /// Has the memory fetched of the keys of a set that a new entry is likely to take the
    /// place of, but for the one at home.
    pub(crate) fn prefetch_set(&self, home: Slot) {
        for at in FlowCache::places(home).skip(1).take(3) {
            self.prefetch(Slot(at as u32));
        }
    }

    /// The places of a set, in the order in which they are looked at from a home.
    #[inline]
    fn places(home: Slot) -> impl Iterator<Item = usize> {
        (0..WAYS).map(move |step| home.0 as usize ^ step)
    }

    /// Looks for the entry of a flow at one place, and counts it as used. Its verdict is
    /// not read.
    #[inline(always)]
    pub(crate) fn find_at(&mut self, at: Slot, key: &FlowKey, epoch: u32, now: Nanos) -> Found {
        let Some(entry) = self.entries.get_mut(at.0 as usize) else {
            return Found::Nothing;
        };
        if !entry.key.is(key) {
            return Found::Nothing;
        }
        if entry.epoch != epoch {
            return Found::Old;
        }
        entry.use_now(now);
        entry.brief.across().map_or(Found::Good, Found::Across)
    }

    /// Where the entry of this epoch is, if there is one, which then counts as used.
    pub(crate) fn find(
        &mut self,
        home: Slot,
        key: &FlowKey,
        epoch: u32,
        now: Nanos,
    ) -> Option<Slot> {
        let at = self.find_elsewhere(home, key)?;
        let entry = self.entries.get_mut(at)?;
        if entry.epoch != epoch {
            return None;
        }
        entry.use_now(now);
        Some(Slot(at as u32))
    }

    /// How often a verdict was remembered: as long as that is the same, slots are.
    #[inline(always)]
    pub(crate) fn insertions(&self) -> u32 {
        self.insertions
    }

    /// The place of a flow's entry, at home or where a stray is: only these lines were
    /// fetched.
    #[inline(never)]
    fn find_elsewhere(&self, home: Slot, key: &FlowKey) -> Option<usize> {
        let home = home.0 as usize;
        let brief = self.entries.get(home)?.brief;
        let mut places = iter::once(0).chain(brief.strays()).map(|step| home ^ step);
        places.find(|at| self.entries.get(*at).is_some_and(|entry| entry.key.is(key)))
    }

    /// Where a flow's entry of another epoch is, its verdict, and that epoch.
    pub(crate) fn find_old(&self, home: Slot, key: &FlowKey) -> Option<(Slot, &Path, u32)> {
        let at = self.find_elsewhere(home, key)?;
        let entry = self.entries.get(at)?;
        Some((Slot(at as u32), &entry.known.path, entry.epoch))
    }

    /// Notes that an entry is good in this epoch, and that it is used.
    pub(crate) fn renew(&mut self, at: Slot, epoch: u32, now: Nanos) {
        if let Some(entry) = self.entries.get_mut(at.0 as usize) {
            entry.epoch = epoch;
            entry.use_now(now);
        }
    }

    /// Makes the next entry in turn stale if its epoch is old. Called in each epoch, it
    /// has looked at each entry before the number of its epoch comes again.
    pub(crate) fn sweep(&mut self, changes: &Changes) {
        if let Some(entry) = self.entries.get_mut(self.swept)
            && changes.is_old(entry.epoch)
        {
            entry.epoch = NEVER;
        }
        self.swept = match self.swept + 1 {
            next if next < self.entries.len() => next,
            _ => 0,
        };
    }

    /// The verdict in an entry that was found.
    #[inline(always)]
    pub(crate) fn get(&self, at: Slot) -> Option<&Known> {
        self.entries.get(at.0 as usize).map(|entry| &entry.known)
    }

    /// Notes up to when a flow's connections have been followed.
    pub(crate) fn refresh(&mut self, at: Slot, fresh: Fresh) {
        if let Some(entry) = self.entries.get_mut(at.0 as usize) {
            entry.known.fresh = fresh;
        }
    }

    /// Remembers a verdict.
    pub(crate) fn insert(&mut self, key: FlowKey, path: Path, epoch: u32, now: Nanos) {
        let home = self.home(&key);
        let at = self.find_elsewhere(home, &key);
        let at = at.or_else(|| self.least_used(home, now));
        self.insertions = self.insertions.wrapping_add(1);
        let Some((at, before)) = at.and_then(|at| Some((at, self.entries.get(at)?.key))) else {
            return;
        };
        self.note_place(self.home(&before), at, false);
        if let Some(entry) = self.entries.get_mut(at) {
            *entry = Entry {
                key,
                epoch,
                brief: entry.brief.of(path.across(&key), tick(now)),
                known: Known {
                    path,
                    fresh: Fresh::NEVER,
                },
            };
        }
        self.note_place(home, at, true);
    }

    /// The place of a set for one who has none: the first from home that is free or has
    /// been unused for long, so that most are near home however full the cache is, or else
    /// the one that has been unused for longest.
    fn least_used(&self, home: Slot, now: Nanos) -> Option<usize> {
        let mut least = None;
        for at in FlowCache::places(home) {
            let entry = self.entries.get(at)?;
            let idle = entry.idle(now);
            if entry.is_free() || idle >= LONG {
                return Some(at);
            }
            if least.is_none_or(|(_, most)| idle > most) {
                least = Some((at, idle));
            }
        }
        least.map(|(at, _)| at)
    }

    /// Notes at a home whether there is one of its own at a place of the set.
    fn note_place(&mut self, home: Slot, at: usize, is_there: bool) {
        let step = home.0 as usize ^ at;
        if step < WAYS
            && let Some(entry) = self.entries.get_mut(home.0 as usize)
        {
            entry.brief.note_stray(step, is_there);
        }
    }
}

/// As entries have it.
#[inline(always)]
fn tick(now: Nanos) -> u16 {
    (now.0 >> TICK) as u16 & Brief::USED
}

#[cfg(test)]
mod tests;
