//! `GET /v1/events`: the newest lifecycle events, as a list or followed.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State as Shared};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_stream::wrappers::BroadcastStream;

use super::{Asked, Failure};
use crate::events::recent::Seen;
use crate::northbound::Api;
use crate::northbound::routes::{Operation, Routes, Verb};

/// Between two comments on a stream without events.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The request's parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// Whether to go on with events as they come (Server-Sent Events).
    #[serde(default)]
    follow: bool,
}

/// The body of an answer that does not follow.
#[derive(Debug, Serialize)]
struct Events<'a> {
    events: Vec<&'a Seen>,
}

pub(super) fn routes(routes: Routes) -> Routes {
    let about = Operation::new("events", "The newest VM lifecycle events")
        .query("follow", "true: go on as Server-Sent Events")
        .answer(200, super::reference("Events"))
        .errors(&[400]);
    routes.add(Verb::Get, "/v1/events", about, list)
}

pub(super) fn schemas() -> Vec<(String, Value)> {
    let event = json!({"type": "object", "description": "TABLE II of the paper, with manager and outcome."});
    let list = json!({"type": "object", "properties": {
        "events": {"type": "array", "items": event},
    }});
    vec![("Events".to_owned(), list)]
}

/// Lists the events, and follows them if asked to.
async fn list(
    Shared(api): Shared<Api>,
    parameters: Asked<Parameters>,
) -> Result<Response, Failure> {
    let Query(parameters) = parameters?;
    let (kept, coming) = api.fabric.recent().watch();
    if !parameters.follow {
        let events = kept.iter().map(|seen| &**seen).collect();
        return Ok(Json(Events { events }).into_response());
    }
    // One who lags too far behind misses events; the list has the newest.
    let coming = BroadcastStream::new(coming).filter_map(|seen| async { seen.ok() });
    let kept: Vec<Weak<Seen>> = kept.iter().map(Arc::downgrade).collect();
    let events = encode(stream::iter(kept).chain(coming));
    let keep_alive = KeepAlive::new().interval(HEARTBEAT);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

fn encode(events: impl Stream<Item = Weak<Seen>>) -> impl Stream<Item = Result<Event, Infallible>> {
    events.filter_map(|seen| async move {
        let seen = seen.upgrade()?;
        let event = Event::default()
            .id(seen.event.event_id.to_string())
            .event(seen.event.event_type.name());
        event.json_data(&*seen).ok().map(Ok)
    })
}
