//! What the appliance does all day, apart from the machine it does it on: frames
//! from NIC to NIC through the datapath, the host stack beside it, and the
//! control session on that.
//!
//! Time is an argument and NICs are a trait, so a test runs it with frames in
//! memory. Nothing here is per packet but a few moves of a buffer's handle.

mod forward;
mod host;
mod ports;

#[cfg(test)]
mod tests;

use nve_datapath::{Datapath, Nanos, Side};
use nve_nic::{Nic, Pool, Statistics};

pub use forward::Forwarder;
pub use host::{Addresses, Host};
pub use ports::Ports;

/// Between two looks at links and rings, in nanoseconds.
const HOUSEKEEPING: u64 = 1_000_000_000;

/// An NVE with both its NICs.
#[derive(Debug)]
pub struct Node<N: Nic> {
    forwarder: Forwarder<N>,
    host: Host,
    /// When something other than a frame needs attention.
    due: Nanos,
    housekeeping: Nanos,
    links: [bool; 2],
}

/// What happened in a turn of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Frames were moved or timers served: there may be more at once.
    Busy,
    /// Nothing to do.
    Idle,
    /// A NIC broke the rules of its rings; only a reset mends that.
    Broken(Side),
}

impl<N: Nic> Node<N> {
    /// An NVE that forwards by `datapath` and is reachable by `addresses`.
    pub fn new(
        trunk: N,
        uplink: N,
        pool: &'static Pool,
        datapath: Datapath,
        addresses: Addresses,
    ) -> Node<N> {
        let mut forwarder = Forwarder::new(Ports::new(trunk, uplink, pool), datapath);
        let host = Host::new(&addresses, &mut forwarder, Nanos(0));
        Node {
            forwarder,
            host,
            due: Nanos(0),
            housekeeping: Nanos(0),
            links: [true; 2],
        }
    }

    /// One turn: a burst from each NIC, and what is due at `now`.
    pub fn poll(&mut self, now: Nanos) -> Turn {
        let mut busy = self.forwarder.poll(now, Side::Trunk);
        busy |= self.forwarder.poll(now, Side::Uplink);
        if self.forwarder.has_host_frames() || now >= self.due {
            self.serve(now);
            busy = true;
        }
        if now >= self.housekeeping {
            self.housekeeping = Nanos(now.0.saturating_add(HOUSEKEEPING));
            for (side, link) in [Side::Trunk, Side::Uplink].into_iter().zip(&mut self.links) {
                if let Some(turn) = keep_house(&mut self.forwarder, side, link) {
                    return turn;
                }
            }
        }
        if busy { Turn::Busy } else { Turn::Idle }
    }

    /// When [`Node::poll`] has something to do even if no frame comes.
    pub fn deadline(&self) -> Nanos {
        self.due.min(self.housekeeping)
    }

    /// Has both NICs interrupt for frames. Returns whether some have come already.
    #[must_use]
    pub fn arm_interrupts(&mut self) -> bool {
        self.forwarder.arm_interrupts()
    }

    /// Ends [`Node::arm_interrupts`].
    pub fn disarm_interrupts(&mut self) {
        self.forwarder.disarm_interrupts();
    }

    /// Counters of a NIC.
    pub fn statistics(&self, side: Side) -> Statistics {
        self.forwarder.ports().statistics(side)
    }

    /// Host stack and timers.
    fn serve(&mut self, now: Nanos) {
        let host = self.host.poll(now, &mut self.forwarder);
        let datapath = self.forwarder.tick(now);
        self.forwarder.flush();
        self.due = host.min(datapath);
    }
}

fn keep_house<N: Nic>(forwarder: &mut Forwarder<N>, side: Side, link: &mut bool) -> Option<Turn> {
    let nic = forwarder.ports_mut().nic(side);
    if nic.is_broken() {
        return Some(Turn::Broken(side));
    }
    let up = nic.link_up();
    if up != core::mem::replace(link, up) {
        log::warn!("{side:?}: link {}", if up { "up" } else { "down" });
    }
    None
}
