//! Echo requests to a gateway's address (RFC 792; RFC 4443, section 4).

use core::net::IpAddr;

use nve_protocol::DropReason;

use crate::checksum;
use crate::packet::{Headers, Ip, L4, protocol};
use crate::wire::{array, put, u16_at};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const HOP_LIMIT: u8 = 64;

/// Type of an IPv4 echo request and of its reply.
const IPV4_TYPES: (u8, u8) = (8, 0);
/// Type of an IPv6 echo request and of its reply.
const IPV6_TYPES: (u8, u8) = (128, 129);

/// Turns an echo request into its reply, in place: a tag stays where it is, and
/// the reply comes from the addresses that the request was sent to, which the
/// caller has found to be a gateway's. A checksum of the frame that was yet to be
/// completed must have been.
///
/// The ICMP checksum follows the change of type instead of being made anew, so
/// that damage on the way shows at the sender.
///
/// # Errors
///
/// [`DropReason::Gateway`] and no change, if it is anything else than a whole
/// echo request between two stations, without IP options and extension headers.
pub fn turn(frame: &mut [u8], headers: &Headers) -> Result<(), DropReason> {
    let ip = headers.ip.as_ref().ok_or(DropReason::Gateway)?;
    let kind = reply_kind(headers, ip).ok_or(DropReason::Gateway)?;
    let checksum = u16_at(frame, ip.transport + 2).ok_or(DropReason::Gateway)?;
    put(frame, 0, &headers.source.0);
    put(frame, 6, &headers.destination.0);
    match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            put(frame, ip.header + 12, &destination.octets());
            put(frame, ip.header + 16, &source.octets());
            put(frame, ip.header + 8, &[HOP_LIMIT]);
            put(frame, ip.header + 10, &[0, 0]);
            let header: [u8; IPV4_HEADER] = array(frame, ip.header).ok_or(DropReason::Gateway)?;
            put(frame, ip.header + 10, &checksum::of(&header).to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            put(frame, ip.header + 8, &destination.octets());
            put(frame, ip.header + 24, &source.octets());
            put(frame, ip.header + 7, &[HOP_LIMIT]);
        }
        _ => return Err(DropReason::Gateway),
    }
    let [old, new] = [kind.0, kind.1].map(|kind| u16::from(kind) << 8);
    let checksum = checksum::adjust(checksum, old, new);
    put(frame, ip.transport, &[kind.1]);
    put(frame, ip.transport + 2, &checksum.to_be_bytes());
    Ok(())
}

/// The types of request and reply, if the packet is to be answered.
fn reply_kind(headers: &Headers, ip: &Ip) -> Option<(u8, u8)> {
    let (number, header, kinds) = match ip.source {
        IpAddr::V4(_) => (protocol::ICMP, IPV4_HEADER, IPV4_TYPES),
        IpAddr::V6(_) => (protocol::ICMPV6, IPV6_HEADER, IPV6_TYPES),
    };
    let L4::Icmp { kind, code: 0, .. } = ip.l4 else {
        return None;
    };
    let request = ip.protocol == number && kind == kinds.0;
    let plain = ip.fragment.is_none() && ip.transport == ip.header + header;
    let stations = headers.source.is_unicast()
        && headers.destination.is_unicast()
        && !ip.source.is_unspecified()
        && !ip.source.is_multicast()
        && !matches!(ip.source, IpAddr::V4(ip) if ip.is_broadcast());
    (request && plain && stations && ip.end - ip.transport >= 8).then_some(kinds)
}
