//! A ring together with the packets that are with the device.

use alloc::boxed::Box;
use core::ptr::NonNull;

use super::header::{self, HEADER};
use super::ring::{DESCRIPTOR, MAX_SIZE, Ring, table_entry};
use crate::Drain;
use crate::pool::{DRIVER_SPACE, Packet, Pool};

/// The register by which a device is told of new buffers in one queue.
#[derive(Debug, Clone, Copy)]
pub struct Doorbell {
    register: NonNull<u16>,
    queue: u16,
}

impl Doorbell {
    /// The doorbell of `queue`.
    ///
    /// # Safety
    /// `register` can be written for ever, by any processor, and writing the queue's
    /// number to it does nothing but notify the device.
    pub unsafe fn new(register: NonNull<u16>, queue: u16) -> Self {
        Doorbell { register, queue }
    }

    pub(super) fn ring(&self) {
        // SAFETY: the promise of `new`.
        unsafe { self.register.write_volatile(self.queue) };
    }
}

// SAFETY: all that is done with the register is to write it, which any processor may,
// by the promise of `new`.
unsafe impl Send for Doorbell {}

/// A queue that has been set up and has no packets yet, for the processor that will.
#[derive(Debug)]
pub(crate) struct IdleQueue {
    ring: Ring,
    doorbell: Doorbell,
}

impl IdleQueue {
    /// A queue over a ring.
    pub(crate) fn new(ring: Ring, doorbell: Doorbell) -> IdleQueue {
        IdleQueue { ring, doorbell }
    }

    /// The queue, for packets of `pool`.
    pub(crate) fn attach(self, pool: &'static Pool) -> Queue {
        Queue {
            ring: self.ring,
            pool,
            slots: Box::new([None; MAX_SIZE]),
            is_broken: false,
            doorbell: self.doorbell,
            large: 0,
        }
    }
}

/// With the address of a buffer's space: it is the table of a large frame, whose buffers
/// are behind it. No space is at an odd address.
const LARGE: usize = 1;

/// Where the table is in its buffer's space: descriptors are aligned to 16 bytes.
const TABLE: usize = DESCRIPTOR - DRIVER_SPACE % DESCRIPTOR;

/// The part of a pool's buffers that large frames may keep with a device, one in so many:
/// the others are for what else comes in and goes out.
const LARGE_SHARE: usize = 4;

/// A buffer that the device has returned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Returned {
    /// Its space. Whoever has this has the buffer, and passes it on once.
    pub(crate) buffer: NonNull<u8>,
    /// How many bytes the device says that it wrote, header and all. Not checked.
    pub(crate) length: u32,
}

impl Returned {
    /// In place of one: none.
    pub(crate) const NONE: Returned = Returned {
        buffer: NonNull::dangling(),
        length: 0,
    };
}

/// Slots are used in turn. A device that returns buffers in another order than it got
/// them has to wait until the next slot in turn is back: then the queue is full.
///
/// Invariant: slot `n` has the space of a buffer of `pool`, which is in no packet and
/// not free, exactly while descriptor `n` is with the device; of a large frame it has
/// all. The buffers in a queue whose ring the device broke stay with the device.
#[derive(Debug)]
pub(crate) struct Queue {
    ring: Ring,
    pool: &'static Pool,
    /// Of as many as a ring may have, so that no slot has to be looked for.
    slots: Box<[Option<NonNull<u8>>; MAX_SIZE]>,
    is_broken: bool,
    doorbell: Doorbell,
    /// Buffers of large frames that are with the device.
    large: usize,
}

impl Queue {
    /// Whether the device broke the ring. Such a queue gives and takes nothing.
    #[inline]
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    #[cold]
    fn break_off(&mut self) {
        self.is_broken = true;
    }

    /// How many packets it holds at most.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        match self.is_broken {
            false => self.ring.size(),
            true => 0,
        }
    }

    /// How many packets are missing until it is full.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.size().saturating_sub(self.outstanding())
    }

    /// How many packets are with the device.
    #[inline]
    pub(crate) fn outstanding(&self) -> usize {
        self.ring.outstanding().into()
    }

    /// Whether there is no slot for another packet.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.is_broken || self.slots[self.ring.slot()].is_some()
    }

    /// Offers the first of `frames`, to be read by the device, as long as they are ordinary
    /// ones without a checksum to be completed, of the queue's pool, and have slots. Returns
    /// how many these were and how many bytes they have.
    #[inline(always)]
    pub(crate) fn post_plain(&mut self, frames: &mut Drain<'_>) -> (u16, usize) {
        if self.is_broken {
            return (0, 0);
        }
        let (pool, slots, mut bytes) = (self.pool, &mut *self.slots, 0);
        let to_header = pool.to_header::<HEADER>();
        let mut posting = self.ring.posting();
        for frame in frames.as_mut_slice() {
            let place = &mut slots[posting.slot()];
            if place.is_some() || !frame.is_plain() || !frame.is_of(pool) {
                break;
            }
            let (buffer, length) = (frame.buffer(), frame.len());
            let address = (frame.first().as_ptr() as u64).wrapping_add(to_header);
            *frame.header_mut::<HEADER>().0 = header::PLAIN;
            *place = Some(buffer);
            // SAFETY: the buffer stays in its slot, where nobody accesses it, until
            // the device returns the slot, which was empty.
            unsafe { posting.post(address, (HEADER + length) as u32, false) };
            bytes += length;
        }
        // SAFETY: their buffers are in slots.
        unsafe { frames.forget(posting.count().into()) };
        (posting.count(), bytes)
    }

    /// Offers the frame with the header in front of it, to be read by the device. Hands
    /// the packet back if there is no slot, or if it is not of the queue's pool.
    pub(crate) fn post(&mut self, mut packet: Packet) -> Result<(), Packet> {
        if self.is_full() || !packet.is_of(self.pool) {
            return Err(packet);
        }
        let length = HEADER + packet.len();
        let (_, address) = packet.header_mut::<HEADER>();
        let mut posting = self.ring.posting();
        self.slots[posting.slot()] = Some(packet.into_buffer());
        // SAFETY: as for `post_plain`.
        unsafe { posting.post(address, length as u32, false) };
        Ok(())
    }

    /// Offers as many free buffers of the pool as there are slots, to be written by the
    /// device behind their headroom.
    pub(crate) fn fill(&mut self) {
        if self.is_broken {
            return;
        }
        let (pool, slots) = (self.pool, &mut *self.slots);
        let length = (HEADER + pool.room()) as u32;
        let to_header = pool
            .to_header::<HEADER>()
            .wrapping_add(pool.headroom() as u64);
        let mut posting = self.ring.posting();
        pool.take_while(|buffer| {
            let place = &mut slots[posting.slot()];
            if place.is_some() {
                return false;
            }
            *place = Some(buffer);
            let address = (buffer.as_ptr() as u64).wrapping_add(to_header);
            // SAFETY: the buffer stays in its slot, as for `post_plain`.
            unsafe { posting.post(address, length, true) };
            true
        });
    }

    /// Offers a large frame, whose header is in front of it, by a table in a buffer of its
    /// own. Hands the frame back if there is no slot or no buffer, if large frames have
    /// their share of buffers, or if it has more of them than the device can take.
    pub(crate) fn post_large(&mut self, packet: Packet) -> Result<(), Packet> {
        let count = packet.pieces().count();
        let is_too_much = self.large + count >= self.pool.count() / LARGE_SHARE;
        if self.is_full() || is_too_much || count > self.size() || !packet.is_of(self.pool) {
            return Err(packet);
        }
        let Some((table, length)) = self.write_table(&packet, count) else {
            return Err(packet);
        };
        let address = table.device_address(TABLE);
        let buffer = table.into_front_of(packet);
        let mut posting = self.ring.posting();
        let place = &mut self.slots[posting.slot()];
        *place = Some(buffer.map_addr(|address| address | LARGE));
        self.large += count + 1;
        // SAFETY: table and buffers stay in the slot, as for `post_plain`.
        unsafe { posting.post_table(address, length) };
        Ok(())
    }

    /// A table of the `count` buffers of a large frame, and its length in bytes.
    fn write_table(&self, packet: &Packet, count: usize) -> Option<(Packet, u32)> {
        let count = u16::try_from(count).ok()?;
        let mut table = self.pool.take()?;
        let places = table.space_mut().get_mut(TABLE..)?;
        let (places, _) = places.as_chunks_mut::<DESCRIPTOR>();
        let places = places.get_mut(..usize::from(count))?;
        for ((number, place), piece) in (0..).zip(places).zip(packet.pieces()) {
            // The header is in front of the first.
            let header = if number == 0 { HEADER } else { 0 };
            let address = piece.device - header as u64;
            *place = table_entry(number, count, address, (header + piece.length) as u32);
        }
        Some((table, u32::from(count) * DESCRIPTOR as u32))
    }

    /// Frees the buffers of all frames that the device has returned.
    pub(crate) fn reclaim(&mut self) {
        let pending = self.pending();
        self.ring.fetch_used(pending);
        if self.large > 0 {
            return self.reclaim_large(pending);
        }
        let slots = &mut *self.slots;
        let mut taking = self.ring.taking();
        let next = || {
            let buffer = take(slots, taking.peek_id())?;
            taking.advance();
            Some(buffer)
        };
        // SAFETY: by the invariant, and the slot does not have it any more.
        let is_whole = unsafe { self.pool.give_back_while(pending.into(), next) };
        drop(taking);
        if !is_whole {
            self.break_off();
        }
    }

    /// The same, with large frames among them.
    #[cold]
    fn reclaim_large(&mut self, pending: u16) {
        for _ in 0..pending {
            let mut taking = self.ring.taking();
            let Some(buffer) = take(&mut self.slots, taking.peek_id()) else {
                drop(taking);
                return self.break_off();
            };
            taking.advance();
            if buffer.addr().get() & LARGE == 0 {
                // SAFETY: as in `reclaim`.
                drop(unsafe { self.pool.packet(buffer) });
                continue;
            }
            // SAFETY: the space begins there, as `post_large` added this.
            let table = unsafe { buffer.sub(LARGE) };
            let freed = self.pool.give_back_all(table);
            self.large = self.large.saturating_sub(freed);
        }
    }

    /// Spaces of the buffers in its slots, those of large frames included.
    #[cfg(test)]
    pub(super) fn spaces(&self) -> alloc::vec::Vec<NonNull<u8>> {
        let slots = self.slots.iter().flatten();
        let spaces = |buffer: &NonNull<u8>| {
            let address = buffer.as_ptr();
            match buffer.addr().get() & LARGE {
                0 => alloc::vec![*buffer],
                _ => (self.pool).spaces_from(NonNull::new(address.wrapping_sub(LARGE)).unwrap()),
            }
        };
        slots.flat_map(spaces).collect()
    }

    /// Shows the device what was posted.
    #[inline]
    pub(crate) fn publish(&mut self) {
        if !self.is_broken() {
            self.ring.publish();
        }
    }

    /// Whether the device has not been asked yet if it wants to be notified.
    #[inline]
    pub(crate) fn is_unheard(&self) -> bool {
        !self.is_broken() && self.ring.is_unheard()
    }

    /// Notifies the device of what it was shown if it wants to be. There has to have
    /// been a [`barrier`](super::ring::barrier) since [`Queue::publish`].
    #[inline]
    pub(crate) fn notify(&mut self) {
        if self.is_unheard() && self.ring.wants_notification() {
            self.doorbell.ring();
        }
    }

    /// Has the processor fetch the `count` descriptors that are written next.
    #[inline]
    pub(crate) fn fetch_slots(&mut self, count: usize) {
        let count = count.min(self.size());
        // There are no more slots than 16 bits can tell apart.
        self.ring.fetch_slots(count as u16);
    }

    /// Notifies the device, wanted or not, if it has packets.
    pub(crate) fn remind(&self) {
        if !self.is_broken() && self.outstanding() > 0 {
            self.doorbell.ring();
        }
    }

    /// How many packets [`Queue::take`] can take. Breaks the queue if the device's
    /// index is bad.
    pub(crate) fn pending(&mut self) -> u16 {
        if self.is_broken() {
            return 0;
        }
        self.ring.pending().unwrap_or_else(|_| {
            self.break_off();
            0
        })
    }

    /// Takes the next packets that the device returned, as many as there are places,
    /// [`Queue::pending`] at most, and has the processor fetch `lines` cache lines of each.
    /// Returns how many they were; if there were less, the queue is broken, as a slot was
    /// not with the device. Not for a queue of which large frames are sent.
    #[inline]
    pub(crate) fn take(&mut self, places: &mut [Returned], lines: usize) -> usize {
        let slots = &mut *self.slots;
        let prefetch = self.pool.prefetcher(lines);
        let most = places.len();
        let mut taking = self.ring.taking();
        for place in places {
            let used = taking.peek();
            let Some(buffer) = take(slots, used.id) else {
                break;
            };
            prefetch(buffer);
            *place = Returned {
                buffer,
                length: used.length,
            };
            taking.advance();
        }
        let count = taking.count().into();
        drop(taking);
        if count < most {
            self.break_off();
        }
        count
    }

    /// Takes the next packet that the device returned; there has to be one. `None`, and the
    /// queue is broken, if the slot is not with the device.
    pub(crate) fn take_one(&mut self) -> Option<Returned> {
        let mut place = [Returned::NONE];
        let is_taken = !self.is_broken && self.take(&mut place, 1) == 1;
        let [returned] = place;
        is_taken.then_some(returned)
    }

    /// See [`Ring::arm`]; a broken queue has nothing to wait for.
    pub(crate) fn arm(&mut self) -> bool {
        !self.is_broken() && self.ring.arm()
    }

    /// See [`Ring::disarm`].
    pub(crate) fn disarm(&mut self) {
        self.ring.disarm();
    }
}

/// Empties the slot that the device says it used; `None` if that is not with the device.
#[inline(always)]
fn take(slots: &mut [Option<NonNull<u8>>; MAX_SIZE], slot: u32) -> Option<NonNull<u8>> {
    slots.get_mut(slot as usize)?.take()
}
