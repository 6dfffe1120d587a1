//! Into tunnels, and within limits: what the stages of both sides share.

use nve_protocol::inspect::{Admitted, Dropped, Step};
use nve_protocol::{Direction, DropReason, Vap, Vlan, Vni};

use super::{Datapath, UNCHECKED};
use crate::flow::Exit;
use crate::forward::Forward;
use crate::frame::Frame;
use crate::inspect::steps;
use crate::packet::Headers;
use crate::security::{Admission, Packet};
use crate::tables::{MeterIndex, VtepIndex};
use crate::trunk;
use crate::wire::{array, ethernet, put, vxlan};
use crate::witness::{Entrance, Incoming, Witness};
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
        enter_tunnel(frame, &outer)
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
            entropy: inner_entropy(parts.first().copied().unwrap_or_default()),
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
        witness: &mut impl Witness,
    ) -> Result<(), DropReason> {
        let Some(meter) = meter else { return Ok(()) };
        let bytes = u32::try_from(length).unwrap_or(u32::MAX);
        witness.note(|| steps::meter(&self.tables, meter));
        let admitted = match witness.is_tracing() {
            true => self.tables.would_admit(meter, now, bytes),
            false => self.tables.admit(meter, now, bytes),
        };
        if admitted {
            return Ok(());
        }
        self.blame_meter(meter, witness);
        Err(DropReason::RateLimit)
    }

    /// Says whose meter refused a frame.
    pub(super) fn blame_meter(&self, meter: MeterIndex, witness: &mut impl Witness) {
        witness.blame(|| {
            let (vlan, direction, _) = self.tables.metered(meter)?;
            steps::blame(&self.tables, vlan, direction, None)
        });
    }

    /// Asks a VAP's security groups about a frame. What is not IP passes, and so
    /// does all without port security.
    pub(super) fn admit(
        &mut self,
        incoming: &Incoming<'_>,
        vap: &Vap,
        direction: Direction,
        frame: &Frame<'_>,
        witness: &mut impl Witness,
    ) -> Result<Admission, DropReason> {
        let ip = match &incoming.headers.ip {
            Some(ip) if vap.port_security => ip,
            _ => {
                witness.note(|| steps::unchecked(vap, direction));
                return Ok(UNCHECKED);
            }
        };
        let packet = Packet {
            vlan: vap.vlan,
            direction,
            ip,
            frame: frame.bytes(),
        };
        let now = incoming.now;
        let admission = match witness.is_tracing() {
            true => self.judge(&packet, now, witness),
            false => self.security.admit(self.tables.rules(), &packet, now),
        };
        if admission.is_err() {
            witness.blame(|| {
                let rule = self.security.former_rule(&packet, now);
                steps::blame(&self.tables, vap.vlan, direction, rule)
            });
        }
        admission
    }

    /// The same, and nothing changes by it.
    fn judge(
        &self,
        packet: &Packet<'_>,
        now: Nanos,
        witness: &mut impl Witness,
    ) -> Result<Admission, DropReason> {
        let opened = witness.opening().and_then(|opening| opening.take());
        let known = opened.and_then(|opening| opening.allows(packet));
        let (rule, connection, opens) = match known {
            Some(rule) => (Some(rule), None, false),
            None => {
                let rules = self.tables.rules();
                let judgement = self.security.judge(rules, packet, now, opened.as_ref())?;
                if let Some(opening) = witness.opening() {
                    *opening = judgement.opening;
                }
                let opens = judgement.opening.is_some();
                (judgement.rule, judgement.connection, opens)
            }
        };
        witness.note(|| {
            Step::Admitted(Admitted {
                vlan: packet.vlan,
                direction: packet.direction,
                checked: true,
                rule,
                connection: connection.map(|known| known.state.into()),
                opens,
            })
        });
        Ok(Admission {
            connection: None,
            rule,
            lasting: false,
        })
    }

    /// Asks the security groups of the VAP that a frame leaves by, if it is one.
    pub(super) fn admit_at(
        &mut self,
        incoming: &Incoming<'_>,
        exit: Exit,
        frame: &Frame<'_>,
        witness: &mut impl Witness,
    ) -> Result<Admission, DropReason> {
        let Exit::Vap(vlan) = exit else {
            return Ok(UNCHECKED);
        };
        match self.tables.vap(vlan.get()).copied() {
            Some(vap) => self.admit(incoming, &vap, Direction::Ingress, frame, witness),
            None => Err(DropReason::UnknownVlan),
        }
    }

    /// Whether a VAP may get a copy; `length` is the frame's without tag.
    pub(super) fn admit_copy(
        &mut self,
        incoming: &Incoming<'_>,
        vlan: Vlan,
        frame: &Frame<'_>,
        length: usize,
        witness: &mut impl Witness,
    ) -> Result<(), DropReason> {
        self.admit_at(incoming, Exit::Vap(vlan), frame, witness)?;
        let meter = self.tables.meter(vlan, Direction::Ingress);
        self.admit_rate(incoming.now, meter, length, witness)?;
        self.check_trunk_mtu(length)
    }

    /// Counts the drop of a copy; false if it was one.
    pub(super) fn count(
        &mut self,
        incoming: &Incoming<'_>,
        result: Result<(), DropReason>,
        witness: &mut impl Witness,
    ) -> bool {
        if let Err(reason) = result {
            let (now, from, headers) = (incoming.now, incoming.from, incoming.headers);
            self.lose(now, from, Some(headers), reason, witness);
        }
        result.is_ok()
    }

    /// Counts a drop and remembers it.
    #[cold]
    pub(super) fn lose(
        &mut self,
        now: Nanos,
        from: Entrance<'_>,
        headers: Option<&Headers>,
        reason: DropReason,
        witness: &mut impl Witness,
    ) -> Verdict {
        let blame = witness.take_blame();
        match witness.is_tracing() {
            true => witness.note(|| Step::Drop { reason, blame }),
            false => {
                self.counters.count_drop(reason);
                self.drops.push(Dropped {
                    number: 0,
                    at_ms: now.0 / 1_000_000,
                    reason,
                    from: steps::via(&self.tables, from),
                    blame,
                    packet: headers.map(steps::packet),
                });
            }
        }
        Verdict::Drop(reason)
    }

    /// `length` is that of the frame without its tag.
    pub(super) fn check_trunk_mtu(&self, length: usize) -> Result<(), DropReason> {
        if length > usize::from(self.config.trunk_mtu) + ethernet::HEADER {
            return Err(DropReason::TooBig);
        }
        Ok(())
    }
}

/// Puts outer headers in front of an untagged frame.
pub(super) fn enter_tunnel(
    frame: &mut Frame<'_>,
    outer: &vxlan::Headers,
) -> Result<Verdict, DropReason> {
    let outer = outer.bytes();
    let room = frame.push_front(outer.len()).ok_or(DropReason::NoBuffer)?;
    crate::wire::put(room, 0, outer);
    Ok(Verdict::Send(Side::Uplink))
}

/// See [`trunk::entropy`].
fn inner_entropy(inner: &[u8]) -> u32 {
    let split = inner.split_at_checked(ethernet::ADDRESSES);
    let (addresses, rest) = split.unwrap_or_default();
    trunk::entropy(addresses, rest)
}

/// What spreads the packets of a tagged frame's flow over the source ports of outer
/// headers: a hash over the frame as it enters the tunnel.
pub(super) fn entropy(exit: Exit, forward: &Forward, frame: &[u8]) -> u32 {
    if !matches!(exit, Exit::Tunnel(_)) {
        return 0;
    }
    let mut addresses: [u8; ethernet::ADDRESSES] = array(frame, 0).unwrap_or_default();
    if let Some(routed) = &forward.routed {
        let to = &routed.rewrite;
        put(&mut addresses, 0, &to.destination.0);
        put(&mut addresses, 6, &to.source.0);
    }
    let rest = frame.get(ethernet::ADDRESSES + ethernet::TAG..);
    trunk::entropy(&addresses, rest.unwrap_or_default())
}
