//! Frames from the uplink: out of a tunnel to VAPs, or on to where a VM has moved, or for
//! the NVE itself.

use nve_protocol::inspect::Step;
use nve_protocol::{DropReason, Vlan, Vni};

use super::Datapath;
use crate::checksum;
use crate::flow::{Exit, Path};
use crate::forward::{Forward, Receivers};
use crate::frame::Frame;
use crate::glance::Glance;
use crate::inspect::steps;
use crate::packet::Headers;
use crate::replicate;
use crate::tables::VtepIndex;
use crate::trunk;
use crate::uplink;
use crate::witness::{Entrance, Incoming, Witness};
use crate::{Nanos, Side, Verdict};

/// The tunnel that a frame came out of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) vni: Vni,
    /// The other end.
    pub(crate) vtep: VtepIndex,
    /// What is left of the outer hop limit.
    pub(crate) hops: u8,
}

impl Datapath {
    /// The error is of a frame that is out of no known tunnel.
    pub(super) fn process_uplink(
        &mut self,
        now: Nanos,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
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
                hops,
                inner,
                end,
            } => {
                let vtep = uplink::sender(&self.tables, vni, source)?;
                uplink::decapsulate(frame, inner, end)?;
                let way = Way { vni, vtep, hops };
                Ok(self.process_tunnelled(now, &way, frame, witness))
            }
        }
    }

    /// A frame that came out of a tunnel.
    pub(crate) fn process_tunnelled(
        &mut self,
        now: Nanos,
        way: &Way,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
    ) -> Verdict {
        let from = Entrance::Tunnel(way.vni, way.vtep);
        if let Some(via) = steps::via(&self.tables, from) {
            witness.note(|| Step::From(via));
        }
        let headers = match Headers::parse(frame.bytes()) {
            Ok(headers) => headers,
            Err(reason) => return self.lose(now, from, None, reason, witness),
        };
        let incoming = Incoming {
            now,
            from,
            headers: &headers,
        };
        let outcome = self.forward_from_tunnel(&incoming, way, frame, witness);
        outcome.unwrap_or_else(|reason| self.lose(now, from, Some(&headers), reason, witness))
    }

    fn forward_from_tunnel(
        &mut self,
        incoming: &Incoming<'_>,
        way: &Way,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
    ) -> Result<Verdict, DropReason> {
        let (now, headers, vni) = (incoming.now, incoming.headers, way.vni);
        uplink::check(headers)?;
        let receivers = uplink::resolve(&self.tables, vni, headers.destination);
        let forward = Forward {
            vni,
            receivers,
            routed: None,
        };
        witness.note(|| steps::receiver(&self.tables, &forward, headers));
        let vlan = match receivers {
            Receivers::Vap(vlan) => vlan,
            Receivers::Vtep(now_at) => return self.redirect(way, now_at, frame),
            Receivers::All | Receivers::Unknown => {
                let group = replicate::Receivers::new(&forward, headers.destination, None);
                return self.replicate_to_vaps(incoming, group, frame, witness);
            }
        };
        let exit = Exit::Vap(vlan);
        let got = self.admit_at(incoming, exit, frame, witness)?;
        let path = Path::new(vni, exit)
            .following([None, got.connection])
            .metered(None, self.ingress_meter(exit));
        if got.lasting
            && !witness.is_tracing()
            && let Some(peer) = uplink::peer(&self.tables, way.vtep)
            && let Some(glance) = Glance::of_tunnel(vni, peer, frame.bytes())
        {
            self.flows.insert(glance.key, path, self.epoch, now);
        }
        self.admit_rate(now, path.ingress, frame.len(), witness)?;
        self.deliver(frame, vlan)
    }

    /// Sends an untagged frame to a VAP.
    #[inline]
    pub(super) fn deliver(&self, frame: &mut Frame<'_>, vlan: Vlan) -> Result<Verdict, DropReason> {
        self.check_trunk_mtu(frame.len())?;
        trunk::tag(frame, vlan)?;
        Ok(Verdict::Send(Side::Trunk))
    }

    /// Gives an untagged frame, out of a tunnel, to VAPs of its network.
    fn replicate_to_vaps(
        &mut self,
        incoming: &Incoming<'_>,
        mut group: replicate::Receivers,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
    ) -> Result<Verdict, DropReason> {
        let mut last = None;
        while let Some(vlan) = group.next_vap(&self.tables) {
            let admitted = self.admit_copy(incoming, vlan, frame, frame.len(), witness);
            if self.count(incoming, admitted, witness)
                && let Some(earlier) = last.replace(vlan)
            {
                let sent = replicate::emit_untagged(frame.bytes(), earlier, witness);
                self.count(incoming, sent, witness);
            }
        }
        match last {
            Some(vlan) => self.deliver(frame, vlan),
            None if group.is_nobody() => Err(group.nobody()),
            None => Ok(Verdict::Done),
        }
    }
}
