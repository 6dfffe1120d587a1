//! The NVE's datapath: tables, underlay and the rewriting of frames.
//!
//! The first packet of a flow goes through every stage: who sent it, where it
//! goes, whether it may. The outcome is a [`Path`], which the flow cache keeps
//! for the packets after it. Payload is never copied but for replication, where
//! each receiver needs a frame of its own (the last one gets the frame that came
//! in), and for fragments.

use alloc::vec::Vec;

use nve_protocol::{Direction, DropReason, PortId, Vap, Vlan, Vni};

use crate::connections;
use crate::counters::Counters;
use crate::flow::{Exit, FlowCache, FlowKey, Path};
use crate::forward::{self, Forward, Receivers, Refusal};
use crate::frame::Frame;
use crate::meter::Meter;
use crate::packet::{Headers, Ip};
use crate::replicate;
use crate::respond::ra::Rounds;
use crate::respond::{self, Answer, Reply, Request};
use crate::security::{Admission, Packet, Security};
use crate::tables::{MeterIndex, Tables, VtepIndex};
use crate::trunk;
use crate::underlay::{Underlay, Uplink};
use crate::uplink;
use crate::wire::{ethernet, vxlan};
use crate::{BURST, Nanos, Side, Sink, Verdict};
use crate::{checksum, dscp, fragment, icmp, rewrite, spoof};

/// Connections that are looked at for expiry with each burst, and in each tick.
const AGED_PER_BURST: usize = 8;
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
    flows: FlowCache,
    security: Security,
    /// The port of each VAP, by tag, whose connections are tracked.
    ports: Vec<Option<PortId>>,
    /// Limits ICMP errors.
    errors: Meter,
    /// Whose turn it is to hear its routers.
    rounds: Rounds,
    /// Counts changes of the tables; verdicts of another epoch are stale.
    epoch: u32,
}

impl Datapath {
    /// A datapath that forwards by `tables`.
    pub fn new(config: Config, tables: Tables) -> Self {
        let underlay = Underlay::new(config.uplink);
        let mut datapath = Datapath {
            config,
            tables,
            underlay,
            counters: Counters::default(),
            flows: FlowCache::new(config.flows, config.seed),
            security: Security::new(&config.connections),
            ports: alloc::vec![None; usize::from(Vlan::MAX) + 1],
            errors: icmp::limiter(),
            rounds: Rounds::default(),
            epoch: 0,
        };
        datapath.update(Nanos(0), |_| ());
        datapath
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
        self.epoch = self.epoch.wrapping_add(1);
        self.tables.settle();
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
            }
            *known = port;
        }
    }

    /// Sends what is due, probes of next hops and router advertisements to VAPs, and
    /// returns when to call again; to be called after each [`update`](Self::update)
    /// too.
    pub fn tick(&mut self, now: Nanos, sink: &mut impl Sink) -> Nanos {
        self.security.age(now, AGED_PER_TICK);
        let mut reply = Reply::new();
        while let Some(vlan) = self.rounds.next(&self.tables, now, &mut reply) {
            if let Err(reason) = replicate::emit_untagged(reply.bytes(), vlan, sink) {
                self.counters.count_drop(reason);
            }
        }
        self.underlay.tick(now, sink).min(self.rounds.due())
    }

    /// Counts a frame that the caller could not send.
    pub fn count_drop(&mut self, reason: DropReason) {
        self.counters.count_drop(reason);
    }

    /// Processes up to [`BURST`] frames that came in on `ingress`. Afterwards
    /// `verdicts` says for each of them, in order, what to do with it; frames past
    /// the shorter of both lists are not looked at.
    pub fn process(
        &mut self,
        now: Nanos,
        ingress: Side,
        burst: &mut [Frame<'_>],
        verdicts: &mut [Verdict],
        sink: &mut impl Sink,
    ) {
        self.security.age(now, AGED_PER_BURST);
        for (frame, verdict) in burst.iter_mut().zip(verdicts).take(BURST) {
            let result = match ingress {
                Side::Trunk => self.process_trunk(now, frame, sink),
                Side::Uplink => self.process_uplink(now, frame, sink),
            };
            *verdict = result.unwrap_or_else(|reason| {
                self.counters.count_drop(reason);
                Verdict::Drop(reason)
            });
        }
    }
}

/// From the trunk.
impl Datapath {
    fn process_trunk(
        &mut self,
        now: Nanos,
        frame: &mut Frame<'_>,
        sink: &mut impl Sink,
    ) -> Result<Verdict, DropReason> {
        checksum::check_partial(frame, trunk::TAGGED_HEADER)?;
        let vap = *trunk::sender(&self.tables, frame.bytes())?;
        let headers = Headers::parse(frame.bytes())?;
        let key = FlowKey::of_vap(vap.vlan, &headers);
        if let Some(key) = &key
            && let Some(path) = self.flows.find(key, self.epoch, now)
            && path.takes(&headers)
        {
            return self.follow_from_trunk(now, &vap, &path, &headers, frame, sink);
        }
        self.first_from_trunk(now, &vap, &headers, key, frame, sink)
    }

    /// Every stage, for the first packet of a flow and for all that has none.
    fn first_from_trunk(
        &mut self,
        now: Nanos,
        vap: &Vap,
        headers: &Headers,
        key: Option<FlowKey>,
        frame: &mut Frame<'_>,
        sink: &mut impl Sink,
    ) -> Result<Verdict, DropReason> {
        trunk::check(headers)?;
        spoof::check(&self.tables, vap, headers, frame.bytes())?;
        if self.respond(vap, headers, frame, sink)? {
            return Ok(Verdict::Done);
        }
        let sent = self.admit(now, vap, Direction::Egress, headers, frame)?;
        let forward = match forward::decide(&self.tables, vap, headers) {
            Ok(forward) => forward,
            Err(refusal) => return self.refuse(now, vap, refusal, headers, frame, sink),
        };
        let exit = match forward.receivers {
            Receivers::Vap(vlan) => Exit::Vap(vlan),
            Receivers::Vtep(vtep) => Exit::Tunnel(vtep),
            Receivers::All | Receivers::Unknown => {
                return self.replicate_from_trunk(now, vap, headers, &forward, frame, sink);
            }
        };
        let got = self.admit_at(now, exit, headers, frame)?;
        let path = Path {
            vni: forward.vni,
            exit,
            rewrite: forward.routed.map(|routed| (routed.rewrite, routed.mtu)),
            connections: [sent.connection, got.connection],
            egress: self.tables.meter(vap.vlan, Direction::Egress),
            ingress: self.ingress_meter(exit),
            dscp: self.tables.qos(vap.vlan).and_then(|qos| qos.dscp),
        };
        if let Some(key) = key
            && sent.lasting
            && got.lasting
        {
            self.flows.insert(key, path, self.epoch, now);
        }
        self.follow_from_trunk(now, vap, &path, headers, frame, sink)
    }

    /// Answers what the NVE answers by itself; whether the frame is done with.
    fn respond(
        &mut self,
        vap: &Vap,
        headers: &Headers,
        frame: &Frame<'_>,
        sink: &mut impl Sink,
    ) -> Result<bool, DropReason> {
        let request = Request {
            tables: &self.tables,
            vap,
            headers,
            frame: frame.bytes(),
        };
        let mut reply = Reply::new();
        match respond::answer(&request, &mut reply)? {
            Answer::Pass => return Ok(false),
            Answer::Consumed => {}
            Answer::Reply => {
                self.counters.answers += 1;
                replicate::emit_untagged(reply.bytes(), vap.vlan, sink)?;
            }
        }
        Ok(true)
    }

    /// Does with a packet what a router does that cannot forward it.
    fn refuse(
        &mut self,
        now: Nanos,
        vap: &Vap,
        refusal: Refusal,
        headers: &Headers,
        frame: &mut Frame<'_>,
        sink: &mut impl Sink,
    ) -> Result<Verdict, DropReason> {
        let error = match refusal {
            Refusal::Silent(reason) => return Err(reason),
            Refusal::HopLimit => icmp::Error::HopLimit,
            Refusal::NoRoute => icmp::Error::NoRoute,
            Refusal::NoNeighbor => icmp::Error::NoNeighbor,
            Refusal::Gateway => {
                checksum::complete(frame)?;
                if respond::echo::turn(frame.bytes_mut(), headers).is_ok() {
                    self.counters.answers += 1;
                    return Ok(Verdict::Send(Side::Trunk));
                }
                respond::unserved(headers)
            }
        };
        self.explain(now, vap, error, headers, frame, sink);
        Err(refusal.reason())
    }

    /// Tells the sender why its packet was dropped, within the limit for that.
    fn explain(
        &mut self,
        now: Nanos,
        vap: &Vap,
        error: icmp::Error,
        headers: &Headers,
        frame: &mut Frame<'_>,
        sink: &mut impl Sink,
    ) {
        let gateway = forward::gateway_of(&self.tables, vap.vni, headers.destination);
        let Some(gateway) = gateway else { return };
        // The packet is quoted as its sender meant it.
        if checksum::complete(frame).is_err() {
            return;
        }
        let mut reply = Reply::new();
        if icmp::error(error, headers, frame.bytes(), gateway, &mut reply)
            && self.errors.admit(now, 0)
        {
            let sent = replicate::emit_untagged(reply.bytes(), vap.vlan, sink);
            self.count(sent);
        }
    }

    /// Does with a tagged frame what its flow's verdict says.
    fn follow_from_trunk(
        &mut self,
        now: Nanos,
        vap: &Vap,
        path: &Path,
        headers: &Headers,
        frame: &mut Frame<'_>,
        sink: &mut impl Sink,
    ) -> Result<Verdict, DropReason> {
        let mut mtu = None;
        if let (Some((_, limit)), Some(ip)) = (&path.rewrite, &headers.ip)
            && forward::is_too_big(ip, *limit)
        {
            if !fragment::is_allowed(frame.bytes(), ip) {
                let error = icmp::Error::TooBig { mtu: *limit };
                self.explain(now, vap, error, headers, frame, sink);
                return Err(DropReason::TooBig);
            }
            mtu = Some(*limit);
        }
        let length = frame.len() - ethernet::TAG;
        self.admit_rate(now, path.egress, length)?;
        self.admit_rate(now, path.ingress, length)?;
        if let Some(ip) = &headers.ip {
            if let Some(mark) = path.dscp {
                dscp::mark(frame.bytes_mut(), ip.header, mark);
            }
            if let Some((addresses, _)) = &path.rewrite {
                rewrite::route(frame, ip, addresses);
            }
            if let Some(mtu) = mtu {
                return self.send_in_pieces(path, ip, mtu, frame, sink);
            }
        }
        match path.exit {
            Exit::Vap(vlan) => self.switch(frame, vlan),
            Exit::Tunnel(vtep) => {
                checksum::complete(frame)?;
                trunk::untag(frame)?;
                self.encapsulate(frame, path.vni, vtep, path.dscp)
            }
        }
    }

    /// Sends a tagged frame's IPv4 packet in fragments.
    fn send_in_pieces(
        &mut self,
        path: &Path,
        ip: &Ip,
        mtu: u16,
        frame: &mut Frame<'_>,
        sink: &mut impl Sink,
    ) -> Result<Verdict, DropReason> {
        checksum::complete(frame)?;
        let bytes = frame.bytes();
        let addresses = bytes.get(..ethernet::ADDRESSES).unwrap_or_default();
        let ethertype = ethernet::IPV4.to_be_bytes();
        fragment::split(bytes, ip, mtu, |header, payload| {
            let sent = match path.exit {
                Exit::Vap(vlan) => {
                    let length = ethernet::HEADER + header.len() + payload.len();
                    let tag = trunk::tag_bytes(vlan);
                    let parts = [addresses, &tag, &ethertype, header, payload];
                    let fits = self.check_trunk_mtu(length);
                    fits.and_then(|()| replicate::emit(sink, &parts))
                }
                Exit::Tunnel(vtep) => {
                    let inner = [addresses, &ethertype, header, payload];
                    self.emit_tunnelled(inner, path.vni, vtep, path.dscp, sink)
                }
            };
            self.count(sent);
        })?;
        Ok(Verdict::Done)
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
        now: Nanos,
        vap: &Vap,
        headers: &Headers,
        forward: &Forward,
        frame: &mut Frame<'_>,
        sink: &mut impl Sink,
    ) -> Result<Verdict, DropReason> {
        checksum::complete(frame)?;
        let mut group = replicate::Receivers::new(forward, headers.destination, Some(vap.vlan));
        let mark = self.tables.qos(vap.vlan).and_then(|qos| qos.dscp);
        if let (Some(routed), Some(ip)) = (&forward.routed, &headers.ip)
            && forward::is_too_big(ip, routed.mtu)
        {
            return Err(DropReason::TooBig);
        }
        let meter = self.tables.meter(vap.vlan, Direction::Egress);
        self.admit_rate(now, meter, frame.len() - ethernet::TAG)?;
        if let Some(ip) = &headers.ip {
            if let Some(mark) = mark {
                dscp::mark(frame.bytes_mut(), ip.header, mark);
            }
            if let Some(routed) = &forward.routed {
                rewrite::route(frame, ip, &routed.rewrite);
            }
        }
        let mut last = None;
        while let Some(vlan) = group.next_vap(&self.tables) {
            let admitted = self.admit_copy(now, vlan, headers, frame, frame.len() - ethernet::TAG);
            if self.count(admitted)
                && let Some(earlier) = last.replace(vlan)
            {
                let sent = replicate::emit_tagged(frame.bytes(), earlier, sink);
                self.count(sent);
            }
        }
        let Some(mut vtep) = group.next_vtep(&self.tables) else {
            return match last {
                Some(vlan) => self.switch(frame, vlan),
                None if group.is_nobody() => Err(DropReason::NoReceiver),
                None => Ok(Verdict::Done),
            };
        };
        if let Some(vlan) = last {
            let sent = replicate::emit_tagged(frame.bytes(), vlan, sink);
            self.count(sent);
        }
        trunk::untag(frame)?;
        while let Some(next) = group.next_vtep(&self.tables) {
            let sent = self.emit_tunnelled([frame.bytes()], forward.vni, vtep, mark, sink);
            self.count(sent);
            vtep = next;
        }
        self.encapsulate(frame, forward.vni, vtep, mark)
    }
}

/// From the uplink.
impl Datapath {
    fn process_uplink(
        &mut self,
        now: Nanos,
        frame: &mut Frame<'_>,
        sink: &mut impl Sink,
    ) -> Result<Verdict, DropReason> {
        checksum::complete(frame)?;
        match uplink::classify(self.underlay.uplink(), frame.bytes())? {
            uplink::Arrival::Host => Ok(Verdict::Host),
            uplink::Arrival::Claim(claim) => {
                self.underlay.hear(&claim, &self.tables, now);
                Ok(Verdict::Host)
            }
            uplink::Arrival::Tunnelled {
                vni,
                source,
                inner,
                end,
            } => {
                let vtep = uplink::sender(&self.tables, vni, source)?;
                uplink::decapsulate(frame, inner, end)?;
                self.process_tunnelled(now, vni, vtep, frame, sink)
            }
        }
    }

    /// A frame that came out of a tunnel.
    fn process_tunnelled(
        &mut self,
        now: Nanos,
        vni: Vni,
        vtep: VtepIndex,
        frame: &mut Frame<'_>,
        sink: &mut impl Sink,
    ) -> Result<Verdict, DropReason> {
        let headers = Headers::parse(frame.bytes())?;
        uplink::check(&headers)?;
        let key = FlowKey::of_tunnel(vni, vtep, &headers);
        if let Some(key) = &key
            && let Some(path) = self.flows.find(key, self.epoch, now)
            && self.touch(&path, &headers, now)
            && let Exit::Vap(vlan) = path.exit
        {
            self.admit_rate(now, path.ingress, frame.len())?;
            return self.deliver(frame, vlan);
        }
        match uplink::resolve(&self.tables, vni, headers.destination) {
            Receivers::Vap(vlan) => {
                let exit = Exit::Vap(vlan);
                let got = self.admit_at(now, exit, &headers, frame)?;
                let path = Path {
                    vni,
                    exit,
                    rewrite: None,
                    connections: [None, got.connection],
                    egress: None,
                    ingress: self.ingress_meter(exit),
                    dscp: None,
                };
                if let Some(key) = key
                    && got.lasting
                {
                    self.flows.insert(key, path, self.epoch, now);
                }
                self.admit_rate(now, path.ingress, frame.len())?;
                self.deliver(frame, vlan)
            }
            receivers => {
                let forward = Forward {
                    vni,
                    receivers,
                    routed: None,
                };
                let group = replicate::Receivers::new(&forward, headers.destination, None);
                self.replicate_to_vaps(now, group, &headers, frame, sink)
            }
        }
    }

    /// Sends an untagged frame to a VAP.
    fn deliver(&self, frame: &mut Frame<'_>, vlan: Vlan) -> Result<Verdict, DropReason> {
        self.check_trunk_mtu(frame.len())?;
        trunk::tag(frame, vlan)?;
        Ok(Verdict::Send(Side::Trunk))
    }

    /// Gives an untagged frame, out of a tunnel, to VAPs of its network.
    fn replicate_to_vaps(
        &mut self,
        now: Nanos,
        mut group: replicate::Receivers,
        headers: &Headers,
        frame: &mut Frame<'_>,
        sink: &mut impl Sink,
    ) -> Result<Verdict, DropReason> {
        let mut last = None;
        while let Some(vlan) = group.next_vap(&self.tables) {
            let admitted = self.admit_copy(now, vlan, headers, frame, frame.len());
            if self.count(admitted)
                && let Some(earlier) = last.replace(vlan)
            {
                let sent = replicate::emit_untagged(frame.bytes(), earlier, sink);
                self.count(sent);
            }
        }
        match last {
            Some(vlan) => self.deliver(frame, vlan),
            None if group.is_nobody() => Err(group.nobody()),
            None => Ok(Verdict::Done),
        }
    }
}

/// Into tunnels, and within limits.
impl Datapath {
    /// Sends an untagged frame to a VTEP.
    fn encapsulate(
        &self,
        frame: &mut Frame<'_>,
        vni: Vni,
        vtep: VtepIndex,
        mark: Option<u8>,
    ) -> Result<Verdict, DropReason> {
        let outer = self.outer_headers(&[frame.bytes()], vni, vtep, mark)?;
        let outer = outer.bytes();
        let room = frame.push_front(outer.len()).ok_or(DropReason::NoBuffer)?;
        crate::wire::put(room, 0, outer);
        Ok(Verdict::Send(Side::Uplink))
    }

    /// Outer headers for the inner frame that `parts` join to.
    fn outer_headers(
        &self,
        parts: &[&[u8]],
        vni: Vni,
        vtep: VtepIndex,
        mark: Option<u8>,
    ) -> Result<vxlan::Headers, DropReason> {
        let tunnel = self.underlay.tunnel(vtep)?;
        let label = vxlan::Label {
            vni,
            // Pieces of a packet share the way of its first part: its addresses.
            entropy: trunk::entropy(parts.first().copied().unwrap_or_default()),
            dscp: mark.unwrap_or(0),
        };
        let outer = tunnel.emit(parts, &label, self.config.uplink.mtu);
        outer.ok_or(DropReason::TooBig)
    }

    /// Copies an untagged frame, in at most four parts, to a VTEP.
    fn emit_tunnelled<const PARTS: usize>(
        &self,
        inner: [&[u8]; PARTS],
        vni: Vni,
        vtep: VtepIndex,
        mark: Option<u8>,
        sink: &mut impl Sink,
    ) -> Result<(), DropReason> {
        let outer = self.outer_headers(&inner, vni, vtep, mark)?;
        let parts: heapless::Vec<&[u8], 5> = core::iter::once(outer.bytes()).chain(inner).collect();
        sink.emit(Side::Uplink, &parts, None)
            .map_err(|_| DropReason::NoBuffer)
    }

    /// What meters the frames that leave there; behind a tunnel, nothing here.
    fn ingress_meter(&self, exit: Exit) -> Option<MeterIndex> {
        match exit {
            Exit::Vap(vlan) => self.tables.meter(vlan, Direction::Ingress),
            Exit::Tunnel(_) => None,
        }
    }

    /// Passes a frame of `length` bytes, without tag, through a meter.
    fn admit_rate(
        &mut self,
        now: Nanos,
        meter: Option<MeterIndex>,
        length: usize,
    ) -> Result<(), DropReason> {
        let Some(meter) = meter else { return Ok(()) };
        let bytes = u32::try_from(length).unwrap_or(u32::MAX);
        match self.tables.admit(meter, now, bytes) {
            true => Ok(()),
            false => Err(DropReason::RateLimit),
        }
    }

    /// Asks a VAP's security groups about a frame. What is not IP passes, and so
    /// does all without port security.
    fn admit(
        &mut self,
        now: Nanos,
        vap: &Vap,
        direction: Direction,
        headers: &Headers,
        frame: &Frame<'_>,
    ) -> Result<Admission, DropReason> {
        match &headers.ip {
            Some(ip) if vap.port_security => {
                let packet = Packet {
                    vlan: vap.vlan,
                    direction,
                    ip,
                    frame: frame.bytes(),
                };
                let groups = self.tables.groups();
                self.security.admit(groups, &packet, now, self.epoch)
            }
            _ => Ok(UNCHECKED),
        }
    }

    /// Asks the security groups of the VAP that a frame leaves by, if it is one.
    fn admit_at(
        &mut self,
        now: Nanos,
        exit: Exit,
        headers: &Headers,
        frame: &Frame<'_>,
    ) -> Result<Admission, DropReason> {
        let Exit::Vap(vlan) = exit else {
            return Ok(UNCHECKED);
        };
        match self.tables.vap(vlan.get()).copied() {
            Some(vap) => self.admit(now, &vap, Direction::Ingress, headers, frame),
            None => Err(DropReason::UnknownVlan),
        }
    }

    /// Whether a VAP may get a copy; `length` is the frame's without tag.
    fn admit_copy(
        &mut self,
        now: Nanos,
        vlan: Vlan,
        headers: &Headers,
        frame: &Frame<'_>,
        length: usize,
    ) -> Result<(), DropReason> {
        self.admit_at(now, Exit::Vap(vlan), headers, frame)?;
        let meter = self.tables.meter(vlan, Direction::Ingress);
        self.admit_rate(now, meter, length)?;
        self.check_trunk_mtu(length)
    }

    /// Follows the connections of a known flow; false if it must be decided anew.
    fn touch(&mut self, path: &Path, headers: &Headers, now: Nanos) -> bool {
        let flags = headers.ip.as_ref().map_or(0, Ip::tcp_flags);
        let directions = [Direction::Egress, Direction::Ingress];
        let mut both = path.connections.iter().zip(directions);
        both.all(|(handle, direction)| {
            handle.is_none_or(|handle| {
                let touched = self
                    .security
                    .touch(handle, direction, flags, now, self.epoch);
                touched.is_ok()
            })
        })
    }

    /// Counts the drop of a copy; false if it was one.
    fn count(&mut self, result: Result<(), DropReason>) -> bool {
        if let Err(reason) = result {
            self.counters.count_drop(reason);
        }
        result.is_ok()
    }

    /// `length` is that of the frame without its tag.
    fn check_trunk_mtu(&self, length: usize) -> Result<(), DropReason> {
        if length > usize::from(self.config.trunk_mtu) + ethernet::HEADER {
            return Err(DropReason::TooBig);
        }
        Ok(())
    }
}
