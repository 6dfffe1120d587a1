//! What the appliance does all day, apart from the machine it does it on: frames
//! from NIC to NIC through the datapath, the host stack beside it, and the
//! control session on that.
//!
//! Time is an argument and NICs are a trait, so a test runs it with frames in
//! memory. Nothing here is per packet but a few moves of a buffer's handle.

mod control;
mod follower;
mod forward;
mod host;
mod inquiry;
mod lead;
mod ports;
mod team;

#[cfg(test)]
mod control_tests;
#[cfg(test)]
mod forward_tests;
#[cfg(test)]
#[path = "../../tests/image/shim.rs"]
mod shim;
#[cfg(test)]
mod team_tests;
#[cfg(test)]
mod tests;

use core::net::SocketAddr;

use nve_agent::{Entropy, SessionConfig};
use nve_datapath::{Datapath, Nanos, Side, Tables};
use nve_nic::{Nic, Pool, Statistics};
use nve_protocol::{NicStats, ProcessorStats, Processors, Stats, TableSizes};

use crate::config::MAX_SHIMS;
use control::Control;
pub use follower::Follower;
use forward::Forwarder;
pub use host::Addresses;
use host::Host;
use lead::{Lead, Led};
pub use ports::Ports;
use team::Report;
pub use team::{Links, Team};

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
    /// To the other processors, if there are any.
    pub links: Option<Links>,
}

/// An NVE with both its NICs.
pub struct Node<N: Nic, E> {
    forwarder: Forwarder<N>,
    host: Host,
    control: Control<E>,
    /// What this processor has to do with others, if there are any.
    lead: Option<Lead>,
    platform: Platform,
    /// When something other than a frame needs attention.
    due: Nanos,
    /// How many VAPs had woken when the session was last served.
    awakenings: u64,
    house: House,
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
    /// Processors do not have the same tables any more; only a reset mends that.
    Split,
}

/// What a processor does all day.
pub trait Looped {
    /// One turn: a burst from each NIC, and what is due at `now`.
    fn poll(&mut self, now: Nanos) -> Turn;

    /// When [`Looped::poll`] has something to do even if no frame comes.
    fn deadline(&self) -> Nanos;

    /// Has both NICs interrupt for frames. Returns whether some have come already.
    #[must_use]
    fn arm_interrupts(&mut self) -> bool;

    /// Ends [`Looped::arm_interrupts`].
    fn disarm_interrupts(&mut self);
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
        let lead = parts.links.as_ref().map(Lead::new);
        let mut forwarder = Forwarder::new(ports, parts.datapath, parts.links);
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
            lead,
            platform,
            due: Nanos(0),
            awakenings: 0,
            house: House::new(),
            load: Load::default(),
        }
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
        let own = self.report();
        let tables = self.forwarder.tables().sizes();
        let team = self.lead.as_ref().map(Lead::team);
        stats(now, tables, &own, team, (self.platform.heap)())
    }

    /// This processor's counters.
    fn report(&self) -> Report {
        Report {
            statistics: self.forwarder.ports().both_statistics(),
            counters: *self.forwarder.datapath().counters(),
            handed: self.forwarder.handed(),
            busy: self.load.busy,
        }
    }

    /// Whether the shim is to be told of a VAP that woke.
    fn has_woken(&self) -> bool {
        self.forwarder.tables().awakenings() != self.awakenings
    }

    /// Host stack, control session and the datapath's timers.
    fn serve(&mut self, now: Nanos) {
        self.awakenings = self.forwarder.tables().awakenings();
        self.host.poll(now, &mut self.forwarder);
        let own = self.report();
        let heap = (self.platform.heap)();
        let (_, datapath) = self.forwarder.parts();
        let mut led = Led {
            datapath,
            lead: self.lead.as_mut(),
        };
        let control = self.control.drive(now, &mut self.host, &mut led, |led| {
            let own = Report {
                counters: *led.datapath.counters(),
                ..own
            };
            stats(now, led.datapath.tables().sizes(), &own, led.team(), heap)
        });
        // What the session wrote goes out now.
        let host = self.host.poll(now, &mut self.forwarder);
        let tick = self.forwarder.tick(now);
        self.forwarder.flush();
        self.due = control.min(host).min(tick);
    }
}

impl<N: Nic, E: Entropy> Looped for Node<N, E> {
    fn poll(&mut self, now: Nanos) -> Turn {
        let mut busy = self.forwarder.poll(now);
        if let Some(lead) = &mut self.lead {
            lead.heed(now, self.forwarder.parts().1);
        }
        if self.forwarder.has_host_frames() || now >= self.due || self.has_woken() {
            self.serve(now);
            busy = true;
        }
        if let Some(lead) = &mut self.lead {
            lead.pass_on(self.forwarder.parts().1);
            if lead.team().is_split() {
                return Turn::Split;
            }
        }
        if now >= self.house.due
            && let Some(turn) = self.house.keep(now, &mut self.forwarder)
        {
            return turn;
        }
        self.load.note(now, busy);
        if busy { Turn::Busy } else { Turn::Idle }
    }

    fn deadline(&self) -> Nanos {
        self.due.min(self.house.due)
    }

    fn arm_interrupts(&mut self) -> bool {
        self.forwarder.arm_interrupts()
    }

    fn disarm_interrupts(&mut self) {
        self.forwarder.disarm_interrupts();
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
    tables: TableSizes,
    own: &Report,
    team: Option<&Team>,
    (heap_used, heap_size): (u64, u64),
) -> Stats {
    let (mut sum, mut processors) = (Report::default(), Processors::default());
    let others = team.into_iter().flat_map(Team::reports);
    for report in core::iter::once(*own).chain(others) {
        sum.add(&report);
        // There are no more than can be told.
        let _ = processors.push(processor(&report));
    }
    let [trunk, uplink] = sum.statistics;
    Stats {
        uptime_ms: now.0 / 1_000_000,
        // The session knows it.
        generation: 0,
        tables,
        trunk: nic_stats(trunk),
        uplink: nic_stats(uplink),
        answers: sum.counters.answers,
        drops: sum.counters.drops,
        busy_us: sum.busy / 1000,
        processors,
        heap_used,
        heap_size,
    }
}

fn processor(report: &Report) -> ProcessorStats {
    let [trunk, uplink] = report.statistics;
    ProcessorStats {
        rx_packets: trunk.rx_packets + uplink.rx_packets,
        tx_packets: trunk.tx_packets + uplink.tx_packets,
        handed: report.handed,
        busy_us: report.busy / 1000,
    }
}

fn nic_stats(statistics: Statistics) -> NicStats {
    let Statistics {
        rx_packets,
        rx_bytes,
        tx_packets,
        tx_bytes,
        device_errors,
        ..
    } = statistics;
    NicStats {
        rx_packets,
        rx_bytes,
        tx_packets,
        tx_bytes,
        device_errors,
    }
}

/// Looks at links and rings, now and then.
#[derive(Debug)]
struct House {
    due: Nanos,
    /// Which links were up.
    links: [bool; 2],
}

impl House {
    const fn new() -> House {
        House {
            due: Nanos(0),
            links: [true; 2],
        }
    }

    /// Looks; what has to be told to whoever runs the loop.
    fn keep<N: Nic>(&mut self, now: Nanos, forwarder: &mut Forwarder<N>) -> Option<Turn> {
        self.due = Nanos(now.0.saturating_add(HOUSEKEEPING));
        for (side, link) in [Side::Trunk, Side::Uplink].into_iter().zip(&mut self.links) {
            let nic = forwarder.ports_mut().nic(side);
            if nic.is_broken() {
                return Some(Turn::Broken(side));
            }
            nic.remind();
            let up = nic.link_up();
            if up != core::mem::replace(link, up) {
                log::warn!("{side:?}: link {}", if up { "up" } else { "down" });
            }
        }
        None
    }
}
