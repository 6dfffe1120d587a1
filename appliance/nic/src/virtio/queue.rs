//! A ring together with the packets that are with the device.

use alloc::vec::Vec;
use core::ptr::NonNull;

use super::header::HEADER;
use super::ring::Ring;
use crate::pool::Packet;

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

/// Invariant: slot `n` holds a packet exactly while descriptor `n` is with the
/// device; `free` holds all others.
#[derive(Debug)]
pub(crate) struct Queue {
    ring: Ring,
    slots: Vec<Option<Packet>>,
    free: Vec<u16>,
    doorbell: Doorbell,
    broken: bool,
}

impl Queue {
    /// A queue over a ring of `size` entries.
    pub(crate) fn new(ring: Ring, size: u16, doorbell: Doorbell) -> Queue {
        Queue {
            ring,
            slots: (0..size).map(|_| None).collect(),
            free: (0..size).rev().collect(),
            doorbell,
            broken: false,
        }
    }

    /// Whether the device broke the ring. Such a queue gives and takes nothing;
    /// the packets in it stay with the device.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether there is no slot for another packet.
    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty() || self.broken
    }

    /// Offers the header in front of `packet` and the `length` bytes behind it.
    /// The caller has checked that there is a slot and that the buffer has the
    /// bytes.
    pub(crate) fn post(&mut self, mut packet: Packet, length: usize, writable: bool) {
        debug_assert!(length <= packet.capacity());
        let (_, address) = packet.header_mut::<HEADER>();
        let Some(slot) = self.free.pop() else {
            return;
        };
        if let Some(place) = self.slots.get_mut(usize::from(slot)) {
            *place = Some(packet);
            // SAFETY: the packet, and with it the buffer, stays in its slot, where
            // nobody accesses it, until the device returns the slot.
            unsafe {
                self.ring
                    .post(slot, address, (HEADER + length) as u32, writable)
            };
        }
    }

    /// Shows the device what was posted.
    pub(crate) fn publish(&mut self) {
        if !self.broken && self.ring.publish() {
            self.doorbell.ring();
        }
    }

    /// Notifies the device, wanted or not, if it has packets.
    pub(crate) fn remind(&self) {
        if !self.broken && self.free.len() < self.slots.len() {
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

    /// Takes the next packet that the device returned, with the length that it
    /// gave. Breaks the queue, and has none, if the slot is not with the device.
    pub(crate) fn take(&mut self) -> Option<(Packet, u32)> {
        let used = self.ring.take();
        let slot = usize::try_from(used.id).ok();
        let packet = slot
            .and_then(|slot| self.slots.get_mut(slot))
            .and_then(Option::take);
        match packet {
            Some(packet) => {
                self.free.push(used.id as u16);
                Some((packet, used.length))
            }
            None => {
                self.broken = true;
                None
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
