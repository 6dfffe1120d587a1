//! What a router changes in a packet, in place.

use crate::checksum;
use crate::forward::Rewrite;
use crate::frame::Frame;
use crate::glance::Span;
use crate::trunk;
use crate::wire::{put, u16_at};

const TTL: usize = 8;
const IPV4_CHECKSUM: usize = 10;
const HOP_LIMIT: usize = 7;

/// Gives the frame its new addresses and takes one off its hop limit, which the
/// caller has seen to be above one.
#[inline]
pub(crate) fn route(frame: &mut Frame<'_>, ip: Span, rewrite: &Rewrite) {
    let bytes = frame.bytes_mut();
    put(bytes, 0, &rewrite.destination.0);
    put(bytes, 6, &rewrite.source.0);
    if ip.is_ipv4 {
        decrement_ttl(bytes, ip.header);
    } else if let Some(limit) = bytes.get_mut(ip.header + HOP_LIMIT) {
        *limit = limit.saturating_sub(1);
    }
}

/// The same of a tagged frame with an IPv4 packet, of which those are the first bytes.
#[inline(always)]
pub(crate) fn route_tagged<const N: usize>(front: &mut [u8; N], rewrite: &Rewrite) {
    put(front, 0, &rewrite.destination.0);
    put(front, 6, &rewrite.source.0);
    decrement_ttl(front, trunk::TAGGED_HEADER);
}

/// Takes one off the TTL and follows with the checksum.
#[inline(always)]
fn decrement_ttl(bytes: &mut [u8], header: usize) {
    let Some(old) = u16_at(bytes, header + TTL) else {
        return;
    };
    let Some(checksum) = u16_at(bytes, header + IPV4_CHECKSUM) else {
        return;
    };
    let new = old.saturating_sub(0x0100);
    let checksum = checksum::adjust(checksum, old, new);
    put(bytes, header + TTL, &new.to_be_bytes());
    put(bytes, header + IPV4_CHECKSUM, &checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use etherparse::PacketBuilder;
    use nve_protocol::Mac;

    use super::*;
    use crate::packet::Headers;

    const REWRITE: Rewrite = Rewrite {
        source: Mac([2, 0, 0, 0, 0, 8]),
        destination: Mac([2, 0, 0, 0, 0, 9]),
    };

    #[test]
    fn the_ipv4_checksum_follows() {
        for ttl in 2..=255 {
            for low in [0u8, 1, 77, 254, 255] {
                let build = |from, to, ttl| {
                    let mut bytes = Vec::new();
                    PacketBuilder::ethernet2(from, to)
                        .ipv4([10, 0, low, 1], [10, 255, low, low], ttl)
                        .udp(1, 2)
                        .write(&mut bytes, &[0; 4])
                        .unwrap();
                    bytes
                };
                let mut bytes = build([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], ttl);
                let ip = Headers::parse(&bytes).unwrap().ip.unwrap();
                let length = bytes.len();
                let mut frame = Frame::new(&mut bytes, 0, length).unwrap();
                route(&mut frame, ip.span(), &REWRITE);
                assert_eq!(
                    bytes,
                    build(REWRITE.source.0, REWRITE.destination.0, ttl - 1)
                );
            }
        }
    }
}
