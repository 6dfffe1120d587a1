//! The lab's own REST interface.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/lab/vms` [`VmRequest`] | 201 and the VM; vmcreated, and vmpoweron with `"power_on":true` |
//! | `GET /v1/lab/vms` | `{"vms":[…]}`, as in TABLE II |
//! | `GET /v1/lab/vms/{uuid}` | the VM |
//! | `DELETE /v1/lab/vms/{uuid}` | 204; vmpoweroff if it runs, vmdeleted |
//! | `POST /v1/lab/vms/{uuid}/power-on` | the VM; vmpoweron unless it runs |
//! | `POST /v1/lab/vms/{uuid}/power-off` | the VM; vmpoweroff unless it is off |
//! | `POST /v1/lab/vms/{uuid}/move` [`MoveRequest`] | the VM; start and finish of a live or cold migration |
//! | `POST /v1/lab/vms/{uuid}/fail-over` [`HostRequest`] | the VM; hafinish |
//! | `POST /v1/lab/vms/{uuid}/vnics` [`VnicRequest`] | 201 and the VM; vifattach |
//! | `DELETE /v1/lab/vms/{uuid}/vnics/{vnic_uuid}` | 204; vifdetach |
//!
//! A `VmRequest`, with the least that a vNIC needs:
//!
//! ```json
//! {"vm_name": "vm1", "host_name": "hv1", "power_on": true, "vnic_list": [
//!   {"pg_name": "3f2b…_101", "mac": "02:00:00:00:00:01", "port_segmentation_id": 101,
//!    "ip_list": [{"ip": "10.0.0.11"}]}]}
//! ```
//!
//! Errors: 400 for what is malformed, 404 for an unknown VM or vNIC, 409 for what
//! collides with the lab's state; each as `{"error": "reason"}`, and nothing changes.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::json;
use uuid::Uuid;

use super::plan::{self, HostRequest, Hosts, MoveRequest, Refusal, VmRequest, VnicRequest};
use super::{Change, Lab, LabError, Vms};
use crate::events::types::{VmState, VmStatus};
use crate::http::api::{Failure, JsonBody};

/// The routes, without authentication.
pub fn router(lab: Arc<Lab>) -> Router {
    Router::new()
        .route("/v1/lab/vms", get(list).post(define))
        .route("/v1/lab/vms/{uuid}", get(show).delete(remove))
        .route("/v1/lab/vms/{uuid}/power-on", post(power_on))
        .route("/v1/lab/vms/{uuid}/power-off", post(power_off))
        .route("/v1/lab/vms/{uuid}/move", post(migrate))
        .route("/v1/lab/vms/{uuid}/fail-over", post(fail_over))
        .route("/v1/lab/vms/{uuid}/vnics", post(attach))
        .route("/v1/lab/vms/{uuid}/vnics/{vnic_uuid}", delete(detach))
        .with_state(lab)
}

type Answer = Result<Response, Failure>;

async fn list(State(lab): State<Arc<Lab>>) -> Response {
    Json(json!({ "vms": lab.vms() })).into_response()
}

async fn show(State(lab): State<Arc<Lab>>, Path(uuid): Path<String>) -> Answer {
    let vm = lab.vm(parse(&uuid)?).map_err(LabError::from)?;
    Ok(Json(vm).into_response())
}

async fn define(State(lab): State<Arc<Lab>>, JsonBody(request): JsonBody<VmRequest>) -> Answer {
    let vm = change(lab, |hosts, vms| plan::define(hosts, vms, request)).await?;
    Ok((StatusCode::CREATED, Json(vm)).into_response())
}

async fn remove(State(lab): State<Arc<Lab>>, Path(uuid): Path<String>) -> Answer {
    let uuid = parse(&uuid)?;
    change(lab, move |_, vms| plan::delete(vms, uuid)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn power_on(State(lab): State<Arc<Lab>>, Path(uuid): Path<String>) -> Answer {
    power(lab, &uuid, VmStatus::Running).await
}

async fn power_off(State(lab): State<Arc<Lab>>, Path(uuid): Path<String>) -> Answer {
    power(lab, &uuid, VmStatus::Stop).await
}

async fn power(lab: Arc<Lab>, uuid: &str, status: VmStatus) -> Answer {
    let uuid = parse(uuid)?;
    let vm = change(lab, move |_, vms| plan::power(vms, uuid, status)).await?;
    Ok(Json(vm).into_response())
}

async fn migrate(
    State(lab): State<Arc<Lab>>,
    Path(uuid): Path<String>,
    JsonBody(request): JsonBody<MoveRequest>,
) -> Answer {
    let uuid = parse(&uuid)?;
    let plan = move |hosts: &Hosts, vms: &Vms| plan::migrate(hosts, vms, uuid, &request);
    Ok(Json(change(lab, plan).await?).into_response())
}

async fn fail_over(
    State(lab): State<Arc<Lab>>,
    Path(uuid): Path<String>,
    JsonBody(request): JsonBody<HostRequest>,
) -> Answer {
    let uuid = parse(&uuid)?;
    let plan = move |hosts: &Hosts, vms: &Vms| plan::fail_over(hosts, vms, uuid, &request);
    Ok(Json(change(lab, plan).await?).into_response())
}

async fn attach(
    State(lab): State<Arc<Lab>>,
    Path(uuid): Path<String>,
    JsonBody(request): JsonBody<VnicRequest>,
) -> Answer {
    let uuid = parse(&uuid)?;
    let vm = change(lab, move |_, vms| plan::attach(vms, uuid, request)).await?;
    Ok((StatusCode::CREATED, Json(vm)).into_response())
}

async fn detach(State(lab): State<Arc<Lab>>, Path((uuid, vnic)): Path<(String, String)>) -> Answer {
    let (uuid, vnic) = (parse(&uuid)?, parse(&vnic)?);
    change(lab, move |_, vms| plan::detach(vms, uuid, vnic)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Changes the lab on a thread that may wait for the disk.
async fn change(
    lab: Arc<Lab>,
    plan: impl FnOnce(&Hosts, &Vms) -> Result<Change, Refusal> + Send + 'static,
) -> Result<VmState, Failure> {
    let changed = tokio::task::spawn_blocking(move || lab.change(plan)).await;
    Ok(changed.map_err(Failure::unavailable)??)
}

fn parse(uuid: &str) -> Result<Uuid, Failure> {
    Uuid::try_parse(uuid).map_err(|_| Failure::not_found(format!("{uuid:?} is no UUID")))
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        let status = match &error {
            LabError::Refused(Refusal::Invalid(_)) => StatusCode::BAD_REQUEST,
            LabError::Refused(Refusal::NotFound(_)) => StatusCode::NOT_FOUND,
            LabError::Refused(Refusal::Conflict(_)) => StatusCode::CONFLICT,
            LabError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failure {
            status,
            reason: error.to_string(),
        }
    }
}
