//! HTTP digest as programs that we did not write do it: curl, and Python's requests.
//! One that is not installed is passed over, and the output says so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use shim::http::server;
use shim::notice::{Config, router};
use tokio::net::TcpListener;

/// A notice module that lets `ada` in with the password `sw0rd fish`.
async fn serve() -> (tempfile::TempDir, String) {
    let state = tempfile::tempdir().unwrap();
    let users = "[[users]]\nusername = 'ada'\npassword = 'sw0rd fish'\n";
    let config = Config {
        state_dir: state.path().to_owned(),
        ..toml::from_str(users).unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = router(&config).unwrap();
    tokio::spawn(server::serve(listener, app, std::future::pending()));
    (state, url)
}

/// What the program prints, or `None` if it is not installed.
async fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stderr(Stdio::inherit());
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = run.await.unwrap().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The statuses of two requests that curl sends over one connection.
async fn curl(url: &str, user: &str) -> Option<String> {
    let target = format!("{url}/v1/registrations");
    let discard = ["-o", "/dev/null"];
    let options = ["-s", "-w", "%{http_code} ", "--digest", "-u", user];
    let targets = [&discard[..], &[&target], &discard, &[&target]].concat();
    output("curl", &[&options[..], &targets].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_is_let_in_with_the_right_password_only() {
    let (_state, url) = serve().await;
    let Some(right) = curl(&url, "ada:sw0rd fish").await else {
        eprintln!("passed over: curl is not installed");
        return;
    };
    assert_eq!(right, "200 200 ");
    assert_eq!(curl(&url, "ada:swordfish").await.unwrap(), "401 401 ");
    assert_eq!(curl(&url, "eve:sw0rd fish").await.unwrap(), "401 401 ");
}

#[tokio::test(flavor = "multi_thread")]
async fn pythons_requests_keeps_a_nonce_over_requests() {
    const SCRIPT: &str = "\
import sys
try:
    import requests
    from requests.auth import HTTPDigestAuth
except ImportError:
    sys.exit()
target = sys.argv[1] + '/v1/registrations'
session = requests.Session()
session.auth = HTTPDigestAuth('ada', 'sw0rd fish')
codes = [session.post(target, json={'eventType': 'vmpoweron'}).status_code]
codes += [session.get(target).status_code for _ in range(3)]
codes += [requests.get(target, auth=HTTPDigestAuth('ada', 'wrong')).status_code]
print(*codes)
";
    let (_state, url) = serve().await;
    match output("python3", &["-c", SCRIPT, &url]).await.as_deref() {
        None | Some("") => eprintln!("passed over: requests is not installed"),
        Some(codes) => assert_eq!(codes.trim(), "201 200 200 200 401"),
    }
}

/// `shim notice` as a process, which lets `ada` in.
struct Notice {
    process: Child,
    url: String,
    _state: tempfile::TempDir,
}

impl Notice {
    fn start() -> Notice {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("notice.toml");
        let text = format!(
            "listen = '127.0.0.1:0'\nstate_dir = {:?}\nheartbeat_seconds = 1\n\
             [[users]]\nusername = 'ada'\npassword = 'sw0rd fish'\n[log]\nformat = 'json'\n",
            state.path()
        );
        std::fs::write(&file, text).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_shim"))
            .args(["notice", "--config"])
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let address = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(&line.unwrap()).ok())
            .find_map(|line| Some(line["fields"]["address"].as_str()?.to_owned()))
            .expect("it says where it listens");
        Notice {
            process,
            url: format!("http://{address}"),
            _state: state,
        }
    }

    /// What curl prints on both outputs, with digest as that user.
    fn curl(&self, user: &str, more: &[&str], path: &str) -> Option<String> {
        let output = Command::new("curl")
            .args(["-s", "--digest", "-u", user])
            .args(more)
            .arg(format!("{}{path}", self.url))
            .output()
            .ok()?;
        let both = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&both).into_owned())
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn curl_registers_lists_and_follows_events_of_the_process() {
    const ADA: &str = "ada:sw0rd fish";
    let notice = Notice::start();
    let status = ["-o", "/dev/null", "-w", "%{http_code}"];
    let Some(wrong) = notice.curl("ada:wrong", &status, "/v1/inventory") else {
        eprintln!("passed over: curl is not installed");
        return;
    };
    assert_eq!(wrong, "401");
    let ask = |more: &[&str], path: &str| notice.curl(ADA, more, path).unwrap();
    assert_eq!(
        notice
            .curl("eve:sw0rd fish", &status, "/v1/inventory")
            .unwrap(),
        "401"
    );
    let body = ["-d", r#"{"eventType": "VMCreated"}"#];
    let made = ask(&body, "/v1/registrations");
    assert_eq!(made, r#"{"eventType":"vmcreated"}"#);
    let vm = r#"{"vm_name": "a", "host_name": "h"}"#;
    assert!(ask(&["-d", vm], "/v1/lab/vms").contains("vm_uuid"));
    let inventory: Value = serde_json::from_str(&ask(&[], "/v1/inventory")).unwrap();
    assert_eq!(inventory["vms"][0]["vm_name"], "a");

    // The long connection, from before the VM was made, for as long as a heartbeat.
    let nobody = "Last-Event-ID: 00000000-0000-0000-0000-000000000000";
    let stream = ask(&["-N", "-m", "3", "-H", nobody], "/v1/events");
    assert!(stream.starts_with("event: reset\n"), "{stream}");
    assert!(stream.contains("\n: heartbeat\n"), "{stream}");

    // What has been sent once is refused when somebody else sends it again.
    let talk = ask(&["-v", "-o", "/dev/null"], "/v1/inventory");
    let sent = talk
        .lines()
        .find_map(|line| line.strip_prefix("> Authorization: Digest "));
    let sent = sent.expect("curl shows what it sends");
    let replay = Command::new("curl")
        .args(["-s", "-i", "-H", &format!("Authorization: Digest {sent}")])
        .arg(format!("{}/v1/inventory", notice.url))
        .output()
        .unwrap();
    let replay = String::from_utf8_lossy(&replay.stdout).to_ascii_lowercase();
    assert!(replay.starts_with("http/1.1 401"), "{replay}");
    assert!(replay.contains("stale=true"), "{replay}");
}
