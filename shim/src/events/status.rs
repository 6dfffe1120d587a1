//! How subscriptions go, for the API and the metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::LifecycleEvent;

/// How the subscription to a manager goes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SubscriberStatus {
    /// The manager's name.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// Since when the stream is up; absent while it is not.
    #[serde(with = "time::serde::rfc3339::option")]
    pub connected_since: Option<OffsetDateTime>,
    /// When the last event came.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_event_at: Option<OffsetDateTime>,
    /// The last event that came.
    pub last_event_id: Option<Uuid>,
    /// When the last heartbeat came.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_heartbeat_at: Option<OffsetDateTime>,
    /// Seconds from the last event's timestamp, by the manager's clock, until it had
    /// been taken.
    pub lag_seconds: Option<f64>,
    /// Connections begun.
    pub connections: u64,
    /// Events taken.
    pub events: u64,
    /// Events taken, by type.
    pub events_by_type: BTreeMap<&'static str, u64>,
    /// Events that had come on the same connection already.
    pub duplicates: u64,
    /// Inventories taken.
    pub inventories: u64,
    /// VMs that the newest inventory has in a form that cannot be read.
    pub unread_vms: u64,
    /// Inventories taken because events may have been missed: after a reconnect, a
    /// reset, or a message that could not be read.
    pub resyncs: u64,
    /// Messages that could not be read or were refused.
    pub malformed: u64,
    /// What the manager does without, of what helps beyond the paper: `inventory`,
    /// `heartbeat`, `client_heartbeat`, `resume`, and `event_type:` with one that it
    /// does not know.
    pub missing: BTreeSet<String>,
    /// Why the last connection ended or failed.
    pub last_error: Option<String>,
}

impl SubscriberStatus {
    pub(super) fn count(&mut self, event: &Taken) {
        let now = OffsetDateTime::now_utc();
        self.events += 1;
        *self.events_by_type.entry(event.kind).or_default() += 1;
        self.last_event_at = Some(now);
        self.last_event_id = Some(event.id);
        self.lag_seconds = Some((now - event.timestamp).as_seconds_f64().max(0.0));
    }
}

/// What the status keeps of an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    id: Uuid,
    kind: &'static str,
    timestamp: OffsetDateTime,
}

impl Taken {
    pub(super) fn of(event: &LifecycleEvent) -> Taken {
        Taken {
            id: event.event_id,
            kind: event.event_type.name(),
            timestamp: event.timestamp,
        }
    }
}

/// Reads and changes a [`SubscriberStatus`].
#[derive(Debug, Clone, Default)]
pub struct StatusHandle(Arc<Mutex<SubscriberStatus>>);

impl StatusHandle {
    /// The status as it is now.
    pub fn get(&self) -> SubscriberStatus {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut SubscriberStatus) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes whether the manager has a feature.
    pub(super) fn has(&self, feature: &str, has: bool) {
        self.change(|status| match has {
            true => drop(status.missing.remove(feature)),
            false => drop(status.missing.insert(feature.to_owned())),
        });
    }
}
