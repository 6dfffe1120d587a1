//! What cannot be asked, and NVEs that cannot answer.

use super::*;

#[track_caller]
fn told(answer: &Answer, status: u16, code: &str, field: Option<&str>, words: &str) {
    answer.failed(status, code, field);
    let message = answer.body["error"]["message"].as_str().unwrap();
    assert!(message.contains(words), "{message}");
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_told() {
    let world = World::new().await;
    let spare = network(&world.rest, "spare", 9).await;
    let bare = json!({"gateway_ip": null});
    let path = format!(
        "/v2.0/subnets/{}",
        text(&json!({"id": spare["subnet"]}), "id")
    );
    world.rest.put(&path, json!({"subnet": bare})).await;
    let lone = port(&world.rest, &spare, "lone", "10.0.9.5", 109).await;
    place(&world.fabric, "c1", "host-1", &lone, 109).await;
    for (request, status, code, field, words) in [
        (
            json!({"icmp": "10.0.0.1"}),
            400,
            "invalid",
            "port",
            "from_vtep with vni",
        ),
        (
            json!({"port": "web-1"}),
            400,
            "invalid",
            "tcp",
            "exactly one",
        ),
        (
            json!({"port": "web-1", "icmp": "10.0.0.1", "arp": "10.0.0.1"}),
            400,
            "invalid",
            "tcp",
            "exactly one",
        ),
        (
            json!({"port": "web-9", "icmp": "10.0.0.1"}),
            400,
            "invalid",
            "port",
            "no port \"web-9\"",
        ),
        (
            json!({"port": "db-1", "icmp": "10.0.0.1"}),
            409,
            "conflict",
            "",
            "port db-1 (vm b1) is on NVE nve-2 (host host-2), not on nve-1",
        ),
        (
            json!({"port": "web-1", "icmp": "10.0.0.99"}),
            400,
            "invalid",
            "icmp",
            "nobody on the network has 10.0.0.99 so the VM would get no answer to its ARP",
        ),
        (
            json!({"port": "lone", "tcp": "10.0.0.1:1"}),
            400,
            "invalid",
            "tcp",
            "has no gateway",
        ),
        (
            json!({"port": "web-1", "icmp": "fd00::1"}),
            400,
            "invalid",
            "icmp",
            "no IPv6 address",
        ),
        (
            json!({"port": "web-1", "icmp": "fd00::1", "from": "10.0.0.11"}),
            400,
            "invalid",
            "from",
            "IP version",
        ),
        (
            json!({"port": "web-1", "tcp": "10.0.0.1:1", "flags": "Q"}),
            400,
            "invalid",
            "flags",
            "FSRPAUEC",
        ),
        (
            json!({"port": "web-1", "icmp": "10.0.0.1", "flags": "S"}),
            400,
            "invalid",
            "flags",
            "only TCP",
        ),
        (
            json!({"port": "web-1", "arp": "10.0.0.1", "size": 99}),
            400,
            "invalid",
            "size",
            "are for tcp",
        ),
        (
            json!({"port": "web-1", "tcp": "10.0.0.1:1", "size": 39}),
            400,
            "invalid",
            "size",
            "cannot hold its headers, which have 40",
        ),
        (
            json!({"port": "web-1", "tcp": "10.0.0.1:1", "size": 9999}),
            400,
            "invalid",
            "size",
            "longer than 9216",
        ),
        (
            json!({"port": "web-1", "protocol": 47}),
            400,
            "invalid",
            "protocol",
            "go together",
        ),
        (
            json!({"port": "web-1", "frame": "xy"}),
            400,
            "invalid",
            "frame",
            "hexadecimal",
        ),
        (
            json!({"port": "web-1", "frame": "00"}),
            400,
            "invalid",
            "frame",
            "14 to 9216",
        ),
        (
            json!({"port": "web-1", "frame": "01".repeat(513)}),
            400,
            "invalid",
            "frame",
            "only zeros",
        ),
        (
            json!({"port": "web-1", "frame": "01".repeat(60), "from": "10.0.0.1"}),
            400,
            "invalid",
            "frame",
            "in it",
        ),
        (
            json!({"from_vtep": "192.0.2.2", "vni": 99, "icmp": "10.0.0.1"}),
            400,
            "invalid",
            "vni",
            "no network has VNI 99",
        ),
        (
            json!({"port": "web-1", "tcp": "10.0.0.1"}),
            400,
            "malformed",
            "tcp",
            "socket address",
        ),
        (
            json!({"port": "web-1", "icmp": "10.0.0.1", "from": "x"}),
            400,
            "malformed",
            "from",
            "10.0.0.11:40000",
        ),
        (
            json!({"port": "web-1", "icmp": "10.0.0.1", "colour": 1}),
            400,
            "malformed",
            "colour",
            "unknown field",
        ),
    ] {
        let field = Some(field).filter(|field| !field.is_empty());
        told(&world.trace(request).await, status, code, field, words);
    }
    let vni = world.vni("blue").await;
    let request = json!({"from_vtep": "192.0.2.2", "vni": vni, "icmp": "10.0.0.11"});
    told(
        &world.trace(request).await,
        400,
        "invalid",
        Some("from"),
        "out of the tunnel",
    );
    let request =
        json!({"from_vtep": "192.0.2.2", "vni": vni, "icmp": "10.0.0.11", "from": "10.0.0.77"});
    told(
        &world.trace(request).await,
        400,
        "invalid",
        Some("from_mac"),
        "nobody has 10.0.0.77",
    );
}

#[tokio::test]
async fn several_ports_of_one_name_are_told_apart_by_where_they_are() {
    let world = World::new().await;
    let blue = world.rest.get("/v2.0/networks?name=blue").await.body["networks"][0].clone();
    let twin = port(&world.rest, &blue, "web-1", "10.0.0.21", 121).await;
    world
        .probe(json!({"port": "web-1", "icmp": "10.0.0.1"}))
        .await;
    let request = json!({"port": twin["id"], "icmp": "10.0.0.1"});
    told(
        &world.trace(request).await,
        409,
        "conflict",
        None,
        "is on no NVE",
    );
    place(&world.fabric, "a2", "host-1", &twin, 121).await;
    let request = json!({"port": "web-1", "icmp": "10.0.0.1"});
    told(
        &world.trace(request).await,
        400,
        "invalid",
        Some("port"),
        "2 ports \"web-1\"",
    );
    let elsewhere = world.path(1, "trace");
    let answer = world
        .rest
        .post(&elsewhere, json!({"port": "web-1", "icmp": "10.0.0.1"}))
        .await;
    told(&answer, 409, "conflict", None, "none of the 2 ports");
}

#[tokio::test]
async fn an_nve_that_cannot_answer_is_told() {
    let world = World::new().await;
    let request = json!({"port": "web-1", "icmp": "10.0.0.1"});
    let stranger = format!("/v1/nves/{}/trace", Uuid::new_v4());
    let answer = world.rest.post(&stranger, request.clone()).await;
    answer.failed(404, "not_found", None);
    told(
        &world.trace(request.clone()).await,
        503,
        "unavailable",
        None,
        "NVE nve-1 is not connected",
    );
    for (failure, status, code, field, words) in [
        (
            Failure::NoVap,
            409,
            "conflict",
            None,
            "does not have the port in force",
        ),
        (Failure::Busy, 409, "conflict", None, "another capture"),
        (
            Failure::OutOfMemory,
            503,
            "unavailable",
            None,
            "short of memory",
        ),
        (
            Failure::BadProbe,
            400,
            "invalid",
            Some("frame"),
            "no Ethernet frame",
        ),
    ] {
        let _nve = world.script(0, move |_| Some(Err(failure)));
        told(
            &world.trace(request.clone()).await,
            status,
            code,
            field,
            words,
        );
    }
    let _silent = world.script(0, |_| None);
    told(
        &world.trace(request).await,
        503,
        "unavailable",
        None,
        "did not answer in time",
    );
    for (query, words) in [
        ("drops?after=x", "after"),
        ("flows?colour=1", "colour"),
        ("capture", "port"),
        ("capture?port=web-1&snap=0", "at least one byte"),
    ] {
        let answer = world.rest.get(&world.path(0, query)).await;
        assert_eq!(answer.body["error"]["code"], "invalid", "{}", answer.body);
        assert!(
            answer.body["error"]["message"]
                .as_str()
                .unwrap()
                .contains(words),
            "{}",
            answer.body
        );
    }
}
