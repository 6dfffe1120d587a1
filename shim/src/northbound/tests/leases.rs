//! VLAN leases as clients see them: exhaustion, clusters, restart, collisions.

use time::OffsetDateTime;

use super::*;
use crate::events::types::{EventType, LifecycleEvent};
use crate::store::EmbeddedStore;

/// Ports of one request: bodies are bounded.
const BATCH: usize = 500;

impl Rest {
    async fn network(&self) -> Value {
        self.create("network", json!({})).await
    }

    async fn port_on(&self, network: &Value, host: &str) -> Answer {
        let port = json!({"network_id": network["id"], "binding:host_id": host});
        self.post("/v2.0/ports", json!({"port": port})).await
    }

    /// As many ports on a host; their tags.
    async fn fill(&self, network: &Value, host: &str, count: usize) -> Vec<u64> {
        let port = json!({"network_id": network["id"], "binding:host_id": host});
        let mut tags = Vec::new();
        while tags.len() < count {
            let batch = vec![port.clone(); BATCH.min(count - tags.len())];
            let answer = self.post("/v2.0/ports", json!({"ports": batch})).await;
            assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
            let made = answer.body["ports"].as_array().unwrap();
            tags.extend(
                made.iter()
                    .map(|port| port["segmentation_id"].as_u64().unwrap()),
            );
        }
        tags
    }

    async fn tell(&self, kind: &str, vm: Uuid, host: &str, pg_name: &str, tag: u64) {
        let event = json!({
            "event_id": Uuid::new_v4(),
            "timestamp": "2026-01-01T00:00:00Z",
            "event_type": kind, "vm_name": "", "vm_uuid": vm, "vm_status": "running",
            "host_name": host, "host_uuid": Uuid::nil(), "vnic_list": [{
                "vnic_name": "", "vnic_uuid": Uuid::nil(), "pg_name": pg_name,
                "pg_uuid": Uuid::nil(), "mac": "02:00:00:00:00:01",
                "port_segmentation_id": tag,
            }],
        });
        let mut event: LifecycleEvent = serde_json::from_value(event).unwrap();
        event.timestamp = OffsetDateTime::now_utc();
        assert!(EventType::ALL.contains(&event.event_type));
        self.fabric.take_event("lab", event).await.unwrap();
    }

    async fn alarms(&self) -> Vec<Value> {
        let answer = self.get("/v1/alarms").await;
        answer.body["alarms"].as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn a_host_has_4094_tags_and_clusters_do_not_interfere() {
    let rest = Rest::new();
    let network = rest.network().await;
    let cluster = json!({"name": "east", "hosts": ["a"]});
    let east = rest.post("/v1/clusters", cluster).await;
    assert_eq!(east.status, StatusCode::CREATED, "{}", east.body);

    let mut tags = rest.fill(&network, "a", 4094).await;
    tags.sort_unstable();
    assert_eq!(tags, (1..=4094).collect::<Vec<_>>());
    let refused = rest.port_on(&network, "a").await;
    refused.refused(
        409,
        "NoSegmentationIdAvailable",
        "No segmentation_id is left on host a of cluster east: of 4094, 4094 are those of \
         ports bound to it",
    );

    let mut tags = rest.fill(&network, "b", 4094).await;
    tags.sort_unstable();
    assert_eq!(tags, (1..=4094).collect::<Vec<_>>());
    let path = format!("/v1/clusters/{}", text(&east.body, "id"));
    let full = json!({"leased": 4094, "seen": 0, "quarantined": 0, "reserved": 0, "free": 0});
    assert_eq!(rest.get(&path).await.body["tags"], full);
    let all = rest.get("/v1/clusters").await.body;
    assert_eq!(all["clusters"][0]["name"], "default");
    assert_eq!(all["clusters"][0]["tags"], full);
    assert!(rest.alarms().await.is_empty());
}

#[tokio::test]
async fn a_cluster_cannot_get_two_ports_of_one_tag() {
    let rest = Rest::new();
    let network = rest.network().await;
    let east = json!({"name": "east", "hosts": ["a"]});
    let east = rest.post("/v1/clusters", east).await.body;
    let path = format!("/v1/clusters/{}", text(&east, "id"));
    for host in ["a", "b"] {
        let port = json!({"network_id": network["id"], "binding:host_id": host,
            "segmentation_id": 9});
        rest.create("port", port).await;
    }
    let refused = rest.put(&path, json!({"hosts": ["a", "b"]})).await;
    refused.failed(409, "conflict", Some("hosts"));
    rest.delete(&path)
        .await
        .failed(409, "conflict", Some("hosts"));
    assert_eq!(rest.get(&path).await.body["hosts"], json!(["a"]));
}

#[tokio::test]
async fn leases_and_quarantine_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Rest::over(Box::new(EmbeddedStore::open(dir.path()).unwrap()));
    let rest = open();
    let cluster = json!({"name": "east", "hosts": ["a", "b"]});
    let east = rest.post("/v1/clusters", cluster).await.body;
    let leases = format!("/v1/clusters/{}/leases", text(&east, "id"));
    let network = rest.network().await;
    let kept = rest.port_on(&network, "a").await.body["port"].clone();
    let gone = rest.port_on(&network, "b").await.body["port"].clone();
    let path = format!("/v2.0/ports/{}", text(&gone, "id"));
    assert_eq!(rest.delete(&path).await.status, StatusCode::NO_CONTENT);
    let before = rest.get(&leases).await.body;
    assert_eq!(before["leases"][0]["state"], "leased");
    assert_eq!(before["leases"][0]["port_id"], kept["id"]);
    assert_eq!(before["leases"][1]["state"], "quarantined");
    drop(rest);

    let rest = open();
    assert_eq!(rest.get(&leases).await.body, before);
    let next = rest.port_on(&network, "b").await.body["port"].clone();
    assert_eq!(next["segmentation_id"], 3);
}

#[tokio::test]
async fn collisions_that_are_reported_are_alarms() {
    let rest = Rest::new();
    let network = rest.network().await;
    let nve = json!({"name": "nve-a", "host_name": "a", "vtep": "192.0.2.11",
        "public_key": "11".repeat(32)});
    rest.post("/v1/nves", nve).await;
    let first = rest.port_on(&network, "a").await.body["port"].clone();
    let second = rest.port_on(&network, "a").await.body["port"].clone();
    let (one, two) = (text(&first, "id"), text(&second, "id"));
    rest.tell("vmpoweron", Uuid::from_u128(1), "a", &format!("{one}_1"), 1)
        .await;
    assert!(rest.alarms().await.is_empty());
    let is_attached = |id: &str| rest.fabric.place(id.parse().unwrap()).is_some();
    assert!(is_attached(one));

    // The second port's group has been given the first one's tag.
    rest.tell("vmpoweron", Uuid::from_u128(2), "a", &format!("{two}_1"), 1)
        .await;
    let alarms = rest.alarms().await;
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert_eq!(alarms[0]["kind"], "tag_collision");
    assert_eq!(alarms[0]["host"], "a");
    assert_eq!(alarms[0]["segmentation_id"], 1);
    assert_eq!(
        alarms[0]["vms"],
        json!([Uuid::from_u128(1), Uuid::from_u128(2)])
    );
    assert!(!is_attached(one) && !is_attached(two));
    let metrics = rest.metrics().await;
    assert!(metrics.contains("sluice_alarms{kind=\"tag_collision\"} 1"));
    let placement = rest.get("/v1/placement").await.body;
    assert_eq!(placement["placement"][1]["progress"], "tag_collision");

    // It is put right.
    rest.tell("vifattach", Uuid::from_u128(2), "a", &format!("{two}_2"), 2)
        .await;
    assert!(rest.alarms().await.is_empty());
    assert!(is_attached(one) && is_attached(two));

    // Somebody else's port group, and a lease of another host.
    rest.tell("vmpoweron", Uuid::from_u128(3), "a", "VM Network", 2)
        .await;
    let alarms = rest.alarms().await;
    assert_eq!(alarms[0]["kind"], "tag_collision");
    assert!(
        is_attached(two),
        "its frames are told apart by their addresses"
    );
    rest.tell("vmpoweron", Uuid::from_u128(3), "b", "VM Network", 2)
        .await;
    assert!(rest.alarms().await.is_empty());
    let third = rest.port_on(&network, "b").await.body["port"].clone();
    let three = text(&third, "id");
    rest.tell(
        "vmpoweron",
        Uuid::from_u128(4),
        "b",
        &format!("{three}_1"),
        1,
    )
    .await;
    let alarms = rest.alarms().await;
    assert_eq!(alarms[0]["kind"], "tag_not_leased");
    assert!(text(&alarms[0], "message").contains("whose segmentation_id is 3"));
}

#[tokio::test]
async fn a_vm_that_moves_is_shown_where_it_is() {
    let rest = Rest::new();
    let network = rest.network().await;
    for (n, host) in [(11, "a"), (12, "b")] {
        let nve = json!({"name": format!("nve-{host}"), "host_name": host,
            "vtep": format!("192.0.2.{n}"), "public_key": format!("{n}").repeat(32)});
        rest.post("/v1/nves", nve).await;
    }
    let port = rest.port_on(&network, "a").await.body["port"].clone();
    let (port, vm) = (text(&port, "id"), Uuid::from_u128(1));
    let pg_name = format!("{port}_1");
    let shown = async || rest.get("/v1/placement").await.body["placement"][0].clone();
    rest.tell("vmpoweron", vm, "a", &pg_name, 1).await;
    let before = shown().await;
    assert_eq!(before["host_name"], "a");
    assert_eq!(before["migration"], Value::Null);
    assert_eq!(before["departed_from"], Value::Null);
    rest.tell("livemigratestart", vm, "a", &pg_name, 1).await;
    let started = shown().await;
    assert_eq!(started["host_name"], "a");
    assert_eq!(started["migration"]["to"], json!(["b"]));
    assert_eq!(started["migration"]["awake"], Value::Null);
    rest.tell("livemigratefinish", vm, "b", &pg_name, 1).await;
    let moved = shown().await;
    assert_eq!(moved["host_name"], "b");
    assert_eq!(moved["migration"], Value::Null);
    assert_eq!(moved["departed_from"], "a");
    assert_ne!(moved["nve_id"], before["nve_id"]);
    assert_eq!(moved["progress"], "pending");
}
