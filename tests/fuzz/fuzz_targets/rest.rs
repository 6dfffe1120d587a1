//! Requests to the shim's REST interface, and lifecycle events between them: each is
//! carried out or refused, none with a panic or a 5xx, every answer is well formed,
//! and what was compiled step by step is what the whole state compiles to.
//!
//! Requests have a line of method and path, then the body, and are separated by lines
//! of `%`. `$0` to `$9` are the ids of the first objects made. The method `VM` brings
//! its body as a lifecycle event.
#![no_main]

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;
use shim::compile::Compiler;
use shim::controller::Controller;
use shim::fabric::Fabric;
use shim::intent::Settings;
use shim::northbound::{Api, router};
use shim::store::MemoryStore;
use tower::ServiceExt;

/// Most requests of an input.
const REQUESTS: usize = 32;

/// Ids that requests can name.
const IDS: usize = 10;

fuzz_target!(|text: &str| -> Corpus {
    if text.split("\n%\n").count() > REQUESTS {
        return Corpus::Reject;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(run(text));
    Corpus::Keep
});

async fn run(text: &str) {
    let store = Box::new(MemoryStore::default());
    let controller = Controller::open(store, Settings::default()).expect("it is empty");
    let fabric = Fabric::new(controller, Arc::default());
    let rest = router(Api::new(fabric.clone()));
    let mut ids: Vec<String> = Vec::new();
    for request in text.split("\n%\n") {
        let request = with_ids(request, &ids);
        let (line, body) = request.split_once('\n').unwrap_or((&request, ""));
        let Some((method, path)) = line.split_once(' ') else {
            continue;
        };
        if method == "VM" {
            if let Ok(event) = serde_json::from_str(body) {
                let taken = fabric.take_event("fuzz", event).await;
                taken.expect("the store takes everything");
            }
        } else if let Some(answer) = ask(&rest, method, path, body).await {
            note_ids(&answer, &mut ids);
        }
    }
    let state = fabric.controller().snapshot();
    let whole = Compiler::new(&state);
    for nve in state.nves() {
        let tables = fabric.desired_tables(nve.id);
        assert_eq!(tables.as_ref(), whole.tables(nve.id), "{}", nve.name);
    }
}

/// The request with the ids in place of their numbers.
fn with_ids(request: &str, ids: &[String]) -> String {
    let mut text = request.to_owned();
    for (number, id) in ids.iter().enumerate() {
        text = text.replace(&format!("${number}"), id);
    }
    text
}

fn note_ids(answer: &Value, ids: &mut Vec<String>) {
    let objects = answer.as_object().into_iter().flat_map(|top| top.values());
    let objects = objects.flat_map(|value| match value {
        Value::Array(all) => all.as_slice(),
        one => std::slice::from_ref(one),
    });
    let direct = answer.get("id").into_iter();
    for id in direct.chain(objects.filter_map(|object| object.get("id"))) {
        if let Some(id) = id.as_str()
            && ids.len() < IDS
        {
            ids.push(id.to_owned());
        }
    }
}

/// What a request that made something is answered with; `None` if it is no request,
/// or made nothing.
async fn ask(rest: &Router, method: &str, path: &str, body: &str) -> Option<Value> {
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    let request = Request::builder()
        .method(method.clone())
        .uri(path)
        .header(header::HOST, "shim.example")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_owned()))
        .ok()?;
    let neutron = !request.uri().path().starts_with("/v1");
    let answer = rest.clone().oneshot(request).await;
    let (parts, body) = answer.expect("routing cannot fail").into_parts();
    let status = parts.status;
    assert!(!status.is_server_error(), "{method} {path}: {status}");
    let kind = parts.headers.get(header::CONTENT_TYPE);
    let kind = kind.map(|kind| kind.to_str().expect("a media type is text"));
    if kind.is_some_and(|kind| kind.starts_with("text/")) {
        // Metrics, and events without end.
        return None;
    }
    let bytes = body.collect().await.expect("the body is there").to_bytes();
    if method == Method::HEAD || (status.is_success() && bytes.is_empty()) {
        return None;
    }
    let Ok(answer) = serde_json::from_slice::<Value>(&bytes) else {
        panic!("{method} {path}: {status} with {bytes:?}");
    };
    if status.is_client_error() {
        check_refusal(&answer, neutron);
    }
    (status == StatusCode::CREATED).then_some(answer)
}

/// A refusal says what kind it is, and why.
fn check_refusal(answer: &Value, neutron: bool) {
    let (error, kind) = match neutron {
        true => (&answer["NeutronError"], "type"),
        false => (&answer["error"], "code"),
    };
    for name in [kind, "message"] {
        let text = error[name].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "no {name} in {answer}");
    }
    assert!(!neutron || error["detail"] == "", "{answer}");
}
