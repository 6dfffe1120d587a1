use super::*;

#[tokio::test]
async fn a_group_shows_its_rules_and_they_go_with_it() {
    let rest = Rest::new();
    let attributes = json!({"name": "web", "description": "d", "project_id": "p"});
    let group = rest.create("security_group", attributes).await;
    assert_eq!(
        (&group["stateful"], &group["shared"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(group["security_group_rules"].as_array().unwrap().len(), 2);
    let rule = json!({"security_group_id": group["id"], "direction": "ingress",
        "protocol": 6, "port_range_min": 80, "port_range_max": "80",
        "remote_ip_prefix": "10.0.0.0/8", "description": "http"});
    let rule = rest.create("security_group_rule", rule).await;
    assert_eq!(rule["protocol"], "6");
    assert_eq!(rule["ethertype"], "IPv4");
    assert_eq!(rule["normalized_cidr"], "10.0.0.0/8");
    assert_eq!(rule["belongs_to_default_sg"], false);
    assert_eq!(rule["project_id"], "p");
    assert!(rule.get("name").is_none());
    let path = format!("/v2.0/security-groups/{}", text(&group, "id"));
    let shown = rest.get(&path).await.body["security_group"].clone();
    assert!(
        shown["security_group_rules"]
            .as_array()
            .unwrap()
            .contains(&rule)
    );
    assert_eq!(shown["revision_number"], 1);
    let query = format!(
        "security_group_id={}&direction=ingress&protocol=6",
        text(&group, "id")
    );
    let found = rest
        .get(&format!("/v2.0/security-group-rules?{query}"))
        .await;
    assert_eq!(found.body["security_group_rules"], json!([rule]));
    let of_project = "/v2.0/security-groups?project_id=p&fields=name&sort_key=name";
    assert_eq!(
        rest.get(of_project).await.body["security_groups"],
        json!([{"name": "default"}, {"name": "web"}])
    );
    let rule_path = format!("/v2.0/security-group-rules/{}", text(&rule, "id"));
    rest.put(
        &rule_path,
        json!({"security_group_rule": {"description": "x"}}),
    )
    .await
    .refused(405, "HTTPMethodNotAllowed", "");
    assert_eq!(rest.delete(&path).await.status, StatusCode::NO_CONTENT);
    rest.get(&rule_path)
        .await
        .refused(404, "SecurityGroupRuleNotFound", "does not exist");
    rest.get(&path)
        .await
        .refused(404, "SecurityGroupNotFound", "does not exist");
}

#[tokio::test]
async fn rules_are_created_in_bulk_and_each_once() {
    let rest = Rest::new();
    let group = rest.create("security_group", json!({})).await;
    let rule = |port: u16| {
        json!({"security_group_id": group["id"], "direction": "ingress", "protocol": "tcp",
            "port_range_min": port, "port_range_max": port})
    };
    let path = "/v2.0/security-group-rules";
    let made = rest
        .post(path, json!({"security_group_rules": [rule(80), rule(443)]}))
        .await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(
        made.body["security_group_rules"].as_array().unwrap().len(),
        2
    );
    rest.post(path, json!({"security_group_rules": [rule(22), rule(22)]}))
        .await
        .refused(409, "SecurityGroupRuleExists", "");
    let existing = text(&made.body["security_group_rules"][0], "id");
    rest.post(path, json!({"security_group_rule": rule(80)}))
        .await
        .refused(409, "SecurityGroupRuleExists", existing);
    let all = rest.get(path).await.body;
    assert_eq!(
        all["security_group_rules"].as_array().unwrap().len(),
        4 + 2 + 2
    );
}

#[tokio::test]
async fn refusals_of_rules_have_neutrons_types() {
    let rest = Rest::new();
    let group = rest.create("security_group", json!({})).await;
    for (with, status, kind) in [
        (
            json!({"protocol": "x"}),
            400,
            "SecurityGroupRuleInvalidProtocol",
        ),
        (
            json!({"ethertype": "x"}),
            400,
            "SecurityGroupRuleInvalidEtherType",
        ),
        (
            json!({"port_range_min": 5}),
            400,
            "SecurityGroupProtocolRequiredWithPorts",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": 70000, "port_range_max": 70000}),
            400,
            "SecurityGroupInvalidPortValue",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": 9, "port_range_max": 8}),
            400,
            "SecurityGroupInvalidPortRange",
        ),
        (
            json!({"protocol": "esp", "port_range_min": 9, "port_range_max": 9}),
            400,
            "SecurityGroupInvalidProtocolForPort",
        ),
        (
            json!({"protocol": "icmp", "port_range_max": 9}),
            400,
            "SecurityGroupMissingIcmpType",
        ),
        (
            json!({"protocol": "icmp", "port_range_min": 300}),
            400,
            "SecurityGroupInvalidIcmpValue",
        ),
        (
            json!({"protocol": "icmp", "port_range_min": 8, "port_range_max": 256}),
            400,
            "SecurityGroupInvalidIcmpValue",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": 0, "port_range_max": 80}),
            400,
            "SecurityGroupInvalidPortValue",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": 80}),
            400,
            "SecurityGroupInvalidPortRange",
        ),
        (
            json!({"protocol": "udp", "port_range_min": -1, "port_range_max": 80}),
            400,
            "SecurityGroupInvalidPortValue",
        ),
        (
            json!({"protocol": 256}),
            400,
            "SecurityGroupRuleInvalidProtocol",
        ),
        (
            json!({"port_range_min": 80, "port_range_max": 80}),
            400,
            "SecurityGroupProtocolRequiredWithPorts",
        ),
        (
            json!({"ethertype": "IPv6", "remote_ip_prefix": "10.0.0.0/8"}),
            400,
            "SecurityGroupRuleParameterConflict",
        ),
        (
            json!({"remote_group_id": group["id"], "remote_address_group_id": Uuid::nil()}),
            400,
            "SecurityGroupMultipleRemoteEntites",
        ),
        (
            json!({"protocol": "ipv6-icmp"}),
            400,
            "SecurityGroupEthertypeConflictWithProtocol",
        ),
        (
            json!({"remote_ip_prefix": "fd00::/8"}),
            400,
            "SecurityGroupRuleParameterConflict",
        ),
        (json!({"remote_ip_prefix": "ten"}), 400, "InvalidCIDR"),
        (
            json!({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": group["id"]}),
            400,
            "SecurityGroupMultipleRemoteEntites",
        ),
        (
            json!({"remote_group_id": Uuid::nil()}),
            404,
            "SecurityGroupNotFound",
        ),
        (
            json!({"remote_address_group_id": Uuid::nil()}),
            404,
            "AddressGroupNotFound",
        ),
        (json!({"direction": "up"}), 400, "HTTPBadRequest"),
        (json!({"direction": null}), 400, "HTTPBadRequest"),
    ] {
        let mut rule = json!({"security_group_id": group["id"], "direction": "ingress"});
        rule.as_object_mut()
            .unwrap()
            .extend(with.as_object().unwrap().clone());
        rest.post(
            "/v2.0/security-group-rules",
            json!({"security_group_rule": rule}),
        )
        .await
        .refused(status, kind, "");
    }
}

#[tokio::test]
async fn default_groups_and_groups_in_use_stay() {
    let rest = Rest::new();
    let net = rest.create("network", json!({})).await;
    let port = rest.create("port", json!({"network_id": net["id"]})).await;
    let default = port["security_groups"][0].as_str().unwrap().to_owned();
    let path = format!("/v2.0/security-groups/{default}");
    assert_eq!(
        rest.get(&path).await.body["security_group"]["name"],
        "default"
    );
    rest.delete(&path)
        .await
        .refused(409, "SecurityGroupInUse", &default);
    let found = rest
        .get(&format!("/v2.0/ports?security_groups={default}"))
        .await
        .body;
    assert_eq!(found["ports"], json!([port]));
    rest.delete(&format!("/v2.0/ports/{}", text(&port, "id")))
        .await;
    rest.delete(&path)
        .await
        .refused(409, "SecurityGroupCannotRemoveDefault", "");
    rest.put(&path, json!({"security_group": {"name": "other"}}))
        .await
        .refused(409, "SecurityGroupCannotUpdateDefault", "");
    rest.post(
        "/v2.0/security-groups",
        json!({"security_group": {"name": "default"}}),
    )
    .await
    .refused(409, "SecurityGroupDefaultAlreadyExists", "");
}

#[tokio::test]
async fn ports_take_and_show_what_secures_them() {
    let rest = Rest::new();
    let net = rest
        .create("network", json!({"dns_domain": "Example.ORG."}))
        .await;
    assert_eq!(net["port_security_enabled"], true);
    let subnet = json!({"network_id": net["id"], "cidr": "10.0.0.0/24", "ip_version": 4});
    rest.create("subnet", subnet).await;
    let attributes = json!({"network_id": net["id"], "dns_name": "VM-1",
        "allowed_address_pairs": [{"ip_address": "10.0.0.9"},
            {"ip_address": "10.1.0.0/16", "mac_address": "02:00:00:00:00:09"}],
        "extra_dhcp_opts": [{"opt_name": 150, "opt_value": "192.0.2.1"}]});
    let port = rest.create("port", attributes).await;
    assert_eq!(port["port_security_enabled"], true);
    assert_eq!(
        port["allowed_address_pairs"],
        json!([{"ip_address": "10.0.0.9", "mac_address": port["mac_address"]},
            {"ip_address": "10.1.0.0/16", "mac_address": "02:00:00:00:00:09"}])
    );
    assert_eq!(
        port["extra_dhcp_opts"],
        json!([{"opt_name": "150", "opt_value": "192.0.2.1", "ip_version": 4}])
    );
    assert_eq!(
        port["dns_assignment"],
        json!([{"hostname": "vm-1", "ip_address": "10.0.0.2", "fqdn": "vm-1.example.org."}])
    );
    let path = format!("/v2.0/ports/{}", text(&port, "id"));
    let change = async |with: Value| rest.put(&path, json!({"port": with})).await;
    let off = json!({"port_security_enabled": false});
    change(off.clone())
        .await
        .refused(409, "AddressPairAndPortSecurityRequired", "");
    let none = json!({"port_security_enabled": false, "allowed_address_pairs": null});
    change(none)
        .await
        .refused(409, "PortSecurityPortHasSecurityGroup", "");
    let none = json!({"port_security_enabled": false, "allowed_address_pairs": [],
        "security_groups": null, "extra_dhcp_opts": null, "dns_name": ""});
    let bare = change(none).await.body["port"].clone();
    assert_eq!(bare["security_groups"], json!([]));
    assert_eq!(bare["dns_assignment"][0]["hostname"], "host-10-0-0-2");
    assert_eq!(bare["extra_dhcp_opts"].as_array().unwrap().len(), 1);
    change(json!({"security_groups": port["security_groups"]}))
        .await
        .refused(400, "PortSecurityAndIPRequiredForSecurityGroups", "");
    for (with, words) in [
        (
            json!({"allowed_address_pairs": [{"ip_address": "10.0.0.1/8"}]}),
            "is recommended",
        ),
        (
            json!({"allowed_address_pairs": [{"mac_address": "02:00:00:00:00:01"}]}),
            "missing",
        ),
        (
            json!({"allowed_address_pairs": vec![json!({}); 11]}),
            "10 is the most",
        ),
        (
            json!({"extra_dhcp_opts": [{"opt_name": "mtu"}]}),
            "opt_value is missing",
        ),
        (
            json!({"extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": "1", "ip_version": 5}]}),
            "is not in [4, 6]",
        ),
        (json!({"dns_name": "-a"}), "not a valid PQDN or FQDN"),
        (json!({"dns_name": "a.1"}), "not a valid PQDN or FQDN"),
        (json!({"security_groups": "x"}), "is not a list"),
    ] {
        change(with).await.refused(400, "HTTPBadRequest", words);
    }
    change(json!({"extra_dhcp_opts": [{"opt_name": "nonsense", "opt_value": "1"}]}))
        .await
        .refused(400, "InvalidInput", "no DHCP option \"nonsense\"");
    rest.post(
        "/v2.0/networks",
        json!({"network": {"dns_domain": "example.org"}}),
    )
    .await
    .refused(400, "HTTPBadRequest", "not a FQDN");
}

#[tokio::test]
async fn address_groups_grow_and_shrink() {
    let rest = Rest::new();
    let group = json!({"name": "g", "addresses": ["10.1.0.0/16", "fd00::/64"]});
    let group = rest.create("address_group", group).await;
    let path = format!("/v2.0/address-groups/{}", text(&group, "id"));
    let act = async |action: &str, addresses: Value| {
        rest.put(
            &format!("{path}/{action}_addresses"),
            json!({"addresses": addresses}),
        )
        .await
    };
    let more = act("add", json!(["10.2.0.1/32"])).await;
    let addresses = &more.body["address_group"]["addresses"];
    assert_eq!(
        *addresses,
        json!(["10.1.0.0/16", "10.2.0.1/32", "fd00::/64"])
    );
    act("add", json!(["10.2.0.1/32"]))
        .await
        .refused(400, "AddressesAlreadyExist", "10.2.0.1/32");
    act("remove", json!(["10.3.0.0/16"]))
        .await
        .refused(404, "AddressesNotFound", "10.3.0.0/16");
    act("add", json!(["10.2.0.1"]))
        .await
        .refused(400, "HTTPBadRequest", "not a valid IP subnet");
    act("add", json!("x"))
        .await
        .refused(400, "HTTPBadRequest", "is not a list");
    rest.put(&path, json!({"address_group": {"addresses": []}}))
        .await
        .refused(400, "HTTPBadRequest", "read-only attribute addresses");
    let less = act("remove", json!(["fd00::/64"])).await;
    assert_eq!(less.body["address_group"]["revision_number"], 2);
    let security = rest.create("security_group", json!({})).await;
    let rule = json!({"security_group_id": security["id"], "direction": "egress",
        "remote_address_group_id": group["id"]});
    rest.create("security_group_rule", rule).await;
    rest.delete(&path)
        .await
        .refused(409, "AddressGroupInUse", text(&group, "id"));
    rest.delete(&format!("/v2.0/security-groups/{}", text(&security, "id")))
        .await;
    assert_eq!(rest.delete(&path).await.status, StatusCode::NO_CONTENT);
}
