//! Bursts from a NIC through the datapath to where its verdicts say.

use heapless::Deque;
use nve_datapath::{
    BURST, Datapath, DropReason, Extent, Frame, Large, Nanos, Segmentation, Side, Tables, Verdict,
};
use nve_nic::{Burst, Nic, Packet};

use super::ports::{Ports, TRUNK_FRONT, UPLINK_FRONT, from_nic, to_nic};
use super::team::Links;

/// Most frames that wait for the host stack; what comes in excess is dropped, so
/// that a flood of them cannot take all buffers.
const HOST_QUEUE: usize = 64;

/// NICs with a datapath between them.
pub struct Forwarder<N> {
    ports: Ports<N>,
    datapath: Datapath,
    host: Deque<Packet, HOST_QUEUE>,
    /// To other processors, if there are any.
    links: Option<Links>,
}

/// Frames that came in, and the datapath's verdicts.
struct Arrived<'b> {
    packets: &'b mut [Packet],
    verdicts: [Verdict; BURST],
}

impl nve_datapath::Burst for Arrived<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.packets.len()
    }

    #[inline]
    fn bytes(&self, at: usize) -> &[u8] {
        self.packets.get(at).map(Packet::bytes).unwrap_or_default()
    }

    #[inline]
    fn frame(&mut self, at: usize) -> Option<Frame<'_>> {
        let packet = self.packets.get_mut(at)?;
        let (start, length) = (packet.start(), packet.len());
        let partial = packet.partial().map(from_nic);
        let frame = Frame::new(packet.space_mut(), start, length)?;
        Some(frame.with_partial(partial))
    }

    #[inline]
    fn fetch_headroom(&self, at: usize) {
        if let Some(packet) = self.packets.get(at) {
            packet.fetch_headroom();
        }
    }

    #[inline]
    fn give_back(&mut self, at: usize, extent: Extent, verdict: Verdict) {
        let (Some(packet), Some(room)) = (self.packets.get_mut(at), self.verdicts.get_mut(at))
        else {
            return;
        };
        // It is in the buffer that it was lent in.
        if packet.set_range(extent.start, extent.length).is_some() {
            packet.set_partial(extent.partial.map(to_nic));
            *room = verdict;
        }
    }
}

impl<N: Nic> Forwarder<N> {
    /// Forwards between `ports` by `datapath`.
    pub fn new(ports: Ports<N>, datapath: Datapath, links: Option<Links>) -> Self {
        Forwarder {
            ports,
            datapath,
            host: Deque::new(),
            links,
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

    /// The datapath.
    pub fn datapath(&self) -> &Datapath {
        &self.datapath
    }

    /// The tables in force.
    pub fn tables(&self) -> &Tables {
        self.datapath.tables()
    }

    /// The NICs and the datapath, apart.
    pub fn parts(&mut self) -> (&Ports<N>, &mut Datapath) {
        (&self.ports, &mut self.datapath)
    }

    /// Frames that came in and were another processor's.
    pub fn handed(&self) -> u64 {
        self.links.as_ref().map_or(0, Links::handed)
    }

    /// Whether frames wait for the host stack.
    pub fn has_host_frames(&self) -> bool {
        !self.host.is_empty()
    }

    /// The next frame for the host stack.
    pub fn take_host_frame(&mut self) -> Option<Packet> {
        self.host.pop_front()
    }

    /// Drops what waits for the host stack, where there is none: frames that only look as
    /// if they came out of a tunnel.
    pub fn drop_host_frames(&mut self, now: Nanos) {
        while self.host.pop_front().is_some() {
            self.datapath.count_drop(now, DropReason::NotForUs);
        }
    }

    /// Forwards a burst from each side; false if there was none.
    #[inline]
    pub fn poll(&mut self, now: Nanos) -> bool {
        self.ports.fetch();
        // What the last turn sent is told of while what was fetched is on its way.
        self.ports.notify();
        let trunk = self.forward(now, Side::Trunk);
        let uplink = self.forward(now, Side::Uplink);
        let handed = self.links.is_some() && self.forward_handed(now);
        let busy = trunk || uplink || handed;
        // Without free buffers nothing comes in, and nothing but this gives them back.
        if busy || !self.ports.has_free() {
            self.ports.flush();
        }
        if let Some(links) = &mut self.links {
            links.settle(self.ports.pool());
        }
        busy
    }

    /// Forwards a burst that came in on `side`; false if there was none.
    fn forward(&mut self, now: Nanos, side: Side) -> bool {
        let mut burst = Burst::new();
        self.ports.nic(side).receive(&mut burst);
        if burst.is_empty() {
            return false;
        }
        if let [packet] = burst.as_slice()
            && packet.is_large()
        {
            self.forward_or_hand_large(now, burst);
            return true;
        }
        if let Some(links) = &mut self.links {
            for _ in 0..links.steer(side, self.ports.pool(), &mut burst) {
                self.datapath.count_drop(now, DropReason::QueueFull);
            }
        }
        self.process(now, side, &mut burst);
        true
    }

    /// Forwards what came in on other processors; false if there was nothing.
    #[inline(never)]
    fn forward_handed(&mut self, now: Nanos) -> bool {
        let (mut trunk, mut uplink) = (Burst::new(), Burst::new());
        if let Some(links) = &mut self.links {
            links.take(self.ports.pool(), &mut trunk, &mut uplink);
        }
        if let [packet] = trunk.as_slice()
            && packet.is_large()
        {
            self.forward_large(now, trunk);
            return true;
        }
        for (front, burst) in [(TRUNK_FRONT, &trunk), (UPLINK_FRONT, &uplink)] {
            burst.iter().for_each(|packet| packet.fetch(front));
        }
        let busy = !trunk.is_empty() || !uplink.is_empty();
        self.process(now, Side::Trunk, &mut trunk);
        self.process(now, Side::Uplink, &mut uplink);
        busy
    }

    /// Forwards a burst that came in on `side`. Once in the program, whoever calls it: the
    /// fast path is inlined here.
    #[inline(never)]
    fn process(&mut self, now: Nanos, side: Side, burst: &mut Burst) {
        let mut arrived = Arrived {
            packets: burst,
            verdicts: [Verdict::Done; BURST],
        };
        self.datapath
            .process(now, side, &mut arrived, &mut self.ports);
        let verdicts = arrived.verdicts;
        for (packet, verdict) in core::mem::take(burst).into_iter().zip(verdicts) {
            self.obey(now, verdict, packet);
        }
    }

    /// Forwards a large frame, if it is this processor's.
    #[cold]
    #[inline(never)]
    fn forward_or_hand_large(&mut self, now: Nanos, mut burst: Burst) {
        if let Some(links) = &mut self.links {
            for _ in 0..links.steer(Side::Trunk, self.ports.pool(), &mut burst) {
                self.datapath.count_drop(now, DropReason::QueueFull);
            }
        }
        self.forward_large(now, burst);
    }

    /// Forwards a large frame, which only the trunk has.
    #[cold]
    #[inline(never)]
    fn forward_large(&mut self, now: Nanos, mut burst: Burst) {
        let Some(mut packet) = burst.pop() else {
            return;
        };
        match self.process_large(now, &mut packet) {
            Some(length) => packet.cut_large(length),
            None => return,
        }
        if self.ports.nic(Side::Trunk).send(packet).is_err() {
            self.datapath.count_drop(now, DropReason::QueueFull);
        }
    }

    /// See [`Datapath::process_large`].
    fn process_large(&mut self, now: Nanos, packet: &mut Packet) -> Option<usize> {
        let partial = packet.partial().map(from_nic);
        let large = packet.large()?;
        let nve_nic::Segmentation { size, is_ipv4 } = large.segmentation;
        let head = Frame::new(large.space, large.start, large.length)?;
        let mut large = Large {
            head: head.with_partial(partial),
            rest: &large.rest,
            segmentation: Segmentation { size, is_ipv4 },
        };
        self.datapath
            .process_large(now, &mut large, &mut self.ports)
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
        self.ports.notify();
        let trunk = self.ports.nic(Side::Trunk).arm_interrupt();
        let uplink = self.ports.nic(Side::Uplink).arm_interrupt();
        let linked = self.links.as_ref().is_some_and(|links| {
            links.team().lie_down(links.own());
            links.has_any()
        });
        trunk || uplink || linked
    }

    /// See [`Nic::disarm_interrupt`], for both.
    pub fn disarm_interrupts(&mut self) {
        self.ports.nic(Side::Trunk).disarm_interrupt();
        self.ports.nic(Side::Uplink).disarm_interrupt();
        if let Some(links) = &self.links {
            links.team().get_up(links.own());
        }
    }

    /// Does with a frame what the datapath says. Dropping a packet frees it.
    #[inline]
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
