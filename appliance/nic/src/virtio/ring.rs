//! A split virtqueue whose buffers are one descriptor each (virtio 1.2, 2.7); that of a
//! large frame leads to a table with those of its buffers (2.7.5.3).
//!
//! Entry `n` of the available ring is descriptor `n` for ever, so there are no chains
//! to follow, no free list in memory that the device can write, and nothing to write but
//! a descriptor and the index. The driver never reads back what it wrote; of what the
//! device writes it reads the used ring and, to save notifications, the event index.
//!
//! Why not `virtio_drivers::queue::VirtQueue`: see docs/virtqueue.md.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering, fence};

use crate::dma::DmaMemory;

/// Most entries of a ring: slots are told apart by a byte.
pub(crate) const MAX_SIZE: usize = 1 << u8::BITS;

/// The device writes the buffer (`VIRTQ_DESC_F_WRITE`).
pub(super) const WRITE: u16 = 2;

/// Another descriptor follows, in a table (`VIRTQ_DESC_F_NEXT`).
const NEXT: u16 = 1;

/// The buffer is a table of descriptors (`VIRTQ_DESC_F_INDIRECT`).
const INDIRECT: u16 = 4;

/// Bytes of a descriptor in a table.
pub(crate) const DESCRIPTOR: usize = size_of::<Descriptor>();

/// Descriptor `number` of a table of `count`, for a buffer that the device reads.
pub(crate) fn table_entry(number: u16, count: u16, address: u64, length: u32) -> [u8; DESCRIPTOR] {
    let more = number + 1 < count;
    let flags = if more { NEXT } else { 0 };
    let next = if more { number + 1 } else { 0 };
    let word = u128::from(address)
        | u128::from(length) << 64
        | u128::from(flags) << 96
        | u128::from(next) << 112;
    word.to_le_bytes()
}

/// The driver needs no interrupt (`VIRTQ_AVAIL_F_NO_INTERRUPT`).
pub(super) const NO_INTERRUPT: u16 = 1;

/// The device needs no notification (`VIRTQ_USED_F_NO_NOTIFY`).
const NO_NOTIFY: u16 = 1;

/// A buffer, as the device is told of it.
#[repr(C)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) length: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct UsedElement {
    id: u32,
    length: u32,
}

/// Offsets of a queue's three parts within its memory, and its length, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) available: usize,
    pub(crate) used: usize,
    pub(crate) length: usize,
}

impl Layout {
    /// The layout for `size` entries.
    pub(crate) const fn new(size: u16) -> Layout {
        let size = size as usize;
        let available = size * size_of::<Descriptor>();
        // The driver's part on lines of its own: the device writes the rest.
        let used = (available + 6 + 2 * size).next_multiple_of(64);
        let length = used + 6 + size * size_of::<UsedElement>();
        Layout {
            available,
            used,
            length,
        }
    }
}

/// A buffer that the device has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    /// What the device says is the slot. Not checked.
    pub(crate) id: u32,
    /// How many bytes the device says that it wrote. Not checked.
    pub(crate) length: u32,
}

/// The device's index is ahead of what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadIndex;

/// The driver's end of a virtqueue.
#[derive(Debug)]
pub(crate) struct Ring {
    memory: DmaMemory,
    layout: Layout,
    /// Size minus one; the size is a power of two. As wide as it is so that it is not
    /// read together with an index that was just written, which would have to wait.
    mask: usize,
    /// Free-running index of the next available entry.
    next: u16,
    /// What the device was last shown of `next`.
    published: u16,
    /// What `published` was when the device was last asked if it wants notifications.
    heard: u16,
    /// Up to which descriptor the processor has been told to fetch.
    fetched: u16,
    /// Free-running index of the next used entry.
    consumed: u16,
    event_idx: bool,
}

impl Ring {
    /// A ring of `size` entries; `None` unless that is a power of two up to [`MAX_SIZE`]
    /// for which `memory` has room.
    pub(crate) fn new(memory: DmaMemory, size: u16, event_idx: bool) -> Option<Ring> {
        let layout = Layout::new(size);
        let is_size = size.is_power_of_two() && usize::from(size) <= MAX_SIZE;
        if !is_size || memory.len() < layout.length {
            return None;
        }
        let mut ring = Ring {
            memory,
            layout,
            mask: usize::from(size) - 1,
            next: 0,
            published: 0,
            heard: 0,
            fetched: 0,
            consumed: 0,
            event_idx,
        };
        for entry in 0..size {
            let word = ring.available_word(2 + usize::from(entry));
            word.store(entry, Ordering::Relaxed);
        }
        ring.disarm();
        Some(ring)
    }

    /// Addresses of descriptors, available ring and used ring for the device.
    pub(crate) fn device_addresses(&self) -> [u64; 3] {
        let base = self.memory.device();
        [
            base,
            base + self.layout.available as u64,
            base + self.layout.used as u64,
        ]
    }

    /// How many buffers were posted and not yet taken back.
    #[inline]
    pub(crate) fn outstanding(&self) -> u16 {
        self.next.wrapping_sub(self.consumed)
    }

    /// How many buffers may be outstanding.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.mask + 1
    }

    /// The slot of the next buffer to be offered.
    #[inline]
    pub(crate) fn slot(&self) -> usize {
        slot(self.next, self.mask as u8)
    }

    /// To offer buffers, one or many.
    #[inline(always)]
    pub(crate) fn posting(&mut self) -> Posting<'_> {
        Posting {
            table: self.memory.base().cast(),
            mask: self.mask as u8,
            next: self.next,
            ring: self,
        }
    }

    /// To take used buffers, one or many.
    #[inline(always)]
    pub(crate) fn taking(&mut self) -> Taking<'_> {
        // SAFETY: within the ring's memory.
        let elements = unsafe { self.memory.base().add(self.layout.used + 4) };
        Taking {
            elements: elements.cast(),
            mask: self.mask as u8,
            consumed: self.consumed,
            ring: self,
        }
    }

    /// Shows the device what was posted.
    #[inline]
    pub(crate) fn publish(&mut self) {
        if self.next != self.published {
            // Release: entries and descriptors are visible before the index.
            self.available_word(1).store(self.next, Ordering::Release);
            self.published = self.next;
        }
    }

    /// Whether the device was shown something and not asked since if it wants to be
    /// notified.
    #[inline]
    pub(crate) fn is_unheard(&self) -> bool {
        self.heard != self.published
    }

    /// Whether the device wants to be notified of what it was shown since this was last
    /// asked. There has to have been a [`barrier`] since [`Ring::publish`].
    #[inline]
    pub(crate) fn wants_notification(&mut self) -> bool {
        let before = core::mem::replace(&mut self.heard, self.published);
        if self.event_idx {
            let event = self.used_word(self.event_offset()).load(Ordering::Relaxed);
            crossed(event, self.published, before)
        } else {
            self.used_word(0).load(Ordering::Relaxed) & NO_NOTIFY == 0
        }
    }

    /// Has the processor fetch the next `count` descriptors, which are not with the
    /// device, to be written.
    #[inline]
    pub(crate) fn fetch_slots(&mut self, count: u16) {
        const PER_LINE: u16 = (nve_hint::LINE / size_of::<Descriptor>()) as u16;

        let (next, mask) = (self.next, self.mask as u8);
        let table = self.memory.base().as_ptr().cast::<Descriptor>();
        let ahead = self.fetched.wrapping_sub(next);
        let ahead = if ahead < 1 << 15 { ahead } else { 0 };
        if ahead >= count {
            return;
        }
        let first = next.wrapping_add(ahead);
        let mut at = first - first % PER_LINE;
        for _ in 0..(first - at + count - ahead).div_ceil(PER_LINE) {
            nve_hint::prefetch_write_at(table.wrapping_add(slot(at, mask)).cast());
            at = at.wrapping_add(PER_LINE);
        }
        self.fetched = at;
    }

    /// Has the processor fetch the next `count` entries of the used ring.
    #[inline]
    pub(crate) fn fetch_used(&self, count: u16) {
        const PER_LINE: usize = nve_hint::LINE / size_of::<UsedElement>();

        for ahead in (0..count).step_by(PER_LINE) {
            let at = usize::from(self.consumed.wrapping_add(ahead)) & self.mask;
            let ring = self
                .memory
                .base()
                .as_ptr()
                .wrapping_add(self.layout.used + 4);
            nve_hint::prefetch_at(ring.cast::<UsedElement>().wrapping_add(at).cast());
        }
    }

    /// How many buffers the device has used that were not yet taken.
    #[inline]
    pub(crate) fn pending(&self) -> Result<u16, BadIndex> {
        // Acquire: the entries are read after the index that covers them.
        let index = self.used_word(1).load(Ordering::Acquire);
        let pending = index.wrapping_sub(self.consumed);
        let outstanding = self.published.wrapping_sub(self.consumed);
        if pending > outstanding {
            return Err(BadIndex);
        }
        Ok(pending)
    }

    /// Asks for an interrupt at the next used buffer. Returns whether there is one
    /// already, or the device's index is bad; of neither an interrupt tells.
    pub(crate) fn arm(&mut self) -> bool {
        if self.event_idx {
            self.available_word(self.event_offset_of_driver())
                .store(self.consumed, Ordering::Relaxed);
        } else {
            self.available_word(0).store(0, Ordering::Relaxed);
        }
        // Our wish is visible before we look at the index.
        barrier();
        self.pending() != Ok(0)
    }

    /// Says that interrupts are not needed. One may still come.
    pub(crate) fn disarm(&mut self) {
        if self.event_idx {
            // The index that is farthest ahead.
            self.available_word(self.event_offset_of_driver())
                .store(self.consumed.wrapping_sub(1), Ordering::Relaxed);
        } else {
            self.available_word(0)
                .store(NO_INTERRUPT, Ordering::Relaxed);
        }
    }

    /// Word of the used ring in which the device says when to notify it.
    fn event_offset(&self) -> usize {
        2 + 4 * (self.mask + 1)
    }

    /// Word of the available ring in which we say when to interrupt.
    fn event_offset_of_driver(&self) -> usize {
        2 + self.mask + 1
    }

    #[inline]
    fn available_word(&self, at: usize) -> &AtomicU16 {
        self.word(self.layout.available, at)
    }

    #[inline]
    fn used_word(&self, at: usize) -> &AtomicU16 {
        self.word(self.layout.used, at)
    }

    #[inline]
    fn word(&self, part: usize, at: usize) -> &AtomicU16 {
        debug_assert!(part + 2 * at + 2 <= self.layout.length);
        // SAFETY: callers pass offsets below the layout's length, both parts are
        // aligned to two bytes, and these words are only accessed atomically.
        unsafe {
            let first: NonNull<u8> = self.memory.base().add(part);
            first.cast::<AtomicU16>().add(at).as_ref()
        }
    }
}

/// The slot of a free-running index. Below [`MAX_SIZE`], as the compiler can see, so that
/// nothing has to be checked where there are as many slots.
#[inline(always)]
fn slot(index: u16, mask: u8) -> usize {
    usize::from(index) & usize::from(mask)
}

/// Offers buffers. What is the same for all of them is kept here, apart from the ring:
/// stores that the device sees have all that is behind a reference read anew.
pub(crate) struct Posting<'r> {
    ring: &'r mut Ring,
    table: NonNull<Descriptor>,
    mask: u8,
    next: u16,
}

impl Posting<'_> {
    /// The slot of the next buffer to be offered.
    #[inline(always)]
    pub(crate) fn slot(&self) -> usize {
        slot(self.next, self.mask)
    }

    /// How many buffers have been offered by this.
    #[inline(always)]
    pub(crate) fn count(&self) -> u16 {
        self.next.wrapping_sub(self.ring.next)
    }

    /// Offers `length` bytes at `address` in the next slot, to be written by the device
    /// if `writable`. Seen by the device after [`Ring::publish`].
    ///
    /// # Safety
    /// The bytes stay valid, and are not accessed, until the device has returned
    /// the slot; the slot is not with the device.
    #[inline(always)]
    pub(crate) unsafe fn post(&mut self, address: u64, length: u32, writable: bool) {
        let flags = if writable { WRITE } else { 0 };
        // SAFETY: the caller's promise.
        unsafe { self.offer(address, length, flags) };
    }

    /// The same of a buffer that is a table of descriptors, `length` bytes of it.
    ///
    /// # Safety
    /// As of [`Posting::post`], for the table and all that it names.
    pub(crate) unsafe fn post_table(&mut self, address: u64, length: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.offer(address, length, INDIRECT) };
    }

    /// # Safety
    /// See [`Posting::post`].
    #[inline(always)]
    unsafe fn offer(&mut self, address: u64, length: u32, flags: u16) {
        // Two words: each store may have to wait for the device's end of the line.
        let rest = u64::from(length) | u64::from(flags) << 32;
        let at = self.slot();
        // SAFETY: below the size by the mask, so in the descriptor table; the
        // device does not read this descriptor before it is published.
        unsafe {
            let [first, second] = [0, 1].map(|word| self.table.add(at).cast::<u64>().add(word));
            first.write_volatile(address.to_le());
            second.write_volatile(rest.to_le());
        }
        self.next = self.next.wrapping_add(1);
    }
}

impl Drop for Posting<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.ring.next = self.next;
    }
}

/// Takes used buffers; what is the same for all of them is kept here, as in [`Posting`].
pub(crate) struct Taking<'r> {
    ring: &'r mut Ring,
    elements: NonNull<UsedElement>,
    mask: u8,
    consumed: u16,
}

impl Taking<'_> {
    /// The next used buffer. Look only if there is one, as [`Ring::pending`] says.
    #[inline(always)]
    pub(crate) fn peek(&self) -> Used {
        let at = slot(self.consumed, self.mask);
        // SAFETY: in the used ring by the mask; 4-byte aligned as the ring is.
        let element = unsafe { self.elements.add(at).read_volatile() };
        Used {
            id: element.id,
            length: element.length,
        }
    }

    /// The slot of the next used buffer, not checked, where its length is of no interest.
    #[inline(always)]
    pub(crate) fn peek_id(&self) -> u32 {
        let at = slot(self.consumed, self.mask);
        // SAFETY: as in `peek`; the first word of the element.
        unsafe { self.elements.add(at).cast::<u32>().read_volatile() }
    }

    /// Takes the next used buffer, which was looked at.
    #[inline(always)]
    pub(crate) fn advance(&mut self) {
        self.consumed = self.consumed.wrapping_add(1);
    }

    /// How many buffers have been taken by this.
    #[inline(always)]
    pub(crate) fn count(&self) -> u16 {
        self.consumed.wrapping_sub(self.ring.consumed)
    }
}

impl Drop for Taking<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.ring.consumed = self.consumed;
    }
}

/// To be put between what is written for the device and what is read of it then. The
/// device writes its wish, then reads our index; we write the index, then read its wish.
/// Only a full barrier on both sides orders these.
#[inline]
pub(crate) fn barrier() {
    fence(Ordering::SeqCst);
}

/// Whether an index that went from `before` to `after` has passed `event`
/// (virtio 1.2, 2.7.7.2, in arithmetic that wraps).
fn crossed(event: u16, after: u16, before: u16) -> bool {
    after.wrapping_sub(event).wrapping_sub(1) < after.wrapping_sub(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::fake::{DeviceRing, leak_memory};

    fn ring(size: u16, event_idx: bool) -> (Ring, DeviceRing) {
        let ring = Ring::new(leak_memory(Layout::new(size).length), size, event_idx).unwrap();
        let device = DeviceRing::new(ring.device_addresses(), size);
        (ring, device)
    }

    fn post(ring: &mut Ring) {
        // SAFETY: the test's device does not touch buffers.
        unsafe { ring.posting().post(0x1000, 64, true) };
    }

    fn take(ring: &mut Ring) -> Used {
        let mut taking = ring.taking();
        let used = taking.peek();
        taking.advance();
        used
    }

    fn publish(ring: &mut Ring) -> bool {
        ring.publish();
        ring.is_unheard() && ring.wants_notification()
    }

    #[test]
    fn sizes_that_rings_cannot_have_are_refused() {
        for size in [0, 3, 100, 512] {
            assert!(Ring::new(leak_memory(65_536), size, true).is_none());
        }
        assert!(Ring::new(leak_memory(64), 256, true).is_none());
    }

    #[test]
    fn buffers_go_round_for_ever() {
        let (mut ring, mut device) = ring(4, true);
        for round in 0..70_000u32 {
            post(&mut ring);
            ring.publish();
            let slot = device.take().unwrap();
            assert_eq!(u32::from(slot), round % 4);
            device.give(u32::from(slot), round);
            assert_eq!(ring.pending(), Ok(1));
            assert_eq!(
                take(&mut ring),
                Used {
                    id: round % 4,
                    length: round
                }
            );
            assert_eq!(ring.pending(), Ok(0));
        }
    }

    #[test]
    fn an_index_ahead_of_what_was_offered_is_bad() {
        for event_idx in [false, true] {
            let (mut ring, mut device) = ring(8, event_idx);
            post(&mut ring);
            // Posted but not published: still not the device's.
            device.set_index(1);
            assert_eq!(ring.pending(), Err(BadIndex));
            assert!(ring.arm());
            ring.publish();
            assert_eq!(ring.pending(), Ok(1));
            for index in [2, 9, 0x8000, 0xffff] {
                device.set_index(index);
                assert_eq!(ring.pending(), Err(BadIndex), "{index}");
            }
        }
    }

    #[test]
    fn the_device_is_notified_when_its_event_is_passed() {
        let (mut ring, device) = ring(4, true);
        assert!(!publish(&mut ring));
        for _ in 0..=u16::MAX {
            device.set_avail_event(ring.next);
            post(&mut ring);
            assert!(publish(&mut ring), "{}", ring.next);
            device.set_avail_event(ring.next.wrapping_add(1));
            post(&mut ring);
            assert!(!publish(&mut ring), "{}", ring.next);
            ring.consumed = ring.next;
        }
    }

    #[test]
    fn without_event_index_the_flags_decide() {
        let (mut ring, device) = ring(4, false);
        post(&mut ring);
        assert!(publish(&mut ring));
        device.set_used_flags(NO_NOTIFY);
        post(&mut ring);
        assert!(!publish(&mut ring));
        assert!(!device.wants_interrupt(0));
        assert!(!ring.arm());
        assert!(device.wants_interrupt(0));
        ring.disarm();
        assert!(!device.wants_interrupt(0));
    }

    #[test]
    fn arming_asks_for_the_next_buffer_and_sees_those_there() {
        let (mut ring, mut device) = ring(4, true);
        post(&mut ring);
        post(&mut ring);
        ring.publish();
        assert!(!ring.arm());
        assert!(device.wants_interrupt_event(0, 1));
        device.give(0, 0);
        assert!(ring.arm());
        take(&mut ring);
        assert!(!ring.arm());
        assert!(device.wants_interrupt_event(1, 2));
        ring.disarm();
        assert!(!device.wants_interrupt_event(1, 2));
    }

    #[test]
    fn crossing_is_right_around_the_wrap() {
        assert!(crossed(65_535, 0, 65_535));
        assert!(crossed(65_530, 1, 65_530));
        assert!(!crossed(5, 5, 4));
        assert!(crossed(4, 5, 4));
        assert!(!crossed(3, 5, 4));
    }
}
