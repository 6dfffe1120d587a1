//! Bodies that cannot be taken.

use super::*;

async fn post_raw(rest: &Rest, path: &str, kind: Option<&str>, body: impl Into<Body>) -> Answer {
    let mut request = Request::post(path);
    if let Some(kind) = kind {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    rest.send(request.body(body.into()).unwrap()).await
}

const JSON: Option<&str> = Some("application/json");

#[tokio::test]
async fn only_json_objects_of_bounded_size_are_taken() {
    let rest = Rest::new();
    let path = "/v2.0/networks";
    for body in ["", "{", "[]", "null", "\"network\"", "{\"network\": 1} x"] {
        post_raw(&rest, path, JSON, body).await.refused(
            400,
            "MalformedRequestBody",
            "Malformed request body",
        );
    }
    for body in ["{}", "{\"network\": []}", "{\"port\": {}}"] {
        post_raw(&rest, path, JSON, body).await.refused(
            400,
            "HTTPBadRequest",
            "Unable to find 'network'",
        );
    }
    let deep = "[".repeat(100_000);
    post_raw(&rest, path, JSON, deep)
        .await
        .refused(400, "MalformedRequestBody", "recursion limit");
    post_raw(&rest, path, JSON, " ".repeat(BODY_LIMIT + 1))
        .await
        .refused(413, "HTTPRequestEntityTooLarge", "1048576");
    post_raw(&rest, path, Some("text/plain"), "{}")
        .await
        .refused(415, "HTTPUnsupportedMediaType", "application/json");
    post_raw(&rest, path, JSON, vec![0xff, 0xfe])
        .await
        .refused(400, "MalformedRequestBody", "");
}

#[tokio::test]
async fn a_content_type_may_have_a_charset_or_be_missing() {
    let rest = Rest::new();
    let body = "{\"network\": {}}";
    for kind in [None, Some("application/json; charset=UTF-8")] {
        let answer = post_raw(&rest, "/v2.0/networks", kind, body).await;
        assert_eq!(answer.status, StatusCode::CREATED);
    }
}

#[tokio::test]
async fn the_operators_interface_names_the_field_at_fault() {
    let rest = Rest::new();
    let path = "/v1/nves";
    post_raw(&rest, path, JSON, "{")
        .await
        .failed(400, "malformed", None);
    post_raw(&rest, path, JSON, "{\"name\": 1}")
        .await
        .failed(400, "malformed", Some("name"));
    post_raw(&rest, path, JSON, "{\"nam\": \"a\"}")
        .await
        .failed(400, "malformed", Some("nam"));
    post_raw(&rest, path, JSON, " ".repeat(BODY_LIMIT + 1))
        .await
        .failed(413, "body", None);
    post_raw(&rest, path, Some("text/plain"), "{}")
        .await
        .failed(415, "body", None);
}

#[tokio::test]
async fn attributes_are_checked_by_their_table() {
    let rest = Rest::new();
    let net = rest.create("network", json!({})).await;
    let long = "x".repeat(256);
    let with = |name: &str, value: Value| json!({"network_id": net["id"], name: value});
    for (attributes, words) in [
        (json!({}), "Required attribute 'network_id' not specified"),
        (
            with("colour", json!(1)),
            "Unrecognized attribute(s) 'colour'",
        ),
        (
            with("status", json!("ACTIVE")),
            "Attribute 'status' not allowed in POST",
        ),
        (
            with("id", json!(Uuid::nil())),
            "Attribute 'id' not allowed in POST",
        ),
        (json!({"network_id": "net"}), "'net' is not a valid UUID"),
        (with("name", json!(long)), "exceeds maximum length of 255"),
        (with("name", Value::Null), "is not a valid string"),
        (with("admin_state_up", json!("maybe")), "boolean"),
        (
            with("mac_address", json!("02:00")),
            "not a valid MAC address",
        ),
        (
            with("segmentation_id", json!(0)),
            "not in the range of '1' to '4094'",
        ),
        (with("segmentation_id", json!("x")), "not an integer"),
        (with("segmentation_id", json!(1.5)), "not an integer"),
        (with("fixed_ips", json!({})), "is not a list"),
        (with("fixed_ips", json!([[]])), "is not a dictionary"),
        (
            with("fixed_ips", json!([{"ip": "10.0.0.1"}])),
            "no field 'ip'",
        ),
        (
            with("fixed_ips", json!([{"ip_address": "10.0.0"}])),
            "not a valid IP address",
        ),
        (
            with("fixed_ips", json!([{}, {}, {}, {}, {}, {}])),
            "5 is the most",
        ),
        (
            with("binding:vnic_type", json!("direct")),
            "is not in [\"normal\"]",
        ),
        (with("binding:profile", json!({"a": 1})), "is not supported"),
        (with("tenant_id", json!("a")), ""),
    ] {
        let mut attributes = attributes;
        if words.is_empty() {
            attributes["project_id"] = json!("b");
        }
        let answer = rest.post("/v2.0/ports", json!({"port": attributes})).await;
        answer.refused(400, "HTTPBadRequest", words);
    }
    let attributes = json!({
        "network_id": net["id"], "admin_state_up": "False", "segmentation_id": "7",
        "mac_address": "02-00-00-00-00-AB", "binding:host_id": null, "tenant_id": "t",
    });
    let port = rest.create("port", attributes).await;
    assert_eq!(port["admin_state_up"], false);
    assert_eq!(port["segmentation_id"], 7);
    assert_eq!(port["mac_address"], "02:00:00:00:00:ab");
    assert_eq!(port["project_id"], "t");
    let path = format!("/v2.0/ports/{}", text(&port, "id"));
    rest.put(&path, json!({"port": {"network_id": net["id"]}}))
        .await
        .refused(400, "HTTPBadRequest", "read-only attribute network_id");
}
