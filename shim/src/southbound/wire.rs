//! Frames of one connection, in and out, each through buffers of fixed size.
//!
//! Invariants: no buffer grows beyond its size, whatever the peer sends or fails
//! to read; every future here can be dropped and called again without loss.

use std::io;

use nve_protocol::frame::{self, HEADER, MAX_ACCEPTED, MAX_PLAINTEXT, TAG};
use nve_protocol::{ToNve, codec};
use snow::TransportState;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Frames that are sealed at once, so that one system call sends several.
const BATCH: usize = 4;

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The peer closed the connection.
    #[error("connection closed")]
    Closed,
    /// A frame announces more than is taken.
    #[error("frame too long")]
    TooLong,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Collects frames from a stream.
pub(super) struct FrameReader<R> {
    stream: R,
    bytes: Box<[u8]>,
    filled: usize,
    /// Bytes of the frame that was handed out last.
    taken: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(stream: R) -> Self {
        FrameReader {
            stream,
            bytes: vec![0; HEADER + MAX_ACCEPTED].into_boxed_slice(),
            filled: 0,
            taken: 0,
        }
    }

    /// The next frame's Noise message, which must not have more than `longest`
    /// bytes.
    pub(super) async fn next(&mut self, longest: usize) -> Result<&[u8], WireError> {
        self.drop_taken();
        loop {
            if let Some(length) = self.announced()
                && length > longest
            {
                return Err(WireError::TooLong);
            }
            let filled = self.bytes.get(..self.filled).unwrap_or_default();
            if let Some((_, taken)) = frame::split(filled).map_err(|_| WireError::TooLong)? {
                self.taken = taken;
                return Ok(self.bytes.get(HEADER..taken).unwrap_or_default());
            }
            let room = self.bytes.get_mut(self.filled..).unwrap_or_default();
            match self.stream.read(room).await? {
                0 => return Err(WireError::Closed),
                count => self.filled += count,
            }
        }
    }

    fn announced(&self) -> Option<usize> {
        let filled = self.bytes.get(..self.filled)?;
        let header = filled.first_chunk::<HEADER>()?;
        Some(usize::from(u16::from_be_bytes(*header)))
    }

    fn drop_taken(&mut self) {
        self.bytes.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
    }
}

/// Seals messages into frames and sends them.
pub(super) struct FrameWriter<W> {
    stream: W,
    plain: Box<[u8]>,
    frames: Box<[u8]>,
    filled: usize,
    sent: usize,
    /// A message that found no room in its frame.
    next: Option<ToNve>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(super) fn new(stream: W) -> Self {
        FrameWriter {
            stream,
            plain: vec![0; MAX_PLAINTEXT].into_boxed_slice(),
            frames: vec![0; BATCH * (HEADER + MAX_PLAINTEXT + TAG)].into_boxed_slice(),
            filled: 0,
            sent: 0,
            next: None,
        }
    }

    /// Whether all has been sent.
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.filled
    }

    /// Takes messages as far as the buffers reach, if all before has been sent.
    pub(super) fn fill(
        &mut self,
        noise: &mut TransportState,
        messages: &mut impl Iterator<Item = ToNve>,
    ) -> Result<(), snow::Error> {
        if !self.is_empty() {
            return Ok(());
        }
        (self.filled, self.sent) = (0, 0);
        for _ in 0..BATCH {
            let length = self.pack(messages);
            if length == 0 {
                break;
            }
            self.seal(noise, length)?;
        }
        Ok(())
    }

    /// Sends some of what waits.
    pub(super) async fn send_some(&mut self) -> io::Result<()> {
        let waiting = self.frames.get(self.sent..self.filled).unwrap_or_default();
        match self.stream.write(waiting).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => {
                self.sent += count;
                Ok(())
            }
        }
    }

    /// Sends all that waits.
    pub(super) async fn send_all(&mut self) -> io::Result<()> {
        while !self.is_empty() {
            self.send_some().await?;
        }
        Ok(())
    }

    /// Fills the plaintext of one frame; returns its length.
    fn pack(&mut self, messages: &mut impl Iterator<Item = ToNve>) -> usize {
        let mut length = 0;
        while let Some(message) = self.next.take().or_else(|| messages.next()) {
            let room = self.plain.get_mut(length..).unwrap_or_default();
            match codec::encode(&message, room) {
                Ok(count) => length += count,
                Err(codec::NoRoom) => {
                    self.next = Some(message);
                    break;
                }
            }
        }
        length
    }

    fn seal(&mut self, noise: &mut TransportState, length: usize) -> Result<(), snow::Error> {
        let plain = self.plain.get(..length).unwrap_or_default();
        let room = self.frames.get_mut(self.filled..).unwrap_or_default();
        let (header, room) = room
            .split_first_chunk_mut::<HEADER>()
            .ok_or(snow::Error::Input)?;
        let length = noise.write_message(plain, room)?;
        *header = frame::header(length).map_err(|_| snow::Error::Input)?;
        self.filled += HEADER + length;
        Ok(())
    }
}
