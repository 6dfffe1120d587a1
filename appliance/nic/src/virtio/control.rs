//! The control queue, for the only command that is ever sent on it: how many pairs of
//! queues are in use (virtio 1.2, 5.1.6.5.6).

use core::sync::atomic::{AtomicU16, Ordering};

use virtio_drivers::transport::Transport;

use super::ring::{self, Descriptor, Layout, NO_INTERRUPT, WRITE};
use super::{Doorbell, Error, Wiring};
use crate::dma::{DmaMemory, DmaSource};

/// Entries: the command's descriptor and that of the answer.
const SIZE: u16 = 2;

/// The buffer goes on in another descriptor (`VIRTQ_DESC_F_NEXT`).
const NEXT: u16 = 1;

/// `VIRTIO_NET_CTRL_MQ`, and of it `VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET`.
const PAIRS_SET: [u8; 2] = [4, 0];

/// `VIRTIO_NET_OK`.
const OK: u8 = 0;

/// What is in place of an answer until there is one. No device answers this.
const UNANSWERED: u8 = 0xff;

/// Bytes of the command, and of the answer behind it.
const COMMAND: usize = 4;
const ANSWER: usize = 1;

const RING: Layout = Layout::new(SIZE);

/// Where the command is in the queue's memory.
const PLACE: usize = RING.length.next_multiple_of(16);

/// A control queue that has not been used.
#[derive(Debug)]
pub(super) struct Control {
    memory: DmaMemory,
    doorbell: Doorbell,
}

impl Control {
    /// Sets queue `number` up as the device's control queue.
    pub(super) fn new(
        transport: &mut impl Transport,
        wiring: &mut impl Wiring,
        memory: &mut impl DmaSource,
        number: u16,
    ) -> Result<Control, Error> {
        if transport.max_queue_size(number) < u32::from(SIZE) || transport.queue_used(number) {
            return Err(Error::Queue);
        }
        let length = PLACE + COMMAND + ANSWER;
        let memory = memory
            .allocate(length)
            .filter(|memory| memory.len() >= length)
            .ok_or(Error::Memory)?;
        if !wiring.bind(number, None) {
            return Err(Error::Vector);
        }
        let doorbell = wiring.doorbell(number).ok_or(Error::Doorbell)?;
        let base = memory.device();
        let [driver, device] = [RING.available, RING.used].map(|part| base + part as u64);
        transport.queue_set(number, u32::from(SIZE), base, driver, device);
        Ok(Control { memory, doorbell })
    }

    /// Has the device use `pairs` pairs. Waits for its answer as long as `wait`, which is
    /// asked again and again, says so. The device must have been started.
    pub(super) fn set_pairs(self, pairs: u16, wait: &mut dyn FnMut() -> bool) -> Result<(), Error> {
        self.write(pairs);
        // Release: the command is visible before the index that covers it.
        self.word(RING.available, 1).store(1, Ordering::Release);
        ring::barrier();
        self.doorbell.ring();
        // Acquire: the answer is read after the index that covers it.
        while self.word(RING.used, 1).load(Ordering::Acquire) == 0 {
            if !wait() {
                return Err(Error::Silent);
            }
            core::hint::spin_loop();
        }
        match self.answer() {
            OK => Ok(()),
            _ => Err(Error::Refused),
        }
    }

    /// Writes the command and descriptors of it and of the answer. The available ring's
    /// only entry is 0, as it is in fresh memory.
    fn write(&self, pairs: u16) {
        let place = self.memory.device() + PLACE as u64;
        let descriptor = |address, length: usize, flags, next| Descriptor {
            address,
            length: length as u32,
            flags,
            next,
        };
        let [class, command] = PAIRS_SET;
        let [low, high] = pairs.to_le_bytes();
        let base = self.memory.base();
        // SAFETY: `new` saw that the memory has room for both descriptors, command and
        // answer, all aligned; the device does not look before the index is written.
        unsafe {
            let table = base.cast::<Descriptor>();
            table.write_volatile(descriptor(place, COMMAND, NEXT, 1));
            let answer = descriptor(place + COMMAND as u64, ANSWER, WRITE, 0);
            table.add(1).write_volatile(answer);
            let text = [class, command, low, high, UNANSWERED];
            base.add(PLACE).cast().write_volatile(text);
        }
        self.word(RING.available, 0)
            .store(NO_INTERRUPT, Ordering::Relaxed);
    }

    fn answer(&self) -> u8 {
        // SAFETY: in the memory, as `new` saw.
        unsafe { self.memory.base().add(PLACE + COMMAND).read_volatile() }
    }

    /// Word `at` of a part of the ring: flags, or index.
    fn word(&self, part: usize, at: usize) -> &AtomicU16 {
        // SAFETY: the first two words of both parts are within the ring, aligned, and
        // only accessed atomically.
        unsafe {
            let first = self.memory.base().add(part).cast::<AtomicU16>();
            first.add(at).as_ref()
        }
    }
}
