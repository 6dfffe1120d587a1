use super::*;

/// Names of the networks that the query gives.
async fn names(rest: &Rest, query: &str) -> Vec<String> {
    let answer = rest.get(&format!("/v2.0/networks?{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.body);
    listed(&answer)
}

fn listed(answer: &Answer) -> Vec<String> {
    answer.body["networks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|network| text(network, "name").to_owned())
        .collect()
}

async fn with_networks(count: usize) -> Rest {
    let rest = Rest::new();
    for n in 0..count {
        let attributes = json!({"name": format!("n{n}"), "admin_state_up": n % 2 == 0,
            "description": if n < 2 { "low" } else { "" }, "mtu": 1400 + n});
        rest.create("network", attributes).await;
    }
    rest
}

#[tokio::test]
async fn filters_are_ors_of_values_and_ands_of_attributes() {
    let rest = with_networks(4).await;
    for (query, expected) in [
        ("name=n1", vec!["n1"]),
        ("name=n1&name=n2", vec!["n1", "n2"]),
        ("name=n1&name=n2&admin_state_up=True", vec!["n2"]),
        ("admin_state_up=false", vec!["n1", "n3"]),
        ("description=", vec!["n2", "n3"]),
        ("mtu=1403", vec!["n3"]),
        ("provider:network_type=vxlan&name=n0", vec!["n0"]),
        ("provider%3Asegmentation_id=4097", vec!["n1"]),
        ("id=nonsense", vec![]),
        ("tenant_id=&name=n0", vec!["n0"]),
    ] {
        assert_eq!(
            names(&rest, &format!("{query}&sort_key=name")).await,
            expected,
            "{query}"
        );
    }
    for (query, words) in [
        ("colour=red", "filtering"),
        ("admin_state_up=maybe", "boolean"),
        ("mtu=big", "integer"),
        ("sort_key=colour", "sort_keys"),
        ("sort_key=name&sort_dir=up", "sort_dirs"),
        ("sort_dir=asc", "must be same"),
        ("limit=-1", "Limit must be"),
        ("limit=x", "Limit must be"),
    ] {
        rest.get(&format!("/v2.0/networks?{query}"))
            .await
            .refused(400, "HTTPBadRequest", words);
    }
}

#[tokio::test]
async fn ports_are_found_by_address() {
    let rest = Rest::new();
    let net = rest.create("network", json!({})).await;
    for (cidr, version) in [("10.0.0.0/24", 4), ("fd00::/64", 6)] {
        let attributes = json!({"network_id": net["id"], "cidr": cidr, "ip_version": version});
        rest.create("subnet", attributes).await;
    }
    let one = rest.create("port", json!({"network_id": net["id"]})).await;
    let two = rest.create("port", json!({"network_id": net["id"]})).await;
    let subnet = text(&one["fixed_ips"][0], "subnet_id");
    let of_subnet = format!("fixed_ips=subnet_id={subnet}");
    for (query, expected) in [
        ("fixed_ips=ip_address=10.0.0.2".to_owned(), vec![&one]),
        (
            "fixed_ips=ip_address=10.0.0.2&fixed_ips=ip_address=10.0.0.3".to_owned(),
            vec![&one, &two],
        ),
        (
            format!("{of_subnet}&fixed_ips=ip_address=10.0.0.3"),
            vec![&two],
        ),
        (format!("{of_subnet}&fixed_ips=ip_address=fd00::2"), vec![]),
        ("fixed_ips=ip_address_substr=0.3".to_owned(), vec![&two]),
        ("fixed_ips=nonsense".to_owned(), vec![]),
    ] {
        let found = rest
            .get(&format!("/v2.0/ports?{query}&sort_key=created_at"))
            .await
            .body;
        let mut found: Vec<&Value> = found["ports"].as_array().unwrap().iter().collect();
        let mut expected = expected;
        found.sort_by_key(|p| text(p, "id"));
        expected.sort_by_key(|p| text(p, "id"));
        assert_eq!(found, expected, "{query}");
    }
}

/// Follows links of that relation from `path` to the end.
async fn walk(rest: &Rest, path: &str, rel: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let answer = rest.get(&path).await;
        pages.push(listed(&answer));
        let links = answer.body["networks_links"].as_array().cloned();
        next = links
            .unwrap_or_default()
            .iter()
            .find(|link| link["rel"] == rel)
            .map(|link| text(link, "href").replace("http://shim.example:9696", ""));
    }
    pages
}

#[tokio::test]
async fn pages_can_be_walked_both_ways() {
    let rest = with_networks(5).await;
    let forward = walk(&rest, "/v2.0/networks?sort_key=name&limit=2", "next").await;
    assert_eq!(forward, [vec!["n0", "n1"], vec!["n2", "n3"], vec!["n4"]]);
    let path = "/v2.0/networks?sort_key=name&limit=2&page_reverse=True";
    let backward = walk(&rest, path, "previous").await;
    assert_eq!(backward, [vec!["n3", "n4"], vec!["n1", "n2"], vec!["n0"]]);
    let all = rest.get("/v2.0/networks").await;
    assert!(all.body.get("networks_links").is_none());
    let exact = walk(&rest, "/v2.0/networks?limit=5", "next").await;
    assert_eq!(exact.len(), 1, "no link to an empty page");
}

#[tokio::test]
async fn sorting_takes_several_keys_and_directions() {
    let rest = with_networks(4).await;
    let query = "sort_key=admin_state_up&sort_dir=desc&sort_key=mtu&sort_dir=desc";
    assert_eq!(names(&rest, query).await, ["n2", "n0", "n3", "n1"]);
    let by_id = names(&rest, "sort_key=id").await;
    assert_eq!(
        names(&rest, "").await,
        by_id,
        "the order is that of ids by default"
    );
}

#[tokio::test]
async fn a_marker_that_is_gone_is_not_found() {
    let rest = with_networks(1).await;
    let gone = Uuid::new_v4();
    for marker in [gone.to_string(), "nonsense".to_owned()] {
        rest.get(&format!("/v2.0/networks?limit=1&marker={marker}"))
            .await
            .refused(404, "NetworkNotFound", &marker);
    }
}

#[tokio::test]
async fn fields_choose_what_is_shown() {
    let rest = with_networks(1).await;
    let all = rest
        .get("/v2.0/networks?fields=name&fields=mtu&fields=x")
        .await;
    let shown = &all.body["networks"][0];
    assert_eq!(*shown, json!({"name": "n0", "mtu": 1400}));
    let id = rest.get("/v2.0/networks?fields=id").await.body["networks"][0]["id"].clone();
    let path = format!("/v2.0/networks/{}?fields=name", id.as_str().unwrap());
    assert_eq!(
        rest.get(&path).await.body,
        json!({"network": {"name": "n0"}})
    );
}
