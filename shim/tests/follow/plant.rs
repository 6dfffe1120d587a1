//! A shim with its store on the disk and its REST interface on the loopback.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use shim::auth::{Credentials, Secret};
use shim::controller::Controller;
use shim::events::{StatusHandle, Subscriber, Timing};
use shim::fabric::Fabric;
use shim::handover;
use shim::http::{Client, server};
use shim::intent::Settings;
use shim::northbound::{self, Api};
use shim::store::EmbeddedStore;
use tokio::net::TcpListener;
use uuid::Uuid;

pub struct Plant {
    pub fabric: Fabric,
    pub rest: Client,
    pub managers: Vec<StatusHandle>,
    _data: tempfile::TempDir,
}

pub fn credentials() -> Credentials {
    Credentials::new("shim", Secret::new("x")).unwrap()
}

/// As in production, but without its patience.
fn timing() -> Timing {
    Timing {
        dead_after: Duration::from_secs(3),
        relist: Duration::from_secs(4),
        repair: Duration::from_millis(100),
        confirm: Duration::from_millis(500),
        backoff: Duration::from_millis(50),
        backoff_most: Duration::from_millis(500),
    }
}

impl Plant {
    /// A shim that follows the managers at these addresses.
    pub async fn start(managers: &[(String, String)]) -> Plant {
        let data = tempfile::tempdir().unwrap();
        let store = Box::new(EmbeddedStore::open(data.path()).unwrap());
        let controller = Controller::open(store, Settings::default()).unwrap();
        let fabric = Fabric::new(controller, Arc::default());
        // No NVE is ever connected, so none is waited for long.
        let patience = Duration::from_secs(1);
        let handover_timing = handover::Timing {
            patience,
            ..handover::Timing::default()
        };
        tokio::spawn(handover::run(fabric.clone(), handover_timing));
        let mut handles = Vec::new();
        for (name, url) in managers {
            let subscriber = Subscriber::new(name, url, credentials(), fabric.clone());
            let subscriber = subscriber.unwrap().with_timing(timing());
            handles.push(subscriber.status());
            tokio::spawn(subscriber.run());
        }
        let api = Api::new(fabric.clone()).with_managers(handles.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = northbound::router(api);
        tokio::spawn(server::serve(listener, app, std::future::pending()));
        Plant {
            fabric,
            rest: Client::new(&url, None).unwrap(),
            managers: handles,
            _data: data,
        }
    }

    /// Registers an NVE per host, numbered from 1.
    pub async fn nves(&self, hosts: &[String]) -> Vec<Uuid> {
        let mut ids = Vec::new();
        for (number, host) in (1u16..).zip(hosts) {
            let [high, low] = number.to_be_bytes();
            let nve = json!({"name": format!("nve-{host}"), "host_name": host,
                "vtep": format!("192.0.{high}.{low}"), "public_key": format!("{number:064x}")});
            let made: Value = self.rest.post_json("/v1/nves", &nve).await.unwrap();
            ids.push(made["id"].as_str().unwrap().parse().unwrap());
        }
        ids
    }

    pub async fn network(&self) -> String {
        let body = json!({"network": {}});
        let made: Value = self.rest.post_json("/v2.0/networks", &body).await.unwrap();
        made["network"]["id"].as_str().unwrap().to_owned()
    }

    /// As many ports of a network, bound to a host, which may be empty.
    pub async fn ports(&self, network: &str, host: &str, count: usize) -> Vec<Value> {
        let port = json!({"network_id": network, "binding:host_id": host});
        let body = json!({"ports": vec![port; count]});
        let made: Value = self.rest.post_json("/v2.0/ports", &body).await.unwrap();
        made["ports"].as_array().unwrap().clone()
    }

    /// Prometheus' samples whose name and labels contain these words.
    pub async fn samples(&self, words: &str) -> Vec<String> {
        use http_body_util::BodyExt as _;
        let body = self.rest.download("/metrics", "text/plain").await.unwrap();
        let text = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(text.to_vec()).unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .filter(|line| line.contains(words))
            .map(str::to_owned)
            .collect()
    }
}

/// A port's vNIC, as the lab takes it.
pub fn vnic(port: &Value) -> Value {
    let (id, tag) = (port["id"].as_str().unwrap(), &port["segmentation_id"]);
    json!({"vnic_uuid": id, "pg_name": format!("{id}_{tag}"), "mac": port["mac_address"],
        "port_segmentation_id": tag})
}
