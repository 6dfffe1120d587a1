//! A ring together with the packets that are with the device.

use alloc::vec::Vec;
use core::ptr::NonNull;

use super::header::HEADER;
use super::ring::Ring;
use crate::pool::{Packet, Pool};

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
    /// `register` can be written for ever, and writing the queue's number to it
    /// does nothing but notify the device.
    pub unsafe fn new(register: NonNull<u16>, queue: u16) -> Self {
        Doorbell { register, queue }
    }

    fn ring(&self) {
        // SAFETY: the promise of `new`.
        unsafe { self.register.write_volatile(self.queue) };
    }
}

/// In place of a buffer: none.
const NONE: u32 = u32::MAX;

/// Slots are used in turn. A device that returns buffers in another order than it got
/// them has to wait until the next slot in turn is back: then the queue is full.
///
/// Invariant: slot `n` holds the number of a buffer of `pool`, which is in no packet and
/// not free, exactly while descriptor `n` is with the device.
#[derive(Debug)]
pub(crate) struct Queue {
    ring: Ring,
    pool: &'static Pool,
    slots: Vec<u32>,
    /// How many packets are with the device.
    outstanding: usize,
    doorbell: Doorbell,
    broken: bool,
}

impl Queue {
    /// A queue over a ring of `size` entries, for packets of `pool`.
    pub(crate) fn new(ring: Ring, size: u16, doorbell: Doorbell, pool: &'static Pool) -> Queue {
        Queue {
            ring,
            pool,
            slots: alloc::vec![NONE; usize::from(size)],
            outstanding: 0,
            doorbell,
            broken: false,
        }
    }

    /// Whether the device broke the ring. Such a queue gives and takes nothing;
    /// the packets in it stay with the device.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// How many packets it holds at most.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.slots.len()
    }

    /// How many packets are missing until it is full.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        match self.broken {
            true => 0,
            false => self.slots.len() - self.outstanding,
        }
    }

    /// Whether there is no slot for another packet.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        let next = self.slots.get(self.ring.slot());
        self.broken || next != Some(&NONE)
    }

    /// Offers the header in front of `packet` and the `length` bytes behind it.
    /// The caller has checked that there is a slot and that the buffer has the
    /// bytes, and that the packet is of the queue's pool: one of another is dropped.
    #[inline]
    pub(crate) fn post(&mut self, mut packet: Packet, length: usize, writable: bool) {
        debug_assert!(length <= packet.capacity());
        if !packet.is_of(self.pool) {
            return;
        }
        let (_, address) = packet.header_mut::<HEADER>();
        if let Some(place @ &mut NONE) = self.slots.get_mut(self.ring.slot()) {
            *place = packet.into_index();
            self.outstanding += 1;
            // SAFETY: the buffer stays in its slot, where nobody accesses it, until the
            // device returns the slot, which was empty.
            unsafe { self.ring.post(address, (HEADER + length) as u32, writable) };
        }
    }

    /// Shows the device what was posted.
    #[inline]
    pub(crate) fn publish(&mut self) {
        if !self.broken {
            self.ring.publish();
        }
    }

    /// Whether the device has not been asked yet if it wants to be notified.
    #[inline]
    pub(crate) fn is_unheard(&self) -> bool {
        !self.broken && self.ring.is_unheard()
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

    /// How many packets are with the device.
    #[inline]
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Notifies the device, wanted or not, if it has packets.
    pub(crate) fn remind(&self) {
        if !self.broken && self.outstanding > 0 {
            self.doorbell.ring();
        }
    }

    /// How many packets [`Queue::take`] can take. Breaks the queue if the device's
    /// index is bad.
    pub(crate) fn pending(&mut self) -> u16 {
        if self.broken {
            return 0;
        }
        self.ring.pending().unwrap_or_else(|_| {
            self.broken = true;
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
    /// slot is not with the device.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<(Packet, u32)> {
        let used = self.ring.take();
        let slot = self.slots.get_mut(used.id as usize);
        match slot.map_or(NONE, |slot| core::mem::replace(slot, NONE)) {
            NONE => {
                self.broken = true;
                None
            }
            index => {
                self.outstanding -= 1;
                // SAFETY: by the invariant, and the slot does not have it any more.
                Some((unsafe { self.pool.packet(index) }, used.length))
            }
        }
    }

    /// See [`Ring::arm`]; a broken queue has nothing to wait for.
    pub(crate) fn arm(&mut self) -> bool {
        !self.broken && self.ring.arm()
    }

    /// See [`Ring::disarm`].
    pub(crate) fn disarm(&mut self) {
        self.ring.disarm();
    }
}
