//! `GET /v1/alarms`: what operators have to put right.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::northbound::Api;
use crate::northbound::routes::{Operation, Routes, Verb};
use crate::placement::alarms::{self, Kind};

pub(super) fn routes(routes: Routes) -> Routes {
    let about = Operation::new("health", "What contradicts the leases of VLAN tags")
        .answer(200, super::reference("Alarms"));
    routes.add(Verb::Get, "/v1/alarms", about, list)
}

pub(super) fn schemas() -> Vec<(String, Value)> {
    let text = json!({"type": "string"});
    let uuids = json!({"type": "array", "items": {"type": "string", "format": "uuid"}});
    let alarm = json!({"type": "object", "properties": {
        "kind": {"enum": Kind::ALL.map(Kind::name)},
        "host": text, "cluster": text, "segmentation_id": {"type": "integer"},
        "ports": uuids, "vms": uuids, "message": text,
    }});
    let list = json!({"type": "object", "properties": {
        "alarms": {"type": "array", "items": alarm},
    }});
    vec![("Alarms".to_owned(), list)]
}

async fn list(State(api): State<Api>) -> Json<Value> {
    let alarms = alarms::all(&api.controller.snapshot());
    Json(json!({"alarms": alarms}))
}
