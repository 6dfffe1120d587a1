//! The OpenAPI 3.1 document of all routes.

use serde_json::{Map, Value, json};

use super::neutron;
use super::operations;
use super::routes::Paths;

/// Where the document is served.
pub const PATH: &str = "/v1/openapi.json";

/// The document; the one checked in is `shim/openapi.json`.
pub fn document(paths: &Paths) -> Value {
    let mut schemas = Map::from_iter(neutron::schemas());
    schemas.extend(operations::schemas());
    let mut all = paths.clone();
    let itself = json!({
        "tags": ["discovery"], "summary": "This document", "parameters": [],
        "responses": {"200": {"description": "Done."}},
    });
    all.insert(
        PATH.to_owned(),
        Map::from_iter([("get".to_owned(), itself)]),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sluice shim",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "/v2.0 is OpenStack Networking's API; /v1 is for operators.",
            "license": {"name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT"},
        },
        "paths": all,
        "components": {"schemas": schemas},
    })
}
