//! Bursts from a NIC through the datapath to where its verdicts say.

use heapless::{Deque, Vec};
use nve_datapath::{
    BURST, Datapath, DropReason, Frame, Nanos, PartialChecksum, Side, Tables, Verdict,
};
use nve_nic::{Burst, Nic, Packet};

use super::ports::{Ports, from_nic, to_nic};

/// Most frames that wait for the host stack; what comes in excess is dropped, so
/// that a flood of them cannot take all buffers.
const HOST_QUEUE: usize = 64;

/// NICs with a datapath between them.
#[derive(Debug)]
pub struct Forwarder<N> {
    ports: Ports<N>,
    datapath: Datapath,
    host: Deque<Packet, HOST_QUEUE>,
}

/// Where the datapath left a frame in its buffer.
struct Place {
    start: usize,
    length: usize,
    partial: Option<PartialChecksum>,
}

impl<N: Nic> Forwarder<N> {
    /// Forwards between `ports` by `datapath`.
    pub fn new(ports: Ports<N>, datapath: Datapath) -> Self {
        Forwarder {
            ports,
            datapath,
            host: Deque::new(),
        }
    }

    /// The NICs.
    pub fn ports(&self) -> &Ports<N> {
        &self.ports
    }

    /// The NICs.
    pub fn ports_mut(&mut self) -> &mut Ports<N> {
        &mut self.ports
    }

    /// The tables in force.
    pub fn tables(&self) -> &Tables {
        self.datapath.tables()
    }

    /// The NICs and the datapath, apart.
    pub fn parts(&mut self) -> (&Ports<N>, &mut Datapath) {
        (&self.ports, &mut self.datapath)
    }

    /// Whether frames wait for the host stack.
    pub fn has_host_frames(&self) -> bool {
        !self.host.is_empty()
    }

    /// The next frame for the host stack.
    pub fn take_host_frame(&mut self) -> Option<Packet> {
        self.host.pop_front()
    }

    /// Forwards a burst that came in on `side`; false if there was none.
    pub fn poll(&mut self, now: Nanos, side: Side) -> bool {
        let mut burst = Burst::new();
        self.ports.nic(side).receive(&mut burst);
        if burst.is_empty() {
            return false;
        }
        let mut verdicts = [Verdict::Drop(DropReason::Truncated); BURST];
        let places = self.process(now, side, &mut burst, &mut verdicts);
        for ((mut packet, place), verdict) in burst.into_iter().zip(places).zip(verdicts) {
            if packet.set_range(place.start, place.length).is_some() {
                packet.set_partial(place.partial.map(to_nic));
                self.obey(now, verdict, packet);
            }
        }
        self.ports.flush();
        true
    }

    /// Sends the datapath's own frames; returns when it has more.
    pub fn tick(&mut self, now: Nanos) -> Nanos {
        self.datapath.tick(now, &mut self.ports)
    }

    /// Sends what is queued.
    pub fn flush(&mut self) {
        self.ports.flush();
    }

    /// See [`Nic::arm_interrupt`], for both.
    pub fn arm_interrupts(&mut self) -> bool {
        let trunk = self.ports.nic(Side::Trunk).arm_interrupt();
        let uplink = self.ports.nic(Side::Uplink).arm_interrupt();
        trunk || uplink
    }

    /// See [`Nic::disarm_interrupt`], for both.
    pub fn disarm_interrupts(&mut self) {
        self.ports.nic(Side::Trunk).disarm_interrupt();
        self.ports.nic(Side::Uplink).disarm_interrupt();
    }

    fn process(
        &mut self,
        now: Nanos,
        side: Side,
        burst: &mut Burst,
        verdicts: &mut [Verdict; BURST],
    ) -> Vec<Place, BURST> {
        let mut frames: Vec<Frame<'_>, BURST> = burst
            .iter_mut()
            .map(|packet| {
                let (start, length) = (packet.start(), packet.len());
                let partial = packet.partial().map(from_nic);
                Frame::new(packet.space_mut(), start, length)
                    .expect("a packet's frame is within its buffer")
                    .with_partial(partial)
            })
            .collect();
        self.datapath
            .process(now, side, &mut frames, verdicts, &mut self.ports);
        frames
            .iter()
            .map(|frame| Place {
                start: frame.start(),
                length: frame.len(),
                partial: frame.partial(),
            })
            .collect()
    }

    /// Does with a frame what the datapath says. Dropping a packet frees it.
    fn obey(&mut self, now: Nanos, verdict: Verdict, packet: Packet) {
        match verdict {
            Verdict::Send(side) => {
                if self.ports.nic(side).send(packet).is_err() {
                    self.datapath.count_drop(now, DropReason::QueueFull);
                }
            }
            Verdict::Host => {
                if self.host.push_back(packet).is_err() {
                    self.datapath.count_drop(now, DropReason::QueueFull);
                }
            }
            Verdict::Drop(_) | Verdict::Done => {}
        }
    }
}
