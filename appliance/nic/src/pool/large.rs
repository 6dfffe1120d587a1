//! Large frames: TCP packets that their sender left to be cut into segments, in several
//! buffers.
//!
//! The first buffer is the [`Packet`]; each names the next in a table beside the
//! buffers, so nothing is allocated. To whom does not know of large frames, such a packet
//! is an empty one. Invariant: a buffer behind the first is in no [`Packet`] and not free,
//! it comes back with the first.

use core::cell::Cell;
use core::ptr::NonNull;

use super::{LARGE, Packet, Pool};

/// Most buffers of a large frame: 64 KiB in buffers of the smallest size, and some that
/// a device did not fill.
pub const MAX_BUFFERS: usize = 64;

/// In place of a next buffer: none.
const NONE: u32 = u32::MAX;

/// How a large frame is to be cut (virtio 1.2, 5.1.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmentation {
    /// Most bytes of payload in a segment.
    pub size: u16,
    /// Whether it is TCP over IPv4, or else over IPv6.
    pub is_ipv4: bool,
}

/// What the table says of a buffer of a large frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    next: u32,
    /// Where the frame's part is in the buffer's space.
    start: u16,
    length: u16,
    /// Of the frame, with its first buffer.
    segmentation: Segmentation,
}

impl Link {
    pub(super) const ALONE: Link = Link {
        next: NONE,
        start: 0,
        length: 0,
        segmentation: Segmentation {
            size: 0,
            is_ipv4: true,
        },
    };
}

/// A large frame, to be looked at and changed.
#[derive(Debug)]
pub struct Large<'p> {
    /// The space of its first buffer.
    pub space: &'p mut [u8],
    /// Where the frame begins in it.
    pub start: usize,
    /// Bytes of the frame that are in it.
    pub length: usize,
    /// What the other buffers have of the frame.
    pub rest: heapless::Vec<&'p [u8], MAX_BUFFERS>,
    /// How it is to be cut.
    pub segmentation: Segmentation,
}

/// A large frame that is being put together by a driver.
#[derive(Debug)]
pub struct Assembly {
    head: Packet,
    last: u32,
    buffers: usize,
}

impl Assembly {
    /// One with the bytes of `head`, an ordinary packet.
    pub fn new(mut head: Packet, segmentation: Segmentation) -> Assembly {
        let link = Link {
            next: NONE,
            start: head.start,
            length: head.length,
            segmentation,
        };
        head.set_link(link);
        head.length = 0;
        head.marks[LARGE] = true;
        Assembly {
            last: head.index(),
            head,
            buffers: 1,
        }
    }

    /// Lengthens it by the bytes of `more`, in its buffer. `None`, and nothing added, if
    /// it has [`MAX_BUFFERS`] already or `more` is not of the same pool.
    pub fn add(&mut self, more: Packet) -> Option<()> {
        let pool = self.head.pool;
        if self.buffers >= MAX_BUFFERS || !more.is_of(pool) || more.is_large() {
            return None;
        }
        more.set_link(Link {
            start: more.start,
            length: more.length,
            ..Link::ALONE
        });
        let last = pool.links.get(self.last as usize)?;
        let next = more.index();
        core::mem::forget(more);
        last.set(Link { next, ..last.get() });
        self.last = next;
        self.buffers += 1;
        Some(())
    }

    /// The frame.
    pub fn finish(self) -> Packet {
        self.head
    }
}

impl Packet {
    /// Whether it is a large frame. To all but [`Packet::large`] and its like, it has no
    /// bytes then.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.marks[LARGE]
    }

    /// The large frame, if it is one.
    pub fn large(&mut self) -> Option<Large<'_>> {
        let head = self.is_large().then(|| self.link())?;
        let mut rest = heapless::Vec::new();
        for piece in self.pieces().skip(1) {
            let first = piece.first.as_ptr();
            // SAFETY: in a buffer of this packet by the invariant, within its space as it
            // was a packet's range; nobody writes to it while the packet is borrowed.
            let bytes = unsafe { core::slice::from_raw_parts(first, piece.length) };
            rest.push(bytes).ok()?;
        }
        let (space, length) = (self.buffer.as_ptr(), usize::from(self.pool.space));
        Some(Large {
            // SAFETY: the first buffer's space, as for `space_mut`; `rest` is in others.
            space: unsafe { core::slice::from_raw_parts_mut(space, length) },
            start: self.start(),
            length: head.length.into(),
            rest,
            segmentation: head.segmentation,
        })
    }

    /// The part of the large frame that is in its first buffer.
    pub(super) fn large_front(&self) -> &[u8] {
        let length = self.link().length.min(self.pool.space - self.start);
        // SAFETY: within the first buffer's space; not used by others, as for `bytes`.
        unsafe { core::slice::from_raw_parts(self.first().as_ptr(), length.into()) }
    }

    /// Bytes of the large frame; 0 if it is none.
    pub fn large_len(&self) -> usize {
        self.pieces().map(|piece| piece.length).sum()
    }

    /// How the large frame is to be cut.
    pub fn segmentation(&self) -> Option<Segmentation> {
        self.is_large().then(|| self.link().segmentation)
    }

    /// Cuts the large frame to at most `length` bytes; buffers without any come back.
    pub fn cut_large(&mut self, length: usize) {
        let pool = self.pool;
        let mut left = length;
        for piece in self.pieces() {
            let Some(place) = pool.links.get(piece.index as usize) else {
                return;
            };
            let mut link = place.get();
            // No more than it was, which has 16 bits.
            link.length = piece.length.min(left) as u16;
            left -= usize::from(link.length);
            let next = link.next;
            if left == 0 {
                link.next = NONE;
            }
            place.set(link);
            if left == 0 {
                pool.give_back_from(next);
                return;
            }
        }
    }

    /// The buffers of a large frame, none if it is not one.
    pub(crate) fn pieces(&self) -> Pieces {
        Pieces {
            pool: self.pool,
            next: if self.is_large() { self.index() } else { NONE },
        }
    }

    /// Puts this buffer, with something of a driver's, in front of a large frame's.
    /// Whoever has the buffer that is returned has all of them.
    pub(crate) fn into_front_of(self, frame: Packet) -> NonNull<u8> {
        self.set_link(Link {
            next: frame.index(),
            ..Link::ALONE
        });
        core::mem::forget(frame);
        self.into_buffer()
    }

    /// The spaces of its buffers.
    #[cfg(test)]
    pub(crate) fn spaces(&self) -> alloc::vec::Vec<NonNull<u8>> {
        match self.is_large() {
            false => alloc::vec![self.buffer],
            true => self.pool.spaces_from(self.buffer),
        }
    }

    /// The number of its first buffer.
    fn index(&self) -> u32 {
        self.pool.index_of(self.buffer)
    }

    fn link(&self) -> Link {
        let links = self.pool.links.get(self.index() as usize);
        links.map_or(Link::ALONE, Cell::get)
    }

    fn set_link(&self, link: Link) {
        if let Some(place) = self.pool.links.get(self.index() as usize) {
            place.set(link);
        }
    }

    #[cold]
    pub(super) fn drop_large(&self) {
        self.pool.give_back_all(self.buffer);
    }
}

impl Pool {
    /// The spaces of a buffer and of all that are behind it.
    #[cfg(test)]
    pub(crate) fn spaces_from(&self, buffer: NonNull<u8>) -> alloc::vec::Vec<NonNull<u8>> {
        let following = |index: &u32| {
            let link = self.links.get(*index as usize)?;
            Some(link.get().next).filter(|next| *next != NONE)
        };
        core::iter::successors(Some(self.index_of(buffer)), following)
            .map(|index| self.space_of(index))
            .collect()
    }

    /// Frees a buffer, which the caller has, and all that are behind it. Returns how many
    /// these were.
    pub(crate) fn give_back_all(&self, buffer: NonNull<u8>) -> usize {
        self.give_back_from(self.index_of(buffer))
    }

    /// The same, by the buffer's number.
    fn give_back_from(&self, index: u32) -> usize {
        let (mut next, mut count) = (index, 0);
        while let Some(place) = self.links.get(next as usize) {
            let following = place.replace(Link::ALONE).next;
            self.give_back(self.space_of(next));
            count += 1;
            next = following;
        }
        count
    }
}

/// What a buffer has of a large frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    index: u32,
    /// Its first byte.
    first: NonNull<u8>,
    /// In bytes.
    pub(crate) length: usize,
    /// Where it begins, as a device sees it.
    pub(crate) device: u64,
}

/// See [`Packet::pieces`].
#[derive(Debug)]
pub(crate) struct Pieces {
    pool: &'static Pool,
    next: u32,
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let index = self.next;
        let link = self.pool.links.get(index as usize)?.get();
        self.next = link.next;
        // SAFETY: within the buffer's space, as it was the start of a packet in it.
        let first = unsafe { self.pool.space_of(index).add(link.start.into()) };
        Some(Piece {
            index,
            first,
            length: link.length.into(),
            device: self.pool.device_address(first),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::fake::leak_memory;

    const SEGMENTATION: Segmentation = Segmentation {
        size: 1448,
        is_ipv4: false,
    };

    fn pool(count: usize) -> &'static Pool {
        Pool::new(leak_memory(Pool::bytes(count, 128, 2000)), 128, 2000).unwrap()
    }

    fn part(pool: &'static Pool, byte: u8, length: usize) -> Packet {
        let mut packet = pool.take().unwrap();
        packet.append(&[&vec![byte; length]]).unwrap();
        packet
    }

    fn assemble(pool: &'static Pool, lengths: &[usize]) -> Packet {
        let mut assembly = Assembly::new(part(pool, 0, lengths[0]), SEGMENTATION);
        for (i, length) in lengths.iter().enumerate().skip(1) {
            assembly.add(part(pool, i as u8, *length)).unwrap();
        }
        assembly.finish()
    }

    #[test]
    fn a_large_frame_has_the_bytes_of_its_buffers_in_order() {
        let pool = pool(8);
        let mut packet = assemble(pool, &[100, 2000, 7]);
        assert!(packet.is_large() && packet.is_empty() && packet.bytes().is_empty());
        assert_eq!(packet.segmentation(), Some(SEGMENTATION));
        assert_eq!(packet.large_len(), 2107);
        let large = packet.large().unwrap();
        assert_eq!(
            large.space[large.start..large.start + large.length],
            [0; 100]
        );
        assert_eq!(large.rest.as_slice(), [&[1; 2000][..], &[2; 7]]);
        drop(large);
        assert_eq!(pool.available(), 5);
        drop(packet);
        assert_eq!(pool.available(), 8);
    }

    #[test]
    fn an_ordinary_packet_is_no_large_one() {
        let pool = pool(2);
        // Its buffer was a large frame's before.
        drop(assemble(pool, &[100, 100]));
        let mut packet = part(pool, 1, 60);
        assert!(!packet.is_large() && packet.large().is_none());
        assert_eq!((packet.large_len(), packet.segmentation()), (0, None));
        packet.cut_large(0);
        assert_eq!(packet.bytes(), [1; 60]);
        drop(packet);
        assert_eq!(pool.available(), 2);
    }

    #[test]
    fn what_is_cut_off_comes_back() {
        for (length, whole, free) in [(150, 150, 6), (100, 100, 7), (30, 30, 7), (101, 101, 6)] {
            let pool = pool(8);
            let mut packet = assemble(pool, &[100, 100, 100]);
            packet.cut_large(length);
            assert_eq!((packet.large_len(), pool.available()), (whole, free));
            drop(packet);
            assert_eq!(pool.available(), 8);
        }
        let pool = pool(8);
        let mut packet = assemble(pool, &[100, 100]);
        packet.cut_large(1000);
        assert_eq!((packet.large_len(), pool.available()), (200, 6));
    }

    #[test]
    fn a_frame_of_too_many_buffers_takes_no_more() {
        let pool = pool(MAX_BUFFERS + 4);
        let mut assembly = Assembly::new(part(pool, 0, 10), SEGMENTATION);
        for _ in 1..MAX_BUFFERS {
            assembly.add(part(pool, 1, 10)).unwrap();
        }
        assert_eq!(assembly.add(part(pool, 2, 10)), None);
        assert_eq!(assembly.finish().large_len(), MAX_BUFFERS * 10);
        assert_eq!(pool.available(), MAX_BUFFERS + 4);
    }
}
