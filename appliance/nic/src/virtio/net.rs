//! The driver proper.

mod large;
mod receive;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use virtio_drivers::transport::Transport;

use super::header::{self, HEADER};
use super::pairs::{self, Pair};
use super::queue::{IdleQueue, Queue};
use super::ring::{self, Layout, MAX_SIZE, Ring};
use super::{Error, Features, Wiring};
use crate::dma::DmaSource;
use crate::pool::{Packet, Pool};
use crate::{Burst, Drain, Nic, Statistics};
use receive::Found;

/// Most entries of a queue. Enough for several bursts; more only costs cache.
const MAX_QUEUE: u32 = MAX_SIZE as u32;

/// Buffers that the device is given at once: telling it takes as long as several.
pub(super) const REFILL: usize = 32;

/// Buffers that are taken back from the device at once, for the same reason.
pub(super) const RECLAIM: usize = 64;

/// Looks at a queue without room for what the device takes meanwhile: some ten
/// microseconds, in which a device that is at work takes dozens of frames.
const PATIENCE: usize = 1000;

/// Shortest frame: an Ethernet header.
const MIN_FRAME: usize = 14;

/// Attempts to read a consistent configuration.
const CONFIG_RETRIES: usize = 16;

/// Offsets in the configuration space (virtio 1.2, 5.1.4), in bytes.
const CONFIG_MAC: usize = 0;
const CONFIG_STATUS: usize = 6;
const CONFIG_MTU: usize = 10;

const LINK_UP: u16 = 1;

/// Features that the driver knows, but for those of several pairs.
pub(super) const FEATURES: Features = Features::CSUM
    .union(Features::GUEST_CSUM)
    .union(Features::MTU)
    .union(Features::MAC)
    .union(Features::MRG_RXBUF)
    .union(Features::STATUS)
    .union(Features::EVENT_IDX)
    .union(Features::VERSION_1)
    .union(Features::ACCESS_PLATFORM);

/// A virtio network device, as far as it is one processor's: a pair of queues.
#[derive(Debug)]
pub struct VirtioNet<T: Transport> {
    /// Of the first pair only.
    transport: Option<T>,
    /// Whether the link is up, as the first pair's user saw it last.
    link: Arc<AtomicBool>,
    pool: &'static Pool,
    features: Features,
    mac: [u8; 6],
    mtu: Option<u16>,
    receive: Queue,
    transmit: Queue,
    /// Buffers that the device has filled, as of the last [`Nic::fetch`].
    found: Found,
    /// From how many sent buffers on these are taken back.
    reclaim_at: usize,
    /// From how many missing buffers on the device is given others.
    refill_at: usize,
    /// A large frame, until it is handed over in a burst of its own.
    held: Option<Packet>,
    statistics: Statistics,
}

impl<T: Transport> VirtioNet<T> {
    /// Starts the device with one pair of queues: it gets buffers of `pool` to receive
    /// into, rings in memory of `memory`, and interrupts by entry `vector` of its table. It
    /// hands over and takes large frames if they are `large_wanted` and it can.
    pub fn new(
        transport: T,
        wiring: &mut impl Wiring,
        memory: &mut impl DmaSource,
        pool: &'static Pool,
        vector: Option<u16>,
        large_wanted: bool,
    ) -> Result<Self, Error> {
        // With one pair, nothing has to be waited for.
        let (vectors, wait) = ([vector], &mut || false);
        let started = pairs::start(transport, wiring, memory, &vectors, large_wanted, wait)?;
        let mut pairs = started.pairs.into_iter();
        Ok(pairs.next().ok_or(Error::Queue)?.attach(pool))
    }

    /// See [`Pair::attach`].
    pub(super) fn attach(pair: Pair<T>, pool: &'static Pool) -> Self {
        let (receive, transmit) = (pair.receive.attach(pool), pair.transmit.attach(pool));
        let mut nic = VirtioNet {
            transport: pair.transport,
            link: pair.link,
            pool,
            features: pair.features,
            mac: pair.mac,
            mtu: pair.mtu,
            found: Found::new(),
            reclaim_at: RECLAIM.min(transmit.size() / 2),
            refill_at: REFILL.min(receive.size() / 2),
            receive,
            transmit,
            held: None,
            statistics: Statistics::default(),
        };
        nic.refill();
        nic.notify();
        nic
    }

    /// Features in use.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Gives the device every free buffer that the receive queue has room for.
    fn refill(&mut self) {
        self.receive.fill();
        self.receive.publish();
    }

    /// Has the device complete a frame's checksum, or completes it: then none is open.
    #[inline(never)]
    fn prepare(&self, packet: &mut Packet) {
        let mut partial = packet
            .partial()
            .filter(|partial| partial.fits(packet.len()));
        if let Some(open) = partial.filter(|_| !self.features.contains(Features::CSUM)) {
            // It fits, as the filter above says.
            let _ = open.complete(packet.bytes_mut());
            packet.set_partial(None);
            partial = None;
        }
        *packet.header_mut::<HEADER>().0 = header::emit(partial);
    }

    /// Sends a frame that needs more than a header of zeros, or finds no slot at once: a
    /// large replication fills the queue by itself, and what the device does not know of, it
    /// cannot give back. A refused frame is as it was.
    #[cold]
    #[inline(never)]
    fn send_special(&mut self, mut packet: Packet) -> Result<(), Packet> {
        if self.transmit.is_full() {
            self.make_room();
        }
        // Before anything is done for it: a queue that is full refuses many.
        if self.transmit.is_full() || !packet.is_of(self.pool) {
            return Err(packet);
        }
        if packet.is_large() {
            return self.send_large(packet);
        }
        self.prepare(&mut packet);
        let length = packet.len();
        self.transmit.post(packet)?;
        self.count_sent(1, length);
        Ok(())
    }

    #[inline]
    fn count_sent(&mut self, packets: usize, bytes: usize) {
        self.statistics.tx_packets += packets as u64;
        self.statistics.tx_bytes += bytes as u64;
    }

    /// Spaces of the buffers that are in slots.
    #[cfg(test)]
    pub(super) fn with_device(&self) -> alloc::vec::Vec<core::ptr::NonNull<u8>> {
        let queues = [&self.receive, &self.transmit];
        queues.into_iter().flat_map(Queue::spaces).collect()
    }

    fn make_room(&mut self) {
        self.transmit.publish();
        self.transmit.reclaim();
    }
}

impl<T: Transport> Nic for VirtioNet<T> {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    fn completes_checksums(&self) -> bool {
        self.features.contains(Features::CSUM)
    }

    fn link_up(&mut self) -> bool {
        if !self.features.contains(Features::STATUS) {
            return true;
        }
        let Some(transport) = &self.transport else {
            return self.link.load(Ordering::Relaxed);
        };
        let status = transport.read_config_space::<u16>(CONFIG_STATUS);
        let is_up = status.is_ok_and(|status| status & LINK_UP != 0);
        self.link.store(is_up, Ordering::Relaxed);
        is_up
    }

    fn is_broken(&self) -> bool {
        self.receive.is_broken() || self.transmit.is_broken()
    }

    fn fetch(&mut self, front: usize) -> bool {
        let pending = self.receive.pending();
        let found = self
            .found
            .fetch(&mut self.receive, pending, Pool::lines(front));
        if found {
            self.receive.fetch_slots(self.receive.room());
        }
        found || self.held.is_some()
    }

    #[inline(always)]
    fn receive(&mut self, burst: &mut Burst) {
        if self.held.is_none() {
            self.take_frames(burst);
        }
        if self.held.is_some() {
            self.hand_over(burst);
        }
    }

    fn send(&mut self, mut packet: Packet) -> Result<(), Packet> {
        if !packet.is_plain() || self.transmit.is_full() {
            return self.send_special(packet);
        }
        *packet.header_mut::<HEADER>().0 = header::PLAIN;
        let length = packet.len();
        self.transmit.post(packet)?;
        self.count_sent(1, length);
        Ok(())
    }

    #[inline(never)]
    fn send_all(&mut self, mut packets: Drain<'_>) -> usize {
        let mut refused = 0;
        loop {
            let (count, bytes) = self.transmit.post_plain(&mut packets);
            self.count_sent(count.into(), bytes);
            let Some(packet) = packets.next() else {
                return refused;
            };
            refused += usize::from(self.send_special(packet).is_err());
        }
    }

    fn flush(&mut self) {
        self.transmit.publish();
        let is_short = self.pool.available() < REFILL;
        if is_short || self.transmit.outstanding() >= self.reclaim_at {
            self.transmit.reclaim();
        }
        if self.receive.room() >= self.refill_at {
            self.refill();
        }
        self.transmit.fetch_slots(crate::BURST);
    }

    fn notify(&mut self) {
        if self.receive.is_unheard() || self.transmit.is_unheard() {
            ring::barrier();
            self.receive.notify();
            self.transmit.notify();
        }
    }

    fn wait(&mut self) {
        self.transmit.publish();
        self.notify();
        for _ in 0..PATIENCE {
            self.transmit.reclaim();
            if self.transmit.is_broken() || self.transmit.room() >= self.reclaim_at {
                break;
            }
            core::hint::spin_loop();
        }
    }

    fn remind(&mut self) {
        self.make_room();
        self.refill();
        self.receive.remind();
        self.transmit.remind();
    }

    fn arm_interrupt(&mut self) -> bool {
        self.receive.arm() || self.held.is_some() || !self.found.is_empty()
    }

    fn disarm_interrupt(&mut self) {
        self.receive.disarm();
    }

    fn statistics(&self) -> Statistics {
        let broken = u64::from(self.receive.is_broken()) + u64::from(self.transmit.is_broken());
        let mut statistics = self.statistics;
        statistics.device_errors += broken;
        statistics
    }
}

/// MAC address, and longest IP packet in bytes if the device says, of a device
/// that need not be started.
pub fn announced(transport: &mut impl Transport) -> Result<([u8; 6], Option<u16>), Error> {
    let features = Features::from_bits_truncate(transport.read_device_features());
    read_config(transport, features)
}

/// The MAC address, and the MTU if the device announces a possible one.
pub(super) fn read_config(
    transport: &impl Transport,
    features: Features,
) -> Result<([u8; 6], Option<u16>), Error> {
    /// Smallest MTU of IPv4 (RFC 791, section 3.2).
    const MIN_MTU: u16 = 68;

    if !features.contains(Features::MAC) {
        return Err(Error::NoMac);
    }
    for _ in 0..CONFIG_RETRIES {
        let generation = transport.read_config_generation();
        let mac = transport.read_config_space::<[u8; 6]>(CONFIG_MAC);
        let mtu = match features.contains(Features::MTU) {
            true => transport.read_config_space::<u16>(CONFIG_MTU).map(Some),
            false => Ok(None),
        };
        if transport.read_config_generation() != generation {
            continue;
        }
        let mac = mac.map_err(|_| Error::Config)?;
        let mtu = mtu.map_err(|_| Error::Config)?;
        return Ok((mac, mtu.filter(|mtu| *mtu >= MIN_MTU)));
    }
    Err(Error::Config)
}

/// Sets up queue `number` of a device that is not started yet.
pub(super) fn start_queue(
    transport: &mut impl Transport,
    wiring: &mut impl Wiring,
    memory: &mut impl DmaSource,
    number: u16,
    vector: Option<u16>,
    event_idx: bool,
) -> Result<IdleQueue, Error> {
    let most = transport.max_queue_size(number).min(MAX_QUEUE);
    // The largest power of two up to what the device has; a split ring's is one
    // anyway.
    let size = match u16::try_from(most) {
        Ok(0) | Err(_) => return Err(Error::Queue),
        Ok(most) => 1 << most.ilog2(),
    };
    if transport.queue_used(number) {
        return Err(Error::Queue);
    }
    let area = memory
        .allocate(Layout::new(size).length)
        .ok_or(Error::Memory)?;
    let ring = Ring::new(area, size, event_idx).ok_or(Error::Memory)?;
    if !wiring.bind(number, vector) {
        return Err(Error::Vector);
    }
    let doorbell = wiring.doorbell(number).ok_or(Error::Doorbell)?;
    let [descriptors, driver, device] = ring.device_addresses();
    transport.queue_set(number, u32::from(size), descriptors, driver, device);
    Ok(IdleQueue::new(ring, doorbell))
}
