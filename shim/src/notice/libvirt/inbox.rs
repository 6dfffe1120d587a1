//! What a host's thread is to do next.
//!
//! Invariant: it does not grow with the number of events, but with that of VMs, and beyond
//! [`MOST`] of them not at all: a listing says what all of them are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sluice_libvirt::{Event, Happening};
use uuid::Uuid;

use super::story::Cause;

/// VMs that wait to be looked at; more are listed. libvirt lists no more.
const MOST: usize = 16_384;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The connection is closed.
    Closed,
    /// Look at a VM, for these reasons, the latest last.
    Look(Uuid, Vec<Cause>),
    /// List all.
    List,
}

/// What came in and is not done yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Whose events are taken.
    connection: u64,
    is_closed: bool,
    /// There was too much to know what.
    is_over: bool,
    /// VMs with causes, the longest waiting first.
    order: VecDeque<Uuid>,
    causes: BTreeMap<Uuid, Vec<Cause>>,
}

impl Inbox {
    /// From now on, events are those of the connection of that number.
    pub(super) fn begin(&self, connection: u64) {
        *self.lock() = Waiting {
            connection,
            ..Waiting::default()
        };
    }

    /// Takes an event of a connection.
    pub(super) fn put(&self, connection: u64, event: Event) {
        let mut waiting = self.lock();
        if waiting.connection != connection {
            return;
        }
        match event {
            Event::Closed => waiting.is_closed = true,
            Event::Domain { uuid, what } => waiting.add(
                uuid,
                match what {
                    Happening::Arriving => Cause::Arriving,
                    Happening::Left => Cause::Left,
                    Happening::Changed => Cause::Other,
                },
            ),
        }
        self.filled.notify_one();
    }

    /// Somebody wants to know what the host has of that VM.
    pub(super) fn look(&self, vm: Uuid) {
        let mut waiting = self.lock();
        if !waiting.causes.contains_key(&vm) {
            waiting.add(vm, Cause::Look);
            self.filled.notify_one();
        }
    }

    /// What to do next; at `relist` at the latest, all are to be listed.
    pub(super) fn take(&self, relist: Instant) -> Next {
        let mut waiting = self.lock();
        loop {
            if let Some(next) = waiting.next() {
                return next;
            }
            let left = relist.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::List;
            }
            let woken = self.filled.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn add(&mut self, vm: Uuid, cause: Cause) {
        let causes = self.causes.entry(vm).or_default();
        if causes.is_empty() {
            self.order.push_back(vm);
        }
        // The latest of each kind, in their order.
        causes.retain(|other| *other != cause);
        causes.push(cause);
        if self.order.len() > MOST {
            self.order.clear();
            self.causes.clear();
            self.is_over = true;
        }
    }

    fn next(&mut self) -> Option<Next> {
        if self.is_closed {
            return Some(Next::Closed);
        }
        if std::mem::take(&mut self.is_over) {
            return Some(Next::List);
        }
        let vm = self.order.pop_front()?;
        Some(Next::Look(vm, self.causes.remove(&vm).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(inbox: &Inbox, vm: u128, what: Happening) {
        let uuid = Uuid::from_u128(vm);
        inbox.put(1, Event::Domain { uuid, what });
    }

    fn take(inbox: &Inbox) -> Next {
        inbox.take(Instant::now())
    }

    #[test]
    fn events_of_a_vm_are_one_reason_to_look_in_their_order() {
        let inbox = Inbox::default();
        inbox.begin(1);
        let look = |vm, causes: &[Cause]| Next::Look(Uuid::from_u128(vm), causes.to_vec());
        for _ in 0..1000 {
            tell(&inbox, 7, Happening::Changed);
            tell(&inbox, 7, Happening::Arriving);
            tell(&inbox, 5, Happening::Changed);
            tell(&inbox, 7, Happening::Left);
        }
        inbox.look(Uuid::from_u128(5));
        inbox.look(Uuid::from_u128(6));
        let all = [Cause::Other, Cause::Arriving, Cause::Left];
        assert_eq!(take(&inbox), look(7, &all));
        assert_eq!(take(&inbox), look(5, &[Cause::Other]));
        assert_eq!(take(&inbox), look(6, &[Cause::Look]));
        assert_eq!(take(&inbox), Next::List);
    }

    #[test]
    fn more_than_can_wait_is_listed() {
        let inbox = Inbox::default();
        inbox.begin(1);
        for vm in 0..=MOST {
            tell(&inbox, vm as u128, Happening::Changed);
        }
        let much_later = Instant::now() + std::time::Duration::from_secs(600);
        assert_eq!(inbox.take(much_later), Next::List);
        assert!(inbox.lock().causes.is_empty());
    }

    #[test]
    fn what_an_earlier_connection_says_is_not_heard() {
        let inbox = Inbox::default();
        inbox.begin(2);
        tell(&inbox, 7, Happening::Changed);
        inbox.put(1, Event::Closed);
        assert_eq!(take(&inbox), Next::List);
        inbox.put(2, Event::Closed);
        assert_eq!(take(&inbox), Next::Closed);
        inbox.begin(3);
        assert_eq!(take(&inbox), Next::List);
    }
}
