//! Follows one hypervisor manager.
//!
//! Each connection goes: register all event types (TABLE I), list the inventory,
//! open the stream from after the last event that the inventory contains. The
//! inventory is listed again at each reconnect, at intervals, and when the manager
//! cannot resume or sends what cannot be read: so a lost event delays, and does
//! not corrupt. Silence for longer than the heartbeats allow ends the connection.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::json;
use sse_core::{MessageEvent, SseDecoder, SseEvent};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use uuid::Uuid;

use super::types::{EventType, Inventory, LifecycleEvent};
use super::{EventSink, SinkError};
use crate::auth::Credentials;
use crate::http::client::{Client, ClientError};

/// Silence after which a connection is given up; managers send a heartbeat every
/// few seconds.
const DEAD_AFTER: Duration = Duration::from_secs(15);
/// Between two inventories while the stream is up.
const RELIST: Duration = Duration::from_secs(60);
/// Before the first reconnect, and the most before any.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Largest event in bytes.
const LARGEST_EVENT: NonZeroUsize = NonZeroUsize::new(1 << 20).expect("not zero");
/// Name of the message with which a manager says that it cannot resume.
const RESET: &str = "reset";

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
    /// Connections begun.
    pub connections: u64,
    /// Events taken.
    pub events: u64,
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

    fn change(&self, change: impl FnOnce(&mut SubscriberStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("{0}")]
    Sink(#[from] SinkError),
    #[error("nothing came for {} s", DEAD_AFTER.as_secs())]
    Silent,
    #[error("the manager ended the stream")]
    Closed,
    #[error("the stream broke: {0}")]
    Broken(String),
}

/// Follows a manager for as long as [`run`](Self::run) is polled.
pub struct Subscriber<S> {
    name: String,
    client: Client,
    sink: S,
    status: StatusHandle,
}

impl<S: EventSink> Subscriber<S> {
    /// A subscriber to the manager `name` at `url`.
    ///
    /// # Errors
    /// When `url` is none.
    pub fn new(
        name: &str,
        url: &str,
        credentials: Credentials,
        sink: S,
    ) -> Result<Self, ClientError> {
        let status = StatusHandle::default();
        status.change(|status| {
            status.name = name.to_owned();
            status.url = url.to_owned();
        });
        let client = Client::new(url, Some(credentials))?;
        Ok(Subscriber {
            name: name.to_owned(),
            client,
            sink,
            status,
        })
    }

    /// For looking at how it goes.
    pub fn status(&self) -> StatusHandle {
        self.status.clone()
    }

    /// Connects, follows and reconnects, for ever.
    pub async fn run(self) {
        let mut wait = BACKOFF.0;
        loop {
            let begun = Instant::now();
            let Err(ended) = self.connection().await;
            if self.status.get().connected_since.is_some() {
                wait = BACKOFF.0;
            }
            tracing::warn!(manager = self.name, "hypervisor manager: {ended}");
            self.status.change(|status| {
                status.connected_since = None;
                status.last_error = Some(ended.to_string());
            });
            // Jitter, so that several shims do not come back at once.
            let jittered = wait.mul_f64(rand::random_range(0.5..1.0));
            tracing::debug!(manager = self.name, lasted = ?begun.elapsed(), ?jittered, "reconnect");
            sleep(jittered).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    async fn connection(&self) -> Result<std::convert::Infallible, Ended> {
        self.status.change(|status| status.connections += 1);
        for kind in EventType::ALL {
            let body = json!({ "eventType": kind });
            self.client.post("/v1/registrations", &body).await?;
        }
        let last = self.relist().await?;
        // The nil id is none that a manager has: it makes the manager answer with a
        // reset, so that an event between listing and following is not missed.
        let after = last.unwrap_or(Uuid::nil());
        let body = self
            .client
            .stream("/v1/events", Some(after.to_string()))
            .await?;
        self.status.change(|status| {
            status.connected_since = Some(OffsetDateTime::now_utc());
            status.last_error = None;
        });
        tracing::info!(
            manager = self.name,
            url = self.client.url(),
            "following events"
        );
        self.follow(Messages::new(body)).await
    }

    /// Lists the inventory and returns the last event that it contains.
    async fn relist(&self) -> Result<Option<Uuid>, Ended> {
        let inventory: Inventory = self.client.get("/v1/inventory").await?;
        let last = inventory.last_event_id;
        self.sink.inventory(&self.name, inventory).await?;
        self.status.change(|status| status.inventories += 1);
        Ok(last)
    }

    async fn follow(&self, mut messages: Messages) -> Result<std::convert::Infallible, Ended> {
        let mut relist_at = Instant::now() + RELIST;
        loop {
            let message = match timeout_at(relist_at, messages.next()).await {
                Ok(message) => message?,
                Err(_) => None,
            };
            let repair = match &message {
                Some(message) => !self.take(message).await?,
                None => Instant::now() >= relist_at,
            };
            if repair {
                self.relist().await?;
                relist_at = Instant::now() + RELIST;
            }
        }
    }

    /// Takes a message; `false` asks for an inventory.
    async fn take(&self, message: &MessageEvent) -> Result<bool, Ended> {
        if &*message.event == RESET {
            return Ok(false);
        }
        let event: LifecycleEvent = match serde_json::from_str(&message.data) {
            Ok(event) => event,
            Err(error) => return Ok(self.malformed(&error)),
        };
        match self.sink.event(&self.name, event).await {
            Ok(()) => {}
            Err(error @ SinkError::Invalid(_)) => return Ok(self.malformed(&error)),
            Err(error) => return Err(error.into()),
        }
        self.status.change(|status| {
            status.events += 1;
            status.last_event_at = Some(OffsetDateTime::now_utc());
        });
        Ok(true)
    }

    fn malformed(&self, error: &dyn std::fmt::Display) -> bool {
        tracing::warn!(manager = self.name, "a message is skipped: {error}");
        self.status.change(|status| status.malformed += 1);
        false
    }
}

/// Takes the stream of an answer apart.
struct Messages {
    body: Incoming,
    decoder: SseDecoder,
    pending: Bytes,
}

impl Messages {
    fn new(body: Incoming) -> Self {
        let decoder = SseDecoder::with_limit(LARGEST_EVENT);
        Messages {
            body,
            decoder,
            pending: Bytes::new(),
        }
    }

    /// The next message, or `None` for another sign of life. Loses nothing when it
    /// is dropped and called again.
    async fn next(&mut self) -> Result<Option<MessageEvent>, Ended> {
        match self.decoder.next(&mut self.pending) {
            Some(Ok(SseEvent::Message(message))) => return Ok(Some(message)),
            Some(Ok(_)) => return Ok(None),
            Some(Err(error)) => return Err(Ended::Broken(error.to_string())),
            None => {}
        }
        let frame = timeout(DEAD_AFTER, self.body.frame())
            .await
            .map_err(|_| Ended::Silent)?;
        let frame = frame
            .ok_or(Ended::Closed)?
            .map_err(|e| Ended::Broken(e.to_string()))?;
        self.pending = frame.into_data().unwrap_or_default();
        Ok(None)
    }
}
