use super::*;

#[tokio::test]
async fn a_policy_shows_its_rules_and_they_are_below_it() {
    let rest = Rest::new();
    let policy = rest
        .create("policy", json!({"name": "gold", "shared": true}))
        .await;
    assert_eq!(
        (&policy["shared"], &policy["is_default"]),
        (&json!(true), &json!(false))
    );
    let path = format!("/v2.0/qos/policies/{}", text(&policy, "id"));
    let limits = format!("{path}/bandwidth_limit_rules");
    let wrapped = |rule: Value| json!({"bandwidth_limit_rule": rule});
    let made = rest.post(&limits, wrapped(json!({"max_kbps": 1000}))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let rule = made.body["bandwidth_limit_rule"].clone();
    let expected = json!({"id": rule["id"], "max_kbps": 1000, "max_burst_kbps": 0,
        "direction": "egress"});
    assert_eq!(rule, expected);
    rest.post(&limits, wrapped(json!({"max_kbps": 2000})))
        .await
        .refused(409, "QoSRulesConflict", text(&rule, "id"));
    rest.post(
        &limits,
        wrapped(json!({"max_kbps": 7, "direction": "ingress"})),
    )
    .await;
    let listed = rest
        .get(&format!("{limits}?direction=egress&fields=id"))
        .await;
    assert_eq!(
        listed.body,
        json!({"bandwidth_limit_rules": [{"id": rule["id"]}]})
    );
    let rates = rest
        .post(
            &format!("{path}/packet_rate_limit_rules"),
            json!({"packet_rate_limit_rule": {"max_kpps": 10, "max_burst_kpps": 5}}),
        )
        .await;
    assert_eq!(rates.status, StatusCode::CREATED);
    let marks = format!("{path}/dscp_marking_rules");
    rest.post(&marks, json!({"dscp_marking_rule": {"dscp_mark": 9}}))
        .await
        .refused(400, "HTTPBadRequest", "is not in");
    let mark = rest
        .post(&marks, json!({"dscp_marking_rule": {"dscp_mark": "26"}}))
        .await;
    let mark = mark.body["dscp_marking_rule"].clone();
    let one = format!("{limits}/{}", text(&rule, "id"));
    let changed = rest.put(&one, wrapped(json!({"max_kbps": 3000}))).await;
    assert_eq!(changed.body["bandwidth_limit_rule"]["max_kbps"], 3000);
    assert_eq!(rest.get(&one).await.body, changed.body);
    let shown = rest.get(&path).await.body["policy"].clone();
    assert_eq!(shown["revision_number"], 5);
    let rules = shown["rules"].as_array().unwrap();
    let expected = json!({"id": mark["id"], "type": "dscp_marking", "dscp_mark": 26,
        "qos_policy_id": policy["id"]});
    assert!(rules.len() == 4 && rules.contains(&expected), "{rules:?}");
    let stray = format!("{limits}/{}", text(&mark, "id"));
    rest.get(&stray)
        .await
        .refused(404, "QosRuleNotFound", text(&mark, "id"));
    assert_eq!(rest.delete(&one).await.status, StatusCode::NO_CONTENT);
    rest.delete(&one)
        .await
        .refused(404, "QosRuleNotFound", text(&policy, "id"));
    let nobody = format!("/v2.0/qos/policies/{}/dscp_marking_rules", Uuid::nil());
    rest.get(&nobody)
        .await
        .refused(404, "QosPolicyNotFound", "QoS policy");
}

#[tokio::test]
async fn rules_have_aliases_without_their_policy() {
    let rest = Rest::new();
    let policy = rest.create("policy", json!({})).await;
    let path = format!(
        "/v2.0/qos/policies/{}/dscp_marking_rules",
        text(&policy, "id")
    );
    let made = rest
        .post(&path, json!({"dscp_marking_rule": {"dscp_mark": 26}}))
        .await;
    let rule = made.body["dscp_marking_rule"].clone();
    for kind in ["alias_dscp_marking_rules", "alias-dscp-marking-rules"] {
        let alias = format!("/v2.0/qos/{kind}/{}", text(&rule, "id"));
        let shown = rest.get(&alias).await.body;
        assert_eq!(shown["alias_dscp_marking_rule"]["id"], rule["id"]);
        let change = json!({"alias_dscp_marking_rule": {"dscp_mark": 46}});
        let changed = rest.put(&alias, change).await.body;
        assert_eq!(changed["alias_dscp_marking_rule"]["dscp_mark"], 46);
    }
    let other = format!(
        "/v2.0/qos/alias_bandwidth_limit_rules/{}",
        text(&rule, "id")
    );
    rest.get(&other).await.refused(404, "QosRuleNotFound", "");
    let alias = format!("/v2.0/qos/alias_dscp_marking_rules/{}", text(&rule, "id"));
    assert_eq!(rest.delete(&alias).await.status, StatusCode::NO_CONTENT);
    rest.get(&alias).await.refused(404, "QosRuleNotFound", "");
}

#[tokio::test]
async fn types_of_rules_are_told_and_others_refused() {
    let rest = Rest::new();
    let types = rest.get("/v2.0/qos/rule-types").await.body;
    let types = types["rule_types"].as_array().unwrap();
    assert_eq!(types.len(), 3);
    for kind in types {
        let path = format!("/v2.0/qos/rule-types/{}", text(kind, "type"));
        let shown = rest.get(&path).await.body["rule_type"].clone();
        assert_eq!(shown["type"], kind["type"]);
        assert_eq!(shown["drivers"][0]["name"], "sluice");
    }
    rest.get("/v2.0/qos/rule-types/minimum_bandwidth")
        .await
        .refused(404, "QosRuleTypeNotFound", "minimum_bandwidth");
    let policy = rest.create("policy", json!({})).await;
    for kind in ["minimum_bandwidth", "minimum_packet_rate"] {
        let path = format!("/v2.0/qos/policies/{}/{kind}_rules", text(&policy, "id"));
        rest.post(&path, json!({}))
            .await
            .refused(400, "HTTPBadRequest", "not supported");
        assert_eq!(
            rest.get(&path).await.body[format!("{kind}_rules")],
            json!([])
        );
    }
}

#[tokio::test]
async fn a_policy_in_use_stays_and_has_tags() {
    let rest = Rest::new();
    let policy = rest.create("policy", json!({"name": "gold"})).await;
    let id = text(&policy, "id");
    let net = rest.create("network", json!({"qos_policy_id": id})).await;
    let port = rest.create("port", json!({"network_id": net["id"]})).await;
    assert_eq!(port["qos_policy_id"], Value::Null);
    assert_eq!(port["qos_network_policy_id"], policy["id"]);
    let path = format!("/v2.0/qos/policies/{id}");
    rest.delete(&path)
        .await
        .refused(409, "QosPolicyInUse", text(&net, "id"));
    rest.post(
        "/v2.0/networks",
        json!({"network": {"qos_policy_id": Uuid::nil()}}),
    )
    .await
    .refused(404, "QosPolicyNotFound", "");
    for tags in [format!("/v2.0/policies/{id}/tags"), format!("{path}/tags")] {
        let put = rest.put(&tags, json!({"tags": ["a"]})).await;
        assert_eq!(put.status, StatusCode::OK);
    }
    let found = rest
        .get("/v2.0/qos/policies?tags=a&fields=name&limit=1")
        .await
        .body;
    assert_eq!(found["policies"], json!([{"name": "gold"}]));
    let net_path = format!("/v2.0/networks/{}", text(&net, "id"));
    rest.put(&net_path, json!({"network": {"qos_policy_id": null}}))
        .await;
    assert_eq!(rest.delete(&path).await.status, StatusCode::NO_CONTENT);
    let of_project = json!({"is_default": true, "project_id": "p"});
    rest.create("policy", of_project.clone()).await;
    rest.post("/v2.0/qos/policies", json!({"policy": of_project}))
        .await
        .refused(409, "QoSPolicyDefaultAlreadyExists", "p");
}
