//! The newest lifecycle events, for operators who watch.
//!
//! Invariant: only the list keeps events, and what it keeps is bounded by number and by
//! bytes, however many watch, and however slowly they read.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::Serialize;
use tokio::sync::broadcast;

use super::types::{IpEntry, Ipv6Entry, LifecycleEvent, Vnic};

/// Most events kept for those who come later.
const KEPT: usize = 1000;
/// Most bytes of memory that they have together; the newest is kept whatever it has.
const KEPT_BYTES: usize = 4 << 20;
/// Events that a watcher may be behind.
const LAG: usize = 256;

/// An event and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// Name of the hypervisor manager, or of the user who posted it.
    pub manager: String,
    /// `applied`, `unchanged` or `late`.
    pub outcome: &'static str,
    /// The event as it came.
    #[serde(flatten)]
    pub event: LifecycleEvent,
}

impl Seen {
    /// Bytes of memory that it has.
    fn bytes(&self) -> usize {
        let vm = &self.event.vm;
        let names = [&self.manager, &vm.vm_name, &vm.host_name];
        let names = names.into_iter().chain(&self.event.destination_host_name);
        let names: usize = names.map(|name| name.capacity()).sum();
        let vnics: usize = vm.vnic_list.iter().map(of_vnic).sum();
        size_of::<Seen>() + names + vnics + vm.vnic_list.capacity() * size_of::<Vnic>()
    }
}

/// Bytes that a vNIC has besides its place in the list.
fn of_vnic(vnic: &Vnic) -> usize {
    vnic.vnic_name.capacity()
        + vnic.pg_name.capacity()
        + vnic.ip_list.capacity() * size_of::<IpEntry>()
        + vnic.ipv6_list.capacity() * size_of::<Ipv6Entry>()
}

/// A bounded list that can be watched.
#[derive(Debug)]
pub struct RecentEvents {
    kept: Mutex<Kept>,
    watchers: broadcast::Sender<Weak<Seen>>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Arc<Seen>>,
    /// What they have together.
    bytes: usize,
}

impl Default for RecentEvents {
    fn default() -> Self {
        RecentEvents {
            kept: Mutex::default(),
            watchers: broadcast::Sender::new(LAG),
        }
    }
}

impl RecentEvents {
    /// Adds an event, and takes the oldest away if there are too many.
    pub fn push(&self, seen: Seen) {
        let seen = Arc::new(seen);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(Arc::clone(&seen));
        // Nobody watching is no error.
        let _ = self.watchers.send(Arc::downgrade(&seen));
    }

    /// The events kept, oldest first, and all that come after them. One that is kept no
    /// more by the time it is received is gone.
    pub fn watch(&self) -> (Vec<Arc<Seen>>, broadcast::Receiver<Weak<Seen>>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let events = kept.events.iter().cloned().collect();
        (events, self.watchers.subscribe())
    }
}

impl Kept {
    fn push(&mut self, seen: Arc<Seen>) {
        self.bytes += seen.bytes();
        self.events.push_back(seen);
        while self.events.len() > KEPT || (self.bytes > KEPT_BYTES && self.events.len() > 1) {
            let oldest = self.events.pop_front();
            self.bytes -= oldest.map_or(0, |oldest| oldest.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::events::types::{EventType, VmState, VmStatus};

    /// An event of a VM with a name of so many bytes.
    fn seen(number: u128, name: usize) -> Seen {
        let vm = VmState {
            vm_name: "x".repeat(name),
            vm_uuid: Uuid::from_u128(number),
            vm_status: VmStatus::Running,
            host_name: "h".into(),
            host_uuid: Uuid::nil(),
            vnic_list: vec![],
        };
        Seen {
            manager: "lab".into(),
            outcome: "applied",
            event: LifecycleEvent {
                event_id: Uuid::from_u128(number),
                timestamp: OffsetDateTime::UNIX_EPOCH,
                event_type: EventType::VmCreated,
                destination_host_name: None,
                vm,
            },
        }
    }

    fn numbers(recent: &RecentEvents) -> Vec<u128> {
        let (kept, _) = recent.watch();
        kept.iter()
            .map(|seen| seen.event.event_id.as_u128())
            .collect()
    }

    #[test]
    fn the_newest_are_kept_up_to_a_number_and_up_to_as_many_bytes() {
        let recent = RecentEvents::default();
        for number in 0..1500 {
            recent.push(seen(number, 1));
        }
        assert_eq!(numbers(&recent), Vec::from_iter(500..1500));
        for number in 1500..1600 {
            recent.push(seen(number, 1 << 20));
        }
        assert_eq!(numbers(&recent), [1597, 1598, 1599], "of 1 MiB each");
        recent.push(seen(1600, KEPT_BYTES));
        assert_eq!(numbers(&recent), [1600], "the newest, however large");
        recent.push(seen(1601, 1));
        assert_eq!(numbers(&recent), [1601]);
        assert_eq!(
            recent.kept.lock().unwrap().bytes,
            seen(1601, 1).bytes(),
            "what went is not counted"
        );
    }

    #[tokio::test]
    async fn who_watches_copies_nothing_and_keeps_nothing() {
        let recent = RecentEvents::default();
        recent.push(seen(0, 1));
        let (first, mut coming) = recent.watch();
        let (second, _) = recent.watch();
        assert!(Arc::ptr_eq(&first[0], &second[0]));
        recent.push(seen(1, 1));
        recent.push(seen(2, KEPT_BYTES));
        assert!(coming.recv().await.unwrap().upgrade().is_none());
        let newest = coming.recv().await.unwrap().upgrade().unwrap();
        assert_eq!(newest.event.event_id.as_u128(), 2);
    }
}
