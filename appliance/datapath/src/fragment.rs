//! Fragmentation of IPv4 packets that a router sends into a network with a
//! smaller MTU (RFC 791, section 3.2). IPv6 routers never do (RFC 8200, section 5).

use nve_protocol::DropReason;

use crate::checksum;
use crate::packet::Ip;
use crate::wire::ipv4::HEADER;
use crate::wire::{put, u16_at};

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// Most bytes of a header with options.
const MAX_HEADER: usize = 60;

/// Option types (RFC 791, section 3.1).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const COPIED: u8 = 0x80;

/// Whether the packet may be fragmented on its way.
pub(crate) fn is_allowed(frame: &[u8], ip: &Ip) -> bool {
    ip.source.is_ipv4()
        && u16_at(frame, ip.header + 6).is_some_and(|word| word & DONT_FRAGMENT == 0)
}

/// A header with its options.
#[derive(Clone)]
struct Header {
    bytes: [u8; MAX_HEADER],
    length: usize,
}

impl Header {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The header with only the options that every fragment has.
    fn without_first_options(&self) -> Header {
        let mut later = Header {
            bytes: [0; MAX_HEADER],
            length: HEADER,
        };
        put(
            &mut later.bytes,
            0,
            self.bytes.get(..HEADER).unwrap_or_default(),
        );
        let mut rest = self.bytes.get(HEADER..self.length).unwrap_or_default();
        while let [kind, tail @ ..] = rest {
            let length = match *kind {
                END_OF_OPTIONS => break,
                NO_OPERATION => 1,
                _ => usize::from(tail.first().copied().unwrap_or_default()).max(2),
            };
            let Some((option, next)) = rest.split_at_checked(length) else {
                break;
            };
            if kind & COPIED != 0 {
                put(&mut later.bytes, later.length, option);
                later.length += length;
            }
            rest = next;
        }
        // Zeros, which end the options, fill the last word.
        later.length = later.length.next_multiple_of(4);
        later
    }

    /// Completes the header for a piece of a packet.
    fn finish(&mut self, payload: usize, word: u16) {
        let total = (self.length + payload) as u16;
        if let Some(first) = self.bytes.first_mut() {
            *first = 0x40 | (self.length / 4) as u8;
        }
        put(&mut self.bytes, 2, &total.to_be_bytes());
        put(&mut self.bytes, 6, &word.to_be_bytes());
        put(&mut self.bytes, 10, &[0, 0]);
        let sum = checksum::of(self.bytes());
        put(&mut self.bytes, 10, &sum.to_be_bytes());
    }
}

/// Calls `emit` with header and payload of each piece of the packet `ip` within
/// `frame`, none of them larger than `mtu` bytes. It is too big, and nothing is
/// emitted, if not even eight bytes of payload would fit; and malformed, if it is a
/// fragment of a packet that would be larger than packets can be.
pub(crate) fn split(
    frame: &[u8],
    ip: &Ip,
    mtu: u16,
    mut emit: impl FnMut(&[u8], &[u8]),
) -> Result<(), DropReason> {
    let length = usize::from(frame.get(ip.header).copied().unwrap_or_default() & 0x0f) * 4;
    let word = u16_at(frame, ip.header + 6).unwrap_or_default();
    let mut header = Header {
        bytes: [0; MAX_HEADER],
        length: length.clamp(HEADER, MAX_HEADER),
    };
    let end = ip.header + header.length;
    put(
        &mut header.bytes,
        0,
        frame.get(ip.header..end).unwrap_or_default(),
    );
    let later = header.without_first_options();
    let mut payload = frame.get(end..ip.end).unwrap_or_default();
    let mut offset = word & OFFSET;
    if usize::from(offset) * 8 + payload.len() > usize::from(u16::MAX) {
        return Err(DropReason::MalformedIp);
    }
    loop {
        let room = usize::from(mtu).saturating_sub(header.length) & !7;
        let last = payload.len() <= usize::from(mtu).saturating_sub(header.length);
        // The first header is the longest, so this is before any piece.
        if !last && room == 0 {
            return Err(DropReason::TooBig);
        }
        let (piece, rest) = payload.split_at(if last { payload.len() } else { room });
        let more = if last {
            word & MORE_FRAGMENTS
        } else {
            MORE_FRAGMENTS
        };
        header.finish(piece.len(), more | offset);
        emit(header.bytes(), piece);
        if last {
            return Ok(());
        }
        payload = rest;
        offset = offset.wrapping_add((piece.len() / 8) as u16);
        header = later.clone();
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use etherparse::{IpFragOffset, Ipv4Header, Ipv4Options, ip_number};
    use proptest::prelude::*;

    use super::*;
    use crate::packet::Headers;

    fn packet(payload: &[u8], options: &[u8], offset: u16, more: bool) -> Vec<u8> {
        let mut header = Ipv4Header::new(
            payload.len() as u16,
            64,
            ip_number::UDP_LITE,
            [10, 0, 0, 1],
            [10, 0, 1, 1],
        )
        .unwrap();
        header.dont_fragment = false;
        header.more_fragments = more;
        header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        header.identification = 77;
        header.options = Ipv4Options::try_from(options).unwrap();
        header.set_payload_len(payload.len()).unwrap();
        header.header_checksum = header.calc_header_checksum();
        let mut frame = std::vec![2; 12];
        frame.extend([8, 0]);
        frame.extend(header.to_bytes());
        frame.extend(payload);
        frame
    }

    proptest! {
        #[test]
        fn pieces_join_to_the_packet(
            length in 8usize..3000,
            mtu in 68u16..1500,
            offset in 0u16..1000,
            more: bool,
            optional: bool,
        ) {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            // Record route goes into the first fragment only, router alert into all.
            let options: &[u8] = if optional { &[7, 3, 4, 0x94, 4, 0, 0, 0] } else { &[] };
            let frame = packet(&payload, options, offset, more);
            let ip = Headers::parse(&frame).unwrap().ip.unwrap();
            prop_assert!(is_allowed(&frame, &ip));
            let mut joined: Vec<u8> = Vec::new();
            let mut ended = false;
            split(&frame, &ip, mtu, |header, piece| {
                let (parsed, rest) = Ipv4Header::from_slice(header).unwrap();
                assert!(rest.is_empty() && !ended);
                assert!(header.len() + piece.len() <= usize::from(mtu));
                assert_eq!(usize::from(parsed.total_len), header.len() + piece.len());
                assert_eq!(parsed.header_checksum, parsed.calc_header_checksum());
                assert_eq!(parsed.identification, 77);
                assert_eq!(usize::from(parsed.fragment_offset.value()), usize::from(offset) + joined.len() / 8);
                let first = joined.is_empty();
                assert_eq!(parsed.options.len(), if !optional { 0 } else if first { 8 } else { 4 });
                joined.extend(piece);
                ended = joined.len() == length;
                assert_eq!(parsed.more_fragments, !ended || more);
            })
            .unwrap();
            prop_assert_eq!(joined, payload);
        }
    }

    #[test]
    fn what_joins_to_no_packet_is_malformed() {
        for (offset, length, whole) in [(8191, 7, true), (8100, 735, true), (8100, 736, false)] {
            let frame = packet(&std::vec![7; length], &[], offset, false);
            let ip = Headers::parse(&frame).unwrap().ip.unwrap();
            let mut pieces = 0;
            let result = split(&frame, &ip, 68, |_, _| pieces += 1);
            let malformed = Err(DropReason::MalformedIp);
            assert_eq!(result, if whole { Ok(()) } else { malformed });
            assert_eq!(pieces > 0, whole);
        }
    }

    #[test]
    fn what_no_piece_of_would_fit_is_too_big() {
        let frame = packet(&[7; 100], &[], 0, false);
        let ip = Headers::parse(&frame).unwrap().ip.unwrap();
        for mtu in [0, 20, 27] {
            let result = split(&frame, &ip, mtu, |_, _| panic!("a piece"));
            assert_eq!(result, Err(DropReason::TooBig));
        }
        assert_eq!(split(&frame, &ip, 28, |_, _| ()), Ok(()));
    }
}
