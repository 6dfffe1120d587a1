//! Follows one hypervisor manager.
//!
//! Each connection goes: register all event types (TABLE I), list the inventory,
//! open the stream from after the last event that the inventory contains. The
//! inventory is listed again at each reconnect, at intervals, and when the manager
//! cannot resume or sends what cannot be read: so a lost event delays, and does
//! not corrupt. Silence for longer than the heartbeats allow ends the connection.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::http::StatusCode;
use hyper::body::Incoming;
use serde_json::json;
use sse_core::MessageEvent;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::messages::{Messages, Sign, StreamEnd};
use super::status::StatusHandle;
use super::types::{EventType, Inventory, LifecycleEvent};
use super::{EventSink, SinkError};
use crate::auth::Credentials;
use crate::http::client::{Client, ClientError};

/// Name of the message with which a manager says that it cannot resume.
const RESET: &str = "reset";

/// Event ids of a connection that are remembered to know duplicates by.
const REMEMBERED: usize = 1024;

/// How long a subscriber waits for what.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Silence after which a connection is given up; managers send a heartbeat every
    /// few seconds.
    pub dead_after: Duration,
    /// Between two inventories while the stream is up.
    pub relist: Duration,
    /// The least between an inventory and one that repairs what could not be read, so
    /// that a manager that sends rubbish is not asked without pause.
    pub repair: Duration,
    /// Before the first reconnect; doubles with each one that fails.
    pub backoff: Duration,
    /// The most before any reconnect.
    pub backoff_most: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            dead_after: Duration::from_secs(10),
            relist: Duration::from_secs(60),
            repair: Duration::from_secs(1),
            backoff: Duration::from_millis(200),
            backoff_most: Duration::from_secs(10),
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("{0}")]
    Sink(#[from] SinkError),
    #[error("{0}")]
    Stream(#[from] StreamEnd),
}

/// Follows a manager for as long as [`run`](Self::run) is polled.
pub struct Subscriber<S> {
    name: String,
    client: Client,
    sink: S,
    status: StatusHandle,
    timing: Timing,
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
            timing: Timing::default(),
        })
    }

    /// The same with other waits.
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// For looking at how it goes.
    pub fn status(&self) -> StatusHandle {
        self.status.clone()
    }

    /// Connects, follows and reconnects, for ever.
    pub async fn run(mut self) {
        let mut wait = self.timing.backoff;
        loop {
            let begun = Instant::now();
            let Err(ended) = self.connection().await;
            // One that ends as soon as it is up is no better than one that fails.
            if begun.elapsed() > self.timing.dead_after {
                wait = self.timing.backoff;
            }
            self.client.forget_connections();
            tracing::warn!(manager = self.name, "hypervisor manager: {ended}");
            self.status.change(|status| {
                status.connected_since = None;
                status.last_error = Some(ended.to_string());
            });
            // Jitter, so that several shims do not come back at once.
            sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
            wait = (wait * 2).min(self.timing.backoff_most);
        }
    }

    async fn connection(&self) -> Result<Infallible, Ended> {
        self.status.change(|status| status.connections += 1);
        for kind in EventType::ALL {
            self.register(kind).await?;
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
        self.follow(Messages::new(body, self.timing.dead_after))
            .await
    }

    /// Registers a type. That a manager does not know one is no reason to do without
    /// the others: what it would have told comes with the inventory.
    async fn register(&self, kind: EventType) -> Result<(), Ended> {
        let body = json!({ "eventType": kind });
        match self.client.post("/v1/registrations", &body).await {
            Err(error @ ClientError::Status { status, .. })
                if status == StatusCode::BAD_REQUEST =>
            {
                tracing::warn!(manager = self.name, "not registered: {error}");
                Ok(())
            }
            answer => Ok(answer?),
        }
    }

    /// Lists the inventory and returns the last event that it contains.
    async fn relist(&self) -> Result<Option<Uuid>, Ended> {
        let inventory: Inventory = self.client.get("/v1/inventory").await?;
        let last = inventory.last_event_id;
        self.sink.inventory(&self.name, inventory).await?;
        self.status.change(|status| status.inventories += 1);
        Ok(last)
    }

    async fn follow(&self, mut messages: Messages<Incoming>) -> Result<Infallible, Ended> {
        let mut taken = Taken::default();
        let mut repair_at = Instant::now();
        let mut relist_at = repair_at + self.timing.relist;
        loop {
            if Instant::now() >= relist_at {
                self.relist().await?;
                repair_at = Instant::now() + self.timing.repair;
                relist_at = Instant::now() + self.timing.relist;
            }
            let Ok(sign) = timeout_at(relist_at, messages.next()).await else {
                continue;
            };
            let understood = match sign? {
                Sign::Life => true,
                Sign::Message(message) if &*message.event == RESET => false,
                Sign::Message(message) => self.take(&message, &mut taken).await?,
                Sign::TooLarge => self.malformed(&"it is too large"),
            };
            if !understood {
                relist_at = relist_at.min(repair_at);
            }
        }
    }

    /// Takes a message; `false` if it cannot be understood.
    async fn take(&self, message: &MessageEvent, taken: &mut Taken) -> Result<bool, Ended> {
        let event: LifecycleEvent = match serde_json::from_str(&message.data) {
            Ok(event) => event,
            Err(error) => return Ok(self.malformed(&error)),
        };
        let id = event.event_id;
        if !taken.is_new(id) {
            self.status.change(|status| status.duplicates += 1);
            return Ok(true);
        }
        match self.sink.event(&self.name, event).await {
            Ok(()) => {}
            Err(error @ SinkError::Invalid(_)) => return Ok(self.malformed(&error)),
            Err(error) => return Err(error.into()),
        }
        self.status.change(|status| {
            status.events += 1;
            status.last_event_at = Some(OffsetDateTime::now_utc());
            status.last_event_id = Some(id);
        });
        Ok(true)
    }

    fn malformed(&self, error: &dyn std::fmt::Display) -> bool {
        tracing::warn!(manager = self.name, "a message is skipped: {error}");
        self.status.change(|status| status.malformed += 1);
        false
    }
}

/// The newest event ids of a connection.
#[derive(Debug, Default)]
struct Taken {
    order: VecDeque<Uuid>,
    ids: HashSet<Uuid>,
}

impl Taken {
    /// Whether the id has not come yet; it has from now on.
    fn is_new(&mut self, id: Uuid) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}
