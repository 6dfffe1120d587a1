//! `/v1/vteps`: VTEPs that are not NVEs.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Failure, JsonBody, object_id, reference};
use crate::intent::vtep::{self, NewVtep, VtepChange};
use crate::model::Vtep;
use crate::northbound::Api;
use crate::northbound::extract::Params;
use crate::northbound::routes::{Operation, Routes, Verb};

pub(super) fn routes(routes: Routes) -> Routes {
    let about = |summary: &str| Operation::new("VTEPs", summary);
    let list_schema = json!({"type": "object", "properties": {"vteps": {"type": "array", "items": reference("Vtep")}}});
    routes
        .add(
            Verb::Get,
            "/v1/vteps",
            about("List VTEPs").answer(200, list_schema),
            list,
        )
        .add(
            Verb::Post,
            "/v1/vteps",
            about("Enter a VTEP")
                .body(reference("NewVtep"))
                .answer(201, reference("Vtep"))
                .errors(&[400, 409]),
            create,
        )
        .add(
            Verb::Get,
            "/v1/vteps/{id}",
            about("Show a VTEP")
                .answer(200, reference("Vtep"))
                .errors(&[404]),
            show,
        )
        .add(
            Verb::Put,
            "/v1/vteps/{id}",
            about("Change a VTEP")
                .body(reference("ChangedVtep"))
                .answer(200, reference("Vtep"))
                .errors(&[400, 404, 409]),
            update,
        )
        .add(
            Verb::Delete,
            "/v1/vteps/{id}",
            about("Remove a VTEP").errors(&[404]),
            delete,
        )
}

pub(super) fn schemas() -> Vec<(String, Value)> {
    let uuid = json!({"type": "string", "format": "uuid"});
    let ip = json!({"type": "string", "examples": ["192.0.2.50"]});
    let endpoint = json!({"type": "object", "properties": {
        "network_id": uuid,
        "mac_address": {"type": "string", "examples": ["02:00:00:00:00:01"]},
        "ip_address": {"oneOf": [ip, {"type": "null"}]},
    }, "required": ["network_id", "mac_address"]});
    let mut properties = json!({
        "name": {"type": "string", "minLength": 1, "maxLength": 255},
        "address": ip,
        "networks": {"type": "array", "items": uuid},
        "endpoints": {"type": "array", "items": endpoint},
    });
    let changed =
        json!({"type": "object", "properties": properties, "additionalProperties": false});
    properties["id"] = uuid;
    let vtep = json!({"type": "object", "properties": properties});
    let new = json!({"type": "object", "properties": properties,
        "required": ["name", "address"], "additionalProperties": false});
    vec![
        ("Vtep".to_owned(), vtep),
        ("NewVtep".to_owned(), new),
        ("ChangedVtep".to_owned(), changed),
    ]
}

async fn list(State(api): State<Api>) -> Json<Value> {
    let vteps: Vec<Vtep> = api
        .controller
        .read(|state| state.vteps().cloned().collect());
    Json(json!({"vteps": vteps}))
}

async fn show(State(api): State<Api>, Params(id): Params<String>) -> Result<Json<Vtep>, Failure> {
    let id = object_id("VTEP", id)?;
    let found = api
        .controller
        .read(|state| vtep::find(state, id).cloned())?;
    Ok(Json(found))
}

async fn create(
    State(api): State<Api>,
    JsonBody(request): JsonBody<NewVtep>,
) -> Result<(StatusCode, Json<Vtep>), Failure> {
    let controller = api.controller.clone();
    let made = api
        .controller
        .transact(move |state| {
            vtep::create(state, controller.context(), request).map_err(Failure::from)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn update(
    State(api): State<Api>,
    Params(id): Params<String>,
    JsonBody(change): JsonBody<VtepChange>,
) -> Result<Json<Vtep>, Failure> {
    let id = object_id("VTEP", id)?;
    let controller = api.controller.clone();
    let changed = api
        .controller
        .transact(move |state| {
            vtep::update(state, controller.context(), id, change).map_err(Failure::from)
        })
        .await?;
    Ok(Json(changed))
}

async fn delete(State(api): State<Api>, Params(id): Params<String>) -> Result<StatusCode, Failure> {
    let id = object_id("VTEP", id)?;
    api.controller
        .transact(move |state| vtep::delete(state, id).map_err(Failure::from))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
