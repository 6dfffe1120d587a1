//! Configuration of `shim notice`. Every entry has a default that works.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use uuid::Uuid;

use crate::auth::UserConfig;
use crate::config::Log;

/// The configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address that the interface listens on.
    pub listen: SocketAddr,
    /// Directory of the state file, and of the generated password.
    pub state_dir: PathBuf,
    /// Seconds between heartbeats on an idle event connection.
    pub heartbeat_seconds: u64,
    /// Events kept for clients that resume.
    pub event_log: usize,
    /// Events that a client may be behind before it is cut off.
    pub client_lag: usize,
    /// Who may use the interface. If there is none, user `shim` may, with a password
    /// that is made up at the first start and kept in the file `password` of
    /// `state_dir`.
    pub users: Vec<UserConfig>,
    /// Hosts that VMs can be on. If there is none, any host name can be used, and the
    /// host's UUID is derived from it.
    pub hosts: Vec<HostConfig>,
    /// The log, as of the daemon.
    pub log: Log,
}

/// A `[[hosts]]` entry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// The host's name.
    pub name: String,
    /// The host's UUID, if it is not to be derived from the name.
    pub uuid: Option<Uuid>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 9697)),
            state_dir: PathBuf::from("/var/lib/sluice/notice"),
            heartbeat_seconds: 3,
            event_log: 4096,
            client_lag: 1024,
            users: Vec::new(),
            hosts: Vec::new(),
            log: Log::default(),
        }
    }
}
