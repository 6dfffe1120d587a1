//! Frames in and messages out, each through one buffer of fixed size.
//!
//! Invariant: neither buffer grows, whatever the peer sends or fails to read.

use alloc::boxed::Box;
use alloc::vec;

use nve_protocol::frame::{self, HEADER, MAX_ACCEPTED, TAG};
use nve_protocol::{ToShim, codec};

use crate::noise::{NotAuthentic, Transport};

/// Bytes of messages that wait to be sealed; several of the longest.
const MAX_QUEUED: usize = 4 * codec::MAX_MESSAGE;

/// Collects the bytes of one frame.
pub(crate) struct FrameReader {
    bytes: Box<[u8]>,
    filled: usize,
}

impl FrameReader {
    pub(crate) fn new() -> Self {
        FrameReader {
            bytes: vec![0; HEADER + MAX_ACCEPTED].into_boxed_slice(),
            filled: 0,
        }
    }

    /// Forgets what has been collected.
    pub(crate) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Takes bytes up to the end of the frame and returns how many. A frame that
    /// announces more than `longest` bytes is refused before they are awaited.
    pub(crate) fn push(&mut self, bytes: &[u8], longest: usize) -> Result<usize, frame::TooLong> {
        let header = self.copy(bytes, HEADER);
        let Some(end) = self.end() else {
            return Ok(header);
        };
        if end > HEADER + longest {
            return Err(frame::TooLong);
        }
        let rest = bytes.get(header..).unwrap_or_default();
        Ok(header + self.copy(rest, end))
    }

    /// The Noise message of the frame, once all of it is there.
    pub(crate) fn message(&self) -> Option<&[u8]> {
        let end = self.end().filter(|end| *end == self.filled)?;
        self.bytes.get(HEADER..end)
    }

    /// Where the frame ends, once its length is known.
    fn end(&self) -> Option<usize> {
        let header = self.bytes.get(..self.filled)?.first_chunk::<HEADER>()?;
        Some(HEADER + usize::from(u16::from_be_bytes(*header)))
    }

    /// Copies from the front of `bytes` until `end` bytes are filled.
    fn copy(&mut self, bytes: &[u8], end: usize) -> usize {
        let room = self.bytes.get_mut(self.filled..end).unwrap_or_default();
        let count = copy_front(room, bytes);
        self.filled += count;
        count
    }
}

/// No room for another message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// Messages that wait to be sent, and the frame that is being sent.
pub(crate) struct Outbox {
    queued: Box<[u8]>,
    queued_len: usize,
    frame: Box<[u8]>,
    frame_len: usize,
    sent: usize,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Outbox {
            queued: vec![0; MAX_QUEUED].into_boxed_slice(),
            queued_len: 0,
            frame: vec![0; HEADER + MAX_QUEUED + TAG].into_boxed_slice(),
            frame_len: 0,
            sent: 0,
        }
    }

    /// Forgets all that has not been sent.
    pub(crate) fn clear(&mut self) {
        self.queued_len = 0;
        self.frame_len = 0;
        self.sent = 0;
    }

    /// Queues a message behind the others.
    pub(crate) fn queue(&mut self, message: &ToShim) -> Result<(), Full> {
        let room = self.queued.get_mut(self.queued_len..).ok_or(Full)?;
        self.queued_len += codec::encode(message, room).map_err(|_| Full)?;
        Ok(())
    }

    /// Queues a message that has time: room stays for the longest of the others.
    pub(crate) fn queue_behind(&mut self, message: &ToShim) -> Result<(), Full> {
        let end = MAX_QUEUED - codec::MAX_MESSAGE;
        let room = self.queued.get_mut(self.queued_len..end).ok_or(Full)?;
        self.queued_len += codec::encode(message, room).map_err(|_| Full)?;
        Ok(())
    }

    /// Whether what is queued may leave at the next [`Outbox::transmit`].
    pub(crate) fn is_sealable(&self) -> bool {
        self.sent == self.frame_len
    }

    /// Sends a handshake message, before anything is queued.
    pub(crate) fn send_handshake(&mut self, message: &[u8]) -> Result<(), Full> {
        let room = self.frame.get_mut(HEADER..HEADER + message.len());
        room.ok_or(Full)?.copy_from_slice(message);
        self.start_frame(message.len())
    }

    /// Writes what is to be sent to the front of `room`; returns how many bytes.
    /// Seals the queued messages into one frame when the last one is gone.
    pub(crate) fn transmit(
        &mut self,
        transport: Option<&mut Transport>,
        room: &mut [u8],
    ) -> Result<usize, NotAuthentic> {
        if let Some(transport) = transport
            && self.sent == self.frame_len
            && self.queued_len > 0
        {
            self.seal(transport)?;
        }
        let pending = self.frame.get(self.sent..self.frame_len);
        let count = copy_front(room, pending.unwrap_or_default());
        self.sent += count;
        Ok(count)
    }

    fn seal(&mut self, transport: &mut Transport) -> Result<(), NotAuthentic> {
        let plain = self.queued.get(..self.queued_len).unwrap_or_default();
        let room = self.frame.get_mut(HEADER..).unwrap_or_default();
        let length = transport.seal(plain, room)?;
        self.queued_len = 0;
        self.start_frame(length).map_err(|Full| NotAuthentic)
    }

    fn start_frame(&mut self, length: usize) -> Result<(), Full> {
        let header = frame::header(length).map_err(|_| Full)?;
        let room = self.frame.first_chunk_mut::<HEADER>().ok_or(Full)?;
        *room = header;
        self.frame_len = HEADER + length;
        self.sent = 0;
        Ok(())
    }
}

/// Copies as many bytes as both have; returns how many.
fn copy_front(to: &mut [u8], from: &[u8]) -> usize {
    let count = to.len().min(from.len());
    if let (Some(to), Some(from)) = (to.get_mut(..count), from.get(..count)) {
        to.copy_from_slice(from);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_collected_from_any_pieces() {
        let stream = [0, 3, b'a', b'b', b'c', 0, 0, 0, 1];
        for piece in 1..=stream.len() {
            let mut reader = FrameReader::new();
            let mut at = 0;
            while reader.message().is_none() {
                let bytes = &stream[at..stream.len().min(at + piece)];
                at += reader.push(bytes, 3).unwrap();
            }
            assert_eq!((reader.message(), at), (Some(&b"abc"[..]), 5));
            reader.clear();
            assert_eq!(reader.push(&stream[at..], 3), Ok(2));
            assert_eq!(reader.message(), Some(&b""[..]));
        }
    }

    #[test]
    fn a_frame_too_long_is_refused_by_its_header() {
        let mut reader = FrameReader::new();
        assert_eq!(reader.push(&[0], 3), Ok(1));
        assert_eq!(reader.push(&[4], 3), Err(frame::TooLong));
        let mut reader = FrameReader::new();
        assert!(reader.push(&[0xff, 0xff], MAX_ACCEPTED).is_err());
    }

    #[test]
    fn the_outbox_says_when_it_is_full() {
        let mut outbox = Outbox::new();
        let mut count = 0;
        while outbox.queue(&ToShim::Pong(u64::MAX)).is_ok() {
            count += 1;
        }
        assert!(count >= 100, "{count}");
        assert_eq!(outbox.queue(&ToShim::Pong(u64::MAX)), Err(Full));
        outbox.clear();
        assert_eq!(outbox.queue(&ToShim::Pong(u64::MAX)), Ok(()));
    }
}
