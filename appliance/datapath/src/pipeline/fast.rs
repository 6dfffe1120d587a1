//! The fast path: packets of known flows.
//!
//! A burst is looked at twice: first each frame is read, and the memory fetched in which
//! its flow will be looked for, one beside the other; then each follows the verdict that
//! is found there, or goes through every stage. A verdict that is good in this epoch is so
//! for all of its flow, but for packets that have changed a connection or cannot be routed.

use nve_protocol::{Direction, DropReason, Vlan};

use super::Datapath;
use crate::connections::{CHANGES, Fresh};
use crate::flow::{Exit, FlowKey, Home, Known, Origin, Path, Peer, Slot};
use crate::frame::Frame;
use crate::glance::{Glance, Span};
use crate::packet::Headers;
use crate::tables::VtepIndex;
use crate::witness::{Entrance, Incoming, Witness};
use crate::{Nanos, Side, Verdict};
use crate::{checksum, trunk, uplink};

/// What was seen of a frame: nothing, or an ordinary packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    key: FlowKey,
    home: Home,
    is_ordinary: bool,
    is_ipv4: bool,
    hop_limit: u8,
    /// Flags of TCP, 0 of all else.
    flags: u8,
    /// Where the packet begins and ends in the frame, out of its tunnel.
    header: u16,
    end: u16,
    /// Bytes in front of the inner frame, and where that ends; 0 from the trunk.
    inner: (u16, u16),
}

impl Seen {
    /// Nothing.
    pub(crate) const NOTHING: Seen = Seen {
        key: FlowKey::NONE,
        home: Home::NONE,
        is_ordinary: false,
        is_ipv4: false,
        hop_limit: 0,
        flags: 0,
        header: 0,
        end: 0,
        inner: (0, 0),
    };

    #[inline]
    fn span(&self) -> Span {
        Span {
            header: self.header.into(),
            end: self.end.into(),
            is_ipv4: self.is_ipv4,
        }
    }
}

impl Datapath {
    /// Looks at a frame, and has the memory fetched in which its flow will be looked for.
    #[inline(always)]
    pub(super) fn look(&self, ingress: Side, frame: &[u8], seen: &mut Seen) {
        seen.is_ordinary = self.see(ingress, frame, seen).is_some();
    }

    #[inline(always)]
    fn see(&self, ingress: Side, frame: &[u8], seen: &mut Seen) -> Option<()> {
        let (glance, inner) = self.glance(ingress, frame)?;
        let home = self.flows.home(&glance.key);
        self.flows.prefetch(home);
        let span = glance.span;
        *seen = Seen {
            key: glance.key,
            home,
            is_ordinary: true,
            is_ipv4: span.is_ipv4,
            hop_limit: glance.hop_limit,
            flags: glance.flags,
            // A packet's length has 16 bits; headers in front of it can make it too long.
            header: span.header as u16,
            end: u16::try_from(span.end).ok()?,
            inner,
        };
        Some(())
    }

    #[inline(always)]
    fn glance(&self, ingress: Side, frame: &[u8]) -> Option<(Glance, (u16, u16))> {
        match ingress {
            Side::Trunk => Some((Glance::of_vap(frame)?, (0, 0))),
            Side::Uplink => {
                let uplink = self.underlay.uplink();
                let seen = uplink::glance(uplink, &self.tables, frame)?;
                // An outer packet has at most 65,535 bytes, and so has what is in it.
                let inner = (seen.inner as u16, u16::try_from(seen.end).ok()?);
                Some((seen.glance, inner))
            }
        }
    }

    /// Has the connections fetched of what is most likely the flow of a frame that was
    /// looked at, if they are to be followed. Returns whether it goes into a tunnel.
    #[inline(always)]
    pub(super) fn foresee(&self, fresh: Fresh, seen: &Seen) -> bool {
        let Some((is_home, known)) = self.flows.likely(seen.home, &seen.key) else {
            return false;
        };
        if !is_home {
            self.foresee_new(seen);
        } else if known.fresh != fresh {
            for handle in known.path.connections.iter().flatten() {
                self.security.prefetch(*handle);
            }
        }
        matches!(known.path.exit, Exit::Tunnel(_))
    }

    /// Has the memory fetched that most likely a first packet needs, or one whose flow is
    /// not at home: the rest of its set, and where its connection would be.
    #[cold]
    #[inline(never)]
    fn foresee_new(&self, seen: &Seen) {
        if !seen.is_ordinary {
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

    /// Processes a frame that was looked at.
    #[inline(always)]
    pub(super) fn process_seen(
        &mut self,
        now: Nanos,
        ingress: Side,
        frame: &mut Frame<'_>,
        seen: &Seen,
        witness: &mut impl Witness,
    ) -> Verdict {
        if seen.is_ordinary
            && let Some(at) = self.find(now, seen)
            && let Some(known) = self.flows.get(at).copied()
            && self.may_follow(now, ingress, frame, seen, at, &known)
        {
            let followed = self.follow(now, ingress, frame, seen, &known.path, witness);
            return match followed {
                Ok(verdict) => verdict,
                Err(reason) => self.lose_seen(now, frame, seen, reason, witness),
            };
        }
        self.process_one(now, ingress, frame, witness)
    }

    /// The entry of a flow, good in this epoch.
    #[inline(always)]
    fn find(&mut self, now: Nanos, seen: &Seen) -> Option<Slot> {
        let (home, key) = (seen.home, &seen.key);
        match self.flows.find(home, key, self.epoch, now) {
            Some(at) => Some(at),
            None => self.renew(home, key, now),
        }
    }

    /// Does with a frame what its flow's verdict says.
    #[inline(always)]
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
    #[inline(always)]
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
            || self.touch(now, seen, at, known, fresh)
    }

    /// Follows the connections of a flow; false if it must be decided anew.
    #[inline(never)]
    fn touch(&mut self, now: Nanos, seen: &Seen, at: Slot, known: &Known, fresh: Fresh) -> bool {
        let directions = [Direction::Egress, Direction::Ingress];
        let mut settled = true;
        for (handle, direction) in known.path.connections.iter().zip(directions) {
            let Some(handle) = handle else { continue };
            let changes = self.tables.changes();
            let touched = self
                .security
                .touch(*handle, direction, seen.flags, now, changes);
            match touched {
                Ok(same) => settled &= same,
                Err(_) => return false,
            }
        }
        if settled {
            self.flows.refresh(at, fresh);
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
#[inline]
fn is_intact(frame: &Frame<'_>, span: Span) -> bool {
    !span.is_ipv4
        || frame
            .bytes()
            .get(span.header..)
            .and_then(|bytes| bytes.first_chunk())
            .is_some_and(checksum::is_intact)
}
