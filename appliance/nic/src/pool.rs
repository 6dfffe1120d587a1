//! Packet buffers, all made at start.
//!
//! A buffer is `[driver's space | headroom | room]`. The driver's space is for
//! its header and belongs to nobody else, so that a frame whose user took all of
//! the headroom can still be sent. Dropping a [`Packet`] gives its buffer back.
//!
//! Where several processors share an NVE, each has a pool, all over the same memory: a
//! packet leaves one as a [`Loose`] one and comes into another, and none is locked.
//!
//! Invariants: each index below the count of the memory's buffers is either in one free
//! list or in exactly one [`Packet`] or [`Loose`], of which a large one has several;
//! `start + length <= space`.

pub mod large;

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

/// Buffers of one size. Made once, lives as long as the machine, and is used by
/// one processor (it is not `Sync`).
#[derive(Debug)]
pub struct Pool {
    /// The first byte of the memory, and its address as a device sees it.
    base: NonNull<u8>,
    device: u64,
    stride: usize,
    headroom: u16,
    space: u16,
    free: UnsafeCell<Vec<u32>>,
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
        let total = u32::try_from(memory.len() / stride).ok()?;
        let each = total / u32::try_from(processors).ok()?.max(1);
        if each == 0 {
            return None;
        }
        let links: &'static [Cell<Link>] =
            Box::leak((0..total).map(|_| Cell::new(Link::ALONE)).collect());
        let pool = |number: usize| {
            let first = number as u32 * each;
            // All of the memory's buffers may come together in one.
            let mut free = Vec::with_capacity(total as usize);
            // Low addresses are taken first.
            free.extend((first..first + each).rev());
            IdlePool(Box::leak(Box::new(Pool {
                base: memory.base(),
                device: memory.device(),
                stride,
                headroom,
                space,
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
        let index = unsafe { &mut *self.free.get() }.pop()?;
        // SAFETY: what is free no more is in nothing else.
        Some(unsafe { self.packet(index) })
    }

    /// Takes in a packet that left another pool; hands it back if that is not over the
    /// same memory.
    #[inline]
    pub fn adopt(&'static self, loose: Loose) -> Result<Packet, Loose> {
        if loose.base != self.base.as_ptr() as usize {
            return Err(loose);
        }
        let Loose {
            index,
            start,
            length,
            partial,
            is_large,
            ..
        } = loose;
        Ok(Packet {
            pool: self,
            index,
            start,
            length,
            partial,
            is_large,
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
    fn give_back(&self, index: u32) {
        // The list was made with a place for every buffer, so this allocates
        // nothing.
        // SAFETY: as for `take`.
        unsafe { &mut *self.free.get() }.push(index);
    }

    /// Has the processor fetch `lines` cache lines of a frame in buffer `index`, behind
    /// its headroom, the first with the driver's header. They will be written: where a
    /// frame goes, something in its headers is changed.
    #[inline]
    pub(crate) fn prefetch(&self, index: u32, lines: usize) {
        let offset = usize::from(self.headroom) + DRIVER_SPACE - HEADER_LINE;
        let first = self.base.as_ptr().cast_const();
        let first = first.wrapping_add((index as usize).wrapping_mul(self.stride) + offset);
        for line in 0..lines {
            nve_hint::prefetch_write_at(first.wrapping_add(line * nve_hint::LINE));
        }
    }

    /// Cache lines with the driver's header and the first `front` bytes of a frame.
    pub(crate) fn lines(front: usize) -> usize {
        (HEADER_LINE + front).div_ceil(nve_hint::LINE)
    }

    /// The packet in buffer `index`, as [`Pool::take`] gives it.
    ///
    /// # Safety
    /// The buffer is in no packet and not free: it was given up by
    /// [`Packet::into_index`], and is taken over once.
    #[inline]
    pub(crate) unsafe fn packet(&'static self, index: u32) -> Packet {
        Packet {
            pool: self,
            index,
            start: self.headroom,
            length: 0,
            partial: None,
            is_large: false,
        }
    }

    /// How many buffers it had to begin with.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Byte `offset` of buffer `index` as a device sees it.
    #[inline]
    fn device_address(&self, index: u32, offset: usize) -> u64 {
        self.device + (index as usize * self.stride + offset) as u64
    }

    /// Byte `offset` of buffer `index`.
    fn address(&self, index: u32, offset: usize) -> NonNull<u8> {
        debug_assert!(offset <= self.stride);
        // SAFETY: `index` is below the count and `offset` at most the stride, so
        // this is within the memory or just behind it.
        unsafe { self.base.add(index as usize * self.stride + offset) }
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
    index: u32,
    start: u16,
    length: u16,
    partial: Option<PartialChecksum>,
    is_large: bool,
}

impl Loose {
    /// Whether it is a large frame.
    pub fn is_large(&self) -> bool {
        self.is_large
    }
}

/// A frame in a buffer of its own.
#[derive(Debug)]
pub struct Packet {
    pool: &'static Pool,
    index: u32,
    /// Offset of the frame in the buffer's space, in bytes.
    start: u16,
    /// Bytes of the frame.
    length: u16,
    partial: Option<PartialChecksum>,
    is_large: bool,
}

impl Packet {
    /// The buffer without the driver's space: headroom, frame and what is behind.
    #[inline]
    pub fn space_mut(&mut self) -> &mut [u8] {
        let base = self.pool.address(self.index, DRIVER_SPACE);
        // SAFETY: the space of this buffer, which this packet alone may use, and
        // which no device owns while there is a packet outside of a driver.
        unsafe { core::slice::from_raw_parts_mut(base.as_ptr(), usize::from(self.pool.space)) }
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
        let offset = (DRIVER_SPACE + self.start()).saturating_sub(HEADER_LINE + 1);
        nve_hint::prefetch_write_at(self.pool.address(self.index, offset).as_ptr());
    }

    /// The frame's bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let first = self.pool.address(self.index, DRIVER_SPACE + self.start());
        // SAFETY: within the space by the invariant; not used by others, as for
        // `space_mut`.
        unsafe { core::slice::from_raw_parts(first.as_ptr(), self.len()) }
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
        self.partial
    }

    /// Sets or clears the checksum that is yet to be completed.
    #[inline]
    pub fn set_partial(&mut self, partial: Option<PartialChecksum>) {
        self.partial = partial;
    }

    /// The `N` bytes in front of the frame, for the header of a driver, and their
    /// address as a device sees it.
    #[inline]
    pub(crate) fn header_mut<const N: usize>(&mut self) -> (&mut [u8; N], u64) {
        const { assert!(N <= DRIVER_SPACE) };
        let offset = DRIVER_SPACE + self.start() - N;
        let first = self.pool.address(self.index, offset);
        let device = self.pool.device_address(self.index, offset);
        // SAFETY: in this buffer, since the driver's space has at least N bytes;
        // not used by others, as for `space_mut`.
        (unsafe { &mut *first.as_ptr().cast::<[u8; N]>() }, device)
    }

    /// Byte `offset` of its space as a device sees it.
    pub(crate) fn device_address(&self, offset: usize) -> u64 {
        self.pool.device_address(self.index, DRIVER_SPACE + offset)
    }

    /// The frame's bytes, as many of them as are in the first buffer.
    #[inline]
    pub fn front(&self) -> &[u8] {
        match self.is_large {
            false => self.bytes(),
            true => self.large_front(),
        }
    }

    /// How many buffers it has.
    #[inline]
    pub fn buffers(&self) -> usize {
        match self.is_large {
            false => 1,
            true => self.pieces().count(),
        }
    }

    /// Takes the packet, with its buffers, out of its pool.
    #[inline]
    pub fn leave(self) -> Loose {
        let (start, length, partial) = (self.start, self.length, self.partial);
        let is_large = self.is_large;
        Loose {
            base: self.pool.base.as_ptr() as usize,
            index: self.into_index(),
            start,
            length,
            partial,
            is_large,
        }
    }

    /// Has the processor fetch the first `front` bytes of the frame, with its driver's
    /// header.
    #[inline]
    pub fn fetch(&self, front: usize) {
        let offset = DRIVER_SPACE + self.start() - HEADER_LINE;
        let first = self.pool.address(self.index, offset).as_ptr();
        for line in 0..Pool::lines(front) {
            nve_hint::prefetch_write_at(first.wrapping_add(line * nve_hint::LINE));
        }
    }

    /// Whether its buffer is one of `pool`.
    #[inline]
    pub(crate) fn is_of(&self, pool: &Pool) -> bool {
        core::ptr::eq(self.pool, pool)
    }

    /// Gives the packet up and keeps its buffer: whoever has the number has the buffer.
    #[inline]
    pub(crate) fn into_index(self) -> u32 {
        let index = self.index;
        core::mem::forget(self);
        index
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
        if self.is_large {
            return self.drop_large();
        }
        self.pool.give_back(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::fake::leak_memory;

    fn pool(count: usize) -> &'static Pool {
        Pool::new(leak_memory(Pool::bytes(count, 128, 2000)), 128, 2000).unwrap()
    }

    #[test]
    fn each_buffer_is_handed_out_once_and_comes_back() {
        let pool = pool(8);
        let mut packets: Vec<Packet> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(packets.len(), 8);
        for (i, packet) in packets.iter_mut().enumerate() {
            packet.space_mut().fill(i as u8);
            let (header, _) = packet.header_mut::<12>();
            header.fill(i as u8);
        }
        for (i, packet) in packets.iter_mut().enumerate() {
            assert!(packet.space_mut().iter().all(|byte| *byte == i as u8));
            assert_eq!(packet.header_mut::<12>().1 % ALIGN as u64, 0);
        }
        packets.truncate(3);
        assert_eq!(pool.available(), 5);
        drop(packets);
        assert_eq!(pool.available(), 8);
    }

    #[test]
    fn a_fresh_packet_has_its_headroom_and_room() {
        let packet = pool(1).take().unwrap();
        assert_eq!((packet.start(), packet.len()), (128, 0));
        assert!(packet.capacity() >= 2000);
        assert_eq!(packet.partial(), None);
    }

    #[test]
    fn a_range_outside_of_the_buffer_is_refused() {
        let mut packet = pool(1).take().unwrap();
        let space = packet.space_mut().len();
        assert_eq!(packet.set_range(0, space), Some(()));
        assert_eq!(packet.len(), space);
        for (start, length) in [(0, space + 1), (space, 1), (usize::MAX, 2), (2, usize::MAX)] {
            assert_eq!(packet.set_range(start, length), None);
        }
        assert_eq!(packet.len(), space);
    }

    #[test]
    fn appending_keeps_order_and_stops_at_the_end() {
        let mut packet = pool(1).take().unwrap();
        packet.append(&[b"ab", b"", b"cde"]).unwrap();
        assert_eq!(packet.bytes(), b"abcde");
        let rest = packet.capacity() - 5;
        assert_eq!(packet.append(&[&vec![0; rest], b"x"]), None);
        assert_eq!(packet.bytes_mut(), b"abcde");
        packet.append(&[&vec![0; rest]]).unwrap();
        assert_eq!(packet.capacity(), packet.len());
    }

    #[test]
    fn a_packet_moves_to_another_pool_of_the_same_memory() {
        let memory = || leak_memory(Pool::bytes(8, 128, 2000));
        let pools = Pool::several(memory(), 128, 2000, 3).unwrap();
        let pools: Vec<&Pool> = pools.into_iter().map(IdlePool::open).collect();
        let available = |pools: &[&Pool]| pools.iter().map(|it| it.available()).collect::<Vec<_>>();
        assert_eq!(available(&pools), [2, 2, 2]);
        let mut packets: Vec<Packet> = std::iter::from_fn(|| pools[0].take()).collect();
        packets[1].append(&[b"abc"]).unwrap();
        let moved: Vec<Packet> = packets
            .into_iter()
            .map(|packet| pools[2].adopt(packet.leave()).unwrap())
            .collect();
        assert_eq!(moved[1].bytes(), b"abc");
        assert_eq!(available(&pools), [0, 2, 2]);
        drop(moved);
        assert_eq!(available(&pools), [0, 2, 4]);
        let other = Pool::new(memory(), 128, 2000).unwrap();
        let packet = pools[1].take().unwrap();
        let refused = other.adopt(packet.leave()).unwrap_err();
        drop(pools[1].adopt(refused).unwrap());
        assert_eq!(available(&pools), [0, 2, 4]);
        assert!(Pool::several(memory(), 128, 2000, 9).is_none());
    }

    #[test]
    fn the_header_of_a_frame_at_the_very_front_is_in_the_buffer() {
        let mut packet = pool(1).take().unwrap();
        packet.set_range(0, 60).unwrap();
        packet.bytes_mut().fill(7);
        let (header, _) = packet.header_mut::<12>();
        header.fill(9);
        assert_eq!(packet.bytes(), [7; 60]);
    }
}
