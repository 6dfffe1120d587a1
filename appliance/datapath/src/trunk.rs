//! Frames from the trunk: from a VM of this host to anywhere.
//!
//! Three steps, so that a cache can later hold the outcome of the second:
//! [`classify`] reads the frame, [`resolve`] decides by the tables, and the
//! pipeline in [`crate::Datapath`] rewrites.

use core::net::IpAddr;

use nve_protocol::{DropReason, Mac, Vap, Vlan, Vni};

use crate::frame::Frame;
use crate::tables::{Tables, VtepIndex};
use crate::wire::arp::{Operation, Packet};
use crate::wire::ethernet::{self, Header};
use crate::wire::{mac_at, put};

/// What the headers of a frame from the trunk say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) vap: Vap,
    pub(crate) destination: Mac,
    pub(crate) ethertype: u16,
}

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Give it to another VAP.
    Local(Vlan),
    /// Encapsulate it for a VTEP.
    Tunnel(Vni, VtepIndex),
    /// Give it to all other members of the network.
    Replicate(Vni),
    /// Give it to the remote members of the network.
    ReplicateRemote(Vni),
    /// Answer the ARP request in it.
    ArpReply(Packet),
}

/// Bytes of the headers in front of what a VM sent.
pub(crate) const TAGGED_HEADER: usize = ethernet::HEADER + ethernet::TAG;

/// Reads the headers: which VAP sent this, to whom.
pub(crate) fn classify(tables: &Tables, frame: &[u8]) -> Result<Arrival, DropReason> {
    let tag = ethernet::parse_tag(frame).ok_or(DropReason::Truncated)?;
    let (vlan, ethertype) = tag.map_err(|_| DropReason::Untagged)?;
    let destination = mac_at(frame, 0).ok_or(DropReason::Truncated)?;
    let source = mac_at(frame, 6).ok_or(DropReason::Truncated)?;
    let vap = *tables.vap(vlan).ok_or(DropReason::UnknownVlan)?;
    if source != vap.mac {
        return Err(DropReason::SourceMac);
    }
    if destination == source {
        return Err(DropReason::Hairpin);
    }
    if ethernet::is_link_local_group(destination) {
        return Err(DropReason::LinkLocalGroup);
    }
    if matches!(ethertype, ethernet::VLAN | ethernet::S_VLAN) {
        return Err(DropReason::InnerVlan);
    }
    Ok(Arrival {
        vap,
        destination,
        ethertype,
    })
}

/// Decides by the tables alone.
pub(crate) fn resolve(
    tables: &Tables,
    arrival: &Arrival,
    frame: &[u8],
) -> Result<Action, DropReason> {
    let vni = arrival.vap.vni;
    if arrival.ethertype == ethernet::ARP
        && let Some(reply) = answer_arp(tables, &arrival.vap, frame)?
    {
        return Ok(Action::ArpReply(reply));
    }
    if arrival.destination.is_multicast() {
        return Ok(Action::Replicate(vni));
    }
    if let Some(vlan) = tables.local(vni, arrival.destination) {
        return Ok(Action::Local(vlan));
    }
    match tables.remote(vni, arrival.destination) {
        Some(vtep) => Ok(Action::Tunnel(vni, vtep)),
        // Every local address is known, so an unknown one can only be remote.
        None => Ok(Action::ReplicateRemote(vni)),
    }
}

/// The reply to an ARP request whose target is in the tables. None is given to
/// the owner of the address itself, so that it can look for duplicates (RFC 5227).
fn answer_arp(tables: &Tables, vap: &Vap, frame: &[u8]) -> Result<Option<Packet>, DropReason> {
    let body = frame.get(TAGGED_HEADER..).ok_or(DropReason::Truncated)?;
    let request = Packet::parse(body).ok_or(DropReason::Arp)?;
    if request.sender_mac != vap.mac {
        return Err(DropReason::Arp);
    }
    if request.operation != Operation::Request {
        return Ok(None);
    }
    let owner = tables.neighbor(vap.vni, IpAddr::V4(request.target_ip));
    Ok(owner
        .filter(|mac| *mac != vap.mac)
        .map(|mac| request.answer(mac)))
}

/// Turns an ARP request in `frame` into `reply`, tag and all.
pub(crate) fn write_arp_reply(frame: &mut Frame<'_>, reply: &Packet) {
    let bytes = frame.bytes_mut();
    put(bytes, 0, &reply.target_mac.0);
    put(bytes, 6, &reply.sender_mac.0);
    put(bytes, TAGGED_HEADER, &reply.emit());
}

/// Replaces the tag's VLAN identifier; priority is the vSwitch's business and
/// set to best effort.
pub(crate) fn retag(frame: &mut Frame<'_>, vlan: Vlan) {
    put(
        frame.bytes_mut(),
        TAGGED_HEADER - ethernet::TAG,
        &vlan.get().to_be_bytes(),
    );
}

/// Takes the tag out, by moving the addresses over it.
pub(crate) fn untag(frame: &mut Frame<'_>) -> Result<(), DropReason> {
    let bytes = frame.bytes_mut();
    if bytes.len() < TAGGED_HEADER {
        return Err(DropReason::Truncated);
    }
    bytes.copy_within(..ethernet::ADDRESSES, ethernet::TAG);
    frame.pull_front(ethernet::TAG).ok_or(DropReason::Truncated)
}

/// Puts a tag in, by moving the addresses into the headroom.
pub(crate) fn tag(frame: &mut Frame<'_>, vlan: Vlan) -> Result<(), DropReason> {
    if frame.len() < ethernet::HEADER {
        return Err(DropReason::Truncated);
    }
    let bytes = frame
        .push_front(ethernet::TAG)
        .ok_or(DropReason::NoBuffer)?;
    bytes.copy_within(ethernet::TAG..ethernet::TAG + ethernet::ADDRESSES, 0);
    put(bytes, ethernet::ADDRESSES, &tag_bytes(vlan));
    Ok(())
}

/// A tag with best-effort priority.
pub(crate) fn tag_bytes(vlan: Vlan) -> [u8; ethernet::TAG] {
    let [a, b] = ethernet::VLAN.to_be_bytes();
    let [c, d] = vlan.get().to_be_bytes();
    [a, b, c, d]
}

/// Spreads the flows between two VTEPs over UDP source ports (RFC 7348, section
/// 5): a hash over the inner addresses and ports.
pub(crate) fn entropy(inner: &[u8]) -> u32 {
    let mut hash = 0x9e37_79b9_u32;
    let mut mix = |bytes: &[u8]| {
        for word in bytes.chunks_exact(4) {
            if let [a, b, c, d] = *word {
                hash = (hash ^ u32::from_be_bytes([a, b, c, d])).wrapping_mul(0x85eb_ca6b);
                hash ^= hash >> 15;
            }
        }
    };
    mix(inner.get(..ethernet::ADDRESSES).unwrap_or_default());
    match Header::parse(inner).map(|header| header.ethertype) {
        Some(ethernet::IPV4) => {
            let packet = inner.get(ethernet::HEADER..).unwrap_or_default();
            mix(packet.get(12..20).unwrap_or_default());
            let header = usize::from(packet.first().copied().unwrap_or_default() & 0x0f) * 4;
            let protocol = packet.get(9).copied().unwrap_or_default();
            let whole = crate::wire::u16_at(packet, 6).is_some_and(|flags| flags & 0x3fff == 0);
            if whole && matches!(protocol, 6 | 17 | 132) {
                mix(packet.get(header..header + 4).unwrap_or_default());
            }
        }
        Some(ethernet::IPV6) => {
            let packet = inner.get(ethernet::HEADER..).unwrap_or_default();
            mix(packet.get(8..40).unwrap_or_default());
            if matches!(packet.get(6), Some(6 | 17 | 132)) {
                mix(packet.get(40..44).unwrap_or_default());
            }
        }
        _ => {}
    }
    hash
}
