//! Versions, resources and extensions: what clients ask before anything else.

use axum::Json;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::COLLECTIONS;
use super::error::ApiError;
use crate::northbound::extract::{Params, base_url};
use crate::northbound::routes::{Operation, Routes, Verb};

/// Alias, name and meaning of each extension that the shim stands for.
const EXTENSIONS: [(&str, &str, &str); 37] = [
    ("address-group", "Address group", "Support address group"),
    (
        "allowed-address-pairs",
        "Allowed Address Pairs",
        "Provides allowed address pairs",
    ),
    (
        "binding",
        "Port Binding",
        "Expose port bindings of a virtual port to external application",
    ),
    (
        "dns-integration",
        "DNS Integration",
        "Provides integration with DNS.",
    ),
    (
        "extra_dhcp_opt",
        "Neutron Extra DHCP options",
        "Extra options configuration for DHCP. For example PXE boot options.",
    ),
    (
        "extraroute",
        "Neutron Extra Route",
        "Extra routes configuration for L3 router",
    ),
    (
        "extraroute-atomic",
        "Atomically add/remove extra routes",
        "Edit extra routes of a router on server side by atomically adding/removing \
         extra routes",
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
    ("port-security", "Port Security", "Provides port security"),
    (
        "port-security-groups-filtering",
        "Port filtering on security groups",
        "Provides security groups filtering when listing ports",
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
        "qos",
        "Quality of Service",
        "The Quality of Service extension.",
    ),
    (
        "qos-bw-limit-direction",
        "Direction for QoS bandwidth limit rule",
        "Allow to configure QoS bandwidth limit rule with specific direction: ingress or \
         egress",
    ),
    (
        "qos-default",
        "QoS default policy",
        "Expose the QoS default policy per project",
    ),
    (
        "qos-port-network-policy",
        "QoS port network policy ID",
        "Adds the QoS network ID to the port definition",
    ),
    (
        "qos-pps",
        "QoS Rule Type Packet per Second Extension",
        "Add QoS Rule Type Packet per Second",
    ),
    (
        "qos-rule-type-details",
        "Details of QoS rule types",
        "Expose details about QoS rule types supported by loaded backend drivers",
    ),
    (
        "qos-rules-alias",
        "Quality of Service rules alias API",
        "API to enable GET, PUT and DELETE operations on QoS policy rules without \
         specifying policy ID",
    ),
    (
        "revision-if-match",
        "If-Match constraints based on revision_number",
        "Extension indicating that If-Match based on revision_number is supported.",
    ),
    (
        "router",
        "Neutron L3 Router",
        "Router abstraction for basic L3 forwarding between L2 Neutron networks.",
    ),
    (
        "security-group",
        "security-group",
        "The security groups extension.",
    ),
    (
        "security-groups-normalized-cidr",
        "Normalized CIDR field for security group rules",
        "Add new field with normalized remote_ip_prefix cidr in SG rule",
    ),
    (
        "security-groups-remote-address-group",
        "Remote address group id field for security group rules",
        "Add new field of remote address group id in SG rules",
    ),
    (
        "security-groups-rules-belongs-to-default-sg",
        "Security group rule belongs to the project's default security group",
        "Flag to determine if the security group rule belongs to the project's default \
         security group",
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
        "standard-attr-tag",
        "Tag support for resources with standard attribute",
        "Enables to set tag on resources with standard attribute.",
    ),
    (
        "standard-attr-timestamp",
        "Resource timestamps",
        "Adds created_at and updated_at fields to all resources.",
    ),
    (
        "stateful-security-group",
        "Stateful security group",
        "Indicates if the security group is stateful or not",
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
        .map(|(member, collection, path)| {
            let href = format!("{base}/v2.0/{path}");
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
