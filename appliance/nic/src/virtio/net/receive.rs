//! How frames come in.

use virtio_drivers::transport::Transport;

use super::super::Features;
use super::super::header::{self, HEADER, Received, Shape};
use super::super::queue::{Queue, Returned};
use super::{MIN_FRAME, VirtioNet};
use crate::pool::{Packet, Pool};
use crate::{BURST, Burst};

/// Buffers that the device returned and that are in no packet yet. They have been taken
/// from their slots: what the device writes to its ring after that is not looked at.
#[derive(Debug)]
pub(super) struct Found {
    list: [Returned; BURST],
    /// Which of the list are left.
    next: usize,
    end: usize,
    /// How many more the device has returned, that are still in the queue.
    behind: u16,
}

impl Found {
    /// None.
    pub(super) fn new() -> Found {
        Found {
            list: [Returned::NONE; BURST],
            next: 0,
            end: 0,
            behind: 0,
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.next == self.end
    }

    /// Takes as many of the `pending` buffers of `queue` as there is room for if there are
    /// no others left, and has `lines` cache lines of each fetched. False if there are none.
    #[inline]
    pub(super) fn fetch(&mut self, queue: &mut Queue, pending: u16, lines: usize) -> bool {
        self.behind = pending;
        if !self.is_empty() || pending == 0 {
            return !self.is_empty();
        }
        let places = self.list.len().min(pending.into());
        self.next = 0;
        self.end = queue.take(&mut self.list[..places], lines);
        self.behind -= self.end as u16;
        self.end > 0
    }

    /// How many buffers there are, those in the queue included.
    fn len(&self) -> usize {
        self.end - self.next + usize::from(self.behind)
    }

    /// The next buffer.
    fn take(&mut self, queue: &mut Queue) -> Option<Returned> {
        if let Some(returned) = self.list.get(self.next..self.end)?.first() {
            self.next += 1;
            return Some(*returned);
        }
        self.behind = self.behind.checked_sub(1)?;
        queue.take_one()
    }

    /// Appends frames to `burst` as far as it has room and they are in one buffer each and
    /// complete, as most are. Returns how many bytes they have.
    #[inline(always)]
    fn take_plain(&mut self, pool: &'static Pool, burst: &mut Burst) -> usize {
        let (before, mut count, mut bytes) = (burst.len(), 0, 0);
        let found = self.list.get(self.next..self.end).unwrap_or_default();
        let maker = pool.maker();
        for (place, returned) in burst.spare_capacity_mut().iter_mut().zip(found) {
            // SAFETY: the buffer is in nothing else.
            let header = unsafe { maker.header(returned.buffer) };
            let Some(length) = frame_length(returned.length, maker.room()) else {
                break;
            };
            if !header::is_plain(&header) {
                break;
            }
            // SAFETY: passed on once, as it is taken from the list below; it fits.
            place.write(unsafe { maker.packet(returned.buffer, length) });
            count += 1;
            bytes += returned.length as usize;
        }
        self.next += count;
        // SAFETY: so many were written behind those that there were.
        unsafe { burst.set_len(before + count) };
        bytes - count * HEADER
    }
}

/// The length of a frame of which the device says that it wrote `length` bytes with the
/// header, in a buffer with so much `room`; `None` if it is none that may be.
#[inline(always)]
fn frame_length(length: u32, room: u16) -> Option<u16> {
    let written = length.wrapping_sub(HEADER as u32);
    let spare = u32::from(room).checked_sub(MIN_FRAME as u32)?;
    // It is not more than the room.
    (written.wrapping_sub(MIN_FRAME as u32) <= spare).then_some(written as u16)
}

impl<T: Transport> VirtioNet<T> {
    /// Takes the frames that were found as far as `burst` has room, up to a large one.
    #[inline(always)]
    pub(super) fn take_frames(&mut self, burst: &mut Burst) {
        while !self.found.is_empty() {
            let before = burst.len();
            let bytes = self.found.take_plain(self.pool, burst);
            self.statistics.rx_packets += (burst.len() - before) as u64;
            self.statistics.rx_bytes += bytes as u64;
            if self.found.is_empty() || burst.is_full() || !self.take_special(burst) {
                return;
            }
        }
    }

    /// Takes a frame that is not a plain one; false if it is held back. One that the device
    /// described wrongly is dropped.
    #[cold]
    #[inline(never)]
    fn take_special(&mut self, burst: &mut Burst) -> bool {
        let pending = self.found.len();
        let frame = self
            .take_buffer()
            .and_then(|(packet, length)| self.take_frame(packet, length, pending));
        let Some(frame) = frame else {
            let is_held = self.held.is_some();
            self.statistics.device_errors += u64::from(!is_held);
            return !is_held;
        };
        self.statistics.rx_packets += 1;
        self.statistics.rx_bytes += frame.len() as u64;
        // There is room: the caller has looked.
        let _ = burst.push(frame);
        true
    }

    /// Takes the next buffer that was found, with the length that the device gave.
    pub(super) fn take_buffer(&mut self) -> Option<(Packet, u32)> {
        let Returned { buffer, length } = self.found.take(&mut self.receive)?;
        // SAFETY: passed on once, as it is out of the list.
        Some((unsafe { self.pool.packet(buffer) }, length))
    }

    /// Makes a frame of a buffer in which the device wrote `length` bytes, and of more if it
    /// is in several. There are `pending` in all. A large one is held back.
    fn take_frame(&mut self, mut packet: Packet, length: u32, pending: usize) -> Option<Packet> {
        let written = usize::try_from(length).ok()?.checked_sub(HEADER)?;
        let header = Received::parse(packet.header_mut::<HEADER>().0);
        let buffers = if self.features.contains(Features::MRG_RXBUF) {
            header.buffers
        } else {
            1
        };
        packet.set_range(packet.start(), written)?;
        if !(1..=pending).contains(&buffers.into()) {
            return None;
        }
        if let Shape::Large(segmentation) = header.shape {
            self.held = self.take_large(packet, segmentation, header.partial, buffers);
            return None;
        }
        let mut complete = true;
        for _ in 1..buffers {
            complete &= self.append_received(&mut packet);
        }
        if !complete || header.shape != Shape::Ordinary || packet.len() < MIN_FRAME {
            return None;
        }
        let partial = header.partial;
        if partial.is_some_and(|partial| !partial.fits(packet.len())) {
            return None;
        }
        packet.set_partial(partial);
        Some(packet)
    }

    /// Copies what the next buffer holds behind `packet`. Buffers but the first
    /// start with data where the first has its header.
    fn append_received(&mut self, packet: &mut Packet) -> bool {
        let Some((mut more, length)) = self.take_buffer() else {
            return false;
        };
        let Ok(length) = usize::try_from(length) else {
            return false;
        };
        if length > HEADER + more.capacity() {
            return false;
        }
        let head = *more.header_mut::<HEADER>().0;
        let behind = length.saturating_sub(HEADER);
        if more.set_range(more.start(), behind).is_none() {
            return false;
        }
        let head = head.get(..length.min(HEADER)).unwrap_or_default();
        packet.append(&[head, more.bytes()]).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_a_header_of_its_own_and_fits() {
        let shortest = (HEADER + MIN_FRAME) as u32;
        for (length, room, expected) in [
            (shortest, 2000, Some(14)),
            (shortest - 1, 2000, None),
            (2012, 2000, Some(2000)),
            (2013, 2000, None),
            (shortest, 14, Some(14)),
            (shortest + 1, 14, None),
            (shortest, 13, None),
            (65_547, u16::MAX, Some(u16::MAX)),
            (65_548, u16::MAX, None),
            // What is less than nothing is much.
            (0, u16::MAX, None),
            (11, u16::MAX, None),
            (12, u16::MAX, None),
            (u32::MAX, u16::MAX, None),
        ] {
            assert_eq!(frame_length(length, room), expected, "{length} in {room}");
        }
    }
}
