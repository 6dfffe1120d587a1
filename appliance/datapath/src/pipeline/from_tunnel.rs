//! Frames from the uplink: out of a tunnel to VAPs, or for the NVE itself.

use nve_protocol::{DropReason, Vlan, Vni};

use super::Datapath;
use crate::checksum;
use crate::flow::{Exit, FlowKey, Path};
use crate::forward::{Forward, Receivers};
use crate::frame::Frame;
use crate::packet::Headers;
use crate::replicate;
use crate::tables::VtepIndex;
use crate::trunk;
use crate::uplink;
use crate::{Nanos, Side, Sink, Verdict};

impl Datapath {
    pub(super) fn process_uplink(
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
    pub(super) fn process_tunnelled(
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
    pub(super) fn deliver(&self, frame: &mut Frame<'_>, vlan: Vlan) -> Result<Verdict, DropReason> {
        self.check_trunk_mtu(frame.len())?;
        trunk::tag(frame, vlan)?;
        Ok(Verdict::Send(Side::Trunk))
    }

    /// Gives an untagged frame, out of a tunnel, to VAPs of its network.
    pub(super) fn replicate_to_vaps(
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
