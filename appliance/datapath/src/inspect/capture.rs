//! Copies of what passes a VAP, for somebody who asks for them.
//!
//! Frames wait in a ring of fixed size until they are fetched; what finds no room is
//! counted. A capture that nobody asks for any more ends by itself.

use alloc::collections::VecDeque;

use nve_protocol::inspect::{
    self, CAPTURE_TIMEOUT_MS, Captured, Done, Failure, Part, Piece, Place,
};
use nve_protocol::{Direction, Vlan};

use super::Parts;
use crate::wire::ethernet;
use crate::{Datapath, Nanos, NoBuffer, PartialChecksum, Side, Sink};

/// Bytes of frames that wait, and how many frames.
const BYTES: usize = 256 << 10;
const FRAMES: usize = 2048;

/// Most pieces in an answer.
const PAGE: usize = 24;

/// A frame that waits; its bytes are in the ring.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    number: u64,
    at: Nanos,
    direction: Direction,
    length: u16,
    kept: u16,
}

/// A running capture.
#[derive(Debug)]
pub(crate) struct Capture {
    wanted: inspect::Capture,
    /// When it was asked for last.
    asked: Nanos,
    frames: VecDeque<Waiting>,
    bytes: VecDeque<u8>,
    /// How much of the first frame was told already.
    told: usize,
    /// Frames so far.
    count: u64,
    /// Frames without room since the last answer.
    lost: u64,
}

impl Capture {
    fn begin(wanted: inspect::Capture, now: Nanos) -> Result<Capture, Failure> {
        let (mut frames, mut bytes) = (VecDeque::new(), VecDeque::new());
        let out = |_| Failure::OutOfMemory;
        frames.try_reserve_exact(FRAMES).map_err(out)?;
        bytes.try_reserve_exact(BYTES).map_err(out)?;
        Ok(Capture {
            wanted,
            asked: now,
            frames,
            bytes,
            told: 0,
            count: 0,
            lost: 0,
        })
    }

    /// Whether it is of that VAP.
    pub(crate) fn is_of(&self, vlan: Vlan) -> bool {
        self.wanted.vlan == vlan
    }

    /// Whether somebody has asked for it of late.
    pub(crate) fn is_wanted(&self, now: Nanos) -> bool {
        now.0.saturating_sub(self.asked.0) < CAPTURE_TIMEOUT_MS * 1_000_000
    }

    /// Keeps a tagged frame of the VAP, without its tag.
    fn keep(&mut self, now: Nanos, direction: Direction, parts: &[&[u8]]) {
        let vlan = parts_tag(parts);
        if vlan != Some(self.wanted.vlan.get()) {
            return;
        }
        self.count += 1;
        let tag = ethernet::ADDRESSES..ethernet::ADDRESSES + ethernet::TAG;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let length = total.saturating_sub(ethernet::TAG);
        let kept = length.min(usize::from(self.wanted.snap));
        let (Ok(length), Ok(short)) = (u16::try_from(length), u16::try_from(kept)) else {
            self.lost += 1;
            return;
        };
        if self.frames.len() >= FRAMES || self.bytes.len() + kept > BYTES {
            self.lost += 1;
            return;
        }
        let bytes = parts.iter().flat_map(|part| part.iter()).enumerate();
        let untagged = bytes.filter(|(at, _)| !tag.contains(at));
        self.bytes
            .extend(untagged.take(kept).map(|(_, byte)| *byte));
        self.frames.push_back(Waiting {
            number: self.count,
            at: now,
            direction,
            length,
            kept: short,
        });
    }

    /// Tells what waits, as far as it fits an answer.
    fn read(&mut self, parts: &mut Parts) -> Done {
        for _ in 0..PAGE {
            let Some(frame) = self.frames.front().copied() else {
                break;
            };
            let rest = usize::from(frame.kept) - self.told;
            let size = rest.min(Piece::MAX);
            let mut piece = [0; Piece::MAX];
            for (place, byte) in piece.iter_mut().zip(self.bytes.drain(..size)) {
                *place = byte;
            }
            parts.push(Part::Frame(Captured {
                number: frame.number,
                at_us: frame.at.0 / 1000,
                direction: frame.direction,
                length: frame.length,
                kept: frame.kept,
                offset: self.told as u16,
                piece: Piece::front(piece.get(..size).unwrap_or_default()),
            }));
            self.told += size;
            if size == rest {
                self.frames.pop_front();
                self.told = 0;
            }
        }
        Done {
            next: self.count,
            lost: core::mem::take(&mut self.lost),
            more: !self.frames.is_empty(),
        }
    }
}

/// The tag of a frame in parts.
fn parts_tag(parts: &[&[u8]]) -> Option<u16> {
    let mut front = [0; ethernet::HEADER + ethernet::TAG];
    let bytes = parts.iter().flat_map(|part| part.iter());
    for (place, byte) in front.iter_mut().zip(bytes) {
        *place = *byte;
    }
    let (vlan, _) = ethernet::parse_tag(&front)?.ok()?;
    Some(vlan)
}

/// A sink that copies for a capture, if there is one, what goes to the VAP.
pub(crate) struct Tap<'s, S> {
    sink: &'s mut S,
    capture: Option<&'s mut Capture>,
    now: Nanos,
    /// Frames that were sent through it.
    sent: usize,
}

impl<'s, S: Sink> Tap<'s, S> {
    pub(crate) fn new(sink: &'s mut S, capture: Option<&'s mut Capture>, now: Nanos) -> Self {
        Tap {
            sink,
            capture,
            now,
            sent: 0,
        }
    }

    /// How many frames were sent through it.
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    /// The sink, for a frame of which the capture has its copy already.
    pub(crate) fn sink(&mut self) -> &mut S {
        self.sink
    }

    /// Copies a tagged frame if it is the VAP's.
    pub(crate) fn copy(&mut self, direction: Direction, parts: &[&[u8]]) {
        if let Some(capture) = &mut self.capture {
            capture.keep(self.now, direction, parts);
        }
    }
}

impl<S: Sink> Sink for Tap<'_, S> {
    fn emit(
        &mut self,
        side: Side,
        parts: &[&[u8]],
        partial: Option<PartialChecksum>,
    ) -> Result<(), NoBuffer> {
        self.sink.emit(side, parts, partial)?;
        self.sent += 1;
        if side == Side::Trunk {
            self.copy(Direction::Ingress, parts);
        }
        Ok(())
    }
}

impl Datapath {
    /// Tells what a capture has, and begins it if none is running.
    pub(super) fn read_capture(
        &mut self,
        now: Nanos,
        wanted: &inspect::Capture,
        parts: &mut Parts,
    ) -> Result<Done, Failure> {
        let (vlan, port) = (wanted.vlan, wanted.port);
        let vap = self.tables.vap_at(&Place { vlan, port });
        vap.ok_or(Failure::NoVap)?;
        let capture = match &mut self.capture {
            Some(running) if running.wanted == *wanted => running,
            Some(running) if running.is_wanted(now) => return Err(Failure::Busy),
            none => {
                // The memory of one that nobody wants any more goes first.
                *none = None;
                none.insert(Capture::begin(*wanted, now)?)
            }
        };
        capture.asked = now;
        Ok(capture.read(parts))
    }
}
