//! Within a network: who gets a frame, and what is answered for others.

use std::net::IpAddr;

use nve_protocol::*;

use super::{Model, Outcome, Receiver, Receivers, Sent, TRUNK_MTU, well_formed};
use crate::packet::{Body, ETHERNET, Frame, tagged};

/// How a frame came in on the trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// With this TCI: priority and VLAN identifier.
    Vlan(u16),
    /// With another tag, or with none.
    None,
}

impl Model {
    /// What a VM sends.
    pub fn trunk(&mut self, tag: Tag, frame: &Frame) -> Outcome {
        self.try_trunk(tag, frame).unwrap_or_else(Outcome::dropped)
    }

    fn try_trunk(&mut self, tag: Tag, frame: &Frame) -> Result<Outcome, DropReason> {
        let Tag::Vlan(tci) = tag else {
            return Err(match frame.body {
                // It is taken for the trunk's tag, and no VAP has it.
                Body::Tagged(0x8100) => DropReason::UnknownVlan,
                _ => DropReason::Untagged,
            });
        };
        let vap = *self.vap(tci & 0x0fff).ok_or(DropReason::UnknownVlan)?;
        let vap = &vap;
        well_formed(frame)?;
        check_sender(frame)?;
        self.check_source(vap, frame)?;
        let outcome = self.forward(vap, frame, tci);
        self.hear(vap);
        outcome
    }

    /// What becomes of a frame from a source that the VM may use.
    fn forward(&mut self, vap: &Vap, frame: &Frame, tci: u16) -> Result<Outcome, DropReason> {
        if let Some(outcome) = self.answer(vap, frame)? {
            return Ok(outcome);
        }
        self.admit(vap, Direction::Egress, frame)?;
        let gateway = self
            .gateways()
            .find(|gateway| (gateway.vni, gateway.mac) == (vap.vni, frame.destination))
            .copied();
        if let Some(gateway) = gateway {
            return self.route(vap, &gateway, frame, tci);
        }
        let receivers = self.receivers(vap.vni, frame.destination, Some(vap.vlan));
        self.admit_to_owner(&receivers, frame)?;
        self.meter_way(vap, frame, &receivers)?;
        let mark = self.mark(vap.vlan);
        let bytes = marked(frame, mark).encode();
        self.give(vap.vni, frame, &receivers, &[bytes], mark)
    }

    /// Passes a frame through what limits its sender, and its receiver if that is
    /// known; copies are limited each by itself.
    pub(super) fn meter_way(
        &mut self,
        vap: &Vap,
        frame: &Frame,
        receivers: &Receivers,
    ) -> Result<(), DropReason> {
        let bytes = frame.encode().len();
        self.meter(vap.vlan, Direction::Egress, bytes)?;
        self.meter_owner(receivers, bytes)
    }

    pub(super) fn meter_owner(
        &mut self,
        receivers: &Receivers,
        bytes: usize,
    ) -> Result<(), DropReason> {
        match *receivers {
            Receivers::Owner(Receiver::Vap(vlan)) => self.meter(vlan, Direction::Ingress, bytes),
            _ => Ok(()),
        }
    }

    /// Who gets a frame in a network. `from` is the VAP that it came from; what
    /// came out of a tunnel goes to none but who is here.
    pub(super) fn receivers(&self, vni: Vni, destination: Mac, from: Option<Vlan>) -> Receivers {
        let here = |vap: &&Vap| vap.vni == vni && self.is_here(vap);
        let members = || self.vaps().filter(here);
        if !destination.is_multicast() {
            if let Some(owner) = members().find(|vap| vap.mac == destination) {
                return Receivers::Owner(Receiver::Vap(owner.vlan));
            }
            let remote = self.remote(vni, destination);
            if let (Some(vtep), Some(_)) = (remote, from) {
                return Receivers::Owner(Receiver::Vtep(vtep));
            }
        }
        let mut receivers: Vec<Receiver> = members()
            .filter(|vap| Some(vap.vlan) != from)
            .filter(|vap| destination.is_multicast() || self.takes(vap, destination))
            .map(|vap| Receiver::Vap(vap.vlan))
            .collect();
        if from.is_some() {
            receivers.extend(self.records().filter_map(|record| match record {
                Record::Flood(flood) => (flood.vni == vni).then_some(Receiver::Vtep(flood.vtep)),
                _ => None,
            }));
        }
        Receivers::Several(receivers)
    }

    /// The VTEP that an address is behind.
    pub(super) fn remote(&self, vni: Vni, mac: Mac) -> Option<IpAddr> {
        self.records().find_map(|record| match record {
            Record::Fdb(fdb) => ((fdb.vni, fdb.mac) == (vni, mac)).then_some(fdb.vtep),
            _ => None,
        })
    }

    /// Whether the security groups of the one receiver let a frame in.
    pub(super) fn admit_to_owner(
        &mut self,
        receivers: &Receivers,
        frame: &Frame,
    ) -> Result<(), DropReason> {
        match *receivers {
            Receivers::Owner(receiver) => self.admit_to(receiver, frame),
            Receivers::Several(_) => Ok(()),
        }
    }

    /// Whether a receiver's security groups let a frame in.
    fn admit_to(&mut self, receiver: Receiver, frame: &Frame) -> Result<(), DropReason> {
        match receiver {
            Receiver::Vap(vlan) => match self.vap(vlan.get()).copied() {
                Some(vap) => self.admit(&vap, Direction::Ingress, frame),
                None => Ok(()),
            },
            Receiver::Vtep(_) => Ok(()),
        }
    }

    /// Whether one of several receivers gets its copy.
    fn admit_copy(&mut self, receiver: Receiver, frame: &Frame) -> Result<(), DropReason> {
        self.admit_to(receiver, frame)?;
        self.meter_owner(&Receivers::Owner(receiver), frame.encode().len())
    }

    /// Sends what has become of a frame, which has no tag, to each of the receivers.
    /// The owner of the address has been asked already whether it may have it.
    pub(super) fn give(
        &mut self,
        vni: Vni,
        origin: &Frame,
        receivers: &Receivers,
        frames: &[Vec<u8>],
        mark: Option<u8>,
    ) -> Result<Outcome, DropReason> {
        let (receivers, copies) = match receivers {
            Receivers::Owner(receiver) => (vec![*receiver], false),
            Receivers::Several(receivers) => (receivers.clone(), true),
        };
        if receivers.is_empty() {
            return Err(DropReason::NoReceiver);
        }
        let mut outcome = Outcome::default();
        for receiver in receivers {
            if copies && let Err(reason) = self.admit_copy(receiver, origin) {
                outcome.note(Err(reason));
                continue;
            }
            for frame in frames {
                outcome.note(match receiver {
                    Receiver::Vap(vlan) => to_vap(vlan, frame),
                    Receiver::Vtep(vtep) => self.to_vtep(vni, vtep, frame, mark),
                });
            }
        }
        Ok(outcome)
    }
}

/// The frame with its packet's DSCP set.
pub(super) fn marked(frame: &Frame, mark: Option<u8>) -> Frame {
    let mut frame = frame.clone();
    if let (Body::Ip(ip), Some(dscp)) = (&mut frame.body, mark) {
        ip.traffic_class = ip.traffic_class & 3 | dscp << 2;
    }
    frame
}

/// Refuses what no VM may send.
fn check_sender(frame: &Frame) -> Result<(), DropReason> {
    if !frame.source.is_unicast() {
        return Err(DropReason::SourceMac);
    }
    if frame.destination == frame.source {
        return Err(DropReason::Hairpin);
    }
    check_common(frame)
}

/// Refuses what neither a VM nor a VTEP may send.
pub(super) fn check_common(frame: &Frame) -> Result<(), DropReason> {
    if is_link_local_group(frame.destination) {
        return Err(DropReason::LinkLocalGroup);
    }
    match frame.body {
        Body::Tagged(_) => Err(DropReason::InnerVlan),
        _ => Ok(()),
    }
}

/// IEEE 802.1Q, table 8-1.
fn is_link_local_group(mac: Mac) -> bool {
    mac.0[..5] == [0x01, 0x80, 0xc2, 0, 0] && mac.0[5] < 0x10
}

fn to_vap(vlan: Vlan, frame: &[u8]) -> Result<Sent, DropReason> {
    if frame.len() > TRUNK_MTU + ETHERNET {
        return Err(DropReason::TooBig);
    }
    Ok(Sent::Trunk {
        bytes: tagged(frame, vlan.get()),
    })
}
