//! Taking the frames of a burst out of it.

use core::mem::MaybeUninit;

use crate::{Burst, Packet};

/// Frames on their way out of a burst, in order, from where they are in it: a burst takes
/// more than a kilobyte. What is not taken is dropped.
#[derive(Debug)]
pub struct Drain<'b> {
    /// All of these are frames, of which the burst does not know any more.
    left: &'b mut [MaybeUninit<Packet>],
}

impl<'b> Drain<'b> {
    /// All of a burst's frames.
    #[inline]
    pub fn new(burst: &'b mut Burst) -> Drain<'b> {
        let count = burst.len();
        // SAFETY: the burst has none then, and its frames stay where they are.
        unsafe { burst.set_len(0) };
        let left = burst.spare_capacity_mut().get_mut(..count);
        Drain {
            left: left.unwrap_or_default(),
        }
    }

    /// The frames that are left.
    #[inline(always)]
    pub(crate) fn as_mut_slice(&mut self) -> &mut [Packet] {
        let frames = core::ptr::from_mut(&mut *self.left) as *mut [Packet];
        // SAFETY: all are frames.
        unsafe { &mut *frames }
    }

    /// Forgets the first `count` frames.
    ///
    /// # Safety
    /// Their buffers are in other hands.
    #[inline(always)]
    pub(crate) unsafe fn forget(&mut self, count: usize) {
        let left = core::mem::take(&mut self.left);
        self.left = left.get_mut(count..).unwrap_or_default();
    }
}

impl Iterator for Drain<'_> {
    type Item = Packet;

    #[inline]
    fn next(&mut self) -> Option<Packet> {
        let (first, left) = core::mem::take(&mut self.left).split_first_mut()?;
        self.left = left;
        // SAFETY: it is a frame, and not among those that are left.
        Some(unsafe { first.assume_init_read() })
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.len(), Some(self.left.len()))
    }
}

impl ExactSizeIterator for Drain<'_> {}

impl Drop for Drain<'_> {
    #[inline]
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::fake::leak_memory;
    use crate::{BURST, Pool};

    fn pool() -> &'static Pool {
        let memory = leak_memory(Pool::bytes(BURST, 128, 2000));
        Pool::new(memory, 128, 2000).unwrap()
    }

    fn burst(pool: &'static Pool, count: u8) -> Burst {
        let frame = |byte: u8| {
            let mut packet = pool.take()?;
            packet.append(&[&[byte; 60]])?;
            Some(packet)
        };
        (0..count).filter_map(frame).collect()
    }

    #[test]
    fn frames_come_out_in_order_and_once() {
        let pool = pool();
        for count in [0, 1, 5, 31, 32] {
            let mut burst = burst(pool, count);
            let drain = Drain::new(&mut burst);
            assert_eq!(drain.len(), usize::from(count));
            let marks: Vec<u8> = drain.map(|packet| packet.bytes()[0]).collect();
            assert_eq!(marks, (0..count).collect::<Vec<u8>>());
            assert!(burst.is_empty());
            assert_eq!(pool.available(), BURST);
        }
    }

    #[test]
    fn what_is_not_taken_is_freed() {
        let pool = pool();
        let mut burst = burst(pool, 6);
        let mut drain = Drain::new(&mut burst);
        let first = drain.next().unwrap();
        drop(drain);
        assert_eq!((first.bytes()[0], pool.available()), (0, BURST - 1));
        assert!(burst.is_empty());
    }

    #[test]
    fn what_is_forgotten_is_not_freed() {
        let pool = pool();
        for count in [0, 2, 5] {
            let mut burst = burst(pool, 5);
            let mut drain = Drain::new(&mut burst);
            let frames = drain.as_mut_slice();
            let buffers: Vec<_> = frames[..count].iter().map(Packet::buffer).collect();
            // SAFETY: their buffers are freed by hand below.
            unsafe { drain.forget(count) };
            let next = drain.next().map(|packet| packet.bytes()[0]);
            assert_eq!(next, (count as u8..5).next());
            drop(drain);
            assert_eq!(pool.available(), BURST - count);
            for buffer in buffers {
                // SAFETY: it is in nothing else.
                drop(unsafe { pool.packet(buffer) });
            }
            assert_eq!(pool.available(), BURST);
        }
    }
}
