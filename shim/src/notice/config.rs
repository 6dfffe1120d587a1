//! Configuration of `shim notice`. Every entry has a default that works.

#[cfg(feature = "libvirt")]
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use uuid::Uuid;

use crate::auth::UserConfig;
#[cfg(feature = "libvirt")]
use crate::config::ConfigError;
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
    /// Of the lab: hosts that VMs can be on. If there is none, any host name can be used,
    /// and the host's UUID is derived from it.
    pub hosts: Vec<HostConfig>,
    /// Follow libvirt's hosts, instead of having the lab's VMs.
    pub libvirt: Option<LibvirtConfig>,
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

/// `[libvirt]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibvirtConfig {
    /// Network of libvirt, on Open vSwitch, whose port groups those of ports are. Every
    /// host has it.
    #[serde(default = "default_network")]
    pub network: String,
    /// Name of the port group of NVEs' trunks.
    #[serde(default = "default_trunk")]
    pub trunk: String,
    /// The hosts, at least one.
    pub hosts: Vec<LibvirtHost>,
}

/// A `[[libvirt.hosts]]` entry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibvirtHost {
    /// Where libvirt is, such as `qemu+tls://hv-a.example/system`.
    pub uri: String,
    /// The host's name in events, if it is not what the host calls itself. It is the
    /// `host_name` of the host's NVE.
    pub name: Option<String>,
}

fn default_network() -> String {
    "sluice".to_owned()
}

fn default_trunk() -> String {
    "PG_Trunk".to_owned()
}

#[cfg(feature = "libvirt")]
impl LibvirtConfig {
    /// Whether it can be used.
    ///
    /// # Errors
    /// With the key.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, reason: &str| {
            let reason = reason.to_owned();
            Err(ConfigError::Value { key, reason })
        };
        let is_name = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        if !is_name(&self.network) {
            return wrong("libvirt.network", "it is no name");
        }
        // libvirt writes down a port group's name as it is, and then cannot read it.
        if !is_name(&self.trunk) || self.trunk.contains(['\'', '"', '<', '>', '&']) {
            return wrong("libvirt.trunk", "it is empty or has one of ' \" < > &");
        }
        if self.hosts.is_empty() {
            return wrong("libvirt.hosts", "give at least one [[libvirt.hosts]]");
        }
        let (mut uris, mut names) = (HashSet::new(), HashSet::new());
        for host in &self.hosts {
            if !is_name(&host.uri) || !uris.insert(&host.uri) {
                return wrong("libvirt.hosts.uri", "it is empty or there twice");
            }
            if let Some(name) = &host.name
                && (!is_name(name) || !names.insert(name))
            {
                return wrong("libvirt.hosts.name", "it is no name, or there twice");
            }
        }
        Ok(())
    }
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
            libvirt: None,
            log: Log::default(),
        }
    }
}
