//! What a verdict says is done to a frame from the trunk: within limits, marked, routed,
//! split, into another VAP or a tunnel.

use nve_protocol::inspect::Step;
use nve_protocol::{DropReason, Vap};

use super::Datapath;
use crate::flow::{Exit, Path};
use crate::frame::Frame;
use crate::glance::Span;
use crate::inspect::steps;
use crate::packet::Ip;
use crate::trunk;
use crate::wire::{ethernet, vxlan};
use crate::witness::{Incoming, Witness};
use crate::{Nanos, Side, Verdict};
use crate::{checksum, dscp, fragment, icmp, replicate, rewrite};

impl Datapath {
    /// Does with a tagged frame what its flow's verdict says; `ip` is its packet, if it
    /// has one. All that can fail comes first: after an error the frame is what it was.
    #[inline(always)]
    pub(super) fn follow_from_trunk(
        &mut self,
        now: Nanos,
        ip: Option<Span>,
        path: &Path,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
    ) -> Result<Verdict, DropReason> {
        if let (Some((_, mtu)), Some(ip)) = (&path.rewrite, ip)
            && ip.end - ip.header > usize::from(*mtu)
        {
            return self.follow_too_big(now, path, *mtu, frame, witness);
        }
        let length = frame.len() - ethernet::TAG;
        self.admit_rate(now, path.egress, length, witness)?;
        self.admit_rate(now, path.ingress, length, witness)?;
        match path.exit {
            Exit::Vap(vlan) => {
                self.check_trunk_mtu(length)?;
                if !self.config.trunk_checksum {
                    checksum::complete(frame)?;
                }
                change(ip, path, frame, witness);
                trunk::retag(frame, vlan);
                Ok(Verdict::Send(Side::Trunk))
            }
            Exit::Tunnel(vtep) => {
                let tunnel = self.underlay.tunnel(vtep)?;
                if !tunnel.fits(length, self.config.uplink.mtu) {
                    return Err(DropReason::TooBig);
                }
                checksum::complete(frame)?;
                change(ip, path, frame, witness);
                trunk::untag(frame)?;
                let label = vxlan::Label {
                    vni: path.vni,
                    entropy: path.entropy,
                    dscp: path.dscp.unwrap_or(0),
                };
                let front = frame.push_front(tunnel.length());
                front
                    .and_then(|bytes| tunnel.put(bytes, &label))
                    .ok_or(DropReason::NoBuffer)?;
                Ok(Verdict::Send(Side::Uplink))
            }
        }
    }

    /// Splits a packet that is larger than `mtu`, the most that the network takes which
    /// it is routed to, or tells its sender.
    pub(super) fn split_or_refuse(
        &mut self,
        incoming: &Incoming<'_>,
        vap: &Vap,
        path: &Path,
        mtu: u16,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
    ) -> Result<Verdict, DropReason> {
        let ip = match &incoming.headers.ip {
            Some(ip) if fragment::is_allowed(frame.bytes(), ip) => ip,
            _ => {
                let error = icmp::Error::TooBig { mtu };
                self.explain(incoming, vap, error, frame, witness);
                return Err(DropReason::TooBig);
            }
        };
        let length = frame.len() - ethernet::TAG;
        self.admit_rate(incoming.now, path.egress, length, witness)?;
        self.admit_rate(incoming.now, path.ingress, length, witness)?;
        change(Some(ip.span()), path, frame, witness);
        witness.note(|| Step::Fragment { mtu });
        self.send_in_pieces(incoming, path, ip, mtu, frame, witness)
    }

    /// Sends a tagged frame's IPv4 packet in fragments.
    fn send_in_pieces(
        &mut self,
        incoming: &Incoming<'_>,
        path: &Path,
        ip: &Ip,
        mtu: u16,
        frame: &mut Frame<'_>,
        witness: &mut impl Witness,
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
                    fits.and_then(|()| replicate::emit(witness, &parts))
                }
                Exit::Tunnel(vtep) => {
                    let inner = [addresses, &ethertype, header, payload];
                    self.emit_tunnelled(inner, path.vni, vtep, path.dscp, witness)
                }
            };
            self.count(incoming, sent, witness);
        })?;
        Ok(Verdict::Done)
    }
}

/// Marks a packet, and does a router's work on it.
#[inline]
fn change(ip: Option<Span>, path: &Path, frame: &mut Frame<'_>, witness: &mut impl Witness) {
    let Some(ip) = ip else { return };
    if let Some(mark) = path.dscp {
        dscp::mark(frame.bytes_mut(), ip.header, mark);
        witness.note(|| Step::Mark { dscp: mark });
    }
    if let Some((addresses, _)) = &path.rewrite {
        rewrite::route(frame, ip, addresses);
        witness.note(|| steps::rewrite(addresses));
    }
}
