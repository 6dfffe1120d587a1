//! The long connection: events as they happen, as Server-Sent Events.
//!
//! Invariants: a connection holds at most the log's length plus the channel's
//! capacity of shared events; a client that reads slower than that is cut off, and
//! resumes with `Last-Event-ID`; only the types that its user has registered at that
//! moment are sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{self, error::RecvError};

use super::backend::{Continuity, Feed};
use super::registrations::Registrations;
use crate::events::types::LifecycleEvent;

/// Name of the message that tells a client to list the inventory.
pub const RESET: &str = "reset";

struct Follower {
    user: String,
    registrations: Arc<Registrations>,
    /// The first message, if there is something to say.
    greeting: Option<Event>,
    backlog: VecDeque<Arc<LifecycleEvent>>,
    live: broadcast::Receiver<Arc<LifecycleEvent>>,
    _permit: OwnedSemaphorePermit,
}

/// The answer that sends `feed` to `user` until the client leaves or is too slow.
pub fn respond(
    user: String,
    feed: Feed,
    registrations: Arc<Registrations>,
    heartbeat: Duration,
    permit: OwnedSemaphorePermit,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let greeting = match feed.continuity {
        // Sent at once, so that the client knows that it is being served.
        Continuity::FromNow | Continuity::Resumed => Event::default().comment("following"),
        Continuity::Broken => Event::default().event(RESET).data(
            r#"{"reason":"the event to resume after is unknown or too old: list the inventory"}"#,
        ),
    };
    let follower = Follower {
        user,
        registrations,
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
            if self.registrations.contain(&self.user, event.event_type) {
                return message(&event);
            }
        }
    }

    async fn receive(&mut self) -> Option<Arc<LifecycleEvent>> {
        match self.live.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(events)) => {
                tracing::warn!(user = self.user, events, "slow client is cut off");
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
