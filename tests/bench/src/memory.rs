//! Memory that a driver shares with its device.
//!
//! The driver may change it at any time, whatever the protocol says. So there are
//! never references into it, only pointers whose range was checked; what is read
//! is a copy, and is believed for what it was at that moment.

use std::any::Any;
use std::fmt;
use std::ptr::NonNull;

/// A range of the driver's addresses, and where it is mapped here.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    /// First address as the driver writes it into rings.
    pub guest: u64,
    /// Length in bytes.
    pub length: usize,
    /// Where its first byte is in this process.
    pub pointer: NonNull<u8>,
}

/// All memory that one driver shares.
pub struct Memory {
    regions: Vec<Region>,
    /// Whatever keeps the regions mapped; dropped with the last user.
    _owner: Box<dyn Any + Send + Sync>,
}

// SAFETY: regions are plain memory, which the promise of `Memory::new` keeps valid
// for every thread; all accesses are by raw pointers, by whoever holds the ring.
unsafe impl Send for Memory {}
// SAFETY: as above; nothing in it changes after `new`.
unsafe impl Sync for Memory {}

impl Memory {
    /// The memory that these regions make up, which `owner` keeps mapped.
    ///
    /// # Safety
    /// Each region's bytes can be read and written through its pointer as long as
    /// `owner` exists. This process has no references to them.
    pub unsafe fn new(regions: Vec<Region>, owner: impl Any + Send + Sync) -> Memory {
        Memory {
            regions,
            _owner: Box::new(owner),
        }
    }

    /// Where `length` bytes from the driver's address `guest` on are mapped; `None`
    /// unless all are in one region.
    #[inline]
    pub fn at(&self, guest: u64, length: usize) -> Option<NonNull<u8>> {
        self.regions.iter().find_map(|region| {
            let offset = usize::try_from(guest.checked_sub(region.guest)?).ok()?;
            let left = region.length.checked_sub(offset)?;
            // SAFETY: `offset` is within the region, or at its end.
            (length <= left).then(|| unsafe { region.pointer.add(offset) })
        })
    }

    /// [`Memory::at`] for something that has to be aligned to `align` bytes, a
    /// power of two.
    pub fn aligned(&self, guest: u64, length: usize, align: usize) -> Option<NonNull<u8>> {
        self.at(guest, length)
            .filter(|pointer| pointer.addr().get() & (align - 1) == 0)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.regions).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ranges_within_one_region_are_found() {
        let bytes = Box::leak(Box::new([0u64; 4])).as_mut_ptr().cast::<u8>();
        let region = |guest, at| Region {
            guest,
            length: 16,
            // SAFETY: within the 32 bytes.
            pointer: NonNull::new(unsafe { bytes.add(at) }).unwrap(),
        };
        // SAFETY: the bytes are leaked, and nobody refers to them.
        let memory = unsafe { Memory::new(vec![region(0x1000, 0), region(u64::MAX - 15, 16)], ()) };
        let found = |guest, length| memory.at(guest, length).map(|p| p.as_ptr() as usize);
        let base = bytes as usize;
        assert_eq!(found(0x1000, 16), Some(base));
        assert_eq!(found(0x100f, 1), Some(base + 15));
        assert_eq!(found(u64::MAX, 1), Some(base + 31));
        for (guest, length) in [
            (0xfff, 1),
            (0x1000, 17),
            (0x1001, 16),
            (0x1011, 0),
            (0x1000, usize::MAX),
            (u64::MAX, 2),
            (0, 1),
        ] {
            assert_eq!(found(guest, length), None, "{guest:#x} {length}");
        }
        assert!(memory.aligned(0x1008, 4, 8).is_some());
        assert!(memory.aligned(0x1004, 4, 8).is_none());
    }
}
