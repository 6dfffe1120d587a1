//! `/v1/nves`: the NVEs that may connect.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Failure, JsonBody, object_id, reference};
use crate::intent::nve::{self, NewNve};
use crate::model::Nve;
use crate::northbound::Api;
use crate::northbound::extract::Params;
use crate::northbound::routes::{Operation, Routes, Verb};

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
    let nve = json!({"type": "object", "properties": properties});
    let mut new = nve.clone();
    new["required"] = json!(["name", "host_name", "vtep", "public_key"]);
    new["additionalProperties"] = json!(false);
    vec![("Nve".to_owned(), nve), ("NewNve".to_owned(), new)]
}

async fn list(State(api): State<Api>) -> Json<Value> {
    let nves: Vec<Nve> = api.controller.read(|state| state.nves().cloned().collect());
    Json(json!({"nves": nves}))
}

async fn show(State(api): State<Api>, Params(id): Params<String>) -> Result<Json<Nve>, Failure> {
    let id = object_id("NVE", id)?;
    let found = api.controller.read(|state| nve::find(state, id).cloned())?;
    Ok(Json(found))
}

async fn create(
    State(api): State<Api>,
    JsonBody(request): JsonBody<NewNve>,
) -> Result<(StatusCode, Json<Nve>), Failure> {
    let made = api
        .controller
        .transact(move |state| nve::create(state, request).map_err(Failure::from))
        .await?;
    tracing::info!(id = %made.id, name = made.name, vtep = %made.vtep, "NVE registered");
    Ok((StatusCode::CREATED, Json(made)))
}

async fn delete(State(api): State<Api>, Params(id): Params<String>) -> Result<StatusCode, Failure> {
    let id = object_id("NVE", id)?;
    api.controller
        .transact(move |state| nve::delete(state, id).map_err(Failure::from))
        .await?;
    tracing::info!(%id, "NVE removed");
    Ok(StatusCode::NO_CONTENT)
}
