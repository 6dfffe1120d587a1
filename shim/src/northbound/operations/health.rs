//! `GET /healthz`: answers as long as the shim serves.

use axum::Json;
use serde_json::{Value, json};

use crate::northbound::routes::{Operation, Routes, Verb};

pub(super) fn routes(routes: Routes) -> Routes {
    let status = json!({"type": "object", "properties": {"status": {"const": "ok"}}});
    let about = Operation::new("health", "Whether the shim serves").answer(200, status);
    routes.add(Verb::Get, "/healthz", about, show)
}

async fn show() -> Json<Value> {
    Json(json!({"status": "ok"}))
}
