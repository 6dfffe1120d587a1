//! Versions, resources and extensions: what clients ask before anything else.

use axum::Json;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::COLLECTIONS;
use super::error::ApiError;
use crate::northbound::extract::{Params, base_url};
use crate::northbound::routes::{Operation, Routes, Verb};

/// Alias, name and meaning of each extension that the shim stands for.
const EXTENSIONS: [(&str, &str, &str); 16] = [
    (
        "binding",
        "Port Binding",
        "Expose port bindings of a virtual port to external application",
    ),
    (
        "filter-validation",
        "Filter parameters validation",
        "Refuses filters on attributes that a resource does not have.",
    ),
    (
        "ip-substring-filtering",
        "IP address substring filtering",
        "Provides IP address substring filtering when listing ports",
    ),
    (
        "net-mtu",
        "Network MTU",
        "Provides MTU attribute for a network resource.",
    ),
    (
        "net-mtu-writable",
        "Network MTU (writable)",
        "Provides a writable MTU attribute for a network resource.",
    ),
    (
        "pagination",
        "Pagination support",
        "Extension that indicates that pagination is enabled.",
    ),
    (
        "project-id",
        "project_id field enabled",
        "Extension that indicates that project_id field is enabled.",
    ),
    (
        "provider",
        "Provider Network",
        "Expose mapping of virtual networks to physical networks",
    ),
    (
        "revision-if-match",
        "If-Match constraints based on revision_number",
        "Extension indicating that If-Match based on revision_number is supported.",
    ),
    (
        "sluice-port-segmentation-id",
        "Port group VLAN of a port",
        "Adds segmentation_id, the VLAN tag of the port's port group, to ports.",
    ),
    (
        "sort-key-validation",
        "Sort key validation",
        "Refuses sort keys that a resource does not have.",
    ),
    (
        "sorting",
        "Sorting support",
        "Extension that indicates that sorting is enabled.",
    ),
    (
        "standard-attr-description",
        "standard-attr-description",
        "Extension to add descriptions to standard attributes",
    ),
    (
        "standard-attr-revisions",
        "Resource revision numbers",
        "This extension will display the revision number of resources.",
    ),
    (
        "standard-attr-timestamp",
        "Resource timestamps",
        "Adds created_at and updated_at fields to all resources.",
    ),
    (
        "standard-attr-tag",
        "Tag support for resources with standard attribute",
        "Enables to set tag on resources with standard attribute.",
    ),
];

/// Routes of versions, resources and extensions.
pub fn routes(routes: Routes) -> Routes {
    let about =
        |summary: &str| Operation::new("discovery", summary).answer(200, json!({"type": "object"}));
    routes
        .add(Verb::Get, "/", about("List API versions"), versions)
        .add(Verb::Get, "/v2.0", about("List resources"), resources)
        .add(Verb::Get, "/v2.0/", about("List resources"), resources)
        .add(
            Verb::Get,
            "/v2.0/extensions",
            about("List extensions"),
            extensions,
        )
        .add(
            Verb::Get,
            "/v2.0/extensions/{alias}",
            about("Show an extension").errors(&[404]),
            extension,
        )
}

async fn versions(headers: HeaderMap) -> Json<Value> {
    Json(json!({"versions": [version(&base_url(&headers))]}))
}

fn version(base: &str) -> Value {
    let href = format!("{base}/v2.0/");
    json!({"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": href}]})
}

/// As Neutron's, and a version document as well: keystoneauth looks for one here
/// when the endpoint that it is given ends in the version.
async fn resources(headers: HeaderMap) -> Json<Value> {
    let base = base_url(&headers);
    let resources: Vec<Value> = COLLECTIONS
        .into_iter()
        .map(|(member, collection)| {
            let href = format!("{base}/v2.0/{collection}");
            json!({"name": member, "collection": collection,
                "links": [{"rel": "self", "href": href}]})
        })
        .collect();
    Json(json!({"resources": resources, "version": version(&base)}))
}

async fn extensions() -> Json<Value> {
    let all: Vec<Value> = EXTENSIONS.into_iter().map(shown).collect();
    Json(json!({"extensions": all}))
}

async fn extension(Params(alias): Params<String>) -> Result<Json<Value>, ApiError> {
    let alias = alias.unwrap_or_default();
    EXTENSIONS
        .into_iter()
        .find(|(known, ..)| *known == alias)
        .map(|found| Json(json!({"extension": shown(found)})))
        .ok_or_else(|| ApiError::not_found("Extension", &alias))
}

fn shown((alias, name, description): (&str, &str, &str)) -> Value {
    json!({
        "alias": alias, "name": name, "description": description,
        "updated": "2026-01-01T00:00:00-00:00", "links": [],
    })
}
