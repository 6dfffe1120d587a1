//! Frames from the trunk: from a VM of this host to anywhere.

use nve_protocol::{DropReason, Vap, Vlan};

use crate::frame::Frame;
use crate::packet::Headers;
use crate::tables::Tables;
use crate::wire::{ethernet, put, u16_at};

/// Bytes of the headers in front of what a VM sent.
pub(crate) const TAGGED_HEADER: usize = ethernet::HEADER + ethernet::TAG;

/// The VAP that a frame came from, by its tag.
pub(crate) fn sender<'t>(tables: &'t Tables, frame: &[u8]) -> Result<&'t Vap, DropReason> {
    let tag = ethernet::parse_tag(frame).ok_or(DropReason::Truncated)?;
    let (vlan, _) = tag.map_err(|_| DropReason::Untagged)?;
    tables.vap(vlan).ok_or(DropReason::UnknownVlan)
}

/// Refuses what no VM may send, whatever the tables say of it.
pub(crate) fn check(headers: &Headers) -> Result<(), DropReason> {
    if !headers.source.is_unicast() {
        return Err(DropReason::SourceMac);
    }
    if headers.destination == headers.source {
        return Err(DropReason::Hairpin);
    }
    if ethernet::is_link_local_group(headers.destination) {
        return Err(DropReason::LinkLocalGroup);
    }
    if matches!(headers.ethertype, ethernet::VLAN | ethernet::S_VLAN) {
        return Err(DropReason::InnerVlan);
    }
    Ok(())
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

/// The same in place of what is in front of the frame's `inner` bytes, of which there have
/// to be as many as a tag has; nothing else is left of them.
#[inline(always)]
pub(crate) fn tag_over(frame: &mut Frame<'_>, inner: usize, vlan: Vlan) {
    const FRONT: usize = ethernet::TAG + ethernet::ADDRESSES;

    if let Some(front) = inner.checked_sub(ethernet::TAG)
        && frame.pull_front(front).is_some()
        && let Some(front) = frame.bytes_mut().first_chunk_mut::<FRONT>()
    {
        front.copy_within(ethernet::TAG.., 0);
        put(front, ethernet::ADDRESSES, &tag_bytes(vlan));
    }
}

/// A tag with best-effort priority.
pub(crate) fn tag_bytes(vlan: Vlan) -> [u8; ethernet::TAG] {
    let [a, b] = ethernet::VLAN.to_be_bytes();
    let [c, d] = vlan.get().to_be_bytes();
    [a, b, c, d]
}

/// Spreads the flows between two VTEPs over UDP source ports (RFC 7348, section
/// 5): a hash over the inner frame's MAC addresses, and the IP addresses and ports of
/// the `rest` behind them, which begins with the EtherType.
pub(crate) fn entropy(addresses: &[u8], rest: &[u8]) -> u32 {
    let mut hash = 0x9e37_79b9_u32;
    let mut mix = |bytes: &[u8]| {
        for word in bytes.chunks_exact(4) {
            if let [a, b, c, d] = *word {
                hash = (hash ^ u32::from_be_bytes([a, b, c, d])).wrapping_mul(0x85eb_ca6b);
                hash ^= hash >> 15;
            }
        }
    };
    mix(addresses);
    let packet = rest.get(2..).unwrap_or_default();
    match u16_at(rest, 0) {
        Some(ethernet::IPV4) => {
            mix(packet.get(12..20).unwrap_or_default());
            let header = usize::from(packet.first().copied().unwrap_or_default() & 0x0f) * 4;
            let protocol = packet.get(9).copied().unwrap_or_default();
            let whole = u16_at(packet, 6).is_some_and(|flags| flags & 0x3fff == 0);
            if whole && matches!(protocol, 6 | 17 | 132) {
                mix(packet.get(header..header + 4).unwrap_or_default());
            }
        }
        Some(ethernet::IPV6) => {
            mix(packet.get(8..40).unwrap_or_default());
            if matches!(packet.get(6), Some(6 | 17 | 132)) {
                mix(packet.get(40..44).unwrap_or_default());
            }
        }
        _ => {}
    }
    hash
}
