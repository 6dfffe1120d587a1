//! First fragments that were admitted, so that the later ones follow them.
//!
//! Later fragments have no ports. One that comes before its first is dropped:
//! waiting for the first would mean to keep frames. The memory is of a fixed size;
//! in a full set a VAP takes the place of an entry of its own before one of
//! others, so that no VAP can drive out what others have.

use alloc::vec::Vec;
use core::net::IpAddr;

use nve_protocol::{Direction, Vlan};

use super::Handle;
use super::hash::Secrets;
use super::key::halves;
use crate::Nanos;

/// Entries of a set.
const WAYS: usize = 4;

/// Nanoseconds for which later fragments follow: no longer than receivers wait for
/// them (Linux, `ipfrag_time`).
const LIFETIME: u64 = 30_000_000_000;

/// What makes fragments those of one packet (RFC 791, section 3.2; RFC 8200,
/// section 4.5), where it passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) vlan: Vlan,
    pub(crate) direction: Direction,
    pub(crate) protocol: u8,
    pub(crate) id: u32,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

/// How a first fragment was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FirstFragment {
    pub(crate) connection: Option<Handle>,
    /// Its destination port, or what stands for it in rules.
    pub(crate) service: u16,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    piece: Piece,
    first: FirstFragment,
    seen: Nanos,
}

/// The memory.
#[derive(Debug)]
pub(crate) struct Fragments {
    sets: Vec<[Option<Entry>; WAYS]>,
    secrets: Secrets,
}

impl Fragments {
    /// A memory of at most `entries`, rounded down to a power of two; fewer if
    /// memory is short.
    pub(crate) fn new(entries: u32, seed: u64) -> Fragments {
        let wanted = entries as usize / WAYS;
        let mut count = wanted.checked_ilog2().map_or(0, |log| 1 << log);
        let mut sets = Vec::new();
        while count > 0 && sets.try_reserve_exact(count).is_err() {
            count /= 2;
        }
        sets.resize(count, [None; WAYS]);
        Fragments {
            sets,
            secrets: Secrets::new(seed),
        }
    }

    fn set(&self, piece: &Piece) -> usize {
        let [a, b] = halves(piece.source);
        let [c, d] = halves(piece.destination);
        let packet = u64::from(piece.id) << 32
            | u64::from(piece.vlan.get()) << 16
            | u64::from(piece.protocol) << 8
            | u64::from(piece.direction == Direction::Egress);
        let mask = self.sets.len().wrapping_sub(1);
        self.secrets.hash([a, b, c, d, packet]) as usize & mask
    }

    pub(crate) fn find(&self, piece: &Piece, now: Nanos) -> Option<FirstFragment> {
        let set = self.sets.get(self.set(piece))?;
        let mut entries = set.iter().flatten();
        let entry = entries.find(|entry| entry.piece == *piece && entry.is_alive(now))?;
        Some(entry.first)
    }

    pub(crate) fn insert(&mut self, piece: Piece, first: FirstFragment, now: Nanos) {
        let at = self.set(&piece);
        let Some(set) = self.sets.get_mut(at) else {
            return;
        };
        let worth = |entry: &Option<Entry>| match entry {
            Some(entry) if entry.piece == piece => (0, Nanos(0)),
            Some(entry) if entry.is_alive(now) => {
                let own = entry.piece.vlan == piece.vlan;
                (if own { 2 } else { 3 }, entry.seen)
            }
            _ => (1, Nanos(0)),
        };
        if let Some(place) = set.iter_mut().min_by_key(|entry| worth(entry)) {
            *place = Some(Entry {
                piece,
                first,
                seen: now,
            });
        }
    }
}

impl Entry {
    fn is_alive(&self, now: Nanos) -> bool {
        now.0.saturating_sub(self.seen.0) <= LIFETIME
    }
}
