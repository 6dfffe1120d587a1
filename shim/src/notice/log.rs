//! The latest events of a back end, in order, for readers that resume.
//!
//! Invariants: at most `capacity` events are kept, the newest ones; sequence numbers
//! and timestamps rise strictly, also over a restart and when the clock goes back.

use std::collections::VecDeque;
use std::sync::Arc;

use time::{Duration, OffsetDateTime};
use tokio::sync::broadcast;
use uuid::Uuid;

use super::backend::{Continuity, Feed};
use crate::events::types::{EventType, LifecycleEvent, VmState};

/// An event and its place in the log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Counts events from the first one ever.
    pub seq: u64,
    /// The event.
    pub event: Arc<LifecycleEvent>,
}

/// The latest events.
#[derive(Debug)]
pub struct EventLog {
    entries: VecDeque<Entry>,
    capacity: usize,
    next_seq: u64,
    newest: OffsetDateTime,
    live: broadcast::Sender<Arc<LifecycleEvent>>,
}

impl EventLog {
    /// A log that begins with `saved`. Readers may lag behind by `lag` events.
    pub fn new(saved: Vec<Entry>, capacity: usize, lag: usize, now: OffsetDateTime) -> Self {
        let last = saved.last();
        let newest = last.map_or(now, |last| last.event.timestamp.max(now));
        let next_seq = last.map_or(0, |last| last.seq + 1);
        let mut log = EventLog {
            entries: saved.into(),
            capacity: capacity.max(1),
            next_seq,
            newest,
            live: broadcast::Sender::new(lag.max(1)),
        };
        log.trim();
        log
    }

    /// The events that `steps` would be if they were appended next; a live migration that
    /// starts among them leads to `destination`, if that is known.
    pub fn prepare(
        &self,
        steps: Vec<(EventType, VmState)>,
        destination: Option<String>,
        now: OffsetDateTime,
    ) -> Vec<Entry> {
        let mut timestamp = self.newest;
        steps
            .into_iter()
            .zip(self.next_seq..)
            .map(|((event_type, vm), seq)| {
                timestamp = now.max(timestamp + Duration::microseconds(1));
                let starts = event_type == EventType::LiveMigrateStart;
                let event = Arc::new(LifecycleEvent {
                    event_id: Uuid::new_v4(),
                    timestamp,
                    event_type,
                    vm,
                    destination_host_name: destination.clone().filter(|_| starts),
                });
                Entry { seq, event }
            })
            .collect()
    }

    /// Appends what [`EventLog::prepare`] made, and tells the readers.
    pub fn append(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.next_seq = entry.seq + 1;
            self.newest = entry.event.timestamp;
            // No reader is no error.
            let _ = self.live.send(Arc::clone(&entry.event));
            self.entries.push_back(entry);
        }
        self.trim();
    }

    /// The first sequence number that is kept once `coming` further events are in.
    pub fn first_kept(&self, coming: usize) -> u64 {
        let end = self.next_seq + coming as u64;
        end.saturating_sub(self.capacity as u64)
    }

    /// Timestamp of the newest event, or when the log was opened if that is later.
    pub fn newest(&self) -> OffsetDateTime {
        self.newest
    }

    /// The newest event.
    pub fn last_event_id(&self) -> Option<Uuid> {
        self.entries.back().map(|entry| entry.event.event_id)
    }

    /// The events after `after`; see [`Feed`].
    pub fn follow(&self, after: Option<Uuid>) -> Feed {
        let live = self.live.subscribe();
        let known = after.map(|id| self.entries.iter().rposition(|e| e.event.event_id == id));
        let (continuity, backlog) = match known {
            None => (Continuity::FromNow, Vec::new()),
            Some(None) => (Continuity::Broken, Vec::new()),
            Some(Some(at)) => (Continuity::Resumed, self.events_from(at + 1)),
        };
        Feed {
            continuity,
            backlog,
            live,
        }
    }

    fn events_from(&self, first: usize) -> Vec<Arc<LifecycleEvent>> {
        let entries = self.entries.iter().skip(first);
        entries.map(|entry| Arc::clone(&entry.event)).collect()
    }

    fn trim(&mut self) {
        let surplus = self.entries.len().saturating_sub(self.capacity);
        self.entries.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::types::VmStatus;

    fn step() -> (EventType, VmState) {
        let vm = VmState {
            vm_name: "vm".into(),
            vm_uuid: Uuid::new_v4(),
            vm_status: VmStatus::Stop,
            host_name: "h".into(),
            host_uuid: Uuid::nil(),
            vnic_list: vec![],
        };
        (EventType::VmCreated, vm)
    }

    fn filled(capacity: usize, events: usize) -> (EventLog, Vec<Uuid>) {
        let now = OffsetDateTime::UNIX_EPOCH;
        let mut log = EventLog::new(vec![], capacity, 8, now);
        let mut ids = vec![];
        for _ in 0..events {
            let entries = log.prepare(vec![step()], None, now);
            ids.push(entries[0].event.event_id);
            log.append(entries);
        }
        (log, ids)
    }

    #[test]
    fn a_reader_resumes_after_the_event_it_names() {
        let (mut log, ids) = filled(4, 4);
        let mut feed = log.follow(Some(ids[1]));
        assert_eq!(feed.continuity, Continuity::Resumed);
        let backlog: Vec<Uuid> = feed.backlog.iter().map(|event| event.event_id).collect();
        assert_eq!(backlog, ids[2..]);

        let entries = log.prepare(vec![step()], None, OffsetDateTime::UNIX_EPOCH);
        let id = entries[0].event.event_id;
        log.append(entries);
        assert_eq!(feed.live.try_recv().unwrap().event_id, id);
        assert_eq!(log.follow(Some(ids[0])).continuity, Continuity::Broken);
        assert_eq!(log.follow(None).continuity, Continuity::FromNow);
        assert!(log.follow(Some(id)).backlog.is_empty());
    }

    #[test]
    fn timestamps_rise_though_the_clock_stands_or_goes_back() {
        let (log, _) = filled(4, 4);
        let times: Vec<_> = log.entries.iter().map(|e| e.event.timestamp).collect();
        assert!(times.is_sorted_by(|a, b| a < b));
        let saved: Vec<Entry> = log.entries.iter().cloned().collect();
        let earlier = OffsetDateTime::UNIX_EPOCH - Duration::days(1);
        let again = EventLog::new(saved, 4, 8, earlier);
        let next = again.prepare(vec![step(), step()], None, earlier);
        assert!(next[0].event.timestamp > times[3]);
        assert!(next[1].event.timestamp > next[0].event.timestamp);
        assert_eq!((next[0].seq, next[1].seq), (4, 5));
        assert_eq!(again.first_kept(2), 2);
    }

    #[test]
    fn the_start_of_a_live_migration_tells_where_it_leads() {
        let (log, _) = filled(4, 0);
        let (_, vm) = step();
        let kinds = [EventType::LiveMigrateStart, EventType::LiveMigrateFinish];
        let steps = kinds.map(|kind| (kind, vm.clone())).to_vec();
        let entries = log.prepare(steps, Some("b".into()), OffsetDateTime::UNIX_EPOCH);
        let told = entries
            .iter()
            .map(|e| e.event.destination_host_name.as_deref());
        assert_eq!(told.collect::<Vec<_>>(), [Some("b"), None]);
        let written = serde_json::to_value(&*entries[1].event).unwrap();
        assert!(written.get("destination_host_name").is_none());
    }
}
