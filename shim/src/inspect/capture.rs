//! Captures at a port: frames are fetched from the NVE as long as somebody reads.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use nve_protocol::inspect::{Capture, Captured, Part, Question};
use nve_protocol::{Direction, PortId};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::pcapng::Pcapng;
use super::{InspectError, Inspector};
use crate::southbound::{AskError, Reply};

/// Between two questions for frames when there were no more.
const POLL: Duration = Duration::from_millis(100);
/// Bytes of a frame that are kept unless said otherwise: all of them.
pub const DEFAULT_SNAP: u16 = nve_protocol::inspect::MAX_PROBE;

/// When a capture ends by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// After so long.
    pub time: Option<Duration>,
    /// After so many frames.
    pub frames: Option<u64>,
}

/// A capture that runs.
pub struct Reader {
    inspector: Inspector,
    nve: Uuid,
    capture: Capture,
    file: Pcapng,
    frames: Frames,
    /// When the NVE booted, from 1970, as far as known.
    booted: Option<Duration>,
    limits: Limits,
    until: Option<Instant>,
    next_poll: Instant,
    ended: bool,
}

impl Inspector {
    /// Begins a capture at a port.
    ///
    /// # Errors
    /// When there is no such port there, another capture runs, or the NVE does not
    /// answer.
    pub async fn capture(
        &self,
        nve: Uuid,
        port: &str,
        snap: u16,
        limits: Limits,
    ) -> Result<Reader, InspectError> {
        let nve = self.nve(nve)?;
        let at = self.port_at(nve, port)?;
        let capture = Capture {
            id: rand::random(),
            vlan: at.vlan,
            port: PortId(at.port.common.id.into_bytes()),
            snap,
        };
        let reply = self.ask(nve, Question::Capture(capture)).await?;
        let name = self.names().port(at.port.common.id);
        let description = format!("port {} at NVE {}", at.port.common.id, nve.name);
        let now = Instant::now();
        let mut reader = Reader {
            inspector: self.clone(),
            nve: nve.id,
            capture,
            file: Pcapng::new(&name.port.to_string(), &description, snap),
            frames: Frames::default(),
            booted: self.booted_at(nve.id).map(since_1970),
            limits,
            until: limits.time.and_then(|time| now.checked_add(time)),
            next_poll: now,
            ended: false,
        };
        reader.take(&reply);
        Ok(reader)
    }
}

impl Reader {
    /// The file, as it is written; ends after the limits, or when the NVE is lost.
    pub fn into_stream(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut reader| async move {
            let bytes = reader.next().await?;
            Some((bytes, reader))
        })
    }

    /// The next whole blocks; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let written = self.file.take();
            if !written.is_empty() {
                return Some(written);
            }
            if self.ended {
                return None;
            }
            self.poll().await;
        }
    }

    async fn poll(&mut self) {
        let at = self
            .until
            .map_or(self.next_poll, |until| until.min(self.next_poll));
        sleep_until(at).await;
        let last = self.until.is_some_and(|until| Instant::now() >= until);
        let registry = self.inspector.fabric.registry();
        let answer = registry
            .ask(self.nve, Question::Capture(self.capture))
            .await;
        match answer {
            Ok(reply) => self.take(&reply),
            // Others ask as well.
            Err(AskError::TooMany) => self.next_poll = Instant::now() + POLL,
            Err(error) => {
                tracing::warn!(nve = %self.nve, "a capture ends: the NVE {error}");
                self.end();
            }
        }
        if last {
            self.end();
        }
    }

    fn take(&mut self, reply: &Reply) {
        self.frames.lost = self.frames.lost.saturating_add(reply.done.lost);
        for part in &reply.parts {
            let Part::Frame(piece) = part else { continue };
            let Some(frame) = self.frames.add(piece, self.capture.snap) else {
                continue;
            };
            let booted = *self.booted.get_or_insert_with(|| booted_by(&frame));
            let at = booted.saturating_add(Duration::from_micros(frame.at_us));
            self.file
                .frame(at, frame.direction, frame.length, &frame.data);
            if self
                .limits
                .frames
                .is_some_and(|most| self.frames.whole >= most)
            {
                return self.end();
            }
        }
        let pause = if reply.done.more {
            Duration::ZERO
        } else {
            POLL
        };
        self.next_poll = Instant::now() + pause;
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            let now = since_1970(OffsetDateTime::now_utc());
            let received = self.frames.whole.saturating_add(self.frames.lost);
            self.file.statistics(now, received, self.frames.lost);
        }
    }
}

/// When an NVE booted by whose clock a frame passed just now.
fn booted_by(frame: &Frame) -> Duration {
    since_1970(OffsetDateTime::now_utc()).saturating_sub(Duration::from_micros(frame.at_us))
}

fn since_1970(at: OffsetDateTime) -> Duration {
    let nanos = u64::try_from(at.unix_timestamp_nanos()).unwrap_or(0);
    Duration::from_nanos(nanos)
}

/// A frame that was put together.
struct Frame {
    number: u64,
    at_us: u64,
    direction: Direction,
    length: u16,
    kept: u16,
    data: Vec<u8>,
}

/// Puts frames together from their pieces.
#[derive(Default)]
struct Frames {
    partial: Option<Frame>,
    whole: u64,
    /// Frames that the NVE had no room for, or told of wrongly.
    lost: u64,
}

impl Frames {
    /// Takes a piece; returns the frame that it makes whole.
    fn add(&mut self, piece: &Captured, snap: u16) -> Option<Frame> {
        if piece.offset == 0 {
            self.lost += u64::from(self.partial.is_some());
            self.partial = Some(Frame {
                number: piece.number,
                at_us: piece.at_us,
                direction: piece.direction,
                length: piece.length,
                kept: piece.kept,
                data: Vec::new(),
            });
        }
        // Pieces of a frame whose first piece is missing were counted with it.
        let mut frame = self.partial.take()?;
        let bytes = piece.piece.bytes();
        let follows = frame.number == piece.number
            && frame.kept == piece.kept
            && frame.data.len() == usize::from(piece.offset)
            && frame.data.len() + bytes.len() <= usize::from(frame.kept)
            && frame.kept <= frame.length.min(snap);
        if !follows {
            self.lost += 1;
            return None;
        }
        frame.data.extend_from_slice(bytes);
        if frame.data.len() == usize::from(frame.kept) {
            self.whole += 1;
            return Some(frame);
        }
        self.partial = Some(frame);
        None
    }
}
