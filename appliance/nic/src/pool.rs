//! Packet buffers, all made at start.
//!
//! A buffer is `[driver's space | headroom | room]`. The driver's space is for
//! its header and belongs to nobody else, so that a frame whose user took all of
//! the headroom can still be sent. Dropping a [`Packet`] gives its buffer back.
//!
//! Where several processors share an NVE, each has a pool, all over the same memory: a
//! packet leaves one as a [`Loose`] one and comes into another, and none is locked.
//!
//! A buffer is known by the address of its space, behind the driver's: that is computed
//! once, when the memory is cut up, and goes with the buffer through free lists, packets
//! and queues.
//!
//! Invariants: each buffer of the memory is either in one free list or in exactly one
//! [`Packet`] or [`Loose`], of which a large one has several; `start + length <= space`.

pub mod large;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::{Cell, UnsafeCell};
use core::ptr::NonNull;

use crate::checksum::PartialChecksum;
use crate::dma::DmaMemory;
use large::Link;

/// Bytes in front of a buffer's headroom for the header of a driver. With a headroom
/// of whole cache lines, the 12 bytes of virtio's header begin one, and the frame's
/// own headers are in it as well: a tagged one's up to its ports.
pub(crate) const DRIVER_SPACE: usize = 64 + 12;

/// Buffers start on cache lines.
const ALIGN: usize = 64;

/// Bytes in front of a frame that are fetched with it.
const HEADER_LINE: usize = 12;

/// What there is to know of a frame before it is sent: whether it is [`PARTIAL`], and
/// whether it is [`LARGE`]. Beside each other, so that one comparison finds out that neither.
type Marks = [bool; 2];

/// Has a checksum that is yet to be completed.
const PARTIAL: usize = 0;

/// Is in several buffers.
const LARGE: usize = 1;

const ORDINARY: Marks = [false; 2];

/// Buffers of one size. Made once, lives as long as the machine, and is used by
/// one processor (it is not `Sync`).
#[derive(Debug)]
pub struct Pool {
    /// The first byte of the memory.
    base: NonNull<u8>,
    /// What is to be added to an address in the memory for that which a device sees.
    to_device: u64,
    stride: usize,
    headroom: u16,
    space: u16,
    /// Where the line with the header of a fresh frame begins in a buffer's space.
    front: usize,
    /// Spaces of buffers that are free.
    free: UnsafeCell<Vec<NonNull<u8>>>,
    /// How many buffers it had to begin with.
    count: usize,
    /// Of each buffer of the memory, what is behind it in a large frame. All pools have
    /// this: an entry is used by who has the buffer.
    links: &'static [Cell<Link>],
}

impl Pool {
    /// Bytes of memory that `count` buffers with this headroom and room take.
    pub fn bytes(count: usize, headroom: usize, room: usize) -> usize {
        count * stride(headroom, room)
    }

    /// Cuts `memory` into buffers in which a received frame has `headroom` bytes
    /// in front of it and may have `room` bytes. `None` if that is more than 64 KiB
    /// or not one buffer fits.
    pub fn new(memory: DmaMemory, headroom: usize, room: usize) -> Option<&'static Pool> {
        Pool::several(memory, headroom, room, 1)?
            .pop()
            .map(IdlePool::open)
    }

    /// The same for so many processors: a pool for each, with as many buffers as the
    /// others to begin with.
    pub fn several(
        memory: DmaMemory,
        headroom: usize,
        room: usize,
        processors: usize,
    ) -> Option<Vec<IdlePool>> {
        let stride = stride(headroom, room);
        let space = u16::try_from(stride - DRIVER_SPACE).ok()?;
        let headroom = u16::try_from(headroom).ok()?;
        // There are no more buffers than lines, and a number of either has 32 bits.
        u32::try_from(memory.len() / ALIGN).ok()?;
        let total = (memory.len() / stride) as u32;
        let each = total / u32::try_from(processors).ok()?.max(1);
        if each == 0 {
            return None;
        }
        let links: &'static [Cell<Link>] =
            Box::leak((0..total).map(|_| Cell::new(Link::ALONE)).collect());
        let base = memory.base();
        // SAFETY: below the total, so within the memory.
        let space_of = |index: u32| unsafe { base.add(index as usize * stride + DRIVER_SPACE) };
        let pool = |number: usize| {
            let first = number as u32 * each;
            // All of the memory's buffers may come together in one.
            let mut free = Vec::with_capacity(total as usize);
            // Low addresses are taken first.
            free.extend((first..first + each).rev().map(space_of));
            IdlePool(Box::leak(Box::new(Pool {
                base,
                to_device: memory.device().wrapping_sub(base.as_ptr() as u64),
                stride,
                headroom,
                space,
                front: usize::from(headroom).wrapping_sub(HEADER_LINE),
                free: UnsafeCell::new(free),
                count: each as usize,
                links,
            })))
        };
        Some((0..processors).map(pool).collect())
    }

    /// An empty frame behind the headroom of a free buffer.
    #[inline]
    pub fn take(&'static self) -> Option<Packet> {
        // SAFETY: the reference ends here, and the pool is used by one processor,
        // whose interrupts do not touch it.
        let buffer = unsafe { &mut *self.free.get() }.pop()?;
        // SAFETY: what is free no more is in nothing else.
        Some(unsafe { self.packet(buffer) })
    }

    /// Takes in a packet that left another pool; hands it back if that is not over the
    /// same memory.
    #[inline]
    pub fn adopt(&'static self, loose: Loose) -> Result<Packet, Loose> {
        if loose.base != self.base.as_ptr() as usize {
            return Err(loose);
        }
        // SAFETY: where the buffer was in the same memory when it left.
        let buffer = unsafe { self.base.add(loose.line as usize * ALIGN + DRIVER_SPACE) };
        Ok(Packet {
            pool: self,
            buffer,
            start: loose.start,
            length: loose.length,
            checksum: loose.checksum,
            marks: loose.marks,
        })
    }

    /// Buffers that are free.
    #[inline]
    pub fn available(&self) -> usize {
        // SAFETY: as for `take`.
        unsafe { &*self.free.get() }.len()
    }

    /// Longest frame that fits behind the headroom.
    pub fn room(&self) -> usize {
        usize::from(self.space - self.headroom)
    }

    #[inline]
    fn give_back(&self, buffer: NonNull<u8>) {
        // The list was made with a place for every buffer, so this allocates
        // nothing.
        // SAFETY: as for `take`.
        unsafe { &mut *self.free.get() }.push(buffer);
    }

    /// Takes free buffers while `accept` has them, which must not use the pool: it has the
    /// buffer if it says so.
    #[inline(always)]
    pub(crate) fn take_while(&self, mut accept: impl FnMut(NonNull<u8>) -> bool) {
        self.with_free(|free| {
            let is_accepted = |buffer: &&NonNull<u8>| accept(**buffer);
            let taken = free.iter().rev().take_while(is_accepted).count();
            free.truncate(free.len() - taken);
        });
    }

    /// Puts up to `count` buffers, which `next` has the caller's right to, among the free
    /// ones. Returns whether there were as many; `next` must not use the pool.
    ///
    /// # Safety
    /// As of [`Pool::packet`], for each buffer that `next` returns.
    #[inline(always)]
    pub(crate) unsafe fn give_back_while(
        &self,
        count: usize,
        mut next: impl FnMut() -> Option<NonNull<u8>>,
    ) -> bool {
        self.with_free(|free| {
            let before = free.len();
            let mut given = 0;
            let spare = free.spare_capacity_mut().get_mut(..count);
            for place in spare.unwrap_or_default() {
                let Some(buffer) = next() else { break };
                place.write(buffer);
                given += 1;
            }
            // SAFETY: so many have been written behind those that were there.
            unsafe { free.set_len(before + given) };
            given == count
        })
    }

    /// The list of free buffers, for as long as `act` runs: the pool has none meanwhile.
    #[inline(always)]
    fn with_free<R>(&self, act: impl FnOnce(&mut Vec<NonNull<u8>>) -> R) -> R {
        // SAFETY: the reference ends here, as for `take`.
        let mut free = core::mem::take(unsafe { &mut *self.free.get() });
        let result = act(&mut free);
        // SAFETY: as above. In its place is one that has allocated nothing.
        core::mem::forget(core::mem::replace(unsafe { &mut *self.free.get() }, free));
        result
    }

    /// Has the processor fetch `lines` cache lines of a frame behind the headroom of a
    /// buffer, the first with the driver's header. They will be written: where a frame
    /// goes, something in its headers is changed.
    #[inline(always)]
    pub(crate) fn prefetcher(&self, lines: usize) -> impl Fn(NonNull<u8>) + use<> {
        let front = self.front;
        move |buffer| fetch(buffer.as_ptr().wrapping_add(front), lines)
    }

    /// Cache lines with the driver's header and the first `front` bytes of a frame.
    pub(crate) fn lines(front: usize) -> usize {
        (HEADER_LINE + front).div_ceil(nve_hint::LINE)
    }

    /// The packet in `buffer`, as [`Pool::take`] gives it.
    ///
    /// # Safety
    /// See [`Maker::packet`].
    #[inline]
    pub(crate) unsafe fn packet(&'static self, buffer: NonNull<u8>) -> Packet {
        // SAFETY: the caller's promise.
        unsafe { self.maker().packet(buffer, 0) }
    }

    /// To make packets of many buffers.
    #[inline(always)]
    pub(crate) fn maker(&'static self) -> Maker {
        Maker {
            pool: self,
            headroom: self.headroom,
            room: self.space - self.headroom,
        }
    }

    /// What is to be added to the address of a frame for that of the `N` bytes in front of
    /// it, as a device sees them.
    #[inline]
    pub(crate) fn to_header<const N: usize>(&self) -> u64 {
        self.to_device.wrapping_sub(N as u64)
    }

    /// Bytes in front of the frame in a fresh buffer.
    #[inline]
    pub(crate) fn headroom(&self) -> usize {
        self.headroom.into()
    }

    /// How many buffers it had to begin with.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// An address in the memory as a device sees it.
    #[inline]
    fn device_address(&self, place: NonNull<u8>) -> u64 {
        (place.as_ptr() as u64).wrapping_add(self.to_device)
    }

    /// The space of buffer `index`, which has to be one of the memory's.
    fn space_of(&self, index: u32) -> NonNull<u8> {
        debug_assert!((index as usize) < self.links.len());
        // SAFETY: there is a link for each buffer, so this is within the memory.
        unsafe { self.base.add(index as usize * self.stride + DRIVER_SPACE) }
    }

    /// The number of a buffer of the memory.
    fn index_of(&self, buffer: NonNull<u8>) -> u32 {
        // A number of buffers has 32 bits.
        (self.offset_of(buffer) / self.stride) as u32
    }

    /// Where a buffer begins in the memory, in bytes.
    #[inline]
    fn offset_of(&self, buffer: NonNull<u8>) -> usize {
        buffer.addr().get() - DRIVER_SPACE - self.base.addr().get()
    }
}

/// Makes packets of buffers of a pool that a device has filled. What is the same for all of
/// them is kept here, apart from the pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maker {
    pool: &'static Pool,
    headroom: u16,
    room: u16,
}

impl Maker {
    /// Longest frame that fits behind the headroom.
    #[inline(always)]
    pub(crate) fn room(&self) -> u16 {
        self.room
    }

    /// The `N` bytes that a device wrote in front of a frame.
    ///
    /// # Safety
    /// `buffer` is one of the pool's memory, and in no packet and not free.
    #[inline(always)]
    pub(crate) unsafe fn header<const N: usize>(&self, buffer: NonNull<u8>) -> [u8; N] {
        const { assert!(N <= DRIVER_SPACE) };
        // SAFETY: in this buffer, as the driver's space has at least N bytes.
        unsafe { buffer.add(self.headroom.into()).sub(N).cast().read() }
    }

    /// The packet in `buffer`, with a frame of `length` bytes behind its headroom.
    ///
    /// # Safety
    /// `buffer` is one of the pool's memory, and in no packet and not free: it was given up
    /// by [`Packet::into_buffer`] or [`Pool::take_while`], and is taken over once. `length`
    /// is at most [`Maker::room`].
    #[inline(always)]
    pub(crate) unsafe fn packet(&self, buffer: NonNull<u8>, length: u16) -> Packet {
        Packet {
            pool: self.pool,
            buffer,
            start: self.headroom,
            length,
            checksum: PartialChecksum::NOWHERE,
            marks: ORDINARY,
        }
    }
}

/// Has the processor fetch `lines` cache lines, one at least, to be written.
#[inline(always)]
fn fetch(first: *mut u8, lines: usize) {
    nve_hint::prefetch_write_at(first);
    for line in 1..lines {
        nve_hint::prefetch_write_at(first.wrapping_add(line * nve_hint::LINE));
    }
}

const fn stride(headroom: usize, room: usize) -> usize {
    (DRIVER_SPACE + headroom + room).next_multiple_of(ALIGN)
}

/// A pool that nobody uses yet, on its way to the processor that will.
#[derive(Debug)]
pub struct IdlePool(&'static Pool);

// SAFETY: nobody else has a reference to the pool, and nobody can use it before
// `open`, so it is the processor's that has this. What it shares with other pools is
// `links`, and of them each processor uses those of buffers that it has.
unsafe impl Send for IdlePool {}

impl IdlePool {
    /// The pool, for the processor that this is called on, for ever.
    pub fn open(self) -> &'static Pool {
        self.0
    }
}

/// A packet on its way from one processor's pool to another's. It has to come in
/// somewhere: a buffer whose packet is dropped on its way is lost.
#[derive(Debug)]
#[must_use]
pub struct Loose {
    /// Where the memory begins.
    base: usize,
    /// Where its buffer begins in it, in lines.
    line: u32,
    start: u16,
    length: u16,
    checksum: PartialChecksum,
    marks: Marks,
}

impl Loose {
    /// Whether it is a large frame.
    pub fn is_large(&self) -> bool {
        self.marks[LARGE]
    }
}

/// A frame in a buffer of its own.
#[derive(Debug)]
pub struct Packet {
    pool: &'static Pool,
    /// The buffer's space.
    buffer: NonNull<u8>,
    /// Offset of the frame in the buffer's space, in bytes.
    start: u16,
    /// Bytes of the frame.
    length: u16,
    /// Is yet to be completed if it is marked as [`PARTIAL`].
    checksum: PartialChecksum,
    marks: Marks,
}

impl Packet {
    /// The buffer without the driver's space: headroom, frame and what is behind.
    #[inline]
    pub fn space_mut(&mut self) -> &mut [u8] {
        // SAFETY: the space of this buffer, which this packet alone may use, and
        // which no device owns while there is a packet outside of a driver.
        unsafe {
            core::slice::from_raw_parts_mut(self.buffer.as_ptr(), usize::from(self.pool.space))
        }
    }

    /// Bytes in front of the frame.
    #[inline]
    pub fn start(&self) -> usize {
        usize::from(self.start)
    }

    /// Bytes of the frame.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.length)
    }

    /// Whether the frame has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Has the processor fetch the cache line in front of the frame and its driver's
    /// header, to be written.
    #[inline]
    pub fn fetch_headroom(&self) {
        let header = self.first().as_ptr().cast_const();
        nve_hint::prefetch_write_at(header.wrapping_sub(HEADER_LINE + 1));
    }

    /// The frame's first byte.
    #[inline]
    pub(crate) fn first(&self) -> NonNull<u8> {
        // SAFETY: within the buffer's space by the invariant.
        unsafe { self.buffer.add(self.start()) }
    }

    /// The frame's bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: within the space by the invariant; not used by others, as for
        // `space_mut`.
        unsafe { core::slice::from_raw_parts(self.first().as_ptr(), self.len()) }
    }

    /// The frame's bytes, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, length) = (self.start(), self.len());
        self.space_mut()
            .get_mut(start..start + length)
            .unwrap_or_default()
    }

    /// Makes the frame the `length` bytes from `start` of the space. `None`, and no
    /// change, if that is not inside.
    #[inline]
    pub fn set_range(&mut self, start: usize, length: usize) -> Option<()> {
        if start.checked_add(length)? > usize::from(self.pool.space) {
            return None;
        }
        self.start = start as u16;
        self.length = length as u16;
        Some(())
    }

    /// Lengthens the frame by a copy of `parts`. `None`, and no change, if there
    /// is no room.
    pub fn append(&mut self, parts: &[&[u8]]) -> Option<()> {
        let added: usize = parts.iter().map(|part| part.len()).sum();
        let start = self.start();
        let mut at = start + self.len();
        let length = self.len().checked_add(added)?;
        if start.checked_add(length)? > usize::from(self.pool.space) {
            return None;
        }
        let space = self.space_mut();
        for part in parts {
            space.get_mut(at..at + part.len())?.copy_from_slice(part);
            at += part.len();
        }
        self.set_range(start, length)
    }

    /// The checksum that is yet to be completed.
    #[inline]
    pub fn partial(&self) -> Option<PartialChecksum> {
        self.marks[PARTIAL].then_some(self.checksum)
    }

    /// Whether it is an ordinary frame without a checksum to be completed.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.marks == ORDINARY
    }

    /// Sets or clears the checksum that is yet to be completed.
    #[inline]
    pub fn set_partial(&mut self, partial: Option<PartialChecksum>) {
        self.marks[PARTIAL] = partial.is_some();
        if let Some(checksum) = partial {
            self.checksum = checksum;
        }
    }

    /// The `N` bytes in front of the frame, for the header of a driver, and their
    /// address as a device sees it.
    #[inline]
    pub(crate) fn header_mut<const N: usize>(&mut self) -> (&mut [u8; N], u64) {
        const { assert!(N <= DRIVER_SPACE) };
        // SAFETY: in this buffer, since the driver's space has at least N bytes;
        // not used by others, as for `space_mut`.
        let (header, first) = unsafe {
            let first = self.first().sub(N);
            (&mut *first.as_ptr().cast::<[u8; N]>(), first)
        };
        (header, self.pool.device_address(first))
    }

    /// Byte `offset` of its space as a device sees it.
    pub(crate) fn device_address(&self, offset: usize) -> u64 {
        self.pool
            .device_address(self.buffer)
            .wrapping_add(offset as u64)
    }

    /// The frame's bytes, as many of them as are in the first buffer.
    #[inline]
    pub fn front(&self) -> &[u8] {
        match self.marks[LARGE] {
            false => self.bytes(),
            true => self.large_front(),
        }
    }

    /// How many buffers it has.
    #[inline]
    pub fn buffers(&self) -> usize {
        match self.marks[LARGE] {
            false => 1,
            true => self.pieces().count(),
        }
    }

    /// Takes the packet, with its buffers, out of its pool.
    #[inline]
    pub fn leave(self) -> Loose {
        let loose = Loose {
            base: self.pool.base.as_ptr() as usize,
            // A number of lines has 32 bits.
            line: (self.pool.offset_of(self.buffer) / ALIGN) as u32,
            start: self.start,
            length: self.length,
            checksum: self.checksum,
            marks: self.marks,
        };
        core::mem::forget(self);
        loose
    }

    /// Has the processor fetch the first `front` bytes of the frame, with its driver's
    /// header.
    #[inline]
    pub fn fetch(&self, front: usize) {
        let first = self.first().as_ptr();
        fetch(first.wrapping_sub(HEADER_LINE), Pool::lines(front));
    }

    /// Whether its buffer is one of `pool`.
    #[inline]
    pub(crate) fn is_of(&self, pool: &Pool) -> bool {
        core::ptr::eq(self.pool, pool)
    }

    /// Its buffer, which it still has.
    #[inline]
    pub(crate) fn buffer(&self) -> NonNull<u8> {
        self.buffer
    }

    /// Gives the packet up and keeps its buffer: whoever has the address has the buffer.
    #[inline]
    pub(crate) fn into_buffer(self) -> NonNull<u8> {
        let buffer = self.buffer;
        core::mem::forget(self);
        buffer
    }

    /// Bytes from the frame's start to the buffer's end.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        usize::from(self.pool.space - self.start)
    }
}

impl Drop for Packet {
    #[inline]
    fn drop(&mut self) {
        if self.marks[LARGE] {
            return self.drop_large();
        }
        self.pool.give_back(self.buffer);
    }
}
