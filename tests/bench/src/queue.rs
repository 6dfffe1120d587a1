//! The two queues of a virtio network device (virtio 1.2, section 5.1), as the
//! device sees them: it fills the driver's receive queue and drains its transmit
//! queue, in bursts.

use std::arch::asm;
use std::ptr::NonNull;

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
            let roomy = behind_header(piece).filter(|piece| piece.length >= MAX_FRAME);
            let length = match roomy {
                Some(room) => {
                    Room { piece }.put(0, &PLAIN);
                    fill(&mut Room { piece: room }).min(MAX_FRAME)
                }
                None => fill_pieces(chain, &mut fill)?,
            };
            self.ring.give(chain, (HEADER + length) as u32);
        }
        let notify = self.ring.publish();
        Ok(Done { frames, notify })
    }
}

/// Fills a buffer whose first piece is too short for some frames: by a copy, since
/// who fills wants one piece. Returns the frame's length.
#[cold]
#[inline(never)]
fn fill_pieces(chain: &Chain, fill: &mut impl FnMut(&mut Room) -> usize) -> Result<usize, Fault> {
    let mut bytes = [0; HEADER + MAX_FRAME];
    let (header, frame) = bytes.split_at_mut(HEADER);
    header.copy_from_slice(&PLAIN);
    let piece = Piece {
        pointer: NonNull::from(&mut *frame).cast(),
        length: MAX_FRAME,
    };
    let length = fill(&mut Room { piece }).min(MAX_FRAME);
    let mut left = bytes.get(..HEADER + length).unwrap_or_default();
    for piece in chain.pieces() {
        let (now, later) = left.split_at(left.len().min(piece.length));
        Room { piece: *piece }.put(0, now);
        left = later;
    }
    if left.is_empty() {
        Ok(length)
    } else {
        Err(Fault::Room)
    }
}

/// A frame that came in: what is known of it, and where the rest is.
#[derive(Debug)]
pub struct Incoming<'q> {
    head: &'q Head,
    chain: &'q Chain,
}

impl Incoming<'_> {
    /// The frame's first bytes, [`HEAD`] or all there are.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.head.bytes.get(..self.head.known).unwrap_or_default()
    }

    /// The frame's length in bytes.
    #[inline]
    pub fn length(&self) -> usize {
        self.head.length
    }

    /// All of the frame, or its first [`MAX_FRAME`] bytes. The driver may have
    /// changed it since.
    pub fn whole(&self) -> Vec<u8> {
        let mut frame = vec![0; self.head.length.min(MAX_FRAME)];
        read(self.chain, &mut frame);
        frame
    }
}

/// The start of a frame that came in, and its length.
#[derive(Debug)]
#[repr(align(64))]
struct Head {
    bytes: [u8; HEAD],
    known: usize,
    length: usize,
}

impl Head {
    /// Reads the frame behind the header of a buffer.
    #[inline]
    fn read(&mut self, chain: &Chain) -> Result<(), Fault> {
        let (known, length) = read(chain, &mut self.bytes);
        self.known = known;
        self.length = length.ok_or(Fault::Room)?;
        Ok(())
    }
}

/// Reads a frame behind the header of a buffer into `to`, as far as it goes. Returns
/// how much of it that was, and the whole frame's length; `None` if not even the
/// header is there.
#[inline]
fn read(chain: &Chain, to: &mut [u8]) -> (usize, Option<usize>) {
    let (mut known, mut length, mut skip) = (0, 0, HEADER);
    for piece in chain.pieces() {
        let skipped = skip.min(piece.length);
        skip -= skipped;
        let left = piece.length - skipped;
        length += left;
        let Some(room) = to.get_mut(known..) else {
            break;
        };
        let copied = left.min(room.len());
        // SAFETY: `skipped + copied` bytes are in the piece, which is the
        // device's until it is given back, and `room` is not shared memory.
        unsafe {
            let from = piece.pointer.add(skipped).as_ptr();
            std::ptr::copy_nonoverlapping(from, room.as_mut_ptr(), copied);
        }
        known += copied;
    }
    (known, (skip == 0).then_some(length))
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
    pub fn receive(&mut self, mut look: impl FnMut(&Incoming<'_>)) -> Result<Done, Fault> {
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
            let head = &self.head;
            look(&Incoming { head, chain });
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

    /// Fills a buffer of these pieces, and returns what is then in them.
    fn filled(pieces: &[u32], frame: &[u8]) -> Result<Vec<u8>, Fault> {
        let (mut driver, ring) = Driver::leak(ReceiveQueue::ACCESS);
        for (slot, length) in (0..).zip(pieces) {
            let last = usize::from(slot) + 1 == pieces.len();
            let flags = if last { WRITE } else { WRITE | NEXT };
            driver.describe(slot, Driver::buffer(slot), *length, flags, slot + 1);
        }
        driver.offer(0);
        let mut queue = ReceiveQueue::new(ring);
        queue.send(1, 64, |room| {
            room.put(0, frame);
            frame.len()
        })?;
        assert_eq!(driver.take(), Some((0, (HEADER + frame.len()) as u32)));
        let bytes = (0..).zip(pieces);
        let bytes = bytes.map(|(slot, length)| {
            // What is behind a piece is not the device's.
            let after = Driver::buffer(slot) + u64::from(*length);
            assert_eq!(driver.read(after, 8), [0; 8]);
            driver.read(Driver::buffer(slot), *length as usize)
        });
        Ok(bytes.flatten().collect())
    }

    #[test]
    fn frames_are_spread_over_the_pieces() {
        let frame: Vec<u8> = (0..200).map(|byte| byte as u8 | 1).collect();
        let written = [&PLAIN[..], &frame].concat();
        for pieces in [
            &[212][..],
            &[1530],
            &[12, 200],
            &[12, 1000, 1000],
            &[5, 0, 7, 1, 300],
            &[13, 100, 99],
        ] {
            let found = filled(pieces, &frame).unwrap();
            assert_eq!(found[..212], written, "{pieces:?}");
            assert!(found[212..].iter().all(|byte| *byte == 0), "{pieces:?}");
        }
    }

    #[test]
    fn a_buffer_without_room_is_a_fault() {
        for pieces in [&[0][..], &[11], &[211], &[12, 199], &[12, 0, 100, 99]] {
            assert_eq!(filled(pieces, &[7; 200]), Err(Fault::Room), "{pieces:?}");
        }
        let longest = [7; MAX_FRAME];
        assert_eq!(filled(&[12, 1599], &longest), Err(Fault::Room));
        assert!(filled(&[12, 1600], &longest).is_ok());
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
        let (mut found, mut whole) = (None, Vec::new());
        let mut queue = TransmitQueue::new(ring);
        queue.receive(|frame| {
            found = Some((frame.bytes().to_vec(), frame.length()));
            whole = frame.whole();
        })?;
        assert_eq!(driver.take(), Some((0, 0)));
        assert_eq!(whole, frame);
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
