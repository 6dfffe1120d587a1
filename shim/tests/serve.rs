//! The daemon as a process: what it acknowledged survives its end, however it ends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

struct Daemon {
    process: Child,
    address: SocketAddr,
}

impl Daemon {
    /// Starts it on any port and waits until it listens.
    fn start(dir: &Path) -> Daemon {
        let config = dir.join("shim.toml");
        let text = format!(
            "data_dir = {:?}\n[northbound]\nlisten = \"127.0.0.1:0\"\n\
             [southbound]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n",
            dir.join("data")
        );
        std::fs::write(&config, text).unwrap();
        let mut process = serve(&config).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let address = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
            .find(|line| line["fields"]["message"] == "shim serves")
            .and_then(|line| line["fields"]["northbound"].as_str()?.parse().ok())
            .expect("it says where it listens");
        Daemon { process, address }
    }

    fn ask(&self, request: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: shim\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn terminate(mut self) -> ExitStatus {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it did not stop on SIGTERM");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn serve(config: &Path) -> Command {
    // A file that may not grow is then an error as a full disk is, and not the end.
    let mut command = Command::new("env");
    command
        .args(["--ignore-signal=XFSZ", env!("CARGO_BIN_EXE_shim")])
        .args(["serve", "--config"])
        .arg(config)
        .stderr(Stdio::piped());
    command
}

#[test]
fn what_is_acknowledged_survives_a_stop_and_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let first = Daemon::start(dir.path());
    let made = first.ask("POST /v2.0/networks", r#"{"network": {"name": "kept"}}"#);
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    assert!(first.terminate().success());

    let second = Daemon::start(dir.path());
    assert!(second.ask("GET /v2.0/networks", "").contains("\"kept\""));
    let made = second.ask("POST /v2.0/networks", r#"{"network": {"name": "also"}}"#);
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    drop(second);

    let third = Daemon::start(dir.path());
    let all = third.ask("GET /v2.0/networks", "");
    assert!(
        all.contains("\"kept\"") && all.contains("\"also\""),
        "{all}"
    );
}

#[test]
fn what_does_not_fit_on_the_disk_is_refused_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path());
    let limit = |bytes: &str| {
        let pid = daemon.process.id().to_string();
        let fsize = format!("--fsize={bytes}:unlimited");
        let mut set = Command::new("prlimit");
        let set = set.args(["--pid", &pid, &fsize]).status();
        assert!(set.unwrap().success());
    };
    // So that each request is one commit of some 100 KiB.
    let create = |name: usize| {
        let text = "x".repeat(255);
        let network = format!(r#"{{"name": "<{name}>", "description": "{text}"}}"#);
        let networks = vec![network; 100].join(",");
        let body = format!(r#"{{"networks": [{networks}]}}"#);
        daemon.ask("POST /v2.0/networks", &body)
    };
    let file = dir.path().join("data/sluice.redb");
    limit(&file.metadata().unwrap().len().to_string());
    let answers = (0..200).map(|name| (name, create(name)));
    let mut refused = answers.skip_while(|(_, answer)| answer.starts_with("HTTP/1.1 201"));
    let (first, answer) = refused.next().expect("the disk is full at last");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("was not made"), "{answer}");
    let all = daemon.ask("GET /v2.0/networks", "");
    assert!(!all.contains(&format!("<{first}>")));
    limit("unlimited");
    let answer = create(first + 1);
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    drop(daemon);

    let again = Daemon::start(dir.path());
    let all = again.ask("GET /v2.0/networks", "");
    for name in 0..first + 2 {
        let count = all.matches(&format!("<{name}>")).count();
        assert_eq!(count, if name == first { 0 } else { 100 }, "{name}");
    }
}

#[test]
fn what_stops_it_from_starting_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let running = Daemon::start(dir.path());
    let told = |config: &Path| {
        let output = serve(config).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let error = told(&dir.path().join("shim.toml"));
    assert!(error.contains("in use by another process"), "{error}");

    let config = dir.path().join("other.toml");
    let data = dir.path().join("other");
    let taken = format!(
        "data_dir = {data:?}\n[northbound]\nlisten = \"{}\"\n",
        running.address
    );
    std::fs::write(&config, taken).unwrap();
    let error = told(&config);
    assert!(error.contains("northbound.listen"), "{error}");

    std::fs::write(&config, "colour = 1").unwrap();
    let error = told(&config);
    assert!(
        error.contains("colour") && error.contains("other.toml"),
        "{error}"
    );
}
