//! The REST interface of the back end for libvirt.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/port-groups` `{"port_id":"…","segmentation_id":101}` or `{"trunk":true}` | 201 and the port group, 200 if it was there |
//! | `GET /v1/port-groups` | `{"port_groups":[…]}`: those of ports, and the trunk's; foreign ones are not shown |
//! | `DELETE /v1/port-groups/{pg_name}` | 204, also if it was not there; 409 while a VM has a vNIC in it |
//! | `GET /v1/hosts` | `{"hosts":[…]}`: which are connected, and why others are not |
//!
//! A port group, with the names of TABLE II:
//!
//! ```json
//! {"pg_name": "3f2b…_101", "pg_uuid": "…", "port_id": "3f2b…",
//!  "port_segmentation_id": 101, "hosts": ["hv-a", "hv-b"]}
//! ```
//!
//! `hosts` are those that have it. A host that is not connected gets it when it is. To
//! delete one, all hosts have to be connected. If one fails after that, the deletion has
//! begun, and goes on when the host can be asked again, unless the port group is asked for
//! again; until then it is listed.
//!
//! Errors: 400 for what is malformed or not ours, 409 for what contradicts what is
//! there, 503 if a host does not do it; each as `{"error": "reason"}`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use nve_protocol::Vlan;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Libvirt;
use super::port_groups::{Group, GroupError, PortGroups};
use crate::http::api::{Failure, JsonBody};

/// The routes, without authentication.
pub fn router(backend: Arc<Libvirt>) -> Router {
    Router::new()
        .route("/v1/port-groups", get(list).post(create))
        .route("/v1/port-groups/{pg_name}", delete(remove))
        .route("/v1/hosts", get(hosts))
        .with_state(backend)
}

/// Which port group is wanted.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum GroupRequest {
    OfPort {
        port_id: Uuid,
        segmentation_id: Vlan,
    },
    Trunk {
        trunk: bool,
    },
}

/// A host as it is answered.
#[derive(Debug, Serialize)]
struct HostShown {
    uri: String,
    host_name: Option<String>,
    host_uuid: Option<Uuid>,
    /// Absent while it is not connected.
    #[serde(with = "time::serde::rfc3339::option")]
    connected_since: Option<OffsetDateTime>,
    last_error: Option<String>,
}

type Answer = Result<Response, Failure>;

async fn create(
    State(backend): State<Arc<Libvirt>>,
    JsonBody(request): JsonBody<GroupRequest>,
) -> Answer {
    let group = match request {
        GroupRequest::OfPort {
            port_id,
            segmentation_id,
        } => PortGroups::of_port(port_id, segmentation_id),
        GroupRequest::Trunk { trunk: true } => backend.port_groups.trunk(),
        GroupRequest::Trunk { trunk: false } => {
            return Err(Failure::bad_request("trunk can only be true"));
        }
    };
    let (shown, is_new) = work(backend, move |backend| {
        backend.port_groups.create(&backend.links, &group)
    })
    .await?;
    let status = match is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, Json(shown)).into_response())
}

async fn list(State(backend): State<Arc<Libvirt>>) -> Answer {
    let list = |backend: &Libvirt| backend.port_groups.list(&backend.links);
    let groups = work(backend, list).await?;
    Ok(Json(json!({ "port_groups": groups })).into_response())
}

async fn remove(State(backend): State<Arc<Libvirt>>, Path(pg_name): Path<String>) -> Answer {
    let group: Group = backend.port_groups.parse(&pg_name)?;
    work(backend, move |backend| {
        backend.port_groups.delete(&backend.links, &group)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn hosts(State(backend): State<Arc<Libvirt>>) -> Response {
    let hosts = backend.links.iter().map(|link| {
        let up = link.up();
        HostShown {
            uri: link.config.uri.clone(),
            host_name: up.as_ref().map(|up| up.host.name.clone()),
            host_uuid: up.as_ref().map(|up| up.host.uuid),
            connected_since: up.map(|up| up.since),
            last_error: link.last_error(),
        }
    });
    Json(json!({ "hosts": hosts.collect::<Vec<_>>() })).into_response()
}

/// Calls of libvirt on a thread that may wait for them. Only so many may, or hosts that do
/// not answer would take all threads.
async fn work<T: Send + 'static>(
    backend: Arc<Libvirt>,
    work: impl FnOnce(&Libvirt) -> Result<T, GroupError> + Send + 'static,
) -> Result<T, Failure> {
    let permit = Arc::clone(&backend.calls)
        .try_acquire_owned()
        .map_err(|_| Failure::unavailable("too many requests wait for hosts: try again"))?;
    // The call goes on, and keeps its permit, when nobody waits for the answer any more.
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work(&backend)
    })
    .await;
    Ok(done.map_err(Failure::unavailable)??)
}

impl From<GroupError> for Failure {
    fn from(error: GroupError) -> Self {
        let status = match &error {
            GroupError::Invalid(_) => StatusCode::BAD_REQUEST,
            GroupError::Conflict(_) => StatusCode::CONFLICT,
            GroupError::Unavailable(_) | GroupError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failure {
            status,
            reason: error.to_string(),
        }
    }
}
