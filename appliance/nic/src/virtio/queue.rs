//! A ring together with the packets that are with the device.

use alloc::vec::Vec;
use core::ptr::NonNull;

use super::header::HEADER;
use super::ring::{DESCRIPTOR, Ring, table_entry};
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
    size: u16,
    doorbell: Doorbell,
}

impl IdleQueue {
    /// A queue over a ring of `size` entries.
    pub(crate) fn new(ring: Ring, size: u16, doorbell: Doorbell) -> IdleQueue {
        IdleQueue {
            ring,
            size,
            doorbell,
        }
    }

    /// The queue, for packets of `pool`.
    pub(crate) fn attach(self, pool: &'static Pool) -> Queue {
        Queue {
            ring: self.ring,
            pool,
            slots: alloc::vec![NONE; usize::from(self.size)],
            doorbell: self.doorbell,
            large: 0,
        }
    }
}

/// In place of a buffer: none.
const NONE: u32 = u32::MAX;

/// With the number of a buffer: it is the table of a large frame, whose buffers are behind
/// it. No pool has as many buffers.
const LARGE: u32 = 1 << 31;

/// Where the table is in its buffer's space: descriptors are aligned to 16 bytes.
const TABLE: usize = DESCRIPTOR - DRIVER_SPACE % DESCRIPTOR;

/// The part of a pool's buffers that large frames may keep with a device, one in so many:
/// the others are for what else comes in and goes out.
const LARGE_SHARE: usize = 4;

/// Slots are used in turn. A device that returns buffers in another order than it got
/// them has to wait until the next slot in turn is back: then the queue is full.
///
/// Invariant: slot `n` holds the number of a buffer of `pool`, which is in no packet and
/// not free, exactly while descriptor `n` is with the device; of a large frame it holds
/// all. A queue whose ring the
/// device broke has no slots any more: the buffers in it stay with the device.
#[derive(Debug)]
pub(crate) struct Queue {
    ring: Ring,
    pool: &'static Pool,
    slots: Vec<u32>,
    doorbell: Doorbell,
    /// Buffers of large frames that are with the device.
    large: usize,
}

impl Queue {
    /// Whether the device broke the ring. Such a queue gives and takes nothing.
    #[inline]
    pub(crate) fn is_broken(&self) -> bool {
        self.slots.is_empty()
    }

    #[cold]
    fn break_off(&mut self) {
        self.slots = Vec::new();
    }

    /// How many packets it holds at most.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.slots.len()
    }

    /// How many packets are missing until it is full.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.slots.len().saturating_sub(self.outstanding())
    }

    /// How many packets are with the device.
    #[inline]
    pub(crate) fn outstanding(&self) -> usize {
        self.ring.outstanding().into()
    }

    /// Whether there is no slot for another packet.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.slots.get(self.ring.slot()) != Some(&NONE)
    }

    /// Offers the header in front of `packet` and the `length` bytes behind it, which
    /// the caller has checked that the buffer has. Hands the packet back if there is no
    /// slot, or if it is not of the queue's pool.
    #[inline]
    pub(crate) fn post(
        &mut self,
        mut packet: Packet,
        length: usize,
        writable: bool,
    ) -> Result<(), Packet> {
        debug_assert!(length <= packet.capacity());
        match self.slots.get_mut(self.ring.slot()) {
            Some(place @ &mut NONE) if packet.is_of(self.pool) => {
                let (_, address) = packet.header_mut::<HEADER>();
                *place = packet.into_index();
                // SAFETY: the buffer stays in its slot, where nobody accesses it, until
                // the device returns the slot, which was empty.
                unsafe { self.ring.post(address, (HEADER + length) as u32, writable) };
                Ok(())
            }
            _ => Err(packet),
        }
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
        if let Some(place) = self.slots.get_mut(self.ring.slot()) {
            *place = table.into_front_of(packet) | LARGE;
            self.large += count + 1;
            // SAFETY: table and buffers stay in the slot, as for `post`.
            unsafe { self.ring.post_table(address, length) };
        }
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

    /// Whether large frames are with the device.
    #[inline]
    pub(crate) fn has_large(&self) -> bool {
        self.large > 0
    }

    /// Frees the buffers of the next frame that the device returned, large or not. False,
    /// and the queue is broken, if the slot is not with the device.
    pub(crate) fn free(&mut self) -> bool {
        let used = self.ring.take();
        let slot = self.slots.get_mut(used.id as usize);
        match slot.map_or(NONE, |slot| core::mem::replace(slot, NONE)) {
            NONE => self.break_off(),
            index if index & LARGE != 0 => {
                let freed = self.pool.give_back_all(index & !LARGE);
                self.large = self.large.saturating_sub(freed);
            }
            // SAFETY: as in `take`.
            index => drop(unsafe { self.pool.packet(index) }),
        }
        !self.is_broken()
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
        let count = count.min(self.slots.len());
        // There are no more slots than 16 bits can tell apart.
        self.ring.fetch_slots(count as u16);
    }

    /// Has the processor fetch what says which of `count` packets came back.
    #[inline]
    pub(crate) fn fetch_used(&self, count: u16) {
        self.ring.fetch_used(count);
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

    /// Has the processor fetch `lines` cache lines of each of the next `count` packets
    /// that the device returned, [`Queue::pending`] at most.
    #[inline]
    pub(crate) fn prefetch(&self, count: u16, lines: usize) {
        for ahead in 0..count {
            let slot = self.slots.get(self.ring.peek(ahead).id as usize);
            if let Some(index) = slot.copied().filter(|index| *index != NONE) {
                self.pool.prefetch(index, lines);
            }
        }
    }

    /// Takes the next packet that the device returned, as it is when it is taken from its
    /// pool, with the length that the device gave. Breaks the queue, and has none, if the
    /// slot is not with the device. Not for a queue that [has](Queue::has_large) large
    /// frames.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<(Packet, u32)> {
        let used = self.ring.take();
        let slot = self.slots.get_mut(used.id as usize);
        match slot.map_or(NONE, |slot| core::mem::replace(slot, NONE)) {
            NONE => {
                self.break_off();
                None
            }
            index => {
                // SAFETY: by the invariant, and the slot does not have it any more.
                Some((unsafe { self.pool.packet(index) }, used.length))
            }
        }
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
