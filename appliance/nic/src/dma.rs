//! Memory that devices read and write.

use alloc::alloc::{Layout, alloc_zeroed};
use core::ptr::NonNull;

/// Devices want their structures on pages of their own.
const ALIGN: usize = 4096;

/// A range of memory with its address as a device sees it. Owned: nobody else
/// has a reference into it.
#[derive(Debug)]
pub struct DmaMemory {
    base: NonNull<u8>,
    device: u64,
    length: usize,
}

// SAFETY: whoever has it is the only one who reaches the bytes, devices apart, and may be
// on any processor.
unsafe impl Send for DmaMemory {}

impl DmaMemory {
    /// Takes over a range.
    ///
    /// # Safety
    /// `length` bytes at `base` are zeroed, aligned to 4096, can be read and
    /// written for ever, and are used by nobody else; a device that is given
    /// `device` reaches the same bytes.
    pub unsafe fn new(base: NonNull<u8>, device: u64, length: usize) -> Self {
        DmaMemory {
            base,
            device,
            length,
        }
    }

    /// `length` zeroed bytes of the heap, never freed, for devices that see memory
    /// at the addresses that we see it at. `None` if the heap has no room.
    pub fn from_heap(length: usize) -> Option<Self> {
        let layout = Layout::from_size_align(length.max(1), ALIGN).ok()?;
        // SAFETY: the layout has a size.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // SAFETY: fresh, zeroed and aligned memory that is given to nobody else.
        Some(unsafe { DmaMemory::new(base, base.as_ptr() as u64, length) })
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// First byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Address of the first byte as a device sees it.
    pub(crate) fn device(&self) -> u64 {
        self.device
    }
}

/// Sources of memory for devices; a driver asks while it is made.
pub trait DmaSource {
    /// At least `length` zeroed bytes, aligned to 4096.
    fn allocate(&mut self, length: usize) -> Option<DmaMemory>;
}
