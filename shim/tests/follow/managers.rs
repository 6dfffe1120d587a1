//! `shim notice` as a process that is killed and started again.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::Value;
use shim::events::types::Inventory;
use shim::http::{Client, ClientError};

use super::plant::credentials;

/// For a manager that was killed to be asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// A hypervisor manager with the lab's back end.
pub struct Manager {
    process: Option<Child>,
    config: PathBuf,
    pub address: String,
    client: Client,
    _state: tempfile::TempDir,
}

impl Manager {
    /// Starts it on a free port, which it keeps.
    pub fn start() -> Manager {
        let state = tempfile::tempdir().unwrap();
        let config = state.path().join("notice.toml");
        let write = |listen: &str| {
            let text = format!(
                "listen = '{listen}'\nstate_dir = {:?}\nheartbeat_seconds = 1\nevent_log = 64\n\
                 [[users]]\nusername = 'shim'\npassword = 'x'\n[log]\nformat = 'json'\n",
                state.path()
            );
            std::fs::write(&config, text).unwrap();
        };
        write("127.0.0.1:0");
        let (process, address) = spawn(&config);
        write(&address);
        Manager {
            process: Some(process),
            config,
            client: Client::new(&format!("http://{address}"), Some(credentials())).unwrap(),
            address,
            _state: state,
        }
    }

    /// Kills it, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again if it was killed.
    pub fn restart(&mut self) {
        if self.process.is_none() {
            self.process = Some(spawn(&self.config).0);
        }
    }

    /// Changes its VMs; what it refuses is told with `false`.
    pub async fn post(&self, path: &str, body: &Value) -> bool {
        let begun = Instant::now();
        loop {
            match self.client.post(path, body).await {
                Ok(()) => return true,
                Err(ClientError::Status { status, .. }) if refuses(status) => return false,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn delete(&self, path: &str) -> bool {
        let begun = Instant::now();
        loop {
            match self.client.delete(path).await {
                Ok(()) => return true,
                Err(ClientError::Status { status, .. }) if refuses(status) => return false,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn inventory(&self) -> Inventory {
        self.client.get("/v1/inventory").await.unwrap()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.kill();
    }
}

fn refuses(status: StatusCode) -> bool {
    matches!(status, StatusCode::CONFLICT | StatusCode::NOT_FOUND)
}

fn spawn(config: &PathBuf) -> (Child, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_shim"))
        .args(["notice", "--config"])
        .arg(config)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
    let address = log
        .by_ref()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .find_map(|line| Some(line["fields"]["address"].as_str()?.to_owned()))
        .expect("it says where it listens");
    // Or it blocks on a full pipe.
    std::thread::spawn(move || log.for_each(drop));
    (process, address)
}
