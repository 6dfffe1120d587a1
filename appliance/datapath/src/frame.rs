//! A received frame in its buffer, with room in front of it.
//!
//! Headers are pushed and pulled by moving the frame's start, so the payload
//! never moves. Invariant: `start <= end <= buf.len()`; no method can break it.

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

impl<'b> Frame<'b> {
    /// A frame of `length` bytes at `start` of `buf`; `None` if that is not
    /// inside of `buf`.
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
    pub fn with_partial(mut self, partial: Option<PartialChecksum>) -> Self {
        self.partial = partial;
        self
    }

    /// The checksum that is yet to be completed.
    pub fn partial(&self) -> Option<PartialChecksum> {
        self.partial
    }

    /// Sets or clears the checksum that is yet to be completed.
    pub fn set_partial(&mut self, partial: Option<PartialChecksum>) {
        self.partial = partial;
    }

    /// Bytes in front of the frame, in the buffer.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is left of the frame.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The frame's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }

    /// The frame's bytes, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buf.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Grows the frame by `count` bytes in front, whose content is unspecified.
    /// `None`, and no change, if the headroom is smaller.
    pub fn push_front(&mut self, count: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(count)?;
        Some(self.bytes_mut())
    }

    /// Takes `count` bytes off the front. `None`, and no change, if it has fewer.
    pub fn pull_front(&mut self, count: usize) -> Option<()> {
        if count > self.len() {
            return None;
        }
        self.start += count;
        Some(())
    }

    /// Cuts the frame to at most `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.end = self.end.min(self.start.saturating_add(length));
    }
}
