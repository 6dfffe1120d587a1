//! Into tunnels, and within limits: what the stages of both sides share.

use nve_protocol::{Direction, DropReason, Vap, Vlan, Vni};

use super::{Datapath, UNCHECKED};
use crate::flow::{Exit, Path};
use crate::frame::Frame;
use crate::packet::{Headers, Ip};
use crate::security::{Admission, Packet};
use crate::tables::{MeterIndex, VtepIndex};
use crate::trunk;
use crate::wire::{ethernet, vxlan};
use crate::{Nanos, Side, Sink, Verdict};

impl Datapath {
    /// Sends an untagged frame to a VTEP.
    pub(super) fn encapsulate(
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
    pub(super) fn outer_headers(
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
    pub(super) fn emit_tunnelled<const PARTS: usize>(
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
    pub(super) fn ingress_meter(&self, exit: Exit) -> Option<MeterIndex> {
        match exit {
            Exit::Vap(vlan) => self.tables.meter(vlan, Direction::Ingress),
            Exit::Tunnel(_) => None,
        }
    }

    /// Passes a frame of `length` bytes, without tag, through a meter.
    pub(super) fn admit_rate(
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
    pub(super) fn admit(
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
    pub(super) fn admit_at(
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
    pub(super) fn admit_copy(
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
    pub(super) fn touch(&mut self, path: &Path, headers: &Headers, now: Nanos) -> bool {
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
    pub(super) fn count(&mut self, result: Result<(), DropReason>) -> bool {
        if let Err(reason) = result {
            self.counters.count_drop(reason);
        }
        result.is_ok()
    }

    /// `length` is that of the frame without its tag.
    pub(super) fn check_trunk_mtu(&self, length: usize) -> Result<(), DropReason> {
        if length > usize::from(self.config.trunk_mtu) + ethernet::HEADER {
            return Err(DropReason::TooBig);
        }
        Ok(())
    }
}
