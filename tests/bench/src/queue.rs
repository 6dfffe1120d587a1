//! The two queues of a virtio network device (virtio 1.2, section 5.1), as the
//! device sees them: it fills the driver's receive queue and drains its transmit
//! queue, in bursts.

use std::arch::asm;

use crate::ring::{Access, Chain, Fault, Piece, Ring};

/// Most frames that move at once.
pub const BURST: usize = 32;

/// Longest frame that is sent, in bytes.
pub const MAX_FRAME: usize = 1600;

/// Bytes of a received frame that are looked at: all headers that a scenario has,
/// and the start of the payload.
pub const HEAD: usize = 128;

/// Bytes of `struct virtio_net_hdr` (virtio 1.2, section 5.1.6).
const HEADER: usize = 12;

/// No offload, one buffer.
const PLAIN: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// Bytes of a cache line.
const LINE: usize = 64;

/// Something that a frame can be written into.
pub trait Put {
    /// Writes `bytes` from offset `at` on. What does not fit is left out whole.
    fn put(&mut self, at: usize, bytes: &[u8]);
}

impl Put for [u8] {
    #[inline]
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let room = at
            .checked_add(bytes.len())
            .and_then(|end| self.get_mut(at..end));
        if let Some(room) = room {
            room.copy_from_slice(bytes);
        }
    }
}

/// Room for one frame in a buffer of the driver.
#[derive(Debug)]
pub struct Room {
    piece: Piece,
}

impl Put for Room {
    #[inline]
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let fits = at
            .checked_add(bytes.len())
            .is_some_and(|end| end <= self.piece.length);
        if fits {
            // SAFETY: in the piece, as checked, which is the device's until it is
            // given back; `bytes` are not shared memory.
            unsafe {
                let to = self.piece.pointer.add(at).as_ptr();
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            }
        }
    }
}

/// What a burst was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Frames moved.
    pub frames: usize,
    /// Whether the driver wants to be notified.
    pub notify: bool,
}

impl Done {
    const NOTHING: Done = Done {
        frames: 0,
        notify: false,
    };
}

/// The driver's receive queue, which the device fills.
#[derive(Debug)]
pub struct ReceiveQueue {
    ring: Ring,
    chains: [Chain; BURST],
}

impl ReceiveQueue {
    /// Buffers of this queue are written.
    pub const ACCESS: Access = Access::Write;

    /// The queue over `ring`.
    pub fn new(ring: Ring) -> ReceiveQueue {
        ReceiveQueue {
            ring,
            chains: [Chain::default(); BURST],
        }
    }

    /// See [`Ring::position`].
    pub fn position(&self) -> u16 {
        self.ring.position()
    }

    /// Sends up to `most` frames, at most [`BURST`] and as many as there are buffers
    /// for. `fill` writes each and returns its length, at most [`MAX_FRAME`]; most
    /// are about `typical` bytes.
    #[inline]
    pub fn send(
        &mut self,
        most: usize,
        typical: usize,
        mut fill: impl FnMut(&mut Room) -> usize,
    ) -> Result<Done, Fault> {
        let frames = take_burst(&mut self.ring, &mut self.chains, most, |chain| {
            for line in lines(chain.first(), HEADER + typical) {
                prefetch_to_write(line);
            }
        })?;
        if frames == 0 {
            return Ok(Done::NOTHING);
        }
        for chain in self.chains.iter().take(frames) {
            let piece = chain.first();
            let mut whole = Room { piece };
            whole.put(0, &PLAIN);
            let piece = behind_header(piece).filter(|piece| piece.length >= MAX_FRAME);
            let mut room = Room {
                piece: piece.ok_or(Fault::Room)?,
            };
            let length = fill(&mut room).min(MAX_FRAME);
            self.ring.give(chain, (HEADER + length) as u32);
        }
        let notify = self.ring.publish();
        Ok(Done { frames, notify })
    }
}

/// The start of a frame that came in, and its length.
#[derive(Debug)]
#[repr(align(64))]
pub struct Head {
    bytes: [u8; HEAD],
    known: usize,
    length: usize,
}

impl Head {
    /// The frame's first bytes, [`HEAD`] or all there are.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.known).unwrap_or_default()
    }

    /// The frame's length in bytes.
    #[inline]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Reads the frame behind the header of a buffer.
    #[inline]
    fn read(&mut self, chain: &Chain) -> Result<(), Fault> {
        self.known = 0;
        self.length = 0;
        let mut skip = HEADER;
        for piece in chain.pieces() {
            let skipped = skip.min(piece.length);
            skip -= skipped;
            let left = piece.length - skipped;
            self.length += left;
            let Some(room) = self.bytes.get_mut(self.known..) else {
                break;
            };
            let copied = left.min(room.len());
            // SAFETY: `skipped + copied` bytes are in the piece, which is the
            // device's until it is given back, and `room` is not shared memory.
            unsafe {
                let from = piece.pointer.add(skipped).as_ptr();
                std::ptr::copy_nonoverlapping(from, room.as_mut_ptr(), copied);
            }
            self.known += copied;
        }
        if skip > 0 { Err(Fault::Room) } else { Ok(()) }
    }
}

/// The driver's transmit queue, which the device drains.
#[derive(Debug)]
pub struct TransmitQueue {
    ring: Ring,
    chains: [Chain; BURST],
    head: Head,
}

impl TransmitQueue {
    /// Buffers of this queue are read.
    pub const ACCESS: Access = Access::Read;

    /// The queue over `ring`.
    pub fn new(ring: Ring) -> TransmitQueue {
        TransmitQueue {
            ring,
            chains: [Chain::default(); BURST],
            head: Head {
                bytes: [0; HEAD],
                known: 0,
                length: 0,
            },
        }
    }

    /// See [`Ring::position`].
    pub fn position(&self) -> u16 {
        self.ring.position()
    }

    /// Receives up to [`BURST`] frames, and shows each to `look`.
    #[inline]
    pub fn receive(&mut self, mut look: impl FnMut(&Head)) -> Result<Done, Fault> {
        let frames = take_burst(&mut self.ring, &mut self.chains, BURST, |chain| {
            for line in chain.pieces().iter().flat_map(|piece| lines(*piece, HEAD)) {
                prefetch_to_read(line);
            }
        })?;
        if frames == 0 {
            return Ok(Done::NOTHING);
        }
        for chain in self.chains.iter().take(frames) {
            self.head.read(chain)?;
            look(&self.head);
            self.ring.give(chain, 0);
        }
        let notify = self.ring.publish();
        Ok(Done { frames, notify })
    }
}

/// Takes up to `most` buffers, and has each fetched before any is needed.
#[inline]
fn take_burst(
    ring: &mut Ring,
    chains: &mut [Chain; BURST],
    most: usize,
    fetch: impl Fn(&Chain),
) -> Result<usize, Fault> {
    let most = most.min(BURST);
    let count = usize::from(ring.pending(most as u16)?).min(most);
    for chain in chains.iter_mut().take(count) {
        ring.take(chain)?;
        fetch(chain);
    }
    Ok(count)
}

#[inline]
fn behind_header(piece: Piece) -> Option<Piece> {
    let length = piece.length.checked_sub(HEADER)?;
    // SAFETY: the piece is longer than the header.
    let pointer = unsafe { piece.pointer.add(HEADER) };
    Some(Piece { pointer, length })
}

/// An address in each cache line that the first `length` bytes of a piece are in.
#[inline]
fn lines(piece: Piece, length: usize) -> impl Iterator<Item = *const u8> {
    let first = piece.pointer.as_ptr().cast_const();
    let before = first.addr() % LINE;
    let end = before + length.min(piece.length);
    (0..end)
        .step_by(LINE)
        .map(move |at| first.wrapping_sub(before).wrapping_add(at))
}

/// Has the cache line at an address fetched, to be read.
#[inline]
fn prefetch_to_read(line: *const u8) {
    // SAFETY: prefetches of any address do nothing but fetch.
    unsafe { asm!("prefetcht0 [{}]", in(reg) line, options(nostack, preserves_flags)) };
}

/// Has the cache line at an address fetched, to be written. A hint, which
/// processors that do not have it take for no operation.
#[inline]
fn prefetch_to_write(line: *const u8) {
    // SAFETY: prefetches of any address do nothing but fetch.
    unsafe { asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags)) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{BUFFER, Driver, NEXT, SIZE, WRITE};

    fn fill(room: &mut Room) -> usize {
        room.put(0, b"frame");
        room.put(MAX_FRAME * 2, b"beyond");
        5
    }

    #[test]
    fn frames_go_into_the_buffers_that_are_there() {
        let (mut driver, ring) = Driver::leak(ReceiveQueue::ACCESS);
        let mut queue = ReceiveQueue::new(ring);
        assert_eq!(queue.send(32, 64, fill), Ok(Done::NOTHING));
        for slot in 0..3 {
            driver.describe(slot, Driver::buffer(slot), BUFFER as u32, WRITE, 0);
            driver.offer(slot);
        }
        let done = |frames| {
            Ok(Done {
                frames,
                notify: true,
            })
        };
        assert_eq!(queue.send(0, 64, fill), Ok(Done::NOTHING));
        assert_eq!(queue.send(1, 64, fill), done(1));
        assert_eq!(queue.send(32, 64, fill), done(2));
        for slot in 0..3 {
            assert_eq!(driver.take(), Some((slot, 17)));
            let bytes = driver.read(Driver::buffer(slot), 18);
            assert_eq!(bytes[..12], PLAIN);
            assert_eq!(bytes[12..], *b"frame\0");
        }
        assert_eq!(queue.position(), 3);
    }

    #[test]
    fn a_buffer_without_room_is_a_fault() {
        for length in [0, 11, 64, HEADER as u32 + MAX_FRAME as u32 - 1] {
            let (mut driver, ring) = Driver::leak(ReceiveQueue::ACCESS);
            driver.describe(0, Driver::buffer(0), length, WRITE, 0);
            driver.offer(0);
            let mut queue = ReceiveQueue::new(ring);
            assert_eq!(queue.send(1, 64, fill), Err(Fault::Room));
        }
    }

    /// Sends `frame` behind a header, cut where the lengths say.
    fn received(frame: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, usize), Fault> {
        let (mut driver, ring) = Driver::leak(TransmitQueue::ACCESS);
        let bytes = [&[0; HEADER], frame].concat();
        driver.write(Driver::buffer(0), &bytes);
        let mut at = 0;
        for (slot, cut) in (0..).zip(cuts) {
            let last = usize::from(slot) + 1 == cuts.len();
            let flags = if last { 0 } else { NEXT };
            let offset = Driver::buffer(0) + at as u64;
            driver.describe(slot, offset, *cut as u32, flags, slot + 1);
            at += cut;
        }
        driver.offer(0);
        let mut found = None;
        let mut queue = TransmitQueue::new(ring);
        queue.receive(|head| found = Some((head.bytes().to_vec(), head.length())))?;
        assert_eq!(driver.take(), Some((0, 0)));
        Ok(found.unwrap())
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let frame: Vec<u8> = (0..200).map(|byte| byte as u8).collect();
        for cuts in [
            &[212][..],
            &[12, 200],
            &[5, 7, 200],
            &[13, 1, 198],
            &[12, 100, 100],
        ] {
            let (head, length) = received(&frame, cuts).unwrap();
            assert_eq!(length, 200, "{cuts:?}");
            assert_eq!(head, frame[..HEAD], "{cuts:?}");
        }
        let (head, length) = received(&frame[..60], &[12, 60]).unwrap();
        assert_eq!((head.as_slice(), length), (&frame[..60], 60));
        assert_eq!(received(&frame, &[11]), Err(Fault::Room));
    }

    #[test]
    fn bursts_have_an_end() {
        let (mut driver, ring) = Driver::leak(TransmitQueue::ACCESS);
        for slot in 0..SIZE {
            driver.describe(slot, Driver::buffer(0), 72, 0, 0);
            driver.offer(slot);
        }
        let mut queue = TransmitQueue::new(ring);
        let done = queue.receive(|_| {}).unwrap();
        assert_eq!(done.frames, usize::from(SIZE).min(BURST));
    }
}
