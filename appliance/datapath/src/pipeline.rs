//! The NVE's datapath: tables, underlay and the rewriting of frames.
//!
//! The first packet of a flow goes through every stage: who sent it, where it
//! goes, whether it may. The outcome is a [`Path`], which the flow cache keeps
//! for the packets after it. Payload is never copied but for replication, where
//! each receiver needs a frame of its own (the last one gets the frame that came
//! in), and for fragments.

mod admit;
mod fast;
mod follow;
mod from_tunnel;
mod lane;
mod large;
mod presence;
mod renew;

use admit::entropy;
use fast::Seen;
pub(crate) use from_tunnel::Way;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use nve_protocol::inspect::{Responder, Step};
use nve_protocol::{Direction, DropReason, PortId, Vap, Vlan};

use crate::connections;
use crate::counters::Counters;
use crate::flow::{Exit, FlowCache, Path};
use crate::forward::{self, Forward, Receivers, Refusal};
use crate::frame::{Burst, Frame};
use crate::glance::Glance;
use crate::inspect::{Capture, DropLog, Tap, steps};
use crate::meter::{Meter, SharedMeters};
use crate::packet::{Headers, Ip};
use crate::replicate;
use crate::respond::ra::Rounds;
use crate::respond::{self, Answer, Reply, Request};
use crate::security::{Admission, Security};
use crate::tables::Tables;
use crate::trunk;
use crate::underlay::{Underlay, Uplink};
use crate::wire::ethernet;
use crate::witness::{Entrance, Incoming, Live, Witness};
use crate::{BURST, Nanos, NextHop, Role, Side, Sink, Verdict};
use crate::{checksum, dscp, icmp, rewrite, spoof};

/// Connections that are looked at for expiry with each burst, and in each tick.
const AGED_PER_BURST: usize = 2;
const AGED_PER_TICK: usize = 1024;

/// What the datapath must know of its NICs and of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Addresses of the uplink.
    pub uplink: Uplink,
    /// Bytes of an IP packet that fit the trunk.
    pub trunk_mtu: u16,
    /// Whether the trunk's NIC completes checksums of frames that are sent.
    pub trunk_checksum: bool,
    /// Most entries of the flow cache, 128 bytes each.
    pub flows: u32,
    /// Secret for hashes over what VMs send.
    pub seed: u64,
    /// Sizes of the connection table, and what it goes by.
    pub connections: connections::Config,
}

/// Of frames that no security group is asked about.
const UNCHECKED: Admission = Admission {
    connection: None,
    rule: None,
    lasting: true,
};

/// The datapath of one NVE.
#[derive(Debug)]
pub struct Datapath {
    pub(crate) config: Config,
    pub(crate) tables: Tables,
    pub(crate) underlay: Underlay,
    pub(crate) counters: Counters,
    pub(crate) flows: FlowCache,
    /// Room for what is seen of a burst.
    seen: Box<[Seen]>,
    pub(crate) security: Security,
    /// The newest drops.
    pub(crate) drops: DropLog,
    /// What is copied for somebody to see.
    pub(crate) capture: Option<Capture>,
    /// The port of each VAP, by tag, whose connections are tracked.
    ports: Vec<Option<PortId>>,
    /// Limits ICMP errors.
    errors: Meter,
    /// Whose turn it is to hear its routers.
    rounds: Rounds,
    /// That of the tables, beside what the fast path reads.
    pub(crate) epoch: u32,
}

impl Datapath {
    /// A datapath that forwards by `tables`.
    pub fn new(config: Config, mut tables: Tables) -> Self {
        tables.tell_changes_apart();
        let underlay = Underlay::new(config.uplink);
        let mut datapath = Datapath {
            config,
            tables,
            underlay,
            counters: Counters::default(),
            flows: FlowCache::new(config.flows, config.seed),
            seen: alloc::vec![Seen::NOTHING; BURST].into_boxed_slice(),
            security: Security::new(&config.connections),
            drops: DropLog::new(),
            capture: None,
            ports: alloc::vec![None; usize::from(Vlan::MAX) + 1],
            errors: icmp::limiter(),
            rounds: Rounds::default(),
            epoch: 0,
        };
        datapath.update(Nanos(0), |_| ());
        datapath
    }

    /// Makes it one of an NVE's datapaths, one for each processor, before anything is
    /// done with it. All have the same tables, if the same is done to them in the same
    /// order.
    pub fn share(&mut self, role: Role, meters: Arc<SharedMeters>) {
        self.underlay.set_role(role);
        self.tables.share_meters(meters, role);
    }

    /// The tables in force.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Counters since boot.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Lets `change` work on the tables, or put others in their place. No frame
    /// is processed meanwhile, so frames see all of the change or nothing of it.
    pub fn update<T>(&mut self, now: Nanos, change: impl FnOnce(&mut Tables) -> T) -> T {
        let result = change(&mut self.tables);
        self.tables.settle();
        let changes = self.tables.changes();
        self.epoch = changes.epoch();
        self.flows.sweep(changes);
        self.security.sweep(changes);
        if self.tables.take_vteps_changed() {
            self.underlay.follow(&self.tables, now);
        }
        if self.tables.take_vaps_changed() {
            self.forget_ports();
        }
        result
    }

    /// Forgets the connections of ports that are no more behind their tag, so that
    /// none passes for one of the tag's next port.
    fn forget_ports(&mut self) {
        for (tag, known) in (0..).zip(&mut self.ports) {
            let port = self.tables.vap(tag).map(|vap| vap.port);
            if *known != port
                && known.is_some()
                && let Some(vlan) = Vlan::new(tag)
            {
                self.security.forget(vlan);
                // What it has is the other port's.
                self.capture = self.capture.take().filter(|capture| !capture.is_of(vlan));
            }
            *known = port;
        }
    }

    /// Sends what is due, probes of next hops and router advertisements to VAPs, and
    /// returns when to call again; to be called after each [`update`](Self::update)
    /// too.
    pub fn tick(&mut self, now: Nanos, sink: &mut impl Sink) -> Nanos {
        self.security.age_by_time(now, AGED_PER_TICK);
        let mut capture = self.capture.take().filter(|capture| capture.is_wanted(now));
        if self.underlay.role() == Role::Other {
            self.capture = capture;
            return self.underlay.tick(now, sink);
        }
        self.advertise(now, &mut Tap::new(sink, capture.as_mut(), now));
        self.capture = capture;
        self.underlay.tick(now, sink).min(self.rounds.due())
    }

    /// Sends the router advertisements that are due.
    fn advertise(&mut self, now: Nanos, sink: &mut impl Sink) {
        let mut reply = Reply::new();
        while let Some(vlan) = self.rounds.next(&self.tables, now, &mut reply) {
            if let Err(reason) = replicate::emit_untagged(reply.bytes(), vlan, sink) {
                self.count_drop(now, reason);
            }
        }
    }

    /// What was learned of next hops since the last call, for the other processors'
    /// datapaths, in order with changes of the tables.
    pub fn take_learned(&mut self) -> Vec<NextHop> {
        self.underlay.take_learned()
    }

    /// Learns of a next hop what the first processor's datapath has.
    pub fn learn(&mut self, next: NextHop) {
        self.underlay.learn(next, &self.tables);
    }

    /// Counts a frame that the caller could not send.
    pub fn count_drop(&mut self, now: Nanos, reason: DropReason) {
        self.counters.count_drop(reason);
        self.drops.push(steps::unread(now, reason));
    }

    /// Processes the first [`BURST`] frames of those that came in on `ingress`, and
    /// gives them back with what to do with them.
    #[inline]
    pub fn process(
        &mut self,
        now: Nanos,
        ingress: Side,
        burst: &mut impl Burst,
        sink: &mut impl Sink,
    ) {
        self.security.age(now, AGED_PER_BURST);
        if self.capture.is_some() {
            return self.process_captured(now, ingress, burst, sink);
        }
        // In a place of its own while the rest of the datapath is at work.
        let mut all = core::mem::replace(&mut self.seen, Box::new([]));
        if let Some(seen) = all.first_chunk_mut() {
            match ingress {
                Side::Trunk => self.process_burst::<true>(now, burst, seen, sink),
                Side::Uplink => self.process_burst::<false>(now, burst, seen, sink),
            }
        }
        self.seen = all;
    }

    /// The same, with copies of what passes the captured VAP.
    #[cold]
    fn process_captured(
        &mut self,
        now: Nanos,
        ingress: Side,
        burst: &mut impl Burst,
        sink: &mut impl Sink,
    ) {
        let mut capture = self.capture.take();
        for at in 0..burst.len().min(BURST) {
            let Some(mut frame) = burst.frame(at) else {
                continue;
            };
            let mut tap = Tap::new(sink, capture.as_mut(), now);
            let verdict = self.process_tapped(now, ingress, &mut frame, &mut tap);
            let extent = frame.extent();
            burst.give_back(at, extent, verdict);
        }
        self.capture = capture;
    }

    /// Processes a frame by itself, with copies for a capture if there is one.
    #[inline(never)]
    fn process_tapped<S: Sink>(
        &mut self,
        now: Nanos,
        ingress: Side,
        frame: &mut Frame<'_>,
        tap: &mut Tap<'_, S>,
    ) -> Verdict {
        if ingress == Side::Trunk {
            tap.copy(Direction::Egress, &[frame.bytes()]);
        }
        let verdict = self.process_single(now, ingress, frame, &mut Live::new(tap));
        if verdict == Verdict::Send(Side::Trunk) {
            tap.copy(Direction::Ingress, &[frame.bytes()]);
        }
        verdict
    }

    /// Every stage, for the first packet of a flow and for all that has none.
    #[inline(never)]
    pub(crate) fn process_one(
        &mut self,
        now: Nanos,
        ingress: Side,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
    ) -> Verdict {
        let outcome = match ingress {
            Side::Trunk => self.process_trunk(now, frame, witness),
            Side::Uplink => self.process_uplink(now, frame, witness),
        };
        outcome.unwrap_or_else(|reason| {
            if !witness.is_tracing() {
                self.count_drop(now, reason);
            }
            witness.note(|| steps::dropped(reason));
            Verdict::Drop(reason)
        })
    }
}

/// From the trunk.
impl Datapath {
    /// The error is of a frame whose sender is not known.
    pub(crate) fn process_trunk(
        &mut self,
        now: Nanos,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
    ) -> Result<Verdict, DropReason> {
        checksum::check_partial(frame, trunk::TAGGED_HEADER)?;
        let vap = *trunk::sender(&self.tables, frame.bytes())?;
        witness.note(|| Step::From(steps::via_vap(&vap)));
        let from = Entrance::Vap(&vap);
        let headers = match Headers::parse(frame.bytes()) {
            Ok(headers) => headers,
            Err(reason) => return Ok(self.lose(now, from, None, reason, witness)),
        };
        let incoming = Incoming {
            now,
            from,
            headers: &headers,
        };
        let source = self.check_source(&incoming, &vap, frame, witness);
        let outcome = source.and_then(|()| {
            let outcome = self.forward_from_vap(&incoming, &vap, frame, witness);
            self.hear(now, &vap, witness);
            outcome
        });
        Ok(outcome.unwrap_or_else(|reason| self.lose(now, from, Some(&headers), reason, witness)))
    }

    /// Whether a VM may send this, from this source.
    fn check_source(
        &self,
        incoming: &Incoming<'_>,
        vap: &Vap,
        frame: &Frame<'_>,
        witness: &mut impl Witness,
    ) -> Result<(), DropReason> {
        let headers = incoming.headers;
        trunk::check(headers)?;
        let source = spoof::source(&self.tables, vap, headers, frame.bytes())?;
        witness.note(|| Step::Source(steps::source(&source)));
        Ok(())
    }

    fn forward_from_vap(
        &mut self,
        incoming: &Incoming<'_>,
        vap: &Vap,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
    ) -> Result<Verdict, DropReason> {
        let headers = incoming.headers;
        if self.respond(vap, headers, frame, witness)? {
            return Ok(Verdict::Done);
        }
        let sent = self.admit(incoming, vap, Direction::Egress, frame, witness)?;
        let gateway = forward::gateway_of(&self.tables, vap.vni, headers.destination);
        if let Some(gateway) = gateway {
            witness.note(|| steps::router(gateway));
        }
        let forward = match forward::decide(&self.tables, vap, headers, frame.bytes()) {
            Ok(forward) => forward,
            Err(refusal) => return self.refuse(incoming, vap, refusal, frame, witness),
        };
        if let Some(routed) = &forward.routed {
            witness.note(|| steps::route(routed));
        }
        witness.note(|| steps::receiver(&self.tables, &forward, headers));
        let exit = match forward.receivers {
            Receivers::Vap(vlan) => Exit::Vap(vlan),
            Receivers::Vtep(vtep) => Exit::Tunnel(vtep),
            Receivers::All | Receivers::Unknown => {
                return self.replicate_from_trunk(incoming, vap, &forward, frame, witness);
            }
        };
        let got = self.admit_at(incoming, exit, frame, witness)?;
        let rewrite = forward.routed.map(|routed| (routed.rewrite, routed.mtu));
        let egress = self.tables.meter(vap.vlan, Direction::Egress);
        let path = Path::new(forward.vni, exit)
            .following([sent.connection, got.connection])
            .rewriting(rewrite)
            .metered(egress, self.ingress_meter(exit))
            .marking(self.tables.qos(vap.vlan).and_then(|qos| qos.dscp))
            .spread(entropy(exit, &forward, frame.bytes()));
        if sent.lasting
            && got.lasting
            && !witness.is_tracing()
            && !respond::is_dhcp(headers)
            && let Some(glance) = Glance::of_vap(frame.bytes())
        {
            self.flows
                .insert(glance.key, path, self.epoch, incoming.now);
        }
        let span = headers.ip.as_ref().map(Ip::span);
        self.follow_from_trunk(incoming.now, span, &path, frame, witness)
    }

    /// Answers what the NVE answers by itself; whether the frame is done with.
    fn respond(
        &mut self,
        vap: &Vap,
        headers: &Headers,
        frame: &Frame<'_>,
        witness: &mut impl Witness,
    ) -> Result<bool, DropReason> {
        let request = Request {
            tables: &self.tables,
            vap,
            headers,
            frame: frame.bytes(),
        };
        let mut reply = Reply::new();
        let answer = respond::answer(&request, &mut reply)?;
        if answer == Answer::Pass {
            return Ok(false);
        }
        witness.note(|| Step::Responder(steps::responder(headers)));
        if answer == Answer::Reply {
            count_answer(&mut self.counters, witness);
            replicate::emit_untagged(reply.bytes(), vap.vlan, witness)?;
            let mut told = 1;
            while respond::answer_more(&request, told, &mut reply)? {
                replicate::emit_untagged(reply.bytes(), vap.vlan, witness)?;
                told += 1;
            }
        }
        Ok(true)
    }

    /// Does with a packet what a router does that cannot forward it.
    fn refuse(
        &mut self,
        incoming: &Incoming<'_>,
        vap: &Vap,
        refusal: Refusal,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
    ) -> Result<Verdict, DropReason> {
        let error = match refusal {
            Refusal::Silent(reason) => return Err(reason),
            Refusal::HopLimit => icmp::Error::HopLimit,
            Refusal::NoRoute => icmp::Error::NoRoute,
            Refusal::NoNeighbor => icmp::Error::NoNeighbor,
            Refusal::Gateway => {
                checksum::complete(frame)?;
                if respond::echo::turn(frame.bytes_mut(), incoming.headers).is_ok() {
                    self.check_trunk_mtu(frame.len() - ethernet::TAG)?;
                    count_answer(&mut self.counters, witness);
                    witness.note(|| Step::Responder(Responder::Echo));
                    return Ok(Verdict::Send(Side::Trunk));
                }
                respond::unserved(incoming.headers)
            }
        };
        self.explain(incoming, vap, error, frame, witness);
        Err(refusal.reason())
    }

    /// Tells the sender why its packet was dropped, within the limit for that.
    fn explain(
        &mut self,
        incoming: &Incoming<'_>,
        vap: &Vap,
        error: icmp::Error,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
    ) {
        let headers = incoming.headers;
        let gateway = forward::gateway_of(&self.tables, vap.vni, headers.destination);
        let Some(gateway) = gateway else { return };
        // The packet is quoted as its sender meant it.
        if checksum::complete(frame).is_err() {
            return;
        }
        let mut reply = Reply::new();
        if icmp::error(error, headers, frame.bytes(), gateway, &mut reply)
            && self.may_explain(incoming.now, witness)
        {
            witness.note(|| Step::Responder(Responder::Icmp));
            let sent = replicate::emit_untagged(reply.bytes(), vap.vlan, witness);
            self.count(incoming, sent, witness);
        }
    }

    /// Whether the limit for ICMP errors has room for one.
    fn may_explain(&mut self, now: Nanos, witness: &impl Witness) -> bool {
        match witness.is_tracing() {
            true => { self.errors }.admit(now, 0),
            false => self.errors.admit(now, 0),
        }
    }

    /// Sends a tagged frame to another VAP.
    fn switch(&self, frame: &mut Frame<'_>, vlan: Vlan) -> Result<Verdict, DropReason> {
        self.check_trunk_mtu(frame.len() - ethernet::TAG)?;
        if !self.config.trunk_checksum {
            checksum::complete(frame)?;
        }
        trunk::retag(frame, vlan);
        Ok(Verdict::Send(Side::Trunk))
    }

    /// Gives a tagged frame to every receiver: VAPs of this NVE but the sender,
    /// and VTEPs. Copies to VAPs go first, while the frame has its tag.
    fn replicate_from_trunk(
        &mut self,
        incoming: &Incoming<'_>,
        vap: &Vap,
        forward: &Forward,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
    ) -> Result<Verdict, DropReason> {
        let headers = incoming.headers;
        checksum::complete(frame)?;
        let mut group = replicate::Receivers::new(forward, headers.destination, Some(vap.vlan));
        let mark = self.tables.qos(vap.vlan).and_then(|qos| qos.dscp);
        if let (Some(routed), Some(ip)) = (&forward.routed, &headers.ip)
            && forward::is_too_big(ip, routed.mtu)
        {
            let error = icmp::Error::TooBig { mtu: routed.mtu };
            self.explain(incoming, vap, error, frame, witness);
            return Err(DropReason::TooBig);
        }
        let meter = self.tables.meter(vap.vlan, Direction::Egress);
        self.admit_rate(incoming.now, meter, frame.len() - ethernet::TAG, witness)?;
        if let Some(ip) = &headers.ip {
            if let Some(mark) = mark {
                dscp::mark(frame.bytes_mut(), ip.header, mark);
                witness.note(|| Step::Mark { dscp: mark });
            }
            if let Some(routed) = &forward.routed {
                rewrite::route(frame, ip.span(), &routed.rewrite);
                witness.note(|| steps::rewrite(&routed.rewrite));
            }
        }
        let last = self.copy_to_vaps(incoming, &mut group, frame, witness);
        let Some(mut vtep) = group.next_vtep(&self.tables) else {
            return match last {
                Some(vlan) => self.switch(frame, vlan),
                None if group.is_nobody() => Err(DropReason::NoReceiver),
                None => Ok(Verdict::Done),
            };
        };
        if let Some(vlan) = last {
            let sent = replicate::emit_tagged(frame.bytes(), vlan, witness);
            self.count(incoming, sent, witness);
        }
        trunk::untag(frame)?;
        while let Some(next) = group.next_vtep(&self.tables) {
            let sent = self.emit_tunnelled([frame.bytes()], forward.vni, vtep, mark, witness);
            self.count(incoming, sent, witness);
            vtep = next;
        }
        self.encapsulate(frame, forward.vni, vtep, mark)
    }

    /// Copies a tagged frame to all VAPs of a group that may have it but the last,
    /// which is returned: it can have the frame itself.
    fn copy_to_vaps(
        &mut self,
        incoming: &Incoming<'_>,
        group: &mut replicate::Receivers,
        frame: &Frame<'_>,
        witness: &mut impl Witness,
    ) -> Option<Vlan> {
        let mut last: Option<Vlan> = None;
        let length = frame.len() - ethernet::TAG;
        while let Some(vlan) = group.next_vap(&self.tables) {
            let admitted = self.admit_copy(incoming, vlan, frame, length, witness);
            if self.count(incoming, admitted, witness)
                && let Some(earlier) = last.replace(vlan)
            {
                let sent = replicate::emit_tagged(frame.bytes(), earlier, witness);
                self.count(incoming, sent, witness);
            }
        }
        last
    }
}

/// Counts a request that the NVE answers itself.
fn count_answer(counters: &mut Counters, witness: &impl Witness) {
    if !witness.is_tracing() {
        counters.answers += 1;
    }
}
