//! How subscriptions go, for the API and the metrics.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

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
    /// Connections begun.
    pub connections: u64,
    /// Events taken.
    pub events: u64,
    /// Events that had come on the same connection already.
    pub duplicates: u64,
    /// Inventories taken.
    pub inventories: u64,
    /// Messages that could not be read or were refused.
    pub malformed: u64,
    /// Why the last connection ended or failed.
    pub last_error: Option<String>,
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

    pub(super) fn change(&self, change: impl FnOnce(&mut SubscriberStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
