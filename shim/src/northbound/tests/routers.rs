use super::*;

async fn subnet(rest: &Rest, cidr: &str) -> Value {
    let net = rest.create("network", json!({})).await;
    let version = if cidr.contains(':') { 6 } else { 4 };
    let subnet = json!({"network_id": net["id"], "cidr": cidr, "ip_version": version});
    rest.create("subnet", subnet).await
}

#[tokio::test]
async fn a_router_is_created_with_neutrons_defaults() {
    let rest = Rest::new();
    let router = rest.create("router", json!({"name": "r"})).await;
    assert_eq!(router["status"], "ACTIVE");
    assert_eq!(router["admin_state_up"], true);
    assert_eq!(router["external_gateway_info"], Value::Null);
    assert_eq!(router["routes"], json!([]));
    assert_eq!(
        (&router["distributed"], &router["ha"]),
        (&json!(false), &json!(false))
    );
    let path = format!("/v2.0/routers/{}", text(&router, "id"));
    let gateway = json!({"external_gateway_info": {"network_id": Uuid::nil()}});
    rest.put(&path, json!({"router": gateway})).await.refused(
        400,
        "HTTPBadRequest",
        "not supported",
    );
    rest.post("/v2.0/routers", json!({"router": {"routes": []}}))
        .await
        .refused(400, "HTTPBadRequest", "not allowed in POST");
    let found = rest
        .get("/v2.0/routers?name=r&fields=id&distributed=False")
        .await;
    assert_eq!(found.body["routers"], json!([{"id": router["id"]}]));
    assert_eq!(rest.delete(&path).await.status, StatusCode::NO_CONTENT);
    rest.get(&path)
        .await
        .refused(404, "RouterNotFound", "could not be found");
}

#[tokio::test]
async fn interfaces_come_and_go_by_subnet_and_by_port() {
    let rest = Rest::new();
    let subnet = subnet(&rest, "10.0.0.0/24").await;
    let router = rest.create("router", json!({"project_id": "p"})).await;
    let id = text(&router, "id");
    let act = async |action: &str, body: Value| {
        rest.put(
            &format!("/v2.0/routers/{id}/{action}_router_interface"),
            body,
        )
        .await
    };
    let by_subnet = json!({"subnet_id": subnet["id"]});
    let added = act("add", by_subnet.clone()).await.body;
    assert_eq!(added["id"], router["id"]);
    assert_eq!(added["subnet_ids"], json!([subnet["id"]]));
    assert_eq!(added["tenant_id"], "p");
    let query = format!("/v2.0/ports?device_id={id}&device_owner=network:router_interface");
    let found = rest.get(&query).await.body;
    let port = &found["ports"][0];
    assert_eq!(port["id"], added["port_id"]);
    assert_eq!(port["segmentation_id"], Value::Null);
    assert_eq!(port["status"], "ACTIVE");
    assert_eq!(port["fixed_ips"][0]["ip_address"], "10.0.0.1");
    let port_path = format!("/v2.0/ports/{}", text(port, "id"));
    rest.delete(&port_path)
        .await
        .refused(409, "ServicePortInUse", "network:router_interface");
    rest.delete(&format!("/v2.0/routers/{id}"))
        .await
        .refused(409, "RouterInUse", text(port, "id"));
    rest.delete(&format!("/v2.0/subnets/{}", text(&subnet, "id")))
        .await
        .refused(409, "SubnetInUse", "");
    act("add", by_subnet.clone())
        .await
        .refused(400, "BadRequest", "Bad router request");
    act("add", json!({}))
        .await
        .refused(400, "BadRequest", "must be specified");
    act("add", json!({"subnet_id": "x"}))
        .await
        .refused(400, "BadRequest", "not a valid UUID");
    act("add", json!({"subnet_id": Uuid::nil()}))
        .await
        .refused(404, "SubnetNotFound", "");
    let removed = act("remove", json!({"port_id": port["id"]})).await;
    assert_eq!(removed.body, added);
    act("remove", by_subnet)
        .await
        .refused(404, "RouterInterfaceNotFoundForSubnet", id);
    act("remove", json!({"port_id": port["id"]}))
        .await
        .refused(404, "RouterInterfaceNotFound", id);
    let nobody = format!("/v2.0/routers/{}/add_router_interface", Uuid::nil());
    rest.put(&nobody, json!({"subnet_id": subnet["id"]}))
        .await
        .refused(404, "RouterNotFound", "");
}

#[tokio::test]
async fn extra_routes_are_added_and_removed() {
    let rest = Rest::new();
    let subnet = subnet(&rest, "10.0.0.0/24").await;
    let router = rest.create("router", json!({})).await;
    let path = format!("/v2.0/routers/{}", text(&router, "id"));
    let interface = json!({"subnet_id": subnet["id"]});
    rest.put(&format!("{path}/add_router_interface"), interface.clone())
        .await;
    let route = |to: &str, by: &str| json!({"destination": to, "nexthop": by});
    let body = |routes: Value| json!({"router": {"routes": routes}});
    let one = route("192.168.0.0/16", "10.0.0.9");
    let changed = rest.put(&path, body(json!([one]))).await;
    assert_eq!(changed.body["router"]["routes"], json!([one]));
    let two = route("172.16.0.0/12", "10.0.0.9");
    let more = rest
        .put(&format!("{path}/add_extraroutes"), body(json!([one, two])))
        .await;
    assert_eq!(more.body["router"]["routes"], json!([one, two]));
    rest.put(&format!("{path}/remove_router_interface"), interface)
        .await
        .refused(409, "RouterInterfaceInUseByRoute", "");
    let less = rest
        .put(&format!("{path}/remove_extraroutes"), body(json!([one])))
        .await;
    assert_eq!(less.body["router"]["routes"], json!([two]));
    let far = body(json!([route("192.168.0.0/16", "10.9.0.9")]));
    rest.put(&format!("{path}/add_extraroutes"), far)
        .await
        .refused(400, "InvalidRoutes", "not connected");
    let odd = body(json!([route("192.168.0.1/16", "10.0.0.9")]));
    rest.put(&path, odd)
        .await
        .refused(400, "HTTPBadRequest", "'192.168.0.0/16' is recommended");
    rest.put(&format!("{path}/add_extraroutes"), json!({"router": {}}))
        .await
        .refused(400, "HTTPBadRequest", "'routes'");
}
