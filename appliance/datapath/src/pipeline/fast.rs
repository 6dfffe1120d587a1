//! The fast path: packets of known flows.
//!
//! A burst is gone through three times. First each frame is looked at, and the memory
//! fetched in which its flow will be looked for, one beside the other; then flows are
//! looked for, and what their verdicts need is fetched; then each frame follows its
//! verdict: by the shortest way ([`lane`](super::lane)), or by the stages that the rest of
//! the pipeline has, or if its flow is not known, through every stage. A verdict that is
//! good in this epoch is so for all of its flow, but for packets that have changed a
//! connection or cannot be routed.

use nve_protocol::{Direction, DropReason, Vlan};

use super::lane::Left;
use super::{BURST, Datapath};
use crate::connections::{CHANGES, Fresh};
use crate::flow::{Exit, FlowKey, Found, Has, Known, Origin, Path, Peer, Slot};
use crate::frame::{Burst, Frame};
use crate::glance::{self, Glance, Span};
use crate::packet::Headers;
use crate::tables::VtepIndex;
use crate::witness::{Entrance, Incoming, Live, Witness};
use crate::{Nanos, Side, Sink, Verdict};
use crate::{checksum, trunk, uplink};

/// How many frames before its turn it is foreseen what a frame will need.
const AHEAD: usize = 6;

/// What was seen of a frame, and found of its flow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(super) key: FlowKey,
    home: Slot,
    course: Course,
    pub(super) is_ipv4: bool,
    pub(super) hop_limit: u8,
    /// Flags of TCP, 0 of all else.
    pub(super) flags: u8,
    /// Where the packet begins and ends in the frame, out of its tunnel.
    header: u16,
    end: u16,
    /// Bytes in front of the inner frame, and where that ends; 0 from the trunk.
    pub(super) inner: (u16, u16),
}

/// How a frame goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// It is no ordinary packet: through every stage.
    Strange,
    /// It is one; its flow has to be looked for.
    Ordinary,
    /// Its flow is at home, and good in this epoch.
    Home,
    /// The same, and there is nothing to be done but to give it to that VAP.
    Across(Vlan),
}

impl Seen {
    /// Nothing.
    pub(crate) const NOTHING: Seen = Seen {
        key: FlowKey::NONE,
        home: Slot::FIRST,
        course: Course::Strange,
        is_ipv4: false,
        hop_limit: 0,
        flags: 0,
        header: 0,
        end: 0,
        inner: (0, 0),
    };

    #[inline(always)]
    pub(super) fn span(&self) -> Span {
        Span {
            header: self.header.into(),
            end: self.end.into(),
            is_ipv4: self.is_ipv4,
        }
    }

    #[inline(always)]
    fn is_home(&self) -> bool {
        matches!(self.course, Course::Home | Course::Across(_))
    }

    /// Bytes of the IP packet.
    #[inline(always)]
    pub(super) fn packet_length(&self) -> usize {
        usize::from(self.end).saturating_sub(self.header.into())
    }

    /// Bytes of the frame that was in a tunnel.
    #[inline(always)]
    pub(super) fn inner_length(&self) -> usize {
        let (inner, end) = self.inner;
        end.saturating_sub(inner).into()
    }
}

/// Bursts.
impl Datapath {
    /// Processes the first frames of those that came in on the trunk, or else the uplink,
    /// as many as there is room in `all` for what is seen of them.
    #[inline(always)]
    pub(super) fn process_burst<const FROM_TRUNK: bool>(
        &mut self,
        now: Nanos,
        burst: &mut impl Burst,
        all: &mut [Seen; BURST],
        sink: &mut impl Sink,
    ) {
        let count = burst.len().min(BURST);
        let all = all.get_mut(..count).unwrap_or_default();
        for (at, seen) in all.iter_mut().enumerate() {
            seen.course = match self.look::<FROM_TRUNK>(burst.bytes(at), seen) {
                Some(()) => Course::Ordinary,
                None => Course::Strange,
            };
        }
        for seen in &mut *all {
            self.recognize(now, seen);
        }
        let fresh = self.security.freshness(now);
        let found = self.found();
        for (at, seen) in all.iter().enumerate() {
            if let Some(later) = all.get(at + AHEAD)
                && later.course == Course::Home
                && self.foresee(fresh, later)
                && FROM_TRUNK
            {
                burst.fetch_headroom(at + AHEAD);
            }
            // What was found is there, and good, unless a frame of the burst has put
            // something in its place, or begun another epoch.
            let is_home = seen.is_home() && self.found() == found;
            if let Course::Across(vlan) = seen.course
                && is_home
                && self.send_across(burst, at, vlan)
            {
                continue;
            }
            let slot = match is_home {
                true => Some(seen.home),
                false => self.find(now, seen),
            };
            match slot {
                Some(slot) => self.follow_lane::<FROM_TRUNK>(now, slot, burst, at, seen, sink),
                None => {
                    self.process_rest::<FROM_TRUNK>(now, Left::Unknown, burst, at, seen, sink);
                }
            }
        }
    }

    /// As long as it is the same, the flows that were found are where they were, and good.
    #[inline(always)]
    fn found(&self) -> (u32, u32) {
        (self.flows.insertions(), self.epoch)
    }

    /// Looks at a frame, and has the memory fetched in which its flow will be looked for.
    #[inline(always)]
    fn look<const FROM_TRUNK: bool>(&self, frame: &[u8], seen: &mut Seen) -> Option<()> {
        if FROM_TRUNK {
            match glance::plain_of_vap(frame) {
                Some(glance) => self.note(&glance, (0, 0), seen),
                None => self.look_closer(Side::Trunk, frame, seen),
            }
        } else {
            match uplink::plain(self.underlay.uplink(), frame) {
                Some(plain) => self.note(&plain.glance, plain.range()?, seen),
                None => self.look_closer(Side::Uplink, frame, seen),
            }
        }
    }

    /// The same for what is not quite as plain.
    #[inline(never)]
    fn look_closer(&self, ingress: Side, frame: &[u8], seen: &mut Seen) -> Option<()> {
        match ingress {
            Side::Trunk => self.note(&Glance::of_vap(frame)?, (0, 0), seen),
            Side::Uplink => {
                let tunnelled = uplink::glance(self.underlay.uplink(), &self.tables, frame)?;
                self.note(&tunnelled.glance, tunnelled.range()?, seen)
            }
        }
    }

    #[inline(always)]
    fn note(&self, glance: &Glance, inner: (u16, u16), seen: &mut Seen) -> Option<()> {
        let span = glance.span;
        // A packet's length has 16 bits; headers in front of it can make it too long.
        seen.header = span.header as u16;
        seen.end = u16::try_from(span.end).ok()?;
        seen.home = self.flows.home(&glance.key);
        self.flows.prefetch(seen.home);
        seen.key.assign(&glance.key);
        seen.is_ipv4 = span.is_ipv4;
        seen.hop_limit = glance.hop_limit;
        seen.flags = glance.flags;
        seen.inner = inner;
        Some(())
    }

    /// Looks for the flow of a frame that was looked at, and has its verdict fetched.
    #[inline(always)]
    fn recognize(&mut self, now: Nanos, seen: &mut Seen) {
        if seen.course == Course::Strange {
            return;
        }
        let (home, key) = (seen.home, &seen.key);
        seen.course = match self.flows.find_at(home, key, self.epoch, now) {
            Found::Across(vlan) => Course::Across(vlan),
            Found::Good => {
                self.flows.prefetch_verdict(home);
                Course::Home
            }
            Found::Old => {
                self.flows.prefetch_verdict(home);
                Course::Ordinary
            }
            Found::Nothing => {
                self.foresee_missed(seen);
                Course::Ordinary
            }
        };
    }

    /// Has the connections fetched of a flow that is at home, if they are to be followed.
    /// Returns whether it goes into a tunnel.
    #[inline(always)]
    fn foresee(&self, fresh: Fresh, seen: &Seen) -> bool {
        let Some(known) = self.flows.get(seen.home) else {
            return false;
        };
        if known.path.has().any(Has::CONNECTION) && known.fresh != fresh {
            for handle in known.path.connections.iter().flatten() {
                self.security.prefetch(*handle);
            }
        }
        matches!(known.path.exit, Exit::Tunnel(_))
    }

    /// Has the memory fetched that one whose flow is not at home needs: its flow, if it
    /// may be elsewhere, or else, for a first packet, the rest of the set and where the
    /// connection would be.
    #[cold]
    #[inline(never)]
    fn foresee_missed(&self, seen: &Seen) {
        if self.flows.prefetch_strays(seen.home) {
            return;
        }
        self.flows.prefetch_set(seen.home);
        let (vap, direction) = match seen.key.origin() {
            Some(Origin::Vap(tag)) => (Vlan::new(tag), Direction::Egress),
            Some(Origin::Tunnel(vni, _)) => {
                let receiver = self.tables.local(vni, seen.key.receiver());
                (receiver, Direction::Ingress)
            }
            None => (None, Direction::Egress),
        };
        if let Some(vlan) = vap
            && seen.key.echo().is_none()
        {
            self.security
                .prefetch_bucket(vlan, direction, &seen.key.tuple());
        }
    }

    /// Processes a frame that the lane has left.
    #[inline(never)]
    pub(super) fn process_rest<const FROM_TRUNK: bool>(
        &mut self,
        now: Nanos,
        left: Left,
        burst: &mut impl Burst,
        at: usize,
        seen: &Seen,
        sink: &mut impl Sink,
    ) {
        let Some(mut frame) = burst.frame(at) else {
            return;
        };
        let side = if FROM_TRUNK {
            Side::Trunk
        } else {
            Side::Uplink
        };
        let mut witness = Live::new(sink);
        let verdict = match left {
            Left::Slower(slot) => {
                self.process_known(now, side, &mut frame, seen, slot, &mut witness)
            }
            Left::Refused(meter) => {
                self.blame_meter(meter, &mut witness);
                if !FROM_TRUNK {
                    let (inner, end) = seen.inner;
                    // It is inside, as it was seen there.
                    let _ = uplink::decapsulate(&mut frame, inner.into(), end.into());
                }
                self.lose_seen(now, &frame, seen, DropReason::RateLimit, &mut witness)
            }
            Left::Unknown => self.process_one(now, side, &mut frame, &mut witness),
        };
        let extent = frame.extent();
        burst.give_back(at, extent, verdict);
    }
}

/// Single frames.
impl Datapath {
    /// Processes a frame by itself.
    pub(super) fn process_single(
        &mut self,
        now: Nanos,
        ingress: Side,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
    ) -> Verdict {
        let mut seen = Seen::NOTHING;
        if self
            .look_closer(ingress, frame.bytes(), &mut seen)
            .is_some()
        {
            seen.course = Course::Ordinary;
        }
        match self.find(now, &seen) {
            Some(slot) => self.process_known(now, ingress, frame, &seen, slot, witness),
            None => self.process_one(now, ingress, frame, witness),
        }
    }

    /// Processes a frame whose flow is known, as its verdict says, or if it does not fare
    /// like the rest of its flow, through every stage.
    fn process_known(
        &mut self,
        now: Nanos,
        ingress: Side,
        frame: &mut Frame<'_>,
        seen: &Seen,
        slot: Slot,
        witness: &mut impl Witness,
    ) -> Verdict {
        if let Some(known) = self.flows.get(slot).copied()
            && self.may_follow(now, ingress, frame, seen, slot, &known)
        {
            let followed = self.follow(now, ingress, frame, seen, &known.path, witness);
            return match followed {
                Ok(verdict) => verdict,
                Err(reason) => self.lose_seen(now, frame, seen, reason, witness),
            };
        }
        self.process_one(now, ingress, frame, witness)
    }

    /// The entry of a flow, good in this epoch, wherever it is.
    #[inline(never)]
    fn find(&mut self, now: Nanos, seen: &Seen) -> Option<Slot> {
        if seen.course == Course::Strange {
            return None;
        }
        let (home, key) = (seen.home, &seen.key);
        match self.flows.find(home, key, self.epoch, now) {
            Some(slot) => Some(slot),
            None => self.renew(home, key, now),
        }
    }

    /// Does with a frame what its flow's verdict says.
    fn follow(
        &mut self,
        now: Nanos,
        ingress: Side,
        frame: &mut Frame<'_>,
        seen: &Seen,
        path: &Path,
        witness: &mut impl Witness,
    ) -> Result<Verdict, DropReason> {
        match (ingress, path.exit) {
            (Side::Trunk, _) => {
                self.follow_from_trunk(now, Some(seen.span()), path, frame, witness)
            }
            (Side::Uplink, Exit::Vap(vlan)) => {
                let (inner, end) = seen.inner;
                uplink::decapsulate(frame, inner.into(), end.into()).and_then(|()| {
                    self.admit_rate(now, path.ingress, frame.len(), witness)?;
                    self.deliver(frame, vlan)
                })
            }
            // What came out of a tunnel goes into another one only for a VM that has
            // moved, which no flow is kept of.
            (Side::Uplink, Exit::Tunnel(_)) => Err(DropReason::SplitHorizon),
        }
    }

    /// Whether a frame fares like the rest of its flow; its connections are followed.
    fn may_follow(
        &mut self,
        now: Nanos,
        ingress: Side,
        frame: &Frame<'_>,
        seen: &Seen,
        at: Slot,
        known: &Known,
    ) -> bool {
        if frame.partial().is_some()
            && (ingress == Side::Uplink
                || checksum::check_partial(frame, trunk::TAGGED_HEADER).is_err())
        {
            return false;
        }
        // A packet whose hop limit is used up, or whose header is damaged, is not
        // routed like the others.
        if known.path.rewrite.is_some() && !(seen.hop_limit > 1 && is_intact(frame, seen.span())) {
            return false;
        }
        if known.path.connections == [None, None] {
            return true;
        }
        let fresh = self.security.freshness(now);
        (known.fresh == fresh && seen.flags & CHANGES == 0)
            || self.follow_connections(now, at, seen.flags, fresh)
    }

    /// Follows the connections of a flow; false if it must be decided anew.
    #[inline(never)]
    pub(super) fn follow_connections(
        &mut self,
        now: Nanos,
        slot: Slot,
        flags: u8,
        fresh: Fresh,
    ) -> bool {
        let Some(known) = self.flows.get(slot) else {
            return false;
        };
        let directions = [Direction::Egress, Direction::Ingress];
        let mut settled = true;
        for (handle, direction) in known.path.connections.iter().zip(directions) {
            let Some(handle) = handle else { continue };
            let changes = self.tables.changes();
            let touched = self.security.touch(*handle, direction, flags, now, changes);
            match touched {
                Ok(same) => settled &= same,
                Err(_) => return false,
            }
        }
        if settled {
            self.flows.refresh(slot, fresh);
        }
        true
    }

    /// Counts the drop of a frame of a known flow; out of a tunnel already, but else as
    /// it came in.
    #[cold]
    fn lose_seen(
        &mut self,
        now: Nanos,
        frame: &Frame<'_>,
        seen: &Seen,
        reason: DropReason,
        witness: &mut impl Witness,
    ) -> Verdict {
        let headers = Headers::parse(frame.bytes()).ok();
        let vap;
        let from = match seen.key.origin() {
            Some(Origin::Vap(vlan)) => {
                vap = self.tables.vap(vlan).copied();
                vap.as_ref().map(Entrance::Vap)
            }
            Some(Origin::Tunnel(vni, peer)) => {
                let vtep = self.vtep_of(peer);
                vtep.map(|vtep| Entrance::Tunnel(vni, vtep))
            }
            None => None,
        };
        match from {
            Some(from) => self.lose(now, from, headers.as_ref(), reason, witness),
            None => {
                self.count_drop(now, reason);
                Verdict::Drop(reason)
            }
        }
    }

    fn vtep_of(&self, peer: Peer) -> Option<VtepIndex> {
        let address = match peer {
            Peer::Address(address) => address.into(),
            Peer::Slot(slot) => self.tables.vteps().nth(slot.into())??,
        };
        self.tables.vtep_index(address)
    }

    /// What to do with a tagged frame that is larger than the network takes that it is
    /// routed to.
    #[cold]
    pub(super) fn follow_too_big(
        &mut self,
        now: Nanos,
        path: &Path,
        mtu: u16,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
    ) -> Result<Verdict, DropReason> {
        let vap = *trunk::sender(&self.tables, frame.bytes())?;
        let headers = Headers::parse(frame.bytes())?;
        let incoming = Incoming {
            now,
            from: Entrance::Vap(&vap),
            headers: &headers,
        };
        self.split_or_refuse(&incoming, &vap, path, mtu, frame, witness)
    }
}

/// Whether an IPv4 header has the checksum that it should.
fn is_intact(frame: &Frame<'_>, span: Span) -> bool {
    !span.is_ipv4
        || frame
            .bytes()
            .get(span.header..)
            .and_then(|bytes| bytes.first_chunk())
            .is_some_and(checksum::is_intact)
}
