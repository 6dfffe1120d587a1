//! The device's end of a split virtqueue (virtio 1.2, section 2.7).
//!
//! Buffers are given back in the order in which they were offered (the device may
//! say so by `IN_ORDER`). What the driver wrote is checked before it is used: an
//! index that is ahead, a descriptor out of range, a chain without an end and an
//! address outside of the shared memory end in a [`Fault`].

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

use crate::memory::Memory;

/// Most descriptors in a chain. Drivers that are measured use one or two.
pub const MAX_PIECES: usize = 8;

/// Largest size of a virtqueue (virtio 1.2, section 2.7).
const MAX_SIZE: u16 = 32768;

/// `VIRTQ_DESC_F_NEXT`: another descriptor follows.
const NEXT: u16 = 1;
/// `VIRTQ_DESC_F_WRITE`: the device writes the buffer.
const WRITE: u16 = 2;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT`: the driver needs no interrupt.
const NO_INTERRUPT: u16 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY`: the device needs no notification.
const NO_NOTIFY: u16 = 1;

/// Bytes in front of a ring's entries: flags and index.
const RING_HEAD: usize = 4;
/// Bytes behind a ring's entries: the other end's event.
const RING_TAIL: usize = 2;

/// How a driver broke the protocol. A queue with a fault is not to be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The size is not a power of two up to 32768.
    Size,
    /// A part of the queue is outside of the shared memory, or not aligned.
    Parts,
    /// The available index is further ahead than the queue is long.
    Index,
    /// A descriptor that the table does not have.
    Descriptor,
    /// A chain of too many descriptors.
    Chain,
    /// A buffer for the other direction, or an indirect table.
    Flags,
    /// A buffer outside of the shared memory.
    Address,
    /// A buffer without room for the header and a frame.
    Room,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Fault::Size => "queue size is not a power of two up to 32768",
            Fault::Parts => "part of a queue outside of the shared memory, or not aligned",
            Fault::Index => "available index too far ahead",
            Fault::Descriptor => "descriptor that the table does not have",
            Fault::Chain => "chain of too many descriptors",
            Fault::Flags => "buffer for the other direction, or an indirect table",
            Fault::Address => "buffer outside of the shared memory",
            Fault::Room => "buffer without room for a frame",
        })
    }
}

impl std::error::Error for Fault {}

/// Where the parts of a queue are, as the driver's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// The descriptor table.
    pub descriptors: u64,
    /// The available ring.
    pub available: u64,
    /// The used ring.
    pub used: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

/// A part of a buffer: bytes that the driver lent.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// First byte. Valid until the buffer is given back.
    pub pointer: NonNull<u8>,
    /// Number of bytes.
    pub length: usize,
}

// SAFETY: it is a pointer into shared memory, which any thread may use.
unsafe impl Send for Piece {}

impl Default for Piece {
    fn default() -> Piece {
        Piece {
            pointer: NonNull::dangling(),
            length: 0,
        }
    }
}

/// A buffer that the driver offered: the pieces of a chain of descriptors.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chain {
    head: u16,
    count: usize,
    pieces: [Piece; MAX_PIECES],
}

impl Chain {
    /// Its pieces in their order; never none.
    #[inline]
    pub fn pieces(&self) -> &[Piece] {
        self.pieces.get(..self.count).unwrap_or_default()
    }

    /// The first piece.
    #[inline]
    pub fn first(&self) -> Piece {
        let [first, ..] = self.pieces;
        first
    }
}

/// Which way the buffers of a queue go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The device reads them.
    Read,
    /// The device writes them.
    Write,
}

/// The device's end of a virtqueue.
///
/// Invariants: the three parts are in the shared memory for the whole size;
/// `given <= taken <= offered` as free-running indices.
#[derive(Debug)]
pub struct Ring {
    memory: Arc<Memory>,
    descriptors: NonNull<Descriptor>,
    available: NonNull<AtomicU16>,
    used: NonNull<AtomicU16>,
    /// Size minus one; the size is a power of two.
    mask: u16,
    access: Access,
    /// Available index as last read.
    offered: u16,
    /// Next available entry to take.
    taken: u16,
    /// Next used entry to write.
    given: u16,
}

// SAFETY: the pointers are into `memory`, which any thread may use.
unsafe impl Send for Ring {}

impl Ring {
    /// The queue of `size` entries whose parts are at these addresses, and of whose
    /// entries the first `start` (a free-running index) are done.
    pub fn new(
        memory: Arc<Memory>,
        size: u16,
        parts: Parts,
        start: u16,
        access: Access,
    ) -> Result<Ring, Fault> {
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(Fault::Size);
        }
        let entries = usize::from(size);
        let around = RING_HEAD + RING_TAIL;
        let find = |guest, length, align| memory.aligned(guest, length, align).ok_or(Fault::Parts);
        let table = entries * size_of::<Descriptor>();
        let descriptors = find(parts.descriptors, table, 16)?.cast();
        let available = find(parts.available, around + 2 * entries, 2)?.cast();
        let used = find(parts.used, around + 8 * entries, 4)?.cast();
        let ring = Ring {
            memory,
            descriptors,
            available,
            used,
            mask: size - 1,
            access,
            offered: start,
            taken: start,
            given: start,
        };
        ring.used_word(0).store(NO_NOTIFY, Ordering::Relaxed);
        Ok(ring)
    }

    /// Free-running index of the next entry: where another device goes on.
    pub fn position(&self) -> u16 {
        self.given
    }

    /// How many buffers [`Ring::take`] can take, of which at most `most` matter.
    #[inline]
    pub fn pending(&mut self, most: u16) -> Result<u16, Fault> {
        let known = self.offered.wrapping_sub(self.taken);
        if known >= most {
            return Ok(known);
        }
        // Acquire: entries and descriptors are read after the index that covers them.
        let offered = self.available_word(1).load(Ordering::Acquire);
        // Those taken and not yet given back count, too.
        if offered.wrapping_sub(self.given) > self.mask + 1 {
            return Err(Fault::Index);
        }
        self.offered = offered;
        Ok(offered.wrapping_sub(self.taken))
    }

    /// Takes the next buffer. Call only as often as [`Ring::pending`] says.
    #[inline]
    pub fn take(&mut self, chain: &mut Chain) -> Result<(), Fault> {
        let entry = usize::from(self.taken & self.mask);
        let head = self.available_word(2 + entry).load(Ordering::Relaxed);
        self.taken = self.taken.wrapping_add(1);
        chain.head = head;
        chain.count = 0;
        let mut next = Some(head);
        while let Some(index) = next {
            let descriptor = self.descriptor(index)?;
            let place = chain.pieces.get_mut(chain.count).ok_or(Fault::Chain)?;
            *place = self.piece(&descriptor)?;
            chain.count += 1;
            next = (descriptor.flags & NEXT != 0).then_some(descriptor.next);
        }
        Ok(())
    }

    #[inline]
    fn descriptor(&self, index: u16) -> Result<Descriptor, Fault> {
        if index > self.mask {
            return Err(Fault::Descriptor);
        }
        // SAFETY: in the table, as the check says; any bytes are a descriptor.
        Ok(unsafe { self.descriptors.add(usize::from(index)).read_volatile() })
    }

    #[inline]
    fn piece(&self, descriptor: &Descriptor) -> Result<Piece, Fault> {
        let access = match self.access {
            Access::Read => 0,
            Access::Write => WRITE,
        };
        if descriptor.flags & !NEXT != access {
            return Err(Fault::Flags);
        }
        let length = descriptor.length as usize;
        let pointer = self.memory.at(descriptor.address, length);
        let pointer = pointer.ok_or(Fault::Address)?;
        Ok(Piece { pointer, length })
    }

    /// Gives back a buffer that was taken, into which `written` bytes were written;
    /// in the order in which they were taken. Seen by the driver after
    /// [`Ring::publish`].
    #[inline]
    pub fn give(&mut self, chain: &Chain, written: u32) {
        let entry = usize::from(self.given & self.mask);
        self.given = self.given.wrapping_add(1);
        // SAFETY: in the used ring by the mask, and aligned to 4 bytes as the ring
        // is; the words are only accessed atomically.
        unsafe {
            let element = self.used.cast::<AtomicU32>().add(1 + 2 * entry);
            let id = u32::from(chain.head);
            element.as_ref().store(id, Ordering::Relaxed);
            element.add(1).as_ref().store(written, Ordering::Relaxed);
        }
    }

    /// Shows the driver what was given back. Returns whether it wants to be
    /// notified.
    #[inline]
    #[must_use]
    pub fn publish(&mut self) -> bool {
        // Release: buffers and elements are visible before the index.
        self.used_word(1).store(self.given, Ordering::Release);
        // The driver writes its wish, then reads our index; we write the index,
        // then read its wish. Only a full barrier on both sides orders these.
        fence(Ordering::SeqCst);
        self.available_word(0).load(Ordering::Relaxed) & NO_INTERRUPT == 0
    }

    /// A word of the available ring: flags, index, entries.
    #[inline]
    fn available_word(&self, at: usize) -> &AtomicU16 {
        debug_assert!(at < 3 + usize::from(self.mask) + 1);
        // SAFETY: callers stay below the ring's length, and the words are only
        // accessed atomically.
        unsafe { self.available.add(at).as_ref() }
    }

    /// A word of the used ring's head: flags or index.
    #[inline]
    fn used_word(&self, at: usize) -> &AtomicU16 {
        debug_assert!(at < 2);
        // SAFETY: as for `available_word`.
        unsafe { self.used.add(at).as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Driver, GUEST, LENGTH, SIZE, attempt};
    use crate::fake::{NEXT as MORE, WRITE as WRITABLE};

    fn take(ring: &mut Ring) -> Result<Chain, Fault> {
        let mut chain = Chain::default();
        ring.take(&mut chain).map(|()| chain)
    }

    #[test]
    fn parts_that_queues_cannot_have_are_refused() {
        assert!(attempt(SIZE, |_| {}).is_ok());
        for size in [0, 3, 100, 32769] {
            assert_eq!(attempt(size, |_| {}).unwrap_err(), Fault::Size);
        }
        let end = GUEST + LENGTH as u64;
        let changes: [fn(&mut Parts, u64); 6] = [
            |parts, end| parts.descriptors = end - 16,
            |parts, end| parts.available = end - 2,
            |parts, end| parts.used = end - 4,
            |parts, _| parts.descriptors += 8,
            |parts, _| parts.available += 1,
            |parts, _| parts.used += 2,
        ];
        for change in changes {
            let ring = attempt(SIZE, |parts| change(parts, end));
            assert_eq!(ring.unwrap_err(), Fault::Parts);
        }
    }

    #[test]
    fn buffers_go_round_for_ever() {
        let (mut driver, mut ring) = Driver::leak(Access::Write);
        for round in 0..70_000u32 {
            let slot = (round % 8) as u16;
            driver.describe(slot, Driver::buffer(slot), 64, WRITABLE, 0);
            assert_eq!(ring.pending(1), Ok(0));
            driver.offer(slot);
            assert_eq!(ring.pending(32), Ok(1));
            let chain = take(&mut ring).unwrap();
            assert_eq!(chain.pieces().len(), 1);
            ring.give(&chain, round);
            assert!(ring.publish());
            assert_eq!(driver.take(), Some((slot, round)));
            assert_eq!(driver.take(), None);
        }
        assert_eq!(ring.position(), (70_000u32 % 65_536) as u16);
    }

    #[test]
    fn the_driver_says_whether_it_is_notified() {
        let (driver, mut ring) = Driver::leak(Access::Write);
        assert!(ring.publish());
        driver.set_flags(NO_INTERRUPT);
        assert!(!ring.publish());
    }

    #[test]
    fn an_index_too_far_ahead_is_a_fault() {
        let (driver, mut ring) = Driver::leak(Access::Read);
        driver.set_index(SIZE);
        assert_eq!(ring.pending(32), Ok(SIZE));
        let (driver, mut ring) = Driver::leak(Access::Read);
        for index in [SIZE + 1, 0x8000, 0xffff] {
            driver.set_index(index);
            assert_eq!(ring.pending(32), Err(Fault::Index), "{index}");
        }
    }

    #[test]
    fn what_is_taken_and_not_given_back_counts() {
        let (mut driver, mut ring) = Driver::leak(Access::Read);
        driver.describe(0, Driver::buffer(0), 64, 0, 0);
        driver.offer(0);
        assert_eq!(ring.pending(1), Ok(1));
        take(&mut ring).unwrap();
        driver.set_index(SIZE + 1);
        assert_eq!(ring.pending(32), Err(Fault::Index));
    }

    #[test]
    fn chains_are_followed_and_have_an_end() {
        let (mut driver, mut ring) = Driver::leak(Access::Read);
        driver.describe(0, Driver::buffer(0), 12, MORE, 5);
        driver.describe(5, Driver::buffer(1), 60, 0, 0);
        driver.offer(0);
        let chain = take(&mut ring).unwrap();
        let lengths: Vec<usize> = chain.pieces().iter().map(|piece| piece.length).collect();
        assert_eq!(lengths, [12, 60]);
        // One that leads back to its start.
        driver.describe(5, Driver::buffer(1), 60, MORE, 0);
        driver.offer(0);
        assert_eq!(take(&mut ring).unwrap_err(), Fault::Chain);
    }

    #[test]
    fn bad_descriptors_are_faults() {
        let end = GUEST + LENGTH as u64;
        let good = GUEST + 4096;
        for (head, address, length, flags, fault) in [
            (SIZE, good, 64, 0, Fault::Descriptor),
            (0, GUEST - 1, 64, 0, Fault::Address),
            (0, end - 63, 64, 0, Fault::Address),
            (0, good, u32::MAX, 0, Fault::Address),
            (0, good, 64, WRITABLE, Fault::Flags),
            (0, good, 64, 4, Fault::Flags),
        ] {
            let (mut driver, mut ring) = Driver::leak(Access::Read);
            driver.describe_at(0, address, length, flags, 0);
            driver.offer(head);
            assert_eq!(take(&mut ring).unwrap_err(), fault);
        }
    }
}
