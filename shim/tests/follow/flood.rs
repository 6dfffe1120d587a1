//! 10,000 events from 100 hosts at once.
//!
//! The manager is a stream that is written as fast as it is read: a real one would be
//! what limits the rate.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::response::sse::{Event, Sse};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use shim::compile::Compiler;
use shim::http::server;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

use super::plant::{Plant, vnic};

const HOSTS: usize = 100;
const VMS: usize = 2000;
/// Created, powered on, moved, powered off, powered on.
const EVENTS_OF_A_VM: usize = 5;
/// Hosts that the VMs of one network are on.
const SPREAD: usize = 4;
const NETWORKS: usize = HOSTS / SPREAD;
const WITHIN: Duration = Duration::from_secs(120);

fn host(number: usize) -> String {
    format!("hv-{number}")
}

/// What happens to a VM at that step of its life.
fn event(vm: usize, step: usize, port: &Value) -> Value {
    let first = vm / NETWORKS % SPREAD;
    let second = (first + 1) % SPREAD;
    let (kind, status, at) = [
        ("vmcreated", "stop", first),
        ("vmpoweron", "running", first),
        ("livemigratefinish", "running", second),
        ("vmpoweroff", "stop", second),
        ("vmpoweron", "running", second),
        ("vmpoweroff", "stop", second),
    ][step];
    let at = vm % NETWORKS * SPREAD + at;
    let mut vnic = vnic(port);
    vnic["vnic_name"] = json!("eth0");
    vnic["pg_uuid"] = port["id"].clone();
    json!({
        "event_id": Uuid::new_v4(), "timestamp": format!("2026-01-01T00:0{step}:00Z"),
        "event_type": kind, "vm_name": format!("vm-{vm}"),
        "vm_uuid": Uuid::from_u128(vm as u128 + 1), "vm_status": status,
        "host_name": host(at), "host_uuid": Uuid::from_u128(at as u128),
        "vnic_list": [vnic],
    })
}

/// A manager whose events are what comes out of a channel, for its first follower.
async fn manager(events: Receiver<Value>) -> String {
    let events = Arc::new(Mutex::new(Some(events)));
    let inventory = json!({"timestamp": "2025-01-01T00:00:00Z", "last_event_id": null, "vms": []});
    let follow = move || {
        let events = events.lock().unwrap().take().expect("one connection");
        let events = ReceiverStream::new(events);
        let messages =
            events.map(|event| Ok::<_, Infallible>(Event::default().data(event.to_string())));
        async move { Sse::new(messages) }
    };
    let app = Router::new()
        .route("/v1/registrations", post(async || Json(json!({}))))
        .route("/v1/heartbeats", post(async || ()))
        .route("/v1/inventory", get(async || Json(inventory)))
        .route("/v1/events", get(follow));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(server::serve(listener, app, std::future::pending()));
    url
}

/// Resident memory of this process, KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse().unwrap()
}

impl Plant {
    async fn taken(&self, count: usize) {
        let begun = Instant::now();
        while self.managers[0].get().events < count as u64 {
            assert!(begun.elapsed() < WITHIN, "{:?}", self.managers[0].get());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Sends one event, and tells how many NVEs' tables it changed.
    async fn recompiled_by(&self, sender: &Sender<Value>, event: Value) -> (u64, usize) {
        let (before, events) = (self.fabric.work(), self.managers[0].get().events);
        sender.send(event).await.unwrap();
        self.taken(events as usize + 1).await;
        let after = self.fabric.work();
        let nves = after
            .recompiled
            .iter()
            .filter(|(nve, count)| before.recompiled.get(nve) != Some(count));
        (after.changes - before.changes, nves.count())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_of_a_hundred_hosts_are_absorbed() {
    let (sender, events) = channel(64);
    let managers = [("flood".to_owned(), manager(events).await)];
    let plant = Plant::start(&managers).await;
    let hosts: Vec<String> = (0..HOSTS).map(host).collect();
    let nves = plant.nves(&hosts).await;
    let mut ports = vec![Vec::new(); NETWORKS];
    for of_network in &mut ports {
        let network = plant.network().await;
        *of_network = plant.ports(&network, "", VMS / NETWORKS).await;
    }
    let port = |vm: usize| &ports[vm % NETWORKS][vm / NETWORKS];

    let before = resident();
    let begun = Instant::now();
    let mut sent = 0;
    // Each step of all VMs before the next: as when all hosts are rebooted.
    for step in 0..EVENTS_OF_A_VM {
        for vm in 0..VMS {
            sender.send(event(vm, step, port(vm))).await.unwrap();
            sent += 1;
        }
    }
    let written = begun.elapsed();
    plant.taken(sent).await;
    // What is taken is compiled: the sink has returned.
    let settled = begun.elapsed();
    let after = resident();
    println!(
        "{sent} events of {HOSTS} hosts: settled in {:.2} s ({:.0} events/s, the last one {:.0} ms \
         after it was written); resident {before} -> {after} KiB",
        settled.as_secs_f64(),
        sent as f64 / settled.as_secs_f64(),
        (settled - written).as_secs_f64() * 1e3,
    );

    let state = plant.fabric.controller().snapshot();
    let whole = Compiler::new(&state);
    for nve in &nves {
        assert_eq!(
            plant.fabric.desired_tables(*nve).as_ref(),
            whole.tables(*nve)
        );
    }
    let attached = (0..VMS).filter(|vm| {
        let id = port(*vm)["id"].as_str().unwrap().parse().unwrap();
        plant.fabric.place(id).is_some()
    });
    assert_eq!(attached.count(), VMS);

    let (changes, touched) = plant
        .recompiled_by(&sender, event(0, EVENTS_OF_A_VM, port(0)))
        .await;
    println!("one VM off: {changes} change, {touched} of {HOSTS} NVEs recompiled");
    assert_eq!((changes, touched), (1, SPREAD));
    let all = plant.samples("sluice_nve_recompiled_total{").await;
    assert_eq!(all.len(), HOSTS);
    println!(
        "{}\n{}",
        all[0],
        plant.samples("sluice_changes_compiled").await[0]
    );
    let managers: Value = plant.rest.get("/v1/hypervisor-managers").await.unwrap();
    let manager = &managers["managers"][0];
    assert_eq!(manager["events"], sent + 1);
    assert_eq!(manager["events_by_type"]["livemigratefinish"], VMS);
    let missing = manager["missing"].as_array().unwrap();
    assert!(missing.contains(&json!("resume")), "its events have no ids");
    assert!(manager["connected_since"].is_string(), "{manager}");
    let lag = plant.samples("sluice_manager_lag_seconds").await;
    assert_eq!(lag.len(), 1, "{lag:?}");
}
