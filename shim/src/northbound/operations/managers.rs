//! `GET /v1/hypervisor-managers`: how the subscriptions to hypervisor managers go.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use crate::events::SubscriberStatus;
use crate::northbound::Api;
use crate::northbound::routes::{Operation, Routes, Verb};

/// The answer's body.
#[derive(Debug, Serialize)]
struct Managers {
    managers: Vec<SubscriberStatus>,
}

pub(super) fn routes(routes: Routes) -> Routes {
    let about = Operation::new("events", "List hypervisor managers and their subscriptions")
        .answer(200, super::reference("Managers"));
    routes.add(Verb::Get, "/v1/hypervisor-managers", about, list)
}

pub(super) fn schemas() -> Vec<(String, Value)> {
    let text = json!({"type": "string"});
    let maybe = json!({"type": ["string", "null"]});
    let time = json!({"type": ["string", "null"], "format": "date-time"});
    let count = json!({"type": "integer"});
    let manager = json!({"type": "object", "properties": {
        "name": text, "url": text, "connected_since": time, "last_event_at": time,
        "last_event_id": maybe, "last_heartbeat_at": time,
        "lag_seconds": {"type": ["number", "null"]},
        "connections": count, "events": count,
        "events_by_type": {"type": "object", "additionalProperties": count},
        "duplicates": count, "inventories": count, "unread_vms": count, "resyncs": count,
        "malformed": count,
        "missing": {"type": "array", "items": text},
        "last_error": maybe,
    }});
    let list = json!({"type": "object", "properties": {
        "managers": {"type": "array", "items": manager},
    }});
    vec![("Managers".to_owned(), list)]
}

async fn list(State(api): State<Api>) -> Json<Managers> {
    let managers = api.managers.iter().map(|status| status.get());
    Json(Managers {
        managers: managers.collect(),
    })
}
