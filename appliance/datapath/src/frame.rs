//! A received frame in its buffer, with room in front of it.
//!
//! Headers are pushed and pulled by moving the frame's start, so the payload
//! never moves. Invariant: `start <= end <= buf.len()`; no method can break it.

use crate::Verdict;

/// Free bytes that a received frame must have in front of it: outer Ethernet
/// with IPv6, UDP and VXLAN need 70; rounded up to a cache line.
pub const HEADROOM: usize = 128;

/// A checksum that the sender left to be completed (virtio 1.2, 5.1.6.2,
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`): the 16 bits at `start + offset` hold the
/// pseudo-header's sum, and cover everything from `start` to the frame's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Bytes from the frame's first byte to the first one that is covered.
    pub start: u16,
    /// Bytes from `start` to the checksum field.
    pub offset: u16,
}

/// A frame within a buffer that the caller owns.
#[derive(Debug)]
pub struct Frame<'b> {
    buf: &'b mut [u8],
    start: usize,
    end: usize,
    partial: Option<PartialChecksum>,
}

/// Where a frame is in its buffer, and what is left to do to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes in front of it.
    pub start: usize,
    /// Its length in bytes.
    pub length: usize,
    /// The checksum that is yet to be completed.
    pub partial: Option<PartialChecksum>,
}

impl<'b> Frame<'b> {
    /// A frame of `length` bytes at `start` of `buf`; `None` if that is not
    /// inside of `buf`.
    #[inline]
    pub fn new(buf: &'b mut [u8], start: usize, length: usize) -> Option<Self> {
        let end = start.checked_add(length)?;
        (end <= buf.len()).then_some(Frame {
            buf,
            start,
            end,
            partial: None,
        })
    }

    /// The same frame with a checksum yet to be completed.
    #[inline]
    pub fn with_partial(mut self, partial: Option<PartialChecksum>) -> Self {
        self.partial = partial;
        self
    }

    /// Where it is by now.
    #[inline]
    pub fn extent(&self) -> Extent {
        Extent {
            start: self.start,
            length: self.len(),
            partial: self.partial,
        }
    }

    /// The same frame, borrowed for less long.
    #[inline]
    fn reborrow(&mut self) -> Frame<'_> {
        Frame {
            buf: self.buf,
            start: self.start,
            end: self.end,
            partial: self.partial,
        }
    }

    /// Moves it to where a frame in the same buffer is.
    #[inline]
    pub(crate) fn follow(&mut self, extent: &Extent) {
        self.start = extent.start;
        self.end = extent.start + extent.length;
        self.partial = extent.partial;
    }

    /// The checksum that is yet to be completed.
    #[inline]
    pub fn partial(&self) -> Option<PartialChecksum> {
        self.partial
    }

    /// Sets or clears the checksum that is yet to be completed.
    #[inline]
    pub fn set_partial(&mut self, partial: Option<PartialChecksum>) {
        self.partial = partial;
    }

    /// Bytes in front of the frame, in the buffer.
    #[inline]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is left of the frame.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The frame's bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }

    /// The frame's bytes, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buf.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Grows the frame by `count` bytes in front, whose content is unspecified.
    /// `None`, and no change, if the headroom is smaller.
    #[inline]
    pub fn push_front(&mut self, count: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(count)?;
        Some(self.bytes_mut())
    }

    /// Takes `count` bytes off the front. `None`, and no change, if it has fewer.
    #[inline]
    pub fn pull_front(&mut self, count: usize) -> Option<()> {
        if count > self.len() {
            return None;
        }
        self.start += count;
        Some(())
    }

    /// Cuts the frame to at most `length` bytes.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        self.end = self.end.min(self.start.saturating_add(length));
    }
}

/// Frames that came in together.
pub trait Burst {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a frame by its number; none if there is no such frame.
    fn bytes(&self, at: usize) -> &[u8];

    /// A frame by its number; `None` if there is none.
    fn frame(&mut self, at: usize) -> Option<Frame<'_>>;

    /// Has the processor fetch what is in front of a frame, where outer headers will be.
    fn fetch_headroom(&self, at: usize);

    /// Whether a frame's checksum is complete, and `room` bytes are in front of it.
    fn is_complete(&self, at: usize, room: usize) -> bool;

    /// What is to be done with a frame that is where it was.
    fn leave(&mut self, at: usize, verdict: Verdict);

    /// Takes a frame back from the datapath, with what is to be done with it.
    fn give_back(&mut self, at: usize, extent: Extent, verdict: Verdict);
}

/// As many frames as there are both frames and verdicts.
impl Burst for (&mut [Frame<'_>], &mut [Verdict]) {
    fn len(&self) -> usize {
        self.0.len().min(self.1.len())
    }

    fn bytes(&self, at: usize) -> &[u8] {
        self.0.get(at).map(Frame::bytes).unwrap_or_default()
    }

    fn frame(&mut self, at: usize) -> Option<Frame<'_>> {
        self.0.get_mut(at).map(Frame::reborrow)
    }

    fn fetch_headroom(&self, _at: usize) {}

    fn is_complete(&self, at: usize, room: usize) -> bool {
        let frame = self.0.get(at);
        frame.is_some_and(|frame| frame.partial.is_none() && frame.start >= room)
    }

    fn leave(&mut self, at: usize, verdict: Verdict) {
        if let Some(room) = self.1.get_mut(at) {
            *room = verdict;
        }
    }

    fn give_back(&mut self, at: usize, extent: Extent, verdict: Verdict) {
        if let (Some(frame), Some(room)) = (self.0.get_mut(at), self.1.get_mut(at)) {
            frame.follow(&extent);
            *room = verdict;
        }
    }
}
