//! The back end with libvirt's own test driver: a host in this process, with one domain
//! that runs, and a network. Real hosts are in the lab.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use sluice_libvirt::Part;

use super::*;
use crate::notice::config::LibvirtHost;

/// How many times something is looked for, and how long in between.
const TRIES: usize = 1000;
const PAUSE: Duration = Duration::from_millis(10);
const PORT: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
/// Read from a file it is each connection's own; `test:///default` would be one host for all
/// tests of this process.
const HOST: &str = concat!(
    "test://",
    env!("CARGO_MANIFEST_DIR"),
    "/libvirt/src/tests/host.xml"
);

fn config(state: &Path, uris: &[&str]) -> (Config, LibvirtConfig) {
    let names = ["hv", "hv2"].into_iter();
    let hosts = uris.iter().zip(names).map(|(uri, name)| LibvirtHost {
        uri: (*uri).to_owned(),
        name: Some(name.to_owned()),
    });
    let libvirt = LibvirtConfig {
        network: "default".to_owned(),
        trunk: "PG_Trunk".to_owned(),
        hosts: hosts.collect(),
    };
    let config = Config {
        state_dir: state.to_owned(),
        ..Config::default()
    };
    (config, libvirt)
}

fn start(state: &Path, uris: &[&str]) -> Arc<Libvirt> {
    let store = Arc::new(Store::open(&state.join("notice.redb")).unwrap());
    let (config, libvirt) = config(state, uris);
    Libvirt::start(&config, &libvirt, store).unwrap()
}

async fn ask(router: &Router, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
    let body = match body {
        Value::Null => Body::empty(),
        body => Body::from(body.to_string()),
    };
    let request = Request::builder().method(method).uri(path);
    let request = request.body(body).unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    let status = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// The connection to the first host, as soon as there is one.
async fn connected(backend: &Libvirt) -> Arc<sluice_libvirt::Connection> {
    for _ in 0..TRIES {
        if let Some(up) = backend.links[0].up() {
            return up.connection;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("the host is not connected");
}

#[tokio::test]
async fn a_host_is_followed_and_its_port_groups_are_ours() {
    let dir = tempfile::tempdir().unwrap();
    let backend = start(dir.path(), &[HOST]);
    let router = router(Arc::clone(&backend));
    for _ in 0..TRIES {
        if !backend.inventory().vms.is_empty() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let inventory = backend.inventory();
    let vm = inventory.vms.first().unwrap();
    assert_eq!((&*vm.vm_name, &*vm.host_name), ("test", "hv"));
    assert!(vm.vm_status.forwards());
    let (_, hosts) = ask(&router, Method::GET, "/v1/hosts", Value::Null).await;
    assert!(hosts["hosts"][0]["connected_since"].is_string(), "{hosts}");

    let path = "/v1/port-groups";
    let wanted = json!({"port_id": PORT, "segmentation_id": 101});
    for status in [StatusCode::CREATED, StatusCode::OK] {
        let (answered, group) = ask(&router, Method::POST, path, wanted.clone()).await;
        assert_eq!((answered, &group["hosts"]), (status, &json!(["hv"])));
    }
    let (status, _) = ask(&router, Method::POST, path, json!({"trunk": true})).await;
    assert_eq!(status, StatusCode::CREATED);
    let (_, listed) = ask(&router, Method::GET, path, Value::Null).await;
    assert_eq!(listed["port_groups"][1]["pg_name"], "PG_Trunk", "{listed}");
    let own = format!("{path}/{PORT}_101");
    for _ in 0..2 {
        let (status, answer) = ask(&router, Method::DELETE, &own, Value::Null).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{answer}");
    }
    for foreign in ["default", &format!("{PORT}_0"), &format!("{PORT}_+1")] {
        let path = format!("{path}/{foreign}");
        let (status, _) = ask(&router, Method::DELETE, &path, Value::Null).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{foreign}");
    }
    let wrong = json!({"port_id": PORT, "segmentation_id": 4095});
    let (status, _) = ask(&router, Method::POST, path, wrong).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_contradicts_a_host_is_not_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let backend = start(dir.path(), &[HOST]);
    let router = router(Arc::clone(&backend));
    let host = connected(&backend).await;
    let other = format!("<portgroup name='{PORT}_55'><vlan><tag id='56'/></vlan></portgroup>");
    host.add_port_group("default", Part::Config, &other)
        .unwrap();
    host.add_port_group("default", Part::Live, &other).unwrap();
    let path = "/v1/port-groups";
    let wanted = json!({"port_id": PORT, "segmentation_id": 55});
    let (status, answer) = ask(&router, Method::POST, path, wanted).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    host.delete_port_group("default", Part::Config, &other)
        .unwrap();
    host.delete_port_group("default", Part::Live, &other)
        .unwrap();
    let (_, listed) = ask(&router, Method::GET, path, Value::Null).await;
    assert!(!listed.to_string().contains(PORT), "{listed}");
}

/// A host whose network has that port group, in a file of its own; with `vnic`, its VM has one
/// in it.
fn host_with(dir: &Path, group: &str, vnic: bool) -> String {
    let (_, path) = HOST.split_once("://").unwrap();
    let mut host = std::fs::read_to_string(path).unwrap();
    let tag = group.rsplit_once('_').unwrap().1;
    let xml = format!("<portgroup name='{group}'><vlan><tag id='{tag}'/></vlan></portgroup>");
    host = host.replace("</network>", &format!("{xml}</network>"));
    if vnic {
        let xml = format!(
            "<devices><interface type='network'><mac address='52:54:00:00:00:01'/>\
             <source network='default' portgroup='{group}'/></interface></devices>"
        );
        host = host.replace("</domain>", &format!("{xml}</domain>"));
    }
    let file = dir.join("host.xml");
    std::fs::write(&file, host).unwrap();
    format!("test://{}", file.display())
}

/// Waits until the host's network is like that.
async fn network_is(host: &sluice_libvirt::Connection, is_it: impl Fn(&str) -> bool) {
    let network = || host.network("default").unwrap().unwrap();
    for _ in 0..TRIES {
        if is_it(&network()) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("{}", network());
}

#[tokio::test]
async fn a_deletion_that_was_begun_goes_on_when_a_host_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("{PORT}_66");
    let store = Arc::new(Store::open(&dir.path().join("notice.redb")).unwrap());
    for gone in [&*name, "an-older-trunk"] {
        store.put_port_group(gone).unwrap();
        store.delete_port_group(gone).unwrap();
    }
    let (config, libvirt) = config(dir.path(), &[&host_with(dir.path(), &name, false)]);
    let backend = Libvirt::start(&config, &libvirt, Arc::clone(&store)).unwrap();
    let host = connected(&backend).await;
    network_is(&host, |network| !network.contains(&name)).await;
    for _ in 0..TRIES {
        if store.leaving_port_groups().unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("{:?}", store.leaving_port_groups());
}

#[tokio::test]
async fn a_vnic_keeps_what_is_to_be_deleted_and_nothing_else_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, lacking) = (format!("{PORT}_66"), format!("{PORT}_67"));
    let store = Arc::new(Store::open(&dir.path().join("notice.redb")).unwrap());
    store.put_port_group(&kept).unwrap();
    store.delete_port_group(&kept).unwrap();
    store.put_port_group(&lacking).unwrap();
    let (config, libvirt) = config(dir.path(), &[&host_with(dir.path(), &kept, true)]);
    let backend = Libvirt::start(&config, &libvirt, Arc::clone(&store)).unwrap();
    let host = connected(&backend).await;
    network_is(&host, |network| network.contains(&lacking)).await;
    let up = backend.links[0].up().unwrap();
    assert!(backend.port_groups.reconcile(&backend.links[0], &up));
    network_is(&host, |network| network.contains(&kept)).await;
    assert_eq!(store.leaving_port_groups().unwrap(), [&*kept]);

    // Who asks for it again ends its deletion.
    let router = router(Arc::clone(&backend));
    let wanted = json!({"port_id": PORT, "segmentation_id": 66});
    let (status, answer) = ask(&router, Method::POST, "/v1/port-groups", wanted).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    assert_eq!(store.leaving_port_groups().unwrap(), [""; 0]);
    assert_eq!(store.port_groups().unwrap(), [&*kept, &*lacking]);
}

#[tokio::test]
async fn requests_that_wait_for_hosts_do_not_take_all_threads() {
    let dir = tempfile::tempdir().unwrap();
    let backend = start(dir.path(), &[HOST]);
    let router = router(Arc::clone(&backend));
    let waiting = backend.calls.try_acquire_many(CALLS as u32).unwrap();
    let path = "/v1/port-groups";
    let (status, _) = ask(&router, Method::GET, path, Value::Null).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    drop(waiting);
    let (status, _) = ask(&router, Method::GET, path, Value::Null).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_host_that_is_away_gets_port_groups_later_and_keeps_those_it_may_have() {
    let dir = tempfile::tempdir().unwrap();
    let backend = start(dir.path(), &["qemu+unix:///system?socket=/nonexistent"]);
    let router = router(Arc::clone(&backend));
    let path = "/v1/port-groups";
    let wanted = json!({"port_id": PORT, "segmentation_id": 7});
    let (status, group) = ask(&router, Method::POST, path, wanted).await;
    assert_eq!((status, &group["hosts"]), (StatusCode::CREATED, &json!([])));
    let own = format!("{path}/{PORT}_7");
    let (status, answer) = ask(&router, Method::DELETE, &own, Value::Null).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("/nonexistent"));
    let mut hosts = Value::Null;
    for _ in 0..TRIES {
        if hosts["hosts"][0]["last_error"].is_string() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        hosts = ask(&router, Method::GET, "/v1/hosts", Value::Null).await.1;
    }
    assert!(hosts["hosts"][0]["last_error"].is_string(), "{hosts}");
    assert!(hosts["hosts"][0]["connected_since"].is_null(), "{hosts}");
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    for (change, key) in [
        (
            (|c: &mut LibvirtConfig| c.hosts.clear()) as fn(&mut _),
            "libvirt.hosts",
        ),
        (|c: &mut LibvirtConfig| c.network.clear(), "libvirt.network"),
        (|c: &mut LibvirtConfig| c.trunk.push('\''), "libvirt.trunk"),
        (
            |c: &mut LibvirtConfig| c.hosts.push(c.hosts[0].clone()),
            "libvirt.hosts.uri",
        ),
        (
            |c: &mut LibvirtConfig| {
                let mut same = c.hosts[0].clone();
                same.uri.push('2');
                c.hosts.push(same);
            },
            "libvirt.hosts.name",
        ),
    ] {
        let (_, mut libvirt) = config(dir.path(), &[HOST]);
        change(&mut libvirt);
        let refused = libvirt.check().unwrap_err().to_string();
        assert!(refused.starts_with(key), "{refused}");
    }
}
