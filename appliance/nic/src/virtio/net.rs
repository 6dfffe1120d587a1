//! The driver proper.

mod large;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use virtio_drivers::transport::Transport;

use super::header::{self, HEADER, Received, Shape};
use super::pairs::{self, Pair};
use super::queue::{IdleQueue, Queue};
use super::ring::{self, Layout, Ring};
use super::{Error, Features, Wiring};
use crate::dma::DmaSource;
use crate::pool::{Packet, Pool};
use crate::{Burst, Nic, Statistics};

/// Most entries of a queue. Enough for several bursts; more only costs cache.
const MAX_QUEUE: u16 = 256;

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
    found: u16,
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
        let mut nic = VirtioNet {
            transport: pair.transport,
            link: pair.link,
            pool,
            features: pair.features,
            mac: pair.mac,
            mtu: pair.mtu,
            receive: pair.receive.attach(pool),
            transmit: pair.transmit.attach(pool),
            found: 0,
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
        while !self.receive.is_full() {
            let Some(packet) = self.pool.take() else {
                break;
            };
            let room = packet.capacity();
            if self.receive.post(packet, room, true).is_err() {
                break;
            }
        }
        self.receive.publish();
    }

    /// Takes the next buffer and what the device wrote behind the header.
    fn take_received(&mut self) -> Option<(Packet, usize)> {
        let (packet, length) = self.receive.take()?;
        let written = usize::try_from(length).ok()?.checked_sub(HEADER)?;
        (written <= packet.capacity()).then_some((packet, written))
    }

    /// Takes one frame, of which `pending` buffers are there, and says how many it
    /// was in. A frame that the device described wrongly is dropped.
    #[inline]
    fn take_frame(&mut self, pending: u16) -> (Option<Packet>, u16) {
        let Some((mut packet, written)) = self.take_received() else {
            return (None, 1);
        };
        let header = packet.header_mut::<HEADER>().0;
        if !header::is_plain(header) {
            let header = *header;
            return self.take_special(packet, written, &header, pending);
        }
        let start = packet.start();
        let fits = written >= MIN_FRAME && packet.set_range(start, written).is_some();
        (fits.then_some(packet), 1)
    }

    /// The same for a frame in several buffers, or with a checksum to be completed.
    #[inline(never)]
    fn take_special(
        &mut self,
        mut packet: Packet,
        written: usize,
        header: &[u8; HEADER],
        pending: u16,
    ) -> (Option<Packet>, u16) {
        let header = Received::parse(header);
        let buffers = if self.features.contains(Features::MRG_RXBUF) {
            header.buffers
        } else {
            1
        };
        if !(1..=pending).contains(&buffers) || packet.set_range(packet.start(), written).is_none()
        {
            return (None, 1);
        }
        if let Shape::Large(segmentation) = header.shape {
            self.held = self.take_large(packet, segmentation, header.partial, buffers);
            return (None, buffers);
        }
        let mut complete = true;
        for _ in 1..buffers {
            complete &= self.append_received(&mut packet);
        }
        if !complete || header.shape != Shape::Ordinary || packet.len() < MIN_FRAME {
            return (None, buffers);
        }
        if header
            .partial
            .is_some_and(|partial| !partial.fits(packet.len()))
        {
            return (None, buffers);
        }
        packet.set_partial(header.partial);
        (Some(packet), buffers)
    }

    /// Copies what the next buffer holds behind `packet`. Buffers but the first
    /// start with data where the first has its header.
    fn append_received(&mut self, packet: &mut Packet) -> bool {
        let Some((mut more, length)) = self.receive.take() else {
            return false;
        };
        let Ok(length) = usize::try_from(length) else {
            return false;
        };
        if length > HEADER + more.capacity() {
            return false;
        }
        let head = *more.header_mut::<HEADER>().0;
        let behind = length.saturating_sub(HEADER);
        if more.set_range(more.start(), behind).is_none() {
            return false;
        }
        let head = head.get(..length.min(HEADER)).unwrap_or_default();
        packet.append(&[head, more.bytes()]).is_some()
    }

    /// Has the device complete a frame's checksum, or completes it.
    #[inline(never)]
    fn prepare(&self, packet: &mut Packet) {
        let mut partial = packet
            .partial()
            .filter(|partial| partial.fits(packet.len()));
        if let Some(open) = partial.filter(|_| !self.features.contains(Features::CSUM)) {
            // It fits, as the filter above says.
            let _ = open.complete(packet.bytes_mut());
            partial = None;
        }
        *packet.header_mut::<HEADER>().0 = header::emit(partial);
    }

    /// A large replication fills the queue by itself: what the device does not know of,
    /// it cannot give back.
    #[cold]
    fn make_room(&mut self) {
        self.transmit.publish();
        self.reclaim();
    }

    /// Takes back the buffers of frames that are out.
    fn reclaim(&mut self) {
        let pending = self.transmit.pending();
        self.transmit.fetch_used(pending);
        if self.transmit.has_large() {
            return self.free(pending);
        }
        for _ in 0..pending {
            // Dropping the packet frees its buffer.
            if self.transmit.take().is_none() {
                break;
            }
        }
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

    fn fetch(&mut self, front: usize) {
        self.found = self.receive.pending();
        if self.found == 0 {
            return;
        }
        let burst = self.found.min(crate::BURST as u16);
        self.receive.prefetch(burst, Pool::lines(front));
        // Those of the burst are free when it is taken.
        let free = self.receive.room() + usize::from(burst);
        self.receive.fetch_slots(free);
    }

    fn receive(&mut self, burst: &mut Burst) {
        let mut pending = core::mem::take(&mut self.found);
        let (before, mut bytes) = (burst.len(), 0);
        if self.held.is_some() {
            // What was found is found again.
            return self.hand_over(burst);
        }
        while pending > 0 && !burst.is_full() && !self.receive.is_broken() {
            let (frame, buffers) = self.take_frame(pending);
            pending -= buffers;
            let Some(frame) = frame else {
                if self.held.is_some() {
                    break;
                }
                self.statistics.device_errors += 1;
                continue;
            };
            bytes += frame.len() as u64;
            // There is room, as the loop's condition says.
            let _ = burst.push(frame);
        }
        self.statistics.rx_packets += (burst.len() - before) as u64;
        self.statistics.rx_bytes += bytes;
        if self.held.is_some() {
            self.hand_over(burst);
        }
    }

    #[inline(always)]
    fn send(&mut self, mut packet: Packet) -> Result<(), Packet> {
        if self.transmit.is_full() {
            self.make_room();
        }
        if packet.partial().is_none() {
            *packet.header_mut::<HEADER>().0 = header::PLAIN;
        } else if packet.is_large() {
            return self.send_large(packet);
        } else {
            self.prepare(&mut packet);
        }
        let length = packet.len();
        self.transmit.post(packet, length, false)?;
        self.statistics.tx_packets += 1;
        self.statistics.tx_bytes += length as u64;
        Ok(())
    }

    fn flush(&mut self) {
        self.transmit.publish();
        let is_short = self.pool.available() < REFILL;
        if is_short || self.transmit.outstanding() >= RECLAIM.min(self.transmit.size() / 2) {
            self.reclaim();
        }
        if self.receive.room() >= REFILL.min(self.receive.size() / 2) {
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
            self.reclaim();
            if self.transmit.room() >= RECLAIM.min(self.transmit.size() / 2) {
                break;
            }
            core::hint::spin_loop();
        }
    }

    fn remind(&mut self) {
        self.reclaim();
        self.refill();
        self.receive.remind();
        self.transmit.remind();
    }

    fn arm_interrupt(&mut self) -> bool {
        self.receive.arm() || self.held.is_some()
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
    let most = transport.max_queue_size(number).min(u32::from(MAX_QUEUE));
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
    Ok(IdleQueue::new(ring, size, doorbell))
}
