//! `/v1/nves`: the NVEs that may connect, and how they are.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use nve_protocol::{DropReason, TableSizes};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Failure, JsonBody, object_id, reference};
use crate::fabric::Fabric;
use crate::intent::nve::{self, NewNve};
use crate::model::Nve;
use crate::northbound::Api;
use crate::northbound::extract::Params;
use crate::northbound::routes::{Operation, Routes, Verb};
use crate::southbound::NveStatus;

pub(super) fn routes(routes: Routes) -> Routes {
    let about = |summary: &str| Operation::new("NVEs", summary);
    let list_schema = json!({"type": "object", "properties": {"nves": {"type": "array", "items": reference("Nve")}}});
    routes
        .add(
            Verb::Get,
            "/v1/nves",
            about("List NVEs").answer(200, list_schema),
            list,
        )
        .add(
            Verb::Post,
            "/v1/nves",
            about("Register an NVE")
                .body(reference("NewNve"))
                .answer(201, reference("Nve"))
                .errors(&[400, 409]),
            create,
        )
        .add(
            Verb::Get,
            "/v1/nves/{id}",
            about("Show an NVE")
                .answer(200, reference("Nve"))
                .errors(&[404]),
            show,
        )
        .add(
            Verb::Delete,
            "/v1/nves/{id}",
            about("Remove an NVE").errors(&[404]),
            delete,
        )
}

pub(super) fn schemas() -> Vec<(String, Value)> {
    let uuid = json!({"type": "string", "format": "uuid"});
    let name = json!({"type": "string", "minLength": 1, "maxLength": 255});
    let properties = json!({
        "id": uuid,
        "name": name,
        "host_name": name,
        "host_uuid": {"oneOf": [uuid, {"type": "null"}]},
        "vtep": {"type": "string", "examples": ["192.0.2.11"]},
        "public_key": {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"},
    });
    let mut new = json!({"type": "object", "properties": properties});
    let mut nve = new.clone();
    nve["properties"]["state"] = json!({"enum": ["connected", "disconnected"]});
    for key in [
        "desired",
        "drops",
        "connection",
        "image",
        "last_applied",
        "last_stats",
        "counts",
    ] {
        nve["properties"][key] = json!({"type": "object"});
    }
    new["required"] = json!(["name", "host_name", "vtep", "public_key"]);
    new["additionalProperties"] = json!(false);
    vec![("Nve".to_owned(), nve), ("NewNve".to_owned(), new)]
}

/// An NVE with its run-time state.
#[derive(Debug, Serialize)]
struct View {
    #[serde(flatten)]
    nve: Nve,
    /// `connected` or `disconnected`.
    state: &'static str,
    /// Records that the NVE should have.
    desired: TableSizes,
    /// Frames dropped, by reason; reasons that did not occur are left out.
    drops: BTreeMap<&'static str, u64>,
    #[serde(flatten)]
    status: NveStatus,
}

fn view(fabric: &Fabric, nve: &Nve) -> View {
    let status = fabric.registry().status(nve.id).unwrap_or_default();
    let desired = fabric.desired_tables(nve.id).map(|tables| tables.sizes());
    let names = DropReason::ALL.iter().map(|reason| reason.name());
    let counters = status
        .last_stats
        .iter()
        .flat_map(|last| names.clone().zip(last.stats.drops));
    View {
        nve: nve.clone(),
        state: match status.connection {
            Some(_) => "connected",
            None => "disconnected",
        },
        desired: desired.unwrap_or_default(),
        drops: counters.filter(|(_, count)| *count > 0).collect(),
        status,
    }
}

async fn list(State(api): State<Api>) -> Json<Value> {
    let state = api.controller.snapshot();
    let nves: Vec<View> = state.nves().map(|nve| view(&api.fabric, nve)).collect();
    Json(json!({"nves": nves}))
}

async fn show(State(api): State<Api>, Params(id): Params<String>) -> Result<Json<View>, Failure> {
    let id = object_id("NVE", id)?;
    let found = api.controller.read(|state| nve::find(state, id).cloned())?;
    Ok(Json(view(&api.fabric, &found)))
}

async fn create(
    State(api): State<Api>,
    JsonBody(request): JsonBody<NewNve>,
) -> Result<(StatusCode, Json<View>), Failure> {
    let controller = api.controller.clone();
    let made = api
        .controller
        .transact(move |state| {
            nve::create(state, controller.context(), request).map_err(Failure::from)
        })
        .await?;
    tracing::info!(id = %made.id, name = made.name, vtep = %made.vtep, "NVE registered");
    Ok((StatusCode::CREATED, Json(view(&api.fabric, &made))))
}

async fn delete(State(api): State<Api>, Params(id): Params<String>) -> Result<StatusCode, Failure> {
    let id = object_id("NVE", id)?;
    api.controller
        .transact(move |state| nve::delete(state, id).map_err(Failure::from))
        .await?;
    tracing::info!(%id, "NVE removed");
    Ok(StatusCode::NO_CONTENT)
}
