//! Large frames: TCP packets that the sender left to its NIC to be cut into segments.
//!
//! What comes of a large frame is what would come of its segments, one after the other.
//! The first one is a frame in the front of the large frame's own buffer, and so becomes
//! each of the others when its turn comes: the room in which it is never reaches into
//! payload of later ones. Invariant of [`Cut`]: headers and the first segment are in the
//! first buffer, and lengths that headers state are those of the frame.

use nve_protocol::DropReason;

use crate::checksum::{self, Sum};
use crate::connections::{CHANGES, FIN};
use crate::frame::{Extent, Frame, PartialChecksum};
use crate::packet::protocol;
use crate::trunk::TAGGED_HEADER as IP;
use crate::wire::{array, ethernet, put, u16_at};

/// How a large frame is to be cut (virtio 1.2, 5.1.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmentation {
    /// Most bytes of payload in a segment.
    pub size: u16,
    /// Whether it is TCP over IPv4, or else over IPv6.
    pub is_ipv4: bool,
}

/// A large frame in the buffers that it came in.
#[derive(Debug)]
pub struct Large<'b> {
    /// What is in the first one, with the checksum that is yet to be completed.
    pub head: Frame<'b>,
    /// What is in the others.
    pub rest: &'b [&'b [u8]],
    /// How it is to be cut.
    pub segmentation: Segmentation,
}

/// Most segments of a frame. With fewer than 128 bytes in each, no sender is served well
/// by large frames; with one, the work for a frame would be that for 65,000.
const MAX_SEGMENTS: usize = 512;

/// Bytes of headers with all options.
const MAX_HEADERS: usize = IP + 60 + 60;

/// Places in headers of IPv4, IPv6 and TCP, in bytes.
const V4_LENGTH: usize = IP + 2;
const V4_ID: usize = IP + 4;
const V4_FRAGMENT: usize = IP + 6;
const V4_PROTOCOL: usize = IP + 9;
const V4_CHECKSUM: usize = IP + 10;
const V4_ADDRESSES: core::ops::Range<usize> = IP + 12..IP + 20;
const V6_HEADER: usize = 40;
const V6_LENGTH: usize = IP + 4;
const V6_NEXT: usize = IP + 6;
const V6_ADDRESSES: core::ops::Range<usize> = IP + 8..IP + V6_HEADER;
const SEQUENCE: usize = 4;
const WORDS: usize = 12;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;

/// Flags of TCP that only the last segment has, and that only the first has (RFC 3168,
/// section 6.1.2).
const PSH: u8 = 0x08;
const LAST: u8 = FIN | PSH;
const FIRST: u8 = 0x80;

/// How a large frame is cut: its headers as they came in, and sizes.
#[derive(Debug)]
pub(crate) struct Cut {
    headers: [u8; MAX_HEADERS],
    is_ipv4: bool,
    /// Where the TCP header begins in the frame, and where payload does.
    transport: usize,
    payload: usize,
    /// Bytes of payload in all, and in a segment at most.
    length: usize,
    size: usize,
    /// Where the frame is in its first buffer, and how much of it.
    start: usize,
    first: usize,
}

impl Cut {
    /// Reads a large frame. What its headers say has to be plain: no extension headers, no
    /// fragment, lengths that are the frame's, and the checksum that is left where TCP has
    /// it.
    pub(crate) fn new(large: &Large<'_>) -> Result<Cut, DropReason> {
        let cut = Cut::read(large).ok_or(DropReason::BadOffload)?;
        let first = cut.payload + cut.length.min(cut.size);
        match first <= cut.first && cut.count() <= MAX_SEGMENTS {
            true => Ok(cut),
            false => Err(DropReason::BadOffload),
        }
    }

    fn read(large: &Large<'_>) -> Option<Cut> {
        let Segmentation { size, is_ipv4 } = large.segmentation;
        let bytes = large.head.bytes();
        let total = bytes.len() + large.rest.iter().map(|part| part.len()).sum::<usize>();
        let (_, ethertype) = ethernet::parse_tag(bytes)?.ok()?;
        let (transport, end) = match (ethertype, is_ipv4) {
            (ethernet::IPV4, true) => read_ipv4(bytes)?,
            (ethernet::IPV6, false) => read_ipv6(bytes)?,
            _ => return None,
        };
        let words = usize::from(bytes.get(transport + WORDS)? >> 4);
        let payload = transport + words * 4;
        if end != total || words < 5 || large.head.partial()? != partial(transport) || size == 0 {
            return None;
        }
        let mut headers = [0; MAX_HEADERS];
        put(&mut headers, 0, bytes.get(..payload)?);
        Some(Cut {
            headers,
            is_ipv4,
            transport,
            payload,
            length: total.checked_sub(payload)?,
            size: size.into(),
            start: large.head.start(),
            first: bytes.len(),
        })
    }

    /// How many segments there are.
    pub(crate) fn count(&self) -> usize {
        self.length.div_ceil(self.size).max(1)
    }

    /// The headers, as they came in.
    pub(crate) fn headers(&self) -> &[u8] {
        self.headers.get(..self.payload).unwrap_or_default()
    }

    /// Where the frame began in its first buffer.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Whether it is, to whoever follows connections, like any of its segments.
    pub(crate) fn is_uniform(&self) -> bool {
        self.flags() & CHANGES == 0
    }

    /// Bytes of the frame of a segment.
    pub(crate) fn frame_length(&self, number: usize) -> usize {
        self.payload + self.payload_of(number)
    }

    fn payload_of(&self, number: usize) -> usize {
        let before = number.saturating_mul(self.size);
        self.length.saturating_sub(before).min(self.size)
    }

    fn flags(&self) -> u8 {
        let flags = self.headers.get(self.transport + FLAGS);
        flags.copied().unwrap_or_default()
    }

    fn flags_of(&self, number: usize) -> u8 {
        let not_first = if number > 0 { FIRST } else { 0 };
        let not_last = if number + 1 < self.count() { LAST } else { 0 };
        self.flags() & !not_first & !not_last
    }

    /// Makes the head a segment, with all its headers, that is as it would have come in
    /// by itself. Those before it are gone then.
    pub(crate) fn place(&self, number: usize, large: &mut Large<'_>) {
        let length = self.payload_of(number);
        self.move_payload(number, length, large);
        large.head.follow(&Extent {
            start: self.start,
            length: self.payload + length,
            partial: Some(partial(self.transport)),
        });
        let bytes = large.head.bytes_mut();
        put(bytes, 0, self.headers());
        if self.is_ipv4 {
            // What it is beyond the first fits 16 bits, as the count does.
            let id = u16_at(&self.headers, V4_ID).unwrap_or_default();
            change_v4(bytes, V4_ID, id.wrapping_add(number as u16));
        }
        let sequence = array(&self.headers, self.transport + SEQUENCE).unwrap_or_default();
        // All payload has fewer than 2^16 bytes.
        let before = (number * self.size) as u32;
        let sequence = u32::from_be_bytes(sequence).wrapping_add(before);
        put(bytes, self.transport + SEQUENCE, &sequence.to_be_bytes());
        self.finish(bytes, length, self.flags_of(number));
    }

    /// Makes the head, which is the first segment with whatever was changed in it, the
    /// front of a large frame of the first `count` segments. Returns its length in bytes.
    pub(crate) fn rejoin(&self, count: usize, head: &mut Frame<'_>) -> usize {
        let length = self.length.min(count.saturating_mul(self.size));
        let not_last = if count < self.count() { LAST } else { 0 };
        self.finish(head.bytes_mut(), length, self.flags() & !not_last);
        self.payload + length
    }

    /// Writes what depends on the length of the payload into headers, and flags.
    fn finish(&self, bytes: &mut [u8], payload: usize, flags: u8) {
        let transport = self.payload - self.transport + payload;
        // The lengths of all of the frame have 16 bits, as they came in.
        if self.is_ipv4 {
            change_v4(bytes, V4_LENGTH, (self.transport - IP + transport) as u16);
        } else {
            put(bytes, V6_LENGTH, &(transport as u16).to_be_bytes());
        }
        put(bytes, self.transport + FLAGS, &[flags]);
        let sum = self.pseudo_header(transport as u16);
        put(bytes, self.transport + CHECKSUM, &sum.to_be_bytes());
    }

    /// The sum over the pseudo-header, as it is where a checksum is yet to be completed.
    fn pseudo_header(&self, length: u16) -> u16 {
        let addresses = if self.is_ipv4 {
            V4_ADDRESSES
        } else {
            V6_ADDRESSES
        };
        let sum = Sum::default()
            .with(self.headers.get(addresses).unwrap_or_default())
            .with(&[0, protocol::TCP])
            .with(&length.to_be_bytes());
        !sum.finish()
    }

    /// Moves the payload of a segment to where the first one has it.
    fn move_payload(&self, number: usize, length: usize, large: &mut Large<'_>) {
        if number == 0 {
            return;
        }
        large.head.follow(&Extent {
            start: self.start,
            length: self.first,
            partial: None,
        });
        let bytes = large.head.bytes_mut();
        let at = self.payload + number * self.size;
        let here = self.first.saturating_sub(at).min(length);
        let from = at.min(self.first);
        bytes.copy_within(from..from + here, self.payload);
        let (first, end) = (self.payload + here, self.payload + length);
        let place = bytes.get_mut(first..end).unwrap_or_default();
        gather(large.rest, (at + here).saturating_sub(self.first), place);
    }
}

/// Fills `place` with what begins `skip` bytes into `parts`, which have as much.
fn gather(parts: &[&[u8]], mut skip: usize, mut place: &mut [u8]) {
    for part in parts {
        let part = match part.get(skip..) {
            Some(part) => part,
            None => {
                skip -= part.len();
                continue;
            }
        };
        skip = 0;
        let (from, count) = (part, part.len().min(place.len()));
        let (now, later) = place.split_at_mut(count);
        now.copy_from_slice(from.get(..count).unwrap_or_default());
        place = later;
        if place.is_empty() {
            return;
        }
    }
}

/// The checksum that is yet to be completed of a TCP header.
fn partial(transport: usize) -> PartialChecksum {
    PartialChecksum {
        // At most 60 bytes of IP are in front of it.
        start: transport as u16,
        offset: CHECKSUM as u16,
    }
}

/// Where TCP begins in a tagged frame, and where the packet ends.
fn read_ipv4(bytes: &[u8]) -> Option<(usize, usize)> {
    const FRAGMENT: u16 = 0x3fff;

    let first = bytes.get(IP)?;
    let header = usize::from(first & 0x0f) * 4;
    let is_plain = first >> 4 == 4
        && header >= 20
        && *bytes.get(V4_PROTOCOL)? == protocol::TCP
        && u16_at(bytes, V4_FRAGMENT)? & FRAGMENT == 0;
    let length = usize::from(u16_at(bytes, V4_LENGTH)?);
    is_plain.then_some((IP + header, IP + length))
}

/// The same of IPv6.
fn read_ipv6(bytes: &[u8]) -> Option<(usize, usize)> {
    let is_plain = bytes.get(IP)? >> 4 == 6 && *bytes.get(V6_NEXT)? == protocol::TCP;
    let transport = IP + V6_HEADER;
    let length = usize::from(u16_at(bytes, V6_LENGTH)?);
    is_plain.then_some((transport, transport + length))
}

/// Changes a word of an IPv4 header, and its checksum with it.
fn change_v4(bytes: &mut [u8], at: usize, new: u16) {
    let (Some(old), Some(sum)) = (u16_at(bytes, at), u16_at(bytes, V4_CHECKSUM)) else {
        return;
    };
    put(bytes, at, &new.to_be_bytes());
    let sum = checksum::adjust(sum, old, new);
    put(bytes, V4_CHECKSUM, &sum.to_be_bytes());
}
