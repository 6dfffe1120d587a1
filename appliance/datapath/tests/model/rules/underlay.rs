//! Into tunnels and out of them (RFC 7348), and underlay stations.

use std::net::{IpAddr, Ipv4Addr};

use nve_protocol::*;

use super::{Model, OVERHEAD, Outcome, Receivers, Sent, UPLINK_MTU, switching, well_formed};
use crate::packet::{Body, Frame};
use crate::world::{VTEP, WAY_OUT};

/// TTL of what the NVE sends, and of what is sent to it.
pub const HOPS: u8 = 64;

/// What comes in on the uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    Tunnelled {
        source: Ipv4Addr,
        vni: u32,
        inner: Frame,
        outer: Outer,
    },
    /// ARP of an underlay station.
    Arp { ip: Ipv4Addr, mac: Mac },
}

/// How the outer headers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outer {
    /// Right, with a UDP checksum or without, and with padding behind.
    Right {
        checksum: bool,
        padding: usize,
    },
    OtherStation,
    OtherAddress,
    /// No VXLAN.
    OtherPort,
    BadChecksum,
    BadUdpChecksum,
    BadUdpLength,
    Fragment,
    /// Without the I flag.
    NoVni,
}

/// The station that frames for a VTEP are sent to.
pub(super) fn next_hop(vtep: IpAddr) -> Ipv4Addr {
    match vtep {
        IpAddr::V4(vtep) if vtep.octets()[..3] == VTEP.octets()[..3] => vtep,
        _ => WAY_OUT,
    }
}

impl Model {
    /// What another VTEP, or an underlay station, sends.
    pub fn uplink(&mut self, arrival: &Arrival) -> Outcome {
        let result = match arrival {
            Arrival::Arp { ip, mac } => {
                let needed = self.vteps().into_iter().any(|vtep| next_hop(vtep) == *ip);
                if needed && mac.is_unicast() {
                    self.next_hops.insert(*ip, *mac);
                }
                Ok(Outcome {
                    host: true,
                    ..Outcome::default()
                })
            }
            Arrival::Tunnelled {
                source,
                vni,
                inner,
                outer,
            } => self.out_of_tunnel(*source, *vni, inner, *outer),
        };
        result.unwrap_or_else(Outcome::dropped)
    }

    fn out_of_tunnel(
        &mut self,
        source: Ipv4Addr,
        vni: u32,
        inner: &Frame,
        outer: Outer,
    ) -> Result<Outcome, DropReason> {
        match outer {
            Outer::Right { .. } => {}
            Outer::OtherStation | Outer::OtherAddress => return Err(DropReason::NotForUs),
            Outer::OtherPort => {
                return Ok(Outcome {
                    host: true,
                    ..Outcome::default()
                });
            }
            Outer::BadChecksum => return Err(DropReason::OuterIp),
            Outer::BadUdpChecksum | Outer::BadUdpLength => return Err(DropReason::OuterUdp),
            Outer::Fragment => return Err(DropReason::OuterFragment),
            Outer::NoVni => return Err(DropReason::VxlanFlags),
        }
        let vni = Vni::new(vni).ok_or(DropReason::UnknownVni)?;
        let is_or_was_here = |vap: &Vap| self.is_here(vap) || vap.presence == Presence::Departed;
        if !self.vaps().any(|vap| vap.vni == vni && is_or_was_here(vap)) {
            return Err(DropReason::UnknownVni);
        }
        let source = source.into();
        let may_send = self.records().any(|record| match record {
            Record::Flood(flood) => (flood.vni, flood.vtep) == (vni, source),
            Record::Peer(peer) => (peer.vni, peer.vtep) == (vni, source),
            _ => false,
        });
        if !may_send {
            return Err(DropReason::UnknownVtep);
        }
        well_formed(inner)?;
        // RFC 7348, section 6.1; of several faults this one counts.
        if let Body::Tagged(_) = inner.body {
            return Err(DropReason::InnerVlan);
        }
        switching::check_common(inner)?;
        if let Some(vtep) = self.moved_to(vni, inner.destination) {
            if vtep == source {
                return Err(DropReason::SplitHorizon);
            }
            let mut outcome = Outcome::default();
            outcome.note(self.sent_on(vni, vtep, &inner.encode()));
            return Ok(outcome);
        }
        let receivers = self.receivers(vni, inner.destination, None);
        let nobody = receivers == Receivers::Several(Vec::new());
        if nobody && !inner.destination.is_multicast() {
            return Err(DropReason::SplitHorizon);
        }
        let bytes = inner.encode();
        self.admit_to_owner(&receivers, inner)?;
        self.meter_owner(&receivers, bytes.len())?;
        self.give(vni, inner, &receivers, &[bytes], None)
    }

    /// Where the VM is now that had an address here.
    fn moved_to(&self, vni: Vni, mac: Mac) -> Option<IpAddr> {
        let own = || self.vaps().filter(|vap| (vap.vni, vap.mac) == (vni, mac));
        let is_here = own().any(|vap| self.is_here(vap));
        let was_here = own().any(|vap| vap.presence == Presence::Departed);
        let remote = self.remote(vni, mac);
        remote.filter(|_| was_here && !is_here)
    }

    /// Out of one tunnel and into another: each time with one hop less.
    fn sent_on(&self, vni: Vni, vtep: IpAddr, frame: &[u8]) -> Result<Sent, DropReason> {
        let mut sent = self.to_vtep(vni, vtep, frame, None)?;
        if let Sent::Tunnel { hops, .. } = &mut sent {
            *hops -= 1;
        }
        Ok(sent)
    }

    pub(super) fn to_vtep(
        &self,
        vni: Vni,
        vtep: IpAddr,
        frame: &[u8],
        mark: Option<u8>,
    ) -> Result<Sent, DropReason> {
        let next_hop = *self
            .next_hops
            .get(&next_hop(vtep))
            .ok_or(DropReason::UnderlayUnresolved)?;
        if frame.len() + OVERHEAD > UPLINK_MTU {
            return Err(DropReason::TooBig);
        }
        Ok(Sent::Tunnel {
            next_hop,
            vtep,
            hops: HOPS,
            dscp: mark.unwrap_or(0),
            vni: vni.get(),
            inner: frame.to_vec(),
        })
    }
}
