//! The shortest way through the pipeline: packets of known flows for which all is well.
//!
//! It does what [`Datapath::process_known`] does, and has nothing that is seldom needed: a
//! frame that needs more (a mark, a checksum to be completed, a tunnel over IPv6, IPv6 to be
//! routed, an error) goes the other way, as it came. So all that can be wrong is asked before
//! anything is changed.

use nve_protocol::Vlan;

use super::fast::Seen;
use super::{Config, Datapath};
use crate::connections::CHANGES;
use crate::flow::{Exit, Has, Path, Slot};
use crate::frame::Burst;
use crate::tables::MeterIndex;
use crate::wire::vxlan::{Label, Outer};
use crate::wire::{ethernet, ipv4, vxlan};
use crate::{Nanos, Side, Sink, Verdict};
use crate::{checksum, rewrite, trunk};

/// How a frame leaves the lane before its end. It is as it came; what may have changed is
/// that its connections were followed, and meters in front of one that refused it passed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Left {
    /// Its flow is known, and it needs more than the lane has.
    Slower(Slot),
    /// A meter refused it.
    Refused(MeterIndex),
    /// Its flow is not known, or has to be decided anew.
    Unknown,
}

/// Bytes by which a frame from the trunk grows in front: outer headers in place of a tag.
const GROWTH: usize = vxlan::OUTER_V4 - ethernet::TAG;

/// Bytes of a tagged frame up to the end of an IPv4 header.
const ROUTED: usize = trunk::TAGGED_HEADER + ipv4::HEADER;

impl Datapath {
    /// Gives a frame from the trunk to a VAP, and nothing else; false, and no change, if it
    /// needs more than that.
    #[inline(always)]
    pub(super) fn send_across(&self, burst: &mut impl Burst, at: usize, vlan: Vlan) -> bool {
        let Some(mut frame) = burst.frame(at) else {
            return false;
        };
        let most = usize::from(self.config.trunk_mtu) + trunk::TAGGED_HEADER;
        if frame.len() > most || frame.partial().is_some() {
            return false;
        }
        trunk::retag(&mut frame, vlan);
        burst.leave(at, Verdict::Send(Side::Trunk));
        true
    }

    /// Does with a frame what the verdict in `slot` says.
    #[inline(always)]
    pub(super) fn follow_lane<const FROM_TRUNK: bool>(
        &mut self,
        now: Nanos,
        slot: Slot,
        burst: &mut impl Burst,
        at: usize,
        seen: &Seen,
        sink: &mut impl Sink,
    ) {
        let length = match FROM_TRUNK {
            true => burst.bytes(at).len().saturating_sub(ethernet::TAG),
            false => seen.inner_length(),
        };
        let left = match self.flows.get(slot) {
            Some(known) if self.is_easy::<FROM_TRUNK>(&known.path, burst, at, seen, length) => {
                let has = known.path.has();
                let fresh = self.security.freshness(now);
                let is_settled =
                    !has.any(Has::CONNECTION) || known.fresh == fresh && seen.flags & CHANGES == 0;
                if !is_settled && !self.follow_connections(now, slot, seen.flags, fresh) {
                    Some(Left::Unknown)
                } else if has.any(Has::METER) {
                    self.pass_meters::<FROM_TRUNK>(now, slot, length)
                } else {
                    None
                }
            }
            _ => Some(Left::Slower(slot)),
        };
        if let Some(left) = left {
            return self.process_rest::<FROM_TRUNK>(now, left, burst, at, seen, sink);
        }
        if FROM_TRUNK {
            self.send_from_trunk(slot, burst, at);
        } else {
            self.send_out_of_tunnel(slot, burst, at, seen);
        }
    }

    /// Whether a frame, of `length` bytes without tag and outer headers, needs no more than
    /// the lane does.
    #[inline(always)]
    fn is_easy<const FROM_TRUNK: bool>(
        &self,
        path: &Path,
        burst: &impl Burst,
        at: usize,
        seen: &Seen,
        length: usize,
    ) -> bool {
        let room = match path.exit {
            Exit::Vap(_) => fits_trunk(&self.config, length).then_some(0),
            Exit::Tunnel(vtep) => {
                let is_plain = FROM_TRUNK && matches!(self.underlay.tunnel(vtep), Ok(Outer::V4(_)));
                let outer = length + vxlan::OVERHEAD_V4;
                (is_plain && outer <= usize::from(self.config.uplink.mtu)).then_some(GROWTH)
            }
        };
        room.is_some_and(|room| burst.is_complete(at, room))
            && (!path.has().any(Has::REWRITE.and(Has::MARK))
                || can_be_routed(path, burst.bytes(at), seen))
    }

    /// Passes a frame through the meters of its flow, or says which one refuses it. What
    /// comes out of a tunnel has passed its sender's.
    #[inline(always)]
    fn pass_meters<const FROM_TRUNK: bool>(
        &mut self,
        now: Nanos,
        slot: Slot,
        length: usize,
    ) -> Option<Left> {
        let path = &self.flows.get(slot)?.path;
        // A buffer has less than 64 KiB.
        let bytes = length as u32;
        if FROM_TRUNK
            && let Some(meter) = path.egress
            && !self.tables.admit(meter, now, bytes)
        {
            return Some(Left::Refused(meter));
        }
        if let Some(meter) = path.ingress
            && !self.tables.admit(meter, now, bytes)
        {
            return Some(Left::Refused(meter));
        }
        None
    }

    /// Changes a frame from the trunk, and says where it goes.
    #[inline(always)]
    fn send_from_trunk(&self, slot: Slot, burst: &mut impl Burst, at: usize) {
        let (Some(known), Some(mut frame)) = (self.flows.get(slot), burst.frame(at)) else {
            return;
        };
        let path = &known.path;
        if path.has().any(Has::REWRITE)
            && let Some((to, _)) = &path.rewrite
            && let Some(front) = frame.bytes_mut().first_chunk_mut::<ROUTED>()
        {
            rewrite::route_tagged(front, to);
        }
        match path.exit {
            Exit::Vap(vlan) => {
                trunk::retag(&mut frame, vlan);
                burst.leave(at, Verdict::Send(Side::Trunk));
            }
            Exit::Tunnel(vtep) => {
                let Ok(Outer::V4(outer)) = self.underlay.tunnel(vtep) else {
                    return;
                };
                let label = Label {
                    vni: path.vni,
                    entropy: path.entropy,
                    dscp: 0,
                };
                // There is room, as was asked.
                let Some(front) = frame.push_front(GROWTH) else {
                    return;
                };
                outer.put_over_tag(front, &label);
                let extent = frame.extent();
                burst.give_back(at, extent, Verdict::Send(Side::Uplink));
            }
        }
    }

    /// Changes a frame that came out of a tunnel, and says where it goes.
    #[inline(always)]
    fn send_out_of_tunnel(&self, slot: Slot, burst: &mut impl Burst, at: usize, seen: &Seen) {
        if let (Some(known), Some(mut frame)) = (self.flows.get(slot), burst.frame(at))
            && let Exit::Vap(vlan) = known.path.exit
        {
            let (inner, end) = seen.inner;
            frame.truncate(end.into());
            trunk::tag_over(&mut frame, inner.into(), vlan);
            let extent = frame.extent();
            burst.give_back(at, extent, Verdict::Send(Side::Trunk));
        }
    }
}

/// Whether a frame that has `length` bytes without tag fits the trunk.
#[inline(always)]
fn fits_trunk(config: &Config, length: usize) -> bool {
    length <= usize::from(config.trunk_mtu) + ethernet::HEADER
}

/// Whether a tagged frame is to be routed, not marked, and can be.
#[inline(always)]
fn can_be_routed(path: &Path, frame: &[u8], seen: &Seen) -> bool {
    let header = frame.get(trunk::TAGGED_HEADER..);
    let header = header.and_then(|header| header.first_chunk());
    let (Some((_, mtu)), Some(header)) = (&path.rewrite, header) else {
        return false;
    };
    !path.has().any(Has::MARK)
        && seen.is_ipv4
        && seen.hop_limit > 1
        && seen.packet_length() <= usize::from(*mtu)
        && checksum::is_intact(header)
}
