//! Packet logic of the NVE, without I/O and without a clock.
//!
//! [`Datapath::process`] is the entry for frames: it takes a burst that
//! came in on one side, rewrites each frame in place and says where it goes.
//! [`Datapath::process_large`] is that for large frames, which are few.
//! Copies (head-end replication) and frames of the datapath's own (ARP on the
//! underlay) leave through the caller's [`Sink`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod checksum;
pub mod connections;
mod counters;
pub mod dscp;
mod flow;
pub mod forward;
mod fragment;
pub mod frame;
mod glance;
pub mod groups;
mod handover;
pub mod icmp;
pub mod inspect;
pub mod meter;
pub mod packet;
mod pipeline;
mod replicate;
mod reply;
pub mod respond;
mod rewrite;
pub mod security;
mod segment;
pub mod spoof;
pub mod steering;
pub mod tables;
mod trunk;
mod underlay;
mod uplink;
pub mod wire;
mod witness;

pub use counters::Counters;
pub use flow::BYTES_PER_FLOW;
pub use frame::{Burst, Extent, Frame, HEADROOM, PartialChecksum};
pub use nve_protocol::DropReason;
pub use pipeline::{Config, Datapath};
pub use segment::{Large, Segmentation};
pub use tables::{TableError, Tables};
pub use underlay::{NextHop, Uplink};

/// Most frames in a burst.
pub const BURST: usize = 32;

/// A side of the NVE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The NIC on the vSwitch's trunk port group.
    Trunk,
    /// The NIC towards other VTEPs.
    Uplink,
}

/// What a datapath is among those of an NVE, one for each processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// The only one.
    #[default]
    Only,
    /// The one that speaks for the NVE: it asks for next hops and advertises routers.
    First,
    /// One that only forwards.
    Other,
}

/// What becomes of a frame after [`Datapath::process`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send the frame, as it is now, on this side.
    Send(Side),
    /// The frame is for the NVE itself (control channel, underlay ARP): hand it
    /// to the host stack.
    Host,
    /// Dropped and counted.
    Drop(DropReason),
    /// Answered, or sent on in pieces: nothing is left to do with it.
    Done,
}

/// No free buffer or no room in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoBuffer;

/// Takes frames that need a buffer of their own.
pub trait Sink {
    /// Sends the concatenation of `parts` on `side`, copying it. `partial` is
    /// relative to the first byte of the first part.
    fn emit(
        &mut self,
        side: Side,
        parts: &[&[u8]],
        partial: Option<PartialChecksum>,
    ) -> Result<(), NoBuffer>;

    /// After a refusal: gives `side` a little time to make room, if that can help.
    fn wait(&mut self, side: Side) {
        let _ = side;
    }
}

/// Nanoseconds since an arbitrary start that does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Nanos(pub u64);
