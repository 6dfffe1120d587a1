//! The long connection: events as they happen, as Server-Sent Events.
//!
//! Invariants: a connection holds at most the log's length plus the channel's
//! capacity of shared events; a client that reads slower than that is cut off, and
//! resumes with `Last-Event-ID`; so is one whose heartbeats stop; only the types that
//! its user has registered at that moment are sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;

use super::backend::{Continuity, Feed};
use super::heartbeats::Heartbeats;
use super::registrations::Registrations;
use crate::events::types::LifecycleEvent;

/// Name of the message that tells a client to list the inventory.
pub const RESET: &str = "reset";

/// Who reads a connection.
pub struct Reader {
    /// Its user.
    pub user: String,
    /// What users have registered.
    pub registrations: Arc<Registrations>,
    /// Whether it lives.
    pub heartbeats: Arc<Heartbeats>,
}

struct Follower {
    reader: Reader,
    since: Instant,
    /// The first message, if there is something to say.
    greeting: Option<Event>,
    backlog: VecDeque<Arc<LifecycleEvent>>,
    live: broadcast::Receiver<Arc<LifecycleEvent>>,
    _permit: OwnedSemaphorePermit,
}

/// The answer that sends `feed` until the client leaves, is too slow or falls silent.
pub fn respond(
    reader: Reader,
    permit: OwnedSemaphorePermit,
    feed: Feed,
    heartbeat: Duration,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let greeting = match feed.continuity {
        // Sent at once, so that the client knows that it is being served.
        Continuity::FromNow | Continuity::Resumed => Event::default().comment("following"),
        Continuity::Broken => Event::default().event(RESET).data(
            r#"{"reason":"the event to resume after is unknown or too old: list the inventory"}"#,
        ),
    };
    let follower = Follower {
        reader,
        since: Instant::now(),
        greeting: Some(greeting),
        backlog: feed.backlog.into(),
        live: feed.live,
        _permit: permit,
    };
    let messages = futures_util::stream::unfold(follower, |mut follower| async move {
        let message = follower.next().await?;
        Some((Ok(message), follower))
    });
    Sse::new(messages).keep_alive(KeepAlive::new().interval(heartbeat).text("heartbeat"))
}

impl Follower {
    /// The next message; `None` ends the connection.
    async fn next(&mut self) -> Option<Event> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        loop {
            let event = match self.backlog.pop_front() {
                Some(event) => event,
                None => self.receive().await?,
            };
            let Reader {
                user,
                registrations,
                ..
            } = &self.reader;
            if registrations.contain(user, event.event_type) {
                return message(&event);
            }
        }
    }

    async fn receive(&mut self) -> Option<Arc<LifecycleEvent>> {
        let Reader {
            user, heartbeats, ..
        } = &self.reader;
        let received = tokio::select! {
            received = self.live.recv() => received,
            () = heartbeats.lost(user, self.since) => {
                tracing::warn!(user, "client whose heartbeats stopped is cut off");
                return None;
            }
        };
        match received {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(events)) => {
                tracing::warn!(user, events, "slow client is cut off");
                None
            }
            Err(RecvError::Closed) => None,
        }
    }
}

fn message(event: &LifecycleEvent) -> Option<Event> {
    Event::default()
        .id(event.event_id.to_string())
        .event(event.event_type.name())
        .json_data(event)
        .ok()
}
