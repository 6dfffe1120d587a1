//! Configuration of `shim serve`. Every entry has a default that works.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nve_protocol::Vni;
use serde::Deserialize;

use crate::auth::{Secret, UserConfig};
use crate::intent::Settings;

/// The configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Directory of the store and of the shim's key.
    pub data_dir: PathBuf,
    /// The REST API.
    pub northbound: Northbound,
    /// Where appliances connect.
    pub southbound: Southbound,
    /// Rules for networks.
    pub network: Network,
    /// Hypervisor managers to follow.
    pub managers: Vec<Manager>,
    /// Who may post events to `/v1/controllers/{id}/events`; nobody by default.
    pub users: Vec<UserConfig>,
    /// The log.
    pub log: Log,
}

/// `[northbound]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Northbound {
    /// Address that the API listens on.
    pub listen: SocketAddr,
}

/// `[southbound]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Southbound {
    /// Address that appliances connect to.
    pub listen: SocketAddr,
    /// The shim's private key; `shim.key` in `data_dir` by default, made at the
    /// first start.
    pub key_file: Option<PathBuf>,
}

/// `[network]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Bytes of an IP packet that the underlay carries.
    pub underlay_mtu: u16,
    /// First and last VNI that are given to networks.
    pub vni_range: [u32; 2],
}

/// A `[[managers]]` entry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manager {
    /// Name in the API and the log; unique.
    pub name: String,
    /// Base URL of its Subscribe-Notice module.
    pub url: String,
    /// User name.
    pub username: String,
    /// Password; or give `password_file`.
    pub password: Option<Secret>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
}

/// `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or per module.
    pub level: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: PathBuf::from("/var/lib/sluice"),
            northbound: Northbound::default(),
            southbound: Southbound::default(),
            network: Network::default(),
            managers: Vec::new(),
            users: Vec::new(),
            log: Log::default(),
        }
    }
}

impl Default for Northbound {
    fn default() -> Self {
        Northbound {
            listen: SocketAddr::from(([127, 0, 0, 1], 9696)),
        }
    }
}

impl Default for Southbound {
    fn default() -> Self {
        let listen = SocketAddr::from(([0, 0, 0, 0], nve_protocol::DEFAULT_PORT));
        Southbound {
            listen,
            key_file: None,
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Network {
            underlay_mtu: 1500,
            vni_range: [4096, Vni::MAX],
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log {
            level: "info".to_owned(),
        }
    }
}

/// Why a configuration is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path:?}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML, or has an unknown or wrong entry.
    #[error("{path:?}: {error}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        error: toml::de::Error,
    },
    /// An entry has a value that cannot be.
    #[error("{path:?}: {entry}: {reason}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The entry.
        entry: &'static str,
        /// Why.
        reason: String,
    },
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// When it cannot be read, or an entry is unknown or wrong.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let config: Config = read_toml(path)?;
        config
            .check()
            .map_err(|(entry, reason)| ConfigError::Value {
                path: path.to_owned(),
                entry,
                reason,
            })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let [first, last] = self.network.vni_range;
        if first > last || last > Vni::MAX {
            let reason = format!("first and last VNI, at most {}", Vni::MAX);
            return Err(("network.vni_range", reason));
        }
        if self.network.underlay_mtu < 1280 + crate::intent::OVERHEAD_IPV4 {
            let reason = "at least 1330, so that VMs can have IPv6's 1280 bytes".to_owned();
            return Err(("network.underlay_mtu", reason));
        }
        for (at, manager) in self.managers.iter().enumerate() {
            let earlier = self.managers.get(..at).unwrap_or_default();
            if earlier.iter().any(|other| other.name == manager.name) {
                return Err((
                    "managers.name",
                    format!("{:?} is given twice", manager.name),
                ));
            }
        }
        Ok(())
    }

    /// What planning needs of it.
    pub fn settings(&self) -> Settings {
        let [first, last] = self.network.vni_range;
        Settings {
            underlay_mtu: self.network.underlay_mtu,
            vni_range: first..=last,
            ..Settings::default()
        }
    }

    /// File of the shim's private key.
    pub fn key_file(&self) -> PathBuf {
        self.southbound
            .key_file
            .clone()
            .unwrap_or_else(|| self.data_dir.join("shim.key"))
    }
}

/// Reads a TOML file of any configuration.
///
/// # Errors
/// When it cannot be read or parsed.
pub fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
        path: path.to_owned(),
        error,
    })?;
    toml::from_str(&text).map_err(|error| ConfigError::Parse {
        path: path.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shim.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_works_and_entries_are_taken() {
        let config = read("").unwrap();
        assert_eq!(config.northbound.listen.port(), 9696);
        assert_eq!(config.southbound.listen.port(), 6653);
        assert_eq!(config.key_file(), Path::new("/var/lib/sluice/shim.key"));
        let text = "[[managers]]\nname='a'\nurl='http://h'\nusername='u'\npassword='p'\n";
        assert_eq!(read(text).unwrap().managers.len(), 1);
    }

    #[test]
    fn a_wrong_entry_is_named() {
        for (text, name) in [
            ("[northbuond]\n", "northbuond"),
            ("[northbound]\nlisten = 'here'\n", "listen"),
            ("[network]\nvni_range = [5, 4]\n", "network.vni_range"),
            ("[network]\nunderlay_mtu = 900\n", "network.underlay_mtu"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }
}
