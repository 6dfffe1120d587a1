use super::*;

fn nve(n: u8) -> Value {
    json!({
        "name": format!("nve-{n}"), "host_name": format!("host-{n}"),
        "vtep": format!("192.0.2.{n}"), "public_key": format!("{n:02x}").repeat(32),
    })
}

#[tokio::test]
async fn an_nve_is_registered_shown_and_removed() {
    let rest = Rest::new();
    let made = rest.post("/v1/nves", nve(11)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let path = format!("/v1/nves/{}", text(&made.body, "id"));
    assert_eq!(rest.get(&path).await.body, made.body);
    assert_eq!(
        rest.get("/v1/nves").await.body,
        json!({"nves": [made.body]})
    );
    let mut same_key = nve(12);
    same_key["public_key"] = made.body["public_key"].clone();
    rest.post("/v1/nves", same_key)
        .await
        .failed(409, "conflict", Some("public_key"));
    let mut bad = nve(12);
    bad["vtep"] = json!("127.0.0.1");
    rest.post("/v1/nves", bad)
        .await
        .failed(400, "invalid", Some("vtep"));
    assert_eq!(rest.delete(&path).await.status, StatusCode::NO_CONTENT);
    rest.get(&path).await.failed(404, "not_found", None);
    rest.delete(&path).await.failed(404, "not_found", None);
    rest.get("/v1/nves/nve-11")
        .await
        .failed(404, "not_found", None);
}

#[tokio::test]
async fn an_nve_keeps_the_id_that_it_is_given() {
    let rest = Rest::new();
    let id = Uuid::new_v4().to_string();
    let mut request = nve(11);
    request["id"] = json!(id);
    assert_eq!(rest.post("/v1/nves", request).await.body["id"], id);
}

#[tokio::test]
async fn a_vtep_is_entered_changed_and_removed() {
    let rest = Rest::new();
    let net = rest.create("network", json!({})).await;
    let station = json!({"network_id": net["id"], "mac_address": "02:00:00:00:00:01",
        "ip_address": "10.0.0.9"});
    let request = json!({"name": "tor", "address": "192.0.2.50",
        "networks": [net["id"]], "endpoints": [station]});
    let made = rest.post("/v1/vteps", request).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert_eq!(made.body["endpoints"], json!([station]));
    let path = format!("/v1/vteps/{}", text(&made.body, "id"));
    assert_eq!(rest.get(&path).await.body, made.body);
    let network = format!("/v2.0/networks/{}", text(&net, "id"));
    rest.delete(&network)
        .await
        .refused(409, "NetworkInUse", text(&made.body, "id"));
    rest.put(&path, json!({"networks": [Uuid::nil()]}))
        .await
        .failed(400, "invalid", Some("networks"));
    let changed = rest
        .put(&path, json!({"networks": [], "endpoints": []}))
        .await;
    assert_eq!(changed.body["endpoints"], json!([]));
    assert_eq!(changed.body["name"], "tor");
    assert_eq!(
        rest.get("/v1/vteps").await.body["vteps"],
        json!([changed.body])
    );
    assert_eq!(rest.delete(&path).await.status, StatusCode::NO_CONTENT);
    rest.put(&path, json!({}))
        .await
        .failed(404, "not_found", None);
    assert_eq!(rest.delete(&network).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_query_that_cannot_be_read_is_refused_in_the_apis_form() {
    let rest = Rest::new();
    for query in ["follow=x", "folow=true"] {
        let answer = rest.get(&format!("/v1/events?{query}")).await;
        answer.failed(400, "invalid", None);
    }
    let answer = rest.get("/v1/events?follow=false").await;
    assert_eq!(answer.body, json!({"events": []}));
}

#[tokio::test]
async fn refusals_of_notify_are_problem_details() {
    let rest = Rest::new();
    let path = format!("/v1/controllers/{}/events", Uuid::nil());
    let refused = rest.post(&path, json!({})).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let kind = &refused.headers[header::CONTENT_TYPE];
    assert_eq!(kind, "application/problem+json");
    let body = &refused.body;
    assert_eq!(
        (&body["status"], &body["title"]),
        (&json!(401), &json!("Unauthorized"))
    );
    assert_eq!(body["detail"], "authentication is required");
    assert_eq!(
        refused
            .headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .count(),
        2
    );
}
