use super::*;

#[tokio::test]
async fn a_resource_is_created_shown_changed_and_deleted() {
    let rest = Rest::new();
    let net = rest.create("network", json!({"name": "a"})).await;
    let path = format!("/v2.0/networks/{}", text(&net, "id"));
    assert_eq!(rest.get(&path).await.body["network"], net);
    let changed = rest.put(&path, json!({"network": {"name": "b"}})).await;
    assert_eq!(changed.status, StatusCode::OK);
    assert_eq!(changed.body["network"]["name"], "b");
    assert_eq!(changed.body["network"]["revision_number"], 1);
    let same = rest.put(&path, json!({"network": {"name": "b"}})).await;
    assert_eq!(
        same.body, changed.body,
        "a change of nothing is no revision"
    );
    let deleted = rest.delete(&path).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    for answer in [
        rest.get(&path).await,
        rest.delete(&path).await,
        rest.put(&path, json!({"network": {}})).await,
    ] {
        answer.refused(404, "NetworkNotFound", text(&net, "id"));
    }
    rest.get("/v2.0/networks/by-name")
        .await
        .refused(404, "NetworkNotFound", "by-name");
}

#[tokio::test]
async fn a_bulk_request_is_carried_out_whole_or_not_at_all() {
    let rest = Rest::new();
    let body = json!({"networks": [{"name": "a"}, {"name": "b"}]});
    let made = rest.post("/v2.0/networks", body).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let vnis: Vec<&Value> = made.body["networks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| &n["provider:segmentation_id"])
        .collect();
    assert_eq!(vnis, [4096, 4097]);
    let same = json!({"provider:segmentation_id": 7});
    rest.post("/v2.0/networks", json!({"networks": [same, same]}))
        .await
        .refused(409, "TunnelIdInUse", "7");
    rest.post("/v2.0/networks", json!({"networks": []}))
        .await
        .refused(400, "HTTPBadRequest", "Resources required");
    let all = rest.get("/v2.0/networks").await.body;
    assert_eq!(all["networks"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn requests_at_the_same_time_do_not_get_the_same() {
    let rest = Rest::new();
    let net = rest.create("network", json!({})).await;
    let subnet = json!({"network_id": net["id"], "cidr": "10.0.0.0/24", "ip_version": 4});
    rest.create("subnet", subnet).await;
    let port = json!({"network_id": net["id"], "binding:host_id": "a"});
    let made = futures_util::future::join_all((0..50).map(|_| rest.create("port", port.clone())));
    let made = made.await;
    let distinct = |value: &dyn Fn(&Value) -> String| {
        made.iter()
            .map(value)
            .collect::<std::collections::HashSet<_>>()
            .len()
    };
    assert_eq!(distinct(&|p| p["segmentation_id"].to_string()), 50);
    assert_eq!(distinct(&|p| p["fixed_ips"].to_string()), 50);
}

#[tokio::test]
async fn a_port_is_active_only_once_it_is_in_force_and_up() {
    let rest = Rest::new();
    let net = rest.create("network", json!({})).await;
    let port = rest.create("port", json!({"network_id": net["id"]})).await;
    assert_eq!(port["status"], "DOWN");
    let id: Uuid = text(&port, "id").parse().unwrap();
    rest.ports.0.lock().unwrap().push(id);
    let path = format!("/v2.0/ports/{id}");
    assert_eq!(rest.get(&path).await.body["port"]["status"], "ACTIVE");
    let down = json!({"port": {"admin_state_up": false}});
    assert_eq!(rest.put(&path, down).await.body["port"]["status"], "DOWN");
    let active = rest.get("/v2.0/ports?status=ACTIVE").await.body;
    assert_eq!(active["ports"], json!([]));
}

#[tokio::test]
async fn refusals_have_neutrons_status_and_type() {
    let rest = Rest::new();
    let net = rest.create("network", json!({})).await;
    let network_id = &net["id"];
    let subnet = json!({"network_id": network_id, "cidr": "10.0.0.0/24", "ip_version": 4});
    let subnet = rest.create("subnet", subnet).await;
    let bound = json!({"network_id": network_id, "binding:host_id": "a",
        "mac_address": "02:00:00:00:00:01", "segmentation_id": 5});
    let port = rest.create("port", bound).await;
    let post = |member: &'static str, mut attributes: Value| {
        attributes["network_id"] = network_id.clone();
        let rest = &rest;
        async move {
            rest.post(&format!("/v2.0/{member}s"), json!({member: attributes}))
                .await
        }
    };
    let fixed = |ip: Value| json!({"fixed_ips": [ip]});
    let inside = |cidr: &str| json!({"cidr": cidr, "ip_version": 4});
    let pools =
        |pools: Value| json!({"cidr": "10.1.0.0/24", "ip_version": 4, "allocation_pools": pools});
    for (member, attributes, status, kind) in [
        (
            "port",
            json!({"mac_address": "02:00:00:00:00:01"}),
            409,
            "MacAddressInUse",
        ),
        (
            "port",
            fixed(json!({"ip_address": "10.0.0.2"})),
            409,
            "IpAddressAlreadyAllocated",
        ),
        (
            "port",
            fixed(json!({"ip_address": "10.9.0.2"})),
            400,
            "InvalidIpForNetwork",
        ),
        (
            "port",
            fixed(json!({"subnet_id": subnet["id"], "ip_address": "10.9.0.2"})),
            400,
            "InvalidIpForSubnet",
        ),
        (
            "port",
            json!({"binding:host_id": "a", "segmentation_id": 5}),
            409,
            "SegmentationIdInUse",
        ),
        ("subnet", inside("10.0.0.0/25"), 400, "InvalidInput"),
        (
            "subnet",
            pools(json!([{"start": "10.1.0.1", "end": "10.1.0.9"}])),
            409,
            "GatewayConflictWithAllocationPools",
        ),
        (
            "subnet",
            pools(json!([{"start": "10.1.0.9", "end": "10.1.1.9"}])),
            400,
            "OutOfBoundsAllocationPool",
        ),
    ] {
        post(member, attributes).await.refused(status, kind, "");
    }
    let (net_id, subnet_id) = (text(&net, "id"), text(&subnet, "id"));
    rest.delete(&format!("/v2.0/networks/{net_id}"))
        .await
        .refused(409, "NetworkInUse", text(&port, "id"));
    rest.delete(&format!("/v2.0/subnets/{subnet_id}"))
        .await
        .refused(409, "SubnetInUse", subnet_id);
    rest.post("/v2.0/networks", json!({"network": {"mtu": 9000}}))
        .await
        .refused(400, "InvalidInput", "maximum is 1450");
}

#[tokio::test]
async fn if_match_guards_the_revision() {
    let rest = Rest::new();
    let net = rest.create("network", json!({})).await;
    let path = format!("/v2.0/networks/{}", text(&net, "id"));
    let at = async |method: Method, revision: &str| {
        let request = Request::builder()
            .method(method)
            .uri(&path)
            .header(header::IF_MATCH, revision);
        let body = json!({"network": {"name": revision}}).to_string();
        rest.send(request.body(body.into()).unwrap()).await
    };
    let changed = at(Method::PUT, "revision_number=0").await;
    assert_eq!(changed.status, StatusCode::OK);
    for method in [Method::PUT, Method::DELETE] {
        at(method.clone(), "revision_number=0").await.refused(
            412,
            "RevisionNumberConstraintFailed",
            "current revision is 1",
        );
        at(method, "W/\"1\"")
            .await
            .refused(400, "HTTPBadRequest", "If-Match");
    }
    let deleted = at(Method::DELETE, "revision_number=1").await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn tags_are_set_of_texts() {
    let rest = Rest::new();
    let net = rest.create("network", json!({"name": "tagged"})).await;
    rest.create("network", json!({"name": "bare"})).await;
    let tags = format!("/v2.0/networks/{}/tags", text(&net, "id"));
    let put = rest.put(&tags, json!({"tags": ["b", "a", "b"]})).await;
    assert_eq!(put.body, json!({"tags": ["a", "b"]}));
    let status = async |method, tag: &str| {
        let path = format!("{tags}/{tag}");
        rest.ask(method, &path, None).await.status.as_u16()
    };
    assert_eq!(status(Method::PUT, "c").await, 201);
    assert_eq!(status(Method::GET, "c").await, 204);
    assert_eq!(status(Method::DELETE, "c").await, 204);
    assert_eq!(status(Method::GET, "c").await, 404);
    assert_eq!(status(Method::DELETE, "c").await, 404);
    assert_eq!(status(Method::PUT, "x,y").await, 400);
    for (query, expected) in [
        ("tags=a,b", vec!["tagged"]),
        ("tags=a,c", vec![]),
        ("tags-any=a,c", vec!["tagged"]),
        ("not-tags=a,c", vec!["bare", "tagged"]),
        ("not-tags-any=a,c", vec!["bare"]),
    ] {
        let path = format!("/v2.0/networks?{query}&sort_key=name&fields=name");
        let found = rest.get(&path).await.body;
        let expected: Vec<Value> = expected.iter().map(|n| json!({"name": n})).collect();
        assert_eq!(found["networks"], json!(expected), "{query}");
    }
    let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
    rest.put(&tags, json!({"tags": many}))
        .await
        .refused(400, "HTTPBadRequest", "at most 64");
    assert_eq!(rest.delete(&tags).await.status, StatusCode::NO_CONTENT);
    assert_eq!(rest.get(&tags).await.body, json!({"tags": []}));
}
