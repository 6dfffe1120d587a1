//! What the appliance does all day, apart from the machine it does it on: frames
//! from NIC to NIC through the datapath, the host stack beside it, and the
//! control session on that.
//!
//! Time is an argument and NICs are a trait, so a test runs it with frames in
//! memory. Nothing here is per packet but a few moves of a buffer's handle.

mod control;
mod forward;
mod host;
mod ports;

#[cfg(test)]
mod control_tests;
#[cfg(test)]
mod tests;

use core::net::SocketAddr;

use nve_agent::{Entropy, SessionConfig};
use nve_datapath::{Datapath, Nanos, Side, Tables};
use nve_nic::{Nic, Pool, Statistics};
use nve_protocol::{NicStats, Stats};

use crate::config::MAX_SHIMS;
use control::Control;
use forward::Forwarder;
pub use host::Addresses;
use host::Host;
use ports::Ports;

/// Between two looks at links and rings, in nanoseconds.
const HOUSEKEEPING: u64 = 1_000_000_000;

/// Time since boot.
pub type Clock = fn() -> Nanos;

/// What the node asks of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Platform {
    /// Time since boot.
    pub clock: Clock,
    /// Bytes of heap in use, and in all.
    pub heap: fn() -> (u64, u64),
}

/// What a node is made of.
pub struct Parts<N, E> {
    /// The NIC on the vSwitch's trunk.
    pub trunk: N,
    /// The NIC towards other VTEPs.
    pub uplink: N,
    /// Buffers of both.
    pub pool: &'static Pool,
    /// Forwards frames.
    pub datapath: Datapath,
    /// Addresses of the uplink.
    pub addresses: Addresses,
    /// Identity and keys for the control session.
    pub session: SessionConfig,
    /// Where shims listen; as many as the session was told, or none for no session.
    pub shims: heapless::Vec<SocketAddr, MAX_SHIMS>,
    /// Random numbers for the control session.
    pub entropy: E,
    /// The machine.
    pub platform: Platform,
}

/// An NVE with both its NICs.
pub struct Node<N: Nic, E> {
    forwarder: Forwarder<N>,
    host: Host,
    control: Control<E>,
    platform: Platform,
    /// When something other than a frame needs attention.
    due: Nanos,
    housekeeping: Nanos,
    links: [bool; 2],
    load: Load,
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

impl<N: Nic, E: Entropy> Node<N, E> {
    /// An NVE of these parts.
    pub fn new(parts: Parts<N, E>) -> Self {
        let Parts {
            addresses,
            platform,
            ..
        } = parts;
        let ports = Ports::new(parts.trunk, parts.uplink, parts.pool);
        let mut forwarder = Forwarder::new(ports, parts.datapath);
        let host = Host::new(&addresses, &mut forwarder, (platform.clock)());
        let control = Control::new(
            parts.session,
            parts.entropy,
            parts.shims,
            addresses.seed,
            platform.clock,
        );
        Node {
            forwarder,
            host,
            control,
            platform,
            due: Nanos(0),
            housekeeping: Nanos(0),
            links: [true; 2],
            load: Load::default(),
        }
    }

    /// One turn: a burst from each NIC, and what is due at `now`.
    pub fn poll(&mut self, now: Nanos) -> Turn {
        let mut busy = self.forwarder.poll(now);
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
        self.load.note(now, busy);
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

    /// The datapath, for changes that do not come by the control session; timers are
    /// served in the next turn.
    pub fn datapath(&mut self) -> &mut Datapath {
        self.due = Nanos(0);
        self.forwarder.parts().1
    }

    /// The tables in force.
    pub fn tables(&self) -> &Tables {
        self.forwarder.tables()
    }

    /// Counters since the start. The generation is the session's to know, and 0 here.
    pub fn stats(&self, now: Nanos) -> Stats {
        let (load, heap) = (self.load.busy, (self.platform.heap)());
        let statistics = self.forwarder.ports().both_statistics();
        stats(now, self.forwarder.datapath(), statistics, load, heap)
    }

    /// Host stack, control session and the datapath's timers.
    fn serve(&mut self, now: Nanos) {
        self.host.poll(now, &mut self.forwarder);
        let (ports, datapath) = self.forwarder.parts();
        let (load, heap) = (self.load.busy, (self.platform.heap)());
        let statistics = ports.both_statistics();
        let control = self
            .control
            .drive(now, &mut self.host, datapath, |datapath| {
                stats(now, datapath, statistics, load, heap)
            });
        // What the session wrote goes out now.
        let host = self.host.poll(now, &mut self.forwarder);
        let tick = self.forwarder.tick(now);
        self.forwarder.flush();
        self.due = control.min(host).min(tick);
    }
}

/// How long the loop had something to do, from the times of its turns.
#[derive(Debug, Default)]
struct Load {
    busy: u64,
    last: Nanos,
    was_busy: bool,
}

impl Load {
    /// A turn that began at `now` is over.
    fn note(&mut self, now: Nanos, busy: bool) {
        if self.was_busy {
            self.busy += now.0.saturating_sub(self.last.0);
        }
        self.last = now;
        self.was_busy = busy;
    }
}

fn stats(
    now: Nanos,
    datapath: &Datapath,
    [trunk, uplink]: [Statistics; 2],
    busy: u64,
    (heap_used, heap_size): (u64, u64),
) -> Stats {
    let counters = datapath.counters();
    Stats {
        uptime_ms: now.0 / 1_000_000,
        // The session knows it.
        generation: 0,
        tables: datapath.tables().sizes(),
        trunk: nic_stats(trunk),
        uplink: nic_stats(uplink),
        answers: counters.answers,
        drops: counters.drops,
        busy_us: busy / 1000,
        heap_used,
        heap_size,
    }
}

fn nic_stats(statistics: Statistics) -> NicStats {
    let Statistics {
        rx_packets,
        rx_bytes,
        tx_packets,
        tx_bytes,
        device_errors,
    } = statistics;
    NicStats {
        rx_packets,
        rx_bytes,
        tx_packets,
        tx_bytes,
        device_errors,
    }
}

fn keep_house<N: Nic>(forwarder: &mut Forwarder<N>, side: Side, link: &mut bool) -> Option<Turn> {
    let nic = forwarder.ports_mut().nic(side);
    if nic.is_broken() {
        return Some(Turn::Broken(side));
    }
    nic.remind();
    let up = nic.link_up();
    if up != core::mem::replace(link, up) {
        log::warn!("{side:?}: link {}", if up { "up" } else { "down" });
    }
    None
}
