//! The subscriber against a real notice module, over the loopback and over a relay
//! that can go silent, and against a manager that sends rubbish.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::sse::{Event, Sse};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use uuid::Uuid;

use super::types::{EventType, Inventory, LifecycleEvent};
use super::{EventSink, SinkError, StatusHandle, Subscriber, SubscriberStatus, Timing};
use crate::auth::{Credentials, Secret};
use crate::http::{Client, server};
use crate::notice;

/// Remembers what it is given, and fails as often as it is told to.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    events: Vec<(String, EventType)>,
    inventories: Vec<Vec<String>>,
    failures: usize,
    cursor: Option<Uuid>,
}

impl EventSink for Recorder {
    async fn event(&self, _: &str, event: LifecycleEvent) -> Result<(), SinkError> {
        let mut record = self.0.lock().unwrap();
        if record.failures > 0 {
            record.failures -= 1;
            return Err(SinkError::Unavailable("disk full".into()));
        }
        record.events.push((event.vm.vm_name, event.event_type));
        record.cursor = Some(event.event_id);
        Ok(())
    }

    async fn inventory(&self, _: &str, inventory: Inventory, _: bool) -> Result<(), SinkError> {
        let names = inventory.vms.into_iter().map(|vm| vm.vm_name).collect();
        self.0.lock().unwrap().inventories.push(names);
        Ok(())
    }

    async fn cursor(&self, _: &str) -> Option<Uuid> {
        self.0.lock().unwrap().cursor
    }
}

impl Recorder {
    fn events(&self) -> Vec<(String, EventType)> {
        self.0.lock().unwrap().events.clone()
    }

    /// VMs of the newest inventory.
    fn listed(&self) -> Vec<String> {
        let record = self.0.lock().unwrap();
        record.inventories.last().cloned().unwrap_or_default()
    }
}

/// A running notice module.
struct Manager {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Manager {
    async fn start(state: &Path, address: SocketAddr, event_log: usize) -> Manager {
        let users = "[[users]]\nusername = 'shim'\npassword = 'x'\n";
        let config = notice::Config {
            state_dir: state.to_owned(),
            heartbeat_seconds: 1,
            event_log,
            ..toml::from_str(users).unwrap()
        };
        let app = notice::router(&config).unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server::serve(listener, app, async {
            let _ = stopped.await;
        }));
        Manager {
            address,
            stop,
            task,
        }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }

    fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address), Some(credentials("x"))).unwrap()
    }

    /// Defines a VM without vNICs; its path.
    async fn define(&self, name: &str) -> String {
        let request = json!({"vm_name": name, "host_name": "h1"});
        let vm: Value = self
            .client()
            .post_json("/v1/lab/vms", &request)
            .await
            .unwrap();
        format!("/v1/lab/vms/{}", vm["vm_uuid"].as_str().unwrap())
    }
}

fn credentials(password: &str) -> Credentials {
    Credentials::new("shim", Secret::new(password)).unwrap()
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A subscriber at work; ends when it is dropped.
struct Following {
    status: StatusHandle,
    task: AbortHandle,
}

impl Following {
    fn start(address: SocketAddr, password: &str, sink: Recorder) -> Following {
        let url = format!("http://{address}");
        let timing = Timing {
            dead_after: Duration::from_secs(2),
            backoff: Duration::from_millis(20),
            backoff_most: Duration::from_millis(200),
            repair: Duration::from_millis(50),
            confirm: Duration::from_millis(50),
            ..Timing::default()
        };
        let subscriber = Subscriber::new("lab", &url, credentials(password), sink)
            .unwrap()
            .with_timing(timing);
        Following {
            status: subscriber.status(),
            task: tokio::spawn(subscriber.run()).abort_handle(),
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&SubscriberStatus) -> bool) {
        for _ in 0..500 {
            if holds(&self.status.get()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not within 10 s: {what}; {:?}", self.status.get());
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn vms_are_listed_and_what_happens_to_them_is_told() {
    let state = tempfile::tempdir().unwrap();
    let manager = Manager::start(state.path(), any_port(), 100).await;
    let first = manager.define("a").await;
    let sink = Recorder::default();
    let following = Following::start(manager.address, "x", sink.clone());
    following.until("up", |s| s.connected_since.is_some()).await;
    assert_eq!(sink.listed(), ["a"]);

    let client = manager.client();
    client
        .post(&format!("{first}/power-on"), &())
        .await
        .unwrap();
    manager.define("b").await;
    client.delete(&first).await.unwrap();
    following.until("four events", |s| s.events == 4).await;
    let told = [
        ("a", EventType::VmPowerOn),
        ("b", EventType::VmCreated),
        ("a", EventType::VmPowerOff),
        ("a", EventType::VmDeleted),
    ];
    assert_eq!(sink.events(), told.map(|(vm, kind)| (vm.to_owned(), kind)));
    let status = following.status.get();
    assert_eq!((status.connections, status.malformed), (1, 0));
    assert!(status.last_event_id.is_some() && status.last_error.is_none());
    assert_eq!(status.events_by_type["vmpoweroff"], 1);
    assert!(status.lag_seconds.is_some_and(|lag| lag < 60.0));
    following
        .until("the end is confirmed", |s| s.inventories == 2)
        .await;
    assert_eq!(sink.listed(), ["b"]);
    let all = |s: &SubscriberStatus| s.last_heartbeat_at.is_some() && s.missing.is_empty();
    following.until("heartbeats", all).await;
    assert_eq!(following.status.get().resyncs, 0);
}

#[tokio::test]
async fn what_happens_while_the_manager_is_away_is_found_out() {
    let state = tempfile::tempdir().unwrap();
    let manager = Manager::start(state.path(), any_port(), 100).await;
    let address = manager.address;
    let sink = Recorder::default();
    let following = Following::start(address, "x", sink.clone());
    following.until("up", |s| s.connected_since.is_some()).await;
    manager.define("a").await;
    following.until("an event", |s| s.events == 1).await;
    manager.stop().await;
    following.until("down", |s| s.last_error.is_some()).await;

    let elsewhere = Manager::start(state.path(), any_port(), 100).await;
    elsewhere.define("b").await;
    elsewhere.stop().await;
    let manager = Manager::start(state.path(), address, 100).await;
    following.until("up", |s| s.connected_since.is_some()).await;
    let mut listed = sink.listed();
    listed.sort();
    assert_eq!(listed, ["a", "b"]);
    manager.define("c").await;
    following.until("an event", |s| s.events == 2).await;
    assert_eq!(sink.events()[1], ("c".to_owned(), EventType::VmCreated));
}

#[tokio::test]
async fn a_manager_without_a_past_makes_it_list_once_more() {
    let state = tempfile::tempdir().unwrap();
    let manager = Manager::start(state.path(), any_port(), 1).await;
    let sink = Recorder::default();
    let following = Following::start(manager.address, "x", sink.clone());
    following.until("a reset", |s| s.inventories == 2).await;
    manager.define("a").await;
    following.until("an event", |s| s.events == 1).await;
}

#[tokio::test]
async fn what_cannot_be_stored_is_asked_for_again() {
    let state = tempfile::tempdir().unwrap();
    let manager = Manager::start(state.path(), any_port(), 100).await;
    let sink = Recorder::default();
    sink.0.lock().unwrap().failures = 1;
    let following = Following::start(manager.address, "x", sink.clone());
    following.until("up", |s| s.connected_since.is_some()).await;
    manager.define("a").await;
    let again = |s: &SubscriberStatus| s.connections == 2 && s.connected_since.is_some();
    following.until("another connection", again).await;
    assert_eq!(sink.listed(), ["a"]);
}

#[tokio::test]
async fn a_wrong_password_is_told() {
    let state = tempfile::tempdir().unwrap();
    let manager = Manager::start(state.path(), any_port(), 100).await;
    let following = Following::start(manager.address, "wrong", Recorder::default());
    let told = |s: &SubscriberStatus| {
        let error = s.last_error.as_deref().unwrap_or_default();
        error.contains("refuses the user name or password")
    };
    following.until("an error", told).await;
    assert!(following.status.get().connected_since.is_none());
}

/// Relays connections to `to`; those that are open when `silent` becomes true carry
/// nothing any more, and are not closed either.
async fn relay(to: SocketAddr, silent: watch::Receiver<bool>) -> SocketAddr {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut silent = silent.clone();
            silent.mark_unchanged();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = silent.changed() => std::future::pending().await,
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_half_open_connection_is_given_up() {
    let state = tempfile::tempdir().unwrap();
    let manager = Manager::start(state.path(), any_port(), 100).await;
    let (silence, silent) = watch::channel(false);
    let address = relay(manager.address, silent).await;
    let sink = Recorder::default();
    let following = Following::start(address, "x", sink.clone());
    following.until("up", |s| s.connected_since.is_some()).await;
    // Heartbeats come each second, so this outlives the patience of two.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(following.status.get().connections, 1);

    silence.send(true).unwrap();
    manager.define("a").await;
    let again = |s: &SubscriberStatus| s.connections > 1 && s.connected_since.is_some();
    following.until("another connection", again).await;
    assert_eq!(sink.listed(), ["a"]);
}

/// A manager whose stream has something wrong, something right, and that twice.
fn rubbish() -> Router {
    let inventory = json!({"timestamp": "2026-01-01T00:00:00Z", "last_event_id": null, "vms": []});
    let event = json!({
        "event_id": Uuid::new_v4(), "timestamp": "2026-01-01T00:00:01Z",
        "event_type": "VmPowerOn", "vm_name": "a", "vm_uuid": Uuid::new_v4(),
        "vm_status": "running", "host_name": "h", "host_uuid": Uuid::new_v4(), "vnic_list": [],
    });
    let mut unknown = event.clone();
    unknown["event_type"] = json!("vmexploded");
    let texts = [
        "}{".to_owned(),
        unknown.to_string(),
        event.to_string(),
        event.to_string(),
    ];
    let messages = texts.map(|text| Ok::<_, Infallible>(Event::default().data(text)));
    let register = |Json(body): Json<Value>| async move {
        match body["eventType"] == "hafinish" {
            true => axum::http::StatusCode::BAD_REQUEST,
            false => axum::http::StatusCode::CREATED,
        }
    };
    Router::new()
        .route("/v1/registrations", post(register))
        .route("/v1/inventory", get(async || Json(inventory)))
        .route(
            "/v1/events",
            get(async || {
                use futures_util::StreamExt as _;
                let messages = futures_util::stream::iter(messages);
                Sse::new(messages.chain(futures_util::stream::pending()))
            }),
        )
}

/// Serves a manager until the test ends.
async fn serve(app: Router) -> std::net::SocketAddr {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server::serve(listener, app, std::future::pending()));
    address
}

#[tokio::test]
async fn rubbish_is_counted_skipped_and_repaired() {
    let address = serve(rubbish()).await;
    let sink = Recorder::default();
    let following = Following::start(address, "x", sink.clone());
    let all = |s: &SubscriberStatus| {
        (s.malformed, s.events, s.duplicates) == (2, 1, 1) && s.inventories >= 2
    };
    following.until("all", all).await;
    assert_eq!(sink.events(), [("a".to_owned(), EventType::VmPowerOn)]);
    assert_eq!(following.status.get().connections, 1);
}

/// A manager that does what the paper says and no more: registrations, and events on a
/// long connection. It knows ten types.
fn papers(events: tokio::sync::broadcast::Sender<Value>, greets: bool) -> Router {
    use futures_util::StreamExt as _;
    use tokio_stream::wrappers::BroadcastStream;
    let register = |Json(body): Json<Value>| async move {
        match body["eventType"] == "hafinish" {
            true => axum::http::StatusCode::BAD_REQUEST,
            false => axum::http::StatusCode::CREATED,
        }
    };
    let follow = move || {
        let events = BroadcastStream::new(events.subscribe());
        let events =
            events.map(|event| event.map(|event| Event::default().data(event.to_string())));
        let greeting = greets.then(|| Ok(Event::default().comment("hello")));
        async move { Sse::new(futures_util::stream::iter(greeting).chain(events)) }
    };
    Router::new()
        .route("/v1/registrations", post(register))
        .route("/v1/events", get(follow))
}

#[tokio::test]
async fn a_manager_with_nothing_beyond_the_paper_is_followed_and_the_status_says_so() {
    let (events, _) = tokio::sync::broadcast::channel(8);
    let address = serve(papers(events.clone(), false)).await;
    let sink = Recorder::default();
    let following = Following::start(address, "x", sink.clone());
    following.until("up", |s| s.connected_since.is_some()).await;
    let event = |kind: &str| {
        json!({
            "event_id": Uuid::new_v4(), "timestamp": "2026-01-01T00:00:01Z",
            "event_type": kind, "vm_name": "a", "vm_uuid": Uuid::nil(),
            "vm_status": "running", "host_name": "h", "host_uuid": Uuid::nil(), "vnic_list": [],
        })
    };
    events.send(event("vmpoweron")).unwrap();
    following.until("an event", |s| s.events == 1).await;
    // Longer than silence is borne where there are heartbeats.
    tokio::time::sleep(Duration::from_millis(4500)).await;
    events.send(event("vmpoweroff")).unwrap();
    following.until("another event", |s| s.events == 2).await;
    let status = following.status.get();
    assert_eq!(status.connections, 1, "{:?}", status.last_error);
    let missing: Vec<&str> = status.missing.iter().map(String::as_str).collect();
    let expected = [
        "client_heartbeat",
        "event_type:hafinish",
        "heartbeat",
        "inventory",
        "resume",
    ];
    assert_eq!(missing, expected);
}

#[tokio::test]
async fn one_vm_that_cannot_be_read_does_not_stop_its_manager() {
    let (events, _) = tokio::sync::broadcast::channel(8);
    let vm = |name: &str, status: &str| {
        json!({
            "event_id": Uuid::new_v4(), "timestamp": "2026-01-01T00:00:01Z",
            "event_type": "vmpoweron", "vm_name": name, "vm_uuid": Uuid::new_v4(),
            "vm_status": status, "host_name": "h", "host_uuid": Uuid::nil(), "vnic_list": [],
        })
    };
    let vms = [vm("a", "running"), vm("b", "dancing"), json!(7)];
    let inventory = json!({"timestamp": "2026-01-01T00:00:00Z", "vms": vms});
    let app = papers(events.clone(), false).route("/v1/inventory", get(async || Json(inventory)));
    let address = serve(app).await;
    let sink = Recorder::default();
    let following = Following::start(address, "x", sink.clone());
    following.until("up", |s| s.connected_since.is_some()).await;
    assert_eq!(sink.listed(), ["a"]);
    assert_eq!(following.status.get().unread_vms, 2);
    // Nor does an event of such a VM, after which the inventory is listed once more.
    events.send(vm("b", "dancing")).unwrap();
    following.until("a repair", |s| s.resyncs == 1).await;
    events.send(vm("a", "running")).unwrap();
    following.until("an event", |s| s.events == 1).await;
    let status = following.status.get();
    assert_eq!((status.connections, status.malformed), (1, 1));
}

#[tokio::test]
async fn events_are_told_apart_even_if_their_manager_uses_one_id_for_all() {
    let (events, _) = tokio::sync::broadcast::channel(8);
    let address = serve(papers(events.clone(), false)).await;
    let sink = Recorder::default();
    let following = Following::start(address, "x", sink.clone());
    following.until("up", |s| s.connected_since.is_some()).await;
    let event = |kind: &str, name: &str, second: u8| {
        json!({
            "event_id": Uuid::nil(), "timestamp": format!("2026-01-01T00:00:0{second}Z"),
            "event_type": kind, "vm_name": name,
            "vm_uuid": Uuid::new_v5(&Uuid::nil(), name.as_bytes()),
            "vm_status": "running", "host_name": "h", "host_uuid": Uuid::nil(), "vnic_list": [],
        })
    };
    let told = [
        ("vmcreated", "a", 1),
        ("vmpoweron", "a", 1),
        ("vmpoweron", "b", 1),
        ("vmpoweron", "b", 2),
        ("vmpoweron", "b", 2),
    ];
    for (kind, name, second) in told {
        events.send(event(kind, name, second)).unwrap();
    }
    following
        .until("all", |s| (s.events, s.duplicates) == (4, 1))
        .await;
    let expected = told[..4].iter();
    let expected = expected.map(|(kind, name, _)| ((*name).to_owned(), kind.parse().unwrap()));
    assert_eq!(sink.events(), Vec::from_iter(expected));
}

#[tokio::test]
async fn many_managers_are_followed_at_once() {
    let mut all = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let state = tempfile::tempdir().unwrap();
        let manager = Manager::start(state.path(), any_port(), 100).await;
        let sink = Recorder::default();
        let following = Following::start(manager.address, "x", sink.clone());
        all.push((name, state, manager, sink, following));
    }
    for (name, _, manager, _, following) in &all {
        following.until("up", |s| s.connected_since.is_some()).await;
        manager.define(name).await;
    }
    let (_, _, first, _, following) = all.remove(0);
    first.stop().await;
    following.until("down", |s| s.last_error.is_some()).await;
    for (name, _, manager, sink, following) in &all {
        manager.define(&format!("{name}2")).await;
        following.until("both events", |s| s.events == 2).await;
        let told = [name.to_string(), format!("{name}2")];
        assert_eq!(sink.events(), told.map(|vm| (vm, EventType::VmCreated)));
    }
}

#[tokio::test]
async fn a_greeting_is_no_heartbeat_for_long() {
    let (events, _) = tokio::sync::broadcast::channel(8);
    let address = serve(papers(events.clone(), true)).await;
    let following = Following::start(address, "x", Recorder::default());
    let lacks = |s: &SubscriberStatus| s.missing.contains("heartbeat");
    following.until("it is known", lacks).await;
    // Twice it was taken for dead; from the third connection on it is not.
    assert_eq!(following.status.get().connections, 3);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(following.status.get().connections, 3);
}
