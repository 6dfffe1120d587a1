//! The module as its clients see it, on the loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use sse_core::{MessageEvent, SseDecoder, SseEvent};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Config, RESET, router};
use crate::auth::digest::Signer;
use crate::auth::{Credentials, Secret};
use crate::http::{Client, ClientError, server};

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(config: &Config) -> Self {
        let app = router(config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server::serve(listener, app, async {
            let _ = stopped.await;
        }));
        Server {
            address,
            stop,
            task,
        }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }

    fn client(&self, username: &str, password: &str) -> Client {
        let credentials = Credentials::new(username, Secret::new(password)).unwrap();
        Client::new(&format!("http://{}", self.address), Some(credentials)).unwrap()
    }
}

fn config(state: &Path) -> Config {
    let text = "[[users]]\nusername = 'ada'\npassword = 'x'\n\
                [[users]]\nusername = 'bob'\npassword = 'y'\n";
    Config {
        state_dir: state.to_owned(),
        heartbeat_seconds: 1,
        ..toml::from_str(text).unwrap()
    }
}

fn status<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (StatusCode, String) {
    match answer {
        Err(ClientError::Status { status, reason, .. }) => (status, reason),
        other => panic!("{other:?}"),
    }
}

async fn register(client: &Client, kinds: &[&str]) {
    for kind in kinds {
        let body = json!({ "eventType": kind });
        client.post("/v1/registrations", &body).await.unwrap();
    }
}

async fn registered(client: &Client) -> Value {
    client.get("/v1/registrations").await.unwrap()
}

fn vm(name: &str, tag: u16) -> Value {
    let mac = format!("02:00:00:00:{:02x}:{:02x}", tag >> 8, tag & 0xff);
    json!({"vm_name": name, "host_name": "h1", "vnic_list": [
        {"pg_name": name, "mac": mac, "port_segmentation_id": tag, "ip_list": [{"ip": "10.0.0.9"}]}
    ]})
}

/// The messages of an event connection.
struct Messages {
    body: Incoming,
    decoder: SseDecoder,
    pending: bytes::Bytes,
}

impl Messages {
    async fn open(client: &Client, last_event_id: Option<&str>) -> Self {
        let id = last_event_id.map(str::to_owned);
        Messages {
            body: client.stream("/v1/events", id).await.unwrap(),
            decoder: SseDecoder::new(),
            pending: bytes::Bytes::new(),
        }
    }

    async fn next(&mut self) -> MessageEvent {
        loop {
            match self.decoder.next(&mut self.pending) {
                Some(Ok(SseEvent::Message(message))) => return message,
                Some(_) => continue,
                None => self.pending = self.frame().await.expect("the connection is open"),
            }
        }
    }

    async fn frame(&mut self) -> Option<bytes::Bytes> {
        let frame = tokio::time::timeout(Duration::from_secs(10), self.body.frame());
        let frame = frame.await.expect("a frame in time")?;
        frame.ok()?.into_data().ok()
    }
}

#[tokio::test]
async fn registrations_belong_to_a_user_and_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&config(dir.path())).await;
    let (ada, bob) = (server.client("ada", "x"), server.client("bob", "y"));
    register(&ada, &["VmPowerOn", "livemigratetest/start", "vmpoweron"]).await;
    register(&bob, &["vmdeleted"]).await;
    let both =
        json!({"registrations": [{"eventType": "vmpoweron"}, {"eventType": "livemigratetestart"}]});
    assert_eq!(registered(&ada).await, both);
    let target = "/v1/registrations/livemigratetest/start";
    ada.delete(target).await.unwrap();
    ada.delete(target).await.unwrap();
    server.stop().await;

    let server = Server::start(&config(dir.path())).await;
    let one = json!({"registrations": [{"eventType": "vmpoweron"}]});
    assert_eq!(registered(&server.client("ada", "x")).await, one);
    let one = json!({"registrations": [{"eventType": "vmdeleted"}]});
    assert_eq!(registered(&server.client("bob", "y")).await, one);
}

#[tokio::test]
async fn what_is_wrong_is_told_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&config(dir.path())).await;
    let ada = server.client("ada", "x");
    let unknown = json!({"eventType": "vmexploded"});
    let (code, reason) = status(ada.post("/v1/registrations", &unknown).await);
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(reason.contains("vmexploded"), "{reason}");
    for body in [json!({}), json!([1]), json!({"eventType": 7}), json!("x")] {
        let (code, reason) = status(ada.post("/v1/registrations", &body).await);
        assert_eq!(code, StatusCode::BAD_REQUEST, "{body}");
        assert!(reason.contains("malformed body"), "{reason}");
    }
    let answer = ada.delete("/v1/registrations/vmexploded").await;
    assert_eq!(status(answer).0, StatusCode::BAD_REQUEST);
    let stranger = server.client("ada", "wrong");
    let answer = stranger
        .post("/v1/registrations", &json!({"eventType": "vmpoweron"}))
        .await;
    assert!(matches!(answer, Err(ClientError::Unauthorized(_))));
    assert_eq!(registered(&ada).await, json!({"registrations": []}));

    for (body, code) in [
        (json!({"vm_name": "a"}), StatusCode::BAD_REQUEST),
        (
            json!({"vm_name": "", "host_name": "h"}),
            StatusCode::BAD_REQUEST,
        ),
        (
            json!({"vm_name": "a", "host_name": "h", "x": 1}),
            StatusCode::BAD_REQUEST,
        ),
        (vm("a", 4095), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(
            status(ada.post("/v1/lab/vms", &body).await).0,
            code,
            "{body}"
        );
    }
    let large = json!({"vm_name": "x".repeat(70_000), "host_name": "h"});
    let answer = ada.post("/v1/lab/vms", &large).await;
    assert_eq!(status(answer).0, StatusCode::PAYLOAD_TOO_LARGE);
    let gone = ada.get::<Value>("/v1/lab/vms/7").await;
    assert_eq!(status(gone).0, StatusCode::NOT_FOUND);
    let vms: Value = ada.get("/v1/lab/vms").await.unwrap();
    assert_eq!(vms, json!({"vms": []}));
}

#[tokio::test]
async fn registered_events_arrive_and_a_reader_resumes_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&config(dir.path())).await;
    let ada = server.client("ada", "x");
    register(&ada, &["vmcreated", "vmpoweroff", "vmdeleted"]).await;
    let mut messages = Messages::open(&ada, None).await;
    let made: Value = ada.post_json("/v1/lab/vms", &vm("a", 101)).await.unwrap();
    let target = format!("/v1/lab/vms/{}", made["vm_uuid"].as_str().unwrap());

    let created = messages.next().await;
    assert_eq!(created.event, "vmcreated");
    let data: Value = serde_json::from_str(&created.data).unwrap();
    assert_eq!(data["event_type"], "vmcreated");
    assert_eq!(data["vm_status"], "stop");
    assert_eq!(data["vnic_list"], made["vnic_list"]);
    let id = created.last_event_id.unwrap();
    assert_eq!(data["event_id"], *id);

    // vmpoweron is not registered, so vmpoweroff comes next.
    let on: Value = ada
        .post_json(&format!("{target}/power-on"), &())
        .await
        .unwrap();
    assert_eq!(on["vm_status"], "running");
    ada.post(&format!("{target}/power-off"), &()).await.unwrap();
    assert_eq!(messages.next().await.event, "vmpoweroff");
    server.stop().await;

    let server = Server::start(&config(dir.path())).await;
    let ada = server.client("ada", "x");
    let inventory: crate::events::types::Inventory = ada.get("/v1/inventory").await.unwrap();
    assert_eq!(inventory.vms.len(), 1);
    let mut messages = Messages::open(&ada, Some(&id)).await;
    assert_eq!(messages.next().await.event, "vmpoweroff");
    let after = inventory.last_event_id.unwrap().to_string();
    let mut newer = Messages::open(&ada, Some(&after)).await;
    ada.delete(&target).await.unwrap();
    for reader in [&mut messages, &mut newer] {
        let deleted = reader.next().await;
        assert_eq!(deleted.event, "vmdeleted");
        let data: crate::events::types::LifecycleEvent =
            serde_json::from_str(&deleted.data).unwrap();
        assert!(data.timestamp > inventory.timestamp);
    }
}

#[tokio::test]
async fn a_reader_that_cannot_resume_is_told_first() {
    let dir = tempfile::tempdir().unwrap();
    let short = Config {
        event_log: 2,
        ..config(dir.path())
    };
    let server = Server::start(&short).await;
    let ada = server.client("ada", "x");
    register(&ada, &["vmcreated"]).await;
    let mut messages = Messages::open(&ada, None).await;
    ada.post("/v1/lab/vms", &vm("a", 1)).await.unwrap();
    let first = messages.next().await.last_event_id.unwrap();
    for tag in 2..5 {
        ada.post("/v1/lab/vms", &vm(&format!("vm{tag}"), tag))
            .await
            .unwrap();
    }
    for id in [&*first, "00000000-0000-0000-0000-000000000001", "rubbish"] {
        let mut messages = Messages::open(&ada, Some(id)).await;
        assert_eq!(messages.next().await.event, RESET, "{id}");
    }
}

#[tokio::test]
async fn an_idle_connection_has_a_heartbeat() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&config(dir.path())).await;
    let mut messages = Messages::open(&server.client("ada", "x"), None).await;
    assert_eq!(messages.frame().await.unwrap(), ": following\n\n");
    assert_eq!(messages.frame().await.unwrap(), ": heartbeat\n\n");
}

#[tokio::test]
async fn a_slow_client_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let impatient = Config {
        client_lag: 2,
        ..config(dir.path())
    };
    let server = Server::start(&impatient).await;
    let ada = server.client("ada", "x");
    register(&ada, &["vmpoweron", "vmpoweroff"]).await;

    // A client that sends its request and reads no further than the answer's head.
    let signer = Signer::new(Credentials::new("ada", Secret::new("x")).unwrap());
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let challenge = exchange(&mut slow, "").await;
    let headers = challenge.lines().filter_map(|line| {
        let value = line.strip_prefix("www-authenticate: ")?;
        Some((axum::http::header::WWW_AUTHENTICATE, value.parse().ok()?))
    });
    signer.challenged(&headers.collect()).unwrap();
    let signed = signer.sign(&hyper::Method::GET, "/v1/events").unwrap();
    let signed = format!(
        "connection: close\r\nauthorization: {}\r\n",
        signed.to_str().unwrap()
    );
    let answer = exchange(&mut slow, &signed).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // 10 MB of events, more than the sockets' buffers hold.
    let made: Value = ada.post_json("/v1/lab/vms", &large_vm()).await.unwrap();
    let target = format!("/v1/lab/vms/{}", made["vm_uuid"].as_str().unwrap());
    let sent = 300 * made.to_string().len();
    assert!(sent > 8_000_000, "{sent}");
    for flip in ["power-on", "power-off"].iter().cycle().take(300) {
        ada.post(&format!("{target}/{flip}"), &()).await.unwrap();
    }
    let mut received = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), slow.read_to_end(&mut received));
    ended.await.expect("the connection was closed").unwrap();
    assert!(received.len() < sent, "{} of {sent}", received.len());
}

/// A VM of some 30 KB.
fn large_vm() -> Value {
    let mut large = vm("a", 1);
    let ipv4: Vec<Value> = (0..32)
        .map(|n| json!({"ip": format!("10.0.0.{n}")}))
        .collect();
    let ipv6: Vec<Value> = (0..32)
        .map(|n| json!({"ipv6": format!("2001:db8::{n}")}))
        .collect();
    large["vnic_list"] = (1..20)
        .map(|tag| {
            let mut vnic = vm("a", tag)["vnic_list"][0].clone();
            vnic["ip_list"] = ipv4.clone().into();
            vnic["ipv6_list"] = ipv6.clone().into();
            vnic
        })
        .collect();
    large
}

async fn exchange(stream: &mut TcpStream, header: &str) -> String {
    let request = format!("GET /v1/events HTTP/1.1\r\nhost: x\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 2048];
    let length = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn with_no_users_configured_a_password_is_made_up_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let alone = Config {
        state_dir: dir.path().join("new"),
        ..Config::default()
    };
    let file = alone.state_dir.join("password");
    let server = Server::start(&alone).await;
    let password = std::fs::read_to_string(&file).unwrap();
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let client = server.client("shim", password.trim());
    assert_eq!(registered(&client).await, json!({"registrations": []}));
    server.stop().await;
    let server = Server::start(&alone).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), password);
    registered(&server.client("shim", password.trim())).await;
}

#[tokio::test]
async fn a_follower_whose_heartbeats_stop_is_cut_off() {
    let state = tempfile::tempdir().unwrap();
    let server = Server::start(&config(state.path())).await;
    let (ada, bob) = (server.client("ada", "x"), server.client("bob", "y"));
    let mut beating = Messages::open(&ada, None).await;
    let mut silent = Messages::open(&bob, None).await;
    ada.post("/v1/heartbeats", &()).await.unwrap();
    // Five are missed, of one a second each.
    let end = async { while beating.frame().await.is_some() {} };
    let ended = tokio::time::timeout(Duration::from_secs(8), end).await;
    assert!(ended.is_ok(), "it goes on");
    assert!(
        silent.frame().await.is_some(),
        "who never sent any is let be"
    );
    // An old heartbeat is none of a new connection's.
    let mut again = Messages::open(&ada, None).await;
    assert!(again.frame().await.is_some());
    assert!(again.frame().await.is_some());
}
