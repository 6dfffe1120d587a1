//! The newest drops, with what is known of each.

use alloc::vec::Vec;

use nve_protocol::inspect::{Done, Dropped, Part};

use super::Parts;

/// How many drops are remembered.
const REMEMBERED: usize = 512;

/// Most of them in an answer.
const PAGE: usize = 64;

/// A ring of drops, numbered from 1. Invariant: the drop with number n, if it is
/// remembered, is at n - 1 modulo the ring's length.
#[derive(Debug)]
pub(crate) struct DropLog {
    ring: Vec<Dropped>,
    /// Number of the newest one.
    newest: u64,
}

impl DropLog {
    /// An empty one, with its memory. Without memory it only counts.
    pub(crate) fn new() -> DropLog {
        let mut ring = Vec::new();
        // Whatever becomes of it, `push` keeps to what there is.
        let _ = ring.try_reserve_exact(REMEMBERED);
        DropLog { ring, newest: 0 }
    }

    /// Remembers a drop, and gives it its number.
    pub(crate) fn push(&mut self, dropped: Dropped) {
        let at = (self.newest % REMEMBERED as u64) as usize;
        self.newest += 1;
        let dropped = Dropped {
            number: self.newest,
            ..dropped
        };
        if let Some(place) = self.ring.get_mut(at) {
            *place = dropped;
        } else if self.ring.len() < self.ring.capacity() {
            self.ring.push(dropped);
        }
    }

    /// Tells the drops after one, oldest first. A number from before the last boot
    /// begins anew.
    pub(super) fn read(&self, after: u64, parts: &mut Parts) -> Done {
        let after = if after > self.newest { 0 } else { after };
        let oldest = self.newest.saturating_sub(self.ring.len() as u64);
        let from = after.max(oldest);
        let to = self.newest.min(from + PAGE as u64);
        for number in from..to {
            let at = (number % REMEMBERED as u64) as usize;
            if let Some(dropped) = self.ring.get(at) {
                parts.push(Part::Drop(*dropped));
            }
        }
        Done {
            next: to,
            lost: from - after,
            more: to < self.newest,
        }
    }
}

#[cfg(test)]
mod tests {
    use nve_protocol::DropReason;

    use super::*;
    use crate::Nanos;
    use crate::inspect::steps;

    fn read(log: &DropLog, after: u64) -> (Vec<u64>, Done) {
        let mut parts = Parts::new();
        let done = log.read(after, &mut parts);
        let numbers = parts.into_list().into_iter().map(|part| match part {
            Part::Drop(dropped) => dropped.number,
            other => panic!("{other:?}"),
        });
        (numbers.collect(), done)
    }

    #[test]
    fn the_newest_are_told_in_order_and_the_rest_is_counted() {
        let mut log = DropLog::new();
        assert_eq!(read(&log, 0), (Vec::new(), Done::default()));
        let total = REMEMBERED as u64 + 100;
        for at in 0..total {
            log.push(steps::unread(Nanos(at), DropReason::Untagged));
        }
        let (numbers, done) = read(&log, 0);
        assert_eq!(numbers, (101..=164).collect::<Vec<_>>());
        let wanted = Done {
            next: 164,
            lost: 100,
            more: true,
        };
        assert_eq!(done, wanted);
        let (numbers, done) = read(&log, total - 3);
        assert_eq!(numbers, [total - 2, total - 1, total]);
        assert!(!done.more && done.lost == 0 && done.next == total);
        assert_eq!(read(&log, total).0, []);
        // The NVE has booted since.
        assert_eq!(read(&log, total + 1).0.len(), PAGE);
    }
}
