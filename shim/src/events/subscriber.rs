//! Follows one hypervisor manager.
//!
//! Each connection goes: register all event types (TABLE I), list the inventory,
//! open the stream from after the last event that the inventory contains. The
//! inventory is listed again at each reconnect, at intervals, and when the manager
//! cannot resume or sends what cannot be read: so a lost event delays, and does
//! not corrupt. A VM in it that cannot be read is skipped, and so is such an event, so
//! that one does not stop the others. Silence for longer than the heartbeats allow ends the connection.
//!
//! What the paper does not have, a manager may not have either: without an inventory
//! the stream alone tells, from the last event that was taken; without heartbeats
//! another request finds out whether the manager lives. The status says what is missing.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use hyper::body::Incoming;
use serde_json::json;
use sse_core::MessageEvent;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::messages::{Messages, Sign, StreamEnd};
use super::status::{self, StatusHandle};
use super::types::{EventType, Inventory, LifecycleEvent, Unread};
use super::{EventSink, SinkError};
use crate::auth::Credentials;
use crate::http::client::{Client, ClientError};

/// Name of the message with which a manager says that it cannot resume.
const RESET: &str = "reset";

/// Names of what managers may do without, in the status.
const INVENTORY: &str = "inventory";
const HEARTBEAT: &str = "heartbeat";
const CLIENT_HEARTBEAT: &str = "client_heartbeat";
const RESUME: &str = "resume";

/// Events of a connection that are remembered to know duplicates by.
const REMEMBERED: usize = 1024;

/// Of an inventory's VMs that cannot be read, those that the log tells of.
const LOGGED: usize = 5;

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
    /// From a `vmdeleted` to the inventory that confirms it, and others with it.
    pub confirm: Duration,
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
            confirm: Duration::from_secs(5),
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
    heartbeats: Heartbeats,
}

/// Whether a manager sends heartbeats. The first comment is a promise of more; one
/// that is not kept twice is taken for a mere greeting.
#[derive(Debug, Default)]
struct Heartbeats {
    expected: AtomicBool,
    greetings: AtomicU32,
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
            heartbeats: Heartbeats::default(),
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
        let connections = self.status.change(|status| {
            status.connections += 1;
            status.connections
        });
        for kind in EventType::ALL {
            self.register(kind).await?;
        }
        let after = self.relist(true).await?;
        if connections > 1 {
            self.status.change(|status| status.resyncs += 1);
        }
        let after = after.map(|after| after.to_string());
        let body = self.client.stream("/v1/events", after).await?;
        self.status.change(|status| {
            status.connected_since = Some(OffsetDateTime::now_utc());
            status.last_error = None;
        });
        tracing::info!(
            manager = self.name,
            url = self.client.url(),
            "following events"
        );
        tokio::select! {
            ended = self.follow(Messages::new(body, self.timing.dead_after)) => ended,
            ended = self.beat() => ended,
        }
    }

    /// Registers a type. That a manager does not know one is no reason to do without
    /// the others: what it would have told comes with the inventory.
    async fn register(&self, kind: EventType) -> Result<(), Ended> {
        let body = json!({ "eventType": kind });
        let feature = format!("event_type:{kind}");
        match self.client.post("/v1/registrations", &body).await {
            Err(error @ ClientError::Status { status, .. })
                if status == StatusCode::BAD_REQUEST =>
            {
                tracing::warn!(manager = self.name, "not registered: {error}");
                self.status.has(&feature, false);
                Ok(())
            }
            answer => {
                self.status.has(&feature, true);
                Ok(answer?)
            }
        }
    }

    /// Lists the inventory, if the manager has one, and returns the event after which
    /// the stream is to go on. `is_gap`: events before it may have been missed.
    async fn relist(&self, is_gap: bool) -> Result<Option<Uuid>, Ended> {
        let inventory: Inventory = match self.client.get("/v1/inventory").await {
            Err(error) if is_unknown(&error) => {
                self.status.has(INVENTORY, false);
                return Ok(self.sink.cursor(&self.name).await);
            }
            answer => answer?,
        };
        let last = inventory.last_event_id;
        self.skip(&inventory.unread);
        self.sink.inventory(&self.name, inventory, is_gap).await?;
        self.status.has(INVENTORY, true);
        self.status.change(|status| status.inventories += 1);
        // The nil id is none that a manager has: it makes the manager answer with a
        // reset, so that an event between listing and following is not missed.
        Ok(Some(last.unwrap_or(Uuid::nil())))
    }

    /// Tells of the VMs of an inventory that cannot be read.
    fn skip(&self, unread: &[Unread]) {
        for Unread { vm_uuid, reason } in unread.iter().take(LOGGED) {
            let manager = &self.name;
            tracing::warn!(manager, vm = ?vm_uuid, "a VM of the inventory is skipped: {reason}");
        }
        if unread.len() > LOGGED {
            let vms = unread.len();
            tracing::warn!(manager = self.name, vms, "there are more such VMs");
        }
        self.status
            .change(|status| status.unread_vms = unread.len() as u64);
    }

    /// Sends heartbeats, so that the manager knows a dead peer.
    async fn beat(&self) -> Result<Infallible, Ended> {
        loop {
            sleep(self.timing.dead_after / 3).await;
            match self.client.post("/v1/heartbeats", &()).await {
                Err(error) if is_unknown(&error) => {
                    self.status.has(CLIENT_HEARTBEAT, false);
                    std::future::pending::<()>().await;
                }
                answer => answer?,
            }
            self.status.has(CLIENT_HEARTBEAT, true);
        }
    }

    async fn follow(&self, mut messages: Messages<Incoming>) -> Result<Infallible, Ended> {
        let mut taken = Taken::default();
        let mut comments = 0;
        let mut idle = true;
        let mut missed = false;
        let mut repair_at = Instant::now();
        let mut relist_at = repair_at + self.timing.relist;
        loop {
            if Instant::now() >= relist_at {
                self.relist(missed).await?;
                let resyncs = u64::from(std::mem::take(&mut missed));
                self.status.change(|status| status.resyncs += resyncs);
                repair_at = Instant::now() + self.timing.repair;
                relist_at = Instant::now() + self.timing.relist;
            }
            let sign = match timeout_at(relist_at, messages.next()).await {
                Err(_) => continue,
                Ok(Err(StreamEnd::Silent(_))) if !self.heartbeats.are_expected() => {
                    self.status.has(HEARTBEAT, false);
                    // What is registered already proves that the manager lives.
                    self.register(EventType::VmPowerOn).await?;
                    continue;
                }
                Ok(Err(StreamEnd::Silent(patience))) => {
                    if idle && comments <= 1 {
                        self.heartbeats.was_greeting();
                    }
                    return Err(StreamEnd::Silent(patience).into());
                }
                Ok(sign) => sign?,
            };
            idle &= !matches!(sign, Sign::Message(_));
            let next = match sign {
                Sign::Life => Next::Nothing,
                Sign::Heartbeat => {
                    comments += 1;
                    self.heard(comments);
                    Next::Nothing
                }
                Sign::Message(message) if &*message.event == RESET => Next::Repair,
                Sign::Message(message) => self.take(&message, &mut taken).await?,
                Sign::TooLarge => self.malformed(&"it is too large"),
            };
            match next {
                Next::Nothing => {}
                Next::Repair => {
                    missed = true;
                    relist_at = relist_at.min(repair_at);
                }
                Next::Confirm => {
                    relist_at = relist_at.min(Instant::now() + self.timing.confirm);
                }
            }
        }
    }

    /// Takes the so many-eth heartbeat of a connection.
    fn heard(&self, count: u32) {
        self.status
            .change(|status| status.last_heartbeat_at = Some(OffsetDateTime::now_utc()));
        if self.heartbeats.heard(count) {
            self.status.has(HEARTBEAT, true);
        }
    }

    /// Takes a message, and tells what is to be done then.
    async fn take(&self, message: &MessageEvent, taken: &mut Taken) -> Result<Next, Ended> {
        let event: LifecycleEvent = match serde_json::from_str(&message.data) {
            Ok(event) => event,
            Err(error) => return Ok(self.malformed(&error)),
        };
        self.status.has(RESUME, message.last_event_id.is_some());
        let kept = status::Taken::of(&event);
        if !taken.is_new(Key::of(&event)) {
            self.status.change(|status| status.duplicates += 1);
            return Ok(Next::Nothing);
        }
        let deleted = event.event_type == EventType::VmDeleted;
        match self.sink.event(&self.name, event).await {
            Ok(()) => {}
            Err(error @ SinkError::Invalid(_)) => return Ok(self.malformed(&error)),
            Err(error) => return Err(error.into()),
        }
        self.status.change(|status| status.count(&kept));
        match deleted {
            true => Ok(Next::Confirm),
            false => Ok(Next::Nothing),
        }
    }

    fn malformed(&self, error: &dyn std::fmt::Display) -> Next {
        tracing::warn!(manager = self.name, "a message is skipped: {error}");
        self.status.change(|status| status.malformed += 1);
        Next::Repair
    }
}

impl Heartbeats {
    /// Connections in a row whose only heartbeat was a greeting, before it is taken
    /// for one.
    const GREETINGS: u32 = 2;

    /// Takes a connection's so many-eth; tells whether more are expected.
    fn heard(&self, count: u32) -> bool {
        if count > 1 {
            self.greetings.store(0, Ordering::Relaxed);
        }
        let expected = self.greetings.load(Ordering::Relaxed) < Self::GREETINGS;
        self.expected.store(expected, Ordering::Relaxed);
        expected
    }

    /// A connection was silent after its first comment, and nothing else came on it.
    fn was_greeting(&self) {
        self.greetings.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether silence is death.
    fn are_expected(&self) -> bool {
        self.expected.load(Ordering::Relaxed)
    }
}

/// What a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Nothing,
    /// Something was missed: list the inventory as soon as may be.
    Repair,
    /// A VM is gone if the inventory says so too.
    Confirm,
}

/// Whether the manager has no such path.
fn is_unknown(error: &ClientError) -> bool {
    const ANSWERS: [StatusCode; 3] = [
        StatusCode::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::NOT_IMPLEMENTED,
    ];
    matches!(error, ClientError::Status { status, .. } if ANSWERS.contains(status))
}

/// What makes an event another one. Managers may use an id again, or have none but nil;
/// one that is taken twice does no harm, one that is not taken does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    id: Uuid,
    timestamp: OffsetDateTime,
    kind: EventType,
    vm: Uuid,
}

impl Key {
    fn of(event: &LifecycleEvent) -> Key {
        Key {
            id: event.event_id,
            timestamp: event.timestamp,
            kind: event.event_type,
            vm: event.vm.vm_uuid,
        }
    }
}

/// The newest events of a connection.
#[derive(Debug, Default)]
struct Taken {
    order: VecDeque<Key>,
    keys: HashSet<Key>,
}

impl Taken {
    /// Whether the event has not come yet; it has from now on.
    fn is_new(&mut self, key: Key) -> bool {
        if !self.keys.insert(key) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        true
    }
}
