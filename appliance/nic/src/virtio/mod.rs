//! virtio-net (virtio 1.2, 5.1), modern devices only.
//!
//! Pairs of one receive and one transmit queue, one for each processor that uses the
//! device. Checksum offload both ways; large TCP frames both ways where they are wanted and
//! the device has all that they need. A control queue only to use several pairs, and none
//! of its filters: without them the device passes every MAC address and VLAN, which is what
//! a trunk needs.

mod control;
mod header;
mod net;
mod pairs;
pub mod pci;
mod queue;
mod ring;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod pair_tests;
#[cfg(test)]
mod tests;

pub use net::{VirtioNet, announced};
pub use pairs::{Pair, Started, announced_pairs, start};
pub use queue::Doorbell;

/// What a transport does beyond `virtio_drivers::transport::Transport`, which
/// has no interrupt vectors and looks a doorbell up by registers each time.
pub trait Wiring {
    /// Has `queue` interrupt by entry `vector` of the device's MSI-X table, or not
    /// at all. False if the device did not accept.
    fn bind(&mut self, queue: u16, vector: Option<u16>) -> bool;

    /// The doorbell of `queue`; `None` if the device places it outside of its
    /// registers.
    fn doorbell(&mut self, queue: u16) -> Option<Doorbell>;
}

bitflags::bitflags! {
    /// Feature bits (virtio 1.2, 5.1.3 and 6).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Features: u64 {
        /// The device completes checksums of frames that are sent.
        const CSUM = 1 << 0;
        /// The driver takes frames whose checksum is yet to be completed.
        const GUEST_CSUM = 1 << 1;
        /// The device announces its MTU.
        const MTU = 1 << 3;
        /// The device has a MAC address.
        const MAC = 1 << 5;
        /// The driver takes large frames of TCP over IPv4.
        const GUEST_TSO4 = 1 << 7;
        /// The driver takes large frames of TCP over IPv6.
        const GUEST_TSO6 = 1 << 8;
        /// The device takes large frames of TCP over IPv4.
        const HOST_TSO4 = 1 << 11;
        /// The device takes large frames of TCP over IPv6.
        const HOST_TSO6 = 1 << 12;
        /// A frame may come in several buffers.
        const MRG_RXBUF = 1 << 15;
        /// The device announces the state of its link.
        const STATUS = 1 << 16;
        /// The device has a control queue.
        const CTRL_VQ = 1 << 17;
        /// The device may have several pairs of queues.
        const MQ = 1 << 22;
        /// A descriptor may lead to a table of others.
        const INDIRECT_DESC = 1 << 28;
        /// Both ends say at which index they want to be told.
        const EVENT_IDX = 1 << 29;
        /// Not a legacy device.
        const VERSION_1 = 1 << 32;
        /// The device may be behind an IOMMU.
        const ACCESS_PLATFORM = 1 << 33;
    }
}

/// Why a device cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// It is not a network device.
    NotANic,
    /// A legacy device, or one that refuses the features chosen.
    Features,
    /// It has no MAC address.
    NoMac,
    /// Its configuration space is too small.
    Config,
    /// A queue is missing or in use.
    Queue,
    /// A queue's doorbell is outside of the device's registers.
    Doorbell,
    /// It does not accept an interrupt vector.
    Vector,
    /// No memory for its rings.
    Memory,
    /// It does not want to use as many pairs of queues as it has.
    Refused,
    /// It does not answer a command in time.
    Silent,
    /// Its list of PCI capabilities does not end.
    Capabilities,
    /// A structure that its capabilities announce is not in one of its BARs.
    Registers,
    /// The transport refused it.
    Transport,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Error::NotANic => "not a virtio network device",
            Error::Features => "legacy device, or it refuses the features chosen",
            Error::NoMac => "no MAC address",
            Error::Config => "configuration space too small",
            Error::Queue => "queue missing or in use",
            Error::Doorbell => "doorbell outside of the device's registers",
            Error::Vector => "interrupt vector refused",
            Error::Memory => "no memory for rings",
            Error::Refused => "several pairs of queues refused",
            Error::Silent => "no answer to a command",
            Error::Capabilities => "endless list of capabilities",
            Error::Registers => "registers outside of the device's BARs",
            Error::Transport => "incomplete virtio capabilities",
        })
    }
}

impl core::error::Error for Error {}
