//! HTTP digest as programs that we did not write do it: curl, and Python's requests.
//! One that is not installed is passed over, and the output says so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::{Command, Stdio};

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
