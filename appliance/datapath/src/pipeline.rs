//! The NVE's datapath: tables, underlay and the rewriting of frames.
//!
//! Payload is never copied but for replication, where each receiver needs a
//! frame of its own; the last receiver gets the frame that came in.

use nve_protocol::{DropReason, Vlan, Vni};

use crate::counters::Counters;
use crate::frame::Frame;
use crate::tables::{Tables, VtepIndex};
use crate::trunk;
use crate::underlay::{Underlay, Uplink};
use crate::uplink;
use crate::wire::ethernet;
use crate::wire::vxlan;
use crate::{BURST, Nanos, Side, Sink, Verdict, checksum};

/// What the datapath must know of its NICs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Addresses of the uplink.
    pub uplink: Uplink,
    /// Bytes of an IP packet that fit the trunk.
    pub trunk_mtu: u16,
    /// Whether the trunk's NIC completes checksums of frames that are sent.
    pub trunk_checksum: bool,
}

/// The datapath of one NVE.
#[derive(Debug)]
pub struct Datapath {
    config: Config,
    tables: Tables,
    underlay: Underlay,
    counters: Counters,
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
        if self.tables.take_vteps_changed() {
            self.underlay.follow(&self.tables, now);
        }
        result
    }

    /// Sends what is due on the underlay (ARP) and returns when to call again; to
    /// be called after each [`update`](Self::update) too.
    pub fn tick(&mut self, now: Nanos, sink: &mut impl Sink) -> Nanos {
        self.underlay.tick(now, sink)
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
        for (frame, verdict) in burst.iter_mut().zip(verdicts).take(BURST) {
            let result = match ingress {
                Side::Trunk => self.process_trunk(frame, sink),
                Side::Uplink => self.process_uplink(now, frame, sink),
            };
            *verdict = result.unwrap_or_else(|reason| {
                self.counters.count_drop(reason);
                Verdict::Drop(reason)
            });
        }
    }

    fn process_trunk(
        &mut self,
        frame: &mut Frame<'_>,
        sink: &mut impl Sink,
    ) -> Result<Verdict, DropReason> {
        checksum::check_partial(frame, trunk::TAGGED_HEADER)?;
        let arrival = trunk::classify(&self.tables, frame.bytes())?;
        match trunk::resolve(&self.tables, &arrival, frame.bytes())? {
            trunk::Action::Local(vlan) => self.switch(frame, vlan),
            trunk::Action::Tunnel(vni, vtep) => {
                checksum::complete(frame)?;
                trunk::untag(frame)?;
                self.encapsulate(frame, vni, vtep)
            }
            trunk::Action::Replicate(vni) => {
                self.replicate_from_trunk(frame, vni, Some(arrival.vap.vlan), sink)
            }
            trunk::Action::ReplicateRemote(vni) => {
                self.replicate_from_trunk(frame, vni, None, sink)
            }
            trunk::Action::ArpReply(reply) => {
                trunk::write_arp_reply(frame, &reply);
                self.counters.answers += 1;
                Ok(Verdict::Send(Side::Trunk))
            }
        }
    }

    fn process_uplink(
        &mut self,
        now: Nanos,
        frame: &mut Frame<'_>,
        sink: &mut impl Sink,
    ) -> Result<Verdict, DropReason> {
        checksum::complete(frame)?;
        match uplink::classify(self.underlay.uplink(), frame.bytes())? {
            uplink::Arrival::Host => Ok(Verdict::Host),
            uplink::Arrival::Arp(packet) => {
                self.underlay.observe(&packet, &self.tables, now);
                Ok(Verdict::Host)
            }
            uplink::Arrival::Tunnelled {
                vni,
                source,
                inner,
                end,
            } => {
                uplink::decapsulate(frame, inner, end)?;
                match uplink::resolve(&self.tables, vni, source, frame.bytes())? {
                    uplink::Action::Local(vlan) => self.deliver(frame, vlan),
                    uplink::Action::Replicate(vni) => self.replicate_to_vaps(frame, vni, sink),
                }
            }
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

    /// Sends an untagged frame to a VAP.
    fn deliver(&self, frame: &mut Frame<'_>, vlan: Vlan) -> Result<Verdict, DropReason> {
        self.check_trunk_mtu(frame.len())?;
        trunk::tag(frame, vlan)?;
        Ok(Verdict::Send(Side::Trunk))
    }

    /// Sends an untagged frame to a VTEP.
    fn encapsulate(
        &self,
        frame: &mut Frame<'_>,
        vni: Vni,
        vtep: VtepIndex,
    ) -> Result<Verdict, DropReason> {
        let outer = self.outer_headers(frame.bytes(), vni, vtep)?;
        let room = frame.push_front(outer.len()).ok_or(DropReason::NoBuffer)?;
        crate::wire::put(room, 0, &outer);
        Ok(Verdict::Send(Side::Uplink))
    }

    fn outer_headers(
        &self,
        inner: &[u8],
        vni: Vni,
        vtep: VtepIndex,
    ) -> Result<[u8; vxlan::OUTER_V4], DropReason> {
        let tunnel = self.underlay.tunnel(vtep)?;
        if inner.len() + vxlan::OVERHEAD_V4 > usize::from(self.config.uplink.mtu) {
            return Err(DropReason::TooBig);
        }
        let length = u16::try_from(inner.len()).map_err(|_| DropReason::TooBig)?;
        Ok(tunnel.emit(vni, length, trunk::entropy(inner)))
    }

    /// `length` is that of the frame without its tag.
    fn check_trunk_mtu(&self, length: usize) -> Result<(), DropReason> {
        if length > usize::from(self.config.trunk_mtu) + ethernet::HEADER {
            return Err(DropReason::TooBig);
        }
        Ok(())
    }

    /// Gives a tagged frame to the network's VTEPs and, if `from` names the VAP
    /// that sent it, to all other VAPs. Copies to VAPs go first, while the frame
    /// has its tag.
    fn replicate_from_trunk(
        &mut self,
        frame: &mut Frame<'_>,
        vni: Vni,
        from: Option<Vlan>,
        sink: &mut impl Sink,
    ) -> Result<Verdict, DropReason> {
        checksum::complete(frame)?;
        let network = self.tables.network(vni).ok_or(DropReason::NoReceiver)?;
        let vaps = if from.is_some() { network.vaps() } else { &[] };
        let mut receivers = vaps.iter().copied().filter(|vlan| Some(*vlan) != from);
        let Some((last, others)) = network.vteps().split_last() else {
            let first = receivers.next().ok_or(DropReason::NoReceiver)?;
            let mut drops = Drops::default();
            for vlan in receivers {
                drops.note(emit_tagged(frame.bytes(), vlan, sink));
            }
            drops.count(&mut self.counters);
            return self.switch(frame, first);
        };
        let mut drops = Drops::default();
        for vlan in receivers {
            drops.note(emit_tagged(frame.bytes(), vlan, sink));
        }
        trunk::untag(frame)?;
        for vtep in others {
            drops.note(self.emit_tunnelled(frame.bytes(), vni, *vtep, sink));
        }
        let last = *last;
        drops.count(&mut self.counters);
        self.encapsulate(frame, vni, last)
    }

    /// Gives an untagged frame, out of a tunnel, to all VAPs of the network.
    fn replicate_to_vaps(
        &mut self,
        frame: &mut Frame<'_>,
        vni: Vni,
        sink: &mut impl Sink,
    ) -> Result<Verdict, DropReason> {
        let network = self.tables.network(vni).ok_or(DropReason::UnknownVni)?;
        let (last, others) = network.vaps().split_last().ok_or(DropReason::NoReceiver)?;
        let mut drops = Drops::default();
        for vlan in others {
            drops.note(emit_untagged(frame.bytes(), *vlan, sink));
        }
        let last = *last;
        drops.count(&mut self.counters);
        self.deliver(frame, last)
    }

    fn emit_tunnelled(
        &self,
        inner: &[u8],
        vni: Vni,
        vtep: VtepIndex,
        sink: &mut impl Sink,
    ) -> Result<(), DropReason> {
        let outer = self.outer_headers(inner, vni, vtep)?;
        sink.emit(Side::Uplink, &[&outer, inner], None)
            .map_err(|_| DropReason::NoBuffer)
    }
}

/// Drops of copies, counted when the tables are no longer borrowed.
#[derive(Default)]
struct Drops {
    reasons: heapless::LinearMap<DropReason, u64, 4>,
}

impl Drops {
    fn note(&mut self, result: Result<(), DropReason>) {
        let Err(reason) = result else { return };
        match self.reasons.get_mut(&reason) {
            Some(count) => *count += 1,
            // Copies fail for three reasons at most: no buffer, too big, unresolved.
            None => drop(self.reasons.insert(reason, 1)),
        }
    }

    fn count(self, counters: &mut Counters) {
        for (reason, count) in &self.reasons {
            if let Some(counter) = counters.drops.get_mut(reason.index()) {
                *counter += count;
            }
        }
    }
}

/// Copies a tagged frame to another VAP.
fn emit_tagged(tagged: &[u8], vlan: Vlan, sink: &mut impl Sink) -> Result<(), DropReason> {
    let (addresses, rest) = tagged
        .split_at_checked(ethernet::ADDRESSES)
        .ok_or(DropReason::Truncated)?;
    let rest = rest.get(ethernet::TAG..).ok_or(DropReason::Truncated)?;
    emit_parts(addresses, vlan, rest, sink)
}

/// Copies an untagged frame to a VAP.
fn emit_untagged(untagged: &[u8], vlan: Vlan, sink: &mut impl Sink) -> Result<(), DropReason> {
    let (addresses, rest) = untagged
        .split_at_checked(ethernet::ADDRESSES)
        .ok_or(DropReason::Truncated)?;
    emit_parts(addresses, vlan, rest, sink)
}

fn emit_parts(
    addresses: &[u8],
    vlan: Vlan,
    rest: &[u8],
    sink: &mut impl Sink,
) -> Result<(), DropReason> {
    let parts = [addresses, &trunk::tag_bytes(vlan), rest];
    sink.emit(Side::Trunk, &parts, None)
        .map_err(|_| DropReason::NoBuffer)
}
