//! Bursts from a NIC through the datapath to where its verdicts say.

use heapless::Deque;
use nve_datapath::{
    BURST, Datapath, DropReason, Extent, Frame, Large, Nanos, Segmentation, Side, Tables, Verdict,
};
use nve_nic::{Burst, Drain, Nic, Packet};

use super::ports::{Ports, TRUNK_FRONT, UPLINK_FRONT, from_nic, to_nic};
use super::team::Links;

/// Most frames that wait for the host stack; what comes in excess is dropped, so
/// that a flood of them cannot take all buffers.
const HOST_QUEUE: usize = 64;

/// In place of a verdict, until the datapath gives one: it has no queues, so it never gives
/// this. Each byte of it has a value, unlike those of [`Verdict::Done`], so that a burst's
/// are written by a few stores.
const UNDECIDED: Verdict = Verdict::Drop(DropReason::QueueFull);

// A burst that a NIC hands over is one that the datapath takes.
const _: () = assert!(BURST == nve_nic::BURST);

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

    #[inline(always)]
    fn is_complete(&self, at: usize, room: usize) -> bool {
        let packet = self.packets.get(at);
        packet.is_some_and(|packet| packet.partial().is_none() && packet.start() >= room)
    }

    #[inline(always)]
    fn leave(&mut self, at: usize, verdict: Verdict) {
        if let Some(room) = self.verdicts.get_mut(at) {
            *room = verdict;
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

    /// Forwards a burst from each side; false if nothing came in.
    #[inline]
    pub fn poll(&mut self, now: Nanos) -> bool {
        let found = self.ports.fetch();
        // What the last turn sent is told of while what was fetched is on its way.
        self.ports.notify();
        self.forward(now, Side::Trunk);
        self.forward(now, Side::Uplink);
        let handed = self.links.is_some() && self.forward_handed(now);
        // Not whether there were frames: for what a NIC drops, too, its device needs others.
        let busy = found || handed;
        // Without free buffers nothing comes in, and nothing but this gives them back.
        if busy || !self.ports.has_free() {
            self.ports.flush();
        }
        if let Some(links) = &mut self.links {
            links.settle(self.ports.pool());
        }
        busy
    }

    /// Forwards a burst that came in on `side`, if there is one.
    fn forward(&mut self, now: Nanos, side: Side) {
        let mut burst = Burst::new();
        self.ports.nic(side).receive(&mut burst);
        if burst.is_empty() {
            return;
        }
        if let [packet] = burst.as_slice()
            && packet.is_large()
        {
            self.forward_or_hand_large(now, burst);
            return;
        }
        if let Some(links) = &mut self.links {
            for _ in 0..links.steer(side, self.ports.pool(), &mut burst) {
                self.datapath.count_drop(now, DropReason::QueueFull);
            }
        }
        self.process(now, side, &mut burst);
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
            verdicts: [UNDECIDED; BURST],
        };
        self.datapath
            .process(now, side, &mut arrived, &mut self.ports);
        let verdicts = arrived.verdicts;
        let verdicts = verdicts.get(..burst.len()).unwrap_or_default();
        self.obey(now, verdicts, Drain::new(burst));
    }

    /// Does with frames what the datapath says of each. Dropping a packet frees it.
    #[inline(always)]
    fn obey(&mut self, now: Nanos, verdicts: &[Verdict], packets: Drain<'_>) {
        match verdicts.first() {
            Some(Verdict::Send(side)) if are_all_for(*side, verdicts) => {
                self.send(now, *side, packets);
            }
            Some(_) => self.obey_each(now, verdicts, packets),
            None => {}
        }
    }

    /// The same where not all are sent on the same side: those for a side become a burst.
    #[inline(never)]
    fn obey_each(&mut self, now: Nanos, verdicts: &[Verdict], packets: Drain<'_>) {
        let (mut trunk, mut uplink) = (Burst::new(), Burst::new());
        for (packet, verdict) in packets.zip(verdicts) {
            match *verdict {
                // They fit: not more than there were.
                Verdict::Send(Side::Trunk) => drop(trunk.push(packet)),
                Verdict::Send(Side::Uplink) => drop(uplink.push(packet)),
                Verdict::Host => {
                    if self.host.push_back(packet).is_err() {
                        self.datapath.count_drop(now, DropReason::QueueFull);
                    }
                }
                // Not taken or not given back, as it is not inside of its buffer. Nobody
                // has counted it.
                UNDECIDED => self.datapath.count_drop(now, DropReason::Truncated),
                Verdict::Drop(_) | Verdict::Done => {}
            }
        }
        self.send(now, Side::Trunk, Drain::new(&mut trunk));
        self.send(now, Side::Uplink, Drain::new(&mut uplink));
    }

    #[inline(always)]
    fn send(&mut self, now: Nanos, side: Side, packets: Drain<'_>) {
        for _ in 0..self.ports.nic(side).send_all(packets) {
            self.datapath.count_drop(now, DropReason::QueueFull);
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
}

/// Whether all frames are to be sent on `side`.
#[inline(always)]
fn are_all_for(side: Side, verdicts: &[Verdict]) -> bool {
    match verdicts.first_chunk() {
        Some(verdicts) => is_burst_for(side, verdicts),
        None => verdicts.iter().all(|verdict| other(side, verdict) == 0),
    }
}

/// The same of as many as there may be, without branches, so for several at a time. Not
/// inlined to where something is known of the first, which would be dealt with apart.
#[inline(never)]
fn is_burst_for(side: Side, verdicts: &[Verdict; BURST]) -> bool {
    let others = verdicts.iter().map(|verdict| other(side, verdict));
    others.fold(0, |others, other| others | other) == 0
}

/// 0 of a frame that is to be sent on `side`, or else something other.
#[inline(always)]
fn other(side: Side, verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Send(to) => *to as u8 ^ side as u8,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use super::*;

    #[test]
    fn a_frame_without_a_verdict_is_dropped_and_counted() {
        let mut bench = Bench::new();
        let free = bench.pool.available();
        let take = |_| bench.pool.take().unwrap();
        let mut burst: Burst = (0..3).map(take).collect();
        let verdicts = [
            UNDECIDED,
            Verdict::Send(Side::Trunk),
            Verdict::Drop(DropReason::Truncated),
        ];
        let forwarder = &mut bench.node.forwarder;
        forwarder.obey(bench.now, &verdicts, Drain::new(&mut burst));
        assert_eq!(bench.trunk.take_sent().len(), 1);
        assert_eq!(bench.pool.available(), free);
        // The datapath has counted what it dropped.
        let counters = bench.node.forwarder.datapath().counters();
        assert_eq!(counters.dropped(DropReason::Truncated), 1);
        assert_eq!(counters.dropped(DropReason::QueueFull), 0);
    }
}
