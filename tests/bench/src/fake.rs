//! A driver in memory, played by a test: honest, or as hostile as the test likes.

use std::sync::Arc;

use crate::memory::{Memory, Region};
use crate::ring::{Access, Fault, Parts, Ring};

/// Where the driver's memory begins, by its own account.
pub(crate) const GUEST: u64 = 0x4000_0000;
/// Entries of a queue.
pub(crate) const SIZE: u16 = 8;
/// Bytes of memory per NIC.
pub(crate) const LENGTH: usize = 1 << 16;

/// Bytes of memory per queue.
const PART: u64 = 1 << 15;
/// Where a queue's buffers are in its memory.
const BUFFERS: u64 = 4096;
/// Bytes of a buffer.
pub(crate) const BUFFER: u64 = 2048;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;

/// The driver's end of a queue.
#[derive(Clone)]
pub(crate) struct Driver {
    base: *mut u8,
    /// First byte of the queue's part of the memory.
    part: u64,
    offered: u16,
    taken: u16,
}

// SAFETY: a test gives a driver to one thread at a time.
unsafe impl Send for Driver {}

// The driver plays with raw memory on purpose. SAFETY of every block here: the
// offsets are within the memory that `base` points to, which lives as long as the
// test.
impl Driver {
    /// The queue of this number, in memory of `LENGTH` bytes at `base`.
    pub(crate) fn new(base: *mut u8, number: u64) -> Driver {
        Driver {
            base,
            part: number * PART,
            offered: 0,
            taken: 0,
        }
    }

    /// Leaks memory, and has the queue of this number in it.
    pub(crate) fn leak(access: Access) -> (Driver, Ring) {
        let (driver, memory) = leak_memory();
        let ring = Ring::new(memory, SIZE, driver.parts(), 0, access).unwrap();
        (driver, ring)
    }

    pub(crate) fn parts(&self) -> Parts {
        let descriptors = GUEST + self.part;
        Parts {
            descriptors,
            available: descriptors + 1024,
            used: descriptors + 2048,
        }
    }

    /// Address of a buffer, as the driver writes it.
    pub(crate) fn buffer(number: u16) -> u64 {
        BUFFERS + u64::from(number) * BUFFER
    }

    fn put<T>(&self, offset: u64, value: T) {
        // SAFETY: see the head of the implementation.
        unsafe {
            let at = self.base.add((self.part + offset) as usize);
            at.cast::<T>().write_volatile(value);
        }
    }

    fn get<T>(&self, offset: u64) -> T {
        // SAFETY: see the head of the implementation.
        unsafe {
            let at = self.base.add((self.part + offset) as usize);
            at.cast::<T>().read_volatile()
        }
    }

    /// Writes a descriptor of `length` bytes at an offset of the queue's part.
    pub(crate) fn describe(&self, slot: u16, offset: u64, length: u32, flags: u16, next: u16) {
        self.describe_at(slot, GUEST + self.part + offset, length, flags, next);
    }

    /// Writes a descriptor with any address.
    pub(crate) fn describe_at(&self, slot: u16, guest: u64, length: u32, flags: u16, next: u16) {
        let at = u64::from(slot) * 16;
        self.put(at, guest);
        self.put(at + 8, length);
        self.put(at + 12, flags);
        self.put(at + 14, next);
    }

    /// Offers a chain by its first descriptor.
    pub(crate) fn offer(&mut self, head: u16) {
        self.put(1028 + 2 * u64::from(self.offered % SIZE), head);
        self.offered = self.offered.wrapping_add(1);
        self.set_index(self.offered);
    }

    pub(crate) fn set_index(&self, index: u16) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.put(1026, index);
    }

    pub(crate) fn set_flags(&self, flags: u16) {
        self.put(1024, flags);
    }

    /// What the device has given back: the first descriptor and what it wrote.
    pub(crate) fn take(&mut self) -> Option<(u16, u32)> {
        if self.get::<u16>(2050) == self.taken {
            return None;
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let at = 2052 + 8 * u64::from(self.taken % SIZE);
        self.taken = self.taken.wrapping_add(1);
        Some((self.get::<u32>(at) as u16, self.get(at + 4)))
    }

    /// What is in a buffer.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        (offset..).take(length).map(|at| self.get(at)).collect()
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            self.put(at, *byte);
        }
    }
}

/// A driver's first queue and all of its memory.
pub(crate) fn leak_memory() -> (Driver, Arc<Memory>) {
    let words = Box::leak(vec![0u64; LENGTH / 8].into_boxed_slice());
    let base = words.as_mut_ptr().cast::<u8>();
    let region = Region {
        guest: GUEST,
        length: LENGTH,
        pointer: std::ptr::NonNull::new(base).unwrap(),
    };
    // SAFETY: the memory is leaked, and only accessed by pointers.
    let memory = unsafe { Memory::new(vec![region], ()) };
    (Driver::new(base, 0), Arc::new(memory))
}

/// A ring that is all right, but for what `change` does.
pub(crate) fn attempt(size: u16, change: impl FnOnce(&mut Parts)) -> Result<Ring, Fault> {
    let (driver, memory) = leak_memory();
    let mut parts = driver.parts();
    change(&mut parts);
    Ring::new(memory, size, parts, 0, Access::Read)
}
