//! Registration, notification and inventory; the same for every back end.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/registrations` `{"eventType":"vmpoweron"}` (TABLE I) | 201 and the same in TABLE I's spelling; 400 for an unknown type |
//! | `DELETE /v1/registrations/{eventType}` | 204, also if it was not registered; 400 for an unknown type |
//! | `GET /v1/registrations` | `{"registrations":[{"eventType":…}]}` of the authenticated user |
//! | `GET /v1/events` | `text/event-stream`: `id:` event_id, `event:` event_type, `data:` TABLE II as JSON; comments as heartbeats; `Last-Event-ID` resumes; `event: reset` first if that is not possible |
//! | `POST /v1/heartbeats` | 204; who sends them and stops has its event connections ended |
//! | `GET /v1/inventory` | [`Inventory`] |

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::backend::Backend;
use super::heartbeats::Heartbeats;
use super::registrations::Registrations;
use super::stream;
use crate::auth::digest::User;
use crate::events::types::{EventType, Inventory};
use crate::http::api::{Failure, JsonBody};

/// Event connections at a time.
const MAX_FOLLOWERS: usize = 64;
/// Heartbeats that a follower may miss.
const MISSED: u32 = 5;

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    backend: Arc<dyn Backend>,
    registrations: Arc<Registrations>,
    heartbeat: Duration,
    heartbeats: Arc<Heartbeats>,
    followers: Arc<Semaphore>,
}

/// The routes, without authentication: they expect a [`User`] extension.
pub fn router(
    backend: Arc<dyn Backend>,
    registrations: Arc<Registrations>,
    heartbeat: Duration,
) -> Router {
    let shared = Shared {
        backend,
        registrations,
        heartbeat,
        heartbeats: Arc::new(Heartbeats::new(heartbeat * MISSED)),
        followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
    };
    Router::new()
        .route("/v1/registrations", get(list).post(register))
        .route("/v1/registrations/{*event_type}", delete(deregister))
        .route("/v1/events", get(follow))
        .route("/v1/heartbeats", post(beat))
        .route("/v1/inventory", get(inventory))
        .with_state(shared)
}

/// TABLE I. The type is text here, so that the answer to an unknown one names it.
#[derive(Debug, Deserialize)]
struct RegistrationBody {
    #[serde(rename = "eventType")]
    event_type: String,
}

#[derive(Debug, Serialize)]
struct Registration {
    #[serde(rename = "eventType")]
    event_type: EventType,
}

async fn list(State(shared): State<Shared>, Extension(user): Extension<User>) -> Response {
    let types = shared.registrations.of(&user.0);
    let registrations: Vec<Registration> = types
        .into_iter()
        .map(|event_type| Registration { event_type })
        .collect();
    Json(json!({ "registrations": registrations })).into_response()
}

async fn register(
    State(shared): State<Shared>,
    Extension(user): Extension<User>,
    JsonBody(body): JsonBody<RegistrationBody>,
) -> Result<Response, Failure> {
    let event_type = body.event_type.parse().map_err(Failure::bad_request)?;
    shared.change(user, event_type, true).await?;
    Ok((StatusCode::CREATED, Json(Registration { event_type })).into_response())
}

async fn deregister(
    State(shared): State<Shared>,
    Extension(user): Extension<User>,
    Path(event_type): Path<String>,
) -> Result<StatusCode, Failure> {
    let event_type = event_type.parse().map_err(Failure::bad_request)?;
    shared.change(user, event_type, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn follow(
    State(shared): State<Shared>,
    Extension(user): Extension<User>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let permit = Arc::clone(&shared.followers)
        .try_acquire_owned()
        .map_err(|_| Failure::unavailable("too many event connections; close some"))?;
    // An id that is no UUID was never given out, which is what the nil UUID says too.
    let after = headers
        .get("last-event-id")
        .map(|id| Uuid::try_parse_ascii(id.as_bytes()).unwrap_or(Uuid::nil()));
    let feed = shared.backend.follow(after);
    let reader = stream::Reader {
        user: user.0,
        registrations: Arc::clone(&shared.registrations),
        heartbeats: Arc::clone(&shared.heartbeats),
    };
    Ok(stream::respond(reader, permit, feed, shared.heartbeat).into_response())
}

async fn beat(State(shared): State<Shared>, Extension(user): Extension<User>) -> StatusCode {
    shared.heartbeats.beat(&user.0);
    StatusCode::NO_CONTENT
}

async fn inventory(State(shared): State<Shared>) -> Json<Inventory> {
    Json(shared.backend.inventory())
}

impl Shared {
    async fn change(&self, user: User, kind: EventType, wanted: bool) -> Result<(), Failure> {
        let registrations = Arc::clone(&self.registrations);
        tokio::task::spawn_blocking(move || registrations.change(&user.0, kind, wanted))
            .await
            .map_err(Failure::unavailable)?
            .map_err(Failure::unavailable)
    }
}
