//! What the flow cache keeps of connections.

use core::num::NonZeroU32;

/// One connection, as long as it is the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    /// The slot plus one, so that an optional handle takes no more room.
    slot: NonZeroU32,
    pub(super) generation: u32,
}

impl Handle {
    pub(super) fn new(slot: u32, generation: u32) -> Option<Handle> {
        let slot = NonZeroU32::new(slot.wrapping_add(1))?;
        Some(Handle { slot, generation })
    }

    #[inline]
    pub(super) fn slot(self) -> u32 {
        self.slot.get() - 1
    }
}

/// A time at which packets were followed, to the tick, and how many connections had
/// been taken out early by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fresh {
    pub(super) tick: u32,
    pub(super) evictions: u32,
}

impl Fresh {
    /// No time at all.
    pub(crate) const NEVER: Fresh = Fresh {
        tick: u32::MAX,
        evictions: u32::MAX,
    };
}
