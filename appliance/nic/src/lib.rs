//! NICs of the appliance: packet buffers, the [`Nic`] trait and drivers.
//!
//! A buffer that came in on one NIC goes out on another without a copy: all NICs of a
//! processor share one [`Pool`]. Nothing is allocated after a driver is made.
//!
//! Invariant: a buffer is either in the hands of its owner or of one device,
//! never both. What a device writes (indices, lengths, offsets, configuration) is
//! checked before use; what does not hold is counted, and never panics.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod checksum;
pub mod dma;
mod drain;
pub mod pci;
pub mod pool;
pub mod virtio;

pub use checksum::PartialChecksum;
pub use dma::DmaMemory;
pub use drain::Drain;
pub use pool::large::{Assembly, Large, Segmentation};
pub use pool::{IdlePool, Loose, Packet, Pool};

/// Most frames that a driver hands over at once.
pub const BURST: usize = 32;

/// Frames on their way between a driver and its user.
pub type Burst = heapless::Vec<Packet, BURST>;

/// What a NIC has done since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received, without FCS.
    pub rx_bytes: u64,
    /// Frames handed to the device.
    pub tx_packets: u64,
    /// Bytes handed to the device, without FCS.
    pub tx_bytes: u64,
    /// Large frames among those received, each counted as one.
    pub rx_large: u64,
    /// Large frames among those handed to the device.
    pub tx_large: u64,
    /// Frames that the device described wrongly, and rings that it broke.
    pub device_errors: u64,
}

/// A NIC with one pair of queues, polled by one processor.
pub trait Nic {
    /// The station's address.
    fn mac(&self) -> [u8; 6];

    /// Longest IP packet in bytes that the device announces, if it does.
    fn mtu(&self) -> Option<u16>;

    /// Whether the device completes checksums of frames that are sent.
    fn completes_checksums(&self) -> bool;

    /// Whether the link is up. Asks the device: not for every burst.
    fn link_up(&mut self) -> bool;

    /// Whether the device broke the rules in a way that only a restart mends.
    /// Such a NIC receives and sends nothing.
    fn is_broken(&self) -> bool;

    /// Finds out which frames have come in, for [`Nic::receive`], and has the processor
    /// fetch the first `front` bytes of each, beside each other instead of one by one. Returns
    /// whether there is anything, which may be nothing but what will be dropped: then, too,
    /// the device lacks buffers, which [`Nic::flush`] gives it.
    fn fetch(&mut self, front: usize) -> bool;

    /// Appends the frames that [`Nic::fetch`] found to `burst`, as far as it has room. A
    /// large frame comes in a burst of its own.
    fn receive(&mut self, burst: &mut Burst);

    /// Queues a frame, of the pool that the NIC was made with; [`Nic::flush`] sends it.
    /// Hands it back if there is no room.
    fn send(&mut self, packet: Packet) -> Result<(), Packet>;

    /// Queues several frames in order, as [`Nic::send`] does. Returns how many found no room:
    /// those are dropped.
    fn send_all(&mut self, packets: Drain<'_>) -> usize {
        packets.filter_map(|packet| self.send(packet).err()).count()
    }

    /// Shows the device what was queued; takes back buffers whose frames are out, if they
    /// are many or others are short, and gives it fresh ones to receive into, if they are
    /// many. [`Nic::notify`] has to follow.
    fn flush(&mut self);

    /// Notifies the device of what it was shown, if it wants to be. Waits until the
    /// device can see all of it, so this is for once per turn of a loop, and best when
    /// something else had to be waited for in between.
    fn notify(&mut self);

    /// Waits for the device to take some of what is queued, not longer than it takes to
    /// handle a few bursts, whether it does or not.
    fn wait(&mut self) {}

    /// Takes back buffers whose frames are out and gives the device fresh ones, however
    /// few, and notifies it of those that it has, though it was before. Call now and
    /// then: a device that lost the notification would wait for ever, and so would we.
    fn remind(&mut self);

    /// Lets the device interrupt when frames come in. Returns whether some already
    /// have, of which no interrupt will tell.
    #[must_use]
    fn arm_interrupt(&mut self) -> bool;

    /// Tells the device that no interrupt is needed.
    fn disarm_interrupt(&mut self);

    /// Counters since start.
    fn statistics(&self) -> Statistics;
}
