//! `/v1/nves/{id}/trace`, `/drops`, `/flows`, `/capture`: what a running NVE does with
//! frames. Nothing here changes what it does.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Asked, Failure, JsonBody, object_id, reference};
use crate::inspect::capture::{DEFAULT_SNAP, Limits};
use crate::inspect::logs::{Drops, Flows};
use crate::inspect::pcapng;
use crate::inspect::probe::TraceRequest;
use crate::inspect::trace::Trace;
use crate::inspect::{InspectError, Inspector};
use crate::northbound::Api;
use crate::northbound::extract::Params;
use crate::northbound::routes::{Operation, Routes, Verb};

const PORT: &str = "name or UUID of a port that is on the NVE";

pub(super) fn routes(routes: Routes) -> Routes {
    let about = |summary: &str| Operation::new("inspection", summary).errors(&[400, 404, 409, 503]);
    routes
        .add(
            Verb::Post,
            "/v1/nves/{id}/trace",
            about("What would become of a packet now, from NVE to NVE")
                .body(reference("TraceRequest"))
                .answer(200, reference("Trace")),
            trace,
        )
        .add(
            Verb::Get,
            "/v1/nves/{id}/drops",
            about("The newest drops, oldest first")
                .query("after", "number of the last drop that is known")
                .query("port", PORT)
                .answer(200, reference("Drops")),
            drops,
        )
        .add(
            Verb::Get,
            "/v1/nves/{id}/flows",
            about("Entries of the flow cache")
                .query("port", PORT)
                .answer(200, reference("Flows")),
            flows,
        )
        .add(
            Verb::Get,
            "/v1/nves/{id}/capture",
            about("Frames from and to a port as they pass, as a pcapng file")
                .query("port", PORT)
                .query("snap", "bytes that are kept of a frame; all if absent")
                .query("seconds", "end after so long")
                .query("frames", "end after so many frames")
                .answer_as(
                    200,
                    pcapng::MEDIA_TYPE,
                    json!({"type": "string", "format": "binary"}),
                ),
            capture,
        )
}

pub(super) fn schemas() -> Vec<(String, Value)> {
    let (text, number) = (json!({"type": "string"}), json!({"type": "integer"}));
    let object = json!({"type": "object"});
    let mut properties = json!({
        "vni": number, "protocol": number, "ttl": number, "size": number,
        "may_fragment": {"type": "boolean"},
    });
    for (key, doc) in [
        ("port", "sending port, by name or UUID"),
        (
            "from_vtep",
            "instead of a port, with vni: the VTEP that sends",
        ),
        ("tcp", "destination, such as 10.0.1.5:443"),
        ("udp", "destination, such as [fd00::1]:53"),
        ("icmp", "destination of an echo request"),
        (
            "arp",
            "address that is asked for; IPv6: by a neighbor solicitation",
        ),
        ("to", "destination of a packet of that protocol"),
        ("frame", "a whole frame in hexadecimal"),
        ("from", "sender's address, with a port or without"),
        ("from_mac", "sender's MAC address"),
        (
            "to_mac",
            "receiver's MAC address; as the VM would learn it if absent",
        ),
        ("flags", "TCP flags: letters of FSRPAUEC"),
    ] {
        properties[key] = json!({"type": "string", "description": doc});
    }
    let request =
        json!({"type": "object", "properties": properties, "additionalProperties": false});
    let told = json!({"type": "object", "properties": {
        "stage": text, "text": text, "step": object, "hop": number,
        "port": object, "rule": object, "router": object, "network": object,
    }});
    let hop = json!({"type": "object", "properties": {
        "nve": object, "after": number, "steps": {"type": "array", "items": told},
        "lost": number, "error": text,
    }});
    let outcome = json!({"type": "object", "properties": {
        "result": {"enum": ["delivered", "answered", "left", "taken", "dropped", "unknown"]},
        "text": text,
        "delivered": {"type": "array", "items": object},
        "left": {"type": "array", "items": text},
        "dropped": {"type": "array", "items": object},
        "unknown": {"type": "array", "items": text},
    }});
    let trace = json!({"type": "object", "properties": {
        "packet": text, "next_hop": text, "hops": {"type": "array", "items": hop},
        "not_followed": number, "outcome": outcome,
    }});
    let drops = json!({"type": "object", "properties": {
        "drops": {"type": "array", "items": object}, "next": number, "lost": number,
        "more": {"type": "boolean"},
    }});
    let flows = json!({"type": "object", "properties": {
        "flows": {"type": "array", "items": object}, "truncated": {"type": "boolean"},
    }});
    let named = [
        ("TraceRequest", request),
        ("Trace", trace),
        ("Drops", drops),
        ("Flows", flows),
    ];
    named.map(|(name, schema)| (name.to_owned(), schema)).into()
}

/// Which drops are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DropsQuery {
    #[serde(default)]
    after: u64,
    port: Option<String>,
}

/// Which flows are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlowsQuery {
    port: Option<String>,
}

/// What is to be captured.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaptureQuery {
    port: String,
    snap: Option<u16>,
    seconds: Option<u64>,
    frames: Option<u64>,
}

async fn trace(
    State(api): State<Api>,
    Params(id): Params<String>,
    JsonBody(request): JsonBody<TraceRequest>,
) -> Result<Json<Trace>, Failure> {
    let id = object_id("NVE", id)?;
    let trace = Inspector::new(&api.fabric).trace(id, &request).await?;
    Ok(Json(trace))
}

async fn drops(
    State(api): State<Api>,
    Params(id): Params<String>,
    query: Asked<DropsQuery>,
) -> Result<Json<Drops>, Failure> {
    let (id, Query(query)) = (object_id("NVE", id)?, query?);
    let inspector = Inspector::new(&api.fabric);
    let drops = inspector
        .drops(id, query.after, query.port.as_deref())
        .await?;
    Ok(Json(drops))
}

async fn flows(
    State(api): State<Api>,
    Params(id): Params<String>,
    query: Asked<FlowsQuery>,
) -> Result<Json<Flows>, Failure> {
    let (id, Query(query)) = (object_id("NVE", id)?, query?);
    let inspector = Inspector::new(&api.fabric);
    Ok(Json(inspector.flows(id, query.port.as_deref()).await?))
}

/// Streams until the client has gone away, the limits are reached, or the NVE is lost.
async fn capture(
    State(api): State<Api>,
    Params(id): Params<String>,
    query: Asked<CaptureQuery>,
) -> Result<Response, Failure> {
    let (id, Query(query)) = (object_id("NVE", id)?, query?);
    let limits = Limits {
        time: query.seconds.map(Duration::from_secs),
        frames: query.frames,
    };
    let snap = match query.snap {
        None => DEFAULT_SNAP,
        Some(0) => {
            let reason = "at least one byte of a frame is kept".to_owned();
            return Err(InspectError::Invalid {
                field: "snap",
                reason,
            }
            .into());
        }
        Some(snap) => snap.min(DEFAULT_SNAP),
    };
    let inspector = Inspector::new(&api.fabric);
    let reader = inspector.capture(id, &query.port, snap, limits).await?;
    let body = Body::from_stream(reader.into_stream().map(Ok::<_, Infallible>));
    Ok(([(CONTENT_TYPE, pcapng::MEDIA_TYPE)], body).into_response())
}
